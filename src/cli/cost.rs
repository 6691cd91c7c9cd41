//! What computing is expected to take, and took, in words: for `backfill --dry-run`, `plan`, `runs` and `show`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hydromesh_core::cost::{Amount, Backfill, Costs, partitions_of, scaled};
use hydromesh_core::ids::{PipelineId, ProductId};
use hydromesh_core::model::{Environment, Price};
use hydromesh_core::plan::{Plan, Stretch, Wanted, Work};
use serde_json::{Value, json};

use super::book::Book;
use super::output::{Paint, Tone, ago, counted, length};
use super::{DONE, Failure, Format, print, print_json, runtime, say};
use crate::apply::lake_format;
use crate::clock::rfc3339;
use crate::cores::steps_at_once;

/// Said where there is no run to go by.
const UNKNOWN: &str = "unknown: nothing of it has succeeded here yet";

/// Says what a backfill would take, and asks for nothing.
pub fn dry_run(book: &Book, product: &ProductId, wanted: Wanted<'_>, format: Format) -> Result<u8, Failure> {
    let (expected, stretches) = book.costs.expect_range(&book.ledger, product, wanted, book.now_ms);
    let which = match wanted {
        Wanted::Range { from, to } => format!("from {from} to {to}"),
        Wanted::Values(values) => values.join(", "),
    };
    let sum = |of: fn(&Stretch) -> u64| stretches.iter().map(|(_, it)| of(it)).sum::<u64>();
    let (partitions, chunks) = (sum(|it| it.partitions), sum(|it| it.chunks));
    if partitions == 0 {
        return Err(Failure::usage(format!("{product} has no partition {which} that has ended")));
    }
    let settings = book.settings();
    let price = settings.as_ref().and_then(|it| it.cost.as_ref());
    let at_once = at_once(settings.as_ref());
    let bytes = bytes(book, product, &stretches);
    let wall_ms = expected.map(|it| it.wall_ms(chunks, at_once));
    if format == Format::Json {
        let expected = expected.map(|it| {
            let mut value = amount_json(&it, price);
            value["bytes"] = json!(bytes);
            value["wall_ms"] = json!(wall_ms);
            value
        });
        let mut value = json!({
            "product": product, "partitions": partitions, "chunks": chunks, "steps_at_once": at_once,
            "expected": expected,
        });
        match wanted {
            Wanted::Range { from, to } => (value["from"], value["to"]) = (json!(from), json!(to)),
            Wanted::Values(values) => value["values"] = json!(values),
        }
        print_json(&value);
        return Ok(DONE);
    }
    let paint = Paint::stdout();
    let mut text = format!("{} {which}\n", paint.text(Tone::Strong, &product.to_string()));
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {} {value}", paint.text(Tone::Faint, &format!("{name:<10}")));
    };
    line("to compute", &format!("{} in {}", several(partitions, "partition"), several(chunks, "chunk")));
    let about = |value: Option<String>| value.map_or_else(|| UNKNOWN.to_owned(), |it| format!("about {it}"));
    line("rows", &about(expected.map(|it| it.rows.to_string())));
    line(
        "size",
        &bytes.map_or_else(
            || "unknown: nothing is published yet".to_owned(),
            |it| format!("about {}", size(it)),
        ),
    );
    let time = expected.zip(wall_ms).map(|(it, wall_ms)| {
        format!("{} of steps, {} with {at_once} at once", length(it.work_ms), length(wall_ms))
    });
    line("time", &about(time));
    let money = match price {
        Some(price) => about(expected.map(|it| price.spoken(it.work_ms))),
        None => format!("unknown: mesh.yaml names no `cost` of {}", book.environment),
    };
    line("cost", &money);
    print(text.trim_end());
    say("nothing was asked for; without --dry-run it is");
    Ok(DONE)
}

/// Returns how many steps of a product may run at once, as far as this machine is like the controller's.
fn at_once(settings: Option<&Environment>) -> u64 {
    let limits = settings.map(|it| &it.limits);
    let all = limits.and_then(|it| it.steps).map_or(steps_at_once() as u64, u64::from);
    limits.and_then(|it| it.per_product).map_or(all, |most| all.min(u64::from(most)))
}

/// Returns the bytes that partitions will have, if they are like those that are there.
fn bytes(book: &Book, product: &ProductId, stretches: &[(PipelineId, Stretch)]) -> Option<u64> {
    let deployed = &book.ledger.deployed.get(product)?.product;
    runtime().ok()?.block_on(async {
        let lake = book.open_lake().await.ok()?;
        let mut bytes = 0_u64;
        for (pipeline, stretch) in stretches {
            let name = deployed.pipelines.get(&pipeline.name)?.output();
            let format = lake_format(deployed.outputs.get(name)?.format);
            let table = lake.table(&deployed.port(name).to_string(), format).ok()?;
            let (size, partitions) = table.weight().await.ok()?;
            bytes = bytes.saturating_add(scaled(size, partitions, stretch.partitions)?);
        }
        Some(bytes)
    })
}

/// What each change of a plan is expected to take.
pub struct PlanCosts {
    /// By product; `None` where it is unknown.
    of: BTreeMap<ProductId, Option<Amount>>,
    price: Option<Price>,
}

impl PlanCosts {
    /// Returns it, from the runs of a ledger.
    pub fn of(plan: &Plan, desired: &hydromesh_core::plan::Desired, costs: &Costs) -> Self {
        let computed = plan.changes.iter().filter(|it| it.partitions.values().any(|count| *count > 0));
        let of = computed.map(|change| {
            let product = desired.mesh.products.get(&change.product);
            (change.product.clone(), product.and_then(|it| costs.expect_change(it, &change.partitions)))
        });
        let price = desired.mesh.environments.get(&plan.environment).and_then(|it| it.cost.clone());
        Self { of: of.collect(), price }
    }

    /// Returns what a product's change takes, for a bracket; nothing where nothing is computed.
    pub fn spoken(&self, product: &ProductId) -> String {
        match self.of.get(product) {
            None => String::new(),
            Some(None) => ", time unknown".to_owned(),
            Some(Some(amount)) => format!(", about {}", self.words(amount)),
        }
    }

    /// Returns what all of it takes, as a line; nothing where nothing is computed.
    pub fn total(&self) -> Option<String> {
        let known: Vec<&Amount> = self.of.values().flatten().collect();
        let unknown = self.of.len() - known.len();
        let sum = known.iter().fold(Amount::default(), |sum, it| sum.and(**it));
        match (known.len(), unknown) {
            (0, 0) => None,
            (0, _) => Some("what that takes is unknown: nothing of it has succeeded here yet".to_owned()),
            (_, 0) => Some(format!("in all about {}", self.words(&sum))),
            (_, _) => Some(format!(
                "in all about {}, and {} unknown",
                self.words(&sum),
                counted(unknown, "product")
            )),
        }
    }

    fn words(&self, amount: &Amount) -> String {
        let money =
            self.price.as_ref().map(|it| format!(", {}", it.spoken(amount.work_ms))).unwrap_or_default();
        format!("{} of steps, {}{money}", length(amount.work_ms), several(amount.rows, "row"))
    }

    /// Returns it by product; null where it is unknown.
    pub fn json(&self) -> Value {
        let of = self.of.iter();
        let of =
            of.map(|(id, it)| (id.to_string(), json!(it.map(|it| amount_json(&it, self.price.as_ref())))));
        Value::Object(of.collect())
    }
}

/// Returns an amount as JSON, with what it costs where somebody says.
pub fn amount_json(amount: &Amount, price: Option<&Price>) -> Value {
    let cost = price.map(|it| json!({"currency": it.currency, "micro": it.micro(amount.work_ms)}));
    json!({"partitions": amount.partitions, "rows": amount.rows, "work_ms": amount.work_ms, "cost": cost})
}

/// Says how a backfill does against what was expected of it.
pub fn backfill_spoken(it: &Backfill, price: Option<&Price>, now_ms: i64) -> String {
    let all = match it.values.len() {
        0 => partitions_of(&Work::Partitions { from: it.from.clone(), to: it.to.clone() }),
        values => Some(values as u64),
    };
    let of = all.map(|all| format!(" of {}", several(all, "partition"))).unwrap_or_default();
    let against = |actual: String, expected: Option<String>| match expected {
        Some(expected) => format!("{actual}, expected about {expected}"),
        None => format!("{actual}, expected unknown"),
    };
    let took = against(length(it.actual.work_ms), it.expected.map(|it| length(it.work_ms)));
    let money = price.map(|price| {
        let spoken = against(price.spoken(it.actual.work_ms), it.expected.map(|it| price.spoken(it.work_ms)));
        format!("; {spoken}")
    });
    let which = if it.values.is_empty() { format!("{} to {}", it.from, it.to) } else { it.values.join(", ") };
    let when = ago(it.at_ms, now_ms);
    format!("{which}, {when}: {}{of}; {took}{}", it.actual.partitions, money.unwrap_or_default())
}

/// Returns a backfill as JSON.
pub fn backfill_json(it: &Backfill, price: Option<&Price>) -> Value {
    let mut value = json!({
        "command": it.id, "from": it.from, "to": it.to, "asked": rfc3339(it.at_ms),
        "expected": it.expected.map(|it| amount_json(&it, price)),
        "actual": amount_json(&it.actual, price),
    });
    if !it.values.is_empty() {
        value["values"] = json!(it.values);
    }
    value
}

/// Returns `1 row` or `2 rows`.
pub fn several(count: u64, noun: &str) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), noun)
}

/// Returns a number of bytes for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_their_largest_unit() {
        let cases = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_backfill_says_what_it_took_against_what_was_expected() {
        let amount = |partitions, work_ms| Amount { partitions, rows: 0, work_ms };
        let mut backfill = Backfill {
            id: "1".to_owned(),
            from: "2026-08-01".to_owned(),
            to: "2026-08-31".to_owned(),
            values: Vec::new(),
            at_ms: 0,
            expected: Some(amount(31, 600_000)),
            actual: amount(12, 720_000),
        };
        let price = Price { per_hour_micro: 400_000, currency: "EUR".to_owned() };
        assert_eq!(
            backfill_spoken(&backfill, Some(&price), 60_000),
            "2026-08-01 to 2026-08-31, 1m ago: 12 of 31 partitions; 12m, expected about 10m; EUR 0.08, expected about EUR 0.07"
        );
        backfill.expected = None;
        assert_eq!(
            backfill_spoken(&backfill, None, 60_000),
            "2026-08-01 to 2026-08-31, 1m ago: 12 of 31 partitions; 12m, expected unknown"
        );
    }
}
