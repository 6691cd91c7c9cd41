//! What a gate's worker takes from itself before it reads the first rule.

use std::io;

#[cfg(target_os = "linux")]
use crate::confine::{bound, end_with_parent};

/// Bounds the memory of this process, lets it write no file, and ends it together with whoever began it.
///
/// Memory is that of data (`RLIMIT_DATA`): heap, stacks of threads and private mappings that can be written. Address space as a
/// whole would be the wrong thing to bound, for compiled policies reserve gigabytes of it that they never touch.
///
/// # Errors
/// When the system refuses. A worker that is not bounded must not begin.
#[cfg(target_os = "linux")]
pub fn confine(memory_bytes: u64) -> io::Result<()> {
    bound(libc::RLIMIT_DATA, memory_bytes)?;
    // An abort for want of memory leaves no core behind.
    bound(libc::RLIMIT_CORE, 0)?;
    bound(libc::RLIMIT_FSIZE, 0)?;
    // The end of the pipe says it too, but not to a rule that never looks up.
    end_with_parent()
}

/// Elsewhere no limit of the system holds for what rules take: whoever asks denies.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn confine(_: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
