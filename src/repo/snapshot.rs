//! A repository at one commit (or a folder now): names, object ids and sizes first, bytes when asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use git2::{ObjectType, Oid};

use super::names::{LFS_POINTER_BYTES, folded, is_lfs_pointer, objection};
use super::{CommitInfo, MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, RepoError, git};

/// One accepted file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The git blob id, which is a hash of the content: equal for a commit and a folder with the same bytes.
    pub oid: String,
    /// Bytes.
    pub size: u64,
    pub executable: bool,
}

/// A name that the snapshot leaves out. When `path` is a folder, everything under it is left out.
///
/// A rejected path is *unknown*, not absent: whoever derives products from a snapshot must ask
/// [`RepoSnapshot::rejected_touching`] before reading a missing file as a deletion.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejected {
    pub path: String,
    pub reason: Reason,
}

/// Why a name was left out. Display is a lower-case fragment that fits behind a path and a colon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Reason {
    #[error("a symbolic link; links can point outside the repository and are never followed")]
    Symlink,
    #[error("a submodule or a nested repository; its content is not part of this commit")]
    Submodule,
    #[error("the name is not UTF-8")]
    NonUtf8,
    #[error("{0}")]
    BadName(&'static str),
    #[error("{size} bytes, over the limit of {limit}")]
    TooLarge { size: u64, limit: u64 },
    #[error(
        "the name differs only by case, or by how its accents are written, from '{kept}', which was kept"
    )]
    CaseClash { kept: String },
    #[error("a Git LFS pointer; the file itself is not in the repository")]
    LfsPointer,
    #[error("deeper than {limit} folders")]
    TooDeep { limit: usize },
    #[error("cannot be read: {why}")]
    Unreadable { why: String },
    #[error("neither a file nor a folder")]
    Special,
}

/// A tree's content at one moment. Reading it never writes, and never leaves the object store (or the folder).
#[derive(Debug)]
#[must_use]
pub struct RepoSnapshot {
    /// Absent for a plain folder.
    pub commit: Option<CommitInfo>,
    /// By path from the root, components joined by `/`.
    pub files: BTreeMap<String, FileEntry>,
    /// In path order.
    pub rejected: Vec<Rejected>,
    pub(super) source: Source,
    /// What [`RepoSnapshot::subfolder`] cut off, ending in `/` unless empty.
    pub(super) root: String,
}

pub(super) enum Source {
    /// Its own handle, so that a fetch in progress never holds up a reader. The mutex is because libgit2 handles
    /// may move between threads but not be shared.
    Objects(Mutex<git2::Repository>),
    Folder(PathBuf),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Objects(_) => f.write_str("Objects"),
            Self::Folder(path) => f.debug_tuple("Folder").field(path).finish(),
        }
    }
}

impl RepoSnapshot {
    /// Lists the tree of `commit`. Only a missing commit or root tree and too many files fail the whole.
    pub(super) fn of_commit(repo: git2::Repository, commit: Oid) -> Result<Self, RepoError> {
        let (info, files, rejected) = {
            let commit = repo.find_commit(commit).map_err(git("read a commit"))?;
            let odb = repo.odb().map_err(git("open the object store"))?;
            let mut walk = Walk { repo: &repo, odb, listing: Listing::default() };
            let tree = repo.find_tree(commit.tree_id()).map_err(git("read the root folder of a commit"))?;
            walk.tree(&tree, "", 0)?;
            let (files, rejected) = walk.listing.finish();
            (CommitInfo::of(&commit), files, rejected)
        };
        Ok(Self {
            commit: Some(info),
            files,
            rejected,
            source: Source::Objects(Mutex::new(repo)),
            root: String::new(),
        })
    }

    /// Returns the bytes of a file of this snapshot.
    ///
    /// # Errors
    /// [`RepoError::NoSuchFile`] for any path not in `files`, so a rejected or invented path reaches no disk;
    /// [`RepoError::Changed`] when a folder's file is no longer the one that was listed.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, RepoError> {
        let entry = self.files.get(path).ok_or_else(|| RepoError::NoSuchFile(path.to_owned()))?;
        match &self.source {
            Source::Objects(repo) => {
                let repo = repo.lock().unwrap_or_else(PoisonError::into_inner);
                let oid = Oid::from_str(&entry.oid).map_err(git("read an object id"))?;
                let blob = repo.find_blob(oid).map_err(git("read a file from the repository"))?;
                Ok(blob.content().to_vec())
            }
            Source::Folder(folder) => {
                let full = format!("{}{path}", self.root);
                super::folder::read_listed(folder, &full, entry)
            }
        }
    }

    /// Returns whether something of this commit cannot be read out of the object store: a folder, the length of a file, or a
    /// file of at most `most` bytes. Reads all of these.
    #[must_use]
    pub fn is_torn(&self, most: u64) -> bool {
        let lost = |rejected: &Rejected| matches!(rejected.reason, Reason::Unreadable { .. });
        self.rejected.iter().any(lost)
            || self.files.iter().any(|(path, entry)| entry.size <= most && self.read(path).is_err())
    }

    /// Returns the git tree id that the accepted files under `prefix` have ("" is the root), or `None` if there are
    /// none. Equal ids mean equal names, bytes and modes, for a commit and a folder alike, so this is the cheap
    /// "did anything under here change". Rejected entries do not take part; where nothing was rejected, it is what
    /// `git rev-parse COMMIT:PREFIX` prints.
    #[must_use]
    pub fn tree_oid(&self, prefix: &str) -> Option<String> {
        let prefix = prefix.trim_matches('/');
        let start = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let under: Vec<(&str, &FileEntry)> = self
            .files
            .range(start.clone()..)
            .take_while(|(path, _)| path.starts_with(&start))
            .map(|(path, entry)| (&path[start.len()..], entry))
            .collect();
        if under.is_empty() { None } else { tree_hash(&under).map(|oid| oid.to_string()) }
    }

    /// Returns what was rejected at, under or above `prefix`: if this is not empty, the content there is not fully
    /// known and a missing file must not be taken for a deleted one.
    #[must_use]
    pub fn rejected_touching(&self, prefix: &str) -> Vec<&Rejected> {
        let prefix = prefix.trim_matches('/');
        let contains = |outer: &str, inner: &str| {
            outer.is_empty()
                || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.rejected.iter().filter(|r| contains(prefix, &r.path) || contains(&r.path, prefix)).collect()
    }

    /// Puts what a path held elsewhere (mode and object id) in the place of what it holds here; without, takes it away.
    ///
    /// What is not a usable file is taken away too: nothing stands for it.
    pub fn restore(&mut self, path: &str, content: Option<&str>) {
        self.files.remove(path);
        self.rejected.retain(|rejected| rejected.path != path);
        let Source::Objects(repo) = &self.source else { return };
        let repo = repo.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = content.and_then(|content| content.split_once(' ')).and_then(|(mode, oid)| {
            let (mode, oid) = (u32::from_str_radix(mode, 8).ok()?, Oid::from_str(oid).ok()?);
            let (size, kind) = repo.odb().and_then(|odb| odb.read_header(oid)).ok()?;
            let size = size as u64;
            let usable = mode & 0o170_000 == 0o100_000 && kind == ObjectType::Blob && size <= MAX_FILE_BYTES;
            let named = path.split('/').all(|name| objection(name).is_none());
            let executable = mode & 0o111 != 0;
            (usable && named).then(|| FileEntry { oid: oid.to_string(), size, executable })
        });
        self.files.extend(entry.map(|entry| (path.to_owned(), entry)));
    }

    /// Returns the snapshot of a folder in this one, with paths counted from there: a mesh need not be at the root
    /// of its repository.
    pub fn subfolder(self, folder: &str) -> Result<Self, RepoError> {
        let folder = folder.trim_matches('/');
        if folder.is_empty() {
            return Ok(self);
        }
        let start = format!("{folder}/");
        let cut = |path: &str| path.strip_prefix(&start).map(str::to_owned);
        let files: BTreeMap<_, _> =
            self.files.iter().filter_map(|(p, e)| Some((cut(p)?, e.clone()))).collect();
        let rejected: Vec<_> = self
            .rejected
            .iter()
            .filter_map(|r| Some(Rejected { path: cut(&r.path)?, reason: r.reason.clone() }))
            .collect();
        if files.is_empty() && rejected.is_empty() {
            return Err(RepoError::NoSuchFolder(folder.to_owned()));
        }
        let root = format!("{}{start}", self.root);
        Ok(Self { commit: self.commit, files, rejected, source: self.source, root })
    }
}

/// Hashes files in path order as git would hash their tree. `None` only if an id is not hexadecimal.
fn tree_hash(files: &[(&str, &FileEntry)]) -> Option<Oid> {
    // Git sorts a folder as if its name ended in '/', so the sort key is not the name itself.
    let mut entries: BTreeMap<String, (&str, &str, Oid)> = BTreeMap::new();
    let mut rest = files;
    while let Some(((path, entry), after)) = rest.split_first() {
        match path.split_once('/') {
            None => {
                let mode = if entry.executable { "100755" } else { "100644" };
                entries.insert((*path).to_owned(), (mode, path, Oid::from_str(&entry.oid).ok()?));
                rest = after;
            }
            Some((folder, _)) => {
                let inside = |p: &str| p.strip_prefix(folder).is_some_and(|r| r.starts_with('/'));
                let count = rest.iter().take_while(|(p, _)| inside(p)).count();
                let (group, after) = rest.split_at(count);
                let group: Vec<_> = group.iter().map(|(p, e)| (&p[folder.len() + 1..], *e)).collect();
                entries.insert(format!("{folder}/"), ("40000", folder, tree_hash(&group)?));
                rest = after;
            }
        }
    }
    let mut bytes = Vec::new();
    for (mode, name, oid) in entries.values() {
        bytes.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        bytes.extend_from_slice(oid.as_bytes());
    }
    Oid::hash_object(ObjectType::Tree, &bytes).ok()
}

/// What a walk found so far, for trees and folders alike.
#[derive(Default)]
pub(super) struct Listing {
    files: BTreeMap<String, FileEntry>,
    rejected: Vec<Rejected>,
    folders: usize,
}

impl Listing {
    /// Counts a folder. A commit may hold one folder under many names, and that one another: forty small objects are more
    /// folders than anybody can walk through, and need not hold a single file.
    pub(super) fn enter(&mut self) -> Result<(), RepoError> {
        self.folders += 1;
        if self.folders > MAX_FILES { Err(RepoError::TooManyFiles { limit: MAX_FILES }) } else { Ok(()) }
    }

    pub(super) fn accept(&mut self, path: String, entry: FileEntry) -> Result<(), RepoError> {
        if self.files.len() >= MAX_FILES {
            return Err(RepoError::TooManyFiles { limit: MAX_FILES });
        }
        self.files.insert(path, entry);
        Ok(())
    }

    pub(super) fn reject(&mut self, path: String, reason: Reason) -> Result<(), RepoError> {
        if self.rejected.len() >= MAX_FILES {
            return Err(RepoError::TooManyFiles { limit: MAX_FILES });
        }
        self.rejected.push(Rejected { path, reason });
        Ok(())
    }

    /// Returns the names of one folder that may be walked further, after rejecting bad ones and all but one of each
    /// group of twins.
    ///
    /// Kept is the twin last in byte order, which is the one in lower case with its accents composed: conventional names
    /// are written so, so a team that adds `Domains/` cannot push `domains/` out.
    pub(super) fn names(&mut self, folder: &str, names: Vec<Vec<u8>>) -> Result<BTreeSet<String>, RepoError> {
        let mut kept: BTreeMap<String, String> = BTreeMap::new();
        let mut clashes: Vec<(String, String)> = Vec::new();
        for bytes in names {
            let Ok(name) = String::from_utf8(bytes) else { continue };
            if let Some(why) = objection(&name) {
                self.reject(join(folder, &name), Reason::BadName(why))?;
                continue;
            }
            let fold = folded(&name);
            if let Some(other) = kept.get(&fold) {
                if *other == name {
                    continue;
                }
                let (stay, go) = if *other < name { (name, other.clone()) } else { (other.clone(), name) };
                kept.insert(fold.clone(), stay);
                clashes.push((fold, go));
            } else {
                kept.insert(fold, name);
            }
        }
        for (fold, go) in clashes {
            let kept = join(folder, &kept[&fold]);
            self.reject(join(folder, &go), Reason::CaseClash { kept })?;
        }
        Ok(kept.into_values().collect())
    }

    pub(super) fn finish(mut self) -> (BTreeMap<String, FileEntry>, Vec<Rejected>) {
        self.rejected.sort();
        (self.files, self.rejected)
    }
}

pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn damaged(oid: Oid) -> Reason {
    Reason::Unreadable { why: format!("object {oid} is missing from the repository or damaged") }
}

struct Walk<'r> {
    repo: &'r git2::Repository,
    odb: git2::Odb<'r>,
    listing: Listing,
}

impl Walk<'_> {
    fn tree(&mut self, tree: &git2::Tree<'_>, folder: &str, depth: usize) -> Result<(), RepoError> {
        self.listing.enter()?;
        let mut names = Vec::with_capacity(tree.len());
        for entry in tree {
            let bytes = entry.name_bytes();
            if std::str::from_utf8(bytes).is_err() {
                let shown = join(folder, &String::from_utf8_lossy(bytes));
                self.listing.reject(shown, Reason::NonUtf8)?;
            }
            names.push(bytes.to_vec());
        }
        let walkable = self.listing.names(folder, names)?;
        let mut seen = BTreeSet::new();
        for entry in tree {
            let Ok(name) = entry.name() else { continue };
            if !walkable.contains(name) {
                continue;
            }
            let path = join(folder, name);
            // A hand-made tree can hold the same name twice; git itself would read either.
            if !seen.insert(name.to_owned()) {
                self.listing.reject(path, Reason::BadName("a name that occurs twice in its folder"))?;
                continue;
            }
            match entry.filemode_raw() & 0o170_000 {
                0o100_000 => self.file(path, &entry)?,
                0o040_000 if depth + 1 > MAX_DEPTH => {
                    self.listing.reject(path, Reason::TooDeep { limit: MAX_DEPTH })?;
                }
                0o040_000 => match self.repo.find_tree(entry.id()) {
                    Ok(inner) => self.tree(&inner, &path, depth + 1)?,
                    Err(_) => self.listing.reject(path, damaged(entry.id()))?,
                },
                0o120_000 => self.listing.reject(path, Reason::Symlink)?,
                0o160_000 => self.listing.reject(path, Reason::Submodule)?,
                _ => self.listing.reject(path, Reason::Special)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, path: String, entry: &git2::TreeEntry<'_>) -> Result<(), RepoError> {
        let oid = entry.id();
        let size = match self.odb.read_header(oid) {
            Ok((size, ObjectType::Blob)) => size as u64,
            Ok(_) | Err(_) => return self.listing.reject(path, damaged(oid)),
        };
        if size > MAX_FILE_BYTES {
            return self.listing.reject(path, Reason::TooLarge { size, limit: MAX_FILE_BYTES });
        }
        if LFS_POINTER_BYTES.contains(&size) {
            match self.odb.read(oid) {
                Ok(object) if is_lfs_pointer(object.data()) => {
                    return self.listing.reject(path, Reason::LfsPointer);
                }
                Ok(_) => {}
                Err(_) => return self.listing.reject(path, damaged(oid)),
            }
        }
        let executable = entry.filemode_raw() & 0o111 != 0;
        self.listing.accept(path, FileEntry { oid: oid.to_string(), size, executable })
    }
}
