//! How each product is: the words of `core::condition` with their sentences, and the worst of them as one word.

use hydromesh_core::condition::{self, Age, Sync, Trouble};
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{Deployed, Ending, Pause, RunOutcome};
use hydromesh_core::model::{PipelineKind, Product, TableEnd};
use hydromesh_core::plan::{DueStep, DueWork, NotDue, Progress, StepKey, Work};
use serde::Serialize;

use super::book::Book;
use super::output::{Tone, counted, instant, length};

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
    /// Nothing of it runs; never the one word of both axes.
    Missing,
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
            Self::Missing => "missing",
        }
    }

    /// Returns its colour.
    #[must_use]
    pub fn tone(self) -> Tone {
        match self {
            Self::Failing | Self::Stopped | Self::Late | Self::Denied | Self::Broken => Tone::Bad,
            Self::Held | Self::Paused | Self::Waiting => Tone::Odd,
            Self::Working => Tone::Plain,
            Self::Retired | Self::Missing => Tone::Faint,
            Self::Ok => Tone::Good,
        }
    }
}

/// Returns the colour of a word.
#[must_use]
pub fn sync_tone(sync: Sync) -> Tone {
    match sync {
        Sync::Denied | Sync::Broken => Tone::Bad,
        Sync::Held | Sync::Altered => Tone::Odd,
        Sync::Waiting => Tone::Plain,
        Sync::Retired => Tone::Faint,
        Sync::Synced => Tone::Good,
    }
}

/// Returns an age in words.
#[must_use]
pub fn age_text(age: &Age) -> (Tone, String) {
    match (age.age_ms, age.promise_ms, age.late_ms()) {
        (_, _, Some(late)) => (Tone::Bad, format!("late by {}", length(late))),
        (Some(old), Some(promise), None) if age.through_ms.is_none() => {
            (Tone::Faint, format!("none yet, {} of {}", length(old), length(promise)))
        }
        // Its history is being read.
        (Some(old), Some(promise), None) if old > promise => {
            (Tone::Faint, format!("new, {} of {}", length(old), length(promise)))
        }
        (Some(old), Some(promise), None) => (Tone::Good, format!("{} of {}", length(old), length(promise))),
        (Some(old), None, None) => (Tone::Plain, format!("{} old", length(old))),
        (None, ..) => (Tone::Faint, "-".to_owned()),
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
    /// The one word of both axes, the worst.
    pub health: Health,
    /// The sentence; empty when all is well.
    pub why: String,
    /// Whether what runs is what the commit says.
    pub sync: Sync,
    /// Why not.
    pub sync_why: String,
    /// Whether it does what it promises, whatever the commit says.
    pub fit: Health,
    /// Why not.
    pub fit_why: String,
    /// Somebody asked that nothing of it begins, whatever else is wrong.
    pub pause: Option<&'a Pause>,
    /// How far its partitions are, where some are to be computed.
    pub progress: Vec<Progress>,
    /// Of its most worrying port.
    pub freshness: Age,
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

/// Returns the condition of every product, by address.
#[must_use]
pub fn survey(book: &Book) -> Vec<Condition<'_>> {
    let mut work = DueWork::default();
    let _ = work.refresh(&book.ledger, book.now_ms);
    let (due, waiting): (Vec<_>, Vec<_>) = (work.steps().cloned().collect(), work.waiting().collect());
    let outcomes = condition::outcomes(&book.ledger);
    let of_product = |id: ProductId| {
        let deployed = book.ledger.deployed.get(&id).map(AsRef::as_ref);
        let freshness = condition::age(&book.ledger, deployed, book.now_ms);
        let progress = work.progress(&id, &book.ledger, book.now_ms);
        let (sync, mut sync_why) = condition::sync(&book.ledger, &id, outcomes.get(&id).copied());
        if let Some(text) = retired_text(book, &id).filter(|_| sync == Sync::Retired) {
            sync_why = text;
        }
        let (fit, fit_why) = fitness(book, &id, &due, &waiting);
        let pause = book.ledger.pause_of(&id, book.now_ms);
        let (health, why) = worst((sync, &sync_why), (fit, &fit_why), pause);
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
        Condition {
            id,
            deployed,
            health,
            why,
            sync,
            sync_why,
            fit,
            fit_why,
            pause,
            progress,
            freshness,
            last_run,
            running,
        }
    };
    book.products().into_iter().map(of_product).collect()
}

/// Returns how a product does what it promises, and why.
fn fitness(book: &Book, id: &ProductId, due: &[DueStep], waiting: &[NotDue]) -> (Health, String) {
    match condition::trouble(&book.ledger, id, book.now_ms) {
        Some(Trouble::Failing { step, code, message, others }) => {
            let more =
                if others == 0 { String::new() } else { format!(" (and {} more)", counted(others, "step")) };
            return (Health::Failing, format!("{step} failed with {code}: {message}{more}"));
        }
        // It is late because of that before long.
        Some(Trouble::Stopped { rule, message }) => {
            return (Health::Stopped, format!("by the rule {rule}: {message}"));
        }
        Some(Trouble::Late { age_ms, promise_ms }) => {
            let (late, promise) = (length(age_ms - promise_ms), length(promise_ms));
            let why = format!("its newest data is {late} older than the {promise} it promises");
            return (Health::Late, why);
        }
        None => {}
    }
    if !book.ledger.deployed.contains_key(id) {
        return (Health::Missing, "nothing of it runs".to_owned());
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

/// Returns the one word of both axes and a pause, what hurts readers first.
fn worst(sync: (Sync, &str), fit: (Health, &str), pause: Option<&Pause>) -> (Health, String) {
    let of_sync = match sync.0 {
        Sync::Denied => Some(Health::Denied),
        Sync::Broken => Some(Health::Broken),
        Sync::Held => Some(Health::Held),
        Sync::Retired => Some(Health::Retired),
        Sync::Altered | Sync::Waiting | Sync::Synced => None,
    };
    match (fit.0, of_sync, pause) {
        (Health::Failing | Health::Stopped | Health::Late, ..) => (fit.0, fit.1.to_owned()),
        (_, Some(word), _) => (word, sync.1.to_owned()),
        (_, None, Some(pause)) if pause.is_whole() => (Health::Paused, pause_text(pause)),
        (Health::Missing, None, _) => (Health::Ok, String::new()),
        _ => (fit.0, fit.1.to_owned()),
    }
}

/// Says what becomes of the tables of a product that left the mesh, and what holds that up.
#[must_use]
pub fn retired_text(book: &Book, id: &ProductId) -> Option<String> {
    let retired = book.ledger.retired.get(id).filter(|_| !book.ledger.deployed.contains_key(id))?;
    let ends = retired.due().is_some();
    if let Some(pause) = book.ledger.whole_pause_of(id, book.now_ms).filter(|_| ends) {
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

/// Returns how a run ended, in words.
#[must_use]
pub fn ending(outcome: &RunOutcome) -> (Tone, &'static str) {
    match outcome {
        RunOutcome::Succeeded { .. } => (Tone::Good, "succeeded"),
        RunOutcome::Failed { .. } => (Tone::Bad, "failed"),
        RunOutcome::Cancelled => (Tone::Odd, "cancelled"),
    }
}
