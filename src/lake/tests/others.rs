//! Tables that somebody else lays hand on.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::observe::{Seen, SeenPartition};

use super::*;

fn day(index: i32) -> String {
    format!("2026-08-{:02}", index + 1)
}

async fn put_days(table: &Table, days: std::ops::Range<i32>, tag: i64) {
    for index in days {
        let meta = CommitMeta::new(format!("{}/{tag}", day(index)), 1, NOON);
        let mode = PublishMode::ReplacePartition(day(index));
        let rows = wide_rows(DAY_ONE + index, 3 + i64::from(index), tag);
        let _ = put(table, vec![rows], mode, &meta).await.unwrap();
    }
}

async fn seen(table: &Table) -> BTreeMap<String, SeenPartition> {
    let newest = known(table).await.version;
    match table.observe(newest).await.unwrap() {
        Seen::Known { readable: true, partitions, .. } => partitions,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn a_look_tells_rows_keys_and_lost_files(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    put_days(&table, 0..2, 1).await;
    let key = |index: i32| CommitMeta::new(format!("{}/1", day(index)), 1, NOON).key_digest();
    let whole = |index: i32| SeenPartition {
        rows: Some(3 + u64::try_from(index).unwrap()),
        keys: BTreeSet::from([key(index)]),
        ..SeenPartition::default()
    };
    assert_eq!(seen(&table).await, BTreeMap::from([(day(0), whole(0)), (day(1), whole(1))]));
    // A day without rows is there all the same.
    let meta = CommitMeta::new("empty", 1, NOON);
    let mode = PublishMode::ReplacePartition(day(2));
    let _ = put(&table, vec![wide_rows(DAY_ONE + 2, 0, 1)], mode, &meta).await.unwrap();
    assert_eq!(seen(&table).await[&day(2)].rows, Some(0));
    // A data file is deleted: the log does not know, and the mark of the log does not move.
    let mark = table.stamp().unwrap();
    let set = table.file_set(None).await.unwrap();
    let file = set.files.iter().find(|file| file.partition == Some(day(1))).unwrap();
    std::fs::remove_file(table.location().join(&file.path)).unwrap();
    assert_eq!(seen(&table).await[&day(1)].gone, 1);
    assert_eq!(table.stamp().unwrap(), mark);
    // A repair is a commit like any other.
    put_days(&table, 1..2, 2).await;
    assert_eq!(seen(&table).await[&day(1)].gone, 0);
    assert_ne!(table.stamp().unwrap(), mark);
}

/// Returns the files of a table's log whose names end so, oldest first.
fn log_of(table: &Table, ending: &str) -> Vec<std::path::PathBuf> {
    let folder =
        table.location().join(if table.format() == TableFormat::Delta { "_delta_log" } else { "metadata" });
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    found.sort_by_key(|path| (std::fs::metadata(path).unwrap().modified().unwrap(), path.clone()));
    found
}

pub(super) async fn a_file_that_was_cut_is_noticed(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    put_days(&table, 0..2, 1).await;
    let set = table.file_set(None).await.unwrap();
    let file = set.files.iter().find(|file| file.partition == Some(day(1))).unwrap();
    let path = table.location().join(&file.path);
    std::fs::File::options().write(true).open(path).unwrap().set_len(file.bytes / 2).unwrap();
    let seen = seen(&table).await;
    assert_eq!((seen[&day(0)].cut, seen[&day(1)].cut, seen[&day(1)].gone), (0, 1, 0));
}

pub(super) async fn a_torn_log_is_told_of_and_never_written_to(format: TableFormat) {
    type Tear = fn(&[u8]) -> Vec<u8>;
    let tears: [Tear; 3] = [|all| all[..all.len() / 2].to_vec(), |_| Vec::new(), |all| vec![0xa5; all.len()]];
    let endings: &[&str] =
        if format == TableFormat::Delta { &[".json"] } else { &[".metadata.json", ".avro"] };
    for (ending, tear) in endings.iter().flat_map(|ending| tears.iter().map(move |tear| (ending, tear))) {
        let (_folder, table) = new_table(format, &by_day()).await;
        put_days(&table, 0..3, 1).await;
        let newest = known(&table).await.version;
        let path = log_of(&table, ending).pop().unwrap();
        std::fs::write(&path, tear(&std::fs::read(&path).unwrap())).unwrap();
        assert_eq!(table.observe(newest).await.unwrap(), Seen::Damaged, "{}", path.display());
        assert!(!table.mend().await.unwrap(), "only what is told elsewhere can be done without");
        let meta = CommitMeta::new("more", 1, NOON);
        let rows = wide_rows(DAY_ONE, 3, 2);
        let put = put(&table, vec![rows], PublishMode::ReplacePartition(day(0)), &meta).await;
        assert!(matches!(put, Err(LakeError::Damaged { .. })), "{}: {put:?}", path.display());
        // Out of the way, a table can be made in its place.
        let aside = table.set_aside().await.unwrap();
        assert!(aside.exists());
        let above = table.clone().above(Some(newest));
        assert_eq!(above.ensure(&by_day(), writer(1)).await.unwrap(), Ensured::Added);
        assert!(known(&above).await.version > newest);
    }
}

pub(super) async fn checkpoints_can_be_done_without() {
    let (_folder, table) = new_table(TableFormat::Delta, &by_day()).await;
    put_days(&table, 0..22, 1).await;
    let (newest, before) = (known(&table).await.version, seen(&table).await);
    let checkpoint = log_of(&table, ".checkpoint.parquet").pop().expect("every twentieth commit makes one");
    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &bytes[..bytes.len() / 3]).unwrap();
    assert_eq!(table.observe(newest).await.unwrap(), Seen::Damaged);
    assert!(table.mend().await.unwrap());
    assert_eq!(seen(&table).await, before);
    assert_eq!(known(&table).await.version, newest);
    // Writing goes on, and so do the numbers.
    put_days(&table, 22..23, 1).await;
    assert!(known(&table).await.version > newest);
    // With a commit gone too, nothing says any more what it held.
    let commit = log_of(&table, ".json").into_iter().find(|path| path.to_string_lossy().ends_with("05.json"));
    std::fs::remove_file(commit.unwrap()).unwrap();
    assert_eq!(table.observe(newest).await.unwrap(), Seen::Damaged);
    assert!(!table.mend().await.unwrap());
}

pub(super) async fn versions_of_a_table_made_anew_go_on_above(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    put_days(&table, 0..4, 1).await;
    let last = known(&table).await.version;
    std::fs::remove_dir_all(table.location()).unwrap();
    assert_eq!((table.observe(last).await.unwrap(), table.stamp().unwrap()), (Seen::Absent, None));

    let table = table.above(Some(last));
    assert_eq!(table.ensure(&by_day(), writer(1)).await.unwrap(), Ensured::Added);
    assert!(known(&table).await.version > last);
    put_days(&table, 0..2, 1).await;
    let commits = table.commits(9).await.unwrap();
    assert_eq!(commits.len(), 2);
    assert!(commits.iter().all(|(version, _)| *version > last), "{commits:?}");
    let (newest, first) = (commits[0].0, commits[1].0);
    assert_eq!(known(&table).await.version, newest);
    assert_eq!(number(&table, Some(newest), "SELECT count(*) FROM t").await, 7);
    assert_eq!(number(&table, Some(first), "SELECT count(*) FROM t").await, 3);
    // A version of the table that was is no version of this one.
    let old = table.provider(Some(last)).await;
    assert!(matches!(old, Err(LakeError::UnknownVersion { .. })), "{old:?}");
    for (version, there) in [(last, false), (first, true), (newest, true), (Version(newest.0 + 1), false)] {
        let seen = table.observe(version).await.unwrap();
        assert!(matches!(seen, Seen::Known { readable, .. } if readable == there), "{version:?} {seen:?}");
    }
    // A key is found at the version that carries it, and a chain goes on.
    let meta = CommitMeta::new(format!("{}/1", day(0)), 1, NOON);
    let again = put(&table, vec![wide_rows(DAY_ONE, 3, 1)], PublishMode::ReplaceAll, &meta).await.unwrap();
    assert_eq!(again, Published { version: first, outcome: Outcome::AlreadyCommitted });
    let epoch = |n: i64, follows: Option<serde_json::Value>| {
        let record = json!({ "epoch": n });
        let checkpoint = Checkpoint { pipeline: "clicks".into(), record, follows };
        CommitMeta::new(format!("clicks/{n}"), 1, NOON).with_checkpoint(checkpoint)
    };
    for n in 0..2 {
        let meta = epoch(n, (n > 0).then(|| json!({ "epoch": n - 1 })));
        let _ = put(&table, vec![wide_rows(DAY_ONE + 5, 1, n)], PublishMode::Append, &meta).await.unwrap();
    }
    assert_eq!(table.last_checkpoint("clicks").await.unwrap(), Some(json!({ "epoch": 1 })));
}

pub(super) async fn another_table_in_its_place_is_never_written(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    put_days(&table, 0..4, 1).await;
    let last = known(&table).await.version;
    std::fs::remove_dir_all(table.location()).unwrap();
    // Somebody makes a table of the same name that knows nothing of the old one.
    assert_eq!(table.ensure(&by_day(), writer(1)).await.unwrap(), Ensured::Added);
    let table = table.above(Some(last));
    let refused = table.ensure(&by_day(), writer(1)).await;
    assert!(matches!(refused, Err(LakeError::Replaced { above, .. }) if above == last), "{refused:?}");
    let aside = table.set_aside().await.unwrap();
    assert!(aside.is_dir() && !table.location().exists());
    assert_eq!(table.ensure(&by_day(), writer(1)).await.unwrap(), Ensured::Added);
    assert!(known(&table).await.version > last);
}
