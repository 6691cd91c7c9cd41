//! The keys of an output's partitions as positions: of a calendar, or of a list of values.
//!
//! Keys order as text as their positions do. So a set of partitions is a few intervals of positions to whoever plans, and a few
//! ranges of keys to whoever keeps them, and neither lists them. Positions of a calendar stand for ever; those of a list hold
//! for as long as the list does, so that nothing keeps one beyond a deploy, or beyond a fact that brings new values.

use super::calendar::{ended_partitions, zone};
use crate::model::{Partitioning, Parts, Values};
use crate::time::{Grain, Partition};

/// What the keys of an output are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keys {
    /// Partitions of a calendar.
    Calendar(Grain),
    /// Values of a list, or those that were found.
    Values(Values),
}

impl Keys {
    pub fn of(cut: &Partitioning) -> Self {
        match &cut.into {
            Parts::Calendar(calendar) => Self::Calendar(calendar.every),
            Parts::Values { values } | Parts::Keys { found: values, .. } => Self::Values(values.clone()),
        }
    }

    /// Returns the key of a position.
    pub fn key(&self, index: i64) -> String {
        match self {
            Self::Calendar(every) => Partition::from_index(*every, index).to_string(),
            Self::Values(values) => values.at(index).to_owned(),
        }
    }

    /// Returns the position of a key, if it is one of them.
    pub fn index(&self, key: &str) -> Option<i64> {
        match self {
            Self::Calendar(every) => Partition::parse(*every, key).ok().map(Partition::index),
            Self::Values(values) => values.index(key),
        }
    }

    /// Returns the values, if they are some.
    pub fn values(&self) -> Option<&Values> {
        match self {
            Self::Calendar(_) => None,
            Self::Values(values) => Some(values),
        }
    }
}

/// Returns the position of the first partition of an output, if that is one.
pub(super) fn first(cut: &Partitioning) -> Option<i64> {
    match &cut.into {
        Parts::Calendar(calendar) => Some(Partition::parse(calendar.every, &calendar.start).ok()?.index()),
        Parts::Values { .. } | Parts::Keys { .. } => Some(0),
    }
}

/// Returns the position after the last partition that may be computed at an instant: of those of a calendar each has to end, and
/// a value is there from the first day on.
pub(super) fn end_at(cut: &Partitioning, at_ms: i64) -> Option<i64> {
    match &cut.into {
        Parts::Calendar(calendar) => ended_partitions(calendar, at_ms).last().map(|last| last.index() + 1),
        Parts::Values { values } | Parts::Keys { found: values, .. } => Some(values.count()),
    }
}

/// Returns how long a partition is, milliseconds; nothing where that has no meaning.
pub(super) fn length_ms(cut: &Partitioning) -> Option<i64> {
    let calendar = cut.calendar()?;
    let first = Partition::parse(calendar.every, &calendar.start).ok()?.interval(zone(calendar));
    Some(first.to() - first.from())
}
