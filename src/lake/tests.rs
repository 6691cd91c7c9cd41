//! The promises of [`Table`], each checked in both formats on real folders.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Builder,
        Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringViewArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use datafusion::{
    execution::SendableRecordBatchStream, physical_plan::stream::RecordBatchStreamAdapter,
    prelude::SessionContext,
};
use serde_json::json;
use tempfile::TempDir;

use super::*;

const DAY_ONE: i32 = 20_666; // 2026-08-01
const NOON: i64 = 1_785_585_600_000;

fn wide_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("day", DataType::Date32, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("paid", DataType::Boolean, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("price", DataType::Decimal128(12, 2), true),
        Field::new("raw", DataType::Binary, true),
        Field::new("vector", DataType::List(Arc::new(Field::new("item", DataType::Float32, true))), true),
    ]))
}

/// `rows` rows of one day; `tag` tells two publishes of the same day apart.
fn wide_rows(day: i32, rows: i64, tag: i64) -> RecordBatch {
    let ids: Vec<i64> = (0..rows).map(|row| tag * 1_000 + row).collect();
    let mut vectors = ListBuilder::new(Float32Builder::new());
    for row in 0..rows {
        vectors.values().append_slice(&[row as f32, 0.5]);
        vectors.append(row % 3 != 0);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.clone())),
        Arc::new(Date32Array::from(vec![day; ids.len()])),
        Arc::new(StringArray::from_iter(ids.iter().map(|id| (id % 4 != 0).then(|| format!("name {id}"))))),
        Arc::new(Float64Array::from_iter(ids.iter().map(|id| (id % 5 != 0).then_some(*id as f64 / 3.0)))),
        Arc::new(BooleanArray::from_iter(ids.iter().map(|id| Some(id % 2 == 0)))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(ids.iter().map(|id| NOON * 1_000 + id))
                .with_timezone("UTC"),
        ),
        Arc::new(
            Decimal128Array::from_iter_values(ids.iter().map(|id| i128::from(*id) * 7))
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
        Arc::new(BinaryArray::from_iter_values(ids.iter().map(|id| id.to_le_bytes()))),
        Arc::new(vectors.finish()),
    ];
    RecordBatch::try_new(wide_schema(), columns).unwrap()
}

fn stream(batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let schema = batches.first().map_or_else(wide_schema, RecordBatch::schema);
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches.into_iter().map(Ok))))
}

fn by_day() -> TableSpec {
    TableSpec { schema: wide_schema(), partition_by: Some("day".into()) }
}

fn writer(epoch: u64) -> Writer {
    Writer { epoch, at_ms: NOON }
}

async fn new_table(format: TableFormat, spec: &TableSpec) -> (TempDir, Table) {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path()).await.unwrap();
    let table = lake.table("commerce/orders.orders", format).unwrap();
    assert!(matches!(table.state().await.unwrap(), TableState::Absent));
    assert_eq!(table.ensure(spec, writer(1)).await.unwrap(), Ensured::Added);
    assert_eq!(table.ensure(spec, writer(1)).await.unwrap(), Ensured::NotNeeded);
    (folder, table)
}

async fn put(
    table: &Table,
    batches: Vec<RecordBatch>,
    mode: PublishMode,
    meta: &CommitMeta,
) -> Result<Published, LakeError> {
    let staged = table.stage(meta, stream(batches)).await?;
    table.publish(staged, mode, meta).await
}

async fn sql(table: &Table, at: Option<Version>, query: &str) -> Vec<RecordBatch> {
    let context = SessionContext::new();
    context.register_table("t", table.provider(at).await.unwrap()).unwrap();
    context.sql(query).await.unwrap().collect().await.unwrap()
}

async fn number(table: &Table, at: Option<Version>, query: &str) -> i64 {
    let batches = sql(table, at, query).await;
    let column = batches[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap();
    if column.is_null(0) { -1 } else { column.value(0) }
}

async fn known(table: &Table) -> Box<KnownTable> {
    match table.state().await.unwrap() {
        TableState::Known(known) => known,
        TableState::Absent => panic!("the table is absent"),
    }
}

/// One test per format.
macro_rules! both_formats {
    ($($name:ident),* $(,)?) => {
        mod delta_tables {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() { super::$name(super::TableFormat::Delta).await; })*
        }
        mod iceberg_tables {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() { super::$name(super::TableFormat::Iceberg).await; })*
        }
    };
}

both_formats!(
    every_type_comes_back,
    a_query_result_with_views_is_stored_plain,
    replacing_a_partition_keeps_the_others_and_the_past,
    an_empty_partition_is_known,
    staged_rows_are_seen_by_the_audit_alone,
    a_key_commits_once,
    a_stale_writer_is_fenced,
    checkpoints_form_a_chain,
    columns_are_added_and_nothing_else,
    bad_rows_are_typed_errors,
    appends_that_race_all_land_once,
    one_key_that_races_lands_once,
    a_table_created_twice_at_once_is_one_table,
    strings_partition_too,
    many_partitions_in_one_stage,
    sweep_takes_only_what_no_version_has,
    a_content_hash_knows_rows_not_files,
    replace_all_leaves_nothing_behind,
    appends_without_rows_commit,
    a_folder_has_one_format,
    statistics_answer_truly,
    a_failed_stream_stages_nothing,
    readers_that_are_not_ours_agree,
);

async fn every_type_comes_back(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let meta = CommitMeta::new("k1", 1, NOON);
    let rows = wide_rows(DAY_ONE, 10, 1);
    let published = put(&table, vec![rows.clone()], PublishMode::Append, &meta).await.unwrap();
    assert_eq!(published.outcome, Outcome::Committed);
    let back = sql(&table, None, "SELECT * FROM t ORDER BY id").await;
    let back = arrow::compute::concat_batches(&back[0].schema(), &back).unwrap();
    for (field, column) in wide_schema().fields().iter().zip(rows.columns()) {
        assert_eq!(
            back.schema().field_with_name(field.name()).unwrap().data_type(),
            field.data_type(),
            "{field}"
        );
        assert_eq!(back.column_by_name(field.name()).unwrap(), column, "{field}");
    }
    let known = known(&table).await;
    assert_eq!((known.rows, known.files, known.version), (10, 1, published.version));
    assert_eq!(known.schema, wide_schema());
    assert_eq!(known.last_commit.as_ref(), Some(&meta));
    assert_eq!(table.commits(5).await.unwrap(), vec![(published.version, meta)]);
}

async fn a_query_result_with_views_is_stored_plain(format: TableFormat) {
    let schema = Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, true)]));
    let (_folder, table) = new_table(format, &TableSpec { schema, partition_by: None }).await;
    let views: ArrayRef =
        Arc::new(StringViewArray::from(vec![Some("a"), None, Some("a string longer than twelve bytes")]));
    let rows = RecordBatch::try_from_iter(vec![("name", views)]).unwrap();
    let _ = put(&table, vec![rows], PublishMode::Append, &CommitMeta::new("k", 1, NOON)).await.unwrap();
    let back = sql(&table, None, "SELECT name FROM t WHERE name > 'a'").await;
    assert_eq!(
        back[0].column(0).as_any().downcast_ref::<StringArray>().unwrap().value(0),
        "a string longer than twelve bytes"
    );
}

async fn replacing_a_partition_keeps_the_others_and_the_past(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let first = vec![wide_rows(DAY_ONE, 5, 1), wide_rows(DAY_ONE + 1, 7, 2)];
    let before = put(&table, first, PublishMode::Append, &CommitMeta::new("k1", 1, NOON)).await.unwrap();
    let replace = PublishMode::ReplacePartition("2026-08-01".into());
    let after = put(&table, vec![wide_rows(DAY_ONE, 3, 3)], replace, &CommitMeta::new("k2", 1, NOON + 1))
        .await
        .unwrap();
    assert!(after.version > before.version);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 10);
    assert_eq!(number(&table, None, "SELECT min(id) FROM t WHERE day = DATE '2026-08-01'").await, 3_000);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t WHERE day = DATE '2026-08-02'").await, 7);
    assert_eq!(number(&table, Some(before.version), "SELECT count(*) FROM t").await, 12);
    assert_eq!(
        number(&table, Some(before.version), "SELECT min(id) FROM t WHERE day = DATE '2026-08-01'").await,
        1_000
    );
    let partitions = table.partitions(None).await.unwrap();
    assert_eq!(partitions.keys().collect::<Vec<_>>(), ["2026-08-01", "2026-08-02"]);
    assert_eq!(partitions["2026-08-01"].rows, 3);
    assert_eq!(table.partitions(Some(before.version)).await.unwrap()["2026-08-01"].rows, 5);
    let misplaced = put(
        &table,
        vec![wide_rows(DAY_ONE + 1, 1, 4)],
        PublishMode::ReplacePartition("2026-08-01".into()),
        &CommitMeta::new("k3", 1, NOON),
    )
    .await;
    assert!(matches!(misplaced, Err(LakeError::WrongPartition { .. })));
    assert!(matches!(table.provider(Some(Version(99))).await, Err(LakeError::UnknownVersion { .. })));
}

async fn an_empty_partition_is_known(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let replace = || PublishMode::ReplacePartition("2026-08-01".into());
    let _ = put(&table, vec![wide_rows(DAY_ONE, 5, 1)], replace(), &CommitMeta::new("k1", 1, NOON))
        .await
        .unwrap();
    let emptied = put(&table, vec![], replace(), &CommitMeta::new("k2", 1, NOON)).await.unwrap();
    assert_eq!(emptied.outcome, Outcome::Committed);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 0);
    assert_eq!(number(&table, None, "SELECT max(id) FROM t").await, -1);
    assert_eq!(table.partitions(None).await.unwrap()["2026-08-01"].rows, 0);
    let _ = put(&table, vec![wide_rows(DAY_ONE, 2, 2)], replace(), &CommitMeta::new("k3", 1, NOON))
        .await
        .unwrap();
    assert_eq!(table.partitions(None).await.unwrap()["2026-08-01"].rows, 2);
    let no_date =
        put(&table, vec![], PublishMode::ReplacePartition("soon".into()), &CommitMeta::new("k4", 1, NOON))
            .await;
    assert!(matches!(no_date, Err(LakeError::BadPartition { .. })));
}

async fn staged_rows_are_seen_by_the_audit_alone(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let meta = CommitMeta::new("k1", 1, NOON);
    let staged = table
        .stage(&meta, stream(vec![wide_rows(DAY_ONE, 4, 1), wide_rows(DAY_ONE + 1, 2, 2)]))
        .await
        .unwrap();
    assert_eq!((staged.rows, staged.files.len()), (6, 2));
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 0);
    let context = SessionContext::new();
    context.register_table("staged", table.staged_provider(&staged).await.unwrap()).unwrap();
    let query = "SELECT day, count(*) AS n, min(name) AS first FROM staged WHERE id >= 1001 GROUP BY day ORDER BY day";
    let audit = context.sql(query).await.unwrap().collect().await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&audit).unwrap().to_string();
    assert!(shown.contains("| 2026-08-01 | 3 | name 1001 |"), "{shown}");
    assert!(shown.contains("| 2026-08-02 | 2 | name 2001 |"), "{shown}");
    let paths: Vec<_> = staged.files.iter().map(|file| table.location().join(&file.path)).collect();
    assert!(paths.iter().all(|path| path.is_file()));
    table.discard(staged).await.unwrap();
    assert!(paths.iter().all(|path| !path.exists()));
    // What is published is out of discard's reach, even through a second stage of the same rows.
    let _ = put(&table, vec![wide_rows(DAY_ONE, 4, 1)], PublishMode::Append, &meta).await.unwrap();
    let again = table.stage(&meta, stream(vec![wide_rows(DAY_ONE, 4, 1)])).await.unwrap();
    table.discard(again).await.unwrap();
    assert_eq!(number(&table, None, "SELECT sum(id) FROM t").await, 4_006);
}

async fn a_key_commits_once(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let meta = CommitMeta::new("orders/2026-08-01/f00/v3", 1, NOON);
    let first = put(&table, vec![wide_rows(DAY_ONE, 5, 1)], PublishMode::Append, &meta).await.unwrap();
    let other = CommitMeta::new("other", 1, NOON);
    let _ = put(&table, vec![wide_rows(DAY_ONE, 1, 2)], PublishMode::Append, &other).await.unwrap();
    let version = known(&table).await.version;
    let again = put(&table, vec![wide_rows(DAY_ONE, 5, 1)], PublishMode::Append, &meta).await.unwrap();
    assert_eq!(again, Published { version: first.version, outcome: Outcome::AlreadyCommitted });
    // Even when the second attempt has come to other rows.
    let different =
        put(&table, vec![wide_rows(DAY_ONE, 9, 3)], PublishMode::ReplaceAll, &meta).await.unwrap();
    assert_eq!(different.outcome, Outcome::AlreadyCommitted);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 6);
    // The refused rows are gone, the committed ones are not.
    assert_eq!(table.sweep(i64::MAX).await.unwrap(), 0);
    assert_eq!(known(&table).await.version, version);
}

async fn a_stale_writer_is_fenced(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let _ =
        put(&table, vec![wide_rows(DAY_ONE, 1, 1)], PublishMode::Append, &CommitMeta::new("new", 7, NOON))
            .await
            .unwrap();
    let stale =
        put(&table, vec![wide_rows(DAY_ONE, 1, 2)], PublishMode::Append, &CommitMeta::new("old", 6, NOON))
            .await;
    assert!(matches!(stale, Err(LakeError::Fenced { offered: 6, current: 7 })), "{stale:?}");
    let mut wider = by_day();
    wider.schema = with_column(&wider.schema, Field::new("note", DataType::Utf8, true));
    let stale = table.ensure(&wider, writer(6)).await;
    assert!(matches!(stale, Err(LakeError::Fenced { .. })), "{stale:?}");
    let _ =
        put(&table, vec![wide_rows(DAY_ONE, 1, 3)], PublishMode::Append, &CommitMeta::new("same", 7, NOON))
            .await
            .unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 2);
}

async fn checkpoints_form_a_chain(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let epoch = |pipeline: &str, n: i64, follows: Option<serde_json::Value>| {
        CommitMeta::new(format!("{pipeline}/{n}"), 1, NOON + n).with_checkpoint(Checkpoint {
            pipeline: pipeline.into(),
            record: json!({"epoch": n, "ranges": {"0": [n * 10, n * 10 + 10]}}),
            follows,
        })
    };
    let record = |n: i64| json!({"epoch": n, "ranges": {"0": [n * 10, n * 10 + 10]}});
    assert_eq!(table.last_checkpoint("clicks").await.unwrap(), None);
    let first = put(&table, vec![wide_rows(DAY_ONE, 1, 1)], PublishMode::Append, &epoch("clicks", 0, None))
        .await
        .unwrap();
    let _ = put(
        &table,
        vec![wide_rows(DAY_ONE, 1, 2)],
        PublishMode::Append,
        &epoch("clicks", 1, Some(record(0))),
    )
    .await
    .unwrap();
    // Many commits of others do not hide it, nor does a second pipeline in the same table.
    for n in 0..25 {
        let meta = CommitMeta::new(format!("batch {n}"), 1, NOON);
        let _ =
            put(&table, vec![wide_rows(DAY_ONE + 1, 1, 10 + n)], PublishMode::Append, &meta).await.unwrap();
    }
    let _ = put(&table, vec![wide_rows(DAY_ONE, 1, 3)], PublishMode::Append, &epoch("views", 0, None))
        .await
        .unwrap();
    if format == TableFormat::Delta {
        // The log has been folded into a checkpoint in between, and remembers all the same.
        let log = table.location().join("_delta_log");
        let mut names = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.any(|name| name.to_string_lossy().ends_with(".checkpoint.parquet")));
    }
    assert_eq!(table.last_checkpoint("clicks").await.unwrap(), Some(record(1)));
    assert_eq!(table.last_checkpoint("views").await.unwrap(), Some(record(0)));
    // The newest again: the answer was lost. An older one, a fork, a skip: broken.
    let again = put(
        &table,
        vec![wide_rows(DAY_ONE, 1, 2)],
        PublishMode::Append,
        &epoch("clicks", 1, Some(record(0))),
    )
    .await
    .unwrap();
    assert_eq!(again.outcome, Outcome::AlreadyCommitted);
    assert!(again.version > first.version);
    for broken in
        [epoch("clicks", 0, None), epoch("clicks", 5, Some(record(0))), epoch("clicks", 6, Some(record(5)))]
    {
        let refused = put(&table, vec![wide_rows(DAY_ONE, 1, 2)], PublishMode::Append, &broken).await;
        assert!(matches!(refused, Err(LakeError::ChainBroken { .. })), "{refused:?}");
    }
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 28);
}

fn with_column(schema: &Schema, field: Field) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([Arc::new(field)]).collect::<Vec<_>>()))
}

async fn columns_are_added_and_nothing_else(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let before =
        put(&table, vec![wide_rows(DAY_ONE, 3, 1)], PublishMode::Append, &CommitMeta::new("k1", 1, NOON))
            .await
            .unwrap();
    let wider = TableSpec {
        schema: with_column(&wide_schema(), Field::new("note", DataType::Utf8, true)),
        ..by_day()
    };
    assert_eq!(table.ensure(&wider, writer(1)).await.unwrap(), Ensured::Updated);
    assert_eq!(table.ensure(&wider, writer(1)).await.unwrap(), Ensured::NotNeeded);
    assert_eq!(table.ensure(&by_day(), writer(1)).await.unwrap(), Ensured::NotNeeded);
    assert!(known(&table).await.version > before.version);
    assert_eq!(known(&table).await.schema, wider.schema);
    // Old rows have no value, rows without the column still fit, and the past keeps its shape.
    let mut columns = wide_rows(DAY_ONE, 2, 2).columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec!["x", "y"])));
    let noted = RecordBatch::try_new(wider.schema.clone(), columns).unwrap();
    let _ = put(&table, vec![noted], PublishMode::Append, &CommitMeta::new("k2", 1, NOON)).await.unwrap();
    let _ = put(&table, vec![wide_rows(DAY_ONE, 1, 3)], PublishMode::Append, &CommitMeta::new("k3", 1, NOON))
        .await
        .unwrap();
    assert_eq!(number(&table, None, "SELECT count(note) FROM t").await, 2);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t WHERE note IS NULL").await, 4);
    assert_eq!(table.provider(Some(before.version)).await.unwrap().schema(), wide_schema());
    assert_eq!(number(&table, Some(before.version), "SELECT count(*) FROM t").await, 3);

    let refused = |schema: SchemaRef, partition_by: Option<&str>| {
        let spec = TableSpec { schema, partition_by: partition_by.map(str::to_owned) };
        let table = table.clone();
        async move {
            let refused = table.ensure(&spec, writer(1)).await;
            assert!(matches!(refused, Err(LakeError::IncompatibleSchema { .. })), "{refused:?}");
        }
    };
    refused(with_column(&wide_schema(), Field::new("must", DataType::Utf8, false)), Some("day")).await;
    refused(wide_schema(), None).await;
    refused(wide_schema(), Some("amount")).await;
    let mut fields = wide_schema().fields().to_vec();
    fields[2] = Arc::new(Field::new("name", DataType::Int64, true));
    refused(Arc::new(Schema::new(fields)), Some("day")).await;
    let odd = TableSpec {
        schema: with_column(&wide_schema(), Field::new("odd", DataType::UInt64, true)),
        ..by_day()
    };
    assert!(matches!(table.ensure(&odd, writer(1)).await, Err(LakeError::UnsupportedType { .. })));
}

async fn bad_rows_are_typed_errors(format: TableFormat) {
    let spec = TableSpec {
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("country", DataType::Utf8, true),
        ])),
        partition_by: Some("country".into()),
    };
    let (_folder, table) = new_table(format, &spec).await;
    let meta = CommitMeta::new("k", 1, NOON);
    let ids = |values: Vec<Option<i64>>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let names = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
    let stage = async |columns: Vec<(&str, ArrayRef)>| {
        let nullable = columns.into_iter().map(|(name, column)| (name, column, true));
        table.stage(&meta, stream(vec![RecordBatch::try_from_iter_with_nullable(nullable).unwrap()])).await
    };
    let null = stage(vec![("id", ids(vec![Some(1)])), ("country", names(vec![None]))]).await;
    assert!(matches!(null, Err(LakeError::NullPartition { .. })), "{null:?}");
    let empty = stage(vec![("id", ids(vec![Some(1)])), ("country", names(vec![Some("")]))]).await;
    assert!(matches!(empty, Err(LakeError::NullPartition { .. })), "{empty:?}");
    let required = stage(vec![("id", ids(vec![None])), ("country", names(vec![Some("ch")]))]).await;
    assert!(matches!(required, Err(LakeError::NullInRequired { .. })), "{required:?}");
    let missing = stage(vec![("country", names(vec![Some("ch")]))]).await;
    assert!(matches!(missing, Err(LakeError::MissingColumn { .. })), "{missing:?}");
    let unknown =
        stage(vec![("id", ids(vec![Some(1)])), ("country", names(vec![Some("ch")])), ("x", ids(vec![None]))])
            .await;
    assert!(matches!(unknown, Err(LakeError::UnknownColumn { .. })), "{unknown:?}");
    let other = stage(vec![("id", names(vec![Some("1")])), ("country", names(vec![Some("ch")]))]).await;
    assert!(matches!(other, Err(LakeError::IncompatibleSchema { .. })), "{other:?}");
    assert_eq!(table.sweep(i64::MAX).await.unwrap(), 0);
}

async fn appends_that_race_all_land_once(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let mut writers = Vec::new();
    for tag in 0..8 {
        let table = table.clone();
        writers.push(tokio::spawn(async move {
            let meta = CommitMeta::new(format!("writer {tag}"), 1, NOON);
            put(&table, vec![wide_rows(DAY_ONE + tag, 10, i64::from(tag))], PublishMode::Append, &meta)
                .await
                .unwrap()
        }));
    }
    let mut versions = std::collections::BTreeSet::new();
    for writer in writers {
        versions.insert(writer.await.unwrap().version);
    }
    assert_eq!(versions.len(), 8);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 80);
    assert_eq!(number(&table, None, "SELECT count(DISTINCT id) FROM t").await, 80);
    assert_eq!(table.commits(100).await.unwrap().len(), 8);
}

async fn one_key_that_races_lands_once(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let mut writers = Vec::new();
    for _ in 0..4 {
        let table = table.clone();
        writers.push(tokio::spawn(async move {
            let meta = CommitMeta::new("the same", 1, NOON);
            put(&table, vec![wide_rows(DAY_ONE, 10, 1)], PublishMode::Append, &meta).await.unwrap().outcome
        }));
    }
    let mut committed = 0;
    for writer in writers {
        committed += i32::from(writer.await.unwrap() == Outcome::Committed);
    }
    assert_eq!(committed, 1);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 10);
}

async fn a_table_created_twice_at_once_is_one_table(format: TableFormat) {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path()).await.unwrap();
    let table = lake.table("commerce/orders.orders", format).unwrap();
    let mut creators = Vec::new();
    for tag in 0..4 {
        let table = table.clone();
        creators.push(tokio::spawn(async move {
            let ensured = table.ensure(&by_day(), writer(1)).await.unwrap();
            let meta = CommitMeta::new(format!("creator {tag}"), 1, NOON);
            let _ = put(&table, vec![wide_rows(DAY_ONE, 5, tag)], PublishMode::Append, &meta).await.unwrap();
            ensured
        }));
    }
    let mut added = 0;
    for creator in creators {
        added += i32::from(creator.await.unwrap() == Ensured::Added);
    }
    assert_eq!(added, 1);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 20);
}

async fn strings_partition_too(format: TableFormat) {
    let spec = TableSpec {
        schema: Arc::new(Schema::new(vec![
            Field::new("country", DataType::Utf8, false),
            Field::new("id", DataType::Int64, false),
        ])),
        partition_by: Some("country".into()),
    };
    let (_folder, table) = new_table(format, &spec).await;
    // Prefixes, cases, spaces, quotes, slashes and letters that no path takes as they are.
    let names = ["us", "usa", "US", "Côte d'Ivoire", "a/b", "..", "100% #1?", "=", "null", "zz"];
    for (index, name) in names.iter().enumerate() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("country", Arc::new(StringArray::from(vec![*name; 3]))),
            ("id", Arc::new(Int64Array::from(vec![index as i64; 3]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let meta = CommitMeta::new(format!("k{index}"), 1, NOON);
        let _ = put(&table, vec![rows], PublishMode::ReplacePartition((*name).into()), &meta).await.unwrap();
    }
    let partitions = table.partitions(None).await.unwrap();
    assert_eq!(partitions.len(), names.len(), "{partitions:?}");
    for (index, name) in names.iter().enumerate() {
        let quoted = name.replace('\'', "''");
        assert_eq!(
            number(&table, None, &format!("SELECT sum(id) FROM t WHERE country = '{quoted}'")).await,
            3 * index as i64
        );
        assert_eq!(partitions[*name].rows, 3);
    }
    let _ = put(&table, vec![], PublishMode::ReplacePartition("us".into()), &CommitMeta::new("e", 1, NOON))
        .await
        .unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 27);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t WHERE country = 'usa'").await, 3);
}

async fn many_partitions_in_one_stage(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    // More days than files may be open, interleaved, so that some close early and come back.
    let mut batches = Vec::new();
    for round in 0..2 {
        for day in 0..90 {
            batches.push(wide_rows(DAY_ONE + day, 2, i64::from(round * 100 + day)));
        }
    }
    let published = put(&table, batches, PublishMode::Append, &CommitMeta::new("k", 1, NOON)).await.unwrap();
    let partitions = table.partitions(Some(published.version)).await.unwrap();
    assert_eq!(partitions.len(), 90);
    assert!(partitions.values().all(|info| info.rows == 4));
    let replace = PublishMode::ReplacePartition("2026-08-10".into());
    let _ = put(&table, vec![wide_rows(DAY_ONE + 9, 1, 900)], replace, &CommitMeta::new("k2", 1, NOON))
        .await
        .unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 357);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t WHERE day = DATE '2026-08-10'").await, 1);
}

async fn sweep_takes_only_what_no_version_has(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let first =
        put(&table, vec![wide_rows(DAY_ONE, 5, 1)], PublishMode::Append, &CommitMeta::new("k1", 1, NOON))
            .await
            .unwrap();
    let replace = PublishMode::ReplacePartition("2026-08-01".into());
    let _ =
        put(&table, vec![wide_rows(DAY_ONE, 3, 2)], replace, &CommitMeta::new("k2", 1, NOON)).await.unwrap();
    let orphan = table
        .stage(&CommitMeta::new("crashed", 1, NOON), stream(vec![wide_rows(DAY_ONE, 4, 3)]))
        .await
        .unwrap();
    assert_eq!(table.sweep(0).await.unwrap(), 0);
    assert_eq!(table.sweep(i64::MAX).await.unwrap(), 1);
    assert!(!table.location().join(&orphan.files[0].path).exists());
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 3);
    assert_eq!(number(&table, Some(first.version), "SELECT count(*) FROM t").await, 5);
}

async fn a_content_hash_knows_rows_not_files(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let nothing = table.content_hash(None, &[]).await.unwrap();
    let rows = wide_rows(DAY_ONE, 10, 1);
    let whole = put(&table, vec![rows.clone()], PublishMode::ReplaceAll, &CommitMeta::new("k1", 1, NOON))
        .await
        .unwrap();
    let one = table.content_hash(None, &[]).await.unwrap();
    assert_ne!(one, nothing);
    // The same rows in two commits and the other order.
    let _ = put(&table, vec![rows.slice(5, 5)], PublishMode::ReplaceAll, &CommitMeta::new("k2", 1, NOON))
        .await
        .unwrap();
    assert_ne!(table.content_hash(None, &[]).await.unwrap(), one);
    let _ = put(&table, vec![rows.slice(0, 5)], PublishMode::Append, &CommitMeta::new("k3", 1, NOON))
        .await
        .unwrap();
    assert_eq!(table.content_hash(None, &[]).await.unwrap(), one);
    assert_eq!(table.content_hash(Some(whole.version), &[]).await.unwrap(), one);
    // A doubled row is another content; without a column it is another hash.
    let _ = put(&table, vec![rows.slice(0, 1)], PublishMode::Append, &CommitMeta::new("k4", 1, NOON))
        .await
        .unwrap();
    assert_ne!(table.content_hash(None, &[]).await.unwrap(), one);
    assert_ne!(table.content_hash(Some(whole.version), &["at"]).await.unwrap(), one);
}

async fn replace_all_leaves_nothing_behind(format: TableFormat) {
    let (_folder, table) = new_table(format, &TableSpec { schema: wide_schema(), partition_by: None }).await;
    let _ = put(&table, vec![wide_rows(DAY_ONE, 9, 1)], PublishMode::Append, &CommitMeta::new("k1", 1, NOON))
        .await
        .unwrap();
    let _ =
        put(&table, vec![wide_rows(DAY_ONE, 4, 2)], PublishMode::ReplaceAll, &CommitMeta::new("k2", 1, NOON))
            .await
            .unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 4);
    let _ = put(&table, vec![], PublishMode::ReplaceAll, &CommitMeta::new("k3", 1, NOON)).await.unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 0);
    let _ = put(&table, vec![wide_rows(DAY_ONE, 2, 3)], PublishMode::Append, &CommitMeta::new("k4", 1, NOON))
        .await
        .unwrap();
    assert_eq!((known(&table).await.rows, known(&table).await.files), (2, 1));
    let no_partition =
        put(&table, vec![], PublishMode::ReplacePartition("x".into()), &CommitMeta::new("k5", 1, NOON)).await;
    assert!(matches!(no_partition, Err(LakeError::NotPartitioned { .. })));
}

async fn appends_without_rows_commit(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let first =
        put(&table, vec![wide_rows(DAY_ONE, 5, 1)], PublishMode::Append, &CommitMeta::new("k1", 1, NOON))
            .await
            .unwrap();
    let silent = CommitMeta::new("k2", 1, NOON);
    let second = put(&table, vec![], PublishMode::Append, &silent).await.unwrap();
    assert!(second.version > first.version);
    assert_eq!(
        put(&table, vec![], PublishMode::Append, &silent).await.unwrap().outcome,
        Outcome::AlreadyCommitted
    );
    let _ = put(&table, vec![wide_rows(DAY_ONE, 2, 2)], PublishMode::Append, &CommitMeta::new("k3", 1, NOON))
        .await
        .unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 7);
    assert_eq!(number(&table, Some(second.version), "SELECT count(*) FROM t").await, 5);
}

async fn a_folder_has_one_format(format: TableFormat) {
    let (folder, table) = new_table(format, &by_day()).await;
    let lake = Lake::open(folder.path()).await.unwrap();
    let other = if format == TableFormat::Delta { TableFormat::Iceberg } else { TableFormat::Delta };
    let other = lake.table(table.address(), other).unwrap();
    assert!(matches!(other.ensure(&by_day(), writer(1)).await, Err(LakeError::OtherFormat { .. })));
    for bad in ["orders", "a/b", "a/b.", "../x.y", "a/..b.c", "a/b.c/d", "a b/c.d", "/a/b.c", "a/.b.c"] {
        assert!(matches!(lake.table(bad, format), Err(LakeError::BadAddress { .. })), "{bad}");
    }
}

async fn statistics_answer_truly(format: TableFormat) {
    let schema = Arc::new(Schema::new(vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("x", DataType::Float64, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("id", DataType::Int64, true),
    ]));
    let (_folder, table) = new_table(format, &TableSpec { schema: schema.clone(), partition_by: None }).await;
    let long = "z".repeat(300);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some(long.as_str()), None, Some("a")])),
        Arc::new(Float64Array::from(vec![Some(1.0), Some(f64::INFINITY), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1_234_567), None, Some(-1)]).with_timezone("UTC")),
        Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(i64::MIN), None])),
    ];
    let rows = RecordBatch::try_new(schema, columns).unwrap();
    let _ = put(&table, vec![rows], PublishMode::Append, &CommitMeta::new("k", 1, NOON)).await.unwrap();
    let query = "SELECT max(text) AS text, max(x) AS x, max(at) AS at, min(id) AS id, count(text) AS n, count(*) AS all FROM t";
    let answer = sql(&table, None, &query.replace(" AS all", " AS every")).await;
    let shown = arrow::util::pretty::pretty_format_batches(&answer).unwrap().to_string();
    for expected in
        [long.as_str(), "inf", "1970-01-01T00:00:01.234567Z", "-9223372036854775808", "| 2 ", "| 3 "]
    {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
}

async fn a_failed_stream_stages_nothing(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let broken = futures::stream::iter(vec![
        Ok(wide_rows(DAY_ONE, 5, 1)),
        Err(datafusion::error::DataFusionError::Execution("source went away".into())),
    ]);
    let broken = Box::pin(RecordBatchStreamAdapter::new(wide_schema(), broken));
    let staged = table.stage(&CommitMeta::new("k", 1, NOON), broken).await;
    assert!(matches!(staged, Err(LakeError::Query(_))), "{staged:?}");
    assert_eq!(table.sweep(i64::MAX).await.unwrap(), 0);
}

/// Runs where `HYDROMESH_ORACLE_PYTHON` names a Python with the packages of the script.
async fn readers_that_are_not_ours_agree(format: TableFormat) {
    let Some(python) = std::env::var_os("HYDROMESH_ORACLE_PYTHON") else {
        eprintln!("skipped: HYDROMESH_ORACLE_PYTHON is not set");
        return;
    };
    let (_folder, table) = new_table(format, &by_day()).await;
    let mut metas = (0..).map(|n| CommitMeta::new(format!("k{n}"), 1, NOON + n));
    let mut next = || metas.next().unwrap();
    // The shapes that could go wrong: many files, a replaced day, an empty day, an append, a silent
    // commit, a new column and a file that has it.
    let days = (0..12).map(|day| wide_rows(DAY_ONE + day, 5, i64::from(day) + 1)).collect();
    let _ = put(&table, days, PublishMode::Append, &next()).await.unwrap();
    let day = |day: i32| PublishMode::ReplacePartition(format!("2026-08-{:02}", day + 1));
    let _ = put(&table, vec![wide_rows(DAY_ONE + 3, 9, 50)], day(3), &next()).await.unwrap();
    let pinned = put(&table, vec![], day(4), &next()).await.unwrap().version;
    let _ = put(&table, vec![wide_rows(DAY_ONE, 2, 60)], PublishMode::Append, &next()).await.unwrap();
    let _ = put(&table, vec![], PublishMode::Append, &next()).await.unwrap();
    let wider = TableSpec {
        schema: with_column(&wide_schema(), Field::new("note", DataType::Utf8, true)),
        ..by_day()
    };
    assert_eq!(table.ensure(&wider, writer(1)).await.unwrap(), Ensured::Updated);
    let mut columns = wide_rows(DAY_ONE + 20, 2, 70).columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec!["x", "y"])));
    let noted = RecordBatch::try_new(wider.schema.clone(), columns).unwrap();
    let _ = put(&table, vec![noted], PublishMode::Append, &next()).await.unwrap();

    for at in [None, Some(pinned)] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/oracles/read_tables.py");
        let mut command = std::process::Command::new(&python);
        command.arg(script).arg(table.location());
        if let Some(Version(version)) = at {
            command.arg("--version").arg(version.to_string());
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        eprintln!("{theirs}");
        let ours = async |query: &str| number(&table, at, query).await;
        assert_eq!(theirs["rows"], ours("SELECT count(*) FROM t").await);
        assert_eq!(theirs["sums"]["id"], ours("SELECT sum(id) FROM t").await.to_string());
        let cents = ours("SELECT CAST(sum(price) * 100 AS BIGINT) FROM t").await;
        assert_eq!(theirs["sums"]["price"], format!("{}.{:02}", cents / 100, cents % 100));
        for column in table.provider(at).await.unwrap().schema().fields() {
            let name = column.name();
            assert_eq!(
                theirs["non_null"][name],
                ours(&format!("SELECT count({name}) FROM t")).await,
                "{name}"
            );
        }
        let full = table.partitions(at).await.unwrap().into_iter().filter(|(_, info)| info.rows > 0);
        let full: BTreeMap<String, u64> = full.map(|(day, info)| (day, info.rows)).collect();
        assert_eq!(theirs["partitions"], json!(full));
    }
}
