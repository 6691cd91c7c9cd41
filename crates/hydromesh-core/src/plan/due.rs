//! Due work: what time or data made due, of what is deployed.
//!
//! A mesh of a thousand products learns a fact every few milliseconds while it backfills, and nearly every fact is about
//! one product. So what is due is kept per product and derived anew only for those that a fact touched, for their
//! readers, and for those whose next date has come.

use std::collections::{BTreeMap, BTreeSet};

use super::survey::{ProductSurvey, Survey};
use super::{StepKey, dependency_order, upstream_ports};
use crate::ids::{PipelineId, PortId, ProductId};
use crate::ledger::{Fact, LedgerState};

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
    let mut work = DueWork::default();
    work.refresh(ledger, now_ms);
    (work.steps().cloned().collect(), work.waiting().cloned().collect())
}

/// What is due of every deployed product, kept current from fact to fact.
///
/// It always equals what [`due_steps`] derives from nothing.
#[derive(Debug, Clone, Default)]
pub struct DueWork {
    /// Deployed products, inputs before readers.
    order: Vec<ProductId>,
    /// Products that read a product directly.
    readers: BTreeMap<ProductId, BTreeSet<ProductId>>,
    surveys: BTreeMap<ProductId, ProductSurvey>,
    /// Products to look at again.
    touched: BTreeSet<ProductId>,
    /// When the first survey runs out by time alone.
    until_ms: Option<i64>,
    /// The order is that of the deployed products.
    ordered: bool,
}

impl DueWork {
    /// Takes note of what a fact, which was just folded into the ledger, may have changed.
    pub fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::Deployed { .. } | Fact::Retired { .. } => self.ordered = false,
            Fact::Published(published) => self.touch_port(&published.port),
            Fact::Epoch(epoch) => self.touch_port(&epoch.port),
            Fact::Altered { port, .. } => self.touch_port(port),
            Fact::RunFinished { step, .. } => self.touch(&step.pipeline.product),
            Fact::Drift { product, .. } | Fact::Retrain { product, .. } | Fact::Promoted { product, .. } => {
                self.touch(product);
            }
            Fact::Trained(trained) => self.touch(&trained.product),
            // Open episodes keep models from being trained on broken data.
            Fact::Alert(alert) => self.touch_with_readers(&alert.product),
            // A command may be about any partition; they come by hand, so rarely.
            Fact::CommandAnswered { .. } => self.touched.extend(self.order.iter().cloned()),
            Fact::Opened { .. }
            | Fact::CommitSeen { .. }
            | Fact::CommitOutcome { .. }
            | Fact::Decided(_)
            | Fact::RunStarted { .. }
            | Fact::Quality { .. }
            | Fact::Quarantined { .. }
            | Fact::Sent { .. }
            | Fact::Command(_) => {}
        }
    }

    fn touch(&mut self, product: &ProductId) {
        self.touched.insert(product.clone());
    }

    fn touch_port(&mut self, port: &PortId) {
        self.touch_with_readers(&port.product);
    }

    fn touch_with_readers(&mut self, product: &ProductId) {
        self.touch(product);
        self.touched.extend(self.readers.get(product).into_iter().flatten().cloned());
    }

    /// Derives anew what facts or time have changed.
    pub fn refresh(&mut self, ledger: &LedgerState, now_ms: i64) {
        if !std::mem::replace(&mut self.ordered, true) {
            self.order = dependency_order(ledger.deployed.values().map(|deployed| &deployed.product));
            self.readers.clear();
            for (id, deployed) in &ledger.deployed {
                for port in upstream_ports(&deployed.product) {
                    self.readers.entry(port.product).or_default().insert(id.clone());
                }
            }
            self.surveys.clear();
            self.touched = self.order.iter().cloned().collect();
        }
        if self.touched.is_empty() && self.until_ms.is_none_or(|until_ms| now_ms < until_ms) {
            return;
        }
        for id in &self.order {
            let expired =
                self.surveys.get(id).and_then(|survey| survey.until_ms).is_some_and(|until| until <= now_ms);
            if !(self.touched.remove(id) || expired) {
                continue;
            }
            let Some(deployed) = ledger.deployed.get(id) else { continue };
            let survey = Survey::new(ledger, now_ms, &self.surveys).product(deployed);
            let before = self.surveys.insert(id.clone(), survey);
            let unready = |survey: Option<&ProductSurvey>| survey.map(|it| it.incomplete.clone());
            if unready(before.as_ref()) != unready(self.surveys.get(id)) {
                // Readers come later in the order.
                self.touched.extend(self.readers.get(id).into_iter().flatten().cloned());
            }
        }
        self.touched.clear();
        self.until_ms = self.surveys.values().filter_map(|survey| survey.until_ms).min();
    }

    /// Returns the steps that are due, in dependency order and oldest partitions first.
    pub fn steps(&self) -> impl Iterator<Item = &DueStep> {
        self.order.iter().filter_map(|id| self.surveys.get(id)).flat_map(|survey| &survey.due)
    }

    /// Returns what waits, and why.
    pub fn waiting(&self) -> impl Iterator<Item = &NotDue> {
        self.order.iter().filter_map(|id| self.surveys.get(id)).flat_map(|survey| &survey.waiting)
    }

    /// Returns whether a step that failed still has work to do, be it due or held back.
    #[must_use]
    pub fn wants(&self, key: &StepKey) -> bool {
        self.surveys.get(&key.pipeline.product).is_some_and(|survey| {
            survey.due.iter().map(|step| &step.key).chain(&survey.held).any(|it| it.overlaps(key))
        })
    }

    /// Returns deployed products, inputs before readers.
    #[must_use]
    pub fn order(&self) -> &[ProductId] {
        &self.order
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
