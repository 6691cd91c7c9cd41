//! Open Data Product Standard v0.9 to v1.1.

use super::custom::Custom;
use super::retire::retire;
use crate::diag::{Spot, codes};
use crate::model::{Access, RetirePolicy, TableFormat};
use crate::syntax::{Map, Node, NodeKind, Sink};

const VERSIONS: &[&str] = &["v1.1.0", "v1.0.0", "v0.9.0"];

/// What `product.odps.yaml` says.
#[derive(Debug, Default)]
pub struct RawProduct {
    /// Stated id, if any.
    pub id: Option<(String, Spot)>,
    /// Stated name, if any.
    pub name: Option<(String, Spot)>,
    /// Stated domain, if any.
    pub domain: Option<(String, Spot)>,
    /// SemVer; empty when not stated.
    pub version: String,
    /// Status; empty when not stated.
    pub status: String,
    /// For people.
    pub title: Option<String>,
    /// For people.
    pub description: String,
    /// Stated tier.
    pub tier: Option<u8>,
    /// Link to the runbook.
    pub runbook: Option<String>,
    /// Mail addresses of the team.
    pub owners: Vec<String>,
    /// Input ports in order.
    pub inputs: Vec<RawPort>,
    /// Output ports in order.
    pub outputs: Vec<RawPort>,
    /// What becomes of its tables once it has left the mesh.
    pub retire: RetirePolicy,
}

/// What feeds an external input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed {
    /// Files of the product's folder.
    Files(String),
    /// A topic.
    Topic(String),
}

/// One port.
#[derive(Debug)]
pub struct RawPort {
    /// Its name.
    pub name: String,
    /// Where the name stands.
    pub at: Spot,
    /// For people.
    pub description: String,
    /// Stated version.
    pub version: Option<(String, Spot)>,
    /// Stated contract.
    pub contract_id: Option<(String, Spot)>,
    /// What feeds it, for external inputs.
    pub feed: Option<Feed>,
    /// Table format, when the port chooses.
    pub format: Option<TableFormat>,
    /// How it may be read.
    pub access: Access,
    /// Where the lookup key or the search text stands.
    pub access_at: Spot,
}

/// Reads a product file.
#[must_use]
pub fn product(document: &Node, sink: &Sink) -> RawProduct {
    let map = Map::new(document, sink);
    if let Some(version) = map.req_text("apiVersion")
        && !VERSIONS.contains(&version.as_str())
    {
        let message = format!("apiVersion `{version}` is not read; known are {}", VERSIONS.join(", "));
        sink.tell(codes::ODCS_VERSION, map.spot("apiVersion"), message);
    }
    if let Some(kind) = map.req_text("kind")
        && kind != "DataProduct"
    {
        map.bad_choice("kind", map.spot("kind"), &kind, &["DataProduct"]);
    }
    let placed = |key| map.text(key).map(|text| (text, map.spot(key)));
    let custom = Custom::of(&map);
    let tier = custom.get("hydromesh.tier").and_then(|node| read_tier(&map, node));
    let mut raw = RawProduct {
        id: placed("id"),
        name: placed("name"),
        domain: placed("domain"),
        version: map.text("version").unwrap_or_default(),
        status: map.text("status").unwrap_or_default(),
        title: custom.text("hydromesh.title").map(|(text, _)| text),
        description: map.opt("description").map(|node| describe(node, sink)).unwrap_or_default(),
        tier,
        runbook: custom.text("hydromesh.runbook").map(|(text, _)| text),
        retire: custom.get("hydromesh.retire").and_then(|node| retire(&map, node)).unwrap_or_default(),
        owners: map.opt("team").map(|team| team_mails(team, &map)).unwrap_or_default(),
        ..RawProduct::default()
    };
    custom.finish(&map);
    map.known(&[
        "type",
        "tenant",
        "deprecated",
        "synonyms",
        "context",
        "tags",
        "authoritativeDefinitions",
        "managementPorts",
        "support",
        "productCreatedTs",
    ]);
    for (key, required) in [("managementPorts", &["name", "content"][..]), ("support", &["channel"][..])] {
        for entry in map.list(key) {
            let entry = Map::new(entry, sink);
            for name in required {
                let _ = entry.req(name);
            }
        }
    }
    raw.inputs =
        map.list("inputPorts").iter().filter_map(|port| read_port(port, sink, Side::Input)).collect();
    raw.outputs =
        map.list("outputPorts").iter().filter_map(|port| read_port(port, sink, Side::Output)).collect();
    map.finish();
    raw
}

fn describe(node: &Node, sink: &Sink) -> String {
    if let Some(text) = node.text() {
        return text;
    }
    let map = Map::new(node, sink);
    let purpose = map.text("purpose").unwrap_or_default();
    map.known(&["usage", "limitations", "authoritativeDefinitions", "customProperties"]);
    map.finish();
    purpose
}

/// A tier from 1 to 3.
pub fn read_tier(map: &Map<'_>, node: &Node) -> Option<u8> {
    match node.value {
        NodeKind::Int(tier @ 1..=3) => u8::try_from(tier).ok(),
        _ => {
            map.sink().tell(codes::BAD_VALUE, node.at, "a tier is 1 (wakes people), 2 or 3 (best effort)");
            None
        }
    }
}

/// A mail address well enough formed to be tried.
pub fn is_mail(text: &str) -> bool {
    text.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && host.contains('.') && !text.contains(char::is_whitespace) && !host.contains('@')
    })
}

/// The team is a list of members in v0.9 and an object that holds them later.
fn team_mails(team: &Node, parent: &Map<'_>) -> Vec<String> {
    let sink = parent.sink();
    let members: &[Node] = match &team.value {
        NodeKind::Seq(members) => members,
        NodeKind::Map(_) => {
            let map = Map::new(team, sink);
            map.known(&["id", "name", "description", "tags", "customProperties", "authoritativeDefinitions"]);
            let members = map.list("members");
            map.finish();
            members
        }
        _ => {
            parent.wrong("team", team, "a mapping with members");
            &[]
        }
    };
    let mut mails = Vec::new();
    for member in members {
        let map = Map::new(member, sink);
        let username = map.req_text("username");
        let custom = Custom::of(&map);
        let stated =
            custom.text("hydromesh.mail").or_else(|| custom.text("email")).or_else(|| custom.text("mail"));
        custom.finish(&map);
        let gone = map.text("dateOut").is_some();
        if let Some(mail) = stated.map(|(text, _)| text).or(username).filter(|text| is_mail(text))
            && !gone
        {
            mails.push(mail);
        }
    }
    mails
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Input,
    Output,
}

fn read_port(node: &Node, sink: &Sink, side: Side) -> Option<RawPort> {
    let map = Map::new(node, sink);
    let name = map.req_text("name");
    let placed = |key| map.text(key).map(|text| (text, map.spot(key)));
    let (version, contract_id) = (placed("version"), placed("contractId"));
    map.known(&["id", "tags", "deprecated", "authoritativeDefinitions", "customProperties"]);
    let custom = Custom::of(&map);
    let mut description = String::new();
    let mut feed = None;
    let mut format = None;
    let mut access = Access { table: true, ..Access::default() };
    let mut access_at = node.at;
    match side {
        Side::Input => {
            let files = custom.text("hydromesh.files").map(|(glob, at)| {
                if let Some(why) = misfit_of_glob(&glob) {
                    sink.tell(codes::BAD_VALUE, at, format!("`hydromesh.files` {why}"));
                }
                Feed::Files(glob)
            });
            let topic = custom.text("hydromesh.topic").map(|(topic, _)| Feed::Topic(topic));
            if files.is_some() && topic.is_some() {
                sink.tell(codes::NO_SOURCE, node.at, "an input is fed by files or by a topic, not by both");
            }
            feed = files.or(topic);
        }
        Side::Output => {
            map.known(&["type", "sbom", "inputContracts", "synonyms", "context"]);
            description = map.text("description").unwrap_or_default();
            format = custom.text("hydromesh.format").and_then(|(text, at)| match text.as_str() {
                "delta" => Some(TableFormat::Delta),
                "iceberg" => Some(TableFormat::Iceberg),
                other => {
                    map.bad_choice("hydromesh.format", at, other, &["delta", "iceberg"]);
                    None
                }
            });
            if let Some(node) = custom.get("hydromesh.access") {
                access_at = node.at;
                access = read_access(node, sink);
            }
        }
    }
    custom.finish(&map);
    let at = map.spot("name");
    map.finish();
    name.map(|name| RawPort { name, at, description, version, contract_id, feed, format, access, access_at })
}

/// Longest pattern, in bytes: many times the longest path that anybody writes.
const MOST_GLOB_BYTES: usize = 1_024;

/// Returns what is wrong with a pattern of files. It is only ever compared with names below the product's folder, so that
/// one which looks elsewhere would match nothing, and nobody would know why.
fn misfit_of_glob(glob: &str) -> Option<&'static str> {
    let lower = glob.to_ascii_lowercase();
    let has_drive =
        lower.as_bytes().get(1) == Some(&b':') && lower.starts_with(|c: char| c.is_ascii_alphabetic());
    if glob.is_empty() {
        Some("is empty; write a pattern such as `data/*.csv`")
    } else if glob.len() > MOST_GLOB_BYTES {
        Some("is longer than 1,024 bytes")
    } else if glob.contains('\\') {
        Some("holds a `\\`; folders are joined by `/`")
    } else if glob.starts_with('/') || has_drive || lower.starts_with("file:") || glob.contains("://") {
        Some("starts outside the product's folder; write it relative to that, such as `data/*.csv`")
    } else if glob.split('/').any(|part| part == ".." || part == ".") {
        Some("leaves the product's folder; only files below it can be read")
    } else if lower.contains("%2e") || lower.contains("%2f") || lower.contains("%5c") {
        Some("is percent-encoded; names are compared as they are")
    } else {
        None
    }
}

/// `{table: true, topic: true, lookup: {key: id}, search: {text: body}}`; a key without a value means true.
fn read_access(node: &Node, sink: &Sink) -> Access {
    let map = Map::new(node, sink);
    let on = |key: &'static str, default: bool| match node.get(key).map(|node| &node.value) {
        Some(NodeKind::Null) => true,
        Some(_) => map.flag(key).unwrap_or(default),
        None => default,
    };
    map.known(&["table", "topic"]);
    let inner = |key: &'static str, column: &'static str| {
        let value = map.opt(key)?;
        if let NodeKind::Str(text) = &value.value {
            return Some(text.clone());
        }
        let inner = Map::new(value, sink);
        let text = inner.req_text(column);
        inner.finish();
        text
    };
    let access = Access {
        table: on("table", true),
        topic: on("topic", false),
        lookup: inner("lookup", "key"),
        search: inner("search", "text"),
    };
    map.finish();
    access
}

#[cfg(test)]
mod tests {
    use super::misfit_of_glob;

    #[test]
    fn a_pattern_of_files_stays_in_its_folder() {
        for fits in ["data/*.csv", "**/x.jsonl", "a..b/x.csv", "2026-08-01T00:00.csv", "é/100%.csv"] {
            assert_eq!(misfit_of_glob(fits), None, "{fits}");
        }
        for strays in [
            "",
            "/etc/passwd",
            "../other/*.csv",
            "data/../../x",
            "./x.csv",
            "file:///etc/passwd",
            "FILE:/etc/passwd",
            "s3://bucket/x.csv",
            "C:/x.csv",
            "c:\\x.csv",
            "\\\\server\\share\\x.csv",
            "//server/share/x.csv",
            "%2e%2e/x.csv",
            "..%2Fx.csv",
            &"*a".repeat(600),
        ] {
            assert!(misfit_of_glob(strays).is_some(), "{strays}");
        }
    }
}
