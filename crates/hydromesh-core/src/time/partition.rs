//! Calendar partitions: an hour, day, week or month of a declared zone.

use std::fmt;
use std::str::FromStr;

use chrono::{
    DateTime, Datelike, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Timelike,
};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Interval, Millis};

/// How long one partition is, in calendar terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    /// A clock hour.
    Hour,
    /// A calendar day.
    Day,
    /// A week that starts on Monday (ISO 8601).
    Week,
    /// A calendar month.
    Month,
}

impl fmt::Display for Grain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        })
    }
}

impl FromStr for Grain {
    type Err = PartitionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "hour" => Ok(Self::Hour),
            "day" => Ok(Self::Day),
            "week" => Ok(Self::Week),
            "month" => Ok(Self::Month),
            other => Err(PartitionError::Grain { text: other.to_owned() }),
        }
    }
}

/// Returns the UTC day of an instant, such as `2026-12-30`.
#[must_use]
pub fn day_of(at_ms: Millis) -> String {
    DateTime::from_timestamp_millis(at_ms)
        .map_or_else(|| "a day beyond the calendar".to_owned(), |at| at.date_naive().to_string())
}

/// Why a partition could not be read or combined.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PartitionError {
    /// The grain does not exist.
    #[error("`{text}` is not a partition grain: expected hour, day, week or month")]
    Grain {
        /// What was written.
        text: String,
    },
    /// The key does not have the shape of its grain or is not a real date.
    #[error("`{text}` is not a partition of one {grain}: expected {expected}")]
    Key {
        /// What was written.
        text: String,
        /// The grain it was read as.
        grain: Grain,
        /// An example of the right shape.
        expected: &'static str,
    },
    /// Partitions of different length were put together.
    #[error("partitions by {left} and by {right} cannot be combined")]
    GrainMismatch {
        /// The first grain.
        left: Grain,
        /// The other grain.
        right: Grain,
    },
}

/// One partition: its grain and its position in the calendar.
///
/// A partition is a *civil* label such as "the day 2026-08-03"; which instants it covers depends on the zone
/// the pipeline declares, see [`Partition::interval`]. The position is the number of hours, days, weeks
/// (from Monday 1969-12-29) or months since 1970-01-01, so ranges of partitions are ranges of integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Partition {
    grain: Grain,
    index: i64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    grain: Grain,
    key: String,
}

impl TryFrom<Stored> for Partition {
    type Error = PartitionError;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        Self::parse(stored.grain, &stored.key)
    }
}

impl From<Partition> for Stored {
    fn from(partition: Partition) -> Self {
        Self { grain: partition.grain, key: partition.to_string() }
    }
}

/// The years a key can name: four digits, so that text order is time order.
const YEARS: std::ops::RangeInclusive<i32> = 1..=9999;

const EPOCH: NaiveDate = match NaiveDate::from_ymd_opt(1970, 1, 1) {
    Some(date) => date,
    None => unreachable!(),
};

impl Partition {
    /// Returns the partition at this position, clamped to the years 1 to 9999.
    pub fn from_index(grain: Grain, index: i64) -> Self {
        let first = Self::index_of(grain, Self::civil(*YEARS.start(), 1, 1, 0));
        let last = Self::index_of(grain, Self::civil(*YEARS.end(), 12, 31, 23));
        // The Monday of the week holding 0001-01-01 is that day itself, so no clamp leaves the range.
        Self { grain, index: index.clamp(first, last) }
    }

    /// Returns the partition that holds the instant, in the zone; consistent with [`Self::interval`].
    pub fn containing(grain: Grain, at: Millis, zone: Tz) -> Self {
        let Some(utc) = DateTime::from_timestamp_millis(at) else {
            return Self::from_index(grain, if at < 0 { i64::MIN } else { i64::MAX });
        };
        let local = utc.with_timezone(&zone).naive_local();
        let mut partition = Self::from_index(grain, Self::index_of(grain, local));
        // A clock set back across a partition's border repeats labels of the partition before it; the border
        // is where the label first appears, so such instants belong to the later partition.
        while at >= partition.interval(zone).to() && partition.next() != partition {
            partition = partition.next();
        }
        while at < partition.interval(zone).from() && partition.prev() != partition {
            partition = partition.prev();
        }
        partition
    }

    /// Returns the partition a key such as `2026-08-03T05`, `2026-08-03` or `2026-08` names.
    ///
    /// # Errors
    /// [`PartitionError::Key`] when the text has another shape, is no real date, or is not a Monday for a week.
    pub fn parse(grain: Grain, text: &str) -> Result<Self, PartitionError> {
        let expected = match grain {
            Grain::Hour => "a date and hour such as `2026-08-03T05`",
            Grain::Day => "a date such as `2026-08-03`",
            Grain::Week => "the date of a Monday such as `2026-08-03`",
            Grain::Month => "a month such as `2026-08`",
        };
        let error = || PartitionError::Key { text: text.to_owned(), grain, expected };
        let shape: &[u8] = match grain {
            Grain::Hour => b"0000-00-00T00",
            Grain::Day | Grain::Week => b"0000-00-00",
            Grain::Month => b"0000-00",
        };
        let bytes = text.as_bytes();
        let fits = bytes.len() == shape.len()
            && bytes.iter().zip(shape).all(|(b, s)| if *s == b'0' { b.is_ascii_digit() } else { b == s });
        if !fits {
            return Err(error());
        }
        let number = |from: usize, to: usize| text[from..to].parse::<u32>().unwrap_or(u32::MAX);
        let year = i32::try_from(number(0, 4)).unwrap_or(0);
        let day = if grain == Grain::Month { 1 } else { number(8, 10) };
        let hour = if grain == Grain::Hour { number(11, 13) } else { 0 };
        let start = NaiveDate::from_ymd_opt(year, number(5, 7), day)
            .and_then(|date| date.and_hms_opt(hour, 0, 0))
            .filter(|_| YEARS.contains(&year))
            .ok_or_else(error)?;
        let partition = Self { grain, index: Self::index_of(grain, start) };
        if partition.start() == start { Ok(partition) } else { Err(error()) }
    }

    /// Returns the grain.
    pub const fn grain(self) -> Grain {
        self.grain
    }

    /// Returns the position in the calendar, see the type.
    pub const fn index(self) -> i64 {
        self.index
    }

    /// Returns the civil date and time at which the partition starts, free of any zone.
    pub fn start(self) -> NaiveDateTime {
        let midnight = |date: NaiveDate| date.and_time(NaiveTime::MIN);
        match self.grain {
            Grain::Hour => midnight(EPOCH) + TimeDelta::hours(self.index),
            Grain::Day => midnight(EPOCH + TimeDelta::days(self.index)),
            Grain::Week => midnight(EPOCH + TimeDelta::days(self.index * 7 - 3)),
            Grain::Month => {
                let year = i32::try_from(1970 + self.index.div_euclid(12)).unwrap_or(i32::MAX);
                let month = u32::try_from(self.index.rem_euclid(12) + 1).unwrap_or(1);
                Self::civil(year, month, 1, 0)
            }
        }
    }

    /// Returns the civil date and time at which it ends, which is when the next one starts.
    pub fn end(self) -> NaiveDateTime {
        Self { grain: self.grain, index: self.index + 1 }.start()
    }

    /// Returns the partition after this one; the last of the year 9999 is its own successor.
    #[must_use]
    pub fn next(self) -> Self {
        Self::from_index(self.grain, self.index.saturating_add(1))
    }

    /// Returns the partition before this one; the first of the year 1 is its own predecessor.
    #[must_use]
    pub fn prev(self) -> Self {
        Self::from_index(self.grain, self.index.saturating_sub(1))
    }

    /// Returns the instants the partition covers in a zone, `[from, to)` in UTC.
    ///
    /// A day on which the clock is set forward has 23 hours and one on which it is set back 25. Of partitions by
    /// hour, the skipped hour is empty and the repeated one lasts two hours, so the partitions of any zone
    /// tile the time line.
    pub fn interval(self, zone: Tz) -> Interval {
        Interval::new(first_instant(self.start(), zone), first_instant(self.end(), zone))
    }

    fn civil(year: i32, month: u32, day: u32, hour: u32) -> NaiveDateTime {
        NaiveDate::from_ymd_opt(year, month, day)
            .and_then(|date| date.and_hms_opt(hour, 0, 0))
            .unwrap_or(NaiveDateTime::MAX)
    }

    fn index_of(grain: Grain, at: NaiveDateTime) -> i64 {
        let days = at.date().signed_duration_since(EPOCH).num_days();
        match grain {
            Grain::Hour => days * 24 + i64::from(at.hour()),
            Grain::Day => days,
            Grain::Week => (days + 3).div_euclid(7),
            Grain::Month => (i64::from(at.year()) - 1970) * 12 + i64::from(at.month0()),
        }
    }
}

/// Returns the first instant at which a clock in the zone shows this time or, if it skips it, the first after.
pub(super) fn first_instant(civil: NaiveDateTime, zone: Tz) -> Millis {
    match zone.from_local_datetime(&civil) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => at.timestamp_millis(),
        LocalResult::None => {
            // Inside a gap. Search the last instant whose local time is still before it, by halving between one
            // day before and after; no zone has two transitions so close together that this could miss.
            let before = |at: i64| {
                DateTime::from_timestamp_millis(at)
                    .is_some_and(|utc| utc.with_timezone(&zone).naive_local() < civil)
            };
            let middle = civil.and_utc().timestamp_millis();
            let day = 86_400_000;
            let (mut low, mut high) = (middle - day, middle + day);
            while high - low > 1 {
                let half = low + (high - low) / 2;
                if before(half) {
                    low = half;
                } else {
                    high = half;
                }
            }
            high
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.start();
        let (year, month, day) = (start.year(), start.month(), start.day());
        f.pad(&match self.grain {
            Grain::Hour => format!("{year:04}-{month:02}-{day:02}T{:02}", start.hour()),
            Grain::Day | Grain::Week => format!("{year:04}-{month:02}-{day:02}"),
            Grain::Month => format!("{year:04}-{month:02}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000;

    fn day(text: &str) -> Partition {
        Partition::parse(Grain::Day, text).unwrap()
    }

    #[test]
    fn keys_read_and_print() {
        for (grain, key) in [
            (Grain::Hour, "2026-08-03T05"),
            (Grain::Day, "2026-08-03"),
            (Grain::Week, "2026-08-03"),
            (Grain::Month, "2026-08"),
            (Grain::Week, "1969-12-29"),
            (Grain::Month, "1969-12"),
            (Grain::Day, "0001-01-01"),
            (Grain::Hour, "9999-12-31T23"),
        ] {
            let partition = Partition::parse(grain, key).unwrap();
            assert_eq!(partition.to_string(), key);
            let json = serde_json::to_string(&partition).unwrap();
            assert_eq!(serde_json::from_str::<Partition>(&json).unwrap(), partition);
        }
        assert_eq!(day("2026-02-28").next().to_string(), "2026-03-01");
        assert_eq!(Partition::parse(Grain::Month, "2026-01").unwrap().prev().to_string(), "2025-12");
        assert_eq!(day("9999-12-31").next(), day("9999-12-31"));
        assert_eq!(day("0001-01-01").prev(), day("0001-01-01"));
    }

    #[test]
    fn wrong_keys_are_refused() {
        insta::assert_snapshot!(Partition::parse(Grain::Week, "2026-08-04").unwrap_err(), @"`2026-08-04` is not a partition of one week: expected the date of a Monday such as `2026-08-03`");
        for (grain, key) in [
            (Grain::Day, "2026-02-29"),
            (Grain::Day, "2026-8-3"),
            (Grain::Day, "2026-08-03T00"),
            (Grain::Hour, "2026-08-03T24"),
            (Grain::Hour, "2026-08-03 05"),
            (Grain::Month, "2026-13"),
            (Grain::Day, "0000-01-01"),
            (Grain::Day, "２０２６"),
            (Grain::Day, ""),
        ] {
            assert!(Partition::parse(grain, key).is_err(), "{key}");
        }
    }

    #[test]
    fn days_with_a_clock_change_have_23_and_25_hours() {
        let zurich = chrono_tz::Europe::Zurich;
        assert_eq!(day("2026-03-29").interval(zurich).len(), 23 * HOUR);
        assert_eq!(day("2026-10-25").interval(zurich).len(), 25 * HOUR);
        assert_eq!(day("2026-10-26").interval(zurich).len(), 24 * HOUR);
        assert_eq!(day("2026-10-25").interval(Tz::UTC).len(), 24 * HOUR);
        let hour = |key| Partition::parse(Grain::Hour, key).unwrap().interval(zurich).len();
        assert_eq!([hour("2026-03-29T02"), hour("2026-10-25T02")], [0, 2 * HOUR]);
        // A zone whose clock skips midnight: the day starts at one.
        let beirut = chrono_tz::Asia::Beirut;
        assert_eq!(day("2026-03-29").interval(beirut).len(), 23 * HOUR);
        // A whole civil day that never happened.
        assert_eq!(day("2011-12-30").interval(chrono_tz::Pacific::Apia).len(), 0);
    }

    #[test]
    fn a_day_that_starts_twice_starts_the_first_time() {
        // On 2010-11-07 at 00:01 clocks in Newfoundland went back to 23:01 of the day before.
        let zone = chrono_tz::America::St_Johns;
        let second_evening =
            DateTime::parse_from_rfc3339("2010-11-06T23:30:00-03:30").unwrap().timestamp_millis();
        assert_eq!(Partition::containing(Grain::Day, second_evening, zone), day("2010-11-07"));
        assert_eq!(day("2010-11-07").interval(zone).len(), 25 * HOUR);
        assert_eq!(day("2010-11-06").interval(zone).len(), 24 * HOUR);
    }

    fn zone() -> impl Strategy<Value = Tz> {
        prop::sample::select(vec![
            Tz::UTC,
            chrono_tz::Europe::Zurich,
            chrono_tz::America::New_York,
            chrono_tz::America::St_Johns,
            chrono_tz::Australia::Lord_Howe,
            chrono_tz::Asia::Beirut,
            chrono_tz::Pacific::Apia,
            chrono_tz::Asia::Kathmandu,
        ])
    }

    proptest! {
        #[test]
        fn partitions_tile_the_time_line(
            at in 0_i64..2_500_000_000_000,
            zone in zone(),
            grain in prop::sample::select(vec![Grain::Hour, Grain::Day, Grain::Week, Grain::Month]),
        ) {
            let here = Partition::containing(grain, at, zone);
            prop_assert!(here.interval(zone).contains(at));
            prop_assert_eq!(here.interval(zone).to(), here.next().interval(zone).from());
            prop_assert_eq!(here.next().prev(), here);
            prop_assert!(here.next() > here);
            prop_assert_eq!(Partition::parse(grain, &here.to_string()).unwrap(), here);
        }

        #[test]
        fn any_instant_has_a_partition(at in any::<i64>(), zone in zone()) {
            let _ = Partition::containing(Grain::Hour, at, zone);
        }
    }
}
