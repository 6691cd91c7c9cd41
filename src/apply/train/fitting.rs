//! A challenger: fitted, written, and measured beside the champion on rows that neither has seen.

use std::collections::BTreeMap;
use std::path::Path;

use hydromesh_core::ids::{PipelineId, PortId};
use hydromesh_core::ledger::ErrorKind;
use hydromesh_core::model::{Product, Trainer, TrainerCommand};
use tokio_util::sync::CancellationToken;

use super::program::{Tasks, denied};
use crate::apply::{Context, StepError};
use crate::train::{
    Algorithm, Labels, Measures, Model, ModelProgram, Reference, Source, Spine, TrainError, TrainingSet,
    artefact_path, collect_files, example_rows, fit_logistic_regression, held_out_from, keep_files, measure,
    read_model, tidy_files, write_model,
};

/// So often is tried to measure a champion whose program fails; then it serves nobody either.
const ATTEMPTS_AT_CHAMPION: u32 = 3;

/// What a challenger is fitted from. It blocks, and takes its time.
pub(super) struct Fitting {
    pub(super) context: Context,
    pub(super) product: Product,
    pub(super) pipeline: PipelineId,
    pub(super) trainer: Trainer,
    /// Which attempt of the step this is, from 1.
    pub(super) attempt: u32,
    pub(super) version: u64,
    /// What says that it is trained of this and nothing else.
    pub(super) key: String,
    /// Where the champion lies, if there is one.
    pub(super) champion: Option<String>,
    pub(super) spine: Spine,
    pub(super) sources: Vec<Source>,
    pub(super) inputs: BTreeMap<PortId, i64>,
    pub(super) cancel: CancellationToken,
}

/// A fitted challenger, written and measured.
pub(super) struct Outcome {
    pub(super) measures: Measures,
    /// The champion's metric on the same rows, if there is one; or why it cannot be measured, as the end of a sentence about it.
    pub(super) champion: Result<Option<f64>, String>,
    /// Rows fitted and held out.
    pub(super) rows: (u64, u64),
}

impl Fitting {
    /// Joins, fits and writes a model, and measures what can be read back: it is that which will serve.
    ///
    /// # Errors
    /// When there is too little to learn from, nothing comes of it, or a model cannot be read or written.
    pub(super) fn run(mut self) -> Result<Outcome, StepError> {
        let lake = self.context.lake.root().to_path_buf();
        let champion = self.champion.as_ref().map(|path| read_model(&lake, path)).transpose()?;
        let mut set = TrainingSet::assemble(&self.spine, &self.sources)?;
        set.manifest.inputs = std::mem::take(&mut self.inputs);
        let path = artefact_path(&self.product.id, self.version);
        let cut = match self.trainer.clone() {
            Trainer::Builtin(_) => {
                let (fitted, cut) = fit_logistic_regression(&set)?;
                self.write(&lake, &path, &set, cut, Algorithm::LogisticRegression(fitted))?;
                cut
            }
            Trainer::Command(command) => {
                let cut = held_out_from(&set)?;
                if !self.is_there(&lake, &path, &set, cut) {
                    self.fit(&lake, &path, &set, cut, &command)?;
                }
                cut
            }
        };
        let challenger = read_model(&lake, &path)?;
        let held_out: Vec<bool> = set.rows[cut..].iter().map(|row| row.positive).collect();
        let scores = self.scores(&challenger, &set, cut)?.map_err(|why| {
            let why = format!("the challenger cannot be measured, {why}");
            TrainError::Fit { why }
        })?;
        let measures = measure(&scores, &held_out)
            .ok_or_else(|| TrainError::Fit { why: "a class is absent from the rows held out".to_owned() })?;
        let champion = match champion {
            None => Ok(None),
            Some(model) => self
                .scores_of_champion(&model, &set, cut)?
                .map(|scores| measure(&scores, &held_out).map(|measures| measures.auc)),
        };
        Ok(Outcome { measures, champion, rows: (cut as u64, held_out.len() as u64) })
    }

    /// Returns whether an earlier attempt at the very same has left a whole model.
    fn is_there(&self, lake: &Path, path: &str, set: &TrainingSet, cut: usize) -> bool {
        let Ok(Model { fitted: Algorithm::Program(program), manifest, .. }) = read_model(lake, path) else {
            return false;
        };
        let whole = collect_files(&lake.join(&program.folder)).is_ok_and(|files| files == program.files);
        // Labels whose time has come since belong to no version of an input.
        program.key == self.key
            && (manifest.rows, manifest.fitted) == (set.manifest.rows, cut as u64)
            && whole
    }

    /// Has a program fit a model, and keeps it.
    fn fit(
        &self,
        lake: &Path,
        path: &str,
        set: &TrainingSet,
        cut: usize,
        command: &TrainerCommand,
    ) -> Result<(), StepError> {
        let names = set.columns.iter().enumerate().map(|(place, column)| (column.name.as_str(), Some(place)));
        let rows = example_rows(&names.collect::<Vec<_>>(), &set.rows[..cut], Labels::Shown);
        let rows = rows.map_err(|error| StepError::internal(error.to_string()))?;
        let owned = |(path, oid): (&str, &str)| (path.to_owned(), oid.to_owned());
        let shown: BTreeMap<String, String> = self.product.trainer_files().into_iter().map(owned).collect();
        let (scratch, files) = self.tasks().train(command, &shown, &rows)?;
        let left = Tasks::model_in(&scratch);
        let folder = keep_files(lake, path, &left, &files)?;
        let program = ModelProgram {
            trainer: command.clone(),
            shown,
            key: self.key.clone(),
            folder: folder.clone(),
            files,
        };
        self.write(lake, path, set, cut, Algorithm::Program(program))?;
        tidy_files(lake, path, &folder);
        Ok(())
    }

    fn write(
        &self,
        lake: &Path,
        path: &str,
        set: &TrainingSet,
        cut: usize,
        fitted: Algorithm,
    ) -> Result<(), TrainError> {
        let (from_ms, to_ms) = (set.manifest.from_ms, set.manifest.to_ms);
        let reference = Reference::population(&set.columns, &self.sources, from_ms, to_ms)?;
        let id = (self.product.id.clone(), self.version);
        write_model(lake, path, &Model::new(id, set, fitted, cut, reference))
    }

    /// Returns what a model says about the rows held out, or why it can say nothing, as the end of a sentence about it.
    fn scores(
        &self,
        model: &Model,
        set: &TrainingSet,
        cut: usize,
    ) -> Result<Result<Vec<f64>, String>, StepError> {
        let places = match model.places(set) {
            Ok(places) => places,
            Err(feature) => return Ok(Err(format!("which reads `{feature}`: it is no longer a feature"))),
        };
        let program = match &model.fitted {
            Algorithm::LogisticRegression(fitted) => return Ok(Ok(fitted.score(&places, set, cut))),
            Algorithm::Program(program) => program,
        };
        let names = model.features.iter().map(|feature| feature.name.as_str()).zip(places);
        let rows = example_rows(&names.collect::<Vec<_>>(), &set.rows[cut..], Labels::Hidden);
        let rows = rows.map_err(|error| StepError::internal(error.to_string()))?;
        self.tasks().score(program, &rows).map(Ok)
    }

    /// The same of the champion. Its program is the one that fitted it, which may be gone, or no longer allowed; one that fails is tried
    /// again, because a challenger should not win by a bad moment.
    fn scores_of_champion(
        &self,
        model: &Model,
        set: &TrainingSet,
        cut: usize,
    ) -> Result<Result<Vec<f64>, String>, StepError> {
        if let Algorithm::Program(program) = &model.fitted {
            if let Some(why) = denied(&self.context, &self.product.id.domain, &program.trainer) {
                return Ok(Err(format!("which a program made that may not run: {why}")));
            }
            let gone = |oid: &str| {
                let read = self.context.blobs.read(oid);
                read.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
            };
            if let Some((path, oid)) = program.shown.iter().find(|(_, oid)| gone(oid)) {
                return Ok(Err(format!(
                    "which needs {path} as it was: {oid} is no longer in the repository"
                )));
            }
        }
        match self.scores(model, set, cut) {
            Err(error) if matches!(error.code, "HM-T014" | "HM-T016") => {
                if self.attempt >= ATTEMPTS_AT_CHAMPION {
                    return Ok(Err(format!("whose program failed: {}", error.message)));
                }
                let message = format!("the champion cannot be measured: {}", error.message);
                Err(StepError { kind: ErrorKind::External, message, ..error })
            }
            scores => scores,
        }
    }

    fn tasks(&self) -> Tasks<'_> {
        Tasks { context: &self.context, pipeline: &self.pipeline, cancel: &self.cancel }
    }
}
