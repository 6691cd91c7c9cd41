//! How a product is made and when.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{InputWindow, Partitioning, TrainerCommand, Values};
use crate::ids::{PipelineName, PortId, PortName};
use crate::tile::ViewSpec;
use crate::time::Span;

/// One pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Pipeline {
    /// SQL from tables and files to a table.
    Batch(BatchPipeline),
    /// SQL from a topic to an archive table.
    Stream(StreamPipeline),
    /// Windowed aggregates per entity, from history and live events by one definition.
    Feature(FeaturePipeline),
    /// Texts to vectors.
    Embedding(EmbeddingPipeline),
    /// A model from labels and features.
    Training(TrainingPipeline),
}

/// The kind of a pipeline alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PipelineKind {
    /// See [`Pipeline::Batch`].
    Batch,
    /// See [`Pipeline::Stream`].
    Stream,
    /// See [`Pipeline::Feature`].
    Feature,
    /// See [`Pipeline::Embedding`].
    Embedding,
    /// See [`Pipeline::Training`].
    Training,
}

impl Pipeline {
    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &PipelineName {
        match self {
            Self::Batch(it) => &it.name,
            Self::Stream(it) => &it.name,
            Self::Feature(it) => &it.name,
            Self::Embedding(it) => &it.name,
            Self::Training(it) => &it.name,
        }
    }

    /// Returns the output port that it fills.
    #[must_use]
    pub fn output(&self) -> &PortName {
        match self {
            Self::Batch(it) => &it.output,
            Self::Stream(it) => &it.output,
            Self::Feature(it) => &it.output,
            Self::Embedding(it) => &it.output,
            Self::Training(it) => &it.output,
        }
    }

    /// Returns what bounds its steps; those that follow a topic never end.
    #[must_use]
    pub fn bounds(&self) -> Option<&Bounds> {
        match self {
            Self::Batch(it) => Some(&it.bounds),
            Self::Embedding(it) => Some(&it.bounds),
            Self::Training(it) => Some(&it.bounds),
            Self::Stream(_) | Self::Feature(_) => None,
        }
    }

    /// Returns it without what bounds its steps, and without the values that were found so far.
    #[must_use]
    pub fn unbounded(&self) -> Self {
        let mut pipeline = self.clone();
        match &mut pipeline {
            Self::Batch(it) => {
                it.bounds = Bounds::default();
                if let Some(cut) = &mut it.partition {
                    cut.know(Values::default());
                }
            }
            Self::Embedding(it) => it.bounds = Bounds::default(),
            Self::Training(it) => {
                it.bounds = Bounds::default();
                if let Trainer::Command(command) = &it.train {
                    it.train = Trainer::Command(command.unbounded());
                }
            }
            Self::Stream(_) | Self::Feature(_) => {}
        }
        pipeline
    }

    /// Returns whether another definition does the same in the same steps, however they are bounded and whichever values were found
    /// since.
    #[must_use]
    pub fn works_like(&self, other: &Self) -> bool {
        let varies = self.bounds() != other.bounds() || self.looks_for_values();
        self == other || varies && self.unbounded() == other.unbounded()
    }

    /// Returns whether it is cut by values that are looked for.
    #[must_use]
    pub fn looks_for_values(&self) -> bool {
        matches!(self, Self::Batch(batch) if batch.partition.as_ref().is_some_and(|cut| cut.source().is_some()))
    }

    /// Returns whether its table is computed again when somebody else changed it.
    ///
    /// A stream's archive cannot be: its topic may have forgotten. A table of models would cost a training.
    #[must_use]
    pub fn self_heals(&self) -> bool {
        match self {
            Self::Batch(it) => it.self_heal,
            Self::Embedding(_) => true,
            Self::Stream(_) | Self::Feature(_) | Self::Training(_) => false,
        }
    }

    /// Returns whether it follows what it reads all the time, so that nobody can ask for a run of it.
    #[must_use]
    pub fn follows(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::Feature(_))
    }

    /// Returns its kind.
    #[must_use]
    pub fn kind(&self) -> PipelineKind {
        match self {
            Self::Batch(_) => PipelineKind::Batch,
            Self::Stream(_) => PipelineKind::Stream,
            Self::Feature(_) => PipelineKind::Feature,
            Self::Embedding(_) => PipelineKind::Embedding,
            Self::Training(_) => PipelineKind::Training,
        }
    }
}

/// A SQL file as read: one SELECT or WITH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlText {
    /// Repository path, or the manifest's path for SQL written inline.
    pub file: String,
    /// Line in that file where the text starts, 1-based.
    pub line: u32,
    /// The text.
    pub text: String,
}

/// Which of the partitions to compute come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackfillOrder {
    /// History is complete up to some day at any time.
    #[default]
    OldestFirst,
    /// What people look at is there first.
    NewestFirst,
}

impl BackfillOrder {
    /// Returns whether it is the order of a pipeline that does not say.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// See [`Pipeline::Batch`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchPipeline {
    /// Its name.
    pub name: PipelineName,
    /// The output port that it fills.
    pub output: PortName,
    /// The query over input ports; absent copies the only input port.
    pub sql: SqlText,
    /// How the output is cut; the whole table is rewritten without one.
    pub partition: Option<Partitioning>,
    /// Which partitions of its inputs a partition of the output reads, by input port; of the others it reads all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<PortName, InputWindow>,
    /// When it runs; when inputs change without one.
    pub schedule: Option<BatchSchedule>,
    /// Late rows reopen partitions this far back.
    pub lookback: Option<Span>,
    /// Partitions computed at once in a backfill.
    pub chunk: Option<Span>,
    /// Chunks in flight at once.
    pub concurrency: u32,
    /// Which chunks come first.
    #[serde(default, skip_serializing_if = "BackfillOrder::is_default")]
    pub order: BackfillOrder,
    /// What to do when an attempt fails.
    pub retry: Retry,
    /// What bounds its steps.
    #[serde(flatten)]
    pub bounds: Bounds,
    /// A table that somebody else changed is computed again; without it, people are told.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub self_heal: bool,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what `skip_serializing_if` passes")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// What bounds steps that end by themselves. Nothing of what they do depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// The longest that one step may take; it is stopped then, and counts as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// The pool of the environment in which a step takes a place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// When a batch pipeline takes newer rows of its inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BatchSchedule {
    /// Once for each tick.
    Cron(Schedule),
    /// As late as the promises of its output allow.
    By(ByPromise),
}

/// See [`BatchSchedule::By`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByPromise {
    /// The only word.
    Promise,
}

impl BatchSchedule {
    /// Returns the cron schedule, if it is one.
    #[must_use]
    pub fn cron(&self) -> Option<&Schedule> {
        match self {
            Self::Cron(schedule) => Some(schedule),
            Self::By(ByPromise::Promise) => None,
        }
    }
}

/// A cron schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Five fields.
    pub cron: String,
    /// IANA zone.
    pub timezone: String,
}

/// Retries of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts in all.
    pub attempts: u32,
    /// First pause.
    pub from: Span,
    /// Longest pause.
    pub to: Span,
}

impl Default for Retry {
    fn default() -> Self {
        // Three attempts bridge a restart of a neighbour; ten minutes is the longest anyone wants to wait unknowing.
        Self { attempts: 3, from: Span::from_millis(10_000), to: Span::from_millis(600_000) }
    }
}

/// A stream of events and its clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSource {
    /// The input port.
    pub port: PortName,
    /// Column of the event's time.
    pub event_time: String,
    /// Column that identifies an event.
    pub event_id: Option<String>,
    /// How far behind the newest event another may still come in order.
    pub bound: Span,
    /// A partition silent for this long no longer holds the watermark back.
    pub idle: Span,
    /// What happens to events behind the watermark.
    pub late: Late,
    /// When imported history became known; live events carry the broker's time.
    pub available: Available,
}

/// Late events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// Corrected when at most this far behind the watermark.
    pub allow: Span,
    /// What happens to later ones.
    pub beyond: LateBeyond,
}

/// What happens to events later than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LateBeyond {
    /// Kept in the quarantine table and counted.
    Quarantine,
}

/// When a row of imported history became known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Available {
    /// Broker or commit time.
    Broker,
    /// Assumed: event time plus this.
    AssumeEventPlus(Span),
    /// A column says.
    Column(String),
}

/// See [`Pipeline::Stream`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamPipeline {
    /// Its name.
    pub name: PipelineName,
    /// The output port.
    pub output: PortName,
    /// The query over the source port.
    pub sql: SqlText,
    /// The events.
    pub source: EventSource,
}

/// See [`Pipeline::Feature`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeaturePipeline {
    /// Its name.
    pub name: PipelineName,
    /// The output port.
    pub output: PortName,
    /// Column of the entity.
    pub entity: String,
    /// The events.
    pub source: EventSource,
    /// The query over the source port, before aggregation.
    pub select: SqlText,
    /// The features.
    pub view: ViewSpec,
}

/// See [`Pipeline::Embedding`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingPipeline {
    /// Its name.
    pub name: PipelineName,
    /// The output port.
    pub output: PortName,
    /// The input port of texts.
    pub port: PortName,
    /// Column that identifies a text.
    pub id: String,
    /// Column of the text.
    pub text: String,
    /// How texts are cut.
    pub chunk: Chunking,
    /// `hashing`, ...
    pub provider: String,
    /// Length of a vector.
    pub dimensions: u32,
    /// `exact`, ...
    pub store: String,
    /// What bounds its steps.
    #[serde(flatten)]
    pub bounds: Bounds,
}

/// How texts are cut into chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunking {
    /// `content_defined`.
    pub method: String,
    /// Aimed length in characters.
    pub target: u32,
}

/// See [`Pipeline::Training`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingPipeline {
    /// Its name.
    pub name: PipelineName,
    /// The output port.
    pub output: PortName,
    /// The labels: entity, time and label columns.
    pub spine: SqlText,
    /// Feature ports joined as of the label's time.
    pub features: Vec<PortId>,
    /// Column of the spine that holds the event time of a label.
    pub as_of_event: String,
    /// Column of the spine that holds the knowledge time; the event's when the same.
    pub as_of_knowledge: String,
    /// How the model is fitted.
    pub train: Trainer,
    /// What starts a retraining.
    pub retrain_on: RetrainOn,
    /// At least this long between two trainings.
    pub cooldown: Span,
    /// At most so many a month.
    pub max_per_month: u32,
    /// What a challenger must show.
    pub gate: TrainGate,
    /// What bounds its steps.
    #[serde(flatten)]
    pub bounds: Bounds,
}

/// How a model is fitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trainer {
    /// A trainer inside Hydromesh: `logistic_regression`.
    Builtin(String),
    /// A program of the product's folder.
    Command(TrainerCommand),
}

impl fmt::Display for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => f.write_str(name),
            Self::Command(command) => command.fmt(f),
        }
    }
}

/// What starts a retraining.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetrainOn {
    /// Drift of the features.
    pub drift: Option<DriftRule>,
    /// A schedule.
    pub schedule: Option<Schedule>,
}

/// When drift counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftRule {
    /// Expected false alarms a year, over all features of the product; a test's level follows from it.
    pub false_alarms_per_year: f64,
    /// Windows that must agree.
    pub confirm: u32,
    /// Of so many.
    pub of: u32,
}

/// What a challenger must show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainGate {
    /// `auc`, ...
    pub metric: String,
    /// How much worse than the champion is still accepted.
    pub non_inferiority: f64,
}
