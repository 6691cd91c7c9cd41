//! The column types the lake stores, and how other spellings of them become plain.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, new_null_array},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit},
};

use super::LakeError;

/// Returns an error unless both formats can store the column as it is.
pub(super) fn check_supported(field: &Field) -> Result<(), LakeError> {
    if is_supported(field.data_type()) {
        return Ok(());
    }
    Err(LakeError::UnsupportedType { column: field.name().clone(), data_type: field.data_type().to_string() })
}

fn is_supported(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8
        | DataType::Binary
        | DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32 => true,
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) => is_utc(zone),
        // Negative scales have no counterpart in either format.
        DataType::Decimal128(_, scale) => *scale >= 0,
        DataType::List(item) => {
            !matches!(item.data_type(), DataType::List(_)) && is_supported(item.data_type())
        }
        _ => false,
    }
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "Z" | "+00:00" | "Etc/UTC")
}

/// Whether two stored types are one, whatever a list calls its item.
pub(super) fn same_type(left: &DataType, right: &DataType) -> bool {
    match (left, right) {
        (DataType::List(left), DataType::List(right)) => same_type(left.data_type(), right.data_type()),
        (DataType::Timestamp(lu, Some(lz)), DataType::Timestamp(ru, Some(rz))) => {
            lu == ru && is_utc(lz) && is_utc(rz)
        }
        _ => left == right,
    }
}

/// The spelling every provider shows: no metadata, list items called `item` and nullable, time zone `UTC`.
pub(super) fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema.fields().iter().map(|field| plain_field(field)).collect();
    Arc::new(Schema::new(fields))
}

fn plain_field(field: &Field) -> Field {
    Field::new(field.name(), plain_type(field.data_type()), field.is_nullable())
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(item) => {
            DataType::List(Arc::new(Field::new("item", plain_type(item.data_type()), true)))
        }
        DataType::Timestamp(unit, Some(zone)) if is_utc(zone) => {
            DataType::Timestamp(*unit, Some("UTC".into()))
        }
        other => other.clone(),
    }
}

/// Returns the columns of `batch` in the order and types of `schema`.
///
/// Only casts that cannot lose a value silently are made: a failing cast is an error.
pub(super) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, LakeError> {
    for field in batch.schema_ref().fields() {
        if schema.field_with_name(field.name()).is_err() {
            return Err(LakeError::UnknownColumn { column: field.name().clone() });
        }
    }
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(match batch.column_by_name(field.name()) {
            Some(column) => conform_column(column, field)?,
            None if field.is_nullable() => new_null_array(field.data_type(), batch.num_rows()),
            None => return Err(LakeError::MissingColumn { column: field.name().clone() }),
        });
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn conform_column(column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef, LakeError> {
    if !field.is_nullable() && column.logical_null_count() > 0 {
        return Err(LakeError::NullInRequired { column: field.name().clone() });
    }
    if column.data_type() == field.data_type() {
        return Ok(column.clone());
    }
    if !may_become(column.data_type(), field.data_type()) {
        return Err(LakeError::IncompatibleSchema {
            column: field.name().clone(),
            why: format!("rows have {}, the table has {}", column.data_type(), field.data_type()),
        });
    }
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    Ok(arrow::compute::cast_with_options(column, field.data_type(), &options)?)
}

/// Spellings of one type, and widenings that keep every value.
fn may_become(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Decimal128, Dictionary, FixedSizeList, Float32, Float64, Int8, Int16, Int32,
        Int64, LargeBinary, LargeList, LargeUtf8, List, Null, Timestamp, UInt8, UInt16, UInt32, UInt64, Utf8,
        Utf8View,
    };
    match (from, to) {
        (Null, _) => true,
        (Dictionary(_, values), _) => may_become(values, to),
        (Utf8 | LargeUtf8 | Utf8View, Utf8)
        | (Binary | LargeBinary | BinaryView, Binary)
        | (Int8 | Int16 | UInt8 | UInt16, Int32)
        | (Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32 | UInt64, Int64)
        | (Float32, Float64) => true,
        (Decimal128(_, from), Decimal128(_, to)) => from <= to,
        // Both formats store microseconds; what the clock gave below that is cut off.
        (Timestamp(_, Some(_)), Timestamp(_, Some(_))) => true,
        (List(from) | LargeList(from) | FixedSizeList(from, _), List(to)) => {
            may_become(from.data_type(), to.data_type())
        }
        _ => from == to,
    }
}

/// Casts one column to its plain spelling; used where rows are only read.
pub(super) fn plain_column(column: &ArrayRef) -> Result<ArrayRef, LakeError> {
    let plain = match column.data_type() {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => plain_type(other),
    };
    if &plain == column.data_type() { Ok(column.clone()) } else { Ok(cast(column, &plain)?) }
}
