//! A port's topic: the raw topic, read through the stream's query and rules.
//!
//! The archive is written from it, and whoever follows the port reads it again the same way; because every verdict is
//! a function of the topic, both see the same rows.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use hydromesh_core::ledger::StreamRows;
use hydromesh_core::model::{
    Contract, EventSource, InputSource, OutputPort, Product, StreamKind, StreamPipeline,
};
use hydromesh_core::time::Watermark;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::arrays::{instant, texts, times};
use super::chain::{StreamRecord, Upstream};
use super::judge::{Event, Judge, Verdict};
use super::rowwise::{RowQuery, places};
use super::{
    AVAILABLE_AT, EPOCH_MESSAGES, EPOCH_TIME, EVENT_ID, EVENT_TIME, OFFSET, PARTITION, POLL, REASON, REASONS,
    cancelled,
};
use crate::apply::{Context, StepError};
use crate::engine::{arrow_schema, arrow_type};
use crate::stream::{
    DeadLetter, DecodeRules, DecoderError, JsonDecoder, KafkaSettings, Message, ProduceTarget, Source,
    SourceError, TopicFolder, TopicOptions, open_source,
};
use crate::text::chain;

/// Payload bytes of an epoch after which it is not made larger: twice what one read may bring, 64 MiB.
const EPOCH_BYTES: usize = 64 << 20;
/// How often a silent topic is asked for new partitions, real time.
const LOOK: std::time::Duration = std::time::Duration::from_secs(30);

impl From<SourceError> for StepError {
    fn from(error: SourceError) -> Self {
        Self::external("HM-F001", chain(&error))
    }
}

impl From<DecoderError> for StepError {
    fn from(error: DecoderError) -> Self {
        Self::user("HM-F001", chain(&error))
    }
}

/// Where a view goes on.
#[derive(Debug, Clone, Default)]
pub(super) struct ViewState {
    /// The topic that the offsets are of.
    pub topic_id: Option<String>,
    /// Next offset per partition.
    pub starts: BTreeMap<i32, i64>,
    /// Newest event time per partition.
    pub newest: BTreeMap<i32, i64>,
    /// The watermark that was committed.
    pub watermark_ms: Option<i64>,
}

impl ViewState {
    /// Returns where the archive's follower goes on after its last record.
    pub fn of_archive(record: &StreamRecord) -> Self {
        Self {
            topic_id: Some(record.checkpoint.topic_id.clone()),
            starts: record.ends(),
            newest: record.newest.iter().copied().collect(),
            watermark_ms: record.checkpoint.watermark_ms,
        }
    }

    /// Returns where the view of a feature pipeline goes on after the pipeline's last record.
    pub fn of_reader(record: &StreamRecord) -> Self {
        let upstream = record.upstream.clone().unwrap_or(Upstream { newest: Vec::new(), watermark_ms: None });
        Self {
            newest: upstream.newest.into_iter().collect(),
            watermark_ms: upstream.watermark_ms,
            ..Self::of_archive(record)
        }
    }
}

/// Opens a topic. Where the environment has topic folders, one that was never read is created; one that was is not there for now,
/// and an empty one in its place would be another topic.
async fn open_topic(context: &Context, topic: &str, known: bool) -> Result<Box<dyn Source>, StepError> {
    match &context.settings.stream {
        StreamKind::Kafka { brokers } => {
            Ok(open_source(&ProduceTarget::Kafka(KafkaSettings::new(brokers.clone(), topic)))?)
        }
        StreamKind::TopicFolder => {
            let path = topic_path(context, topic)?;
            let opened = tokio::task::spawn_blocking(move || {
                if known {
                    TopicFolder::open(&path)
                } else {
                    TopicFolder::open_or_create(&path, &TopicOptions::default())
                }
            });
            let opened = opened.await.map_err(|error| StepError::internal(error.to_string()))?;
            Ok(Box::new(opened?))
        }
    }
}

/// Returns the folder of a topic.
pub(super) fn topic_path(context: &Context, topic: &str) -> Result<PathBuf, StepError> {
    let plain = topic.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if topic.is_empty() || topic.starts_with('.') || !plain {
        return Err(StepError::user("HM-F001", format!("`{topic}` is not the name of a topic")));
    }
    Ok(context.state.join("topics").join(topic))
}

/// Returns the columns of a stream's archive: the contract's, then the place of each row in the topic, then event time
/// and id where the contract has no such columns.
pub(super) fn port_schema(contract: &Contract, source: &EventSource) -> SchemaRef {
    let mut fields: Vec<Field> =
        arrow_schema(&contract.columns).fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.extend([
        Field::new(PARTITION, DataType::Int32, true),
        Field::new(OFFSET, DataType::Int64, true),
        Field::new(AVAILABLE_AT, instant(), true),
    ]);
    if time_column(contract, source) == EVENT_TIME {
        fields.push(Field::new(EVENT_TIME, instant(), true));
    }
    if id_column(contract, source) == Some(EVENT_ID) {
        fields.push(Field::new(EVENT_ID, DataType::Utf8, true));
    }
    Arc::new(Schema::new(fields))
}

/// Returns the archive's column of event time: the query's own evaluation where it has one.
pub(super) fn time_column<'a>(contract: &Contract, source: &'a EventSource) -> &'a str {
    let evaluated = |column: &&hydromesh_core::model::Column| {
        column.name == source.event_time && matches!(arrow_type(column), DataType::Timestamp(..))
    };
    if contract.columns.iter().find(evaluated).is_some() { &source.event_time } else { EVENT_TIME }
}

/// Returns the archive's column of event ids, if events have ids.
pub(super) fn id_column<'a>(contract: &Contract, source: &'a EventSource) -> Option<&'a str> {
    let id = source.event_id.as_deref()?;
    Some(if contract.columns.iter().any(|column| column.name == id) { id } else { EVENT_ID })
}

/// What became of some messages.
#[derive(Debug)]
pub(super) struct Viewed {
    /// Rows of the port.
    pub rows: RecordBatch,
    /// Rows that are set aside, with the reason in a last column.
    pub aside: RecordBatch,
    /// Messages that are no rows.
    pub dead: Vec<DeadLetter>,
    /// Ids of the rows, with the times by which they are remembered.
    pub ids: Vec<(String, i64)>,
    /// How many of each.
    pub counts: StreamRows,
    /// Events that were there already.
    pub duplicates: u64,
    /// The first reasons of dead letters, without values.
    pub dead_reasons: Vec<String>,
    /// The first reasons of rows set aside, without values.
    pub aside_reasons: Vec<String>,
}

/// A port's topic, open.
pub(super) struct PortView {
    topic: Box<dyn Source>,
    /// The topic's identity.
    pub topic_id: String,
    decoder: JsonDecoder,
    query: RowQuery,
    source: EventSource,
    time: String,
    id: Option<String>,
    required: Vec<String>,
    /// The columns of [`Viewed::rows`].
    pub schema: SchemaRef,
    /// The columns of [`Viewed::aside`].
    pub aside_schema: SchemaRef,
    /// The judge of its events.
    pub judge: Judge,
    /// How far event time has come.
    pub watermark: Watermark,
    /// Next offset per partition.
    pub next: BTreeMap<i32, i64>,
    looked: Instant,
}

impl PortView {
    /// Opens the topic of a stream's port where `state` left it, or at its beginning.
    ///
    /// # Errors
    /// When the source is no topic, the topic cannot be read, or it was created anew since: its offsets then mean
    /// other messages, and only a person can say what should happen. It may also come back as it was, so that is looked for.
    pub async fn open(
        context: &Context,
        product: &Product,
        stream: &StreamPipeline,
        output: &OutputPort,
        state: ViewState,
    ) -> Result<Self, StepError> {
        let source = &stream.source;
        let input = product.inputs.get(&source.port).map(|input| &input.source);
        let Some(InputSource::Topic { topic: name, contract: raw }) = input else {
            let message = format!("{}: the source of a stream is an input port that is a topic", source.port);
            return Err(StepError::user("HM-F001", message));
        };
        let topic = open_topic(context, name, state.topic_id.is_some()).await?;
        let topic_id = topic.topic_id().await?;
        if let Some(known) = state.topic_id.as_ref().filter(|known| **known != topic_id) {
            let message = format!(
                "topic {name} was created again: its id was {known} and is {topic_id}; its offsets mean other messages"
            );
            return Err(StepError::external("HM-F001", message));
        }
        let mut next = BTreeMap::new();
        for (partition, (low, _)) in topic.bounds().await? {
            next.insert(partition, state.starts.get(&partition).copied().unwrap_or(low));
        }
        let fields: Vec<Field> = raw
            .columns
            .iter()
            .map(|column| Field::new(&column.name, arrow_type(column), !column.required))
            .collect();
        let decoder = JsonDecoder::new(&Schema::new(fields), DecodeRules::default())?;
        let schema = port_schema(&output.contract, source);
        let mut carried = vec![PARTITION, OFFSET, AVAILABLE_AT, EVENT_TIME];
        carried.extend(source.event_id.is_some().then_some(EVENT_ID));
        let query = RowQuery {
            engine: context.engine.clone(),
            sql: stream.sql.text.clone(),
            table: source.port.as_str().to_owned(),
            output: output.contract.columns.iter().map(|column| column.name.clone()).collect(),
            carried: carried.into_iter().map(str::to_owned).collect(),
            conform: Some(arrow_schema(&output.contract.columns)),
        };
        let now_ms = context.clock.now_ms();
        let mut watermark = Watermark::new(source.bound, source.idle, state.watermark_ms);
        for partition in next.keys() {
            watermark.assign(*partition, now_ms);
        }
        for (partition, newest) in &state.newest {
            watermark.observe(*partition, *newest, now_ms);
        }
        let required = output.contract.columns.iter().filter(|column| column.required);
        Ok(Self {
            topic,
            topic_id,
            decoder,
            query,
            time: time_column(&output.contract, source).to_owned(),
            id: id_column(&output.contract, source).map(str::to_owned),
            required: required.map(|column| column.name.clone()).collect(),
            aside_schema: with_reason(&schema),
            schema,
            judge: Judge::new(source, state.newest, state.watermark_ms),
            source: source.clone(),
            watermark,
            next,
            looked: Instant::now(),
        })
    }

    /// Collects the messages of an epoch: none when none came within [`POLL`], else what comes within [`EPOCH_TIME`].
    ///
    /// # Errors
    /// When the topic cannot be read, or the step was cancelled.
    pub async fn collect(
        &mut self,
        cancel: &CancellationToken,
        now_ms: i64,
    ) -> Result<Vec<Message>, StepError> {
        let (mut messages, mut bytes, mut until): (Vec<Message>, usize, Option<Instant>) =
            (Vec::new(), 0, None);
        loop {
            let left = until.map_or(POLL, |until| POLL.min(until.saturating_duration_since(Instant::now())));
            let batch = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(cancelled()),
                batch = self.topic.read(&self.next, EPOCH_MESSAGES - messages.len(), left) => batch?,
            };
            // Ranges move over holes even when they hold no message.
            self.next.extend(batch.next());
            bytes += batch.messages.iter().map(|message| message.payload.len()).sum::<usize>();
            messages.extend(batch.messages);
            if messages.is_empty() {
                self.find_partitions(now_ms).await?;
                return Ok(messages);
            }
            let until = *until.get_or_insert_with(|| Instant::now() + EPOCH_TIME);
            if messages.len() >= EPOCH_MESSAGES || bytes >= EPOCH_BYTES || Instant::now() >= until {
                return Ok(messages);
            }
        }
    }

    /// Looks now and then for partitions that were added to the topic.
    async fn find_partitions(&mut self, now_ms: i64) -> Result<(), StepError> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        for (partition, (low, _)) in self.topic.bounds().await? {
            if let Entry::Vacant(unknown) = self.next.entry(partition) {
                unknown.insert(low);
                self.watermark.assign(partition, now_ms);
            }
        }
        Ok(())
    }

    /// Decodes messages, runs the query, and judges its rows.
    ///
    /// # Errors
    /// When the query is wrong; never because of a message.
    pub async fn read(&mut self, messages: Vec<Message>) -> Result<Viewed, StepError> {
        let decoder = self.decoder.clone();
        let decoding = tokio::task::spawn_blocking(move || {
            let decoded = decoder.decode(&messages);
            (messages, decoded)
        });
        let (messages, decoded) = decoding.await.map_err(|error| StepError::internal(error.to_string()))?;
        let decoded = decoded?;
        let mut dead = decoded.dead;
        let mut dead_reasons: Vec<String> = dead
            .iter()
            .take(REASONS)
            .map(|it| format!("{}@{}: {}", it.partition, it.offset, it.reason))
            .collect();
        let mapped = self.query.run(self.with_event(&decoded.batch)?).await?;
        for (partition, offset, why) in mapped.failed {
            let found = messages.iter().find(|it| it.partition == partition && it.offset == offset);
            dead_reasons.push(format!("{partition}@{offset}: the query fails on it"));
            dead.push(DeadLetter {
                partition,
                offset,
                payload: found.map(|it| cut(&it.payload)).unwrap_or_default(),
                reason: format!("the query fails on it: {why}"),
                timestamp_ms: found.map_or(0, |it| it.timestamp_ms),
            });
        }
        dead_reasons.truncate(REASONS);
        let mut viewed = self.judge_rows(&mapped.rows)?;
        viewed.counts.dead = dead.len() as u64;
        (viewed.dead, viewed.dead_reasons) = (dead, dead_reasons);
        Ok(viewed)
    }

    /// Notes the progress of an epoch and returns the watermark to commit with it.
    pub fn advance(&mut self, now_ms: i64, spoke: &[i32]) -> Option<i64> {
        for partition in spoke {
            if let Some(newest) = self.judge.newest().get(partition) {
                self.watermark.observe(*partition, *newest, now_ms);
            }
        }
        self.watermark.advance(now_ms)
    }

    /// Adds the raw event time and id under names of ours, for queries that drop or rename them.
    fn with_event(&self, batch: &RecordBatch) -> Result<RecordBatch, StepError> {
        let column = |name: &str| {
            let missing = || StepError::user("HM-F001", format!("the raw messages have no column {name}"));
            batch.column_by_name(name).ok_or_else(missing)
        };
        let mut fields: Vec<Field> =
            batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut arrays: Vec<ArrayRef> = batch.columns().to_vec();
        fields.push(Field::new(EVENT_TIME, instant(), true));
        arrays.push(super::arrays::instants(times(column(&self.source.event_time)?)?.into_iter()));
        if let Some(id) = &self.source.event_id {
            fields.push(Field::new(EVENT_ID, DataType::Utf8, true));
            arrays.push(Arc::new(texts(column(id)?)?));
        }
        built(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays))
    }

    fn judge_rows(&mut self, rows: &RecordBatch) -> Result<Viewed, StepError> {
        let column = |name: &str| {
            rows.column_by_name(name).ok_or_else(|| StepError::internal(format!("rows without {name}")))
        };
        let event_times = times(column(&self.time)?)?;
        let broker_times = times(column(AVAILABLE_AT)?)?;
        let ids = self.id.as_deref().map(|id| texts(column(id)?)).transpose()?;
        let required: Vec<(&String, &ArrayRef)> =
            self.required.iter().map(|name| Ok((name, column(name)?))).collect::<Result<_, StepError>>()?;
        let mut counts = StreamRows::default();
        let (mut duplicates, mut accepted_ids) = (0, Vec::new());
        let mut keep = Vec::with_capacity(rows.num_rows());
        let mut reasons: Vec<Option<String>> = Vec::with_capacity(rows.num_rows());
        let places = places(rows)?;
        for (row, (partition, _)) in places.iter().enumerate() {
            let broken = required.iter().find(|(_, array)| array.is_null(row));
            let (kept, reason) = match (broken, event_times[row]) {
                (Some((name, _)), _) => (false, Some(format!("{name} is required and has no value"))),
                (None, None) => (false, Some("it has no event time".to_owned())),
                (None, Some(at_ms)) => {
                    let id = ids.as_ref().filter(|ids| ids.is_valid(row)).map(|ids| ids.value(row));
                    let broker_ms = broker_times[row].unwrap_or(at_ms);
                    match self.judge.judge(Event { partition: *partition, at_ms, broker_ms, id }) {
                        Verdict::Duplicate => {
                            duplicates += 1;
                            (false, None)
                        }
                        Verdict::TooLate => (false, Some("it came later than is allowed".to_owned())),
                        verdict => {
                            if verdict == Verdict::Corrected {
                                counts.corrected += 1;
                            } else {
                                counts.accepted += 1;
                            }
                            accepted_ids.extend(id.map(|id| (id.to_owned(), at_ms.min(broker_ms))));
                            (true, None)
                        }
                    }
                }
            };
            keep.push(kept);
            reasons.push(reason);
        }
        counts.quarantined = reasons.iter().flatten().count() as u64;
        let aside_reasons = places
            .iter()
            .zip(&reasons)
            .filter_map(|((partition, offset), reason)| {
                Some(format!("{partition}@{offset}: {}", reason.as_ref()?))
            })
            .take(REASONS)
            .collect();
        let kept = built(filter_record_batch(rows, &BooleanArray::from(keep)))?;
        Ok(Viewed {
            rows: shaped(&kept, &self.schema)?,
            aside: set_aside(rows, &reasons, &self.aside_schema)?,
            dead: Vec::new(),
            ids: accepted_ids,
            counts,
            duplicates,
            dead_reasons: Vec::new(),
            aside_reasons,
        })
    }
}

/// Returns the start of a payload as text, for people: bytes that are not UTF-8 replaced.
fn cut(payload: &[u8]) -> String {
    let cap = DecodeRules::default().payload_cap_bytes;
    String::from_utf8_lossy(&payload[..payload.len().min(cap)]).into_owned()
}

/// Turns a failure to assemble rows into what it is, a bug.
pub(super) fn built<T>(result: Result<T, arrow::error::ArrowError>) -> Result<T, StepError> {
    result.map_err(|error| StepError::internal(error.to_string()))
}

/// Returns a schema with a column for the reason after its own.
pub(super) fn with_reason(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new(REASON, DataType::Utf8, true));
    Arc::new(Schema::new(fields))
}

/// Returns those columns of the rows that a schema names; one that the rows lack is null.
pub(super) fn shaped(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, StepError> {
    let arrays: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| match rows.column_by_name(field.name()) {
            Some(array) => Arc::clone(array),
            None => arrow::array::new_null_array(field.data_type(), rows.num_rows()),
        })
        .collect();
    built(RecordBatch::try_new(Arc::clone(schema), arrays))
}

/// Returns the rows that have a reason, with it.
pub(super) fn set_aside(
    rows: &RecordBatch,
    reasons: &[Option<String>],
    schema: &SchemaRef,
) -> Result<RecordBatch, StepError> {
    let mask: BooleanArray = reasons.iter().map(|reason| Some(reason.is_some())).collect();
    let rows = built(filter_record_batch(rows, &mask))?;
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(reasons.iter().flatten()));
    let mut shaped = shaped(&rows, schema)?.columns().to_vec();
    if let Some(last) = shaped.last_mut() {
        *last = texts;
    }
    built(RecordBatch::try_new(Arc::clone(schema), shaped))
}
