//! How a product is, on two axes: whether what runs is what the commit asks for, and whether it does what it promises. Each has its own
//! word, because neither explains the other: a product may be held and late, or denied and well.
//!
//! The command line and the metrics ask here, so that no two of them differ at one moment.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ids::{PortName, ProductId};
use crate::ledger::{Deployed, LedgerState, Outcome};
use crate::model::Product;
use crate::plan::{StepKey, retry_of, worth_telling};
use crate::time::Span;

/// How long a product may take to publish for the first time, when its promise is shorter: history is read first.
pub const HYDRATION_MS: i64 = 3_600_000;

/// Whether what runs is what the newest commit asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// The newest commit was denied, or what is deployed is by now.
    Denied,
    /// The newest commit does not check.
    Broken,
    /// The newest commit waits for readers or inputs.
    Held,
    /// A table does not show what was published.
    Altered,
    /// Nothing of it was deployed yet.
    Waiting,
    /// What runs is what the commit says.
    Synced,
    /// It left the mesh.
    Retired,
}

impl Sync {
    /// Every word there is.
    pub const ALL: [Self; 7] =
        [Self::Denied, Self::Broken, Self::Held, Self::Altered, Self::Waiting, Self::Synced, Self::Retired];

    /// Returns the word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Broken => "broken",
            Self::Held => "held",
            Self::Altered => "altered",
            Self::Waiting => "waiting",
            Self::Synced => "synced",
            Self::Retired => "retired",
        }
    }
}

/// What keeps a product from what it promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble<'l> {
    /// A step failed, and nobody tries it again.
    Failing { step: &'l StepKey, code: &'l str, message: &'l str, others: usize },
    /// A rule stops what is deployed.
    Stopped { rule: &'l str, message: &'l str },
    /// Data is older than promised.
    Late { age_ms: i64, promise_ms: i64 },
}

/// Age of a port's data against its promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    /// Newest data time; none before the first publication.
    pub through_ms: Option<i64>,
    /// Its age: from the deploy on, while nothing was published of a port that promises something.
    pub age_ms: Option<i64>,
    /// At most so old, if the contract says.
    pub promise_ms: Option<i64>,
    /// A product that is new has time to read its history.
    pub is_new: bool,
}

impl Age {
    /// Returns by how much the promise is broken.
    #[must_use]
    pub fn late_ms(&self) -> Option<i64> {
        Some(self.age_ms? - self.promise_ms?).filter(|late| *late > 0 && !self.is_new)
    }
}

/// What the newest commit could not bring in of each product, and why.
pub type Refusals<'l> = BTreeMap<&'l ProductId, (Outcome, &'l str)>;

/// Returns what became of each product that the newest commit names.
#[must_use]
pub fn outcomes(ledger: &LedgerState) -> Refusals<'_> {
    let head = ledger.head.as_deref().unwrap_or_default();
    let named = ledger.outcomes.iter().filter(|(commit, ..)| commit == head);
    named
        .filter_map(|(_, product, outcome, why)| Some((product.as_ref()?, (*outcome, why.as_str()))))
        .collect()
}

/// Returns how what runs of a product relates to the newest commit, and why.
#[must_use]
pub fn sync(ledger: &LedgerState, id: &ProductId, outcome: Option<(Outcome, &str)>) -> (Sync, String) {
    match outcome {
        Some((Outcome::Denied, why)) => return (Sync::Denied, why.to_owned()),
        Some((Outcome::Broken, why)) => return (Sync::Broken, why.to_owned()),
        Some((Outcome::Held, why)) => return (Sync::Held, why.to_owned()),
        _ => {}
    }
    if let Some(rule) = ledger.objections(id).first() {
        let why = format!("{} no longer allows what is deployed: {}", rule.rule, rule.message);
        return (Sync::Denied, why);
    }
    let Some(deployed) = ledger.deployed.get(id) else {
        return match ledger.retired.get(id) {
            Some(retired) => (Sync::Retired, retired.text()),
            None => (Sync::Waiting, "nothing of it was deployed yet".to_owned()),
        };
    };
    let altered = deployed.product.outputs.keys().find_map(|name| {
        let found = ledger.altered.get(&deployed.product.port(name))?;
        Some(format!("{name}: {}", found.values().next()?))
    });
    match altered {
        Some(why) => (Sync::Altered, why),
        None => (Sync::Synced, String::new()),
    }
}

/// Returns what keeps a product from what it promises; causes before what follows from them.
#[must_use]
pub fn trouble<'l>(ledger: &'l LedgerState, id: &ProductId, now_ms: i64) -> Option<Trouble<'l>> {
    let deployed = ledger.deployed.get(id);
    let failed = ledger.failed.iter().filter(|(step, _)| step.pipeline.product == *id);
    let mut lasting = failed.filter(|(step, attempts)| {
        let pipeline = deployed.and_then(|it| it.product.pipelines.get(&step.pipeline.name));
        worth_telling(attempts, &retry_of(pipeline, &step.work))
    });
    if let Some((step, attempts)) = lasting.next() {
        let (code, message) = (attempts.code.as_str(), attempts.message.as_str());
        return Some(Trouble::Failing { step, code, message, others: lasting.count() });
    }
    if let Some(rule) = ledger.stopped_by(id) {
        return Some(Trouble::Stopped { rule: &rule.rule, message: &rule.message });
    }
    let age = age(ledger, deployed.map(AsRef::as_ref), now_ms);
    age.late_ms()?;
    Some(Trouble::Late { age_ms: age.age_ms?, promise_ms: age.promise_ms? })
}

/// Returns the age of the port that is nearest to, or furthest beyond, its promise.
#[must_use]
pub fn age(ledger: &LedgerState, deployed: Option<&Deployed>, now_ms: i64) -> Age {
    let none = Age { through_ms: None, age_ms: None, promise_ms: None, is_new: false };
    let Some(deployed) = deployed else { return none };
    let worry = |it: &Age| match (it.age_ms, it.promise_ms) {
        (Some(age), Some(promise)) => (1, age - promise),
        (age, _) => (0, age.unwrap_or(-1)),
    };
    let of_port = |name| of_port(ledger, deployed, &deployed.product, name, now_ms);
    deployed.product.outputs.keys().map(of_port).max_by_key(worry).unwrap_or(none)
}

fn of_port(
    ledger: &LedgerState,
    deployed: &Deployed,
    product: &Product,
    name: &PortName,
    now_ms: i64,
) -> Age {
    let through_ms = ledger.ports.get(&product.port(name)).and_then(|state| state.newest_data_ms);
    let promise_ms = product.outputs.get(name).and_then(|it| it.contract.data_age()).map(Span::millis);
    // A promise runs from the first deploy when nothing was published yet.
    let from_ms = through_ms.or_else(|| promise_ms.map(|_| deployed.since_ms));
    let patience_ms = promise_ms.unwrap_or(0).max(HYDRATION_MS);
    Age {
        through_ms,
        age_ms: from_ms.map(|from_ms| (now_ms - from_ms).max(0)),
        promise_ms,
        is_new: now_ms <= deployed.since_ms.saturating_add(patience_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn a_new_product_is_late_once_it_had_time_to_read_its_history() {
        let old = Age {
            through_ms: Some(0),
            age_ms: Some(100 * DAY_MS),
            promise_ms: Some(2 * DAY_MS),
            is_new: true,
        };
        assert_eq!(old.late_ms(), None);
        assert_eq!(Age { is_new: false, ..old }.late_ms(), Some(98 * DAY_MS));
        assert_eq!(Age { is_new: false, promise_ms: None, ..old }.late_ms(), None);
    }

    #[test]
    fn what_a_commit_could_not_bring_in_is_out_of_sync_whether_or_not_something_runs() {
        let (ledger, id) = (LedgerState::default(), "shop/sales".parse().unwrap());
        assert_eq!(sync(&ledger, &id, None).0, Sync::Waiting);
        for (outcome, word) in
            [(Outcome::Denied, Sync::Denied), (Outcome::Broken, Sync::Broken), (Outcome::Held, Sync::Held)]
        {
            assert_eq!(sync(&ledger, &id, Some((outcome, "why"))), (word, "why".to_owned()));
        }
        assert_eq!(trouble(&ledger, &id, 0), None);
    }
}
