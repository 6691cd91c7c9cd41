//! Power that is cut: what was not flushed by then is gone, or there in part and in any order, and the controller that starts on
//! what is left ends with the same tables.
//!
//! A small library between the process and the operating system keeps a journal of every change below the state folder
//! (`power.c`). The journal is played up to a random point as POSIX promises it and no better: bytes of a file last once the file
//! was flushed, names once their folder was. Of everything else each file keeps nothing, all, or some with the last one torn at a
//! sector, and each folder any number of its changes, in their order.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::world::State;
use super::{Dice, like_others};
use crate::support::text;

/// What a disk writes whole.
const SECTOR: u64 = 512;
/// Bytes of a record before its texts, as in `power.c`.
const HEAD: usize = 32;
/// Names what is played: nothing for a few cuts, `all` for many (`make crash`).
const ASKED: &str = "HYDROMESH_CRASH_POINTS";

/// One change.
struct Record<'a> {
    kind: u8,
    inode: u64,
    at: u64,
    first: &'a [u8],
    second: &'a [u8],
}

/// Returns the changes of a journal in order. The last may be torn: its process was killed.
fn records(journal: &[u8]) -> Vec<Record<'_>> {
    let mut found = Vec::new();
    let mut rest = journal;
    while rest.len() >= HEAD {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_ne_bytes(rest[at..at + 8].try_into().expect("eight bytes"));
        let (first, second) = (word(4) as usize, word(8) as usize);
        let Some(texts) = rest.get(HEAD..HEAD + first + second) else { break };
        let (kind, (one, two)) = (u8::try_from(word(0)).expect("a letter"), texts.split_at(first));
        found.push(Record { kind, inode: long(16), at: long(24), first: one, second: two });
        rest = &rest[HEAD + first + second..];
    }
    found
}

/// A change of a file's bytes.
#[derive(Clone)]
enum Change {
    Bytes(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Bytes(at, new) => {
                let (from, to) = (small(*at), small(*at) + new.len());
                bytes.resize(bytes.len().max(to), 0);
                bytes[from..to].copy_from_slice(new);
            }
            Self::Length(length) => bytes.resize(small(*length), 0),
        }
    }
}

/// A change of a folder's names.
#[derive(Clone)]
enum Naming {
    Put(String, usize),
    Gone(String),
    /// From one name to another of the same folder, at once.
    Moved(String, String, usize),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Put(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Gone(name) => drop(names.remove(name)),
            Self::Moved(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

/// What has a name: what is on the disk for sure, and what was changed since.
enum Node {
    File { flushed: Vec<u8>, since: Vec<Change> },
    Folder { flushed: BTreeMap<String, usize>, now: BTreeMap<String, usize>, since: Vec<Naming> },
    Link(String),
}

/// A disk at one moment.
struct Disk {
    nodes: Vec<Node>,
    /// The file of each inode, the newest of those that had the number.
    files: HashMap<u64, usize>,
}

impl Disk {
    fn new() -> Self {
        Self { nodes: vec![Self::folder()], files: HashMap::new() }
    }

    fn folder() -> Node {
        Node::Folder { flushed: BTreeMap::new(), now: BTreeMap::new(), since: Vec::new() }
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Returns what is at a path now; what a process did not make under our eyes is not there.
    fn at(&self, path: &str) -> Option<usize> {
        path.split('/').filter(|part| !part.is_empty()).try_fold(0, |node, part| match &self.nodes[node] {
            Node::Folder { now, .. } => now.get(part).copied(),
            _ => None,
        })
    }

    fn name(&mut self, folder: &str, naming: Naming) {
        let Some(at) = self.at(folder) else { return };
        let Node::Folder { now, since, .. } = &mut self.nodes[at] else { return };
        naming.apply(now);
        since.push(naming);
    }

    fn put(&mut self, path: &str, node: usize) {
        let (folder, name) = split(path);
        self.name(folder, Naming::Put(name.to_owned(), node));
    }

    fn change(&mut self, inode: u64, change: Change) {
        if let Some(&at) = self.files.get(&inode)
            && let Node::File { since, .. } = &mut self.nodes[at]
        {
            since.push(change);
        }
    }

    fn play(&mut self, record: &Record<'_>) {
        let word = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let (first, second) = (|| word(record.first), || word(record.second));
        match record.kind {
            b'C' => {
                let file = self.add(Node::File { flushed: Vec::new(), since: Vec::new() });
                self.files.insert(record.inode, file);
                self.put(&first(), file);
            }
            b'W' => self.change(record.inode, Change::Bytes(record.at, record.first.to_vec())),
            b'T' => self.change(record.inode, Change::Length(record.at)),
            b'S' => {
                if let Some(&at) = self.files.get(&record.inode)
                    && let Node::File { flushed, since } = &mut self.nodes[at]
                {
                    since.drain(..).for_each(|change| change.apply(flushed));
                }
            }
            b'D' => {
                if let Some(at) = self.at(&first())
                    && let Node::Folder { flushed, since, .. } = &mut self.nodes[at]
                {
                    since.drain(..).for_each(|naming| naming.apply(flushed));
                }
            }
            b'M' => {
                let folder = self.add(Self::folder());
                self.put(&first(), folder);
            }
            b'Y' => {
                let link = self.add(Node::Link(second()));
                self.put(&first(), link);
            }
            b'L' => {
                if let Some(node) = self.at(&first()) {
                    self.put(&second(), node);
                }
            }
            b'R' => {
                let (from, to) = (first(), second());
                let Some(node) = self.at(&from) else { return };
                let ((old, before), (new, after)) = (split(&from), split(&to));
                if old == new {
                    self.name(old, Naming::Moved(before.to_owned(), after.to_owned(), node));
                } else {
                    self.put(&to, node);
                    self.name(old, Naming::Gone(before.to_owned()));
                }
            }
            b'U' => {
                let path = first();
                let (folder, name) = split(&path);
                self.name(folder, Naming::Gone(name.to_owned()));
            }
            other => panic!("the library and its reader differ about {other}"),
        }
    }

    /// Writes what the disk has when the power is back.
    fn restore(&self, node: usize, path: &Path, dice: &mut Dice) {
        match &self.nodes[node] {
            Node::File { flushed, since } => {
                let mut bytes = flushed.clone();
                for change in lasting(since, dice) {
                    change.apply(&mut bytes);
                }
                std::fs::write(path, bytes).expect("written");
            }
            Node::Link(to) => std::os::unix::fs::symlink(to, path).expect("a link"),
            Node::Folder { flushed, since, .. } => {
                std::fs::create_dir_all(path).expect("a folder");
                let mut names = flushed.clone();
                let kept = small(dice.below(since.len() as u64 + 1));
                since[..kept].iter().for_each(|naming| naming.apply(&mut names));
                for (name, node) in names {
                    self.restore(node, &path.join(name), dice);
                }
            }
        }
    }
}

/// Returns what lasts of changes that were not flushed.
fn lasting(since: &[Change], dice: &mut Dice) -> Vec<Change> {
    if since.is_empty() {
        return Vec::new();
    }
    match dice.below(4) {
        0 => Vec::new(),
        1 => since.to_vec(),
        // In their order, the last one torn.
        2 => {
            let mut kept = since[..=small(dice.below(since.len() as u64))].to_vec();
            if let Some(Change::Bytes(_, bytes)) = kept.last_mut() {
                let sectors = dice.below(bytes.len() as u64 / SECTOR + 1);
                bytes.truncate(small(sectors * SECTOR));
            }
            kept
        }
        _ => since.iter().filter(|_| dice.below(2) == 0).cloned().collect(),
    }
}

/// Returns a number of what is in memory.
fn small(number: u64) -> usize {
    usize::try_from(number).expect("it is in memory")
}

/// Splits a path into its folder and its name.
fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Returns the library, compiled once; nothing where no C compiler is, which is said.
fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<(PathBuf, tempfile::TempDir)>> = OnceLock::new();
    LIBRARY.get_or_init(|| super::preload("power")).as_ref().map(|(path, _)| path.as_path())
}

/// Copies a folder that was never on the disk in question.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

/// Cuts the power of a controller on tables of a format so many times, each time at another point of the same run.
fn cut(format: &str, times: u64) {
    let Some(library) = library() else { return };
    let (world, messages, calm) = like_others(format, "4d");
    let journal = world.folder("journals").join("journal");
    let name = |what: &str| format!("{what}-{format}");
    let begun = world.state(&name("begun"));
    let folder = begun.folder().to_owned();
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut begun = begun
        .knowing("LD_PRELOAD", text(library))
        .knowing("HYDROMESH_TEST_POWER_ROOT", text(&folder))
        .knowing("HYDROMESH_TEST_POWER_JOURNAL", text(&journal));
    begun.produce(&messages.lines);
    begun.start();
    begun.settle();
    messages.wait_for_all(&mut begun);
    begun.kill();
    assert_eq!(begun.contents(), calm, "the library changes nothing\n{}", begun.told());

    // Iceberg's tables know where they are, so every cut is played where the run was.
    let topics = world.folder(&name("messages"));
    copy(&folder.join("topics"), &topics);
    begun.remove();
    let journal = std::fs::read(&journal).expect("a journal");
    let records = records(&journal);
    println!("{format}: {} changes, {} bytes", records.len(), journal.len());
    let mut dice = Dice::new();
    for round in 0..times {
        let upto = small(dice.below(records.len() as u64));
        println!("{format}, round {round}: cut after {upto} changes");
        let mut disk = Disk::new();
        records[..upto].iter().for_each(|record| disk.play(record));
        let mut state = world.state(&name("begun"));
        disk.restore(0, &folder, &mut dice);
        copy(&topics, &folder.join("topics"));
        goes_on(&mut state, upto);
        messages.wait_for_all(&mut state);
        assert_eq!(state.contents(), calm, "cut after {upto} changes\n{}", state.told());
        assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
        assert!(!state.told().contains("panicked"), "{}", state.told());
        state.remove();
    }
}

/// Starts a controller on what is left; nobody has to repair anything.
#[track_caller]
fn goes_on(state: &mut State<'_>, upto: usize) {
    state.start();
    state.settle();
    let told = state.told();
    assert!(!told.contains("HM-X013"), "cut after {upto} changes, something is damaged\n{told}");
}

#[test]
fn power_that_is_cut_costs_nothing_that_was_acknowledged_and_needs_no_repair() {
    let times = if std::env::var_os(ASKED).is_some() { 60 } else { 2 };
    for format in ["delta", "iceberg"] {
        cut(format, times);
    }
}
