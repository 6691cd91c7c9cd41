//! `pipeline.yaml`: one document per pipeline.

use std::collections::BTreeMap;

use super::features;
use super::own_head;
use crate::diag::{Diagnostic, Spot, codes};
use crate::ids::{PipelineName, PortId, PortName};
use crate::model::{
    Available, BatchPipeline, Chunking, DEFAULT_WATERMARK_BOUND, DEFAULT_WATERMARK_IDLE, DriftRule,
    EmbeddingPipeline, EventSource, FeaturePipeline, Late, LateBeyond, Partitioning, Pipeline, PipelineKind,
    RetrainOn, Retry, Schedule, SqlText, StreamPipeline, TrainGate, Trainer, TrainingPipeline,
};
use crate::syntax::{Map, Node, Sink};
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
    let mut raw = RawPipeline { pipeline: None, output: None, at: document.at, spots: BTreeMap::new() };
    let Some(kind) = map.choice("kind", KINDS) else {
        if map.opt("kind").is_none() {
            let _ = map.req("kind");
        }
        // Without the kind the other keys cannot be judged.
        return raw;
    };
    let word = KINDS.iter().find(|(_, of)| *of == kind).map_or("", |(word, _)| *word);
    own_head(&map, word);
    let mut reader = Reader { map: &map, around, spots: BTreeMap::new() };
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
    raw.spots = reader.spots;
    map.finish();
    raw
}

struct Reader<'m, 'n, 'a> {
    map: &'m Map<'n>,
    around: &'a Around<'a>,
    spots: BTreeMap<&'static str, Spot>,
}

impl<'n> Reader<'_, 'n, '_> {
    fn sink(&self) -> &'n Sink {
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

    fn port_of(
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

    fn column(&mut self, map: &Map<'n>, key: &'static str, label: &'static str) -> Option<String> {
        self.spots.insert(label, map.spot(key));
        map.req_text(key)
    }

    /// A duration; `None` when absent or not one, which is told.
    fn span(&self, map: &Map<'_>, key: &'static str) -> Option<Span> {
        let text = map.text(key)?;
        parse_span(map, key, &text)
    }

    fn batch(&mut self, name: PipelineName, output: PortName) -> Option<BatchPipeline> {
        let map = self.map;
        let sql = match self.sql(map, "sql", "select") {
            Found::Text(sql) => Some(sql),
            Found::Broken => None,
            Found::Absent => self.copy_of_the_only_input(),
        };
        let partition = match map.map("partition") {
            Some(inner) => Some(self.partition(&inner)),
            None => None,
        };
        let schedule = map.map("schedule").map(|inner| self.schedule(&inner));
        let lookback = self.span(map, "lookback");
        let (mut chunk, mut concurrency) = (None, 2);
        if let Some(backfill) = map.map("backfill") {
            chunk = self.span(&backfill, "chunk");
            concurrency = backfill.count("concurrency").unwrap_or(concurrency);
            if concurrency == 0 {
                self.sink().tell(
                    codes::BAD_VALUE,
                    backfill.spot("concurrency"),
                    "at least one chunk must run",
                );
            }
            backfill.finish();
        }
        let retry = map.map("retry").map(|inner| self.retry(&inner)).unwrap_or_default();
        self.engine();
        let (partition, schedule) = (
            partition.map_or(Some(None), |it| it.map(Some))?,
            schedule.map_or(Some(None), |it| it.map(Some))?,
        );
        Some(BatchPipeline {
            name,
            output,
            sql: sql?,
            partition,
            schedule,
            lookback,
            chunk,
            concurrency,
            retry,
        })
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
        map.known(&["by", "every", "start", "timezone"]);
        finish(map, &["by", "every", "start", "timezone"]);
        Some(Partitioning { by: by?, every: every?, start: start?, timezone: timezone? })
    }

    fn schedule(&self, map: &Map<'_>) -> Option<Schedule> {
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
            retry.from = self.span(&backoff, "from").unwrap_or(retry.from);
            retry.to = self.span(&backoff, "to").unwrap_or(retry.to);
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
            bound = self.span(&watermark, "bound").unwrap_or(bound);
            idle = self.span(&watermark, "idle").unwrap_or(idle);
            watermark.finish();
        }
        let mut late = Late { allow: DEFAULT_LATE, beyond: LateBeyond::Quarantine };
        if let Some(inner) = map.map("late") {
            late.allow = self.span(&inner, "allow").unwrap_or(late.allow);
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

    fn embedding(&mut self, name: PipelineName, output: PortName) -> Option<EmbeddingPipeline> {
        let map = self.map;
        let inputs = self.around.inputs;
        let source = map.req_map("source").map(|inner| {
            let port = self.port_of(&inner, "port", "source.port", inputs);
            let id = self.column(&inner, "id", "source.id");
            let text = self.column(&inner, "text", "source.text");
            inner.finish();
            Some((port?, id?, text?))
        });
        let mut chunk = Chunking { method: "content_defined".to_owned(), target: 800 };
        if let Some(inner) = map.map("chunk") {
            chunk.method = inner
                .choice("method", &[("content_defined", "content_defined")])
                .unwrap_or("content_defined")
                .to_owned();
            chunk.target = inner.count("target").unwrap_or(chunk.target);
            if chunk.target < MIN_CHUNK {
                let message = format!("a chunk has at least {MIN_CHUNK} characters");
                self.sink().tell(codes::BAD_VALUE, inner.spot("target"), message);
            }
            inner.finish();
        }
        let (mut provider, mut dimensions) = (Some("hashing"), 384);
        if let Some(inner) = map.map("model") {
            let words = [("hashing", "hashing"), ("openai_compatible", ""), ("model2vec", ""), ("onnx", "")];
            provider = self
                .supported(&inner, "provider", &words)
                .or(provider.filter(|_| inner.opt("provider").is_none()));
            dimensions = inner.count("dimensions").unwrap_or(dimensions);
            if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
                let message = format!("`dimensions` is 1 to {MAX_DIMENSIONS}");
                self.sink().tell(codes::BAD_VALUE, inner.spot("dimensions"), message);
            }
            inner.known(&["name", "url"]);
            inner.finish();
        }
        let mut store = Some("exact");
        if let Some(inner) = map.map("store") {
            let words = [("exact", "exact"), ("hnsw", ""), ("pgvector", ""), ("qdrant", "")];
            store = self.supported(&inner, "kind", &words).or(store.filter(|_| inner.opt("kind").is_none()));
            inner.finish();
        }
        if let Some(migrate) = map.map("migrate") {
            if let Some(recall) = migrate.number("recall_at_10")
                && !(0.0..=1.0).contains(&recall)
            {
                let message = "`recall_at_10` is a share from 0 to 1";
                self.sink().tell(codes::BAD_VALUE, migrate.spot("recall_at_10"), message);
            }
            migrate.finish();
        }
        let (port, id, text) = source??;
        let (provider, store) = (provider?.to_owned(), store?.to_owned());
        Some(EmbeddingPipeline { name, output, port, id, text, chunk, provider, dimensions, store })
    }

    /// One of the words that are designed; those that map to nothing are not built yet.
    fn supported(
        &self,
        map: &Map<'_>,
        key: &'static str,
        words: &[(&str, &'static str)],
    ) -> Option<&'static str> {
        let chosen = map.choice(key, words)?;
        if chosen.is_empty() {
            let built: Vec<_> =
                words.iter().map(|(_, value)| *value).filter(|value| !value.is_empty()).collect();
            let message = format!("this `{key}` is not supported yet; supported: {}", built.join(", "));
            self.sink().tell(codes::UNSUPPORTED, map.spot(key), message);
            return None;
        }
        Some(chosen)
    }

    fn training(&mut self, name: PipelineName, output: PortName) -> Option<TrainingPipeline> {
        let map = self.map;
        let set = map.req_map("training_set").map(|inner| self.training_set(&inner));
        let train = map.req_map("train").map(|inner| {
            let builtin = inner.choice("builtin", &[("logistic_regression", "logistic_regression")]);
            if inner.opt("command").is_some() {
                let message =
                    "trainers of the repository are not supported yet; `builtin: logistic_regression` is";
                self.sink().tell(codes::UNSUPPORTED, inner.spot("command"), message);
            } else if inner.opt("builtin").is_none() {
                let _ = inner.req("builtin");
            }
            inner.finish();
            builtin.map(|word| Trainer::Builtin(word.to_owned()))
        });
        let mut retrain_on = RetrainOn { drift: None, schedule: None };
        let mut whole = true;
        if let Some(inner) = map.map("retrain_on") {
            if let Some(drift) = inner.map("drift") {
                retrain_on.drift = self.drift(&drift);
                whole &= retrain_on.drift.is_some();
            }
            if let Some(schedule) = inner.map("schedule") {
                retrain_on.schedule = self.schedule(&schedule);
                whole &= retrain_on.schedule.is_some();
            }
            inner.finish();
        }
        let (mut cooldown, mut max_per_month) = (DEFAULT_COOLDOWN, 4);
        if let Some(limits) = map.map("limits") {
            cooldown = self.span(&limits, "cooldown").unwrap_or(cooldown);
            max_per_month = limits.count("max_per_month").unwrap_or(max_per_month);
            limits.finish();
        }
        let mut gate = TrainGate { metric: "auc".to_owned(), non_inferiority: 0.01 };
        if let Some(inner) = map.map("gate") {
            gate.metric = inner
                .choice("metric", &[("auc", "auc"), ("log_loss", "log_loss")])
                .unwrap_or("auc")
                .to_owned();
            gate.non_inferiority = inner.number("non_inferiority").unwrap_or(gate.non_inferiority);
            if !(0.0..1.0).contains(&gate.non_inferiority) {
                let message = "`non_inferiority` is a margin from 0 to below 1";
                self.sink().tell(codes::BAD_VALUE, inner.spot("non_inferiority"), message);
            }
            inner.finish();
        }
        let (spine, features, as_of_event, as_of_knowledge) = set??;
        let train = train??;
        whole.then_some(TrainingPipeline {
            name,
            output,
            spine,
            features,
            as_of_event,
            as_of_knowledge,
            train,
            retrain_on,
            cooldown,
            max_per_month,
            gate,
        })
    }

    fn training_set(&mut self, map: &Map<'n>) -> Option<(SqlText, Vec<PortId>, String, String)> {
        let spine = match self.sql(map, "spine", "select") {
            Found::Text(sql) => Some(sql),
            Found::Broken => None,
            Found::Absent => {
                let _ = map.req("spine");
                None
            }
        };
        let _ = map.req("features");
        let mut features = Vec::new();
        self.spots.insert("training_set.features", map.spot("features"));
        let mut whole = true;
        for (text, at) in map.texts("features") {
            match text.parse::<PortId>() {
                Ok(port) => features.push(port),
                Err(error) => {
                    whole = false;
                    self.sink().tell(codes::UNKNOWN_INPUT, at, error.to_string());
                }
            }
        }
        let as_of = map.req_map("as_of").map(|inner| {
            let event = self.column(&inner, "event", "as_of.event");
            self.spots.insert("as_of.knowledge", inner.spot("knowledge"));
            let knowledge = inner.text("knowledge").or_else(|| event.clone());
            inner.finish();
            Some((event?, knowledge?))
        });
        finish(map, &["spine", "select", "features", "as_of"]);
        let (event, knowledge) = as_of??;
        whole.then_some((spine?, features, event, knowledge))
    }

    fn drift(&self, map: &Map<'_>) -> Option<DriftRule> {
        if let Some(word) = map.text("features")
            && word != "all"
        {
            map.bad_choice("features", map.spot("features"), &word, &["all"]);
        }
        if let Some(reference) = map.map("reference") {
            let _ = self.span(&reference, "same_hour_of_week");
            reference.finish();
        }
        let alarms = match map.text("false_alarms") {
            // One a quarter is what a team forgives.
            None => Some(4.0),
            Some(text) => {
                let rate = per_year(&text);
                if rate.is_none() {
                    let message = format!("`{text}` is not of the form `1 per quarter`");
                    self.sink().tell(codes::BAD_VALUE, map.spot("false_alarms"), message);
                }
                rate
            }
        };
        let confirm = match map.text("confirm") {
            None => Some((3, 5)),
            Some(text) => {
                let pair = of(&text);
                if pair.is_none() {
                    let message = format!("`{text}` is not of the form `3 of 5`");
                    self.sink().tell(codes::BAD_VALUE, map.spot("confirm"), message);
                }
                pair
            }
        };
        finish(map, &["features", "reference", "false_alarms", "confirm"]);
        let (confirm, of) = confirm?;
        Some(DriftRule { false_alarms_per_year: alarms?, confirm, of })
    }

    /// SQL under `key`, or under the other key that means the same.
    fn sql(&self, map: &Map<'_>, key: &'static str, other: &'static str) -> Found {
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

enum Found {
    Text(SqlText),
    Absent,
    Broken,
}

/// Late events within two days are corrected: a weekend's outage of a phone or a shop till.
const DEFAULT_LATE: Span = whole_days(2);
/// Two trainings are at least this long apart unless the pipeline says otherwise.
const DEFAULT_COOLDOWN: Span = whole_days(1);
/// Shorter chunks carry no meaning of their own.
const MIN_CHUNK: u32 = 50;
/// The longest vectors in use have 8,192 dimensions.
const MAX_DIMENSIONS: u32 = 8_192;

const fn whole_days(count: i64) -> Span {
    match Span::new(count, SpanUnit::Day) {
        Some(span) => span,
        None => panic!("a small number of days fits"),
    }
}

fn finish(map: &Map<'_>, known: &[&'static str]) {
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

/// Parses a duration and tells when it is none.
pub fn parse_span(map: &Map<'_>, key: &str, text: &str) -> Option<Span> {
    text.parse::<Span>()
        .map_err(|error| map.sink().tell(codes::BAD_DURATION, map.spot(key), error.to_string()))
        .ok()
}

/// `1 per quarter` as a rate a year.
fn per_year(text: &str) -> Option<f64> {
    let (count, period) = text.split_once("per")?;
    let periods = match period.trim() {
        "day" => 365.0,
        "week" => 52.0,
        "month" => 12.0,
        "quarter" => 4.0,
        "year" => 1.0,
        _ => return None,
    };
    let count: f64 = count.trim().parse().ok()?;
    (count.is_finite() && count > 0.0).then_some(count * periods)
}

/// `3 of 5`.
fn of(text: &str) -> Option<(u32, u32)> {
    let (confirm, of) = text.split_once("of")?;
    let (confirm, of): (u32, u32) = (confirm.trim().parse().ok()?, of.trim().parse().ok()?);
    (confirm >= 1 && confirm <= of).then_some((confirm, of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_grammars() {
        assert_eq!(per_year("1 per quarter"), Some(4.0));
        assert_eq!(per_year("2 per month"), Some(24.0));
        for text in ["often", "0 per year", "-1 per day", "1 per blink", "nan per year"] {
            assert_eq!(per_year(text), None, "{text}");
        }
        assert_eq!(of("3 of 5"), Some((3, 5)));
        for text in ["5 of 3", "0 of 3", "3", "of"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
