//! The board: steps that control hands to other processes, and what those report.
//!
//! Nothing on it is a fact. A controller that starts clears it, because everything in flight ended with the one before;
//! what a lost report would have said is found again in the lake. Control's calls compare the epoch, so that a
//! stale controller takes no report that its successor waits for. A worker's reports count only while the task is
//! still its own.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::PathBuf;

use sqlx::Row;

use super::open::beside;
use super::write::WriteTx;
use super::{Lease, Store, StoreError, database, from_sql, io, lease, to_sql};

#[cfg(test)]
mod tests;

/// Reports that may wait for control. Beyond it workers wait: without a controller they must not fill the disk.
const MOST_REPORTS: i64 = 1_000;

/// A worker's place on the board. Its lock vanishes with its process, which is how control notices at once.
#[derive(Debug)]
#[must_use]
pub struct Enlisted {
    id: String,
    _lock: File,
}

/// A step for another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The run.
    pub run: String,
    /// The controller's epoch when it was written: every table commit carries it.
    pub epoch: u64,
    /// JSON text.
    pub body: String,
}

/// What became of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Cancelled {
    /// Nobody had begun; it is off the board, and no report will come.
    Unbegun,
    /// Its worker is told, and reports how it ended.
    Asked,
    /// It is not on the board.
    Gone,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Reported {
    /// Control will take it.
    Kept,
    /// Control is behind; try again later.
    Full,
    /// The task is no longer this worker's: it stops.
    NotOurs,
}

impl Store {
    /// Removes every task and report, and workers that are gone: the first thing that a new controller does.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the epoch is not the current one.
    pub async fn clear_board(&self, epoch: u64) -> Result<(), StoreError> {
        const ACTION: &str = "clear the board";
        let mut tx = self.begin_as(epoch, ACTION).await?;
        sqlx::raw_sql("DELETE FROM task; DELETE FROM report")
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        let workers: Vec<String> = sqlx::query_scalar("SELECT id FROM worker")
            .fetch_all(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        for id in workers {
            if self.process_is_gone(&id)? {
                sqlx::query("DELETE FROM worker WHERE id = ?")
                    .bind(&id)
                    .execute(&mut *tx)
                    .await
                    .map_err(database(ACTION))?;
                // It may be gone already, and an empty file that stays does no harm.
                let _ = std::fs::remove_file(self.worker_lock(&id));
            }
        }
        tx.commit().await.map_err(database(ACTION))
    }

    /// Puts a step on the board for a process of this role.
    ///
    /// # Errors
    /// [`StoreError::Fenced`].
    pub async fn offer(&self, epoch: u64, role: &str, run: &str, body: &str) -> Result<(), StoreError> {
        const ACTION: &str = "hand out a step";
        let mut tx = self.begin_as(epoch, ACTION).await?;
        sqlx::query("INSERT INTO task (run, role, epoch, body) VALUES (?, ?, ?, ?)")
            .bind(run)
            .bind(role)
            .bind(to_sql(epoch))
            .bind(body)
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))
    }

    /// Takes a step back.
    ///
    /// # Errors
    /// [`StoreError::Fenced`].
    pub async fn cancel_task(&self, epoch: u64, run: &str) -> Result<Cancelled, StoreError> {
        const ACTION: &str = "take a step back";
        let mut tx = self.begin_as(epoch, ACTION).await?;
        let unbegun = sqlx::query("DELETE FROM task WHERE run = ? AND worker IS NULL")
            .bind(run)
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        let asked = sqlx::query("UPDATE task SET cancel = 1 WHERE run = ?")
            .bind(run)
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        Ok(match (unbegun.rows_affected(), asked.rows_affected()) {
            (0, 0) => Cancelled::Gone,
            (0, _) => Cancelled::Asked,
            _ => Cancelled::Unbegun,
        })
    }

    /// Takes at most `limit` reports off the board, oldest first: each with its run.
    ///
    /// # Errors
    /// [`StoreError::Fenced`].
    pub async fn take_reports(&self, epoch: u64, limit: u32) -> Result<Vec<(String, String)>, StoreError> {
        const ACTION: &str = "take the reports";
        // Looked at before it is written: an idle controller takes no lock.
        let waiting: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM report)")
            .fetch_one(&self.readers)
            .await
            .map_err(database(ACTION))?;
        if !waiting {
            return Ok(Vec::new());
        }
        let mut tx = self.begin_as(epoch, ACTION).await?;
        let rows = sqlx::query("SELECT id, run, body FROM report ORDER BY id LIMIT ?")
            .bind(limit)
            .fetch_all(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        let mut last = 0_i64;
        let mut reports = Vec::new();
        for row in &rows {
            last = row.try_get(0).map_err(database(ACTION))?;
            let run: String = row.try_get(1).map_err(database(ACTION))?;
            reports.push((run, row.try_get(2).map_err(database(ACTION))?));
        }
        sqlx::query("DELETE FROM report WHERE id <= ?")
            .bind(last)
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        Ok(reports)
    }

    /// Removes a step that has ended.
    ///
    /// # Errors
    /// [`StoreError::Fenced`].
    pub async fn end_task(&self, epoch: u64, run: &str) -> Result<(), StoreError> {
        const ACTION: &str = "end a step";
        let mut tx = self.begin_as(epoch, ACTION).await?;
        sqlx::query("DELETE FROM task WHERE run = ?")
            .bind(run)
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))
    }

    /// Returns the runs whose worker is gone: its process ended, or it has not been heard of until `now_ms`.
    pub async fn lost_tasks(&self, now_ms: i64) -> Result<BTreeSet<String>, StoreError> {
        const ACTION: &str = "look for lost steps";
        let rows = sqlx::query(
            "SELECT task.run, task.worker, coalesce(worker.expires_ms, 0)
             FROM task LEFT JOIN worker ON worker.id = task.worker WHERE task.worker IS NOT NULL",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(database(ACTION))?;
        let mut lost = BTreeSet::new();
        for row in &rows {
            let worker: String = row.try_get(1).map_err(database(ACTION))?;
            let expires_ms: i64 = row.try_get(2).map_err(database(ACTION))?;
            if expires_ms <= now_ms || self.process_is_gone(&worker)? {
                lost.insert(row.try_get(0).map_err(database(ACTION))?);
            }
        }
        Ok(lost)
    }

    /// Takes lost steps off the board and raises the lease's epoch, so that a worker which was only slow can commit to
    /// no table that its successor has committed to.
    ///
    /// # Errors
    /// [`StoreError::Fenced`].
    pub async fn give_up(&self, lease: &Lease, runs: &BTreeSet<String>) -> Result<Lease, StoreError> {
        const ACTION: &str = "give up lost steps";
        let mut tx = self.begin_as(lease.epoch, ACTION).await?;
        for run in runs {
            for statement in ["DELETE FROM task WHERE run = ?", "DELETE FROM report WHERE run = ?"] {
                sqlx::query(statement).bind(run).execute(&mut *tx).await.map_err(database(ACTION))?;
            }
        }
        let raised = Lease { epoch: lease.epoch + 1, ..lease.clone() };
        sqlx::query("UPDATE lease SET epoch = ? WHERE id = 1")
            .bind(to_sql(raised.epoch))
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        self.lock_belongs_to(raised.epoch);
        Ok(raised)
    }

    /// Returns how many workers of a role have been heard of at `now_ms`.
    pub async fn workers(&self, role: &str, now_ms: i64) -> Result<usize, StoreError> {
        const ACTION: &str = "count the workers";
        let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM worker WHERE role = ? AND expires_ms > ?")
            .bind(role)
            .bind(now_ms)
            .fetch_all(&self.readers)
            .await
            .map_err(database(ACTION))?;
        let mut alive = 0;
        for id in ids {
            alive += usize::from(!self.process_is_gone(&id)?);
        }
        Ok(alive)
    }

    /// Gives a worker its place. `id` is a file name's worth of text, unique to the process.
    ///
    /// # Errors
    /// When its lock cannot be made or taken.
    pub async fn enlist(
        &self,
        id: &str,
        role: &str,
        now_ms: i64,
        ttl_ms: i64,
    ) -> Result<Enlisted, StoreError> {
        const ACTION: &str = "enlist a worker";
        let path = self.worker_lock(id);
        let lock =
            File::options().create(true).append(true).open(&path).map_err(io("open the lock", &path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::Error(source) => io("take the lock", &path)(source),
            TryLockError::WouldBlock => {
                io("take the lock", &path)(std::io::Error::from(std::io::ErrorKind::AlreadyExists))
            }
        })?;
        let mut tx = self.begin(ACTION).await?;
        sqlx::query("INSERT INTO worker (id, role, expires_ms) VALUES (?, ?, ?)")
            .bind(id)
            .bind(role)
            .bind(now_ms.saturating_add(ttl_ms))
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        Ok(Enlisted { id: id.to_owned(), _lock: lock })
    }

    /// Says that a worker lives.
    pub async fn beat(&self, worker: &Enlisted, now_ms: i64, ttl_ms: i64) -> Result<(), StoreError> {
        const ACTION: &str = "renew a worker's place";
        let mut tx = self.begin(ACTION).await?;
        sqlx::query("UPDATE worker SET expires_ms = ? WHERE id = ?")
            .bind(now_ms.saturating_add(ttl_ms))
            .bind(&worker.id)
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))
    }

    /// Gives a worker's place up. What it still had is lost, and given to another.
    pub async fn dismiss(&self, worker: Enlisted) -> Result<(), StoreError> {
        const ACTION: &str = "dismiss a worker";
        let mut tx = self.begin(ACTION).await?;
        sqlx::query("DELETE FROM worker WHERE id = ?")
            .bind(&worker.id)
            .execute(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        let path = self.worker_lock(&worker.id);
        std::fs::remove_file(&path).map_err(io("remove the lock", &path))
    }

    /// Takes the oldest step of a role that nobody has begun.
    pub async fn claim(&self, worker: &Enlisted, role: &str) -> Result<Option<Task>, StoreError> {
        const ACTION: &str = "begin a step";
        // Looked at before it is written: idle workers take no lock.
        let waiting: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM task WHERE role = ? AND worker IS NULL)")
                .bind(role)
                .fetch_one(&self.readers)
                .await
                .map_err(database(ACTION))?;
        if !waiting {
            return Ok(None);
        }
        let mut tx = self.begin(ACTION).await?;
        let row = sqlx::query(
            "UPDATE task SET worker = ? WHERE id =
                (SELECT id FROM task WHERE role = ? AND worker IS NULL ORDER BY id LIMIT 1)
             RETURNING run, epoch, body",
        )
        .bind(&worker.id)
        .bind(role)
        .fetch_optional(&mut *tx)
        .await
        .map_err(database(ACTION))?;
        let task = row.map(|row| -> Result<Task, sqlx::Error> {
            Ok(Task { run: row.try_get(0)?, epoch: from_sql(row.try_get(1)?), body: row.try_get(2)? })
        });
        let task = task.transpose().map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        Ok(task)
    }

    /// Returns the runs that are still this worker's and not cancelled: whatever else it performs, it stops.
    pub async fn wanted(&self, worker: &Enlisted) -> Result<BTreeSet<String>, StoreError> {
        let runs: Vec<String> = sqlx::query_scalar("SELECT run FROM task WHERE worker = ? AND cancel = 0")
            .bind(&worker.id)
            .fetch_all(&self.readers)
            .await
            .map_err(database("read the worker's steps"))?;
        Ok(runs.into_iter().collect())
    }

    /// Leaves a report for control.
    pub async fn report(&self, worker: &Enlisted, run: &str, body: &str) -> Result<Reported, StoreError> {
        const ACTION: &str = "report on a step";
        let mut tx = self.begin(ACTION).await?;
        let (ours, waiting): (bool, i64) = sqlx::query_as(
            "SELECT EXISTS (SELECT 1 FROM task WHERE run = ? AND worker = ?), (SELECT count(*) FROM report)",
        )
        .bind(run)
        .bind(&worker.id)
        .fetch_one(&mut *tx)
        .await
        .map_err(database(ACTION))?;
        let reported = match (ours, waiting < MOST_REPORTS) {
            (false, _) => Reported::NotOurs,
            (true, false) => Reported::Full,
            (true, true) => {
                sqlx::query("INSERT INTO report (run, body) VALUES (?, ?)")
                    .bind(run)
                    .bind(body)
                    .execute(&mut *tx)
                    .await
                    .map_err(database(ACTION))?;
                Reported::Kept
            }
        };
        tx.commit().await.map_err(database(ACTION))?;
        Ok(reported)
    }

    /// Begins a write that only the current controller may make.
    async fn begin_as(&self, epoch: u64, action: &'static str) -> Result<WriteTx, StoreError> {
        let mut tx = self.begin(action).await?;
        let current = lease::current(&mut tx).await?;
        if !current.may_write(epoch) {
            self.drop_lock_unless_ours(current.epoch);
            return Err(StoreError::Fenced { expected: epoch, current: current.epoch });
        }
        Ok(tx)
    }

    fn worker_lock(&self, id: &str) -> PathBuf {
        beside(&self.path, &format!("worker-{id}"))
    }

    /// Returns whether a worker's lock is free. Of a place that was given up, there is no lock.
    fn process_is_gone(&self, id: &str) -> Result<bool, StoreError> {
        let path = self.worker_lock(id);
        let file = match File::options().append(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(io("open the lock", &path)(error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(io("take the lock", &path)(error)),
        }
    }
}
