//! The suite against topic folders, then crashes, damage, several writers and repeated appends.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;

use super::suite::{GLANCE, PATIENCE, Rig, conforms, read_all, records};
use crate::stream::{
    Appended, Message, NewRecord, PartitionId, ProduceTarget, ProducerSequence, Source, SourceError,
    TopicFolder, TopicOptions, record::HEADER_BYTES,
};

struct FolderRig {
    home: TempDir,
}

fn rig() -> FolderRig {
    FolderRig { home: tempfile::tempdir().expect("a temporary folder") }
}

fn path(target: &ProduceTarget) -> &Path {
    match target {
        ProduceTarget::TopicFolder(path) => path,
        ProduceTarget::Kafka(_) => panic!("not a folder"),
    }
}

/// Small segments, so that the suite crosses many boundaries.
fn small(partitions: i32) -> TopicOptions {
    TopicOptions { partitions, segment_bytes: 4096, id: None }
}

#[async_trait]
impl Rig for FolderRig {
    async fn create(&self, partitions: i32) -> ProduceTarget {
        let path = self.home.path().join(Uuid::new_v4().to_string()).join("topic");
        TopicFolder::create(&path, &small(partitions)).expect("create");
        ProduceTarget::TopicFolder(path)
    }

    async fn absent(&self) -> ProduceTarget {
        ProduceTarget::TopicFolder(self.home.path().join("absent"))
    }

    async fn recreate(&self, target: &ProduceTarget, partitions: i32) -> ProduceTarget {
        fs::remove_dir_all(path(target)).expect("remove");
        TopicFolder::create(path(target), &small(partitions)).expect("create");
        target.clone()
    }

    async fn append(&self, target: &ProduceTarget, partition: PartitionId, records: Vec<NewRecord>) {
        let path = path(target).to_owned();
        let work = move || TopicFolder::open(&path)?.appender(partition)?.append(&records, None);
        let _ = tokio::task::spawn_blocking(work).await.expect("task").expect("append");
    }
}

conforms!(Some(rig()));

fn topic(options: &TopicOptions) -> (TempDir, TopicFolder) {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = TopicFolder::create(&home.path().join("topic"), options).expect("create");
    (home, folder)
}

fn segments(folder: &TopicFolder) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder.path().join("partition-00000")).expect("list");
    let mut paths: Vec<_> = listed.map(|entry| entry.expect("entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

async fn everything(folder: &TopicFolder) -> Vec<Message> {
    // Opened afresh, so that nothing remembered helps.
    let mut source = TopicFolder::open(folder.path()).expect("open");
    let low = source.bounds().await.expect("bounds")[&0].0;
    read_all(&mut source, BTreeMap::from([(0, low)]), 1000).await.0
}

fn append(folder: &TopicFolder, range: std::ops::Range<usize>) -> Appended {
    folder.appender(0).expect("appender").append(&records(range), None).expect("append")
}

#[tokio::test]
async fn a_torn_tail_is_ignored_by_readers_and_cut_by_the_next_writer() {
    let (_home, folder) = topic(&TopicOptions::default());
    let _ = append(&folder, 0..3);
    let whole = fs::metadata(&segments(&folder)[0]).expect("metadata").len();
    let _ = append(&folder, 3..6);
    let mut reader = TopicFolder::open(folder.path()).expect("open");
    // The crash came in the middle of the second append: two of its three records are even complete.
    let full = fs::metadata(&segments(&folder)[0]).expect("metadata").len();
    OpenOptions::new().write(true).open(&segments(&folder)[0]).expect("open").set_len(full - 5).expect("cut");
    assert_eq!(everything(&folder).await.len(), 3);
    assert_eq!(reader.bounds().await.expect("bounds")[&0], (0, 3));
    let appended = append(&folder, 10..12);
    assert_eq!((appended.offsets, appended.duplicates), (3..5, 0));
    assert_eq!(
        fs::metadata(&segments(&folder)[0]).expect("metadata").len(),
        whole + (full - whole) / 3 * 2 + 2
    );
    let (messages, _) = read_all(&mut reader, BTreeMap::from([(0, 0)]), 100).await;
    let texts: Vec<_> = messages.iter().map(|m| String::from_utf8_lossy(&m.payload).into_owned()).collect();
    assert_eq!(texts, ["message 0", "message 1", "message 2", "message 10", "message 11"]);
}

#[tokio::test]
async fn zeros_and_garbage_after_the_last_append_are_a_torn_tail() {
    for tail in [vec![0; 8192], vec![0xFF; 100], vec![1, 0, 0]] {
        let (_home, folder) = topic(&TopicOptions::default());
        let _ = append(&folder, 0..3);
        let mut file = OpenOptions::new().append(true).open(&segments(&folder)[0]).expect("open");
        file.write_all(&tail).expect("write");
        assert_eq!(everything(&folder).await.len(), 3);
        assert_eq!(append(&folder, 3..4).offsets, 3..4);
        assert_eq!(everything(&folder).await.len(), 4);
    }
}

#[tokio::test]
async fn damage_before_later_appends_is_reported_and_never_cut_off() {
    let (_home, folder) = topic(&TopicOptions::default());
    for start in 0..5 {
        let _ = append(&folder, start..start + 1);
    }
    let file = &segments(&folder)[0];
    let sound = fs::read(file).expect("read");
    let second = HEADER_BYTES + (sound.len() - HEADER_BYTES) / 5;
    // The length, the checksum, the offset, the payload of the second append.
    for at in [0, 2, 5, 9, 27] {
        let mut bytes = sound.clone();
        bytes[second + at] ^= 0x41;
        fs::write(file, &bytes).expect("write");
        let source = TopicFolder::open(folder.path()).expect("open");
        let refused = source.bounds().await;
        let Err(SourceError::Corrupt { path, position, .. }) = refused else {
            panic!("byte {at}: {refused:?}")
        };
        assert_eq!((&path, position), (file, second as u64));
        assert!(matches!(folder.appender(0), Err(SourceError::Corrupt { .. })));
        assert_eq!(fs::read(file).expect("read"), bytes, "the writer must not cut off synced appends");
    }
}

#[tokio::test]
async fn a_repeated_append_is_not_doubled() {
    for snapshot in ["kept", "lost", "damaged"] {
        let (_home, folder) = topic(&TopicOptions { segment_bytes: 2000, ..TopicOptions::default() });
        let id = Uuid::from_u128(7);
        let mut sent = 0;
        for first in (0..100).step_by(10) {
            // Every batch is sent twice, each time by a process that has just started.
            for attempt in 0..2 {
                let batch = records(first..first + 10);
                let sequence = ProducerSequence { id, first: first as i64 };
                let done =
                    folder.appender(0).expect("appender").append(&batch, Some(sequence)).expect("append");
                assert_eq!(done.duplicates, if attempt == 0 { 0 } else { 10 });
                sent += done.offsets.end - done.offsets.start;
            }
            // Another producer in between does not disturb the first.
            let other = ProducerSequence { id: Uuid::from_u128(8), first: first as i64 };
            let done = folder.appender(0).expect("appender").append(&records(first..first + 10), Some(other));
            sent += done.expect("append").offsets.count() as i64;
            for path in fs::read_dir(folder.path().join("partition-00000")).expect("list") {
                let path = path.expect("entry").path();
                match (path.extension().is_some_and(|extension| extension == "json"), snapshot) {
                    (true, "lost") => fs::remove_file(path).expect("remove"),
                    (true, "damaged") => fs::write(path, "{").expect("write"),
                    _ => {}
                }
            }
        }
        assert!(segments(&folder).len() > 3, "the test crosses segments");
        assert_eq!(sent, 200);
        assert_eq!(everything(&folder).await.len(), 200);
        // A batch cut differently the second time: only what is new is written.
        let mut appender = folder.appender(0).expect("appender");
        let done =
            appender.append(&records(95..105), Some(ProducerSequence { id, first: 95 })).expect("append");
        assert_eq!((done.duplicates, done.offsets), (5, 200..205));
        let gap = appender.append(&records(110..111), Some(ProducerSequence { id, first: 110 }));
        assert!(matches!(gap, Err(SourceError::SequenceGap { expected: 105, found: 110, .. })), "{gap:?}");
    }
}

#[tokio::test]
async fn several_writers_take_turns() {
    let (_home, folder) = topic(&TopicOptions { segment_bytes: 3000, ..TopicOptions::default() });
    std::thread::scope(|scope| {
        for writer in 0..4_usize {
            let folder = TopicFolder::open(folder.path()).expect("open");
            scope.spawn(move || {
                let mut appender = folder.appender(0).expect("appender");
                for round in 0..50 {
                    let start = writer * 1000 + round * 2;
                    let _ = appender.append(&records(start..start + 2), None).expect("append");
                }
            });
        }
    });
    let messages = everything(&folder).await;
    assert_eq!(messages.iter().map(|m| m.offset).collect::<Vec<_>>(), (0..400).collect::<Vec<_>>());
    for writer in 0..4_i64 {
        let base = 1_785_000_000_000 + writer * 1000;
        let own = messages.iter().map(|m| m.timestamp_ms).filter(|at| (base..base + 1000).contains(at));
        assert_eq!(own.collect::<Vec<_>>(), (base..base + 100).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn removed_segments_raise_the_low_offset() {
    let (_home, folder) = topic(&TopicOptions { segment_bytes: 1000, ..TopicOptions::default() });
    let mut reader = TopicFolder::open(folder.path()).expect("open");
    for start in (0..100).step_by(10) {
        let _ = append(&folder, start..start + 10);
    }
    assert_eq!(reader.bounds().await.expect("bounds")[&0], (0, 100));
    let all = segments(&folder);
    assert!(all.len() > 3);
    fs::remove_file(&all[0]).expect("remove");
    let low: i64 = all[1].file_stem().and_then(|stem| stem.to_str()).expect("name").parse().expect("offset");
    assert_eq!(reader.bounds().await.expect("bounds")[&0], (low, 100));
    let refused = reader.read(&BTreeMap::from([(0, low - 1)]), 10, GLANCE).await;
    assert!(
        matches!(refused, Err(SourceError::OffsetOutOfRange { low: named, .. }) if named == low),
        "{refused:?}"
    );
    assert_eq!(everything(&folder).await.len() as i64, 100 - low);
    assert_eq!(append(&folder, 100..101).offsets, 100..101);
    // A hole in the middle is damage, not retention.
    fs::remove_file(&all[2]).expect("remove");
    let refused = reader.read(&BTreeMap::from([(0, low)]), 1000, GLANCE).await;
    assert!(matches!(refused, Err(SourceError::Corrupt { .. })), "{refused:?}");
}

#[test]
fn odd_folders_are_refused_with_a_reason() {
    let (_home, folder) = topic(&TopicOptions::default());
    let exists = TopicFolder::create(folder.path(), &TopicOptions::default());
    assert!(matches!(exists, Err(SourceError::AlreadyExists { .. })));
    let none = TopicFolder::create(
        &folder.path().join("x"),
        &TopicOptions { partitions: 0, ..TopicOptions::default() },
    );
    assert!(matches!(none, Err(SourceError::PartitionCount { asked: 0, .. })));
    assert!(matches!(folder.appender(1), Err(SourceError::UnknownPartition { partition: 1, .. })));
    let file = folder.path().join("topic.json");
    let text = fs::read_to_string(&file).expect("read");
    for (from, to) in [
        ("\"version\": 1", "\"version\": 2"),
        ("hydromesh-topic-folder", "other"),
        ("{", ""),
        ("\"partitions\": 1", "\"partitions\": -1"),
    ] {
        assert!(text.contains(from));
        fs::write(&file, text.replacen(from, to, 1)).expect("write");
        let refused = TopicFolder::open(folder.path());
        assert!(
            matches!(refused, Err(SourceError::FormatVersion { .. } | SourceError::Corrupt { .. })),
            "{refused:?}"
        );
    }
    fs::write(&file, &text).expect("write");
    let big = NewRecord { timestamp_ms: 0, key: None, payload: Bytes::from(vec![0; 17 << 20]) };
    let refused = folder.appender(0).expect("appender").append(&[big], None);
    assert!(matches!(refused, Err(SourceError::RecordTooLarge { .. })), "{refused:?}");
    assert_eq!(append(&folder, 0..1).offsets, 0..1);
    assert_eq!(append(&folder, 0..0).offsets, 1..1);
}

/// Names the topic to a child process that this test binary starts of itself.
const CHILD_TOPIC: &str = "HYDROMESH_TEST_CHILD_TOPIC";

/// Does nothing by itself: [`killed_writers_leave_whole_appends`] runs it in processes that it kills.
#[test]
fn append_until_killed() {
    let Some(path) = std::env::var_os(CHILD_TOPIC) else { return };
    let mut appender = TopicFolder::open(Path::new(&path)).expect("open").appender(0).expect("appender");
    let id = Uuid::from_u128(1);
    for first in (0..).step_by(40) {
        let _ = appender
            .append(&records(first..first + 40), Some(ProducerSequence { id, first: first as i64 }))
            .expect("append");
    }
}

#[tokio::test]
async fn killed_writers_leave_whole_appends() {
    let (_home, folder) = topic(&TopicOptions { segment_bytes: 100_000, ..TopicOptions::default() });
    for _ in 0..5 {
        let before = folder.bounds().await.expect("bounds")[&0].1;
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "stream::tests::folder::append_until_killed", "--nocapture"])
            .env(CHILD_TOPIC, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("a child process");
        let deadline = Instant::now() + PATIENCE;
        while folder.bounds().await.expect("bounds")[&0].1 < before + 400 {
            assert!(Instant::now() < deadline, "the child does not append");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
        let messages = everything(&folder).await;
        assert_eq!(messages.len() % 40, 0, "appends are whole");
        for (index, message) in messages.iter().enumerate() {
            // Each child begins again with sequence 0: none of its repetitions may be in the topic.
            assert_eq!(message.payload, format!("message {index}").as_bytes());
            assert_eq!(message.offset, index as i64);
        }
    }
}

#[tokio::test]
async fn the_writer_in_the_documentation_writes_what_we_read() {
    let document = include_str!("../../../docs/topic-folder.md");
    let script =
        document.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the example");
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: python3 is not installed");
        return;
    }
    let (home, folder) = topic(&TopicOptions::default());
    let file = home.path().join("append.py");
    fs::write(&file, script).expect("write");
    let _ = append(&folder, 0..2);
    // A torn tail, which the example must cut as we would.
    OpenOptions::new()
        .append(true)
        .open(&segments(&folder)[0])
        .expect("open")
        .write_all(&[9; 30])
        .expect("write");
    let mut child = Command::new("python3")
        .arg(&file)
        .arg(folder.path().join("partition-00000"))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3");
    child.stdin.take().expect("stdin").write_all(b"{\"n\":1}\n{\"n\":2}\n").expect("write");
    let status = child.wait().expect("wait");
    let mut complaint = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut complaint).expect("read");
    assert!(status.success(), "{complaint}");
    let _ = append(&folder, 2..3);
    let messages = everything(&folder).await;
    let texts: Vec<_> = messages.iter().map(|m| String::from_utf8_lossy(&m.payload).into_owned()).collect();
    assert_eq!(texts, ["message 0", "message 1", "{\"n\":1}", "{\"n\":2}", "message 2"]);
    assert!(messages[2].timestamp_ms > 1_600_000_000_000);
}
