//! Trainers that are programs of the product's folder: each of their two tasks in a fresh world of its own.
//!
//! At `train` a program sees the older rows with their labels and leaves files; at `score` it sees those files and the newer rows without
//! labels, and leaves a probability for each. What it is worth is measured here, by labels that it never saw.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use hydromesh_core::ids::{DomainName, PipelineId};
use hydromesh_core::model::{RowsFormat, TrainerCommand};
use tokio_util::sync::CancellationToken;

use crate::apply::programs::{Writer, forbidden, kept, lay_out, rows_file, scratch, unready};
use crate::apply::{Context, StepError};
use crate::child::cell::{self, Network};
use crate::child::{self, Ended, Scratch, Task};
use crate::train::{ModelFile, ModelProgram, TrainError, collect_files, copy_files, read_scores};

/// What a program leaves below its own folder.
const MODEL: &str = "model";
const SCORES: &str = "scores";

/// Says why a trainer may not run in this environment, if it may not.
pub(super) fn denied(context: &Context, domain: &DomainName, trainer: &TrainerCommand) -> Option<String> {
    if let Some(why) = forbidden(context, domain) {
        return Some(why);
    }
    let granted = !trainer.network || context.settings.allow_network.contains(domain);
    (!granted).then(|| {
        format!(
            "the environment {} grants the domain {domain} no network, which the trainer asks for (`allow_network` in mesh.yaml)",
            context.environment
        )
    })
}

/// The tasks of the trainer of one pipeline.
pub(super) struct Tasks<'a> {
    pub(super) context: &'a Context,
    pub(super) pipeline: &'a PipelineId,
    pub(super) cancel: &'a CancellationToken,
}

impl Tasks<'_> {
    /// Has a program fit the rows. What it left is at [`Tasks::model_in`] the folder that this returns, with what may be a model in it.
    pub(super) fn train(
        &self,
        trainer: &TrainerCommand,
        shown: &BTreeMap<String, String>,
        rows: &RecordBatch,
    ) -> Result<(Scratch, BTreeMap<String, ModelFile>), StepError> {
        let scratch = self.lay_out(shown)?;
        std::fs::create_dir(Self::model_in(&scratch)).map_err(|error| unready("its model", error))?;
        let place = format!("{}/{MODEL}", cell::OWN);
        let complained = self.begin("train", trainer, rows, &scratch, &[("HYDROMESH_MODEL", &place)])?;
        let files = collect_files(&Self::model_in(&scratch));
        let files = files.map_err(|error| self.useless("train", error, &complained))?;
        Ok((scratch, files))
    }

    /// Has the program that fitted a model score rows with it.
    pub(super) fn score(&self, program: &ModelProgram, rows: &RecordBatch) -> Result<Vec<f64>, StepError> {
        let scratch = self.lay_out(&program.shown)?;
        std::fs::create_dir(scratch.model()).map_err(|error| unready("its model", error))?;
        copy_files(self.context.lake.root(), program, &scratch.model())?;
        let place = format!("{}/{SCORES}", cell::OWN);
        let places = [("HYDROMESH_MODEL", cell::MODEL), ("HYDROMESH_SCORES", &place)];
        let complained = self.begin("score", &program.trainer, rows, &scratch, &places)?;
        let scores = read_scores(&scratch.own().join(SCORES), rows.num_rows());
        scores.map_err(|error| self.useless("score", error, &complained))
    }

    /// Returns the error of a program that ended well and left nothing of use, with where its complaints are.
    fn useless(&self, name: &str, error: TrainError, complained: &str) -> StepError {
        let mut error = StepError::from(error);
        error.message.push_str(&self.kept(name, complained));
        error
    }

    /// Keeps what a program complained of at a task; returns where, as the end of a sentence.
    fn kept(&self, name: &str, complained: &str) -> String {
        let file = format!("{}@{name}", self.pipeline.name);
        kept(&self.context.state, &self.pipeline.product, &file, complained)
    }

    /// Returns where a program leaves its model.
    pub(super) fn model_in(scratch: &Scratch) -> PathBuf {
        scratch.own().join(MODEL)
    }

    fn lay_out(&self, shown: &BTreeMap<String, String>) -> Result<Scratch, StepError> {
        let scratch = scratch(&self.context.state)?;
        let files = shown.iter().map(|(path, oid)| (path.as_str(), oid.as_str()));
        lay_out(&*self.context.blobs, &self.pipeline.product, files, &scratch)?;
        Ok(scratch)
    }

    /// Runs a program at one of its tasks; returns what it complained of.
    fn begin(
        &self,
        name: &str,
        trainer: &TrainerCommand,
        rows: &RecordBatch,
        scratch: &Scratch,
        places: &[(&str, &str)],
    ) -> Result<String, StepError> {
        let program = &trainer.program;
        let file = rows_file(program.rows);
        write(rows, program.rows, &scratch.rows().join(file)).map_err(|error| unready("its rows", error))?;
        let (rows, product) = (format!("{}/{file}", cell::ROWS), self.pipeline.product.to_string());
        let common = [("HYDROMESH_TASK", name), ("HYDROMESH_PRODUCT", &product), ("HYDROMESH_ROWS", &rows)];
        let variables =
            common.iter().chain(places).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let task = Task {
            command: program.command.clone(),
            variables: variables.collect(),
            timeout: Duration::from_millis(program.timeout.millis().unsigned_abs()),
            memory_mib: program.memory_mib,
            network: if trainer.network { Network::Machine } else { Network::None },
        };
        let ended = child::run(scratch, &task, self.cancel).map_err(|error| unready("its process", error))?;
        let why = match ended {
            Ended::Well { complained, .. } => return Ok(complained),
            Ended::Badly { how, complained } => {
                format!("ended with {how} at its task {name}{}", self.kept(name, &complained))
            }
            Ended::NotBegun(why) => format!("did not begin its task {name}: {why}"),
            Ended::TooLong => {
                format!("was stopped after its timeout of {} at its task {name}", program.timeout)
            }
            Ended::Cancelled => return Err(StepError::external("HM-X007", "cancelled")),
        };
        Err(StepError::user("HM-T014", format!("the trainer {why}")))
    }
}

fn write(rows: &RecordBatch, format: RowsFormat, path: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut writer = Writer::new(format, File::create(path)?, &rows.schema())?;
    writer.write(rows)?;
    Ok(writer.close()?)
}
