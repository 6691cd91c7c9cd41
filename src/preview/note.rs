//! The name of a preview, and the note that is in its folder.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What every preview's environment is called before its name.
const PREFIX: &str = "preview/";
/// The note's file.
const FILE: &str = "preview.json";
/// The form of the note.
const VERSION: u32 = 1;
/// Longest name.
const MOST: usize = 40;

/// The name of a preview: lower-case letters, digits and hyphens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text names no preview.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no preview: write `preview/NAME` with a name of 1 to {MOST} characters of a-z, 0-9 and `-`"
)]
pub struct NameError(String);

/// Returns whether an environment's name is meant as that of a preview.
#[must_use]
pub fn is_preview(environment: &str) -> bool {
    environment.starts_with(PREFIX)
}

impl Name {
    /// Returns the name alone, which is that of its folder.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of a folder as one of a preview, if it is.
    #[must_use]
    pub fn of_folder(name: &str) -> Option<Self> {
        let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
        let legal = !name.is_empty() && name.len() <= MOST && name.chars().all(plain);
        legal.then(|| Self(name.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.strip_prefix(PREFIX).and_then(Self::of_folder);
        name.ok_or_else(|| NameError(crate::text::line(text, 80)))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.to_string()
    }
}

/// What a preview's folder says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The form of this note.
    pub version: u32,
    /// Which preview it is.
    pub preview: Name,
    /// The parent environment.
    pub parent: String,
    /// The parent's lake, as from the parent's state folder: the whole may be moved.
    pub lake: PathBuf,
    /// The reference that it was built from last.
    pub r#ref: String,
    /// When it began, milliseconds UTC.
    pub created_ms: i64,
    /// When it ends, milliseconds UTC.
    pub expires_ms: i64,
}

impl Note {
    /// Returns the note of a preview that begins.
    #[must_use]
    pub fn new(preview: Name, parent: String, lake: PathBuf, now_ms: i64) -> Self {
        let (r#ref, created_ms, expires_ms) = (String::new(), now_ms, now_ms);
        Self { version: VERSION, preview, parent, lake, r#ref, created_ms, expires_ms }
    }

    /// Returns the note of a folder, if the folder is a preview.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        let path = folder.join(FILE);
        // A link may lead anywhere.
        let is_file = std::fs::symlink_metadata(&path).is_ok_and(|it| it.is_file());
        let text = is_file.then(|| std::fs::read_to_string(&path).ok()).flatten()?;
        let note: Self = serde_json::from_str(&text).ok()?;
        (note.version == VERSION).then_some(note)
    }

    /// Writes the note into its folder; it appears whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        crate::disk::replace(&folder.join(FILE), &serde_json::to_vec_pretty(self)?)
    }
}

/// Returns the lake below that of a state folder, if it is that of a preview.
#[must_use]
pub fn lake_below(state: &Path) -> Option<PathBuf> {
    let note = Note::read(state)?;
    // The parent's state folder holds `previews`, which holds this one.
    Some(state.join("../..").join(note.lake))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for text in ["preview/a", "preview/pr-1234", &format!("preview/{}", "x".repeat(40))] {
            assert_eq!(text.parse::<Name>().expect(text).to_string(), text);
        }
        let long = format!("preview/{}", "x".repeat(41));
        let bad = [
            "a",
            "dev",
            "preview/",
            "preview",
            "Preview/a",
            "preview/A",
            "preview/..",
            "preview/../dev",
            "preview/a/b",
            "preview/a_b",
            "preview/.a",
            "preview/a b",
            "preview/ä",
            "preview/a\0",
            &long,
        ];
        for text in bad {
            let error = text.parse::<Name>().expect_err(text).to_string();
            assert!(error.contains("preview/NAME"), "{error}");
        }
    }
}
