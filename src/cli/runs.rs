//! `hydromesh runs [PRODUCT]`.

use std::fmt::Write as _;

use clap::Args;
use hydromesh_core::ledger::{RunOutcome, TakenOver};
use hydromesh_core::plan::{StepKey, Work};
use serde_json::{Value, json};

use super::book::{Book, BookArgs};
use super::cost::amount_json;
use super::health::ending;
use super::output::{Paint, Table, Tone, ago, counted, instant, length, plain};
use super::{DONE, Failure, Format, print, print_json, say};
use crate::clock::rfc3339;
use crate::runlog::RunFiles;

/// Arguments of `runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Only runs of this product.
    product: Option<String>,
    /// Only runs that failed, each with its error.
    #[arg(long)]
    failed: bool,
    /// At most so many, newest first.
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
    #[command(flatten)]
    book: BookArgs,
}

/// Returns what a run took over as JSON.
fn taken_json(taken: &TakenOver) -> Value {
    json!({"from": taken.from, "partitions": taken.partitions, "computed": rfc3339(taken.computed_ms)})
}

/// Says what a run took over instead of computing it.
pub fn taken_spoken(taken: &TakenOver, whole: bool) -> String {
    let count = usize::try_from(taken.partitions).unwrap_or(usize::MAX);
    let what = if whole { "its table".to_owned() } else { counted(count, "partition") };
    format!("took over {what} from {}, computed at {}", taken.from, instant(taken.computed_ms))
}

/// Runs the verb.
pub fn run(args: &RunsArgs) -> Result<u8, Failure> {
    let book = Book::open(&args.book)?;
    let product = args.product.as_deref().map(|text| book.product(text)).transpose()?;
    let wanted = |id: &hydromesh_core::ids::ProductId| product.as_ref().is_none_or(|product| product == id);
    let running: Vec<(&String, _)> = book
        .ledger
        .running
        .iter()
        .filter(|(_, step)| !args.failed && wanted(&step.pipeline.product))
        .collect();
    let ended: Vec<_> = book
        .ledger
        .runs
        .iter()
        .rev()
        .filter(|run| wanted(&run.step.pipeline.product))
        .filter(|run| !args.failed || matches!(run.outcome, RunOutcome::Failed { .. }))
        .collect();
    let (all, shown) = (ended.len(), ended.len().min(args.limit));
    if args.book.format == Format::Json {
        let began = |run: &str| book.begun.get(run);
        let files = RunFiles::of(&book.state);
        let price = book.settings().and_then(|it| it.cost);
        let expected = |run: &str| book.costs.expected(run).map(|it| amount_json(&it, price.as_ref()));
        let trace = |run: &str, step: &StepKey| files.trace(&step.pipeline.product, run);
        let mut rows: Vec<Value> = running
            .iter()
            .map(|(run, step)| {
                json!({
                    "run": run,
                    "step": step,
                    "state": "running",
                    "trace": trace(run, step),
                    "expected": expected(run),
                    "attempt": began(run).map(|it| it.attempt),
                    "started": began(run).map(|it| rfc3339(it.at_ms)),
                    "decision": began(run).map(|it| it.decision.clone()),
                })
            })
            .collect();
        rows.extend(ended.iter().take(args.limit).map(|run| {
            json!({
                "run": run.run,
                "step": run.step,
                "state": ending(&run.outcome).1,
                "trace": trace(&run.run, &run.step),
                "expected": expected(&run.run),
                "attempt": began(&run.run).map(|it| it.attempt),
                "started": began(&run.run).map(|it| rfc3339(it.at_ms)),
                "decision": began(&run.run).map(|it| it.decision.clone()),
                "ended": rfc3339(run.at_ms),
                "took_ms": run.took_ms,
                "result": run.outcome,
                "taken_over": run.taken.as_ref().map(taken_json),
            })
        }));
        print_json(&json!({"runs": rows, "ended_in_all": all}));
        return Ok(DONE);
    }
    if running.is_empty() && ended.is_empty() {
        say("no such runs yet");
        return Ok(DONE);
    }
    let paint = Paint::stdout();
    let mut table = Table::new(&["RUN", "STEP", "STATE", "WHEN", "TOOK", "EXPECTED", "ROWS"]);
    let expected = |run: &str| {
        book.costs.expected(run).map_or_else(|| "-".to_owned(), |it| format!("about {}", length(it.work_ms)))
    };
    for (run, step) in &running {
        let since = book.begun.get(*run).map_or_else(|| "-".to_owned(), |it| ago(it.at_ms, book.now_ms));
        table.row([
            plain(*run),
            plain(step.to_string()),
            plain("running"),
            plain(since),
            plain("-"),
            plain(expected(run)),
            plain("-"),
        ]);
    }
    for run in ended.iter().take(args.limit) {
        let (tone, word) = ending(&run.outcome);
        let rows = match &run.outcome {
            RunOutcome::Succeeded { rows } => rows.to_string(),
            _ => "-".to_owned(),
        };
        table.row([
            plain(&run.run),
            plain(run.step.to_string()),
            (tone, word.to_owned()),
            plain(ago(run.at_ms, book.now_ms)),
            plain(length(run.took_ms)),
            plain(expected(&run.run)),
            plain(rows),
        ]);
    }
    let mut text = table.render(paint);
    let taken = ended.iter().take(args.limit).filter_map(|run| Some((run, run.taken.as_ref()?)));
    for (index, (run, taken)) in taken.enumerate() {
        let gap = if index == 0 { "\n\n" } else { "\n" };
        let _ = write!(text, "{gap}{} {}", run.run, taken_spoken(taken, run.step.work == Work::Whole));
    }
    let failures = ended.iter().take(args.limit).filter_map(|run| match &run.outcome {
        RunOutcome::Failed { code, message, .. } => Some((&run.run, code, message)),
        _ => None,
    });
    // The error is what one came for; a list of successes keeps its shape.
    for (index, (run, code, message)) in failures.enumerate() {
        let gap = if index == 0 { "\n\n" } else { "\n" };
        let _ = write!(text, "{gap}{run} {}: {message}", paint.text(Tone::Bad, code));
    }
    print(&text);
    if all > shown {
        say(&format!("{shown} of {}; --limit shows more", counted(all, "ended run")));
    }
    Ok(DONE)
}
