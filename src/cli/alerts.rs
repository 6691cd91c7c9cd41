//! `hydromesh alerts list | why ID | silence PRODUCT --for 2h`.

use clap::{Args, Subcommand};
use hydromesh_core::control::outbox_id;
use hydromesh_core::ledger::Verb;
use hydromesh_core::ledger::{Alert, AlertState, EpisodeRecord};
use serde_json::{Value, json};

use super::ask::{AskArgs, ask};
use super::book::{Book, BookArgs};
use super::output::{Paint, Table, Tone, ago, counted, instant, plain};
use super::{DONE, Failure, Format, print, print_json, say};
use crate::clock::rfc3339;

/// Verbs of `alerts`.
#[derive(Debug, Subcommand)]
pub enum AlertsVerb {
    /// List alerts: what is wrong, since when, and who was told.
    List(ListArgs),
    /// Say why an alert fired, who was told, and what depends on it.
    Why(WhyArgs),
    /// Send nothing new about a product for a time; what fired still resolves.
    Silence(SilenceArgs),
}

/// Arguments of `alerts list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those that are not over.
    #[arg(long)]
    open: bool,
    /// At most so many, newest first.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: usize,
    #[command(flatten)]
    book: BookArgs,
}

/// Arguments of `alerts why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The alert's id, or enough of it that only one fits.
    id: String,
    #[command(flatten)]
    book: BookArgs,
}

/// Arguments of `alerts silence`.
#[derive(Debug, Args)]
pub struct SilenceArgs {
    /// The product: `domain/product`, or its name alone where one domain has it.
    product: String,
    /// For how long, such as `30m`, `2h` or `1d`.
    #[arg(long = "for", value_name = "DURATION")]
    span: String,
    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the verb.
pub fn run(verb: &AlertsVerb) -> Result<u8, Failure> {
    match verb {
        AlertsVerb::List(args) => list(args),
        AlertsVerb::Why(args) => why(args),
        AlertsVerb::Silence(args) => {
            let (product, until_ms) = (args.ask.product(&args.product)?, args.ask.after(&args.span)?);
            ask(&args.ask, Verb::Silence { product, until_ms })
        }
    }
}

fn state(state: AlertState) -> (Tone, &'static str) {
    match state {
        AlertState::Firing => (Tone::Bad, "firing"),
        AlertState::Held => (Tone::Odd, "held back"),
        AlertState::Resolved => (Tone::Good, "resolved"),
    }
}

fn began(episode: &EpisodeRecord) -> i64 {
    episode.transitions.first().map_or(0, |(at, _)| *at)
}

/// Returns the summary of the newest transition that says what is wrong; the last one may only say that it is over.
fn trouble(episode: &EpisodeRecord) -> &str {
    let told = episode.transitions.iter().rev().find(|(_, alert)| alert.state != AlertState::Resolved);
    told.map_or("", |(_, alert)| alert.summary.as_str())
}

fn list(args: &ListArgs) -> Result<u8, Failure> {
    let book = Book::open(&args.book)?;
    let mut episodes: Vec<(&String, &EpisodeRecord)> =
        book.ledger.episodes.iter().filter(|(_, episode)| !args.open || episode.is_open()).collect();
    episodes.sort_by_key(|(id, episode)| (std::cmp::Reverse(began(episode)), (*id).clone()));
    let all = episodes.len();
    episodes.truncate(args.limit);
    if args.book.format == Format::Json {
        let rows: Vec<Value> = episodes
            .iter()
            .map(|(id, episode)| {
                let last = episode.last();
                json!({
                    "id": id,
                    "product": last.product,
                    "kind": last.kind,
                    "subject": last.subject,
                    "state": last.state,
                    "since": rfc3339(began(episode)),
                    "summary": trouble(episode),
                    "caused_by": last.caused_by,
                    "to": last.targets,
                })
            })
            .collect();
        print_json(&json!({"alerts": rows, "in_all": all}));
        return Ok(DONE);
    }
    if episodes.is_empty() {
        say(&format!("no {}alerts", if args.open { "open " } else { "" }));
        return Ok(DONE);
    }
    let paint = Paint::stdout();
    let mut table = Table::new(&["STATE", "KIND", "SINCE", "WHAT"]);
    let mut ids = Vec::new();
    for (id, episode) in &episodes {
        let (tone, word) = state(episode.last().state);
        let since = ago(began(episode), book.now_ms);
        table.row([
            (tone, word.to_owned()),
            plain(episode.last().kind.as_str()),
            plain(since),
            plain(trouble(episode)),
        ]);
        ids.push(*id);
    }
    let rendered = table.render(paint);
    // The id is long and for copying: below its alert, not in the middle of the table.
    let mut lines = rendered.lines();
    let mut text: Vec<String> = lines.next().map(str::to_owned).into_iter().collect();
    for (line, id) in lines.zip(ids) {
        text.push(line.to_owned());
        text.push(paint.text(Tone::Faint, &format!("  hydromesh alerts why {id}")));
    }
    print(&text.join("\n"));
    if all > args.limit {
        say(&format!("{} of {}; --limit shows more", args.limit, counted(all, "alert")));
    }
    Ok(DONE)
}

fn why(args: &WhyArgs) -> Result<u8, Failure> {
    let book = Book::open(&args.book)?;
    let fitting: Vec<&String> = match book.ledger.episodes.get_key_value(&args.id) {
        Some((id, _)) => vec![id],
        None => book.ledger.episodes.keys().filter(|id| id.contains(&args.id)).collect(),
    };
    let id = match fitting.as_slice() {
        [one] => *one,
        [] => {
            return Err(Failure::usage(format!(
                "there is no alert `{}`; see `hydromesh alerts list`",
                args.id
            )));
        }
        many => {
            let names: Vec<&str> = many.iter().take(5).map(|id| id.as_str()).collect();
            return Err(Failure::usage(format!(
                "`{}` fits {} alerts: {} ...",
                args.id,
                many.len(),
                names.join(", ")
            )));
        }
    };
    let Some(episode) = book.ledger.episodes.get(id) else {
        return Err(Failure::usage(format!("there is no alert `{}`", args.id)));
    };
    if args.book.format == Format::Json {
        let transitions: Vec<Value> = episode
            .transitions
            .iter()
            .map(|(at, alert)| {
                json!({
                    "at": rfc3339(*at), "state": alert.state, "summary": alert.summary,
                    "details": alert.details.iter().map(|(label, text)| json!({"label": label, "text": text})).collect::<Vec<_>>(),
                    "caused_by": alert.caused_by, "messages": messages(&book, id, alert),
                })
            })
            .collect();
        let last = episode.last();
        print_json(&json!({
            "id": id, "product": last.product, "kind": last.kind, "subject": last.subject, "state": last.state,
            "explains": explained(&book, id), "transitions": transitions,
        }));
        return Ok(DONE);
    }
    let paint = Paint::stdout();
    let (tone, word) = state(episode.last().state);
    let mut lines = vec![
        format!("{}  {}", paint.text(Tone::Strong, id), paint.text(tone, word)),
        trouble(episode).to_owned(),
    ];
    if let Some((_, alert)) =
        episode.transitions.iter().rev().find(|(_, it)| it.state != AlertState::Resolved)
    {
        lines.push(String::new());
        let width = alert.details.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        lines.extend(alert.details.iter().map(|(label, text)| {
            format!("  {} {text}", paint.text(Tone::Faint, &format!("{label:<width$}")))
        }));
    }
    lines.push(String::new());
    for (at, alert) in &episode.transitions {
        let (tone, word) = state(alert.state);
        lines.push(format!(
            "  {} {}  {}",
            instant(*at),
            paint.text(tone, &format!("{word:<9}")),
            alert.summary
        ));
        for message in messages(&book, id, alert) {
            let to = message.get("to").and_then(Value::as_str).unwrap_or_default();
            lines.push(match message.get("sent").and_then(Value::as_str) {
                Some(at) => format!("    told {to} at {at}"),
                None => format!("    {to} was not told yet"),
            });
        }
    }
    if let Some(cause) = &episode.last().caused_by {
        lines.push(format!("  it is explained by {cause}: nobody is woken twice"));
    }
    let explained = explained(&book, id);
    if !explained.is_empty() {
        lines.push(format!("  it explains {}", explained.join(", ")));
    }
    lines.push(format!("\n  next: hydromesh why-not {}", episode.last().product));
    print(&lines.join("\n"));
    Ok(DONE)
}

/// Returns the messages of a transition with when they were accepted; a held one sends none.
fn messages(book: &Book, episode: &str, alert: &Alert) -> Vec<Value> {
    if alert.state == AlertState::Held {
        return Vec::new();
    }
    let message = |to: &String| {
        let outbox = outbox_id(episode, alert.transition, to);
        let sent = book.ledger.sent.get(&outbox).map(|at| rfc3339(*at));
        json!({"to": to, "sent": sent, "receipt": book.receipts.get(&outbox)})
    };
    alert.targets.iter().map(message).collect()
}

/// Returns the episodes that this one explains.
fn explained<'a>(book: &'a Book, id: &str) -> Vec<&'a str> {
    let episodes = book.ledger.episodes.iter();
    episodes.filter(|(_, it)| it.last().caused_by.as_deref() == Some(id)).map(|(id, _)| id.as_str()).collect()
}
