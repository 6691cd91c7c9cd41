//! A plain folder as the source of a mesh, for `check` and `plan` before anything is committed.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use hydromesh_core::spread::Spread as _;
use sha1::{Digest as _, Sha1};

use super::names::{LFS_POINTER_BYTES, is_lfs_pointer};
use super::snapshot::{Listing, Source, join};
use super::{FileEntry, MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, Reason, RepoError, RepoSnapshot, io};
use crate::cores::AllCores;

/// A folder on this machine. Its own `.git` is ignored; ignore files are not read, so what `check` sees here is what
/// is there. The rules are those of a commit: no links followed, the same names refused.
#[derive(Debug, Clone)]
pub struct FolderSource {
    root: PathBuf,
}

impl FolderSource {
    /// Opens a folder. `path` itself may be a link: the person at the keyboard chose it.
    pub fn open(path: &Path) -> Result<Self, RepoError> {
        let root = fs::canonicalize(path).map_err(io("open the folder", path))?;
        if root.is_dir() {
            Ok(Self { root })
        } else {
            let source = std::io::Error::from(std::io::ErrorKind::NotADirectory);
            Err(RepoError::Io { action: "open the folder", path: path.to_owned(), source })
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Lists the folder and hashes every file, so that a later [`RepoSnapshot::read`] notices an edit in between.
    pub fn snapshot(&self) -> Result<RepoSnapshot, RepoError> {
        let mut listing = Listing::default();
        let mut seen = Vec::new();
        walk(&self.root, "", 0, &mut listing, &mut seen)?;
        for (file, looked) in seen.iter().zip(AllCores.map(&seen, look_at)) {
            match looked? {
                Ok(entry) => listing.accept(file.path.clone(), entry)?,
                Err(reason) => listing.reject(file.path.clone(), reason)?,
            }
        }
        let (files, rejected) = listing.finish();
        Ok(RepoSnapshot {
            commit: None,
            files,
            rejected,
            source: Source::Folder(self.root.clone()),
            root: String::new(),
        })
    }
}

/// A plain file that a walk came by.
struct Seen {
    path: String,
    on_disk: PathBuf,
    about: fs::Metadata,
}

fn walk(
    dir: &Path,
    folder: &str,
    depth: usize,
    listing: &mut Listing,
    seen: &mut Vec<Seen>,
) -> Result<(), RepoError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if depth > 0 => return listing.reject(folder.to_owned(), unreadable(&error)),
        Err(error) => return Err(io("list", dir)(error)),
    };
    listing.enter()?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(io("list", dir))?.file_name();
        if depth == 0 && name == ".git" {
            continue;
        }
        if let Some(text) = name.to_str() {
            names.push(text.as_bytes().to_vec());
        } else {
            listing.reject(join(folder, &name.to_string_lossy()), Reason::NonUtf8)?;
        }
    }
    for name in listing.names(folder, names)? {
        let path = join(folder, &name);
        let on_disk = dir.join(&name);
        let kind = fs::symlink_metadata(&on_disk).map_err(io("look at", &on_disk))?;
        if kind.is_symlink() {
            listing.reject(path, Reason::Symlink)?;
        } else if kind.is_dir() {
            if depth + 1 > MAX_DEPTH {
                listing.reject(path, Reason::TooDeep { limit: MAX_DEPTH })?;
            } else if on_disk.join(".git").symlink_metadata().is_ok() {
                listing.reject(path, Reason::Submodule)?;
            } else {
                walk(&on_disk, &path, depth + 1, listing, seen)?;
            }
        } else if kind.is_file() {
            // The listing bounds what is accepted and what is rejected, each at this number; this bounds the walk.
            if seen.len() >= 2 * MAX_FILES {
                return Err(RepoError::TooManyFiles { limit: MAX_FILES });
            }
            seen.push(Seen { path, on_disk, about: kind });
        } else {
            listing.reject(path, Reason::Special)?;
        }
    }
    Ok(())
}

/// Reads and hashes a file, or says why it is left out.
fn look_at(seen: &Seen) -> Result<Result<FileEntry, Reason>, RepoError> {
    let size = seen.about.len();
    if size > MAX_FILE_BYTES {
        return Ok(Err(Reason::TooLarge { size, limit: MAX_FILE_BYTES }));
    }
    let bytes = match read_plain(&seen.on_disk) {
        Ok(bytes) => bytes,
        Err(RepoError::Io { source, .. }) => return Ok(Err(unreadable(&source))),
        Err(other) => return Err(other),
    };
    if LFS_POINTER_BYTES.contains(&size) && is_lfs_pointer(&bytes) {
        return Ok(Err(Reason::LfsPointer));
    }
    let executable = is_executable(&seen.about);
    Ok(Ok(FileEntry { oid: blob_id(&bytes), size: bytes.len() as u64, executable }))
}

/// Returns the id that git gives these bytes. libgit2 would open a TLS library, with all certificates, before its first hash.
fn blob_id(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hex::encode(hasher.finalize())
}

fn unreadable(error: &std::io::Error) -> Reason {
    Reason::Unreadable { why: error.to_string() }
}

/// Reads a file that the listing accepted, and checks that it is still that file.
pub(super) fn read_listed(root: &Path, path: &str, entry: &FileEntry) -> Result<Vec<u8>, RepoError> {
    let bytes = read_plain(&root.join(path))?;
    if blob_id(&bytes) == entry.oid { Ok(bytes) } else { Err(RepoError::Changed { path: path.to_owned() }) }
}

/// Reads at most one byte more than the cap, and only if what was opened is the plain file that the name still
/// means: a link put there between looking and opening is not read.
fn read_plain(on_disk: &Path) -> Result<Vec<u8>, RepoError> {
    let named = fs::symlink_metadata(on_disk).map_err(io("look at", on_disk))?;
    let refused = || RepoError::Changed { path: on_disk.display().to_string() };
    if !named.is_file() {
        return Err(refused());
    }
    let file = File::open(on_disk).map_err(io("open", on_disk))?;
    let opened = file.metadata().map_err(io("look at", on_disk))?;
    if !opened.is_file() || !same_file(&named, &opened) {
        return Err(refused());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(opened.len().min(MAX_FILE_BYTES)).unwrap_or_default());
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io("read", on_disk))?;
    if bytes.len() as u64 > MAX_FILE_BYTES { Err(refused()) } else { Ok(bytes) }
}

#[cfg(unix)]
fn same_file(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn same_file(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    true
}

#[cfg(unix)]
fn is_executable(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    // Git looks at the owner's bit alone.
    metadata.permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &fs::Metadata) -> bool {
    false
}
