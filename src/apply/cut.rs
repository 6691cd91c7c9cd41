//! The column that a pipeline is cut by: keys of partitions as its values, and back.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Schema};
use datafusion::common::ScalarValue;
use hydromesh_core::model::Calendar;
use hydromesh_core::time::{Grain, Partition};

use super::StepError;
use crate::engine::{Keeps, PartitionFilter};

/// How an output is cut by a calendar.
#[derive(Clone, Copy)]
pub(super) struct Cut<'a> {
    pub by: &'a str,
    pub calendar: &'a Calendar,
}

/// Returns the type of the column that an output is cut by.
pub(super) fn kind_of(schema: &Schema, by: &str) -> Result<DataType, StepError> {
    let kind = schema.field_with_name(by).map(|field| field.data_type().clone());
    kind.map_err(|_| StepError::user("HM-X008", format!("no column {by} to cut by")))
}

/// Returns the condition that keeps the rows of partitions, both inclusive.
pub(super) fn filter(
    schema: &Schema,
    cut: Cut<'_>,
    from: Partition,
    to: Partition,
) -> Result<PartitionFilter, StepError> {
    let kind = kind_of(schema, cut.by)?;
    let of = |key: Partition| value((cut.by, cut.calendar.every), &kind, &key.to_string());
    let keeps = Keeps::Between { from: of(from)?, to: of(to.next())? };
    Ok(PartitionFilter { column: cut.by.to_owned(), keeps })
}

/// Returns the partition of a key.
pub(super) fn parse(cut: Cut<'_>, key: &str) -> Result<Partition, StepError> {
    Partition::parse(cut.calendar.every, key).map_err(|error| StepError::user("HM-X008", error.to_string()))
}

/// Returns the partition column's value for a key of a calendar.
pub(super) fn value(
    (by, every): (&str, Grain),
    kind: &DataType,
    key: &str,
) -> Result<ScalarValue, StepError> {
    match (kind, every) {
        (DataType::Date32, Grain::Day) => {
            let day = chrono::NaiveDate::parse_from_str(key, "%Y-%m-%d")
                .map_err(|error| StepError::user("HM-X008", format!("{key}: {error}")))?;
            Ok(ScalarValue::Date32(Some(Date32Type::from_naive_date(day))))
        }
        // Keys order as text as they do in time.
        (DataType::Utf8, _) => Ok(ScalarValue::Utf8(Some(key.to_owned()))),
        _ => Err(StepError::user(
            "HM-X008",
            format!("column {by} is a {kind}: cut by a date every day, or by a string that holds the key"),
        )),
    }
}

/// Returns the partition key of each row.
pub(super) fn keys(batch: &RecordBatch, by: &str) -> Result<Vec<String>, StepError> {
    let wrong = || StepError::user("HM-X008", format!("column {by} cannot be cut by"));
    let column = batch.column_by_name(by).ok_or_else(wrong)?;
    match column.data_type() {
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>();
            let text =
                |day: i32| Date32Type::to_naive_date_opt(day).map(|day| day.to_string()).ok_or_else(wrong);
            days.iter().map(|day| day.map_or_else(|| Err(wrong()), text)).collect()
        }
        DataType::Utf8 => Ok(column.as_string::<i32>().iter().flatten().map(str::to_owned).collect()),
        _ => Err(wrong()),
    }
}
