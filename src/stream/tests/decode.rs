//! Decoding: what is taken, what is set aside, and the words for it.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef,
        TimeUnit, TimestampMicrosecondType,
    },
};
use bytes::Bytes;

use crate::stream::{
    DecodeRules, Decoded, DecoderError, JsonDecoder, Message, NumericTimestamps, dead_letter_batch,
    dead_letter_schema,
};

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("price", DataType::Decimal128(6, 2), true),
        Field::new("member", DataType::Boolean, true),
        Field::new("born", DataType::Date32, true),
        Field::new("ts", utc(), true),
        Field::new("small", DataType::Int8, true),
        Field::new("count", DataType::UInt32, true),
        Field::new("ratio", DataType::Float32, true),
    ]))
}

fn messages(payloads: &[&[u8]]) -> Vec<Message> {
    let message = |(index, payload): (usize, &&[u8])| Message {
        partition: 3,
        offset: 100 + index as i64,
        timestamp_ms: 1_785_000_000_123 + index as i64,
        key: None,
        payload: Bytes::copy_from_slice(payload),
    };
    payloads.iter().enumerate().map(message).collect()
}

fn decode(payloads: &[&[u8]]) -> Decoded {
    let decoder = JsonDecoder::new(&schema(), DecodeRules::default()).expect("decoder");
    decoder.decode(&messages(payloads)).expect("decode")
}

#[test]
fn every_type_is_read() {
    let decoded = decode(&[
        br#"{"id":1,"name":"Zo\u00eb","amount":2,"price":12.5,"member":true,"born":"1999-12-31",
            "ts":"2026-08-01T02:00:00.000001+02:00","small":-128,"count":4294967295,"ratio":0.5}"#,
        br#"{"id":-9223372036854775808,"price":"-0.07","ts":"2026-08-01T00:00:00Z"}"#,
        br#"{"id":3,"name":null,"price":1e3}"#,
    ]);
    assert!(decoded.dead.is_empty(), "{:?}", decoded.dead);
    let batch = &decoded.batch;
    assert_eq!(batch.num_rows(), 3);
    let column = |name: &str| batch.column_by_name(name).expect("column").clone();
    assert_eq!(column("id").as_primitive::<Int64Type>().values(), &[1, i64::MIN, 3]);
    assert_eq!(column("name").as_string::<i32>().value(0), "Zoë");
    assert_eq!(column("name").null_count(), 2);
    assert_eq!(column("amount").as_primitive::<Float64Type>().value(0).to_bits(), 2.0_f64.to_bits());
    assert_eq!(column("price").as_primitive::<Decimal128Type>().values(), &[1250, -7, 100_000]);
    assert!(column("member").as_boolean().value(0));
    assert_eq!(column("born").as_primitive::<Date32Type>().value(0), 10_956);
    let times = column("ts");
    let times = times.as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.value(0) - times.value(1), 1, "the same instant, one microsecond apart");
    assert_eq!(times.value(1), 1_785_542_400_000_000);
    assert_eq!(times.data_type(), &utc());
    assert_eq!(column("_partition").as_primitive::<Int32Type>().values(), &[3, 3, 3]);
    assert_eq!(column("_offset").as_primitive::<Int64Type>().values(), &[100, 101, 102]);
    let available = column("_available_at");
    assert_eq!(available.as_primitive::<TimestampMicrosecondType>().value(0), 1_785_000_000_123_000);
    assert_eq!(available.data_type(), &utc());
}

#[test]
fn each_kind_of_malformed_message_has_its_reason_and_stops_nothing() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "the payload is empty"),
        (b"not json", "the payload is not JSON: expected ident at line 1 column 2"),
        (br#"{"id":1"#, "the payload is not JSON: EOF while parsing an object at line 1 column 7"),
        (br#"{"id":1} {"id":2}"#, "the payload is not JSON: trailing characters at line 1 column 10"),
        (
            b"{\"id\":1,\"name\":\"\xFF\"}",
            "the payload is not JSON: invalid unicode code point at line 1 column 17",
        ),
        (br#"[{"id":1}]"#, "the payload is not a JSON object but an array"),
        (b"7", "the payload is not a JSON object but the number 7"),
        (br#"{"name":"x"}"#, "field id is required but missing"),
        (br#"{"id":null}"#, "field id is required but null"),
        (br#"{"id":"12"}"#, r#"field id should be a whole number but is the text "12""#),
        (br#"{"id":12.0}"#, "field id should be a whole number of at most 64 bits but is the number 12.0"),
        (br#"{"id":9223372036854775808}"#, "field id is 9223372036854775808, which does not fit Int64"),
        (br#"{"id":true}"#, "field id should be a whole number but is the boolean true"),
        (br#"{"id":1,"small":128}"#, "field small is 128, which does not fit Int8"),
        (br#"{"id":1,"count":-1}"#, "field count is -1, which does not fit UInt32"),
        (br#"{"id":1,"ratio":1e39}"#, "field ratio is 1e+39, which does not fit Float32"),
        (br#"{"id":1,"amount":NaN}"#, "the payload is not JSON: expected value at line 1 column 18"),
        (br#"{"id":1,"amount":1e999}"#, "the payload is not JSON: number out of range at line 1 column 22"),
        (br#"{"id":1,"amount":"NaN"}"#, r#"field amount should be a number but is the text "NaN""#),
        (br#"{"id":1,"member":1}"#, "field member should be a boolean but is the number 1"),
        (br#"{"id":1,"name":5}"#, "field name should be text but is the number 5"),
        (br#"{"id":1,"name":{}}"#, "field name should be text but is an object"),
        (
            br#"{"id":1,"born":"1999-02-30"}"#,
            r#"field born should be a date such as "2026-08-01" but is the text "1999-02-30""#,
        ),
        (
            br#"{"id":1,"born":"1999-2-3"}"#,
            r#"field born should be a date such as "2026-08-01" but is the text "1999-2-3""#,
        ),
        (
            br#"{"id":1,"ts":"yesterday"}"#,
            r#"field ts should be a timestamp such as "2026-08-01T12:00:00Z" (RFC 3339, with an offset) but is the text "yesterday": premature end of input"#,
        ),
        (
            br#"{"id":1,"ts":"2026-08-01T12:00:00"}"#,
            r#"field ts should be a timestamp such as "2026-08-01T12:00:00Z" (RFC 3339, with an offset) but is the text "2026-08-01T12:00:00": premature end of input"#,
        ),
        (
            br#"{"id":1,"ts":1785000000000}"#,
            r#"field ts should be a timestamp such as "2026-08-01T12:00:00Z" but is the number 1785000000000"#,
        ),
        (
            br#"{"id":1,"price":0.125}"#,
            "field price is 0.125, which does not fit a decimal of 6 digits, 2 of them behind the point",
        ),
        (
            br#"{"id":1,"price":10000}"#,
            "field price is 10000, which does not fit a decimal of 6 digits, 2 of them behind the point",
        ),
        (br#"{"id":1,"price":"1,5"}"#, r#"field price should be a decimal number but is the text "1,5""#),
    ];
    for (payload, reason) in cases {
        let decoded = decode(&[br#"{"id":1}"#, payload, br#"{"id":2}"#]);
        let [dead] = &decoded.dead[..] else {
            panic!("{}: {:?}", String::from_utf8_lossy(payload), decoded.dead)
        };
        assert_eq!(dead.reason, *reason);
        assert_eq!((dead.partition, dead.offset, dead.timestamp_ms), (3, 101, 1_785_000_000_124));
        assert_eq!(dead.payload, String::from_utf8_lossy(payload));
        assert_eq!(
            decoded.batch.column(0).as_primitive::<Int64Type>().values(),
            &[1, 2],
            "the neighbours are rows"
        );
    }
}

#[test]
fn unknown_fields_are_counted_within_bounds() {
    let decoded = decode(&[br#"{"id":1,"x":1,"y":2}"#, br#"{"id":2,"x":{}}"#, br#"{"id":"bad","z":1}"#]);
    let counts: Vec<_> = decoded.unknown_fields.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(counts, [("x", 2), ("y", 1)]);
    let many: Vec<String> = (0..500).map(|n| format!(r#"{{"id":1,"field{n}":0}}"#)).collect();
    let decoded = decode(&many.iter().map(String::as_bytes).collect::<Vec<_>>());
    assert_eq!(decoded.unknown_fields.len(), 65);
    assert_eq!(decoded.unknown_fields["(other fields)"], 500 - 64);
}

#[test]
fn dead_payloads_are_cut_at_a_character() {
    let rules = DecodeRules { payload_cap_bytes: 5, ..DecodeRules::default() };
    let decoder = JsonDecoder::new(&schema(), rules).expect("decoder");
    let decoded = decoder.decode(&messages(&["abcdé and more".as_bytes(), b"short"])).expect("decode");
    let payloads: Vec<_> = decoded.dead.iter().map(|dead| dead.payload.as_str()).collect();
    assert_eq!(payloads, ["abcd…", "short"]);
    let table = dead_letter_batch(&decoded.dead).expect("batch");
    assert_eq!(table.schema(), dead_letter_schema());
    assert_eq!(table.column_by_name("payload").expect("column").as_string::<i32>().value(0), "abcd…");
}

#[test]
fn numbers_are_timestamps_only_where_the_rules_say_so() {
    for (numeric_timestamps, number) in [
        (NumericTimestamps::EpochMillis, "1785542400000"),
        (NumericTimestamps::EpochMicros, "1785542400000000"),
    ] {
        let decoder =
            JsonDecoder::new(&schema(), DecodeRules { numeric_timestamps, ..DecodeRules::default() });
        let text = format!(r#"{{"id":1,"ts":{number}}}"#);
        let decoded = decoder.expect("decoder").decode(&messages(&[text.as_bytes()])).expect("decode");
        let times = decoded.batch.column_by_name("ts").expect("ts").clone();
        assert_eq!(times.as_primitive::<TimestampMicrosecondType>().value(0), 1_785_542_400_000_000);
    }
}

#[test]
fn schemas_that_cannot_be_decoded_are_refused_at_once() {
    let refuse =
        |field: Field| JsonDecoder::new(&Schema::new(vec![field]), DecodeRules::default()).map(|_| ());
    let taken = refuse(Field::new("_offset", DataType::Int64, false));
    assert!(matches!(taken, Err(DecoderError::ReservedColumn { column }) if column == "_offset"));
    let nested = refuse(Field::new("tags", DataType::new_list(DataType::Utf8, true), true));
    assert!(matches!(nested, Err(DecoderError::UnsupportedType { column, .. }) if column == "tags"));
}
