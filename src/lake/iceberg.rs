//! Iceberg tables (format version 2) in a folder, in the layout of a file-system catalog:
//! `metadata/v<N>.metadata.json` and `version-hint.text`, data files under `data/`.
//!
//! What a commit remembers is in two places of the same metadata file. The snapshot's summary
//! carries the [`CommitMeta`] under `hydromesh.commit`. Table properties carry what must outlive
//! the snapshots (other tools expire them): `hydromesh.epoch`, `hydromesh.key.<digest>` (the version
//! that carries the key) and `hydromesh.checkpoint.<pipeline>` (version and `CommitMeta` of the
//! pipeline's newest commit).
//!
//! The library plans each commit; making it is ours ([`super::iceberg_log`]), because the base, the
//! time and the summary must be what we judged. Every change of a table, a new column too, is a
//! snapshot, so that [`Version`] (the sequence number) grows with each.
//!
//! A date column becomes an identity partition. A column of strings or integers does not: the library orders
//! manifests by a distance between partition values that is undefined for some pairs of strings.
//! There, a file holds one value, and the column's bounds in the manifest say which.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use iceberg_rust::{
    catalog::commit::TableUpdate,
    spec::{
        manifest::{Content, DataFile, ManifestEntry, Status},
        partition::{PartitionField, PartitionSpec, Transform},
        schema::Schema,
        snapshot::{
            Operation, Snapshot, SnapshotBuilder, SnapshotReference, SnapshotRetention, Summary,
            generate_snapshot_id,
        },
        table_metadata::TableMetadata,
        types::{PrimitiveType, Type},
    },
};
use serde::{Deserialize, Serialize};

use super::{
    CommitMeta, Ensured, Keep, KnownTable, LakeError, Outcome, PublishMode, Published, Staged, Table,
    TableSpec, TableState, Version, Writer, added_columns,
    commit::{Remembered, admit, check_fence},
    damage::is_of_the_system,
    fileset::{FileEntry, FileSet},
    iceberg_log::{Loaded, Plan, Said, commit, create, load, plan},
    iceberg_types::{data_file, iceberg_schema, partition_value, with_field_ids},
    stage::{PartitionColumn, StagePlan},
    types::plain_schema,
};

const COMMIT: &str = "hydromesh.commit";
const EPOCH: &str = "hydromesh.epoch";
/// Names the partition column, whichever way the format knows of it.
const PARTITION_BY: &str = "hydromesh.partition-by";
const DATA: &str = "data";
/// Manifests of a snapshot beyond which a commit lists all files anew. Each append adds one, and each is a file that every
/// later reader and commit opens: without a bound, publishing n partitions opens n * n of them.
const MOST_MANIFESTS: usize = 16;

fn key_property(meta: &CommitMeta) -> String {
    format!("hydromesh.key.{}", meta.key_digest())
}

fn checkpoint_property(pipeline: &str) -> String {
    format!("hydromesh.checkpoint.{pipeline}")
}

/// The newest commit of a pipeline, as a table property.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: Version,
    commit: CommitMeta,
}

async fn load_existing(table: &Table) -> Result<Loaded, LakeError> {
    load(table).await?.ok_or_else(|| table.absent())
}

fn current(loaded: &Loaded) -> Result<&Snapshot, LakeError> {
    let metadata = &loaded.metadata;
    let id = metadata.current_snapshot_id.and_then(|id| metadata.snapshots.get(&id));
    id.ok_or_else(|| LakeError::Unusable {
        address: metadata.location.clone(),
        why: "it has no snapshot".into(),
    })
}

fn version_of(loaded: &Loaded) -> Result<Version, LakeError> {
    Ok(Version(*current(loaded)?.sequence_number()))
}

fn snapshot_at<'a>(
    table: &Table,
    loaded: &'a Loaded,
    at: Option<Version>,
) -> Result<&'a Snapshot, LakeError> {
    let Some(version) = at else { return current(loaded) };
    // Snapshots are listed in no order, and a branch could carry the number too: walk back from main.
    let metadata = &loaded.metadata;
    let mut snapshot = Some(current(loaded)?);
    while let Some(candidate) = snapshot {
        if *candidate.sequence_number() == version.0 {
            return Ok(candidate);
        }
        snapshot = candidate.parent_snapshot_id().and_then(|id| metadata.snapshots.get(&id));
    }
    Err(LakeError::UnknownVersion { address: table.address.clone(), version })
}

fn schema_of(
    table: &Table,
    metadata: &TableMetadata,
    snapshot: &Snapshot,
) -> Result<(Schema, SchemaRef), LakeError> {
    let id = snapshot.schema_id().unwrap_or(metadata.current_schema_id);
    let schema = metadata.schemas.get(&id).ok_or_else(|| LakeError::Unusable {
        address: table.address.clone(),
        why: format!("schema {id} is not in its metadata"),
    })?;
    let arrow: ArrowSchema = schema.fields().try_into()?;
    Ok((schema.clone(), plain_schema(&arrow)))
}

fn partition_by(metadata: &TableMetadata) -> Option<String> {
    metadata.properties.get(PARTITION_BY).cloned()
}

fn remembered_epoch(metadata: &TableMetadata) -> Option<u64> {
    metadata.properties.get(EPOCH).and_then(|epoch| epoch.parse().ok())
}

/// The live files of a snapshot, by path.
async fn listed(loaded: &Loaded, snapshot: &Snapshot) -> Result<Vec<ManifestEntry>, LakeError> {
    listed_in(loaded, &[*snapshot.snapshot_id()]).await
}

/// The live files of some snapshots, by path. Those that share a manifest name the same files by it, and it is read once.
async fn listed_in(loaded: &Loaded, snapshots: &[i64]) -> Result<Vec<ManifestEntry>, LakeError> {
    let damaged = |why: String| LakeError::Damaged { address: loaded.metadata.location.clone(), why };
    // The library takes manifests for what it wrote itself, and panics at some that are not.
    let listing = std::panic::AssertUnwindSafe(entries(loaded, snapshots));
    match futures::FutureExt::catch_unwind(listing).await {
        Ok(Err(error @ (LakeError::Iceberg(_) | LakeError::IcebergSpec(_)))) if !is_of_the_system(&error) => {
            Err(damaged(crate::text::chain(&error)))
        }
        Ok(listed) => listed,
        Err(_) => Err(damaged(format!("the manifests of snapshots {snapshots:?}"))),
    }
}

async fn entries(loaded: &Loaded, snapshots: &[i64]) -> Result<Vec<ManifestEntry>, LakeError> {
    let table = loaded.table().await?;
    let mut manifests = BTreeMap::new();
    for id in snapshots {
        let of = table.manifests(None, Some(*id)).await?;
        manifests.extend(of.into_iter().map(|manifest| (manifest.manifest_path.clone(), manifest)));
    }
    let manifests: Vec<_> = manifests.into_values().collect();
    let mut files = Vec::new();
    for found in table.datafiles(&manifests, None, (None, None)).await? {
        let (_, entry) = found?;
        if *entry.status() == Status::Deleted {
            continue;
        }
        if *entry.data_file().content() != Content::Data {
            return Err(LakeError::Unusable {
                address: loaded.metadata.location.clone(),
                why: "it has delete files, which this lake never writes".into(),
            });
        }
        files.push(entry);
    }
    files.sort_by(|left, right| left.data_file().file_path().cmp(right.data_file().file_path()));
    Ok(files)
}

/// The number of manifests of the current snapshot.
async fn manifests(loaded: &Loaded) -> Result<usize, LakeError> {
    let table = loaded.table().await?;
    Ok(table.manifests(None, loaded.metadata.current_snapshot_id).await?.len())
}

fn relative(metadata: &TableMetadata, path: &str) -> Result<String, LakeError> {
    let inside = path.strip_prefix(&metadata.location).and_then(|rest| rest.strip_prefix('/'));
    inside.map(str::to_owned).ok_or_else(|| LakeError::Unusable {
        address: metadata.location.clone(),
        why: format!("its file {path} is outside the table's folder"),
    })
}

pub(super) async fn file_set(table: &Table, at: Option<Version>) -> Result<FileSet, LakeError> {
    let loaded = load_existing(table).await?;
    file_set_of(table, &loaded, at).await
}

async fn file_set_of(table: &Table, loaded: &Loaded, at: Option<Version>) -> Result<FileSet, LakeError> {
    let snapshot = snapshot_at(table, loaded, at)?;
    let (schema, plain) = schema_of(table, &loaded.metadata, snapshot)?;
    let partition_by = partition_by(&loaded.metadata);
    let by = partition_by.as_deref().and_then(|by| schema.fields().get_name(by));
    let mut files = Vec::new();
    for entry in listed(loaded, snapshot).await? {
        let file = entry.data_file();
        files.push(FileEntry {
            path: relative(&loaded.metadata, file.file_path())?,
            partition: by.and_then(|by| partition_value(file, by)),
            rows: u64::try_from(*file.record_count()).ok(),
            bytes: u64::try_from(*file.file_size_in_bytes()).unwrap_or(0),
        });
    }
    Ok(FileSet {
        dir: table.dir.clone(),
        version: Some(Version(*snapshot.sequence_number())),
        schema: plain,
        partition_by,
        partition_column: PartitionColumn::InFiles,
        files,
    })
}

pub(super) async fn state(table: &Table) -> Result<TableState, LakeError> {
    let Some(loaded) = load(table).await? else { return Ok(TableState::Absent) };
    let set = file_set_of(table, &loaded, None).await?;
    Ok(TableState::Known(Box::new(KnownTable {
        version: version_of(&loaded)?,
        rows: set.files.iter().filter_map(|file| file.rows).sum(),
        files: set.files.len() as u64,
        bytes: set.files.iter().map(|file| file.bytes).sum(),
        schema: set.schema,
        partition_by: set.partition_by,
        last_commit: commits_of(&loaded, 1)?.pop().map(|(_, meta)| meta),
    })))
}

pub(super) async fn ensure(table: &Table, spec: &TableSpec, writer: Writer) -> Result<Ensured, LakeError> {
    let wanted = plain_schema(&spec.schema);
    let Some(loaded) = load(table).await? else {
        let mut last_id = 0;
        let schema = iceberg_schema(0, None, &wanted, &mut last_id)?;
        let mut properties = HashMap::from([
            (EPOCH.to_owned(), writer.epoch.to_string()),
            ("write.format.default".to_owned(), "parquet".to_owned()),
        ]);
        let mut partition = PartitionSpec::default();
        if let Some(by) = &spec.partition_by {
            properties.insert(PARTITION_BY.to_owned(), by.clone());
            if let Some(field) = schema.fields().get_name(by)
                && field.field_type == Type::Primitive(PrimitiveType::Date)
            {
                // Partition field ids start at 1000 by the format's convention.
                let field = PartitionField::new(field.id, 1000, by, Transform::Identity);
                partition = PartitionSpec::builder().with_partition_field(field).build()?;
            }
        }
        create(table, schema, last_id, partition, properties, writer.at_ms).await?;
        return Ok(Ensured::Added);
    };
    let metadata = &loaded.metadata;
    // The number that was given last: going back to an older snapshot, as others do, takes none back.
    table.check_above(Version(metadata.last_sequence_number))?;
    let (known, plain) = schema_of(table, metadata, current(&loaded)?)?;
    let added = added_columns(&plain, partition_by(metadata).as_deref(), spec)?;
    if added.is_empty() {
        return Ok(Ensured::NotNeeded);
    }
    check_fence(writer.epoch, remembered_epoch(metadata))?;
    let fields: Vec<_> = plain.fields().iter().cloned().chain(added).collect();
    let id = metadata.schemas.keys().max().unwrap_or(&0) + 1;
    let mut last_id = metadata.last_column_id;
    let schema = iceberg_schema(id, Some(&known), &Arc::new(ArrowSchema::new(fields)), &mut last_id)?;
    let mut updates = vec![
        TableUpdate::AddSchema { schema, last_column_id: Some(last_id) },
        TableUpdate::SetCurrentSchema { schema_id: id },
        TableUpdate::SetProperties { updates: HashMap::from([(EPOCH.to_owned(), writer.epoch.to_string())]) },
    ];
    updates.extend(same_files(&loaded, Some(id)).await?);
    commit(table, loaded, updates, writer.at_ms, Said::default()).await?;
    Ok(Ensured::Updated)
}

/// A snapshot with the files of the current one: what changes beside them needs a version too.
///
/// It gets a manifest list of its own, so that whoever expires the older snapshot takes nothing away.
async fn same_files(loaded: &Loaded, schema_id: Option<i32>) -> Result<Vec<TableUpdate>, LakeError> {
    let old = current(loaded)?;
    let id = generate_snapshot_id();
    let manifest_list = loaded.copy_manifest_list(old.manifest_list(), id).await?;
    let totals = old.summary().other.iter().filter(|(name, _)| name.starts_with("total-"));
    let mut builder = SnapshotBuilder::default();
    builder
        .with_snapshot_id(id)
        .with_parent_snapshot_id(*old.snapshot_id())
        .with_sequence_number(loaded.metadata.last_sequence_number + 1)
        .with_manifest_list(manifest_list)
        .with_summary(Summary {
            operation: Operation::Append,
            other: totals.map(|(name, value)| (name.clone(), value.clone())).collect(),
        });
    if let Some(schema_id) = schema_id.or(*old.schema_id()) {
        builder.with_schema_id(schema_id);
    }
    let snapshot = builder.build()?;
    Ok(vec![
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef {
            ref_name: "main".to_owned(),
            snapshot_reference: SnapshotReference {
                snapshot_id: id,
                retention: SnapshotRetention::default(),
            },
        },
    ])
}

pub(super) async fn stage_plan(table: &Table, meta: &CommitMeta) -> Result<StagePlan, LakeError> {
    let loaded = load_existing(table).await?;
    let (schema, plain) = schema_of(table, &loaded.metadata, current(&loaded)?)?;
    Ok(StagePlan {
        table: table.dir.clone(),
        data: DATA,
        version: Version(*current(&loaded)?.sequence_number()),
        file_schema: with_field_ids(&schema, &plain)?,
        schema: plain,
        partition_by: partition_by(&loaded.metadata),
        partition_column: PartitionColumn::InFiles,
        prefix: format!("part-{}-e{}", meta.key_digest(), meta.writer_epoch),
    })
}

pub(super) async fn publish(
    table: &Table,
    staged: &Staged,
    mode: &PublishMode,
    meta: &CommitMeta,
) -> Result<Published, LakeError> {
    let loaded = load_existing(table).await?;
    if let Some(version) = admit(meta, &remember(&loaded, meta)?)? {
        return Ok(Published { version, outcome: Outcome::AlreadyCommitted });
    }
    let (schema, _) = schema_of(table, &loaded.metadata, current(&loaded)?)?;
    let files = staged
        .files
        .iter()
        .map(|file| data_file(&loaded.metadata, &schema, staged, file))
        .collect::<Result<Vec<_>, _>>()?;
    let next = Version(loaded.metadata.last_sequence_number + 1);
    let (mut updates, mut summary) = file_updates(table, &loaded, &schema, staged, mode, files).await?;
    let mut properties = HashMap::from([(EPOCH.to_owned(), meta.writer_epoch.to_string())]);
    match &meta.checkpoint {
        Some(checkpoint) => {
            let kept = Kept { version: next, commit: meta.clone() };
            properties.insert(checkpoint_property(&checkpoint.pipeline), serde_json::to_string(&kept)?);
        }
        None => {
            properties.insert(key_property(meta), next.0.to_string());
        }
    }
    updates.push(TableUpdate::SetProperties { updates: properties });
    summary.insert(COMMIT.to_owned(), serde_json::to_string(meta)?);
    let operation = matches!(mode, PublishMode::Rewrite(_)).then_some(Operation::Replace);
    commit(table, loaded, updates, meta.at_ms, Said { operation, summary }).await?;
    Ok(Published { version: next, outcome: Outcome::Committed })
}

/// Returns what to commit so that the table has the wanted files, and what the snapshot says of it.
///
/// The library's own overwrite is not used: it fails on a table whose replaced files are listed by
/// more than one manifest. All files that stay are listed anew instead, which costs time in
/// proportion to the table's files and nothing else. So does an append to a table of many manifests.
async fn file_updates(
    table: &Table,
    loaded: &Loaded,
    schema: &Schema,
    staged: &Staged,
    mode: &PublishMode,
    files: Vec<DataFile>,
) -> Result<(Vec<TableUpdate>, HashMap<String, String>), LakeError> {
    let live = listed(loaded, current(loaded)?).await?;
    let live: Vec<&DataFile> = live.iter().map(ManifestEntry::data_file).collect();
    let names: BTreeSet<&str> = files.iter().map(|file| file.file_path().as_str()).collect();
    if let Some(double) = live.iter().find(|file| names.contains(file.file_path().as_str())) {
        return Err(LakeError::Unusable {
            address: table.address.clone(),
            why: format!("the staged file {} is already part of it", double.file_path()),
        });
    }
    let by = staged.partition_by.as_deref().and_then(|by| schema.fields().get_name(by));
    let (gone, kept): (Vec<&DataFile>, Vec<&DataFile>) = live.into_iter().partition(|file| match mode {
        PublishMode::Append => false,
        PublishMode::ReplaceAll => true,
        PublishMode::ReplacePartition(value) => {
            by.and_then(|by| partition_value(file, by)).as_ref() == Some(value)
        }
        PublishMode::RemovePartitions(gone) => {
            by.and_then(|by| partition_value(file, by)).is_some_and(|value| gone.contains(&value))
        }
        PublishMode::Rewrite(paths) => {
            relative(&loaded.metadata, file.file_path()).is_ok_and(|path| paths.contains(&path))
        }
    });
    if let PublishMode::Rewrite(paths) = mode {
        table.check_all_there(paths, gone.len())?;
    }
    let mut wanted: BTreeSet<String> = kept.iter().map(|file| file.file_path().clone()).collect();
    wanted.extend(files.iter().map(|file| file.file_path().clone()));
    let summary = changes(&files, &gone);
    let updates = if files.is_empty() && gone.is_empty() {
        same_files(loaded, None).await?
    } else if gone.is_empty() && !kept.is_empty() && manifests(loaded).await? < MOST_MANIFESTS {
        plan(loaded, Plan::Append(files)).await?
    } else {
        plan(loaded, Plan::Replace(kept.into_iter().cloned().chain(files).collect())).await?
    };
    // Whatever the library made of it: only exactly these files may become visible.
    let after = loaded.after(&updates)?;
    let planned = listed(&after, current(&after)?).await?;
    let planned: Vec<String> = planned.iter().map(|entry| entry.data_file().file_path().clone()).collect();
    if !planned.iter().eq(&wanted) {
        return Err(LakeError::Unusable {
            address: table.address.clone(),
            why: format!("{} files were planned where {} are wanted", planned.len(), wanted.len()),
        });
    }
    Ok((updates, summary))
}

fn changes(added: &[DataFile], gone: &[&DataFile]) -> HashMap<String, String> {
    let sum = |values: &mut dyn Iterator<Item = i64>| values.sum::<i64>().to_string();
    HashMap::from([
        ("added-data-files".to_owned(), added.len().to_string()),
        ("added-records".to_owned(), sum(&mut added.iter().map(|file| *file.record_count()))),
        ("added-files-size".to_owned(), sum(&mut added.iter().map(|file| *file.file_size_in_bytes()))),
        ("deleted-data-files".to_owned(), gone.len().to_string()),
        ("deleted-records".to_owned(), sum(&mut gone.iter().map(|file| *file.record_count()))),
        ("removed-files-size".to_owned(), sum(&mut gone.iter().map(|file| *file.file_size_in_bytes()))),
    ])
}

fn remember(loaded: &Loaded, meta: &CommitMeta) -> Result<Remembered, LakeError> {
    let properties = &loaded.metadata.properties;
    let mut known = Remembered { epoch: remembered_epoch(&loaded.metadata), ..Default::default() };
    match &meta.checkpoint {
        Some(checkpoint) => {
            known.pipeline_last = kept(loaded, &checkpoint.pipeline)?.map(|kept| (kept.version, kept.commit));
        }
        None => {
            let at = properties.get(&key_property(meta)).and_then(|version| version.parse().ok());
            known.key_at = at.map(Version);
        }
    }
    Ok(known)
}

fn kept(loaded: &Loaded, pipeline: &str) -> Result<Option<Kept>, LakeError> {
    let property = loaded.metadata.properties.get(&checkpoint_property(pipeline));
    Ok(property.map(|text| serde_json::from_str(text)).transpose()?)
}

fn commits_of(loaded: &Loaded, n: usize) -> Result<Vec<(Version, CommitMeta)>, LakeError> {
    let mut found = Vec::new();
    let mut snapshot = Some(current(loaded)?);
    while let Some(candidate) = snapshot.filter(|_| found.len() < n) {
        if let Some(text) = candidate.summary().other.get(COMMIT) {
            found.push((Version(*candidate.sequence_number()), serde_json::from_str(text)?));
        }
        snapshot = candidate.parent_snapshot_id().and_then(|id| loaded.metadata.snapshots.get(&id));
    }
    Ok(found)
}

pub(super) async fn commits(table: &Table, n: usize) -> Result<Vec<(Version, CommitMeta)>, LakeError> {
    match load(table).await? {
        Some(loaded) => commits_of(&loaded, n),
        None => Ok(Vec::new()),
    }
}

pub(super) async fn last_checkpoint(
    table: &Table,
    pipeline: &str,
) -> Result<Option<serde_json::Value>, LakeError> {
    let Some(loaded) = load(table).await? else { return Ok(None) };
    Ok(kept(&loaded, pipeline)?.and_then(|kept| kept.commit.checkpoint).map(|checkpoint| checkpoint.record))
}

/// Lets go of snapshots before those that are kept. What somebody gave a name to stays, and what no longer leads to the newest.
pub(super) async fn expire(table: &Table, keep: &Keep, writer: Writer) -> Result<u64, LakeError> {
    let loaded = load_existing(table).await?;
    check_fence(writer.epoch, remembered_epoch(&loaded.metadata))?;
    let metadata = &loaded.metadata;
    let mut versions = Vec::new();
    let mut snapshot = Some(current(&loaded)?);
    while let Some(found) = snapshot {
        versions.push((Version(*found.sequence_number()), Some(*found.timestamp_ms()), *found.snapshot_id()));
        snapshot = found.parent_snapshot_id().and_then(|id| metadata.snapshots.get(&id));
    }
    versions.reverse();
    let dated: Vec<_> = versions.iter().map(|(version, at_ms, _)| (*version, *at_ms)).collect();
    let Some(first) = keep.first(&dated) else { return Ok(0) };
    let named: BTreeSet<i64> = metadata.refs.values().map(|it| it.snapshot_id).collect();
    let gone = versions.into_iter().filter(|(version, _, id)| *version < first && !named.contains(id));
    let snapshot_ids: Vec<i64> = gone.map(|(_, _, id)| id).collect();
    let count = snapshot_ids.len() as u64;
    if count > 0 {
        let updates = vec![TableUpdate::RemoveSnapshots { snapshot_ids }];
        commit(table, loaded, updates, writer.at_ms, Said::default()).await?;
    }
    Ok(count)
}

/// Every path that a snapshot shows which can be read: all of them, or the current one and those after version `since`.
pub(super) async fn referenced(table: &Table, since: Option<Version>) -> Result<BTreeSet<String>, LakeError> {
    let mut paths = BTreeSet::new();
    let Some(loaded) = load(table).await? else { return Ok(paths) };
    let newest = loaded.metadata.current_snapshot_id;
    let asked = |id: i64, of: &Snapshot| {
        since.is_none_or(|since| Some(id) == newest || *of.sequence_number() > since.0)
    };
    let snapshots: Vec<i64> =
        loaded.metadata.snapshots.iter().filter(|(id, of)| asked(**id, of)).map(|(id, _)| *id).collect();
    for entry in listed_in(&loaded, &snapshots).await? {
        paths.insert(relative(&loaded.metadata, entry.data_file().file_path())?);
    }
    Ok(paths)
}

/// The most manifests that any snapshot has.
#[cfg(test)]
pub(super) async fn most_manifests_of(table: &Table) -> Result<usize, LakeError> {
    let loaded = load_existing(table).await?;
    let library = loaded.table().await?;
    let mut most = 0;
    for id in loaded.metadata.snapshots.keys() {
        most = most.max(library.manifests(None, Some(*id)).await?.len());
    }
    Ok(most)
}
