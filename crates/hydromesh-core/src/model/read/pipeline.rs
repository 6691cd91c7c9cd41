//! `pipeline.yaml`: one document per pipeline.

use std::collections::BTreeMap;

use super::features;
use super::own_head;
use crate::diag::{Diagnostic, Spot, codes};
use crate::ids::{PipelineName, PortName};
use crate::model::{
    Available, BackfillOrder, BatchPipeline, BatchSchedule, Bounds, ByPromise, Calendar,
    DEFAULT_WATERMARK_BOUND, DEFAULT_WATERMARK_IDLE, EventSource, FeaturePipeline, Late, LateBeyond,
    Partitioning, Parts, Pipeline, PipelineKind, Retry, Schedule, SqlText, StreamPipeline,
};
use crate::syntax::{Map, Node, NodeKind, Sink};
use crate::time::{Cron, CronError, Grain, Partition, Span, SpanUnit};

/// A pipeline and where its parts stand.
#[derive(Debug)]
pub struct RawPipeline {
    /// The pipeline, unless something in it could not be read.
    pub pipeline: Option<Pipeline>,
    /// Its output as far as it is known, so that a broken pipeline still counts as the one that fills the port.
    pub output: Option<PortName>,
    /// Where the document starts.
    pub at: Spot,
    /// Where references to ports and columns stand.
    pub spots: BTreeMap<&'static str, Spot>,
    /// Where it says which partitions of an input it reads.
    pub window_spots: BTreeMap<PortName, Spot>,
}

/// What surrounds a pipeline: it decides what may be left out.
pub struct Around<'a> {
    /// Names of the input ports.
    pub inputs: &'a [PortName],
    /// Names of the output ports.
    pub outputs: &'a [PortName],
    /// Looks a SQL file of the product's folder up.
    pub sql: &'a dyn Fn(&str) -> SqlFile,
}

/// What became of a SQL file.
pub enum SqlFile {
    /// Its path and text.
    Text(String, String),
    /// It is there and cannot be read, which is told elsewhere.
    Unreadable,
    /// It is not there; these are.
    Missing(Vec<String>),
}

/// Kinds as written.
pub const KINDS: &[(&str, PipelineKind)] = &[
    ("BatchPipeline", PipelineKind::Batch),
    ("StreamPipeline", PipelineKind::Stream),
    ("FeaturePipeline", PipelineKind::Feature),
    ("EmbeddingPipeline", PipelineKind::Embedding),
    ("TrainingPipeline", PipelineKind::Training),
];

/// Reads one document.
#[must_use]
pub fn pipeline(document: &Node, sink: &Sink, around: &Around<'_>) -> RawPipeline {
    let map = Map::new(document, sink);
    let mut raw = RawPipeline {
        pipeline: None,
        output: None,
        at: document.at,
        spots: BTreeMap::new(),
        window_spots: BTreeMap::new(),
    };
    let Some(kind) = map.choice("kind", KINDS) else {
        if map.opt("kind").is_none() {
            let _ = map.req("kind");
        }
        // Without the kind the other keys cannot be judged.
        return raw;
    };
    let word = KINDS.iter().find(|(_, of)| *of == kind).map_or("", |(word, _)| *word);
    own_head(&map, word);
    let mut reader = Reader { map: &map, around, spots: BTreeMap::new(), window_spots: BTreeMap::new() };
    raw.output = reader.port("output", "output", around.outputs);
    let name = reader.name(raw.output.as_ref());
    raw.pipeline = match (name, raw.output.clone()) {
        (Some(name), Some(output)) => match kind {
            PipelineKind::Batch => reader.batch(name, output).map(Pipeline::Batch),
            PipelineKind::Stream => reader.stream(name, output).map(Pipeline::Stream),
            PipelineKind::Feature => reader.feature(name, output).map(Pipeline::Feature),
            PipelineKind::Embedding => reader.embedding(name, output).map(Pipeline::Embedding),
            PipelineKind::Training => reader.training(name, output).map(Pipeline::Training),
        },
        _ => return raw,
    };
    (raw.spots, raw.window_spots) = (reader.spots, reader.window_spots);
    map.finish();
    raw
}

pub(super) struct Reader<'m, 'n, 'a> {
    pub(super) map: &'m Map<'n>,
    pub(super) around: &'a Around<'a>,
    pub(super) spots: BTreeMap<&'static str, Spot>,
    pub(super) window_spots: BTreeMap<PortName, Spot>,
}

impl<'n> Reader<'_, 'n, '_> {
    pub(super) fn sink(&self) -> &'n Sink {
        self.map.sink()
    }

    fn name(&self, output: Option<&PortName>) -> Option<PipelineName> {
        let text = match self.map.text("name") {
            Some(text) => text,
            None => output?.to_string(),
        };
        PipelineName::new(text)
            .map_err(|error| self.sink().tell(codes::BAD_NAME, self.map.spot("name"), error.to_string()))
            .ok()
    }

    /// A port of the product; the only one may be left out.
    fn port(&mut self, key: &'static str, label: &'static str, ports: &[PortName]) -> Option<PortName> {
        let map = self.map;
        self.port_of(map, key, label, ports)
    }

    pub(super) fn port_of(
        &mut self,
        map: &Map<'n>,
        key: &'static str,
        label: &'static str,
        ports: &[PortName],
    ) -> Option<PortName> {
        self.spots.insert(label, map.spot(key));
        let Some(text) = map.text(key) else {
            if let [only] = ports {
                return Some(only.clone());
            }
            let _ = map.req(key);
            return None;
        };
        let found = ports.iter().find(|port| port.as_str() == text);
        if found.is_none() {
            let message = format!(
                "`{text}` is no {} port of the product",
                if key == "output" { "output" } else { "input" }
            );
            self.sink().push(
                Diagnostic::new(codes::NO_SUCH_PORT, self.sink().file(), map.spot(key), message)
                    .suggest(&text, ports.iter().map(PortName::as_str)),
            );
        }
        found.cloned()
    }

    pub(super) fn column(&mut self, map: &Map<'n>, key: &'static str, label: &'static str) -> Option<String> {
        self.spots.insert(label, map.spot(key));
        map.req_text(key)
    }

    fn batch(&mut self, name: PipelineName, output: PortName) -> Option<BatchPipeline> {
        let map = self.map;
        let sql = match self.sql(map, "sql", "select") {
            Found::Text(sql) => Some(sql),
            Found::Broken => None,
            Found::Absent => self.copy_of_the_only_input(),
        };
        let partition = map.map("partition").map(|inner| self.partition(&inner));
        let mut whole = true;
        let inputs = self.windows(&mut whole);
        let schedule = self.batch_schedule(&mut whole);
        let lookback = span(map, "lookback");
        let (mut chunk, mut concurrency, mut order) = (None, 2, BackfillOrder::default());
        if let Some(backfill) = map.map("backfill") {
            chunk = span(&backfill, "chunk");
            concurrency = backfill.count("concurrency").unwrap_or(concurrency);
            if concurrency == 0 {
                self.sink().tell(
                    codes::BAD_VALUE,
                    backfill.spot("concurrency"),
                    "at least one chunk must run",
                );
            }
            let words =
                [("oldest_first", BackfillOrder::OldestFirst), ("newest_first", BackfillOrder::NewestFirst)];
            order = backfill.choice("order", &words).unwrap_or(order);
            backfill.finish();
        }
        let retry = map.map("retry").map(|inner| self.retry(&inner)).unwrap_or_default();
        let bounds = self.bounds();
        let self_heal = map.flag("self_heal").unwrap_or(true);
        self.engine();
        let partition = partition.map_or(Some(None), |it| it.map(Some))?;
        if partition.as_ref().is_some_and(|it| it.values().is_some()) {
            self.calendar_only(&mut whole);
        }
        whole.then_some(BatchPipeline {
            name,
            output,
            sql: sql?,
            partition,
            inputs,
            schedule,
            lookback,
            chunk,
            concurrency,
            order,
            retry,
            bounds,
            self_heal,
        })
    }

    /// `timeout` and `pool`.
    pub(super) fn bounds(&mut self) -> Bounds {
        let map = self.map;
        let timeout = span(map, "timeout");
        if timeout.is_some_and(Span::is_zero) {
            self.sink().tell(codes::BAD_DURATION, map.spot("timeout"), "a step takes longer than nothing");
        }
        self.spots.insert("pool", map.spot("pool"));
        Bounds { timeout, pool: map.text("pool") }
    }

    /// `{cron, timezone}` or the word `promise`; `whole` becomes false if it is something else.
    fn batch_schedule(&mut self, whole: &mut bool) -> Option<BatchSchedule> {
        let map = self.map;
        self.spots.insert("schedule", map.spot("schedule"));
        let node = map.opt("schedule")?;
        let schedule = if matches!(node.value, NodeKind::Map(_)) {
            map.map("schedule").and_then(|inner| self.schedule(&inner)).map(BatchSchedule::Cron)
        } else {
            map.choice("schedule", &[("promise", ByPromise::Promise)]).map(BatchSchedule::By)
        };
        *whole &= schedule.is_some();
        schedule
    }

    fn copy_of_the_only_input(&self) -> Option<SqlText> {
        if let [only] = self.around.inputs {
            let text = format!("SELECT * FROM \"{only}\"");
            return Some(SqlText { file: self.sink().file().to_owned(), line: self.map.at.line, text });
        }
        let _ = self.map.req("sql");
        None
    }

    fn engine(&self) {
        let words = [
            ("local", true),
            ("ballista", false),
            ("spark", false),
            ("kubernetes", false),
            ("command", false),
        ];
        if self.map.choice("engine", &words) == Some(false) {
            let message = "this engine is not supported yet; `local` is";
            self.sink().tell(codes::UNSUPPORTED, self.map.spot("engine"), message);
        }
    }

    fn partition(&mut self, map: &Map<'n>) -> Option<Partitioning> {
        let by = self.column(map, "by", "partition.by");
        let into = match map.opt("values") {
            Some(values) => self.values(map, values),
            None => self.calendar(map).map(Parts::Calendar),
        };
        finish(map, &["by", "values", "every", "start", "timezone"]);
        Some(Partitioning { by: by?, into: into? })
    }

    fn calendar(&mut self, map: &Map<'n>) -> Option<Calendar> {
        let grains =
            [("hour", Grain::Hour), ("day", Grain::Day), ("week", Grain::Week), ("month", Grain::Month)];
        let _ = map.req("every");
        let every = map.choice("every", &grains);
        let start = map.req_text("start");
        let timezone = zone(map);
        if let (Some(every), Some(start)) = (every, &start)
            && let Err(error) = Partition::parse(every, start)
        {
            self.sink().tell(codes::BAD_DATE, map.spot("start"), error.to_string());
        }
        Some(Calendar { every: every?, start: start?, timezone: timezone? })
    }

    pub(super) fn schedule(&self, map: &Map<'_>) -> Option<Schedule> {
        let cron = map.req_text("cron");
        let timezone = map.text("timezone").unwrap_or_else(|| "UTC".to_owned());
        finish(map, &["cron", "timezone"]);
        let cron = cron?;
        match Cron::parse(&cron, &timezone) {
            Ok(_) => Some(Schedule { cron, timezone }),
            Err(error @ CronError::UnknownZone { .. }) => {
                self.sink().tell(codes::BAD_TIMEZONE, map.spot("timezone"), error.to_string());
                None
            }
            Err(error) => {
                self.sink().tell(codes::BAD_CRON, map.spot("cron"), error.to_string());
                None
            }
        }
    }

    fn retry(&self, map: &Map<'_>) -> Retry {
        let mut retry = Retry::default();
        retry.attempts = map.count("attempts").unwrap_or(retry.attempts);
        if retry.attempts == 0 {
            self.sink().tell(
                codes::BAD_VALUE,
                map.spot("attempts"),
                "`attempts` counts the first one too: at least 1",
            );
        }
        if let Some(backoff) = map.map("backoff") {
            retry.from = span(&backoff, "from").unwrap_or(retry.from);
            retry.to = span(&backoff, "to").unwrap_or(retry.to);
            if retry.to < retry.from {
                self.sink().tell(codes::BAD_VALUE, backoff.spot("to"), "`to` is shorter than `from`");
            }
            backoff.finish();
        }
        finish(map, &["attempts", "backoff"]);
        retry
    }

    fn stream(&mut self, name: PipelineName, output: PortName) -> Option<StreamPipeline> {
        let map = self.map;
        let source = map.req_map("source").map(|inner| self.source(&inner));
        let sql = match self.sql(map, "sql", "select") {
            Found::Text(sql) => Some(sql),
            Found::Broken => None,
            Found::Absent => {
                let _ = map.req("sql");
                None
            }
        };
        Some(StreamPipeline { name, output, sql: sql?, source: source?? })
    }

    fn source(&mut self, map: &Map<'n>) -> Option<EventSource> {
        let inputs = self.around.inputs;
        let port = self.port_of(map, "port", "source.port", inputs);
        let event_time = self.column(map, "event_time", "source.event_time");
        self.spots.insert("source.event_id", map.spot("event_id"));
        let event_id = map.text("event_id");
        let (mut bound, mut idle) = (DEFAULT_WATERMARK_BOUND, DEFAULT_WATERMARK_IDLE);
        if let Some(watermark) = map.map("watermark") {
            bound = span(&watermark, "bound").unwrap_or(bound);
            idle = span(&watermark, "idle").unwrap_or(idle);
            watermark.finish();
        }
        let mut late = Late { allow: DEFAULT_LATE, beyond: LateBeyond::Quarantine };
        if let Some(inner) = map.map("late") {
            late.allow = span(&inner, "allow").unwrap_or(late.allow);
            late.beyond =
                inner.choice("beyond", &[("quarantine", LateBeyond::Quarantine)]).unwrap_or(late.beyond);
            inner.finish();
        }
        let mut available = Available::Broker;
        if let Some(inner) = map.map("available") {
            available = self.available(&inner, event_time.as_deref().unwrap_or_default());
        }
        finish(map, &["port", "event_time", "event_id", "watermark", "late", "available"]);
        Some(EventSource { port: port?, event_time: event_time?, event_id, bound, idle, late, available })
    }

    /// `{assume: event_time + 10m}` or `{column: arrived_at}`.
    fn available(&mut self, map: &Map<'n>, event_time: &str) -> Available {
        let column = map.text("column");
        let assumed = map.text("assume");
        finish(map, &["column", "assume"]);
        if let Some(column) = column {
            self.spots.insert("source.available", map.spot("column"));
            return Available::Column(column);
        }
        let Some(text) = assumed else {
            self.sink().tell(codes::MISSING_KEY, map.at, "`available` wants `assume` or `column`");
            return Available::Broker;
        };
        let span = text
            .split_once('+')
            .filter(|(left, _)| left.trim() == "event_time" || left.trim() == event_time)
            .map(|(_, right)| right.trim());
        match span {
            Some(span) => {
                parse_span(map, "assume", span).map_or(Available::Broker, Available::AssumeEventPlus)
            }
            None => {
                let message = format!("`{text}` is not of the form `event_time + 10m`");
                self.sink().tell(codes::BAD_VALUE, map.spot("assume"), message);
                Available::Broker
            }
        }
    }

    fn feature(&mut self, name: PipelineName, output: PortName) -> Option<FeaturePipeline> {
        let map = self.map;
        let entity = self.column(map, "entity", "entity");
        let source = map.req_map("source").map(|inner| self.source(&inner));
        let select = match self.sql(map, "select", "sql") {
            Found::Text(sql) => Some(sql),
            Found::Broken => None,
            Found::Absent => source.as_ref().and_then(Option::as_ref).map(|source| SqlText {
                file: self.sink().file().to_owned(),
                line: map.at.line,
                text: format!("SELECT * FROM \"{}\"", source.port),
            }),
        };
        let view = features::view(map);
        Some(FeaturePipeline {
            name,
            output,
            entity: entity?,
            source: source??,
            select: select?,
            view: view?,
        })
    }

    /// SQL under `key`, or under the other key that means the same.
    pub(super) fn sql(&self, map: &Map<'_>, key: &'static str, other: &'static str) -> Found {
        let (node, key) = match (map.opt(key), map.opt(other)) {
            (Some(_), Some(second)) => {
                let message = format!("`{key}` and `{other}` mean the same; give one");
                self.sink().tell(codes::DUPLICATE_KEY, second.at, message);
                return Found::Broken;
            }
            (Some(node), None) => (node, key),
            (None, Some(node)) => (node, other),
            (None, None) => return Found::Absent,
        };
        let Some(text) = node.text() else {
            map.wrong(key, node, "the name of a SQL file, or SQL");
            return Found::Broken;
        };
        if text.trim().contains(char::is_whitespace) {
            let file = self.sink().file().to_owned();
            return Found::Text(SqlText { file, line: node.at.line, text });
        }
        match (self.around.sql)(text.trim()) {
            SqlFile::Text(file, text) => Found::Text(SqlText { file, line: 1, text }),
            SqlFile::Unreadable => Found::Broken,
            SqlFile::Missing(there) => {
                let message = format!("`{}` is not in the product's folder", text.trim());
                self.sink().push(
                    Diagnostic::new(codes::NO_SQL_FILE, self.sink().file(), node.at, message)
                        .suggest(&text, there.iter().map(String::as_str)),
                );
                Found::Broken
            }
        }
    }
}

pub(super) enum Found {
    Text(SqlText),
    Absent,
    Broken,
}

/// Late events within two days are corrected: a weekend's outage of a phone or a shop till.
const DEFAULT_LATE: Span = whole_days(2);
pub(super) const fn whole_days(count: i64) -> Span {
    match Span::new(count, SpanUnit::Day) {
        Some(span) => span,
        None => panic!("a small number of days fits"),
    }
}

pub(super) fn finish(map: &Map<'_>, known: &[&'static str]) {
    map.known(known);
    map.tell_unknown();
}

fn zone(map: &Map<'_>) -> Option<String> {
    let zone = map.text("timezone").unwrap_or_else(|| "UTC".to_owned());
    if zone.parse::<chrono_tz::Tz>().is_err() {
        let message = format!("`{zone}` is not an IANA time zone");
        map.sink().tell(codes::BAD_TIMEZONE, map.spot("timezone"), message);
        return None;
    }
    Some(zone)
}

/// A duration; `None` when absent or not one, which is told.
pub(super) fn span(map: &Map<'_>, key: &'static str) -> Option<Span> {
    let text = map.text(key)?;
    parse_span(map, key, &text)
}

/// Parses a duration and tells when it is none.
pub fn parse_span(map: &Map<'_>, key: &str, text: &str) -> Option<Span> {
    text.parse::<Span>()
        .map_err(|error| map.sink().tell(codes::BAD_DURATION, map.spot(key), error.to_string()))
        .ok()
}
