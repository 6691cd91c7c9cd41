//! Drift statistics: two-sample tests with an effect size and a p-value.
//!
//! Every test gives two numbers, because each alone misleads: with few rows a large distance is often chance, with
//! many a tiny one is always significant. An alarm needs both, and a minimum of rows; below that the answer is
//! "insufficient data", never "stable".

#![expect(clippy::cast_precision_loss, reason = "statistics of counts of rows, which stay far below 2^53")]

mod categorical;
mod ks;
mod multiple;
mod profile;
mod psi;
mod retrain;
mod special;
mod verdict;

pub use categorical::{chi_square, null_rate};
pub use ks::ks_two_sample;
pub use multiple::{adjusted_p_values, benjamini_hochberg, control_false_discoveries};
pub use profile::{PROFILE_FORMAT, Profile, ProfileError, SAMPLE_SIZE, Shape, compare};
pub use psi::{decile_edges, psi_calibrated};
pub use retrain::{
    Outcome, RetrainAction, RetrainCause, RetrainDecision, RetrainEvent, RetrainLimits, RetrainObservation,
    RetrainPhase, RetrainState, step,
};
pub use verdict::{DriftLimits, DriftTest, DriftVerdict, TestResult, Verdict};

#[cfg(test)]
mod goldens {
    //! What scipy says, see `scripts/oracles/drift_goldens.py`.

    use std::collections::BTreeMap;

    #[derive(serde::Deserialize)]
    pub(super) struct Goldens {
        pub ks: Vec<Ks>,
        pub psi: Vec<Psi>,
        pub chi: Vec<Chi>,
        pub nulls: Vec<Nulls>,
        pub special: Special,
        pub multiple: Vec<Multiple>,
    }

    #[derive(serde::Deserialize)]
    pub(super) struct Ks {
        pub a: Vec<f64>,
        pub b: Vec<f64>,
        pub statistic: f64,
        pub exact: f64,
        pub limit: f64,
    }

    #[derive(serde::Deserialize)]
    pub(super) struct Psi {
        pub reference: Vec<f64>,
        pub current: Vec<f64>,
        pub edges: Vec<f64>,
        pub psi: f64,
        pub p: f64,
    }

    #[derive(serde::Deserialize)]
    pub(super) struct Chi {
        pub reference: BTreeMap<String, u64>,
        pub current: BTreeMap<String, u64>,
        pub statistic: f64,
        pub p: f64,
        pub distance: f64,
    }

    #[derive(serde::Deserialize)]
    pub(super) struct Nulls {
        pub a: u64,
        pub n: u64,
        pub b: u64,
        pub m: u64,
        pub fisher: f64,
        pub chi: Option<f64>,
        pub least_expected: Option<f64>,
    }

    #[derive(serde::Deserialize)]
    pub(super) struct Special {
        pub gamma_q: Vec<(f64, f64, f64)>,
        pub ln_gamma: Vec<(f64, f64)>,
        pub kolmogorov: Vec<(f64, f64)>,
    }

    #[derive(serde::Deserialize)]
    pub(super) struct Multiple {
        pub p: Vec<f64>,
        pub adjusted: Vec<f64>,
    }

    pub(super) fn goldens() -> Goldens {
        serde_json::from_str(include_str!("../../tests-data/drift.json")).unwrap()
    }

    #[track_caller]
    pub(super) fn assert_near(ours: f64, theirs: f64, what: &str) {
        let close = (ours - theirs).abs() <= 1e-9 * theirs.abs() + 1e-14;
        assert!(close, "{what}: ours {ours:e}, theirs {theirs:e}");
    }
}
