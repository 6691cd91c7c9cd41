//! The current feature values: filled by the followers, read by lookups, a cache of the tile logs in the lake.
//!
//! A batch is added only after its table commit, so that no lookup ever answers with what a crash could take back.
//! Locks are held for one lookup, or for a bounded number of tiles; never while anything is written.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use hydromesh_core::aggregate::Value;
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::tile::{TileDelta, TileError, TileStore, ViewSpec};

use crate::serve::{FeatureAnswer, FeatureStore, FeatureValue, LookupError};

/// Tiles merged under one write lock: about 100 microseconds, which is what a lookup may have to wait.
const DELTAS_PER_LOCK: usize = 128;

/// A port's columns with their values.
pub type Values = Vec<(String, Value)>;

/// How current a port's values are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// The newest event that counts, milliseconds UTC; none before the first.
    pub newest_event_ms: Option<i64>,
    /// Event times before it are complete but for corrections, milliseconds UTC.
    pub watermark_ms: Option<i64>,
    /// The version of the tile log that holds everything that is counted.
    pub version: Option<i64>,
    /// The definition that computed the values.
    pub definition: String,
    /// The column that names the entity.
    pub entity: String,
}

/// The current values of every feature port that is followed here.
#[derive(Debug, Default)]
pub struct Online {
    ports: RwLock<BTreeMap<PortId, Arc<PortValues>>>,
}

impl Online {
    /// Returns values of no port.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves these values for a port from now on, in place of those of an older definition.
    pub fn install(&self, port: PortId, values: Arc<PortValues>) {
        self.ports.write().unwrap_or_else(PoisonError::into_inner).insert(port, values);
    }

    /// Stops serving a port.
    pub fn remove(&self, port: &PortId) {
        self.ports.write().unwrap_or_else(PoisonError::into_inner).remove(port);
    }

    /// Returns the values of a port, if it is followed here and its history is complete.
    #[must_use]
    pub fn port(&self, port: &PortId) -> Option<Arc<PortValues>> {
        self.ports.read().unwrap_or_else(PoisonError::into_inner).get(port).cloned()
    }

    /// Returns the ports that can be looked up.
    #[must_use]
    pub fn ports(&self) -> Vec<PortId> {
        self.ports.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Returns the values of one entity at `now_ms`; an entity that was never seen has empty windows.
    ///
    /// `None` when the port is not followed here, or its history is still being read.
    #[must_use]
    pub fn lookup(&self, port: &PortId, entity: &str, now_ms: i64) -> Option<Values> {
        self.port(port).map(|values| values.lookup(entity, now_ms))
    }

    /// Returns how current a port's values are.
    #[must_use]
    pub fn freshness(&self, port: &PortId) -> Option<Freshness> {
        self.port(port).map(|values| values.freshness())
    }
}

/// Returns the values of every entity of a port at `now_ms`, in order of the entities.
///
/// Each entity is looked up by itself, so that other lookups go on in between.
#[must_use]
pub fn current_values(online: &Online, port: &PortId, now_ms: i64) -> Vec<(String, Values)> {
    let Some(values) = online.port(port) else { return Vec::new() };
    let entities = values.entities();
    entities.into_iter().map(|entity| (entity.clone(), values.lookup(&entity, now_ms))).collect()
}

impl FeatureStore for Online {
    fn lookup(&self, product: &ProductId, entity: &str, now_ms: i64) -> Result<FeatureAnswer, LookupError> {
        let mut answer = FeatureAnswer::default();
        let mut followed = false;
        for port in self.ports().iter().filter(|port| port.product == *product) {
            let Some(values) = self.port(port) else { continue };
            followed = true;
            let fresh = values.freshness();
            // The port whose events are complete up to the earliest time speaks for the product.
            answer.watermark_ms = match (answer.watermark_ms, fresh.watermark_ms) {
                (Some(known), Some(other)) => Some(known.min(other)),
                (known, other) => known.or(other),
            };
            for (column, value) in values.lookup(entity, now_ms) {
                // Empty windows count nothing and know nothing.
                answer.found |= !matches!(value, Value::Null | Value::Int(0));
                let value = value.to_json();
                let value = FeatureValue { value, as_of_ms: Some(now_ms), version: fresh.version };
                answer.features.insert(column, value);
            }
        }
        if followed {
            Ok(answer)
        } else {
            Err(LookupError::NotReady(format!("the history of {product} is still being read")))
        }
    }
}

/// The current values of one feature port.
#[derive(Debug)]
pub struct PortValues {
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: TileStore,
    freshness: Freshness,
}

impl PortValues {
    /// Returns the values of no events.
    #[must_use]
    pub fn new(view: ViewSpec, entity: impl Into<String>, definition: impl Into<String>) -> Self {
        let freshness = Freshness {
            newest_event_ms: None,
            watermark_ms: None,
            version: None,
            definition: definition.into(),
            entity: entity.into(),
        };
        Self { inner: RwLock::new(Inner { store: TileStore::new(view), freshness }) }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        // Merging a tile is whole or not at all, so that what a panic left behind can be read.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds tiles that are durable. The caller makes sure that each is added once.
    ///
    /// # Errors
    /// [`TileError`] when a tile is not of this view; those before it are added.
    pub fn apply(&self, deltas: &[TileDelta]) -> Result<(), TileError> {
        for part in deltas.chunks(DELTAS_PER_LOCK) {
            let mut inner = self.write();
            for delta in part {
                inner.store.apply(delta)?;
            }
        }
        Ok(())
    }

    /// Says how far the events have come, and which version of the tile log holds them; nothing goes back.
    pub fn advance(&self, newest_event_ms: Option<i64>, watermark_ms: Option<i64>, version: Option<i64>) {
        let mut inner = self.write();
        inner.freshness.newest_event_ms = inner.freshness.newest_event_ms.max(newest_event_ms);
        inner.freshness.watermark_ms = inner.freshness.watermark_ms.max(watermark_ms);
        inner.freshness.version = inner.freshness.version.max(version);
    }

    /// Gives up tiles that no lookup at or after the newest event needs.
    pub fn prune(&self) {
        let mut inner = self.write();
        if let Some(newest) = inner.freshness.newest_event_ms {
            let step = inner.store.view().base_step();
            inner.store.advance(newest.div_euclid(step) * step);
        }
    }

    /// Returns the values of one entity at `now_ms`.
    ///
    /// A time before what is kept is answered as of the earliest time that can be: two clocks that differ by
    /// milliseconds must not turn an answer into an error.
    #[must_use]
    pub fn lookup(&self, entity: &str, now_ms: i64) -> Values {
        let inner = self.read();
        let at = now_ms.max(inner.store.horizon());
        inner.store.lookup(entity, at).unwrap_or_default()
    }

    /// Returns the entities that have events in some window, in order.
    #[must_use]
    pub fn entities(&self) -> Vec<String> {
        self.read().store.entities().map(str::to_owned).collect()
    }

    /// Returns how current the values are.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.read().freshness.clone()
    }

    /// Returns the end of the base tile that holds the newest event: the time as of which a table of all values shows
    /// every event and nothing else.
    #[must_use]
    pub fn as_of_ms(&self) -> Option<i64> {
        let inner = self.read();
        let step = inner.store.view().base_step();
        inner.freshness.newest_event_ms.map(|newest| (newest.div_euclid(step) + 1) * step)
    }

    /// Returns the byte form of the tiles; equal contents have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.read().store.encode()
    }
}

#[cfg(test)]
mod tests {
    use hydromesh_core::aggregate::Order;
    use hydromesh_core::tile::{FeatureSpec, Row, partial};

    use super::*;

    fn view() -> ViewSpec {
        let spend = FeatureSpec {
            name: "spend".to_owned(),
            agg: "sum(amount)".parse().expect("an aggregate"),
            windows: vec!["1h".parse().expect("a span")],
            tail: "5%".parse().expect("a tail"),
        };
        ViewSpec::new(vec![spend]).expect("a view")
    }

    fn filled(now_ms: i64) -> (Online, PortId) {
        let port: PortId = "customer/activity.features".parse().expect("a port");
        let values = PortValues::new(view(), "customer_id", "d1");
        let rows: Vec<Row> = (0..10)
            .map(|offset| Row {
                entity: format!("c{}", offset % 2),
                order: Order { event_ms: now_ms - offset * 60_000, partition: 0, offset },
                available_ms: now_ms,
                values: vec![Value::Float(1.0)],
            })
            .collect();
        values.apply(&partial(&view(), &rows).expect("tiles")).expect("of the view");
        values.advance(Some(now_ms), Some(now_ms - 30_000), Some(4));
        let online = Online::new();
        online.install(port.clone(), Arc::new(values));
        (online, port)
    }

    #[test]
    fn a_lookup_answers_what_was_added_and_says_how_current_it_is() {
        let now = 1_790_000_000_000;
        let (online, port) = filled(now);
        let answer = online.lookup(&port, "c0", now + 1).expect("followed");
        assert_eq!(answer, [("spend_1h".to_owned(), Value::Float(5.0))]);
        assert_eq!(online.lookup(&port, "nobody", now).expect("followed")[0].1, Value::Null);
        let fresh = online.freshness(&port).expect("followed");
        assert_eq!((fresh.newest_event_ms, fresh.watermark_ms), (Some(now), Some(now - 30_000)));
        let other: PortId = "customer/activity.other".parse().expect("a port");
        assert_eq!(online.lookup(&other, "c0", now), None);
        assert_eq!(current_values(&online, &port, now + 1).len(), 2);
    }

    #[test]
    fn a_served_product_answers_and_one_that_is_not_followed_is_not_ready() {
        let now = 1_790_000_000_000;
        let (online, port) = filled(now);
        let answer = FeatureStore::lookup(&online, &port.product, "c1", now + 1).expect("followed");
        let spend = &answer.features["spend_1h"];
        assert_eq!((&spend.value, spend.version), (&serde_json::json!(5.0), Some(4)));
        assert!(answer.found && answer.watermark_ms == Some(now - 30_000));
        assert!(!FeatureStore::lookup(&online, &port.product, "nobody", now).expect("followed").found);
        let other: ProductId = "customer/other".parse().expect("a product");
        assert!(matches!(FeatureStore::lookup(&online, &other, "c1", now), Err(LookupError::NotReady(_))));
    }

    #[test]
    fn pruning_forgets_entities_whose_windows_are_over_and_changes_no_answer_of_the_present() {
        let now = 1_790_000_000_000;
        let (online, port) = filled(now);
        let values = online.port(&port).expect("followed");
        let before = values.lookup("c0", now + 1);
        values.prune();
        assert_eq!(values.lookup("c0", now + 1), before);
        // A clock that is behind is answered as of the earliest time that is kept.
        assert!(!values.lookup("c0", now - 86_400_000).is_empty());
        values.advance(Some(now + 7_200_000), None, None);
        values.prune();
        assert_eq!(values.entities(), Vec::<String>::new());
    }
}
