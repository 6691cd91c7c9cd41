//! `hydromesh backup FOLDER`: a copy of a state folder, also while a controller works on it.

use std::path::{Path, PathBuf};

use clap::Args;
use hydromesh_core::lineage::{Edges, order, upstream_of};
use hydromesh_core::model::Product;
use serde_json::json;

use super::book::Book;
use super::cost::size;
use super::output::counted;
use super::{DONE, Failure, Format, print, print_json, runtime, say};
use crate::backup::{BackupError, Manifest, Source, take};
use crate::lake::Amount;
use crate::store::Place;

/// How often everything is copied anew because the mesh itself changed meanwhile.
const ATTEMPTS: usize = 3;

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// An empty folder for it, or one that is not there yet.
    folder: PathBuf,
    /// The state folder of a controller (`hydromesh up --state`).
    #[arg(long, env = "HYDROMESH_STATE", default_value = ".hydromesh", value_name = "FOLDER")]
    state: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the verb.
pub fn run(args: &BackupArgs) -> Result<u8, Failure> {
    let mut attempt = 1;
    let manifest = loop {
        let source = source(&args.state)?;
        match runtime()?.block_on(take(&source, &args.folder, say)) {
            Err(BackupError::Stirred) if attempt < ATTEMPTS => {
                say("products were deployed meanwhile, or a controller started; begins again");
            }
            taken => break taken.map_err(failure)?,
        }
        attempt += 1;
    };
    if args.format == Format::Json {
        print_json(&json!({"folder": args.folder, "backup": manifest}));
    } else {
        let next = format!("put it back with `hydromesh restore {} --state FOLDER`", args.folder.display());
        print(&format!("{}\n{next}", said(&manifest)));
    }
    Ok(DONE)
}

fn source(state: &Path) -> Result<Source, Failure> {
    let book = Book::read(state)?;
    let place = Place::found(state).map_err(|error| Failure::outside(&error))?;
    let place = place.unwrap_or_else(|| Place::in_folder(state));
    let deployed = book.ledger.deployed.iter();
    let edges: Edges = deployed.map(|(id, it)| (id.clone(), upstream_of(&it.product))).collect();
    let mut readers_first = order(&edges);
    readers_first.reverse();
    let can_run = |it: &Product| it.pipelines.values().any(|pipeline| !pipeline.follows());
    let deployed = book.ledger.deployed.iter();
    let computed = deployed.filter(|(_, it)| can_run(&it.product)).map(|(id, _)| id.clone()).collect();
    let lake = book.lake()?;
    Ok(Source {
        environment: book.environment.clone(),
        state: state.to_path_buf(),
        place,
        lake_path: lake.strip_prefix(state).map_or(lake.clone(), Path::to_path_buf),
        seq: book.ledger.seq,
        readers_first,
        computed,
        published: !book.ledger.ports.is_empty(),
    })
}

/// Returns what a backup holds, in words.
pub fn said(manifest: &Manifest) -> String {
    let one = |it: Amount| {
        format!("{}, {}", counted(usize::try_from(it.files).unwrap_or(usize::MAX), "file"), size(it.bytes))
    };
    let Manifest { ledger, lake, .. } = manifest;
    let lines = [
        format!("backup of {}, {}", manifest.environment, manifest.began),
        format!("  ledger  {} facts, {}", ledger.facts, size(ledger.bytes)),
        format!("  tables  {}: {}", lake.tables.len(), one(lake.amount())),
        format!("  models  and what else lies in the lake: {}", one(lake.other)),
        format!("  topics  {}", one(manifest.topics)),
        format!("  mirror  {}", one(manifest.repo)),
    ];
    lines.join("\n")
}

/// Returns how a verb ends that was refused, or could not go on.
pub fn failure(error: BackupError) -> Failure {
    match error {
        BackupError::Refused(why) => Failure::usage(why),
        error => Failure::outside(&error),
    }
}
