//! The page of one product.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tera::Context;

use super::super::escape::web_address;
use super::super::mesh::{Mesh, headline};
use super::super::model::{
    Access, BadInterval, Change, Column, ColumnEdge, DayState, FeatureDrift, Influence, Objective,
    ObjectiveKind, Port, Product, QualityResult,
};
use super::super::{SiteError, path, svg, words};
use super::rows::{Budget, EpisodeRow, reason};
use super::{Press, lineage};

const RUNS: usize = 20;
const DECISIONS: usize = 10;
const CHANGES: usize = 10;
const INCIDENTS: usize = 10;
const BAD_INTERVALS: usize = 20;
const MODEL_EVENTS: usize = 20;
/// Points of a drift history; more would be less than a pixel pair each.
const DRIFT_POINTS: usize = 60;
/// Shown when the model names no address; the loopback default of the server.
const DEFAULT_API: &str = "http://127.0.0.1:8080";

#[derive(Serialize)]
struct ObjectiveView<'a> {
    id: &'a str,
    name: &'static str,
    promise: &'a str,
    target: String,
    window_days: u32,
    status: super::Status,
    word: &'static str,
    current: &'a str,
    sli: String,
    since: Option<DateTime<Utc>>,
    budget: Option<Budget>,
    bar_svg: String,
    /// Days in the bar that were neither good nor excluded, newest first.
    days: Vec<(chrono::NaiveDate, &'static str, &'a str)>,
    intervals: Vec<(&'a BadInterval, String)>,
}

impl<'a> ObjectiveView<'a> {
    fn new(mesh: &Mesh, objective: &'a Objective) -> Self {
        let first = mesh.dates().first().copied();
        let mut days: Vec<_> = objective
            .days
            .iter()
            .filter(|d| !matches!(d.state, DayState::Good | DayState::Excluded) && Some(d.date) >= first)
            .map(|d| (d.date, words::day(d.state), d.note.as_str()))
            .collect();
        days.sort_by_key(|day| std::cmp::Reverse(day.0));
        Self {
            id: &objective.id,
            name: words::objective(objective.kind),
            promise: &objective.promise,
            target: words::percent(objective.target),
            window_days: objective.window_days,
            status: objective.status,
            word: words::status(objective.status),
            current: &objective.current,
            sli: words::range(objective.sli_low, objective.sli_high),
            since: objective.since,
            budget: Budget::of(objective),
            bar_svg: svg::day_bar(&mesh.worst_days([objective])),
            days,
            intervals: objective
                .bad_intervals
                .iter()
                .take(BAD_INTERVALS)
                .map(|b| (b, words::duration(b.from, b.to.unwrap_or(mesh.model.generated_at))))
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct ColumnView<'a> {
    column: &'a Column,
    /// Product and the rest of the address of what goes in.
    sources: Vec<(String, String)>,
}

#[derive(Serialize)]
struct PortView<'a> {
    port: &'a Port,
    columns: Vec<ColumnView<'a>>,
    has_sources: bool,
    /// Columns that only decide which rows there are: the same for most columns, so told once.
    deciders: Vec<(String, String)>,
    snippets: Vec<Snippet>,
}

#[derive(Serialize)]
struct Snippet {
    label: &'static str,
    text: String,
}

impl<'a> PortView<'a> {
    fn new(mesh: &Mesh<'a>, product: &Product, port: &'a Port) -> Self {
        // `domain/product.port#column`: names have no full stop, so the first one ends the product.
        let parts = |edge: &ColumnEdge| {
            let (product, rest) = edge.from.split_once('.').unwrap_or((&edge.from, ""));
            (product.to_owned(), rest.to_owned())
        };
        let mut deciders = BTreeSet::new();
        let columns: Vec<ColumnView> = port
            .columns
            .iter()
            .map(|column| {
                let address = format!("{}.{}#{}", product.id, port.name, column.name);
                let (direct, filters): (Vec<&ColumnEdge>, Vec<&ColumnEdge>) = mesh
                    .column_sources(&address)
                    .iter()
                    .partition(|edge| edge.influence == Influence::Direct);
                deciders.extend(filters.into_iter().map(parts));
                ColumnView { column, sources: direct.into_iter().map(parts).collect() }
            })
            .collect();
        let api = mesh.model.api_base.as_deref().unwrap_or(DEFAULT_API).trim_end_matches('/');
        Self {
            port,
            has_sources: columns.iter().any(|c| !c.sources.is_empty()),
            columns,
            deciders: deciders.into_iter().collect(),
            snippets: snippets(api, product, port),
        }
    }
}

/// Returns ready-made commands for the ways a port can be read. Names are quoted for the language they stand in, since
/// people paste these.
fn snippets(api: &str, product: &Product, port: &Port) -> Vec<Snippet> {
    let mut out = Vec::new();
    let identifier = port.query_name.replace('"', "\"\"");
    if matches!(port.format.as_str(), "delta" | "iceberg") {
        let sql = format!("SELECT * FROM \"{identifier}\" LIMIT 10");
        out.push(Snippet { label: "SQL", text: format!("hydromesh query {}", shell(&sql)) });
        let place = port.location.replace('\'', "''");
        out.push(Snippet {
            label: "DuckDB",
            text: format!(
                "INSTALL {f}; LOAD {f};\nSELECT * FROM {f}_scan('{place}') LIMIT 10;",
                f = port.format
            ),
        });
    }
    for access in &port.access {
        match access {
            Access::Table => {}
            Access::Topic { topic } => out.push(Snippet { label: "Topic", text: topic.clone() }),
            Access::Lookup { key } => {
                let url = format!("{api}/v1/features/{}?{}=VALUE", product.id, key);
                out.push(Snippet { label: "HTTP lookup", text: format!("curl -s {}", shell(&url)) });
            }
            Access::Search { .. } => {
                let url = format!("{api}/v1/search/{}?q=WORDS&limit=5", product.id);
                out.push(Snippet { label: "HTTP search", text: format!("curl -s {}", shell(&url)) });
            }
        }
    }
    out
}

/// Quotes for a POSIX shell.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[derive(Serialize)]
struct DriftView<'a> {
    drift: &'a FeatureDrift,
    history_svg: String,
    histogram_svg: String,
}

impl<'a> DriftView<'a> {
    fn new(drift: &'a FeatureDrift) -> Self {
        let points = &drift.history[drift.history.len().saturating_sub(DRIFT_POINTS)..];
        let values: Vec<f64> = points.iter().map(|p| p.statistic).collect();
        let label = format!(
            "{} of {} over time, now {}",
            drift.statistic_name,
            drift.feature,
            words::measure(drift.statistic)
        );
        let histogram_label = format!("Distribution of {}: reference beside now", drift.feature);
        Self {
            drift,
            history_svg: if values.len() > 1 {
                svg::sparkline(&values, drift.threshold, &label)
            } else {
                String::new()
            },
            histogram_svg: if drift.histogram.is_empty() {
                String::new()
            } else {
                svg::histogram(&drift.histogram, &histogram_label)
            },
        }
    }
}

/// Adds the page of a product.
pub fn render(mesh: &Mesh, product: &Product, press: &mut Press) -> Result<(), SiteError> {
    let page = path::product(&product.id);
    let mut context = Context::new();
    context.insert("product", product);
    context.insert("word", words::status(product.status));
    context.insert("reason", &reason(product));
    context.insert("sync", &words::sync(&product.sync));
    context.insert("kinds", &product.kinds.iter().map(|k| words::kind(*k)).collect::<Vec<_>>());
    context.insert("runbook", &product.runbook.as_deref().and_then(web_address));
    context.insert("badge", &path::badge(&product.id));
    let domain = mesh.domains.iter().find(|d| d.name == product.domain).and_then(|d| d.declared);
    context.insert("domain_title", domain.map_or(&product.domain, |d| &d.title));
    let owners =
        if product.owners.is_empty() { domain.map_or(&[][..], |d| &d.owners) } else { &product.owners };
    context.insert("owners", owners);
    context.insert("on_call", &product.on_call.as_ref().or_else(|| domain.and_then(|d| d.on_call.as_ref())));

    let mut objectives: Vec<&Objective> = product.objectives.iter().collect();
    objectives.sort_by(|a, b| (a.status, a.kind, &a.id).cmp(&(b.status, b.kind, &b.id)));
    let headline = headline(product);
    context.insert("headline_budget", &headline.and_then(Budget::of));
    context.insert("headline_name", headline.map_or("", |o| words::objective(o.kind)));
    context.insert(
        "objectives",
        &objectives.into_iter().map(|o| ObjectiveView::new(mesh, o)).collect::<Vec<_>>(),
    );
    let fresh =
        product.objectives.iter().any(|o| matches!(o.kind, ObjectiveKind::DataAge | ObjectiveKind::Deadline));
    context.insert("fresh", &fresh);

    context
        .insert("ports", &product.ports.iter().map(|p| PortView::new(mesh, product, p)).collect::<Vec<_>>());
    let mut quality: Vec<&QualityResult> = product.quality.iter().collect();
    quality.sort_by(|a, b| {
        (a.outcome, a.severity, &a.port, &a.check).cmp(&(b.outcome, b.severity, &b.port, &b.check))
    });
    context.insert("quality", &quality);
    context.insert("runs", &product.runs.iter().take(RUNS).collect::<Vec<_>>());
    context.insert("decisions", &product.decisions.iter().take(DECISIONS).collect::<Vec<_>>());
    let mut drift: Vec<&FeatureDrift> = product.drift.iter().collect();
    drift.sort_by(|a, b| (a.verdict, &a.feature).cmp(&(b.verdict, &b.feature)));
    context.insert("drift", &drift.into_iter().map(DriftView::new).collect::<Vec<_>>());
    context.insert(
        "model_history",
        &product.model.as_ref().map(|m| m.history.iter().take(MODEL_EVENTS).collect::<Vec<_>>()),
    );
    // Pairs and not maps: the engine's maps have no order.
    let champion = product.model.as_ref().and_then(|m| m.champion.as_ref());
    context.insert("metrics", &champion.map(|c| c.metrics.iter().collect::<Vec<_>>()).unwrap_or_default());
    context.insert("trained_on", &champion.map(|c| c.inputs.iter().collect::<Vec<_>>()).unwrap_or_default());
    context.insert("picture", &lineage::of_product(mesh, product, &path::root_of(&page)));
    let incidents: Vec<EpisodeRow> =
        mesh.incidents_of(&product.id).take(INCIDENTS).map(|i| EpisodeRow::new(mesh, i)).collect();
    context.insert("incidents", &incidents);
    context.insert("changes", &changes(mesh, product));
    press.print(page, "product.html", &product.title, context)
}

#[derive(Serialize)]
struct ChangeView<'a> {
    commit: &'a str,
    message: &'a str,
    author: &'a str,
    at: DateTime<Utc>,
    outcome: super::Outcome,
    reason: &'a str,
}

fn changes<'a>(mesh: &Mesh<'a>, product: &Product) -> Vec<ChangeView<'a>> {
    let about = |change: &'a Change| {
        let outcome = change.outcomes.iter().find(|o| o.product == product.id)?;
        Some(ChangeView {
            commit: &change.commit,
            message: &change.message,
            author: &change.author,
            at: change.at,
            outcome: outcome.outcome,
            reason: &outcome.reason,
        })
    };
    mesh.model.changes.iter().filter_map(about).take(CHANGES).collect()
}
