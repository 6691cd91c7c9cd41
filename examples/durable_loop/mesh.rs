//! Meshes in code, of any size: batch products that copy columns from one another, and the facts of their steps.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::control::Start;
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::{Decision, Fact, LedgerState, Published};
use hydromesh_core::model::{
    Access, BackfillOrder, BatchPipeline, Bounds, Calendar, Column, ColumnShape, Contract, InputPort,
    InputSource, LogicalType, Mesh, OutputPort, Partitioning, Parts, Pipeline, Product, QueryShape,
    RetirePolicy, Retry, Sla, SlaKind, SourceColumn, SqlText, TableFormat,
};
use hydromesh_core::plan::{Desired, Work, dependency_order, partition_bounds_ms, print_mesh};
use hydromesh_core::spread::InOrder;
use hydromesh_core::time::{Grain, Partition, PartitionSet, Span};

/// 2026-06-01T00:00:00Z.
pub const NOW_MS: i64 = 1_780_272_000_000;

/// One product as its folder would say it.
pub struct Spec {
    pub name: String,
    /// Names of the products that it reads; the first partition, hourly, or the whole table at once.
    pub reads: Vec<String>,
    pub hourly_since: Option<&'static str>,
    /// Stands for the text of its query.
    pub query: String,
    pub concurrency: u32,
}

impl Spec {
    pub fn new(name: impl Into<String>, reads: Vec<String>) -> Self {
        Self { name: name.into(), reads, hourly_since: None, query: "scan".to_owned(), concurrency: 2 }
    }
}

/// A hundred products to a domain.
fn id(name: &str) -> ProductId {
    let number: usize = name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    format!("domain-{:03}/{name}", number / 100).parse().expect("a product")
}

fn port(name: &str) -> PortId {
    PortId { product: id(name), port: text("rows") }
}

fn text<T: TryFrom<String>>(text: &str) -> T {
    T::try_from(text.to_owned()).ok().expect("a name")
}

const COLUMNS: [&str; 6] = ["event_id", "customer_id", "happened_at", "country", "channel", "amount"];

fn contract(id: &str) -> Contract {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        logical: LogicalType::String,
        physical: None,
        required: false,
        unique: false,
        primary_key: false,
        classification: None,
        description: format!("what {name} says of the event"),
        line: 0,
    };
    let age = SlaKind::DataAge("365d".parse::<Span>().expect("a span"));
    Contract {
        id: id.to_owned(),
        version: "1.0.0".to_owned(),
        status: "active".to_owned(),
        description: String::new(),
        columns: COLUMNS.iter().map(column).collect(),
        quality: Vec::new(),
        slas: vec![Sla { id: "latency".to_owned(), kind: age, target: 0.99, line: 0 }],
        file: "rows.odcs.yaml".to_owned(),
    }
}

fn product(spec: &Spec) -> Product {
    let id = id(&spec.name);
    let source = |name: &String| {
        let input = InputPort { name: text(name), source: InputSource::Port { port: port(name) } };
        (text(name), input)
    };
    let files = || InputSource::Files { glob: "data/*.csv".to_owned(), contract: contract("files") };
    let mut inputs: BTreeMap<_, _> = spec.reads.iter().map(source).collect();
    if inputs.is_empty() {
        inputs.insert(text("files"), InputPort { name: text("files"), source: files() });
    }
    let made = BatchPipeline {
        name: text("make"),
        output: text("rows"),
        sql: SqlText {
            file: "query.sql".to_owned(),
            line: 1,
            text: format!("SELECT {}", COLUMNS.join(", ")),
        },
        partition: spec.hourly_since.map(|start| Partitioning {
            by: "happened_at".to_owned(),
            into: Parts::Calendar(Calendar {
                every: Grain::Hour,
                start: start.to_owned(),
                timezone: "UTC".to_owned(),
            }),
        }),
        inputs: BTreeMap::new(),
        schedule: None,
        order: BackfillOrder::default(),
        self_heal: true,
        lookback: None,
        chunk: None,
        concurrency: spec.concurrency,
        retry: Retry::default(),
        bounds: Bounds::default(),
    };
    let output = OutputPort {
        name: text("rows"),
        description: String::new(),
        contract: contract(&spec.name),
        format: TableFormat::Delta,
        access: Access::default(),
    };
    Product {
        title: spec.name.clone(),
        description: String::new(),
        version: "1.0.0".to_owned(),
        status: "active".to_owned(),
        tier: 2,
        owners: vec!["owner@example.org".to_owned()],
        runbook: None,
        inputs,
        outputs: [(text("rows"), output)].into(),
        pipelines: [(text("make"), Pipeline::Batch(made))].into(),
        files: BTreeMap::new(),
        folder: format!("domains/{id}"),
        retire: RetirePolicy::Keep,
        id,
    }
}

fn shape(spec: &Spec) -> QueryShape {
    let table = spec.reads.first().cloned().unwrap_or_else(|| "files".to_owned());
    let column = |name: &&str| ColumnShape {
        name: (*name).to_owned(),
        logical: Some(LogicalType::String),
        physical: String::new(),
        nullable: true,
        expression: format!("{table}.{name}"),
        direct: [SourceColumn { table: table.clone(), column: (*name).to_owned() }].into(),
        masked: false,
    };
    QueryShape {
        columns: COLUMNS.iter().map(column).collect(),
        rows: spec.query.clone(),
        indirect: BTreeSet::new(),
        tables: spec.reads.iter().map(|name| (name.clone(), 1)).collect(),
        volatile: Vec::new(),
    }
}

/// Returns what a commit with these products asks for.
pub fn desired(specs: &[Spec], commit: &str) -> Desired {
    let mut mesh = Mesh { name: "bench".to_owned(), ..Mesh::default() };
    mesh.products = specs.iter().map(product).map(|it| (it.id.clone(), it)).collect();
    let shapes = specs.iter().map(|spec| ((id(&spec.name), text("make")), shape(spec))).collect();
    let order = dependency_order(mesh.products.values());
    let prints = print_mesh(&mesh, &order, &shapes, &BTreeMap::new(), &InOrder);
    Desired { commit: commit.to_owned(), mesh, shapes, prints, broken: BTreeMap::new() }
}

/// Returns layers of products, each reading two of the layer before: a wide graph in which work is always waiting.
pub fn layers(products: usize, width: usize) -> Vec<Spec> {
    let name = |number: usize| format!("p-{number:05}");
    let reads = |number: usize| match number.checked_sub(width) {
        None => Vec::new(),
        Some(above) => {
            let beside = above - above % width + (above + 1) % width;
            if beside == above { vec![name(above)] } else { vec![name(above), name(beside)] }
        }
    };
    (0..products).map(|number| Spec::new(name(number), reads(number))).collect()
}

/// Returns what a step that writes nothing says of every partition that it was asked for.
pub fn published(start: &Start, ledger: &LedgerState) -> Vec<Fact> {
    let deployed = &ledger.deployed[&start.key.pipeline.product];
    let Pipeline::Batch(batch) = &deployed.product.pipelines[&start.key.pipeline.name] else {
        return Vec::new();
    };
    let port = deployed.product.port(&batch.output);
    let version = ledger.ports.get(&port).map_or(0, |state| state.version);
    let calendar = batch.partition.as_ref().and_then(Partitioning::calendar);
    let partitions: Vec<Option<String>> = match (&start.key.work, calendar) {
        (Work::Partitions { from, to }, Some(cut)) => {
            let parse = |key| Partition::parse(cut.every, key).expect("a key");
            let set = PartitionSet::between(parse(from), parse(to)).expect("one grain");
            set.iter().map(|key| Some(key.to_string())).collect()
        }
        _ => vec![None],
    };
    let inputs: BTreeMap<PortId, i64> = deployed
        .product
        .reads()
        .filter_map(|port| Some((port.clone(), ledger.ports.get(port)?.version)))
        .collect();
    let end = |key: &str| {
        batch.partition.as_ref().and_then(|cut| partition_bounds_ms(cut, key)).map(|(_, end)| end)
    };
    (version + 1..)
        .zip(partitions)
        .map(|(version, partition)| {
            Fact::Published(Published {
                port: port.clone(),
                data_time_ms: partition.as_deref().map_or(Some(NOW_MS), end),
                partition,
                version,
                rows: 0,
                data: deployed.print.ports[&batch.output].data.clone(),
                inputs: inputs.clone(),
                run: start.run.clone(),
                key: format!("{version:016x}"),
                taken: None,
            })
        })
        .collect()
}

/// Returns a gate's yes.
pub fn allow(question: &hydromesh_core::control::Question) -> Decision {
    Decision {
        id: "allow".to_owned(),
        product: question.product.clone(),
        action: question.action.clone(),
        commit: question.commit.clone(),
        fingerprint: question.fingerprint.clone(),
        allow: true,
        violations: Vec::new(),
        warnings: Vec::new(),
        waived: Vec::new(),
        policy_digest: String::new(),
        rules: String::new(),
        input_hash: String::new(),
    }
}
