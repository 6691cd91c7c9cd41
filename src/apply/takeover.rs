//! Looks whether a preview has made already what a step is about to compute.
//!
//! A publication of a preview is taken over when its definition is the one that is deployed here, and when every input shows it
//! the very rows that this step would read: of the partitions that it reads, the same files, by their content. Whatever cannot be
//! known, or read, or is not whole, is computed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{OWN_ABOVE, Offered, Published, Taken, Wanted, partitions_read};
use hydromesh_core::model::BatchPipeline;
use tracing::{Instrument as _, info_span, warn};

use super::inputs::{Inputs, table_format};
use super::{Context, Job, StepError};
use crate::engine::describe;
use crate::lake::{CommitMeta, Lake, LakeError, Shown, Staged, Table, TableFormat, Version};
use crate::preview::{Live, Name};
use crate::text::chain;

/// Where the commit itself says what was taken over.
const PROPERTY: &str = "taken";
/// Commits among which that of a key is looked for that was there already: a process that ended left it a moment ago.
const RECENT: usize = 64;

/// A version of a port's table: a preview's, or this environment's.
type Place = (Option<Name>, PortId, i64);

/// The previews that may have what one step computes.
pub(super) struct Takeover<'a> {
    context: &'a Context,
    job: &'a Job,
    batch: &'a BatchPipeline,
    port: PortId,
    data: String,
    /// Versions that the step reads.
    inputs: BTreeMap<PortId, i64>,
    format: TableFormat,
    previews: Vec<(Live, Lake)>,
    /// What was looked at.
    shown: Mutex<BTreeMap<Place, Arc<Shown>>>,
}

/// A partition, or a whole table, that is staged and was not computed.
pub(super) struct Found {
    pub staged: Staged,
    pub taken: Taken,
    /// What its commit carries.
    pub meta: CommitMeta,
}

impl<'a> Takeover<'a> {
    /// Looks for previews that have something of the port; most often there is none.
    pub async fn of(
        context: &'a Context,
        job: &'a Job,
        batch: &'a BatchPipeline,
        (port, data): (&PortId, &str),
        inputs: &Inputs,
        format: TableFormat,
    ) -> Self {
        let (lake, now_ms) = (context.lake.root(), context.clock.now_ms());
        let mut live = context.previews.live(&context.environment, lake, port, now_ms).await;
        if !live.is_empty() && !is_repeatable(batch, inputs).await {
            live.clear();
        }
        let mut previews = Vec::new();
        for one in live {
            if let Ok(lake) = one.lake(lake).await {
                previews.push((one, lake));
            }
        }
        Self {
            context,
            job,
            batch,
            port: port.clone(),
            data: data.to_owned(),
            inputs: inputs.versions.clone(),
            format,
            previews,
            shown: Mutex::default(),
        }
    }

    /// Returns what a preview has made of a partition, or of the whole table, staged under the key that computing it would have.
    pub async fn find(&self, table: &Table, key: Option<&str>, meta: &CommitMeta) -> Option<Found> {
        for (live, lake) in &self.previews {
            let (inputs, definitions) = (&self.inputs, &self.job.definitions);
            let wanted = Wanted { port: &self.port, partition: key, data: &self.data, inputs, definitions };
            let Some(offered) = live.offer.find(&wanted) else { continue };
            let found = self.take(table, key, meta, (live, lake, offered));
            match found.instrument(info_span!("take_over")).await {
                Ok(Some(found)) if live.is_still().await => return Some(found),
                // Begun again meanwhile: nobody knows of which of the two the files are.
                Ok(Some(found)) => _ = table.discard(found.staged).await,
                Ok(None) => {}
                Err(error) => {
                    let (what, why) = (key.unwrap_or("the whole table"), chain(&error));
                    let (port, preview) = (&self.port, &live.name);
                    warn!(
                        event = "not_taken_over", %port, partition = key, %preview,
                        "{what} is computed, {preview} cannot be taken over from: {why}"
                    );
                }
            }
        }
        None
    }

    async fn take(
        &self,
        table: &Table,
        key: Option<&str>,
        meta: &CommitMeta,
        (live, lake, offered): (&Live, &Lake, Offered<'_>),
    ) -> Result<Option<Found>, LakeError> {
        let published = &offered.partition.published;
        for (input, theirs) in &published.inputs {
            if !self.reads_the_same(live, lake, input, *theirs, key).await? {
                return Ok(None);
            }
        }
        let shown = self.shown(Some((live, lake)), &self.port, self.format, offered.version).await?;
        let Some(part) = shown.part(key, &published.key, published.rows) else { return Ok(None) };
        let taken = provenance(live, published, offered.partition.at_ms);
        let mut meta = meta.clone();
        meta.properties.insert(PROPERTY.to_owned(), serde_json::to_string(&taken)?);
        let staged = table.take_over(&meta, &part).await?;
        Ok(Some(Found { staged, taken, meta }))
    }

    /// Returns whether an input shows this step the rows that it showed the preview.
    async fn reads_the_same(
        &self,
        live: &Live,
        lake: &Lake,
        input: &PortId,
        theirs: i64,
        key: Option<&str>,
    ) -> Result<bool, LakeError> {
        let Some(ours) = self.inputs.get(input).copied() else { return Ok(false) };
        // Up to there versions are those of this environment's own tables.
        let pinned = theirs <= OWN_ABOVE;
        if pinned && theirs == ours {
            return Ok(true);
        }
        let Ok(format) = table_format(&self.job.products, input) else { return Ok(false) };
        let there = (!pinned).then_some((live, lake));
        let theirs = self.shown(there, input, format, theirs).await?;
        let ours = self.shown(None, input, format, ours).await?;
        let Ok(product) = self.job.product() else { return Ok(false) };
        let (products, print) = (&self.job.products, &self.job.print);
        let stretches = key.and_then(|key| partitions_read(products, product, self.batch, print, input, key));
        Ok(ours.shows_as(&theirs, stretches.as_deref()))
    }

    /// Returns what a version of a table of a preview shows, or of one of this environment.
    async fn shown(
        &self,
        of: Option<(&Live, &Lake)>,
        port: &PortId,
        format: TableFormat,
        version: i64,
    ) -> Result<Arc<Shown>, LakeError> {
        let place = (of.map(|(live, _)| live.name.clone()), port.clone(), version);
        let known = || self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shown) = known().get(&place) {
            return Ok(Arc::clone(shown));
        }
        let lake = of.map_or(self.context.lake.as_ref(), |(_, lake)| lake);
        let shown = Arc::new(lake.table(&port.to_string(), format)?.shown(Version(version)).await?);
        known().insert(place, Arc::clone(&shown));
        Ok(shown)
    }
}

/// Returns what a publication says of where it was computed.
pub(super) fn provenance(live: &Live, published: &Published, computed_ms: i64) -> Taken {
    let (from, run, version) = (live.name.to_string(), published.run.clone(), published.version);
    Taken { from, run, version, computed_ms }
}

/// Returns what the commit of a version says that it took over: one that was there before this attempt.
pub(super) async fn recorded(table: &Table, version: Version) -> Result<Option<Taken>, StepError> {
    let commits = table.commits(RECENT).await?;
    let meta = commits.into_iter().find(|(at, _)| *at == version).map(|(_, meta)| meta);
    Ok(meta.and_then(|meta| serde_json::from_str(meta.properties.get(PROPERTY)?).ok()))
}

/// Returns whether a query yields the same rows from the same input; one that asks for the time, or for chance, does not.
async fn is_repeatable(batch: &BatchPipeline, inputs: &Inputs) -> bool {
    let schemas = inputs.tables.iter().map(|(name, table)| (name.clone(), table.schema())).collect();
    let sql = batch.sql.text.clone();
    let shape = tokio::task::spawn_blocking(move || describe(&sql, &schemas)).await;
    shape.is_ok_and(|shape| shape.is_ok_and(|shape| shape.volatile.is_empty()))
}
