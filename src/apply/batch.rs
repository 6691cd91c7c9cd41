//! Batch: read at pinned versions, write, audit, publish.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt as _;
use hydromesh_core::band::{Earlier, History};
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{Fact, Published};
use hydromesh_core::model::{Calendar, OutputPort, Partitioning, Parts, Pipeline};
use hydromesh_core::plan::{Work, zone};
use hydromesh_core::time::{Grain, Partition};
use tracing::{Instrument as _, Span, info, info_span};

use super::inputs::{self, Inputs};
use super::values::Listed;
use super::windows::Windows;
use super::{Context, Done, Job, Reporter, StepError, ensure, lake_format, sample};
use crate::engine::{Against, Keeps, PartitionFilter, QualityOutcome, arrow_schema};
use crate::lake::{PublishMode, Table, TableSpec};

/// Everything that publishing one partition needs.
struct Target<'a> {
    context: &'a Context,
    job: &'a Job,
    reporter: &'a Reporter,
    output: &'a OutputPort,
    port: PortId,
    data: String,
    table: Table,
    schema: SchemaRef,
    versions: BTreeMap<PortId, i64>,
    /// What was published before, with what this step has published meanwhile.
    history: Mutex<History>,
}

/// Computes a chunk of partitions, or the whole table.
pub(super) async fn run(context: &Context, job: &Job, reporter: &Reporter) -> Result<Done, StepError> {
    let product = job.product()?;
    let Pipeline::Batch(batch) = job.pipeline()? else {
        return Err(StepError::internal("a batch step of a pipeline that is none"));
    };
    let (port, data) = job.output()?;
    let output = product
        .outputs
        .get(&batch.output)
        .ok_or_else(|| StepError::internal(format!("{port} is not an output of the deployed product")))?;
    let Inputs { tables, versions, facts } = inputs::open(context, job).await?;
    reporter.report(facts).await;
    let schema = arrow_schema(&output.contract.columns);
    let table = job.table(context, &port, lake_format(output.format))?;
    let partition_by = batch.partition.as_ref().map(|cut| cut.by.clone());
    ensure(context, job, &table, &TableSpec { schema: Arc::clone(&schema), partition_by }).await?;
    sample::expire(context).await;
    let history = Mutex::new(job.earlier.clone());
    let target = Target { context, job, reporter, output, port, data, table, schema, versions, history };
    let (sql, columns) = (&batch.sql.text, &output.contract.columns);
    match (&batch.partition, &job.start.key.work) {
        (Some(Partitioning { by, into: Parts::Values { values } }), Work::Partitions { from, to }) => {
            // A list is never computed by more than one value in a step.
            if from != to {
                return Err(StepError::internal(format!("{from} to {to} is no value of a list")));
            }
            let aligned = job.print.aligned.iter().any(|(output, _)| *output == batch.output);
            let public = columns.iter().any(|column| column.name == *by && column.is_public());
            let mut listed = Listed::new((by, &target.kind(by)?, public), values, from, aligned)?;
            let mut rows = context.engine.run_query(sql, tables, Some(&listed.filter()), columns).await?;
            let (mut held, compute) = (Vec::new(), info_span!("compute"));
            while let Some(batch) = next(&mut rows, reporter).instrument(compute.clone()).await? {
                held.push(listed.take(&batch)?);
            }
            drop(compute);
            let rows = target.publish(Part::Value(from.clone(), listed), held).await?;
            Ok(Done { facts: Vec::new(), rows })
        }
        (Some(Partitioning { by, into: Parts::Calendar(calendar) }), Work::Partitions { from, to }) => {
            let cut = &Cut { by, calendar };
            let windows = Windows::of(job, batch, calendar)?;
            let (mut written, mut refused) = (0, None);
            for (from, to) in windows.stretches(parse(calendar, from)?, parse(calendar, to)?) {
                let (filter, tables) = (filter(&target, cut, from, to)?, windows.tables(&tables, from)?);
                let rows = context.engine.run_query(sql, tables, Some(&filter), columns).await?;
                match partitions(&target, cut, from, to, rows).await {
                    Ok(rows) => written += rows,
                    Err(error) if error.code == AUDIT_FAILED => _ = refused.get_or_insert(error),
                    Err(error) => return Err(error),
                }
            }
            refused.map_or(Ok(Done { facts: Vec::new(), rows: written }), Err)
        }
        _ => {
            let rows = context.engine.run_query(sql, tables, None, columns).await?;
            let batches: Vec<RecordBatch> = collect(rows, reporter).await?;
            let rows = target.publish(Part::Whole, batches).await?;
            Ok(Done { facts: Vec::new(), rows })
        }
    }
}

type Rows = datafusion::execution::SendableRecordBatchStream;

async fn collect(mut rows: Rows, reporter: &Reporter) -> Result<Vec<RecordBatch>, StepError> {
    let mut batches = Vec::new();
    let compute = info_span!("compute");
    while let Some(batch) = next(&mut rows, reporter).instrument(compute.clone()).await? {
        batches.push(batch);
    }
    Ok(batches)
}

async fn next(rows: &mut Rows, reporter: &Reporter) -> Result<Option<RecordBatch>, StepError> {
    tokio::select! {
        biased;
        () = reporter.cancel.cancelled() => Err(StepError::external("HM-X007", "cancelled")),
        batch = rows.next() => match batch {
            None => Ok(None),
            Some(Ok(batch)) => Ok(Some(batch)),
            Some(Err(error)) => Err(crate::engine::EngineError::from(error).into()),
        },
    }
}

/// How an output is cut by a calendar.
struct Cut<'a> {
    by: &'a str,
    calendar: &'a Calendar,
}

/// What of the output is published at once.
enum Part<'a> {
    Whole,
    /// A partition of a calendar.
    Calendar(&'a Calendar, Partition),
    /// A value of a list, with what was found beside its rows.
    Value(String, Listed),
}

/// Returns the condition that keeps a chunk's rows.
fn filter(
    target: &Target<'_>,
    cut: &Cut<'_>,
    from: Partition,
    to: Partition,
) -> Result<PartitionFilter, StepError> {
    let (kind, every) = (target.kind(cut.by)?, cut.calendar.every);
    let of = |key: Partition| value((cut.by, every), &kind, &key.to_string());
    let keeps = Keeps::Between { from: of(from)?, to: of(to.next())? };
    Ok(PartitionFilter { column: cut.by.to_owned(), keeps })
}

fn parse(calendar: &Calendar, key: &str) -> Result<Partition, StepError> {
    Partition::parse(calendar.every, key).map_err(|error| StepError::user("HM-X008", error.to_string()))
}

/// Returns the partition column's value for a key of a calendar.
pub(super) fn value(
    (by, every): (&str, Grain),
    kind: &DataType,
    key: &str,
) -> Result<ScalarValue, StepError> {
    match (kind, every) {
        (DataType::Date32, Grain::Day) => {
            let day = chrono::NaiveDate::parse_from_str(key, "%Y-%m-%d")
                .map_err(|error| StepError::user("HM-X008", format!("{key}: {error}")))?;
            Ok(ScalarValue::Date32(Some(Date32Type::from_naive_date(day))))
        }
        // Keys order as text as they do in time.
        (DataType::Utf8, _) => Ok(ScalarValue::Utf8(Some(key.to_owned()))),
        _ => Err(StepError::user(
            "HM-X008",
            format!("column {by} is a {kind}: cut by a date every day, or by a string that holds the key"),
        )),
    }
}

/// Splits rows, which come ordered by the partition column, publishes each partition as it is complete, and returns how many
/// rows those have.
///
/// A partition whose rules fail keeps what was published before; the others go on.
async fn partitions(
    target: &Target<'_>,
    cut: &Cut<'_>,
    mut open: Partition,
    last: Partition,
    mut rows: Rows,
) -> Result<u64, StepError> {
    let mut held: Vec<RecordBatch> = Vec::new();
    let mut written = 0;
    let mut refused: Option<StepError> = None;
    let publish = async |partition: Partition, held: Vec<RecordBatch>| -> Result<u64, StepError> {
        target.publish(Part::Calendar(cut.calendar, partition), held).await
    };
    let mut settle = |result: Result<u64, StepError>| match result {
        Ok(rows) => {
            written += rows;
            Ok(())
        }
        Err(error) if error.code == AUDIT_FAILED => {
            refused.get_or_insert(error);
            Ok(())
        }
        Err(error) => Err(error),
    };
    // One for each stretch between two publications: rows are computed as they are asked for.
    let mut compute: Option<Span> = None;
    let mut computing = || info_span!("compute");
    while let Some(batch) = next(&mut rows, target.reporter)
        .instrument(compute.get_or_insert_with(&mut computing).clone())
        .await?
    {
        let keys = keys(&batch, cut.by)?;
        let mut start = 0;
        while start < keys.len() {
            let key = &keys[start];
            let end = keys[start..]
                .iter()
                .position(|other| other != key)
                .map_or(keys.len(), |length| start + length);
            let partition = parse(cut.calendar, key)?;
            while open < partition {
                compute = None;
                settle(publish(open, std::mem::take(&mut held)).await)?;
                open = open.next();
            }
            held.push(batch.slice(start, end - start));
            start = end;
        }
    }
    drop(compute);
    while open <= last {
        settle(publish(open, std::mem::take(&mut held)).await)?;
        open = open.next();
    }
    refused.map_or(Ok(written), Err)
}

/// Returns the partition key of each row.
fn keys(batch: &RecordBatch, by: &str) -> Result<Vec<String>, StepError> {
    let wrong = || StepError::user("HM-X008", format!("column {by} cannot be cut by"));
    let column = batch.column_by_name(by).ok_or_else(wrong)?;
    match column.data_type() {
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>();
            let text =
                |day: i32| Date32Type::to_naive_date_opt(day).map(|day| day.to_string()).ok_or_else(wrong);
            days.iter().map(|day| day.map_or_else(|| Err(wrong()), text)).collect()
        }
        DataType::Utf8 => Ok(column.as_string::<i32>().iter().flatten().map(str::to_owned).collect()),
        _ => Err(wrong()),
    }
}

/// The code of a failed audit.
pub(super) const AUDIT_FAILED: &str = "HM-Q001";

impl Target<'_> {
    /// Returns the type of the partition column.
    fn kind(&self, by: &str) -> Result<DataType, StepError> {
        let kind = self.schema.field_with_name(by).map(|field| field.data_type().clone());
        kind.map_err(|_| StepError::user("HM-X008", format!("no column {by} to cut by")))
    }

    /// Writes, audits and publishes one partition, or the whole table; returns its rows.
    async fn publish(&self, part: Part<'_>, batches: Vec<RecordBatch>) -> Result<u64, StepError> {
        let key_text = match &part {
            Part::Whole => None,
            Part::Calendar(_, partition) => Some(partition.to_string()),
            Part::Value(value, _) => Some(value.clone()),
        };
        let versions: Vec<String> =
            self.versions.iter().map(|(port, version)| format!("{port}@{version}")).collect();
        // With the generation: a definition that comes back after another must replace the other's rows.
        let generation = self.job.start.generation;
        let what = key_text.as_deref().unwrap_or("whole");
        let key = format!("{what}/{generation}/{}/{}", self.data, versions.join(","));
        let meta = self.context.commit(self.job.key(key));
        let stream = futures::stream::iter(batches.into_iter().map(Ok));
        let stream: Rows = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream));
        let staged = self.table.stage(&meta, stream).instrument(info_span!("stage")).await?;
        let rows = staged.rows;
        info!(event = "staged", port = %self.port, partition = key_text, rows, "staged {what}: {rows} rows");
        let provider = self.table.staged_provider(&staged);
        let object = self.port.port.as_str();
        let rules = &self.output.contract.quality;
        let against = self.against(&part);
        let mut outcomes = self
            .context
            .engine
            .audit(rules, Arc::clone(&provider), object, &against)
            .instrument(info_span!("audit"))
            .await?;
        let data_time_ms = match &part {
            Part::Calendar(calendar, partition) => ended_ms(calendar, *partition),
            // A whole table, or a value, shows its inputs as they were when it was computed.
            Part::Whole | Part::Value(..) => self.context.clock.now_ms(),
        };
        if let Part::Value(_, listed) = part {
            outcomes.extend(listed.outcome(rows));
        }
        if outcomes.iter().any(QualityOutcome::is_failed) {
            let whose = (&self.port, key_text.as_deref(), self.job.start.run.as_str());
            sample::keep(self.context, &self.output.contract, whose, &outcomes, provider).await;
        }
        let failed: Vec<String> =
            outcomes.iter().filter(|it| it.blocks()).map(QualityOutcome::spoken).collect();
        let earlier = Earlier { rows, nulls: nulls(&outcomes) };
        let run = &self.job.start.run;
        let mut facts: Vec<Fact> = outcomes
            .into_iter()
            .map(|outcome| outcome.into_fact(&self.port, key_text.as_deref(), run))
            .collect();
        if !failed.is_empty() {
            self.table.discard(staged).await?;
            self.reporter.report(facts).await;
            let what = key_text.unwrap_or_else(|| "the table".to_owned());
            let message = format!("{} {what} was not published: {}", self.port, failed.join("; "));
            return Err(StepError::user(AUDIT_FAILED, message));
        }
        let mode = key_text.clone().map_or(PublishMode::ReplaceAll, PublishMode::ReplacePartition);
        let published = self.table.publish(staged, mode, &meta).instrument(info_span!("publish")).await?;
        if let Some(key) = &key_text {
            self.history.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), earlier);
        }
        facts.push(Fact::Published(Published {
            port: self.port.clone(),
            partition: key_text,
            version: published.version.0,
            rows,
            data_time_ms: Some(data_time_ms),
            data: self.data.clone(),
            inputs: self.versions.clone(),
            run: self.job.start.run.clone(),
            key: meta.key_digest(),
            taken: None,
        }));
        self.reporter.report(facts).await;
        Ok(rows)
    }

    /// Returns what a partition, or the whole table, is compared with; a value like a whole table with what it was before.
    fn against(&self, part: &Part<'_>) -> Against {
        let partition = match part {
            Part::Calendar(_, partition) => Some(*partition),
            Part::Whole | Part::Value(..) => None,
        };
        Against { partition, history: self.history.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }
}

/// Returns when a partition of a calendar ends, milliseconds UTC.
fn ended_ms(calendar: &Calendar, partition: Partition) -> i64 {
    partition.interval(zone(calendar)).to()
}

/// Returns the percentages of nulls that later partitions are compared with.
fn nulls(outcomes: &[QualityOutcome]) -> BTreeMap<String, f64> {
    let watched = outcomes.iter().filter(|outcome| outcome.band.is_some());
    watched.filter_map(|outcome| Some((outcome.column.clone()?, outcome.measure?))).collect()
}
