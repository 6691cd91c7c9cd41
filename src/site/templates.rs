//! The template engine, set up so that nothing leaves it unescaped.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use tera::{Kwargs, State, Tera, TeraResult, Value};

use super::escape::{escape_into, web_address};
use super::mesh::Mesh;
use super::model::Status;
use super::svg::Svg;
use super::{path, picture, words};

/// Name and text of every template.
pub const TEMPLATES: [(&str, &str); 11] = [
    ("base.html", include_str!("templates/base.html")),
    ("parts.html", include_str!("templates/parts.html")),
    ("overview.html", include_str!("templates/overview.html")),
    ("domain.html", include_str!("templates/domain.html")),
    ("product.html", include_str!("templates/product.html")),
    ("lineage.html", include_str!("templates/lineage.html")),
    ("incidents.html", include_str!("templates/incidents.html")),
    ("incident.html", include_str!("templates/incident.html")),
    ("policies.html", include_str!("templates/policies.html")),
    ("changes.html", include_str!("templates/changes.html")),
    ("feed.atom", include_str!("templates/feed.atom")),
];

/// The style sheet under a name that changes with its content, so that caches can keep it for ever.
pub struct Style {
    pub path: String,
    pub bytes: Vec<u8>,
}

/// Returns the style sheet.
pub fn style() -> Style {
    let bytes = include_bytes!("templates/style.css").to_vec();
    let hash = hex::encode(Sha256::digest(&bytes));
    Style { path: format!("style-{}.css", &hash[..12]), bytes }
}

static PARSED: LazyLock<Result<Tera, Arc<tera::Error>>> = LazyLock::new(|| parse().map_err(Arc::new));

/// Returns the engine with the links of this mesh.
pub fn engine(mesh: &Mesh) -> TeraResult<Tera> {
    let mut tera = PARSED.as_ref().map_err(|e| tera::Error::message(e.to_string()))?.clone();
    let products: Arc<BTreeSet<String>> = Arc::new(mesh.products.iter().map(|p| p.id.clone()).collect());
    tera.register_filter("product_page", move |id: &str, _: Kwargs, _: &State| {
        if products.contains(id) { path::product(id) } else { String::new() }
    });
    Ok(tera)
}

fn parse() -> TeraResult<Tera> {
    let mut tera = Tera::new();
    // The default covers three suffixes only; a template of any other would be written raw.
    tera.autoescape_on([".html", ".htm", ".xml", ".svg", ".atom", ".json", ".md", ".txt"]);
    tera.set_escape_fn(escape_into);
    register(&mut tera);
    // A first binding, so that templates parse; `engine` replaces it with the mesh's own.
    tera.register_filter("product_page", |_: &str, _: Kwargs, _: &State| String::new());
    tera.add_raw_templates(TEMPLATES)?;
    Ok(tera)
}

fn register(tera: &mut Tera) {
    tera.register_filter("domain_page", |name: &str, _: Kwargs, _: &State| path::domain(name));
    tera.register_filter("incident_page", |id: &str, _: Kwargs, _: &State| path::incident(id));
    tera.register_filter("link", |text: &str, _: Kwargs, _: &State| web_address(text).unwrap_or_default());
    tera.register_filter("instant", |text: &str, _: Kwargs, _: &State| instant(text).map(words::instant));
    tera.register_filter("until", |from: &str, args: Kwargs, _: &State| {
        let to: String = args.must_get("to")?;
        Ok::<_, tera::Error>(words::duration(instant(from)?, instant(&to)?))
    });
    tera.register_filter("short", |hash: &str, _: Kwargs, _: &State| words::short(hash));
    tera.register_filter("digest", |hash: &str, _: Kwargs, _: &State| {
        words::short(hash.split_once(':').map_or(hash, |(_, digest)| digest))
    });
    tera.register_filter("percent", |value: f64, _: Kwargs, _: &State| words::percent(value));
    tera.register_filter("measure", |value: f64, _: Kwargs, _: &State| words::measure(value));
    tera.register_filter("count", |value: u64, _: Kwargs, _: &State| words::count(value));
    tera.register_filter("word", |text: &str, _: Kwargs, _: &State| word(text));
    tera.register_filter("tone", |text: &str, _: Kwargs, _: &State| tone(text));
    tera.register_filter("sensitivity", |text: &str, _: Kwargs, _: &State| sensitivity(text));
    tera.register_filter("first_line", |text: &str, _: Kwargs, _: &State| {
        text.lines().next().unwrap_or_default().to_owned()
    });
    tera.register_function("mark", |args: Kwargs, _: &State| {
        let name: String = args.must_get("status")?;
        Ok::<_, tera::Error>(Value::safe_string(&mark(&name)))
    });
}

fn instant(text: &str) -> TeraResult<DateTime<Utc>> {
    text.parse().map_err(|e| tera::Error::message(format!("not an instant: {e}")))
}

/// `not_run` to `Not run`.
fn word(text: &str) -> String {
    let text = text.replace('_', " ");
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Returns the class of a word of state; the word itself is always printed, so colour is never alone.
fn tone(text: &str) -> &'static str {
    match text {
        "succeeded" | "pass" | "allow" | "stable" | "promoted" | "applied" | "resolved" | "in_sync"
        | "healthy" | "good" => "good",
        "degraded" | "warning" | "warn" | "watch" | "acknowledged" | "broken" | "ticket" => "warn",
        "failed" | "fail" | "deny" | "denied" | "drifted" | "firing" | "breaching" | "error" | "page"
        | "bad" => "bad",
        "held" | "running" | "queued" | "pending" => "hold",
        _ => "mute",
    }
}

/// Returns the class of a data classification: what needs care stands out. Vocabularies differ, so whatever is not known
/// to be harmless counts as needing care.
fn sensitivity(text: &str) -> &'static str {
    match text.to_lowercase().as_str() {
        "public" | "internal" | "none" | "open" => "mute",
        _ => "class",
    }
}

/// Returns the sign of a status as a decorative picture; its word always stands beside it.
fn mark(name: &str) -> String {
    let status = match name {
        "healthy" => Status::Healthy,
        "degraded" => Status::Degraded,
        "breaching" => Status::Breaching,
        "denied" => Status::Denied,
        "held" => Status::Held,
        _ => Status::Unknown,
    };
    let (class, d) = picture::status_mark(status);
    let mut svg = Svg::default();
    svg.start("svg", &[("class", "mark"), ("viewBox", "0 0 16 16"), ("aria-hidden", "true")]);
    svg.empty("path", &[("class", class), ("fill-rule", "evenodd"), ("d", d)]);
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pictures_pass_unescaped() {
        for (name, text) in TEMPLATES {
            for (at, _) in text.match_indices("safe") {
                let before = text[..at].trim_end().trim_end_matches('|').trim_end();
                assert!(before.ends_with("_svg"), "{name}: `| safe` on something that is not a picture");
            }
            assert!(!text.contains("<script"), "{name} has a script");
            assert!(!text.contains(" style="), "{name} has an inline style, which the policy blocks");
        }
    }

    #[test]
    fn every_suffix_in_use_is_escaped() {
        let mut tera = parse().expect("templates parse");
        for suffix in ["html", "atom", "svg", "json", "md", "txt"] {
            let name = format!("probe.{suffix}");
            tera.add_raw_template(&name, "{{ x }}").unwrap();
            let mut context = tera::Context::new();
            context.insert("x", "<b>\u{202e}");
            assert_eq!(tera.render(&name, &context).unwrap(), "&lt;b&gt;");
        }
    }
}
