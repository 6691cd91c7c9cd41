//! What a failure of the database comes from: a disk that takes nothing for a while, or a file that is damaged.

use std::path::{Path, PathBuf};

use super::{Sqlite, StoreError};
use crate::disk::{Refusal, probe};

/// Primary result codes (<https://www.sqlite.org/rescode.html>); extended ones keep them in their low byte.
const READ_ONLY: i64 = 8;
const IO: i64 = 10;
const CORRUPT: i64 = 11;
const FULL: i64 = 13;
const CANNOT_OPEN: i64 = 14;
const NOT_A_DATABASE: i64 = 26;

/// Returns an error with its cause, where the database does not tell it: to SQLite a disk without room for its index of
/// the log, or one that became read-only, is an "I/O error" like that of a broken one.
pub(super) async fn explained(path: &Path, error: StoreError) -> StoreError {
    let StoreError::Database { action, source } = error else { return error };
    match primary(&source) {
        Some(CORRUPT | NOT_A_DATABASE) => {
            StoreError::Damaged { place: path.display().to_string(), detail: source.to_string() }
        }
        Some(READ_ONLY | IO | FULL | CANNOT_OPEN) => match refused(folder(path)).await {
            Some(source) => StoreError::Disk { action, path: folder(path), source },
            // A disk that takes what is written and yet fails is broken, or has room again by now.
            None => StoreError::Database { action, source },
        },
        _ => StoreError::Database { action, source },
    }
}

impl Sqlite {
    /// Returns a result with the cause of its failure.
    pub(super) async fn explain<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(explained(&self.path, error).await),
        }
    }
}

fn primary(error: &sqlx::Error) -> Option<i64> {
    error.as_database_error()?.code()?.parse::<i64>().ok().map(|code| code & 0xff)
}

fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Returns what the operating system says of a folder in which nothing can be written for now.
async fn refused(folder: PathBuf) -> Option<std::io::Error> {
    let probed = tokio::task::spawn_blocking(move || probe(&folder)).await;
    probed.ok()?.err().filter(|error| Refusal::of(error).is_some())
}
