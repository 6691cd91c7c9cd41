//! From two numbers to a verdict.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which test was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftTest {
    /// Largest distance between two distributions of a number.
    KolmogorovSmirnov,
    /// Population stability index over the deciles of the reference.
    PopulationStability,
    /// Frequencies of categories.
    ChiSquare,
    /// Share of nulls.
    NullRate,
}

impl fmt::Display for DriftTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::KolmogorovSmirnov => "Kolmogorov-Smirnov",
            Self::PopulationStability => "population stability",
            Self::ChiSquare => "chi-square",
            Self::NullRate => "null rate",
        })
    }
}

/// What a test says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// The statistic in its customary scale.
    pub statistic: f64,
    /// The probability of a statistic at least this large without drift.
    pub p_value: f64,
    /// How large the change is, in units that do not depend on the number of rows.
    pub effect: f64,
}

/// When a test becomes an alarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DriftLimits {
    /// Largest p-value of an alarm.
    pub alpha: f64,
    /// Least rows on either side; with fewer the answer is "insufficient data".
    pub min_sample: u64,
    /// Least distance of two distribution functions that matters, 0 to 1.
    pub min_distance: f64,
    /// Least population stability index that matters, after the part chance explains is taken off.
    pub min_stability_index: f64,
    /// Least share of rows in another category that matters, 0 to 1.
    pub min_moved_share: f64,
    /// Least change of the null rate that matters, 0 to 1.
    pub min_null_change: f64,
}

impl Default for DriftLimits {
    /// 0.1 is the customary "moderate" bound of each distance; 50 rows show a shift of half a standard deviation with
    /// a power of about 80 % at the 5 % level against a large reference.
    fn default() -> Self {
        Self {
            alpha: 0.01,
            min_sample: 50,
            min_distance: 0.1,
            min_stability_index: 0.1,
            min_moved_share: 0.1,
            min_null_change: 0.05,
        }
    }
}

impl DriftLimits {
    /// Returns the least effect of a test that matters.
    pub const fn min_effect(&self, test: DriftTest) -> f64 {
        match test {
            DriftTest::KolmogorovSmirnov => self.min_distance,
            DriftTest::PopulationStability => self.min_stability_index,
            DriftTest::ChiSquare => self.min_moved_share,
            DriftTest::NullRate => self.min_null_change,
        }
    }
}

/// The answer to "did it drift?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Significant and large enough to matter.
    Drifted,
    /// Not both.
    Stable,
    /// Nothing can be said.
    InsufficientData {
        /// What is missing.
        why: String,
    },
}

/// One test of one feature, complete enough to be explained later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftVerdict {
    /// The feature.
    pub feature: String,
    /// The test.
    pub test: DriftTest,
    /// See [`TestResult`]; 0 when there is insufficient data.
    pub statistic: f64,
    /// See [`TestResult`]; 1 when there is insufficient data.
    pub p_value: f64,
    /// See [`TestResult`]; 0 when there is insufficient data.
    pub effect: f64,
    /// Rows of the reference.
    pub n_reference: u64,
    /// Rows looked at.
    pub n_current: u64,
    /// The answer.
    pub verdict: Verdict,
}

impl DriftVerdict {
    /// Returns the verdict on a test result, which is none when the test could not be made.
    pub fn judge(
        feature: &str,
        test: DriftTest,
        result: Option<TestResult>,
        n_reference: u64,
        n_current: u64,
        limits: &DriftLimits,
    ) -> Self {
        let insufficient = |why: String| Self {
            feature: feature.to_owned(),
            test,
            statistic: 0.0,
            p_value: 1.0,
            effect: 0.0,
            n_reference,
            n_current,
            verdict: Verdict::InsufficientData { why },
        };
        let least = limits.min_sample;
        if n_reference < least {
            return insufficient(format!(
                "the reference has {n_reference} rows, at least {least} are needed"
            ));
        }
        if n_current < least {
            return insufficient(format!("there are {n_current} rows, at least {least} are needed"));
        }
        let Some(TestResult { statistic, p_value, effect }) = result else {
            return insufficient("the values do not vary enough for this test".to_owned());
        };
        let alarm = p_value <= limits.alpha && effect >= limits.min_effect(test);
        let verdict = if alarm { Verdict::Drifted } else { Verdict::Stable };
        let feature = feature.to_owned();
        Self { feature, test, statistic, p_value, effect, n_reference, n_current, verdict }
    }

    /// Returns whether this is an alarm.
    pub fn is_drifted(&self) -> bool {
        self.verdict == Verdict::Drifted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(p_value: f64, effect: f64, rows: u64) -> Verdict {
        let result = TestResult { statistic: 1.0, p_value, effect };
        let test = DriftTest::KolmogorovSmirnov;
        DriftVerdict::judge("spend", test, Some(result), rows, rows, &DriftLimits::default()).verdict
    }

    #[test]
    fn an_alarm_needs_significance_effect_and_rows() {
        assert_eq!(judge(0.01, 0.1, 50), Verdict::Drifted);
        assert_eq!(judge(0.011, 0.5, 50), Verdict::Stable, "may be chance");
        assert_eq!(judge(1e-30, 0.099, 1_000_000), Verdict::Stable, "certain but too small to matter");
        assert_eq!(
            judge(1e-30, 1.0, 49),
            Verdict::InsufficientData { why: "the reference has 49 rows, at least 50 are needed".into() }
        );
    }
}
