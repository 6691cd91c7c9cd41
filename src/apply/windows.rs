//! Which partitions of its inputs a query sees, where its pipeline says so.
//!
//! What a pipeline declares is what it gets: the partitions that it does not name are filtered out of the input before the query
//! sees it. So a declaration cannot be wrong about what a partition rests on, and what a partition shows does not hang on what
//! else of the input was there when it ran, nor on the partitions that were computed together with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use hydromesh_core::model::{BatchPipeline, Calendar, InputSource, Partitioning, Parts};
use hydromesh_core::plan::Mapping;
use hydromesh_core::time::Partition;

use super::cut::value;
use super::{Job, StepError};
use crate::engine::{Keeps, PartitionFilter, arrow_schema, part_of};

/// Inputs by table name.
type Tables = BTreeMap<String, Arc<dyn TableProvider>>;

/// An input of which partitions are picked.
struct Picked {
    table: String,
    by: String,
    cut: Calendar,
    /// Of its partition column.
    kind: DataType,
    mapping: Mapping,
}

/// The inputs of a step of which partitions are picked.
pub(super) struct Windows(Vec<Picked>);

impl Windows {
    /// Returns what a pipeline picks; nothing of inputs of which its query takes no more than the same partition anyway.
    ///
    /// # Errors
    /// When an input, as it is deployed, is not cut by a calendar.
    pub fn of(job: &Job, batch: &BatchPipeline, output: &Calendar) -> Result<Self, StepError> {
        let product = job.product()?;
        let mut picked = Vec::new();
        for (name, window) in &batch.inputs {
            let source = product.inputs.get(name).map(|input| &input.source);
            let Some(InputSource::Port { port }) = source else { continue };
            if job.print.aligned.contains(&(batch.output.clone(), port.clone())) {
                continue;
            }
            let no_partitions = || {
                let message = format!(
                    "`inputs` picks partitions of {port}, which is deployed without any of a calendar"
                );
                StepError::user("HM-X008", message)
            };
            let upstream = job.products.get(&port.product).ok_or_else(no_partitions)?;
            let Partitioning { by, into } = upstream.cut_of(&port.port).ok_or_else(no_partitions)?;
            let Parts::Calendar(cut) = into else { return Err(no_partitions()) };
            let schema = upstream.outputs.get(&port.port).map(|it| arrow_schema(&it.contract.columns));
            let kind = schema.and_then(|it| Some(it.field_with_name(by).ok()?.data_type().clone()));
            picked.push(Picked {
                table: name.to_string(),
                kind: kind.ok_or_else(no_partitions)?,
                mapping: Mapping::new(output, cut, *window).ok_or_else(no_partitions)?,
                cut: cut.clone(),
                by: by.clone(),
            });
        }
        Ok(Self(picked))
    }

    /// Returns a range of partitions in stretches, each of which sees the same of every input: a query answers for one.
    pub fn stretches(&self, first: Partition, last: Partition) -> Vec<(Partition, Partition)> {
        if self.0.is_empty() {
            return vec![(first, last)];
        }
        let mut stretches: Vec<(Partition, Partition)> = Vec::new();
        let (mut at, mut before) = (first, None);
        loop {
            let sees: Vec<_> = self.0.iter().map(|it| it.mapping.keys(&at.to_string())).collect();
            match stretches.last_mut() {
                Some(stretch) if before.as_ref() == Some(&sees) => stretch.1 = at,
                _ => stretches.push((at, at)),
            }
            if at >= last || at.next() == at {
                return stretches;
            }
            (at, before) = (at.next(), Some(sees));
        }
    }

    /// Returns the inputs as a partition sees them.
    ///
    /// # Errors
    /// When the column that an input is cut by holds no keys.
    pub fn tables(&self, tables: &Tables, at: Partition) -> Result<Tables, StepError> {
        let mut seen = tables.clone();
        for picked in &self.0 {
            let Some(table) = tables.get(&picked.table) else { continue };
            let part = match picked.mapping.keys(&at.to_string()) {
                Some((from, to)) => Some(picked.filter(&from, &to)?),
                None => None,
            };
            seen.insert(picked.table.clone(), part_of(Arc::clone(table), part.as_ref())?);
        }
        Ok(seen)
    }
}

impl Picked {
    /// Returns the condition that keeps the partitions from one to another, both inclusive.
    fn filter(&self, from: &str, to: &str) -> Result<PartitionFilter, StepError> {
        let wrong =
            |error: hydromesh_core::time::PartitionError| StepError::user("HM-X008", error.to_string());
        let end = Partition::parse(self.cut.every, to).map_err(wrong)?.next().to_string();
        let value = |key: &str| value((&self.by, self.cut.every), &self.kind, key);
        let keeps = Keeps::Between { from: value(from)?, to: value(&end)? };
        Ok(PartitionFilter { column: self.by.clone(), keeps })
    }
}
