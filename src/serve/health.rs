//! One word per product.

use std::collections::BTreeSet;

use hydromesh_core::condition::{Trouble, trouble};
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{AlertKind, AlertState, LedgerState, Outcome};
use hydromesh_core::model::QualitySeverity;

use crate::site::model::Status;

/// Every word there is, in the order of worry.
pub(super) const STATUSES: [Status; 6] =
    [Status::Breaching, Status::Degraded, Status::Unknown, Status::Denied, Status::Held, Status::Healthy];

/// Returns the word that labels and JSON use.
pub(super) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Breaching => "breaching",
        Status::Degraded => "degraded",
        Status::Unknown => "unknown",
        Status::Denied => "denied",
        Status::Held => "held",
        Status::Healthy => "healthy",
    }
}

/// Returns the products that are deployed, and those that the newest commit names and that never were.
pub(super) fn products(ledger: &LedgerState) -> BTreeSet<ProductId> {
    let head = ledger.head.as_deref();
    let named = ledger
        .outcomes
        .iter()
        .filter(|(commit, _, outcome, _)| head == Some(commit.as_str()) && *outcome != Outcome::Applied)
        .filter_map(|(_, product, ..)| product.clone());
    ledger.deployed.keys().cloned().chain(named).collect()
}

/// Returns the state of a product, the worst that holds.
#[must_use]
pub fn product_status(ledger: &LedgerState, product: &ProductId, now_ms: i64) -> Status {
    let trouble = trouble(ledger, product, now_ms);
    if matches!(trouble, Some(Trouble::Late { .. })) {
        return Status::Breaching;
    }
    let open: Vec<(AlertKind, AlertState)> = ledger
        .episodes
        .values()
        .filter(|episode| episode.is_open() && episode.last().product == *product)
        .map(|episode| (episode.last().kind, episode.last().state))
        .collect();
    // A held episode is just as real to a reader of the data; only its owner is not woken twice.
    if open.iter().any(|(kind, _)| *kind == AlertKind::Freshness) {
        return Status::Breaching;
    }
    let warned = ledger
        .quality
        .iter()
        .filter(|(port, _)| port.product == *product)
        .flat_map(|(_, rules)| rules.values())
        .any(|rule| rule.outcome().is_bad() && rule.severity == QualitySeverity::Warning);
    if trouble.is_some() || warned || open.iter().any(|(kind, _)| *kind != AlertKind::Deploy) {
        return Status::Degraded;
    }
    let head = ledger.head.as_deref();
    let last = ledger
        .outcomes
        .iter()
        .rev()
        .find(|(_, named, ..)| named.as_ref() == Some(product))
        .filter(|(commit, ..)| head == Some(commit.as_str()));
    let refused = match last.map(|(_, _, outcome, _)| *outcome) {
        Some(Outcome::Denied) => Some(Status::Denied),
        Some(Outcome::Held | Outcome::Broken) => Some(Status::Held),
        Some(Outcome::Applied | Outcome::Superseded) | None => None,
    };
    let Some(deployed) = ledger.deployed.get(product) else { return refused.unwrap_or(Status::Unknown) };
    let silent =
        deployed.product.pipelines.values().map(|pipeline| deployed.product.port(pipeline.output())).any(
            |port| {
                ledger.ports.get(&port).is_none_or(|state| state.published == 0 && state.publishes.is_empty())
            },
        );
    let trained = ledger.models.get(product).is_some_and(|models| models.champion.is_some());
    if silent && !trained {
        return Status::Unknown;
    }
    refused.unwrap_or(Status::Healthy)
}
