//! `# METADATA` comments: what a rule is called and what its reader should do.
//!
//! The comment is YAML by OPA's definition. Of YAML this reads what annotations need: one level of keys, `custom` with one
//! more level, plain and quoted scalars on one line, and block scalars (`|` and `>`). Lists and deeper maps (authors,
//! `related_resources`, schemas) are skipped, since the gate has no use for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    decision::{Enforce, Severity},
    problem::{PolicyProblem, ProblemKind},
};

/// What the comment above a package or rule says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleMetadata {
    /// Dotted, without `data.`.
    pub package: String,
    /// `custom.rule`: the finding this describes; `None` describes every finding of the package.
    pub rule: Option<String>,
    pub title: Option<String>,
    pub description: Option<String>,
    pub severity: Option<Severity>,
    pub remediation: Option<String>,
    pub enforce: Option<Enforce>,
    pub file: String,
    /// Line of the package or rule itself, counted from 1.
    pub line: u32,
}

impl RuleMetadata {
    /// Returns the annotations in the form `opa inspect --annotations --format json` writes them. The script that compiles
    /// a bundle stores them as data, because compiling drops comments.
    pub(super) fn from_inspection(annotations: &Value) -> Vec<Self> {
        let read = |item: &Value| {
            let path: Vec<&str> = item
                .get("path")?
                .as_array()?
                .iter()
                .skip(1)
                .filter_map(|part| part.get("value")?.as_str())
                .collect();
            let body = item.get("annotations")?;
            let package = match body.get("scope")?.as_str()? {
                "package" => path.join("."),
                "rule" | "document" => path.split_last()?.1.join("."),
                _ => return None,
            };
            let text = |pointer: &str| {
                body.pointer(pointer).and_then(Value::as_str).map(|text| text.trim().to_owned())
            };
            Some(Self {
                package,
                rule: text("/custom/rule"),
                title: text("/title"),
                description: text("/description"),
                severity: text("/custom/severity").and_then(|name| Severity::parse(&name)),
                remediation: text("/custom/remediation"),
                enforce: text("/custom/enforce").and_then(|name| parse_enforce(&name)),
                file: item.pointer("/location/file")?.as_str()?.trim_start_matches('/').to_owned(),
                line: item.pointer("/location/row")?.as_u64()?.try_into().ok()?,
            })
        };
        annotations.as_array().map(|list| list.iter().filter_map(read).collect()).unwrap_or_default()
    }
}

fn parse_enforce(name: &str) -> Option<Enforce> {
    match name {
        "deploy" => Some(Enforce::Deploy),
        "running" => Some(Enforce::Running),
        _ => None,
    }
}

/// Reads the annotations of one file of the given package.
pub(super) fn read(package: &str, file: &str, text: &str) -> (Vec<RuleMetadata>, Vec<PolicyProblem>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let mut block: Option<(u32, Vec<&str>)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(comment) = line.strip_prefix('#') {
            match &mut block {
                None if comment.trim() == "METADATA" => block = Some((number, Vec::new())),
                None => {}
                // Content is indented by the blank behind the hash sign, which is not part of the YAML.
                Some((_, rows)) => rows.push(comment.strip_prefix(' ').unwrap_or(comment)),
            }
        } else if let Some((start, rows)) = block.take() {
            let (keys, custom) = parse_block(&rows);
            let mut complain = |what: String| {
                problems.push(PolicyProblem {
                    file: file.to_owned(),
                    line: start,
                    column: 1,
                    kind: ProblemKind::Metadata,
                    message: what,
                });
            };
            let severity = custom.get("severity").and_then(|name| {
                Severity::parse(name).or_else(|| {
                    complain(format!("custom.severity is {name:?}, not low, medium, high or critical"));
                    None
                })
            });
            let enforce = custom.get("enforce").and_then(|name| {
                parse_enforce(name).or_else(|| {
                    complain(format!("custom.enforce is {name:?}, not deploy or running"));
                    None
                })
            });
            found.push(RuleMetadata {
                package: package.to_owned(),
                rule: custom.get("rule").cloned(),
                title: keys.get("title").cloned(),
                description: keys.get("description").cloned(),
                severity,
                remediation: custom.get("remediation").cloned(),
                enforce,
                file: file.to_owned(),
                line: number,
            });
        }
    }
    (found, problems)
}

/// Returns the top-level scalars and the scalars under `custom`.
fn parse_block(rows: &[&str]) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let (mut keys, mut custom) = (BTreeMap::new(), BTreeMap::new());
    let indent_of = |row: &str| row.len() - row.trim_start().len();
    let (mut at, mut in_custom) = (0, false);
    while at < rows.len() {
        let row = rows[at];
        let indent = indent_of(row);
        at += 1;
        let Some((key, value)) = row.trim().split_once(':') else { continue };
        if row.trim_start().starts_with('-') {
            continue;
        }
        let value = value.trim();
        if indent == 0 {
            in_custom = key == "custom" && value.is_empty();
        }
        let mut deeper = Vec::new();
        while let Some(next) = rows.get(at).filter(|next| next.trim().is_empty() || indent_of(next) > indent)
        {
            if value.is_empty() {
                break;
            }
            deeper.push(next.trim());
            at += 1;
        }
        let text = match value {
            "" => continue,
            block if block.starts_with('|') => deeper.join("\n").trim().to_owned(),
            block if block.starts_with('>') => deeper.join(" ").trim().to_owned(),
            scalar => std::iter::once(unquote(scalar))
                .chain(deeper.into_iter().filter(|row| !row.is_empty()))
                .collect::<Vec<_>>()
                .join(" "),
        };
        if indent == 0 {
            keys.insert(key.to_owned(), text);
        } else if in_custom {
            custom.insert(key.to_owned(), text);
        }
    }
    (keys, custom)
}

fn unquote(scalar: &str) -> &str {
    let inner = |quote| scalar.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(scalar)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A comment\n\n# METADATA\n# title: Owners\n# description: |\n#   First line\n#   second: line\n# authors:\n# - name: somebody\n# custom:\n#   severity: critical\n#   remediation: \"Add: an owner\"\n#   enforce: running\npackage a.b\n\n# METADATA\n# title: One\n# custom:\n#   rule: one\n#   remediation: >-\n#     Do this\n#     and that.\ndeny contains 1 if true\n";

    #[test]
    fn reads_packages_and_rules() {
        let (found, problems) = read("a.b", "x.rego", TEXT);
        assert_eq!(problems, []);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].title.as_deref(), Some("Owners"));
        assert_eq!(found[0].description.as_deref(), Some("First line\nsecond: line"));
        assert_eq!(found[0].severity, Some(Severity::Critical));
        assert_eq!(found[0].enforce, Some(Enforce::Running));
        assert_eq!(found[0].remediation.as_deref(), Some("Add: an owner"));
        assert_eq!((found[0].rule.as_deref(), found[0].line), (None, 14));
        assert_eq!((found[1].rule.as_deref(), found[1].line), (Some("one"), 23));
        assert_eq!(found[1].remediation.as_deref(), Some("Do this and that."));
    }

    #[test]
    fn a_severity_nobody_knows_is_a_problem() {
        let (_, problems) = read("a", "x.rego", "# METADATA\n# custom:\n#   severity: hgih\npackage a\n");
        assert_eq!(problems.len(), 1);
        assert_eq!(
            problems[0].summary(),
            "x.rego:1: custom.severity is \"hgih\", not low, medium, high or critical"
        );
    }

    /// OPA's own reading of the central rules is recorded in the compiled bundle; ours must be the same.
    #[test]
    fn agrees_with_opa_on_the_central_rules() {
        let bundle = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/policy-bundle/bundle.tar.gz");
        let set = super::super::PolicySet::open(&bundle).unwrap();
        let mut theirs = RuleMetadata::from_inspection(set.data().pointer("/hydromesh/annotations").unwrap());
        let mut ours: Vec<_> = super::super::PolicySet::embedded()
            .sources()
            .iter()
            .filter(|source| !source.is_test())
            .flat_map(|source| {
                let package = source.text.lines().find_map(|line| line.strip_prefix("package ")).unwrap();
                read(package.trim(), &source.path, &source.text).0
            })
            .collect();
        theirs.sort();
        ours.sort();
        assert!(ours.len() > 12);
        assert_eq!(ours, theirs);
    }
}
