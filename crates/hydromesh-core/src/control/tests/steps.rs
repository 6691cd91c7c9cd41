//! Steps at work and the tables that they write, in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::{Event, Start};
use super::world::{HOUR_MS, World};
use crate::checkpoint::{CHECKPOINT_FORMAT, CheckpointRecord};
use crate::ids::{PortId, ProductId};
use crate::ledger::{
    Epoch, ErrorKind, Fact, FeatureDrift, KeysFound, Looked, Published, RunOutcome, StreamRows, Trained,
};
use crate::model::{InputSource, Partitioning, Parts, Pipeline, Product, Values};
use crate::observe::{Seen, SeenPartition};
use crate::plan::{Print, Work, partition_bounds_ms};
use crate::planted::{self, Bug};
use crate::time::{Grain, Partition, PartitionSet};

/// What one table holds, as the lake knows it.
#[derive(Debug, Default)]
pub struct Table {
    pub version: i64,
    /// The version before its first: a table that is made anew has none of those before.
    pub above: i64,
    /// The versions that can be read, and from when on each was the newest.
    pub dates: BTreeMap<i64, i64>,
    /// By partition: what its newest commit said.
    pub partitions: BTreeMap<String, Published>,
    /// Idempotency keys of commits, with the version that carries each.
    pub keys: BTreeMap<String, i64>,
    /// The highest epoch that committed: a lower one is refused.
    pub fence: u64,
    /// Whether somebody took a column away; the next publication brings it back.
    pub reshaped: bool,
    /// The countries in it, by the version that brought them.
    pub countries: BTreeMap<i64, BTreeSet<String>>,
}

impl Table {
    /// Returns whether it can be read as of a version.
    pub fn has(&self, version: i64) -> bool {
        self.dates.contains_key(&version)
    }

    fn commit(&mut self, at_ms: i64) -> i64 {
        self.version += 1;
        self.dates.insert(self.version, at_ms);
        self.version
    }

    /// Lets go of versions before the one that was the newest at a time, but not of one that is published, nor of any after it.
    fn expire(&mut self, since_ms: i64, published: i64) -> u64 {
        let newest = self.dates.iter().rev().find(|(_, at_ms)| **at_ms <= since_ms);
        let first = newest.map_or(0, |(version, _)| *version).min(published);
        let before = self.dates.len();
        self.dates.retain(|version, _| *version >= first);
        (before - self.dates.len()) as u64
    }

    /// Returns the countries that it has as of a version.
    pub fn countries_at(&self, version: i64) -> BTreeSet<String> {
        self.countries.range(..=version).next_back().map(|(_, it)| it.clone()).unwrap_or_default()
    }
}

/// Returns the countries in what a product writes: others come and go with its files, and the first one stays. Of the same files only
/// what is outside of the mesh can bring others, which nobody looks for but who computes it by hand.
fn countries_in(product: &Product, outside: usize) -> BTreeSet<String> {
    let files: usize = product.files.values().map(String::len).sum();
    let from_outside = product.inputs.values().any(|it| matches!(it.source, InputSource::Files { .. }));
    let other = if from_outside { files + outside } else { files };
    ["c0".to_owned(), format!("c{}", other % 5)].into()
}

/// What becomes of a step's end on its way to control.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fate {
    #[default]
    Told,
    Twice,
    Late,
}

/// A step at work.
#[derive(Debug)]
pub struct Running {
    pub start: Start,
    product: Product,
    print: Print,
    /// The epoch of the writer that it works for.
    epoch: u64,
    /// Versions of the inputs that it reads, pinned when it began.
    inputs: BTreeMap<PortId, i64>,
    /// The newest version of its own table that was known then: a table that is made anew counts on from it.
    above: i64,
    /// The last change of its table by somebody else that was known then.
    altered: u64,
    /// The first partition that its table keeps.
    kept_from: Option<String>,
    /// Since when steps under way were reading when it began.
    read_since_ms: Option<i64>,
    /// What of an input it looks at for values.
    looked: Option<Looked>,
    /// Partitions left to publish.
    left: VecDeque<Option<String>>,
    pub cancelled: bool,
    pub fate: Fate,
}

/// Returns the values that the output of a step is cut by, if it is cut by some.
fn values_of<'a>(product: &'a Product, start: &Start) -> Option<&'a Values> {
    let pipeline = product.pipelines.get(&start.key.pipeline.name)?;
    product.cut_of(pipeline.output()).and_then(Partitioning::values)
}

/// Returns the keys of a step.
pub fn keys_between(cut: &Partitioning, from: &str, to: &str) -> Vec<String> {
    match &cut.into {
        Parts::Calendar(calendar) => {
            let parse = |key: &str| Partition::parse(calendar.every, key).expect("a key");
            let set = PartitionSet::between(parse(from), parse(to)).expect("one grain");
            set.iter().map(|key| key.to_string()).collect()
        }
        Parts::Values { values } | Parts::Keys { found: values, .. } => {
            assert!(from == to, "{from}..{to} is no step of {values}");
            vec![from.to_owned()]
        }
    }
}

impl World {
    pub fn start(&mut self, start: Start) {
        // Of a process that was stopped right before, another writer may have ended the run meanwhile.
        let stale = self.at_work.epoch < self.newest_epoch;
        let durable = stale || self.durable.running.contains_key(&start.run);
        assert!(durable, "{} begins before the fact is durable", start.run);
        for other in self.at_work.running.values().filter(|other| other.start.run != start.run) {
            assert!(
                !other.start.key.overlaps(&start.key),
                "{} begins while {} is under way",
                start.key,
                other.start.key
            );
        }
        if start.key.work != Work::Tend {
            self.started.push(start.clone());
        }
        // The shell ends a step whose product was retired in the same breath before it begins.
        let Some(deployed) = self.at_work.control.ledger.deployed.get(&start.key.pipeline.product) else {
            return self.tell_end(&start.run, Fate::Told, Vec::new(), RunOutcome::Cancelled);
        };
        let (product, print, generation) =
            (deployed.product.clone(), deployed.print.clone(), deployed.generation);
        if let (Work::Partitions { from, .. }, Some(values)) = (&start.key.work, values_of(&product, &start))
            && values.index(from).is_none()
        {
            // One that was decided about right before a deploy took the value off the list.
            assert_ne!(start.generation, generation, "{} is not on the list {values}", start.key);
            let (kind, code) = (ErrorKind::User, "HM-X008".to_owned());
            let outcome = RunOutcome::Failed { kind, code, message: "it is not on the list".to_owned() };
            return self.tell_end(&start.run, Fate::Told, Vec::new(), outcome);
        }
        let versions = &self.at_work.control.ledger.ports;
        let inputs = crate::plan::upstream_ports(&product)
            .into_iter()
            .filter_map(|port| Some((port.clone(), versions.get(&port)?.version)))
            .collect();
        let port = product.port(product.pipelines[&start.key.pipeline.name].output());
        let above = self.at_work.control.ledger.known_version(&port).unwrap_or(0);
        let altered = self.at_work.control.ledger.altered_at(&port);
        let left = match (&start.key.work, &product.pipelines[&start.key.pipeline.name]) {
            (Work::Partitions { from, to }, Pipeline::Batch(batch)) => {
                let cut = batch.partition.as_ref().expect("partitioned");
                keys_between(cut, from, to).into_iter().map(Some).collect()
            }
            (Work::Whole | Work::Embed | Work::Train, _) => [None].into(),
            _ => VecDeque::new(),
        };
        // One that came together with the start is later.
        let pause = self.ledger().pause_of(&product.id, self.at_work.control.now_ms());
        let before = pause.is_some_and(|pause| start.run < format!("run-{:08}", pause.seq));
        // Something else may have come together with it, after which it is no longer the newest.
        let is_last = start.run == format!("run-{:08}", self.ledger().seq);
        let fresh = !is_last || self.at_work.control.due.is_fresh(&start.key);
        let pause = pause.filter(|pause| pause.holds(fresh));
        assert!(pause.is_none() || before, "{} begins while its product is paused", start.key);
        let pipeline = &product.pipelines[&start.key.pipeline.name];
        for key in left.iter().flatten() {
            // One that was decided about right before another deploy is stopped at once.
            if start.generation == generation {
                self.assert_rests_on(&print, &product.port(pipeline.output()), key);
                self.assert_window(&product, pipeline, key);
            }
        }
        let epoch = self.at_work.epoch;
        let fate = Fate::Told;
        let cancelled = false;
        let kept_from = self.at_work.control.ledger.kept_from(&port).map(str::to_owned);
        let read_since_ms = self.at_work.control.ledger.read_since_ms();
        let looked = product.cut_of(&port.port).and_then(Partitioning::source).and_then(|source| {
            let ledger = &self.at_work.control.ledger;
            ledger.in_sight(ledger.deployed.get(&product.id)?, source)
        });
        let running = Running {
            start,
            product,
            print,
            epoch,
            inputs,
            above,
            altered,
            kept_from,
            read_since_ms,
            looked,
            left,
            cancelled,
            fate,
        };
        self.at_work.running.insert(running.start.run.clone(), running);
    }

    /// Asserts that what a partition rests on alone is published.
    fn assert_rests_on(&self, print: &Print, port: &PortId, key: &str) {
        let inputs = print.aligned.iter().filter(|(output, _)| *output == port.port).map(|(_, input)| input);
        for input in inputs {
            let state = self.ledger().ports.get(input);
            let there = state.is_some_and(|state| state.partitions.contains_key(key));
            // What the list of the input does not have any longer never comes.
            if self.ledger().values_of(input).is_some_and(|values| values.index(key).is_none()) {
                continue;
            }
            assert!(there, "{port} {key} begins before {input} {key} is published");
        }
    }

    /// Asserts that of the inputs of which a pipeline picks partitions so many are published as a partition needs.
    fn assert_window(&self, product: &Product, pipeline: &Pipeline, key: &str) {
        let Pipeline::Batch(batch) = pipeline else { return };
        for port in product.reads() {
            let (Some(window), Some(upstream)) =
                (product.windows_of(batch, port).first().copied(), self.ledger().deployed.get(&port.product))
            else {
                continue;
            };
            // By days, counted one by one.
            let daily = |cut: &Partitioning| cut.calendar().filter(|it| it.every == Grain::Day).cloned();
            let own = batch.partition.as_ref().and_then(daily);
            let (Some(cut), Some(_)) = (upstream.product.cut_of(&port.port).and_then(daily), own) else {
                continue;
            };
            let day = |key: &str| Partition::parse(cut.every, key).expect("a day").index();
            let moved = |by: i32| day(key) + i64::from(by);
            let all: Vec<i64> = (moved(window.from.count())..=moved(window.to.count()))
                .filter(|index| *index >= day(&cut.start))
                .collect();
            let published = &self.ledger().ports[port].partitions;
            let there = all.iter().filter(|index| {
                published.contains_key(&Partition::from_index(cut.every, **index).to_string())
            });
            let needed = window.at_least.map_or(all.len(), |least| all.len().min(least as usize));
            assert!(
                there.count() >= needed,
                "{} {key} begins before its window of {port} is there",
                product.id
            );
        }
    }

    /// Runs of steps that are at work.
    pub fn runs(&self) -> Vec<String> {
        self.at_work.running.keys().cloned().collect()
    }

    /// Lets a step do a little; its reports and its end go to the inbox. Returns whether it did anything.
    pub fn work(&mut self, run: &str) -> bool {
        let Some(running) = self.at_work.running.get(run) else { return false };
        let id = running.start.key.pipeline.product.clone();
        if running.cancelled {
            self.finish(run, Vec::new(), RunOutcome::Cancelled);
            return true;
        }
        let follows = running.start.key.work == Work::Follow;
        let fate = self.failures.get_mut(&id).and_then(VecDeque::pop_front);
        if let Some((kind, code)) = fate.filter(|(_, code)| !code.is_empty()) {
            let message = "injected".to_owned();
            self.finish(run, Vec::new(), RunOutcome::Failed { kind, code: code.to_owned(), message });
            return true;
        }
        if follows {
            return self.follow(run);
        }
        let running = self.at_work.running.get_mut(run).expect("looked up above");
        if running.start.key.work == Work::Drift {
            let facts = vec![self.drift(&id)];
            self.finish(run, facts, RunOutcome::Succeeded { rows: 0 });
            return true;
        }
        if running.start.key.work == Work::Tend {
            let running = self.at_work.running.remove(run).expect("looked up above");
            let facts = self.tend(&running);
            self.at_work.running.insert(run.to_owned(), running);
            match facts {
                Some(facts) => self.finish(run, facts, RunOutcome::Succeeded { rows: 0 }),
                None => self.fenced(run),
            }
            return true;
        }
        let looks = running.start.key.work == Work::Keys;
        let partition = running.left.pop_front();
        if partition.is_none() && !looks {
            self.finish(run, Vec::new(), RunOutcome::Succeeded { rows: 1 });
            return true;
        }
        if let Some((port, version)) = running.inputs.iter().find(|(port, version)| {
            // Whatever is in another table's place, it is not read.
            !self.lake.get(port).is_some_and(|table| table.has(**version))
        }) {
            let (kind, code) = (ErrorKind::External, "HM-L001".to_owned());
            let message = format!("{port} has no version {version}");
            self.finish(run, Vec::new(), RunOutcome::Failed { kind, code, message });
            return true;
        }
        if looks {
            let found = self.keys(&self.at_work.running[run]);
            self.finish(run, vec![found], RunOutcome::Succeeded { rows: 0 });
            return true;
        }
        let partition = partition.flatten();
        let running = self.at_work.running.remove(run).expect("looked up above");
        let facts = self.publish(&running, partition);
        self.at_work.running.insert(run.to_owned(), running);
        match facts {
            Some(facts) => self.at_work.inbox.push_back(Event::Progress { run: run.to_owned(), facts }),
            None => self.fenced(run),
        }
        true
    }

    /// A table refused a commit, because a newer writer has committed to it.
    fn fenced(&mut self, run: &str) {
        let (kind, code) = (ErrorKind::External, "HM-L002".to_owned());
        let message = "a newer writer has committed".to_owned();
        self.finish(run, Vec::new(), RunOutcome::Failed { kind, code, message });
    }

    /// A process that performs a step for another is gone as far as control can see: the step is given up under a new
    /// epoch, and whatever is left of it may go on.
    pub fn lose(&mut self, run: &str) {
        let Some(running) = self.at_work.running.remove(run) else { return };
        // Control raises its epoch first, which only the current writer can.
        if self.at_work.epoch < self.newest_epoch {
            self.at_work.ended = true;
            return;
        }
        self.newest_epoch += 1;
        self.at_work.epoch = self.newest_epoch;
        self.ghosts.push(running);
        let (kind, code) = (ErrorKind::External, "HM-X009".to_owned());
        let message = "the process that performed it ended".to_owned();
        self.tell_end(run, Fate::Told, Vec::new(), RunOutcome::Failed { kind, code, message });
    }

    /// Something that everybody takes for dead goes on with its step. Nobody hears of it.
    pub fn haunt(&mut self, at: usize) {
        if self.ghosts.is_empty() {
            return;
        }
        let at = at % self.ghosts.len();
        let mut ghost = self.ghosts.swap_remove(at);
        if let Some(partition) = ghost.left.pop_front()
            && self.publish(&ghost, partition).is_some()
        {
            self.ghosts.push(ghost);
        }
    }

    pub fn finish(&mut self, run: &str, facts: Vec<Fact>, outcome: RunOutcome) {
        let fate = self.at_work.running.remove(run).map(|running| running.fate).unwrap_or_default();
        self.tell_end(run, fate, facts, outcome);
    }

    fn tell_end(&mut self, run: &str, fate: Fate, facts: Vec<Fact>, outcome: RunOutcome) {
        let event = Event::Finished { run: run.to_owned(), facts, outcome, took_ms: 5 };
        match fate {
            Fate::Told => self.at_work.inbox.push_back(event),
            Fate::Twice => self.at_work.inbox.extend([event.clone(), event]),
            Fate::Late => self.tell_late(event),
        }
    }

    /// Commits a partition to its table, unless a newer writer has; the same commit again is no new version.
    fn publish(&mut self, running: &Running, partition: Option<String>) -> Option<Vec<Fact>> {
        let key = &running.start.key;
        let pipeline = &running.product.pipelines[&key.pipeline.name];
        let port = running.product.port(pipeline.output());
        let data = running.print.ports[pipeline.output()].data.clone();
        let ends_ms = match (pipeline, &partition) {
            (Pipeline::Batch(batch), Some(key)) => {
                batch.partition.as_ref().and_then(|cut| partition_bounds_ms(cut, key)).map(|(_, end)| end)
            }
            _ => None,
        };
        let data_time_ms = ends_ms.or(Some(self.now_ms));
        let at_ms = self.at_work.control.now_ms();
        let countries = countries_in(&running.product, self.outside);
        let table = self.table(&port, running.above);
        let slot = partition.clone().unwrap_or_default();
        // As the lake does it: the key of a commit is remembered for ever, and looked at before the fence.
        let inputs: Vec<String> =
            running.inputs.iter().map(|(port, version)| format!("{port}@{version}")).collect();
        let mut name = format!("{slot}/{}/{data}/{}", running.start.generation, inputs.join(","));
        if running.altered > 0 {
            name.push_str(&format!("/{}", running.altered));
        }
        if key.work == Work::Train {
            name.push_str(&running.start.run);
        }
        let repeated = table.keys.get(&name).copied();
        if repeated.is_none() && running.epoch < table.fence && !planted::is(Bug::StaleCommit) {
            return None;
        }
        let version = repeated.unwrap_or(table.version + 1);
        let published = Published {
            port,
            partition,
            version,
            rows: 10,
            data_time_ms,
            data,
            inputs: running.inputs.clone(),
            run: running.start.run.clone(),
            key: name.clone(),
            taken: None,
        };
        if repeated.is_none() {
            table.commit(at_ms);
            table.reshaped = false;
            table.fence = table.fence.max(running.epoch);
            table.keys.insert(name, version);
            table.partitions.insert(slot, published.clone());
            table.countries.insert(version, countries);
        }
        let mut facts = vec![Fact::Published(published)];
        if key.work == Work::Train {
            self.models += 1;
            let id = key.pipeline.product.clone();
            let champion = self.at_work.control.ledger.models.get(&id).and_then(|models| models.champion);
            facts.push(Fact::Trained(Trained {
                product: id,
                version: self.models,
                run: running.start.run.clone(),
                metric: "auc".to_owned(),
                value: self.challenger,
                champion_value: champion.map(|_| 0.8),
                metrics: BTreeMap::new(),
                rows: (800, 200),
                inputs: BTreeMap::new(),
                path: format!("models/{}", self.models),
                reason: running.start.reason.clone(),
                algorithm: None,
            }));
        }
        Some(facts)
    }

    /// Looks for the values of an input at the version that was pinned when the step began.
    fn keys(&self, running: &Running) -> Fact {
        let pipeline = &running.product.pipelines[&running.start.key.pipeline.name];
        let port = running.product.port(pipeline.output());
        let cut = running.product.cut_of(&port.port).expect("cut by values");
        let source = cut.source().expect("looked for").clone();
        let known = cut.values().expect("values");
        let (input, version) = running.inputs.first_key_value().expect("an input");
        let there = self.lake[input].countries_at(*version);
        let added = there.into_iter().filter(|value| known.index(value).is_none()).collect();
        let looked = Looked { version: *version, ..running.looked.clone().expect("an input in sight") };
        Fact::Keys(KeysFound { port, run: running.start.run.clone(), source, looked, added, without: 0 })
    }

    /// Removes what the contract does not keep from a table, puts the files of a stream together, each in one commit unless a newer
    /// writer has committed, and lets go of versions.
    fn tend(&mut self, running: &Running) -> Option<Vec<Fact>> {
        let now_ms = self.at_work.control.now_ms();
        let pipeline = &running.product.pipelines[&running.start.key.pipeline.name];
        let port = running.product.port(pipeline.output());
        let run = running.start.run.clone();
        let together = matches!(pipeline, Pipeline::Stream(_)).then_some((8, 1));
        let (mut version, mut expired) = (None, 0);
        if let Some(table) = self.lake.get_mut(&port) {
            let unkept = running
                .kept_from
                .as_ref()
                .filter(|from| table.partitions.first_key_value().is_some_and(|(key, _)| key < *from));
            if running.epoch < table.fence && !planted::is(Bug::StaleCommit) {
                return None;
            }
            if let Some(from) = unkept {
                table.partitions = table.partitions.split_off(from);
            }
            if unkept.is_some() || together.is_some() {
                table.fence = table.fence.max(running.epoch);
                version = Some(table.commit(now_ms));
            }
            let since_ms = (now_ms - HOUR_MS).min(running.read_since_ms.unwrap_or(now_ms));
            expired = table.expire(since_ms, running.above);
        }
        Some(vec![Fact::Tended { port, run, files: 0, version, together, expired }])
    }

    /// Returns a table, made when it is not there; it counts on from the version that is known of it.
    fn table(&mut self, port: &PortId, above: i64) -> &mut Table {
        let fresh = || Table { version: above, above, ..Table::default() };
        let table = self.lake.entry(port.clone()).or_insert_with(fresh);
        if table.version < above {
            // Something else was put in its place.
            *table = fresh();
        }
        table
    }

    /// Looks at a table as it is now.
    pub fn look_at(&self, port: &PortId) -> Event {
        let (published, version) =
            self.ledger().ports.get(port).map_or((0, 0), |state| (state.published, state.version));
        let seen = self.lake.get(port).map_or(Seen::Absent, |table| {
            let one = |(key, it): (&String, &Published)| {
                let keys = BTreeSet::from([it.key.clone()]);
                (key.clone(), SeenPartition { rows: Some(it.rows), keys, ..SeenPartition::default() })
            };
            let partitions = table.partitions.iter().map(one).collect();
            let reshaped = if table.reshaped && table.version != version {
                vec!["its column amount was dropped".to_owned()]
            } else {
                Vec::new()
            };
            Seen::Known { readable: table.has(version), reshaped, partitions }
        });
        Event::Observed { port: port.clone(), published, seen }
    }

    /// Somebody else lays hand on a table.
    pub fn tamper(&mut self, port: &PortId, how: usize, at: usize) {
        let now_ms = self.now_ms;
        let Some(table) = self.lake.get_mut(port) else { return };
        let key = table.partitions.keys().nth(at % table.partitions.len().max(1)).cloned();
        match (how, key) {
            (0, _) => _ = self.lake.remove(port),
            (3, _) => {
                table.commit(now_ms);
                table.reshaped = true;
            }
            (1, Some(key)) => {
                table.commit(now_ms);
                table.partitions.remove(&key);
            }
            (_, Some(key)) => {
                let version = table.commit(now_ms);
                if let Some(partition) = table.partitions.get_mut(&key) {
                    (partition.version, partition.data) = (version, "somebody else's".to_owned());
                    partition.key.clear();
                }
            }
            _ => {}
        }
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
        let running = &self.at_work.running[run];
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
        let (name, fence) = (running.start.key.pipeline.clone(), running.epoch);
        let (above, now_ms) = (running.above, self.at_work.control.now_ms());
        let table = self.table(&port, above);
        if fence < table.fence && !planted::is(Bug::StaleCommit) {
            self.fenced(run);
            return true;
        }
        table.fence = fence.max(table.fence);
        table.commit(now_ms);
        table.reshaped = false;
        let epoch = Epoch {
            pipeline: name.clone(),
            port,
            checkpoint: CheckpointRecord {
                pipeline: name.to_string(),
                epoch: u64::try_from(table.version).expect("positive"),
                fence,
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
        self.at_work
            .inbox
            .push_back(Event::Progress { run: run.to_owned(), facts: vec![Fact::Epoch(epoch)] });
        true
    }
}
