//! What is deployed, judged again when rules or waivers are others than those that allowed it.
//!
//! A new denial takes nothing back. Its owner is told, further deploys meet the same rules anyway, and steps stop only where the
//! rule says so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde_json::json;

use super::{Control, Question};
use crate::ids::ProductId;
use crate::ledger::{Decision, Fact, Finding};

/// The action of such a question.
pub(super) const STAND: &str = "stand";
/// Questions of this kind that are out at once: whoever pushes must not wait until ten thousand products were judged.
const AT_ONCE: usize = 4;
/// The pause after rules could not be asked.
const UNASKED_MS: i64 = 10 * 60_000;

/// Who is to be judged again.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// What the rules in force are for each product.
    rules: BTreeMap<ProductId, String>,
    /// Deployed products that others than these have allowed or denied.
    open: BTreeSet<ProductId>,
    /// About whom was asked last: one whose rules cannot be asked is not always the next.
    last: Option<ProductId>,
    /// Nobody is asked about before, milliseconds UTC.
    from_ms: i64,
}

impl Control {
    /// Takes in which rules are in force.
    pub(super) fn ruled(&mut self, rules: BTreeMap<ProductId, String>) {
        if self.standing.rules == rules {
            return;
        }
        self.standing.rules = rules;
        self.standing.from_ms = self.now_ms;
        self.standing.open = self.ledger.deployed.keys().filter(|id| !self.is_judged(id)).cloned().collect();
    }

    /// Returns whether the rules in force were asked about what is deployed of a product.
    fn is_judged(&self, id: &ProductId) -> bool {
        let rules = self.standing.rules.get(id);
        rules.is_none_or(|rules| self.ledger.is_judged_by(id, rules))
    }

    /// Notes that another definition of a product is deployed, which may concern all its readers.
    pub(super) fn note_deployed(&mut self, id: &ProductId) {
        let all: Vec<ProductId> = self.ledger.outdated.iter().chain([id]).cloned().collect();
        for id in all {
            self.note_standing(&id);
        }
    }

    /// Notes that a product is another one, or none, or that it was judged.
    pub(super) fn note_standing(&mut self, id: &ProductId) {
        if self.ledger.deployed.contains_key(id) && !self.is_judged(id) {
            self.standing.open.insert(id.clone());
        } else {
            self.standing.open.remove(id);
        }
    }

    /// Asserts that nobody is forgotten.
    #[cfg(test)]
    pub(super) fn check_standing(&self) {
        let deployed = self.ledger.deployed.keys();
        let open: BTreeSet<ProductId> = deployed.filter(|id| !self.is_judged(id)).cloned().collect();
        assert_eq!(self.standing.open, open);
    }

    /// Returns whether somebody is to be judged now.
    pub(super) fn reviews(&self) -> bool {
        !self.standing.open.is_empty() && self.standing.from_ms <= self.now_ms
    }

    /// Asks about those who are to be judged, a few at once.
    pub(super) fn review(&mut self) {
        if !self.reviews() || self.desired.is_none() {
            return;
        }
        let mut out = self.questions.keys().filter(|(_, action)| *action == STAND).count();
        while out < AT_ONCE {
            let waits = |id: &&ProductId| !self.is_asked(id, STAND);
            let open = &self.standing.open;
            let behind = self.standing.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let behind = open.range((behind, Bound::Unbounded));
            let Some(id) = behind.chain(open).find(waits).cloned() else { return };
            self.standing.last = Some(id.clone());
            let Some(deployed) = self.ledger.deployed.get(&id) else { return };
            let fingerprint = deployed.print.all.clone();
            // What the head says of signatures says it of everything that stands in it.
            let commit = self.ledger.head.clone().unwrap_or_default();
            let change = json!({
                "product": id,
                "kind": "standing",
                "reasons": ["rules, waivers or the labels of its inputs have changed since it was deployed"],
                "fingerprint": fingerprint,
                "partitions": {},
            });
            self.ask(STAND, Question { product: id, action: STAND.to_owned(), commit, fingerprint, change });
            out += 1;
        }
    }

    /// Takes in what the gate says of what is deployed.
    pub(super) fn standing_decided(&mut self, decision: Decision) {
        if !decision.violations.iter().all(Finding::judges) {
            // What could not be asked says nothing against what it allowed before.
            self.standing.from_ms = self.now_ms.saturating_add(UNASKED_MS);
        } else if self.standing.rules.get(&decision.product) == Some(&decision.rules) {
            self.record(Fact::Decided(decision));
        }
    }
}
