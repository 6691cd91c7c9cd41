//! A model as a file: whole or not there, the same bytes for the same training.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use hydromesh_core::ids::{PortId, ProductId};
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::encode::{Encoding, Fill};
use super::fit::{Fitted, L2};
use super::set::{Manifest, TrainingSet};
use super::snapshot::Reference;

/// The version of the stored form.
pub const ARTEFACT_FORMAT: u32 = 1;

/// A model with everything that serving it, comparing it and explaining it needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// See [`ARTEFACT_FORMAT`].
    pub format: u32,
    /// `logistic_regression`.
    pub algorithm: String,
    /// Weight of the L2 penalty.
    pub l2: f64,
    /// The product.
    pub product: ProductId,
    /// Counts the models of the product.
    pub version: u64,
    /// The features, in the order of every list below.
    pub features: Vec<ModelFeature>,
    /// Features to terms.
    #[serde(flatten)]
    pub encoding: Encoding,
    /// Per term.
    pub weights: Vec<f64>,
    /// Of a row in which every term is average.
    pub intercept: f64,
    /// What the model learnt from.
    pub manifest: Manifest,
    /// The population that it was made for.
    pub reference: Reference,
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
    /// Returns the model that was fitted on the rows of a set before `cut`.
    #[must_use]
    pub fn new(
        (product, version): (ProductId, u64),
        set: &TrainingSet,
        fitted: Fitted,
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
        Self {
            format: ARTEFACT_FORMAT,
            algorithm: "logistic_regression".to_owned(),
            l2: L2,
            product,
            version,
            features,
            encoding: fitted.encoding,
            weights: fitted.weights,
            intercept: fitted.intercept,
            manifest,
            reference,
        }
    }

    /// Returns the probability of the label 1; `value` answers with a feature's value now, or none when it has none.
    pub fn predict(&self, mut value: impl FnMut(&ModelFeature) -> Option<f64>) -> f64 {
        let row: Vec<Option<f64>> =
            self.features.iter().map(|feature| value(feature).filter(|value| value.is_finite())).collect();
        let score: f64 =
            self.encoding.terms(&row).iter().zip(&self.weights).map(|(term, weight)| term * weight).sum();
        1.0 / (1.0 + (-(score + self.intercept)).exp())
    }

    /// Returns what the model says about rows of a training set, or the name of a feature that the set cannot have.
    ///
    /// A feature that the set left out for having no value anywhere is missing in every row, not unknown.
    ///
    /// # Errors
    /// The name of the feature.
    pub fn score(&self, set: &TrainingSet, from: usize) -> Result<Vec<f64>, String> {
        let mut places = Vec::with_capacity(self.features.len());
        for feature in &self.features {
            let place = set
                .columns
                .iter()
                .position(|column| column.port == feature.port && column.column == feature.column);
            let left_out = set.manifest.left_out.iter().any(|out| out.feature == feature.name);
            if place.is_none() && !left_out {
                return Err(feature.name.clone());
            }
            places.push(place);
        }
        let score = |values: &[Option<f64>]| {
            let mut places = places.iter();
            self.predict(|_| places.next().copied().flatten().and_then(|place| values[place]))
        };
        Ok(set.rows[from..].iter().map(|row| score(&row.values)).collect())
    }

    /// Returns whether the lists fit each other, as those of a damaged file would not.
    fn fits(&self) -> bool {
        let (features, terms) = (self.features.len(), self.weights.len());
        let Encoding { fills, indicators, means, scales } = &self.encoding;
        fills.len() == features
            && features + indicators.len() == terms
            && means.len() == terms
            && scales.len() == terms
            && self.reference.profiles.len() == features
            && indicators.iter().all(|feature| *feature < features)
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
    let mut bytes = serde_json::to_vec_pretty(model).map_err(|error| failed(error.into()))?;
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
    let model: Model = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
    if model.format != ARTEFACT_FORMAT {
        let why = format!("it has format {}, this build knows {ARTEFACT_FORMAT}", model.format);
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, why)));
    }
    if !model.fits() {
        let why = "its lists are of different lengths";
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, why)));
    }
    Ok(model)
}
