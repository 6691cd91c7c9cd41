//! The lease in the file, and the operating-system lock beside it that dies with its process.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::PoisonError;

use sqlx::{Row, SqliteConnection};

use super::write::WriteTx;
use super::{Sqlite, StoreError, database, from_sql, io, to_sql};
use crate::store::files::beside;
use crate::store::lease::{Current, Lease};
use crate::store::rows::{LAST_EPOCH, LEASE, RAISE, RENEW, TAKE};

/// The operating-system lock, and the epoch for which we took it.
#[derive(Debug)]
pub(super) struct Held {
    file: File,
    epoch: u64,
}

/// Reads the row. Where somebody deleted it, the ledger itself still knows the last epoch, and nobody owns it.
async fn current(tx: &mut SqliteConnection) -> Result<Current, StoreError> {
    const ACTION: &str = "read the lease";
    let row = sqlx::query(LEASE).fetch_optional(&mut *tx).await.map_err(database(ACTION))?;
    if let Some(row) = row {
        let read = || -> Result<Current, sqlx::Error> {
            Ok(Current {
                epoch: from_sql(row.try_get(0)?),
                owner: row.try_get(1)?,
                expires_ms: row.try_get(2)?,
                locked: row.try_get::<i64, _>(3)? != 0,
            })
        };
        return read().map_err(database(ACTION));
    }
    let epoch: Option<i64> =
        sqlx::query_scalar(LAST_EPOCH).fetch_optional(&mut *tx).await.map_err(database(ACTION))?;
    Ok(Current { epoch: from_sql(epoch.unwrap_or(0)), ..Current::default() })
}

/// Returns whether a process that lives leads the ledger in a file: it keeps the lock for as long as it lives.
pub fn is_held(ledger: &Path) -> bool {
    let lock = File::options().read(true).append(true).open(beside(ledger, "lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

impl Sqlite {
    pub(super) async fn take(&self, owner: &str, now_ms: i64, ttl_ms: i64) -> Result<Lease, StoreError> {
        const ACTION: &str = "take the lease";
        let mut tx = self.begin(ACTION).await?;
        // Asked for inside the transaction: of several that ask at once, the row and the lock go to the same one.
        let lock = self.take_lock()?;
        let now = current(&mut tx).await?;
        let lease = match now.next(owner, now_ms, ttl_ms, lock.is_some()) {
            Ok(lease) => lease,
            Err(error) => {
                self.drop_lock_unless_ours(now.epoch);
                return Err(error);
            }
        };
        sqlx::query(TAKE)
            .bind(to_sql(lease.epoch))
            .bind(owner)
            .bind(lease.expires_ms)
            .bind(i64::from(lock.is_some()))
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        self.hold(lock, lease.epoch);
        crate::fault::point("lease.after-take");
        Ok(lease)
    }

    pub(super) async fn prolong(&self, lease: &Lease, now_ms: i64, ttl_ms: i64) -> Result<Lease, StoreError> {
        const ACTION: &str = "renew the lease";
        let mut tx = self.begin_as(lease.epoch, ACTION).await?;
        // After a take-over from a stopped process its lock is free only once that process ends.
        let lock = self.take_lock()?;
        let renewed = Lease { expires_ms: now_ms.saturating_add(ttl_ms), ..lease.clone() };
        sqlx::query(RENEW)
            .bind(renewed.expires_ms)
            .bind(i64::from(lock.is_some()))
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        self.hold(lock, lease.epoch);
        Ok(renewed)
    }

    pub(super) async fn lift(&self, lease: &Lease, epoch: u64) -> Result<Lease, StoreError> {
        const ACTION: &str = "raise the lease's epoch";
        let mut tx = self.begin_as(lease.epoch, ACTION).await?;
        let raised = Lease { epoch: epoch.max(lease.epoch), ..lease.clone() };
        sqlx::query(RAISE).bind(to_sql(raised.epoch)).execute(&mut *tx).await.map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        if let Some(held) = &mut *self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            held.epoch = raised.epoch;
        }
        Ok(raised)
    }

    /// Begins a write that only the holder of the current lease may make.
    pub(super) async fn begin_as(&self, epoch: u64, action: &'static str) -> Result<WriteTx, StoreError> {
        let mut tx = self.begin(action).await?;
        let now = current(&mut tx).await?;
        if let Err(fenced) = now.check(epoch) {
            self.drop_lock_unless_ours(now.epoch);
            return Err(fenced);
        }
        Ok(tx)
    }

    pub(super) async fn give_up(&self, lease: &Lease) -> Result<(), StoreError> {
        const ACTION: &str = "release the lease";
        let mut tx = self.begin(ACTION).await?;
        sqlx::query("UPDATE lease SET owner = NULL, locked = 0 WHERE id = 1 AND epoch = ?")
            .bind(to_sql(lease.epoch))
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|h| h.epoch == lease.epoch) {
            *held = None;
        }
        Ok(())
    }

    pub(super) fn lock_is_taken(&self) -> bool {
        is_held(&self.path)
    }

    /// Returns the lock, newly taken or a second handle on our own; `None` if another has it.
    fn take_lock(&self) -> Result<Option<File>, StoreError> {
        let path = beside(&self.path, "lock");
        if let Some(held) = &*self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            return held.file.try_clone().map(Some).map_err(io("keep the lock", &path));
        }
        let file =
            File::options().create(true).append(true).open(&path).map_err(io("open the lock", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(io("take the lock", &path)(error)),
        }
    }

    fn hold(&self, lock: Option<File>, epoch: u64) {
        let held = lock.map(|file| Held { file, epoch });
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// A fenced writer lets go of the lock, so that the one that fenced it can have both. One that merely used an
    /// old epoch of its own keeps it.
    fn drop_lock_unless_ours(&self, current: u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|h| h.epoch != current) {
            *held = None;
        }
    }
}
