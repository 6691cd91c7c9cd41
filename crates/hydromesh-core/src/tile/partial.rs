//! The partial kernel: rows into additive tile deltas.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::spec::LATEST;
use super::{TileError, ViewSpec};
use crate::aggregate::{Order, State, Value};
use crate::time::Millis;

/// One source row of a view, its expressions already evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The entity it belongs to.
    pub entity: String,
    /// Event time and place in the source.
    pub order: Order,
    /// When it became knowable, in milliseconds UTC.
    pub available_ms: Millis,
    /// One value per [`ViewSpec::inputs`].
    pub values: Vec<Value>,
}

/// Names one tile of one feature of one entity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TileKey {
    /// The entity.
    pub entity: String,
    /// Index into [`ViewSpec::features`].
    pub feature: u32,
    /// The length of the tile in milliseconds.
    pub step: i64,
    /// The first instant of the tile, a multiple of the step.
    pub start: Millis,
}

/// What some rows add to a tile. Deltas of a tile are additive: a correction or a late row is one more delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TileDelta {
    /// Which tile.
    pub key: TileKey,
    /// What is added.
    pub state: State,
}

/// Returns what the rows add to the base tiles of the view, sorted by key; row order does not matter.
///
/// Rows that became knowable at different times must be passed apart if knowledge time is to be told apart.
///
/// # Errors
/// [`TileError::RowWidth`] and [`TileError::State`] on the first row that does not fit the view.
pub fn partial<'a>(
    view: &ViewSpec,
    rows: impl IntoIterator<Item = &'a Row>,
) -> Result<Vec<TileDelta>, TileError> {
    let step = view.base_step();
    let mut tiles: BTreeMap<(&str, u32, Millis), State> = BTreeMap::new();
    for row in rows {
        check_row(view, row)?;
        let start = row.order.event_ms.div_euclid(step) * step;
        for (feature, index) in (0..view.features().len()).zip(0_u32..) {
            tiles
                .entry((row.entity.as_str(), index, start))
                .or_insert_with(|| view.empty_state(feature))
                .add(argument(view, feature, row), row.order)?;
        }
    }
    Ok(tiles
        .into_iter()
        .filter(|(_, state)| !state.is_empty())
        .map(|((entity, feature, start), state)| TileDelta {
            key: TileKey { entity: entity.to_owned(), feature, step, start },
            state,
        })
        .collect())
}

pub(super) fn check_row(view: &ViewSpec, row: &Row) -> Result<(), TileError> {
    let at = row.order.event_ms;
    if !(-LATEST..=LATEST).contains(&at) {
        return Err(TileError::TimeRange { at });
    }
    let (found, expected) = (row.values.len(), view.inputs().len());
    if found == expected { Ok(()) } else { Err(TileError::RowWidth { found, expected }) }
}

/// Returns what a feature's aggregate is applied to; `count()` looks at no column.
pub(super) fn argument<'a>(view: &ViewSpec, feature: usize, row: &'a Row) -> &'a Value {
    view.argument(feature).map_or(&Value::Null, |input| &row.values[input])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tile::spec::tests::activity;
    use proptest::prelude::*;

    /// The newest instant rows of the tests have.
    pub(crate) const NOW: Millis = 1_790_000_000_000;

    /// Rows of three entities, most of them recent, at distances that matter to windows from seconds to weeks.
    pub(crate) fn rows(most: usize) -> impl Strategy<Value = Vec<Row>> {
        let age = prop_oneof![
            2 => 0_i64..8_000,
            3 => 0_i64..4_000_000,
            2 => 0_i64..800_000_000,
            1 => 0_i64..9_000_000_000,
            1 => (0_i64..200).prop_map(|steps| steps * 3_600_000),
        ];
        let amount = prop_oneof![
            4 => (-1e4_f64..1e4).prop_map(Value::Float),
            1 => any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Value::Float),
            1 => Just(Value::Null),
        ];
        let session = prop_oneof![4 => "[a-d]{1,2}".prop_map(Value::Str), 1 => Just(Value::Null)];
        let late = prop_oneof![2 => Just(0_i64), 1 => 0_i64..1_000_000_000];
        prop::collection::vec((age, amount, session, 0_u8..3, late), 0..most).prop_map(|rows| {
            rows.into_iter()
                .zip(0..)
                .map(|((age, amount, session, entity, late), offset)| Row {
                    entity: format!("customer-{entity}"),
                    order: Order { event_ms: NOW - age, partition: i32::from(entity), offset },
                    available_ms: NOW - age + late,
                    values: vec![session, amount],
                })
                .collect()
        })
    }

    /// The definition itself: add the rows of the window one by one.
    pub(crate) fn brute_force(
        view: &ViewSpec,
        rows: &[Row],
        entity: &str,
        at: Millis,
        known: Millis,
    ) -> Vec<Value> {
        view.columns()
            .iter()
            .map(|column| {
                let mut state = view.empty_state(column.feature);
                let window = column.window_at(at);
                for row in rows {
                    let counts = row.entity == entity
                        && window.contains(row.order.event_ms)
                        && row.available_ms <= known;
                    if counts {
                        state.add(argument(view, column.feature, row), row.order).unwrap();
                    }
                }
                state.finalize()
            })
            .collect()
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        let view = activity();
        let mut row =
            Row { entity: "a".into(), order: Order::default(), available_ms: 0, values: vec![Value::Null] };
        assert_eq!(partial(&view, [&row]).unwrap_err(), TileError::RowWidth { found: 1, expected: 2 });
        row.values = vec![Value::Null, Value::Str("12".into())];
        assert!(matches!(partial(&view, [&row]), Err(TileError::State(_))));
        row.order.event_ms = Millis::MIN;
        assert_eq!(partial(&view, [&row]).unwrap_err(), TileError::TimeRange { at: Millis::MIN });
    }

    proptest! {
        #[test]
        fn row_order_does_not_show(rows in rows(30)) {
            let view = activity();
            let forward = partial(&view, &rows).unwrap();
            let backward = partial(&view, rows.iter().rev()).unwrap();
            prop_assert_eq!(serde_json::to_string(&forward).unwrap(), serde_json::to_string(&backward).unwrap());
            prop_assert!(forward.windows(2).all(|pair| pair[0].key < pair[1].key));
        }
    }
}
