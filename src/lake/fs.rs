//! The few file-system steps the lake makes itself, each durable when it returns.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::LakeError;

/// Runs `work` where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LakeError> + Send + 'static,
) -> Result<T, LakeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => Err(LakeError::io(
                "run a file operation in",
                Path::new("."),
                std::io::Error::other(cancelled),
            )),
        },
    }
}

/// Makes a file's bytes and its name survive a loss of power.
pub(super) fn sync_file(path: &Path) -> Result<(), LakeError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|source| LakeError::io("flush", path, source))?;
    path.parent().map_or(Ok(()), sync_dir)
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), LakeError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| LakeError::io("flush", dir, source))
}

/// Makes a folder and those above it, durably.
pub(super) fn create_folders(folder: &Path) -> Result<(), LakeError> {
    crate::disk::create_folders(folder).map_err(|source| LakeError::io("create", folder, source))
}

/// Whether a file made under a new name was the first of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Created {
    First,
    AlreadyThere,
}

/// Creates `path` with `bytes`, whole or not at all, and only if no such file exists.
///
/// A hard link is the step that decides: it fails when the name is taken, on every local file
/// system, and the file it names is complete and flushed.
pub(super) fn create_whole(path: &Path, bytes: &[u8]) -> Result<Created, LakeError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    create_folders(dir)?;
    let temporary = dir.join(format!(".{}.tmp", uuid::Uuid::new_v4()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let linked = written.and_then(|()| std::fs::hard_link(&temporary, path));
    // The temporary name has served; a left-over one is hidden and harmless.
    let _ = std::fs::remove_file(&temporary);
    match linked {
        Ok(()) => sync_dir(dir).map(|()| Created::First),
        Err(taken) if taken.kind() == ErrorKind::AlreadyExists => Ok(Created::AlreadyThere),
        Err(source) => Err(LakeError::io("write", path, source)),
    }
}

/// Replaces `path` with `bytes`, whole.
pub(super) fn replace_whole(path: &Path, bytes: &[u8]) -> Result<(), LakeError> {
    let temporary = path.with_file_name(format!(".{}.tmp", uuid::Uuid::new_v4()));
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|source| {
        // On a full disk it would keep what little room there is.
        let _ = std::fs::remove_file(&temporary);
        LakeError::io("write", path, source)
    })
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), LakeError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(LakeError::io("delete", path, source)),
        _ => Ok(()),
    }
}

/// Deletes Parquet files, and unfinished ones, that are old and not `live`.
pub(super) fn sweep(table: &Path, live: &BTreeSet<String>, older_than_ms: i64) -> Result<u64, LakeError> {
    let mut swept = 0;
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = table.join(&folder);
        let entries = match std::fs::read_dir(&path) {
            Err(source) if source.kind() == ErrorKind::NotFound => continue,
            listed => listed.map_err(|source| LakeError::io("list", &path, source))?,
        };
        for entry in entries {
            let entry = entry.map_err(|source| LakeError::io("list", &path, source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let relative = folder.join(&name);
            let meta = entry.metadata().map_err(|source| LakeError::io("look at", &entry.path(), source))?;
            if meta.is_dir() {
                // The table's own books are not data.
                if !matches!(name.as_str(), "_delta_log" | "metadata") {
                    folders.push(relative);
                }
                continue;
            }
            let ours = name.ends_with(".parquet") || name.ends_with(".parquet.tmp");
            let written_ms = written_ms(&meta);
            if ours && written_ms < older_than_ms && !live.contains(&relative.to_string_lossy().into_owned())
            {
                remove_if_there(&entry.path())?;
                swept += 1;
            }
        }
    }
    Ok(swept)
}

/// Returns when a file was written last, milliseconds since the epoch by the file system's clock; never, if it does not say.
pub(super) fn written_ms(about: &std::fs::Metadata) -> i64 {
    let at = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    at.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(i64::MAX)
}
