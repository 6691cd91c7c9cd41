//! Tables that are looked after: fewer files, fewer versions, the same rows.

use super::*;

fn epoch(n: i64) -> CommitMeta {
    let record = |n: i64| json!({ "epoch": n });
    let checkpoint =
        Checkpoint { pipeline: "clicks".into(), record: record(n), follows: (n > 0).then(|| record(n - 1)) };
    CommitMeta::new(format!("clicks/{n}"), 1, NOON + n * 1_000).with_checkpoint(checkpoint)
}

/// Appends epochs of two rows each to the first day, a second apart; returns their versions.
async fn epochs(table: &Table, numbers: std::ops::Range<i64>) -> Vec<Version> {
    let mut versions = Vec::new();
    for n in numbers {
        let rows = vec![wide_rows(DAY_ONE, 2, n + 1)];
        versions.push(put(table, rows, PublishMode::Append, &epoch(n)).await.unwrap().version);
    }
    versions
}

async fn hash(table: &Table, at: Option<Version>) -> String {
    table.content_hash(at, &[]).await.unwrap()
}

fn keep(since_ms: i64, published: Version) -> Keep {
    Keep { since_ms, most: 1_000, read_since_ms: None, published }
}

pub(super) async fn small_files_are_put_together_and_rows_stay(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let versions = epochs(&table, 0..10).await;
    for tag in 50..53 {
        let meta = CommitMeta::new(format!("k{tag}"), 1, NOON + 20_000);
        let rows = vec![wide_rows(DAY_ONE + 1, 4, tag)];
        let _ = put(&table, rows, PublishMode::Append, &meta).await.unwrap();
    }
    let (before, newest) = (hash(&table, None).await, known(&table).await);
    assert_eq!(newest.files, 13);
    let meta = CommitMeta::new("together/run-1", 2, NOON + 30_000);
    let put_together = table.put_together(&meta).await.unwrap().expect("ten files of a day are many");
    assert_eq!((put_together.files, put_together.version > newest.version), ((10, 1), true));
    let after = known(&table).await;
    assert_eq!((after.version, after.files, after.rows), (put_together.version, 4, newest.rows));
    assert_eq!(hash(&table, None).await, before);
    assert_eq!(number(&table, None, "SELECT sum(id) FROM t WHERE day = DATE '2026-08-01'").await, 110_010);
    // Whoever reads an earlier version reads its own files.
    assert_eq!(hash(&table, Some(newest.version)).await, before);
    assert_eq!(number(&table, Some(versions[3]), "SELECT count(*) FROM t").await, 8);
    // Nothing more is worth a commit, and a commit that is there is not made again.
    assert_eq!(table.put_together(&CommitMeta::new("together/run-2", 2, NOON)).await.unwrap(), None);
    // The stream goes on where it was; one of an earlier writer does not.
    assert_eq!(table.last_checkpoint("clicks").await.unwrap(), Some(json!({ "epoch": 9 })));
    let stale = put(&table, vec![wide_rows(DAY_ONE, 2, 11)], PublishMode::Append, &epoch(10)).await;
    assert!(matches!(stale, Err(LakeError::Fenced { .. })), "{stale:?}");
    let next = CommitMeta { writer_epoch: 2, ..epoch(10) };
    let _ = put(&table, vec![wide_rows(DAY_ONE, 2, 11)], PublishMode::Append, &next).await.unwrap();
    assert_eq!(known(&table).await.rows, newest.rows + 2);
}

pub(super) async fn what_is_appended_meanwhile_stays_beside_what_is_put_together(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    epochs(&table, 0..12).await;
    let other = table.clone();
    let appending = tokio::spawn(async move { epochs(&other, 12..20).await });
    let put_together =
        table.put_together(&CommitMeta::new("together/run-1", 1, NOON)).await.unwrap().expect("many files");
    appending.await.unwrap();
    assert!(put_together.files.0 >= 12 && put_together.files.1 == 1, "{put_together:?}");
    assert_eq!(known(&table).await.rows, 40);
    assert_eq!(number(&table, None, "SELECT count(DISTINCT id) FROM t").await, 40);

    // What somebody replaced is not brought back.
    let paths: BTreeSet<String> =
        table.file_set(None).await.unwrap().files.into_iter().map(|file| file.path).collect();
    let meta = CommitMeta::new("together/run-2", 1, NOON);
    let staged = table.stage(&meta, stream(vec![wide_rows(DAY_ONE, 40, 1)])).await.unwrap();
    let made = table.location().join(&staged.files[0].path);
    let replaced = CommitMeta::new("replaced", 1, NOON);
    let mode = PublishMode::ReplacePartition("2026-08-01".into());
    let _ = put(&table, vec![wide_rows(DAY_ONE, 3, 9)], mode, &replaced).await.unwrap();
    let late = table.publish(staged, PublishMode::Rewrite(paths), &meta).await;
    assert!(matches!(late, Err(LakeError::Overtaken { .. })), "{late:?}");
    assert!(!made.exists(), "nothing of it is left");
    assert_eq!(known(&table).await.rows, 3);
}

pub(super) async fn versions_that_nobody_keeps_go_and_all_that_is_remembered_stays(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let replace = || PublishMode::ReplacePartition("2026-08-02".into());
    let old = CommitMeta::new("old", 1, NOON);
    let first = put(&table, vec![wide_rows(DAY_ONE + 1, 7, 570)], replace(), &old).await.unwrap().version;
    let new = CommitMeta::new("new", 1, NOON);
    let _ = put(&table, vec![wide_rows(DAY_ONE + 1, 5, 571)], replace(), &new).await.unwrap();
    let versions = epochs(&table, 0..60).await;
    let (before, newest) = (hash(&table, None).await, known(&table).await.version);
    let kept: Vec<_> = versions.iter().filter(|version| **version >= versions[45]).collect();
    let mut hashes = Vec::new();
    for version in &kept {
        hashes.push(hash(&table, Some(**version)).await);
    }
    let stale = table.expire(&keep(NOON + 45_500, newest), writer(0)).await;
    assert!(matches!(stale, Err(LakeError::Fenced { .. })), "{stale:?}");
    assert_eq!(table.expire(&keep(NOON - 1, newest), writer(1)).await.unwrap(), 0, "all are young");

    let gone = table.expire(&keep(NOON + 45_500, newest), writer(1)).await.unwrap();
    // Delta cuts at a checkpoint, of which every twentieth commit makes one.
    let least = if format == TableFormat::Delta { 28 } else { 47 };
    assert!(gone >= least, "{gone} of 62 versions went");
    assert_eq!(table.sweep(i64::MAX).await.unwrap(), 1, "the replaced file of the second day");
    assert_eq!(hash(&table, None).await, before);
    for (version, hash_before) in kept.iter().zip(&hashes) {
        assert_eq!(&hash(&table, Some(**version)).await, hash_before, "{version:?}");
    }
    for at in [first, versions[0]] {
        let read = table.provider(Some(at)).await;
        assert!(matches!(read, Err(LakeError::UnknownVersion { .. })), "{at:?}: {read:?}");
    }
    assert!(table.observe(newest).await.unwrap() == seen_at(&table, newest).await);
    assert_eq!(table.commits(2).await.unwrap().len(), 2);
    // What was committed once is never committed again, and the chain goes on.
    let again = put(&table, vec![wide_rows(DAY_ONE + 1, 7, 570)], replace(), &old).await.unwrap();
    assert_eq!(again, Published { version: first, outcome: Outcome::AlreadyCommitted });
    assert_eq!(table.last_checkpoint("clicks").await.unwrap(), Some(json!({ "epoch": 59 })));
    let more = epochs(&table, 60..61).await;
    assert!(more[0] > newest);
    assert_eq!(known(&table).await.rows, 2 * 61 + 5);
    assert_eq!(table.expire(&keep(NOON + 45_500, more[0]), writer(1)).await.unwrap(), 0);

    // A second time, from a log that was cut before.
    epochs(&table, 61..85).await;
    let newest = known(&table).await.version;
    assert!(table.expire(&keep(i64::MAX, newest), writer(1)).await.unwrap() > 20);
    assert_eq!(known(&table).await.rows, 2 * 85 + 5);
    let _ = table.put_together(&CommitMeta::new("together/run", 1, NOON)).await.unwrap().unwrap();
    let newest = known(&table).await.version;
    table.expire(&keep(i64::MAX, newest), writer(1)).await.unwrap();
    assert_eq!(number(&table, None, "SELECT count(DISTINCT id) FROM t").await, 2 * 85 + 5);
}

async fn seen_at(table: &Table, version: Version) -> hydromesh_core::observe::Seen {
    let seen = table.observe(version).await.unwrap();
    assert!(matches!(seen, hydromesh_core::observe::Seen::Known { readable: true, .. }), "{seen:?}");
    seen
}

pub(super) async fn readers_hold_on_to_versions(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let versions = epochs(&table, 0..60).await;
    let newest = *versions.last().unwrap();
    let read = Keep { read_since_ms: Some(NOON + 5_500), most: 1, ..keep(i64::MAX, newest) };
    table.expire(&read, writer(1)).await.unwrap();
    assert_eq!(number(&table, Some(versions[5]), "SELECT count(*) FROM t").await, 12);
    // Whatever readers are given, though somebody else has committed since.
    table.expire(&keep(i64::MAX, versions[30]), writer(1)).await.unwrap();
    assert_eq!(number(&table, Some(versions[30]), "SELECT count(*) FROM t").await, 62);
    // The newest record of a pipeline, however many commits of others came after it.
    for n in 0..45 {
        let meta = CommitMeta::new(format!("k{n}"), 1, NOON + 100_000 + n);
        let _ = put(&table, vec![wide_rows(DAY_ONE + 1, 1, n)], PublishMode::Append, &meta).await.unwrap();
    }
    let newest = known(&table).await.version;
    table.expire(&keep(i64::MAX, newest), writer(1)).await.unwrap();
    assert_eq!(table.last_checkpoint("clicks").await.unwrap(), Some(json!({ "epoch": 59 })));
    epochs(&table, 60..61).await;
}

pub(super) async fn a_table_made_anew_is_known_as_one_when_its_log_was_cut(format: TableFormat) {
    let (folder, table) = new_table(format, &by_day()).await;
    let last = epochs(&table, 0..3).await[2];
    std::fs::remove_dir_all(table.location()).unwrap();
    let table = table.above(Some(last));
    assert_eq!(table.ensure(&by_day(), writer(1)).await.unwrap(), Ensured::Added);
    let versions = epochs(&table, 0..50).await;
    let newest = *versions.last().unwrap();
    assert!(table.expire(&keep(i64::MAX, newest), writer(1)).await.unwrap() > 20);
    assert_eq!(known(&table).await.version, newest);
    assert_eq!(number(&table, Some(newest), "SELECT count(*) FROM t").await, 100);
    let old = table.provider(Some(last)).await;
    assert!(matches!(old, Err(LakeError::UnknownVersion { .. })), "{old:?}");
    assert!(epochs(&table, 50..51).await[0] > newest);
    // It took the place of the one that is to be dropped, and stays.
    let lake = Lake::open(folder.path()).await.unwrap();
    let tables = [("commerce/orders.orders".to_owned(), last)].into();
    lake.leave(tables, Leave::Dropped, "0001").await.unwrap();
    assert_eq!(known(&table).await.rows, 102);
}

pub(super) async fn a_cut_log_can_do_without_a_torn_checkpoint() {
    let (_folder, table) = new_table(TableFormat::Delta, &by_day()).await;
    let versions = epochs(&table, 0..70).await;
    let newest = *versions.last().unwrap();
    let before = hash(&table, None).await;
    assert!(table.expire(&keep(NOON + 45_500, newest), writer(1)).await.unwrap() > 20);
    let log = table.location().join("_delta_log");
    let checkpoint = |version: u64| log.join(format!("{version:020}.checkpoint.parquet"));
    assert!(checkpoint(39).exists() && checkpoint(59).exists() && !checkpoint(19).exists());
    assert!(!log.join(format!("{:020}.json", 38)).exists() && log.join(format!("{:020}.json", 40)).exists());
    let bytes = std::fs::read(checkpoint(59)).unwrap();
    std::fs::write(checkpoint(59), &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(table.observe(newest).await.unwrap(), hydromesh_core::observe::Seen::Damaged);
    assert!(table.mend().await.unwrap());
    assert_eq!(hash(&table, None).await, before);
    // The log rests on the other one alone: without it nothing says what the commits before held.
    std::fs::write(checkpoint(39), b"").unwrap();
    assert_eq!(table.observe(newest).await.unwrap(), hydromesh_core::observe::Seen::Damaged);
    assert!(!table.mend().await.unwrap());
}

pub(super) async fn a_cut_that_stopped_half_way_goes_on() {
    let (_folder, table) = new_table(TableFormat::Delta, &by_day()).await;
    let versions = epochs(&table, 0..50).await;
    let newest = *versions.last().unwrap();
    let log = table.location().join("_delta_log");
    let commit = |version: u64| log.join(format!("{version:020}.json"));
    // After the older checkpoint; after the first commit; after some of those that followed.
    std::fs::remove_file(log.join(format!("{:020}.checkpoint.parquet", 19))).unwrap();
    assert_eq!(number(&table, Some(versions[10]), "SELECT count(*) FROM t").await, 22);
    std::fs::rename(commit(0), log.join(".first.json")).unwrap();
    for version in 1..5 {
        std::fs::remove_file(commit(version)).unwrap();
    }
    assert_eq!(known(&table).await.rows, 100);
    for (version, there) in [(versions[10], false), (versions[37], false), (versions[38], true)] {
        let read = table.provider(Some(version)).await;
        let unknown = matches!(read, Err(LakeError::UnknownVersion { .. }));
        assert_eq!(unknown, !there, "{version:?}: {read:?}");
    }
    assert_eq!(table.expire(&keep(NOON + 45_500, newest), writer(1)).await.unwrap(), 34);
    assert!(!commit(38).exists() && commit(39).exists());
    assert_eq!(known(&table).await.rows, 100);
    assert_eq!(table.last_checkpoint("clicks").await.unwrap(), Some(json!({ "epoch": 49 })));
}
