use super::*;
use crate::model::read;
use crate::syntax::{Sink, parse};

const BASE: &str = "apiVersion: v3.2.0
kind: DataContract
id: a/b.c
version: 1.0.0
schema:
- name: c
  properties:
  - {name: id, logicalType: integer, required: true, primaryKey: true}
  - {name: email, logicalType: string, physicalType: VARCHAR(10), classification: restricted}
  - {name: note, logicalType: string}
  - {name: amount, logicalType: number, physicalType: 'DECIMAL(10,2)'}
  - {name: emb, logicalType: vector, logicalTypeOptions: {dimensions: 3}}
  quality:
  - {id: rc, metric: rowCount, mustBeGreaterThan: 100}
slaProperties:
- {id: l, property: latency, value: 4, unit: h}
- {id: r, property: retention, value: 3, unit: y}
";

fn contract(text: &str) -> Contract {
    let (documents, found) = parse("c", text);
    assert_eq!(found, []);
    let sink = Sink::new("c");
    let contract = read::contract(&documents[0], &sink, None).expect("a contract");
    assert_eq!(sink.into_found(), [], "{text}");
    contract
}

/// Changes after one replacement: column, field, kind, forward, backward.
fn verdict(from: &str, to: &str) -> String {
    assert!(BASE.contains(from), "{from}");
    let new = BASE.replacen(from, to, 1).replace("version: 1.0.0", "version: 2.0.0");
    let changes = compare(&contract(BASE), &contract(&new));
    let told: Vec<String> = changes
        .iter()
        .map(|it| {
            let breaks = match (it.breaks_forward, it.breaks_backward) {
                (false, false) => "-",
                (true, false) => "F",
                (false, true) => "B",
                (true, true) => "BF",
            };
            let kind = format!("{:?}", it.kind).to_lowercase();
            format!(
                "{}{} {kind} {breaks}",
                it.column.as_ref().map(|it| format!("{it}: ")).unwrap_or_default(),
                it.field
            )
        })
        .collect();
    format!("{} => {:?}", told.join(", "), bump(&changes))
}

#[test]
fn verdicts_follow_the_rule_table() {
    for (rule, from, to, wanted) in [
        ("none", "name: note", "name: note", " => Patch"),
        ("1", "  - {name: note,", "  - {name: x}\n  - {name: note,", "x: column added - => Minor"),
        (
            "2",
            "  - {name: note,",
            "  - {name: x, required: true}\n  - {name: note,",
            "x: column added B => Minor",
        ),
        ("4", "  - {name: note, logicalType: string}\n", "", "note: column removed F => Major"),
        (
            "5",
            "  - {name: id, logicalType: integer, required: true, primaryKey: true}\n",
            "",
            "primary_key replaced BF, id: column removed F => Major",
        ),
        ("8", "VARCHAR(10)", "VARCHAR(20)", "email: type loosened F => Major"),
        ("8", "DECIMAL(10,2)", "DECIMAL(12,2)", "amount: type loosened F => Major"),
        ("9", "VARCHAR(10)", "VARCHAR(5)", "email: type tightened B => Minor"),
        ("9", "DECIMAL(10,2)", "DECIMAL(9,2)", "amount: type tightened B => Minor"),
        ("10", "DECIMAL(10,2)", "DECIMAL(10,4)", "amount: type replaced BF => Major"),
        (
            "10",
            "name: note, logicalType: string",
            "name: note, logicalType: date",
            "note: type replaced BF => Major",
        ),
        ("11", "VARCHAR(10)", "varchar(10)", " => Patch"),
        ("12", "name: note,", "name: note, required: true,", "note: required tightened B => Minor"),
        ("13", "required: true, primaryKey", "primaryKey", "id: required loosened F => Major"),
        ("16", "mustBeGreaterThan: 100", "mustBeGreaterThan: 200", "quality rc tightened B => Minor"),
        ("17", "mustBeGreaterThan: 100", "mustBeGreaterThan: 10", "quality rc loosened F => Major"),
        (
            "17",
            "  quality:\n  - {id: rc, metric: rowCount, mustBeGreaterThan: 100}\n",
            "",
            "quality rc removed F => Major",
        ),
        (
            "17",
            "mustBeGreaterThan: 100",
            "mustBeGreaterThan: 100, severity: warning",
            "quality rc loosened F => Major",
        ),
        ("19", "required: true, primaryKey: true", "required: true", "primary_key replaced BF => Major"),
        ("22", "dimensions: 3", "dimensions: 4", "emb: type replaced BF => Major"),
        ("24", "value: 4, unit: h", "value: 24, unit: h", "sla l loosened F => Major"),
        ("25", "value: 4, unit: h", "value: 2, unit: h", "sla l tightened - => Minor"),
        ("24", "- {id: r, property: retention, value: 3, unit: y}\n", "", "sla r removed F => Major"),
        (
            "26",
            "classification: restricted",
            "classification: pii",
            "email: classification tightened F => Major",
        ),
        (
            "27",
            "classification: restricted",
            "classification: public",
            "email: classification loosened - => Patch",
        ),
        ("36", "name: note,", "name: note, description: words, tags: [x],", " => Patch"),
    ] {
        assert_eq!(verdict(from, to), wanted, "rule {rule}: {from} -> {to}");
    }
}

#[test]
fn a_lowered_classification_needs_approval() {
    let new = BASE.replace("classification: restricted", "classification: public");
    let changes = compare(&contract(BASE), &contract(&new));
    assert!(changes.iter().any(|it| it.needs_approval));
}

#[test]
fn a_version_that_rises_too_little_is_told() {
    let change = |text: &str, version: &str| {
        let new = text.replace("version: 1.0.0", &format!("version: {version}"));
        compare(&contract(BASE), &contract(&new)).iter().any(|it| it.field == "version")
    };
    let removed = BASE.replace("  - {name: note, logicalType: string}\n", "");
    let added = BASE.replace("  - {name: note,", "  - {name: x}\n  - {name: note,");
    assert!(change(&removed, "1.1.0"));
    assert!(!change(&removed, "2.0.0"));
    assert!(change(&added, "1.0.1"));
    assert!(!change(&added, "1.1.0"));
    assert!(change(BASE, "0.9.0"));
    assert!(!change(BASE, "1.0.0"));
}
