//! What becomes of a product's tables once the product has left the mesh.

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// What a product says of the end of its tables. Its files are gone by then, so what was deployed last counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetirePolicy {
    /// They stay where they are.
    #[default]
    Keep,
    /// They are moved out of the way of readers, into the lake's archive.
    Archive {
        /// How long after the product left; at once when nothing is said.
        after: Span,
    },
    /// They are deleted.
    Drop {
        /// How long after the product left, a day at least.
        after: Span,
    },
}

impl RetirePolicy {
    /// The shortest time between a product's leaving and the deletion of its tables: somebody has to be able to notice.
    pub const SHORTEST_DROP: Span = match Span::new(1, crate::time::SpanUnit::Day) {
        Some(day) => day,
        None => panic!("a day is a span"),
    };

    /// Returns whether nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns how the tables end and how long after the product left, unless they stay.
    #[must_use]
    pub fn end(self) -> Option<(TableEnd, Span)> {
        match self {
            Self::Keep => None,
            Self::Archive { after } => Some((TableEnd::Archive, after)),
            Self::Drop { after } => Some((TableEnd::Drop, after)),
        }
    }
}

/// How the tables of a product end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableEnd {
    /// Moved into the lake's archive.
    Archive,
    /// Deleted.
    Drop,
}

impl TableEnd {
    /// Returns what is done to the tables, as in "they are archived".
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::Archive => "archived",
            Self::Drop => "dropped",
        }
    }
}
