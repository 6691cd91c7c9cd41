//! Looks at tables: whether they still show what was published.
//!
//! A look at a folder tells that a table was committed to or is gone; that is done for every table at every pass. Reading a
//! table costs milliseconds, so it is read when that mark moved, and the few that were read longest ago are read again,
//! because data files can go without a commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hydromesh_core::control::Event;
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::LedgerState;
use hydromesh_core::observe::Seen;
use hydromesh_core::plan::Work;
use tokio::sync::{mpsc, watch};

use crate::apply::lake_format;
use crate::lake::{Lake, LakeError, Table, Version};
use crate::outage::Outage;

/// Tables that are read again at each pass although nothing was committed to them.
const AGAIN: usize = 5;

/// What is remembered of a table.
#[derive(Debug, Default)]
struct Looked {
    /// The mark that it had when it was read last, and how often it had been published.
    at: Option<(Option<SystemTime>, u64)>,
    /// The pass in which it was read last.
    pass: u64,
    outage: Outage,
}

/// Looks, after a first pause and then at a steady pace, until nobody listens any more; tells after each pass how many there
/// were.
pub(super) async fn watch_tables(
    lake: Arc<Lake>,
    mut ledger: watch::Receiver<Arc<LedgerState>>,
    events: mpsc::Sender<Event>,
    (first, every): (Duration, Duration),
    passes: watch::Sender<u64>,
) {
    let mut looked: BTreeMap<PortId, Looked> = BTreeMap::new();
    for pass in 1.. {
        passes.send_replace(pass - 1);
        tokio::time::sleep(if pass == 1 { first } else { every }).await;
        let known = ledger.borrow_and_update().clone();
        let tables = published(&known, &lake);
        looked.retain(|port, _| tables.contains_key(port));
        let marks = marks(&tables).await;
        if nothing_there(&marks) {
            tracing::warn!(
                lake = %lake.root().display(), tables = tables.len(),
                "none of the tables is there: taken for a disk that is not mounted, not for tables that were dropped"
            );
            continue;
        }
        for port in chosen(&marks, &looked, &known) {
            let (Some(Ok(mark)), Some(table)) = (marks.get(&port), tables.get(&port)) else { continue };
            let known = ledger.borrow().clone();
            if is_written(&known, &port) {
                continue;
            }
            let published = times_published(&known, &port);
            let entry = looked.entry(port.clone()).or_default();
            entry.pass = pass;
            let version = known.ports.get(&port).map_or(0, |state| state.version);
            match look(table, Version(version)).await {
                Ok(seen) => {
                    entry.outage.ends();
                    let gone = matches!(seen, Seen::Absent | Seen::Damaged);
                    if !is_still_so(&port, *mark, gone, &tables).await {
                        continue;
                    }
                    // Of what was published meanwhile nothing is known yet: the next pass reads it again.
                    let current = times_published(&ledger.borrow(), &port) == published;
                    entry.at = (current && !gone).then_some((*mark, published));
                    if events.send(Event::Observed { port, published, seen }).await.is_err() {
                        return;
                    }
                }
                // What it shows is unknown, and nothing is done about it.
                Err(error) => {
                    let text = crate::text::chain(&error);
                    if entry.outage.begins(&text) {
                        tracing::warn!(%port, "could not look at its table: {text}");
                    }
                }
            }
        }
    }
}

/// Looks at one table. What is damaged and can be mended without a loss is mended first.
async fn look(table: &Table, published: Version) -> Result<Seen, LakeError> {
    let seen = table.observe(published).await?;
    if seen == Seen::Damaged && table.mend().await? { table.observe(published).await } else { Ok(seen) }
}

/// Returns the tables of which something is known to be published.
fn published(ledger: &LedgerState, lake: &Lake) -> BTreeMap<PortId, Table> {
    let mut tables = BTreeMap::new();
    for deployed in ledger.deployed.values() {
        for pipeline in deployed.product.pipelines.values() {
            let port = deployed.product.port(pipeline.output());
            let known = ledger.ports.get(&port).is_some_and(|state| state.version > 0);
            if let Some(output) = deployed.product.outputs.get(pipeline.output()).filter(|_| known)
                && let Ok(table) = lake.table(&port.to_string(), lake_format(output.format))
            {
                tables.insert(port, table);
            }
        }
    }
    tables
}

fn times_published(ledger: &LedgerState, port: &PortId) -> u64 {
    ledger.ports.get(port).map_or(0, |state| state.published)
}

type Mark = std::io::Result<Option<SystemTime>>;

async fn marks(tables: &BTreeMap<PortId, Table>) -> BTreeMap<PortId, Mark> {
    let tables = tables.clone();
    let look = move || tables.iter().map(|(port, table)| (port.clone(), table.stamp())).collect();
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

/// Returns whether several tables are known and not one of them is there.
fn nothing_there(marks: &BTreeMap<PortId, Mark>) -> bool {
    marks.len() > 1 && marks.values().all(|mark| matches!(mark, Ok(None)))
}

/// Returns whether a look at a table counts: a disk that goes away between the marks and the look must not make it a dropped one.
///
/// Its own mark is the same before and after, and where it is absent, other tables are there.
async fn is_still_so(
    port: &PortId,
    mark: Option<SystemTime>,
    absent: bool,
    tables: &BTreeMap<PortId, Table>,
) -> bool {
    // Whether the others are there matters only where this one is not; looks at thousands of tables cost one mark each.
    let looked = tables
        .iter()
        .filter(|(other, _)| absent || *other == port)
        .map(|(port, it)| (port.clone(), it.clone()));
    let now = marks(&looked.collect()).await;
    matches!(now.get(port), Some(Ok(now)) if *now == mark) && !(absent && nothing_there(&now))
}

/// Returns the tables to read: those whose mark moved, and those that were read longest ago.
fn chosen(
    marks: &BTreeMap<PortId, Mark>,
    looked: &BTreeMap<PortId, Looked>,
    ledger: &LedgerState,
) -> Vec<PortId> {
    let (mut moved, mut rest) = (Vec::new(), Vec::new());
    for (port, mark) in marks {
        let Ok(mark) = mark else { continue };
        let (published, known) = (times_published(ledger, port), looked.get(port));
        if known.and_then(|it| it.at) == Some((*mark, published)) {
            rest.push((known.map_or(0, |it| it.pass), port.clone()));
        } else {
            moved.push(port.clone());
        }
    }
    rest.sort();
    moved.extend(rest.into_iter().take(AGAIN).map(|(_, port)| port));
    moved
}

/// Returns whether a step that ends by itself is writing a product's tables: what is seen in the middle of it says nothing.
fn is_written(ledger: &LedgerState, port: &PortId) -> bool {
    let mut steps = ledger.running.values();
    steps.any(|step| step.pipeline.product == port.product && step.work != Work::Follow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::TableFormat;

    #[test]
    fn a_lake_without_any_table_is_an_unmounted_disk() {
        let port = |name: &str| -> PortId { format!("shop/{name}.{name}").parse().unwrap() };
        let now = SystemTime::now();
        let marks = |marks: [Mark; 2]| -> BTreeMap<PortId, Mark> {
            ["a", "b"].into_iter().map(port).zip(marks).collect()
        };
        assert!(nothing_there(&marks([Ok(None), Ok(None)])));
        assert!(!nothing_there(&marks([Ok(None), Ok(Some(now))])));
        let unknown = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert!(!nothing_there(&marks([Ok(None), Err(unknown)])));
        assert!(!nothing_there(&BTreeMap::from([(port("a"), Ok(None))])), "one table can be dropped");
    }

    #[tokio::test]
    async fn a_disk_that_goes_away_during_a_look_dropped_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("lake");
        let lake = Lake::open(&root).await.unwrap();
        let tables: BTreeMap<PortId, Table> = ["shop/a.a", "shop/b.b"]
            .map(|name| (name.parse().unwrap(), lake.table(name, TableFormat::Delta).unwrap()))
            .into();
        for table in tables.values() {
            std::fs::create_dir_all(table.location().join("_delta_log")).unwrap();
        }
        let port: PortId = "shop/a.a".parse().unwrap();
        let mark = tables[&port].stamp().unwrap();
        assert!(is_still_so(&port, mark, false, &tables).await);
        let away = folder.path().join("away");
        std::fs::rename(&root, &away).unwrap();
        assert!(!is_still_so(&port, mark, true, &tables).await, "its mark was there before the look");
        assert!(!is_still_so(&port, None, true, &tables).await, "only the others' marks were");
        std::fs::rename(&away, &root).unwrap();
        std::fs::remove_dir_all(tables[&port].location()).unwrap();
        assert!(is_still_so(&port, None, true, &tables).await, "this one is dropped");
        assert!(
            !is_still_so(&port, mark, true, &tables).await,
            "and was not yet when the look began: asked again"
        );
    }
}
