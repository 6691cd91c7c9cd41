//! What happened to a branch between two looks at it.

use std::collections::BTreeSet;

use git2::{ErrorCode, Oid, Sort};

use super::{CommitId, CommitInfo, RepoError, Repository, git};

/// Most commits one range lists. Beyond it the oldest are left out and `truncated` says so.
const MAX_LISTED: usize = 10_000;

/// How the new commit relates to the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum History {
    /// The old commit is an ancestor of the new one.
    Forward,
    /// A force push, or the branch was deleted and made again. `base` is the last commit both have, if any.
    Rewritten { base: Option<CommitId> },
    /// The old commit is not in this repository at all, so nothing can be said about what lies between.
    OldMissing,
}

/// The commits that lead from one state of a branch to the next, along first parents.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct CommitRange {
    pub history: History,
    /// Oldest first; the last is the new commit. Empty when nothing changed or the branch only went back.
    pub commits: Vec<CommitInfo>,
    /// After a rewrite: commits that the branch had and no longer has, oldest first.
    pub abandoned: Vec<CommitInfo>,
    pub truncated: bool,
}

impl CommitRange {
    /// Returns the commits that nobody will deploy because a later one arrived with them. Each still gets a
    /// recorded outcome (promise P1).
    #[must_use]
    pub fn superseded(&self) -> &[CommitInfo] {
        self.commits.split_last().map_or(&[], |(_, earlier)| earlier)
    }
}

impl Repository {
    /// Returns what lies between two states of a branch: the old commit excluded, the new one included.
    pub fn commits_between(&self, old: &CommitId, new: &CommitId) -> Result<CommitRange, RepoError> {
        let repo = self.handle()?;
        let tip = repo.find_commit(new.oid()).map_err(|e| absent(new, e))?;
        if repo.find_commit(old.oid()).is_err() {
            let commits = vec![CommitInfo::of(&tip)];
            return Ok(CommitRange {
                history: History::OldMissing,
                commits,
                abandoned: Vec::new(),
                truncated: false,
            });
        }
        let base = base_of(&repo, old, new)?;
        let (commits, cut_new) = first_parents(&repo, new.oid(), old.oid())?;
        let (history, (abandoned, cut_old)) = if base.as_ref() == Some(old) {
            (History::Forward, (Vec::new(), false))
        } else {
            (History::Rewritten { base }, first_parents(&repo, old.oid(), new.oid())?)
        };
        Ok(CommitRange { history, commits, abandoned, truncated: cut_new || cut_old })
    }

    /// Returns whether a commit has another one in its history; one that is not in this repository is in no history.
    pub fn descends(&self, commit: &CommitId, from: &CommitId) -> Result<bool, RepoError> {
        match self.handle()?.graph_descendant_of(commit.oid(), from.oid()) {
            Ok(descends) => Ok(descends),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
            Err(source) => {
                Err(RepoError::Git { action: "look for a commit in the history of another", source })
            }
        }
    }

    /// Returns the best common ancestor, or `None` for unrelated histories.
    pub fn merge_base(&self, one: &CommitId, two: &CommitId) -> Result<Option<CommitId>, RepoError> {
        let repo = self.handle()?;
        for id in [one, two] {
            repo.find_commit(id.oid()).map(drop).map_err(|e| absent(id, e))?;
        }
        base_of(&repo, one, two)
    }
}

fn absent(id: &CommitId, source: git2::Error) -> RepoError {
    if source.code() == ErrorCode::NotFound {
        RepoError::NoSuchCommit(id.clone())
    } else {
        RepoError::Git { action: "read a commit", source }
    }
}

fn base_of(repo: &git2::Repository, one: &CommitId, two: &CommitId) -> Result<Option<CommitId>, RepoError> {
    match repo.merge_base(one.oid(), two.oid()) {
        Ok(oid) => Ok(Some(CommitId::of(oid))),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(source) => Err(RepoError::Git { action: "find the common ancestor of two commits", source }),
    }
}

/// Walks first parents from `from` while they are not reachable from `hidden`; oldest first.
///
/// libgit2's own first-parent walk also hides along first parents only, which would list a commit again that
/// `hidden` had already merged. So reachability is one full walk and the line another.
fn first_parents(
    repo: &git2::Repository,
    from: Oid,
    hidden: Oid,
) -> Result<(Vec<CommitInfo>, bool), RepoError> {
    const ACTION: &str = "walk the history";
    let mut walk = repo.revwalk().map_err(git(ACTION))?;
    walk.set_sorting(Sort::TOPOLOGICAL).map_err(git(ACTION))?;
    walk.push(from).map_err(git(ACTION))?;
    walk.hide(hidden).map_err(git(ACTION))?;
    let fresh: BTreeSet<Oid> = walk.collect::<Result<_, _>>().map_err(git(ACTION))?;
    let mut commits = Vec::new();
    let mut next = Some(from);
    while let Some(oid) = next.filter(|oid| fresh.contains(oid)) {
        if commits.len() == MAX_LISTED {
            commits.reverse();
            return Ok((commits, true));
        }
        let commit = repo.find_commit(oid).map_err(git(ACTION))?;
        next = commit.parent_ids().next();
        commits.push(CommitInfo::of(&commit));
    }
    commits.reverse();
    Ok((commits, false))
}
