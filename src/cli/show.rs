//! `hydromesh show PRODUCT`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::Args;
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::{Deployed, PortState, Retirement, RuleOutcome};
use hydromesh_core::model::{
    Classification, InputSource, LogicalType, OutputPort, Pipeline, Price, Product, QualitySeverity, SlaKind,
};
use hydromesh_core::time::Span;
use serde_json::{Value, json};

use super::book::{Book, BookArgs};
use super::cost::{backfill_json, backfill_spoken, several};
use super::health::{Condition, Health, kind_name, survey};
use super::list::condition_json;
use super::output::{Paint, Table, Tone, ago, counted, instant, plain, short};
use super::query::format_of;
use super::{DONE, Failure, Format, print, print_json, runtime};
use crate::clock::rfc3339;
use crate::lake::Version;

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The product: `domain/product`, or its name alone where one domain has it.
    product: String,
    /// Hash the rows of each table as published, which reads them whole. Equal hashes mean the same rows, each as often,
    /// however they lie in files.
    #[arg(long)]
    hash: bool,
    #[command(flatten)]
    book: BookArgs,
}

/// So many values of a list are named.
const VALUES: usize = 20;

/// Hashes of rows by port; none unless they were asked for.
type Hashes = BTreeMap<PortId, String>;

/// What is not in the ledger and costs something to find out.
struct Asked {
    hashes: Hashes,
    /// What an hour of computing costs.
    price: Option<Price>,
}

/// Runs the verb.
pub fn run(args: &ShowArgs) -> Result<u8, Failure> {
    let book = Book::open(&args.book)?;
    let id = book.product(&args.product)?;
    let conditions = survey(&book);
    let condition = conditions.iter().find(|it| it.id == id);
    let Some(condition) = condition else {
        return Err(Failure::usage(format!("there is no product `{id}`")));
    };
    let hashes = if args.hash { hashes(&book, &id)? } else { Hashes::new() };
    // Only who looks at backfills pays for reading the mesh.
    let any = book.costs.backfills(&id).next().is_some();
    let price = if any { book.settings().and_then(|it| it.cost) } else { None };
    let asked = Asked { hashes, price };
    match args.book.format {
        Format::Json => print_json(&as_json(&book, condition, &asked)),
        Format::Human => print(&human(&book, condition, &asked)),
    }
    Ok(DONE)
}

/// Hashes the rows of each published table of a product, at the version that was published.
fn hashes(book: &Book, id: &ProductId) -> Result<Hashes, Failure> {
    let published = book.ledger.ports.iter().filter(|(port, _)| port.product == *id);
    let published = published.filter_map(|(port, it)| Some((port, it, format_of(book, port)?)));
    runtime()?.block_on(async {
        let lake = book.open_lake().await?;
        let mut hashes = Hashes::new();
        for (port, state, format) in published {
            let hash = async {
                let table = lake.table(&port.to_string(), format)?;
                table.content_hash(Some(Version(state.version)), &[]).await
            };
            hashes.insert(port.clone(), hash.await.map_err(|error| Failure::outside(&error))?);
        }
        Ok(hashes)
    })
}

/// Returns the rows of a port's table; none for a followed topic's, whose epochs are not counted one by one.
fn rows(state: &PortState) -> Option<u64> {
    let published = || state.partitions.values().map(|one| one.published.rows).sum();
    (!state.partitions.is_empty()).then(published)
}

/// Returns how many partitions that a port shows were taken over from previews, by preview; a whole table is one.
fn taken_over(state: &PortState) -> BTreeMap<&str, usize> {
    let mut from = BTreeMap::new();
    for taken in state.partitions.values().filter_map(|one| one.published.taken.as_ref()) {
        *from.entry(taken.from.as_str()).or_default() += 1;
    }
    from
}

fn readers(book: &Book, id: &ProductId) -> Vec<String> {
    let reads = |deployed: &Deployed| deployed.print.reads.keys().any(|port| port.product == *id);
    book.ledger.deployed.iter().filter(|(_, it)| reads(it)).map(|(id, _)| id.to_string()).collect()
}

fn as_json(book: &Book, condition: &Condition<'_>, asked: &Asked) -> Value {
    let mut value = condition_json(condition);
    let Some(deployed) = condition.deployed else {
        if let (Value::Object(map), Some(retired)) = (&mut value, book.ledger.retired.get(&condition.id)) {
            map.insert("retired".into(), retirement(retired));
        }
        return value;
    };
    let product = &deployed.product;
    let ports: Vec<Value> = product
        .outputs
        .iter()
        .map(|(name, output)| {
            let port = product.port(name);
            let state = book.ledger.ports.get(&port).map(AsRef::as_ref);
            json!({
                "port": port,
                "contract": {"version": output.contract.version, "columns": output.contract.columns},
                "format": output.format,
                "access": output.access,
                "table_version": state.map(|it| it.version),
                "partitions": state.map(|it| it.partitions.len()),
                "values": book.ledger.values_of(&port),
                "values_found": keys(book, &port),
                "rows": state.and_then(rows),
                "taken_over": state.map(taken_over),
                "looked_after": book.ledger.looked_after.get(&port).map(|it| json!({
                    "at": rfc3339(it.at_ms), "small_files": it.together.map(|(before, _)| before),
                    "put_into": it.together.map(|(_, after)| after), "versions_gone": it.expired, "files_gone": it.files,
                })),
                "hash": asked.hashes.get(&port),
                "data_through": state.and_then(|it| it.newest_data_ms).map(rfc3339),
                "quality": book.ledger.quality.get(&port).map(|rules| {
                    rules.iter().map(|(rule, it)| json!({
                        "rule": rule, "passed": it.passed, "measure": it.measure, "threshold": it.threshold,
                        "outcome": it.outcome(), "column": it.column, "rows": it.rows, "band": it.band,
                        "severity": it.severity, "partition": it.partition, "at": rfc3339(it.at_ms),
                    })).collect::<Vec<_>>()
                }),
            })
        })
        .collect();
    if let Value::Object(map) = &mut value {
        map.insert("title".into(), json!(product.title));
        map.insert("owners".into(), json!(product.owners));
        map.insert("tier".into(), json!(product.tier));
        map.insert("retire".into(), json!(product.retire));
        map.insert("version".into(), json!(product.version));
        map.insert("generation".into(), json!(deployed.generation));
        map.insert("commit".into(), json!(deployed.commit));
        map.insert("decision".into(), json!(deployed.decision));
        map.insert("deployed_at".into(), json!(rfc3339(deployed.at_ms)));
        map.insert("fingerprint".into(), json!(deployed.print.all));
        map.insert("reads".into(), json!(inputs(product)));
        map.insert("read_by".into(), json!(readers(book, &condition.id)));
        map.insert("ports".into(), json!(ports));
        let set_aside = product.inputs.keys().filter_map(|name| {
            let (rows, reasons) = book.ledger.quarantined.get(&product.port(name))?;
            Some((name.to_string(), json!({"rows": rows, "reasons": reasons})))
        });
        let backfills = book.costs.backfills(&condition.id).map(|it| backfill_json(it, asked.price.as_ref()));
        map.insert("backfills".into(), Value::Array(backfills.collect()));
        map.insert("quarantined".into(), Value::Object(set_aside.collect()));
    }
    value
}

fn retirement(retired: &Retirement) -> Value {
    let done = retired.ending.as_ref().and_then(|it| it.done.as_ref());
    json!({
        "at": rfc3339(retired.at_ms),
        "commit": retired.commit,
        "decision": retired.decision,
        "policy": retired.deployed.product.retire,
        "tables_end": retired.due().map(|(how, at_ms)| json!({"how": how, "at": rfc3339(at_ms)})),
        "tables_ended": done.map(|(at_ms, archive)| json!({"at": rfc3339(*at_ms), "archive": archive})),
    })
}

fn inputs(product: &Product) -> Vec<String> {
    let external = product.inputs.values().map(|input| match &input.source {
        InputSource::Port { port } => port.to_string(),
        InputSource::Files { glob, .. } => format!("files {}/{glob}", product.folder),
        InputSource::Topic { topic, .. } => format!("topic {topic}"),
    });
    let features = product.pipelines.values().filter_map(|pipeline| match pipeline {
        Pipeline::Training(training) => Some(training.features.iter().map(ToString::to_string)),
        _ => None,
    });
    // Features are read by name, and may be an input port besides.
    let mut seen = BTreeSet::new();
    external.chain(features.flatten()).filter(|it| seen.insert(it.clone())).collect()
}

fn human(book: &Book, condition: &Condition<'_>, asked: &Asked) -> String {
    let paint = Paint::stdout();
    let mut text = String::new();
    let word = paint.text(condition.health.tone(), condition.health.word());
    let _ = writeln!(text, "{}  {word}", paint.text(Tone::Strong, &condition.id.to_string()));
    if !condition.why.is_empty() {
        let _ = writeln!(text, "  {}", condition.why);
    }
    if condition.health == Health::Retired {
        let _ = write!(text, "  what led to this: `hydromesh why {}`", condition.id);
        return text;
    }
    let Some(deployed) = condition.deployed else {
        let _ = write!(text, "  not deployed; see `hydromesh why-not {}`", condition.id);
        return text;
    };
    let product = &deployed.product;
    if !product.description.is_empty() {
        let _ = writeln!(text, "  {}", product.description.trim());
    }
    text.push('\n');
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {} {value}", paint.text(Tone::Faint, &format!("{name:<10}")));
        }
    };
    line("owners", &product.owners.join(", "));
    line("tier", &product.tier.to_string());
    if let Some((how, after)) = product.retire.end() {
        let after = if after.is_zero() { String::new() } else { format!(" {after} later") };
        line("retire", &format!("when it leaves the mesh, its tables are {}{after}", how.done()));
    }
    line("runbook", product.runbook.as_deref().unwrap_or_default());
    let made: Vec<String> = product
        .pipelines
        .values()
        .map(|pipeline| {
            format!("{} ({} to {})", pipeline.name(), kind_name(pipeline.kind()), pipeline.output())
        })
        .collect();
    line("made by", &made.join(", "));
    line("reads", &inputs(product).join(", "));
    line("read by", &readers(book, &condition.id).join(", "));
    let when = ago(deployed.at_ms, book.now_ms);
    let (generation, commit) = (deployed.generation, short(&deployed.commit));
    line(
        "deployed",
        &format!("generation {generation} from {commit}, {when}, under decision {}", deployed.decision),
    );
    line("to compute", &condition.to_compute());
    if let Some(last) = book.costs.backfills(&condition.id).next_back() {
        line("backfill", &backfill_spoken(last, asked.price.as_ref(), book.now_ms));
    }
    for (name, output) in &product.outputs {
        let id = product.port(name);
        port(&mut text, book, &id, output, paint);
        if let Some(hash) = asked.hashes.get(&id) {
            let _ = writeln!(text, "    rows hash to {hash}");
        }
    }
    for name in product.inputs.keys() {
        if let Some((rows, reasons)) = book.ledger.quarantined.get(&product.port(name)) {
            let are = if *rows == 1 { "is" } else { "are" };
            let what =
                format!("{} of input {name} {are} set aside: {}", several(*rows, "row"), reasons.join("; "));
            let _ = writeln!(text, "\n  {}", paint.text(Tone::Odd, &what));
        }
    }
    let last: Vec<_> = book
        .ledger
        .runs
        .iter()
        .rev()
        .filter(|run| run.step.pipeline.product == condition.id)
        .take(5)
        .collect();
    if !last.is_empty() {
        let _ = writeln!(text, "\n  last runs (all: `hydromesh runs {}`)", condition.id);
        for run in last {
            let (tone, word) = super::health::ending(&run.outcome);
            let word = paint.text(tone, &format!("{word:<9}"));
            let _ = writeln!(text, "    {word} {} {}", run.step, ago(run.at_ms, book.now_ms));
        }
    }
    text.trim_end().to_owned()
}

fn port(text: &mut String, book: &Book, id: &PortId, output: &OutputPort, paint: Paint) {
    let contract = &output.contract;
    let name = paint.text(Tone::Strong, &id.to_string());
    let _ = writeln!(text, "\n  port {name}  contract {} ({})", contract.version, contract.status);
    match book.ledger.ports.get(id) {
        None => _ = writeln!(text, "    nothing published yet"),
        Some(state) => {
            let rows = rows(state).map_or_else(|| "followed".to_owned(), |rows| several(rows, "row"));
            let through = state.newest_data_ms.map_or_else(|| "-".to_owned(), instant);
            let cut = match state.partitions.len() {
                0 | 1 => String::new(),
                n => format!(" in {n} partitions"),
            };
            let _ = writeln!(
                text,
                "    {rows}{cut}, data through {through}, {} version {}",
                serde_json::to_value(output.format)
                    .ok()
                    .and_then(|it| it.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                state.version
            );
            for (from, count) in taken_over(state) {
                let what =
                    if cut.is_empty() { String::new() } else { format!("{} ", counted(count, "partition")) };
                let _ = writeln!(text, "    {what}taken over from {from}, not computed here");
            }
        }
    }
    if let Some(done) = book.ledger.looked_after.get(id) {
        let _ = writeln!(text, "    looked after {}: {}", ago(done.at_ms, book.now_ms), done.spoken());
    }
    values(text, book, id);
    for sla in &contract.slas {
        let _ = writeln!(text, "    promises {}", promise(&sla.kind));
    }
    if let Some(rules) = book.ledger.quality.get(id) {
        let failing: Vec<_> = rules.iter().filter(|(_, it)| it.outcome().is_bad()).collect();
        let unknown = rules.values().filter(|it| it.outcome() == RuleOutcome::Unknown).count();
        let passed = rules.len() - failing.len() - unknown;
        let tone = if failing.is_empty() { Tone::Good } else { Tone::Bad };
        let mut summary = format!("{passed} of {} hold", counted(rules.len(), "quality rule"));
        if unknown > 0 {
            let _ = write!(summary, ", {unknown} not known yet");
        }
        let _ = writeln!(text, "    {}", paint.text(tone, &summary));
        for (rule, it) in failing {
            let measure =
                it.measure.map_or_else(|| "could not be evaluated".to_owned(), |it| format!("measured {it}"));
            let weight = if it.severity == QualitySeverity::Error { "blocks" } else { "tells" };
            let _ = writeln!(text, "      {rule}: {measure}, must be {} ({weight})", it.threshold);
        }
    }
    let mut table = Table::new(&["COLUMN", "TYPE", "", "CLASS", "MEANING"]);
    for column in &contract.columns {
        let marks = match (column.primary_key, column.required) {
            (true, _) => "key",
            (false, true) => "required",
            (false, false) => "",
        };
        let class = match column.classification {
            None => (Tone::Faint, "-".to_owned()),
            Some(Classification::Pii) => (Tone::Odd, "pii".to_owned()),
            Some(Classification::Confidential) => (Tone::Odd, "confidential".to_owned()),
            Some(Classification::Internal) => plain("internal"),
            Some(Classification::Public) => plain("public"),
        };
        table.row([
            plain(&column.name),
            plain(type_name(&column.logical)),
            plain(marks),
            class,
            plain(&column.description),
        ]);
    }
    for line in table.render(paint).lines() {
        let _ = writeln!(text, "      {line}");
    }
}

/// Says of a port that is cut by values which they are, which of them is oldest or was never published, and which are on the list
/// no longer.
fn values(text: &mut String, book: &Book, id: &PortId) {
    let cut = book.ledger.deployed.get(&id.product).and_then(|deployed| deployed.product.cut_of(&id.port));
    let Some((cut, values)) = cut.and_then(|cut| Some((cut, cut.values()?))) else { return };
    let few = |all: &[&str]| match all.len() {
        0..=VALUES => all.join(", "),
        more => format!("{}, and {} more", all[..VALUES].join(", "), more - VALUES),
    };
    let all: Vec<&str> = values.iter().map(String::as_str).collect();
    let of = match (cut.source(), all.is_empty()) {
        (None, _) => few(&all),
        (Some(source), true) => format!("none found yet in {source}"),
        (Some(source), false) => format!("{} (found in {source})", few(&all)),
    };
    let _ = writeln!(text, "    a partition for each {}: {of}", cut.by);
    let known = cut.source().and_then(|source| book.ledger.known_keys(id, source));
    if let Some(known) = known {
        let without = match known.without {
            0 => String::new(),
            1 => "; 1 row there has no value that can be a partition".to_owned(),
            rows => format!("; {rows} rows there have no value that can be a partition"),
        };
        let _ = writeln!(text, "    looked for values at {}{without}", instant(known.at_ms));
    }
    let Some(state) = book.ledger.ports.get(id) else { return };
    let missing: Vec<&str> = all.iter().copied().filter(|it| !state.partitions.contains_key(*it)).collect();
    if !missing.is_empty() {
        let _ = writeln!(text, "    not published yet: {}", few(&missing));
    } else if let Some((value, Some(data_ms))) = book.ledger.oldest_value(id) {
        let _ = writeln!(text, "    the oldest is {value}, with data through {}", instant(data_ms));
    }
    let left = state.partitions.keys().filter(|key| values.index(key).is_none());
    let left: Vec<&str> = left.map(String::as_str).collect();
    if !left.is_empty() {
        let of =
            if cut.source().is_some() { "and not among those found" } else { "and no longer on the list" };
        let _ = writeln!(text, "    readable, {of}: {}", few(&left));
    }
}

/// Returns where the values of a port are looked for, and when that was last, if they are.
fn keys(book: &Book, id: &PortId) -> Option<Value> {
    let source = book.ledger.deployed.get(&id.product)?.product.cut_of(&id.port)?.source()?;
    let known = book.ledger.known_keys(id, source);
    Some(json!({
        "from": source.to_string(),
        "at": known.map(|it| rfc3339(it.at_ms)),
        "rows_without": known.map(|it| it.without),
    }))
}

/// Returns a logical type as contracts spell it.
pub fn type_name(logical: &LogicalType) -> String {
    match logical {
        LogicalType::Vector(dimensions) => format!("vector({dimensions})"),
        other => {
            serde_json::to_value(other).ok().and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default()
        }
    }
}

/// Returns a service level in words.
pub fn promise(kind: &SlaKind) -> String {
    let words = |span: &Span| super::output::length(span.millis());
    match kind {
        SlaKind::DataAge(most) => format!("data at most {} old", words(most)),
        SlaKind::Heartbeat(most) => format!("a publication at least every {}", words(most)),
        SlaKind::QualityPassRate(percent) => format!("at least {percent} % of quality rules hold"),
        SlaKind::Other { property, value } if property == "retention" => format!("to keep data for {value}"),
        SlaKind::Other { property, value } => format!("{property} {value} (not evaluated)"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::check::read_path;

    #[test]
    fn features_that_are_an_input_port_too_are_read_once() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh-repo-example");
        let reading = read_path(&example, None, &BTreeMap::new()).expect("it is read");
        let model = reading.desired.mesh.products.get(&"risk/churn-model".parse().expect("an id"));
        let reads = inputs(model.expect("the example has it"));
        let once: BTreeSet<&String> = reads.iter().collect();
        assert_eq!(reads.len(), once.len(), "{reads:?}");
        assert!(reads.contains(&"customer/activity.features".to_owned()), "{reads:?}");
    }
}
