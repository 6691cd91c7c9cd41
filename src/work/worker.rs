//! A process that performs steps off the board.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hydromesh_core::ledger::{ErrorKind, RunOutcome};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::board::{BoardError, Place, Reported};
use super::desk::HEARTBEAT_MS;
use super::perform::perform;
use super::priority::give_way;
use super::{Role, Said, Task};
use crate::apply::Context;
use crate::clock::Clock;
use crate::cores::{STACK_BYTES, steps_at_once};
use crate::outage::Outage;

/// How often the board is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a report waits for a controller that is behind.
const BEHIND: Duration = Duration::from_millis(500);
/// How long steps may take to stop between two commits.
const GRACE: Duration = Duration::from_secs(5);

/// Returns the runtime that steps run on: a scan that takes all of its threads delays nothing else.
///
/// # Errors
/// When threads cannot be started.
pub fn work_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // More threads than cores: a long computation then holds up no follower, the system shares the cores.
        .worker_threads(std::thread::available_parallelism().map_or(4, |cores| 2 * cores.get()).clamp(4, 16))
        .thread_stack_size(STACK_BYTES)
        .thread_name("hydromesh-work")
        // Whoever waits for an answer goes first; what is left of the cores is computed with.
        .on_thread_start(give_way)
        .enable_all()
        .build()
}

/// One role's hands in a process without a controller.
pub struct Worker {
    role: Role,
    context: Context,
    threads: tokio::runtime::Handle,
    running: BTreeMap<String, CancellationToken>,
}

impl Worker {
    /// Returns a worker; `context` is what its steps use, but for the epoch, which comes with each task.
    #[must_use]
    pub fn new(role: Role, context: Context, threads: tokio::runtime::Handle) -> Self {
        Self { role, context, threads, running: BTreeMap::new() }
    }

    /// Performs steps until `shutdown`; then stops them between two commits, and gives its place up.
    ///
    /// # Errors
    /// When the board fails for another reason than a full disk.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), BoardError> {
        let Some(place) = self.place(&shutdown).await? else { return Ok(()) };
        let mut steps: JoinSet<String> = JoinSet::new();
        let mut outage = Outage::default();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beat =
            tokio::time::interval(Duration::from_millis(u64::try_from(HEARTBEAT_MS / 5).unwrap_or(2_000)));
        loop {
            let turn = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = steps.join_next() => {
                    self.forget(ended);
                    Ok(())
                }
                _ = beat.tick() => place.beat(Clock::system().now_ms(), HEARTBEAT_MS),
                _ = look.tick() => self.look(&place, &mut steps),
            };
            match turn {
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => {
                    let why = crate::text::chain(&error);
                    if outage.begins(&why) {
                        tracing::warn!("the board cannot be used, tried again: {why}");
                    }
                }
                Ok(()) => outage.ends(),
            }
        }
        for token in self.running.values() {
            token.cancel();
        }
        let stopped = async { while steps.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, stopped).await.is_err() {
            tracing::warn!("a step did not stop in time; its next attempt finds what it has published");
        }
        steps.abort_all();
        while steps.join_next().await.is_some() {}
        match Arc::try_unwrap(place) {
            Ok(place) => place.leave(),
            // A step still holds it: control notices by the lock.
            Err(_) => Ok(()),
        }
    }

    /// Takes a place on the board, however long the disk is full; none when asked to end meanwhile.
    async fn place(&self, shutdown: &CancellationToken) -> Result<Option<Arc<Place>>, BoardError> {
        loop {
            match Place::take(&self.context.state, self.role, Clock::system().now_ms(), HEARTBEAT_MS) {
                Ok(place) => return Ok(Some(Arc::new(place))),
                Err(error) if error.is_transient() => {
                    tracing::warn!("no place on the board yet: {}", crate::text::chain(&error));
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                () = tokio::time::sleep(BEHIND) => {}
            }
        }
    }

    /// Stops what is no longer wanted, and begins what waits.
    fn look(&mut self, place: &Arc<Place>, steps: &mut JoinSet<String>) -> Result<(), BoardError> {
        if !self.running.is_empty() {
            let wanted = place.wanted()?;
            for token in self.running.iter().filter(|(run, _)| !wanted.contains(*run)).map(|(_, token)| token)
            {
                token.cancel();
            }
        }
        // Followers mostly wait; a process of their own takes them all.
        while self.role != Role::Work || self.running.len() < steps_at_once() {
            let Some((run, body)) = place.claim()? else { return Ok(()) };
            self.begin(place, run, &body, steps);
        }
        Ok(())
    }

    fn begin(&mut self, place: &Arc<Place>, run: String, body: &str, steps: &mut JoinSet<String>) {
        let Task { epoch, job, trace } = match serde_json::from_str(body) {
            Ok(task) => task,
            Err(error) => {
                let message =
                    format!("this process does not understand the step, is it of another version? {error}");
                let outcome =
                    RunOutcome::Failed { kind: ErrorKind::External, code: "HM-X009".to_owned(), message };
                let said = Said::Finished { facts: Vec::new(), outcome, took_ms: 0 };
                let place = Arc::clone(place);
                steps.spawn(async move {
                    say(&place, &run, &said, &CancellationToken::new()).await;
                    run
                });
                return;
            }
        };
        let token = CancellationToken::new();
        self.running.insert(run.clone(), token.clone());
        let context = Context { epoch, ..self.context.clone() };
        let (place, cancel) = (Arc::clone(place), token.clone());
        steps.spawn_on(
            async move {
                let say = |said: Said| {
                    let (place, run, cancel) = (place.clone(), run.clone(), cancel.clone());
                    async move { say(&place, &run, &said, &cancel).await }
                };
                perform(context, job, trace, token, say).await;
                run
            },
            &self.threads,
        );
    }

    fn forget(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(run) => drop(self.running.remove(&run)),
            Err(error) => tracing::error!(%error, "a step ended without a word"),
        }
    }
}

/// Leaves a report, however long control or the disk take; a step that is no longer ours is stopped.
async fn say(place: &Place, run: &str, said: &Said, cancel: &CancellationToken) {
    let Ok(body) = serde_json::to_string(said) else {
        tracing::error!(run, "a report cannot be written as JSON");
        return cancel.cancel();
    };
    loop {
        match place.report(run, &body) {
            Ok(Reported::Kept) => return,
            Ok(Reported::NotOurs) => return cancel.cancel(),
            Ok(Reported::Full) => {}
            Err(error) => {
                tracing::warn!(run, "a report cannot be left, tried again: {}", crate::text::chain(&error));
            }
        }
        tokio::time::sleep(BEHIND).await;
    }
}
