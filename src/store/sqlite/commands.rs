//! The mailbox in the file.

use sqlx::Row;

use super::{Command, Sqlite, StoreError, Submitted, database, from_sql, to_sql};
use crate::store::Submission;
use crate::store::mailbox::{check_command, repeated};
use crate::store::rows::{COMMANDS, KNOWN_COMMAND, NEW_COMMAND, command};

impl Sqlite {
    pub(super) async fn submit(&self, key: &str, body: &str, at_ms: i64) -> Result<Submitted, StoreError> {
        const ACTION: &str = "submit the command";
        check_command(key, body)?;
        let mut tx = self.begin(ACTION).await?;
        let known =
            sqlx::query(KNOWN_COMMAND).bind(key).fetch_optional(&mut *tx).await.map_err(database(ACTION))?;
        if let Some(row) = known {
            let id = from_sql(row.try_get(0).map_err(database(ACTION))?);
            let before: String = row.try_get(1).map_err(database(ACTION))?;
            return repeated(id, key, &before, body);
        }
        let new = sqlx::query_scalar(NEW_COMMAND).bind(key).bind(at_ms).bind(body);
        let id: i64 = new.fetch_one(&mut *tx).await.map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
        Ok(Submitted { id: from_sql(id), submission: Submission::New })
    }

    pub(super) async fn submitted(&self, after: u64, limit: u32) -> Result<Vec<Command>, StoreError> {
        const ACTION: &str = "read the commands";
        let asked = sqlx::query(COMMANDS).bind(to_sql(after)).bind(limit);
        let rows = asked.fetch_all(&self.readers).await.map_err(database(ACTION))?;
        rows.iter().map(command).collect::<Result<_, _>>().map_err(database(ACTION))
    }
}
