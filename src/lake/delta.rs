//! Delta tables.
//!
//! What a commit remembers is in its `txn` actions, which the log carries for ever and from one
//! checkpoint to the next: `hydromesh/epoch` holds the highest writer epoch, `hydromesh/key/<digest>`
//! and `hydromesh/checkpoint/<pipeline>` the version that carries that key or that pipeline's newest
//! record. The whole [`CommitMeta`] is in the version's `commitInfo`, under `hydromesh`.
//!
//! The library's own conflict resolution is off (no retries): it would move a commit to a newer
//! version without asking us again.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use arrow::datatypes::{DataType, Schema, SchemaRef};
use deltalake::{
    DeltaTable, DeltaTableBuilder, DeltaTableError,
    kernel::{
        Action, Add, CommitInfo, EagerSnapshot, LogicalFileView, Metadata, Protocol, Remove, StructType,
        Transaction,
        engine::arrow_conversion::TryIntoKernel,
        transaction::{CommitBuilder, CommitProperties, TransactionError},
    },
    protocol::{DeltaOperation, SaveMode},
};
use futures::TryStreamExt;
use serde_json::{Value, json};

use super::{
    CommitMeta, Ensured, Keep, KnownTable, LakeError, Outcome, PublishMode, Published, Staged, StagedFile,
    Table, TableSpec, TableState, Version, Writer, added_columns,
    commit::{Remembered, admit, check_fence},
    damage,
    delta_log::Log,
    fileset::{FileEntry, FileSet},
    fs::{blocking, create_folders, sync_file},
    stage::{PartitionColumn, StagePlan},
    types::plain_schema,
};

const EPOCH: &str = "hydromesh/epoch";
const COMMIT: &str = "hydromesh";
/// What is added to Delta's versions, which begin at 0, in a table that took the place of a dropped one.
pub(super) const BASE: &str = "hydromesh.versionBase";
/// How the names begin under which pipelines' newest records are remembered.
pub(super) const CHECKPOINT: &str = "hydromesh/checkpoint/";
/// A table that forgets its transactions would commit a key twice.
const FORGETS: &str = "delta.setTransactionRetentionDuration";

fn key_id(meta: &CommitMeta) -> String {
    format!("hydromesh/key/{}", meta.key_digest())
}

fn checkpoint_id(pipeline: &str) -> String {
    format!("{CHECKPOINT}{pipeline}")
}

/// Loads the table's newest state, or one version of it; `None` when there is no table.
async fn load(table: &Table, at: Option<Version>) -> Result<Option<DeltaTable>, LakeError> {
    table.check_format()?;
    if !table.dir.join("_delta_log").is_dir() {
        return Ok(None);
    }
    let mut builder = DeltaTableBuilder::from_url(url(table)?)?;
    if let Some(version) = at {
        let unknown = || LakeError::UnknownVersion { address: table.address.clone(), version };
        let (base, log) = log_of(table).await?;
        let wanted = u64::try_from(version.0 - base).map_err(|_| unknown())?;
        // The log is the authority on which versions there are; loading one that is not is an
        // error whose kind differs between releases of the library.
        if !log.has(wanted) {
            return Err(unknown());
        }
        builder = builder.with_version(wanted);
    }
    let error = match builder.load().await {
        // To the library an empty commit is one that changed nothing: the newest is what a disk without power leaves empty.
        Ok(loaded) if is_empty(table, snapshot(&loaded)?.version()).await => {
            DeltaTableError::generic("its newest commit is empty")
        }
        Ok(loaded) => return Ok(Some(loaded)),
        Err(error) => error,
    };
    if let Some(damaged) = damage::of_delta(table).await? {
        return Err(damaged);
    }
    match error {
        // The folder may be there before its first commit is.
        DeltaTableError::NotATable(_) if at.is_none() => Ok(None),
        other => Err(other.into()),
    }
}

/// Returns whether the file of a commit is empty; one that only a checkpoint knows is not.
async fn is_empty(table: &Table, version: u64) -> bool {
    let commit = table.dir.join("_delta_log").join(format!("{version:020}.json"));
    blocking(move || Ok(std::fs::metadata(commit).is_ok_and(|found| found.len() == 0)))
        .await
        .unwrap_or_default()
}

async fn load_existing(table: &Table, at: Option<Version>) -> Result<DeltaTable, LakeError> {
    load(table, at).await?.ok_or_else(|| table.absent())
}

fn url(table: &Table) -> Result<url::Url, LakeError> {
    url::Url::from_directory_path(&table.dir).map_err(|()| LakeError::BadRoot { root: table.dir.clone() })
}

fn snapshot(loaded: &DeltaTable) -> Result<&EagerSnapshot, LakeError> {
    Ok(loaded.snapshot()?.snapshot())
}

fn version_of(snapshot: &EagerSnapshot) -> Result<Version, LakeError> {
    let version = i64::try_from(snapshot.version()).map_err(|_| LakeError::Conflict)?;
    Ok(Version(version + base_of(snapshot)))
}

fn base_of(snapshot: &EagerSnapshot) -> i64 {
    snapshot.metadata().configuration().get(BASE).and_then(|base| base.parse().ok()).unwrap_or(0)
}

/// Lists the log, and returns what is added to its versions.
async fn log_of(table: &Table) -> Result<(i64, Log), LakeError> {
    let dir = table.dir.clone();
    blocking(move || {
        let log = Log::of(&dir)?;
        Ok((log.base()?, log))
    })
    .await
}

fn partition_of(snapshot: &EagerSnapshot) -> Option<String> {
    snapshot.metadata().partition_columns().first().cloned()
}

/// The table's columns in the order of its schema, plain.
fn schema_of(table: &Table, snapshot: &EagerSnapshot) -> Result<SchemaRef, LakeError> {
    // Column mapping and deletion vectors need reader version 3 or features; a table that asks for
    // them was changed by somebody else, and reading its files as they lie would be wrong.
    if snapshot.protocol().min_reader_version() > 1 {
        return Err(LakeError::Unusable {
            address: table.address.clone(),
            why: format!("it needs Delta reader version {}", snapshot.protocol().min_reader_version()),
        });
    }
    Ok(plain_schema(&snapshot.arrow_schema()))
}

async fn views(loaded: &DeltaTable) -> Result<Vec<LogicalFileView>, LakeError> {
    let log = loaded.log_store();
    Ok(snapshot(loaded)?.file_views(log.as_ref(), None).try_collect().await?)
}

pub(super) async fn file_set(table: &Table, at: Option<Version>) -> Result<FileSet, LakeError> {
    let loaded = load_existing(table, at).await?;
    file_set_of(table, &loaded).await
}

async fn file_set_of(table: &Table, loaded: &DeltaTable) -> Result<FileSet, LakeError> {
    let snapshot = snapshot(loaded)?;
    let partition_by = partition_of(snapshot);
    let mut files = Vec::new();
    for view in views(loaded).await? {
        let partition = match &partition_by {
            Some(by) => {
                view.remove_action(true).partition_values.and_then(|mut values| values.remove(by)).flatten()
            }
            None => None,
        };
        files.push(FileEntry {
            path: view.path().into_owned(),
            partition,
            rows: view.num_records().map(|rows| rows as u64),
            bytes: u64::try_from(view.size()).unwrap_or(0),
        });
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(FileSet {
        dir: table.dir.clone(),
        version: Some(version_of(snapshot)?),
        schema: schema_of(table, snapshot)?,
        partition_by,
        partition_column: PartitionColumn::InLog,
        files,
    })
}

pub(super) async fn state(table: &Table) -> Result<TableState, LakeError> {
    let Some(loaded) = load(table, None).await? else { return Ok(TableState::Absent) };
    let set = file_set_of(table, &loaded).await?;
    Ok(TableState::Known(Box::new(KnownTable {
        version: version_of(snapshot(&loaded)?)?,
        schema: set.schema.clone(),
        partition_by: set.partition_by.clone(),
        rows: set.files.iter().filter_map(|file| file.rows).sum(),
        files: set.files.len() as u64,
        bytes: set.files.iter().map(|file| file.bytes).sum(),
        last_commit: commits_of(&loaded, 1).await?.pop().map(|(_, meta)| meta),
    })))
}

async fn remembered_epoch(loaded: &DeltaTable) -> Result<Option<u64>, LakeError> {
    let log = loaded.log_store();
    let epoch = snapshot(loaded)?.transaction_version(log.as_ref(), EPOCH).await?;
    Ok(epoch.and_then(|epoch| u64::try_from(epoch).ok()))
}

fn transaction(id: impl ToString, version: i64, at_ms: i64) -> Action {
    Action::Txn(Transaction::new_with_last_update(id, version, Some(at_ms)))
}

fn epoch_action(writer: Writer) -> Action {
    transaction(EPOCH, i64::try_from(writer.epoch).unwrap_or(i64::MAX), writer.at_ms)
}

fn commit_info(
    operation: &DeltaOperation,
    at_ms: i64,
    meta: Option<&CommitMeta>,
) -> Result<Action, LakeError> {
    let mut info = HashMap::new();
    if let Some(meta) = meta {
        info.insert(COMMIT.to_owned(), serde_json::to_value(meta)?);
    }
    Ok(Action::CommitInfo(CommitInfo {
        timestamp: Some(at_ms),
        operation: Some(operation.name().to_owned()),
        engine_info: Some(concat!("hydromesh ", env!("CARGO_PKG_VERSION")).to_owned()),
        info,
        ..Default::default()
    }))
}

/// Commits `actions` as the version after `base` (as version 0 without one), or fails with
/// [`LakeError::Conflict`] when that version is taken.
async fn commit(
    log: deltalake::logstore::LogStoreRef,
    base: Option<&EagerSnapshot>,
    actions: Vec<Action>,
    operation: DeltaOperation,
    dir: PathBuf,
) -> Result<(), LakeError> {
    let properties = CommitProperties::default()
        .with_max_retries(0)
        .with_create_checkpoint(true)
        .with_cleanup_expired_logs(Some(false));
    let committed = CommitBuilder::from(properties)
        .with_actions(actions)
        .build(base.map(|base| base as _), log, operation)
        .await;
    match committed {
        Ok(done) => {
            let version = done.version();
            blocking(move || {
                let log = Log::at(&dir);
                sync_file(&log.commit(version))?;
                log.flush_checkpoint(version)
            })
            .await
        }
        Err(
            DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::MaxCommitAttempts(_) | TransactionError::CommitConflict(_),
            },
        ) => Err(LakeError::Conflict),
        Err(other) => Err(other.into()),
    }
}

/// The `metaData` action, with the injected time where the library would take its own.
fn metadata(
    id: &str,
    schema: &Schema,
    partition_by: Option<&str>,
    configuration: &Value,
    created_ms: Option<i64>,
) -> Result<Metadata, LakeError> {
    let schema: StructType = schema.try_into_kernel()?;
    Ok(serde_json::from_value(json!({
        "id": id,
        "name": null,
        "description": null,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": serde_json::to_string(&schema)?,
        "partitionColumns": partition_by.into_iter().collect::<Vec<_>>(),
        "configuration": configuration,
        "createdTime": created_ms,
    }))?)
}

pub(super) async fn ensure(table: &Table, spec: &TableSpec, writer: Writer) -> Result<Ensured, LakeError> {
    let Some(loaded) = load(table, None).await? else { return create(table, spec, writer).await };
    let snapshot = snapshot(&loaded)?;
    table.check_above(version_of(snapshot)?)?;
    let current = schema_of(table, snapshot)?;
    let added = added_columns(&current, partition_of(snapshot).as_deref(), spec)?;
    if added.is_empty() {
        return Ok(Ensured::NotNeeded);
    }
    check_fence(writer.epoch, remembered_epoch(&loaded).await?)?;
    let fields: Vec<_> = current.fields().iter().cloned().chain(added).collect();
    let schema = plain_schema(&Schema::new(fields));
    let old = snapshot.metadata();
    let configuration = serde_json::to_value(old.configuration())?;
    let metadata =
        metadata(old.id(), &schema, partition_of(snapshot).as_deref(), &configuration, old.created_time())?;
    let new_fields: StructType = schema.as_ref().try_into_kernel()?;
    let operation = DeltaOperation::AddColumn {
        fields: new_fields
            .fields()
            .filter(|field| current.field_with_name(field.name()).is_err())
            .cloned()
            .collect(),
    };
    let actions =
        vec![commit_info(&operation, writer.at_ms, None)?, Action::Metadata(metadata), epoch_action(writer)];
    commit(loaded.log_store(), Some(snapshot), actions, operation, table.dir.clone()).await?;
    Ok(Ensured::Updated)
}

async fn create(table: &Table, spec: &TableSpec, writer: Writer) -> Result<Ensured, LakeError> {
    let log = table.dir.join("_delta_log");
    blocking(move || create_folders(&log)).await?;
    let schema = plain_schema(&spec.schema);
    let id = uuid::Uuid::new_v4().to_string();
    // The log is the table's memory of its checkpoints: no reader's maintenance may cut it.
    // A checkpoint now and then bounds what a reader replays; streams commit often.
    let mut configuration =
        json!({"delta.enableExpiredLogCleanup": "false", "delta.checkpointInterval": "20"});
    if let Some(above) = table.above {
        configuration[BASE] = json!((above.0 + 1).to_string());
    }
    let metadata = metadata(&id, &schema, spec.partition_by.as_deref(), &configuration, Some(writer.at_ms))?;
    // Reader 1, writer 2: every Delta reader there is. Nothing we store needs more.
    let protocol: Protocol = serde_json::from_value(json!({"minReaderVersion": 1, "minWriterVersion": 2}))?;
    let operation = DeltaOperation::Create {
        mode: SaveMode::ErrorIfExists,
        location: url(table)?,
        protocol: protocol.clone(),
        metadata: metadata.clone(),
    };
    let actions = vec![
        commit_info(&operation, writer.at_ms, None)?,
        Action::Protocol(protocol),
        Action::Metadata(metadata),
        epoch_action(writer),
    ];
    let log = DeltaTableBuilder::from_url(url(table)?)?.build()?.log_store();
    commit(log, None, actions, operation, table.dir.clone()).await?;
    Ok(Ensured::Added)
}

pub(super) async fn stage_plan(table: &Table, meta: &CommitMeta) -> Result<StagePlan, LakeError> {
    let loaded = load_existing(table, None).await?;
    let snapshot = snapshot(&loaded)?;
    let schema = schema_of(table, snapshot)?;
    Ok(StagePlan {
        table: table.dir.clone(),
        data: "",
        version: version_of(snapshot)?,
        file_schema: schema.clone(),
        schema,
        partition_by: partition_of(snapshot),
        partition_column: PartitionColumn::InLog,
        prefix: format!("part-{}-e{}", meta.key_digest(), meta.writer_epoch),
    })
}

pub(super) async fn publish(
    table: &Table,
    staged: &Staged,
    mode: &PublishMode,
    meta: &CommitMeta,
) -> Result<Published, LakeError> {
    let loaded = load_existing(table, None).await?;
    let snapshot = snapshot(&loaded)?;
    if snapshot.metadata().configuration().contains_key(FORGETS) {
        return Err(LakeError::Unusable { address: table.address.clone(), why: format!("{FORGETS} is set") });
    }
    let known = remember(&loaded, meta).await?;
    if let Some(version) = admit(meta, &known)? {
        return Ok(Published { version, outcome: Outcome::AlreadyCommitted });
    }
    let next = version_of(snapshot)?.0 + 1;
    let write = || DeltaOperation::Write {
        mode: if *mode == PublishMode::Append { SaveMode::Append } else { SaveMode::Overwrite },
        partition_by: staged.partition_by.clone().map(|by| vec![by]),
        predicate: match (mode, &staged.partition_by) {
            (PublishMode::ReplacePartition(value), Some(by)) => {
                Some(format!("{by} = '{}'", value.replace('\'', "''")))
            }
            _ => None,
        },
    };
    let operation = match mode {
        PublishMode::RemovePartitions(_) => DeltaOperation::Delete { predicate: None },
        PublishMode::Rewrite(_) => DeltaOperation::Optimize { predicate: None, target_size: 0 },
        _ => write(),
    };
    let mut actions = vec![commit_info(&operation, meta.at_ms, Some(meta))?, epoch_action(meta.writer())];
    actions.push(match &meta.checkpoint {
        Some(checkpoint) => transaction(checkpoint_id(&checkpoint.pipeline), next, meta.at_ms),
        None => transaction(key_id(meta), next, meta.at_ms),
    });
    let added: BTreeSet<&str> = staged.files.iter().map(|file| file.path.as_str()).collect();
    let changes = !matches!(mode, PublishMode::Rewrite(_));
    for view in views(&loaded).await? {
        let remove = view.remove_action(changes);
        // Under another key the name would differ, so this is a file that some commit made visible
        // and whose key was then lost: adding it again would double its rows.
        if added.contains(view.path().as_ref()) {
            return Err(LakeError::Unusable {
                address: table.address.clone(),
                why: format!("the staged file {} is already part of it", view.path()),
            });
        }
        if replaces(mode, staged.partition_by.as_deref(), &remove) {
            actions.push(Action::Remove(Remove { deletion_timestamp: Some(meta.at_ms), ..remove }));
        }
    }
    if let PublishMode::Rewrite(files) = mode {
        let gone = actions.iter().filter(|action| matches!(action, Action::Remove(_))).count();
        table.check_all_there(files, gone)?;
    }
    for file in &staged.files {
        let add = add(file, staged, meta.at_ms)?;
        actions.push(Action::Add(Add { data_change: changes, ..add }));
    }
    commit(loaded.log_store(), Some(snapshot), actions, operation, table.dir.clone()).await?;
    Ok(Published { version: Version(next), outcome: Outcome::Committed })
}

fn replaces(mode: &PublishMode, partition_by: Option<&str>, file: &Remove) -> bool {
    match mode {
        PublishMode::Append => false,
        PublishMode::ReplaceAll => true,
        PublishMode::ReplacePartition(value) => {
            let values = file.partition_values.as_ref();
            partition_by.and_then(|by| values?.get(by)?.as_deref()) == Some(value)
        }
        PublishMode::RemovePartitions(gone) => {
            let values = file.partition_values.as_ref();
            partition_by.and_then(|by| values?.get(by)?.as_ref()).is_some_and(|value| gone.contains(value))
        }
        PublishMode::Rewrite(files) => files.contains(&file.path),
    }
}

fn add(file: &StagedFile, staged: &Staged, at_ms: i64) -> Result<Add, LakeError> {
    let partition_values = match (&staged.partition_by, &file.partition) {
        (Some(by), Some(value)) => HashMap::from([(by.clone(), Some(value.clone()))]),
        _ => HashMap::new(),
    };
    Ok(Add {
        path: file.path.clone(),
        partition_values,
        size: i64::try_from(file.bytes).unwrap_or(i64::MAX),
        modification_time: at_ms,
        data_change: true,
        stats: Some(stats_json(file)?),
        ..Default::default()
    })
}

fn stats_json(file: &StagedFile) -> Result<String, LakeError> {
    let (mut least, mut greatest, mut nulls) = (json!({}), json!({}), json!({}));
    for (name, stats) in &file.stats {
        if let Some(count) = stats.nulls {
            nulls[name] = json!(count);
        }
        if let Some((min, max)) = &stats.bounds
            && let (Some(min), Some(max)) = (stat_value(min), stat_value(max))
        {
            least[name] = min;
            greatest[name] = max;
        }
    }
    let stats =
        json!({"numRecords": file.rows, "minValues": least, "maxValues": greatest, "nullCount": nulls});
    Ok(serde_json::to_string(&stats)?)
}

/// A bound as Delta's JSON has it. Timestamps are left out: readers take theirs as milliseconds.
fn stat_value(value: &datafusion::scalar::ScalarValue) -> Option<Value> {
    use datafusion::scalar::ScalarValue;
    match value {
        ScalarValue::Int32(Some(number)) => Some(json!(number)),
        ScalarValue::Int64(Some(number)) => Some(json!(number)),
        ScalarValue::Date32(Some(_)) => {
            value.cast_to(&DataType::Utf8).ok().map(|text| json!(text.to_string()))
        }
        _ => None,
    }
}

async fn remember(loaded: &DeltaTable, meta: &CommitMeta) -> Result<Remembered, LakeError> {
    let log = loaded.log_store();
    let snapshot = snapshot(loaded)?;
    let mut known = Remembered { epoch: remembered_epoch(loaded).await?, ..Default::default() };
    match &meta.checkpoint {
        Some(checkpoint) => known.pipeline_last = pipeline_last(loaded, &checkpoint.pipeline).await?,
        None => known.key_at = snapshot.transaction_version(log.as_ref(), key_id(meta)).await?.map(Version),
    }
    Ok(known)
}

async fn pipeline_last(
    loaded: &DeltaTable,
    pipeline: &str,
) -> Result<Option<(Version, CommitMeta)>, LakeError> {
    let log = loaded.log_store();
    let Some(at) = snapshot(loaded)?.transaction_version(log.as_ref(), checkpoint_id(pipeline)).await? else {
        return Ok(None);
    };
    let lost = || LakeError::Unusable {
        address: loaded.table_url().to_string(),
        why: format!("version {at}, which holds the checkpoint of {pipeline}, is gone from its log"),
    };
    let place = u64::try_from(at - base_of(snapshot(loaded)?)).map_err(|_| lost())?;
    let meta = read_commit(loaded, place).await?.ok_or_else(lost)?;
    Ok(Some((Version(at), meta)))
}

/// The [`CommitMeta`] of one version; `None` when the version is not a publish of ours or is gone.
async fn read_commit(loaded: &DeltaTable, version: u64) -> Result<Option<CommitMeta>, LakeError> {
    let Some(bytes) = loaded.log_store().read_commit_entry(version).await? else { return Ok(None) };
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let action: Value = serde_json::from_slice(line)?;
        if let Some(meta) = action.get("commitInfo").and_then(|info| info.get(COMMIT)) {
            return Ok(Some(serde_json::from_value(meta.clone())?));
        }
    }
    Ok(None)
}

/// Returns the commits that the log still has, up to the version that is loaded.
async fn commits_in(loaded: &DeltaTable) -> Result<Vec<u64>, LakeError> {
    let newest = snapshot(loaded)?.version();
    let dir = loaded.table_url().to_file_path().unwrap_or_default();
    let log = blocking(move || Log::of(&dir)).await?;
    Ok(log.commits.range(..=newest).copied().collect())
}

async fn commits_of(loaded: &DeltaTable, n: usize) -> Result<Vec<(Version, CommitMeta)>, LakeError> {
    let mut found = Vec::new();
    let base = base_of(snapshot(loaded)?);
    for version in commits_in(loaded).await?.into_iter().rev() {
        if found.len() == n {
            break;
        }
        if let Some(meta) = read_commit(loaded, version).await? {
            let version = i64::try_from(version).map_err(|_| LakeError::Conflict)?;
            found.push((Version(version + base), meta));
        }
    }
    Ok(found)
}

pub(super) async fn commits(table: &Table, n: usize) -> Result<Vec<(Version, CommitMeta)>, LakeError> {
    match load(table, None).await? {
        Some(loaded) => commits_of(&loaded, n).await,
        None => Ok(Vec::new()),
    }
}

pub(super) async fn last_checkpoint(table: &Table, pipeline: &str) -> Result<Option<Value>, LakeError> {
    let Some(loaded) = load(table, None).await? else { return Ok(None) };
    let last = pipeline_last(&loaded, pipeline).await?;
    Ok(last.and_then(|(_, meta)| meta.checkpoint).map(|checkpoint| checkpoint.record))
}

/// Every path that a version shows which can be read: those of the newest, and whatever came or went since the first, or after
/// version `since`.
pub(super) async fn referenced(table: &Table, since: Option<Version>) -> Result<BTreeSet<String>, LakeError> {
    let mut paths = BTreeSet::new();
    let Some(loaded) = load(table, None).await? else { return Ok(paths) };
    paths.extend(views(&loaded).await?.iter().map(|view| view.path().into_owned()));
    let base = base_of(snapshot(&loaded)?);
    let old = |version: u64| {
        since.is_some_and(|since| i64::try_from(version).is_ok_and(|version| version + base <= since.0))
    };
    for version in commits_in(&loaded).await?.into_iter().filter(|version| !old(*version)) {
        let Some(bytes) = loaded.log_store().read_commit_entry(version).await? else { continue };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Action>(line)? {
                Action::Add(Add { path, .. }) | Action::Remove(Remove { path, .. }) => _ = paths.insert(path),
                _ => {}
            }
        }
    }
    Ok(paths)
}

pub(super) async fn expire(table: &Table, keep: &Keep, writer: Writer) -> Result<u64, LakeError> {
    let loaded = load_existing(table, None).await?;
    check_fence(writer.epoch, remembered_epoch(&loaded).await?)?;
    let (dir, keep) = (table.dir.clone(), *keep);
    blocking(move || Log::of(&dir)?.cut(&keep)).await
}
