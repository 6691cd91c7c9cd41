//! Training: join labels with the features of their time, fit a challenger, measure it beside the champion.
//!
//! What becomes of the challenger is decided afterwards, from the fact that this leaves. So a row of the published table
//! says `is_champion` as it was known at that moment: the newest row is false until the next publication.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt as _;
use hydromesh_core::aggregate::Value;
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::{ErrorKind, Fact, Published, Trained};
use hydromesh_core::model::{Pipeline, Trainer, TrainingPipeline};
use tracing::{Instrument as _, info_span};

use super::batch::AUDIT_FAILED;
use super::follow::feature_history;
use super::inputs::{self, Inputs};
use super::{Context, Done, Job, Reporter, StepError, commands, ensure, lake_format};
use crate::engine::{Against, EngineError, QualityOutcome, arrow_schema, conform_schema};
use crate::lake::{PublishMode, TableSpec};
use crate::online::current_values;
use crate::text::chain;
use crate::train::{
    History, Measures, Model, Reference, Source, SpineColumns, TrainError, TrainingSet, artefact_path,
    fit_logistic_regression, measure, read_model, read_spine, write_model,
};

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
    let Trainer::Builtin(trainer) = &training.train;
    if trainer != "logistic_regression" {
        let message = format!("there is no builtin trainer `{trainer}`: use `logistic_regression`");
        return Err(StepError::user("HM-T010", message));
    }
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
    let product = job.product()?.id.clone();
    let champion = champion_path(job)?;
    let version = job.models.trained.iter().map(|(_, model)| model.version).max().unwrap_or(0) + 1;
    let lake = context.lake.root().to_path_buf();
    let inputs = versions.clone();
    let fit = move || Outcome::fit(&lake, product, version, champion.as_deref(), &spine, &sources, inputs);
    let fitted =
        tokio::task::spawn_blocking(fit).await.map_err(|error| StepError::internal(error.to_string()))??;
    let trained = Trained {
        product: job.product()?.id.clone(),
        version,
        run: job.start.run.clone(),
        metric: METRIC.to_owned(),
        value: fitted.measures.auc,
        champion_value: fitted.champion.as_ref().ok().copied().flatten(),
        metrics: fitted.measures.by_name(),
        rows: fitted.rows,
        inputs: versions.clone(),
        path: artefact_path(&job.product()?.id, version),
        reason: match &fitted.champion {
            Ok(_) => job.start.reason.clone(),
            Err(feature) => {
                let reason = &job.start.reason;
                format!(
                    "{reason}; not compared with the champion, which reads `{feature}`: it is no longer a feature"
                )
            }
        },
    };
    let mut facts = publish(context, job, reporter, &trained, versions).await?;
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

/// A fitted challenger, written and measured.
struct Outcome {
    measures: Measures,
    /// The champion's metric on the same rows, if there is one; or the feature for which it cannot be measured.
    champion: Result<Option<f64>, String>,
    /// Rows fitted and held out.
    rows: (u64, u64),
}

impl Outcome {
    /// Joins, fits and writes a model, and measures what can be read back: it is that which will serve.
    fn fit(
        lake: &std::path::Path,
        product: ProductId,
        version: u64,
        champion: Option<&str>,
        spine: &crate::train::Spine,
        sources: &[Source],
        inputs: BTreeMap<PortId, i64>,
    ) -> Result<Self, TrainError> {
        let champion = champion.map(|path| read_model(lake, path)).transpose()?;
        let mut set = TrainingSet::assemble(spine, sources)?;
        set.manifest.inputs = inputs;
        let (fitted, cut) = fit_logistic_regression(&set)?;
        let (from_ms, to_ms) = (set.manifest.from_ms, set.manifest.to_ms);
        let reference = Reference::population(&set.columns, sources, from_ms, to_ms)?;
        let path = artefact_path(&product, version);
        write_model(lake, &path, &Model::new((product, version), &set, fitted, cut, reference))?;
        let challenger = read_model(lake, &path)?;
        let held_out: Vec<bool> = set.rows[cut..].iter().map(|row| row.positive).collect();
        let scores = challenger.score(&set, cut).map_err(|feature| TrainError::Fit {
            why: format!("the model reads `{feature}`, which its own training set lacks"),
        })?;
        let measures = measure(&scores, &held_out)
            .ok_or_else(|| TrainError::Fit { why: "a class is absent from the rows held out".to_owned() })?;
        let champion = match champion {
            None => Ok(None),
            Some(model) => {
                model.score(&set, cut).map(|scores| measure(&scores, &held_out).map(|measures| measures.auc))
            }
        };
        Ok(Self { measures, champion, rows: (cut as u64, held_out.len() as u64) })
    }
}

/// Writes, audits and publishes the list of models: one row per version, the new one last.
async fn publish(
    context: &Context,
    job: &Job,
    reporter: &Reporter,
    trained: &Trained,
    versions: BTreeMap<PortId, i64>,
) -> Result<Vec<Fact>, StepError> {
    let (port, data) = job.output()?;
    let output = job.product()?.outputs.get(&port.port);
    let output =
        output.ok_or_else(|| StepError::internal(format!("{port} is not an output of its product")))?;
    let schema = arrow_schema(&output.contract.columns);
    let now_ms = context.clock.now_ms();
    let rows = models_table(job, trained, now_ms)?;
    let rows = conform_schema(&rows, &schema).map_err(|error| {
        let known =
            rows.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ");
        StepError::user("HM-T012", format!("{port}: {error}; a table of models has the columns {known}"))
    })?;
    let table = job.table(context, &port, lake_format(output.format))?;
    ensure(context, job, &table, &TableSpec { schema: Arc::clone(&schema), partition_by: None }).await?;
    let read: Vec<String> = versions.iter().map(|(port, version)| format!("{port}@{version}")).collect();
    let key = format!("model {}/{data}/{}", trained.version, read.join(","));
    let meta = context.commit(job.key(key));
    let stream = RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(rows)]));
    let staged = table.stage(&meta, Box::pin(stream)).instrument(info_span!("stage")).await?;
    let count = staged.rows;
    let provider = table.staged_provider(&staged);
    let measured =
        commands::measured(context, job, &output.contract, (&port, None), &provider, &reporter.cancel)
            .await?;
    let against = Against { partition: None, history: job.earlier.clone(), measured };
    let rules = &output.contract.quality;
    let outcomes = context
        .engine
        .audit(rules, provider, port.port.as_str(), &against)
        .instrument(info_span!("audit"))
        .await?;
    let failed: Vec<String> = outcomes.iter().filter(|it| it.blocks()).map(QualityOutcome::spoken).collect();
    let run = job.start.run.clone();
    let mut facts: Vec<Fact> =
        outcomes.into_iter().map(|outcome| outcome.into_fact(&port, None, &run)).collect();
    if !failed.is_empty() {
        table.discard(staged).await?;
        reporter.report(facts).await;
        let message = format!("{port} was not published: {}", failed.join("; "));
        return Err(StepError::user(AUDIT_FAILED, message));
    }
    let published =
        table.publish(staged, PublishMode::ReplaceAll, &meta).instrument(info_span!("publish")).await?;
    facts.push(Fact::Published(Published {
        port,
        partition: None,
        version: published.version.0,
        rows: count,
        data_time_ms: Some(now_ms),
        data,
        inputs: versions,
        run,
        key: meta.key_digest(),
        taken: None,
    }));
    Ok(facts)
}

/// Returns everything that a contract of models may ask for; it takes the columns that it names.
fn models_table(job: &Job, trained: &Trained, now_ms: i64) -> Result<RecordBatch, StepError> {
    let mut models: Vec<(i64, &Trained)> =
        job.models.trained.iter().map(|(at_ms, model)| (*at_ms, model)).collect();
    models.push((now_ms, trained));
    let champion = job.models.champion.map(|(version, _)| version);
    let count = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
    let floats = |name: &str| -> ArrayRef {
        let value = |model: &Trained| model.metrics.get(name).copied();
        Arc::new(models.iter().map(|(_, model)| value(model)).collect::<Float64Array>())
    };
    let integers = |value: fn(&Trained) -> u64| -> ArrayRef {
        Arc::new(models.iter().map(|(_, model)| count(value(model))).collect::<Int64Array>())
    };
    let texts = |value: fn(&Trained) -> String| -> ArrayRef {
        Arc::new(models.iter().map(|(_, model)| Some(value(model))).collect::<StringArray>())
    };
    let at: TimestampMillisecondArray = models.iter().map(|(at_ms, _)| Some(*at_ms)).collect();
    let is_champion: BooleanArray =
        models.iter().map(|(_, model)| Some(Some(model.version) == champion)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("model_version", texts(|model| format!("v{:04}", model.version))),
        ("trained_at", Arc::new(at.with_timezone("UTC"))),
        ("auc", floats("auc")),
        ("log_loss", floats("log_loss")),
        ("brier", floats("brier")),
        ("calibration_error", floats("calibration_error")),
        ("positive_rate", floats("positive_rate")),
        ("training_rows", integers(|model| model.rows.0)),
        ("held_out_rows", integers(|model| model.rows.1)),
        ("is_champion", Arc::new(is_champion)),
        ("reason", texts(|model| model.reason.clone())),
        ("path", texts(|model| model.path.clone())),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|error| StepError::internal(error.to_string()))
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "one training gives one measure, whoever asks")]
mod tests;
