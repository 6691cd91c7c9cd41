//! Branches that are merged while a preview of them lives: what it has computed is taken over, and nothing else is.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use hydromesh::fault::VARIABLE;
use serde_json::json;

use super::mesh::SALES_SQL;
use super::previews::{TOP, apply, daily, file, top};
use super::world::{PATIENCE, State, World};
use super::{DAILY, SALES};

/// SIGABRT: how a process ends that was told to die.
const ABORTED: i32 = 6;
const NO_ITALY: &str = "WHERE country <> 'IT'\n";

/// Returns an environment that is settled, with a reader of the daily sums.
fn parent(world: &World) -> State<'_> {
    world.commit("A reader", &top());
    let mut state = world.state("parent");
    state.start();
    state.settle();
    state
}

/// Returns the tables of an environment that computed everything itself.
fn calm(world: &World, name: &str) -> BTreeMap<String, String> {
    let mut calm = world.state(name);
    calm.start();
    calm.settle();
    assert_eq!(calm.end().0.code(), Some(0), "{}", calm.told());
    assert_eq!((taken(&calm, "daily"), taken(&calm, "top")), (0, 0));
    calm.contents()
}

/// Returns how many partitions the runs of a product took over; a whole table is one.
fn taken(state: &State<'_>, product: &str) -> u64 {
    let runs = state.json(&["runs", product, "--limit", "1000"]).expect("runs");
    let taken = runs["runs"].as_array().expect("runs").iter().map(|run| &run["taken_over"]);
    taken
        .filter(|taken| taken.is_object())
        .map(|taken| {
            assert!(taken["from"].as_str().is_some_and(|from| from.starts_with("preview/")), "{taken}");
            taken["partitions"].as_u64().expect("a number")
        })
        .sum()
}

/// Returns the data files of a preview's table.
fn files_of(state: &State<'_>, preview: &str, address: &str) -> Vec<PathBuf> {
    fn below(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path())
        {
            if entry.is_dir() {
                below(&entry, found);
            } else if entry.extension().is_some_and(|it| it == "parquet") {
                found.push(entry);
            }
        }
    }
    let mut found = Vec::new();
    below(&state.folder().join("previews").join(preview).join("lake").join(address), &mut found);
    found.retain(|path| !path.components().any(|part| part.as_os_str() == "_delta_log"));
    found.sort();
    found
}

#[test]
fn what_a_preview_computed_is_taken_over_once_its_branch_is_merged() {
    for format in ["delta", "iceberg"] {
        let world = World::new("5d").with_format(format);
        let mut state = parent(&world);
        world.branch("north", None, "Leave Italy out", &daily(NO_ITALY));
        apply(&world, &state, "north", &["--parent", "dev"]).ends_with(0);
        let before = files_of(&state, "north", DAILY);

        // Nobody has to ask for it. What the preview left out, and who reads that too, is computed.
        world.commit("Leave Italy out", &daily(NO_ITALY));
        state.settle();
        assert_eq!((taken(&state, "daily"), taken(&state, "top")), (7, 0), "{format}\n{}", state.told());
        assert_eq!(state.contents(), calm(&world, "calm"), "{format}");
        assert_eq!(files_of(&state, "north", DAILY), before, "nothing of it was moved");

        // Everything is told: by product, by run, in the run's own log.
        let shown = state.json(&["show", "daily"]).expect("shown");
        assert_eq!(shown["ports"][0]["taken_over"], json!({"preview/north": 7}), "{format}");
        state.ask(&["show", "daily"]).ends_with(0).says("7 partitions taken over from preview/north");
        state.ask(&["runs", "daily"]).ends_with(0).says("took over ");
        let runs = state.json(&["runs", "daily", "--limit", "1000"]).expect("runs");
        let runs = runs["runs"].as_array().expect("runs");
        let run = runs.iter().find(|run| run["taken_over"].is_object()).expect("a run took over");
        let run = run["run"].as_str().expect("its name");
        state.ask(&["logs", run]).ends_with(0).says("taken over from preview/north, computed at ");

        // The environment needs nothing of the preview.
        let contents = state.contents();
        state.ask(&["apply", "--drop", "--env", "preview/north"]).ends_with(0);
        assert_eq!(state.contents(), contents);
    }
}

#[test]
fn killed_between_copying_and_publishing_it_goes_on() {
    let world = World::new("5d");
    let mut state = parent(&world);
    world.branch("north", None, "Leave Italy out", &daily(NO_ITALY));
    let all = ["--parent", "dev", "--partitions", "all"];
    apply(&world, &state, "north", &all).ends_with(0);
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    world.commit("Leave Italy out", &daily(NO_ITALY));
    // Files are there that no version has; and then a version of which no fact tells.
    for point in ["lake.after-stage:2", "lake.after-commit:2"] {
        state.start_with(VARIABLE, point);
        let began = std::time::Instant::now();
        let died = loop {
            if let Some(ended) = state.ended() {
                break ended;
            }
            assert!(began.elapsed() < PATIENCE, "nothing came to {point}\n{}", state.told());
            std::thread::sleep(std::time::Duration::from_millis(50));
        };
        assert_eq!(died.signal(), Some(ABORTED), "{point}: {died}\n{}", state.told());
        let runs = state.json(&["runs", "daily"]).expect("runs");
        let running = runs["runs"].as_array().expect("runs").iter().any(|run| run["state"] == "running");
        assert!(running, "it died in a step of the merged product: {runs:#}");
    }
    state.start();
    state.settle();
    assert_eq!(state.contents(), calm(&world, "calm"));
    // All days, whichever attempt committed them, and the reader of all days with them.
    let shown = state.json(&["show", "daily"]).expect("shown");
    assert_eq!(shown["ports"][0]["taken_over"], json!({"preview/north": 20}), "{}", state.told());
    assert_eq!(taken(&state, "top"), 1);
    state.ask(&["why", "daily"]).ends_with(0).says("taken over from preview/north, computed at ");
    state.ask(&["why", "top"]).ends_with(0).says("taken over from preview/north, computed at ");
}

#[test]
fn what_is_torn_or_was_read_otherwise_is_computed() {
    let world = World::new("5d");
    let mut state = parent(&world);
    let branch = world.branch("north", None, "Leave Italy out", &daily(NO_ITALY));
    apply(&world, &state, "north", &["--parent", "dev"]).ends_with(0);
    let torn = files_of(&state, "north", DAILY).remove(3);
    let bytes = std::fs::read(&torn).expect("read");
    std::fs::write(&torn, &bytes[..bytes.len() / 2]).expect("cut");
    world.commit("Leave Italy out", &daily(NO_ITALY));
    state.settle();
    assert_eq!(taken(&state, "daily"), 6, "{}", state.told());
    assert_eq!(state.contents(), calm(&world, "first"));

    // Meanwhile the sales are others than those that the preview read.
    let no_france = "WHERE country <> 'FR'\n";
    world.branch("south", Some(&branch), "Leave France out", &daily(no_france));
    apply(&world, &state, "south", &["--parent", "dev"]).ends_with(0);
    let without = SALES_SQL.replace('\n', " WHERE country <> 'CH'\n");
    world.commit("Leave Switzerland out", &file("domains/shop/sales/sales.sql", &without));
    state.settle();
    world.commit("Leave France out", &daily(no_france));
    state.settle();
    assert_eq!(taken(&state, "daily"), 6, "nothing more: {}", state.told());
    let contents = state.contents();
    assert_eq!(contents, calm(&world, "second"));
    assert!(contents.contains_key(SALES) && contents.contains_key(TOP));
}
