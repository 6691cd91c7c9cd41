//! Asks the broker for a topic's UUID. The safe wrapper has no call for it, so this file talks to librdkafka directly;
//! it is the only one that does.
#![allow(unsafe_code, reason = "librdkafka's DescribeTopics has no safe wrapper")]

use std::{ffi::CString, ptr, time::Duration};

use rdkafka::{
    bindings::{
        rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_AdminOptions_set_broker,
        rd_kafka_AdminOptions_set_request_timeout, rd_kafka_DescribeTopics,
        rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
        rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_error,
        rd_kafka_TopicDescription_topic_id, rd_kafka_Uuid_least_significant_bits,
        rd_kafka_Uuid_most_significant_bits, rd_kafka_admin_op_t, rd_kafka_error_code,
        rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy, rd_kafka_event_error,
        rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll,
    },
    client::{Client, ClientContext},
    error::KafkaError,
    metadata::MetadataBroker,
    types::{RDKafkaErrorCode, RDKafkaRespErr},
};
use uuid::Uuid;

/// Calls librdkafka's destructor for an object when it goes out of scope.
struct Owned<T> {
    object: *mut T,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(object: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self, KafkaError> {
        if object.is_null() {
            return Err(KafkaError::AdminOpCreation("librdkafka gave no object".to_owned()));
        }
        Ok(Owned { object, destroy })
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `new` refused null, the object came from librdkafka's constructor that belongs to `destroy`, and
        // nothing else destroys it.
        unsafe { (self.destroy)(self.object) }
    }
}

/// Returns the UUID of a topic, or `None` from a broker that has none to tell (before Kafka 2.8, and some that only speak
/// its protocol). Blocks up to `timeout`.
pub fn describe<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<Uuid>, KafkaError> {
    // Any broker can answer; left to itself librdkafka insists on the controller, which clients may not reach.
    let metadata = client.fetch_metadata(Some(topic), timeout)?;
    let broker = metadata.brokers().first().map(MetadataBroker::id);
    let broker = broker.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::AllBrokersDown))?;
    let name = CString::new(topic)?;
    let mut names = [name.as_ptr()];
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let handle = client.native_ptr();
    // SAFETY: `handle` lives as long as `client`, which is borrowed for the whole call. Every object is destroyed once,
    // by its `Owned`, in reverse order of creation: the event (which owns the result, the descriptions and the UUID
    // read from it) before the queue it came from. `names` outlives the collection, which copies it anyway.
    unsafe {
        let collection = Owned::new(
            rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            rd_kafka_TopicCollection_destroy,
        )?;
        let queue = Owned::new(rd_kafka_queue_new(handle), rd_kafka_queue_destroy)?;
        let options = Owned::new(
            rd_kafka_AdminOptions_new(handle, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            rd_kafka_AdminOptions_destroy,
        )?;
        check(rd_kafka_AdminOptions_set_request_timeout(options.object, millis, ptr::null_mut(), 0))?;
        check(rd_kafka_AdminOptions_set_broker(options.object, broker, ptr::null_mut(), 0))?;
        rd_kafka_DescribeTopics(handle, collection.object, options.object, queue.object);
        let event = rd_kafka_queue_poll(queue.object, millis);
        if event.is_null() {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
        }
        let event = Owned::new(event, rd_kafka_event_destroy)?;
        check(rd_kafka_event_error(event.object))?;
        let result = rd_kafka_event_DescribeTopics_result(event.object);
        let mut count = 0;
        let topics = if result.is_null() {
            ptr::null_mut()
        } else {
            rd_kafka_DescribeTopics_result_topics(result, &raw mut count)
        };
        if topics.is_null() || count != 1 {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
        }
        let description = *topics;
        let error = rd_kafka_TopicDescription_error(description);
        if !error.is_null() {
            check(rd_kafka_error_code(error))?;
        }
        let id = rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() {
            return Ok(None);
        }
        let high = rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
        let low = rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
        Ok(Some(Uuid::from_u64_pair(high, low)).filter(|id| !id.is_nil()))
    }
}

fn check(code: RDKafkaRespErr) -> Result<(), KafkaError> {
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        failed => Err(KafkaError::MetadataFetch(failed.into())),
    }
}
