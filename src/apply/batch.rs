//! Batch: read at pinned versions, write, audit, publish.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt as _;
use hydromesh_core::band::{Earlier, History};
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{Fact, Published, Taken};
use hydromesh_core::model::{Calendar, Column, OutputPort, Partitioning, Parts, Pipeline, Values};
use hydromesh_core::plan::{Work, zone};
use hydromesh_core::time::Partition;
use tracing::{Instrument as _, Span, info, info_span};

use super::cut::{Cut, filter, keys, kind_of, parse};
use super::inputs::{self, Inputs};
use super::takeover::{Found, Takeover, recorded};
use super::values::Listed;
use super::windows::Windows;
use super::{Context, Done, Job, Reporter, StepError, commands, ensure, lake_format, sample};
use crate::engine::{Against, QualityOutcome, arrow_schema};
use crate::lake::{CommitMeta, Outcome, PublishMode, Staged, Table, TableSpec};

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
    /// What previews may have made already.
    takeover: Takeover<'a>,
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
    let mut inputs = inputs::open(context, job).await?;
    reporter.report(std::mem::take(&mut inputs.facts)).await;
    let schema = arrow_schema(&output.contract.columns);
    let table = job.table(context, &port, lake_format(output.format))?;
    let partition_by = batch.partition.as_ref().map(|cut| cut.by.clone());
    ensure(context, job, &table, &TableSpec { schema: Arc::clone(&schema), partition_by }).await?;
    sample::expire(context).await;
    let history = Mutex::new(job.earlier.clone());
    let of = (&port, data.as_str());
    let takeover = Takeover::of(context, job, batch, of, &inputs, lake_format(output.format)).await;
    let Inputs { tables, versions, .. } = inputs;
    let target =
        Target { context, job, reporter, output, port, data, table, schema, versions, history, takeover };
    let (sql, columns) = (&batch.sql.text, &output.contract.columns);
    match (&batch.partition, &job.start.key.work) {
        (
            Some(Partitioning { by, into: Parts::Values { values } | Parts::Keys { found: values, .. } }),
            Work::Partitions { from, to },
        ) => {
            // A list is never computed by more than one value in a step.
            if from != to {
                return Err(StepError::internal(format!("{from} to {to} is no value of a list")));
            }
            let list = (by.as_str(), values, from.as_str());
            let rows = Box::pin(value(&target, list, sql, tables)).await?;
            Ok(Done { facts: Vec::new(), rows })
        }
        (Some(Partitioning { by, into: Parts::Calendar(calendar) }), Work::Partitions { from, to }) => {
            let cut = Cut { by, calendar };
            let windows = Windows::of(job, batch, calendar)?;
            let query = Query { sql, tables: &tables, windows: &windows, columns };
            let mut tally = Tally::default();
            for (from, to) in windows.stretches(parse(cut, from)?, parse(cut, to)?) {
                tally.add(Box::pin(stretch(&target, cut, &query, from, to)).await)?;
            }
            let rows = tally.end()?;
            Ok(Done { facts: Vec::new(), rows })
        }
        _ => {
            let meta = target.meta(None);
            if let Some(found) = target.takeover.find(&target.table, None, &meta).await {
                let rows = Box::pin(target.take(Part::Whole, found)).await?;
                return Ok(Done { facts: Vec::new(), rows });
            }
            let rows = context.engine.run_query(sql, tables, None, columns).await?;
            let batches: Vec<RecordBatch> = collect(rows, reporter).await?;
            let rows = Box::pin(target.publish(Part::Whole, batches)).await?;
            Ok(Done { facts: Vec::new(), rows })
        }
    }
}

/// Computes one value of a list and publishes it; returns its rows.
async fn value(
    target: &Target<'_>,
    (by, values, value): (&str, &Values, &str),
    sql: &str,
    tables: BTreeMap<String, Arc<dyn TableProvider>>,
) -> Result<u64, StepError> {
    let columns = &target.output.contract.columns;
    let aligned = target.job.print.aligned.iter().any(|(output, _)| *output == target.port.port);
    let public = columns.iter().any(|column| column.name == by && column.is_public());
    let kind = kind_of(&target.schema, by)?;
    let mut listed = Listed::new((by, &kind, public), values, value, aligned)?;
    if target.sought() {
        listed = listed.sought();
    }
    let mut rows = target.context.engine.run_query(sql, tables, Some(&listed.filter()), columns).await?;
    let (mut held, compute) = (Vec::new(), info_span!("compute"));
    while let Some(batch) = next(&mut rows, target.reporter).instrument(compute.clone()).await? {
        held.push(listed.take(&batch)?);
    }
    drop(compute);
    Box::pin(target.publish(Part::Value(value.to_owned(), listed), held)).await
}

/// What came of several partitions: rows, and the first refusal.
#[derive(Default)]
struct Tally {
    written: u64,
    refused: Option<StepError>,
}

impl Tally {
    /// Takes in what came of some. A partition whose rules fail keeps what was published before; the others go on.
    fn add(&mut self, result: Result<u64, StepError>) -> Result<(), StepError> {
        match result {
            Ok(rows) => self.written += rows,
            Err(error) if error.code == AUDIT_FAILED => _ = self.refused.get_or_insert(error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn end(self) -> Result<u64, StepError> {
        self.refused.map_or(Ok(self.written), Err)
    }
}

/// What computes partitions that see the same of every input.
struct Query<'a> {
    sql: &'a str,
    tables: &'a BTreeMap<String, Arc<dyn TableProvider>>,
    windows: &'a Windows,
    columns: &'a [Column],
}

impl Query<'_> {
    /// Computes partitions and publishes them; returns their rows.
    async fn compute(
        &self,
        target: &Target<'_>,
        cut: Cut<'_>,
        from: Partition,
        to: Partition,
    ) -> Result<u64, StepError> {
        let (filter, tables) =
            (filter(&target.schema, cut, from, to)?, self.windows.tables(self.tables, from)?);
        let rows = target.context.engine.run_query(self.sql, tables, Some(&filter), self.columns).await?;
        partitions(target, cut, from, to, rows).await
    }
}

/// Takes over what previews have made of a stretch of partitions, and has the rest computed, in the order of the partitions: rules
/// look back at those before.
async fn stretch(
    target: &Target<'_>,
    cut: Cut<'_>,
    query: &Query<'_>,
    first: Partition,
    last: Partition,
) -> Result<u64, StepError> {
    let mut tally = Tally::default();
    // The first partition of those that are computed next, and the one before this.
    let (mut open, mut before, mut at) = (None, first, first);
    loop {
        let key = at.to_string();
        let meta = target.meta(Some(&key));
        match target.takeover.find(&target.table, Some(&key), &meta).await {
            Some(found) => {
                if let Some(first) = open.take()
                    && let Err(error) = tally.add(Box::pin(query.compute(target, cut, first, before)).await)
                {
                    target.table.discard(found.staged).await?;
                    return Err(error);
                }
                tally.add(Box::pin(target.take(Part::Calendar(cut.calendar, at), found)).await)?;
            }
            None => _ = open.get_or_insert(at),
        }
        if at >= last || at.next() == at {
            break;
        }
        (before, at) = (at, at.next());
    }
    if let Some(first) = open {
        tally.add(Box::pin(query.compute(target, cut, first, last)).await)?;
    }
    tally.end()
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

/// Splits rows, which come ordered by the partition column, publishes each partition as it is complete, and returns how many
/// rows those have.
async fn partitions(
    target: &Target<'_>,
    cut: Cut<'_>,
    mut open: Partition,
    last: Partition,
    mut rows: Rows,
) -> Result<u64, StepError> {
    let mut held: Vec<RecordBatch> = Vec::new();
    let mut tally = Tally::default();
    let publish = async |partition: Partition, held: Vec<RecordBatch>| -> Result<u64, StepError> {
        Box::pin(target.publish(Part::Calendar(cut.calendar, partition), held)).await
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
            let partition = parse(cut, key)?;
            while open < partition {
                compute = None;
                tally.add(publish(open, std::mem::take(&mut held)).await)?;
                open = open.next();
            }
            held.push(batch.slice(start, end - start));
            start = end;
        }
    }
    drop(compute);
    while open <= last {
        tally.add(publish(open, std::mem::take(&mut held)).await)?;
        open = open.next();
    }
    tally.end()
}

/// What of the output is published at once.
enum Part<'a> {
    Whole,
    /// A partition of a calendar.
    Calendar(&'a Calendar, Partition),
    /// A value of a list, with what was found beside its rows.
    Value(String, Listed),
}

impl Part<'_> {
    /// Returns the key of a partition.
    fn key(&self) -> Option<String> {
        match self {
            Self::Whole => None,
            Self::Calendar(_, partition) => Some(partition.to_string()),
            Self::Value(value, _) => Some(value.clone()),
        }
    }
}

/// The code of a failed audit.
pub(super) const AUDIT_FAILED: &str = "HM-Q001";

impl Target<'_> {
    /// Returns whether the values that the output is cut by are looked for.
    fn sought(&self) -> bool {
        self.job.pipeline().is_ok_and(Pipeline::looks_for_values)
    }

    /// Returns what the commit of a partition, or of the whole table, carries.
    fn meta(&self, partition: Option<&str>) -> CommitMeta {
        let versions: Vec<String> =
            self.versions.iter().map(|(port, version)| format!("{port}@{version}")).collect();
        // With the generation: a definition that comes back after another must replace the other's rows.
        let generation = self.job.start.generation;
        let what = partition.unwrap_or("whole");
        let key = format!("{what}/{generation}/{}/{}", self.data, versions.join(","));
        self.context.commit(self.job.key(key))
    }

    /// Writes, audits and publishes one partition, or the whole table; returns its rows.
    async fn publish(&self, part: Part<'_>, batches: Vec<RecordBatch>) -> Result<u64, StepError> {
        let key = part.key();
        let key = key.as_deref();
        let meta = self.meta(key);
        let stream = futures::stream::iter(batches.into_iter().map(Ok));
        let stream: Rows = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream));
        let staged = self.table.stage(&meta, stream).instrument(info_span!("stage")).await?;
        let (rows, what) = (staged.rows, key.unwrap_or("whole"));
        info!(event = "staged", port = %self.port, partition = key, rows, "staged {what}: {rows} rows");
        self.release(part, staged, &meta, None).await
    }

    /// Audits and publishes what was taken over of one partition, or of the whole table; returns its rows.
    async fn take(&self, part: Part<'_>, found: Found) -> Result<u64, StepError> {
        let Found { staged, taken, meta } = found;
        if self.reporter.cancel.is_cancelled() {
            self.table.discard(staged).await?;
            return Err(StepError::external("HM-X007", "cancelled"));
        }
        let key = part.key();
        let key = key.as_deref();
        let (rows, what, from) = (staged.rows, key.unwrap_or("whole"), &taken.from);
        info!(
            event = "copied", port = %self.port, partition = key, rows, preview = from,
            "copied {what} from {from}: {rows} rows"
        );
        self.release(part, staged, &meta, Some(taken)).await
    }

    /// Audits what is staged, publishes it and tells of it; returns its rows.
    async fn release(
        &self,
        part: Part<'_>,
        staged: Staged,
        meta: &CommitMeta,
        taken: Option<Taken>,
    ) -> Result<u64, StepError> {
        let key_text = part.key();
        let rows = staged.rows;
        let provider = self.table.staged_provider(&staged);
        let object = self.port.port.as_str();
        let rules = &self.output.contract.quality;
        let mut against = self.against(&part);
        let about = (&self.port, key_text.as_deref());
        let (contract, cancel) = (&self.output.contract, &self.reporter.cancel);
        let measured = commands::measured(self.context, self.job, contract, about, &provider, cancel).await;
        against.measured = match measured {
            Ok(measured) => measured,
            Err(error) => {
                self.table.discard(staged).await?;
                return Err(error);
            }
        };
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
        let published = self.table.publish(staged, mode, meta).instrument(info_span!("publish")).await?;
        let taken = match published.outcome {
            Outcome::Committed => taken,
            // Made by an attempt whose end nobody heard of, which may have done it the other way.
            Outcome::AlreadyCommitted => recorded(&self.table, published.version).await?,
        };
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
            taken,
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
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Against { partition, history, ..Against::default() }
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
