//! Partitions of a pipeline by calendar, in its own zone, and how many an output has however it is cut.

use chrono_tz::Tz;

use crate::model::{Calendar, Partitioning, Parts};
use crate::time::{Partition, PartitionSet, Span};

/// Returns the zone of a pipeline's calendar.
///
/// `check` refuses unknown zones; what is already deployed falls back to UTC rather than stopping everything.
#[must_use]
pub fn zone(calendar: &Calendar) -> Tz {
    calendar.timezone.parse().unwrap_or(Tz::UTC)
}

/// Returns the half-open bounds of a partition, milliseconds UTC, if the output is cut by a calendar and the key is one of it.
#[must_use]
pub fn partition_bounds_ms(partitioning: &Partitioning, key: &str) -> Option<(i64, i64)> {
    let calendar = partitioning.calendar()?;
    let interval = Partition::parse(calendar.every, key).ok()?.interval(zone(calendar));
    Some((interval.from(), interval.to()))
}

/// Returns all partitions from the first one that have ended at `now_ms`.
#[must_use]
pub fn ended_partitions(calendar: &Calendar, now_ms: i64) -> PartitionSet {
    match Partition::parse(calendar.every, &calendar.start) {
        Ok(first) => PartitionSet::complete_at(first, now_ms, zone(calendar)),
        Err(_) => PartitionSet::empty(calendar.every),
    }
}

/// Returns how many partitions an output has at an instant: those that have ended, or one for each value of its list or
/// that was found.
#[must_use]
pub fn partitions_at(partitioning: &Partitioning, now_ms: i64) -> u64 {
    match &partitioning.into {
        Parts::Calendar(calendar) => ended_partitions(calendar, now_ms).len() as u64,
        Parts::Values { values } | Parts::Keys { found: values, .. } => values.len() as u64,
    }
}

/// Returns the first partition that is still kept when data is kept so long after its partition has ended; none while everything is.
#[must_use]
pub fn first_kept(calendar: &Calendar, retention: Span, now_ms: i64) -> Option<String> {
    let over = ended_partitions(calendar, now_ms.saturating_sub(retention.millis()));
    let last = over.last()?.index();
    Some(Partition::from_index(calendar.every, last + 1).to_string())
}
