//! The spans of a run. Their fields are those that OpenTelemetry's conventions name for pipelines of work, and hold names and
//! codes alone: traces may go to another company.

use hydromesh_core::control::Start;
use hydromesh_core::ledger::RunOutcome;
use hydromesh_core::plan::Work;
use tracing::field::Empty;
use tracing::{Span, info_span};

/// The names of fields that say whose span it is.
pub(super) const RUN: &str = "cicd.pipeline.run.id";
pub(super) const PRODUCT: &str = "cicd.pipeline.name";
pub(super) const PIPELINE: &str = "cicd.pipeline.task.name";
pub(super) const ATTEMPT: &str = "hydromesh.attempt";

/// A span of a run; its name and target have to be known when the program is built.
macro_rules! of_run {
    ($target:expr, $name:literal, $start:expr) => {{
        let (run, key, attempt) = ($start.run.as_str(), &$start.key, $start.attempt);
        info_span!(
            target: $target,
            parent: None,
            $name,
            cicd.pipeline.run.id = run,
            cicd.pipeline.name = %key.pipeline.product,
            cicd.pipeline.task.name = %key.pipeline.name,
            hydromesh.work = work(&key.work),
            hydromesh.attempt = u64::from(attempt),
            cicd.pipeline.result = Empty,
            "error.type" = Empty,
            otel.status_code = Empty,
        )
    }};
}

/// Returns the span of a run as control sees it: from its start to its end in the ledger, whoever performs it.
#[must_use]
pub fn step(start: &Start) -> Span {
    of_run!("hydromesh::runlog", "step", start)
}

/// Returns the span of a run as whoever performs it sees it.
#[must_use]
pub(crate) fn attempt(start: &Start) -> Span {
    of_run!("hydromesh::runlog", "attempt", start)
}

/// Returns a span for what is said of a run that this process has not begun; it is no part of a trace.
#[must_use]
pub(crate) fn quiet(start: &Start) -> Span {
    of_run!("told", "step", start)
}

/// Notes on a span of a run how it ended.
pub(crate) fn note(span: &Span, outcome: &RunOutcome) {
    match outcome {
        RunOutcome::Succeeded { .. } => {
            span.record("cicd.pipeline.result", "success");
            span.record("otel.status_code", "ok");
        }
        RunOutcome::Failed { code, .. } => {
            span.record("cicd.pipeline.result", "failure");
            span.record("error.type", code.as_str());
            span.record("otel.status_code", "error");
        }
        RunOutcome::Cancelled => _ = span.record("cicd.pipeline.result", "cancellation"),
    }
}

fn work(work: &Work) -> &'static str {
    match work {
        Work::Partitions { .. } => "partitions",
        Work::Whole => "whole",
        Work::Follow => "follow",
        Work::Train => "train",
        Work::Drift => "drift",
        Work::Embed => "embed",
        Work::Tend => "tend",
        Work::Keys => "keys",
    }
}
