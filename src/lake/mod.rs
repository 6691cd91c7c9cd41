//! Tables in the lake: Delta and Iceberg behind one interface (stage, audit, publish).
//!
//! A publish is three steps. [`Table::stage`] writes Parquet files that no reader can see. The
//! caller runs its quality rules on exactly those files through [`Table::staged_provider`].
//! [`Table::publish`] makes them visible in one atomic table commit, or not at all.
//!
//! What every commit carries, in both formats ([`CommitMeta`]): an idempotency key, the writer's
//! epoch, the time of the injected clock and, for streams, a checkpoint chained to the one before.
//! All three are judged against the very snapshot the commit is made on, and the commit succeeds
//! only if that snapshot is still the newest; otherwise the newest is loaded and judged again. So
//! a lost answer, a retry or a stale leader can neither double nor overwrite anything.
//!
//! Data files never change once written, and their names are unique to key, writer epoch and
//! content, so an old version stays readable until [`Table::sweep`] finds files of no version.

mod commit;
mod copied;
mod damage;
mod delta;
mod delta_log;
mod error;
mod fileset;
mod fs;
mod hash;
mod iceberg;
mod iceberg_books;
mod iceberg_log;
mod iceberg_types;
mod keep;
mod leave;
mod observe;
mod overlay;
mod stage;
mod stats;
mod taken;
#[cfg(test)]
#[expect(clippy::cast_possible_wrap, clippy::cast_precision_loss, reason = "a handful of rows")]
mod tests;
mod together;
mod types;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    catalog::TableProvider, execution::SendableRecordBatchStream,
    physical_plan::stream::RecordBatchStreamAdapter,
};

use self::{
    commit::retry_limit,
    fileset::FileSet,
    stage::{StagePlan, write_staged},
};
use crate::fault::point;

pub use self::{
    commit::{Checkpoint, CommitMeta, Outcome, PublishMode, Published, Version, Writer},
    copied::{Amount, Copied, copy_folder},
    error::LakeError,
    keep::Keep,
    leave::{Leave, Left},
    stage::{Staged, StagedFile},
    taken::Shown,
    together::PutTogether,
};

/// The formats a port's table can have; an environment chooses per port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFormat {
    Delta,
    Iceberg,
}

/// One environment's lake: a local folder that holds `<domain>/<product>.<port>/` per table.
#[derive(Debug, Clone)]
pub struct Lake {
    root: PathBuf,
    /// The lake below a preview's, see [`Lake::over`].
    below: Option<PathBuf>,
}

/// The shape a table is wanted to have.
#[derive(Debug, Clone)]
pub struct TableSpec {
    pub schema: SchemaRef,
    /// At most one partition column, of type date, string or integer. Its values are never null or empty.
    pub partition_by: Option<String>,
}

/// What [`Table::ensure`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    Added,
    Updated,
    NotNeeded,
}

/// What is really there. A table that cannot be read is an error, never `Absent`.
#[derive(Debug, Clone)]
pub enum TableState {
    Absent,
    Known(Box<KnownTable>),
}

#[derive(Debug, Clone)]
pub struct KnownTable {
    pub version: Version,
    pub schema: SchemaRef,
    pub partition_by: Option<String>,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    /// Of the newest publish; `None` when only `ensure` has committed so far.
    pub last_commit: Option<CommitMeta>,
}

/// One partition of one version. A partition published empty has `rows: 0`; one that was never
/// published is not listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionInfo {
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
}

/// One table of the lake. Cheap to make and to clone: every call reads the table's newest state.
#[derive(Debug, Clone)]
pub struct Table {
    address: String,
    dir: PathBuf,
    format: TableFormat,
    /// The newest version that was ever told of the table, see [`Table::above`].
    above: Option<Version>,
    /// Its folder in the lake below, see [`Lake::over`].
    below: Option<PathBuf>,
}

impl Lake {
    /// Opens the lake in `root`, creating the folder when it is missing.
    pub async fn open(root: impl AsRef<Path>) -> Result<Lake, LakeError> {
        let root = root.as_ref().to_path_buf();
        let root = fs::blocking(move || {
            crate::disk::create_folders(&root)
                .and_then(|()| root.canonicalize())
                .map_err(|source| LakeError::io("open the lake folder", &root, source))
        })
        .await?;
        Ok(Lake { root, below: None })
    }

    /// Returns a lake that is there already, to be read; nothing is created.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn found(root: impl AsRef<Path>) -> Result<Lake, LakeError> {
        let root = root.as_ref().to_path_buf();
        let found = fs::blocking(move || {
            root.canonicalize().map_err(|source| LakeError::io("find the lake folder", &root, source))
        });
        Ok(Lake { root: found.await?, below: None })
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the table at `domain/product.port`. Nothing is opened or created yet.
    pub fn table(&self, address: &str, format: TableFormat) -> Result<Table, LakeError> {
        let bad = |why| LakeError::BadAddress { address: address.to_owned(), why };
        let (domain, port) = address.split_once('/').ok_or_else(|| bad("expected domain/product.port"))?;
        let (product, name) = port.split_once('.').ok_or_else(|| bad("expected domain/product.port"))?;
        for part in [domain, product, name] {
            // The parts become folder names and parts of URLs: nothing that either would encode.
            let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            if part.is_empty() || part.starts_with('.') || !plain {
                return Err(bad("only letters, digits, '-', '_' and inner '.' are allowed in a name"));
            }
        }
        let dir = self.root.join(domain).join(port);
        let below = self.below.as_ref().map(|root| root.join(domain).join(port));
        let above = below.as_ref().map(|_| overlay::ABOVE);
        Ok(Table { address: address.to_owned(), dir, format, above, below })
    }
}

impl Table {
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    #[must_use]
    pub fn format(&self) -> TableFormat {
        self.format
    }

    /// The folder of the table, for readers that are not ours.
    #[must_use]
    pub fn location(&self) -> &Path {
        &self.dir
    }

    /// Returns the table as one whose versions were told of up to this one.
    ///
    /// When it has to be made anew, because somebody dropped it, its versions go on above: whoever remembers a version
    /// of the table that was must never take one of the new table for it.
    #[must_use]
    pub fn above(self, version: Option<Version>) -> Self {
        Table { above: version.max(self.above), ..self }
    }

    /// Moves what lies in the table's place out of the way, under a name of its own beside it, and returns where to.
    pub async fn set_aside(&self) -> Result<PathBuf, LakeError> {
        let mark = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let name = format!("{}.replaced-{mark}", self.dir.file_name().unwrap_or_default().to_string_lossy());
        let (dir, aside) = (self.dir.clone(), self.dir.with_file_name(name));
        fs::blocking(move || {
            std::fs::rename(&dir, &aside).map_err(|source| LakeError::io("move aside", &dir, source))?;
            aside.parent().map_or(Ok(()), fs::sync_dir)?;
            Ok(aside)
        })
        .await
    }

    /// Fails when the newest version is older than one that was told of before.
    fn check_above(&self, newest: Version) -> Result<(), LakeError> {
        match self.above {
            Some(above) if newest < above => {
                Err(LakeError::Replaced { address: self.address.clone(), newest, above })
            }
            _ => Ok(()),
        }
    }

    /// Creates the table, or adds the columns it lacks, so that it has the wanted shape.
    ///
    /// Columns are only ever added, at the end, and nullable: rows already there have no value
    /// for them. A column the table has and `spec` lacks stays.
    ///
    /// # Errors
    /// [`LakeError::IncompatibleSchema`] when a column has another type, a new column is not
    /// nullable, or the partition column differs; [`LakeError::Fenced`] for a stale writer;
    /// [`LakeError::Replaced`] when something else lies in its place, see [`Table::above`].
    pub async fn ensure(&self, spec: &TableSpec, writer: Writer) -> Result<Ensured, LakeError> {
        check_spec(spec)?;
        let attempt = || async {
            match self.format {
                TableFormat::Delta => delta::ensure(self, spec, writer).await,
                TableFormat::Iceberg => iceberg::ensure(self, spec, writer).await,
            }
        };
        let ensured = self.beside_others(attempt).await;
        point("lake.after-ensure");
        ensured
    }

    /// Tries to commit until nobody else was first, each time on the newest version.
    async fn beside_others<T, F: Future<Output = Result<T, LakeError>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, LakeError> {
        for _ in 0..retry_limit() {
            match attempt().await {
                Err(LakeError::Conflict) => tokio::task::yield_now().await,
                other => return other,
            }
        }
        Err(LakeError::Contended { address: self.address.clone(), attempts: retry_limit() })
    }

    /// Observes the table.
    pub async fn state(&self) -> Result<TableState, LakeError> {
        match self.format {
            TableFormat::Delta => delta::state(self).await,
            TableFormat::Iceberg => iceberg::state(self).await,
        }
    }

    /// Returns a provider over one version's files (the newest when `at` is `None`).
    ///
    /// The provider keeps that version: later commits do not change what it reads.
    pub async fn provider(&self, at: Option<Version>) -> Result<Arc<dyn TableProvider>, LakeError> {
        Ok(Arc::new(self.file_set(at).await?))
    }

    async fn file_set(&self, at: Option<Version>) -> Result<FileSet, LakeError> {
        match self.below_at(at) {
            Some(below) => below.pinned(at).await,
            None => self.own_file_set(at).await,
        }
    }

    async fn own_file_set(&self, at: Option<Version>) -> Result<FileSet, LakeError> {
        match self.format {
            TableFormat::Delta => delta::file_set(self, at).await,
            TableFormat::Iceberg => iceberg::file_set(self, at).await,
        }
    }

    /// Writes `batches` as Parquet files of this table that no reader sees until they are published.
    ///
    /// Columns are matched by name; a missing nullable column becomes null, view and dictionary
    /// arrays become plain ones, an unknown column is an error. Rows are split by the partition
    /// column. Files are complete and on disk when this returns. Memory is bounded by the row
    /// groups of the files being written, about 64 MiB.
    pub async fn stage(
        &self,
        meta: &CommitMeta,
        batches: SendableRecordBatchStream,
    ) -> Result<Staged, LakeError> {
        let staged = write_staged(self.stage_plan(meta).await?, batches).await;
        point("lake.after-stage");
        staged
    }

    async fn stage_plan(&self, meta: &CommitMeta) -> Result<StagePlan, LakeError> {
        match self.format {
            TableFormat::Delta => delta::stage_plan(self, meta).await,
            TableFormat::Iceberg => iceberg::stage_plan(self, meta).await,
        }
    }

    /// Returns a provider over staged files alone, so that rules judge what will be published.
    pub fn staged_provider(&self, staged: &Staged) -> Arc<dyn TableProvider> {
        Arc::new(FileSet::of_staged(&self.dir, staged))
    }

    /// Makes staged files visible in one atomic commit.
    ///
    /// A key that is already committed changes nothing and answers [`Outcome::AlreadyCommitted`]
    /// with the version that carries it. A publish with a checkpoint is remembered by its
    /// pipeline's newest commit alone: an older key of the same pipeline fails its chain instead.
    /// Replacing a partition by no rows publishes it as known to be empty.
    ///
    /// Files that this call decided not to publish are deleted. After any other error the commit
    /// may or may not be there: publish again under the same key, and leave the files to `sweep`.
    ///
    /// # Errors
    /// [`LakeError::Fenced`] when a later writer has committed, [`LakeError::ChainBroken`] when
    /// the checkpoint does not follow the table's, [`LakeError::WrongPartition`] when a staged file
    /// lies outside the replaced partition.
    pub async fn publish(
        &self,
        staged: Staged,
        mode: PublishMode,
        meta: &CommitMeta,
    ) -> Result<Published, LakeError> {
        let mut staged = staged;
        let published = self.publish_staged(&mut staged, &mode, meta).await;
        let refused = match &published {
            Ok(published) => published.outcome == Outcome::AlreadyCommitted,
            Err(
                LakeError::Fenced { .. }
                | LakeError::ChainBroken { .. }
                | LakeError::WrongPartition { .. }
                | LakeError::Overtaken { .. },
            ) => true,
            Err(_) => false,
        };
        if refused && let Err(error) = self.discard(staged).await {
            tracing::warn!(table = %self.address, %error, "refused files stay until the next sweep");
        }
        published
    }

    async fn publish_staged(
        &self,
        staged: &mut Staged,
        mode: &PublishMode,
        meta: &CommitMeta,
    ) -> Result<Published, LakeError> {
        self.complete(staged, mode, meta).await?;
        let staged = &*staged;
        let attempt = || async move {
            point("lake.before-commit");
            let published = match self.format {
                TableFormat::Delta => delta::publish(self, staged, mode, meta).await,
                TableFormat::Iceberg => iceberg::publish(self, staged, mode, meta).await,
            };
            point("lake.after-commit");
            published
        };
        self.beside_others(attempt).await
    }

    /// Checks that the staged files fit the mode, and adds the empty file that makes an empty
    /// partition visible.
    async fn complete(
        &self,
        staged: &mut Staged,
        mode: &PublishMode,
        meta: &CommitMeta,
    ) -> Result<(), LakeError> {
        let PublishMode::ReplacePartition(value) = mode else { return Ok(()) };
        if staged.partition_by.is_none() {
            return Err(LakeError::NotPartitioned { address: self.address.clone() });
        }
        stage::check_partition_value(staged, value)?;
        for file in &staged.files {
            if file.partition.as_deref() != Some(value) {
                return Err(LakeError::WrongPartition {
                    expected: value.clone(),
                    found: file.partition.clone().unwrap_or_default(),
                });
            }
        }
        if staged.files.is_empty() {
            let plan = self.stage_plan(meta).await?;
            staged.files.push(stage::write_empty(plan, value.clone()).await?);
        }
        Ok(())
    }

    /// Removes all partitions before one from what the newest version shows, in one commit that carries `meta`; earlier versions
    /// stay as they are. Returns the version, or nothing where there are no such partitions.
    ///
    /// # Errors
    /// See [`Table::publish`].
    pub async fn remove_before(&self, from: &str, meta: &CommitMeta) -> Result<Option<Version>, LakeError> {
        let shown = self.partitions(None).await?.into_keys();
        let gone: BTreeSet<String> = shown.filter(|key| key.as_str() < from).collect();
        if gone.is_empty() {
            return Ok(None);
        }
        let schema = self.file_set(None).await?.schema;
        let nothing = RecordBatchStreamAdapter::new(schema, futures::stream::empty());
        let staged = self.stage(meta, Box::pin(nothing)).await?;
        let published = self.publish(staged, PublishMode::RemovePartitions(gone), meta).await?;
        Ok(Some(published.version))
    }

    /// Fails when not all files that are to be put together are part of the newest version.
    fn check_all_there(&self, files: &BTreeSet<String>, there: usize) -> Result<(), LakeError> {
        if there == files.len() {
            return Ok(());
        }
        Err(LakeError::Overtaken { address: self.address.clone() })
    }

    /// Deletes staged files that will not be published. Files a commit refers to are left alone.
    pub async fn discard(&self, staged: Staged) -> Result<(), LakeError> {
        let made: Vec<String> =
            staged.files.into_iter().filter(|file| file.fresh).map(|file| file.path).collect();
        if made.is_empty() {
            // The same rows, staged again: they lie there already, and every version would be read for nothing.
            return Ok(());
        }
        let live = self.referenced(Some(staged.version)).await?;
        let dir = self.dir.clone();
        fs::blocking(move || {
            for path in made.iter().filter(|path| !live.contains(*path)) {
                fs::remove_if_there(&dir.join(path))?;
            }
            Ok(())
        })
        .await
    }

    /// Deletes data files that no version refers to and that were last written before
    /// `older_than_ms` (milliseconds since the epoch, by the file system's clock), and returns how
    /// many. Nothing a running attempt may still publish should be that old. So go the books of versions that were let go of,
    /// which are not counted.
    pub async fn sweep(&self, older_than_ms: i64) -> Result<u64, LakeError> {
        let live = self.referenced(None).await?;
        if self.format == TableFormat::Iceberg {
            iceberg_books::sweep(self, older_than_ms).await?;
        }
        let dir = self.dir.clone();
        fs::blocking(move || fs::sweep(&dir, &live, older_than_ms)).await
    }

    /// The paths, relative to the table, of every data file that any kept version refers to; where `since` is said, the newest
    /// version or any after that one.
    async fn referenced(&self, since: Option<Version>) -> Result<BTreeSet<String>, LakeError> {
        match self.format {
            TableFormat::Delta => delta::referenced(self, since).await,
            TableFormat::Iceberg => iceberg::referenced(self, since).await,
        }
    }

    /// Returns the newest `n` publishes, newest first. Commits of others and of `ensure` are left out.
    pub async fn commits(&self, n: usize) -> Result<Vec<(Version, CommitMeta)>, LakeError> {
        match self.format {
            TableFormat::Delta => delta::commits(self, n).await,
            TableFormat::Iceberg => iceberg::commits(self, n).await,
        }
    }

    /// Returns the record of the newest commit of `pipeline`, however many commits came after it.
    pub async fn last_checkpoint(&self, pipeline: &str) -> Result<Option<serde_json::Value>, LakeError> {
        match self.format {
            TableFormat::Delta => delta::last_checkpoint(self, pipeline).await,
            TableFormat::Iceberg => iceberg::last_checkpoint(self, pipeline).await,
        }
    }

    /// Returns rows and files per partition value; an unpartitioned table has none.
    pub async fn partitions(
        &self,
        at: Option<Version>,
    ) -> Result<BTreeMap<String, PartitionInfo>, LakeError> {
        Ok(self.file_set(at).await?.partitions())
    }

    /// Returns a hash of the rows of a version that does not depend on their order or on how they
    /// lie in files: equal hashes mean the same rows, each as often.
    pub async fn content_hash(&self, at: Option<Version>, exclude: &[&str]) -> Result<String, LakeError> {
        hash::content_hash(self.provider(at).await?, exclude).await
    }

    fn absent(&self) -> LakeError {
        LakeError::Absent { address: self.address.clone() }
    }

    /// Fails when the folder holds a table of the other format.
    fn check_format(&self) -> Result<(), LakeError> {
        let (other, marker) = match self.format {
            TableFormat::Delta => (TableFormat::Iceberg, "metadata"),
            TableFormat::Iceberg => (TableFormat::Delta, "_delta_log"),
        };
        if self.dir.join(marker).exists() {
            return Err(LakeError::OtherFormat {
                address: self.address.clone(),
                wanted: self.format,
                found: other,
            });
        }
        Ok(())
    }
}

fn check_spec(spec: &TableSpec) -> Result<(), LakeError> {
    for field in spec.schema.fields() {
        types::check_supported(field)?;
    }
    if let Some(by) = &spec.partition_by {
        let field = spec.schema.field_with_name(by).map_err(|_| LakeError::IncompatibleSchema {
            column: by.clone(),
            why: "the partition column is not in the schema".into(),
        })?;
        if !matches!(field.data_type(), DataType::Utf8 | DataType::Date32 | DataType::Int64) {
            return Err(LakeError::IncompatibleSchema {
                column: by.clone(),
                why: format!(
                    "a partition column is a date, a string or an integer, not {}",
                    field.data_type()
                ),
            });
        }
    }
    Ok(())
}

/// Returns the columns `wanted` adds to `current`, or why the two do not fit.
fn added_columns(
    current: &Schema,
    current_partition: Option<&str>,
    wanted: &TableSpec,
) -> Result<Vec<Arc<Field>>, LakeError> {
    if current_partition != wanted.partition_by.as_deref() {
        return Err(LakeError::IncompatibleSchema {
            column: wanted.partition_by.clone().or(current_partition.map(str::to_owned)).unwrap_or_default(),
            why: format!(
                "the table is partitioned by {} and cannot become partitioned by {}",
                current_partition.unwrap_or("nothing"),
                wanted.partition_by.as_deref().unwrap_or("nothing")
            ),
        });
    }
    let mut added = Vec::new();
    for field in wanted.schema.fields() {
        match current.field_with_name(field.name()) {
            Ok(old) if !types::same_type(old.data_type(), field.data_type()) => {
                return Err(LakeError::IncompatibleSchema {
                    column: field.name().clone(),
                    why: format!("the table has {}, wanted is {}", old.data_type(), field.data_type()),
                });
            }
            Ok(old) if field.is_nullable() && !old.is_nullable() => {
                return Err(LakeError::IncompatibleSchema {
                    column: field.name().clone(),
                    why: "the table requires a value, wanted is nullable".into(),
                });
            }
            Ok(_) => {}
            Err(_) if !field.is_nullable() => {
                return Err(LakeError::IncompatibleSchema {
                    column: field.name().clone(),
                    why: "a column added to a table must be nullable".into(),
                });
            }
            Err(_) => added.push(field.clone()),
        }
    }
    Ok(added)
}
