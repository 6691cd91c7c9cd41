//! The one word for a product, and why.

use std::collections::BTreeMap;

use hydromesh_core::ids::{PortName, ProductId};
use hydromesh_core::ledger::{Alert, AlertKind, LedgerState, Outcome, ProductVerdict};

use super::{Definition, Facts};
use crate::site::model::{self as site, Status};

/// What is wrong with a product without its data being late.
const KINDS: [AlertKind; 6] = [
    AlertKind::Stopped,
    AlertKind::Quality,
    AlertKind::Run,
    AlertKind::Drift,
    AlertKind::Table,
    AlertKind::Policy,
];

/// Returns the products that the last commit that was decided about could not bring in.
///
/// A product that the commit did not try to change has no verdict in it: a later commit that takes a refused change back
/// ends the refusal.
pub(super) fn refusals(ledger: &LedgerState) -> BTreeMap<&ProductId, &ProductVerdict> {
    let Some(concluded) = &ledger.concluded else { return BTreeMap::new() };
    let refused = |verdict: &ProductVerdict| {
        verdict.commit == *concluded
            && matches!(verdict.outcome, Outcome::Held | Outcome::Denied | Outcome::Broken)
    };
    ledger.verdicts.iter().filter(|(_, verdict)| refused(verdict)).collect()
}

/// Drops the product's own name from the front of a text, be it that of a port or pipeline: the page says whose it is.
pub(super) fn without_name<'t>(id: &str, why: &'t str) -> &'t str {
    let rest = why.strip_prefix(id).and_then(|rest| rest.strip_prefix([':', '.']));
    rest.map_or(why, str::trim_start)
}

impl Facts<'_> {
    /// Returns how what runs relates to the commit.
    pub(super) fn sync(&self, id: &ProductId) -> site::Sync {
        let deployed = self.ledger.deployed.get(id);
        if let Some(refusal) = self.refusals.get(id) {
            let commit = refusal.commit.clone();
            let reason = without_name(&id.to_string(), &refusal.why).to_owned();
            return match refusal.outcome {
                Outcome::Denied => {
                    let found = self
                        .decisions
                        .get(id)
                        .and_then(|decisions| decisions.iter().find(|(_, it)| !it.allow))
                        .and_then(|(_, decision)| decision.violations.first());
                    let (rule, reason) = found.map_or_else(
                        || ("a rule".to_owned(), reason),
                        |finding| (finding.rule.clone(), finding.message.clone()),
                    );
                    site::Sync::Denied { commit, rule, reason }
                }
                Outcome::Broken => site::Sync::Broken { commit, reason },
                _ => site::Sync::Held { commit, reason },
            };
        }
        let asked = self.desired.and_then(|desired| Some((desired, desired.prints.get(id)?)));
        match (deployed, asked) {
            (Some(deployed), Some((desired, print))) if print.all != deployed.print.all => {
                site::Sync::Pending { commit: desired.commit.clone() }
            }
            (Some(deployed), _) => site::Sync::InSync { commit: deployed.commit.clone() },
            (None, _) => {
                let commit = self.desired.map(|desired| desired.commit.clone());
                site::Sync::Pending { commit: commit.or(self.ledger.head.clone()).unwrap_or_default() }
            }
        }
    }

    /// Returns the word and the reason. What hurts a reader of the data comes before what only holds up its owner.
    pub(super) fn status(
        &self,
        id: &ProductId,
        definition: Option<&Definition<'_>>,
        objectives: &[site::Objective],
        quality: &[site::QualityResult],
    ) -> (Status, String) {
        let open: Vec<&Alert> = self
            .episodes_of(id)
            .iter()
            .filter(|episode| episode.is_open())
            .map(|episode| episode.last())
            .collect();
        let of = |kinds: &[AlertKind]| open.iter().find(|alert| kinds.contains(&alert.kind)).copied();
        let late = of(&[AlertKind::Freshness]);
        let cause = late.and_then(|alert| self.cause_of(alert));
        let because = cause.map(|cause| format!("; {} is the cause", cause.product)).unwrap_or_default();
        // The objective speaks of now, the alert of the moment when it fired.
        // Quality that fails keeps the last good partition in place: its readers are not hurt yet.
        let quality_alone = |objective: &&site::Objective| objective.kind == site::ObjectiveKind::Quality;
        let breaching = || objectives.iter().filter(|objective| objective.status == Status::Breaching);
        if let Some(broken) = breaching().find(|objective| !quality_alone(objective)) {
            return (Status::Breaching, format!("{}, promised: {}{because}", broken.current, broken.promise));
        }
        if let Some(alert) = late {
            let summary = without_name(&id.to_string(), &alert.summary);
            return (Status::Breaching, format!("{summary}{because}"));
        }
        if let Some(alert) = of(&KINDS) {
            return (Status::Degraded, without_name(&id.to_string(), &alert.summary).to_owned());
        }
        if let Some(failed) = quality.iter().find(|result| result.outcome == site::QualityOutcome::Fail) {
            let place = failed.partition.as_ref().map(|key| format!(" in {key}")).unwrap_or_default();
            let reason = format!(
                "quality rule {}{place}: measured {}, wanted {}",
                failed.check, failed.observed, failed.expected
            );
            return (Status::Degraded, reason);
        }
        if let Some(broken) = breaching().next() {
            return (Status::Degraded, format!("{}, promised: {}", broken.current, broken.promise));
        }
        if let Some(burning) = objectives.iter().find(|objective| objective.status == Status::Degraded) {
            return (Status::Degraded, format!("the budget of \"{}\" burns fast", burning.promise));
        }
        if let Some(pause) = self.ledger.whole_pause_of(id, self.now_ms) {
            return (Status::Degraded, pause.text());
        }
        match self.refusals.get(id).map(|refusal| refusal.outcome) {
            // The page words these from how the product relates to the commit.
            Some(Outcome::Denied) => return (Status::Denied, String::new()),
            Some(_) => return (Status::Held, String::new()),
            None => {}
        }
        let Some(definition) = definition else {
            return (Status::Unknown, "no definition is known".to_owned());
        };
        if definition.deployed.is_none() {
            return (Status::Unknown, "waits for its first deploy".to_owned());
        }
        let product = definition.product;
        let published = |name| {
            let state = self.ledger.ports.get(&product.port(name));
            state.is_some_and(|state| !state.publishes.is_empty())
        };
        let missing: Vec<&str> =
            product.outputs.keys().filter(|name| !published(name)).map(PortName::as_str).collect();
        let reading = |objective: &site::Objective| {
            objective.kind == site::ObjectiveKind::DataAge
                && objective.sli_low.is_none()
                && !objective.days.is_empty()
        };
        if missing.is_empty() && objectives.iter().any(reading) {
            (Status::Unknown, "its history is being read".to_owned())
        } else if missing.is_empty() {
            (Status::Healthy, String::new())
        } else if missing.len() == product.outputs.len() {
            (Status::Unknown, "nothing published yet".to_owned())
        } else {
            (Status::Unknown, format!("nothing published yet on {}", missing.join(", ")))
        }
    }

    /// Returns the last state of the episode that explains another.
    pub(super) fn cause_of(&self, alert: &Alert) -> Option<&Alert> {
        let cause = alert.caused_by.as_ref()?;
        Some(self.ledger.episodes.get(cause)?.last())
    }
}
