//! Ports that are cut by the values of a list: what is known of each value.

use std::sync::Arc;

use super::{LedgerState, PublishedPartition};
use crate::ids::{PortId, ProductId};
use crate::model::{Partitioning, Values};

impl LedgerState {
    /// Returns the values that a port is cut by, as it is deployed, if it is cut by some.
    #[must_use]
    pub fn values_of(&self, port: &PortId) -> Option<&Values> {
        self.deployed.get(&port.product)?.product.cut_of(&port.port).and_then(Partitioning::values)
    }

    /// Returns the value of a port whose data is oldest, and that data's time; one that was never published is older than any.
    #[must_use]
    pub fn oldest_value(&self, port: &PortId) -> Option<(&str, Option<i64>)> {
        let values = self.values_of(port)?;
        let state = self.ports.get(port);
        let published = |value: &String| state.and_then(|state| state.partitions.get(value));
        let data_ms = |value: &String| published(value).and_then(|it| it.published.data_time_ms);
        let times = values.iter().map(|value| (value.as_str(), data_ms(value)));
        times.min_by_key(|(_, data_ms)| *data_ms)
    }

    /// Takes in that the oldest value of a port may be another one.
    ///
    /// While one of them was never published it stays as it is: before the first publication of all, readers have no whole, and a
    /// value that was added takes nothing from what they had.
    pub(super) fn age_by_values(&mut self, port: &PortId) {
        let Some((_, Some(oldest_ms))) = self.oldest_value(port) else { return };
        self.port_mut(port).newest_data_ms = Some(oldest_ms);
    }

    /// Marks values of a product as asked for.
    pub(super) fn force_values(&mut self, product: &ProductId, values: &[String]) {
        let ports: Vec<PortId> = self.ports.keys().filter(|port| port.product == *product).cloned().collect();
        for port in ports {
            if self.values_of(&port).is_none() {
                continue;
            }
            let state = self.port_mut(&port);
            for value in values {
                if let Some(partition) = state.partitions.get_mut(value) {
                    let partition: &mut PublishedPartition = Arc::make_mut(partition);
                    partition.forced = true;
                }
            }
        }
        self.forgive(product);
    }
}
