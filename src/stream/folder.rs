//! A topic folder: the embedded broker, and its reading side as a [`Source`].

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Batch, MAX_BATCH_BYTES, Offset, OffsetRange, PartitionId, Source, SourceError,
    append::{Appender, create_segment},
    record::{FORMAT_VERSION, Header},
    segment::{PartitionLog, Producers},
};

/// Name of the file that makes a folder a topic.
const TOPIC_FILE: &str = "topic.json";

const FORMAT_NAME: &str = "hydromesh-topic-folder";

/// More partitions than any one machine can use, and few enough to be looked at one by one.
const MAX_PARTITIONS: i32 = 1024;

/// How often a waiting reader looks for new data: a `stat` or three per partition, fifty times a second.
const POLL: Duration = Duration::from_millis(20);

/// How a new topic folder is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOptions {
    pub partitions: i32,
    /// Size in bytes after which an appender begins a new segment. Opening scans one segment, so it bounds start-up.
    pub segment_bytes: u64,
    /// The topic's identity; random when absent.
    pub id: Option<Uuid>,
}

impl Default for TopicOptions {
    fn default() -> Self {
        TopicOptions { partitions: 1, segment_bytes: 16 << 20, id: None }
    }
}

/// `topic.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TopicFile {
    format: String,
    version: u64,
    topic_id: String,
    partitions: i32,
    segment_bytes: u64,
}

impl TopicFile {
    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("text and integers serialise")
    }
}

/// An embedded topic. Cheap to clone; clones share what they have learnt about the segments.
#[derive(Debug, Clone)]
pub struct TopicFolder {
    path: PathBuf,
    id: Uuid,
    file: TopicFile,
    logs: Arc<Mutex<BTreeMap<PartitionId, PartitionLog>>>,
}

impl TopicFolder {
    /// Creates the topic at `path`, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`SourceError::AlreadyExists`] if something is there, also when another process was faster.
    pub fn create(path: &Path, options: &TopicOptions) -> Result<Self, SourceError> {
        if !(1..=MAX_PARTITIONS).contains(&options.partitions) {
            return Err(SourceError::PartitionCount { asked: options.partitions, limit: MAX_PARTITIONS });
        }
        let exists = || SourceError::AlreadyExists { topic: path.display().to_string() };
        if path.join(TOPIC_FILE).exists() {
            return Err(exists());
        }
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(SourceError::io("create", parent))?;
        let id = options.id.unwrap_or_else(Uuid::new_v4);
        let file = TopicFile {
            format: FORMAT_NAME.to_owned(),
            version: FORMAT_VERSION.into(),
            topic_id: id.to_string(),
            partitions: options.partitions,
            segment_bytes: options.segment_bytes,
        };
        // Everything is made beside its place and moved there, so that nobody meets half a topic.
        let draft = tempfile::Builder::new().prefix(".new-topic-").tempdir_in(parent);
        let draft = draft.map_err(SourceError::io("create a folder in", parent))?;
        for partition in 0..options.partitions {
            let dir = draft.path().join(partition_name(partition));
            fs::create_dir(&dir).map_err(SourceError::io("create", &dir))?;
            create_segment(&dir, &Header { topic_id: id, partition, base: 0 })?;
        }
        write_durably(&draft.path().join(TOPIC_FILE), &file.to_json())?;
        match fs::rename(draft.path(), path) {
            Ok(()) => {
                // Nothing is left under the draft's name to clean up.
                let _ = draft.keep();
                sync_dir(parent)?;
                Self::open(path)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                Err(exists())
            }
            Err(error) => Err(SourceError::io("create", path)(error)),
        }
    }

    /// Opens an existing topic.
    ///
    /// # Errors
    ///
    /// [`SourceError::NotFound`], [`SourceError::FormatVersion`], or [`SourceError::Corrupt`] for a `topic.json` that
    /// cannot be read.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let (id, file) = read_topic_file(path)?;
        Ok(TopicFolder { path: path.to_owned(), id, file, logs: Arc::default() })
    }

    /// Opens the topic, or creates it when there is none. An existing topic keeps its own layout.
    pub fn open_or_create(path: &Path, options: &TopicOptions) -> Result<Self, SourceError> {
        match Self::open(path) {
            Err(SourceError::NotFound { .. }) => match Self::create(path, options) {
                Err(SourceError::AlreadyExists { .. }) => Self::open(path),
                other => other,
            },
            other => other,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn id(&self) -> Uuid {
        self.id
    }

    pub fn partition_count(&self) -> i32 {
        self.file.partitions
    }

    /// Returns an appender for one partition; its first look scans the partition's last segment.
    pub fn appender(&self, partition: PartitionId) -> Result<Appender, SourceError> {
        Appender::open(self.clone(), partition)
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.file.segment_bytes
    }

    pub(super) fn partition_dir(&self, partition: PartitionId) -> Result<PathBuf, SourceError> {
        if !(0..self.file.partitions).contains(&partition) {
            return Err(SourceError::UnknownPartition { topic: self.name(), partition });
        }
        Ok(self.path.join(partition_name(partition)))
    }

    /// Refuses to go on when the folder now holds another incarnation of the topic.
    pub(super) fn check_same(&self) -> Result<(), SourceError> {
        let (found, _) = read_topic_file(&self.path)?;
        if found == self.id {
            return Ok(());
        }
        Err(SourceError::Replaced {
            topic: self.name(),
            expected: self.id.to_string(),
            found: found.to_string(),
        })
    }

    /// Runs `work` on the up-to-date view of a partition.
    fn with_log<T>(
        &self,
        partition: PartitionId,
        work: impl FnOnce(&mut PartitionLog) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let dir = self.partition_dir(partition)?;
        let mut logs = self.logs.lock().unwrap_or_else(|poisoned| {
            // A panic may have left a view half-changed; views are rebuilt from the files.
            let mut logs = poisoned.into_inner();
            logs.clear();
            logs
        });
        if let Some(log) = logs.get_mut(&partition) {
            log.refresh()?;
            return work(log);
        }
        let log = PartitionLog::open(dir, &self.name(), self.id(), partition, Producers::Ignore)?;
        work(logs.entry(partition).or_insert(log))
    }

    fn bounds_now(&self) -> Result<BTreeMap<PartitionId, OffsetRange>, SourceError> {
        self.check_same()?;
        let bound = |partition| Ok((partition, self.with_log(partition, |log| Ok((log.low(), log.high())))?));
        (0..self.file.partitions).map(bound).collect()
    }

    fn read_now(
        &self,
        from: &BTreeMap<PartitionId, Offset>,
        max_messages: usize,
    ) -> Result<Batch, SourceError> {
        self.check_same()?;
        let mut available = BTreeMap::new();
        for (&partition, &requested) in from {
            let (low, high) = self.with_log(partition, |log| Ok((log.low(), log.high())))?;
            if requested < low || requested > high {
                return Err(SourceError::OffsetOutOfRange {
                    topic: self.name(),
                    partition,
                    requested,
                    low,
                    high,
                });
            }
            available.insert(partition, usize::try_from(high - requested).unwrap_or(usize::MAX));
        }
        let mut batch = Batch::default();
        let mut bytes_left = MAX_BATCH_BYTES;
        for (partition, count) in share(&available, max_messages) {
            let start = from.get(&partition).copied().unwrap_or_default();
            let mut end = start;
            if count > 0 && bytes_left > 0 {
                let found = self.with_log(partition, |log| log.read(start, count, bytes_left))?;
                bytes_left =
                    found.iter().fold(bytes_left, |left, message| left.saturating_sub(message.payload.len()));
                #[expect(clippy::cast_possible_wrap, reason = "messages that lie in memory")]
                let count = found.len() as i64;
                end = start + count;
                batch.messages.extend(found);
            }
            batch.ranges.insert(partition, (start, end));
        }
        Ok(batch)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let folder = self.clone();
        tokio::task::spawn_blocking(move || work(&folder)).await.map_err(SourceError::TaskEnded)?
    }
}

#[async_trait]
impl Source for TopicFolder {
    async fn topic_id(&self) -> Result<String, SourceError> {
        self.blocking(|folder| Ok(read_topic_file(&folder.path)?.0.to_string())).await
    }

    async fn partitions(&self) -> Result<Vec<PartitionId>, SourceError> {
        Ok((0..self.file.partitions).collect())
    }

    async fn bounds(&self) -> Result<BTreeMap<PartitionId, OffsetRange>, SourceError> {
        self.blocking(Self::bounds_now).await
    }

    async fn read(
        &mut self,
        from: &BTreeMap<PartitionId, Offset>,
        max_messages: usize,
        max_wait: Duration,
    ) -> Result<Batch, SourceError> {
        let deadline = Instant::now() + max_wait;
        loop {
            let offsets = from.clone();
            let batch = self.blocking(move |folder| folder.read_now(&offsets, max_messages)).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !batch.messages.is_empty() || max_messages == 0 || left.is_zero() {
                return Ok(batch);
            }
            tokio::time::sleep(POLL.min(left)).await;
        }
    }
}

/// Shares `total` among the partitions: everyone gets an equal part, and what one does not need goes to the others.
fn share(available: &BTreeMap<PartitionId, usize>, total: usize) -> BTreeMap<PartitionId, usize> {
    let mut by_need: Vec<_> = available.iter().collect();
    by_need.sort_by_key(|(partition, need)| (**need, **partition));
    let (mut left, mut waiting) = (total, by_need.len());
    let mut shares = BTreeMap::new();
    for (partition, need) in by_need {
        let part = (*need).min(left.div_ceil(waiting));
        shares.insert(*partition, part);
        left -= part;
        waiting -= 1;
    }
    shares
}

fn partition_name(partition: PartitionId) -> String {
    format!("partition-{partition:05}")
}

fn read_topic_file(path: &Path) -> Result<(Uuid, TopicFile), SourceError> {
    let file_path = path.join(TOPIC_FILE);
    let bytes = match fs::read(&file_path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(SourceError::NotFound { topic: path.display().to_string() });
        }
        other => other.map_err(SourceError::io("read", &file_path))?,
    };
    let damaged = |reason: String| SourceError::Corrupt { path: file_path.clone(), position: 0, reason };
    // The version is read before the rest: another version may have other fields.
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if value.get("format").and_then(serde_json::Value::as_str) != Some(FORMAT_NAME) {
        return Err(damaged(format!("\"format\" is not \"{FORMAT_NAME}\"")));
    }
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(FORMAT_VERSION) => {}
        Some(found) => {
            return Err(SourceError::FormatVersion {
                path: file_path,
                found,
                supported: FORMAT_VERSION.into(),
            });
        }
        None => return Err(damaged("\"version\" is not a number".to_owned())),
    }
    let file: TopicFile = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
    if !(1..=MAX_PARTITIONS).contains(&file.partitions) {
        return Err(damaged(format!("\"partitions\" is not between 1 and {MAX_PARTITIONS}")));
    }
    let id = Uuid::parse_str(&file.topic_id).map_err(|error| damaged(format!("\"topic_id\": {error}")))?;
    Ok((id, file))
}

/// Writes a file that is either absent (or as before) or complete and durable.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), SourceError> {
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft).map_err(SourceError::io("create", &draft))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(SourceError::io("write", &draft))?;
    fs::rename(&draft, path).map_err(SourceError::io("create", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes the names in a folder durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), SourceError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(SourceError::io("sync", dir))
}

#[cfg(test)]
mod unit {
    use std::collections::BTreeMap;

    use super::share;

    #[test]
    fn a_large_partition_does_not_starve_a_small_one() {
        let shares = share(&BTreeMap::from([(0, 1_000_000), (1, 3), (2, 0)]), 10);
        assert_eq!(shares, BTreeMap::from([(0, 7), (1, 3), (2, 0)]));
        assert_eq!(share(&BTreeMap::from([(0, 9), (1, 9)]), 1).values().sum::<usize>(), 1);
        assert_eq!(share(&BTreeMap::new(), 5), BTreeMap::new());
    }
}
