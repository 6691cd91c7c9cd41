//! Control's side: hands steps out, takes them back, and hears how they go.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::control::Event;
use hydromesh_core::ledger::{ErrorKind, RunOutcome};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::board::{Board, BoardError, Cancelled};
use super::perform::perform;
use super::{Role, Roles, Said, Task};
use crate::apply::{Context, Job};

/// How long a worker counts as alive without a sign of life, milliseconds of real time.
pub const HEARTBEAT_MS: i64 = 10_000;
/// Between two tries to write to a full disk.
const FULL_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// Where steps go.
pub struct Desk {
    board: Board,
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
    pub fn new(board: Board, here: Roles, work: tokio::runtime::Handle, events: mpsc::Sender<Event>) -> Self {
        let (running, posted, missed) = Default::default();
        Self { board, here, work, events, running, posted, missed }
    }

    /// Hands a step out, with its place in a trace if one is recorded. Its reports and its end come as events, here or by
    /// [`Desk::heard`].
    ///
    /// # Errors
    /// When it cannot be written to the board.
    pub async fn begin(
        &mut self,
        context: &Context,
        job: Job,
        trace: Option<String>,
    ) -> Result<(), BoardError> {
        let (run, role) = (job.start.run.clone(), Role::of(&job.start.key.work));
        if !self.here.has(role) {
            let body = serde_json::to_string(&Task { epoch: context.epoch, job, trace })
                .map_err(|error| BoardError::Unwritable { run: run.clone(), source: error })?;
            patiently(|| self.board.offer(role, &run, &body)).await?;
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
            perform(context, job, trace, token, say).await;
        });
        Ok(())
    }

    /// Stops a step. Returns the end of one that nobody had begun; every other one still tells its own.
    ///
    /// # Errors
    /// When the board cannot be written.
    pub async fn cancel(&mut self, run: &str) -> Result<Option<Event>, BoardError> {
        if let Some(token) = self.running.get(run) {
            token.cancel();
        } else if self.posted.contains(run)
            && patiently(|| self.board.cancel(run)).await? == Cancelled::Unbegun
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
    pub fn heard(&mut self) -> Result<Vec<Event>, BoardError> {
        if self.posted.is_empty() {
            return Ok(Vec::new());
        }
        let mut events = Vec::new();
        for (run, body) in self.board.reports()? {
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
                if let Err(error) = self.board.end(&run) {
                    tracing::warn!(run, "a step stays on the board: {}", crate::text::chain(&error));
                }
            }
            events.push(said.event(run));
        }
        Ok(events)
    }

    /// Returns the runs whose process is gone. Ask before [`Desk::heard`]: what a process said before it ended counts.
    ///
    /// # Errors
    /// When the board cannot be read.
    pub fn lost(&self, now_ms: i64) -> Result<BTreeSet<String>, BoardError> {
        if self.posted.is_empty() { Ok(BTreeSet::new()) } else { self.board.lost(now_ms) }
    }

    /// Returns whether a step is out with another process.
    #[must_use]
    pub fn is_out(&self, run: &str) -> bool {
        self.posted.contains(run)
    }

    /// Takes lost steps off the board and returns their ends, which let them be tried again. The lease's epoch is
    /// raised before: what such a process still commits is then refused by every table that its successor has
    /// committed to.
    ///
    /// # Errors
    /// When the board cannot be written.
    pub fn give_up(&mut self, runs: BTreeSet<String>) -> Result<Vec<Event>, BoardError> {
        let mut events = Vec::new();
        for run in runs {
            self.board.end(&run)?;
            tracing::warn!(run, "the process that performed a step is gone; the step is tried again");
            self.posted.remove(&run);
            events.push(ended(run, lost("the process that performed it ended".to_owned())));
        }
        Ok(events)
    }

    /// Says, once, that steps wait for a role that no process has.
    ///
    /// # Errors
    /// When the board cannot be read.
    pub fn look_for_workers(&mut self, now_ms: i64) -> Result<(), BoardError> {
        for role in [Role::Work, Role::Stream] {
            if self.here.has(role) || self.posted.is_empty() || self.board.workers(role, now_ms)? > 0 {
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

/// Waits out a full disk, as an append to the ledger does.
async fn patiently<T>(write: impl Fn() -> Result<T, BoardError>) -> Result<T, BoardError> {
    loop {
        match write() {
            Err(error) if error.is_transient() => {
                tracing::warn!("the board cannot be written, tried again: {}", crate::text::chain(&error));
                tokio::time::sleep(FULL_PAUSE).await;
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
