//! Open Data Contract Standard v3.0 to v3.2, one schema object per file.
//!
//! The standard's text wins over its JSON Schema where they differ; known older spellings are read and noted.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::custom::Custom;
use super::quality::{self, QualityDraft};
use super::{servers, sla};
use crate::diag::{Diagnostic, Severity, Spot, codes};
use crate::model::{
    Classification, Column, Contract, LogicalType, Quality, QualityCheck, QualitySeverity, Threshold,
};
use crate::syntax::{Map, Node, NodeKind, Sink};

const VERSIONS: &[&str] = &["v3.2.0", "v3.1.0", "v3.0.2", "v3.0.1", "v3.0.0"];

/// Keys that every element of a schema may have and that mean nothing to the mesh beyond documentation.
const ELEMENT: &[&str] = &["id", "businessName", "deprecated", "authoritativeDefinitions"];

/// Returns the id that a contract states, so that an input port can be told apart before the contract is read.
#[must_use]
pub fn declared_id(document: &Node) -> Option<String> {
    document.get("id").and_then(Node::text)
}

/// Reads a contract. `address` is the port that the file's place in the mesh implies; a foreign contract has none.
///
/// Returns `None` when there is no schema object to speak of.
#[must_use]
pub fn contract(document: &Node, sink: &Sink, address: Option<&str>) -> Option<Contract> {
    let map = Map::new(document, sink);
    if let Some(version) = map.req_text("apiVersion")
        && !VERSIONS.contains(&version.as_str())
    {
        let message = format!("apiVersion `{version}` is not read; known are {}", VERSIONS.join(", "));
        sink.tell(codes::ODCS_VERSION, map.spot("apiVersion"), message);
    }
    if let Some(kind) = map.req_text("kind")
        && kind != "DataContract"
    {
        map.bad_choice("kind", map.spot("kind"), &kind, &["DataContract"]);
    }
    let version = map.req_text("version").unwrap_or_default();
    let id = match address {
        None => map.req_text("id").unwrap_or_default(),
        Some(address) => {
            if let Some(stated) = map.text("id")
                && stated != address
            {
                let message = format!("the id is `{stated}`, the port's address is `{address}`");
                sink.tell(codes::CONTRACT_ID, map.spot("id"), message);
            }
            address.to_owned()
        }
    };
    let status = map.text("status").unwrap_or_else(|| "active".to_owned());
    let description = map.opt("description").map(|node| description(node, sink)).unwrap_or_default();
    servers::check(&map);
    team_and_support(&map);
    map.known(&[
        "name",
        "tenant",
        "domain",
        "dataProduct",
        "tags",
        "contractCreatedTs",
        "context",
        "price",
        "slaDefaultElement",
        "authoritativeDefinitions",
    ]);
    Custom::of(&map).finish(&map);
    let slas = sla::read(&map);
    let objects = map.list("schema");
    let mut read = Vec::new();
    for object in objects {
        read.push(schema_object(object, sink));
    }
    if objects.len() != 1 {
        let at = map.spot("schema");
        let message = format!("the contract holds {} schema objects, a port is one", objects.len());
        sink.tell(codes::SCHEMA_COUNT, at, message);
    }
    map.finish();
    let first = if read.is_empty() { return None } else { read.swap_remove(0) };
    let description = if description.is_empty() { first.description } else { description };
    let file = sink.file().to_owned();
    Some(Contract {
        id,
        version,
        status,
        description,
        columns: first.columns,
        quality: first.quality,
        slas,
        file,
    })
}

fn description(node: &Node, sink: &Sink) -> String {
    if let Some(text) = node.text() {
        return text;
    }
    let map = Map::new(node, sink);
    let purpose = map.text("purpose");
    map.known(&["usage", "limitations", "authoritativeDefinitions", "customProperties"]);
    map.finish();
    purpose.unwrap_or_default()
}

/// Team, roles and support are documentation; only their shape is checked.
fn team_and_support(map: &Map<'_>) {
    if let Some(team) = map.opt("team") {
        match &team.value {
            // v3.0 has a list of members, later versions an object with members.
            NodeKind::Seq(_) | NodeKind::Map(_) => {}
            _ => map.wrong("team", team, "a mapping with members"),
        }
    }
    for role in map.list("roles") {
        let role = Map::new(role, map.sink());
        let _ = role.req_text("role");
    }
    for channel in map.list("support") {
        let channel = Map::new(channel, map.sink());
        let _ = channel.req_text("channel");
    }
}

struct ReadObject {
    description: String,
    columns: Vec<Column>,
    quality: Vec<Quality>,
}

fn schema_object(node: &Node, sink: &Sink) -> ReadObject {
    let map = Map::new(node, sink);
    let _ = map.req_text("name");
    map.known(ELEMENT);
    map.known(&[
        "physicalName",
        "physicalType",
        "logicalType",
        "dataGranularityDescription",
        "context",
        "tags",
    ]);
    Custom::of(&map).finish(&map);
    synonyms(&map);
    relationships(&map, End::Object);
    let description = map.text("description").unwrap_or_default();
    let mut columns: Vec<Column> = Vec::new();
    let mut drafts = Vec::new();
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    for property in map.list("properties") {
        let Some((column, rules)) = column(property, sink) else { continue };
        match taken.entry(column.name.to_lowercase()) {
            Entry::Occupied(twin) => {
                let twin = &columns[*twin.get()];
                let message = format!("column `{}` is already given", column.name);
                sink.push(
                    Diagnostic::new(codes::DUPLICATE_COLUMN, sink.file(), property.at, message).related(
                        sink.file(),
                        Spot::new(twin.line, 0),
                        format!("`{}` is here", twin.name),
                    ),
                );
            }
            Entry::Vacant(free) => {
                free.insert(columns.len());
                drafts.extend(rules);
                columns.push(column);
            }
        }
    }
    drafts.extend(quality::read(&map, None));
    map.finish();
    imply(&columns, &mut drafts);
    ReadObject { description, columns, quality: quality::name(drafts) }
}

/// Adds the rules that the schema itself promises, so that the audit before a publication proves them as well:
/// required columns, unique columns, the primary key. An author's rule of the same kind takes precedence.
fn imply(columns: &[Column], drafts: &mut Vec<QualityDraft>) {
    let mut implied = Vec::new();
    let mut add = |id: String, column: Option<&Column>, check: QualityCheck, line: u32| {
        let threshold = Threshold { operator: "mustBe".to_owned(), operands: vec![0.0], percent: false };
        let column = column.map(|column| column.name.clone());
        implied.push(QualityDraft {
            id: Some(id),
            quality: Quality {
                id: String::new(),
                column,
                check,
                threshold,
                severity: QualitySeverity::Error,
                line,
            },
        });
    };
    for column in columns {
        if column.required {
            add(format!("required_{}", column.name), Some(column), QualityCheck::NullValues, column.line);
        }
        if column.unique {
            let check = QualityCheck::DuplicateValues(vec![column.name.clone()]);
            add(format!("unique_{}", column.name), Some(column), check, column.line);
        }
    }
    let key: Vec<&Column> = columns.iter().filter(|column| column.primary_key).collect();
    if let Some(first) = key.first()
        && !(key.len() == 1 && first.unique)
    {
        let names = key.iter().map(|column| column.name.clone()).collect();
        add("primary_key".to_owned(), None, QualityCheck::DuplicateValues(names), first.line);
    }
    implied.retain(|new| {
        !drafts
            .iter()
            .any(|old| old.quality.column == new.quality.column && old.quality.check == new.quality.check)
    });
    drafts.append(&mut implied);
}

fn column(node: &Node, sink: &Sink) -> Option<(Column, Vec<QualityDraft>)> {
    let map = Map::new(node, sink);
    let name = map.req_text("name");
    let physical = map.text("physicalType");
    let logical = logical_type(&map, physical.as_deref());
    let nullable_old = old_flag(&map, "isNullable", "required");
    let unique_old = old_flag(&map, "isUnique", "unique");
    let required = map.flag("required").unwrap_or(nullable_old == Some(false));
    let unique = map.flag("unique").or(unique_old).unwrap_or(false);
    let primary_key = map.flag("primaryKey").unwrap_or(false);
    let description = map.text("description").unwrap_or_default();
    let custom = Custom::of(&map);
    let classification = classification(&map, &custom);
    custom.finish(&map);
    synonyms(&map);
    relationships(&map, End::Column);
    map.known(ELEMENT);
    map.known(&[
        "physicalName",
        "primaryKeyPosition",
        "semanticType",
        "partitioned",
        "partitionKeyPosition",
        "encryptedName",
        "transformSourceObjects",
        "transformLogic",
        "transformDescription",
        "examples",
        "criticalDataElement",
    ]);
    let name = name?;
    if let Some(why) = misfit_of_name(&name) {
        sink.push(
            Diagnostic::new(codes::BAD_NAME, sink.file(), map.spot("name"), format!("a column's name {why}"))
                .help("write the name in at most 255 bytes that everybody can see"),
        );
        return None;
    }
    let mut rules = values_of(&map, &name);
    rules.extend(quality::read(&map, Some(&name)));
    map.finish();
    let line = node.at.line;
    Some((
        Column { name, logical, physical, required, unique, primary_key, classification, description, line },
        rules,
    ))
}

/// Longest name of a column, in bytes: what table formats and the systems behind them take.
const MOST_NAME_BYTES: usize = 255;

/// Returns what is wrong with a column's name. Any script will do, as long as two names that look alike are alike.
fn misfit_of_name(name: &str) -> Option<String> {
    if name.len() > MOST_NAME_BYTES {
        return Some(format!("has {} bytes, the limit is {MOST_NAME_BYTES}", name.len()));
    }
    let unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}')
    };
    let found = name.chars().find(|c| unseen(*c))?;
    Some(format!("holds a character that nobody sees (U+{:04X})", u32::from(found)))
}

fn old_flag(map: &Map<'_>, key: &'static str, newer: &str) -> Option<bool> {
    let value = map.flag(key)?;
    map.sink().tell(codes::OLD_SPELLING, map.spot(key), format!("`{key}` is spelled `{newer}` since v3.0"));
    Some(value)
}

const LOGICAL: &[&str] = &[
    "string",
    "date",
    "timestamp",
    "time",
    "number",
    "integer",
    "boolean",
    "vector",
    "object",
    "array",
    "map",
];

fn logical_type(map: &Map<'_>, physical: Option<&str>) -> LogicalType {
    let options = map.map("logicalTypeOptions");
    let dimensions = options.as_ref().and_then(|options| options.count("dimensions"));
    nested(map);
    let Some(word) = map.text("logicalType") else { return physical.map_or(LogicalType::String, guess) };
    match word.as_str() {
        "string" => LogicalType::String,
        "date" => LogicalType::Date,
        "timestamp" => LogicalType::Timestamp,
        "time" => LogicalType::Time,
        "number" => LogicalType::Number,
        "integer" => LogicalType::Integer,
        "boolean" => LogicalType::Boolean,
        "vector" => match dimensions {
            Some(dimensions) if dimensions > 0 => LogicalType::Vector(dimensions),
            _ => {
                let message = "a vector needs `logicalTypeOptions: {dimensions: N}`";
                map.sink().tell(codes::BAD_TYPE_OPTIONS, map.spot("logicalType"), message);
                LogicalType::Vector(0)
            }
        },
        "object" | "array" | "map" => {
            let message = format!("a column of type {word} is carried as JSON text");
            map.sink().tell(codes::OPAQUE_TYPE, map.spot("logicalType"), message);
            if word == "map" {
                map_types(map);
            }
            LogicalType::String
        }
        other => {
            map.bad_choice("logicalType", map.spot("logicalType"), other, LOGICAL);
            LogicalType::String
        }
    }
}

/// Nested properties are checked for their shape; their types are told of once, by the outermost column.
fn nested(map: &Map<'_>) {
    let quiet = Sink::new(map.sink().file());
    let mut inner: Vec<&Node> = map.list("properties").iter().collect();
    for property in &inner {
        let _ = column(property, &quiet);
    }
    inner.clear();
    if let Some(items) = map.opt("items") {
        let items = Map::new(items, &quiet);
        let _ = logical_type(&items, None);
    }
    for diagnostic in quiet.into_found() {
        if diagnostic.severity == Severity::Error {
            map.sink().push(diagnostic);
        }
    }
}

fn map_types(map: &Map<'_>) {
    let Some(types) = map.opt("map") else {
        map.sink().tell(codes::BAD_TYPE_OPTIONS, map.at, "a map needs `map: {key: ..., value: ...}`");
        return;
    };
    let types = Map::new(types, map.sink());
    let _ = types.req("key");
    let _ = types.req("value");
    types.finish();
}

/// The logical type of a physical one, for contracts that state only the latter.
fn guess(physical: &str) -> LogicalType {
    let word: String =
        physical.chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_lowercase();
    match word.as_str() {
        "int" | "integer" | "bigint" | "smallint" | "tinyint" | "long" => LogicalType::Integer,
        "float" | "double" | "real" | "decimal" | "numeric" | "number" => LogicalType::Number,
        "date" => LogicalType::Date,
        "timestamp" | "timestamptz" | "datetime" => LogicalType::Timestamp,
        "time" => LogicalType::Time,
        "bool" | "boolean" => LogicalType::Boolean,
        _ => LogicalType::String,
    }
}

fn classification(map: &Map<'_>, custom: &Custom<'_>) -> Option<Classification> {
    let tags = map.texts("tags");
    let is_pii = |text: &str| text.eq_ignore_ascii_case("pii") || text.to_lowercase().starts_with("pii.");
    let flagged = custom.text("pii").is_some_and(|(text, _)| text.eq_ignore_ascii_case("true"))
        || tags.iter().any(|(tag, _)| is_pii(tag));
    let stated = map.text("classification").map(|word| match word.to_lowercase().as_str() {
        "public" => Classification::Public,
        "internal" => Classification::Internal,
        "confidential" | "restricted" | "sensitive" => Classification::Confidential,
        word if is_pii(word) => Classification::Pii,
        _ => {
            let message = format!("classification `{word}` is not known; the column counts as confidential");
            map.sink().tell(codes::UNKNOWN_CLASSIFICATION, map.spot("classification"), message);
            Classification::Confidential
        }
    });
    if flagged { Some(Classification::Pii) } else { stated }
}

/// Values and pattern that the schema allows become quality rules of the column.
fn values_of(map: &Map<'_>, name: &str) -> Vec<QualityDraft> {
    let mut valid = Vec::new();
    if map.opt("enum").is_some() {
        let entries = map.list("enum");
        if entries.is_empty() {
            map.sink().tell(codes::BAD_ENUM, map.spot("enum"), "`enum` is empty");
        }
        for entry in entries {
            let entry = Map::new(entry, map.sink());
            entry.known(&[
                "id",
                "label",
                "description",
                "tags",
                "customProperties",
                "authoritativeDefinitions",
            ]);
            let Some(value) = entry.req_text("value") else { continue };
            if valid.contains(&value) {
                map.sink().tell(codes::BAD_ENUM, entry.spot("value"), format!("`{value}` is given twice"));
            }
            entry.finish();
            valid.push(value);
        }
    }
    let pattern = map.map("logicalTypeOptions").and_then(|options| options.text("pattern"));
    let mut rules = Vec::new();
    let mut add = |id: String, at: Spot, check: QualityCheck| {
        let threshold = Threshold { operator: "mustBe".to_owned(), operands: vec![0.0], percent: false };
        rules.push(QualityDraft {
            id: Some(id),
            quality: Quality {
                id: String::new(),
                column: Some(name.to_owned()),
                check,
                threshold,
                severity: QualitySeverity::Error,
                line: at.line,
            },
        });
    };
    if !valid.is_empty() {
        add(format!("enum_{name}"), map.spot("enum"), QualityCheck::InvalidValues { valid, pattern: None });
    }
    if pattern.is_some() {
        let check = QualityCheck::InvalidValues { valid: Vec::new(), pattern };
        add(format!("pattern_{name}"), map.spot("logicalTypeOptions"), check);
    }
    rules
}

fn synonyms(map: &Map<'_>) {
    for synonym in map.list("synonyms") {
        let synonym = Map::new(synonym, map.sink());
        let _ = synonym.req_text("synonym");
        synonym.known(&["id", "description", "locale", "source", "status", "customProperties"]);
        synonym.finish();
    }
}

#[derive(Clone, Copy)]
enum End {
    Object,
    Column,
}

fn relationships(map: &Map<'_>, end: End) {
    for relationship in map.list("relationships") {
        let inner = Map::new(relationship, map.sink());
        inner.known(&["id", "type", "customProperties"]);
        let (from, to) = (inner.opt("from"), inner.opt("to"));
        let fault = match end {
            End::Object if from.is_none() || to.is_none() => {
                Some("a relationship of an object needs `from` and `to`")
            }
            End::Column if from.is_some() => {
                Some("a relationship of a column starts there: `from` is not wanted")
            }
            End::Column if to.is_none() => Some("a relationship of a column needs `to`"),
            _ => None,
        };
        if let Some(fault) = fault {
            map.sink().tell(codes::BAD_RELATIONSHIP, relationship.at, fault);
        }
        inner.finish();
    }
}
