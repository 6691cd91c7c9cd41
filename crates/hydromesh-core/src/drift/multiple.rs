//! Many tests at once: with 200 features a level of 1 % alone would raise two alarms a run.

use super::{DriftVerdict, Verdict};

/// Returns which hypotheses to reject so that at most the share `q` of rejections is false on average, by the procedure
/// of Benjamini and Hochberg (1995).
pub fn benjamini_hochberg(p_values: &[f64], q: f64) -> Vec<bool> {
    adjusted_p_values(p_values).into_iter().map(|p| p <= q).collect()
}

/// Returns for each p-value the least `q` at which Benjamini and Hochberg reject it.
pub fn adjusted_p_values(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut least = 1.0_f64;
    for (rank, index) in order.into_iter().enumerate().rev() {
        least = least.min(p_values[index] * p_values.len() as f64 / (rank + 1) as f64);
        adjusted[index] = least;
    }
    adjusted
}

/// Takes back the alarms that do not hold at a false discovery rate of `q` among all tests that could be made.
pub fn control_false_discoveries(verdicts: &mut [DriftVerdict], q: f64) {
    let made = |one: &DriftVerdict| !matches!(one.verdict, Verdict::InsufficientData { .. });
    let p_values: Vec<f64> = verdicts.iter().filter(|one| made(one)).map(|one| one.p_value).collect();
    let rejected = benjamini_hochberg(&p_values, q);
    for (verdict, rejected) in verdicts.iter_mut().filter(|one| made(one)).zip(rejected) {
        if !rejected && verdict.is_drifted() {
            verdict.verdict = Verdict::Stable;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::goldens::{assert_near, goldens};
    use super::super::{DriftLimits, DriftTest, TestResult};
    use super::*;

    #[test]
    fn agrees_with_scipy() {
        for case in goldens().multiple {
            for (ours, theirs) in adjusted_p_values(&case.p).into_iter().zip(case.adjusted) {
                assert_near(ours, theirs, "adjusted p-value");
            }
        }
    }

    #[test]
    fn the_example_of_the_paper() {
        // Benjamini and Hochberg (1995), section 3.2: four of fifteen are rejected at 0.05.
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
            0.6528, 0.7590, 1.0,
        ];
        assert_eq!(benjamini_hochberg(&p, 0.05).iter().filter(|one| **one).count(), 4);
        assert!(benjamini_hochberg(&[], 0.05).is_empty());
    }

    #[test]
    fn one_lucky_test_among_many_is_taken_back() {
        let limits = DriftLimits::default();
        let verdict = |p_value| {
            let result = TestResult { statistic: 0.5, p_value, effect: 0.5 };
            DriftVerdict::judge("spend", DriftTest::ChiSquare, Some(result), 100, 100, &limits)
        };
        let mut verdicts: Vec<DriftVerdict> = std::iter::once(0.008).chain([0.6; 99]).map(verdict).collect();
        assert!(verdicts[0].is_drifted());
        control_false_discoveries(&mut verdicts, 0.05);
        assert!(!verdicts[0].is_drifted());
        let mut real: Vec<DriftVerdict> = std::iter::once(1e-6).chain([0.6; 99]).map(verdict).collect();
        control_false_discoveries(&mut real, 0.05);
        assert!(real[0].is_drifted());
    }
}
