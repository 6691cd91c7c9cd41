//! Putting a backup back into an empty state folder.

use std::fs::File;
use std::path::{Path, PathBuf};

use hydromesh_core::ids::ProductId;

use super::{
    BackupError, CONTROLLER, FORMAT, LAKE, LEDGER, MANIFEST, MIRRORS, Manifest, TOPICS, VERSION, io, real,
};
use crate::disk;
use crate::fault::point;
use crate::lake::{Amount, Copied, copy_folder};
use crate::store::{Place, PlaceError, RESTORING};

/// A backup that is whole.
#[derive(Debug)]
pub struct Backup {
    folder: PathBuf,
    pub manifest: Manifest,
}

/// Where a backup is put back.
#[derive(Debug)]
pub struct Target {
    state: PathBuf,
    lake: PathBuf,
}

/// A table that can only lie where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    pub address: String,
    /// Its only place.
    pub location: PathBuf,
}

impl Backup {
    /// Opens a backup and looks whether everything is there.
    ///
    /// # Errors
    /// When it is no backup, one of a newer version, or something of it is gone.
    pub fn open(folder: &Path) -> Result<Self, BackupError> {
        let shown = folder.display();
        let path = folder.join(MANIFEST);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let why = format!("{shown} is no backup, or one that did not end: it has no {MANIFEST}");
                return Err(BackupError::Refused(why));
            }
            read => read.map_err(io("read", &path))?,
        };
        let refused = |why: String| BackupError::Refused(format!("{} {why}", path.display()));
        let value: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|error| refused(format!("is not the manifest of a backup: {error}")))?;
        if value["format"] != FORMAT {
            return Err(refused("is not the manifest of a backup".to_owned()));
        }
        if value["version"].as_u64().is_none_or(|version| version > VERSION) {
            let by = value["hydromesh"].as_str().unwrap_or("a newer version");
            let found = &value["version"];
            return Err(refused(format!(
                "is of version {found}, this program knows {VERSION}; restore with the version of hydromesh that made it ({by})"
            )));
        }
        let manifest: Manifest = serde_json::from_value(value)
            .map_err(|error| refused(format!("is not the manifest of a backup: {error}")))?;
        let backup = Self { folder: folder.to_path_buf(), manifest };
        backup.check()?;
        Ok(backup)
    }

    /// Compares what is there with what was written.
    fn check(&self) -> Result<(), BackupError> {
        let all = &self.manifest;
        let lake = self.folder.join(LAKE);
        let ledger = self.folder.join(LEDGER);
        let bytes = std::fs::metadata(&ledger).map_or(0, |found| found.len());
        self.compare(LEDGER, Amount { files: 1, bytes: all.ledger.bytes }, Amount { files: 1, bytes })?;
        let mut tables = Amount::default();
        for table in &all.lake.tables {
            let found = amount_of(&lake.join(&table.address))?;
            self.compare(&table.address, table.amount, found)?;
            tables += found;
        }
        let mut wanted = all.lake.other;
        wanted += tables;
        self.compare(LAKE, wanted, amount_of(&lake)?)?;
        self.compare(TOPICS, all.topics, amount_of(&self.folder.join(TOPICS))?)?;
        self.compare(MIRRORS, all.repo, amount_of(&self.folder.join(MIRRORS))?)
    }

    fn compare(&self, what: &str, wanted: Amount, found: Amount) -> Result<(), BackupError> {
        if found == wanted {
            return Ok(());
        }
        let (files, bytes) = (wanted.files, wanted.bytes);
        let why = format!(
            "{what} should be {files} files of {bytes} bytes, and is {} of {}",
            found.files, found.bytes
        );
        Err(BackupError::NotWhole { folder: self.folder.clone(), why })
    }

    /// Returns where this backup would be put back, if nothing is there.
    ///
    /// # Errors
    /// When something is.
    pub fn target(&self, state: &Path) -> Result<Target, BackupError> {
        let shown = state.display();
        if Place::in_folder(state).is_held() {
            let why = format!(
                "a controller runs on {shown}; name an empty folder, or stop it and move the folder away"
            );
            return Err(BackupError::Refused(why));
        }
        if state.join(RESTORING).exists() {
            let restoring = PlaceError::Restoring { folder: state.to_path_buf() };
            return Err(BackupError::Refused(restoring.to_string()));
        }
        let state = real(state).map_err(io("find", state))?;
        let lake = state.join(&self.manifest.lake.path);
        let lake = real(&lake).map_err(io("find", &lake))?;
        let from = real(&self.folder).map_err(io("find", &self.folder))?;
        for folder in [&state, &lake] {
            let shown = folder.display();
            if folder.starts_with(&from) || from.starts_with(folder) {
                let why = format!("{shown} and the backup hold one another; name a folder elsewhere");
                return Err(BackupError::Refused(why));
            }
            if !disk::is_empty(folder).map_err(io("look into", folder))? {
                let why = format!("{shown} is not empty; name an empty folder, or move what is in it away");
                return Err(BackupError::Refused(why));
            }
        }
        Ok(Target { state, lake })
    }

    /// Returns the tables that cannot be put back there.
    #[must_use]
    pub fn elsewhere(&self, target: &Target) -> Vec<Elsewhere> {
        let moved = |table: &Copied| {
            let location = table.location.clone()?;
            let there = target.lake.join(&table.address);
            (location != there).then(|| Elsewhere { address: table.address.clone(), location })
        };
        self.manifest.lake.tables.iter().filter_map(moved).collect()
    }

    /// Returns the products of some tables that can be computed by hand, each after all that it reads.
    #[must_use]
    pub fn to_compute(&self, tables: &[Elsewhere]) -> Vec<&ProductId> {
        let of = |id: &ProductId, address: &str| {
            address.strip_prefix(&id.to_string()).is_some_and(|rest| rest.starts_with('.'))
        };
        let computed = self.manifest.lake.computed.iter();
        computed.filter(|id| tables.iter().any(|it| of(id, &it.address))).collect()
    }

    /// Puts everything back but some tables, the ledger last.
    ///
    /// # Errors
    /// When something cannot be read or written; what is there then is no state folder, and says so to whoever opens it.
    pub fn restore(&self, target: &Target, but: &[Elsewhere]) -> Result<(), BackupError> {
        let state = &target.state;
        disk::create_folders(state).map_err(io("create", state))?;
        let mark = state.join(RESTORING);
        disk::replace(&mark, self.folder.to_string_lossy().as_bytes()).map_err(io("write", &mark))?;
        let left_out = |address: &str| but.iter().any(|it| it.address == address);
        let lake = self.folder.join(LAKE);
        if lake.is_dir() {
            let is_domain = |name: &str| {
                self.manifest.lake.tables.iter().any(|it| it.address.split('/').next() == Some(name))
            };
            copy_all(&lake, &target.lake, &is_domain)?;
            for domain in entries(&lake)?.into_iter().filter(|name| is_domain(name)) {
                let skip = |name: &str| left_out(&format!("{domain}/{name}"));
                copy_all(&lake.join(&domain), &target.lake.join(&domain), &skip)?;
            }
        }
        point("restore.after-lake");
        for name in [TOPICS, MIRRORS] {
            let from = self.folder.join(name);
            if from.is_dir() {
                copy_all(&from, &state.join(name), &|_| false)?;
            }
        }
        for name in [CONTROLLER, LEDGER] {
            let from = self.folder.join(name);
            disk::copy(&from, &state.join(name)).map_err(io("copy", &from))?;
        }
        let flushed = || File::open(state)?.sync_all();
        flushed().map_err(io("flush", state))?;
        std::fs::remove_file(&mark).map_err(io("delete", &mark))?;
        flushed().map_err(io("flush", state))
    }
}

fn copy_all(from: &Path, to: &Path, skip: &dyn Fn(&str) -> bool) -> Result<(), BackupError> {
    copy_folder(from, to, skip, &mut Amount::default()).map_err(io("copy", from))
}

fn entries(folder: &Path) -> Result<Vec<String>, BackupError> {
    let listed = std::fs::read_dir(folder).map_err(io("list", folder))?;
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        Ok(entry.map_err(io("list", folder))?.file_name().to_string_lossy().into_owned())
    };
    listed.map(name).collect()
}

/// Returns how much lies in a folder; nothing where there is none.
fn amount_of(folder: &Path) -> Result<Amount, BackupError> {
    let mut amount = Amount::default();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let listed = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            listed => listed.map_err(io("list", &folder))?,
        };
        for entry in listed {
            let entry = entry.map_err(io("list", &folder))?;
            let about = entry.metadata().map_err(io("look at", &folder))?;
            if about.is_dir() {
                folders.push(entry.path());
            } else {
                amount += about.len();
            }
        }
    }
    Ok(amount)
}
