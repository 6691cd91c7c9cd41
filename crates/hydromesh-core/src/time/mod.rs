//! Durations, partitions, half-open intervals, cron schedules, watermarks.
