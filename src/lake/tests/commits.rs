//! When a commit happens, and when it must not.

use super::*;

pub(super) async fn replacing_a_partition_keeps_the_others_and_the_past(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let first = vec![wide_rows(DAY_ONE, 5, 1), wide_rows(DAY_ONE + 1, 7, 2)];
    let before = put(&table, first, PublishMode::Append, &CommitMeta::new("k1", 1, NOON)).await.unwrap();
    let replace = PublishMode::ReplacePartition("2026-08-01".into());
    let after = put(&table, vec![wide_rows(DAY_ONE, 3, 3)], replace, &CommitMeta::new("k2", 1, NOON + 1))
        .await
        .unwrap();
    assert!(after.version > before.version);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 10);
    assert_eq!(number(&table, None, "SELECT min(id) FROM t WHERE day = DATE '2026-08-01'").await, 3_000);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t WHERE day = DATE '2026-08-02'").await, 7);
    assert_eq!(number(&table, Some(before.version), "SELECT count(*) FROM t").await, 12);
    assert_eq!(
        number(&table, Some(before.version), "SELECT min(id) FROM t WHERE day = DATE '2026-08-01'").await,
        1_000
    );
    let partitions = table.partitions(None).await.unwrap();
    assert_eq!(partitions.keys().collect::<Vec<_>>(), ["2026-08-01", "2026-08-02"]);
    assert_eq!(partitions["2026-08-01"].rows, 3);
    assert_eq!(table.partitions(Some(before.version)).await.unwrap()["2026-08-01"].rows, 5);
    let misplaced = put(
        &table,
        vec![wide_rows(DAY_ONE + 1, 1, 4)],
        PublishMode::ReplacePartition("2026-08-01".into()),
        &CommitMeta::new("k3", 1, NOON),
    )
    .await;
    assert!(matches!(misplaced, Err(LakeError::WrongPartition { .. })));
    assert!(matches!(table.provider(Some(Version(99))).await, Err(LakeError::UnknownVersion { .. })));
}

pub(super) async fn an_empty_partition_is_known(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let replace = || PublishMode::ReplacePartition("2026-08-01".into());
    let _ = put(&table, vec![wide_rows(DAY_ONE, 5, 1)], replace(), &CommitMeta::new("k1", 1, NOON))
        .await
        .unwrap();
    let emptied = put(&table, vec![], replace(), &CommitMeta::new("k2", 1, NOON)).await.unwrap();
    assert_eq!(emptied.outcome, Outcome::Committed);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 0);
    assert_eq!(number(&table, None, "SELECT max(id) FROM t").await, -1);
    assert_eq!(table.partitions(None).await.unwrap()["2026-08-01"].rows, 0);
    let _ = put(&table, vec![wide_rows(DAY_ONE, 2, 2)], replace(), &CommitMeta::new("k3", 1, NOON))
        .await
        .unwrap();
    assert_eq!(table.partitions(None).await.unwrap()["2026-08-01"].rows, 2);
    let no_date =
        put(&table, vec![], PublishMode::ReplacePartition("soon".into()), &CommitMeta::new("k4", 1, NOON))
            .await;
    assert!(matches!(no_date, Err(LakeError::BadPartition { .. })));
}

pub(super) async fn staged_rows_are_seen_by_the_audit_alone(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let meta = CommitMeta::new("k1", 1, NOON);
    let staged = table
        .stage(&meta, stream(vec![wide_rows(DAY_ONE, 4, 1), wide_rows(DAY_ONE + 1, 2, 2)]))
        .await
        .unwrap();
    assert_eq!((staged.rows, staged.files.len()), (6, 2));
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 0);
    let context = SessionContext::new();
    context.register_table("staged", table.staged_provider(&staged)).unwrap();
    let query = "SELECT day, count(*) AS n, min(name) AS first FROM staged WHERE id >= 1001 GROUP BY day ORDER BY day";
    let audit = context.sql(query).await.unwrap().collect().await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&audit).unwrap().to_string();
    assert!(shown.contains("| 2026-08-01 | 3 | name 1001 |"), "{shown}");
    assert!(shown.contains("| 2026-08-02 | 2 | name 2001 |"), "{shown}");
    let paths: Vec<_> = staged.files.iter().map(|file| table.location().join(&file.path)).collect();
    assert!(paths.iter().all(|path| path.is_file()));
    table.discard(staged).await.unwrap();
    assert!(paths.iter().all(|path| !path.exists()));
    // What is published is out of discard's reach, even through a second stage of the same rows.
    let _ = put(&table, vec![wide_rows(DAY_ONE, 4, 1)], PublishMode::Append, &meta).await.unwrap();
    let again = table.stage(&meta, stream(vec![wide_rows(DAY_ONE, 4, 1)])).await.unwrap();
    table.discard(again).await.unwrap();
    assert_eq!(number(&table, None, "SELECT sum(id) FROM t").await, 4_006);
    // So is what somebody else published since, and replaced again: an earlier version still shows it.
    let twice = CommitMeta::new("k2", 1, NOON);
    let rows = || vec![wide_rows(DAY_ONE, 7, 3)];
    let held = table.stage(&twice, stream(rows())).await.unwrap();
    let shown = put(&table, rows(), PublishMode::ReplaceAll, &twice).await.unwrap().version;
    let over = CommitMeta::new("k3", 1, NOON);
    let _ = put(&table, vec![wide_rows(DAY_ONE, 1, 9)], PublishMode::ReplaceAll, &over).await.unwrap();
    table.discard(held).await.unwrap();
    assert_eq!(number(&table, Some(shown), "SELECT count(*) FROM t").await, 7);
}

pub(super) async fn a_key_commits_once(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let meta = CommitMeta::new("orders/2026-08-01/f00/v3", 1, NOON);
    let first = put(&table, vec![wide_rows(DAY_ONE, 5, 1)], PublishMode::Append, &meta).await.unwrap();
    let other = CommitMeta::new("other", 1, NOON);
    let _ = put(&table, vec![wide_rows(DAY_ONE, 1, 2)], PublishMode::Append, &other).await.unwrap();
    let version = known(&table).await.version;
    let again = put(&table, vec![wide_rows(DAY_ONE, 5, 1)], PublishMode::Append, &meta).await.unwrap();
    assert_eq!(again, Published { version: first.version, outcome: Outcome::AlreadyCommitted });
    // Even when the second attempt has come to other rows.
    let different =
        put(&table, vec![wide_rows(DAY_ONE, 9, 3)], PublishMode::ReplaceAll, &meta).await.unwrap();
    assert_eq!(different.outcome, Outcome::AlreadyCommitted);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 6);
    // The refused rows are gone, the committed ones are not.
    assert_eq!(table.sweep(i64::MAX).await.unwrap(), 0);
    assert_eq!(known(&table).await.version, version);
}

pub(super) async fn a_stale_writer_is_fenced(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let _ =
        put(&table, vec![wide_rows(DAY_ONE, 1, 1)], PublishMode::Append, &CommitMeta::new("new", 7, NOON))
            .await
            .unwrap();
    let stale =
        put(&table, vec![wide_rows(DAY_ONE, 1, 2)], PublishMode::Append, &CommitMeta::new("old", 6, NOON))
            .await;
    assert!(matches!(stale, Err(LakeError::Fenced { offered: 6, current: 7 })), "{stale:?}");
    let mut wider = by_day();
    wider.schema = with_column(&wider.schema, Field::new("note", DataType::Utf8, true));
    let stale = table.ensure(&wider, writer(6)).await;
    assert!(matches!(stale, Err(LakeError::Fenced { .. })), "{stale:?}");
    let _ =
        put(&table, vec![wide_rows(DAY_ONE, 1, 3)], PublishMode::Append, &CommitMeta::new("same", 7, NOON))
            .await
            .unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 2);
}

pub(super) async fn checkpoints_form_a_chain(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let epoch = |pipeline: &str, n: i64, follows: Option<serde_json::Value>| {
        CommitMeta::new(format!("{pipeline}/{n}"), 1, NOON + n).with_checkpoint(Checkpoint {
            pipeline: pipeline.into(),
            record: json!({"epoch": n, "ranges": {"0": [n * 10, n * 10 + 10]}}),
            follows,
        })
    };
    let record = |n: i64| json!({"epoch": n, "ranges": {"0": [n * 10, n * 10 + 10]}});
    assert_eq!(table.last_checkpoint("clicks").await.unwrap(), None);
    let first = put(&table, vec![wide_rows(DAY_ONE, 1, 1)], PublishMode::Append, &epoch("clicks", 0, None))
        .await
        .unwrap();
    let _ = put(
        &table,
        vec![wide_rows(DAY_ONE, 1, 2)],
        PublishMode::Append,
        &epoch("clicks", 1, Some(record(0))),
    )
    .await
    .unwrap();
    // Many commits of others do not hide it, nor does a second pipeline in the same table.
    for n in 0..25 {
        let meta = CommitMeta::new(format!("batch {n}"), 1, NOON);
        let _ =
            put(&table, vec![wide_rows(DAY_ONE + 1, 1, 10 + n)], PublishMode::Append, &meta).await.unwrap();
    }
    let _ = put(&table, vec![wide_rows(DAY_ONE, 1, 3)], PublishMode::Append, &epoch("views", 0, None))
        .await
        .unwrap();
    if format == TableFormat::Delta {
        // The log has been folded into a checkpoint in between, and remembers all the same.
        let log = table.location().join("_delta_log");
        let mut names = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.any(|name| name.to_string_lossy().ends_with(".checkpoint.parquet")));
    }
    assert_eq!(table.last_checkpoint("clicks").await.unwrap(), Some(record(1)));
    assert_eq!(table.last_checkpoint("views").await.unwrap(), Some(record(0)));
    // The newest again: the answer was lost. An older one, a fork, a skip: broken.
    let again = put(
        &table,
        vec![wide_rows(DAY_ONE, 1, 2)],
        PublishMode::Append,
        &epoch("clicks", 1, Some(record(0))),
    )
    .await
    .unwrap();
    assert_eq!(again.outcome, Outcome::AlreadyCommitted);
    assert!(again.version > first.version);
    for broken in
        [epoch("clicks", 0, None), epoch("clicks", 5, Some(record(0))), epoch("clicks", 6, Some(record(5)))]
    {
        let refused = put(&table, vec![wide_rows(DAY_ONE, 1, 2)], PublishMode::Append, &broken).await;
        assert!(matches!(refused, Err(LakeError::ChainBroken { .. })), "{refused:?}");
    }
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 28);
}

pub(super) async fn appends_that_race_all_land_once(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let mut writers = Vec::new();
    for tag in 0..8 {
        let table = table.clone();
        writers.push(tokio::spawn(async move {
            let meta = CommitMeta::new(format!("writer {tag}"), 1, NOON);
            put(&table, vec![wide_rows(DAY_ONE + tag, 10, i64::from(tag))], PublishMode::Append, &meta)
                .await
                .unwrap()
        }));
    }
    let mut versions = std::collections::BTreeSet::new();
    for writer in writers {
        versions.insert(writer.await.unwrap().version);
    }
    assert_eq!(versions.len(), 8);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 80);
    assert_eq!(number(&table, None, "SELECT count(DISTINCT id) FROM t").await, 80);
    assert_eq!(table.commits(100).await.unwrap().len(), 8);
}

pub(super) async fn one_key_that_races_lands_once(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let mut writers = Vec::new();
    for _ in 0..4 {
        let table = table.clone();
        writers.push(tokio::spawn(async move {
            let meta = CommitMeta::new("the same", 1, NOON);
            put(&table, vec![wide_rows(DAY_ONE, 10, 1)], PublishMode::Append, &meta).await.unwrap().outcome
        }));
    }
    let mut committed = 0;
    for writer in writers {
        committed += i32::from(writer.await.unwrap() == Outcome::Committed);
    }
    assert_eq!(committed, 1);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 10);
}

pub(super) async fn a_table_created_twice_at_once_is_one_table(format: TableFormat) {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path()).await.unwrap();
    let table = lake.table("commerce/orders.orders", format).unwrap();
    let mut creators = Vec::new();
    for tag in 0..4 {
        let table = table.clone();
        creators.push(tokio::spawn(async move {
            let ensured = table.ensure(&by_day(), writer(1)).await.unwrap();
            let meta = CommitMeta::new(format!("creator {tag}"), 1, NOON);
            let _ = put(&table, vec![wide_rows(DAY_ONE, 5, tag)], PublishMode::Append, &meta).await.unwrap();
            ensured
        }));
    }
    let mut added = 0;
    for creator in creators {
        added += i32::from(creator.await.unwrap() == Ensured::Added);
    }
    assert_eq!(added, 1);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 20);
}

pub(super) async fn sweep_takes_only_what_no_version_has(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let first =
        put(&table, vec![wide_rows(DAY_ONE, 5, 1)], PublishMode::Append, &CommitMeta::new("k1", 1, NOON))
            .await
            .unwrap();
    let replace = PublishMode::ReplacePartition("2026-08-01".into());
    let _ =
        put(&table, vec![wide_rows(DAY_ONE, 3, 2)], replace, &CommitMeta::new("k2", 1, NOON)).await.unwrap();
    let orphan = table
        .stage(&CommitMeta::new("crashed", 1, NOON), stream(vec![wide_rows(DAY_ONE, 4, 3)]))
        .await
        .unwrap();
    assert_eq!(table.sweep(0).await.unwrap(), 0);
    assert_eq!(table.sweep(i64::MAX).await.unwrap(), 1);
    assert!(!table.location().join(&orphan.files[0].path).exists());
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 3);
    assert_eq!(number(&table, Some(first.version), "SELECT count(*) FROM t").await, 5);
}

pub(super) async fn replace_all_leaves_nothing_behind(format: TableFormat) {
    let (_folder, table) = new_table(format, &TableSpec { schema: wide_schema(), partition_by: None }).await;
    let _ = put(&table, vec![wide_rows(DAY_ONE, 9, 1)], PublishMode::Append, &CommitMeta::new("k1", 1, NOON))
        .await
        .unwrap();
    let _ =
        put(&table, vec![wide_rows(DAY_ONE, 4, 2)], PublishMode::ReplaceAll, &CommitMeta::new("k2", 1, NOON))
            .await
            .unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 4);
    let _ = put(&table, vec![], PublishMode::ReplaceAll, &CommitMeta::new("k3", 1, NOON)).await.unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 0);
    let _ = put(&table, vec![wide_rows(DAY_ONE, 2, 3)], PublishMode::Append, &CommitMeta::new("k4", 1, NOON))
        .await
        .unwrap();
    assert_eq!((known(&table).await.rows, known(&table).await.files), (2, 1));
    let no_partition =
        put(&table, vec![], PublishMode::ReplacePartition("x".into()), &CommitMeta::new("k5", 1, NOON)).await;
    assert!(matches!(no_partition, Err(LakeError::NotPartitioned { .. })));
}

pub(super) async fn appends_without_rows_commit(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let first =
        put(&table, vec![wide_rows(DAY_ONE, 5, 1)], PublishMode::Append, &CommitMeta::new("k1", 1, NOON))
            .await
            .unwrap();
    let silent = CommitMeta::new("k2", 1, NOON);
    let second = put(&table, vec![], PublishMode::Append, &silent).await.unwrap();
    assert!(second.version > first.version);
    assert_eq!(
        put(&table, vec![], PublishMode::Append, &silent).await.unwrap().outcome,
        Outcome::AlreadyCommitted
    );
    let _ = put(&table, vec![wide_rows(DAY_ONE, 2, 2)], PublishMode::Append, &CommitMeta::new("k3", 1, NOON))
        .await
        .unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 7);
    assert_eq!(number(&table, Some(second.version), "SELECT count(*) FROM t").await, 5);
}

pub(super) async fn many_appends_stay_readable_at_every_version(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let mut versions = Vec::new();
    for day in 0..20 {
        let meta = CommitMeta::new(format!("k{day}"), 1, NOON + i64::from(day));
        let rows = vec![wide_rows(DAY_ONE + day, 2, i64::from(day) + 1)];
        versions.push(put(&table, rows, PublishMode::Append, &meta).await.unwrap().version);
    }
    for (rows, version) in (1..).map(|n| 2 * n).zip(&versions) {
        assert_eq!(number(&table, Some(*version), "SELECT count(*) FROM t").await, rows);
    }
    assert_eq!(table.partitions(None).await.unwrap().len(), 20);
    let replace = PublishMode::ReplacePartition("2026-08-02".into());
    let meta = CommitMeta::new("again", 1, NOON + 50);
    let _ = put(&table, vec![wide_rows(DAY_ONE + 1, 5, 90)], replace, &meta).await.unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 43);
    assert_eq!(number(&table, versions.last().copied(), "SELECT count(*) FROM t").await, 40);
    if format == TableFormat::Iceberg {
        let listed = crate::lake::iceberg::most_manifests_of(&table).await.unwrap();
        assert!(listed <= 16, "{listed} manifests");
    }
}
