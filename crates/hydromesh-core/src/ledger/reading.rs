//! How ports read their inputs: which new version of one matters to whom.

use std::collections::{BTreeMap, BTreeSet};

use super::{LedgerState, PortState};
use crate::ids::{PortId, ProductId};
use crate::model::{BatchPipeline, Pipeline, Product};
use crate::plan::{Mapping, Print};

/// How a port reads an input.
#[derive(Debug, Clone)]
pub struct Reading<'a> {
    state: &'a PortState,
    /// What it reads of the input is defined as when it was planned.
    stands: bool,
    /// A partition rests on that partition of the input alone.
    aligned: bool,
    /// The partitions that it reads, where its pipeline says so.
    mappings: Vec<Mapping>,
}

impl Reading<'_> {
    /// Returns whether it is known which partitions of the input a partition reads.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.aligned || !self.mappings.is_empty()
    }

    /// Returns the newest version of the input that matters to a partition.
    #[must_use]
    pub fn newest(&self, key: &str) -> i64 {
        if !self.mappings.is_empty() {
            let windows = self.mappings.iter().filter_map(|mapping| Some((mapping, mapping.keys(key)?)));
            let read = windows.flat_map(|(mapping, (from, to))| {
                let all = self.state.partitions.range(from..=to);
                // Another calendar, before the input was cut anew, left others.
                all.filter(|(key, _)| mapping.input_index(key).is_some())
            });
            let versions =
                read.map(|(_, it)| if self.stands { it.rows_version } else { it.published.version });
            return versions.max().unwrap_or(0);
        }
        match (self.aligned, self.stands) {
            (true, true) => self.state.partitions.get(key).map_or(0, |it| it.rows_version),
            (true, false) => self.state.partitions.get(key).map_or(0, |it| it.published.version),
            (false, true) => self.state.rows_version,
            (false, false) => self.state.version,
        }
    }
}

impl LedgerState {
    /// Returns whether an input has rows that a partition of a port, made from a version of it, has not seen.
    #[must_use]
    pub fn newer(&self, port: &PortId, input: &PortId, version: i64, key: &str) -> bool {
        self.reading(port, input).is_some_and(|reading| reading.newest(key) > version)
    }

    /// Returns how a port reads an input, if both are there: the same for all of its partitions.
    #[must_use]
    pub fn reading(&self, port: &PortId, input: &PortId) -> Option<Reading<'_>> {
        let (deployed, state) = (self.deployed.get(&port.product)?, self.ports.get(input)?);
        // Without the definition that it was planned over, any new version may matter.
        let stands = deployed.basis.get(input) == self.basis_of(input, &deployed.print).as_ref();
        let aligned = deployed.print.aligned.contains(&(port.port.clone(), input.clone()));
        let by = deployed.product.pipelines.values().find(|pipeline| *pipeline.output() == port.port);
        let mappings = match by {
            Some(Pipeline::Batch(batch)) if !aligned => self.mappings(&deployed.product, batch, input),
            _ => Vec::new(),
        };
        Some(Reading { state, stands, aligned, mappings })
    }

    /// Returns which partitions of an input, as it is deployed, a pipeline says that it reads.
    pub(crate) fn mappings(&self, product: &Product, batch: &BatchPipeline, input: &PortId) -> Vec<Mapping> {
        let upstream = self.deployed.get(&input.product);
        upstream.map_or_else(Vec::new, |upstream| Mapping::of(product, batch, input, &upstream.product))
    }

    pub(super) fn basis(&self, product: &Product, print: &Print) -> BTreeMap<PortId, String> {
        let ports: BTreeSet<&PortId> = product.reads().chain(print.reads.keys()).collect();
        ports.into_iter().filter_map(|port| Some((port.clone(), self.basis_of(port, print)?))).collect()
    }

    /// Returns the fingerprint of what a definition reads of a port, as the port is deployed.
    pub(super) fn basis_of(&self, port: &PortId, print: &Print) -> Option<String> {
        let deployed = self.deployed.get(&port.product)?.print.ports.get(&port.port)?;
        let mut text = deployed.rows.clone();
        for column in print.reads.get(port).into_iter().flatten() {
            text.push(' ');
            text.push_str(deployed.columns.get(column).map_or("?", String::as_str));
        }
        Some(text)
    }

    /// Returns the sum of the versions of a product's inputs: it moves when any of them does.
    #[must_use]
    pub fn input_versions(&self, product: &ProductId) -> i64 {
        let Some(deployed) = self.deployed.get(product) else { return 0 };
        let ports: BTreeSet<&PortId> = deployed.product.reads().collect();
        ports.into_iter().filter_map(|port| self.ports.get(port)).map(|port| port.version + 1).sum()
    }
}
