//! What consumer and producer share: configuration, logging, error translation.

use rdkafka::{
    ClientConfig, ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError,
    types::RDKafkaErrorCode,
};

use super::{super::SourceError, KafkaSettings};

/// Sends librdkafka's log to `tracing`.
#[derive(Debug, Clone, Copy)]
pub struct Traced;

impl ClientContext for Traced {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                tracing::warn!(facility, message, "librdkafka");
            }
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Traced {}

/// Returns the configuration that both clients begin with; the caller sets what correctness rests on afterwards.
pub fn base_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in &settings.properties {
        config.set(name, value);
    }
    config.set("bootstrap.servers", &settings.brokers).set("client.id", "hydromesh");
    config
}

impl KafkaSettings {
    /// Translates a client error, naming the absent topic as such.
    pub(super) fn failed(&self, action: &'static str) -> impl FnOnce(KafkaError) -> SourceError + use<> {
        let topic = self.topic.clone();
        move |source| match source.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => SourceError::NotFound { topic },
            _ => SourceError::Kafka { action, topic, source },
        }
    }
}
