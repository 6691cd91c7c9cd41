//! One step, from its job to its end, with a panic counted as an end.

use std::time::Instant;

use hydromesh_core::ledger::Fact;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Said;
use crate::apply::{self, Context, Job, Reporter};
use crate::{runlog, traces};

/// Batches of facts that a step may be ahead of whoever listens.
const REPORTS: usize = 64;

/// Performs a job; `say` hears of its facts in order, and of its end last.
pub(super) async fn perform<F>(
    context: Context,
    job: Job,
    trace: Option<String>,
    cancel: CancellationToken,
    say: impl Fn(Said) -> F,
) where
    F: Future<Output = ()>,
{
    let span = runlog::attempt(&job.start);
    traces::follow(&span, trace.as_deref());
    let started = Instant::now();
    let (report, mut reports) = mpsc::channel::<Vec<Fact>>(REPORTS);
    let reporter = Reporter::new(report, cancel);
    let forward = async {
        while let Some(facts) = reports.recv().await {
            span.in_scope(|| runlog::left(&facts));
            say(Said::Progress { facts }).await;
        }
    };
    let perform = async {
        // A panic in a step is a bug of ours and must not take the mesh down with it.
        let step = std::panic::AssertUnwindSafe(apply::perform(&context, &job, &reporter));
        span.in_scope(|| runlog::reads(&job));
        let end = futures::FutureExt::catch_unwind(step).instrument(span.clone()).await;
        drop(reporter);
        end
    };
    let (end, ()) = tokio::join!(perform, forward);
    let (facts, outcome) = match end {
        Ok(end) => (end.facts, end.outcome),
        Err(panic) => (Vec::new(), apply::panicked(panic.as_ref())),
    };
    span.in_scope(|| runlog::left(&facts));
    runlog::note(&span, &outcome);
    // Before the end is told: whoever waits for it finds the attempt in its trace.
    drop(span);
    let took_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
    say(Said::Finished { facts, outcome, took_ms }).await;
}
