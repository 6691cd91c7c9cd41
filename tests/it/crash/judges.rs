//! Who judges: the gate's own process beside a controller, and the rules that a change is judged by.

use std::time::{Duration, Instant};

use super::mesh::{self, Files};
use super::world::World;
use crate::gate::bomb;

/// Returns a change that writes a file.
fn file((path, text): (String, String)) -> Files {
    [(path, Some(text.into_bytes()))].into()
}

/// Returns the workers of the gate that a process began.
fn workers(of: u32) -> Vec<u32> {
    let numbers = std::fs::read_dir("/proc")
        .expect("listed")
        .filter_map(|entry| entry.expect("an entry").file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|number| {
            let status = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
            let parent = status.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
            let words = std::fs::read_to_string(format!("/proc/{number}/cmdline")).unwrap_or_default();
            parent == Some(of) && words.contains("gate-worker")
        })
        .collect()
}

#[test]
fn a_rule_that_takes_all_memory_is_denied_and_the_controller_goes_on_and_takes_its_worker_along() {
    let world = World::new("4d");
    world.commit("Batches alone", &mesh::without("events"));
    world.commit("Guard", &file(bomb("shop", "input.product.name == \"wide\"")));
    let mut state = world.state("bomb").with(&["--poll", "0.5"]);
    state.start();
    state.settle();
    let controller = state.process();
    let before = workers(controller);
    assert_eq!(before.len(), 1, "one worker for all questions");

    // One product of it is denied; the other one, of the same commit, is not.
    let mut both = mesh::reader("wide");
    both.extend(mesh::reader("narrow"));
    let commit = world.commit("Two readers", &both);
    assert_eq!(state.outcome(&commit), "denied");
    let why = state.ask(&["policy", "explain", "shop/wide"]).ends_with(0).stdout;
    assert!(
        why.contains("policy-unanswered") && why.contains("data.domain.shop.bomb.deny took more memory"),
        "{why}"
    );
    state.wait("the other product", |state| match state.table("shop/narrow.narrow").1 {
        0 => Err("no rows".to_owned()),
        rows => Ok(rows),
    });
    // Nor is anybody later.
    world.commit("A third reader", &mesh::reader("third"));
    state.wait("the third product", |state| match state.table("shop/third.third").1 {
        0 => Err("no rows".to_owned()),
        rows => Ok(rows),
    });
    state.alive();
    assert_eq!(state.process(), controller);
    let after = workers(controller);
    assert!(after.len() == 1 && after != before, "another worker: {before:?}, {after:?}");

    state.kill();
    let began = Instant::now();
    while std::path::Path::new(&format!("/proc/{}", after[0])).exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "the worker outlives its controller");
        std::thread::sleep(Duration::from_millis(50));
    }
}
