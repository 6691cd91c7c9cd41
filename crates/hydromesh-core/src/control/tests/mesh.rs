//! A mesh in code, like the example's: 4 domains, 9 products, shapes given as data, and edits of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::diag::{Diagnostic, Spot, codes};
use crate::ids::{PortId, ProductId};
use crate::model::{
    Access, Available, BackfillOrder, BatchPipeline, BatchSchedule, Bounds, ByPromise, Calendar, Chunking,
    Classification, Column, ColumnShape, Contract, Domain, DriftRule, EmbeddingPipeline, Environment,
    EventSource, FeaturePipeline, InputPort, InputSource, InputWindow, KeySource, Late, LateBeyond,
    LogicalType, Maintenance, Mesh, OutputPort, Partitioning, Parts, Pipeline, Product, QueryShape,
    RetirePolicy, RetrainOn, Retry, Route, Schedule, Sla, SlaKind, SourceColumn, SqlText, StateKind,
    StepLimits, StreamKind, StreamPipeline, TableFormat, TrainGate, Trainer, TrainingPipeline, Values,
};
use crate::plan::{Desired, PortPrint, dependency_order, print_mesh};
use crate::spread::InOrder;
use crate::time::{Grain, Span};

/// How a product is made.
#[derive(Debug, Clone, PartialEq)]
pub enum Made {
    /// Batch; the partition column, if it is cut by day.
    Batch {
        by: Option<&'static str>,
        cron: Option<&'static str>,
    },
    Stream,
    Feature,
    Embedding,
    Training,
}

/// A column: name, expression, and the source columns of its value as (table, column).
#[derive(Debug, Clone, PartialEq)]
pub struct Col {
    pub name: String,
    pub expression: String,
    pub direct: Vec<(String, String)>,
    pub logical: LogicalType,
    pub pii: bool,
}

/// A product as its folder would say it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub id: ProductId,
    pub made: Made,
    /// Input tables: name, and the port or an external source.
    pub inputs: Vec<(String, Option<PortId>)>,
    pub columns: Vec<Col>,
    pub rows: String,
    pub indirect: Vec<(String, String)>,
    pub promise: Option<Span>,
    pub lookback: Option<Span>,
    pub chunk: Option<Span>,
    pub order: BackfillOrder,
    pub retry: Retry,
    pub timeout: Option<Span>,
    pub pool: Option<&'static str>,
    pub retire: RetirePolicy,
    /// How long its contract keeps data.
    pub retention: Option<&'static str>,
    /// Stands for whatever is no data: description, owners.
    pub version: String,
    /// It does not check.
    pub broken: bool,
    /// Stands for the contents of the files that it reads.
    pub files: String,
    /// The first partition.
    pub start: &'static str,
    /// Size of a partition.
    pub every: Grain,
    /// The values that it is cut by, instead of by a calendar.
    pub values: Vec<&'static str>,
    /// The column, `table.column`, whose values it is cut by, instead of those of a list.
    pub keys: Option<&'static str>,
    /// Which partitions of its inputs a partition reads, by table.
    pub windows: BTreeMap<&'static str, InputWindow>,
}

/// What the repository holds at one commit.
pub type Tree = BTreeMap<ProductId, Spec>;

/// The first partition of everything.
pub const START: &str = "2026-08-03";

pub fn id(text: &str) -> ProductId {
    text.parse().expect("a product")
}

pub fn span(text: &str) -> Span {
    text.parse().expect("a span")
}

/// A window, written `from..to`.
pub fn picked(window: &str, at_least: Option<u32>) -> InputWindow {
    let (from, to) = window.split_once("..").expect("from..to");
    InputWindow { from: from.parse().expect("a shift"), to: to.parse().expect("a shift"), at_least }
}

impl Spec {
    pub fn new(text: &str, made: Made) -> Self {
        Self {
            id: id(text),
            made,
            inputs: Vec::new(),
            columns: Vec::new(),
            rows: "scan".to_owned(),
            indirect: Vec::new(),
            promise: None,
            lookback: None,
            chunk: None,
            order: BackfillOrder::default(),
            retry: Retry::default(),
            timeout: None,
            pool: None,
            retire: RetirePolicy::Keep,
            retention: None,
            version: "1.0.0".to_owned(),
            broken: false,
            files: "1".to_owned(),
            start: START,
            every: Grain::Day,
            values: Vec::new(),
            keys: None,
            windows: BTreeMap::new(),
        }
    }

    /// Reads an external table, or a port given as `domain/product`; the table and the port are called like the product.
    pub fn reads(mut self, text: &str) -> Self {
        match text.parse::<ProductId>() {
            Ok(product) => {
                let port = port_of(&product);
                self.inputs.push((port.port.to_string(), Some(port)));
            }
            Err(_) => self.inputs.push((text.to_owned(), None)),
        }
        self
    }

    /// Adds columns: `name` alone copies it from the first table; `name = table.column` says from where.
    pub fn with(mut self, columns: &[&str]) -> Self {
        for text in columns {
            self.add(text);
        }
        self
    }

    pub fn add(&mut self, text: &str) {
        let (name, source) =
            text.split_once(" = ").map_or((text, None), |(name, source)| (name, Some(source)));
        let first = self.inputs.first().map_or("raw", |(table, _)| table.as_str()).to_owned();
        let expression = source.map_or_else(|| format!("{first}.{name}"), str::to_owned);
        let bare = expression.trim_start_matches("sum(").trim_end_matches(')').to_owned();
        let (table, column) = bare.split_once('.').expect("table.column");
        self.columns.push(Col {
            name: name.to_owned(),
            expression: expression.clone(),
            direct: vec![(table.to_owned(), column.to_owned())],
            logical: LogicalType::String,
            pii: false,
        });
    }

    pub fn filters(mut self, table: &str, column: &str) -> Self {
        self.indirect.push((table.to_owned(), column.to_owned()));
        self
    }

    pub fn promises(mut self, text: &str) -> Self {
        self.promise = Some(span(text));
        self
    }

    /// Reads those partitions of a table alone that a window holds: `from..to`, and how many are enough.
    pub fn picks(mut self, table: &'static str, window: &str, at_least: Option<u32>) -> Self {
        self.windows.insert(table, picked(window, at_least));
        self
    }

    pub fn port(&self) -> PortId {
        port_of(&self.id)
    }

    /// Columns of other products' ports that it reads.
    pub fn needs(&self) -> BTreeSet<(PortId, String)> {
        let source = |(table, column): &(String, String)| {
            let (_, port) = self.inputs.iter().find(|(name, _)| name == table)?;
            Some((port.clone()?, column.clone()))
        };
        self.columns
            .iter()
            .flat_map(|column| &column.direct)
            .chain(&self.indirect)
            .filter_map(source)
            .collect()
    }
}

/// Every product has one port, called like the product with underscores.
pub fn port_of(product: &ProductId) -> PortId {
    format!("{product}.{}", product.name.as_str().replace('-', "_")).parse().expect("a port")
}

/// Regions of the customers, one partition for each, and who reads those region by region.
pub fn regions() -> Tree {
    let listed = |name: &str, reads: &str, columns: &[&str]| {
        let spec = Spec::new(name, Made::Batch { by: Some("region"), cron: None });
        Spec { values: vec!["at", "de", "it"], ..spec.reads(reads).with(columns) }
    };
    let by_region =
        listed("commerce/regions", "customer/customers", &["region = customers.country", "email"]);
    let totals = listed("commerce/region-totals", "commerce/regions", &["region", "email"]);
    [by_region, totals].into_iter().map(|spec| (spec.id.clone(), spec)).collect()
}

/// The customers, one partition for each country that they have.
pub fn countries() -> Tree {
    let spec = Spec::new("customer/countries", Made::Batch { by: Some("country"), cron: None });
    let spec = spec.reads("customer/customers").with(&["country", "email"]);
    [(spec.id.clone(), Spec { keys: Some("customers.country"), ..spec })].into()
}

/// The example's mesh.
pub fn example() -> Tree {
    let day = |by| Made::Batch { by: Some(by), cron: None };
    let whole = || Made::Batch { by: None, cron: None };
    let mut orders =
        Spec::new("commerce/orders", Made::Batch { by: Some("order_date"), cron: Some("15 2 * * *") })
            .reads("order_files")
            .with(&["order_id", "customer_id", "order_date", "status", "channel", "country", "amount"])
            .promises("2d");
    orders.chunk = Some(span("15d"));
    orders.lookback = Some(span("2d"));
    let mut revenue = Spec::new("commerce/daily-revenue", day("order_date"))
        .reads("commerce/orders")
        .with(&["order_date", "country", "revenue = sum(orders.amount)"])
        .filters("orders", "status")
        .promises("2d");
    revenue.chunk = Some(span("30d"));
    revenue.lookback = Some(span("2d"));
    let mut profile = Spec::new("customer/customer-360", day("as_of_date"))
        .reads("commerce/orders")
        .reads("customer/customers")
        .with(&["as_of_date = orders.order_date", "customer_id", "country = customers.country"])
        .filters("orders", "status")
        .promises("2d");
    profile.rows = "join days, orders up to the day".to_owned();
    profile.columns[0].expression = "distinct(orders.order_date)".to_owned();
    profile.lookback = Some(span("2d"));
    let specs = [
        orders,
        revenue,
        profile,
        Spec::new("customer/customers", whole())
            .reads("customer_files")
            .with(&["customer_id", "email", "country"])
            .promises("60d"),
        Spec::new("commerce/clickstream", Made::Stream)
            .reads("raw_clicks")
            .with(&["event_id", "customer_id", "ts", "amount"])
            .promises("15m"),
        Spec::new("customer/activity", Made::Feature)
            .reads("commerce/clickstream")
            .with(&["event_id", "customer_id", "ts", "amount"])
            .promises("30m"),
        Spec::new("support/articles", whole()).reads("article_files").with(&["article_id", "body"]),
        Spec::new("support/article-search", Made::Embedding)
            .reads("support/articles")
            .with(&["article_id", "body"]),
        Spec::new("risk/churn-model", Made::Training)
            .reads("churn_labels")
            .with(&["customer_id", "ts", "churned"])
            .promises("35d"),
    ];
    specs.into_iter().map(|spec| (spec.id.clone(), spec)).collect()
}

fn contract(spec: &Spec) -> Contract {
    let column = |column: &Col| Column {
        name: column.name.clone(),
        logical: column.logical.clone(),
        physical: None,
        required: false,
        unique: false,
        primary_key: false,
        classification: column.pii.then_some(Classification::Pii),
        description: String::new(),
        line: 0,
    };
    Contract {
        id: spec.port().to_string(),
        version: spec.version.clone(),
        status: "active".to_owned(),
        description: String::new(),
        columns: spec.columns.iter().map(column).collect(),
        quality: Vec::new(),
        slas: [("latency", spec.promise.map(SlaKind::DataAge)), ("retention", spec.retention.map(retention))]
            .into_iter()
            .filter_map(|(id, kind)| Some(Sla { id: id.to_owned(), kind: kind?, target: 0.99, line: 0 }))
            .collect(),
        file: format!("domains/{}/port.odcs.yaml", spec.id),
    }
}

fn retention(value: &str) -> SlaKind {
    SlaKind::Other { property: "retention".to_owned(), value: value.to_owned() }
}

fn raw_contract(table: &str) -> Contract {
    Contract {
        id: table.to_owned(),
        version: "1.0.0".to_owned(),
        status: "active".to_owned(),
        description: String::new(),
        columns: Vec::new(),
        quality: Vec::new(),
        slas: Vec::new(),
        file: String::new(),
    }
}

fn sql(spec: &Spec) -> SqlText {
    SqlText { file: format!("domains/{}/query.sql", spec.id), line: 1, text: "SELECT ...".to_owned() }
}

fn events(port: &str) -> EventSource {
    EventSource {
        port: name(port),
        event_time: "ts".to_owned(),
        event_id: Some("event_id".to_owned()),
        bound: span("30s"),
        idle: span("30s"),
        late: Late { allow: span("2d"), beyond: LateBeyond::Quarantine },
        available: Available::Broker,
    }
}

fn name<T: TryFrom<String>>(text: &str) -> T
where
    T::Error: std::fmt::Debug,
{
    T::try_from(text.to_owned()).expect("a name")
}

fn bounds(spec: &Spec) -> Bounds {
    Bounds { timeout: spec.timeout, pool: spec.pool.map(str::to_owned) }
}

fn parts(spec: &Spec) -> Parts {
    if let Some((table, column)) = spec.keys.and_then(|it| it.split_once('.')) {
        let values = KeySource { input: name(table), column: column.to_owned() };
        return Parts::Keys { values, found: Values::default() };
    }
    if spec.values.is_empty() {
        let (start, timezone) = (spec.start.to_owned(), "UTC".to_owned());
        return Parts::Calendar(Calendar { every: spec.every, start, timezone });
    }
    let values = Values::new(spec.values.iter().map(|value| (*value).to_owned()));
    Parts::Values { values: values.expect("values") }
}

fn pipeline(spec: &Spec) -> Pipeline {
    let output = spec.port().port;
    let called = name(spec.id.name.as_str());
    let first = spec.inputs.first().map_or("raw", |(table, _)| table.as_str());
    match &spec.made {
        Made::Batch { by, cron } => Pipeline::Batch(BatchPipeline {
            name: called,
            output,
            sql: sql(spec),
            partition: by.map(|by| Partitioning { by: by.to_owned(), into: parts(spec) }),
            inputs: spec.windows.iter().map(|(table, window)| (name(table), *window)).collect(),
            schedule: cron.map(|cron| match cron {
                "promise" => BatchSchedule::By(ByPromise::Promise),
                cron => BatchSchedule::Cron(Schedule {
                    cron: cron.to_owned(),
                    timezone: "Europe/Zurich".to_owned(),
                }),
            }),
            lookback: spec.lookback,
            chunk: spec.chunk,
            concurrency: 2,
            order: spec.order,
            retry: spec.retry.clone(),
            bounds: bounds(spec),
            self_heal: true,
        }),
        Made::Stream => {
            Pipeline::Stream(StreamPipeline { name: called, output, sql: sql(spec), source: events(first) })
        }
        Made::Feature => Pipeline::Feature(FeaturePipeline {
            name: called,
            output,
            entity: "customer_id".to_owned(),
            source: events(first),
            select: sql(spec),
            view: serde_json::from_value(serde_json::json!([
                {"name": "spend", "agg": "sum(amount)", "windows": ["1h", "7d"], "tail": "5%"}
            ]))
            .expect("a view"),
        }),
        Made::Embedding => Pipeline::Embedding(EmbeddingPipeline {
            name: called,
            output,
            port: name(first),
            id: "article_id".to_owned(),
            text: "body".to_owned(),
            chunk: Chunking { method: "content_defined".to_owned(), target: 800 },
            provider: "hashing".to_owned(),
            dimensions: 384,
            store: "exact".to_owned(),
            bounds: bounds(spec),
        }),
        Made::Training => Pipeline::Training(TrainingPipeline {
            name: called,
            output,
            spine: sql(spec),
            features: vec![port_of(&id("customer/activity"))],
            as_of_event: "ts".to_owned(),
            as_of_knowledge: "ts".to_owned(),
            train: Trainer::Builtin("logistic_regression".to_owned()),
            retrain_on: RetrainOn {
                drift: Some(DriftRule { false_alarms_per_year: 4.0, confirm: 3, of: 5 }),
                schedule: None,
            },
            cooldown: span("3d"),
            max_per_month: 4,
            gate: TrainGate { metric: "auc".to_owned(), non_inferiority: 0.01 },
            bounds: bounds(spec),
        }),
    }
}

fn product(spec: &Spec) -> Product {
    let made = pipeline(spec);
    let input = |(table, port): &(String, Option<PortId>)| {
        let source = match (port, &spec.made) {
            (Some(port), _) => InputSource::Port { port: port.clone() },
            (None, Made::Stream) => {
                InputSource::Topic { topic: table.clone(), contract: raw_contract(table) }
            }
            (None, _) => InputSource::Files { glob: "data/*.csv".to_owned(), contract: raw_contract(table) },
        };
        (name(table), InputPort { name: name(table), source })
    };
    let output = spec.port().port;
    Product {
        id: spec.id.clone(),
        title: spec.id.to_string(),
        description: String::new(),
        version: spec.version.clone(),
        status: "active".to_owned(),
        tier: 2,
        owners: vec![format!("{}-owner@example.org", spec.id.name)],
        runbook: Some(format!("https://runbooks.example.org/{}", spec.id)),
        inputs: spec.inputs.iter().map(input).collect(),
        outputs: [(
            output.clone(),
            OutputPort {
                name: output,
                description: String::new(),
                contract: contract(spec),
                format: TableFormat::Delta,
                access: Access::default(),
            },
        )]
        .into(),
        pipelines: [(made.name().clone(), made)].into(),
        files: [(format!("domains/{}/data/rows.csv", spec.id), spec.files.clone())].into(),
        folder: format!("domains/{}", spec.id),
        retire: spec.retire,
    }
}

fn shape(spec: &Spec) -> QueryShape {
    let source =
        |(table, column): &(String, String)| SourceColumn { table: table.clone(), column: column.clone() };
    QueryShape {
        columns: spec
            .columns
            .iter()
            .map(|column| ColumnShape {
                name: column.name.clone(),
                logical: Some(column.logical.clone()),
                physical: String::new(),
                nullable: true,
                expression: column.expression.clone(),
                direct: column.direct.iter().map(source).collect(),
                masked: false,
            })
            .collect(),
        rows: spec.rows.clone(),
        indirect: spec.indirect.iter().map(source).collect(),
        tables: spec.inputs.iter().map(|(table, _)| (table.clone(), 1)).collect(),
        volatile: Vec::new(),
    }
}

/// The environment's limits follow from the tree: a pool takes one step, and where the whole mesh is in it, there are more steps
/// than that in all, and one of each product.
fn environment(tree: &Tree) -> Environment {
    let pools: BTreeSet<&str> = tree.values().filter_map(|spec| spec.pool).collect();
    let all = !tree.is_empty() && tree.values().all(|spec| spec.pool.is_some());
    let limits = StepLimits {
        steps: all.then_some(3),
        per_product: all.then_some(1),
        pools: pools.into_iter().map(|pool| (pool.to_owned(), 1)).collect(),
    };
    Environment {
        r#ref: "refs/heads/main".to_owned(),
        after: None,
        lake_path: "lake".to_owned(),
        lake_format: TableFormat::Delta,
        state: StateKind::default(),
        stream: StreamKind::TopicFolder,
        smtp: None,
        mail_from: None,
        allow_commands: Vec::new(),
        allow_network: Vec::new(),
        limits,
        cost: None,
        maintenance: Maintenance::default(),
    }
}

/// Returns what a tree asks for at a commit, as reading and checking it would.
pub fn desired(tree: &Tree, commit: &str, deployed: &BTreeMap<PortId, PortPrint>) -> Desired {
    let mut mesh = Mesh {
        name: "example".to_owned(),
        routes: vec![
            Route { domain: Some(name("commerce")), mail: vec!["commerce@example.org".to_owned()] },
            Route { domain: Some(name("risk")), mail: vec!["risk@example.org".to_owned()] },
        ],
        environments: [("dev".to_owned(), environment(tree))].into(),
        ..Mesh::default()
    };
    let mut broken = BTreeMap::new();
    for spec in tree.values() {
        let domain = spec.id.domain.clone();
        mesh.domains.entry(domain.clone()).or_insert_with(|| Domain {
            owners: vec![format!("{domain}@example.org")],
            name: domain,
            title: String::new(),
            oncall: None,
            tier: 2,
        });
        let columns = |port: &PortId| tree.get(&port.product).map(|spec| &spec.columns);
        let lost = spec.needs().into_iter().find(|(port, column)| {
            columns(port).is_none_or(|columns| !columns.iter().any(|it| it.name == *column))
        });
        let features = matches!(spec.made, Made::Training) && !tree.contains_key(&id("customer/activity"));
        let message = match (spec.broken, lost, features) {
            (true, ..) => Some("it does not parse".to_owned()),
            (_, Some((port, column)), _) => Some(format!("there is no {port}#{column}")),
            (_, _, true) => Some("there are no features".to_owned()),
            _ => None,
        };
        let built = product(spec);
        match message {
            Some(message) => {
                let file = format!("domains/{}/query.sql", spec.id);
                let finding = Diagnostic::new(codes::SQL_PLAN, file, Spot::FILE, message);
                broken.insert(spec.id.clone(), vec![finding]);
                mesh.withheld.extend(built.outputs.iter().map(|(name, it)| (built.port(name), it.clone())));
            }
            None => _ = mesh.products.insert(spec.id.clone(), built),
        }
    }
    let shapes: BTreeMap<_, _> = tree
        .values()
        .filter(|spec| mesh.products.contains_key(&spec.id) && spec.made != Made::Embedding)
        .map(|spec| ((spec.id.clone(), name(spec.id.name.as_str())), shape(spec)))
        .collect();
    let order = dependency_order(mesh.products.values());
    let prints = print_mesh(&mesh, &order, &shapes, deployed, &InOrder);
    Desired { commit: commit.to_owned(), mesh, shapes, prints, broken }
}
