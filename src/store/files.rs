//! A backup's file: unfinished beside its name, then there whole.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::error::io;

/// Returns the unfinished file's name, and removes what an earlier backup left under it.
pub(super) fn begin(target: &Path) -> Result<PathBuf, StoreError> {
    let part = beside(target, "part");
    match fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(io("remove the unfinished backup", &part)(error))
        }
        _ => Ok(part),
    }
}

/// Gives the file its name once it is on the disk.
pub(super) fn publish(part: &Path, target: &Path) -> Result<(), StoreError> {
    let file = File::options().write(true).open(part).map_err(io("open the backup", part))?;
    file.sync_all().map_err(io("write the backup to disk", part))?;
    fs::rename(part, target).map_err(io("name the backup", target))?;
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(io("write the folder to disk", folder))
}

/// Returns the file `path` with a suffix. A database itself must never be opened by anybody but SQLite: closing
/// such a descriptor would drop SQLite's own locks in this process.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}
