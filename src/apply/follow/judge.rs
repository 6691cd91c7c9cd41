//! Judges each event: in order, late, too late, or seen before.
//!
//! The verdict is a function of the events before it in its own partition (and, for a partition that fell silent, of
//! the committed watermark), never of how the stream was cut into epochs or when it was read. So a restart judges as
//! the first reading did, and a backfill as the live stream did.

use std::collections::{BTreeMap, HashMap};

use hydromesh_core::model::EventSource;

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// In order.
    Accepted,
    /// Late, within what is allowed.
    Corrected,
    /// Later than allowed.
    TooLate,
    /// An event of this id is there already.
    Duplicate,
}

/// One event's clocks and identity.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event<'a> {
    /// Source partition.
    pub partition: i32,
    /// Event time, milliseconds UTC.
    pub at_ms: i64,
    /// When the broker had it, milliseconds UTC.
    pub broker_ms: i64,
    /// Its id, if events have one.
    pub id: Option<&'a str>,
}

impl Event<'_> {
    /// Returns how far event time has come by this event: an event from the future does not move time beyond the
    /// moment at which it was there, or one wrong clock would make every other event late.
    fn progress(&self) -> i64 {
        self.at_ms.min(self.broker_ms)
    }
}

/// The judge of one stream.
///
/// What it guarantees about ids: of events with the same id in one partition, all within `allow` of that partition's
/// watermark, the first is kept. Between partitions the one that is read first is kept. Ids older than that are
/// forgotten, which bounds memory; an event so old is too late anyway.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    bound_ms: i64,
    allow_ms: i64,
    newest: BTreeMap<i32, i64>,
    floor_ms: Option<i64>,
    seen: HashMap<String, i64>,
}

impl Judge {
    /// Returns a judge that goes on from the newest event time of each partition and the committed watermark.
    pub fn new(source: &EventSource, newest: BTreeMap<i32, i64>, floor_ms: Option<i64>) -> Self {
        Self {
            bound_ms: source.bound.millis(),
            allow_ms: source.late.allow.millis(),
            newest,
            floor_ms,
            seen: HashMap::new(),
        }
    }

    /// Returns the newest event time of each partition.
    pub const fn newest(&self) -> &BTreeMap<i32, i64> {
        &self.newest
    }

    /// Returns the time before which ids are no longer needed, once the watermark is committed.
    pub fn horizon_ms(&self) -> Option<i64> {
        self.floor_ms.map(|floor| floor.saturating_sub(self.allow_ms))
    }

    /// Takes note of an id that was accepted before this judge began.
    pub fn remember(&mut self, id: String, at_ms: i64) {
        if self.horizon_ms().is_none_or(|horizon| at_ms >= horizon) {
            self.seen.insert(id, at_ms);
        }
    }

    /// Returns the ids that matter, with their times.
    pub fn remembered(&self) -> impl Iterator<Item = (&str, i64)> {
        self.seen.iter().map(|(id, at)| (id.as_str(), *at))
    }

    /// Judges an event; events of a partition come in the order of their offsets.
    pub fn judge(&mut self, event: Event<'_>) -> Verdict {
        let own = self.newest.get(&event.partition).map(|newest| newest.saturating_sub(self.bound_ms));
        let mark = own.max(self.floor_ms);
        let limit = mark.map(|mark| mark.saturating_sub(self.allow_ms));
        let known = event.id.and_then(|id| self.seen.get(id));
        if known.is_some_and(|at| Some(*at) >= limit) {
            return Verdict::Duplicate;
        }
        if Some(event.at_ms) < limit {
            return Verdict::TooLate;
        }
        if let Some(id) = event.id {
            self.seen.insert(id.to_owned(), event.progress());
        }
        let newest = self.newest.entry(event.partition).or_insert(i64::MIN);
        *newest = (*newest).max(event.progress());
        if Some(event.at_ms) < mark { Verdict::Corrected } else { Verdict::Accepted }
    }

    /// Takes note of the watermark that was committed, and forgets ids that can no longer matter.
    pub fn committed(&mut self, watermark_ms: Option<i64>) {
        self.floor_ms = self.floor_ms.max(watermark_ms);
        if let Some(horizon) = self.horizon_ms() {
            self.seen.retain(|_, at| *at >= horizon);
        }
    }

    /// Forgets ids that no later event of this partition can repeat within what is allowed; for a history that is
    /// read partition by partition.
    pub fn forget_before(&mut self, partition: i32) {
        let Some(newest) = self.newest.get(&partition) else { return };
        let horizon = newest.saturating_sub(self.bound_ms).saturating_sub(self.allow_ms);
        self.seen.retain(|_, at| *at >= horizon);
    }
}

#[cfg(test)]
mod tests {
    use hydromesh_core::ids::PortName;
    use hydromesh_core::model::{Available, Late, LateBeyond};
    use proptest::prelude::*;

    use super::*;

    fn source() -> EventSource {
        EventSource {
            port: PortName::new("clicks").expect("a name"),
            event_time: "ts".to_owned(),
            event_id: Some("id".to_owned()),
            bound: "10s".parse().expect("a span"),
            idle: "30s".parse().expect("a span"),
            late: Late { allow: "100s".parse().expect("a span"), beyond: LateBeyond::Quarantine },
            available: Available::Broker,
        }
    }

    fn event(at_ms: i64, id: &str) -> Event<'_> {
        Event { partition: 0, at_ms, broker_ms: i64::MAX, id: Some(id) }
    }

    #[test]
    fn each_verdict_has_its_border() {
        let mut judge = Judge::new(&source(), BTreeMap::new(), None);
        assert_eq!(judge.judge(event(1_000_000, "a")), Verdict::Accepted);
        assert_eq!(judge.judge(event(990_000, "b")), Verdict::Accepted);
        assert_eq!(judge.judge(event(989_999, "c")), Verdict::Corrected);
        assert_eq!(judge.judge(event(890_000, "d")), Verdict::Corrected);
        assert_eq!(judge.judge(event(889_999, "e")), Verdict::TooLate);
        assert_eq!(judge.judge(event(1_000_000, "a")), Verdict::Duplicate);
        // Another partition has its own time until the watermark says otherwise.
        let mut other = Event { partition: 1, ..event(5, "f") };
        assert_eq!(judge.judge(other), Verdict::Accepted);
        judge.committed(Some(990_000));
        other = Event { partition: 1, ..event(5, "g") };
        assert_eq!(judge.judge(other), Verdict::TooLate);
    }

    #[test]
    fn an_event_from_the_future_moves_time_no_further_than_its_arrival() {
        let mut judge = Judge::new(&source(), BTreeMap::new(), None);
        let future = Event { broker_ms: 1_000, ..event(9_000_000_000, "a") };
        assert_eq!(judge.judge(future), Verdict::Accepted);
        assert_eq!(judge.judge(event(1_000, "b")), Verdict::Accepted);
    }

    proptest! {
        /// Any cut into epochs, with any restarts from what is committed, gives each event the same verdict.
        #[test]
        fn the_cut_does_not_show(
            events in prop::collection::vec((0_i64..400_000, 0_u8..40), 1..120),
            cuts in prop::collection::vec((1_usize..20, any::<bool>()), 1..20),
        ) {
            let events: Vec<(i64, String)> =
                events.into_iter().map(|(at, id)| (at + i64::from(id), format!("{id}-{}", at / 50_000))).collect();
            let mut whole = Judge::new(&source(), BTreeMap::new(), None);
            let expected: Vec<Verdict> = events.iter().map(|(at, id)| whole.judge(event(*at, id))).collect();
            let mut cut = Judge::new(&source(), BTreeMap::new(), None);
            let mut found = Vec::new();
            let (mut rest, mut sizes) = (&events[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (size, restart) = sizes.next().expect("a cycle");
                let (epoch, later) = rest.split_at((*size).min(rest.len()));
                rest = later;
                found.extend(epoch.iter().map(|(at, id)| cut.judge(event(*at, id))));
                let watermark = cut.newest().values().min().map(|newest| newest - 10_000);
                cut.committed(watermark);
                if *restart {
                    let mut next = Judge::new(&source(), cut.newest().clone(), watermark);
                    for (id, at) in cut.remembered() {
                        next.remember(id.to_owned(), at);
                    }
                    cut = next;
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
