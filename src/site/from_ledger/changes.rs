//! Commits and what became of them.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::Outcome;

use super::status::without_name;
use super::{Facts, instant};
use crate::site::model as site;

/// Returns the commits that were seen, newest first, each once.
pub(super) fn all(facts: &Facts<'_>) -> Vec<site::Change> {
    let ledger = facts.ledger;
    let mut whole: BTreeMap<&str, (Outcome, &str)> = BTreeMap::new();
    let mut products: BTreeMap<&str, BTreeMap<&ProductId, (Outcome, &str)>> = BTreeMap::new();
    for (commit, product, outcome, why) in &ledger.outcomes {
        // A commit is looked at again after a restart: what it came to then counts.
        match product {
            None => _ = whole.insert(commit, (*outcome, why)),
            Some(product) => _ = products.entry(commit).or_default().insert(product, (*outcome, why)),
        }
    }
    let retired: BTreeSet<(&str, &ProductId)> = ledger
        .decisions
        .iter()
        .filter(|(_, decision)| decision.action == "retire" && decision.allow)
        .map(|(_, decision)| (decision.commit.as_str(), &decision.product))
        .collect();
    let mut seen = BTreeSet::new();
    ledger
        .commits
        .iter()
        .rev()
        .filter(|commit| seen.insert(commit.commit.as_str()))
        // The ledger keeps every outcome, its projection the newest: a commit without one is being decided, or too old.
        .filter(|commit| {
            whole.contains_key(commit.commit.as_str())
                || ledger.head.as_deref() == Some(commit.commit.as_str())
        })
        .map(|commit| {
            let id = commit.commit.as_str();
            let outcomes = products.get(id).into_iter().flatten().map(|(product, (outcome, why))| {
                let outcome = match outcome {
                    Outcome::Applied if retired.contains(&(id, *product)) => site::Outcome::Removed,
                    other => word(*other),
                };
                let reason = without_name(&product.to_string(), why).to_owned();
                site::ChangeOutcome { product: product.to_string(), outcome, reason }
            });
            let of_all = whole.get(id);
            site::Change {
                commit: commit.commit.clone(),
                message: commit.message.clone(),
                author: commit.author.clone(),
                at: instant(commit.at_ms),
                url: facts.view.repository.as_deref().and_then(|repository| address(repository, id)),
                outcome: of_all.map(|(outcome, _)| word(*outcome)),
                reason: of_all.map_or_else(String::new, |(_, why)| (*why).to_owned()),
                outcomes: outcomes.collect(),
            }
        })
        .collect()
}

fn word(outcome: Outcome) -> site::Outcome {
    match outcome {
        Outcome::Applied => site::Outcome::Applied,
        Outcome::Superseded => site::Outcome::Superseded,
        Outcome::Held => site::Outcome::Held,
        Outcome::Denied => site::Outcome::Denied,
        Outcome::Broken => site::Outcome::Broken,
    }
}

/// Returns the page of a commit; the forges that people use agree on this path.
fn address(repository: &str, commit: &str) -> Option<String> {
    let repository = repository.trim_end_matches('/').trim_end_matches(".git");
    repository.starts_with("https://").then(|| format!("{repository}/commit/{commit}"))
}
