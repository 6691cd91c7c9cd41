//! Gathers rows into batches.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int64Builder, ListBuilder, RecordBatch, RecordBatchOptions, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use hydromesh_core::model::Column;

use super::values::{Cell, Kind};
use crate::engine::types::{arrow_schema, arrow_type};

/// Rows per batch: what the query engine works with.
const BATCH_ROWS: usize = 8192;
/// Bytes per batch, after which it is closed early: offsets of texts are 32 bits wide, and a row adds at most
/// [`ROW_BYTES`]: 256 MiB + 1 GiB < 2 GiB.
const BATCH_BYTES: usize = 256 << 20;
/// Bytes of a row that can be read.
pub(super) const ROW_BYTES: usize = 1 << 30;

/// Rows of a contract's columns on their way into batches.
#[derive(Debug)]
pub(super) struct Rows {
    schema: SchemaRef,
    builders: Vec<Builder>,
    rows: usize,
    bytes: usize,
    batches: Vec<RecordBatch>,
}

#[derive(Debug)]
enum Builder {
    Text(StringBuilder),
    Day(Date32Builder),
    Instant(TimestampMicrosecondBuilder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    Integer(Int64Builder),
    Flag(BooleanBuilder),
    Bytes(BinaryBuilder),
    Vector(ListBuilder<Float32Builder>),
}

impl Rows {
    pub(super) fn new(columns: &[Column]) -> Self {
        let builders =
            columns.iter().map(|column| Builder::new(Kind::of(column), arrow_type(column))).collect();
        Self { schema: arrow_schema(columns), builders, rows: 0, bytes: 0, batches: Vec::new() }
    }

    /// Takes one row: a cell of every column, in the columns' order, that came from so many bytes.
    pub(super) fn push(&mut self, cells: &mut Vec<Cell<'_>>, bytes: usize) -> Result<(), ArrowError> {
        for (builder, cell) in self.builders.iter_mut().zip(cells.drain(..)) {
            builder.push(cell);
        }
        self.rows += 1;
        self.bytes += bytes;
        if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.close() } else { Ok(()) }
    }

    /// Returns the rows; no batch is empty.
    pub(super) fn finish(mut self) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
        if self.rows > 0 {
            self.close()?;
        }
        Ok((self.schema, self.batches))
    }

    fn close(&mut self) -> Result<(), ArrowError> {
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.batches.push(RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?);
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

impl Builder {
    fn new(kind: Kind, stored: DataType) -> Self {
        match kind {
            Kind::Text | Kind::Time => Self::Text(StringBuilder::new()),
            Kind::Day => Self::Day(Date32Builder::new()),
            Kind::Instant => Self::Instant(TimestampMicrosecondBuilder::new().with_data_type(stored)),
            Kind::Double => Self::Double(Float64Builder::new()),
            Kind::Decimal { .. } => Self::Decimal(Decimal128Builder::new().with_data_type(stored)),
            Kind::Integer => Self::Integer(Int64Builder::new()),
            Kind::Flag => Self::Flag(BooleanBuilder::new()),
            Kind::Bytes => Self::Bytes(BinaryBuilder::new()),
            Kind::Vector(_) => Self::Vector(ListBuilder::new(Float32Builder::new())),
        }
    }

    fn push(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Self::Text(builder), Cell::Text(text)) => builder.append_value(text),
            (Self::Text(builder), Cell::Null) => builder.append_null(),
            (Self::Day(builder), Cell::Day(days)) => builder.append_value(days),
            (Self::Day(builder), Cell::Null) => builder.append_null(),
            (Self::Instant(builder), Cell::Instant(micros)) => builder.append_value(micros),
            (Self::Instant(builder), Cell::Null) => builder.append_null(),
            (Self::Double(builder), Cell::Double(number)) => builder.append_value(number),
            (Self::Double(builder), Cell::Null) => builder.append_null(),
            (Self::Decimal(builder), Cell::Decimal(number)) => builder.append_value(number),
            (Self::Decimal(builder), Cell::Null) => builder.append_null(),
            (Self::Integer(builder), Cell::Integer(number)) => builder.append_value(number),
            (Self::Integer(builder), Cell::Null) => builder.append_null(),
            (Self::Flag(builder), Cell::Flag(flag)) => builder.append_value(flag),
            (Self::Flag(builder), Cell::Null) => builder.append_null(),
            (Self::Bytes(builder), Cell::Bytes(bytes)) => builder.append_value(bytes),
            (Self::Bytes(builder), Cell::Null) => builder.append_null(),
            (Self::Vector(builder), Cell::Vector(numbers)) => {
                builder.append_value(numbers.into_iter().map(Some));
            }
            (Self::Vector(builder), Cell::Null) => builder.append_null(),
            (builder, cell) => unreachable!("{cell:?} was read by the kind that {builder:?} was made for"),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Day(builder) => Arc::new(builder.finish()),
            Self::Instant(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder) => Arc::new(builder.finish()),
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::Flag(builder) => Arc::new(builder.finish()),
            Self::Bytes(builder) => Arc::new(builder.finish()),
            Self::Vector(builder) => Arc::new(builder.finish()),
        }
    }
}
