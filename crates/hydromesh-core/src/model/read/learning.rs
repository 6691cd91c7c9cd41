//! Pipelines that make vectors and models.

use super::command;
use super::pipeline::{Found, Reader, finish, span, whole_days};
use crate::diag::codes;
use crate::ids::{PipelineName, PortId, PortName};
use crate::model::{
    Chunking, DriftRule, EmbeddingPipeline, RetrainOn, SqlText, TrainGate, Trainer, TrainingPipeline,
};
use crate::syntax::Map;
use crate::time::Span;

/// Two trainings are at least this long apart unless the pipeline says otherwise.
const DEFAULT_COOLDOWN: Span = whole_days(1);
/// Shorter chunks carry no meaning of their own.
const MIN_CHUNK: u32 = 50;
/// The longest vectors in use have 8,192 dimensions.
const MAX_DIMENSIONS: u32 = 8_192;

impl<'n> Reader<'_, 'n, '_> {
    pub(super) fn embedding(&mut self, name: PipelineName, output: PortName) -> Option<EmbeddingPipeline> {
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
        let bounds = self.bounds();
        let (port, id, text) = source??;
        let (provider, store) = (provider?.to_owned(), store?.to_owned());
        Some(EmbeddingPipeline { name, output, port, id, text, chunk, provider, dimensions, store, bounds })
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

    pub(super) fn training(&mut self, name: PipelineName, output: PortName) -> Option<TrainingPipeline> {
        let map = self.map;
        let set = map.req_map("training_set").map(|inner| self.training_set(&inner));
        let train = map.req_map("train").map(|inner| {
            self.spots.insert("train", inner.spot("command"));
            self.spots.insert("train.network", inner.spot("network"));
            trainer(&inner)
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
            cooldown = span(&limits, "cooldown").unwrap_or(cooldown);
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
        let bounds = self.bounds();
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
            bounds,
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
            let _ = span(&reference, "same_hour_of_week");
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
}

/// `{builtin: NAME}` or `{command: [..]}`.
fn trainer(map: &Map<'_>) -> Option<Trainer> {
    let builtin = map.choice("builtin", &[("logistic_regression", "logistic_regression")]);
    if map.opt("command").is_none() {
        if map.opt("builtin").is_none() {
            let message = "`train` wants `builtin: logistic_regression`, or `command` with a program";
            map.sink().tell(codes::MISSING_KEY, map.at, message);
        }
        finish(map, &["builtin", "command"]);
        return builtin.map(|word| Trainer::Builtin(word.to_owned()));
    }
    let command = command::trainer(map);
    finish(map, &["builtin", "command"]);
    if map.opt("builtin").is_some() {
        let message = "a model is fitted by `builtin` or by `command`, and not by both";
        map.sink().tell(codes::BAD_VALUE, map.spot("builtin"), message);
        return None;
    }
    command.map(Trainer::Command)
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
    use crate::model::{Program, RowsFormat, TrainerCommand};

    /// Reads what stands under `train`, and returns what is told of it.
    fn read_trainer(train: &str) -> (Option<Trainer>, Vec<String>) {
        let (documents, found) = crate::syntax::parse("pipeline.yaml", train);
        assert_eq!(found, []);
        let sink = crate::syntax::Sink::new("pipeline.yaml");
        let read = trainer(&Map::new(&documents[0], &sink));
        let told = sink.into_found().into_iter().map(|it| format!("{}: {}", it.code.id(), it.message));
        (read, told.collect())
    }

    #[test]
    fn a_trainer_is_built_in_or_a_program_with_words_and_bounds() {
        let (read, told) = read_trainer("{builtin: logistic_regression}");
        assert_eq!((read, told), (Some(Trainer::Builtin("logistic_regression".to_owned())), vec![]));
        let (read, told) = read_trainer("{command: [python3, train.py]}");
        let Some(Trainer::Command(small)) = read else { panic!("{told:?}") };
        assert_eq!((small.program.timeout.to_string(), small.program.memory_mib), ("30m".to_owned(), 2048));
        assert_eq!((small.program.rows, small.network), (RowsFormat::Parquet, false));
        assert_eq!(small.program.in_folder(), None, "of the machine");
        let (read, told) = read_trainer(
            "{command: [./fit, --deep], rows: csv, timeout: 6h, memory_mib: 4096, network: true}",
        );
        let Some(Trainer::Command(large)) = read else { panic!("{told:?}") };
        assert_eq!((large.program.timeout.to_string(), large.program.memory_mib), ("6h".to_owned(), 4096));
        assert_eq!(large.program.in_folder(), Some("fit"));
        assert!(large.network && large.to_string() == "command: ./fit --deep", "{large}");
        assert_eq!(told, Vec::<String>::new());
        // What it may take is no part of what it does.
        let other = TrainerCommand { program: Program { memory_mib: 64, ..small.program.clone() }, ..small };
        assert_ne!(other, small);
        assert_eq!(other.unbounded(), small.unbounded());
        assert_ne!(other.unbounded(), large.unbounded());
    }

    #[test]
    fn what_is_no_trainer_is_told() {
        for (train, says) in [
            ("{}", "HM-Y009: `train` wants"),
            ("{builtin: oracle}", "HM-Y010"),
            ("{builtin: logistic_regression, command: [a]}", "HM-M023: a model is fitted by"),
            ("{command: []}", "a program and its words"),
            ("{command: [../other/train]}", "lies in the product's folder"),
            ("{command: [a], timeout: 13h}", "at most 12 hours"),
            ("{command: [a], timeout: 0s}", "more than nothing"),
            ("{command: [a], memory_mib: 1}", "from 64 to 65536"),
            ("{command: [a], network: perhaps}", "true or false"),
            ("{command: [a], rows: json}", "json"),
            ("{command: [a], netwrk: true}", "unknown key `netwrk`"),
            ("{builtin: logistic_regression, network: true}", "unknown key `network`"),
        ] {
            let (_, told) = read_trainer(train);
            assert!(told.len() == 1 && told[0].contains(says), "{train}: {told:?}");
        }
    }

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
