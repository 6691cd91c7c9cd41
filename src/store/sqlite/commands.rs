//! The mailbox in the file.

use sqlx::Row;

use super::{Command, Sqlite, StoreError, Submitted, database, from_sql, to_sql};
use crate::store::Submission;
use crate::store::mailbox::{check_command, repeated};

impl Sqlite {
    pub(super) async fn submit(&self, key: &str, body: &str, at_ms: i64) -> Result<Submitted, StoreError> {
        const ACTION: &str = "submit the command";
        check_command(key, body)?;
        let mut tx = self.begin(ACTION).await?;
        let known = sqlx::query("SELECT id, body FROM command WHERE key = ?")
            .bind(key)
            .fetch_optional(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        if let Some(row) = known {
            let id = from_sql(row.try_get(0).map_err(database(ACTION))?);
            let before: String = row.try_get(1).map_err(database(ACTION))?;
            return repeated(id, key, &before, body);
        }
        let id: i64 =
            sqlx::query_scalar("INSERT INTO command (key, at_ms, body) VALUES (?, ?, ?) RETURNING id")
                .bind(key)
                .bind(at_ms)
                .bind(body)
                .fetch_one(&mut *tx)
                .await
                .map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        Ok(Submitted { id: from_sql(id), submission: Submission::New })
    }

    pub(super) async fn submitted(&self, after: u64, limit: u32) -> Result<Vec<Command>, StoreError> {
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
