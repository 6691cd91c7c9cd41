//! One step, from its job to its end, with a panic counted as an end.

use std::time::Instant;

use hydromesh_core::ledger::Fact;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Said;
use crate::apply::{self, Context, Job, Reporter};

/// Batches of facts that a step may be ahead of whoever listens.
const REPORTS: usize = 64;

/// Performs a job; `say` hears of its facts in order, and of its end last.
pub(super) async fn perform<F>(context: Context, job: Job, cancel: CancellationToken, say: impl Fn(Said) -> F)
where
    F: Future<Output = ()>,
{
    let started = Instant::now();
    let (report, mut reports) = mpsc::channel::<Vec<Fact>>(REPORTS);
    let reporter = Reporter::new(report, cancel);
    let forward = async {
        while let Some(facts) = reports.recv().await {
            say(Said::Progress { facts }).await;
        }
    };
    let perform = async {
        // A panic in a step is a bug of ours and must not take the mesh down with it.
        let step = std::panic::AssertUnwindSafe(apply::perform(&context, &job, &reporter));
        let end = futures::FutureExt::catch_unwind(step).await;
        drop(reporter);
        end
    };
    let (end, ()) = tokio::join!(perform, forward);
    let (facts, outcome) = match end {
        Ok(end) => (end.facts, end.outcome),
        Err(panic) => (Vec::new(), apply::panicked(panic.as_ref())),
    };
    let took_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
    say(Said::Finished { facts, outcome, took_ms }).await;
}
