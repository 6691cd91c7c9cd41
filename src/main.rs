//! The binary: arguments in, exit code out.

use std::process::ExitCode;

/// Planning queries is many small allocations on many threads, and what a step has used goes back to the system soon after
/// (docs/decisions/0022-all-cores.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    hydromesh::cli::main()
}
