//! Fingerprints: a product's identity is what it depends on, not the commit that carries it.
//!
//! Each output column has a hash of its expression and of the hashes of the source columns it reads; each port has a
//! hash of what decides its rows. A reader depends on the columns it reads and on the rows, so that an added column
//! changes nothing for those who do not read it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{PipelineName, PortId, PortName, ProductId};
use crate::model::{
    InputSource, Mesh, Partitioning, Parts, Pipeline, Product, QueryShape, SourceColumn, Trainer,
};
use crate::spread::Spread;

/// Version of everything hashed here. Hashes of different versions are never compared: both sides are derived anew.
const PRINT_VERSION: &str = "1";

/// A product's fingerprints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    /// Everything that a deploy covers: contracts, pipelines, ports, files.
    pub all: String,
    /// Per output port.
    pub ports: BTreeMap<PortName, PortPrint>,
    /// Columns of other products' ports that it reads: they must stay while this is deployed.
    #[serde(default)]
    pub reads: BTreeMap<PortId, BTreeSet<String>>,
    /// Pairs of an own output port and an input port that are cut alike: a partition of one rests on that partition of
    /// the other alone.
    #[serde(default)]
    pub aligned: BTreeSet<(PortName, PortId)>,
}

/// A port's fingerprints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPrint {
    /// Rows and all columns: data made with another one is stale.
    pub data: String,
    /// What decides the rows.
    pub rows: String,
    /// Each column's expression with its sources.
    pub columns: BTreeMap<String, String>,
    /// The column that it is cut by, if it is: it decides the rows of those who pick partitions of it. None in facts of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
}

fn hash(parts: &[&str]) -> String {
    finished(hashing(parts))
}

/// Returns a hash that more parts may follow.
fn hashing(parts: &[&str]) -> Sha256 {
    let mut hasher = Sha256::new();
    hasher.update(PRINT_VERSION);
    for part in parts {
        add(&mut hasher, part);
    }
    hasher
}

fn add(hasher: &mut Sha256, part: &str) {
    // The length keeps ("ab", "c") and ("a", "bc") apart.
    hasher.update((part.len() as u64).to_le_bytes());
    hasher.update(part);
}

fn finished(hasher: Sha256) -> String {
    hasher.finalize().iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("model types serialise: string keys, no failing impl")
}

/// The fingerprints of the tables that a query may read, by table name.
type Inputs<'a> = BTreeMap<&'a str, &'a PortPrint>;

fn source(inputs: &Inputs<'_>, column: &SourceColumn) -> String {
    let known = inputs.get(column.table.as_str()).and_then(|port| port.columns.get(&column.column));
    format!("{}.{}={}", column.table, column.column, known.map_or("?", String::as_str))
}

fn query_print(shape: &QueryShape, inputs: &Inputs<'_>, extra: &str) -> PortPrint {
    let mut rows = vec![shape.rows.clone(), extra.to_owned()];
    rows.extend(shape.indirect.iter().map(|column| source(inputs, column)));
    rows.extend(
        shape
            .tables
            .keys()
            .map(|table| inputs.get(table.as_str()).map_or("?", |it| it.rows.as_str()).to_owned()),
    );
    let rows = hash(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    let columns: BTreeMap<String, String> = shape
        .columns
        .iter()
        .map(|column| {
            let mut parts = vec![column.expression.clone()];
            parts.extend(column.direct.iter().map(|direct| source(inputs, direct)));
            (column.name.clone(), hash(&parts.iter().map(String::as_str).collect::<Vec<_>>()))
        })
        .collect();
    finish(rows, columns)
}

fn finish(rows: String, columns: BTreeMap<String, String>) -> PortPrint {
    let data = hash(&[&rows, &json(&columns)]);
    PortPrint { data, rows, columns, cut: None }
}

/// Returns the fingerprint of an external input: its raw shape, and the contents of its files.
fn external(product: &Product, input: &InputSource) -> Option<PortPrint> {
    let (contract, identity) = match input {
        InputSource::Port { .. } => return None,
        InputSource::Files { glob, contract } => {
            let files: Vec<(&str, &str)> = product.files_matching(glob).collect();
            (contract, json(&(glob, files)))
        }
        InputSource::Topic { topic, contract } => (contract, topic.clone()),
    };
    let columns = contract
        .columns
        .iter()
        .map(|column| {
            (column.name.clone(), hash(&[&column.name, &json(&column.logical), &json(&column.physical)]))
        })
        .collect();
    Some(finish(hash(&[&identity]), columns))
}

/// Returns whether a path, relative to the product's folder, matches a glob with `*` (within a folder) and `**`.
#[must_use]
pub fn glob_matches(glob: &str, path: &str) -> bool {
    enum Part {
        /// Any number of characters of one folder.
        Star,
        /// Any number of characters.
        Stars,
        One,
        Byte(u8),
    }
    let mut parts = Vec::new();
    let mut rest = glob.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let part;
        (part, rest) = match (first, after.split_first()) {
            (b'*', Some((b'*', after))) => (Part::Stars, after.strip_prefix(b"/").unwrap_or(after)),
            (b'*', _) => (Part::Star, after),
            (b'?', _) => (Part::One, after),
            (byte, _) => (Part::Byte(*byte), after),
        };
        parts.push(part);
    }
    // Every place of the glob that what was read so far may have led to, all at once: trying one way after the other takes
    // as many tries as there are ways to share a text among the stars.
    let mut places = vec![false; parts.len() + 1];
    places[0] = true;
    let skip_stars = |places: &mut [bool]| {
        for (at, part) in parts.iter().enumerate() {
            places[at + 1] |= places[at] && matches!(part, Part::Star | Part::Stars);
        }
    };
    skip_stars(&mut places);
    for byte in path.bytes() {
        let mut next = vec![false; parts.len() + 1];
        for (at, part) in parts.iter().enumerate().filter(|(at, _)| places[*at]) {
            match part {
                Part::Stars => next[at] = true,
                Part::Star => next[at] |= byte != b'/',
                Part::One => next[at + 1] |= byte != b'/',
                Part::Byte(wanted) => next[at + 1] |= *wanted == byte,
            }
        }
        skip_stars(&mut next);
        places = next;
        if !places.contains(&true) {
            return false;
        }
    }
    places[parts.len()]
}

/// Returns the fingerprints of every product of a mesh, in dependency order of `order`.
///
/// `deployed` stands in for ports whose product is not in `order`: one that does not check stays as it is deployed, and
/// its readers must not look changed for that.
/// `shapes` holds the described query of each batch, stream, feature (its select) and training (its spine) pipeline.
#[must_use]
pub fn print_mesh(
    mesh: &Mesh,
    order: &[ProductId],
    shapes: &BTreeMap<(ProductId, PipelineName), QueryShape>,
    deployed: &BTreeMap<PortId, PortPrint>,
    spread: &impl Spread,
) -> BTreeMap<ProductId, Print> {
    let mut ports = deployed.clone();
    let mut prints = BTreeMap::new();
    let products: Vec<&Product> = order.iter().filter_map(|id| mesh.products.get(id)).collect();
    let definitions = spread.map(&products, |product| definition(product));
    for (product, definition) in products.into_iter().zip(definitions) {
        let id = &product.id;
        let own: BTreeMap<&str, PortPrint> = product
            .inputs
            .values()
            .filter_map(|input| {
                let print = match &input.source {
                    InputSource::Port { port } => ports.get(port).cloned(),
                    other => external(product, other),
                };
                Some((input.name.as_str(), print?))
            })
            .collect();
        let inputs: Inputs<'_> = own.iter().map(|(name, print)| (*name, print)).collect();
        let mut outputs = BTreeMap::new();
        let mut reads: BTreeMap<PortId, BTreeSet<String>> = BTreeMap::new();
        let mut aligned = BTreeSet::new();
        for (name, pipeline) in &product.pipelines {
            let shape = shapes.get(&(id.clone(), name.clone()));
            note_reads(product, pipeline, shape, mesh, &mut reads);
            aligned.extend(alignments(product, pipeline, shape, mesh));
            note_windows(product, pipeline, mesh, &mut reads);
            let print = pipeline_print(product, pipeline, shape, &inputs, &ports);
            outputs.insert(pipeline.output().clone(), print);
        }
        let mut all = definition;
        // What they are cut by is in their definition.
        let known = outputs.iter().map(|(name, print)| (name, PortPrint { cut: None, ..print.clone() }));
        add(&mut all, &json(&known.collect::<BTreeMap<_, _>>()));
        let all = finished(all);
        for (name, print) in &outputs {
            ports.insert(product.port(name), print.clone());
        }
        prints.insert(id.clone(), Print { all, ports: outputs, reads, aligned });
    }
    prints
}

/// Begins the hash of a product with what it says of itself, whatever it reads.
fn definition(product: &Product) -> Sha256 {
    let ports = product.outputs.values().map(|port| (&port.name, &port.contract, port.format, &port.access));
    let mut hasher = hashing(&[
        &json(&ports.collect::<Vec<_>>()),
        &json(&(&product.version, &product.status, product.tier, &product.owners, &product.runbook)),
        &json(&product.pipelines.values().map(settings).collect::<Vec<_>>()),
    ]);
    // A program is whatever its files are.
    if product.has_programs() {
        add(&mut hasher, &json(&product.files));
    }
    // Whoever says nothing of it has the hash of before.
    if !product.retire.is_default() {
        add(&mut hasher, &json(&product.retire));
    }
    hasher
}

fn note_reads(
    product: &Product,
    pipeline: &Pipeline,
    shape: Option<&QueryShape>,
    mesh: &Mesh,
    reads: &mut BTreeMap<PortId, BTreeSet<String>>,
) {
    let upstream = |table: &str| {
        product.inputs.values().find(|input| input.name.as_str() == table).and_then(|input| {
            match &input.source {
                InputSource::Port { port } => Some(port.clone()),
                InputSource::Files { .. } | InputSource::Topic { .. } => None,
            }
        })
    };
    if let Some(shape) = shape {
        for column in shape.columns.iter().flat_map(|column| &column.direct).chain(&shape.indirect) {
            if let Some(port) = upstream(&column.table) {
                reads.entry(port).or_default().insert(column.column.clone());
            }
        }
    }
    match pipeline {
        Pipeline::Embedding(embedding) => {
            if let Some(port) = upstream(embedding.port.as_str()) {
                reads.entry(port).or_default().extend([embedding.id.clone(), embedding.text.clone()]);
            }
        }
        Pipeline::Training(training) => {
            for port in &training.features {
                let columns = mesh.output(port).into_iter().flat_map(|output| &output.contract.columns);
                reads.entry(port.clone()).or_default().extend(columns.map(|column| column.name.clone()));
            }
        }
        Pipeline::Batch(_) | Pipeline::Stream(_) | Pipeline::Feature(_) => {}
    }
}

/// Notes the partition columns of inputs of which a pipeline picks partitions.
fn note_windows(
    product: &Product,
    pipeline: &Pipeline,
    mesh: &Mesh,
    reads: &mut BTreeMap<PortId, BTreeSet<String>>,
) {
    let Pipeline::Batch(batch) = pipeline else { return };
    for input in product.inputs.values().filter(|input| batch.inputs.contains_key(&input.name)) {
        let InputSource::Port { port } = &input.source else { continue };
        let upstream = mesh.products.get(&port.product);
        if let Some(cut) = upstream.and_then(|upstream| upstream.cut_of(&port.port)) {
            reads.entry(port.clone()).or_default().insert(cut.by.clone());
        }
    }
}

/// Returns the input ports of which a partition of the output reads the same partition and nothing else: the output's
/// partition column is the input's, the input is scanned once, and nothing looks across rows of other partitions.
fn alignments(
    product: &Product,
    pipeline: &Pipeline,
    shape: Option<&QueryShape>,
    mesh: &Mesh,
) -> Vec<(PortName, PortId)> {
    let (Pipeline::Batch(batch), Some(shape)) = (pipeline, shape) else { return Vec::new() };
    let Some(partition) = &batch.partition else { return Vec::new() };
    let looks_across = ["Window", "Limit"].iter().any(|node| shape.rows.contains(node))
        || shape.columns.iter().any(|column| column.expression.contains("Window"));
    let Some(by) = shape.columns.iter().find(|column| column.name == partition.by) else { return Vec::new() };
    let (Some(source), 1) = (by.direct.first(), by.direct.len()) else { return Vec::new() };
    let bare = by.expression == format!("{}.{}", source.table, source.column);
    if looks_across || !bare || shape.tables.get(&source.table) != Some(&1) {
        return Vec::new();
    }
    let input = product.inputs.values().find(|input| input.name.as_str() == source.table);
    let Some(InputSource::Port { port }) = input.map(|input| &input.source) else { return Vec::new() };
    // What the pipeline says that it reads goes before what it seems to need.
    if product.windows_of(batch, port).iter().any(|window| !window.is_same()) {
        return Vec::new();
    }
    let upstream = mesh.products.get(&port.product).and_then(|it| it.cut_of(&port.port));
    let cut_alike = upstream.is_some_and(|cut| {
        cut.by == source.column
            && match (&cut.into, &partition.into) {
                (Parts::Calendar(theirs), Parts::Calendar(own)) => {
                    theirs.every == own.every && theirs.timezone == own.timezone
                }
                // Which values there are is found by each for itself, and at another time.
                (Parts::Keys { .. }, _) | (_, Parts::Keys { .. }) => false,
                (theirs, own) => theirs == own,
            }
    });
    if cut_alike { vec![(batch.output.clone(), port.clone())] } else { Vec::new() }
}

/// Returns what matters of a pipeline besides its query text: the text is in the port's print in canonical form.
fn settings(pipeline: &Pipeline) -> String {
    let mut value = serde_json::to_value(pipeline).expect("pipelines serialise");
    if let Some(object) = value.as_object_mut() {
        for text in ["sql", "select", "spine"] {
            object.remove(text);
        }
        // What is deployed may be planned again: what was found since is no part of its definition.
        if let Some(cut) = object.get_mut("partition").and_then(serde_json::Value::as_object_mut) {
            cut.remove("found");
        }
    }
    value.to_string()
}

/// Returns what decides the rows of a partition of the way in which an output is cut.
///
/// Neither the first partition of a calendar nor the values, listed or found: what a day or a value shows does not hang on the others.
fn cut_text(cut: Option<&Partitioning>) -> String {
    match cut.map(|cut| (&cut.by, &cut.into)) {
        None => "null".to_owned(),
        Some((by, Parts::Calendar(calendar))) => json(&(by, calendar.every, &calendar.timezone)),
        Some((by, Parts::Values { .. } | Parts::Keys { .. })) => json(&(by, "values")),
    }
}

fn pipeline_print(
    product: &Product,
    pipeline: &Pipeline,
    shape: Option<&QueryShape>,
    inputs: &Inputs<'_>,
    ports: &BTreeMap<PortId, PortPrint>,
) -> PortPrint {
    let contract = product.outputs.get(pipeline.output()).map(|port| &port.contract);
    let types = contract.map(|contract| {
        let types = contract.columns.iter().map(|column| (&column.name, &column.logical, &column.physical));
        json(&types.collect::<Vec<_>>())
    });
    let types = types.unwrap_or_default();
    match (pipeline, shape) {
        (Pipeline::Batch(batch), Some(shape)) => {
            let mut extra = cut_text(batch.partition.as_ref());
            if !batch.inputs.is_empty() {
                // How many of them are enough decides when, and not what.
                let windows = batch.inputs.iter().map(|(input, it)| {
                    let port = inputs.get(input.as_str());
                    let column = port.and_then(|port| port.columns.get(port.cut.as_ref()?));
                    (input, it.from, it.to, column)
                });
                extra.push_str(&json(&windows.collect::<Vec<_>>()));
            }
            let mut print = query_print(shape, inputs, &extra);
            // A column's declared type is part of its bytes.
            for (name, column) in &mut print.columns {
                let declared = contract.and_then(|it| it.columns.iter().find(|column| column.name == *name));
                *column = hash(&[column, &json(&declared.map(|it| (&it.logical, &it.physical)))]);
            }
            let cut = batch.partition.as_ref().map(|cut| cut.by.clone());
            PortPrint { cut, ..finish(print.rows, print.columns) }
        }
        (Pipeline::Stream(stream), Some(shape)) => query_print(shape, inputs, &json(&stream.source)),
        (Pipeline::Feature(feature), Some(shape)) => {
            let select = query_print(shape, inputs, &json(&(&feature.source, &feature.entity)));
            let columns = contract
                .into_iter()
                .flat_map(|contract| &contract.columns)
                .map(|column| {
                    (column.name.clone(), hash(&[&column.name, &json(&feature.view), &select.data]))
                })
                .collect();
            finish(select.data.clone(), columns)
        }
        (Pipeline::Embedding(embedding), _) => {
            let upstream = inputs.get(embedding.port.as_str());
            let text =
                |column: &str| upstream.and_then(|it| it.columns.get(column)).cloned().unwrap_or_default();
            let rows =
                hash(&[&settings(&pipeline.unbounded()), &text(&embedding.id), &text(&embedding.text)]);
            finish(rows, BTreeMap::from([("vector".to_owned(), types)]))
        }
        (Pipeline::Training(training), Some(shape)) => {
            let spine = query_print(shape, inputs, &settings(&pipeline.unbounded()));
            let features: Vec<_> =
                training.features.iter().map(|port| ports.get(port).map(|it| &it.data)).collect();
            let features = json(&features);
            let rows = match &training.train {
                Trainer::Builtin(_) => hash(&[&spine.data, &features]),
                // A model is whatever the program made of it, which is whatever it is shown.
                Trainer::Command(_) => hash(&[&spine.data, &features, &json(&product.trainer_files())]),
            };
            finish(rows, BTreeMap::from([("model".to_owned(), types)]))
        }
        // A query that could not be described has its findings; hash its text so that a change still shows.
        (other, None) => finish(hash(&[&json(other)]), BTreeMap::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_stay_within_a_folder_unless_doubled() {
        assert!(glob_matches("data/orders-*.csv", "data/orders-2026.csv"));
        assert!(!glob_matches("data/*.csv", "data/old/orders.csv"));
        assert!(glob_matches("data/**/*.csv", "data/old/orders.csv"));
        assert!(glob_matches("data/**/*.csv", "data/orders.csv"));
        assert!(!glob_matches("data/?.csv", "data/ab.csv"));
        assert!(glob_matches("**", "a/b") && glob_matches("", "") && !glob_matches("", "a"));
        assert!(glob_matches("*é?*", "aé.b") && !glob_matches("*", "a/b") && !glob_matches("a?", "a/"));
    }

    #[test]
    fn a_glob_of_many_stars_takes_no_longer_than_its_length() {
        // Tried one way after the other, each of these takes longer than anybody lives.
        let path = "a".repeat(200);
        assert!(!glob_matches(&("*a".repeat(60) + "b"), &path));
        assert!(!glob_matches(&("**a".repeat(60) + "b"), &path));
        assert!(!glob_matches(&("**/".repeat(60) + "b"), &"a/".repeat(100)));
        assert!(glob_matches(&"*a".repeat(60), &path));
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }
}
