//! One value of a list: its rows out of those of a query, and how many rows are on no list.
//!
//! A row whose value has no partition is shown nowhere. So each step whose query may yield such rows reads them beside its own, and
//! tells of them as an audit does: the values that have a partition are published, and nothing is lost without a word.

use std::collections::BTreeSet;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use hydromesh_core::model::{QualitySeverity, Values};

use super::StepError;
use crate::engine::{Keeps, PartitionFilter, QualityOutcome};

/// The rule that every row has a partition.
const RULE: &str = "listed_values";
/// So many values that are on no list are named.
const NAMED: usize = 5;

/// A value that a step computes.
pub(super) struct Listed {
    by: String,
    value: ScalarValue,
    list: Vec<ScalarValue>,
    /// The values of its column may be shown to everybody.
    public: bool,
    rows: u64,
    found: BTreeSet<String>,
    threshold: &'static str,
}

impl Listed {
    /// Returns the value of a step. `closed` says that its query cannot yield a row of any other value than those of the list.
    ///
    /// # Errors
    /// When it is not on the list, or the column cannot hold it.
    pub fn new(
        (by, kind, public): (&str, &DataType, bool),
        values: &Values,
        key: &str,
        closed: bool,
    ) -> Result<Self, StepError> {
        if values.index(key).is_none() {
            let message = format!("`{key}` is not on the list of `{by}`: {values}");
            return Err(StepError::user("HM-X008", message));
        }
        let all = values.iter().map(|value| scalar(by, kind, value));
        let list = if closed { Vec::new() } else { all.collect::<Result<_, _>>()? };
        let (value, by) = (scalar(by, kind, key)?, by.to_owned());
        let threshold = "no row of a value that is on no list";
        Ok(Self { by, value, list, public, rows: 0, found: BTreeSet::new(), threshold })
    }

    /// Returns it for values that are looked for.
    pub fn sought(self) -> Self {
        Self { threshold: "no row without a value, or of one that was not found in the input", ..self }
    }

    /// Returns the condition that keeps its rows, and those of no value of the list.
    pub fn filter(&self) -> PartitionFilter {
        let keeps = Keeps::Value { value: self.value.clone(), list: self.list.clone() };
        PartitionFilter { column: self.by.clone(), keeps }
    }

    /// Returns its rows of a batch, and counts the others.
    ///
    /// # Errors
    /// When the batch has no such column.
    pub fn take(&mut self, batch: &RecordBatch) -> Result<RecordBatch, StepError> {
        let wrong = |error: ArrowError| StepError::user("HM-X008", error.to_string());
        let none = || StepError::user("HM-X008", format!("no column {} to cut by", self.by));
        let column = batch.column_by_name(&self.by).ok_or_else(none)?;
        let value = self.value.to_scalar().map_err(|error| StepError::user("HM-X008", error.to_string()))?;
        let own = eq(column, &value).map_err(wrong)?;
        let kept = filter_record_batch(batch, &own).map_err(wrong)?;
        let others = batch.num_rows() - kept.num_rows();
        self.rows += others as u64;
        if others > 0 && self.found.len() <= NAMED {
            let text = cast(column, &DataType::Utf8).map_err(wrong)?;
            let text = text.as_string::<i32>();
            let is_other = |row: &usize| own.is_null(*row) || !own.value(*row);
            for row in (0..batch.num_rows()).filter(is_other) {
                let name =
                    if text.is_null(row) { "null".to_owned() } else { format!("`{}`", text.value(row)) };
                if self.found.len() <= NAMED {
                    self.found.insert(name);
                }
            }
        }
        Ok(kept)
    }

    /// Returns what an audit says of the rows that have no partition; nothing where there can be none.
    #[expect(clippy::cast_precision_loss, reason = "a count of rows stays far below 2^53")]
    pub fn outcome(self, rows: u64) -> Option<QualityOutcome> {
        if self.list.is_empty() {
            return None;
        }
        let mut threshold = self.threshold.to_owned();
        if self.rows > 0 && self.public {
            let more = if self.found.len() > NAMED { ", …" } else { "" };
            let names: Vec<String> = self.found.into_iter().take(NAMED).collect();
            threshold.push_str(&format!(" (found {}{more})", names.join(", ")));
        }
        Some(QualityOutcome {
            rule: RULE.to_owned(),
            column: Some(self.by),
            severity: QualitySeverity::Warning,
            measure: Some(self.rows as f64),
            rows,
            threshold,
            passed: self.rows == 0,
            band: None,
            error: None,
        })
    }
}

/// Returns a value as the column holds it.
fn scalar(by: &str, kind: &DataType, value: &str) -> Result<ScalarValue, StepError> {
    let wrong = || StepError::user("HM-X008", format!("column {by} is a {kind} and cannot hold `{value}`"));
    match kind {
        DataType::Utf8 => Ok(ScalarValue::Utf8(Some(value.to_owned()))),
        DataType::Int64 => Ok(ScalarValue::Int64(Some(value.parse().map_err(|_| wrong())?))),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn values(all: &[&str]) -> Values {
        Values::new(all.iter().map(|value| (*value).to_owned())).expect("values")
    }

    fn batch(column: ArrayRef) -> RecordBatch {
        let field = Field::new("region", column.data_type().clone(), true);
        RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).expect("a batch")
    }

    #[test]
    fn rows_of_no_value_are_counted_and_named_where_everybody_may_see_them() {
        let regions: ArrayRef =
            Arc::new(StringArray::from(vec![Some("de"), Some("fr"), None, Some("de"), Some("ch")]));
        let told = |public| {
            let of = ("region", &DataType::Utf8, public);
            let mut listed = Listed::new(of, &values(&["de", "it"]), "de", false).expect("a value");
            assert_eq!(listed.take(&batch(Arc::clone(&regions))).expect("rows").num_rows(), 2);
            listed.outcome(2).expect("told")
        };
        let public = told(true);
        assert_eq!((public.measure, public.passed, public.blocks()), (Some(3.0), false, false));
        assert_eq!(public.threshold, "no row of a value that is on no list (found `ch`, `fr`, null)");
        assert_eq!(told(false).threshold, "no row of a value that is on no list");
        let of = ("region", &DataType::Utf8, true);
        let closed = Listed::new(of, &values(&["de", "it"]), "de", true).expect("a value");
        assert_eq!(closed.outcome(2), None);
        assert!(Listed::new(of, &values(&["de", "it"]), "fr", false).is_err());
    }

    #[test]
    fn integers_are_values_too() {
        let shops: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), Some(10), Some(-1), Some(7)]));
        let of = ("region", &DataType::Int64, true);
        let mut listed = Listed::new(of, &values(&["10", "7"]), "7", false).expect("a value");
        assert_eq!(listed.take(&batch(shops)).expect("rows").num_rows(), 2);
        assert_eq!(listed.rows, 2, "10 is told of by nobody's filter but its own step's");
        assert!(Listed::new(of, &values(&["x"]), "x", false).is_err());
        assert!(Listed::new(("region", &DataType::Date32, true), &values(&["x"]), "x", false).is_err());
    }
}
