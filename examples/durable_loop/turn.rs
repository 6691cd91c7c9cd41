//! The loop itself, as `up` turns it, over steps that do nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hydromesh::control::{append, replay};
use hydromesh::store::{OpenMode, Store};
use hydromesh_core::control::{Control, Effect, Event, Limits, Start};
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{LedgerState, RunOutcome};
use hydromesh_core::plan::{Desired, upstream_ports};
use tokio::sync::mpsc;

use super::mesh::{NOW_MS, allow, published};
use super::{Failure, cpu_seconds};

/// Events that are decided about together, as in `up`.
const TOGETHER: usize = 256;

/// What was seen while a graph was made.
pub struct Run {
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// Writes to disk.
    pub writes: u32,
    /// From the end of the last input's step to the start of its reader's.
    pub gaps_ms: Vec<f64>,
}

/// The machine, its ledger, and its inbox.
pub struct Loop {
    pub control: Control,
    store: Store,
    epoch: u64,
    file: PathBuf,
    /// Events with when they happened.
    events: mpsc::Sender<(Instant, Event)>,
    inbox: mpsc::Receiver<(Instant, Event)>,
    /// Steps that were handed out, and when: they wait for somebody to do nothing.
    waiting: Vec<(Instant, Start)>,
    writes: u32,
}

impl Loop {
    pub async fn open(folder: &Path, limits: Limits) -> Result<Self, Failure> {
        let file = folder.join("ledger.db");
        if file.exists() {
            return Err(format!("{} is there already", file.display()).into());
        }
        let store = Store::open(&file, OpenMode::ReadWrite).await?;
        let lease = store.lease("bench", 0, i64::MAX).await?;
        let (events, inbox) = mpsc::channel(1_024);
        let control = Control::new(LedgerState::default(), "dev", limits);
        let (epoch, waiting) = (lease.epoch, Vec::new());
        let mut turning = Self { control, store, epoch, file, events, inbox, waiting, writes: 0 };
        let opening = turning.control.open(NOW_MS, epoch, "bench");
        turning.perform(opening).await?;
        Ok(turning)
    }

    /// Shows the machine a commit; its gate says yes. Steps that begin wait.
    pub async fn deploy(&mut self, asked: Desired) -> Result<(), Failure> {
        let (commit, r#ref) = (asked.commit.clone(), "main".to_owned());
        let (message, author, desired) = (String::new(), String::new(), Ok(Box::new(asked)));
        let effects = self.control.step(NOW_MS, [Event::Commit { commit, r#ref, message, author, desired }]);
        self.perform(effects).await
    }

    async fn perform(&mut self, mut effects: Vec<Effect>) -> Result<(), Failure> {
        while !effects.is_empty() {
            let mut answers = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Append(entries) => {
                        self.writes += 1;
                        append(&self.store, self.epoch, &entries).await?;
                    }
                    Effect::Decide(question) => answers.push(Event::Decided(allow(&question))),
                    Effect::Start(start) => self.waiting.push((Instant::now(), start)),
                    Effect::Deliver { .. } | Effect::Cancel { .. } | Effect::Dispose(_) => {
                        return Err("something is wrong with the bench's mesh".into());
                    }
                    Effect::Publish => {}
                }
            }
            effects = self.control.step(NOW_MS, answers);
        }
        Ok(())
    }

    /// Makes everything that is deployed, once.
    pub async fn run(&mut self, steps: usize) -> Result<Run, Failure> {
        let (cpu, writes, begun) = (cpu_seconds()?, self.writes, Instant::now());
        let mut ended: BTreeMap<ProductId, Instant> = BTreeMap::new();
        let mut gaps_ms = Vec::new();
        let mut arrived = Vec::new();
        while ended.len() < steps {
            for (at, start) in std::mem::take(&mut self.waiting) {
                let deployed = &self.control.ledger.deployed[&start.key.pipeline.product];
                let inputs = upstream_ports(&deployed.product);
                if let Some(last) = inputs.iter().filter_map(|port| ended.get(&port.product)).max() {
                    gaps_ms.push(at.duration_since(*last).as_secs_f64() * 1_000.0);
                }
                let facts = published(&start, &self.control.ledger);
                let events = self.events.clone();
                // As a step does that has nothing to compute: what it published, then its end.
                tokio::spawn(async move {
                    let run = start.run;
                    let _ = events.send((Instant::now(), Event::Progress { run: run.clone(), facts })).await;
                    let (facts, outcome) = (Vec::new(), RunOutcome::Succeeded { rows: 0 });
                    let end = Event::Finished { run, facts, outcome, took_ms: 0 };
                    let _ = events.send((Instant::now(), end)).await;
                });
            }
            self.inbox.recv_many(&mut arrived, TOGETHER).await;
            for (at, event) in &arrived {
                if let Event::Finished { run, .. } = event {
                    ended.insert(self.control.ledger.running[run].pipeline.product.clone(), *at);
                }
            }
            let effects = self.control.step(NOW_MS, arrived.drain(..).map(|(_, event)| event));
            self.perform(effects).await?;
        }
        Ok(Run {
            seconds: begun.elapsed().as_secs_f64(),
            cpu_seconds: cpu_seconds()? - cpu,
            writes: self.writes - writes,
            gaps_ms,
        })
    }

    /// Lets steps that are under way publish so many partitions, one by one.
    pub async fn facts(&mut self, most: u32) -> Result<u32, Failure> {
        let mut count = 0;
        while count < most {
            let Some((_, start)) = self.waiting.pop() else { return Err("no step is under way".into()) };
            for fact in published(&start, &self.control.ledger) {
                let event = Event::Progress { run: start.run.clone(), facts: vec![fact] };
                let effects = self.control.step(NOW_MS, [event]);
                self.perform(effects).await?;
                count += 1;
            }
            let (facts, outcome) = (Vec::new(), RunOutcome::Succeeded { rows: 0 });
            let event = Event::Finished { run: start.run, facts, outcome, took_ms: 0 };
            let effects = self.control.step(NOW_MS, [event]);
            self.perform(effects).await?;
        }
        Ok(count)
    }

    /// Returns how long the disk takes to make a small write durable, without anything around it.
    pub fn disk_ms(&self) -> Result<Vec<f64>, Failure> {
        let path = self.file.with_extension("disk");
        let mut file = File::create(&path)?;
        let mut taken = Vec::new();
        for _ in 0..100 {
            file.write_all(&[0; 4_096])?;
            let begun = Instant::now();
            file.sync_data()?;
            taken.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        drop(file);
        std::fs::remove_file(&path)?;
        Ok(taken)
    }

    /// Reads the ledger back from disk: it must say what the machine knows, and that every step went well.
    pub async fn close(self, steps: usize) -> Result<(), Failure> {
        self.store.close().await;
        let store = Store::open(&self.file, OpenMode::ReadOnly).await?;
        let durable = replay(&store).await?;
        store.close().await;
        if durable != self.control.ledger || durable.succeeded != steps as u64 {
            return Err("what is on disk is not what was done".into());
        }
        Ok(())
    }
}
