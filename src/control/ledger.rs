//! Facts to records of the store and back.

use std::time::Duration;

use hydromesh_core::ledger::{Entry, LedgerState};

use crate::outage::Outage;
use crate::replay::fold;
use crate::store::{Store, StoreError};

/// Why the ledger cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store failed.
    #[error("could not read the ledger")]
    Store(#[from] StoreError),
}

/// Returns the ledger folded, from its first record to its last.
///
/// A fact that this version does not know is skipped: a newer version wrote it, and refusing to start would help nobody.
///
/// # Errors
/// When the store cannot be read.
pub async fn replay(store: &Store) -> Result<LedgerState, LedgerError> {
    let mut state = LedgerState::default();
    while fold(store, &mut state).await? {}
    Ok(state)
}

/// Makes facts durable; a disk that is full or read-only and a busy file are waited out, for nothing may happen without its
/// fact.
///
/// # Errors
/// When this process may no longer write, or the disk is broken.
pub async fn append(store: &Store, epoch: u64, entries: &[Entry]) -> Result<(), StoreError> {
    let (at_ms, records) = (entries.last().map_or(0, |entry| entry.at_ms), records(entries)?);
    let mut pause = Duration::from_millis(100);
    let mut outage = Outage::default();
    loop {
        let error = match store.append(epoch, at_ms, &records).await {
            Ok(seq) => return in_order(seq, entries),
            Err(error) if error.is_transient() => error,
            Err(error) => return Err(error),
        };
        let why = crate::text::chain(&error);
        if outage.begins(&why) {
            tracing::warn!("the ledger cannot be written, tried again until it can: {why}");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
        // What a disk failed to acknowledge may be on it all the same, and would be there twice.
        if is_there(store, epoch, entries, &records).await {
            return Ok(());
        }
    }
}

/// Refuses to go on when the store goes on from another place than control does: it lost facts that it had acknowledged, as a
/// replica may that takes over from its server.
fn in_order(seq: u64, entries: &[Entry]) -> Result<(), StoreError> {
    let Some(last) = entries.last().filter(|last| last.seq != seq) else { return Ok(()) };
    let detail = format!("a fact that is number {} was given number {seq}", last.seq);
    Err(StoreError::Damaged { place: "the ledger".to_owned(), detail })
}

/// Returns whether the last of these facts is in the ledger, and with it all of them.
async fn is_there(store: &Store, epoch: u64, entries: &[Entry], records: &[(String, String)]) -> bool {
    let (Some(entry), Some((kind, body))) = (entries.last(), records.last()) else { return false };
    // Whoever took over meanwhile may have given the number to a fact of its own.
    let found = store.read(entry.seq, 1).await.unwrap_or_default();
    found
        .first()
        .is_some_and(|it| it.seq == entry.seq && it.epoch == epoch && it.kind == *kind && it.body == *body)
}

/// Returns entries as the store wants them: kind and JSON text.
pub(super) fn records(entries: &[Entry]) -> Result<Vec<(String, String)>, StoreError> {
    let record = |entry: &Entry| {
        let kind = entry.fact.kind().to_owned();
        match serde_json::to_string(&entry.fact) {
            Ok(body) => Ok((kind, body)),
            Err(_) => Err(StoreError::BadFact { kind }),
        }
    };
    entries.iter().map(record).collect()
}
