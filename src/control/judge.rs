//! Asks the gate, and says its answer in the ledger's words.

use std::collections::BTreeMap;

use hydromesh_core::control::Question;
use hydromesh_core::ledger::{Decision, Finding, LedgerState};
use hydromesh_core::plan::Desired;
use sha2::{Digest, Sha256};

use super::gate_input::GateInputs;
use crate::policy::{Gate, PolicySet, PolicySource, Violation};

/// The gate over one set of rules.
pub struct Judge {
    gate: Gate,
    digest: String,
}

impl Judge {
    /// Loads central rules and those that a mesh adds; `own` holds path and text.
    #[must_use]
    pub fn new(central: &PolicySet, own: &[(String, String)]) -> Self {
        let mut mesh = Vec::new();
        let mut domains: BTreeMap<String, Vec<PolicySource>> = BTreeMap::new();
        for (path, text) in own {
            let source = PolicySource { path: path.clone(), text: text.clone() };
            match path.strip_prefix("domains/").and_then(|rest| rest.split_once('/')) {
                Some((domain, _)) => domains.entry(domain.to_owned()).or_default().push(source),
                None => mesh.push(source),
            }
        }
        let gate = Gate::new(central, &mesh, &domains);
        let mut hasher = Sha256::new();
        // One digest over all of them: a change to any rule asks every product again, which is cheap and never wrong.
        for domain in domains.keys().map(String::as_str).chain([""]) {
            hasher.update(gate.digest_for(domain));
        }
        let digest = format!("sha256:{}", hex::encode(hasher.finalize()));
        Self { gate, digest }
    }

    /// Returns the digest of all rules.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns the gate.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Answers one question. It fails closed: what cannot be judged is denied.
    #[must_use]
    pub fn answer(
        &self,
        question: &Question,
        desired: &Desired,
        ledger: &LedgerState,
        environment: &str,
        now_ms: i64,
    ) -> Decision {
        let document = GateInputs::new(desired, ledger, environment).document(question, &self.digest, now_ms);
        let decision = self.gate.decide(&document);
        let id: String = {
            let text = format!("{}\n{}\n{}", question.action, question.product, decision.input_hash);
            hex::encode(Sha256::digest(text)).chars().take(16).collect()
        };
        Decision {
            id,
            product: question.product.clone(),
            action: question.action.clone(),
            commit: question.commit.clone(),
            fingerprint: question.fingerprint.clone(),
            allow: decision.allow,
            violations: decision.violations.into_iter().map(finding).collect(),
            warnings: decision.warnings.into_iter().map(finding).collect(),
            policy_digest: self.digest.clone(),
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
    }
}
