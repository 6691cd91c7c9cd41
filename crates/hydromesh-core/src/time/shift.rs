//! How far a border of a partition is moved: `-7d`, `-1mo`, `0h`.

use std::fmt;
use std::str::FromStr;

use chrono::{Months, NaiveDateTime, TimeDelta};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::Millis;
use super::partition::first_instant;

/// What a [`Shift`] is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShiftUnit {
    /// `h`: an hour that passes, whatever the clock shows.
    Hour,
    /// `d`: to the same time of another day.
    Day,
    /// `w`: seven days.
    Week,
    /// `mo`: to the same day of another month, or its last one. Only whole days keep their order.
    Month,
}

impl ShiftUnit {
    /// Returns the unit as it is written.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Hour => "h",
            Self::Day => "d",
            Self::Week => "w",
            Self::Month => "mo",
        }
    }

    /// How many of them make a century: partitions end with the year 9999, and nothing is moved so far that it leaves the
    /// calendar.
    const fn most(self) -> i32 {
        match self {
            Self::Hour => 876_000,
            Self::Day => 36_500,
            Self::Week => 5_200,
            Self::Month => 1_200,
        }
    }
}

/// How far a border is moved along the calendar of a zone; backwards if negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shift {
    count: i32,
    unit: ShiftUnit,
}

/// Why a text is no [`Shift`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{text}` is no distance from a partition: expected a whole number of h, d, w or mo within a century, such as `-7d` or `-1mo`"
)]
pub struct ShiftError {
    /// What was written.
    pub text: String,
}

impl Shift {
    /// Nowhere else.
    pub const ZERO: Self = Self { count: 0, unit: ShiftUnit::Day };

    /// Returns how many units it is.
    #[must_use]
    pub const fn count(self) -> i32 {
        self.count
    }

    /// Returns the unit.
    #[must_use]
    pub const fn unit(self) -> ShiftUnit {
        self.unit
    }

    /// Returns whether it leaves everything where it is.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.count == 0
    }

    /// Returns the instant to which the first instant of a civil time is moved, in a zone.
    ///
    /// Hours pass; days, weeks and months are those of the calendar, so that a day with a clock change is one day.
    #[must_use]
    pub fn instant(self, civil: NaiveDateTime, zone: Tz) -> Millis {
        let hours = |count: i64| count * 3_600_000;
        match self.unit {
            ShiftUnit::Hour => first_instant(civil, zone) + hours(self.count.into()),
            _ => first_instant(self.civil(civil), zone),
        }
    }

    /// Returns the instant to which the end of a stretch is moved, given the civil time at which it ends.
    ///
    /// A month back from the end of the 29th of March is not the end of the 28th of February alone: the stretch keeps its last
    /// moment, so that none is left without length.
    #[must_use]
    pub fn end_instant(self, end: NaiveDateTime, zone: Tz) -> Millis {
        let at = self.instant(end, zone);
        if self.unit != ShiftUnit::Month || self.count == 0 {
            return at;
        }
        let moment = TimeDelta::milliseconds(1);
        at.max(first_instant(self.civil(end - moment) + moment, zone))
    }

    fn civil(self, civil: NaiveDateTime) -> NaiveDateTime {
        let months = Months::new(self.count.unsigned_abs());
        let moved = match self.unit {
            ShiftUnit::Hour => None,
            ShiftUnit::Day => civil.checked_add_signed(TimeDelta::days(self.count.into())),
            ShiftUnit::Week => civil.checked_add_signed(TimeDelta::days(i64::from(self.count) * 7)),
            ShiftUnit::Month if self.count < 0 => civil.checked_sub_months(months),
            ShiftUnit::Month => civil.checked_add_months(months),
        };
        moved.unwrap_or(civil)
    }
}

impl Default for Shift {
    fn default() -> Self {
        Self::ZERO
    }
}

impl FromStr for Shift {
    type Err = ShiftError;

    fn from_str(text: &str) -> Result<Self, ShiftError> {
        let error = || ShiftError { text: text.to_owned() };
        let trimmed = text.trim();
        let digits = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
        let suffix = digits.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let number = &trimmed[..trimmed.len() - suffix.len()];
        let units = [ShiftUnit::Hour, ShiftUnit::Day, ShiftUnit::Week, ShiftUnit::Month];
        let unit = units.into_iter().find(|unit| unit.suffix() == suffix).ok_or_else(error)?;
        let count: i32 = number.parse().map_err(|_| error())?;
        if count.unsigned_abs() > unit.most().unsigned_abs() {
            return Err(error());
        }
        Ok(if count == 0 { Self::ZERO } else { Self { count, unit } })
    }
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}", self.count, self.unit.suffix()))
    }
}

impl Serialize for Shift {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Shift {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate};

    use super::*;

    fn moved(shift: &str, civil: &str, zone: Tz) -> String {
        let civil = NaiveDateTime::parse_from_str(civil, "%Y-%m-%dT%H:%M").expect("a time");
        let at = shift.parse::<Shift>().expect("a shift").instant(civil, zone);
        DateTime::from_timestamp_millis(at).expect("in range").with_timezone(&zone).to_rfc3339()
    }

    #[test]
    fn texts_read_and_print() {
        for text in ["-7d", "1w", "-1mo", "-24h", "36500d", "-1200mo"] {
            let shift: Shift = text.parse().expect(text);
            assert_eq!(shift.to_string(), text);
            assert_eq!(
                serde_json::from_str::<Shift>(&serde_json::to_string(&shift).unwrap()).unwrap(),
                shift
            );
        }
        assert_eq!("+2d".parse::<Shift>().unwrap().to_string(), "2d");
        for zero in ["0d", "-0mo", "0h"] {
            assert_eq!(zero.parse::<Shift>().unwrap(), Shift::ZERO);
        }
        insta::assert_snapshot!("-1m".parse::<Shift>().unwrap_err(), @"`-1m` is no distance from a partition: expected a whole number of h, d, w or mo within a century, such as `-7d` or `-1mo`");
        for text in ["", "-", "d", "7", "- 7d", "--7d", "1.5d", "-1201mo", "99999999999d", "٣d"] {
            assert!(text.parse::<Shift>().is_err(), "{text}");
        }
    }

    #[test]
    fn days_are_those_of_the_calendar_and_hours_pass() {
        let zurich = chrono_tz::Europe::Zurich;
        // The clock is set forward on 2026-03-29 and back on 2026-10-25.
        assert_eq!(moved("-1d", "2026-03-30T00:00", zurich), "2026-03-29T00:00:00+01:00");
        assert_eq!(moved("-24h", "2026-03-30T00:00", zurich), "2026-03-28T23:00:00+01:00");
        assert_eq!(moved("-1w", "2026-10-26T00:00", zurich), "2026-10-19T00:00:00+02:00");
        assert_eq!(moved("-1h", "2026-03-29T03:00", zurich), "2026-03-29T01:00:00+01:00");
        assert_eq!(moved("-1mo", "2026-03-31T00:00", zurich), "2026-02-28T00:00:00+01:00");
        assert_eq!(moved("1mo", "2026-10-01T00:00", zurich), "2026-11-01T00:00:00+01:00");
    }

    #[test]
    fn no_day_is_moved_to_a_stretch_without_length() {
        let shift: Shift = "-1mo".parse().unwrap();
        for day in 1..=31 {
            let start =
                NaiveDate::from_ymd_opt(2026, 3, day).expect("a day").and_time(chrono::NaiveTime::MIN);
            let end = start + TimeDelta::days(1);
            let (from, to) = (shift.instant(start, Tz::UTC), shift.end_instant(end, Tz::UTC));
            assert_eq!(to - from, 86_400_000, "{day}");
        }
        // A whole month is moved to a whole one.
        let first =
            |month| NaiveDate::from_ymd_opt(2026, month, 1).expect("a day").and_time(chrono::NaiveTime::MIN);
        assert_eq!(shift.end_instant(first(3), Tz::UTC), first_instant(first(2), Tz::UTC));
    }
}
