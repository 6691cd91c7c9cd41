//! Tables that leave their place, into the archive or for ever.
//!
//! A table leaves by one rename of its folder, so no reader and no look at it ever finds half of one; what is to be deleted is
//! deleted where nobody looks for tables. Doing it again after a crash goes on where it stopped.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Lake, LakeError, Version, fs};

/// Folder of what is about to be deleted. No domain's name begins with a dot.
const DROPPED: &str = ".dropped";
/// Folder of archived tables.
const ARCHIVE: &str = ".archive";
/// What an archive says of itself.
const MANIFEST: &str = "archive.json";

/// How tables leave.
#[derive(Debug, Clone)]
pub enum Leave {
    /// They are deleted.
    Dropped,
    /// They are moved into the archive, beside this description of them.
    Archived(Value),
}

/// What left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// How many tables, those beside a port's own among them.
    pub tables: u64,
    /// Where they lie now, relative to the lake; nothing when they were deleted or there were none.
    pub archive: Option<String>,
}

impl Lake {
    /// Takes tables of one product out of their places: those of its ports, by address with the newest version known of each, and
    /// those beside them (`<port>__...`). A table that began after that version is another one, and stays with what is beside it.
    /// `mark` names this leaving for ever; the same again goes on where the last try stopped.
    ///
    /// # Errors
    /// When a folder cannot be moved or deleted, or is a link: nothing outside the lake is touched. What has left by then stays away.
    pub async fn leave(
        &self,
        tables: BTreeMap<String, Version>,
        how: Leave,
        mark: &str,
    ) -> Result<Left, LakeError> {
        let (root, mark) = (self.root.clone(), mark.to_owned());
        fs::blocking(move || leave(&root, &tables, &how, &mark)).await
    }
}

impl Lake {
    /// Returns the addresses of the tables beside a port's own (`<port>__...`), such as what was set aside.
    ///
    /// # Errors
    /// When the folder cannot be looked at.
    pub async fn beside(&self, address: &str) -> Result<Vec<String>, LakeError> {
        let bad =
            || LakeError::BadAddress { address: address.to_owned(), why: "expected domain/product.port" };
        let (domain, port) = address.split_once('/').ok_or_else(bad)?;
        let (root, domain, port) = (self.root.clone(), domain.to_owned(), port.to_owned());
        fs::blocking(move || {
            let found = beside(&root, &domain, &port)?.into_iter().filter(|name| *name != port);
            Ok(found.map(|name| format!("{domain}/{name}")).collect())
        })
        .await
    }
}

fn leave(
    root: &Path,
    tables: &BTreeMap<String, Version>,
    how: &Leave,
    mark: &str,
) -> Result<Left, LakeError> {
    // Folder, folder of the port that it belongs to, version.
    let mut folders: Vec<(PathBuf, PathBuf, Version)> = Vec::new();
    let mut product = PathBuf::new();
    for (address, known) in tables {
        let bad = |why| LakeError::BadAddress { address: address.clone(), why };
        let (domain, port) = address.split_once('/').ok_or_else(|| bad("expected domain/product.port"))?;
        let (name, _) = port.split_once('.').ok_or_else(|| bad("expected domain/product.port"))?;
        product = Path::new(domain).join(name);
        for folder in beside(root, domain, port)? {
            folders.push((root.join(domain).join(folder), root.join(domain).join(port), *known));
        }
    }
    let place = match how {
        Leave::Dropped => Path::new(DROPPED).join(mark),
        Leave::Archived(_) => Path::new(ARCHIVE).join(&product).join(mark),
    };
    let target = root.join(&place);
    // Of an earlier try.
    let begun = real_folder(&target)?;
    if folders.is_empty() && !begun {
        check_mounted(root)?;
        return Ok(Left::default());
    }
    make_folders(root, &place)?;
    if let Leave::Archived(manifest) = how {
        let bytes = serde_json::to_vec_pretty(manifest)?;
        let path = target.join(MANIFEST);
        crate::disk::replace(&path, &bytes).map_err(|source| LakeError::io("write", &path, source))?;
    }
    for (folder, port, known) in folders {
        if !is_another(&port, known)? {
            move_away(&folder, &target, known)?;
        }
    }
    let left = count(&target)?;
    fs::sync_dir(&target)?;
    if matches!(how, Leave::Dropped) {
        delete(&target)?;
        // The last one takes the folder along.
        let _ = std::fs::remove_dir(root.join(DROPPED));
        return Ok(Left { tables: left, archive: None });
    }
    let archive = (left > 0).then(|| place.to_string_lossy().into_owned());
    Ok(Left { tables: left, archive })
}

/// Fails when there is nothing in the lake at all, not even an empty domain: tables that are out of sight have not left.
fn check_mounted(root: &Path) -> Result<(), LakeError> {
    let entries = std::fs::read_dir(root).map_err(|source| LakeError::io("list", root, source))?;
    let mut names = entries.flatten().map(|entry| entry.file_name());
    if names.any(|name| !name.to_string_lossy().starts_with('.')) {
        return Ok(());
    }
    let why = "nothing is there: taken for a disk that is not mounted";
    Err(LakeError::io("find tables in", root, std::io::Error::other(why)))
}

/// Returns the names of the folders of a port's tables, its own before those beside it.
fn beside(root: &Path, domain: &str, port: &str) -> Result<Vec<String>, LakeError> {
    let folder = root.join(domain);
    if !real_folder(&folder)? {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|source| LakeError::io("list", &folder, source))? {
        let entry = entry.map_err(|source| LakeError::io("list", &folder, source))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name == port || name.strip_prefix(port).is_some_and(|rest| rest.starts_with("__"));
        if ours && real_folder(&entry.path())? {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns whether there is a folder.
///
/// # Errors
/// When something else lies there, such as a link to elsewhere, or it cannot be looked at.
fn real_folder(path: &Path) -> Result<bool, LakeError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(_) => Err(LakeError::Io {
            doing: "move aside",
            path: path.to_path_buf(),
            source: std::io::Error::other("it is a link or a file, not a folder; move it away by hand"),
        }),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(LakeError::io("look at", path, source)),
    }
}

/// Makes folders below the lake, each a real one.
fn make_folders(root: &Path, place: &Path) -> Result<(), LakeError> {
    let mut at = root.to_path_buf();
    for part in place.components() {
        let above = at.clone();
        at.push(part);
        if !real_folder(&at)? {
            match std::fs::create_dir(&at) {
                Err(source) if source.kind() != ErrorKind::AlreadyExists => {
                    return Err(LakeError::io("create", &at, source));
                }
                _ => fs::sync_dir(&above)?,
            }
        }
    }
    Ok(())
}

/// Moves a folder away; one that turns out to be another table's is put back.
fn move_away(folder: &Path, target: &Path, known: Version) -> Result<(), LakeError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Whoever was taken for dead may have made it once more after it had left.
    let mut away = target.join(&name);
    for time in 2.. {
        if !away.exists() {
            break;
        }
        away = target.join(format!("{name}.{time}"));
    }
    std::fs::rename(folder, &away).map_err(|source| LakeError::io("move aside", folder, source))?;
    if is_another(&away, known)? && !folder.exists() {
        std::fs::rename(&away, folder).map_err(|source| LakeError::io("put back", folder, source))?;
    }
    folder.parent().map_or(Ok(()), fs::sync_dir)?;
    fs::sync_dir(target)
}

/// Returns whether a table began after a version was known: a table that takes the place of one counts on from there.
fn is_another(folder: &Path, known: Version) -> Result<bool, LakeError> {
    if super::delta_log::Log::at(folder).base()? > known.0 {
        return Ok(true);
    }
    let iceberg = folder.join("metadata").join("v1.metadata.json");
    let text = match std::fs::read_to_string(&iceberg) {
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(false),
        read => read.map_err(|source| LakeError::io("read", &iceberg, source))?,
    };
    let first: Value = serde_json::from_str(&text)?;
    Ok(first.get("last-sequence-number").and_then(Value::as_i64).is_some_and(|first| first > known.0))
}

fn count(target: &Path) -> Result<u64, LakeError> {
    let entries = std::fs::read_dir(target).map_err(|source| LakeError::io("list", target, source))?;
    Ok(entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count() as u64)
}

/// Deletes a folder; links in it are deleted and not followed.
fn delete(folder: &Path) -> Result<(), LakeError> {
    match std::fs::remove_dir_all(folder) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(LakeError::io("delete", folder, source)),
        _ => folder.parent().map_or(Ok(()), fs::sync_dir),
    }
}
