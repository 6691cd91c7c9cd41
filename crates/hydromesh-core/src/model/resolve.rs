//! Names of other files looked up: ports, contracts, columns, and the graph that the reads make.

mod programs;

use std::collections::{BTreeMap, BTreeSet};

use super::load::{Draft, Findings, related};
use super::picks::misfit;
use super::read::{Feed, RawPort, humanise};
use super::{
    Available, BatchPipeline, BatchSchedule, Classification, Contract, EventSource, InputPort, InputSource,
    KeySource, LogicalType, Mesh, OutputPort, Partitioning, Pipeline, Product, QualityCheck, SqlText,
    TableFormat,
};
use crate::diag::{Diagnostic, Spot, codes};
use crate::ids::{PipelineName, PortId, PortName, ProductId};
use crate::spread::Spread;
use crate::{lineage, sql};

/// Resolves every draft; products without an error go into the mesh.
pub(super) fn resolve(
    mesh: &mut Mesh,
    drafts: &BTreeMap<ProductId, Draft>,
    findings: &mut Findings,
    spread: &impl Spread,
) {
    identities(drafts, findings);
    let ports: BTreeSet<PortId> = drafts.values().flat_map(output_ids).collect();
    let mut products: BTreeMap<ProductId, Product> = BTreeMap::new();
    let all: Vec<&Draft> = drafts.values().collect();
    let resolved = spread.map(&all, |draft| {
        let found = Findings::default();
        Resolver { mesh, draft, drafts, ports: &ports, before: findings, found }.product()
    });
    for (product, found) in resolved {
        findings.extend(found);
        products.insert(product.id.clone(), product);
    }
    cycles(&products, drafts, findings);
    withhold(mesh, products, drafts, findings);
}

fn output_ids(draft: &Draft) -> impl Iterator<Item = PortId> {
    let names = draft.raw.outputs.iter().filter_map(|port| PortName::new(port.name.as_str()).ok());
    names.map(|port| PortId { product: draft.id.clone(), port })
}

/// Most of its likes that a finding points at: of ten thousand products with one id each would else list all others.
const MOST_RELATED: usize = 5;

/// Two products with one identity: the same stated id, or an address that people, or some system, take for the other.
fn identities(drafts: &BTreeMap<ProductId, Draft>, findings: &mut Findings) {
    let mut folded: BTreeMap<String, Vec<&Draft>> = BTreeMap::new();
    let mut stated: BTreeMap<String, Vec<&Draft>> = BTreeMap::new();
    for draft in drafts.values() {
        folded.entry(looks_like(&draft.id.to_string())).or_default().push(draft);
        if let Some((id, _)) = &draft.raw.id {
            stated.entry(id.to_lowercase()).or_default().push(draft);
        }
    }
    let alike = folded.into_values().map(|twins| (twins, "an address that looks the same".to_owned()));
    let equal = stated.into_iter().map(|(id, twins)| (twins, format!("the id `{id}`")));
    for (twins, what) in alike.chain(equal).filter(|(twins, _)| twins.len() > 1) {
        let mut names: Vec<String> =
            twins.iter().take(MOST_RELATED).map(|twin| twin.id.to_string()).collect();
        if let Some(more) = twins.len().checked_sub(MOST_RELATED).filter(|more| *more > 0) {
            names.push(format!("{more} more"));
        }
        for twin in &twins {
            let at = twin.raw.id.as_ref().map_or(Spot::FILE, |(_, at)| *at);
            let message = format!("{} share {what}", names.join(" and "));
            let mut diagnostic = Diagnostic::new(codes::DUPLICATE_PRODUCT, twin.file.clone(), at, message);
            for other in twins.iter().filter(|other| other.id != twin.id).take(MOST_RELATED) {
                let at = other.raw.id.as_ref().map_or(Spot::FILE, |(_, at)| *at);
                diagnostic.related.push(related(&other.file, at, format!("{} is here", other.id)));
            }
            findings.of(&twin.id, diagnostic);
        }
    }
}

/// Returns a form that addresses share which a reader would not tell apart: `-` and `_`, `0` and `o`, `1` and `l`. Other
/// letters than `a` to `z` are in no name.
fn looks_like(address: &str) -> String {
    let same = |c| match c {
        '-' => '_',
        '0' => 'o',
        '1' => 'l',
        other => other,
    };
    address.chars().map(same).collect()
}

struct Resolver<'a> {
    mesh: &'a Mesh,
    draft: &'a Draft,
    drafts: &'a BTreeMap<ProductId, Draft>,
    ports: &'a BTreeSet<PortId>,
    /// What is wrong with the files alone.
    before: &'a Findings,
    found: Findings,
}

impl Resolver<'_> {
    fn tell(&mut self, diagnostic: Diagnostic) {
        self.found.of(&self.draft.id, diagnostic);
    }

    fn product(mut self) -> (Product, Findings) {
        let (draft, mesh) = (self.draft, self.mesh);
        let raw = &draft.raw;
        for (stated, wanted, what) in
            [(&raw.name, draft.id.name.as_str(), "name"), (&raw.domain, draft.id.domain.as_str(), "domain")]
        {
            if let Some((text, at)) = stated
                && text != wanted
            {
                let message = format!("the product's {what} is `{text}`, its folder says `{wanted}`");
                self.tell(Diagnostic::new(codes::NAME_DIFFERS, draft.file.clone(), *at, message));
            }
        }
        let domain = mesh.domains.get(&draft.id.domain);
        let mut owners = raw.owners.clone();
        if owners.is_empty() {
            owners = domain.map(|domain| domain.owners.clone()).unwrap_or_default();
        }
        if owners.is_empty() {
            let message = format!("nobody with a mail address owns {}", draft.id);
            self.tell(Diagnostic::new(codes::NO_OWNER, draft.file.clone(), Spot::FILE, message));
        }
        let inputs = self.inputs();
        let outputs = self.outputs();
        let pipelines = self.pipelines(&inputs, &outputs);
        let product = Product {
            id: draft.id.clone(),
            title: raw.title.clone().unwrap_or_else(|| humanise(draft.id.name.as_str())),
            description: raw.description.clone(),
            version: if raw.version.is_empty() { "1.0.0".to_owned() } else { raw.version.clone() },
            status: if raw.status.is_empty() { "active".to_owned() } else { raw.status.clone() },
            tier: raw.tier.or(domain.map(|domain| domain.tier)).unwrap_or(3),
            owners,
            runbook: raw.runbook.clone(),
            inputs,
            outputs,
            pipelines,
            files: draft.files.clone(),
            folder: draft.folder.clone(),
            retire: raw.retire,
        };
        self.trainers(&product);
        (product, self.found)
    }

    fn port_name<T>(&mut self, port: &RawPort, taken: &BTreeMap<PortName, T>) -> Option<PortName> {
        match PortName::new(port.name.as_str()) {
            Ok(name) if taken.contains_key(&name) => {
                let message = format!("a port named `{name}` is already declared");
                self.tell(Diagnostic::new(codes::DUPLICATE_NAME, self.draft.file.clone(), port.at, message));
                None
            }
            Ok(name) => Some(name),
            Err(error) => {
                self.tell(Diagnostic::new(
                    codes::BAD_NAME,
                    self.draft.file.clone(),
                    port.at,
                    error.to_string(),
                ));
                None
            }
        }
    }

    fn inputs(&mut self) -> BTreeMap<PortName, InputPort> {
        let mut inputs = BTreeMap::new();
        for raw in &self.draft.raw.inputs {
            let Some(name) = self.port_name(raw, &inputs) else { continue };
            if let Some(source) = self.source(raw, &name) {
                inputs.insert(name.clone(), InputPort { name, source });
            }
        }
        inputs
    }

    fn source(&mut self, raw: &RawPort, name: &PortName) -> Option<InputSource> {
        let own = format!("{}.{name}", self.draft.id);
        let is_output = self.draft.raw.outputs.iter().any(|port| port.name == raw.name);
        let external = match &raw.contract_id {
            Some((id, _)) => *id == own && !is_output,
            None => raw.feed.is_some(),
        };
        if external {
            return self.external(raw, name);
        }
        let Some((id, at)) = &raw.contract_id else {
            let message = format!("input `{name}` names no `contractId`");
            self.tell(Diagnostic::new(codes::MISSING_KEY, self.draft.file.clone(), raw.at, message));
            return None;
        };
        if raw.feed.is_some() {
            let message = format!("input `{name}` reads `{id}` and so is not fed by files or a topic");
            self.tell(Diagnostic::new(codes::NO_SOURCE, self.draft.file.clone(), *at, message));
            return None;
        }
        let port = id.parse::<PortId>().ok().filter(|port| self.ports.contains(port));
        let Some(port) = port else {
            self.unknown_port(id, *at, &self.draft.file.clone());
            return None;
        };
        if let Some((wanted, at)) = &raw.version
            && let Some(upstream) =
                self.drafts.get(&port.product).and_then(|draft| draft.contracts.get(&port.port))
            && major(wanted) != major(&upstream.version)
        {
            let message = format!("input `{name}` wants version {wanted}, {port} is at {}", upstream.version);
            self.tell(Diagnostic::new(codes::VERSION_DIFFERS, self.draft.file.clone(), *at, message));
        }
        Some(InputSource::Port { port })
    }

    fn unknown_port(&mut self, id: &str, at: Spot, file: &str) {
        let names: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        let diagnostic = Diagnostic::new(codes::UNKNOWN_INPUT, file, at, format!("there is no port `{id}`"))
            .suggest(id, names.iter().map(String::as_str));
        self.tell(diagnostic);
    }

    fn external(&mut self, raw: &RawPort, name: &PortName) -> Option<InputSource> {
        let Some(feed) = &raw.feed else {
            let message = format!(
                "input `{name}` is external and says neither `hydromesh.files` nor `hydromesh.topic`"
            );
            self.tell(Diagnostic::new(codes::NO_SOURCE, self.draft.file.clone(), raw.at, message));
            return None;
        };
        let contract = self.contract(raw, name)?;
        Some(match feed {
            Feed::Files(glob) => InputSource::Files { glob: glob.clone(), contract },
            Feed::Topic(topic) => InputSource::Topic { topic: topic.clone(), contract },
        })
    }

    /// The contract beside the product; a missing file is told of, one that could not be read was already.
    fn contract(&mut self, raw: &RawPort, name: &PortName) -> Option<Contract> {
        let contract = self.draft.contracts.get(name).cloned();
        let path = format!("{}/{name}.odcs.yaml", self.draft.folder);
        if contract.is_none() && !self.draft.files.contains_key(&path) {
            let message = format!("port `{name}` has no contract `{name}.odcs.yaml`");
            self.tell(Diagnostic::new(codes::NO_CONTRACT, self.draft.file.clone(), raw.at, message));
        }
        contract
    }

    fn outputs(&mut self) -> BTreeMap<PortName, OutputPort> {
        let mut outputs = BTreeMap::new();
        for raw in &self.draft.raw.outputs {
            let Some(name) = self.port_name(raw, &outputs) else { continue };
            let own = format!("{}.{name}", self.draft.id);
            if let Some((stated, at)) = &raw.contract_id
                && *stated != own
            {
                let message = format!("output `{name}` names the contract `{stated}`; its own is `{own}`");
                self.tell(Diagnostic::new(codes::CONTRACT_ID, self.draft.file.clone(), *at, message));
            }
            let Some(contract) = self.contract(raw, &name) else { continue };
            self.measures(&contract, name.as_str());
            self.programs(&contract);
            if let Some((stated, at)) = &raw.version
                && *stated != contract.version
            {
                let message = format!("output `{name}` is at {stated}, its contract at {}", contract.version);
                self.tell(Diagnostic::new(codes::VERSION_DIFFERS, self.draft.file.clone(), *at, message));
            }
            for column in raw.access.lookup.iter().chain(&raw.access.search) {
                self.has_column(&contract, column, &self.draft.file.clone(), raw.access_at);
            }
            let format = raw.format.or_else(|| self.default_format()).unwrap_or(TableFormat::Delta);
            let description = raw.description.clone();
            outputs.insert(
                name.clone(),
                OutputPort { name, description, contract, format, access: raw.access.clone() },
            );
        }
        outputs
    }

    /// A quality rule's query is as harmless as a pipeline's, and reads its own object.
    fn measures(&mut self, contract: &Contract, object: &str) {
        for rule in &contract.quality {
            let QualityCheck::Sql(query) = &rule.check else { continue };
            for fault in sql::guard_measure(query, object) {
                let at = Spot::new(rule.line, 0);
                let message = format!("the quality rule `{}`: {}", rule.id, fault.message);
                let mut diagnostic = Diagnostic::new(fault.code, contract.file.clone(), at, message);
                if fault.code == codes::SQL_UNKNOWN_TABLE {
                    diagnostic.help = "a quality rule reads its own object, `{object}`, alone".to_owned();
                }
                self.tell(diagnostic);
            }
        }
    }

    /// The format that every environment agrees on; where they differ, the port must choose to be something else.
    fn default_format(&self) -> Option<TableFormat> {
        let mut formats = self.mesh.environments.values().map(|environment| environment.lake_format);
        let first = formats.next()?;
        formats.all(|format| format == first).then_some(first)
    }

    fn has_column(&mut self, contract: &Contract, column: &str, file: &str, at: Spot) {
        if contract.columns.iter().any(|it| it.name == column) {
            return;
        }
        let message = format!("the contract of {} has no column `{column}`", contract.id);
        let diagnostic = Diagnostic::new(codes::UNKNOWN_COLUMN, file, at, message)
            .suggest(column, contract.columns.iter().map(|it| it.name.as_str()));
        self.tell(diagnostic);
    }

    fn pipelines(
        &mut self,
        inputs: &BTreeMap<PortName, InputPort>,
        outputs: &BTreeMap<PortName, OutputPort>,
    ) -> BTreeMap<PipelineName, Pipeline> {
        let draft = self.draft;
        let mut pipelines: BTreeMap<PipelineName, Pipeline> = BTreeMap::new();
        let mut filled: BTreeMap<&PortName, Spot> = BTreeMap::new();
        for raw in &draft.pipelines {
            if let Some(output) = &raw.output
                && let Some(first) = filled.insert(output, raw.at)
            {
                let message = format!("a second pipeline fills port `{output}`");
                let mut diagnostic =
                    Diagnostic::new(codes::DUPLICATE_NAME, draft.pipeline_file.clone(), raw.at, message);
                diagnostic.related.push(related(&draft.pipeline_file, first, "the first is here"));
                self.tell(diagnostic);
            }
            let Some(pipeline) = &raw.pipeline else { continue };
            self.columns(pipeline, &raw.spots, inputs, outputs);
            self.pool(pipeline, &raw.spots);
            self.windows(pipeline, &raw.window_spots, inputs);
            self.queries(pipeline, inputs);
            if pipelines.contains_key(pipeline.name()) {
                let message = format!("a second pipeline is named `{}`", pipeline.name());
                self.tell(Diagnostic::new(
                    codes::DUPLICATE_NAME,
                    draft.pipeline_file.clone(),
                    raw.at,
                    message,
                ));
            }
            pipelines.insert(pipeline.name().clone(), pipeline.clone());
        }
        // Where pipeline.yaml or product.odps.yaml could not be read, idle ports are a consequence and not told.
        let unread = |file: &str| self.before.has_error_in(file) || self.found.has_error_in(file);
        if !unread(&draft.pipeline_file) && !unread(&draft.file) {
            for raw in &draft.raw.outputs {
                if !filled.keys().any(|port| port.as_str() == raw.name) {
                    let message = format!("no pipeline has `output: {}`", raw.name);
                    self.tell(Diagnostic::new(codes::IDLE_PORT, draft.file.clone(), raw.at, message));
                }
            }
        }
        pipelines
    }

    /// A pool that a pipeline names must be one of an environment; where another has none of that name, it does not limit there.
    fn pool(&mut self, pipeline: &Pipeline, spots: &BTreeMap<&'static str, Spot>) {
        let Some(pool) = pipeline.bounds().and_then(|bounds| bounds.pool.as_ref()) else { return };
        let environments = self.mesh.environments.values();
        let pools: BTreeSet<&String> = environments.flat_map(|it| it.limits.pools.keys()).collect();
        if pools.contains(pool) || self.before.has_error_in("mesh.yaml") {
            return;
        }
        let message =
            format!("no environment of mesh.yaml has a pool `{pool}` under `limits: {{pools: ..}}`");
        let at = spots.get("pool").copied().unwrap_or_default();
        let diagnostic = Diagnostic::new(codes::UNKNOWN_POOL, self.draft.pipeline_file.clone(), at, message)
            .suggest(pool, pools.into_iter().map(String::as_str));
        self.tell(diagnostic);
    }

    /// Partitions can be picked where there are some, and a window holds at least one of them.
    fn windows(
        &mut self,
        pipeline: &Pipeline,
        spots: &BTreeMap<PortName, Spot>,
        inputs: &BTreeMap<PortName, InputPort>,
    ) {
        let Pipeline::Batch(batch) = pipeline else { return };
        for (name, window) in &batch.inputs {
            let Some(input) = inputs.get(name) else { continue };
            if let Some((code, message)) = misfit(batch, window, &input.source, self.drafts) {
                let at = spots.get(name).copied().unwrap_or_default();
                self.tell(Diagnostic::new(code, self.draft.pipeline_file.clone(), at, message));
            }
        }
    }

    /// Columns that a pipeline names must be of the contract that they speak of.
    fn columns(
        &mut self,
        pipeline: &Pipeline,
        spots: &BTreeMap<&'static str, Spot>,
        inputs: &BTreeMap<PortName, InputPort>,
        outputs: &BTreeMap<PortName, OutputPort>,
    ) {
        let file = self.draft.pipeline_file.clone();
        let at = |label: &str| spots.get(label).copied().unwrap_or_default();
        let output = outputs.get(pipeline.output()).map(|port| port.contract.clone());
        let input = |resolver: &Self, port: &PortName| {
            inputs.get(port).and_then(|input| resolver.read_contract(input))
        };
        match pipeline {
            Pipeline::Batch(batch) => {
                if let (Some(BatchSchedule::By(_)), Some(contract)) = (&batch.schedule, &output)
                    && let Some(why) = misfit_of_promise(batch, contract)
                {
                    self.tell(Diagnostic::new(codes::BAD_SCHEDULE, file.clone(), at("schedule"), why));
                }
                if let (Some(partition), Some(contract)) = (&batch.partition, &output) {
                    self.has_column(contract, &partition.by, &file, at("partition.by"));
                    if let Some(why) = misfit_of_values(partition, contract) {
                        self.tell(Diagnostic::new(
                            codes::BAD_VALUES,
                            file.clone(),
                            at("partition.values"),
                            why,
                        ));
                    }
                }
                if let Some(partition) = &batch.partition
                    && let Some(source) = partition.source()
                    && let Some(port) = inputs.get(&source.input)
                {
                    let from = self.read_contract(port);
                    if let Some(from) = &from {
                        self.has_column(from, &source.column, &file, at("partition.from"));
                    }
                    if let Some(why) = misfit_of_keys(partition, source, port, from.as_ref(), output.as_ref())
                    {
                        self.tell(Diagnostic::new(codes::BAD_KEYS, file, at("partition.from"), why));
                    }
                }
            }
            Pipeline::Stream(stream) => {
                if let Some(contract) = input(self, &stream.source.port) {
                    self.event_columns(&stream.source, &contract, &at);
                }
            }
            Pipeline::Feature(feature) => {
                if let Some(contract) = input(self, &feature.source.port) {
                    self.event_columns(&feature.source, &contract, &at);
                }
                if let Some(contract) = &output {
                    self.has_column(contract, &feature.entity, &file, at("entity"));
                }
            }
            Pipeline::Embedding(embedding) => {
                if let Some(contract) = input(self, &embedding.port) {
                    self.has_column(&contract, &embedding.id, &file, at("source.id"));
                    self.has_column(&contract, &embedding.text, &file, at("source.text"));
                }
            }
            Pipeline::Training(training) => {
                for port in &training.features {
                    if !self.ports.contains(port) {
                        self.unknown_port(&port.to_string(), at("training_set.features"), &file);
                    }
                }
            }
        }
    }

    fn event_columns(&mut self, source: &EventSource, contract: &Contract, at: &dyn Fn(&str) -> Spot) {
        let file = self.draft.pipeline_file.clone();
        self.has_column(contract, &source.event_time, &file, at("source.event_time"));
        if let Some(column) = &source.event_id {
            self.has_column(contract, column, &file, at("source.event_id"));
        }
        if let Available::Column(column) = &source.available {
            self.has_column(contract, column, &file, at("source.available"));
        }
    }

    fn read_contract(&self, input: &InputPort) -> Option<Contract> {
        match &input.source {
            InputSource::Port { port } => self.drafts.get(&port.product)?.contracts.get(&port.port).cloned(),
            InputSource::Files { contract, .. } | InputSource::Topic { contract, .. } => {
                Some(contract.clone())
            }
        }
    }

    /// Every query is one harmless SELECT over what it may read.
    fn queries(&mut self, pipeline: &Pipeline, inputs: &BTreeMap<PortName, InputPort>) {
        // Declared inputs count even where they did not resolve: that has its own finding.
        let declared: Vec<&str> = self.draft.raw.inputs.iter().map(|port| port.name.as_str()).collect();
        let _ = inputs;
        let (sql, readable): (&SqlText, Vec<&str>) = match pipeline {
            Pipeline::Batch(batch) => (&batch.sql, declared),
            Pipeline::Training(training) => (&training.spine, declared),
            Pipeline::Stream(stream) => (&stream.sql, vec![stream.source.port.as_str()]),
            Pipeline::Feature(feature) => (&feature.select, vec![feature.source.port.as_str()]),
            Pipeline::Embedding(_) => return,
        };
        let faults = sql::diagnose(sql, readable);
        self.found.take(Some(&self.draft.id), faults);
    }
}

fn major(version: &str) -> &str {
    version.trim_start_matches('v').split('.').next().unwrap_or_default()
}

/// Tells of every circle once, at each of its products.
fn cycles(
    products: &BTreeMap<ProductId, Product>,
    drafts: &BTreeMap<ProductId, Draft>,
    findings: &mut Findings,
) {
    let edges: BTreeMap<ProductId, BTreeSet<ProductId>> =
        products.iter().map(|(id, product)| (id.clone(), lineage::upstream_of(product))).collect();
    for cycle in lineage::cycles(&edges) {
        let names: Vec<String> = cycle.iter().chain(cycle.first()).map(ToString::to_string).collect();
        let message = format!("products read each other in a circle: {}", names.join(" reads "));
        for (index, id) in cycle.iter().enumerate() {
            let (Some(draft), next) = (drafts.get(id), &cycle[(index + 1) % cycle.len()]) else { continue };
            let prefix = format!("{next}.");
            let port = draft.raw.inputs.iter().find_map(|port| {
                port.contract_id.as_ref().filter(|(text, _)| text.starts_with(&prefix)).map(|(_, at)| *at)
            });
            let at = port.unwrap_or_default();
            findings.of(id, Diagnostic::new(codes::CYCLE, draft.file.clone(), at, message.clone()));
        }
    }
}

/// Puts whole products into the mesh. A reader of a broken one stays while the port's contract could be read.
fn withhold(
    mesh: &mut Mesh,
    products: BTreeMap<ProductId, Product>,
    drafts: &BTreeMap<ProductId, Draft>,
    findings: &mut Findings,
) {
    let mut withheld = BTreeMap::new();
    for (id, product) in &products {
        for (name, port) in &product.outputs {
            if !findings.has_error_in(&port.contract.file) {
                withheld.insert(PortId { product: id.clone(), port: name.clone() }, port.clone());
            }
        }
    }
    for (id, product) in &products {
        let trained = product.pipelines.values().filter_map(|pipeline| match pipeline {
            Pipeline::Training(training) => Some(&training.features),
            _ => None,
        });
        for port in product.reads().chain(trained.flatten()) {
            if !withheld.contains_key(port)
                && let Some(draft) = drafts.get(id)
            {
                let text = port.to_string();
                let input = draft.raw.inputs.iter().filter_map(|input| input.contract_id.as_ref());
                let at = input.filter(|(id, _)| *id == text).map(|(_, at)| *at).next().unwrap_or_default();
                let message = format!("{id} cannot be checked: the contract of {port} is broken");
                let mut diagnostic = Diagnostic::new(codes::BROKEN_UPSTREAM, draft.file.clone(), at, message);
                if let Some(upstream) = drafts.get(&port.product) {
                    diagnostic.related.push(related(
                        &upstream.file,
                        Spot::FILE,
                        format!("{} is here", port.product),
                    ));
                }
                findings.of(id, diagnostic);
            }
        }
    }
    for (id, product) in products {
        if findings.is_broken(&id) {
            continue;
        }
        for port in product.outputs.keys() {
            withheld.remove(&PortId { product: id.clone(), port: port.clone() });
        }
        mesh.products.insert(id, product);
    }
    mesh.withheld = withheld;
}

/// Returns why an output cannot be cut by the values of its list, if it cannot; a column that is not there has its own finding.
fn misfit_of_values(partition: &Partitioning, contract: &Contract) -> Option<String> {
    let values = partition.values()?;
    let column = contract.columns.iter().find(|column| column.name == partition.by)?;
    match column.logical {
        LogicalType::String => None,
        LogicalType::Integer => {
            let plain =
                |value: &&String| value.parse::<i64>().is_ok_and(|number| number.to_string() == **value);
            let wrong = values.iter().find(|value| !plain(value))?;
            Some(format!("`{wrong}` is no whole number as the column `{}` holds them", column.name))
        }
        _ => Some(format!(
            "column `{}` is neither a string nor an integer, so that none of its values can be the key of a partition",
            column.name
        )),
    }
}

/// Returns why the values of an output cannot be looked for in a column of an input, if they cannot; a column that is not there
/// has its own finding.
fn misfit_of_keys(
    partition: &Partitioning,
    source: &KeySource,
    port: &InputPort,
    from: Option<&Contract>,
    output: Option<&Contract>,
) -> Option<String> {
    if let InputSource::Topic { topic, .. } = &port.source {
        return Some(format!(
            "`{}` is the topic {topic}, in which nothing can be looked for: read the table of a stream pipeline that archives it",
            source.input
        ));
    }
    let column = |contract: Option<&Contract>, name: &str| {
        contract?.columns.iter().find(|column| column.name == name).cloned()
    };
    let (theirs, own) = (column(from, &source.column)?, column(output, &partition.by));
    let told = [Some(&theirs), own.as_ref()].into_iter().flatten().filter_map(|it| it.classification).max();
    if told.is_some_and(|told| told >= Classification::Confidential) {
        return Some(format!(
            "the values of `{source}` are not for everybody, and would stand in the ledger, in messages and on the status site as names of partitions"
        ));
    }
    let theirs = theirs.logical;
    if !matches!(theirs, LogicalType::String | LogicalType::Integer) {
        return Some(format!(
            "`{source}` is neither a string nor an integer, so that none of its values can be the key of a partition"
        ));
    }
    // Another type of its own has its own finding.
    let own = own?.logical;
    let own = matches!(own, LogicalType::String | LogicalType::Integer).then_some(own)?;
    (own != theirs).then(|| {
        let kind =
            |logical: &LogicalType| if *logical == LogicalType::String { "a string" } else { "an integer" };
        format!("`{source}` is {}, and the column `{}` is {}", kind(&theirs), partition.by, kind(&own))
    })
}

/// Returns why `schedule: promise` has no meaning for a pipeline, if it has none.
fn misfit_of_promise(batch: &BatchPipeline, contract: &Contract) -> Option<&'static str> {
    if batch.partition.as_ref().is_some_and(|cut| cut.calendar().is_some()) {
        return Some(
            "a partition is computed once, when it has ended, so that waiting saves nothing: leave `schedule` out",
        );
    }
    contract.data_age().is_none().then_some(
        "`schedule: promise` begins as late as the output's promise allows, and its contract promises no age of data: add `latency` to `slaProperties`",
    )
}
