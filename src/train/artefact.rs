//! A model as a file: whole or not there, the same bytes for the same training.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use hydromesh_core::ids::{PortId, ProductId};
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::encode::{Encoding, Fill};
use super::files::ModelProgram;
use super::fit::{Fitted, L2};
use super::set::{Manifest, TrainingSet};
use super::snapshot::Reference;

/// The version of the stored form.
pub const ARTEFACT_FORMAT: u32 = 1;
/// What an artefact calls the trainer that is built in.
const LOGISTIC_REGRESSION: &str = "logistic_regression";
/// What an artefact calls a program.
const COMMAND: &str = "command";

/// A model with everything that serving it, comparing it and explaining it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The product.
    pub product: ProductId,
    /// Counts the models of the product.
    pub version: u64,
    /// The features, in the order of every list below.
    pub features: Vec<ModelFeature>,
    /// What was fitted.
    pub fitted: Algorithm,
    /// What the model learnt from.
    pub manifest: Manifest,
    /// The population that it was made for.
    pub reference: Reference,
}

/// What a model is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Algorithm {
    /// Of the trainer that is built in.
    LogisticRegression(Fitted),
    /// Files that a program of the product left, and that it alone can score with.
    Program(ModelProgram),
}

/// A model as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// See [`ARTEFACT_FORMAT`].
    format: u32,
    algorithm: String,
    /// Weight of the L2 penalty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    l2: Option<f64>,
    product: ProductId,
    version: u64,
    features: Vec<ModelFeature>,
    #[serde(flatten)]
    encoding: Option<Encoding>,
    /// Per term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weights: Option<Vec<f64>>,
    /// Of a row in which every term is average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intercept: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program: Option<ModelProgram>,
    manifest: Manifest,
    reference: Reference,
}

/// A feature of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFeature {
    /// Its name.
    pub name: String,
    /// The port that has it.
    pub port: PortId,
    /// The port's column.
    pub column: String,
    /// What stands for a missing value.
    pub fill: Fill,
    /// Length of its window, milliseconds.
    pub window_ms: i64,
}

impl Model {
    /// Returns the model of what was fitted on the rows of a set before `cut`.
    #[must_use]
    pub fn new(
        (product, version): (ProductId, u64),
        set: &TrainingSet,
        fitted: Algorithm,
        cut: usize,
        reference: Reference,
    ) -> Self {
        let features = set
            .columns
            .iter()
            .map(|column| ModelFeature {
                name: column.name.clone(),
                port: column.port.clone(),
                column: column.column.clone(),
                fill: column.fill,
                window_ms: column.window_ms,
            })
            .collect();
        let mut manifest = set.manifest.clone();
        manifest.fitted = cut as u64;
        manifest.held_out_from_ms = set.rows.get(cut).map_or(manifest.to_ms, |row| row.event_ms);
        Self { product, version, features, fitted, manifest, reference }
    }

    /// Returns where in the rows of a training set each of its features stands, or the name of a feature that the set cannot have.
    ///
    /// A feature that the set left out for having no value anywhere is missing in every row, not unknown.
    ///
    /// # Errors
    /// The name of the feature.
    pub fn places(&self, set: &TrainingSet) -> Result<Vec<Option<usize>>, String> {
        let place = |feature: &ModelFeature| {
            let mut columns = set.columns.iter();
            let place =
                columns.position(|column| column.port == feature.port && column.column == feature.column);
            let left_out = set.manifest.left_out.iter().any(|out| out.feature == feature.name);
            if place.is_none() && !left_out { Err(feature.name.clone()) } else { Ok(place) }
        };
        self.features.iter().map(place).collect()
    }
}

impl Fitted {
    /// Returns the probability of the label 1; a value is none where a feature has none.
    #[must_use]
    pub fn predict(&self, row: &[Option<f64>]) -> f64 {
        let score: f64 =
            self.encoding.terms(row).iter().zip(&self.weights).map(|(term, weight)| term * weight).sum();
        1.0 / (1.0 + (-(score + self.intercept)).exp())
    }

    /// Returns what the model says about the rows of a training set from one on; `places` are those of [`Model::places`].
    #[must_use]
    pub fn score(&self, places: &[Option<usize>], set: &TrainingSet, from: usize) -> Vec<f64> {
        let score = |values: &[Option<f64>]| {
            let row: Vec<Option<f64>> = places.iter().map(|place| values[(*place)?]).collect();
            self.predict(&row)
        };
        set.rows[from..].iter().map(|row| score(&row.values)).collect()
    }

    /// Returns whether the lists fit each other, as those of a damaged file would not.
    fn fits(&self, features: usize) -> bool {
        let terms = self.weights.len();
        let Encoding { fills, indicators, means, scales } = &self.encoding;
        fills.len() == features
            && features + indicators.len() == terms
            && means.len() == terms
            && scales.len() == terms
            && indicators.iter().all(|feature| *feature < features)
    }
}

impl From<&Model> for Stored {
    fn from(model: &Model) -> Self {
        let (algorithm, linear, program) = match &model.fitted {
            Algorithm::LogisticRegression(fitted) => (LOGISTIC_REGRESSION, Some(fitted.clone()), None),
            Algorithm::Program(program) => (COMMAND, None, Some(program.clone())),
        };
        Self {
            format: ARTEFACT_FORMAT,
            algorithm: algorithm.to_owned(),
            l2: linear.is_some().then_some(L2),
            product: model.product.clone(),
            version: model.version,
            features: model.features.clone(),
            weights: linear.as_ref().map(|it| it.weights.clone()),
            intercept: linear.as_ref().map(|it| it.intercept),
            encoding: linear.map(|it| it.encoding),
            program,
            manifest: model.manifest.clone(),
            reference: model.reference.clone(),
        }
    }
}

impl TryFrom<Stored> for Model {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        if stored.format != ARTEFACT_FORMAT {
            return Err(format!("it has format {}, this build knows {ARTEFACT_FORMAT}", stored.format));
        }
        let features = stored.features.len();
        let fitted = match (stored.algorithm.as_str(), stored.program) {
            (LOGISTIC_REGRESSION, None) => {
                let (Some(encoding), Some(weights), Some(intercept)) =
                    (stored.encoding, stored.weights, stored.intercept)
                else {
                    return Err("it has no encoding or no weights".to_owned());
                };
                let fitted = Fitted { encoding, weights, intercept };
                if !fitted.fits(features) {
                    return Err("its lists are of different lengths".to_owned());
                }
                Algorithm::LogisticRegression(fitted)
            }
            (COMMAND, Some(program)) => {
                program.check()?;
                Algorithm::Program(program)
            }
            (other, _) => {
                return Err(format!("`{other}` is no algorithm that this build knows, or lacks its parts"));
            }
        };
        if stored.reference.profiles.len() != features {
            return Err("its lists are of different lengths".to_owned());
        }
        let Stored { product, version, features, manifest, reference, .. } = stored;
        Ok(Self { product, version, features, fitted, manifest, reference })
    }
}

/// Returns where in the lake a model lies.
#[must_use]
pub fn artefact_path(product: &ProductId, version: u64) -> String {
    format!("models/{}/{}/v{version:04}.json", product.domain, product.name)
}

/// Writes a model so that it is there whole, after a loss of power too, or not at all.
///
/// # Errors
/// [`TrainError::Artefact`].
pub fn write_model(lake: &Path, path: &str, model: &Model) -> Result<(), TrainError> {
    let failed = |source| TrainError::Artefact { path: path.to_owned(), what: "written", source };
    let mut bytes = serde_json::to_vec_pretty(&Stored::from(model)).map_err(|error| failed(error.into()))?;
    bytes.push(b'\n');
    replace(&lake.join(path), &bytes).map_err(failed)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    crate::disk::create_folders(folder)?;
    let temporary = folder.join(format!(".{}.tmp", uuid::Uuid::new_v4()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| std::fs::rename(&temporary, path)) {
        // A left-over of a full disk would only make it fuller.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

/// Reads a model back.
///
/// # Errors
/// [`TrainError::Artefact`] when it is not there, or of another format, or its parts do not fit each other.
pub fn read_model(lake: &Path, path: &str) -> Result<Model, TrainError> {
    let failed = |source| TrainError::Artefact { path: path.to_owned(), what: "read", source };
    let bytes = std::fs::read(lake.join(path)).map_err(failed)?;
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
    Model::try_from(stored).map_err(|why| failed(io::Error::new(io::ErrorKind::InvalidData, why)))
}
