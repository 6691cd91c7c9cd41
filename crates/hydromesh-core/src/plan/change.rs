//! Changes: desired minus deployed; and admission, which keeps every deployed reader able to read.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Desired, Print, partitions_at};
use crate::ids::{PortId, PortName, ProductId};
use crate::ledger::{Deployed, LedgerState, Retirement};
use crate::model::{Contract, LogicalType, Partitioning, Pipeline, Product, Values};
use crate::time::day_of;

/// What a commit would change, and what would have to be computed for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[must_use]
pub struct Plan {
    /// The environment.
    pub environment: String,
    /// The commit.
    pub commit: String,
    /// Changes in dependency order.
    pub changes: Vec<Change>,
    /// Products that do not check; they stay as deployed.
    pub broken: Vec<ProductId>,
}

impl Plan {
    /// Returns whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// One product's change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The product.
    pub product: ProductId,
    /// What kind.
    pub kind: ChangeKind,
    /// Why, for people, most important first.
    pub reasons: Vec<String>,
    /// The fingerprint that it leads to.
    pub fingerprint: String,
    /// Partitions to compute by port; 1 for an unpartitioned table.
    pub partitions: BTreeMap<PortId, u64>,
}

/// The kind of a change, in rising severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Nothing is computed again.
    Metadata,
    /// A new product.
    Create,
    /// Data is computed again.
    Update,
    /// The product leaves the mesh; what becomes of its tables is its own to say.
    Retire,
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "metadata",
            Self::Create => "create",
            Self::Update => "update",
            Self::Retire => "retire",
        })
    }
}

/// Returns what a commit would change in an environment.
///
/// `order` is the desired products in dependency order; `now_ms` bounds the partitions that are counted.
pub fn plan(
    desired: &Desired,
    order: &[ProductId],
    ledger: &LedgerState,
    environment: &str,
    now_ms: i64,
) -> Plan {
    let mut changes = Vec::new();
    for id in order {
        let (Some(product), Some(print)) = (desired.mesh.products.get(id), desired.prints.get(id)) else {
            continue;
        };
        let deployed = ledger.deployed.get(id);
        if deployed.is_some_and(|deployed| deployed.print.all == print.all) {
            continue;
        }
        let product = &knowing(product, ledger);
        let partitions = to_compute(product, print, deployed.map(AsRef::as_ref), now_ms);
        let (kind, mut reasons) = match deployed {
            None => {
                let comes_back = ledger.retired.get(id).map(|retired| returning(retired));
                (ChangeKind::Create, vec![comes_back.unwrap_or_else(|| "new product".to_owned())])
            }
            Some(deployed) => compare(deployed, product, print),
        };
        reasons.extend(sought(product, ledger));
        changes.push(Change {
            product: id.clone(),
            kind,
            reasons,
            fingerprint: print.all.clone(),
            partitions,
        });
    }
    for (id, deployed) in &ledger.deployed {
        if !desired.mesh.products.contains_key(id) && !desired.broken.contains_key(id) {
            changes.push(Change {
                product: id.clone(),
                kind: ChangeKind::Retire,
                reasons: vec![format!("no longer in the mesh; {}", after_leaving(&deployed.product, now_ms))],
                fingerprint: String::new(),
                partitions: BTreeMap::new(),
            });
        }
    }
    Plan {
        environment: environment.to_owned(),
        commit: desired.commit.clone(),
        changes,
        broken: desired.broken.keys().cloned().collect(),
    }
}

/// Returns why a commit is held as a whole that has no product any more and would retire some: far more often that is an accident
/// than a wish.
#[must_use]
pub fn empties(desired: &Desired, ledger: &LedgerState) -> Option<String> {
    let retires = ledger.deployed.keys().any(|id| !desired.broken.contains_key(id));
    let emptied = desired.mesh.products.is_empty() && retires;
    emptied.then(|| "it would retire every product; delete domains one by one if that is meant".to_owned())
}

/// Says what becomes of the tables of a product that leaves now.
fn after_leaving(product: &Product, now_ms: i64) -> String {
    match product.retire.end() {
        None => "its tables stay".to_owned(),
        Some((how, after)) if after.is_zero() => format!("its tables are {}", how.done()),
        Some((how, after)) => {
            let day = day_of(now_ms.saturating_add(after.millis()));
            format!("its tables are {} on {day}, unless it comes back before", how.done())
        }
    }
}

/// Says what a product finds that comes back.
fn returning(retired: &Retirement) -> String {
    let Some(ending) = &retired.ending else {
        return match retired.due() {
            None => "comes back to its tables".to_owned(),
            Some((how, at_ms)) => {
                format!("comes back to its tables, which are not {} on {}", how.done(), day_of(at_ms))
            }
        };
    };
    let began = format!("comes back and starts from nothing; its tables were {}", ending.how.done());
    match &ending.done {
        Some((at_ms, Some(archive))) => format!("{began} on {} to {archive}", day_of(*at_ms)),
        Some((at_ms, None)) => format!("{began} on {}", day_of(*at_ms)),
        None => format!("comes back and starts from nothing; its tables are being {}", ending.how.done()),
    }
}

/// Returns a product with the values that were found of what it is cut by, if they are looked for.
fn knowing<'a>(product: &'a Product, ledger: &LedgerState) -> Cow<'a, Product> {
    let mut product = Cow::Borrowed(product);
    if product.pipelines.values().any(Pipeline::looks_for_values) {
        ledger.tell_keys(product.to_mut());
    }
    product
}

/// Says of ports whose values were never looked for where they will be.
fn sought(product: &Product, ledger: &LedgerState) -> Vec<String> {
    let sought = |name: &PortName| {
        let source = product.cut_of(name)?.source()?;
        let known = ledger.known_keys(&product.port(name), source);
        known
            .is_none()
            .then(|| format!("{name}: a partition for each value of {source}, which are looked for first"))
    };
    product.outputs.keys().filter_map(sought).collect()
}

fn to_compute(
    product: &Product,
    print: &Print,
    deployed: Option<&Deployed>,
    now_ms: i64,
) -> BTreeMap<PortId, u64> {
    let mut counts = BTreeMap::new();
    for pipeline in product.pipelines.values() {
        let output = pipeline.output();
        let new = print.ports.get(output).map(|port| &port.data);
        let old = deployed.and_then(|deployed| deployed.print.ports.get(output)).map(|port| &port.data);
        if new == old {
            let added = deployed.map_or(0, |deployed| values(&deployed.product, product, output).0.len());
            if added > 0 {
                counts.insert(product.port(output), added as u64);
            }
            continue;
        }
        let count = match pipeline {
            Pipeline::Batch(batch) => batch.partition.as_ref().map_or(1, |cut| partitions_at(cut, now_ms)),
            _ => 1,
        };
        counts.insert(product.port(output), count);
    }
    counts
}

/// Returns the values that the list of a port has and had not, and those that it had and has not.
fn values<'a>(before: &'a Product, now: &'a Product, port: &PortName) -> (Vec<&'a String>, Vec<&'a String>) {
    let cut = |product: &'a Product| product.cut_of(port);
    // What is looked for elsewhere is not known yet.
    let sought = |product: &'a Product| cut(product).and_then(Partitioning::source);
    if sought(before) != sought(now) && sought(now).is_some() {
        return (Vec::new(), Vec::new());
    }
    let of = |product: &'a Product| cut(product).and_then(Partitioning::values);
    let (Some(before), Some(now)) = (of(before), of(now)) else { return (Vec::new(), Vec::new()) };
    let lacks = |these: &'a Values, others: &'a Values| {
        these.iter().filter(|value| others.index(value).is_none()).collect()
    };
    (lacks(now, before), lacks(before, now))
}

fn compare(deployed: &Deployed, product: &Product, print: &Print) -> (ChangeKind, Vec<String>) {
    let mut reasons = Vec::new();
    let mut kind = ChangeKind::Metadata;
    for (name, new) in &print.ports {
        let Some(old) = deployed.print.ports.get(name) else {
            kind = ChangeKind::Update;
            reasons.push(format!("port {name} is new"));
            continue;
        };
        let (added, removed) = values(&deployed.product, product, name);
        if !added.is_empty() {
            kind = ChangeKind::Update;
        }
        list(&mut reasons, name.as_str(), "added values", added.into_iter());
        list(&mut reasons, name.as_str(), "stays readable and is computed no more:", removed.into_iter());
        if old.data == new.data {
            continue;
        }
        kind = ChangeKind::Update;
        if old.rows != new.rows {
            reasons.push(format!(
                "what decides the rows of {name} changed (filter, join, group, input rows or source)"
            ));
        }
        let changed =
            |column: &&String| old.columns.get(*column).is_some_and(|print| *print != new.columns[*column]);
        let added = new.columns.keys().filter(|column| !old.columns.contains_key(*column));
        list(&mut reasons, name.as_str(), "added", added);
        list(&mut reasons, name.as_str(), "changed", new.columns.keys().filter(changed));
        let removed = old.columns.keys().filter(|column| !new.columns.contains_key(*column));
        list(&mut reasons, name.as_str(), "removed", removed);
    }
    for name in deployed.print.ports.keys().filter(|name| !print.ports.contains_key(*name)) {
        reasons.push(format!("port {name} is gone"));
    }
    if kind == ChangeKind::Metadata {
        for (name, port) in &product.outputs {
            let old = deployed.product.outputs.get(name);
            if old.is_some_and(|old| old.contract.version != port.contract.version) {
                reasons.push(format!("contract of {name} is now {}", port.contract.version));
            }
        }
        if reasons.is_empty() {
            reasons.push("description, owners, service levels or settings changed; no data".to_owned());
        }
    }
    (kind, reasons)
}

fn list<'a>(reasons: &mut Vec<String>, port: &str, verb: &str, columns: impl Iterator<Item = &'a String>) {
    let names: Vec<&str> = columns.map(String::as_str).collect();
    if !names.is_empty() {
        reasons.push(format!("{port}: {verb} {}", names.join(", ")));
    }
}

/// Which of a plan's changes may be deployed, and what holds the others back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Admission {
    /// Deployed now, in dependency order.
    pub deploy: Vec<ProductId>,
    /// Wait, with why.
    pub held: BTreeMap<ProductId, String>,
}

/// Decides which allowed changes may be deployed together.
///
/// A product is held while a deployed reader that does not advance with it would lose a column or find it with another
/// type, and while an upstream that it was checked against does not advance. Invariant: no deployed reader ever fails
/// to check against its deployed input.
pub fn admit(
    plan: &Plan,
    desired: &Desired,
    ledger: &LedgerState,
    allowed: &BTreeSet<ProductId>,
) -> Admission {
    let mut admission = Admission::default();
    let mut advancing: BTreeSet<ProductId> = plan
        .changes
        .iter()
        .map(|change| &change.product)
        .filter(|id| allowed.contains(*id))
        .cloned()
        .collect();
    let readers = Readers::of(ledger);
    // Holding one product can hold another; every round but the last holds at least one, so this ends.
    loop {
        let found: Vec<(ProductId, String)> = advancing
            .iter()
            .filter_map(|id| obstacle(id, &advancing, desired, ledger, &readers).map(|why| (id.clone(), why)))
            .collect();
        if found.is_empty() {
            break;
        }
        for (id, why) in found {
            advancing.remove(&id);
            admission.held.insert(id, why);
        }
    }
    admission.deploy = plan
        .changes
        .iter()
        .map(|change| change.product.clone())
        .filter(|id| advancing.contains(id))
        .collect();
    admission
}

/// What deployed products read of each other.
struct Readers<'a>(BTreeMap<&'a ProductId, Vec<Reads<'a>>>);

/// A reader, the port that it reads, and the columns.
type Reads<'a> = (&'a ProductId, &'a PortId, &'a BTreeSet<String>);

impl<'a> Readers<'a> {
    fn of(ledger: &'a LedgerState) -> Self {
        let mut readers: BTreeMap<&ProductId, Vec<_>> = BTreeMap::new();
        for (reader, deployed) in &ledger.deployed {
            for (port, columns) in deployed.print.reads.iter().filter(|(port, _)| port.product != *reader) {
                readers.entry(&port.product).or_default().push((reader, port, columns));
            }
        }
        Self(readers)
    }
}

fn obstacle(
    id: &ProductId,
    advancing: &BTreeSet<ProductId>,
    desired: &Desired,
    ledger: &LedgerState,
    readers: &Readers<'_>,
) -> Option<String> {
    let after = |port: &PortId| -> Option<&Contract> {
        let product = if advancing.contains(&port.product) {
            desired.mesh.products.get(&port.product)
        } else {
            ledger.deployed.get(&port.product).map(|deployed| &deployed.product)
        };
        product.and_then(|product| product.outputs.get(&port.port)).map(|output| &output.contract)
    };
    // What it would read once deployed.
    if let Some(print) = desired.prints.get(id) {
        for (port, columns) in &print.reads {
            let checked = desired.mesh.output(port).map(|output| &output.contract);
            if let Some(why) = missing(columns, checked, after(port)) {
                return Some(format!("it was checked against {port}, which does not advance with it: {why}"));
            }
        }
    }
    // What deployed readers that stay would read of it.
    let of_it = readers.0.get(id).into_iter().flatten();
    for (reader, port, columns) in of_it.filter(|(reader, ..)| !advancing.contains(*reader)) {
        let now =
            ledger.deployed.get(id).and_then(|it| it.product.outputs.get(&port.port)).map(|it| &it.contract);
        if let Some(why) = missing(columns, now, after(port)) {
            return Some(format!("deployed reader {reader} would break: {why}"));
        }
    }
    None
}

/// Returns what a reader of `columns` would miss when the contract is `then` instead of `now`.
fn missing(columns: &BTreeSet<String>, now: Option<&Contract>, then: Option<&Contract>) -> Option<String> {
    let Some(then) = then else { return Some("the port is not there".to_owned()) };
    let kind = |contract: &Contract, name: &str| -> Option<LogicalType> {
        contract.columns.iter().find(|column| column.name == name).map(|column| column.logical.clone())
    };
    columns.iter().find_map(|name| match (now.and_then(|it| kind(it, name)), kind(then, name)) {
        (_, None) => Some(format!("column {name} is not there")),
        (Some(old), Some(new)) if old != new => Some(format!("column {name} has another type")),
        _ => None,
    })
}
