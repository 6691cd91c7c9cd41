//! Due work: what time or data made due, of what is deployed.

use std::collections::BTreeMap;

use super::{StepKey, Work, dependency_order, ended_partitions, partition_bounds_ms, upstream_ports};
use crate::ids::{PipelineId, PortId, ProductId};
use crate::ledger::{Attempts, Deployed, ErrorKind, LedgerState, PublishedPartition};
use crate::model::{BatchPipeline, Partitioning, Pipeline, Product, Retry, TrainingPipeline};
use crate::time::{Cron, Partition, Span};

/// Partitions in one step, when the pipeline does not say: small enough to show progress, large enough to amortise a
/// scan of the inputs.
const DEFAULT_CHUNK: usize = 15;
/// How often features are compared with the training snapshot.
const DRIFT_EVERY_MS: i64 = 10 * 60_000;

/// A step that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueStep {
    /// What to do.
    pub key: StepKey,
    /// Why, for people.
    pub reason: String,
    /// At most this many steps of the pipeline at once.
    pub concurrency: u32,
    /// The attempt that it would be, from 1.
    pub attempt: u32,
}

/// A pipeline with work that cannot start yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotDue {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// Why, for people.
    pub why: String,
    /// When it becomes due by itself, if time alone decides.
    pub until_ms: Option<i64>,
}

/// Returns the steps that are due, in dependency order and oldest partitions first, and what waits and why.
#[must_use]
pub fn due_steps(ledger: &LedgerState, now_ms: i64) -> (Vec<DueStep>, Vec<NotDue>) {
    let mut survey =
        Survey { ledger, now_ms, due: Vec::new(), waiting: Vec::new(), incomplete: BTreeMap::new() };
    for id in dependency_order(ledger.deployed.values().map(|deployed| &deployed.product)) {
        if let Some(deployed) = ledger.deployed.get(&id) {
            survey.product(&id, deployed);
        }
    }
    (survey.due, survey.waiting)
}

struct Survey<'a> {
    ledger: &'a LedgerState,
    now_ms: i64,
    due: Vec<DueStep>,
    waiting: Vec<NotDue>,
    /// Ports that are not yet what their definition says, with why.
    incomplete: BTreeMap<PortId, String>,
}

impl Survey<'_> {
    fn product(&mut self, id: &ProductId, deployed: &Deployed) {
        for (name, pipeline) in &deployed.product.pipelines {
            let pipeline_id = PipelineId { product: id.clone(), name: name.clone() };
            match pipeline {
                Pipeline::Batch(batch) => self.batch(pipeline_id, deployed, batch),
                Pipeline::Stream(_) | Pipeline::Feature(_) => self.follow(pipeline_id, deployed, pipeline),
                Pipeline::Embedding(_) => self.embed(pipeline_id, deployed, pipeline),
                Pipeline::Training(training) => self.training(pipeline_id, deployed, training),
            }
        }
    }

    fn wait(&mut self, pipeline: PipelineId, port: PortId, why: String, until_ms: Option<i64>) {
        self.incomplete.insert(port, why.clone());
        self.waiting.push(NotDue { pipeline, why, until_ms });
    }

    /// Returns why the product's inputs are not ready, if they are not.
    fn inputs_missing(&self, product: &Product) -> Option<String> {
        upstream_ports(product).into_iter().find_map(|port| {
            if let Some(why) = self.incomplete.get(&port) {
                return Some(format!("waits for {port}: {why}"));
            }
            if !self.ledger.deployed.contains_key(&port.product) {
                return Some(format!("waits for {port}: not deployed"));
            }
            (!self.ledger.ports.contains_key(&port))
                .then(|| format!("waits for {port}: nothing published yet"))
        })
    }

    /// Pushes a step unless its last attempts say to wait; returns whether it may run.
    fn push(&mut self, key: StepKey, reason: String, concurrency: u32, retry: &Retry) -> Result<(), NotDue> {
        let attempts = self.ledger.failed.get(&key);
        let attempt = attempts.map_or(1, |attempts| attempts.count + 1);
        match attempts.and_then(|attempts| self.hold_back(&key, attempts, retry)) {
            Some(held) => Err(held),
            None => {
                self.due.push(DueStep { key, reason, concurrency, attempt });
                Ok(())
            }
        }
    }

    /// Returns why a step that failed is not tried again now.
    fn hold_back(&self, key: &StepKey, attempts: &Attempts, retry: &Retry) -> Option<NotDue> {
        let id = &key.pipeline.product;
        let generation = self.ledger.deployed.get(id).map_or(0, |deployed| deployed.generation);
        if attempts.generation != generation || attempts.inputs != self.ledger.input_versions(id) {
            return None;
        }
        let message = format!("failed with {}: {}", attempts.code, attempts.message);
        let pipeline = key.pipeline.clone();
        if attempts.kind == ErrorKind::User {
            return Some(NotDue {
                pipeline,
                why: format!("{message}; waits for a new commit or new input"),
                until_ms: None,
            });
        }
        if attempts.count >= retry.attempts {
            let why = format!("{message}; {} attempts, waits for `hydromesh retry {id}`", attempts.count);
            return Some(NotDue { pipeline, why, until_ms: None });
        }
        let until_ms = attempts.at_ms + backoff_ms(retry, attempts.count, &key.to_string());
        (self.now_ms < until_ms).then(|| NotDue {
            pipeline,
            why: format!("{message}; tried again"),
            until_ms: Some(until_ms),
        })
    }

    fn batch(&mut self, id: PipelineId, deployed: &Deployed, batch: &BatchPipeline) {
        let port = deployed.product.port(&batch.output);
        if let Some(why) = self.inputs_missing(&deployed.product) {
            return self.wait(id, port, why, None);
        }
        let data = deployed.print.ports.get(&batch.output).map_or("", |print| print.data.as_str());
        // Between two ticks of its schedule a pipeline sees the world as of the last tick.
        let as_of_ms = match &batch.schedule {
            None => self.now_ms,
            Some(schedule) => {
                let tick = Cron::parse(&schedule.cron, &schedule.timezone)
                    .ok()
                    .and_then(|cron| cron.previous_at_or_before(self.now_ms));
                // History is computed at once: only later partitions wait for their tick.
                tick.unwrap_or(self.now_ms).max(deployed.at_ms)
            }
        };
        let state = self.ledger.ports.get(&port);
        let published = state.map(|state| &state.partitions);
        let stale = |key: &str| -> Option<String> {
            let Some(partition) = published.and_then(|partitions| partitions.get(key)) else {
                return Some("missing".to_owned());
            };
            self.stale(deployed, batch, key, partition, data)
        };
        match &batch.partition {
            None => {
                let Some(reason) = stale("") else { return };
                let key = StepKey { pipeline: id.clone(), work: Work::Whole };
                match self.push(key, reason.clone(), 1, &batch.retry) {
                    Ok(()) => _ = self.incomplete.insert(port, "being computed".to_owned()),
                    Err(held) => self.wait(id, port, held.why, held.until_ms),
                }
            }
            Some(cut) => {
                let stale: Vec<(String, String)> = ended_partitions(cut, as_of_ms)
                    .iter()
                    .map(|partition| partition.to_string())
                    .filter_map(|key| stale(&key).map(|why| (key, why)))
                    .collect();
                if stale.is_empty() {
                    return;
                }
                self.incomplete.insert(port.clone(), format!("{} partitions to compute", stale.len()));
                for chunk in chunks(cut, &stale, chunk_len(batch, cut)) {
                    let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { continue };
                    let work = Work::Partitions { from: first.0.clone(), to: last.0.clone() };
                    let key = StepKey { pipeline: id.clone(), work };
                    let reason = format!("{}: {}", count(chunk.len()), first.1);
                    if let Err(held) = self.push(key, reason, batch.concurrency, &batch.retry) {
                        self.wait(id.clone(), port.clone(), held.why, held.until_ms);
                    }
                }
            }
        }
    }

    /// Returns why a published partition is to be computed again, if it is.
    fn stale(
        &self,
        deployed: &Deployed,
        batch: &BatchPipeline,
        key: &str,
        partition: &PublishedPartition,
        data: &str,
    ) -> Option<String> {
        if partition.forced {
            return Some("asked for".to_owned());
        }
        if partition.published.data != data {
            return Some("its definition, or that of a column it reads, changed".to_owned());
        }
        if let (Some(lookback), Some(cut)) = (batch.lookback, &batch.partition) {
            let (_, end_ms) = partition_bounds_ms(cut, key)?;
            if end_ms + lookback.millis() < self.now_ms {
                return None;
            }
        }
        partition.published.inputs.iter().find_map(|(input, version)| {
            let state = self.ledger.ports.get(input)?;
            let aligned = deployed.print.aligned.contains(&(batch.output.clone(), input.clone()));
            let newest = if aligned {
                state.partitions.get(key).map_or(0, |partition| partition.published.version)
            } else {
                state.version
            };
            (newest > *version).then(|| format!("{input} has newer rows"))
        })
    }

    fn follow(&mut self, id: PipelineId, deployed: &Deployed, pipeline: &Pipeline) {
        let port = deployed.product.port(pipeline.output());
        if let Some(why) = self.inputs_missing(&deployed.product) {
            return self.wait(id, port, why, None);
        }
        let data = deployed.print.ports.get(pipeline.output()).map_or("", |print| print.data.as_str());
        let started = self.ledger.streams.get(&id).is_some_and(|stream| stream.data == data);
        if !started {
            self.incomplete.insert(port.clone(), "its history is being read".to_owned());
        }
        let key = StepKey { pipeline: id.clone(), work: Work::Follow };
        let retry = Retry { attempts: u32::MAX, ..Retry::default() };
        if let Err(held) = self.push(key, "follows its topic".to_owned(), 1, &retry) {
            self.wait(id, port, held.why, held.until_ms);
        }
    }

    fn embed(&mut self, id: PipelineId, deployed: &Deployed, pipeline: &Pipeline) {
        let port = deployed.product.port(pipeline.output());
        if let Some(why) = self.inputs_missing(&deployed.product) {
            return self.wait(id, port, why, None);
        }
        let data = deployed.print.ports.get(pipeline.output()).map_or("", |print| print.data.as_str());
        let published = self.ledger.ports.get(&port).and_then(|state| state.partitions.get(""));
        let reason = match published {
            None => Some("nothing embedded yet".to_owned()),
            Some(partition) if partition.forced => Some("asked for".to_owned()),
            Some(partition) if partition.published.data != data => {
                Some("model, chunking or text changed".to_owned())
            }
            Some(partition) => partition.published.inputs.iter().find_map(|(input, version)| {
                let newest = self.ledger.ports.get(input)?.version;
                (newest > *version).then(|| format!("{input} has newer rows"))
            }),
        };
        let Some(reason) = reason else { return };
        let key = StepKey { pipeline: id.clone(), work: Work::Embed };
        match self.push(key, reason, 1, &Retry::default()) {
            Ok(()) => _ = self.incomplete.insert(port, "being embedded".to_owned()),
            Err(held) => self.wait(id, port, held.why, held.until_ms),
        }
    }

    fn training(&mut self, id: PipelineId, deployed: &Deployed, training: &TrainingPipeline) {
        let port = deployed.product.port(&training.output);
        if let Some(why) = self.inputs_missing(&deployed.product) {
            return self.wait(id, port, why, None);
        }
        let product = &id.product;
        let data = deployed.print.ports.get(&training.output).map_or("", |print| print.data.as_str());
        let published = self.ledger.ports.get(&port).and_then(|state| state.partitions.get(""));
        let trained_ms = published.map(|partition| partition.at_ms);
        let asked = self.ledger.retrain.get(product).filter(|(_, decision, _)| decision == "start");
        let reason = match (published, asked) {
            (None, _) => Some("no model yet".to_owned()),
            (Some(partition), _) if partition.forced => Some("asked for".to_owned()),
            (Some(partition), _) if partition.published.data != data => {
                Some("its definition changed".to_owned())
            }
            (Some(partition), Some((at_ms, _, reason))) if *at_ms > partition.at_ms => Some(reason.clone()),
            (Some(_), _) => None,
        };
        if let Some(reason) = reason {
            let key = StepKey { pipeline: id.clone(), work: Work::Train };
            if let Err(held) = self.push(key, reason, 1, &Retry::default()) {
                self.wait(id, port, held.why, held.until_ms);
            }
            return;
        }
        let Some(trained_ms) = trained_ms.filter(|_| training.retrain_on.drift.is_some()) else { return };
        let last_ms = self
            .ledger
            .drift
            .get(product)
            .and_then(|history| history.back())
            .map_or(trained_ms, |(at, ..)| *at);
        let due_ms = last_ms.max(trained_ms) + DRIFT_EVERY_MS;
        if due_ms <= self.now_ms {
            let key = StepKey { pipeline: id, work: Work::Drift };
            // A drift test that fails is tried at the next turn, not sooner.
            let _ = self.push(
                key,
                "time to compare features with the training snapshot".to_owned(),
                1,
                &Retry::default(),
            );
        } else {
            let why = "features are compared again".to_owned();
            self.waiting.push(NotDue { pipeline: id, why, until_ms: Some(due_ms) });
        }
    }
}

fn count(partitions: usize) -> String {
    if partitions == 1 { "1 partition".to_owned() } else { format!("{partitions} partitions") }
}

fn chunk_len(batch: &BatchPipeline, cut: &Partitioning) -> usize {
    let bounds = partition_bounds_ms(cut, &cut.start).map_or(1, |(from, to)| (to - from).max(1));
    batch
        .chunk
        .map_or(DEFAULT_CHUNK, |chunk: Span| usize::try_from(chunk.millis() / bounds).unwrap_or(1).max(1))
}

/// Cuts stale partitions into runs of neighbours, at most `most` long.
///
/// Cuts fall on multiples of `most` in the calendar, so that a partition stays in the same chunk while its neighbours
/// are being done.
fn chunks<'a>(cut: &Partitioning, stale: &'a [(String, String)], most: usize) -> Vec<&'a [(String, String)]> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let index = |key: &str| Partition::parse(cut.every, key).map_or(0, Partition::index);
    let together = |left: &(String, String), right: &(String, String)| {
        let (left, right) = (index(&left.0), index(&right.0));
        left + 1 == right && left.div_euclid(most) == right.div_euclid(most)
    };
    stale.chunk_by(together).collect()
}

/// Returns the pause before the next attempt: doubling from `from` to `to`, less up to a quarter by the step's name so
/// that steps that failed together do not come back together.
fn backoff_ms(retry: &Retry, failed: u32, salt: &str) -> i64 {
    let doubled = retry.from.millis().saturating_mul(1_i64 << failed.saturating_sub(1).min(20));
    let pause = doubled.min(retry.to.millis()).max(1);
    let spread: i64 = salt.bytes().fold(failed.into(), |sum: i64, byte| (sum * 31 + i64::from(byte)) % 1_000);
    pause - pause * spread / 4_000
}
