//! Writes commits into a bare repository without a work tree: the demo's developer, and tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use git2::build::TreeUpdateBuilder;
use git2::{ErrorCode, FileMode, Oid, RepositoryInitOptions, Signature, Time};

use super::names::objection;
use super::{CommitId, Reason, RepoError, git, io};

/// The branch that a new repository's `HEAD` names.
const FIRST_BRANCH: &str = "main";

/// A bare repository on this machine that we may write to.
#[derive(Debug, Clone)]
pub struct RepoWriter {
    path: PathBuf,
}

/// Everything about a commit but its changes.
#[derive(Debug, Clone, Copy)]
pub struct NewCommit<'a> {
    pub branch: &'a str,
    /// The commit to build on, and where the branch must be now (a branch that does not exist yet starts there).
    /// `None` starts a history of its own.
    pub parent: Option<&'a CommitId>,
    pub message: &'a str,
    pub author: &'a str,
    pub email: &'a str,
    /// Milliseconds since 1970; git keeps the whole seconds, in UTC.
    pub time_ms: i64,
}

impl RepoWriter {
    /// Creates a bare repository with no hooks in it. An existing one is opened as it is.
    pub fn init_bare(path: &Path) -> Result<Self, RepoError> {
        init(path)?;
        Self::open(path)
    }

    pub fn open(path: &Path) -> Result<Self, RepoError> {
        let writer = Self { path: path.to_owned() };
        writer.handle()?;
        Ok(writer)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one commit: the parent's tree with each path set to its bytes, or removed where there are none.
    /// Removing an absent path changes nothing. The branch moves only if it still is where the commit starts.
    ///
    /// The same parent, changes, texts and time give the same id.
    pub fn commit(
        &self,
        new: NewCommit<'_>,
        changes: &BTreeMap<String, Option<Vec<u8>>>,
    ) -> Result<CommitId, RepoError> {
        let repo = self.handle()?;
        let reference = branch_ref(new.branch)?;
        let current = current(&repo, &reference)?;
        if current.is_some() && current.as_ref() != new.parent {
            return Err(RepoError::BranchMoved { branch: new.branch.to_owned(), current });
        }
        let parent = match new.parent {
            Some(id) => Some(repo.find_commit(id.oid()).map_err(|_| RepoError::NoSuchCommit(id.clone()))?),
            None => None,
        };
        let baseline = match &parent {
            Some(commit) => commit.tree().map_err(git("read the parent's files"))?,
            None => empty_tree(&repo)?,
        };
        let tree = updated_tree(&repo, &baseline, changes)?;
        let tree = repo.find_tree(tree).map_err(git("read the new files"))?;
        let when = Time::new(new.time_ms.div_euclid(1000), 0);
        let author = Signature::new(new.author, new.email, &when).map_err(git("name the author"))?;
        let parents: Vec<_> = parent.iter().collect();
        let id = repo
            .commit(None, &author, &author, new.message, &tree, &parents)
            .map_err(git("write the commit"))?;
        // The commit exists but nothing names it until here, so a kill leaves the branch where it was.
        let log = "commit";
        let moved = match &current {
            Some(at) => repo.reference_matching(&reference, id, true, at.oid(), log),
            None => repo.reference(&reference, id, false, log),
        };
        match moved {
            Ok(_) => Ok(CommitId::of(id)),
            Err(error) if matches!(error.code(), ErrorCode::Modified | ErrorCode::Exists) => {
                let current = self::current(&repo, &reference)?;
                Err(RepoError::BranchMoved { branch: new.branch.to_owned(), current })
            }
            Err(source) => Err(RepoError::Git { action: "move the branch", source }),
        }
    }

    /// Returns a file's bytes at a commit, `None` if there is no such file.
    pub fn read_file(&self, commit: &CommitId, path: &str) -> Result<Option<Vec<u8>>, RepoError> {
        let repo = self.handle()?;
        let commit = repo.find_commit(commit.oid()).map_err(|_| RepoError::NoSuchCommit(commit.clone()))?;
        let tree = commit.tree().map_err(git("read the commit's files"))?;
        match tree.get_path(Path::new(path)) {
            Ok(entry) if entry.filemode_raw() & 0o170_000 == 0o100_000 => {
                let blob = repo.find_blob(entry.id()).map_err(git("read a file from the repository"))?;
                Ok(Some(blob.content().to_vec()))
            }
            Ok(_) => Ok(None),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(source) => Err(RepoError::Git { action: "read a file from the repository", source }),
        }
    }

    /// Returns where a branch is, `None` if it does not exist.
    pub fn branch(&self, name: &str) -> Result<Option<CommitId>, RepoError> {
        current(&self.handle()?, &branch_ref(name)?)
    }

    /// Puts a branch at a commit whatever it was at before: a merge that only goes forward, or a force push.
    pub fn set_branch(&self, name: &str, commit: &CommitId) -> Result<(), RepoError> {
        let repo = self.handle()?;
        repo.find_commit(commit.oid()).map(drop).map_err(|_| RepoError::NoSuchCommit(commit.clone()))?;
        repo.reference(&branch_ref(name)?, commit.oid(), true, "set")
            .map(drop)
            .map_err(git("move the branch"))
    }

    /// Deletes a branch; one that does not exist is fine.
    pub fn delete_branch(&self, name: &str) -> Result<(), RepoError> {
        let repo = self.handle()?;
        match repo.find_reference(&branch_ref(name)?) {
            Ok(mut reference) => reference.delete().map_err(git("delete the branch")),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(()),
            Err(source) => Err(RepoError::Git { action: "delete the branch", source }),
        }
    }

    fn handle(&self) -> Result<git2::Repository, RepoError> {
        git2::Repository::open_bare(&self.path)
            .map_err(|source| RepoError::Open { path: self.path.clone(), source })
    }
}

/// Creates a bare repository that fsyncs what it writes, from no template (templates bring hooks).
pub(super) fn init(path: &Path) -> Result<git2::Repository, RepoError> {
    std::fs::create_dir_all(path).map_err(io("create the folder", path))?;
    let mut options = RepositoryInitOptions::new();
    options.bare(true).external_template(false).initial_head(FIRST_BRANCH);
    let open = |source| RepoError::Open { path: path.to_owned(), source };
    let repo = git2::Repository::init_opts(path, &options).map_err(open)?;
    let mut config = repo.config().map_err(open)?;
    config.set_bool("core.fsyncObjectFiles", true).map_err(open)?;
    Ok(repo)
}

fn branch_ref(branch: &str) -> Result<String, RepoError> {
    let name = format!("refs/heads/{branch}");
    if git2::Reference::is_valid_name(&name) { Ok(name) } else { Err(RepoError::BadRef(branch.to_owned())) }
}

fn current(repo: &git2::Repository, reference: &str) -> Result<Option<CommitId>, RepoError> {
    match repo.refname_to_id(reference) {
        Ok(oid) => Ok(Some(CommitId::of(oid))),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(source) => Err(RepoError::Git { action: "read the branch", source }),
    }
}

fn empty_tree(repo: &git2::Repository) -> Result<git2::Tree<'_>, RepoError> {
    let oid = repo.treebuilder(None).and_then(|b| b.write()).map_err(git("write an empty folder"))?;
    repo.find_tree(oid).map_err(git("read an empty folder"))
}

fn updated_tree(
    repo: &git2::Repository,
    baseline: &git2::Tree<'_>,
    changes: &BTreeMap<String, Option<Vec<u8>>>,
) -> Result<Oid, RepoError> {
    let mut update = TreeUpdateBuilder::new();
    for (path, content) in changes {
        if let Some(why) = path.split('/').find_map(objection) {
            return Err(RepoError::BadPath { path: path.clone(), reason: Reason::BadName(why) });
        }
        let existing = baseline.get_path(Path::new(path)).ok();
        match content {
            Some(bytes) => {
                let blob = repo.blob(bytes).map_err(git("write a file"))?;
                let executable = existing.is_some_and(|e| e.filemode_raw() & 0o170_111 == 0o100_111);
                update.upsert(
                    path.as_str(),
                    blob,
                    if executable { FileMode::BlobExecutable } else { FileMode::Blob },
                );
            }
            None if existing.is_some() => {
                update.remove(path.as_str());
            }
            None => {}
        }
    }
    update.create_updated(repo, baseline).map_err(git("write the files of a commit"))
}
