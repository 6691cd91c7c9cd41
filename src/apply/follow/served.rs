//! Current feature values in a process that does not follow the topics itself: read from the tile logs, epoch by epoch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::TableProvider;
use hydromesh_core::ids::{PipelineId, PortId};
use hydromesh_core::ledger::LedgerState;
use hydromesh_core::model::{FeaturePipeline, Pipeline};
use hydromesh_core::tile::TileDelta;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::chain::StreamRecord;
use super::features::{definition_of, tile_log};
use super::tiles::{self, Entry, Since, oldest_needed};
use super::{newest_of, pipeline_name};
use crate::apply::{Context, StepError, lake_format};
use crate::lake::Table;
use crate::online::PortValues;

/// How often the tile logs are looked at, real time. An epoch is a second of events, so values are two seconds old.
const LOOK: Duration = Duration::from_millis(500);

/// Keeps the values of every deployed feature port current until `shutdown`.
///
/// A changed definition has a log of its own; the values of the old one are served until the new one has its history.
pub async fn keep_online(
    context: Context,
    ledger: watch::Receiver<Arc<LedgerState>>,
    shutdown: CancellationToken,
) {
    let mut ports: BTreeMap<PortId, Served> = BTreeMap::new();
    let mut complained: BTreeMap<PortId, String> = BTreeMap::new();
    loop {
        let wanted = feature_ports(&ledger.borrow());
        for gone in context.online.ports().into_iter().filter(|port| !wanted.contains_key(port)) {
            context.online.remove(&gone);
            ports.remove(&gone);
        }
        for (port, (feature, log)) in wanted {
            let problem = match Served::advance(&context, ports.remove(&port), &port, &feature, &log).await {
                Ok(served) => {
                    ports.extend(served.map(|served| (port.clone(), served)));
                    String::new()
                }
                Err(error) => error.to_string(),
            };
            // Once per trouble, not once per look.
            if !problem.is_empty() && complained.get(&port) != Some(&problem) {
                tracing::warn!(%port, "the tile log cannot be read: {problem}");
            }
            complained.insert(port, problem);
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Where the tiles of a port lie, and what they are of.
struct Log {
    address: String,
    format: crate::lake::TableFormat,
    definition: String,
    pipeline: String,
}

fn feature_ports(ledger: &LedgerState) -> BTreeMap<PortId, (FeaturePipeline, Log)> {
    let mut ports = BTreeMap::new();
    for deployed in ledger.deployed.values() {
        let product = &deployed.product;
        for (name, pipeline) in &product.pipelines {
            let Pipeline::Feature(feature) = pipeline else { continue };
            let Some(output) = product.outputs.get(&feature.output) else { continue };
            let port = product.port(&feature.output);
            let data =
                deployed.print.ports.get(&feature.output).map(|print| print.data.clone()).unwrap_or_default();
            let definition = definition_of(feature, data);
            let log = Log {
                address: tile_log(&port, &definition),
                format: lake_format(output.format),
                definition,
                pipeline: pipeline_name(&PipelineId { product: product.id.clone(), name: name.clone() }),
            };
            ports.insert(port, (feature.clone(), log));
        }
    }
    ports
}

/// A port's values, and how much of the log is in them.
struct Served {
    definition: String,
    values: Arc<PortValues>,
    version: i64,
    epoch: u64,
}

impl Served {
    /// Adds the epochs since the last look; the first time, everything that an answer of today needs.
    async fn advance(
        context: &Context,
        before: Option<Self>,
        port: &PortId,
        feature: &FeaturePipeline,
        log: &Log,
    ) -> Result<Option<Self>, StepError> {
        let table = context.lake.table(&log.address, log.format)?;
        let same = before.as_ref().filter(|served| served.definition == log.definition);
        let known = same.map(|served| served.version);
        // A log that is not there yet is read at a later look; until then the last definition goes on.
        let Some((version, record, provider)) = newest(&table, &log.pipeline, known).await? else {
            return Ok(before);
        };
        let newest: BTreeMap<i32, i64> = record.newest.iter().copied().collect();
        let at_ms = newest_of(&newest);
        let (values, since) = match same {
            Some(served) => (Arc::clone(&served.values), Since::Epoch(served.epoch)),
            None => {
                let values = PortValues::new(feature.view.clone(), &feature.entity, &log.definition);
                let from = at_ms.map_or(i64::MIN, |at| oldest_needed(&feature.view, at));
                (Arc::new(values), Since::Time(from))
            }
        };
        let mut held: Vec<TileDelta> = Vec::new();
        tiles::scan(context, provider, &log.address, since, |entry| {
            if let Entry::Tile(delta) = entry {
                held.push(delta);
            }
            Ok(())
        })
        .await?;
        // Applied after the whole read: an epoch that fails half-way is read again, and must not count twice.
        values.apply(&held).map_err(|error| StepError::user("HM-F003", error.to_string()))?;
        values.advance(at_ms, record.checkpoint.watermark_ms, Some(version));
        values.prune();
        if same.is_none() {
            context.online.install(port.clone(), Arc::clone(&values));
        }
        let (definition, epoch) = (log.definition.clone(), record.checkpoint.epoch);
        Ok(Some(Self { definition, values, version, epoch }))
    }
}

/// Returns the log at its newest version with the record of just that version; nothing when that is `known`, or no
/// epoch is there.
async fn newest(
    table: &Table,
    pipeline: &str,
    known: Option<i64>,
) -> Result<Option<(i64, StreamRecord, Arc<dyn TableProvider>)>, StepError> {
    if !table.location().exists() {
        return Ok(None);
    }
    loop {
        let Some((version, _)) = table.commits(1).await?.pop() else { return Ok(None) };
        if known == Some(version.0) {
            return Ok(None);
        }
        let Some(record) = table.last_checkpoint(pipeline).await? else { return Ok(None) };
        let provider = table.provider(Some(version)).await?;
        if table.commits(1).await?.pop().map(|(version, _)| version) != Some(version) {
            // The record may be of a newer version than the rows.
            continue;
        }
        let record = serde_json::from_value(record).map_err(|error| {
            StepError::user(
                "HM-F003",
                format!("the last record of {pipeline} in {}: {error}", table.address()),
            )
        })?;
        return Ok(Some((version.0, record, provider)));
    }
}
