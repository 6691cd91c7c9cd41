//! Copies of a state folder whose controller goes on, and putting them back.
//!
//! What is copied first is never ahead of what is copied after it, because each thing only speaks of what was there before: the
//! ledger of its tables, a table of those that it was computed from, and a stream's table of its topic. So the order is the ledger,
//! its copy in the lake, tables from the last reader back to the sources, topics. A controller that starts on the copy finds a
//! ledger that is behind its tables, which is what every start after a crash finds.

mod restore;
mod take;

use std::io;
use std::path::{Path, PathBuf};

use hydromesh_core::ids::ProductId;
use serde::{Deserialize, Serialize};

use crate::lake::{Amount, Copied, LakeError};
use crate::store::StoreError;

pub use restore::{Backup, Elsewhere, Target};
pub use take::{Source, take};

/// What a backup says of itself; written last, so that one without it is none.
const MANIFEST: &str = "backup.json";
const FORMAT: &str = "hydromesh-backup";
/// Of the manifest and of how the folder is laid out.
const VERSION: u64 = 1;
const LEDGER: &str = "ledger.db";
const LAKE: &str = "lake";
const TOPICS: &str = "topics";
const MIRRORS: &str = "repo";
/// How the controller was started; no restore rests on it.
const CONTROLLER: &str = "controller.json";

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    version: u64,
    /// The version that made it.
    pub hydromesh: String,
    pub environment: String,
    /// RFC 3339.
    pub began: String,
    pub ended: String,
    /// The state folder that it was made of.
    pub state: PathBuf,
    pub ledger: LedgerPart,
    pub lake: LakePart,
    pub topics: Amount,
    /// Mirrors of the watched repository.
    pub repo: Amount,
}

/// The ledger of a backup: always a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPart {
    /// It was copied out of a server's database.
    pub from_server: bool,
    pub facts: u64,
    pub bytes: u64,
}

/// The lake of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakePart {
    /// As the environment says: relative to the state folder, or absolute.
    pub path: PathBuf,
    /// Where it was.
    pub root: PathBuf,
    /// In the order in which they were copied.
    pub tables: Vec<Copied>,
    /// Models, archived tables, and whatever else lies there.
    pub other: Amount,
    /// Products that can be computed by hand, each after all that it reads: those that follow a topic begin by themselves.
    pub computed: Vec<ProductId>,
}

impl LakePart {
    /// Returns how much all tables are.
    #[must_use]
    pub fn amount(&self) -> Amount {
        let mut sum = Amount::default();
        self.tables.iter().for_each(|table| sum += table.amount);
        sum
    }
}

/// Why nothing was backed up, or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Wrong use: nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// It was a backup once.
    #[error("HM-X061: the backup {} is not whole: {why}", folder.display())]
    NotWhole {
        /// The backup.
        folder: PathBuf,
        /// What is missing.
        why: String,
    },
    /// The mesh itself changed.
    #[error(
        "products were deployed, or a controller started, while tables were copied; try again when that is over"
    )]
    Stirred,
    /// The ledger.
    #[error("the ledger cannot be copied")]
    Store(#[from] StoreError),
    /// A table.
    #[error("the lake cannot be copied")]
    Lake(#[from] LakeError),
    /// A file.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BackupError + 'a {
    move |source| BackupError::Io { doing, path: path.to_path_buf(), source }
}

/// Returns the absolute name of a folder that need not be there, without links.
fn real(folder: &Path) -> io::Result<PathBuf> {
    let folder = std::path::absolute(folder)?;
    for there in folder.ancestors() {
        if let Ok(real) = there.canonicalize() {
            let rest = folder.strip_prefix(there).unwrap_or(Path::new(""));
            // A rest that is empty would end the name with a slash.
            return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
        }
    }
    Ok(folder)
}
