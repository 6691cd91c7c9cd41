//! Tables that may show something else than the ledger says: somebody else changed them, or a run was interrupted.

use std::sync::Arc;

use super::LedgerState;
use super::failed::{ALL, NONE, stretch};
use crate::ids::{PipelineId, PortId, ProductId};
use crate::plan::{StepKey, Work};
use crate::planted::{self, Bug};

/// A change of a table by somebody else.
#[derive(Debug, Clone, PartialEq)]
pub struct Alteration {
    /// Its place in the ledger: commits after it carry it in their key, because the keys from before may be in a table
    /// that no longer shows what they stand for.
    pub seq: u64,
    /// When it was found.
    pub at_ms: i64,
    /// What was found, for people.
    pub what: String,
}

impl LedgerState {
    /// Takes in that a table no longer shows what was published.
    ///
    /// What was published stays known: once it is published again from the same inputs, readers have nothing new to see.
    pub(super) fn alter(
        &mut self,
        at_ms: i64,
        port: &PortId,
        partitions: &[String],
        dropped: bool,
        what: &str,
    ) {
        let alteration = Alteration { seq: self.seq, at_ms, what: what.to_owned() };
        self.alterations.insert(port.clone(), alteration);
        if planted::is(Bug::AlterationIgnored) {
            return;
        }
        let known = self.ports.get(port).into_iter().flat_map(|state| state.partitions.keys());
        let lost: Vec<&String> = if dropped { known.collect() } else { partitions.iter().collect() };
        if !lost.is_empty() {
            let altered = self.altered.entry(port.clone()).or_default();
            altered.extend(lost.into_iter().map(|key| (key.clone(), what.to_owned())));
        }
        if let Some(deployed) = self.deployed.get(&port.product).filter(|_| dropped) {
            // A stream whose table is gone begins again with its topic.
            let fills = |id: &PipelineId| {
                let pipeline = deployed.product.pipelines.get(&id.name);
                id.product == port.product && pipeline.is_some_and(|it| *it.output() == port.port)
            };
            let before = self.streams.len();
            self.streams.retain(|id, _| !fills(id));
            if self.streams.len() < before {
                // Until its first epoch.
                self.altered.entry(port.clone()).or_default().insert(String::new(), what.to_owned());
            }
        }
        self.failed.retain(|step, _| step.pipeline.product != port.product);
    }

    /// Returns the place in the ledger of the last change of a table by somebody else; 0 when there was none.
    #[must_use]
    pub fn altered_at(&self, port: &PortId) -> u64 {
        self.alterations.get(port).map_or(0, |alteration| alteration.seq)
    }

    /// Marks what an interrupted run may have published without a fact.
    pub(super) fn doubt(&mut self, run: &str, step: &StepKey) {
        if planted::is(Bug::NoDoubt) {
            return;
        }
        let (from, to) = match &step.work {
            Work::Partitions { from, to } => (from.as_str(), to.as_str()),
            Work::Whole | Work::Embed | Work::Train => ALL,
            // A stream's commits tell themselves where to go on.
            Work::Follow | Work::Drift | Work::Tend | Work::Keys => NONE,
        };
        if matches!(step.work, Work::Tend | Work::Keys) {
            return;
        }
        let Some(deployed) = self.deployed.get(&step.pipeline.product) else {
            return self.doubt_product(&step.pipeline.product);
        };
        let Some(pipeline) = deployed.product.pipelines.get(&step.pipeline.name) else {
            return self.doubt_product(&step.pipeline.product);
        };
        let port = deployed.product.port(pipeline.output());
        let Some(state) = self.ports.get_mut(&port) else { return };
        for partition in stretch(&mut Arc::make_mut(state).partitions, from, to) {
            partition.unsure |= partition.published.run != run;
        }
    }

    /// The definition that an interrupted run worked for is gone, and with it what it wrote.
    pub(super) fn doubt_product(&mut self, product: &ProductId) {
        let ports = self.ports.iter_mut().filter(|(port, _)| port.product == *product);
        for partition in ports.flat_map(|(_, state)| Arc::make_mut(state).partitions.values_mut()) {
            Arc::make_mut(partition).unsure = true;
        }
    }
}
