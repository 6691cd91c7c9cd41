//! When the values that an output is cut by are looked for in an input.
//!
//! A look is due where the input has rows that the last one could not see. What is computed meanwhile could not show rows of a new
//! value and would tell of them as rows of no value, so that it waits for the look: once, and then for the next one only
//! after something was published, because an input that never rests must not keep everything else from being computed.

use std::borrow::Cow;

use super::batch::Table;
use super::survey::{Chunk, Lack, PipelineSurvey, expire};
use super::{StepKey, Work};
use crate::model::{BatchSchedule, ByPromise, KeySource};
use crate::planted::{self, Bug};

/// A look for values that is due, or kept back, or rests until its schedule.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub step: Chunk,
    /// Something was published since the last one, or there was none.
    pub first: bool,
}

impl Look {
    /// Returns whether what is due beside it waits for it: not for one that failed before, which may fail again.
    pub fn goes_first(&self) -> bool {
        self.first && !self.step.failed && !self.step.due.is_empty()
    }
}

impl Table<'_> {
    /// Looks whether values are to be looked for.
    ///
    /// One that failed keeps nobody back: the values that are known go on, and so do readers.
    pub(super) fn seek(&self, found: &mut PipelineSurvey, source: &KeySource) {
        found.look = self.look_for(source);
        let Some(look) = &found.look else { return };
        if let Some(until_ms) = look.step.until_ms {
            expire(&mut found.until_ms, until_ms);
        }
        let wanted = !look.step.due.is_empty() || !look.step.held.is_empty();
        if wanted && !look.step.failed {
            let held = look.step.waiting.first().map(|held| held.why.clone());
            found.lacks = Some(Lack::Work(held.unwrap_or_else(|| format!("looks for values of {source}"))));
        }
    }

    fn look_for(&self, source: &KeySource) -> Option<Look> {
        let ledger = self.survey.ledger;
        let now = ledger.in_sight(self.deployed, source)?;
        let known = ledger.known_keys(&self.port, source);
        let mut look = Look { first: known.is_none_or(|known| known.followed), ..Look::default() };
        let why: Cow<'static, str> = match known {
            None => "not looked yet".into(),
            Some(_) if planted::is(Bug::LookedOnce) => return None,
            Some(known) if known.looked.definition != now.definition => {
                format!("the definition of {} changed", source.input).into()
            }
            Some(known) if known.looked.version < now.version => {
                if let Some(until_ms) = self.looks_again_ms(known.at_ms) {
                    look.step.until_ms = Some(until_ms);
                    return Some(look);
                }
                format!("{} has newer rows", source.input).into()
            }
            Some(_) => return None,
        };
        let key = StepKey { pipeline: self.id.clone(), work: Work::Keys };
        let reason = format!("values of {source}: {why}");
        // What keeps it back is noted.
        let _ = self.survey.push(&mut look.step, self.deployed, key, reason, true);
        Some(look)
    }

    /// Returns until when newer rows are left alone that the last look has not seen: as long as what is published leaves them alone.
    fn looks_again_ms(&self, looked_ms: i64) -> Option<i64> {
        let now_ms = self.survey.now_ms;
        match self.batch.schedule.as_ref()? {
            BatchSchedule::Cron(_) => {
                let (last_ms, next_ms) = self.ticks();
                last_ms.filter(|last_ms| *last_ms <= looked_ms).and(next_ms)
            }
            BatchSchedule::By(ByPromise::Promise) => {
                let newest_ms = self.survey.ledger.ports.get(&self.port)?.newest_data_ms?;
                let begin_ms = self.begin_before_ms(newest_ms)?;
                (now_ms < begin_ms).then_some(begin_ms)
            }
        }
    }
}
