//! Inputs before readers.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{PortId, ProductId};
use crate::model::{Pipeline, Product};

/// Returns the ports of other products that a product reads, by input port or as features.
#[must_use]
pub fn upstream_ports(product: &Product) -> BTreeSet<PortId> {
    let features = product.pipelines.values().flat_map(|pipeline| match pipeline {
        Pipeline::Training(training) => training.features.as_slice(),
        Pipeline::Batch(_) | Pipeline::Stream(_) | Pipeline::Feature(_) | Pipeline::Embedding(_) => &[],
    });
    product.reads().chain(features).filter(|port| port.product != product.id).cloned().collect()
}

/// Returns products with inputs before readers, else by name.
///
/// Cycles are refused by `check` before anything is planned; here one is merely cut where it is first entered.
#[must_use]
pub fn dependency_order<'a>(products: impl IntoIterator<Item = &'a Product>) -> Vec<ProductId> {
    fn visit<'a>(
        product: &'a Product,
        products: &BTreeMap<&'a ProductId, &'a Product>,
        seen: &mut BTreeSet<&'a ProductId>,
        order: &mut Vec<ProductId>,
    ) {
        if !seen.insert(&product.id) {
            return;
        }
        for port in upstream_ports(product) {
            if let Some(upstream) = products.get(&port.product) {
                visit(upstream, products, seen, order);
            }
        }
        order.push(product.id.clone());
    }
    let products: BTreeMap<&ProductId, &Product> =
        products.into_iter().map(|product| (&product.id, product)).collect();
    let (mut seen, mut order) = (BTreeSet::new(), Vec::with_capacity(products.len()));
    for product in products.values() {
        visit(product, &products, &mut seen, &mut order);
    }
    order
}
