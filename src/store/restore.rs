//! Taking over records of the same ledger that are kept elsewhere.

use super::{Lease, Record, Store, StoreError, database, to_sql};

impl Store {
    /// Adds records of the same ledger right after its own last one, as they once were: with their times and epochs.
    ///
    /// Who calls it has raised the lease above their epochs before, so that whatever is appended later goes on above them.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] unless the lease is the current one; [`StoreError::Damaged`] when the records do not follow.
    pub async fn restore(&self, lease: &Lease, records: &[Record]) -> Result<(), StoreError> {
        const ACTION: &str = "restore the ledger";
        let mut tx = self.begin_as(lease.epoch, ACTION).await?;
        let last: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM ledger")
            .fetch_one(&mut *tx)
            .await
            .map_err(database(ACTION))?;
        for (next, record) in (last + 1..).zip(records) {
            if to_sql(record.seq) != next || record.epoch >= lease.epoch {
                let detail = format!(
                    "record {} of epoch {} cannot follow record {last} under epoch {}",
                    record.seq, record.epoch, lease.epoch
                );
                return Err(StoreError::Damaged { path: self.path.clone(), detail });
            }
            sqlx::query("INSERT INTO ledger (seq, at_ms, epoch, kind, body) VALUES (?, ?, ?, ?, ?)")
                .bind(to_sql(record.seq))
                .bind(record.at_ms)
                .bind(to_sql(record.epoch))
                .bind(&record.kind)
                .bind(&record.body)
                .execute(&mut *tx)
                .await
                .map_err(database(ACTION))?;
        }
        tx.commit().await.map_err(database(ACTION))
    }
}
