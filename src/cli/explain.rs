//! `hydromesh explain CODE`.

use clap::Args;
use hydromesh_core::diag::{all_codes, did_you_mean, explain};

use super::{DONE, Failure, print};

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The code; every code without.
    code: Option<String>,
}

/// Runs the verb.
pub fn run(args: &ExplainArgs) -> Result<u8, Failure> {
    let Some(code) = &args.code else {
        for code in all_codes() {
            print(&format!("{}  {}", code.id(), code.title()));
        }
        return Ok(DONE);
    };
    let wanted = code.to_ascii_uppercase();
    if let Some(text) = explain(&wanted) {
        print(text.trim_end());
        return Ok(DONE);
    }
    let near = did_you_mean(&wanted, all_codes().iter().map(|code| code.id()));
    let hint = near.map_or_else(
        || "`hydromesh explain` lists them all".to_owned(),
        |near| format!("did you mean {near}?"),
    );
    Err(Failure::usage(format!("{code} is not a code; {hint}")))
}
