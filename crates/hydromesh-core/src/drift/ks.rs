//! The two-sample Kolmogorov-Smirnov test.

use super::TestResult;
use super::special::kolmogorov_tail;

/// Up to this many pairs of values the p-value is exact; the recursion visits each pair once.
const EXACT_PAIRS: u64 = 1_000_000;

/// Returns the test of two samples, or `None` when one is empty; `NaN` is left out.
///
/// Statistic and effect are the largest distance of the two distribution functions. The p-value is exact for up to a
/// million pairs (with ties it is an upper bound), beyond it is the limit law at `sqrt(nm / (n + m)) * D`.
pub fn ks_two_sample(a: &[f64], b: &[f64]) -> Option<TestResult> {
    let (a, b) = (sorted(a), sorted(b));
    let (n, m) = (u64::try_from(a.len()).ok()?, u64::try_from(b.len()).ok()?);
    if n == 0 || m == 0 {
        return None;
    }
    let steps = distance(&a, &b);
    let statistic = steps as f64 / (n as f64 * m as f64);
    let p_value = if n * m <= EXACT_PAIRS { exact_tail(n, m, steps) } else { limit_tail(n, m, statistic) };
    Some(TestResult { statistic, p_value, effect: statistic })
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// Returns the largest distance in units of 1 / (n m), as an integer so that equal distances compare equal.
#[expect(clippy::many_single_char_names, reason = "the letters of the literature")]
fn distance(a: &[f64], b: &[f64]) -> u64 {
    let (n, m) = (a.len() as u64, b.len() as u64);
    let (mut i, mut j, mut largest) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        let value = a[i].min(b[j]);
        while i < a.len() && a[i] <= value {
            i += 1;
        }
        while j < b.len() && b[j] <= value {
            j += 1;
        }
        largest = largest.max((i as u64 * m).abs_diff(j as u64 * n));
    }
    largest
}

fn limit_tail(n: u64, m: u64, statistic: f64) -> f64 {
    let (n, m) = (n as f64, m as f64);
    kolmogorov_tail((n * m / (n + m)).sqrt() * statistic)
}

/// Returns the probability that a random interleaving of n and m values is somewhere at least `steps` apart.
///
/// An interleaving is a lattice path from (0, 0) to (n, m). Of the paths to (i, j) the share i / (i + j) comes from
/// (i - 1, j); following the share that has left the band keeps small probabilities accurate.
#[expect(clippy::cast_possible_truncation, reason = "`j` counts values that lie in memory")]
fn exact_tail(n: u64, m: u64, steps: u64) -> f64 {
    let outside = |i: u64, j: u64| (i * m).abs_diff(j * n) >= steps;
    let mut column: Vec<f64> = Vec::new();
    for i in 0..=n {
        let mut before = 0.0;
        for j in 0..=m {
            let left = column.get(j as usize).copied().unwrap_or(0.0);
            let share = if outside(i, j) {
                1.0
            } else if i + j == 0 {
                0.0
            } else {
                (i as f64 * left + j as f64 * before) / (i + j) as f64
            };
            match column.get_mut(j as usize) {
                Some(place) => *place = share,
                None => column.push(share),
            }
            before = share;
        }
    }
    column.last().copied().unwrap_or(1.0).clamp(0.0, 1.0)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "counted in whole steps, so exactly the same")]
mod tests {
    use super::super::goldens::{assert_near, goldens};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn agrees_with_scipy() {
        let cases = goldens().ks;
        assert!(cases.len() > 20);
        for case in cases {
            let (n, m) = (case.a.len() as u64, case.b.len() as u64);
            let ours = ks_two_sample(&case.a, &case.b).unwrap();
            let what = format!("{n} against {m}");
            assert_near(ours.statistic, case.statistic, &what);
            assert_near(ours.p_value, case.exact, &what);
            assert_near(limit_tail(n, m, ours.statistic), case.limit, &what);
        }
    }

    #[test]
    fn the_exact_and_the_limit_law_meet() {
        let a: Vec<f64> = (0..1000).map(f64::from).collect();
        let b: Vec<f64> = (0..1000).map(|value| f64::from(value) + 55.0).collect();
        let exact = ks_two_sample(&a, &b).unwrap();
        let limit = limit_tail(1000, 1000, exact.statistic);
        assert!((exact.p_value / limit - 1.0).abs() < 0.06, "{} {limit}", exact.p_value);
    }

    #[test]
    fn nothing_to_compare() {
        assert_eq!(ks_two_sample(&[], &[1.0]), None);
        assert_eq!(ks_two_sample(&[f64::NAN], &[1.0]), None);
        let same = ks_two_sample(&[1.0, 2.0], &[1.0, 2.0]).unwrap();
        assert_eq!((same.statistic, same.p_value), (0.0, 1.0));
    }

    proptest! {
        #[test]
        fn symmetric_and_blind_to_scale(
            a in prop::collection::vec(-100_i32..100, 1..30),
            b in prop::collection::vec(-100_i32..100, 1..30),
        ) {
            let floats = |values: &[i32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
            let scaled = |values: &[i32]| values.iter().map(|value| 3.0 * f64::from(*value) + 7.0).collect::<Vec<_>>();
            let here = ks_two_sample(&floats(&a), &floats(&b)).unwrap();
            prop_assert_eq!(ks_two_sample(&scaled(&a), &scaled(&b)).unwrap(), here);
            let there = ks_two_sample(&floats(&b), &floats(&a)).unwrap();
            prop_assert_eq!(there.statistic, here.statistic);
            prop_assert!((there.p_value - here.p_value).abs() < 1e-12);
            prop_assert!((0.0..=1.0).contains(&here.p_value));
        }
    }
}
