//! One column under construction: strict conversion of JSON values to one Arrow type.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, LargeStringArray, PrimitiveArray, StringArray,
        StringViewArray,
    },
    datatypes::{
        ArrowPrimitiveType, DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use chrono::{DateTime, NaiveDate};
use serde_json::{Number, Value};

use super::NumericTimestamps;

/// Values of one column so far. Numbers are kept wide; their range is checked on entry.
#[derive(Debug)]
pub struct Column {
    data_type: DataType,
    cells: Cells,
}

#[derive(Debug)]
enum Cells {
    Bool(Vec<Option<bool>>),
    /// Integers, dates (days), timestamps (in the column's unit).
    Int(Vec<Option<i64>>),
    Uint(Vec<Option<u64>>),
    Float(Vec<Option<f64>>),
    /// Unscaled decimals.
    Decimal(Vec<Option<i128>>),
    Text(Vec<Option<String>>),
}

/// Does the same to whichever vector a [`Cells`] holds.
macro_rules! each_kind {
    ($cells:expr, $values:ident => $action:expr) => {
        match $cells {
            Cells::Bool($values) => $action,
            Cells::Int($values) => $action,
            Cells::Uint($values) => $action,
            Cells::Float($values) => $action,
            Cells::Decimal($values) => $action,
            Cells::Text($values) => $action,
        }
    };
}

impl Column {
    /// Returns an empty column, or `None` if JSON cannot be decoded to the type.
    pub fn new(data_type: &DataType, capacity: usize) -> Option<Self> {
        let cells = match data_type {
            DataType::Boolean => Cells::Bool(Vec::with_capacity(capacity)),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Date32 => {
                Cells::Int(Vec::with_capacity(capacity))
            }
            DataType::Timestamp(_, _) => Cells::Int(Vec::with_capacity(capacity)),
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Cells::Uint(Vec::with_capacity(capacity))
            }
            DataType::Float32 | DataType::Float64 => Cells::Float(Vec::with_capacity(capacity)),
            DataType::Decimal128(_, scale) if *scale >= 0 => Cells::Decimal(Vec::with_capacity(capacity)),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Cells::Text(Vec::with_capacity(capacity))
            }
            _ => return None,
        };
        Some(Column { data_type: data_type.clone(), cells })
    }

    pub fn push_null(&mut self) {
        each_kind!(&mut self.cells, values => values.push(None));
    }

    /// Forgets all values from `rows` on.
    pub fn truncate(&mut self, rows: usize) {
        each_kind!(&mut self.cells, values => values.truncate(rows));
    }

    /// Adds a value, or says what is wrong with it in words that follow "field x".
    pub fn push(&mut self, value: &Value, numeric_timestamps: NumericTimestamps) -> Result<(), String> {
        match (&mut self.cells, &self.data_type) {
            (Cells::Bool(values), _) => match value {
                Value::Bool(flag) => values.push(Some(*flag)),
                other => return Err(wanted("a boolean", other)),
            },
            (Cells::Text(values), _) => match value {
                Value::String(text) => values.push(Some(text.clone())),
                other => return Err(wanted("text", other)),
            },
            (Cells::Float(values), data_type) => values.push(Some(float(value, data_type)?)),
            (Cells::Decimal(values), DataType::Decimal128(precision, scale)) => {
                values.push(Some(decimal(value, *precision, scale.unsigned_abs())?));
            }
            (Cells::Int(values), DataType::Date32) => values.push(Some(date(value)?)),
            (Cells::Int(values), DataType::Timestamp(unit, _)) => {
                values.push(Some(timestamp(value, *unit, numeric_timestamps)?));
            }
            (Cells::Int(values), data_type) => {
                let number = integer(value)?;
                let bits = bits(data_type);
                let limit = i128::from(i64::MAX >> (64 - bits));
                if number < -limit - 1 || number > limit {
                    return Err(format!("is {number}, which does not fit {data_type}"));
                }
                values.push(i64::try_from(number).ok());
            }
            (Cells::Uint(values), data_type) => {
                let number = integer(value)?;
                let bits = bits(data_type);
                if number < 0 || number > i128::from(u64::MAX >> (64 - bits)) {
                    return Err(format!("is {number}, which does not fit {data_type}"));
                }
                values.push(u64::try_from(number).ok());
            }
            (Cells::Decimal(_), data_type) => return Err(format!("has no decoding to {data_type}")),
        }
        Ok(())
    }

    /// Returns the finished array.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what does not fit was refused by `push`; floats are rounded"
    )]
    pub fn finish(self) -> ArrayRef {
        match (self.cells, &self.data_type) {
            (Cells::Bool(values), _) => Arc::new(BooleanArray::from(values)),
            (Cells::Text(values), DataType::LargeUtf8) => Arc::new(LargeStringArray::from(values)),
            (Cells::Text(values), DataType::Utf8View) => {
                Arc::new(values.into_iter().collect::<StringViewArray>())
            }
            (Cells::Text(values), _) => Arc::new(StringArray::from(values)),
            (Cells::Float(values), DataType::Float32) => {
                primitive::<Float32Type, _>(values, |value| value as f32)
            }
            (Cells::Float(values), _) => primitive::<Float64Type, _>(values, |value| value),
            (Cells::Decimal(values), data_type) => {
                Arc::new(Decimal128Array::from(values).with_data_type(data_type.clone()))
            }
            (Cells::Int(values), DataType::Int8) => primitive::<Int8Type, _>(values, |value| value as i8),
            (Cells::Int(values), DataType::Int16) => primitive::<Int16Type, _>(values, |value| value as i16),
            (Cells::Int(values), DataType::Int32) => primitive::<Int32Type, _>(values, |value| value as i32),
            (Cells::Int(values), DataType::Date32) => Arc::new(
                values.into_iter().map(|value| value.map(|days| days as i32)).collect::<Date32Array>(),
            ),
            (Cells::Int(values), DataType::Timestamp(unit, _)) => match unit {
                TimeUnit::Second => typed::<TimestampSecondType>(values, &self.data_type),
                TimeUnit::Millisecond => typed::<TimestampMillisecondType>(values, &self.data_type),
                TimeUnit::Microsecond => typed::<TimestampMicrosecondType>(values, &self.data_type),
                TimeUnit::Nanosecond => typed::<TimestampNanosecondType>(values, &self.data_type),
            },
            (Cells::Int(values), _) => primitive::<Int64Type, _>(values, |value| value),
            (Cells::Uint(values), DataType::UInt8) => primitive::<UInt8Type, _>(values, |value| value as u8),
            (Cells::Uint(values), DataType::UInt16) => {
                primitive::<UInt16Type, _>(values, |value| value as u16)
            }
            (Cells::Uint(values), DataType::UInt32) => {
                primitive::<UInt32Type, _>(values, |value| value as u32)
            }
            (Cells::Uint(values), _) => primitive::<UInt64Type, _>(values, |value| value),
        }
    }
}

fn primitive<T: ArrowPrimitiveType, W>(values: Vec<Option<W>>, narrow: impl Fn(W) -> T::Native) -> ArrayRef {
    Arc::new(values.into_iter().map(|value| value.map(&narrow)).collect::<PrimitiveArray<T>>())
}

fn typed<T: ArrowPrimitiveType<Native = i64>>(values: Vec<Option<i64>>, data_type: &DataType) -> ArrayRef {
    Arc::new(values.into_iter().collect::<PrimitiveArray<T>>().with_data_type(data_type.clone()))
}

/// Returns a short description of a value for messages: kind, and the value where it is short.
pub fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => format!("the boolean {flag}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() <= 40 => format!("the text {text:?}"),
        Value::String(text) => format!("the text {:?}…", text.chars().take(40).collect::<String>()),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn wanted(what: &str, found: &Value) -> String {
    format!("should be {what} but is {}", describe(found))
}

fn integer(value: &Value) -> Result<i128, String> {
    let whole = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match value {
        Value::Number(number) => whole(number)
            .ok_or_else(|| format!("should be a whole number of at most 64 bits but is the number {number}")),
        other => Err(wanted("a whole number", other)),
    }
}

fn float(value: &Value, data_type: &DataType) -> Result<f64, String> {
    let Value::Number(number) = value else { return Err(wanted("a number", value)) };
    let limit = if *data_type == DataType::Float32 { f64::from(f32::MAX) } else { f64::MAX };
    match number.as_f64() {
        Some(wide) if wide.abs() <= limit => Ok(wide),
        _ => Err(format!("is {number}, which does not fit {data_type}")),
    }
}

/// Decimals come as numbers or, where a producer must keep many digits, as text. No digit is ever rounded away.
fn bits(data_type: &DataType) -> usize {
    8 * data_type.primitive_width().unwrap_or(8)
}

fn decimal(value: &Value, precision: u8, scale: u8) -> Result<i128, String> {
    let text = match value {
        // The shortest text that reads back as the same number is the text that was written, up to 15 digits.
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        other => return Err(wanted("a decimal number", other)),
    };
    let misfit = || {
        format!(
            "is {text}, which does not fit a decimal of {precision} digits, {scale} of them behind the point"
        )
    };
    let unsigned = text.strip_prefix('-').unwrap_or(&text);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (true, true, Ok(exponent)) =
        (all_digits(whole) && all_digits(fraction), !whole.is_empty(), exponent.parse::<i32>())
    else {
        return Err(wanted("a decimal number", value));
    };
    let digits = format!("{whole}{fraction}");
    // The digits are worth `digits * 10^power` in units of the scale.
    #[expect(clippy::cast_possible_wrap, reason = "a text that lies in memory")]
    let power = i64::from(exponent) - fraction.len() as i64 + i64::from(scale);
    let digits = if power >= 0 {
        if digits.bytes().all(|digit| digit == b'0') {
            return Ok(0);
        }
        if power > 38 {
            return Err(misfit());
        }
        format!("{digits}{}", "0".repeat(usize::try_from(power).unwrap_or(0)))
    } else {
        let cut = usize::try_from(-power).unwrap_or(usize::MAX);
        let kept = digits.len().saturating_sub(cut);
        if !digits.as_bytes()[kept..].iter().all(|digit| *digit == b'0') {
            return Err(misfit());
        }
        digits[..kept].to_owned()
    };
    let significant = digits.trim_start_matches('0');
    if significant.len() > usize::from(precision) {
        return Err(misfit());
    }
    let size = if significant.is_empty() { 0 } else { significant.parse::<i128>().map_err(|_| misfit())? };
    Ok(if text.starts_with('-') { -size } else { size })
}

fn date(value: &Value) -> Result<i64, String> {
    let Value::String(text) = value else { return Err(wanted("a date such as \"2026-08-01\"", value)) };
    match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        // chrono also reads one-digit months; the written form is the standard's.
        Ok(day) if text.len() == 10 => Ok(i64::from(day.to_epoch_days())),
        _ => Err(wanted("a date such as \"2026-08-01\"", value)),
    }
}

fn timestamp(value: &Value, unit: TimeUnit, numeric: NumericTimestamps) -> Result<i64, String> {
    let example = "a timestamp such as \"2026-08-01T12:00:00Z\"";
    let instant = match (value, numeric) {
        (Value::String(text), _) => {
            DateTime::parse_from_rfc3339(text).map(|at| at.to_utc()).map_err(|error| {
                format!("{}: {error}", wanted(&format!("{example} (RFC 3339, with an offset)"), value))
            })?
        }
        (Value::Number(_), NumericTimestamps::EpochMillis) => {
            let whole = i64::try_from(integer(value)?).ok();
            whole.and_then(DateTime::from_timestamp_millis).ok_or_else(|| wanted(example, value))?
        }
        (Value::Number(_), NumericTimestamps::EpochMicros) => {
            let whole = i64::try_from(integer(value)?).ok();
            whole.and_then(DateTime::from_timestamp_micros).ok_or_else(|| wanted(example, value))?
        }
        (other, _) => return Err(wanted(example, other)),
    };
    match unit {
        TimeUnit::Second => Ok(instant.timestamp()),
        TimeUnit::Millisecond => Ok(instant.timestamp_millis()),
        TimeUnit::Microsecond => Ok(instant.timestamp_micros()),
        TimeUnit::Nanosecond => instant
            .timestamp_nanos_opt()
            .ok_or_else(|| format!("is {instant}, which nanoseconds cannot express")),
    }
}
