//! Reads the files of an input port, row by row: what cannot be read is set aside and told, never dropped in silence.

mod records;
mod rows;
mod values;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::catalog::{MemTable, TableProvider};
use hydromesh_core::ledger::ErrorKind;
use hydromesh_core::model::Column;
use serde_json::Value;

use self::records::{Fault, Field, Record, Records};
use self::rows::{ROW_BYTES, Rows};
use self::values::{Cell, Kind};
use super::batch::EngineError;

/// What came out of files.
#[derive(Debug, Clone)]
pub struct FilesRead {
    /// The rows, ordered by path and line.
    pub batches: Vec<RecordBatch>,
    /// The contract's columns.
    pub schema: SchemaRef,
    /// The rows that could not be read, ordered by path and line.
    pub quarantined: Vec<QuarantinedRow>,
}

/// A row that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedRow {
    /// The path as given.
    pub file: String,
    /// The line that the row begins in, 1-based.
    pub line: u64,
    /// Names the column and what was expected, never the value, which may be of a person.
    pub reason: String,
}

/// Returns the rows of CSV (`.csv`, with a header, RFC 4180) and JSON lines (`.jsonl`) as the contract's columns.
///
/// Columns are matched by name and others ignored. An empty CSV field, quoted or not, is null; an empty line is no row.
/// A null in a required column is kept, since quality rules decide about it; a required field that a JSON object lacks
/// is not.
///
/// # Errors
/// When a file has another extension, or a CSV header that cannot be read, lacks a column or has it twice.
pub fn read_files(files: &[(String, Vec<u8>)], columns: &[Column]) -> Result<FilesRead, EngineError> {
    let mut files = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect::<Vec<_>>();
    files.sort_unstable();
    let mut reading = Reading {
        columns: columns.iter().map(|column| (column, Kind::of(column))).collect(),
        rows: Rows::new(columns),
        quarantined: Vec::new(),
    };
    for (path, bytes) in files {
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        match extension.as_deref() {
            Some("csv") => reading.csv(path, bytes)?,
            Some("jsonl") => reading.json_lines(path, bytes)?,
            _ => return Err(EngineError::user(format!("{path}: only .csv and .jsonl files can be read"))),
        }
    }
    let (schema, batches) = reading.rows.finish().map_err(internal)?;
    Ok(FilesRead { batches, schema, quarantined: reading.quarantined })
}

/// Returns a table of these rows.
///
/// # Panics
/// When a batch has another schema, which is a mistake of the caller's.
#[must_use]
pub fn memory_table(schema: SchemaRef, batches: Vec<RecordBatch>) -> Arc<dyn TableProvider> {
    Arc::new(MemTable::try_new(schema, vec![batches]).expect("every batch was built with the schema"))
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` passes")]
fn internal(error: ArrowError) -> EngineError {
    EngineError { kind: ErrorKind::Internal, code: "HM-X004", message: error.to_string() }
}

struct Reading<'c> {
    columns: Vec<(&'c Column, Kind)>,
    rows: Rows,
    quarantined: Vec<QuarantinedRow>,
}

impl Reading<'_> {
    fn csv(&mut self, path: &str, bytes: &[u8]) -> Result<(), EngineError> {
        let mut records = Records::new(bytes);
        let mut fields = Vec::new();
        let header = records.read(&mut fields);
        let header =
            header.ok_or_else(|| EngineError::user(format!("{path} is empty; it needs a header")))?;
        let text = readable(&header, &fields, &[])
            .map_err(|reason| EngineError::user(format!("{path}: the header cannot be read: {reason}")))?;
        let names = fields.iter().map(|field| field.of(text).into_owned()).collect::<Vec<_>>();
        let places = self.places(path, &names)?;

        let mut cells = Vec::with_capacity(places.len());
        while let Some(record) = records.read(&mut fields) {
            match self.csv_row(&record, &fields, &names, &places, &mut cells) {
                Ok(()) => self.rows.push(&mut cells, record.bytes.len()).map_err(internal)?,
                Err(reason) => self.set_aside(path, record.line, reason),
            }
        }
        Ok(())
    }

    /// Returns which field of a record each column is.
    fn places(&self, path: &str, names: &[String]) -> Result<Vec<usize>, EngineError> {
        let place = |(column, _): &(&Column, Kind)| {
            let mut found = (0..names.len()).filter(|index| names[*index] == column.name);
            match (found.next(), found.next()) {
                (Some(index), None) => Ok(index),
                (None, _) => {
                    Err(EngineError::user(format!("{path}: the header lacks column {}", column.name)))
                }
                _ => Err(EngineError::user(format!("{path}: the header has column {} twice", column.name))),
            }
        };
        self.columns.iter().map(place).collect()
    }

    fn csv_row<'a>(
        &self,
        record: &Record<'a>,
        fields: &[Field],
        names: &[String],
        places: &[usize],
        cells: &mut Vec<Cell<'a>>,
    ) -> Result<(), String> {
        cells.clear();
        let text = readable(record, fields, names)?;
        if fields.len() != names.len() {
            let plural = if fields.len() == 1 { "field" } else { "fields" };
            return Err(format!("the row has {} {plural}, the header {}", fields.len(), names.len()));
        }
        for ((column, kind), place) in self.columns.iter().zip(places) {
            let field = fields.get(*place).map_or(Cow::Borrowed(""), |field| field.of(text));
            cells.push(if field.is_empty() {
                Cell::Null
            } else {
                kind.text(field).ok_or_else(|| unlike(column, *kind))?
            });
        }
        Ok(())
    }

    fn json_lines(&mut self, path: &str, bytes: &[u8]) -> Result<(), EngineError> {
        let mut cells = Vec::with_capacity(self.columns.len());
        for (line, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match self.json_row(bytes, &mut cells) {
                Ok(()) => self.rows.push(&mut cells, bytes.len()).map_err(internal)?,
                Err(reason) => self.set_aside(path, line, reason),
            }
        }
        Ok(())
    }

    fn json_row(&self, bytes: &[u8], cells: &mut Vec<Cell<'_>>) -> Result<(), String> {
        cells.clear();
        if bytes.len() > ROW_BYTES {
            return Err(TOO_LONG.to_owned());
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| format!("byte {} is not UTF-8", error.valid_up_to() + 1))?;
        let value = serde_json::from_str(text).map_err(|error| not_json(&error))?;
        let Value::Object(mut object) = value else {
            return Err("the line is JSON but not an object".to_owned());
        };
        for (column, kind) in &self.columns {
            cells.push(match object.get_mut(&column.name).map(Value::take) {
                Some(value) => kind.json(value).ok_or_else(|| unlike(column, *kind))?,
                None if column.required => {
                    return Err(format!("the object lacks the required field {}", column.name));
                }
                None => Cell::Null,
            });
        }
        Ok(())
    }

    fn set_aside(&mut self, path: &str, line: u64, reason: String) {
        self.quarantined.push(QuarantinedRow { file: path.to_owned(), line, reason });
    }
}

const TOO_LONG: &str = "the row is longer than 1 GiB";

fn unlike(column: &Column, kind: Kind) -> String {
    format!("column {}: expected {kind}", column.name)
}

/// Returns a record's text; the error names the column of the fault when the header is known.
fn readable<'a>(record: &Record<'a>, fields: &[Field], names: &[String]) -> Result<&'a str, String> {
    let column = |index: usize| match names.get(index) {
        Some(name) => format!("column {name}"),
        None => format!("field {}", index + 1),
    };
    match record.fault {
        Some(Fault::TextAfterQuote(index)) => {
            return Err(format!(
                "{}: expected a comma or the line's end after a closing quote",
                column(index)
            ));
        }
        Some(Fault::QuoteStaysOpen(index)) => {
            return Err(format!("{}: a quote opens and never closes", column(index)));
        }
        None if record.bytes.len() > ROW_BYTES => return Err(TOO_LONG.to_owned()),
        None => {}
    }
    std::str::from_utf8(record.bytes).map_err(|error| {
        let index = fields.iter().position(|field| field.contains(error.valid_up_to())).unwrap_or_default();
        format!("{}: expected UTF-8", column(index))
    })
}

/// The parser's text ends in a line number, which within a line says nothing, and repeats no value.
fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("not JSON from character {}: {what}", error.column())
}

#[cfg(test)]
mod tests;
