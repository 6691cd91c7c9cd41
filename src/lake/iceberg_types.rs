//! Between the lake's columns and files and what Iceberg calls them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use datafusion::scalar::ScalarValue;
use iceberg_rust::spec::{
    arrow::schema::PARQUET_FIELD_ID_META_KEY,
    manifest::{AvroMap, Content, DataFile, FileFormat},
    schema::Schema,
    table_metadata::TableMetadata,
    types::{ListType, PrimitiveType, StructField, Type},
    values::{Struct, Value},
};

use super::{LakeError, Staged, StagedFile, stage::partition_scalar};

/// The partition value of a file: from the partition tuple, or from bounds that are one value.
pub(super) fn partition_value(file: &DataFile, by: &StructField) -> Option<String> {
    let value = match file.partition().get(&by.name) {
        Some(value) => value.as_ref()?,
        None => {
            let least = file.lower_bounds().as_ref()?.get(&by.id)?;
            let greatest = file.upper_bounds().as_ref()?.get(&by.id)?;
            if least == greatest { least } else { return None }
        }
    };
    match value {
        Value::String(text) => Some(text.clone()),
        Value::LongInt(number) => Some(number.to_string()),
        Value::Date(day) | Value::Int(day) => {
            let text = ScalarValue::Date32(Some(*day)).cast_to(&DataType::Utf8).ok()?;
            Some(text.to_string())
        }
        _ => None,
    }
}

/// Gives every column of `fields` the type and the ids it has in the table, new ids after `last_id`.
pub(super) fn iceberg_schema(
    id: i32,
    known: Option<&Schema>,
    fields: &SchemaRef,
    last_id: &mut i32,
) -> Result<Schema, LakeError> {
    let mut columns = Vec::new();
    for field in fields.fields() {
        if let Some(old) = known.and_then(|known| known.fields().iter().find(|old| &old.name == field.name()))
        {
            columns.push(old.clone());
            continue;
        }
        *last_id += 1;
        let own = *last_id;
        let field_type = iceberg_type(field, last_id)?;
        columns.push(StructField::new(own, field.name(), !field.is_nullable(), field_type, None));
    }
    let mut builder = Schema::builder();
    builder.with_schema_id(id);
    for column in columns {
        builder.with_struct_field(column);
    }
    Ok(builder.build()?)
}

fn iceberg_type(field: &Field, last_id: &mut i32) -> Result<Type, LakeError> {
    let primitive = match field.data_type() {
        DataType::Utf8 => PrimitiveType::String,
        DataType::Binary => PrimitiveType::Binary,
        DataType::Boolean => PrimitiveType::Boolean,
        DataType::Int32 => PrimitiveType::Int,
        DataType::Int64 => PrimitiveType::Long,
        DataType::Float32 => PrimitiveType::Float,
        DataType::Float64 => PrimitiveType::Double,
        DataType::Date32 => PrimitiveType::Date,
        DataType::Timestamp(..) => PrimitiveType::Timestamptz,
        DataType::Decimal128(precision, scale) => PrimitiveType::Decimal {
            precision: u32::from(*precision),
            scale: u32::try_from(*scale).unwrap_or(0),
        },
        DataType::List(item) => {
            *last_id += 1;
            let element_id = *last_id;
            let element = iceberg_type(item, last_id)?;
            return Ok(Type::List(ListType {
                element_id,
                element_required: false,
                element: Box::new(element),
            }));
        }
        other => {
            return Err(LakeError::UnsupportedType {
                column: field.name().clone(),
                data_type: other.to_string(),
            });
        }
    };
    Ok(Type::Primitive(primitive))
}

/// The plain columns with the ids by which every Iceberg reader finds them in a file.
pub(super) fn with_field_ids(schema: &Schema, plain: &SchemaRef) -> Result<SchemaRef, LakeError> {
    let id = |id: i32| HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
    let mut fields = Vec::new();
    for field in plain.fields() {
        let known = schema
            .fields()
            .iter()
            .find(|known| &known.name == field.name())
            .ok_or_else(|| LakeError::MissingColumn { column: field.name().clone() })?;
        let data_type = match (field.data_type(), &known.field_type) {
            (DataType::List(item), Type::List(list)) => {
                DataType::List(Arc::new(item.as_ref().clone().with_metadata(id(list.element_id))))
            }
            (other, _) => other.clone(),
        };
        fields.push(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(id(known.id)));
    }
    Ok(Arc::new(ArrowSchema::new(fields)))
}

pub(super) fn data_file(
    metadata: &TableMetadata,
    schema: &Schema,
    staged: &Staged,
    file: &StagedFile,
) -> Result<DataFile, LakeError> {
    let mut nulls = HashMap::new();
    let mut counts = HashMap::new();
    let (mut least, mut greatest) = (HashMap::new(), HashMap::new());
    let rows = i64::try_from(file.rows).unwrap_or(i64::MAX);
    for (name, stats) in &file.stats {
        let Some(field) = schema.fields().iter().find(|field| &field.name == name) else { continue };
        counts.insert(field.id, rows);
        if let Some(count) = stats.nulls.and_then(|count| i64::try_from(count).ok()) {
            nulls.insert(field.id, count);
        }
        if let Some((min, max)) = &stats.bounds
            && let (Some(min), Some(max)) = (bound(min), bound(max))
        {
            least.insert(field.id, min);
            greatest.insert(field.id, max);
        }
    }
    let mut partition = Struct { fields: Vec::new(), lookup: BTreeMap::new() };
    if let (Some(by), Some(value)) = (&staged.partition_by, &file.partition)
        && let Some(field) = schema.fields().get_name(by)
        && let Some(value) = bound(&partition_scalar(&staged.schema, by, value)?)
    {
        if metadata.default_partition_spec()?.fields().is_empty() {
            least.insert(field.id, value.clone());
            greatest.insert(field.id, value);
        } else {
            partition = Struct::from_iter([(by.clone(), Some(value))]);
        }
    }
    Ok(DataFile::builder()
        .with_content(Content::Data)
        .with_file_path(format!("{}/{}", metadata.location, file.path))
        .with_file_format(FileFormat::Parquet)
        .with_partition(partition)
        .with_record_count(rows)
        .with_file_size_in_bytes(i64::try_from(file.bytes).unwrap_or(i64::MAX))
        .with_column_sizes(None)
        .with_value_counts(Some(AvroMap(counts)))
        .with_null_value_counts(Some(AvroMap(nulls)))
        .with_nan_value_counts(None)
        .with_lower_bounds(Some(least))
        .with_upper_bounds(Some(greatest))
        .build()?)
}

fn bound(value: &ScalarValue) -> Option<Value> {
    match value {
        ScalarValue::Int32(Some(number)) => Some(Value::Int(*number)),
        ScalarValue::Int64(Some(number)) => Some(Value::LongInt(*number)),
        ScalarValue::Date32(Some(day)) => Some(Value::Date(*day)),
        ScalarValue::TimestampMicrosecond(Some(micros), Some(_)) => Some(Value::TimestampTZ(*micros)),
        ScalarValue::Utf8(Some(text)) => Some(Value::String(text.clone())),
        _ => None,
    }
}
