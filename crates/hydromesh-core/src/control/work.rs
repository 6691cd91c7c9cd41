//! Steps: which begin, which are stopped, and what follows when they end.

use super::{Control, Effect, Start};
use crate::ids::ProductId;
use crate::ledger::{Fact, LedgerState, RunOutcome};
use crate::model::{Column, Pipeline, Quality, TableFormat};
use crate::plan::{DueStep, StepKey, Work};

/// How long a step rests that ended well and is due again at once: what it did was not what was wanted.
const REST_MS: i64 = 10_000;

/// A step that was stopped and has not ended may not have heard it: it is stopped again.
const STOP_AGAIN_MS: i64 = 60_000;

/// A step in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub run: String,
    pub began_ms: i64,
    generation: u64,
    basis: Basis,
    /// The last change of its table by somebody else, when it began.
    altered: u64,
    /// When to stop it again, once it was stopped.
    stop_again_ms: Option<i64>,
}

impl Flight {
    fn is_stopped(&self) -> bool {
        self.stop_again_ms.is_some()
    }
}

/// What a step works from; another deploy of the same leaves it alone.
#[derive(Debug, Clone, PartialEq)]
struct Basis {
    pipeline: Pipeline,
    output: Option<(TableFormat, Vec<Column>, Vec<Quality>)>,
    data: String,
}

/// Why a step that ended well is not begun again at once: nothing that it could see has changed.
#[derive(Debug)]
pub(super) struct Rest {
    until_ms: i64,
    basis: Option<Basis>,
    altered: u64,
    inputs: i64,
}

fn basis(ledger: &LedgerState, key: &StepKey) -> Option<Basis> {
    let deployed = ledger.deployed.get(&key.pipeline.product)?;
    let pipeline = deployed.product.pipelines.get(&key.pipeline.name)?.clone();
    let output = deployed.product.outputs.get(pipeline.output());
    let output = output.map(|it| (it.format, it.contract.columns.clone(), it.contract.quality.clone()));
    let data = deployed.print.ports.get(pipeline.output()).map(|print| print.data.clone())?;
    Some(Basis { pipeline, output, data })
}

/// Returns the last change by somebody else of the table that a step writes.
fn altered(ledger: &LedgerState, key: &StepKey) -> u64 {
    let deployed = ledger.deployed.get(&key.pipeline.product);
    let pipeline = deployed.and_then(|it| Some((it, it.product.pipelines.get(&key.pipeline.name)?)));
    pipeline.map_or(0, |(deployed, it)| ledger.altered_at(&deployed.product.port(it.output())))
}

impl Control {
    /// Begins what is due within the limits, and stops what works for a definition that is no longer deployed.
    pub(super) fn schedule(&mut self) {
        self.stop_outdated();
        self.due.refresh(&self.ledger, self.now_ms);
        self.resting.retain(|key, rest| {
            rest.until_ms > self.now_ms
                && rest.basis == basis(&self.ledger, key)
                && rest.altered == altered(&self.ledger, key)
                && rest.inputs == self.ledger.input_versions(&key.pipeline.product)
        });
        let mut bounded = self.flights.keys().filter(|key| key.work != Work::Follow).count();
        for step in self.startable() {
            let key = &step.key;
            let follows = key.work == Work::Follow;
            let of_pipeline = self.flights.keys().filter(|other| other.pipeline == key.pipeline).count();
            let pipeline_full = of_pipeline >= usize::try_from(step.concurrency.max(1)).unwrap_or(1);
            if pipeline_full || (!follows && bounded >= self.limits.steps) {
                continue;
            }
            if self.start(step) && !follows {
                bounded += 1;
            }
        }
    }

    /// Returns due steps that nothing in flight collides with; whose pipeline waited longest comes first.
    fn startable(&self) -> Vec<DueStep> {
        let mut steps: Vec<&DueStep> = self
            .due
            .steps()
            .filter(|step| !self.resting.contains_key(&step.key))
            .filter(|step| !self.flights.keys().any(|key| key.overlaps(&step.key)))
            .collect();
        steps.sort_by_key(|step| self.last_begun.get(&step.key.pipeline).copied().unwrap_or(0));
        steps.into_iter().cloned().collect()
    }

    /// Begins a step; returns whether it did.
    fn start(&mut self, step: DueStep) -> bool {
        let DueStep { key, reason, attempt, .. } = step;
        let Some(deployed) = self.ledger.deployed.get(&key.pipeline.product) else { return false };
        let (generation, decision) = (deployed.generation, deployed.decision.clone());
        let Some(basis) = basis(&self.ledger, &key) else { return false };
        let altered = altered(&self.ledger, &key);
        let run = format!("run-{:08}", self.ledger.seq + 1);
        self.record(Fact::RunStarted {
            run: run.clone(),
            step: key.clone(),
            attempt,
            decision: decision.clone(),
        });
        self.last_begun.insert(key.pipeline.clone(), self.ledger.seq);
        self.flights.insert(
            key.clone(),
            Flight {
                run: run.clone(),
                began_ms: self.now_ms,
                generation,
                basis,
                altered,
                stop_again_ms: None,
            },
        );
        self.effect(Effect::Start(Start { run, key, attempt, generation, decision, reason }));
        true
    }

    fn stop_outdated(&mut self) {
        let mut outdated = Vec::new();
        for (key, flight) in &mut self.flights {
            let deployed = self.ledger.deployed.get(&key.pipeline.product);
            let same = (deployed.is_some_and(|it| it.generation == flight.generation)
                || basis(&self.ledger, key).as_ref() == Some(&flight.basis))
                && altered(&self.ledger, key) == flight.altered;
            if flight.stop_again_ms.map_or(!same, |again_ms| again_ms <= self.now_ms) {
                flight.stop_again_ms = Some(self.now_ms + STOP_AGAIN_MS);
                outdated.push(flight.run.clone());
            }
        }
        for run in outdated {
            self.effect(Effect::Cancel { run });
        }
    }

    /// Returns whether a model of a product is being trained.
    pub(super) fn trains(&self, product: &ProductId) -> bool {
        self.flights.keys().any(|key| key.pipeline.product == *product && key.work == Work::Train)
    }

    pub(super) fn progress(&mut self, run: &str, facts: Vec<Fact>) {
        // A run that nobody waits for has been given up; the next attempt finds what it left in the lake.
        if self.flights.values().any(|flight| flight.run == run) {
            for fact in facts {
                self.record(fact);
            }
        }
    }

    pub(super) fn finished(&mut self, run: &str, facts: Vec<Fact>, outcome: RunOutcome, took_ms: i64) {
        let found = self.flights.iter().find(|(_, flight)| flight.run == run);
        let Some(key) = found.map(|(key, _)| key.clone()) else { return };
        let Some(flight) = self.flights.remove(&key) else { return };
        for fact in facts {
            // What an outdated step published is visible all the same; it carries its own data fingerprint, so the
            // deployed definition finds it stale and computes it again.
            self.record(fact);
        }
        let outcome = match outcome {
            // What failed is no longer wanted.
            RunOutcome::Failed { .. } if flight.is_stopped() => RunOutcome::Cancelled,
            other => other,
        };
        let failed = matches!(outcome, RunOutcome::Failed { .. });
        let succeeded = matches!(outcome, RunOutcome::Succeeded { .. });
        self.record(Fact::RunFinished { run: run.to_owned(), step: key.clone(), outcome, took_ms });
        if key.work == Work::Drift && succeeded && !flight.is_stopped() {
            self.weigh_retraining(&key.pipeline.product);
        }
        if !failed && !flight.is_stopped() {
            let inputs = self.ledger.input_versions(&key.pipeline.product);
            let (basis, altered) = (basis(&self.ledger, &key), altered(&self.ledger, &key));
            let rest = Rest { until_ms: self.now_ms + REST_MS, basis, altered, inputs };
            self.resting.insert(key, rest);
        }
    }
}
