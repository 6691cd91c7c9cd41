//! What the folded ledger keeps of each thing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Alert, AlertState, ErrorKind, Outcome, Published, RunOutcome, StreamRows, Taken, Trained};
use crate::band::Band;
use crate::checkpoint::CheckpointRecord;
use crate::ids::PortId;
use crate::model::{Pipeline, Product, QualitySeverity};
use crate::plan::{Print, StepKey};

/// A commit that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenCommit {
    /// The commit.
    pub commit: String,
    /// First line of its message.
    pub message: String,
    /// Name of its author.
    pub author: String,
    /// When it was seen.
    pub at_ms: i64,
    /// What became of it, once that is known.
    pub outcome: Option<Outcome>,
    /// Since when that is so, milliseconds UTC.
    pub concluded_ms: i64,
}

/// What became of a product in the last commit that was about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductVerdict {
    /// The commit.
    pub commit: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, for people.
    pub why: String,
    /// When.
    pub at_ms: i64,
    /// Outcome and why as eight digits: the same refusal in another commit has the same.
    pub mark: String,
}

/// What runs of a product.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployed {
    /// Counts deploys.
    pub generation: u64,
    /// The commit that it came from.
    pub commit: String,
    /// The decision that it runs under.
    pub decision: String,
    /// The definition.
    pub product: Product,
    /// What it depends on, hashed.
    pub print: Print,
    /// When.
    pub at_ms: i64,
    /// When it was first deployed, since it last came into the mesh.
    pub since_ms: i64,
    /// What it reads of each input, hashed, as it was deployed then: while that stands, a new definition of an input
    /// brings nothing new.
    pub basis: BTreeMap<PortId, String>,
}

impl Deployed {
    /// Returns whether a partition of some output may rest on some partitions of an input alone.
    #[must_use]
    pub fn rests_on(&self, input: &PortId) -> bool {
        let declared = || {
            self.product.pipelines.values().any(|pipeline| match pipeline {
                Pipeline::Batch(batch) => !self.product.windows_of(batch, input).is_empty(),
                _ => false,
            })
        };
        self.print.aligned.iter().any(|(_, port)| port == input) || declared()
    }
}

/// What is visible of a port.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PortState {
    /// The table's newest version.
    pub version: i64,
    /// The newest version that brought other rows, and not merely another definition of some columns.
    pub rows_version: i64,
    /// Partitions by key; an unpartitioned table has the one key "".
    pub partitions: BTreeMap<String, Arc<PublishedPartition>>,
    /// Publications in order: when, and newest data time in them.
    pub publishes: VecDeque<(i64, Option<i64>)>,
    /// Publications since ever.
    pub published: u64,
    /// Earlier publications of a table without partitions, oldest first.
    pub before: VecDeque<Arc<PublishedPartition>>,
    /// Earlier publications of each value of a list, oldest first.
    pub values_before: BTreeMap<String, VecDeque<Arc<PublishedPartition>>>,
    /// Up to when its data is usable: the newest data time of any partition, of a list that of its oldest value.
    pub newest_data_ms: Option<i64>,
}

/// One visible partition.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedPartition {
    /// The publication.
    pub published: Published,
    /// When.
    pub at_ms: i64,
    /// Someone asked to compute it again.
    pub forced: bool,
    /// The newest version that brought other rows, see [`PortState::rows_version`].
    pub rows_version: i64,
    /// A run that would write it ended with its writer: what the table shows may be something else.
    pub unsure: bool,
    /// Percentage of rows in which a column is null, for columns with a rule about what is usual of it.
    pub nulls: BTreeMap<String, f64>,
}

/// The beginning of a run under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// When.
    pub at_ms: i64,
    /// Sum of the versions of the inputs.
    pub inputs: i64,
}

/// Failed attempts of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempts {
    /// How many.
    pub count: u32,
    /// When the last one ended.
    pub at_ms: i64,
    /// Whose fault.
    pub kind: ErrorKind,
    /// Stable code.
    pub code: String,
    /// For people.
    pub message: String,
    /// The generation of the product that failed.
    pub generation: u64,
    /// Sum of input versions that the attempt could have seen: a later one is worth another try.
    pub inputs: i64,
}

/// A finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedRun {
    /// The run.
    pub run: String,
    /// What it did.
    pub step: StepKey,
    /// How it ended.
    pub outcome: RunOutcome,
    /// When it ended.
    pub at_ms: i64,
    /// Real time it took.
    pub took_ms: i64,
    /// What it took over instead of computing it, if anything.
    pub taken: Option<TakenOver>,
}

/// What a run took over from previews.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TakenOver {
    /// The preview that the last of it is from: `preview/NAME`.
    pub from: String,
    /// How many partitions; 1 for a whole table.
    pub partitions: u64,
    /// When the last of it was computed there, milliseconds UTC.
    pub computed_ms: i64,
}

impl TakenOver {
    /// Takes in one more publication.
    pub(super) fn add(before: Option<Self>, taken: &Taken) -> Self {
        let (partitions, computed_ms) =
            before.map_or((0, taken.computed_ms), |before| (before.partitions, before.computed_ms));
        Self {
            from: taken.from.clone(),
            partitions: partitions + 1,
            computed_ms: computed_ms.max(taken.computed_ms),
        }
    }
}

/// A stream's progress.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamState {
    /// The last committed epoch.
    pub checkpoint: CheckpointRecord,
    /// Totals since the start of this definition.
    pub rows: StreamRows,
    /// Newest event time, milliseconds UTC.
    pub newest_event_ms: Option<i64>,
    /// Data fingerprint.
    pub data: String,
    /// When the last epoch was committed.
    pub at_ms: i64,
}

/// A product's models.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Champion {
    /// Every model, oldest first, with when.
    pub trained: Vec<(i64, Trained)>,
    /// The champion's version, and when it was promoted.
    pub champion: Option<(u64, i64)>,
}

/// One alert episode.
#[derive(Debug, Clone, PartialEq)]
pub struct EpisodeRecord {
    /// Its transitions in order.
    pub transitions: Vec<(i64, Alert)>,
}

impl EpisodeRecord {
    /// Returns the last transition.
    ///
    /// # Panics
    ///
    /// When there is none: the ledger makes no such record.
    #[must_use]
    pub fn last(&self) -> &Alert {
        &self.transitions.last().expect("an episode begins with a transition").1
    }

    /// Returns whether the episode is over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.last().state != AlertState::Resolved
    }
}

/// The latest result of a quality rule.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityRecord {
    /// The partition.
    pub partition: Option<String>,
    /// Blocks or tells.
    pub severity: QualitySeverity,
    /// It held.
    pub passed: bool,
    /// What was measured.
    pub measure: Option<f64>,
    /// The threshold.
    pub threshold: String,
    /// The run that evaluated it.
    pub run: String,
    /// The column that it is about, if one.
    pub column: Option<String>,
    /// Rows that were looked at, if the fact says.
    pub rows: Option<u64>,
    /// What is usual, for a rule about that.
    pub band: Option<Band>,
    /// When.
    pub at_ms: i64,
    /// Evaluations and failures since ever.
    pub counts: (u64, u64),
}

/// What became of a quality rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleOutcome {
    /// It held.
    Held,
    /// It did not.
    Failed,
    /// It could not be evaluated, which stops a publication like a failure.
    Unmeasured,
    /// What is usual is not known yet, so that it neither held nor failed.
    Unknown,
}

impl RuleOutcome {
    /// Returns what a fact says became of its rule.
    #[must_use]
    pub fn of(passed: bool, measure: Option<f64>, band: Option<&Band>) -> Self {
        match (measure, band) {
            _ if passed => Self::Held,
            (None, _) => Self::Unmeasured,
            (Some(_), Some(Band { usual: None, .. })) => Self::Unknown,
            (Some(_), _) => Self::Failed,
        }
    }

    /// Returns whether the rule stops a publication, or tells.
    #[must_use]
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Unmeasured)
    }
}

impl QualityRecord {
    /// Returns what became of the rule.
    #[must_use]
    pub fn outcome(&self) -> RuleOutcome {
        RuleOutcome::of(self.passed, self.measure, self.band.as_ref())
    }
}
