//! Steps: which begin, which are stopped, and what follows when they end.

use std::sync::Arc;

use super::line::{Lane, Waiting};
use super::{Control, Effect, Start};
use crate::diag::codes;
use crate::ids::{PipelineId, ProductId};
use crate::ledger::{Deployed, ErrorKind, Fact, LedgerState, RunOutcome};
use crate::model::{Bounds, Pipeline};
use crate::plan::{DueStep, StepKey, Work};
use crate::planted::{self, Bug};

/// How long a step rests that ended well and is due again at once: what it did was not what was wanted.
const REST_MS: i64 = 10_000;

/// A step that was stopped and has not ended may not have heard it: it is stopped again.
const STOP_AGAIN_MS: i64 = 60_000;

/// What is promised to nobody waits for so long, while there is something that is.
const UNPROMISED_MS: i64 = 24 * 3_600_000;

/// A step in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub run: String,
    pub began_ms: i64,
    basis: Basis,
    /// The longest that it may take, and the pool in which it has a place.
    pub bounds: Bounds,
    /// It is stopped for its timeout alone.
    is_late: bool,
    /// When to stop it again, once it was stopped.
    stop_again_ms: Option<i64>,
}

impl Flight {
    pub(super) fn is_stopped(&self) -> bool {
        self.stop_again_ms.is_some()
    }

    /// Returns when its time is over.
    fn end_ms(&self) -> i64 {
        self.bounds.timeout.map_or(i64::MAX, |timeout| self.began_ms.saturating_add(timeout.millis()))
    }

    /// Returns whether its time is over and nobody has stopped it.
    #[cfg(test)]
    pub(super) fn is_over_its_time(&self, now_ms: i64) -> bool {
        self.end_ms() <= now_ms && !self.is_stopped()
    }
}

/// What a step works from; another deploy of the same leaves it alone.
#[derive(Debug, Clone)]
struct Basis {
    deployed: Arc<Deployed>,
    /// The last change of its table by somebody else.
    altered: u64,
}

/// A pipeline that is the same as another one with other bounds.
struct Alike<'a>(&'a Pipeline);

impl PartialEq for Alike<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.works_like(other.0)
    }
}

impl Basis {
    fn of(ledger: &LedgerState, key: &StepKey) -> Option<Self> {
        let deployed = ledger.deployed.get(&key.pipeline.product)?;
        let pipeline = deployed.product.pipelines.get(&key.pipeline.name);
        let port = pipeline.map(|it| deployed.product.port(it.output()));
        let altered = port.map_or(0, |port| ledger.altered_at(&port));
        Some(Self { deployed: Arc::clone(deployed), altered })
    }

    /// Returns whether a step would do the same from another basis.
    fn same(&self, other: Option<&Self>, key: &StepKey) -> bool {
        fn parts<'a>(Basis { deployed, .. }: &'a Basis, key: &StepKey) -> Option<impl PartialEq + use<'a>> {
            let pipeline = deployed.product.pipelines.get(&key.pipeline.name)?;
            let output = deployed.product.outputs.get(pipeline.output());
            let output = output.map(|it| (it.format, &it.contract.columns, &it.contract.quality));
            let data = &deployed.print.ports.get(pipeline.output())?.data;
            Some((Alike(pipeline), output, data))
        }
        other.is_some_and(|other| {
            let defined =
                Arc::ptr_eq(&self.deployed, &other.deployed) || parts(self, key) == parts(other, key);
            defined && self.altered == other.altered
        })
    }
}

/// Why a step that ended well is not begun again at once: nothing that it could see has changed.
#[derive(Debug)]
pub(super) struct Rest {
    pub until_ms: i64,
    basis: Option<Basis>,
    inputs: i64,
}

impl Control {
    /// Begins what is due within the limits, and stops what works for a definition that is no longer deployed.
    pub(super) fn schedule(&mut self) {
        self.stop_outdated();
        self.line_up();
        let mut room = self.room();
        while let Some((lane, pipeline)) = self.lines.next(|pool| room.of(pool.as_ref()) > 0) {
            let pool = self.pool_of(&pipeline);
            // Where something fresh waits, a backlog gets its turn and no more.
            let most = match lane {
                Lane::Following => usize::MAX,
                Lane::Backlog if self.lines.has_fresh(|pool| room.of(pool.as_ref()) > 0) => 1,
                Lane::Fresh | Lane::Backlog => room.of(pool.as_ref()),
            };
            let steps: Vec<DueStep> = self.startable(&pipeline).take(most).cloned().collect();
            let full = lane != Lane::Following && steps.len() >= most;
            let (now, later): (Vec<_>, Vec<_>) =
                steps.into_iter().partition(|step| lane != Lane::Fresh || self.lane_of(&step.key) == lane);
            let mut began = 0;
            for step in now {
                began += usize::from(self.start(step));
            }
            if lane != Lane::Following {
                room.take(pool.as_ref(), began);
            }
            if full && began > 0 || !later.is_empty() {
                self.join(pipeline);
            }
        }
    }

    fn lane_of(&self, key: &StepKey) -> Lane {
        match key.work {
            Work::Follow => Lane::Following,
            _ if self.due.is_fresh(key) => Lane::Fresh,
            _ => Lane::Backlog,
        }
    }

    /// Lets those join who may have something to begin now.
    fn line_up(&mut self) {
        let refreshed = self.due.refresh(&self.ledger, self.now_ms);
        let anew = std::mem::take(&mut self.relimited) || refreshed.reordered;
        if anew {
            self.lines.clear();
        }
        let all = if anew { self.due.order().to_vec() } else { Vec::new() };
        for id in all.iter().chain(&refreshed.products) {
            for pipeline in self.due.pipelines_of(id).collect::<Vec<_>>() {
                self.join(pipeline);
            }
        }
        self.troubled.extend(refreshed.products);
        while self.rested.first().is_some_and(|(until_ms, _)| *until_ms <= self.now_ms) {
            if let Some((_, key)) = self.rested.pop_first() {
                self.wake(&key);
            }
        }
    }

    fn join(&mut self, pipeline: PipelineId) {
        let Some(rank) = self.due.rank(&pipeline.product) else { return };
        // What cannot begin now is looked at once more when its turn comes.
        let first = self.startable(&pipeline).next().or_else(|| self.due.steps_of(&pipeline).next());
        let Some(lane) = first.map(|step| self.lane_of(&step.key)) else { return };
        let deadline_ms =
            self.due.deadline_ms(&self.ledger, &pipeline).unwrap_or(self.now_ms + UNPROMISED_MS);
        let pool = self.pool_of(&pipeline);
        self.lines.join(Waiting { pipeline, lane, pool, rank, deadline_ms }, self.now_ms);
    }

    /// Lets a step begin again that rested, unless it went on to rest once more.
    fn wake(&mut self, key: &StepKey) {
        if self.resting.get(key).is_some_and(|rest| rest.until_ms <= self.now_ms) {
            self.resting.remove(key);
            self.join(key.pipeline.clone());
        }
    }

    /// Lets everything begin that rests: somebody asked.
    pub(super) fn wake_all(&mut self) {
        self.rested.clear();
        for (key, _) in std::mem::take(&mut self.resting) {
            self.join(key.pipeline);
        }
    }

    /// Returns the flights that end by themselves.
    pub(super) fn bounded(&self) -> impl Iterator<Item = (&StepKey, &Flight)> {
        self.flights.iter().filter(|(key, _)| key.work != Work::Follow)
    }

    pub(super) fn flights_of(&self, pipeline: &PipelineId) -> impl Iterator<Item = &StepKey> {
        // The least key of a pipeline: partitions come first in the order of work.
        let work = Work::Partitions { from: String::new(), to: String::new() };
        let least = StepKey { pipeline: pipeline.clone(), work };
        self.flights.range(least..).map(|(key, _)| key).take_while(move |key| key.pipeline == *pipeline)
    }

    /// Returns the due steps of a pipeline that nothing in flight collides with, no more than may begin beside that.
    pub(super) fn startable(&self, pipeline: &PipelineId) -> impl Iterator<Item = &DueStep> {
        // Whoever looks after its table is in nobody's way.
        let flights: Vec<&StepKey> = self.flights_of(pipeline).filter(|key| key.work != Work::Tend).collect();
        let first = self.due.steps_of(pipeline).next();
        let concurrency = first.map_or(1, |step| step.concurrency.max(1));
        let room = usize::try_from(concurrency).unwrap_or(1).saturating_sub(flights.len());
        let follows = first.is_some_and(|step| step.key.work == Work::Follow);
        let room = if follows { room } else { room.min(self.room_of(&pipeline.product)) };
        let begins = move |step: &&DueStep| {
            !self.rests(&step.key) && !flights.iter().any(|key| key.overlaps(&step.key))
        };
        self.due.steps_of(pipeline).filter(begins).take(room)
    }

    pub(super) fn rests(&self, key: &StepKey) -> bool {
        self.resting.get(key).is_some_and(|rest| {
            let basis = Basis::of(&self.ledger, key);
            rest.until_ms > self.now_ms
                && rest.basis.as_ref().map_or(basis.is_none(), |rested| rested.same(basis.as_ref(), key))
                && rest.inputs == self.ledger.input_versions(&key.pipeline.product)
        })
    }

    /// Begins a step; returns whether it did.
    pub(super) fn start(&mut self, step: DueStep) -> bool {
        let DueStep { key, reason, attempt, .. } = step;
        let Some(basis) = Basis::of(&self.ledger, &key) else { return false };
        let (generation, decision) = (basis.deployed.generation, basis.deployed.decision.clone());
        let run = format!("run-{:08}", self.ledger.seq + 1);
        self.record(Fact::RunStarted {
            run: run.clone(),
            step: key.clone(),
            attempt,
            decision: decision.clone(),
        });
        if key.work != Work::Tend {
            self.lines.began(self.lane_of(&key), key.pipeline.clone(), self.ledger.seq);
        }
        let bounds = self.ledger.bounds_of(&key.pipeline).cloned().unwrap_or_default();
        let flight = Flight {
            run: run.clone(),
            began_ms: self.now_ms,
            basis,
            bounds,
            is_late: false,
            stop_again_ms: None,
        };
        self.stop_again_ms = self.stop_again_ms.min(flight.end_ms());
        self.flights.insert(key.clone(), flight);
        self.effects.push(Effect::Start(Start { run, key, attempt, generation, decision, reason }));
        true
    }

    fn stop_outdated(&mut self) {
        // Another definition makes a step outdated, or another hand on its table, or a pause, if it would not end by itself, or a rule
        // that stops it, or somebody's wish; time ends what takes too long, and asks again for what was not heard.
        let redeployed = std::mem::take(&mut self.redeployed);
        if !redeployed && self.stop_again_ms > self.now_ms {
            return;
        }
        let mut outdated = Vec::new();
        self.stop_again_ms = i64::MAX;
        for (key, flight) in &mut self.flights {
            let paused = self.ledger.whole_pause_of(&key.pipeline.product, self.now_ms).is_some();
            let allowed = self.ledger.stopped_by(&key.pipeline.product).is_none();
            let same = flight.basis.same(Basis::of(&self.ledger, key).as_ref(), key)
                && !(paused && key.work == Work::Follow)
                && (allowed || planted::is(Bug::DenialIgnored))
                && !self.ledger.cancels.contains_key(&flight.run);
            if redeployed && let Some(bounds) = self.ledger.bounds_of(&key.pipeline) {
                // A step that turns out to need longer is given it by a commit, and need not begin again.
                flight.bounds.timeout = bounds.timeout;
            }
            let end_ms = flight.end_ms();
            let late = end_ms <= self.now_ms && !planted::is(Bug::TimeoutIgnored);
            flight.is_late = same && (flight.is_late || late && !flight.is_stopped());
            if flight.stop_again_ms.map_or(!same || late, |again_ms| again_ms <= self.now_ms) {
                flight.stop_again_ms = Some(self.now_ms + STOP_AGAIN_MS);
                outdated.push(flight.run.clone());
            }
            self.stop_again_ms = self.stop_again_ms.min(flight.stop_again_ms.unwrap_or(end_ms));
        }
        for run in outdated {
            self.effects.push(Effect::Cancel { run });
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
        let outcome = match (outcome, flight.bounds.timeout) {
            (RunOutcome::Failed { .. } | RunOutcome::Cancelled, Some(timeout)) if flight.is_late => {
                let message = format!("it took longer than `timeout: {timeout}`");
                RunOutcome::Failed {
                    kind: ErrorKind::External,
                    code: codes::TIMED_OUT.id().to_owned(),
                    message,
                }
            }
            // What failed is no longer wanted.
            (RunOutcome::Failed { .. }, _) if flight.is_stopped() => RunOutcome::Cancelled,
            (other, _) => other,
        };
        let failed = matches!(outcome, RunOutcome::Failed { .. });
        let succeeded = matches!(outcome, RunOutcome::Succeeded { .. });
        self.record(Fact::RunFinished { run: run.to_owned(), step: key.clone(), outcome, took_ms });
        if key.work == Work::Drift && succeeded && !flight.is_stopped() {
            self.weigh_retraining(&key.pipeline.product);
        }
        if !failed && !flight.is_stopped() {
            let inputs = self.ledger.input_versions(&key.pipeline.product);
            let until_ms = self.now_ms + REST_MS;
            let rest = Rest { until_ms, basis: Basis::of(&self.ledger, &key), inputs };
            self.rested.insert((until_ms, key.clone()));
            self.resting.insert(key, rest);
        }
    }
}
