//! Reads the text and JSON of a cell as its contract's type.

use std::borrow::Cow;
use std::fmt;

use arrow::datatypes::DataType;
use chrono::{Datelike as _, NaiveDate};
use hydromesh_core::model::{Column, LogicalType};
use serde_json::Value;

use crate::engine::types::arrow_type;

/// How the values of a column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Time,
    Day,
    Instant,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Integer,
    Flag,
    Bytes,
    /// So many dimensions; 0 for any number.
    Vector(u32),
}

/// One value, not yet in an array.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Text(Cow<'a, str>),
    /// Days since 1970-01-01.
    Day(i32),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Instant(i64),
    Double(f64),
    /// In units of the last decimal place.
    Decimal(i128),
    Integer(i64),
    Flag(bool),
    Bytes(Vec<u8>),
    Vector(Vec<f32>),
}

/// What a value must be, for people.
impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => out.write_str("text"),
            Self::Time => out.write_str("a time of day (HH:MM:SS)"),
            Self::Day => out.write_str("a date (YYYY-MM-DD)"),
            Self::Instant => out.write_str("a timestamp (YYYY-MM-DDTHH:MM:SSZ)"),
            Self::Double => out.write_str("a number"),
            Self::Decimal { precision, scale } => write!(out, "a decimal({precision},{scale})"),
            Self::Integer => out.write_str("a 64-bit integer"),
            Self::Flag => out.write_str("true or false"),
            Self::Bytes => out.write_str("bytes in hexadecimal"),
            Self::Vector(0) => out.write_str("a list of numbers"),
            Self::Vector(dimensions) => write!(out, "a list of {dimensions} numbers"),
        }
    }
}

impl Kind {
    pub(super) fn of(column: &Column) -> Self {
        match &column.logical {
            LogicalType::String => Self::Text,
            LogicalType::Time => Self::Time,
            LogicalType::Date => Self::Day,
            LogicalType::Timestamp => Self::Instant,
            LogicalType::Number => match arrow_type(column) {
                DataType::Decimal128(precision, scale) => {
                    Self::Decimal { precision, scale: scale.unsigned_abs() }
                }
                _ => Self::Double,
            },
            LogicalType::Integer => Self::Integer,
            LogicalType::Boolean => Self::Flag,
            LogicalType::Binary => Self::Bytes,
            LogicalType::Vector(dimensions) => Self::Vector(*dimensions),
        }
    }

    /// Returns the value that a text stands for; `None` when it is none of this kind.
    ///
    /// Spaces around a value are not skipped, and every value is read whole or not at all: no digit is rounded away but
    /// those of a double, and of a timestamp below the microsecond.
    pub(super) fn text(self, text: Cow<'_, str>) -> Option<Cell<'_>> {
        Some(match self {
            Self::Text => Cell::Text(text),
            Self::Time => {
                clock(&text).filter(|(_, rest)| rest.is_empty()).map(|_| Cell::Text(text.clone()))?
            }
            Self::Day => Cell::Day(day(&text)?),
            Self::Instant => Cell::Instant(instant(&text)?),
            // `nan` and `inf` parse, and are numbers that no sum survives.
            Self::Double => Cell::Double(text.parse::<f64>().ok().filter(|number| number.is_finite())?),
            Self::Decimal { precision, scale } => Cell::Decimal(decimal(&text, precision, scale)?),
            Self::Integer => Cell::Integer(text.parse().ok()?),
            Self::Flag => Cell::Flag(flag(&text)?),
            Self::Bytes => Cell::Bytes(hex::decode(text.strip_prefix("\\x").unwrap_or(&text)).ok()?),
            Self::Vector(_) => return self.json(serde_json::from_str(&text).ok()?),
        })
    }

    /// Returns the value that a JSON value stands for; `None` when it is none of this kind.
    ///
    /// JSON has neither dates nor decimals nor bytes: they are texts, and a decimal may be a number too. It does not tell
    /// 3 from 3.0 either: both are integers.
    pub(super) fn json(self, value: Value) -> Option<Cell<'static>> {
        Some(match (self, value) {
            (_, Value::Null) => Cell::Null,
            (
                Self::Text | Self::Time | Self::Day | Self::Instant | Self::Decimal { .. } | Self::Bytes,
                Value::String(text),
            ) => self.text(Cow::Owned(text))?,
            (Self::Decimal { precision, scale }, Value::Number(number)) => {
                Cell::Decimal(decimal(&number.to_string(), precision, scale)?)
            }
            (Self::Double, Value::Number(number)) => Cell::Double(number.as_f64()?),
            (Self::Integer, Value::Number(number)) => Cell::Integer(match number.as_i64() {
                Some(integer) => integer,
                None => whole(number.as_f64().filter(|_| number.is_f64())?)?,
            }),
            (Self::Flag, Value::Bool(flag)) => Cell::Flag(flag),
            (Self::Vector(dimensions), Value::Array(items)) => {
                let fits = dimensions == 0 || u32::try_from(items.len()) == Ok(dimensions);
                let numbers =
                    items.iter().map(|item| item.as_f64().and_then(single)).collect::<Option<Vec<_>>>();
                Cell::Vector(numbers.filter(|_| fits)?)
            }
            _ => return None,
        })
    }
}

/// The largest doubles that are next to their neighbouring integers: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

#[expect(clippy::cast_possible_truncation, reason = "within 2^53 and without a fraction")]
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "embeddings are single precision; an overflow is refused"
)]
fn single(number: f64) -> Option<f32> {
    Some(number as f32).filter(|number| number.is_finite())
}

/// `t`, `f`, `1` and `0` are what databases export.
fn flag(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(&["true", "t", "1"]) {
        Some(true)
    } else if is(&["false", "f", "0"]) {
        Some(false)
    } else {
        None
    }
}

/// Returns the number of exactly so many digits.
fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0_u32, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// 0001-01-01 is day 1 of the common era, and 1970-01-01 is this one.
const EPOCH: i32 = 719_163;

fn day(text: &str) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *text.as_bytes() else { return None };
    let year = i32::try_from(digits(&[y1, y2, y3, y4])?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, digits(&[m1, m2])?, digits(&[d1, d2])?)?;
    Some(date.num_days_from_ce() - EPOCH)
}

/// Reads `HH:MM`, `HH:MM:SS` or `HH:MM:SS.fraction` and returns its microseconds and what follows.
fn clock(text: &str) -> Option<(i64, &str)> {
    let two =
        |at: usize, below: u32| digits(text.as_bytes().get(at..at + 2)?).filter(|number| *number < below);
    let colon = |at: usize| text.as_bytes().get(at) == Some(&b':');
    let hours = two(0, 24)?;
    let minutes = two(3, 60).filter(|_| colon(2))?;
    let mut micros = i64::from(hours * 60 + minutes) * 60_000_000;
    if !colon(5) {
        return Some((micros, text.get(5..)?));
    }
    micros += i64::from(two(6, 60)?) * 1_000_000;
    let rest = text.get(8..)?;
    let Some(fraction) = rest.strip_prefix('.') else { return Some((micros, rest)) };
    let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
    if !(1..=9).contains(&length) {
        return None;
    }
    let (fraction, rest) = fraction.split_at(length);
    let nanos = digits(format!("{fraction:0<9}").as_bytes())?;
    Some((micros + i64::from(nanos / 1000), rest))
}

/// Reads an ISO 8601 date and time. One that names no zone is UTC.
fn instant(text: &str) -> Option<i64> {
    let days = i64::from(day(text.get(..10)?)?);
    let time = text.get(10..)?.strip_prefix(['T', 't', ' '])?;
    let (micros, zone) = clock(time)?;
    let offset = match zone.as_bytes() {
        [] | b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, minutes @ ..] => {
            let minutes = match minutes {
                [] => 0,
                [b':', m1, m2] | [m1, m2] => digits(&[*m1, *m2]).filter(|minutes| *minutes < 60)?,
                _ => return None,
            };
            let hours = digits(&[*h1, *h2]).filter(|hours| *hours < 24)?;
            let offset = i64::from(hours * 60 + minutes) * 60_000_000;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    Some(days * 86_400_000_000 + micros - offset)
}

/// Reads a decimal, exponent allowed; a digit beyond the scale that is not 0, or one too many, does not fit.
fn decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, number) = match number.strip_prefix(['-', '+']) {
        Some(rest) => (number.starts_with('-'), rest),
        None => (false, number),
    };
    let (before, after) = number.split_once('.').unwrap_or((number, ""));
    if before.is_empty() && after.is_empty() {
        return None;
    }
    let mut value = before.bytes().chain(after.bytes()).try_fold(0_i128, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| i128::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    if value == 0 {
        return Some(0);
    }
    let mut shift = i64::from(exponent) + i64::from(scale) - i64::try_from(after.len()).ok()?;
    while shift > 0 {
        value = value.checked_mul(10)?;
        shift -= 1;
    }
    while shift < 0 {
        if value % 10 != 0 {
            return None;
        }
        value /= 10;
        shift += 1;
    }
    (value < 10_i128.checked_pow(u32::from(precision))?).then_some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: Kind, text: &str) -> Option<Cell<'_>> {
        kind.text(Cow::Borrowed(text))
    }

    #[test]
    fn dates_and_times_are_iso_and_nothing_else() {
        assert_eq!(text(Kind::Day, "1970-01-02"), Some(Cell::Day(1)));
        assert_eq!(text(Kind::Day, "2024-02-29"), Some(Cell::Day(19_782)));
        for bad in
            ["2023-02-29", "01/02/2024", "2024-1-2", "2024-01-02 ", "20240102", "+024-01-02", "２024-1-2", ""]
        {
            assert_eq!(text(Kind::Day, bad), None, "{bad}");
        }
        let micros = |one: &str| match text(Kind::Instant, one) {
            Some(Cell::Instant(micros)) => Some(micros),
            _ => None,
        };
        for same in [
            "1970-01-01T00:00:01Z",
            "1970-01-01 00:00:01",
            "1970-01-01T01:00:01+01:00",
            "1969-12-31T22:30:01-0130",
            "1970-01-01T02:00:01.000000999+02",
        ] {
            assert_eq!(micros(same), Some(1_000_000), "{same}");
        }
        assert_eq!(micros("1970-01-01T00:01:00.5Z"), Some(60_500_000));
        assert_eq!(micros("1969-12-31T23:59Z"), Some(-60_000_000));
        for bad in [
            "1970-01-01",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00 UTC",
            "1970-01-01T00:00:00+1:00",
            "1970-01-01T00:00:00Z ",
            "1970-01-01é00:00:00",
        ] {
            assert_eq!(micros(bad), None, "{bad}");
        }
        assert!(text(Kind::Time, "23:59:59.5").is_some());
        assert_eq!(text(Kind::Time, "23:59:59Z"), None);
    }

    #[test]
    fn no_digit_of_a_decimal_is_lost() {
        let cents = Kind::Decimal { precision: 5, scale: 2 };
        for (given, wanted) in [
            ("1", Some(100)),
            ("-1.5", Some(-150)),
            ("+.25", Some(25)),
            ("1.500", Some(150)),
            ("1.5e1", Some(1500)),
            ("125E-2", Some(125)),
            ("999.99", Some(99_999)),
            ("0e999999999", Some(0)),
            ("1000", None),
            ("1.005", None),
            ("1e999999999", None),
            ("1e-999999999", None),
            (".", None),
            ("-", None),
            ("", None),
            ("1,5", None),
            ("99999999999999999999999999999999999999999", None),
        ] {
            assert_eq!(text(cents, given), wanted.map(Cell::Decimal), "{given}");
        }
        assert_eq!(cents.json(serde_json::json!(19.9)), Some(Cell::Decimal(1990)));
        assert_eq!(cents.json(serde_json::json!("19.90")), Some(Cell::Decimal(1990)));
    }

    #[test]
    fn numbers_are_finite_and_integers_whole() {
        assert_eq!(text(Kind::Double, "-1e3"), Some(Cell::Double(-1000.0)));
        for bad in ["nan", "inf", "-Infinity", "1e999", " 1", "1,0", ""] {
            assert_eq!(text(Kind::Double, bad), None, "{bad}");
        }
        assert_eq!(text(Kind::Integer, "-9223372036854775808"), Some(Cell::Integer(i64::MIN)));
        for bad in ["9223372036854775808", "1.0", "two", "1e3"] {
            assert_eq!(text(Kind::Integer, bad), None, "{bad}");
        }
        assert_eq!(Kind::Integer.json(serde_json::json!(3.0)), Some(Cell::Integer(3)));
        for bad in [
            serde_json::json!(3.5),
            serde_json::json!(u64::MAX),
            serde_json::json!(1e300),
            serde_json::json!("3"),
        ] {
            assert_eq!(Kind::Integer.json(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn flags_bytes_and_vectors() {
        assert_eq!(text(Kind::Flag, "TRUE"), Some(Cell::Flag(true)));
        assert_eq!(text(Kind::Flag, "0"), Some(Cell::Flag(false)));
        assert_eq!(text(Kind::Flag, "yes"), None);
        assert_eq!(text(Kind::Bytes, "\\x00fF"), Some(Cell::Bytes(vec![0, 255])));
        assert_eq!(text(Kind::Bytes, "0"), None);
        assert_eq!(text(Kind::Vector(2), "[1, 0.5]"), Some(Cell::Vector(vec![1.0, 0.5])));
        for bad in ["[1]", "[1, 2, 3]", "[1, null]", "[1, 1e300]", "{}", "x"] {
            assert_eq!(text(Kind::Vector(2), bad), None, "{bad}");
        }
        assert_eq!(text(Kind::Vector(0), "[]"), Some(Cell::Vector(Vec::new())));
    }
}
