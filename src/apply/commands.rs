//! Quality rules that are programs of the product's folder: each is shown the rows that are to be published, and says a number.
//!
//! What a program complains of may hold rows, so it goes to a file for whoever may read the state folder, and to no log, mail or
//! page.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt as _;
use hydromesh_core::ids::PortId;
use hydromesh_core::model::{Contract, Product, Quality, QualityCheck, RowsFormat, RuleCommand};
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use tokio_util::sync::CancellationToken;

use super::{Context, Job, StepError};
use crate::child::{self, Ended, Scratch, Task, cell};

/// Below the state folder: where programs run, and what they complained of.
const SCRATCH: &str = "scratch";
const COMPLAINTS: &str = "complaints";
/// Bytes of a product's files that are laid before a program.
const MOST_FILES_BYTES: usize = 256 << 20;

/// What programs have measured, or why they have not, by rule.
pub(super) type Measured = BTreeMap<String, Result<f64, String>>;

/// Has every rule of a contract measured that is a program, one after the other. Rows are those that would be published.
///
/// # Errors
/// When the rows or the product's files cannot be read, or the disk takes no copy of them. What a program does is no error of the step.
pub(super) async fn measured(
    context: &Context,
    job: &Job,
    contract: &Contract,
    (port, partition): (&PortId, Option<&str>),
    rows: &Arc<dyn TableProvider>,
    cancel: &CancellationToken,
) -> Result<Measured, StepError> {
    let rules: Vec<(&Quality, &RuleCommand)> = contract
        .quality
        .iter()
        .filter_map(|rule| match &rule.check {
            QualityCheck::Command(command) => Some((rule, command)),
            _ => None,
        })
        .collect();
    if rules.is_empty() {
        return Ok(Measured::new());
    }
    let domain = &port.product.domain;
    if !context.settings.allow_commands.contains(domain) {
        let why = format!(
            "the environment {} does not allow commands of the domain {domain} (`allow_commands` in mesh.yaml)",
            context.environment
        );
        return Ok(rules.into_iter().map(|(rule, _)| (rule.id.clone(), Err(why.clone()))).collect());
    }
    let scratch = Scratch::new(&context.state.join(SCRATCH)).map_err(|error| unready("its folder", error))?;
    let scratch = Arc::new(scratch);
    lay_out(context, job.product()?, &scratch)?;
    let mut measured = Measured::new();
    for (rule, command) in rules {
        let file = show(rows, command.rows, &scratch.rows()).await?;
        let mut variables = vec![
            ("HYDROMESH_ROWS".to_owned(), format!("{}/{file}", cell::ROWS)),
            ("HYDROMESH_PORT".to_owned(), port.to_string()),
            ("HYDROMESH_RULE".to_owned(), rule.id.clone()),
        ];
        variables.extend(partition.map(|key| ("HYDROMESH_PARTITION".to_owned(), key.to_owned())));
        let task = Task {
            command: command.command.clone(),
            variables,
            timeout: Duration::from_millis(command.timeout.millis().unsigned_abs()),
            memory_mib: command.memory_mib,
        };
        let (folder, cancel) = (Arc::clone(&scratch), cancel.clone());
        let ended = tokio::task::spawn_blocking(move || child::run(&folder, &task, &cancel)).await;
        let ended = ended.map_err(|error| StepError::internal(error.to_string()))?;
        let number = match ended.map_err(|error| unready("its process", error))? {
            Ended::Well { said } => number(&said),
            Ended::Badly { how, complained } => {
                let kept = keep(&context.state.join(COMPLAINTS), port, &rule.id, &complained);
                let place = kept
                    .ok()
                    .flatten()
                    .map(|path| format!("; what it complained of is in {}", path.display()));
                Err(format!("its command ended with {how}{}", place.unwrap_or_default()))
            }
            Ended::NotBegun(why) => Err(format!("its command did not begin: {why}")),
            Ended::TooLong => {
                Err(format!("its command was stopped after its timeout of {}", command.timeout))
            }
            Ended::Cancelled => return Err(StepError::external("HM-X007", "cancelled")),
        };
        measured.insert(rule.id.clone(), number);
    }
    Ok(measured)
}

/// Returns the error of a step whose command could not be got ready.
fn unready(what: &str, error: impl std::fmt::Display) -> StepError {
    StepError::external("HM-X015", format!("a command could not be run: {what}: {error}")).refused()
}

/// Lays the files of a product before a program.
fn lay_out(context: &Context, product: &Product, scratch: &Scratch) -> Result<(), StepError> {
    let mut left = MOST_FILES_BYTES;
    for (path, oid) in &product.files {
        let relative = path.strip_prefix(&product.folder).map(|it| it.trim_start_matches('/'));
        let Some(relative) = relative else { continue };
        let bytes = context.blobs.read(oid).map_err(|error| unready(path, error))?;
        left = left.checked_sub(bytes.len()).ok_or_else(|| {
            let most = MOST_FILES_BYTES >> 20;
            StepError::user(
                "HM-X015",
                format!("the files of {} are over {most} MiB, too many for a command", product.id),
            )
        })?;
        scratch.put(relative, &bytes).map_err(|error| unready(path, error))?;
    }
    Ok(())
}

/// Writes rows as a program is to be shown them, once; returns the file's name.
async fn show(
    rows: &Arc<dyn TableProvider>,
    format: RowsFormat,
    folder: &Path,
) -> Result<&'static str, StepError> {
    let name = match format {
        RowsFormat::Parquet => "rows.parquet",
        RowsFormat::Csv => "rows.csv",
    };
    let path = folder.join(name);
    if path.exists() {
        return Ok(name);
    }
    write(rows, format, &path).await.map_err(|error| unready("its rows", error))?;
    Ok(name)
}

async fn write(
    rows: &Arc<dyn TableProvider>,
    format: RowsFormat,
    path: &Path,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let frame = SessionContext::new().read_table(Arc::clone(rows))?;
    let mut batches = frame.execute_stream().await?;
    let mut writer = Writer::new(format, File::create(path)?, &batches.schema())?;
    while let Some(batch) = batches.try_next().await? {
        writer.write(&batch)?;
    }
    Ok(writer.close()?)
}

/// Writes rows in one of the forms that a program may ask for.
enum Writer {
    Parquet(Box<ArrowWriter<File>>),
    Csv(Box<arrow::csv::Writer<File>>),
}

impl Writer {
    fn new(format: RowsFormat, file: File, schema: &SchemaRef) -> Result<Self, ParquetError> {
        Ok(match format {
            RowsFormat::Parquet => {
                Self::Parquet(Box::new(ArrowWriter::try_new(file, Arc::clone(schema), None)?))
            }
            RowsFormat::Csv => {
                let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(file);
                // The names, also where there are no rows.
                writer.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
                Self::Csv(Box::new(writer))
            }
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        match self {
            Self::Parquet(writer) => writer.write(batch),
            Self::Csv(writer) => Ok(writer.write(batch)?),
        }
    }

    fn close(self) -> Result<(), ParquetError> {
        match self {
            Self::Parquet(writer) => writer.close().map(drop),
            Self::Csv(_) => Ok(()),
        }
    }
}

/// Returns the number in the last line that a program said.
fn number(said: &str) -> Result<f64, String> {
    let line = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    let number = line.and_then(|line| line.parse::<f64>().ok()).filter(|number| number.is_finite());
    // What it said instead may be a row.
    number.ok_or_else(|| "the last line that its command wrote is no number".to_owned())
}

/// Keeps what a program complained of, until it complains again; returns where.
fn keep(folder: &Path, port: &PortId, rule: &str, complained: &str) -> io::Result<Option<PathBuf>> {
    if complained.trim().is_empty() {
        return Ok(None);
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let rule: String = rule.chars().map(plain).take(80).collect();
    let folder = folder.join(port.product.domain.as_str());
    crate::disk::create_folders(&folder)?;
    let path = folder.join(format!("{}.{}.{rule}.txt", port.product.name, port.port));
    crate::disk::replace(&path, complained.as_bytes())?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests;
