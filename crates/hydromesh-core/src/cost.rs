//! What computing costs: expected from what the last runs took, and measured afterwards.
//!
//! Everything follows from the ledger. Without a run to go by nothing is known, which is not nothing.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::ids::{PipelineId, PortId, ProductId};
use crate::ledger::{Entry, Fact, LedgerState, RunOutcome, Verb};
use crate::model::{BatchPipeline, Pipeline, Price, Product};
use crate::plan::{StepKey, Stretch, Wanted, Work, stretch};
use crate::time::{Grain, Partition};

/// Runs of a pipeline that say what the next one takes: enough to even out chance, few enough to follow a change.
const RUNS: usize = 32;
/// Backfills of a product that are compared with what was expected of them.
const BACKFILLS: usize = 8;
/// Milliseconds of an hour.
const HOUR_MS: u128 = 3_600_000;
/// Prices are kept in millionths of the currency.
pub const MICRO: u64 = 1_000_000;

impl Price {
    /// Returns what so much time of steps costs, in millionths of the currency, rounded up: what was used is not for nothing.
    #[must_use]
    pub fn micro(&self, work_ms: i64) -> u64 {
        let product = u128::from(work_ms.max(0).unsigned_abs()) * u128::from(self.per_hour_micro);
        u64::try_from(product.div_ceil(HOUR_MS)).unwrap_or(u64::MAX)
    }

    /// Returns it for people, such as `EUR 0.07`; what is below a hundredth is not shown as nothing.
    #[must_use]
    pub fn spoken(&self, work_ms: i64) -> String {
        let micro = self.micro(work_ms);
        let hundredths = micro.saturating_add(MICRO / 200) / (MICRO / 100);
        if hundredths == 0 && micro > 0 {
            return format!("less than {} 0.01", self.currency);
        }
        format!("{} {}.{:02}", self.currency, hundredths / 100, hundredths % 100)
    }
}

/// What something is expected to take, or took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Partitions; 1 for a whole table.
    pub partitions: u64,
    /// Rows written.
    pub rows: u64,
    /// Real time of all its steps together, milliseconds.
    pub work_ms: i64,
}

impl Amount {
    /// Returns both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            partitions: self.partitions.saturating_add(other.partitions),
            rows: self.rows.saturating_add(other.rows),
            work_ms: self.work_ms.saturating_add(other.work_ms),
        }
    }

    /// Returns how long it takes when so many of its steps run at once.
    #[must_use]
    pub fn wall_ms(&self, chunks: u64, at_once: u64) -> i64 {
        let side_by_side = i64::try_from(chunks.min(at_once).max(1)).unwrap_or(i64::MAX);
        self.work_ms / side_by_side
    }
}

/// A backfill that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backfill {
    /// The command.
    pub id: String,
    /// First partition.
    pub from: String,
    /// Last partition.
    pub to: String,
    /// The values, where partitions of a list were asked for; `from` and `to` are then the first and the last of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// When it was asked for, milliseconds UTC.
    pub at_ms: i64,
    /// What was to be expected then; nothing without a run to go by.
    pub expected: Option<Amount>,
    /// What it has taken so far, attempts that failed too.
    pub actual: Amount,
}

/// What the ledger says of costs, entry by entry.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    samples: BTreeMap<PipelineId, VecDeque<Amount>>,
    /// Of runs, when they began.
    expected: BTreeMap<String, Amount>,
    backfills: BTreeMap<ProductId, VecDeque<Backfill>>,
}

impl Costs {
    /// Returns what the runs of a folded ledger say.
    #[must_use]
    pub fn of(ledger: &LedgerState) -> Self {
        let mut costs = Self::default();
        for run in &ledger.runs {
            if run.taken.is_none() {
                costs.learn(&run.step, &run.outcome, run.took_ms);
            }
        }
        costs
    }

    /// Takes the next entry; `ledger` is as it was before.
    pub fn enter(&mut self, entry: &Entry, ledger: &LedgerState) {
        match &entry.fact {
            Fact::RunStarted { run, step, .. } => {
                let expected = partitions_of(&step.work).and_then(|it| self.expect(&step.pipeline, it));
                self.expected.extend(expected.map(|it| (run.clone(), it)));
            }
            Fact::RunFinished { run, step, outcome, took_ms } => {
                // What was taken over from a preview says nothing of what computing takes.
                if !ledger.taken_over.contains_key(run) {
                    self.learn(step, outcome, *took_ms);
                }
                self.count(step, outcome, *took_ms);
            }
            Fact::Command(command) => {
                let (product, asked) = match &command.verb {
                    Verb::Backfill { product, from, to } => (product, Wanted::Range { from, to }),
                    Verb::BackfillValues { product, values } => (product, Wanted::Values(values)),
                    _ => return,
                };
                let (expected, _) = self.expect_range(ledger, product, asked, entry.at_ms);
                let all = self.backfills.entry(product.clone()).or_default();
                if all.len() >= BACKFILLS {
                    all.pop_front();
                }
                let (from, to, values) = match asked {
                    Wanted::Range { from, to } => (from, to, Vec::new()),
                    Wanted::Values(values) => {
                        let empty = "";
                        let first = values.iter().min().map_or(empty, String::as_str);
                        (first, values.iter().max().map_or(empty, String::as_str), values.to_vec())
                    }
                };
                all.push_back(Backfill {
                    id: command.id.clone(),
                    from: from.to_owned(),
                    to: to.to_owned(),
                    values,
                    at_ms: entry.at_ms,
                    expected,
                    actual: Amount::default(),
                });
            }
            Fact::CommandAnswered { id, accepted: false, .. } => {
                for all in self.backfills.values_mut() {
                    all.retain(|it| it.id != *id);
                }
            }
            _ => {}
        }
    }

    fn learn(&mut self, step: &StepKey, outcome: &RunOutcome, took_ms: i64) {
        let (RunOutcome::Succeeded { rows }, Some(partitions)) = (outcome, partitions_of(&step.work)) else {
            return;
        };
        let samples = self.samples.entry(step.pipeline.clone()).or_default();
        if samples.len() >= RUNS {
            samples.pop_front();
        }
        samples.push_back(Amount { partitions, rows: *rows, work_ms: took_ms.max(1) });
    }

    /// Counts a run towards the newest backfill that asked for what it computed.
    fn count(&mut self, step: &StepKey, outcome: &RunOutcome, took_ms: i64) {
        let Work::Partitions { from, to } = &step.work else { return };
        let Some(all) = self.backfills.get_mut(&step.pipeline.product) else { return };
        // Keys of one calendar order as text as they do in time.
        let asks = |it: &&mut Backfill| {
            // Values are computed one by one.
            it.from <= *to && *from <= it.to && (it.values.is_empty() || it.values.contains(from))
        };
        let Some(asked) = all.iter_mut().rev().find(asks) else { return };
        let work = Work::Partitions { from: from.max(&asked.from).clone(), to: to.min(&asked.to).clone() };
        let (partitions, rows) = match outcome {
            RunOutcome::Succeeded { rows } => (partitions_of(&work).unwrap_or(0), *rows),
            _ => (0, 0),
        };
        // Computed twice, as after a change of its input, it costs twice and is one partition.
        let most = match asked.values.len() {
            0 => partitions_of(&Work::Partitions { from: asked.from.clone(), to: asked.to.clone() }),
            values => Some(values as u64),
        };
        asked.actual = asked.actual.and(Amount { partitions, rows, work_ms: took_ms.max(0) });
        asked.actual.partitions = asked.actual.partitions.min(most.unwrap_or(u64::MAX));
    }

    /// Returns what so many partitions of a pipeline are expected to take (1 for a whole table); `None` before the first run.
    #[must_use]
    pub fn expect(&self, pipeline: &PipelineId, partitions: u64) -> Option<Amount> {
        let samples = self.samples.get(pipeline)?;
        let sum = samples.iter().fold(Amount::default(), |sum, it| sum.and(*it));
        if sum.partitions == 0 {
            return None;
        }
        let share = |all: u64| scaled(all, sum.partitions, partitions);
        let work_ms = i64::try_from(share(sum.work_ms.unsigned_abs())?).unwrap_or(i64::MAX);
        Some(Amount { partitions, rows: share(sum.rows)?, work_ms })
    }

    /// Returns what a change of a product is expected to take that computes so many partitions of each port. It is unknown as soon
    /// as one of the pipelines that compute them is.
    #[must_use]
    pub fn expect_change(&self, product: &Product, partitions: &BTreeMap<PortId, u64>) -> Option<Amount> {
        let of = |(port, count): (&PortId, &u64)| {
            let (name, _) = product.pipelines.iter().find(|(_, it)| *it.output() == port.port)?;
            self.expect(&PipelineId { product: product.id.clone(), name: name.clone() }, *count)
        };
        let known: Option<Vec<Amount>> = partitions.iter().filter(|(_, count)| **count > 0).map(of).collect();
        known.map(|it| it.into_iter().fold(Amount::default(), Amount::and))
    }

    /// Returns what partitions of a product are expected to take, and how many chunks they are. It is
    /// unknown as soon as one of the pipelines that compute them is.
    #[must_use]
    pub fn expect_range(
        &self,
        ledger: &LedgerState,
        product: &ProductId,
        asked: Wanted<'_>,
        now_ms: i64,
    ) -> (Option<Amount>, Vec<(PipelineId, Stretch)>) {
        let Some(deployed) = ledger.deployed.get(product) else { return (None, Vec::new()) };
        let batches = deployed.product.pipelines.iter().filter_map(|(name, pipeline)| match pipeline {
            Pipeline::Batch(batch) => {
                Some((PipelineId { product: product.clone(), name: name.clone() }, batch))
            }
            _ => None,
        });
        let of = |(id, batch): (PipelineId, &BatchPipeline)| Some((id, stretch(batch, asked, now_ms)?));
        let stretches: Vec<_> = batches.filter_map(of).collect();
        let known: Option<Vec<Amount>> =
            stretches.iter().map(|(id, it)| self.expect(id, it.partitions)).collect();
        let sum =
            known.filter(|it| !it.is_empty()).map(|it| it.into_iter().fold(Amount::default(), Amount::and));
        (sum, stretches)
    }

    /// Returns what a run was expected to take when it began, if there was a run to go by.
    #[must_use]
    pub fn expected(&self, run: &str) -> Option<Amount> {
        self.expected.get(run).copied()
    }

    /// Returns the last backfills of a product that were not refused, oldest first.
    pub fn backfills(&self, product: &ProductId) -> impl DoubleEndedIterator<Item = &Backfill> {
        self.backfills.get(product).into_iter().flatten()
    }
}

/// Returns what `wanted` pieces are when `of` pieces are `all`, rounded up so that something never becomes nothing; `None` when there
/// are none to go by.
#[must_use]
pub fn scaled(all: u64, of: u64, wanted: u64) -> Option<u64> {
    if of == 0 {
        return None;
    }
    let product = u128::from(all) * u128::from(wanted);
    Some(u64::try_from(product.div_ceil(u128::from(of))).unwrap_or(u64::MAX))
}

/// Returns how many partitions a piece of work computes: 1 for a whole table, `None` for what goes on for ever and for keys that no
/// calendar counts.
#[must_use]
pub fn partitions_of(work: &Work) -> Option<u64> {
    match work {
        Work::Partitions { from, to } if from == to => Some(1),
        Work::Partitions { from, to } => {
            let count = |grain: Grain| {
                let (from, to) = (Partition::parse(grain, from).ok()?, Partition::parse(grain, to).ok()?);
                u64::try_from(to.index() - from.index() + 1).ok()
            };
            [Grain::Day, Grain::Hour, Grain::Week, Grain::Month].into_iter().find_map(count)
        }
        Work::Whole | Work::Train | Work::Embed => Some(1),
        Work::Follow | Work::Drift | Work::Tend | Work::Keys => None,
    }
}

#[cfg(test)]
mod tests;
