//! Where a partitioned pipeline is cut, and how far it was looked at.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Work, ended_partitions, partition_bounds_ms};
use crate::model::{BatchPipeline, Partitioning};
use crate::time::{Grain, Partition, Span};

/// Partitions in one step, when the pipeline does not say: small enough to show progress, large enough to amortise a
/// scan of the inputs.
const DEFAULT_CHUNK: i64 = 15;

/// Positions are those of the calendar; places count chunks from the first partition.
///
/// Cuts fall on multiples of a chunk's length, so that what remains of a chunk under way never reaches into the next one.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    pub every: Grain,
    pub first: i64,
    /// Partitions in one chunk.
    most: i64,
    /// Up to here partitions have ended.
    pub ended: i64,
    /// Until then.
    pub ended_until_ms: Option<i64>,
    /// Up to here chunks were looked at.
    pub seen: i64,
    /// When chunks run out by time alone, with their places.
    pub expiries: BTreeSet<(i64, i64)>,
}

impl Grid {
    /// Returns the grid of a pipeline of which nothing was looked at, if its first partition is one.
    pub fn new(batch: &BatchPipeline, cut: &Partitioning) -> Option<Self> {
        let first = Partition::parse(cut.every, &cut.start).ok()?.index();
        let length = partition_bounds_ms(cut, &cut.start).map_or(1, |(from, to)| (to - from).max(1));
        Some(Self {
            every: cut.every,
            first,
            most: batch.chunk.map_or(DEFAULT_CHUNK, |chunk: Span| (chunk.millis() / length).max(1)),
            ended: first,
            ended_until_ms: Some(i64::MIN),
            seen: first,
            expiries: BTreeSet::new(),
        })
    }

    /// Returns the key of a position.
    pub fn key(&self, index: i64) -> String {
        Partition::from_index(self.every, index).to_string()
    }

    /// Returns the position of a key, if it is one of this calendar.
    pub fn index(&self, key: &str) -> Option<i64> {
        Partition::parse(self.every, key).ok().map(Partition::index)
    }

    /// Returns the position after the last partition that has ended at an instant.
    pub fn end_at(&self, cut: &Partitioning, at_ms: i64) -> i64 {
        ended_partitions(cut, at_ms).last().map_or(self.first, |last| last.index() + 1)
    }

    /// Returns the place of a position.
    pub fn place(&self, index: i64) -> i64 {
        (index - self.first).div_euclid(self.most)
    }

    /// Returns the place of the newest partition that was looked at.
    pub fn newest(&self) -> i64 {
        self.place(self.seen - 1)
    }

    /// Returns the positions of a place that were looked at.
    pub fn range(&self, place: i64) -> Range<i64> {
        let from = self.first.saturating_add(place.saturating_mul(self.most));
        from.max(self.first)..from.saturating_add(self.most).min(self.seen)
    }

    /// Returns the places that were looked at from one position on.
    pub fn places_from(&self, index: i64) -> Range<i64> {
        let last = if self.seen > self.first { self.place(self.seen - 1) + 1 } else { 0 };
        self.place(index).max(0)..last
    }

    /// Returns the first and the last place of a step, if it is one of this calendar.
    pub fn places_of(&self, work: &Work) -> Option<(i64, i64)> {
        let Work::Partitions { from, to } = work else { return None };
        Some((self.place(self.index(from)?), self.place(self.index(to)?)))
    }

    /// Returns a range in pieces of a chunk's length.
    pub fn pieces(&self, range: Range<i64>) -> impl Iterator<Item = Range<i64>> + use<> {
        let (most, end) = (self.most, range.end);
        let mut from = range.start;
        std::iter::from_fn(move || {
            let to = from.saturating_add(most).min(end);
            (from < to).then(|| std::mem::replace(&mut from, to)..to)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_cut_where_they_always_were() {
        let grid = Grid {
            every: Grain::Day,
            first: 100,
            most: 3,
            ended: 107,
            ended_until_ms: None,
            seen: 107,
            expiries: BTreeSet::new(),
        };
        assert_eq!([100, 102, 103, 106].map(|index| grid.place(index)), [0, 0, 1, 2]);
        assert_eq!([0, 1, 2].map(|place| grid.range(place)), [100..103, 103..106, 106..107]);
        assert!(grid.range(-1).is_empty() && grid.range(3).is_empty());
        assert_eq!((grid.places_from(100), grid.places_from(104), grid.places_from(0)), (0..3, 1..3, 0..3));
        assert_eq!(grid.pieces(104..109).collect::<Vec<_>>(), [104..107, 107..109]);
        assert_eq!(grid.pieces(5..5).count(), 0);
    }
}
