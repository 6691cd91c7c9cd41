//! Some of the rows that a quality rule did not want, for the people who must find out why.
//!
//! A sample is one file in the state folder per audit that had a failed rule. It never reaches the ledger, the lake, mail,
//! the site or the log: only who may read the state folder can ask for it. Of its values only those of columns that the
//! contract classifies as `public` are written down; of all others, only whether there is one. It expires.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::model::{Contract, Quality};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use crate::engine::{FAILING_COUNT, QualityOutcome};

/// The folder of samples in the state folder.
const FOLDER: &str = "samples";
/// Rows kept of each rule.
pub const MOST_ROWS: usize = 20;
/// Characters kept of each text: a sample is a hint, not a copy.
const MOST_CHARACTERS: usize = 200;
/// How long a sample is kept: a week has a working day, whenever it began.
const KEEP_MS: i64 = 7 * 24 * 3_600_000;
/// What stands for a value that may not be shown.
pub const MASK: &str = "***";

/// One sample as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The port.
    pub port: PortId,
    /// The partition; `None` for a whole table.
    pub partition: Option<String>,
    /// The run.
    pub run: String,
    /// When it was taken, milliseconds UTC.
    pub at_ms: i64,
    /// From when on it is not shown, and deleted.
    pub expires_ms: i64,
    /// Columns whose values are masked.
    pub masked: Vec<String>,
    /// By rule, in the order of the contract.
    pub rules: Vec<FailingRows>,
}

/// Some rows that one rule did not want.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailingRows {
    /// The rule.
    pub rule: String,
    /// At most [`MOST_ROWS`], as objects.
    pub rows: Vec<Value>,
}

/// Keeps a sample of the rows that failed rules did not want. One that cannot be taken or written is left out: the audit's
/// answer does not hang on it.
pub(super) async fn keep(
    context: &Context,
    contract: &Contract,
    (port, partition, run): (&PortId, Option<&str>, &str),
    outcomes: &[QualityOutcome],
    table: Arc<dyn TableProvider>,
) {
    let now_ms = context.clock.now_ms();
    let root = context.state.join(FOLDER);
    let failed = |rule: &&Quality| outcomes.iter().any(|it| it.rule == rule.id && it.is_failed());
    let failed: Vec<&Quality> = contract.quality.iter().filter(failed).collect();
    let mut rules = Vec::new();
    for (rule, batches) in context.engine.failing_rows(&failed, table, port.port.as_str(), MOST_ROWS).await {
        if let Some(rows) = shown(&batches, contract).filter(|rows| !rows.is_empty()) {
            rules.push(FailingRows { rule, rows });
        }
    }
    let hidden = contract.columns.iter().filter(|column| !column.is_public());
    let sample = Sample {
        port: port.clone(),
        partition: partition.map(str::to_owned),
        run: run.to_owned(),
        at_ms: now_ms,
        expires_ms: now_ms.saturating_add(KEEP_MS),
        masked: hidden.map(|column| column.name.clone()).collect(),
        rules,
    };
    if sample.rules.is_empty() {
        return;
    }
    let written = tokio::task::spawn_blocking(move || write(&root, &sample)).await;
    let error = match written {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(%port, run, "could not keep a sample of failing rows: {error}");
}

/// Deletes samples whose time is over.
pub(super) async fn expire(context: &Context) {
    let (root, now_ms) = (context.state.join(FOLDER), context.clock.now_ms());
    // What cannot be deleted now is tried again by the next step.
    let _ = tokio::task::spawn_blocking(move || sweep(&root, now_ms)).await;
}

/// Returns the samples of a product that have not expired, oldest first.
///
/// # Errors
/// When the folder cannot be read. A file that is no sample is left out.
pub fn samples(state: &Path, product: &ProductId, now_ms: i64) -> std::io::Result<Vec<Sample>> {
    let folder = state.join(FOLDER).join(product.domain.as_str());
    let mut found = Vec::new();
    for path in files(&folder)? {
        let sample =
            std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Sample>(&bytes).ok());
        found.extend(sample.filter(|it| it.port.product == *product && it.expires_ms > now_ms));
    }
    found.sort_by(|left, right| {
        (left.at_ms, &left.run, &left.partition).cmp(&(right.at_ms, &right.run, &right.partition))
    });
    Ok(found)
}

/// Returns rows as objects, with the values of every column masked that the contract does not call public.
fn shown(batches: &[RecordBatch], contract: &Contract) -> Option<Vec<Value>> {
    let public = |name: &str| {
        name == FAILING_COUNT
            || contract.columns.iter().any(|column| column.name == name && column.is_public())
    };
    let mut rows: Vec<Value> = Vec::new();
    for batch in batches {
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            if public(field.name()) {
                fields.push(field.as_ref().clone());
                arrays.push(Arc::clone(array));
            } else {
                fields.push(Field::new(field.name(), DataType::Utf8, true));
                let nulls = array.logical_nulls();
                let is_null = |row: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                let masked: StringArray =
                    (0..array.len()).map(|row| (!is_null(row)).then_some(MASK)).collect();
                arrays.push(Arc::new(masked) as ArrayRef);
            }
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).ok()?;
        let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = builder.build::<_, arrow::json::writer::JsonArray>(Vec::new());
        writer.write(&batch).and_then(|()| writer.finish()).ok()?;
        let text = writer.into_inner();
        if !text.is_empty() {
            rows.extend(serde_json::from_slice::<Vec<Value>>(&text).ok()?);
        }
    }
    rows.iter_mut().filter_map(Value::as_object_mut).flat_map(|row| row.values_mut()).for_each(shorten);
    Some(rows)
}

fn shorten(value: &mut Value) {
    if let Value::String(text) = value
        && let Some((end, _)) = text.char_indices().nth(MOST_CHARACTERS)
    {
        text.truncate(end);
        text.push('…');
    }
}

/// Writes a sample where its owner alone can read it, whole or not at all.
fn write(root: &Path, sample: &Sample) -> std::io::Result<()> {
    let PortId { product, port } = &sample.port;
    let folder = root.join(product.domain.as_str()).join(format!("{}.{port}", product.name));
    std::fs::create_dir_all(&folder)?;
    let partition = sample.partition.as_deref().unwrap_or("whole");
    // The end of its time stands first, so that what has expired is known without being read.
    let path = folder.join(format!("{:015}-{}-{partition}.json", sample.expires_ms, sample.run));
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    file.write_all(&serde_json::to_vec_pretty(sample)?)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Deletes what has expired.
fn sweep(root: &Path, now_ms: i64) {
    for path in files(root).unwrap_or_default() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let expires = name.split('-').next().and_then(|digits| digits.parse::<i64>().ok());
        if expires.is_some_and(|expires_ms| expires_ms <= now_ms) {
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Returns the files below a folder; none when it is not there.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut next = vec![folder.to_owned()];
    while let Some(folder) = next.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                next.push(path);
            } else if path.extension().is_some_and(|it| it == "json") {
                found.push(path);
            }
        }
    }
    Ok(found)
}
