//! Embedding: read at a pinned version, cut, embed what no vector is known for, audit, publish the whole index at once.
//!
//! A vector is found by the address of its text ([`Model::address`]), so a chunk that moved, came twice or came back is
//! never embedded again, and one of another model is never found. The new index replaces the old one in one commit:
//! texts that were deleted or changed leave in the same version in which their successors arrive.

mod lent;
mod pieces;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Builder, Int64Array, ListBuilder, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use hydromesh_core::ids::{PortId, PortName};
use hydromesh_core::ledger::{Fact, Published, Taken};
use hydromesh_core::model::{EmbeddingPipeline, InputSource, LogicalType, OutputPort, Pipeline};

use self::lent::Lent;
use self::pieces::{Piece, pieces, read_source};
use tracing::{Instrument as _, info_span};

use super::batch::AUDIT_FAILED;
use super::inputs::{self, Inputs};
use super::{Context, Done, Job, Reporter, StepError, commands, ensure, lake_format};
use crate::engine::{Against, EngineError, QualityOutcome, arrow_schema, conform_schema};
use crate::lake::{PublishMode, Table, TableSpec, TableState, Version};
use crate::text::chain;
use crate::vector::{
    CHUNK, CONTENT_HASH, ChunkSizes, Layout, LayoutError, Model, Others, ProviderError, StoredRow, read_rows,
};

/// Texts that a provider gets at once; between two requests the step can be cancelled.
const REQUEST: usize = 64;
/// Rows per batch that is written.
const ROWS: usize = 1_024;
/// The columns do not fit an embedding.
const BAD_COLUMNS: &str = "HM-X020";
/// The model failed.
const BAD_MODEL: &str = "HM-X021";

impl From<LayoutError> for StepError {
    fn from(error: LayoutError) -> Self {
        Self::user(BAD_COLUMNS, error.to_string())
    }
}

impl From<ProviderError> for StepError {
    fn from(error: ProviderError) -> Self {
        match &error {
            ProviderError::Unknown(_) => Self::user(BAD_MODEL, chain(&error)),
            _ => Self::external(BAD_MODEL, chain(&error)),
        }
    }
}

/// Refreshes an index; the rows of the result are the chunks that were embedded.
pub(super) async fn run(context: &Context, job: &Job, reporter: &Reporter) -> Result<Done, StepError> {
    let Pipeline::Embedding(pipeline) = job.pipeline()? else {
        return Err(StepError::internal("an embedding step of a pipeline that is none"));
    };
    refresh(context, job, reporter, pipeline, Model::of(pipeline)?).await
}

async fn refresh(
    context: &Context,
    job: &Job,
    reporter: &Reporter,
    pipeline: &EmbeddingPipeline,
    model: Model,
) -> Result<Done, StepError> {
    let product = job.product()?;
    let (port, data) = job.output()?;
    let output = product
        .outputs
        .get(&pipeline.output)
        .ok_or_else(|| StepError::internal(format!("{port} is not an output of the deployed product")))?;
    let schema = arrow_schema(&output.contract.columns);
    let layout = Layout::of(&schema, pipeline, Others::Refused)?;
    check_dimensions(output, &layout, &model)?;

    let Inputs { mut tables, versions, facts } = inputs::open(context, job).await?;
    reporter.report(facts).await;
    let source = tables
        .remove(pipeline.port.as_str())
        .ok_or_else(|| StepError::external("HM-X005", format!("{} has not been published", pipeline.port)))?;
    let versions = version_of(job, &pipeline.port, &versions);
    let sources = read_source(context, pipeline, source, reporter).await?;
    let (sizes, cutter, names) = (ChunkSizes::around(pipeline.chunk.target), model.clone(), pipeline.clone());
    let cut = move || pieces(sources, &names, sizes, &cutter);
    let (pieces, set_aside) = tokio::task::spawn_blocking(cut).await.map_err(stopped)?;
    if set_aside.rows > 0 {
        let port = product.port(&pipeline.port);
        let run = job.start.run.clone();
        reporter
            .report(vec![Fact::Quarantined { port, run, rows: set_aside.rows, reasons: set_aside.reasons }])
            .await;
    }

    let table = job.table(context, &port, lake_format(output.format))?;
    ensure(context, job, &table, &TableSpec { schema: Arc::clone(&schema), partition_by: None }).await?;
    let mut before = Before::read(&table, &layout).await?;
    if job.afresh {
        before.rows.clear();
    }
    let mut vectors = before.vectors(&model);
    let known = vectors.len();
    let missing: Vec<&Piece> = {
        let mut seen = BTreeSet::new();
        pieces.iter().filter(|it| !vectors.contains_key(&it.address) && seen.insert(&it.address)).collect()
    };
    let addresses: BTreeSet<&str> = missing.iter().map(|piece| piece.address.as_str()).collect();
    let lent = if job.afresh || missing.is_empty() {
        Lent::default()
    } else {
        let format = lake_format(output.format);
        Lent::of(context, (&port, &data), (&layout, format), &model, &addresses).await
    };
    let missing: Vec<&Piece> =
        missing.into_iter().filter(|piece| !lent.vectors.contains_key(&piece.address)).collect();
    let taken = lent.from.filter(|_| missing.is_empty());
    let known = known + lent.vectors.len();
    vectors.extend(lent.vectors);
    let embedded = missing.len() as u64;
    for request in missing.chunks(REQUEST) {
        let texts: Vec<String> = request.iter().map(|piece| piece.text.clone()).collect();
        let made = embed(&model, texts, reporter).await?;
        vectors.extend(request.iter().map(|piece| piece.address.clone()).zip(made));
    }

    let refresh = Refresh { context, job, reporter, output, port, data, table, schema, layout, versions };
    let unchanged = !job.afresh && embedded == 0 && before.shows(&pieces);
    let (version, key) = match before.version {
        // The index is already what it should be: another commit would tell readers of news that are none.
        Some(version) if unchanged => (refresh.confirm(version).await?, before.key.clone()),
        version => refresh.publish(&model, &pieces, &vectors, version).await?,
    };
    let facts = vec![refresh.published(version, pieces.len() as u64, key, taken)];
    reporter.report(facts).await;
    tracing::info!(
        event = "embedded", port = %refresh.port, version = version.0, model = model.id(), chunks = pieces.len(), embedded,
        reused = pieces.len() as u64 - embedded, known, "index refreshed"
    );
    Ok(Done { facts: Vec::new(), rows: embedded })
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` passes")]
fn stopped(error: tokio::task::JoinError) -> StepError {
    StepError::internal(error.to_string())
}

fn check_dimensions(output: &OutputPort, layout: &Layout, model: &Model) -> Result<(), StepError> {
    let column = output.contract.columns.iter().find(|column| column.name == layout.vector);
    let promised = column.and_then(|column| match column.logical {
        LogicalType::Vector(dimensions) => usize::try_from(dimensions).ok(),
        _ => None,
    });
    match promised {
        Some(promised) if promised != model.dimensions() => Err(StepError::user(
            BAD_COLUMNS,
            format!(
                "column `{}` promises {promised} dimensions, {} has {}",
                layout.vector,
                model.id(),
                model.dimensions()
            ),
        )),
        _ => Ok(()),
    }
}

/// Returns the version of the port behind an input; the index does not rest on the product's other inputs.
fn version_of(job: &Job, input: &PortName, versions: &BTreeMap<PortId, i64>) -> BTreeMap<PortId, i64> {
    let source = job.product().ok().and_then(|product| product.inputs.get(input)).map(|input| &input.source);
    let Some(InputSource::Port { port }) = source else { return BTreeMap::new() };
    versions.get_key_value(port).map(|(port, version)| (port.clone(), *version)).into_iter().collect()
}

async fn cancellable<T>(reporter: &Reporter, work: impl Future<Output = T>) -> Result<T, StepError> {
    tokio::select! {
        biased;
        () = reporter.cancel.cancelled() => Err(StepError::external("HM-X007", "cancelled")),
        done = work => Ok(done),
    }
}

async fn embed(model: &Model, texts: Vec<String>, reporter: &Reporter) -> Result<Vec<Vec<f32>>, StepError> {
    let model = model.clone();
    let work = tokio::task::spawn_blocking(move || {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        model.embed(&texts)
    });
    Ok(cancellable(reporter, work).await?.map_err(stopped)??)
}

/// Returns whether the vector of a row can be one of a model.
fn usable(row: &StoredRow, model: &Model) -> bool {
    row.vector.len() == model.dimensions() && row.vector.iter().all(|value| value.is_finite())
}

/// The index as it was.
struct Before {
    /// `None` when nothing was ever published.
    version: Option<Version>,
    /// Digest of the key that it was published under.
    key: String,
    rows: Vec<StoredRow>,
}

impl Before {
    async fn read(table: &Table, layout: &Layout) -> Result<Self, StepError> {
        let nothing = Self { version: None, key: String::new(), rows: Vec::new() };
        let TableState::Known(known) = table.state().await? else { return Ok(nothing) };
        let Some(commit) = &known.last_commit else { return Ok(nothing) };
        let rows =
            read_rows(table.provider(Some(known.version)).await?, layout).await.map_err(EngineError::from)?;
        Ok(Self { version: Some(known.version), key: commit.key_digest(), rows })
    }

    /// Returns the vectors by address, which only their own model and text ask for.
    fn vectors(&self, model: &Model) -> BTreeMap<String, Vec<f32>> {
        let usable = self.rows.iter().filter(|row| usable(row, model));
        usable.map(|row| (row.content_hash.clone(), row.vector.clone())).collect()
    }

    /// Returns whether it holds these chunks and no others.
    fn shows(&self, pieces: &[Piece]) -> bool {
        let equal = |(row, piece): (&StoredRow, &Piece)| {
            (&row.id, row.chunk, &row.content_hash, &row.text)
                == (&piece.id, piece.chunk, &piece.address, &piece.text)
        };
        self.rows.len() == pieces.len() && self.rows.iter().zip(pieces).all(equal)
    }
}

/// Everything that publishing an index needs.
struct Refresh<'a> {
    context: &'a Context,
    job: &'a Job,
    reporter: &'a Reporter,
    output: &'a OutputPort,
    port: PortId,
    data: String,
    table: Table,
    schema: SchemaRef,
    layout: Layout,
    versions: BTreeMap<PortId, i64>,
}

impl Refresh<'_> {
    /// Audits the published index as it is: its rules may have changed.
    async fn confirm(&self, version: Version) -> Result<Version, StepError> {
        let provider = self.table.provider(Some(version)).await?;
        self.audit(provider).await?;
        Ok(version)
    }

    /// Writes, audits and publishes the index; returns its version, and the digest of the commit's key.
    async fn publish(
        &self,
        model: &Model,
        pieces: &[Piece],
        vectors: &BTreeMap<String, Vec<f32>>,
        before: Option<Version>,
    ) -> Result<(Version, String), StepError> {
        let inputs: Vec<String> =
            self.versions.iter().map(|(port, version)| format!("{port}@{version}")).collect();
        // The version that is replaced makes a return to an earlier definition a commit of its own: without it, the
        // key would be found in the table's past and the index of the later definition would stay.
        let over = before.map_or_else(|| "nothing".to_owned(), |version| version.0.to_string());
        let key = format!("index/{}/{}/{}/over {over}", self.data, inputs.join(","), model.id());
        let meta = self.context.commit(self.job.key(key));
        let batches: Vec<RecordBatch> =
            pieces.chunks(ROWS).map(|pieces| self.batch(pieces, vectors)).collect::<Result<_, _>>()?;
        let batches = futures::stream::iter(batches.into_iter().map(Ok));
        let batches: SendableRecordBatchStream =
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches));
        let staged = self.table.stage(&meta, batches).instrument(info_span!("stage")).await?;
        let provider = self.table.staged_provider(&staged);
        if let Err(error) = self.audit(provider).await {
            self.table.discard(staged).await?;
            return Err(error);
        }
        let published = self
            .table
            .publish(staged, PublishMode::ReplaceAll, &meta)
            .instrument(info_span!("publish"))
            .await?;
        Ok((published.version, meta.key_digest()))
    }

    fn batch(
        &self,
        pieces: &[Piece],
        vectors: &BTreeMap<String, Vec<f32>>,
    ) -> Result<RecordBatch, StepError> {
        let mut embedding = ListBuilder::new(Float32Builder::new());
        for piece in pieces {
            let vector = vectors.get(&piece.address);
            let vector = vector.ok_or_else(|| StepError::internal("a chunk was left without its vector"))?;
            embedding.values().append_slice(vector);
            embedding.append(true);
        }
        let text = |of: fn(&Piece) -> &str| {
            Arc::new(StringArray::from_iter_values(pieces.iter().map(of))) as ArrayRef
        };
        let columns: [(&str, ArrayRef); 5] = [
            (&self.layout.id, text(|piece| &piece.id)),
            (CHUNK, Arc::new(Int64Array::from_iter_values(pieces.iter().map(|piece| piece.chunk)))),
            (&self.layout.text, text(|piece| &piece.text)),
            (CONTENT_HASH, text(|piece| &piece.address)),
            (&self.layout.vector, Arc::new(embedding.finish())),
        ];
        let batch =
            RecordBatch::try_from_iter(columns).and_then(|batch| conform_schema(&batch, &self.schema));
        batch.map_err(|error| StepError::user(BAD_COLUMNS, error.to_string()))
    }

    /// Runs the contract's rules and reports what they measured.
    async fn audit(&self, provider: Arc<dyn TableProvider>) -> Result<(), StepError> {
        let rules = &self.output.contract.quality;
        let (contract, cancel) = (&self.output.contract, &self.reporter.cancel);
        let measured =
            commands::measured(self.context, self.job, contract, (&self.port, None), &provider, cancel)
                .await?;
        let against = Against { partition: None, history: self.job.earlier.clone(), measured };
        let object = self.port.port.as_str();
        let outcomes = self
            .context
            .engine
            .audit(rules, provider, object, &against)
            .instrument(info_span!("audit"))
            .await?;
        let failed: Vec<String> =
            outcomes.iter().filter(|it| it.blocks()).map(QualityOutcome::spoken).collect();
        let fact = |outcome: QualityOutcome| outcome.into_fact(&self.port, None, &self.job.start.run);
        self.reporter.report(outcomes.into_iter().map(fact).collect()).await;
        if failed.is_empty() {
            return Ok(());
        }
        let message = format!("{} was not published: {}", self.port, failed.join("; "));
        Err(StepError::user(AUDIT_FAILED, message))
    }

    fn published(&self, version: Version, rows: u64, key: String, taken: Option<Taken>) -> Fact {
        Fact::Published(Published {
            port: self.port.clone(),
            partition: None,
            version: version.0,
            rows,
            // A whole index shows its texts as they were when it was computed.
            data_time_ms: Some(self.context.clock.now_ms()),
            data: self.data.clone(),
            inputs: self.versions.clone(),
            run: self.job.start.run.clone(),
            key,
            taken,
        })
    }
}
