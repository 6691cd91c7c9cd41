//! Writing to a Kafka topic: every message acknowledged by all replicas, none doubled by the client's own retries.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    error::KafkaError,
    producer::{FutureProducer, FutureRecord, Producer, future_producer::DeliveryFuture},
    types::RDKafkaErrorCode,
};

use super::{
    super::{NewRecord, Offset, OffsetRange, PartitionId, SourceError},
    KafkaSettings,
    client::{Traced, base_config},
};

/// How long to wait when librdkafka's queue is full before offering the message again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);

/// Produces to one topic. The partition of each message is the caller's choice, so that it is the same for all targets.
#[derive(Clone)]
pub struct KafkaProducer {
    settings: KafkaSettings,
    producer: FutureProducer<Traced>,
}

impl std::fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaProducer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl KafkaProducer {
    /// Returns a producer; the brokers are first contacted when it is used.
    ///
    /// # Errors
    ///
    /// [`SourceError::Kafka`] for settings that librdkafka does not know.
    pub fn new(settings: KafkaSettings) -> Result<Self, SourceError> {
        let mut config = base_config(&settings);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", settings.timeout.as_millis().max(1000).to_string());
        let producer = config.create_with_context(Traced).map_err(settings.failed("create a producer"))?;
        Ok(KafkaProducer { settings, producer })
    }

    /// Returns how many partitions the topic has.
    ///
    /// # Errors
    ///
    /// [`SourceError::NotFound`] if there is no such topic: it is never created by accident.
    pub async fn partition_count(&self) -> Result<i32, SourceError> {
        let settings = self.settings.clone();
        let producer = self.producer.clone();
        let task = tokio::task::spawn_blocking(move || {
            // The topic list is asked for as a whole, because asking for one topic would create it on some brokers.
            let metadata = producer.client().fetch_metadata(None, settings.timeout);
            let metadata = metadata.map_err(settings.failed("list the topic's partitions"))?;
            let topic = metadata.topics().iter().find(|topic| topic.name() == settings.topic);
            match topic.map(|topic| i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)) {
                Some(count) if count > 0 => Ok(count),
                _ => Err(SourceError::NotFound { topic: settings.topic }),
            }
        });
        task.await.map_err(SourceError::TaskEnded)?
    }

    /// Sends the records, in order within each partition, and returns after all are durable. The ranges tell which
    /// offsets they got; other producers' messages may lie in between.
    ///
    /// # Errors
    ///
    /// [`SourceError::Kafka`] for the first record that failed; those before it in its partition are durable.
    pub async fn send(
        &self,
        records: &[(PartitionId, NewRecord)],
    ) -> Result<BTreeMap<PartitionId, OffsetRange>, SourceError> {
        let mut deliveries = Vec::with_capacity(records.len());
        for (partition, record) in records {
            deliveries.push(self.offer(*partition, record).await?);
        }
        let mut ranges: BTreeMap<PartitionId, OffsetRange> = BTreeMap::new();
        let mut failure = None;
        for delivery in deliveries {
            // All are awaited, also after a failure: what is still on its way must not arrive behind the caller's back.
            match delivery.await.map_err(|_| KafkaError::Canceled) {
                Ok(Ok(done)) => {
                    let range = ranges.entry(done.partition).or_insert((Offset::MAX, Offset::MIN));
                    *range = (range.0.min(done.offset), range.1.max(done.offset + 1));
                }
                Ok(Err((error, _))) | Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(ranges), |error| Err(self.settings.failed("produce messages")(error)))
    }

    async fn offer(&self, partition: PartitionId, record: &NewRecord) -> Result<DeliveryFuture, SourceError> {
        loop {
            let mut message = FutureRecord::<[u8], [u8]>::to(&self.settings.topic)
                .partition(partition)
                .payload(record.payload.as_ref())
                .timestamp(record.timestamp_ms);
            if let Some(key) = &record.key {
                message = message.key(key.as_ref());
            }
            match self.producer.send_result(message) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((error, _)) => return Err(self.settings.failed("produce messages")(error)),
            }
        }
    }
}
