//! Whose turn it is: pipelines that may have a step to begin.
//!
//! A pipeline joins when something about it changed, and leaves when nothing of it can begin. So what cannot begin, be it in
//! flight, at rest or full, is not looked at for every event.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::PipelineId;

/// When a step of it last began, its product's place in the order, and which it is.
pub(super) type Turn = (u64, usize, PipelineId);

/// Who waited longest comes first; of those that never began, inputs before readers.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// When a step of a pipeline last began, as a position in the ledger.
    begun: BTreeMap<PipelineId, u64>,
    turns: BTreeSet<Turn>,
}

impl Line {
    /// Lets a pipeline join whose product is at a place of the order.
    pub fn join(&mut self, rank: usize, pipeline: PipelineId) {
        let begun = self.begun.get(&pipeline).copied().unwrap_or(0);
        self.turns.insert((begun, rank, pipeline));
    }

    /// Returns who is next.
    pub fn first(&self) -> Option<&Turn> {
        self.turns.first()
    }

    /// Takes the next one out of the line, if it is its turn before that of somebody in another line.
    pub fn next_before(&mut self, other: Option<&Turn>) -> Option<PipelineId> {
        let first = self.turns.first()?;
        if other.is_some_and(|other| other < first) {
            return None;
        }
        self.turns.pop_first().map(|(_, _, pipeline)| pipeline)
    }

    /// Notes that a step of a pipeline began, which is not in the line now.
    pub fn began(&mut self, pipeline: PipelineId, at: u64) {
        self.begun.insert(pipeline, at);
    }

    /// Sends everybody away: places in the order have changed.
    pub fn clear(&mut self) {
        self.turns.clear();
    }
}
