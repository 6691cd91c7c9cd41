//! Between Arrow arrays and the values that events and aggregates are made of.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use hydromesh_core::aggregate::Value;

use crate::apply::StepError;

/// The type of every instant in a table.
pub(super) fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, StepError> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &strict).map_err(|error| StepError::user("HM-X001", error.to_string()))
}

/// Returns instants as milliseconds UTC.
///
/// # Errors
/// When the column cannot be an instant.
pub(super) fn times(array: &ArrayRef) -> Result<Vec<Option<i64>>, StepError> {
    let array = cast(array, &instant())?;
    let micros = array.as_primitive::<TimestampMicrosecondType>();
    Ok(micros.iter().map(|micros| micros.map(|micros| micros.div_euclid(1_000))).collect())
}

/// Returns a column as text, whatever it holds.
///
/// # Errors
/// When it holds something that has no text, such as bytes.
pub(super) fn texts(array: &ArrayRef) -> Result<StringArray, StepError> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// Returns instants as a column.
pub(super) fn instants(millis: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let micros = millis.map(|millis| millis.map(|millis| millis.saturating_mul(1_000)));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// Returns the values of a column; days are instants at their midnight UTC, decimals are doubles.
///
/// # Errors
/// When a value fits none of the kinds that aggregates know.
pub(super) fn values(array: &ArrayRef) -> Result<Vec<Value>, StepError> {
    let or_null = |value: Option<Value>| value.unwrap_or(Value::Null);
    Ok(match array.data_type() {
        DataType::Null => vec![Value::Null; array.len()],
        DataType::Boolean => array.as_boolean().iter().map(|it| or_null(it.map(Value::Bool))).collect(),
        kind if kind.is_integer() => {
            let array = cast(array, &DataType::Int64)?;
            array.as_primitive::<Int64Type>().iter().map(|it| or_null(it.map(Value::Int))).collect()
        }
        kind if kind.is_floating() || matches!(kind, DataType::Decimal128(..) | DataType::Decimal256(..)) => {
            let array = cast(array, &DataType::Float64)?;
            array.as_primitive::<Float64Type>().iter().map(|it| or_null(it.map(Value::Float))).collect()
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            times(array)?.into_iter().map(|it| or_null(it.map(Value::Time))).collect()
        }
        _ => texts(array)?.iter().map(|it| or_null(it.map(|text| Value::Str(text.to_owned())))).collect(),
    })
}

/// Returns values as a column of a type.
///
/// # Errors
/// When a value does not fit the type.
pub(super) fn column(values: &[Value], to: &DataType) -> Result<ArrayRef, StepError> {
    let misfit = |value: &Value| {
        StepError::user("HM-X001", format!("a feature of kind {} does not fit {to}", value.kind()))
    };
    let array: ArrayRef = match to {
        DataType::Int64 => {
            let ints = values.iter().map(|value| match value {
                Value::Null => Ok(None),
                Value::Int(int) => Ok(Some(*int)),
                other => Err(misfit(other)),
            });
            Arc::new(ints.collect::<Result<Int64Array, _>>()?)
        }
        DataType::Float64 | DataType::Decimal128(..) => {
            let floats = values.iter().map(|value| match value {
                Value::Null => Ok(None),
                other => other.as_f64().map(Some).ok_or_else(|| misfit(other)),
            });
            Arc::new(floats.collect::<Result<Float64Array, _>>()?)
        }
        DataType::Boolean => {
            let truths = values.iter().map(|value| match value {
                Value::Null => Ok(None),
                Value::Bool(truth) => Ok(Some(*truth)),
                other => Err(misfit(other)),
            });
            Arc::new(truths.collect::<Result<BooleanArray, _>>()?)
        }
        DataType::Timestamp(..) | DataType::Date32 => {
            let times = values.iter().map(|value| match value {
                Value::Null => Ok(None),
                Value::Time(at) => Ok(Some(*at)),
                other => Err(misfit(other)),
            });
            instants(times.collect::<Result<Vec<_>, _>>()?.into_iter())
        }
        _ => {
            let texts = values.iter().map(|value| match value {
                Value::Null => Ok(None),
                Value::Str(text) => Ok(Some(text.as_str())),
                other => Err(misfit(other)),
            });
            Arc::new(texts.collect::<Result<StringArray, _>>()?)
        }
    };
    if array.data_type() == to { Ok(array) } else { cast(&array, to) }
}
