//! Disks that are full, read-only, or fail once, and too few open files, under a real process: nothing is lost, doubled or
//! half-published, people are told what is wrong, and what waited goes on.
//!
//! A small library between the process and the operating system refuses what the test asks for (`disk.c`), at any write and
//! without a privilege. A real file system that is full is tried where one may be mounted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::world::{PATIENCE, State, World};
use super::{Dice, Messages, like_others};
use crate::support::text;

/// Operations, as in `disk.c`.
const CREATE: u32 = 1;
const OPEN: u32 = 2;
const WRITE: u32 = 4;
const NAME: u32 = 8;
const SYNC: u32 = 16;

/// What a disk without room refuses, and one that is mounted read-only.
const FULL: (u32, i32) = (CREATE | WRITE, libc::ENOSPC);
const READ_ONLY: (u32, i32) = (CREATE | OPEN | WRITE | NAME, libc::EROFS);
/// What a disk says whose cache could not be written.
const BROKEN: (u32, i32) = (SYNC, libc::EIO);

/// How long a disk refuses: long enough for several attempts of everything that is tried again.
const OUTAGE: Duration = Duration::from_secs(4);
/// Names what is played: nothing for a few places, `all` for one after the other of many writes (`make crash`).
const ASKED: &str = "HYDROMESH_CRASH_POINTS";

/// The disk as the processes of one state see it.
struct Disk {
    home: tempfile::TempDir,
    control: File,
}

impl Disk {
    /// Returns a disk that refuses nothing yet; nothing where no C compiler is.
    fn new() -> Option<Self> {
        library()?;
        let home = tempfile::tempdir().expect("a folder");
        let control =
            File::options().create_new(true).read(true).write(true).open(home.path().join("control"));
        let disk = Self { home, control: control.expect("a file") };
        disk.control.set_len(4096).expect("a page");
        Some(disk)
    }

    /// Puts it under every process of a state.
    fn under<'a>(&self, state: State<'a>) -> State<'a> {
        let control = self.home.path().join("control");
        state
            .knowing("LD_PRELOAD", text(library().expect("compiled")))
            .knowing("HYDROMESH_TEST_DISK", text(&control))
    }

    /// Refuses what is asked of files at a place, after so many operations and so often; 0 is for ever. The file that finds out
    /// whether the state folder takes anything is on the same disk as the ledger.
    fn refuse(&self, place: &Path, (kinds, error): (u32, i32), pass: u32, times: u32) {
        self.heal();
        let mut bytes = Vec::new();
        for number in [error.cast_unsigned(), pass, times, 0, 0] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(text(place).as_bytes());
        bytes.push(b'\n');
        if place.ends_with("ledger.db") {
            bytes.extend(text(&place.with_file_name(".probe-")).as_bytes());
            bytes.push(b'\n');
        }
        bytes.push(0);
        self.control.write_all_at(&bytes, 4).expect("written");
        self.control.write_all_at(&kinds.to_ne_bytes(), 0).expect("written");
    }

    /// Refuses nothing any more.
    fn heal(&self) {
        self.control.write_all_at(&0_u32.to_ne_bytes(), 0).expect("written");
    }

    /// Returns how often something was refused.
    fn refused(&self) -> u32 {
        let mut number = [0; 4];
        self.control.read_exact_at(&mut number, 20).expect("read");
        u32::from_ne_bytes(number)
    }
}

/// Returns the library, compiled once; nothing where no C compiler is, which is said.
fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<(PathBuf, tempfile::TempDir)>> = OnceLock::new();
    LIBRARY.get_or_init(|| super::preload("disk")).as_ref().map(|(path, _)| path.as_path())
}

/// One mesh on one kind of table, and what an undisturbed controller makes of it.
struct Scene {
    world: World,
    messages: Messages,
    calm: std::collections::BTreeMap<String, String>,
}

impl Scene {
    fn new(format: &str) -> Self {
        let (world, messages, calm) = like_others(format, "4d");
        Self { world, messages, calm }
    }

    /// Waits until everything is as without the disturbance, and ends in order.
    #[track_caller]
    fn same_in_the_end(&self, state: &mut State<'_>, what: &str) {
        state.settle();
        self.messages.wait_for_all(state);
        assert_eq!(state.contents(), self.calm, "{what}\n{}", state.told());
        let status = state.end().0;
        assert_eq!(status.code(), Some(0), "{what}\n{}", state.told());
    }

    /// Refuses writes below a folder of a running controller for a while, and looks that it waits and says why.
    #[track_caller]
    fn play(&self, folder: &str, how: (u32, i32), pass: u32) {
        let Some(disk) = Disk::new() else { return };
        let what = format!("{folder:?} refuses with {} after {pass} operations", how.1);
        let mut state =
            disk.under(self.world.state(&format!("{}-{}-{pass}", folder.replace('/', "_"), how.1)));
        state.produce(&self.messages.lines);
        state.start();
        state.wait("a controller", State::is_ready);
        disk.refuse(&state.folder().join(folder), how, pass, 0);
        let mut reached = Instant::now();
        // What was refused once is refused for a while; a scenario that is over before is no failure of the program.
        state.wait("a refusal", |state| {
            let over = state.settled().is_ok() && self.messages.all_in(state).is_ok();
            if disk.refused() > 0 || over { Ok(()) } else { Err("nothing was refused".to_owned()) }
        });
        while reached.elapsed() < OUTAGE && disk.refused() > 0 {
            state.alive();
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{what}: refused {} times", disk.refused());
        disk.heal();
        reached = Instant::now();
        self.same_in_the_end(&mut state, &what);
        println!("{what}: went on within {} ms", reached.elapsed().as_millis());
        assert!(!state.told().contains("panicked"), "{}", state.told());
        state.remove();
    }
}

#[test]
fn a_full_disk_is_waited_out_wherever_it_is_met() {
    let Some(_) = library() else { return };
    let mut dice = Dice::new();
    let all = std::env::var_os(ASKED).is_some();
    for format in if all { &["delta", "iceberg"][..] } else { &["delta"] } {
        let scene = Scene::new(format);
        for folder in ["", "lake", "ledger.db", "board", "site", "spill", "topics", "mail"] {
            // By default all at once, from a random write on.
            let passes = match folder {
                _ if all => (0..20).map(|at| at * 7).collect(),
                "" => vec![u32::try_from(dice.below(120)).expect("small")],
                _ => continue,
            };
            for pass in passes {
                scene.play(folder, FULL, pass);
            }
        }
    }
}

#[test]
fn people_are_told_of_a_full_lake_and_a_step_is_never_given_up_for_it() {
    let Some(disk) = Disk::new() else { return };
    let scene = Scene::new("iceberg");
    let mut state = disk.under(scene.world.state("told"));
    state.produce(&scene.messages.lines);
    disk.refuse(&state.folder().join("lake/shop"), FULL, 40, 0);
    state.start();
    // More attempts than `retry: {attempts: 3}` allows.
    state.wait("a fourth attempt", |state| {
        let runs = state.json(&["runs", "--limit", "1000"])?.to_string();
        let failed = runs.matches("HM-X012").count();
        if failed > 8 { Ok(()) } else { Err(format!("{failed} failed")) }
    });
    state.wait("a mail", |state| {
        let mails = state.mails();
        if mails.iter().any(|mail| mail.contains("shop/sales")) { Ok(()) } else { Err(format!("{mails:?}")) }
    });
    let why = state.ask(&["why-not", "shop/sales"]);
    why.says("HM-X012");
    why.says("No space left on device");
    why.says("free space there");
    let left = parts(&state.table_folder(""));
    assert_eq!(left, Vec::<PathBuf>::new(), "files that nobody will finish keep what little room there is");
    disk.heal();
    scene.same_in_the_end(&mut state, "a full lake");
}

/// Returns what is unfinished below a folder.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(".tmp") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_read_only_disk_is_refused_at_the_start_and_waited_out_while_running() {
    let Some(disk) = Disk::new() else { return };
    let scene = Scene::new("delta");
    let all = std::env::var_os(ASKED).is_some();
    for folder in if all { &["", "ledger.db", "lake", "board", "site"][..] } else { &[""] } {
        scene.play(folder, READ_ONLY, 25);
    }
    let mut state = disk.under(scene.world.state("start"));
    state.produce(&scene.messages.lines);
    for (how, word) in [(READ_ONLY, "Read-only file system"), (FULL, "No space left on device")] {
        disk.refuse(&state.folder().join(""), how, 0, 0);
        assert_eq!(state.start_refused(), Some(4), "{}", state.told());
        let told = state.told();
        let folder = text(state.folder()).to_owned();
        assert!([word, "HM-X012", &folder].iter().all(|it| told.contains(it)), "{told}");
        // Its log is on the same disk: what cannot be said is no reason to panic.
        disk.refuse(state.folder(), how, 0, 0);
        assert_eq!(state.start_refused(), Some(4), "{}", state.told());
        disk.heal();
    }
    state.start();
    state.settle();
    scene.messages.wait_for_all(&mut state);
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    // With everything there and the disk read-only, the answer is the same, and what can be read is.
    disk.refuse(&state.folder().join(""), READ_ONLY, 0, 0);
    assert_eq!(state.start_refused(), Some(4), "{}", state.told());
    assert_eq!(state.contents(), scene.calm);
    disk.heal();
    state.start();
    scene.same_in_the_end(&mut state, "a read-only disk");
}

#[test]
fn a_flush_that_fails_once_loses_and_doubles_nothing() {
    let Some(disk) = Disk::new() else { return };
    let scene = Scene::new("delta");
    let mut dice = Dice::new();
    let all = std::env::var_os(ASKED).is_some();
    for folder in if all { &["ledger.db", "lake", "site", "mail"][..] } else { &["ledger.db"] } {
        let mut state = disk.under(scene.world.state(&format!("flush-{folder}")));
        state.produce(&scene.messages.lines);
        state.start();
        state.wait("a controller", State::is_ready);
        let pass = u32::try_from(dice.below(30)).expect("small");
        disk.refuse(&state.folder().join(folder), BROKEN, pass, 1);
        let ended = loop {
            if let Some(ended) = state.ended() {
                break Some(ended);
            }
            if state.settled().is_ok() && scene.messages.all_in(&state).is_ok() {
                break None;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        println!("{folder}: flush {pass} fails, {} refused: {ended:?}", disk.refused());
        disk.heal();
        if let Some(ended) = ended {
            // What the disk holds is in doubt: only reading it again tells.
            assert_eq!((*folder, ended.code()), ("ledger.db", Some(4)), "{}", state.told());
            state.start();
        }
        scene.same_in_the_end(&mut state, folder);
        state.remove();
    }
}

#[test]
fn with_too_few_open_files_it_waits_and_goes_on() {
    let scene = Scene::new("delta");
    let mut state = scene.world.state("files");
    state.produce(&scene.messages.lines);
    state.start();
    state.wait("a controller", State::is_ready);
    let limit = |state: &State<'_>, files: &str| {
        let process = state.process().to_string();
        let set = std::process::Command::new("prlimit")
            .args(["--pid", &process, &format!("--nofile={files}")])
            .status();
        set.is_ok_and(|status| status.success())
    };
    // Below what is open already: whatever is opened next is refused.
    if !limit(&state, "20:4096") {
        println!("skipped: too few open files need `prlimit` of util-linux");
        return;
    }
    let began = Instant::now();
    while began.elapsed() < OUTAGE {
        state.alive();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(limit(&state, "4096:4096"));
    scene.same_in_the_end(&mut state, "too few open files");
    assert!(!state.told().contains("panicked"), "{}", state.told());
}

#[test]
fn a_storm_of_signals_ends_it_in_order_every_time() {
    let scene = Scene::new("delta");
    let mut dice = Dice::new();
    let mut state = scene.world.state("storm");
    state.produce(&scene.messages.lines);
    for _ in 0..3 {
        state.start();
        state.wait("a controller", State::is_ready);
        dice.linger(1_500);
        let began = Instant::now();
        let ended = loop {
            if let Some(ended) = state.ended() {
                break ended;
            }
            for signal in ["TERM", "INT", "TERM"] {
                state.signal(signal);
            }
            assert!(began.elapsed() < PATIENCE, "{}", state.told());
            std::thread::sleep(Duration::from_millis(2));
        };
        assert_eq!(ended.code(), Some(0), "{}", state.told());
        println!("ended within {} ms", began.elapsed().as_millis());
    }
    state.start();
    scene.same_in_the_end(&mut state, "a storm of signals");
}

/// A file system of its own, in memory and small. It goes with the test.
struct Mount(PathBuf);

impl Mount {
    /// Mounts one; nothing where that is not allowed, which is said.
    fn new(at: &Path, bytes: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(at);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            other => {
                println!("skipped: a file system of its own may not be mounted here: {other:?}");
                None
            }
        }
    }

    /// Writes until nothing more fits, and returns the file.
    fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let path = self.0.join("ballast");
        let mut file = File::create(&path).expect("a file");
        for size in [1 << 20, 4096] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_real_file_system_that_is_full_is_waited_out() {
    let scene = Scene::new("iceberg");
    let mut state = scene.world.state("mounted");
    let Some(whole) = Mount::new(state.folder(), "40m") else { return };
    let Some(lake) = Mount::new(&state.folder().join("lake"), "20m") else { return };
    state.produce(&scene.messages.lines);
    state.start();
    state.wait("a controller", State::is_ready);
    for mount in [&lake, &whole] {
        let ballast = mount.fill();
        let began = Instant::now();
        while began.elapsed() < OUTAGE {
            state.alive();
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{}: full for {} ms", mount.0.display(), began.elapsed().as_millis());
        std::fs::remove_file(ballast).expect("removed");
        std::thread::sleep(Duration::from_secs(1));
    }
    scene.same_in_the_end(&mut state, "a real file system");
    assert!(!state.told().contains("panicked"), "{}", state.told());
}
