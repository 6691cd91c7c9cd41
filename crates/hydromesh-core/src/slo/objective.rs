//! What is promised, and the facts it is judged by.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::time::{IntervalSet, Millis, Span};

/// One promise about a data product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// Its name, unique in the product.
    pub id: String,
    /// What is good.
    pub kind: ObjectiveKind,
    /// The share of time that must be good, above 0 and below 1.
    pub target: f64,
    /// The rolling window the share is taken over.
    pub window: Span,
}

/// What is good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveKind {
    /// The newest data is at most this old. Catches a source that stands still while the job runs.
    DataAge {
        /// The oldest the newest data may be.
        max: Span,
    },
    /// The last publication was at most this long ago. Catches a job that is dead.
    Heartbeat {
        /// The longest silence.
        max_gap: Span,
    },
    /// At least this share of the contract's checks passed when last executed.
    Quality {
        /// 0 to 1.
        min_pass_rate: f64,
    },
}

/// Why an objective makes no sense.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ObjectiveError {
    /// The target leaves no budget, or all of it.
    #[error("`{id}` has the target {target}: expected a share above 0 and below 1, such as 0.99")]
    Target {
        /// The objective.
        id: String,
        /// Its target.
        target: f64,
    },
    /// A length of time is zero.
    #[error("`{id}` has a {what} of no length")]
    NoLength {
        /// The objective.
        id: String,
        /// Which length.
        what: &'static str,
    },
    /// The pass rate is no share.
    #[error("`{id}` has the pass rate {rate}: expected a share from 0 to 1")]
    PassRate {
        /// The objective.
        id: String,
        /// Its rate.
        rate: f64,
    },
}

impl Objective {
    /// Checks that the objective can be judged.
    ///
    /// # Errors
    /// See [`ObjectiveError`]. A target of 1 is refused: its error budget is nothing, and every burn rate infinite.
    pub fn check(&self) -> Result<(), ObjectiveError> {
        let id = || self.id.clone();
        if !(self.target > 0.0 && self.target < 1.0) {
            return Err(ObjectiveError::Target { id: id(), target: self.target });
        }
        if self.window.is_zero() {
            return Err(ObjectiveError::NoLength { id: id(), what: "window" });
        }
        match self.kind {
            ObjectiveKind::DataAge { max } if max.is_zero() => {
                Err(ObjectiveError::NoLength { id: id(), what: "maximum age" })
            }
            ObjectiveKind::Heartbeat { max_gap } if max_gap.is_zero() => {
                Err(ObjectiveError::NoLength { id: id(), what: "maximum gap" })
            }
            ObjectiveKind::Quality { min_pass_rate: rate } if !(0.0..=1.0).contains(&rate) => {
                Err(ObjectiveError::PassRate { id: id(), rate })
            }
            _ => Ok(()),
        }
    }
}

/// A table version became visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// When.
    pub at: Millis,
    /// The newest instant the published data covers. Of a backfill of an old partition it is an old one.
    pub data_time_high: Millis,
}

/// The contract's checks were run on a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QualityResult {
    /// When.
    pub at: Millis,
    /// Checks that passed.
    pub passed: u32,
    /// Checks that were executed.
    pub executed: u32,
    /// Checks the contract requires. One that was not executed makes the state unknown, never good.
    pub required: u32,
}

/// What the ledger says about one product port, in ledger order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Publications.
    pub publishes: Vec<Publish>,
    /// Quality results.
    pub quality: Vec<QualityResult>,
    /// Time that does not count, such as announced maintenance.
    pub exclusions: IntervalSet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_objectives_are_refused() {
        let objective =
            |target, kind| Objective { id: "age".into(), kind, target, window: "30d".parse().unwrap() };
        let age = || ObjectiveKind::DataAge { max: "26h".parse().unwrap() };
        assert_eq!(objective(0.99, age()).check(), Ok(()));
        for target in [0.0, 1.0, -1.0, 99.0, f64::NAN] {
            assert!(matches!(objective(target, age()).check(), Err(ObjectiveError::Target { .. })));
        }
        let zero = ObjectiveKind::Heartbeat { max_gap: Span::from_millis(0) };
        assert!(matches!(objective(0.9, zero).check(), Err(ObjectiveError::NoLength { .. })));
        let rate = ObjectiveKind::Quality { min_pass_rate: 1.5 };
        assert!(matches!(objective(0.9, rate).check(), Err(ObjectiveError::PassRate { .. })));
    }
}
