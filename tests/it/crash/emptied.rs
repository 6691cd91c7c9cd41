//! A commit without any product: far more often an accident than a wish, so nothing of it happens, and everybody is told why.

use super::mesh;
use super::world::World;
use crate::support::text;

#[test]
fn a_commit_that_would_retire_everything_is_held_and_everybody_is_told_why() {
    const WHY: &str = "it would retire every product; delete domains one by one if that is meant";
    let world = World::new("10d");
    let mut state = world.state("emptied");
    state.start();
    state.settle();
    let before = state.contents();

    let files = mesh::files(mesh::today(), "10d").into_keys();
    let wiped = files.filter(|path| path.starts_with("domains/")).map(|path| (path, None)).collect();
    let commit = world.commit("Wipe", &wiped);
    assert_eq!(state.outcome(&commit), "held");
    state.ask(&["status"]).says(WHY);
    let status = state.json(&["status"]).expect("a status");
    assert_eq!(status["commit"]["why"], WHY, "{status:#}");
    assert!(!state.ask(&["status"]).stdout.contains("in part"), "nothing of it was taken over");
    let plan = state.plan().expect("a plan");
    assert_eq!(plan["held"], WHY, "{plan:#}");
    let repository = world.repository();
    state
        .ask(&["plan", text(&repository), "--rev", "main"])
        .says("the commit is held, and nothing of this happens");
    assert_eq!(state.contents(), before);

    // Taken back, there is nothing to do.
    let back = mesh::files(mesh::today(), "10d").into_iter().filter(|(path, _)| path.starts_with("domains/"));
    let back = world.commit("Take it back", &back.collect());
    assert_eq!(state.outcome(&back), "applied");
    state.settle();
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}
