//! A length of time as a person writes it: `30s`, `10m`, `6h`, `2d`, `8w`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The units a [`Span`] can be written in. There is no month or year: their length depends on the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpanUnit {
    /// `ms`
    Millisecond,
    /// `s`
    Second,
    /// `m`
    Minute,
    /// `h`
    Hour,
    /// `d`: always 24 hours; a calendar day with a daylight-saving change is a [`super::Partition`].
    Day,
    /// `w`: always 7 times 24 hours.
    Week,
}

impl SpanUnit {
    /// Returns the number of milliseconds in one unit.
    pub const fn millis(self) -> i64 {
        match self {
            Self::Millisecond => 1,
            Self::Second => 1_000,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
            Self::Week => 604_800_000,
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Millisecond => "ms",
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
            Self::Day => "d",
            Self::Week => "w",
        }
    }
}

/// A non-negative length of time that remembers the unit it was written in.
///
/// The unit is kept because it is visible to users: a feature declared over `24h` yields the column
/// `spend_24h`, not `spend_1d`. Equality, order and hash look only at the length.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    millis: i64,
    unit: SpanUnit,
}

/// Why a text is not a [`Span`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpanError {
    /// The text does not have the shape `<number><unit>`.
    #[error(
        "`{text}` is not a duration: expected a whole number and one of ms, s, m, h, d, w, such as `30s` or `7d`"
    )]
    Malformed {
        /// What was written.
        text: String,
    },
    /// The text has the right shape but a unit that does not exist.
    #[error("`{text}` has the unknown unit `{unit}`: expected one of ms, s, m, h, d, w")]
    UnknownUnit {
        /// What was written.
        text: String,
        /// The part after the number.
        unit: String,
    },
    /// The length does not fit into 64-bit milliseconds.
    #[error("`{text}` is too long: expected less than 292 million years")]
    TooLong {
        /// What was written.
        text: String,
    },
}

impl Span {
    /// Returns `count` units, or `None` when that is negative or does not fit into 64-bit milliseconds.
    pub const fn new(count: i64, unit: SpanUnit) -> Option<Self> {
        if count < 0 {
            return None;
        }
        match count.checked_mul(unit.millis()) {
            Some(millis) => Some(Self { millis, unit }),
            None => None,
        }
    }

    /// Returns a span of this many milliseconds, written in the largest unit up to a day that divides it;
    /// negative lengths become zero.
    pub fn from_millis(millis: i64) -> Self {
        let millis = millis.max(0);
        let unit = [SpanUnit::Day, SpanUnit::Hour, SpanUnit::Minute, SpanUnit::Second]
            .into_iter()
            .find(|unit| millis > 0 && millis % unit.millis() == 0)
            .unwrap_or(if millis == 0 { SpanUnit::Second } else { SpanUnit::Millisecond });
        Self { millis, unit }
    }

    /// Returns the length in milliseconds.
    pub const fn millis(self) -> i64 {
        self.millis
    }

    /// Returns whether the length is zero.
    pub const fn is_zero(self) -> bool {
        self.millis == 0
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, suffix) = trimmed.split_at(digits);
        if digits == 0 || suffix.is_empty() {
            return Err(SpanError::Malformed { text: text.to_owned() });
        }
        let unit = match suffix {
            "ms" => SpanUnit::Millisecond,
            "s" => SpanUnit::Second,
            "m" => SpanUnit::Minute,
            "h" => SpanUnit::Hour,
            "d" => SpanUnit::Day,
            "w" => SpanUnit::Week,
            other if other.chars().all(char::is_alphabetic) => {
                return Err(SpanError::UnknownUnit { text: text.to_owned(), unit: other.to_owned() });
            }
            _ => return Err(SpanError::Malformed { text: text.to_owned() }),
        };
        number
            .parse::<i64>()
            .ok()
            .and_then(|count| Self::new(count, unit))
            .ok_or_else(|| SpanError::TooLong { text: text.to_owned() })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}", self.millis / self.unit.millis(), self.unit.suffix()))
    }
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        self.millis == other.millis
    }
}

impl Eq for Span {}

impl PartialOrd for Span {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Span {
    fn cmp(&self, other: &Self) -> Ordering {
        self.millis.cmp(&other.millis)
    }
}

impl Hash for Span {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.millis.hash(state);
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_written_unit_is_kept() {
        for text in ["30s", "10m", "90m", "6h", "24h", "2d", "7d", "8w", "1500ms", "0s"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string(), text);
            assert_eq!(serde_json::to_string(&span).unwrap(), format!("\"{text}\""));
        }
        assert_eq!("24h".parse::<Span>().unwrap(), "1d".parse::<Span>().unwrap());
        assert_eq!("8w".parse::<Span>().unwrap().millis(), 8 * 7 * 86_400_000);
    }

    #[test]
    fn errors_say_what_was_expected() {
        insta::assert_snapshot!("7 days".parse::<Span>().unwrap_err(), @"`7 days` is not a duration: expected a whole number and one of ms, s, m, h, d, w, such as `30s` or `7d`");
        insta::assert_snapshot!("7y".parse::<Span>().unwrap_err(), @"`7y` has the unknown unit `y`: expected one of ms, s, m, h, d, w");
        insta::assert_snapshot!("99999999999999w".parse::<Span>().unwrap_err(), @"`99999999999999w` is too long: expected less than 292 million years");
        for text in ["", "s", "5", "-5s", "1.5h", "1h30m", "٣s", "5 s"] {
            assert!(matches!(text.parse::<Span>(), Err(SpanError::Malformed { .. })), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_length_round_trips(millis in 0..i64::MAX) {
            let span = Span::from_millis(millis);
            prop_assert_eq!(span.millis(), millis);
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }

        #[test]
        fn any_text_parses_or_errs(text in "\\PC{0,12}") {
            let _ = text.parse::<Span>();
        }
    }
}
