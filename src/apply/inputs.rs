//! Opens a product's inputs as tables: other ports at pinned versions, and the files of its own folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use hydromesh_core::ids::{PortId, PortName, ProductId};
use hydromesh_core::ledger::Fact;
use hydromesh_core::model::{Contract, InputPort, InputSource, Product};

use super::{Context, Job, StepError, lake_format};
use crate::engine::{memory_table, read_files};
use crate::lake::{TableFormat, Version};

/// The first reasons of set-aside rows that are told; the count is complete.
const REASONS: usize = 5;

/// A product's inputs, open.
pub(super) struct Inputs {
    /// By table name.
    pub tables: BTreeMap<String, Arc<dyn TableProvider>>,
    /// Versions read.
    pub versions: BTreeMap<PortId, i64>,
    /// Rows of files that were set aside.
    pub facts: Vec<Fact>,
}

/// Returns the format of a port's table as deployed.
///
/// # Errors
/// When no deployed product has the port.
pub fn table_format(
    products: &BTreeMap<ProductId, Product>,
    port: &PortId,
) -> Result<TableFormat, StepError> {
    let output = products.get(&port.product).and_then(|product| product.outputs.get(&port.port));
    let output = output.ok_or_else(|| StepError::external("HM-X005", format!("{port} is not deployed")))?;
    Ok(lake_format(output.format))
}

/// Opens those inputs of the job's product that are tables: topics are followed, not opened.
pub(super) async fn open(context: &Context, job: &Job) -> Result<Inputs, StepError> {
    open_those(context, job, |_| true).await
}

/// Opens one of them.
pub(super) async fn open_one(context: &Context, job: &Job, name: &PortName) -> Result<Inputs, StepError> {
    open_those(context, job, |input| input.name == *name).await
}

async fn open_those(
    context: &Context,
    job: &Job,
    wanted: impl Fn(&InputPort) -> bool,
) -> Result<Inputs, StepError> {
    let product = job.product()?;
    let mut inputs = Inputs { tables: BTreeMap::new(), versions: BTreeMap::new(), facts: Vec::new() };
    for input in product.inputs.values().filter(|input| wanted(input)) {
        let table = match &input.source {
            InputSource::Port { port } => {
                // A port that another pipeline of the product needs may not be there yet.
                let Some(version) = job.versions.get(port) else { continue };
                let table = context.lake.table(&port.to_string(), table_format(&job.products, port)?)?;
                inputs.versions.insert(port.clone(), *version);
                table.provider(Some(Version(*version))).await?
            }
            InputSource::Files { glob, contract } => {
                let (table, fact) = files(context, job, product, input, glob, contract).await?;
                inputs.facts.extend(fact);
                table
            }
            InputSource::Topic { .. } => continue,
        };
        inputs.tables.insert(input.name.as_str().to_owned(), table);
    }
    Ok(inputs)
}

async fn files(
    context: &Context,
    job: &Job,
    product: &Product,
    input: &InputPort,
    glob: &str,
    contract: &Contract,
) -> Result<(Arc<dyn TableProvider>, Option<Fact>), StepError> {
    let chosen: Vec<(String, String)> =
        product.files_matching(glob).map(|(path, oid)| (path.to_owned(), oid.to_owned())).collect();
    if chosen.is_empty() {
        return Err(StepError::user("HM-X006", format!("no file of {} matches {glob}", product.folder)));
    }
    let count = chosen.len();
    let (blobs, columns) = (Arc::clone(&context.blobs), contract.columns.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut files = Vec::with_capacity(chosen.len());
        for (path, oid) in chosen {
            let bytes = blobs
                .read(&oid)
                .map_err(|error| StepError::external("HM-X003", format!("{path}: {error}")))?;
            files.push((path, bytes));
        }
        read_files(&files, &columns).map_err(StepError::from)
    });
    let read = read.await.map_err(|error| StepError::internal(error.to_string()))??;
    let rows: usize = read.batches.iter().map(arrow::array::RecordBatch::num_rows).sum();
    let port = product.port(&input.name);
    tracing::info!(event = "read", %port, files = count, rows, "read {rows} rows of {count} files for {port}");
    let fact = (!read.quarantined.is_empty()).then(|| Fact::Quarantined {
        port,
        run: job.start.run.clone(),
        rows: read.quarantined.len() as u64,
        reasons: read
            .quarantined
            .iter()
            .take(REASONS)
            .map(|row| format!("{}:{}: {}", row.file, row.line, row.reason))
            .collect(),
    });
    Ok((memory_table(read.schema, read.batches), fact))
}
