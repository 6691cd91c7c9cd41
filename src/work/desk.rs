//! Control's side: hands steps out, takes them back, and hears how they go.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::control::Event;
use hydromesh_core::ledger::{ErrorKind, RunOutcome};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::perform::perform;
use super::{Role, Roles, Said};
use crate::apply::{Context, Job};
use crate::store::{Cancelled, Lease, Store, StoreError};

/// How long a worker counts as alive without a sign of life, milliseconds of real time.
pub const HEARTBEAT_MS: i64 = 10_000;
/// Between two tries to write to a busy board.
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);
/// Reports taken at once.
const REPORTS: u32 = 200;

/// Where steps go.
pub struct Desk {
    store: Store,
    here: Roles,
    work: tokio::runtime::Handle,
    events: mpsc::Sender<Event>,
    /// Steps that this process performs.
    running: BTreeMap<String, CancellationToken>,
    /// Steps on the board.
    posted: BTreeSet<String>,
    /// Roles without any process, which was said already.
    missed: BTreeSet<Role>,
}

impl Desk {
    /// Returns the desk of a process with these roles; steps of other roles go to the board.
    #[must_use]
    pub fn new(store: Store, here: Roles, work: tokio::runtime::Handle, events: mpsc::Sender<Event>) -> Self {
        let (running, posted, missed) = Default::default();
        Self { store, here, work, events, running, posted, missed }
    }

    /// Hands a step out. Its reports and its end come as events, here or by [`Desk::heard`].
    ///
    /// # Errors
    /// When it cannot be written to the board.
    pub async fn begin(&mut self, context: &Context, job: Job) -> Result<(), StoreError> {
        let (run, role) = (job.start.run.clone(), Role::of(&job.start.key.work));
        if !self.here.has(role) {
            let body = serde_json::to_string(&job)
                .map_err(|error| StoreError::BadTask { run: run.clone(), detail: error.to_string() })?;
            patiently(|| self.store.offer(context.epoch, role.name(), &run, &body)).await?;
            self.posted.insert(run);
            return Ok(());
        }
        let token = CancellationToken::new();
        self.running.insert(run.clone(), token.clone());
        let (context, events) = (context.clone(), self.events.clone());
        self.work.spawn(async move {
            let say = |said: Said| {
                let (run, events) = (run.clone(), events.clone());
                // When the loop is gone, the next controller finds what was published in the lake.
                async move { drop(events.send(said.event(run)).await) }
            };
            perform(context, job, token, say).await;
        });
        Ok(())
    }

    /// Stops a step. Returns the end of one that nobody had begun; every other one still tells its own.
    ///
    /// # Errors
    /// When the board cannot be written.
    pub async fn cancel(&mut self, epoch: u64, run: &str) -> Result<Option<Event>, StoreError> {
        if let Some(token) = self.running.get(run) {
            token.cancel();
        } else if self.posted.contains(run)
            && patiently(|| self.store.cancel_task(epoch, run)).await? == Cancelled::Unbegun
        {
            self.posted.remove(run);
            return Ok(Some(ended(run.to_owned(), RunOutcome::Cancelled)));
        }
        Ok(None)
    }

    /// Takes what other processes reported since.
    ///
    /// # Errors
    /// When the board cannot be read or written.
    pub async fn heard(&mut self, epoch: u64) -> Result<Vec<Event>, StoreError> {
        if self.posted.is_empty() {
            return Ok(Vec::new());
        }
        let mut events = Vec::new();
        for (run, body) in self.store.take_reports(epoch, REPORTS).await? {
            if !self.posted.contains(&run) {
                continue;
            }
            let said: Said = match serde_json::from_str(&body) {
                Ok(said) => said,
                Err(error) => {
                    // A worker of another version: its step cannot be followed any more.
                    let message = format!("a report of {run} is not understood: {error}");
                    Said::Finished { facts: Vec::new(), outcome: lost(message), took_ms: 0 }
                }
            };
            if matches!(said, Said::Finished { .. }) {
                self.posted.remove(&run);
                patiently(|| self.store.end_task(epoch, &run)).await?;
            }
            events.push(said.event(run));
        }
        Ok(events)
    }

    /// Returns the ends of steps whose process is gone, with the lease under its raised epoch; nothing when there are
    /// none. What such a process still commits is refused by every table that its successor has committed to.
    ///
    /// # Errors
    /// When the board cannot be read or written.
    pub async fn lost(
        &mut self,
        lease: &Lease,
        now_ms: i64,
    ) -> Result<Option<(Lease, Vec<Event>)>, StoreError> {
        if self.posted.is_empty() {
            return Ok(None);
        }
        let runs = self.store.lost_tasks(now_ms).await?;
        if runs.is_empty() {
            return Ok(None);
        }
        let raised = self.store.give_up(lease, &runs).await?;
        let mut events = Vec::new();
        for run in runs {
            tracing::warn!(run, "the process that performed a step is gone; the step is tried again");
            self.posted.remove(&run);
            events.push(ended(run, lost("the process that performed it ended".to_owned())));
        }
        Ok(Some((raised, events)))
    }

    /// Says, once, that steps wait for a role that no process has.
    ///
    /// # Errors
    /// When the board cannot be read.
    pub async fn look_for_workers(&mut self, now_ms: i64) -> Result<(), StoreError> {
        for role in [Role::Work, Role::Stream] {
            if self.here.has(role)
                || self.posted.is_empty()
                || self.store.workers(role.name(), now_ms).await? > 0
            {
                self.missed.remove(&role);
            } else if self.missed.insert(role) {
                let role = role.name();
                tracing::warn!("no process has the role {role}; start one with `hydromesh up --role {role}`");
            }
        }
        Ok(())
    }

    /// Forgets a step of this process that has ended.
    pub fn ended(&mut self, run: &str) {
        self.running.remove(run);
    }

    /// Returns whether this process still performs something.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    /// Stops every step of this process. Those of others go on until the next controller clears the board.
    pub fn stop(&self) {
        for token in self.running.values() {
            token.cancel();
        }
    }
}

/// Waits out a full disk or another process's write, as an append to the ledger does.
async fn patiently<T, F>(write: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        match write().await {
            Err(error) if error.is_transient() => {
                tracing::warn!("the board cannot be written, tried again: {}", crate::apply::chain(&error));
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            done => return done,
        }
    }
}

fn ended(run: String, outcome: RunOutcome) -> Event {
    Event::Finished { run, facts: Vec::new(), outcome, took_ms: 0 }
}

fn lost(message: String) -> RunOutcome {
    RunOutcome::Failed { kind: ErrorKind::External, code: "HM-X009".to_owned(), message }
}
