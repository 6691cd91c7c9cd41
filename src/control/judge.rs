//! What the gate is asked, and its answer in the ledger's words.

use std::sync::Arc;

use hydromesh_core::control::Question;
use hydromesh_core::ledger::{Decision, Finding, LedgerState};
use hydromesh_core::plan::Desired;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::gate_input::GateInputs;
use crate::policy::{self, Gate, PolicySet, Rules, Violation};

/// One set of rules, and what it is asked.
#[derive(Clone)]
pub struct Judge {
    rules: Arc<Rules>,
}

impl Judge {
    /// Judges by central rules and those that a mesh adds; `own` holds path and text.
    #[must_use]
    pub fn new(central: &PolicySet, own: &[(String, String)]) -> Self {
        Self { rules: Arc::new(Rules::new(central, own)) }
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
    pub fn document(
        &self,
        question: &Question,
        desired: &Desired,
        ledger: &LedgerState,
        environment: &str,
        now_ms: i64,
    ) -> Value {
        GateInputs::new(desired, ledger, environment).document(question, self.digest(), now_ms)
    }
}

/// Returns an answer in the ledger's words.
pub(super) fn answer(question: &Question, policy_digest: &str, decision: policy::Decision) -> Decision {
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
        policy_digest: policy_digest.to_owned(),
        input_hash: decision.input_hash,
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
