//! Help, usage and explanations.

use crate::support::{hydromesh, run, text};

/// Every verb, with those below it.
const VERBS: &[&[&str]] = &[
    &["check"],
    &["plan"],
    &["diff"],
    &["new"],
    &["new", "domain"],
    &["new", "product"],
    &["up"],
    &["apply"],
    &["status"],
    &["list"],
    &["show"],
    &["quality"],
    &["runs"],
    &["why"],
    &["why-not"],
    &["query"],
    &["lineage"],
    &["policy"],
    &["policy", "test"],
    &["policy", "eval"],
    &["policy", "explain"],
    &["slo"],
    &["slo", "status"],
    &["alerts"],
    &["alerts", "list"],
    &["alerts", "why"],
    &["alerts", "silence"],
    &["models"],
    &["run"],
    &["retry"],
    &["backfill"],
    &["produce"],
    &["backup"],
    &["restore"],
    &["doctor"],
    &["explain"],
    &["completions"],
];

#[test]
fn each_verb_explains_itself_on_stdout() {
    let all = run(&["--help"]).ends_with(0).stdout;
    for verb in VERBS {
        let mut args = verb.to_vec();
        args.push("--help");
        let help = run(&args).ends_with(0);
        assert!(help.stdout.contains("Usage: hydromesh"), "{verb:?}: {}", help.stdout);
        assert_eq!(help.stderr, "", "{verb:?}");
        // An option without a word on it helps nobody.
        let options =
            help.stdout.split_once("\nExample").map_or(help.stdout.as_str(), |(options, _)| options);
        let lines: Vec<&str> = options.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with("--")) {
            let next = lines.get(at + 1).copied().unwrap_or_default();
            let told = line.trim().split("  ").count() > 1 || !next.trim().is_empty();
            assert!(told, "{verb:?}: {line}");
        }
        assert!(all.contains(verb[0]), "the overview lacks {verb:?}");
    }
}

#[test]
fn wrong_use_ends_with_2_and_leaves_stdout_empty() {
    for args in [
        &["shw"] as &[&str],
        &["check", "--nope"],
        &[],
        &["runs", "--limit", "many"],
        &["explain", "HM-Z999"],
    ] {
        let ran = run(args).ends_with(2);
        assert_eq!(ran.stdout, "", "{args:?}");
        assert_ne!(ran.stderr, "", "{args:?}");
    }
    run(&["chek"]).ends_with(2).says("check");
    run(&["up", "--once"]).ends_with(2).says("hydromesh up --repo . --env dev");
}

#[test]
fn completions_may_be_cut_short() {
    run(&["completions", "bash"]).ends_with(0).says("hydromesh");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = hydromesh().args(["completions", "bash"]).stdout(writer).status();
    assert_eq!(status.expect("it starts").code(), Some(0));
}

#[test]
fn every_code_that_explain_lists_is_explained() {
    let list = run(&["explain"]).ends_with(0).stdout;
    let codes: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(codes.len() > 60, "{}", codes.len());
    for code in codes {
        let page = run(&["explain", code]).ends_with(0).stdout;
        assert!(page.starts_with(&format!("# {code}: ")), "{page}");
        assert!(page.contains("## Cause") && page.contains("## Fix"), "{code}");
    }
    run(&["explain", "hm-m005"]).ends_with(0).says("HM-M005");
}

#[test]
fn verbs_that_need_a_ledger_say_where_it_comes_from() {
    let state = tempfile::tempdir().expect("a folder");
    let state = text(state.path());
    for verb in [
        &["list"] as &[&str],
        &["status"],
        &["runs"],
        &["show", "a/b"],
        &["why", "a/b"],
        &["query", "SELECT 1"],
        &["backup", "/tmp/nothing-comes-here"],
    ] {
        let mut args = verb.to_vec();
        args.extend(["--state", state]);
        let ran = run(&args).ends_with(4);
        ran.says("hydromesh up");
        assert_eq!(ran.stdout, "", "{verb:?}");
    }
    // Looking must not leave anything behind.
    assert_eq!(std::fs::read_dir(state).expect("listed").count(), 0);
}
