//! What can go wrong with a ledger, and what passes by itself.

use std::path::{Path, PathBuf};

use super::MAX_COMMAND_BYTES;
use crate::disk;

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
    #[error("PostgreSQL {found} is no longer maintained; {needed} or newer is needed")]
    OldPostgres { found: String, needed: u32 },
    #[error("{place} may lose what it acknowledged: {what}")]
    Unsafe { place: String, what: String },
    #[error("there is no ledger at {place}")]
    Absent { place: String },
    #[error("{place} was written by a newer version (schema {found}, this one knows {supported})")]
    NewerSchema { place: String, found: i64, supported: i64 },
    #[error("{place} has the old schema {found}; open it once for writing to bring it up to date")]
    OlderSchema { place: String, found: i64 },
    #[error("{place} is a database, but not a ledger")]
    NotALedger { place: String },
    #[error(
        "HM-X013: {place} is damaged: {detail}. `hydromesh explain HM-X013` says how it comes back from the lake"
    )]
    Damaged { place: String, detail: String },
    #[error(
        "this state folder used another ledger before: they differ at record {seq}. Give this environment a folder of its own, or move \
         ledger.db and ledger.json out of it if what they lead to is not needed"
    )]
    Other { seq: u64 },
    #[error(
        "the ledger was elsewhere before, and that place cannot be read: {why}. Make it reachable; if it is gone for good, remove \
         ledger.json and ledger.db from the state folder, and the copy in the lake is restored"
    )]
    Left { why: String },
    #[error("{} is on a network file system ({kind}), where locks and shared memory cannot be trusted", path.display())]
    NetworkFileSystem { path: PathBuf, kind: String },
    #[error("the ledger's address: {0}")]
    BadAddress(String),
    #[error("the ledger did not answer before the process had to end; the next start sees what was written")]
    NoAnswer,
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
    /// The disk takes nothing for now, whatever the database made of it.
    #[error(
        "{}: cannot {action}, because nothing can be written in {}{}",
        disk::CODE,
        path.display(),
        disk::Refusal::of(source).map_or_else(String::new, |refusal| format!("; {}", refusal.help()))
    )]
    Disk { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
}

impl StoreError {
    /// Whether the same call may succeed later with nothing repaired: the disk was full, somebody else was writing, or the
    /// server was away.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::LeaseHeld { .. } | Self::Disk { .. } => true,
            Self::Database { source: sqlx::Error::PoolTimedOut | sqlx::Error::Io(_), .. } => true,
            Self::Database { source: sqlx::Error::Database(error), .. } => {
                let code = error.code().unwrap_or_default();
                if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
                    passes_in_postgres(&code)
                } else {
                    passes_in_sqlite(&code)
                }
            }
            _ => false,
        }
    }
}

fn passes_in_sqlite(code: &str) -> bool {
    const BUSY: i64 = 5;
    const LOCKED: i64 = 6;
    const FULL: i64 = 13;
    // Extended codes keep the primary one in their low byte.
    matches!(code.parse::<i64>().map(|code| code & 0xff), Ok(BUSY | LOCKED | FULL))
}

/// Classes and codes of SQLSTATE (PostgreSQL documentation, appendix A).
fn passes_in_postgres(code: &str) -> bool {
    const CONNECTION: &str = "08";
    const ROLLED_BACK: &str = "40";
    /// The disk is full, too many connections.
    const RESOURCES: &str = "53";
    /// An operator shuts the server down, or it starts.
    const OPERATOR: &str = "57";
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    const IDLE_IN_TRANSACTION: &str = "25P03";
    /// After a fail-over the address leads to a replica for a moment.
    const READ_ONLY: &str = "25006";
    [CONNECTION, ROLLED_BACK, RESOURCES, OPERATOR].iter().any(|class| code.starts_with(class))
        || [LOCK_NOT_AVAILABLE, IDLE_IN_TRANSACTION, READ_ONLY].contains(&code)
}

pub(super) fn database(action: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { action, source }
}

pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}
