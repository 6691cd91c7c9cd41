//! Apache Kafka (and what speaks its protocol): where it is, and, with the feature `kafka`, its client.

use std::{collections::BTreeMap, fmt, time::Duration};

#[cfg(feature = "kafka")]
mod client;
#[cfg(feature = "kafka")]
mod producer;
#[cfg(feature = "kafka")]
mod source;
#[cfg(feature = "kafka")]
mod topic;
#[cfg(feature = "kafka")]
mod topic_id;

#[cfg(feature = "kafka")]
pub use self::{producer::KafkaProducer, source::KafkaSource};

/// Where a Kafka topic is and how to get there.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// Comma-separated `host:port` list to begin with.
    pub brokers: String,
    pub topic: String,
    /// Further librdkafka properties, such as `security.protocol` and SASL credentials. They are set before the ones
    /// that correctness rests on, which therefore cannot be changed here.
    pub properties: BTreeMap<String, String>,
    /// How long a request to the brokers may take.
    pub timeout: Duration,
}

impl KafkaSettings {
    /// Returns settings for a broker without authentication and a request timeout of 10 s.
    pub fn new(brokers: impl Into<String>, topic: impl Into<String>) -> Self {
        KafkaSettings {
            brokers: brokers.into(),
            topic: topic.into(),
            properties: BTreeMap::new(),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Names properties without their values, which may be secrets.
impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("properties", &self.properties.keys())
            .field("timeout", &self.timeout)
            .finish()
    }
}
