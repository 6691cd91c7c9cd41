//! Quality rules of the contract standard.

use std::collections::BTreeSet;

use super::command;
use super::custom::Custom;
use super::usual::{self, ENGINE};
use crate::diag::{Diagnostic, Severity, codes};
use crate::model::{Quality, QualityCheck, QualitySeverity, Threshold, Usual, UsualOf};
use crate::syntax::{Map, Node, NodeKind};

/// A rule before every rule of the contract has its id.
#[derive(Debug, Clone)]
pub struct QualityDraft {
    /// The author's id or name, if any.
    pub id: Option<String>,
    /// The rule; its id is still empty.
    pub quality: Quality,
}

const METRICS: &[&str] = &["nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount"];
const OPERATORS: &[&str] = &[
    "mustBe",
    "mustNotBe",
    "mustBeGreaterThan",
    "mustBeGreaterOrEqualTo",
    "mustBeLessThan",
    "mustBeLessOrEqualTo",
    "mustBeBetween",
    "mustNotBeBetween",
];
const DIMENSIONS: &[&str] =
    &["accuracy", "completeness", "conformity", "consistency", "coverage", "timeliness", "uniqueness"];

/// Reads the `quality` list of an object or a column.
pub fn read(parent: &Map<'_>, column: Option<&str>) -> Vec<QualityDraft> {
    parent.list("quality").iter().filter_map(|rule| one(rule, parent, column)).collect()
}

/// Gives every rule an id that is unique and stable: the author's, else one made of what is measured and where.
pub fn name(drafts: Vec<QualityDraft>) -> Vec<Quality> {
    let mut used = BTreeSet::new();
    drafts
        .into_iter()
        .map(|QualityDraft { id, mut quality }| {
            let measured = match &quality.check {
                QualityCheck::NullValues => "null_values",
                QualityCheck::MissingValues(_) => "missing_values",
                QualityCheck::InvalidValues { .. } => "invalid_values",
                QualityCheck::DuplicateValues(_) => "duplicate_values",
                QualityCheck::RowCount => "row_count",
                QualityCheck::Sql(_) => "sql",
                QualityCheck::Command(_) => "command",
                QualityCheck::Usual(Usual { of: UsualOf::RowCount, .. }) => "usual_row_count",
                QualityCheck::Usual(Usual { of: UsualOf::NullValues, .. }) => "usual_null_values",
            };
            let base = id.unwrap_or_else(|| match &quality.column {
                Some(column) => format!("{measured}_{column}"),
                None => measured.to_owned(),
            });
            let mut id = base.clone();
            for count in 2.. {
                if used.insert(id.clone()) {
                    break;
                }
                id = format!("{base}_{count}");
            }
            quality.id = id;
            quality
        })
        .collect()
}

fn one(node: &Node, parent: &Map<'_>, column: Option<&str>) -> Option<QualityDraft> {
    let map = Map::new(node, parent.sink());
    let id = map.text("id").or_else(|| map.text("name"));
    map.known(&[
        "name",
        "description",
        "method",
        "businessImpact",
        "schedule",
        "scheduler",
        "tags",
        "authoritativeDefinitions",
    ]);
    Custom::of(&map).finish(&map);
    if let Some(dimension) = map.text("dimension")
        && !DIMENSIONS.contains(&dimension.as_str())
    {
        map.bad_choice("dimension", map.spot("dimension"), &dimension, DIMENSIONS);
    }
    let kinds = [("text", "text"), ("library", "library"), ("sql", "sql"), ("custom", "custom")];
    let stated = map.opt("type").is_some();
    let kind = map.choice("type", &kinds);
    let query = map.text("query");
    let (metric, rule) = (map.text("metric"), map.text("rule"));
    map.known(&["arguments", "unit", "severity"]);
    map.known(OPERATORS);
    let severity = severity(&map);
    let engine = map.opt("engine");
    let implementation = map.opt("implementation");
    let check = match kind {
        // Words for people; the standard lets them stand without anything to measure.
        Some("text") => None,
        Some("custom") if engine.and_then(Node::text).as_deref() == Some(ENGINE) => usual::read(&map, column),
        Some("custom") if engine.and_then(Node::text).as_deref() == Some(command::ENGINE) => {
            command::read(&map)
        }
        Some("custom") => {
            for (key, value) in [("engine", engine), ("implementation", implementation)] {
                if value.is_none() {
                    map.sink().tell(codes::BAD_QUALITY, node.at, format!("a custom rule needs `{key}`"));
                }
            }
            map.sink().tell(
                codes::CUSTOM_QUALITY,
                node.at,
                "a rule of another tool is kept and not evaluated",
            );
            None
        }
        None if stated => None,
        _ if kind == Some("sql") || kind.is_none() && query.is_some() && metric.is_none() => {
            if query.is_none() {
                map.sink().tell(codes::BAD_QUALITY, node.at, "a rule of type sql needs `query`");
            }
            query.map(QualityCheck::Sql)
        }
        _ => library(&map, metric, rule, column),
    };
    let Some(check) = check else {
        map.finish();
        return None;
    };
    let threshold = match &check {
        QualityCheck::Usual(usual) => usual::threshold(&map, usual, OPERATORS),
        _ => threshold(&map, &check),
    };
    map.finish();
    let column = column.map(str::to_owned);
    let line = node.at.line;
    threshold.map(|threshold| QualityDraft {
        id,
        quality: Quality { id: String::new(), column, check, threshold, severity, line },
    })
}

fn severity(map: &Map<'_>) -> QualitySeverity {
    let Some(word) = map.text("severity") else { return QualitySeverity::Error };
    match word.to_lowercase().as_str() {
        "error" | "critical" | "high" => QualitySeverity::Error,
        "warning" | "warn" | "info" | "low" | "medium" => QualitySeverity::Warning,
        _ => {
            let message = format!("severity `{word}` is not known and counts as error");
            map.sink().push(
                Diagnostic::new(codes::BAD_CHOICE, map.sink().file(), map.spot("severity"), message)
                    .help("write error or warning")
                    .severity(Severity::Warning),
            );
            QualitySeverity::Error
        }
    }
}

fn library(
    map: &Map<'_>,
    metric: Option<String>,
    rule: Option<String>,
    column: Option<&str>,
) -> Option<QualityCheck> {
    let sink = map.sink();
    let (key, word) = match (metric, rule) {
        (Some(metric), _) => ("metric", metric),
        (None, Some(rule)) => {
            sink.tell(codes::OLD_SPELLING, map.spot("rule"), "`rule` is spelled `metric` since v3.1");
            // The words of v3.0 for what v3.1 named anew.
            let newer = match rule.as_str() {
                "duplicateCount" => "duplicateValues",
                "validValues" => "invalidValues",
                "nullCheck" | "nullCount" => "nullValues",
                other => other,
            };
            ("rule", newer.to_owned())
        }
        (None, None) => {
            sink.tell(codes::BAD_QUALITY, map.at, "a library rule needs `metric`");
            return None;
        }
    };
    let arguments = map.map("arguments");
    let texts = |name: &'static str| -> Vec<String> {
        let Some(arguments) = &arguments else { return Vec::new() };
        arguments.list(name).iter().filter_map(Node::text).collect()
    };
    let check = match word.as_str() {
        "nullValues" => QualityCheck::NullValues,
        "missingValues" => QualityCheck::MissingValues(texts("missingValues")),
        "invalidValues" => {
            let valid = texts("validValues");
            let pattern = arguments.as_ref().and_then(|arguments| arguments.text("pattern"));
            if valid.is_empty() && pattern.is_none() {
                let message = "invalidValues has neither `validValues` nor `pattern` under `arguments`; it is not evaluated";
                sink.tell(codes::CUSTOM_QUALITY, map.at, message);
                return None;
            }
            QualityCheck::InvalidValues { valid, pattern }
        }
        "duplicateValues" => {
            let mut columns = texts("properties");
            if columns.is_empty() {
                columns.extend(column.map(str::to_owned));
            }
            if columns.is_empty() {
                let message = "duplicateValues of an object needs `arguments: {properties: [...]}`";
                sink.tell(codes::BAD_QUALITY, map.at, message);
                return None;
            }
            QualityCheck::DuplicateValues(columns)
        }
        "rowCount" => QualityCheck::RowCount,
        other => {
            map.bad_choice(key, map.spot(key), other, METRICS);
            return None;
        }
    };
    if column.is_none() && matches!(word.as_str(), "nullValues" | "missingValues" | "invalidValues") {
        sink.tell(
            codes::BAD_QUALITY,
            map.at,
            format!("`{word}` is measured of a column; put the rule under one"),
        );
        return None;
    }
    Some(check)
}

fn threshold(map: &Map<'_>, check: &QualityCheck) -> Option<Threshold> {
    let given: Vec<&'static str> =
        OPERATORS.iter().copied().filter(|operator| map.opt(operator).is_some()).collect();
    let percent = map.text("unit").is_some_and(|unit| unit == "percent" || unit == "%");
    let operator = match given.as_slice() {
        [one] => *one,
        [] => {
            map.sink().tell(codes::BAD_QUALITY, map.at, "the rule has no operator such as `mustBe`");
            return None;
        }
        several => {
            let message = format!("the rule has several operators: {}", several.join(", "));
            map.sink().tell(codes::BAD_QUALITY, map.spot(several[1]), message);
            return None;
        }
    };
    if percent && *check == QualityCheck::RowCount {
        map.sink().tell(codes::BAD_QUALITY, map.spot("unit"), "a row count has no percentage");
        return None;
    }
    let node = map.opt(operator)?;
    let wanted = if operator.ends_with("Between") { 2 } else { 1 };
    let operands: Vec<f64> = match &node.value {
        NodeKind::Seq(items) => items.iter().filter_map(Node::number).collect(),
        _ => node.number().into_iter().collect(),
    };
    let complete = operands.len() == wanted && (wanted == 1 || node.items().len() == 2);
    if !complete || wanted == 2 && operands[0] > operands[1] {
        let form = if wanted == 2 { "two numbers, the smaller first" } else { "one number" };
        map.sink().tell(codes::BAD_QUALITY, node.at, format!("`{operator}` wants {form}"));
        return None;
    }
    Some(Threshold { operator: operator.to_owned(), operands, percent })
}
