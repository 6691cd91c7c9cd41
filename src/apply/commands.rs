//! Quality rules that are programs of the product's folder: each is shown the rows that are to be published, and says a number.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt as _;
use hydromesh_core::ids::PortId;
use hydromesh_core::model::{Contract, Product, Program, Quality, QualityCheck, RowsFormat};
use tokio_util::sync::CancellationToken;

use super::programs::{Writer, forbidden, kept, lay_out, rows_file, scratch, unready};
use super::{Context, Job, StepError};
use crate::child::cell::{self, Network};
use crate::child::{self, Ended, Task};

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
    let rules: Vec<(&Quality, &Program)> = contract
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
    if let Some(why) = forbidden(context, &port.product.domain) {
        return Ok(rules.into_iter().map(|(rule, _)| (rule.id.clone(), Err(why.clone()))).collect());
    }
    let scratch = Arc::new(scratch(&context.state)?);
    let product = job.product()?;
    lay_out(&*context.blobs, &product.id, files(product), &scratch)?;
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
            network: Network::None,
        };
        let (folder, cancel) = (Arc::clone(&scratch), cancel.clone());
        let ended = tokio::task::spawn_blocking(move || child::run(&folder, &task, &cancel)).await;
        let ended = ended.map_err(|error| StepError::internal(error.to_string()))?;
        let number = match ended.map_err(|error| unready("its process", error))? {
            Ended::Well { said, .. } => number(&said),
            Ended::Badly { how, complained } => {
                let name = format!("{}.{}", port.port, plain(&rule.id));
                let place = kept(&context.state, &port.product, &name, &complained);
                Err(format!("its command ended with {how}{place}"))
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

/// Returns every file of a product by its path below the product's folder, with its blob id.
fn files(product: &Product) -> impl Iterator<Item = (&str, &str)> {
    product.files.iter().filter_map(|(path, oid)| {
        let relative = path.strip_prefix(&product.folder)?;
        Some((relative.trim_start_matches('/'), oid.as_str()))
    })
}

/// Returns a rule's id as a part of a file's name.
fn plain(rule: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    rule.chars().map(plain).take(80).collect()
}

/// Writes rows as a program is to be shown them, once; returns the file's name.
async fn show(
    rows: &Arc<dyn TableProvider>,
    format: RowsFormat,
    folder: &Path,
) -> Result<&'static str, StepError> {
    let name = rows_file(format);
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

/// Returns the number in the last line that a program said.
fn number(said: &str) -> Result<f64, String> {
    let line = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    let number = line.and_then(|line| line.parse::<f64>().ok()).filter(|number| number.is_finite());
    // What it said instead may be a row.
    number.ok_or_else(|| "the last line that its command wrote is no number".to_owned())
}

#[cfg(test)]
mod tests;
