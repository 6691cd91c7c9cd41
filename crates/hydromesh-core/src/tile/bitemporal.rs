//! The tile log: every delta with the time it became knowable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{TileDelta, TileError, ViewSpec};
use crate::aggregate::{State, Value};
use crate::time::Millis;

/// What becomes of the base tile that reaches beyond the asked time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// It counts whole: the asked time is the present, nothing lies beyond it.
    Open,
    /// It is left out: the asked time is history and what came after it must not leak into the answer. The answer
    /// is exact where the time is a multiple of the base step and misses at most one base step otherwise.
    Closed,
}

/// Tiles by feature and start, each with its states by the time from which they were known.
type Tiles = BTreeMap<(u32, Millis), Vec<(Millis, State)>>;

/// An append-only log of tile deltas that answers "as of q, as known at k".
///
/// Corrections are more deltas, so any past answer can be given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitemporalLog {
    view: ViewSpec,
    tiles: BTreeMap<String, Tiles>,
}

impl BitemporalLog {
    /// Returns an empty log.
    pub const fn new(view: ViewSpec) -> Self {
        Self { view, tiles: BTreeMap::new() }
    }

    /// Appends a delta that became knowable at `available_at`; the order of appending does not matter.
    ///
    /// # Errors
    /// [`TileError::ForeignTile`] or [`TileError::State`] when it does not belong to the view; nothing is changed.
    pub fn append(&mut self, available_at: Millis, delta: TileDelta) -> Result<(), TileError> {
        let key = delta.key;
        let feature = self.view.check_tile(&key)?;
        self.view.empty_state(feature).merge(&delta.state)?;
        let versions = self.tiles.entry(key.entity).or_default().entry((key.feature, key.start)).or_default();
        let place = versions.partition_point(|(at, _)| *at < available_at);
        match versions.get_mut(place) {
            Some((at, state)) if *at == available_at => state.merge(&delta.state)?,
            _ => versions.insert(place, (available_at, delta.state)),
        }
        Ok(())
    }

    /// Returns the value of every column for an entity as of event time `at`, from what was known at `known`.
    ///
    /// # Errors
    /// None on a log that was filled through [`Self::append`].
    pub fn as_of(
        &self,
        entity: &str,
        at: Millis,
        known: Millis,
        head: Head,
    ) -> Result<Vec<(String, Value)>, TileError> {
        let to = match head {
            Head::Open => self.view.border_after(at),
            Head::Closed => self.view.border_before(at),
        };
        let tiles = self.tiles.get(entity);
        let mut answer = Vec::with_capacity(self.view.columns().len());
        for column in self.view.columns() {
            let mut state = self.view.empty_state(column.feature);
            let feature = u32::try_from(column.feature).unwrap_or(u32::MAX);
            let from = column.window_at(at).from();
            // A window shorter than a base step can end before it starts once its head tile is left out.
            let range = (feature, from)..(feature, to.max(from));
            for (_, versions) in tiles.iter().flat_map(|tiles| tiles.range(range.clone())) {
                for (_, part) in versions.iter().take_while(|(available, _)| *available <= known) {
                    state.merge(part)?;
                }
            }
            answer.push((column.name.clone(), state.finalize()));
        }
        Ok(answer)
    }

    /// Folds the versions of each tile that were knowable at `known` into one: answers for that time and later stay,
    /// earlier knowledge can no longer be told apart.
    ///
    /// # Errors
    ///
    /// When two versions do not merge, because they were not made by the same function.
    pub fn compact(&mut self, known: Millis) -> Result<(), TileError> {
        for versions in self.tiles.values_mut().flat_map(BTreeMap::values_mut) {
            let count = versions.partition_point(|(available, _)| *available <= known);
            if count < 2 {
                continue;
            }
            let mut folded = versions.drain(..count);
            if let Some((mut latest, mut state)) = folded.next() {
                for (available, part) in folded {
                    latest = available;
                    state.merge(&part)?;
                }
                versions.insert(0, (latest, state));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::partial::tests::{NOW, brute_force, rows};
    use super::super::spec::tests::activity;
    use super::super::{Row, partial};
    use super::*;
    use proptest::prelude::*;

    fn log(rows: &[Row]) -> BitemporalLog {
        let view = activity();
        let mut log = BitemporalLog::new(view.clone());
        for row in rows {
            for delta in partial(&view, [row]).unwrap() {
                log.append(row.available_ms, delta).unwrap();
            }
        }
        log
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn any_past_knowledge_can_be_asked_again(
            rows in rows(50),
            back in 0_i64..8_000_000,
            known in -1_000_000_000_i64..1_000_000_000,
            just_known in any::<prop::sample::Index>(),
            exactly in any::<bool>(),
        ) {
            let view = activity();
            let mut log = log(&rows);
            let mut reversed = rows.clone();
            reversed.reverse();
            prop_assert_eq!(&super::tests::log(&reversed), &log);
            let border_case = exactly && !rows.is_empty();
            let known = if border_case { just_known.get(&rows).available_ms } else { NOW + known };
            // Half of the questions are about the present, where most rows lie.
            let border = if exactly { NOW + 1_000 } else { NOW - back * 1_000 };
            let border = border - border.rem_euclid(1_000);
            for _ in 0..2 {
                for entity in ["customer-0", "customer-1"] {
                    let answer = |at, head| -> Vec<Value> {
                        log.as_of(entity, at, known, head).unwrap().into_iter().map(|(_, value)| value).collect()
                    };
                    let expected = brute_force(&view, &rows, entity, border, known);
                    prop_assert_eq!(answer(border, Head::Closed), expected.clone());
                    prop_assert_eq!(answer(border, Head::Open), expected);
                    // Off the border nothing at or after the asked time may count.
                    let before: Vec<Row> = rows.iter().filter(|row| row.order.event_ms < border).cloned().collect();
                    prop_assert_eq!(
                        answer(border + 999, Head::Closed),
                        brute_force(&view, &before, entity, border + 999, known)
                    );
                }
                log.compact(known).unwrap();
            }
        }
    }
}
