//! What can be wrong with policies: errors of reading them, and findings inside them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why a set of policies could not be read at all. What is wrong *inside* readable policies is a [`PolicyProblem`].
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{path} is not valid JSON")]
    Data { path: String, source: serde_json::Error },
    #[error("{path} would replace a value that another data file gives")]
    DataConflict { path: String },
    #[error("{path} is YAML; policy data is read from data.json")]
    YamlData { path: String },
    #[error("{path} is not UTF-8 text")]
    NotText { path: String },
    #[error("{} is not a readable OPA bundle: {reason}", path.display())]
    Bundle { path: PathBuf, reason: String },
    #[error("{} holds neither .rego files nor a compiled policy", path.display())]
    Empty { path: PathBuf },
}

/// What kind of mistake a policy holds. Every kind makes the gate deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The text is not Rego, or the compiler refuses it.
    Syntax,
    /// The package is not one this layer may declare, so its rules would not be asked or would pose as another layer's.
    Package,
    /// A package of verdicts declares neither `deny` nor `warn`.
    NoVerdict,
    /// A rule reads a path of `input` that the input schema cannot have, so it could never fire.
    InputPath,
    /// A rule reads a path of `data` where there is neither data nor a rule.
    DataPath,
    /// A rule calls a function whose answer changes between two calls, so that a decision could not be replayed.
    Nondeterministic,
    /// Functions call each other in a circle.
    Recursion,
    /// A rule replaces a function or data by `with`, which only tests may.
    Replacement,
    /// A `# METADATA` comment is not understood or has a value that is not allowed.
    Metadata,
    /// A compiled policy cannot be loaded.
    Bundle,
}

/// One mistake in a policy, with the place where a person should look.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyProblem {
    pub file: String,
    /// Counted from 1; 0 when the mistake concerns the whole file.
    pub line: u32,
    /// Counted from 1; 0 when the mistake concerns the whole line.
    pub column: u32,
    pub kind: ProblemKind,
    pub message: String,
}

impl PolicyProblem {
    /// Returns the problem in one line, `file:line: message`.
    #[must_use]
    pub fn summary(&self) -> String {
        match self.line {
            0 if self.file.is_empty() => self.message.clone(),
            0 => format!("{}: {}", self.file, self.message),
            line => format!("{}:{line}: {}", self.file, self.message),
        }
    }

    /// Returns the problem that an engine's error text describes.
    ///
    /// regorus prints `--> file:line:column`, the line itself with a caret, and `error: message`; the place is taken from
    /// the first arrow and the message from the last line. Text of any other form is kept whole, without a place.
    #[must_use]
    pub fn from_engine_text(kind: ProblemKind, file: &str, text: &str) -> Self {
        let (mut file, mut line, mut column) = (file.to_owned(), 0, 0);
        if let Some(place) = text.lines().find_map(|row| row.trim().strip_prefix("--> ")) {
            let mut parts = place.trim().rsplitn(3, ':');
            if let (Some(c), Some(l), Some(f)) = (parts.next(), parts.next(), parts.next())
                && let (Ok(l), Ok(c)) = (l.parse(), c.parse())
            {
                (file, line, column) = (f.to_owned(), l, c);
            }
        }
        let message = text
            .lines()
            .find_map(|row| row.trim().strip_prefix("error: "))
            .unwrap_or_else(|| text.trim())
            .trim()
            .to_owned();
        Self { file, line, column, kind, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_place_and_message_from_engine_text() {
        let text =
            "\n--> a/b.rego:3:9\n  |\n3 | deny contains {\n  |         ^\nerror: unexpected end of file";
        let problem = PolicyProblem::from_engine_text(ProblemKind::Syntax, "x", text);
        assert_eq!((problem.file.as_str(), problem.line, problem.column), ("a/b.rego", 3, 9));
        assert_eq!(problem.summary(), "a/b.rego:3: unexpected end of file");
        let plain = PolicyProblem::from_engine_text(ProblemKind::Syntax, "x.rego", "out of time");
        assert_eq!(plain.summary(), "x.rego: out of time");
    }
}
