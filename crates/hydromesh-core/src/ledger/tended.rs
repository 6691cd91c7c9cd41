//! What maintenance has done, and what contracts do not keep any longer.

use std::sync::Arc;

use super::{Fact, LedgerState};
use crate::ids::PortId;
use crate::plan::Work;

/// From where a port keeps its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The first partition that is kept.
    pub from: String,
    /// Since when.
    pub at_ms: i64,
}

/// What was done to a table, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookedAfter {
    /// When.
    pub at_ms: i64,
    /// Files that no version had, removed.
    pub files: u64,
    /// Small files that were put together: how many there were, and how many there are.
    pub together: Option<(u64, u64)>,
    /// Versions that cannot be read any longer.
    pub expired: u64,
}

impl LookedAfter {
    /// Returns what a fact says that was done to which port.
    #[must_use]
    pub fn of(at_ms: i64, fact: &Fact) -> Option<(&PortId, Self)> {
        let Fact::Tended { port, files, together, expired, .. } = fact else { return None };
        Some((port, Self { at_ms, files: *files, together: *together, expired: *expired }))
    }

    /// Says what was done, for people.
    #[must_use]
    pub fn spoken(&self) -> String {
        let count = |count: u64, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        let mut done = Vec::new();
        if let Some((before, after)) = self.together {
            done.push(format!("put {} together into {after}", count(before, "file")));
        }
        if self.expired > 0 {
            done.push(format!("let go of {}", count(self.expired, "version")));
        }
        if self.files > 0 {
            done.push(format!("removed {}", count(self.files, "unused file")));
        }
        if done.is_empty() { "nothing to do".to_owned() } else { done.join(", ") }
    }
}

impl LedgerState {
    /// Returns the first partition that a port keeps, if its contract gave some up.
    #[must_use]
    pub fn kept_from(&self, port: &PortId) -> Option<&str> {
        // Values of a list have no age by which they would be given up, whatever the port was cut by before.
        self.kept.get(port).filter(|_| self.values_of(port).is_none()).map(|kept| kept.from.as_str())
    }

    /// Returns when a port last gave partitions up.
    #[must_use]
    pub fn expired_at(&self, port: &PortId) -> Option<i64> {
        self.kept.get(port).map(|kept| kept.at_ms)
    }

    /// Takes in that partitions are not kept any longer, whatever the table still shows.
    pub(super) fn expire(&mut self, at_ms: i64, port: &PortId, before: &str) {
        self.kept.insert(port.clone(), Kept { from: before.to_owned(), at_ms });
        if let Some(state) = self.ports.get_mut(port)
            && state.partitions.first_key_value().is_some_and(|(key, _)| key.as_str() < before)
        {
            let state = Arc::make_mut(state);
            state.partitions = state.partitions.split_off(before);
        }
        if let Some(altered) = self.altered.get_mut(port) {
            altered.retain(|key, _| key.as_str() >= before);
            if altered.is_empty() {
                self.altered.remove(port);
            }
        }
        self.measured.retain(|(of, key), _| of != port || key.as_str() >= before);
    }

    /// Returns since when steps under way have been reading: what was published then stays readable. What follows a topic reads
    /// tables only at its beginning, and what looks after one only its newest version.
    #[must_use]
    pub fn read_since_ms(&self) -> Option<i64> {
        let reads = |run: &String| {
            self.running.get(run).is_some_and(|step| !matches!(step.work, Work::Follow | Work::Tend))
        };
        self.begun.iter().filter(|(run, _)| reads(run)).map(|(_, begun)| begun.at_ms).min()
    }

    /// Takes in that a table was looked after; readers are given the version that lacks what is not kept, or has its rows in fewer
    /// files. Neither brings new rows.
    pub(super) fn tended(&mut self, at_ms: i64, fact: &Fact, version: Option<i64>) {
        let Some((port, done)) = LookedAfter::of(at_ms, fact) else { return };
        self.looked_after.insert(port.clone(), done);
        if let (Some(version), Some(state)) = (version, self.ports.get_mut(port)) {
            let state = Arc::make_mut(state);
            state.version = state.version.max(version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_as_people_would() {
        let nothing = LookedAfter { at_ms: 0, files: 0, together: None, expired: 0 };
        assert_eq!(nothing.spoken(), "nothing to do");
        let all = LookedAfter { files: 1, together: Some((9, 1)), expired: 12, ..nothing };
        assert_eq!(all.spoken(), "put 9 files together into 1, let go of 12 versions, removed 1 unused file");
    }
}
