//! Writes the generated data files of the example mesh.
//!
//! `cargo run --example generate_example_data -- mesh-repo-example`

use std::path::PathBuf;
use std::process::ExitCode;

#[path = "../src/demo/data.rs"]
#[allow(dead_code, unused_imports, reason = "live events and shifting are for the demo")]
mod data;

fn main() -> ExitCode {
    let Some(root) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: generate_example_data FOLDER");
        return ExitCode::from(2);
    };
    match data::write_example_data(&root) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write {}: {error}", root.display());
            ExitCode::from(4)
        }
    }
}
