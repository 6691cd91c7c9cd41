//! Whether what is deployed may stay: the newest decision about exactly that, from its deploy on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Decision, Finding, LedgerState};
use crate::ids::{PortName, ProductId};
use crate::model::{Classification, Product};
use crate::plan::upstream_ports;

/// Rules of the gate by which it says that it could not ask: they judge nothing.
const UNASKED: [&str; 3] = ["policy-error", "policy-input", "policy-unanswered"];

impl Finding {
    /// Returns whether a rule found it, and not the gate that could not ask the rules.
    #[must_use]
    pub fn judges(&self) -> bool {
        !UNASKED.contains(&self.rule.as_str())
    }
}

impl LedgerState {
    /// Takes in what was decided about what is deployed.
    pub(super) fn stand(&mut self, decision: &Arc<Decision>) {
        let deployed = self.deployed.get(&decision.product);
        if decision.action == "stand"
            && deployed.is_some_and(|deployed| deployed.print.all == decision.fingerprint)
        {
            self.outdated.remove(&decision.product);
            self.stands.insert(decision.product.clone(), Arc::clone(decision));
        }
    }

    /// Takes in that a product is deployed under a decision: what was said of the one before counts no longer.
    pub(super) fn stand_anew(&mut self, product: &ProductId, decision: &str) {
        self.outdated.remove(product);
        let about = (product.clone(), "deploy".to_owned());
        match self.newest_decisions.get(&about).filter(|it| it.id == decision) {
            Some(decision) => _ = self.stands.insert(product.clone(), Arc::clone(decision)),
            None => _ = self.stands.remove(product),
        }
    }

    /// Takes in that a product is deployed with other labels than before: whoever reads its columns, or what is made of them, was
    /// allowed for other reasons.
    pub(super) fn relabel(&mut self, before: &Product, after: &Product) {
        if labels(before) == labels(after) {
            return;
        }
        let mut readers: BTreeMap<ProductId, Vec<&ProductId>> = BTreeMap::new();
        for (id, deployed) in &self.deployed {
            for port in upstream_ports(&deployed.product) {
                readers.entry(port.product).or_default().push(id);
            }
        }
        let (mut reached, mut next) = (BTreeSet::new(), vec![&after.id]);
        while let Some(id) = next.pop() {
            next.extend(
                readers.get(id).into_iter().flatten().filter(|reader| reached.insert((**reader).clone())),
            );
        }
        reached.remove(&after.id);
        self.outdated.extend(reached);
    }

    /// Returns the newest decision about exactly what is deployed of a product.
    #[must_use]
    pub fn standing(&self, product: &ProductId) -> Option<&Decision> {
        self.stands.get(product).map(Arc::as_ref)
    }

    /// Returns whether what is deployed of a product was decided about by these rules, with the labels of today.
    #[must_use]
    pub fn is_judged_by(&self, product: &ProductId, rules: &str) -> bool {
        !self.outdated.contains(product) && self.standing(product).is_some_and(|it| it.rules == rules)
    }

    /// Returns what rules say against what is deployed of a product; nothing when they allow it.
    #[must_use]
    pub fn objections(&self, product: &ProductId) -> &[Finding] {
        self.standing(product).filter(|it| !it.allow).map_or(&[], |it| &it.violations)
    }

    /// Returns the rule that stops a deployed product's steps, if there is one (`enforce: running`).
    #[must_use]
    pub fn stopped_by(&self, product: &ProductId) -> Option<&Finding> {
        self.objections(product).iter().find(|it| it.running)
    }
}

/// Returns the labels of a product's columns.
fn labels(product: &Product) -> BTreeMap<(&PortName, &str), Classification> {
    let ports = product.outputs.iter();
    let columns =
        ports.flat_map(|(name, port)| port.contract.columns.iter().map(move |column| (name, column)));
    columns.filter_map(|(name, it)| Some(((name, it.name.as_str()), it.classification?))).collect()
}
