//! The files of a model that a program fitted: what may be one, and where they lie.
//!
//! They lie in a folder beside the artefact whose name says what they hold, so that another attempt at the same version never changes
//! what an artefact speaks of. The folder gets its name when everything in it is on the disk, and the artefact is written after it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use hydromesh_core::model::TrainerCommand;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::TrainError;

/// Bytes of a model in all.
const MOST_BYTES: u64 = 256 << 20;
/// Files of a model.
const MOST_FILES: usize = 1_000;
/// Folders in folders.
const MOST_DEPTH: usize = 8;
/// Characters of a name.
const LONGEST_NAME: usize = 100;

/// A program with the model that it left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelProgram {
    /// What is begun to score with it.
    #[serde(flatten)]
    pub trainer: TrainerCommand,
    /// What that is shown of the product: blob ids, by path below the product's folder.
    pub shown: BTreeMap<String, String>,
    /// What was trained of what: another attempt at the same finds it here.
    pub key: String,
    /// The folder of its files, in the lake.
    pub folder: String,
    /// Its files, by path below that folder.
    pub files: BTreeMap<String, ModelFile>,
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Its length.
    pub bytes: u64,
    /// Of its content, in hex.
    pub sha256: String,
}

impl ModelProgram {
    /// Says what is wrong with it, as with that of a damaged artefact.
    pub(super) fn check(&self) -> Result<(), String> {
        let plain = |path: &str| path.split('/').all(is_plain);
        let paths = self.files.keys().chain([&self.folder]);
        match paths.into_iter().find(|path| !plain(path)) {
            Some(path) => Err(format!("{path:?} is no path of a model's file")),
            None if self.files.is_empty() => Err("it has no file".to_owned()),
            None => Ok(()),
        }
    }
}

/// Returns the files of a folder, by path below it, if they may be a model.
///
/// # Errors
/// [`TrainError::NoModel`] when there are none, or too many or too large ones, or something else among them.
pub fn collect_files(folder: &Path) -> Result<BTreeMap<String, ModelFile>, TrainError> {
    let failed = |why: String| TrainError::NoModel { why };
    let is_folder = fs::symlink_metadata(folder).is_ok_and(|about| about.is_dir());
    if !is_folder {
        return Err(failed("HYDROMESH_MODEL is no longer a folder".to_owned()));
    }
    let mut files = BTreeMap::new();
    let mut left = MOST_BYTES;
    let mut open = vec![(folder.to_owned(), String::new(), 0)];
    while let Some((folder, above, depth)) = open.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| failed(error.to_string()))? {
            let entry = entry.map_err(|error| failed(error.to_string()))?;
            let name = entry.file_name().into_string().ok().filter(|name| is_plain(name));
            let Some(name) = name else {
                // The name itself may say anything.
                return Err(failed(format!(
                    "a name below {above:?} has other characters than letters, digits, `.`, `_` and `-`, begins with a dot or is too long"
                )));
            };
            let path = if above.is_empty() { name } else { format!("{above}/{name}") };
            let about = fs::symlink_metadata(entry.path()).map_err(|error| failed(error.to_string()))?;
            if about.is_dir() {
                if depth == MOST_DEPTH {
                    return Err(failed(format!("{path} lies below more than {MOST_DEPTH} folders")));
                }
                open.push((entry.path(), path, depth + 1));
                continue;
            }
            if !about.is_file() {
                let what = if about.is_symlink() { "a symbolic link" } else { "neither a file nor a folder" };
                return Err(failed(format!("{path} is {what}")));
            }
            left = left
                .checked_sub(about.len())
                .ok_or_else(|| failed(format!("it is larger than {} MiB", MOST_BYTES >> 20)))?;
            let file = hash_file(&entry.path()).map_err(|error| failed(format!("{path}: {error}")))?;
            files.insert(path, file);
            if files.len() > MOST_FILES {
                return Err(failed(format!("it has more than {MOST_FILES} files")));
            }
        }
    }
    if files.is_empty() {
        return Err(failed("it wrote no file below HYDROMESH_MODEL".to_owned()));
    }
    Ok(files)
}

/// Keeps the files of a model beside its artefact, on the disk and whole; returns their folder in the lake.
///
/// # Errors
/// [`TrainError::Artefact`] when the disk does not take them.
pub fn keep_files(
    lake: &Path,
    artefact: &str,
    from: &Path,
    files: &BTreeMap<String, ModelFile>,
) -> Result<String, TrainError> {
    let folder = format!("{}{}", beside(artefact), content_name(files));
    let failed = |source| TrainError::Artefact { path: folder.clone(), what: "written", source };
    let place = lake.join(&folder);
    // An earlier attempt that came to the same. One that was damaged since is replaced.
    if collect_files(&place).is_ok_and(|there| there == *files) {
        return Ok(folder);
    }
    let above = place.parent().unwrap_or(Path::new("."));
    crate::disk::create_folders(above).map_err(failed)?;
    let temporary = above.join(format!(".{}.tmp", uuid::Uuid::new_v4()));
    let kept = fs::create_dir(&temporary).and_then(|()| copy_all(from, &temporary, files)).and_then(|()| {
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        fs::rename(&temporary, &place)?;
        File::open(above)?.sync_all()
    });
    if let Err(error) = kept {
        // A left-over of a full disk would only make it fuller.
        let _ = fs::remove_dir_all(&temporary);
        return Err(failed(error));
    }
    Ok(folder)
}

/// Copies the files of a model from the lake to an empty folder.
///
/// # Errors
/// [`TrainError::Artefact`] when one is not there, or not as it was kept.
pub fn copy_files(lake: &Path, program: &ModelProgram, to: &Path) -> Result<(), TrainError> {
    copy_all(&lake.join(&program.folder), to, &program.files).map_err(|source| TrainError::Artefact {
        path: program.folder.clone(),
        what: "read",
        source,
    })
}

/// Removes what earlier attempts left beside an artefact. Nothing speaks of it: the artefact of a version is there once.
pub fn tidy_files(lake: &Path, artefact: &str, folder: &str) {
    let place = lake.join(artefact);
    let (Some(above), Some(ours)) = (place.parent(), Path::new(folder).file_name()) else { return };
    let beside = beside(artefact);
    let begins = Path::new(&beside).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Ok(entries) = fs::read_dir(above) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name != *ours && name.to_string_lossy().starts_with(&begins) {
            // It is in nobody's way.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Returns how the folders of an artefact's files begin.
fn beside(artefact: &str) -> String {
    format!("{}-", artefact.strip_suffix(".json").unwrap_or(artefact))
}

/// Returns a name for the content of files.
fn content_name(files: &BTreeMap<String, ModelFile>) -> String {
    let mut hasher = Sha256::new();
    for (path, file) in files {
        hasher.update(format!("{path}\0{}\0", file.sha256));
    }
    hex::encode(hasher.finalize())[..16].to_owned()
}

/// Copies files that must be what they are said to be, and flushes them.
fn copy_all(from: &Path, to: &Path, files: &BTreeMap<String, ModelFile>) -> io::Result<()> {
    for (path, wanted) in files {
        let target = to.join(path);
        if let Some(folder) = target.parent() {
            crate::disk::create_folders(folder)?;
        }
        let of = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        let mut file = File::create(&target)?;
        let found = pour(&from.join(path), &mut file).map_err(of)?;
        if found != *wanted {
            let why = format!("{path} is not as it was written");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        file.sync_all()?;
    }
    let folders: std::collections::BTreeSet<PathBuf> =
        files.keys().filter_map(|path| to.join(path).parent().map(Path::to_path_buf)).collect();
    folders.into_iter().try_for_each(|folder| File::open(folder)?.sync_all())
}

fn hash_file(path: &Path) -> io::Result<ModelFile> {
    pour(path, &mut io::sink())
}

/// Copies a file, and returns what it is.
fn pour(from: &Path, to: &mut impl io::Write) -> io::Result<ModelFile> {
    let (mut from, mut hasher, mut bytes) = (File::open(from)?, Sha256::new(), 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(ModelFile { bytes, sha256: hex::encode(hasher.finalize()) });
        }
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
}

/// Returns whether a name is fit for a file of a model.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && !name.starts_with('.') && name.len() <= LONGEST_NAME && name.chars().all(plain)
}

#[cfg(test)]
mod tests;
