//! How much some partitions are.

use std::collections::BTreeSet;

use super::grid::Grid;
use crate::model::BatchPipeline;

/// Partitions that somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Those of a calendar from one key to another, both inclusive.
    Range {
        /// First.
        from: &'a str,
        /// Last.
        to: &'a str,
    },
    /// Values of a list.
    Values(&'a [String]),
}

/// Partitions, and the chunks that they are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Partitions.
    pub partitions: u64,
    /// Steps that compute them.
    pub chunks: u64,
}

/// Returns how many of the partitions of a pipeline that somebody asks for have ended at `now_ms`, and in how many chunks they are
/// computed; `None` for a pipeline without partitions, and for keys of another calendar or list.
#[must_use]
pub fn stretch(batch: &BatchPipeline, asked: Wanted<'_>, now_ms: i64) -> Option<Stretch> {
    let cut = batch.partition.as_ref()?;
    let grid = Grid::new(batch, cut)?;
    let (from, to) = match (asked, cut.values()) {
        (Wanted::Range { from, to }, None) => (from, to),
        (Wanted::Values(asked), Some(values)) => {
            let asked: BTreeSet<&String> = asked.iter().collect();
            let count = asked.into_iter().filter(|value| values.index(value).is_some()).count() as u64;
            return (count > 0).then_some(Stretch { partitions: count, chunks: count });
        }
        _ => return None,
    };
    let first = grid.index(from)?.max(grid.first);
    let last = grid.index(to)?.min(grid.end_at(cut, now_ms) - 1);
    if first > last {
        return Some(Stretch { partitions: 0, chunks: 0 });
    }
    let count = |from: i64, to: i64| u64::try_from(to - from + 1).unwrap_or(0);
    Some(Stretch { partitions: count(first, last), chunks: count(grid.place(first), grid.place(last)) })
}
