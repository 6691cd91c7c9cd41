//! `hydromesh why PRODUCT` and `hydromesh why-not PRODUCT`.

use clap::Args;
use hydromesh_core::diag::codes;
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{Decision, ErrorKind, Outcome, Retirement};
use hydromesh_core::plan::{StepKey, Work, due_steps, no_place, upstream_ports};
use serde::Serialize;
use serde_json::json;

use super::book::{Book, BookArgs};
use super::health::{age_text, pause_text, retired_text, survey};
use super::output::{Paint, Tone, ago, counted, instant, short};
use super::{DONE, Failure, Format, print, print_json};

/// Arguments of `why` and `why-not`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The product: `domain/product`, or its name alone where one domain has it.
    product: String,
    #[command(flatten)]
    book: BookArgs,
}

/// One sentence of an answer, with what to do about it.
#[derive(Debug, Serialize)]
struct Reason {
    /// What it is about: `commit`, `gate`, `input`, `step`, `data`, `schedule`, `alert`.
    about: &'static str,
    /// For people.
    text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    next: Vec<String>,
    #[serde(skip)]
    tone: Tone,
}

fn reason(about: &'static str, tone: Tone, text: impl Into<String>) -> Reason {
    Reason { about, text: text.into(), next: Vec::new(), tone }
}

impl Reason {
    fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }
}

/// Runs `why`: how the product came to be as it is.
pub fn why(args: &WhyArgs) -> Result<u8, Failure> {
    let book = Book::open(&args.book)?;
    let id = book.product(&args.product)?;
    Ok(answer(args, &id, &story(&book, &id), ""))
}

/// Runs `why-not`: what keeps the product from being deployed, computed or fresh.
pub fn why_not(args: &WhyArgs) -> Result<u8, Failure> {
    let book = Book::open(&args.book)?;
    let id = book.product(&args.product)?;
    let reasons = obstacles(&book, &id);
    let otherwise =
        "nothing is in its way: it is deployed as the last commit asks, and its data is up to date";
    Ok(answer(args, &id, &reasons, otherwise))
}

fn answer(args: &WhyArgs, id: &ProductId, reasons: &[Reason], otherwise: &str) -> u8 {
    if args.book.format == Format::Json {
        print_json(&json!({"product": id, "reasons": reasons}));
        return DONE;
    }
    let paint = Paint::stdout();
    let mut lines = vec![paint.text(Tone::Strong, &id.to_string())];
    for it in reasons {
        lines.push(format!(
            "  {} {}",
            paint.text(Tone::Faint, &format!("{:<8}", it.about)),
            paint.text(it.tone, &it.text)
        ));
        lines.extend(it.next.iter().map(|next| format!("           -> {next}")));
    }
    if reasons.is_empty() {
        lines.push(format!("  {}", paint.text(Tone::Good, otherwise)));
    }
    print(&lines.join("\n"));
    DONE
}

fn story(book: &Book, id: &ProductId) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let Some(deployed) = book.ledger.deployed.get(id) else {
        match (book.ledger.retired.get(id), retired_text(book, id)) {
            (Some(retired), Some(text)) => {
                reasons.push(gone(book, id, retired, &text));
            }
            _ => reasons.push(reason("commit", Tone::Odd, "it is not deployed")),
        }
        reasons.extend(obstacles(book, id));
        return reasons;
    };
    let commit = book.ledger.commits.iter().find(|it| it.commit == deployed.commit);
    let message = commit.map_or_else(String::new, |it| format!(" \"{}\" by {}", it.message, it.author));
    let text = format!(
        "generation {} runs since {}, from commit {}{message}",
        deployed.generation,
        instant(deployed.at_ms),
        short(&deployed.commit)
    );
    reasons.push(reason("commit", Tone::Plain, text));
    let outcome = book
        .ledger
        .outcomes
        .iter()
        .rev()
        .find(|(commit, product, ..)| *commit == deployed.commit && product.as_ref() == Some(id));
    if let Some((.., why)) = outcome.filter(|(.., why)| !why.is_empty()) {
        reasons.push(reason("commit", Tone::Plain, format!("that commit changed it: {why}")));
    }
    let decision = book.ledger.decisions.iter().map(|(_, it)| it).find(|it| it.id == deployed.decision);
    if let Some(decision) = decision {
        let warned = match decision.warnings.len() {
            0 => String::new(),
            n => format!(", with {}", counted(n, "warning")),
        };
        let text =
            format!("decision {} allowed it under policies {}{warned}", decision.id, short_digest(decision));
        reasons.push(
            reason("gate", Tone::Plain, text).next(format!("hydromesh policy explain {}", decision.id)),
        );
    }
    for name in deployed.product.outputs.keys() {
        let port = deployed.product.port(name);
        let Some(state) = book.ledger.ports.get(&port) else {
            reasons.push(reason("data", Tone::Odd, format!("{port} has published nothing yet")));
            continue;
        };
        let newest = state.partitions.values().max_by_key(|it| it.at_ms);
        let text = match newest {
            Some(it) => {
                let inputs: Vec<String> = it
                    .published
                    .inputs
                    .iter()
                    .map(|(port, version)| format!("{port} at version {version}"))
                    .collect();
                let from = if inputs.is_empty() { "files".to_owned() } else { inputs.join(", ") };
                let partition = it
                    .published
                    .partition
                    .as_ref()
                    .map_or_else(String::new, |it| format!(" (partition {it})"));
                let when = ago(it.at_ms, book.now_ms);
                let taken = it.published.taken.as_ref().map_or_else(String::new, |taken| {
                    let computed = instant(taken.computed_ms);
                    format!(", taken over from {}, computed at {computed} by its {}", taken.from, taken.run)
                });
                format!(
                    "{port} is at version {}, published {when} by {}{partition} from {from}{taken}",
                    state.version, it.published.run
                )
            }
            None => format!("{port} is at version {}", state.version),
        };
        reasons.push(reason("data", Tone::Plain, text));
        if let Some(through) = state.newest_data_ms {
            reasons.push(reason("data", Tone::Plain, format!("{port} is usable up to {}", instant(through))));
        }
    }
    for (port, found) in book.ledger.alterations.iter().filter(|(port, _)| port.product == *id) {
        let stays = book.ledger.altered.contains_key(port);
        let since = if stays { "and is not put right yet" } else { "and was published again since" };
        let tone = if stays { Tone::Bad } else { Tone::Plain };
        let text = format!(
            "{port} was changed by somebody else ({}), found {}, {since}",
            found.what,
            ago(found.at_ms, book.now_ms)
        );
        reasons.push(reason("table", tone, text));
    }
    for (run, step) in book.ledger.running.iter().filter(|(_, step)| step.pipeline.product == *id) {
        let since =
            book.begun.get(run).map_or_else(String::new, |it| format!(" since {}", instant(it.at_ms)));
        reasons.push(reason("step", Tone::Plain, format!("{run} does {step}{since}")));
    }
    reasons.extend(obstacles(book, id));
    reasons
}

/// Says that a product left, by whose commit, and what becomes of its tables.
fn gone(book: &Book, id: &ProductId, retired: &Retirement, text: &str) -> Reason {
    let commit = book.ledger.commits.iter().find(|it| it.commit == retired.commit);
    let by = commit.map_or_else(String::new, |it| format!(" \"{}\" by {}", it.message, it.author));
    let text = format!("it {text} (commit {}{by})", short(&retired.commit));
    let told = reason("commit", Tone::Odd, text);
    match (retired.due(), book.ledger.pause_of(id, book.now_ms)) {
        (Some(_), None) => told.next(format!("to hold that: hydromesh pause {id}")),
        (Some(_), Some(_)) => told.next(format!("hydromesh resume {id}")),
        (None, _) => told,
    }
}

fn short_digest(decision: &Decision) -> &str {
    short(decision.policy_digest.trim_start_matches("sha256:"))
}

/// Returns what is in the way, nearest cause first.
fn obstacles(book: &Book, id: &ProductId) -> Vec<Reason> {
    let mut reasons = Vec::new();
    refused(book, id, &mut reasons);
    if !book.ledger.deployed.contains_key(id) {
        return reasons;
    }
    for rule in book.ledger.objections(id) {
        let does = if rule.running { "stops" } else { "no longer allows" };
        let text = format!("the rule {} {does} what is deployed: {}", rule.rule, rule.message);
        reasons.push(reason("gate", Tone::Bad, text).next(rule.remediation.trim().to_owned()));
    }
    for (step, attempts) in book.ledger.failed.iter().filter(|(step, _)| step.pipeline.product == *id) {
        if attempts.is_by_hand() {
            let text = format!("{step} was {}, {}", attempts.message, ago(attempts.at_ms, book.now_ms));
            reasons.push(reason("step", Tone::Odd, text).next(format!("hydromesh retry {id}")));
            continue;
        }
        let text = format!(
            "{step} failed {} with {}: {}",
            if attempts.count == 1 { "once".to_owned() } else { format!("{} times", attempts.count) },
            attempts.code,
            attempts.message
        );
        let fault = match attempts.kind {
            // What stands in the way is no file of the mesh, so that a push alone may not help.
            _ if attempts.code == codes::STREAM_SOURCE.id() => {
                format!(
                    "bring the topic back as it was, with its events, or correct its name, the port or the contract and \
                     push; to have it looked for at once: hydromesh retry {id}"
                )
            }
            ErrorKind::User => {
                "the same attempt would fail again: correct the query, the data or the contract and push"
                    .to_owned()
            }
            ErrorKind::External => format!("another system failed; when it is back: hydromesh retry {id}"),
            ErrorKind::Internal => {
                format!("this is a bug of Hydromesh: please report it; hydromesh retry {id} tries again")
            }
        };
        reasons.push(reason("step", Tone::Bad, text).next(fault));
    }
    let (due, waiting) = due_steps(&book.ledger, book.now_ms);
    if let Some(pause) = book.ledger.pause_of(id, book.now_ms) {
        let text = format!("{}, {}", pause_text(pause), ago(pause.at_ms, book.now_ms));
        let next = format!("hydromesh resume {id}");
        reasons.push(reason("pause", Tone::Odd, text).next(next));
    }
    // What is held was told of above.
    for it in waiting.iter().filter(|it| it.pipeline.product == *id && !it.held) {
        match it.until_ms {
            Some(until) => {
                let text = format!("{}: {} at {}", it.pipeline.name, it.why, instant(until));
                reasons.push(reason("schedule", Tone::Plain, text));
            }
            None => reasons.push(root(
                book,
                id,
                reason("input", Tone::Odd, format!("{}: {}", it.pipeline.name, it.why)),
            )),
        }
    }
    for step in due.iter().filter(|step| step.key.pipeline.product == *id && step.key.work != Work::Follow) {
        if !book.ledger.running.values().any(|running| running.overlaps(&step.key)) {
            reasons.push(reason(
                "step",
                Tone::Plain,
                format!(
                    "{} is due ({}) and waits for a free place{}",
                    step.key,
                    step.reason,
                    taken(book, &step.key)
                ),
            ));
        }
    }
    let conditions = survey(book);
    if let Some(late) = conditions.iter().find(|it| it.id == *id && it.freshness.late_ms().is_some()) {
        let (_, text) = age_text(&late.freshness);
        let through = late.freshness.through_ms.map_or_else(|| "nothing published yet".to_owned(), instant);
        reasons.push(root(
            book,
            id,
            reason("data", Tone::Bad, format!("{text}: its data is usable up to {through}")),
        ));
    }
    if let Some(until) = book.ledger.silenced.get(id).filter(|until| **until > book.now_ms) {
        reasons.push(reason(
            "alert",
            Tone::Odd,
            format!("its alerts are silenced until {}", instant(*until)),
        ));
    }
    reasons
}

/// Adds what the head commit did not do to the product, and why.
fn refused(book: &Book, id: &ProductId, reasons: &mut Vec<Reason>) {
    let head = book.ledger.head.as_deref().unwrap_or_default();
    let newest = book
        .ledger
        .outcomes
        .iter()
        .rev()
        .find(|(commit, product, ..)| commit == head && product.as_ref() == Some(id));
    let Some((commit, _, outcome, why)) = newest else { return };
    let stays = if book.ledger.deployed.contains_key(id) { "; what was deployed before goes on" } else { "" };
    match outcome {
        Outcome::Applied | Outcome::Superseded => {}
        Outcome::Denied => {
            let decision = book
                .ledger
                .decisions
                .iter()
                .rev()
                .map(|(_, it)| it)
                .find(|it| it.product == *id && it.commit == *commit && !it.allow);
            let Some(decision) = decision else {
                reasons.push(reason(
                    "gate",
                    Tone::Bad,
                    format!("commit {} was denied: {why}{stays}", short(commit)),
                ));
                return;
            };
            for it in &decision.violations {
                let mut denial = reason(
                    "gate",
                    Tone::Bad,
                    format!("{} denies commit {}: {}{stays}", it.rule, short(commit), it.message),
                );
                if !it.remediation.is_empty() {
                    denial = denial.next(it.remediation.clone());
                }
                reasons.push(denial.next(format!("hydromesh policy explain {}", decision.id)));
            }
        }
        Outcome::Held => {
            reasons.push(
                reason("commit", Tone::Odd, format!("commit {} is held: {why}{stays}", short(commit)))
                    .next("change the readers in the same commit, or keep what they read"),
            );
        }
        Outcome::Broken => {
            let code = why.split_whitespace().next().unwrap_or_default();
            reasons.push(
                reason("commit", Tone::Bad, format!("commit {} does not check: {why}{stays}", short(commit)))
                    .next(format!("hydromesh check; hydromesh explain {code}")),
            );
        }
    }
}

/// Adds the furthest upstream product that is in trouble itself, which is where to look first.
/// Says what takes the places that a step waits for, where the mesh bounds them.
fn taken(book: &Book, step: &StepKey) -> String {
    let Some((limit, takers)) = no_place(&book.ledger, step) else { return String::new() };
    let takers: Vec<String> = takers.into_iter().map(ToString::to_string).collect();
    format!(": {limit}, taken by {}", takers.join(", "))
}

fn root(book: &Book, id: &ProductId, reason: Reason) -> Reason {
    let mut at = id.clone();
    let mut seen = std::collections::BTreeSet::from([id.clone()]);
    let (_, waiting) = due_steps(&book.ledger, book.now_ms);
    let troubled = |id: &ProductId| {
        !book.ledger.deployed.contains_key(id)
            || book.ledger.failed.keys().any(|step| step.pipeline.product == *id)
            || waiting.iter().any(|it| it.pipeline.product == *id && it.until_ms.is_none())
    };
    while let Some(next) = book.ledger.deployed.get(&at).and_then(|deployed| {
        upstream_ports(&deployed.product)
            .into_iter()
            .map(|port| port.product)
            .find(|id| !seen.contains(id) && troubled(id))
    }) {
        seen.insert(next.clone());
        at = next;
    }
    if at == *id { reason } else { reason.next(format!("it begins at {at}: hydromesh why-not {at}")) }
}
