//! A mesh of three products as the text of its files: two batches, one on top of the other, and a stream.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, Days, NaiveDate};
use hydromesh::clock::Clock;

/// Days of sales, the last of which is yesterday.
pub const DAYS: u64 = 20;
/// Sales on each day.
pub const SALES_A_DAY: u64 = 12;

/// Files of a commit: the bytes to write.
pub type Files = BTreeMap<String, Option<Vec<u8>>>;

const MESH: &str = "\
apiVersion: hydromesh/v1
kind: Mesh
name: crash
environments:
  dev:
    ref: refs/heads/main
    lake: {path: lake, format: delta}
    state: {kind: sqlite}
    stream: {kind: topic_folder}
";

const DOMAIN: &str = "\
apiVersion: hydromesh/v1
kind: Domain
name: shop
title: Shop
owners: [mara@example.com]
oncall: oncall@example.com
tier: 3
";

/// The mesh's own rule, which can only add to those compiled in.
const RULE: &str = "\
# METADATA
# title: Names
package mesh.names

deny contains {
\t\"rule\": \"no-secrets\",
\t\"msg\": \"nothing secret here\",
\t\"path\": \"product.name\",
} if input.product.name == \"secret\"
";

const SALE_FILES: &str = "\
apiVersion: v3.2.0
kind: DataContract
id: shop/sales.sale_files
version: 1.0.0
status: active
schema:
  - name: sale_files
    logicalType: object
    physicalType: csv
    properties:
      - {name: sale_id, logicalType: string, physicalType: text, required: true, classification: internal}
      - {name: sold_on, logicalType: date, physicalType: date, required: true, classification: internal}
      - {name: country, logicalType: string, physicalType: text, required: true, classification: internal}
      - {name: price, logicalType: number, physicalType: double, required: true, classification: internal}
";

const SALES: &str = "\
apiVersion: v3.2.0
kind: DataContract
id: shop/sales.sales
version: 1.0.0
status: active
schema:
  - name: sales
    logicalType: object
    physicalType: table
    properties:
      - name: sale_id
        logicalType: string
        physicalType: text
        required: true
        primaryKey: true
        classification: internal
        quality:
          - {id: sale-id-once, metric: duplicateValues, mustBe: 0, severity: error}
      - {name: sold_on, logicalType: date, physicalType: date, required: true, partitioned: true, classification: internal}
      - {name: country, logicalType: string, physicalType: text, required: true, classification: internal}
      - {name: price, logicalType: number, physicalType: double, required: true, classification: internal}
slaProperties:
  - {property: latency, value: 2, unit: d, element: sales.sold_on}
";

const DAILY: &str = "\
apiVersion: v3.2.0
kind: DataContract
id: shop/daily.daily
version: 1.0.0
status: active
schema:
  - name: daily
    logicalType: object
    physicalType: table
    properties:
      - {name: sold_on, logicalType: date, physicalType: date, required: true, partitioned: true, classification: internal}
      - {name: country, logicalType: string, physicalType: text, required: true, classification: internal}
      - {name: sales, logicalType: integer, physicalType: bigint, required: true, classification: internal}
      - {name: takings, logicalType: number, physicalType: double, required: true, classification: internal}
    quality:
      - {id: one-row-per-country, metric: duplicateValues, arguments: {properties: [sold_on, country]}, mustBe: 0, severity: error}
slaProperties:
  - {property: latency, value: 2, unit: d, element: daily.sold_on}
";

const RAW_EVENTS: &str = "\
apiVersion: v3.2.0
kind: DataContract
id: shop/events.raw_events
version: 1.0.0
status: active
schema:
  - name: raw_events
    physicalName: events
    logicalType: object
    physicalType: topic
    properties:
      - {name: event_id, logicalType: string, physicalType: text, required: true, classification: internal}
      - {name: ts, logicalType: timestamp, physicalType: timestamp, required: true, classification: internal}
      - {name: page, logicalType: string, physicalType: text, required: true, classification: internal}
      - {name: number, logicalType: integer, physicalType: bigint, required: true, classification: internal}
";

const EVENTS: &str = "\
apiVersion: v3.2.0
kind: DataContract
id: shop/events.events
version: 1.0.0
status: active
schema:
  - name: events
    logicalType: object
    physicalType: table
    properties:
      - name: event_id
        logicalType: string
        physicalType: text
        required: true
        primaryKey: true
        classification: internal
        quality:
          - {id: event-id-present, metric: nullValues, mustBe: 0, severity: error}
      - {name: ts, logicalType: timestamp, physicalType: timestamp, required: true, classification: internal}
      - {name: page, logicalType: string, physicalType: text, required: true, classification: internal}
      - {name: number, logicalType: integer, physicalType: bigint, required: true, classification: internal}
slaProperties:
  - {property: latency, value: 30, unit: m, element: events.ts}
";

/// The query of the sales; what a commit of a test changes.
pub const SALES_SQL: &str = "SELECT sale_id, sold_on, country, price FROM sale_files\n";
/// The query of the daily sums.
const DAILY_SQL: &str = "\
SELECT sold_on, country, COUNT(*) AS sales, SUM(price) AS takings
FROM sales
GROUP BY sold_on, country
";

/// Returns the first day of sales.
pub fn first_day(today: NaiveDate) -> NaiveDate {
    today - Days::new(DAYS)
}

/// Returns the first and the last day of sales, as partitions are spelled.
pub fn days(today: NaiveDate) -> (String, String) {
    (first_day(today).to_string(), (today - Days::new(1)).to_string())
}

/// Returns a change that takes a product out of the mesh.
pub fn without(name: &str) -> Files {
    let folder = format!("domains/shop/{name}/");
    let all = files(today(), "1d").into_keys().filter(|path| path.starts_with(&folder));
    all.map(|path| (path, None)).collect()
}

/// Returns a change that sells everything twice, which a rule of the contract forbids.
pub fn doubled() -> Files {
    let sql = format!("{SALES_SQL}UNION ALL\n{SALES_SQL}");
    [("domains/shop/sales/sales.sql".to_owned(), Some(sql.into_bytes()))].into()
}

/// Returns all files of the mesh; a step of its batches computes one chunk, a span as in a manifest.
pub fn files(today: NaiveDate, chunk: &str) -> Files {
    let start = first_day(today);
    let batch = |name: &str, port: &str| {
        format!(
            "apiVersion: hydromesh/v1\nkind: BatchPipeline\nname: {name}\noutput: {port}\nsql: {port}.sql\n\
             partition: {{by: sold_on, every: day, start: {start}, timezone: UTC}}\n\
             backfill: {{chunk: {chunk}, concurrency: 2}}\nretry: {{attempts: 3, backoff: {{from: 1s, to: 2s}}}}\n"
        )
    };
    let stream = "apiVersion: hydromesh/v1\nkind: StreamPipeline\nname: keep-events\noutput: events\nsql: events.sql\n\
                  source: {port: raw_events, event_time: ts, event_id: event_id, watermark: {bound: 30s, idle: 30s}, \
                  late: {allow: 1h, beyond: quarantine}}\n";
    let texts = [
        ("mesh.yaml", MESH.to_owned()),
        ("policies/names.rego", RULE.to_owned()),
        ("domains/shop/domain.yaml", DOMAIN.to_owned()),
        (
            "domains/shop/sales/product.odps.yaml",
            product(
                "sales",
                "{name: sale_files, version: 1.0.0, contractId: shop/sales.sale_files, \
                     customProperties: [{property: hydromesh.files, value: \"data/*.csv\"}]}",
            ),
        ),
        ("domains/shop/sales/pipeline.yaml", batch("read-sales", "sales")),
        ("domains/shop/sales/sales.sql", SALES_SQL.to_owned()),
        ("domains/shop/sales/sale_files.odcs.yaml", SALE_FILES.to_owned()),
        ("domains/shop/sales/sales.odcs.yaml", SALES.to_owned()),
        ("domains/shop/sales/data/sales.csv", sales(start)),
        (
            "domains/shop/daily/product.odps.yaml",
            product("daily", "{name: sales, version: 1.0.0, contractId: shop/sales.sales}"),
        ),
        ("domains/shop/daily/pipeline.yaml", batch("add-up", "daily")),
        ("domains/shop/daily/daily.sql", DAILY_SQL.to_owned()),
        ("domains/shop/daily/daily.odcs.yaml", DAILY.to_owned()),
        (
            "domains/shop/events/product.odps.yaml",
            product(
                "events",
                "{name: raw_events, version: 1.0.0, contractId: shop/events.raw_events, \
                     customProperties: [{property: hydromesh.topic, value: events}]}",
            ),
        ),
        ("domains/shop/events/pipeline.yaml", stream.to_owned()),
        ("domains/shop/events/events.sql", "SELECT event_id, ts, page, number FROM raw_events\n".to_owned()),
        ("domains/shop/events/raw_events.odcs.yaml", RAW_EVENTS.to_owned()),
        ("domains/shop/events/events.odcs.yaml", EVENTS.to_owned()),
    ];
    texts.into_iter().map(|(path, text)| (path.to_owned(), Some(text.into_bytes()))).collect()
}

/// Returns the files of one more product that reads the sales, whole and without partitions.
pub fn reader(name: &str) -> Files {
    let contract = format!(
        "apiVersion: v3.2.0\nkind: DataContract\nid: shop/{name}.{name}\nversion: 1.0.0\nstatus: active\nschema:\n  \
         - name: {name}\n    logicalType: object\n    physicalType: table\n    properties:\n      \
         - {{name: country, logicalType: string, physicalType: text, required: true, classification: internal}}\n      \
         - {{name: sales, logicalType: integer, physicalType: bigint, required: true, classification: internal}}\n    \
         quality:\n      - {{id: a-row-a-country, metric: duplicateValues, arguments: {{properties: [country]}}, \
         mustBe: 0, severity: error}}\nslaProperties:\n  - {{property: qualityPassRate, value: 99, unit: percent}}\n"
    );
    let pipeline = format!(
        "apiVersion: hydromesh/v1\nkind: BatchPipeline\nname: count-{name}\noutput: {name}\nsql: {name}.sql\n"
    );
    let sql = "SELECT country, COUNT(*) AS sales FROM sales GROUP BY country\n".to_owned();
    let described = product(name, "{name: sales, version: 1.0.0, contractId: shop/sales.sales}");
    [("product.odps.yaml", described), ("pipeline.yaml", pipeline)]
        .into_iter()
        .map(|(file, text)| (file.to_owned(), text))
        .chain([(format!("{name}.sql"), sql), (format!("{name}.odcs.yaml"), contract)])
        .map(|(file, text)| (format!("domains/shop/{name}/{file}"), Some(text.into_bytes())))
        .collect()
}

/// Returns today, as the binary sees it.
pub fn today() -> NaiveDate {
    DateTime::from_timestamp_millis(Clock::system().now_ms()).expect("a date of our time").date_naive()
}

/// Describes a product whose one output port has its name.
fn product(name: &str, input: &str) -> String {
    format!(
        "apiVersion: v1.1.0\nkind: DataProduct\nid: shop/{name}\nname: {name}\nversion: 1.0.0\nstatus: active\n\
         domain: shop\ndescription:\n  purpose: To be interrupted.\ninputPorts:\n  - {input}\noutputPorts:\n  \
         - name: {name}\n    description: What {name} holds.\n    version: 1.0.0\n    contractId: shop/{name}.{name}\n    \
         customProperties:\n      - {{property: hydromesh.access, value: {{table: true}}}}\n\
         customProperties:\n  - {{property: hydromesh.tier, value: 3}}\n"
    )
}

/// Prices in quarters: their sums are exact, in whatever order they are added.
fn sales(start: NaiveDate) -> String {
    let mut text = "sale_id,sold_on,country,price\n".to_owned();
    for day in 0..DAYS {
        for number in 0..SALES_A_DAY {
            let date = start + Days::new(day);
            let country = match number % 3 {
                0 => "CH",
                1 => "FR",
                _ => "IT",
            };
            let quarters = (day * 7 + number * 13) % 97 + 1;
            let price = f64::from(u32::try_from(quarters).expect("below 98")) / 4.0;
            let _ = writeln!(text, "S{day:02}-{number:02},{date},{country},{price}");
        }
    }
    text
}
