//! The embedded trainer: logistic regression with an L2 penalty.

use linfa::DatasetBase;
use linfa::traits::Fit as _;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};

use super::encode::Encoding;
use super::{Example, LEAST_PER_CLASS, TrainError, TrainingSet};

/// Weight of the penalty, half the squared length of the weights (the intercept is free): as much as the labels of one
/// row weigh, on terms of one scale. It is the customary default (scikit-learn's `C = 1`).
pub const L2: f64 = 1.0;

/// The solver stops when the gradient of the summed loss is shorter than this: for a thousand rows a millionth of a
/// percent of the longest possible.
const GRADIENT: f64 = 1e-5;

/// Steps of the solver; a dozen are usual on terms of one scale.
const STEPS: u64 = 500;

/// A fitted model: how features become terms, and what the terms weigh.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// Features to terms.
    pub encoding: Encoding,
    /// Per term.
    pub weights: Vec<f64>,
    /// Of a row in which every term is average.
    pub intercept: f64,
}

/// Returns the place of the first held-out row among times in order: three quarters are fitted, the newest quarter is
/// held out. Rows of one instant stay together, on the held-out side where possible. `None` when that leaves a side
/// empty.
#[must_use]
pub fn split_at(times: &[i64]) -> Option<usize> {
    let wanted = times.len() * 3 / 4;
    let boundary = *times.get(wanted)?;
    let before = times.partition_point(|time| *time < boundary);
    let after = times.partition_point(|time| *time <= boundary);
    [before, after].into_iter().find(|place| *place > 0 && *place < times.len())
}

/// Returns the place of the first row of a training set that is held out.
///
/// # Errors
/// [`TrainError::OneClass`], [`TrainError::TooFewLabels`].
pub fn held_out_from(set: &TrainingSet) -> Result<usize, TrainError> {
    let rows = &set.rows;
    let positives = |rows: &[Example]| rows.iter().filter(|row| row.positive).count();
    let all = positives(rows);
    if !rows.is_empty() && (all == 0 || all == rows.len()) {
        let value = u8::from(all > 0);
        return Err(TrainError::OneClass { column: set.manifest.label.clone(), rows: rows.len(), value });
    }
    let times: Vec<i64> = rows.iter().map(|row| row.event_ms).collect();
    let cut = split_at(&times).unwrap_or(rows.len());
    let (fit, held_out) = rows.split_at(cut);
    let (fit_positive, held_out_positive) = (positives(fit), positives(held_out));
    let counts =
        [fit_positive, fit.len() - fit_positive, held_out_positive, held_out.len() - held_out_positive];
    if counts.iter().any(|count| *count < LEAST_PER_CLASS) {
        let (fit, held_out) = (fit.len(), held_out.len());
        return Err(TrainError::TooFewLabels { fit, fit_positive, held_out, held_out_positive });
    }
    Ok(cut)
}

/// Fits a model on the older rows of a training set; the second value is the place of the first row held out.
///
/// The rows fitted, their order and the solver are all determined by the training set, so one machine gives the same
/// weights to the bit. (Machines with other vector instructions may differ in the last digits.)
///
/// # Errors
/// Those of [`held_out_from`], [`TrainError::Fit`].
pub fn fit_logistic_regression(set: &TrainingSet) -> Result<(Fitted, usize), TrainError> {
    let cut = held_out_from(set)?;
    let fit = &set.rows[..cut];
    let fills: Vec<_> = set.columns.iter().map(|column| column.fill).collect();
    let values: Vec<&[Option<f64>]> = fit.iter().map(|row| row.values.as_slice()).collect();
    let encoding = Encoding::learn(&fills, &values);
    let terms: Vec<f64> = values.iter().flat_map(|row| encoding.terms(row)).collect();
    let broken = |why: String| TrainError::Fit { why };
    let terms = Array2::from_shape_vec((fit.len(), encoding.means.len()), terms)
        .map_err(|e| broken(e.to_string()))?;
    let labels: Array1<bool> = fit.iter().map(|row| row.positive).collect();
    let model = LogisticRegression::default()
        .alpha(L2)
        .gradient_tolerance(GRADIENT)
        .max_iterations(STEPS)
        .fit(&DatasetBase::new(terms, labels))
        .map_err(|error| broken(error.to_string()))?;
    // The library calls the more frequent class positive; here it is the label 1.
    let sign = if model.labels().pos.class { 1.0 } else { -1.0 };
    let weights: Vec<f64> = model.params().iter().map(|weight| sign * weight).collect();
    let intercept = sign * model.intercept();
    if !intercept.is_finite() || weights.iter().any(|weight| !weight.is_finite()) {
        return Err(broken("the weights are not finite".to_owned()));
    }
    Ok((Fitted { encoding, weights, intercept }, cut))
}
