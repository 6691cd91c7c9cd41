//! Partitions of a pipeline by calendar, in its own zone.

use chrono_tz::Tz;

use crate::model::Partitioning;
use crate::time::{Partition, PartitionSet, Span};

/// Returns the zone of a pipeline's calendar.
///
/// `check` refuses unknown zones; what is already deployed falls back to UTC rather than stopping everything.
pub(super) fn zone(partitioning: &Partitioning) -> Tz {
    partitioning.timezone.parse().unwrap_or(Tz::UTC)
}

/// Returns the half-open bounds of a partition, milliseconds UTC, if the key is one.
#[must_use]
pub fn partition_bounds_ms(partitioning: &Partitioning, key: &str) -> Option<(i64, i64)> {
    let interval = Partition::parse(partitioning.every, key).ok()?.interval(zone(partitioning));
    Some((interval.from(), interval.to()))
}

/// Returns all partitions from the first one that have ended at `now_ms`.
#[must_use]
pub fn ended_partitions(partitioning: &Partitioning, now_ms: i64) -> PartitionSet {
    match Partition::parse(partitioning.every, &partitioning.start) {
        Ok(first) => PartitionSet::complete_at(first, now_ms, zone(partitioning)),
        Err(_) => PartitionSet::empty(partitioning.every),
    }
}

/// Returns the first partition that is still kept when data is kept so long after its partition has ended; none while everything is.
#[must_use]
pub fn first_kept(partitioning: &Partitioning, retention: Span, now_ms: i64) -> Option<String> {
    let over = ended_partitions(partitioning, now_ms.saturating_sub(retention.millis()));
    let last = over.last()?.index();
    Some(Partition::from_index(partitioning.every, last + 1).to_string())
}
