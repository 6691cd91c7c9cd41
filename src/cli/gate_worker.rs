//! `hydromesh gate-worker`: the process in which policies are evaluated. Nobody types it.

use std::io::{stdin, stdout};

use clap::Args;

use super::{BUG, DONE, Failure, OUTSIDE};
use crate::policy::{confine, serve};

/// What a thread that evaluates rules may nest: as much as the threads had that did so before it had a process of its own.
const STACK_BYTES: usize = 8 << 20;

/// Arguments of `gate-worker`.
#[derive(Debug, Args)]
pub struct GateWorkerArgs {
    /// How much memory it may take.
    #[arg(long, value_name = "MIB")]
    memory_mib: u64,
}

/// Runs the verb: until nobody asks any more.
pub fn run(args: &GateWorkerArgs) -> Result<u8, Failure> {
    // Engines may panic, and are caught: nobody reads what they say, and a pipe that is full would stop them.
    std::panic::set_hook(Box::new(|_| {}));
    let outside = |error: std::io::Error| Failure::outside(&error);
    confine(args.memory_mib.saturating_mul(1 << 20)).map_err(outside)?;
    let work = std::thread::Builder::new()
        .name("gate worker".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(|| serve(stdin().lock(), stdout().lock()))
        .map_err(outside)?;
    match work.join() {
        Ok(Ok(())) => Ok(DONE),
        Ok(Err(error)) => {
            Err(Failure { code: OUTSIDE, message: format!("the worker of the gate ends: {error}") })
        }
        Err(_) => Err(Failure { code: BUG, message: "the worker of the gate failed".to_owned() }),
    }
}
