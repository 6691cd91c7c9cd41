//! One audit as other programs and people see it: the outcome of every rule on one set of written rows.

use hydromesh_core::band::Band;
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::RuleOutcome;
use hydromesh_core::model::QualitySeverity;
use serde::Serialize;

/// One audit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Audit {
    /// The port.
    pub port: PortId,
    /// The partition; `None` for a whole table.
    pub partition: Option<String>,
    /// The run.
    pub run: String,
    /// When the controller learnt of it, milliseconds UTC.
    #[serde(serialize_with = "instant", rename = "at")]
    pub at_ms: i64,
    /// The table's version that first shows the rows, once they were published.
    pub table_version: Option<i64>,
    /// What became of each rule, in the order of the contract.
    pub rules: Vec<RuleResult>,
}

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleResult {
    /// The rule's id.
    pub rule: String,
    /// The column that it is about, if one.
    pub column: Option<String>,
    /// Blocks or tells.
    pub severity: QualitySeverity,
    /// What became of it.
    pub outcome: RuleOutcome,
    /// What was measured, in the rule's unit.
    pub measure: Option<f64>,
    /// Rows that were looked at.
    pub rows: Option<u64>,
    /// What was wanted, for people.
    pub threshold: String,
    /// What is usual, for a rule about that.
    pub band: Option<Band>,
}

impl RuleResult {
    /// Returns whether it stops the publication.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.severity == QualitySeverity::Error && self.outcome.is_bad()
    }
}

impl Audit {
    /// Returns whether the rows were kept from readers.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.rules.iter().any(RuleResult::blocks)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks of a serialiser")]
fn instant<S: serde::Serializer>(at_ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&crate::clock::rfc3339(*at_ms))
}
