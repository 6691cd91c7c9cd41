//! `hydromesh query SQL`: reads published ports, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use clap::{Args, ValueEnum};
use datafusion::catalog::TableProvider;
use futures::TryStreamExt as _;
use hydromesh_core::diag::did_you_mean;
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::ErrorKind;
use hydromesh_core::model::TableFormat as PortFormat;

use super::book::Book;
use super::output::counted;
use super::{BUG, DONE, Failure, OUTSIDE, USAGE, print, runtime, say, state_of};
use crate::engine::{Engine, EngineConfig, EngineError};
use crate::lake::{TableFormat, Version};

/// Memory that one query may hold: 256 MiB; beyond it, it spills to the temporary folder.
const MEMORY_BYTES: usize = 256 << 20;

/// Arguments of `query`.
#[derive(Debug, Args)]
#[command(after_help = "Published ports are tables, named by their address in double quotes:\n  \
    hydromesh query 'SELECT count(*) FROM \"commerce/orders.orders\"'\n\
    An earlier state of a port is read with --as-of:\n  \
    hydromesh query 'SELECT * FROM \"commerce/orders.orders\"' --as-of commerce/orders.orders=3")]
pub struct QueryArgs {
    /// One SELECT or WITH.
    sql: String,
    /// Read a port at an earlier table version: `VERSION` when the query reads one port, else `PORT=VERSION`.
    #[arg(long, value_name = "[PORT=]VERSION")]
    as_of: Vec<String>,
    /// At most so many rows; 0 for all.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    limit: usize,
    /// The state folder of a controller (`hydromesh up --state`).
    #[arg(long, env = "HYDROMESH_STATE", default_value = ".hydromesh", value_name = "FOLDER")]
    state: std::path::PathBuf,
    /// A preview of the state folder's environment instead: preview/NAME.
    #[arg(long, value_name = "preview/NAME")]
    env: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: RowFormat,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RowFormat {
    /// A table for people.
    Human,
    /// An array of objects.
    Json,
    /// Comma-separated, with a header.
    Csv,
}

/// Runs the verb.
pub fn run(args: &QueryArgs) -> Result<u8, Failure> {
    let book = Book::read(&state_of(&args.state, args.env.as_deref())?)?;
    // Tables that the query cannot mean are not opened: a mesh may have thousands.
    let ports: Vec<PortId> = book
        .ledger
        .ports
        .keys()
        .filter(|port| args.sql.contains(&port.to_string()) && format_of(&book, port).is_some())
        .cloned()
        .collect();
    let versions = versions(&book, &ports, &args.as_of)?;
    let (batches, cut) = runtime()?.block_on(async {
        let lake = book.open_lake().await?;
        let mut tables: BTreeMap<String, Arc<dyn TableProvider>> = BTreeMap::new();
        for port in &ports {
            let Some(format) = format_of(&book, port) else { continue };
            let version = versions.get(port).copied();
            let table = lake.table(&port.to_string(), format).map_err(|error| Failure::outside(&error))?;
            let provider =
                table.provider(version.map(Version)).await.map_err(|error| Failure::outside(&error))?;
            tables.insert(port.to_string(), provider);
        }
        let spill = tempfile::tempdir().map_err(|error| Failure::outside(&error))?;
        let config = EngineConfig { memory_bytes: MEMORY_BYTES, spill: spill.path().to_owned() };
        let engine = Engine::new(&config).map_err(|error| failure(&error, &args.sql, &book))?;
        let mut rows =
            engine.select(&args.sql, tables).await.map_err(|error| failure(&error, &args.sql, &book))?;
        let mut left = if args.limit == 0 { usize::MAX } else { args.limit };
        let mut batches: Vec<RecordBatch> = vec![RecordBatch::new_empty(rows.schema())];
        let mut cut = false;
        while let Some(batch) =
            rows.try_next().await.map_err(|error| failure(&error.into(), &args.sql, &book))?
        {
            cut |= batch.num_rows() > left;
            let batch = batch.slice(0, batch.num_rows().min(left));
            left -= batch.num_rows();
            batches.push(batch);
            if cut {
                break;
            }
        }
        Ok::<_, Failure>((batches, cut))
    })?;
    print(render(&batches, args.format)?.trim_end());
    if cut {
        say(&format!("cut after {}; --limit 0 prints all", counted(args.limit, "row")));
    }
    Ok(DONE)
}

/// Returns the format of a port's table, if a deployed product has it.
pub fn format_of(book: &Book, port: &PortId) -> Option<TableFormat> {
    let output = book.ledger.deployed.get(&port.product)?.product.outputs.get(&port.port)?;
    Some(match output.format {
        PortFormat::Delta => TableFormat::Delta,
        PortFormat::Iceberg => TableFormat::Iceberg,
    })
}

/// Returns the version to read of each port: that asked for, else the one last published.
fn versions(book: &Book, ports: &[PortId], asked: &[String]) -> Result<BTreeMap<PortId, i64>, Failure> {
    let mut versions: BTreeMap<PortId, i64> =
        ports.iter().filter_map(|port| Some((port.clone(), book.ledger.ports.get(port)?.version))).collect();
    for text in asked {
        let (port, version) = match (text.split_once('='), ports) {
            (Some((port, version)), _) => {
                let port: PortId =
                    port.parse().map_err(|error| Failure::usage(format!("--as-of {text}: {error}")))?;
                (port, version)
            }
            (None, [only]) => (only.clone(), text.as_str()),
            (None, _) => {
                let message =
                    format!("--as-of {text}: the query reads {} ports; write PORT=VERSION", ports.len());
                return Err(Failure::usage(message));
            }
        };
        let version: i64 = version
            .parse()
            .map_err(|_| Failure::usage(format!("--as-of {text}: a version is a whole number")))?;
        if !versions.contains_key(&port) {
            return Err(Failure::usage(format!("--as-of {text}: the query does not read {port}")));
        }
        versions.insert(port, version);
    }
    Ok(versions)
}

fn failure(error: &EngineError, sql: &str, book: &Book) -> Failure {
    let code = match error.kind {
        ErrorKind::User => USAGE,
        ErrorKind::External => OUTSIDE,
        ErrorKind::Internal => BUG,
    };
    Failure { code, message: explain(&error.message, sql, book) }
}

/// Returns the engine's message; where a table is missing, with what to write instead.
fn explain(message: &str, sql: &str, book: &Book) -> String {
    let Some(missing) = message.strip_prefix("table ").and_then(|rest| rest.split_once(" is no input port"))
    else {
        return message.to_owned();
    };
    let missing = missing.0.trim_matches('"');
    let offered: Vec<PortId> = book
        .ledger
        .deployed
        .values()
        .flat_map(|it| it.product.outputs.keys().map(|name| it.product.port(name)))
        .collect();
    let empty = |port: &&PortId| !book.ledger.ports.contains_key(port) && sql.contains(&port.to_string());
    if let Some(port) = offered.iter().find(empty) {
        return format!("{port} has published nothing yet; see `hydromesh why-not {}`", port.product);
    }
    let known: Vec<String> =
        offered.iter().filter(|port| book.ledger.ports.contains_key(port)).map(ToString::to_string).collect();
    // The engine names the last part alone where it took dots for a schema's.
    let last = |port: &str| port.rsplit_once('.').map(|(_, name)| name.to_owned()).unwrap_or_default();
    let near = did_you_mean(missing, known.iter().map(String::as_str))
        .map(str::to_owned)
        .or_else(|| known.iter().find(|port| last(port) == last(missing) || last(port) == missing).cloned());
    match near {
        Some(near) => format!("there is no table {missing}; did you mean \"{near}\", in double quotes?"),
        None if known.is_empty() => format!("there is no table {missing}: nothing is published yet"),
        None => {
            format!("there is no table {missing}; published ports, in double quotes: {}", known.join(", "))
        }
    }
}

fn render(batches: &[RecordBatch], format: RowFormat) -> Result<String, Failure> {
    let failed =
        |error: arrow::error::ArrowError| Failure { code: BUG, message: format!("could not print: {error}") };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match format {
        RowFormat::Human => {
            let table = arrow::util::pretty::pretty_format_batches(batches).map_err(failed)?;
            Ok(table.to_string())
        }
        RowFormat::Json => {
            // Every key in every row: a missing key would look like another shape.
            let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
            let mut writer = builder.build::<_, arrow::json::writer::JsonArray>(Vec::new());
            writer.write_batches(&batches.iter().collect::<Vec<_>>()).map_err(failed)?;
            writer.finish().map_err(failed)?;
            let bytes = writer.into_inner();
            Ok(if bytes.is_empty() { "[]".to_owned() } else { text(bytes) })
        }
        RowFormat::Csv => {
            let mut bytes = Vec::new();
            let mut writer = arrow::csv::Writer::new(&mut bytes);
            for batch in batches {
                writer.write(batch).map_err(failed)?;
            }
            drop(writer);
            Ok(text(bytes))
        }
    }
}
