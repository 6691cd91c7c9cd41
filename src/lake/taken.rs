//! Taking over what another table shows: files of the same rows, copied and not computed again.
//!
//! A file of ours is named by the digest of its content. So what two versions show, of one table or of two, is compared without
//! reading a row: the same content is the same rows. And a copy is known to be what was written, or not to be, once it is read.
//!
//! Files are copied and not linked. A link would be the other table's file for ever: whoever may write there could change rows
//! here, and a file system that lets nobody link what is somebody else's would refuse it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use arrow::datatypes::{Field, Schema, SchemaRef};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use sha2::{Digest as _, Sha256};

use super::fileset::{FileEntry, FileSet};
use super::fs::{blocking, remove_if_there};
use super::observe::key_of;
use super::stage::{CREATED_BY, StagePlan, Staged, StagedFile, content_digest, content_name};
use super::stats::column_stats;
use super::{CommitMeta, LakeError, Table, Version};
use crate::fault::point;

/// What a version of a table shows, or a partition of it.
#[derive(Debug)]
pub struct Shown(FileSet);

/// What tells the content of a file from that of any other: digest, bytes and rows.
type Content<'a> = (&'a str, u64, u64);

impl Table {
    /// Returns what a version shows.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub async fn shown(&self, at: Version) -> Result<Shown, LakeError> {
        Ok(Shown(self.file_set(Some(at)).await?))
    }

    /// Copies files of another table, one partition of it or all it shows, as staged files of this one.
    ///
    /// Nothing that this version of Hydromesh would not have written itself is taken: every file must be as long as its table's
    /// log says, hold what its name says, and have columns that this table stores alike.
    ///
    /// # Errors
    /// [`LakeError::Untaken`] when a file is not what it should be; then nothing of it is left here. The other table is only read.
    pub async fn take_over(&self, meta: &CommitMeta, shown: &Shown) -> Result<Staged, LakeError> {
        let plan = self.stage_plan(meta).await?;
        let (dir, files) = (shown.0.dir.clone(), shown.0.files.clone());
        let same_cut = plan.partition_by == shown.0.partition_by;
        let table = self.dir.clone();
        let staged = blocking(move || {
            if !same_cut {
                return Err(untaken(&dir, "is cut by another column"));
            }
            let mut taken: Vec<StagedFile> = Vec::with_capacity(files.len());
            for (index, entry) in (0..).zip(&files) {
                match copy(&plan, &dir, entry, index) {
                    Ok(file) => taken.push(file),
                    Err(error) => {
                        for file in taken.iter().filter(|file| file.fresh) {
                            remove_if_there(&table.join(&file.path))?;
                        }
                        return Err(error);
                    }
                }
            }
            Ok(plan.staged(taken))
        })
        .await;
        point("lake.after-stage");
        staged
    }
}

impl Shown {
    /// Returns whether another version shows the very same rows: all of them, or those of some stretches of partitions, first and
    /// last. Files whose content is not known by their name are never the same.
    #[must_use]
    pub fn shows_as(&self, other: &Self, stretches: Option<&[(String, String)]>) -> bool {
        columns(&self.0.schema) == columns(&other.0.schema)
            && self.0.partition_by == other.0.partition_by
            && match (contents(&self.0, stretches), contents(&other.0, stretches)) {
                (Some(these), Some(those)) => these == those,
                _ => false,
            }
    }

    /// Returns the part that a publication brought: all files of a partition, or of the whole table, if the commit of this key made
    /// them and they have so many rows.
    #[must_use]
    pub fn part(&self, partition: Option<&str>, key: &str, rows: u64) -> Option<Self> {
        let of = |file: &&FileEntry| partition.is_none() || file.partition.as_deref() == partition;
        let files: Vec<FileEntry> = self.0.files.iter().filter(of).cloned().collect();
        let counted = files.iter().map(|file| file.rows).sum::<Option<u64>>();
        let made = files.iter().all(|file| key_of(&file.path) == Some(key));
        let whole = !files.is_empty() && made && counted == Some(rows);
        whole.then(|| {
            let set = &self.0;
            Self(FileSet {
                dir: set.dir.clone(),
                version: set.version,
                schema: set.schema.clone(),
                partition_by: set.partition_by.clone(),
                partition_column: set.partition_column,
                files,
            })
        })
    }
}

/// Returns the columns by name; their order is no part of the rows.
fn columns(schema: &SchemaRef) -> Vec<&Field> {
    let mut columns: Vec<&Field> = schema.fields().iter().map(AsRef::as_ref).collect();
    columns.sort_by(|left, right| left.name().cmp(right.name()));
    columns
}

/// Returns the contents of each partition, in order; nothing when one is not known.
fn contents<'a>(
    set: &'a FileSet,
    stretches: Option<&[(String, String)]>,
) -> Option<BTreeMap<Option<&'a str>, Vec<Content<'a>>>> {
    let mut contents: BTreeMap<Option<&str>, Vec<Content<'_>>> = BTreeMap::new();
    for file in &set.files {
        let partition = file.partition.as_deref();
        let within = stretches.is_none_or(|stretches| {
            let within =
                |key: &str| stretches.iter().any(|(from, to)| from.as_str() <= key && key <= to.as_str());
            partition.is_some_and(within)
        });
        if within {
            let content = (content_digest(&file.path)?, file.bytes, file.rows?);
            contents.entry(partition).or_default().push(content);
        }
    }
    for files in contents.values_mut() {
        files.sort_unstable();
    }
    Some(contents)
}

fn untaken(path: &Path, why: impl Into<String>) -> LakeError {
    LakeError::Untaken { path: path.to_path_buf(), why: why.into() }
}

/// Copies one file under its final name here. It is the copy that is looked at, so that nothing can happen to it in between.
fn copy(plan: &StagePlan, dir: &Path, entry: &FileEntry, index: u32) -> Result<StagedFile, LakeError> {
    let source = dir.join(&entry.path);
    let about =
        std::fs::symlink_metadata(&source).map_err(|error| LakeError::io("look at", &source, error))?;
    if !about.is_file() || about.len() != entry.bytes {
        return Err(untaken(
            &source,
            format!("is {} bytes long where {} were written", about.len(), entry.bytes),
        ));
    }
    let temporary = plan.temporary(entry.partition.as_deref())?;
    let taken = std::fs::copy(&source, &temporary)
        .map_err(|error| LakeError::io("copy", &source, error))
        .and_then(|_| settle(plan, &source, &temporary, entry, index));
    if taken.is_err() {
        // On a full disk each attempt would leave another one.
        let _ = std::fs::remove_file(&temporary);
    }
    taken
}

fn settle(
    plan: &StagePlan,
    source: &Path,
    temporary: &Path,
    entry: &FileEntry,
    index: u32,
) -> Result<StagedFile, LakeError> {
    let unreadable = |error: std::io::Error| LakeError::io("read", temporary, error);
    let mut file = File::open(temporary).map_err(unreadable)?;
    let (digest, bytes) = digest(&mut file).map_err(unreadable)?;
    if bytes != entry.bytes || content_digest(&entry.path) != Some(digest.as_str()) {
        return Err(untaken(source, "does not hold what its name says"));
    }
    let footer = ParquetMetaDataReader::new().parse_and_finish(&file);
    let footer = footer.map_err(|error| untaken(source, error.to_string()))?;
    let schema = fitting(plan, &footer, entry).map_err(|why| untaken(source, why))?;
    file.sync_all().map_err(|error| LakeError::io("flush", temporary, error))?;
    let (path, fresh) = plan.settle(temporary, entry.partition.as_deref(), index, &digest)?;
    Ok(StagedFile {
        path,
        partition: entry.partition.clone(),
        rows: entry.rows.unwrap_or_default(),
        bytes,
        stats: column_stats(&schema, &footer)?,
        fresh,
    })
}

fn digest(file: &mut File) -> std::io::Result<(String, u64)> {
    let (mut digest, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((content_name(digest), bytes)),
            read => {
                digest.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

/// Returns the columns of a file if it is one that staging the same rows here would have written.
fn fitting(plan: &StagePlan, footer: &ParquetMetaData, entry: &FileEntry) -> Result<Schema, String> {
    let about = footer.file_metadata();
    if about.created_by() != Some(CREATED_BY) {
        return Err(format!("was written by {}", about.created_by().unwrap_or("nobody knows what")));
    }
    if u64::try_from(about.num_rows()).ok() != entry.rows {
        return Err(format!("has {} rows, and not those of its table's log", about.num_rows()));
    }
    let schema = parquet_to_arrow_schema(about.schema_descr(), about.key_value_metadata())
        .map_err(|error| error.to_string())?;
    let wanted = plan.written_schema();
    for field in schema.fields() {
        let here =
            wanted.field_with_name(field.name()).map_err(|_| format!("has a column {}", field.name()))?;
        // A table that got its column later allows nulls in it.
        let as_here = field.as_ref().clone().with_nullable(here.is_nullable());
        if as_here != *here || field.is_nullable() && !here.is_nullable() {
            return Err(format!("stores column {} otherwise", field.name()));
        }
    }
    let lacks =
        wanted.fields().iter().find(|it| schema.field_with_name(it.name()).is_err() && !it.is_nullable());
    match lacks {
        Some(field) => Err(format!("lacks column {}", field.name())),
        None => Ok(schema),
    }
}
