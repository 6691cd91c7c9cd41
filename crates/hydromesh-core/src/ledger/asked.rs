//! What people asked for: what follows from an accepted command.

use std::sync::Arc;

use super::failed::{ALL, stretch};
use super::{Attempts, Command, LedgerState, Verb};
use crate::diag::codes;
use crate::ids::{PortId, ProductId};

/// Nothing of a product begins, or nothing of its backlog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Its place in the ledger.
    pub seq: u64,
    /// Since when.
    pub at_ms: i64,
    /// Until when, if time ends it.
    pub until_ms: Option<i64>,
    /// What readers wait for, the newest chunk, goes on.
    pub backfills: bool,
    /// Who asked.
    pub actor: String,
    /// Why.
    pub reason: String,
}

impl Pause {
    /// Says who paused it and why.
    #[must_use]
    pub fn text(&self) -> String {
        by(if self.backfills { "backfills paused" } else { "paused" }, &self.actor, &self.reason)
    }

    /// Returns whether nothing at all of the product begins.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.backfills
    }

    /// Returns whether it holds what readers wait for, or else a backlog.
    #[must_use]
    pub fn holds(&self, fresh: bool) -> bool {
        self.is_whole() || !fresh
    }
}

/// Says who did something, and why if that was said.
fn by(what: &str, actor: &str, reason: &str) -> String {
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("{what} by {actor}{reason}")
}

/// Whose partitions are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Those of ports that are cut by a calendar: values of a list may look like dates.
    Calendars,
    All,
}

impl Attempts {
    /// Returns whether somebody cancelled the last one.
    #[must_use]
    pub fn is_by_hand(&self) -> bool {
        self.code == codes::CANCELLED_BY_HAND.id()
    }

    /// Returns whether a disk took nothing at the last one, which passes without anybody's touching the mesh: such a step is
    /// never given up.
    #[must_use]
    pub fn is_refused_by_disk(&self) -> bool {
        self.code == codes::DISK.id()
    }
}

impl LedgerState {
    pub(super) fn obey(&mut self, at_ms: i64, command: &Command) {
        match &command.verb {
            Verb::Backfill { product, from, to } => self.force(product, (from, to), Of::Calendars),
            Verb::BackfillValues { product, values } => self.force_values(product, values),
            Verb::Run { product } => self.force(product, ALL, Of::All),
            Verb::Retry { product } => self.forgive(product),
            Verb::Silence { product, until_ms } => {
                self.silenced.insert(product.clone(), *until_ms);
            }
            Verb::Cancel { run, .. } => {
                self.cancels.insert(run.clone(), by("cancelled", &command.actor, &command.reason));
            }
            Verb::Pause { product, until_ms, backfills } => {
                let Command { actor, reason, .. } = command.clone();
                let (until_ms, backfills) = (*until_ms, *backfills);
                let pause = Pause { seq: self.seq, at_ms, until_ms, backfills, actor, reason };
                self.paused.insert(product.clone(), pause);
            }
            Verb::Resume { product } => _ = self.paused.remove(product),
        }
    }

    /// Forgets what failed of a product, and who cancelled what is under way: its end may come after this, and waits for nobody
    /// then.
    pub(super) fn forgive(&mut self, product: &ProductId) {
        self.failed.retain(|step, _| step.pipeline.product != *product);
        let running = &self.running;
        self.cancels.retain(|run, _| running.get(run).is_none_or(|step| step.pipeline.product != *product));
    }

    /// Returns the pause that a product, or its backlog, is in at an instant.
    #[must_use]
    pub fn pause_of(&self, product: &ProductId, now_ms: i64) -> Option<&Pause> {
        self.paused.get(product).filter(|pause| pause.until_ms.is_none_or(|until_ms| now_ms < until_ms))
    }

    /// Returns the pause that a product as a whole is in at an instant.
    #[must_use]
    pub fn whole_pause_of(&self, product: &ProductId, now_ms: i64) -> Option<&Pause> {
        self.pause_of(product, now_ms).filter(|pause| pause.is_whole())
    }

    fn force(&mut self, product: &ProductId, (from, to): (&str, &str), of: Of) {
        let listed = |port: &PortId| self.values_of(port).is_some();
        let ports = self.ports.keys().filter(|port| port.product == *product);
        let ports: Vec<PortId> = ports.filter(|port| of == Of::All || !listed(port)).cloned().collect();
        for port in ports {
            let Some(state) = self.ports.get_mut(&port) else { continue };
            for partition in stretch(&mut Arc::make_mut(state).partitions, from, to) {
                partition.forced = true;
            }
        }
        self.forgive(product);
    }
}
