//! Watches the reference: polls, fetches, reads. Everything that blocks runs off the loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hydromesh_core::ids::PortId;
use hydromesh_core::plan::PortPrint;

use super::desired::{self, Reading};
use crate::apply::Blobs;
use crate::repo::{CommitId, CommitInfo, Credentials, RepoError, Repository};

/// The watched reference.
#[derive(Clone)]
pub struct Watcher {
    repository: Repository,
    reference: String,
}

/// Where the reference is, and the commits that were passed on the way.
#[derive(Debug)]
pub struct Head {
    /// The commit.
    pub commit: CommitInfo,
    /// Passed commits, oldest first.
    pub passed: Vec<CommitInfo>,
}

impl Watcher {
    /// Opens a repository by URL or path; its objects are mirrored into `cache`.
    ///
    /// # Errors
    /// When it is no repository.
    pub fn open(repo: &str, cache: &Path, reference: &str) -> Result<Self, RepoError> {
        let repository = Repository::open(repo, cache, Credentials::Anonymous)?;
        Ok(Self { repository, reference: reference.to_owned() })
    }

    /// Returns the blobs of the mirror.
    #[must_use]
    pub fn blobs(&self) -> Arc<dyn Blobs> {
        Arc::new(MirrorBlobs(self.repository.git_dir().to_path_buf()))
    }

    /// Fetches, and returns where the reference is when that is not `known`, with the commits passed since `base`.
    ///
    /// # Errors
    /// When the remote cannot be reached or the objects are damaged; the next poll tries again.
    pub fn poll(&self, known: Option<&str>, base: Option<&str>) -> Result<Option<Head>, RepoError> {
        self.repository.fetch()?;
        crate::fault::point("repo.after-fetch");
        let Some(id) = self.repository.resolve(&self.reference)? else { return Ok(None) };
        if known == Some(id.as_str()) {
            return Ok(None);
        }
        let commit = self.repository.commit(&id)?;
        let passed = match base.filter(|base| *base != id.as_str()).map(CommitId::parse) {
            Some(Ok(old)) => {
                let range = self.repository.commits_between(&old, &id)?;
                let mut passed: Vec<CommitInfo> = range.superseded().to_vec();
                passed.sort_by_key(|commit| commit.time_ms);
                passed
            }
            _ => Vec::new(),
        };
        Ok(Some(Head { commit, passed }))
    }

    /// Reads what a commit asks for.
    ///
    /// # Errors
    /// When its objects cannot be read.
    pub fn read(
        &self,
        commit: &CommitInfo,
        deployed: &BTreeMap<PortId, PortPrint>,
    ) -> Result<Reading, RepoError> {
        self.read_at(&commit.id, deployed)
    }

    /// Reads what a commit asks for that the mirror holds already.
    ///
    /// # Errors
    /// When the mirror does not hold it whole.
    pub fn read_commit(
        &self,
        commit: &str,
        deployed: &BTreeMap<PortId, PortPrint>,
    ) -> Result<Reading, RepoError> {
        self.read_at(&CommitId::parse(commit)?, deployed)
    }

    fn read_at(&self, id: &CommitId, deployed: &BTreeMap<PortId, PortPrint>) -> Result<Reading, RepoError> {
        let snapshot = self.repository.snapshot(id)?;
        Ok(desired::read(&snapshot, id.as_str(), deployed))
    }
}

/// Blobs of a bare repository, by id: also those of commits that are no longer the head.
struct MirrorBlobs(std::path::PathBuf);

impl Blobs for MirrorBlobs {
    fn read(&self, oid: &str) -> std::io::Result<Vec<u8>> {
        let wrap = |error: git2::Error| std::io::Error::other(error.message().to_owned());
        let repository = git2::Repository::open_bare(&self.0).map_err(wrap)?;
        let oid = git2::Oid::from_str(oid).map_err(wrap)?;
        let blob = repository.find_blob(oid).map_err(wrap)?;
        Ok(blob.content().to_vec())
    }
}
