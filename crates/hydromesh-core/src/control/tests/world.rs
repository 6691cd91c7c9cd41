//! A world in memory: it performs effects, keeps tables and topics, and can lose, repeat and delay what it answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::{Control, Effect, Event, Limits, Question, Start, outbox_id};
use super::mesh::{self, Tree};
use crate::checkpoint::{CHECKPOINT_FORMAT, CheckpointRecord};
use crate::ids::{PortId, ProductId};
use crate::ledger::{
    Alert, Command, Decision, Entry, Epoch, ErrorKind, Fact, FeatureDrift, Finding, LedgerState, Published,
    RunOutcome, StreamRows, Trained, Verb,
};
use crate::model::{Pipeline, Product};
use crate::plan::{Desired, Plan, Print, Work, dependency_order, partition_bounds_ms, plan};
use crate::time::{Partition, PartitionSet};

pub const MINUTE_MS: i64 = 60_000;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// 2026-11-01T06:00Z: 90 days after the first partition.
pub const MORNING_MS: i64 = 1_793_512_800_000;

/// What one table holds, as the lake knows it.
#[derive(Debug, Default)]
pub struct Table {
    pub version: i64,
    /// By partition: what its newest commit said.
    pub partitions: BTreeMap<String, Published>,
}

/// A step at work.
#[derive(Debug)]
struct Running {
    start: Start,
    product: Product,
    print: Print,
    /// Versions of the inputs that it reads, pinned when it began.
    inputs: BTreeMap<PortId, i64>,
    /// Partitions left to publish.
    left: VecDeque<Option<String>>,
    cancelled: bool,
}

type Policy = Box<dyn Fn(&Question, Option<&Product>) -> Vec<&'static str>>;

pub struct World {
    pub control: Control,
    pub now_ms: i64,
    /// The durable ledger.
    pub entries: Vec<Entry>,
    /// The durable ledger folded: what the next process starts from.
    pub durable: LedgerState,
    epoch: u64,
    /// Commits in order, with what the repository holds at each.
    pub commits: Vec<(String, Tree)>,
    readings: BTreeMap<String, Box<Desired>>,
    /// Rules that deny an action on a product.
    pub policy: Policy,
    /// Answers on their way to control.
    pub inbox: VecDeque<Event>,
    running: BTreeMap<String, Running>,
    pub lake: BTreeMap<PortId, Table>,
    /// Newest event of the topic.
    pub newest_event_ms: i64,
    pub source_stopped: bool,
    /// When the world became another one.
    pub shifted_ms: Option<i64>,
    models: u64,
    /// How the next models do against the champion.
    pub challenger: f64,
    /// Mails that were accepted, in order.
    pub mails: Vec<(String, Alert)>,
    pub mail_down: bool,
    /// Steps begun, in order.
    pub started: Vec<Start>,
    pub published: u64,
    /// Contracts that a deployed reader was checked against: reader, port, column, type.
    checked: BTreeMap<ProductId, Vec<(PortId, String, crate::model::LogicalType)>>,
    decided: BTreeSet<(ProductId, String, String)>,
    /// Steps that fail next, by product.
    pub failures: BTreeMap<ProductId, VecDeque<(ErrorKind, &'static str)>>,
    /// After so many more effects the process ends.
    pub fuse: Option<usize>,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            control: Control::new(LedgerState::default(), "dev", Limits::default()),
            now_ms: MORNING_MS,
            entries: Vec::new(),
            durable: LedgerState::default(),
            epoch: 1,
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
            inbox: VecDeque::new(),
            running: BTreeMap::new(),
            lake: BTreeMap::new(),
            newest_event_ms: MORNING_MS,
            source_stopped: false,
            shifted_ms: None,
            models: 0,
            challenger: 0.8,
            mails: Vec::new(),
            mail_down: false,
            started: Vec::new(),
            published: 0,
            checked: BTreeMap::new(),
            decided: BTreeSet::new(),
            failures: BTreeMap::new(),
            fuse: None,
        };
        let effects = world.control.open(world.now_ms, world.epoch, "test");
        world.perform_all(effects);
        world
    }

    pub fn ledger(&self) -> &LedgerState {
        &self.control.ledger
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
    }

    /// Pushes a commit, lets control see it, and everything come to rest.
    pub fn commit(&mut self, edit: impl FnOnce(&mut Tree)) -> String {
        let commit = self.push(edit);
        self.look();
        self.rest();
        commit
    }

    pub fn step(&mut self, event: Event) {
        let effects = self.control.step(self.now_ms, event);
        self.perform_all(effects);
    }

    pub fn perform_all(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match &mut self.fuse {
                Some(0) => return,
                Some(left) => *left -= 1,
                None => {}
            }
            self.perform(effect);
        }
    }

    pub fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Append(entries) => {
                let deploys =
                    |entry: &Entry| matches!(entry.fact, Fact::Deployed { .. } | Fact::Retired { .. });
                let deployed = entries.iter().any(deploys);
                for entry in entries {
                    assert_eq!(entry.seq, self.entries.len() as u64 + 1, "the ledger has no gaps");
                    self.check(&entry);
                    self.durable.apply(&entry);
                    self.entries.push(entry);
                }
                if deployed {
                    self.assert_readers_check();
                }
            }
            Effect::Decide(question) => {
                let decision = self.decide(&question);
                self.inbox.push_back(Event::Decided(decision));
            }
            Effect::Start(start) => self.start(start),
            Effect::Cancel { run } => {
                if let Some(running) = self.running.get_mut(&run) {
                    running.cancelled = true;
                }
            }
            Effect::Deliver { outbox, to, alert } => {
                assert_eq!(outbox, outbox_id(&alert.episode, alert.transition, &to));
                if self.mail_down {
                    self.inbox.push_back(Event::NotSent { outbox, why: "connection refused".to_owned() });
                    return;
                }
                let (episode, transition) = (alert.episode.clone(), alert.transition);
                self.mails.push((to.clone(), alert));
                let receipt = "250 ok".to_owned();
                self.inbox.push_back(Event::Sent { outbox, episode, transition, to, receipt });
            }
            Effect::Publish => self.published += 1,
        }
    }

    /// Checks what must hold of every fact when it becomes durable.
    fn check(&mut self, entry: &Entry) {
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
        let Some(desired) = self.control.desired() else { return };
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

    fn decide(&self, question: &Question) -> Decision {
        let desired = self.control.desired().and_then(|desired| desired.mesh.products.get(&question.product));
        let deployed = self.ledger().deployed.get(&question.product).map(|it| &it.product);
        let rules = (self.policy)(question, desired.or(deployed));
        let finding = |rule: &&str| Finding {
            rule: (*rule).to_owned(),
            message: format!("{rule} says no"),
            path: String::new(),
            remediation: String::new(),
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
            policy_digest: "rules".to_owned(),
            input_hash: String::new(),
        }
    }

    fn start(&mut self, start: Start) {
        for other in self.running.values().filter(|other| other.start.run != start.run) {
            assert!(
                !other.start.key.overlaps(&start.key),
                "{} begins while {} is under way",
                start.key,
                other.start.key
            );
        }
        self.started.push(start.clone());
        let deployed = &self.control.ledger.deployed[&start.key.pipeline.product];
        let (product, print) = (deployed.product.clone(), deployed.print.clone());
        let versions = &self.control.ledger.ports;
        let inputs = crate::plan::upstream_ports(&product)
            .into_iter()
            .filter_map(|port| Some((port.clone(), versions.get(&port)?.version)))
            .collect();
        let left = match (&start.key.work, &product.pipelines[&start.key.pipeline.name]) {
            (Work::Partitions { from, to }, Pipeline::Batch(batch)) => {
                let every = batch.partition.as_ref().expect("partitioned").every;
                let parse = |key: &str| Partition::parse(every, key).expect("a key");
                let set = PartitionSet::between(parse(from), parse(to)).expect("one grain");
                set.iter().map(|key| Some(key.to_string())).collect()
            }
            (Work::Whole | Work::Embed | Work::Train, _) => [None].into(),
            _ => VecDeque::new(),
        };
        let running = Running { start, product, print, inputs, left, cancelled: false };
        self.running.insert(running.start.run.clone(), running);
    }

    /// Runs of steps that are at work.
    pub fn runs(&self) -> Vec<String> {
        self.running.keys().cloned().collect()
    }

    /// Lets a step do a little; its reports and its end go to the inbox. Returns whether it did anything.
    pub fn work(&mut self, run: &str) -> bool {
        let Some(running) = self.running.get(run) else { return false };
        let id = running.start.key.pipeline.product.clone();
        if running.cancelled {
            self.finish(run, Vec::new(), RunOutcome::Cancelled);
            return true;
        }
        let follows = running.start.key.work == Work::Follow;
        if let Some((kind, code)) = self.failures.get_mut(&id).and_then(VecDeque::pop_front) {
            let message = "injected".to_owned();
            self.finish(run, Vec::new(), RunOutcome::Failed { kind, code: code.to_owned(), message });
            return true;
        }
        if follows {
            return self.follow(run);
        }
        let running = self.running.get_mut(run).expect("looked up above");
        if running.start.key.work == Work::Drift {
            let facts = vec![self.drift(&id)];
            self.finish(run, facts, RunOutcome::Succeeded { rows: 0 });
            return true;
        }
        let Some(partition) = running.left.pop_front() else {
            self.finish(run, Vec::new(), RunOutcome::Succeeded { rows: 1 });
            return true;
        };
        let facts = self.publish(run, partition);
        self.inbox.push_back(Event::Progress { run: run.to_owned(), facts });
        true
    }

    fn finish(&mut self, run: &str, facts: Vec<Fact>, outcome: RunOutcome) {
        self.running.remove(run);
        self.inbox.push_back(Event::Finished { run: run.to_owned(), facts, outcome, took_ms: 5 });
    }

    /// Commits a partition to its table; the same content again is no new version.
    fn publish(&mut self, run: &str, partition: Option<String>) -> Vec<Fact> {
        let running = &self.running[run];
        let key = &running.start.key;
        let pipeline = &running.product.pipelines[&key.pipeline.name];
        let port = running.product.port(pipeline.output());
        let data = running.print.ports[pipeline.output()].data.clone();
        let data_time_ms = match (pipeline, &partition) {
            (Pipeline::Batch(batch), Some(key)) => {
                batch.partition.as_ref().and_then(|cut| partition_bounds_ms(cut, key)).map(|(_, end)| end)
            }
            _ => Some(self.now_ms),
        };
        let table = self.lake.entry(port.clone()).or_default();
        let slot = partition.clone().unwrap_or_default();
        let same = table
            .partitions
            .get(&slot)
            .filter(|it| it.data == data && it.inputs == running.inputs && key.work != Work::Train);
        let version = same.map_or(table.version + 1, |it| it.version);
        table.version = table.version.max(version);
        let published = Published {
            port,
            partition,
            version,
            rows: 10,
            data_time_ms,
            data,
            inputs: running.inputs.clone(),
            run: run.to_owned(),
        };
        table.partitions.insert(slot, published.clone());
        let mut facts = vec![Fact::Published(published)];
        if key.work == Work::Train {
            self.models += 1;
            let id = key.pipeline.product.clone();
            let champion = self.control.ledger.models.get(&id).and_then(|models| models.champion);
            facts.push(Fact::Trained(Trained {
                product: id,
                version: self.models,
                run: run.to_owned(),
                metric: "auc".to_owned(),
                value: self.challenger,
                champion_value: champion.map(|_| 0.8),
                metrics: BTreeMap::new(),
                rows: (800, 200),
                inputs: BTreeMap::new(),
                path: format!("models/{}", self.models),
                reason: running.start.reason.clone(),
            }));
        }
        facts
    }

    fn drift(&self, id: &ProductId) -> Fact {
        let models = self.ledger().models.get(id);
        let trained_ms = models.and_then(|models| models.trained.last()).map_or(0, |(at, _)| *at);
        let drifted = self.shifted_ms.is_some_and(|shifted_ms| shifted_ms > trained_ms);
        let verdict = FeatureDrift {
            feature: "spend_7d".to_owned(),
            test: "psi".to_owned(),
            statistic: if drifted { 0.4 } else { 0.02 },
            p_value: if drifted { 1e-9 } else { 0.6 },
            effect: 0.3,
            verdict: if drifted { "drifted" } else { "stable" }.to_owned(),
            samples: (5_000, 600),
        };
        Fact::Drift { product: id.clone(), verdicts: vec![verdict], drifted }
    }

    /// Commits an epoch when the topic has something new.
    fn follow(&mut self, run: &str) -> bool {
        let running = &self.running[run];
        let pipeline = &running.product.pipelines[&running.start.key.pipeline.name];
        let port = running.product.port(pipeline.output());
        let source = running.product.reads().next().cloned();
        let data = running.print.ports[pipeline.output()].data.clone();
        let newest = match &source {
            None => Some(self.newest_event_ms),
            Some(archive) => self.ledger().ports.get(archive).and_then(|state| state.newest_data_ms),
        };
        let before = self.ledger().streams.get(&running.start.key.pipeline);
        let known = before.filter(|before| before.data == data).and_then(|before| before.newest_event_ms);
        let Some(newest) = newest.filter(|newest| Some(*newest) > known) else { return false };
        let table = self.lake.entry(port.clone()).or_default();
        table.version += 1;
        let epoch = Epoch {
            pipeline: running.start.key.pipeline.clone(),
            port,
            checkpoint: CheckpointRecord {
                pipeline: running.start.key.pipeline.to_string(),
                epoch: u64::try_from(table.version).expect("positive"),
                fence: self.epoch,
                topic_id: "t".to_owned(),
                ranges: Vec::new(),
                definition: data.clone(),
                watermark_ms: Some(newest - 30_000),
                format: CHECKPOINT_FORMAT,
            },
            version: table.version,
            rows: StreamRows { accepted: 1, ..StreamRows::default() },
            newest_event_ms: Some(newest),
            data,
        };
        self.inbox.push_back(Event::Progress { run: run.to_owned(), facts: vec![Fact::Epoch(epoch)] });
        true
    }

    /// Delivers the next answer; returns whether there was one.
    pub fn deliver(&mut self) -> bool {
        let Some(event) = self.inbox.pop_front() else { return false };
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
            if !answered && !worked && self.inbox.is_empty() {
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
        if !self.source_stopped {
            self.newest_event_ms = self.now_ms;
        }
    }

    /// Ends the process and starts another on what is durable. What was in flight may have reached the lake.
    pub fn crash(&mut self) {
        self.inbox.clear();
        self.running.clear();
        self.epoch += 1;
        self.control = Control::new(self.durable.clone(), "dev", Limits::default());
        let effects = self.control.open(self.now_ms, self.epoch, "test");
        self.perform_all(effects);
        self.look();
    }

    pub fn ask(&mut self, command: &str, verb: Verb) {
        let (actor, reason) = ("someone".to_owned(), "because".to_owned());
        self.step(Event::Asked(Command { id: command.to_owned(), actor, reason, verb }));
    }

    /// Returns the plan of the newest commit.
    pub fn plan(&self) -> Plan {
        let desired: &Desired = self.control.desired().expect("a commit was read");
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
