//! Making a topic that is not there yet.

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::KafkaError,
    types::RDKafkaErrorCode,
};

use super::{
    super::{Source as _, SourceError},
    KafkaSettings, KafkaSource,
    client::{Traced, base_config},
};

/// Between two looks whether a new topic has come up.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

impl KafkaSettings {
    /// Makes the topic, with one replica and nothing ever removed, unless it is there; returns when it can be read.
    ///
    /// Retention is off because messages of the past keep their own times, which a broker would take for expired.
    ///
    /// # Errors
    /// [`SourceError::Kafka`] when the broker refuses or cannot be reached, or the topic does not come up in time.
    pub async fn ensure_topic(&self, partitions: i32) -> Result<(), SourceError> {
        let failed =
            |source| SourceError::Kafka { action: "create the topic", topic: self.topic.clone(), source };
        let admin: AdminClient<Traced> = base_config(self).create_with_context(Traced).map_err(failed)?;
        let topic =
            NewTopic::new(&self.topic, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        let options = AdminOptions::new().request_timeout(Some(self.timeout));
        for made in admin.create_topics(&[topic], &options).await.map_err(failed)? {
            match made {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(failed(KafkaError::AdminOp(code))),
            }
        }
        // The controller has answered; the broker may still be catching up with it.
        let source = KafkaSource::new(self.clone())?;
        let deadline = tokio::time::Instant::now() + self.timeout;
        loop {
            match source.bounds().await {
                Ok(_) => return Ok(()),
                Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}
