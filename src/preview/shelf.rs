//! The previews of one state folder.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::note::{Name, Note};
use crate::clock::Clock;
use crate::store::Place;

/// Where previews are in their parent's state folder.
const FOLDER: &str = "previews";
/// Held while previews come and go.
const LOCK: &str = ".lock";
/// What folders are called that are being removed.
const GONE: &str = ".gone-";

/// Why a preview cannot be begun or removed.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// There is none of that name.
    #[error("there is no {name}; `hydromesh list --previews` names them all")]
    Absent {
        /// The name.
        name: Name,
    },
    /// Something else is in its place.
    #[error("{} is no preview; nothing of it is touched", path.display())]
    Foreign {
        /// What is there.
        path: PathBuf,
    },
    /// It is being built.
    #[error("{name} is being built by another process; wait for its end, or stop it")]
    Busy {
        /// The name.
        name: Name,
    },
    /// The folder.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PreviewError + use<> {
    let path = path.to_path_buf();
    move |source| PreviewError::Io { doing, path, source }
}

/// The previews of one state folder.
#[derive(Debug, Clone)]
pub struct Shelf {
    root: PathBuf,
}

impl Shelf {
    /// Returns the previews of a parent's state folder.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self { root: state.join(FOLDER) }
    }

    /// Returns the state folder of a preview, which need not be there.
    #[must_use]
    pub fn folder(&self, name: &Name) -> PathBuf {
        self.root.join(name.as_str())
    }

    /// Returns the notes of all previews, by name.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        let names = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.filter_map(|name| Name::of_folder(&name));
        let mut notes: Vec<Note> = names.filter_map(|name| self.note(&name).ok()).collect();
        notes.sort_by(|left, right| left.preview.cmp(&right.preview));
        notes
    }

    /// Returns the note of a preview.
    ///
    /// # Errors
    /// [`PreviewError::Absent`], or [`PreviewError::Foreign`] when something else is in its place.
    pub fn note(&self, name: &Name) -> Result<Note, PreviewError> {
        let path = self.folder(name);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(PreviewError::Absent { name: name.clone() })
            }
            Err(source) => Err(io("look at", &path)(source)),
            Ok(about) if about.is_dir() => {
                let note = Note::read(&path).filter(|note| note.preview == *name);
                note.ok_or(PreviewError::Foreign { path })
            }
            Ok(_) => Err(PreviewError::Foreign { path }),
        }
    }

    /// Begins a preview, or lets one that is there live longer, and removes those that have expired; with `anew` what was
    /// there of it goes first. Returns its note.
    ///
    /// # Errors
    /// [`PreviewError`].
    pub fn keep(&self, wanted: &Note, now_ms: i64, anew: bool) -> Result<Note, PreviewError> {
        let _held = self.hold()?;
        let name = &wanted.preview;
        let folder = self.folder(name);
        let known = match self.note(name) {
            // One that has expired begins again, and so does one that lies over another lake.
            Ok(known) => Some(known).filter(|it| !anew && it.expires_ms > now_ms && it.lake == wanted.lake),
            Err(PreviewError::Absent { .. }) => None,
            Err(error) => return Err(error),
        };
        if known.is_none() && folder.exists() {
            self.take_away(name)?;
        }
        self.tidy_held(now_ms);
        let Some(known) = known else {
            // It has its note before it has its name: without one it would be nobody's.
            let begun = self.root.join(format!("{GONE}{}", uuid::Uuid::new_v4().simple()));
            fs::create_dir(&begun).map_err(io("create", &begun))?;
            let note = Note { created_ms: now_ms, ..wanted.clone() };
            note.write(&begun).map_err(io("write the note of", &folder))?;
            fs::rename(&begun, &folder).map_err(io("create", &folder))?;
            return Ok(note);
        };
        let note = Note { created_ms: known.created_ms, ..wanted.clone() };
        note.write(&folder).map_err(io("write the note of", &folder))?;
        Ok(note)
    }

    /// Removes a preview.
    ///
    /// # Errors
    /// [`PreviewError`]; what is no preview is not touched.
    pub fn drop(&self, name: &Name) -> Result<(), PreviewError> {
        self.note(name)?;
        let _held = self.hold()?;
        self.take_away(name)
    }

    /// Removes the previews that have expired, and what is left of those whose removal was interrupted. Returns their names.
    pub fn tidy(&self, now_ms: i64) -> Vec<Name> {
        // No previews, no folder.
        let held = self.root.is_dir().then(|| self.hold().ok()).flatten();
        held.map(|_held| self.tidy_held(now_ms)).unwrap_or_default()
    }

    fn tidy_held(&self, now_ms: i64) -> Vec<Name> {
        let mut gone = Vec::new();
        for note in self.notes().into_iter().filter(|note| note.expires_ms <= now_ms) {
            match self.take_away(&note.preview) {
                Ok(()) => gone.push(note.preview),
                Err(PreviewError::Busy { .. } | PreviewError::Absent { .. }) => {}
                Err(error) => tracing::warn!("a preview stays: {}", crate::text::chain(&error)),
            }
        }
        let left = fs::read_dir(&self.root).into_iter().flatten().filter_map(Result::ok);
        for entry in left.filter(|entry| entry.file_name().to_string_lossy().starts_with(GONE)) {
            // The next look meets it again.
            let _ = fs::remove_dir_all(entry.path());
        }
        gone
    }

    /// Removes a preview while nobody else comes or goes. It loses its name first: half a preview is never taken for one.
    fn take_away(&self, name: &Name) -> Result<(), PreviewError> {
        self.note(name)?;
        let folder = self.folder(name);
        if Place::in_folder(&folder).is_held() {
            return Err(PreviewError::Busy { name: name.clone() });
        }
        let gone = self.root.join(format!("{GONE}{}", uuid::Uuid::new_v4().simple()));
        fs::rename(&folder, &gone).map_err(io("remove", &folder))?;
        fs::remove_dir_all(&gone).map_err(io("remove", &gone))
    }

    /// Takes the lock under which previews come and go.
    fn hold(&self) -> Result<File, PreviewError> {
        let root = &self.root;
        match fs::symlink_metadata(root) {
            Ok(about) if !about.is_dir() => return Err(PreviewError::Foreign { path: root.clone() }),
            Ok(_) => {}
            Err(_) => fs::create_dir_all(root).map_err(io("create", root))?,
        }
        let path = root.join(LOCK);
        let file = File::options().create(true).append(true).open(&path).map_err(io("open", &path))?;
        file.lock().map_err(io("lock", &path))?;
        Ok(file)
    }
}

/// Removes previews as they expire, until it is stopped.
pub async fn keep_tidy(state: PathBuf, clock: Clock, every: Duration) {
    let shelf = Shelf::of(&state);
    loop {
        let (shelf, now_ms) = (shelf.clone(), clock.now_ms());
        let gone = tokio::task::spawn_blocking(move || shelf.tidy(now_ms)).await.unwrap_or_default();
        for name in gone {
            tracing::info!(%name, "a preview has expired and is removed");
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_000_000_000;
    const DAY_MS: i64 = 86_400_000;

    fn name(text: &str) -> Name {
        format!("preview/{text}").parse().expect("legal")
    }

    fn note(text: &str, expires_ms: i64) -> Note {
        Note { expires_ms, ..Note::new(name(text), "dev".to_owned(), "lake".into(), NOW_MS) }
    }

    #[test]
    fn what_has_expired_is_removed_and_what_lives_stays() {
        let state = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::of(state.path());
        assert_eq!(shelf.tidy(NOW_MS), [], "and nothing is made for it");
        assert!(!state.path().join("previews").exists());
        shelf.keep(&note("short", NOW_MS + 1), NOW_MS, false).expect("begun");
        shelf.keep(&note("long", NOW_MS + DAY_MS), NOW_MS, false).expect("begun");
        fs::write(shelf.folder(&name("short")).join("table"), "rows").expect("written");
        assert_eq!(shelf.tidy(NOW_MS), []);
        // Building again lets it live longer; what it holds stays.
        let later = note("short", NOW_MS + 10);
        assert_eq!(shelf.keep(&later, NOW_MS, false).expect("kept"), later);
        assert_eq!(shelf.tidy(NOW_MS + 1), []);
        assert_eq!(shelf.tidy(NOW_MS + 10), [name("short")]);
        assert_eq!(shelf.notes().iter().map(|it| it.preview.as_str()).collect::<Vec<_>>(), ["long"]);
        let names: Vec<String> = fs::read_dir(state.path().join("previews"))
            .expect("there")
            .map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names.len(), 2, "the lock and the one that lives: {names:?}");
        shelf.drop(&name("long")).expect("dropped");
        assert!(matches!(shelf.drop(&name("long")), Err(PreviewError::Absent { .. })));
    }

    #[test]
    fn one_that_has_expired_or_is_refreshed_begins_with_nothing() {
        let state = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::of(state.path());
        let table = shelf.folder(&name("a")).join("table");
        let begin = |now_ms: i64, anew: bool| {
            let kept = shelf.keep(&note("a", now_ms + 10), now_ms, anew).expect("kept");
            let had = table.exists();
            fs::write(&table, "rows").expect("written");
            (kept.created_ms, had)
        };
        assert_eq!(begin(NOW_MS, false), (NOW_MS, false));
        assert_eq!(begin(NOW_MS + 5, false), (NOW_MS, true));
        assert_eq!(begin(NOW_MS + 6, true), (NOW_MS + 6, false));
        assert_eq!(begin(NOW_MS + DAY_MS, false), (NOW_MS + DAY_MS, false));
    }

    #[test]
    fn what_is_no_preview_is_never_touched() {
        let state = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::of(state.path());
        shelf.keep(&note("real", NOW_MS), NOW_MS - 1, false).expect("begun");
        let root = state.path().join("previews");
        // Somebody's own folder, one with the note of another, a link to a preview elsewhere, a note that is a link.
        let elsewhere = tempfile::tempdir().expect("a folder");
        let other = Shelf::of(elsewhere.path());
        other.keep(&note("link", NOW_MS), NOW_MS - 1, false).expect("begun");
        fs::create_dir(root.join("own")).expect("made");
        fs::create_dir(root.join("copied")).expect("made");
        note("real", NOW_MS).write(&root.join("copied")).expect("written");
        std::os::unix::fs::symlink(other.folder(&name("link")), root.join("link")).expect("linked");
        fs::create_dir(root.join("noted")).expect("made");
        note("noted", NOW_MS).write(elsewhere.path()).expect("written");
        std::os::unix::fs::symlink(elsewhere.path().join("preview.json"), root.join("noted/preview.json"))
            .expect("linked");
        assert_eq!(shelf.tidy(NOW_MS), [name("real")]);
        for there in ["own", "copied", "link", "noted"] {
            assert!(matches!(shelf.drop(&name(there)), Err(PreviewError::Foreign { .. })), "{there}");
            let kept = shelf.keep(&note(there, NOW_MS + 1), NOW_MS, true);
            assert!(matches!(kept, Err(PreviewError::Foreign { .. })), "{there}");
            assert!(root.join(there).exists(), "{there}");
        }
        assert!(other.folder(&name("link")).join("preview.json").exists());
        // Links within a preview are removed, and what they lead to is not.
        shelf.keep(&note("real", NOW_MS), NOW_MS - 1, false).expect("begun");
        std::os::unix::fs::symlink(elsewhere.path(), root.join("real/lake")).expect("linked");
        assert_eq!(shelf.tidy(NOW_MS), [name("real")]);
        assert!(elsewhere.path().join("preview.json").exists());
    }

    #[test]
    fn one_that_is_being_built_stays() {
        let state = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::of(state.path());
        shelf.keep(&note("a", NOW_MS), NOW_MS - 1, false).expect("begun");
        let path = shelf.folder(&name("a")).join("ledger.db.lock");
        let lock = File::options().create(true).append(true).open(path).expect("opened");
        lock.lock().expect("locked");
        assert!(matches!(shelf.drop(&name("a")), Err(PreviewError::Busy { .. })));
        assert_eq!(shelf.tidy(NOW_MS), []);
        drop(lock);
        assert_eq!(shelf.tidy(NOW_MS), [name("a")]);
    }
}
