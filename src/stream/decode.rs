//! From messages to Arrow: a strict JSON decoder that sets aside what it cannot take, with the reason.
//!
//! One bad message never stops a stream: it becomes a [`DeadLetter`], its neighbours become rows.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
};
use serde_json::{Map, Value};

use self::column::Column;
use super::{Message, Offset, PartitionId};

mod column;

/// Columns that the decoder adds after the schema's own.
const PARTITION: &str = "_partition";
const OFFSET: &str = "_offset";
const AVAILABLE_AT: &str = "_available_at";

/// Unknown field names counted one by one; further ones are counted together, so that hostile input cannot fill memory.
const MAX_UNKNOWN_NAMES: usize = 64;
const OTHER_NAMES: &str = "(other fields)";

/// Whether a JSON number may stand for a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NumericTimestamps {
    /// Text in RFC 3339 only: a number could mean seconds, milliseconds or microseconds.
    #[default]
    Refuse,
    /// Whole milliseconds since 1970-01-01 UTC.
    EpochMillis,
    /// Whole microseconds since 1970-01-01 UTC.
    EpochMicros,
}

/// How messages are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeRules {
    pub numeric_timestamps: NumericTimestamps,
    /// Bytes of a malformed payload kept in its dead letter.
    pub payload_cap_bytes: usize,
}

impl Default for DecodeRules {
    fn default() -> Self {
        DecodeRules { numeric_timestamps: NumericTimestamps::Refuse, payload_cap_bytes: 4096 }
    }
}

/// A message that is no row, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub partition: PartitionId,
    pub offset: Offset,
    /// The payload as text, bytes that are not UTF-8 replaced, cut at [`DecodeRules::payload_cap_bytes`].
    pub payload: String,
    pub reason: String,
    pub timestamp_ms: i64,
}

/// What became of some messages: every one is either a row or a dead letter.
#[derive(Debug, Clone)]
#[must_use]
pub struct Decoded {
    /// The schema's columns, then `_partition`, `_offset`, `_available_at`; rows in the messages' order.
    pub batch: RecordBatch,
    pub dead: Vec<DeadLetter>,
    /// How often each field occurred that the schema does not name.
    pub unknown_fields: BTreeMap<String, u64>,
}

/// Why a decoder cannot be made, or its rows not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum DecoderError {
    #[error("column {column} has type {data_type}, which JSON messages cannot be decoded to")]
    UnsupportedType { column: String, data_type: DataType },
    #[error("column {column} occurs twice or has a name that the decoder adds itself")]
    ReservedColumn { column: String },
    #[error("the decoded columns do not form a batch")]
    Assemble(#[source] ArrowError),
}

/// Decodes JSON objects to rows of one schema.
///
/// Types are strict: the text `"12"` is no integer, `12.0` neither, `1` is no boolean. A field that is absent or `null`
/// is a null, or a dead letter if the column is not nullable. If a name occurs twice in one object the last one counts.
#[derive(Debug, Clone)]
pub struct JsonDecoder {
    columns: Vec<Field>,
    output: SchemaRef,
    rules: DecodeRules,
}

impl JsonDecoder {
    /// Returns a decoder for the schema's columns.
    ///
    /// # Errors
    ///
    /// Refuses nested types, and columns named as those the decoder adds.
    pub fn new(schema: &Schema, rules: DecodeRules) -> Result<Self, DecoderError> {
        let columns: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut seen = vec![PARTITION, OFFSET, AVAILABLE_AT];
        for field in &columns {
            if seen.contains(&field.name().as_str()) {
                return Err(DecoderError::ReservedColumn { column: field.name().clone() });
            }
            seen.push(field.name());
            Column::new(field.data_type(), 0).ok_or_else(|| DecoderError::UnsupportedType {
                column: field.name().clone(),
                data_type: field.data_type().clone(),
            })?;
        }
        let mut fields = columns.clone();
        fields.extend([
            Field::new(PARTITION, DataType::Int32, false),
            Field::new(OFFSET, DataType::Int64, false),
            Field::new(AVAILABLE_AT, available_type(), false),
        ]);
        let output = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        Ok(JsonDecoder { columns, output, rules })
    }

    /// Returns the schema of decoded batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.output
    }

    /// Decodes messages to one batch.
    ///
    /// # Errors
    ///
    /// Never because of a message's content; [`DecoderError::Assemble`] would be a bug of this decoder.
    pub fn decode(&self, messages: &[Message]) -> Result<Decoded, DecoderError> {
        let mut columns: Vec<Column> =
            self.columns.iter().filter_map(|field| Column::new(field.data_type(), messages.len())).collect();
        let (mut dead, mut unknown_fields, mut rows) = (Vec::new(), BTreeMap::new(), Vec::new());
        for message in messages {
            match self.decode_row(message, &mut columns, rows.len()) {
                Ok(object) => {
                    self.count_unknown(&object, &mut unknown_fields);
                    rows.push(message);
                }
                Err(reason) => dead.push(self.dead_letter(message, reason)),
            }
        }
        let mut arrays: Vec<ArrayRef> = columns.into_iter().map(Column::finish).collect();
        let available = rows.iter().map(|message| message.timestamp_ms.saturating_mul(1000));
        arrays.push(Arc::new(rows.iter().map(|message| message.partition).collect::<Int32Array>()));
        arrays.push(Arc::new(rows.iter().map(|message| message.offset).collect::<Int64Array>()));
        arrays.push(Arc::new(TimestampMicrosecondArray::from_iter_values(available).with_timezone("UTC")));
        let batch = RecordBatch::try_new(self.output.clone(), arrays).map_err(DecoderError::Assemble)?;
        Ok(Decoded { batch, dead, unknown_fields })
    }

    /// Adds one row to all columns, or to none and says why.
    fn decode_row(
        &self,
        message: &Message,
        columns: &mut [Column],
        row: usize,
    ) -> Result<Map<String, Value>, String> {
        if message.payload.is_empty() {
            return Err("the payload is empty".to_owned());
        }
        let object = match serde_json::from_slice(&message.payload) {
            Ok(Value::Object(object)) => object,
            Ok(other) => {
                return Err(format!("the payload is not a JSON object but {}", column::describe(&other)));
            }
            Err(error) => return Err(format!("the payload is not JSON: {error}")),
        };
        for (field, column) in self.columns.iter().zip(columns.iter_mut()) {
            let pushed = match object.get(field.name()) {
                None if !field.is_nullable() => Err("is required but missing".to_owned()),
                Some(Value::Null) if !field.is_nullable() => Err("is required but null".to_owned()),
                None | Some(Value::Null) => {
                    column.push_null();
                    Ok(())
                }
                Some(value) => column.push(value, self.rules.numeric_timestamps),
            };
            if let Err(why) = pushed {
                for column in columns.iter_mut() {
                    column.truncate(row);
                }
                return Err(format!("field {} {why}", field.name()));
            }
        }
        Ok(object)
    }

    fn count_unknown(&self, object: &Map<String, Value>, counts: &mut BTreeMap<String, u64>) {
        for name in object.keys().filter(|name| self.columns.iter().all(|field| field.name() != *name)) {
            let known = counts.contains_key(name) || counts.len() < MAX_UNKNOWN_NAMES;
            *counts.entry(if known { name.clone() } else { OTHER_NAMES.to_owned() }).or_default() += 1;
        }
    }

    fn dead_letter(&self, message: &Message, reason: String) -> DeadLetter {
        let cap = self.rules.payload_cap_bytes;
        // One byte more than the cap is enough to know that something was cut.
        let bytes = &message.payload[..message.payload.len().min(cap)];
        let mut payload = String::from_utf8_lossy(bytes).into_owned();
        if bytes.len() < message.payload.len() {
            // A character cut in two shows as one replacement character, which the ellipsis stands for.
            while payload.ends_with(char::REPLACEMENT_CHARACTER) {
                payload.pop();
            }
            payload.push('…');
        }
        DeadLetter {
            partition: message.partition,
            offset: message.offset,
            payload,
            reason,
            timestamp_ms: message.timestamp_ms,
        }
    }
}

fn available_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Returns the columns of a dead-letter table.
pub fn dead_letter_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(PARTITION, DataType::Int32, false),
        Field::new(OFFSET, DataType::Int64, false),
        Field::new(AVAILABLE_AT, available_type(), false),
        Field::new("payload", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
    ]))
}

/// Returns dead letters as rows of [`dead_letter_schema`].
///
/// # Errors
///
/// [`DecoderError::Assemble`] would be a bug of this function.
pub fn dead_letter_batch(letters: &[DeadLetter]) -> Result<RecordBatch, DecoderError> {
    let available = letters.iter().map(|letter| letter.timestamp_ms.saturating_mul(1000));
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(letters.iter().map(|letter| letter.partition).collect::<Int32Array>()),
        Arc::new(letters.iter().map(|letter| letter.offset).collect::<Int64Array>()),
        Arc::new(TimestampMicrosecondArray::from_iter_values(available).with_timezone("UTC")),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| &letter.payload))),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| &letter.reason))),
    ];
    RecordBatch::try_new(dead_letter_schema(), arrays).map_err(DecoderError::Assemble)
}
