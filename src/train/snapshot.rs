//! The population that a model was made for, and whether today's is another one.
//!
//! The reference is not the labelled rows. Labels are rarely a fair sample: care calls follow visits, so the labelled
//! are busier than the rest, and every comparison with them would alarm from the first day. Instead the features of *all*
//! active entities are taken at instants spread over the time of the labels, by the same point-in-time join.
//!
//! Zero is counted apart. Sums and counts are 0 for everybody for whom nothing happened; with most values there, a
//! distribution of the rest could double without moving the whole far enough to show. So there are two questions: how
//! are the values of those for whom something happened distributed, and how many are they.
//!
//! Limits. The reference is a mixture over all hours and weekdays, not the same hour of the week. For windows shorter
//! than a week the share of zeros follows the clock (nobody shops at night), so it is not tested; the distribution of
//! their other values is, and can alarm where it has a strong daily rhythm of its own. Instants 31 hours apart see
//! overlapping windows, so a reference holds less information than its count of values says; the tests stay on the
//! safe side because the same entities are in both samples and a minimal effect is asked for.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::aggregate::Value;
use hydromesh_core::drift::{
    DriftLimits, DriftTest, DriftVerdict, Profile, Verdict, compare, control_false_discoveries,
};
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::FeatureDrift;
use hydromesh_core::tile::{SpineRow, point_in_time};
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::artefact::ModelFeature;
use super::set::{FeatureColumn, Source, number};

const HOUR_MS: i64 = 3_600_000;
const WEEK_MS: i64 = 168 * HOUR_MS;

/// Distance of two reference instants: 31 has no factor in common with the 168 hours of a week, so the instants visit
/// every hour of the week before they repeat one.
const INSTANTS_MS: i64 = 31 * HOUR_MS;

/// A reference reaches back this far at most: what was longer ago is not what the model is used on.
const LONGEST_MS: i64 = 8 * WEEK_MS;

/// Values of one feature looked at for a reference; beyond it every n-th entity is taken.
const MOST_VALUES: usize = 200_000;

/// Comparisons a year, one every ten minutes.
const COMPARISONS_A_YEAR: f64 = 365.25 * 24.0 * 6.0;

/// The population at training time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// First instant, milliseconds UTC.
    pub from_ms: i64,
    /// Last instant, milliseconds UTC.
    pub to_ms: i64,
    /// Instants.
    pub instants: u64,
    /// One per feature of the model; zeros are counted with the nulls.
    pub profiles: Vec<Profile>,
}

impl Reference {
    /// Returns the population of active entities between two times, of the features of a training set.
    ///
    /// # Errors
    /// [`TrainError::Tile`], [`TrainError::Profile`].
    pub fn population(
        columns: &[FeatureColumn],
        sources: &[Source],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Self, TrainError> {
        let mut reference = Self { from_ms: to_ms, to_ms, ..Self::default() };
        let mut values: BTreeMap<(&PortId, &str), Vec<Value>> = BTreeMap::new();
        for Source { port, history } in sources {
            let first_ms = history.rows.iter().map(|row| row.order.event_ms).min().unwrap_or(to_ms);
            let widest_ms =
                history.view.columns().iter().map(|column| column.window.millis()).max().unwrap_or(0);
            let earliest_ms = from_ms.max(first_ms.saturating_add(widest_ms)).max(to_ms - LONGEST_MS);
            #[expect(clippy::maybe_infinite_iter, reason = "every step is earlier, and one is too early")]
            let instants: Vec<i64> = (0..)
                .map(|step| to_ms - step * INSTANTS_MS)
                .take_while(|at| *at == to_ms || *at >= earliest_ms)
                .collect();
            reference.from_ms = reference.from_ms.min(instants.last().copied().unwrap_or(to_ms));
            reference.instants = reference.instants.max(instants.len() as u64);
            let entities: BTreeSet<&str> = history.rows.iter().map(|row| row.entity.as_str()).collect();
            let every = (entities.len() * instants.len()).div_ceil(MOST_VALUES).max(1);
            let questions: Vec<SpineRow> = entities
                .into_iter()
                .step_by(every)
                .flat_map(|entity| {
                    let ask =
                        move |at: &i64| SpineRow { entity: entity.to_owned(), event_ms: *at, known_ms: *at };
                    instants.iter().map(ask)
                })
                .collect();
            for answer in point_in_time(&history.view, &history.rows, &questions)? {
                if !is_active(&answer) {
                    continue;
                }
                for (column, value) in history.view.columns().iter().zip(answer) {
                    values.entry((port, &column.name)).or_default().push(happened(&value));
                }
            }
        }
        for column in columns {
            let values = values.remove(&(&column.port, column.column.as_str())).unwrap_or_default();
            reference.profiles.push(Profile::build(&column.name, &values)?);
        }
        Ok(reference)
    }
}

/// Returns whether anything happened to an entity in any of its windows.
fn is_active<'a>(values: impl IntoIterator<Item = &'a Value>) -> bool {
    values.into_iter().any(|value| number(value).map_or(!value.is_null(), |number| number != 0.0))
}

/// Returns the value as a number, or null for one that says that nothing happened.
fn happened(value: &Value) -> Value {
    number(value).filter(|number| *number != 0.0).map_or(Value::Null, Value::Float)
}

/// Returns the level of one comparison of all features, given the false alarms a year that are accepted.
///
/// By the union bound the expected number of false alarms a year is at most the level times the comparisons, however
/// much these have in common. At most 5 %: a looser test would not be one.
#[must_use]
pub fn drift_level(false_alarms_per_year: f64) -> f64 {
    let level = false_alarms_per_year / COMPARISONS_A_YEAR;
    // Below this a p-value says more about the arithmetic than about the data.
    if level.is_finite() { level.clamp(1e-12, 0.05) } else { 0.05 }
}

/// Returns a verdict per feature, and whether the product as a whole drifted.
///
/// `current` holds, by port, one row of named values per entity. Every feature is tested for the distribution of its
/// values (Kolmogorov-Smirnov; the effect is the share of entities that would have to change their value), and over
/// windows of a week or more for the share without value (the effect is the change of that share). Both tests of all
/// features pass Benjamini and Hochberg's procedure at `level`, which under no drift at all raises any alarm with at most
/// that probability. The told test of a feature is the one that alarms, with the smaller p-value if both do, else the
/// first.
///
/// # Errors
/// [`TrainError::Profile`] when a value is no number or the profile is from another version.
pub fn judge_features(
    features: &[ModelFeature],
    reference: &Reference,
    current: &BTreeMap<PortId, Vec<Vec<(String, Value)>>>,
    level: f64,
) -> Result<(Vec<FeatureDrift>, bool), TrainError> {
    let limits = DriftLimits { alpha: level, ..DriftLimits::default() };
    let mut verdicts: Vec<DriftVerdict> = Vec::new();
    let mut owners = Vec::new();
    for (index, (feature, profile)) in features.iter().zip(&reference.profiles).enumerate() {
        let entities = current.get(&feature.port).map(Vec::as_slice).unwrap_or_default();
        let values: Vec<Value> = entities
            .iter()
            .filter(|row| is_active(row.iter().map(|(_, value)| value)))
            .filter_map(|row| row.iter().find(|(column, _)| *column == feature.column))
            .map(|(_, value)| happened(value))
            .collect();
        let compared = compare(profile, &values, &limits)?;
        if !compared.iter().any(|one| one.test == DriftTest::KolmogorovSmirnov) {
            // A feature that was empty then is judged by its share alone, which the reader sees as no distribution.
            let present = values.iter().filter(|value| !value.is_null()).count() as u64;
            let test = DriftTest::KolmogorovSmirnov;
            verdicts.push(DriftVerdict::judge(&feature.name, test, None, profile.n, present, &limits));
            owners.push(index);
        }
        for verdict in compared {
            let kept = match verdict.test {
                DriftTest::KolmogorovSmirnov => true,
                DriftTest::NullRate => feature.window_ms >= WEEK_MS,
                _ => false,
            };
            if kept {
                verdicts.push(verdict);
                owners.push(index);
            }
        }
    }
    control_false_discoveries(&mut verdicts, level);
    let mut told: BTreeMap<usize, DriftVerdict> = BTreeMap::new();
    for (owner, verdict) in owners.into_iter().zip(verdicts) {
        let better = told.get(&owner).is_none_or(|known| {
            verdict.is_drifted() && (!known.is_drifted() || verdict.p_value < known.p_value)
        });
        if better {
            told.insert(owner, verdict);
        }
    }
    let drifted = told.values().any(DriftVerdict::is_drifted);
    Ok((told.into_values().map(fact).collect(), drifted))
}

fn fact(verdict: DriftVerdict) -> FeatureDrift {
    let answer = match verdict.verdict {
        Verdict::Drifted => "drifted",
        Verdict::Stable => "stable",
        Verdict::InsufficientData { .. } => "insufficient_data",
    };
    FeatureDrift {
        feature: verdict.feature,
        test: verdict.test.to_string(),
        statistic: verdict.statistic,
        p_value: verdict.p_value,
        effect: verdict.effect,
        verdict: answer.to_owned(),
        samples: (verdict.n_reference, verdict.n_current),
    }
}
