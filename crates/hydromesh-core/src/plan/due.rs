//! Due work: what time or data made due, of what is deployed.
//!
//! A mesh of a thousand products learns a fact every few milliseconds while it backfills, and nearly every fact is about
//! one partition of one product. So what is due is kept, and derived anew only where a fact touched it, where its readers
//! may see the difference, and where its next date has come. Nothing here walks over all products or all partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::progress::{Progress, at_this_pace};
use super::survey::{Blocked, Lack, Missing, PipelineSurvey, ProductSurvey, Survey, Touch};
use super::{StepKey, dependency_order, upstream_ports};
use crate::ids::{PipelineId, PortId, ProductId};
use crate::ledger::{Deployed, Fact, LedgerState, RunOutcome};
use crate::time::Span;

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
    /// A pause keeps it back, or how its last attempt ended: neither an input nor its schedule.
    pub held: bool,
}

/// Returns the steps that are due, in dependency order, of each pipeline the newest chunk first, and what waits and why.
#[must_use]
pub fn due_steps(ledger: &LedgerState, now_ms: i64) -> (Vec<DueStep>, Vec<NotDue>) {
    let mut work = DueWork::default();
    let _ = work.refresh(ledger, now_ms);
    (work.steps().cloned().collect(), work.waiting().collect())
}

/// What is due of every deployed product, kept current from fact to fact.
///
/// It always equals what [`due_steps`] derives from nothing.
#[derive(Debug, Clone, Default)]
pub struct DueWork {
    /// Everything was derived once.
    begun: bool,
    /// Deployed products, inputs before readers.
    order: Vec<ProductId>,
    /// Their places in it.
    ranks: BTreeMap<ProductId, usize>,
    /// Products that read a product directly.
    readers: BTreeMap<ProductId, BTreeSet<ProductId>>,
    /// The strictest age of data, milliseconds, that a product promises or anything that reads it.
    promises: BTreeMap<ProductId, i64>,
    surveys: BTreeMap<ProductId, ProductSurvey>,
    /// Products to look at again.
    touched: BTreeMap<ProductId, Touch>,
    /// When surveys run out by time alone.
    expiries: BTreeSet<(i64, ProductId)>,
    /// Products with another definition than when the order was made.
    redeployed: BTreeSet<ProductId>,
}

/// Which products were derived anew.
#[derive(Debug, Default)]
#[must_use]
pub struct Refreshed {
    /// The order of products is another one.
    pub reordered: bool,
    /// The products.
    pub products: Vec<ProductId>,
}

/// What its readers may see of a product that was looked at.
struct Told {
    published: Vec<(PortId, String)>,
    changed: Vec<(PortId, Range<i64>)>,
    /// The ports that were not what their definition says, if it was looked at before, and those that are not now.
    lacked: Option<BTreeMap<PortId, bool>>,
    lacks: BTreeMap<PortId, bool>,
}

impl Told {
    /// Returns what touches a reader, if anything does; one that comes before it in the order does not wait for it.
    fn touch(&self, reader: &Deployed, after: bool) -> Option<Touch> {
        let rests_on = |port: &PortId| reader.rests_on(port);
        // Whoever waits for a port as a whole sees nothing of what is published there until it is whole.
        let lacked = |port: &PortId| self.lacked.as_ref().is_some_and(|lacked| lacked.contains_key(port));
        let waited = |port: &PortId| !rests_on(port) && self.lacks.contains_key(port) && lacked(port);
        let published = self.published.iter().filter(|(port, _)| !waited(port)).cloned().collect();
        let changed = self.changed.iter().filter(|(port, _)| after && rests_on(port)).cloned().collect();
        let touch = Touch { published, changed, ..Touch::default() };
        let differs = self.lacked.as_ref() != Some(&self.lacks);
        let any = differs && after || !touch.published.is_empty() || !touch.changed.is_empty();
        any.then_some(touch)
    }
}

impl DueWork {
    /// Takes note of what a fact may change, which is about to be folded into the ledger.
    pub fn note(&mut self, ledger: &LedgerState, fact: &Fact) {
        match fact {
            Fact::Deployed { product, .. } => _ = self.redeployed.insert(product.id.clone()),
            Fact::Retired { product, .. } => _ = self.redeployed.insert(product.clone()),
            Fact::TablesEnding { product, .. } | Fact::TablesEnded { product, .. } => {
                self.touch(product).whole = true;
            }
            Fact::Published(published) => {
                let key = published.partition.clone().unwrap_or_default();
                self.touch(&published.port.product).published.push((published.port.clone(), key));
            }
            Fact::Epoch(epoch) => {
                self.touch(&epoch.port.product).published.push((epoch.port.clone(), String::new()));
            }
            Fact::RunFinished { step, outcome, .. } => {
                let touch = self.touch(&step.pipeline.product);
                let repairs = ledger.failure(step).is_some();
                if repairs || !matches!(outcome, RunOutcome::Succeeded { .. }) {
                    touch.steps.push(step.clone());
                }
                if repairs {
                    touch.steps.extend(ledger.failed.keys().filter(|failed| failed.overlaps(step)).cloned());
                }
            }
            Fact::Drift { product, .. } | Fact::Retrain { product, .. } | Fact::Promoted { product, .. } => {
                self.touch(product);
            }
            Fact::Trained(trained) => _ = self.touch(&trained.product),
            // Open episodes keep models from being trained on broken data.
            Fact::Alert(alert) => {
                self.touch(&alert.product);
                for reader in self.readers_of(&alert.product) {
                    self.touch(&reader);
                }
            }
            // Once for each partition of the calendar; readers do not compute the same partitions either.
            Fact::Expired { port, .. } | Fact::Tended { port, version: Some(_), .. } => {
                self.touch(&port.product).whole = true;
                for reader in self.readers_of(&port.product) {
                    self.touch(&reader).whole = true;
                }
            }
            // A new value moves the positions of those after it.
            Fact::Keys(found) => self.touch(&found.port.product).whole |= !found.added.is_empty(),
            // It may stop all steps, or let them go on.
            Fact::Decided(decision) if decision.action == "stand" => {
                self.touch(&decision.product).whole = true;
            }
            // They come by hand, so rarely.
            Fact::Altered { port, .. } => self.touch(&port.product).whole = true,
            // It may be about any partition.
            Fact::CommandAnswered { id, .. } => {
                if let Some(command) = ledger.pending.get(id) {
                    self.touch(command.verb.product()).whole = true;
                }
            }
            // It comes before anything was derived.
            Fact::Inherited { .. }
            | Fact::Opened { .. }
            | Fact::CommitSeen { .. }
            | Fact::CommitOutcome { .. }
            | Fact::Limited { .. }
            | Fact::Decided(_)
            | Fact::RunStarted { .. }
            | Fact::Quality { .. }
            | Fact::Quarantined { .. }
            | Fact::Sent { .. }
            | Fact::Command(_)
            | Fact::Tended { .. }
            | Fact::Verified(_) => {}
        }
    }

    fn touch(&mut self, product: &ProductId) -> &mut Touch {
        self.touched.entry(product.clone()).or_default()
    }

    fn readers_of(&self, product: &ProductId) -> Vec<ProductId> {
        self.readers.get(product).into_iter().flatten().cloned().collect()
    }

    /// Derives anew what facts or time have changed.
    pub fn refresh(&mut self, ledger: &LedgerState, now_ms: i64) -> Refreshed {
        let reordered = !self.begun || !self.redeployed.is_empty();
        if reordered {
            self.reorder(ledger);
        }
        while self.expiries.first().is_some_and(|(until_ms, _)| *until_ms <= now_ms) {
            if let Some((_, id)) = self.expiries.pop_first() {
                self.touch(&id);
            }
        }
        // Inputs before readers, which what is found of an input may touch in turn.
        let mut queue: BTreeMap<usize, Touch> = std::mem::take(&mut self.touched)
            .into_iter()
            .filter_map(|(id, touch)| Some((*self.ranks.get(&id)?, touch)))
            .collect();
        let mut products = Vec::with_capacity(queue.len());
        while let Some((rank, touch)) = queue.pop_first() {
            let Some(id) = self.order.get(rank).cloned() else { continue };
            let Some(deployed) = ledger.deployed.get(&id) else { continue };
            let before = self.surveys.remove(&id);
            if let Some(until_ms) = before.as_ref().and_then(ProductSurvey::until_ms) {
                self.expiries.remove(&(until_ms, id.clone()));
            }
            let lacked = before.as_ref().map(ProductSurvey::lacking);
            let survey = Survey { ledger, now_ms, surveys: &self.surveys, ranks: &self.ranks, rank };
            let mut survey = survey.product(deployed, before, &touch);
            if let Some(until_ms) = survey.until_ms() {
                self.expiries.insert((until_ms, id.clone()));
            }
            let told = Told {
                published: touch.published.into_iter().filter(|(port, _)| port.product == id).collect(),
                changed: survey.take_changed(),
                lacked,
                lacks: survey.lacking(),
            };
            for reader in self.readers.get(&id).into_iter().flatten() {
                let (Some(place), Some(deployed)) = (self.ranks.get(reader), ledger.deployed.get(reader))
                else {
                    continue;
                };
                // Cycles are cut where the order enters them.
                if let Some(touch) = told.touch(deployed, *place > rank) {
                    let queued = queue.entry(*place).or_default();
                    queued.published.extend(touch.published);
                    queued.changed.extend(touch.changed);
                }
            }
            self.surveys.insert(id.clone(), survey);
            products.push(id);
        }
        Refreshed { reordered, products }
    }

    /// Puts products in order again after deploys, and touches those that see one of them.
    fn reorder(&mut self, ledger: &LedgerState) {
        let mut anew = std::mem::take(&mut self.redeployed);
        self.order = dependency_order(ledger.deployed.values().map(|deployed| &deployed.product));
        self.ranks = self.order.iter().enumerate().map(|(rank, id)| (id.clone(), rank)).collect();
        if !std::mem::replace(&mut self.begun, true) {
            anew = self.order.iter().cloned().collect();
        }
        self.readers.clear();
        for (id, deployed) in &ledger.deployed {
            for port in upstream_ports(&deployed.product) {
                self.readers.entry(port.product).or_default().insert(id.clone());
            }
        }
        self.promises.clear();
        for (id, deployed) in self.order.iter().rev().filter_map(|id| Some((id, ledger.deployed.get(id)?))) {
            let own = deployed.product.outputs.values().filter_map(|it| it.contract.data_age());
            let readers = self.readers.get(id).into_iter().flatten();
            let theirs = readers.filter_map(|reader| self.promises.get(reader).copied());
            if let Some(strictest) = own.map(Span::millis).chain(theirs).min() {
                self.promises.insert(id.clone(), strictest);
            }
        }
        for id in anew {
            if let Some(gone) = self.surveys.remove(&id).as_ref().and_then(ProductSurvey::until_ms) {
                self.expiries.remove(&(gone, id.clone()));
            }
            for reader in self.readers_of(&id) {
                self.touch(&reader).whole = true;
            }
            self.touch(&id).whole = true;
        }
    }

    fn surveys(&self) -> impl Iterator<Item = (&ProductId, &ProductSurvey)> {
        self.order.iter().filter_map(|id| Some((id, self.surveys.get(id)?)))
    }

    /// Returns the steps that are due, in dependency order, of each pipeline the newest chunk first.
    pub fn steps(&self) -> impl Iterator<Item = &DueStep> {
        self.surveys().flat_map(|(_, survey)| survey.pipelines.values()).flat_map(PipelineSurvey::due)
    }

    /// Returns the steps of a pipeline that are due, in its order.
    pub fn steps_of(&self, pipeline: &PipelineId) -> impl Iterator<Item = &DueStep> {
        let survey = self.surveys.get(&pipeline.product).and_then(|it| it.pipelines.get(&pipeline.name));
        survey.into_iter().flat_map(PipelineSurvey::due)
    }

    /// Returns whether a step is about what readers wait for, the newest chunk of a pipeline or a whole output: the rest is a
    /// backlog.
    #[must_use]
    pub fn is_fresh(&self, key: &StepKey) -> bool {
        let survey =
            self.surveys.get(&key.pipeline.product).and_then(|it| it.pipelines.get(&key.pipeline.name));
        survey.is_none_or(|survey| survey.is_fresh(key))
    }

    /// Returns when the first promise of data's age is broken that rests on what a pipeline fills, milliseconds UTC; none if
    /// there is no such promise.
    #[must_use]
    pub fn deadline_ms(&self, ledger: &LedgerState, pipeline: &PipelineId) -> Option<i64> {
        let promise = self.promises.get(&pipeline.product)?;
        let port = &self.surveys.get(&pipeline.product)?.pipelines.get(&pipeline.name)?.port;
        let newest_ms = ledger.ports.get(port).and_then(|state| state.newest_data_ms);
        let from_ms = newest_ms.or_else(|| Some(ledger.deployed.get(&pipeline.product)?.since_ms))?;
        Some(from_ms.saturating_add(*promise))
    }

    /// Returns the pipelines of a product of which something is due.
    pub fn pipelines_of(&self, product: &ProductId) -> impl Iterator<Item = PipelineId> {
        let pipelines = self.surveys.get(product).into_iter().flat_map(|survey| &survey.pipelines);
        pipelines
            .filter(|(_, survey)| survey.due().next().is_some())
            .map(|(name, _)| PipelineId { product: product.clone(), name: name.clone() })
    }

    /// Returns whether the output of a pipeline is not what its definition says yet.
    #[must_use]
    pub fn lacks(&self, pipeline: &PipelineId) -> bool {
        let survey = self.surveys.get(&pipeline.product).and_then(|it| it.pipelines.get(&pipeline.name));
        survey.is_some_and(|survey| survey.lacks.is_some())
    }

    /// Returns what waits, and why.
    pub fn waiting(&self) -> impl Iterator<Item = NotDue> {
        let pipelines =
            self.surveys().flat_map(|(id, survey)| survey.pipelines.iter().map(move |it| (id, it)));
        pipelines.flat_map(|(id, (name, survey))| {
            let waits = matches!(survey.lacks, Some(Lack::Waits(..))).then(|| NotDue {
                pipeline: PipelineId { product: id.clone(), name: name.clone() },
                why: self.why(&survey.port).unwrap_or_default(),
                until_ms: None,
                held: false,
            });
            let blocked = survey.blocked().map(|blocked| NotDue {
                pipeline: PipelineId { product: id.clone(), name: name.clone() },
                why: self.why_blocked(&blocked),
                until_ms: None,
                held: false,
            });
            waits.into_iter().chain(blocked).chain(survey.waiting().cloned())
        })
    }

    /// Returns how far the partitioned ports of a product are of which something is to be computed.
    #[must_use]
    pub fn progress(&self, product: &ProductId, ledger: &LedgerState, now_ms: i64) -> Vec<Progress> {
        let pipelines = self.surveys.get(product).into_iter().flat_map(|survey| &survey.pipelines);
        pipelines
            .filter_map(|(name, survey)| {
                let (grid, left) = (survey.grid.as_ref()?, survey.stale() as u64);
                let (port, of) = (survey.port.clone(), u64::try_from(grid.seen - grid.first).ok()?);
                // What is held or blocked has no pace.
                let goes_on = survey.due().next().is_some();
                let pipeline = PipelineId { product: product.clone(), name: name.clone() };
                let failed = survey.given_up(ledger, now_ms);
                let can = left.saturating_sub(failed);
                let left_ms = goes_on.then(|| at_this_pace(ledger, &pipeline, can)).flatten();
                (left > 0).then_some(Progress { port, left, failed, of, left_ms })
            })
            .collect()
    }

    /// Says why a port is not what its definition says, if so. Put together when asked: it changes with every partition.
    fn why(&self, port: &PortId) -> Option<String> {
        let survey = self.surveys.get(&port.product)?.lacking_by(port)?;
        Some(match survey.lacks.as_ref()? {
            Lack::Waits(input, Missing::NotDeployed) => format!("waits for {input}: not deployed"),
            Lack::Waits(input, Missing::Unpublished) => format!("waits for {input}: nothing published yet"),
            Lack::Waits(input, Missing::Incomplete) => {
                format!("waits for {input}: {}", self.why(input).unwrap_or_default())
            }
            Lack::Partitions => match survey.blocked() {
                Some(blocked) => self.why_blocked(&blocked),
                None => survey.why_partitions(),
            },
            Lack::Work(why) => why.clone(),
        })
    }

    fn why_blocked(&self, blocked: &Blocked) -> String {
        let Blocked { partitions, input, first } = blocked;
        let (partitions, why) = (super::batch::count(*partitions), self.why(input));
        let why = why.unwrap_or_else(|| "not published that far".to_owned());
        match first {
            None => format!("{partitions} waiting for {input}: {why}"),
            Some(first) => format!("{partitions} waiting: {first}: {why}"),
        }
    }

    /// Returns whether a step that failed still has work to do, be it due or held back.
    #[must_use]
    pub fn wants(&self, key: &StepKey) -> bool {
        let survey = self.surveys.get(&key.pipeline.product);
        survey.and_then(|it| it.pipelines.get(&key.pipeline.name)).is_some_and(|survey| survey.wants(key))
    }

    /// Returns deployed products, inputs before readers.
    #[must_use]
    pub fn order(&self) -> &[ProductId] {
        &self.order
    }

    /// Returns a product's place among the deployed ones: after its inputs, and before its readers.
    #[must_use]
    pub fn rank(&self, product: &ProductId) -> Option<usize> {
        self.ranks.get(product).copied()
    }

    /// Returns every product that reads a product, directly or through others.
    #[must_use]
    pub fn downstream(&self, product: &ProductId) -> BTreeSet<ProductId> {
        let mut found = BTreeSet::new();
        let mut next = vec![product];
        while let Some(id) = next.pop() {
            for reader in self.readers.get(id).into_iter().flatten() {
                if reader != product && found.insert(reader.clone()) {
                    next.push(reader);
                }
            }
        }
        found
    }
}
