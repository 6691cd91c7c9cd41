//! The values that flow in and out of aggregates, and the total order of rows.

use std::cmp::Ordering;
use std::fmt;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

use super::{DecodeError, Reader, Writer};

/// One value of a column.
///
/// Equality is identity of the stored value (floats by canonical bits, so `NaN` equals itself); an integer never
/// equals a float. The order is total: null, booleans, numbers (by exact value, `NaN` last), text, times.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Absent.
    Null,
    /// A truth value.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A 64-bit float.
    Float(#[serde(with = "float_text")] f64),
    /// Text.
    Str(String),
    /// Milliseconds since 1970-01-01 UTC.
    Time(i64),
}

/// The kind of a [`Value`] or column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueKind {
    /// Only nulls.
    Null,
    /// Truth values.
    Bool,
    /// 64-bit integers.
    Int,
    /// 64-bit floats.
    Float,
    /// Text.
    Str,
    /// Instants.
    Time,
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Null => "null",
            Self::Bool => "boolean",
            Self::Int => "integer",
            Self::Float => "float",
            Self::Str => "text",
            Self::Time => "timestamp",
        })
    }
}

/// Where a row stands among all rows: by event time, ties by source partition, then by offset.
///
/// The full triple is unique per row, which makes `last(x)` independent of arrival.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Order {
    /// Event time in milliseconds UTC.
    pub event_ms: i64,
    /// Source partition.
    pub partition: i32,
    /// Offset inside the partition.
    pub offset: i64,
}

/// Returns the float with a single zero and a single `NaN`, so that equal values have equal bytes.
pub(super) fn canonical(float: f64) -> f64 {
    if float.is_nan() {
        f64::NAN
    } else if float == 0.0 {
        0.0
    } else {
        float
    }
}

impl Value {
    /// Returns the kind.
    pub const fn kind(&self) -> ValueKind {
        match self {
            Self::Null => ValueKind::Null,
            Self::Bool(_) => ValueKind::Bool,
            Self::Int(_) => ValueKind::Int,
            Self::Float(_) => ValueKind::Float,
            Self::Str(_) => ValueKind::Str,
            Self::Time(_) => ValueKind::Time,
        }
    }

    /// Returns whether the value is absent.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Returns the number this value is, for statistics; integers beyond 2^53 are rounded.
    #[expect(clippy::cast_precision_loss, reason = "as documented")]
    pub const fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(int) => Some(*int as f64),
            Self::Float(float) => Some(*float),
            _ => None,
        }
    }

    /// Returns the plain JSON a lookup answers with: times as RFC 3339 text, floats JSON cannot hold as text.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(bool) => (*bool).into(),
            Self::Int(int) => (*int).into(),
            Self::Float(float) => serde_json::Number::from_f64(*float)
                .map_or_else(|| float_text::text(*float).into(), serde_json::Value::Number),
            Self::Str(text) => text.as_str().into(),
            Self::Time(at) => DateTime::from_timestamp_millis(*at)
                .map_or_else(|| (*at).into(), |at| at.to_rfc3339_opts(SecondsFormat::Millis, true).into()),
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        match self {
            Self::Null => out.u8(0),
            Self::Bool(bool) => {
                out.u8(1);
                out.u8(u8::from(*bool));
            }
            Self::Int(int) => {
                out.u8(2);
                out.i64(*int);
            }
            Self::Float(float) => {
                out.u8(3);
                out.u64(canonical(*float).to_bits());
            }
            Self::Str(text) => {
                out.u8(4);
                out.bytes(text.as_bytes());
            }
            Self::Time(at) => {
                out.u8(5);
                out.i64(*at);
            }
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match input.u8()? {
            0 => Self::Null,
            1 => Self::Bool(input.u8()? != 0),
            2 => Self::Int(input.i64()?),
            3 => Self::Float(canonical(f64::from_bits(input.u64()?))),
            4 => Self::Str(input.text()?),
            5 => Self::Time(input.i64()?),
            tag => return Err(DecodeError::UnknownTag { what: "value", tag }),
        })
    }
}

/// Compares an integer with a float by exact value; `NaN` is larger than every integer.
fn compare_int_float(int: i64, float: f64) -> Ordering {
    // 2^63 is a float, and every float below it in magnitude truncates into i64 without loss.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() || float >= LIMIT {
        Ordering::Less
    } else if float < -LIMIT {
        Ordering::Greater
    } else {
        let whole = float.trunc();
        #[expect(clippy::cast_possible_truncation, reason = "whole, and within the limit above")]
        let integer = whole as i64;
        int.cmp(&integer).then_with(|| 0.0_f64.total_cmp(&canonical(float - whole)))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        const fn rank(value: &Value) -> u8 {
            match value {
                Value::Null => 0,
                Value::Bool(_) => 1,
                Value::Int(_) | Value::Float(_) => 2,
                Value::Str(_) => 3,
                Value::Time(_) => 4,
            }
        }
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) | (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => canonical(*a).total_cmp(&canonical(*b)),
            (Self::Int(a), Self::Float(b)) => compare_int_float(*a, *b).then(Ordering::Less),
            (Self::Float(a), Self::Int(b)) => compare_int_float(*b, *a).reverse().then(Ordering::Greater),
            (Self::Str(a), Self::Str(b)) => a.cmp(b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

/// The exact text form of a float, for stored JSON.
///
/// JSON has no `NaN` and no infinity, and readers of JSON numbers may be off by the last bit; text in Rust's
/// shortest form reads back to the same bits.
pub(crate) mod float_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn text(float: f64) -> String {
        if float.is_nan() {
            "NaN".to_owned()
        } else if float.is_infinite() {
            if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        } else {
            format!("{float:?}")
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
    pub(crate) fn serialize<S: Serializer>(float: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*float))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Rust reads `NaN`, `Infinity` and `-Infinity` as well.
        text.parse().map_err(|_| serde::de::Error::custom(format!("`{text}` is not a number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-3_i64..3).prop_map(Value::Int),
            any::<f64>().prop_map(Value::Float),
            (-6_i32..6).prop_map(|half| Value::Float(f64::from(half) / 2.0)),
            prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0])
                .prop_map(Value::Float),
            "[a-c]{0,3}".prop_map(Value::Str),
            any::<i64>().prop_map(Value::Time),
        ]
    }

    proptest! {
        #[test]
        fn the_order_is_total(mut values in prop::collection::vec(any_value(), 3)) {
            values.sort();
            prop_assert!(values[0] <= values[1] && values[1] <= values[2] && values[0] <= values[2]);
            prop_assert_eq!(values[0].cmp(&values[2]), values[2].cmp(&values[0]).reverse());
        }

        #[test]
        fn values_survive_json_and_bytes(value in any_value()) {
            let json = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Value>(&json).unwrap(), &value);
            let mut out = Writer::new();
            value.write(&mut out);
            let bytes = out.into_bytes();
            prop_assert_eq!(Value::read(&mut Reader::new(&bytes)).unwrap(), value);
        }
    }

    #[test]
    fn lookups_answer_plain_json() {
        let row = [Value::Int(3), Value::Float(0.5), Value::Float(f64::NAN), Value::Time(0), Value::Null];
        let json: Vec<_> = row.iter().map(Value::to_json).collect();
        assert_eq!(serde_json::to_string(&json).unwrap(), r#"[3,0.5,"NaN","1970-01-01T00:00:00.000Z",null]"#);
    }
}
