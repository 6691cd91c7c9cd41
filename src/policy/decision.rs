//! The answer of the gate, as it goes into the ledger.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::waiver::{ExpiredWaiver, Waiver};

/// Which layer of rules a finding comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceSet {
    /// The operator's rules.
    Central,
    /// The mesh's own rules, in its `policies/`.
    Mesh,
    /// The rules of the product's domain, in its `domains/<domain>/policies/`.
    Domain,
}

/// How bad it would be to ignore a finding. It orders lists for people; a violation denies whatever its severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Low,
    Medium,
    #[default]
    High,
    Critical,
}

impl Severity {
    /// Returns the severity of that name, as written in `custom.severity`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "low" => Some(Self::Low),
            "medium" => Some(Self::Medium),
            "high" => Some(Self::High),
            "critical" => Some(Self::Critical),
            _ => None,
        }
    }
}

/// What a new denial does to a product that is already deployed (`custom.enforce`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforce {
    /// Freezes further deploys; what runs goes on.
    #[default]
    Deploy,
    /// Also stops runs.
    Running,
}

/// One finding of one rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Violation {
    /// Stable name of the rule, which waivers and documentation use.
    pub rule: String,
    pub message: String,
    /// What it is about: a path of the input, or the address of a product, port or column.
    pub path: Option<String>,
    pub severity: Severity,
    pub remediation: Option<String>,
    pub enforce: Enforce,
    /// File of the rule, `file:line` where the place is known.
    pub source_file: Option<String>,
    pub source_set: SourceSet,
}

/// A violation that a waiver covers: it no longer denies, and stays visible.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Waived {
    pub violation: Violation,
    pub waiver: Waiver,
}

/// The gate's answer to one input. Equal rules and equal input give an equal decision, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Decision {
    /// True only when every layer answered well and no violation is left.
    pub allow: bool,
    pub violations: Vec<Violation>,
    pub warnings: Vec<Violation>,
    pub waived: Vec<Waived>,
    pub expired_waivers: Vec<ExpiredWaiver>,
    /// Digest of all rules that were asked, see [`super::Gate::digest_for`].
    pub policy_digest: String,
    /// Digest of the input's canonical JSON, see [`input_hash`].
    pub input_hash: String,
    /// Engine of the central rules: `regorus` or `opa-wasm`.
    pub engine: String,
    /// Set when the denial says something about the policies or the input rather than about the product.
    pub error: Option<String>,
}

/// Returns `sha256:` and the digest of the value's canonical JSON: keys sorted by their bytes at every level, no blanks.
/// Numbers keep the form in which they were given, so 1 and 1.0 differ.
#[must_use]
pub fn input_hash(input: &Value) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(canonical_json(input))))
}

pub(super) fn canonical_json(value: &Value) -> String {
    sorted(value).to_string()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            Value::Object(entries.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_does_not_depend_on_key_order() {
        let a: Value = serde_json::from_str(r#"{"b": {"y": 1, "x": [true, null]}, "a": "é"}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"a": "é", "b": {"x": [true, null], "y": 1}}"#).unwrap();
        assert_eq!(canonical_json(&a), r#"{"a":"é","b":{"x":[true,null],"y":1}}"#);
        assert_eq!(input_hash(&a), input_hash(&b));
        // printf "{}" | sha256sum
        assert_eq!(
            input_hash(&serde_json::json!({})),
            "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        let c: Value = serde_json::from_str(r#"{"a": "é", "b": {"x": [null, true], "y": 1}}"#).unwrap();
        assert_ne!(input_hash(&a), input_hash(&c));
    }
}
