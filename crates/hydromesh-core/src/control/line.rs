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

/// A pool, or none for those that name none.
type Pool = Option<String>;

/// Who lines up, and where.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub pipeline: PipelineId,
    pub lane: Lane,
    pub pool: Pool,
    /// The place of its product in the order.
    pub rank: usize,
    /// When the first promise that rests on it is broken; what is promised to nobody can wait for a while.
    pub deadline_ms: i64,
}

/// All lines of a controller.
#[derive(Debug, Default)]
pub(super) struct Lines {
    following: Line,
    pools: BTreeMap<Pool, Lanes>,
    /// Fresh steps that began since one of a backlog, or since none waited.
    in_a_row: u32,
    /// When a step of a pipeline last began, as a position in the ledger.
    begun: BTreeMap<PipelineId, u64>,
}

/// The lines of one pool.
#[derive(Debug, Default)]
struct Lanes {
    fresh: Line,
    backlog: Line,
}

impl Lines {
    /// Lets a pipeline join, or changes its place.
    pub fn join(&mut self, who: Waiting, now_ms: i64) {
        let Waiting { pipeline, lane, pool, rank, deadline_ms } = who;
        let begun = self.begun.get(&pipeline).copied().unwrap_or(0);
        match lane {
            Lane::Following => self.following.join(pipeline, 0, 0, rank),
            // A backlog is late as it is.
            Lane::Backlog => self.pools.entry(pool).or_default().backlog.join(pipeline, 0, begun, rank),
            Lane::Fresh => {
                let line = &mut self.pools.entry(pool).or_default().fresh;
                // Among those whose promises are broken already, who came first: nobody waits for ever for them.
                let since_ms = line.since_ms(&pipeline).unwrap_or(now_ms);
                line.since.insert(pipeline.clone(), since_ms);
                line.join(pipeline, deadline_ms.max(since_ms), begun, rank);
            }
        }
    }

    /// Takes the next one out of its line: followers first, then of the pools that have room.
    pub fn next(&mut self, has_room: impl Fn(&Pool) -> bool) -> Option<(Lane, PipelineId)> {
        if let Some(pipeline) = self.following.pop() {
            return Some((Lane::Following, pipeline));
        }
        let (fresh, backlog) = (self.first(Lane::Fresh, &has_room), self.first(Lane::Backlog, &has_room));
        let lane = match (&fresh, &backlog) {
            (_, Some(_)) if fresh.is_none() || self.in_a_row >= FRESH_IN_A_ROW => Lane::Backlog,
            _ => Lane::Fresh,
        };
        let (_, pool) = if lane == Lane::Fresh { fresh? } else { backlog? };
        let pipeline = self.pools.get_mut(&pool)?.line(lane).pop()?;
        Some((lane, pipeline))
    }

    /// Returns whose turn it is of all pools with room.
    fn first(&self, lane: Lane, has_room: impl Fn(&Pool) -> bool) -> Option<(Turn, Pool)> {
        let open = self.pools.iter().filter(|(pool, _)| has_room(pool));
        let turns = open.filter_map(|(pool, lanes)| {
            let line = if lane == Lane::Fresh { &lanes.fresh } else { &lanes.backlog };
            Some((line.turns.first()?, pool))
        });
        turns.min().map(|(turn, pool)| (turn.clone(), pool.clone()))
    }

    /// Returns whether something fresh waits that could begin.
    pub fn has_fresh(&self, has_room: impl Fn(&Pool) -> bool) -> bool {
        self.pools.iter().any(|(pool, lanes)| !lanes.fresh.turns.is_empty() && has_room(pool))
    }

    /// Notes that a step of a pipeline began, which is not in that line now.
    pub fn began(&mut self, lane: Lane, pipeline: PipelineId, at: u64) {
        let waits = self.pools.values().any(|lanes| !lanes.backlog.turns.is_empty());
        match lane {
            Lane::Following => {}
            Lane::Fresh if waits => self.in_a_row += 1,
            Lane::Fresh | Lane::Backlog => self.in_a_row = 0,
        }
        self.begun.insert(pipeline, at);
    }

    /// Sends everybody away: places in the order have changed.
    pub fn clear(&mut self) {
        self.following = Line::default();
        self.pools.clear();
    }
}

impl Lanes {
    fn line(&mut self, lane: Lane) -> &mut Line {
        if lane == Lane::Fresh { &mut self.fresh } else { &mut self.backlog }
    }
}

/// When its promise ends, when a step of it last began, its product's place in the order, and which it is.
type Turn = (i64, u64, usize, PipelineId);

/// Whose promise ends first comes first, then who waited longest; of those that never began, inputs before readers.
#[derive(Debug, Default)]
struct Line {
    turns: BTreeSet<Turn>,
    places: BTreeMap<PipelineId, Turn>,
    /// When those that are in the line joined it, milliseconds UTC.
    since: BTreeMap<PipelineId, i64>,
}

impl Line {
    fn since_ms(&self, pipeline: &PipelineId) -> Option<i64> {
        self.since.get(pipeline).copied()
    }

    fn join(&mut self, pipeline: PipelineId, until_ms: i64, begun: u64, rank: usize) {
        let turn = (until_ms, begun, rank, pipeline.clone());
        if let Some(before) = self.places.insert(pipeline, turn.clone()) {
            self.turns.remove(&before);
        }
        self.turns.insert(turn);
    }

    fn pop(&mut self) -> Option<PipelineId> {
        let (.., pipeline) = self.turns.pop_first()?;
        self.places.remove(&pipeline);
        self.since.remove(&pipeline);
        Some(pipeline)
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

    /// One that waits: its name, in which lane, and until when.
    fn waiting(name: &str, lane: Lane, deadline_ms: i64) -> Waiting {
        Waiting { pipeline: pipeline(name), lane, pool: None, rank: 0, deadline_ms }
    }

    /// Lets steps begin one after another, as if each pipeline always had another one and computed what it promised.
    fn turns(lines: &mut Lines, joined: &[(Lane, &str)], count: u64) -> String {
        let join = |lines: &mut Lines, name: &str, now: u64| {
            let (lane, _) = joined.iter().find(|(_, it)| *it == name).expect("joined");
            let now_ms = i64::try_from(now).expect("small");
            lines.join(waiting(name, *lane, now_ms + 100), now_ms);
        };
        for (_, name) in joined {
            join(lines, name, 0);
        }
        let mut order = String::new();
        for turn in 1..=count {
            let (lane, next) = lines.next(|_| true).expect("there is always one");
            let name = next.product.name.to_string();
            lines.began(lane, next, turn);
            join(lines, &name, turn);
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
    fn whose_promise_ends_first_comes_first_and_nobody_waits_for_ever() {
        let mut lines = Lines::default();
        let mut join = |name: &str, deadline_ms: i64, now_ms: i64| {
            lines.join(waiting(name, Lane::Fresh, deadline_ms), now_ms);
        };
        join("daily", 90_000, 1_000);
        join("hourly", 9_000, 1_000);
        // What is late for days does not come before what became late while it waited.
        join("stalled", -500_000, 20_000);
        // Published meanwhile: its place is another one.
        join("daily", 80_000, 21_000);
        join("twice", 5_000, 2_000);
        join("twice", 95_000, 22_000);
        let order: Vec<String> = std::iter::from_fn(|| lines.next(|_| true))
            .map(|(_, pipeline)| pipeline.product.name.to_string())
            .collect();
        assert_eq!(order, ["hourly", "stalled", "daily", "twice"]);
    }

    #[test]
    fn a_full_pool_keeps_nobody_else_back() {
        let mut lines = Lines::default();
        let of = |name: &str, lane: Lane, pool: &str, deadline_ms: i64| Waiting {
            pool: Some(pool.to_owned()),
            ..waiting(name, lane, deadline_ms)
        };
        lines.join(of("a", Lane::Fresh, "warehouse", 1), 0);
        lines.join(of("b", Lane::Fresh, "licence", 2), 0);
        lines.join(of("x", Lane::Backlog, "licence", 0), 0);
        let full = |pool: &Pool| pool.as_deref() != Some("warehouse");
        assert!(lines.has_fresh(full));
        assert_eq!(lines.next(full), Some((Lane::Fresh, pipeline("b"))));
        assert!(!lines.has_fresh(full));
        assert_eq!(lines.next(full), Some((Lane::Backlog, pipeline("x"))));
        assert_eq!(lines.next(full), None);
        assert_eq!(lines.next(|_| true), Some((Lane::Fresh, pipeline("a"))));
    }

    #[test]
    fn followers_begin_whether_there_is_room_or_not() {
        let mut lines = Lines::default();
        lines.join(waiting("a", Lane::Fresh, 0), 0);
        lines.join(waiting("f", Lane::Following, 0), 0);
        assert_eq!(lines.next(|_| false), Some((Lane::Following, pipeline("f"))));
        assert_eq!(lines.next(|_| false), None);
        assert_eq!(lines.next(|_| true), Some((Lane::Fresh, pipeline("a"))));
        assert_eq!(lines.next(|_| true), None);
    }
}
