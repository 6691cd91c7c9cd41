//! Rows of published tables by key, kept in memory.
//!
//! The first look-up of a port loads it; afterwards a look-up never waits: while a newer version is loaded beside, the
//! one in memory answers, and every answer says which version it is of. Of several partitions with a key the newest wins.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::DataType;
use arrow::json::writer::{JsonArray, WriterBuilder};
use async_trait::async_trait;
use datafusion::prelude::SessionContext;
use futures::StreamExt as _;
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{LedgerState, PortState};
use hydromesh_core::model::{OutputPort, TableFormat};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{BatchLookup, BatchRow, LookupError, SharedLedger, snapshot};
use crate::lake::{self, Lake, TableState, Version};

/// Most memory for the rows of one port. Beyond that a port needs a store of its own.
const MOST_BYTES: usize = 512 * 1024 * 1024;
/// Rows that were overtaken by newer ones are dropped when they are this many and more than the others.
const COMPACT_AT: usize = 65_536;
/// How often the ledger is compared with what is loaded.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a table that could not be loaded is left alone in the background.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Share of the time that loading one port again and again may take, as its reciprocal: a backfill publishes a version
/// every second, and look-ups must not pay for each.
const REST: u32 = 9;

/// Why a port could not be loaded.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("the table could not be read")]
    Lake(#[from] lake::LakeError),
    #[error("the table could not be scanned")]
    Scan(#[from] datafusion::error::DataFusionError),
    #[error("a row could not be written as JSON")]
    Row(#[from] arrow::error::ArrowError),
    #[error("a row could not be read back from JSON")]
    Json(#[from] serde_json::Error),
    #[error("the table lacks the column `{0}`")]
    NoColumn(String),
    #[error("the table needs more than {} MiB in memory", MOST_BYTES / 1024 / 1024)]
    TooLarge,
}

impl From<LoadError> for LookupError {
    fn from(error: LoadError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// [`BatchLookup`] over the lake.
#[derive(Clone)]
pub struct TableLookup {
    lake: Arc<Lake>,
    ledger: SharedLedger,
    slots: Arc<RwLock<BTreeMap<PortId, Arc<Slot>>>>,
}

/// What is known of one port.
#[derive(Default)]
struct Slot {
    loaded: RwLock<Option<Arc<Loaded>>>,
    /// One load at a time; whoever waited finds the result.
    loading: Mutex<()>,
    /// When the last load failed, if it did.
    failed: RwLock<Option<Instant>>,
}

/// One version of a port's table, by key.
#[derive(Debug)]
struct Loaded {
    version: i64,
    /// Which definition it was loaded for: another key column makes it another map.
    key: String,
    batches: Vec<RecordBatch>,
    /// Key to batch, row and partition.
    index: HashMap<String, Place>,
    partitions: Vec<String>,
    /// Newest data time by partition.
    data_times: BTreeMap<String, Option<i64>>,
    took: Duration,
    at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    batch: usize,
    row: usize,
    partition: usize,
}

/// What the ledger says is to be loaded.
struct Wanted {
    key: String,
    format: lake::TableFormat,
    version: i64,
    data_times: BTreeMap<String, Option<i64>>,
}

impl TableLookup {
    /// Returns a look-up over the tables of a lake, as far as the ledger says that they are published.
    #[must_use]
    pub fn new(lake: Arc<Lake>, ledger: SharedLedger) -> Self {
        Self { lake, ledger, slots: Arc::default() }
    }

    /// Loads newer versions of the ports that were asked for, until cancelled.
    pub async fn keep_fresh(self, cancelled: CancellationToken) {
        loop {
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => self.refresh().await,
            }
        }
    }

    /// Loads newer versions of the ports that were asked for, once. A failure leaves the version in memory serving.
    pub async fn refresh(&self) {
        let ledger = snapshot(&self.ledger);
        let slots: Vec<(PortId, Arc<Slot>)> =
            read(&self.slots).iter().map(|(port, slot)| (port.clone(), Arc::clone(slot))).collect();
        for (port, slot) in slots {
            let Some(wanted) = wanted(&ledger, &port) else {
                // Retired, or no longer to be looked up.
                *slot.loaded.write().unwrap_or_else(PoisonError::into_inner) = None;
                continue;
            };
            let current = read(&slot.loaded).clone();
            let due = current.is_none_or(|loaded| {
                let newer = loaded.version != wanted.version || loaded.key != wanted.key;
                newer && loaded.at.elapsed() >= loaded.took * REST
            });
            let resting = read(&slot.failed).is_some_and(|at| at.elapsed() < AFTER_FAILURE);
            if due
                && !resting
                && let Err(error) = self.load(&port, &slot, wanted).await
            {
                tracing::warn!(%port, error = %error, "rows for look-ups could not be loaded; older ones serve on");
            }
        }
    }

    async fn load(&self, port: &PortId, slot: &Slot, wanted: Wanted) -> Result<Arc<Loaded>, LoadError> {
        let _turn = slot.loading.lock().await;
        let current = read(&slot.loaded).clone();
        if let Some(loaded) =
            current.filter(|loaded| loaded.version >= wanted.version && loaded.key == wanted.key)
        {
            return Ok(loaded);
        }
        let loaded = load(&self.lake, port, wanted).await;
        *slot.failed.write().unwrap_or_else(PoisonError::into_inner) = loaded.is_err().then(Instant::now);
        let loaded = Arc::new(loaded?);
        *slot.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&loaded));
        Ok(loaded)
    }
}

#[async_trait]
impl BatchLookup for TableLookup {
    async fn row(&self, port: &PortId, key: &str) -> Result<Option<BatchRow>, LookupError> {
        let known = read(&self.slots).get(port).cloned();
        let current = known.as_ref().and_then(|slot| read(&slot.loaded).clone());
        let ledger = snapshot(&self.ledger);
        let state =
            ledger.deployed.get(&port.product).and_then(|deployed| deployed.product.outputs.get(&port.port));
        let key_column = state.and_then(|output| output.access.lookup.as_deref());
        let loaded = match current.filter(|loaded| Some(loaded.key.as_str()) == key_column) {
            Some(loaded) => loaded,
            None => {
                let wanted = wanted(&ledger, port)
                    .ok_or_else(|| LookupError::NotReady(format!("{port} has published nothing yet")))?;
                let slot = known.unwrap_or_else(|| {
                    let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
                    Arc::clone(slots.entry(port.clone()).or_default())
                });
                // A task of its own: a caller who gives up does not undo the work that the next one waits for.
                let (lookup, port) = (self.clone(), port.clone());
                let load = tokio::spawn(async move { lookup.load(&port, &slot, wanted).await });
                load.await.map_err(|error| LookupError::Failed(Box::new(error)))??
            }
        };
        loaded.row(key).map_err(LookupError::from)
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    // Values are replaced whole, so a panic elsewhere cannot have left one half-written.
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn wanted(ledger: &LedgerState, port: &PortId) -> Option<Wanted> {
    let output: &OutputPort = ledger.deployed.get(&port.product)?.product.outputs.get(&port.port)?;
    let state: &PortState = ledger.ports.get(port)?;
    let format = match output.format {
        TableFormat::Delta => lake::TableFormat::Delta,
        TableFormat::Iceberg => lake::TableFormat::Iceberg,
    };
    let times = state.partitions.iter().map(|(partition, it)| (partition.clone(), it.published.data_time_ms));
    let mut data_times: BTreeMap<String, Option<i64>> = times.collect();
    data_times.entry(String::new()).or_insert(state.newest_data_ms);
    Some(Wanted { key: output.access.lookup.clone()?, format, version: state.version, data_times })
}

async fn load(lake: &Lake, port: &PortId, wanted: Wanted) -> Result<Loaded, LoadError> {
    let begun = Instant::now();
    let table = lake.table(&port.to_string(), wanted.format)?;
    let partition_by = match table.state().await? {
        TableState::Known(known) => known.partition_by,
        TableState::Absent => None,
    };
    let provider = table.provider(Some(Version(wanted.version))).await?;
    let mut stream = SessionContext::new().read_table(provider)?.execute_stream().await?;
    let mut loaded = Loaded {
        version: wanted.version,
        key: wanted.key,
        batches: Vec::new(),
        index: HashMap::new(),
        partitions: Vec::new(),
        data_times: wanted.data_times,
        took: Duration::ZERO,
        at: begun,
    };
    let (mut rows, mut known) = (0, HashMap::new());
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows += batch.num_rows();
        loaded.take(batch, partition_by.as_deref(), &mut known)?;
        if rows > 2 * loaded.index.len() + COMPACT_AT {
            rows = loaded.compact()?;
        }
        if loaded.bytes() > MOST_BYTES {
            loaded.compact()?;
            if loaded.bytes() > MOST_BYTES {
                return Err(LoadError::TooLarge);
            }
        }
    }
    loaded.compact()?;
    loaded.took = begun.elapsed();
    loaded.at = Instant::now();
    Ok(loaded)
}

/// Returns a column as text: days as `2026-08-01`, numbers in digits.
fn texts(batch: &RecordBatch, name: &str) -> Result<StringArray, LoadError> {
    let column: &ArrayRef = batch.column_by_name(name).ok_or_else(|| LoadError::NoColumn(name.to_owned()))?;
    Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
}

impl Loaded {
    /// Takes in one batch: a row counts unless its key is there already from a partition at least as new.
    fn take(
        &mut self,
        batch: RecordBatch,
        partition_by: Option<&str>,
        known: &mut HashMap<String, usize>,
    ) -> Result<(), LoadError> {
        let keys = texts(&batch, &self.key)?;
        let partitions = partition_by.map(|by| texts(&batch, by)).transpose()?;
        let number = self.batches.len();
        for row in 0..batch.num_rows() {
            if keys.is_null(row) {
                continue;
            }
            let partition = partitions.as_ref().map_or("", |partitions| partitions.value(row));
            let partition = match known.get(partition) {
                Some(partition) => *partition,
                None => {
                    self.partitions.push(partition.to_owned());
                    known.insert(partition.to_owned(), self.partitions.len() - 1);
                    self.partitions.len() - 1
                }
            };
            let place = Place { batch: number, row, partition };
            match self.index.get_mut(keys.value(row)) {
                Some(before) if self.partitions[before.partition] >= self.partitions[partition] => {}
                Some(before) => *before = place,
                None => {
                    self.index.insert(keys.value(row).to_owned(), place);
                }
            }
        }
        self.batches.push(batch);
        Ok(())
    }

    /// Drops the rows that no key leads to, and returns how many are left.
    fn compact(&mut self) -> Result<usize, LoadError> {
        let mut live: Vec<Vec<bool>> =
            self.batches.iter().map(|batch| vec![false; batch.num_rows()]).collect();
        for place in self.index.values() {
            live[place.batch][place.row] = true;
        }
        let (mut kept, mut moved) = (Vec::new(), Vec::with_capacity(live.len()));
        for (batch, live) in self.batches.iter().zip(live) {
            // Where each row goes: the number of live rows before it.
            let places: Vec<usize> = live
                .iter()
                .scan(0, |next, live| {
                    let place = *next;
                    *next += usize::from(*live);
                    Some(place)
                })
                .collect();
            let rest = filter_record_batch(batch, &BooleanArray::from(live))?;
            moved.push((kept.len(), places));
            if rest.num_rows() > 0 {
                kept.push(rest);
            }
        }
        for place in self.index.values_mut() {
            let (batch, places) = &moved[place.batch];
            place.row = places[place.row];
            place.batch = *batch;
        }
        self.batches = kept;
        Ok(self.index.len())
    }

    fn bytes(&self) -> usize {
        self.batches.iter().map(RecordBatch::get_array_memory_size).sum()
    }

    fn row(&self, key: &str) -> Result<Option<BatchRow>, LoadError> {
        let Some(place) = self.index.get(key) else { return Ok(None) };
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
        writer.write(&self.batches[place.batch].slice(place.row, 1))?;
        writer.finish()?;
        let mut rows: Vec<Map<String, Value>> = serde_json::from_slice(&writer.into_inner())?;
        let values =
            rows.pop().unwrap_or_default().into_iter().filter(|(name, _)| *name != self.key).collect();
        let partition = &self.partitions[place.partition];
        Ok(Some(BatchRow {
            values,
            as_of_ms: self.data_times.get(partition).copied().flatten(),
            partition: (!partition.is_empty()).then(|| partition.clone()),
            version: self.version,
        }))
    }
}
