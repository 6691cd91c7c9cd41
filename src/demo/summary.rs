//! What the demo prints at its end: one object, a pure function of the ledger and of three look-ups.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::ledger::{AlertState, LedgerState};
use hydromesh_core::model::PipelineKind;
use serde::Serialize;
use serde_json::Value;

/// The demo's result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The commit that is deployed.
    pub commit: String,
    /// Deployed products.
    pub products: usize,
    /// Deployed pipelines by kind; feature pipelines count as stream.
    pub pipelines: Pipelines,
    /// Attempts.
    pub runs: Runs,
    /// Gate decisions.
    pub decisions: Decisions,
    /// Partitions that the good change computed again, by product.
    pub backfilled: BTreeMap<String, u64>,
    /// One looked-up row.
    pub features: Value,
    /// The top hit of a search.
    pub search: Value,
    /// The feature that moved most when drift was confirmed.
    pub drift: Value,
    /// The champion.
    pub model: Value,
    /// Alert episodes in order of their beginning.
    pub alerts: Vec<AlertLine>,
    /// The status site.
    pub site: Site,
}

/// Pipelines by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pipelines {
    /// SQL from tables to a table.
    pub batch: usize,
    /// From a topic: archives and features.
    pub stream: usize,
    /// Texts to vectors.
    pub embedding: usize,
    /// Models.
    pub training: usize,
}

/// Attempts by end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Runs {
    /// Did all they should.
    pub succeeded: u64,
    /// Did not.
    pub failed: u64,
}

/// Gate decisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decisions {
    /// Allowed.
    pub allow: usize,
    /// Denied.
    pub deny: usize,
    /// Which products were denied by which rules.
    pub denied: Vec<Denied>,
}

/// One denial.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Denied {
    /// The product.
    pub product: String,
    /// The rule.
    pub rule: String,
}

/// One alert episode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AlertLine {
    /// The product.
    pub product: String,
    /// What it is about.
    pub kind: Value,
    /// Where it is now.
    pub state: AlertState,
}

/// The status site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Site {
    /// Its folder.
    pub path: String,
    /// Its pages.
    pub pages: usize,
}

/// Partitions published after entry `since` by product, when that product had been computed before.
#[must_use]
pub fn published_since(before: &LedgerState, after: &LedgerState) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (port, state) in after.ports.iter().filter(|(_, state)| state.published > 0) {
        let was = before.ports.get(port).map_or(0, |state| state.published);
        if state.published > was {
            *counts.entry(port.product.to_string()).or_default() += state.published - was;
        }
    }
    counts
}

/// Returns the demo's result.
#[must_use]
pub fn summary(
    ledger: &LedgerState,
    backfilled: BTreeMap<String, u64>,
    features: Value,
    search: Value,
    site: Site,
) -> Summary {
    let mut pipelines = Pipelines::default();
    for pipeline in ledger.deployed.values().flat_map(|deployed| deployed.product.pipelines.values()) {
        match pipeline.kind() {
            PipelineKind::Batch => pipelines.batch += 1,
            PipelineKind::Stream | PipelineKind::Feature => pipelines.stream += 1,
            PipelineKind::Embedding => pipelines.embedding += 1,
            PipelineKind::Training => pipelines.training += 1,
        }
    }
    let denied: BTreeSet<Denied> = ledger
        .decisions
        .iter()
        .filter(|(_, decision)| !decision.allow)
        .flat_map(|(_, decision)| {
            let product = decision.product.to_string();
            decision
                .violations
                .iter()
                .map(move |it| Denied { product: product.clone(), rule: it.rule.clone() })
        })
        .collect();
    let deny = ledger.decisions.iter().filter(|(_, decision)| !decision.allow).count();
    let mut episodes: Vec<_> =
        ledger.episodes.values().filter_map(|it| Some((it.transitions.first()?.0, it.last()))).collect();
    episodes.sort_by(|one, other| (one.0, &one.1.episode).cmp(&(other.0, &other.1.episode)));
    let drift = ledger
        .drift
        .values()
        .flatten()
        .filter(|(_, _, drifted)| *drifted)
        .flat_map(|(_, verdicts, _)| verdicts);
    let drift = drift
        .filter(|verdict| verdict.verdict == "drifted")
        .max_by(|one, other| one.statistic.total_cmp(&other.statistic))
        .map_or(Value::Null, |verdict| {
            serde_json::json!({
                "feature": verdict.feature,
                "statistic": verdict.statistic,
                "p_value": verdict.p_value,
            })
        });
    let model = ledger.models.values().find_map(|models| {
        let (version, _) = models.champion?;
        let (_, trained) = models.trained.iter().find(|(_, trained)| trained.version == version)?;
        let metric = trained.metric.clone();
        Some(serde_json::json!({"champion": version, metric: trained.value}))
    });
    Summary {
        commit: ledger.head.clone().unwrap_or_default(),
        products: ledger.deployed.len(),
        pipelines,
        runs: Runs { succeeded: ledger.succeeded, failed: ledger.failures },
        decisions: Decisions {
            allow: ledger.decisions.len() - deny,
            deny,
            denied: denied.into_iter().collect(),
        },
        backfilled,
        features,
        search,
        drift,
        model: model.unwrap_or(Value::Null),
        alerts: episodes
            .into_iter()
            .map(|(_, alert)| AlertLine {
                product: alert.product.to_string(),
                kind: serde_json::json!(alert.kind),
                state: alert.state,
            })
            .collect(),
        site,
    }
}
