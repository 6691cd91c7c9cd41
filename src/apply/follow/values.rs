//! The table of a feature port: the current values of every entity, replaced as a whole.
//!
//! Its content is a function of the events alone: the values as of the end of the base tile that holds the newest one.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt as _;
use hydromesh_core::aggregate::Value;
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::Fact;
use hydromesh_core::model::{OutputPort, QualityCheck};
use serde_json::json;
use tracing::{Instrument as _, info_span};

use super::arrays::{column, instants};
use super::view::built;
use crate::apply::{Context, StepError};
use crate::engine::{Against, QualityOutcome, arrow_schema};
use crate::lake::{Checkpoint, PublishMode, Table, TableSpec};
use crate::online::PortValues;

/// Entities in memory at once as rows.
const CHUNK: usize = 4_096;
/// The column of the time at which the windows end.
const AS_OF: &str = "as_of";
/// An unchanged result of a quality rule is told this often, real time.
const TELL_AGAIN: std::time::Duration = std::time::Duration::from_mins(1);

/// The port's table.
pub(super) struct ValuesTable {
    table: Table,
    pipeline: String,
    output: OutputPort,
    port: PortId,
    entity: String,
    schema: SchemaRef,
    stored: Option<serde_json::Value>,
    /// The version that shows what was published last.
    pub version: Option<i64>,
    told: BTreeMap<String, (bool, std::time::Instant)>,
}

impl ValuesTable {
    /// Opens the table and gives it the contract's columns.
    ///
    /// # Errors
    /// When the table cannot be used.
    pub async fn open(
        context: &Context,
        table: Table,
        pipeline: String,
        port: PortId,
        output: &OutputPort,
        entity: &str,
    ) -> Result<Self, StepError> {
        let schema = arrow_schema(&output.contract.columns);
        table
            .ensure(&TableSpec { schema: Arc::clone(&schema), partition_by: None }, context.writer())
            .await?;
        let stored = table.last_checkpoint(&pipeline).await?;
        let version = match &stored {
            Some(_) => table.commits(1).await?.pop().map(|(version, _)| version.0),
            None => None,
        };
        // The table is written anew every few seconds: no program is run as often.
        let mut output = output.clone();
        output.contract.quality.retain(|rule| !matches!(rule.check, QualityCheck::Command(_)));
        Ok(Self {
            table,
            pipeline,
            output,
            port,
            entity: entity.to_owned(),
            schema,
            stored,
            version,
            told: BTreeMap::new(),
        })
    }

    /// Publishes the values as of `epoch`, unless they are there already; nothing before the first event.
    ///
    /// A failed rule of the contract leaves the last good values visible, and is told.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub async fn refresh(
        &mut self,
        context: &Context,
        values: &Arc<PortValues>,
        epoch: u64,
        run: &str,
    ) -> Result<Vec<Fact>, StepError> {
        let Some(as_of_ms) = values.as_of_ms() else { return Ok(Vec::new()) };
        let definition = values.freshness().definition;
        let record = json!({"epoch": epoch, "definition": definition, "as_of_ms": as_of_ms});
        if self.stored.as_ref() == Some(&record) {
            return Ok(Vec::new());
        }
        values.prune();
        let checkpoint = Checkpoint {
            pipeline: self.pipeline.clone(),
            record: record.clone(),
            follows: self.stored.clone(),
        };
        let key = format!("{}/{definition}/{epoch}", self.pipeline);
        let meta = context.commit(key).with_checkpoint(checkpoint);
        let chunks: Vec<Vec<String>> = values.entities().chunks(CHUNK).map(<[String]>::to_vec).collect();
        let (schema, entity, from) = (Arc::clone(&self.schema), self.entity.clone(), Arc::clone(values));
        let batches = futures::stream::iter(chunks).map(move |entities| {
            rows(&schema, &entity, &from, &entities, as_of_ms)
                .map_err(|error| DataFusionError::Execution(error.to_string()))
        });
        let batches = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches));
        let staged = self.table.stage(&meta, batches).instrument(info_span!("stage")).await?;
        let provider = self.table.staged_provider(&staged);
        let object = self.port.port.as_str();
        // The table is written anew every few seconds, and nobody records how many rows it had: nothing is usual of it.
        let rules = &self.output.contract.quality;
        let outcomes = context
            .engine
            .audit(rules, provider, object, &Against::default())
            .instrument(info_span!("audit"))
            .await?;
        let blocked = outcomes.iter().any(QualityOutcome::blocks);
        let mut facts = Vec::new();
        for outcome in outcomes {
            let same = self
                .told
                .get(&outcome.rule)
                .is_some_and(|(passed, at)| *passed == outcome.passed && at.elapsed() < TELL_AGAIN);
            if same {
                continue;
            }
            self.told.insert(outcome.rule.clone(), (outcome.passed, std::time::Instant::now()));
            facts.push(outcome.into_fact(&self.port, None, run));
        }
        if blocked {
            self.table.discard(staged).await?;
            return Ok(facts);
        }
        super::point("values-staged").await;
        let published = self
            .table
            .publish(staged, PublishMode::ReplaceAll, &meta)
            .instrument(info_span!("publish"))
            .await?;
        super::point("values-committed").await;
        (self.stored, self.version) = (Some(record), Some(published.version.0));
        Ok(facts)
    }
}

/// Returns the values of some entities as rows of the contract. A column that is neither the entity, nor the time, nor
/// a feature has no value.
fn rows(
    schema: &SchemaRef,
    entity: &str,
    values: &PortValues,
    entities: &[String],
    as_of_ms: i64,
) -> Result<RecordBatch, StepError> {
    let mut columns: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for entity in entities {
        for (name, value) in values.lookup(entity, as_of_ms) {
            columns.entry(name).or_default().push(value);
        }
    }
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let array: ArrayRef = if field.name() == entity {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(entities));
            built(arrow::compute::cast(&texts, field.data_type()))?
        } else if let Some(values) = columns.get(field.name()) {
            column(values, field.data_type())?
        } else if field.name() == AS_OF && matches!(field.data_type(), DataType::Timestamp(..)) {
            instants(entities.iter().map(|_| Some(as_of_ms)))
        } else {
            arrow::array::new_null_array(field.data_type(), entities.len())
        };
        arrays.push(array);
    }
    built(RecordBatch::try_new(Arc::clone(schema), arrays))
}
