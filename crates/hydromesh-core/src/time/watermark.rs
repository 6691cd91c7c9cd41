//! How far event time has come, judged per source partition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Millis, Span};

/// What one source partition has shown so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceProgress {
    /// The largest event time seen, if any row came yet.
    pub max_event: Option<Millis>,
    /// The processing time of the last row, or of the assignment before any row.
    pub last_seen: Millis,
}

/// The watermark of a pipeline: the least over its non-idle partitions of (largest event time - bound).
///
/// It never goes back, decides finality only (late or not), and is stored with every epoch. A partition that
/// was assigned and has not spoken holds it back until its idle timeout; when every partition is idle it
/// stands still, because silence says nothing about how far event time has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    bound: Span,
    idle: Span,
    sources: BTreeMap<i32, SourceProgress>,
    current: Option<Millis>,
}

impl Watermark {
    /// Returns a tracker that starts from the watermark of the last committed epoch, if there was one.
    pub const fn new(bound: Span, idle: Span, resumed: Option<Millis>) -> Self {
        Self { bound, idle, sources: BTreeMap::new(), current: resumed }
    }

    /// Makes the tracker wait for a partition from now on; one that is already known is left alone.
    pub fn assign(&mut self, partition: i32, now: Millis) {
        self.sources.entry(partition).or_insert(SourceProgress { max_event: None, last_seen: now });
    }

    /// Forgets a partition that another worker took over.
    pub fn revoke(&mut self, partition: i32) {
        self.sources.remove(&partition);
    }

    /// Takes note of rows: the largest event time among them and the processing time of their arrival.
    pub fn observe(&mut self, partition: i32, max_event: Millis, now: Millis) {
        let source =
            self.sources.entry(partition).or_insert(SourceProgress { max_event: None, last_seen: now });
        source.max_event = Some(source.max_event.map_or(max_event, |seen| seen.max(max_event)));
        // A clock that jumps back must not make a live partition look idle for the length of the jump.
        source.last_seen = source.last_seen.max(now);
    }

    /// Moves the watermark as far as the partitions allow and returns it; none before the first row.
    pub fn advance(&mut self, now: Millis) -> Option<Millis> {
        let mut least: Option<Millis> = None;
        for source in self.sources.values() {
            if now.saturating_sub(source.last_seen) >= self.idle.millis() {
                continue;
            }
            let Some(max_event) = source.max_event else {
                return self.current;
            };
            let bounded = max_event.saturating_sub(self.bound.millis());
            least = Some(least.map_or(bounded, |least| least.min(bounded)));
        }
        self.current = self.current.max(least);
        self.current
    }

    /// Returns the watermark as of the last [`Self::advance`].
    pub const fn current(&self) -> Option<Millis> {
        self.current
    }

    /// Returns whether a row of this event time comes after its time was declared over.
    pub fn is_late(&self, event_time: Millis) -> bool {
        self.current.is_some_and(|watermark| event_time < watermark)
    }

    /// Returns what each partition has shown.
    pub const fn sources(&self) -> &BTreeMap<i32, SourceProgress> {
        &self.sources
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn watermark() -> Watermark {
        Watermark::new("5s".parse().unwrap(), "30s".parse().unwrap(), None)
    }

    #[test]
    fn the_slowest_partition_decides() {
        let mut mark = watermark();
        mark.assign(0, 0);
        mark.assign(1, 0);
        mark.observe(0, 100_000, 1_000);
        assert_eq!(mark.advance(1_000), None, "partition 1 has not spoken");
        mark.observe(1, 60_000, 2_000);
        assert_eq!(mark.advance(2_000), Some(55_000));
        assert!(mark.is_late(54_999) && !mark.is_late(55_000));
    }

    #[test]
    fn a_silent_partition_is_left_out_after_its_timeout() {
        let mut mark = watermark();
        mark.assign(1, 0);
        mark.observe(0, 100_000, 29_000);
        assert_eq!(mark.advance(29_999), None);
        assert_eq!(mark.advance(30_000), Some(95_000));
        mark.observe(1, 50_000, 31_000);
        assert_eq!(mark.advance(31_000), Some(95_000), "it returns behind the watermark: no step back");
        assert!(mark.is_late(50_000));
        assert_eq!(mark.advance(900_000), Some(95_000), "all idle: stands still");
    }

    #[test]
    fn resumes_from_the_committed_epoch() {
        let mut mark = Watermark::new(Span::from_millis(0), "30s".parse().unwrap(), Some(70_000));
        mark.observe(0, 10_000, 0);
        assert_eq!(mark.advance(0), Some(70_000));
        let json = serde_json::to_string(&mark).unwrap();
        assert_eq!(serde_json::from_str::<Watermark>(&json).unwrap(), mark);
    }

    proptest! {
        #[test]
        fn never_goes_back_and_never_passes_a_live_partition(
            steps in prop::collection::vec((0_i32..3, 0_i64..100_000, 0_i64..40_000), 1..60),
        ) {
            let mut mark = watermark();
            let (mut now, mut last) = (0, None);
            for (partition, event, wait) in steps {
                now += wait;
                mark.observe(partition, event, now);
                let current = mark.advance(now);
                prop_assert!(current >= last);
                if current > last {
                    for source in mark.sources().values().filter(|one| now - one.last_seen < 30_000) {
                        prop_assert!(current <= source.max_event.map(|event| event - 5_000));
                    }
                }
                last = current;
            }
        }
    }
}
