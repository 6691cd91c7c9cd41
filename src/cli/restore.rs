//! `hydromesh restore FOLDER --state S`: puts a backup back into an empty state folder.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::backup::{failure, said};
use super::{DONE, Failure, Format, print, print_json};
use crate::backup::{Backup, Elsewhere};

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup.
    folder: PathBuf,
    /// The state folder that it is put back into: empty, or not there yet.
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
    /// Leave out tables that can only lie where they were (Iceberg); they are computed again.
    #[arg(long)]
    recompute: bool,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the verb.
pub fn run(args: &RestoreArgs) -> Result<u8, Failure> {
    let backup = Backup::open(&args.folder).map_err(failure)?;
    let target = backup.target(&args.state).map_err(failure)?;
    let elsewhere = backup.elsewhere(&target);
    if !elsewhere.is_empty() && !args.recompute {
        return Err(refused(&backup, &elsewhere));
    }
    backup.restore(&target, &elsewhere).map_err(failure)?;
    let products = backup.to_compute(&elsewhere);
    if args.format == Format::Json {
        let left_out: Vec<&str> = elsewhere.iter().map(|it| it.address.as_str()).collect();
        print_json(&json!({
            "state": args.state, "backup": backup.manifest, "left_out": left_out, "to_run": products,
        }));
        return Ok(DONE);
    }
    let mut lines = vec![said(&backup.manifest)];
    lines.push(format!("is in {}; start a controller on it with `hydromesh up`", args.state.display()));
    if backup.manifest.ledger.from_server {
        lines.push(
            "its ledger comes from a server: that one must be empty (drop the schema of this environment), and the first start brings \
             the facts along"
                .to_owned(),
        );
    }
    if !elsewhere.is_empty() {
        lines.push("left out, to be computed again:".to_owned());
        lines.extend(elsewhere.iter().map(|it| format!("  {}", it.address)));
        let state = args.state.display();
        lines.push("what follows a topic begins by itself; with the others, in this order:".to_owned());
        lines.extend(products.iter().map(|it| {
            format!("  hydromesh run {it} --state {state} --reason \"restored without its table\"")
        }));
    }
    print(&lines.join("\n"));
    Ok(DONE)
}

fn refused(backup: &Backup, elsewhere: &[Elsewhere]) -> Failure {
    let mut lines = vec!["nothing was restored: Iceberg tables hold their own absolute path".to_owned()];
    for it in elsewhere {
        lines.push(format!("  {} can only be restored at {}", it.address, it.location.display()));
    }
    lines.push(format!(
        "restore with `--state {}`, or with `--recompute`, which leaves these tables out so that they are computed again",
        backup.manifest.state.display()
    ));
    Failure::usage(lines.join("\n"))
}
