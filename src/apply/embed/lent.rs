//! Vectors that a preview has made already, asked for by the addresses of their texts.
//!
//! Whether the preview read the same rows does not matter, an address does not belong to a row. That the same definition wrote the
//! index does: of another one nobody knows that its vectors are those of its texts.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::Taken;
use tracing::warn;

use super::usable;
use crate::apply::takeover::provenance;
use crate::apply::{Context, StepError};
use crate::engine::EngineError;
use crate::lake::{TableFormat, Version};
use crate::preview::Live;
use crate::vector::{Layout, Model, read_rows};

/// What previews have of the texts that are to be embedded.
#[derive(Default)]
pub(super) struct Lent {
    /// Vectors by address.
    pub vectors: BTreeMap<String, Vec<f32>>,
    /// Where all of them are from, if that is one preview.
    pub from: Option<Taken>,
}

impl Lent {
    /// Looks for vectors in the previews that have the port by the same definition; most often there is none.
    pub async fn of(
        context: &Context,
        (port, data): (&PortId, &str),
        (layout, format): (&Layout, TableFormat),
        model: &Model,
        wanted: &BTreeSet<&str>,
    ) -> Self {
        let mut lent = Self::default();
        let (lake, now_ms) = (context.lake.root(), context.clock.now_ms());
        for live in context.previews.live(&context.environment, lake, port, now_ms).await {
            let Some(offered) = live.offer.made_by(port, data) else { continue };
            let missing: BTreeSet<&str> =
                wanted.iter().copied().filter(|address| !lent.vectors.contains_key(*address)).collect();
            if missing.is_empty() {
                break;
            }
            let read = read(context, &live, port, (layout, format), Version(offered.version)).await;
            let rows = match read {
                Ok(rows) if live.is_still().await => rows,
                // Begun again meanwhile: nobody knows what was read.
                Ok(_) => continue,
                Err(error) => {
                    let preview = &live.name;
                    warn!(event = "not_taken_over", %port, %preview, "texts are embedded, vectors of {preview} cannot be read: {}", error.message);
                    continue;
                }
            };
            let asked = rows
                .into_iter()
                .filter(|row| missing.contains(row.content_hash.as_str()) && usable(row, model));
            let found: BTreeMap<String, Vec<f32>> = asked.map(|row| (row.content_hash, row.vector)).collect();
            if !found.is_empty() {
                let alone = lent.vectors.is_empty() && found.len() == missing.len();
                let partition = offered.partition;
                lent.from = alone.then(|| provenance(&live, &partition.published, partition.at_ms));
                lent.vectors.extend(found);
            }
        }
        lent
    }
}

async fn read(
    context: &Context,
    live: &Live,
    port: &PortId,
    (layout, format): (&Layout, TableFormat),
    version: Version,
) -> Result<Vec<crate::vector::StoredRow>, StepError> {
    let lake = live.lake(context.lake.root()).await?;
    let table = lake.table(&port.to_string(), format)?;
    let provider = table.provider(Some(version)).await?;
    Ok(read_rows(provider, layout).await.map_err(EngineError::from)?)
}
