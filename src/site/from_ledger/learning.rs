//! Drift and models of a product.

use std::collections::BTreeMap;

use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::Trained;
use hydromesh_core::model::{Product, TrainingPipeline};

use super::{Facts, instant};
use crate::site::model::{self as site, ModelOutcome};
use crate::site::words;

/// Comparisons of a feature that are kept; more would be less than a pixel pair each.
const HISTORY: usize = 60;
/// Challengers that are kept.
const CHALLENGERS: usize = 20;

impl Facts<'_> {
    /// Returns the last comparison of every feature with what went before.
    pub(super) fn drift_of(&self, id: &ProductId) -> Vec<site::FeatureDrift> {
        let Some(history) = self.ledger.drift.get(id) else { return Vec::new() };
        let Some((tested_ms, newest, _)) = history.back() else { return Vec::new() };
        let mut points: BTreeMap<(&str, &str), Vec<site::DriftPoint>> = BTreeMap::new();
        for (at, verdicts, _) in history {
            for it in verdicts {
                let point = site::DriftPoint { at: instant(*at), statistic: it.statistic };
                points.entry((&it.feature, &it.test)).or_default().push(point);
            }
        }
        newest
            .iter()
            .map(|it| {
                let mut history = points.remove(&(it.feature.as_str(), it.test.as_str())).unwrap_or_default();
                history.drain(..history.len().saturating_sub(HISTORY));
                #[expect(clippy::float_cmp, reason = "a test gives both fields one number, or two")]
                let effect = (it.effect != it.statistic).then_some(it.effect);
                site::FeatureDrift {
                    feature: it.feature.clone(),
                    statistic_name: it.test.clone(),
                    statistic: it.statistic,
                    p_value: Some(it.p_value),
                    // Of some tests the statistic is its own effect; said once is enough.
                    effect,
                    effect_unit: String::new(),
                    verdict: match it.verdict.as_str() {
                        "drifted" => site::DriftVerdict::Drifted,
                        "stable" => site::DriftVerdict::Stable,
                        "insufficient_data" => site::DriftVerdict::Insufficient,
                        _ => site::DriftVerdict::Watch,
                    },
                    // The level follows from the number of features and is not a fact of its own.
                    threshold: None,
                    sample_size: Some(it.samples.1),
                    tested_at: Some(instant(*tested_ms)),
                    history,
                    // Facts hold verdicts and no distributions.
                    histogram: Vec::new(),
                }
            })
            .collect()
    }

    /// Returns the models of a product that trains, if any.
    pub(super) fn model_of(&self, product: &Product) -> Option<site::ModelCard> {
        let training = product.training()?;
        let gate = &training.gate;
        let known = self.ledger.models.get(&product.id);
        let champion = known.and_then(|models| models.champion);
        let trained = known.map(|models| models.trained.as_slice()).unwrap_or_default();
        let history = trained
            .iter()
            .rev()
            .filter_map(|(at, model)| event(*at, model, champion.map(|(version, _)| version), training))
            .take(CHALLENGERS)
            .collect();
        let champion = champion.and_then(|(version, _)| trained.iter().find(|(_, it)| it.version == version));
        Some(site::ModelCard {
            name: product.port(&training.output).to_string(),
            champion: champion.map(|(at, model)| version(*at, model)),
            gate: format!(
                "{} at most {} below the champion's on the same held-out rows",
                gate.metric,
                words::measure(gate.non_inferiority)
            ),
            history,
        })
    }
}

fn version(at_ms: i64, model: &Trained) -> site::ModelVersion {
    let mut metrics = model.metrics.clone();
    metrics.insert(model.metric.clone(), model.value);
    site::ModelVersion {
        version: model.version.to_string(),
        trained_at: instant(at_ms),
        algorithm: model.algorithm.clone().unwrap_or_else(|| "logistic regression".to_owned()),
        training_rows: Some(model.rows.0),
        metrics,
        inputs: model.inputs.iter().map(|(port, version)| (port.to_string(), version.to_string())).collect(),
    }
}

/// Returns what became of a model.
///
/// The gate is a rule over facts, so that its answer of then is computed again: who was let in and is no longer the
/// champion has been replaced. A model that nobody decided about yet has no fate.
fn event(
    at_ms: i64,
    model: &Trained,
    champion: Option<u64>,
    training: &TrainingPipeline,
) -> Option<site::ModelEvent> {
    let margin = training.gate.non_inferiority;
    let let_in = model.champion_value.is_none_or(|of_champion| model.value >= of_champion - margin);
    let outcome = match champion {
        _ if !let_in => ModelOutcome::Rejected,
        Some(champion) if champion == model.version => ModelOutcome::Promoted,
        Some(champion) if champion > model.version => ModelOutcome::Retired,
        _ => return None,
    };
    let mut reason = model.reason.clone();
    if outcome == ModelOutcome::Rejected {
        reason = format!("{reason}; more than {} below the champion", words::measure(margin));
    }
    Some(site::ModelEvent {
        at: instant(at_ms),
        version: model.version.to_string(),
        outcome,
        metric: model.metric.clone(),
        challenger: Some(model.value),
        champion: model.champion_value,
        reason,
    })
}
