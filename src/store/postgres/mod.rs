//! The ledger in a schema of a PostgreSQL server: for controllers on several machines, of which one leads.
//!
//! Every write first locks the table of the lease, so that writers come one after another and numbers have no gaps, as
//! with the file. What a lost answer to a commit hides is found out before anything is written again.

mod lease;
mod open;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{Row, Transaction};
use tokio::sync::Mutex;

use super::error::database;
use super::files;
use super::mailbox::{check_command, repeated};
use super::moving::copy_records;
use super::rows::{COMMANDS, COUNTS, FALLING, KNOWN_COMMAND, LAST, NEW_COMMAND, RECORDS, command, record};
use super::{
    Command, Database, Lease, OpenMode, Record, Store, StoreError, Submission, Submitted, bad_fact,
    check_counts, check_follow, from_sql, to_sql,
};
use crate::fault::point;

type WriteTx = Transaction<'static, sqlx::Postgres>;

/// How long the server may take over one statement: what is lost on the way to it or back is never answered.
const ANSWER: Duration = Duration::from_secs(30);
/// How long to wait before a server that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long connections may take to end.
const GOODBYE: Duration = Duration::from_secs(2);

/// The open schema.
pub(super) struct Postgres {
    /// For people: host, database and schema, without the password.
    place: String,
    mode: OpenMode,
    schema: String,
    options: PgConnectOptions,
    /// Statements that each session begins with.
    settings: Arc<str>,
    pool: PgPool,
    held: Mutex<Option<lease::Held>>,
}

/// The options hold the password.
impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres")
            .field("place", &self.place)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Waits for the server no longer than it may take.
async fn within<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let late = |_| Err(sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut)));
    tokio::time::timeout(limit, asked).await.unwrap_or_else(late)
}

/// Asks until the server answers.
async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        match ask().await {
            Err(error) if error.is_transient() => tokio::time::sleep(AGAIN).await,
            answer => return answer,
        }
    }
}

impl Postgres {
    /// Begins a write: from here to its end nobody else writes.
    async fn begin(&self, action: &'static str) -> Result<WriteTx, StoreError> {
        if self.mode == OpenMode::ReadOnly {
            return Err(StoreError::ReadOnly);
        }
        let begun = within(ANSWER, async {
            let mut tx = self.pool.begin().await?;
            // Readers of the lease pass; the row may be missing, so the table is locked and not the row.
            sqlx::query("LOCK TABLE lease IN EXCLUSIVE MODE").execute(&mut *tx).await?;
            Ok(tx)
        });
        begun.await.map_err(database(action))
    }

    /// Finds out what became of a commit whose answer was lost. Only the holder of the epoch appends, so the last number
    /// tells; the lock is had only when the transaction of before is over.
    async fn settle(
        &self,
        epoch: u64,
        (before, after): (i64, i64),
        lost: sqlx::Error,
    ) -> Result<(), StoreError> {
        const ACTION: &str = "find out whether the facts were written";
        tracing::warn!("the answer to a commit was lost, it is looked for: {}", crate::text::chain(&lost));
        // A look that fails is no answer either: who took it for one would write the facts again.
        let look = || async {
            let mut tx = self.begin_as(epoch, ACTION).await?;
            last_seq(&mut tx).await.map_err(database(ACTION))
        };
        match patiently(look).await? {
            last if last == after => Ok(()),
            last if last == before => {
                Err(StoreError::Database { action: "append to the ledger", source: lost })
            }
            last => {
                let detail =
                    format!("record {last} is the last one, but {before} or {after} was to be expected");
                Err(StoreError::Damaged { place: self.place.clone(), detail })
            }
        }
    }
}

async fn last_seq(tx: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(LAST).fetch_one(tx).await
}

#[async_trait]
impl Database for Postgres {
    async fn append(
        &self,
        expected_epoch: u64,
        at_ms: i64,
        facts: &[(String, String)],
    ) -> Result<u64, StoreError> {
        const ACTION: &str = "append to the ledger";
        let mut tx = self.begin_as(expected_epoch, ACTION).await?;
        let last = last_seq(&mut tx).await.map_err(database(ACTION))?;
        if facts.is_empty() {
            return Ok(from_sql(last));
        }
        let kinds: Vec<&str> = facts.iter().map(|(kind, _)| kind.as_str()).collect();
        let bodies: Vec<&str> = facts.iter().map(|(_, body)| body.as_str()).collect();
        sqlx::query(
            "INSERT INTO ledger (seq, at_ms, epoch, kind, body)
             SELECT $1 + place, $2, $3, kind, body
             FROM unnest($4::text[], $5::text[]) WITH ORDINALITY AS facts (kind, body, place)",
        )
        .bind(last)
        .bind(at_ms)
        .bind(to_sql(expected_epoch))
        .bind(kinds)
        .bind(bodies)
        .execute(&mut *tx)
        .await
        .map_err(|source| match bad_fact(facts) {
            Some(kind) => StoreError::BadFact { kind },
            None => StoreError::Database { action: ACTION, source },
        })?;
        let seq = last + i64::try_from(facts.len()).unwrap_or(i64::MAX);
        point("ledger.before-append");
        if let Err(source) = within(ANSWER, tx.commit()).await {
            self.settle(expected_epoch, (last, seq), source).await?;
        }
        point("ledger.after-append");
        Ok(from_sql(seq))
    }

    async fn restore(&self, lease: &Lease, records: &[Record]) -> Result<(), StoreError> {
        const ACTION: &str = "restore the ledger";
        let mut tx = self.begin_as(lease.epoch, ACTION).await?;
        let last = last_seq(&mut tx).await.map_err(database(ACTION))?;
        check_follow(&self.place, last, lease, records)?;
        let kinds: Vec<&str> = records.iter().map(|record| record.kind.as_str()).collect();
        let bodies: Vec<&str> = records.iter().map(|record| record.body.as_str()).collect();
        sqlx::query(
            "INSERT INTO ledger (seq, at_ms, epoch, kind, body)
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[])",
        )
        .bind(records.iter().map(|record| to_sql(record.seq)).collect::<Vec<_>>())
        .bind(records.iter().map(|record| record.at_ms).collect::<Vec<_>>())
        .bind(records.iter().map(|record| to_sql(record.epoch)).collect::<Vec<_>>())
        .bind(kinds)
        .bind(bodies)
        .execute(&mut *tx)
        .await
        .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))
    }

    async fn read(&self, from_seq: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        const ACTION: &str = "read the ledger";
        let asked = sqlx::query(RECORDS).bind(to_sql(from_seq)).bind(i64::from(limit));
        let rows = asked.fetch_all(&self.pool).await.map_err(database(ACTION))?;
        rows.iter().map(record).collect::<Result<_, _>>().map_err(database(ACTION))
    }

    async fn head(&self) -> Result<u64, StoreError> {
        const ACTION: &str = "read the ledger";
        let mut connection = self.pool.acquire().await.map_err(database(ACTION))?;
        Ok(from_sql(last_seq(&mut connection).await.map_err(database(ACTION))?))
    }

    async fn lease(&self, owner: &str, now_ms: i64, ttl_ms: i64) -> Result<Lease, StoreError> {
        self.take(owner, now_ms, ttl_ms).await
    }

    async fn renew(&self, lease: &Lease, now_ms: i64, ttl_ms: i64) -> Result<Lease, StoreError> {
        self.prolong(lease, now_ms, ttl_ms).await
    }

    async fn raise_to(&self, lease: &Lease, epoch: u64) -> Result<Lease, StoreError> {
        self.lift(lease, epoch).await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.give_up(&lease).await
    }

    async fn is_led(&self) -> Result<bool, StoreError> {
        self.lock_is_taken().await
    }

    async fn lease_clock_ms(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
            .fetch_one(&self.pool)
            .await
            .map_err(database("ask the server for its time"))
    }

    async fn submit_command(&self, key: &str, body: &str, at_ms: i64) -> Result<Submitted, StoreError> {
        const ACTION: &str = "submit the command";
        check_command(key, body)?;
        // Under the same lock as appends: a reader that has seen an id has seen all below it.
        let mut tx = self.begin(ACTION).await?;
        let known =
            sqlx::query(KNOWN_COMMAND).bind(key).fetch_optional(&mut *tx).await.map_err(database(ACTION))?;
        if let Some(row) = known {
            return repeated(from_sql(row.get(0)), key, row.get(1), body);
        }
        let new = sqlx::query_scalar(NEW_COMMAND).bind(key).bind(at_ms).bind(body);
        let id: i64 = new.fetch_one(&mut *tx).await.map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        Ok(Submitted { id: from_sql(id), submission: Submission::New })
    }

    async fn commands(&self, after: u64, limit: u32) -> Result<Vec<Command>, StoreError> {
        const ACTION: &str = "read the commands";
        let asked = sqlx::query(COMMANDS).bind(to_sql(after)).bind(i64::from(limit));
        let rows = asked.fetch_all(&self.pool).await.map_err(database(ACTION))?;
        rows.iter().map(command).collect::<Result<_, _>>().map_err(database(ACTION))
    }

    async fn integrity(&self) -> Result<(), StoreError> {
        const ACTION: &str = "check the ledger";
        let row = sqlx::query(COUNTS).fetch_one(&self.pool).await.map_err(database(ACTION))?;
        let falling: Option<i64> =
            sqlx::query_scalar(FALLING).fetch_optional(&self.pool).await.map_err(database(ACTION))?;
        check_counts(&self.place, (row.get(0), row.get(1), row.get(2)), falling)
    }

    /// The copy is a ledger in a file, which a controller can open.
    async fn backup(&self, target: &Path) -> Result<(), StoreError> {
        let part = files::begin(target)?;
        let (head, epoch) = open::extent(&self.pool).await.map_err(database("copy the ledger"))?;
        let copy = Store::open(&part, OpenMode::ReadWrite).await?;
        let mut lease = copy.lease("backup", 0, 0).await?;
        lease = copy.raise_to(&lease, from_sql(epoch) + 1).await?;
        copy_records(&*copy, &lease, self, (0, from_sql(head))).await?;
        copy.release(lease).await?;
        copy.close().await;
        drop(copy);
        for lock in ["lock", "init-lock"] {
            let _ = std::fs::remove_file(files::beside(&part, lock));
        }
        files::publish(&part, target)
    }

    async fn close(&self) {
        // A server that does not answer must not hold up the end of the process; connections go with it.
        let goodbye = async {
            if let Some(held) = self.held.lock().await.take() {
                held.close().await;
            }
            self.pool.close().await;
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}
