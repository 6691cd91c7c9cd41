//! `check`: the example is right, and every form of the report says the same.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Repo, copy, errors, example, root, run, run_in, text};

#[test]
fn the_example_has_no_error() {
    let ran = run(&["check", text(&example()), "--format", "json"]).ends_with(0);
    assert_eq!(errors(&ran.json()), [""; 0]);
    run(&["check", "mesh-repo-example"]).ends_with(0).says("9 products; 0 errors");
}

#[test]
fn json_has_the_documented_keys() {
    let path = root().join("tests/fixtures/bad/unknown_key");
    let value = run(&["check", text(&path), "--format", "json"]).ends_with(1).json();
    let top: Vec<&String> = value.as_object().expect("an object").keys().collect();
    assert_eq!(top, ["findings"]);
    let findings = value["findings"].as_array().expect("findings");
    assert!(!findings.is_empty());
    for finding in findings {
        let keys: BTreeSet<&str> =
            finding.as_object().expect("an object").keys().map(String::as_str).collect();
        for key in ["code", "severity", "file", "line", "column", "message", "help"] {
            assert!(keys.contains(key), "{finding} lacks {key}");
        }
        assert!(["error", "warning", "note"].contains(&finding["severity"].as_str().expect("a word")));
    }
}

#[test]
fn every_form_of_the_report_tells_the_same_error() {
    let path = root().join("tests/fixtures/bad/missing_column");
    let of = |format: &str| run(&["check", text(&path), "--format", format]).ends_with(1).stdout;
    let human = of("human");
    assert!(human.contains("error[HM-S011]") && human.contains("domains/shop/totals/totals.sql:"), "{human}");
    assert!(!human.contains('\u{1b}'), "colour without a terminal");
    // Other programs count files from the root of the repository.
    let file = "tests/fixtures/bad/missing_column/domains/shop/totals/totals.sql";
    let github = of("github");
    assert!(github.lines().any(|line| line.starts_with(&format!("::error file={file},line="))), "{github}");
    let markdown = of("markdown");
    assert!(markdown.contains("| error | HM-S011 |") && markdown.contains("`shop/totals`"), "{markdown}");
    let junit = of("junit");
    let case = junit.split("<testcase ").find(|case| case.contains("name=\"shop/totals\"")).expect("a case");
    assert!(case.contains("<failure type=\"HM-S011\""), "{junit}");
    let other = junit.split("<testcase ").find(|case| case.contains("name=\"shop/items\"")).expect("a case");
    assert!(!other.contains("<failure"), "{junit}");
    let sarif: Value = serde_json::from_str(&of("sarif")).expect("JSON");
    assert_eq!(sarif["version"], "2.1.0");
    let results = sarif["runs"][0]["results"].as_array().expect("results");
    let result = results.iter().find(|it| it["ruleId"] == "HM-S011").expect("told");
    assert_eq!(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], file);
    assert_eq!(result["level"], "error");
}

#[test]
fn a_commit_is_checked_without_its_work_tree() {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&example(), folder.path());
    Repo::around(folder.path());
    // What lies there uncommitted is not what was asked about.
    std::fs::write(folder.path().join("mesh.yaml"), ": broken").expect("written");
    run_in(folder.path(), &["check"]).ends_with(1);
    run_in(folder.path(), &["check", "--rev", "main"]).ends_with(0);
    run_in(folder.path(), &["check", "--rev", "nope"]).ends_with(2).says("nope");
}

#[test]
fn a_mesh_of_a_thousand_products_checks() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |path: String, text: String| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    let mesh = root().join("tests/fixtures/bad/missing_column/mesh.yaml");
    write("mesh.yaml".into(), std::fs::read_to_string(mesh).expect("read"));
    for domain in 0..20 {
        let at = format!("domains/d{domain}");
        write(
            format!("{at}/domain.yaml"),
            "apiVersion: hydromesh/v1\nkind: Domain\nowners: [a@example.com]\n".into(),
        );
        for product in 0..50 {
            let at = format!("{at}/p{product}");
            let (input, sql) = if product == 0 {
                let contract = "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n  - name: raw\n    properties:\n      \
                                - {name: day, logicalType: date}\n      - {name: n, logicalType: integer}\n";
                write(format!("{at}/raw.odcs.yaml"), contract.into());
                write(format!("{at}/data/a.csv"), "day,n\n2026-08-01,1\n".into());
                let input = "  - name: raw\n    customProperties:\n      - {property: hydromesh.files, value: \"data/*.csv\"}\n".to_owned();
                (input, "SELECT day, n FROM raw".to_owned())
            } else {
                // Every product reads the one before it in its domain, and every tenth one of the next domain as well.
                let before = format!("d{domain}/p{}.out", product - 1);
                let mut input = format!("  - {{name: before, contractId: {before}}}\n");
                let mut sql = "SELECT before.day, before.n + 1 AS n FROM before".to_owned();
                if product % 10 == 0 && domain < 19 {
                    input.push_str(&format!(
                        "  - {{name: beside, contractId: d{}/p{}.out}}\n",
                        domain + 1,
                        product - 1
                    ));
                    sql.push_str(" JOIN beside ON before.day = beside.day");
                }
                (input, sql)
            };
            let odps = format!(
                "apiVersion: v1.1.0\nkind: DataProduct\ninputPorts:\n{input}outputPorts:\n  - name: out\n"
            );
            write(format!("{at}/product.odps.yaml"), odps);
            let contract = "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n  - name: out\n    properties:\n      \
                            - {name: day, logicalType: date}\n      - {name: n, logicalType: integer}\n";
            write(format!("{at}/out.odcs.yaml"), contract.into());
            write(format!("{at}/out.sql"), sql);
            let pipeline = "apiVersion: hydromesh/v1\nkind: BatchPipeline\nname: make\noutput: out\nsql: out.sql\n\
                            partition: {by: day, every: day, start: 2026-08-01}\n";
            write(format!("{at}/pipeline.yaml"), pipeline.into());
        }
    }
    let ran = run(&["check", text(folder.path()), "--format", "json"]).ends_with(0);
    assert_eq!(errors(&ran.json()), [""; 0]);
}
