//! How threads that compute give way to those that somebody waits for.

/// Steps of nice(2): a third of the share of a thread that did not step back.
const STEPS: libc::c_int = 5;

/// Lowers the priority of the calling thread, where the system counts priority per thread, as Linux does.
///
/// Done at the start of every work thread: a look-up, a lease and a mail take microseconds of a core and must not queue
/// behind a scan that takes all of them.
#[cfg(target_os = "linux")]
pub(super) fn give_way() {
    // SAFETY: takes plain numbers and touches no memory of ours; 0 is the calling thread.
    #[expect(unsafe_code, reason = "no crate of the set has a safe setpriority for a thread")]
    let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, STEPS) } != 0;
    if failed {
        tracing::debug!(error = %std::io::Error::last_os_error(), "a work thread keeps its priority");
    }
}

/// Elsewhere the priority is the process's, and lowering it would slow down everything.
#[cfg(not(target_os = "linux"))]
pub(super) fn give_way() {}
