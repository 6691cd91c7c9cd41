//! `plan` on an environment where nothing runs yet.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{copy, edit, example, run, text};

fn plan(args: &[&str]) -> Value {
    let state = tempfile::tempdir().expect("a folder");
    let example = example();
    let mut all = vec!["plan", text(&example), "--state", text(state.path()), "--format", "json"];
    all.extend_from_slice(args);
    run(&all).ends_with(0).json()
}

#[test]
fn the_first_plan_creates_nine_products_inputs_before_readers() {
    let plan = plan(&[]);
    let changes = plan["changes"].as_array().expect("changes");
    assert!(changes.iter().all(|change| change["kind"] == "create"), "{changes:#?}");
    let order: BTreeMap<&str, usize> =
        changes.iter().enumerate().map(|(at, it)| (it["product"].as_str().expect("a product"), at)).collect();
    assert_eq!(order.len(), 9);
    let lineage = run(&["lineage", "--path", text(&example()), "--format", "json"]).ends_with(0).json();
    let edges = lineage["edges"].as_array().expect("edges");
    assert!(edges.len() >= 6, "{edges:?}");
    for edge in edges {
        let (from, to) = (edge["from"].as_str().expect("from"), edge["to"].as_str().expect("to"));
        assert!(order[from] < order[to], "{to} is planned before {from}, which it reads");
    }
    assert_eq!(plan["broken"], serde_json::json!([]));
}

#[test]
fn the_clock_decides_how_many_partitions_there_are() {
    let partitions = |clock: &str| -> u64 {
        let plan = plan(&["--clock", clock]);
        let changes = plan["changes"].as_array().expect("changes").clone();
        let orders = changes.into_iter().find(|it| it["product"] == "commerce/orders").expect("planned");
        orders["partitions"]["commerce/orders.orders"].as_u64().expect("a number")
    };
    // The first partition is 3 August; a day counts once it has ended.
    assert_eq!(partitions("2026-08-03T23:59:59Z"), 0);
    assert_eq!(partitions("2026-08-04T00:00:00Z"), 1);
    assert_eq!(partitions("2026-11-01T06:00:00Z"), 90);
    run(&["plan", "mesh-repo-example", "--clock", "yesterday"]).ends_with(2).says("2026-11-01T06:00:00Z");
}

#[test]
fn pending_changes_are_an_exit_code_only_when_asked_for() {
    let state = tempfile::tempdir().expect("a folder");
    let state = text(state.path());
    run(&["plan", "mesh-repo-example", "--state", state]).ends_with(0);
    run(&["plan", "mesh-repo-example", "--state", state, "--exit-code"]).ends_with(1);
    let markdown = run(&["plan", "mesh-repo-example", "--state", state, "--format", "markdown"]).ends_with(0);
    markdown.says("| create | `commerce/orders` |");
}

#[test]
fn the_gate_is_asked_before_anything_is_pushed() {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&example(), folder.path());
    let state = tempfile::tempdir().expect("a folder");
    let plan = |format: &str| {
        let args = ["plan", text(folder.path()), "--state", text(state.path()), "--gate", "--format", format];
        run(&args)
    };
    let answers = plan("json").ends_with(0).json()["gate"].clone();
    let answers = answers.as_array().expect("answers");
    assert_eq!(answers.len(), 9);
    assert!(answers.iter().all(|it| it["allow"] == true), "{answers:#?}");
    let contract = folder.path().join("domains/commerce/daily-revenue/daily_revenue.odcs.yaml");
    let old = std::fs::read_to_string(&contract).expect("read");
    let (kept, promises) = old.split_once("slaProperties:").expect("promises something");
    edit(&contract, &format!("slaProperties:{promises}"), "");
    assert_eq!(std::fs::read_to_string(&contract).expect("read"), kept);
    let answers = plan("json").ends_with(3).json()["gate"].clone();
    let denied: Vec<&Value> =
        answers.as_array().expect("answers").iter().filter(|it| it["allow"] == false).collect();
    assert_eq!(denied.len(), 1, "{denied:#?}");
    assert_eq!(denied[0]["product"], "commerce/daily-revenue");
    assert_eq!(denied[0]["violations"][0]["rule"], "slo-present");
    plan("human").ends_with(3).says("gate: 8 allowed, 1 denied");
    plan("markdown").ends_with(3).says("| deny | `commerce/daily-revenue` | slo-present:");
}
