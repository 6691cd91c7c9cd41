//! The facts of the ledger. Everything Hydromesh shows or decides later is a pure function of them.
//!
//! Facts are stored as JSON, one object each, tagged `fact`. Fields are only ever added, with a default; a fact of a
//! later version that this one does not know is kept and skipped.

mod asked;
mod base;
mod doubt;
mod earlier;
mod failed;
mod inherited;
mod keys;
mod offer;
mod proven;
mod reading;
mod records;
mod retired;
mod standing;
mod state;
mod tended;
mod values;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use asked::Pause;
pub use base::{Base, holds_rules};
pub use doubt::Alteration;
pub use inherited::{Inheritance, InheritedPort, OWN_ABOVE};
pub use keys::{KeysFound, KnownKeys, Looked};
pub use offer::{Offer, Offered, Wanted, partitions_read};
pub use proven::Unproven;
pub use reading::Reading;
pub use records::{
    Attempts, Begun, Champion, Deployed, EpisodeRecord, FinishedRun, PortState, ProductVerdict,
    PublishedPartition, QualityRecord, RuleOutcome, SeenCommit, StreamState, TakenOver,
};
pub use retired::{Ending, Gone, Retirement};
pub use state::LedgerState;
pub use tended::{Kept, LookedAfter};

use crate::band::Band;
use crate::checkpoint::CheckpointRecord;
use crate::ids::{PipelineId, PortId, ProductId};
use crate::model::{Product, QualitySeverity, StepLimits, TableEnd};
use crate::plan::{Print, StepKey};
use crate::trust::Verified;

/// One fact with its place in the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Position, from 1, without gaps.
    pub seq: u64,
    /// When the controller learnt it, milliseconds UTC of the injected clock.
    pub at_ms: i64,
    /// The fact.
    #[serde(flatten)]
    pub fact: Fact,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// A controller took the lease of an environment.
    Opened {
        /// The environment.
        environment: String,
        /// The writer's epoch.
        epoch: u64,
        /// Version of the binary.
        version: String,
    },
    /// The watched reference moved.
    CommitSeen {
        /// The commit.
        commit: String,
        /// The reference.
        r#ref: String,
        /// First line of its message.
        message: String,
        /// Name of its author.
        author: String,
    },
    /// What became of a commit; each seen commit gets exactly one final outcome without a product, and one per product
    /// that it changes.
    CommitOutcome {
        /// The commit.
        commit: String,
        /// The product, or none for the commit as a whole.
        product: Option<ProductId>,
        /// What became of it.
        outcome: Outcome,
        /// Why, for people.
        why: String,
    },
    /// The environment says how many steps may run at once.
    Limited {
        /// How many.
        limits: StepLimits,
    },
    /// The signatures behind the head were judged.
    Verified(Verified),
    /// The gate answered.
    Decided(Decision),
    /// All facts before this one are what a preview has from its parent environment.
    Inherited {
        /// The parent environment.
        parent: String,
        /// The position of the parent's ledger.
        position: u64,
    },
    /// A product's definition became the one that runs.
    Deployed {
        /// Counts the deploys of the product.
        generation: u64,
        /// The commit that it came from.
        commit: String,
        /// The decision that it runs under.
        decision: String,
        /// The definition itself, so that both sides of a later comparison can be derived anew.
        product: Box<Product>,
        /// What it depends on, hashed.
        print: Print,
    },
    /// A product left the mesh; its tables stay until their end begins, if it does.
    Retired {
        /// The product.
        product: ProductId,
        /// The commit without it.
        commit: String,
        /// The decision.
        decision: String,
    },
    /// The end of the tables of a product that left begins: whatever comes back starts from nothing.
    TablesEnding {
        /// The product.
        product: ProductId,
        /// What is done to them.
        how: TableEnd,
        /// The decision.
        decision: String,
    },
    /// The tables of a product that left are gone from where they were.
    TablesEnded {
        /// The product.
        product: ProductId,
        /// What was done to them.
        how: TableEnd,
        /// How many there were, side tables among them.
        tables: u64,
        /// Folder of the archive, relative to the lake, if there was anything to archive.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        archive: Option<String>,
    },
    /// An attempt of a step began.
    RunStarted {
        /// The run.
        run: String,
        /// What it does.
        step: StepKey,
        /// Attempt, from 1.
        attempt: u32,
        /// The decision that it runs under.
        decision: String,
    },
    /// An attempt of a step ended.
    RunFinished {
        /// The run.
        run: String,
        /// What it did.
        step: StepKey,
        /// How it ended.
        outcome: RunOutcome,
        /// Real time it took, milliseconds.
        took_ms: i64,
    },
    /// A partition (or a whole table) became visible by one atomic table commit.
    Published(Published),
    /// A table was found otherwise than it was published: somebody else dropped it, or changed what it shows.
    Altered {
        /// The port.
        port: PortId,
        /// Partitions that no longer show what was published; all of them when the table was dropped.
        partitions: Vec<String>,
        /// The table, or what lay in its place, is gone.
        dropped: bool,
        /// What was found, for people.
        what: String,
    },
    /// A quality rule was evaluated on written files.
    Quality {
        /// The port.
        port: PortId,
        /// The partition, if partitioned.
        partition: Option<String>,
        /// The run.
        run: String,
        /// The rule's id.
        rule: String,
        /// Blocks or tells.
        severity: QualitySeverity,
        /// It held.
        passed: bool,
        /// What was measured; `None` when the rule could not be evaluated.
        measure: Option<f64>,
        /// The threshold, for people.
        threshold: String,
        /// The column that it is about, if one; none in facts of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        column: Option<String>,
        /// Rows that were looked at; none in facts of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rows: Option<u64>,
        /// What is usual, for a rule about that. While that is unknown the rule neither holds nor fails.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        band: Option<Band>,
    },
    /// Input rows that could not be read were set aside.
    Quarantined {
        /// The port that they belong to.
        port: PortId,
        /// The run, or the pipeline's epoch.
        run: String,
        /// How many.
        rows: u64,
        /// The first few reasons: file (or partition@offset), line, reason. No row values.
        reasons: Vec<String>,
    },
    /// A stream committed an epoch.
    Epoch(Epoch),
    /// Features were compared with the training snapshot.
    Drift {
        /// The product that trains on them.
        product: ProductId,
        /// One verdict per feature.
        verdicts: Vec<FeatureDrift>,
        /// The product as a whole drifted.
        drifted: bool,
    },
    /// Whether to retrain was decided.
    Retrain {
        /// The product.
        product: ProductId,
        /// `start`, `wait`, ...
        decision: String,
        /// Why, for people.
        reason: String,
    },
    /// A model was fitted and compared.
    Trained(Trained),
    /// A model became the champion.
    Promoted {
        /// The product.
        product: ProductId,
        /// The model's version.
        version: u64,
        /// Why, for people.
        reason: String,
    },
    /// An alert episode changed its state.
    Alert(Alert),
    /// A message was accepted by the next hop.
    Sent {
        /// The outbox id.
        outbox: String,
        /// The episode.
        episode: String,
        /// The transition within the episode.
        transition: u32,
        /// Address.
        to: String,
        /// What the next hop answered, or the file's name.
        receipt: String,
    },
    /// The contract of a port does not keep partitions any longer: from here on nobody counts on them.
    Expired {
        /// The port.
        port: PortId,
        /// The first partition that is kept.
        before: String,
    },
    /// A table was looked after.
    Tended {
        /// The port.
        port: PortId,
        /// The run.
        run: String,
        /// Files that no version had, removed.
        files: u64,
        /// The version that lacks what its contract does not keep, or has its rows in fewer files, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<i64>,
        /// Small files that were put together: how many there were, and how many there are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        together: Option<(u64, u64)>,
        /// Versions that cannot be read any longer.
        #[serde(default)]
        expired: u64,
    },
    /// Values that an output is cut by were looked for in an input.
    Keys(KeysFound),
    /// Someone asked for something.
    Command(Command),
    /// A command was answered.
    CommandAnswered {
        /// The command.
        id: String,
        /// It was done.
        accepted: bool,
        /// For people.
        answer: String,
    },
}

impl Fact {
    /// Returns the tag under which the fact is stored.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::CommitSeen { .. } => "commit_seen",
            Self::CommitOutcome { .. } => "commit_outcome",
            Self::Limited { .. } => "limited",
            Self::Verified(_) => "verified",
            Self::Decided(_) => "decided",
            Self::Inherited { .. } => "inherited",
            Self::Deployed { .. } => "deployed",
            Self::Retired { .. } => "retired",
            Self::TablesEnding { .. } => "tables_ending",
            Self::TablesEnded { .. } => "tables_ended",
            Self::RunStarted { .. } => "run_started",
            Self::RunFinished { .. } => "run_finished",
            Self::Published(_) => "published",
            Self::Altered { .. } => "altered",
            Self::Quality { .. } => "quality",
            Self::Quarantined { .. } => "quarantined",
            Self::Epoch(_) => "epoch",
            Self::Drift { .. } => "drift",
            Self::Retrain { .. } => "retrain",
            Self::Trained(_) => "trained",
            Self::Promoted { .. } => "promoted",
            Self::Alert(_) => "alert",
            Self::Sent { .. } => "sent",
            Self::Expired { .. } => "expired",
            Self::Tended { .. } => "tended",
            Self::Keys(_) => "keys",
            Self::Command(_) => "command",
            Self::CommandAnswered { .. } => "command_answered",
        }
    }
}

/// What became of a commit, or of one product in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything that it asked for is deployed.
    Applied,
    /// A newer commit came before it was planned.
    Superseded,
    /// It waits, because a deployed reader would break, an upstream did not advance, or nobody who may has signed it.
    Held,
    /// A policy denied it.
    Denied,
    /// It does not check.
    Broken,
}

impl Outcome {
    /// Returns its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Superseded => "superseded",
            Self::Held => "held",
            Self::Denied => "denied",
            Self::Broken => "broken",
        }
    }
}

/// What the gate answered about one action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its id: a hash of what it is about and of its input.
    pub id: String,
    /// The product.
    pub product: ProductId,
    /// `deploy`, `stand`, `backfill`, `retire`, `promote`, ...
    pub action: String,
    /// The commit.
    pub commit: String,
    /// What it covers: the product's fingerprint.
    pub fingerprint: String,
    /// Allowed.
    pub allow: bool,
    /// Rules that denied.
    pub violations: Vec<Finding>,
    /// Rules that warned.
    pub warnings: Vec<Finding>,
    /// Rules that a waiver let pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waived: Vec<WaivedFinding>,
    /// Digest of the policies.
    pub policy_digest: String,
    /// Digest of what they were for this product: its rules, and the waivers that counted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rules: String,
    /// Hash of the input document.
    pub input_hash: String,
}

/// A finding that a waiver let pass: it no longer denies, and stays visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaivedFinding {
    /// What was found.
    pub finding: Finding,
    /// The waiver's id.
    pub waiver: String,
    /// Its file and line.
    pub place: String,
    /// Who answers for it.
    pub approver: String,
    /// Why.
    pub reason: String,
    /// Until when (RFC 3339).
    pub expires: String,
}

/// One policy finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule.
    pub rule: String,
    /// For people.
    pub message: String,
    /// What it is about, such as a column's address.
    pub path: String,
    /// What to do.
    pub remediation: String,
    /// It also stops what is deployed (`enforce: running`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub running: bool,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum RunOutcome {
    /// It did what it should.
    Succeeded {
        /// Rows written.
        rows: u64,
    },
    /// It did not.
    Failed {
        /// Whose fault: decides whether a retry makes sense.
        kind: ErrorKind,
        /// Stable code, such as `HM-R003`.
        code: String,
        /// For people.
        message: String,
    },
    /// It was stopped.
    Cancelled,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// SQL, data or quality: the same attempt would fail again.
    User,
    /// Disk, network, another system: a retry may help.
    External,
    /// A bug of ours.
    Internal,
}

/// See [`Fact::Published`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// The port.
    pub port: PortId,
    /// The partition, if partitioned.
    pub partition: Option<String>,
    /// The table's version that first shows it.
    pub version: i64,
    /// Rows of the partition.
    pub rows: u64,
    /// Newest data time in it, milliseconds UTC: the partition's end, or the newest event.
    pub data_time_ms: Option<i64>,
    /// The port's data fingerprint that it was made with.
    pub data: String,
    /// Versions of the inputs that were read.
    pub inputs: BTreeMap<PortId, i64>,
    /// The run.
    pub run: String,
    /// Digest of the commit's idempotency key, by which its files are named; empty in facts of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Where its files were taken over from, when they were not computed here; none in facts of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Taken>,
}

/// Where the files of a publication come from that were not computed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The preview's environment: `preview/NAME`.
    pub from: String,
    /// The preview's run that computed them.
    pub run: String,
    /// The version of the preview's table that first showed them.
    pub version: i64,
    /// When that was, milliseconds UTC.
    pub computed_ms: i64,
}

/// See [`Fact::Epoch`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The port that it fills.
    pub port: PortId,
    /// What the table commit carries.
    pub checkpoint: CheckpointRecord,
    /// The table's version.
    pub version: i64,
    /// Events of this epoch by what became of them.
    pub rows: StreamRows,
    /// Newest event time so far, milliseconds UTC.
    pub newest_event_ms: Option<i64>,
    /// The port's data fingerprint.
    pub data: String,
}

/// What became of the events of one epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRows {
    /// In order.
    pub accepted: u64,
    /// Late, within what is allowed: corrected.
    pub corrected: u64,
    /// Later than allowed: quarantined.
    pub quarantined: u64,
    /// Malformed: dead-lettered.
    pub dead: u64,
}

/// Drift of one feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureDrift {
    /// The feature's column.
    pub feature: String,
    /// The test.
    pub test: String,
    /// Its statistic.
    pub statistic: f64,
    /// Its p-value.
    pub p_value: f64,
    /// Effect size: how far, in units that a person can judge (see the test).
    pub effect: f64,
    /// `drifted`, `stable` or `insufficient_data`.
    pub verdict: String,
    /// Sizes of reference and current sample.
    pub samples: (u64, u64),
}

/// See [`Fact::Trained`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// The product.
    pub product: ProductId,
    /// Counts the models of the product.
    pub version: u64,
    /// The run.
    pub run: String,
    /// The metric that the gate reads.
    pub metric: String,
    /// Of this model, on held-out rows.
    pub value: f64,
    /// Of the champion on the same rows, if there is one.
    pub champion_value: Option<f64>,
    /// Further metrics.
    pub metrics: BTreeMap<String, f64>,
    /// Rows fitted and held out.
    pub rows: (u64, u64),
    /// Input versions.
    pub inputs: BTreeMap<PortId, i64>,
    /// Where the model lies in the lake.
    pub path: String,
    /// Why it was trained.
    pub reason: String,
    /// The program that fitted it, as people are shown it; none of a model of the trainer that is built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
}

/// See [`Fact::Alert`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The episode: product, kind, subject and start.
    pub episode: String,
    /// The product.
    pub product: ProductId,
    /// `freshness`, `quality`, `drift`, `run`, `deploy`.
    pub kind: AlertKind,
    /// What exactly, such as a port or a feature.
    pub subject: String,
    /// Transition within the episode, from 1.
    pub transition: u32,
    /// The state that it entered.
    pub state: AlertState,
    /// One line: state, product, quantity with unit, threshold.
    pub summary: String,
    /// Facts for the message, label and text in order.
    pub details: Vec<(String, String)>,
    /// The episode that explains this one, when it is held back.
    pub caused_by: Option<String>,
    /// Addresses, fixed when the episode fired so that the resolved goes where the firing went.
    pub targets: Vec<String>,
}

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// Data is older than promised.
    Freshness,
    /// A quality rule blocked a publication.
    Quality,
    /// Features moved away from the training snapshot.
    Drift,
    /// A step failed for good.
    Run,
    /// A commit was denied, held or broken.
    Deploy,
    /// A table was changed by somebody else, and is not put right by itself.
    Table,
    /// A rule denies what is deployed.
    Policy,
    /// A rule stops what is deployed.
    Stopped,
}

impl AlertKind {
    /// Returns the word for it, as facts spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Freshness => "freshness",
            Self::Quality => "quality",
            Self::Drift => "drift",
            Self::Run => "run",
            Self::Deploy => "deploy",
            Self::Table => "table",
            Self::Policy => "policy",
            Self::Stopped => "stopped",
        }
    }
}

/// The state of an alert episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// Someone should know.
    Firing,
    /// An upstream's episode explains it; its owner is not woken twice.
    Held,
    /// Over.
    Resolved,
}

/// Something that someone asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Its id.
    pub id: String,
    /// Who asked.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// What.
    pub verb: Verb,
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// Compute partitions again, from and to inclusive.
    Backfill {
        /// The product.
        product: ProductId,
        /// First partition.
        from: String,
        /// Last partition.
        to: String,
    },
    /// Compute partitions of a product again that are values of a list.
    BackfillValues {
        /// The product.
        product: ProductId,
        /// The values.
        values: Vec<String>,
    },
    /// Run a product's pipelines now, whatever is due.
    Run {
        /// The product.
        product: ProductId,
    },
    /// Try a failed step again.
    Retry {
        /// The product.
        product: ProductId,
    },
    /// Send nothing about a product for a time.
    Silence {
        /// The product.
        product: ProductId,
        /// Until, milliseconds UTC.
        until_ms: i64,
    },
    /// Stop a step under way, and do not begin it again until somebody says so.
    Cancel {
        /// The product.
        product: ProductId,
        /// The run.
        run: String,
    },
    /// Begin nothing of a product.
    Pause {
        /// The product.
        product: ProductId,
        /// Until, milliseconds UTC; until somebody resumes it, without one.
        #[serde(default)]
        until_ms: Option<i64>,
        /// Begin nothing of its backlog alone: what readers wait for goes on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        backfills: bool,
    },
    /// Let a paused product go on.
    Resume {
        /// The product.
        product: ProductId,
    },
}

impl Verb {
    /// Returns the product that it is about.
    #[must_use]
    pub fn product(&self) -> &ProductId {
        match self {
            Self::Backfill { product, .. }
            | Self::BackfillValues { product, .. }
            | Self::Run { product }
            | Self::Retry { product }
            | Self::Cancel { product, .. }
            | Self::Pause { product, .. }
            | Self::Resume { product }
            | Self::Silence { product, .. } => product,
        }
    }
}
