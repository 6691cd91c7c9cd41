//! Looks for the values of an input's column that an output is cut by.
//!
//! It reads one column at the version that is pinned when the step begins, and tells of that version: what comes later is seen by the
//! next look. It writes nothing, so that it may be repeated at any time.

use std::collections::BTreeSet;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use futures::StreamExt as _;
use hydromesh_core::ledger::{Fact, KeysFound, Looked};
use hydromesh_core::model::{InputSource, KeySource, Pipeline, Values};

use super::inputs::{self, Inputs};
use super::{Context, Done, Job, Reporter, StepError};
use crate::engine::EngineError;

/// The values that were found, and how many rows have none that can be the key of a partition.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sight {
    /// Those that are kept: no more than are enough to know that they are too many.
    values: BTreeSet<String>,
    /// All of them.
    count: usize,
    without: u64,
}

/// Looks for values and tells of those that were not known.
pub(super) async fn run(context: &Context, job: &Job, reporter: &Reporter) -> Result<Done, StepError> {
    let product = job.product()?;
    let cut = match job.pipeline()? {
        Pipeline::Batch(batch) => batch.partition.as_ref(),
        _ => None,
    };
    let sought = cut.and_then(|cut| Some((cut.source()?, cut.values()?)));
    let (source, known) = sought
        .ok_or_else(|| StepError::internal("a look for values of a pipeline that is not cut by some"))?;
    let (port, _) = job.output()?;
    let Inputs { tables, versions, .. } = inputs::open_one(context, job, &source.input).await?;
    let looked = match product.inputs.get(&source.input).map(|input| &input.source) {
        Some(InputSource::Port { port }) => Looked {
            definition: job.definitions.get(port).cloned().unwrap_or_default(),
            version: versions.get(port).copied().unwrap_or_default(),
        },
        _ => {
            let generation = i64::try_from(job.start.generation).unwrap_or(i64::MAX);
            Looked { definition: String::new(), version: generation }
        }
    };
    let mut rows = context.engine.select(&query(source), tables).await?;
    let mut sight = Sight::default();
    loop {
        tokio::select! {
            biased;
            () = reporter.cancel.cancelled() => return Err(StepError::external("HM-X007", "cancelled")),
            batch = rows.next() => match batch {
                None => break,
                Some(batch) => sight.take(&batch.map_err(EngineError::from)?, known)?,
            },
        }
    }
    let added = sight.added(source, known)?;
    tracing::info!(
        event = "looked", %port, values = sight.count, added = added.len(), without = sight.without,
        "found {} values in {source}, of which {} are new", sight.count, added.len()
    );
    let (run, source, without) = (job.start.run.clone(), source.clone(), sight.without);
    Ok(Done { facts: vec![Fact::Keys(KeysFound { port, run, source, looked, added, without })], rows: 0 })
}

/// Returns the query of a look.
fn query(source: &KeySource) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (input, column) = (quoted(source.input.as_str()), quoted(&source.column));
    format!("SELECT {column} AS value, count(*) AS rows FROM {input} GROUP BY {column}")
}

impl Sight {
    /// Takes in some of the values, each of which comes once.
    fn take(&mut self, batch: &RecordBatch, known: &Values) -> Result<(), StepError> {
        let wrong = |error: arrow::error::ArrowError| StepError::user("HM-X001", error.to_string());
        let texts = cast(batch.column(0), &DataType::Utf8).map_err(wrong)?;
        let (texts, counts) = (texts.as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            let value = (!texts.is_null(row)).then(|| texts.value(row)).filter(|value| Values::takes(value));
            let Some(value) = value else {
                self.without += counts.value(row).unsigned_abs();
                continue;
            };
            self.count += 1;
            if known.index(value).is_none() && self.values.len() <= Values::MOST {
                self.values.insert(value.to_owned());
            }
        }
        Ok(())
    }

    /// Returns the values that were not known.
    ///
    /// # Errors
    /// When they are too many with those that were.
    fn added(&self, source: &KeySource, known: &Values) -> Result<Vec<String>, StepError> {
        let added: Vec<String> = self.values.iter().cloned().collect();
        let most = Values::MOST;
        if known.len() + added.len() <= most {
            return Ok(added);
        }
        let message = if self.count > most {
            format!("`{source}` has {} values, more than the {most} that an output can be cut by", self.count)
        } else {
            format!(
                "`{source}` has {} values that are new beside the {} that were found before: more than the {most} that an output can be cut by",
                added.len(),
                known.len()
            )
        };
        Err(StepError::user("HM-X014", message))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn batch(values: ArrayRef, rows: Vec<i64>) -> RecordBatch {
        let fields = vec![
            Field::new("value", values.data_type().clone(), true),
            Field::new("rows", DataType::Int64, false),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![values, Arc::new(Int64Array::from(rows))])
            .expect("a batch")
    }

    fn source() -> KeySource {
        KeySource { input: "sales-x".to_owned().try_into().expect("a port"), column: "a\"b".to_owned() }
    }

    #[test]
    fn what_cannot_be_a_key_is_counted_and_no_value() {
        assert_eq!(
            query(&source()),
            "SELECT \"a\"\"b\" AS value, count(*) AS rows FROM \"sales-x\" GROUP BY \"a\"\"b\""
        );
        let known = Values::default().with(&["de".to_owned()]).expect("values");
        let mut sight = Sight::default();
        let texts: ArrayRef = Arc::new(StringArray::from(vec![
            Some("de"),
            None,
            Some(""),
            Some("a,b"),
            Some("it"),
            Some(" x"),
        ]));
        sight.take(&batch(texts, vec![3, 4, 5, 6, 7, 8]), &known).expect("taken");
        assert_eq!((sight.count, sight.without), (2, 23));
        assert_eq!(sight.added(&source(), &known), Ok(vec!["it".to_owned()]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(-7), Some(10), None]));
        let mut sight = Sight::default();
        sight.take(&batch(numbers, vec![1, 1, 2]), &known).expect("taken");
        assert_eq!(
            (sight.added(&source(), &known).expect("few"), sight.without),
            (vec!["-7".into(), "10".into()], 2)
        );
    }

    #[test]
    fn too_many_are_told_with_how_many_they_are() {
        let numbers: ArrayRef = Arc::new(Int64Array::from((0..5_000).collect::<Vec<_>>()));
        let mut sight = Sight::default();
        sight.take(&batch(numbers, vec![1; 5_000]), &Values::default()).expect("taken");
        let error = sight.added(&source(), &Values::default()).expect_err("too many");
        let has = "`sales-x.a\"b` has 5000 values, more than the 1000 that an output can be cut by";
        assert_eq!((error.code, error.message.as_str()), ("HM-X014", has));
        assert!(sight.values.len() <= Values::MOST + 1, "no more are held");
        // They have left the input, and keep their partitions.
        let known: Vec<String> = (0..999).map(|at| format!("old{at}")).collect();
        let known = Values::default().with(&known).expect("values");
        let mut sight = Sight::default();
        let two: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        sight.take(&batch(two, vec![1, 1]), &known).expect("taken");
        let error = sight.added(&source(), &known).expect_err("too many");
        assert!(
            error.message.contains("2 values that are new beside the 999 that were found before"),
            "{error}"
        );
    }
}
