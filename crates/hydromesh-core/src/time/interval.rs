//! Half-open ranges over `i64` points and sets of them, kept sorted and merged.

use serde::{Deserialize, Serialize};

/// The half-open range `[from, to)`; empty when both ends are equal.
///
/// Points are milliseconds UTC where the range is one of time, and partition indexes inside
/// [`super::PartitionSet`]; the arithmetic is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(i64, i64)", into = "(i64, i64)")]
pub struct Interval {
    from: i64,
    to: i64,
}

impl From<(i64, i64)> for Interval {
    fn from((from, to): (i64, i64)) -> Self {
        Self::new(from, to)
    }
}

impl From<Interval> for (i64, i64) {
    fn from(interval: Interval) -> Self {
        (interval.from, interval.to)
    }
}

impl Interval {
    /// Returns `[from, to)`, or the empty interval at `from` when `to` lies before it.
    pub const fn new(from: i64, to: i64) -> Self {
        Self { from, to: if to < from { from } else { to } }
    }

    /// Returns the first point inside.
    pub const fn from(self) -> i64 {
        self.from
    }

    /// Returns the first point after.
    pub const fn to(self) -> i64 {
        self.to
    }

    /// Returns the number of points inside (milliseconds, for time), saturating.
    pub const fn len(self) -> i64 {
        self.to.saturating_sub(self.from)
    }

    /// Returns whether no point is inside.
    pub const fn is_empty(self) -> bool {
        self.from == self.to
    }

    /// Returns whether the point is inside.
    pub const fn contains(self, point: i64) -> bool {
        self.from <= point && point < self.to
    }

    /// Returns the common part, possibly empty.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        Self::new(self.from.max(other.from), self.to.min(other.to))
    }
}

/// A set of points stored as sorted, merged, non-empty intervals; never enumerates points.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Interval>")]
pub struct IntervalSet(Vec<Interval>);

impl From<Vec<Interval>> for IntervalSet {
    fn from(intervals: Vec<Interval>) -> Self {
        intervals.into_iter().collect()
    }
}

impl From<Interval> for IntervalSet {
    fn from(interval: Interval) -> Self {
        std::iter::once(interval).collect()
    }
}

impl FromIterator<Interval> for IntervalSet {
    fn from_iter<I: IntoIterator<Item = Interval>>(intervals: I) -> Self {
        let mut all: Vec<Interval> = intervals.into_iter().filter(|one| !one.is_empty()).collect();
        all.sort_unstable();
        let mut merged: Vec<Interval> = Vec::with_capacity(all.len());
        for next in all {
            match merged.last_mut() {
                Some(last) if next.from <= last.to => last.to = last.to.max(next.to),
                _ => merged.push(next),
            }
        }
        Self(merged)
    }
}

impl IntervalSet {
    /// Returns the empty set.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns the intervals in order; neighbours never touch.
    pub fn intervals(&self) -> &[Interval] {
        &self.0
    }

    /// Returns whether the set has no point.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of points (milliseconds, for time).
    pub fn total(&self) -> i64 {
        self.0.iter().fold(0_i64, |sum, one| sum.saturating_add(one.len()))
    }

    /// Returns whether the point is in the set.
    pub fn contains(&self, point: i64) -> bool {
        let after = self.0.partition_point(|one| one.from <= point);
        after > 0 && self.0[after - 1].contains(point)
    }

    /// Returns every point of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.0.iter().chain(&other.0).copied().collect()
    }

    /// Returns the points in both sets.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let (mut left, mut right) = (0, 0);
        let mut common = Vec::new();
        while let (Some(a), Some(b)) = (self.0.get(left), other.0.get(right)) {
            let both = a.intersect(*b);
            if !both.is_empty() {
                common.push(both);
            }
            if a.to <= b.to {
                left += 1;
            } else {
                right += 1;
            }
        }
        Self(common)
    }

    /// Returns the points of this set that are not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        let mut skip = 0;
        for one in &self.0 {
            let mut from = one.from;
            while skip < other.0.len() && other.0[skip].to <= from {
                skip += 1;
            }
            for hole in other.0[skip..].iter().take_while(|hole| hole.from < one.to) {
                if hole.from > from {
                    rest.push(Interval::new(from, hole.from));
                }
                from = from.max(hole.to);
            }
            if from < one.to {
                rest.push(Interval::new(from, one.to));
            }
        }
        Self(rest)
    }

    /// Returns the points of the set inside one interval.
    #[must_use]
    pub fn within(&self, interval: Interval) -> Self {
        self.intersect(&Self::from(interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set() -> impl Strategy<Value = IntervalSet> {
        prop::collection::vec((-30_i64..30, 0_i64..9), 0..8)
            .prop_map(|pairs| pairs.into_iter().map(|(from, len)| Interval::new(from, from + len)).collect())
    }

    fn points(set: &IntervalSet) -> BTreeSet<i64> {
        set.intervals().iter().flat_map(|one| one.from()..one.to()).collect()
    }

    fn is_canonical(set: &IntervalSet) -> bool {
        set.intervals().iter().all(|one| !one.is_empty())
            && set.intervals().windows(2).all(|pair| pair[0].to() < pair[1].from())
    }

    proptest! {
        #[test]
        fn algebra_equals_sets_of_points(a in set(), b in set(), point in -40_i64..40) {
            let (left, right) = (points(&a), points(&b));
            for (result, expected) in [
                (a.union(&b), left.union(&right).copied().collect::<BTreeSet<_>>()),
                (a.intersect(&b), left.intersection(&right).copied().collect()),
                (a.subtract(&b), left.difference(&right).copied().collect()),
            ] {
                prop_assert!(is_canonical(&result));
                prop_assert_eq!(points(&result), expected);
            }
            prop_assert_eq!(a.contains(point), left.contains(&point));
            prop_assert_eq!(a.total(), i64::try_from(left.len()).unwrap());
        }
    }

    #[test]
    fn the_whole_time_line_is_one_interval() {
        let all = IntervalSet::from(Interval::new(i64::MIN, i64::MAX));
        let rest = all.subtract(&IntervalSet::from(Interval::new(0, 1)));
        assert_eq!(rest.intervals(), [Interval::new(i64::MIN, 0), Interval::new(1, i64::MAX)]);
        assert_eq!(all.total(), i64::MAX);
    }

    #[test]
    fn stored_sets_are_normalised_when_read() {
        let read: IntervalSet = serde_json::from_str("[[5,9],[3,1],[1,5]]").unwrap();
        assert_eq!(read.intervals(), [Interval::new(1, 9)]);
        assert_eq!(serde_json::to_string(&read).unwrap(), "[[1,9]]");
    }
}
