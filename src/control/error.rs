//! Why a controller does not start, or ends.

use super::copy::CopyError;
use super::{KeptError, ledger};
use crate::repo::RepoError;
use crate::store::{PlaceError, StoreError};
use crate::work::BoardError;

/// Why `up` ended.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The repository cannot be read.
    #[error("could not read the repository {repo}")]
    Repo {
        /// As given.
        repo: String,
        /// Why.
        source: RepoError,
    },
    /// The store failed, or another controller took over.
    #[error("the ledger cannot be used")]
    Store(#[from] StoreError),
    /// It cannot be said where the ledger is.
    #[error("the ledger cannot be found")]
    Place(#[from] PlaceError),
    /// Steps cannot be handed to other processes.
    #[error("the board of steps cannot be used")]
    Board(#[from] BoardError),
    /// The ledger cannot be read.
    #[error("the ledger cannot be read")]
    Ledger(#[from] ledger::LedgerError),
    /// The ledger's copy in the lake.
    #[error("the ledger cannot be compared with its copy")]
    Copy(#[from] CopyError),
    /// The lake cannot be opened.
    #[error("the lake cannot be opened")]
    Lake(#[from] crate::lake::LakeError),
    /// The engine cannot be made.
    #[error("the query engine cannot be started")]
    Engine(#[from] crate::engine::EngineError),
    /// The policies cannot be read.
    #[error("the policies cannot be read")]
    Policy(#[from] crate::policy::PolicyError),
    /// The environment's mail settings.
    #[error("mails cannot be sent")]
    Mail(#[from] crate::notify::NotifyError),
    /// Nothing that was signed says how the environment is set up.
    #[error("{why}; name an accepted commit as `since` in signers.yaml")]
    Unsigned {
        /// Why not.
        why: String,
    },
    /// The environment is not in the mesh.
    #[error("environment {name} is not in mesh.yaml; there is {known}")]
    Environment {
        /// As given.
        name: String,
        /// What there is.
        known: String,
    },
    /// The environment comes after one that nobody says where to find.
    #[error(
        "environment {name} comes after {before}, whose ledger is a file; say with --after-state where the state folder of its \
         controller is"
    )]
    Before {
        /// The environment.
        name: String,
        /// The one before.
        before: String,
    },
    /// Nothing was healthy in the environment before for long enough, and nobody waits.
    #[error("nothing is deployed: environment {name} comes after {before}, where {why}")]
    Unproven {
        /// The environment.
        name: String,
        /// The one before.
        before: String,
        /// Why not.
        why: String,
    },
    /// The environment before.
    #[error("what may be deployed cannot be known")]
    Ahead(#[from] super::ahead::AheadError),
    /// The environment asks for what is not there yet.
    #[error("environment {name} asks for {what}")]
    Unsupported {
        /// The environment.
        name: String,
        /// What it asks for, and what to give instead.
        what: String,
    },
    /// A file of the state folder.
    #[error("could not {action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
        source: std::io::Error,
    },
    /// What the state folder keeps of the last controller.
    #[error("no controller can be stood in for")]
    Kept(#[from] KeptError),
}
