//! Labels: whom, when, as known when, and what came of it.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit, TimestampMillisecondType};

use super::TrainError;

/// Which column of the spine says what; the label is the one that remains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpineColumns {
    /// Entity columns of the feature ports, each once.
    pub entities: Vec<String>,
    /// Event time of a label.
    pub event: String,
    /// Knowledge time; may be the same column.
    pub knowledge: String,
}

/// One label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Features are taken as of this time, milliseconds UTC.
    pub event_ms: i64,
    /// And as they were known at this time, milliseconds UTC.
    pub known_ms: i64,
    /// One per [`SpineColumns::entities`].
    pub entities: Vec<String>,
    /// The class.
    pub positive: bool,
}

/// The labels of a training set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spine {
    /// In order of time; the same rows give the same order.
    pub labels: Vec<Label>,
    /// Entity columns.
    pub entities: Vec<String>,
    /// The label column.
    pub label: String,
    /// Rows without an entity, a time or a label; they teach nothing.
    pub incomplete: u64,
    /// Rows whose time has not come, by the clock.
    pub in_future: u64,
    /// Columns of other types that are not used.
    pub ignored: Vec<String>,
}

fn shape(why: impl Into<String>) -> TrainError {
    TrainError::SpineShape { why: why.into() }
}

/// Returns the labels of a query's rows, in order of time.
///
/// # Errors
/// [`TrainError::SpineShape`] when a column is missing or of the wrong type, or the label is not the only boolean or
/// integer column left; [`TrainError::LabelValue`] for a label that is neither 0 nor 1.
pub fn read_spine(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    columns: &SpineColumns,
    now_ms: i64,
) -> Result<Spine, TrainError> {
    let named = |name: &String| {
        *name == columns.event || *name == columns.knowledge || columns.entities.contains(name)
    };
    for wanted in columns.entities.iter().chain([&columns.event, &columns.knowledge]) {
        if schema.field_with_name(wanted).is_err() {
            return Err(shape(format!("has no column `{wanted}`")));
        }
    }
    for time in [&columns.event, &columns.knowledge] {
        let kind = schema.field_with_name(time).map(|field| field.data_type().clone());
        if !matches!(kind, Ok(DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)) {
            return Err(shape(format!("has a column `{time}` that is no timestamp")));
        }
    }
    let (mut labels, mut ignored) = (Vec::new(), Vec::new());
    for field in schema.fields().iter().filter(|field| !named(field.name())) {
        let kind = field.data_type();
        let list = if kind.is_integer() || *kind == DataType::Boolean { &mut labels } else { &mut ignored };
        list.push(field.name().clone());
    }
    let label = match labels.as_slice() {
        [label] => label.clone(),
        [] => return Err(shape("has no label column")),
        several => {
            return Err(shape(format!(
                "has several columns that could be the label: {}",
                several.join(", ")
            )));
        }
    };
    let mut spine = Spine {
        labels: Vec::new(),
        entities: columns.entities.clone(),
        label,
        incomplete: 0,
        in_future: 0,
        ignored,
    };
    for batch in batches {
        read_batch(&mut spine, batch, columns, now_ms)?;
    }
    spine.labels.sort();
    Ok(spine)
}

fn read_batch(
    spine: &mut Spine,
    batch: &RecordBatch,
    columns: &SpineColumns,
    now_ms: i64,
) -> Result<(), TrainError> {
    let column = |name: &str, kind: &DataType| -> Result<ArrayRef, TrainError> {
        let array = batch.column_by_name(name).ok_or_else(|| shape(format!("has no column `{name}`")))?;
        cast(array, kind)
            .map_err(|error| shape(format!("has a column `{name}` that cannot be read: {error}")))
    };
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let (events, knowns) = (column(&columns.event, &time)?, column(&columns.knowledge, &time)?);
    let (events, knowns) = (
        events.as_primitive::<TimestampMillisecondType>(),
        knowns.as_primitive::<TimestampMillisecondType>(),
    );
    let labels = column(&spine.label, &DataType::Int64)?;
    let labels = labels.as_primitive::<Int64Type>();
    let entities: Vec<ArrayRef> =
        columns.entities.iter().map(|name| column(name, &DataType::Utf8)).collect::<Result<_, _>>()?;
    for row in 0..batch.num_rows() {
        let absent = entities.iter().any(|entity| entity.is_null(row));
        if absent || events.is_null(row) || knowns.is_null(row) || labels.is_null(row) {
            spine.incomplete += 1;
            continue;
        }
        let positive = match labels.value(row) {
            0 => false,
            1 => true,
            value => return Err(TrainError::LabelValue { column: spine.label.clone(), value }),
        };
        let (event_ms, known_ms) = (events.value(row), knowns.value(row));
        if event_ms.max(known_ms) > now_ms {
            spine.in_future += 1;
            continue;
        }
        let entities =
            entities.iter().map(|entity| entity.as_string::<i32>().value(row).to_owned()).collect();
        spine.labels.push(Label { event_ms, known_ms, entities, positive });
    }
    Ok(())
}
