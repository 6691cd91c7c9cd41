//! What each run said, kept in the state folder for a while: `logs/DOMAIN/PRODUCT/RUN.jsonl`, one JSON object a line.
//!
//! Whoever performs a run says it with `tracing`, inside a span of the run; a layer hands it to one thread, which writes. Nobody
//! waits for that thread: a line for which there is no room in its queue, or on the disk, is left out, and how many were is told.
//! Control and workers write to the same files, each line by one appending write. Nothing here is a fact.

mod files;
mod layer;
mod line;
mod mask;
mod span;
mod tail;
mod told;
mod writer;

pub use files::RunFiles;
pub use layer::RunLayer;
pub use line::{Level, Line};
pub use mask::safe_message;
pub use span::step;
pub(crate) use span::{attempt, note, quiet};
pub use tail::Tail;
pub(crate) use told::reads;
pub use told::{begun, ended, left};
pub use writer::{end, keep_in};
