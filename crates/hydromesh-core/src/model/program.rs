//! Programs of a product's folder: what is begun, within what bounds, and which files it is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{InputSource, Pipeline, Product, Trainer, TrainingPipeline};
use crate::plan::glob_matches;
use crate::time::Span;

/// A program, and what bounds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program and its words. One with a slash lies in the product's folder.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Span,
    /// How much memory each of its processes may take, MiB.
    pub memory_mib: u32,
    /// How it is shown the rows.
    pub rows: RowsFormat,
}

/// How a program is shown rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowsFormat {
    /// As `rows.parquet`, with their types.
    #[default]
    Parquet,
    /// As `rows.csv`, with a line of names first.
    Csv,
}

impl Program {
    /// Returns the path of the program below the product's folder, if that is where it lies.
    #[must_use]
    pub fn in_folder(&self) -> Option<&str> {
        let program = self.command.first().filter(|it| it.contains('/') && !it.starts_with('/'))?;
        Some(program.strip_prefix("./").unwrap_or(program))
    }
}

/// A program that fits models and scores with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainerCommand {
    /// The program.
    #[serde(flatten)]
    pub program: Program,
    /// It asks for the network.
    #[serde(default)]
    pub network: bool,
}

impl TrainerCommand {
    /// Returns it within the bounds of whoever says nothing of them: nothing of what it does depends on them.
    #[must_use]
    pub(super) fn unbounded(&self) -> Self {
        let mut trainer = self.clone();
        (trainer.program.timeout, trainer.program.memory_mib) = (Span::from_millis(0), 0);
        trainer
    }
}

impl fmt::Display for TrainerCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command: {}", self.program.command.join(" "))
    }
}

impl Product {
    /// Returns its training pipeline, if it has one.
    #[must_use]
    pub fn training(&self) -> Option<&TrainingPipeline> {
        self.pipelines.values().find_map(|pipeline| match pipeline {
            Pipeline::Training(training) => Some(training),
            _ => None,
        })
    }

    /// Returns its pipelines whose model a program of its folder fits.
    pub fn trainers(&self) -> impl Iterator<Item = (&TrainingPipeline, &TrainerCommand)> {
        self.pipelines.values().filter_map(|pipeline| match pipeline {
            Pipeline::Training(training) => match &training.train {
                Trainer::Command(command) => Some((training, command)),
                Trainer::Builtin(_) => None,
            },
            _ => None,
        })
    }

    /// Returns whether anything of its folder is begun.
    #[must_use]
    pub fn has_programs(&self) -> bool {
        self.commands().next().is_some() || self.trainers().next().is_some()
    }

    /// Returns the files that its trainers are shown, with their blob ids, by path below its folder.
    ///
    /// These are all but those that Hydromesh reads itself: manifests, contracts, queries, and the rows of input ports. Labels may be
    /// among the last, and what a trainer does must not hang on a comment in `pipeline.yaml`.
    #[must_use]
    pub fn trainer_files(&self) -> BTreeMap<&str, &str> {
        let queries: BTreeSet<&str> = self.pipelines.values().filter_map(query_file).collect();
        let globs: Vec<&str> = self
            .inputs
            .values()
            .filter_map(|input| match &input.source {
                InputSource::Files { glob, .. } => Some(glob.as_str()),
                InputSource::Port { .. } | InputSource::Topic { .. } => None,
            })
            .collect();
        let ours = |path: &str, relative: &str| {
            queries.contains(path)
                || is_manifest(relative)
                || globs.iter().any(|glob| glob_matches(glob, relative))
        };
        self.files
            .iter()
            .filter_map(|(path, oid)| {
                let relative = path.strip_prefix(&self.folder)?.trim_start_matches('/');
                (!ours(path, relative)).then_some((relative, oid.as_str()))
            })
            .collect()
    }
}

fn query_file(pipeline: &Pipeline) -> Option<&str> {
    match pipeline {
        Pipeline::Batch(it) => Some(&it.sql.file),
        Pipeline::Stream(it) => Some(&it.sql.file),
        Pipeline::Feature(it) => Some(&it.select.file),
        Pipeline::Training(it) => Some(&it.spine.file),
        Pipeline::Embedding(_) => None,
    }
}

fn is_manifest(relative: &str) -> bool {
    !relative.contains('/')
        && (["product.odps.yaml", "pipeline.yaml"].contains(&relative) || relative.ends_with(".odcs.yaml"))
}
