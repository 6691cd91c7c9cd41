//! `produce`: lines to messages, for people, demos and tests; the same to a topic folder and to Kafka.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    path::PathBuf,
};

use bytes::Bytes;
use chrono::DateTime;
use serde_json::{Map, Value};

use super::{
    Appender, NewRecord, OffsetRange, PartitionId, Source, SourceError, TopicFolder, TopicOptions,
    kafka::KafkaSettings, partition_for_key,
};
#[cfg(feature = "kafka")]
use super::{KafkaProducer, KafkaSource};

/// Messages sent between two syncs: one sync costs milliseconds, a thousand messages cost less.
const FLUSH_MESSAGES: usize = 1000;
/// Or as many bytes: 1 MiB.
const FLUSH_BYTES: usize = 1 << 20;

/// A topic, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProduceTarget {
    /// An existing topic folder.
    TopicFolder(PathBuf),
    Kafka(KafkaSettings),
}

/// Where a message's available time comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimestampFrom {
    /// A field of each line's JSON object: RFC 3339 text, or whole milliseconds since 1970-01-01 UTC.
    Field(String),
    /// The same for all, in milliseconds since 1970-01-01 UTC; the caller owns the clock.
    Given(i64),
}

/// What was produced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Produced {
    pub messages: u64,
    /// Offsets taken, per partition that got any. On Kafka other producers' messages may lie in between.
    pub ranges: BTreeMap<PartitionId, OffsetRange>,
}

/// Why producing stopped. Lines before the one named are in the topic.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    #[error("line {line} {problem}")]
    Line { line: u64, problem: String },
    #[error("cannot read line {line}")]
    Read { line: u64, source: io::Error },
    #[error("cannot produce the messages up to line {line}")]
    Target { line: u64, source: SourceError },
}

/// Returns a source that reads what [`produce`] writes.
///
/// # Errors
///
/// As for [`TopicFolder::open`]; [`SourceError::KafkaNotBuilt`] in a program built without the feature `kafka`.
pub fn open_source(target: &ProduceTarget) -> Result<Box<dyn Source>, SourceError> {
    match target {
        ProduceTarget::TopicFolder(path) => Ok(Box::new(TopicFolder::open(path)?)),
        #[cfg(feature = "kafka")]
        ProduceTarget::Kafka(settings) => Ok(Box::new(KafkaSource::new(settings.clone())?)),
        #[cfg(not(feature = "kafka"))]
        ProduceTarget::Kafka(_) => Err(SourceError::KafkaNotBuilt),
    }
}

impl ProduceTarget {
    /// Makes the topic unless it is there: a folder with the default options, on Kafka as many partitions.
    ///
    /// # Errors
    /// When it cannot be made; [`SourceError::KafkaNotBuilt`] in a program built without the feature `kafka`.
    pub async fn ensure(&self) -> Result<(), SourceError> {
        let options = TopicOptions::default();
        match self {
            ProduceTarget::TopicFolder(path) => TopicFolder::open_or_create(path, &options).map(drop),
            #[cfg(feature = "kafka")]
            ProduceTarget::Kafka(settings) => settings.ensure_topic(options.partitions).await,
            #[cfg(not(feature = "kafka"))]
            ProduceTarget::Kafka(_) => Err(SourceError::KafkaNotBuilt),
        }
    }
}

/// Appends each line as one message, in order, and returns when all are durable.
///
/// With `key_field` the text of that field of the line's JSON object is the key, which chooses the partition as Kafka's
/// clients do; without it messages have no key and go round the partitions. The payload is the line as given: nothing
/// else is checked, so that malformed messages can be produced too. Empty lines are skipped.
///
/// # Errors
///
/// Stops at the first line that lacks the key or timestamp asked for.
pub async fn produce<L: Into<Bytes>>(
    target: &ProduceTarget,
    lines: impl Iterator<Item = io::Result<L>>,
    key_field: Option<&str>,
    timestamp: TimestampFrom,
) -> Result<Produced, ProduceError> {
    let at_line = |line| move |source| ProduceError::Target { line, source };
    let mut sink = Sink::open(target).await.map_err(at_line(0))?;
    let mut produced = Produced::default();
    let (mut pending, mut bytes, mut line, mut turn) = (Vec::new(), 0, 0, -1);
    let mut stopped = None;
    for text in lines {
        line += 1;
        let payload: Bytes = match text {
            Ok(text) => text.into(),
            Err(source) => {
                stopped = Some(ProduceError::Read { line, source });
                break;
            }
        };
        if payload.is_empty() {
            continue;
        }
        let record = match to_record(payload, key_field, &timestamp) {
            Ok(record) => record,
            Err(problem) => {
                stopped = Some(ProduceError::Line { line, problem });
                break;
            }
        };
        let partition = if let Some(key) = &record.key {
            partition_for_key(key, sink.partitions)
        } else {
            turn = (turn + 1) % sink.partitions;
            turn
        };
        bytes += record.payload.len();
        pending.push((partition, record));
        if pending.len() >= FLUSH_MESSAGES || bytes >= FLUSH_BYTES {
            sink.send(std::mem::take(&mut pending), &mut produced).await.map_err(at_line(line))?;
            bytes = 0;
        }
    }
    sink.send(pending, &mut produced).await.map_err(at_line(line))?;
    stopped.map_or(Ok(produced), Err)
}

/// Looks at lines as [`produce`] would, and writes none of them.
///
/// # Errors
///
/// Those of the first line that [`produce`] would stop at.
#[expect(clippy::result_large_err, reason = "there is one error, at the end of a whole file")]
pub fn look_at<L: Into<Bytes>>(
    lines: impl Iterator<Item = io::Result<L>>,
    key_field: Option<&str>,
    timestamp: &TimestampFrom,
) -> Result<(), ProduceError> {
    for (line, text) in (1..).zip(lines) {
        let payload: Bytes = text.map_err(|source| ProduceError::Read { line, source })?.into();
        if !payload.is_empty() {
            to_record(payload, key_field, timestamp)
                .map_err(|problem| ProduceError::Line { line, problem })?;
        }
    }
    Ok(())
}

fn to_record(
    payload: Bytes,
    key_field: Option<&str>,
    timestamp: &TimestampFrom,
) -> Result<NewRecord, String> {
    let object = match (key_field, timestamp) {
        (None, TimestampFrom::Given(_)) => Map::new(),
        _ => serde_json::from_slice::<Map<String, Value>>(&payload)
            .map_err(|error| format!("is not a JSON object, so it has no key or timestamp: {error}"))?,
    };
    let key = match key_field.map(|name| (name, object.get(name))) {
        None => None,
        Some((_, Some(Value::String(text)))) => Some(Bytes::copy_from_slice(text.as_bytes())),
        Some((_, Some(value @ (Value::Number(_) | Value::Bool(_))))) => Some(Bytes::from(value.to_string())),
        Some((name, _)) => return Err(format!("has no text or number in its key field {name}")),
    };
    let timestamp_ms = match timestamp {
        TimestampFrom::Given(millis) => *millis,
        TimestampFrom::Field(name) => millis(object.get(name)).ok_or_else(|| {
            format!("has neither an RFC 3339 timestamp nor whole milliseconds in its timestamp field {name}")
        })?,
    };
    Ok(NewRecord { timestamp_ms, key, payload })
}

fn millis(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::String(text) => DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_millis()),
        other => other.as_i64(),
    }
}

/// An open target.
struct Sink {
    partitions: i32,
    kind: SinkKind,
}

enum SinkKind {
    Folder {
        folder: TopicFolder,
        appenders: BTreeMap<PartitionId, Appender>,
    },
    #[cfg(feature = "kafka")]
    Kafka(KafkaProducer),
}

impl Sink {
    async fn open(target: &ProduceTarget) -> Result<Self, SourceError> {
        match target {
            ProduceTarget::TopicFolder(path) => {
                let folder = TopicFolder::open(path)?;
                let partitions = folder.partition_count();
                Ok(Sink { partitions, kind: SinkKind::Folder { folder, appenders: BTreeMap::new() } })
            }
            #[cfg(feature = "kafka")]
            ProduceTarget::Kafka(settings) => {
                let producer = KafkaProducer::new(settings.clone())?;
                let partitions = producer.partition_count().await?;
                Ok(Sink { partitions, kind: SinkKind::Kafka(producer) })
            }
            #[cfg(not(feature = "kafka"))]
            ProduceTarget::Kafka(_) => Err(SourceError::KafkaNotBuilt),
        }
    }

    async fn send(
        &mut self,
        records: Vec<(PartitionId, NewRecord)>,
        produced: &mut Produced,
    ) -> Result<(), SourceError> {
        let count = records.len() as u64;
        let ranges = match &mut self.kind {
            SinkKind::Folder { folder, appenders } => {
                let (folder, mut opened) = (folder.clone(), std::mem::take(appenders));
                // Appending syncs, which blocks for milliseconds, and may wait for another process.
                let task = tokio::task::spawn_blocking(move || {
                    append_all(&folder, &mut opened, records).map(|ranges| (opened, ranges))
                });
                let (opened, ranges) = task.await.map_err(SourceError::TaskEnded)??;
                *appenders = opened;
                ranges
            }
            #[cfg(feature = "kafka")]
            SinkKind::Kafka(client) => client.send(&records).await?,
        };
        produced.messages += count;
        for (partition, (start, end)) in ranges {
            produced.ranges.entry(partition).or_insert((start, end)).1 = end;
        }
        Ok(())
    }
}

fn append_all(
    folder: &TopicFolder,
    appenders: &mut BTreeMap<PartitionId, Appender>,
    records: Vec<(PartitionId, NewRecord)>,
) -> Result<BTreeMap<PartitionId, OffsetRange>, SourceError> {
    let mut by_partition: BTreeMap<PartitionId, Vec<NewRecord>> = BTreeMap::new();
    for (partition, record) in records {
        by_partition.entry(partition).or_default().push(record);
    }
    let mut ranges = BTreeMap::new();
    for (partition, records) in by_partition {
        let appender = match appenders.entry(partition) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(folder.appender(partition)?),
        };
        let appended = appender.append(&records, None)?;
        ranges.insert(partition, (appended.offsets.start, appended.offsets.end));
    }
    Ok(ranges)
}
