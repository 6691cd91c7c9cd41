//! Reading a Kafka topic by offset, without a consumer group's commits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::{
    Message as _, Offset as KafkaOffset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
    metadata::MetadataPartition,
    types::RDKafkaErrorCode,
};

use super::{
    super::{Batch, MAX_BATCH_BYTES, Message, Offset, OffsetRange, PartitionId, Source, SourceError},
    KafkaSettings,
    client::{Traced, base_config},
    topic_id,
};

/// How long to wait for the next message once a batch has begun: long enough for what librdkafka is just unpacking, short
/// enough not to be felt.
const LINGER: Duration = Duration::from_millis(5);

/// A Kafka topic as a [`Source`]. Transactions are honoured: messages of aborted ones are never returned.
#[derive(Clone)]
pub struct KafkaSource {
    settings: KafkaSettings,
    reader: Arc<Mutex<Reader>>,
}

impl std::fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSource").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// Returns a source; the brokers are first contacted when it is used.
    ///
    /// # Errors
    ///
    /// [`SourceError::Kafka`] for settings that librdkafka does not know.
    pub fn new(settings: KafkaSettings) -> Result<Self, SourceError> {
        let mut config = base_config(&settings);
        config
            // librdkafka wants a group for any assignment; nothing is joined and nothing committed.
            .set("group.id", "hydromesh")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An offset that is not kept any more must be an error, not a jump.
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("allow.auto.create.topics", "false");
        let consumer = config.create_with_context(Traced).map_err(settings.failed("create a consumer"))?;
        let reader = Reader { settings: settings.clone(), consumer, id: None, positions: BTreeMap::new() };
        Ok(KafkaSource { settings, reader: Arc::new(Mutex::new(reader)) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Reader) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let reader = self.reader.clone();
        // librdkafka's calls block. A reader whose task panicked only forgets its position, which is a cache.
        let task = tokio::task::spawn_blocking(move || {
            let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut reader)
        });
        task.await.map_err(SourceError::TaskEnded)?
    }
}

#[async_trait]
impl Source for KafkaSource {
    /// Returns Kafka's topic UUID, or, from a broker that has none, cluster id and topic name: such a broker's topic can
    /// be re-created without the id showing it.
    async fn topic_id(&self) -> Result<String, SourceError> {
        self.blocking(|reader| reader.topic_id()).await
    }

    async fn partitions(&self) -> Result<Vec<PartitionId>, SourceError> {
        self.blocking(|reader| reader.partitions()).await
    }

    async fn bounds(&self) -> Result<BTreeMap<PartitionId, OffsetRange>, SourceError> {
        self.blocking(|reader| {
            let bound = |partition| Ok((partition, reader.watermarks(partition)?));
            reader.partitions()?.into_iter().map(bound).collect()
        })
        .await
    }

    async fn read(
        &mut self,
        from: &BTreeMap<PartitionId, Offset>,
        max_messages: usize,
        max_wait: Duration,
    ) -> Result<Batch, SourceError> {
        let from = from.clone();
        self.blocking(move |reader| {
            let result = reader.read(&from, max_messages, max_wait);
            if result.is_err() {
                // Whatever was fetched and not returned must be fetched again.
                reader.positions.clear();
            }
            result
        })
        .await
    }
}

struct Reader {
    settings: KafkaSettings,
    consumer: BaseConsumer<Traced>,
    /// The topic's identity when this reader first saw it.
    id: Option<String>,
    /// The offset the consumer will deliver next, per assigned partition. A cache: a different `from` assigns anew.
    positions: BTreeMap<PartitionId, Offset>,
}

impl Reader {
    fn topic_id(&self) -> Result<String, SourceError> {
        let KafkaSettings { topic, timeout, .. } = &self.settings;
        let id = topic_id::describe(self.consumer.client(), topic, *timeout);
        if let Some(id) = id.map_err(self.settings.failed("describe the topic"))? {
            return Ok(id.to_string());
        }
        let cluster = self.consumer.client().fetch_cluster_id(*timeout);
        Ok(format!("kafka:{}/{topic}", cluster.as_deref().unwrap_or("unnamed-cluster")))
    }

    fn check_same(&mut self) -> Result<(), SourceError> {
        let found = self.topic_id()?;
        let expected = self.id.get_or_insert_with(|| found.clone());
        if *expected == found {
            return Ok(());
        }
        Err(SourceError::Replaced { topic: self.settings.topic.clone(), expected: expected.clone(), found })
    }

    fn partitions(&self) -> Result<Vec<PartitionId>, SourceError> {
        let action = "list the topic's partitions";
        let metadata = self.consumer.fetch_metadata(Some(&self.settings.topic), self.settings.timeout);
        let metadata = metadata.map_err(self.settings.failed(action))?;
        let not_found = || SourceError::NotFound { topic: self.settings.topic.clone() };
        let topic = metadata
            .topics()
            .iter()
            .find(|topic| topic.name() == self.settings.topic)
            .ok_or_else(not_found)?;
        if let Some(error) = topic.error() {
            return Err(self.settings.failed(action)(KafkaError::MetadataFetch(error.into())));
        }
        let mut partitions: Vec<_> = topic.partitions().iter().map(MetadataPartition::id).collect();
        partitions.sort_unstable();
        if partitions.is_empty() { Err(not_found()) } else { Ok(partitions) }
    }

    fn watermarks(&self, partition: PartitionId) -> Result<OffsetRange, SourceError> {
        let KafkaSettings { topic, timeout, .. } = &self.settings;
        let found = self.consumer.fetch_watermarks(topic, partition, *timeout);
        found.map_err(self.settings.failed("look up the topic's offsets"))
    }

    fn check_bounds(&self, from: &BTreeMap<PartitionId, Offset>) -> Result<(), SourceError> {
        let partitions = self.partitions()?;
        for (&partition, &requested) in from {
            let topic = self.settings.topic.clone();
            if !partitions.contains(&partition) {
                return Err(SourceError::UnknownPartition { topic, partition });
            }
            let (low, high) = self.watermarks(partition)?;
            if requested < low || requested > high {
                return Err(SourceError::OffsetOutOfRange { topic, partition, requested, low, high });
            }
        }
        Ok(())
    }

    fn assign(&mut self, from: &BTreeMap<PartitionId, Offset>) -> Result<(), SourceError> {
        let failed = |settings: &KafkaSettings| settings.failed("assign partitions");
        let mut list = TopicPartitionList::new();
        for (partition, offset) in from {
            list.add_partition_offset(&self.settings.topic, *partition, KafkaOffset::Offset(*offset))
                .map_err(failed(&self.settings))?;
        }
        self.consumer.assign(&list).map_err(failed(&self.settings))?;
        self.positions.clone_from(from);
        Ok(())
    }

    fn read(
        &mut self,
        from: &BTreeMap<PartitionId, Offset>,
        max_messages: usize,
        max_wait: Duration,
    ) -> Result<Batch, SourceError> {
        let deadline = Instant::now() + max_wait;
        if self.id.is_none() {
            self.check_same()?;
        }
        if self.positions != *from {
            self.check_bounds(from)?;
            self.assign(from)?;
        }
        let mut messages = self.collect(from, max_messages, deadline)?;
        if messages.is_empty() && max_messages > 0 {
            messages.extend(self.skip_control_records(from)?);
            if !messages.is_empty() {
                messages.extend(self.collect(from, max_messages - 1, Instant::now())?);
            }
        }
        if !messages.is_empty() {
            // The consumer follows the name to a topic that was re-created under it; the id tells.
            self.check_same()?;
        }
        // Batches are ordered by partition, as they are for topic folders.
        messages.sort_by_key(|message| (message.partition, message.offset));
        let end = |partition, start| self.positions.get(partition).copied().unwrap_or(start);
        let ranges =
            from.iter().map(|(partition, start)| (*partition, (*start, end(partition, *start)))).collect();
        Ok(Batch { messages, ranges })
    }

    /// Polls until the batch is full, everything there is was delivered, or time is up.
    fn collect(
        &mut self,
        from: &BTreeMap<PartitionId, Offset>,
        max_messages: usize,
        deadline: Instant,
    ) -> Result<Vec<Message>, SourceError> {
        let (mut messages, mut bytes) = (Vec::new(), 0);
        let mut ended = BTreeSet::new();
        let mut trouble = None;
        while messages.len() < max_messages && bytes < MAX_BATCH_BYTES {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = match (messages.is_empty(), ended.len() == from.len()) {
                (true, _) => left,
                (false, false) => LINGER,
                (false, true) => break,
            };
            match self.consumer.poll(wait) {
                None if messages.is_empty() && !left.is_zero() => {}
                None => break,
                Some(Ok(found)) => {
                    trouble = None;
                    ended.remove(&found.partition());
                    if let Some(message) = take(&mut self.positions, &found) {
                        bytes += message.payload.len();
                        messages.push(message);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                    trouble = None;
                }
                Some(Err(error)) if is_passing(&error) => trouble = Some(error),
                Some(Err(error)) => {
                    // Says precisely which offset is gone if that is what happened.
                    self.check_bounds(&self.positions)?;
                    return Err(self.settings.failed("read messages")(error));
                }
            }
        }
        match trouble {
            // librdkafka goes on trying, but "nothing new" would be a lie.
            Some(error) if messages.is_empty() => Err(self.settings.failed("read messages")(error)),
            _ => Ok(messages),
        }
    }

    /// Moves positions over offsets that hold no message. Transaction markers take offsets too, so that a partition may
    /// end in some, and a reader that never passed them would never reach the end.
    ///
    /// A position moves to a high watermark only if a fetch that began after the watermark was looked up met the end of
    /// the partition without a message. If there is a message after all, which the fetch before was too slow for, it is
    /// returned.
    fn skip_control_records(
        &mut self,
        from: &BTreeMap<PartitionId, Offset>,
    ) -> Result<Option<Message>, SourceError> {
        let mut behind = BTreeMap::new();
        for (&partition, &start) in from {
            let (_, high) = self.watermarks(partition)?;
            if high > start {
                behind.insert(partition, high);
            }
        }
        if behind.is_empty() {
            return Ok(None);
        }
        // A fresh assignment drops what was fetched before, so that every event seen below is newer than the watermark.
        self.assign(from)?;
        let deadline = Instant::now() + self.settings.timeout;
        while !behind.is_empty() && Instant::now() < deadline {
            match self.consumer.poll(LINGER) {
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(high) = behind.remove(&partition) {
                        self.positions.insert(partition, high);
                    }
                }
                Some(Ok(found)) => {
                    if let Some(message) = take(&mut self.positions, &found) {
                        return Ok(Some(message));
                    }
                }
                Some(Err(error)) if !is_passing(&error) => {
                    return Err(self.settings.failed("read messages")(error));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Advances the partition's position over the message and returns it, unless it belongs to an assignment before the
/// present one.
fn take(positions: &mut BTreeMap<PartitionId, Offset>, found: &BorrowedMessage<'_>) -> Option<Message> {
    let position = positions.get_mut(&found.partition()).filter(|position| **position <= found.offset())?;
    *position = found.offset() + 1;
    Some(Message {
        partition: found.partition(),
        offset: found.offset(),
        timestamp_ms: found.timestamp().to_millis().unwrap_or_default(),
        key: found.key().map(Bytes::copy_from_slice),
        payload: Bytes::copy_from_slice(found.payload().unwrap_or_default()),
    })
}

/// Whether librdkafka recovers from the error by itself.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::ReplicaNotAvailable
        )
    )
}
