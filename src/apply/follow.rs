//! Follows a topic until told to stop: archives its events, and keeps windowed features of them.
//!
//! A follower remembers nothing but what is in its tables. It reads the last record of its table, reads the topic from
//! the offsets there, and commits rows and the new offsets in one atomic table commit: an *epoch*. `kill -9` anywhere
//! therefore loses and doubles nothing, and a restart is the same as a start.
//!
//! | table | holds | written |
//! | --- | --- | --- |
//! | `<port>` of a stream | the archive: the contract's columns and the place of each row in its topic | each epoch |
//! | `<port>__dead_letters` | messages that are no rows, with the reason | before the epoch |
//! | `<port>__quarantine` | rows later than allowed, or that break what the contract requires | before the epoch |
//! | `<port>__tiles_<definition>` of features | what each epoch adds to each tile, and the ids of recent events | each epoch |
//! | `<port>` of features | the current values of every entity | after the history, then every few seconds |
//!
//! A port's topic is a view: a reader of the port reads the raw topic through the stream's own query and rules
//! ([`view::PortView`]), so that it gets the very rows of the archive without waiting for them.

mod archive;
mod arrays;
mod chain;
mod features;
mod history;
mod judge;
mod rowwise;
mod served;
#[cfg(test)]
mod tests;
mod tiles;
mod values;
mod view;

use std::time::Duration;

use hydromesh_core::ids::PipelineId;
use hydromesh_core::model::Pipeline;
use hydromesh_core::time::Millis;

use super::{Context, Done, Job, Reporter, StepError};

pub use history::{feature_history, history_rows};
pub use served::keep_online;

/// Columns that say where a row came from; they follow the contract's columns in every table of a stream.
const PARTITION: &str = "_partition";
const OFFSET: &str = "_offset";
const AVAILABLE_AT: &str = "_available_at";
/// The event's time and id where the contract's columns do not hold them.
const EVENT_TIME: &str = "_event_time";
const EVENT_ID: &str = "_event_id";
/// Why a row was set aside.
const REASON: &str = "_reason";

/// Most messages of an epoch: at a few hundred bytes each some megabytes, in memory twice. Few in tests, so that a
/// short stream has many epochs.
const EPOCH_MESSAGES: usize = if cfg!(test) { 150 } else { 20_000 };
/// How long an epoch collects messages once it has one, real time.
const EPOCH_TIME: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(1) };
/// How long one read of the topic waits, real time.
const POLL: Duration = Duration::from_millis(200);
/// The first reasons of rows that were set aside that are told; the counts are complete.
const REASONS: usize = 5;

/// Follows the pipeline's source until the step is cancelled, which is the only way that it ends well.
pub(super) async fn run(context: &Context, job: &Job, reporter: &Reporter) -> Result<Done, StepError> {
    match job.pipeline()? {
        Pipeline::Stream(stream) => archive::run(context, job, stream, reporter).await,
        Pipeline::Feature(feature) => features::run(context, job, feature, reporter).await,
        _ => Err(StepError::internal("only streams and features follow a topic")),
    }
}

fn cancelled() -> StepError {
    StepError::external("HM-X007", "cancelled")
}

/// Returns the name under which a pipeline's records are kept.
fn pipeline_name(id: &PipelineId) -> String {
    id.to_string()
}

/// Returns the newest event time over all partitions.
fn newest_of(newest: &std::collections::BTreeMap<i32, Millis>) -> Option<Millis> {
    newest.values().copied().max()
}

/// A place at which a test can stop the world; nothing otherwise.
#[cfg_attr(not(test), expect(clippy::unused_async, reason = "tests wait here"))]
async fn point(name: &'static str) {
    #[cfg(test)]
    tests::reached(name).await;
    #[cfg(not(test))]
    let _ = name;
}
