//! Reads the mesh from git: blobs of bare objects at a commit, or a plain folder. Never a checkout.
//!
//! A checkout would let repository content choose paths on the host (symlinks, `..`, `.git`, case twins), run
//! filters and hooks, and differ from the commit it claims to be. So nothing here creates a work tree: a snapshot is
//! a list of names with object ids, and bytes are read from the object store, by id, when somebody asks for them.
//!
//! Everything blocks; async callers go through `spawn_blocking`.

mod folder;
mod history;
mod mirror;
mod names;
mod openpgp;
mod signature;
mod snapshot;
#[cfg(test)]
mod tests;
mod unaccepted;
mod writer;

use std::path::PathBuf;

pub use folder::FolderSource;
pub use history::{CommitRange, History};
pub use mirror::{Credentials, Mend, Repository};
pub use openpgp::PgpKeys;
pub use signature::ssh_key_id;
pub use snapshot::{FileEntry, Reason, Rejected, RepoSnapshot};
pub use unaccepted::Unaccepted;
pub use writer::{NewCommit, RepoWriter};

/// Largest file a snapshot accepts, checked in the object's header before any of it is read: 16 MiB.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Most files a snapshot holds, and most folders it enters. Beyond it the snapshot fails whole, because a cut-off listing would look like
/// thousands of products that somebody deleted.
pub const MAX_FILES: usize = 100_000;
/// Deepest folder a snapshot enters.
pub const MAX_DEPTH: usize = 64;

/// The id of a commit: 40 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(String);

impl CommitId {
    /// Returns the id, or an error when `text` is not 40 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, RepoError> {
        if text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(RepoError::BadCommitId(text.chars().take(80).collect()))
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first 10 digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..10]
    }

    fn of(oid: git2::Oid) -> Self {
        Self(oid.to_string())
    }

    fn oid(&self) -> git2::Oid {
        git2::Oid::from_str(&self.0).expect("a commit id is 40 hexadecimal digits by construction")
    }
}

impl std::fmt::Display for CommitId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a commit says about itself. Mail addresses stay in the repository: the ledger and the site are wider places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    pub id: CommitId,
    pub parents: Vec<CommitId>,
    /// Name only. Text that is not UTF-8 is shown with replacement characters.
    pub author: String,
    pub message: String,
    /// Committer time in milliseconds since 1970 (git keeps whole seconds). Claimed by the committer, so never a
    /// basis for ordering or freshness.
    pub time_ms: i64,
}

impl CommitInfo {
    fn of(commit: &git2::Commit<'_>) -> Self {
        Self {
            id: CommitId::of(commit.id()),
            parents: commit.parent_ids().map(CommitId::of).collect(),
            author: String::from_utf8_lossy(commit.author().name_bytes()).into_owned(),
            message: String::from_utf8_lossy(commit.message_bytes()).into_owned(),
            time_ms: commit.time().seconds().saturating_mul(1000),
        }
    }

    /// Returns the first line of the message.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    #[error("'{0}' is not a commit id of 40 hexadecimal digits")]
    BadCommitId(String),
    #[error("'{0}' is not a usable name of a branch, tag or commit")]
    BadRef(String),
    #[error("cannot use '{url}' as a repository: {why}")]
    BadUrl { url: String, why: &'static str },
    #[error("cannot open the repository at {}", path.display())]
    Open { path: PathBuf, source: git2::Error },
    #[error("cannot fetch from {url}")]
    Fetch { url: String, source: git2::Error },
    #[error("commit {0} is not in the repository")]
    NoSuchCommit(CommitId),
    #[error("the mirror does not hold all of commit {0}; it is fetched again in a moment")]
    Torn(CommitId),
    #[error(
        "{0} is not in the repository any more; what is deployed stays as it is until the reference is back"
    )]
    Gone(String),
    #[error("'{0}' is not a file of this snapshot")]
    NoSuchFile(String),
    #[error("'{0}' is not a folder of this snapshot")]
    NoSuchFolder(String),
    #[error("'{path}' changed on disk after it was listed; run the command again")]
    Changed { path: String },
    #[error("more than {limit} files or folders: split the repository or point at a sub-folder")]
    TooManyFiles { limit: usize },
    #[error("branch {branch} is at {}, not where this commit starts", at(current.as_ref()))]
    BranchMoved { branch: String, current: Option<CommitId> },
    #[error("'{path}' cannot be written to a repository: {reason}")]
    BadPath { path: String, reason: Reason },
    #[error("cannot {action}")]
    Git { action: &'static str, source: git2::Error },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
}

fn at(current: Option<&CommitId>) -> &str {
    current.map_or("no commit", CommitId::as_str)
}

/// Returns a `map_err` closure that says what was being attempted.
fn git(action: &'static str) -> impl FnOnce(git2::Error) -> RepoError {
    move |source| RepoError::Git { action, source }
}

fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> RepoError {
    let path = path.to_owned();
    move |source| RepoError::Io { action, path, source }
}
