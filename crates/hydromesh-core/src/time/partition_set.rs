//! Sets of partitions of one grain, as ranges: a 10-year backfill by hour is one pair of numbers.

use std::fmt;

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::{Grain, Interval, IntervalSet, Millis, Partition, PartitionError};

/// A set of partitions of one grain, stored as intervals of their positions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct PartitionSet {
    grain: Grain,
    indexes: IntervalSet,
}

/// The stored form names first and last partition of each range, so a person can read the ledger.
#[derive(Serialize, Deserialize)]
struct Stored {
    grain: Grain,
    ranges: Vec<(String, String)>,
}

impl TryFrom<Stored> for PartitionSet {
    type Error = PartitionError;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let mut indexes = Vec::with_capacity(stored.ranges.len());
        for (first, last) in &stored.ranges {
            let first = Partition::parse(stored.grain, first)?;
            let last = Partition::parse(stored.grain, last)?;
            indexes.push(Interval::new(first.index(), last.index() + 1));
        }
        Ok(Self { grain: stored.grain, indexes: indexes.into_iter().collect() })
    }
}

impl From<PartitionSet> for Stored {
    fn from(set: PartitionSet) -> Self {
        let ranges = set.ranges().map(|(first, last)| (first.to_string(), last.to_string())).collect();
        Self { grain: set.grain, ranges }
    }
}

impl PartitionSet {
    /// Returns the empty set.
    pub const fn empty(grain: Grain) -> Self {
        Self { grain, indexes: IntervalSet::new() }
    }

    /// Returns every partition from `first` to `last`, both included; empty when `last` comes first.
    ///
    /// # Errors
    /// [`PartitionError::GrainMismatch`] when the two differ in grain.
    pub fn between(first: Partition, last: Partition) -> Result<Self, PartitionError> {
        same_grain(first.grain(), last.grain())?;
        Ok(Self { grain: first.grain(), indexes: Interval::new(first.index(), last.index() + 1).into() })
    }

    /// Returns the partitions that share at least one instant with the interval, in the zone.
    pub fn touching(grain: Grain, interval: Interval, zone: Tz) -> Self {
        if interval.is_empty() {
            return Self::empty(grain);
        }
        let first = Partition::containing(grain, interval.from(), zone);
        let last = Partition::containing(grain, interval.to() - 1, zone);
        Self { grain, indexes: Interval::new(first.index(), last.index() + 1).into() }
    }

    /// Returns the partitions from `start` on that lie wholly before the instant: those whose data can be complete.
    pub fn complete_at(start: Partition, at: Millis, zone: Tz) -> Self {
        let open = Partition::containing(start.grain(), at, zone);
        Self { grain: start.grain(), indexes: Interval::new(start.index(), open.index()).into() }
    }

    /// Returns the grain of every partition in the set.
    pub const fn grain(&self) -> Grain {
        self.grain
    }

    /// Returns the number of partitions.
    pub fn len(&self) -> usize {
        usize::try_from(self.indexes.total()).unwrap_or(usize::MAX)
    }

    /// Returns whether there is no partition.
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// Returns whether the partition is in the set.
    pub fn contains(&self, partition: Partition) -> bool {
        partition.grain() == self.grain && self.indexes.contains(partition.index())
    }

    /// Returns the first partition.
    pub fn first(&self) -> Option<Partition> {
        self.ranges().next().map(|(first, _)| first)
    }

    /// Returns the last partition.
    pub fn last(&self) -> Option<Partition> {
        self.indexes.intervals().last().map(|one| Partition::from_index(self.grain, one.to() - 1))
    }

    /// Returns how many partitions have keys from one text to another, both included: keys order as time does.
    pub fn count_within(&self, from: &str, to: &str) -> u64 {
        let before = |outside: &dyn Fn(&str) -> bool, one: &Interval| {
            let (mut low, mut high) = (one.from(), one.to());
            while low < high {
                let middle = low + (high - low) / 2;
                if outside(&Partition::from_index(self.grain, middle).to_string()) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            low
        };
        let count = |one: &Interval| {
            let first = before(&|key| key < from, one);
            let end = before(&|key| key <= to, one);
            u64::try_from(end - first).unwrap_or(0)
        };
        self.indexes.intervals().iter().map(count).sum()
    }

    /// Returns the partitions in order.
    pub fn iter(&self) -> impl Iterator<Item = Partition> + '_ {
        self.indexes
            .intervals()
            .iter()
            .flat_map(|one| one.from()..one.to())
            .map(|index| Partition::from_index(self.grain, index))
    }

    /// Returns first and last partition of each unbroken range, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (Partition, Partition)> + '_ {
        self.indexes.intervals().iter().map(|one| {
            (Partition::from_index(self.grain, one.from()), Partition::from_index(self.grain, one.to() - 1))
        })
    }

    /// Returns the set cut into consecutive pieces of at most `size` partitions (at least one each).
    ///
    /// A piece never spans a hole, so that each one is a single range to a reader.
    pub fn chunks(&self, size: usize) -> Vec<Self> {
        let size = i64::try_from(size.max(1)).unwrap_or(i64::MAX);
        let mut pieces = Vec::new();
        for one in self.indexes.intervals() {
            let mut from = one.from();
            while from < one.to() {
                let to = from.saturating_add(size).min(one.to());
                pieces.push(Self { grain: self.grain, indexes: Interval::new(from, to).into() });
                from = to;
            }
        }
        pieces
    }

    /// Returns the instants covered, in the zone.
    pub fn instants(&self, zone: Tz) -> IntervalSet {
        self.ranges()
            .map(|(first, last)| Interval::new(first.interval(zone).from(), last.interval(zone).to()))
            .collect()
    }

    /// Returns the partitions of either set.
    ///
    /// # Errors
    /// [`PartitionError::GrainMismatch`] when the two differ in grain; so for the other two operations.
    pub fn union(&self, other: &Self) -> Result<Self, PartitionError> {
        self.combine(other, IntervalSet::union)
    }

    /// Returns the partitions of this set that are not in `other`.
    ///
    /// # Errors
    /// See [`Self::union`].
    pub fn subtract(&self, other: &Self) -> Result<Self, PartitionError> {
        self.combine(other, IntervalSet::subtract)
    }

    /// Returns the partitions in both sets.
    ///
    /// # Errors
    /// See [`Self::union`].
    pub fn intersect(&self, other: &Self) -> Result<Self, PartitionError> {
        self.combine(other, IntervalSet::intersect)
    }

    fn combine(
        &self,
        other: &Self,
        operation: impl Fn(&IntervalSet, &IntervalSet) -> IntervalSet,
    ) -> Result<Self, PartitionError> {
        same_grain(self.grain, other.grain)?;
        Ok(Self { grain: self.grain, indexes: operation(&self.indexes, &other.indexes) })
    }
}

fn same_grain(left: Grain, right: Grain) -> Result<(), PartitionError> {
    if left == right { Ok(()) } else { Err(PartitionError::GrainMismatch { left, right }) }
}

impl From<Partition> for PartitionSet {
    fn from(one: Partition) -> Self {
        Self { grain: one.grain(), indexes: Interval::new(one.index(), one.index() + 1).into() }
    }
}

impl fmt::Display for PartitionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self
            .ranges()
            .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}..{last}") })
            .collect();
        let text = if ranges.is_empty() { "none".to_owned() } else { ranges.join(", ") };
        f.pad(&format!("{text} ({})", self.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Partition {
        Partition::parse(Grain::Day, text).unwrap()
    }

    fn days(first: &str, last: &str) -> PartitionSet {
        PartitionSet::between(day(first), day(last)).unwrap()
    }

    #[test]
    fn a_season_prints_as_one_range() {
        let season = days("2026-08-03", "2026-10-31");
        assert_eq!(season.to_string(), "2026-08-03..2026-10-31 (90)");
        assert_eq!(season.len(), 90);
        let rest = season.subtract(&days("2026-08-05", "2026-10-30")).unwrap();
        assert_eq!(rest.to_string(), "2026-08-03..2026-08-04, 2026-10-31 (3)");
        assert_eq!(
            rest.iter().map(|one| one.to_string()).collect::<Vec<_>>(),
            ["2026-08-03", "2026-08-04", "2026-10-31"]
        );
        assert_eq!(rest.union(&season).unwrap(), season);
        assert_eq!(season.subtract(&season).unwrap().to_string(), "none (0)");
        assert_eq!((rest.first(), rest.last()), (Some(day("2026-08-03")), Some(day("2026-10-31"))));
    }

    #[test]
    fn sets_are_stored_as_readable_ranges() {
        let set = days("2026-08-03", "2026-08-09");
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(json, r#"{"grain":"day","ranges":[["2026-08-03","2026-08-09"]]}"#);
        assert_eq!(serde_json::from_str::<PartitionSet>(&json).unwrap(), set);
        assert!(
            serde_json::from_str::<PartitionSet>(r#"{"grain":"day","ranges":[["x","2026-08-09"]]}"#).is_err()
        );
    }

    #[test]
    fn chunks_stop_at_holes() {
        let set =
            days("2026-08-01", "2026-08-20").subtract(&days("2026-08-10", "2026-08-10").clone()).unwrap();
        let chunks: Vec<String> = set.chunks(7).iter().map(ToString::to_string).collect();
        assert_eq!(
            chunks,
            [
                "2026-08-01..2026-08-07 (7)",
                "2026-08-08..2026-08-09 (2)",
                "2026-08-11..2026-08-17 (7)",
                "2026-08-18..2026-08-20 (3)"
            ]
        );
    }

    #[test]
    fn only_whole_partitions_are_complete() {
        let zone = chrono_tz::Europe::Zurich;
        let start = day("2026-08-01");
        let midnight = day("2026-08-03").interval(zone).from();
        assert_eq!(
            PartitionSet::complete_at(start, midnight, zone).to_string(),
            "2026-08-01..2026-08-02 (2)"
        );
        assert_eq!(PartitionSet::complete_at(start, midnight - 1, zone).to_string(), "2026-08-01 (1)");
        assert!(PartitionSet::complete_at(start, 0, zone).is_empty());
        let touched = PartitionSet::touching(Grain::Day, Interval::new(midnight - 1, midnight + 1), zone);
        assert_eq!(touched.to_string(), "2026-08-02..2026-08-03 (2)");
        assert_eq!(touched.instants(zone).total(), 48 * 3_600_000);
    }

    #[test]
    fn keys_are_counted_without_being_listed() {
        let set = days("2026-08-01", "2026-08-20").subtract(&days("2026-08-10", "2026-08-11")).unwrap();
        let listed = |from: &str, to: &str| {
            let within = |key: String| from <= key.as_str() && key.as_str() <= to;
            set.iter().filter(|one| within(one.to_string())).count() as u64
        };
        for from in ["", "2026", "2026-08-01", "2026-08-05", "2026-08-10", "2026-08-2", "2027"] {
            for to in ["", "2026-07", "2026-08-09T23", "2026-08-10", "2026-08-20", "2027", "z"] {
                assert_eq!(set.count_within(from, to), listed(from, to), "{from} to {to}");
            }
        }
    }

    #[test]
    fn grains_do_not_mix() {
        let months = PartitionSet::from(Partition::parse(Grain::Month, "2026-08").unwrap());
        assert!(matches!(
            months.union(&days("2026-08-01", "2026-08-02")),
            Err(PartitionError::GrainMismatch { left: Grain::Month, right: Grain::Day })
        ));
        assert!(!months.contains(day("2026-08-01")));
    }
}
