//! Makes the demo's world: a bare repository of the example with its dates moved near today, and the clock's start.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};

use super::data::{DAYS, first_day, shift_weeks};
use crate::repo::{CommitId, NewCommit, RepoError, RepoWriter};

/// Hour of the day at which the demo's clock starts: shops are awake.
const START_HOUR: i64 = 10;

/// Why the world could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A file or folder.
    #[error("could not prepare {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The repository.
    #[error("could not write the repository")]
    Repo(#[from] RepoError),
    /// No mesh.
    #[error("{} holds no mesh.yaml", .0.display())]
    NoMesh(PathBuf),
}

/// The demo's world.
#[derive(Debug)]
pub struct Prepared {
    /// The bare repository.
    pub repository: RepoWriter,
    /// Its first commit.
    pub first: CommitId,
    /// Events of the past, one JSON object a line, by topic.
    pub seed: BTreeMap<String, Vec<u8>>,
    /// When the history ends.
    pub history_end: DateTime<Utc>,
    /// When the clock starts.
    pub start: DateTime<Utc>,
}

/// Copies the mesh at `source` into `folder`, moves its dates by whole weeks so that its history ends within the last
/// week, and commits it to a bare repository.
///
/// # Errors
/// [`PrepareError`] when files cannot be read or written.
pub fn prepare(source: &Path, folder: &Path, today: NaiveDate) -> Result<Prepared, PrepareError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| PrepareError::Io { path, source }
    };
    if !source.join("mesh.yaml").is_file() {
        return Err(PrepareError::NoMesh(source.to_owned()));
    }
    let work = folder.join("mesh");
    if work.exists() {
        std::fs::remove_dir_all(&work).map_err(at(&work))?;
    }
    copy(source, &work).map_err(at(source))?;
    let last = first_day() + Days::new(u64::try_from(DAYS - 1).unwrap_or(0));
    // The newest whole number of weeks that leaves the last day before today: weekdays stay what they are.
    let weeks = (today - last - TimeDelta::days(1)).num_days().div_euclid(7);
    shift_weeks(&work, weeks).map_err(at(&work))?;
    let end = last + TimeDelta::weeks(weeks) + TimeDelta::days(1);
    let history_end = end.and_time(chrono::NaiveTime::MIN).and_utc();
    let start = history_end + TimeDelta::hours(START_HOUR);
    let mut seed = BTreeMap::new();
    let seeds = work.join("seed");
    if seeds.is_dir() {
        for entry in std::fs::read_dir(&seeds).map_err(at(&seeds))? {
            let path = entry.map_err(at(&seeds))?.path();
            if let (Some(stem), Some("jsonl")) =
                (path.file_stem().and_then(|it| it.to_str()), path.extension().and_then(|it| it.to_str()))
            {
                seed.insert(stem.to_owned(), std::fs::read(&path).map_err(at(&path))?);
            }
        }
    }
    let bare = folder.join("repo.git");
    if bare.exists() {
        std::fs::remove_dir_all(&bare).map_err(at(&bare))?;
    }
    let repository = RepoWriter::init_bare(&bare)?;
    let mut files = BTreeMap::new();
    read_all(&work, &work, &mut files).map_err(at(&work))?;
    files.retain(|path, _| !path.starts_with("seed/"));
    let first = repository.commit(
        NewCommit {
            branch: "main",
            parent: None,
            message: "Start the mesh",
            author: "Platform team",
            email: "data-platform@larchandpine.example",
            time_ms: start.timestamp_millis(),
        },
        &files,
    )?;
    Ok(Prepared { repository, first, seed, history_end, start })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() && entry.file_name() != ".git" {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn read_all(root: &Path, folder: &Path, files: &mut BTreeMap<String, Option<Vec<u8>>>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(root, &path, files)?;
        } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            files.insert(name.to_owned(), Some(std::fs::read(&path)?));
        }
    }
    Ok(())
}
