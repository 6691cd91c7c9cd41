//! Who reads whom: products in order, circles, blast radius; columns and the labels that travel along them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{ColumnId, PipelineName, PortId, ProductId};
use crate::model::{
    Classification, Influence, InputSource, Mesh, Pipeline, Product, QueryShape, SourceColumn,
};

/// Edges from a product to those that it reads.
pub type Edges = BTreeMap<ProductId, BTreeSet<ProductId>>;

/// Returns the products that a product reads, through input ports and training sets.
#[must_use]
pub fn upstream_of(product: &Product) -> BTreeSet<ProductId> {
    let trained = product.pipelines.values().filter_map(|pipeline| match pipeline {
        Pipeline::Training(training) => Some(&training.features),
        _ => None,
    });
    product.reads().chain(trained.flatten()).map(|port| port.product.clone()).collect()
}

/// Returns who reads whom in a mesh.
#[must_use]
pub fn edges(mesh: &Mesh) -> Edges {
    mesh.products.iter().map(|(id, product)| (id.clone(), upstream_of(product))).collect()
}

/// Returns the products so that each comes after all that it reads; equals are ordered by name. Products of a circle,
/// and those behind one, are left out.
#[must_use]
pub fn order(edges: &Edges) -> Vec<ProductId> {
    let mut waiting: BTreeMap<&ProductId, usize> = BTreeMap::new();
    let mut readers: BTreeMap<&ProductId, Vec<&ProductId>> = BTreeMap::new();
    for (id, upstream) in edges {
        let known = upstream.iter().filter(|other| edges.contains_key(*other));
        waiting.insert(id, known.clone().count());
        known.for_each(|other| readers.entry(other).or_default().push(id));
    }
    let mut ready: BTreeSet<&ProductId> =
        waiting.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
    let mut order = Vec::new();
    while let Some(next) = ready.pop_first() {
        order.push(next.clone());
        for reader in readers.get(next).into_iter().flatten() {
            if let Some(count) = waiting.get_mut(*reader) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(reader);
                }
            }
        }
    }
    order
}

/// Returns one shortest circle for every knot of products that read each other, each starting at its smallest name.
#[must_use]
pub fn cycles(edges: &Edges) -> Vec<Vec<ProductId>> {
    let mut cycles: Vec<Vec<ProductId>> = Vec::new();
    let sorted: BTreeSet<ProductId> = order(edges).into_iter().collect();
    let rest: BTreeSet<&ProductId> = edges.keys().filter(|id| !sorted.contains(*id)).collect();
    let mut told: BTreeSet<ProductId> = BTreeSet::new();
    for start in rest {
        if told.contains(start) {
            continue;
        }
        // The shortest way from the product back to itself, breadth first.
        let mut from: BTreeMap<&ProductId, &ProductId> = BTreeMap::new();
        let mut front = vec![start];
        let mut closed = None;
        'search: while !front.is_empty() {
            let mut next = Vec::new();
            for at in front {
                for upstream in edges.get(at).into_iter().flatten() {
                    if upstream == start {
                        closed = Some(at);
                        break 'search;
                    }
                    if edges.contains_key(upstream) && !from.contains_key(upstream) {
                        from.insert(upstream, at);
                        next.push(upstream);
                    }
                }
            }
            front = next;
        }
        let Some(mut at) = closed else { continue };
        let mut cycle = vec![at.clone()];
        while at != start {
            at = from[at];
            cycle.push(at.clone());
        }
        cycle.reverse();
        told.extend(cycle.iter().cloned());
        cycles.push(cycle);
    }
    cycles
}

/// Returns every product that would feel a change of `product`, near or far, without itself.
#[must_use]
pub fn downstream(edges: &Edges, product: &ProductId) -> BTreeSet<ProductId> {
    let mut readers: BTreeMap<&ProductId, Vec<&ProductId>> = BTreeMap::new();
    for (id, upstream) in edges {
        for other in upstream {
            readers.entry(other).or_default().push(id);
        }
    }
    let mut reached = BTreeSet::new();
    let mut front = vec![product];
    while let Some(at) = front.pop() {
        for reader in readers.get(at).into_iter().flatten() {
            if *reader != product && reached.insert((*reader).clone()) {
                front.push(reader);
            }
        }
    }
    reached
}

/// A value's way from one column to another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ColumnEdge {
    /// The column that is read.
    pub from: ColumnId,
    /// The column that is made.
    pub to: ColumnId,
    /// How it reaches it.
    pub influence: Influence,
    /// The value cannot be told from the result.
    pub masking: bool,
}

/// Shapes of queries by product and pipeline.
pub type Shapes = BTreeMap<(ProductId, PipelineName), QueryShape>;

/// Returns the column edges of a mesh in order.
///
/// Queries say which columns reach which. Features, vectors and models reach further than their query: an aggregate
/// of a column is that column's value as far as labels go, except a count; a vector and a model can give away their
/// input, so they carry its labels.
#[must_use]
pub fn column_edges(mesh: &Mesh, shapes: &Shapes) -> Vec<ColumnEdge> {
    let mut edges = BTreeSet::new();
    for product in mesh.products.values() {
        for pipeline in product.pipelines.values() {
            let output = product.port(pipeline.output());
            let shape = shapes.get(&(product.id.clone(), pipeline.name().clone()));
            let tracer = Tracer { mesh, product, output: &output };
            match pipeline {
                Pipeline::Batch(_) | Pipeline::Stream(_) => {
                    if let Some(shape) = shape {
                        tracer.query(shape, &mut edges);
                    }
                }
                Pipeline::Feature(feature) => {
                    if let Some(shape) = shape {
                        tracer.features(feature, shape, &mut edges);
                    }
                }
                Pipeline::Embedding(embedding) => tracer.embedding(embedding, &mut edges),
                Pipeline::Training(training) => tracer.training(training, shape, &mut edges),
            }
        }
    }
    edges.into_iter().collect()
}

struct Tracer<'a> {
    mesh: &'a Mesh,
    product: &'a Product,
    output: &'a PortId,
}

impl Tracer<'_> {
    /// The column of another port, or of the product's own external input.
    fn source(&self, column: &SourceColumn) -> Option<ColumnId> {
        let input = self.product.inputs.values().find(|input| input.name.as_str() == column.table)?;
        let port = match &input.source {
            InputSource::Port { port } => port.clone(),
            InputSource::Files { .. } | InputSource::Topic { .. } => self.product.port(&input.name),
        };
        Some(ColumnId { port, column: column.column.clone() })
    }

    fn target(&self, column: &str) -> ColumnId {
        ColumnId { port: self.output.clone(), column: column.to_owned() }
    }

    fn columns(&self) -> Vec<String> {
        let port = self.mesh.output(self.output);
        port.map(|port| port.contract.columns.iter().map(|it| it.name.clone()).collect()).unwrap_or_default()
    }

    fn query(&self, shape: &QueryShape, edges: &mut BTreeSet<ColumnEdge>) {
        for column in &shape.columns {
            let to = self.target(&column.name);
            self.direct(&column.direct, &to, column.masked, edges);
            self.indirect(&shape.indirect, &to, edges);
        }
    }

    fn direct(
        &self,
        from: &BTreeSet<SourceColumn>,
        to: &ColumnId,
        masking: bool,
        edges: &mut BTreeSet<ColumnEdge>,
    ) {
        for from in from.iter().filter_map(|column| self.source(column)) {
            edges.insert(ColumnEdge { from, to: to.clone(), influence: Influence::Direct, masking });
        }
    }

    fn indirect(&self, from: &BTreeSet<SourceColumn>, to: &ColumnId, edges: &mut BTreeSet<ColumnEdge>) {
        for from in from.iter().filter_map(|column| self.source(column)) {
            edges.insert(ColumnEdge { from, to: to.clone(), influence: Influence::Indirect, masking: false });
        }
    }

    fn features(
        &self,
        feature: &crate::model::FeaturePipeline,
        shape: &QueryShape,
        edges: &mut BTreeSet<ColumnEdge>,
    ) {
        for name in self.columns() {
            let to = self.target(&name);
            self.indirect(&shape.indirect, &to, edges);
            let Some((column, masking)) = crate::model::feature_source(feature, &name) else { continue };
            let Some(selected) = shape.columns.iter().find(|it| it.name == column) else { continue };
            self.direct(&selected.direct, &to, masking || selected.masked, edges);
            if column != feature.entity
                && let Some(entity) = shape.columns.iter().find(|it| it.name == feature.entity)
            {
                self.indirect(&entity.direct, &to, edges);
            }
        }
    }

    fn embedding(&self, embedding: &crate::model::EmbeddingPipeline, edges: &mut BTreeSet<ColumnEdge>) {
        let table = embedding.port.to_string();
        for name in self.columns() {
            let from = if name == embedding.id { &embedding.id } else { &embedding.text };
            let source = SourceColumn { table: table.clone(), column: from.clone() };
            self.direct(&[source].into(), &self.target(&name), false, edges);
        }
    }

    fn training(
        &self,
        training: &crate::model::TrainingPipeline,
        shape: Option<&QueryShape>,
        edges: &mut BTreeSet<ColumnEdge>,
    ) {
        for name in self.columns() {
            let to = self.target(&name);
            // A model is made of all of its training set; what it gives away of a row is statistical.
            for column in shape.into_iter().flat_map(|shape| &shape.columns) {
                self.indirect(&column.direct, &to, edges);
            }
            for port in &training.features {
                let columns =
                    self.mesh.output(port).map(|it| it.contract.columns.as_slice()).unwrap_or_default();
                for column in columns {
                    let from = ColumnId { port: port.clone(), column: column.name.clone() };
                    edges.insert(ColumnEdge {
                        from,
                        to: to.clone(),
                        influence: Influence::Indirect,
                        masking: false,
                    });
                }
            }
        }
    }
}

/// Returns the classification that each column has by what reaches it: its own and that of every column on a direct
/// way that no masking function closes.
#[must_use]
pub fn labels(mesh: &Mesh, edges: &[ColumnEdge]) -> BTreeMap<ColumnId, Classification> {
    let mut labels: BTreeMap<ColumnId, Classification> = BTreeMap::new();
    let raise =
        |labels: &mut BTreeMap<ColumnId, Classification>, column: ColumnId, label: Classification| -> bool {
            let known = labels.get(&column).copied();
            if known.is_some_and(|known| known >= label) {
                return false;
            }
            labels.insert(column, label);
            true
        };
    for product in mesh.products.values() {
        let outputs = product.outputs.iter().map(|(name, port)| (name, &port.contract));
        let inputs = product.inputs.iter().filter_map(|(name, input)| match &input.source {
            InputSource::Files { contract, .. } | InputSource::Topic { contract, .. } => {
                Some((name, contract))
            }
            InputSource::Port { .. } => None,
        });
        for (name, contract) in outputs.chain(inputs) {
            for column in &contract.columns {
                if let Some(label) = column.classification {
                    raise(
                        &mut labels,
                        ColumnId { port: product.port(name), column: column.name.clone() },
                        label,
                    );
                }
            }
        }
    }
    for (id, port) in &mesh.withheld {
        for column in &port.contract.columns {
            if let Some(label) = column.classification {
                raise(&mut labels, ColumnId { port: id.clone(), column: column.name.clone() }, label);
            }
        }
    }
    let mut ways: BTreeMap<&ColumnId, Vec<&ColumnId>> = BTreeMap::new();
    for edge in edges.iter().filter(|edge| edge.influence == Influence::Direct && !edge.masking) {
        ways.entry(&edge.from).or_default().push(&edge.to);
    }
    let mut front: Vec<ColumnId> = labels.keys().cloned().collect();
    while let Some(at) = front.pop() {
        let label = labels[&at];
        for to in ways.get(&at).into_iter().flatten() {
            if raise(&mut labels, (*to).clone(), label) {
                front.push((*to).clone());
            }
        }
    }
    labels
}

#[cfg(test)]
#[path = "lineage_tests.rs"]
mod tests;
