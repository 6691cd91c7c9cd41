//! The metadata files of an Iceberg table in a folder: reading the newest, adding the next.
//!
//! The next metadata file is made under a name that only one writer can take, from the very base
//! that was judged. That is the commit. The catalog that comes with the library is not used: its
//! `create_table` overwrites what another creator has just made, it dates commits by the wall
//! clock, and it commits on whatever base its cache holds.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use iceberg_rust::{
    catalog::{
        Catalog,
        commit::{CommitTable, CommitView, TableUpdate, apply_table_updates},
        create::{CreateMaterializedView, CreateTable, CreateView},
        identifier::Identifier,
        namespace::Namespace,
        tabular::Tabular,
    },
    error::Error as IcebergError,
    materialized_view::MaterializedView,
    spec::{
        manifest::DataFile,
        partition::PartitionSpec,
        schema::Schema,
        snapshot::{Operation, Snapshot, SnapshotBuilder},
        table_metadata::{MetadataLog, TableMetadata},
        util::strip_prefix,
    },
    table::Table as IcebergTable,
    view::View,
};
use object_store::{ObjectStore, local::LocalFileSystem};

use super::{
    LakeError, Table,
    fs::{Created, blocking, create_folders, create_whole, replace_whole, sync_dir, sync_file},
};

/// Metadata files a metadata file remembers before it; older ones stay on disk.
pub(super) const LOGGED_METADATA: usize = 100;

/// What a new snapshot says of itself besides what the library does.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// Instead of the library's word for what was done.
    pub operation: Option<Operation>,
    pub summary: HashMap<String, String>,
}

/// One state of a table's metadata, and the number of the file it came from.
#[derive(Debug)]
pub(super) struct Loaded {
    pub metadata: TableMetadata,
    pub number: u64,
    dir: PathBuf,
    store: Arc<dyn ObjectStore>,
    collected: Arc<Collector>,
}

/// What the library is asked to plan.
pub(super) enum Plan {
    Append(Vec<DataFile>),
    /// These files and no others.
    Replace(Vec<DataFile>),
}

pub(super) async fn load(table: &Table) -> Result<Option<Loaded>, LakeError> {
    table.check_format()?;
    check_location(&table.dir)?;
    let dir = table.dir.clone();
    let address = table.address.clone();
    blocking(move || {
        let Some(number) = newest(&dir)? else { return Ok(None) };
        let path = metadata_file(&dir, number);
        let bytes = std::fs::read(&path).map_err(|source| LakeError::io("read", &path, source))?;
        let metadata: TableMetadata = serde_json::from_slice(&bytes).map_err(|error| LakeError::Damaged {
            address: address.clone(),
            why: format!("{}: {error}", path.display()),
        })?;
        if Path::new(&metadata.location) != dir {
            return Err(LakeError::Moved { address, location: metadata.location.into() });
        }
        Ok(Some(Loaded::new(dir, number, metadata)))
    })
    .await
}

/// Paths reach the library as object-store paths, which would encode some characters.
fn check_location(dir: &Path) -> Result<(), LakeError> {
    let bad = || LakeError::BadRoot { root: dir.to_path_buf() };
    let text = dir.to_str().ok_or_else(bad)?;
    let taken = object_store::path::Path::from(text);
    if Some(taken.as_ref()) == text.strip_prefix('/') && strip_prefix(text) == text {
        Ok(())
    } else {
        Err(bad())
    }
}

pub(super) fn metadata_file(dir: &Path, number: u64) -> PathBuf {
    dir.join("metadata").join(format!("v{number}.metadata.json"))
}

/// Returns the number of a metadata file, by its name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix('v')?.strip_suffix(".metadata.json")?.parse().ok()
}

fn newest(dir: &Path) -> Result<Option<u64>, LakeError> {
    let folder = dir.join("metadata");
    let entries = match std::fs::read_dir(&folder) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        listed => listed.map_err(|source| LakeError::io("list", &folder, source))?,
    };
    let mut newest = None;
    for entry in entries {
        let name = entry.map_err(|source| LakeError::io("list", &folder, source))?.file_name();
        newest = newest.max(name.to_str().and_then(number_of));
    }
    Ok(newest)
}

impl Loaded {
    fn new(dir: PathBuf, number: u64, metadata: TableMetadata) -> Self {
        let store = Arc::new(LocalFileSystem::new());
        Loaded { metadata, number, dir, store, collected: Arc::default() }
    }

    /// The library's view of this state; nothing it commits goes further than [`Collector`].
    pub async fn table(&self) -> Result<IcebergTable, LakeError> {
        let identifier = Identifier::new(&["lake".to_owned()], "table");
        let catalog: Arc<dyn Catalog> = self.collected.clone();
        Ok(IcebergTable::new(identifier, catalog, self.store.clone(), self.metadata.clone()).await?)
    }

    /// The state that `updates` would make of this one.
    pub fn after(&self, updates: &[TableUpdate]) -> Result<Loaded, LakeError> {
        let mut metadata = self.metadata.clone();
        apply_table_updates(&mut metadata, updates.to_vec())?;
        Ok(Loaded::new(self.dir.clone(), self.number, metadata))
    }

    /// Copies a manifest list for a snapshot with the same files, and returns the copy's location.
    pub async fn copy_manifest_list(&self, from: &str, snapshot_id: i64) -> Result<String, LakeError> {
        let name = format!("snap-{snapshot_id}-0-{}.avro", uuid::Uuid::new_v4());
        let to = self.dir.join("metadata").join(name);
        let from = PathBuf::from(strip_prefix(from));
        blocking(move || {
            std::fs::copy(&from, &to).map_err(|source| LakeError::io("copy", &from, source))?;
            Ok(to.to_string_lossy().into_owned())
        })
        .await
    }
}

/// Returns the updates that make `wanted` of the loaded state. Writes manifests, commits nothing.
pub(super) async fn plan(loaded: &Loaded, wanted: Plan) -> Result<Vec<TableUpdate>, LakeError> {
    let mut table = loaded.table().await?;
    *loaded.collected.base.lock().unwrap_or_else(PoisonError::into_inner) = Some(table.clone());
    let transaction = table.new_transaction(None);
    let transaction = match wanted {
        Plan::Append(files) => transaction.append_data(files),
        Plan::Replace(files) => transaction.replace(files),
    };
    transaction.commit().await?;
    let collected = loaded.collected.commit.lock().unwrap_or_else(PoisonError::into_inner).take();
    collected.map(|commit| commit.updates).ok_or_else(|| LakeError::Unusable {
        address: loaded.metadata.location.clone(),
        why: "the library planned no change".into(),
    })
}

/// Creates the table with an empty first snapshot, in one metadata file.
pub(super) async fn create(
    table: &Table,
    schema: Schema,
    last_column_id: i32,
    partition: PartitionSpec,
    properties: HashMap<String, String>,
    at_ms: i64,
) -> Result<(), LakeError> {
    let folder = table.dir.join("metadata");
    blocking(move || create_folders(&folder)).await?;
    let mut metadata: TableMetadata = CreateTable {
        name: "table".to_owned(),
        location: Some(table.dir.to_string_lossy().into_owned()),
        schema,
        partition_spec: Some(partition),
        write_order: None,
        stage_create: None,
        properties: Some(properties),
    }
    .try_into()?;
    // The library counts only top-level columns; ids inside lists are taken too.
    metadata.last_column_id = last_column_id;
    metadata.last_partition_id = metadata.last_partition_id.max(999);
    metadata.last_updated_ms = at_ms;
    metadata.last_sequence_number = table.above.map_or(metadata.last_sequence_number, |above| above.0);
    let loaded = Loaded::new(table.dir.clone(), 0, metadata);
    let updates = plan(&loaded, Plan::Replace(Vec::new())).await?;
    commit(table, loaded, updates, at_ms, Said::default()).await
}

/// Makes the next metadata file, or fails with [`LakeError::Conflict`] when somebody else has.
///
/// What is said is added to the new snapshot's summary. Its time is `at_ms`, except that snapshots never go
/// back in time: other readers refuse a table whose do.
pub(super) async fn commit(
    table: &Table,
    loaded: Loaded,
    updates: Vec<TableUpdate>,
    at_ms: i64,
    said: Said,
) -> Result<(), LakeError> {
    let Loaded { mut metadata, number, dir, .. } = loaded;
    let previous = metadata_file(&dir, number);
    let previous_ms = metadata.last_updated_ms;
    let parent = metadata.current_snapshot_id;
    let at_ms = at_ms.max(previous_ms);
    let mut made = Vec::new();
    let mut finished = Vec::new();
    for update in updates {
        finished.push(match update {
            TableUpdate::AddSnapshot { snapshot } => {
                made.push(PathBuf::from(strip_prefix(snapshot.manifest_list())));
                TableUpdate::AddSnapshot { snapshot: dated(&snapshot, parent, at_ms, said.clone())? }
            }
            other => other,
        });
    }
    apply_table_updates(&mut metadata, finished)?;
    metadata.last_updated_ms = at_ms;
    if number > 0 {
        let metadata_file = previous.to_string_lossy().into_owned();
        metadata.metadata_log.push(MetadataLog { metadata_file, timestamp_ms: previous_ms });
        let surplus = metadata.metadata_log.len().saturating_sub(LOGGED_METADATA);
        metadata.metadata_log.drain(..surplus);
    }
    made.extend(new_manifests(&dir, &metadata).await?);
    let bytes = serde_json::to_vec(&metadata)?;
    let next = number + 1;
    let address = table.address.clone();
    blocking(move || {
        for file in &made {
            sync_file(file)?;
        }
        match create_whole(&metadata_file(&dir, next), &bytes)? {
            Created::AlreadyThere => Err(LakeError::Conflict),
            Created::First => {
                // A hint for readers that cannot list; the files themselves are the truth.
                let hint = dir.join("metadata").join("version-hint.text");
                if let Err(error) = replace_whole(&hint, next.to_string().as_bytes()) {
                    tracing::warn!(%address, %error, "the version hint is behind");
                }
                sync_dir(&dir)
            }
        }
    })
    .await
}

/// The manifests that the newest snapshot added, to be flushed before it is committed.
async fn new_manifests(dir: &Path, metadata: &TableMetadata) -> Result<Vec<PathBuf>, LakeError> {
    let loaded = Loaded::new(dir.to_path_buf(), 0, metadata.clone());
    let manifests = loaded.table().await?.manifests(None, metadata.current_snapshot_id).await?;
    let newest = metadata.last_sequence_number;
    let new = manifests.into_iter().filter(|manifest| manifest.sequence_number == newest);
    Ok(new.map(|manifest| PathBuf::from(strip_prefix(&manifest.manifest_path))).collect())
}

fn dated(snapshot: &Snapshot, parent: Option<i64>, at_ms: i64, said: Said) -> Result<Snapshot, LakeError> {
    let mut summary = snapshot.summary().clone();
    summary.operation = said.operation.unwrap_or(summary.operation);
    summary.other.extend(said.summary);
    let mut builder = SnapshotBuilder::default();
    builder
        .with_snapshot_id(*snapshot.snapshot_id())
        .with_sequence_number(*snapshot.sequence_number())
        .with_timestamp_ms(at_ms)
        .with_manifest_list(snapshot.manifest_list().clone())
        .with_summary(summary);
    // A replacement of all files continues the table's history like any other commit.
    if let Some(parent) = parent {
        builder.with_parent_snapshot_id(parent);
    }
    if let Some(schema_id) = snapshot.schema_id() {
        builder.with_schema_id(*schema_id);
    }
    Ok(builder.build()?)
}

/// A catalog that keeps what a transaction would commit, and commits nothing.
#[derive(Debug, Default)]
struct Collector {
    base: Mutex<Option<IcebergTable>>,
    commit: Mutex<Option<CommitTable>>,
}

fn unsupported<T>(what: &str) -> Result<T, IcebergError> {
    Err(IcebergError::NotSupported(format!("{what} in a lake folder")))
}

#[async_trait::async_trait]
impl Catalog for Collector {
    fn name(&self) -> &'static str {
        "lake"
    }

    async fn update_table(self: Arc<Self>, commit: CommitTable) -> Result<IcebergTable, IcebergError> {
        *self.commit.lock().unwrap_or_else(PoisonError::into_inner) = Some(commit);
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner).take();
        base.ok_or_else(|| IcebergError::NotFound("the transaction's table".to_owned()))
    }

    async fn create_namespace(
        &self,
        _: &Namespace,
        _: Option<HashMap<String, String>>,
    ) -> Result<HashMap<String, String>, IcebergError> {
        unsupported("namespaces")
    }

    async fn drop_namespace(&self, _: &Namespace) -> Result<(), IcebergError> {
        unsupported("namespaces")
    }

    async fn load_namespace(&self, _: &Namespace) -> Result<HashMap<String, String>, IcebergError> {
        unsupported("namespaces")
    }

    async fn update_namespace(
        &self,
        _: &Namespace,
        _: Option<HashMap<String, String>>,
        _: Option<Vec<String>>,
    ) -> Result<(), IcebergError> {
        unsupported("namespaces")
    }

    async fn namespace_exists(&self, _: &Namespace) -> Result<bool, IcebergError> {
        unsupported("namespaces")
    }

    async fn list_tabulars(&self, _: &Namespace) -> Result<Vec<Identifier>, IcebergError> {
        unsupported("listing")
    }

    async fn list_namespaces(&self, _: Option<&str>) -> Result<Vec<Namespace>, IcebergError> {
        unsupported("namespaces")
    }

    async fn tabular_exists(&self, _: &Identifier) -> Result<bool, IcebergError> {
        unsupported("listing")
    }

    async fn drop_table(&self, _: &Identifier) -> Result<(), IcebergError> {
        unsupported("dropping")
    }

    async fn drop_view(&self, _: &Identifier) -> Result<(), IcebergError> {
        unsupported("views")
    }

    async fn drop_materialized_view(&self, _: &Identifier) -> Result<(), IcebergError> {
        unsupported("views")
    }

    async fn load_tabular(self: Arc<Self>, _: &Identifier) -> Result<Tabular, IcebergError> {
        unsupported("loading by name")
    }

    async fn create_table(
        self: Arc<Self>,
        _: Identifier,
        _: CreateTable,
    ) -> Result<IcebergTable, IcebergError> {
        unsupported("creating by name")
    }

    async fn create_view(
        self: Arc<Self>,
        _: Identifier,
        _: CreateView<Option<()>>,
    ) -> Result<View, IcebergError> {
        unsupported("views")
    }

    async fn create_materialized_view(
        self: Arc<Self>,
        _: Identifier,
        _: CreateMaterializedView,
    ) -> Result<MaterializedView, IcebergError> {
        unsupported("views")
    }

    async fn update_view(self: Arc<Self>, _: CommitView<Option<()>>) -> Result<View, IcebergError> {
        unsupported("views")
    }

    async fn update_materialized_view(
        self: Arc<Self>,
        _: CommitView<Identifier>,
    ) -> Result<MaterializedView, IcebergError> {
        unsupported("views")
    }

    async fn register_table(self: Arc<Self>, _: Identifier, _: &str) -> Result<IcebergTable, IcebergError> {
        unsupported("registering")
    }
}
