//! Looking failed steps and stretches of partitions up without walking over all of them.
//!
//! A pipeline may have a hundred thousand partitions and thousands of failed steps, and each step that ends asks.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{Attempts, LedgerState, PublishedPartition};
use crate::plan::{StepKey, Work};

/// Sorts after every key of a partition.
const LAST: &str = "\u{10ffff}";

impl LedgerState {
    /// Returns the first failed step that a step overlaps with.
    ///
    /// Failed steps never overlap one another: a later failure takes the place of those that it overlaps with. So those
    /// of one pipeline that are cut by a calendar end in the order in which they begin.
    #[must_use]
    pub fn failure(&self, step: &StepKey) -> Option<(&StepKey, &Attempts)> {
        if self.failed.is_empty() {
            return None;
        }
        let partitions = |from: &str| {
            let work = Work::Partitions { from: from.to_owned(), to: LAST.to_owned() };
            StepKey { pipeline: step.pipeline.clone(), work }
        };
        let overlaps = |found: &(&StepKey, &Attempts)| found.0.overlaps(step);
        match &step.work {
            Work::Partitions { from, .. } => {
                let at = partitions(from);
                let begun = self.failed.range(..=&at).next_back().filter(overlaps);
                let later =
                    || self.failed.range((Bound::Excluded(&at), Bound::Unbounded)).next().filter(overlaps);
                let whole = || self.failed.get_key_value(&StepKey { work: Work::Whole, ..at.clone() });
                begun.or_else(later).or_else(whole)
            }
            Work::Whole => self.failed.range(partitions("")..).next().filter(overlaps),
            _ => self.failed.get_key_value(step),
        }
    }

    /// Forgets every failed step that a step overlaps with.
    pub(super) fn repaired(&mut self, step: &StepKey) {
        while let Some(failed) = self.failure(step).map(|(failed, _)| failed.clone()) {
            self.failed.remove(&failed);
        }
    }
}

/// Every partition, and none, as the first and the last one of a stretch.
pub(super) const ALL: (&str, &str) = ("", LAST);
pub(super) const NONE: (&str, &str) = ("1", "0");

/// Returns the partitions from one key to another, both inclusive.
pub(super) fn stretch<'a>(
    partitions: &'a mut BTreeMap<String, Arc<PublishedPartition>>,
    from: &str,
    to: &str,
) -> impl Iterator<Item = &'a mut PublishedPartition> + use<'a> {
    let found =
        (from <= to).then(|| partitions.range_mut::<str, _>((Bound::Included(from), Bound::Included(to))));
    found.into_iter().flatten().map(|(_, partition)| Arc::make_mut(partition))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::ErrorKind;

    fn step() -> impl Strategy<Value = StepKey> {
        let work = prop_oneof![
            8 => (0_u8..30, 0_u8..6).prop_map(|(from, more)| Work::Partitions {
                from: format!("{from:02}"),
                to: format!("{:02}", from + more),
            }),
            1 => Just(Work::Whole),
            1 => Just(Work::Follow),
        ];
        let pipeline = prop_oneof![Just("a/b:c"), Just("a/b:d")];
        (pipeline, work)
            .prop_map(|(pipeline, work)| StepKey { pipeline: pipeline.parse().expect("a pipeline"), work })
    }

    proptest! {
        #[test]
        fn the_failure_of_a_step_is_found_as_by_looking_at_all(
            failed in prop::collection::vec(step(), 0..20),
            asked in prop::collection::vec(step(), 1..20),
        ) {
            let mut ledger = LedgerState::default();
            for step in failed {
                ledger.repaired(&step);
                prop_assert!(!ledger.failed.keys().any(|it| it.overlaps(&step)));
                let attempts = Attempts {
                    count: 1,
                    at_ms: 0,
                    kind: ErrorKind::External,
                    code: String::new(),
                    message: String::new(),
                    generation: 1,
                    inputs: 0,
                };
                ledger.failed.insert(step, attempts);
            }
            for step in asked {
                let all = ledger.failed.iter().find(|(failed, _)| failed.overlaps(&step));
                prop_assert_eq!(ledger.failure(&step), all);
            }
        }
    }
}
