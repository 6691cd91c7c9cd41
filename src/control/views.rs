//! The mesh as the gate is shown it: as a commit asks for it, or as it is deployed. What is derived of it is derived once.

use std::collections::BTreeMap;

use hydromesh_core::control::Question;
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::LedgerState;
use hydromesh_core::model::{Mesh, Product};
use hydromesh_core::plan::Desired;

use super::desired::shapes_of;
use super::gate_input::Lineage;

/// Both views, each for as long as what it is made of stays.
#[derive(Default)]
pub(super) struct Views {
    /// Commits that were read so far, and deploys.
    pub read: u64,
    pub deploys: u64,
    /// Of the commit that was read last: its own lineage.
    wanted: Option<(u64, Lineage)>,
    deployed: Option<((u64, u64), Desired, Lineage)>,
}

impl Views {
    /// Returns what a question is about.
    pub fn of<'a>(
        &'a mut self,
        question: &Question,
        desired: &'a Desired,
        ledger: &LedgerState,
    ) -> (&'a Desired, &'a Lineage) {
        let (read, both) = (self.read, (self.read, self.deploys));
        if question.action != "stand" {
            self.wanted.take_if(|(of, _)| *of != read);
            let (_, lineage) = self.wanted.get_or_insert_with(|| (read, Lineage::of(desired)));
            return (desired, lineage);
        }
        self.deployed.take_if(|(of, ..)| *of != both);
        let (_, desired, lineage) = self.deployed.get_or_insert_with(|| {
            let deployed = as_deployed(desired, ledger);
            let lineage = Lineage::of(&deployed);
            (both, deployed, lineage)
        });
        (desired, lineage)
    }
}

/// Returns what is deployed as if a commit asked for exactly that.
fn as_deployed(desired: &Desired, ledger: &LedgerState) -> Desired {
    let products = ledger.deployed.iter().map(|(id, it)| (id.clone(), it.product.clone())).collect();
    let around = Mesh { products: BTreeMap::new(), withheld: BTreeMap::new(), ..desired.mesh.clone() };
    let mesh = Mesh { products, ..around };
    let prints = ledger.deployed.iter().map(|(id, it)| (id.clone(), it.print.clone())).collect();
    // The queries of what is deployed as the commit has it are described already.
    let same = |id: &ProductId| {
        desired.prints.get(id).map(|it| &it.all) == ledger.deployed.get(id).map(|it| &it.print.all)
    };
    let mut shapes: BTreeMap<_, _> = desired.shapes.clone();
    shapes.retain(|(id, _), _| same(id));
    let others: Vec<&Product> = mesh.products.values().filter(|product| !same(&product.id)).collect();
    let described = shapes_of(&mesh, &others).into_iter();
    shapes.extend(described.filter_map(|(key, shape)| Some((key, shape.ok()?))));
    let commit = desired.commit.clone();
    Desired { commit, mesh, shapes, prints, broken: BTreeMap::new() }
}
