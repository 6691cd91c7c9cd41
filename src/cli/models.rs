//! `hydromesh models [PRODUCT]`.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::book::{Book, BookArgs};
use super::output::{Paint, Table, Tone, ago, plain};
use super::{DONE, Failure, Format, print, print_json, say};
use crate::clock::rfc3339;

/// Arguments of `models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// Only models of this product.
    product: Option<String>,
    #[command(flatten)]
    book: BookArgs,
}

/// Runs the verb.
pub fn run(args: &ModelsArgs) -> Result<u8, Failure> {
    let book = Book::open(&args.book)?;
    let product = args.product.as_deref().map(|text| book.product(text)).transpose()?;
    let models =
        book.ledger.models.iter().filter(|(id, _)| product.as_ref().is_none_or(|product| product == *id));
    let models: Vec<_> = models.collect();
    if args.book.format == Format::Json {
        let products: Vec<Value> = models
            .iter()
            .map(|(id, models)| {
                let trained: Vec<Value> =
                    models.trained.iter().map(|(at, it)| json!({"at": rfc3339(*at), "model": it})).collect();
                let champion =
                    models.champion.map(|(version, at)| json!({"version": version, "since": rfc3339(at)}));
                let retrain = book.ledger.retrain.get(*id).map(|(at, decision, reason)| {
                    json!({"at": rfc3339(*at), "decision": decision, "reason": reason})
                });
                json!({"product": id, "champion": champion, "trained": trained, "retrain": retrain})
            })
            .collect();
        print_json(&json!({"products": products}));
        return Ok(DONE);
    }
    if models.is_empty() {
        say("no model was trained yet");
        return Ok(DONE);
    }
    let paint = Paint::stdout();
    let mut text = String::new();
    for (id, models) in models {
        let _ = writeln!(text, "{}", paint.text(Tone::Strong, &id.to_string()));
        let mut table =
            Table::new(&["VERSION", "", "METRIC", "CHAMPION HAD", "ROWS", "BY", "TRAINED", "WHY"]);
        for (at, it) in models.trained.iter().rev() {
            let champion = models.champion.is_some_and(|(version, _)| version == it.version);
            let mark = if champion { (Tone::Good, "champion".to_owned()) } else { plain("") };
            table.row([
                plain(it.version.to_string()),
                mark,
                plain(format!("{} {:.4}", it.metric, it.value)),
                plain(it.champion_value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))),
                plain(format!("{} + {} held out", it.rows.0, it.rows.1)),
                plain(it.algorithm.as_deref().unwrap_or("logistic_regression")),
                plain(ago(*at, book.now_ms)),
                plain(&it.reason),
            ]);
        }
        for line in table.render(paint).lines() {
            let _ = writeln!(text, "  {line}");
        }
        if let Some((at, decision, reason)) = book.ledger.retrain.get(id) {
            let _ = writeln!(
                text,
                "  last retraining decision: {decision}, {} ({reason})",
                ago(*at, book.now_ms)
            );
        }
    }
    print(text.trim_end());
    Ok(DONE)
}
