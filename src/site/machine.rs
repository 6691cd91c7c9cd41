//! What machines read: JSON, the feed, badges, the manifest.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::SiteError;
use super::escape::web_address;
use super::mesh::{Mesh, headline};
use super::model::{SiteModel, Status};
use super::{pages, path, svg, words};

/// Most entries in the feed.
const FEED_ENTRIES: usize = 50;
/// Version of the JSON documents; grows only when a field changes its meaning.
const API_VERSION: u32 = 1;

/// Adds the JSON documents, the feed and the badges.
pub fn render_all(mesh: &Mesh, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), SiteError> {
    files.insert(path::SUMMARY.into(), to_json(path::SUMMARY, &summary(mesh))?);
    files.insert(path::PRODUCTS.into(), to_json(path::PRODUCTS, &products(mesh))?);
    for product in &mesh.products {
        let badge = svg::badge(&product.id, product.status);
        files.insert(path::badge(&product.id), badge.into_bytes());
    }
    files.insert(path::FEED.into(), feed(mesh)?);
    Ok(())
}

fn word<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn summary(mesh: &Mesh) -> Value {
    let model = mesh.model;
    let statuses: BTreeMap<&str, usize> = [
        ("breaching", Status::Breaching),
        ("degraded", Status::Degraded),
        ("unknown", Status::Unknown),
        ("denied", Status::Denied),
        ("held", Status::Held),
        ("healthy", Status::Healthy),
    ]
    .map(|(name, status)| (name, mesh.in_status(status)))
    .into();
    let incidents: Vec<Value> = mesh
        .incidents
        .iter()
        .filter(|i| i.state.is_loud())
        .map(|i| {
            json!({
                "id": i.id, "title": i.title, "kind": i.kind, "level": i.level, "state": i.state,
                "product": i.product, "started_at": i.started_at, "blast_radius": i.blast_radius,
                "page": path::incident(&i.id),
            })
        })
        .collect();
    json!({
        "api_version": API_VERSION,
        "title": model.title,
        "environment": model.environment,
        "commit": model.commit,
        "generated_at": model.generated_at,
        "next_build": model.next_build,
        "evaluator_version": model.evaluator_version,
        "status": pages::worst(mesh),
        "verdict": pages::verdict(mesh),
        "products": { "total": mesh.products.len(), "by_status": statuses },
        "open_incidents": incidents,
        "domains": mesh.domains.iter().map(|d| json!({
            "name": d.name, "status": d.status, "products": d.products.len(), "page": path::domain(d.name),
        })).collect::<Vec<_>>(),
    })
}

fn products(mesh: &Mesh) -> Value {
    let products: Vec<Value> = mesh
        .products
        .iter()
        .map(|p| {
            json!({
                "id": p.id,
                "title": p.title,
                "domain": p.domain,
                "kinds": p.kinds,
                "tier": p.tier,
                "status": p.status,
                "status_reason": p.status_reason,
                "sync": word(&p.sync),
                "deployed_at": p.deployed_at,
                "data_through": p.data_through,
                "next_expected": p.next_expected,
                "headline": headline(p).map(|o| &o.id),
                "objectives": p.objectives.iter().map(|o| json!({
                    "id": o.id, "kind": o.kind, "promise": o.promise, "target": o.target,
                    "window_days": o.window_days, "status": o.status, "current": o.current,
                    "sli": { "low": o.sli_low, "high": o.sli_high }, "budget_remaining": o.budget_remaining,
                })).collect::<Vec<_>>(),
                "ports": p.ports.iter().map(|port| json!({
                    "name": port.name, "format": port.format, "location": port.location, "rows": port.rows,
                    "version": port.version, "contract_version": port.contract_version,
                    "columns": port.columns.len(),
                })).collect::<Vec<_>>(),
                "upstream": mesh.upstream(&p.id).map(|u| &u.id).collect::<Vec<_>>(),
                "downstream": mesh.downstream(&p.id).map(|d| &d.id).collect::<Vec<_>>(),
                "page": path::product(&p.id),
                "badge": path::badge(&p.id),
            })
        })
        .collect();
    json!({ "api_version": API_VERSION, "generated_at": mesh.model.generated_at, "products": products })
}

#[derive(Serialize)]
struct Entry {
    id: String,
    title: String,
    updated: String,
    page: String,
    summary: String,
    author: String,
}

/// Incidents, then commits that did something; identifiers depend on neither the build nor the address, so a rebuild
/// notifies nobody anew.
fn feed(mesh: &Mesh) -> Result<Vec<u8>, SiteError> {
    let model = mesh.model;
    let instant = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let mut entries: Vec<Entry> = Vec::new();
    for episode in &mesh.incidents {
        let last = episode.transitions.iter().map(|t| t.at).max().unwrap_or(episode.started_at);
        entries.push(Entry {
            id: urn(model, "incident", &episode.id),
            title: format!("{}: {}", words::episode(episode.state), episode.title),
            updated: instant(last),
            page: path::incident(&episode.id),
            summary: if episode.cause.is_empty() { episode.title.clone() } else { episode.cause.clone() },
            author: episode.product.clone(),
        });
    }
    for change in &model.changes {
        entries.push(Entry {
            id: urn(model, "change", &change.commit),
            title: format!(
                "Commit {}: {}",
                words::short(&change.commit),
                change.message.lines().next().unwrap_or("")
            ),
            updated: instant(change.at),
            page: path::CHANGES.into(),
            summary: pages::outcome_line(change),
            author: change.author.clone(),
        });
    }
    entries.sort_by(|a, b| b.updated.cmp(&a.updated).then_with(|| a.id.cmp(&b.id)));
    entries.truncate(FEED_ENTRIES);

    let render = |source| SiteError::Render { page: path::FEED.into(), source };
    let tera = super::templates::engine(mesh).map_err(render)?;
    let mut context = tera::Context::new();
    let base =
        model.base_url.as_deref().and_then(web_address).map(|b| format!("{}/", b.trim_end_matches('/')));
    context.insert("base", &base.unwrap_or_default());
    context.insert("id", &urn(model, "mesh", ""));
    context.insert("site", model.title.as_str());
    context.insert("environment", model.environment.as_str());
    // The newest entry and not the clock: an unchanged mesh has an unchanged feed.
    context.insert(
        "updated",
        &entries.first().map_or_else(|| instant(model.generated_at), |e| e.updated.clone()),
    );
    context.insert("entries", &entries);
    tera.render(path::FEED, &context).map(String::into_bytes).map_err(render)
}

/// A name that is stable, unique and free of odd characters.
fn urn(model: &SiteModel, what: &str, id: &str) -> String {
    let mut name =
        format!("urn:hydromesh:{}:{}:{what}", path::slug(&model.title), path::slug(&model.environment));
    if !id.is_empty() {
        name.push(':');
        name.push_str(&path::slug(id));
    }
    name
}

/// Returns the list of all files with their hashes.
pub fn manifest(model: &SiteModel, files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, SiteError> {
    let list: BTreeMap<&str, Value> = files
        .iter()
        .map(|(path, bytes)| {
            (path.as_str(), json!({ "sha256": hex::encode(Sha256::digest(bytes)), "bytes": bytes.len() }))
        })
        .collect();
    let manifest = json!({
        "format": 1,
        "commit": model.commit,
        "environment": model.environment,
        "generated_at": model.generated_at,
        "evaluator_version": model.evaluator_version,
        "files": list,
    });
    to_json(path::MANIFEST, &manifest)
}

/// Returns the icon: three drops that become one stream.
pub fn icon() -> String {
    let mut icon = svg::Svg::default();
    icon.start("svg", &[("xmlns", "http://www.w3.org/2000/svg"), ("viewBox", "0 0 32 32")]);
    icon.empty("rect", &[("width", "32"), ("height", "32"), ("rx", "7"), ("fill", "#0c2b36")]);
    let lines = "M6 9h6c5 0 5 7 10 7h4M6 16h20M6 23h6c5 0 5-7 10-7h4";
    icon.empty(
        "path",
        &[
            ("d", lines),
            ("fill", "none"),
            ("stroke", "#4cc3c7"),
            ("stroke-width", "2.6"),
            ("stroke-linecap", "round"),
        ],
    );
    icon.finish()
}

/// Writes JSON whose strings hold no markup characters, so that a server that guesses the wrong content type does no
/// harm; any JSON reader gets the same text.
fn to_json(page: &str, value: &Value) -> Result<Vec<u8>, SiteError> {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, NoMarkup);
    value.serialize(&mut serializer).map_err(|source| SiteError::Json { page: page.into(), source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

struct NoMarkup;

impl Formatter for NoMarkup {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| matches!(c, '<' | '>' | '&' | '\'')) {
            writer.write_all(&fragment.as_bytes()[rest..at])?;
            write!(writer, "\\u{:04x}", c as u32)?;
            rest = at + 1;
        }
        writer.write_all(&fragment.as_bytes()[rest..])
    }
}
