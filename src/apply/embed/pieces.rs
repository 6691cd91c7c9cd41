//! The texts of the source, and the chunks that they are cut into.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray as _;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::prelude::ident;
use futures::StreamExt as _;
use hydromesh_core::model::EmbeddingPipeline;

use super::super::{Context, Reporter, StepError};
use super::{BAD_COLUMNS, cancellable};
use crate::engine::EngineError;
use crate::vector::{ChunkSizes, Model, split};

/// The first reasons of set-aside rows that are told; the count is complete.
const REASONS: usize = 5;

/// A chunk of a source text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Identifies the text.
    pub id: String,
    /// Number within the text, from 0.
    pub chunk: i64,
    pub text: String,
    /// Of its vector.
    pub address: String,
}

/// Rows that cannot be embedded.
#[derive(Debug, Default)]
pub(super) struct SetAside {
    pub rows: u64,
    /// The first few; never a value of a row.
    pub reasons: Vec<String>,
}

impl SetAside {
    fn add(&mut self, row: u64, why: &str) {
        self.rows += 1;
        if self.reasons.len() < REASONS {
            self.reasons.push(format!("row {row}: {why}"));
        }
    }
}

/// One row of the source.
pub(super) struct Source {
    /// Number of the row in the version that was read, from 1.
    row: u64,
    id: Option<String>,
    text: Option<String>,
}

/// Reads id and text of every row of the source.
pub(super) async fn read_source(
    context: &Context,
    pipeline: &EmbeddingPipeline,
    table: Arc<dyn TableProvider>,
    reporter: &Reporter,
) -> Result<Vec<Source>, StepError> {
    let session = context.engine.session(BTreeMap::new()).map_err(EngineError::from)?;
    let columns = [&pipeline.id, &pipeline.text].map(|name| ident(name.as_str()));
    let frame = session
        .read_table(table)
        .and_then(|frame| frame.select(columns.to_vec()))
        .map_err(EngineError::from)?;
    let mut batches = frame.execute_stream().await.map_err(EngineError::from)?;
    let mut sources = Vec::new();
    while let Some(batch) = cancellable(reporter, batches.next()).await? {
        let batch = batch.map_err(EngineError::from)?;
        let column = |at: usize| {
            let column = cast(batch.column(at), &DataType::Utf8);
            column.map_err(|error| {
                StepError::user(
                    BAD_COLUMNS,
                    format!("column {} is no text: {error}", batch.schema().field(at).name()),
                )
            })
        };
        let (ids, texts) = (column(0)?, column(1)?);
        let (ids, texts) = (ids.as_string::<i32>(), texts.as_string::<i32>());
        for (id, text) in ids.iter().zip(texts) {
            let row = sources.len() as u64 + 1;
            sources.push(Source { row, id: id.map(str::to_owned), text: text.map(str::to_owned) });
        }
    }
    Ok(sources)
}

/// Cuts the texts into chunks, ordered by id and number.
///
/// Of several rows with one id the first in order of their texts counts, so that the choice does not depend on how the
/// rows lie in files.
pub(super) fn pieces(
    mut sources: Vec<Source>,
    pipeline: &EmbeddingPipeline,
    sizes: ChunkSizes,
    model: &Model,
) -> (Vec<Piece>, SetAside) {
    sources.sort_by(|left, right| (&left.id, &left.text, left.row).cmp(&(&right.id, &right.text, right.row)));
    let (mut pieces, mut set_aside) = (Vec::new(), SetAside::default());
    let mut last: Option<String> = None;
    for Source { row, id, text } in sources {
        let Some(id) = id else {
            set_aside.add(row, &format!("{} is null", pipeline.id));
            continue;
        };
        let Some(text) = text else {
            set_aside.add(row, &format!("{} is null", pipeline.text));
            continue;
        };
        if text.trim().is_empty() {
            set_aside.add(row, &format!("{} is blank", pipeline.text));
            continue;
        }
        if last.as_ref() == Some(&id) {
            set_aside.add(row, &format!("{} is that of another row", pipeline.id));
            continue;
        }
        // A stretch of white space longer than a chunk says nothing.
        let chunks = split(&text, sizes).into_iter().filter(|chunk| !chunk.trim().is_empty());
        pieces.extend((0..).zip(chunks).map(|(chunk, text)| Piece {
            id: id.clone(),
            chunk,
            text: text.to_owned(),
            address: model.address(text),
        }));
        last = Some(id);
    }
    (pieces, set_aside)
}
