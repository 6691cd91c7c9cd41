//! How many steps may run at once: in all, of a product, of a pool.

use std::collections::BTreeMap;

use super::Control;
use crate::ids::{PipelineId, ProductId};
#[cfg(test)]
use crate::plan::StepKey;
use crate::planted::{self, Bug};

/// Places that are free for steps which end by themselves.
pub(super) struct Room {
    all: usize,
    /// Of pools with a limit.
    pools: BTreeMap<String, usize>,
}

impl Room {
    /// Returns how many more steps of a pool may begin.
    pub fn of(&self, pool: Option<&String>) -> usize {
        pool.and_then(|pool| self.pools.get(pool)).map_or(self.all, |free| *free.min(&self.all))
    }

    /// Notes that steps of a pool take places.
    pub fn take(&mut self, pool: Option<&String>, places: usize) {
        self.all = self.all.saturating_sub(places);
        if let Some(free) = pool.and_then(|pool| self.pools.get_mut(pool)) {
            *free = free.saturating_sub(places);
        }
    }
}

impl Control {
    /// Returns the places that are free.
    pub(super) fn room(&self) -> Room {
        let limits = &self.ledger.limits;
        let places = |steps: u32| usize::try_from(steps).unwrap_or(usize::MAX);
        let all = limits.steps.map_or(self.limits.steps, places);
        let pools = if planted::is(Bug::PoolIgnored) { BTreeMap::new() } else { limits.pools.clone() };
        let pools = pools.into_iter().map(|(pool, steps)| (pool, places(steps))).collect();
        let mut room = Room { all, pools };
        for (_, flight) in self.bounded() {
            room.take(flight.bounds.pool.as_ref(), 1);
        }
        room
    }

    /// Returns the pool in which steps of a pipeline take places now.
    pub(super) fn pool_of(&self, pipeline: &PipelineId) -> Option<String> {
        self.ledger.bounds_of(pipeline).and_then(|bounds| bounds.pool.clone())
    }

    /// Returns the pool in which a step in flight has a place.
    #[cfg(test)]
    pub(super) fn pool_in_flight(&self, key: &StepKey) -> Option<&String> {
        self.flights.get(key)?.bounds.pool.as_ref()
    }

    /// Returns how many more steps of a product may begin that end by themselves.
    pub(super) fn room_of(&self, product: &ProductId) -> usize {
        let Some(most) = self.ledger.limits.per_product else { return usize::MAX };
        let taken = self.bounded().filter(|(key, _)| key.pipeline.product == *product).count();
        usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(taken)
    }
}
