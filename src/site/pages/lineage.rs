//! Pictures of who reads whom, each with the table that says the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tera::Context;

use super::super::layout::MAX_NODES;
use super::super::mesh::{DomainView, Mesh};
use super::super::model::{Episode, Product, Status};
use super::super::picture::{self, Arrow, Node, Role};
use super::super::{SiteError, path, words};
use super::Press;

/// Most boxes around a product when two hops are shown; beyond, one hop.
const TWO_HOP_NODES: usize = 40;
/// Most neighbours of a product on one side; the rest become stubs per domain.
const ONE_HOP_SIDE: usize = 30;

/// A picture and its table.
#[derive(Serialize)]
pub struct Picture {
    /// Empty if there is nothing to draw.
    picture_svg: String,
    relations: Vec<Relation>,
    caption: String,
}

#[derive(Serialize)]
struct Relation {
    from: End,
    to: End,
    ports: String,
}

#[derive(Serialize)]
struct End {
    title: String,
    sub: String,
    page: String,
    status: Option<Status>,
    word: &'static str,
}

/// Boxes and arrows being gathered, each once.
#[derive(Default)]
struct Sketch {
    nodes: Vec<Node>,
    index: BTreeMap<String, usize>,
    arrows: BTreeMap<(usize, usize), (usize, BTreeSet<String>)>,
}

impl Sketch {
    fn product(&mut self, product: &Product, role: Role) -> usize {
        self.node(&product.id, || Node {
            label: product.title.clone(),
            sub: product.id.clone(),
            status: Some(product.status),
            page: path::product(&product.id),
            role,
        })
    }

    fn node(&mut self, key: &str, make: impl FnOnce() -> Node) -> usize {
        if let Some(found) = self.index.get(key) {
            return *found;
        }
        self.nodes.push(make());
        self.index.insert(key.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn arrow(&mut self, from: usize, to: usize, ports: &[String]) {
        let entry = self.arrows.entry((from, to)).or_default();
        entry.0 += 1;
        entry.1.extend(ports.iter().cloned());
    }

    fn finish(self, root: &str, caption: String) -> Picture {
        let arrows: Vec<Arrow> = self
            .arrows
            .iter()
            .map(|((from, to), (weight, _))| Arrow { from: *from, to: *to, weight: *weight })
            .collect();
        let end = |n: &Node| End {
            title: n.label.clone(),
            sub: n.sub.clone(),
            page: n.page.clone(),
            status: n.status,
            word: n.status.map_or("", words::status),
        };
        let relations = self
            .arrows
            .iter()
            .map(|((from, to), (_, ports))| Relation {
                from: end(&self.nodes[*from]),
                to: end(&self.nodes[*to]),
                ports: ports.iter().cloned().collect::<Vec<_>>().join(", "),
            })
            .collect();
        let description = format!(
            "{} and {}, data flowing from left to right. The table below says the same.",
            words::counted(self.nodes.len(), "box", "boxes"),
            words::counted(arrows.len(), "arrow", "arrows"),
        );
        let picture_svg = if self.nodes.is_empty() {
            String::new()
        } else {
            picture::draw(root, &caption, &description, &self.nodes, &arrows)
        };
        Picture { picture_svg, relations, caption }
    }
}

/// Adds the lineage page: every product if they fit, else the map of domains.
pub fn render(mesh: &Mesh, press: &mut Press) -> Result<(), SiteError> {
    let page = path::LINEAGE.to_owned();
    let root = path::root_of(&page);
    let whole = mesh.products.len() <= MAX_NODES;
    let picture = if whole { of_mesh(mesh, &root) } else { of_domains(mesh, &root) };
    let mut context = Context::new();
    context.insert("whole", &whole);
    context.insert("picture", &picture);
    context.insert("columns", &mesh.model.lineage.columns.len());
    press.print(page, "lineage.html", "Lineage", context)
}

fn of_mesh(mesh: &Mesh, root: &str) -> Picture {
    let mut sketch = Sketch::default();
    let mut products = mesh.products.clone();
    products.sort_by_key(|p| p.id.as_str());
    for product in products {
        sketch.product(product, Role::Plain);
    }
    connect(mesh, &mut sketch);
    sketch.finish(root, format!("Lineage of {}", mesh.model.title))
}

/// Adds the arrows between the products that are in the sketch.
fn connect(mesh: &Mesh, sketch: &mut Sketch) {
    for edge in &mesh.model.lineage.products {
        if edge.from == edge.to {
            continue;
        }
        if let (Some(from), Some(to)) = (sketch.index.get(&edge.from), sketch.index.get(&edge.to)) {
            sketch.arrow(*from, *to, &edge.ports);
        }
    }
}

fn of_domains(mesh: &Mesh, root: &str) -> Picture {
    let mut sketch = Sketch::default();
    let mut domains: Vec<&DomainView> = mesh.domains.iter().collect();
    domains.sort_by_key(|d| d.name);
    for domain in domains {
        sketch.node(domain.name, || Node {
            label: domain.declared.map_or(domain.name, |d| d.title.as_str()).to_owned(),
            sub: words::counted(domain.products.len(), "product", "products"),
            status: Some(domain.status),
            page: path::domain(domain.name),
            role: Role::Plain,
        });
    }
    for (from, to) in mesh.edges().filter(|(a, b)| a.domain != b.domain) {
        if let (Some(from), Some(to)) = (sketch.index.get(&from.domain), sketch.index.get(&to.domain)) {
            sketch.arrow(*from, *to, &[]);
        }
    }
    sketch.finish(root, format!("Domains of {}", mesh.model.title))
}

/// Returns the products of a domain with their neighbours in other domains as stubs.
pub fn of_domain(mesh: &Mesh, domain: &DomainView, root: &str) -> Picture {
    let mut sketch = Sketch::default();
    let mut products = domain.products.clone();
    products.sort_by_key(|p| p.id.as_str());
    let most = MAX_NODES - mesh.domains.len().min(MAX_NODES / 2);
    let shown = products.len().min(most);
    for product in &products[..shown] {
        sketch.product(product, Role::Plain);
    }
    connect(mesh, &mut sketch);
    for product in &products[..shown] {
        let me = sketch.index[product.id.as_str()];
        for other in mesh.upstream(&product.id).filter(|o| o.domain != domain.name) {
            let stub = domain_stub(&mut sketch, mesh, &other.domain, "in");
            sketch.arrow(stub, me, &[]);
        }
        for other in mesh.downstream(&product.id).filter(|o| o.domain != domain.name) {
            let stub = domain_stub(&mut sketch, mesh, &other.domain, "out");
            sketch.arrow(me, stub, &[]);
        }
    }
    let title = domain.declared.map_or(domain.name, |d| d.title.as_str());
    let rest = if shown < products.len() {
        format!(", {shown} of {} products", products.len())
    } else {
        String::new()
    };
    sketch.finish(root, format!("Lineage within {title}{rest}"))
}

/// A domain that feeds and also reads gets a box on either side, so that arrows keep pointing right.
fn domain_stub(sketch: &mut Sketch, mesh: &Mesh, name: &str, side: &str) -> usize {
    let view = mesh.domains.iter().find(|d| d.name == name);
    let title = view.and_then(|v| v.declared).map_or(name, |d| d.title.as_str());
    sketch.node(&format!("{side}:{name}"), || Node {
        label: title.to_owned(),
        sub: "another domain".into(),
        status: None,
        page: path::domain(name),
        role: Role::Stub,
    })
}

/// Returns a product between what it reads and what reads it.
pub fn of_product(mesh: &Mesh, product: &Product, root: &str) -> Picture {
    let one_hop: Vec<&Product> = mesh.upstream(&product.id).chain(mesh.downstream(&product.id)).collect();
    let mut around: BTreeMap<&str, &Product> = one_hop.iter().map(|p| (p.id.as_str(), *p)).collect();
    around.insert(&product.id, product);
    let mut two_hops = around.clone();
    for up in mesh.upstream(&product.id) {
        two_hops.extend(mesh.upstream(&up.id).map(|p| (p.id.as_str(), p)));
    }
    for down in mesh.downstream(&product.id) {
        two_hops.extend(mesh.downstream(&down.id).map(|p| (p.id.as_str(), p)));
    }
    let mut sketch = Sketch::default();
    sketch.product(product, Role::Focus);
    let caption = format!("Neighbourhood of {}", product.title);
    if two_hops.len() <= TWO_HOP_NODES {
        for neighbour in two_hops.values() {
            sketch.product(neighbour, Role::Plain);
        }
        connect(mesh, &mut sketch);
        return sketch.finish(root, caption);
    }
    let upstream: Vec<&Product> = mesh.upstream(&product.id).collect();
    let downstream: Vec<&Product> = mesh.downstream(&product.id).collect();
    for side in [&upstream, &downstream] {
        for neighbour in side.iter().take(ONE_HOP_SIDE) {
            sketch.product(neighbour, Role::Plain);
        }
    }
    connect(mesh, &mut sketch);
    overflow(&mut sketch, mesh, &upstream, Side::Upstream);
    overflow(&mut sketch, mesh, &downstream, Side::Downstream);
    sketch.finish(root, caption)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Upstream,
    Downstream,
}

/// Adds one box per domain for the neighbours that found no room.
fn overflow(sketch: &mut Sketch, mesh: &Mesh, neighbours: &[&Product], side: Side) {
    let mut left_out: BTreeMap<&str, usize> = BTreeMap::new();
    for neighbour in neighbours.iter().skip(ONE_HOP_SIDE) {
        *left_out.entry(&neighbour.domain).or_default() += 1;
    }
    for (domain, count) in left_out.into_iter().take(ONE_HOP_SIDE / 3) {
        let title = mesh
            .domains
            .iter()
            .find(|d| d.name == domain)
            .and_then(|d| d.declared)
            .map_or(domain, |d| &d.title);
        let key = format!("{}:{domain}", if side == Side::Upstream { "in" } else { "out" });
        let stub = sketch.node(&key, || Node {
            label: format!("+{count} in {title}"),
            sub: "see the domain".into(),
            status: None,
            page: path::domain(domain),
            role: Role::Stub,
        });
        match side {
            Side::Upstream => sketch.arrow(stub, 0, &[]),
            Side::Downstream => sketch.arrow(0, stub, &[]),
        }
    }
}

/// Returns the cause of an incident and what it reaches, without the rest of the mesh.
pub fn of_incident(mesh: &Mesh, episode: &Episode, root: &str) -> Picture {
    let mut sketch = Sketch::default();
    if let Some(cause) = mesh.product(&episode.product) {
        sketch.product(cause, Role::Focus);
    }
    for hit in episode.blast_radius.iter().filter_map(|id| mesh.product(id)).take(MAX_NODES - 1) {
        sketch.product(hit, Role::Plain);
    }
    connect(mesh, &mut sketch);
    sketch.finish(root, "From the cause to what it reaches".into())
}
