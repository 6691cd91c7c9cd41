//! From the ledger to what the site shows: a pure function, so that every number on a page can be computed again.
//!
//! What runs is what is shown: definitions are the deployed ones, and the commit's own only for products that never ran.
//! Facts hold no row values, and nothing here looks at anything but facts.

mod changes;
mod incidents;
mod learning;
mod objectives;
mod parts;
mod policies;
mod status;
#[cfg(test)]
#[expect(clippy::cast_possible_wrap, clippy::cast_precision_loss, reason = "milliseconds of a month")]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::{Decision, Deployed, EpisodeRecord, FinishedRun, LedgerState, ProductVerdict};
use hydromesh_core::lineage::{self, Edges};
use hydromesh_core::model::{self as core, Influence, Mesh, Pipeline, PipelineKind};
use hydromesh_core::plan::Desired;

use super::model as site;
use super::model::SiteModel;
pub use policies::{KnownRule, known_rules};

/// What the site needs to know beyond the facts.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The environment that the ledger is of.
    pub environment: String,
    /// Now, milliseconds UTC of the injected clock.
    pub generated_at_ms: i64,
    /// When the next build is due.
    pub next_build_ms: Option<i64>,
    /// Name of the mesh as people say it; the commit's title, or the environment's name, when empty.
    pub title: String,
    /// Address of the repository, for links.
    pub repository: Option<String>,
    /// Address that the site is served at.
    pub base_url: Option<String>,
    /// Address of the HTTP API.
    pub api_base: Option<String>,
    /// Version of the program.
    pub evaluator_version: String,
    /// Root of the lake, as a reader of its tables would type it.
    pub lake: String,
    /// Rules of the gate.
    pub policies: Vec<KnownRule>,
    /// One answer of a lookup per product, if one may be shown.
    pub samples: BTreeMap<ProductId, site::FeatureSample>,
}

/// Returns what the site shows of an environment at a moment.
#[must_use]
pub fn model(ledger: &LedgerState, desired: Option<&Desired>, view: &View) -> SiteModel {
    let facts = Facts::new(ledger, desired, view);
    let title = [view.title.as_str(), desired.map_or("", |desired| desired.mesh.title.as_str())];
    let title = title.into_iter().find(|title| !title.is_empty()).unwrap_or(&view.environment);
    let commit = ledger.head.as_deref().or(desired.map(|desired| desired.commit.as_str()));
    SiteModel {
        title: title.to_owned(),
        environment: view.environment.clone(),
        commit: commit.unwrap_or_default().to_owned(),
        repository: view.repository.clone(),
        generated_at: instant(view.generated_at_ms),
        next_build: view.next_build_ms.map(instant),
        evaluator_version: view.evaluator_version.clone(),
        base_url: view.base_url.clone(),
        api_base: view.api_base.clone(),
        domains: domains(&facts),
        products: facts
            .definitions
            .keys()
            .chain(&facts.without_definition)
            .map(|id| facts.product(id))
            .collect(),
        lineage: facts.lineage(),
        incidents: incidents::all(&facts),
        policies: policies::rules(&facts),
        // The gate is not asked with waivers yet, so none is in force.
        waivers: Vec::new(),
        changes: changes::all(&facts),
    }
}

/// A definition, and whether it runs.
struct Definition<'a> {
    product: &'a core::Product,
    deployed: Option<&'a Deployed>,
}

/// The ledger, indexed by product once, so that a thousand products do not each search all of it.
struct Facts<'a> {
    ledger: &'a LedgerState,
    desired: Option<&'a Desired>,
    view: &'a View,
    now_ms: i64,
    /// What runs; and what a commit asks for, where nothing runs.
    definitions: BTreeMap<ProductId, Definition<'a>>,
    /// Products that a commit names, that do not check and never ran.
    without_definition: BTreeSet<ProductId>,
    refusals: BTreeMap<&'a ProductId, &'a ProductVerdict>,
    /// Newest first.
    runs: BTreeMap<&'a ProductId, Vec<&'a FinishedRun>>,
    /// Newest first.
    decisions: BTreeMap<&'a ProductId, Vec<(i64, &'a Decision)>>,
    episodes: BTreeMap<&'a ProductId, Vec<&'a EpisodeRecord>>,
    edges: Edges,
}

impl<'a> Facts<'a> {
    fn new(ledger: &'a LedgerState, desired: Option<&'a Desired>, view: &'a View) -> Self {
        let mut definitions: BTreeMap<ProductId, Definition> = BTreeMap::new();
        for (id, product) in desired.into_iter().flat_map(|desired| &desired.mesh.products) {
            definitions.insert(id.clone(), Definition { product, deployed: None });
        }
        for (id, deployed) in &ledger.deployed {
            let definition = Definition { product: &deployed.product, deployed: Some(deployed) };
            definitions.insert(id.clone(), definition);
        }
        let broken = desired.into_iter().flat_map(|desired| desired.broken.keys());
        let without_definition = broken.filter(|id| !definitions.contains_key(*id)).cloned().collect();
        let mut runs: BTreeMap<&ProductId, Vec<&FinishedRun>> = BTreeMap::new();
        for run in ledger.runs.iter().rev() {
            runs.entry(&run.step.pipeline.product).or_default().push(run);
        }
        let mut decisions: BTreeMap<&ProductId, Vec<(i64, &Decision)>> = BTreeMap::new();
        for (at, decision) in ledger.decisions.iter().rev() {
            decisions.entry(&decision.product).or_default().push((*at, decision));
        }
        let mut episodes: BTreeMap<&ProductId, Vec<&EpisodeRecord>> = BTreeMap::new();
        for episode in ledger.episodes.values() {
            episodes.entry(&episode.last().product).or_default().push(episode);
        }
        let edges =
            definitions.iter().map(|(id, it)| (id.clone(), lineage::upstream_of(it.product))).collect();
        let now_ms = view.generated_at_ms;
        let refusals = status::refusals(ledger);
        Self {
            ledger,
            desired,
            view,
            now_ms,
            definitions,
            without_definition,
            refusals,
            runs,
            decisions,
            episodes,
            edges,
        }
    }

    fn episodes_of(&self, id: &ProductId) -> &[&'a EpisodeRecord] {
        self.episodes.get(id).map_or(&[], Vec::as_slice)
    }

    fn product(&self, id: &ProductId) -> site::Product {
        let sync = self.sync(id);
        let runs = self.runs_of(id);
        let decisions = self.decisions_of(id);
        let Some(definition) = self.definitions.get(id) else {
            let (status, status_reason) = self.status(id, None, &[], &[]);
            return site::Product { status, status_reason, runs, decisions, ..bare(id, sync) };
        };
        let product = definition.product;
        let objectives: Vec<_> = self.objectives_of(definition);
        let quality = self.quality_of(product);
        let (status, status_reason) = self.status(id, Some(definition), &objectives, &quality);
        let owners = product.owners.iter().map(|owner| contact(owner)).collect();
        let through = product.outputs.keys().filter_map(|name| {
            let state = self.ledger.ports.get(&product.port(name))?;
            state.newest_data_ms
        });
        site::Product {
            title: product.title.clone(),
            kinds: kinds(product),
            tier: Some(product.tier),
            owners,
            runbook: product.runbook.clone(),
            description: product.description.clone(),
            status,
            status_reason,
            deployed_at: definition.deployed.map(|deployed| instant(deployed.at_ms)),
            deployed_commit: definition.deployed.map(|deployed| deployed.commit.clone()),
            // A reader of the product can rely on what all of its ports have.
            data_through: through.min().map(instant),
            next_expected: definition.deployed.and_then(|deployed| self.next_expected(deployed)).map(instant),
            ports: self.ports_of(product),
            objectives,
            quality,
            runs,
            decisions,
            drift: self.drift_of(id),
            model: self.model_of(product),
            sample: self.view.samples.get(id).cloned(),
            ..bare(id, sync)
        }
    }

    fn lineage(&self) -> site::Lineage {
        let mut ports: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for (id, definition) in &self.definitions {
            for port in hydromesh_core::plan::upstream_ports(definition.product) {
                if port.product != *id {
                    let pair = (port.product.to_string(), id.to_string());
                    ports.entry(pair).or_default().insert(port.port.to_string());
                }
            }
        }
        let products = ports
            .into_iter()
            .map(|((from, to), ports)| site::ProductEdge { from, to, ports: ports.into_iter().collect() })
            .collect();
        site::Lineage { products, columns: self.column_edges() }
    }

    /// Column lineage of what runs. A query is described when its commit is read, so a definition that waits for a later
    /// commit to be let in shows none rather than that of a query that does not run.
    fn column_edges(&self) -> Vec<site::ColumnEdge> {
        let Some(desired) = self.desired else { return Vec::new() };
        let current = |id: &ProductId| {
            let Some(print) = desired.prints.get(id) else { return false };
            let deployed = self.definitions.get(id).and_then(|definition| definition.deployed);
            deployed.is_none_or(|deployed| deployed.print.all == print.all)
        };
        let products = &desired.mesh.products;
        let (current, others): (Vec<_>, Vec<_>) = products.values().partition(|product| current(&product.id));
        // What the others make is still read, as it is deployed.
        let others = others.into_iter().filter_map(|product| self.definitions.get(&product.id));
        let outputs = others.flat_map(|it| {
            it.product.outputs.iter().map(|(name, output)| (it.product.port(name), output.clone()))
        });
        let mesh = Mesh {
            products: current.into_iter().map(|product| (product.id.clone(), product.clone())).collect(),
            withheld: desired.mesh.withheld.clone().into_iter().chain(outputs).collect(),
            ..Mesh::default()
        };
        let mut strongest: BTreeMap<(String, String), site::Influence> = BTreeMap::new();
        for edge in lineage::column_edges(&mesh, &desired.shapes) {
            let influence = match edge.influence {
                Influence::Direct => site::Influence::Direct,
                Influence::Indirect => site::Influence::FilterOnly,
            };
            let known = strongest.entry((edge.from.to_string(), edge.to.to_string())).or_insert(influence);
            *known = (*known).min(influence);
        }
        strongest
            .into_iter()
            .map(|((from, to), influence)| site::ColumnEdge { from, to, influence })
            .collect()
    }
}

fn domains(facts: &Facts<'_>) -> Vec<site::Domain> {
    let declared = facts.desired.into_iter().flat_map(|desired| desired.mesh.domains.values());
    declared
        .map(|domain| site::Domain {
            name: domain.name.to_string(),
            title: domain.title.clone(),
            description: None,
            owners: domain.owners.iter().map(|owner| contact(owner)).collect(),
            on_call: domain.oncall.clone(),
        })
        .collect()
}

/// A product of which nothing is known but its name.
fn bare(id: &ProductId, sync: site::Sync) -> site::Product {
    site::Product {
        id: id.to_string(),
        title: id.name.to_string(),
        domain: id.domain.to_string(),
        kinds: Vec::new(),
        tier: None,
        owners: Vec::new(),
        on_call: None,
        runbook: None,
        description: String::new(),
        status: site::Status::Unknown,
        status_reason: String::new(),
        sync,
        deployed_at: None,
        deployed_commit: None,
        data_through: None,
        next_expected: None,
        ports: Vec::new(),
        objectives: Vec::new(),
        quality: Vec::new(),
        runs: Vec::new(),
        decisions: Vec::new(),
        drift: Vec::new(),
        model: None,
        sample: None,
    }
}

fn kinds(product: &core::Product) -> Vec<site::Kind> {
    let kinds: BTreeSet<site::Kind> = product.pipelines.values().map(kind).collect();
    if kinds.is_empty() { vec![site::Kind::Source] } else { kinds.into_iter().collect() }
}

fn kind(pipeline: &Pipeline) -> site::Kind {
    match pipeline.kind() {
        PipelineKind::Batch => site::Kind::Batch,
        PipelineKind::Stream => site::Kind::Stream,
        PipelineKind::Feature => site::Kind::Feature,
        PipelineKind::Embedding => site::Kind::Embedding,
        PipelineKind::Training => site::Kind::Training,
    }
}

fn contact(address: &str) -> site::Contact {
    site::Contact { name: address.to_owned(), address: Some(address.to_owned()) }
}

/// Returns the pipeline that fills a port.
fn filled_by<'p>(product: &'p core::Product, port: &PortId) -> Option<&'p Pipeline> {
    product.pipelines.values().find(|pipeline| *pipeline.output() == port.port)
}

/// Instants that no calendar has become its beginning; a clock never yields one.
fn instant(at_ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at_ms).unwrap_or_default()
}

/// Returns a length of time in its two greatest units.
fn length(ms: i64) -> String {
    super::words::duration(instant(0), instant(ms.max(0)))
}
