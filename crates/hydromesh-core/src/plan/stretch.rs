//! How much a range of partitions is.

use super::grid::Grid;
use crate::model::BatchPipeline;

/// Partitions, and the chunks that they are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Partitions.
    pub partitions: u64,
    /// Steps that compute them.
    pub chunks: u64,
}

/// Returns how many partitions of a pipeline from one key to another, both inclusive, have ended at `now_ms`, and in how many
/// chunks they are computed; `None` for a pipeline without partitions, and for keys of another calendar.
#[must_use]
pub fn stretch(batch: &BatchPipeline, from: &str, to: &str, now_ms: i64) -> Option<Stretch> {
    let cut = batch.partition.as_ref()?;
    let grid = Grid::new(batch, cut)?;
    let first = grid.index(from)?.max(grid.first);
    let last = grid.index(to)?.min(grid.end_at(cut, now_ms) - 1);
    if first > last {
        return Some(Stretch { partitions: 0, chunks: 0 });
    }
    let count = |from: i64, to: i64| u64::try_from(to - from + 1).unwrap_or(0);
    Some(Stretch { partitions: count(first, last), chunks: count(grid.place(first), grid.place(last)) })
}
