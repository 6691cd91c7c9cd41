//! Audits as documents of the Open Observability Results Standard, draft v0.8.1 (Bitol, RFC-0018).
//!
//! One document per audit: the rules of one contract on one set of rows. It has no values of rows, and no reference to any.

use hydromesh_core::ledger::RuleOutcome;
use hydromesh_core::model::{Contract, Quality, QualityCheck, QualitySeverity, UsualOf};
use serde_json::{Map, Value, json};

use super::audit::{Audit, RuleResult};
use crate::clock::rfc3339;

/// The version of the standard.
const VERSION: &str = "v0.8.1";

/// Returns an audit as a document. `process` is what computed the rows; the contract is that of the port as deployed.
///
/// A rule that the contract no longer has is told without metric, unit and dimension, and a threshold that it has changed
/// since stands in the message alone.
#[must_use]
pub fn oors(audit: &Audit, process: &str, contract: Option<&Contract>) -> Value {
    let place = audit.partition.as_ref().map(|partition| format!("/{partition}")).unwrap_or_default();
    let results: Vec<Value> = audit.rules.iter().map(|rule| result(audit, rule, contract)).collect();
    let mut document = json!({
        "apiVersion": VERSION,
        "kind": "ObservabilityResults",
        "id": format!("{}{place}@{}", audit.port, audit.run),
        "observedAt": rfc3339(audit.at_ms),
        "source": {"process": process, "runId": audit.run, "vendor": "hydromesh"},
        "run": {"state": "completed"},
        "status": overall(&audit.rules),
        "results": results,
    });
    if let (Some(contract), Value::Object(map)) = (contract, &mut document) {
        let about = json!({"contractId": contract.id, "standard": "ODCS", "version": contract.version});
        map.insert("contract".to_owned(), about);
    }
    document
}

fn status(rule: &RuleResult) -> &'static str {
    match (rule.outcome, rule.severity) {
        (RuleOutcome::Held, _) => "pass",
        (RuleOutcome::Failed, QualitySeverity::Error) => "fail",
        (RuleOutcome::Failed, QualitySeverity::Warning) => "warn",
        (RuleOutcome::Unmeasured, _) => "error",
        (RuleOutcome::Unknown, _) => "unknown",
    }
}

/// Returns the first of the standard's words, worst first, that occurs.
fn overall(rules: &[RuleResult]) -> &'static str {
    let found: Vec<&str> = rules.iter().map(status).collect();
    ["error", "fail", "warn", "pass"].into_iter().find(|word| found.contains(word)).unwrap_or("unknown")
}

fn result(audit: &Audit, rule: &RuleResult, contract: Option<&Contract>) -> Value {
    let stated = contract.and_then(|contract| contract.quality.iter().find(|it| it.id == rule.rule));
    let (kind, resource) = match &rule.column {
        Some(column) => ("column", format!("{}.{column}", audit.port)),
        None => ("table", audit.port.to_string()),
    };
    let mut target = json!({"resourceType": kind, "resourceIdentifier": resource});
    if let (Some(partition), Value::Object(target)) = (&audit.partition, &mut target) {
        target.insert("filter".to_owned(), json!(format!("partition = '{partition}'")));
    }
    let severity = match rule.severity {
        QualitySeverity::Error => "error",
        QualitySeverity::Warning => "warning",
    };
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    put("id", json!(rule.rule));
    put("type", json!("check"));
    put("name", json!(name(rule)));
    put("status", json!(status(rule)));
    put("severity", json!(severity));
    if let Some(dimension) = stated.and_then(|stated| dimension(&stated.check)) {
        put("dimension", json!(dimension));
    }
    put("target", target);
    put("measure", measure(rule, stated));
    put("message", json!(message(rule)));
    Value::Object(map)
}

fn name(rule: &RuleResult) -> String {
    match &rule.column {
        Some(column) => format!("{} of {column}", rule.rule),
        None => rule.rule.clone(),
    }
}

fn message(rule: &RuleResult) -> String {
    let measured =
        rule.measure.map_or_else(|| "could not be evaluated".to_owned(), |it| format!("measured {it}"));
    format!("{measured}, wanted {}", rule.threshold)
}

fn measure(rule: &RuleResult, stated: Option<&Quality>) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    if let Some(stated) = stated {
        put("metric", json!(metric(&stated.check)));
    }
    if let Some(measure) = rule.measure {
        put("value", json!(measure));
    }
    if let Some(usual) = rule.band.as_ref().and_then(|band| band.usual) {
        put("threshold", json!({"mustBeBetween": [usual.low, usual.high]}));
    } else if let Some(stated) = stated.filter(|stated| stated.threshold.spoken() == rule.threshold) {
        let operands = &stated.threshold.operands;
        let operand = match operands.as_slice() {
            [one] => json!(one),
            several => json!(several),
        };
        if !operands.is_empty() {
            put("threshold", json!({(stated.threshold.operator.as_str()): operand}));
        }
    }
    let percent = stated.is_some_and(|stated| stated.threshold.percent);
    let counts_rows =
        stated.is_some_and(|stated| !matches!(stated.check, QualityCheck::Sql(_) | QualityCheck::Command(_)));
    if percent {
        put("unit", json!("percent"));
    } else if counts_rows {
        put("unit", json!("rows"));
    }
    if let Some(rows) = rule.rows {
        put("rowCount", json!(rows));
        if let (Some(stated), Some(measure)) = (stated, rule.measure)
            && names_rows(&stated.check)
        {
            put("failedRowCount", json!(failed(measure, rows, percent)));
        }
    }
    Value::Object(map)
}

/// Returns whether the measure of a check is a number of rows that should not be there.
fn names_rows(check: &QualityCheck) -> bool {
    matches!(
        check,
        QualityCheck::NullValues
            | QualityCheck::MissingValues(_)
            | QualityCheck::InvalidValues { .. }
            | QualityCheck::DuplicateValues(_)
    )
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of rows are far below 2^53 and not negative"
)]
fn failed(measure: f64, rows: u64, percent: bool) -> u64 {
    if percent { (measure * rows as f64 / 100.0).round() as u64 } else { measure as u64 }
}

fn metric(check: &QualityCheck) -> &'static str {
    match check {
        QualityCheck::NullValues => "nullValues",
        QualityCheck::MissingValues(_) => "missingValues",
        QualityCheck::InvalidValues { .. } => "invalidValues",
        QualityCheck::DuplicateValues(_) => "duplicateValues",
        QualityCheck::RowCount => "rowCount",
        QualityCheck::Sql(_) => "sql",
        QualityCheck::Command(_) => "command",
        QualityCheck::Usual(usual) => match usual.of {
            UsualOf::RowCount => "rowCount",
            UsualOf::NullValues => "nullValues",
        },
    }
}

/// Returns the dimension of quality, in the words of the contract standard.
fn dimension(check: &QualityCheck) -> Option<&'static str> {
    match check {
        QualityCheck::NullValues
        | QualityCheck::MissingValues(_)
        | QualityCheck::RowCount
        | QualityCheck::Usual(_) => Some("completeness"),
        QualityCheck::InvalidValues { .. } => Some("conformity"),
        QualityCheck::DuplicateValues(_) => Some("uniqueness"),
        QualityCheck::Sql(_) | QualityCheck::Command(_) => None,
    }
}

#[cfg(test)]
mod tests;
