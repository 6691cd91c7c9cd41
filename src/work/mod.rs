//! Who performs steps: threads of this process, or processes of their own that take them from the store's board.
//!
//! Control hands every step to its [`Desk`] and hears of it through events, wherever it is performed. A process with
//! the role work or stream is a [`worker`]: it and control meet in store and lake alone, so that either can be
//! killed without the other losing anything but the attempt that was under way.

mod desk;
mod perform;
mod priority;
mod role;
mod worker;

pub use desk::{Desk, HEARTBEAT_MS};
pub use role::{Role, Roles};
pub use worker::{Worker, work_runtime};

use hydromesh_core::control::Event;
use hydromesh_core::ledger::{Fact, RunOutcome};
use serde::{Deserialize, Serialize};

/// What a worker says of a step, as it lies on the board.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    /// Facts on the way.
    Progress { facts: Vec<Fact> },
    /// The end.
    Finished { facts: Vec<Fact>, outcome: RunOutcome, took_ms: i64 },
}

impl Said {
    fn event(self, run: String) -> Event {
        match self {
            Self::Progress { facts } => Event::Progress { run, facts },
            Self::Finished { facts, outcome, took_ms } => Event::Finished { run, facts, outcome, took_ms },
        }
    }
}
