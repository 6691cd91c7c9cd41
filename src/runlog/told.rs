//! What is said of a run: its start, the facts that it leaves, its end.

use hydromesh_core::control::Start;
use hydromesh_core::ledger::{Fact, LookedAfter, RuleOutcome, RunOutcome, Taken};
use serde_json::{Map, Value};
use tracing::{Span, error, info, warn};

use super::mask::safe_message;
use super::span::note;
use crate::apply::Job;
use crate::clock::rfc3339;
use crate::text::line;
use crate::traces;

/// The longest reason.
const MOST: usize = 300;

/// Says that an attempt begins.
pub fn begun(span: &Span, start: &Start) {
    let reason = line(&start.reason, MOST);
    let trace = traces::id(span);
    span.in_scope(|| {
        info!(event = "started", trace, "attempt {} of {}: {reason}", start.attempt, start.key);
    });
}

/// Says what an attempt reads, in the current span.
pub(crate) fn reads(job: &Job) {
    let trace = traces::id(&Span::current());
    let Ok(product) = job.product() else { return };
    let mut inputs = Map::new();
    for port in hydromesh_core::plan::upstream_ports(product) {
        let version = job.versions.get(&port).map_or(Value::Null, |version| Value::from(*version));
        inputs.insert(port.to_string(), version);
    }
    let spoken: Vec<String> =
        inputs.iter().map(|(port, version)| format!("{port} at version {version}")).collect();
    let spoken = if spoken.is_empty() { "no other port".to_owned() } else { spoken.join(", ") };
    let (worker, commits_as) = (std::process::id(), job.start.generation);
    info!(event = "reads", trace, process = worker, generation = commits_as, "reads {spoken}");
}

/// Says what facts of a run mean, in the current span. None holds a value of a row.
pub fn left(facts: &[Fact]) {
    audits(facts);
    for fact in facts {
        match fact {
            Fact::Published(it) => {
                let partition = it.partition.as_deref().map(|key| format!(" {key}")).unwrap_or_default();
                let from = it.taken.as_ref().map(|taken| taken.from.as_str());
                let taken =
                    it.taken.as_ref().map(|taken| format!(", {}", taken_over(taken))).unwrap_or_default();
                info!(
                    event = "published", port = %it.port, partition = it.partition, rows = it.rows, version = it.version,
                    taken_over_from = from,
                    "published {}{partition}: {} rows, version {}{taken}", it.port, it.rows, it.version
                );
            }
            Fact::Quarantined { port, rows, reasons, .. } => {
                let why = line(&reasons.join("; "), MOST);
                warn!(event = "set_aside", %port, rows, "{rows} rows of {port} are set aside: {why}");
            }
            Fact::Epoch(it) => {
                let rows = &it.rows;
                info!(
                    event = "epoch", port = %it.port, version = it.version, accepted = rows.accepted,
                    corrected = rows.corrected, quarantined = rows.quarantined, dead = rows.dead,
                    "committed {} events to {}, version {}", rows.accepted + rows.corrected, it.port, it.version
                );
            }
            Fact::Tended { files, together, expired, .. } => {
                let (before, after) = together.unzip();
                let done = LookedAfter::of(0, fact).map(|(port, done)| format!("{port}: {}", done.spoken()));
                info!(
                    event = "looked_after",
                    small_files = before,
                    put_into = after,
                    versions_gone = expired,
                    files_gone = files,
                    "{}",
                    done.unwrap_or_default()
                );
            }
            Fact::Drift { verdicts, drifted, .. } => {
                let moved = verdicts.iter().filter(|it| it.verdict == "drifted").count();
                info!(
                    event = "compared",
                    features = verdicts.len(),
                    moved,
                    drifted,
                    "{moved} features moved"
                );
            }
            Fact::Trained(it) => {
                let (fitted, held_out) = it.rows;
                info!(
                    event = "trained",
                    model = it.version,
                    fitted,
                    held_out,
                    "trained model {} on {fitted} rows, measured on {held_out}",
                    it.version
                );
            }
            _ => {}
        }
    }
}

/// Says where something comes from that was not computed here.
fn taken_over(taken: &Taken) -> String {
    let Taken { from, run, computed_ms, .. } = taken;
    format!("taken over from {from}, computed at {} by its {run}", rfc3339(*computed_ms))
}

/// Says how the rules of each table that was audited went: which did not hold, and how many did.
fn audits(facts: &[Fact]) {
    let mut audits: Vec<(String, u64, u64)> = Vec::new();
    for fact in facts {
        let Fact::Quality { port, partition, rule, passed, measure, threshold, rows, band, .. } = fact else {
            continue;
        };
        let what = match partition {
            Some(key) => format!("{port} {key}"),
            None => port.to_string(),
        };
        let outcome = RuleOutcome::of(*passed, *measure, band.as_ref());
        if outcome.is_bad() {
            let rows = rows.unwrap_or_default();
            let threshold = line(threshold, MOST);
            let how = if outcome == RuleOutcome::Failed { "does not hold" } else { "could not be measured" };
            warn!(event = "rule", rule, partition, rows, "rule {rule} {how} for {what}: wanted {threshold}");
        }
        let held = u64::from(!outcome.is_bad());
        match audits.last_mut() {
            Some((last, good, all)) if *last == what => (*good, *all) = (*good + held, *all + 1),
            _ => audits.push((what, held, 1)),
        }
    }
    for (what, held, rules) in audits {
        info!(event = "audited", held, rules, "audited {what}: {held} of {rules} rules hold");
    }
}

/// Says how an attempt ended, and what comes of that; nothing follows.
pub fn ended(span: &Span, outcome: &RunOutcome, took_ms: i64, next: Option<&str>) {
    note(span, outcome);
    let took = took(took_ms);
    let next = next.map(|next| format!("; {next}")).unwrap_or_default();
    span.in_scope(|| match outcome {
        RunOutcome::Succeeded { rows } => {
            info!(
                event = "ended",
                result = "succeeded",
                rows,
                took_ms,
                "succeeded after {took}: {rows} rows"
            );
        }
        RunOutcome::Failed { code, message, .. } => {
            let why = safe_message(code, message);
            error!(
                event = "ended",
                result = "failed",
                code,
                took_ms,
                "failed after {took} with {code}: {why}{next}"
            );
        }
        RunOutcome::Cancelled => {
            warn!(event = "ended", result = "cancelled", took_ms, "cancelled after {took}{next}");
        }
    });
}

/// Returns a length of real time, to a tenth of a second.
fn took(took_ms: i64) -> String {
    let tenths = took_ms.max(0) / 100;
    match tenths {
        0 => format!("{}ms", took_ms.max(0)),
        600.. => format!("{}m {}s", tenths / 600, tenths % 600 / 10),
        _ => format!("{}.{}s", tenths / 10, tenths % 10),
    }
}
