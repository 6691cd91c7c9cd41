//! Where a ledger is: what an environment asks for, and what a state folder remembers of it.

use std::path::{Path, PathBuf};

use hydromesh_core::model::StateKind;
use serde::{Deserialize, Serialize};

use crate::secrets::{SecretError, resolve};

/// The file in a state folder that says where its ledger is, when it is not in the folder.
const POINTER: &str = "ledger.json";
const FILE: &str = "ledger.db";
/// The file in a state folder into which a backup is being put back.
pub const RESTORING: &str = "restore.unfinished";
/// Longest name of anything in PostgreSQL.
const MOST_BYTES: usize = 63;

/// Where a ledger is.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// A schema of a PostgreSQL server.
    Postgres {
        /// Its address, with the values of secrets.
        url: String,
        /// Each environment has its own, so that one database serves all.
        schema: String,
    },
}

/// The address is for nobody's eyes.
impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Postgres { schema, .. } => {
                f.debug_struct("Postgres").field("schema", schema).finish_non_exhaustive()
            }
        }
    }
}

/// Why it cannot be said where a ledger is.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A secret in its address.
    #[error("the address of the ledger cannot be put together")]
    Secret(#[from] SecretError),
    /// The server would cut the schema's name, and two environments could share one.
    #[error(
        "the schema {schema} has a name of more than {MOST_BYTES} bytes; give the environment a shorter one"
    )]
    LongName {
        /// Its name.
        schema: String,
    },
    /// The state folder's note.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The note.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Half a backup is not what anybody's ledger speaks of.
    #[error(
        "HM-X060: the restore into {} has not ended: wait for it, or remove what is in the folder and restore once more",
        folder.display()
    )]
    Restoring {
        /// The state folder.
        folder: PathBuf,
    },
    /// The note says nothing that is understood.
    #[error("HM-X013: {} does not say where the ledger is; remove it, and the next controller writes it anew", path.display())]
    Malformed {
        /// The note.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// What the state folder remembers. Secrets stay references: no password comes to lie in the folder.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    environment: String,
    state: StateKind,
}

impl Place {
    /// Returns the file in a state folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self::File(folder.join(FILE))
    }

    /// Returns whether a process that lives leads the ledger in a file, without opening it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self, Self::File(path) if super::sqlite::is_held(path))
    }

    /// Returns where an environment's ledger is.
    ///
    /// # Errors
    /// When a secret in the address has no value.
    pub fn of(folder: &Path, environment: &str, state: &StateKind) -> Result<Self, PlaceError> {
        Ok(match state {
            StateKind::Sqlite => Self::in_folder(folder),
            StateKind::Postgres { url } => {
                let schema = format!("hydromesh_{environment}");
                if schema.len() > MOST_BYTES {
                    return Err(PlaceError::LongName { schema });
                }
                Self::Postgres { url: resolve(url)?, schema }
            }
        })
    }

    /// Returns where the ledger of a state folder is, if it has one.
    ///
    /// # Errors
    /// When the folder's note cannot be read, a secret in the address has no value, or a backup is only being put back.
    pub fn found(folder: &Path) -> Result<Option<Self>, PlaceError> {
        if folder.join(RESTORING).exists() {
            return Err(PlaceError::Restoring { folder: folder.to_path_buf() });
        }
        let path = folder.join(POINTER);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let note: Note =
                    serde_json::from_str(&text).map_err(|source| PlaceError::Malformed { path, source })?;
                Ok(Some(Self::of(folder, &note.environment, &note.state)?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let file = folder.join(FILE);
                Ok(file.exists().then_some(Self::File(file)))
            }
            Err(source) => Err(PlaceError::Unreadable { path, source }),
        }
    }

    /// Writes down in a state folder where its ledger is from now on.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn remember(folder: &Path, environment: &str, state: &StateKind) -> std::io::Result<()> {
        let path = folder.join(POINTER);
        if matches!(state, StateKind::Sqlite) {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let note = Note { environment: environment.to_owned(), state: state.clone() };
        crate::disk::replace(&path, &serde_json::to_vec_pretty(&note)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_remembers_where_its_ledger_is_and_no_password() {
        let folder = tempfile::tempdir().expect("a folder");
        let found = || Place::found(folder.path()).expect("readable");
        assert_eq!(found(), None);
        std::fs::write(folder.path().join(FILE), "").expect("a file");
        assert_eq!(found(), Some(Place::File(folder.path().join(FILE))));
        let postgres = StateKind::Postgres { url: "postgres://me:${secret:PATH}@host/db".to_owned() };
        Place::remember(folder.path(), "prod", &postgres).expect("written");
        let note = std::fs::read_to_string(folder.path().join(POINTER)).expect("a note");
        assert!(note.contains("${secret:PATH}"), "{note}");
        let Some(place @ Place::Postgres { .. }) = found() else { panic!("the note comes before the file") };
        assert_eq!(place, Place::of(folder.path(), "prod", &postgres).expect("PATH is set"));
        assert!(!format!("{place:?}").contains("postgres://"), "{place:?}");
        Place::remember(folder.path(), "prod", &StateKind::Sqlite).expect("removed");
        assert_eq!(found(), Some(Place::File(folder.path().join(FILE))));
        std::fs::write(folder.path().join(POINTER), "{").expect("a file");
        assert!(matches!(Place::found(folder.path()), Err(PlaceError::Malformed { .. })));
    }
}
