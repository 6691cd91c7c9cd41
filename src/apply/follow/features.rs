//! A feature pipeline: the archive's history, then the live topic, through one definition.
//!
//! The history is read at one version of the archive, together with the offsets recorded in that version; the live
//! stream goes on from exactly those. History and stream pass the same select, the same judge and the same kernel, so
//! that a pipeline which read everything live has the same tiles to the bit.
//!
//! An epoch's `port` and `version` in the ledger are those of the port's own table, the current values. The tile
//! log is named after the definition, so that a changed one starts afresh while the old values stay published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column as PlanColumn, DataFusionError};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, lit};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt as _;
use hydromesh_core::checkpoint::{CHECKPOINT_FORMAT, CheckpointRecord, SourceRange};
use hydromesh_core::ids::{PipelineId, PortId, ProductId};
use hydromesh_core::ledger::{Epoch, Fact, StreamRows};
use hydromesh_core::model::{FeaturePipeline, InputSource, OutputPort, Pipeline, Product, StreamPipeline};
use hydromesh_core::tile::TileDelta;
use hydromesh_core::time::Watermark;

use super::archive::{quarantined, remember};
use super::chain::{Chain, SideTable, StreamRecord, Upstream, in_memory, ranges};
use super::history::{FeatureRows, Phase};
use super::judge::Judge;
use super::tiles::{
    self, EVENT, Entry, SOURCE_EVENT, Since, delta_batch, deltas, id_batch, oldest_needed, tile_schema,
};
use super::values::ValuesTable;
use super::view::{PortView, ViewState, id_column, port_schema, time_column};
use super::{OFFSET, PARTITION, cancelled, newest_of, pipeline_name};
use crate::apply::{Context, Done, Job, Reporter, StepError, lake_format};
use crate::engine::EngineError;
use crate::lake::{Table, TableSpec};
use crate::online::PortValues;
use crate::stream::Message;

/// How often the port's table may be replaced, real time.
const REFRESH: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(5) };
/// A refresh may take at most this part of the time.
const REFRESH_SHARE: u32 = 10;

/// The stream whose port a feature pipeline reads.
pub(super) struct SourceStream<'a> {
    pub product: &'a Product,
    pub stream: &'a StreamPipeline,
    pub output: &'a OutputPort,
    pub port: PortId,
}

impl<'a> SourceStream<'a> {
    /// Finds the stream.
    ///
    /// # Errors
    /// When the source is no port that a deployed stream pipeline fills.
    pub fn find(
        products: &'a BTreeMap<ProductId, Product>,
        product: &Product,
        feature: &FeaturePipeline,
    ) -> Result<Self, StepError> {
        let source = product.inputs.get(&feature.source.port).map(|input| &input.source);
        let Some(InputSource::Port { port }) = source else {
            let message =
                format!("{}: features are made of a port that a stream pipeline fills", feature.source.port);
            return Err(StepError::user("HM-F001", message));
        };
        let absent = || StepError::external("HM-X005", format!("{port} is not deployed"));
        let upstream = products.get(&port.product).ok_or_else(absent)?;
        let output = upstream.outputs.get(&port.port).ok_or_else(absent)?;
        let stream = upstream.pipelines.values().find_map(|pipeline| match pipeline {
            Pipeline::Stream(stream) if stream.output == port.port => Some(stream),
            _ => None,
        });
        let stream = stream.ok_or_else(|| {
            StepError::user(
                "HM-F001",
                format!("{port} is not filled by a stream pipeline, whose topic would be followed"),
            )
        })?;
        Ok(Self { product: upstream, stream, output, port: port.clone() })
    }

    /// Returns the archive.
    pub fn archive(&self, context: &Context) -> Result<Table, StepError> {
        Ok(context.lake.table(&self.port.to_string(), lake_format(self.output.format))?)
    }

    /// Returns the archive at its newest version with the record of just that version; none before its first epoch.
    pub async fn newest(&self, context: &Context) -> Result<Option<Archived>, StepError> {
        let table = self.archive(context)?;
        loop {
            let before = table.commits(1).await?.pop();
            let Some((version, meta)) = before else { return Ok(None) };
            // Also shows columns that were added after the last epoch.
            let provider = table.provider(None).await?;
            let after = table.commits(1).await?.pop().map(|(version, _)| version);
            if after != Some(version) {
                continue;
            }
            let record =
                meta.checkpoint.map(|checkpoint| serde_json::from_value::<StreamRecord>(checkpoint.record));
            let record = record.and_then(Result::ok).ok_or_else(|| {
                let message = format!("version {} of {} has no record of its offsets", version.0, self.port);
                StepError::user("HM-F003", message)
            })?;
            return Ok(Some(Archived { table, provider, record }));
        }
    }
}

/// An archive at one version.
pub(super) struct Archived {
    pub table: Table,
    pub provider: Arc<dyn TableProvider>,
    pub record: StreamRecord,
}

/// Returns an archive's rows, partition by partition in the order of their offsets, as the live stream shows them.
pub(super) async fn in_order(
    context: &Context,
    archive: Arc<dyn TableProvider>,
    schema: &Schema,
) -> Result<SendableRecordBatchStream, StepError> {
    let failed = |error: DataFusionError| StepError::from(EngineError::from(error));
    let there = archive.schema();
    let session =
        context.engine.session(BTreeMap::from([("archive".to_owned(), archive)])).map_err(failed)?;
    let of = |name: &str| Expr::Column(PlanColumn::new_unqualified(name));
    let mut wanted = Vec::new();
    for field in schema.fields() {
        let name = field.name();
        wanted.push(if there.field_with_name(name).is_ok() {
            of(name).alias(name)
        } else {
            // A column that the stream's next epoch will add.
            lit(ScalarValue::try_from(field.data_type()).map_err(failed)?).alias(name)
        });
    }
    let frame = session.table("archive").await.map_err(failed)?.select(wanted).map_err(failed)?;
    let order = [PARTITION, OFFSET].map(|name| of(name).sort(true, true)).to_vec();
    frame.sort(order).map_err(failed)?.execute_stream().await.map_err(failed)
}

/// Returns the address of a pipeline's tile log: of its port and its definition.
pub(super) fn tile_log(port: &PortId, definition: &str) -> String {
    format!("{port}__tiles_{}", definition.get(..8).unwrap_or(definition))
}

/// Returns what the tiles are computed by.
pub(super) fn definition_of(feature: &FeaturePipeline, data: String) -> String {
    if data.is_empty() { feature.view.fingerprint() } else { data }
}

/// Follows the topic of the port that the features are made of.
pub(super) async fn run(
    context: &Context,
    job: &Job,
    feature: &FeaturePipeline,
    reporter: &Reporter,
) -> Result<Done, StepError> {
    let mut follower = Follower::open(context, job, feature, reporter).await?;
    follower.refresh().await?;
    let told = follower.told(StreamRows::default());
    if let Some(told) = told {
        reporter.report(vec![told]).await;
    }
    loop {
        let messages = follower.view.collect(&reporter.cancel, context.clock.now_ms()).await?;
        if !messages.is_empty() {
            super::point("read").await;
            follower.epoch(messages).await?;
        } else if follower.stale() {
            follower.refresh().await?;
            let told = follower.told(StreamRows::default());
            reporter.report(told.into_iter().collect()).await;
        }
    }
}

struct Follower<'a> {
    context: &'a Context,
    reporter: &'a Reporter,
    id: PipelineId,
    port: PortId,
    data: String,
    definition: String,
    feature: &'a FeaturePipeline,
    rows: FeatureRows,
    /// The port's columns and places, as history and stream both show them.
    port_columns: SchemaRef,
    view: PortView,
    watermark: Watermark,
    chain: Chain,
    aside: SideTable,
    values: Arc<PortValues>,
    table: ValuesTable,
    from: BTreeMap<i32, i64>,
    refreshed: Option<Instant>,
    pause: Duration,
    changed: bool,
}

impl<'a> Follower<'a> {
    async fn open(
        context: &'a Context,
        job: &'a Job,
        feature: &'a FeaturePipeline,
        reporter: &'a Reporter,
    ) -> Result<Self, StepError> {
        let product = job.product()?;
        let (port, data) = job.output()?;
        let missing = || StepError::internal(format!("{port} is not an output of the deployed product"));
        let output = product.outputs.get(&feature.output).ok_or_else(missing)?;
        let upstream = SourceStream::find(&job.products, product, feature)?;
        let definition = definition_of(feature, data.clone());
        let id = job.start.key.pipeline.clone();
        let name = pipeline_name(&id);
        let table = |address: String| context.lake.table(&address, lake_format(output.format));
        let log = table(tile_log(&port, &definition))?;
        log.ensure(&TableSpec { schema: tile_schema(), partition_by: None }, context.writer()).await?;
        let chain = Chain::open(log, name.clone()).await?;
        let port_columns = port_schema(&upstream.output.contract, &upstream.stream.source);
        let rows = FeatureRows::new(context, feature);
        let side = format!("{name}/quarantine/{}", definition.get(..8).unwrap_or(&definition));
        let aside =
            SideTable::open(table(format!("{port}__quarantine"))?, side, Arc::clone(&rows.aside_schema))
                .await?;
        let values_name = format!("{name}/values");
        let port_table = ValuesTable::open(
            context,
            job.table(context, &port, lake_format(output.format))?,
            values_name,
            port.clone(),
            output,
            &feature.entity,
        )
        .await?;
        let values = Arc::new(PortValues::new(feature.view.clone(), &feature.entity, &definition));
        let archived = if chain.last.is_none() { upstream.newest(context).await? } else { None };
        let state = match (&chain.last, &archived) {
            (Some(record), _) => ViewState::of_reader(record),
            (None, Some(archived)) => ViewState::of_archive(&archived.record),
            (None, None) => ViewState::default(),
        };
        let view = PortView::open(context, upstream.product, upstream.stream, upstream.output, state).await?;
        let watermark = Watermark::new(feature.source.bound, feature.source.idle, None);
        let mut follower = Self {
            context,
            reporter,
            id,
            port,
            data,
            definition,
            feature,
            rows,
            port_columns,
            from: view.next.clone(),
            view,
            watermark,
            chain,
            aside,
            values,
            table: port_table,
            refreshed: None,
            pause: REFRESH,
            changed: true,
        };
        if follower.chain.last.is_some() {
            follower.restore().await?;
        } else if let Some(archived) = archived {
            follower.backfill(&archived, &upstream).await?;
        }
        follower.resume_watermark();
        context.online.install(follower.port.clone(), Arc::clone(&follower.values));
        Ok(follower)
    }

    /// Rebuilds everything from the tile log.
    async fn restore(&mut self) -> Result<(), StepError> {
        let Some(record) = self.chain.last.clone() else { return Ok(()) };
        let newest: BTreeMap<i32, i64> = record.newest.iter().copied().collect();
        let at_ms = newest_of(&newest);
        self.rows.judge = Judge::new(&self.feature.source, newest, record.checkpoint.watermark_ms);
        let tiles_from = at_ms.map_or(i64::MIN, |at| oldest_needed(&self.feature.view, at));
        let ids_from =
            [&self.rows.judge, &self.view.judge].map(|judge| judge.horizon_ms().unwrap_or(i64::MIN));
        let from = tiles_from.min(ids_from[0]).min(ids_from[1]);
        let (rows, view, values) = (&mut self.rows, &mut self.view, &self.values);
        let mut held: Vec<TileDelta> = Vec::new();
        let apply = |deltas: &[TileDelta]| {
            values.apply(deltas).map_err(|error| StepError::user("HM-F003", error.to_string()))
        };
        let (provider, address) = (self.chain.table.provider(None).await?, self.chain.table.address());
        tiles::scan(self.context, provider, address, Since::Time(from), |entry| {
            match entry {
                Entry::Tile(delta) => held.push(delta),
                Entry::SourceEvent(id, at) => view.judge.remember(id, at),
                Entry::Event(id, at) => rows.judge.remember(id, at),
            }
            if held.len() >= 4_096 {
                apply(&held)?;
                held.clear();
            }
            Ok(())
        })
        .await?;
        apply(&held)?;
        let version = self.chain.table.commits(1).await?.pop().map(|(version, _)| version.0);
        self.values.advance(at_ms, record.checkpoint.watermark_ms, version);
        Ok(())
    }

    /// Reads the whole history of one version of the archive and commits its tiles as the first epoch.
    async fn backfill(&mut self, archived: &Archived, upstream: &SourceStream<'_>) -> Result<(), StepError> {
        let ends = archived.record.ends();
        let (contract, source) = (&upstream.output.contract, &upstream.stream.source);
        if let Some(id) = id_column(contract, source) {
            let time = time_column(contract, source);
            // Rows that were archived meanwhile are not part of this version and are still to come.
            let within = |partition, offset| ends.get(&partition).is_some_and(|end| offset < *end);
            remember(self.context, &archived.table, &mut self.view.judge, id, time, within).await?;
        }
        let span = ends.iter().map(|(&partition, &end)| SourceRange { partition, start: 0, end }).collect();
        let mut record = self.record(span, None);
        record.seam = ends.iter().map(|(partition, end)| (*partition, *end)).collect();
        let (send, receive) = tokio::sync::mpsc::channel::<RecordBatch>(2);
        let received = futures::stream::unfold(receive, |mut receive| async move {
            let batch = receive.recv().await?;
            Some((Ok(batch), receive))
        });
        let stream =
            datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(tile_schema(), received);
        let table = self.chain.table.clone();
        let meta = self.chain.meta(self.context, &record.checkpoint);
        let (staged, counted) = tokio::join!(
            table.stage(&meta, Box::pin(stream)),
            self.history(archived, &record.checkpoint, send)
        );
        let (counts, reasons) = match counted {
            Ok(counted) => counted,
            Err(error) => {
                if let Ok(staged) = staged {
                    table.discard(staged).await?;
                }
                return Err(error);
            }
        };
        let newest = self.rows.judge.newest().clone();
        self.resume_watermark();
        record.checkpoint.watermark_ms = self.watermark.advance(self.context.clock.now_ms());
        record.newest = newest.iter().map(|(partition, at)| (*partition, *at)).collect();
        let published = self.chain.publish(self.context, staged?, record.clone(), BTreeMap::new()).await?;
        self.rows.judge.committed(record.checkpoint.watermark_ms);
        let version = Some(published.version.0);
        self.values.advance(newest_of(&newest), record.checkpoint.watermark_ms, version);
        self.refresh().await?;
        let mut facts: Vec<Fact> = self.told(counts).into_iter().collect();
        let run = format!("{}#{}", self.chain.pipeline, record.checkpoint.epoch);
        facts.extend(quarantined(self.port.clone(), &run, counts.quarantined, reasons));
        self.reporter.report(facts).await;
        Ok(())
    }

    /// Turns history into tiles, a bounded part at a time.
    async fn history(
        &mut self,
        archived: &Archived,
        epoch: &CheckpointRecord,
        send: tokio::sync::mpsc::Sender<RecordBatch>,
    ) -> Result<(StreamRows, Vec<String>), StepError> {
        let failed = |error: DataFusionError| StepError::from(EngineError::from(error));
        let gone = |_| StepError::external("HM-L001", "the tile log could not be written");
        let mut counts = StreamRows::default();
        let mut reasons = Vec::new();
        let mut batches = in_order(self.context, Arc::clone(&archived.provider), &self.port_columns).await?;
        let mut newest: Option<i64> = None;
        while let Some(batch) = batches.try_next().await.map_err(failed)? {
            if self.reporter.cancel.is_cancelled() {
                return Err(cancelled());
            }
            let Some((last, reached)) = super::rowwise::places(&batch)?.last().copied() else { continue };
            let read = self.rows.read(batch, Phase::History).await?;
            // The side table is complete up to here, and knows nothing of partitions that are still to come.
            let done = BTreeMap::from([(last, reached + 1)]);
            self.aside.add(self.context, &read.aside, &done, epoch).await?;
            counts.accepted += read.counts.accepted;
            counts.corrected += read.counts.corrected;
            counts.quarantined += read.counts.quarantined;
            reasons.extend(read.reasons);
            reasons.truncate(super::REASONS);
            let deltas = deltas(&self.feature.view, &read.rows)?;
            send.send(delta_batch(&deltas, epoch.epoch)?).await.map_err(gone)?;
            let deltas: Vec<TileDelta> = deltas.into_iter().map(|(delta, _)| delta).collect();
            self.apply(&deltas)?;
            // Tiles that no answer at the newest event needs are given up on the way, which bounds memory.
            newest = newest.max(newest_of(self.rows.judge.newest()));
            self.values.advance(newest, None, None);
            self.values.prune();
            self.rows.judge.forget_before(last);
        }
        for (kind, judge) in [(SOURCE_EVENT, &self.view.judge), (EVENT, &self.rows.judge)] {
            let ids = id_batch(kind, judge.remembered(), epoch.epoch)?;
            send.send(ids).await.map_err(gone)?;
        }
        Ok((counts, reasons))
    }

    /// Reads, commits and serves one epoch of the live stream.
    async fn epoch(&mut self, messages: Vec<Message>) -> Result<(), StepError> {
        let spoke: BTreeSet<i32> = messages.iter().map(|message| message.partition).collect();
        let spoke: Vec<i32> = spoke.into_iter().collect();
        let now_ms = self.context.clock.now_ms();
        let viewed = self.view.read(messages).await?;
        let upstream_ms = self.view.advance(now_ms, &spoke);
        let read = self.rows.read(viewed.rows, Phase::Live).await?;
        for partition in &spoke {
            if let Some(newest) = self.rows.judge.newest().get(partition) {
                self.watermark.observe(*partition, *newest, now_ms);
            }
        }
        let watermark_ms = self.watermark.advance(now_ms);
        let mut record = self.record(ranges(&self.from, &self.view.next), watermark_ms);
        record.newest = self.rows.judge.newest().iter().map(|(partition, at)| (*partition, *at)).collect();
        record.upstream = Some(Upstream {
            newest: self.view.judge.newest().iter().map(|(partition, at)| (*partition, *at)).collect(),
            watermark_ms: upstream_ms,
        });
        record.seam = self.chain.last.as_ref().map(|last| last.seam.clone()).unwrap_or_default();
        self.aside.add(self.context, &read.aside, &self.view.next, &record.checkpoint).await?;
        super::point("aside").await;
        let epoch = record.checkpoint.epoch;
        let deltas = deltas(&self.feature.view, &read.rows)?;
        let batches = vec![
            delta_batch(&deltas, epoch)?,
            id_batch(SOURCE_EVENT, viewed.ids.iter().map(|(id, at)| (id.as_str(), *at)), epoch)?,
            id_batch(EVENT, read.ids.iter().map(|(id, at)| (id.as_str(), *at)), epoch)?,
        ];
        let counts =
            BTreeMap::from([("duplicates".to_owned(), (viewed.duplicates + read.duplicates).to_string())]);
        let published =
            self.chain.append(self.context, in_memory(tile_schema(), batches), record, counts).await?;
        self.view.judge.committed(upstream_ms);
        self.rows.judge.committed(watermark_ms);
        self.from.clone_from(&self.view.next);
        let deltas: Vec<TileDelta> = deltas.into_iter().map(|(delta, _)| delta).collect();
        self.apply(&deltas)?;
        let newest = newest_of(self.rows.judge.newest());
        self.values.advance(newest, watermark_ms, Some(published.version.0));
        self.changed = true;
        let mut facts = Vec::new();
        if self.stale() || self.table.version.is_none() {
            self.refresh().await?;
        }
        facts.extend(self.told(read.counts));
        let run = format!("{}#{epoch}", self.chain.pipeline);
        facts.extend(quarantined(self.port.clone(), &run, read.counts.quarantined, read.reasons));
        self.reporter.report(facts).await;
        Ok(())
    }

    fn apply(&self, deltas: &[TileDelta]) -> Result<(), StepError> {
        self.values.apply(deltas).map_err(|error| StepError::internal(error.to_string()))
    }

    /// Returns the record of the next epoch.
    fn record(&self, ranges: Vec<SourceRange>, watermark_ms: Option<i64>) -> StreamRecord {
        StreamRecord {
            checkpoint: CheckpointRecord {
                pipeline: self.chain.pipeline.clone(),
                epoch: self.chain.last.as_ref().map_or(1, |last| last.checkpoint.epoch + 1),
                fence: self.context.epoch,
                topic_id: self.view.topic_id.clone(),
                ranges,
                definition: self.definition.clone(),
                watermark_ms,
                format: CHECKPOINT_FORMAT,
            },
            newest: Vec::new(),
            upstream: Some(Upstream {
                newest: self.view.judge.newest().iter().map(|(partition, at)| (*partition, *at)).collect(),
                watermark_ms: self.view.watermark.current(),
            }),
            seam: Vec::new(),
        }
    }

    /// Makes the watermark go on from what is committed.
    fn resume_watermark(&mut self) {
        let now_ms = self.context.clock.now_ms();
        let committed = self.chain.last.as_ref().and_then(|last| last.checkpoint.watermark_ms);
        self.watermark = Watermark::new(self.feature.source.bound, self.feature.source.idle, committed);
        for partition in self.view.next.keys() {
            self.watermark.assign(*partition, now_ms);
        }
        for (partition, newest) in self.rows.judge.newest() {
            self.watermark.observe(*partition, *newest, now_ms);
        }
    }

    /// Returns whether the port's table should be replaced now.
    fn stale(&self) -> bool {
        self.changed && self.refreshed.is_none_or(|at| at.elapsed() >= self.pause)
    }

    async fn refresh(&mut self) -> Result<(), StepError> {
        let Some(record) = &self.chain.last else { return Ok(()) };
        let began = Instant::now();
        let run = format!("{}#{}", self.chain.pipeline, record.checkpoint.epoch);
        let facts = self.table.refresh(self.context, &self.values, record.checkpoint.epoch, &run).await?;
        self.pause = REFRESH.max(began.elapsed() * REFRESH_SHARE);
        (self.refreshed, self.changed) = (Some(Instant::now()), false);
        if !facts.is_empty() {
            self.reporter.report(facts).await;
        }
        Ok(())
    }

    /// Returns the fact of the last epoch, once the port has a table to point to.
    fn told(&self, rows: StreamRows) -> Option<Fact> {
        let record = self.chain.last.as_ref()?;
        Some(Fact::Epoch(Epoch {
            pipeline: self.id.clone(),
            port: self.port.clone(),
            checkpoint: record.checkpoint.clone(),
            version: self.table.version?,
            rows,
            newest_event_ms: newest_of(self.rows.judge.newest()),
            data: self.data.clone(),
        }))
    }
}
