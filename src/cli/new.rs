//! `hydromesh new domain NAME` and `hydromesh new product DOMAIN/NAME`: files that pass `check`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hydromesh_core::diag::{Diagnostic, Severity, did_you_mean};
use hydromesh_core::ids::{DomainName, PortId, PortName, ProductId};
use hydromesh_core::model::{Classification, LogicalType, Mesh, QueryShape};
use hydromesh_core::time::{Grain, Partition, Span};
use serde_json::json;

use super::check::read_path;
use super::show::type_name;
use super::{DONE, FINDINGS, Failure, Format, OUTSIDE, print, print_json, say};
use crate::engine::{SqlProblemKind, arrow_schema, describe};

/// Verbs of `new`.
#[derive(Debug, Subcommand)]
pub enum NewVerb {
    /// Begin a domain: its folder with `domain.yaml`.
    Domain(DomainArgs),
    /// Begin a batch product from a query: product, contract and pipeline are written for you.
    Product(ProductArgs),
}

/// Arguments of `new domain`.
#[derive(Debug, Args)]
pub struct DomainArgs {
    /// Its name: lower-case letters, digits, `-` and `_`.
    name: String,
    /// Mail address of an owner; repeat for several.
    #[arg(long, required = true, value_name = "MAIL")]
    owner: Vec<String>,
    /// Its title for people; the name without.
    #[arg(long)]
    title: Option<String>,
    /// Mail address of whoever is on call.
    #[arg(long, value_name = "MAIL")]
    oncall: Option<String>,
    /// How much its products matter: 1 wakes people, 3 is best effort.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    tier: u8,
    /// The mesh's folder.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    path: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Arguments of `new product`.
#[derive(Debug, Args)]
#[command(after_help = "Example: a query over one port, computed day by day\n  \
    hydromesh new product commerce/returns --sql returns.sql --input commerce/orders.orders \\\n    \
    --partition-by order_date --start 2026-08-01 --promise-age 2d")]
pub struct ProductArgs {
    /// The product: `domain/product`. The domain must exist.
    product: String,
    /// A file with one SELECT or WITH. Its tables are the input ports, by port name.
    #[arg(long, value_name = "FILE")]
    sql: PathBuf,
    /// A port that the query reads: `domain/product.port`, or `table=domain/product.port` for another table name.
    #[arg(long = "input", required = true, value_name = "[TABLE=]PORT")]
    inputs: Vec<String>,
    /// The name of the output port; the product's name without.
    #[arg(long)]
    port: Option<String>,
    /// What the product is for, in a sentence.
    #[arg(long, default_value = "")]
    purpose: String,
    /// A column of the output that identifies a row; repeat for several. Rows are audited for nulls and duplicates.
    #[arg(long, value_name = "COLUMN")]
    key: Vec<String>,
    /// Cut the output by this column of the query.
    #[arg(long, value_name = "COLUMN", requires = "start")]
    partition_by: Option<String>,
    /// Size of a partition: hour, day, week or month.
    #[arg(long, default_value = "day", value_name = "GRAIN")]
    every: String,
    /// The first partition, such as 2026-08-01.
    #[arg(long, value_name = "PARTITION", requires = "partition_by")]
    start: Option<String>,
    /// Where whoever is woken reads what to do: an https address.
    #[arg(long, value_name = "URL")]
    runbook: Option<String>,
    /// Promise readers that the newest data is at most this old, such as `2d`; nothing is promised without.
    #[arg(long, value_name = "DURATION")]
    promise_age: Option<String>,
    /// The mesh's folder.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    path: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the verb.
pub fn run(verb: &NewVerb) -> Result<u8, Failure> {
    match verb {
        NewVerb::Domain(args) => domain(args),
        NewVerb::Product(args) => product(args),
    }
}

fn domain(args: &DomainArgs) -> Result<u8, Failure> {
    let name = DomainName::new(&args.name).map_err(|error| Failure::usage(error.to_string()))?;
    mesh_at(&args.path)?;
    if let Some(bad) = args.owner.iter().chain(&args.oncall).find(|mail| !mail.contains('@')) {
        return Err(Failure::usage(format!("{bad} is not a mail address")));
    }
    let folder = format!("domains/{name}");
    let owners: Vec<String> = args.owner.iter().map(|owner| quoted(owner)).collect();
    let mut text = format!(
        "apiVersion: hydromesh/v1\nkind: Domain\nname: {name}\ntitle: {}\nowners: [{}]\n",
        quoted(args.title.as_deref().unwrap_or(name.as_str())),
        owners.join(", ")
    );
    if let Some(oncall) = &args.oncall {
        let _ = writeln!(text, "oncall: {}", quoted(oncall));
    }
    let _ = writeln!(text, "tier: {}", args.tier);
    let files = BTreeMap::from([(format!("{folder}/domain.yaml"), text)]);
    write(&args.path, &folder, &files)?;
    let wrong = findings(&args.path, &folder)?;
    Ok(told(
        args.format,
        &files,
        &wrong,
        &format!("next: hydromesh new product {name}/NAME --sql FILE --input PORT"),
    ))
}

fn product(args: &ProductArgs) -> Result<u8, Failure> {
    let id: ProductId = args.product.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let mesh = mesh_at(&args.path)?;
    if !mesh.domains.contains_key(&id.domain) {
        let known = mesh.domains.keys().map(DomainName::as_str);
        let hint = did_you_mean(id.domain.as_str(), known).map_or_else(
            || format!("begin it with `hydromesh new domain {} --owner MAIL`", id.domain),
            |near| format!("did you mean `{near}`?"),
        );
        return Err(Failure::usage(format!("there is no domain `{}`; {hint}", id.domain)));
    }
    let sql = std::fs::read_to_string(&args.sql)
        .map_err(|error| Failure { code: OUTSIDE, message: format!("{}: {error}", args.sql.display()) })?;
    let inputs = inputs(&mesh, &args.inputs)?;
    let output = match &args.port {
        Some(port) => PortName::new(port),
        None => PortName::new(id.name.as_str().replace('-', "_")),
    };
    let output = output.map_err(|error| Failure::usage(error.to_string()))?;
    let schemas = inputs
        .iter()
        .filter_map(|(table, port)| {
            let columns = &mesh.output(port)?.contract.columns;
            Some((table.as_str().to_owned(), arrow_schema(columns)))
        })
        .collect();
    let shape = describe(&sql, &schemas).map_err(|problem| {
        let place = problem.line.map_or_else(String::new, |line| format!(":{line}"));
        let hint = match &problem.kind {
            SqlProblemKind::MissingTable { .. } => {
                let tables: Vec<&str> = inputs.keys().map(PortName::as_str).collect();
                format!("; the inputs are {}", tables.join(", "))
            }
            _ => String::new(),
        };
        Failure {
            code: FINDINGS,
            message: format!("{}{place}: {}{hint}", args.sql.display(), problem.message),
        }
    })?;
    let partition = partition(args, &shape)?;
    args.key.iter().try_for_each(|key| yields(&shape, "--key", key))?;
    let folder = format!("domains/{}/{}", id.domain, id.name);
    let file = |name: &str| format!("{folder}/{name}");
    let files = BTreeMap::from([
        (file("product.odps.yaml"), product_text(&id, args, &inputs, &output)),
        (file(&format!("{output}.odcs.yaml")), contract_text(&id, &output, &mesh, &inputs, &shape, args)?),
        (file("pipeline.yaml"), pipeline_text(&id, &output, partition.as_ref())),
        (file(&format!("{output}.sql")), sql),
    ]);
    write(&args.path, &folder, &files)?;
    let wrong = findings(&args.path, &folder)?;
    Ok(told(
        args.format,
        &files,
        &wrong,
        "next: say what each column means in the contract, then `hydromesh plan --gate`",
    ))
}

/// Reads the mesh that something is added to.
fn mesh_at(path: &Path) -> Result<Mesh, Failure> {
    let reading = read_path(path, None, &BTreeMap::new())?;
    if !reading.readable {
        let message =
            format!("{}: there is no mesh.yaml; name the mesh's folder with --path", path.display());
        return Err(Failure::usage(message));
    }
    Ok(reading.desired.mesh)
}

fn inputs(mesh: &Mesh, given: &[String]) -> Result<BTreeMap<PortName, PortId>, Failure> {
    let mut inputs = BTreeMap::new();
    for text in given {
        let (table, address) = match text.split_once('=') {
            Some((table, address)) => (Some(table), address),
            None => (None, text.as_str()),
        };
        let port: PortId = address.parse().map_err(|error| Failure::usage(format!("--input: {error}")))?;
        if mesh.output(&port).is_none() {
            let known: Vec<String> = mesh
                .products
                .values()
                .flat_map(|product| product.outputs.keys().map(|name| product.port(name).to_string()))
                .collect();
            let hint = match did_you_mean(address, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`hydromesh lineage --path .` names the products".to_owned(),
            };
            return Err(Failure::usage(format!("there is no port `{address}`; {hint}")));
        }
        let table = match table {
            Some(table) => {
                PortName::new(table).map_err(|error| Failure::usage(format!("--input: {error}")))?
            }
            None => port.port.clone(),
        };
        if inputs.insert(table.clone(), port).is_some() {
            let message =
                format!("two inputs are called {table}; give one another name: --input NAME={address}");
            return Err(Failure::usage(message));
        }
    }
    Ok(inputs)
}

fn yields(shape: &QueryShape, option: &str, name: &str) -> Result<(), Failure> {
    let mut names = shape.columns.iter().map(|column| column.name.as_str());
    if names.clone().any(|column| column == name) {
        return Ok(());
    }
    let near = did_you_mean(name, &mut names);
    let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    Err(Failure::usage(format!("{option} {name}: the query yields no such column{hint}")))
}

/// How the output is cut: column, grain and first partition.
fn partition(args: &ProductArgs, shape: &QueryShape) -> Result<Option<(String, Grain, String)>, Failure> {
    let (Some(by), Some(start)) = (&args.partition_by, &args.start) else { return Ok(None) };
    let names = shape.columns.iter().map(|column| column.name.as_str());
    if !names.clone().any(|name| name == by) {
        let hint =
            did_you_mean(by, names).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return Err(Failure::usage(format!("--partition-by {by}: the query has no such column{hint}")));
    }
    let grain: Grain = args.every.parse().map_err(|error| Failure::usage(format!("--every: {error}")))?;
    let start =
        Partition::parse(grain, start).map_err(|error| Failure::usage(format!("--start: {error}")))?;
    Ok(Some((by.clone(), grain, start.to_string())))
}

/// A YAML scalar that is read back as this text, whatever it holds: JSON strings are YAML.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}

fn product_text(
    id: &ProductId,
    args: &ProductArgs,
    inputs: &BTreeMap<PortName, PortId>,
    output: &PortName,
) -> String {
    let mut text = format!(
        "apiVersion: v1.1.0\nkind: DataProduct\nid: {id}\nname: {}\nversion: 1.0.0\nstatus: active\ndomain: {}\n",
        id.name, id.domain
    );
    if !args.purpose.is_empty() {
        let _ = writeln!(text, "description:\n  purpose: {}", quoted(&args.purpose));
    }
    text.push_str("inputPorts:\n");
    for (table, port) in inputs {
        let _ = writeln!(text, "  - {{name: {table}, version: 1.0.0, contractId: {port}}}");
    }
    let _ = write!(
        text,
        "outputPorts:\n  - name: {output}\n    version: 1.0.0\n    contractId: {id}.{output}\n    customProperties:\n      \
         - {{property: hydromesh.access, value: {{table: true}}}}\n"
    );
    if let Some(runbook) = &args.runbook {
        let property = format!("{{property: hydromesh.runbook, value: {}}}", quoted(runbook));
        let _ = writeln!(text, "customProperties:\n  - {property}");
    }
    text
}

fn contract_text(
    id: &ProductId,
    output: &PortName,
    mesh: &Mesh,
    inputs: &BTreeMap<PortName, PortId>,
    shape: &QueryShape,
    args: &ProductArgs,
) -> Result<String, Failure> {
    let mut text = format!(
        "apiVersion: v3.2.0\nkind: DataContract\nid: {id}.{output}\nversion: 1.0.0\nstatus: active\ndomain: {}\n\
         dataProduct: {}\n",
        id.domain, id.name
    );
    if !args.purpose.is_empty() {
        let _ = writeln!(text, "description:\n  purpose: {}", quoted(&args.purpose));
    }
    let _ = write!(
        text,
        "schema:\n  - name: {output}\n    logicalType: object\n    physicalType: table\n    properties:\n"
    );
    for column in &shape.columns {
        let logical = match &column.logical {
            Some(LogicalType::Vector(_) | LogicalType::Binary) | None => {
                let hint = match column.logical {
                    Some(LogicalType::Binary) => "such as text: encode(..., 'hex')",
                    _ => "to one that it can",
                };
                let message = format!(
                    "{}: column {} is a {}, which a contract cannot describe; turn it into another type {hint}",
                    args.sql.display(),
                    column.name,
                    column.physical
                );
                return Err(Failure { code: FINDINGS, message });
            }
            Some(logical) => logical,
        };
        let mut parts =
            vec![format!("name: {}", quoted(&column.name)), format!("logicalType: {}", type_name(logical))];
        // `Decimal128(10, 2)` is what the engine calls what contracts call DECIMAL(10,2).
        if let Some((_, digits)) =
            column.physical.split_once('(').filter(|_| column.physical.starts_with("Decimal"))
        {
            parts.push(format!("physicalType: {}", quoted(&format!("DECIMAL({}", digits.replace(' ', "")))));
        }
        let key = args.key.contains(&column.name);
        // A row without a partition belongs to none and is never published.
        if !column.nullable || key || args.partition_by.as_ref() == Some(&column.name) {
            parts.push("required: true".to_owned());
        }
        if key {
            parts.push("primaryKey: true".to_owned());
        }
        if let Some(label) = label(mesh, inputs, column) {
            parts.push(format!("classification: {label}"));
        }
        let _ = writeln!(text, "      - {{{}}}", parts.join(", "));
    }
    if let Some(age) = &args.promise_age {
        let age: Span = age.parse().map_err(|error| Failure::usage(format!("--promise-age: {error}")))?;
        // The standard counts in units; minutes are fine enough for a promise.
        let (value, unit) = match age.millis() / 60_000 {
            minutes if minutes % 1_440 == 0 => (minutes / 1_440, "d"),
            minutes if minutes % 60 == 0 => (minutes / 60, "h"),
            minutes => (minutes, "m"),
        };
        if value == 0 {
            return Err(Failure::usage("--promise-age must be at least a minute"));
        }
        let _ = writeln!(text, "slaProperties:\n  - {{property: latency, value: {value}, unit: {unit}}}");
    }
    Ok(text)
}

/// Returns the highest classification among the columns whose values reach this one; a masked value carries none.
fn label(
    mesh: &Mesh,
    inputs: &BTreeMap<PortName, PortId>,
    column: &hydromesh_core::model::ColumnShape,
) -> Option<&'static str> {
    if column.masked {
        return Some("internal");
    }
    let of = |source: &hydromesh_core::model::SourceColumn| {
        let port = inputs.iter().find(|(table, _)| table.as_str() == source.table).map(|(_, port)| port)?;
        let columns = &mesh.output(port)?.contract.columns;
        columns.iter().find(|column| column.name == source.column)?.classification
    };
    column.direct.iter().filter_map(of).max().map(|label| match label {
        Classification::Public => "public",
        Classification::Internal => "internal",
        Classification::Confidential => "confidential",
        Classification::Pii => "pii",
    })
}

fn pipeline_text(id: &ProductId, output: &PortName, partition: Option<&(String, Grain, String)>) -> String {
    let mut text = format!(
        "apiVersion: hydromesh/v1\nkind: BatchPipeline\nname: {}\noutput: {output}\nsql: {output}.sql\n",
        id.name
    );
    if let Some((by, every, start)) = partition {
        let _ = writeln!(
            text,
            "partition: {{by: {}, every: {every}, start: {start}, timezone: UTC}}",
            quoted(by)
        );
    }
    text
}

/// Writes files into a folder that does not exist yet: nothing of anyone's is ever overwritten.
fn write(root: &Path, folder: &str, files: &BTreeMap<String, String>) -> Result<(), Failure> {
    let at = root.join(folder);
    if at.exists() {
        return Err(Failure::usage(format!("{} exists already; nothing was written", at.display())));
    }
    let failed = |path: &Path, error: std::io::Error| Failure {
        code: OUTSIDE,
        message: format!("could not write {}: {error}", path.display()),
    };
    std::fs::create_dir_all(&at).map_err(|error| failed(&at, error))?;
    for (name, text) in files {
        let path = root.join(name);
        std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

/// Returns what `check` says about a folder, notes left out.
fn findings(root: &Path, folder: &str) -> Result<Vec<Diagnostic>, Failure> {
    let mut found = read_path(root, None, &BTreeMap::new())?.findings;
    found.retain(|finding| {
        finding.severity != Severity::Note && finding.file.starts_with(&format!("{folder}/"))
    });
    Ok(found)
}

fn told(format: Format, files: &BTreeMap<String, String>, wrong: &[Diagnostic], next: &str) -> u8 {
    match format {
        Format::Json => {
            let written: Vec<_> = files
                .iter()
                .map(|(name, text)| json!({"file": name, "lines": text.lines().count()}))
                .collect();
            print_json(&json!({"written": written, "findings": wrong}));
        }
        Format::Human => {
            let names: Vec<&str> = files.keys().map(String::as_str).collect();
            print(&names.join("\n"));
            for finding in wrong {
                say(&finding.to_string());
            }
            say(next);
        }
    }
    let errors = wrong.iter().any(|finding| finding.severity == Severity::Error);
    if errors { FINDINGS } else { DONE }
}
