//! A preview's lake over its parent's.

use super::*;
use crate::lake::overlay::ABOVE;

const ORDERS: &str = "commerce/orders.orders";

/// Returns a lake with three versions of a table, and a lake over it.
async fn two(format: TableFormat) -> (TempDir, TempDir, Table, Table, Vec<Version>) {
    let (folder, table) = new_table(format, &by_day()).await;
    let mut versions = Vec::new();
    for tag in 1..=3 {
        let mode = PublishMode::ReplacePartition("2026-08-01".into());
        let meta = CommitMeta::new(format!("k{tag}"), 1, NOON);
        versions.push(put(&table, vec![wide_rows(DAY_ONE, tag, tag)], mode, &meta).await.unwrap().version);
    }
    let own = tempfile::tempdir().unwrap();
    let lake = Lake::open(own.path()).await.unwrap().over(folder.path());
    let over = lake.table(ORDERS, format).unwrap();
    (folder, own, table, over, versions)
}

pub(super) async fn a_lake_over_another_reads_what_it_lacks_and_writes_only_its_own(format: TableFormat) {
    let (_folder, own, below, over, versions) = two(format).await;
    // What is read of the parent is the version that is asked for, though it has moved on.
    assert_eq!(number(&over, Some(versions[1]), "SELECT count(*) FROM t").await, 2);
    let before = below.content_hash(None, &[]).await.unwrap();
    assert!(matches!(over.state().await.unwrap(), TableState::Absent), "reading made no table");

    over.ensure(&by_day(), writer(1)).await.unwrap();
    let mode = || PublishMode::ReplacePartition("2026-08-01".into());
    let first = put(&over, vec![wide_rows(DAY_ONE, 5, 9)], mode(), &CommitMeta::new("k1", 1, NOON)).await;
    let first = first.unwrap();
    assert_eq!(first.outcome, Outcome::Committed, "the parent's keys are not ours");
    assert!(first.version > ABOVE && versions.iter().all(|version| *version < ABOVE), "{first:?}");
    assert_eq!(number(&over, Some(first.version), "SELECT count(*) FROM t").await, 5);
    assert_eq!(number(&over, Some(versions[2]), "SELECT count(*) FROM t").await, 3);
    // Told of its own versions, it goes on with them.
    let again = over.clone().above(Some(first.version));
    again.ensure(&by_day(), writer(2)).await.unwrap();
    let second = put(&again, vec![wide_rows(DAY_ONE, 6, 9)], mode(), &CommitMeta::new("k2", 2, NOON)).await;
    assert!(second.unwrap().version > first.version);

    assert_eq!(below.content_hash(None, &[]).await.unwrap(), before);
    assert_eq!(known(&below).await.version, versions[2]);
    drop(own);
    assert_eq!(number(&below, None, "SELECT count(*) FROM t").await, 3);
}

pub(super) async fn a_pinned_version_that_is_gone_is_told(format: TableFormat) {
    let (folder, _own, _below, over, versions) = two(format).await;
    let told = |error: LakeError| {
        let step: crate::apply::StepError = error.into();
        assert_eq!(step.code, "HM-L006", "{step}");
        assert!(step.message.contains(ORDERS) && step.message.contains("--refresh"), "{step}");
    };
    told(over.provider(Some(Version(400))).await.unwrap_err());
    // Vacuumed: the version is in the log and its files are not there.
    let files = over.file_set(Some(versions[0])).await.unwrap();
    for file in &files.files {
        std::fs::remove_file(files.dir.join(&file.path)).unwrap();
    }
    told(over.provider(Some(versions[0])).await.unwrap_err());
    assert_eq!(number(&over, Some(versions[2]), "SELECT count(*) FROM t").await, 3, "others are");
    std::fs::remove_dir_all(folder.path().join("commerce")).unwrap();
    told(over.provider(Some(versions[2])).await.unwrap_err());
    let nowhere = Lake::open(folder.path()).await.unwrap().over(std::path::Path::new("/nowhere/at-all"));
    told(nowhere.table(ORDERS, format).unwrap().provider(Some(Version(1))).await.unwrap_err());
}
