//! What a state folder keeps of its last controller, so that a verb can stand in for it while none runs: how it was started,
//! and the commit that it accepted last, in its mirror. Nothing is fetched, so nothing new is deployed by the way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hydromesh_core::ids::ProductId;
use serde::{Deserialize, Serialize};

use super::desired::Reading;
use super::error::UpError;
use super::ledger;
use super::run::UpOptions;
use super::watch::Watcher;
use crate::disk;
use crate::repo::{CommitId, RepoError, Repository};
use crate::store::{OpenMode, Place, PlaceError, Store, StoreError};

/// The file in a state folder that says how its controller was started.
const NOTE: &str = "controller.json";

/// What cannot be stood in for.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The note.
    #[error("could not use {}", path.display())]
    Note {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The note says nothing that is understood.
    #[error("HM-X013: {} does not say how the controller was started; `hydromesh up` writes it anew", path.display())]
    Malformed {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// The place of the ledger.
    #[error("the ledger cannot be found")]
    Place(#[from] PlaceError),
    /// The store.
    #[error("the ledger cannot be used")]
    Store(#[from] StoreError),
    /// The facts.
    #[error("the ledger cannot be read")]
    Ledger(#[from] ledger::LedgerError),
    /// The mirror.
    #[error("the commit that was accepted last cannot be read; start a controller with `hydromesh up`")]
    Mirror(#[from] RepoError),
    /// Nothing was ever accepted.
    #[error("no commit was accepted yet; start a controller with `hydromesh up`")]
    Nothing,
}

/// How a controller was started. Nothing of it is secret: an address of a repository may hold a password, and is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The environment.
    pub environment: String,
    /// The operator's policies; those compiled in without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<PathBuf>,
    /// Kafka brokers instead of the environment's stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brokers: Option<String>,
    /// Only what is signed counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    signed: bool,
    /// Name of the mirror's folder within `repo`.
    mirror: String,
}

/// The commit that was accepted last, and how its controller was started.
#[derive(Debug)]
pub struct Kept {
    /// How.
    pub note: Note,
    /// What the stand-in is asked about: histories of topics that have nothing to do with it are not waited for.
    pub about: Option<ProductId>,
    state: PathBuf,
}

/// Writes down how the controller of a state folder is started.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn keep(options: &UpOptions, mirror: &Path) -> Result<(), UpError> {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let note = Note {
        environment: options.environment.clone(),
        policies: options.policies.as_ref().map(absolute),
        brokers: options.brokers.clone(),
        signed: options.signers.is_some(),
        mirror: mirror.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let path = options.state.join(NOTE);
    let known = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
    if known.as_ref() == Some(&note) {
        return Ok(());
    }
    let write = serde_json::to_vec_pretty(&note).map_err(std::io::Error::from);
    let written = write.and_then(|text| disk::replace(&path, &text));
    written.map_err(|source| UpError::Io { action: format!("write {}", path.display()), source })
}

impl Kept {
    /// Returns what a state folder keeps; nothing if no controller of this or a later version ran on it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(state: &Path) -> Result<Option<Self>, KeptError> {
        let path = state.join(NOTE);
        match std::fs::read(&path) {
            Ok(text) => {
                let note =
                    serde_json::from_slice(&text).map_err(|source| KeptError::Malformed { path, source })?;
                Ok(Some(Self { note, about: None, state: state.to_owned() }))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeptError::Note { path, source }),
        }
    }

    /// Reads the commit that was accepted last, and stays at it.
    ///
    /// # Errors
    /// When there is none, or it is not whole.
    pub(super) async fn read(&self) -> Result<(Watcher, Reading), KeptError> {
        let place = Place::found(&self.state)?.ok_or(KeptError::Nothing)?;
        let store = Store::open_at(&place, OpenMode::ReadOnly).await?;
        let known = ledger::replay(&store).await;
        store.close().await;
        let known = known?;
        let line = known.line.as_deref().filter(|line| !line.at.is_empty());
        // The head may be one that nobody accepted.
        let (commit, refused) = match (self.note.signed, line) {
            (true, Some(line)) => (line.at.clone(), line.taints.clone()),
            (true, None) => return Err(KeptError::Nothing),
            (false, _) => (known.head.clone().ok_or(KeptError::Nothing)?, BTreeMap::new()),
        };
        let (mirror, _) = Repository::discover(&self.state.join("repo").join(&self.note.mirror))?;
        let watcher = Watcher::at(mirror, &CommitId::parse(&commit)?, refused.clone());
        let reading = watcher.read_without(&commit, &known.port_prints(), &refused)?;
        Ok((watcher, reading))
    }
}
