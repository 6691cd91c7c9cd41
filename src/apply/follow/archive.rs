//! A stream pipeline: its topic, cleaned and archived.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Column as PlanColumn;
use datafusion::logical_expr::{Expr, lit};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt as _;
use hydromesh_core::checkpoint::{CHECKPOINT_FORMAT, CheckpointRecord};
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{Epoch, Fact, StreamRows};
use hydromesh_core::model::StreamPipeline;

use super::arrays::{texts, times};
use super::chain::{Chain, SideTable, StreamRecord, in_memory, ranges};
use super::judge::Judge;
use super::view::{PortView, ViewState, id_column, port_schema, time_column};
use super::{newest_of, pipeline_name};
use crate::apply::{Context, Done, Job, Reporter, StepError, lake_format};
use crate::engine::EngineError;
use crate::lake::{Table, TableSpec};
use crate::stream::{dead_letter_batch, dead_letter_schema};

/// Follows the topic of a stream pipeline into its archive.
pub(super) async fn run(
    context: &Context,
    job: &Job,
    stream: &StreamPipeline,
    reporter: &Reporter,
) -> Result<Done, StepError> {
    let product = job.product()?;
    let (port, data) = job.output()?;
    let missing = || StepError::internal(format!("{port} is not an output of the deployed product"));
    let output = product.outputs.get(&stream.output).ok_or_else(missing)?;
    let table = |address: String| context.lake.table(&address, lake_format(output.format));
    let archive = job.table(context, &port, lake_format(output.format))?;
    let schema = port_schema(&output.contract, &stream.source);
    archive.ensure(&TableSpec { schema, partition_by: None }, context.writer()).await?;
    let id = &job.start.key.pipeline;
    let name = pipeline_name(id);
    let mut chain = Chain::open(archive, name.clone()).await?;
    let state = chain.last.as_ref().map(ViewState::of_archive).unwrap_or_default();
    let mut view = PortView::open(context, product, stream, output, state).await?;
    let mut dead = SideTable::open(
        table(format!("{port}__dead_letters"))?,
        format!("{name}/dead"),
        dead_letter_schema(),
    )
    .await?;
    let aside_schema = Arc::clone(&view.aside_schema);
    let mut aside =
        SideTable::open(table(format!("{port}__quarantine"))?, format!("{name}/quarantine"), aside_schema)
            .await?;
    let time = time_column(&output.contract, &stream.source);
    let ids = id_column(&output.contract, &stream.source);
    if let Some(ids) = ids.filter(|_| chain.last.is_some()) {
        remember(context, &chain.table, &mut view.judge, ids, time, |_, _| true).await?;
    }
    let told = |record: &StreamRecord, version: i64, rows: StreamRows| {
        Fact::Epoch(Epoch {
            pipeline: id.clone(),
            port: port.clone(),
            checkpoint: record.checkpoint.clone(),
            version,
            rows,
            newest_event_ms: newest_of(&record.newest.iter().copied().collect()),
            data: data.clone(),
        })
    };
    // Whoever saw the last epoch committed may have died before telling it.
    if let (Some(record), Some((version, _))) = (&chain.last, chain.table.commits(1).await?.pop()) {
        reporter.report(vec![told(record, version.0, StreamRows::default())]).await;
    }
    let mut from = view.next.clone();
    loop {
        let messages = view.collect(&reporter.cancel, context.clock.now_ms()).await?;
        if messages.is_empty() {
            continue;
        }
        super::point("read").await;
        let spoke: BTreeSet<i32> = messages.iter().map(|message| message.partition).collect();
        let spoke: Vec<i32> = spoke.into_iter().collect();
        let viewed = view.read(messages).await?;
        let watermark_ms = view.advance(context.clock.now_ms(), &spoke);
        let record = StreamRecord {
            checkpoint: CheckpointRecord {
                pipeline: name.clone(),
                epoch: chain.last.as_ref().map_or(1, |last| last.checkpoint.epoch + 1),
                fence: context.epoch,
                topic_id: view.topic_id.clone(),
                ranges: ranges(&from, &view.next),
                definition: data.clone(),
                watermark_ms,
                format: CHECKPOINT_FORMAT,
            },
            newest: view.judge.newest().iter().map(|(partition, at)| (*partition, *at)).collect(),
            upstream: None,
            seam: Vec::new(),
        };
        let letters = dead_letter_batch(&viewed.dead)?;
        dead.add(context, &letters, &view.next, &record.checkpoint).await?;
        aside.add(context, &viewed.aside, &view.next, &record.checkpoint).await?;
        super::point("aside").await;
        let rows = in_memory(Arc::clone(&view.schema), vec![viewed.rows]);
        let counts = BTreeMap::from([("duplicates".to_owned(), viewed.duplicates.to_string())]);
        let published = chain.append(context, rows, record.clone(), counts).await?;
        view.judge.committed(watermark_ms);
        from.clone_from(&view.next);
        if viewed.duplicates > 0 {
            tracing::info!(event = "left_out", %port, duplicates = viewed.duplicates, "events that were there already are left out");
        }
        let mut facts = vec![told(&record, published.version.0, viewed.counts)];
        let run = format!("{name}#{}", record.checkpoint.epoch);
        let source = product.port(&stream.source.port);
        facts.extend(quarantined(source, &run, viewed.counts.dead, viewed.dead_reasons));
        facts.extend(quarantined(port.clone(), &run, viewed.counts.quarantined, viewed.aside_reasons));
        reporter.report(facts).await;
    }
}

/// Returns the fact that rows were set aside, if some were.
pub(super) fn quarantined(port: PortId, run: &str, rows: u64, reasons: Vec<String>) -> Option<Fact> {
    (rows > 0).then(|| Fact::Quarantined { port, run: run.to_owned(), rows, reasons })
}

/// Tells a judge the ids of recent events in an archive; `wanted` chooses by place.
pub(super) async fn remember(
    context: &Context,
    archive: &Table,
    judge: &mut Judge,
    id: &str,
    time: &str,
    wanted: impl Fn(i32, i64) -> bool,
) -> Result<(), StepError> {
    let failed = |error: datafusion::error::DataFusionError| StepError::from(EngineError::from(error));
    let provider = archive.provider(None).await?;
    let session =
        context.engine.session(BTreeMap::from([("archive".to_owned(), provider)])).map_err(failed)?;
    let of = |name: &str| Expr::Column(PlanColumn::new_unqualified(name));
    let mut frame = session.table("archive").await.map_err(failed)?;
    if let Some(horizon) = judge.horizon_ms() {
        let micros =
            ScalarValue::TimestampMicrosecond(Some(horizon.saturating_mul(1_000)), Some("UTC".into()));
        frame = frame.filter(of(time).gt_eq(lit(micros))).map_err(failed)?;
    }
    let columns = [id, time, super::AVAILABLE_AT, super::PARTITION, super::OFFSET];
    let frame = frame.select(columns.map(of).to_vec()).map_err(failed)?;
    let mut batches = frame.execute_stream().await.map_err(failed)?;
    while let Some(batch) = batches.try_next().await.map_err(failed)? {
        note(judge, &batch, &wanted)?;
    }
    Ok(())
}

fn note(judge: &mut Judge, batch: &RecordBatch, wanted: &impl Fn(i32, i64) -> bool) -> Result<(), StepError> {
    let (ids, at, available) = (texts(batch.column(0))?, times(batch.column(1))?, times(batch.column(2))?);
    let places = super::rowwise::places(batch)?;
    for (((id, at), available), (partition, offset)) in ids.iter().zip(at).zip(available).zip(places) {
        if let (Some(id), Some(at)) = (id, at)
            && wanted(partition, offset)
        {
            judge.remember(id.to_owned(), at.min(available.unwrap_or(at)));
        }
    }
    Ok(())
}
