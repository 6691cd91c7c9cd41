//! What a preview has from its parent environment: definitions and published versions, as of one position of the parent's ledger.
//!
//! Of a port whose data is defined as it was in the parent nothing is ever due, and its rows are the parent's. Once a commit
//! defines its data otherwise, the preview has nothing of it until it has computed it: old rows must not stand for new ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Epoch, Fact, LedgerState, PortState, PublishedPartition};
use crate::ids::{PortId, ProductId};
use crate::model::Pipeline;
use crate::plan::dependency_order;

/// Versions of the tables that a preview makes itself are above this one, so that a version says whose table it is of. No
/// table of an environment comes to so many commits: one each second for thirty years.
pub const OWN_ABOVE: i64 = 1_000_000_000;

/// What a preview has from its parent.
#[derive(Debug, Clone, PartialEq)]
pub struct Inheritance {
    /// The parent environment.
    pub parent: String,
    /// The position of the parent's ledger.
    pub position: u64,
    /// When that was, milliseconds UTC of the parent's clock.
    pub at_ms: i64,
    /// Its ports.
    pub ports: BTreeMap<PortId, InheritedPort>,
}

/// A port of the parent.
#[derive(Debug, Clone, PartialEq)]
pub struct InheritedPort {
    /// The data fingerprint of its definition.
    pub data: String,
    /// What was published, if anything was.
    pub state: Option<Arc<PortState>>,
}

impl LedgerState {
    /// Returns the facts that a preview of this environment begins with, oldest first, each with its time: what is deployed,
    /// what is visible, and from where they are.
    #[must_use]
    pub fn bequest(&self, environment: &str) -> Vec<(i64, Fact)> {
        let mut facts = Vec::new();
        let order = dependency_order(self.deployed.values().map(|deployed| &deployed.product));
        for deployed in order.iter().filter_map(|id| self.deployed.get(id)) {
            let fact = Fact::Deployed {
                generation: deployed.generation,
                commit: deployed.commit.clone(),
                decision: deployed.decision.clone(),
                product: Box::new(deployed.product.clone()),
                print: deployed.print.clone(),
            };
            facts.push((deployed.at_ms, fact));
        }
        let keys = self.keys.iter().filter(|(port, _)| self.deployed.contains_key(&port.product));
        facts.extend(keys.map(|(port, known)| (known.at_ms, Fact::Keys(known.found(port)))));
        let ports = self.ports.iter().filter(|(port, _)| self.deployed.contains_key(&port.product));
        for (_, state) in ports {
            let mut partitions: Vec<&Arc<PublishedPartition>> = state.partitions.values().collect();
            partitions.sort_by_key(|partition| partition.published.version);
            let published = |it: &Arc<PublishedPartition>| (it.at_ms, Fact::Published(it.published.clone()));
            facts.extend(partitions.into_iter().map(published));
        }
        for (pipeline, stream) in &self.streams {
            let Some(deployed) = self.deployed.get(&pipeline.product) else { continue };
            let Some(port) = deployed.product.pipelines.get(&pipeline.name).map(Pipeline::output) else {
                continue;
            };
            let port = deployed.product.port(port);
            let version = self.ports.get(&port).map_or(0, |state| state.version);
            let epoch = Epoch {
                pipeline: pipeline.clone(),
                port,
                checkpoint: stream.checkpoint.clone(),
                version,
                rows: stream.rows,
                newest_event_ms: stream.newest_event_ms,
                data: stream.data.clone(),
            };
            facts.push((stream.at_ms, Fact::Epoch(epoch)));
        }
        facts.push((self.at_ms, Fact::Inherited { parent: environment.to_owned(), position: self.seq }));
        facts
    }

    /// Takes what was told so far for the parent's.
    pub(super) fn inherit(&mut self, at_ms: i64, parent: &str, position: u64) {
        let mut ports = BTreeMap::new();
        for deployed in self.deployed.values() {
            for (name, print) in &deployed.print.ports {
                let port = deployed.product.port(name);
                let state = self.ports.get(&port).cloned();
                ports.insert(port, InheritedPort { data: print.data.clone(), state });
            }
        }
        let parent = parent.to_owned();
        self.inherited = Some(Arc::new(Inheritance { parent, position, at_ms, ports }));
    }

    /// Returns whether a port is the parent's: its data is defined there as it is here.
    #[must_use]
    pub fn is_inherited(&self, port: &PortId, data: &str) -> bool {
        let inherited = self.inherited.as_ref().and_then(|it| it.ports.get(port));
        inherited.is_some_and(|inherited| inherited.data == data)
    }

    /// Returns the ports of a deployed product that are this preview's own; of an environment that is no preview, all of them.
    #[must_use]
    pub fn own_ports(&self, product: &ProductId) -> Vec<PortId> {
        let Some(deployed) = self.deployed.get(product) else { return Vec::new() };
        let ports = deployed.print.ports.iter().map(|(name, print)| (deployed.product.port(name), print));
        ports.filter(|(port, print)| !self.is_inherited(port, &print.data)).map(|(port, _)| port).collect()
    }

    /// Lets the ports of a product that was deployed be the parent's, or the preview's own, as its new definition says.
    pub(super) fn take_sides(&mut self, product: &ProductId) {
        let (Some(inherited), Some(deployed)) = (self.inherited.clone(), self.deployed.get(product).cloned())
        else {
            return;
        };
        for (name, print) in &deployed.print.ports {
            let port = deployed.product.port(name);
            let Some(parents) = inherited.ports.get(&port) else { continue };
            let own = self.ports.get(&port).is_some_and(|state| state.version > OWN_ABOVE);
            match (&parents.state, parents.data == print.data) {
                (Some(state), true) => _ = self.ports.insert(port, Arc::clone(state)),
                (None, true) => _ = self.ports.remove(&port),
                (_, false) if !own => _ = self.ports.remove(&port),
                (_, false) => {}
            }
        }
    }
}
