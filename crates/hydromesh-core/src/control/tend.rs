//! Maintenance: what is done to tables without anybody's asking.
//!
//! It is nobody's data, so it takes a place that nobody else wants, one table at a time. What a contract's retention removes is
//! a fact before it is done: from there on nothing counts on those partitions, so that whoever finds them gone, in
//! whatever order, neither computes them again nor takes it for somebody else's doing.

use std::collections::BTreeSet;

use super::Control;
use crate::ids::{PipelineId, PortId};
use crate::ledger::{Fact, LedgerState};
use crate::model::{Maintenance, Pipeline};
use crate::plan::{DueStep, StepKey, Work, first_kept};

/// How often all tables are looked through for what is due: a table is tended about once a day.
const LOOK_EVERY_MS: i64 = 10 * 60_000;
/// The pause after a try that failed.
const AGAIN_MS: i64 = 3_600_000;

/// What is to be tended.
#[derive(Debug, Default)]
pub(super) struct Tending {
    /// When to look through all tables again.
    look_ms: i64,
    due: BTreeSet<PipelineId>,
}

impl Tending {
    /// Takes note of a fact: another definition may promise to keep less.
    pub fn note(&mut self, fact: &Fact) {
        if matches!(fact, Fact::Deployed { .. }) {
            self.look_ms = i64::MIN;
        }
    }
}

impl Control {
    /// Returns what the environment says of maintenance; nothing is done before the repository has answered.
    fn maintenance(&self) -> Option<&Maintenance> {
        let environments = self.desired.as_deref().map(|desired| &desired.mesh.environments)?;
        environments.get(&self.environment).map(|it| &it.maintenance).filter(|it| it.every.is_some())
    }

    /// Looks, now and then, for tables that are due, and gives up partitions that their contract does not keep any longer.
    pub(super) fn look_after_tables(&mut self) {
        if self.now_ms < self.tending.look_ms {
            return;
        }
        let Some(every_ms) = self.maintenance().and_then(|it| it.every).map(crate::time::Span::millis) else {
            self.tending.due.clear();
            return;
        };
        self.tending.look_ms = self.now_ms.saturating_add(LOOK_EVERY_MS);
        let mut expired: Vec<(PortId, String)> = Vec::new();
        let mut due = BTreeSet::new();
        for (id, deployed) in &self.ledger.deployed {
            for (name, pipeline) in &deployed.product.pipelines {
                let port = deployed.product.port(pipeline.output());
                if let Some(before) = expires(&self.ledger, pipeline, &port, self.now_ms) {
                    expired.push((port.clone(), before));
                }
                let pipeline = PipelineId { product: id.clone(), name: name.clone() };
                if self.is_untended(&pipeline, &port, deployed.since_ms, every_ms) {
                    due.insert(pipeline);
                }
            }
        }
        self.tending.due = due;
        for (port, before) in expired {
            self.record(Fact::Expired { port, before });
        }
    }

    /// Returns whether a table has changed since it was tended, and that was long enough ago.
    fn is_untended(&self, pipeline: &PipelineId, port: &PortId, since_ms: i64, every_ms: i64) -> bool {
        let Some((published_ms, _)) = self.ledger.ports.get(port).and_then(|state| state.publishes.back())
        else {
            return false;
        };
        let tended_ms = self.ledger.tended.get(pipeline).copied();
        let changed = tended_ms.is_none_or(|tended_ms| {
            *published_ms > tended_ms || self.ledger.expired_at(port).is_some_and(|at_ms| at_ms > tended_ms)
        });
        changed && self.now_ms >= tended_ms.unwrap_or(since_ms).saturating_add(every_ms)
    }

    /// Begins to tend a table where a place is left over that nothing else can take.
    pub(super) fn tend(&mut self) {
        if self.tending.due.is_empty() || self.flights.keys().any(|key| key.work == Work::Tend) {
            return;
        }
        let room = self.room();
        if room.of(None) == 0 {
            return;
        }
        let may_begin = |id: &&PipelineId| {
            room.of(self.pool_of(id).as_ref()) > 0
                && self.room_of(&id.product) > 0
                && self.ledger.whole_pause_of(&id.product, self.now_ms).is_none()
                && self.ledger.stopped_by(&id.product).is_none()
                && self.ledger.ending_of(&id.product).is_none()
                // What is being written, or is about to be, is tended later.
                && self.flights_of(id).all(|key| key.work == Work::Follow)
                && self.due.steps_of(id).all(|step| step.key.work == Work::Follow)
                && !self.ledger.altered.keys().any(|port| port.product == id.product)
                && self.ledger.failed.get(&tending(id)).is_none_or(|it| it.at_ms + AGAIN_MS <= self.now_ms)
        };
        let Some(id) = self.tending.due.iter().find(may_begin).cloned() else { return };
        self.tending.due.remove(&id);
        let key = tending(&id);
        let attempt = self.ledger.failed.get(&key).map_or(1, |before| before.count + 1);
        let reason = "its table is looked after".to_owned();
        self.start(DueStep { key, reason, concurrency: 1, attempt });
    }
}

fn tending(pipeline: &PipelineId) -> StepKey {
    StepKey { pipeline: pipeline.clone(), work: Work::Tend }
}

/// Returns the first partition that the contract of a port still keeps, when that is a later one than before.
fn expires(ledger: &LedgerState, pipeline: &Pipeline, port: &PortId, now_ms: i64) -> Option<String> {
    let Pipeline::Batch(batch) = pipeline else { return None };
    let output = ledger.deployed.get(&port.product)?.product.outputs.get(&port.port)?;
    let calendar = batch.partition.as_ref()?.calendar()?;
    let first = first_kept(calendar, output.contract.retention()?, now_ms)?;
    let known = ledger.kept_from(port);
    known.is_none_or(|known| known < first.as_str()).then_some(first)
}
