//! The state machine of control: `step(events) -> effects`. It decides; the shell performs.
//!
//! Events say what happened, with the time of the injected clock. Effects are performed in order, and all facts come first,
//! in one `Append`: a crash after it leaves a fact and no effect, which the next start finds and sees to; an effect without
//! its fact would be lost. One append for all that came together, because a disk takes as long for a thousand facts as for
//! one. The same machine runs over the real world and over an in-memory one.

mod alerts;
mod commands;
mod commit;
mod gate;
mod left;

mod line;
mod models;
mod outbox;
mod retire;
mod room;
mod standing;
mod tend;
#[cfg(test)]
mod tests;
mod troubles;
mod work;
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diag::Diagnostic;
use crate::ids::{PortId, ProductId};
use crate::ledger::{Alert, Command, Decision, Entry, Fact, LedgerState, RunOutcome};
use crate::observe::Seen;
use crate::plan::{Desired, DueWork, NotDue, StepKey};
use crate::planted::{self, Bug};
use crate::trust::Verified;

use alerts::About;
use commit::Pending;
use gate::Asked;
pub use left::Left;
use line::Lines;
use outbox::Handed;
pub use outbox::outbox_id;
use retire::Endings;
pub use retire::{Disposal, Disposed};
use standing::{STAND, Standing};
use tend::Tending;
use work::{Flight, Rest};

/// Limits of one controller, where its environment does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Steps that end by themselves, at once.
    pub steps: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // Two: one scan keeps a small machine busy, a second hides its waits.
        Self { steps: 2 }
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The watched reference is at a commit: once after each move, and once after a start.
    Commit {
        /// The commit.
        commit: String,
        /// The reference.
        r#ref: String,
        /// First line of the message.
        message: String,
        /// Author's name.
        author: String,
        /// What it asks for; findings when the mesh as a whole does not load.
        desired: Result<Box<Desired>, Vec<Diagnostic>>,
    },
    /// The signatures behind a head were judged; it comes before the head itself.
    Verified(Verified),
    /// Commits that were never looked at, because a newer one came first.
    Superseded {
        /// The commits with message and author, oldest first.
        commits: Vec<(String, String, String)>,
        /// The newer one.
        by: String,
    },
    /// The gate answered.
    Decided(Decision),
    /// Which rules are in force for what is deployed: a digest of its rules and of the waivers that count, by product. It comes when they
    /// have changed, and once after a start.
    Ruled(BTreeMap<ProductId, String>),
    /// A step reports facts while it runs.
    Progress {
        /// The run.
        run: String,
        /// Facts.
        facts: Vec<Fact>,
    },
    /// A step ended.
    Finished {
        /// The run.
        run: String,
        /// Facts that it leaves.
        facts: Vec<Fact>,
        /// How it ended.
        outcome: RunOutcome,
        /// Real time it took.
        took_ms: i64,
    },
    /// A table was looked at.
    Observed {
        /// The port.
        port: PortId,
        /// Publications of the port that were known when it was looked at.
        published: u64,
        /// What was found.
        seen: Seen,
    },
    /// The end of a retired product's tables was done, or was not.
    Disposed {
        /// The product.
        product: ProductId,
        /// The place in the ledger of the end that it is about.
        seq: u64,
        /// What was done; why not, for people.
        result: Result<Disposed, String>,
    },
    /// Someone asked for something.
    Asked(Command),
    /// A message was accepted.
    Sent {
        /// Outbox id.
        outbox: String,
        /// Episode and transition.
        episode: String,
        /// See above.
        transition: u32,
        /// Address.
        to: String,
        /// Receipt.
        receipt: String,
    },
    /// A message was refused; it stays in the outbox and is tried again.
    NotSent {
        /// Outbox id.
        outbox: String,
        /// Why.
        why: String,
    },
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make these durable, in order, before anything after. There is one at most, and it comes first.
    Append(Vec<Entry>),
    /// Ask the gate; answered by [`Event::Decided`].
    Decide(Question),
    /// Begin a step; answered by [`Event::Finished`].
    Start(Start),
    /// Stop a step; it still answers with [`Event::Finished`].
    Cancel {
        /// The run.
        run: String,
    },
    /// Deliver a message; answered by [`Event::Sent`] or [`Event::NotSent`].
    Deliver {
        /// Outbox id: the same message has the same id for ever.
        outbox: String,
        /// To whom.
        to: String,
        /// What.
        alert: Alert,
    },
    /// Take the tables of a retired product away; answered by [`Event::Disposed`]. Doing it again changes nothing.
    Dispose(Disposal),
    /// What the site shows has changed.
    Publish,
}

/// A question to the gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The product.
    pub product: ProductId,
    /// `deploy`, `stand`, `backfill`, `retire`, `drop`, `promote`.
    pub action: String,
    /// The commit.
    pub commit: String,
    /// What the decision covers.
    pub fingerprint: String,
    /// What would change, as JSON for the gate's input.
    pub change: Value,
}

/// A step to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The run.
    pub run: String,
    /// What to do.
    pub key: StepKey,
    /// Attempt, from 1.
    pub attempt: u32,
    /// The product's generation that it works for.
    pub generation: u64,
    /// The decision that it runs under.
    pub decision: String,
    /// Why, for people.
    pub reason: String,
}

/// The state of control: the ledger folded, and what is in flight.
#[derive(Debug)]
pub struct Control {
    /// The ledger folded.
    pub ledger: LedgerState,
    environment: String,
    limits: Limits,
    now_ms: i64,
    /// What the last readable commit asks for.
    desired: Option<Box<Desired>>,
    /// The commit being decided about.
    pending: Option<Pending>,
    /// When the head was last judged.
    judged_ms: i64,
    /// Questions that the gate has not answered, by product and action.
    questions: BTreeMap<(ProductId, &'static str), Asked>,
    /// When the first of them is put again.
    ask_again_ms: i64,
    /// Commands to ask the gate about, in order of arrival.
    commands: VecDeque<String>,
    /// Of those that are deployed.
    standing: Standing,
    /// Of the tables of products that left.
    endings: Endings,
    /// Tables that are due to be looked after.
    tending: Tending,
    /// Products with a model about which nothing was decided.
    unweighed: BTreeSet<ProductId>,
    due: DueWork,
    flights: BTreeMap<StepKey, Flight>,
    /// Steps that ended well a moment ago.
    resting: BTreeMap<StepKey, Rest>,
    /// When each of them may begin again.
    rested: BTreeSet<(i64, StepKey)>,
    /// Pipelines that may have a step to begin.
    lines: Lines,
    /// Limits have changed since pipelines lined up.
    relimited: bool,
    /// A definition has changed since flights were looked at.
    redeployed: bool,
    /// When to stop a step again that did not hear of it.
    stop_again_ms: i64,
    /// Products of which something changed since they were judged.
    troubled: BTreeSet<ProductId>,
    /// When time alone changes what is wrong with a product, by time and by product.
    trouble_times: BTreeSet<(i64, ProductId)>,
    trouble_ms: BTreeMap<ProductId, i64>,
    /// What is wrong and was not told: nobody is known to tell, or another episode explains it.
    untold: BTreeSet<About>,
    /// Messages handed to the shell and not yet answered, by episode and address.
    delivering: BTreeMap<(String, String), Handed>,
    effects: Vec<Effect>,
    facts: Vec<Entry>,
}

impl Control {
    /// Returns a controller over a replayed ledger. After a start the gate is asked again about whatever is not deployed.
    #[must_use]
    pub fn new(ledger: LedgerState, environment: &str, limits: Limits) -> Self {
        let now_ms = ledger.at_ms;
        let commands = ledger.pending.keys().cloned().collect();
        let unweighed = ledger.models.keys().cloned().collect();
        let open = ledger.open.keys().map(|(product, ..)| product);
        let troubled = ledger.deployed.keys().chain(ledger.verdicts.keys()).chain(open).cloned().collect();
        Self {
            ledger,
            environment: environment.to_owned(),
            limits,
            now_ms,
            desired: None,
            pending: None,
            judged_ms: now_ms,
            questions: BTreeMap::new(),
            ask_again_ms: i64::MAX,
            commands,
            standing: Standing::default(),
            endings: Endings::default(),
            tending: Tending::default(),
            unweighed,
            due: DueWork::default(),
            flights: BTreeMap::new(),
            resting: BTreeMap::new(),
            rested: BTreeSet::new(),
            lines: Lines::default(),
            relimited: false,
            redeployed: false,
            stop_again_ms: i64::MAX,
            troubled,
            trouble_times: BTreeSet::new(),
            trouble_ms: BTreeMap::new(),
            untold: BTreeSet::new(),
            delivering: BTreeMap::new(),
            effects: Vec::new(),
            facts: Vec::new(),
        }
    }

    /// Returns what the last readable commit asks for.
    #[must_use]
    pub fn desired(&self) -> Option<&Desired> {
        self.desired.as_deref()
    }

    /// Returns the steps in flight with their runs.
    pub fn in_flight(&self) -> impl Iterator<Item = (&StepKey, &str)> {
        self.flights.iter().map(|(key, flight)| (key, flight.run.as_str()))
    }

    /// Returns what waits, and why.
    pub fn waiting(&self) -> impl Iterator<Item = NotDue> {
        self.due.waiting()
    }

    /// Returns the time of the last event, milliseconds UTC.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Takes the lease: the first fact of a writer.
    #[must_use]
    pub fn open(&mut self, now_ms: i64, epoch: u64, version: &str) -> Vec<Effect> {
        self.now_ms = self.now_ms.max(now_ms);
        let environment = self.environment.clone();
        let orphans: Vec<(String, StepKey)> =
            self.ledger.running.iter().map(|(run, step)| (run.clone(), step.clone())).collect();
        self.record(Fact::Opened { environment, epoch, version: version.to_owned() });
        // Whatever the last writer had in flight ended with it: every run has an end.
        for (run, step) in orphans.into_iter().filter(|_| !planted::is(Bug::OrphansStay)) {
            self.record(Fact::RunFinished { run, step, outcome: RunOutcome::Cancelled, took_ms: 0 });
        }
        self.settle();
        self.decided_together()
    }

    /// Returns what is to be done about events that came together.
    ///
    /// The clock never runs backwards here: an earlier `now_ms` counts as the latest one seen.
    #[must_use]
    pub fn step(&mut self, now_ms: i64, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
        for event in events {
            self.now_ms = if planted::is(Bug::TimeRunsBack) { now_ms } else { self.now_ms.max(now_ms) };
            self.take(event);
            self.settle();
        }
        self.decided_together()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Tick => self.judge_again(),
            Event::Commit { commit, r#ref, message, author, desired } => {
                self.commit(&commit, r#ref, message, author, desired);
            }
            Event::Verified(verified) => self.verified(verified),
            Event::Superseded { commits, by } => self.superseded(commits, &by),
            Event::Decided(decision) => self.decided(decision),
            Event::Ruled(rules) => self.ruled(rules),
            Event::Progress { run, facts } => self.progress(&run, facts),
            Event::Finished { run, facts, outcome, took_ms } => self.finished(&run, facts, outcome, took_ms),
            Event::Observed { port, published, seen } => self.observed(&port, published, &seen),
            Event::Disposed { product, seq, result } => self.disposed(&product, seq, result),
            Event::Asked(command) => self.asked(command),
            Event::Sent { outbox, episode, transition, to, receipt } => {
                self.sent(outbox, episode, transition, to, receipt);
            }
            Event::NotSent { outbox, .. } => self.not_sent(&outbox),
        }
    }

    /// Brings everything that follows from the facts up to date: steps, alerts, messages, the site.
    fn settle(&mut self) {
        self.ask_again();
        self.ask_about_commands();
        self.weigh_challengers();
        // A preview wakes nobody, and looks after nobody's tables: whoever made it is told how it ended.
        let whole = self.ledger.inherited.is_none();
        if whole {
            self.review();
            self.end_tables();
            self.look_after_tables();
        }
        self.schedule();
        if whole {
            self.tend();
            self.judge();
            self.deliver();
        }
    }

    fn record(&mut self, fact: Fact) {
        let entry = Entry { seq: self.ledger.seq + 1, at_ms: self.now_ms, fact };
        if !(planted::is(Bug::DueForgotten) && matches!(entry.fact, Fact::Published(_))) {
            self.due.note(&self.ledger, &entry.fact);
        }
        self.ledger.apply(&entry);
        self.endings.note(&self.ledger, &entry.fact);
        self.tending.note(&entry.fact);
        match &entry.fact {
            // What was answered may be a pause or a cancel.
            Fact::Altered { .. } | Fact::CommandAnswered { .. } => self.redeployed = true,
            Fact::Deployed { product, .. } => {
                self.redeployed = true;
                self.note_deployed(&product.id);
            }
            Fact::Retired { product, .. } => {
                self.redeployed = true;
                self.troubled.insert(product.clone());
                self.note_standing(product);
            }
            // It may stop what runs, or let it go on.
            Fact::Decided(decision) if decision.action == STAND => {
                self.redeployed = true;
                self.troubled.insert(decision.product.clone());
                self.note_standing(&decision.product);
            }
            Fact::Limited { .. } => self.relimited = true,
            Fact::Trained(trained) => _ = self.unweighed.insert(trained.product.clone()),
            Fact::RunStarted { step, .. } => _ = self.troubled.insert(step.pipeline.product.clone()),
            Fact::CommitOutcome { product: Some(product), .. } => _ = self.troubled.insert(product.clone()),
            // What was refused before it is no longer.
            Fact::CommitOutcome { product: None, .. } => {
                self.troubled.extend(self.ledger.verdicts.keys().cloned());
            }
            // Everything else that may be a sign makes something due, or no longer due.
            _ => {}
        }
        self.facts.push(entry);
    }

    /// Returns what was decided since the last time: all facts, then what follows from them in order.
    fn decided_together(&mut self) -> Vec<Effect> {
        let effects = std::mem::take(&mut self.effects);
        if self.facts.is_empty() {
            return effects;
        }
        let facts = [Effect::Append(std::mem::take(&mut self.facts))];
        if planted::is(Bug::EffectBeforeFact) {
            return effects.into_iter().chain(facts).collect();
        }
        facts.into_iter().chain(effects).chain([Effect::Publish]).collect()
    }
}
