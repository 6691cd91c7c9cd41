//! Programs of a repository, as child processes that see nothing but what they are given.
//!
//! A program begins in a fresh folder that holds its product's files and the rows that it is shown, both to be read, and a place for its
//! own. Its environment is empty but for what is handed in, its time and memory are bounded, it has no network that it was not granted, and of the
//! rest of the machine it may read what programs are made of. The confining is done by the child itself ([`cell`]) before it begins the
//! program; where the system cannot confine it, the program does not begin.

pub mod cell;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Of what a program says, so much is read.
const MOST_SAID_BYTES: u64 = 64 << 10;
/// A folder as old as this is nobody's: a program may take half a day.
const LEFT_BEHIND: Duration = Duration::from_hours(24);
/// Between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// The folder in which one program runs. It is removed with everything in it when this is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty folder below another.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn new(below: &Path) -> io::Result<Self> {
        sweep(below);
        let folder = below.join(uuid::Uuid::new_v4().simple().to_string());
        for part in ["product", "rows", "own"] {
            fs::create_dir_all(folder.join(part))?;
        }
        // Rows are nobody else's business.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        Ok(Self(folder))
    }

    /// Returns where the files of the product go; the program begins there.
    #[must_use]
    pub fn product(&self) -> PathBuf {
        self.0.join("product")
    }

    /// Returns where the rows go that it is shown.
    #[must_use]
    pub fn rows(&self) -> PathBuf {
        self.0.join("rows")
    }

    /// Returns where the program may write.
    #[must_use]
    pub fn own(&self) -> PathBuf {
        self.0.join("own")
    }

    /// Returns where a model goes that it is shown; nothing is there unless somebody makes the folder.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.0.join("model")
    }

    /// Writes a file of the product, which may be a program.
    ///
    /// # Errors
    /// When its path leads elsewhere, or the disk does not take it.
    pub fn put(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let plain = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !plain {
            return Err(io::Error::other(format!("{path} is no path of a file")));
        }
        let path = self.product().join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555))
    }

    fn file(&self, name: &str) -> io::Result<File> {
        File::create(self.0.join(name))
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(self.0.join(name))?.take(MOST_SAID_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), "could not remove what a command left: {error}");
        }
    }
}

/// Removes folders of programs whose controller died with them.
fn sweep(below: &Path) {
    let old = |path: &Path| {
        let written = fs::metadata(path).and_then(|about| about.modified());
        written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFT_BEHIND))
    };
    let Ok(entries) = fs::read_dir(below) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| old(path)) {
        // Whoever is quicker has done it.
        let _ = fs::remove_dir_all(path);
    }
}

/// A program to run.
#[derive(Debug)]
pub struct Task {
    /// The program and its words.
    pub command: Vec<String>,
    /// All that it finds in its environment, besides where programs are.
    pub variables: Vec<(String, String)>,
    /// How long it may take.
    pub timeout: Duration,
    /// Memory of each of its processes, MiB.
    pub memory_mib: u32,
    /// Which network it has.
    pub network: cell::Network,
}

/// What became of a program.
#[derive(Debug)]
pub enum Ended {
    /// It ended well.
    Well {
        /// What it wrote, from the beginning.
        said: String,
        /// What it complained of, from the beginning.
        complained: String,
    },
    /// It ended otherwise.
    Badly {
        /// How: `exit code 1`, `signal 9`.
        how: String,
        /// What it complained of, from the beginning.
        complained: String,
    },
    /// It did not begin, and why.
    NotBegun(String),
    /// Its time was over.
    TooLong,
    /// Nobody waits for it any more.
    Cancelled,
}

/// Runs a program in its folder and waits for its end; call it where blocking is allowed. Whatever it began ends with it.
///
/// # Errors
/// When the process cannot be begun or watched.
pub fn run(scratch: &Scratch, task: &Task, cancel: &CancellationToken) -> io::Result<Ended> {
    // The very file that this process was begun from, also when another lies in its place by now.
    let mut command = Command::new(OsString::from("/proc/self/exe"));
    command.arg0("hydromesh").arg("command-worker").arg("--folder").arg(&scratch.0);
    command.arg("--memory-mib").arg(task.memory_mib.to_string());
    if task.network == cell::Network::Machine {
        command.arg("--network");
    }
    command.arg("--").args(&task.command);
    command.env_clear().envs([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8")]);
    command.env("HOME", cell::OWN).env("TMPDIR", cell::OWN).envs(task.variables.iter().cloned());
    command.current_dir(scratch.product()).process_group(0);
    command.stdin(Stdio::null()).stdout(scratch.file("said")?).stderr(scratch.file("complained")?);
    let mut child = command.spawn()?;
    let until = Instant::now() + task.timeout;
    let stopped = loop {
        match child.try_wait()? {
            Some(status) => return ended(scratch, status),
            None if cancel.is_cancelled() => break Ended::Cancelled,
            None if Instant::now() >= until => break Ended::TooLong,
            None => std::thread::sleep(PAUSE),
        }
    };
    // The worker: the program is in a world of processes of its own that ends with it.
    child.kill()?;
    child.wait()?;
    Ok(stopped)
}

fn ended(scratch: &Scratch, status: ExitStatus) -> io::Result<Ended> {
    if status.success() {
        return Ok(Ended::Well { said: scratch.read("said")?, complained: scratch.read("complained")? });
    }
    let complained = scratch.read("complained")?;
    if status.code() == Some(cell::NOT_BEGUN.into())
        && let Some(why) = complained.lines().find_map(|line| line.strip_prefix(cell::REFUSED))
    {
        return Ok(Ended::NotBegun(why.to_owned()));
    }
    let how = match (status.code(), status.signal()) {
        // As a shell says it of what it has begun.
        (Some(code), _) if code > 128 => format!("signal {}", code - 128),
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    };
    Ok(Ended::Badly { how, complained })
}
