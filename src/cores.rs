//! All cores, for work that falls into parts.

use std::sync::LazyLock;

use hydromesh_core::spread::{InOrder, Spread};
use rayon::prelude::*;

/// Stacks of threads that plan or run queries: plans of deep ones recurse, and a query may have 2,000 operators in one
/// another. Of a stack only what is used is taken.
pub const STACK_BYTES: usize = 64 << 20;

/// The threads, started when they are first used; none where the system gives none.
static POOL: LazyLock<Option<rayon::ThreadPool>> = LazyLock::new(|| {
    rayon::ThreadPoolBuilder::new()
        .stack_size(STACK_BYTES)
        .thread_name(|number| format!("hydromesh-{number}"))
        .build()
        .ok()
});

/// Spreads work over all cores.
#[derive(Debug, Clone, Copy)]
pub struct AllCores;

impl Spread for AllCores {
    fn map<T: Sync, R: Send>(&self, items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
        match &*POOL {
            Some(pool) => pool.install(|| items.par_iter().map(&each).collect()),
            None => InOrder.map(items, each),
        }
    }
}

/// Returns how many steps that end by themselves suit this machine at once: one keeps two cores busy, and there are two even on a
/// small one, because one computes while another waits for its disk.
#[must_use]
pub fn steps_at_once() -> usize {
    (std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) / 2).max(2)
}

impl AllCores {
    /// Returns how many threads there are.
    #[must_use]
    pub fn count() -> usize {
        POOL.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }
}
