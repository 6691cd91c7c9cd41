//! The suite against librdkafka's in-memory cluster and, where one is given, a real broker.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};

use super::suite::{PATIENCE, Rig, conforms, read_all, records};
use crate::stream::{
    KafkaProducer, KafkaSettings, KafkaSource, NewRecord, PartitionId, ProduceTarget, Source, SourceError,
};

fn settings(target: &ProduceTarget) -> &KafkaSettings {
    match target {
        ProduceTarget::Kafka(settings) => settings,
        ProduceTarget::TopicFolder(_) => panic!("not a Kafka topic"),
    }
}

/// One producer per topic, because each has to introduce itself to the brokers first.
#[derive(Default)]
struct Producers(Mutex<BTreeMap<(String, String), KafkaProducer>>);

impl Producers {
    async fn send(&self, target: &ProduceTarget, partition: PartitionId, records: Vec<NewRecord>) {
        let settings = settings(target);
        let place = (settings.brokers.clone(), settings.topic.clone());
        let new = || KafkaProducer::new(settings.clone()).expect("producer");
        let producer = self.0.lock().expect("lock").entry(place).or_insert_with(new).clone();
        let placed: Vec<_> = records.into_iter().map(|record| (partition, record)).collect();
        producer.send(&placed).await.expect("send");
    }
}

mod mock {
    use super::*;

    /// Each topic has an in-memory cluster of its own, which lives as long as the client that made it.
    #[derive(Default)]
    struct MockRig {
        clusters: Mutex<Vec<BaseProducer>>,
        producers: Producers,
    }

    impl MockRig {
        fn cluster(&self, topic: Option<i32>) -> ProduceTarget {
            let owner: BaseProducer =
                ClientConfig::new().set("test.mock.num.brokers", "1").create().expect("mock cluster");
            let brokers = {
                let cluster = owner.client().mock_cluster().expect("mock cluster");
                if let Some(partitions) = topic {
                    cluster.create_topic("events", partitions, 1).expect("topic");
                }
                cluster.bootstrap_servers()
            };
            self.clusters.lock().expect("lock").push(owner);
            ProduceTarget::Kafka(KafkaSettings::new(brokers, "events"))
        }
    }

    #[async_trait]
    impl Rig for MockRig {
        async fn create(&self, partitions: i32) -> ProduceTarget {
            self.cluster(Some(partitions))
        }

        async fn absent(&self) -> ProduceTarget {
            self.cluster(None)
        }

        async fn recreate(&self, _: &ProduceTarget, partitions: i32) -> ProduceTarget {
            self.cluster(Some(partitions))
        }

        async fn append(&self, target: &ProduceTarget, partition: PartitionId, records: Vec<NewRecord>) {
            self.producers.send(target, partition, records).await;
        }
    }

    conforms!(Some(MockRig::default()));

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_broker_that_cannot_be_reached_is_an_error_and_not_an_empty_topic() {
        // Nothing listens on the discard port of loopback.
        let mut settings = KafkaSettings::new("127.0.0.1:9", "events");
        settings.timeout = Duration::from_millis(500);
        let mut source = KafkaSource::new(settings).expect("source");
        let refused = source.read(&BTreeMap::from([(0, 0)]), 10, Duration::from_millis(100)).await;
        assert!(matches!(refused, Err(SourceError::Kafka { .. })), "{refused:?}");
    }

    #[test]
    fn settings_do_not_print_secrets() {
        let mut settings = KafkaSettings::new("b:1", "t");
        settings.properties.insert("sasl.password".to_owned(), "hunter2".to_owned());
        let printed = format!("{settings:?}");
        assert!(printed.contains("sasl.password") && !printed.contains("hunter2"), "{printed}");
    }
}

mod real {
    use super::*;

    const VARIABLE: &str = "HYDROMESH_TEST_KAFKA";

    struct RealRig {
        brokers: String,
        producers: Producers,
    }

    fn rig() -> Option<RealRig> {
        let brokers = std::env::var(VARIABLE).ok().filter(|brokers| !brokers.is_empty());
        if brokers.is_none() {
            eprintln!(
                "skipped: {VARIABLE} is not set to host:port (scripts/services/kafka.sh start prints one)"
            );
        }
        Some(RealRig { brokers: brokers?, producers: Producers::default() })
    }

    impl RealRig {
        fn admin(&self) -> AdminClient<DefaultClientContext> {
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().expect("admin client")
        }

        fn fresh(&self) -> KafkaSettings {
            KafkaSettings::new(&self.brokers, format!("hydromesh-test-{}", uuid::Uuid::new_v4()))
        }

        async fn make(&self, topic: &str, partitions: i32) {
            // The events have fixed dates, which a broker's usual retention takes for long past.
            let topic =
                NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
            let made = self.admin().create_topics(&[topic], &AdminOptions::new()).await.expect("create");
            made[0].as_ref().expect("created");
        }
    }

    #[async_trait]
    impl Rig for RealRig {
        async fn create(&self, partitions: i32) -> ProduceTarget {
            let settings = self.fresh();
            self.make(&settings.topic, partitions).await;
            // The controller has answered, the broker may still be catching up with it.
            let source = KafkaSource::new(settings.clone()).expect("source");
            let deadline = std::time::Instant::now() + PATIENCE;
            while source.bounds().await.is_err() {
                assert!(std::time::Instant::now() < deadline, "the new topic did not appear");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            ProduceTarget::Kafka(settings)
        }

        async fn absent(&self) -> ProduceTarget {
            ProduceTarget::Kafka(self.fresh())
        }

        async fn recreate(&self, target: &ProduceTarget, partitions: i32) -> ProduceTarget {
            let topic = &settings(target).topic;
            let gone = self.admin().delete_topics(&[topic], &AdminOptions::new()).await.expect("delete");
            gone[0].as_ref().expect("deleted");
            let source = KafkaSource::new(settings(target).clone()).expect("source");
            let deadline = std::time::Instant::now() + PATIENCE;
            while !matches!(source.topic_id().await, Err(SourceError::NotFound { .. })) {
                assert!(std::time::Instant::now() < deadline, "the topic did not go");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            self.make(topic, partitions).await;
            self.producers.0.lock().expect("lock").clear();
            target.clone()
        }

        async fn append(&self, target: &ProduceTarget, partition: PartitionId, records: Vec<NewRecord>) {
            self.producers.send(target, partition, records).await;
        }
    }

    conforms!(rig());

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn transaction_markers_are_passed_and_aborted_messages_hidden() {
        let Some(rig) = rig() else { return };
        let target = rig.create(1).await;
        let (brokers, topic) = (rig.brokers.clone(), settings(&target).topic.clone());
        let writing = tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = ClientConfig::new()
                .set("bootstrap.servers", &brokers)
                .set("transactional.id", format!("{topic}-writer"))
                .create()
                .expect("producer");
            producer.init_transactions(PATIENCE).expect("init");
            for (text, commit) in
                [("kept", true), ("aborted", false), ("kept too", true), ("aborted last", false)]
            {
                producer.begin_transaction().expect("begin");
                producer.send(BaseRecord::<(), str>::to(&topic).payload(text).partition(0)).expect("send");
                producer.flush(PATIENCE).expect("flush");
                if commit {
                    producer.commit_transaction(PATIENCE).expect("commit");
                } else {
                    producer.abort_transaction(PATIENCE).expect("abort");
                }
            }
        });
        writing.await.expect("writing");
        let mut source = KafkaSource::new(settings(&target).clone()).expect("source");
        // Four messages and four markers: offsets 0 to 7, of which two are visible.
        assert_eq!(source.bounds().await.expect("bounds"), BTreeMap::from([(0, (0, 8))]));
        let (mut texts, mut from) = (Vec::new(), BTreeMap::from([(0, 0)]));
        let deadline = std::time::Instant::now() + PATIENCE;
        while from[&0] < 8 {
            assert!(std::time::Instant::now() < deadline, "stuck at {from:?}");
            let batch = source.read(&from, 10, Duration::from_secs(1)).await.expect("read");
            assert_eq!(batch.ranges[&0].0, from[&0]);
            from = batch.next();
            texts.extend(batch.messages.iter().map(|m| String::from_utf8_lossy(&m.payload).into_owned()));
        }
        assert_eq!(texts, ["kept", "kept too"]);
        assert_eq!(from, BTreeMap::from([(0, 8)]));
        // What comes afterwards is found from the chained offset, by this source and a new one.
        rig.append(&target, 0, records(0..2)).await;
        for source in [&mut source, &mut KafkaSource::new(settings(&target).clone()).expect("source")] {
            let (messages, end) = read_all(source, from.clone(), 10).await;
            assert_eq!((messages.len(), messages[0].offset, end[&0]), (2, 8, 10));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn retention_that_passed_the_offset_is_an_error() {
        let Some(rig) = rig() else { return };
        let target = rig.create(1).await;
        rig.append(&target, 0, records(0..10)).await;
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition_offset(&settings(&target).topic, 0, rdkafka::Offset::Offset(4)).expect("offset");
        rig.admin().delete_records(&list, &AdminOptions::new()).await.expect("delete records");
        let mut source = KafkaSource::new(settings(&target).clone()).expect("source");
        let refused = source.read(&BTreeMap::from([(0, 2)]), 10, PATIENCE).await;
        assert!(
            matches!(refused, Err(SourceError::OffsetOutOfRange { low: 4, high: 10, .. })),
            "{refused:?}"
        );
    }
}
