//! Ports that are cut by the values of a column of an input: which were found, and what of the input was looked at last.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Deployed, LedgerState};
use crate::ids::{PortId, ProductId};
use crate::model::{InputSource, KeySource, Pipeline, Product, Values};

/// See [`Fact::Keys`](super::Fact::Keys).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysFound {
    /// The port that is cut.
    pub port: PortId,
    /// The run.
    pub run: String,
    /// Where was looked.
    pub source: KeySource,
    /// What of it was seen.
    #[serde(flatten)]
    pub looked: Looked,
    /// Values that were not known before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// Rows of no value that can be the key of a partition, null among them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub without: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what `skip_serializing_if` passes")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What of an input a look for values sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// Data fingerprint of the input's definition; empty of files, which are part of the product itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub definition: String,
    /// Version of its table; of files the generation of the product.
    pub version: i64,
}

/// The values that were found of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKeys {
    /// Where they were looked for.
    pub source: KeySource,
    /// What of it was looked at last.
    pub looked: Looked,
    /// When, milliseconds UTC.
    pub at_ms: i64,
    /// All that were ever found there: one that leaves the input keeps its rows, and may come back.
    pub values: Values,
    /// Rows of the input at the last look that have no value.
    pub without: u64,
    /// Something was published of the port since the last look.
    pub followed: bool,
}

impl KnownKeys {
    /// Returns the fact that all of this follows from.
    pub(super) fn found(&self, port: &PortId) -> KeysFound {
        KeysFound {
            port: port.clone(),
            run: "inherited".to_owned(),
            source: self.source.clone(),
            looked: self.looked.clone(),
            added: self.values.to_vec(),
            without: self.without,
        }
    }
}

impl LedgerState {
    /// Returns what is known of the values of a port, if they were looked for where it is looked for them now.
    #[must_use]
    pub fn known_keys(&self, port: &PortId, source: &KeySource) -> Option<&KnownKeys> {
        self.keys.get(port).map(AsRef::as_ref).filter(|known| known.source == *source)
    }

    /// Returns what a look for values would see now; nothing of an input that cannot be looked at, or not yet.
    #[must_use]
    pub fn in_sight(&self, deployed: &Deployed, source: &KeySource) -> Option<Looked> {
        match &deployed.product.inputs.get(&source.input)?.source {
            InputSource::Port { port } => {
                let upstream = self.deployed.get(&port.product)?;
                let definition = upstream.print.ports.get(&port.port)?.data.clone();
                Some(Looked { definition, version: self.ports.get(port)?.rows_version })
            }
            InputSource::Files { .. } => {
                let version = i64::try_from(deployed.generation).unwrap_or(i64::MAX);
                Some(Looked { definition: String::new(), version })
            }
            InputSource::Topic { .. } => None,
        }
    }

    /// Lets a product know the values that were found of its ports.
    pub fn tell_keys(&self, product: &mut Product) {
        let id = product.id.clone();
        for pipeline in product.pipelines.values_mut() {
            let Pipeline::Batch(batch) = pipeline else { continue };
            let port = PortId { product: id.clone(), port: batch.output.clone() };
            let Some(cut) = &mut batch.partition else { continue };
            let Some(source) = cut.source() else { continue };
            let known = self.known_keys(&port, source).map(|known| known.values.clone());
            cut.know(known.unwrap_or_default());
        }
    }

    /// Lets what is deployed of a product know them.
    pub(super) fn know_keys(&mut self, id: &ProductId) {
        let Some(deployed) = self.deployed.get(id) else { return };
        if !deployed.product.pipelines.values().any(Pipeline::looks_for_values) {
            return;
        }
        let mut deployed = Deployed::clone(deployed);
        self.tell_keys(&mut deployed.product);
        self.deployed.insert(id.clone(), Arc::new(deployed));
    }

    /// Takes in what a look has found. Values only become more, so that taking it in again changes nothing.
    pub(super) fn find_keys(&mut self, at_ms: i64, found: &KeysFound) {
        let KeysFound { port, source, added, without, .. } = found;
        let before = self.known_keys(port, source).map(|known| known.values.clone()).unwrap_or_default();
        let Ok(values) = before.with(added) else { return };
        let grown = values != before;
        let (source, looked, without) = (source.clone(), found.looked.clone(), *without);
        let known = KnownKeys { source, looked, at_ms, values, without, followed: false };
        self.keys.insert(port.clone(), Arc::new(known));
        if grown {
            self.know_keys(&port.product);
            self.age_by_values(port);
        }
    }

    /// Takes in that something was published of a port: the next look comes before what is due then.
    pub(super) fn follow_keys(&mut self, port: &PortId) {
        if let Some(known) = self.keys.get_mut(port).filter(|known| !known.followed) {
            Arc::make_mut(known).followed = true;
        }
    }
}
