//! A repository's files to the mesh and everything that is wrong with it.
//!
//! Products fail alone: what is wrong with one is told, the product is left out, and the others go on.

use std::collections::{BTreeMap, BTreeSet};

use super::read::{self, Around, RawPipeline, RawPort, RawProduct, SqlFile};
use super::{Contract, Domain, Mesh};
use crate::diag::{self, Diagnostic, Related, Severity, Spot, codes};
use crate::ids::{DomainName, PortName, ProductId, ProductName};
use crate::spread::{InOrder, Spread};
use crate::syntax::{self, Node, Sink};

/// One file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its text, or why it is none.
    pub text: Result<String, String>,
    /// Its git blob id, or a hash of its content.
    pub oid: String,
}

/// What a repository holds.
#[derive(Debug)]
#[must_use]
pub struct LoadResult {
    /// Everything that resolved.
    pub mesh: Mesh,
    /// What is wrong, by file and line.
    pub findings: Vec<Diagnostic>,
    /// Products that are left out, each with the indexes of the findings that say why.
    pub broken: BTreeMap<ProductId, Vec<usize>>,
}

/// Returns the mesh that the files describe.
pub fn load(files: &BTreeMap<String, Loaded>) -> LoadResult {
    load_with(files, Vec::new(), &InOrder)
}

/// Returns the mesh that the files describe; `given` is what the reader of the repository found already (symbolic
/// links, submodules). An error below a product's folder breaks that product.
pub fn load_with(
    files: &BTreeMap<String, Loaded>,
    given: Vec<Diagnostic>,
    spread: &impl Spread,
) -> LoadResult {
    let mut findings = Findings::default();
    let mut mesh = mesh_file(files, &mut findings);
    let mut products: Vec<(DomainName, String)> = Vec::new();
    for (domain, folders) in folders(files) {
        let Some(domain) = domain_of(files, &domain, &folders, &mut mesh, &mut findings) else { continue };
        products.extend(folders.into_iter().map(|folder| (domain.clone(), folder)));
    }
    let mut drafts: BTreeMap<ProductId, Draft> = BTreeMap::new();
    for (draft, found) in spread.map(&products, |(domain, folder)| draft(files, domain, folder)) {
        findings.extend(found);
        drafts.extend(draft.map(|draft| (draft.id.clone(), draft)));
    }
    for diagnostic in given {
        let owners = drafts
            .values()
            .filter(|draft| draft.holds(&diagnostic.file))
            .map(|draft| draft.id.clone())
            .collect();
        findings.add(diagnostic, owners);
    }
    super::resolve::resolve(&mut mesh, &drafts, &mut findings, spread);
    unknown_domains(&mesh, &mut findings);
    let (findings, broken) = findings.finish();
    LoadResult { mesh, findings, broken }
}

/// Findings, each with the products that it breaks when it is an error.
#[derive(Default)]
pub(super) struct Findings {
    all: Vec<(Diagnostic, Vec<ProductId>)>,
    broken: BTreeSet<ProductId>,
}

impl Findings {
    pub(super) fn add(&mut self, diagnostic: Diagnostic, owners: Vec<ProductId>) {
        if diagnostic.severity == Severity::Error {
            self.broken.extend(owners.iter().cloned());
        }
        self.all.push((diagnostic, owners));
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.all.extend(other.all);
        self.broken.extend(other.broken);
    }

    pub(super) fn of(&mut self, product: &ProductId, diagnostic: Diagnostic) {
        self.add(diagnostic, vec![product.clone()]);
    }

    pub(super) fn take(&mut self, product: Option<&ProductId>, found: Vec<Diagnostic>) {
        for diagnostic in found {
            self.add(diagnostic, product.into_iter().cloned().collect());
        }
    }

    pub(super) fn is_broken(&self, product: &ProductId) -> bool {
        self.broken.contains(product)
    }

    pub(super) fn has_error_in(&self, file: &str) -> bool {
        self.all.iter().any(|(it, _)| it.severity == Severity::Error && it.file == file)
    }

    fn finish(self) -> (Vec<Diagnostic>, BTreeMap<ProductId, Vec<usize>>) {
        let mut findings: Vec<Diagnostic> = self.all.iter().map(|(it, _)| it.clone()).collect();
        diag::sort(&mut findings);
        let mut broken: BTreeMap<ProductId, Vec<usize>> =
            self.broken.into_iter().map(|id| (id, Vec::new())).collect();
        for (diagnostic, owners) in &self.all {
            if diagnostic.severity != Severity::Error {
                continue;
            }
            let Some(index) = findings.iter().position(|it| it == diagnostic) else { continue };
            for owner in owners {
                broken.entry(owner.clone()).or_default().push(index);
            }
        }
        for indexes in broken.values_mut() {
            indexes.sort_unstable();
            indexes.dedup();
        }
        (findings, broken)
    }
}

/// A product as its own files describe it.
pub(super) struct Draft {
    pub(super) id: ProductId,
    pub(super) folder: String,
    pub(super) file: String,
    pub(super) raw: RawProduct,
    /// By port; a contract that could not be read is absent.
    pub(super) contracts: BTreeMap<PortName, Contract>,
    pub(super) pipeline_file: String,
    pub(super) pipelines: Vec<RawPipeline>,
    pub(super) files: BTreeMap<String, String>,
}

impl Draft {
    fn holds(&self, path: &str) -> bool {
        path.strip_prefix(&self.folder).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Parses a file into documents; what is wrong goes to the sink.
fn documents(files: &BTreeMap<String, Loaded>, sink: &Sink) -> Vec<Node> {
    match files.get(sink.file()).map(|loaded| &loaded.text) {
        None => Vec::new(),
        Some(Err(why)) => {
            let code = if why.to_lowercase().contains("utf-8") { codes::NOT_UTF8 } else { codes::UNREADABLE };
            sink.tell(code, Spot::FILE, format!("the file cannot be read: {why}"));
            Vec::new()
        }
        Some(Ok(text)) => {
            let (documents, found) = syntax::parse(sink.file(), text);
            for diagnostic in found {
                sink.push(diagnostic);
            }
            documents
        }
    }
}

/// The only document of a file.
fn document(files: &BTreeMap<String, Loaded>, sink: &Sink) -> Option<Node> {
    let mut documents = documents(files, sink);
    if let Some(second) = documents.get(1) {
        sink.tell(codes::YAML_SYNTAX, second.at, "this file holds one document; a second starts here");
    }
    (!documents.is_empty()).then(|| documents.swap_remove(0))
}

fn mesh_file(files: &BTreeMap<String, Loaded>, findings: &mut Findings) -> Mesh {
    let sink = Sink::new("mesh.yaml");
    let mut mesh = Mesh::default();
    if files.contains_key("mesh.yaml") {
        if let Some(document) = document(files, &sink) {
            mesh = read::mesh(&document, &sink);
        }
    } else {
        sink.tell(codes::NO_MESH, Spot::FILE, "there is no mesh.yaml at the root of the repository");
    }
    findings.take(None, sink.into_found());
    mesh
}

/// Folders of products by folder of the domain.
fn folders(files: &BTreeMap<String, Loaded>) -> BTreeMap<String, BTreeSet<String>> {
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files.keys() {
        let mut parts = path.split('/');
        if parts.next() != Some("domains") {
            continue;
        }
        let (Some(domain), Some(second)) = (parts.next(), parts.next()) else { continue };
        let products = folders.entry(domain.to_owned()).or_default();
        if let (Some(third), None) = (parts.next(), parts.next())
            && (third == "product.odps.yaml" || is_part(third))
        {
            products.insert(second.to_owned());
        }
    }
    folders
}

/// A file that only a product can mean.
fn is_part(name: &str) -> bool {
    name == "pipeline.yaml" || name.ends_with(".odcs.yaml") || has_extension(name, "sql")
}

fn has_extension(name: &str, wanted: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| extension.eq_ignore_ascii_case(wanted))
}

fn domain_of(
    files: &BTreeMap<String, Loaded>,
    folder: &str,
    products: &BTreeSet<String>,
    mesh: &mut Mesh,
    findings: &mut Findings,
) -> Option<DomainName> {
    let path = format!("domains/{folder}/domain.yaml");
    let sink = Sink::new(path.clone());
    let name = match DomainName::new(folder) {
        Ok(name) => name,
        Err(error) => {
            sink.tell(codes::BAD_NAME, Spot::FILE, format!("the folder domains/{folder}: {error}"));
            findings.take(None, sink.into_found());
            return None;
        }
    };
    let mut domain: Domain = read::implied_domain(&name);
    if files.contains_key(&path) {
        if let Some(document) = document(files, &sink) {
            domain = read::domain(&document, &sink, &name);
        }
    } else if !products.is_empty() {
        sink.tell(codes::NO_DOMAIN, Spot::FILE, format!("domain `{name}` has no domain.yaml"));
    }
    findings.take(None, sink.into_found());
    mesh.domains.insert(name.clone(), domain);
    Some(name)
}

/// Reads a product's own files, and tells what is wrong with them.
fn draft(files: &BTreeMap<String, Loaded>, domain: &DomainName, name: &str) -> (Option<Draft>, Findings) {
    let mut findings = Findings::default();
    let folder = format!("domains/{domain}/{name}");
    let file = format!("{folder}/product.odps.yaml");
    let sink = Sink::new(file.clone());
    let id = match ProductName::new(name) {
        Ok(name) => ProductId { domain: domain.clone(), name },
        Err(error) => {
            sink.tell(codes::BAD_NAME, Spot::FILE, format!("the folder {folder}: {error}"));
            findings.take(None, sink.into_found());
            return (None, findings);
        }
    };
    let prefix = format!("{folder}/");
    let below = files.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
    let held: BTreeMap<String, String> =
        below.map(|(path, loaded)| (path.clone(), loaded.oid.clone())).collect();
    let mut raw = RawProduct::default();
    if files.contains_key(&file) {
        if let Some(document) = document(files, &sink) {
            raw = read::product(&document, &sink);
        }
    } else {
        let message = format!("the folder {folder} holds parts of a product but no product.odps.yaml");
        sink.tell(codes::NO_PRODUCT_FILE, Spot::FILE, message);
    }
    findings.take(Some(&id), sink.into_found());
    let mut used = BTreeSet::new();
    let ports = |ports: &[RawPort]| -> Vec<PortName> {
        ports.iter().filter_map(|port| PortName::new(port.name.as_str()).ok()).collect()
    };
    let (inputs, outputs) = (ports(&raw.inputs), ports(&raw.outputs));
    let contracts = contracts(files, &id, &folder, &inputs, &outputs, &mut used, &mut findings);
    let (pipeline_file, pipelines) =
        pipelines(files, &id, &folder, &inputs, &outputs, &mut used, &mut findings);
    // A file that nothing refers to is only told of where the product itself could be read.
    if !findings.is_broken(&id) {
        for path in held.keys() {
            let name = path.strip_prefix(&prefix).unwrap_or(path);
            if !name.contains('/') && name != "pipeline.yaml" && is_part(name) && !used.contains(path) {
                let message = format!("nothing in {id} refers to `{name}`");
                findings.of(&id, Diagnostic::new(codes::UNUSED_FILE, path.clone(), Spot::FILE, message));
            }
        }
    }
    (Some(Draft { id, folder, file, raw, contracts, pipeline_file, pipelines, files: held }), findings)
}

fn contracts(
    files: &BTreeMap<String, Loaded>,
    id: &ProductId,
    folder: &str,
    inputs: &[PortName],
    outputs: &[PortName],
    used: &mut BTreeSet<String>,
    findings: &mut Findings,
) -> BTreeMap<PortName, Contract> {
    let mut contracts = BTreeMap::new();
    for port in outputs.iter().chain(inputs) {
        let path = format!("{folder}/{port}.odcs.yaml");
        if !files.contains_key(&path) || !used.insert(path.clone()) {
            continue;
        }
        let sink = Sink::new(path);
        let address = format!("{id}.{port}");
        if let Some(document) = document(files, &sink)
            && let Some(contract) = read::contract(&document, &sink, Some(&address))
        {
            contracts.insert(port.clone(), contract);
        }
        findings.take(Some(id), sink.into_found());
    }
    contracts
}

fn pipelines(
    files: &BTreeMap<String, Loaded>,
    id: &ProductId,
    folder: &str,
    inputs: &[PortName],
    outputs: &[PortName],
    used: &mut BTreeSet<String>,
    findings: &mut Findings,
) -> (String, Vec<RawPipeline>) {
    let file = format!("{folder}/pipeline.yaml");
    let sink = Sink::new(file.clone());
    let asked = std::cell::RefCell::new(BTreeSet::new());
    let unreadable = std::cell::RefCell::new(Vec::new());
    let sql = |name: &str| -> SqlFile {
        let path = format!("{folder}/{name}");
        match files.get(&path).map(|loaded| &loaded.text) {
            Some(Ok(text)) => {
                asked.borrow_mut().insert(path.clone());
                SqlFile::Text(path, text.clone())
            }
            Some(Err(why)) => {
                let code =
                    if why.to_lowercase().contains("utf-8") { codes::NOT_UTF8 } else { codes::UNREADABLE };
                let message = format!("the file cannot be read: {why}");
                unreadable.borrow_mut().push(Diagnostic::new(code, path.clone(), Spot::FILE, message));
                asked.borrow_mut().insert(path);
                SqlFile::Unreadable
            }
            None => {
                let prefix = format!("{folder}/");
                let there = files
                    .range(prefix.clone()..)
                    .take_while(|(path, _)| path.starts_with(&prefix))
                    .filter_map(|(path, _)| path.strip_prefix(&prefix))
                    .filter(|name| has_extension(name, "sql"))
                    .map(str::to_owned)
                    .collect();
                SqlFile::Missing(there)
            }
        }
    };
    let around = Around { inputs, outputs, sql: &sql };
    let pipelines: Vec<RawPipeline> =
        documents(files, &sink).iter().map(|document| read::pipeline(document, &sink, &around)).collect();
    findings.take(Some(id), sink.into_found());
    findings.take(Some(id), unreadable.into_inner());
    used.extend(asked.into_inner());
    (file, pipelines)
}

/// Routes and permissions that name a domain which is not there have no effect, and their author should know.
fn unknown_domains(mesh: &Mesh, findings: &mut Findings) {
    let routed = mesh.routes.iter().filter_map(|route| route.domain.as_ref());
    let allowed = mesh
        .environments
        .values()
        .flat_map(|environment| environment.allow_commands.iter().chain(&environment.allow_network));
    let unknown: BTreeSet<&DomainName> =
        routed.chain(allowed).filter(|name| !mesh.domains.contains_key(name)).collect();
    for name in unknown {
        let message = format!("mesh.yaml names the domain `{name}`, which does not exist");
        let diagnostic = Diagnostic::new(codes::NO_DOMAIN, "mesh.yaml", Spot::FILE, message)
            .suggest(name.as_str(), mesh.domains.keys().map(DomainName::as_str));
        findings.add(diagnostic, Vec::new());
    }
}

/// Returns a related place of a finding.
pub(super) fn related(file: &str, at: Spot, message: impl Into<String>) -> Related {
    Related { file: file.to_owned(), line: at.line, column: at.column, message: message.into() }
}
