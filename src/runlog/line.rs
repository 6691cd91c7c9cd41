//! One line.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Info,
    /// Worth a look.
    Warn,
    /// Something did not work.
    Error,
}

impl Level {
    /// Returns the word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, by the real clock whatever the mesh's: RFC 3339 in UTC, to the millisecond, so that lines order as text.
    pub at: String,
    /// How much it matters.
    pub level: Level,
    /// The run.
    pub run: String,
    /// The product: `domain/product`.
    pub product: String,
    /// The pipeline.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pipeline: String,
    /// Attempt, from 1.
    #[serde(default)]
    pub attempt: u64,
    /// What kind of thing happened, such as `published`; `note` for what was said in passing. Lines of earlier versions may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// For people.
    pub message: String,
    /// Numbers and names of it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
    /// The trace, where traces are recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// The event of what was said in passing.
pub const NOTE: &str = "note";
/// The event of a run's last line.
pub const ENDED: &str = "ended";

impl Line {
    /// Returns whether nothing follows: the run's end is in the ledger.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.event.as_deref() == Some(ENDED)
    }

    /// Returns when it was said, milliseconds UTC.
    #[must_use]
    pub fn at_ms(&self) -> Option<i64> {
        chrono::DateTime::parse_from_rfc3339(&self.at).ok().map(|at| at.timestamp_millis())
    }
}

/// Returns an instant as lines have it.
#[must_use]
pub fn stamp(at_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(at_ms)
        .map_or_else(|| at_ms.to_string(), |at| at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}
