//! Taking a whole ledger from one database to another.

use super::{Lease, Record, Store, StoreError};

/// Records read and written at once.
const PAGE: u32 = 5_000;

/// Adds to a ledger what another one of the same story has beyond it; returns the lease, raised above every epoch there.
///
/// Who calls it holds both leases, so that nothing is added to the other one meanwhile, or later.
///
/// # Errors
/// [`StoreError::Other`] when the two tell different stories.
pub async fn follow(to: &Store, lease: Lease, from: &Store, above: &Lease) -> Result<Lease, StoreError> {
    let lease = to.raise_to(&lease, above.epoch + 1).await?;
    let head = to.head().await?;
    let both = head.min(from.head().await?);
    if both > 0 && to.read(both, 1).await? != from.read(both, 1).await? {
        return Err(StoreError::Other { seq: both });
    }
    let mut next = head + 1;
    loop {
        let records: Vec<Record> = from.read(next, PAGE).await?;
        let Some(last) = records.last() else { break };
        next = last.seq + 1;
        to.restore(&lease, &records).await?;
    }
    // What people asked for and nobody has answered; what was answered is known by its key.
    let mut asked = 0;
    loop {
        let commands = from.commands(asked, PAGE).await?;
        let Some(last) = commands.last() else { return Ok(lease) };
        asked = last.id;
        for command in &commands {
            let _ = to.submit_command(&command.key, &command.body, command.at_ms).await?;
        }
    }
}
