//! Files that are cut, overwritten or missing: each heals by itself and leads to the tables of an undisturbed run, or the start
//! is refused with a code and with what to do, which then leads there.

use std::fs;
use std::path::{Path, PathBuf};

use super::world::{State, World};
use super::{DAILY, Dice, EVENTS, SALES, like_others};
use crate::support::text;

/// Tables are looked at every second.
const OFTEN: &[&str] = &["--poll", "0.5", "--observe", "1"];

/// Returns the files below a folder whose names a test is for, in order of their names.
fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if wanted(&entry.file_name().to_string_lossy()) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What may become of a file.
#[derive(Debug, Clone, Copy)]
enum Tear {
    /// A part of it is left.
    Cut,
    Empty,
    /// It has its length, and says something else.
    Garbage,
    Missing,
}

impl Tear {
    fn befall(self, path: &Path, dice: &mut Dice) {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let length = u64::try_from(bytes.len()).expect("small");
        // Others may have the file open: they see what becomes of it, as with a disk that fails.
        match self {
            Self::Cut => {
                let kept = dice.below(length.max(2) - 1) + 1;
                fs::File::options().write(true).open(path).and_then(|file| file.set_len(kept)).expect("cut");
            }
            Self::Empty => {
                fs::File::options().write(true).open(path).and_then(|file| file.set_len(0)).expect("cut");
            }
            Self::Garbage => fs::write(path, vec![0xa5; bytes.len()]).expect("written"),
            Self::Missing => fs::remove_file(path).expect("removed"),
        }
        println!("{self:?}: {} of {length} bytes", path.display());
    }
}

#[test]
fn what_is_torn_in_a_state_folder_heals_or_is_refused_with_what_to_do() {
    let (world, messages, calm) = like_others("delta", "4d");
    let mut dice = Dice::new();
    let mut state = world.state("state");
    state.produce(&messages.lines);
    state.start();
    state.settle();
    messages.wait_for_all(&mut state);
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    let all_is_well = |state: &mut State<'_>, what: &str| {
        state.settle();
        messages.wait_for_all(state);
        assert_eq!(state.contents(), calm, "{what}\n{}", state.told());
        assert!(!state.told().contains("panicked"), "{what}\n{}", state.told());
    };

    // What is made again: nothing that is in it counts.
    for name in [
        "spill/left",
        "look",
        "controller.json",
        "commit-statuses",
        "board/places/work-1-x",
        "site/.partial-x",
        "mail/.x.partial",
    ] {
        let path = state.folder().join(name);
        fs::create_dir_all(path.parent().expect("inside")).expect("a folder");
        fs::write(path, [0xff; 300]).expect("written");
    }
    for file in files(&state.folder().join("site"), |_| true).into_iter().rev().take(3) {
        Tear::Cut.befall(&file, &mut dice);
    }
    state.start();
    all_is_well(&mut state, "what is made again");

    // Killed with its log ahead of it, which is then lost, torn, or without its index.
    for (suffix, tear) in [
        ("-shm", Tear::Missing),
        ("-shm", Tear::Garbage),
        ("-wal", Tear::Cut),
        ("-wal", Tear::Garbage),
        ("-wal", Tear::Missing),
    ] {
        state.kill();
        let what = format!("{suffix} {tear:?}");
        tear.befall(&state.folder().join(format!("ledger.db{suffix}")), &mut dice);
        state.start();
        // Facts that only the log had may be gone; the tables know.
        if !came_up(&mut state) {
            println!("{what}: refused, and mended as the code says");
            mend_as_said(&mut state);
        }
        all_is_well(&mut state, &what);
    }
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());

    // The file itself.
    for tear in [Tear::Garbage, Tear::Cut, Tear::Empty] {
        let path = state.folder().join("ledger.db");
        if matches!(tear, Tear::Garbage) {
            // A page in the middle: what is before it looks as it should.
            let mut bytes = fs::read(&path).expect("read");
            let page = bytes.len() / 4096 / 2 * 4096;
            bytes[page..page + 4096].fill(0xa5);
            fs::write(&path, bytes).expect("written");
        } else {
            tear.befall(&path, &mut dice);
        }
        state.start();
        if came_up(&mut state) {
            // An empty file is no ledger that is damaged, but none.
            assert!(matches!(tear, Tear::Empty), "{tear:?} was not noticed");
        } else {
            mend_as_said(&mut state);
        }
        all_is_well(&mut state, &format!("ledger.db {tear:?}"));
        assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    }

    // The note of where the ledger is.
    let note = state.folder().join("ledger.json");
    fs::write(&note, "{\"environment\": \"d").expect("written");
    assert_eq!(state.start_refused(), Some(4), "{}", state.told());
    assert!(state.told().contains("ledger.json") && state.told().contains("remove it"), "{}", state.told());
    fs::remove_file(note).expect("removed");
    state.start();
    all_is_well(&mut state, "ledger.json");
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}

/// Waits until a controller says that it is ready, or has ended with a refusal; returns whether it is ready.
#[track_caller]
fn came_up(state: &mut State<'_>) -> bool {
    loop {
        if let Some(ended) = state.ended() {
            let told = state.told();
            assert_eq!(ended.code(), Some(4), "{told}");
            assert!(!told.contains("panicked"), "{told}");
            assert!(told.contains("HM-X013") || told.contains("Remove that folder"), "{told}");
            return false;
        }
        if state.is_ready().is_ok() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Does what `hydromesh explain HM-X013` says, and starts.
fn mend_as_said(state: &mut State<'_>) {
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let _ = fs::remove_file(state.folder().join(name));
    }
    let _ = fs::remove_dir_all(state.folder().join("board"));
    state.start();
}

#[test]
fn a_torn_mirror_of_the_repository_is_made_again() {
    let world = World::new("10d");
    let mut state = world.state("mirror");
    state.start();
    state.settle();
    let before = state.contents();
    let mut dice = Dice::new();
    for tear in [Tear::Garbage, Tear::Missing, Tear::Cut] {
        // Everything that the mirror holds; then a new commit that needs some of it.
        let hex = |name: &str| name.len() == 38 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mirrored = files(&state.folder().join("repo"), |name| hex(name) || name.ends_with(".pack"));
        for file in mirrored.into_iter().filter(|path| !text(path).contains(".damaged/")) {
            let mut about = fs::metadata(&file).expect("there").permissions();
            #[expect(clippy::permissions_set_readonly_false, reason = "a file of the test's own")]
            about.set_readonly(false);
            fs::set_permissions(&file, about).expect("writable");
            tear.befall(&file, &mut dice);
        }
        let commit = world
            .commit(&format!("Another, {tear:?}"), &super::mesh::reader(&format!("more-{}", tear as u8)));
        state.wait("the commit", |state| {
            let status = state.json(&["status"])?;
            let done = status["commit"]["commit"] == commit && status["commit"]["outcome"] == "applied";
            if done { Ok(()) } else { Err(format!("{status:#}")) }
        });
        state.settle();
    }
    let mut after = state.contents();
    after.retain(|address, _| before.contains_key(address));
    assert_eq!(after, before);
    assert!(!state.told().contains("panicked"), "{}", state.told());
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}

#[test]
fn what_is_torn_in_a_lake_is_noticed_and_made_again() {
    let mut dice = Dice::new();
    for format in ["delta", "iceberg"] {
        let (world, messages, calm) = like_others(format, "4d");
        let mut state = world.state("lake").with(OFTEN);
        state.produce(&messages.lines);
        state.start();
        state.settle();
        messages.wait_for_all(&mut state);
        let cases: &[(&str, &str, Tear)] = match format {
            "delta" => &[
                (SALES, ".parquet", Tear::Cut),
                (DAILY, ".json", Tear::Cut),
                (DAILY, ".json", Tear::Empty),
                (SALES, "_last_checkpoint", Tear::Garbage),
                (SALES, ".checkpoint.parquet", Tear::Cut),
                (DAILY, ".json", Tear::Missing),
            ],
            _ => &[
                (SALES, ".parquet", Tear::Cut),
                (DAILY, ".metadata.json", Tear::Cut),
                (SALES, ".avro", Tear::Cut),
                (DAILY, ".avro", Tear::Missing),
                (SALES, "version-hint.text", Tear::Garbage),
            ],
        };
        for (address, ending, tear) in cases {
            let what = format!("{format} {address} {ending} {tear:?}");
            let found = files(&state.table_folder(address), |name| {
                name.ends_with(ending) && (*ending != ".parquet" || name.starts_with("part-"))
            });
            let newest = found
                .iter()
                .max_by_key(|path| fs::metadata(path).and_then(|it| it.modified()).expect("there"));
            tear.befall(newest.unwrap_or_else(|| panic!("{what}: no such file")), &mut dice);
            let began = std::time::Instant::now();
            // It may be read from elsewhere, mended, or made again; what it shows in the end is what counts.
            state.wait(&what, |state| {
                state.settled()?;
                for address in calm.keys() {
                    let found = state.hash(address)?;
                    if found != calm[address] {
                        return Err(format!("{address} shows something else"));
                    }
                }
                Ok(())
            });
            println!("{what}: as before within {} ms", began.elapsed().as_millis());
            state.settle();
        }
        // A stream's table is not made again by itself: its topic may have forgotten. People are told and decide.
        let ending = if format == "delta" { ".json" } else { ".metadata.json" };
        for log in files(&state.table_folder(EVENTS), |name| name.ends_with(ending)) {
            Tear::Garbage.befall(&log, &mut dice);
        }
        state.wait("an alert", |state| {
            let mails = state.mails();
            if mails.iter().any(|mail| mail.contains("shop/events")) {
                Ok(())
            } else {
                Err(format!("{mails:?}"))
            }
        });
        state.ask(&["why", "shop/events"]).says("its log is damaged");
        let away = state.folder().join(format!("away-{format}"));
        fs::rename(state.table_folder(EVENTS), away).expect("moved away");
        messages.wait_for_all(&mut state);
        state.settle();
        assert_eq!(state.contents(), calm);
        assert!(!state.told().contains("panicked"), "{}", state.told());
        assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    }
}
