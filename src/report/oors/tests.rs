//! Documents against what RFC-0018 and the pages of the draft v0.8.1 say of their fields; the standard's own schema is not
//! published where it could be taken from with a licence.

use std::collections::BTreeSet;

use hydromesh_core::band::{Band, Range};
use hydromesh_core::model::{Threshold, Usual};

use super::RuleOutcome::{Failed, Held, Unknown, Unmeasured};
use super::*;

/// What the two say, as a schema of ours.
fn schema() -> Value {
    serde_json::from_str(include_str!("fields.schema.json")).expect("JSON")
}

fn quality(id: &str, column: Option<&str>, check: QualityCheck, operator: &str, operands: &[f64]) -> Quality {
    let percent = matches!(&check, QualityCheck::Usual(usual) if usual.of == UsualOf::NullValues);
    Quality {
        id: id.to_owned(),
        column: column.map(str::to_owned),
        check,
        threshold: Threshold { operator: operator.to_owned(), operands: operands.to_vec(), percent },
        severity: QualitySeverity::Error,
        line: 0,
    }
}

fn contract() -> Contract {
    let usual = |of| QualityCheck::Usual(Usual::new(of));
    Contract {
        id: "shop/visits.visits".to_owned(),
        version: "1.2.0".to_owned(),
        status: "active".to_owned(),
        description: String::new(),
        columns: Vec::new(),
        quality: vec![
            quality("rows", None, usual(UsualOf::RowCount), "usual", &[]),
            quality("nulls", Some("email"), usual(UsualOf::NullValues), "usual", &[]),
            quality("missing", Some("email"), QualityCheck::NullValues, "mustBeLessOrEqualTo", &[3.0]),
            quality("between", None, QualityCheck::RowCount, "mustBeBetween", &[1.0, 9.0]),
            quality("query", None, QualityCheck::Sql("SELECT 1".to_owned()), "mustBe", &[0.0]),
            quality("keys", None, QualityCheck::DuplicateValues(vec!["id".to_owned()]), "mustBe", &[0.0]),
        ],
        slas: Vec::new(),
        file: String::new(),
    }
}

/// An audit in which every rule had another end.
fn audit() -> Audit {
    let rule = |rule: &str, column: Option<&str>, outcome, measure, threshold: &str, usual| RuleResult {
        rule: rule.to_owned(),
        column: column.map(str::to_owned),
        severity: QualitySeverity::Error,
        outcome,
        measure,
        rows: Some(98),
        threshold: threshold.to_owned(),
        band: usual,
    };
    let band = |usual| Some(Band { alike: 6, needed: 4, usual });
    let usual = Range { low: 80.0, middle: 100.0, high: 125.0 };
    Audit {
        port: "shop/visits.visits".parse().expect("an address"),
        partition: Some("2026-07-13".to_owned()),
        run: "run-00000007".to_owned(),
        at_ms: 1_793_577_600_000,
        table_version: None,
        rules: vec![
            rule("rows", None, Failed, Some(9.0), "80 to 125, as 6 like it before", band(Some(usual))),
            rule("nulls", Some("email"), Unknown, Some(2.5), "what is usual", band(None)),
            rule("missing", Some("email"), Held, Some(2.0), "at most 3", None),
            rule("between", None, Held, Some(9.0), "from 1 to 8", None),
            rule("query", None, Unmeasured, None, "exactly 0", None),
            RuleResult {
                severity: QualitySeverity::Warning,
                ..rule("keys", None, Failed, Some(4.0), "exactly 0", None)
            },
            rule("gone", None, Held, Some(1.0), "exactly 1", None),
        ],
    }
}

#[test]
fn documents_have_the_fields_of_the_draft_and_no_others() {
    let validator = jsonschema::validator_for(&schema()).expect("a schema");
    for contract in [None, Some(contract())] {
        let mut whole = audit();
        whole.partition = None;
        for audit in [audit(), whole] {
            let document = oors(&audit, "shop/visits:make", contract.as_ref());
            let wrong: Vec<String> =
                validator.iter_errors(&document).map(|it| format!("{}: {it}", it.instance_path())).collect();
            assert_eq!(wrong, Vec::<String>::new(), "{document:#}");
        }
    }
    let mut bad = oors(&audit(), "p", None);
    bad["results"][0]["status"] = json!("passed");
    assert!(!validator.is_valid(&bad), "the schema can say no");
}

#[test]
fn every_outcome_has_its_word_and_its_numbers() {
    let document = oors(&audit(), "shop/visits:make", Some(&contract()));
    let results = document["results"].as_array().expect("results");
    let of = |id: &str| results.iter().find(|it| it["id"] == id).expect("the rule").clone();
    let words: BTreeSet<(String, String)> = results
        .iter()
        .map(|it| {
            (it["id"].as_str().expect("an id").to_owned(), it["status"].as_str().expect("one").to_owned())
        })
        .collect();
    let wanted = [
        ("between", "pass"),
        ("gone", "pass"),
        ("keys", "warn"),
        ("missing", "pass"),
        ("nulls", "unknown"),
        ("query", "error"),
        ("rows", "fail"),
    ];
    assert_eq!(words, wanted.map(|(id, word)| (id.to_owned(), word.to_owned())).into());
    assert_eq!(document["status"], "error", "the worst there is");
    assert_eq!(
        document["contract"],
        json!({"contractId": "shop/visits.visits", "standard": "ODCS", "version": "1.2.0"})
    );
    assert_eq!(
        of("rows")["measure"],
        json!({"metric": "rowCount", "value": 9.0, "threshold": {"mustBeBetween": [80.0, 125.0]}, "unit": "rows", "rowCount": 98})
    );
    assert_eq!(
        of("nulls")["measure"],
        json!({"metric": "nullValues", "value": 2.5, "unit": "percent", "rowCount": 98})
    );
    assert_eq!(of("missing")["measure"]["failedRowCount"], 2);
    assert_eq!(of("missing")["target"]["resourceIdentifier"], "shop/visits.visits.email");
    assert_eq!(of("between")["measure"].get("threshold"), None, "the contract says something else by now");
    assert_eq!(of("keys")["dimension"], "uniqueness");
    assert_eq!(
        of("gone")["measure"],
        json!({"value": 1.0, "rowCount": 98}),
        "the contract has no such rule any more"
    );
}
