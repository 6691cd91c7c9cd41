//! Where a partitioned pipeline is cut, and how far it was looked at.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Work;
use super::keys::{self, Keys};
use crate::model::{BatchPipeline, Partitioning};
use crate::time::Span;

/// Partitions in one step, when the pipeline does not say: small enough to show progress, large enough to amortise a
/// scan of the inputs.
const DEFAULT_CHUNK: i64 = 15;

/// Positions are those of the calendar, or of the list of values; places count chunks from the first partition. A value is a
/// chunk of its own, so that each is computed, tried again and stopped by itself.
///
/// Cuts fall on multiples of a chunk's length, so that what remains of a chunk under way never reaches into the next one.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    pub keys: Keys,
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
        let first = keys::first(cut)?;
        let length = keys::length_ms(cut).map_or(1, |length| length.max(1));
        let most = batch.chunk.map_or(DEFAULT_CHUNK, |chunk: Span| (chunk.millis() / length).max(1));
        let keys = Keys::of(cut);
        Some(Self {
            first,
            most: if keys.values().is_some() { 1 } else { most },
            keys,
            ended: first,
            ended_until_ms: Some(i64::MIN),
            seen: first,
            expiries: BTreeSet::new(),
        })
    }

    /// Returns the key of a position.
    pub fn key(&self, index: i64) -> String {
        self.keys.key(index)
    }

    /// Returns the position of a key, if it is one of this calendar or list.
    pub fn index(&self, key: &str) -> Option<i64> {
        self.keys.index(key)
    }

    /// Returns the position after the last partition that may be computed at an instant.
    pub fn end_at(&self, cut: &Partitioning, at_ms: i64) -> i64 {
        keys::end_at(cut, at_ms).unwrap_or(self.first)
    }

    /// Says which partitions: a value by its name, others by how many they are.
    pub fn spoken(&self, range: &Range<i64>) -> String {
        let partitions = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        match &self.keys {
            Keys::Values(values) if partitions == 1 => values.at(range.start).to_owned(),
            _ => super::batch::count(partitions),
        }
    }

    /// Returns the place of a position.
    pub fn place(&self, index: i64) -> i64 {
        (index - self.first).div_euclid(self.most)
    }

    /// Returns the first place of what readers wait for: the newest partition that was looked at, or all values alike.
    pub fn newest(&self) -> i64 {
        if self.keys.values().is_some() { 0 } else { self.place(self.seen - 1) }
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
    use crate::time::Grain;

    #[test]
    fn places_are_cut_where_they_always_were() {
        let grid = Grid {
            keys: Keys::Calendar(Grain::Day),
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
