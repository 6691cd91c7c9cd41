//! Who may write: one row with an epoch that only rises. What it allows is decided here, whatever database it lies in.

use super::StoreError;

/// The right to append, until another takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Lease {
    pub owner: String,
    /// Greater than every epoch before it.
    pub epoch: u64,
    /// Milliseconds since 1970; renew well before.
    pub expires_ms: i64,
}

/// The row as read inside a transaction that nobody can write beside.
#[derive(Debug, Default)]
pub(super) struct Current {
    pub epoch: u64,
    /// Nobody after a release, and where somebody deleted the row.
    pub owner: Option<String>,
    pub expires_ms: i64,
    /// Whether the owner also held the lock when it last wrote the row.
    pub locked: bool,
}

impl Current {
    /// Returns the next lease; `has_lock` says that the one who asks has the lock now, so that nobody else lives who had it.
    pub fn next(&self, owner: &str, now_ms: i64, ttl_ms: i64, has_lock: bool) -> Result<Lease, StoreError> {
        let holder_is_gone = self.locked && has_lock;
        if let Some(other) = self.owner.as_ref().filter(|_| self.expires_ms > now_ms && !holder_is_gone) {
            return Err(StoreError::LeaseHeld { owner: other.clone(), expires_ms: self.expires_ms });
        }
        let expires_ms = now_ms.saturating_add(ttl_ms);
        Ok(Lease { owner: owner.to_owned(), epoch: self.epoch + 1, expires_ms })
    }

    /// Lets the holder of the current lease pass. A lease that ran out but that nobody took over still is the current one:
    /// the epoch, not the clock, is the fence.
    pub fn check(&self, epoch: u64) -> Result<(), StoreError> {
        if self.owner.is_some() && self.epoch == epoch {
            Ok(())
        } else {
            Err(StoreError::Fenced { expected: epoch, current: self.epoch })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL_MS: i64 = 30_000;
    const SKEW_MS: i64 = 10 * 60_000;

    /// Where the ledger is a file, both ask the clock of one machine, and where it is on a server, that of the server. Clocks
    /// ten minutes apart are what is left: one that was set back, or a server that was moved.
    #[test]
    fn clocks_ten_minutes_apart_change_who_leads_and_never_let_two() {
        let mut now = Current::default();
        let mut take = |owner: &str, now_ms: i64| {
            let lease = now.next(owner, now_ms, TTL_MS, false)?;
            now = Current {
                epoch: lease.epoch,
                owner: Some(owner.to_owned()),
                expires_ms: lease.expires_ms,
                locked: false,
            };
            Ok::<_, StoreError>(lease)
        };
        let first = take("behind", 0).unwrap();
        // To the one whose clock is ahead the lease ran out long ago.
        let second = take("ahead", SKEW_MS).unwrap();
        assert!(second.epoch > first.epoch);
        // The other is fenced, asks, and is told to wait; it does not take the lease back and forth.
        for now_ms in [1, TTL_MS, SKEW_MS] {
            let held = take("behind", now_ms).unwrap_err();
            assert!(matches!(held, StoreError::LeaseHeld { ref owner, .. } if owner == "ahead"), "{held:?}");
        }
        assert!(matches!(now.check(first.epoch), Err(StoreError::Fenced { .. })));
        now.check(second.epoch).unwrap();
    }
}
