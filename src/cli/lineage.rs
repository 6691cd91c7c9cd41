//! `hydromesh lineage [PRODUCT | PORT | COLUMN]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use hydromesh_core::diag::did_you_mean;
use hydromesh_core::ids::{ColumnId, ProductId};
use hydromesh_core::lineage::{ColumnEdge, Edges, column_edges, edges, labels};
use hydromesh_core::model::{Classification, Influence, Mesh};
use serde_json::{Value, json};

use super::book::{Book, BookArgs, find_product};
use super::check::read_path;
use super::health::kinds;
use super::output::{Paint, Tone};
use super::{DONE, Failure, Format, print, print_json};
use crate::control::shapes;

/// Arguments of `lineage`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    hydromesh lineage                                    every product with what it reads\n  \
    hydromesh lineage commerce/daily-revenue             what it reads, and who reads it\n  \
    hydromesh lineage commerce/orders.orders#amount      where a column comes from, and where it goes\n  \
    hydromesh lineage --path . --format json             of the files here instead of what is deployed")]
pub struct LineageArgs {
    /// A product `domain/product`, or a column `domain/product.port#column`.
    of: Option<String>,
    /// Read a mesh from this folder instead of what is deployed.
    #[arg(long, value_name = "FOLDER")]
    path: Option<PathBuf>,
    /// With --path: this commit or branch of the repository there.
    #[arg(long, requires = "path")]
    rev: Option<String>,
    #[command(flatten)]
    book: BookArgs,
}

/// Runs the verb.
pub fn run(args: &LineageArgs) -> Result<u8, Failure> {
    let mesh = match &args.path {
        Some(path) => read_path(path, args.rev.as_deref(), &BTreeMap::new())?.desired.mesh,
        None => {
            let book = Book::open(&args.book)?;
            let deployed = book.ledger.deployed.iter();
            let products = deployed.map(|(id, deployed)| (id.clone(), deployed.product.clone())).collect();
            Mesh { products, ..Mesh::default() }
        }
    };
    match args.of.as_deref() {
        Some(text) if text.contains('#') => column(args, &mesh, text),
        Some(text) => {
            let known: Vec<ProductId> = mesh.products.keys().cloned().collect();
            // A port's lineage is its product's; its columns are asked for one by one.
            let product = text.split_once('.').map_or(text, |(product, _)| product);
            let id = find_product(&known, product)?;
            Ok(products(args, &mesh, Some(&id)))
        }
        None => Ok(products(args, &mesh, None)),
    }
}

fn turned(edges: &Edges) -> Edges {
    let mut turned = Edges::new();
    for (id, upstream) in edges {
        turned.entry(id.clone()).or_default();
        for other in upstream {
            turned.entry(other.clone()).or_default().insert(id.clone());
        }
    }
    turned
}

fn products(args: &LineageArgs, mesh: &Mesh, of: Option<&ProductId>) -> u8 {
    let up = edges(mesh);
    let down = turned(&up);
    if args.book.format == Format::Json {
        let wanted = |id: &ProductId| match of {
            None => true,
            Some(of) => id == of || reach(&up, of).contains(id) || reach(&down, of).contains(id),
        };
        let nodes: Vec<Value> = mesh
            .products
            .values()
            .filter(|it| wanted(&it.id))
            .map(|it| json!({"product": it.id, "kind": kinds(it)}))
            .collect();
        let arrows: Vec<Value> = up
            .iter()
            .flat_map(|(to, from)| from.iter().map(move |from| (from, to)))
            .filter(|(from, to)| wanted(from) && wanted(to))
            .map(|(from, to)| json!({"from": from, "to": to}))
            .collect();
        print_json(&json!({"products": nodes, "edges": arrows}));
        return DONE;
    }
    let paint = Paint::stdout();
    let name = |id: &ProductId| id.to_string();
    let mut lines = Vec::new();
    match of {
        Some(id) => {
            lines.push(paint.text(Tone::Strong, &name(id)));
            for (title, ways) in [("reads", &up), ("is read by", &down)] {
                lines.push(paint.text(Tone::Faint, title));
                let before = lines.len();
                tree(ways, id, "", &mut vec![id.clone()], &mut lines, &name);
                if lines.len() == before {
                    lines.push("  nothing in this mesh".to_owned());
                }
            }
        }
        None => {
            // Who reads nothing of the mesh is a source; below each, all that rests on it.
            for source in up.iter().filter(|(_, from)| from.is_empty()).map(|(id, _)| id) {
                lines.push(paint.text(Tone::Strong, &name(source)));
                tree(&down, source, "", &mut vec![source.clone()], &mut lines, &name);
            }
        }
    }
    print(&lines.join("\n"));
    DONE
}

fn reach<T: Ord + Clone>(ways: &BTreeMap<T, BTreeSet<T>>, from: &T) -> BTreeSet<T> {
    let mut reached = BTreeSet::new();
    let mut front = vec![from.clone()];
    while let Some(at) = front.pop() {
        for next in ways.get(&at).into_iter().flatten() {
            if reached.insert(next.clone()) {
                front.push(next.clone());
            }
        }
    }
    reached
}

/// Draws everything that can be reached, each way once; a circle is cut where it closes.
fn tree<T: Ord + Clone>(
    ways: &BTreeMap<T, BTreeSet<T>>,
    at: &T,
    indent: &str,
    path: &mut Vec<T>,
    lines: &mut Vec<String>,
    name: &impl Fn(&T) -> String,
) {
    let next: Vec<&T> = ways.get(at).into_iter().flatten().collect();
    for (index, one) in next.iter().enumerate() {
        let (branch, rest) = if index + 1 == next.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines.push(format!("  {indent}{branch}{}", name(one)));
        if !path.contains(one) {
            path.push((*one).clone());
            tree(ways, one, &format!("{indent}{rest}"), path, lines, name);
            path.pop();
        }
    }
}

fn column(args: &LineageArgs, mesh: &Mesh, text: &str) -> Result<u8, Failure> {
    let wanted: ColumnId = text.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let known = columns(mesh);
    if !known.contains(&wanted) {
        let names: Vec<String> = known.iter().map(ToString::to_string).collect();
        let hint = match did_you_mean(text, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`hydromesh show PRODUCT` names the columns".to_owned(),
        };
        return Err(Failure::usage(format!("there is no column `{text}`; {hint}")));
    }
    let shapes = shapes(mesh).into_iter().filter_map(|(key, shape)| Some((key, shape.ok()?))).collect();
    let all = column_edges(mesh, &shapes);
    let labels = labels(mesh, &all);
    let (mut up, mut down): (BTreeMap<ColumnId, BTreeSet<ColumnId>>, BTreeMap<ColumnId, BTreeSet<ColumnId>>) =
        (BTreeMap::new(), BTreeMap::new());
    // Values flow along direct edges; what merely filters would draw the whole mesh.
    for edge in all.iter().filter(|edge| edge.influence == Influence::Direct) {
        up.entry(edge.to.clone()).or_default().insert(edge.from.clone());
        down.entry(edge.from.clone()).or_default().insert(edge.to.clone());
    }
    let decides: Vec<&ColumnEdge> =
        all.iter().filter(|edge| edge.influence == Influence::Indirect && edge.to == wanted).collect();
    if args.book.format == Format::Json {
        let mut reached = reach(&up, &wanted);
        reached.extend(reach(&down, &wanted));
        reached.insert(wanted.clone());
        let arrows: Vec<Value> = all
            .iter()
            .filter(|edge| {
                edge.influence == Influence::Direct && reached.contains(&edge.from) && reached.contains(&edge.to)
                    || edge.to == wanted
            })
            .map(|edge| json!({"from": edge.from, "to": edge.to, "influence": edge.influence, "masking": edge.masking}))
            .collect();
        print_json(&json!({"column": wanted, "label": labels.get(&wanted), "edges": arrows}));
        return Ok(DONE);
    }
    let paint = Paint::stdout();
    let name = |id: &ColumnId| match labels.get(id) {
        Some(Classification::Pii) => format!("{id} {}", paint.text(Tone::Odd, "pii")),
        Some(Classification::Confidential) => format!("{id} {}", paint.text(Tone::Odd, "confidential")),
        _ => id.to_string(),
    };
    let mut lines = vec![paint.text(Tone::Strong, &name(&wanted))];
    for (title, ways) in [("comes from", &up), ("goes into", &down)] {
        lines.push(paint.text(Tone::Faint, title));
        let before = lines.len();
        tree(ways, &wanted, "", &mut vec![wanted.clone()], &mut lines, &name);
        if lines.len() == before {
            lines.push("  nothing in this mesh".to_owned());
        }
    }
    if !decides.is_empty() {
        lines.push(paint.text(Tone::Faint, "which rows it has is decided by"));
        lines.extend(decides.iter().map(|edge| format!("  {}", name(&edge.from))));
    }
    print(&lines.join("\n"));
    Ok(DONE)
}

fn columns(mesh: &Mesh) -> BTreeSet<ColumnId> {
    let mut columns = BTreeSet::new();
    for product in mesh.products.values() {
        let outputs = product.outputs.iter().map(|(name, output)| (name, Some(&output.contract)));
        let inputs = product.inputs.iter().map(|(name, input)| (name, mesh.input_contract(input)));
        for (name, contract) in outputs.chain(inputs) {
            let port = product.port(name);
            columns.extend(
                contract
                    .into_iter()
                    .flat_map(|it| &it.columns)
                    .map(|column| ColumnId { port: port.clone(), column: column.name.clone() }),
            );
        }
    }
    columns
}
