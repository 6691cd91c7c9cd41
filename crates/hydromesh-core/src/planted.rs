//! Bugs to be found: each switches off one line that a promise rests on.
//!
//! The simulation of the control plane has to find every one of them (`control/tests/hunt.rs`). Only tests can plant a
//! bug; anywhere else [`is`] is `false` at compile time.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Effects are performed before the facts that they follow from are durable.
    EffectBeforeFact,
    /// A denied product is deployed.
    DeniedIsAllowed,
    /// A product advances although a deployed reader would break.
    NobodyIsHeld,
    /// Commits that were passed over get no outcome.
    CommitForgotten,
    /// Control's time follows a clock that is set back.
    TimeRunsBack,
    /// A new writer leaves the runs of the last one open.
    OrphansStay,
    /// What an interrupted run may have published is trusted.
    NoDoubt,
    /// Work that a publication makes due is not derived anew.
    DueForgotten,
    /// A partition begins before what it rests on is published.
    BlockedBegins,
    /// Newer rows of an input touch the partition of the same position, and not all that read it.
    WindowForgotten,
    /// Positions of a list of values are kept beyond the deploy of another list.
    ListOutlived,
    /// The values of a column are looked for once and never again.
    LookedOnce,
    /// Steps of a paused product begin.
    PauseIgnored,
    /// Steps go on that a new rule stops.
    DenialIgnored,
    /// Steps may take as long as they like.
    TimeoutIgnored,
    /// As many steps of a pool begin as there is room for.
    PoolIgnored,
    /// The last message of an episode is sent first.
    ResolvedFirst,
    /// A message that was refused is never tried again.
    RefusedIsLost,
    /// A command that was answered is obeyed again.
    CommandTwice,
    /// What somebody else did to a table is not mended.
    AlterationIgnored,
    /// Tables of a product that left end at once, whatever it said.
    EndedTooEarly,
    /// A product that comes back does not keep its tables.
    ReturnIgnored,
    /// The store takes appends of a writer that another has taken over from.
    #[cfg(test)]
    StaleWriter,
    /// Tables take commits of a writer that another has taken over from.
    #[cfg(test)]
    StaleCommit,
}

/// Returns whether a bug is planted.
#[cfg(not(test))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub(crate) use tests::{is, plant};

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Returns whether a bug is planted in this thread.
    pub(crate) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants a bug in this thread, or none.
    pub(crate) fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}
