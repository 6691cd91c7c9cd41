//! Writing the data files of a publish, before any reader can see them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray, RecordBatch, UInt32Array},
    compute::{cast, take_record_batch},
    datatypes::{DataType, SchemaRef},
};
use datafusion::{execution::SendableRecordBatchStream, scalar::ScalarValue};
use futures::StreamExt;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{
    LakeError, Version,
    fs::{blocking, create_folders, sync_dir},
    stats::{ColumnStats, column_stats},
    types::conform,
};

/// Bytes of unfinished row groups that may be in memory over all files of one stage.
const OPEN_BYTES: usize = 64 << 20;
/// Files of one stage that may be open at once; more partitions close the fullest and go on in a new one.
const OPEN_FILES: usize = 64;
/// A file is closed and a new one begun past this size.
const FILE_BYTES: usize = 256 << 20;

/// What a file says of who wrote it.
pub(super) const CREATED_BY: &str = concat!("hydromesh ", env!("CARGO_PKG_VERSION"));

/// Where the partition column's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartitionColumn {
    /// In the data files, as Iceberg has it.
    InFiles,
    /// In the table's log only, as Delta has it.
    InLog,
}

/// Everything a stage needs to know of the table, read once.
#[derive(Debug, Clone)]
pub(super) struct StagePlan {
    pub table: PathBuf,
    /// Folder of data files within the table; empty for the table's own folder.
    pub data: &'static str,
    /// The table's newest version. A file that is made from here on can only be part of later ones.
    pub version: Version,
    /// The table's columns, plain.
    pub schema: SchemaRef,
    /// The columns as written, with the field ids that Iceberg needs, including the partition column.
    pub file_schema: SchemaRef,
    pub partition_by: Option<String>,
    pub partition_column: PartitionColumn,
    /// Begins every file name: unique to the key and the writer's epoch.
    pub prefix: String,
}

impl StagePlan {
    /// Returns the columns inside the files.
    pub fn written_schema(&self) -> SchemaRef {
        match (&self.partition_by, self.partition_column) {
            (Some(by), PartitionColumn::InLog) => {
                let kept: Vec<_> =
                    self.file_schema.fields().iter().filter(|field| field.name() != by).cloned().collect();
                Arc::new(arrow::datatypes::Schema::new(kept))
            }
            _ => self.file_schema.clone(),
        }
    }

    /// Returns the path of a new file that has no final name yet, and makes its folder.
    pub fn temporary(&self, partition: Option<&str>) -> Result<PathBuf, LakeError> {
        let folder = self.table.join(self.data).join(self.folder_of(partition));
        create_folders(&folder)?;
        Ok(folder.join(format!(".{}.parquet.tmp", uuid::Uuid::new_v4())))
    }

    /// Gives a finished file its final name, which tells its content apart from any other. Returns its path within the table, and
    /// whether there was none of that name.
    pub fn settle(
        &self,
        temporary: &Path,
        partition: Option<&str>,
        index: u32,
        content: &str,
    ) -> Result<(String, bool), LakeError> {
        let name = format!("{}-{index:05}-{content}.parquet", self.prefix);
        let relative = Path::new(self.data).join(self.folder_of(partition)).join(name);
        let path = self.table.join(&relative);
        let fresh = !path.exists();
        std::fs::rename(temporary, &path).map_err(|source| LakeError::io("name", &path, source))?;
        path.parent().map_or(Ok(()), sync_dir)?;
        Ok((relative.to_string_lossy().into_owned(), fresh))
    }

    /// Returns files as what was staged.
    pub fn staged(&self, mut files: Vec<StagedFile>) -> Staged {
        files.sort_by(|left, right| left.path.cmp(&right.path));
        Staged {
            rows: files.iter().map(|file| file.rows).sum(),
            bytes: files.iter().map(|file| file.bytes).sum(),
            files,
            schema: self.schema.clone(),
            partition_by: self.partition_by.clone(),
            partition_column: self.partition_column,
            version: self.version,
        }
    }

    /// `column=value` where that is a plain folder name on every system and in every URL, else a
    /// digest: readers take the value from the table's log, the name is for humans.
    fn folder_of(&self, partition: Option<&str>) -> String {
        let (Some(by), Some(value)) = (&self.partition_by, partition) else { return String::new() };
        let plain = |text: &str| {
            text.len() <= 64
                && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        if plain(by) && plain(value) {
            format!("{by}={value}")
        } else {
            format!("part={}", super::commit::short_digest(value.as_bytes()))
        }
    }
}

/// Returns what the name of a file says of its content.
pub(super) fn content_name(digest: Sha256) -> String {
    hex::encode(&digest.finalize()[..6])
}

/// Returns what a file of ours is said to hold by its name: `part-<digest>-e<epoch>-<index>-<content>.parquet`.
pub(super) fn content_digest(path: &str) -> Option<&str> {
    super::observe::key_of(path)?;
    let content = path.strip_suffix(".parquet")?.rsplit_once('-')?.1;
    (content.len() == 12 && content.chars().all(|c| c.is_ascii_hexdigit())).then_some(content)
}

/// Data files that are written and not yet visible.
#[derive(Debug, Clone)]
pub struct Staged {
    pub rows: u64,
    pub bytes: u64,
    pub files: Vec<StagedFile>,
    pub(super) schema: SchemaRef,
    pub(super) partition_by: Option<String>,
    pub(super) partition_column: PartitionColumn,
    /// The table's newest version before its files were made.
    pub(super) version: Version,
}

#[derive(Debug, Clone)]
pub struct StagedFile {
    /// Relative to the table's folder.
    pub path: String,
    pub partition: Option<String>,
    pub rows: u64,
    pub bytes: u64,
    pub(super) stats: BTreeMap<String, ColumnStats>,
    /// Whether this stage made the file; otherwise an earlier one had left the very same.
    pub(super) fresh: bool,
}

/// Drains `batches` into files. Dropping the future leaves no file under its final name that
/// [`super::Table::sweep`] would not find.
pub(super) async fn write_staged(
    plan: StagePlan,
    mut batches: SendableRecordBatchStream,
) -> Result<Staged, LakeError> {
    // Encoding is work for a thread of its own; two batches of slack keep both sides busy.
    let (send, mut receive) = mpsc::channel::<Option<RecordBatch>>(2);
    let writing = blocking(move || {
        let mut writer = StageWriter::new(plan);
        loop {
            match receive.blocking_recv() {
                Some(Some(batch)) => writer.write(&batch)?,
                Some(None) => return writer.finish(),
                // The reading side gave up: the open files vanish with the writer.
                None => return Ok(writer.abandon()),
            }
        }
    });
    let reading = async move {
        while let Some(batch) = batches.next().await {
            if send.send(Some(batch?)).await.is_err() {
                // The writer failed; its error is the one to tell.
                return Ok(());
            }
        }
        let _ = send.send(None).await;
        Ok::<(), LakeError>(())
    };
    // `reading` owns the sender, so its end, good or bad, is the writer's too.
    let (read, written) = tokio::join!(reading, writing);
    read?;
    written
}

/// Writes a file without rows: the mark that a partition is known to be empty.
pub(super) async fn write_empty(plan: StagePlan, partition: String) -> Result<StagedFile, LakeError> {
    blocking(move || {
        let mut writer = StageWriter::new(plan);
        writer.open_file(Some(&partition))?;
        let mut staged = writer.finish()?;
        Ok(staged.files.pop().expect("one file was opened"))
    })
    .await
}

/// Fails unless `value` can be a value of the partition column.
pub(super) fn check_partition_value(staged: &Staged, value: &str) -> Result<(), LakeError> {
    let Some(column) = &staged.partition_by else { return Ok(()) };
    partition_scalar(&staged.schema, column, value).map(|_| ())
}

/// Returns a partition value in the column's own type.
pub(super) fn partition_scalar(
    schema: &SchemaRef,
    column: &str,
    value: &str,
) -> Result<ScalarValue, LakeError> {
    let bad = || LakeError::BadPartition { column: column.to_owned(), value: value.to_owned() };
    if value.is_empty() {
        return Err(bad());
    }
    match schema.field_with_name(column)?.data_type() {
        DataType::Date32 => {
            let day = chrono::NaiveDate::parse_from_str(value, "%Y-%m-%d").map_err(|_| bad())?;
            Ok(ScalarValue::Date32(Some(arrow::datatypes::Date32Type::from_naive_date(day))))
        }
        DataType::Int64 => Ok(ScalarValue::Int64(Some(value.parse().map_err(|_| bad())?))),
        _ => Ok(ScalarValue::Utf8(Some(value.to_owned()))),
    }
}

struct StageWriter {
    plan: StagePlan,
    written_schema: SchemaRef,
    open: BTreeMap<Option<String>, OpenFile>,
    next_index: u32,
    done: Vec<StagedFile>,
}

struct OpenFile {
    writer: ArrowWriter<HashingFile>,
    temporary: PathBuf,
    index: u32,
    rows: u64,
}

struct HashingFile {
    file: File,
    digest: Sha256,
    bytes: u64,
}

impl Write for HashingFile {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.digest.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl StageWriter {
    fn new(plan: StagePlan) -> Self {
        let written_schema = plan.written_schema();
        StageWriter { plan, written_schema, open: BTreeMap::new(), next_index: 0, done: Vec::new() }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), LakeError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = conform(batch, &self.plan.schema)?;
        let Some(by) = self.plan.partition_by.clone() else {
            return self.write_part(None, &batch);
        };
        for (value, rows) in rows_by_partition(&batch, &by)? {
            if rows.len() == batch.num_rows() {
                self.write_part(Some(&value), &batch)?;
            } else {
                self.write_part(Some(&value), &take_record_batch(&batch, &UInt32Array::from(rows))?)?;
            }
        }
        Ok(())
    }

    fn write_part(&mut self, partition: Option<&str>, batch: &RecordBatch) -> Result<(), LakeError> {
        let key = partition.map(str::to_owned);
        if !self.open.contains_key(&key) {
            self.open_file(partition)?;
        }
        let mut columns = Vec::with_capacity(self.written_schema.fields().len());
        for field in self.written_schema.fields() {
            let column = batch.column_by_name(field.name()).expect("rows conform to the table's columns");
            // Only the field id inside a list can differ; flat types carry theirs beside them.
            columns.push(if column.data_type() == field.data_type() {
                column.clone()
            } else {
                cast(column, field.data_type())?
            });
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(self.written_schema.clone(), columns, &options)?;
        let file = self.open.get_mut(&key).expect("opened above");
        file.writer.write(&batch)?;
        file.rows += batch.num_rows() as u64;
        if file.writer.bytes_written() > FILE_BYTES {
            self.close(key.as_deref())?;
        }
        while self.open.values().map(|file| file.writer.memory_size()).sum::<usize>() > OPEN_BYTES {
            let fullest = self.open.values_mut().max_by_key(|file| file.writer.memory_size());
            let Some(fullest) = fullest.filter(|file| file.writer.in_progress_rows() > 0) else { break };
            fullest.writer.flush()?;
        }
        Ok(())
    }

    fn open_file(&mut self, partition: Option<&str>) -> Result<(), LakeError> {
        if self.open.len() >= OPEN_FILES {
            let fullest = self.open.iter().max_by_key(|(_, file)| file.rows).map(|(key, _)| key.clone());
            if let Some(key) = fullest {
                self.close(key.as_deref())?;
            }
        }
        let temporary = self.plan.temporary(partition)?;
        let file = File::create(&temporary).map_err(|source| LakeError::io("create", &temporary, source))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_created_by(CREATED_BY.to_owned())
            .build();
        let writer = ArrowWriter::try_new_with_options(
            HashingFile { file, digest: Sha256::new(), bytes: 0 },
            self.written_schema.clone(),
            ArrowWriterOptions::new().with_properties(properties),
        )?;
        let index = self.next_index;
        self.next_index += 1;
        self.open.insert(partition.map(str::to_owned), OpenFile { writer, temporary, index, rows: 0 });
        Ok(())
    }

    /// Finishes a file and gives it its final name.
    fn close(&mut self, key: Option<&str>) -> Result<(), LakeError> {
        let Some(file) = self.open.remove(&key.map(str::to_owned)) else { return Ok(()) };
        let temporary = file.temporary.clone();
        let closed = self.name(key, file);
        if closed.is_err() {
            // On a full disk each attempt would leave another one.
            let _ = std::fs::remove_file(&temporary);
        }
        closed
    }

    fn name(&mut self, key: Option<&str>, mut file: OpenFile) -> Result<(), LakeError> {
        let footer = file.writer.finish()?;
        let sink = file.writer.inner();
        sink.file.sync_all().map_err(|source| LakeError::io("flush", &file.temporary, source))?;
        let content = content_name(sink.digest.clone());
        let bytes = sink.bytes;
        let (path, fresh) = self.plan.settle(&file.temporary, key, file.index, &content)?;
        self.done.push(StagedFile {
            path,
            partition: key.map(str::to_owned),
            rows: file.rows,
            bytes,
            stats: column_stats(&self.written_schema, &footer)?,
            fresh,
        });
        Ok(())
    }

    fn finish(mut self) -> Result<Staged, LakeError> {
        while let Some(key) = self.open.keys().next().cloned() {
            self.close(key.as_deref())?;
        }
        let files = std::mem::take(&mut self.done);
        Ok(self.plan.staged(files))
    }

    fn abandon(self) -> Staged {
        self.plan.staged(Vec::new())
    }
}

impl Drop for StageWriter {
    fn drop(&mut self) {
        for file in self.open.values() {
            // Nothing more can be done here; `sweep` finds what is left.
            let _ = std::fs::remove_file(&file.temporary);
        }
    }
}

fn rows_by_partition(batch: &RecordBatch, by: &str) -> Result<BTreeMap<String, Vec<u32>>, LakeError> {
    let null = || LakeError::NullPartition { column: by.to_owned() };
    let column =
        batch.column_by_name(by).ok_or_else(|| LakeError::MissingColumn { column: by.to_owned() })?;
    if column.null_count() > 0 {
        return Err(null());
    }
    let text = cast(column, &DataType::Utf8)?;
    let text = text.as_string::<i32>();
    let mut groups: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (row, value) in (0u32..).zip(text.iter()) {
        let value = value.filter(|value| !value.is_empty()).ok_or_else(null)?;
        match groups.get_mut(value) {
            Some(rows) => rows.push(row),
            None => {
                groups.insert(value.to_owned(), vec![row]);
            }
        }
    }
    Ok(groups)
}
