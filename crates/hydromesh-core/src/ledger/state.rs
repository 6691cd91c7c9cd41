//! The ledger folded: what is deployed, published, running, drifting, firing. A projection, rebuildable at any time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::failed::stretch;
use super::{
    Alert, AlertKind, AlertState, Command, Decision, Entry, ErrorKind, Fact, FeatureDrift, Outcome,
    Published, RunOutcome, StreamRows, Trained, Verb,
};
use crate::checkpoint::CheckpointRecord;
use crate::diag::codes;
use crate::ids::{PipelineId, PortId, ProductId};
use crate::model::{Product, QualitySeverity};
use crate::plan::{PortPrint, Print, StepKey, Work};
use crate::planted::{self, Bug};

/// Finished runs, decisions and outcomes kept for show; older ones stay in the ledger.
const KEEP: usize = 500;
/// Publications kept per port for service levels: a year of one every 25 minutes.
const KEEP_PUBLISHES: usize = 20_000;
/// Drift results kept per product.
const KEEP_DRIFT: usize = 200;

/// The ledger folded.
///
/// What is large is shared between copies: the shell shows one to its readers after each change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LedgerState {
    /// Last entry folded in.
    pub seq: u64,
    /// Its time, milliseconds UTC.
    pub at_ms: i64,
    /// The last commit seen on the watched reference.
    pub head: Option<String>,
    /// Seen commits, oldest first, with message and author.
    pub commits: VecDeque<SeenCommit>,
    /// The last commit of which every product was decided about: what is refused now was refused in it.
    pub concluded: Option<String>,
    /// What became of each product in each commit.
    pub outcomes: VecDeque<(String, Option<ProductId>, Outcome, String)>,
    /// Decisions, oldest first.
    pub decisions: VecDeque<(i64, Arc<Decision>)>,
    /// The newest decision on each action of a product; unlike the list above it forgets none.
    pub newest_decisions: BTreeMap<(ProductId, String), Arc<Decision>>,
    /// The newest outcome of each product.
    pub verdicts: BTreeMap<ProductId, ProductVerdict>,
    /// What runs.
    pub deployed: BTreeMap<ProductId, Arc<Deployed>>,
    /// The last generation of every product, also of those that left the mesh: one that comes back goes on counting,
    /// because tables remember for ever which generation wrote what.
    pub generations: BTreeMap<ProductId, u64>,
    /// What is visible.
    pub ports: BTreeMap<PortId, Arc<PortState>>,
    /// Runs begun and not ended, by run id.
    pub running: BTreeMap<String, StepKey>,
    /// Sum of input versions of each of them when it began.
    pub begun_with: BTreeMap<String, i64>,
    /// Finished runs, oldest first.
    pub runs: VecDeque<FinishedRun>,
    /// Steps that failed and were not repaired since.
    pub failed: BTreeMap<StepKey, Attempts>,
    /// Number of finished attempts, by end.
    pub succeeded: u64,
    /// Number of failed attempts.
    pub failures: u64,
    /// Streams by pipeline.
    pub streams: BTreeMap<PipelineId, StreamState>,
    /// Drift results by product, oldest first.
    pub drift: BTreeMap<ProductId, VecDeque<(i64, Vec<FeatureDrift>, bool)>>,
    /// Models by product.
    pub models: BTreeMap<ProductId, Champion>,
    /// The newest model of each product about which a promotion was decided.
    pub weighed: BTreeMap<ProductId, u64>,
    /// The last retrain decision by product.
    pub retrain: BTreeMap<ProductId, (i64, String, String)>,
    /// Alert episodes by id.
    pub episodes: BTreeMap<String, EpisodeRecord>,
    /// Episodes that are not over, by what they are about.
    pub open: BTreeMap<(ProductId, AlertKind, String), String>,
    /// Messages not yet accepted: by episode and address, the transitions to tell, in order.
    pub outbox: BTreeMap<(String, String), VecDeque<u32>>,
    /// Outbox ids that were accepted.
    pub sent: BTreeMap<String, i64>,
    /// Commands that nobody answered yet.
    pub pending: BTreeMap<String, Command>,
    /// Answers to commands by id; the mailbox may show an answered one again.
    pub answers: BTreeMap<String, (bool, String)>,
    /// Silenced products, until when.
    pub silenced: BTreeMap<ProductId, i64>,
    /// Runs under way that somebody wants to end: who and why, for people.
    pub cancels: BTreeMap<String, String>,
    /// Paused products. One whose pause is over by time stays here; see [`LedgerState::pause_of`].
    pub paused: BTreeMap<ProductId, Pause>,
    /// Rows set aside, by port.
    pub quarantined: BTreeMap<PortId, (u64, Vec<String>)>,
    /// Partitions that do not show what was published, by port, with what was found; until they are published again.
    pub altered: BTreeMap<PortId, BTreeMap<String, String>>,
    /// The last time that somebody else changed a table, by port.
    pub alterations: BTreeMap<PortId, Alteration>,
    /// The latest results of quality rules by port: rule to (partition, severity, passed, measure, threshold, at).
    pub quality: BTreeMap<PortId, BTreeMap<String, QualityRecord>>,
}

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
    /// Partitions published per run of data fingerprint, for the summary of a commit.
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
}

/// A change of a table by somebody else.
#[derive(Debug, Clone, PartialEq)]
pub struct Alteration {
    /// Its place in the ledger: commits after it carry it in their key, because the keys from before may be in a table
    /// that no longer shows what they stand for.
    pub seq: u64,
    /// When it was found.
    pub at_ms: i64,
    /// What was found, for people.
    pub what: String,
}

impl Attempts {
    /// Returns whether somebody cancelled the last one.
    #[must_use]
    pub fn is_by_hand(&self) -> bool {
        self.code == codes::CANCELLED_BY_HAND.id()
    }
}

/// Nothing of a product begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Its place in the ledger.
    pub seq: u64,
    /// Since when.
    pub at_ms: i64,
    /// Until when, if time ends it.
    pub until_ms: Option<i64>,
    /// Who asked.
    pub actor: String,
    /// Why.
    pub reason: String,
}

impl Pause {
    /// Says who paused it and why.
    #[must_use]
    pub fn text(&self) -> String {
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        format!("paused by {}{reason}", self.actor)
    }
}

/// How a port reads an input.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    state: &'a PortState,
    /// What it reads of the input is defined as when it was planned.
    stands: bool,
    /// A partition rests on that partition of the input alone.
    pub aligned: bool,
}

impl Reading<'_> {
    /// Returns the newest version of the input that matters to a partition.
    #[must_use]
    pub fn newest(&self, key: &str) -> i64 {
        match (self.aligned, self.stands) {
            (true, true) => self.state.partitions.get(key).map_or(0, |it| it.rows_version),
            (true, false) => self.state.partitions.get(key).map_or(0, |it| it.published.version),
            (false, true) => self.state.rows_version,
            (false, false) => self.state.version,
        }
    }
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
    /// When.
    pub at_ms: i64,
    /// Evaluations and failures since ever.
    pub counts: (u64, u64),
}

/// From and to of all partitions, and of none.
const ALL: (&str, &str) = ("", "\u{10ffff}");
const NONE: (&str, &str) = ("1", "0");

fn keep<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    queue.push_back(item);
    while queue.len() > most {
        queue.pop_front();
    }
}

impl LedgerState {
    /// Folds entries in order.
    #[must_use]
    pub fn replay<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut state = Self::default();
        for entry in entries {
            state.apply(entry);
        }
        state
    }

    /// Returns the fingerprints of every deployed port: they stand in for products that do not check.
    #[must_use]
    pub fn port_prints(&self) -> BTreeMap<PortId, PortPrint> {
        let ports = |it: &Arc<Deployed>| -> Vec<(PortId, PortPrint)> {
            it.print.ports.iter().map(|(name, print)| (it.product.port(name), print.clone())).collect()
        };
        self.deployed.values().flat_map(ports).collect()
    }

    /// Folds one entry in.
    pub fn apply(&mut self, entry: &Entry) {
        self.seq = entry.seq;
        self.at_ms = self.at_ms.max(entry.at_ms);
        let at_ms = entry.at_ms;
        match &entry.fact {
            Fact::Opened { .. } => {
                // Whatever the last writer had in flight died with it; its steps are due again.
                for (run, step) in std::mem::take(&mut self.running) {
                    self.doubt(&run, &step);
                }
                self.begun_with.clear();
            }
            Fact::CommitSeen { commit, message, author, .. } => {
                self.head = Some(commit.clone());
                let seen = SeenCommit {
                    commit: commit.clone(),
                    message: message.clone(),
                    author: author.clone(),
                    at_ms,
                    outcome: None,
                };
                keep(&mut self.commits, seen, KEEP);
            }
            Fact::CommitOutcome { commit, product, outcome, why } => {
                keep(&mut self.outcomes, (commit.clone(), product.clone(), *outcome, why.clone()), 4 * KEEP);
                match product {
                    Some(product) => {
                        let digest = Sha256::digest(format!("{outcome:?}\n{why}"));
                        let verdict = ProductVerdict {
                            mark: format!("{digest:.8x}"),
                            commit: commit.clone(),
                            outcome: *outcome,
                            why: why.clone(),
                            at_ms,
                        };
                        self.verdicts.insert(product.clone(), verdict);
                    }
                    None => self.conclude(commit, *outcome),
                }
            }
            Fact::Decided(decision) => {
                let about = (decision.product.clone(), decision.action.clone());
                let decision = Arc::new(decision.clone());
                self.newest_decisions.insert(about, Arc::clone(&decision));
                keep(&mut self.decisions, (at_ms, decision), 4 * KEEP);
            }
            Fact::Deployed { generation, commit, decision, product, print } => {
                let id = product.id.clone();
                self.generations.insert(id.clone(), *generation);
                self.failed.retain(|step, _| step.pipeline.product != id);
                let since_ms = self.deployed.get(&id).map_or(at_ms, |before| before.since_ms);
                let deployed = Deployed {
                    generation: *generation,
                    commit: commit.clone(),
                    decision: decision.clone(),
                    product: (**product).clone(),
                    print: print.clone(),
                    at_ms,
                    since_ms,
                    basis: self.basis(product, print),
                };
                self.deployed.insert(id, Arc::new(deployed));
            }
            Fact::Retired { product, .. } => {
                self.deployed.remove(product);
                self.paused.remove(product);
                self.altered.retain(|port, _| port.product != *product);
                self.failed.retain(|step, _| step.pipeline.product != *product);
            }
            Fact::RunStarted { run, step, .. } => {
                self.running.insert(run.clone(), step.clone());
                self.begun_with.insert(run.clone(), self.input_versions(&step.pipeline.product));
            }
            Fact::RunFinished { run, step, outcome, took_ms } => {
                self.finish(at_ms, run, step, outcome, *took_ms);
            }
            Fact::Published(published) => self.publish(at_ms, published),
            Fact::Altered { port, partitions, dropped, what } => {
                self.alter(at_ms, port, partitions, *dropped, what);
            }
            Fact::Quality { port, partition, rule, severity, passed, measure, threshold, .. } => {
                let records = self.quality.entry(port.clone()).or_default();
                let before = records.get(rule).map_or((0, 0), |record| record.counts);
                let counts = (before.0 + 1, before.1 + u64::from(!passed));
                let record = QualityRecord {
                    partition: partition.clone(),
                    severity: *severity,
                    passed: *passed,
                    measure: *measure,
                    threshold: threshold.clone(),
                    at_ms,
                    counts,
                };
                records.insert(rule.clone(), record);
            }
            Fact::Quarantined { port, rows, reasons, .. } => {
                let entry = self.quarantined.entry(port.clone()).or_default();
                entry.0 += rows;
                entry.1 = reasons.clone();
            }
            Fact::Epoch(epoch) => {
                let before = self.streams.get(&epoch.pipeline).filter(|stream| stream.data == epoch.data);
                let mut rows = before.map(|stream| stream.rows).unwrap_or_default();
                rows.accepted += epoch.rows.accepted;
                rows.corrected += epoch.rows.corrected;
                rows.quarantined += epoch.rows.quarantined;
                rows.dead += epoch.rows.dead;
                let newest = before.and_then(|stream| stream.newest_event_ms).max(epoch.newest_event_ms);
                let stream = StreamState {
                    checkpoint: epoch.checkpoint.clone(),
                    rows,
                    newest_event_ms: newest,
                    data: epoch.data.clone(),
                    at_ms,
                };
                self.streams.insert(epoch.pipeline.clone(), stream);
                self.altered.remove(&epoch.port);
                let port = Arc::make_mut(self.ports.entry(epoch.port.clone()).or_default());
                port.version = port.version.max(epoch.version);
                port.rows_version = port.version;
                // A stream never ends well, so that its commits are what says that it goes on.
                let pipeline = &epoch.pipeline;
                self.failed.retain(|step, _| step.pipeline != *pipeline || step.work != Work::Follow);
                port.newest_data_ms = port.newest_data_ms.max(epoch.newest_event_ms);
                keep(&mut port.publishes, (at_ms, epoch.newest_event_ms), KEEP_PUBLISHES);
            }
            Fact::Drift { product, verdicts, drifted } => {
                let history = self.drift.entry(product.clone()).or_default();
                keep(history, (at_ms, verdicts.clone(), *drifted), KEEP_DRIFT);
            }
            Fact::Retrain { product, decision, reason } => {
                if let Some((_, newest)) = self
                    .models
                    .get(product)
                    .and_then(|it| it.trained.last())
                    .filter(|_| decision == "rejected")
                {
                    self.weighed.insert(product.clone(), newest.version);
                }
                self.retrain.insert(product.clone(), (at_ms, decision.clone(), reason.clone()));
            }
            Fact::Trained(trained) => {
                self.models
                    .entry(trained.product.clone())
                    .or_default()
                    .trained
                    .push((at_ms, trained.clone()));
            }
            Fact::Promoted { product, version, .. } => {
                self.models.entry(product.clone()).or_default().champion = Some((*version, at_ms));
                self.weighed.insert(product.clone(), *version);
            }
            Fact::Alert(alert) => self.alert(at_ms, alert),
            Fact::Sent { outbox, episode, transition, to, .. } => {
                self.sent.insert(outbox.clone(), at_ms);
                let place = (episode.clone(), to.clone());
                if let Some(unsent) = self.outbox.get_mut(&place) {
                    unsent.retain(|it| it != transition);
                    if unsent.is_empty() {
                        self.outbox.remove(&place);
                    }
                }
            }
            Fact::Command(command) => {
                self.pending.insert(command.id.clone(), command.clone());
            }
            Fact::CommandAnswered { id, accepted, answer } => {
                self.answers.insert(id.clone(), (*accepted, answer.clone()));
                if let Some(command) = self.pending.remove(id).filter(|_| *accepted) {
                    self.obey(at_ms, &command);
                }
            }
        }
    }

    /// Takes in what became of a commit as a whole.
    fn conclude(&mut self, commit: &str, outcome: Outcome) {
        if let Some(seen) = self.commits.iter_mut().rev().find(|seen| seen.commit == commit) {
            seen.outcome = Some(outcome);
        }
        if outcome == Outcome::Superseded {
            // The reference is, or will be, elsewhere: what was passed on the way was never the head.
            if self.head.as_deref() == Some(commit) {
                let head = self.commits.iter().rev().find(|seen| seen.outcome != Some(Outcome::Superseded));
                self.head = head.map(|seen| seen.commit.clone());
            }
            return;
        }
        // A mesh that does not load at all, or that would retire everything, decides nothing about any product.
        if outcome == Outcome::Applied || self.verdicts.values().any(|verdict| verdict.commit == commit) {
            self.concluded = Some(commit.to_owned());
        }
    }

    fn alert(&mut self, at_ms: i64, alert: &Alert) {
        let about = (alert.product.clone(), alert.kind, alert.subject.clone());
        let record = self
            .episodes
            .entry(alert.episode.clone())
            .or_insert_with(|| EpisodeRecord { transitions: Vec::new() });
        record.transitions.push((at_ms, alert.clone()));
        let fired = record.transitions.iter().any(|(_, alert)| alert.state == AlertState::Firing);
        if alert.state == AlertState::Resolved {
            self.open.remove(&about);
        } else {
            self.open.insert(about, alert.episode.clone());
        }
        // What was held back all the time was never told, so its end is not told either.
        if fired && alert.state != AlertState::Held {
            for to in &alert.targets {
                let place = (alert.episode.clone(), to.clone());
                self.outbox.entry(place).or_default().push_back(alert.transition);
            }
        }
    }

    fn finish(&mut self, at_ms: i64, run: &str, step: &StepKey, outcome: &RunOutcome, took_ms: i64) {
        self.running.remove(run);
        let begun_with = self.begun_with.remove(run);
        let by_hand = self.cancels.remove(run);
        match outcome {
            RunOutcome::Succeeded { .. } => {
                self.succeeded += 1;
                self.repaired(step);
            }
            RunOutcome::Failed { kind, code, message } => {
                self.failures += 1;
                self.failed_again(at_ms, step, (*kind, code, message), begun_with);
                // A commit whose answer was lost, or whose process is gone, is there and nobody told of it.
                if *kind != ErrorKind::User {
                    self.doubt(run, step);
                }
            }
            // Nobody waited for what its process said last.
            RunOutcome::Cancelled => {
                if let Some(who) = by_hand {
                    let why = (ErrorKind::User, codes::CANCELLED_BY_HAND.id(), who.as_str());
                    self.failed_again(at_ms, step, why, begun_with);
                }
                self.doubt(run, step);
            }
        }
        let finished =
            FinishedRun { run: run.to_owned(), step: step.clone(), outcome: outcome.clone(), at_ms, took_ms };
        keep(&mut self.runs, finished, 4 * KEEP);
    }

    /// Counts an attempt that does not follow by itself, or not at once: whose fault it was, a code and a message.
    fn failed_again(
        &mut self,
        at_ms: i64,
        step: &StepKey,
        (kind, code, message): (ErrorKind, &str, &str),
        begun_with: Option<i64>,
    ) {
        let product = &step.pipeline.product;
        let generation = self.deployed.get(product).map_or(0, |deployed| deployed.generation);
        // A rest that failed again after the step went through in part is another step: it made progress.
        let before = self.failed.get(step).filter(|before| before.generation == generation);
        let attempts = Attempts {
            count: before.map_or(0, |before| before.count) + 1,
            at_ms,
            kind,
            code: code.to_owned(),
            message: message.to_owned(),
            generation,
            inputs: begun_with.unwrap_or_else(|| self.input_versions(product)),
        };
        self.repaired(step);
        self.failed.insert(step.clone(), attempts);
    }

    fn publish(&mut self, at_ms: i64, published: &Published) {
        let key = published.partition.clone().unwrap_or_default();
        let before = self.ports.get(&published.port).and_then(|port| port.partitions.get(&key));
        let same_rows = before.is_some_and(|before| {
            !before.forced
                && before.published.inputs.len() == published.inputs.len()
                && before.published.inputs.iter().all(|(input, version)| {
                    published.inputs.contains_key(input)
                        && !self.newer(&published.port, input, *version, &key)
                })
        });
        // The same inputs through another definition: who reads what changed has another fingerprint itself.
        let rows_version = before.map_or(published.version, |before| {
            let same = same_rows || before.published.version == published.version;
            if same { before.rows_version } else { published.version }
        });
        let port = Arc::make_mut(self.ports.entry(published.port.clone()).or_default());
        port.version = port.version.max(published.version);
        port.rows_version = port.rows_version.max(rows_version);
        port.published += 1;
        port.newest_data_ms = port.newest_data_ms.max(published.data_time_ms);
        let partition = PublishedPartition {
            published: published.clone(),
            at_ms,
            forced: false,
            rows_version,
            unsure: false,
        };
        if let Some(altered) = self.altered.get_mut(&published.port) {
            altered.remove(&key);
            if altered.is_empty() {
                self.altered.remove(&published.port);
            }
        }
        port.partitions.insert(key, Arc::new(partition));
        keep(&mut port.publishes, (at_ms, published.data_time_ms), KEEP_PUBLISHES);
    }

    /// Takes in that a table no longer shows what was published.
    ///
    /// What was published stays known: once it is published again from the same inputs, readers have nothing new to see.
    fn alter(&mut self, at_ms: i64, port: &PortId, partitions: &[String], dropped: bool, what: &str) {
        let alteration = Alteration { seq: self.seq, at_ms, what: what.to_owned() };
        self.alterations.insert(port.clone(), alteration);
        if planted::is(Bug::AlterationIgnored) {
            return;
        }
        let known = self.ports.get(port).into_iter().flat_map(|state| state.partitions.keys());
        let lost: Vec<&String> = if dropped { known.collect() } else { partitions.iter().collect() };
        if !lost.is_empty() {
            let altered = self.altered.entry(port.clone()).or_default();
            altered.extend(lost.into_iter().map(|key| (key.clone(), what.to_owned())));
        }
        if let Some(deployed) = self.deployed.get(&port.product).filter(|_| dropped) {
            // A stream whose table is gone begins again with its topic.
            let fills = |id: &PipelineId| {
                let pipeline = deployed.product.pipelines.get(&id.name);
                id.product == port.product && pipeline.is_some_and(|it| *it.output() == port.port)
            };
            let before = self.streams.len();
            self.streams.retain(|id, _| !fills(id));
            if self.streams.len() < before {
                // Until its first epoch.
                self.altered.entry(port.clone()).or_default().insert(String::new(), what.to_owned());
            }
        }
        self.failed.retain(|step, _| step.pipeline.product != port.product);
    }

    /// Returns the place in the ledger of the last change of a table by somebody else; 0 when there was none.
    #[must_use]
    pub fn altered_at(&self, port: &PortId) -> u64 {
        self.alterations.get(port).map_or(0, |alteration| alteration.seq)
    }

    /// Marks what an interrupted run may have published without a fact.
    fn doubt(&mut self, run: &str, step: &StepKey) {
        if planted::is(Bug::NoDoubt) {
            return;
        }
        let (from, to) = match &step.work {
            Work::Partitions { from, to } => (from.as_str(), to.as_str()),
            Work::Whole | Work::Embed | Work::Train => ALL,
            // A stream's commits tell themselves where to go on.
            Work::Follow | Work::Drift => NONE,
        };
        let Some(deployed) = self.deployed.get(&step.pipeline.product) else {
            return self.doubt_product(&step.pipeline.product);
        };
        let Some(pipeline) = deployed.product.pipelines.get(&step.pipeline.name) else {
            return self.doubt_product(&step.pipeline.product);
        };
        let port = deployed.product.port(pipeline.output());
        let Some(state) = self.ports.get_mut(&port) else { return };
        for partition in stretch(&mut Arc::make_mut(state).partitions, from, to) {
            partition.unsure |= partition.published.run != run;
        }
    }

    /// The definition that an interrupted run worked for is gone, and with it what it wrote.
    fn doubt_product(&mut self, product: &ProductId) {
        let ports = self.ports.iter_mut().filter(|(port, _)| port.product == *product);
        for partition in ports.flat_map(|(_, state)| Arc::make_mut(state).partitions.values_mut()) {
            Arc::make_mut(partition).unsure = true;
        }
    }

    /// Returns whether an input has rows that a partition of a port, made from a version of it, has not seen.
    #[must_use]
    pub fn newer(&self, port: &PortId, input: &PortId, version: i64, key: &str) -> bool {
        self.reading(port, input).is_some_and(|reading| reading.newest(key) > version)
    }

    /// Returns how a port reads an input, if both are there: the same for all of its partitions.
    #[must_use]
    pub fn reading(&self, port: &PortId, input: &PortId) -> Option<Reading<'_>> {
        let (deployed, state) = (self.deployed.get(&port.product)?, self.ports.get(input)?);
        // Without the definition that it was planned over, any new version may matter.
        let stands = deployed.basis.get(input) == self.basis_of(input, &deployed.print).as_ref();
        let aligned = deployed.print.aligned.contains(&(port.port.clone(), input.clone()));
        Some(Reading { state, stands, aligned })
    }

    fn basis(&self, product: &Product, print: &Print) -> BTreeMap<PortId, String> {
        let ports: BTreeSet<&PortId> = product.reads().chain(print.reads.keys()).collect();
        ports.into_iter().filter_map(|port| Some((port.clone(), self.basis_of(port, print)?))).collect()
    }

    /// Returns the fingerprint of what a definition reads of a port, as the port is deployed.
    fn basis_of(&self, port: &PortId, print: &Print) -> Option<String> {
        let deployed = self.deployed.get(&port.product)?.print.ports.get(&port.port)?;
        let mut text = deployed.rows.clone();
        for column in print.reads.get(port).into_iter().flatten() {
            text.push(' ');
            text.push_str(deployed.columns.get(column).map_or("?", String::as_str));
        }
        Some(text)
    }

    fn obey(&mut self, at_ms: i64, command: &Command) {
        match &command.verb {
            Verb::Backfill { product, from, to } => self.force(product, from, to),
            Verb::Run { product } => self.force(product, ALL.0, ALL.1),
            Verb::Retry { product } => self.failed.retain(|step, _| step.pipeline.product != *product),
            Verb::Silence { product, until_ms } => {
                self.silenced.insert(product.clone(), *until_ms);
            }
            Verb::Cancel { run, .. } => {
                let reason =
                    if command.reason.is_empty() { String::new() } else { format!(": {}", command.reason) };
                self.cancels.insert(run.clone(), format!("cancelled by {}{reason}", command.actor));
            }
            Verb::Pause { product, until_ms } => {
                let Command { actor, reason, .. } = command.clone();
                let pause = Pause { seq: self.seq, at_ms, until_ms: *until_ms, actor, reason };
                self.paused.insert(product.clone(), pause);
            }
            Verb::Resume { product } => _ = self.paused.remove(product),
        }
    }

    /// Returns the pause that a product is in at an instant.
    #[must_use]
    pub fn pause_of(&self, product: &ProductId, now_ms: i64) -> Option<&Pause> {
        self.paused.get(product).filter(|pause| pause.until_ms.is_none_or(|until_ms| now_ms < until_ms))
    }

    fn force(&mut self, product: &ProductId, from: &str, to: &str) {
        for (_, state) in self.ports.iter_mut().filter(|(port, _)| port.product == *product) {
            for partition in stretch(&mut Arc::make_mut(state).partitions, from, to) {
                partition.forced = true;
            }
        }
        self.failed.retain(|step, _| step.pipeline.product != *product);
    }

    /// Returns the sum of the versions of a product's inputs: it moves when any of them does.
    #[must_use]
    pub fn input_versions(&self, product: &ProductId) -> i64 {
        let Some(deployed) = self.deployed.get(product) else { return 0 };
        let ports: BTreeSet<&PortId> = deployed.product.reads().collect();
        ports.into_iter().filter_map(|port| self.ports.get(port)).map(|port| port.version + 1).sum()
    }

    /// Returns the newest decision about an action on a product's fingerprint under these policies.
    #[must_use]
    pub fn decision(
        &self,
        product: &ProductId,
        action: &str,
        fingerprint: &str,
        policy: &str,
    ) -> Option<&Decision> {
        let newest = self.newest_decisions.get(&(product.clone(), action.to_owned()));
        let found =
            newest.into_iter().chain(self.decisions.iter().rev().map(|(_, it)| it)).find(|decision| {
                decision.product == *product
                    && decision.action == action
                    && decision.fingerprint == fingerprint
                    && decision.policy_digest == policy
            });
        found.map(Arc::as_ref)
    }

    /// Returns what became of a commit as a whole, the last time that the reference was there.
    #[must_use]
    pub fn outcome(&self, commit: &str) -> Option<Outcome> {
        self.commits.iter().rev().find(|seen| seen.commit == commit).and_then(|seen| seen.outcome)
    }

    /// Returns the newest decision on an action of a product, whatever it covered.
    #[must_use]
    pub fn newest_decision(&self, product: &ProductId, action: &str) -> Option<&Decision> {
        self.newest_decisions.get(&(product.clone(), action.to_owned())).map(Arc::as_ref)
    }
}
