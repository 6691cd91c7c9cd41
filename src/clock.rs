//! The one clock. Ledger, table commits, message timestamps and schedules all take their time from it.

use std::time::Instant;

use chrono::{DateTime, Utc};

/// A source of time, milliseconds UTC.
#[derive(Debug, Clone)]
pub struct Clock {
    base_ms: i64,
    started: Instant,
    pace: Pace,
}

/// How fast a clock runs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pace {
    /// The system's time.
    System,
    /// Stands still.
    Fixed,
    /// So many times real time.
    Times(f64),
}

impl Clock {
    /// Returns the system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self { base_ms: 0, started: Instant::now(), pace: Pace::System }
    }

    /// Returns a clock that stands still.
    #[must_use]
    pub fn fixed(at_ms: i64) -> Self {
        Self { base_ms: at_ms, started: Instant::now(), pace: Pace::Fixed }
    }

    /// Returns a clock that starts at `base_ms` now and runs `times` as fast as real time.
    #[must_use]
    pub fn scaled(base_ms: i64, times: f64) -> Self {
        Self { base_ms, started: Instant::now(), pace: Pace::Times(times) }
    }

    /// Returns whether it always says the same.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        self.pace == Pace::Fixed
    }

    /// Returns the present time, milliseconds UTC.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        match self.pace {
            Pace::System => Utc::now().timestamp_millis(),
            Pace::Fixed => self.base_ms,
            #[expect(
                clippy::cast_possible_truncation,
                reason = "milliseconds of a run fit an i64 many times over"
            )]
            Pace::Times(times) => {
                self.base_ms + (self.started.elapsed().as_secs_f64() * 1_000.0 * times) as i64
            }
        }
    }

    /// Returns the real duration of a span of this clock; never zero, so that a loop that waits for it yields.
    #[must_use]
    pub fn real(&self, span_ms: i64) -> std::time::Duration {
        let millis = u64::try_from(span_ms.max(1)).unwrap_or(1);
        match self.pace {
            Pace::System | Pace::Fixed => std::time::Duration::from_millis(millis),
            Pace::Times(times) => std::time::Duration::from_millis(millis)
                .div_f64(times.max(0.001))
                .max(std::time::Duration::from_millis(1)),
        }
    }
}

/// Returns an instant as RFC 3339 in UTC, to the second.
#[must_use]
pub fn rfc3339(at_ms: i64) -> String {
    DateTime::from_timestamp_millis(at_ms)
        .map_or_else(|| at_ms.to_string(), |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}
