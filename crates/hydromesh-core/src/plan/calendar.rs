//! Partitions by calendar, in the zone of their pipeline.

use chrono::{DateTime, Datelike, Duration, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

use crate::model::Partitioning;
use crate::time::Grain;

/// The most partitions that one pipeline may have; a typo in `start` must not fill memory.
const MOST: usize = 200_000;

fn zone(partitioning: &Partitioning) -> Tz {
    // `check` refuses unknown zones; what is already deployed falls back rather than stopping everything.
    partitioning.timezone.parse().unwrap_or(Tz::UTC)
}

fn parse(key: &str) -> Option<NaiveDateTime> {
    let padded = match key.len() {
        7 => format!("{key}-01T00"),
        10 => format!("{key}T00"),
        13 => key.to_owned(),
        _ => return None,
    };
    let (day, hour) = padded.split_once('T')?;
    let day = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?;
    Some(day.and_time(NaiveTime::from_hms_opt(hour.parse().ok()?, 0, 0)?))
}

fn key(grain: Grain, start: NaiveDateTime) -> String {
    match grain {
        Grain::Hour => start.format("%Y-%m-%dT%H").to_string(),
        Grain::Day | Grain::Week => start.format("%Y-%m-%d").to_string(),
        Grain::Month => start.format("%Y-%m").to_string(),
    }
}

fn floor(grain: Grain, at: NaiveDateTime) -> NaiveDateTime {
    let day = at.date();
    match grain {
        Grain::Hour => day.and_time(NaiveTime::from_hms_opt(at.hour(), 0, 0).expect("an hour of a time is an hour")),
        Grain::Day => day.and_time(NaiveTime::MIN),
        Grain::Week => {
            let monday = day - Duration::days(i64::from(day.weekday().num_days_from_monday()));
            monday.and_time(NaiveTime::MIN)
        }
        Grain::Month => day.with_day(1).expect("every month has a first").and_time(NaiveTime::MIN),
    }
}

fn next(grain: Grain, start: NaiveDateTime) -> NaiveDateTime {
    match grain {
        Grain::Hour => start + Duration::hours(1),
        Grain::Day => start + Duration::days(1),
        Grain::Week => start + Duration::days(7),
        Grain::Month => start + Months::new(1),
    }
}

fn to_ms(zone: Tz, local: NaiveDateTime) -> i64 {
    // A local midnight that the clock skips starts when the skip ends; one that it repeats starts the first time.
    let instant = zone
        .from_local_datetime(&local)
        .earliest()
        .or_else(|| zone.from_local_datetime(&(local + Duration::hours(1))).earliest())
        .map_or_else(|| local.and_utc(), |at: DateTime<Tz>| at.with_timezone(&Utc));
    instant.timestamp_millis()
}

/// Returns the half-open bounds of a partition, milliseconds UTC, if the key is one.
#[must_use]
pub fn partition_bounds_ms(partitioning: &Partitioning, partition: &str) -> Option<(i64, i64)> {
    let start = parse(partition)?;
    let zone = zone(partitioning);
    Some((to_ms(zone, start), to_ms(zone, next(partitioning.every, start))))
}

/// Returns the keys of all partitions from the first one that have ended at `now_ms`, oldest first.
#[must_use]
pub fn ended_partitions(partitioning: &Partitioning, now_ms: i64) -> Vec<String> {
    let Some(first) = parse(&partitioning.start) else { return Vec::new() };
    let zone = zone(partitioning);
    let grain = partitioning.every;
    let mut start = floor(grain, first);
    let mut keys = Vec::new();
    while keys.len() < MOST {
        let end = next(grain, start);
        if to_ms(zone, end) > now_ms {
            break;
        }
        keys.push(key(grain, start));
        start = end;
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daily(timezone: &str) -> Partitioning {
        Partitioning {
            by: "day".to_owned(),
            every: Grain::Day,
            start: "2026-03-28".to_owned(),
            timezone: timezone.to_owned(),
        }
    }

    #[test]
    fn a_day_of_summer_time_has_twenty_three_hours() {
        let (from, to) = partition_bounds_ms(&daily("Europe/Zurich"), "2026-03-29").expect("a day");
        assert_eq!(to - from, 23 * 3_600_000);
        let (from, to) = partition_bounds_ms(&daily("UTC"), "2026-03-29").expect("a day");
        assert_eq!(to - from, 24 * 3_600_000);
    }

    #[test]
    fn a_partition_is_due_once_it_has_ended() {
        let midnight = partition_bounds_ms(&daily("UTC"), "2026-03-30").expect("a day").0;
        assert_eq!(ended_partitions(&daily("UTC"), midnight), ["2026-03-28", "2026-03-29"]);
        assert_eq!(ended_partitions(&daily("UTC"), midnight - 1), ["2026-03-28"]);
    }

    #[test]
    fn every_grain_has_keys_that_parse_back() {
        for (grain, wanted) in
            [(Grain::Hour, "2026-03-01T00"), (Grain::Day, "2026-03-01"), (Grain::Week, "2026-02-23"), (Grain::Month, "2026-03")]
        {
            let cut = Partitioning { every: grain, start: "2026-03-01".to_owned(), ..daily("UTC") };
            let now = partition_bounds_ms(&daily("UTC"), "2026-06-01").expect("a day").0;
            let keys = ended_partitions(&cut, now);
            assert_eq!(keys[0], wanted);
            assert!(keys.iter().all(|key| partition_bounds_ms(&cut, key).is_some()));
        }
    }
}
