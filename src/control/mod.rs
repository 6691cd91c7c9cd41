//! Turns the world into events and performs the effects that core decides.

mod ahead;
mod bench;
mod beside;
mod copy;
mod desired;
mod error;
mod gate_input;
mod hands;
mod hint;
mod jobs;
mod judge;
mod kept;
mod ledger;
mod observe;
mod poll;
mod preview;
mod run;
mod seat;
mod statuses;
mod telling;
mod trusted;
mod turn;
mod watch;

pub use ahead::{AheadError, Waiting};
pub use copy::CopyError;
pub use desired::{Reading, environments, read, shapes};
pub use error::UpError;
pub use gate_input::GateInputs;
pub use hint::Hints;
pub use judge::Judge;
pub use kept::{Kept, KeptError};
pub use ledger::{LedgerError, append, replay};
pub use preview::{Built, NOT_BUILT, PreviewOptions, preview};
pub use run::{Around, UpOptions, Upward, lake_folder, up};
pub use trusted::{SignersError, Trust, begin_at, findings};
pub use watch::{Head, Watcher};
