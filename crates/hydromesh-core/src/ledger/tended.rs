//! What maintenance has done, and what contracts do not keep any longer.

use std::sync::Arc;

use super::LedgerState;
use crate::ids::PortId;

/// From where a port keeps its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The first partition that is kept.
    pub from: String,
    /// Since when.
    pub at_ms: i64,
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

    /// Takes in that a table was looked after; readers are given the version that lacks what is not kept.
    pub(super) fn tended(&mut self, port: &PortId, version: Option<i64>) {
        if let (Some(version), Some(state)) = (version, self.ports.get_mut(port)) {
            let state = Arc::make_mut(state);
            state.version = state.version.max(version);
        }
    }
}
