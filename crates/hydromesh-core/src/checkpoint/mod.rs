//! The offset-chained commit: which source ranges a stream commit may carry.

use serde::{Deserialize, Serialize};

/// What a stream's table commit carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Counts epochs.
    pub epoch: u64,
}
