//! The ledger's copy in the lake, the table `platform/ledger.facts`: what a lost state folder is rebuilt from, and what other
//! programs read.
//!
//! The copy is a stream like any other: each commit carries how far it goes and follows the one before, so that facts are
//! neither lost nor there twice, whoever died when.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use hydromesh_core::ledger::LedgerState;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::ledger::{LedgerError, replay};
use crate::apply::lake_format;
use crate::clock::Clock;
use crate::fault::point;
use crate::lake::{
    Checkpoint, CommitMeta, Lake, LakeError, PublishMode, Table, TableFormat, TableSpec, TableState, Writer,
};
use crate::outage::Outage;
use crate::store::{Lease, Record, Store, StoreError};

/// The table's address.
const ADDRESS: &str = "platform/ledger.facts";
/// The name of the stream in the table's commits.
const STREAM: &str = "platform/ledger";
/// Facts in one commit, and read at once.
const PAGE: u32 = 20_000;
/// Facts are copied at least so often, or when a page of them waits.
const EVERY: Duration = Duration::from_mins(5);
/// How often it is looked whether a page waits.
const LOOK: Duration = Duration::from_secs(10);

/// Why the copy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The lake failed.
    #[error("the ledger's copy in the lake cannot be used")]
    Lake(#[from] LakeError),
    /// The store failed.
    #[error("the ledger cannot be used")]
    Store(#[from] StoreError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The lake belongs to another ledger.
    #[error(
        "the lake holds the copy of another ledger: they differ at fact {seq}. Restore that ledger, give this one a lake of \
         its own, or move the folder {ADDRESS} of the lake away if its facts are not needed"
    )]
    Other {
        /// The fact.
        seq: u64,
    },
}

/// The last fact of a commit to the copy.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    to: u64,
    epoch: u64,
    /// Of the fact, so that a start can tell another ledger without reading the table.
    digest: String,
}

fn digest(record: &Record) -> String {
    let head = format!("{} {} {} {}\n", record.seq, record.at_ms, record.epoch, record.kind);
    hex::encode(Sha256::new().chain_update(head).chain_update(&record.body).finalize())
}

/// The copy.
#[derive(Debug, Clone)]
pub(super) struct LedgerCopy {
    table: Table,
}

impl LedgerCopy {
    pub(super) fn of(lake: &Lake) -> Result<Self, LakeError> {
        Ok(Self { table: lake.table(ADDRESS, TableFormat::Delta)? })
    }

    /// Adds to the ledger what only the copy still knows: all of it to a new ledger, the rest to one from a backup.
    /// Returns the lease, raised above whoever wrote those facts or committed to a table.
    ///
    /// # Errors
    /// [`CopyError::Other`] when the two tell different stories.
    pub(super) async fn restore(
        &self,
        store: &Store,
        mut lease: Lease,
        lake: &Lake,
    ) -> Result<Lease, CopyError> {
        let Some(end) = self.end().await? else { return Ok(lease) };
        let head = store.head().await?;
        let same = if end.to <= head {
            // The usual start: what the table's newest commit says is enough.
            store.read(end.to, 1).await?.first().is_some_and(|record| digest(record) == end.digest)
        } else {
            head == 0 || self.read(head, 1).await?.first() == store.read(head, 1).await?.first()
        };
        if !same {
            return Err(CopyError::Other { seq: end.to.min(head) });
        }
        if end.to <= head {
            return Ok(lease);
        }
        tracing::warn!(
            facts = end.to - head,
            "the ledger lacks facts that its copy in the lake has; they are restored"
        );
        lease = store.raise_to(&lease, end.epoch + 1).await?;
        let mut next = head + 1;
        while next <= end.to {
            let records = self.read(next, PAGE).await?;
            let Some(last) = records.last() else { break };
            next = last.seq + 1;
            store.restore(&lease, &records).await?;
        }
        let fence = highest_fence(lake, &replay(store).await?).await;
        Ok(store.raise_to(&lease, fence).await?)
    }

    /// Copies what the table lacks; returns how many facts.
    pub(super) async fn catch_up(&self, store: &Store, writer: Writer) -> Result<u64, CopyError> {
        let mut end = self.end().await?;
        let head = store.head().await?;
        let mut from = end.as_ref().map_or(0, |end| end.to);
        if from < head {
            self.table.ensure(&TableSpec { schema: schema(), partition_by: None }, writer).await?;
        }
        let mut copied = 0;
        while from < head {
            let records = store.read(from + 1, PAGE).await?;
            let Some(last) = records.last() else { break };
            let next = End { to: last.seq, epoch: last.epoch, digest: digest(last) };
            let checkpoint = Checkpoint {
                pipeline: STREAM.to_owned(),
                record: serde_json::to_value(&next).map_err(LakeError::from)?,
                follows: end.map(serde_json::to_value).transpose().map_err(LakeError::from)?,
            };
            let meta = CommitMeta::new(format!("facts to {}", last.seq), writer.epoch, writer.at_ms)
                .with_checkpoint(checkpoint);
            let rows = futures::stream::iter([Ok(batch(&records)?)]);
            let staged =
                self.table.stage(&meta, Box::pin(RecordBatchStreamAdapter::new(schema(), rows))).await?;
            point("copy.before-commit");
            let _ = self.table.publish(staged, PublishMode::Append, &meta).await?;
            point("copy.after-commit");
            copied += records.len() as u64;
            from = last.seq;
            end = Some(next);
        }
        Ok(copied)
    }

    /// Returns how far the copy goes, if it has begun.
    async fn end(&self) -> Result<Option<End>, LakeError> {
        let record = self.table.last_checkpoint(STREAM).await?;
        Ok(record.map(serde_json::from_value).transpose()?)
    }

    /// Returns at most `most` records from a place on, in order.
    async fn read(&self, from: u64, most: u32) -> Result<Vec<Record>, LakeError> {
        let session = SessionContext::new();
        session.register_table("facts", self.table.provider(None).await?)?;
        let to = from + u64::from(most);
        let sql = format!(
            "SELECT seq, at_ms, epoch, kind, body FROM facts WHERE seq >= {from} AND seq < {to} ORDER BY seq"
        );
        let batches = session.sql(&sql).await?.collect().await?;
        Ok(batches.iter().flat_map(records).collect())
    }
}

/// Copies until the process ends: now and then, and earlier when much waits.
pub(super) async fn keep_copying(
    copy: LedgerCopy,
    store: Store,
    mut ledger: watch::Receiver<Arc<LedgerState>>,
    clock: Clock,
    epoch: u64,
) {
    let mut outage = Outage::default();
    let (mut copied_to, mut waited) = (0, Duration::ZERO);
    loop {
        tokio::time::sleep(LOOK).await;
        waited += LOOK;
        let head = ledger.borrow_and_update().seq;
        if head == copied_to || (waited < EVERY && head < copied_to + u64::from(PAGE)) {
            continue;
        }
        match copy.catch_up(&store, Writer { epoch, at_ms: clock.now_ms() }).await {
            Ok(_) => {
                (copied_to, waited) = (head, Duration::ZERO);
                outage.ends();
            }
            Err(error) => {
                let text = crate::text::chain(&error);
                if outage.begins(&text) {
                    tracing::warn!("facts could not be copied to the lake, tried again: {text}");
                }
            }
        }
    }
}

/// Returns the highest epoch that any table of the mesh was committed under; what cannot be read has no say.
async fn highest_fence(lake: &Lake, ledger: &LedgerState) -> u64 {
    let mut highest = 0;
    for port in ledger.ports.keys() {
        let output = ledger.deployed.get(&port.product).and_then(|it| it.product.outputs.get(&port.port));
        let Some(output) = output else { continue };
        let Ok(table) = lake.table(&port.to_string(), lake_format(output.format)) else { continue };
        if let Ok(TableState::Known(known)) = table.state().await {
            highest = highest.max(known.last_commit.map_or(0, |commit| commit.writer_epoch));
        }
    }
    highest
}

fn schema() -> SchemaRef {
    let number = |name| Field::new(name, DataType::Int64, false);
    let text = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![number("seq"), number("at_ms"), number("epoch"), text("kind"), text("body")]))
}

fn batch(records: &[Record]) -> Result<RecordBatch, LakeError> {
    let unsigned = |value: fn(&Record) -> u64| -> ArrayRef {
        let signed = |record| i64::try_from(value(record)).unwrap_or(i64::MAX);
        Arc::new(records.iter().map(signed).map(Some).collect::<Int64Array>())
    };
    let text = |value: fn(&Record) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(records.iter().map(value)))
    };
    let times = Int64Array::from_iter_values(records.iter().map(|record| record.at_ms));
    let columns = vec![
        unsigned(|record| record.seq),
        Arc::new(times) as ArrayRef,
        unsigned(|record| record.epoch),
        text(|record| &record.kind),
        text(|record| &record.body),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

fn records(batch: &RecordBatch) -> Vec<Record> {
    let number = |at: usize| batch.column(at).as_primitive::<Int64Type>();
    let (kinds, bodies) = (batch.column(3).as_string::<i32>(), batch.column(4).as_string::<i32>());
    let unsigned = |at: usize, row: usize| u64::try_from(number(at).value(row)).unwrap_or(0);
    let record = |row: usize| Record {
        seq: unsigned(0, row),
        at_ms: number(1).value(row),
        epoch: unsigned(2, row),
        kind: kinds.value(row).to_owned(),
        body: bodies.value(row).to_owned(),
    };
    (0..batch.num_rows()).map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OpenMode;

    const T0: i64 = 1_785_585_600_000;

    fn writer(epoch: u64) -> Writer {
        Writer { epoch, at_ms: T0 }
    }

    async fn ledger(folder: &std::path::Path) -> Store {
        Store::open(&folder.join("ledger.db"), OpenMode::ReadWrite).await.unwrap()
    }

    struct Scene {
        folder: tempfile::TempDir,
        lake: Lake,
        copy: LedgerCopy,
        store: Store,
        lease: Lease,
    }

    /// A ledger with a writer, beside a lake without a copy.
    async fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().join("lake")).await.unwrap();
        let copy = LedgerCopy::of(&lake).unwrap();
        let store = ledger(&folder.path().join("one")).await;
        let lease = store.lease("one", T0, 1_000).await.unwrap();
        Scene { folder, lake, copy, store, lease }
    }

    async fn tell(store: &Store, lease: &Lease, texts: std::ops::Range<u32>) {
        let facts: Vec<(String, String)> =
            texts.map(|n| ("note".to_owned(), format!("{{\"n\": {n}, \"text\": \"\\u0000ü\"}}"))).collect();
        store.append(lease.epoch, T0, &facts).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lost_ledger_comes_back_as_it_was() {
        let Scene { folder, lake, copy, store, lease } = scene().await;
        // Nothing to restore, nothing to copy.
        let lease = copy.restore(&store, lease, &lake).await.unwrap();
        assert_eq!((lease.epoch, copy.catch_up(&store, writer(1)).await.unwrap()), (1, 0));
        tell(&store, &lease, 0..5).await;
        assert_eq!(copy.catch_up(&store, writer(1)).await.unwrap(), 5);
        assert_eq!(copy.catch_up(&store, writer(1)).await.unwrap(), 0);
        let lease = store.raise(&lease).await.unwrap();
        tell(&store, &lease, 5..7).await;
        assert_eq!(copy.catch_up(&store, writer(2)).await.unwrap(), 2);
        let all = store.read(1, 100).await.unwrap();

        // An empty folder.
        let other = ledger(&folder.path().join("two")).await;
        let lease = other.lease("two", T0, 1_000).await.unwrap();
        let lease = copy.restore(&other, lease, &lake).await.unwrap();
        assert_eq!(other.read(1, 100).await.unwrap(), all);
        assert_eq!(lease.epoch, 3, "above those that wrote them");
        tell(&other, &lease, 7..8).await;
        other.integrity().await.unwrap();
        // It goes on, and the process that was believed dead can no longer write to the copy.
        assert_eq!(copy.catch_up(&other, writer(3)).await.unwrap(), 1);
        tell(&store, &store.renew(&Lease { epoch: 2, ..lease.clone() }, T0, 1_000).await.unwrap(), 90..99)
            .await;
        let stale = copy.catch_up(&store, writer(2)).await;
        assert!(matches!(stale, Err(CopyError::Lake(LakeError::Fenced { .. }))), "{stale:?}");
        let lease = store.lease("one", T0 + 9_000, 1_000).await.unwrap();
        // The one with more facts than the copy, and one with fewer.
        let mixed = copy.restore(&store, lease, &lake).await;
        assert!(matches!(mixed, Err(CopyError::Other { seq: 8 })), "{mixed:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backup_gets_the_facts_that_came_after_it() {
        let Scene { folder, lake, copy, store, lease } = scene().await;
        tell(&store, &lease, 0..5).await;
        std::fs::create_dir_all(folder.path().join("two")).unwrap();
        store.backup(&folder.path().join("two").join("ledger.db")).await.unwrap();
        tell(&store, &lease, 5..9).await;
        copy.catch_up(&store, writer(1)).await.unwrap();
        let backup = ledger(&folder.path().join("two")).await;
        assert_eq!(backup.head().await.unwrap(), 5);
        let lease = backup.lease("two", T0 + 9_000, 1_000).await.unwrap();
        let _ = copy.restore(&backup, lease, &lake).await.unwrap();
        assert_eq!(backup.read(1, 100).await.unwrap(), store.read(1, 100).await.unwrap());
    }
}
