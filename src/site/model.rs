//! What the site is made of: plain, ordered data.
//!
//! The site knows nothing of stores, lakes or engines. Whoever calls [`build`](super::build) has already judged the
//! ledger and writes the verdicts down here; the site only arranges them. Two things are deliberately absent because
//! they follow from what is here: the neighbours of a product (from [`SiteModel::lineage`]) and the alerts of a product
//! (from [`SiteModel::incidents`]).
//!
//! Conventions: every instant is UTC; every ratio is a fraction (0.995, not 99.5); products are addressed
//! `domain/product`, ports `domain/product.port`, columns `domain/product.port#column`. Text fields may hold anything:
//! they are escaped where they are written, and addresses become links only if they are `https:` or `mailto:`.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

/// One environment of one mesh at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteModel {
    /// Name of the mesh as people say it.
    pub title: String,
    /// Environment the facts are about, such as `dev` or `prod`.
    pub environment: String,
    /// Full SHA of the commit that is applied (or was last looked at).
    pub commit: String,
    /// `https:` address of the repository, for links; shown as text otherwise.
    #[serde(default)]
    pub repository: Option<String>,
    /// When the facts were read. The only clock the site knows.
    pub generated_at: DateTime<Utc>,
    /// When the next build is due; readers see a page older than that as stale.
    #[serde(default)]
    pub next_build: Option<DateTime<Utc>>,
    /// Version of the program that judged the objectives.
    pub evaluator_version: String,
    /// `https:` address the site is served at, used only where a format demands absolute links (the feed).
    #[serde(default)]
    pub base_url: Option<String>,
    /// Address of the HTTP API, used in the "how to consume" examples.
    #[serde(default)]
    pub api_base: Option<String>,
    /// Domains, in any order; pages sort worst first.
    pub domains: Vec<Domain>,
    /// Products, in any order; pages sort worst first.
    pub products: Vec<Product>,
    /// Who reads whom.
    #[serde(default)]
    pub lineage: Lineage,
    /// Alert episodes, open and past, in any order; pages show open first, then newest first.
    #[serde(default)]
    pub incidents: Vec<Episode>,
    /// Rules of the gate.
    #[serde(default)]
    pub policies: Vec<PolicyRule>,
    /// Exceptions to rules that are in force or expired lately.
    #[serde(default)]
    pub waivers: Vec<Waiver>,
    /// Commits and what became of them, newest first (the page keeps that order).
    #[serde(default)]
    pub changes: Vec<Change>,
}

/// A domain: a folder with an owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Name as in addresses, such as `commerce`.
    pub name: String,
    /// Name as people say it.
    pub title: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub owners: Vec<Contact>,
    /// Who is called: free text or an address.
    #[serde(default)]
    pub on_call: Option<String>,
}

/// A person or a team.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contact {
    pub name: String,
    /// `mailto:` or `https:` address, or a bare mail address; anything else stays text.
    #[serde(default)]
    pub address: Option<String>,
}

/// What a product is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Source,
    Batch,
    Stream,
    Feature,
    Embedding,
    Training,
}

/// The one word a product is summed up in.
///
/// The order is the order of worry: what hurts a reader of the data comes before what only holds up its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// An objective is broken now.
    Breaching,
    /// Objectives hold, but something is wrong: a warning failed, a budget burns fast.
    Degraded,
    /// Nobody can say: facts are missing.
    Unknown,
    /// The last commit was refused by policy; the last allowed version serves.
    Denied,
    /// The last commit waits (for readers, for a fix); the last good version serves.
    Held,
    Healthy,
}

/// Whether what runs is what the commit says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Sync {
    InSync { commit: String },
    Held { commit: String, reason: String },
    Denied { commit: String, rule: String, reason: String },
    Broken { commit: String, reason: String },
    Pending { commit: String },
}

/// A data product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// `domain/product`.
    pub id: String,
    pub title: String,
    /// Name of the [`Domain`].
    pub domain: String,
    pub kinds: Vec<Kind>,
    /// 1 is the tier whose owner is woken at night.
    #[serde(default)]
    pub tier: Option<u8>,
    #[serde(default)]
    pub owners: Vec<Contact>,
    #[serde(default)]
    pub on_call: Option<String>,
    /// Address of the runbook; a link only if `https:`.
    #[serde(default)]
    pub runbook: Option<String>,
    #[serde(default)]
    pub description: String,
    pub status: Status,
    /// One sentence on why the status is what it is; empty when healthy.
    #[serde(default)]
    pub status_reason: String,
    pub sync: Sync,
    /// When the running version was deployed.
    #[serde(default)]
    pub deployed_at: Option<DateTime<Utc>>,
    /// The commit that the running version came from; that of [`Self::sync`] may be a later one that is not let in.
    #[serde(default)]
    pub deployed_commit: Option<String>,
    /// Data time (not run time) up to which data is available.
    #[serde(default)]
    pub data_through: Option<DateTime<Utc>>,
    /// When the next data is promised.
    #[serde(default)]
    pub next_expected: Option<DateTime<Utc>>,
    #[serde(default)]
    pub ports: Vec<Port>,
    #[serde(default)]
    pub objectives: Vec<Objective>,
    #[serde(default)]
    pub quality: Vec<QualityResult>,
    /// Newest first; the page shows 20.
    #[serde(default)]
    pub runs: Vec<Run>,
    /// Newest first; the page shows 10.
    #[serde(default)]
    pub decisions: Vec<Decision>,
    #[serde(default)]
    pub drift: Vec<FeatureDrift>,
    #[serde(default)]
    pub model: Option<ModelCard>,
    /// One row as a lookup would answer it.
    #[serde(default)]
    pub sample: Option<FeatureSample>,
}

/// An output port and its contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Port {
    pub name: String,
    /// `delta`, `iceberg`, `topic`, `model`, ...
    pub format: String,
    /// Where the table lies: a path or an object address, as a reader would type it.
    pub location: String,
    /// Name of the table in `hydromesh query`.
    pub query_name: String,
    #[serde(default)]
    pub description: String,
    /// Rows in the published version.
    #[serde(default)]
    pub rows: Option<u64>,
    /// Version or snapshot id of the table, as text because formats number differently.
    #[serde(default)]
    pub version: Option<String>,
    pub contract_version: String,
    /// Ways to read beyond the table.
    #[serde(default)]
    pub access: Vec<Access>,
    #[serde(default)]
    pub columns: Vec<Column>,
    /// Promises of the contract that nobody measures, as written: name and value.
    #[serde(default)]
    pub terms: Vec<(String, String)>,
}

/// A way to read a port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Access {
    Table,
    Topic {
        topic: String,
    },
    /// By key over HTTP.
    Lookup {
        key: String,
    },
    /// By meaning over HTTP, on this text column.
    Search {
        text: String,
    },
}

/// A column as its contract promises it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// Logical type.
    #[serde(rename = "type")]
    pub logical_type: String,
    pub required: bool,
    /// Such as `pii` or `internal`.
    #[serde(default)]
    pub classification: Option<String>,
    #[serde(default)]
    pub description: String,
}

/// What an objective measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveKind {
    DataAge,
    Deadline,
    Heartbeat,
    StreamLag,
    Completeness,
    Quality,
    Availability,
    Latency,
    Drift,
    Coverage,
    ModelAge,
}

/// A promise with a number, and how it was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// Unique within the product, such as `freshness`.
    pub id: String,
    pub kind: ObjectiveKind,
    /// The promise in words: "data is at most 26 h old".
    pub promise: String,
    /// Fraction of the window in which the promise must hold.
    pub target: f64,
    /// Length of the window in days.
    pub window_days: u32,
    /// The state at the moment of the build.
    pub status: Status,
    /// The measured value in words, with its unit: "3 h 12 min old".
    pub current: String,
    /// Least and greatest fraction the indicator can be, given what is unknown. Absent while too little is known.
    #[serde(default)]
    pub sli_low: Option<f64>,
    #[serde(default)]
    pub sli_high: Option<f64>,
    /// When the facts begin, if that is within the window: the indicator speaks of the time since.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    /// Fraction of the error budget left: 1 untouched, 0 used up, negative overspent.
    #[serde(default)]
    pub budget_remaining: Option<f64>,
    /// Oldest first; the last 90 are shown.
    #[serde(default)]
    pub days: Vec<Day>,
    /// Intervals in which the promise was broken, newest first; the page shows 20.
    #[serde(default)]
    pub bad_intervals: Vec<BadInterval>,
}

/// One day of one objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Day {
    pub date: NaiveDate,
    pub state: DayState,
    /// What happened, for days that are not good.
    #[serde(default)]
    pub note: String,
}

/// How a day went. The order is the order of worry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DayState {
    Bad,
    Degraded,
    Unknown,
    Good,
    /// Outside the objective's valid time: maintenance, or before the product existed.
    Excluded,
}

/// Half-open interval in which a promise was broken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BadInterval {
    pub from: DateTime<Utc>,
    /// Absent while it lasts.
    #[serde(default)]
    pub to: Option<DateTime<Utc>>,
    #[serde(default)]
    pub cause: String,
    /// Product the minutes are attributed to, if not this one.
    #[serde(default)]
    pub attributed_to: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
    Info,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QualityOutcome {
    Fail,
    NotRun,
    /// What is usual is not known yet.
    Unknown,
    Pass,
}

/// Outcome of one rule of a contract at its last execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QualityResult {
    /// Name or text of the rule.
    pub check: String,
    pub port: String,
    #[serde(default)]
    pub column: Option<String>,
    pub severity: Severity,
    pub outcome: QualityOutcome,
    /// Measured value with its unit: "0 of 1,204 rows".
    #[serde(default)]
    pub observed: String,
    #[serde(default)]
    pub expected: String,
    #[serde(default)]
    pub partition: Option<String>,
    #[serde(default)]
    pub at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    Succeeded,
    Failed,
    Running,
    Queued,
    Cancelled,
}

/// One run of one pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub id: String,
    pub pipeline: String,
    /// What made it due: `schedule`, `backfill`, `drift`, an actor.
    pub trigger: String,
    #[serde(default)]
    pub partition: Option<String>,
    pub outcome: RunOutcome,
    /// Absent while it runs: only the end is timed.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub ended_at: Option<DateTime<Utc>>,
    /// Rows published.
    #[serde(default)]
    pub rows: Option<u64>,
    /// One line, already free of secrets.
    #[serde(default)]
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allow,
    Deny,
}

/// One answer of the gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub at: DateTime<Utc>,
    /// `deploy`, `promote`, `retire`, ...
    pub action: String,
    pub verdict: Verdict,
    /// Rules that denied or warned.
    #[serde(default)]
    pub rules: Vec<RuleHit>,
    /// Hash of the input the decision can be replayed from.
    pub input_hash: String,
    #[serde(default)]
    pub commit: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleHit {
    pub rule: String,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftVerdict {
    Drifted,
    Watch,
    /// Too few rows to say.
    Insufficient,
    Stable,
}

/// Drift of one feature against its reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureDrift {
    pub feature: String,
    /// Name of the statistic, such as `KS` or `PSI`.
    pub statistic_name: String,
    pub statistic: f64,
    #[serde(default)]
    pub p_value: Option<f64>,
    /// Size of the effect in the feature's own unit or standardised; say which in [`Self::effect_unit`].
    #[serde(default)]
    pub effect: Option<f64>,
    #[serde(default)]
    pub effect_unit: String,
    pub verdict: DriftVerdict,
    /// Level at which the statistic counts as drift.
    #[serde(default)]
    pub threshold: Option<f64>,
    /// Rows in the current window.
    #[serde(default)]
    pub sample_size: Option<u64>,
    #[serde(default)]
    pub tested_at: Option<DateTime<Utc>>,
    /// Oldest first; the last 60 are drawn.
    #[serde(default)]
    pub history: Vec<DriftPoint>,
    /// Shares per bin; each side sums to about 1.
    #[serde(default)]
    pub histogram: Vec<HistogramBin>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftPoint {
    pub at: DateTime<Utc>,
    pub statistic: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistogramBin {
    pub label: String,
    pub reference: f64,
    pub current: f64,
}

/// A model: who is champion and how it came to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    pub name: String,
    #[serde(default)]
    pub champion: Option<ModelVersion>,
    /// The rule of promotion in words.
    #[serde(default)]
    pub gate: String,
    /// Newest first; the page shows 20.
    #[serde(default)]
    pub history: Vec<ModelEvent>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelVersion {
    pub version: String,
    pub trained_at: DateTime<Utc>,
    #[serde(default)]
    pub algorithm: String,
    #[serde(default)]
    pub training_rows: Option<u64>,
    /// Held-out metrics by name.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// Port to version of what it was trained on.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelOutcome {
    Promoted,
    Rejected,
    Failed,
    Retired,
}

/// A challenger and its fate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelEvent {
    pub at: DateTime<Utc>,
    pub version: String,
    pub outcome: ModelOutcome,
    /// Name of the compared metric and both values on the same held-out rows.
    #[serde(default)]
    pub metric: String,
    #[serde(default)]
    pub challenger: Option<f64>,
    #[serde(default)]
    pub champion: Option<f64>,
    /// Why it was trained or decided so.
    #[serde(default)]
    pub reason: String,
}

/// The answer of one lookup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureSample {
    /// Key column and value.
    pub entity: String,
    pub key: String,
    pub as_of: DateTime<Utc>,
    pub values: Vec<SampleValue>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleValue {
    pub name: String,
    /// Rendered; "null" if null.
    pub value: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub as_of: Option<DateTime<Utc>>,
}

/// Edges of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    pub products: Vec<ProductEdge>,
    #[serde(default)]
    pub columns: Vec<ColumnEdge>,
}

/// `to` reads `from`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProductEdge {
    pub from: String,
    pub to: String,
    /// Output ports of `from` that are read.
    #[serde(default)]
    pub ports: Vec<String>,
}

/// Value of column `to` depends on column `from`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ColumnEdge {
    /// `domain/product.port#column`.
    pub from: String,
    pub to: String,
    pub influence: Influence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Influence {
    /// The value goes in.
    Direct,
    /// The value only decides which rows are there (filter, join, grouping).
    FilterOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpisodeState {
    Firing,
    Acknowledged,
    /// Explained by an episode upstream, which is the one that somebody is told of.
    Held,
    Resolved,
}

impl EpisodeState {
    /// Returns whether somebody should care now.
    #[must_use]
    pub fn is_loud(self) -> bool {
        matches!(self, Self::Firing | Self::Acknowledged)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertLevel {
    Page,
    Ticket,
    Notice,
}

/// One alert from its first firing to its resolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Stable over builds: feeds and links depend on it.
    pub id: String,
    /// `freshness`, `drift`, `quality`, ...
    pub kind: String,
    pub level: AlertLevel,
    pub title: String,
    /// Root cause in the lineage.
    pub product: String,
    #[serde(default)]
    pub objective: Option<String>,
    pub state: EpisodeState,
    pub started_at: DateTime<Utc>,
    #[serde(default)]
    pub resolved_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub cause: String,
    /// Products downstream that feel it, as it was when it fired.
    #[serde(default)]
    pub blast_radius: Vec<String>,
    /// Oldest first.
    #[serde(default)]
    pub transitions: Vec<Transition>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    pub at: DateTime<Utc>,
    pub state: EpisodeState,
    #[serde(default)]
    pub note: String,
    /// Channels that were told.
    #[serde(default)]
    pub told: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleEffect {
    Deny,
    Warn,
}

/// A rule of the gate and what it decided within [`Self::window_days`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyRule {
    pub id: String,
    pub title: String,
    #[serde(default)]
    pub description: String,
    pub effect: RuleEffect,
    /// Where it comes from: `central`, or the path in the repository.
    pub source: String,
    #[serde(default)]
    pub owner: String,
    pub window_days: u32,
    /// Decisions in which the rule had nothing to say.
    pub passed: u64,
    pub warned: u64,
    pub denied: u64,
    #[serde(default)]
    pub last_denial: Option<Denial>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Denial {
    pub at: DateTime<Utc>,
    pub product: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiver {
    pub rule: String,
    /// Product or domain it is for.
    pub scope: String,
    pub reason: String,
    pub approved_by: String,
    pub expires_at: DateTime<Utc>,
}

/// A commit and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub commit: String,
    /// Whole message; pages show the first line.
    pub message: String,
    pub author: String,
    pub at: DateTime<Utc>,
    /// `https:` address of the pull request or commit.
    #[serde(default)]
    pub url: Option<String>,
    /// What became of the commit as a whole; absent while that is being decided.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// Why, when no product says it better.
    #[serde(default)]
    pub reason: String,
    pub outcomes: Vec<ChangeOutcome>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeOutcome {
    pub product: String,
    pub outcome: Outcome,
    #[serde(default)]
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Applied,
    Denied,
    Held,
    Broken,
    Superseded,
    Removed,
}
