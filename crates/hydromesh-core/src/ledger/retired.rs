//! Products that left the mesh, and how their tables end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Deployed, LedgerState, PortState};
use crate::ids::{PortId, ProductId};
use crate::model::TableEnd;
use crate::planted::{self, Bug};
use crate::time::day_of;

/// A product that left the mesh.
#[derive(Debug, Clone, PartialEq)]
pub struct Retirement {
    /// What was deployed last: its files are gone, so this says what becomes of its tables.
    pub deployed: Arc<Deployed>,
    /// When it left.
    pub at_ms: i64,
    /// The commit without it.
    pub commit: String,
    /// The decision.
    pub decision: String,
    /// The end of its tables, once that has begun.
    pub ending: Option<Ending>,
}

/// The end of a product's tables.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// Its place in the ledger: whatever is done about it carries this.
    pub seq: u64,
    /// When it began; from then on nobody counts on the tables.
    pub at_ms: i64,
    /// What is done to them.
    pub how: TableEnd,
    /// The decision.
    pub decision: String,
    /// The tables, each with the newest version that was known of it.
    pub tables: BTreeMap<PortId, i64>,
    /// When they were gone, and where the archive is, if there is one.
    pub done: Option<(i64, Option<String>)>,
}

/// What is remembered of a table that is gone: one that takes its place counts on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// The newest version that it had, or may have had.
    pub version: i64,
    /// How often it had been published.
    pub published: u64,
}

impl Retirement {
    /// Returns how the tables end and when that is due, milliseconds UTC, unless they stay or their end has begun.
    #[must_use]
    pub fn due(&self) -> Option<(TableEnd, i64)> {
        let (how, after) = self.deployed.product.retire.end().filter(|_| self.ending.is_none())?;
        Some((how, self.at_ms.saturating_add(after.millis())))
    }

    /// Says since when it is gone and what becomes of its tables, for people.
    #[must_use]
    pub fn text(&self) -> String {
        let left = format!("left the mesh on {}", day_of(self.at_ms));
        match (&self.ending, self.due()) {
            (Some(Ending { how, done: Some((at_ms, archive)), .. }), _) => {
                let to = archive.as_deref().map(|at| format!(" to {at} of the lake")).unwrap_or_default();
                format!("{left}; its tables were {} on {}{to}", how.done(), day_of(*at_ms))
            }
            (Some(ending), _) => format!("{left}; its tables are being {}", ending.how.done()),
            (None, Some((how, at_ms))) => {
                format!("{left}; its tables are {} on {}", how.done(), day_of(at_ms))
            }
            (None, None) => format!("{left}; its tables stay"),
        }
    }

    /// Returns the end that has begun and is not done.
    #[must_use]
    pub fn under_way(&self) -> Option<&Ending> {
        self.ending.as_ref().filter(|ending| ending.done.is_none())
    }
}

impl LedgerState {
    /// Returns the end of a product's earlier tables that has begun and is not done: until then nothing of it begins.
    #[must_use]
    pub fn ending_of(&self, product: &ProductId) -> Option<&Ending> {
        self.retired.get(product).and_then(|it| it.under_way())
    }

    /// Returns the newest version that was ever known of a port's table, whether it is there or gone.
    #[must_use]
    pub fn known_version(&self, port: &PortId) -> Option<i64> {
        let shown = self.ports.get(port).map(|state| state.version);
        shown.or_else(|| self.gone.get(port).map(|gone| gone.version))
    }

    pub(super) fn retire(&mut self, at_ms: i64, product: &ProductId, commit: &str, decision: &str) {
        if let Some(deployed) = self.deployed.remove(product) {
            // One that came back before the end of its earlier tables was done made no others.
            let ending = self.retired.get(product).and_then(|it| it.under_way()).cloned();
            let (commit, decision) = (commit.to_owned(), decision.to_owned());
            let retirement = Retirement { deployed, at_ms, commit, decision, ending };
            self.retired.insert(product.clone(), Arc::new(retirement));
        }
        self.paused.remove(product);
        self.stands.remove(product);
        self.outdated.remove(product);
        self.altered.retain(|port, _| port.product != *product);
        self.failed.retain(|step, _| step.pipeline.product != *product);
    }

    /// Takes in that a product is deployed: one that left comes back to its tables, unless their end has begun.
    pub(super) fn return_of(&mut self, product: &ProductId) {
        let stays = |it: &Arc<Retirement>| it.under_way().is_some() || planted::is(Bug::ReturnIgnored);
        if !self.retired.get(product).is_some_and(stays) {
            self.retired.remove(product);
        }
    }

    /// Takes in that the end of a product's tables begins: from here on it has none.
    pub(super) fn begin_ending(&mut self, at_ms: i64, product: &ProductId, how: TableEnd, decision: &str) {
        let Some(retirement) = self.retired.get_mut(product) else { return };
        let outputs = &retirement.deployed.product.outputs;
        let mut ports: BTreeSet<PortId> =
            outputs.keys().map(|name| retirement.deployed.product.port(name)).collect();
        ports.extend(self.ports.keys().filter(|port| port.product == *product).cloned());
        let mut tables = BTreeMap::new();
        for port in ports {
            let before = self.gone.get(&port).copied();
            let (version, published) = match self.ports.remove(&port) {
                Some(state) => (state.version, state.published),
                None => before.map_or((0, 0), |gone| (gone.version, gone.published)),
            };
            // Nobody may have told of its first version.
            let version = version.max(1);
            self.gone.insert(port.clone(), Gone { version, published });
            self.quality.remove(&port);
            self.altered.remove(&port);
            tables.insert(port, version);
        }
        let (seq, decision) = (self.seq, decision.to_owned());
        Arc::make_mut(retirement).ending = Some(Ending { seq, at_ms, how, decision, tables, done: None });
        self.measured.retain(|(port, _), _| port.product != *product);
        self.quarantined.retain(|port, _| port.product != *product);
        self.streams.retain(|pipeline, _| pipeline.product != *product);
        self.keys.retain(|port, _| port.product != *product);
        self.know_keys(product);
    }

    /// Takes in that a product's tables are gone from where they were.
    pub(super) fn end_tables(&mut self, at_ms: i64, product: &ProductId, archive: Option<&str>) {
        if self.deployed.contains_key(product) {
            self.retired.remove(product);
        } else if let Some(retirement) = self.retired.get_mut(product)
            && let Some(ending) = &mut Arc::make_mut(retirement).ending
        {
            ending.done = Some((at_ms, archive.map(str::to_owned)));
        }
    }

    /// Returns what is visible of a port, which a publication is about to change.
    pub(super) fn port_mut(&mut self, port: &PortId) -> &mut PortState {
        let gone = self.gone.remove(port);
        let begun = || {
            let Some(Gone { version, published }) = gone else { return Arc::default() };
            Arc::new(PortState { version, published, ..PortState::default() })
        };
        Arc::make_mut(self.ports.entry(port.clone()).or_insert_with(begun))
    }
}
