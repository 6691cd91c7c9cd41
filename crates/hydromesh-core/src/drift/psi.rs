//! The population stability index with a p-value.

use super::TestResult;
use super::special::chi_square_tail;

/// Returns the inner borders of the bins: the deciles of a sorted sample, each once. Empty for an empty sample.
///
/// Quantiles are interpolated linearly between order statistics (Hyndman and Fan, type 7).
pub fn decile_edges(sorted: &[f64]) -> Vec<f64> {
    let Some(last) = sorted.len().checked_sub(1) else {
        return Vec::new();
    };
    let mut edges: Vec<f64> = (1..=9)
        .map(|decile| {
            // In whole numbers, so that a decile that falls on a value is that value.
            let (index, tenths) = (last * decile / 10, last * decile % 10);
            let low = sorted[index];
            let high = sorted[(index + 1).min(last)];
            #[expect(clippy::float_cmp, reason = "between equal values there is nothing to interpolate")]
            if tenths == 0 || low == high { low } else { low + (high - low) * (tenths as f64 / 10.0) }
        })
        .collect();
    edges.dedup();
    edges
}

/// Returns the number of values per bin: `(-inf, e1], (e1, e2], ..., (e_last, inf)`; `NaN` is left out.
pub(super) fn bin_counts(edges: &[f64], values: &[f64]) -> Vec<u64> {
    let mut counts = vec![0; edges.len() + 1];
    for value in values.iter().filter(|value| !value.is_nan()) {
        counts[edges.partition_point(|edge| edge < value)] += 1;
    }
    counts
}

/// Returns the population stability index of two binned samples with its p-value, or `None` when there is nothing to
/// compare (an empty side, fewer than two bins, or a different number of bins).
///
/// Half a count is added to every bin, so an empty one has no infinite weight. Without drift the index divided by
/// 1/n + 1/m follows a chi-square law with one degree less than there are bins, which makes the answer independent
/// of the sample size; a fixed threshold on the index would alarm on most small samples. The effect is the index
/// less what chance explains on average, (bins - 1)(1/n + 1/m).
pub fn psi_calibrated(reference: &[u64], current: &[u64]) -> Option<TestResult> {
    let (n, m) = (reference.iter().sum::<u64>(), current.iter().sum::<u64>());
    let bins = reference.len();
    if n == 0 || m == 0 || bins < 2 || current.len() != bins {
        return None;
    }
    let share = |count: u64, total: u64| (count as f64 + 0.5) / (total as f64 + 0.5 * bins as f64);
    let statistic: f64 = reference
        .iter()
        .zip(current)
        .map(|(before, now)| {
            let (p, q) = (share(*before, n), share(*now, m));
            (q - p) * (q / p).ln()
        })
        .sum();
    let weight = 1.0 / n as f64 + 1.0 / m as f64;
    Some(TestResult {
        statistic,
        p_value: chi_square_tail(statistic / weight, bins - 1),
        effect: (statistic - (bins - 1) as f64 * weight).max(0.0),
    })
}

#[cfg(test)]
mod tests {
    use super::super::goldens::{assert_near, goldens};
    use super::*;

    #[test]
    fn agrees_with_numpy_and_scipy() {
        let cases = goldens().psi;
        assert!(cases.len() >= 12);
        for case in cases {
            let mut sorted = case.reference.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let edges = decile_edges(&sorted);
            assert_eq!(edges.len(), case.edges.len());
            for (ours, theirs) in edges.iter().zip(&case.edges) {
                assert_near(*ours, *theirs, "edge");
            }
            let result =
                psi_calibrated(&bin_counts(&edges, &case.reference), &bin_counts(&edges, &case.current))
                    .unwrap();
            assert_near(result.statistic, case.psi, "index");
            assert_near(result.p_value, case.p, "p-value");
        }
    }

    #[test]
    fn false_alarms_are_as_rare_as_declared() {
        // A fixed sequence spread like random numbers: low-discrepancy would be too even, so use a mixer.
        let mut state = 7_u64;
        let mut uniform = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        };
        for (n, m) in [(500, 100), (2000, 500)] {
            let alarms = (0..400)
                .filter(|_| {
                    let mut reference: Vec<f64> = (0..n).map(|_| uniform()).collect();
                    let current: Vec<f64> = (0..m).map(|_| uniform()).collect();
                    reference.sort_unstable_by(f64::total_cmp);
                    let edges = decile_edges(&reference);
                    psi_calibrated(&bin_counts(&edges, &reference), &bin_counts(&edges, &current))
                        .unwrap()
                        .p_value
                        <= 0.05
                })
                .count();
            // 20 expected; beyond 40 is four standard deviations.
            assert!((4..40).contains(&alarms), "{n} against {m}: {alarms} of 400");
        }
    }

    #[test]
    fn a_constant_reference_still_notices_a_change() {
        let edges = decile_edges(&[0.0; 100]);
        assert_eq!(edges, [0.0]);
        let counts = |values: &[f64]| bin_counts(&edges, values);
        let moved = psi_calibrated(&counts(&[0.0; 100]), &counts(&[1.0; 100])).unwrap();
        assert!(moved.p_value < 1e-12 && moved.effect > 1.0);
        assert_eq!(psi_calibrated(&[3], &[3]), None);
        assert_eq!(psi_calibrated(&[0, 0], &[3, 4]), None);
        assert!(decile_edges(&[]).is_empty());
    }
}
