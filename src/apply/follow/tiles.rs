//! The tile log: what each epoch adds to each tile, and the ids of recent events.
//!
//! It is the whole memory of a feature pipeline. A row of kind `tile` is one additive delta; rows of the kinds
//! `source_event` and `event` name an event (of the stream that is read, and of the pipeline's own select) that must
//! not count again; their `tile_start` is the event's time. A delta of several rows became available when the last of
//! them did: the log may say later than the truth by the length of an epoch, never sooner.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::Column as PlanColumn;
use datafusion::logical_expr::{Expr, lit};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt as _;
use hydromesh_core::aggregate::State;
use hydromesh_core::tile::{Row, TileDelta, TileKey, ViewSpec, partial};

use super::arrays::{instant, instants, times};
use super::view::built;
use crate::apply::{Context, StepError};
use crate::engine::EngineError;
use crate::text::chain;

/// A delta of a tile.
const TILE: &str = "tile";
/// An event of the stream that the pipeline reads.
pub(super) const SOURCE_EVENT: &str = "source_event";
/// An event of the pipeline's select.
pub(super) const EVENT: &str = "event";

/// Returns the columns of a tile log.
pub(super) fn tile_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("kind", DataType::Utf8, true),
        Field::new("entity", DataType::Utf8, true),
        Field::new("feature", DataType::Int32, true),
        Field::new("level", DataType::Int64, true),
        Field::new("tile_start", instant(), true),
        Field::new("state", DataType::Binary, true),
        Field::new("available_at", instant(), true),
        Field::new("epoch", DataType::Int64, true),
    ]))
}

/// Returns what rows add to the tiles of a view, each with the time from which it is known.
///
/// # Errors
/// When a value has a kind that its aggregate does not take: the select yields another type than the features need.
pub(super) fn deltas(view: &ViewSpec, rows: &[Row]) -> Result<Vec<(TileDelta, i64)>, StepError> {
    let step = view.base_step();
    let mut known: BTreeMap<(&str, i64), i64> = BTreeMap::new();
    for row in rows {
        let start = row.order.event_ms.div_euclid(step) * step;
        let at = known.entry((row.entity.as_str(), start)).or_insert(row.available_ms);
        *at = (*at).max(row.available_ms);
    }
    let deltas = partial(view, rows).map_err(|error| StepError::user("HM-T008", chain(&error)))?;
    Ok(deltas
        .into_iter()
        .map(|delta| {
            let at =
                known.get(&(delta.key.entity.as_str(), delta.key.start)).copied().unwrap_or(delta.key.start);
            (delta, at)
        })
        .collect())
}

/// Returns deltas as rows of the log.
pub(super) fn delta_batch(deltas: &[(TileDelta, i64)], epoch: u64) -> Result<RecordBatch, StepError> {
    let keys = || deltas.iter().map(|(delta, _)| &delta.key);
    let states: Vec<Vec<u8>> = deltas.iter().map(|(delta, _)| delta.state.encode()).collect();
    let features = keys().map(|key| i32::try_from(key.feature).ok());
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(keys().map(|_| TILE))),
        Arc::new(StringArray::from_iter_values(keys().map(|key| &key.entity))),
        Arc::new(features.collect::<Int32Array>()),
        Arc::new(Int64Array::from_iter_values(keys().map(|key| key.step))),
        instants(keys().map(|key| Some(key.start))),
        Arc::new(BinaryArray::from_iter_values(&states)),
        instants(deltas.iter().map(|(_, at)| Some(*at))),
        epochs(deltas.len(), epoch),
    ];
    built(RecordBatch::try_new(tile_schema(), arrays))
}

/// Returns ids of events as rows of the log.
pub(super) fn id_batch<'a>(
    kind: &str,
    ids: impl Iterator<Item = (&'a str, i64)>,
    epoch: u64,
) -> Result<RecordBatch, StepError> {
    let mut ids: Vec<(&str, i64)> = ids.collect();
    ids.sort_unstable();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(ids.iter().map(|_| kind))),
        Arc::new(StringArray::from_iter_values(ids.iter().map(|(id, _)| id))),
        Arc::new(Int32Array::new_null(ids.len())),
        Arc::new(Int64Array::new_null(ids.len())),
        instants(ids.iter().map(|(_, at)| Some(*at))),
        Arc::new(BinaryArray::new_null(ids.len())),
        instants(ids.iter().map(|_| None)),
        epochs(ids.len(), epoch),
    ];
    built(RecordBatch::try_new(tile_schema(), arrays))
}

fn epochs(rows: usize, epoch: u64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![i64::try_from(epoch).unwrap_or(i64::MAX); rows]))
}

/// One row of the log.
pub(super) enum Entry {
    /// A delta.
    Tile(TileDelta),
    /// An event of the stream that is read, with its time.
    SourceEvent(String, i64),
    /// An event of the select, with its time.
    Event(String, i64),
}

/// Which rows of the log are read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Since {
    /// Those whose time is at or after this instant, milliseconds UTC.
    Time(i64),
    /// Those of later epochs.
    Epoch(u64),
}

/// Reads rows of the log, in any order.
///
/// # Errors
/// When the log cannot be read or holds something else.
pub(super) async fn scan(
    context: &Context,
    log: Arc<dyn TableProvider>,
    address: &str,
    since: Since,
    mut each: impl FnMut(Entry) -> Result<(), StepError>,
) -> Result<(), StepError> {
    let failed = |error: datafusion::error::DataFusionError| StepError::from(EngineError::from(error));
    let session = context.engine.session(BTreeMap::from([("tiles".to_owned(), log)])).map_err(failed)?;
    let of = |name: &str| Expr::Column(PlanColumn::new_unqualified(name));
    let wanted = match since {
        Since::Time(from_ms) => {
            // Beyond the range of stored instants there is nothing.
            let micros = from_ms.max(i64::MIN / 1_000) * 1_000;
            let from = ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
            of("tile_start").gt_eq(lit(from))
        }
        Since::Epoch(last) => of("epoch").gt(lit(i64::try_from(last).unwrap_or(i64::MAX))),
    };
    let frame = session.table("tiles").await.map_err(failed)?;
    let frame = frame.filter(wanted).map_err(failed)?;
    let columns = ["kind", "entity", "feature", "level", "tile_start", "state"];
    let mut batches =
        frame.select(columns.map(of).to_vec()).map_err(failed)?.execute_stream().await.map_err(failed)?;
    while let Some(batch) = batches.try_next().await.map_err(failed)? {
        let (kinds, entities) =
            (super::arrays::texts(batch.column(0))?, super::arrays::texts(batch.column(1))?);
        let starts = times(batch.column(4))?;
        let wrong = || StepError::user("HM-F003", format!("{address} is no tile log"));
        let features = batch.column(2).as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
        let levels = batch.column(3).as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        let states = batch.column(5).as_binary_opt::<i32>().ok_or_else(wrong)?;
        for (row, start) in starts.iter().enumerate() {
            let start = start.ok_or_else(wrong)?;
            let entity = entities.value(row).to_owned();
            each(match kinds.value(row) {
                TILE => {
                    let feature = u32::try_from(features.value(row)).map_err(|_| wrong())?;
                    let state = State::decode(states.value(row))
                        .map_err(|error| StepError::user("HM-F003", format!("{address}: {error}")))?;
                    Entry::Tile(TileDelta {
                        key: TileKey { entity, feature, step: levels.value(row), start },
                        state,
                    })
                }
                SOURCE_EVENT => Entry::SourceEvent(entity, start),
                EVENT => Entry::Event(entity, start),
                _ => return Err(wrong()),
            })?;
        }
    }
    Ok(())
}

/// Returns the time before which no tile matters to an answer at or after `at_ms`.
pub(super) fn oldest_needed(view: &ViewSpec, at_ms: i64) -> i64 {
    let widest = view.columns().iter().map(|column| column.window.millis().saturating_add(column.step)).max();
    let coarsest = view.levels().last().copied().unwrap_or(0);
    // A tile of the coarsest level is whole only with all base tiles in it.
    at_ms.saturating_sub(widest.unwrap_or(0)).saturating_sub(coarsest.saturating_mul(2))
}
