//! `hydromesh quality PRODUCT`: the last audits, rule by rule.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::{Entry, Fact, LedgerState, RuleOutcome};
use hydromesh_core::model::{Contract, QualitySeverity};
use serde_json::json;

use super::book::{Book, BookArgs};
use super::output::{Paint, Table, Tone, ago, instant, plain};
use super::{DONE, Failure, Format, print, print_json, say, state_of};
use crate::apply::{FailingRows, Sample, samples};
use crate::report::{Audit, RuleResult, oors};

/// How audits are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QualityFormat {
    /// For people.
    Human,
    /// For programs.
    Json,
    /// Documents of the Open Observability Results Standard (draft v0.8.1), one a line.
    Oors,
}

/// Arguments of `quality`.
#[derive(Debug, Args)]
pub struct QualityArgs {
    /// The product: `domain/product`, or its name alone where one domain has it.
    product: String,
    /// Only audits of this partition, such as 2026-08-01.
    #[arg(long, value_name = "KEY")]
    partition: Option<String>,
    /// How many audits of each port, the newest.
    #[arg(long, default_value_t = 1, value_name = "N")]
    last: usize,
    /// Show some of the rows that failed rules did not want, kept for a week. Only columns that the contract calls public have
    /// values, of others it is told whether there is one.
    #[arg(long, conflicts_with_all = ["last", "format"])]
    rows: bool,
    /// The state folder of a controller (`hydromesh up --state`).
    #[arg(long, env = "HYDROMESH_STATE", default_value = ".hydromesh", value_name = "FOLDER")]
    state: PathBuf,
    /// A preview of the state folder's environment instead: preview/NAME.
    #[arg(long, value_name = "preview/NAME")]
    env: Option<String>,
    /// Judge ages as of this instant (RFC 3339) instead of now.
    #[arg(long, value_name = "INSTANT")]
    clock: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: QualityFormat,
}

/// Audits as the ledger is read, by port, oldest first.
#[derive(Debug, Default)]
struct Audits {
    by_port: BTreeMap<PortId, Vec<Audit>>,
    /// How many are kept of each.
    most: usize,
}

impl Audits {
    fn enter(&mut self, entry: &Entry, partition: Option<&str>) {
        match &entry.fact {
            Fact::Quality {
                port,
                partition: of,
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
                if partition.is_some_and(|wanted| of.as_deref() != Some(wanted)) {
                    return;
                }
                let audits = self.by_port.entry(port.clone()).or_default();
                // The facts of one audit follow each other; the same rule again is another attempt's.
                let same = audits.last().is_some_and(|last| {
                    last.run == *run
                        && last.partition == *of
                        && last.table_version.is_none()
                        && last.rules.iter().all(|it| it.rule != *rule)
                });
                if !same {
                    audits.push(Audit {
                        port: port.clone(),
                        partition: of.clone(),
                        run: run.clone(),
                        at_ms: entry.at_ms,
                        table_version: None,
                        rules: Vec::new(),
                    });
                    let beyond = audits.len().saturating_sub(self.most.max(1));
                    audits.drain(..beyond);
                }
                if let Some(audit) = audits.last_mut() {
                    audit.rules.push(RuleResult {
                        rule: rule.clone(),
                        column: column.clone(),
                        severity: *severity,
                        outcome: RuleOutcome::of(*passed, *measure, band.as_ref()),
                        measure: *measure,
                        rows: *rows,
                        threshold: threshold.clone(),
                        band: band.clone(),
                    });
                }
            }
            Fact::Published(published) => {
                let audits = self.by_port.get_mut(&published.port);
                let last = audits.and_then(|audits| audits.last_mut());
                if let Some(audit) =
                    last.filter(|audit| audit.run == published.run && audit.partition == published.partition)
                {
                    audit.table_version = Some(published.version);
                }
            }
            _ => {}
        }
    }
}

/// Runs the verb.
pub fn run(args: &QualityArgs) -> Result<u8, Failure> {
    let mut audits = Audits { most: args.last, ..Audits::default() };
    let partition = args.partition.as_deref();
    let state = state_of(&args.state, args.env.as_deref())?;
    let of = BookArgs { state: state.clone(), env: None, clock: args.clock.clone(), format: Format::Human };
    let book = Book::open_with(&of, |entry| audits.enter(entry, partition))?;
    let id = book.product(&args.product)?;
    let found: Vec<Audit> =
        audits.by_port.into_iter().filter(|(port, _)| port.product == id).flat_map(|(_, it)| it).collect();
    if args.rows {
        let kept = samples(&state, &id, book.now_ms).map_err(|error| Failure::outside(&error))?;
        let kept = kept.iter().filter(|it| partition.is_none_or(|key| it.partition.as_deref() == Some(key)));
        let text = kept.map(rows_of).collect::<Vec<_>>().join("\n\n");
        if text.is_empty() {
            say(&format!(
                "no failing rows of {id} are kept; a sample is kept for a week, and only of rules that name rows"
            ));
        } else {
            print(&text);
        }
        return Ok(DONE);
    }
    match args.format {
        QualityFormat::Json => print_json(&json!({"product": id, "audits": found})),
        QualityFormat::Oors => {
            for audit in &found {
                let document =
                    oors(audit, &process(&book.ledger, audit), contract(&book.ledger, &audit.port));
                print(&document.to_string());
            }
        }
        QualityFormat::Human if found.is_empty() => say(&nothing(&id, partition)),
        QualityFormat::Human => print(&human(&found, book.now_ms, Paint::stdout())),
    }
    Ok(DONE)
}

fn nothing(id: &ProductId, partition: Option<&str>) -> String {
    match partition {
        Some(key) => {
            format!("no audit of partition {key} of {id} is known; without --partition the last one is shown")
        }
        None => format!("{id} has not been audited yet"),
    }
}

fn contract<'a>(ledger: &'a LedgerState, port: &PortId) -> Option<&'a Contract> {
    Some(&ledger.deployed.get(&port.product)?.product.outputs.get(&port.port)?.contract)
}

/// Returns the pipeline whose run it was, else the product.
fn process(ledger: &LedgerState, audit: &Audit) -> String {
    let running = ledger.running.get(&audit.run);
    let ended = || ledger.runs.iter().rev().find(|run| run.run == audit.run).map(|run| &run.step);
    let filled = || {
        let product = &ledger.deployed.get(&audit.port.product)?.product;
        let pipeline = product.pipelines.values().find(|it| *it.output() == audit.port.port)?;
        Some(format!("{}:{}", product.id, pipeline.name()))
    };
    let step = running.or_else(ended).map(|step| step.pipeline.to_string());
    step.or_else(filled).unwrap_or_else(|| audit.port.product.to_string())
}

fn human(audits: &[Audit], now_ms: i64, paint: Paint) -> String {
    let mut text = String::new();
    for audit in audits {
        let place = audit.partition.as_ref().map(|key| format!(" {key}")).unwrap_or_default();
        let (tone, word) = match audit.table_version {
            _ if audit.is_refused() => (Tone::Bad, "refused, what was published before stays".to_owned()),
            Some(version) => (Tone::Good, format!("published as version {version}")),
            None => (Tone::Plain, "audited".to_owned()),
        };
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        let name = paint.text(Tone::Strong, &format!("{}{place}", audit.port));
        let when = ago(audit.at_ms, now_ms);
        let _ = writeln!(text, "{name}  {}, {}, {when}", paint.text(tone, &word), audit.run);
        let mut table = Table::new(&["RULE", "OUTCOME", "MEASURED", "WANTED", ""]);
        for rule in &audit.rules {
            let (tone, word) = match rule.outcome {
                RuleOutcome::Held => (Tone::Good, "held"),
                RuleOutcome::Failed => (Tone::Bad, "failed"),
                RuleOutcome::Unmeasured => (Tone::Bad, "not evaluated"),
                RuleOutcome::Unknown => (Tone::Odd, "unknown"),
            };
            let measured = rule.measure.map_or_else(|| "-".to_owned(), number);
            let weight = if rule.severity == QualitySeverity::Error { "blocks" } else { "tells" };
            table.row([
                plain(&rule.rule),
                (tone, word.to_owned()),
                plain(measured),
                plain(&rule.threshold),
                (Tone::Faint, weight.to_owned()),
            ]);
        }
        text.push_str(&table.render(paint));
    }
    text
}

/// Returns a sample, one row a line.
fn rows_of(sample: &Sample) -> String {
    let place = sample.partition.as_ref().map(|key| format!(" {key}")).unwrap_or_default();
    let masked = if sample.masked.is_empty() {
        String::new()
    } else {
        format!("; not public: {}", sample.masked.join(", "))
    };
    let mut text =
        format!("{}{place}  {}, kept until {}{masked}", sample.port, sample.run, instant(sample.expires_ms));
    for FailingRows { rule, rows } in &sample.rules {
        let _ = write!(text, "\n  {rule}");
        for row in rows {
            let _ = write!(text, "\n    {row}");
        }
    }
    text
}

/// Returns a measure with at most four decimals.
fn number(measure: f64) -> String {
    let text = format!("{measure:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
