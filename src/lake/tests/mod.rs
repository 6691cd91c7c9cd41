//! The promises of [`Table`], each checked in both formats on real folders.

mod commits;
mod contents;
mod copied;
mod leave;
mod others;
mod over;
mod taken;
mod tidy;

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

use self::{commits::*, contents::*, leave::*, others::*, over::*, taken::*, tidy::*};
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
        Arc::new(ids.iter().map(|id| (id % 4 != 0).then(|| format!("name {id}"))).collect::<StringArray>()),
        Arc::new(ids.iter().map(|id| (id % 5 != 0).then_some(*id as f64 / 3.0)).collect::<Float64Array>()),
        Arc::new(ids.iter().map(|id| Some(id % 2 == 0)).collect::<BooleanArray>()),
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

fn with_column(schema: &Schema, field: Field) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([Arc::new(field)]).collect::<Vec<_>>()))
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
    many_appends_stay_readable_at_every_version,
    a_folder_has_one_format,
    statistics_answer_truly,
    a_failed_stream_stages_nothing,
    readers_that_are_not_ours_agree,
    a_look_tells_rows_keys_and_lost_files,
    a_lake_over_another_reads_what_it_lacks_and_writes_only_its_own,
    a_pinned_version_that_is_gone_is_told,
    what_is_taken_over_is_published_as_if_it_were_computed,
    what_is_torn_cut_or_not_ours_is_not_taken_over,
    only_the_publication_that_is_meant_is_taken_over,
    rows_are_the_same_if_their_files_are,
    files_are_taken_where_they_would_have_been_written_alike,
    versions_of_a_table_made_anew_go_on_above,
    another_table_in_its_place_is_never_written,
    a_file_that_was_cut_is_noticed,
    a_torn_log_is_told_of_and_never_written_to,
    a_dropped_table_is_gone_with_what_is_beside_it,
    a_drop_goes_on_where_it_stopped,
    an_archived_table_can_be_put_back,
    a_table_that_took_the_place_never_leaves_with_the_old_one,
    nothing_outside_the_lake_leaves,
    partitions_are_removed_from_the_newest_version_alone,
    small_files_are_put_together_and_rows_stay,
    what_is_appended_meanwhile_stays_beside_what_is_put_together,
    versions_that_nobody_keeps_go_and_all_that_is_remembered_stays,
    readers_hold_on_to_versions,
    a_table_made_anew_is_known_as_one_when_its_log_was_cut,
);

#[tokio::test]
async fn a_torn_checkpoint_of_a_delta_table_is_done_without() {
    checkpoints_can_be_done_without().await;
}

#[tokio::test]
async fn a_log_that_was_cut_rests_on_its_checkpoints() {
    a_cut_log_can_do_without_a_torn_checkpoint().await;
}

#[tokio::test]
async fn a_cut_of_a_log_goes_on_where_it_stopped() {
    a_cut_that_stopped_half_way_goes_on().await;
}
