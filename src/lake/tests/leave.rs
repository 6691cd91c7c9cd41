//! Tables that leave their place.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

const ADDRESS: &str = "commerce/orders.orders";

fn known(version: i64) -> BTreeMap<String, Version> {
    BTreeMap::from([(ADDRESS.to_owned(), Version(version))])
}

async fn filled(folder: &Path, format: TableFormat) -> (Lake, Table, Version) {
    let lake = Lake::open(folder).await.unwrap();
    let table = lake.table(ADDRESS, format).unwrap();
    table.ensure(&by_day(), writer(1)).await.unwrap();
    let meta = CommitMeta::new("one", 1, NOON);
    let published = put(&table, vec![wide_rows(DAY_ONE, 9, 1)], PublishMode::Append, &meta).await.unwrap();
    (lake, table, published.version)
}

pub(super) async fn a_dropped_table_is_gone_with_what_is_beside_it(format: TableFormat) {
    let folder = tempfile::tempdir().unwrap();
    let (lake, table, version) = filled(folder.path(), format).await;
    let aside = lake.table(&format!("{ADDRESS}__quarantine"), format).unwrap();
    aside.ensure(&by_day(), writer(1)).await.unwrap();
    let other = lake.table(&format!("{ADDRESS}-eu"), format).unwrap();
    other.ensure(&by_day(), writer(1)).await.unwrap();
    let left = lake.leave(known(version.0), Leave::Dropped, "7").await.unwrap();
    assert_eq!(left, Left { tables: 2, archive: None });
    for gone in [&table, &aside] {
        assert!(matches!(gone.state().await.unwrap(), TableState::Absent));
    }
    assert!(matches!(other.state().await.unwrap(), TableState::Known(_)), "another port's table stays");
    assert!(!lake.root().join(".dropped").exists());
    assert_eq!(lake.leave(known(version.0), Leave::Dropped, "7").await.unwrap(), Left::default(), "once");
    std::fs::remove_dir_all(lake.root().join("commerce")).unwrap();
    let unmounted = lake.leave(known(version.0), Leave::Dropped, "7").await.unwrap_err();
    assert!(unmounted.to_string().contains("find tables in"), "{unmounted}");
}

pub(super) async fn a_drop_goes_on_where_it_stopped(format: TableFormat) {
    let folder = tempfile::tempdir().unwrap();
    let (lake, table, version) = filled(folder.path(), format).await;
    // It was moved away, and half of it deleted.
    let away = lake.root().join(".dropped/7");
    std::fs::create_dir_all(&away).unwrap();
    std::fs::rename(table.location(), away.join("orders.orders")).unwrap();
    let log =
        away.join("orders.orders").join(if format == TableFormat::Delta { "_delta_log" } else { "metadata" });
    std::fs::remove_dir_all(log).unwrap();
    let left = lake.leave(known(version.0), Leave::Dropped, "7").await.unwrap();
    assert_eq!(left.tables, 1);
    assert!(!lake.root().join(".dropped").exists());
}

pub(super) async fn an_archived_table_can_be_put_back(format: TableFormat) {
    let folder = tempfile::tempdir().unwrap();
    let (lake, table, version) = filled(folder.path(), format).await;
    let hash = table.content_hash(None, &[]).await.unwrap();
    let archived = Leave::Archived(json!({"product": "commerce/orders"}));
    let left = lake.leave(known(version.0), archived.clone(), "7").await.unwrap();
    let archive = ".archive/commerce/orders/7".to_owned();
    assert_eq!(left, Left { tables: 1, archive: Some(archive.clone()) });
    assert!(matches!(table.state().await.unwrap(), TableState::Absent));
    // After a crash before anybody was told.
    assert_eq!(lake.leave(known(version.0), archived, "7").await.unwrap(), left);
    let archive = lake.root().join(archive);
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(archive.join("archive.json")).unwrap()).unwrap();
    assert_eq!(manifest["product"], "commerce/orders");
    std::fs::rename(archive.join("orders.orders"), table.location()).unwrap();
    assert_eq!(table.content_hash(None, &[]).await.unwrap(), hash);
}

pub(super) async fn a_table_that_took_the_place_never_leaves_with_the_old_one(format: TableFormat) {
    let folder = tempfile::tempdir().unwrap();
    let (lake, table, version) = filled(folder.path(), format).await;
    lake.leave(known(version.0), Leave::Dropped, "7").await.unwrap();
    // The product came back; whoever was asleep while it did wakes up.
    table.clone().above(Some(version)).ensure(&by_day(), writer(2)).await.unwrap();
    let aside = lake.table(&format!("{ADDRESS}__quarantine"), format).unwrap();
    aside.ensure(&by_day(), writer(2)).await.unwrap();
    let left = lake.leave(known(version.0), Leave::Dropped, "7").await.unwrap();
    assert_eq!(left.tables, 0);
    for stays in [&table, &aside] {
        assert!(matches!(stays.state().await.unwrap(), TableState::Known(_)));
    }
}

pub(super) async fn nothing_outside_the_lake_leaves(format: TableFormat) {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (lake, table, version) = filled(folder.path(), format).await;
    let outside = elsewhere.path().join("table");
    std::fs::rename(table.location(), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, table.location()).unwrap();
    let refused = lake.leave(known(version.0), Leave::Dropped, "7").await.unwrap_err();
    assert!(refused.to_string().contains("move aside"), "{refused}");
    assert!(outside.join("day=2026-08-01").exists() || outside.join("data").exists());
    // A link inside a table goes, and what it leads to stays.
    std::fs::remove_file(table.location()).unwrap();
    std::fs::rename(&outside, table.location()).unwrap();
    std::fs::write(elsewhere.path().join("kept"), "x").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), table.location().join("link")).unwrap();
    assert_eq!(lake.leave(known(version.0), Leave::Dropped, "7").await.unwrap().tables, 1);
    assert!(elsewhere.path().join("kept").exists());
    // The same for a domain's folder.
    std::fs::remove_dir_all(lake.root().join("commerce")).unwrap();
    std::fs::create_dir_all(elsewhere.path().join("orders.orders")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), lake.root().join("commerce")).unwrap();
    assert!(lake.leave(known(version.0), Leave::Dropped, "7").await.is_err());
    assert!(elsewhere.path().join("orders.orders").exists());
}

pub(super) async fn partitions_are_removed_from_the_newest_version_alone(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let meta = |key: &str| CommitMeta::new(key, 1, NOON);
    let days = vec![wide_rows(DAY_ONE, 9, 1), wide_rows(DAY_ONE + 1, 7, 2), wide_rows(DAY_ONE + 2, 5, 3)];
    let first = put(&table, days, PublishMode::Append, &meta("three days")).await.unwrap().version;
    let gone = table.remove_before("2026-08-03", &meta("kept from 3 August")).await.unwrap().unwrap();
    assert!(gone > first);
    assert_eq!(table.partitions(None).await.unwrap().keys().collect::<Vec<_>>(), ["2026-08-03"]);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 5);
    assert_eq!(number(&table, Some(first), "SELECT count(*) FROM t").await, 21);
    assert_eq!(table.remove_before("2026-08-03", &meta("once more")).await.unwrap(), None);
    assert_eq!(table.sweep(i64::MAX).await.unwrap(), 0, "earlier versions have the files");
    // A writer that another has taken over from removes nothing, and neither does the same commit again.
    let stale = CommitMeta::new("stale", 0, NOON);
    let refused = table.remove_before("2026-08-04", &stale).await.unwrap_err();
    assert!(matches!(refused, LakeError::Fenced { .. }), "{refused}");
    let last = table.remove_before("2026-08-04", &meta("all of it")).await.unwrap();
    assert!(last > Some(gone));
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 0);
    let day = vec![wide_rows(DAY_ONE + 3, 4, 4)];
    let _ = put(&table, day, PublishMode::Append, &meta("the next day")).await.unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 4);
}
