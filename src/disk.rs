//! What a disk refuses for a while: room, or to be written at all. Neither is anybody's mistake in the mesh, and both pass.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The code under which people are told.
pub const CODE: &str = "HM-X012";

/// Written to find out whether a disk takes anything: a block of the usual size.
const BLOCK: [u8; 4096] = [0; 4096];

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room, or the quota is used up.
    Full,
    /// The file system is mounted read-only, which Linux also does by itself when a disk fails.
    ReadOnly,
    /// This process, or the machine, has as many files open as it may.
    TooManyOpen,
}

/// How operating systems, and libraries that hand on their words, put it. In lower case.
const WORDS: [(&str, Refusal); 8] = [
    ("no space left on device", Refusal::Full),
    ("disk quota exceeded", Refusal::Full),
    ("database or disk is full", Refusal::Full),
    ("read-only file system", Refusal::ReadOnly),
    ("attempt to write a readonly database", Refusal::ReadOnly),
    ("too many open files", Refusal::TooManyOpen),
    ("no file descriptors available", Refusal::TooManyOpen),
    ("file table overflow", Refusal::TooManyOpen),
];

/// Makes a folder and those above it, as durable as the files in them will be: a flushed file whose folder has no name after a
/// loss of power is as lost as one that was never written.
///
/// # Errors
/// When one cannot be made, or something else has its name.
pub fn create_folders(folder: &Path) -> io::Result<()> {
    // One that is there is flushed, because whoever made it had this until it was.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let missing: Vec<&Path> = folder.ancestors().take_while(|it| !it.is_dir()).collect();
    fs::create_dir_all(folder)?;
    for made in missing.into_iter().rev() {
        // The parent of a relative name of one part is where the process stands.
        let above = made.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match File::open(above) {
            // Who may make folders there need not be allowed to look.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            opened => opened?.sync_all()?,
        }
    }
    Ok(())
}

/// Replaces a file by one with these bytes, which appears whole or not at all, whenever the power fails. Only one process may do
/// that at a time.
///
/// # Errors
/// When its folder cannot be written; what was there before then still is.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    hidden.push(".part");
    let part = path.with_file_name(hidden);
    let mut file = File::create(&part)?;
    // On the disk before it has its name: one that a power cut emptied would be taken for what it is not.
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Copies a file, flushed, under a name that nothing has yet, and returns its bytes; nothing when it has gone meanwhile.
///
/// # Errors
/// When it cannot be read, or the copy cannot be written.
pub fn copy(from: &Path, to: &Path) -> io::Result<Option<u64>> {
    let mut source = match File::open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut copy = File::create_new(to)?;
    let bytes = io::copy(&mut source, &mut copy)?;
    copy.sync_all()?;
    Ok(Some(bytes))
}

/// Returns whether nothing is in a folder, or it is not there. Folders that are empty themselves, such as places to mount a disk
/// at, are nothing.
///
/// # Errors
/// When it cannot be looked at.
pub fn is_empty(folder: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        listed => listed?,
    };
    for entry in entries {
        let entry = entry?;
        // What file systems make by themselves may be looked into by nobody else.
        if entry.file_name() != "lost+found" && !(entry.path().is_dir() && is_empty(&entry.path())?) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Refusal {
    /// Returns what an error of the operating system refuses, if it is one of these.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Some(Self::Full),
            Some(libc::EROFS) => Some(Self::ReadOnly),
            Some(libc::EMFILE | libc::ENFILE) => Some(Self::TooManyOpen),
            _ => None,
        }
    }

    /// Returns what the text of an error says that is refused. Table formats, queries and git hand on what the operating
    /// system said as text alone.
    #[must_use]
    pub fn in_text(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        WORDS.iter().find(|(words, _)| text.contains(words)).map(|(_, refusal)| *refusal)
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::Full => "free space there (`df -h`, and `df -i` for names)",
            Self::ReadOnly => {
                "make it writable again (`dmesg` says whether the disk failed; `mount -o remount,rw`)"
            }
            Self::TooManyOpen => "raise the limit of open files (`ulimit -n`, `LimitNOFILE=` of systemd)",
        }
    }
}

/// Finds out whether a folder takes a new file with something in it.
///
/// # Errors
/// What the operating system says when it does not.
pub fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".probe-{}", uuid::Uuid::new_v4().simple()));
    let written =
        File::create_new(&path).and_then(|mut file| file.write_all(&BLOCK).and_then(|()| file.sync_all()));
    // It may never have come to be; one that stays would be hidden and small.
    let _ = std::fs::remove_file(&path);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operating_system_says_is_understood_as_number_and_as_text() {
        for (number, refusal) in [
            (libc::ENOSPC, Refusal::Full),
            (libc::EDQUOT, Refusal::Full),
            (libc::EROFS, Refusal::ReadOnly),
            (libc::EMFILE, Refusal::TooManyOpen),
            (libc::ENFILE, Refusal::TooManyOpen),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(Refusal::of(&error), Some(refusal), "{error}");
            assert_eq!(Refusal::in_text(&format!("delta table: {error}")), Some(refusal), "{error}");
        }
        for other in [libc::EIO, libc::EACCES, libc::ENOENT] {
            let error = io::Error::from_raw_os_error(other);
            assert_eq!((Refusal::of(&error), Refusal::in_text(&error.to_string())), (None, None), "{error}");
        }
    }

    #[test]
    fn only_folders_without_anything_are_empty_and_copies_replace_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(is_empty(folder.path()).unwrap() && is_empty(&at("none")).unwrap());
        fs::create_dir_all(at("lake/shop")).unwrap();
        assert!(is_empty(folder.path()).unwrap());
        fs::write(at("lake/shop/one"), "one").unwrap();
        assert!(!is_empty(folder.path()).unwrap());
        assert_eq!(copy(&at("lake/shop/one"), &at("two")).unwrap(), Some(3));
        assert_eq!(copy(&at("gone"), &at("three")).unwrap(), None);
        assert!(!at("three").exists());
        assert!(copy(&at("two"), &at("lake/shop/one")).is_err());
    }

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        probe(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(probe(&folder.path().join("none")).is_err());
    }
}
