//! Which partitions of an input a partition of the output reads.

use serde::{Deserialize, Serialize};

use crate::time::Shift;

/// The stretch of time of an input that a partition of the output reads: its own, with both borders moved.
///
/// Half-open like the partition itself. Those partitions of the input are read that share an instant with it, whatever their
/// grain and zone, and the query sees no others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputWindow {
    /// How far its beginning is from the beginning of the partition.
    #[serde(default, skip_serializing_if = "Shift::is_zero")]
    pub from: Shift,
    /// How far its end is from the end of the partition.
    #[serde(default, skip_serializing_if = "Shift::is_zero")]
    pub to: Shift,
    /// So many of its partitions have to be there, or as many as there are if those are fewer; all of them without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<u32>,
}

impl InputWindow {
    /// Returns whether it is the stretch of the partition itself.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.from.is_zero() && self.to.is_zero()
    }
}
