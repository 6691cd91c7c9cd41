//! One write transaction on the only writing connection.

use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};

/// A transaction that holds SQLite's write lock from its first moment, so that what it reads cannot change before
/// it writes. Unless it is committed, its connection is thrown away with it.
///
/// sqlx's own transactions are not used: on a full disk or an I/O error SQLite rolls back by itself, sqlx's count of
/// open transactions then disagrees with the connection for ever, and every later write would fail until a restart.
pub(super) struct WriteTx {
    connection: PoolConnection<Sqlite>,
    committed: bool,
}

impl WriteTx {
    pub(super) async fn begin(writer: &SqlitePool) -> Result<Self, sqlx::Error> {
        // Guarded before BEGIN is sent: a caller dropped while waiting must not hand an open transaction on.
        let mut tx = Self { connection: writer.acquire().await?, committed: false };
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *tx).await?;
        Ok(tx)
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("COMMIT").execute(&mut *self).await?;
        self.committed = true;
        Ok(())
    }
}

impl Deref for WriteTx {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for WriteTx {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Drop for WriteTx {
    fn drop(&mut self) {
        if !self.committed {
            self.connection.close_on_drop();
        }
    }
}
