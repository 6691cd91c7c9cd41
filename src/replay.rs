//! Records of the store back to facts, folded.

use hydromesh_core::ledger::{Entry, Fact, LedgerState};

use crate::store::{Store, StoreError};

/// Records read at once.
const PAGE: u32 = 5_000;

/// Folds the next page of records into a state; returns whether there was one.
///
/// A fact that this version does not know is skipped: a newer version wrote it, and refusing to start would help nobody.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn fold(store: &Store, state: &mut LedgerState) -> Result<bool, StoreError> {
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
