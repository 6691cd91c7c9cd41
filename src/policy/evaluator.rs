//! What an engine must be able to do for the gate, and how its answers are read.

use std::time::Duration;

use serde_json::Value;

use super::problem::{PolicyProblem, ProblemKind};

/// The two questions a package can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Deny,
    Warn,
}

impl Verdict {
    /// Returns the name of the rule that answers.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Warn => "warn",
        }
    }
}

/// A package whose verdicts count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RulePackage {
    /// Dotted, without `data.`.
    pub name: String,
    /// The first file that declares a verdict; empty when the engine does not know.
    pub file: String,
    pub verdicts: Vec<Verdict>,
}

impl RulePackage {
    /// Returns what an engine is asked: `data.hydromesh.deploy.pii.deny`.
    #[must_use]
    pub fn question(&self, verdict: Verdict) -> String {
        format!("data.{}.{}", self.name, verdict.rule())
    }
}

/// Bounds on one evaluation. Whoever reaches one is denied.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationLimits {
    /// Wall-clock time of one rule in regorus.
    pub rule_time: Duration,
    /// Instructions of one entrypoint in WebAssembly. Counting instructions instead of time keeps the outcome the same on
    /// every machine.
    pub wasm_fuel: u64,
    /// Memory of one WebAssembly instance, in bytes.
    pub wasm_memory_bytes: usize,
}

impl Default for EvaluationLimits {
    fn default() -> Self {
        // The slowest central rule takes under 10 ms on the largest example, in the dev profile: 5 s leaves room for a
        // machine 500 times busier. 2e9 instructions are about 2 s of cranelift's code.
        Self { rule_time: Duration::from_secs(5), wasm_fuel: 2_000_000_000, wasm_memory_bytes: 256 << 20 }
    }
}

/// Why an engine gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.summary())]
pub struct EvaluationError(pub PolicyProblem);

impl EvaluationError {
    /// Returns an error with the place that the engine's text names, or the package's file.
    #[must_use]
    pub fn new(package: &RulePackage, text: &str) -> Self {
        let file = if package.file.is_empty() { &package.name } else { &package.file };
        Self(PolicyProblem::from_engine_text(ProblemKind::Syntax, file, text))
    }
}

/// What one package said to one question.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    pub package: &'a RulePackage,
    pub verdict: Verdict,
    /// The raw value; `None` when the rule is undefined.
    pub value: Result<Option<Value>, EvaluationError>,
}

/// An engine with policies loaded.
pub trait Evaluator: Send + Sync {
    /// Returns the engine's name for the ledger.
    fn engine(&self) -> &'static str;

    /// Returns every package that declares a verdict. An evaluator without any allows nothing.
    fn packages(&self) -> &[RulePackage];

    /// Asks every verdict of every package, in the order of [`Evaluator::packages`]; one answer each, also on errors. `asking`
    /// hears of each before it is asked.
    fn evaluate(&self, input: &Value, asking: &mut Asking<'_>) -> Vec<Answer<'_>>;
}

/// Hears of each question before an engine is asked it: one that ends the process can then be named.
pub type Asking<'a> = dyn FnMut(&RulePackage, Verdict) + 'a;

/// One element of a verdict as a rule wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawFinding {
    pub rule: Option<String>,
    pub message: String,
    pub path: Option<String>,
    pub severity: Option<String>,
    pub remediation: Option<String>,
}

/// Reads a verdict: a set or array of objects with a non-empty string `msg` and otherwise only known string keys.
///
/// # Errors
///
/// Says what is wrong with any other value, undefined included.
pub(super) fn read_findings(value: Option<&Value>) -> Result<Vec<RawFinding>, String> {
    let Some(value) = value else { return Err("is undefined instead of a set".to_owned()) };
    let Some(items) = value.as_array() else { return Err(format!("is {} instead of a set", kind_of(value))) };
    items.iter().map(read_finding).collect()
}

fn read_finding(item: &Value) -> Result<RawFinding, String> {
    let Some(map) = item.as_object() else {
        return Err(format!("holds {} instead of an object with msg", kind_of(item)));
    };
    let field = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(format!("holds an object whose {key} is {} instead of a string", kind_of(other))),
    };
    if let Some(key) =
        map.keys().find(|key| !matches!(key.as_str(), "rule" | "msg" | "path" | "severity" | "remediation"))
    {
        return Err(format!("holds an object with an unknown key {key:?}"));
    }
    match field("msg")? {
        Some(message) if !message.trim().is_empty() => Ok(RawFinding {
            rule: field("rule")?,
            message,
            path: field("path")?,
            severity: field("severity")?,
            remediation: field("remediation")?,
        }),
        _ => Err("holds an object without msg".to_owned()),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_sets_of_objects_and_refuses_the_rest() {
        assert_eq!(read_findings(Some(&json!([]))), Ok(vec![]));
        let found = read_findings(Some(&json!([{"msg": "no", "rule": "r", "path": null}]))).unwrap();
        assert_eq!((found[0].message.as_str(), found[0].rule.as_deref()), ("no", Some("r")));
        for bad in [
            json!(true),
            json!({}),
            json!(null),
            json!("no"),
            json!(["no"]),
            json!([{}]),
            json!([{"msg": ""}]),
            json!([{"msg": 1}]),
            json!([{"msg": "no", "rule": 1}]),
            json!([{"msg": "no", "pth": "x"}]),
            json!([{"msg": "no"}, 3]),
        ] {
            assert!(read_findings(Some(&bad)).is_err(), "{bad}");
        }
        assert!(read_findings(None).is_err());
    }
}
