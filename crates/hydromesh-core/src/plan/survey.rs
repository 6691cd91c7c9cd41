//! What is due of one product.

use std::collections::BTreeMap;

use super::retry::{hold_back, retry_of};
use super::{DueStep, NotDue, StepKey, Work, upstream_ports};
use crate::ids::{PipelineId, PortId, ProductId};
use crate::ledger::{AlertKind, Deployed, LedgerState};
use crate::model::{Pipeline, Product, TrainingPipeline};
use crate::time::Cron;

/// How often features are compared with the training snapshot.
const DRIFT_EVERY_MS: i64 = 10 * 60_000;
/// A month of a training budget.
const MONTH_MS: i64 = 30 * 86_400_000;

/// Why something is computed again whose table may show what no fact tells of.
pub(super) const UNSURE: &str = "a run that would write it was interrupted";

/// Why something is computed again that was published and is no longer shown.
pub(super) const ALTERED: &str = "somebody else changed its table";

/// What is due of one product, what waits, and until when that holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ProductSurvey {
    pub due: Vec<DueStep>,
    pub waiting: Vec<NotDue>,
    /// Steps with work that their last failure keeps back.
    pub held: Vec<StepKey>,
    /// Ports that are not yet what their definition says, with why.
    pub incomplete: BTreeMap<PortId, String>,
    /// When time alone changes something of the above.
    pub until_ms: Option<i64>,
}

impl ProductSurvey {
    /// Notes that time alone changes something at an instant.
    pub(super) fn expire(&mut self, at_ms: i64) {
        self.until_ms = Some(self.until_ms.map_or(at_ms, |until| until.min(at_ms)));
    }
}

/// The survey of one product in the making.
pub(super) struct Survey<'a> {
    pub ledger: &'a LedgerState,
    pub now_ms: i64,
    /// Surveys of what it reads.
    upstream: &'a BTreeMap<ProductId, ProductSurvey>,
    pub found: ProductSurvey,
}

impl<'a> Survey<'a> {
    pub(super) fn new(
        ledger: &'a LedgerState,
        now_ms: i64,
        upstream: &'a BTreeMap<ProductId, ProductSurvey>,
    ) -> Self {
        Self { ledger, now_ms, upstream, found: ProductSurvey::default() }
    }

    pub(super) fn product(mut self, deployed: &Deployed) -> ProductSurvey {
        for (name, pipeline) in &deployed.product.pipelines {
            let id = PipelineId { product: deployed.product.id.clone(), name: name.clone() };
            let port = deployed.product.port(pipeline.output());
            if let Some(why) = self.inputs_missing(&deployed.product) {
                self.wait(id, port, why);
                continue;
            }
            match pipeline {
                Pipeline::Batch(batch) => self.batch(id, deployed, batch),
                Pipeline::Stream(_) | Pipeline::Feature(_) => self.follow(id, deployed, pipeline),
                Pipeline::Embedding(_) => self.embed(id, deployed, pipeline),
                Pipeline::Training(training) => self.training(id, deployed, training),
            }
        }
        self.found
    }

    /// Notes that a port is not what its definition says, and why nothing can be done about it yet.
    fn wait(&mut self, pipeline: PipelineId, port: PortId, why: String) {
        self.found.incomplete.insert(port, why.clone());
        self.found.waiting.push(NotDue { pipeline, why, until_ms: None });
    }

    /// Returns why the product's inputs are not ready, if they are not.
    fn inputs_missing(&self, product: &Product) -> Option<String> {
        upstream_ports(product).into_iter().find_map(|port| {
            let survey = self.upstream.get(&port.product);
            if let Some(why) = survey.and_then(|survey| survey.incomplete.get(&port)) {
                return Some(format!("waits for {port}: {why}"));
            }
            if !self.ledger.deployed.contains_key(&port.product) {
                return Some(format!("waits for {port}: not deployed"));
            }
            (!self.ledger.ports.contains_key(&port))
                .then(|| format!("waits for {port}: nothing published yet"))
        })
    }

    /// Adds a step, unless its last attempts say to wait; returns why it waits.
    pub(super) fn push(&mut self, deployed: &Deployed, key: StepKey, reason: String) -> Result<(), String> {
        let attempts = self.ledger.failed.iter().find(|(failed, _)| failed.overlaps(&key));
        let attempt =
            attempts.map_or(1, |(failed, attempts)| if *failed == key { attempts.count + 1 } else { 1 });
        let pipeline = deployed.product.pipelines.get(&key.pipeline.name);
        let retry = retry_of(pipeline, &key.work);
        let held =
            attempts.and_then(|(_, attempts)| hold_back(self.ledger, self.now_ms, &key, attempts, &retry));
        if let Some(held) = held {
            if let Some(until_ms) = held.until_ms {
                self.found.expire(until_ms);
            }
            let why = held.why.clone();
            self.found.held.push(key);
            self.found.waiting.push(held);
            return Err(why);
        }
        let concurrency = match pipeline {
            Some(Pipeline::Batch(batch)) => batch.concurrency,
            _ => 1,
        };
        self.found.due.push(DueStep { key, reason, concurrency, attempt });
        Ok(())
    }

    fn follow(&mut self, id: PipelineId, deployed: &Deployed, pipeline: &Pipeline) {
        let port = deployed.product.port(pipeline.output());
        let data = data_of(deployed, pipeline);
        let started = self.ledger.streams.get(&id).is_some_and(|stream| stream.data == data);
        let key = StepKey { pipeline: id, work: Work::Follow };
        let pushed = self.push(deployed, key, "follows its topic".to_owned());
        // Once its history is there, readers go on with what was published even while it is down.
        if !started {
            let why = pushed.err().unwrap_or_else(|| "its history is being read".to_owned());
            self.found.incomplete.insert(port, why);
        }
    }

    fn embed(&mut self, id: PipelineId, deployed: &Deployed, pipeline: &Pipeline) {
        let port = deployed.product.port(pipeline.output());
        let published = self.ledger.ports.get(&port).and_then(|state| state.partitions.get(""));
        let reason = match published {
            None => Some("nothing embedded yet".to_owned()),
            Some(partition) if partition.forced => Some("asked for".to_owned()),
            Some(_) if self.ledger.altered.contains_key(&port) => Some(ALTERED.to_owned()),
            Some(partition) if partition.unsure => Some(UNSURE.to_owned()),
            Some(partition) if partition.published.data != data_of(deployed, pipeline) => {
                Some("model, chunking or text changed".to_owned())
            }
            Some(partition) => partition.published.inputs.iter().find_map(|(input, version)| {
                let newer = self.ledger.newer(&port, input, *version, "");
                newer.then(|| format!("{input} has newer rows"))
            }),
        };
        let Some(reason) = reason else { return };
        let key = StepKey { pipeline: id, work: Work::Embed };
        let why = self.push(deployed, key, reason).err().unwrap_or_else(|| "being embedded".to_owned());
        self.found.incomplete.insert(port, why);
    }

    fn training(&mut self, id: PipelineId, deployed: &Deployed, training: &TrainingPipeline) {
        let port = deployed.product.port(&training.output);
        let product = &id.product;
        let data = deployed.print.ports.get(&training.output).map_or("", |print| print.data.as_str());
        let published = self.ledger.ports.get(&port).and_then(|state| state.partitions.get(""));
        let asked = self.ledger.retrain.get(product).filter(|(_, decision, _)| decision == "start");
        let reason = match (published, asked) {
            (None, _) => Some("no model yet".to_owned()),
            (Some(partition), _) if partition.forced => Some("asked for".to_owned()),
            (Some(partition), _) if partition.unsure => Some(UNSURE.to_owned()),
            (Some(partition), _) if partition.published.data != data => {
                Some("its definition changed".to_owned())
            }
            (Some(partition), Some((at_ms, _, reason))) if *at_ms > partition.at_ms => Some(reason.clone()),
            (Some(_), _) => self.scheduled(product, training),
        };
        if let Some(reason) = reason {
            let key = StepKey { pipeline: id, work: Work::Train };
            let pushed = self.push(deployed, key, reason);
            if published.is_none_or(|partition| partition.published.data != data) {
                let why = pushed.err().unwrap_or_else(|| "being trained".to_owned());
                self.found.incomplete.insert(port, why);
            }
            return;
        }
        let Some(trained_ms) = published.map(|partition| partition.at_ms) else { return };
        if training.retrain_on.drift.is_none() {
            return;
        }
        let compared = self.ledger.drift.get(product).and_then(|history| history.back());
        let due_ms = compared.map_or(trained_ms, |(at, ..)| *at).max(trained_ms) + DRIFT_EVERY_MS;
        if due_ms > self.now_ms {
            let why = "features are compared again".to_owned();
            self.found.expire(due_ms);
            self.found.waiting.push(NotDue { pipeline: id, why, until_ms: Some(due_ms) });
            return;
        }
        let key = StepKey { pipeline: id, work: Work::Drift };
        let _ = self.push(deployed, key, "time to compare features with the training snapshot".to_owned());
    }

    /// Returns why a model is trained again by its schedule, if it is.
    fn scheduled(&mut self, product: &ProductId, training: &TrainingPipeline) -> Option<String> {
        let schedule = training.retrain_on.schedule.as_ref()?;
        let cron = Cron::parse(&schedule.cron, &schedule.timezone).ok()?;
        let trained: Vec<i64> = self
            .ledger
            .models
            .get(product)
            .into_iter()
            .flat_map(|it| &it.trained)
            .map(|(at, _)| *at)
            .collect();
        let last_ms = trained.last().copied()?;
        let tick_ms = cron.previous_at_or_before(self.now_ms)?;
        if tick_ms <= last_ms {
            if let Some(next_ms) = cron.next_after(self.now_ms) {
                self.found.expire(next_ms);
            }
            return None;
        }
        let free_ms = training_allowed_from(training, &trained);
        if self.now_ms < free_ms {
            self.found.expire(free_ms);
            return None;
        }
        if let Some(cause) = broken_features(self.ledger, training) {
            // The episode's end touches the product again.
            self.found.waiting.push(NotDue {
                pipeline: PipelineId { product: product.clone(), name: training.name.clone() },
                why: format!("its schedule came due; {cause} is late or broken: it is not trained on"),
                until_ms: None,
            });
            return None;
        }
        Some("its schedule came due".to_owned())
    }
}

/// Returns the fingerprint that a pipeline's data has when it is made by what is deployed.
fn data_of<'a>(deployed: &'a Deployed, pipeline: &Pipeline) -> &'a str {
    deployed.print.ports.get(pipeline.output()).map_or("", |print| print.data.as_str())
}

/// Returns from when the limits allow another training: after the cooldown, and within the budget of 30 days.
///
/// The first model opens no cooldown: nothing has been trained again yet.
#[must_use]
pub fn training_allowed_from(training: &TrainingPipeline, trained_ms: &[i64]) -> i64 {
    let again = trained_ms.split_first().and_then(|(_, again)| again.last());
    let cooled = again.map_or(i64::MIN, |last| last.saturating_add(training.cooldown.millis()));
    let budget = training.max_per_month as usize;
    let refilled = match trained_ms.len().checked_sub(budget) {
        Some(_) if budget == 0 => i64::MAX,
        // The oldest of those that fill the budget has to leave the window.
        Some(oldest) => trained_ms.get(oldest).map_or(i64::MIN, |at| at.saturating_add(MONTH_MS)),
        None => i64::MIN,
    };
    cooled.max(refilled)
}

/// Returns the product of an open freshness or quality episode of a feature source: late or bad data, not another world.
#[must_use]
pub fn broken_features<'a>(ledger: &'a LedgerState, training: &TrainingPipeline) -> Option<&'a ProductId> {
    ledger.open.keys().find_map(|(product, kind, _)| {
        let breaks = matches!(kind, AlertKind::Freshness | AlertKind::Quality);
        (breaks && training.features.iter().any(|port| port.product == *product)).then_some(product)
    })
}
