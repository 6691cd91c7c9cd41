//! The pages people read.

mod lineage;
mod product;
mod rows;

use std::collections::BTreeMap;

use serde::Serialize;
use tera::{Context, Tera};

use super::escape::web_address;
use super::mesh::{DomainView, Mesh};
use super::model::{AlertLevel, Change, Episode, Outcome, Status};
use super::{SiteError, path, svg, templates, words};
use rows::{EpisodeRow, Row};

/// Products shown per domain on the overview, worst first; the domain's page has them all.
const OVERVIEW_ROWS: usize = 25;
/// Past incidents on the list.
const INCIDENT_ROWS: usize = 200;
/// Commits on the page of changes.
const CHANGE_ROWS: usize = 100;

/// Adds every page to `files`.
pub fn render_all(mesh: &Mesh, style: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), SiteError> {
    let tera =
        templates::engine(mesh).map_err(|source| SiteError::Render { page: "templates".into(), source })?;
    let mut press = Press { tera, frame: Frame::new(mesh, style), files };
    overview(mesh, &mut press)?;
    for domain in &mesh.domains {
        domain_page(mesh, domain, &mut press)?;
    }
    for product in &mesh.products {
        product::render(mesh, product, &mut press)?;
    }
    lineage::render(mesh, &mut press)?;
    incidents(mesh, &mut press)?;
    policies(mesh, &mut press)?;
    changes(mesh, &mut press)
}

/// What every page shows around its content.
#[derive(Serialize)]
struct Frame {
    title: String,
    environment: String,
    commit: String,
    commit_link: String,
    generated_at: chrono::DateTime<chrono::Utc>,
    next_build: Option<chrono::DateTime<chrono::Utc>>,
    evaluator_version: String,
    style: String,
    open_incidents: usize,
}

impl Frame {
    fn new(mesh: &Mesh, style: &str) -> Self {
        let model = mesh.model;
        Self {
            title: model.title.clone(),
            environment: model.environment.clone(),
            commit: model.commit.clone(),
            commit_link: model.repository.as_deref().and_then(web_address).unwrap_or_default(),
            generated_at: model.generated_at,
            next_build: model.next_build,
            evaluator_version: model.evaluator_version.clone(),
            style: style.to_owned(),
            open_incidents: mesh.incidents.iter().filter(|i| i.state.is_loud()).count(),
        }
    }
}

/// Renders a template to a file.
struct Press<'a> {
    tera: Tera,
    frame: Frame,
    files: &'a mut BTreeMap<String, Vec<u8>>,
}

impl Press<'_> {
    fn print(
        &mut self,
        page: String,
        template: &str,
        heading: &str,
        mut context: Context,
    ) -> Result<(), SiteError> {
        context.insert("site", &self.frame);
        context.insert("root", &path::root_of(&page));
        context.insert("heading", heading);
        context.insert("section", template.trim_end_matches(".html"));
        let html = match self.tera.render(template, &context) {
            Ok(html) => html,
            Err(source) => return Err(SiteError::Render { page, source }),
        };
        self.files.insert(page, html.into_bytes());
        Ok(())
    }
}

/// Returns the worst status of the mesh; an empty mesh is unknown.
pub fn worst(mesh: &Mesh) -> Status {
    mesh.products.iter().map(|p| p.status).min().unwrap_or(Status::Unknown)
}

/// Returns the state of the mesh as one sentence.
pub fn verdict(mesh: &Mesh) -> String {
    let total = mesh.products.len();
    if total == 0 {
        return "No product is deployed yet.".into();
    }
    let products = words::counted(total, "product", "products");
    let mut clauses = Vec::new();
    for (status, one, many) in [
        (Status::Breaching, "breaches an objective", "breach an objective"),
        (Status::Degraded, "is degraded", "are degraded"),
        (Status::Unknown, "cannot be judged", "cannot be judged"),
        (Status::Denied, "is denied by policy", "are denied by policy"),
        (Status::Held, "is held back", "are held back"),
    ] {
        let count = mesh.in_status(status);
        if count > 0 {
            let verb = if count == 1 { one } else { many };
            let of = if clauses.is_empty() { format!(" of {products}") } else { String::new() };
            clauses.push(format!("{}{of} {verb}", words::count(count as u64)));
        }
    }
    let mut sentence = match clauses.as_slice() {
        [] if total == 1 => "The only product is healthy".to_owned(),
        [] => format!("All {products} are healthy"),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    };
    let (pages, tickets) = (mesh.open(AlertLevel::Page), mesh.open(AlertLevel::Ticket));
    match (pages, tickets) {
        (0, 0) => {}
        (0, n) => sentence += &format!("; {} open", words::counted(n, "ticket is", "tickets are")),
        (n, 0) => sentence += &format!("; {} open", words::counted(n, "page is", "pages are")),
        (n, m) => {
            sentence += &format!(
                "; {} and {} are open",
                words::counted(n, "page", "pages"),
                words::counted(m, "ticket", "tickets")
            );
        }
    }
    sentence.push('.');
    sentence
}

/// Returns what became of a commit in one line.
pub fn outcome_line(change: &Change) -> String {
    if change.outcomes.is_empty() {
        return match change.outcome {
            None => "Not decided yet.".into(),
            Some(Outcome::Applied) => "Changed no product.".into(),
            Some(_) => change.reason.clone(),
        };
    }
    let mut parts = Vec::new();
    for (outcome, word) in [
        (Outcome::Applied, "applied"),
        (Outcome::Denied, "denied"),
        (Outcome::Held, "held"),
        (Outcome::Broken, "broken"),
        (Outcome::Superseded, "superseded"),
        (Outcome::Removed, "removed"),
    ] {
        let names: Vec<&str> =
            change.outcomes.iter().filter(|o| o.outcome == outcome).map(|o| o.product.as_str()).collect();
        if !names.is_empty() {
            parts.push(format!("{word}: {}", names.join(", ")));
        }
    }
    parts.join("; ")
}

#[derive(Serialize)]
struct StatusCount {
    status: Status,
    word: &'static str,
    count: usize,
}

#[derive(Serialize)]
struct DomainCard {
    name: String,
    title: String,
    description: String,
    status: Status,
    word: &'static str,
    total: usize,
    bar_svg: String,
    rows: Vec<Row>,
    /// Products left out of the rows.
    more: usize,
}

impl DomainCard {
    fn new(mesh: &Mesh, domain: &DomainView, most: usize) -> Self {
        Self {
            name: domain.name.to_owned(),
            title: domain.declared.map_or(domain.name, |d| d.title.as_str()).to_owned(),
            description: domain.declared.and_then(|d| d.description.clone()).unwrap_or_default(),
            status: domain.status,
            word: words::status(domain.status),
            total: domain.products.len(),
            bar_svg: svg::day_bar(&mesh.worst_days(domain.products.iter().flat_map(|p| &p.objectives))),
            rows: domain.products.iter().take(most).map(|p| Row::new(mesh, p)).collect(),
            more: domain.products.len().saturating_sub(most),
        }
    }
}

fn overview(mesh: &Mesh, press: &mut Press) -> Result<(), SiteError> {
    let mut context = Context::new();
    let worst = worst(mesh);
    context.insert("verdict", &verdict(mesh));
    context.insert("status", &worst);
    let counts: Vec<StatusCount> =
        [Status::Breaching, Status::Degraded, Status::Unknown, Status::Denied, Status::Held, Status::Healthy]
            .into_iter()
            .map(|status| StatusCount { status, word: words::status(status), count: mesh.in_status(status) })
            .filter(|c| c.count > 0)
            .collect();
    context.insert("counts", &counts);
    let oldest = mesh
        .products
        .iter()
        .filter_map(|p| Some((p.data_through?, p)))
        .min_by_key(|(at, p)| (*at, p.id.as_str()));
    context.insert("oldest", &oldest.map(|(at, p)| (at, p.title.as_str(), p.id.as_str())));
    let open: Vec<EpisodeRow> =
        mesh.incidents.iter().filter(|i| i.state.is_loud()).map(|i| EpisodeRow::new(mesh, i)).collect();
    context.insert("incidents", &open);
    let domains: Vec<DomainCard> =
        mesh.domains.iter().map(|d| DomainCard::new(mesh, d, OVERVIEW_ROWS)).collect();
    context.insert("domains", &domains);
    context.insert("changes", &mesh.model.changes.iter().take(5).collect::<Vec<_>>());
    press.print(path::OVERVIEW.into(), "overview.html", "Overview", context)
}

fn domain_page(mesh: &Mesh, domain: &DomainView, press: &mut Press) -> Result<(), SiteError> {
    let page = path::domain(domain.name);
    let mut context = Context::new();
    let card = DomainCard::new(mesh, domain, usize::MAX);
    let inside = |id: &str| mesh.product(id).is_some_and(|p| p.domain == domain.name);
    let incidents: Vec<EpisodeRow> = mesh
        .incidents
        .iter()
        .filter(|i| inside(&i.product) || i.blast_radius.iter().any(|b| inside(b)))
        .take(20)
        .map(|i| EpisodeRow::new(mesh, i))
        .collect();
    let changes: Vec<&Change> = mesh
        .model
        .changes
        .iter()
        .filter(|c| c.outcomes.iter().any(|o| inside(&o.product)))
        .take(10)
        .collect();
    let title = card.title.clone();
    context.insert("domain", &card);
    context.insert("owners", &domain.declared.map(|d| d.owners.as_slice()).unwrap_or_default());
    context.insert("on_call", &domain.declared.and_then(|d| d.on_call.as_deref()));
    context.insert("incidents", &incidents);
    context.insert("changes", &changes);
    context.insert("picture", &lineage::of_domain(mesh, domain, &path::root_of(&page)));
    press.print(page, "domain.html", &title, context)
}

fn incidents(mesh: &Mesh, press: &mut Press) -> Result<(), SiteError> {
    let rows: Vec<EpisodeRow> = mesh.incidents.iter().map(|i| EpisodeRow::new(mesh, i)).collect();
    let (open, past): (Vec<_>, Vec<_>) = rows.iter().partition(|r| r.open);
    let mut context = Context::new();
    context.insert("open", &open);
    context.insert("past", &past.iter().take(INCIDENT_ROWS).collect::<Vec<_>>());
    context.insert("left_out", &past.len().saturating_sub(INCIDENT_ROWS));
    press.print(path::INCIDENTS.into(), "incidents.html", "Incidents", context)?;
    mesh.incidents.iter().try_for_each(|episode| incident(mesh, episode, press))
}

fn incident(mesh: &Mesh, episode: &Episode, press: &mut Press) -> Result<(), SiteError> {
    let page = path::incident(&episode.id);
    let mut context = Context::new();
    context.insert("row", &EpisodeRow::new(mesh, episode));
    context.insert("episode", episode);
    context.insert("promise", &promise(mesh, episode));
    context.insert("picture", &lineage::of_incident(mesh, episode, &path::root_of(&page)));
    press.print(page, "incident.html", &episode.title, context)
}

fn promise<'a>(mesh: &Mesh<'a>, episode: &Episode) -> Option<&'a str> {
    let objective = episode.objective.as_deref()?;
    let product = mesh.product(&episode.product)?;
    product.objectives.iter().find(|o| o.id == objective).map(|o| o.promise.as_str())
}

fn policies(mesh: &Mesh, press: &mut Press) -> Result<(), SiteError> {
    let mut rules: Vec<_> = mesh.model.policies.iter().collect();
    rules.sort_by(|a, b| (b.denied, b.warned, &a.id).cmp(&(a.denied, a.warned, &b.id)));
    let mut waivers: Vec<_> = mesh.model.waivers.iter().collect();
    waivers.sort_by_key(|w| w.expires_at);
    let waivers: Vec<_> = waivers
        .into_iter()
        .map(|w| (w, if w.expires_at <= mesh.model.generated_at { "expired" } else { "in force" }))
        .collect();
    let mut context = Context::new();
    context.insert("denied", &rules.iter().map(|r| r.denied).sum::<u64>());
    context.insert("warned", &rules.iter().map(|r| r.warned).sum::<u64>());
    context.insert("rules", &rules);
    context.insert("waivers", &waivers);
    press.print(path::POLICIES.into(), "policies.html", "Policies", context)
}

fn changes(mesh: &Mesh, press: &mut Press) -> Result<(), SiteError> {
    let mut context = Context::new();
    context.insert("changes", &mesh.model.changes.iter().take(CHANGE_ROWS).collect::<Vec<_>>());
    context.insert("left_out", &mesh.model.changes.len().saturating_sub(CHANGE_ROWS));
    press.print(path::CHANGES.into(), "changes.html", "Changes", context)
}
