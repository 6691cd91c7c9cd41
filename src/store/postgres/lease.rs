//! The lease in the server, and an advisory lock that dies with its connection, as the connection does with its process.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use super::{Postgres, StoreError, WriteTx, database, from_sql, patiently, to_sql};
use crate::store::lease::{Current, Lease};
use crate::store::rows::{LAST_EPOCH, LEASE, RAISE, RENEW, TAKE};

/// First half of the lock's key, "HMSH"; the other half is drawn from the schema's name.
const LOCK: i32 = 0x484d_5348;
/// How long a connection may take to come about.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// The connection that has the lock, and the epoch for which we took it.
#[derive(Debug)]
pub(super) struct Held {
    connection: PgConnection,
    epoch: u64,
}

impl Held {
    #[cfg(test)]
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    pub(super) async fn close(self) {
        // The lock goes with the connection, whichever way it ends.
        let _ = self.connection.close().await;
    }
}

/// Reads the row. Where somebody deleted it, the ledger itself still knows the last epoch, and nobody owns it.
async fn current(tx: &mut PgConnection) -> Result<Current, StoreError> {
    const ACTION: &str = "read the lease";
    let row = sqlx::query(LEASE).fetch_optional(&mut *tx).await.map_err(database(ACTION))?;
    if let Some(row) = row {
        return Ok(Current {
            epoch: from_sql(row.get(0)),
            owner: row.get(1),
            expires_ms: row.get(2),
            locked: row.get(3),
        });
    }
    let epoch: Option<i64> =
        sqlx::query_scalar(LAST_EPOCH).fetch_optional(&mut *tx).await.map_err(database(ACTION))?;
    Ok(Current { epoch: from_sql(epoch.unwrap_or(0)), ..Current::default() })
}

impl Postgres {
    pub(super) async fn take(&self, owner: &str, now_ms: i64, ttl_ms: i64) -> Result<Lease, StoreError> {
        const ACTION: &str = "take the lease";
        let mut tx = self.begin(ACTION).await?;
        let now = current(&mut tx).await?;
        // Asked for inside the transaction: of several that ask at once, the row and the lock go to the same one.
        let has_lock = self.hold_lock(now.epoch).await?;
        let lease = match now.next(owner, now_ms, ttl_ms, has_lock) {
            Ok(lease) => lease,
            Err(error) => {
                self.drop_lock_unless_ours(now.epoch, has_lock).await;
                return Err(error);
            }
        };
        sqlx::query(TAKE)
            .bind(to_sql(lease.epoch))
            .bind(owner)
            .bind(lease.expires_ms)
            .bind(has_lock)
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        self.hold_for(lease.epoch).await;
        crate::fault::point("lease.after-take");
        Ok(lease)
    }

    pub(super) async fn prolong(&self, lease: &Lease, now_ms: i64, ttl_ms: i64) -> Result<Lease, StoreError> {
        const ACTION: &str = "renew the lease";
        let mut tx = self.begin_as(lease.epoch, ACTION).await?;
        // The connection that had the lock may be gone; after a take-over from a stopped process the lock is free only
        // once that process ends.
        let has_lock = self.hold_lock(lease.epoch).await?;
        let renewed = Lease { expires_ms: now_ms.saturating_add(ttl_ms), ..lease.clone() };
        sqlx::query(RENEW)
            .bind(renewed.expires_ms)
            .bind(has_lock)
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        Ok(renewed)
    }

    pub(super) async fn lift(&self, lease: &Lease, epoch: u64) -> Result<Lease, StoreError> {
        const ACTION: &str = "raise the lease's epoch";
        let mut tx = self.begin_as(lease.epoch, ACTION).await?;
        let raised = Lease { epoch: epoch.max(lease.epoch), ..lease.clone() };
        sqlx::query(RAISE).bind(to_sql(raised.epoch)).execute(&mut *tx).await.map_err(database(ACTION))?;
        if let Err(source) = tx.commit().await {
            // Its answer may have been lost: who takes it for not raised would be fenced by itself.
            self.find_epoch(&raised, source).await?;
        }
        self.hold_for(raised.epoch).await;
        Ok(raised)
    }

    /// Finds out whether a lease was raised.
    async fn find_epoch(&self, raised: &Lease, lost: sqlx::Error) -> Result<(), StoreError> {
        const ACTION: &str = "find out whether the lease was raised";
        let now = patiently(|| async { current(&mut *self.begin(ACTION).await?).await }).await?;
        if now.epoch == raised.epoch && now.owner.as_ref() == Some(&raised.owner) {
            Ok(())
        } else {
            Err(StoreError::Database { action: ACTION, source: lost })
        }
    }

    /// Begins a write that only the holder of the current lease may make.
    pub(super) async fn begin_as(&self, epoch: u64, action: &'static str) -> Result<WriteTx, StoreError> {
        let mut tx = self.begin(action).await?;
        let now = current(&mut tx).await?;
        if let Err(fenced) = now.check(epoch) {
            self.drop_lock_unless_ours(now.epoch, false).await;
            return Err(fenced);
        }
        Ok(tx)
    }

    pub(super) async fn give_up(&self, lease: &Lease) -> Result<(), StoreError> {
        const ACTION: &str = "release the lease";
        let mut tx = self.begin(ACTION).await?;
        sqlx::query("UPDATE lease SET owner = NULL, locked = false WHERE id = 1 AND epoch = $1")
            .bind(to_sql(lease.epoch))
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|held| held.epoch == lease.epoch)
            && let Some(held) = held.take()
        {
            held.close().await;
        }
        Ok(())
    }

    /// The holder keeps the lock for as long as it lives.
    pub(super) async fn lock_is_taken(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "SELECT exists (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND classid::bigint = $1 AND objid::bigint = hashtext($2)::bigint & 4294967295)",
        )
        .bind(i64::from(LOCK))
        .bind(&self.schema)
        .fetch_one(&self.pool)
        .await
        .map_err(database("look for a controller"))
    }

    /// Makes sure of the lock if it can be had; a new connection for it counts for `epoch`.
    async fn hold_lock(&self, epoch: u64) -> Result<bool, StoreError> {
        const ACTION: &str = "take the lock";
        let mut held = self.held.lock().await;
        if let Some(held) = &mut *held
            && matches!(tokio::time::timeout(CONNECT, held.connection.ping()).await, Ok(Ok(())))
        {
            return Ok(true);
        }
        *held = None;
        let mut connection = super::open::connect(&self.options, &self.settings, ACTION).await?;
        let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, hashtext($2))")
            .bind(LOCK)
            .bind(&self.schema)
            .fetch_one(&mut connection)
            .await
            .map_err(database(ACTION))?;
        if taken {
            *held = Some(Held { connection, epoch });
        } else {
            let _ = connection.close().await;
        }
        Ok(taken)
    }

    async fn hold_for(&self, epoch: u64) {
        if let Some(held) = &mut *self.held.lock().await {
            held.epoch = epoch;
        }
    }

    /// A fenced writer lets go of the lock, so that the one that fenced it can have both; so does one that took it and was
    /// refused the lease. One that merely used an old epoch of its own keeps it.
    async fn drop_lock_unless_ours(&self, current: u64, taken_just_now: bool) {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|held| taken_just_now || held.epoch != current)
            && let Some(held) = held.take()
        {
            held.close().await;
        }
    }
}
