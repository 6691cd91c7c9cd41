//! Taking a whole ledger from one database to another.

use super::{Database, Lease, StoreError};

/// Records read and written at once.
const PAGE: u32 = 5_000;

/// Adds to a ledger what another one of the same story has beyond it; returns the lease, raised above every epoch there.
///
/// Who calls it holds both leases, so that nothing is added to the other one meanwhile, or later.
///
/// # Errors
/// [`StoreError::Other`] when the two tell different stories.
pub async fn follow(
    to: &dyn Database,
    lease: Lease,
    from: &dyn Database,
    above: &Lease,
) -> Result<Lease, StoreError> {
    let lease = to.raise_to(&lease, above.epoch + 1).await?;
    let (head, end) = (to.head().await?, from.head().await?);
    let both = head.min(end);
    if both > 0 && to.read(both, 1).await? != from.read(both, 1).await? {
        return Err(StoreError::Other { seq: both });
    }
    copy_records(to, &lease, from, (head, end)).await?;
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

/// Copies the records after one number up to another, under a lease above their epochs.
pub(super) async fn copy_records(
    to: &dyn Database,
    lease: &Lease,
    from: &dyn Database,
    (mut done, end): (u64, u64),
) -> Result<(), StoreError> {
    while done < end {
        let mut records = from.read(done + 1, PAGE).await?;
        records.retain(|record| record.seq <= end);
        let Some(last) = records.last() else { break };
        done = last.seq;
        to.restore(lease, &records).await?;
    }
    Ok(())
}
