//! A controller that dies at every named point, and goes on as if nothing had been.

use std::os::unix::process::ExitStatusExt as _;

use hydromesh::fault::{POINTS, VARIABLE};

use super::world::World;
use super::{Messages, SALES, undisturbed};

/// SIGABRT: how a process ends that was told to die.
const ABORTED: i32 = 6;

/// What is watched: a backfill and a stream, from the first start to an orderly end.
struct Scenario {
    format: &'static str,
    world: World,
    messages: Messages,
    calm: std::collections::BTreeMap<String, String>,
}

impl Scenario {
    fn new(format: &'static str) -> Self {
        let world = World::new("10d").with_format(format);
        let messages = Messages::new(world.now_ms);
        let calm = undisturbed(&world, &messages);
        Self { format, world, messages, calm }
    }

    /// Plays it with a death at the n-th passing of a point; returns whether that came.
    ///
    /// # Panics
    ///
    /// When the process that follows does not come to the same tables.
    fn play(&self, point: &str, nth: u64) -> bool {
        let mut state = self.world.state(&format!("{point}-{nth}"));
        state.produce(&self.messages.lines);
        state.start_with(VARIABLE, &format!("{point}:{nth}"));
        let died = loop {
            if let Some(ended) = state.ended() {
                break ended;
            }
            if state.settled().is_ok() && self.messages.all_in(&state).is_ok() {
                break state.end().0;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        };
        let reached = died.signal() == Some(ABORTED);
        assert!(reached || died.success(), "{point}: {died}\n{}", state.told());
        // After an orderly end too: starting is recovering.
        state.start();
        state.settle();
        self.messages.wait_for_all(&mut state);
        assert_eq!(state.contents(), self.calm, "after a death at {point}, passed {nth} times");
        assert_eq!(state.end().0.code(), Some(0), "{point}: {}", state.told());
        println!(
            "{point} on {}, passed {nth} times: {}",
            self.format,
            if reached { "died, same tables" } else { "never came" }
        );
        state.remove();
        reached
    }
}

/// Names what is played: nothing for one death, `all` for each point on both formats (`make crash`, half an hour).
const ASKED: &str = "HYDROMESH_CRASH_POINTS";

#[test]
fn a_death_anywhere_leaves_the_same_tables() {
    if std::env::var_os(ASKED).is_none() {
        // Between a commit and the fact that tells of it.
        let scenario = Scenario::new("delta");
        assert!(scenario.calm.contains_key(SALES));
        assert!(scenario.play("lake.after-commit", 3));
        return;
    }
    for format in ["delta", "iceberg"] {
        let scenario = Scenario::new(format);
        for point in POINTS {
            // At its first passing it must come; later where it comes.
            for nth in [1, 2, 7] {
                let reached = scenario.play(point, nth);
                assert!(reached || nth > 1, "nothing comes to {point}");
                if !reached {
                    break;
                }
            }
        }
    }
}
