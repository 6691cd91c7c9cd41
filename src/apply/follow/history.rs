//! Events as a feature pipeline sees them: of history and of the live stream alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::TryStreamExt as _;
use hydromesh_core::aggregate::{Order, Value};
use hydromesh_core::ids::{PipelineId, PortId};
use hydromesh_core::ledger::StreamRows;
use hydromesh_core::model::{Available, EventSource, FeaturePipeline, Pipeline};
use hydromesh_core::tile::{Row, ViewSpec};

use super::arrays::{instant, texts, times, values};
use super::chain::StreamRecord;
use super::features::{SourceStream, definition_of, in_order, tile_log};
use super::judge::{Event, Judge, Verdict};
use super::rowwise::{RowQuery, places};
use super::view::{port_schema, set_aside, with_reason};
use super::{AVAILABLE_AT, OFFSET, PARTITION, REASONS, pipeline_name};
use crate::apply::{Context, Job, StepError, lake_format};
use crate::engine::EngineError;
use crate::lake::Version;
use crate::train::History;

/// Instants beyond 100 million days from 1970 are mistakes; the tiles refuse them.
const LATEST_MS: i64 = 8_640_000_000_000_000;

/// Whether rows were imported with the archive or came while the pipeline followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// All imported.
    History,
    /// All live.
    Live,
    /// Imported below these offsets, live from them on.
    Split(BTreeMap<i32, i64>),
}

impl Phase {
    fn is_history(&self, partition: i32, offset: i64) -> bool {
        match self {
            Self::History => true,
            Self::Live => false,
            Self::Split(seam) => seam.get(&partition).is_some_and(|seam| offset < *seam),
        }
    }
}

/// What became of some rows of the port.
pub(super) struct FeatureChunk {
    /// Events that count.
    pub rows: Vec<Row>,
    /// Events set aside, with the reason.
    pub aside: RecordBatch,
    /// Ids of events that count, with the times by which they are remembered.
    pub ids: Vec<(String, i64)>,
    /// How many of each.
    pub counts: StreamRows,
    /// Events that counted already.
    pub duplicates: u64,
    /// The first reasons, without values.
    pub reasons: Vec<String>,
}

/// Turns rows of the port into rows of the view.
pub(super) struct FeatureRows {
    select: RowQuery,
    source: EventSource,
    entity: String,
    inputs: Vec<String>,
    /// The judge of its events.
    pub judge: Judge,
    /// The columns of [`FeatureChunk::aside`].
    pub aside_schema: SchemaRef,
}

impl FeatureRows {
    /// Returns the reader of a feature pipeline, before any event.
    pub fn new(context: &Context, feature: &FeaturePipeline) -> Self {
        let source = feature.source.clone();
        let mut output: BTreeSet<String> = feature.view.inputs().iter().cloned().collect();
        output.extend([feature.entity.clone(), source.event_time.clone()]);
        output.extend(source.event_id.clone());
        if let Available::Column(column) = &source.available {
            output.insert(column.clone());
        }
        let aside = Schema::new(vec![
            Field::new("entity", DataType::Utf8, true),
            Field::new("event_time", instant(), true),
            Field::new(PARTITION, DataType::Int32, true),
            Field::new(OFFSET, DataType::Int64, true),
            Field::new(AVAILABLE_AT, instant(), true),
        ]);
        Self {
            select: RowQuery {
                engine: context.engine.clone(),
                sql: feature.select.text.clone(),
                table: source.port.as_str().to_owned(),
                output: output.into_iter().collect(),
                carried: [PARTITION, OFFSET, AVAILABLE_AT].map(str::to_owned).to_vec(),
                conform: None,
            },
            judge: Judge::new(&source, BTreeMap::new(), None),
            entity: feature.entity.clone(),
            inputs: feature.view.inputs().to_vec(),
            source,
            aside_schema: with_reason(&aside),
        }
    }

    /// Runs the select over rows of the port and judges what it yields.
    ///
    /// # Errors
    /// When the select is wrong; never because of a row.
    pub async fn read(&mut self, rows: RecordBatch, phase: Phase) -> Result<FeatureChunk, StepError> {
        let given = rows.clone();
        let mapped = self.select.run(rows).await?;
        let mut chunk = self.judge_rows(&mapped.rows, &phase)?;
        if !mapped.failed.is_empty() {
            let failed: BTreeSet<(i32, i64)> =
                mapped.failed.iter().map(|(partition, offset, _)| (*partition, *offset)).collect();
            let reasons: Vec<Option<String>> = places(&given)?
                .iter()
                .map(|place| failed.contains(place).then(|| "the select fails on it".to_owned()))
                .collect();
            let aside = set_aside(&given, &reasons, &self.aside_schema)?;
            chunk.counts.quarantined += aside.num_rows() as u64;
            let told = failed
                .iter()
                .map(|(partition, offset)| format!("{partition}@{offset}: the select fails on it"));
            chunk.reasons.extend(told);
            chunk.reasons.truncate(REASONS);
            chunk.aside = super::view::built(arrow::compute::concat_batches(
                &self.aside_schema,
                [&chunk.aside, &aside],
            ))?;
        }
        Ok(chunk)
    }

    fn judge_rows(&mut self, rows: &RecordBatch, phase: &Phase) -> Result<FeatureChunk, StepError> {
        let column = |name: &str| {
            rows.column_by_name(name).ok_or_else(|| StepError::internal(format!("rows without {name}")))
        };
        let entities = texts(column(&self.entity)?)?;
        let event_times = times(column(&self.source.event_time)?)?;
        let broker_times = times(column(AVAILABLE_AT)?)?;
        let ids = self.source.event_id.as_deref().map(|id| texts(column(id)?)).transpose()?;
        let declared = match &self.source.available {
            Available::Column(name) => Some(times(column(name)?)?),
            Available::Broker | Available::AssumeEventPlus(_) => None,
        };
        let inputs: Vec<Vec<Value>> =
            self.inputs.iter().map(|name| values(column(name)?)).collect::<Result<_, StepError>>()?;
        let places = places(rows)?;
        let mut chunk = FeatureChunk {
            rows: Vec::with_capacity(rows.num_rows()),
            aside: RecordBatch::new_empty(Arc::clone(&self.aside_schema)),
            ids: Vec::new(),
            counts: StreamRows::default(),
            duplicates: 0,
            reasons: Vec::new(),
        };
        let mut reasons: Vec<Option<String>> = Vec::with_capacity(rows.num_rows());
        for (row, (partition, offset)) in places.iter().copied().enumerate() {
            let at = event_times[row].filter(|at| (-LATEST_MS..=LATEST_MS).contains(at));
            let (true, Some(at_ms)) = (entities.is_valid(row), at) else {
                let what = if entities.is_valid(row) { "a usable event time" } else { "an entity" };
                reasons.push(Some(format!("it has not {what}")));
                continue;
            };
            let id = ids.as_ref().filter(|ids| ids.is_valid(row)).map(|ids| ids.value(row));
            let broker_ms = broker_times[row].unwrap_or(at_ms);
            let verdict = self.judge.judge(Event { partition, at_ms, broker_ms, id });
            match verdict {
                Verdict::Duplicate => {
                    chunk.duplicates += 1;
                    reasons.push(None);
                    continue;
                }
                Verdict::TooLate => {
                    reasons.push(Some("it came later than is allowed".to_owned()));
                    continue;
                }
                Verdict::Corrected => chunk.counts.corrected += 1,
                Verdict::Accepted => chunk.counts.accepted += 1,
            }
            reasons.push(None);
            chunk.ids.extend(id.map(|id| (id.to_owned(), at_ms.min(broker_ms))));
            let available_ms = match (&self.source.available, &declared) {
                (_, Some(declared)) => declared[row].unwrap_or(broker_ms),
                (Available::AssumeEventPlus(delay), None) if phase.is_history(partition, offset) => {
                    at_ms.saturating_add(delay.millis())
                }
                _ => broker_ms,
            };
            chunk.rows.push(Row {
                entity: entities.value(row).to_owned(),
                order: Order { event_ms: at_ms, partition, offset },
                available_ms,
                values: inputs.iter().map(|values| values[row].clone()).collect(),
            });
        }
        chunk.counts.quarantined = reasons.iter().flatten().count() as u64;
        chunk.reasons = places
            .iter()
            .zip(&reasons)
            .filter_map(|((partition, offset), reason)| {
                Some(format!("{partition}@{offset}: {}", reason.as_ref()?))
            })
            .take(REASONS)
            .collect();
        let named = self.named(rows, &entities, &event_times)?;
        chunk.aside = set_aside(&named, &reasons, &self.aside_schema)?;
        Ok(chunk)
    }

    /// Returns the rows under the names of the side table.
    fn named(
        &self,
        rows: &RecordBatch,
        entities: &arrow::array::StringArray,
        event_times: &[Option<i64>],
    ) -> Result<RecordBatch, StepError> {
        let fields: Vec<Field> =
            self.aside_schema.fields().iter().take(5).map(|field| field.as_ref().clone()).collect();
        let mut arrays: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(entities.clone()),
            // A time that no table can hold is left out; the place says where to find it.
            super::arrays::instants(
                event_times.iter().map(|at| at.filter(|at| (-LATEST_MS..=LATEST_MS).contains(at))),
            ),
        ];
        for name in [PARTITION, OFFSET, AVAILABLE_AT] {
            let missing = || StepError::internal(format!("rows without {name}"));
            arrays.push(Arc::clone(rows.column_by_name(name).ok_or_else(missing)?));
        }
        super::view::built(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays))
    }
}

/// Returns the view of a feature port and every event of its history that counts; see [`feature_history`].
///
/// # Errors
/// See [`feature_history`].
pub async fn history_rows(
    context: &Context,
    job: &Job,
    feature_port: &PortId,
) -> Result<(ViewSpec, Vec<Row>), StepError> {
    let history = feature_history(context, job, feature_port).await?;
    Ok((history.view, history.rows))
}

/// Returns every event of a feature port's history that counts, sorted by entity and order, each with the time from
/// which it was known.
///
/// The rows are those that the port's follower counted: the archive, read anew through the same select and judge, at
/// the version that the job pins or else the newest. Events that were imported carry the declared assumption about
/// when they were known, later ones the broker's time. The whole history is in memory afterwards.
///
/// # Errors
/// When the port is no feature port of a deployed product, or its archive cannot be read.
pub async fn feature_history(
    context: &Context,
    job: &Job,
    feature_port: &PortId,
) -> Result<History, StepError> {
    let absent = || StepError::external("HM-X005", format!("{feature_port} is not deployed"));
    let product = job.products.get(&feature_port.product).ok_or_else(absent)?;
    let output = product.outputs.get(&feature_port.port).ok_or_else(absent)?;
    let found = product.pipelines.iter().find_map(|(name, pipeline)| match pipeline {
        Pipeline::Feature(feature) if feature.output == feature_port.port => Some((name, feature)),
        _ => None,
    });
    let (name, feature) = found.ok_or_else(|| {
        StepError::user("HM-T008", format!("{feature_port} is not filled by a feature pipeline"))
    })?;
    let upstream = SourceStream::find(&job.products, product, feature)?;
    let mut history = History {
        entity: feature.entity.clone(),
        view: feature.view.clone(),
        rows: Vec::new(),
        assumed_lag_ms: match &feature.source.available {
            Available::AssumeEventPlus(delay) => Some(delay.millis()),
            Available::Broker | Available::Column(_) => None,
        },
        versions: BTreeMap::new(),
    };
    let table = upstream.archive(context)?;
    let pinned = job.versions.get(&upstream.port).map(|version| Version(*version));
    let newest = || async { Ok::<_, StepError>(table.commits(1).await?.pop().map(|(version, _)| version)) };
    let version = match pinned {
        Some(version) => Some(version),
        None => newest().await?,
    };
    let Some(version) = version else { return Ok(history) };
    history.versions.insert(upstream.port.clone(), version.0);
    let id = PipelineId { product: feature_port.product.clone(), name: name.clone() };
    let phase = seam(context, feature, feature_port, lake_format(output.format), &pipeline_name(&id)).await?;
    let mut reader = FeatureRows::new(context, feature);
    let schema = port_schema(&upstream.output.contract, &upstream.stream.source);
    let mut batches = in_order(context, table.provider(Some(version)).await?, &schema).await?;
    while let Some(batch) =
        batches.try_next().await.map_err(|error| StepError::from(EngineError::from(error)))?
    {
        let last = places(&batch)?.last().copied();
        history.rows.extend(reader.read(batch, phase.clone()).await?.rows);
        if let Some((partition, _)) = last {
            reader.judge.forget_before(partition);
        }
    }
    history
        .rows
        .sort_unstable_by(|left, right| (&left.entity, left.order).cmp(&(&right.entity, right.order)));
    Ok(history)
}

/// Returns where imported history ends, as the newest tile log of the port says; all is history before there is one.
async fn seam(
    context: &Context,
    feature: &FeaturePipeline,
    port: &PortId,
    format: crate::lake::TableFormat,
    pipeline: &str,
) -> Result<Phase, StepError> {
    // The values' own record names the definition that is served; the job's print is of the reader, not of the port.
    let values = context.lake.table(&port.to_string(), format)?;
    let served = values.last_checkpoint(&format!("{pipeline}/values")).await?;
    let served = served.as_ref().and_then(|record| record.get("definition")?.as_str().map(str::to_owned));
    let definition = definition_of(feature, served.unwrap_or_default());
    let log = context.lake.table(&tile_log(port, &definition), format)?;
    let record = log.last_checkpoint(pipeline).await?;
    let record = record.and_then(|record| serde_json::from_value::<StreamRecord>(record).ok());
    Ok(record.map_or(Phase::History, |record| Phase::Split(record.seam.into_iter().collect())))
}
