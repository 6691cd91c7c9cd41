//! The mesh with its names resolved and its invariants held; what `check` yields and `plan` reads.

mod contract;
mod load;
mod partition;
mod picks;
mod pipeline;
mod program;
pub mod read;
mod resolve;
mod retire;
mod shape;
mod window;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use contract::{
    Classification, Column, Contract, LogicalType, Quality, QualityCheck, QualitySeverity, Season, Sla,
    SlaKind, Threshold, Usual, UsualOf,
};
pub use load::{LoadResult, Loaded, load, load_with};
pub use partition::{Calendar, KeySource, Partitioning, Parts, Values, ValuesError};
pub use pipeline::{
    Available, BackfillOrder, BatchPipeline, BatchSchedule, Bounds, ByPromise, Chunking, DriftRule,
    EmbeddingPipeline, EventSource, FeaturePipeline, Late, LateBeyond, Pipeline, PipelineKind, RetrainOn,
    Retry, Schedule, SqlText, StreamPipeline, TrainGate, Trainer, TrainingPipeline,
};
pub use program::{Program, RowsFormat, TrainerCommand};
pub use retire::{RetirePolicy, TableEnd};
pub use shape::{ColumnShape, Influence, QueryShape, SourceColumn};
pub use window::InputWindow;

use crate::aggregate::AggFunction;
use crate::ids::{DomainName, PipelineName, PortId, PortName, ProductId};
use crate::plan::glob_matches;
use crate::time::{Span, SpanUnit};

/// A whole mesh at one commit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Mesh {
    /// From `mesh.yaml`.
    pub name: String,
    /// Title of the status site.
    pub title: String,
    /// Environments by name.
    pub environments: BTreeMap<String, Environment>,
    /// Where alerts go, first match wins.
    pub routes: Vec<Route>,
    /// Domains by name.
    pub domains: BTreeMap<DomainName, Domain>,
    /// Every product that resolved; a broken one is absent and named by its findings.
    pub products: BTreeMap<ProductId, Product>,
    /// Output ports of broken products whose contracts could still be read, so that their readers can be checked.
    #[serde(default)]
    pub withheld: BTreeMap<PortId, OutputPort>,
}

/// One environment of `mesh.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The git reference that it follows, such as `refs/heads/main`.
    pub r#ref: String,
    /// Deploys what was healthy in another environment for a time, and nothing else.
    pub after: Option<After>,
    /// Folder of the lake; relative to the state folder.
    pub lake_path: String,
    /// Table format when a port does not choose: `delta` or `iceberg`.
    pub lake_format: TableFormat,
    /// Where the ledger lives.
    #[serde(default)]
    pub state: StateKind,
    /// Where topics live.
    pub stream: StreamKind,
    /// SMTP server as `host:port`; mails become `.eml` files without one.
    pub smtp: Option<String>,
    /// Sender of mails.
    pub mail_from: Option<String>,
    /// Domains whose commands and trainers may run.
    pub allow_commands: Vec<DomainName>,
    /// Domains whose trainers may have the network, if they ask for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_network: Vec<DomainName>,
    /// How many steps may run at once.
    #[serde(default, skip_serializing_if = "StepLimits::is_default")]
    pub limits: StepLimits,
    /// What an hour of one step costs, if somebody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Price>,
    /// What is done to its tables without anybody's asking.
    #[serde(default, skip_serializing_if = "Maintenance::is_default")]
    pub maintenance: Maintenance,
}

/// The environment that an environment comes after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// Its name.
    pub environment: String,
    /// How long a commit has to be healthy there.
    pub r#for: Span,
}

/// What an hour of one step costs, of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Millionths of the currency for an hour.
    pub per_hour_micro: u64,
    /// Its code, such as `EUR` (ISO 4217).
    pub currency: String,
}

/// What is done to tables without anybody's asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// How often at most each table is looked after; never without one.
    pub every: Option<Span>,
    /// How old files are that no version of a table has, before they are removed.
    pub unused: Span,
    /// How long a version of a table can be read after a newer one came.
    #[serde(default = "Maintenance::week")]
    pub versions: Span,
}

impl Default for Maintenance {
    fn default() -> Self {
        // A week is longer than anything that is under way.
        let (day, week) = (Span::from_millis(SpanUnit::Day.millis()), Self::week());
        Self { every: Some(day), unused: week, versions: week }
    }
}

impl Maintenance {
    fn week() -> Span {
        Span::from_millis(7 * SpanUnit::Day.millis())
    }

    /// Returns whether nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How many steps that end by themselves may run at once in an environment. What follows a topic is not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLimits {
    /// In all; as many as suit the machine without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Of one product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_product: Option<u32>,
    /// Of all pipelines that name a pool, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pools: BTreeMap<String, u32>,
}

impl StepLimits {
    /// Returns whether nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where an environment's ledger lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StateKind {
    /// A file in the state folder.
    #[default]
    Sqlite,
    /// A PostgreSQL server.
    Postgres {
        /// Its address; may hold `${secret:NAME}`, which is resolved when used.
        url: String,
    },
}

/// Where an environment's topics live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StreamKind {
    /// Topic folders under the state folder.
    TopicFolder,
    /// Apache Kafka.
    Kafka {
        /// Bootstrap servers, `host:port,host:port`.
        brokers: String,
    },
}

/// The format of a table in the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFormat {
    /// Delta Lake.
    Delta,
    /// Apache Iceberg.
    Iceberg,
}

/// An alert route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Only this domain's alerts; every domain's when absent.
    pub domain: Option<DomainName>,
    /// Mail addresses.
    pub mail: Vec<String>,
}

/// One domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its folder's name.
    pub name: DomainName,
    /// For people.
    pub title: String,
    /// Mail addresses of the owners.
    pub owners: Vec<String>,
    /// Mail address of whoever is on call.
    pub oncall: Option<String>,
    /// 1 (wakes people) to 3 (best effort); products may override.
    pub tier: u8,
}

/// One data product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// `domain/product`.
    pub id: ProductId,
    /// For people.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// SemVer of the product.
    pub version: String,
    /// `draft`, `active`, `deprecated`, `retired`.
    pub status: String,
    /// 1 to 3, from the product or its domain.
    pub tier: u8,
    /// Owners' mail addresses, from the product's team or its domain.
    pub owners: Vec<String>,
    /// Link to the runbook.
    pub runbook: Option<String>,
    /// Input ports by name, which is the table's name in SQL.
    pub inputs: BTreeMap<PortName, InputPort>,
    /// Output ports by name.
    pub outputs: BTreeMap<PortName, OutputPort>,
    /// Pipelines by name.
    pub pipelines: BTreeMap<PipelineName, Pipeline>,
    /// Every file of the product's folder with its git blob id (or content hash), for change detection.
    pub files: BTreeMap<String, String>,
    /// Folder in the repository, such as `domains/commerce/orders`.
    pub folder: String,
    /// What becomes of its tables once it has left the mesh.
    #[serde(default, skip_serializing_if = "RetirePolicy::is_default")]
    pub retire: RetirePolicy,
}

/// What an input port reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputPort {
    /// The table's name in SQL.
    pub name: PortName,
    /// Where it comes from.
    pub source: InputSource,
}

/// Where an input port's rows come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum InputSource {
    /// Another product's output port.
    Port {
        /// Its address.
        port: PortId,
    },
    /// Files of the product's own folder, by glob; CSV with a header, or `.jsonl`.
    Files {
        /// The glob, relative to the product's folder.
        glob: String,
        /// Shape of the raw rows.
        contract: Contract,
    },
    /// A topic that the mesh does not produce.
    Topic {
        /// Its name.
        topic: String,
        /// Shape of the raw messages.
        contract: Contract,
    },
}

/// One output port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputPort {
    /// Its name.
    pub name: PortName,
    /// For people.
    pub description: String,
    /// What it promises.
    pub contract: Contract,
    /// Table format.
    pub format: TableFormat,
    /// How it may be read.
    pub access: Access,
}

/// How a port may be read; access belongs to the port, not to the pipeline's kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// As a table in the lake.
    pub table: bool,
    /// As a topic.
    pub topic: bool,
    /// By key, over HTTP: the key column.
    pub lookup: Option<String>,
    /// By text, over HTTP: the text column.
    pub search: Option<String>,
}

impl Product {
    /// Returns the addresses of the ports of other products that this one reads, in order.
    pub fn reads(&self) -> impl Iterator<Item = &PortId> {
        self.inputs.values().filter_map(|input| match &input.source {
            InputSource::Port { port } => Some(port),
            InputSource::Files { .. } | InputSource::Topic { .. } => None,
        })
    }

    /// Returns how one of its output ports is cut, if a batch pipeline fills it by partitions.
    #[must_use]
    pub fn cut_of(&self, port: &PortName) -> Option<&Partitioning> {
        self.pipelines.values().find_map(|pipeline| match pipeline {
            Pipeline::Batch(batch) if batch.output == *port => batch.partition.as_ref(),
            _ => None,
        })
    }

    /// Returns which partitions of an input a pipeline says that it reads: one window for each name that the input has here,
    /// and none where it goes by a name without one, because it is read as a whole then.
    #[must_use]
    pub fn windows_of<'a>(&'a self, batch: &'a BatchPipeline, port: &PortId) -> Vec<&'a InputWindow> {
        let named = self
            .inputs
            .values()
            .filter(|input| matches!(&input.source, InputSource::Port { port: source } if source == port));
        named.map(|input| batch.inputs.get(&input.name)).collect::<Option<_>>().unwrap_or_default()
    }

    /// Returns the rules of its contracts that programs of its folder measure.
    pub fn commands(&self) -> impl Iterator<Item = (&PortName, &Quality, &Program)> {
        let rules = |(name, port)| {
            let port: &OutputPort = port;
            port.contract.quality.iter().map(move |rule: &Quality| (name, rule))
        };
        self.outputs.iter().flat_map(rules).filter_map(|(name, rule)| match &rule.check {
            QualityCheck::Command(command) => Some((name, rule, command)),
            _ => None,
        })
    }

    /// Returns the files of the product's folder that match a glob relative to it, with their blob ids, in order.
    pub fn files_matching<'a>(&'a self, glob: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files.iter().filter_map(move |(path, oid)| {
            let relative = path.strip_prefix(&self.folder)?.trim_start_matches('/');
            glob_matches(glob, relative).then_some((path.as_str(), oid.as_str()))
        })
    }

    /// Returns the address of one of this product's output ports.
    #[must_use]
    pub fn port(&self, name: &PortName) -> PortId {
        PortId { product: self.id.clone(), port: name.clone() }
    }
}

impl Mesh {
    /// Returns the output port at an address, be its product whole or broken.
    #[must_use]
    pub fn output(&self, id: &PortId) -> Option<&OutputPort> {
        match self.products.get(&id.product) {
            Some(product) => product.outputs.get(&id.port),
            None => self.withheld.get(id),
        }
    }

    /// Returns the columns of an input port: those of the port or of the raw rows that it reads.
    #[must_use]
    pub fn input_contract<'a>(&'a self, input: &'a InputPort) -> Option<&'a Contract> {
        match &input.source {
            InputSource::Port { port } => self.output(port).map(|output| &output.contract),
            InputSource::Files { contract, .. } | InputSource::Topic { contract, .. } => Some(contract),
        }
    }

    /// Returns the products that read a port of `product`, in order.
    pub fn readers<'a>(&'a self, product: &'a ProductId) -> impl Iterator<Item = &'a Product> {
        self.products.values().filter(move |reader| {
            reader.id != *product
                && (reader.reads().any(|port| port.product == *product)
                    || reader.pipelines.values().any(|pipeline| match pipeline {
                        Pipeline::Training(training) => {
                            training.features.iter().any(|port| port.product == *product)
                        }
                        _ => false,
                    }))
        })
    }

    /// Returns the mail addresses for a domain's alerts: the first matching route, else its owners.
    #[must_use]
    pub fn mail_for(&self, domain: &DomainName) -> Vec<String> {
        let route =
            self.routes.iter().find(|route| route.domain.as_ref().is_none_or(|wanted| wanted == domain));
        match route {
            Some(route) => route.mail.clone(),
            None => self.domains.get(domain).map(|domain| domain.owners.clone()).unwrap_or_default(),
        }
    }
}

/// How far behind the newest event another may come in order, when a source does not say: the usual delay of a
/// broker's retry.
pub const DEFAULT_WATERMARK_BOUND: Span = seconds(30);
/// A partition silent for this long stops holding the watermark back, when a source does not say.
pub const DEFAULT_WATERMARK_IDLE: Span = seconds(30);

const fn seconds(count: i64) -> Span {
    match Span::new(count, SpanUnit::Second) {
        Some(span) => span,
        None => panic!("a small number of seconds fits"),
    }
}

/// Returns the column of the select that a column of a feature port rests on, and whether its value cannot be told
/// from the result; `None` for columns that the pipeline itself adds, such as as-of times.
#[must_use]
pub fn feature_source(feature: &FeaturePipeline, column: &str) -> Option<(String, bool)> {
    if column == feature.entity {
        return Some((column.to_owned(), false));
    }
    let found = feature.view.columns().iter().find(|it| it.name == column)?;
    let agg = &feature.view.features().get(found.feature)?.agg;
    let source = agg.column()?.to_owned();
    // A number of values says nothing about any of them; every other aggregate may return one.
    let masking = matches!(agg.function(), AggFunction::Count | AggFunction::ApproxDistinct);
    Some((source, masking))
}

/// Returns the features of a pipeline that aggregate a column, by name, each with that column.
#[must_use]
pub fn aggregated_columns(feature: &FeaturePipeline) -> Vec<(String, String)> {
    let features = feature.view.features().iter();
    features.filter_map(|it| Some((it.name.clone(), it.agg.column()?.to_owned()))).collect()
}
