//! What a process takes from itself.

use std::io;

/// Bounds what this process may have of something, for ever.
///
/// # Errors
/// When the system refuses.
#[cfg(target_os = "linux")]
pub fn bound(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the pointer is to a whole `rlimit` that lives until the call returns.
    #[expect(unsafe_code, reason = "no crate of the set has a safe setrlimit")]
    let failed = unsafe { libc::setrlimit(resource, &raw const limit) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the system end this process together with the thread that began it.
///
/// # Errors
/// When the system refuses.
#[cfg(target_os = "linux")]
pub fn end_with_parent() -> io::Result<()> {
    // SAFETY: takes plain numbers and touches no memory of ours.
    #[expect(unsafe_code, reason = "no crate of the set has a safe prctl")]
    let failed = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
