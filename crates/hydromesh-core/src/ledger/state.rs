//! The ledger folded: what is deployed, published, running, drifting, firing. A projection, rebuildable at any time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::base::Base;
use super::earlier;
use super::{
    Alert, AlertKind, AlertState, Alteration, Attempts, Begun, Champion, Command, Decision, Deployed, Entry,
    EpisodeRecord, ErrorKind, Fact, FeatureDrift, FinishedRun, Gone, Inheritance, Kept, KnownKeys,
    LookedAfter, Outcome, Pause, PortState, ProductVerdict, Published, PublishedPartition, QualityRecord,
    Retirement, RuleOutcome, RunOutcome, SeenCommit, StreamState, TakenOver,
};
use crate::diag::codes;
use crate::ids::{PipelineId, PortId, ProductId};
use crate::model::{Bounds, StepLimits};
use crate::plan::{PortPrint, StepKey, Work};
use crate::trust::{Line, Verified};

/// Finished runs, decisions and outcomes kept for show; older ones stay in the ledger.
const KEEP: usize = 500;
/// Publications kept per port for service levels: a year of one every 25 minutes.
const KEEP_PUBLISHES: usize = 20_000;
/// Durations kept per pipeline: enough to show the slowest of a day or a week.
const KEEP_TOOK: usize = 8;
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
    /// The last of them whose rules count: those of the next commit, if nothing else is said of a product.
    pub base: Option<String>,
    /// Products that the gate denies, and whose rules it was that denied them.
    pub bases: BTreeMap<ProductId, Base>,
    /// What the signatures behind the last judged head are worth; nothing where nobody is pinned.
    pub verified: Option<Arc<Verified>>,
    /// From where signatures are judged next.
    pub line: Option<Arc<Line>>,
    /// What became of each product in each commit.
    pub outcomes: VecDeque<(String, Option<ProductId>, Outcome, String)>,
    /// Decisions, oldest first.
    pub decisions: VecDeque<(i64, Arc<Decision>)>,
    /// The newest decision on each action of a product; unlike the list above it forgets none.
    pub newest_decisions: BTreeMap<(ProductId, String), Arc<Decision>>,
    /// The newest decision about exactly what is deployed of each product.
    pub stands: BTreeMap<ProductId, Arc<Decision>>,
    /// Those of them that were made while other labels reached the product.
    pub outdated: BTreeSet<ProductId>,
    /// The newest outcome of each product.
    pub verdicts: BTreeMap<ProductId, ProductVerdict>,
    /// How many steps may run at once.
    pub limits: StepLimits,
    /// What a preview has from its parent; none in any other environment.
    pub inherited: Option<Arc<Inheritance>>,
    /// What runs.
    pub deployed: BTreeMap<ProductId, Arc<Deployed>>,
    /// The last generation of every product, also of those that left the mesh: one that comes back goes on counting,
    /// because tables remember for ever which generation wrote what.
    pub generations: BTreeMap<ProductId, u64>,
    /// What is visible.
    pub ports: BTreeMap<PortId, Arc<PortState>>,
    /// Products that left the mesh, until they come back.
    pub retired: BTreeMap<ProductId, Arc<Retirement>>,
    /// When the table of each pipeline was last looked after.
    pub tended: BTreeMap<PipelineId, i64>,
    /// What was done to the table of each port the last time.
    pub looked_after: BTreeMap<PortId, LookedAfter>,
    /// From where ports keep partitions whose contract says so.
    pub kept: BTreeMap<PortId, Kept>,
    /// Values that were found of ports that are cut by those of a column of an input.
    pub keys: BTreeMap<PortId, Arc<KnownKeys>>,
    /// Tables that are gone and were not made anew.
    pub gone: BTreeMap<PortId, Gone>,
    /// Runs begun and not ended, by run id.
    pub running: BTreeMap<String, StepKey>,
    /// When each of them began, and with which sum of input versions.
    pub begun: BTreeMap<String, Begun>,
    /// What runs under way have taken over from previews so far.
    pub taken_over: BTreeMap<String, TakenOver>,
    /// Finished runs, oldest first.
    pub runs: VecDeque<FinishedRun>,
    /// How long the last steps of each pipeline took that succeeded, milliseconds, oldest first.
    pub took: BTreeMap<PipelineId, VecDeque<i64>>,
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
    /// Nulls that runs under way have measured and not published, by port and partition: the run, and percentages by column.
    pub measured: BTreeMap<(PortId, String), (String, BTreeMap<String, f64>)>,
    /// The latest results of quality rules by port and rule.
    pub quality: BTreeMap<PortId, BTreeMap<String, QualityRecord>>,
}

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

    /// Returns what bounds the steps of a pipeline, as it is deployed.
    #[must_use]
    pub fn bounds_of(&self, pipeline: &PipelineId) -> Option<&Bounds> {
        self.deployed.get(&pipeline.product)?.product.pipelines.get(&pipeline.name)?.bounds()
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
                self.begun.clear();
                self.taken_over.clear();
            }
            Fact::CommitSeen { commit, message, author, .. } => {
                self.base_moves(commit);
                self.head = Some(commit.clone());
                let seen = SeenCommit {
                    commit: commit.clone(),
                    message: message.clone(),
                    author: author.clone(),
                    at_ms,
                    outcome: None,
                    concluded_ms: at_ms,
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
                        self.base_of_outcome(commit, product, *outcome);
                    }
                    None => self.conclude(at_ms, commit, *outcome),
                }
            }
            Fact::Limited { limits } => self.limits = limits.clone(),
            Fact::Verified(verified) => {
                if let Some(line) = verified.line() {
                    self.line = Some(Arc::new(line));
                }
                self.verified = Some(Arc::new(verified.clone()));
            }
            Fact::Decided(decision) => {
                let about = (decision.product.clone(), decision.action.clone());
                let decision = Arc::new(decision.clone());
                self.newest_decisions.insert(about, Arc::clone(&decision));
                // That what runs may go on is said of all products at once, and no news but after a denial.
                let denied = self.standing(&decision.product).is_some_and(|before| !before.allow);
                self.stand(&decision);
                if decision.action != "stand" || !decision.allow || denied {
                    keep(&mut self.decisions, (at_ms, decision), 4 * KEEP);
                }
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
                self.return_of(&id);
                if let Some(before) = self.deployed.insert(id.clone(), Arc::new(deployed)) {
                    self.relabel(&before.product, product);
                }
                self.stand_anew(&id, decision);
                self.know_keys(&id);
                self.take_sides(&id);
                for name in product.outputs.keys() {
                    self.age_by_values(&product.port(name));
                }
            }
            Fact::Inherited { parent, position } => self.inherit(at_ms, parent, *position),
            Fact::Retired { product, commit, decision } => self.retire(at_ms, product, commit, decision),
            Fact::TablesEnding { product, how, decision } => {
                self.begin_ending(at_ms, product, *how, decision);
            }
            Fact::TablesEnded { product, archive, .. } => {
                self.end_tables(at_ms, product, archive.as_deref());
            }
            Fact::RunStarted { run, step, .. } => {
                self.running.insert(run.clone(), step.clone());
                let inputs = self.input_versions(&step.pipeline.product);
                self.begun.insert(run.clone(), Begun { at_ms, inputs });
            }
            Fact::RunFinished { run, step, outcome, took_ms } => {
                self.finish(at_ms, run, step, outcome, *took_ms);
            }
            Fact::Published(published) => self.publish(at_ms, published),
            Fact::Altered { port, partitions, dropped, what } => {
                self.alter(at_ms, port, partitions, *dropped, what);
            }
            Fact::Quality {
                port,
                partition,
                run,
                rule,
                severity,
                passed,
                measure,
                threshold,
                column,
                rows,
                band,
            } => {
                self.note_nulls(port, partition.as_deref(), run, column.as_deref(), *measure, band.as_ref());
                let records = self.quality.entry(port.clone()).or_default();
                let before = records.get(rule).map_or((0, 0), |record| record.counts);
                let bad = RuleOutcome::of(*passed, *measure, band.as_ref()).is_bad();
                let counts = (before.0 + 1, before.1 + u64::from(bad));
                let record = QualityRecord {
                    partition: partition.clone(),
                    severity: *severity,
                    passed: *passed,
                    measure: *measure,
                    threshold: threshold.clone(),
                    run: run.clone(),
                    column: column.clone(),
                    rows: *rows,
                    band: band.clone(),
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
                // A stream never ends well, so that its commits are what says that it goes on.
                let pipeline = &epoch.pipeline;
                self.failed.retain(|step, _| step.pipeline != *pipeline || step.work != Work::Follow);
                let port = self.port_mut(&epoch.port);
                port.version = port.version.max(epoch.version);
                port.rows_version = port.version;
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
            Fact::Expired { port, before } => self.expire(at_ms, port, before),
            Fact::Tended { version, .. } => self.tended(at_ms, &entry.fact, *version),
            Fact::Keys(found) => self.find_keys(at_ms, found),
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
    fn conclude(&mut self, at_ms: i64, commit: &str, outcome: Outcome) {
        let mut newest_first = self.commits.iter_mut().rev();
        // Judged again with the same end, it is what it was.
        if let Some(seen) = newest_first.find(|it| it.commit == commit && it.outcome != Some(outcome)) {
            (seen.outcome, seen.concluded_ms) = (Some(outcome), at_ms);
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
            self.base_concluded(commit);
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
        self.measured.retain(|_, (of, _)| of != run);
        let begun_with = self.begun.remove(run).map(|begun| begun.inputs);
        let by_hand = self.cancels.remove(run);
        let taken = self.taken_over.remove(run);
        match outcome {
            RunOutcome::Succeeded { .. } => {
                self.succeeded += 1;
                self.repaired(step);
                if step.work == Work::Tend {
                    self.tended.insert(step.pipeline.clone(), at_ms);
                } else if !matches!(step.work, Work::Follow | Work::Keys) && taken.is_none() {
                    // What was not computed says nothing of how long computing takes.
                    keep(self.took.entry(step.pipeline.clone()).or_default(), took_ms, KEEP_TOOK);
                }
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
        let (run, step, outcome) = (run.to_owned(), step.clone(), outcome.clone());
        let finished = FinishedRun { run, step, outcome, at_ms, took_ms, taken };
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
        let nulls = self.nulls_of(published);
        if let Some(taken) = published.taken.as_ref().filter(|_| self.running.contains_key(&published.run)) {
            let before = self.taken_over.remove(&published.run);
            self.taken_over.insert(published.run.clone(), TakenOver::add(before, taken));
        }
        if let Some(altered) = self.altered.get_mut(&published.port) {
            altered.remove(&key);
            if altered.is_empty() {
                self.altered.remove(&published.port);
            }
        }
        let is_kept =
            self.kept_from(&published.port).is_none_or(|from| key.is_empty() || key.as_str() >= from);
        let values = self.values_of(&published.port).cloned();
        let port = self.port_mut(&published.port);
        port.version = port.version.max(published.version);
        port.rows_version = port.rows_version.max(rows_version);
        port.published += 1;
        if values.is_none() {
            port.newest_data_ms = port.newest_data_ms.max(published.data_time_ms);
        }
        let partition = PublishedPartition {
            published: published.clone(),
            at_ms,
            forced: false,
            rows_version,
            unsure: false,
            nulls,
        };
        // A step that began before its contract gave the partition up.
        if !is_kept {
            port.partitions.remove(&key);
        } else if let Some(replaced) = port.partitions.insert(key.clone(), Arc::new(partition)) {
            match &values {
                // What was taken off the list while it was computed is judged no more.
                Some(values) if values.index(&key).is_some() => {
                    earlier::keep(port.values_before.entry(key).or_default(), replaced, published);
                }
                None if key.is_empty() => earlier::keep(&mut port.before, replaced, published),
                Some(_) | None => {}
            }
        }
        let mut data_time_ms = published.data_time_ms;
        if values.is_some() {
            // It is as old as its oldest value.
            self.age_by_values(&published.port);
            data_time_ms = self.ports.get(&published.port).and_then(|port| port.newest_data_ms);
        }
        keep(&mut self.port_mut(&published.port).publishes, (at_ms, data_time_ms), KEEP_PUBLISHES);
        self.follow_keys(&published.port);
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

    /// Returns what was found of the signatures behind a commit, when it is the last one that was judged.
    #[must_use]
    pub fn verified(&self, commit: &str) -> Option<&Verified> {
        self.verified.as_deref().filter(|verified| verified.commit == commit)
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
