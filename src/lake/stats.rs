//! Column statistics of a written file, for the table's log.
//!
//! Only statistics that are exact are kept: readers answer `min` and `max` from them. So no
//! strings (Parquet cuts them off) and no floats (NaN has no place in a bound).

use std::collections::BTreeMap;

use arrow::{
    array::Array,
    datatypes::{DataType, Schema},
};
use datafusion::scalar::ScalarValue;
use parquet::{arrow::arrow_reader::statistics::StatisticsConverter, file::metadata::ParquetMetaData};

use super::LakeError;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ColumnStats {
    pub nulls: Option<u64>,
    /// Least and greatest value; `None` when all values are null or the type has no exact bounds.
    pub bounds: Option<(ScalarValue, ScalarValue)>,
}

/// Reads the statistics of every flat column from a file's own footer.
pub(super) fn column_stats(
    schema: &Schema,
    footer: &ParquetMetaData,
) -> Result<BTreeMap<String, ColumnStats>, LakeError> {
    let mut stats = BTreeMap::new();
    for field in schema.fields() {
        if matches!(field.data_type(), DataType::List(_)) {
            continue;
        }
        let converter =
            StatisticsConverter::try_new(field.name(), schema, footer.file_metadata().schema_descr())?;
        let null_counts = converter.row_group_null_counts(footer.row_groups())?;
        let nulls = (null_counts.null_count() == 0).then(|| null_counts.iter().flatten().sum());
        let exact = matches!(
            field.data_type(),
            DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Timestamp(..)
        );
        let bounds = if exact {
            let least = extreme(&converter.row_group_mins(footer.row_groups())?, std::cmp::Ordering::Less)?;
            let greatest =
                extreme(&converter.row_group_maxes(footer.row_groups())?, std::cmp::Ordering::Greater)?;
            least.zip(greatest)
        } else {
            None
        };
        stats.insert(field.name().clone(), ColumnStats { nulls, bounds });
    }
    Ok(stats)
}

fn extreme(values: &dyn Array, wanted: std::cmp::Ordering) -> Result<Option<ScalarValue>, LakeError> {
    let mut best: Option<ScalarValue> = None;
    for index in (0..values.len()).filter(|index| values.is_valid(*index)) {
        let value = ScalarValue::try_from_array(values, index)?;
        let better = best.as_ref().is_none_or(|best| value.partial_cmp(best) == Some(wanted));
        if better {
            best = Some(value);
        }
    }
    Ok(best)
}
