//! Named points at which a process can be told to die, as abruptly as by `kill -9`: `HYDROMESH_CRASH_AT=lake.before-commit:3` ends it
//! when it comes to that point for the third time. Builds for users, without debug assertions, have none of it.
//!
//! `make crash` kills a controller at every one of them and compares what it leaves with an undisturbed run.

/// Every point of a controller, in the order of the flow.
pub const POINTS: [&str; 14] = [
    "repo.after-fetch",
    "lease.after-take",
    "ledger.before-append",
    "ledger.after-append",
    "control.before-effect",
    "control.after-effect",
    "lake.after-ensure",
    "lake.after-stage",
    "lake.before-commit",
    "lake.after-commit",
    "apply.before-report",
    "site.before-switch",
    "copy.before-commit",
    "copy.after-commit",
];

/// Points of verbs that are no controller.
pub const VERB_POINTS: [&str; 3] = ["backup.after-ledger", "backup.before-manifest", "restore.after-lake"];

/// The variable that names a point and how often it is passed.
pub const VARIABLE: &str = "HYDROMESH_CRASH_AT";

/// Passes a point.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn point(_: &str) {}

/// Passes a point, or dies there.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static CHOSEN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    debug_assert!(
        POINTS.contains(&name) || VERB_POINTS.contains(&name),
        "{name} is not in the list of points"
    );
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, times) = text.split_once(':')?;
        Some((name.to_owned(), times.parse().ok()?))
    });
    if let Some((_, times)) = chosen.as_ref().filter(|(chosen, _)| chosen == name)
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *times
    {
        // No destructor runs and nothing is flushed.
        std::process::abort();
    }
}
