//! A world to follow streams in: the example mesh, a lake, a topic, and messages of every kind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use futures::TryStreamExt as _;
use hydromesh_core::control::Start;
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{Champion, Fact, RunOutcome, StreamRows};
use hydromesh_core::model::{Loaded, Mesh, TableFormat, load};
use hydromesh_core::plan::{PortPrint, Print, StepKey, Work};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use super::super::super::testing::NOW;
use super::super::super::{Blobs, Context, Job, Reporter, perform, testing};
use super::super::{chain, view};
use crate::lake::Table;
use crate::online::PortValues;
use crate::stream::{NewRecord, Source as _, TopicFolder, TopicOptions};

pub const MINUTE: i64 = 60_000;
pub const DAY: i64 = 86_400_000;
pub const PARTITIONS: i32 = 2;

struct NoBlobs;

impl Blobs for NoBlobs {
    fn read(&self, oid: &str) -> std::io::Result<Vec<u8>> {
        Err(std::io::Error::other(oid.to_owned()))
    }
}

fn example(format: TableFormat) -> Mesh {
    fn walk(root: &Path, dir: &Path, files: &mut BTreeMap<String, Loaded>) {
        for entry in std::fs::read_dir(dir).expect("the example") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(root, &path, files);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
                files.insert(name.clone(), Loaded { text: Ok(text), oid: name });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh-repo-example");
    let mut files = BTreeMap::new();
    walk(&root, &root, &mut files);
    let mut mesh = load(&files).mesh;
    for product in mesh.products.values_mut() {
        product.outputs.values_mut().for_each(|port| port.format = format);
    }
    mesh
}

/// One environment: its own state and lake.
pub struct World {
    pub _folder: TempDir,
    pub context: Context,
    pub mesh: Mesh,
}

impl World {
    pub async fn new() -> Self {
        Self::of(TableFormat::Delta).await
    }

    pub async fn of(format: TableFormat) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let context = testing::context(folder.path(), Arc::new(NoBlobs)).await;
        let options =
            TopicOptions { partitions: PARTITIONS, id: Some(Uuid::from_u128(7)), ..TopicOptions::default() };
        let path = view::topic_path(&context, "raw-clicks").expect("a plain name");
        TopicFolder::create(&path, &options).expect("a topic");
        Self { _folder: folder, context, mesh: example(format) }
    }

    pub fn topic(&self) -> TopicFolder {
        TopicFolder::open(&view::topic_path(&self.context, "raw-clicks").expect("a plain name"))
            .expect("the topic")
    }

    pub fn produce(&self, messages: &[Made]) {
        for partition in 0..PARTITIONS {
            let records: Vec<NewRecord> = messages
                .iter()
                .filter(|made| made.partition == partition)
                .map(|made| NewRecord {
                    timestamp_ms: made.broker_ms,
                    key: None,
                    payload: Bytes::from(made.payload.clone()),
                })
                .collect();
            let mut appender = self.topic().appender(partition).expect("an appender");
            let _ = appender.append(&records, None).expect("appended");
        }
    }

    pub fn job(&self, pipeline: &str, data: &str) -> Job {
        let key: StepKey = format!("{pipeline}@follow").parse().expect("a step");
        assert_eq!(key.work, Work::Follow);
        let product = &self.mesh.products[&key.pipeline.product];
        let port = product.pipelines[&key.pipeline.name].output().clone();
        let print =
            PortPrint { data: data.to_owned(), rows: String::new(), columns: BTreeMap::new(), cut: None };
        Job {
            start: Start {
                run: "run-1".to_owned(),
                key,
                attempt: 1,
                generation: 1,
                decision: "d".to_owned(),
                reason: "test".to_owned(),
            },
            products: self.mesh.products.clone(),
            print: Print {
                all: data.to_owned(),
                ports: BTreeMap::from([(port, print)]),
                reads: BTreeMap::new(),
                aligned: BTreeSet::new(),
            },
            versions: BTreeMap::new(),
            models: Champion::default(),
            altered: 0,
            afresh: false,
            earlier: BTreeMap::new(),
            kept_from: None,
            read_since_ms: None,
            definitions: BTreeMap::new(),
        }
    }

    pub fn table(&self, address: &str) -> Table {
        let format = match self.mesh.products.values().next().and_then(|it| it.outputs.values().next()) {
            Some(port) if port.format == TableFormat::Iceberg => crate::lake::TableFormat::Iceberg,
            _ => crate::lake::TableFormat::Delta,
        };
        self.context.lake.table(address, format).expect("an address")
    }

    /// Starts a follower; it ends when the token is cancelled.
    pub fn start(&self, job: Job) -> Running {
        let (send, mut receive) = mpsc::channel(64);
        let cancel = CancellationToken::new();
        let context = self.context.clone();
        let stop = cancel.clone();
        let task =
            tokio::spawn(async move { perform(&context, &job, &Reporter::new(send, stop)).await.outcome });
        let facts = tokio::spawn(async move {
            let mut facts: Vec<Fact> = Vec::new();
            while let Some(more) = receive.recv().await {
                facts.extend(more);
            }
            facts
        });
        Running { cancel, task, facts }
    }

    pub async fn ends(&self) -> BTreeMap<i32, i64> {
        let bounds = self.topic().bounds().await.expect("bounds");
        bounds.into_iter().map(|(partition, (_, high))| (partition, high)).collect()
    }

    /// Waits until a follower's table accounts for the whole topic.
    pub async fn drained(&self, table: &Table, pipeline: &str, running: &Running) {
        let ends = self.ends().await;
        for _ in 0..1_500 {
            let record = table.last_checkpoint(pipeline).await.expect("readable");
            let record =
                record.map(|record| serde_json::from_value::<chain::StreamRecord>(record).expect("a record"));
            if record.is_some_and(|record| record.ends() == ends) {
                return;
            }
            assert!(!running.task.is_finished(), "the follower ended before it was done");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the follower did not get to the end of its topic");
    }

    pub async fn archive(&self) -> Vec<Fact> {
        let running = self.start(self.job(ARCHIVE, "stream-1"));
        self.drained(&self.table(CLICKS), ARCHIVE, &running).await;
        running.finish().await
    }

    pub async fn features(&self, data: &str) -> Vec<Fact> {
        let running = self.start(self.job(FEATURES, data));
        let log = self.table(&format!("{ACTIVITY}__tiles_{data}"));
        self.drained(&log, FEATURES, &running).await;
        let values = self.table(ACTIVITY);
        for _ in 0..500 {
            let epoch = log.last_checkpoint(FEATURES).await.expect("readable").expect("one")["epoch"].clone();
            let shown = values.last_checkpoint(&format!("{FEATURES}/values")).await.expect("readable");
            if shown.is_some_and(|shown| shown["epoch"] == epoch && shown["definition"] == data) {
                return running.finish().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the values were not refreshed");
    }

    pub fn served(&self) -> Arc<PortValues> {
        let values = self.context.online.port(&activity()).expect("served");
        values.prune();
        values
    }

    pub async fn query(&self, table: &Table, sql: &str) -> Vec<RecordBatch> {
        let provider = table.provider(None).await.expect("a table");
        let rows = self
            .context
            .engine
            .select(sql, BTreeMap::from([("t".to_owned(), provider)]))
            .await
            .expect("a query");
        rows.try_collect().await.expect("rows")
    }

    pub async fn count(&self, table: &Table, condition: &str) -> i64 {
        let rows = self.query(table, &format!("SELECT count(*) AS n FROM t WHERE {condition}")).await;
        rows[0].column(0).as_primitive::<Int64Type>().value(0)
    }
}

pub struct Running {
    pub cancel: CancellationToken,
    pub task: tokio::task::JoinHandle<RunOutcome>,
    pub facts: tokio::task::JoinHandle<Vec<Fact>>,
}

impl Running {
    pub async fn finish(self) -> Vec<Fact> {
        self.cancel.cancel();
        assert_eq!(self.task.await.expect("no panic"), RunOutcome::Cancelled);
        self.facts.await.expect("facts")
    }
}

pub const ARCHIVE: &str = "commerce/clickstream:clean-clicks";
pub const FEATURES: &str = "customer/activity:activity";
pub const CLICKS: &str = "commerce/clickstream.clickstream";
pub const ACTIVITY: &str = "customer/activity.features";

pub fn activity() -> PortId {
    ACTIVITY.parse().expect("a port")
}

/// One message, and what the test knows of it.
#[derive(Debug, Clone)]
pub struct Made {
    pub partition: i32,
    pub broker_ms: i64,
    pub payload: String,
    pub kind: Kind,
    pub at_ms: i64,
    pub customer: usize,
    pub amount: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Late,
    TooLate,
    Again,
    Broken,
    Visitor,
}

/// Events over five days, every 29th broken, every 23rd sent twice, some late, some too late, some of visitors.
pub fn messages(count: usize) -> Vec<Made> {
    let mut made: Vec<Made> = Vec::new();
    let begin = NOW - 5 * DAY;
    for index in 0..count {
        let step = 5 * DAY / i64::try_from(count).expect("few");
        let usual = begin + step * i64::try_from(index).expect("few");
        let customer = (index * 7) % 11;
        let (kind, at_ms) = match index {
            i if i % 29 == 28 => (Kind::Broken, usual),
            i if i % 31 == 30 => (Kind::Visitor, usual),
            i if i % 17 == 16 && index > 40 => (Kind::Late, usual - 5 * 3_600_000),
            i if i % 41 == 40 && index > count * 3 / 4 => (Kind::TooLate, usual - 3 * DAY),
            _ => (Kind::Plain, usual),
        };
        let amount = (index % 3 == 0).then(|| f64::from(u32::try_from(index).expect("few")) / 7.0);
        let at = chrono::DateTime::from_timestamp_millis(at_ms).expect("a time").to_rfc3339();
        let payload = match kind {
            Kind::Broken if index % 2 == 0 => "{\"event_id\": \"half".to_owned(),
            Kind::Broken => format!("{{\"event_id\":\"e{index}\",\"session_id\":\"s\",\"page\":\"home\"}}"),
            _ => serde_json::json!({
                "event_id": format!("e{index}"),
                "customer_id": (kind != Kind::Visitor).then(|| format!("C{customer}")),
                "session_id": format!("s{}", index / 5),
                "ts": at,
                "page": if amount.is_some() { "purchase" } else { "home" },
                "amount": amount,
            })
            .to_string(),
        };
        let partition = i32::try_from(customer).expect("few") % PARTITIONS;
        let one = Made { partition, broker_ms: usual + 2_000, payload, kind, at_ms, customer, amount };
        if kind == Kind::Plain && index % 23 == 22 {
            made.push(one.clone());
            made.push(Made { kind: Kind::Again, ..one });
        } else {
            made.push(one);
        }
    }
    made
}

pub fn of(made: &[Made], kind: Kind) -> u64 {
    made.iter().filter(|one| one.kind == kind).count() as u64
}

pub fn total(facts: &[Fact]) -> StreamRows {
    facts.iter().fold(StreamRows::default(), |mut sum, fact| {
        if let Fact::Epoch(epoch) = fact {
            sum.accepted += epoch.rows.accepted;
            sum.corrected += epoch.rows.corrected;
            sum.quarantined += epoch.rows.quarantined;
            sum.dead += epoch.rows.dead;
        }
        sum
    })
}

pub fn expected(made: &[Made]) -> StreamRows {
    StreamRows {
        accepted: of(made, Kind::Plain),
        corrected: of(made, Kind::Late),
        quarantined: of(made, Kind::TooLate),
        dead: of(made, Kind::Broken),
    }
}
