//! Who performs steps: threads of this process, or processes of their own that take them off the board.
//!
//! Control hands every step to its [`Desk`] and hears of it through events, wherever it is performed. A process with
//! the role work or stream is a [`worker`]: it and control meet on the board and in the lake alone, so that either can be
//! killed without the other losing anything but the attempt that was under way.

mod board;
mod desk;
mod perform;
mod priority;
mod role;
mod worker;

pub use board::{Board, BoardError};
pub use desk::{Desk, HEARTBEAT_MS};
pub use role::{Role, Roles};
pub use worker::{Worker, work_runtime};

use hydromesh_core::control::Event;
use hydromesh_core::ledger::{Fact, RunOutcome};
use serde::{Deserialize, Serialize};

use crate::apply::Job;

/// A step as it lies on the board.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    /// The controller's epoch when it was written: every table commit carries it.
    epoch: u64,
    job: Job,
    /// The step's place in its trace, where traces are recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
}

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
