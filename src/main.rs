//! The binary: arguments in, exit code out.

use std::process::ExitCode;

/// Reading a mesh and planning its queries are many small allocations on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hydromesh::cli::main()
}
