//! What the gate is asked, and its answer in the ledger's words.

use std::sync::Arc;

use hydromesh_core::control::Question;
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{Decision, Finding, WaivedFinding};
use hydromesh_core::waiver::Waiver;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::desired::OwnRules;
use super::gate_input::GateInputs;
use crate::policy::{self, Enforce, Gate, PolicySet, Rules, Violation, concerns};

/// One set of rules with its waivers, and what it is asked.
#[derive(Clone)]
pub struct Judge {
    rules: Arc<Rules>,
    waivers: Arc<[Waiver]>,
}

impl Judge {
    /// Judges by central rules and those that a mesh adds; `own` holds path and text.
    #[must_use]
    pub fn new(central: &PolicySet, own: &[(String, String)]) -> Self {
        Self { rules: Arc::new(Rules::new(central, own)), waivers: Arc::default() }
    }

    /// Judges by central rules and what a mesh itself says.
    #[must_use]
    pub fn of(central: &PolicySet, own: OwnRules) -> Self {
        Self { waivers: own.waivers.into(), ..Self::new(central, &own.policies) }
    }

    /// Returns the digest of all rules.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.rules.digest()
    }

    /// Returns the rules.
    #[must_use]
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Loads the rules in this process.
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.rules.gate()
    }

    /// Returns the document that one question is judged by.
    #[must_use]
    pub fn document(&self, inputs: &GateInputs<'_>, question: &Question, now_ms: i64) -> Value {
        inputs.document(question, self.digest(), &self.waivers, now_ms)
    }

    /// Returns a digest of what the rules are for a product at an instant: those that it is judged by, and the waivers that count.
    #[must_use]
    pub fn rules_for(&self, id: &ProductId, now_ms: i64) -> String {
        let mut hash = Sha256::new();
        hash.update(self.rules.digest_for(id.domain.as_str()));
        let text = id.to_string();
        for it in self.waivers.iter().filter(|it| it.expires_ms > now_ms && concerns(&it.scope, &text)) {
            hash.update(format!(
                "\n{:?}",
                (&it.id, &it.rule, &it.scope, &it.reason, &it.approver, &it.expires)
            ));
        }
        hex::encode(hash.finalize()).chars().take(16).collect()
    }

    /// Returns when the next waiver ends, milliseconds UTC.
    #[must_use]
    pub fn until_ms(&self, now_ms: i64) -> Option<i64> {
        self.waivers.iter().map(|it| it.expires_ms).filter(|it| *it > now_ms).min()
    }

    /// Returns where a waiver stands.
    fn place(&self, id: &str) -> String {
        let found = self.waivers.iter().find(|waiver| waiver.id == id);
        found.map(|waiver| format!("{}:{}", waiver.file, waiver.line)).unwrap_or_default()
    }

    fn waived(&self, it: policy::Waived) -> WaivedFinding {
        let policy::Waiver { id, reason, approver, expires, .. } = it.waiver;
        let place = self.place(&id);
        WaivedFinding { finding: finding(it.violation), waiver: id, place, approver, reason, expires }
    }

    /// Says that a waiver for the product does not count.
    fn ended(&self, it: policy::ExpiredWaiver) -> Finding {
        let policy::Waiver { id, rule, .. } = it.waiver;
        Finding {
            rule: "waiver-ended".to_owned(),
            message: format!("HM-P005: waiver {id} of {rule} waives nothing: {}", it.why),
            path: self.place(&id),
            remediation: "Remove it, or let its approver set a later end.".to_owned(),
            running: false,
        }
    }

    /// Returns an answer in the ledger's words; `rules` is what they were when it was asked, see [`Judge::rules_for`].
    pub(super) fn answer(&self, question: &Question, rules: String, decision: policy::Decision) -> Decision {
        let id: String = {
            let text = format!("{}\n{}\n{}", question.action, question.product, decision.input_hash);
            hex::encode(Sha256::digest(text)).chars().take(16).collect()
        };
        let ended = decision.expired_waivers.into_iter().map(|it| self.ended(it));
        Decision {
            id,
            product: question.product.clone(),
            action: question.action.clone(),
            commit: question.commit.clone(),
            fingerprint: question.fingerprint.clone(),
            allow: decision.allow,
            violations: decision.violations.into_iter().map(finding).collect(),
            warnings: decision.warnings.into_iter().map(finding).chain(ended).collect(),
            waived: decision.waived.into_iter().map(|it| self.waived(it)).collect(),
            policy_digest: self.digest().to_owned(),
            rules,
            input_hash: decision.input_hash,
        }
    }
}

fn finding(violation: Violation) -> Finding {
    Finding {
        rule: violation.rule,
        message: violation.message,
        path: violation.path.unwrap_or_default(),
        remediation: violation.remediation.unwrap_or_default(),
        running: violation.enforce == Enforce::Running,
    }
}
