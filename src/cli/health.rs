//! How each product is, in one word and one sentence: what `list`, `status` and `show` say.

use std::collections::BTreeMap;

use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{Deployed, Ending, ErrorKind, Outcome, Pause, RunOutcome};
use hydromesh_core::model::{PipelineKind, Product, SlaKind, TableEnd};
use hydromesh_core::plan::{DueStep, DueWork, NotDue, Progress, StepKey, Work};
use serde::Serialize;

use super::book::Book;
use super::output::{Tone, counted, instant, length};

/// Attempts after which an external failure counts as lasting, as for alerts.
const GIVEN_UP: u32 = 3;

/// The one word, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// A step failed and will not be tried again by itself.
    Failing,
    /// A rule stops what is deployed.
    Stopped,
    /// Data is older than promised.
    Late,
    /// The last commit was denied, or what is deployed is by now; it goes on.
    Denied,
    /// The last commit does not check; what was deployed before goes on.
    Broken,
    /// The last commit waits for readers or inputs; what was deployed before goes on.
    Held,
    /// Somebody asked that nothing of it begins.
    Paused,
    /// It cannot be computed yet.
    Waiting,
    /// Something is being computed or due.
    Working,
    /// Nothing to do.
    Ok,
    /// It left the mesh.
    Retired,
}

impl Health {
    /// Returns the word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Stopped => "stopped",
            Self::Late => "late",
            Self::Denied => "denied",
            Self::Broken => "broken",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::Working => "working",
            Self::Ok => "ok",
            Self::Retired => "retired",
        }
    }

    /// Returns its colour.
    #[must_use]
    pub fn tone(self) -> Tone {
        match self {
            Self::Failing | Self::Stopped | Self::Late | Self::Denied | Self::Broken => Tone::Bad,
            Self::Held | Self::Paused | Self::Waiting => Tone::Odd,
            Self::Working => Tone::Plain,
            Self::Retired => Tone::Faint,
            Self::Ok => Tone::Good,
        }
    }
}

/// Age of a port's data against its promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// Newest data time, milliseconds UTC; none before the first publication.
    pub through_ms: Option<i64>,
    /// Its age.
    pub age_ms: Option<i64>,
    /// At most so old, if the contract says.
    pub promise_ms: Option<i64>,
}

impl Freshness {
    /// Returns by how much the promise is broken.
    #[must_use]
    pub fn late_ms(&self) -> Option<i64> {
        Some(self.age_ms? - self.promise_ms?).filter(|late| *late > 0)
    }

    /// Returns it in words.
    #[must_use]
    pub fn text(&self) -> (Tone, String) {
        match (self.age_ms, self.promise_ms, self.late_ms()) {
            (_, _, Some(late)) => (Tone::Bad, format!("late by {}", length(late))),
            (Some(age), Some(promise), None) if self.through_ms.is_none() => {
                (Tone::Faint, format!("none yet, {} of {}", length(age), length(promise)))
            }
            (Some(age), Some(promise), None) => {
                (Tone::Good, format!("{} of {}", length(age), length(promise)))
            }
            (Some(age), None, None) => (Tone::Plain, format!("{} old", length(age))),
            (None, ..) => (Tone::Faint, "-".to_owned()),
        }
    }
}

/// A run that ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The run.
    pub run: &'a str,
    /// What it did.
    pub step: &'a StepKey,
    /// How it ended.
    pub outcome: &'a RunOutcome,
    /// When.
    pub at_ms: i64,
    /// Real time it took.
    pub took_ms: i64,
}

/// One product as it is.
#[derive(Debug)]
pub struct Condition<'a> {
    /// The product.
    pub id: ProductId,
    /// What runs, if anything does.
    pub deployed: Option<&'a Deployed>,
    /// The word.
    pub health: Health,
    /// The sentence; empty when all is well.
    pub why: String,
    /// How far its partitions are, where some are to be computed.
    pub progress: Vec<Progress>,
    /// Of its most worrying port.
    pub freshness: Freshness,
    /// The last run that ended.
    pub last_run: Option<Ended<'a>>,
    /// Runs under way.
    pub running: Vec<&'a str>,
}

impl Condition<'_> {
    /// Returns what it is made by, such as `batch` or `stream`.
    #[must_use]
    pub fn kind(&self) -> String {
        self.deployed.map_or_else(|| "-".to_owned(), |deployed| kinds(&deployed.product))
    }

    /// Says how far its partitions are, and how long the rest takes at this pace; nothing when all are there.
    #[must_use]
    pub fn to_compute(&self) -> String {
        let one = |it: &Progress| {
            let rest = it.left_ms.map(|left_ms| format!(", about {} at this pace", length(left_ms)));
            let port = if self.progress.len() > 1 { format!("{}: ", it.port.port) } else { String::new() };
            let of = counted(usize::try_from(it.of).unwrap_or(usize::MAX), "partition");
            let stuck = match it.failed {
                0 => String::new(),
                n => format!("; {n} failed and wait, see `hydromesh why-not {}`", self.id),
            };
            format!("{port}{} of {of}{}{stuck}", it.left, rest.unwrap_or_default())
        };
        self.progress.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

/// Returns the kinds of a product's pipelines.
#[must_use]
pub fn kinds(product: &Product) -> String {
    let kinds: std::collections::BTreeSet<&str> =
        product.pipelines.values().map(|pipeline| kind_name(pipeline.kind())).collect();
    kinds.into_iter().collect::<Vec<_>>().join("+")
}

/// Returns the word for a kind of pipeline.
#[must_use]
pub fn kind_name(kind: PipelineKind) -> &'static str {
    match kind {
        PipelineKind::Batch => "batch",
        PipelineKind::Stream => "stream",
        PipelineKind::Feature => "feature",
        PipelineKind::Embedding => "embedding",
        PipelineKind::Training => "training",
    }
}

/// Returns whether a pipeline follows a topic all the time, so that nobody can ask for a run of it.
#[must_use]
pub fn follows(kind: PipelineKind) -> bool {
    matches!(kind, PipelineKind::Stream | PipelineKind::Feature)
}

/// Returns the condition of every product, by address.
#[must_use]
pub fn survey(book: &Book) -> Vec<Condition<'_>> {
    let mut work = DueWork::default();
    let _ = work.refresh(&book.ledger, book.now_ms);
    let (due, waiting): (Vec<_>, Vec<_>) = (work.steps().cloned().collect(), work.waiting().collect());
    let head = book.ledger.head.as_deref().unwrap_or_default();
    let mut refused: BTreeMap<&ProductId, (Outcome, &str)> = BTreeMap::new();
    for (commit, product, outcome, why) in &book.ledger.outcomes {
        match product {
            Some(product) if commit == head => _ = refused.insert(product, (*outcome, why)),
            _ => {}
        }
    }
    let condition = |id: ProductId| {
        let deployed = book.ledger.deployed.get(&id).map(AsRef::as_ref);
        let freshness = freshness(book, deployed);
        let outcome = refused.get(&id).copied();
        let progress = work.progress(&id, &book.ledger, book.now_ms);
        let (health, why) = judge(book, &id, outcome, &freshness, &due, &waiting);
        let last_run = book.ledger.runs.iter().rev().find(|run| run.step.pipeline.product == id);
        let last_run = last_run.map(|it| Ended {
            run: &it.run,
            step: &it.step,
            outcome: &it.outcome,
            at_ms: it.at_ms,
            took_ms: it.took_ms,
        });
        let running: Vec<&str> = book
            .ledger
            .running
            .iter()
            .filter(|(_, step)| step.pipeline.product == id)
            .map(|(run, _)| run.as_str())
            .collect();
        Condition { id, deployed, health, why, progress, freshness, last_run, running }
    };
    book.products().into_iter().map(condition).collect()
}

fn judge(
    book: &Book,
    id: &ProductId,
    outcome: Option<(Outcome, &str)>,
    freshness: &Freshness,
    due: &[DueStep],
    waiting: &[NotDue],
) -> (Health, String) {
    let failed = book.ledger.failed.iter().filter(|(step, _)| step.pipeline.product == *id);
    let mut lasting = failed.filter(|(_, attempts)| {
        !attempts.is_by_hand() && (attempts.kind == ErrorKind::User || attempts.count >= GIVEN_UP)
    });
    if let Some((step, attempts)) = lasting.next() {
        let more = lasting.count();
        let more = if more == 0 { String::new() } else { format!(" (and {} more)", counted(more, "step")) };
        return (
            Health::Failing,
            format!("{step} failed with {}: {}{more}", attempts.code, attempts.message),
        );
    }
    // It is late because of that before long.
    if let Some(rule) = book.ledger.stopped_by(id) {
        return (Health::Stopped, format!("by the rule {}: {}", rule.rule, rule.message));
    }
    if let (Some(late), Some(promise)) = (freshness.late_ms(), freshness.promise_ms) {
        let why =
            format!("its newest data is {} older than the {} it promises", length(late), length(promise));
        return (Health::Late, why);
    }
    match outcome {
        Some((Outcome::Denied, why)) => return (Health::Denied, why.to_owned()),
        Some((Outcome::Broken, why)) => return (Health::Broken, why.to_owned()),
        Some((Outcome::Held, why)) => return (Health::Held, why.to_owned()),
        _ => {}
    }
    if let Some(rule) = book.ledger.objections(id).first() {
        let why = format!("{} no longer allows what is deployed: {}", rule.rule, rule.message);
        return (Health::Denied, why);
    }
    if let Some(why) = retired_text(book, id) {
        return (Health::Retired, why);
    }
    if let Some(pause) = book.ledger.pause_of(id, book.now_ms) {
        return (Health::Paused, pause_text(pause));
    }
    if let Some(blocked) = waiting.iter().find(|it| it.pipeline.product == *id && it.until_ms.is_none()) {
        return (Health::Waiting, blocked.why.clone());
    }
    // Following a topic is a stream's rest, not its work.
    let working =
        book.ledger.running.values().any(|step| step.pipeline.product == *id && step.work != Work::Follow);
    if working {
        return (Health::Working, "a run is under way".to_owned());
    }
    match due.iter().find(|step| step.key.pipeline.product == *id && step.key.work != Work::Follow) {
        Some(step) => (Health::Working, format!("due: {}", step.reason)),
        None => (Health::Ok, String::new()),
    }
}

/// Says what becomes of the tables of a product that left the mesh, and what holds that up.
#[must_use]
pub fn retired_text(book: &Book, id: &ProductId) -> Option<String> {
    let retired = book.ledger.retired.get(id).filter(|_| !book.ledger.deployed.contains_key(id))?;
    let ends = retired.due().is_some();
    if let Some(pause) = book.ledger.pause_of(id, book.now_ms).filter(|_| ends) {
        return Some(format!("{}; held: {}", retired.text(), pause_text(pause)));
    }
    let decision = book.ledger.newest_decision(id, "drop");
    let denied = decision.filter(|it| ends && !it.allow && it.fingerprint == retired.deployed.print.all);
    Some(match denied.and_then(|it| it.violations.first()) {
        Some(rule) => format!("{}; denied by {}: {}", retired.text(), rule.rule, rule.message),
        None => retired.text(),
    })
}

/// Returns whether a product left for ever: nothing of it is there any more.
#[must_use]
pub fn is_past(book: &Book, id: &ProductId) -> bool {
    let ended = |it: &Ending| it.how == TableEnd::Drop && it.done.is_some();
    !book.ledger.deployed.contains_key(id)
        && book.ledger.retired.get(id).and_then(|it| it.ending.as_ref()).is_some_and(ended)
}

/// Says who paused a product, why and until when.
#[must_use]
pub fn pause_text(pause: &Pause) -> String {
    let until = pause.until_ms.map(|until_ms| format!("; goes on {}", instant(until_ms))).unwrap_or_default();
    format!("{}{until}", pause.text())
}

/// Returns the freshness of the port that is nearest to, or furthest beyond, its promise.
fn freshness(book: &Book, deployed: Option<&Deployed>) -> Freshness {
    let none = Freshness { through_ms: None, age_ms: None, promise_ms: None };
    let Some(deployed) = deployed else { return none };
    let of_port = |(name, output): (&hydromesh_core::ids::PortName, &hydromesh_core::model::OutputPort)| {
        let through_ms =
            book.ledger.ports.get(&deployed.product.port(name)).and_then(|state| state.newest_data_ms);
        let promise_ms = output
            .contract
            .slas
            .iter()
            .filter_map(|sla| match &sla.kind {
                SlaKind::DataAge(most) => Some(most.millis()),
                _ => None,
            })
            .min();
        // A promise runs from the deploy when nothing was published yet.
        let since_ms = through_ms.or_else(|| promise_ms.map(|_| deployed.at_ms));
        Freshness { through_ms, age_ms: since_ms.map(|since| (book.now_ms - since).max(0)), promise_ms }
    };
    let worry = |it: &Freshness| match (it.age_ms, it.promise_ms) {
        (Some(age), Some(promise)) => (1, age - promise),
        (age, _) => (0, age.unwrap_or(-1)),
    };
    deployed.product.outputs.iter().map(of_port).max_by_key(worry).unwrap_or(none)
}

/// Returns how a run ended, in words.
#[must_use]
pub fn ending(outcome: &RunOutcome) -> (Tone, &'static str) {
    match outcome {
        RunOutcome::Succeeded { .. } => (Tone::Good, "succeeded"),
        RunOutcome::Failed { .. } => (Tone::Bad, "failed"),
        RunOutcome::Cancelled => (Tone::Odd, "cancelled"),
    }
}
