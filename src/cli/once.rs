//! A controller that ends when nothing is left to do: `up --once`, and verbs that stand in for one that does not run.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{Command, LedgerState, Outcome, RunOutcome};
use hydromesh_core::plan::{DueWork, Work};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::book::Book;
use super::health::ending;
use super::output::{Paint, Tone, counted, length, short};
use super::runs::taken_spoken;
use super::status::{outcome_words, refused_as_a_whole};
use super::up::{failure, signals};
use super::{DENIED, DONE, FINDINGS, Failure, Format, OUTSIDE, print, print_json, runtime, say, tell};
use crate::clock::Clock;
use crate::control::{Around, Kept, UpError, UpOptions, up};
use crate::store::StoreError;
use crate::work::{Role, Roles};

/// Between two looks at what has ended meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// Returns what a process does that ends by itself: everything but serve.
pub fn roles() -> Roles {
    [Role::Control, Role::Work, Role::Stream].into_iter().collect()
}

/// Runs a controller until nothing is left to do, tells each step that ends, and how the mesh is then.
///
/// # Errors
/// When it does not start, or may no longer write.
pub fn run(options: UpOptions, format: Format) -> Result<u8, Failure> {
    let (after, before) = go(options).map_err(failed)?;
    let head = after.ledger.commits.back();
    let outcome = head.and_then(|head| after.ledger.outcome(&head.commit));
    let done = Done::between(&before, &after);
    if format == Format::Json {
        let commit = head.map(|it| json!({"commit": it.commit, "message": it.message, "outcome": outcome}));
        let mut value = done.json();
        value["commit"] = json!(commit);
        print_json(&value);
    } else {
        let commit = head.map_or_else(
            || "no commit was seen".to_owned(),
            |head| {
                let (_, said) = outcome_words(&after.ledger, &head.commit);
                let why = refused_as_a_whole(&after.ledger, &head.commit);
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                format!("commit {} is {said}{why}", short(&head.commit))
            },
        );
        print(&format!("{commit}; {}", done.text()));
    }
    Ok(match outcome {
        _ if done.failing > 0 => FINDINGS,
        Some(Outcome::Denied) => DENIED,
        Some(Outcome::Applied) => DONE,
        _ => FINDINGS,
    })
}

/// Stands in for the controller of a state folder until nothing is left to do, and tells what became of a command; does nothing
/// where a controller has begun meanwhile.
///
/// # Errors
/// When it does not start, or may no longer write.
pub fn stand_in(
    state: &Path,
    mut kept: Kept,
    clock: Clock,
    command: &Command,
    format: Format,
) -> Result<Option<u8>, Failure> {
    kept.about = Some(command.verb.product().clone());
    let options = UpOptions {
        repo: String::new(),
        environment: kept.note.environment.clone(),
        state: state.to_owned(),
        policies: kept.note.policies.clone(),
        clock,
        // The commit stays the same.
        poll: Duration::from_hours(1),
        tick: Duration::from_millis(100),
        observe: Duration::from_secs(1),
        brokers: kept.note.brokers.clone(),
        site: None,
        forge: None,
        roles: roles(),
        signers: None,
        once: true,
        after_state: None,
        kept: Some(Arc::new(kept)),
    };
    let (after, before) = match go(options) {
        Err(Gone::Up(UpError::Store(StoreError::LeaseHeld { .. }))) => return Ok(None),
        went => went.map_err(failed)?,
    };
    let came = Came::of(command, &before, &after);
    let answer = after.ledger.answers.get(&command.id);
    if format == Format::Json {
        let mut value = Done::between(&before, &after).json();
        value["asked"] = came.asked.json();
        value["id"] = json!(command.id);
        value["controller_running"] = json!(false);
        value["answer"] = json!(answer.map(|(accepted, text)| json!({"accepted": accepted, "answer": text})));
        print_json(&value);
    } else {
        print(&command.id);
        if let Some((accepted, text)) = answer {
            say(&format!("{}: {text}", if *accepted { "accepted" } else { "refused" }));
        }
        for line in came.spoken() {
            say(&line);
        }
    }
    let accepted = answer.is_some_and(|(accepted, _)| *accepted);
    Ok(Some(if accepted && came.asked.failing == 0 { DONE } else { FINDINGS }))
}

/// What came of a command, and of everything else that was done by the way.
struct Came {
    product: ProductId,
    /// Something reads the product.
    has_readers: bool,
    /// Of the product and of what follows from it, since it was asked for.
    asked: Done,
    /// Of all others.
    others: Done,
    /// Whose steps failed for good apart from what was asked for, be it long ago.
    troubled: BTreeSet<ProductId>,
}

impl Came {
    fn of(command: &Command, before: &LedgerState, after: &Book) -> Self {
        let mut work = DueWork::default();
        let _ = work.refresh(&after.ledger, after.now_ms);
        let product = command.verb.product().clone();
        let mut about = work.downstream(&product);
        let has_readers = !about.is_empty();
        about.insert(product.clone());
        let mut came = Self {
            product,
            has_readers,
            asked: Done::default(),
            others: Done::default(),
            troubled: BTreeSet::new(),
        };
        let known: BTreeSet<&String> = before.runs.iter().map(|run| &run.run).collect();
        for run in after.ledger.runs.iter().filter(|run| !known.contains(&run.run)) {
            let asked = about.contains(&run.step.pipeline.product);
            let done = if asked { &mut came.asked } else { &mut came.others };
            match run.outcome {
                RunOutcome::Succeeded { .. } => done.succeeded += 1,
                RunOutcome::Failed { .. } => done.failed += 1,
                RunOutcome::Cancelled => {}
            }
        }
        // What was killed goes on under its key: its failures of before count too.
        let since_ms = after.asked.get(&command.id).copied().unwrap_or(i64::MAX);
        for (step, attempts) in after.ledger.failed.iter().filter(|(step, _)| work.wants(step)) {
            let product = &step.pipeline.product;
            if about.contains(product) && attempts.at_ms >= since_ms {
                came.asked.failing += 1;
            } else {
                came.others.failing += 1;
                came.troubled.insert(product.clone());
            }
        }
        came
    }

    /// Returns what to tell people: how it ended, and what else there is.
    fn spoken(&self) -> Vec<String> {
        let Self { product, asked, others, .. } = self;
        let what = if self.has_readers { " and what follows from it" } else { "" };
        let mut lines = vec![format!("{product}{what}: {}", asked.text())];
        let all = others.succeeded + others.failed;
        if all > 0 {
            let attempts = counted(all, "attempt");
            lines.push(format!(
                "by the way, {} of {attempts} at what else was due went well",
                others.succeeded
            ));
        }
        if others.failing > 0 {
            let names: Vec<String> = self.troubled.iter().map(ToString::to_string).collect();
            let (steps, names) = (counted(others.failing, "step"), names.join(", "));
            lines.push(format!(
                "apart from that, {steps} of {names} failed for good, see `hydromesh runs --failed`"
            ));
        }
        lines
    }
}

/// What was done between two looks at the ledger.
#[derive(Default)]
struct Done {
    /// Attempts.
    succeeded: usize,
    failed: usize,
    /// Steps that failed and were not repaired.
    failing: usize,
}

impl Done {
    fn between(before: &LedgerState, after: &Book) -> Self {
        let since = |now: u64, then: u64| usize::try_from(now.saturating_sub(then)).unwrap_or(usize::MAX);
        Self {
            succeeded: since(after.ledger.succeeded, before.succeeded),
            failed: since(after.ledger.failures, before.failures),
            failing: failing(after),
        }
    }

    fn text(&self) -> String {
        let mut text = match self.succeeded + self.failed {
            0 => "nothing had to be computed".to_owned(),
            all => format!("{} of {} went well", self.succeeded, counted(all, "attempt")),
        };
        if self.failing > 0 {
            let steps = counted(self.failing, "step");
            text.push_str(&format!("; {steps} failed for good, see `hydromesh runs --failed`"));
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        json!({"succeeded": self.succeeded, "failed": self.failed, "failing": self.failing})
    }
}

/// Returns how many failed steps still have work to do.
fn failing(book: &Book) -> usize {
    let mut work = DueWork::default();
    let _ = work.refresh(&book.ledger, book.now_ms);
    book.ledger.failed.keys().filter(|key| work.wants(key)).count()
}

/// Why a controller did not end with its work done.
enum Gone {
    /// It did not start, or may no longer write.
    Up(UpError),
    /// Anything else.
    Failure(Failure),
}

impl From<Failure> for Gone {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

fn failed(gone: Gone) -> Failure {
    match gone {
        Gone::Up(error) => failure(&error),
        Gone::Failure(failure) => failure,
    }
}

/// Runs the controller; returns the ledger as it is and as it was.
fn go(options: UpOptions) -> Result<(Book, Arc<LedgerState>), Gone> {
    let state = options.state.clone();
    let begun: Arc<OnceLock<Begun>> = Arc::default();
    let teller = Arc::clone(&begun);
    let around: Around = Box::new(move |upward, over| {
        // As it was replayed: nothing has turned yet.
        let before = Arc::clone(&upward.ledger.borrow());
        let told = Mutex::new(Told(before.runs.iter().map(|run| run.run.clone()).collect()));
        let _ = teller.set(Begun { before, told });
        let tell = move || {
            while !over.is_cancelled() {
                let ledger = Arc::clone(&upward.ledger.borrow());
                if let Some(begun) = teller.get() {
                    begun.tell(&ledger);
                }
                std::thread::sleep(LOOK);
            }
        };
        std::thread::Builder::new().name("hydromesh-tell".to_owned()).spawn(tell).ok()
    });
    let stopped = CancellationToken::new();
    runtime()?.block_on(async {
        tokio::spawn(signals(stopped.clone()));
        up(options, stopped.child_token(), around).await.map_err(Gone::Up)
    })?;
    let after = Book::read(&state)?;
    let begun = begun.get().inspect(|begun| begun.tell(&after.ledger)).filter(|_| !stopped.is_cancelled());
    let stopped = || {
        let message = "stopped before everything was done; the next controller goes on from here".to_owned();
        Gone::Failure(Failure { code: OUTSIDE, message })
    };
    begun.map(|begun| (after, Arc::clone(&begun.before))).ok_or_else(stopped)
}

/// What a controller began with, and what was told of it since.
struct Begun {
    before: Arc<LedgerState>,
    told: Mutex<Told>,
}

impl Begun {
    fn tell(&self, ledger: &LedgerState) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).tell(ledger);
    }
}

/// Runs of which was told how they ended.
struct Told(BTreeSet<String>);

impl Told {
    /// Tells on stderr of each run that ended since.
    fn tell(&mut self, ledger: &LedgerState) {
        let paint = Paint::stderr();
        let ended: Vec<_> = ledger.runs.iter().rev().take_while(|run| !self.0.contains(&run.run)).collect();
        for run in ended.into_iter().rev() {
            let (tone, word) = ending(&run.outcome);
            let why = match &run.outcome {
                RunOutcome::Failed { code, message, .. } => format!(": {code} {message}"),
                _ => {
                    let taken = run.taken.as_ref().map(|it| taken_spoken(it, run.step.work == Work::Whole));
                    taken.map(|taken| format!(", {taken}")).unwrap_or_default()
                }
            };
            let took = paint.text(Tone::Faint, &format!("in {}", length(run.took_ms)));
            tell(&format!("{} {} {took}{why}", paint.text(tone, &format!("{word:<9}")), run.step));
            self.0.insert(run.run.clone());
        }
    }
}
