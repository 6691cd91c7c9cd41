//! The board: a folder in which control leaves steps for other processes, and they leave their reports.
//!
//! ```text
//! board/places/WORKER                one per process: its lock is held while it lives, its time of change is when it expires
//! board/EPOCH/todo/RUN@ROLE          a step that nobody has begun
//! board/EPOCH/taken/RUN@WORKER       one that is performed; with a `!` behind it, one that is to be stopped
//! board/EPOCH/reports/WORKER.N.RUN   what a worker says of a step, in order
//! ```
//!
//! Everything happens by a rename, which either happened or did not, and nobody ever waits for anybody: a process that
//! is stopped at any moment holds up no other. Nothing here is a fact. A controller makes a board of its own under its
//! epoch and removes those before it, because everything in flight ended with their controllers; what a lost report
//! would have said is found again in the lake. So nothing is flushed to the disk either.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Role;
use crate::disk::Refusal;

#[cfg(test)]
mod tests;

/// Reports that may wait for control. Beyond it workers wait: without a controller they must not fill the disk.
const MOST_REPORTS: usize = 1_000;
/// Behind the name of a step that is to be stopped.
const STOP: &str = "!";
/// Before the name of a file that is being written.
const PART: &str = ".";

/// Why the board cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// A newer controller has removed this one's board.
    #[error("the board of epoch {epoch} is gone: another controller has taken over")]
    TakenOver {
        /// Of this controller.
        epoch: u64,
    },
    /// The ledger is older than the folder around it.
    #[error("{} is of a later epoch than this controller's {epoch}: its ledger was put back to an older one. Remove that \
             folder when no other controller runs here", path.display())]
    OfLater {
        /// Of this controller.
        epoch: u64,
        /// The later board.
        path: PathBuf,
    },
    /// A step that has no form as text.
    #[error("the step {run} cannot be written as JSON")]
    Unwritable {
        /// The run.
        run: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// A file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl BoardError {
    /// Returns whether the same call may succeed later with nothing repaired: the disk is full or read-only, or too
    /// much is open.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        Refusal::of(source).is_some() || source.kind() == ErrorKind::Interrupted
    }
}

/// What became of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Cancelled {
    /// Nobody had begun; it is off the board, and no report will come.
    Unbegun,
    /// Its worker is told, and reports how it ended.
    Asked,
    /// It is not on the board.
    Gone,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Reported {
    /// Control will take it.
    Kept,
    /// Control is behind; try again later.
    Full,
    /// The step is no longer this worker's: it stops.
    NotOurs,
}

/// Control's side of the board.
#[derive(Debug)]
pub struct Board {
    epoch: u64,
    folder: PathBuf,
    places: PathBuf,
}

impl Board {
    /// Makes the board of a new controller, and removes what those before it left.
    ///
    /// # Errors
    /// When its folder cannot be made, or there is one of a later epoch.
    pub fn new(state: &Path, epoch: u64) -> Result<Self, BoardError> {
        let root = root(state);
        let board = Self { epoch, folder: root.join(epoch.to_string()), places: root.join("places") };
        for (number, path) in boards(&root)? {
            if number > epoch {
                return Err(BoardError::OfLater { epoch, path });
            }
            // Its own number is another history's. A worker that writes at this moment may leave something behind; the next
            // controller removes it.
            let _ = fs::remove_dir_all(path);
        }
        for folder in ["todo", "taken", "reports"].map(|name| board.folder.join(name)) {
            fs::create_dir_all(&folder).map_err(io("create", &folder))?;
        }
        fs::create_dir_all(&board.places).map_err(io("create", &board.places))?;
        for worker in names(&board.places)? {
            if board.is_gone(&worker)? {
                let _ = fs::remove_file(board.places.join(worker));
            }
        }
        Ok(board)
    }

    /// Leaves a step for a process of a role.
    pub(super) fn offer(&self, role: Role, run: &str, body: &str) -> Result<(), BoardError> {
        let name = format!("{run}@{}", role.name());
        put(&self.folder.join("todo"), &name, body).map_err(|error| {
            if self.folder.is_dir() { error } else { BoardError::TakenOver { epoch: self.epoch } }
        })
    }

    /// Takes a step back.
    pub(super) fn cancel(&self, run: &str) -> Result<Cancelled, BoardError> {
        // In the order in which a step wanders.
        if self.remove("todo", run)? {
            return Ok(Cancelled::Unbegun);
        }
        let Some(path) = self.find("taken", run)? else { return Ok(Cancelled::Gone) };
        if !path.to_string_lossy().ends_with(STOP) {
            let mut marked = path.clone().into_os_string();
            marked.push(STOP);
            fs::rename(&path, marked).map_err(io("mark", &path))?;
        }
        Ok(Cancelled::Asked)
    }

    /// Takes every report off the board, each worker's in its order: each with its run.
    pub(super) fn reports(&self) -> Result<Vec<(String, String)>, BoardError> {
        let folder = self.folder.join("reports");
        let mut reports = Vec::new();
        for name in names(&folder)? {
            let path = folder.join(&name);
            let body = read(&path).map_err(io("read", &path));
            let taken =
                body.and_then(|body| fs::remove_file(&path).map(|()| body).map_err(io("remove", &path)));
            match taken {
                Ok(body) => {
                    reports.push((name.rsplit('.').next().unwrap_or_default().to_owned(), body));
                }
                Err(error) if reports.is_empty() => return Err(error),
                // What was taken counts; the next call meets the trouble again.
                Err(_) => break,
            }
        }
        Ok(reports)
    }

    /// Removes a step that has ended or is given up; what is still reported of it counts no more.
    pub(super) fn end(&self, run: &str) -> Result<(), BoardError> {
        self.remove("taken", run).map(drop)
    }

    /// Returns the runs whose worker is gone: its process ended, or it has not been heard of until `now_ms`.
    pub(super) fn lost(&self, now_ms: i64) -> Result<BTreeSet<String>, BoardError> {
        let mut lost = BTreeSet::new();
        for name in names(&self.folder.join("taken"))? {
            let (run, worker) = parts(&name);
            if !self.lives(worker.trim_end_matches(STOP), now_ms)? {
                lost.insert(run.to_owned());
            }
        }
        Ok(lost)
    }

    /// Returns how many workers of a role have been heard of at `now_ms`.
    pub(super) fn workers(&self, role: Role, now_ms: i64) -> Result<usize, BoardError> {
        let mut alive = 0;
        for worker in names(&self.places)? {
            if worker.split('-').next() == Some(role.name()) {
                alive += usize::from(self.lives(&worker, now_ms)?);
            }
        }
        Ok(alive)
    }

    fn lives(&self, worker: &str, now_ms: i64) -> Result<bool, BoardError> {
        let path = self.places.join(worker);
        let expires = match fs::metadata(&path).and_then(|about| about.modified()) {
            Ok(expires) => expires,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(io("look at", &path)(source)),
        };
        Ok(expires > at(now_ms) && !self.is_gone(worker)?)
    }

    /// Returns whether a worker's process has ended: its lock vanished with it.
    fn is_gone(&self, worker: &str) -> Result<bool, BoardError> {
        let path = self.places.join(worker);
        match File::options().append(true).open(&path) {
            Ok(file) => match file.try_lock() {
                Ok(()) => Ok(true),
                Err(TryLockError::WouldBlock) => Ok(false),
                Err(TryLockError::Error(source)) => Err(io("look at the lock", &path)(source)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(source) => Err(io("open", &path)(source)),
        }
    }

    /// Removes a run's file; returns whether there was one.
    fn remove(&self, folder: &str, run: &str) -> Result<bool, BoardError> {
        let Some(path) = self.find(folder, run)? else { return Ok(false) };
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            // Begun in this moment.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(source) => Err(io("remove", &path)(source)),
        }
    }

    fn find(&self, folder: &str, run: &str) -> Result<Option<PathBuf>, BoardError> {
        let folder = self.folder.join(folder);
        let name = names(&folder)?.into_iter().find(|name| parts(name).0 == run);
        Ok(name.map(|name| folder.join(name)))
    }
}

/// A worker's place on the board. Its lock vanishes with its process, which is how control notices at once.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    worker: String,
    role: Role,
    lock: File,
    said: AtomicU64,
}

impl Place {
    /// Takes a place for a process of a role, which lasts for `ttl_ms` unless it is renewed.
    pub fn take(state: &Path, role: Role, now_ms: i64, ttl_ms: i64) -> Result<Self, BoardError> {
        let root = root(state);
        let places = root.join("places");
        fs::create_dir_all(&places).map_err(io("create", &places))?;
        let worker = format!("{}-{}-{}", role.name(), std::process::id(), uuid::Uuid::new_v4().simple());
        let path = places.join(format!("{PART}{worker}"));
        let lock = File::create_new(&path).map_err(io("create", &path))?;
        // Locked before it has its name: whoever sees it sees a living process.
        lock.lock().map_err(io("lock", &path))?;
        let place = Self { root, worker, role, lock, said: AtomicU64::new(0) };
        place.beat(now_ms, ttl_ms)?;
        fs::rename(&path, place.path()).map_err(io("name", &path))?;
        Ok(place)
    }

    /// Says that the worker lives.
    pub fn beat(&self, now_ms: i64, ttl_ms: i64) -> Result<(), BoardError> {
        self.lock.set_modified(at(now_ms.saturating_add(ttl_ms))).map_err(io("renew", &self.path()))
    }

    /// Gives the place up. What the worker still had is lost, and given to another.
    pub fn leave(self) -> Result<(), BoardError> {
        let path = self.path();
        fs::remove_file(&path).map_err(io("remove", &path))
    }

    /// Takes the oldest step of the role that nobody has begun: its run and what control wrote.
    pub fn claim(&self) -> Result<Option<(String, String)>, BoardError> {
        let Some(board) = self.board()? else { return Ok(None) };
        for name in names(&board.join("todo"))? {
            let (run, role) = parts(&name);
            if role != self.role.name() {
                continue;
            }
            let (from, to) = (board.join("todo").join(&name), self.taken(&board, run, ""));
            // Read before it is ours: afterwards control may mark it or take it back at any moment.
            let claimed = read(&from).and_then(|body| fs::rename(&from, &to).map(|()| body));
            match claimed {
                Ok(body) => return Ok(Some((run.to_owned(), body))),
                // Another worker was quicker, or control took it back.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(io("take", &from)(source)),
            }
        }
        Ok(None)
    }

    /// Returns the runs that are still this worker's and not cancelled: whatever else it performs, it stops.
    pub fn wanted(&self) -> Result<BTreeSet<String>, BoardError> {
        let Some(board) = self.board()? else { return Ok(BTreeSet::new()) };
        let taken = names(&board.join("taken"))?;
        let ours = taken.iter().map(|name| parts(name)).filter(|(_, worker)| *worker == self.worker);
        Ok(ours.map(|(run, _)| run.to_owned()).collect())
    }

    /// Leaves a report for control.
    pub fn report(&self, run: &str, body: &str) -> Result<Reported, BoardError> {
        let Some(board) = self.board()? else { return Ok(Reported::NotOurs) };
        if !["", STOP].iter().any(|mark| self.taken(&board, run, mark).exists()) {
            return Ok(Reported::NotOurs);
        }
        let reports = board.join("reports");
        if names(&reports)?.len() >= MOST_REPORTS {
            return Ok(Reported::Full);
        }
        let number = self.said.load(Ordering::Relaxed);
        let name = format!("{}.{number:012}.{run}", self.worker);
        match put(&reports, &name, body) {
            Err(BoardError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Ok(Reported::NotOurs)
            }
            put => put.map(|()| {
                self.said.fetch_add(1, Ordering::Relaxed);
                Reported::Kept
            }),
        }
    }

    /// Returns the board of the newest controller, if there is one.
    fn board(&self) -> Result<Option<PathBuf>, BoardError> {
        Ok(boards(&self.root)?.into_iter().max().map(|(_, folder)| folder))
    }

    fn taken(&self, board: &Path, run: &str, mark: &str) -> PathBuf {
        board.join("taken").join(format!("{run}@{}{mark}", self.worker))
    }

    fn path(&self) -> PathBuf {
        self.root.join("places").join(&self.worker)
    }
}

fn root(state: &Path) -> PathBuf {
    state.join("board")
}

/// Returns the boards that there are, by their controllers' epochs.
fn boards(root: &Path) -> Result<Vec<(u64, PathBuf)>, BoardError> {
    let numbered = |name: &String| name.parse().ok().map(|epoch| (epoch, root.join(name)));
    Ok(names(root)?.iter().filter_map(numbered).collect())
}

/// Returns the names in a folder in order, without those of files that are being written; none where it is missing.
fn names(folder: &Path) -> Result<Vec<String>, BoardError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(io("list", folder)(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(io("list", folder))?.file_name().to_string_lossy().into_owned();
        if !name.starts_with(PART) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Returns the two parts of a step's name: its run, and its role or worker.
fn parts(name: &str) -> (&str, &str) {
    name.split_once('@').unwrap_or((name, ""))
}

/// Writes a file that appears whole or not at all.
fn put(folder: &Path, name: &str, body: &str) -> Result<(), BoardError> {
    let part = folder.join(format!("{PART}{name}"));
    let put = fs::write(&part, body).and_then(|()| fs::rename(&part, folder.join(name)));
    put.map_err(|source| {
        // On a full disk it would keep what little room there is.
        let _ = fs::remove_file(&part);
        io("write", &part)(source)
    })
}

/// Reads a file as text. One that was torn is text too, and whoever takes it for a step or a report says that it is none.
fn read(path: &Path) -> std::io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn at(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BoardError {
    let path = path.to_owned();
    move |source| BoardError::Io { action, path, source }
}
