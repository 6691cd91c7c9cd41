//! From a snapshot of the repository to what it asks for: load, describe every query, check, fingerprint.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::check::{ShapeResults, SqlProblem, broken_by, check_shapes, query_of};
use hydromesh_core::diag::{Code, Diagnostic, Severity, Spot, codes};
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::model::{self, Environment, Loaded, Mesh, Product};
use hydromesh_core::plan::{Desired, PortPrint, dependency_order, print_mesh};
use hydromesh_core::spread::Spread as _;
use hydromesh_core::trust::Scope;
use hydromesh_core::waiver::{Waiver, holds_waivers, read_waivers};

use crate::cores::AllCores;
use crate::engine::{Describer, SqlProblemKind, arrow_schema};
use crate::repo::{FileEntry, Reason, RepoError, RepoSnapshot};

/// Texts that are read whole; anything else is data, known by its blob id alone.
const TEXTS: [&str; 4] = ["yaml", "yml", "sql", "rego"];
/// What is told of a path that was left out of the snapshot.
const REJECTED: [Code; 3] = [codes::SYMLINK, codes::SUBMODULE, codes::UNREADABLE];
/// The largest text: a manifest or a query beyond it is a mistake or an attack.
pub(super) const MOST_TEXT_BYTES: u64 = 1 << 20;

/// What a commit asks for, and everything that is wrong with it.
#[derive(Debug, Default)]
pub struct Reading {
    /// What it asks for. Products that do not check are left out and listed.
    pub desired: Desired,
    /// What is wrong, by file and line.
    pub findings: Vec<Diagnostic>,
    /// The mesh's own rules: path and text.
    pub policies: Vec<(String, String)>,
    /// Waivers of rules.
    pub waivers: Vec<Waiver>,
    /// There is a mesh at all: without one nothing can be planned.
    pub readable: bool,
}

impl Reading {
    /// Returns whether any finding is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Reads a snapshot. `deployed` are the fingerprints of what runs, for products that do not check.
#[must_use]
pub fn read(snapshot: &RepoSnapshot, commit: &str, deployed: &BTreeMap<PortId, PortPrint>) -> Reading {
    read_without(snapshot, commit, deployed, Vec::new())
}

/// Reads the environments of a snapshot, and nothing else of it.
#[must_use]
pub fn environments(snapshot: &RepoSnapshot) -> BTreeMap<String, Environment> {
    const PATH: &str = "mesh.yaml";
    let entry = snapshot.files.get(PATH);
    let loaded = entry.map(|entry| Loaded { text: text(snapshot, PATH, entry), oid: entry.oid.clone() });
    let files = loaded.into_iter().map(|loaded| (PATH.to_owned(), loaded)).collect();
    model::load(&files).mesh.environments
}

/// Reads a snapshot of which parts are refused, each with why. What holds for more than one product must stand in it as it counts.
#[must_use]
pub fn read_without(
    snapshot: &RepoSnapshot,
    commit: &str,
    deployed: &BTreeMap<PortId, PortPrint>,
    refused: Vec<(Scope, Diagnostic)>,
) -> Reading {
    let mut given: Vec<Diagnostic> = snapshot
        .rejected
        .iter()
        .map(|rejected| {
            let code = match rejected.reason {
                Reason::Symlink => codes::SYMLINK,
                Reason::Submodule => codes::SUBMODULE,
                _ => codes::UNREADABLE,
            };
            Diagnostic::new(code, rejected.path.clone(), Spot::FILE, rejected.reason.to_string())
        })
        .collect();
    let listed: Vec<(&String, &FileEntry)> = snapshot.files.iter().collect();
    let texts = AllCores.map(&listed, |(path, entry)| text(snapshot, path, entry));
    let mut files = BTreeMap::new();
    let (mut policies, mut waiving) = (Vec::new(), Vec::new());
    for ((path, entry), text) in listed.into_iter().zip(texts) {
        if text.is_err() && entry.size > MOST_TEXT_BYTES {
            let message = "the file is larger than 1 MiB";
            given.push(Diagnostic::new(codes::YAML_LIMIT, path.clone(), Spot::FILE, message));
        }
        if let (true, Ok(text)) = (is_policy(path), &text) {
            policies.push((path.clone(), text.clone()));
        }
        if let (true, Ok(text)) = (holds_waivers(path), &text) {
            waiving.push((path.clone(), text.clone()));
        }
        files.insert(path.clone(), Loaded { text, oid: entry.oid.clone() });
    }
    let readable = files.contains_key("mesh.yaml");
    let loaded = model::load_with(&files, given, &AllCores);
    let (mut mesh, mut findings) = (loaded.mesh, loaded.findings);
    let mut broken: BTreeMap<ProductId, Vec<Diagnostic>> = loaded
        .broken
        .into_iter()
        .map(|(id, at)| (id, at.into_iter().filter_map(|index| findings.get(index).cloned()).collect()))
        .collect();
    let results = shapes(&mesh);
    let unfit = check_shapes(&mesh, &results);
    for (id, at) in broken_by(&mesh, &unfit) {
        let why = at.into_iter().filter_map(|index| unfit.get(index).cloned()).collect();
        leave_out(&mut mesh, &id);
        broken.insert(id, why);
    }
    findings.extend(unfit);
    // What cannot be read is not known to be gone: what is deployed from there stays, and says so.
    let unknown = findings.iter().filter(|it| REJECTED.contains(&it.code)).cloned().collect::<Vec<_>>();
    for why in unknown {
        let there = deployed.keys().map(|port| &port.product).filter(|id| lies_in(id, &why.file));
        for id in there.cloned().collect::<BTreeSet<ProductId>>() {
            if !mesh.products.contains_key(&id) && !broken.contains_key(&id) {
                broken.insert(id, vec![why.clone()]);
            }
        }
    }
    for (scope, why) in refused {
        for id in refused_by(&scope, &mesh, &broken, deployed) {
            leave_out(&mut mesh, &id);
            // First, because it is the reason whatever else is wrong.
            broken.entry(id).or_default().insert(0, why.clone());
        }
        findings.push(why);
    }
    let (waivers, wrong) = read_waivers(waiving.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    findings.extend(wrong);
    hydromesh_core::diag::sort(&mut findings);
    let shapes = results
        .into_iter()
        .filter(|((id, _), _)| mesh.products.contains_key(id))
        .filter_map(|(key, shape)| Some((key, shape.ok()?)))
        .collect();
    let order = dependency_order(mesh.products.values());
    let prints = print_mesh(&mesh, &order, &shapes, deployed, &AllCores);
    let desired = Desired { commit: commit.to_owned(), mesh, shapes, prints, broken };
    Reading { desired, findings, policies, waivers, readable }
}

/// What a mesh itself says of what is allowed in it.
#[derive(Debug, Clone, Default)]
pub struct OwnRules {
    /// Its rules: path and text.
    pub policies: Vec<(String, String)>,
    /// Its waivers.
    pub waivers: Vec<Waiver>,
}

/// Reads the rules and waivers of a snapshot, and nothing else of it.
///
/// # Errors
/// When one of them cannot be read. What is too large or no text is told by whoever reads all of it, and counts for nothing.
pub fn own_rules(snapshot: &RepoSnapshot) -> Result<OwnRules, RepoError> {
    let (mut policies, mut waiving) = (Vec::new(), Vec::new());
    for (path, entry) in &snapshot.files {
        let of_rules = is_policy(path);
        if entry.size > MOST_TEXT_BYTES || !(of_rules || holds_waivers(path)) {
            continue;
        }
        if let Ok(text) = String::from_utf8(snapshot.read(path)?) {
            if of_rules { &mut policies } else { &mut waiving }.push((path.clone(), text));
        }
    }
    let (waivers, _) = read_waivers(waiving.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    Ok(OwnRules { policies, waivers })
}

/// Returns a file's text, which is empty for data, or why it has none.
fn text(snapshot: &RepoSnapshot, path: &str, entry: &FileEntry) -> Result<String, String> {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    if !TEXTS.contains(&extension) {
        return Ok(String::new());
    }
    if entry.size > MOST_TEXT_BYTES {
        return Err("larger than 1 MiB".to_owned());
    }
    let bytes = snapshot.read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.utf8_error().to_string())
}

/// A mesh's own rules lie in `policies/` and in each domain's `policies/`.
fn is_policy(path: &str) -> bool {
    let rego = path.rsplit_once('.').is_some_and(|(_, extension)| extension == "rego");
    let parts: Vec<&str> = path.split('/').collect();
    rego && (parts.first() == Some(&"policies")
        || (parts.first() == Some(&"domains") && parts.get(2) == Some(&"policies")))
}

/// Returns whether a product's folder is a path, or lies in it.
fn lies_in(id: &ProductId, path: &str) -> bool {
    let folder = format!("domains/{}/{}", id.domain, id.name);
    folder.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns the products that stay as they are when a part of the mesh is refused; also those that it takes away or brings.
fn refused_by(
    scope: &Scope,
    mesh: &Mesh,
    broken: &BTreeMap<ProductId, Vec<Diagnostic>>,
    deployed: &BTreeMap<PortId, PortPrint>,
) -> BTreeSet<ProductId> {
    match scope {
        Scope::Product(id) => BTreeSet::from([id.clone()]),
        Scope::Domain(domain) => {
            let known = mesh.products.keys().chain(broken.keys());
            known
                .chain(deployed.keys().map(|port| &port.product))
                .filter(|id| id.domain == *domain)
                .cloned()
                .collect()
        }
        Scope::Mesh | Scope::Nothing => BTreeSet::new(),
    }
}

/// Takes a product out of those that may advance; its contracts stay known to its readers.
fn leave_out(mesh: &mut Mesh, id: &ProductId) {
    if let Some(product) = mesh.products.remove(id) {
        for (name, output) in product.outputs.clone() {
            mesh.withheld.insert(product.port(&name), output);
        }
    }
}

/// Describes every query of a mesh against the contracts of its inputs, on all cores.
#[must_use]
pub fn shapes(mesh: &Mesh) -> ShapeResults {
    let products: Vec<&Product> = mesh.products.values().collect();
    // A few shares per core, so that none waits long for the last; not one per product, because each makes a session.
    let share = products.len().div_ceil(4 * AllCores::count()).max(16);
    let shares: Vec<&[&Product]> = products.chunks(share).collect();
    AllCores.map(&shares, |share| shapes_of(mesh, share)).into_iter().flatten().collect()
}

/// Describes the queries of some products.
pub(super) fn shapes_of(mesh: &Mesh, products: &[&Product]) -> ShapeResults {
    let describer = Describer::new();
    let mut results = ShapeResults::new();
    for product in products {
        let inputs = input_schemas(mesh, product);
        for pipeline in product.pipelines.values() {
            let Some(query) = query_of(pipeline) else { continue };
            let shape = describer.describe(&query.text, &inputs).map_err(|problem| SqlProblem {
                message: match problem.kind {
                    // The words by which `check` knows that a column is missing.
                    SqlProblemKind::MissingColumn { name, .. } => format!("No field named {name}."),
                    _ => problem.message,
                },
                line: problem.line.unwrap_or(0),
                column: problem.column.unwrap_or(0),
            });
            results.insert((product.id.clone(), pipeline.name().clone()), shape);
        }
    }
    results
}

fn input_schemas(mesh: &Mesh, product: &Product) -> BTreeMap<String, arrow::datatypes::SchemaRef> {
    product
        .inputs
        .values()
        .filter_map(|input| {
            let contract = mesh.input_contract(input)?;
            Some((input.name.as_str().to_owned(), arrow_schema(&contract.columns)))
        })
        .collect()
}
