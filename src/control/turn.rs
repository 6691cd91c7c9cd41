//! The loop: what it waits for, and what each thing means to control.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hydromesh_core::control::{Control, Effect, Event, Left};
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{Command, LedgerState};
use hydromesh_core::model::StateKind;
use hydromesh_core::plan::{Desired, Work, upstream_ports};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::error::UpError;
use super::hands::Hands;
use super::poll::{Seen, Watching, seen_events};
use crate::clock::Clock;
use crate::store::{Lease, StoreError};

/// How long a lease lasts unless renewed; it is renewed at a third of it.
pub(super) const LEASE_MS: i64 = 15_000;
/// Events that are decided about before their facts are written, all at once.
const TOGETHER: usize = 256;
/// How long a server has to acknowledge what is being written once the process is to end: it may be away for long.
const SERVERS_WORDS: Duration = Duration::from_secs(5);
/// How long a disk has: one that is busy answers in the end, and less than what supervisors give a process.
const DISKS_WORDS: Duration = Duration::from_secs(20);
/// What is tried again within this is waited for by what ends when nothing is left to do: the longest pause of a retry.
const AHEAD_MS: i64 = 600_000;
/// A history of which nothing came for so long is taken for none.
const QUIET: Duration = Duration::from_secs(15);
/// How often the board is looked at for what other processes report.
const HEAR: Duration = Duration::from_millis(50);

/// One task owns all of this; everything else sends it events.
pub(super) struct Loop<'a> {
    pub control: Control,
    pub hands: Hands<'a>,
    pub lease: Lease,
    pub inbox: mpsc::Receiver<Event>,
    pub watching: Watching,
    /// The reference that the environment follows.
    pub reference: String,
    pub show_ledger: watch::Sender<Arc<LedgerState>>,
    pub show_mesh: watch::Sender<Option<Arc<Desired>>>,
    /// A head was seen.
    pub ruled: bool,
    /// The last command of the mailbox that was read.
    pub commands_read: u64,
    /// It ends when nothing is left to do.
    pub once: Option<Once>,
}

/// How it is found that nothing is left to do.
pub(super) struct Once {
    /// Passes over all tables so far.
    looks: watch::Receiver<u64>,
    /// The mailbox was read.
    asked: bool,
    clock: Clock,
    /// What somebody asked about; everything without.
    about: Option<ProductId>,
    /// Facts so far, and since when there are no more.
    facts: u64,
    since: Instant,
}

impl Once {
    pub fn new(looks: watch::Receiver<u64>, clock: Clock, about: Option<ProductId>) -> Self {
        Self { looks, asked: false, clock, about, facts: 0, since: Instant::now() }
    }

    /// Returns whether what follows a topic has nothing to do with what somebody asked about.
    fn is_beside(&self, ledger: &LedgerState) -> bool {
        let Some(about) = &self.about else { return false };
        let reads = ledger.deployed.iter().map(|(id, deployed)| {
            (id, upstream_ports(&deployed.product).into_iter().map(|port| port.product).collect())
        });
        let related = related(about, &reads.collect());
        let mut follows = ledger.running.values().filter(|step| step.work == Work::Follow);
        !follows.any(|step| related.contains(&step.pipeline.product))
    }

    /// Returns up to when things count that follow by themselves, milliseconds UTC: on a clock that stands still none does.
    fn until_ms(&self) -> i64 {
        let now_ms = self.clock.now_ms();
        if self.clock.stands_still() { now_ms } else { now_ms.saturating_add(AHEAD_MS) }
    }
}

impl Loop<'_> {
    /// Turns until cancelled.
    ///
    /// # Errors
    /// When this process may no longer write, or what it writes to is broken or does not answer at the end. Whoever called ends
    /// in order all the same, but writes nothing more: what control knows may not be in the ledger.
    pub async fn turn(&mut self, tick: Duration, shutdown: &CancellationToken) -> Result<(), UpError> {
        // What does not answer must not hold up the end of the process.
        let words = match self.hands.context.settings.state {
            StateKind::Postgres { .. } => SERVERS_WORDS,
            StateKind::Sqlite => DISKS_WORDS,
        };
        let patience = async {
            shutdown.cancelled().await;
            tokio::time::sleep(words).await;
        };
        tokio::select! {
            biased;
            done = self.turn_on(tick, shutdown) => done,
            () = patience => Err(StoreError::NoAnswer.into()),
        }
    }

    async fn turn_on(&mut self, tick: Duration, shutdown: &CancellationToken) -> Result<(), UpError> {
        let mut tick = interval(tick);
        let mut renew = interval(Duration::from_millis(u64::try_from(LEASE_MS / 3).unwrap_or(5_000)));
        let mut hear = interval(HEAR);
        let mut arrived = Vec::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                count = self.inbox.recv_many(&mut arrived, TOGETHER) => {
                    if count == 0 {
                        return Ok(());
                    }
                    self.hands.take(&mut self.control, arrived.drain(..)).await?;
                }
                seen = self.watching.next() => self.look(seen).await?,
                _ = hear.tick() => self.hands.hear(&mut self.control, &mut self.lease).await?,
                _ = tick.tick() => self.tick().await?,
                _ = renew.tick() => self.renew().await?,
            }
            if std::mem::take(&mut self.hands.deployed) {
                self.watching.know(&self.control.ledger);
            }
            if self.is_over() {
                return Ok(());
            }
        }
    }

    /// Returns whether this is a controller that ends when nothing is left to do, and nothing is.
    fn is_over(&mut self) -> bool {
        let Some(once) = &mut self.once else { return false };
        let facts = self.control.ledger.seq;
        if once.facts != facts {
            (once.facts, once.since) = (facts, Instant::now());
        }
        let ruled = self.ruled && self.hands.is_ruled(&self.control);
        if !(ruled && once.asked && *once.looks.borrow() > 0 && self.inbox.is_empty()) {
            return false;
        }
        match self.control.left(once.until_ms()) {
            Left::Work => false,
            Left::History => once.since.elapsed() >= QUIET || once.is_beside(&self.control.ledger),
            Left::Nothing => true,
        }
    }

    /// The reference has moved.
    async fn look(&mut self, seen: Seen) -> Result<(), UpError> {
        let planning = self.hands.telling.seen(seen.commit.id.as_str(), seen.span.clone());
        let (events, own) = seen_events(seen, &self.reference, &self.show_mesh);
        self.ruled = true;
        self.hands.judges.note(own);
        let effects = planning.in_scope(|| self.hands.decide(&mut self.control, events));
        drop(planning);
        self.hands.perform(&mut self.control, effects).await?;
        let deferred: Vec<Effect> = self.hands.deferred.drain(..).map(Effect::Decide).collect();
        self.hands.perform(&mut self.control, deferred).await?;
        self.hands.take(&mut self.control, [Event::Tick]).await?;
        self.hands.rule(&mut self.control).await
    }

    /// Time has passed: people may have asked for something, and what is shown may be old.
    async fn tick(&mut self) -> Result<(), UpError> {
        match self.hands.store.commands(self.commands_read, 100).await {
            Ok(commands) => {
                self.commands_read = commands.last().map_or(self.commands_read, |command| command.id);
                let asked = commands.iter().filter_map(|command| asked(&command.body, &self.control));
                let asked: Vec<Event> = asked.collect();
                self.hands.take(&mut self.control, asked).await?;
                if let Some(once) = &mut self.once {
                    once.asked = true;
                }
            }
            Err(error) => tracing::warn!(%error, "could not read commands"),
        }
        if std::mem::take(&mut self.hands.changed) {
            self.show_ledger.send_replace(Arc::new(self.control.ledger.clone()));
        }
        self.hands.take(&mut self.control, [Event::Tick]).await?;
        self.hands.rule(&mut self.control).await
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        let store = self.hands.store;
        let renewed = match store.lease_clock_ms().await {
            Ok(now_ms) => store.renew(&self.lease, now_ms, LEASE_MS).await,
            Err(error) => Err(error),
        };
        match renewed {
            Ok(lease) => self.lease = lease,
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(error),
        }
        self.hands.look_for_workers();
        Ok(())
    }

    /// Lets the steps of this process end between two commits, for at most five seconds; what is left is recovered like
    /// after a crash.
    pub async fn drain(&mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(5), self.drain_all()).await;
    }

    async fn drain_all(&mut self) {
        while self.hands.desk.is_busy() {
            let Some(event) = self.inbox.recv().await else { break };
            if matches!(event, Event::Finished { .. } | Event::Progress { .. } | Event::Sent { .. })
                && self.hands.take_facts(&mut self.control, event).await.is_err()
            {
                break;
            }
        }
    }
}

fn interval(every: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

/// Reads commands out of the mailbox; one whose answer is in the ledger is done.
fn asked(body: &str, control: &Control) -> Option<Event> {
    let command: Command = serde_json::from_str(body).ok()?;
    (!control.ledger.answers.contains_key(&command.id)).then_some(Event::Asked(command))
}

/// Returns a product, all that it reads and all that reads it, directly or through others; `reads` says what each product reads.
fn related(product: &ProductId, reads: &BTreeMap<&ProductId, BTreeSet<ProductId>>) -> BTreeSet<ProductId> {
    let closure = |next: &dyn Fn(&ProductId) -> Vec<ProductId>| {
        let (mut found, mut look) = (BTreeSet::from([product.clone()]), vec![product.clone()]);
        while let Some(id) = look.pop() {
            look.extend(next(&id).into_iter().filter(|id| found.insert(id.clone())));
        }
        found
    };
    let above = closure(&|id| reads.get(id).into_iter().flatten().cloned().collect());
    let readers = |id: &ProductId| {
        reads.iter().filter(|(_, it)| it.contains(id)).map(|(id, _)| (*id).clone()).collect()
    };
    &above | &closure(&readers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_related_reads_or_is_read() {
        let id = |name: &str| -> ProductId { format!("shop/{name}").parse().expect("an id") };
        let ids: Vec<ProductId> = ["clicks", "sessions", "orders", "daily"].map(id).into();
        let reads = BTreeMap::from([
            (&ids[0], BTreeSet::new()),
            (&ids[1], BTreeSet::from([id("clicks"), id("orders")])),
            (&ids[2], BTreeSet::new()),
            (&ids[3], BTreeSet::from([id("orders")])),
        ]);
        assert_eq!(related(&id("daily"), &reads), BTreeSet::from([id("daily"), id("orders")]));
        let of_orders = BTreeSet::from([id("daily"), id("orders"), id("sessions")]);
        assert_eq!(related(&id("orders"), &reads), of_orders, "what else a reader reads is not asked about");
        assert_eq!(related(&id("clicks"), &reads), BTreeSet::from([id("clicks"), id("sessions")]));
    }
}
