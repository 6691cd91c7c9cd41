//! What the query of a step sees whose pipeline picks partitions of its inputs: real tables, and the same query over all rows
//! with the window written out.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt as _;
use hydromesh_core::ids::{PortId, PortName};
use hydromesh_core::ledger::{Entry, Fact, RunOutcome};
use hydromesh_core::model::{Loaded, Product, load};
use hydromesh_core::plan::{PortPrint, Print, StepKey};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::apply::{Blobs, Context, Reporter, lake_format, perform, testing};

/// What every query below asks of the visits that it sees.
const SEEN: &str = "count(*) AS visits, min(day) AS first, max(day) AS last, sum(amount) AS amount";

/// Visits of three months, with an amount that says on which day: two a day, and none on the 15th of a month.
fn visits() -> String {
    let days = (0..92)
        .map(|day| chrono::NaiveDate::from_ymd_opt(2026, 6, 1).expect("a day") + chrono::Days::new(day));
    let rows = days.enumerate().filter(|(_, day)| !day.to_string().ends_with("15"));
    rows.fold("day,amount\n".to_owned(), |text, (n, day)| format!("{text}{day},{n}\n{day},1000\n"))
}

struct Visits;

impl Blobs for Visits {
    fn read(&self, _oid: &str) -> std::io::Result<Vec<u8>> {
        Ok(visits().into_bytes())
    }
}

pub(super) struct World {
    _folder: TempDir,
    pub context: Context,
    pub ledger: LedgerState,
    runs: u32,
}

/// A product of one batch pipeline that counts the visits that each of its partitions sees.
fn counting(name: &str, by: &str, values: &[&str], cut: &str, inputs: &str) -> Vec<(String, String)> {
    let kind = if by == "day" { "date" } else { "string" };
    let value = |value: &&str| if by == "day" { format!("(DATE '{value}')") } else { format!("('{value}')") };
    let values: Vec<String> = values.iter().map(value).collect();
    let sql = format!(
        "SELECT p.{by}, v.visits, v.first, v.last, v.amount FROM (VALUES {}) AS p({by}) CROSS JOIN (SELECT {SEEN} FROM visits) v",
        values.join(", ")
    );
    let of = |file: &str| format!("domains/shop/{name}/{file}");
    let contract = format!(
        "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: {name}\n  properties:\n  - {{name: {by}, logicalType: {kind}}}\n  - {{name: visits, logicalType: integer}}\n  - {{name: first, logicalType: date}}\n  - {{name: last, logicalType: date}}\n  - {{name: amount, logicalType: integer}}\n"
    );
    let product = format!(
        "apiVersion: v1.1.0\nkind: DataProduct\ninputPorts:\n- {{name: visits, contractId: shop/visits.visits}}\noutputPorts:\n- {{name: {name}}}\n"
    );
    let pipeline = format!(
        "apiVersion: hydromesh/v1\nkind: BatchPipeline\nname: make\noutput: {name}\nsql: {sql}\npartition: {{by: {by}, {cut}}}\ninputs: {{visits: {inputs}}}\n"
    );
    vec![
        (of("product.odps.yaml"), product),
        (of(&format!("{name}.odcs.yaml")), contract),
        (of("pipeline.yaml"), pipeline),
    ]
}

impl World {
    async fn new() -> Self {
        let fixed = [
            (
                "mesh.yaml",
                "apiVersion: hydromesh/v1\nkind: Mesh\nname: m\nenvironments: {dev: {ref: main}}\n",
            ),
            ("domains/shop/domain.yaml", "apiVersion: hydromesh/v1\nkind: Domain\nowners: [a@example.com]\n"),
            (
                "domains/shop/visits/product.odps.yaml",
                "apiVersion: v1.1.0\nkind: DataProduct\ninputPorts:\n- name: raw\n  customProperties:\n  - {property: hydromesh.files, value: '*.csv'}\noutputPorts:\n- {name: visits}\n",
            ),
            (
                "domains/shop/visits/raw.odcs.yaml",
                "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: raw\n  properties:\n  - {name: day, logicalType: date}\n  - {name: amount, logicalType: integer}\n",
            ),
            (
                "domains/shop/visits/visits.odcs.yaml",
                "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: visits\n  properties:\n  - {name: day, logicalType: date}\n  - {name: amount, logicalType: integer}\n",
            ),
            (
                "domains/shop/visits/pipeline.yaml",
                "apiVersion: hydromesh/v1\nkind: BatchPipeline\nname: make\noutput: visits\nsql: SELECT day, amount FROM raw\npartition: {by: day, every: day, start: 2026-06-01}\n",
            ),
            ("domains/shop/visits/raw.csv", "day,amount\n"),
        ];
        let mut files: Vec<(String, String)> =
            fixed.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
        let days = ["2026-06-14", "2026-06-15", "2026-06-16", "2026-06-17"];
        files.extend(counting(
            "monthly",
            "month",
            &["2026-06", "2026-07", "2026-08"],
            "every: month, start: 2026-06",
            "{partitions: same}",
        ));
        files.extend(counting(
            "lagged",
            "day",
            &days,
            "every: day, start: 2026-06-14",
            "{partitions: {from: -1d, to: -1d}}",
        ));
        files.extend(counting(
            "moving",
            "day",
            &days,
            "every: day, start: 2026-06-14",
            "{partitions: {from: -6d}, wait: {at_least: 3}}",
        ));
        files.extend(counting(
            "before",
            "day",
            &["2026-06-01"],
            "every: day, start: 2026-06-01",
            "{partitions: {from: -1mo, to: -1mo}}",
        ));
        Self::of(Arc::new(Visits), files).await
    }

    /// Returns a world in which a mesh of these files is deployed; every input file of theirs holds what `blobs` says.
    pub async fn of(blobs: Arc<dyn Blobs>, files: Vec<(String, String)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let context = testing::context(folder.path(), blobs).await;
        let files = files
            .into_iter()
            .map(|(path, text)| (path, Loaded { text: Ok(text), oid: "1".to_owned() }))
            .collect();
        let loaded = load(&files);
        assert_eq!(loaded.findings, []);
        let mut world = Self { _folder: folder, context, ledger: LedgerState::default(), runs: 0 };
        for product in loaded.mesh.products.into_values() {
            world.deploy(product, BTreeSet::new());
        }
        world
    }

    /// Deploys a product that is aligned with inputs.
    pub fn deploy(&mut self, product: Product, aligned: BTreeSet<(PortName, PortId)>) {
        let port =
            PortPrint { data: "d".to_owned(), rows: String::new(), columns: BTreeMap::new(), cut: None };
        let ports = product.outputs.keys().map(|name| (name.clone(), port.clone())).collect();
        let print = Print { all: "d".to_owned(), ports, reads: BTreeMap::new(), aligned };
        let (commit, decision) = ("c".to_owned(), "d".to_owned());
        self.tell(Fact::Deployed { generation: 1, commit, decision, product: Box::new(product), print });
    }

    fn tell(&mut self, fact: Fact) {
        let entry = Entry { seq: self.ledger.seq + 1, at_ms: testing::NOW, fact };
        self.ledger.apply(&entry);
    }

    /// Computes partitions of a product; returns those that were published.
    async fn step(&mut self, product: &str, from: &str, to: &str) -> Vec<String> {
        let (outcome, facts) = self.attempt(product, from, to).await;
        assert!(matches!(outcome, RunOutcome::Succeeded { .. }), "{product}: {outcome:?}");
        let published = facts.iter().filter_map(|fact| match fact {
            Fact::Published(it) => it.partition.clone(),
            _ => None,
        });
        published.collect()
    }

    /// Tries to compute partitions of a product; returns how that ended, and what was told.
    pub async fn attempt(&mut self, product: &str, from: &str, to: &str) -> (RunOutcome, Vec<Fact>) {
        self.attempt_of(product, Work::Partitions { from: from.to_owned(), to: to.to_owned() }).await
    }

    /// Tries to do some work for a product.
    pub async fn attempt_of(&mut self, product: &str, work: Work) -> (RunOutcome, Vec<Fact>) {
        self.runs += 1;
        let pipeline = format!("shop/{product}:make").parse().expect("an id");
        let start = Start {
            run: format!("run-{}", self.runs),
            key: StepKey { pipeline, work },
            attempt: 1,
            generation: u64::from(self.runs),
            decision: "d".to_owned(),
            reason: "a test".to_owned(),
        };
        let job = job(start, &self.ledger).expect("it is deployed");
        let (send, mut receive) = mpsc::channel(1_024);
        let end = perform(&self.context, &job, &Reporter::new(send, CancellationToken::new())).await;
        let mut told = Vec::new();
        for fact in end.facts {
            told.push(fact.clone());
            self.tell(fact);
        }
        while let Some(facts) = receive.recv().await {
            for fact in facts {
                told.push(fact.clone());
                self.tell(fact);
            }
        }
        (end.outcome, told)
    }

    pub async fn select(&self, product: &str, sql: &str) -> String {
        let address: PortId = format!("shop/{product}.{product}").parse().expect("an address");
        let format = self.ledger.deployed[&address.product].product.outputs[&address.port].format;
        let table = self.context.lake.table(&address.to_string(), lake_format(format)).expect("an address");
        let tables = BTreeMap::from([(product.to_owned(), table.provider(None).await.expect("a table"))]);
        let rows = self.context.engine.select(sql, tables).await.expect("a query");
        let rows: Vec<RecordBatch> = rows.try_collect().await.expect("rows");
        pretty_format_batches(&rows).expect("printable").to_string()
    }

    /// Asserts that each partition shows what the query finds among all visits from one day to before another one.
    async fn assert_sees(&self, product: &str, by: &str, partitions: &[(&str, &str, &str)]) {
        for (key, from, to) in partitions {
            let shown = format!("SELECT visits, first, last, amount FROM {product} WHERE {by} = '{key}'");
            let wanted =
                format!("SELECT {SEEN} FROM visits WHERE day >= DATE '{from}' AND day < DATE '{to}'");
            assert_eq!(
                self.select(product, &shown).await,
                self.select("visits", &wanted).await,
                "{product} {key}"
            );
        }
    }
}

#[tokio::test]
async fn a_query_sees_those_partitions_alone_that_its_pipeline_picks() {
    let mut world = World::new().await;
    assert_eq!(world.step("visits", "2026-06-01", "2026-08-31").await.len(), 92);

    // Months of days, all in one step: each sees its own.
    assert_eq!(world.step("monthly", "2026-06", "2026-08").await, ["2026-06", "2026-07", "2026-08"]);
    let months = [
        ("2026-06", "2026-06-01", "2026-07-01"),
        ("2026-07", "2026-07-01", "2026-08-01"),
        ("2026-08", "2026-08-01", "2026-09-01"),
    ];
    world.assert_sees("monthly", "month", &months).await;
    // The day before, and the seven days that end with the day itself. On the 15th nobody came.
    world.step("lagged", "2026-06-14", "2026-06-17").await;
    let before = [
        ("2026-06-14", "2026-06-13", "2026-06-14"),
        ("2026-06-15", "2026-06-14", "2026-06-15"),
        ("2026-06-16", "2026-06-15", "2026-06-16"),
        ("2026-06-17", "2026-06-16", "2026-06-17"),
    ];
    world.assert_sees("lagged", "day", &before).await;
    world.step("moving", "2026-06-14", "2026-06-17").await;
    let week = [
        ("2026-06-14", "2026-06-08", "2026-06-15"),
        ("2026-06-15", "2026-06-09", "2026-06-16"),
        ("2026-06-16", "2026-06-10", "2026-06-17"),
        ("2026-06-17", "2026-06-11", "2026-06-18"),
    ];
    world.assert_sees("moving", "day", &week).await;
    // One by one they see the same, whatever they were computed with.
    for (key, ..) in week {
        assert_eq!(world.step("moving", key, key).await, [key]);
    }
    world.assert_sees("moving", "day", &week).await;
    // A month before there was nothing.
    world.step("before", "2026-06-01", "2026-06-01").await;
    world.assert_sees("before", "day", &[("2026-06-01", "2026-05-01", "2026-05-02")]).await;
}
