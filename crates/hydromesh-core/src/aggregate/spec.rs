//! The text form of an aggregate: `sum(amount)`, `count()`, `approx_distinct(session_id)`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::ValueKind;

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AggFunction {
    /// Number of rows, or of values that are not null.
    Count,
    /// Exact sum.
    Sum,
    /// Exact sum divided by the count, rounded once.
    Avg,
    /// Least value.
    Min,
    /// Largest value.
    Max,
    /// Number of different values, see [`super::DistinctCount`].
    ApproxDistinct,
    /// Value of the last row in [`super::Order`] whose value is not null.
    Last,
}

impl AggFunction {
    const ALL: [Self; 7] =
        [Self::Count, Self::Sum, Self::Avg, Self::Min, Self::Max, Self::ApproxDistinct, Self::Last];

    /// Returns the name as written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::ApproxDistinct => "approx_distinct",
            Self::Last => "last",
        }
    }
}

/// An aggregate over at most one column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AggSpec {
    function: AggFunction,
    column: Option<String>,
}

/// Why a text is not an aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AggSpecError {
    /// The text does not have the shape `function(column)`.
    #[error("`{text}` is not an aggregate: expected `function(column)`, such as `sum(amount)`")]
    Malformed {
        /// What was written.
        text: String,
    },
    /// The function does not exist.
    #[error("there is no aggregate `{name}`{}: expected one of {}", did_you_mean(suggestion.as_ref()), names())]
    UnknownFunction {
        /// What was written.
        name: String,
        /// The nearest one that exists.
        suggestion: Option<&'static str>,
    },
    /// The function needs a column and has none.
    #[error("`{function}()` needs a column, such as `{function}(amount)`")]
    MissingColumn {
        /// The function.
        function: &'static str,
    },
    /// The argument is not one plain column name.
    #[error(
        "`{column}` is not a column name: expected letters, digits and `_`; compute expressions in `select`"
    )]
    Column {
        /// What was written.
        column: String,
    },
}

fn names() -> String {
    AggFunction::ALL.map(AggFunction::name).join(", ")
}

fn did_you_mean(suggestion: Option<&&'static str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

impl AggSpec {
    /// Returns the function.
    pub const fn function(&self) -> AggFunction {
        self.function
    }

    /// Returns the column, none for `count()`.
    pub fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    /// Returns the kind of the answer for a column of this kind, or `None` when the aggregate does not take it.
    ///
    /// A sum of integers is an integer as long as it fits into 64 bits; beyond, the nearest float.
    pub const fn result_kind(&self, input: ValueKind) -> Option<ValueKind> {
        match self.function {
            AggFunction::Count | AggFunction::ApproxDistinct => Some(ValueKind::Int),
            AggFunction::Min | AggFunction::Max | AggFunction::Last => Some(input),
            AggFunction::Sum => match input {
                ValueKind::Int | ValueKind::Float | ValueKind::Null => Some(input),
                _ => None,
            },
            AggFunction::Avg => match input {
                ValueKind::Int | ValueKind::Float | ValueKind::Null => Some(ValueKind::Float),
                _ => None,
            },
        }
    }
}

impl FromStr for AggSpec {
    type Err = AggSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || AggSpecError::Malformed { text: text.to_owned() };
        let (name, rest) = text.trim().split_once('(').ok_or_else(malformed)?;
        let column = rest.strip_suffix(')').ok_or_else(malformed)?.trim();
        let name = name.trim();
        if name.is_empty() {
            return Err(malformed());
        }
        let lower = name.to_ascii_lowercase();
        let function = AggFunction::ALL.into_iter().find(|one| one.name() == lower).ok_or_else(|| {
            let nearest = AggFunction::ALL
                .map(|one| (strsim::damerau_levenshtein(one.name(), &lower), one.name()))
                .into_iter()
                .min()
                .filter(|(distance, _)| *distance <= 2.max(lower.chars().count() / 3));
            AggSpecError::UnknownFunction { name: name.to_owned(), suggestion: nearest.map(|(_, name)| name) }
        })?;
        if column.is_empty() {
            return if function == AggFunction::Count {
                Ok(Self { function, column: None })
            } else {
                Err(AggSpecError::MissingColumn { function: function.name() })
            };
        }
        let plain =
            column.chars().all(|c| c.is_alphanumeric() || c == '_') && !column.starts_with(char::is_numeric);
        if !plain {
            return Err(AggSpecError::Column { column: column.to_owned() });
        }
        Ok(Self { function, column: Some(column.to_owned()) })
    }
}

impl fmt::Display for AggSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}({})", self.function.name(), self.column.as_deref().unwrap_or("")))
    }
}

impl TryFrom<String> for AggSpec {
    type Error = AggSpecError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AggSpec> for String {
    fn from(spec: AggSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_text_round_trips() {
        for text in [
            "sum(amount)",
            "count()",
            "count(x)",
            "avg(x)",
            "min(x)",
            "max(x)",
            "approx_distinct(session_id)",
            "last(x)",
        ] {
            assert_eq!(text.parse::<AggSpec>().unwrap().to_string(), text);
        }
        assert_eq!(" SUM( amount ) ".parse::<AggSpec>().unwrap().to_string(), "sum(amount)");
    }

    #[test]
    fn errors_help() {
        insta::assert_snapshot!("aprox_distinct(x)".parse::<AggSpec>().unwrap_err(), @"there is no aggregate `aprox_distinct` (did you mean `approx_distinct`?): expected one of count, sum, avg, min, max, approx_distinct, last");
        insta::assert_snapshot!("percentile(x)".parse::<AggSpec>().unwrap_err(), @"there is no aggregate `percentile`: expected one of count, sum, avg, min, max, approx_distinct, last");
        insta::assert_snapshot!("sum()".parse::<AggSpec>().unwrap_err(), @"`sum()` needs a column, such as `sum(amount)`");
        insta::assert_snapshot!("sum(a * b)".parse::<AggSpec>().unwrap_err(), @"`a * b` is not a column name: expected letters, digits and `_`; compute expressions in `select`");
        for text in ["", "sum", "sum(", "(x)", "sum(x))", "sum(x) + 1"] {
            assert!(text.parse::<AggSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn kinds_are_checked_before_anything_runs() {
        let kind = |text: &str, input| text.parse::<AggSpec>().unwrap().result_kind(input);
        assert_eq!(kind("sum(x)", ValueKind::Str), None);
        assert_eq!(kind("sum(x)", ValueKind::Int), Some(ValueKind::Int));
        assert_eq!(kind("avg(x)", ValueKind::Int), Some(ValueKind::Float));
        assert_eq!(kind("last(x)", ValueKind::Time), Some(ValueKind::Time));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_errs(text in "\\PC{0,20}") {
            let _ = text.parse::<AggSpec>();
        }
    }
}
