//! The files of a Delta log, as they lie there: which versions can be read, and cutting off those that nobody keeps.
//!
//! A log that was cut begins with a checkpoint. The commit that made the table stays under another name ([`FIRST`]), because it alone
//! says for certain what is added to the table's versions.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::damage::is_parquet;
use super::delta::{BASE, CHECKPOINT};
use super::fs::{remove_if_there, sync_dir, sync_file};
use super::{Keep, LakeError, Version};

/// The commit that made the table, of a log that was cut. Readers pass over names that begin with a dot.
const FIRST: &str = ".first.json";

/// What a Delta log consists of, by Delta's own numbers.
#[derive(Debug, Default)]
pub(super) struct Log {
    folder: PathBuf,
    pub commits: BTreeSet<u64>,
    pub checkpoints: BTreeSet<u64>,
}

impl Log {
    /// Returns the log of a table without a look at it: the names of its files.
    pub fn at(table: &Path) -> Self {
        Self { folder: table.join("_delta_log"), ..Self::default() }
    }

    /// Lists the log of a table; one without a log has nothing.
    pub fn of(table: &Path) -> Result<Self, LakeError> {
        let mut log = Self::at(table);
        let entries = match std::fs::read_dir(&log.folder) {
            Err(source) if source.kind() == ErrorKind::NotFound => return Ok(log),
            listed => listed.map_err(|source| LakeError::io("list", &log.folder, source))?,
        };
        for entry in entries {
            let name = entry.map_err(|source| LakeError::io("list", &log.folder, source))?.file_name();
            let name = name.to_string_lossy();
            let Some((version, rest)) = name.split_once('.') else { continue };
            let Ok(version) = version.parse::<u64>() else { continue };
            match rest {
                "json" => _ = log.commits.insert(version),
                "checkpoint.parquet" => _ = log.checkpoints.insert(version),
                _ => {}
            }
        }
        Ok(log)
    }

    /// Returns whether one version is among those that can be read.
    pub fn has(&self, version: u64) -> bool {
        let oldest = if self.commits.contains(&0) { Some(&0) } else { self.checkpoints.first() };
        let newest = self.commits.last().max(self.checkpoints.last());
        oldest.zip(newest).is_some_and(|(oldest, newest)| (oldest..=newest).contains(&&version))
    }

    pub fn commit(&self, version: u64) -> PathBuf {
        self.folder.join(format!("{version:020}.json"))
    }

    fn checkpoint(&self, version: u64) -> PathBuf {
        self.folder.join(format!("{version:020}.checkpoint.parquet"))
    }

    /// Makes the checkpoint of a version survive a loss of power, if it has one: it is worth as much as all commits before it.
    pub fn flush_checkpoint(&self, version: u64) -> Result<(), LakeError> {
        let path = self.checkpoint(version);
        if !path.exists() {
            return Ok(());
        }
        sync_file(&path)?;
        let hint = self.folder.join("_last_checkpoint");
        if hint.exists() { sync_file(&hint) } else { Ok(()) }
    }

    /// Returns what is added to versions, as the commit that made the table says; nothing where there is none.
    pub fn base(&self) -> Result<i64, LakeError> {
        for path in [self.commit(0), self.folder.join(FIRST)] {
            match std::fs::read_to_string(&path) {
                Err(source) if source.kind() == ErrorKind::NotFound => {}
                read => return base_in(&read.map_err(|source| LakeError::io("read", &path, source))?),
            }
        }
        Ok(0)
    }

    /// Removes versions that nobody keeps, oldest first, up to a checkpoint with which the log begins from then on; returns how many.
    ///
    /// The commit that holds the newest record of a pipeline stays, however old: nothing else does.
    pub fn cut(&self, keep: &Keep) -> Result<u64, LakeError> {
        let base = self.base()?;
        let mut dated = Vec::with_capacity(self.commits.len());
        let mut records: BTreeMap<String, u64> = BTreeMap::new();
        // Clocks may go back, and what was seen later was there later.
        let mut latest_ms: Option<i64> = None;
        for version in &self.commits {
            let path = self.commit(*version);
            let text =
                std::fs::read_to_string(&path).map_err(|source| LakeError::io("read", &path, source))?;
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                let action: Value = serde_json::from_str(line)?;
                let at_ms = action.pointer("/commitInfo/timestamp").and_then(Value::as_i64);
                latest_ms = latest_ms.max(at_ms);
                let record = action.pointer("/txn/appId").and_then(Value::as_str);
                if let Some(record) = record.filter(|id| id.starts_with(CHECKPOINT)) {
                    records.insert(record.to_owned(), *version);
                }
            }
            dated.push((Version(number(*version)? + base), latest_ms));
        }
        let Some(first) = keep.first(&dated) else { return Ok(0) };
        let first = u64::try_from(first.0 - base).unwrap_or(0);
        let first = records.into_values().min().map_or(first, |record| record.min(first));
        let mut begins = None;
        for version in self.checkpoints.range(..=first).rev() {
            // All that is left of the commits before it.
            if is_parquet(&self.checkpoint(*version))? {
                begins = Some(*version);
                break;
            }
        }
        let Some(begins) = begins else { return Ok(0) };
        sync_file(&self.checkpoint(begins))?;
        // A version without its checkpoint is read from the commits; so checkpoints go first, and commits from the oldest on: whatever
        // is left of them when this stops half-way is no version that anybody could read half of.
        for version in self.checkpoints.range(..begins) {
            remove_if_there(&self.checkpoint(*version))?;
        }
        let mut gone = 0;
        for version in self.commits.range(..begins) {
            let path = self.commit(*version);
            if *version == 0 {
                let first = self.folder.join(FIRST);
                std::fs::rename(&path, &first).map_err(|source| LakeError::io("rename", &path, source))?;
                sync_dir(&self.folder)?;
            } else {
                remove_if_there(&path)?;
            }
            gone += 1;
        }
        sync_dir(&self.folder)?;
        Ok(gone)
    }
}

fn number(version: u64) -> Result<i64, LakeError> {
    i64::try_from(version).map_err(|_| LakeError::Conflict)
}

/// Returns what is added to versions, from the text of the commit that made a table.
fn base_in(first: &str) -> Result<i64, LakeError> {
    for line in first.lines() {
        let action: Value = serde_json::from_str(line)?;
        if let Some(base) = action.pointer("/metaData/configuration").and_then(|it| it.get(BASE)) {
            return Ok(base.as_str().and_then(|base| base.parse().ok()).unwrap_or(0));
        }
    }
    Ok(0)
}
