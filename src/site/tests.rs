//! What must hold for the site as a whole.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::model::*;
use super::*;

type Files = BTreeMap<String, Vec<u8>>;

pub(super) fn built(model: &SiteModel) -> Files {
    build(model).unwrap_or_else(|e| {
        let mut text = e.to_string();
        let mut source = std::error::Error::source(&e);
        while let Some(s) = source {
            text += &format!(": {s}");
            source = s.source();
        }
        panic!("{text}")
    })
}

pub(super) fn text<'a>(files: &'a Files, path: &str) -> &'a str {
    std::str::from_utf8(files.get(path).unwrap_or_else(|| panic!("no {path}"))).expect("text")
}

/// A tag: whether it closes, its name, its attributes.
type Tag = (bool, String, Vec<(String, String)>);

/// Every tag of a page.
fn tags(markup: &str) -> Vec<Tag> {
    let mut out = Vec::new();
    let mut rest = markup;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if rest.starts_with('!') || rest.starts_with('?') {
            continue;
        }
        let (closing, body) = rest.strip_prefix('/').map_or((false, rest), |r| (true, r));
        let name: String = body.chars().take_while(char::is_ascii_alphanumeric).collect();
        assert!(!name.is_empty(), "a stray < before {:?}", &rest[..rest.len().min(40)]);
        let mut at = name.len();
        let mut attributes = Vec::new();
        let bytes = body.as_bytes();
        while bytes[at] != b'>' {
            if bytes[at].is_ascii_whitespace() || bytes[at] == b'/' {
                at += 1;
                continue;
            }
            let end = at + body[at..].find(['=', ' ', '>', '/']).expect("an end of the attribute");
            let key = body[at..end].to_owned();
            at = end;
            let mut value = String::new();
            if bytes[at] == b'=' {
                assert_eq!(bytes[at + 1], b'"', "an unquoted attribute in <{name}>");
                let close = at + 2 + body[at + 2..].find('"').expect("an end of the value");
                value = body[at + 2..close].to_owned();
                at = close + 1;
            }
            attributes.push((key, value));
        }
        out.push((closing, name, attributes));
        rest = &body[at..];
    }
    out
}

const VOID: [&str; 4] = ["meta", "link", "img", "col"];
const ALLOWED: &[&str] = &[
    "html", "head", "meta", "title", "link", "body", "a", "header", "div", "svg", "path", "span", "nav",
    "main", "footer", "p", "section", "h1", "h2", "h3", "h4", "ul", "ol", "li", "strong", "table", "caption",
    "thead", "tbody", "tr", "th", "td", "time", "code", "pre", "details", "summary", "dl", "dt", "dd",
    "aside", "article", "img", "rect", "circle", "g", "text", "desc", "colgroup", "col", "feed", "id",
    "updated", "author", "name", "entry",
];

/// Checks that markup is balanced, knows only our elements, and has neither handlers nor inline styles.
pub(super) fn check_markup(path: &str, markup: &str) {
    let mut open = Vec::new();
    let mut rest = markup;
    for (closing, name, attributes) in tags(markup) {
        assert!(ALLOWED.contains(&name.as_str()) || path == "feed.atom", "<{name}> in {path}");
        for (key, value) in &attributes {
            assert!(!key.starts_with("on") && key != "style" && key != "srcdoc", "{key} in {path}");
            if key == "href" || key == "src" {
                let relative = !value.contains(':') && !value.starts_with('/');
                assert!(
                    relative || value.starts_with("https://") || value.starts_with("mailto:"),
                    "{key}={value} in {path}"
                );
            }
        }
        let start =
            rest.find(&format!("<{}{name}", if closing { "/" } else { "" })).expect("the tag is there");
        let end = start + rest[start..].find('>').expect("the tag ends");
        let empty = rest[..end].ends_with('/') || VOID.contains(&name.as_str()) && path != "feed.atom";
        rest = &rest[end..];
        if closing {
            assert_eq!(open.pop().as_ref(), Some(&name), "</{name}> in {path}");
        } else if !empty {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} left open in {path}");
}

pub(super) fn is_markup(path: &str) -> bool {
    [".html", ".svg", ".atom"].iter().any(|suffix| path.ends_with(suffix))
}

/// Checks that each relative link leads to a file of the site, and each fragment to an element of its page.
pub(super) fn check_links(files: &Files) {
    for path in files.keys().filter(|p| p.ends_with(".html")) {
        let page = text(files, path);
        let mut ids = BTreeSet::new();
        let tags = tags(page);
        for (_, _, attributes) in &tags {
            for (key, value) in attributes.iter().filter(|a| a.0 == "id") {
                assert!(ids.insert(value.clone()), "{key} {value} twice in {path}");
            }
        }
        for (_, _, attributes) in &tags {
            for (_, value) in attributes.iter().filter(|a| a.0 == "href" || a.0 == "src") {
                if value.starts_with("https:") || value.starts_with("mailto:") {
                    continue;
                }
                if let Some(fragment) = value.strip_prefix('#') {
                    assert!(ids.contains(fragment), "#{fragment} in {path}");
                    continue;
                }
                let mut parts: Vec<&str> = path.split('/').collect();
                parts.pop();
                for part in value.split('/') {
                    match part {
                        ".." => assert!(parts.pop().is_some(), "{value} leaves the site in {path}"),
                        part => parts.push(part),
                    }
                }
                assert!(files.contains_key(&parts.join("/")), "{value} in {path} leads nowhere");
            }
        }
    }
}

#[test]
fn the_sample_has_every_page_and_each_is_sound() {
    let files = built(&sample::model());
    for page in [
        "index.html",
        "d/commerce/index.html",
        "p/commerce/daily-revenue/index.html",
        "p/risk/churn-model/index.html",
        "lineage/index.html",
        "incidents/index.html",
        "incidents/deadline-daily-revenue-20261108/index.html",
        "policies/index.html",
        "changes/index.html",
        "api/v1/summary.json",
        "api/v1/products.json",
        "feed.atom",
        "badge/commerce/orders.svg",
        "manifest.json",
        "favicon.svg",
    ] {
        assert!(files.contains_key(page), "no {page}");
    }
    for (path, bytes) in files.iter().filter(|(p, _)| is_markup(p)) {
        check_markup(path, text(&files, path));
        assert!(bytes.len() <= 60 * 1024, "{path} has {} bytes", bytes.len());
        if path.ends_with(".html") {
            let page = text(&files, path);
            assert_eq!(page.matches("<h1").count(), 1, "{path}");
            assert!(page.contains("Content-Security-Policy") && page.contains(r#"lang="en""#), "{path}");
        }
    }
    assert!(files.iter().any(|(p, b)| p.starts_with("style-") && b.len() < 24 * 1024));
    check_links(&files);
}

#[test]
fn the_overview_says_how_the_mesh_is_and_puts_the_worst_first() {
    let files = built(&sample::model());
    let page = text(&files, "index.html");
    assert!(
        page.contains(
            "1 of 9 products breaches an objective, 1 is degraded and 1 is denied by policy; 1 page and 1 ticket are open."
        ),
        "{page}"
    );
    let place = |what: &str| page.find(what).unwrap_or_else(|| panic!("no {what}"));
    assert!(place("Clickstream stands still") < place(">Commerce<"));
    assert!(
        place("p/commerce/clickstream/index.html\">Clickstream<")
            < place("p/commerce/orders/index.html\">Orders<")
    );
    assert!(place(">Commerce<") < place(">Customer<") && place(">Customer<") < place(">Risk<"));
    assert!(page.contains("overspent by 22\u{202f}%"));
    assert!(page.contains("99.38–99.41\u{202f}%"));
}

#[test]
fn what_the_product_page_shows_comes_from_the_model() {
    let mut model = sample::model();
    let page = |model: &SiteModel| text(&built(model), "p/commerce/daily-revenue/index.html").to_owned();
    let before = page(&model);
    for part in [
        "iceberg_scan(&#39;lake/commerce/daily-revenue/revenue&#39;)",
        "8\u{202f}120 rows",
        "1.4.0",
        "pii_needs_consent",
    ] {
        assert!(before.contains(part), "no {part}");
    }
    assert!(before.contains("commerce/orders") && before.contains("Which rows there are is decided by"));
    let product = model.products.iter_mut().find(|p| p.id == "commerce/daily-revenue").unwrap();
    product.ports[0].rows = Some(9_000);
    product.status = Status::Healthy;
    product.sync = Sync::InSync { commit: "feedc0de00".into() };
    let after = page(&model);
    assert!(after.contains("9\u{202f}000 rows") && !after.contains("8\u{202f}120 rows"));
    assert!(after.contains("at feedc0de"));
}

#[test]
fn two_builds_are_equal_and_order_does_not_show() {
    let model = sample::model();
    let first = built(&model);
    let again = built(&model);
    assert_eq!(first.len(), again.len());
    for (path, bytes) in &first {
        assert!(again[path] == *bytes, "{path} differs between two builds");
    }
    let mut shuffled = model;
    shuffled.products.reverse();
    shuffled.domains.reverse();
    shuffled.incidents.reverse();
    shuffled.policies.reverse();
    shuffled.lineage.products.reverse();
    shuffled.lineage.columns.reverse();
    let second = built(&shuffled);
    for (path, bytes) in &first {
        assert!(second[path] == *bytes, "{path} depends on the order of its facts");
    }
}

#[test]
fn the_manifest_names_every_file_with_its_hash() {
    use sha2::{Digest, Sha256};
    let files = built(&sample::model());
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let listed = manifest["files"].as_object().unwrap();
    assert_eq!(listed.len(), files.len() - 1);
    for (path, bytes) in files.iter().filter(|(p, _)| *p != "manifest.json") {
        assert_eq!(listed[path]["sha256"], hex::encode(Sha256::digest(bytes)), "{path}");
    }
}

#[test]
fn the_json_agrees_with_the_model() {
    let files = built(&sample::model());
    let summary: Value = serde_json::from_slice(&files["api/v1/summary.json"]).unwrap();
    assert_eq!(summary["status"], "breaching");
    assert_eq!(summary["products"]["total"], 9);
    assert_eq!(summary["products"]["by_status"]["healthy"], 6);
    assert_eq!(summary["open_incidents"].as_array().unwrap().len(), 2);
    let products: Value = serde_json::from_slice(&files["api/v1/products.json"]).unwrap();
    let clicks = &products["products"][0];
    assert_eq!(clicks["id"], "commerce/clickstream");
    assert_eq!(clicks["downstream"][0], "customer/activity");
    assert!(files.contains_key(clicks["page"].as_str().unwrap()));
    assert!(files.contains_key(clicks["badge"].as_str().unwrap()));
}

/// Appends `payload` to every text of the model that is not of a fixed form (dates, words of state).
///
/// It works on the serialised model, so a field added later is covered without a thought.
fn poisoned(payload: &str) -> (SiteModel, usize) {
    fn leaves(value: &Value, at: String, out: &mut Vec<String>) {
        match value {
            Value::String(_) => out.push(at),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, v)| leaves(v, format!("{at}/{i}"), out));
            }
            Value::Object(map) => map.iter().for_each(|(k, v)| {
                leaves(v, format!("{at}/{}", k.replace('~', "~0").replace('/', "~1")), out);
            }),
            _ => {}
        }
    }
    let mut model = sample::model();
    for objective in model.products.iter_mut().flat_map(|p| &mut p.objectives) {
        let keep = objective.days.len() - 3;
        objective.days.drain(..keep);
    }
    for product in &mut model.products {
        product.runs.truncate(1);
        for drift in &mut product.drift {
            drift.history.truncate(3);
            drift.histogram.truncate(2);
        }
    }
    let mut value = serde_json::to_value(&model).unwrap();
    let mut paths = Vec::new();
    leaves(&value, String::new(), &mut paths);
    let mut changed = 0;
    // A leaf's kind is that of its path without numbers; one trial tells for all of them.
    let mut verdicts: BTreeMap<String, bool> = BTreeMap::new();
    for path in paths {
        let kind: String = path
            .split('/')
            .map(|s| if s.parse::<usize>().is_ok() { "*" } else { s })
            .collect::<Vec<_>>()
            .join("/");
        let leaf = value.pointer_mut(&path).unwrap();
        let original = leaf.as_str().unwrap().to_owned();
        *leaf = Value::String(format!("{original}{payload}"));
        let accepted = *verdicts
            .entry(kind)
            .or_insert_with(|| serde_json::from_value::<SiteModel>(value.clone()).is_ok());
        if accepted {
            changed += 1;
        } else {
            *value.pointer_mut(&path).unwrap() = Value::String(original);
        }
    }
    (serde_json::from_value(value).unwrap(), changed)
}

#[test]
fn no_text_of_the_mesh_becomes_markup() {
    for payload in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "'><svg onload=alert(1)>",
        "</text></svg><a href=\"javascript:alert(1)\">x</a>",
        "</title></style></pre><iframe srcdoc=x>",
        "]]><x/>&#x3c;script&#x3e;\u{0}\u{202e}",
        "{{ 7 * 7 }}{% raw %}",
    ] {
        let (model, changed) = poisoned(payload);
        assert!(changed > 300, "only {changed} fields were poisoned");
        let files = built(&model);
        for path in files.keys() {
            let content = text(&files, path);
            assert!(path.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.".contains(c)), "{path}");
            if path.ends_with(".css") {
                continue;
            }
            for raw in [
                "<script",
                "<img src=x",
                "<svg onload",
                "<iframe",
                "onerror=alert(1)>",
                "javascript:alert(1)\"",
                "\u{0}",
                "\u{202e}",
            ] {
                let raw_in_json = path.ends_with(".json") && raw.starts_with('\u{202e}');
                assert!(!content.contains(raw) || raw_in_json, "{raw:?} in {path}");
            }
            if is_markup(path) {
                check_markup(path, content);
            } else if path.ends_with(".json") {
                assert!(!content.contains('<'), "{path}");
                serde_json::from_str::<Value>(content).unwrap();
            }
        }
        check_links(&files);
        if payload.starts_with("{{") {
            assert!(
                text(&files, "index.html").contains("Clickstream{{ 7 * 7 }}"),
                "a template in a text was run"
            );
        }
    }
}

#[test]
fn addresses_become_links_only_if_they_are_harmless() {
    for address in [
        "javascript:alert(1)",
        "data:text/html,<script>1</script>",
        "vbscript:x",
        "//evil.example",
        "http://plain.example/",
    ] {
        let mut model = sample::model();
        model.repository = Some(address.into());
        model.base_url = Some(address.into());
        for domain in &mut model.domains {
            domain.on_call = Some(address.into());
            domain.owners[0].address = Some(address.into());
        }
        for product in &mut model.products {
            product.runbook = Some(address.into());
            product.on_call = Some(address.into());
            product.owners[0].address = Some(address.into());
        }
        for change in &mut model.changes {
            change.url = Some(address.into());
        }
        let files = built(&model);
        for path in files.keys().filter(|p| is_markup(p)) {
            // check_markup refuses any link that is not relative, https or mailto.
            check_markup(path, text(&files, path));
            assert!(!text(&files, path).contains(&format!("href=\"{}", &address[..5])), "{path}");
        }
        assert!(
            text(&files, "p/commerce/orders/index.html").contains(&escape::escape(address)),
            "shown as text"
        );
    }
}

#[test]
fn odd_meshes_are_built_all_the_same() {
    let empty = SiteModel {
        domains: vec![],
        products: vec![],
        lineage: Lineage::default(),
        incidents: vec![],
        policies: vec![],
        waivers: vec![],
        changes: vec![],
        ..sample::model()
    };
    let files = built(&empty);
    check_links(&files);
    assert!(text(&files, "index.html").contains("No product is deployed yet."));

    let mut odd = sample::model();
    // A product of an undeclared domain with nothing but a name, edges to nowhere, a cycle, an episode about nothing.
    let mut bare = odd.products[0].clone();
    bare.id = "ghost/CON".into();
    bare.domain = "ghost".into();
    bare.ports.clear();
    bare.objectives.clear();
    bare.quality.clear();
    bare.runs.clear();
    bare.decisions.clear();
    bare.owners.clear();
    bare.on_call = None;
    bare.data_through = None;
    odd.products.push(bare);
    odd.lineage.products.push(ProductEdge {
        from: "no/where".into(),
        to: "commerce/orders".into(),
        ports: vec![],
    });
    odd.lineage.products.push(ProductEdge {
        from: "risk/churn-model".into(),
        to: "commerce/orders".into(),
        ports: vec![],
    });
    odd.incidents[0].product = "gone/product".into();
    odd.incidents[0].transitions.clear();
    odd.products[3].objectives[0].sli_low = Some(f64::NAN);
    odd.products[3].objectives[0].budget_remaining = Some(f64::NEG_INFINITY);
    odd.products[5].drift[0].statistic = f64::NAN;
    let files = built(&odd);
    check_links(&files);
    for path in files.keys().filter(|p| is_markup(p)) {
        check_markup(path, text(&files, path));
    }
}

#[test]
fn two_products_of_one_address_are_refused() {
    let mut model = sample::model();
    model.products.push(model.products[0].clone());
    assert!(matches!(build(&model), Err(SiteError::Duplicate { what: "products", .. })));
}

#[test]
fn a_big_mesh_keeps_its_pages_small() {
    let files = built(&sample::crowd(150, 6));
    assert!(text(&files, "lineage/index.html").contains("The domains and what flows between them"));
    for (path, bytes) in files.iter().filter(|(p, _)| p.ends_with(".html")) {
        // Uncompressed; markup of rows that are alike shrinks to about a tenth on the wire.
        assert!(bytes.len() <= 400 * 1024, "{path} has {} bytes", bytes.len());
    }
    check_links(&files);
}

#[test]
fn a_rebuild_an_hour_later_notifies_no_feed_reader() {
    let mut model = sample::model();
    let before = built(&model);
    model.generated_at += chrono::TimeDelta::hours(1);
    assert_eq!(text(&before, "feed.atom"), text(&built(&model), "feed.atom"));
    assert_eq!(text(&before, "feed.atom").matches("<entry>").count(), 6);
}

#[test]
fn the_palette_has_enough_contrast_in_both_themes() {
    let css = include_str!("templates/style.css");
    let (light, dark) = css.split_once("prefers-color-scheme:dark").unwrap();
    let read = |block: &str| -> BTreeMap<String, [f64; 3]> {
        let block = &block[..block.find('}').unwrap()];
        block
            .split(['{', ';', '\n'])
            .filter_map(|d| d.trim().strip_prefix("--")?.split_once(":#"))
            .map(|(name, hex)| {
                let n = u32::from_str_radix(hex, 16).unwrap();
                (name.to_owned(), [n >> 16, n >> 8 & 255, n & 255].map(|c| f64::from(c) / 255.0))
            })
            .collect()
    };
    let light = read(light);
    let dark: BTreeMap<_, _> = light.clone().into_iter().chain(read(dark)).collect();
    let luminance = |c: [f64; 3]| {
        let l = c.map(|v| if v <= 0.040_45 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) });
        0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]
    };
    for (theme, palette) in [("light", &light), ("dark", &dark)] {
        assert!(palette.len() >= 20, "{theme}: {palette:?}");
        let ratio = |a: &str, b: &str| {
            let (a, b) = (luminance(palette[a]), luminance(palette[b]));
            (a.max(b) + 0.05) / (a.min(b) + 0.05)
        };
        let need = |a: &str, b: &str, least: f64| {
            assert!(ratio(a, b) >= least, "{theme}: {a} on {b} is {:.2}", ratio(a, b));
        };
        for surface in ["page", "surface", "sunken"] {
            for ink in ["ink", "soft", "accent", "good", "warn", "bad", "hold", "deny"] {
                need(ink, surface, 4.5);
            }
            need("cell-mute", surface, 3.0);
        }
        for tone in ["good", "warn", "bad", "hold", "mute"] {
            need(tone, &format!("{tone}-tint"), 4.5);
            need("ink", &format!("{tone}-tint"), 4.5);
        }
        need("band-ink", "band", 4.5);
        need("band-soft", "band", 4.5);
        need("cell-warn", "surface", 3.0);
    }
}

/// Writes the sample to the folder in `HYDROMESH_SITE_SAMPLE`, to be looked at.
#[test]
fn the_sample_can_be_looked_at() {
    let scratch = tempfile::tempdir().unwrap();
    let out = std::env::var_os("HYDROMESH_SITE_SAMPLE").map_or(scratch.path().to_owned(), Into::into);
    let published = publish(&built(&sample::model()), &out).unwrap();
    assert!(out.join("current/index.html").exists());
    assert_eq!(published.pages, 1 + 4 + 9 + 1 + 1 + 3 + 1 + 1);
}

/// Prints how long three hundred products take; the figure depends on the machine, so only absurdity fails.
#[test]
fn hundreds_of_products_are_built_in_reasonable_time() {
    let model = sample::crowd(300, 12);
    let start = std::time::Instant::now();
    let files = built(&model);
    let took = start.elapsed();
    println!("{} files in {took:?}", files.len());
    assert!(took < std::time::Duration::from_mins(1), "{took:?}");
    let overview = text(&files, "index.html").len();
    assert!(overview < 2 * 1024 * 1024, "the overview has {overview} bytes");
}
