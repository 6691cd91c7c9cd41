//! The four roles of the one binary.

use std::collections::BTreeSet;

use hydromesh_core::plan::Work;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Watches the repository, decides, writes the ledger, sends mails. One at a time.
    Control,
    /// Computes batches, embeddings, models and drift.
    Work,
    /// Follows topics: archives and features.
    Stream,
    /// Serves the site, look-ups, search, metrics and the addresses for commands and webhooks.
    Serve,
}

impl Role {
    /// Returns the name by which the board and people know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Work => "work",
            Self::Stream => "stream",
            Self::Serve => "serve",
        }
    }

    /// Returns the role that performs a kind of work.
    #[must_use]
    pub fn of(work: &Work) -> Self {
        match work {
            Work::Follow => Self::Stream,
            Work::Partitions { .. }
            | Work::Whole
            | Work::Train
            | Work::Drift
            | Work::Embed
            | Work::Tend
            | Work::Keys => Self::Work,
        }
    }
}

/// The roles of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// Returns every role: what a process has unless it is told otherwise.
    #[must_use]
    pub fn all() -> Self {
        Self(BTreeSet::from([Role::Control, Role::Work, Role::Stream, Role::Serve]))
    }

    /// Returns whether a role is among them.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Returns those that perform steps.
    pub fn performing(&self) -> impl Iterator<Item = Role> {
        self.0.iter().copied().filter(|role| matches!(role, Role::Work | Role::Stream))
    }
}

impl FromIterator<Role> for Roles {
    /// Returns these roles; all of them for none.
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        let roles: BTreeSet<Role> = roles.into_iter().collect();
        if roles.is_empty() { Self::all() } else { Self(roles) }
    }
}

impl std::fmt::Display for Roles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|role| role.name()).collect();
        f.write_str(&names.join(", "))
    }
}
