//! `hydromesh command-worker`: the process that confines itself and begins a program of a repository. Nobody types it.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::tell;
use crate::child::cell::{self, NOT_BEGUN, Network, REFUSED};

/// Arguments of `command-worker`.
#[derive(Debug, Args)]
pub struct CommandWorkerArgs {
    /// The folder that it is confined to.
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
    /// How much memory each process may take.
    #[arg(long, value_name = "MIB")]
    memory_mib: u64,
    /// It keeps the network of the machine.
    #[arg(long)]
    network: bool,
    /// The program and its words.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs the verb: until the program has ended, and ends as it did.
pub fn run(args: &CommandWorkerArgs) -> u8 {
    begin(args).unwrap_or_else(|why| {
        tell(&format!("{REFUSED}{why}"));
        NOT_BEGUN
    })
}

fn begin(args: &CommandWorkerArgs) -> Result<u8, String> {
    let network = if args.network { Network::Machine } else { Network::None };
    cell::confine(&args.folder, args.memory_mib.saturating_mul(1 << 20), network)
        .map_err(|error| error.to_string())?;
    let (program, words) = args.command.split_first().ok_or("no program is named")?;
    let mut command = Command::new(program);
    command.args(words);
    // SAFETY: between fork and exec it calls the system once, and allocates nothing.
    #[expect(unsafe_code, reason = "only the program itself can say that it ends with this process")]
    unsafe {
        command.pre_exec(crate::confine::end_with_parent);
    }
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let status = child.wait().map_err(|error| error.to_string())?;
    // As a shell says that a signal ended it.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
