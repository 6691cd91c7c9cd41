//! The point-in-time join: every label with the features of its time, as they were known then.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::aggregate::Value;
use hydromesh_core::ids::PortId;
use hydromesh_core::tile::{Column, Row, SpineRow, ViewSpec, point_in_time};
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::encode::Fill;
use super::spine::Spine;

/// Everything that is known of a feature port's past.
#[derive(Debug, Clone)]
pub struct History {
    /// Column of the entity, in the spine too.
    pub entity: String,
    /// The features.
    pub view: ViewSpec,
    /// The rows that they are computed from.
    pub rows: Vec<Row>,
    /// A row known exactly this long after its event, milliseconds, is taken to rest on the declared assumption about
    /// imported history. (A live row that happens to have the same delay is counted with them: rather too many.)
    pub assumed_lag_ms: Option<i64>,
    /// Versions of the ports that the rows were read from.
    pub versions: BTreeMap<PortId, i64>,
}

/// A feature port with its past.
#[derive(Debug, Clone)]
pub struct Source {
    /// The port.
    pub port: PortId,
    /// Its past.
    pub history: History,
}

/// A feature that a model can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureColumn {
    /// Its name in the model: the column, or `product.column` when two ports have a column of that name.
    pub name: String,
    /// The port.
    pub port: PortId,
    /// The port's column.
    pub column: String,
    /// What stands for a missing value.
    pub fill: Fill,
    /// Length of its window, milliseconds.
    pub window_ms: i64,
}

/// One label with its features.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Time of the label, milliseconds UTC.
    pub event_ms: i64,
    /// One per [`TrainingSet::columns`].
    pub values: Vec<Option<f64>>,
    /// The class.
    pub positive: bool,
}

/// What a model learns from and is measured on, in order of time.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingSet {
    /// The features.
    pub columns: Vec<FeatureColumn>,
    /// The rows, by time.
    pub rows: Vec<Example>,
    /// How it came about.
    pub manifest: Manifest,
}

/// How a training set came about; kept with the model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The label column.
    pub label: String,
    /// Labels used.
    pub rows: u64,
    /// Positive ones.
    pub positive: u64,
    /// Rows of the spine without entity, time or label.
    pub incomplete: u64,
    /// Rows of the spine whose time had not come.
    pub in_future: u64,
    /// Columns of the spine that were not used.
    pub ignored: Vec<String>,
    /// Time of the first label, milliseconds UTC.
    pub from_ms: i64,
    /// Time of the last label, milliseconds UTC.
    pub to_ms: i64,
    /// Older rows, fitted. The newer ones are held out.
    pub fitted: u64,
    /// Time of the first row held out, milliseconds UTC.
    pub held_out_from_ms: i64,
    /// Versions of everything that was read.
    pub inputs: BTreeMap<PortId, i64>,
    /// Feature rows of history.
    pub history_rows: u64,
    /// Those whose availability is assumed.
    pub history_assumed: u64,
    /// Per feature, in the model's order.
    pub columns: Vec<ColumnNotes>,
    /// Features that were not used.
    pub left_out: Vec<LeftOut>,
}

/// What has to be known of a feature's values before they are trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnNotes {
    /// The feature.
    pub feature: String,
    /// What stands for a missing value.
    pub fill: Fill,
    /// Rows without value because no event was known in the window.
    pub without_events: u64,
    /// Rows without value although there were events: their argument is null, or no finite number.
    pub null_arguments: u64,
    /// Rows whose window holds an event with an assumed availability, counted in or left out by that assumption.
    pub assumed: u64,
}

/// A feature that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The feature.
    pub feature: String,
    /// Why.
    pub why: String,
}

impl TrainingSet {
    /// Joins labels with features: of every label the exact windows that end at its event time, over the rows that were
    /// knowable at its knowledge time. What became known later cannot get in.
    ///
    /// # Errors
    /// [`TrainError::NoFeature`], [`TrainError::Tile`]; [`TrainError::SpineShape`] when the spine lacks the entity of a
    /// port.
    pub fn assemble(spine: &Spine, sources: &[Source]) -> Result<Self, TrainError> {
        let mut set = Self {
            columns: Vec::new(),
            rows: spine
                .labels
                .iter()
                .map(|label| Example {
                    event_ms: label.event_ms,
                    values: Vec::new(),
                    positive: label.positive,
                })
                .collect(),
            manifest: Manifest {
                label: spine.label.clone(),
                rows: spine.labels.len() as u64,
                positive: spine.labels.iter().filter(|label| label.positive).count() as u64,
                incomplete: spine.incomplete,
                in_future: spine.in_future,
                ignored: spine.ignored.clone(),
                from_ms: spine.labels.first().map_or(0, |label| label.event_ms),
                to_ms: spine.labels.last().map_or(0, |label| label.event_ms),
                ..Manifest::default()
            },
        };
        let shared = shared_names(sources);
        for source in sources {
            set.join(spine, source, &shared)?;
        }
        if set.columns.is_empty() {
            let why = match set.manifest.left_out.first() {
                None => "no feature port is named".to_owned(),
                Some(first) => format!("`{}` {}", first.feature, first.why),
            };
            return Err(TrainError::NoFeature { why });
        }
        Ok(set)
    }

    fn join(&mut self, spine: &Spine, source: &Source, shared: &BTreeSet<String>) -> Result<(), TrainError> {
        let Source { port, history } = source;
        let entity = spine.entities.iter().position(|name| *name == history.entity).ok_or_else(|| {
            TrainError::SpineShape {
                why: format!("has no column `{}`, the entity of {port}", history.entity),
            }
        })?;
        let questions: Vec<SpineRow> = spine
            .labels
            .iter()
            .map(|label| SpineRow {
                entity: label.entities[entity].clone(),
                event_ms: label.event_ms,
                known_ms: label.known_ms,
            })
            .collect();
        let answers = point_in_time(&history.view, &history.rows, &questions)?;
        let past = Past::of(history);
        self.manifest.history_rows += history.rows.len() as u64;
        self.manifest.history_assumed +=
            history.rows.iter().filter(|row| is_assumed(history, row)).count() as u64;
        for (place, column) in history.view.columns().iter().enumerate() {
            let plain = &column.name;
            let name =
                if shared.contains(plain) { format!("{}.{plain}", port.product.name) } else { plain.clone() };
            if let Some(other) = answers.iter().map(|row| &row[place]).find(|value| !is_number(value)) {
                let why = format!("is a {}: only numbers and truth values can be learnt from", other.kind());
                self.manifest.left_out.push(LeftOut { feature: name, why });
                continue;
            }
            let values: Vec<Option<f64>> = answers.iter().map(|row| number(&row[place])).collect();
            if values.iter().all(Option::is_none) {
                let why = "has no value in any row".to_owned();
                self.manifest.left_out.push(LeftOut { feature: name, why });
                continue;
            }
            let fill = Fill::of(&history.view.features()[column.feature].agg.function());
            let mut notes =
                ColumnNotes { feature: name.clone(), fill, without_events: 0, null_arguments: 0, assumed: 0 };
            for (question, value) in questions.iter().zip(&values) {
                match value {
                    None if past.any_known(column, question) => notes.null_arguments += 1,
                    None => notes.without_events += 1,
                    Some(_) => {}
                }
                notes.assumed += u64::from(past.any_assumed(column, question));
            }
            for (row, value) in self.rows.iter_mut().zip(values) {
                row.values.push(value);
            }
            let window_ms = column.window.millis();
            self.columns.push(FeatureColumn {
                name,
                port: port.clone(),
                column: plain.clone(),
                fill,
                window_ms,
            });
            self.manifest.columns.push(notes);
        }
        Ok(())
    }
}

/// Returns column names that more than one port has.
fn shared_names(sources: &[Source]) -> BTreeSet<String> {
    let (mut seen, mut shared) = (BTreeSet::new(), BTreeSet::new());
    for column in sources.iter().flat_map(|source| source.history.view.columns()) {
        if !seen.insert(column.name.clone()) {
            shared.insert(column.name.clone());
        }
    }
    shared
}

const fn is_number(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_))
}

/// Returns a value as a finite number, if it is one.
pub(super) fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Bool(flag) => Some(if *flag { 1.0 } else { 0.0 }),
        other => other.as_f64(),
    };
    number.filter(|number| number.is_finite())
}

fn is_assumed(history: &History, row: &Row) -> bool {
    history.assumed_lag_ms.is_some_and(|lag| row.available_ms.checked_sub(row.order.event_ms) == Some(lag))
}

/// Events by entity in order of time, to tell why a value is missing and what it rests on.
struct Past<'a> {
    by_entity: BTreeMap<&'a str, Vec<(i64, i64, bool)>>,
}

impl<'a> Past<'a> {
    fn of(history: &'a History) -> Self {
        let mut by_entity: BTreeMap<&str, Vec<(i64, i64, bool)>> = BTreeMap::new();
        for row in &history.rows {
            let event = (row.order.event_ms, row.available_ms, is_assumed(history, row));
            by_entity.entry(&row.entity).or_default().push(event);
        }
        for events in by_entity.values_mut() {
            events.sort_unstable();
        }
        Self { by_entity }
    }

    fn window(&self, column: &Column, question: &SpineRow) -> &[(i64, i64, bool)] {
        let Some(events) = self.by_entity.get(question.entity.as_str()) else { return &[] };
        let window = column.window_at(question.event_ms);
        let first = events.partition_point(|event| event.0 < window.from());
        let last = events.partition_point(|event| event.0 < window.to());
        &events[first..last.max(first)]
    }

    fn any_known(&self, column: &Column, question: &SpineRow) -> bool {
        self.window(column, question).iter().any(|event| event.1 <= question.known_ms)
    }

    fn any_assumed(&self, column: &Column, question: &SpineRow) -> bool {
        self.window(column, question).iter().any(|event| event.2)
    }
}
