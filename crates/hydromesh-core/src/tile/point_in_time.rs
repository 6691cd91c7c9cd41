//! Point-in-time joins: the exact value of every column at each spine row, as known then.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::partial::{argument, check_row};
use super::{Row, TileError, ViewSpec};
use crate::aggregate::{State, Value};
use crate::time::Millis;

/// One question of a training set: the features of an entity at an event time, as known at another time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpineRow {
    /// The entity.
    pub entity: String,
    /// Rows before this time count; one at exactly this time does not.
    pub event_ms: Millis,
    /// Rows that became knowable at or before this time count.
    pub known_ms: Millis,
}

/// Rows per leaf of the merge tree: below it, adding rows is as fast as merging states.
const LEAF: usize = 16;

/// Returns, per spine row and in its order, the value of every column of the view.
///
/// The window is the sawtooth at exactly the spine row's time, its head not rounded to any tile. Works one
/// entity at a time: the rows are sorted by event time and summarised in a binary tree of merged states with the
/// range of their availability, so a question costs O(log n) merges, plus the rows in those leaves whose
/// availability straddles the asked knowledge. Neither rows nor spine need to be sorted.
///
/// # Errors
/// [`TileError::RowWidth`] and [`TileError::State`] when a row does not fit the view.
pub fn point_in_time(
    view: &ViewSpec,
    rows: &[Row],
    spine: &[SpineRow],
) -> Result<Vec<Vec<Value>>, TileError> {
    let mut questions: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, question) in spine.iter().enumerate() {
        questions.entry(&question.entity).or_default().push(index);
    }
    let mut by_entity: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        check_row(view, row)?;
        if questions.contains_key(row.entity.as_str()) {
            by_entity.entry(&row.entity).or_default().push(row);
        }
    }
    let mut answers = vec![Vec::new(); spine.len()];
    for (entity, indexes) in questions {
        let mut rows = by_entity.remove(entity).unwrap_or_default();
        rows.sort_by_key(|row| row.order);
        let trees = (0..view.features().len())
            .map(|feature| MergeTree::build(view, feature, &rows))
            .collect::<Result<Vec<_>, _>>()?;
        for index in indexes {
            let question = &spine[index];
            for column in view.columns() {
                let window = column.window_at(question.event_ms);
                let first = rows.partition_point(|row| row.order.event_ms < window.from());
                let last = rows.partition_point(|row| row.order.event_ms < window.to());
                let mut state = view.empty_state(column.feature);
                trees[column.feature].collect(first, last, question.known_ms, &mut state)?;
                answers[index].push(state.finalize());
            }
        }
    }
    Ok(answers)
}

/// Merged states over runs of rows: level 0 holds runs of [`LEAF`] rows, each further level pairs of runs.
struct MergeTree<'a> {
    view: &'a ViewSpec,
    feature: usize,
    rows: &'a [&'a Row],
    levels: Vec<Vec<Node>>,
}

struct Node {
    state: State,
    first_available: Millis,
    last_available: Millis,
}

impl<'a> MergeTree<'a> {
    fn build(view: &'a ViewSpec, feature: usize, rows: &'a [&'a Row]) -> Result<Self, TileError> {
        let mut leaves = Vec::with_capacity(rows.len().div_ceil(LEAF));
        for run in rows.chunks(LEAF) {
            let mut node = Node {
                state: view.empty_state(feature),
                first_available: Millis::MAX,
                last_available: Millis::MIN,
            };
            for row in run {
                node.state.add(argument(view, feature, row), row.order)?;
                node.first_available = node.first_available.min(row.available_ms);
                node.last_available = node.last_available.max(row.available_ms);
            }
            leaves.push(node);
        }
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let mut level = Vec::with_capacity(below.len().div_ceil(2));
            for pair in below.chunks(2) {
                let mut state = pair[0].state.clone();
                if let Some(right) = pair.get(1) {
                    state.merge(&right.state)?;
                }
                let availability = pair.iter().map(|node| (node.first_available, node.last_available));
                level.push(Node {
                    state,
                    first_available: availability.clone().map(|one| one.0).min().unwrap_or(Millis::MAX),
                    last_available: availability.map(|one| one.1).max().unwrap_or(Millis::MIN),
                });
            }
            levels.push(level);
        }
        Ok(Self { view, feature, rows, levels })
    }

    /// Merges into `state` the rows `first..last` that were knowable at `known`.
    fn collect(&self, first: usize, last: usize, known: Millis, state: &mut State) -> Result<(), TileError> {
        let mut open = vec![(self.levels.len() - 1, 0)];
        while let Some((level, index)) = open.pop() {
            let Some(node) = self.levels[level].get(index) else {
                continue;
            };
            let size = LEAF << level;
            let from = index * size;
            let to = (from + size).min(self.rows.len());
            if to <= first || last <= from || node.first_available > known {
                continue;
            }
            if first <= from && to <= last && node.last_available <= known {
                state.merge(&node.state)?;
            } else if level > 0 {
                open.extend([(level - 1, index * 2), (level - 1, index * 2 + 1)]);
            } else {
                for row in &self.rows[from.max(first)..to.min(last)] {
                    if row.available_ms <= known {
                        state.add(argument(self.view, self.feature, row), row.order)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::partial::tests::{NOW, brute_force, rows};
    use super::super::spec::tests::{activity, feature};
    use super::*;
    use crate::aggregate::Order;
    use proptest::prelude::*;

    fn question(entity: &str, event_ms: Millis, known_ms: Millis) -> SpineRow {
        SpineRow { entity: entity.to_owned(), event_ms, known_ms }
    }

    #[test]
    fn an_event_at_exactly_the_asked_time_does_not_count() {
        let view = ViewSpec::new(vec![feature("events", "count()", &["1m"], "exact")]).unwrap();
        let rows: Vec<Row> = [0, 1, 60_000]
            .map(|event_ms| Row {
                entity: "a".into(),
                order: Order { event_ms, ..Order::default() },
                available_ms: event_ms + 10,
                values: vec![],
            })
            .into();
        let ask = |at, known| point_in_time(&view, &rows, &[question("a", at, known)]).unwrap()[0][0].clone();
        assert_eq!(ask(60_000, 99_999), Value::Int(2), "0 and 1, not 60,000");
        assert_eq!(ask(60_001, 99_999), Value::Int(2), "1 and 60,000: the tail passed 0");
        assert_eq!(ask(60_001, 60_009), Value::Int(1), "60,000 is known from 60,010 on");
        assert_eq!(ask(60_001, 60_010), Value::Int(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(120))]

        #[test]
        fn the_sweep_equals_the_definition(
            rows in rows(150),
            asks in prop::collection::vec((0_u8..4, 0_i64..20_000_000, -900_000_000_i64..900_000_000), 0..12),
            on_events in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let view = activity();
            let mut spine: Vec<SpineRow> = asks
                .iter()
                .map(|(entity, back, known)| question(&format!("customer-{entity}"), NOW - back, NOW + known))
                .collect();
            // The hard times are those of the events themselves.
            if !rows.is_empty() {
                for index in on_events {
                    let row = index.get(&rows);
                    spine.push(question(&row.entity, row.order.event_ms, row.available_ms));
                    spine.push(question(&row.entity, row.order.event_ms + 1, row.available_ms));
                }
            }
            let answers = point_in_time(&view, &rows, &spine).unwrap();
            prop_assert_eq!(answers.len(), spine.len());
            for (ask, answer) in spine.iter().zip(&answers) {
                prop_assert_eq!(answer, &brute_force(&view, &rows, &ask.entity, ask.event_ms, ask.known_ms));
            }
            let mut shuffled = rows.clone();
            shuffled.reverse();
            prop_assert_eq!(point_in_time(&view, &shuffled, &spine).unwrap(), answers);
        }
    }
}
