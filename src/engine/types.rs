//! Contract types and Arrow types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use hydromesh_core::model::{Column, LogicalType};

/// Returns the Arrow type of a contract's column.
///
/// A number is a double unless its physical type is `DECIMAL(p,s)` or `NUMERIC(p,s)`.
#[must_use]
pub fn arrow_type(column: &Column) -> DataType {
    match &column.logical {
        LogicalType::String | LogicalType::Time => DataType::Utf8,
        LogicalType::Date => DataType::Date32,
        LogicalType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        LogicalType::Number => decimal(column.physical.as_deref()).unwrap_or(DataType::Float64),
        LogicalType::Integer => DataType::Int64,
        LogicalType::Boolean => DataType::Boolean,
        LogicalType::Binary => DataType::Binary,
        LogicalType::Vector(_) => DataType::List(Arc::new(Field::new("item", DataType::Float32, true))),
    }
}

/// Returns the decimal type that a physical type names, if it names one with a legal precision.
fn decimal(physical: Option<&str>) -> Option<DataType> {
    let text = physical?.trim().to_ascii_lowercase();
    let inner = text.strip_prefix("decimal").or_else(|| text.strip_prefix("numeric"))?.trim();
    let inner = inner.strip_prefix('(')?.strip_suffix(')')?;
    let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
    let (precision, scale) = (precision.trim().parse::<u8>().ok()?, scale.trim().parse::<i8>().ok()?);
    // 38 digits are what 128 bits, Delta and Iceberg hold.
    let legal = (1..=38).contains(&precision) && scale >= 0 && scale.unsigned_abs() <= precision;
    legal.then_some(DataType::Decimal128(precision, scale))
}

/// Returns the Arrow schema of a contract's columns.
///
/// Every field is nullable in storage: `required` is a promise that quality rules verify, so that a violation is
/// reported as one and not as a write error.
#[must_use]
pub fn arrow_schema(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(
        columns.iter().map(|column| Field::new(&column.name, arrow_type(column), true)).collect::<Vec<_>>(),
    ))
}

/// Returns the contract type that an Arrow type fits, if one does.
#[must_use]
pub fn logical_of(kind: &DataType) -> Option<LogicalType> {
    Some(match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => LogicalType::String,
        DataType::Date32 | DataType::Date64 => LogicalType::Date,
        DataType::Timestamp(..) => LogicalType::Timestamp,
        DataType::Time32(_) | DataType::Time64(_) => LogicalType::Time,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => LogicalType::Number,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => LogicalType::Number,
        kind if kind.is_integer() => LogicalType::Integer,
        DataType::Boolean => LogicalType::Boolean,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => LogicalType::Binary,
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _)
            if field.data_type().is_floating() =>
        {
            LogicalType::Vector(0)
        }
        DataType::Dictionary(_, value) => return logical_of(value),
        _ => return None,
    })
}

/// Returns the batch with a schema's columns, order and types.
///
/// # Errors
/// When a column is absent, or a value does not fit its type (an overflow, an unparsable text): the message names the
/// column. Such a value is never silently null.
pub fn conform_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let array = batch.column_by_name(field.name()).ok_or_else(|| {
            ArrowError::SchemaError(format!("column {} is not in the result", field.name()))
        })?;
        let array = if array.data_type() == field.data_type() {
            Arc::clone(array)
        } else {
            let cast = cast_with_options(array, field.data_type(), &strict);
            cast.map_err(|source| ArrowError::CastError(format!("column {}: {source}", field.name())))?
        };
        if field.data_type() == &DataType::Float64 {
            let doubles = array.as_primitive::<arrow::datatypes::Float64Type>();
            if doubles.iter().flatten().any(f64::is_nan) {
                return Err(ArrowError::ComputeError(format!(
                    "column {}: NaN is not a number",
                    field.name()
                )));
            }
        }
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::clone(schema), arrays)
}

/// Returns the batch as a contract describes it.
///
/// # Errors
/// See [`conform_schema`].
pub fn conform(batch: &RecordBatch, columns: &[Column]) -> Result<RecordBatch, ArrowError> {
    conform_schema(batch, &arrow_schema(columns))
}

#[cfg(test)]
pub(crate) fn column(name: &str, logical: LogicalType) -> Column {
    Column {
        name: name.to_owned(),
        logical,
        physical: None,
        required: false,
        unique: false,
        primary_key: false,
        classification: None,
        description: String::new(),
        line: 0,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_decimal_is_as_its_physical_type_says() {
        let of = |physical: &str| {
            arrow_type(&Column { physical: Some(physical.to_owned()), ..column("x", LogicalType::Number) })
        };
        assert_eq!(of("DECIMAL(10, 2)"), DataType::Decimal128(10, 2));
        assert_eq!(of("numeric(5)"), DataType::Decimal128(5, 0));
        assert_eq!(of("DECIMAL(99,2)"), DataType::Float64);
        assert_eq!(of("double"), DataType::Float64);
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error_that_names_the_column() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Utf8, true)]));
        let batch =
            RecordBatch::try_new(schema, vec![Arc::new(StringArray::from(vec!["1", "x"]))]).expect("batch");
        let error = conform(&batch, &[column("n", LogicalType::Integer)]).expect_err("x is no integer");
        assert!(error.to_string().contains("column n"), "{error}");
    }

    #[test]
    fn nan_is_refused_and_order_follows_the_contract() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Float64, true),
        ]));
        let arrays: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![1])), Arc::new(Float64Array::from(vec![f64::NAN]))];
        let batch = RecordBatch::try_new(schema, arrays).expect("batch");
        let columns = [column("b", LogicalType::Number), column("a", LogicalType::Integer)];
        assert!(conform(&batch, &columns).is_err());
        let swapped = conform(&batch, &columns[1..]).expect("a alone");
        assert_eq!(swapped.num_columns(), 1);
    }
}
