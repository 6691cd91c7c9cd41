//! Copies of tables for a backup, made while others commit to them.
//!
//! Data files never change, and they are there before a commit names them. So whoever copies the commits first and the data files
//! after them has everything that the newest of those commits shows, whatever is committed meanwhile.

use std::collections::BTreeSet;
use std::io;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::iceberg_log::{metadata_file, number_of};
use super::{Lake, LakeError, Table, TableFormat, Version, fs};
use crate::disk;

/// How often a table is copied anew of which versions were let go of meanwhile.
const ATTEMPTS: usize = 5;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
const DELTA_LOG: &str = "_delta_log";
const ICEBERG_BOOKS: &str = "metadata";

/// How much was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    pub files: u64,
    pub bytes: u64,
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

impl AddAssign<u64> for Amount {
    /// One more file of so many bytes.
    fn add_assign(&mut self, bytes: u64) {
        *self += Self { files: 1, bytes };
    }
}

/// A table as it was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    pub address: String,
    pub format: TableFormat,
    /// The newest version in the copy; none of a table whose log says nothing, which was copied as it lies there.
    pub version: Option<Version>,
    /// Where the table must lie, by its own books. Delta tables do not mind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<PathBuf>,
    /// Data files of that version that the table itself lacks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lacks: u64,
    #[serde(flatten)]
    pub amount: Amount,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What a try to copy a table came to.
enum Tried {
    Done(Copied),
    /// There is no table, or none any more.
    Gone,
    /// Something that was to be copied is no longer there.
    Again,
}

impl Lake {
    /// Returns the addresses of all tables that lie here, known to anybody or not.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub async fn tables(&self) -> Result<BTreeSet<String>, LakeError> {
        let root = self.root.clone();
        fs::blocking(move || {
            let mut tables = BTreeSet::new();
            for domain in names(&root)?.into_iter().filter(|it| !it.starts_with('.')) {
                for port in names(&root.join(&domain))? {
                    if format_of(&root.join(&domain).join(&port)).is_some() {
                        tables.insert(format!("{domain}/{port}"));
                    }
                }
            }
            Ok(tables)
        })
        .await
    }

    /// Copies a table to the same place of the lake in `to`, a version of it that was the newest at some time since this began.
    /// Nothing when it has left.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub async fn copy_table(&self, address: &str, to: &Path) -> Result<Option<Copied>, LakeError> {
        for attempt in 1..=ATTEMPTS {
            match self.try_copy(address, to, attempt == ATTEMPTS).await? {
                Tried::Done(copied) => return Ok(Some(copied)),
                Tried::Gone => {
                    let target = to.join(address);
                    fs::blocking(move || remove_all(&target)).await?;
                    return Ok(None);
                }
                Tried::Again => tokio::time::sleep(PAUSE).await,
            }
        }
        Err(LakeError::Contended { address: address.to_owned(), attempts: ATTEMPTS })
    }

    async fn try_copy(&self, address: &str, to: &Path, last: bool) -> Result<Tried, LakeError> {
        let from = self.root.join(address);
        let Some(format) = format_of(&from) else { return Ok(Tried::Gone) };
        let target = to.join(address);
        let copied = {
            let (from, target) = (from.clone(), target.clone());
            fs::blocking(move || {
                remove_all(&target)?;
                fs::create_folders(&target)?;
                let mut amount = Amount::default();
                let books = match format {
                    TableFormat::Delta => copy_delta_log(&from, &target, last, &mut amount)?,
                    TableFormat::Iceberg => copy_iceberg_books(&from, &target, &mut amount)?,
                };
                let Some(books) = books else { return Ok(None) };
                let own = |name: &str| matches!(name, DELTA_LOG | ICEBERG_BOOKS);
                copy_folder(&from, &target, &own, &mut amount)
                    .map_err(|source| LakeError::io("copy", &from, source))?;
                Ok(Some((amount, books)))
            })
            .await?
        };
        let here = self.table(address, format)?;
        let Some((amount, books)) = copied else { return again_if_there(&here).await };
        let read = match &books {
            // The copy is a table like any other, at its place too.
            Books::Delta => Lake::found(to).await?.table(address, format)?.own_file_set(None).await,
            Books::Iceberg { version, .. } => here.own_file_set(Some(*version)).await,
        };
        let location = match books {
            Books::Delta => None,
            Books::Iceberg { location, .. } => Some(location),
        };
        let done = |version, lacks| {
            let address = address.to_owned();
            Tried::Done(Copied { address, format, version, location, lacks, amount })
        };
        let files = match read {
            // As it lies there: what is wrong with it is not the copy's fault.
            Err(LakeError::Damaged { .. } | LakeError::Unusable { .. } | LakeError::Moved { .. }) => {
                return Ok(done(None, 0));
            }
            Err(LakeError::UnknownVersion { .. } | LakeError::Absent { .. }) => {
                return again_if_there(&here).await;
            }
            read => read?,
        };
        let lacks = files.files.iter().filter(|file| !is_long(&target.join(&file.path), file.bytes));
        let (mut gone, mut missed) = (0, 0);
        for file in lacks {
            if is_long(&from.join(&file.path), file.bytes) { missed += 1 } else { gone += 1 }
        }
        // Of a version that the table has no more, files may have gone after it.
        let still = gone == 0 || last || stands(&here, files.version).await?;
        Ok(if missed == 0 && still { done(files.version, gone) } else { Tried::Again })
    }
}

fn remove_all(folder: &Path) -> Result<(), LakeError> {
    match std::fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LakeError::io("delete", folder, source))
        }
        _ => Ok(()),
    }
}

/// Tries again unless there is no table: it has left, or is only being made, and has no version yet.
async fn again_if_there(table: &Table) -> Result<Tried, LakeError> {
    match table.own_file_set(None).await {
        Err(LakeError::Absent { .. }) => Ok(Tried::Gone),
        _ => Ok(Tried::Again),
    }
}

/// Returns whether a table still has a version.
async fn stands(table: &Table, version: Option<Version>) -> Result<bool, LakeError> {
    match table.own_file_set(version).await {
        Ok(_) => Ok(true),
        Err(LakeError::UnknownVersion { .. } | LakeError::Absent { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_long(path: &Path, bytes: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.len() == bytes)
}

/// What the books of a copy say.
enum Books {
    Delta,
    Iceberg { version: Version, location: PathBuf },
}

/// Copies one file of a table's books; returns whether it was there.
fn copy_book(from: &Path, to: &Path, name: &str, amount: &mut Amount) -> Result<bool, LakeError> {
    let path = from.join(name);
    let bytes = disk::copy(&path, &to.join(name)).map_err(|e| LakeError::io("copy", &path, e))?;
    if let Some(bytes) = bytes {
        *amount += bytes;
    }
    Ok(bytes.is_some())
}

/// Copies the commits of a Delta table; nothing when some were cut off meanwhile.
fn copy_delta_log(
    from: &Path,
    to: &Path,
    last: bool,
    amount: &mut Amount,
) -> Result<Option<Books>, LakeError> {
    let (from, to) = (from.join(DELTA_LOG), to.join(DELTA_LOG));
    fs::create_folders(&to)?;
    let mut copy = |name: &str| copy_book(&from, &to, name, amount);
    // The hint before all: the checkpoint that it names is there by then.
    copy("_last_checkpoint")?;
    let number = |name: &str| name.split_once('.').and_then(|(version, _)| version.parse::<u64>().ok());
    let is_commit = |name: &str| name.split_once('.').is_some_and(|(_, rest)| rest == "json");
    let listed = names(&from)?.into_iter().filter(|name| number(name).is_some());
    let listed: Vec<String> = listed.filter(|it| is_commit(it) || it.ends_with(".parquet")).collect();
    let commits: Vec<u64> = listed.iter().filter(|it| is_commit(it)).filter_map(|it| number(it)).collect();
    // Who lists a folder to which files are added may see the second and miss the first.
    if !last && commits.windows(2).any(|pair| pair[1] != pair[0] + 1) {
        return Ok(None);
    }
    let newest = commits.last().copied();
    for name in listed.iter().filter(|it| number(it) <= newest || newest.is_none()) {
        if !copy(name)? {
            return Ok(None);
        }
    }
    // The commit that made the table lies here once it was cut off, and was seen above before.
    copy(".first.json")?;
    fs::sync_dir(&to)?;
    Ok(Some(Books::Delta))
}

/// The parts of a metadata file that say what the copy holds.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Metadata {
    location: PathBuf,
    #[serde(default)]
    current_snapshot_id: Option<i64>,
    #[serde(default)]
    snapshots: Vec<Snapshot>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Snapshot {
    snapshot_id: i64,
    #[serde(default)]
    sequence_number: i64,
}

/// Copies the metadata files of an Iceberg table and then its manifests, which are there before a metadata file names them; nothing
/// when the newest has gone.
fn copy_iceberg_books(from: &Path, to: &Path, amount: &mut Amount) -> Result<Option<Books>, LakeError> {
    let (books, target) = (from.join(ICEBERG_BOOKS), to.join(ICEBERG_BOOKS));
    fs::create_folders(&target)?;
    let mut copy = |name: &str| copy_book(&books, &target, name, amount);
    let listed = names(&books)?;
    let Some(newest) = listed.iter().filter_map(|name| number_of(name)).max() else { return Ok(None) };
    for name in listed.iter().filter(|name| number_of(name).is_some()) {
        if !copy(name)? && number_of(name) == Some(newest) {
            return Ok(None);
        }
    }
    for name in names(&books)?.iter().filter(|name| name.ends_with(".avro")) {
        copy(name)?;
    }
    // The table's own may be ahead of what was copied.
    let hint = target.join("version-hint.text");
    let hinted = disk::replace(&hint, newest.to_string().as_bytes());
    hinted.map_err(|source| LakeError::io("write", &hint, source))?;
    *amount += newest.to_string().len() as u64;
    let path = metadata_file(to, newest);
    let text = std::fs::read(&path).map_err(|source| LakeError::io("read", &path, source))?;
    let Ok(metadata) = serde_json::from_slice::<Metadata>(&text) else {
        // Reading the table says that it is damaged.
        return Ok(Some(Books::Iceberg { version: Version(0), location: from.to_path_buf() }));
    };
    let current = metadata.snapshots.iter().find(|it| Some(it.snapshot_id) == metadata.current_snapshot_id);
    let version = Version(current.map_or(0, |it| it.sequence_number));
    Ok(Some(Books::Iceberg { version, location: metadata.location }))
}

/// Copies a folder with what is below it, but what `skip` says of its own entries. What goes meanwhile is left out, and so is what is
/// not finished.
///
/// # Errors
/// When something cannot be read or written, or is neither a file nor a folder: a link leads out of what is copied.
pub fn copy_folder(
    from: &Path,
    to: &Path,
    skip: &dyn Fn(&str) -> bool,
    amount: &mut Amount,
) -> io::Result<()> {
    disk::create_folders(to)?;
    let mut listed: Vec<_> = match std::fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed?.collect::<io::Result<_>>()?,
    };
    // Files of a topic are numbered, and one is whole when the next has begun.
    listed.sort_by_key(std::fs::DirEntry::file_name);
    for entry in listed {
        let (name, path) = (entry.file_name(), entry.path());
        if skip(&name.to_string_lossy()) || is_draft(&name.to_string_lossy()) {
            continue;
        }
        let kind = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?.file_type(),
        };
        if kind.is_dir() {
            copy_folder(&path, &to.join(&name), &|_| false, amount)?;
        } else if kind.is_file() {
            disk::copy(&path, &to.join(&name))?.into_iter().for_each(|bytes| *amount += bytes);
        } else {
            let why = format!("{} is neither a file nor a folder; move it away", path.display());
            return Err(io::Error::other(why));
        }
    }
    std::fs::File::open(to)?.sync_all()
}

/// Returns whether a name is that of a file, or a folder, that somebody is still writing.
fn is_draft(name: &str) -> bool {
    let hidden = name.starts_with('.');
    hidden && [".tmp", ".part"].iter().any(|end| name.ends_with(end)) || name.starts_with(".new-topic-")
}

fn format_of(folder: &Path) -> Option<TableFormat> {
    let marked = |name: &str| folder.join(name).is_dir();
    match (marked(DELTA_LOG), marked(ICEBERG_BOOKS)) {
        (true, _) => Some(TableFormat::Delta),
        (false, true) => Some(TableFormat::Iceberg),
        (false, false) => None,
    }
}

/// Returns the names in a folder, in order; nothing when it is none.
fn names(folder: &Path) -> Result<Vec<String>, LakeError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        listed => listed.map_err(|source| LakeError::io("list", folder, source))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| LakeError::io("list", folder, source))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
