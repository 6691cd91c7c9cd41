//! What a stream commit says about itself.

use serde::{Deserialize, Serialize};

use crate::time::Millis;

/// The version of the stored record.
pub const CHECKPOINT_FORMAT: u32 = 1;

/// The offsets `[start, end)` of one source partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceRange {
    /// Source partition.
    pub partition: i32,
    /// First offset in the commit.
    pub start: i64,
    /// First offset after the commit; equal to `start` when the partition had nothing new.
    pub end: i64,
}

/// The record one stream commit leaves in the table it writes.
///
/// It names every partition of the topic, also those without news: the last record alone must say where to resume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// The pipeline, stable over restarts and deploys.
    pub pipeline: String,
    /// Counts the commits of the pipeline.
    pub epoch: u64,
    /// Rises with every change of the active writer.
    pub fence: u64,
    /// The identity of the topic, new when it is deleted and created again under the same name.
    pub topic_id: String,
    /// The offsets in this commit.
    pub ranges: Vec<SourceRange>,
    /// Fingerprint of the definition that computed it.
    pub definition: String,
    /// The watermark after this commit, in milliseconds UTC.
    pub watermark_ms: Option<Millis>,
    /// [`CHECKPOINT_FORMAT`].
    pub format: u32,
}
