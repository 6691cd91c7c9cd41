//! Makes jobs out of the ledger.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::band::{History, furthest};
use hydromesh_core::control::Start;
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::{Deployed, LedgerState};
use hydromesh_core::model::{Partitioning, Pipeline};
use hydromesh_core::plan::{Work, upstream_ports};
use hydromesh_core::time::Partition;

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
    let mut versions: BTreeMap<_, _> = ledger
        .ports
        .iter()
        .filter(|(port, _)| products.contains_key(&port.product))
        .map(|(port, state)| (port.clone(), state.version))
        .collect();
    // A table that takes the place of one that was dropped or archived counts on from it.
    let gone = ledger.gone.iter().filter(|(port, _)| port.product == *id);
    versions.extend(gone.map(|(port, gone)| (port.clone(), gone.version)));
    let models = ledger.models.get(id).cloned().unwrap_or_default();
    let print = deployed.print.clone();
    let output =
        deployed.product.pipelines.get(&start.key.pipeline.name).map(|it| deployed.product.port(it.output()));
    let altered = output.as_ref().map_or(0, |port| ledger.altered_at(port));
    let kept_from = output.as_ref().and_then(|port| ledger.kept_from(port)).map(str::to_owned);
    let afresh = output.is_some_and(|port| ledger.altered.contains_key(&port));
    let earlier = earlier(&start, ledger, deployed);
    let definitions = definitions(ledger, deployed);
    let read_since_ms = ledger.read_since_ms();
    Some(Job {
        start,
        products,
        print,
        versions,
        models,
        altered,
        afresh,
        earlier,
        kept_from,
        read_since_ms,
        definitions,
    })
}

/// Returns the data fingerprints of what a product reads.
fn definitions(ledger: &LedgerState, deployed: &Deployed) -> BTreeMap<PortId, String> {
    let ports = upstream_ports(&deployed.product).into_iter();
    let data =
        |port: &PortId| Some(ledger.deployed.get(&port.product)?.print.ports.get(&port.port)?.data.clone());
    ports.filter_map(|port| Some((data(&port)?, port))).map(|(data, port)| (port, data)).collect()
}

/// Returns what the rules of the contract compare a step's rows with.
fn earlier(start: &Start, ledger: &LedgerState, deployed: &Deployed) -> History {
    let product = &deployed.product;
    let Some(pipeline) = product.pipelines.get(&start.key.pipeline.name) else { return History::new() };
    let name = pipeline.output();
    let (Some(output), Some(print)) = (product.outputs.get(name), deployed.print.ports.get(name)) else {
        return History::new();
    };
    let cut = match pipeline {
        Pipeline::Batch(batch) => batch.partition.as_ref(),
        _ => None,
    };
    let calendar = cut.and_then(Partitioning::calendar);
    let most = furthest(&output.contract.quality, calendar.map(|it| it.every));
    if most == 0 {
        return History::new();
    }
    let (before, chunk) = match (&start.key.work, calendar) {
        // A value is preceded by what was published of it before.
        (Work::Partitions { to, .. }, None) => (Some(to.as_str()), 0),
        (Work::Partitions { from, to }, Some(calendar)) => {
            let index = |key: &str| Partition::parse(calendar.every, key).map_or(0, Partition::index);
            (Some(to.as_str()), index(to).saturating_sub(index(from)).unsigned_abs())
        }
        _ => (None, 0),
    };
    // The last partition of a chunk looks back at those of the chunk, the first one further.
    let most = u64::from(most).saturating_add(chunk);
    ledger.earlier(&product.port(name), &print.data, before, usize::try_from(most).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod keyed;
#[cfg(test)]
mod listed;
#[cfg(test)]
mod picked;
#[cfg(test)]
mod taken;
#[cfg(test)]
mod tests;
