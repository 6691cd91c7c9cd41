//! What every source must do, whatever it reads from.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::stream::{
    Message, NewRecord, OffsetRange, PartitionId, ProduceTarget, Source, SourceError, TimestampFrom,
    open_source, produce,
};

/// Long enough for a loaded machine; a passing test never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long to look before believing that there is nothing.
pub const GLANCE: Duration = Duration::from_millis(300);

/// Makes topics of one kind.
#[async_trait]
pub trait Rig: Send + Sync {
    async fn create(&self, partitions: i32) -> ProduceTarget;
    /// Names a topic that does not exist.
    async fn absent(&self) -> ProduceTarget;
    /// Removes the topic and creates it again under its name; the answer may name another broker.
    async fn recreate(&self, target: &ProduceTarget, partitions: i32) -> ProduceTarget;
    async fn append(&self, target: &ProduceTarget, partition: PartitionId, records: Vec<NewRecord>);
}

/// Writes one test per check of the suite for a rig that `$make` makes; a rig that is `None` here has said why.
macro_rules! conforms {
    ($make:expr) => {
        crate::stream::tests::suite::conforms!($make;
            an_empty_topic_is_known_and_empty,
            an_absent_topic_is_not_found,
            messages_come_in_order_and_ranges_chain,
            keys_times_and_bytes_survive,
            reading_resumes_after_a_restart,
            offsets_out_of_range_are_refused,
            a_reader_follows_a_writer,
            a_waiting_reader_wakes_for_new_data,
            a_recreated_topic_has_another_id,
            a_hundred_thousand_messages_are_neither_lost_nor_doubled,
            produced_lines_are_read_back,
        );
    };
    ($make:expr; $($check:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                if let Some(rig) = $make {
                    crate::stream::tests::suite::$check(&rig).await;
                }
            }
        )+
    };
}
pub(crate) use conforms;

pub fn records(range: std::ops::Range<usize>) -> Vec<NewRecord> {
    range
        .map(|number| NewRecord {
            timestamp_ms: 1_785_000_000_000 + number as i64,
            key: None,
            payload: Bytes::from(format!("message {number}")),
        })
        .collect()
}

fn open(target: &ProduceTarget) -> Box<dyn Source> {
    open_source(target).expect("the source opens")
}

/// Reads from `from` on until every partition's high watermark at the start is reached.
pub async fn read_all(
    source: &mut dyn Source,
    mut from: BTreeMap<PartitionId, i64>,
    max_messages: usize,
) -> (Vec<Message>, BTreeMap<PartitionId, i64>) {
    let bounds = source.bounds().await.expect("bounds");
    let deadline = Instant::now() + PATIENCE;
    let mut messages = Vec::new();
    while from.iter().any(|(partition, at)| *at < bounds[partition].1) {
        assert!(Instant::now() < deadline, "stuck at {from:?} of {bounds:?}");
        let batch = source.read(&from, max_messages, PATIENCE).await.expect("read");
        assert!(batch.messages.len() <= max_messages);
        for (partition, (start, end)) in &batch.ranges {
            assert_eq!(*start, from[partition], "the range begins where it was asked for");
            let offsets: Vec<i64> = batch
                .messages
                .iter()
                .filter(|message| message.partition == *partition)
                .map(|m| m.offset)
                .collect();
            assert!(
                offsets.iter().all(|offset| (start..end).contains(&offset)),
                "{offsets:?} in {start}..{end}"
            );
        }
        assert_eq!(batch.ranges.len(), from.len());
        from = batch.next();
        messages.extend(batch.messages);
    }
    (messages, from)
}

/// Every partition from its first message: should some be gone already, the source says so.
async fn start_of(source: &dyn Source) -> BTreeMap<PartitionId, i64> {
    source.partitions().await.expect("partitions").into_iter().map(|partition| (partition, 0)).collect()
}

fn texts(messages: &[Message], partition: PartitionId) -> Vec<String> {
    let own = messages.iter().filter(|message| message.partition == partition);
    own.map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("message {number}")).collect()
}

pub async fn an_empty_topic_is_known_and_empty(rig: &dyn Rig) {
    let target = rig.create(2).await;
    let mut source = open(&target);
    assert_eq!(source.partitions().await.expect("partitions"), vec![0, 1]);
    let nothing: BTreeMap<i32, OffsetRange> = BTreeMap::from([(0, (0, 0)), (1, (0, 0))]);
    assert_eq!(source.bounds().await.expect("bounds"), nothing);
    let batch = source.read(&BTreeMap::from([(0, 0), (1, 0)]), 10, GLANCE).await.expect("read");
    assert!(batch.messages.is_empty());
    assert_eq!(batch.ranges, nothing);
    let id = source.topic_id().await.expect("id");
    assert!(!id.is_empty());
    assert_eq!(
        open(&target).topic_id().await.expect("id"),
        id,
        "the id belongs to the topic, not to the source"
    );
}

pub async fn an_absent_topic_is_not_found(rig: &dyn Rig) {
    let target = rig.absent().await;
    let found = match open_source(&target) {
        Ok(source) => source.bounds().await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(found, Err(SourceError::NotFound { .. })), "{found:?}");
}

pub async fn messages_come_in_order_and_ranges_chain(rig: &dyn Rig) {
    let target = rig.create(3).await;
    rig.append(&target, 0, records(0..50)).await;
    rig.append(&target, 2, records(100..120)).await;
    rig.append(&target, 0, records(50..60)).await;
    let mut source = open(&target);
    let start = start_of(source.as_ref()).await;
    let (messages, end) = read_all(source.as_mut(), start, 7).await;
    assert_eq!(texts(&messages, 0), numbered(0..60));
    assert_eq!(texts(&messages, 1), numbered(0..0));
    assert_eq!(texts(&messages, 2), numbered(100..120));
    assert_eq!(end, BTreeMap::from([(0, 60), (1, 0), (2, 20)]));
    // Any part of the topic can be asked for again, alone.
    let (again, _) = read_all(source.as_mut(), BTreeMap::from([(0, 58)]), 100).await;
    assert_eq!(texts(&again, 0), numbered(58..60));
}

pub async fn keys_times_and_bytes_survive(rig: &dyn Rig) {
    let target = rig.create(1).await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let given = vec![
        NewRecord {
            timestamp_ms: 1_785_000_000_001,
            key: Some(Bytes::from_static(b"k\0\xFF")),
            payload: all_bytes.into(),
        },
        NewRecord { timestamp_ms: 1_785_000_000_000, key: None, payload: Bytes::from_static(b"{}") },
        NewRecord {
            timestamp_ms: 1_785_000_000_002,
            key: Some(Bytes::from_static(b"large")),
            payload: vec![7; 900_000].into(),
        },
    ];
    rig.append(&target, 0, given.clone()).await;
    let (messages, _) = read_all(open(&target).as_mut(), BTreeMap::from([(0, 0)]), 10).await;
    assert_eq!(messages.len(), given.len());
    for (message, given) in messages.iter().zip(&given) {
        assert_eq!(message.timestamp_ms, given.timestamp_ms);
        assert_eq!(message.key, given.key);
        assert_eq!(message.payload, given.payload);
    }
}

pub async fn reading_resumes_after_a_restart(rig: &dyn Rig) {
    let target = rig.create(2).await;
    rig.append(&target, 0, records(0..30)).await;
    rig.append(&target, 1, records(100..130)).await;
    let first = open(&target).read(&BTreeMap::from([(0, 0), (1, 0)]), 25, PATIENCE).await.expect("read");
    assert!(!first.messages.is_empty());
    rig.append(&target, 0, records(30..40)).await;
    let (rest, end) = read_all(open(&target).as_mut(), first.next(), 1000).await;
    let all: Vec<Message> = first.messages.into_iter().chain(rest).collect();
    assert_eq!(texts(&all, 0), numbered(0..40));
    assert_eq!(texts(&all, 1), numbered(100..130));
    assert_eq!(end, BTreeMap::from([(0, 40), (1, 30)]));
}

pub async fn offsets_out_of_range_are_refused(rig: &dyn Rig) {
    let target = rig.create(1).await;
    rig.append(&target, 0, records(0..5)).await;
    let mut source = open(&target);
    for requested in [-1, 6] {
        let refused = source.read(&BTreeMap::from([(0, requested)]), 10, GLANCE).await;
        let Err(SourceError::OffsetOutOfRange { partition, requested: named, low, high, .. }) = refused
        else {
            panic!("{requested}: {refused:?}");
        };
        assert_eq!((partition, named, low, high), (0, requested, 0, 5));
    }
    let refused = source.read(&BTreeMap::from([(3, 0)]), 10, GLANCE).await;
    assert!(matches!(refused, Err(SourceError::UnknownPartition { partition: 3, .. })), "{refused:?}");
    // The refusals leave the source usable, and the end itself may be asked for.
    let batch = source.read(&BTreeMap::from([(0, 5)]), 10, GLANCE).await.expect("read");
    assert_eq!(batch.ranges, BTreeMap::from([(0, (5, 5))]));
}

pub async fn a_reader_follows_a_writer(rig: &dyn Rig) {
    let target = rig.create(1).await;
    let mut source = open(&target);
    let reading = async {
        let (mut messages, mut from) = (Vec::new(), BTreeMap::from([(0, 0)]));
        let deadline = Instant::now() + PATIENCE;
        while messages.len() < 500 {
            assert!(Instant::now() < deadline, "only {} messages came", messages.len());
            let batch = source.read(&from, 64, GLANCE).await.expect("read");
            from = batch.next();
            messages.extend(batch.messages);
        }
        messages
    };
    let writing = async {
        for start in (0..500).step_by(25) {
            rig.append(&target, 0, records(start..start + 25)).await;
        }
    };
    let (messages, ()) = tokio::join!(reading, writing);
    assert_eq!(texts(&messages, 0), numbered(0..500));
}

pub async fn a_waiting_reader_wakes_for_new_data(rig: &dyn Rig) {
    let target = rig.create(1).await;
    let mut source = open(&target);
    let from = BTreeMap::from([(0, 0)]);
    let (batch, ()) = tokio::join!(source.read(&from, 10, PATIENCE), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        rig.append(&target, 0, records(0..1)).await;
    });
    assert_eq!(texts(&batch.expect("read").messages, 0), numbered(0..1));
}

pub async fn a_recreated_topic_has_another_id(rig: &dyn Rig) {
    let target = rig.create(1).await;
    rig.append(&target, 0, records(0..3)).await;
    let mut source = open(&target);
    let (_, from) = read_all(source.as_mut(), BTreeMap::from([(0, 0)]), 10).await;
    let old = source.topic_id().await.expect("id");
    let again = rig.recreate(&target, 1).await;
    rig.append(&again, 0, records(0..6)).await;
    assert_ne!(open(&again).topic_id().await.expect("id"), old);
    if again == target {
        // A source that lived through it must not hand out the new topic's messages under the old one's offsets.
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the re-creation was not noticed");
            match source.read(&from, 10, GLANCE).await {
                Err(SourceError::Replaced { expected, .. }) => break assert_eq!(expected, old),
                Ok(batch) => {
                    assert!(batch.messages.is_empty(), "messages of the new topic under old offsets");
                }
                // A broker may report the topic as absent, or the offset as gone, for a moment.
                Err(_) => {}
            }
        }
    }
}

pub async fn a_hundred_thousand_messages_are_neither_lost_nor_doubled(rig: &dyn Rig) {
    let target = rig.create(4).await;
    for chunk in 0..20 {
        for partition in 0..4 {
            let start = (partition as usize) * 25_000 + chunk * 1250;
            rig.append(&target, partition, records(start..start + 1250)).await;
        }
    }
    let mut source = open(&target);
    let start = start_of(source.as_ref()).await;
    let (messages, end) = read_all(source.as_mut(), start, 8192).await;
    assert_eq!(messages.len(), 100_000);
    for partition in 0..4 {
        let start = partition as usize * 25_000;
        assert!(
            texts(&messages, partition) == numbered(start..start + 25_000),
            "partition {partition} differs"
        );
        assert_eq!(end[&partition], 25_000);
    }
}

pub async fn produced_lines_are_read_back(rig: &dyn Rig) {
    let target = rig.create(4).await;
    let line = |n: usize| {
        format!(r#"{{"id":"customer-{}","n":{n},"at":"2026-08-01T00:00:{:02}+02:00"}}"#, n % 10, n % 60)
    };
    let lines: Vec<String> = (0..2500).map(line).collect();
    let done =
        produce(&target, lines.iter().cloned().map(Ok), Some("id"), TimestampFrom::Field("at".to_owned()));
    let done = done.await.expect("produce");
    assert_eq!(done.messages, 2500);
    let mut source = open(&target);
    let start = start_of(source.as_ref()).await;
    let (messages, end) = read_all(source.as_mut(), start, 1000).await;
    assert_eq!(messages.len(), 2500);
    for (partition, (start, until)) in &done.ranges {
        assert_eq!((0, end[partition]), (*start, *until));
    }
    for message in &messages {
        let key = message.key.as_deref().expect("a key");
        assert_eq!(message.partition, crate::stream::partition_for_key(key, 4));
        let value: serde_json::Value = serde_json::from_slice(&message.payload).expect("the line as given");
        assert_eq!(value["id"].as_str().expect("id").as_bytes(), key);
        let at =
            chrono::DateTime::parse_from_rfc3339(value["at"].as_str().expect("at")).expect("a timestamp");
        assert_eq!(message.timestamp_ms, at.timestamp_millis());
    }
    let mut seen: Vec<String> =
        messages.iter().map(|m| String::from_utf8_lossy(&m.payload).into_owned()).collect();
    seen.sort_unstable();
    let mut expected = lines;
    expected.sort_unstable();
    assert!(seen == expected, "every line is there once");
}
