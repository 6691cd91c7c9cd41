//! Whose turn it is: pipelines that may have a step to begin.
//!
//! A pipeline joins when something about it changed, and leaves when nothing of it can begin. So what cannot begin, be it in
//! flight, at rest or full, is not looked at for every event.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::PipelineId;

/// Fresh steps that may begin one after another while a backlog waits: where there is always something fresh, a backlog
/// gets a quarter of the turns and not nothing.
const FRESH_IN_A_ROW: u32 = 3;

/// What a pipeline lines up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// To follow a topic, which never ends and takes no one's place.
    Following,
    /// For what readers wait for: the newest partitions, whole outputs.
    Fresh,
    /// For what was not computed in its time, or is to be computed again.
    Backlog,
}

/// All lines of a controller.
#[derive(Debug, Default)]
pub(super) struct Lines {
    following: Line,
    fresh: Line,
    backlog: Line,
    /// Fresh steps that began since one of a backlog, or since none waited.
    in_a_row: u32,
}

impl Lines {
    fn line(&mut self, lane: Lane) -> &mut Line {
        match lane {
            Lane::Following => &mut self.following,
            Lane::Fresh => &mut self.fresh,
            Lane::Backlog => &mut self.backlog,
        }
    }

    /// Lets a pipeline join whose product is at a place of the order.
    pub fn join(&mut self, lane: Lane, rank: usize, pipeline: PipelineId) {
        self.line(lane).join(rank, pipeline);
    }

    /// Takes the next one out of its line; without room for more steps that end, only followers are next.
    pub fn next(&mut self, has_room: bool) -> Option<(Lane, PipelineId)> {
        let backlog = self.fresh.is_empty() || self.in_a_row >= FRESH_IN_A_ROW && !self.backlog.is_empty();
        let lane = if backlog { Lane::Backlog } else { Lane::Fresh };
        let bounded = if has_room { self.line(lane).first().cloned() } else { None };
        if let Some(pipeline) = self.following.next_before(bounded.as_ref()) {
            return Some((Lane::Following, pipeline));
        }
        let pipeline = if has_room { self.line(lane).next_before(None) } else { None };
        pipeline.map(|pipeline| (lane, pipeline))
    }

    /// Returns whether something fresh waits.
    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Notes that a step of a pipeline began, which is not in that line now.
    pub fn began(&mut self, lane: Lane, pipeline: PipelineId, at: u64) {
        match lane {
            Lane::Following => {}
            Lane::Fresh if self.backlog.is_empty() => self.in_a_row = 0,
            Lane::Fresh => self.in_a_row += 1,
            Lane::Backlog => self.in_a_row = 0,
        }
        self.line(lane).began(pipeline, at);
    }

    /// Sends everybody away: places in the order have changed.
    pub fn clear(&mut self) {
        for lane in [Lane::Following, Lane::Fresh, Lane::Backlog] {
            self.line(lane).clear();
        }
    }
}

/// When a step of it last began, its product's place in the order, and which it is.
type Turn = (u64, usize, PipelineId);

/// Who waited longest comes first; of those that never began, inputs before readers.
#[derive(Debug, Default)]
struct Line {
    /// When a step of a pipeline last began, as a position in the ledger.
    begun: BTreeMap<PipelineId, u64>,
    turns: BTreeSet<Turn>,
}

impl Line {
    /// Lets a pipeline join whose product is at a place of the order.
    fn join(&mut self, rank: usize, pipeline: PipelineId) {
        let begun = self.begun.get(&pipeline).copied().unwrap_or(0);
        self.turns.insert((begun, rank, pipeline));
    }

    fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Returns who is next.
    fn first(&self) -> Option<&Turn> {
        self.turns.first()
    }

    /// Takes the next one out of the line, if it is its turn before that of somebody in another line.
    fn next_before(&mut self, other: Option<&Turn>) -> Option<PipelineId> {
        let first = self.turns.first()?;
        if other.is_some_and(|other| other < first) {
            return None;
        }
        self.turns.pop_first().map(|(_, _, pipeline)| pipeline)
    }

    /// Notes that a step of a pipeline began, which is not in the line now.
    fn began(&mut self, pipeline: PipelineId, at: u64) {
        self.begun.insert(pipeline, at);
    }

    /// Sends everybody away: places in the order have changed.
    fn clear(&mut self) {
        self.turns.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(name: &str) -> PipelineId {
        PipelineId {
            product: format!("shop/{name}").parse().expect("legal"),
            name: crate::ids::PipelineName::new("fill").expect("legal"),
        }
    }

    /// Lets steps begin one after another, as if each pipeline always had another one.
    fn turns(lines: &mut Lines, joined: &[(Lane, &str)], count: u64) -> String {
        let join = |lines: &mut Lines, name: &str| {
            let (lane, _) = joined.iter().find(|(_, it)| *it == name).expect("joined");
            lines.join(*lane, 0, pipeline(name));
        };
        for (_, name) in joined {
            join(lines, name);
        }
        let mut order = String::new();
        for turn in 1..=count {
            let (lane, next) = lines.next(true).expect("there is always one");
            let name = next.product.name.to_string();
            lines.began(lane, next, turn);
            join(lines, &name);
            order.push_str(&name);
        }
        order
    }

    #[test]
    fn what_is_fresh_comes_first_and_a_backlog_gets_a_quarter() {
        use Lane::{Backlog, Fresh};
        let alone = turns(&mut Lines::default(), &[(Backlog, "x"), (Backlog, "y")], 6);
        assert_eq!(alone, "xyxyxy");
        let busy =
            turns(&mut Lines::default(), &[(Fresh, "a"), (Fresh, "b"), (Backlog, "x"), (Backlog, "y")], 12);
        assert_eq!(busy, "abaxbabyabax");
        // A backlog that comes later has no turns saved up.
        let mut lines = Lines::default();
        assert_eq!(turns(&mut lines, &[(Fresh, "a")], 9), "aaaaaaaaa");
        assert_eq!(turns(&mut lines, &[(Fresh, "a"), (Backlog, "x")], 5), "aaaxa");
    }

    #[test]
    fn followers_begin_whether_there_is_room_or_not() {
        let mut lines = Lines::default();
        lines.join(Lane::Fresh, 0, pipeline("a"));
        lines.join(Lane::Following, 1, pipeline("f"));
        assert_eq!(lines.next(false), Some((Lane::Following, pipeline("f"))));
        assert_eq!(lines.next(false), None);
        assert_eq!(lines.next(true), Some((Lane::Fresh, pipeline("a"))));
        assert_eq!(lines.next(true), None);
    }
}
