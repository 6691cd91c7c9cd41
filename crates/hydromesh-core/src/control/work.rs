//! Steps: which begin, which are stopped, and what follows when they end.

use super::{Control, Effect, Flight, Start};
use crate::ids::ProductId;
use crate::ledger::{Command, ErrorKind, Fact, RunOutcome, Verb};
use crate::model::Pipeline;
use crate::plan::{Work, due_steps};

impl Control {
    /// Begins what is due within the limits, and stops what works for a definition that is no longer deployed.
    pub(super) fn schedule(&mut self) {
        let outdated: Vec<String> = self
            .flights
            .iter_mut()
            .filter(|(key, flight)| {
                let deployed = self.ledger.deployed.get(&key.pipeline.product);
                !flight.cancelled && deployed.is_none_or(|deployed| deployed.generation != flight.generation)
            })
            .map(|(_, flight)| {
                flight.cancelled = true;
                flight.run.clone()
            })
            .collect();
        for run in outdated {
            self.effect(Effect::Cancel { run });
        }
        let (due, _) = due_steps(&self.ledger, self.now_ms);
        for step in due {
            let key = step.key;
            let follows = key.work == Work::Follow;
            let bounded = self.flights.keys().filter(|key| key.work != Work::Follow).count();
            let of_pipeline = self.flights.keys().filter(|other| other.pipeline == key.pipeline).count();
            let pipeline_full = of_pipeline >= usize::try_from(step.concurrency.max(1)).unwrap_or(1);
            if pipeline_full || (!follows && bounded >= self.limits.steps) || self.flights.contains_key(&key)
            {
                continue;
            }
            let Some(deployed) = self.ledger.deployed.get(&key.pipeline.product) else { continue };
            let (generation, decision) = (deployed.generation, deployed.decision.clone());
            let run = format!("run-{:08}", self.ledger.seq + 1);
            self.record(Fact::RunStarted {
                run: run.clone(),
                step: key.clone(),
                attempt: step.attempt,
                decision: decision.clone(),
            });
            self.flights.insert(key.clone(), Flight { run: run.clone(), generation, cancelled: false });
            let reason = step.reason;
            self.effect(Effect::Start(Start {
                run,
                key,
                attempt: step.attempt,
                generation,
                decision,
                reason,
            }));
        }
    }

    fn working_for(&self, run: &str) -> bool {
        self.flights.values().any(|flight| flight.run == run)
    }

    pub(super) fn progress(&mut self, run: &str, facts: Vec<Fact>) {
        // A run that was given up may still report: its table commits are real, its definition is not.
        if self.working_for(run) {
            for fact in facts {
                self.record(fact);
            }
        }
    }

    pub(super) fn finished(&mut self, run: &str, facts: Vec<Fact>, outcome: RunOutcome, took_ms: i64) {
        let Some(key) = self.flights.iter().find(|(_, flight)| flight.run == run).map(|(key, _)| key.clone())
        else {
            return;
        };
        let flight = self.flights.remove(&key);
        let product = key.pipeline.product.clone();
        let current = self.ledger.deployed.get(&product).map(|deployed| deployed.generation);
        let outdated = flight.is_none_or(|flight| Some(flight.generation) != current);
        for fact in facts {
            // What an outdated step published is visible all the same; it carries its own data fingerprint, so the
            // deployed definition finds it stale and computes it again.
            self.record(fact);
        }
        let outcome = match outcome {
            RunOutcome::Failed { .. } if outdated => RunOutcome::Cancelled,
            other => other,
        };
        let succeeded = matches!(outcome, RunOutcome::Succeeded { .. });
        self.record(Fact::RunFinished { run: run.to_owned(), step: key.clone(), outcome, took_ms });
        match key.work {
            Work::Train if succeeded => self.promote(&product),
            Work::Drift if succeeded => self.weigh_retraining(&product),
            _ => {}
        }
    }

    /// Promotes the newest model if it is not worse than the champion by more than the gate's margin.
    fn promote(&mut self, product: &ProductId) {
        let margin = self.ledger.deployed.get(product).and_then(|deployed| {
            deployed.product.pipelines.values().find_map(|pipeline| match pipeline {
                Pipeline::Training(training) => Some(training.gate.non_inferiority),
                _ => None,
            })
        });
        let (Some(margin), Some(models)) = (margin, self.ledger.models.get(product)) else { return };
        let Some((_, challenger)) = models.trained.last() else { return };
        if models.champion.is_some_and(|(version, _)| version >= challenger.version) {
            return;
        }
        let (metric, value, version) = (challenger.metric.clone(), challenger.value, challenger.version);
        match challenger.champion_value {
            Some(champion) if value < champion - margin => {
                let reason = format!(
                    "kept the champion: {metric} of the challenger is {value:.4}, of the champion {champion:.4} on the same rows, margin {margin}"
                );
                self.record(Fact::Retrain {
                    product: product.clone(),
                    decision: "rejected".to_owned(),
                    reason,
                });
            }
            champion => {
                let against = champion.map_or_else(
                    || "the first model".to_owned(),
                    |champion| format!("the champion has {champion:.4} on the same rows, margin {margin}"),
                );
                let reason = format!("{metric} {value:.4}; {against}");
                self.record(Fact::Promoted { product: product.clone(), version, reason });
            }
        }
    }

    /// Decides whether drift that was just measured starts a retraining.
    fn weigh_retraining(&mut self, product: &ProductId) {
        let Some(training) = self.ledger.deployed.get(product).and_then(|deployed| {
            deployed.product.pipelines.values().find_map(|pipeline| match pipeline {
                Pipeline::Training(training) => Some(training.clone()),
                _ => None,
            })
        }) else {
            return;
        };
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
        // A month of the budget is 30 days.
        let month = trained.iter().filter(|at| **at > self.now_ms - 30 * 86_400_000).count();
        let cooled_ms = last_ms.saturating_add(training.cooldown.millis());
        let drift = format!("drift confirmed in {confirmed} of the last {} comparisons", window.len());
        let (decision, reason) = if self.now_ms < cooled_ms {
            ("wait", format!("{drift}; within the cooldown of {} after the last training", training.cooldown))
        } else if month >= training.max_per_month as usize {
            ("wait", format!("{drift}; {month} trainings in 30 days, at most {}", training.max_per_month))
        } else if self
            .ledger
            .episodes
            .values()
            .any(|episode| episode.is_open() && super::alerts::explains_drift(episode.last(), &training))
        {
            (
                "wait",
                format!(
                    "{drift}; a feature source has an open quality or freshness alert: broken data is not trained on"
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

    pub(super) fn asked(&mut self, command: Command) {
        let id = command.id.clone();
        if self.ledger.pending.contains_key(&id) {
            return;
        }
        let product = match &command.verb {
            Verb::Backfill { product, .. }
            | Verb::Run { product }
            | Verb::Retry { product }
            | Verb::Silence { product, .. } => product.clone(),
        };
        let answer = match &command.verb {
            _ if !self.ledger.deployed.contains_key(&product) => Err(format!("{product} is not deployed")),
            Verb::Backfill { from, to, .. } if from > to => Err(format!("{from} comes after {to}")),
            Verb::Backfill { from, to, .. } => Ok(format!("{product} is computed again from {from} to {to}")),
            Verb::Run { .. } => Ok(format!("{product} is computed again")),
            Verb::Retry { .. } => Ok(format!("failed steps of {product} are tried again")),
            Verb::Silence { .. } => {
                Ok(format!("nothing new is sent about {product}; what fired still resolves"))
            }
        };
        self.record(Fact::Command(command));
        let (accepted, answer) = match answer {
            Ok(answer) => (true, answer),
            Err(answer) => (false, answer),
        };
        self.record(Fact::CommandAnswered { id, accepted, answer });
    }

    /// Returns whether a failed step is given up: no attempt will follow by itself.
    pub(super) fn given_up(kind: ErrorKind, count: u32, attempts: u32) -> bool {
        kind == ErrorKind::User || count >= attempts
    }
}
