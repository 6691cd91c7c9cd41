//! The ledger's store: append with an expected epoch, read, lease, and the mailbox of commands.
//!
//! Facts are opaque JSON text here; their meaning lives in core. Types of databases never leave this module. Everything
//! that is not a fact, a lease or a command waiting to become a fact is a projection, and has no place in it.
//!
//! Two fences keep one writer: the epoch, compared inside the transaction of every append (safety), and a lock that
//! vanishes with its process (liveness: a restart after `kill -9` need not wait for the lease to run out).

mod error;
mod files;
mod lease;
mod mailbox;
mod moving;
mod place;
mod postgres;
mod rows;
mod sqlite;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

pub use error::StoreError;
pub use lease::Lease;
pub use mailbox::{Command, MAX_COMMAND_BYTES, Submission, Submitted};
pub use moving::follow;
pub use place::{Place, PlaceError, RESTORING};

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
pub struct Store(Arc<dyn Database>);

impl Store {
    /// Opens the ledger in the file `path`.
    ///
    /// # Errors
    /// Refuses a SQLite with the WAL-reset bug, a network file system, a database that is not a ledger, one of a
    /// newer schema, and one that fails the quick check.
    pub async fn open(path: &Path, mode: OpenMode) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(sqlite::Sqlite::open(path, mode).await?)))
    }

    /// Opens the ledger at a place.
    ///
    /// # Errors
    /// As [`Store::open`], and when a server cannot be reached, or its settings could lose what it acknowledged.
    pub async fn open_at(place: &Place, mode: OpenMode) -> Result<Self, StoreError> {
        match place {
            Place::File(path) => Self::open(path, mode).await,
            Place::Postgres { url, schema } => {
                Ok(Self(Arc::new(postgres::Postgres::open(url, schema, mode).await?)))
            }
        }
    }
}

impl Deref for Store {
    type Target = dyn Database;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// What a database does for the ledger.
#[async_trait]
pub trait Database: Debug + Send + Sync {
    /// Appends all facts or none, in order, in one durable transaction, and returns the last `seq`.
    ///
    /// With no facts it still checks the epoch. Each fact is (kind, JSON text).
    ///
    /// # Errors
    /// [`StoreError::Fenced`] unless the lease of `expected_epoch` is the current one and not released. A lease
    /// that ran out but that nobody took over may still write: the epoch, not the clock, is the fence.
    async fn append(
        &self,
        expected_epoch: u64,
        at_ms: i64,
        facts: &[(String, String)],
    ) -> Result<u64, StoreError>;

    /// Adds records of the same ledger right after its own last one, as they once were: with their times and epochs.
    ///
    /// Who calls it has raised the lease above their epochs before, so that whatever is appended later goes on above them.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] unless the lease is the current one; [`StoreError::Damaged`] when the records do not follow.
    async fn restore(&self, lease: &Lease, records: &[Record]) -> Result<(), StoreError>;

    /// Returns at most `limit` records with `seq >= from_seq`, in order.
    async fn read(&self, from_seq: u64, limit: u32) -> Result<Vec<Record>, StoreError>;

    /// Returns the last `seq`, 0 for an empty ledger.
    async fn head(&self) -> Result<u64, StoreError>;

    /// Takes the lease for `ttl_ms` if it is free, released, run out, or its holder's process is gone; the epoch rises.
    ///
    /// A holder that is only stopped (SIGSTOP, a suspended machine) keeps its lock, so its lease has to run out; when it
    /// wakes, its next append is [`StoreError::Fenced`].
    ///
    /// # Errors
    /// [`StoreError::LeaseHeld`] with the holder's name.
    async fn lease(&self, owner: &str, now_ms: i64, ttl_ms: i64) -> Result<Lease, StoreError>;

    /// Prolongs a lease that is still the current one, even if it ran out meanwhile.
    async fn renew(&self, lease: &Lease, now_ms: i64, ttl_ms: i64) -> Result<Lease, StoreError>;

    /// Raises the epoch of a lease that is still the current one, so that whoever works under the old one can commit to
    /// no table that somebody has committed to under the new one.
    ///
    /// # Errors
    /// [`StoreError::Fenced`].
    async fn raise(&self, lease: &Lease) -> Result<Lease, StoreError> {
        self.raise_to(lease, lease.epoch + 1).await
    }

    /// The same, to an epoch that is known to be above those that matter; a lease that is there already stays.
    ///
    /// # Errors
    /// [`StoreError::Fenced`].
    async fn raise_to(&self, lease: &Lease, epoch: u64) -> Result<Lease, StoreError>;

    /// Gives the lease up, so that another need not wait. From here on its epoch cannot write. Releasing a lease
    /// that another took over changes nothing.
    async fn release(&self, lease: Lease) -> Result<(), StoreError>;

    /// Returns whether a living process has the lease.
    async fn is_led(&self) -> Result<bool, StoreError>;

    /// Returns the time that leases are measured by, milliseconds since 1970: of the server, if there is one, because the
    /// clocks of its clients differ.
    async fn lease_clock_ms(&self) -> Result<i64, StoreError>;

    /// Puts a command in the mailbox once per idempotency key.
    ///
    /// # Errors
    /// [`StoreError::KeyReused`] if the key came with another body before; [`StoreError::BadCommand`].
    async fn submit_command(&self, key: &str, body: &str, at_ms: i64) -> Result<Submitted, StoreError>;

    /// Returns at most `limit` commands with an id above `after`, in order of submission.
    async fn commands(&self, after: u64, limit: u32) -> Result<Vec<Command>, StoreError>;

    /// Checks that the ledger counts from 1 without gaps and without a falling epoch, and, of a file, every page and index.
    /// Reads the whole file; opening does the quicker half of it.
    async fn integrity(&self) -> Result<(), StoreError>;

    /// Writes a consistent copy to a new file `target` while the ledger goes on; the file appears whole or not at all.
    async fn backup(&self, target: &Path) -> Result<(), StoreError>;

    /// Finishes what is running and closes all connections. Not needed for safety.
    async fn close(&self);
}

/// Integers of databases are signed; sequence numbers, epochs and limits of ours never come near the difference.
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

/// Checks that records go on from a ledger's last one, all from before the lease.
fn check_follow(place: &str, last: i64, lease: &Lease, records: &[Record]) -> Result<(), StoreError> {
    for (next, record) in (last + 1..).zip(records) {
        if to_sql(record.seq) != next || record.epoch >= lease.epoch {
            let detail = format!(
                "record {} of epoch {} cannot follow record {last} under epoch {}",
                record.seq, record.epoch, lease.epoch
            );
            return Err(StoreError::Damaged { place: place.to_owned(), detail });
        }
    }
    Ok(())
}

/// Checks what was counted: records, the first and the last number, and where the epoch falls.
fn check_counts(
    place: &str,
    (count, first, last): (i64, i64, i64),
    falling: Option<i64>,
) -> Result<(), StoreError> {
    let damaged = |detail: String| Err(StoreError::Damaged { place: place.to_owned(), detail });
    if count != last || first != 1 {
        return damaged(format!("{count} records, but numbered {first} to {last}"));
    }
    falling.map_or(Ok(()), |seq| damaged(format!("the epoch falls after record {seq}")))
}
