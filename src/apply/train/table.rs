//! The table of models: one row per version, written, audited and published as any other table.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Schema};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{Fact, Published, Trained};
use tracing::{Instrument as _, info_span};

use crate::apply::batch::AUDIT_FAILED;
use crate::apply::{Context, Job, Reporter, StepError, commands, ensure, lake_format};
use crate::engine::{Against, QualityOutcome, arrow_schema, conform_schema};
use crate::lake::{PublishMode, TableSpec};

/// Returns what says that a model is trained of this and of nothing else: of one definition, from these versions.
pub(super) fn key(job: &Job, version: u64, versions: &BTreeMap<PortId, i64>) -> Result<String, StepError> {
    let (_, data) = job.output()?;
    let read: Vec<String> = versions.iter().map(|(port, version)| format!("{port}@{version}")).collect();
    Ok(job.key(format!("model {version}/{data}/{}", read.join(","))))
}

/// Writes, audits and publishes the list of models: one row per version, the new one last.
pub(super) async fn publish(
    context: &Context,
    job: &Job,
    reporter: &Reporter,
    trained: &Trained,
    versions: BTreeMap<PortId, i64>,
    key: String,
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
    let meta = context.commit(key);
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
