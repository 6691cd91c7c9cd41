//! A query that would take hours: it is stopped at its pipeline's `timeout`, its owners are told, and nobody else waits.

use serde_json::Value;

use super::mesh::{self, Files};
use super::of;
use super::world::World;

const PIPELINE: &str = "domains/shop/slow/pipeline.yaml";
const SQL: &str = "domains/shop/slow/slow.sql";

/// Every sale with every other, four times over: some 10^12 rows to count.
const ENDLESS: &str = "SELECT a.country, COUNT(*) AS sales FROM sales a CROSS JOIN sales b CROSS JOIN sales c \
                       CROSS JOIN sales d CROSS JOIN sales e GROUP BY a.country\n";

fn slow() -> Files {
    let mut files = mesh::reader("slow");
    let pipeline = files[PIPELINE].clone().expect("a pipeline");
    let limits = "timeout: 2s\nretry: {attempts: 2, backoff: {from: 1s, to: 1s}}\n";
    files.insert(PIPELINE.to_owned(), Some([pipeline, limits.into()].concat()));
    files.insert(SQL.to_owned(), Some(ENDLESS.into()));
    files
}

#[test]
fn a_query_that_does_not_end_is_stopped_told_and_holds_up_nobody() {
    let world = World::new("10d");
    let mut state = world.state("slow");
    state.start();
    state.settle();
    world.commit("Add what does not end", &slow());
    let run = |state: &super::State<'_>| -> Result<Value, String> {
        let runs = state.json(&["runs", "shop/slow"])?;
        Ok(runs["runs"].as_array().expect("runs").clone().into())
    };
    state.wait("two attempts that failed", |state| {
        let runs = run(state)?;
        let failed = runs.as_array().expect("runs").iter().filter(|it| it["state"] == "failed").count();
        if failed == 2 { Ok(()) } else { Err(runs.to_string()) }
    });
    state.ask(&["runs", "shop/slow"]).ends_with(0).says("HM-X011");
    state.wait("a mail about it", |state| {
        let mails = state.mails();
        if mails.iter().any(|it| it.contains("shop/slow")) { Ok(()) } else { Err(format!("{mails:?}")) }
    });
    state.ask(&["why-not", "shop/slow"]).says("it took longer than `timeout: 2s`");
    // The others are as they were, and a quick query mends it.
    let list = state.json(&["list"]).expect("a list");
    assert_eq!(of(&list, "shop/daily")["status"], "ok");
    let quick = mesh::reader("slow")[SQL].clone();
    world.commit("Count once", &[(SQL.to_owned(), quick)].into());
    state.settle();
    assert_eq!(of(&state.json(&["list"]).expect("a list"), "shop/slow")["status"], "ok");
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}
