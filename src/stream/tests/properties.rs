//! Properties of the segment format under truncation and damage, and of decoding under arbitrary input.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};

use crate::stream::{
    DecodeRules, JsonDecoder, Message, NewRecord, NumericTimestamps, Source, SourceError, TopicFolder,
    TopicOptions,
    record::{self, Fields, HEADER_BYTES, Parsed, Place},
};

fn new_record() -> impl Strategy<Value = NewRecord> {
    (any::<i64>(), option::of(vec(any::<u8>(), 0..12)), vec(any::<u8>(), 0..60)).prop_map(
        |(timestamp_ms, key, payload)| NewRecord {
            timestamp_ms,
            key: key.map(Bytes::from),
            payload: Bytes::from(payload),
        },
    )
}

/// Reads a one-partition topic from the start with a source that knows nothing yet.
fn read(path: &std::path::Path) -> Result<Vec<Message>, SourceError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut source = TopicFolder::open(path)?;
    Ok(runtime.block_on(source.read(&BTreeMap::from([(0, 0)]), 10_000, Duration::ZERO))?.messages)
}

fn same(found: &[Message], written: &[NewRecord]) -> bool {
    found.len() == written.len()
        && found.iter().zip(written).enumerate().all(|(index, (found, written))| {
            found.offset == index as i64
                && found.timestamp_ms == written.timestamp_ms
                && found.key == written.key
                && found.payload == written.payload
        })
}

struct Written {
    home: tempfile::TempDir,
    segment: std::path::PathBuf,
    records: Vec<NewRecord>,
    /// (file length, number of records) after each append.
    ends: Vec<(u64, usize)>,
}

impl Written {
    fn path(&self) -> std::path::PathBuf {
        self.home.path().join("topic")
    }

    fn complete_at(&self, length: u64) -> usize {
        self.ends.iter().filter(|(end, _)| *end <= length).map(|(_, count)| *count).max().unwrap_or(0)
    }
}

fn write(appends: Vec<Vec<NewRecord>>) -> Written {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = TopicFolder::create(&home.path().join("topic"), &TopicOptions::default()).expect("create");
    let segment = folder.path().join("partition-00000").join(format!("{:020}.seg", 0));
    let mut appender = folder.appender(0).expect("appender");
    let (mut records, mut ends) = (Vec::new(), Vec::new());
    for append in appends {
        let _ = appender.append(&append, None).expect("append");
        records.extend(append);
        ends.push((fs::metadata(&segment).expect("metadata").len(), records.len()));
    }
    Written { home, segment, records, ends }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever byte a file ends at, every append before it is there, nothing else is, and writing goes on.
    #[test]
    fn truncation_keeps_exactly_the_complete_appends(
        appends in vec(vec(new_record(), 1..5), 1..6),
        cut in any::<prop::sample::Index>(),
        more in vec(new_record(), 1..4),
    ) {
        let written = write(appends);
        let bytes = fs::read(&written.segment).expect("read");
        let length = HEADER_BYTES + cut.index(bytes.len() - HEADER_BYTES + 1);
        fs::write(&written.segment, &bytes[..length]).expect("write");
        let kept = written.complete_at(length as u64);
        let found = read(&written.path()).expect("read");
        prop_assert!(same(&found, &written.records[..kept]), "{} records instead of {kept}", found.len());

        let folder = TopicFolder::open(&written.path()).expect("open");
        let appended = folder.appender(0).expect("appender").append(&more, None).expect("append");
        prop_assert_eq!(appended.offsets.start, kept as i64);
        let expected = [&written.records[..kept], &more].concat();
        prop_assert!(same(&read(&written.path()).expect("read"), &expected));
    }

    /// One changed byte is either reported or costs the last append (which a crash could have damaged as well). It
    /// never changes or invents a message.
    #[test]
    fn a_changed_byte_never_invents_a_message(
        appends in vec(vec(new_record(), 1..5), 1..6),
        place in any::<prop::sample::Index>(),
        change in 1_u8..,
    ) {
        let written = write(appends);
        let mut bytes = fs::read(&written.segment).expect("read");
        let at = place.index(bytes.len());
        bytes[at] ^= change;
        fs::write(&written.segment, &bytes).expect("write");
        let before_last = written.ends.len().checked_sub(2).map_or(0, |index| written.ends[index].1);
        match read(&written.path()) {
            // The reserved bytes at the end of the header carry nothing.
            Ok(found) if found.len() == written.records.len() => {
                prop_assert!((44..HEADER_BYTES).contains(&at) && same(&found, &written.records));
            }
            Ok(found) => prop_assert!(same(&found, &written.records[..before_last])),
            Err(error) => prop_assert!(
                matches!(error, SourceError::Corrupt { .. } | SourceError::FormatVersion { .. }), "{error:?}"
            ),
        }
    }

    #[test]
    fn records_survive_encoding(
        record in new_record(), offset in any::<i64>(), producer in option::of((any::<u128>(), any::<i64>())),
        begins in any::<bool>(), ends in any::<bool>(), tail in vec(any::<u8>(), 0..20),
    ) {
        let producer = producer.map(|(id, sequence)| (uuid::Uuid::from_u128(id), sequence));
        let place = Place { begins, ends };
        let key = record.key.as_deref();
        let fields = Fields { offset, timestamp_ms: record.timestamp_ms, place, producer, key, payload: &record.payload };
        let mut bytes = Vec::new();
        record::encode(&fields, &mut bytes);
        let size = bytes.len();
        for cut in 0..size {
            let incomplete = matches!(record::parse(&bytes[..cut]), Parsed::Incomplete { needed } if needed > cut);
            prop_assert!(incomplete, "cut at {cut}");
        }
        bytes.extend(tail);
        let Parsed::Record(found) = record::parse(&bytes) else { return Err(TestCaseError::fail("not a record")) };
        prop_assert_eq!((found.offset, found.timestamp_ms, found.place), (offset, record.timestamp_ms, place));
        prop_assert_eq!((found.producer, found.size), (producer, size));
        prop_assert_eq!(found.key.map(|range| &bytes[range]), key);
        prop_assert_eq!(&bytes[found.payload], &record.payload[..]);
    }

    #[test]
    fn arbitrary_bytes_never_panic_the_parsers(bytes in vec(any::<u8>(), 0..200)) {
        let _ = record::parse(&bytes);
        let _ = record::parse_header(&bytes);
    }

    /// Every message becomes a row or a dead letter, whatever it holds.
    #[test]
    fn decoding_accounts_for_every_message(payloads in vec(prop_oneof![
        vec(any::<u8>(), 0..40).prop_map(Bytes::from),
        json_object().prop_map(|value| Bytes::from(value.to_string())),
        (json_object(), any::<prop::sample::Index>()).prop_map(|(value, cut)| {
            let text = value.to_string();
            Bytes::copy_from_slice(&text.as_bytes()[..cut.index(text.len())])
        }),
    ], 0..20)) {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int16, false),
            Field::new("b", DataType::Decimal128(10, 2), true),
            Field::new("c", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), true),
            Field::new("d", DataType::Float32, true),
            Field::new("e", DataType::Date32, true),
        ]);
        let rules = DecodeRules { numeric_timestamps: NumericTimestamps::EpochMicros, payload_cap_bytes: 10 };
        let decoder = JsonDecoder::new(&Arc::new(schema), rules).expect("decoder");
        let messages: Vec<Message> = payloads.into_iter().enumerate().map(|(index, payload)| {
            Message { partition: 0, offset: index as i64, timestamp_ms: i64::MAX - index as i64, key: None, payload }
        }).collect();
        let decoded = decoder.decode(&messages).expect("decode");
        prop_assert_eq!(decoded.batch.num_rows() + decoded.dead.len(), messages.len());
    }
}

fn json_object() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        (-40_000_i64..40_000).prop_map(serde_json::Value::from),
        any::<u64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        "[0-9eE.+:TZ-]{0,24}".prop_map(serde_json::Value::from),
        Just(serde_json::json!("2026-08-01T00:00:00+02:00")),
        Just(serde_json::json!("9999-12-31")),
        Just(serde_json::json!({"nested": [1]})),
    ];
    proptest::collection::btree_map("[a-f]", leaf, 0..6)
        .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()))
}
