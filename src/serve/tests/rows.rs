//! Batch rows out of real tables.

use arrow::array::RecordBatch;
use arrow::array::{Date32Array, Float64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use hydromesh_core::model::TableFormat;

use super::*;
use crate::lake::{CommitMeta, Lake, PublishMode, Table, TableSpec, Writer};

const PORT: &str = "customer/customer-360.customer_360";
/// 2026-11-17 in days since 1970.
const DAY: i32 = 20_774;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("customer_id", DataType::Utf8, false),
        Field::new("as_of_date", DataType::Date32, false),
        Field::new("spent", DataType::Float64, true),
    ]))
}

async fn put(table: &Table, day: i32, rows: &[(&str, Option<f64>)], tag: &str) -> i64 {
    let batch = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(key, _)| *key))),
            Arc::new(Date32Array::from(vec![day; rows.len()])),
            Arc::new(rows.iter().map(|(_, spent)| *spent).collect::<Float64Array>()),
        ],
    )
    .unwrap();
    let stream = RecordBatchStreamAdapter::new(schema(), futures::stream::iter([Ok(batch)]));
    let meta = CommitMeta::new(tag, 1, NOW);
    let staged = table.stage(&meta, Box::pin(stream)).await.unwrap();
    let day =
        chrono::DateTime::from_timestamp(i64::from(day) * 86_400, 0).unwrap().format("%Y-%m-%d").to_string();
    table.publish(staged, PublishMode::ReplacePartition(day), &meta).await.unwrap().version.0
}

async fn check(format: TableFormat) {
    let folder = tempfile::tempdir().unwrap();
    let lake = Arc::new(Lake::open(folder.path()).await.unwrap());
    let of_lake = match format {
        TableFormat::Delta => crate::lake::TableFormat::Delta,
        TableFormat::Iceberg => crate::lake::TableFormat::Iceberg,
    };
    let table = lake.table(PORT, of_lake).unwrap();
    let spec = TableSpec { schema: schema(), partition_by: Some("as_of_date".into()) };
    table.ensure(&spec, Writer { epoch: 1, at_ms: NOW }).await.unwrap();

    let mut mesh = example();
    let id: ProductId = "customer/customer-360".parse().unwrap();
    for output in mesh.products.get_mut(&id).unwrap().outputs.values_mut() {
        output.format = format;
    }
    let mut story = Story::new();
    story.deploy(&mesh);
    let ledger: SharedLedger = Arc::new(RwLock::new(Arc::new(story.state.clone())));
    let tell = |story: &Story| *ledger.write().unwrap() = Arc::new(story.state.clone());
    let lookup = TableLookup::new(Arc::clone(&lake), Arc::clone(&ledger));
    let port: PortId = PORT.parse().unwrap();
    assert!(matches!(lookup.row(&port, "c-1").await, Err(LookupError::NotReady(_))), "nothing is published");

    // The newest partition is written first, so that order of commits and order of days differ.
    let version = put(&table, DAY + 1, &[("c-1", Some(20.0)), ("c-2", None)], "b").await;
    story.publish(PORT, Some("2026-11-18"), version, i64::from(DAY + 2) * 86_400_000);
    let version = put(&table, DAY, &[("c-1", Some(10.0)), ("c-3", Some(30.5))], "a").await;
    story.publish(PORT, Some("2026-11-17"), version, i64::from(DAY + 1) * 86_400_000);
    tell(&story);
    let row = lookup.row(&port, "c-1").await.unwrap().unwrap();
    assert_eq!(
        row.values,
        [("as_of_date".to_owned(), json!("2026-11-18")), ("spent".to_owned(), json!(20.0))]
    );
    assert_eq!((row.version, row.partition.as_deref()), (version, Some("2026-11-18")));
    assert_eq!(row.as_of_ms, Some(i64::from(DAY + 2) * 86_400_000));
    assert_eq!(lookup.row(&port, "c-2").await.unwrap().unwrap().values[1].1, Value::Null);
    let old = lookup.row(&port, "c-3").await.unwrap().unwrap();
    assert_eq!((old.partition.as_deref(), &old.values[1].1), (Some("2026-11-17"), &json!(30.5)));
    assert_eq!(lookup.row(&port, "nobody").await.unwrap(), None);

    // A version that the ledger does not name yet is not shown.
    let newer = put(&table, DAY + 1, &[("c-1", Some(99.0))], "c").await;
    lookup.refresh().await;
    assert_eq!(lookup.row(&port, "c-1").await.unwrap().unwrap().values[1].1, json!(20.0));
    story.publish(PORT, Some("2026-11-18"), newer, i64::from(DAY + 2) * 86_400_000);
    tell(&story);
    let cancelled = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn(lookup.clone().keep_fresh(cancelled.clone()));
    let seen = tokio::time::timeout(Duration::from_secs(20), async {
        while lookup.row(&port, "c-1").await.unwrap().unwrap().version != newer {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    seen.await.expect("the newer version is loaded in the background");
    cancelled.cancel();
    task.await.unwrap();
    assert_eq!(lookup.row(&port, "c-1").await.unwrap().unwrap().values[1].1, json!(99.0));
    assert_eq!(lookup.row(&port, "c-2").await.unwrap(), None, "its only partition was replaced without it");

    // A retired product answers nothing.
    story.tell(NOW, Fact::Retired { product: id, commit: "c".into(), decision: "d".into() });
    tell(&story);
    lookup.refresh().await;
    assert!(lookup.row(&port, "c-1").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_partition_wins_and_newer_versions_follow_on_delta() {
    check(TableFormat::Delta).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_partition_wins_and_newer_versions_follow_on_iceberg() {
    check(TableFormat::Iceberg).await;
}
