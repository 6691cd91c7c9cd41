//! What both databases ask in the same words, and how they read the answers.
//!
//! Both understand `$1`, so that a statement and the shape of its rows stand here once.

use sqlx::{ColumnIndex, Decode, Row, Type};

use super::{Command, Record, from_sql};

/// Returns records from a place on, at most so many.
pub(super) const RECORDS: &str =
    "SELECT seq, at_ms, epoch, kind, body FROM ledger WHERE seq >= $1 ORDER BY seq LIMIT $2";
/// Returns the last number, 0 for an empty ledger.
pub(super) const LAST: &str = "SELECT coalesce(max(seq), 0) FROM ledger";
/// Counts the ledger's records: how many, the first number, the last one.
pub(super) const COUNTS: &str = "SELECT count(*), coalesce(min(seq), 1), coalesce(max(seq), 0) FROM ledger";
/// Finds a record after which the epoch falls.
pub(super) const FALLING: &str =
    "SELECT a.seq FROM ledger a JOIN ledger b ON b.seq = a.seq + 1 WHERE b.epoch < a.epoch LIMIT 1";
/// Returns the lease.
pub(super) const LEASE: &str = "SELECT epoch, owner, expires_ms, locked FROM lease WHERE id = 1";
/// Takes the lease, whether its row is there or not.
pub(super) const TAKE: &str =
    "INSERT INTO lease (id, epoch, owner, expires_ms, locked) VALUES (1, $1, $2, $3, $4)
     ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, owner = excluded.owner,
                                    expires_ms = excluded.expires_ms, locked = excluded.locked";
/// Prolongs the lease.
pub(super) const RENEW: &str = "UPDATE lease SET expires_ms = $1, locked = $2 WHERE id = 1";
/// Raises the lease's epoch.
pub(super) const RAISE: &str = "UPDATE lease SET epoch = $1 WHERE id = 1";
/// Returns the epoch of the last record: where somebody deleted the lease, the ledger itself still knows.
pub(super) const LAST_EPOCH: &str = "SELECT epoch FROM ledger ORDER BY seq DESC LIMIT 1";
/// Returns a command by its key.
pub(super) const KNOWN_COMMAND: &str = "SELECT id, body FROM command WHERE key = $1";
/// Adds a command.
pub(super) const NEW_COMMAND: &str =
    "INSERT INTO command (key, at_ms, body) VALUES ($1, $2, $3) RETURNING id";
/// Returns commands above an id, at most so many.
pub(super) const COMMANDS: &str =
    "SELECT id, key, at_ms, body FROM command WHERE id > $1 ORDER BY id LIMIT $2";

/// Reads a row of [`RECORDS`].
pub(super) fn record<'r, R: Row>(row: &'r R) -> Result<Record, sqlx::Error>
where
    usize: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(Record {
        seq: from_sql(row.try_get(0)?),
        at_ms: row.try_get(1)?,
        epoch: from_sql(row.try_get(2)?),
        kind: row.try_get(3)?,
        body: row.try_get(4)?,
    })
}

/// Reads a row of [`COMMANDS`].
pub(super) fn command<'r, R: Row>(row: &'r R) -> Result<Command, sqlx::Error>
where
    usize: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(Command {
        id: from_sql(row.try_get(0)?),
        key: row.try_get(1)?,
        at_ms: row.try_get(2)?,
        body: row.try_get(3)?,
    })
}
