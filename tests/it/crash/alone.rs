//! A controller that ends by itself, and verbs that stand in for one while none runs.

use std::time::Instant;

use hydromesh::clock::rfc3339;
use serde_json::Value;

use super::mesh::{self, DAYS};
use super::world::{PATIENCE, State, World};
use super::{Dice, SALES};
use crate::support::{Ran, run};

/// Runs a controller until nothing is left to do, at an instant.
fn once(state: &State<'_>, clock: &str) -> Ran {
    let mut args = state.up();
    args.extend(["--once", "--clock", clock, "--format", "json"].map(str::to_owned));
    run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Returns the hash of a product's only table, as the binary tells it.
fn hash(state: &State<'_>, product: &str) -> Value {
    let shown = state.json(&["show", product, "--hash"]).expect("shown");
    let hash = shown["ports"][0]["hash"].clone();
    assert_eq!(hash.as_str().map(str::len), Some(64), "{shown:#}");
    hash
}

/// Returns a world without a stream, which a clock that stands still would keep from ever committing anything.
fn batches(chunk: &str) -> (World, String) {
    let world = World::new(chunk);
    world.commit("Batches alone", &mesh::without("events"));
    let clock = rfc3339(world.now_ms);
    (world, clock)
}

#[test]
fn a_backfill_without_a_controller_is_killed_twice_and_ends_with_the_same_rows() {
    let (world, clock) = batches("1d");
    let state = world.state("alone");
    let first = once(&state, &clock).ends_with(0).json();
    assert_eq!((&first["commit"]["outcome"], &first["failing"]), (&"applied".into(), &0.into()), "{first}");
    let hashes = [hash(&state, "shop/sales"), hash(&state, "shop/daily")];
    assert_eq!(state.contents()[SALES], hashes[0], "as the lake tells it");
    let again = once(&state, &clock).ends_with(0).json();
    assert_eq!(again["succeeded"], 0, "nothing was left to do: {again}");

    // What is pushed now is none of a backfill's business.
    let pushed = world.commit("Deny", &mesh::reader("secret"));
    let (from, to) = mesh::days(mesh::today());
    let backfill =
        ["backfill", "shop/sales", "--from", &from, "--to", &to, "--clock", &clock, "--key", "all"];
    let (table, before, mut dice) = (state.table(SALES), state.runs_of("shop/sales"), Dice::new());
    let days = usize::try_from(DAYS).expect("few");
    assert_eq!(before, days, "a run a day");
    for round in 1..=2 {
        let mut child = state.spawn_verb(&backfill);
        let began = Instant::now();
        while state.runs_of("shop/sales") < before + round * 3 {
            assert!(child.try_wait().expect("asked").is_none(), "it ended\n{}", state.told());
            assert!(began.elapsed() < PATIENCE, "{}", state.told());
        }
        dice.linger(150);
        child.kill().expect("killed");
        child.wait().expect("gone");
    }
    let killed = state.runs_of("shop/sales");
    assert!(killed < before + days, "killed too late to tell");
    let done = state.ask(&[&backfill[..], &["--format", "json"]].concat()).ends_with(0).json();
    assert_eq!((&done["id"], &done["failing"]), (&"all".into(), &0.into()), "{done}");
    assert_eq!(done["answer"]["accepted"], true, "{done}");
    // What was computed before its death is not computed again, but for what was under way.
    let runs = state.runs_of("shop/sales");
    assert!((before + days..=before + days + 4).contains(&runs), "{runs} runs");
    assert_eq!([hash(&state, "shop/sales"), hash(&state, "shop/daily")], hashes);
    assert_eq!(state.table(SALES), table, "the same rows of the same inputs are the same commits");
    state.ask(&["logs", "shop/sales"]).ends_with(0).says("staged");
    // A backlog can be put off by itself, and goes on where it was.
    state.ask(&["pause", "shop/sales", "--backfills"]).ends_with(0);
    let off = ["backfill", "shop/sales", "--from", &from, "--to", &to, "--clock", &clock, "--key", "off"];
    let newest = state.runs_of("shop/sales");
    state.ask(&off).ends_with(0);
    assert_eq!(state.runs_of("shop/sales"), newest + 1, "the newest day alone");
    state.ask(&["list"]).ends_with(0).says(", backfills paused");
    state.ask(&["why-not", "shop/sales"]).ends_with(0).says("hydromesh resume shop/sales");
    state.ask(&["resume", "shop/sales"]).ends_with(0);
    state.ask(&[&backfill[..8], &["--key", "on"]].concat()).ends_with(0);
    assert!(state.runs_of("shop/sales") >= newest + days, "the rest");
    assert_eq!([hash(&state, "shop/sales"), hash(&state, "shop/daily")], hashes);
    let status = state.json(&["status"]).expect("a status");
    assert_ne!(status["commit"]["commit"], pushed.as_str(), "a backfill deploys nothing");
    assert_eq!((&status["controller"], &status["runs"]["running"]), (&"stopped".into(), &0.into()));

    // The next controller sees the push, and says by its exit code that rules denied it.
    let denied = once(&state, &clock).ends_with(3).json();
    assert_eq!(denied["commit"]["commit"], pushed.as_str(), "{denied}");
}

#[test]
fn a_step_that_fails_for_good_shows_in_the_exit_code_and_a_command_can_wait() {
    let (world, clock) = batches("4d");
    let state = world.state("failing");
    once(&state, &clock).ends_with(0);
    let before = hash(&state, "shop/sales");
    world.commit("Sell twice", &mesh::doubled());
    let failed = once(&state, &clock).ends_with(1).json();
    assert!(failed["failing"].as_u64() > Some(0), "{failed}");
    assert_eq!(hash(&state, "shop/sales"), before, "what was good stays");
    state.json(&["runs", "--failed"]).expect("runs");

    let later = state.ask(&["run", "shop/daily", "--later", "--key", "later"]).ends_with(0);
    later.says("the command waits for the next one");
    // Whoever stands in answers all that waits; the product that fails does so again.
    let retried = state.ask(&["retry", "shop/sales", "--clock", &clock, "--format", "json"]).ends_with(1);
    let retried = retried.json();
    assert_eq!((&retried["answer"]["accepted"], &retried["failing"]), (&true.into(), &failed["failing"]));
    assert_eq!(state.json(&["status"]).expect("a status")["commands_waiting"], 0);
    state.ask(&["run", "shop/none"]).ends_with(2).says("there is no product");

    // Nothing says how the controller was started: the command waits, as it does with --later.
    let note = state.folder().join("controller.json");
    std::fs::write(&note, "{").expect("written");
    state.ask(&["run", "shop/daily"]).ends_with(4).says("HM-X013");
    std::fs::remove_file(&note).expect("removed");
    state.ask(&["run", "shop/daily"]).ends_with(0).says("the command waits for the next one");
}
