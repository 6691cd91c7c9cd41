//! Whether anything is left to do, for a controller that ends then.

use super::Control;
use crate::plan::{StepKey, Work};

/// What is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Something is decided, computed, delivered, or follows by itself.
    Work,
    /// The history of a topic is being read, for which the readers of its table wait. A topic in which there is nothing has
    /// none, and it does not show.
    History,
    /// Nothing.
    Nothing,
}

impl Control {
    /// Returns what is left to do, and follows by itself before `until_ms`, milliseconds UTC: a step that failed and is tried
    /// again until then, or one that rests until then. What follows a topic never ends, and is not counted by itself.
    #[must_use]
    pub fn left(&self, until_ms: i64) -> Left {
        let decides = self.pending.is_some() || !self.questions.is_empty() || !self.commands.is_empty();
        let works = self.bounded().next().is_some();
        let reviews = self.reviews() && self.ledger.inherited.is_none();
        if decides || reviews || works || self.delivering.values().any(|handed| !handed.refused) {
            return Left::Work;
        }
        // Nothing else has a place: it begins with the next event.
        let mut waiting = self.due.steps().filter(|step| !self.flights.contains_key(&step.key));
        let begins = waiting.any(|step| {
            let rest = self.resting.get(&step.key).filter(|_| self.rests(&step.key));
            rest.is_none_or(|rest| rest.until_ms <= until_ms)
        });
        let retries = |held_until: Option<i64>| held_until.is_some_and(|at_ms| at_ms <= until_ms);
        if begins || self.due.waiting().any(|it| it.held && retries(it.until_ms)) {
            return Left::Work;
        }
        let reads = |key: &StepKey| key.work == Work::Follow && self.due.lacks(&key.pipeline);
        if self.flights.keys().any(reads) { Left::History } else { Left::Nothing }
    }
}
