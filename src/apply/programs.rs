//! What every program of a product's folder is given, and what becomes of what it says: rules (`commands.rs`) and trainers
//! (`train/program.rs`) alike.
//!
//! What a program complains of may hold rows, so it goes to a file for whoever may read the state folder, and to no log, mail or
//! page.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use hydromesh_core::ids::{DomainName, ProductId};
use hydromesh_core::model::RowsFormat;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;

use super::{Blobs, Context, StepError};
use crate::child::Scratch;

/// Below the state folder: where programs run, and what they complained of.
const SCRATCH: &str = "scratch";
const COMPLAINTS: &str = "complaints";
/// Bytes of a product's files that are laid before a program.
const MOST_FILES_BYTES: usize = 256 << 20;

/// Says why programs of a domain may not run in this environment, if they may not.
pub(super) fn forbidden(context: &Context, domain: &DomainName) -> Option<String> {
    let allowed = context.settings.allow_commands.contains(domain);
    (!allowed).then(|| {
        format!(
            "the environment {} does not allow commands of the domain {domain} (`allow_commands` in mesh.yaml)",
            context.environment
        )
    })
}

/// Returns an empty folder for one program.
pub(super) fn scratch(state: &Path) -> Result<Scratch, StepError> {
    Scratch::new(&state.join(SCRATCH)).map_err(|error| unready("its folder", error))
}

/// Returns the error of a step whose command could not be got ready.
pub(super) fn unready(what: &str, error: impl std::fmt::Display) -> StepError {
    StepError::external("HM-X015", format!("a command could not be run: {what}: {error}")).refused()
}

/// Lays files of a product before a program, by path below the product's folder and blob id.
pub(super) fn lay_out<'a>(
    blobs: &dyn Blobs,
    product: &ProductId,
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
    scratch: &Scratch,
) -> Result<(), StepError> {
    let mut left = MOST_FILES_BYTES;
    for (path, oid) in files {
        let bytes = blobs.read(oid).map_err(|error| unready(path, error))?;
        left = left.checked_sub(bytes.len()).ok_or_else(|| {
            let most = MOST_FILES_BYTES >> 20;
            StepError::user(
                "HM-X015",
                format!("the files of {product} are over {most} MiB, too many for a command"),
            )
        })?;
        scratch.put(path, &bytes).map_err(|error| unready(path, error))?;
    }
    Ok(())
}

/// Returns the name of the file in which a program is shown rows.
pub(super) const fn rows_file(format: RowsFormat) -> &'static str {
    match format {
        RowsFormat::Parquet => "rows.parquet",
        RowsFormat::Csv => "rows.csv",
    }
}

/// Writes rows in one of the forms that a program may ask for.
pub(super) enum Writer {
    Parquet(Box<ArrowWriter<File>>),
    Csv(Box<arrow::csv::Writer<File>>),
}

impl Writer {
    pub(super) fn new(format: RowsFormat, file: File, schema: &SchemaRef) -> Result<Self, ParquetError> {
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

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        match self {
            Self::Parquet(writer) => writer.write(batch),
            Self::Csv(writer) => Ok(writer.write(batch)?),
        }
    }

    pub(super) fn close(self) -> Result<(), ParquetError> {
        match self {
            Self::Parquet(writer) => writer.close().map(drop),
            Self::Csv(_) => Ok(()),
        }
    }
}

/// Keeps what a program complained of, until it complains again; returns where, as the end of a sentence. What it is called must be fit
/// for the name of a file.
pub(super) fn kept(state: &Path, product: &ProductId, name: &str, complained: &str) -> String {
    let place = keep(&state.join(COMPLAINTS), product, name, complained);
    let place = place.ok().flatten().map(|path| format!("; what it complained of is in {}", path.display()));
    place.unwrap_or_default()
}

fn keep(folder: &Path, product: &ProductId, name: &str, complained: &str) -> io::Result<Option<PathBuf>> {
    if complained.trim().is_empty() {
        return Ok(None);
    }
    let folder = folder.join(product.domain.as_str());
    crate::disk::create_folders(&folder)?;
    let path = folder.join(format!("{}.{name}.txt", product.name));
    crate::disk::replace(&path, complained.as_bytes())?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_kept_until_the_next_ones_and_nothing_is_kept_of_silence() {
        let folder = tempfile::tempdir().expect("a folder");
        let product: ProductId = "shop/sales".parse().expect("an id");
        assert_eq!(kept(folder.path(), &product, "sales.r", " \n"), "");
        for text in ["first", "second"] {
            let path = folder.path().join("complaints/shop/sales.sales.r.txt");
            let told = kept(folder.path(), &product, "sales.r", text);
            assert_eq!(told, format!("; what it complained of is in {}", path.display()));
            assert_eq!(std::fs::read_to_string(path).expect("a file"), text);
        }
    }
}
