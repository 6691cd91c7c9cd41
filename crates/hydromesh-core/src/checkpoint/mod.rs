//! The offset-chained commit: which source ranges a stream commit may carry.
//!
//! Every commit into a table records the source ranges it holds, in the same atomic commit. A commit is legal only if
//! its ranges start where those of the last record end. A lost answer, a changed job id, an old checkpoint, a second
//! writer or a re-created topic then cannot lose or double a row: each shows as a broken chain.

mod decide;
mod record;

pub use decide::{CommitDecision, Refusal, Resume, ResumeError, decide_commit, resume};
pub use record::{CHECKPOINT_FORMAT, CheckpointRecord, SourceRange};
