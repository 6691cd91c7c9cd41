//! Copies of tables that somebody commits to.

use super::*;

const ADDRESS: &str = "commerce/orders.orders";

async fn hash(lake: &Lake, format: TableFormat, at: Option<Version>) -> String {
    lake.table(ADDRESS, format).unwrap().content_hash(at, &[]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_made_between_commits_is_a_version_of_the_table() {
    for format in [TableFormat::Delta, TableFormat::Iceberg] {
        let (home, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = home.path().join("lake");
        let lake = Lake::open(&place).await.unwrap();
        let table = lake.table(ADDRESS, format).unwrap();
        assert_eq!(lake.copy_table(ADDRESS, copies.path()).await.unwrap(), None);
        table.ensure(&by_day(), writer(1)).await.unwrap();
        let commits = {
            let table = table.clone();
            tokio::spawn(async move {
                for number in 0..30 {
                    let meta = CommitMeta::new(format!("key {number}"), 1, NOON);
                    let rows = vec![wide_rows(DAY_ONE, 3, number)];
                    let _ = put(&table, rows, PublishMode::Append, &meta).await.unwrap();
                }
            })
        };
        let mut copied = Vec::new();
        while !commits.is_finished() && copied.len() < 8 {
            let to = copies.path().join(copied.len().to_string());
            copied.push((lake.copy_table(ADDRESS, &to).await.unwrap().expect("a table"), to));
        }
        commits.await.unwrap();
        let mut hashes = Vec::new();
        for (copy, _) in &copied {
            assert_eq!((copy.format, copy.lacks), (format, 0));
            assert_eq!(copy.location.is_some(), format == TableFormat::Iceberg);
            hashes.push(hash(&lake, format, copy.version).await);
        }
        // Where the table was: an Iceberg table cannot be read elsewhere.
        std::fs::rename(&place, home.path().join("away")).unwrap();
        for ((copy, to), wanted) in copied.iter().zip(hashes) {
            std::fs::rename(to, &place).unwrap();
            let lake = Lake::open(&place).await.unwrap();
            assert_eq!(hash(&lake, format, None).await, wanted, "{copy:?}");
            std::fs::rename(&place, to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_only_being_made_is_none_and_a_damaged_one_is_copied_as_it_lies() {
    let (home, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lake = Lake::open(home.path()).await.unwrap();
    std::fs::create_dir_all(home.path().join(ADDRESS).join("_delta_log")).unwrap();
    assert_eq!(lake.tables().await.unwrap().into_iter().collect::<Vec<_>>(), [ADDRESS]);
    assert_eq!(lake.copy_table(ADDRESS, copies.path()).await.unwrap(), None);
    assert!(!copies.path().join(ADDRESS).exists());
    let table = lake.table(ADDRESS, TableFormat::Delta).unwrap();
    table.ensure(&by_day(), writer(1)).await.unwrap();
    let meta = CommitMeta::new("one", 1, NOON);
    let _ = put(&table, vec![wide_rows(DAY_ONE, 3, 1)], PublishMode::Append, &meta).await.unwrap();
    // Its data file is gone.
    let gone = table.own_file_set(None).await.unwrap().files.pop().expect("a file");
    std::fs::remove_file(table.location().join(gone.path)).unwrap();
    assert_eq!(lake.copy_table(ADDRESS, copies.path()).await.unwrap().expect("a table").lacks, 1);
    std::fs::write(table.location().join("_delta_log/00000000000000000001.json"), "torn").unwrap();
    let copy = lake.copy_table(ADDRESS, copies.path()).await.unwrap().expect("a table");
    assert_eq!(copy.version, None);
    assert!(copies.path().join(ADDRESS).join("_delta_log/00000000000000000001.json").exists());
}
