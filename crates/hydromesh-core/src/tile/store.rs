//! Tiles of every level, ready for lookups.

use std::collections::BTreeMap;

use super::{TileDelta, TileError, ViewSpec};
use crate::aggregate::{Reader, State, Value, Writer};
use crate::time::Millis;

/// The version of the byte form of a store.
const STORE_FORMAT: u8 = 1;

/// Tiles of one entity: per level, by feature and start.
type EntityTiles = Vec<BTreeMap<(u32, Millis), State>>;

/// The tiles of a view in memory, a cache that can always be rebuilt from the tile log.
///
/// A delta is merged into its tile on every level at once. A lookup covers its window with the coarsest tiles that
/// fit, about a hundred at most where the base level alone would need hundreds of thousands. Because merging is
/// exact, the content is the same whatever the order and batching of the deltas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileStore {
    view: ViewSpec,
    entities: BTreeMap<String, EntityTiles>,
    horizon: Millis,
}

impl TileStore {
    /// Returns an empty store.
    pub const fn new(view: ViewSpec) -> Self {
        Self { view, entities: BTreeMap::new(), horizon: Millis::MIN }
    }

    /// Returns the view.
    pub const fn view(&self) -> &ViewSpec {
        &self.view
    }

    /// Returns the entities that have tiles, in order.
    pub fn entities(&self) -> impl Iterator<Item = &str> {
        self.entities.keys().map(String::as_str)
    }

    /// Returns the earliest time a lookup may ask for.
    pub const fn horizon(&self) -> Millis {
        self.horizon
    }

    /// Adds a delta of the base level. The caller makes sure that each one is applied once.
    ///
    /// # Errors
    /// [`TileError::ForeignTile`] or [`TileError::State`] when it does not belong to the view; nothing is changed.
    pub fn apply(&mut self, delta: &TileDelta) -> Result<(), TileError> {
        let key = &delta.key;
        let feature = self.view.check_tile(key)?;
        // Checked once here, so that no level is changed when another would refuse.
        self.view.empty_state(feature).merge(&delta.state)?;
        for (level, step) in self.view.levels().iter().enumerate() {
            let start = key.start.div_euclid(*step) * step;
            if self.is_given_up(level, start) {
                continue;
            }
            let tiles = self
                .entities
                .entry(key.entity.clone())
                .or_insert_with(|| vec![BTreeMap::new(); self.view.levels().len()]);
            tiles[level]
                .entry((key.feature, start))
                .or_insert_with(|| self.view.empty_state(feature))
                .merge(&delta.state)?;
        }
        Ok(())
    }

    /// Returns the value of every column for an entity at `at`; one that was never seen has empty windows.
    ///
    /// The base tile that holds `at` counts whole: right for a lookup of the present, where it has no event at or
    /// after `at` yet. Answers about history come from [`super::point_in_time`].
    ///
    /// # Errors
    /// [`TileError::BeforeHorizon`] when tiles this answer needs were given up.
    pub fn lookup(&self, entity: &str, at: Millis) -> Result<Vec<(String, Value)>, TileError> {
        if at < self.horizon {
            return Err(TileError::BeforeHorizon { at, horizon: self.horizon });
        }
        let to = self.view.border_after(at);
        let tiles = self.entities.get(entity);
        let mut answer = Vec::with_capacity(self.view.columns().len());
        for column in self.view.columns() {
            let mut state = self.view.empty_state(column.feature);
            let feature = u32::try_from(column.feature).unwrap_or(u32::MAX);
            for (level, first, last) in self.view.runs(column.window_at(at).from(), to) {
                for part in
                    tiles.iter().flat_map(|tiles| tiles[level].range((feature, first)..(feature, last)))
                {
                    state.merge(part.1)?;
                }
            }
            answer.push((column.name.clone(), state.finalize()));
        }
        Ok(answer)
    }

    /// Gives up tiles that no lookup at or after `now` needs, and refuses lookups before it from here on.
    pub fn advance(&mut self, now: Millis) {
        self.horizon = self.horizon.max(now);
        let oldest: Vec<Millis> =
            (0..self.view.levels().len()).map(|level| self.oldest_kept(level)).collect();
        let steps = self.view.levels();
        self.entities.retain(|_, tiles| {
            for (level, tiles) in tiles.iter_mut().enumerate() {
                tiles.retain(|(_, start), _| start.saturating_add(steps[level]) > oldest[level]);
            }
            tiles.iter().any(|tiles| !tiles.is_empty())
        });
    }

    /// Returns the number of tiles held, over all levels.
    pub fn len(&self) -> usize {
        self.entities.values().flatten().map(BTreeMap::len).sum()
    }

    /// Returns whether no tile is held.
    pub fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }

    fn is_given_up(&self, level: usize, start: Millis) -> bool {
        start.saturating_add(self.view.levels()[level]) <= self.oldest_kept(level)
    }

    /// Returns the instant before which a level is never read by lookups at or after the horizon.
    ///
    /// A level is read over whole windows by columns whose tail hops by its step or a finer one, and otherwise only
    /// between the last border of the next level and now.
    fn oldest_kept(&self, level: usize) -> Millis {
        let levels = self.view.levels();
        let whole_windows = self
            .view
            .columns()
            .iter()
            .filter(|column| column.step <= levels[level])
            .map(|column| column.window.millis().saturating_add(column.step))
            .max()
            .unwrap_or(0);
        let head = levels.get(level + 1).copied().unwrap_or(0);
        self.horizon.saturating_sub(whole_windows.max(head))
    }

    /// Returns the byte form of the whole store; equal stores have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(STORE_FORMAT);
        out.bytes(self.view.fingerprint().as_bytes());
        out.i64(self.horizon);
        out.count(self.entities.len());
        for (entity, levels) in &self.entities {
            out.bytes(entity.as_bytes());
            for tiles in levels {
                out.count(tiles.len());
                for ((feature, start), state) in tiles {
                    out.u32(*feature);
                    out.i64(*start);
                    state.write(&mut out);
                }
            }
        }
        out.into_bytes()
    }

    /// Returns the store the bytes hold.
    ///
    /// # Errors
    /// [`TileError::OtherDefinition`] when they were made by another definition, [`TileError::Damaged`] when they are
    /// no store at all. The caller then rebuilds from the log; there is no silent fallback.
    pub fn decode(view: ViewSpec, bytes: &[u8]) -> Result<Self, TileError> {
        use crate::aggregate::DecodeError;
        let mut input = Reader::new(bytes);
        let format = input.u8()?;
        if format != STORE_FORMAT {
            return Err(DecodeError::Format { found: format, expected: STORE_FORMAT }.into());
        }
        let (found, expected) = (input.text()?, view.fingerprint());
        if found != expected {
            return Err(TileError::OtherDefinition { found, expected });
        }
        let horizon = input.i64()?;
        let mut entities = BTreeMap::new();
        for _ in 0..input.count(4)? {
            let entity = input.text()?;
            let mut levels = Vec::with_capacity(view.levels().len());
            for _ in view.levels() {
                let mut tiles = BTreeMap::new();
                for _ in 0..input.count(14)? {
                    let (feature, start) = (input.u32()?, input.i64()?);
                    let state = State::read(&mut input)?;
                    let mut expected = usize::try_from(feature)
                        .ok()
                        .filter(|index| *index < view.features().len())
                        .map(|index| view.empty_state(index))
                        .ok_or(DecodeError::Invalid { what: "feature index" })?;
                    expected.merge(&state)?;
                    tiles.insert((feature, start), state);
                }
                levels.push(tiles);
            }
            entities.insert(entity, levels);
        }
        input.finish()?;
        Ok(Self { view, entities, horizon })
    }
}

#[cfg(test)]
mod tests {
    use super::super::partial::tests::{NOW, brute_force, rows};
    use super::super::spec::tests::{activity, feature};
    use super::super::{Row, partial};
    use super::*;
    use crate::aggregate::Order;
    use proptest::prelude::*;

    fn filled(view: &ViewSpec, rows: &[Row]) -> TileStore {
        let mut store = TileStore::new(view.clone());
        for delta in partial(view, rows).unwrap() {
            store.apply(&delta).unwrap();
        }
        store
    }

    fn values(store: &TileStore, entity: &str, at: Millis) -> Vec<Value> {
        store.lookup(entity, at).unwrap().into_iter().map(|(_, value)| value).collect()
    }

    #[test]
    fn an_unknown_entity_has_empty_windows() {
        let view = ViewSpec::new(vec![
            feature("events", "count()", &["1h"], "1%"),
            feature("spend", "sum(amount)", &["1h"], "1%"),
        ])
        .unwrap();
        let answer = TileStore::new(view).lookup("nobody", 5).unwrap();
        assert_eq!(answer, [("events_1h".to_owned(), Value::Int(0)), ("spend_1h".to_owned(), Value::Null)]);
    }

    #[test]
    fn the_ends_of_time_are_harmless() {
        let mut store = TileStore::new(activity());
        for at in [Millis::MIN, -1, 0, Millis::MAX] {
            assert_eq!(store.lookup("nobody", at).unwrap().len(), 10);
        }
        store.advance(Millis::MAX);
        assert!(store.lookup("nobody", Millis::MAX).is_ok());
    }

    #[test]
    fn tiles_of_another_view_are_refused() {
        let view = activity();
        let row = Row {
            entity: "a".into(),
            order: Order::default(),
            available_ms: 0,
            values: vec![Value::Null; 2],
        };
        let delta = partial(&view, [&row]).unwrap().remove(0);
        let other = ViewSpec::new(vec![feature("spend", "sum(amount)", &["7d"], "1%")]).unwrap();
        assert!(matches!(TileStore::new(other.clone()).apply(&delta), Err(TileError::ForeignTile { .. })));
        let bytes = filled(&view, &[row]).encode();
        assert!(matches!(TileStore::decode(other, &bytes), Err(TileError::OtherDefinition { .. })));
        for cut in 0..bytes.len() {
            assert!(TileStore::decode(view.clone(), &bytes[..cut]).is_err());
        }
    }

    #[test]
    fn a_week_at_fine_steps_reads_few_tiles() {
        let view = ViewSpec::new(vec![
            feature("spend", "sum(amount)", &["7d"], "1%"),
            feature("near", "sum(amount)", &["20m"], "1%"),
        ])
        .unwrap();
        assert_eq!(view.base_step(), 10_000);
        let column = &view.columns()[0];
        let tiles: i64 = view
            .runs(column.window_at(NOW).from(), NOW)
            .into_iter()
            .map(|(level, from, to)| (to - from) / view.levels()[level])
            .sum();
        assert!(tiles < 80, "{tiles}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn lookups_equal_the_definition(rows in rows(60), ahead in 1_i64..100_000_000) {
            let view = activity();
            let store = filled(&view, &rows);
            for entity in ["customer-0", "customer-1", "nobody"] {
                // Past every event any time is exact; inside, times on a border of the base level are.
                for at in [NOW + ahead, NOW - ahead.div_euclid(1_000) * 1_000] {
                    prop_assert_eq!(values(&store, entity, at), brute_force(&view, &rows, entity, at, Millis::MAX));
                }
            }
        }

        #[test]
        fn a_stream_with_restarts_equals_the_backfill(
            rows in rows(60),
            keys in prop::collection::vec(any::<u32>(), 60),
            batches in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let view = activity();
            let backfill = filled(&view, &rows);
            let mut arrival: Vec<(&Row, &u32)> = rows.iter().zip(&keys).collect();
            arrival.sort_by_key(|(_, key)| **key);
            let mut stream = TileStore::new(view.clone());
            let mut sizes = batches.iter().cycle();
            while !arrival.is_empty() {
                let size = (*sizes.next().unwrap()).min(arrival.len());
                let batch: Vec<Row> = arrival.drain(..size).map(|(row, _)| row.clone()).collect();
                for delta in partial(&view, &batch).unwrap() {
                    stream.apply(&delta).unwrap();
                }
                stream = TileStore::decode(view.clone(), &stream.encode()).unwrap();
            }
            prop_assert_eq!(stream.encode(), backfill.encode());
        }

        #[test]
        fn giving_up_old_tiles_changes_no_answer(rows in rows(60), split in 0_usize..60, wait in 0_i64..700_000_000) {
            let view = activity();
            let whole = filled(&view, &rows);
            let (early, late) = rows.split_at(split.min(rows.len()));
            let mut pruned = filled(&view, early);
            pruned.advance(NOW + 1);
            for delta in partial(&view, late).unwrap() {
                pruned.apply(&delta).unwrap();
            }
            pruned.advance(NOW + 1 + wait);
            prop_assert!(pruned.len() <= whole.len());
            for at in [NOW + 1 + wait, NOW + 7_777 + 3 * wait] {
                for entity in ["customer-0", "customer-1", "customer-2"] {
                    prop_assert_eq!(values(&pruned, entity, at), values(&whole, entity, at));
                }
            }
            prop_assert_eq!(
                pruned.lookup("customer-0", NOW + wait),
                Err(TileError::BeforeHorizon { at: NOW + wait, horizon: NOW + 1 + wait })
            );
        }
    }
}
