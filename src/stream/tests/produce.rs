//! Producing: what is refused, and what was produced until then.

use std::io;

use crate::stream::{
    ProduceError, ProduceTarget, SourceError, TimestampFrom, TopicFolder, TopicOptions, produce,
};

fn folder() -> (tempfile::TempDir, ProduceTarget) {
    let home = tempfile::tempdir().expect("a temporary folder");
    let path = home.path().join("topic");
    TopicFolder::create(&path, &TopicOptions { partitions: 2, ..TopicOptions::default() }).expect("create");
    (home, ProduceTarget::TopicFolder(path))
}

fn lines(texts: &[&str]) -> std::vec::IntoIter<io::Result<String>> {
    texts.iter().map(|text| Ok((*text).to_owned())).collect::<Vec<_>>().into_iter()
}

#[tokio::test]
async fn lines_without_key_go_round_and_may_be_malformed() {
    let (_home, target) = folder();
    let done =
        produce(&target, lines(&["{\"a\":1}", "", "not json", "3"]), None, TimestampFrom::Given(5)).await;
    let done = done.expect("produce");
    assert_eq!((done.messages, done.ranges[&0], done.ranges[&1]), (3, (0, 2), (0, 1)));
}

#[tokio::test]
async fn the_first_bad_line_is_named_and_those_before_it_are_kept() {
    let cases = [
        (
            "nope",
            "line 2 is not a JSON object, so it has no key or timestamp: expected ident at line 1 column 2",
        ),
        ("{\"at\":1}", "line 2 has no text or number in its key field id"),
        ("{\"id\":null,\"at\":1}", "line 2 has no text or number in its key field id"),
        (
            "{\"id\":1,\"at\":\"noon\"}",
            "line 2 has neither an RFC 3339 timestamp nor whole milliseconds in its timestamp field at",
        ),
    ];
    for (bad, message) in cases {
        let (_home, target) = folder();
        let given = lines(&["{\"id\":\"x\",\"at\":1}", bad, "{\"id\":\"y\",\"at\":2}"]);
        let stopped = produce(&target, given, Some("id"), TimestampFrom::Field("at".to_owned())).await;
        assert_eq!(stopped.expect_err("a bad line").to_string(), message);
        let ProduceTarget::TopicFolder(path) = &target else { panic!("a folder") };
        let bounds =
            crate::stream::Source::bounds(&TopicFolder::open(path).expect("open")).await.expect("bounds");
        assert_eq!(bounds.values().map(|(low, high)| high - low).sum::<i64>(), 1);
    }
}

#[tokio::test]
async fn an_unreadable_line_and_an_absent_topic_are_told_apart() {
    let (_home, target) = folder();
    let broken = std::iter::once(Err::<String, _>(io::Error::other("disk")));
    let stopped = produce(&target, broken, None, TimestampFrom::Given(0)).await;
    assert!(matches!(stopped, Err(ProduceError::Read { line: 1, .. })), "{stopped:?}");
    let absent = ProduceTarget::TopicFolder("/nonexistent/topic".into());
    let stopped = produce(&absent, lines(&["x"]), None, TimestampFrom::Given(0)).await;
    assert!(
        matches!(stopped, Err(ProduceError::Target { source: SourceError::NotFound { .. }, .. })),
        "{stopped:?}"
    );
}
