//! What became of a quality rule.

use hydromesh_core::band::Band;
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{Fact, RuleOutcome};
use hydromesh_core::model::{Quality, QualitySeverity};

/// What became of one quality rule.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityOutcome {
    /// The rule's id.
    pub rule: String,
    /// The column that it is about, if one.
    pub column: Option<String>,
    /// Blocks the publication, or only tells.
    pub severity: QualitySeverity,
    /// What was measured, in the threshold's unit; `None` when the rule could not be evaluated.
    pub measure: Option<f64>,
    /// Rows of the table.
    pub rows: u64,
    /// What the measure must be, for people: `at most 1 %`.
    pub threshold: String,
    /// The measure was taken and satisfies the threshold.
    pub passed: bool,
    /// What is usual, for a rule about that.
    pub band: Option<Band>,
    /// Why there is no measure.
    pub error: Option<String>,
}

impl QualityOutcome {
    /// Returns the outcome of a rule that measured a number, or could not; with the band, if it is about what is usual.
    pub(super) fn new(
        rule: &Quality,
        rows: u64,
        measured: Result<f64, String>,
        band: impl FnOnce() -> Option<Band>,
    ) -> Self {
        let (measure, error) = match measured {
            Ok(measure) => (Some(measure), None),
            Err(reason) => (None, Some(reason)),
        };
        let band = if measure.is_some() { band() } else { None };
        let holds = |measure| match &band {
            Some(band) => band.holds(measure) == Some(true),
            None => rule.threshold.holds(measure),
        };
        let threshold = match &band {
            Some(band) => band.spoken(rule.threshold.percent),
            None => rule.threshold.spoken(),
        };
        Self {
            rule: rule.id.clone(),
            column: rule.column.clone(),
            severity: rule.severity,
            measure,
            rows,
            passed: measure.is_some_and(holds),
            threshold,
            band,
            error,
        }
    }

    /// Returns whether nothing may be published for its sake.
    #[must_use]
    pub fn blocks(&self) -> bool {
        let outcome = RuleOutcome::of(self.passed, self.measure, self.band.as_ref());
        self.severity == QualitySeverity::Error && outcome.is_bad()
    }

    /// Returns whether it was measured and did not hold.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        RuleOutcome::of(self.passed, self.measure, self.band.as_ref()) == RuleOutcome::Failed
    }

    /// Returns what was measured and wanted, for people.
    #[must_use]
    pub fn spoken(&self) -> String {
        let measured = self
            .measure
            .map_or_else(|| self.error.clone().unwrap_or_default(), |measure| format!("measured {measure}"));
        format!("{}: {measured}, wanted {}", self.rule, self.threshold)
    }

    /// Returns the fact that a run found this, of a partition or a whole table.
    #[must_use]
    pub fn into_fact(self, port: &PortId, partition: Option<&str>, run: &str) -> Fact {
        Fact::Quality {
            port: port.clone(),
            partition: partition.map(str::to_owned),
            run: run.to_owned(),
            rule: self.rule,
            severity: self.severity,
            passed: self.passed,
            measure: self.measure,
            threshold: self.threshold,
            column: self.column,
            rows: Some(self.rows),
            band: self.band,
        }
    }
}
