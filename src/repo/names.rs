//! Which names of a repository we are willing to speak of at all.
//!
//! No name here ever reaches the host's file system, so these rules are not what keeps us safe from `../../etc`; they
//! keep a reviewer's reading, the site's links and somebody's later clone equal to what we deployed.

use unicode_normalization::UnicodeNormalization as _;

/// Longest accepted component, the limit of the common file systems.
const MAX_NAME_BYTES: usize = 255;

/// Returns why `name`, one component of a path, is refused; `None` if it is fine.
pub(super) fn objection(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("an empty name");
    }
    if name == "." || name == ".." {
        return Some("a name that means another folder");
    }
    if name.len() > MAX_NAME_BYTES {
        return Some("a name of more than 255 bytes");
    }
    if name.contains(['/', '\\']) {
        return Some("a separator inside a name");
    }
    if name.chars().any(char::is_control) {
        return Some("a control character");
    }
    if name.chars().any(is_invisible) {
        return Some("an invisible or direction-changing character");
    }
    if name.ends_with(['.', ' ']) {
        return Some("a trailing dot or space, which some systems drop");
    }
    if names_git_folder(name) {
        return Some("a name that some systems read as .git");
    }
    None
}

/// Zero-width and bidirectional controls: two names that look equal would not be (and HFS+ ignores several).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}')
}

/// `.git` in any case, its NTFS short name and its NTFS streams (`.git::$INDEX_ALLOCATION`).
fn names_git_folder(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let stem = lower.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    stem == ".git" || stem == "git~1"
}

/// Returns the form under which two names clash on a file system that ignores case, or how accents are written. By way of
/// upper case, because some letters have several lower ones: `ß` and `ss`, `ſ` and `s`, `ς` and `σ`.
pub(super) fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let lower = name.nfd().flat_map(char::to_lowercase);
    lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfd().collect()
}

/// Whether these bytes are a Git LFS pointer instead of the file it stands for.
/// The format is fixed by the LFS specification: a version line first, under 1,024 bytes in all.
pub(super) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
        || bytes.starts_with(b"version https://hawser.")
}

/// Sizes at which a pointer is possible, so that only those blobs are read while listing.
pub(super) const LFS_POINTER_BYTES: std::ops::Range<u64> = 100..1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in [
            "orders.sql",
            ".github",
            ".gitignore",
            ".gitattributes",
            "été.md",
            "a b",
            "x~1",
            "2026-01-01T00:00",
            "gitx",
        ] {
            assert_eq!(objection(name), None, "{name}");
        }
    }

    #[test]
    fn names_that_some_file_system_takes_for_one_fold_to_one() {
        for (one, other) in [
            ("Orders.SQL", "orders.sql"),
            ("caf\u{e9}.sql", "cafe\u{301}.sql"),
            ("CAF\u{c9}.sql", "cafe\u{301}.sql"),
            ("stra\u{df}e", "STRASSE"),
            ("\u{17f}ql", "sql"),
            ("\u{212a}elvin", "kelvin"),
            ("\u{3c3}\u{3bf}\u{3c6}\u{3bf}\u{3c2}", "\u{3a3}\u{39f}\u{3a6}\u{39f}\u{3a3}"),
            ("\u{1e9e}", "ss"),
            ("\u{fb01}le", "FILE"),
            ("\u{ac00}", "\u{1100}\u{1161}"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        for (one, other) in [("e", "\u{e9}"), ("a b", "ab"), ("orders", "order"), ("\u{43e}", "o")] {
            assert_ne!(folded(one), folded(other), "{one} {other}");
        }
    }

    #[test]
    fn odd_names_are_refused() {
        let long = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            ".git",
            ".GIT",
            ".Git",
            "git~1",
            "GIT~1",
            ".git.",
            ".git ",
            ".git::$INDEX_ALLOCATION",
            "a/b",
            "a\\b",
            "a\0b",
            "a\nb",
            "a\u{1b}[31m",
            "x.",
            "x ",
            ".g\u{200c}it",
            "a\u{202e}b",
            &long,
        ] {
            assert!(objection(name).is_some(), "{name:?}");
        }
    }
}
