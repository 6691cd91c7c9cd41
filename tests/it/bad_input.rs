//! Each kind of bad input is told by its own code, and stops nobody else.

use std::collections::BTreeSet;

use crate::support::{Repo, copy, errors, hydromesh, root, run, run_in, text};

fn fixtures() -> Vec<(String, std::path::PathBuf)> {
    let folder = root().join("tests/fixtures/bad");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .expect("listed")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path))
        .collect();
    found.sort();
    found
}

#[test]
fn each_fixture_is_told_by_its_code_alone_and_keeps_the_other_products() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 17, "{}", fixtures.len());
    for (name, path) in fixtures {
        let expected = std::fs::read_to_string(path.join("expected.txt")).expect("expected.txt");
        let ran = run(&["check", text(&path), "--format", "json"]);
        assert_eq!(ran.code, 1, "{name}: {} {}", ran.stdout, ran.stderr);
        let codes: BTreeSet<String> = errors(&ran.json()).into_iter().collect();
        assert_eq!(codes, BTreeSet::from([expected.trim().to_owned()]), "{name}");
        let blank = ran.json()["findings"].as_array().expect("findings").iter().any(|it| it["help"] == "");
        assert!(!blank, "{name}: a finding without help");
        // The others can be planned as if nothing were wrong.
        let state = tempfile::tempdir().expect("a folder");
        let plan = run(&["plan", text(&path), "--state", text(state.path()), "--format", "json"])
            .ends_with(0)
            .json();
        let created: BTreeSet<&str> = plan["changes"]
            .as_array()
            .expect("changes")
            .iter()
            .filter_map(|it| it["product"].as_str())
            .collect();
        assert!(created.is_superset(&BTreeSet::from(["shop/items", "shop/prices"])), "{name}: {created:?}");
        let broken = plan["broken"].as_array().expect("broken");
        // A policy that cannot be read stops deploys at the gate; the products themselves are right.
        assert_eq!(broken.is_empty(), name == "policy_syntax_error", "{name}: {broken:?}");
    }
}

#[test]
fn a_finding_names_file_and_line() {
    let path = root().join("tests/fixtures/bad/missing_column");
    run(&["check", text(&path)]).ends_with(1).says("; 1 error, 0 warnings");
    let findings = run(&["check", text(&path), "--format", "json"]).ends_with(1).json();
    let error =
        findings["findings"].as_array().expect("findings").iter().find(|it| it["severity"] == "error");
    let error = error.expect("an error");
    assert_eq!(error["file"], "domains/shop/totals/totals.sql");
    let sql = std::fs::read_to_string(path.join("domains/shop/totals/totals.sql")).expect("the query");
    let line = usize::try_from(error["line"].as_u64().expect("a line")).expect("small");
    let column = usize::try_from(error["column"].as_u64().expect("a column")).expect("small");
    let at = &sql.lines().nth(line - 1).expect("such a line")[column - 1..];
    let message = error["message"].as_str().expect("a message");
    let word: String = at.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    assert!(!word.is_empty() && message.contains(&word), "{message} does not name `{word}`");
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_is_refused_in_a_folder_and_in_a_commit() {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&root().join("mesh-repo-example"), folder.path());
    let link = folder.path().join("domains/support/articles/secret.sql");
    std::os::unix::fs::symlink("/etc/passwd", link).expect("a link");
    let here = run(&["check", text(folder.path()), "--format", "json"]).ends_with(1);
    assert_eq!(errors(&here.json()), ["HM-R001"]);
    assert!(!here.stdout.contains("root:"), "the link was followed");
    Repo::around(folder.path());
    let commit = run_in(folder.path(), &["check", "--rev", "main", "--format", "json"]).ends_with(1);
    assert_eq!(errors(&commit.json()), ["HM-R001"]);
    let finding = &commit.json()["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .find(|it| it["code"] == "HM-R001")
        .cloned();
    assert_eq!(finding.as_ref().expect("told")["file"], "domains/support/articles/secret.sql");
}

#[test]
fn a_broken_policy_is_told_with_its_place() {
    let path = root().join("tests/fixtures/bad/policy_syntax_error");
    let findings = run(&["check", text(&path), "--format", "json"]).ends_with(1).json();
    let finding =
        findings["findings"].as_array().expect("findings").iter().find(|it| it["code"] == "HM-P001").cloned();
    let finding = finding.expect("told");
    assert_eq!(finding["file"], "policies/owners.rego");
    assert!(finding["line"].as_u64().expect("a line") > 0);
}

#[test]
fn an_empty_folder_and_no_folder_are_not_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = run(&["check", text(folder.path()), "--format", "json"]).ends_with(1);
    assert_eq!(errors(&empty.json()), ["HM-M001"]);
    run(&["check", text(&folder.path().join("none"))]).ends_with(4).says("is not a folder");
}

#[test]
fn bytes_that_are_no_text_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&root().join("tests/fixtures/bad/unknown_key"), folder.path());
    let file = folder.path().join("domains/shop/prices/prices.sql");
    std::fs::write(&file, [b'S', 0xff, 0xfe, 0x00]).expect("written");
    let ran = run(&["check", text(folder.path()), "--format", "json"]).ends_with(1);
    assert!(errors(&ran.json()).contains(&"HM-Y002".to_owned()), "{}", ran.stdout);
}

#[test]
fn stdout_holds_data_alone() {
    // A closed pipe is a reader that has seen enough, not an error of ours.
    let mut child = hydromesh()
        .args(["check", "mesh-repo-example", "--format", "json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(0));
}
