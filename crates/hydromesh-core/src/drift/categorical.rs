//! Tests of frequencies: categories and nulls.

use std::collections::{BTreeMap, BTreeSet};

use super::TestResult;
use super::special::{chi_square_tail, ln_gamma};

/// Below this expected count the chi-square law is no good guide (Cochran's rule).
const LEAST_EXPECTED: f64 = 5.0;

/// Returns the chi-square test of two tables of frequencies, or `None` when a side is empty or there is only one cell.
///
/// Categories expected fewer than five times on either side are pooled into one. The effect is the total variation
/// distance after pooling: the share of rows that would have to change category.
pub fn chi_square(reference: &BTreeMap<String, u64>, current: &BTreeMap<String, u64>) -> Option<TestResult> {
    let (n, m) = (reference.values().sum::<u64>(), current.values().sum::<u64>());
    if n == 0 || m == 0 {
        return None;
    }
    let (n, m) = (n as f64, m as f64);
    let names: BTreeSet<&String> = reference.keys().chain(current.keys()).collect();
    let count = |table: &BTreeMap<String, u64>, name: &String| table.get(name).copied().unwrap_or(0);
    let mut cells: Vec<(u64, u64)> = Vec::new();
    let mut rare = (0, 0);
    for name in names {
        let cell = (count(reference, name), count(current, name));
        let share = (cell.0 + cell.1) as f64 / (n + m);
        if share * n.min(m) < LEAST_EXPECTED {
            rare = (rare.0 + cell.0, rare.1 + cell.1);
        } else {
            cells.push(cell);
        }
    }
    if rare != (0, 0) {
        cells.push(rare);
    }
    if cells.len() < 2 {
        return None;
    }
    let (mut statistic, mut distance) = (0.0, 0.0);
    for (before, now) in &cells {
        let (before, now) = (*before as f64, *now as f64);
        let share = (before + now) / (n + m);
        statistic += (before - share * n).powi(2) / (share * n) + (now - share * m).powi(2) / (share * m);
        distance += (before / n - now / m).abs() / 2.0;
    }
    Some(TestResult { statistic, p_value: chi_square_tail(statistic, cells.len() - 1), effect: distance })
}

/// Returns the test of two null rates, `nulls` of `rows` each, or `None` when a side has no rows.
///
/// Statistic and effect are the change of the rate (the effect without its sign). Where a count of under five is
/// expected the p-value is Fisher's exact one, otherwise the chi-square one without continuity correction.
pub fn null_rate(reference: (u64, u64), current: (u64, u64)) -> Option<TestResult> {
    let ((a, n), (b, m)) = (reference, current);
    if n == 0 || m == 0 || a > n || b > m {
        return None;
    }
    let change = b as f64 / m as f64 - a as f64 / n as f64;
    let (nulls, total) = (a + b, n + m);
    let rarest = nulls.min(total - nulls) as f64 * n.min(m) as f64 / total as f64;
    let p_value = if rarest < LEAST_EXPECTED {
        fisher_exact(a, n, b, m)
    } else {
        let cell = |found: u64, expected: f64| (found as f64 - expected).powi(2) / expected;
        let share = nulls as f64 / total as f64;
        let (n_f, m_f) = (n as f64, m as f64);
        let statistic = cell(a, share * n_f)
            + cell(n - a, (1.0 - share) * n_f)
            + cell(b, share * m_f)
            + cell(m - b, (1.0 - share) * m_f);
        chi_square_tail(statistic, 1)
    };
    Some(TestResult { statistic: change, p_value, effect: change.abs() })
}

/// Returns the two-sided p-value: the probability of all tables with these margins no likelier than the one found.
fn fisher_exact(a: u64, n: u64, b: u64, m: u64) -> f64 {
    let nulls = a + b;
    let ln_choose =
        |n: u64, k: u64| ln_gamma(n as f64 + 1.0) - ln_gamma(k as f64 + 1.0) - ln_gamma((n - k) as f64 + 1.0);
    // Of the two equal descriptions of a table take the one with few cells to walk.
    let (a, nulls) = if nulls * 2 > n + m { (n - a, n + m - nulls) } else { (a, nulls) };
    let ln_all = ln_choose(n + m, nulls);
    let probability = |k: u64| (ln_choose(n, k) + ln_choose(m, nulls - k) - ln_all).exp();
    let found = probability(a);
    let tail: f64 = (nulls.saturating_sub(m)..=nulls.min(n))
        .map(probability)
        // The margin is for rounding: tables that are equally likely must be counted.
        .filter(|one| *one <= found * (1.0 + 1e-7))
        .sum();
    tail.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::super::goldens::{assert_near, goldens};
    use super::*;

    #[test]
    fn categories_agree_with_scipy() {
        let cases = goldens().chi;
        assert!(cases.len() >= 9);
        for case in cases {
            let ours = chi_square(&case.reference, &case.current).unwrap();
            assert_near(ours.statistic, case.statistic, "statistic");
            assert_near(ours.p_value, case.p, "p-value");
            assert_near(ours.effect, case.distance, "distance");
        }
    }

    #[test]
    fn null_rates_agree_with_scipy() {
        let (mut exact, mut asymptotic) = (0, 0);
        for case in goldens().nulls {
            let ours = null_rate((case.a, case.n), (case.b, case.m)).unwrap();
            match (case.chi, case.least_expected) {
                (Some(chi), Some(least)) if least >= 5.0 => {
                    asymptotic += 1;
                    assert_near(ours.p_value, chi, "chi-square");
                }
                _ => {
                    exact += 1;
                    // Sums of exponentials of ln gamma at 10,000 lose a few digits.
                    assert!(
                        (ours.p_value / case.fisher - 1.0).abs() < 1e-8,
                        "{} {}",
                        ours.p_value,
                        case.fisher
                    );
                }
            }
        }
        assert!(exact >= 3 && asymptotic >= 2);
    }

    #[test]
    fn rare_and_new_categories_are_pooled() {
        let table =
            |cells: &[(&str, u64)]| cells.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let before: BTreeMap<String, u64> =
            table(&[("card", 600), ("cash", 395), ("cheque", 3), ("barter", 2)]);
        let same = chi_square(&before, &before).unwrap();
        assert_eq!((same.statistic, same.p_value), (0.0, 1.0));
        let now = table(&[("card", 500), ("cash", 300), ("crypto", 200)]);
        assert!(chi_square(&before, &now).unwrap().p_value < 1e-30, "a new category shows");
        assert_eq!(chi_square(&table(&[("card", 9)]), &table(&[("card", 7)])), None);
        assert_eq!(chi_square(&before, &BTreeMap::new()), None);
    }
}
