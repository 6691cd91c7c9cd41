//! Ports, audits, runs and decisions of a product.

use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::{Deployed, QualityRecord, RuleOutcome, RunOutcome};
use hydromesh_core::model::{
    BatchSchedule, Classification, Column, LogicalType, OutputPort, Pipeline, Product, Quality, QualityCheck,
    QualitySeverity, SlaKind, TableFormat,
};
use hydromesh_core::plan::{StepKey, Work, zone};
use hydromesh_core::time::{Cron, Partition};

use super::{Facts, filled_by, instant};
use crate::site::model::{self as site, QualityOutcome};
use crate::site::words;

/// Runs and decisions of a product that are kept.
const RUNS: usize = 20;
const DECISIONS: usize = 10;

impl Facts<'_> {
    /// Returns the output ports by name.
    pub(super) fn ports_of(&self, product: &Product) -> Vec<site::Port> {
        product.outputs.values().map(|output| self.port(product, output)).collect()
    }

    fn port(&self, product: &Product, output: &OutputPort) -> site::Port {
        let port = product.port(&output.name);
        let state = self.ledger.ports.get(&port).filter(|state| !state.publishes.is_empty());
        let mut access = Vec::new();
        if output.access.table {
            access.push(site::Access::Table);
        }
        if output.access.topic {
            access.push(site::Access::Topic { topic: port.to_string() });
        }
        access.extend(output.access.lookup.clone().map(|key| site::Access::Lookup { key }));
        access.extend(output.access.search.clone().map(|text| site::Access::Search { text }));
        let contract = &output.contract;
        let description =
            if output.description.is_empty() { &contract.description } else { &output.description };
        site::Port {
            name: output.name.to_string(),
            format: match output.format {
                TableFormat::Delta => "delta".to_owned(),
                TableFormat::Iceberg => "iceberg".to_owned(),
            },
            location: self.location(&port),
            query_name: port.to_string(),
            description: description.clone(),
            rows: state.and_then(|_| self.rows(product, &port)),
            version: state.map(|state| state.version.to_string()),
            contract_version: contract.version.clone(),
            access,
            columns: contract.columns.iter().map(column).collect(),
            terms: contract
                .slas
                .iter()
                .filter_map(|sla| match &sla.kind {
                    SlaKind::Other { property, value } => Some((property.clone(), value.clone())),
                    _ => None,
                })
                .collect(),
        }
    }

    /// The lake keeps a table in a folder per domain and one per port.
    fn location(&self, port: &PortId) -> String {
        let PortId { product, port } = port;
        let tail = format!("{}/{}.{port}", product.domain, product.name);
        match self.view.lake.trim_end_matches('/') {
            "" => tail,
            lake => format!("{lake}/{tail}"),
        }
    }

    /// Returns the rows that a reader sees: those of the published partitions, or of all epochs of a stream.
    fn rows(&self, product: &Product, port: &PortId) -> Option<u64> {
        let state = self.ledger.ports.get(port)?;
        if !state.partitions.is_empty() {
            return Some(state.partitions.values().map(|partition| partition.published.rows).sum());
        }
        let pipeline = filled_by(product, port)?;
        let (_, stream) = self
            .ledger
            .streams
            .iter()
            .find(|(id, _)| id.product == product.id && id.name == *pipeline.name())?;
        // A feature's table holds tiles, not the events that it counted.
        matches!(pipeline, Pipeline::Stream(_)).then_some(stream.rows.accepted + stream.rows.corrected)
    }

    /// Returns every rule of the contracts with its last result.
    pub(super) fn quality_of(&self, product: &Product) -> Vec<site::QualityResult> {
        let rules = product.outputs.iter().flat_map(|(name, output)| {
            output.contract.quality.iter().map(move |rule| (product.port(name), rule))
        });
        rules.map(|(port, rule)| self.quality(&port, rule)).collect()
    }

    fn quality(&self, port: &PortId, rule: &Quality) -> site::QualityResult {
        let record = self.ledger.quality.get(port).and_then(|records| records.get(&rule.id));
        let severity = match rule.severity {
            QualitySeverity::Error => site::Severity::Error,
            QualitySeverity::Warning => site::Severity::Warning,
        };
        let outcome = match record.map(QualityRecord::outcome) {
            None => QualityOutcome::NotRun,
            Some(RuleOutcome::Held) => QualityOutcome::Pass,
            Some(RuleOutcome::Unknown) => QualityOutcome::Unknown,
            // A rule that could not be evaluated stops a publication like one that failed.
            Some(RuleOutcome::Failed | RuleOutcome::Unmeasured) => QualityOutcome::Fail,
        };
        let observed = match record {
            None => String::new(),
            Some(record) => {
                record.measure.map_or_else(|| "could not be evaluated".to_owned(), |it| measured(rule, it))
            }
        };
        site::QualityResult {
            check: rule.id.clone(),
            port: port.port.to_string(),
            column: rule.column.clone(),
            severity,
            outcome,
            observed,
            expected: record.map(|record| record.threshold.clone()).unwrap_or_default(),
            partition: record.and_then(|record| record.partition.clone()),
            at: record.map(|record| instant(record.at_ms)),
        }
    }

    /// Returns what runs now, then what ended last.
    pub(super) fn runs_of(&self, id: &ProductId) -> Vec<site::Run> {
        let product = self.definitions.get(id).map(|definition| definition.product);
        let running = self.ledger.running.iter().filter(|(_, step)| step.pipeline.product == *id);
        let running = running.map(|(run, step)| site::Run {
            outcome: site::RunOutcome::Running,
            ..run_of(run, step, product)
        });
        let ended = self.runs.get(id).into_iter().flatten().map(|run| {
            let (outcome, rows, error) = match &run.outcome {
                RunOutcome::Succeeded { rows } => (site::RunOutcome::Succeeded, Some(*rows), None),
                RunOutcome::Failed { code, message, .. } => {
                    (site::RunOutcome::Failed, None, Some(format!("{code}: {message}")))
                }
                RunOutcome::Cancelled => (site::RunOutcome::Cancelled, None, None),
            };
            site::Run {
                outcome,
                started_at: Some(instant(run.at_ms - run.took_ms)),
                ended_at: Some(instant(run.at_ms)),
                rows,
                error,
                ..run_of(&run.run, &run.step, product)
            }
        });
        running.chain(ended).take(RUNS).collect()
    }

    /// Returns the newest answers of the gate.
    pub(super) fn decisions_of(&self, id: &ProductId) -> Vec<site::Decision> {
        let decisions = self.decisions.get(id).into_iter().flatten();
        decisions
            .take(DECISIONS)
            .map(|(at, decision)| site::Decision {
                at: instant(*at),
                action: decision.action.clone(),
                verdict: if decision.allow { site::Verdict::Allow } else { site::Verdict::Deny },
                rules: decision
                    .violations
                    .iter()
                    .chain(&decision.warnings)
                    .map(|finding| site::RuleHit {
                        rule: finding.rule.clone(),
                        message: finding.message.clone(),
                    })
                    .collect(),
                input_hash: decision.input_hash.clone(),
                commit: Some(decision.commit.clone()),
            })
            .collect()
    }

    /// Returns when the calendar next makes data due: the earliest tick or partition of a batch pipeline.
    ///
    /// Pipelines that follow a topic or their inputs have no such moment.
    pub(super) fn next_expected(&self, deployed: &Deployed) -> Option<i64> {
        let due = |pipeline: &Pipeline| {
            let Pipeline::Batch(batch) = pipeline else { return None };
            if let Some(schedule) = batch.schedule.as_ref().and_then(BatchSchedule::cron) {
                return Cron::parse(&schedule.cron, &schedule.timezone).ok()?.next_after(self.now_ms);
            }
            let calendar = batch.partition.as_ref()?.calendar()?;
            let zone = zone(calendar);
            Some(Partition::containing(calendar.every, self.now_ms, zone).interval(zone).to())
        };
        deployed.product.pipelines.values().filter_map(due).min()
    }
}

/// A run of which nothing is known but its step.
fn run_of(run: &str, step: &StepKey, product: Option<&Product>) -> site::Run {
    let partition = match &step.work {
        Work::Partitions { from, to } if from == to => Some(from.clone()),
        Work::Partitions { from, to } => Some(format!("{from} to {to}")),
        _ => None,
    };
    site::Run {
        id: run.to_owned(),
        pipeline: step.pipeline.name.to_string(),
        trigger: trigger(step, product),
        partition,
        outcome: site::RunOutcome::Queued,
        started_at: None,
        ended_at: None,
        rows: None,
        error: None,
    }
}

/// Returns what makes a step due by its definition; a run does not remember more.
fn trigger(step: &StepKey, product: Option<&Product>) -> String {
    match (&step.work, product.and_then(|product| product.pipelines.get(&step.pipeline.name))) {
        (Work::Partitions { .. } | Work::Whole, Some(Pipeline::Batch(batch))) => match &batch.schedule {
            Some(BatchSchedule::Cron(schedule)) => {
                format!("schedule {} {}", schedule.cron, schedule.timezone)
            }
            Some(BatchSchedule::By(_)) => "before its promise ends".to_owned(),
            None => "when its inputs change".to_owned(),
        },
        (Work::Partitions { .. } | Work::Whole, _) => "batch".to_owned(),
        (Work::Follow, _) => "follows its topic".to_owned(),
        (Work::Embed, _) => "when texts change".to_owned(),
        (Work::Train, _) => "training".to_owned(),
        (Work::Tend, _) => "maintenance".to_owned(),
        (Work::Keys, _) => "a look for values".to_owned(),
        (Work::Drift, _) => "comparison with the training snapshot".to_owned(),
    }
}

#[expect(clippy::float_cmp, reason = "rows are counted in whole numbers")]
fn measured(rule: &Quality, measure: f64) -> String {
    let number = words::measure(measure);
    match &rule.check {
        _ if rule.threshold.percent => format!("{number}\u{202f}%"),
        QualityCheck::Sql(_) | QualityCheck::Command(_) => number,
        _ if measure == 1.0 => "1 row".to_owned(),
        _ => format!("{number} rows"),
    }
}

fn column(column: &Column) -> site::Column {
    site::Column {
        name: column.name.clone(),
        logical_type: match &column.logical {
            LogicalType::Vector(dimensions) => format!("vector({dimensions})"),
            other => match (&column.physical, other) {
                // A decimal is what a reader must know of a number.
                (Some(physical), LogicalType::Number) if physical.to_lowercase().starts_with("decimal") => {
                    physical.to_lowercase()
                }
                _ => logical(other).to_owned(),
            },
        },
        required: column.required || column.primary_key,
        classification: column.classification.map(|class| {
            match class {
                Classification::Public => "public",
                Classification::Internal => "internal",
                Classification::Confidential => "confidential",
                Classification::Pii => "pii",
            }
            .to_owned()
        }),
        description: column.description.clone(),
    }
}

fn logical(logical: &LogicalType) -> &'static str {
    match logical {
        LogicalType::String => "string",
        LogicalType::Date => "date",
        LogicalType::Timestamp => "timestamp",
        LogicalType::Time => "time",
        LogicalType::Number => "number",
        LogicalType::Integer => "integer",
        LogicalType::Boolean => "boolean",
        LogicalType::Binary => "binary",
        LogicalType::Vector(_) => "vector",
    }
}
