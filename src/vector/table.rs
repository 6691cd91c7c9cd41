//! The table of an embedding pipeline: which column holds what, and how its rows are read.

use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Int64Type, Schema};
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionContext, ident};
use futures::TryStreamExt as _;
use hydromesh_core::model::EmbeddingPipeline;

/// Column of a chunk's number within its text, from 0.
pub const CHUNK: &str = "chunk";
/// Column of the address of the chunk's vector; see [`super::Model::address`].
pub const CONTENT_HASH: &str = "content_hash";

/// Which column of the output holds what. Id and text have the names that they have in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Identifies the text.
    pub id: String,
    /// The chunk's text.
    pub text: String,
    /// The vector: the only column of that type.
    pub vector: String,
}

/// Why a table cannot hold chunks with vectors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A column is not there.
    #[error("no column `{column}` for {what}")]
    Missing {
        /// Its name.
        column: String,
        /// What it would hold.
        what: &'static str,
    },
    /// A column has another type.
    #[error("column `{column}`, which holds {what}, is of type {found}")]
    Type {
        /// Its name.
        column: String,
        /// What it holds.
        what: &'static str,
        /// Its type.
        found: String,
    },
    /// No column or several could hold the vector.
    #[error("{0} columns are vectors, where one is expected")]
    Vectors(usize),
    /// Id and text of the source would be the same column, or a column of ours.
    #[error("column `{0}` cannot hold two things")]
    Clash(String),
    /// A column that nothing would fill.
    #[error("column `{0}` is not filled by an embedding: it holds id, chunk, text, content_hash and vector")]
    Unfilled(String),
}

/// Whether columns beyond those of a [`Layout`] are an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// A contract promises them in vain.
    Refused,
    /// A table keeps columns that an earlier contract had.
    Ignored,
}

impl Layout {
    /// Returns the layout of a table.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn of(schema: &Schema, pipeline: &EmbeddingPipeline, others: Others) -> Result<Self, LayoutError> {
        let is_vector = |kind: &DataType| match kind {
            DataType::List(item) => item.data_type() == &DataType::Float32,
            _ => false,
        };
        let (id, text) = (pipeline.id.as_str(), pipeline.text.as_str());
        if id == text || [CHUNK, CONTENT_HASH].contains(&id) {
            return Err(LayoutError::Clash(id.to_owned()));
        }
        if [CHUNK, CONTENT_HASH].contains(&text) {
            return Err(LayoutError::Clash(text.to_owned()));
        }
        let column = |name: &str, what: &'static str, kind: Option<DataType>| {
            let missing = || LayoutError::Missing { column: name.to_owned(), what };
            let found = schema.field_with_name(name).map_err(|_| missing())?.data_type();
            match kind {
                Some(kind) if kind != *found => {
                    Err(LayoutError::Type { column: name.to_owned(), what, found: found.to_string() })
                }
                None if found.is_nested() => {
                    Err(LayoutError::Type { column: name.to_owned(), what, found: found.to_string() })
                }
                _ => Ok(()),
            }
        };
        column(id, "the id", None)?;
        column(text, "the text", Some(DataType::Utf8))?;
        column(CHUNK, "the chunk's number", Some(DataType::Int64))?;
        column(CONTENT_HASH, "the vector's address", Some(DataType::Utf8))?;
        let vectors: Vec<&str> = schema
            .fields()
            .iter()
            .filter(|field| is_vector(field.data_type()))
            .map(|field| field.name().as_str())
            .collect();
        let [vector] = vectors.as_slice() else { return Err(LayoutError::Vectors(vectors.len())) };
        let known = [id, text, CHUNK, CONTENT_HASH, vector];
        let other = schema.fields().iter().find(|field| !known.contains(&field.name().as_str()));
        if let (Some(other), Others::Refused) = (other, others) {
            return Err(LayoutError::Unfilled(other.name().clone()));
        }
        Ok(Self { id: id.to_owned(), text: text.to_owned(), vector: (*vector).to_owned() })
    }
}

/// A row of the table. A null is an empty value: contracts decide whether it may be one.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRow {
    /// Identifies the text, as text.
    pub id: String,
    /// The chunk's number.
    pub chunk: i64,
    /// The chunk's text.
    pub text: String,
    /// The address of its vector.
    pub content_hash: String,
    /// Its vector.
    pub vector: Vec<f32>,
}

/// Returns the rows of a version, ordered by id and chunk.
///
/// # Errors
/// When the table cannot be read.
pub async fn read_rows(
    table: Arc<dyn TableProvider>,
    layout: &Layout,
) -> Result<Vec<StoredRow>, DataFusionError> {
    let names = [&layout.id, CHUNK, &layout.text, CONTENT_HASH, &layout.vector];
    let frame = SessionContext::new().read_table(table)?.select(names.map(ident).to_vec())?;
    let mut batches = frame.execute_stream().await?;
    let mut rows = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        append(&mut rows, &batch)?;
    }
    rows.sort_by(|left: &StoredRow, right| (&left.id, left.chunk).cmp(&(&right.id, right.chunk)));
    Ok(rows)
}

fn append(rows: &mut Vec<StoredRow>, batch: &RecordBatch) -> Result<(), DataFusionError> {
    let as_text = |column: usize| cast(batch.column(column), &DataType::Utf8);
    let (ids, texts, hashes) = (as_text(0)?, as_text(2)?, as_text(3)?);
    let (ids, texts, hashes) = (ids.as_string::<i32>(), texts.as_string::<i32>(), hashes.as_string::<i32>());
    let chunks = cast(batch.column(1), &DataType::Int64)?;
    let chunks = chunks.as_primitive::<Int64Type>();
    let unexpected = || DataFusionError::Execution("the vectors are not lists of 32-bit floats".to_owned());
    let vectors = batch.column(4).as_list_opt::<i32>().ok_or_else(unexpected)?;
    let numbers = vectors.values().as_primitive_opt::<Float32Type>().ok_or_else(unexpected)?;
    let text = |column: &arrow::array::StringArray, row: usize| {
        if column.is_null(row) { String::new() } else { column.value(row).to_owned() }
    };
    for row in 0..batch.num_rows() {
        let mut vector = Vec::new();
        if !vectors.is_null(row) {
            let offsets = vectors.value_offsets();
            let range =
                usize::try_from(offsets[row]).and_then(|from| Ok(from..usize::try_from(offsets[row + 1])?));
            let range = range.map_err(|_| unexpected())?;
            vector.extend(range.map(|at| if numbers.is_null(at) { f32::NAN } else { numbers.value(at) }));
        }
        rows.push(StoredRow {
            id: text(ids, row),
            chunk: if chunks.is_null(row) { -1 } else { chunks.value(row) },
            text: text(texts, row),
            content_hash: text(hashes, row),
            vector,
        });
    }
    Ok(())
}
