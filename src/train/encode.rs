//! Features to numbers of one scale. Everything is learnt from the fitted part alone.

use hydromesh_core::aggregate::AggFunction;
use serde::{Deserialize, Serialize};

/// What stands for a value that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// Nothing happened, and nothing adds up to 0: counts and sums.
    Zero,
    /// The mean of the fitted part, with a term of its own that says it was missing: what has no natural zero.
    Mean,
}

impl Fill {
    /// Returns how an aggregate's missing values are filled.
    #[must_use]
    pub const fn of(function: &AggFunction) -> Self {
        match function {
            AggFunction::Count | AggFunction::Sum | AggFunction::ApproxDistinct => Self::Zero,
            _ => Self::Mean,
        }
    }
}

/// Turns features into the terms of a linear model: one per feature, then one per feature that may be missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Encoding {
    /// Per feature, what stands for a missing value.
    pub fills: Vec<f64>,
    /// Features whose absence is a term, by position.
    pub indicators: Vec<usize>,
    /// Per term, what is taken off.
    pub means: Vec<f64>,
    /// Per term, what it is then divided by; 1 for a term that does not vary.
    pub scales: Vec<f64>,
}

impl Encoding {
    /// Returns the encoding learnt from rows, of which each has one value per feature.
    #[must_use]
    pub fn learn(fills: &[Fill], rows: &[&[Option<f64>]]) -> Self {
        let present = |feature: usize| rows.iter().filter_map(move |row| row[feature]);
        let values = fills
            .iter()
            .enumerate()
            .map(|(feature, fill)| match fill {
                Fill::Zero => 0.0,
                Fill::Mean => mean(present(feature)),
            })
            .collect();
        let indicators = (0..fills.len())
            .filter(|feature| {
                let found = present(*feature).count();
                fills[*feature] == Fill::Mean && found > 0 && found < rows.len()
            })
            .collect();
        let mut encoding = Self { fills: values, indicators, means: Vec::new(), scales: Vec::new() };
        let terms = encoding.fills.len() + encoding.indicators.len();
        let raw: Vec<Vec<f64>> = rows.iter().map(|row| encoding.raw(row)).collect();
        for term in 0..terms {
            let mean = mean(raw.iter().map(|row| row[term]));
            let spread = self::mean(raw.iter().map(|row| (row[term] - mean).powi(2))).sqrt();
            encoding.means.push(mean);
            // Below this the spread is rounding error of a constant.
            let varies = spread > 1e-12 * (1.0 + mean.abs());
            encoding.scales.push(if varies { spread } else { 1.0 });
        }
        encoding
    }

    /// Returns the terms of one row of features.
    #[must_use]
    pub fn terms(&self, row: &[Option<f64>]) -> Vec<f64> {
        let raw = self.raw(row);
        raw.iter()
            .zip(self.means.iter().zip(&self.scales))
            .map(|(value, (mean, scale))| (value - mean) / scale)
            .collect()
    }

    fn raw(&self, row: &[Option<f64>]) -> Vec<f64> {
        let values = row.iter().zip(&self.fills).map(|(value, fill)| value.unwrap_or(*fill));
        let missing = self.indicators.iter().map(|feature| if row[*feature].is_none() { 1.0 } else { 0.0 });
        values.chain(missing).collect()
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}
