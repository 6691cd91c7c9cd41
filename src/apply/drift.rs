//! Drift: the features of today against the population that the champion was made for.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::Fact;

use super::train::{FeatureHistory, champion_path, pipeline};
use super::{Context, Done, Job, StepError};
use crate::train::{drift_level, judge_features, read_model};

/// Compares every feature of the champion. Without a champion there is nothing to compare with, and the fact says so by
/// having no verdict.
///
/// What no feature can show is not drift here: how many entities are active at all is a question of volume.
pub(super) async fn run(
    context: &Context,
    job: &Job,
    features: &dyn FeatureHistory,
) -> Result<Done, StepError> {
    let training = pipeline(job)?;
    let product = job.product()?.id.clone();
    let Some(rule) = &training.retrain_on.drift else {
        return Err(StepError::internal("a drift step of a pipeline that does not ask for one"));
    };
    let Some(path) = champion_path(job)? else {
        return Ok(Done {
            facts: vec![Fact::Drift { product, verdicts: Vec::new(), drifted: false }],
            rows: 0,
        });
    };
    let lake = context.lake.root().to_path_buf();
    let read = tokio::task::spawn_blocking(move || read_model(&lake, &path));
    let champion = read.await.map_err(|error| StepError::internal(error.to_string()))??;
    let ports: BTreeSet<&PortId> = champion.features.iter().map(|feature| &feature.port).collect();
    let mut current = BTreeMap::new();
    let mut entities = 0;
    for port in ports {
        let rows = features.current(context, job, port).await?;
        entities += rows.len() as u64;
        current.insert(port.clone(), rows.into_iter().map(|(_, values)| values).collect());
    }
    let level = drift_level(rule.false_alarms_per_year);
    let judge = move || judge_features(&champion.features, &champion.reference, &current, level);
    let judged =
        tokio::task::spawn_blocking(judge).await.map_err(|error| StepError::internal(error.to_string()))?;
    let (verdicts, drifted) = judged?;
    tracing::debug!(%product, entities, drifted, "compared features with the training population");
    Ok(Done { facts: vec![Fact::Drift { product, verdicts, drifted }], rows: 0 })
}
