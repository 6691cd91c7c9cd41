//! One state per calendar day, for the bars of the status site.

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::{SliceState, Tally, Timeline};
use crate::time::{Grain, Interval, Millis, Partition};

/// What a day was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayState {
    /// The day.
    pub day: Partition,
    /// Bad if any of it was; otherwise unknown if any of it was (or nothing was known yet), otherwise good;
    /// excluded if all of it was.
    pub state: SliceState,
    /// Where its time went. Their sum is the length of the day, 23 or 25 hours when the clock changes; of today, the
    /// time so far.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Returns the last `days` calendar days of a zone, oldest first, the last one being today so far.
pub fn daily(timeline: &Timeline, now: Millis, days: usize, zone: Tz) -> Vec<DayState> {
    let mut day = Partition::containing(Grain::Day, now, zone);
    let mut states = Vec::with_capacity(days);
    for _ in 0..days {
        let whole = day.interval(zone);
        let tally = timeline.tally(Interval::new(whole.from(), whole.to().min(now)));
        states.push(DayState { day, state: worst(tally), tally });
        day = day.prev();
    }
    states.reverse();
    states
}

fn worst(tally: Tally) -> SliceState {
    if tally.bad_ms > 0 {
        SliceState::Bad
    } else if tally.unknown_ms > 0 {
        SliceState::Unknown
    } else if tally.good_ms > 0 {
        SliceState::Good
    } else if tally.excluded_ms > 0 && tally.uncollected_ms == 0 {
        SliceState::Excluded
    } else {
        SliceState::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::tests::{MINUTE, age};
    use super::super::{Facts, Publish};
    use super::*;
    use crate::time::IntervalSet;

    fn instant(text: &str) -> Millis {
        Partition::parse(Grain::Hour, text).unwrap().interval(Tz::UTC).from()
    }

    #[test]
    fn bars_follow_the_calendar_of_the_zone() {
        let zone = chrono_tz::Europe::Zurich;
        let hour = 60 * MINUTE;
        let first = instant("2026-10-23T10");
        let publishes = (0..200)
            .map(|step| first + step * hour)
            // A source that stands still for half of the 27th.
            .filter(|at| !(instant("2026-10-27T06")..instant("2026-10-27T18")).contains(at))
            .map(|at| Publish { at, data_time_high: at })
            .collect();
        let maintenance = Partition::parse(Grain::Day, "2026-10-26").unwrap().interval(zone);
        let facts = Facts { publishes, exclusions: IntervalSet::from(maintenance), ..Facts::default() };
        let timeline = Timeline::of(&age("2h"), &facts);
        let bars = daily(&timeline, instant("2026-10-28T12"), 7, zone);
        let text: Vec<String> = bars
            .iter()
            .map(|bar| {
                let Tally { good_ms, bad_ms, unknown_ms, excluded_ms, uncollected_ms } = bar.tally;
                let hours = [good_ms, bad_ms, unknown_ms, excluded_ms, uncollected_ms].map(|ms| ms / hour);
                format!("{} {:?} {hours:?}", bar.day, bar.state)
            })
            .collect();
        insta::assert_snapshot!(text.join("\n"), @"
        2026-10-22 Unknown [0, 0, 0, 0, 24]
        2026-10-23 Good [12, 0, 0, 0, 12]
        2026-10-24 Good [24, 0, 0, 0, 0]
        2026-10-25 Good [25, 0, 0, 0, 0]
        2026-10-26 Excluded [0, 0, 0, 24, 0]
        2026-10-27 Bad [13, 11, 0, 0, 0]
        2026-10-28 Good [13, 0, 0, 0, 0]
        ");
    }

    #[test]
    fn ninety_days_of_a_new_product_are_unknown() {
        let bars = daily(&Timeline::new(age("1h")), instant("2026-10-28T12"), 90, Tz::UTC);
        assert_eq!(bars.len(), 90);
        assert!(bars.iter().all(|bar| bar.state == SliceState::Unknown));
    }
}
