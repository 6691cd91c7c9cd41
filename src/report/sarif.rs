//! SARIF 2.1.0 (OASIS), which code hosts and editors read.

use std::collections::BTreeMap;

use hydromesh_core::diag::{Code, Diagnostic, Severity};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::CheckReport;

/// Returns the report as a log of one run.
#[must_use]
pub fn sarif(report: &CheckReport<'_>) -> Value {
    let mut rules: Vec<Code> = report.findings.iter().map(|finding| finding.code).collect();
    rules.sort();
    rules.dedup();
    let index: BTreeMap<Code, usize> = rules.iter().enumerate().map(|(index, code)| (*code, index)).collect();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let results: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            let digest = digest(finding);
            // The n-th of several findings that are told apart by their lines alone.
            let nth = seen.entry(digest.clone()).and_modify(|n| *n += 1).or_insert(1);
            let mut result = json!({
                "ruleId": finding.code.id(),
                "ruleIndex": index.get(&finding.code),
                "level": level(finding.severity),
                "message": {"text": format!("{}. Help: {}", finding.message, finding.help)},
                "locations": [location(report, &finding.file, finding.line, finding.column)],
                "partialFingerprints": {"hydromesh/v1": format!("{digest}:{nth}")},
            });
            if !finding.related.is_empty() {
                let related = finding.related.iter().enumerate().map(|(id, it)| {
                    let mut place = location(report, &it.file, it.line, it.column);
                    place["id"] = json!(id);
                    place["message"] = json!({"text": it.message});
                    place
                });
                result["relatedLocations"] = related.collect();
            }
            result
        })
        .collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "hydromesh",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|code| rule(*code)).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(code: Code) -> Value {
    json!({
        "id": code.id(),
        "shortDescription": {"text": code.title()},
        "help": {"text": code.help(), "markdown": code.text()},
        "defaultConfiguration": {"level": level(code.severity())},
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn location(report: &CheckReport<'_>, file: &str, line: u32, column: u32) -> Value {
    let mut place = json!({"artifactLocation": {"uri": uri(&report.path(file))}});
    if line > 0 {
        place["region"] = json!({"startLine": line});
        if column > 0 {
            place["region"]["startColumn"] = json!(column);
        }
    }
    json!({"physicalLocation": place})
}

/// Percent-encodes what a relative URI reference cannot hold (RFC 3986, `path-noscheme`).
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'/'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b','
            | b'+'
            | b'@'
            | b'=' => {
                uri.push(char::from(byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

/// A finding stays the same one when lines above it move: neither line nor column is in it.
fn digest(finding: &Diagnostic) -> String {
    let digest = Sha256::digest(format!("{}\n{}\n{}", finding.code, finding.file, finding.message));
    hex::encode(digest.iter().take(16).copied().collect::<Vec<u8>>())
}
