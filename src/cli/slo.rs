//! `hydromesh slo status`: every promise of every contract, recomputed from the ledger.

use clap::{Args, Subcommand};
use hydromesh_core::ids::PortId;
use hydromesh_core::model::{Sla, SlaKind};
use hydromesh_core::slo::{
    Collection, Facts, Objective, ObjectiveKind, Publish, QualityResult, SliReport, SliceState, Timeline,
    report,
};
use hydromesh_core::time::{Span, SpanUnit};
use serde_json::{Value, json};

use super::book::{Book, BookArgs};
use super::output::{Paint, Table, Tone, length, plain};
use super::show::promise;
use super::{DONE, Failure, Format, print, print_json, say};

/// Days of the rolling window that a promise is judged over.
const WINDOW_DAYS: i64 = 30;

/// Verbs of `slo`.
#[derive(Debug, Subcommand)]
pub enum SloVerb {
    /// Show each promise: whether it holds, how well it held over 30 days, and what is left of its error budget.
    Status(StatusArgs),
}

/// Arguments of `slo status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only promises of this product.
    product: Option<String>,
    #[command(flatten)]
    book: BookArgs,
}

/// One promise with its numbers.
struct Line {
    port: PortId,
    promise: String,
    target: f64,
    report: SliReport,
}

/// Runs the verb.
pub fn run(verb: &SloVerb) -> Result<u8, Failure> {
    let SloVerb::Status(args) = verb;
    let book = Book::open(&args.book)?;
    let product = args.product.as_deref().map(|text| book.product(text)).transpose()?;
    let mut lines = Vec::new();
    for (id, deployed) in &book.ledger.deployed {
        if product.as_ref().is_some_and(|product| product != id) {
            continue;
        }
        for (name, output) in &deployed.product.outputs {
            let port = deployed.product.port(name);
            for sla in &output.contract.slas {
                if let Some(report) = judge(&book, &port, sla) {
                    lines.push(Line {
                        port: port.clone(),
                        promise: promise(&sla.kind),
                        target: sla.target,
                        report,
                    });
                }
            }
        }
    }
    if args.book.format == Format::Json {
        let rows: Vec<Value> = lines
            .iter()
            .map(|it| json!({"port": it.port, "promise": it.promise, "target": it.target, "report": it.report}))
            .collect();
        print_json(&json!({"window": format!("{WINDOW_DAYS}d"), "objectives": rows}));
        return Ok(DONE);
    }
    if lines.is_empty() {
        say("no deployed contract promises a service level (slaProperties)");
        return Ok(DONE);
    }
    let mut table = Table::new(&["PORT", "PROMISE", "NOW", "HELD", "TARGET", "BUDGET LEFT", "FACTS OF"]);
    for it in &lines {
        let (tone, word) = match it.report.state {
            SliceState::Good => (Tone::Good, "holds"),
            SliceState::Bad => (Tone::Bad, "broken"),
            SliceState::Unknown => (Tone::Odd, "unknown"),
            SliceState::Excluded => (Tone::Faint, "excluded"),
        };
        let collected = match it.report.collection {
            Collection::NotStarted => "nothing yet".to_owned(),
            Collection::Collecting { collected_ms } => length(collected_ms),
            Collection::Complete => format!("{WINDOW_DAYS}d"),
        };
        let left = range(it.report.budget_remaining_low, it.report.budget_remaining);
        let spent = if it.report.budget_remaining < 0.0 { Tone::Bad } else { Tone::Plain };
        table.row([
            plain(it.port.to_string()),
            plain(&it.promise),
            (tone, word.to_owned()),
            plain(range(it.report.sli_low, it.report.sli_high)),
            plain(percent(it.target)),
            (spent, left),
            plain(collected),
        ]);
    }
    print(&table.render(Paint::stdout()));
    Ok(DONE)
}

/// Returns the numbers of a promise; `None` for one that is not evaluated.
fn judge(book: &Book, port: &PortId, sla: &Sla) -> Option<SliReport> {
    let kind = match &sla.kind {
        SlaKind::DataAge(max) => ObjectiveKind::DataAge { max: *max },
        SlaKind::Heartbeat(max_gap) => ObjectiveKind::Heartbeat { max_gap: *max_gap },
        SlaKind::QualityPassRate(percent) => ObjectiveKind::Quality { min_pass_rate: percent / 100.0 },
        SlaKind::Other { .. } => return None,
    };
    let window = Span::new(WINDOW_DAYS, SpanUnit::Day)?;
    let objective = Objective { id: sla.id.clone(), kind, target: sla.target, window };
    objective.check().ok()?;
    let publishes = book.ledger.ports.get(port).map(|state| {
        let publish = |(at, newest): &(i64, Option<i64>)| {
            newest.map(|newest| Publish { at: *at, data_time_high: newest })
        };
        state.publishes.iter().filter_map(publish).collect()
    });
    let quality = book.audits.get(port).map(|audits| {
        let result = |it: &super::book::Audit| QualityResult {
            at: it.at_ms,
            passed: it.passed,
            executed: it.executed,
            required: it.required,
        };
        audits.iter().map(result).collect()
    });
    let facts = Facts {
        publishes: publishes.unwrap_or_default(),
        quality: quality.unwrap_or_default(),
        ..Facts::default()
    };
    Some(report(&objective, &Timeline::of(&objective.kind, &facts), book.now_ms))
}

fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Where time is unknown the truth lies between two numbers, and saying one of them would be a lie.
fn range(low: f64, high: f64) -> String {
    let (low, high) = (percent(low), percent(high));
    if low == high { low } else { format!("{low} to {high}") }
}
