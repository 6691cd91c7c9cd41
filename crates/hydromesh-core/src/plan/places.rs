//! Places that steps take, and who has them.

use super::{StepKey, Work};
use crate::ledger::LedgerState;

/// Returns which limit of its environment keeps a due step from beginning, for people, and the steps under way that have taken
/// all its places; none where no limit that the mesh sets is reached.
///
/// A step under way is counted where its pipeline is now, which is another pool than it began in while a deploy that moved the
/// pipeline is younger than the step.
#[must_use]
pub fn no_place<'a>(ledger: &'a LedgerState, step: &StepKey) -> Option<(String, Vec<&'a StepKey>)> {
    let pool_of = |step: &StepKey| ledger.bounds_of(&step.pipeline)?.pool.as_ref();
    let limits = &ledger.limits;
    let full = |most: Option<u32>, of: &dyn Fn(&StepKey) -> bool| {
        let taken = ledger.running.values().filter(|it| it.work != Work::Follow && of(it));
        let taken: Vec<&StepKey> = taken.collect();
        most.filter(|most| taken.len() >= usize::try_from(*most).unwrap_or(usize::MAX))
            .map(|most| (most, taken))
    };
    let pool = pool_of(step);
    if let Some(pool) = pool
        && let Some((most, taken)) = full(limits.pools.get(pool).copied(), &|it| pool_of(it) == Some(pool))
    {
        return Some((format!("pool `{pool}` takes {most} at once"), taken));
    }
    let product = &step.pipeline.product;
    if let Some((most, taken)) = full(limits.per_product, &|it| it.pipeline.product == *product) {
        return Some((format!("a product takes {most} at once"), taken));
    }
    let (most, taken) = full(limits.steps, &|_| true)?;
    Some((format!("the environment takes {most} at once"), taken))
}
