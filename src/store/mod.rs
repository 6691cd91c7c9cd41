//! The ledger's store: append with an expected epoch, read, lease, and the mailbox of commands.
//!
//! Facts are opaque JSON text here; their meaning lives in core. SQLite types never leave this module. Everything
//! that is not a fact, a lease or a command waiting to become a fact is a projection, and has no place in it.
//!
//! Two fences keep one writer: the epoch, compared inside the transaction of every append (safety), and an
//! operating-system lock beside the database (liveness: it vanishes with its process, so a restart after `kill -9`
//! need not wait for the lease to run out).

mod commands;
mod lease;
mod open;
mod restore;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sqlx::{QueryBuilder, Row, SqlitePool};

pub use commands::{Command, Submission, Submitted};
pub use lease::Lease;
use write::WriteTx;

use crate::fault::point;

/// Largest command accepted: 256 KiB. Commands come from people and scripts; facts come from us.
pub const MAX_COMMAND_BYTES: usize = 256 * 1024;

/// Facts in one statement: SQLite takes 32,766 values, a fact has five.
const ROWS: usize = 1_000;

/// One fact as it lies in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// Milliseconds since 1970 by the writer's clock. Not monotone: clocks are set back.
    pub at_ms: i64,
    /// The lease under which it was written; never decreases along `seq`.
    pub epoch: u64,
    pub kind: String,
    /// JSON text, byte for byte as appended.
    pub body: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Creates what is missing and migrates what is old.
    ReadWrite,
    /// Changes nothing, and works beside a writer.
    ReadOnly,
}

/// An open ledger. Clones share connections and the lease's lock.
///
/// A future of this type that is dropped half-way leaves the database whole, but its caller does not learn whether
/// the write happened: let appends run to their end.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    /// One connection, so that writers queue here in order instead of meeting `SQLITE_BUSY`. None when read-only.
    writer: Option<SqlitePool>,
    readers: SqlitePool,
    held: Arc<Mutex<Option<lease::Held>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("epoch {expected} no longer may write: the ledger is at epoch {current}")]
    Fenced { expected: u64, current: u64 },
    #[error("{owner} holds the lease")]
    LeaseHeld {
        owner: String,
        /// When it runs out unless renewed, milliseconds since 1970 by the holder's clock.
        expires_ms: i64,
    },
    #[error("SQLite {found} can lose committed data (the WAL-reset bug); {needed} or newer is needed")]
    OldSqlite { found: String, needed: &'static str },
    #[error("{} was written by a newer version (schema {found}, this one knows {supported})", path.display())]
    NewerSchema { path: PathBuf, found: i64, supported: i64 },
    #[error("{} has the old schema {found}; open it once for writing to bring it up to date", path.display())]
    OlderSchema { path: PathBuf, found: i64 },
    #[error("{} is a database, but not a ledger", path.display())]
    NotALedger { path: PathBuf },
    #[error("{} is damaged: {detail}", path.display())]
    Damaged { path: PathBuf, detail: String },
    #[error("{} is on a network file system ({kind}), where locks and shared memory cannot be trusted", path.display())]
    NetworkFileSystem { path: PathBuf, kind: String },
    #[error("the ledger is open for reading only")]
    ReadOnly,
    #[error("a fact of kind '{kind}' has no valid JSON body")]
    BadFact { kind: String },
    #[error("a command must be JSON of at most {MAX_COMMAND_BYTES} bytes with a key of 1 to 200 characters")]
    BadCommand,
    #[error("idempotency key '{key}' was used before for another command")]
    KeyReused { key: String },
    #[error("cannot {action}")]
    Database { action: &'static str, source: sqlx::Error },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
}

impl StoreError {
    /// Whether the same call may succeed later with nothing repaired: the disk was full or somebody else was writing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        const BUSY: i64 = 5;
        const LOCKED: i64 = 6;
        const FULL: i64 = 13;
        match self {
            Self::LeaseHeld { .. } | Self::Database { source: sqlx::Error::PoolTimedOut, .. } => true,
            Self::Database { source: sqlx::Error::Database(error), .. } => {
                // Extended codes keep the primary one in their low byte.
                let code = error.code().and_then(|c| c.parse::<i64>().ok());
                matches!(code.map(|c| c & 0xff), Some(BUSY | LOCKED | FULL))
            }
            _ => false,
        }
    }
}

fn database(action: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { action, source }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

/// SQLite integers are signed; sequence numbers, epochs and limits of ours never come near the difference.
fn to_sql(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn from_sql(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// Returns the kind of the first fact that the ledger's checks refuse.
fn bad_fact(facts: &[(String, String)]) -> Option<String> {
    let valid = |body: &str| serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
    facts.iter().find(|(kind, body)| kind.is_empty() || !valid(body)).map(|(kind, _)| kind.clone())
}

impl Store {
    /// Returns the database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends all facts or none, in order, in one transaction with one fsync, and returns the last `seq`.
    ///
    /// With no facts it still checks the epoch. Each fact is (kind, JSON text).
    ///
    /// # Errors
    /// [`StoreError::Fenced`] unless the lease of `expected_epoch` is the current one and not released. A lease
    /// that ran out but that nobody took over may still write: the epoch, not the clock, is the fence.
    pub async fn append(
        &self,
        expected_epoch: u64,
        at_ms: i64,
        facts: &[(String, String)],
    ) -> Result<u64, StoreError> {
        const ACTION: &str = "append to the ledger";
        let mut tx = self.begin_as(expected_epoch, ACTION).await?;
        let last: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM ledger")
            .fetch_one(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        let mut seq = last;
        for facts in facts.chunks(ROWS) {
            // One statement for many rows: each is a way to the thread of the connection and back.
            let mut insert = QueryBuilder::new("INSERT INTO ledger (seq, at_ms, epoch, kind, body) ");
            insert.push_values(facts, |mut row, (kind, body)| {
                seq += 1;
                row.push_bind(seq)
                    .push_bind(at_ms)
                    .push_bind(to_sql(expected_epoch))
                    .push_bind(kind)
                    .push_bind(body);
            });
            // Kept ready are those few that ordinary events need.
            let insert = insert.build().persistent(facts.len() <= 8);
            insert.execute(&mut *tx).await.map_err(|source| match bad_fact(facts) {
                Some(kind) => StoreError::BadFact { kind },
                None => StoreError::Database { action: ACTION, source },
            })?;
        }
        point("ledger.before-append");
        tx.commit().await.map_err(database(ACTION))?;
        point("ledger.after-append");
        Ok(from_sql(seq))
    }

    /// Returns at most `limit` records with `seq >= from_seq`, in order.
    pub async fn read(&self, from_seq: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, at_ms, epoch, kind, body FROM ledger WHERE seq >= ? ORDER BY seq LIMIT ?",
        )
        .bind(to_sql(from_seq))
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(database("read the ledger"))?;
        let record = |row: &sqlx::sqlite::SqliteRow| -> Result<Record, sqlx::Error> {
            Ok(Record {
                seq: from_sql(row.try_get(0)?),
                at_ms: row.try_get(1)?,
                epoch: from_sql(row.try_get(2)?),
                kind: row.try_get(3)?,
                body: row.try_get(4)?,
            })
        };
        rows.iter().map(record).collect::<Result<_, _>>().map_err(database("read the ledger"))
    }

    /// Returns the last `seq`, 0 for an empty ledger.
    pub async fn head(&self) -> Result<u64, StoreError> {
        let head: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM ledger")
            .fetch_one(&self.readers)
            .await
            .map_err(database("read the ledger"))?;
        Ok(from_sql(head))
    }

    /// Checks every page and index, and that the ledger counts from 1 without gaps and without a falling epoch.
    /// Reads the whole file; opening does the quicker half of it.
    pub async fn integrity(&self) -> Result<(), StoreError> {
        const ACTION: &str = "check the ledger";
        let damaged = |detail: String| Err(StoreError::Damaged { path: self.path.clone(), detail });
        let lines: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(20)")
            .fetch_all(&self.readers)
            .await
            .map_err(database(ACTION))?;
        if lines != ["ok"] {
            return damaged(lines.join("; "));
        }
        let row = sqlx::query("SELECT count(*), coalesce(max(seq), 0), coalesce(min(seq), 1) FROM ledger")
            .fetch_one(&self.readers)
            .await
            .map_err(database(ACTION))?;
        let (count, last, first): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        if count != last || first != 1 {
            return damaged(format!("{count} records, but numbered {first} to {last}"));
        }
        let falling: Option<i64> = sqlx::query_scalar(
            "SELECT a.seq FROM ledger a JOIN ledger b ON b.seq = a.seq + 1 WHERE b.epoch < a.epoch LIMIT 1",
        )
        .fetch_optional(&self.readers)
        .await
        .map_err(database(ACTION))?;
        falling.map_or(Ok(()), |seq| damaged(format!("the epoch falls after record {seq}")))
    }

    /// Writes a consistent copy to `target` while the ledger goes on; the file appears whole or not at all.
    pub async fn backup(&self, target: &Path) -> Result<(), StoreError> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = target.with_file_name(name);
        let text = part.to_string_lossy().into_owned();
        if part.exists() {
            std::fs::remove_file(&part).map_err(io("remove the unfinished backup", &part))?;
        }
        sqlx::query("VACUUM INTO ?")
            .bind(text)
            .execute(&self.readers)
            .await
            .map_err(database("copy the ledger"))?;
        let file = std::fs::File::options().write(true).open(&part).map_err(io("open the backup", &part))?;
        file.sync_all().map_err(io("write the backup to disk", &part))?;
        std::fs::rename(&part, target).map_err(io("name the backup", target))?;
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(io("write the folder to disk", folder))
    }

    /// Finishes what is running and closes all connections, which folds the write-ahead log into the database.
    /// Not needed for safety.
    pub async fn close(&self) {
        // The writer last: only it may fold the log in.
        self.readers.close().await;
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }

    async fn begin(&self, action: &'static str) -> Result<WriteTx, StoreError> {
        let writer = self.writer.as_ref().ok_or(StoreError::ReadOnly)?;
        WriteTx::begin(writer).await.map_err(database(action))
    }
}
