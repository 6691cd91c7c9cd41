//! Performs one attempt of a step; idempotent, and fenced by the writer's epoch.
//!
//! Every kind of work is one function from a [`Job`] to an [`End`]. It may report facts on the way; whatever it has
//! published stays published when it fails, and doing it again changes nothing.

mod batch;
mod commands;
mod cut;
mod drift;
mod embed;
mod follow;
mod inputs;
mod keys;
mod programs;
mod sample;
mod takeover;
mod tend;
#[cfg(test)]
pub(crate) mod testing;
mod train;
mod values;
mod windows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use hydromesh_core::band::History;
use hydromesh_core::control::Start;
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::{Champion, ErrorKind, Fact, RunOutcome};
use hydromesh_core::model::{Environment, Pipeline, Product};
use hydromesh_core::plan::{Print, Work};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::disk::{self, Refusal};
use crate::engine::{Engine, EngineError};
use crate::lake::{CommitMeta, Lake, LakeError, Table, TableFormat, TableSpec, Version, Writer};
use crate::online::Online;
use crate::preview::Offers;
use crate::text::chain;

pub use follow::{feature_history, history_rows, keep_online};
pub use inputs::table_format;
pub use sample::{FailingRows, Sample, samples};
pub use train::FeatureHistory;

/// Reads the contents of a blob of the repository by its id.
pub trait Blobs: Send + Sync {
    /// Returns the blob's bytes.
    ///
    /// # Errors
    /// When it is not there (`NotFound`, and only if that is known) or cannot be read.
    fn read(&self, oid: &str) -> std::io::Result<Vec<u8>>;
}

/// What every step may use.
#[derive(Clone)]
pub struct Context {
    /// The environment's name.
    pub environment: String,
    /// The environment's settings.
    pub settings: Environment,
    /// The state folder.
    pub state: PathBuf,
    /// The lake.
    pub lake: Arc<Lake>,
    /// The query engine.
    pub engine: Engine,
    /// What previews of the environment have made already.
    pub previews: Arc<Offers>,
    /// The current feature values, which followers fill and lookups read.
    pub online: Arc<Online>,
    /// The repository's blobs.
    pub blobs: Arc<dyn Blobs>,
    /// The clock.
    pub clock: Clock,
    /// The writer's epoch: every table commit carries it.
    pub epoch: u64,
}

impl Context {
    /// Returns the writer of a table commit, now.
    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer { epoch: self.epoch, at_ms: self.clock.now_ms() }
    }

    /// Returns what a commit carries under a key, now.
    #[must_use]
    pub fn commit(&self, key: impl Into<String>) -> CommitMeta {
        CommitMeta::new(key, self.epoch, self.clock.now_ms())
    }
}

/// One attempt of one step, with everything that it needs to know about the mesh. It can be written down, for a step
/// that another process performs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// What to do.
    pub start: Start,
    /// Definitions of the product and of everything upstream of it, as deployed.
    pub products: BTreeMap<ProductId, Product>,
    /// The product's fingerprints.
    pub print: Print,
    /// Versions of the ports upstream (and of the product's own), as published when the step began.
    pub versions: BTreeMap<PortId, i64>,
    /// The product's models so far.
    pub models: Champion,
    /// Where in the ledger somebody else's last change of the table to write is told; 0 without one. Keys of commits
    /// carry it: what was committed under a key before may not be what the table shows.
    #[serde(default)]
    pub altered: u64,
    /// The table still shows that change: nothing that it holds is to be trusted.
    #[serde(default)]
    pub afresh: bool,
    /// What was published before of the port that the step fills, by the same definition; empty when no rule of its
    /// contract asks what is usual.
    #[serde(default)]
    pub earlier: History,
    /// The first partition that the contract of the port still keeps, if it gave some up.
    #[serde(default)]
    pub kept_from: Option<String>,
    /// Since when steps under way were reading when this one began, milliseconds since the epoch.
    #[serde(default)]
    pub read_since_ms: Option<i64>,
    /// Data fingerprints of the ports that the product reads, as they are deployed.
    #[serde(default)]
    pub definitions: BTreeMap<PortId, String>,
}

impl Job {
    /// Returns the product.
    ///
    /// # Errors
    /// When the job lacks it, which is a bug of whoever made the job.
    pub fn product(&self) -> Result<&Product, StepError> {
        let id = &self.start.key.pipeline.product;
        self.products
            .get(id)
            .ok_or_else(|| StepError::internal(format!("the step's product {id} is not in its job")))
    }

    /// Returns the pipeline.
    ///
    /// # Errors
    /// When the deployed product has none of that name.
    pub fn pipeline(&self) -> Result<&Pipeline, StepError> {
        let name = &self.start.key.pipeline.name;
        let pipeline = self.product()?.pipelines.get(name);
        pipeline.ok_or_else(|| StepError::internal(format!("the deployed product has no pipeline {name}")))
    }

    /// Returns the port that the pipeline fills, and its data fingerprint.
    ///
    /// # Errors
    /// See [`Job::pipeline`].
    pub fn output(&self) -> Result<(PortId, String), StepError> {
        let output = self.pipeline()?.output();
        let data = self.print.ports.get(output).map(|print| print.data.clone()).unwrap_or_default();
        Ok((self.product()?.port(output), data))
    }

    /// Returns the table of the port that the pipeline fills.
    fn table(&self, context: &Context, port: &PortId, format: TableFormat) -> Result<Table, StepError> {
        let known = self.versions.get(port).map(|version| Version(*version));
        Ok(context.lake.table(&port.to_string(), format)?.above(known))
    }

    /// Returns a commit's idempotency key: what it makes, of which data, from what.
    fn key(&self, key: String) -> String {
        if self.altered == 0 { key } else { format!("{key}/after {}", self.altered) }
    }
}

/// Moves a table aside whose log is damaged, once that was told of and if its pipeline mends by itself: nothing can be read
/// of it, and nothing added to it.
async fn make_way(job: &Job, table: &Table) -> Result<(), StepError> {
    if !job.afresh || !job.pipeline()?.self_heals() {
        return Ok(());
    }
    if let Err(LakeError::Damaged { why, .. }) = table.state().await {
        let aside = table.set_aside().await?;
        let table = table.address();
        tracing::warn!(table, why, "its log is damaged; moved to {}", aside.display());
    }
    Ok(())
}

/// Makes a table that can be computed anew ready to be written; what somebody else put in its place is moved aside.
async fn ensure(context: &Context, job: &Job, table: &Table, spec: &TableSpec) -> Result<(), StepError> {
    make_way(job, table).await?;
    match table.ensure(spec, context.writer()).await {
        Err(LakeError::Replaced { newest, above, .. }) => {
            let aside = table.set_aside().await?;
            tracing::warn!(
                table = table.address(),
                newest = newest.0,
                known = above.0,
                "another table lies in its place; moved to {}",
                aside.display()
            );
            table.ensure(spec, context.writer()).await?;
        }
        ensured => _ = ensured?,
    }
    Ok(())
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct StepError {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// Stable code.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl StepError {
    /// Returns an error in the definition or the data.
    #[must_use]
    pub fn user(code: &'static str, message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::User, code, message: message.into() }
    }

    /// Returns an error of another system.
    #[must_use]
    pub fn external(code: &'static str, message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::External, code, message: message.into() }
    }

    /// Returns the error under the code of a disk that takes nothing, if that is what it comes from. Whatever was tried, tables,
    /// spilled rows, topics and models alike, nobody's query is at fault, and the step is tried until it works.
    #[must_use]
    fn refused(self) -> Self {
        match Refusal::in_text(&self.message) {
            Some(refusal) => Self::external(disk::CODE, format!("{}; {}", self.message, refusal.help())),
            None => self,
        }
    }

    /// Returns a bug of ours.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Internal, code: "HM-X004", message: message.into() }
    }
}

impl From<EngineError> for StepError {
    fn from(error: EngineError) -> Self {
        Self { kind: error.kind, code: error.code, message: error.message }
    }
}

impl From<LakeError> for StepError {
    fn from(error: LakeError) -> Self {
        let (kind, code) = match &error {
            LakeError::Query(source) => {
                let message = source.strip_backtrace();
                return EngineError::from(datafusion::error::DataFusionError::Execution(message)).into();
            }
            LakeError::Fenced { .. } => (ErrorKind::External, "HM-L002"),
            LakeError::Unpinned { .. } => (ErrorKind::User, "HM-L006"),
            LakeError::ChainBroken { .. } => (ErrorKind::External, "HM-L003"),
            LakeError::Io { .. }
            | LakeError::Contended { .. }
            | LakeError::Delta(_)
            | LakeError::Iceberg(_)
            | LakeError::IcebergSpec(_)
            | LakeError::Parquet(_) => (ErrorKind::External, "HM-L001"),
            LakeError::Damaged { .. } | LakeError::Json(_) => (ErrorKind::External, "HM-L005"),
            LakeError::Conflict => (ErrorKind::Internal, "HM-X004"),
            _ => (ErrorKind::User, "HM-L004"),
        };
        Self { kind, code, message: chain(&error) }
    }
}

/// How an attempt ended: facts that it leaves in any case, and whether it did all it should.
#[derive(Debug)]
pub struct End {
    /// Facts that were not reported on the way.
    pub facts: Vec<Fact>,
    /// How it ended.
    pub outcome: RunOutcome,
}

/// What a kind of work returns: rows written, with the facts that it leaves.
#[derive(Debug, Default)]
pub struct Done {
    /// Facts that were not reported on the way.
    pub facts: Vec<Fact>,
    /// Rows written.
    pub rows: u64,
}

/// Where a step reports facts while it runs.
#[derive(Debug, Clone)]
pub struct Reporter {
    to: mpsc::Sender<Vec<Fact>>,
    /// Ends the step early; it stops between two commits.
    pub cancel: CancellationToken,
}

impl Reporter {
    /// Returns a reporter; the channel is bounded, so that a step cannot run ahead of its ledger.
    #[must_use]
    pub fn new(to: mpsc::Sender<Vec<Fact>>, cancel: CancellationToken) -> Self {
        Self { to, cancel }
    }

    /// Reports facts. They are lost only when the controller is gone, and then the next one finds them in the lake.
    pub async fn report(&self, facts: Vec<Fact>) {
        crate::fault::point("apply.before-report");
        if self.to.send(facts).await.is_err() {
            self.cancel.cancel();
        }
    }
}

/// Performs one attempt.
pub async fn perform(context: &Context, job: &Job, reporter: &Reporter) -> End {
    let result = match &job.start.key.work {
        Work::Partitions { .. } | Work::Whole => batch::run(context, job, reporter).await,
        Work::Follow => follow::run(context, job, reporter).await,
        Work::Train => train::run(context, job, reporter, &train::Followed).await,
        Work::Drift => drift::run(context, job, &train::Followed).await,
        Work::Embed => embed::run(context, job, reporter).await,
        Work::Tend => tend::run(context, job).await,
        Work::Keys => keys::run(context, job, reporter).await,
    };
    match result {
        Ok(done) => End { facts: done.facts, outcome: RunOutcome::Succeeded { rows: done.rows } },
        Err(_) if reporter.cancel.is_cancelled() => End { facts: Vec::new(), outcome: RunOutcome::Cancelled },
        Err(error) => {
            let StepError { kind, code, message } = error.refused();
            let outcome = RunOutcome::Failed { kind, code: code.to_owned(), message };
            End { facts: Vec::new(), outcome }
        }
    }
}

/// Returns how an attempt ended that panicked.
#[must_use]
pub fn panicked(panic: &(dyn std::any::Any + Send)) -> RunOutcome {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let message = format!("a bug of ours: {}", text.unwrap_or("a step panicked"));
    RunOutcome::Failed { kind: ErrorKind::Internal, code: "HM-X004".to_owned(), message }
}

/// Returns the lake's name for a model's table format.
pub fn lake_format(format: hydromesh_core::model::TableFormat) -> TableFormat {
    match format {
        hydromesh_core::model::TableFormat::Delta => TableFormat::Delta,
        hydromesh_core::model::TableFormat::Iceberg => TableFormat::Iceberg,
    }
}
