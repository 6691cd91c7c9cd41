//! Durations, partitions, half-open intervals, cron schedules, watermarks.
//!
//! Every instant is an `i64` of milliseconds since 1970-01-01T00:00:00 UTC and every range is half-open,
//! so that neighbours meet without overlap or hole. Nothing here reads a clock: "now" is always an argument.

mod cron;
mod interval;
mod partition;
mod partition_set;
mod shift;
mod span;
mod watermark;

pub use cron::{Cron, CronError};
pub use interval::{Interval, IntervalSet};
pub use partition::{Grain, Partition, PartitionError, day_of};
pub use partition_set::PartitionSet;
pub use shift::{Shift, ShiftError, ShiftUnit};
pub use span::{Span, SpanError, SpanUnit};
pub use watermark::{SourceProgress, Watermark};

/// Milliseconds since 1970-01-01T00:00:00 UTC.
pub type Millis = i64;
