//! A world in memory: it performs effects, keeps what is durable, and lets processes die, sleep and take over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::{Control, Effect, Event, Limits, Question, Start, outbox_id};
use super::faults::{Chaos, Fault};
use super::mesh::{self, Tree};
use super::steps::{Fate, Running, Table};
use crate::ids::{PortId, ProductId};
use crate::ledger::{
    Alert, AlertState, Command, Decision, Entry, ErrorKind, Fact, Finding, LedgerState, RunOutcome, Verb,
};
use crate::model::Product;
use crate::plan::{Desired, Plan, Print, dependency_order, plan};
use crate::planted::{self, Bug};

pub const MINUTE_MS: i64 = 60_000;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// Stopped processes, and steps taken for dead, at once: enough for them to meet, few enough to come to act.
const SLEEPERS: usize = 2;
const GHOSTS: usize = 4;

/// 2026-11-01T06:00Z: 90 days after the first partition.
pub const MORNING_MS: i64 = 1_793_512_800_000;

type Policy = Box<dyn Fn(&Question, Option<&Product>) -> Vec<&'static str>>;

/// A process with the role of control. One that is stopped does not know that another has taken over.
pub struct Process {
    pub control: Control,
    /// The writer's epoch.
    pub epoch: u64,
    /// Answers on their way to control.
    pub inbox: VecDeque<Event>,
    /// Answers that take their time, with when they come.
    late: Vec<(i64, Event)>,
    pub running: BTreeMap<String, Running>,
    /// What is still to be performed of the last event, of a process that was stopped in the middle of it.
    todo: VecDeque<Effect>,
    /// It was refused by the store and ends.
    pub ended: bool,
}

impl Process {
    /// Returns a process that starts from what is durable.
    fn new(durable: LedgerState, epoch: u64) -> Self {
        Self {
            control: Control::new(durable, "dev", Limits::default()),
            epoch,
            inbox: VecDeque::new(),
            late: Vec::new(),
            running: BTreeMap::new(),
            todo: VecDeque::new(),
            ended: false,
        }
    }
}

pub struct World {
    pub at_work: Process,

    // Other processes.
    pub asleep: Vec<Process>,
    /// Steps that everybody takes for dead.
    pub ghosts: Vec<Running>,
    /// What a definition reads that is no part of the mesh.
    pub outside: usize,

    // What is durable.
    pub entries: Vec<Entry>,
    /// The durable ledger folded: what the next process starts from.
    pub durable: LedgerState,
    /// The epoch of the last writer that took the lease.
    pub newest_epoch: u64,
    pub lake: BTreeMap<PortId, Table>,
    pub models: u64,

    // Everything around.
    pub now_ms: i64,
    /// How far the clock is from the time.
    pub skew_ms: i64,
    /// Commits in order, with what the repository holds at each.
    pub commits: Vec<(String, Tree)>,
    readings: BTreeMap<String, Box<Desired>>,
    /// Rules that deny an action on a product.
    pub policy: Policy,
    /// How often they were changed.
    pub rules: u64,
    /// Products of which a denial stops what runs.
    pub stops: BTreeSet<ProductId>,
    /// Newest event of the topic.
    pub newest_event_ms: i64,
    pub source_stopped: bool,
    /// When the world became another one.
    pub shifted_ms: Option<i64>,
    /// How the next models do against the champion.
    pub challenger: f64,
    /// Mails that were accepted, in order.
    pub mails: Vec<(String, Alert)>,
    pub mail_down: bool,
    /// What becomes of the next partitions, and steps without, by product: what has no code goes well.
    pub failures: BTreeMap<ProductId, VecDeque<(ErrorKind, &'static str)>>,
    pub chaos: Option<Chaos>,

    // What the tests look at.
    /// Steps begun, in order; without maintenance.
    pub started: Vec<Start>,
    /// Contracts that a deployed reader was checked against: reader, port, column, type.
    checked: BTreeMap<ProductId, Vec<(PortId, String, crate::model::LogicalType)>>,
    decided: BTreeSet<(ProductId, String, String)>,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            at_work: Process::new(LedgerState::default(), 1),
            asleep: Vec::new(),
            ghosts: Vec::new(),
            outside: 0,
            entries: Vec::new(),
            durable: LedgerState::default(),
            newest_epoch: 1,
            lake: BTreeMap::new(),
            models: 0,
            now_ms: MORNING_MS,
            skew_ms: 0,
            commits: Vec::new(),
            readings: BTreeMap::new(),
            policy: Box::new(|_, product| {
                let columns = product
                    .into_iter()
                    .flat_map(|it| it.outputs.values())
                    .flat_map(|it| &it.contract.columns);
                let exposed = columns.into_iter().any(|column| column.classification.is_some());
                if exposed { vec!["no_pii"] } else { vec![] }
            }),
            rules: 0,
            stops: BTreeSet::new(),
            newest_event_ms: MORNING_MS,
            source_stopped: false,
            shifted_ms: None,
            challenger: 0.8,
            mails: Vec::new(),
            mail_down: false,
            failures: BTreeMap::new(),
            chaos: None,
            started: Vec::new(),
            checked: BTreeMap::new(),
            decided: BTreeSet::new(),
        };
        let epoch = world.at_work.epoch;
        let effects = world.at_work.control.open(world.now_ms, epoch, "test");
        world.perform_all(effects);
        world
    }

    pub fn ledger(&self) -> &LedgerState {
        &self.at_work.control.ledger
    }

    /// Pushes a commit; returns its id. Control sees it with [`World::look`].
    pub fn push(&mut self, edit: impl FnOnce(&mut Tree)) -> String {
        let mut tree = self.commits.last().map(|(_, tree)| tree.clone()).unwrap_or_default();
        edit(&mut tree);
        let commit = format!("{:040x}", self.commits.len() + 1);
        self.commits.push((commit.clone(), tree));
        commit
    }

    /// Lets control see where the reference is.
    pub fn look(&mut self) {
        let Some((commit, tree)) = self.commits.last() else { return };
        // What a reader of the repository knows of the deployed state may be old; core does not rely on it.
        let desired = self
            .readings
            .entry(commit.clone())
            .or_insert_with(|| Box::new(mesh::desired(tree, commit, &BTreeMap::new())))
            .clone();
        let event = Event::Commit {
            commit: commit.clone(),
            r#ref: "refs/heads/main".to_owned(),
            message: "change".to_owned(),
            author: "someone".to_owned(),
            desired: Ok(desired),
        };
        self.step(event);
        self.rule();
    }

    /// Lets control see which rules are in force.
    pub fn rule(&mut self) {
        let wanted = self.at_work.control.desired().into_iter().flat_map(|it| it.mesh.products.keys());
        let all = wanted.chain(self.ledger().deployed.keys());
        let rules = all.map(|id| (id.clone(), self.rules_of(id))).collect();
        self.step(Event::Ruled(rules));
    }

    /// Returns what the rules in force are for a product.
    pub fn rules_of(&self, _: &ProductId) -> String {
        format!("rules {}", self.rules)
    }

    /// Pushes a commit, lets control see it, and everything come to rest.
    pub fn commit(&mut self, edit: impl FnOnce(&mut Tree)) -> String {
        let commit = self.push(edit);
        self.look();
        self.rest();
        commit
    }

    pub fn step(&mut self, event: Event) {
        self.step_all([event]);
    }

    /// Lets control decide about events that came together.
    pub fn step_all(&mut self, events: impl IntoIterator<Item = Event>) {
        let effects = self.at_work.control.step(self.now_ms + self.skew_ms, events);
        self.perform_all(effects);
    }

    pub fn perform_all(&mut self, effects: Vec<Effect>) {
        let mut todo: VecDeque<Effect> = effects.into();
        while let Some(effect) = todo.pop_front() {
            let fault = self.chaos.as_mut().and_then(|chaos| chaos.strike(&effect));
            match fault {
                Some(Fault::CrashBefore) => return self.crash(),
                Some(Fault::CrashAfter) => {
                    self.perform(effect, None);
                    return self.crash();
                }
                Some(Fault::Paused) => {
                    todo.push_front(effect);
                    return self.take_over(todo);
                }
                Some(Fault::ClockForward) => self.skew_ms += 3 * HOUR_MS,
                Some(Fault::ClockBack) => self.skew_ms -= 2 * HOUR_MS,
                Some(Fault::Slow) => self.advance(3 * MINUTE_MS),
                _ => {}
            }
            self.perform(effect, fault);
            if self.at_work.ended {
                return;
            }
        }
    }

    fn perform(&mut self, effect: Effect, fault: Option<Fault>) {
        let fails = fault == Some(Fault::Fails);
        match effect {
            Effect::Append(entries) => {
                // A full disk is waited out.
                if fails {
                    self.advance(5_000);
                }
                self.append(entries);
            }
            Effect::Decide(question) => {
                let decision = self.decide(&question, fails);
                self.answer(Event::Decided(decision), fault);
            }
            Effect::Start(start) => {
                let run = start.run.clone();
                self.start(start);
                match fault {
                    Some(Fault::Fails) => {
                        let message = "no thread".to_owned();
                        let (kind, code) = (ErrorKind::External, "HM-X001".to_owned());
                        self.finish(&run, Vec::new(), RunOutcome::Failed { kind, code, message });
                    }
                    Some(Fault::AnswerLost) => self.lose(&run),
                    Some(Fault::AnswerTwice) => self.fate(&run, Fate::Twice),
                    Some(Fault::AnswerLate) => self.fate(&run, Fate::Late),
                    _ => {}
                }
            }
            Effect::Cancel { run } => {
                if let Some(running) = self.at_work.running.get_mut(&run).filter(|_| !fails) {
                    running.cancelled = true;
                }
            }
            Effect::Deliver { outbox, to, alert } => {
                assert_eq!(outbox, outbox_id(&alert.episode, alert.transition, &to));
                self.assert_told(&alert);
                if self.mail_down || fails {
                    let why = "connection refused".to_owned();
                    return self.answer(Event::NotSent { outbox, why }, fault);
                }
                let (episode, transition) = (alert.episode.clone(), alert.transition);
                self.mails.push((to.clone(), alert));
                let receipt = "250 ok".to_owned();
                self.answer(Event::Sent { outbox, episode, transition, to, receipt }, fault);
            }
            Effect::Dispose(disposal) => {
                let (product, seq) = (disposal.product.clone(), disposal.seq);
                // What was moved away before the disk refused stays away.
                let moved = self.dispose(&disposal, if fails { 0 } else { usize::MAX });
                let result = if fails { Err("disk full".to_owned()) } else { Ok(moved) };
                self.answer(Event::Disposed { product, seq, result }, fault);
            }
            Effect::Publish => {}
        }
    }

    fn append(&mut self, entries: Vec<Entry>) {
        // The store compares the writer's epoch in the transaction of the append.
        if self.at_work.epoch < self.newest_epoch && !planted::is(Bug::StaleWriter) {
            self.at_work.ended = true;
            return;
        }
        let deploys = |entry: &Entry| matches!(entry.fact, Fact::Deployed { .. } | Fact::Retired { .. });
        let deployed = entries.iter().any(deploys);
        for entry in entries {
            assert_eq!(entry.seq, self.entries.len() as u64 + 1, "P9: the ledger has one writer");
            self.check(&entry);
            self.durable.apply(&entry);
            self.entries.push(entry);
        }
        if deployed {
            self.assert_readers_check();
        }
    }

    fn answer(&mut self, event: Event, fault: Option<Fault>) {
        match fault {
            Some(Fault::AnswerLost) => {}
            Some(Fault::AnswerTwice) => self.at_work.inbox.extend([event.clone(), event]),
            Some(Fault::AnswerLate) => self.tell_late(event),
            _ => self.at_work.inbox.push_back(event),
        }
    }

    pub fn tell_late(&mut self, event: Event) {
        self.at_work.late.push((self.now_ms + 20 * MINUTE_MS, event));
    }

    fn fate(&mut self, run: &str, fate: Fate) {
        if let Some(running) = self.at_work.running.get_mut(run) {
            running.fate = fate;
        }
    }

    /// Asserts that a table shows what the ledger says of a partition, made by the definition with this data fingerprint,
    /// and that it has the version that readers are given.
    pub fn assert_shows(&self, port: &PortId, key: &str, data: &str) {
        let state = &self.ledger().ports[port];
        let known = &state.partitions[key].published;
        assert_eq!(known.data, data, "{port} {key} is of another definition");
        // By the key, not by the version: what a lost process commits under the same key shows the same.
        let table = &self.lake[port];
        let real = &table.partitions[key];
        assert_eq!((&known.key, &known.data), (&real.key, &real.data), "{port} {key}");
        assert!(table.has(state.version), "{port} has no version {}", state.version);
    }

    /// No message without its fact: a crash after it must not make it again under another name.
    fn assert_told(&self, alert: &Alert) {
        let known = self.durable.episodes.get(&alert.episode);
        let found =
            known.and_then(|it| it.transitions.iter().find(|(_, it)| it.transition == alert.transition));
        assert_eq!(found.map(|(_, alert)| alert), Some(alert), "P5: a message without its fact");
        assert_ne!(alert.state, AlertState::Held, "what is held back is not told");
    }

    /// Checks what must hold of every fact when it becomes durable.
    fn check(&mut self, entry: &Entry) {
        assert!(entry.at_ms >= self.durable.at_ms, "I18: time runs back");
        match &entry.fact {
            Fact::Decided(decision) if decision.allow => {
                let about = (decision.product.clone(), decision.action.clone(), decision.fingerprint.clone());
                self.decided.insert(about);
            }
            Fact::Deployed { product, print, .. } => {
                let about = (product.id.clone(), "deploy".to_owned(), print.all.clone());
                assert!(self.decided.contains(&about), "P2: {} is deployed without an allow", product.id);
                self.note_checked(&product.id, print);
            }
            Fact::TablesEnding { product, how, .. } => self.check_end(entry.at_ms, product, *how),
            Fact::TablesEnded { product, .. } => {
                assert!(self.durable.ending_of(product).is_some(), "the tables of {product} end twice");
            }
            Fact::Retired { product, .. } => {
                let about = (product.clone(), "retire".to_owned(), String::new());
                assert!(self.decided.contains(&about), "P2: {product} is retired without an allow");
                self.checked.remove(product);
            }
            _ => {}
        }
    }

    /// Remembers what a reader was checked against: the contracts of the commit that it comes from.
    fn note_checked(&mut self, id: &ProductId, print: &Print) {
        let Some(desired) = self.at_work.control.desired() else { return };
        let mut checked = Vec::new();
        for (port, columns) in &print.reads {
            let contract = desired.mesh.output(port).map(|output| &output.contract);
            for column in contract.into_iter().flat_map(|contract| &contract.columns) {
                if columns.contains(&column.name) {
                    checked.push((port.clone(), column.name.clone(), column.logical.clone()));
                }
            }
        }
        self.checked.insert(id.clone(), checked);
    }

    /// No deployed reader fails to check against its deployed input.
    pub fn assert_readers_check(&self) {
        for (reader, needs) in &self.checked {
            for (port, column, logical) in needs {
                let deployed = self.ledger().deployed.get(&port.product);
                let output = deployed.and_then(|it| it.product.outputs.get(&port.port));
                let found = output.and_then(|it| it.contract.columns.iter().find(|it| it.name == *column));
                let found = found.map(|it| &it.logical);
                assert_eq!(
                    found,
                    Some(logical),
                    "{reader} reads {port}#{column}, which is deployed otherwise"
                );
            }
        }
    }

    /// Returns the gate's answer; a gate that fails denies.
    fn decide(&self, question: &Question, fails: bool) -> Decision {
        let desired =
            self.at_work.control.desired().and_then(|desired| desired.mesh.products.get(&question.product));
        let deployed = self.ledger().deployed.get(&question.product).map(|it| &it.product);
        let about = if question.action == "stand" { deployed.or(desired) } else { desired.or(deployed) };
        let rules = if fails { vec!["policy-unanswered"] } else { (self.policy)(question, about) };
        let finding = |rule: &&str| Finding {
            rule: (*rule).to_owned(),
            message: format!("{rule} says no"),
            path: String::new(),
            remediation: String::new(),
            running: self.stops.contains(&question.product),
        };
        Decision {
            id: format!("{}-{}-{}", question.action, question.product, self.now_ms),
            product: question.product.clone(),
            action: question.action.clone(),
            commit: question.commit.clone(),
            fingerprint: question.fingerprint.clone(),
            allow: rules.is_empty(),
            violations: rules.iter().map(finding).collect(),
            warnings: Vec::new(),
            waived: Vec::new(),
            policy_digest: "rules".to_owned(),
            rules: self.rules_of(&question.product),
            input_hash: String::new(),
        }
    }

    /// Takes the gate's next answer out of what is on its way to control.
    pub fn take_answer(&mut self) -> Decision {
        let at = self.at_work.inbox.iter().position(|event| matches!(event, Event::Decided(_)));
        match at.and_then(|at| self.at_work.inbox.remove(at)) {
            Some(Event::Decided(decision)) => decision,
            _ => panic!("the gate was not asked"),
        }
    }

    /// Delivers the next answer; returns whether there was one.
    pub fn deliver(&mut self) -> bool {
        let Some(event) = self.at_work.inbox.pop_front() else { return false };
        self.step(event);
        true
    }

    /// Lets everything happen that needs no time.
    pub fn rest(&mut self) {
        for _ in 0..200_000 {
            let answered = self.deliver();
            let mut worked = false;
            for run in self.runs() {
                worked |= self.work(&run);
            }
            if !answered && !worked && self.at_work.inbox.is_empty() {
                return;
            }
        }
        panic!(
            "no rest: {:?}",
            self.started.iter().rev().take(5).map(|it| it.key.to_string()).collect::<Vec<_>>()
        );
    }

    /// Lets time pass in even turns.
    pub fn pass(&mut self, total_ms: i64, turn_ms: i64) {
        for _ in 0..total_ms / turn_ms {
            self.advance(turn_ms);
            self.step(Event::Tick);
            self.rest();
        }
    }

    pub fn advance(&mut self, by_ms: i64) {
        self.now_ms += by_ms;
        let now_ms = self.now_ms;
        self.at_work
            .inbox
            .extend(self.at_work.late.extract_if(.., |(at_ms, _)| *at_ms <= now_ms).map(|(_, event)| event));
        if !self.source_stopped {
            self.newest_event_ms = self.now_ms;
        }
    }

    /// Ends the process and starts another on what is durable. What was in flight may have reached the lake.
    pub fn crash(&mut self) {
        let process = self.succeed();
        if let Some(chaos) = &mut self.chaos {
            // Processes of their own outlive it and finish what they are at.
            let alive = process.running.into_values().filter(|_| chaos.random.chance(50));
            self.ghosts.extend(alive);
            self.ghosts.truncate(GHOSTS);
        }
        self.open();
    }

    /// Stops the process in the middle of what it does; when its lease has run out, another takes over.
    fn take_over(&mut self, todo: VecDeque<Effect>) {
        self.advance(MINUTE_MS);
        let process = self.succeed();
        self.asleep.push(Process { todo, ..process });
        if self.asleep.len() > SLEEPERS {
            self.asleep.remove(0);
        }
        self.open();
    }

    /// Puts a process that starts from what is durable in the place of the one at work, which is returned.
    fn succeed(&mut self) -> Process {
        self.newest_epoch += 1;
        std::mem::replace(&mut self.at_work, Process::new(self.durable.clone(), self.newest_epoch))
    }

    /// Lets a stopped process go on for a while, until it notices that it may not.
    pub fn wake(&mut self, at: usize, turns: usize) {
        if self.asleep.is_empty() {
            return;
        }
        let stopped = self.asleep.remove(at % self.asleep.len());
        let current = std::mem::replace(&mut self.at_work, stopped);
        let chaos = self.chaos.take();
        let todo = std::mem::take(&mut self.at_work.todo);
        self.perform_all(todo.into());
        for turn in 0..turns {
            if self.at_work.ended {
                break;
            }
            match self.runs().get(turn) {
                Some(run) => _ = self.work(run),
                None if !self.deliver() => self.step(Event::Tick),
                None => {}
            }
        }
        self.chaos = chaos;
        let stopped = std::mem::replace(&mut self.at_work, current);
        if stopped.ended {
            self.ghosts.extend(stopped.running.into_values());
            self.ghosts.truncate(GHOSTS);
        } else {
            self.asleep.push(stopped);
        }
    }

    fn open(&mut self) {
        let epoch = self.at_work.epoch;
        let effects = self.at_work.control.open(self.now_ms + self.skew_ms, epoch, "test");
        self.perform_all(effects);
        // Unless it died, or was stopped, while it opened: then another has looked already.
        if self.at_work.epoch == epoch {
            self.look();
        }
    }

    pub fn ask(&mut self, command: &str, verb: Verb) {
        let (actor, reason) = ("someone".to_owned(), "because".to_owned());
        self.step(Event::Asked(Command { id: command.to_owned(), actor, reason, verb }));
    }

    /// Returns the plan of the newest commit.
    pub fn plan(&self) -> Plan {
        let desired: &Desired = self.at_work.control.desired().expect("a commit was read");
        let order = dependency_order(desired.mesh.products.values());
        plan(desired, &order, self.ledger(), "dev", self.now_ms)
    }

    /// Partitions published since an entry, by product.
    pub fn backfilled(&self, since: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for entry in &self.entries[since..] {
            if let Fact::Published(published) = &entry.fact {
                *counts.entry(published.port.product.to_string()).or_default() += 1;
            }
        }
        counts
    }
}
