//! Training sets, the embedded trainer, model artefacts, and what is remembered to notice drift.
//!
//! The order of the files is the flow: labels ([`spine`]) get the features of their time ([`set`]), features become
//! numbers of one scale ([`encode`]), a model is fitted and measured ([`fit`], [`metrics`]), written down with the
//! population that it was made for ([`artefact`], [`snapshot`]). Where a program of the product fits, it is shown rows and leaves scores
//! ([`rows`]), and its model is files beside the artefact ([`files`]). Nothing here knows of runs, ledgers or tables.

mod artefact;
mod encode;
mod files;
mod fit;
mod metrics;
mod rows;
mod set;
mod snapshot;
mod spine;
#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "small numbers of a made-up shop, and answers that are exact"
)]
mod tests;

pub use artefact::{ARTEFACT_FORMAT, Algorithm, Model, ModelFeature, artefact_path, read_model, write_model};
pub use encode::{Encoding, Fill};
pub use files::{ModelFile, ModelProgram, collect_files, copy_files, keep_files, tidy_files};
pub use fit::{Fitted, L2, fit_logistic_regression, held_out_from, split_at};
pub use metrics::{Measures, auc, measure};
pub use rows::{LABEL, Labels, example_rows, read_scores};
pub use set::{ColumnNotes, Example, FeatureColumn, History, LeftOut, Manifest, Source, TrainingSet};
pub use snapshot::{Reference, drift_level, judge_features};
pub use spine::{Label, Spine, SpineColumns, read_spine};

use hydromesh_core::drift::ProfileError;
use hydromesh_core::tile::TileError;

/// The least labels of each class on either side of the split. With five of a class among a hundred rows the standard
/// error of an AUC of 0.75 is about 0.13 (Hanley and McNeil 1982); with fewer the gate would compare noise.
pub const LEAST_PER_CLASS: usize = 5;

/// Why no model came out.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// There is not enough to learn from.
    #[error(
        "there are too few labels: {fit} to fit ({fit_positive} positive) and {held_out} to hold out ({held_out_positive} \
         positive), at least {LEAST_PER_CLASS} of each class are needed on both sides; add labels, or wait for more"
    )]
    TooFewLabels {
        /// Older labels.
        fit: usize,
        /// Positive ones among them.
        fit_positive: usize,
        /// Newest labels.
        held_out: usize,
        /// Positive ones among them.
        held_out_positive: usize,
    },
    /// There is nothing to tell apart.
    #[error("every one of {rows} labels in `{column}` is {value}: a model needs labels of both classes")]
    OneClass {
        /// The label column.
        column: String,
        /// Labels.
        rows: usize,
        /// Their value.
        value: u8,
    },
    /// There is nothing to learn with.
    #[error("no feature can be used: {why}; name a feature port with numbers in `training_set.features`")]
    NoFeature {
        /// Why not.
        why: String,
    },
    /// The spine is not one.
    #[error("the spine {why}; select entity, times and one label column of type boolean or integer")]
    SpineShape {
        /// What is wrong, such as a missing column.
        why: String,
    },
    /// A label is neither 0 nor 1.
    #[error("the label column `{column}` holds {value}: labels are 0 and 1, or false and true")]
    LabelValue {
        /// The label column.
        column: String,
        /// The value.
        value: i64,
    },
    /// The solver gave up.
    #[error("the model could not be fitted: {why}; look for features with extreme values")]
    Fit {
        /// What the solver says.
        why: String,
    },
    /// The artefact is not there or not one.
    #[error("the model {path} cannot be {what}")]
    Artefact {
        /// Where.
        path: String,
        /// `read` or `written`.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// What a program left is no model.
    #[error("the trainer left no model that can be kept: {why}")]
    NoModel {
        /// Why not.
        why: String,
    },
    /// What a program left are no scores.
    #[error("the trainer's scores cannot be used: {why}")]
    NoScores {
        /// Why not.
        why: String,
    },
    /// The feature definition and its rows do not fit.
    #[error("the features cannot be computed")]
    Tile(#[from] TileError),
    /// A feature cannot be profiled.
    #[error("the features cannot be compared")]
    Profile(#[from] ProfileError),
}

impl TrainError {
    /// Returns the stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooFewLabels { .. } => "HM-T001",
            Self::OneClass { .. } => "HM-T002",
            Self::NoFeature { .. } => "HM-T003",
            Self::SpineShape { .. } => "HM-T004",
            Self::LabelValue { .. } => "HM-T005",
            Self::Fit { .. } => "HM-T006",
            Self::Artefact { .. } => "HM-T007",
            Self::NoModel { .. } => "HM-T015",
            Self::NoScores { .. } => "HM-T016",
            Self::Tile(_) | Self::Profile(_) => "HM-T008",
        }
    }
}
