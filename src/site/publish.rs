//! Puts a site where it is read, whole or not at all.
//!
//! Each build lands in a folder of its own, `gen-<hash>`, and one rename moves the link `current` to it. A crash at any
//! point leaves the old link and at most a hidden leftover, which the next publication removes.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::SiteError;

/// The link readers follow.
pub const CURRENT: &str = "current";
/// Generations that stay on disk, the current one included: readers may still be in the one before.
const KEPT: usize = 3;
const LOCK: &str = ".lock";
const PARTIAL: &str = ".partial-";
const NEXT_LINK: &str = ".current-next";

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Name of the folder, `gen-` and a hash of its content.
    pub generation: String,
    /// Number of HTML pages.
    pub pages: usize,
}

/// Writes `files` to `out_dir` as a new generation and makes it the current one in a single step.
///
/// The same files give the same generation, so publishing again is a no-op. Three generations are kept.
///
/// # Errors
///
/// [`SiteError::Path`] if a file would lie outside, [`SiteError::Busy`] if another process publishes there, and I/O
/// errors; in each case the current generation stays as it was.
pub fn publish(files: &BTreeMap<String, Vec<u8>>, out_dir: &Path) -> Result<Published, SiteError> {
    for path in files.keys() {
        check_inside(path)?;
    }
    fs::create_dir_all(out_dir).map_err(io_error("create", out_dir))?;
    let _lock = lock(out_dir)?;
    remove_leftovers(out_dir)?;

    let hash = content_hash(files);
    // A generation that was damaged on disk is not mended in place, because readers may be in it.
    let mut generation = format!("gen-{hash}");
    let mut attempt = 1;
    while out_dir.join(&generation).exists() && !is_intact(&out_dir.join(&generation), files) {
        attempt += 1;
        generation = format!("gen-{hash}-{attempt}");
    }
    let home = out_dir.join(&generation);
    if !home.exists() {
        let partial = out_dir.join(format!("{PARTIAL}{hash}"));
        write_all(&partial, files)?;
        fs::rename(&partial, &home).map_err(io_error("rename", &partial))?;
    }
    touch(&home)?;
    sync_dir(out_dir)?;
    swap_link(out_dir, &generation)?;
    prune(out_dir, &generation)?;
    Ok(Published { generation, pages: files.keys().filter(|p| p.ends_with(".html")).count() })
}

/// Hashes lengths as well as content, so that no two sets of files run together to the same bytes.
fn content_hash(files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut hash = Sha256::new();
    for (path, bytes) in files {
        hash.update((path.len() as u64).to_be_bytes());
        hash.update(path.as_bytes());
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    hex::encode(&hash.finalize()[..8])
}

fn check_inside(path: &str) -> Result<(), SiteError> {
    let inside = !path.is_empty()
        && !path.contains(['\\', '\0'])
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if inside { Ok(()) } else { Err(SiteError::Path(path.to_owned())) }
}

fn lock(out_dir: &Path) -> Result<File, SiteError> {
    let path = out_dir.join(LOCK);
    let file = File::create(&path).map_err(io_error("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SiteError::Busy(out_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

fn remove_leftovers(out_dir: &Path) -> Result<(), SiteError> {
    for entry in fs::read_dir(out_dir).map_err(io_error("list", out_dir))? {
        let path = entry.map_err(io_error("list", out_dir))?.path();
        if name_of(&path).starts_with(PARTIAL) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

fn write_all(home: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<(), SiteError> {
    let mut folders = std::collections::BTreeSet::from([home.to_owned()]);
    fs::create_dir(home).map_err(io_error("create", home))?;
    for (path, bytes) in files {
        let target = home.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(io_error("create", parent))?;
            folders.extend(parent.ancestors().take_while(|a| a.starts_with(home)).map(Path::to_owned));
        }
        let mut file = File::create_new(&target).map_err(io_error("create", &target))?;
        file.write_all(bytes).map_err(io_error("write", &target))?;
        file.sync_all().map_err(io_error("sync", &target))?;
    }
    // A file survives a power loss only if the folder that names it does.
    folders.iter().rev().try_for_each(|folder| sync_dir(folder))
}

fn is_intact(home: &Path, files: &BTreeMap<String, Vec<u8>>) -> bool {
    files.iter().all(|(path, bytes)| fs::read(home.join(path)).is_ok_and(|found| found == *bytes))
}

/// Makes a generation the newest, as age decides what is pruned.
fn touch(home: &Path) -> Result<(), SiteError> {
    let now = SystemTime::now();
    File::open(home).and_then(|f| f.set_modified(now)).map_err(io_error("touch", home))
}

fn swap_link(out_dir: &Path, generation: &str) -> Result<(), SiteError> {
    let next = out_dir.join(NEXT_LINK);
    match fs::remove_file(&next) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &next)(e)),
        _ => {}
    }
    // Relative, so that the folder can be moved or mounted elsewhere.
    std::os::unix::fs::symlink(generation, &next).map_err(io_error("link", &next))?;
    let current = out_dir.join(CURRENT);
    crate::fault::point("site.before-switch");
    fs::rename(&next, &current).map_err(io_error("swap", &current))?;
    sync_dir(out_dir)
}

fn prune(out_dir: &Path, current: &str) -> Result<(), SiteError> {
    let mut old: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(out_dir).map_err(io_error("list", out_dir))? {
        let entry = entry.map_err(io_error("list", out_dir))?;
        let path = entry.path();
        let meta = entry.metadata().map_err(io_error("inspect", &path))?;
        if meta.is_dir() && name_of(&path).starts_with("gen-") && name_of(&path) != current {
            old.push((meta.modified().map_err(io_error("inspect", &path))?, path));
        }
    }
    old.sort();
    old.reverse();
    for (_, path) in old.into_iter().skip(KEPT - 1) {
        fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
    }
    Ok(())
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

fn sync_dir(path: &Path) -> Result<(), SiteError> {
    File::open(path).and_then(|f| f.sync_all()).map_err(io_error("sync", path))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SiteError {
    let path = path.to_owned();
    move |source| SiteError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(text: &str) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([
            ("index.html".to_owned(), text.as_bytes().to_vec()),
            ("p/a/b/index.html".to_owned(), b"page".to_vec()),
            ("feed.atom".to_owned(), b"feed".to_vec()),
        ])
    }

    fn generations(out: &Path) -> usize {
        fs::read_dir(out)
            .unwrap()
            .filter(|e| name_of(&e.as_ref().unwrap().path()).starts_with("gen-"))
            .count()
    }

    #[test]
    fn current_is_whole_and_publishing_again_changes_nothing() {
        let out = tempfile::tempdir().unwrap();
        let first = publish(&site("one"), out.path()).unwrap();
        assert_eq!(first.pages, 2);
        assert_eq!(fs::read_to_string(out.path().join("current/index.html")).unwrap(), "one");
        assert_eq!(fs::read_to_string(out.path().join("current/p/a/b/index.html")).unwrap(), "page");
        assert_eq!(publish(&site("one"), out.path()).unwrap(), first);
        assert_eq!(generations(out.path()), 1);
    }

    #[test]
    fn three_generations_stay_and_the_current_one_always() {
        let out = tempfile::tempdir().unwrap();
        let mut names = Vec::new();
        for n in 0..6 {
            names.push(publish(&site(&n.to_string()), out.path()).unwrap().generation);
        }
        assert_eq!(generations(out.path()), 3);
        for name in &names[3..] {
            assert!(out.path().join(name).exists());
        }
        // Going back to an old content makes it the newest again.
        let back = publish(&site("3"), out.path()).unwrap();
        assert_eq!(back.generation, names[3]);
        publish(&site("7"), out.path()).unwrap();
        assert!(out.path().join(&names[3]).exists() && !out.path().join(&names[4]).exists());
    }

    #[test]
    fn a_failure_midway_leaves_the_old_site() {
        let out = tempfile::tempdir().unwrap();
        publish(&site("old"), out.path()).unwrap();
        // A file where a folder must be makes writing fail after some files are written.
        let mut torn = site("new");
        torn.insert("p".to_owned(), b"in the way".to_vec());
        assert!(matches!(publish(&torn, out.path()), Err(SiteError::Io { .. })));
        assert_eq!(fs::read_to_string(out.path().join("current/index.html")).unwrap(), "old");
        assert_eq!(generations(out.path()), 1);
        // What it left behind does not stand in the way.
        publish(&site("new"), out.path()).unwrap();
        assert_eq!(fs::read_to_string(out.path().join("current/index.html")).unwrap(), "new");
        let left: Vec<_> = fs::read_dir(out.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.starts_with(PARTIAL))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn readers_never_see_a_mixture() {
        let out = tempfile::tempdir().unwrap();
        let pair = |n: u32| {
            BTreeMap::from([
                ("a.html".to_owned(), n.to_string().into_bytes()),
                ("b.html".to_owned(), n.to_string().into_bytes()),
            ])
        };
        publish(&pair(0), out.path()).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while seen < 60 {
                    // A reader resolves the link once, as a server with an open folder does.
                    let Ok(home) = fs::canonicalize(out.path().join(CURRENT)) else {
                        panic!("no current site")
                    };
                    let (a, b) = (fs::read(home.join("a.html")), fs::read(home.join("b.html")));
                    // Only a generation pruned meanwhile may be missing.
                    if let (Ok(a), Ok(b)) = (a, b) {
                        assert_eq!(a, b);
                    }
                    seen += 1;
                }
            });
            for n in 1..30 {
                publish(&pair(n), out.path()).unwrap();
            }
            reader.join().unwrap();
        });
    }

    #[test]
    fn a_damaged_generation_is_replaced() {
        let out = tempfile::tempdir().unwrap();
        let first = publish(&site("one"), out.path()).unwrap();
        fs::write(out.path().join(&first.generation).join("feed.atom"), "torn").unwrap();
        let second = publish(&site("one"), out.path()).unwrap();
        assert_ne!(first.generation, second.generation);
        assert_eq!(fs::read_to_string(out.path().join("current/feed.atom")).unwrap(), "feed");
    }

    #[test]
    fn files_stay_inside_and_two_publishers_take_turns() {
        let out = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/x", "", "a/../../x", "a\\b", "./a/../.."] {
            let files = BTreeMap::from([(path.to_owned(), Vec::new())]);
            assert!(matches!(publish(&files, out.path()), Err(SiteError::Path(_))), "{path}");
        }
        let held = lock(out.path()).unwrap();
        assert!(matches!(publish(&site("x"), out.path()), Err(SiteError::Busy(_))));
        drop(held);
        publish(&site("x"), out.path()).unwrap();
    }
}
