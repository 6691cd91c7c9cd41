//! Work that falls into parts. The core starts no threads: it says what stands alone, and the shell has the cores.

/// How to apply a function to many things that have nothing to do with one another.
pub trait Spread {
    /// Returns what the function makes of each item, in the order of the items.
    fn map<T: Sync, R: Send>(&self, items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R>;
}

/// One after the other.
#[derive(Debug, Clone, Copy)]
pub struct InOrder;

impl Spread for InOrder {
    fn map<T: Sync, R: Send>(&self, items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
        items.iter().map(each).collect()
    }
}
