//! What a user is told about the mesh: coded, located, with help.
//!
//! Everything that reads the mesh collects diagnostics and goes on; nothing stops at the first one.

mod registry;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use registry::{Code, all_codes, codes, explain};

/// How much a diagnostic weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The product stays out of the mesh until it is mended.
    Error,
    /// The product goes on; something about it will surprise its owner.
    Warning,
    /// Worth knowing.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// A place in a file, 1-based; 0 means the file as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Spot {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

impl Spot {
    /// The file as a whole.
    pub const FILE: Self = Self { line: 0, column: 0 };

    /// Returns the place at a line and a column.
    #[must_use]
    pub const fn new(line: u32, column: u32) -> Self {
        Self { line, column }
    }
}

/// Another place that a diagnostic speaks of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Related {
    /// Repository path.
    pub file: String,
    /// Line, 1-based; 0 for the whole file.
    pub line: u32,
    /// Column, 1-based.
    pub column: u32,
    /// What is there.
    pub message: String,
}

/// One thing to tell the author of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// Stable code.
    pub code: Code,
    /// Weight.
    pub severity: Severity,
    /// Repository path.
    pub file: String,
    /// Line, 1-based; 0 for the whole file.
    pub line: u32,
    /// Column, 1-based; 0 for the whole line or file.
    pub column: u32,
    /// What is wrong, with the names of this mesh.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// Other places.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
}

/// Longest message, in characters. What somebody named may be a megabyte long, and a circle may have ten thousand
/// members; both would travel on into the ledger, mails and pages.
const MOST_MESSAGE: usize = 1_000;
/// Longest word, in bytes, for which a near one is looked for: comparing two words costs the product of their lengths, in
/// time and in memory.
const MOST_WORD: usize = 256;

impl Diagnostic {
    /// Returns a diagnostic with its code's usual severity and help. A message that is too long to be read is cut.
    #[must_use]
    pub fn new(code: Code, file: impl Into<String>, at: Spot, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if let Some((end, _)) = message.char_indices().nth(MOST_MESSAGE) {
            message.truncate(end);
            message.push('…');
            message.shrink_to_fit();
        }
        Self {
            code,
            severity: code.severity(),
            file: file.into(),
            line: at.line,
            column: at.column,
            message,
            help: code.help().to_owned(),
            related: Vec::new(),
        }
    }

    /// Returns it with a help that fits this case better than the code's usual one.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Returns it with a help that names the nearest of `candidates`, when one is near.
    #[must_use]
    pub fn suggest<'a>(self, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match did_you_mean(word, candidates) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// Returns it with a help of its own, unless a near word was already suggested.
    #[must_use]
    pub fn help_unless_suggested(self, help: impl Into<String>) -> Self {
        if self.help.starts_with("did you mean") { self } else { self.help(help) }
    }

    /// Returns it with another weight than its code's usual one.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Returns it with another place.
    #[must_use]
    pub fn related(mut self, file: impl Into<String>, at: Spot, message: impl Into<String>) -> Self {
        self.related.push(Related {
            file: file.into(),
            line: at.line,
            column: at.column,
            message: message.into(),
        });
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] {}", self.severity, self.code, self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column.max(1))?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Sorts for people: by file, then place, then code; equal findings are told once.
pub fn sort(findings: &mut Vec<Diagnostic>) {
    findings.sort_by(|a, b| {
        (&a.file, a.line, a.column, a.code, &a.message).cmp(&(&b.file, b.line, b.column, b.code, &b.message))
    });
    findings.dedup();
}

/// Returns the candidate that a person most likely meant.
///
/// Two edits in a short word and a third of a long one are typing slips; beyond that the guess would mislead.
/// Letter case and `-` against `_` do not count.
#[must_use]
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MOST_WORD {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let wanted = plain(word);
    let limit = (wanted.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != word && candidate.len() <= MOST_WORD)
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_corrected_and_a_guess_is_not_made() {
        let words = ["schedule", "lookback", "partition", "sql"];
        assert_eq!(did_you_mean("shedule", words), Some("schedule"));
        assert_eq!(did_you_mean("look_back", words), Some("lookback"));
        assert_eq!(did_you_mean("sqll", words), Some("sql"));
        assert_eq!(did_you_mean("colour", words), None);
    }

    #[test]
    fn a_megabyte_for_a_name_costs_no_time_and_is_not_repeated() {
        let (long, twin) = ("é".repeat(500_000), "é".repeat(499_999));
        // Comparing these two would take two terabytes.
        assert_eq!(did_you_mean(&long, [twin.as_str(), "short"]), None);
        assert_eq!(did_you_mean("shrt", [twin.as_str(), "short"]), Some("short"));
        let one = Diagnostic::new(codes::UNKNOWN_KEY, "f", Spot::FILE, format!("unknown key `{long}`"));
        assert_eq!(one.message.chars().count(), MOST_MESSAGE + 1);
        assert!(one.message.starts_with("unknown key `é") && one.message.ends_with("é…"));
    }

    #[test]
    fn the_wire_form_has_the_documented_keys() {
        let one =
            Diagnostic::new(codes::UNKNOWN_KEY, "a/b.yaml", Spot::new(3, 5), "unknown key `x`").help("h");
        insta::assert_json_snapshot!(one, @r#"
        {
          "code": "HM-Y007",
          "severity": "error",
          "file": "a/b.yaml",
          "line": 3,
          "column": 5,
          "message": "unknown key `x`",
          "help": "h"
        }
        "#);
        assert_eq!(one.to_string(), "error[HM-Y007] a/b.yaml:3:5: unknown key `x`");
    }

    #[test]
    fn every_code_is_documented() {
        let mut ids: Vec<&str> = all_codes().iter().map(|code| code.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all_codes().len(), "a code is used twice");
        for code in all_codes() {
            let text = explain(code.id()).expect("registered");
            for part in
                [format!("# {}: ", code.id()), "## Cause".into(), "## Example".into(), "## Fix".into()]
            {
                assert!(text.contains(&part), "{code} lacks `{part}`");
            }
            assert!(
                text.starts_with(&format!("# {}: {}\n", code.id(), code.title())),
                "{code}: title differs"
            );
            assert!(!code.help().is_empty(), "{code} has no help");
        }
        assert!(explain("HM-X999").is_none());
        assert_eq!(explain("hm-y001"), explain("HM-Y001"));
    }
}
