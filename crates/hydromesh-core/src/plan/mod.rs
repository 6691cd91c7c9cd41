//! The plan: desired minus deployed (changes), and what time or data made due (due work).
//!
//! A plan leaves the executor no choice, and the plan of an applied commit has no changes.

mod batch;
mod calendar;
mod change;
mod due;
mod grid;
mod keys;
mod mapping;
mod order;
mod places;
mod preview;
mod print;
mod progress;
mod rests;
mod retry;
mod seek;
mod stretch;
mod survey;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use calendar::{ended_partitions, first_kept, partition_bounds_ms, partitions_at, zone};
pub use change::{Change, ChangeKind, Plan, admit, empties, plan};
pub use due::{DueStep, DueWork, NotDue, Refreshed, due_steps};
pub use mapping::Mapping;
pub use order::{dependency_order, upstream_ports};
pub use places::no_place;
pub use preview::{Bounded, Newest, bound_preview, unbuilt};
pub use print::{PortPrint, Print, glob_matches, print_mesh};
pub use progress::Progress;
pub use retry::{NextTry, next_try, retry_of, worth_telling};
pub use stretch::{Stretch, Wanted, stretch};
pub(crate) use survey::expire;
pub use survey::{broken_features, training_allowed_from};

use crate::diag::Diagnostic;
use crate::ids::{PipelineId, PipelineName, ProductId};
use crate::model::{Mesh, QueryShape};

/// What a commit asks for, resolved and described; the input of planning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// The commit.
    pub commit: String,
    /// The mesh at it.
    pub mesh: Mesh,
    /// The shapes of its queries.
    pub shapes: BTreeMap<(ProductId, PipelineName), QueryShape>,
    /// Fingerprints of its products.
    pub prints: BTreeMap<ProductId, Print>,
    /// Products that do not check, with why; they stay at what is deployed.
    pub broken: BTreeMap<ProductId, Vec<Diagnostic>>,
}

/// What one attempt does; the key by which it is known across restarts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StepKey {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// What of it.
    pub work: Work,
}

/// What of a pipeline a step performs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Partitions from and to, both inclusive.
    Partitions {
        /// First.
        from: String,
        /// Last.
        to: String,
    },
    /// The whole, unpartitioned output.
    Whole,
    /// Following a topic until told to stop.
    Follow,
    /// Vectors of changed texts.
    Embed,
    /// Fitting a model.
    Train,
    /// Comparing features with the training snapshot.
    Drift,
    /// Looking after its table.
    Tend,
    /// Looking for the values that its output is cut by.
    Keys,
}

impl StepKey {
    /// Returns whether two steps would write the same partition of the same port, or are one and the same.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.pipeline == other.pipeline
            && match (&self.work, &other.work) {
                // Keys of one calendar order as text as they do in time.
                (Work::Partitions { from, to }, Work::Partitions { from: other_from, to: other_to }) => {
                    from <= other_to && other_from <= to
                }
                (Work::Partitions { .. }, Work::Whole) | (Work::Whole, Work::Partitions { .. }) => true,
                (mine, theirs) => mine == theirs,
            }
    }
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.pipeline)?;
        match &self.work {
            Work::Partitions { from, to } => write!(f, "{from}..{to}"),
            Work::Whole => f.write_str("whole"),
            Work::Follow => f.write_str("follow"),
            Work::Embed => f.write_str("embed"),
            Work::Train => f.write_str("train"),
            Work::Drift => f.write_str("drift"),
            Work::Tend => f.write_str("tend"),
            Work::Keys => f.write_str("keys"),
        }
    }
}

/// Why a text is no step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a step: expected `domain/product:pipeline@work`")]
pub struct StepKeyError(String);

impl std::str::FromStr for StepKey {
    type Err = StepKeyError;
    fn from_str(text: &str) -> Result<Self, StepKeyError> {
        let fail = || StepKeyError(text.to_owned());
        let (pipeline, work) = text.split_once('@').ok_or_else(fail)?;
        let pipeline = pipeline.parse().map_err(|_| fail())?;
        let work = match work {
            "whole" => Work::Whole,
            "follow" => Work::Follow,
            "embed" => Work::Embed,
            "train" => Work::Train,
            "drift" => Work::Drift,
            "tend" => Work::Tend,
            "keys" => Work::Keys,
            range => {
                let (from, to) = range.split_once("..").ok_or_else(fail)?;
                Work::Partitions { from: from.to_owned(), to: to.to_owned() }
            }
        };
        Ok(Self { pipeline, work })
    }
}

impl TryFrom<String> for StepKey {
    type Error = StepKeyError;
    fn try_from(text: String) -> Result<Self, StepKeyError> {
        text.parse()
    }
}

impl From<StepKey> for String {
    fn from(key: StepKey) -> String {
        key.to_string()
    }
}
