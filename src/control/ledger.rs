//! Facts to records of the store and back.

use hydromesh_core::ledger::{Entry, Fact, LedgerState};

use crate::store::{Store, StoreError};

/// Records read at once.
const PAGE: u32 = 5_000;

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

/// Folds the next page of records into a state; returns whether there was one.
pub(super) async fn fold(store: &Store, state: &mut LedgerState) -> Result<bool, StoreError> {
    let records = store.read(state.seq + 1, PAGE).await?;
    for record in &records {
        match serde_json::from_str::<Fact>(&record.body) {
            Ok(fact) => state.apply(&Entry { seq: record.seq, at_ms: record.at_ms, fact }),
            Err(error) => {
                tracing::warn!(seq = record.seq, kind = record.kind, %error, "skipped an unknown fact");
                state.seq = record.seq;
            }
        }
    }
    Ok(!records.is_empty())
}

/// Returns entries as the store wants them: kind and JSON text.
pub(super) fn records(entries: &[Entry]) -> Result<Vec<(String, String)>, serde_json::Error> {
    entries
        .iter()
        .map(|entry| Ok((entry.fact.kind().to_owned(), serde_json::to_string(&entry.fact)?)))
        .collect()
}
