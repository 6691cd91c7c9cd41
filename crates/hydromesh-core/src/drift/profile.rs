//! What is remembered of a reference, and the comparison of new values with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::categorical::{chi_square, null_rate};
use super::ks::ks_two_sample;
use super::psi::{bin_counts, decile_edges, psi_calibrated};
use super::{DriftLimits, DriftTest, DriftVerdict};
use crate::aggregate::{Value, ValueKind};

/// The version of the stored form.
pub const PROFILE_FORMAT: u32 = 1;

/// How many values of a reference are kept. Evenly spaced order statistics are off the full distribution function by at
/// most 1 / 4,000.
pub const SAMPLE_SIZE: usize = 2_000;

/// How many categories are kept by name, the most frequent ones; the rest is counted together.
const CATEGORIES: usize = 100;

/// The name the rest is counted under; no value can be confused with it, they are prefixed.
const REST: &str = "rest";

/// A reference: bins fixed once, so that the answers of different days can be compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    format: u32,
    /// The feature.
    pub feature: String,
    /// Rows with a value.
    pub n: u64,
    /// Rows without (nulls, and `NaN`).
    pub nulls: u64,
    /// The distribution of the values.
    pub shape: Shape,
}

/// The distribution of the values of a [`Profile`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Shape {
    /// Numbers and instants.
    Numeric {
        /// Inner borders of the bins, see [`decile_edges`].
        #[serde(serialize_with = "write_floats", deserialize_with = "read_floats")]
        edges: Vec<f64>,
        /// Values per bin.
        counts: Vec<u64>,
        /// At most [`SAMPLE_SIZE`] values, sorted.
        #[serde(serialize_with = "write_floats", deserialize_with = "read_floats")]
        sample: Vec<f64>,
    },
    /// Texts and truth values.
    Categorical {
        /// Values per category; names carry the prefix `=`.
        counts: BTreeMap<String, u64>,
    },
    /// No value at all.
    Empty,
}

/// Why a profile cannot be made or used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProfileError {
    /// The values are numbers and texts at once.
    #[error("`{feature}` holds {left} and {right} values at once")]
    MixedKinds {
        /// The feature.
        feature: String,
        /// One kind.
        left: ValueKind,
        /// Another.
        right: ValueKind,
    },
    /// The profile was stored by another version.
    #[error("the profile of `{feature}` has format {found}, this build knows {PROFILE_FORMAT}")]
    Format {
        /// The feature.
        feature: String,
        /// The format found.
        found: u32,
    },
}

/// The values of one feature, nulls apart.
struct Split {
    numbers: Vec<f64>,
    categories: BTreeMap<String, u64>,
    nulls: u64,
}

impl Split {
    fn of(feature: &str, values: &[Value]) -> Result<Self, ProfileError> {
        let mut split = Self { numbers: Vec::new(), categories: BTreeMap::new(), nulls: 0 };
        let mut numeric: Option<ValueKind> = None;
        let mut categorical: Option<ValueKind> = None;
        for value in values {
            let number = match value {
                Value::Null => None,
                Value::Time(at) => Some(*at as f64),
                Value::Bool(flag) => {
                    categorical = Some(value.kind());
                    *split.categories.entry(format!("={flag}")).or_default() += 1;
                    continue;
                }
                Value::Str(text) => {
                    categorical = Some(value.kind());
                    *split.categories.entry(format!("={text}")).or_default() += 1;
                    continue;
                }
                Value::Int(_) | Value::Float(_) => value.as_f64(),
            };
            match number.filter(|number| !number.is_nan()) {
                Some(number) => {
                    numeric = Some(value.kind());
                    split.numbers.push(number);
                }
                None => split.nulls += 1,
            }
        }
        if let (Some(left), Some(right)) = (numeric, categorical) {
            return Err(ProfileError::MixedKinds { feature: feature.to_owned(), left, right });
        }
        split.numbers.sort_unstable_by(f64::total_cmp);
        Ok(split)
    }

    fn rows(&self) -> u64 {
        self.numbers.len() as u64 + self.categories.values().sum::<u64>()
    }
}

impl Profile {
    /// Returns the profile of the values of a feature; their order does not matter.
    ///
    /// # Errors
    /// [`ProfileError::MixedKinds`] when numbers and texts are mixed.
    pub fn build(feature: &str, values: &[Value]) -> Result<Self, ProfileError> {
        let split = Split::of(feature, values)?;
        let (n, nulls) = (split.rows(), split.nulls);
        let shape = if !split.numbers.is_empty() {
            let edges = decile_edges(&split.numbers);
            let counts = bin_counts(&edges, &split.numbers);
            Shape::Numeric { edges, counts, sample: thin(&split.numbers) }
        } else if !split.categories.is_empty() {
            let mut ranked: Vec<(String, u64)> = split.categories.into_iter().collect();
            ranked.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            let rest: u64 = ranked.iter().skip(CATEGORIES).map(|(_, count)| count).sum();
            ranked.truncate(CATEGORIES);
            ranked.extend((rest > 0).then(|| (REST.to_owned(), rest)));
            Shape::Categorical { counts: ranked.into_iter().collect() }
        } else {
            Shape::Empty
        };
        Ok(Self { format: PROFILE_FORMAT, feature: feature.to_owned(), n, nulls, shape })
    }
}

/// Returns at most [`SAMPLE_SIZE`] order statistics, at the middle of equal shares of the rows.
fn thin(sorted: &[f64]) -> Vec<f64> {
    if sorted.len() <= SAMPLE_SIZE {
        return sorted.to_vec();
    }
    (0..SAMPLE_SIZE).map(|place| sorted[(2 * place + 1) * sorted.len() / (2 * SAMPLE_SIZE)]).collect()
}

/// Returns the verdicts on new values of a feature: its distribution and its null rate.
///
/// # Errors
/// [`ProfileError`] when the values are of another kind than the reference or the profile of another format.
pub fn compare(
    reference: &Profile,
    current: &[Value],
    limits: &DriftLimits,
) -> Result<Vec<DriftVerdict>, ProfileError> {
    let feature = reference.feature.as_str();
    if reference.format != PROFILE_FORMAT {
        return Err(ProfileError::Format { feature: feature.to_owned(), found: reference.format });
    }
    let split = Split::of(feature, current)?;
    let (n, m) = (reference.n, split.rows());
    let mismatch = |left, right| ProfileError::MixedKinds { feature: feature.to_owned(), left, right };
    let mut verdicts = Vec::new();
    match &reference.shape {
        Shape::Numeric { edges, counts, sample } => {
            if !split.categories.is_empty() {
                return Err(mismatch(ValueKind::Float, ValueKind::Str));
            }
            let distance = ks_two_sample(sample, &split.numbers);
            let stability = psi_calibrated(counts, &bin_counts(edges, &split.numbers));
            verdicts.push(DriftVerdict::judge(feature, DriftTest::KolmogorovSmirnov, distance, n, m, limits));
            verdicts.push(DriftVerdict::judge(
                feature,
                DriftTest::PopulationStability,
                stability,
                n,
                m,
                limits,
            ));
        }
        Shape::Categorical { counts } => {
            if !split.numbers.is_empty() {
                return Err(mismatch(ValueKind::Str, ValueKind::Float));
            }
            let mut known: BTreeMap<String, u64> = BTreeMap::new();
            let pooled = counts.contains_key(REST);
            for (name, count) in split.categories {
                // A name the reference did not keep is either new or one of the rest; only without a rest it is new.
                let name = if counts.contains_key(&name) || !pooled { name } else { REST.to_owned() };
                *known.entry(name).or_default() += count;
            }
            let result = chi_square(counts, &known);
            verdicts.push(DriftVerdict::judge(feature, DriftTest::ChiSquare, result, n, m, limits));
        }
        Shape::Empty => {}
    }
    let (rows_before, rows_now) = (n + reference.nulls, m + split.nulls);
    let nulls = null_rate((reference.nulls, rows_before), (split.nulls, rows_now));
    verdicts.push(DriftVerdict::judge(feature, DriftTest::NullRate, nulls, rows_before, rows_now, limits));
    Ok(verdicts)
}

fn write_floats<S: Serializer>(floats: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(floats.iter().map(|float| crate::aggregate::float_text::text(*float)))
}

fn read_floats<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| text.parse().map_err(|_| serde::de::Error::custom(format!("`{text}` is not a number"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wave(count: u32, offset: f64) -> Vec<Value> {
        (0..count).map(|i| Value::Float(f64::from(i * 7919 % count) / f64::from(count) + offset)).collect()
    }

    fn answer(reference: &[Value], current: &[Value]) -> String {
        let profile = Profile::build("spend_7d", reference).unwrap();
        let profile: Profile = serde_json::from_str(&serde_json::to_string(&profile).unwrap()).unwrap();
        let verdicts = compare(&profile, current, &DriftLimits::default()).unwrap();
        verdicts
            .iter()
            .map(|one| {
                format!("{}: {:?} (effect {:.3}, p {:.1e})", one.test, one.verdict, one.effect, one.p_value)
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn numbers() {
        insta::assert_snapshot!(answer(&wave(5_000, 0.0), &wave(400, 0.0)), @r#"
        Kolmogorov-Smirnov: Stable (effect 0.003, p 1.0e0)
        population stability: Stable (effect 0.000, p 1.0e0)
        null rate: Stable (effect 0.000, p 1.0e0)
        "#);
        insta::assert_snapshot!(answer(&wave(5_000, 0.0), &wave(400, 0.3)), @r#"
        Kolmogorov-Smirnov: Drifted (effect 0.300, p 5.4e-27)
        population stability: Drifted (effect 1.686, p 1.4e-130)
        null rate: Stable (effect 0.000, p 1.0e0)
        "#);
        let gone: Vec<Value> = wave(400, 0.0).into_iter().chain(vec![Value::Null; 100]).collect();
        insta::assert_snapshot!(answer(&wave(5_000, 0.0), &gone), @r#"
        Kolmogorov-Smirnov: Stable (effect 0.003, p 1.0e0)
        population stability: Stable (effect 0.000, p 1.0e0)
        null rate: Drifted (effect 0.200, p 1.7e-223)
        "#);
        insta::assert_snapshot!(answer(&wave(5_000, 0.0), &wave(20, 9.0)), @r#"
        Kolmogorov-Smirnov: InsufficientData { why: "there are 20 rows, at least 50 are needed" } (effect 0.000, p 1.0e0)
        population stability: InsufficientData { why: "there are 20 rows, at least 50 are needed" } (effect 0.000, p 1.0e0)
        null rate: InsufficientData { why: "there are 20 rows, at least 50 are needed" } (effect 0.000, p 1.0e0)
        "#);
    }

    #[test]
    fn categories() {
        let pay = |card: usize, cash: usize, other: &str| -> Vec<Value> {
            let names =
                std::iter::repeat_n("card", card).chain(std::iter::repeat_n("cash", cash)).chain([other; 40]);
            names.map(|name| Value::Str(name.into())).collect()
        };
        insta::assert_snapshot!(answer(&pay(500, 300, "cheque"), &pay(250, 150, "cheque")), @r#"
        chi-square: Stable (effect 0.043, p 9.9e-3)
        null rate: Stable (effect 0.000, p 1.0e0)
        "#);
        insta::assert_snapshot!(answer(&pay(500, 300, "cheque"), &pay(150, 250, "cheque")), @r#"
        chi-square: Drifted (effect 0.254, p 4.3e-17)
        null rate: Stable (effect 0.000, p 1.0e0)
        "#);
    }

    #[test]
    fn kinds_must_agree() {
        let mixed = [Value::Int(1), Value::Str("one".into())];
        insta::assert_snapshot!(Profile::build("spend", &mixed).unwrap_err(), @"`spend` holds integer and text values at once");
        let numbers = Profile::build("spend", &mixed[..1]).unwrap();
        assert!(compare(&numbers, &mixed[1..], &DriftLimits::default()).is_err());
        let empty = Profile::build("spend", &[Value::Null]).unwrap();
        assert_eq!(compare(&empty, &mixed[1..], &DriftLimits::default()).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn a_profile_does_not_know_the_order_of_rows(numbers in prop::collection::vec(-1e3_f64..1e3, 0..3_000)) {
            let mut values: Vec<Value> = numbers.into_iter().map(Value::Float).collect();
            let straight = Profile::build("x", &values).unwrap();
            values.reverse();
            let reversed = Profile::build("x", &values).unwrap();
            prop_assert_eq!(serde_json::to_string(&straight).unwrap(), serde_json::to_string(&reversed).unwrap());
            let again: Profile = serde_json::from_str(&serde_json::to_string(&straight).unwrap()).unwrap();
            prop_assert_eq!(again, straight);
        }
    }
}
