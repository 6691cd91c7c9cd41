//! Commits that carry their source ranges, and the side tables that belong to them.
//!
//! A table's last record is the only memory of a follower: where it stopped, how far event time had come in each
//! partition, what definition it ran. Two tables cannot be committed at once, so rows that are set aside go to their
//! side table *before* the epoch's own commit, and the side table has a chain of its own: it knows up to which offsets
//! it is complete. When the epoch's commit is lost and the epoch, perhaps cut otherwise, is read again, rows below
//! those offsets are there already and are left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use hydromesh_core::checkpoint::{
    CHECKPOINT_FORMAT, CheckpointRecord, CommitDecision, SourceRange, decide_commit,
};
use serde::{Deserialize, Serialize};
use tracing::{Instrument as _, info_span};

use super::rowwise::places;
use crate::apply::{Context, StepError};
use crate::lake::{Checkpoint, CommitMeta, PublishMode, Published, Staged, Table, TableSpec};

/// What one commit of a follower says about itself: core's record, and what judging the next event needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StreamRecord {
    /// Ranges, epoch, fence, topic, definition, watermark.
    #[serde(flatten)]
    pub checkpoint: CheckpointRecord,
    /// The newest event time per partition.
    #[serde(default)]
    pub newest: Vec<(i32, i64)>,
    /// Of a feature pipeline: the same of the stream that it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// Of a feature pipeline: where imported history ends and the live stream begins, per partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seam: Vec<(i32, i64)>,
}

/// How far the stream that a feature pipeline reads had come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upstream {
    /// The newest event time per partition.
    pub newest: Vec<(i32, i64)>,
    /// Its watermark.
    pub watermark_ms: Option<i64>,
}

impl StreamRecord {
    /// Returns the offsets to read next, per partition.
    pub fn ends(&self) -> BTreeMap<i32, i64> {
        self.checkpoint.ranges.iter().map(|range| (range.partition, range.end)).collect()
    }
}

/// Returns the ranges of an epoch that begins at `from` and ends at `to`.
pub(super) fn ranges(from: &BTreeMap<i32, i64>, to: &BTreeMap<i32, i64>) -> Vec<SourceRange> {
    to.iter()
        .map(|(&partition, &end)| SourceRange {
            partition,
            start: from.get(&partition).copied().unwrap_or(0),
            end,
        })
        .collect()
}

/// A table with the chain of one pipeline in it.
#[derive(Debug)]
pub(super) struct Chain {
    pub table: Table,
    pub pipeline: String,
    /// The newest record, as the table has it.
    stored: Option<serde_json::Value>,
    /// The same, understood.
    pub last: Option<StreamRecord>,
}

impl Chain {
    /// Reads where the pipeline stopped.
    ///
    /// # Errors
    /// When the table cannot be read, or its record is not understood: a guess would lose or double events.
    pub async fn open(table: Table, pipeline: String) -> Result<Self, StepError> {
        let stored = table.last_checkpoint(&pipeline).await?;
        let last =
            stored.clone().map(serde_json::from_value::<StreamRecord>).transpose().map_err(|error| {
                StepError::user(
                    "HM-F003",
                    format!("the last record of {pipeline} in {}: {error}", table.address()),
                )
            })?;
        Ok(Self { table, pipeline, stored, last })
    }

    /// Returns what a commit of an epoch carries before its record is known.
    pub fn meta(&self, context: &Context, epoch: &CheckpointRecord) -> CommitMeta {
        let places: Vec<String> = epoch
            .ranges
            .iter()
            .map(|range| format!("{}:{}-{}", range.partition, range.start, range.end))
            .collect();
        context.commit(format!("{}/{}/{}", self.pipeline, epoch.epoch, places.join(",")))
    }

    /// Appends rows and the record that accounts for them in one atomic commit.
    ///
    /// # Errors
    /// When the record does not follow the last one, or the table cannot be written. The caller reads the table again.
    pub async fn append(
        &mut self,
        context: &Context,
        rows: Rows,
        record: StreamRecord,
        properties: BTreeMap<String, String>,
    ) -> Result<Published, StepError> {
        let staged = self
            .table
            .stage(&self.meta(context, &record.checkpoint), rows)
            .instrument(info_span!("stage"))
            .await?;
        self.publish(context, staged, record, properties).await
    }

    /// Makes staged rows visible together with the record that accounts for them.
    ///
    /// # Errors
    /// See [`Chain::append`].
    pub async fn publish(
        &mut self,
        context: &Context,
        staged: Staged,
        record: StreamRecord,
        properties: BTreeMap<String, String>,
    ) -> Result<Published, StepError> {
        let last = self.last.as_ref().map(|last| &last.checkpoint);
        if let CommitDecision::Refused { why } = decide_commit(last, &record.checkpoint) {
            self.table.discard(staged).await?;
            return Err(StepError::external("HM-F003", format!("{}: {why}", self.table.address())));
        }
        let stored = serde_json::to_value(&record).map_err(|error| StepError::internal(error.to_string()))?;
        let checkpoint = Checkpoint {
            pipeline: self.pipeline.clone(),
            record: stored.clone(),
            follows: self.stored.clone(),
        };
        let meta =
            CommitMeta { properties, ..self.meta(context, &record.checkpoint).with_checkpoint(checkpoint) };
        super::point("staged").await;
        let published =
            self.table.publish(staged, PublishMode::Append, &meta).instrument(info_span!("publish")).await?;
        super::point("committed").await;
        (self.stored, self.last) = (Some(stored), Some(record));
        Ok(published)
    }
}

/// Rows on their way into a table.
pub(super) type Rows = SendableRecordBatchStream;

/// Returns batches that are in memory as a stream.
pub(super) fn in_memory(schema: SchemaRef, batches: Vec<RecordBatch>) -> Rows {
    let batches = batches.into_iter().filter(|batch| batch.num_rows() > 0).map(Ok);
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches)))
}

/// A table of rows that were set aside. It comes to be with its first row.
#[derive(Debug)]
pub(super) struct SideTable {
    chain: Chain,
    schema: SchemaRef,
}

impl SideTable {
    /// Opens the table, which may not exist.
    ///
    /// # Errors
    /// See [`Chain::open`].
    pub async fn open(table: Table, pipeline: String, schema: SchemaRef) -> Result<Self, StepError> {
        Ok(Self { chain: Chain::open(table, pipeline).await?, schema })
    }

    /// Adds those of the rows that are not there yet; the table is complete up to the ends of `record` afterwards.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub async fn add(
        &mut self,
        context: &Context,
        rows: &RecordBatch,
        ends: &BTreeMap<i32, i64>,
        epoch: &CheckpointRecord,
    ) -> Result<(), StepError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let complete = self.chain.last.as_ref().map(StreamRecord::ends).unwrap_or_default();
        let fresh: BooleanArray = places(rows)?
            .into_iter()
            .map(|(partition, offset)| Some(complete.get(&partition).is_none_or(|end| offset >= *end)))
            .collect();
        let rows =
            filter_record_batch(rows, &fresh).map_err(|error| StepError::internal(error.to_string()))?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let spec = TableSpec { schema: Arc::clone(&self.schema), partition_by: None };
        self.chain.table.ensure(&spec, context.writer()).await?;
        // A range that was complete already stays so when the epoch is cut shorter this time.
        let mut to = complete.clone();
        for (partition, end) in ends {
            let known = to.entry(*partition).or_insert(*end);
            *known = (*known).max(*end);
        }
        let from: BTreeMap<i32, i64> =
            to.keys().map(|partition| (*partition, complete.get(partition).copied().unwrap_or(0))).collect();
        let record = StreamRecord {
            checkpoint: CheckpointRecord {
                pipeline: self.chain.pipeline.clone(),
                epoch: self.chain.last.as_ref().map_or(1, |last| last.checkpoint.epoch + 1),
                fence: context.epoch,
                ranges: ranges(&from, &to),
                watermark_ms: None,
                format: CHECKPOINT_FORMAT,
                ..epoch.clone()
            },
            newest: Vec::new(),
            upstream: None,
            seam: Vec::new(),
        };
        let batches = in_memory(Arc::clone(&self.schema), vec![rows]);
        self.chain.append(context, batches, record, BTreeMap::new()).await.map(drop)
    }
}
