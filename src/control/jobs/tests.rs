//! What a batch step does whose contract asks what is usual: jobs as the controller makes them of its ledger, real tables.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt as _;
use hydromesh_core::ids::{PipelineId, PortId, PortName};
use hydromesh_core::ledger::{Entry, Fact, RuleOutcome, RunOutcome};
use hydromesh_core::model::{Loaded, Product, load};
use hydromesh_core::plan::{PortPrint, Print, StepKey};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

mod tends;

use super::*;
use crate::apply::{Blobs, Context, Reporter, perform, samples, testing};
use crate::clock::Clock;

const FILES: [(&str, &str); 7] = [
    ("mesh.yaml", "apiVersion: hydromesh/v1\nkind: Mesh\nname: m\nenvironments: {dev: {ref: main}}\n"),
    ("domains/shop/domain.yaml", "apiVersion: hydromesh/v1\nkind: Domain\nowners: [a@example.com]\n"),
    (
        "domains/shop/visits/product.odps.yaml",
        "apiVersion: v1.1.0\nkind: DataProduct\ninputPorts:\n- name: raw\n  customProperties:\n  - {property: hydromesh.files, value: '*.csv'}\noutputPorts:\n- {name: visits}\n",
    ),
    (
        "domains/shop/visits/raw.odcs.yaml",
        "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: raw\n  properties:\n  - {name: day, logicalType: date}\n  - {name: email, logicalType: string}\n",
    ),
    (
        "domains/shop/visits/visits.odcs.yaml",
        "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: visits\n  properties:\n  - {name: day, logicalType: date, classification: public}\n  - name: email\n    logicalType: string\n    unique: true\n    quality:\n    - {type: custom, engine: hydromesh, implementation: {usual: nullValues}, severity: warning}\n    - {id: few-nulls, metric: nullValues, mustBeLessOrEqualTo: 30}\n  quality: [{type: custom, engine: hydromesh, implementation: {usual: rowCount}}]\n",
    ),
    (
        "domains/shop/visits/pipeline.yaml",
        "apiVersion: hydromesh/v1\nkind: BatchPipeline\nname: make\noutput: visits\nsql: SELECT day, email FROM raw\npartition: {by: day, every: day, start: 2026-06-01}\n",
    ),
    ("domains/shop/visits/raw.csv", "day,email\n"),
];

/// One file, whose rows a test chooses.
#[derive(Default)]
struct OneFile(Mutex<String>);

impl Blobs for OneFile {
    fn read(&self, _oid: &str) -> std::io::Result<Vec<u8>> {
        Ok(self.0.lock().expect("a lock").clone().into_bytes())
    }
}

struct World {
    _folder: TempDir,
    context: Context,
    file: Arc<OneFile>,
    product: Product,
    ledger: LedgerState,
    runs: u32,
}

/// A partition, what became of a rule in it, and the least and most that were usual.
type Judged = (String, RuleOutcome, Option<(f64, f64)>);

/// What a step left.
struct Told {
    outcome: RunOutcome,
    facts: Vec<Fact>,
}

impl Told {
    /// Returns what became of a rule in each partition, and the least and most that were usual.
    fn of(&self, wanted: &str) -> Vec<Judged> {
        let found = self.facts.iter().filter_map(|fact| match fact {
            Fact::Quality { rule, partition, passed, measure, band, .. } if rule == wanted => {
                let outcome = RuleOutcome::of(*passed, *measure, band.as_ref());
                let range = band.as_ref().and_then(|band| band.usual).map(|range| (range.low, range.high));
                Some((partition.clone().unwrap_or_default(), outcome, range))
            }
            _ => None,
        });
        found.collect()
    }

    fn published(&self) -> Vec<&str> {
        let found = self.facts.iter().filter_map(|fact| match fact {
            Fact::Published(published) => published.partition.as_deref(),
            _ => None,
        });
        found.collect()
    }
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Arc::new(OneFile::default());
        let context = testing::context(folder.path(), Arc::clone(&file) as Arc<dyn Blobs>).await;
        let files = FILES
            .map(|(path, text)| (path.to_owned(), Loaded { text: Ok(text.to_owned()), oid: "1".to_owned() }));
        let loaded = load(&files.into());
        assert_eq!(loaded.findings, []);
        let product = loaded.mesh.products.into_values().next().expect("a product");
        let mut world =
            Self { _folder: folder, context, file, product, ledger: LedgerState::default(), runs: 0 };
        world.deploy("d1");
        world
    }

    /// Deploys the product with another definition of its rows.
    fn deploy(&mut self, data: &str) {
        let port =
            PortPrint { data: data.to_owned(), rows: String::new(), columns: BTreeMap::new(), cut: None };
        let print = Print {
            all: data.to_owned(),
            ports: BTreeMap::from([(PortName::new("visits").expect("a name"), port)]),
            reads: BTreeMap::new(),
            aligned: BTreeSet::new(),
        };
        self.tell(Fact::Deployed {
            generation: 1,
            commit: "c".to_owned(),
            decision: "d".to_owned(),
            product: Box::new(self.product.clone()),
            print,
        });
    }

    fn tell(&mut self, fact: Fact) {
        let entry = Entry { seq: self.ledger.seq + 1, at_ms: 1_793_577_600_000, fact };
        self.ledger.apply(&entry);
    }

    /// Computes partitions of a file with so many rows a day, of which so many have no email.
    async fn compute(&mut self, from: &str, to: &str, rows: impl Fn(Partition) -> (u64, u64)) -> Told {
        let parse = |key: &str| Partition::parse(hydromesh_core::time::Grain::Day, key).expect("a day");
        let mut text = "day,email\n".to_owned();
        let mut at = parse(from);
        while at <= parse(to) {
            let (count, nulls) = rows(at);
            for n in 0..count {
                let email = if n < nulls { String::new() } else { format!("{n}@example.com") };
                let _ = writeln!(text, "{at},{email}");
            }
            at = at.next();
        }
        self.step(from, to, text).await
    }

    /// Computes a day whose file has every row twice.
    async fn compute_twice(&mut self, day: &str) -> Told {
        let row = |n: u32| format!("{day},{}@example.com\n", n % 45);
        let rows: String = (0..90).map(row).collect();
        self.step(day, day, format!("day,email\n{rows}")).await
    }

    async fn step(&mut self, from: &str, to: &str, text: String) -> Told {
        *self.file.0.lock().expect("a lock") = text;
        self.work(Work::Partitions { from: from.to_owned(), to: to.to_owned() }).await
    }

    async fn work(&mut self, work: Work) -> Told {
        self.runs += 1;
        let run = format!("run-{}", self.runs);
        let pipeline: PipelineId = "shop/visits:make".parse().expect("an id");
        let key = StepKey { pipeline, work };
        let start = Start {
            run: run.clone(),
            key: key.clone(),
            attempt: 1,
            // Another file is another commit.
            generation: u64::from(self.runs),
            decision: "d".to_owned(),
            reason: "a test".to_owned(),
        };
        let job = job(start, &self.ledger).expect("it is deployed");
        // As a worker process gets it.
        let text = serde_json::to_string(&job).expect("a job can be written down");
        let job: Job = serde_json::from_str(&text).expect("and read again");
        let (send, mut receive) = mpsc::channel(1_024);
        let end = perform(&self.context, &job, &Reporter::new(send, CancellationToken::new())).await;
        let mut facts = Vec::new();
        while let Some(more) = receive.recv().await {
            facts.extend(more);
        }
        facts.extend(end.facts);
        facts.iter().cloned().for_each(|fact| self.tell(fact));
        self.tell(Fact::RunFinished { run, step: key, outcome: end.outcome.clone(), took_ms: 1 });
        Told { outcome: end.outcome, facts }
    }

    /// Returns the rows that readers see of a day.
    async fn rows(&self, day: &str) -> i64 {
        let table = self.context.lake.table("shop/visits.visits", crate::lake::TableFormat::Delta);
        let table = table.expect("an address").provider(None).await.expect("a table");
        let sql = format!("SELECT count(*) FROM visits WHERE day = DATE '{day}'");
        let tables = BTreeMap::from([("visits".to_owned(), table)]);
        let rows: Vec<RecordBatch> = self
            .context
            .engine
            .select(&sql, tables)
            .await
            .expect("a query")
            .try_collect()
            .await
            .expect("rows");
        rows[0].column(0).as_primitive::<Int64Type>().value(0)
    }
}

/// About a hundred rows a day, two of them without an email.
fn usual(at: Partition) -> (u64, u64) {
    (96 + at.index().rem_euclid(9).unsigned_abs(), 2)
}

#[tokio::test]
async fn a_tenth_of_the_usual_rows_is_refused_and_what_was_published_stays() {
    let mut world = World::new().await;
    let history = world.compute("2026-06-01", "2026-07-12", usual).await;
    assert!(matches!(history.outcome, RunOutcome::Succeeded { .. }), "{:?}", history.outcome);
    let found = history.of("usual_row_count");
    assert_eq!((found.len(), history.published().len()), (42, 42), "all are published");
    let (early, late) = found.split_at(28);
    assert!(early.iter().all(|(_, outcome, range)| *outcome == RuleOutcome::Unknown && range.is_none()));
    assert!(late.iter().all(|(_, outcome, range)| *outcome == RuleOutcome::Held && range.is_some()));

    // Tomorrow comes with a tenth.
    let refused = world.compute("2026-07-13", "2026-07-13", |_| (10, 0)).await;
    let RunOutcome::Failed { code, message, .. } = &refused.outcome else { panic!("{:?}", refused.outcome) };
    assert_eq!(code, "HM-Q001");
    assert!(
        message.contains("usual_row_count: measured 10, wanted ") && message.contains("as 6 like it before"),
        "{message}"
    );
    assert_eq!(refused.published(), Vec::<&str>::new());
    assert_eq!((world.rows("2026-07-12").await, world.rows("2026-07-13").await), (96, 0));
    let port: PortId = "shop/visits.visits".parse().expect("an address");
    assert_eq!(world.ledger.quality[&port]["usual_row_count"].outcome(), RuleOutcome::Failed);

    // And then as usual.
    let normal = world.compute("2026-07-13", "2026-07-13", usual).await;
    assert_eq!(normal.published(), ["2026-07-13"], "{:?}", normal.outcome);
    assert_eq!(normal.of("usual_row_count")[0].1, RuleOutcome::Held);
    assert_eq!(world.rows("2026-07-13").await, 97);

    // Computed again with a tenth, it shows what it showed before.
    let again = world.compute("2026-07-13", "2026-07-13", |_| (9, 0)).await;
    assert!(matches!(again.outcome, RunOutcome::Failed { .. }));
    assert_eq!(world.rows("2026-07-13").await, 97);
}

#[tokio::test]
async fn unusual_nulls_are_told_and_published_when_the_rule_is_a_warning() {
    let mut world = World::new().await;
    let _ = world.compute("2026-06-01", "2026-07-12", usual).await;
    let port: PortId = "shop/visits.visits".parse().expect("an address");
    let nulls = world.ledger.ports[&port].partitions["2026-07-12"].nulls["email"];
    assert!((nulls - 200.0 / 96.0).abs() < 1e-9, "{nulls} %");
    let told = world.compute("2026-07-13", "2026-07-13", |at| (usual(at).0, 30)).await;
    assert_eq!(told.published(), ["2026-07-13"]);
    let found = told.of("usual_null_values_email");
    assert_eq!(found[0].1, RuleOutcome::Failed);
    let (low, high) = found[0].2.expect("six weeks of history");
    assert!(low == 0.0 && high > 5.0 && high < 15.0, "{low} to {high} %");
    // What was refused or told does not make it usual: the next day is compared with the same range.
    let next = world.compute("2026-07-14", "2026-07-14", usual).await;
    assert_eq!(next.of("usual_null_values_email")[0].1, RuleOutcome::Held);
}

#[tokio::test]
async fn failing_rows_are_kept_for_a_week_and_nothing_that_is_not_public() {
    let mut world = World::new().await;
    let id = world.product.id.clone();
    let state = world.context.state.clone();
    let now_ms = world.context.clock.now_ms();
    let told = world.compute("2026-06-01", "2026-06-01", |_| (90, 30)).await;
    assert_eq!(told.published(), ["2026-06-01"]);
    assert_eq!(samples(&state, &id, now_ms).expect("readable"), [], "no rule failed: unknown is no failure");
    // Of thirty rows without a number, twenty are kept; the address is no more than there or not there.
    let refused = world.compute("2026-06-02", "2026-06-02", |_| (90, 31)).await;
    assert!(matches!(refused.outcome, RunOutcome::Failed { .. }), "{:?}", refused.outcome);
    let kept = samples(&state, &id, now_ms).expect("readable");
    let [sample] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!((sample.partition.as_deref(), sample.run.as_str()), (Some("2026-06-02"), "run-2"));
    assert_eq!(sample.masked, ["email"]);
    let [rule] = sample.rules.as_slice() else { panic!("{sample:?}") };
    assert_eq!((rule.rule.as_str(), rule.rows.len()), ("few-nulls", 20));
    assert_eq!(rule.rows[0], serde_json::json!({"day": "2026-06-02", "email": null}));

    let mut texts = Vec::new();
    for file in std::fs::read_dir(state.join("samples/shop/visits.visits")).expect("a folder") {
        texts.push(std::fs::read_to_string(file.expect("a file").path()).expect("a text"));
    }
    assert!(!texts.is_empty() && texts.iter().all(|text| !text.contains("example.com")), "{texts:?}");

    // A week later nobody is shown it, and the next step deletes it.
    let week_ms = 7 * 24 * 3_600_000;
    assert_eq!(samples(&state, &id, now_ms + week_ms - 1).expect("readable").len(), 1);
    assert_eq!(samples(&state, &id, now_ms + week_ms).expect("readable"), []);
    world.context.clock = Clock::fixed(now_ms + week_ms);
    let _ = world.compute("2026-06-04", "2026-06-04", usual).await;
    assert_eq!(std::fs::read_dir(state.join("samples/shop/visits.visits")).expect("a folder").count(), 0);
}

#[tokio::test]
async fn of_duplicates_the_keys_are_kept() {
    let mut world = World::new().await;
    let told = world.compute("2026-06-01", "2026-06-01", |_| (90, 0)).await;
    assert!(matches!(told.outcome, RunOutcome::Succeeded { .. }), "{:?}", told.outcome);
    // The same addresses once more in the file.
    let refused = world.compute_twice("2026-06-02").await;
    assert!(matches!(refused.outcome, RunOutcome::Failed { .. }), "{:?}", refused.outcome);
    let kept = samples(&world.context.state, &world.product.id, 0).expect("readable");
    let rule = kept[0].rules.iter().find(|it| it.rule == "unique_email").expect("a sample");
    assert_eq!(rule.rows.len(), 20);
    assert_eq!(rule.rows[0], serde_json::json!({"email": "***", "rows with this key": 2}));
}

#[tokio::test]
async fn another_definition_begins_its_history_anew() {
    let mut world = World::new().await;
    let _ = world.compute("2026-06-01", "2026-07-12", usual).await;
    world.deploy("d2");
    let told = world.compute("2026-07-13", "2026-07-13", |_| (10, 0)).await;
    assert_eq!(told.of("usual_row_count")[0].1, RuleOutcome::Unknown);
    assert_eq!(told.published(), ["2026-07-13"]);
    // A part of the past, computed again by the new definition, is history for what follows it and for nothing else.
    let _ = world.compute("2026-06-01", "2026-07-05", |at| (usual(at).0 / 10, 0)).await;
    let after = world.compute("2026-07-14", "2026-07-14", |_| (10, 0)).await;
    assert_eq!(after.of("usual_row_count")[0].1, RuleOutcome::Held, "{:?}", after.of("usual_row_count"));
}
