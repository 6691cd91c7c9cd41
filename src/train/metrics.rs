//! How good the scores of a two-class model are.

use std::collections::BTreeMap;

/// Equally wide bins of the calibration error.
const BINS: usize = 10;

/// Scores are kept this far from 0 and 1 in the log loss, so that one certain mistake does not make it infinite.
const CERTAIN: f64 = 1e-15;

/// What a model was measured at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measures {
    /// Area under the curve, see [`auc`].
    pub auc: f64,
    /// Mean negative log likelihood, natural logarithm.
    pub log_loss: f64,
    /// Mean squared distance of score and label.
    pub brier: f64,
    /// Expected calibration error: the distance of mean score and share of positives per bin of the score, weighted
    /// by the bin's rows, over ten equally wide bins (Naeini et al. 2015).
    pub calibration_error: f64,
    /// Share of positive labels.
    pub positive_rate: f64,
}

impl Measures {
    /// Returns the measures by name.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<String, f64> {
        [
            ("auc", self.auc),
            ("brier", self.brier),
            ("calibration_error", self.calibration_error),
            ("log_loss", self.log_loss),
            ("positive_rate", self.positive_rate),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

/// Returns the probability that a random positive scores above a random negative, ties counted half (the statistic of
/// Mann and Whitney over the number of pairs); `None` when a class is absent.
///
/// Pairs are counted in whole numbers, so the answer is the exact ratio rounded once, whatever the order of rows.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "a ratio rounded once; ties are equal scores"
)]
pub fn auc(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let mut rows: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    rows.sort_by(|left, right| left.0.total_cmp(&right.0));
    // Twice the won pairs: a tie is worth one.
    let (mut won, mut negatives, mut positives) = (0_u128, 0_u128, 0_u128);
    for tied in rows.chunk_by(|left, right| left.0 == right.0) {
        let here = tied.iter().filter(|row| row.1).count() as u128;
        let others = tied.len() as u128 - here;
        won += here * (2 * negatives + others);
        positives += here;
        negatives += others;
    }
    (positives > 0 && negatives > 0).then(|| won as f64 / (2 * positives * negatives) as f64)
}

/// Returns all measures of scores between 0 and 1, or `None` when a class is absent.
#[must_use]
pub fn measure(scores: &[f64], labels: &[bool]) -> Option<Measures> {
    let auc = auc(scores, labels)?;
    #[expect(clippy::cast_precision_loss, reason = "rows that lie in memory")]
    let rows = labels.len() as f64;
    let (mut log_loss, mut brier, mut positives) = (0.0, 0.0, 0.0);
    let mut bins = [(0.0, 0.0); BINS];
    for (score, label) in scores.iter().zip(labels) {
        let label = if *label { 1.0 } else { 0.0 };
        let kept = score.clamp(CERTAIN, 1.0 - CERTAIN);
        log_loss -= label * kept.ln() + (1.0 - label) * (1.0 - kept).ln();
        brier += (score - label).powi(2);
        positives += label;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a score is between 0 and 1"
        )]
        let bin = &mut bins[((score * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + score, bin.1 + label);
    }
    // Rows cancel: |mean score - share of positives| times the share of rows is the distance of sums over all rows.
    let calibration_error =
        bins.iter().map(|(scored, positive)| (scored - positive).abs()).sum::<f64>() / rows;
    Some(Measures {
        auc,
        log_loss: log_loss / rows,
        brier: brier / rows,
        calibration_error,
        positive_rate: positives / rows,
    })
}
