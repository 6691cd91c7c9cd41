//! The definition of a feature view and what follows from it: columns, steps, levels, fingerprint.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::aggregate::{AggSpec, AggSpecError, DecodeError, HASH_VERSION, STATE_FORMAT, State, StateError};
use crate::time::{Interval, Millis, Span};

use super::TileKey;

/// The steps a tail may hop by, in milliseconds: 1 s, 10 s, 1 m, 5 m, 1 h, 1 d. Each divides the next.
pub(super) const STEPS: [i64; 6] = [1_000, 10_000, 60_000, 300_000, 3_600_000, 86_400_000];

/// How far the tail of a window may be from exact, as a share of the window's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Tail {
    /// Not at all: the window is `[q - W, q)` and single milliseconds are kept.
    Exact,
    /// By at most this many millionths of the window's length.
    Error {
        /// Millionths; `1%` is 10,000.
        ppm: u32,
    },
}

/// Why a text is not a tail.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{text}` is not a tail error: expected `exact` or a percentage above 0% and up to 100%, such as `1%`"
)]
pub struct TailError {
    text: String,
}

impl FromStr for Tail {
    type Err = TailError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim() == "exact" {
            return Ok(Self::Exact);
        }
        let error = || TailError { text: text.to_owned() };
        let number = text.trim().strip_suffix('%').ok_or_else(error)?.trim();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits =
            |part: &str| !part.is_empty() && part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(error());
        }
        let ppm = format!("{whole}{fraction:0<4}").parse::<u32>().map_err(|_| error())?;
        if ppm == 0 || ppm > 1_000_000 { Err(error()) } else { Ok(Self::Error { ppm }) }
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.pad("exact"),
            Self::Error { ppm } => {
                let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
                f.pad(&format!("{}%", text.trim_end_matches('0').trim_end_matches('.')))
            }
        }
    }
}

impl TryFrom<String> for Tail {
    type Error = TailError;

    fn try_from(text: String) -> Result<Self, TailError> {
        text.parse()
    }
}

impl From<Tail> for String {
    fn from(tail: Tail) -> Self {
        tail.to_string()
    }
}

/// What can be wrong with a view, its tiles or the questions asked of them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TileError {
    /// No step is fine enough for the tail error.
    #[error(
        "a window of {window} cannot have a tail error of {tail}: the finest step is 1s; use a larger error or `exact`"
    )]
    TailTooFine {
        /// The window.
        window: Span,
        /// The wanted error.
        tail: Tail,
    },
    /// A window has no length.
    #[error("feature `{feature}` has a window of no length")]
    EmptyWindow {
        /// The feature.
        feature: String,
    },
    /// A feature has no window.
    #[error("feature `{feature}` has no window")]
    NoWindow {
        /// The feature.
        feature: String,
    },
    /// The view has no feature.
    #[error("a view needs at least one feature")]
    NoFeature,
    /// Two columns would have the same name.
    #[error("the column `{column}` is defined twice")]
    DuplicateColumn {
        /// The column.
        column: String,
    },
    /// A row does not have one value per input column.
    #[error("a row has {found} values where the view reads {expected}")]
    RowWidth {
        /// How many values it has.
        found: usize,
        /// How many input columns there are.
        expected: usize,
    },
    /// A row has an impossible event time.
    #[error("the event time {at} ms is out of range: expected a year from -271821 to 275760")]
    TimeRange {
        /// The event time.
        at: Millis,
    },
    /// A tile does not belong to the view.
    #[error("tile {start} of step {step} and feature {feature} does not belong to this view")]
    ForeignTile {
        /// Feature index of the tile.
        feature: u32,
        /// Step of the tile in milliseconds.
        step: i64,
        /// Start of the tile.
        start: Millis,
    },
    /// The tiles for this time were given up.
    #[error("tiles needed to answer for {at} were given up: nothing before {horizon} can be answered")]
    BeforeHorizon {
        /// The time asked for.
        at: Millis,
        /// The earliest time that can be answered.
        horizon: Millis,
    },
    /// Stored tiles were made by another definition.
    #[error("the stored tiles have fingerprint {found}, the view has {expected}")]
    OtherDefinition {
        /// Fingerprint in the stored bytes.
        found: String,
        /// Fingerprint of the view.
        expected: String,
    },
    /// An aggregate could not be read.
    #[error(transparent)]
    Aggregate(#[from] AggSpecError),
    /// A value or state does not fit its aggregate.
    #[error(transparent)]
    State(#[from] StateError),
    /// Stored bytes are damaged.
    #[error("the stored tiles are damaged")]
    Damaged(#[from] DecodeError),
}

/// Returns the largest step h, in milliseconds, with h / W at most the tail error; 1 for an exact tail.
///
/// # Errors
/// [`TileError::TailTooFine`] when even 1 s is too coarse.
pub fn choose_step(window: Span, tail: Tail) -> Result<i64, TileError> {
    let Tail::Error { ppm } = tail else {
        return Ok(1);
    };
    let allowed = i128::from(window.millis()) * i128::from(ppm);
    STEPS
        .into_iter()
        .rev()
        .find(|step| i128::from(*step) * 1_000_000 <= allowed)
        .ok_or(TileError::TailTooFine { window, tail })
}

/// Instants beyond 100 million days from 1970 (the years -271821 to 275760) are not times of events but mistakes;
/// refusing them keeps all tile arithmetic free of overflow.
pub(super) const LATEST: Millis = 8_640_000_000_000_000;

/// One feature as declared: an aggregate over one or more windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSpec {
    /// The name, first part of its columns.
    pub name: String,
    /// What is computed.
    pub agg: AggSpec,
    /// Over how long.
    pub windows: Vec<Span>,
    /// How exactly.
    pub tail: Tail,
}

/// One output column: a feature over one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// `feature_window`, such as `spend_7d`.
    pub name: String,
    /// Index into [`ViewSpec::features`].
    pub feature: usize,
    /// The length W.
    pub window: Span,
    /// The tail step h in milliseconds.
    pub step: i64,
}

impl Column {
    /// Returns the window seen at `at`: `[floor((at - W) / h) * h, at)`.
    pub fn window_at(&self, at: Millis) -> Interval {
        let at = at.clamp(-LATEST, LATEST);
        let from = (at - self.window.millis().min(LATEST)).div_euclid(self.step) * self.step;
        Interval::new(from, at)
    }
}

/// A checked feature view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<FeatureSpec>", into = "Vec<FeatureSpec>")]
pub struct ViewSpec {
    features: Vec<FeatureSpec>,
    columns: Vec<Column>,
    inputs: Vec<String>,
    arguments: Vec<Option<usize>>,
    levels: Vec<i64>,
}

impl ViewSpec {
    /// Returns the view of these features, in their order.
    ///
    /// # Errors
    /// See [`TileError`]: no feature, no window, an empty window, a duplicate column, a tail that is too fine.
    pub fn new(features: Vec<FeatureSpec>) -> Result<Self, TileError> {
        let mut columns: Vec<Column> = Vec::new();
        let mut inputs: Vec<String> = Vec::new();
        let mut arguments = Vec::new();
        for (index, feature) in features.iter().enumerate() {
            if feature.windows.is_empty() {
                return Err(TileError::NoWindow { feature: feature.name.clone() });
            }
            for window in &feature.windows {
                if window.is_zero() {
                    return Err(TileError::EmptyWindow { feature: feature.name.clone() });
                }
                let name = format!("{}_{window}", feature.name);
                if columns.iter().any(|column| column.name == name) {
                    return Err(TileError::DuplicateColumn { column: name });
                }
                let step = choose_step(*window, feature.tail)?;
                columns.push(Column { name, feature: index, window: *window, step });
            }
            arguments.push(feature.agg.column().map(|column| {
                inputs.iter().position(|input| input == column).unwrap_or_else(|| {
                    inputs.push(column.to_owned());
                    inputs.len() - 1
                })
            }));
        }
        let base = columns.iter().map(|column| column.step).min().ok_or(TileError::NoFeature)?;
        let widest =
            columns.iter().map(|column| column.window.millis().max(column.step)).max().unwrap_or(base);
        let levels = std::iter::once(1)
            .chain(STEPS)
            .filter(|step| *step == base || (*step > base && *step <= widest))
            .collect();
        Ok(Self { features, columns, inputs, arguments, levels })
    }

    /// Returns the features as declared.
    pub fn features(&self) -> &[FeatureSpec] {
        &self.features
    }

    /// Returns the output columns, in order of declaration.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Returns the source columns the view reads, each once; rows carry their values in this order.
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// Returns the step of the tiles that are stored: the smallest any column needs, in milliseconds.
    pub fn base_step(&self) -> i64 {
        self.levels[0]
    }

    /// Returns the steps of all tile levels, finest first; each divides the next.
    pub fn levels(&self) -> &[i64] {
        &self.levels
    }

    /// Returns a hash of everything that decides an answer, hexadecimal; equal only for interchangeable tiles.
    pub fn fingerprint(&self) -> String {
        let mut text = format!("hydromesh feature view 1, hash {HASH_VERSION}, state {STATE_FORMAT}\n");
        for column in &self.columns {
            let feature = &self.features[column.feature];
            text += &format!(
                "{}\t{}\t{}\t{}\t{}\n",
                column.feature,
                feature.agg,
                column.name,
                column.window.millis(),
                column.step
            );
        }
        format!("{:x}", Sha256::digest(text.as_bytes()))
    }

    /// Returns the border of base tiles at or after an instant.
    pub(super) fn border_after(&self, at: Millis) -> Millis {
        let at = at.clamp(-LATEST, LATEST);
        at + (-at).rem_euclid(self.base_step())
    }

    /// Returns the border of base tiles at or before an instant.
    pub(super) fn border_before(&self, at: Millis) -> Millis {
        let at = at.clamp(-LATEST, LATEST);
        at - at.rem_euclid(self.base_step())
    }

    /// Returns the feature index of a tile of this view.
    pub(super) fn check_tile(&self, key: &TileKey) -> Result<usize, TileError> {
        let (step, start) = (key.step, key.start);
        usize::try_from(key.feature)
            .ok()
            .filter(|feature| *feature < self.features.len())
            .filter(|_| step == self.base_step() && start.rem_euclid(step) == 0)
            .filter(|_| (-LATEST - step..=LATEST).contains(&start))
            .ok_or(TileError::ForeignTile { feature: key.feature, step, start })
    }

    /// Returns the index of a feature's argument among the inputs, none for `count()`.
    pub(super) fn argument(&self, feature: usize) -> Option<usize> {
        self.arguments[feature]
    }

    pub(super) fn empty_state(&self, feature: usize) -> State {
        State::init(&self.features[feature].agg)
    }

    /// Returns the tile runs `(level index, from, to)` that together make `[from, to)`, fewest tiles first.
    ///
    /// Both ends must be multiples of the base step.
    pub(super) fn runs(&self, from: Millis, to: Millis) -> Vec<(usize, Millis, Millis)> {
        let mut runs = Vec::new();
        let mut open = vec![(from, to)];
        for (level, step) in self.levels.iter().enumerate().rev() {
            let mut finer = Vec::new();
            for (from, to) in open {
                let first = from + (-from).rem_euclid(*step);
                let last = to - to.rem_euclid(*step);
                if first < last {
                    runs.push((level, first, last));
                    finer.extend([(from, first), (last, to)].into_iter().filter(|(from, to)| from < to));
                } else if from < to {
                    finer.push((from, to));
                }
            }
            open = finer;
        }
        runs
    }
}

impl TryFrom<Vec<FeatureSpec>> for ViewSpec {
    type Error = TileError;

    fn try_from(features: Vec<FeatureSpec>) -> Result<Self, Self::Error> {
        Self::new(features)
    }
}

impl From<ViewSpec> for Vec<FeatureSpec> {
    fn from(view: ViewSpec) -> Self {
        view.features
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "windows of a few weeks in milliseconds")]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn feature(name: &str, agg: &str, windows: &[&str], tail: &str) -> FeatureSpec {
        FeatureSpec {
            name: name.to_owned(),
            agg: agg.parse().unwrap(),
            windows: windows.iter().map(|window| window.parse().unwrap()).collect(),
            tail: tail.parse().unwrap(),
        }
    }

    /// Every aggregate, with windows on every level.
    pub(crate) fn activity() -> ViewSpec {
        ViewSpec::new(vec![
            feature("sessions", "approx_distinct(session_id)", &["1h"], "1%"),
            feature("spend", "sum(amount)", &["10m", "1h", "7d"], "1%"),
            feature("mean", "avg(amount)", &["1h"], "5%"),
            feature("events", "count()", &["5s", "1d"], "50%"),
            feature("low", "min(amount)", &["90d"], "2%"),
            feature("high", "max(amount)", &["10m"], "1%"),
            feature("latest", "last(session_id)", &["2d"], "1%"),
        ])
        .unwrap()
    }

    #[test]
    fn columns_steps_and_levels() {
        let view = activity();
        let columns: Vec<String> = view
            .columns()
            .iter()
            .map(|one| format!("{}/{}", one.name, Span::from_millis(one.step)))
            .collect();
        insta::assert_snapshot!(columns.join(" "), @"sessions_1h/10s spend_10m/1s spend_1h/10s spend_7d/1h mean_1h/1m events_5s/1s events_1d/1h low_90d/1d high_10m/1s latest_2d/5m");
        assert_eq!(view.inputs(), ["session_id", "amount"]);
        assert_eq!(view.levels(), STEPS);
        assert_eq!(view.base_step(), 1_000);
    }

    #[test]
    fn the_tail_error_bounds_the_step() {
        let step = |window: &str, tail: &str| choose_step(window.parse().unwrap(), tail.parse().unwrap());
        assert_eq!(step("100s", "1%").unwrap(), 1_000, "exactly at the bound");
        assert_eq!(
            step("99s", "1%").unwrap_err(),
            TileError::TailTooFine { window: "99s".parse().unwrap(), tail: Tail::Error { ppm: 10_000 } }
        );
        assert_eq!(step("100d", "1%").unwrap(), 86_400_000);
        assert_eq!(step("7ms", "exact").unwrap(), 1);
    }

    #[test]
    fn tails_read_and_print() {
        for text in ["exact", "1%", "0.5%", "0.0001%", "12.25%", "100%"] {
            assert_eq!(text.parse::<Tail>().unwrap().to_string(), text);
        }
        for text in ["", "1", "0%", "101%", "-1%", "1.00001%", "%", "1.%", "1e1%"] {
            assert!(text.parse::<Tail>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_window_is_a_sawtooth() {
        let view = ViewSpec::new(vec![feature("spend", "sum(amount)", &["10m"], "10%")]).unwrap();
        let column = &view.columns()[0];
        assert_eq!(column.step, 60_000);
        assert_eq!(column.window_at(600_000), Interval::new(0, 600_000));
        assert_eq!(column.window_at(659_999), Interval::new(0, 659_999));
        assert_eq!(column.window_at(660_000), Interval::new(60_000, 660_000));
        assert_eq!(column.window_at(1), Interval::new(-600_000, 1));
    }

    #[test]
    fn wrong_views_are_refused() {
        let error = |features| ViewSpec::new(features).unwrap_err();
        assert_eq!(error(vec![]), TileError::NoFeature);
        assert!(matches!(error(vec![feature("a", "count()", &[], "1%")]), TileError::NoWindow { .. }));
        assert!(matches!(
            error(vec![feature("a", "count()", &["0s"], "exact")]),
            TileError::EmptyWindow { .. }
        ));
        assert!(matches!(
            error(vec![feature("a", "count()", &["1h", "1h"], "1%")]),
            TileError::DuplicateColumn { .. }
        ));
    }

    #[test]
    fn the_fingerprint_follows_meaning() {
        let view =
            |name: &str, tail: &str| ViewSpec::new(vec![feature(name, "sum(x)", &["1h"], tail)]).unwrap();
        insta::assert_snapshot!(view("a", "1%").fingerprint(), @"442a545f9721d6405e9c019d60f8f8766baa8f45523415d914f94817459864ab");
        assert_eq!(view("a", "1%").fingerprint(), view("a", "1.5%").fingerprint(), "both hop by 10 s");
        assert_ne!(view("a", "1%").fingerprint(), view("a", "2%").fingerprint());
        assert_ne!(view("a", "1%").fingerprint(), view("b", "1%").fingerprint());
        let json = serde_json::to_string(&activity()).unwrap();
        assert_eq!(serde_json::from_str::<ViewSpec>(&json).unwrap(), activity());
    }

    proptest! {
        #[test]
        fn the_chosen_step_is_the_largest_allowed(window in 1_i64..4_000_000_000, ppm in 1_u32..=1_000_000) {
            let fits = |step: i64| step as f64 / window as f64 <= f64::from(ppm) / 1e6 * (1.0 + 1e-12);
            match choose_step(Span::from_millis(window), Tail::Error { ppm }) {
                Ok(step) => {
                    prop_assert!(fits(step));
                    prop_assert!(STEPS.into_iter().filter(|larger| *larger > step).all(|larger|
                        larger as f64 / window as f64 > f64::from(ppm) / 1e6 * (1.0 - 1e-12)));
                }
                Err(_) => prop_assert!(!fits(999) || !fits(1_000) || f64::from(ppm) * window as f64 / 1e6 <= 1_000.001),
            }
        }

        #[test]
        fn runs_tile_the_range_with_few_tiles(from in -200_000_i64..200_000, seconds in 0_i64..700_000) {
            let view = activity();
            let (from, to) = (from * 1_000, (from + seconds) * 1_000);
            let mut runs = view.runs(from, to);
            runs.sort_by_key(|(_, from, _)| *from);
            let mut at = from;
            let mut tiles = 0;
            for (level, first, last) in runs {
                let step = view.levels()[level];
                prop_assert_eq!(first, at);
                prop_assert!(first % step == 0 && last % step == 0 && first < last);
                tiles += (last - first) / step;
                at = last;
            }
            prop_assert_eq!(at, to);
            // Two ragged ends of at most 9 + 5 + 4 + 11 + 23 tiles, and whole days between.
            prop_assert!(tiles <= 2 * 52 + seconds / 86_400);
        }
    }
}
