//! Looking after a table that a step has filled.

use std::path::Path;
use std::time::{Duration, SystemTime};

use hydromesh_core::observe::alteration;

use super::*;
use crate::lake::{Table, TableFormat, Version};

const DAY: Duration = Duration::from_hours(24);

fn table(world: &World) -> Table {
    world.context.lake.table("shop/visits.visits", TableFormat::Delta).expect("an address")
}

/// Writes a file that was last touched so long ago.
fn write(path: &Path, ago: Duration) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let file = std::fs::File::create(path).expect("a file");
    file.set_modified(SystemTime::now() - ago).expect("a date");
}

fn tended(told: &Told) -> (u64, Option<i64>) {
    let found = told.facts.iter().find_map(|fact| match fact {
        Fact::Tended { files, version, .. } => Some((*files, *version)),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{:?}", told.outcome))
}

/// Asserts that whoever looks at the table finds what the ledger says.
async fn assert_as_told(world: &World) {
    let port: PortId = "shop/visits.visits".parse().expect("a port");
    let seen = table(world).observe(Version(world.ledger.ports[&port].version)).await.expect("a look");
    assert_eq!(alteration(&world.ledger, &port, &seen), None);
}

#[tokio::test]
async fn files_of_no_version_go_when_they_are_old_and_rows_stay() {
    let mut world = World::new().await;
    world.compute("2026-06-01", "2026-06-03", usual).await;
    let table = table(&world);
    let before = (table.content_hash(None, &[]).await.unwrap(), world.ledger.ports.clone());
    let (old, fresh) = (table.location().join("old.parquet"), table.location().join("fresh.parquet"));
    let beside = table.location().with_file_name("visits.visits__quarantine").join("old.parquet");
    write(&old, DAY * 8);
    write(&fresh, DAY * 6);
    write(&beside, DAY * 8);
    let told = world.work(Work::Tend).await;
    assert_eq!(tended(&told), (1, None));
    assert!(!old.exists() && fresh.exists());
    assert!(beside.exists(), "there is no table beside it, so that nothing says which files are in use");
    assert_eq!((table.content_hash(None, &[]).await.unwrap(), world.ledger.ports.clone()), before);
    assert_as_told(&world).await;
    assert!(world.ledger.tended.contains_key(&"shop/visits:make".parse().unwrap()));

    // Where the log is gone every file would be one of no version.
    std::fs::remove_dir_all(table.location().join("_delta_log")).unwrap();
    write(&old, DAY * 8);
    let told = world.work(Work::Tend).await;
    assert!(told.facts.is_empty() && old.exists());
}

#[tokio::test]
async fn what_is_not_kept_is_removed_in_one_commit_and_earlier_versions_stay() {
    let mut world = World::new().await;
    world.compute("2026-06-01", "2026-06-04", usual).await;
    let port: PortId = "shop/visits.visits".parse().unwrap();
    let version = world.ledger.ports[&port].version;
    world.tell(Fact::Expired { port: port.clone(), before: "2026-06-03".to_owned() });
    // Between the fact and the commit nobody takes the rows for somebody else's doing, nor after it.
    assert_as_told(&world).await;
    let told = world.work(Work::Tend).await;
    assert_eq!(tended(&told), (0, Some(version + 1)));
    assert_eq!(world.ledger.ports[&port].version, version + 1, "readers are given the version without them");
    assert_eq!(world.rows("2026-06-02").await, 0);
    assert!(world.rows("2026-06-03").await > 0);
    assert_as_told(&world).await;
    let shown = table(&world).partitions(None).await.unwrap();
    assert_eq!(shown.keys().collect::<Vec<_>>(), ["2026-06-03", "2026-06-04"]);
    assert_eq!(table(&world).partitions(Some(Version(version))).await.unwrap().len(), 4);
    // Whoever did it may have died before telling: doing it again tells, and commits nothing.
    let again = world.work(Work::Tend).await;
    assert_eq!(tended(&again), (0, Some(version + 1)));

    // A step that began before the fact ends after it: what it made is not counted on, and goes.
    world.compute("2026-06-02", "2026-06-02", usual).await;
    assert!(!world.ledger.ports[&port].partitions.contains_key("2026-06-02"));
    assert_as_told(&world).await;
    world.work(Work::Tend).await;
    assert_eq!(world.rows("2026-06-02").await, 0);
    assert_as_told(&world).await;
}
