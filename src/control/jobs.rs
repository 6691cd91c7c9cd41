//! Makes jobs out of the ledger, runs them on their own threads and tells the loop how they went.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use hydromesh_core::control::{Event, Start};
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::LedgerState;
use hydromesh_core::plan::upstream_ports;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::apply::{self, Context, Job, Reporter};

/// Batches of facts that a step may be ahead of the ledger.
const REPORTS: usize = 64;

/// Returns the job of a step, if its product is deployed.
pub(super) fn job(start: Start, ledger: &LedgerState) -> Option<Job> {
    let id = &start.key.pipeline.product;
    let deployed = ledger.deployed.get(id)?;
    let mut products = BTreeMap::new();
    let mut next: Vec<ProductId> = vec![id.clone()];
    let mut seen = BTreeSet::new();
    while let Some(id) = next.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        if let Some(deployed) = ledger.deployed.get(&id) {
            next.extend(upstream_ports(&deployed.product).into_iter().map(|port| port.product));
            products.insert(id, deployed.product.clone());
        }
    }
    let versions = ledger
        .ports
        .iter()
        .filter(|(port, _)| products.contains_key(&port.product))
        .map(|(port, state)| (port.clone(), state.version))
        .collect();
    let models = ledger.models.get(id).cloned().unwrap_or_default();
    let print = deployed.print.clone();
    Some(Job { start, products, print, versions, models })
}

/// Starts a job on the work threads; its reports and its end come as events.
pub(super) fn spawn(
    work: &tokio::runtime::Handle,
    context: Context,
    job: Job,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) {
    let run = job.start.run.clone();
    let (report, mut reports) = mpsc::channel(REPORTS);
    let reporter = Reporter::new(report, cancel);
    work.spawn(async move {
        let started = Instant::now();
        let forward = {
            let (run, events) = (run.clone(), events.clone());
            async move {
                while let Some(facts) = reports.recv().await {
                    let event = Event::Progress { run: run.clone(), facts };
                    if events.send(event).await.is_err() {
                        break;
                    }
                }
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
        // When the loop is gone, the next controller finds what was published in the lake.
        let _ = events.send(Event::Finished { run, facts, outcome, took_ms }).await;
    });
}
