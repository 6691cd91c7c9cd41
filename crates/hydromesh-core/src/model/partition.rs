//! How an output is cut into partitions: by a calendar, or by the values of a column.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::PortName;
use crate::time::Grain;

/// How an output is cut into partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitioning {
    /// The partition column of the output.
    pub by: String,
    /// What becomes a partition of its own.
    #[serde(flatten)]
    pub into: Parts,
}

/// What becomes a partition of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parts {
    /// Each hour, day, week or month of a calendar.
    Calendar(Calendar),
    /// Each value of a list.
    Values {
        /// The values.
        values: Values,
    },
    /// Each value that a column of an input has.
    Keys {
        /// Where they are looked for.
        values: KeySource,
        /// Those that were found: what is deployed knows of them from the ledger, and a manifest of none.
        #[serde(default, skip_serializing_if = "Values::is_none_yet")]
        found: Values,
    },
}

/// A column of an input whose values an output is cut by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySource {
    /// The input port, by the name that queries use.
    #[serde(rename = "from")]
    pub input: PortName,
    /// Its column.
    pub column: String,
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.input, self.column)
    }
}

/// A calendar that cuts an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    /// Size of a partition.
    pub every: Grain,
    /// Key of the first partition.
    pub start: String,
    /// IANA zone of the calendar.
    pub timezone: String,
}

impl Partitioning {
    /// Returns the calendar, if it is cut by one.
    #[must_use]
    pub fn calendar(&self) -> Option<&Calendar> {
        match &self.into {
            Parts::Calendar(calendar) => Some(calendar),
            Parts::Values { .. } | Parts::Keys { .. } => None,
        }
    }

    /// Returns the values, if it is cut by those of a list, or by those that were found so far in an input.
    #[must_use]
    pub fn values(&self) -> Option<&Values> {
        match &self.into {
            Parts::Calendar(_) => None,
            Parts::Values { values } | Parts::Keys { found: values, .. } => Some(values),
        }
    }

    /// Returns where its values are looked for, if they are not listed.
    #[must_use]
    pub fn source(&self) -> Option<&KeySource> {
        match &self.into {
            Parts::Keys { values, .. } => Some(values),
            Parts::Calendar(_) | Parts::Values { .. } => None,
        }
    }

    /// Takes in which values are known, where they are looked for.
    pub fn know(&mut self, known: Values) {
        if let Parts::Keys { found, .. } = &mut self.into {
            *found = known;
        }
    }
}

/// The values that an output is cut by, each the key of its partition: none twice, and at least one, unless they are looked for
/// and none was found yet.
///
/// They are kept in the order of their text. So the order in which a manifest lists them decides nothing, keys between two
/// others are a range wherever keys are kept in order, and any two lists agree on which of two values comes first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Values(Arc<[String]>);

/// Why values are none that an output can be cut by.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ValuesError {
    /// There are none.
    #[error("an output is cut by at least one value")]
    None,
    /// There are more than [`Values::MOST`].
    #[error("{0} values are more than the {most} that an output can be cut by", most = Values::MOST)]
    TooMany(usize),
    /// One cannot be the key of a partition.
    #[error("`{0}` cannot be the key of a partition: {why}", why = .1)]
    Key(String, &'static str),
    /// One is there twice.
    #[error("`{0}` is there twice")]
    Twice(String),
}

impl Values {
    /// The most values of one list: each is a step of its own, and the age of an output is that of its oldest value, which is
    /// looked for at each publication.
    pub const MOST: usize = 1_000;

    /// The longest value, in bytes.
    const LONGEST: usize = 128;

    /// Returns the values in order.
    ///
    /// # Errors
    /// When there are none or too many, one is there twice, or one cannot be the key of a partition.
    pub fn new(values: impl IntoIterator<Item = String>) -> Result<Self, ValuesError> {
        let mut values: Vec<String> = values.into_iter().collect();
        values.sort_unstable();
        if let Some(pair) = values.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ValuesError::Twice(pair[0].clone()));
        }
        if let Some((value, why)) = values.iter().find_map(|value| Some((value, misfit(value)?))) {
            return Err(ValuesError::Key(value.clone(), why));
        }
        match values.len() {
            0 => Err(ValuesError::None),
            many if many > Self::MOST => Err(ValuesError::TooMany(many)),
            _ => Ok(Self(values.into())),
        }
    }

    /// Returns them with more values; those that are among them already are no news.
    ///
    /// # Errors
    /// When that are too many, or one cannot be the key of a partition.
    pub fn with(&self, more: &[String]) -> Result<Self, ValuesError> {
        let all: BTreeSet<&String> = self.iter().chain(more).collect();
        if all.is_empty() {
            return Ok(Self::default());
        }
        Self::new(all.into_iter().cloned())
    }

    /// Returns whether none was found yet.
    #[must_use]
    pub fn is_none_yet(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a text can be the key of a partition.
    #[must_use]
    pub fn takes(value: &str) -> bool {
        misfit(value).is_none()
    }

    /// Returns the position of a value, if it is one of them.
    #[must_use]
    pub fn index(&self, value: &str) -> Option<i64> {
        let at = self.0.binary_search_by(|it| it.as_str().cmp(value)).ok()?;
        i64::try_from(at).ok()
    }

    /// Returns the value at a position, clamped to the first and the last; nothing of none.
    #[must_use]
    pub fn at(&self, index: i64) -> &str {
        let last = self.0.len().saturating_sub(1);
        let at = usize::try_from(index.max(0)).unwrap_or(last);
        self.0.get(at.min(last)).map_or("", String::as_str)
    }

    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> i64 {
        i64::try_from(self.0.len()).unwrap_or(i64::MAX)
    }
}

/// Returns why a value cannot be the key of a partition, if it cannot.
fn misfit(value: &str) -> Option<&'static str> {
    if value.is_empty() {
        return Some("it is empty");
    }
    if value.len() > Values::LONGEST {
        return Some("it is longer than 128 bytes");
    }
    if value.contains("..") {
        return Some("two dots stand between the first and the last partition of a step");
    }
    if value.contains(',') {
        return Some("commas stand between partitions on the command line");
    }
    let blank = value.trim() != value || value.chars().any(char::is_control);
    blank.then_some("it begins or ends with a space, or holds a control character")
}

impl Deref for Values {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for Values {
    type Error = ValuesError;

    fn try_from(values: Vec<String>) -> Result<Self, ValuesError> {
        Self::new(values)
    }
}

impl From<Values> for Vec<String> {
    fn from(values: Values) -> Self {
        values.0.to_vec()
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(all: &[&str]) -> Result<Values, ValuesError> {
        Values::new(all.iter().map(|value| (*value).to_owned()))
    }

    #[test]
    fn the_order_of_a_list_decides_nothing() {
        let list = values(&["it", "at", "de"]).unwrap();
        assert_eq!(list, values(&["at", "de", "it"]).unwrap());
        assert_eq!(list.to_string(), "at, de, it");
        assert_eq!([list.index("at"), list.index("it"), list.index("fr")], [Some(0), Some(2), None]);
        assert_eq!([list.at(-1), list.at(1), list.at(9)], ["at", "de", "it"]);
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        assert_eq!(values(&[]), Err(ValuesError::None));
        assert_eq!(values(&["a", "b", "a"]), Err(ValuesError::Twice("a".to_owned())));
        let long = "x".repeat(129);
        for wrong in ["", " a", "a\n", "a\u{7}b", "a..b", "a,b", &long] {
            assert!(
                matches!(values(&["a", wrong]), Err(ValuesError::Key(key, _)) if key == wrong),
                "{wrong}"
            );
        }
        let many = Values::new((0..1_001).map(|at| at.to_string()));
        assert_eq!(many, Err(ValuesError::TooMany(1_001)));
        assert_eq!(Values::new((0..1_000).map(|at| at.to_string())).unwrap().count(), 1_000);
        for fine in ["de", "São Tomé", "-7", "2026.1", "a/b", "a@b", "it's"] {
            assert!(values(&[fine]).is_ok(), "{fine}");
        }
    }

    #[test]
    fn what_is_found_only_grows() {
        let none = Values::default();
        assert_eq!((none.count(), none.at(0), none.index("")), (0, "", None));
        let add = |values: &Values, more: &[&str]| {
            values.with(&more.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
        };
        let some = add(&none, &["it", "de"]).unwrap();
        assert_eq!(some, values(&["de", "it"]).unwrap());
        assert_eq!(add(&some, &["de", "at"]), values(&["at", "de", "it"]));
        assert_eq!((add(&some, &[]), add(&none, &[])), (Ok(some.clone()), Ok(none)));
        assert!(add(&some, &[""]).is_err() && Values::takes("a") && !Values::takes("a,b"));
        let many: Vec<String> = (0..999).map(|at| at.to_string()).collect();
        assert_eq!(some.with(&many), Err(ValuesError::TooMany(1_001)));
    }

    #[test]
    fn all_kinds_are_stored_as_they_are_written() {
        for text in [
            r#"{"by":"day","every":"day","start":"2026-08-01","timezone":"UTC"}"#,
            r#"{"by":"region","values":["at","de"]}"#,
            r#"{"by":"shop","values":{"from":"sales","column":"shop"}}"#,
            r#"{"by":"shop","values":{"from":"sales","column":"shop"},"found":["7"]}"#,
        ] {
            let cut: Partitioning = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&cut).unwrap(), text);
        }
        assert!(serde_json::from_str::<Partitioning>(r#"{"by":"region","values":[]}"#).is_err());
    }
}
