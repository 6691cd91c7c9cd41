//! What a message says beside the alert itself: where, since when, what changed last, what was good last.

use std::collections::BTreeSet;

use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::{Alert, LedgerState};
use hydromesh_core::model::Pipeline;

/// Episodes of the last 30 days count as the same story.
const STORY_MS: i64 = 30 * 24 * 3_600_000;

/// Where and when a message is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailContext {
    /// Title of the mesh.
    pub mesh: String,
    /// Name of the environment.
    pub environment: String,
    /// Address of the site, if it has one: `https://...` or `http://127.0.0.1:8080`.
    pub site: Option<String>,
    /// Now, milliseconds UTC.
    pub now_ms: i64,
    /// Message id of the episode's first message to this address; `None` when this is the first.
    pub first_message_id: Option<String>,
    /// What the ledger knows.
    pub history: History,
}

/// What the ledger knows of an episode's product.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// When the episode began, milliseconds UTC.
    pub since_ms: Option<i64>,
    /// It follows what it reads, so that nobody can ask for a run of it.
    pub follows: bool,
    /// Tier of the product: 1 wakes people, 2 is for working hours, 3 is to know. `None` counts as 2.
    pub tier: Option<u8>,
    /// This is the n-th episode of the kind within 30 days.
    pub occurrence: u64,
    /// The commit that the running definition came from.
    pub last_change: Option<LastChange>,
    /// What is visible and good.
    pub last_good: Option<LastGood>,
    /// Failed steps of the product and of everything it reads, with their errors.
    pub failing: Vec<(String, String)>,
    /// Products whose own episode this one explains: their owners were not woken.
    pub explains: Vec<ProductId>,
}

/// The last change of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastChange {
    /// The commit.
    pub commit: String,
    /// Who wrote it.
    pub author: String,
    /// First line of its message.
    pub message: String,
    /// When it was deployed, milliseconds UTC.
    pub deployed_ms: i64,
}

/// The newest visible partition of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// The port.
    pub port: PortId,
    /// The partition; empty for a whole table.
    pub partition: String,
    /// Its rows.
    pub rows: u64,
    /// The run that made it.
    pub run: String,
    /// When it became visible, milliseconds UTC.
    pub at_ms: i64,
}

impl History {
    /// Reads what the ledger knows about the product of an alert.
    #[must_use]
    pub fn of(ledger: &LedgerState, alert: &Alert) -> Self {
        let deployed = ledger.deployed.get(&alert.product);
        let since_ms = ledger
            .episodes
            .get(&alert.episode)
            .and_then(|episode| episode.transitions.first())
            .map(|(at, _)| *at);
        let from_ms = since_ms.unwrap_or(ledger.at_ms).saturating_sub(STORY_MS);
        let occurrence = ledger
            .episodes
            .values()
            .filter_map(|episode| episode.transitions.first())
            .filter(|(at, first)| {
                (first.product == alert.product && first.kind == alert.kind && first.subject == alert.subject)
                    && (*at >= from_ms && since_ms.is_none_or(|since| *at <= since))
            })
            .count();
        let last_change = deployed.map(|deployed| {
            let seen = ledger.commits.iter().rev().find(|seen| seen.commit == deployed.commit);
            LastChange {
                commit: deployed.commit.clone(),
                author: seen.map(|seen| seen.author.clone()).unwrap_or_default(),
                message: seen.map(|seen| seen.message.clone()).unwrap_or_default(),
                deployed_ms: deployed.at_ms,
            }
        });
        let last_good = ledger
            .ports
            .iter()
            .filter(|(port, _)| port.product == alert.product)
            .filter_map(|(_, state)| {
                state
                    .partitions
                    .values()
                    .max_by_key(|partition| (partition.published.data_time_ms, partition.at_ms))
            })
            .max_by_key(|partition| (partition.published.data_time_ms, partition.at_ms))
            .map(|partition| LastGood {
                port: partition.published.port.clone(),
                partition: partition.published.partition.clone().unwrap_or_default(),
                rows: partition.published.rows,
                run: partition.published.run.clone(),
                at_ms: partition.at_ms,
            });
        let lineage = upstream(ledger, &alert.product);
        let failing = ledger
            .failed
            .iter()
            .filter(|(step, _)| lineage.contains(&step.pipeline.product))
            .map(|(step, attempts)| (step.to_string(), format!("{} {}", attempts.code, attempts.message)))
            .collect();
        let explains: BTreeSet<ProductId> = ledger
            .episodes
            .values()
            .filter(|episode| episode.is_open() && episode.last().caused_by.as_ref() == Some(&alert.episode))
            .map(|episode| episode.last().product.clone())
            .collect();
        Self {
            since_ms,
            follows: deployed.is_some_and(|it| it.product.pipelines.values().all(Pipeline::follows)),
            tier: deployed.map(|deployed| deployed.product.tier),
            occurrence: occurrence as u64,
            last_change,
            last_good,
            failing,
            explains: explains.into_iter().collect(),
        }
    }
}

/// Returns a product and everything deployed that it reads, directly or through others.
fn upstream(ledger: &LedgerState, product: &ProductId) -> BTreeSet<ProductId> {
    let mut found = BTreeSet::from([product.clone()]);
    let mut next = vec![product.clone()];
    while let Some(id) = next.pop() {
        let Some(deployed) = ledger.deployed.get(&id) else { continue };
        for port in deployed.product.reads().chain(deployed.print.reads.keys()) {
            if found.insert(port.product.clone()) {
                next.push(port.product.clone());
            }
        }
    }
    found
}
