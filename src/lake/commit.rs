//! What a commit carries, and the one judgement both formats make before committing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::LakeError;

/// A state of one table, totally ordered per table and growing with every commit.
///
/// Delta: the table version, for a table that was made anew counted on from the one before it. Iceberg: the sequence
/// number of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub i64);

/// Who commits and when, by the injected clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    pub epoch: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// What is recorded with a publish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitMeta {
    /// Idempotency key: what was published (port, partition, fingerprint, input versions).
    pub key: String,
    /// Fence: a commit is refused when the table has one with a higher epoch.
    pub writer_epoch: u64,
    /// Milliseconds since the Unix epoch, from the injected clock.
    pub at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// A stream pipeline's record, chained to the record it continues.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub pipeline: String,
    /// The pipeline's own record (source ranges, epoch, watermark); opaque here.
    pub record: Value,
    /// The record that must be the pipeline's newest in the table for this commit to be legal;
    /// `None` for the first.
    #[serde(default)]
    pub follows: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishMode {
    Append,
    /// Removes every file of this partition (`YYYY-MM-DD` for a date) and adds the staged ones.
    ReplacePartition(String),
    ReplaceAll,
    /// Removes every file of these partitions and adds nothing: they are no longer known, not even as empty.
    RemovePartitions(BTreeSet<String>),
    /// Removes these files, by path, and adds the staged ones, which hold the same rows: for readers nothing has changed.
    Rewrite(BTreeSet<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    AlreadyCommitted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Published {
    pub version: Version,
    pub outcome: Outcome,
}

impl CommitMeta {
    #[must_use]
    pub fn new(key: impl Into<String>, writer_epoch: u64, at_ms: i64) -> Self {
        CommitMeta { key: key.into(), writer_epoch, at_ms, checkpoint: None, properties: BTreeMap::new() }
    }

    #[must_use]
    pub fn with_checkpoint(mut self, checkpoint: Checkpoint) -> Self {
        self.checkpoint = Some(checkpoint);
        self
    }

    pub(super) fn writer(&self) -> Writer {
        Writer { epoch: self.writer_epoch, at_ms: self.at_ms }
    }

    /// Returns the digest of the key that the files of the commit are named by.
    #[must_use]
    pub fn key_digest(&self) -> String {
        short_digest(self.key.as_bytes())
    }
}

/// What the snapshot to be committed on remembers of earlier commits.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    pub epoch: Option<u64>,
    /// The version that carries this very key, for commits without checkpoint.
    pub key_at: Option<Version>,
    /// The newest commit of the checkpoint's pipeline.
    pub pipeline_last: Option<(Version, CommitMeta)>,
}

/// Decides whether `meta` may be committed on a snapshot that remembers `known`.
///
/// Returns the version that already carries the commit, if one does. The key is looked at before
/// the fence: that a stale writer's work is already there is good news for it, and harmless.
pub(super) fn admit(meta: &CommitMeta, known: &Remembered) -> Result<Option<Version>, LakeError> {
    if let Some(at) = known.key_at {
        return Ok(Some(at));
    }
    let last = known.pipeline_last.as_ref();
    if let Some((at, _)) = last.filter(|(_, committed)| committed.key == meta.key) {
        return Ok(Some(*at));
    }
    check_fence(meta.writer_epoch, known.epoch)?;
    if let Some(checkpoint) = &meta.checkpoint {
        let found = last.and_then(|(_, committed)| committed.checkpoint.as_ref()).map(|c| &c.record);
        if found != checkpoint.follows.as_ref() {
            let show =
                |value: Option<&Value>| value.map_or_else(|| "no checkpoint".to_owned(), Value::to_string);
            return Err(LakeError::ChainBroken {
                pipeline: checkpoint.pipeline.clone(),
                expected: show(checkpoint.follows.as_ref()),
                found: show(found),
            });
        }
    }
    Ok(None)
}

pub(super) fn check_fence(offered: u64, current: Option<u64>) -> Result<(), LakeError> {
    match current {
        Some(current) if current > offered => Err(LakeError::Fenced { offered, current }),
        _ => Ok(()),
    }
}

/// How often a commit is tried against a newer snapshot before the caller hears of contention.
/// Each loss means another commit was made, so this bounds the commits that may pass in between.
pub(super) const fn retry_limit() -> usize {
    32
}

/// The first 16 hex digits of SHA-256: 64 bits, enough to tell the keys of one table apart.
pub(super) fn short_digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..8])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chained(key: &str, follows: Option<Value>, record: Value) -> CommitMeta {
        CommitMeta::new(key, 3, 0).with_checkpoint(Checkpoint { pipeline: "p".into(), record, follows })
    }

    #[test]
    fn a_committed_key_wins_over_fence_and_chain() {
        let known = Remembered { epoch: Some(9), key_at: Some(Version(4)), pipeline_last: None };
        assert_eq!(admit(&CommitMeta::new("k", 1, 0), &known).unwrap(), Some(Version(4)));
    }

    #[test]
    fn equal_epochs_pass_and_lower_ones_are_fenced() {
        assert!(check_fence(3, Some(3)).is_ok());
        assert!(check_fence(3, None).is_ok());
        assert!(matches!(check_fence(2, Some(3)), Err(LakeError::Fenced { offered: 2, current: 3 })));
    }

    #[test]
    fn a_checkpoint_must_follow_the_one_in_the_table() {
        let last = chained("a", None, json!({"end": 10}));
        let known = Remembered { epoch: Some(3), key_at: None, pipeline_last: Some((Version(1), last)) };
        assert_eq!(admit(&chained("b", Some(json!({"end": 10})), json!({"end": 20})), &known).unwrap(), None);
        let skipped = admit(&chained("b", Some(json!({"end": 11})), json!({"end": 20})), &known);
        assert!(matches!(skipped, Err(LakeError::ChainBroken { .. })));
        let first = admit(&chained("b", None, json!({"end": 20})), &known);
        assert!(matches!(first, Err(LakeError::ChainBroken { .. })));
        assert_eq!(admit(&chained("a", None, json!({"end": 10})), &known).unwrap(), Some(Version(1)));
    }
}
