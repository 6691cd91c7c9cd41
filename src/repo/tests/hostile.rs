//! Repositories that somebody made to do harm, and mirrors that lost something.

use std::time::{Duration, Instant};

use super::*;

/// Far more than listing takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn tree(repo: &git2::Repository, entries: &[(&str, git2::Oid, i32)]) -> git2::Oid {
    let mut tree = repo.treebuilder(None).unwrap();
    for (name, oid, mode) in entries {
        tree.insert(*name, *oid, *mode).unwrap();
    }
    tree.write().unwrap()
}

fn commit(git: &Git, root: git2::Oid) -> CommitId {
    let commit = git.run(&["commit-tree", "-m", "made", &root.to_string()]);
    git.run(&["update-ref", "refs/heads/main", &commit]);
    CommitId::parse(&commit).unwrap()
}

#[test]
fn folders_that_double_at_every_level_end_the_listing() {
    let git = Git::new();
    let repo = git2::Repository::open(git.work()).unwrap();
    // Sixty small objects, 2^60 folders, and not one file.
    let mut root = tree(&repo, &[]);
    for _ in 0..60 {
        root = tree(&repo, &[("a", root, 0o040_000), ("b", root, 0o040_000)]);
    }
    let id = commit(&git, root);
    let started = Instant::now();
    let (here, _) = Repository::discover(&git.work()).unwrap();
    assert!(matches!(here.snapshot(&id), Err(RepoError::TooManyFiles { .. })));
    assert!(matches!(git.open().snapshot(&id), Err(RepoError::TooManyFiles { .. })));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[test]
fn names_that_differ_in_how_an_accent_is_written_keep_one() {
    let git = Git::new();
    let (blob, other) = (git.blob(b"1"), git.blob(b"2"));
    let id = git.raw_commit(&[
        ("100644", "STRASSE.sql".as_bytes(), &blob),
        ("100644", "cafe\u{301}.sql".as_bytes(), &blob),
        ("100644", "caf\u{e9}.sql".as_bytes(), &other),
        ("100644", "stra\u{df}e.sql".as_bytes(), &other),
    ]);
    let snapshot = git.snapshot(&id);
    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["caf\u{e9}.sql", "stra\u{df}e.sql"]);
    let reasons = reasons(&snapshot);
    assert_eq!(reasons["cafe\u{301}.sql"], &Reason::CaseClash { kept: "caf\u{e9}.sql".into() });
    assert_eq!(reasons["STRASSE.sql"], &Reason::CaseClash { kept: "stra\u{df}e.sql".into() });
    // What was left out is unknown, not deleted.
    assert_eq!(snapshot.rejected_touching("").len(), 2);
}

#[test]
fn ten_thousand_folders_in_one_another_are_cut() {
    let git = Git::new();
    let repo = git2::Repository::open(git.work()).unwrap();
    let blob = repo.blob(b"x").unwrap();
    let mut deep = tree(&repo, &[("f", blob, 0o100_644)]);
    for _ in 0..10_000 {
        deep = tree(&repo, &[("d", deep, 0o040_000)]);
    }
    let id = commit(&git, tree(&repo, &[("deep", deep, 0o040_000), ("here.sql", blob, 0o100_644)]));
    let snapshot = git.snapshot(&id);
    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["here.sql"]);
    assert_eq!(snapshot.rejected.len(), 1);
    assert!(matches!(snapshot.rejected[0].reason, Reason::TooDeep { .. }));
}

/// Bytes that no compression makes smaller, so that a file's place in a pack is about its own size.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(size).collect()
}

fn pack_of(mirror: &Path) -> PathBuf {
    let folder = fs::read_dir(mirror.join("objects/pack")).unwrap();
    folder.map(|it| it.unwrap().path()).find(|it| it.extension().is_some_and(|it| it == "pack")).unwrap()
}

#[test]
fn a_damaged_pack_costs_the_files_that_it_damages() {
    let git = Git::new();
    git.write("domains/a/data.csv", noise(300_000));
    git.write("domains/b/b.sql", "SELECT 1");
    let id = git.commit("m");
    let repo = git.open();
    let pack = pack_of(repo.git_dir());
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(&pack, &bytes).unwrap();
    let snapshot = repo.snapshot(&id).unwrap();
    assert!(snapshot.read("domains/a/data.csv").is_err(), "the damage is noticed");
    assert_eq!(snapshot.read("domains/b/b.sql").unwrap(), b"SELECT 1");

    // A pack that was cut off: nothing of it can be trusted, and the next fetch brings all of it again.
    fs::write(&pack, &bytes[..100]).unwrap();
    let damaged = repo.snapshot(&id).and_then(|snapshot| snapshot.read("domains/b/b.sql"));
    assert!(damaged.is_err(), "{damaged:?}");
    git.write("domains/b/b.sql", "SELECT 2");
    let next = git.commit("n");
    repo.fetch().unwrap();
    let snapshot = repo.snapshot(&next).unwrap();
    assert_eq!(snapshot.read("domains/b/b.sql").unwrap(), b"SELECT 2");
    assert_eq!(snapshot.read("domains/a/data.csv").unwrap().len(), 300_000);
}
