//! `hydromesh list`.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::book::{Book, BookArgs};
use super::health::{Condition, Health, age_text, ending, is_past, survey, sync_tone};
use super::output::{Paint, Table, Tone, ago, instant, plain};
use super::{DONE, Failure, Format, clock, print, print_json, say};
use crate::clock::rfc3339;
use crate::preview::{Note, Shelf};

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only products of this domain.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// The previews of the state folder instead, with age and end.
    #[arg(long, conflicts_with_all = ["domain", "env"])]
    previews: bool,
    #[command(flatten)]
    book: BookArgs,
}

/// Runs the verb.
pub fn run(args: &ListArgs) -> Result<u8, Failure> {
    if args.previews {
        return previews(args);
    }
    let book = Book::open(&args.book)?;
    let mut conditions = survey(&book);
    // What was dropped is only history.
    conditions.retain(|it| !is_past(&book, &it.id));
    if let Some(domain) = &args.domain {
        conditions.retain(|it| it.id.domain.as_str() == domain);
    }
    match args.book.format {
        Format::Json => {
            let products: Vec<Value> = conditions.iter().map(condition_json).collect();
            print_json(&json!({"environment": book.environment, "products": products}));
        }
        Format::Human if conditions.is_empty() => {
            say("nothing is deployed yet; `hydromesh status` says how far the controller is");
        }
        Format::Human => print(&table(&conditions, &book)),
    }
    Ok(DONE)
}

/// Lists previews. One that has expired is there until somebody removes it, and told as such.
fn previews(args: &ListArgs) -> Result<u8, Failure> {
    let now_ms = clock(args.book.clock.as_deref())?.now_ms();
    let notes = Shelf::of(&args.book.state).notes();
    if args.book.format == Format::Json {
        let one = |it: &Note| {
            json!({
                "preview": it.preview, "parent": it.parent, "ref": it.r#ref, "created": rfc3339(it.created_ms),
                "expires": rfc3339(it.expires_ms), "expired": it.expires_ms <= now_ms,
            })
        };
        print_json(&json!({"previews": notes.iter().map(one).collect::<Vec<_>>()}));
        return Ok(DONE);
    }
    if notes.is_empty() {
        say("there are no previews; `hydromesh apply --env preview/NAME` builds one");
        return Ok(DONE);
    }
    let mut table = Table::new(&["PREVIEW", "OVER", "OF", "BEGAN", "LIVES UNTIL"]);
    for it in &notes {
        let expired = it.expires_ms <= now_ms;
        let end = if expired { (Tone::Odd, "expired".to_owned()) } else { plain(instant(it.expires_ms)) };
        let name = plain(it.preview.to_string());
        table.row([name, plain(&it.parent), plain(&it.r#ref), plain(ago(it.created_ms, now_ms)), end]);
    }
    print(&table.render(Paint::stdout()));
    Ok(DONE)
}

fn table(conditions: &[Condition<'_>], book: &Book) -> String {
    let mut table =
        Table::new(&["PRODUCT", "KIND", "SYNC", "HEALTH", "DATA THROUGH", "FRESHNESS", "LAST RUN"]);
    for it in conditions {
        let sync = (sync_tone(it.sync), it.sync.word().to_owned());
        let fit = match it.pause {
            Some(pause) => (
                if it.fit.tone() == Tone::Bad { Tone::Bad } else { Tone::Odd },
                format!(
                    "{}, {}",
                    it.fit.word(),
                    if pause.is_whole() { "paused" } else { "backfills paused" }
                ),
            ),
            None => (it.fit.tone(), it.fit.word().to_owned()),
        };
        let through = it.freshness.through_ms.map_or_else(|| "-".to_owned(), instant);
        let last = match &it.last_run {
            None if !it.running.is_empty() => plain("running"),
            None => (Tone::Faint, "-".to_owned()),
            Some(run) => {
                let (tone, word) = ending(run.outcome);
                (tone, format!("{word} {}", ago(run.at_ms, book.now_ms)))
            }
        };
        table.row([
            plain(it.id.to_string()),
            plain(it.kind()),
            sync,
            fit,
            plain(through),
            age_text(&it.freshness),
            last,
        ]);
    }
    let mut text = table.render(Paint::stdout());
    if conditions.iter().any(|it| it.health < Health::Working) {
        text.push_str("\n\n`hydromesh why-not PRODUCT` says what is in the way of those that are not ok.");
    }
    for it in conditions.iter().filter(|it| it.health == Health::Retired) {
        let _ = write!(text, "\n{} {}", it.id, it.why);
    }
    text
}

/// Returns a condition as JSON.
pub fn condition_json(it: &Condition<'_>) -> Value {
    json!({
        "product": it.id,
        "kind": it.kind(),
        "status": it.health,
        "why": it.why,
        "sync": it.sync,
        "sync_reason": it.sync_why,
        "health": it.fit,
        "health_reason": it.fit_why,
        "paused": it.pause.map(|it| json!({
            "backfills": it.backfills, "actor": it.actor, "reason": it.reason, "since": rfc3339(it.at_ms), "until": it.until_ms.map(rfc3339),
        })),
        "deployed": it.deployed.is_some(),
        "data_through": it.freshness.through_ms.map(rfc3339),
        "progress": it.progress.iter().map(|it| json!({
            "port": it.port, "left": it.left, "of": it.of, "left_ms": it.left_ms, "failed": it.failed,
        })).collect::<Vec<_>>(),
        "age_ms": it.freshness.age_ms,
        "promise_ms": it.freshness.promise_ms,
        "late": it.freshness.late_ms().is_some(),
        "running": it.running,
        "last_run": it.last_run.as_ref().map(|run| json!({
            "run": run.run,
            "step": run.step,
            "ended": rfc3339(run.at_ms),
            "took_ms": run.took_ms,
            "result": run.outcome,
        })),
    })
}
