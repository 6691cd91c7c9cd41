//! Putting small files together: the same rows in fewer files, so that reading them costs less.
//!
//! Streams append a file an epoch. Their rows have columns that say where they come from, so what is read does not hang on which
//! file they are in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::prelude::{SessionConfig, SessionContext};

use super::fileset::{FileEntry, FileSet};
use super::observe::key_of;
use super::{CommitMeta, LakeError, PublishMode, Table, Version};

/// A file below this size is small: a quarter of what a file is closed at.
const SMALL_BYTES: u64 = 64 << 20;
/// Small files of a partition from which it is worth a commit.
const LEAST: usize = 8;
/// Bytes that are put together at a time, so that a table in need of it takes several days and not all places at once.
const MOST_BYTES: u64 = 4 << 30;

/// What was put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutTogether {
    /// The version that shows the new files.
    pub version: Version,
    /// How many files there were of these rows, and how many there are.
    pub files: (u64, u64),
}

impl Table {
    /// Puts small files of the newest version together, partition by partition, in one commit that carries `meta`. Whoever commits
    /// meanwhile is not held up: what is appended stays beside the new files. Returns nothing where it is not worth a commit, or
    /// one of the files was replaced meanwhile.
    ///
    /// # Errors
    /// See [`Table::stage`] and [`Table::publish`].
    pub async fn put_together(&self, meta: &CommitMeta) -> Result<Option<PutTogether>, LakeError> {
        let set = self.own_file_set(None).await?;
        let chosen = chosen(&set.files);
        if chosen.is_empty() {
            return Ok(None);
        }
        let paths: BTreeSet<String> = chosen.iter().map(|file| file.path.clone()).collect();
        let before = chosen.len() as u64;
        let rows: u64 = chosen.iter().filter_map(|file| file.rows).sum();
        let part = FileSet { files: chosen, ..set };
        // One file after the other: the rows of a partition come together, in the order that they had.
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let stream = session.read_table(Arc::new(part))?.execute_stream().await?;
        let staged = self.stage(meta, stream).await?;
        let (read, after) = (staged.rows, staged.files.len() as u64);
        if read != rows {
            self.discard(staged).await?;
            let why = format!("its files hold {read} rows where its log says {rows}");
            return Err(LakeError::Unusable { address: self.address.clone(), why });
        }
        match self.publish(staged, PublishMode::Rewrite(paths), meta).await {
            Err(LakeError::Overtaken { .. }) => Ok(None),
            published => Ok(Some(PutTogether { version: published?.version, files: (before, after) })),
        }
    }
}

/// Returns the small files of partitions that have many. Files of others, and those without rows, which only say that a partition is
/// known, stay as they are.
fn chosen(files: &[FileEntry]) -> Vec<FileEntry> {
    let mut small: BTreeMap<Option<&str>, Vec<&FileEntry>> = BTreeMap::new();
    for file in files {
        if file.bytes < SMALL_BYTES && file.rows.is_some_and(|rows| rows > 0) && key_of(&file.path).is_some()
        {
            small.entry(file.partition.as_deref()).or_default().push(file);
        }
    }
    let mut room = MOST_BYTES;
    let mut chosen = Vec::new();
    for files in small.into_values().filter(|files| files.len() >= LEAST) {
        let begun = chosen.len();
        for file in files {
            let Some(left) = room.checked_sub(file.bytes) else { break };
            room = left;
            chosen.push(file.clone());
        }
        if chosen.len() - begun < LEAST {
            chosen.truncate(begun);
            break;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(partition: &str, number: usize, rows: Option<u64>, bytes: u64) -> FileEntry {
        let path = format!("part-0123456789abcdef-e1-{number:05}-00112233aabb.parquet");
        FileEntry { path, partition: Some(partition.to_owned()), rows, bytes }
    }

    fn names(chosen: &[FileEntry]) -> Vec<(&str, usize)> {
        let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
        for file in chosen {
            *counted.entry(file.partition.as_deref().unwrap_or_default()).or_default() += 1;
        }
        counted.into_iter().collect()
    }

    #[test]
    fn partitions_of_many_small_files_are_chosen() {
        let mut files: Vec<_> = (0..8).map(|number| file("a", number, Some(1), 10)).collect();
        files.extend((0..7).map(|number| file("b", number, Some(1), 10)));
        files.push(file("b", 7, Some(1), SMALL_BYTES));
        files.push(file("b", 8, Some(0), 10));
        files.push(file("b", 9, None, 10));
        files.push(FileEntry { path: "somebody-elses.parquet".into(), ..file("b", 10, Some(1), 10) });
        assert_eq!(names(&chosen(&files)), [("a", 8)]);
    }

    #[test]
    fn no_more_than_fits_is_chosen_and_never_a_part_that_is_not_worth_it() {
        let large = SMALL_BYTES - 1;
        let files = |partition, count| (0..count).map(move |number| file(partition, number, Some(1), large));
        let most = usize::try_from(MOST_BYTES / large).unwrap();
        assert_eq!(names(&chosen(&files("a", most + 5).collect::<Vec<_>>())), [("a", most)]);
        let both: Vec<_> = files("a", most - 3).chain(files("b", 20)).collect();
        assert_eq!(names(&chosen(&both)), [("a", most - 3)]);
    }
}
