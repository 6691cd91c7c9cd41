//! The ledger in a file: SQLite with its log ahead of it, and a lock beside it.

mod commands;
mod disk;
mod lease;
mod open;
#[cfg(test)]
mod tests;
mod write;

pub(super) use lease::is_held;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use async_trait::async_trait;
use sqlx::{QueryBuilder, Row, SqlitePool};

use super::error::{database, io};
use super::files;
use super::rows::{COUNTS, FALLING, LAST, RECORDS, record};
use super::{
    Command, Database, Lease, Record, StoreError, Submitted, bad_fact, check_counts, check_follow, from_sql,
    to_sql,
};
use crate::fault::point;
use write::WriteTx;

/// Facts in one statement: SQLite takes 32,766 values, a fact has five.
const ROWS: usize = 1_000;

/// The open file.
#[derive(Debug)]
pub(super) struct Sqlite {
    path: PathBuf,
    /// One connection, so that writers queue here in order instead of meeting `SQLITE_BUSY`. None when read-only.
    writer: Option<SqlitePool>,
    readers: SqlitePool,
    held: Mutex<Option<lease::Held>>,
}

impl Sqlite {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn begin(&self, action: &'static str) -> Result<WriteTx, StoreError> {
        let writer = self.writer.as_ref().ok_or(StoreError::ReadOnly)?;
        WriteTx::begin(writer).await.map_err(database(action))
    }

    async fn write_facts(
        &self,
        expected_epoch: u64,
        at_ms: i64,
        facts: &[(String, String)],
    ) -> Result<u64, StoreError> {
        const ACTION: &str = "append to the ledger";
        let mut tx = self.begin_as(expected_epoch, ACTION).await?;
        let last: i64 = sqlx::query_scalar(LAST).fetch_one(&mut *tx).await.map_err(database(ACTION))?;
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

    async fn write_records(&self, lease: &Lease, records: &[Record]) -> Result<(), StoreError> {
        const ACTION: &str = "restore the ledger";
        let mut tx = self.begin_as(lease.epoch, ACTION).await?;
        let last: i64 = sqlx::query_scalar(LAST).fetch_one(&mut *tx).await.map_err(database(ACTION))?;
        check_follow(&self.place(), last, lease, records)?;
        for records in records.chunks(ROWS) {
            let mut insert = QueryBuilder::new("INSERT INTO ledger (seq, at_ms, epoch, kind, body) ");
            insert.push_values(records, |mut row, record| {
                row.push_bind(to_sql(record.seq))
                    .push_bind(record.at_ms)
                    .push_bind(to_sql(record.epoch))
                    .push_bind(&record.kind)
                    .push_bind(&record.body);
            });
            insert.build().persistent(false).execute(&mut *tx).await.map_err(database(ACTION))?;
        }
        tx.commit().await.map_err(database(ACTION))
    }
}

#[async_trait]
impl Database for Sqlite {
    async fn append(
        &self,
        expected_epoch: u64,
        at_ms: i64,
        facts: &[(String, String)],
    ) -> Result<u64, StoreError> {
        self.explain(self.write_facts(expected_epoch, at_ms, facts).await).await
    }

    async fn restore(&self, lease: &Lease, records: &[Record]) -> Result<(), StoreError> {
        self.explain(self.write_records(lease, records).await).await
    }

    async fn read(&self, from_seq: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        const ACTION: &str = "read the ledger";
        let asked = sqlx::query(RECORDS).bind(to_sql(from_seq)).bind(limit);
        let rows = asked.fetch_all(&self.readers).await.map_err(database(ACTION))?;
        rows.iter().map(record).collect::<Result<_, _>>().map_err(database(ACTION))
    }

    async fn head(&self) -> Result<u64, StoreError> {
        let last = sqlx::query_scalar(LAST).fetch_one(&self.readers);
        let head: i64 = last.await.map_err(database("read the ledger"))?;
        Ok(from_sql(head))
    }

    async fn lease(&self, owner: &str, now_ms: i64, ttl_ms: i64) -> Result<Lease, StoreError> {
        self.explain(self.take(owner, now_ms, ttl_ms).await).await
    }

    async fn renew(&self, lease: &Lease, now_ms: i64, ttl_ms: i64) -> Result<Lease, StoreError> {
        self.explain(self.prolong(lease, now_ms, ttl_ms).await).await
    }

    async fn raise_to(&self, lease: &Lease, epoch: u64) -> Result<Lease, StoreError> {
        self.explain(self.lift(lease, epoch).await).await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.explain(self.give_up(&lease).await).await
    }

    async fn is_led(&self) -> Result<bool, StoreError> {
        Ok(self.lock_is_taken())
    }

    async fn lease_clock_ms(&self) -> Result<i64, StoreError> {
        Ok(crate::clock::Clock::system().now_ms())
    }

    async fn submit_command(&self, key: &str, body: &str, at_ms: i64) -> Result<Submitted, StoreError> {
        self.explain(self.submit(key, body, at_ms).await).await
    }

    async fn commands(&self, after: u64, limit: u32) -> Result<Vec<Command>, StoreError> {
        self.explain(self.submitted(after, limit).await).await
    }

    async fn integrity(&self) -> Result<(), StoreError> {
        const ACTION: &str = "check the ledger";
        let lines: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(20)")
            .fetch_all(&self.readers)
            .await
            .map_err(database(ACTION))?;
        if lines != ["ok"] {
            return Err(StoreError::Damaged { place: self.place(), detail: lines.join("; ") });
        }
        let row = sqlx::query(COUNTS).fetch_one(&self.readers).await.map_err(database(ACTION))?;
        let falling: Option<i64> =
            sqlx::query_scalar(FALLING).fetch_optional(&self.readers).await.map_err(database(ACTION))?;
        check_counts(&self.place(), (row.get(0), row.get(1), row.get(2)), falling)
    }

    async fn backup(&self, target: &Path) -> Result<(), StoreError> {
        let part = files::begin(target)?;
        sqlx::query("VACUUM INTO ?")
            .bind(part.to_string_lossy().into_owned())
            .execute(&self.readers)
            .await
            .map_err(database("copy the ledger"))?;
        files::publish(&part, target)
    }

    /// Folds the write-ahead log into the database.
    async fn close(&self) {
        // The writer last: only it may fold the log in.
        self.readers.close().await;
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }
}
