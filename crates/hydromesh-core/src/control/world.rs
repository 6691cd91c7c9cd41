//! What was found of tables: whether they still show what was published.

use super::Control;
use crate::ids::PortId;
use crate::observe::{Seen, alteration};
use crate::plan::Work;

impl Control {
    /// Takes in a look at a table that was taken when so many publications of it were known.
    pub(super) fn observed(&mut self, port: &PortId, published: u64, seen: &Seen) {
        // The look may be older than what was published since, or newer than what is told of a step under way.
        let current = self.ledger.ports.get(port).is_some_and(|state| state.published == published);
        if !current || self.is_written(port) {
            return;
        }
        if let Some(fact) = alteration(&self.ledger, port, seen) {
            self.record(fact);
        }
    }

    /// Returns whether a step that ends by itself is writing a port.
    fn is_written(&self, port: &PortId) -> bool {
        let mut keys = self.flights.keys().filter(|key| key.work != Work::Follow);
        keys.any(|key| {
            key.pipeline.product == port.product
                && self.ledger.deployed.get(&port.product).is_none_or(|deployed| {
                    let pipeline = deployed.product.pipelines.get(&key.pipeline.name);
                    // Of a definition that is no longer deployed: it may be any of its ports.
                    pipeline.is_none_or(|it| *it.output() == port.port)
                })
        })
    }
}
