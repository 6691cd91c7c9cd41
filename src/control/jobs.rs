//! Makes jobs out of the ledger.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::control::Start;
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::LedgerState;
use hydromesh_core::plan::upstream_ports;

use crate::apply::Job;

/// Returns the job of a step, if its product is deployed.
pub(super) fn job(start: Start, ledger: &LedgerState) -> Option<Job> {
    let id = &start.key.pipeline.product;
    let deployed = ledger.deployed.get(id)?;
    let mut products = BTreeMap::new();
    let mut next: Vec<ProductId> = vec![id.clone()];
    let mut seen = BTreeSet::new();
    while let Some(id) = next.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        if let Some(deployed) = ledger.deployed.get(&id) {
            next.extend(upstream_ports(&deployed.product).into_iter().map(|port| port.product));
            products.insert(id, deployed.product.clone());
        }
    }
    let versions = ledger
        .ports
        .iter()
        .filter(|(port, _)| products.contains_key(&port.product))
        .map(|(port, state)| (port.clone(), state.version))
        .collect();
    let models = ledger.models.get(id).cloned().unwrap_or_default();
    let print = deployed.print.clone();
    let output =
        deployed.product.pipelines.get(&start.key.pipeline.name).map(|it| deployed.product.port(it.output()));
    let altered = output.as_ref().map_or(0, |port| ledger.altered_at(port));
    let afresh = output.is_some_and(|port| ledger.altered.contains_key(&port));
    Some(Job { start, products, print, versions, models, altered, afresh })
}
