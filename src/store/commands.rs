//! The mailbox: what people ask for, before the active controller turns it into facts.
//!
//! Anybody who may open the state folder may submit, with no lease: a command has no effect until the controller,
//! under its epoch, appends that it took it and later how it ended. Which are taken is read from those facts alone,
//! so a crash between the two loses nothing and repeats nothing.

use sqlx::Row;

use super::{MAX_COMMAND_BYTES, Store, StoreError, database, from_sql, to_sql};

/// A command as submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Rises in order of submission; may have gaps.
    pub id: u64,
    pub key: String,
    pub at_ms: i64,
    /// JSON text.
    pub body: String,
}

/// What [`Store::submit_command`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Submitted {
    pub id: u64,
    pub submission: Submission,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submission {
    New,
    /// The same key and body were there already; nothing was written.
    Repeated,
}

impl Store {
    /// Puts a command in the mailbox once per idempotency key.
    ///
    /// # Errors
    /// [`StoreError::KeyReused`] if the key came with another body before; [`StoreError::BadCommand`].
    pub async fn submit_command(&self, key: &str, body: &str, at_ms: i64) -> Result<Submitted, StoreError> {
        const ACTION: &str = "submit the command";
        if key.is_empty() || key.chars().count() > 200 || body.len() > MAX_COMMAND_BYTES {
            return Err(StoreError::BadCommand);
        }
        let mut tx = self.begin(ACTION).await?;
        let known = sqlx::query("SELECT id, body FROM command WHERE key = ?")
            .bind(key)
            .fetch_optional(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        if let Some(row) = known {
            let id = from_sql(row.try_get(0).map_err(database(ACTION))?);
            let before: String = row.try_get(1).map_err(database(ACTION))?;
            return if before == body {
                Ok(Submitted { id, submission: Submission::Repeated })
            } else {
                Err(StoreError::KeyReused { key: key.to_owned() })
            };
        }
        let id: i64 =
            sqlx::query_scalar("INSERT INTO command (key, at_ms, body) VALUES (?, ?, ?) RETURNING id")
                .bind(key)
                .bind(at_ms)
                .bind(body)
                .fetch_one(&mut *tx)
                .await
                .map_err(|source| match &source {
                    sqlx::Error::Database(e) if e.is_check_violation() => StoreError::BadCommand,
                    _ => StoreError::Database { action: ACTION, source },
                })?;
        tx.commit().await.map_err(database(ACTION))?;
        Ok(Submitted { id: from_sql(id), submission: Submission::New })
    }

    /// Returns at most `limit` commands with an id above `after`, in order of submission.
    pub async fn commands(&self, after: u64, limit: u32) -> Result<Vec<Command>, StoreError> {
        const ACTION: &str = "read the commands";
        let rows = sqlx::query("SELECT id, key, at_ms, body FROM command WHERE id > ? ORDER BY id LIMIT ?")
            .bind(to_sql(after))
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(database(ACTION))?;
        let command = |row: &sqlx::sqlite::SqliteRow| -> Result<Command, sqlx::Error> {
            Ok(Command {
                id: from_sql(row.try_get(0)?),
                key: row.try_get(1)?,
                at_ms: row.try_get(2)?,
                body: row.try_get(3)?,
            })
        };
        rows.iter().map(command).collect::<Result<_, _>>().map_err(database(ACTION))
    }
}
