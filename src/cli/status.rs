//! `hydromesh status`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{AlertState, LedgerState, Outcome};
use serde_json::json;

use super::book::{Book, BookArgs};
use super::health::{Health, is_past, survey};
use super::output::{Paint, Tone, ago, counted, short};
use super::{DONE, Failure, Format, print, print_json};
use crate::clock::rfc3339;
use crate::control::Waiting;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    book: BookArgs,
}

/// Runs the verb.
pub fn run(args: &StatusArgs) -> Result<u8, Failure> {
    let book = Book::open(&args.book)?;
    let running = book.is_led;
    let mut conditions = survey(&book);
    conditions.retain(|it| !is_past(&book, &it.id));
    let mut counts: BTreeMap<Health, usize> = BTreeMap::new();
    for it in &conditions {
        *counts.entry(it.health).or_default() += 1;
    }
    let open: Vec<_> = book.ledger.episodes.values().filter(|episode| episode.is_open()).collect();
    let commit = book.ledger.commits.back();
    let outcome = commit.and_then(|commit| book.ledger.outcome(&commit.commit));
    let waiting = if running { Waiting::of(&book.state) } else { None };
    // Runs of a controller that is gone ended with it.
    let runs = if running { book.ledger.running.len() } else { 0 };
    if args.book.format == Format::Json {
        let by_word: BTreeMap<&str, usize> = counts.iter().map(|(health, n)| (health.word(), *n)).collect();
        print_json(&json!({
            "environment": book.environment,
            "controller": if running { "running" } else { "stopped" },
            "last_fact": rfc3339(book.ledger.at_ms),
            "commit": commit.map(|it| json!({
                "commit": it.commit, "message": it.message, "author": it.author, "seen": rfc3339(it.at_ms),
                "outcome": outcome,
                "why": refused_as_a_whole(&book.ledger, &it.commit),
            })),
            "waits_for": waiting,
            "products": by_word,
            "runs": {"running": runs, "succeeded": book.ledger.succeeded, "failed": book.ledger.failures,
                "cancelled": book.cancelled},
            "alerts": {
                "open": open.len(),
                "firing": open.iter().filter(|it| it.last().state == AlertState::Firing).count(),
            },
            "commands_waiting": book.ledger.pending.len(),
        }));
        return Ok(DONE);
    }
    let paint = Paint::stdout();
    let mut text = String::new();
    let mut line = |name: &str, tone: Tone, value: &str| {
        let _ =
            writeln!(text, "{} {}", paint.text(Tone::Faint, &format!("{name:<12}")), paint.text(tone, value));
    };
    line("environment", Tone::Plain, if book.environment.is_empty() { "-" } else { &book.environment });
    let heard = ago(book.ledger.at_ms, book.now_ms);
    if running {
        line("controller", Tone::Good, &format!("running, last fact {heard}"));
    } else {
        let stopped = format!("not running, last fact {heard}; start it with `hydromesh up`");
        line("controller", Tone::Odd, &stopped);
    }
    match commit {
        None => line("commit", Tone::Odd, "none seen yet"),
        Some(commit) => {
            let (tone, word) = outcome_words(&book.ledger, &commit.commit);
            let what = format!("{} {word}: {} ({})", short(&commit.commit), commit.message, commit.author);
            line("commit", tone, &what);
            if let Some(why) = refused_as_a_whole(&book.ledger, &commit.commit) {
                line("", tone, why);
            }
        }
    }
    if let Some(Waiting { environment, why }) = &waiting {
        line("waits for", Tone::Odd, &format!("{environment}: {why}"));
    }
    let parts: Vec<String> = counts
        .iter()
        .map(|(health, n)| paint.text(health.tone(), &format!("{n} {}", health.word())))
        .collect();
    let parts = if parts.is_empty() { "none deployed".to_owned() } else { parts.join(", ") };
    line("products", Tone::Plain, &parts);
    let cancelled =
        if book.cancelled == 0 { String::new() } else { format!(", {} cancelled", book.cancelled) };
    let (succeeded, failed) = (book.ledger.succeeded, book.ledger.failures);
    let ended = format!("{runs} running, {succeeded} succeeded, {failed} failed{cancelled}");
    line("runs", Tone::Plain, &ended);
    match open.len() {
        0 => line("alerts", Tone::Good, "none open"),
        n => line("alerts", Tone::Bad, &format!("{n} open; see `hydromesh alerts list --open`")),
    }
    if !book.ledger.pending.is_empty() {
        line(
            "commands",
            Tone::Odd,
            &format!("{} without an answer", counted(book.ledger.pending.len(), "command")),
        );
    }
    let troubled: Vec<_> = conditions.iter().filter(|it| it.health < Health::Working).collect();
    if !troubled.is_empty() {
        text.push('\n');
    }
    for it in troubled {
        let word = paint.text(it.health.tone(), &format!("{:<8}", it.health.word()));
        let _ = writeln!(text, "{word} {}: {}", it.id, it.why);
    }
    // What stays for ever needs nobody's attention.
    let leaving = |id: &ProductId| {
        book.ledger.retired.get(id).is_some_and(|it| it.due().is_some() || it.under_way().is_some())
    };
    let leave: Vec<_> =
        conditions.iter().filter(|it| it.health == Health::Retired && leaving(&it.id)).collect();
    if !leave.is_empty() {
        text.push('\n');
    }
    for it in leave {
        let word = paint.text(it.health.tone(), &format!("{:<8}", it.health.word()));
        let _ = writeln!(text, "{word} {}: {}", it.id, it.why);
    }
    let computing: Vec<_> = conditions.iter().filter(|it| !it.progress.is_empty()).collect();
    if !computing.is_empty() {
        let _ = writeln!(text, "\n{}", paint.text(Tone::Faint, "to compute"));
    }
    for it in computing {
        let _ = writeln!(text, "{}: {}", it.id, it.to_compute());
    }
    print(text.trim_end());
    Ok(DONE)
}

/// Returns why nothing of a commit was taken over, if that was so and not for the sake of single products.
pub fn refused_as_a_whole<'a>(ledger: &'a LedgerState, commit: &str) -> Option<&'a str> {
    let mut outcomes = ledger.outcomes.iter().filter(|(of, ..)| of == commit);
    let (.., why) = outcomes.clone().find(|(_, product, outcome, _)| {
        product.is_none() && !matches!(outcome, Outcome::Applied | Outcome::Superseded)
    })?;
    outcomes.all(|(_, product, ..)| product.is_none()).then_some(why.as_str())
}

/// Says what became of a commit as a whole.
pub fn outcome_words(ledger: &LedgerState, commit: &str) -> (Tone, String) {
    let Some(outcome) = ledger.outcome(commit) else { return (Tone::Odd, "being decided".to_owned()) };
    let tone = match outcome {
        Outcome::Applied => Tone::Good,
        Outcome::Superseded => Tone::Faint,
        Outcome::Held => Tone::Odd,
        Outcome::Denied | Outcome::Broken => Tone::Bad,
    };
    // The others go on: what is refused is refused for the products that it is about.
    let whole = matches!(outcome, Outcome::Applied | Outcome::Superseded)
        || refused_as_a_whole(ledger, commit).is_some();
    let part = if whole { "" } else { " in part" };
    (tone, format!("{}{part}", outcome.word()))
}
