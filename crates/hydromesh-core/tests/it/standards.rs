//! Files that no one on this project wrote: the standards' examples, their must-fail files, real contracts.

use std::path::{Path, PathBuf};

use hydromesh_core::diag::{Diagnostic, Severity, codes};
use hydromesh_core::model::read;
use hydromesh_core::syntax::{Sink, parse};

use crate::support;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = support::folder(folder)
        .into_keys()
        .map(|name| folder.join(name))
        .filter(|path| path.extension().is_some_and(|it| it == "yaml" || it == "yml"))
        .collect();
    found.sort();
    found
}

fn read_file(path: &Path) -> Vec<Diagnostic> {
    let text = std::fs::read_to_string(path).expect("readable");
    let name = path.file_name().expect("name").to_string_lossy().into_owned();
    let (documents, mut found) = parse(&name, &text);
    let sink = Sink::new(name);
    for document in &documents {
        if document.get("kind").and_then(hydromesh_core::syntax::Node::text).as_deref() == Some("DataProduct")
        {
            let _ = read::product(document, &sink);
        } else {
            let _ = read::contract(document, &sink, None);
        }
    }
    found.extend(sink.into_found());
    found
}

fn errors(path: &Path) -> Vec<String> {
    let wanted = |it: &&Diagnostic| it.severity == Severity::Error && it.code != codes::SCHEMA_COUNT;
    read_file(path).iter().filter(wanted).map(ToString::to_string).collect()
}

#[test]
fn official_examples_have_no_error_but_their_number_of_objects() {
    for folder in ["data/odcs/examples-v3.1.0", "data/odcs/examples-v3.2.0-dev", "data/odps/examples"] {
        let Some(folder) = support::shared(folder) else { return };
        let files = files(&folder);
        assert!(files.len() >= 4, "{} files", files.len());
        let told: Vec<String> = files.iter().flat_map(|path| errors(path)).collect();
        assert_eq!(told, Vec::<String>::new(), "{}", folder.display());
    }
}

#[test]
fn official_must_fail_files_have_an_error() {
    let Some(folder) = support::shared("data/odcs/negative-v3.2.0-dev") else { return };
    let files = files(&folder);
    assert_eq!(files.len(), 28);
    let told: Vec<String> = files
        .iter()
        .map(|path| {
            let name = path.file_name().expect("name").to_string_lossy().replace(".odcs.yaml", "");
            let found = read_file(path);
            let real =
                found.iter().filter(|it| it.severity == Severity::Error && it.code != codes::SCHEMA_COUNT);
            let mut told: Vec<&str> = real.map(|it| it.code.id()).collect();
            told.dedup();
            format!("{name}: {}", told.join(" "))
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    additional-unknown-property: HM-Y007
    enum-duplicate-values: HM-C012
    enum-empty: HM-C012
    enum-missing-value: HM-Y009
    invalid-api-version: HM-C001
    invalid-kind: HM-Y010
    invalid-quality-dimension: HM-Y010
    invalid-quality-metric: HM-Y010
    invalid-quality-type: HM-Y010
    map-missing-block: HM-C011
    map-missing-key: HM-Y009
    map-missing-value: HM-Y009
    missing-required-fields: HM-Y009
    quality-custom-missing-implementation: HM-C004
    quality-element-field: HM-Y010 HM-Y007
    quality-library-missing-metric: HM-C004
    quality-multiple-operators: HM-C004
    quality-mustbebetween-wrong-size: HM-C004
    quality-sql-missing-query: HM-C004
    relationship-property-level-with-from: HM-C014
    relationship-schema-level-missing-from-to: HM-C014
    schema-property-invalid-logicaltype: HM-Y010
    schema-property-missing-name: HM-Y009
    server-invalid-type: HM-C013
    server-missing-conditional-fields: HM-C013
    server-missing-required-fields: HM-Y009
    sla-missing-required-value: HM-Y009
    synonym-missing-term: HM-Y009
    ");
}

#[test]
fn real_contracts_are_read_without_a_panic_and_mostly_without_an_error() {
    let Some(folder) = support::shared("data/odcs/corpus-datacontract-cli") else { return };
    let files = files(&folder);
    let told: Vec<(String, Vec<String>)> = files
        .iter()
        .map(|path| (path.strip_prefix(&folder).expect("below").display().to_string(), errors(path)))
        .filter(|(_, errors)| !errors.is_empty())
        .collect();
    println!("{} of {} have an error", told.len(), files.len());
    for (file, errors) in &told {
        println!("{file}: {}", errors.join(" | "));
    }
    assert!(files.len() >= 40);
    // The corpus holds a few contracts that are invalid on purpose or of a dialect.
    assert!(told.len() <= 9, "{} files have errors", told.len());
}
