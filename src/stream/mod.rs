//! Sources of events: topic folders and Kafka behind one trait (ranges in, batches out).
//!
//! A stream commit is legal only if its source ranges start where the last committed ones ended, so the trait is
//! built around ranges: [`Source::read`] is told where to start and answers with half-open ranges that begin exactly
//! there, whatever holes the offsets have. A source keeps no position that matters and commits nothing to the broker;
//! the lake table is the only truth about what was consumed.
//!
//! [`TopicFolder`] is the embedded broker (`docs/topic-folder.md` is its format), [`KafkaSource`] the client of a real one.

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

mod append;
mod crc;
mod decode;
mod folder;
mod kafka;
mod partitioner;
mod produce;
mod record;
mod segment;
#[cfg(test)]
#[expect(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "small numbers of small topics")]
mod tests;

#[cfg(feature = "kafka")]
pub use self::kafka::{KafkaProducer, KafkaSource};
pub use self::{
    append::{Appended, Appender, NewRecord, ProducerSequence},
    decode::{
        DeadLetter, DecodeRules, Decoded, DecoderError, JsonDecoder, NumericTimestamps, dead_letter_batch,
        dead_letter_schema,
    },
    folder::{TopicFolder, TopicOptions},
    kafka::KafkaSettings,
    partitioner::{murmur2, partition_for_key},
    produce::{ProduceError, ProduceTarget, Produced, TimestampFrom, look_at, open_source, produce},
};

/// Number of a partition within its topic, from 0.
pub type PartitionId = i32;

/// Place of a message within its partition, from 0.
pub type Offset = i64;

/// First offset and the one after the last: half-open, so that ranges chain when `end == next start`.
pub type OffsetRange = (Offset, Offset);

/// One event as it lies in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub partition: PartitionId,
    pub offset: Offset,
    /// When the broker (or, in a topic folder, the producer's clock) made the message available: milliseconds since
    /// 1970-01-01 UTC. This is the *available* clock of the point-in-time rules, never the event time.
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub payload: Bytes,
}

/// What one [`Source::read`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Batch {
    /// Messages, ordered by offset within each partition; partitions follow one another.
    pub messages: Vec<Message>,
    /// For every partition asked for: from where it was asked up to the offset to ask for next. Empty ranges
    /// (`start == end`) are listed too. Offsets inside a range may have holes (Kafka's control records).
    pub ranges: BTreeMap<PartitionId, OffsetRange>,
}

impl Batch {
    /// Returns the offsets to hand to the next [`Source::read`].
    pub fn next(&self) -> BTreeMap<PartitionId, Offset> {
        self.ranges.iter().map(|(partition, (_, end))| (*partition, *end)).collect()
    }
}

/// A topic that can be read by offset.
#[async_trait]
pub trait Source: Send {
    /// Returns the identity of this incarnation of the topic: a topic removed and created again under the same name
    /// has another id, so that old offsets are never applied to new data.
    async fn topic_id(&self) -> Result<String, SourceError>;

    /// Returns the partitions in ascending order.
    async fn partitions(&self) -> Result<Vec<PartitionId>, SourceError>;

    /// Returns for each partition the lowest offset still kept and the one after the last durable message.
    async fn bounds(&self) -> Result<BTreeMap<PartitionId, OffsetRange>, SourceError>;

    /// Reads at most `max_messages` starting at `from`, waiting up to `max_wait` for the first of them.
    ///
    /// Only durable messages are returned: what was read once has the same content at the same offset for ever.
    ///
    /// # Errors
    ///
    /// An offset outside [`Source::bounds`] is refused with [`SourceError::OffsetOutOfRange`], never moved: the
    /// caller would otherwise lose or double events without noticing.
    async fn read(
        &mut self,
        from: &BTreeMap<PartitionId, Offset>,
        max_messages: usize,
        max_wait: Duration,
    ) -> Result<Batch, SourceError>;
}

/// Upper bound for the payload bytes of one [`Batch`], so that memory does not depend on message size: 32 MiB. A single
/// larger message still passes, alone.
const MAX_BATCH_BYTES: usize = 32 << 20;

/// Why a topic could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("topic {topic} does not exist")]
    NotFound { topic: String },
    #[error("topic {topic} exists already")]
    AlreadyExists { topic: String },
    #[error("topic {topic} was re-created: its id was {expected} and is {found} now")]
    Replaced { topic: String, expected: String, found: String },
    #[error("topic {topic} has no partition {partition}")]
    UnknownPartition { topic: String, partition: PartitionId },
    #[error("a topic needs between 1 and {limit} partitions, not {asked}")]
    PartitionCount { asked: i32, limit: i32 },
    #[error(
        "offset {requested} of partition {partition} of topic {topic} is outside what is kept, {low} up to {high} (exclusive)"
    )]
    OffsetOutOfRange { topic: String, partition: PartitionId, requested: Offset, low: Offset, high: Offset },
    #[error("{} is damaged at byte {position}: {reason}", path.display())]
    Corrupt { path: PathBuf, position: u64, reason: String },
    #[error("{} has format version {found}, this program reads {supported}", path.display())]
    FormatVersion { path: PathBuf, found: u64, supported: u64 },
    #[error("a record of {bytes} bytes is larger than the limit of {limit}")]
    RecordTooLarge { bytes: usize, limit: usize },
    #[error(
        "producer {producer} continued partition {partition} with sequence {found} where {expected} was expected: messages are missing in between"
    )]
    SequenceGap { partition: PartitionId, producer: uuid::Uuid, expected: i64, found: i64 },
    #[error("an earlier write to partition {partition} failed half-way; open the appender again")]
    AppenderFailed { partition: PartitionId },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[cfg(feature = "kafka")]
    #[error("cannot {action} (topic {topic})")]
    Kafka { action: &'static str, topic: String, source: rdkafka::error::KafkaError },
    #[error("this program was built without the feature kafka")]
    KafkaNotBuilt,
    #[error("a background task ended before it answered")]
    TaskEnded(#[source] tokio::task::JoinError),
}

impl SourceError {
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| SourceError::Io { action, path, source }
    }
}
