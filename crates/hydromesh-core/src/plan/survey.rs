//! What is due of one product.

use std::collections::BTreeMap;
use std::ops::Range;

use super::grid::Grid;
use super::keys::Keys;
use super::rests::RestsOn;
use super::retry::{NextTry, ending_first, hold_back, next_try, paused_by, retry_of, stopped_by};
use super::seek::Look;
use super::{DueStep, NotDue, StepKey, Work, upstream_ports};
use crate::cost::partitions_of;
use crate::ids::{PipelineId, PipelineName, PortId, ProductId};
use crate::ledger::{AlertKind, Deployed, LedgerState};
use crate::model::{BackfillOrder, BatchPipeline, Pipeline, TrainingPipeline};
use crate::planted::{self, Bug};
use crate::time::Cron;

/// How often features are compared with the training snapshot.
const DRIFT_EVERY_MS: i64 = 10 * 60_000;
/// A month of a training budget.
const MONTH_MS: i64 = 30 * 86_400_000;

/// Values that are named where there are no more of them.
const NAMED: usize = 5;

/// Why something is computed again whose table may show what no fact tells of.
pub(super) const UNSURE: &str = "a run that would write it was interrupted";

/// Why something is computed again that was published and is no longer shown.
pub(super) const ALTERED: &str = "somebody else changed its table";

/// What facts have touched of a product since it was last looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Touch {
    /// Anything.
    pub whole: bool,
    /// Partitions that were published, of the product or of what it reads.
    pub published: Vec<(PortId, String)>,
    /// Positions of an input of which others are to be computed than before.
    pub changed: Vec<(PortId, Range<i64>)>,
    /// Steps that failed, or that had failed and did not again.
    pub steps: Vec<StepKey>,
}

/// What is due of one product, by pipeline.
#[derive(Debug, Clone, Default)]
pub(super) struct ProductSurvey {
    pub pipelines: BTreeMap<PipelineName, PipelineSurvey>,
}

/// What is due of one pipeline, what waits, and until when that holds.
#[derive(Debug, Clone)]
pub(super) struct PipelineSurvey {
    /// What it fills.
    pub port: PortId,
    /// Why that is not what its definition says, if so.
    pub lacks: Option<Lack>,
    /// What waits as a whole.
    pub waits: Vec<NotDue>,
    /// Steps by place in the calendar; those of a pipeline without one are at 0. Where nothing is to be done there is none.
    pub chunks: BTreeMap<i64, Chunk>,
    /// The look for values that it is cut by, if one is to be made.
    pub look: Option<Look>,
    /// How it is cut, and how far it was looked at.
    pub grid: Option<Grid>,
    /// Which of them come first.
    pub order: BackfillOrder,
    /// When time alone changes something of the above.
    pub until_ms: Option<i64>,
    /// Positions of which others are to be computed than when it was last looked at: readers are told.
    pub changed: Vec<Range<i64>>,
}

/// Why a port is not what its definition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lack {
    /// An input is not ready.
    Waits(PortId, Missing),
    /// Partitions are to be computed.
    Partitions,
    /// Something else, in words.
    Work(String),
}

/// What an input lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Incomplete,
    NotDeployed,
    Unpublished,
}

/// Neighbouring partitions of one place in the calendar, or a whole output: the steps that they need.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    pub due: Vec<DueStep>,
    pub waiting: Vec<NotDue>,
    /// Steps with work that their last failure keeps back.
    pub held: Vec<StepKey>,
    /// Positions that are to be computed: due, kept back or blocked.
    pub stale: Vec<Range<i64>>,
    /// Those of them that wait for an input.
    pub blocked: Option<Blocked>,
    /// A failed step is among them.
    pub failed: bool,
    pub until_ms: Option<i64>,
}

/// Partitions that wait for an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocked {
    /// How many.
    pub partitions: usize,
    pub input: PortId,
    /// For what the first of them waits, if the pipeline says which partitions it reads.
    pub first: Option<String>,
}

/// Notes that time alone changes something at an instant.
pub(crate) fn expire(until_ms: &mut Option<i64>, at_ms: i64) {
    *until_ms = Some(until_ms.map_or(at_ms, |until_ms| until_ms.min(at_ms)));
}

impl ProductSurvey {
    /// Returns when time alone changes something.
    pub fn until_ms(&self) -> Option<i64> {
        self.pipelines.values().filter_map(|survey| survey.until_ms).min()
    }

    /// Returns the ports that are not what their definition says, each with whether single partitions of it may be.
    pub fn lacking(&self) -> BTreeMap<PortId, bool> {
        let lacking = self.pipelines.values().filter(|survey| survey.lacks.is_some());
        lacking.map(|survey| (survey.port.clone(), survey.grid.is_some())).collect()
    }

    /// Returns, once, of which positions of its ports others are to be computed than before.
    pub fn take_changed(&mut self) -> Vec<(PortId, Range<i64>)> {
        let pipelines = self.pipelines.values_mut();
        pipelines
            .flat_map(|it| std::mem::take(&mut it.changed).into_iter().map(|range| (it.port.clone(), range)))
            .collect()
    }

    /// Returns the pipeline for whose sake a port is not what its definition says.
    pub fn lacking_by(&self, port: &PortId) -> Option<&PipelineSurvey> {
        self.pipelines.values().rev().find(|survey| survey.lacks.is_some() && survey.port == *port)
    }
}

impl PipelineSurvey {
    pub fn new(port: PortId) -> Self {
        Self {
            port,
            lacks: None,
            waits: Vec::new(),
            chunks: BTreeMap::new(),
            look: None,
            grid: None,
            order: BackfillOrder::default(),
            until_ms: None,
            changed: Vec::new(),
        }
    }

    /// Returns what is due: a look for values, the newest chunk, and then the backlog in the order of the pipeline.
    pub fn due(&self) -> impl Iterator<Item = &DueStep> {
        let look = self.look.iter().flat_map(|look| &look.step.due);
        let alone = self.look.as_ref().is_some_and(Look::goes_first);
        look.chain((!alone).then(|| self.partitions_due()).into_iter().flatten())
    }

    fn partitions_due(&self) -> impl Iterator<Item = &DueStep> {
        // A backlog must not make fresh data late.
        let newest = self.grid.as_ref().map_or(0, Grid::newest);
        let fresh = self.chunks.range(newest..).flat_map(|(_, chunk)| chunk.due.iter().rev());
        let backlog = self.chunks.range(..newest).map(|(_, chunk)| &chunk.due);
        let backwards = self.order == BackfillOrder::NewestFirst;
        let forwards = (!backwards).then(|| backlog.clone().flatten());
        let backwards = backwards.then(|| backlog.rev().flat_map(|due| due.iter().rev()));
        fresh.chain(forwards.into_iter().flatten()).chain(backwards.into_iter().flatten())
    }

    /// Returns whether a step is about what readers wait for, the newest chunk or a whole output, and not about a backlog.
    pub fn is_fresh(&self, key: &StepKey) -> bool {
        self.grid.as_ref().is_none_or(|grid| {
            let newest = grid.newest();
            grid.places_of(&key.work).is_none_or(|(_, to)| to >= newest)
        })
    }

    /// Returns what waits and why, but for an input.
    pub fn waiting(&self) -> impl Iterator<Item = &NotDue> {
        let look = self.look.iter().map(|look| &look.step);
        self.waits.iter().chain(look.chain(self.chunks.values()).flat_map(|chunk| &chunk.waiting))
    }

    /// Returns whether a step has work to do, be it due or held back.
    pub fn wants(&self, key: &StepKey) -> bool {
        let (from, to) =
            self.grid.as_ref().and_then(|grid| grid.places_of(&key.work)).unwrap_or((i64::MIN, i64::MAX));
        let chunks = (from <= to).then(|| self.chunks.range(from..=to)).into_iter().flatten();
        let chunks = chunks.map(|(_, chunk)| chunk).chain(self.look.iter().map(|look| &look.step));
        chunks
            .flat_map(|chunk| chunk.due.iter().map(|step| &step.key).chain(&chunk.held))
            .any(|step| step.overlaps(key))
    }

    /// Returns the partitions that wait for an input, if nothing else of the pipeline can begin.
    pub fn blocked(&self) -> Option<Blocked> {
        if self.due().next().is_some() {
            return None;
        }
        let mut blocked = self.chunks.values().filter_map(|chunk| chunk.blocked.as_ref());
        let mut all = blocked.next()?.clone();
        all.partitions += blocked.map(|more| more.partitions).sum::<usize>();
        Some(all)
    }

    /// Says what partitions are to be computed.
    pub fn why_partitions(&self) -> String {
        let held = self.chunks.values().find_map(|chunk| chunk.waiting.first());
        held.map_or_else(|| format!("{} to compute", self.spoken()), |held| held.why.clone())
    }

    /// Says which partitions are to be computed: values by their names, as long as those are few.
    fn spoken(&self) -> String {
        let count = super::batch::count(self.stale());
        let Some(grid) = self.grid.as_ref().filter(|grid| grid.keys.values().is_some()) else { return count };
        let stale = self.chunks.values().flat_map(|chunk| chunk.stale.iter().cloned().flatten());
        let names: Vec<String> = stale.take(NAMED + 1).map(|index| grid.key(index)).collect();
        if names.len() > NAMED { count } else { format!("{count} ({})", names.join(", ")) }
    }

    /// Returns how many partitions are to be computed.
    pub fn stale(&self) -> usize {
        let stale = self.chunks.values().flat_map(|chunk| &chunk.stale);
        usize::try_from(stale.map(|range| range.end - range.start).sum::<i64>()).unwrap_or(0)
    }

    /// Returns how many of them failed and are not tried again by themselves as things are.
    pub fn given_up(&self, ledger: &LedgerState, now_ms: i64) -> u64 {
        let held = self.chunks.values().flat_map(|chunk| &chunk.held);
        let given_up = held.filter(|key| next_try(ledger, now_ms, key) == NextTry::Waits);
        given_up.filter_map(|key| partitions_of(&key.work)).sum()
    }

    /// Returns the positions within a range that are to be computed.
    pub fn stale_within(&self, range: &Range<i64>) -> Vec<Range<i64>> {
        let Some(grid) = self.grid.as_ref().filter(|_| !range.is_empty()) else { return Vec::new() };
        let (from, to) = (grid.place(range.start), grid.place(range.end - 1));
        let stale = self.chunks.range(from..=to).flat_map(|(_, chunk)| &chunk.stale);
        stale
            .map(|stale| stale.start.max(range.start)..stale.end.min(range.end))
            .filter(|both| !both.is_empty())
            .collect()
    }
}

/// Looks at one product.
#[derive(Clone, Copy)]
pub(super) struct Survey<'a> {
    pub ledger: &'a LedgerState,
    pub now_ms: i64,
    /// Surveys of what it reads.
    pub surveys: &'a BTreeMap<ProductId, ProductSurvey>,
    pub ranks: &'a BTreeMap<ProductId, usize>,
    /// Its own place in the order.
    pub rank: usize,
}

impl<'a> Survey<'a> {
    /// Returns what is due of a product, from what was due before and what was touched since.
    pub(super) fn product(
        self,
        deployed: &Deployed,
        before: Option<ProductSurvey>,
        touch: &Touch,
    ) -> ProductSurvey {
        let mut before = before.unwrap_or_default().pipelines;
        let mut found = ProductSurvey::default();
        for (name, pipeline) in &deployed.product.pipelines {
            let id = PipelineId { product: deployed.product.id.clone(), name: name.clone() };
            let mut survey = PipelineSurvey::new(deployed.product.port(pipeline.output()));
            if self.ledger.is_inherited(&survey.port, data_of(deployed, pipeline)) {
                // The parent sees to it, and its readers here take it as it was.
                found.pipelines.insert(name.clone(), survey);
                continue;
            }
            let before = before.remove(name);
            match (self.inputs_missing(deployed, pipeline), pipeline) {
                (Some((input, missing)), _) => survey.lacks = Some(Lack::Waits(input, missing)),
                (None, Pipeline::Batch(batch)) => survey = self.batch(&id, deployed, batch, before, touch),
                (None, Pipeline::Stream(_) | Pipeline::Feature(_)) => {
                    self.follow(&mut survey, id, deployed, pipeline);
                }
                (None, Pipeline::Embedding(_)) => self.embed(&mut survey, id, deployed, pipeline),
                (None, Pipeline::Training(training)) => self.training(&mut survey, id, deployed, training),
            }
            if let (None, Some(until_ms)) = (&survey.grid, survey.chunks.get(&0).and_then(|it| it.until_ms)) {
                expire(&mut survey.until_ms, until_ms);
            }
            found.pipelines.insert(name.clone(), survey);
        }
        found
    }

    /// Returns the first input of the product that a pipeline has to wait for as a whole.
    fn inputs_missing(self, deployed: &Deployed, pipeline: &Pipeline) -> Option<(PortId, Missing)> {
        upstream_ports(&deployed.product).into_iter().find_map(|port| {
            let survey = self.above(&port.product);
            let lacks = survey.is_some_and(|survey| survey.lacking_by(&port).is_some());
            let by_partition =
                matches!(pipeline, Pipeline::Batch(it) if !self.rests_on(deployed, it, &port).is_empty());
            let missing = if lacks && !by_partition {
                Missing::Incomplete
            } else if !self.ledger.deployed.contains_key(&port.product) {
                Missing::NotDeployed
            } else if !self.ledger.ports.contains_key(&port) {
                Missing::Unpublished
            } else {
                return None;
            };
            Some((port, missing))
        })
    }

    /// Returns what is known of a product that this one reads. A cycle is cut where the order enters it, so that nothing
    /// waits for itself.
    fn above(self, product: &ProductId) -> Option<&'a ProductSurvey> {
        let above = self.ranks.get(product).is_some_and(|rank| *rank < self.rank);
        self.surveys.get(product).filter(|_| above)
    }

    /// Returns what is known of an input of which each partition waits for some partitions alone: for the same one where both are
    /// cut alike, for those that the pipeline names where it does, once for each window. Nothing where it waits for the whole.
    pub fn rests_on(self, deployed: &Deployed, batch: &BatchPipeline, port: &PortId) -> Vec<RestsOn<'a>> {
        let Some(cut) = &batch.partition else { return Vec::new() };
        let above = self.above(&port.product).into_iter().flat_map(|it| it.pipelines.values());
        let Some(survey) = above.into_iter().find(|it| it.port == *port) else { return Vec::new() };
        let Some(grid) = &survey.grid else { return Vec::new() };
        let on = |mapping| RestsOn { input: port.clone(), survey, mapping };
        if deployed.print.aligned.contains(&(batch.output.clone(), port.clone())) {
            // The input may have been cut anew since, or have another list by now.
            return if grid.keys == Keys::of(cut) { vec![on(None)] } else { Vec::new() };
        }
        let mappings = self.ledger.mappings(&deployed.product, batch, port).into_iter();
        mappings.map(|mapping| on(Some(mapping))).collect()
    }

    /// Adds a step, unless its product is paused or its last attempts say to wait; returns why it waits. What readers wait for is
    /// `fresh`, and the rest a backlog.
    pub(super) fn push(
        self,
        chunk: &mut Chunk,
        deployed: &Deployed,
        key: StepKey,
        reason: String,
        fresh: bool,
    ) -> Result<(), String> {
        let attempts = self.ledger.failure(&key);
        chunk.failed |= attempts.is_some();
        let attempt =
            attempts.map_or(1, |(failed, attempts)| if *failed == key { attempts.count + 1 } else { 1 });
        let pipeline = deployed.product.pipelines.get(&key.pipeline.name);
        let paused = self.ledger.pause_of(&key.pipeline.product, self.now_ms);
        let paused = paused.filter(|pause| pause.holds(fresh) && !planted::is(Bug::PauseIgnored));
        let stopped = self.ledger.stopped_by(&key.pipeline.product);
        let stopped = stopped.filter(|_| !planted::is(Bug::DenialIgnored));
        let ending = self.ledger.ending_of(&key.pipeline.product).map(|ending| ending_first(&key, ending));
        let stopped = ending.or_else(|| stopped.map(|rule| stopped_by(&key, rule)));
        let held = stopped.or_else(|| paused.map(|pause| paused_by(&key, pause))).or_else(|| {
            let (_, attempts) = attempts?;
            let retry = retry_of(pipeline, &key.work);
            hold_back(self.ledger, self.now_ms, &key, attempts, &retry)
        });
        if let Some(held) = held {
            if let Some(until_ms) = held.until_ms {
                expire(&mut chunk.until_ms, until_ms);
            }
            let why = held.why.clone();
            chunk.held.push(key);
            chunk.waiting.push(held);
            return Err(why);
        }
        let concurrency = match pipeline {
            Some(Pipeline::Batch(batch)) => batch.concurrency,
            _ => 1,
        };
        chunk.due.push(DueStep { key, reason, concurrency, attempt });
        Ok(())
    }

    /// Adds the one step of a pipeline that has no calendar.
    pub(super) fn push_only(
        self,
        survey: &mut PipelineSurvey,
        deployed: &Deployed,
        key: StepKey,
        reason: String,
    ) -> Result<(), String> {
        self.push(survey.chunks.entry(0).or_default(), deployed, key, reason, true)
    }

    fn follow(self, survey: &mut PipelineSurvey, id: PipelineId, deployed: &Deployed, pipeline: &Pipeline) {
        let data = data_of(deployed, pipeline);
        let started = self.ledger.streams.get(&id).is_some_and(|stream| stream.data == data);
        let key = StepKey { pipeline: id, work: Work::Follow };
        let pushed = self.push_only(survey, deployed, key, "follows its topic".to_owned());
        // Once its history is there, readers go on with what was published even while it is down.
        if !started {
            let why = pushed.err().unwrap_or_else(|| "its history is being read".to_owned());
            survey.lacks = Some(Lack::Work(why));
        }
    }

    fn embed(self, survey: &mut PipelineSurvey, id: PipelineId, deployed: &Deployed, pipeline: &Pipeline) {
        let port = survey.port.clone();
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
        let pushed = self.push_only(survey, deployed, key, reason);
        survey.lacks = Some(Lack::Work(pushed.err().unwrap_or_else(|| "being embedded".to_owned())));
    }

    fn training(
        self,
        survey: &mut PipelineSurvey,
        id: PipelineId,
        deployed: &Deployed,
        training: &TrainingPipeline,
    ) {
        let product = &deployed.product.id;
        let data = deployed.print.ports.get(&training.output).map_or("", |print| print.data.as_str());
        let published = self.ledger.ports.get(&survey.port).and_then(|state| state.partitions.get(""));
        let asked = self.ledger.retrain.get(product).filter(|(_, decision, _)| decision == "start");
        let reason = match (published, asked) {
            (None, _) => Some("no model yet".to_owned()),
            (Some(partition), _) if partition.forced => Some("asked for".to_owned()),
            (Some(partition), _) if partition.unsure => Some(UNSURE.to_owned()),
            (Some(partition), _) if partition.published.data != data => {
                Some("its definition changed".to_owned())
            }
            (Some(partition), Some((at_ms, _, reason))) if *at_ms > partition.at_ms => Some(reason.clone()),
            (Some(_), _) => self.scheduled(survey, product, training),
        };
        if let Some(reason) = reason {
            let key = StepKey { pipeline: id, work: Work::Train };
            let pushed = self.push_only(survey, deployed, key, reason);
            if published.is_none_or(|partition| partition.published.data != data) {
                let why = pushed.err().unwrap_or_else(|| "being trained".to_owned());
                survey.lacks = Some(Lack::Work(why));
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
            expire(&mut survey.until_ms, due_ms);
            survey.waits.push(NotDue { pipeline: id, why, until_ms: Some(due_ms), held: false });
            return;
        }
        let key = StepKey { pipeline: id, work: Work::Drift };
        let reason = "time to compare features with the training snapshot".to_owned();
        let _ = self.push_only(survey, deployed, key, reason);
    }

    /// Returns why a model is trained again by its schedule, if it is.
    fn scheduled(
        self,
        survey: &mut PipelineSurvey,
        product: &ProductId,
        training: &TrainingPipeline,
    ) -> Option<String> {
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
                expire(&mut survey.until_ms, next_ms);
            }
            return None;
        }
        let free_ms = training_allowed_from(training, &trained);
        if self.now_ms < free_ms {
            expire(&mut survey.until_ms, free_ms);
            return None;
        }
        if let Some(cause) = broken_features(self.ledger, training) {
            // The episode's end touches the product again.
            survey.waits.push(NotDue {
                pipeline: PipelineId { product: product.clone(), name: training.name.clone() },
                why: format!("its schedule came due; {cause} is late or broken: it is not trained on"),
                until_ms: None,
                held: false,
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
