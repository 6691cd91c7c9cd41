//! Models: whether drift retrains, and whether a challenger becomes the champion.

use serde_json::json;

use super::gate::denial;
use super::{Control, Question};
use crate::ids::ProductId;
use crate::ledger::{Decision, Fact, Trained};
use crate::model::{Pipeline, TrainingPipeline};
use crate::plan::{broken_features, training_allowed_from};

/// What is to become of a challenger.
enum Verdict {
    Promote(String),
    Keep(String),
}

impl Control {
    fn training(&self, product: &ProductId) -> Option<&TrainingPipeline> {
        let pipelines = self.ledger.deployed.get(product)?.product.pipelines.values();
        pipelines.into_iter().find_map(|pipeline| match pipeline {
            Pipeline::Training(training) => Some(training),
            _ => None,
        })
    }

    /// Returns the newest model of a product about which nothing was decided, made by what is deployed.
    fn challenger(&self, product: &ProductId) -> Option<&Trained> {
        let (_, newest) = self.ledger.models.get(product)?.trained.last()?;
        let weighed = self.ledger.weighed.get(product).copied().unwrap_or(0);
        let deployed = self.ledger.deployed.get(product)?;
        let training = self.training(product)?;
        let port = deployed.product.port(&training.output);
        let published = self.ledger.ports.get(&port)?.partitions.get("")?;
        let wanted = deployed.print.ports.get(&training.output)?;
        (newest.version > weighed && published.published.data == wanted.data && !self.trains(product))
            .then_some(newest)
    }

    /// Weighs every new model: promoted when it is not worse than the champion by more than the margin and the gate
    /// allows it.
    pub(super) fn weigh_challengers(&mut self) {
        let mut new = std::mem::take(&mut self.unweighed);
        new.retain(|product| {
            let newest = self.ledger.models.get(product).and_then(|models| models.trained.last());
            let weighed = self.ledger.weighed.get(product).copied().unwrap_or(0);
            newest.is_some_and(|(_, newest)| newest.version > weighed)
        });
        self.unweighed.clone_from(&new);
        for product in new.into_iter().filter(|it| !self.is_asked(it, "promote")).collect::<Vec<_>>() {
            let Some(challenger) = self.challenger(&product).cloned() else { continue };
            match self.verdict(&product, &challenger) {
                None => {}
                Some(Verdict::Keep(reason)) => self.reject(&product, reason),
                Some(Verdict::Promote(reason)) => self.ask_to_promote(&product, &challenger, &reason),
            }
        }
    }

    fn verdict(&self, product: &ProductId, challenger: &Trained) -> Option<Verdict> {
        let margin = self.training(product)?.gate.non_inferiority;
        let (metric, value) = (&challenger.metric, challenger.value);
        Some(match challenger.champion_value {
            // A metric that is not a number proves nothing.
            _ if !value.is_finite() => {
                Verdict::Keep(format!("kept the champion: {metric} of the challenger is not a number"))
            }
            Some(champion) if value < champion - margin => Verdict::Keep(format!(
                "kept the champion: {metric} of the challenger is {value:.4}, of the champion {champion:.4} on the same rows, margin {margin}"
            )),
            Some(champion) => Verdict::Promote(format!(
                "{metric} {value:.4}; the champion has {champion:.4} on the same rows, margin {margin}"
            )),
            // Features and programs that are gone serve nobody either.
            None if self.ledger.models.get(product).is_some_and(|models| models.champion.is_some()) => {
                Verdict::Promote(format!("{metric} {value:.4}; the champion cannot be compared"))
            }
            None => Verdict::Promote(format!("{metric} {value:.4}; the first model")),
        })
    }

    fn ask_to_promote(&mut self, product: &ProductId, challenger: &Trained, reason: &str) {
        let Some(deployed) = self.ledger.deployed.get(product) else { return };
        let fingerprint = deployed.print.all.clone();
        let question = Question {
            product: product.clone(),
            action: "promote".to_owned(),
            commit: deployed.commit.clone(),
            fingerprint: fingerprint.clone(),
            change: json!({
                "product": product,
                "kind": "update",
                "reasons": [reason],
                "fingerprint": fingerprint,
                "partitions": {},
                "version": challenger.version,
            }),
        };
        self.ask("promote", question);
    }

    /// Promotes or rejects the model that a question was about.
    pub(super) fn promotion_decided(&mut self, question: &Question, decision: &Decision) {
        let product = &question.product;
        let version = question.change.get("version").and_then(serde_json::Value::as_u64);
        let current =
            self.ledger.deployed.get(product).is_some_and(|it| it.print.all == question.fingerprint);
        // A newer model, or another definition, is weighed anew.
        let Some(challenger) = self.challenger(product).filter(|it| current && Some(it.version) == version)
        else {
            return;
        };
        let version = challenger.version;
        if decision.allow {
            let reason = question.change.pointer("/reasons/0").and_then(|reason| reason.as_str());
            let reason = reason.unwrap_or_default().to_owned();
            self.record(Fact::Promoted { product: product.clone(), version, reason });
        } else {
            let reason = format!("kept the champion: {}", denial(decision));
            self.reject(&product.clone(), reason);
        }
    }

    fn reject(&mut self, product: &ProductId, reason: String) {
        self.record(Fact::Retrain { product: product.clone(), decision: "rejected".to_owned(), reason });
    }

    /// Decides whether drift that was just measured starts a retraining.
    pub(super) fn weigh_retraining(&mut self, product: &ProductId) {
        let Some(training) = self.training(product) else { return };
        let (Some(rule), Some(history)) = (&training.retrain_on.drift, self.ledger.drift.get(product)) else {
            return;
        };
        let trained: Vec<i64> = self
            .ledger
            .models
            .get(product)
            .map(|models| models.trained.iter().map(|(at, _)| *at).collect())
            .unwrap_or_default();
        let last_ms = trained.last().copied().unwrap_or(i64::MIN);
        // Windows before the last training speak of another snapshot.
        let window: Vec<bool> = history
            .iter()
            .rev()
            .take_while(|(at, ..)| *at > last_ms)
            .take(rule.of as usize)
            .map(|(_, _, drifted)| *drifted)
            .collect();
        let confirmed = window.iter().filter(|drifted| **drifted).count();
        if confirmed < rule.confirm as usize {
            return;
        }
        let drift = format!("drift confirmed in {confirmed} of the last {} comparisons", window.len());
        let (decision, reason) = if self.now_ms < training_allowed_from(training, &trained) {
            let limits = (training.cooldown, training.max_per_month);
            (
                "wait",
                format!(
                    "{drift}; the limits are {} between retrainings and {} in 30 days",
                    limits.0, limits.1
                ),
            )
        } else if let Some(cause) = broken_features(&self.ledger, training) {
            (
                "wait",
                format!(
                    "{drift}; {cause} has an open quality or freshness alert: broken data is not trained on"
                ),
            )
        } else {
            ("start", drift)
        };
        let before = self.ledger.retrain.get(product);
        if before.is_none_or(|(at, was, why)| {
            was != decision || (decision == "wait" && *why != reason) || *at < last_ms
        }) {
            let decision = decision.to_owned();
            self.record(Fact::Retrain { product: product.clone(), decision, reason });
        }
    }
}
