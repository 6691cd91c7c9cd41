//! Training: join labels with the features of their time, fit a challenger, measure it beside the champion.
//!
//! What becomes of the challenger is decided afterwards, from the fact that this leaves. So a row of the published table
//! says `is_champion` as it was known at that moment: the newest row is false until the next publication.

mod fitting;
mod program;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::TryStreamExt as _;
use hydromesh_core::aggregate::Value;
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{ErrorKind, Fact, Trained};
use hydromesh_core::model::{Pipeline, Trainer, TrainingPipeline};

use self::fitting::Fitting;
use super::follow::feature_history;
use super::inputs::{self, Inputs};
use super::{Context, Done, Job, Reporter, StepError};
use crate::engine::EngineError;
use crate::online::current_values;
use crate::text::chain;
use crate::train::{History, Source, SpineColumns, TrainError, artefact_path, read_spine};

/// The metric that the gate compares: larger is better.
const METRIC: &str = "auc";

/// The current values of the entities of a port, columns by name.
pub type Current = Vec<(String, Vec<(String, Value)>)>;

/// Where the past and the present of feature ports come from.
#[async_trait]
pub trait FeatureHistory: Send + Sync {
    /// Returns everything that is known of a port's past, at the versions that the job pins.
    ///
    /// # Errors
    /// When it is not a feature port, or its source cannot be read.
    async fn rows(&self, context: &Context, job: &Job, port: &PortId) -> Result<History, StepError>;

    /// Returns the current values of every entity of a port, columns by name.
    ///
    /// # Errors
    /// When the port's current values are not at hand.
    async fn current(&self, context: &Context, job: &Job, port: &PortId) -> Result<Current, StepError>;
}

impl From<TrainError> for StepError {
    fn from(error: TrainError) -> Self {
        // A model that cannot be read may be there again after a restart of the disk; the rest stays as it is.
        let kind = match error {
            TrainError::Artefact { .. } => ErrorKind::External,
            _ => ErrorKind::User,
        };
        Self { kind, code: error.code(), message: chain(&error) }
    }
}

/// Returns the job's training pipeline.
pub(super) fn pipeline(job: &Job) -> Result<&TrainingPipeline, StepError> {
    match job.pipeline()? {
        Pipeline::Training(training) => Ok(training),
        _ => Err(StepError::internal("a training step of a pipeline that is none")),
    }
}

/// Trains one challenger, measures it and publishes the list of models.
pub(super) async fn run(
    context: &Context,
    job: &Job,
    reporter: &Reporter,
    features: &dyn FeatureHistory,
) -> Result<Done, StepError> {
    let training = pipeline(job)?;
    let id = job.product()?.id.clone();
    let algorithm = match &training.train {
        Trainer::Builtin(trainer) if trainer == "logistic_regression" => None,
        Trainer::Builtin(trainer) => {
            let message = format!("there is no builtin trainer `{trainer}`: use `logistic_regression`");
            return Err(StepError::user("HM-T010", message));
        }
        Trainer::Command(command) => {
            if let Some(why) = program::denied(context, &id.domain, command) {
                return Err(StepError::user("HM-T013", why));
            }
            Some(command.to_string())
        }
    };
    if training.gate.metric != METRIC {
        let message =
            format!("models cannot be compared by `{}`: use `metric: {METRIC}`", training.gate.metric);
        return Err(StepError::user("HM-T011", message));
    }
    let Inputs { tables, mut versions, facts } = inputs::open(context, job).await?;
    if !facts.is_empty() {
        reporter.report(facts).await;
    }
    let mut sources = Vec::new();
    for port in &training.features {
        let history = features.rows(context, job, port).await?;
        versions.extend(history.versions.clone());
        sources.push(Source { port: port.clone(), history });
    }
    let entities: BTreeSet<String> = sources.iter().map(|source| source.history.entity.clone()).collect();
    let columns = SpineColumns {
        entities: entities.into_iter().collect(),
        event: training.as_of_event.clone(),
        knowledge: training.as_of_knowledge.clone(),
    };
    let rows = context.engine.select(&training.spine.text, tables).await?;
    let schema = rows.schema();
    let batches: Vec<RecordBatch> = rows.try_collect().await.map_err(EngineError::from)?;
    let spine = read_spine(&schema, &batches, &columns, context.clock.now_ms())?;
    if reporter.cancel.is_cancelled() {
        return Err(StepError::external("HM-X007", "cancelled"));
    }
    let version = job.models.trained.iter().map(|(_, model)| model.version).max().unwrap_or(0) + 1;
    let key = table::key(job, version, &versions)?;
    let fitting = Fitting {
        context: context.clone(),
        product: job.product()?.clone(),
        pipeline: job.start.key.pipeline.clone(),
        trainer: training.train.clone(),
        attempt: job.start.attempt,
        version,
        key: key.clone(),
        champion: champion_path(job)?,
        spine,
        sources,
        inputs: versions.clone(),
        cancel: reporter.cancel.clone(),
    };
    let fitted = tokio::task::spawn_blocking(move || fitting.run());
    let fitted = fitted.await.map_err(|error| StepError::internal(error.to_string()))??;
    let trained = Trained {
        product: id.clone(),
        version,
        run: job.start.run.clone(),
        metric: METRIC.to_owned(),
        value: fitted.measures.auc,
        champion_value: fitted.champion.as_ref().ok().copied().flatten(),
        metrics: fitted.measures.by_name(),
        rows: fitted.rows,
        inputs: versions.clone(),
        path: artefact_path(&id, version),
        reason: match &fitted.champion {
            Ok(_) => job.start.reason.clone(),
            Err(why) => format!("{}; not compared with the champion, {why}", job.start.reason),
        },
        algorithm,
    };
    let mut facts = table::publish(context, job, reporter, &trained, versions, key).await?;
    let rows = job.models.trained.len() as u64 + 1;
    // Model and table become facts together with the end of the step, so that no promotion can come between.
    facts.push(Fact::Trained(trained));
    Ok(Done { facts, rows })
}

/// Returns where the champion lies, if there is one.
pub(super) fn champion_path(job: &Job) -> Result<Option<String>, StepError> {
    let Some((champion, _)) = job.models.champion else { return Ok(None) };
    let model = job.models.trained.iter().find(|(_, model)| model.version == champion);
    let (_, model) =
        model.ok_or_else(|| StepError::internal(format!("champion {champion} was never trained")))?;
    Ok(Some(model.path.clone()))
}

/// Feature ports as this process follows them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Followed;

#[async_trait]
impl FeatureHistory for Followed {
    async fn rows(&self, context: &Context, job: &Job, port: &PortId) -> Result<History, StepError> {
        feature_history(context, job, port).await
    }

    async fn current(&self, context: &Context, _job: &Job, port: &PortId) -> Result<Current, StepError> {
        let (online, port, now_ms) = (Arc::clone(&context.online), port.clone(), context.clock.now_ms());
        if online.port(&port).is_none() {
            // After a start the followers first read their tile logs. Nobody there yet must not look like everybody gone.
            return Err(StepError::external("HM-X005", format!("{port}: its history is still being read")));
        }
        let values = tokio::task::spawn_blocking(move || current_values(&online, &port, now_ms));
        values.await.map_err(|error| StepError::internal(error.to_string()))
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "one training gives one measure, whoever asks")]
mod tests;
