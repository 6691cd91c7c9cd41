//! The commits of a branch that were not accepted yet: what each of them changes, and what its signature proves.

use std::collections::{BTreeMap, BTreeSet};

use git2::{ErrorCode, ObjectType, Oid, Sort, Tree};
use hydromesh_core::trust::{Content, Delta, Proof};

use super::openpgp::PgpKeys;
use super::snapshot::join;
use super::{CommitId, CommitInfo, MAX_DEPTH, MAX_FILES, RepoError, Repository, git, signature};

/// Most commits that are judged at once.
const MOST_COMMITS: usize = 10_000;
/// Most changes of files in all of them.
const MOST_CHANGES: usize = 2 * MAX_FILES;
/// Largest `domain.yaml` that is read, in bytes: as for every text of the mesh.
const MOST_TEXT_BYTES: usize = 1 << 20;

/// A commit that was not accepted yet.
#[derive(Debug)]
pub struct Unaccepted {
    /// What it says about itself.
    pub info: CommitInfo,
    /// What its signature proves.
    pub proof: Proof,
    /// What it changes, by path.
    pub deltas: BTreeMap<String, Delta>,
}

impl Repository {
    /// Returns whether a commit is another one or lies behind it; not so when either is missing.
    pub fn holds(&self, head: &CommitId, earlier: &CommitId) -> Result<bool, RepoError> {
        let repo = self.handle()?;
        if repo.find_commit(earlier.oid()).is_err() || repo.find_commit(head.oid()).is_err() {
            return Ok(false);
        }
        let behind = || repo.graph_descendant_of(head.oid(), earlier.oid());
        Ok(head == earlier || behind().map_err(git("compare two commits"))?)
    }

    /// Returns the commits that are reachable from `head` and not from `accepted`, parents before children, or nothing when
    /// there are more than can be judged.
    pub fn unaccepted(
        &self,
        head: &CommitId,
        accepted: Option<&CommitId>,
        pgp: &PgpKeys,
    ) -> Result<Option<Vec<Unaccepted>>, RepoError> {
        const ACTION: &str = "walk the history";
        let repo = self.handle()?;
        let mut walk = repo.revwalk().map_err(git(ACTION))?;
        walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE).map_err(git(ACTION))?;
        walk.push(head.oid()).map_err(git(ACTION))?;
        if let Some(accepted) = accepted {
            walk.hide(accepted.oid()).map_err(git(ACTION))?;
        }
        let mut found = Vec::new();
        let mut changes = 0;
        for oid in walk {
            let oid = oid.map_err(git(ACTION))?;
            let commit = repo.find_commit(oid).map_err(git("read a commit"))?;
            let deltas = deltas(&repo, &commit)?;
            changes += deltas.len();
            if found.len() == MOST_COMMITS || changes > MOST_CHANGES {
                return Ok(None);
            }
            found.push(Unaccepted { info: CommitInfo::of(&commit), proof: proof(&repo, oid, pgp)?, deltas });
        }
        Ok(Some(found))
    }

    /// Returns what the signature of a commit proves.
    pub fn proof(&self, commit: &CommitId, pgp: &PgpKeys) -> Result<Proof, RepoError> {
        proof(&self.handle()?, commit.oid(), pgp)
    }

    /// Returns the paths at which two commits differ.
    pub fn differing(&self, one: &CommitId, two: &CommitId) -> Result<BTreeSet<String>, RepoError> {
        let repo = self.handle()?;
        let trees = [Some(tree_of(&repo, two.oid())?), Some(tree_of(&repo, one.oid())?)];
        let mut walk = Walk { repo: &repo, parents: 1, found: BTreeMap::new() };
        walk.folder("", &trees, 0)?;
        Ok(walk.found.into_keys().collect())
    }

    /// Returns the text of each domain's `domain.yaml` at a commit, by domain.
    pub fn domain_files(&self, commit: &CommitId) -> Result<BTreeMap<String, String>, RepoError> {
        let repo = self.handle()?;
        let root = tree_of(&repo, commit.oid())?;
        let mut texts = BTreeMap::new();
        let inner = |tree: &Tree<'_>, name: &str| {
            tree.get_name(name).filter(|it| it.kind() == Some(ObjectType::Tree)).map(|it| it.id())
        };
        let Some(domains) = inner(&root, "domains").and_then(|oid| repo.find_tree(oid).ok()) else {
            return Ok(texts);
        };
        for entry in &domains {
            let Ok(name) = entry.name() else { continue };
            let Some(folder) = inner(&domains, name).and_then(|oid| repo.find_tree(oid).ok()) else {
                continue;
            };
            let file = folder.get_name("domain.yaml").filter(|it| it.filemode_raw() & 0o170_000 == 0o100_000);
            let blob = file.and_then(|it| repo.find_blob(it.id()).ok());
            let text = blob.filter(|it| it.size() <= MOST_TEXT_BYTES);
            let text = text.and_then(|it| String::from_utf8(it.content().to_vec()).ok());
            texts.extend(text.map(|text| (name.to_owned(), text)));
        }
        Ok(texts)
    }
}

fn proof(repo: &git2::Repository, commit: Oid, pgp: &PgpKeys) -> Result<Proof, RepoError> {
    match repo.extract_signature(&commit, None) {
        Ok((made, payload)) => Ok(signature::proof(&made, &payload, pgp)),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(Proof::Unsigned),
        Err(source) => Err(RepoError::Git { action: "read a commit's signature", source }),
    }
}

fn tree_of(repo: &git2::Repository, commit: Oid) -> Result<Tree<'_>, RepoError> {
    let commit = repo.find_commit(commit).map_err(git("read a commit"))?;
    repo.find_tree(commit.tree_id()).map_err(git("read the root folder of a commit"))
}

/// Returns what a commit changes against its parents.
fn deltas(repo: &git2::Repository, commit: &git2::Commit<'_>) -> Result<BTreeMap<String, Delta>, RepoError> {
    let parents: Vec<Oid> = commit.parent_ids().collect();
    let mut trees = vec![Some(tree_of(repo, commit.id())?)];
    for parent in &parents {
        trees.push(Some(tree_of(repo, *parent)?));
    }
    if let [one, two] = parents.as_slice() {
        match repo.merge_bases(*one, *two) {
            Ok(bases) => {
                for base in bases.iter() {
                    trees.push(Some(tree_of(repo, *base)?));
                }
            }
            // Histories that have nothing in common left each other at nothing.
            Err(error) if error.code() == ErrorCode::NotFound => trees.push(None),
            Err(source) => {
                return Err(RepoError::Git { action: "find the common ancestor of two commits", source });
            }
        }
    }
    let mut walk = Walk { repo, parents: parents.len(), found: BTreeMap::new() };
    walk.folder("", &trees, 0)?;
    Ok(walk.found)
}

/// Walks several trees at once: the commit's, those of its parents, then those of common ancestors.
struct Walk<'r> {
    repo: &'r git2::Repository,
    parents: usize,
    found: BTreeMap<String, Delta>,
}

/// What a tree has under a name.
#[derive(Clone, PartialEq, Eq)]
enum Entry {
    Folder(Oid),
    /// Mode and object, so that a file that becomes a link is another one.
    Other(String),
}

impl Walk<'_> {
    /// Compares a folder; `trees` are those that have it.
    ///
    /// Only what differs is entered. Names are compared as they are, also those that no snapshot accepts.
    fn folder(&mut self, path: &str, trees: &[Option<Tree<'_>>], depth: usize) -> Result<(), RepoError> {
        let listed: Vec<BTreeMap<Vec<u8>, Entry>> =
            trees.iter().map(|tree| tree.as_ref().map(entries).unwrap_or_default()).collect();
        let names: BTreeSet<&Vec<u8>> =
            listed.iter().take(1 + self.parents).flat_map(BTreeMap::keys).collect();
        for name in names {
            let there: Vec<Option<&Entry>> = listed.iter().map(|entries| entries.get(name)).collect();
            if !self.differs(&there) {
                continue;
            }
            let path = join(path, &String::from_utf8_lossy(name));
            let content = |entry: Option<&Entry>| match entry {
                Some(Entry::Other(content)) => Some(content.clone()),
                // Deeper than any snapshot looks: as a whole.
                Some(Entry::Folder(oid)) if depth + 1 > MAX_DEPTH => Some(format!("040000 {oid}")),
                _ => None,
            };
            let contents: Vec<Content> = there.iter().copied().map(content).collect();
            self.tell(&path, &contents);
            let is_folder = |entry: Option<&Entry>| matches!(entry, Some(Entry::Folder(_)));
            if depth < MAX_DEPTH && there.iter().copied().take(1 + self.parents).any(is_folder) {
                let mut inner = Vec::with_capacity(there.len());
                for entry in &there {
                    inner.push(match entry {
                        Some(Entry::Folder(oid)) => {
                            Some(self.repo.find_tree(*oid).map_err(git("read a folder of a commit"))?)
                        }
                        _ => None,
                    });
                }
                self.folder(&path, &inner, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Returns whether the commit and its parents are not all alike; a first commit differs from nothing.
    fn differs<T: PartialEq>(&self, there: &[Option<T>]) -> bool {
        let Some((now, others)) = there.split_first() else { return false };
        match others.get(..self.parents) {
            Some([]) | None => now.is_some(),
            Some(parents) => parents.iter().any(|parent| parent != now),
        }
    }

    fn tell(&mut self, path: &str, contents: &[Content]) {
        if !self.differs(contents) {
            return;
        }
        if let Some((now, others)) = contents.split_first() {
            let (parents, bases) = others.split_at(self.parents.min(others.len()));
            let delta = Delta { now: now.clone(), parents: parents.to_vec(), bases: bases.to_vec() };
            self.found.insert(path.to_owned(), delta);
        }
    }
}

/// Returns what a tree has by name. What has a name twice is one thing of its own kind: nobody says which of the two counts.
fn entries(tree: &Tree<'_>) -> BTreeMap<Vec<u8>, Entry> {
    let mut entries: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
    for entry in tree {
        let mode = entry.filemode_raw();
        let spelt = format!("{mode:06o} {}", entry.id());
        let found = if mode & 0o170_000 == 0o040_000 {
            Entry::Folder(entry.id())
        } else {
            Entry::Other(spelt.clone())
        };
        let name = entry.name_bytes().to_vec();
        let both = entries.get(&name).map(|before| match before {
            Entry::Folder(oid) => format!("040000 {oid} {spelt}"),
            Entry::Other(before) => format!("{before} {spelt}"),
        });
        entries.insert(name, both.map_or(found, Entry::Other));
    }
    entries
}
