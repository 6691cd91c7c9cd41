//! Queries against contracts: what a query yields must be what its port promises.
//!
//! Shapes of queries come from the engine, described offline against the contracts of the inputs; here they are only
//! compared.

mod types;

use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate::AggFunction;
use crate::diag::{Diagnostic, Related, Severity, Spot, codes, did_you_mean};
use crate::ids::{PipelineName, ProductId};
use crate::model::{
    ColumnShape, Contract, FeaturePipeline, LogicalType, Mesh, Pipeline, Product, QualityCheck, QueryShape,
    SqlText, TrainingPipeline,
};
use crate::sql;

pub use types::{Fit, decimal, fits};

/// Why the engine could not describe a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlProblem {
    /// The engine's words.
    pub message: String,
    /// Line in the query's text, 1-based; 0 when unknown.
    pub line: u32,
    /// Column in that line, 1-based; 0 when unknown.
    pub column: u32,
}

/// Shapes, or why there is none, by product and pipeline. The query of a training pipeline is its spine.
pub type ShapeResults = BTreeMap<(ProductId, PipelineName), Result<QueryShape, SqlProblem>>;

/// Returns what does not fit between queries and contracts, by file and line.
#[must_use]
pub fn check_shapes(mesh: &Mesh, shapes: &ShapeResults) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for product in mesh.products.values() {
        for pipeline in product.pipelines.values() {
            let Some(result) = shapes.get(&(product.id.clone(), pipeline.name().clone())) else { continue };
            let Some(sql) = query_of(pipeline) else { continue };
            match result {
                Err(problem) => found.push(unplanned(mesh, product, sql, problem)),
                Ok(shape) => {
                    Check { mesh, product, sql, shape, found: &mut found }.pipeline(pipeline);
                }
            }
        }
    }
    crate::diag::sort(&mut found);
    found
}

/// Returns the products with an error among the findings of [`check_shapes`].
#[must_use]
pub fn broken_by(mesh: &Mesh, findings: &[Diagnostic]) -> BTreeMap<ProductId, Vec<usize>> {
    let mut broken: BTreeMap<ProductId, Vec<usize>> = BTreeMap::new();
    for (index, finding) in findings.iter().enumerate().filter(|(_, it)| it.severity == Severity::Error) {
        let owner = mesh.products.values().find(|product| {
            finding.file.strip_prefix(&product.folder).is_some_and(|rest| rest.starts_with('/'))
        });
        if let Some(owner) = owner {
            broken.entry(owner.id.clone()).or_default().push(index);
        }
    }
    broken
}

/// Returns the query of a pipeline; an embedding has none.
#[must_use]
pub fn query_of(pipeline: &Pipeline) -> Option<&SqlText> {
    match pipeline {
        Pipeline::Batch(it) => Some(&it.sql),
        Pipeline::Stream(it) => Some(&it.sql),
        Pipeline::Feature(it) => Some(&it.select),
        Pipeline::Training(it) => Some(&it.spine),
        Pipeline::Embedding(_) => None,
    }
}

/// The engine's problem as a finding: a column that does not exist has its own code and a suggestion.
fn unplanned(mesh: &Mesh, product: &Product, sql: &SqlText, problem: &SqlProblem) -> Diagnostic {
    let columns: Vec<&str> = product
        .inputs
        .values()
        .filter_map(|input| mesh.input_contract(input))
        .flat_map(|contract| contract.columns.iter().map(|column| column.name.as_str()))
        .collect();
    let Some(missing) = missing_column(&problem.message) else {
        let at = sql::place(sql, problem.line, problem.column);
        let message = first_sentence(&problem.message);
        return Diagnostic::new(codes::SQL_PLAN, sql.file.clone(), at, message);
    };
    let (line, column) = match (problem.line, find_word(&sql.text, &missing)) {
        (0, Some(place)) => place,
        _ => (problem.line, problem.column),
    };
    let at = sql::place(sql, line, column);
    let message = format!("the query reads the column `{missing}`, which none of its inputs has");
    let diagnostic = Diagnostic::new(codes::SQL_MISSING_COLUMN, sql.file.clone(), at, message);
    // The column's own name may be given as `table.column`.
    let bare = missing.rsplit('.').next().unwrap_or(&missing);
    match did_you_mean(bare, columns) {
        Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
        None => diagnostic,
    }
}

/// The column that a planner misses, from its message: `No field named amout. Did you mean ...`.
fn missing_column(message: &str) -> Option<String> {
    let rest = ["No field named ", "no field named ", "No such column: ", "column not found: "]
        .iter()
        .find_map(|start| message.split_once(start).map(|(_, rest)| rest))?;
    let mut name = String::new();
    let mut quoted = false;
    for letter in rest.chars() {
        match letter {
            '"' | '`' | '\'' => quoted = !quoted,
            letter if quoted || letter.is_alphanumeric() || letter == '_' || letter == '$' => {
                name.push(letter);
            }
            '.' => name.push('.'),
            _ => break,
        }
    }
    let name = name.trim_end_matches('.');
    (!name.is_empty()).then(|| name.to_owned())
}

/// The place of a word in a text, in any letter case.
fn find_word(text: &str, name: &str) -> Option<(u32, u32)> {
    let bare = name.rsplit('.').next().unwrap_or(name).to_lowercase();
    let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    for (index, line) in text.lines().enumerate() {
        let line = line.split("--").next().unwrap_or_default().to_lowercase();
        let mut from = 0;
        while let Some(position) = line[from..].find(&bare).map(|position| position + from) {
            let is_part = |letter: Option<char>| letter.is_some_and(|it| it.is_alphanumeric() || it == '_');
            let before = line[..position].chars().next_back();
            let after = line[position + bare.len()..].chars().next();
            if !is_part(before) && !is_part(after) {
                return Some((small(index + 1), small(line[..position].chars().count() + 1)));
            }
            from = position + bare.len();
        }
    }
    None
}

/// Engines prefix their messages with the kind of error and append diagnostics of several lines.
fn first_sentence(message: &str) -> String {
    let mut text = message.lines().next().unwrap_or_default().trim();
    for prefix in
        ["Error during planning: ", "Schema error: ", "SQL error: ", "This feature is not implemented: "]
    {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    if text.is_empty() { "the query cannot be planned".to_owned() } else { text.to_owned() }
}

struct Check<'a> {
    mesh: &'a Mesh,
    product: &'a Product,
    sql: &'a SqlText,
    shape: &'a QueryShape,
    found: &'a mut Vec<Diagnostic>,
}

impl Check<'_> {
    fn pipeline(mut self, pipeline: &Pipeline) {
        match pipeline {
            Pipeline::Batch(batch) => {
                self.output(pipeline);
                if batch.partition.is_some() {
                    self.repeatable();
                }
            }
            // A replayed message must yield the same row as the first time.
            Pipeline::Stream(_) => {
                self.output(pipeline);
                self.repeatable();
                self.without_history(pipeline);
            }
            Pipeline::Feature(feature) => {
                self.feature(feature);
                self.repeatable();
                self.without_history(pipeline);
            }
            Pipeline::Training(training) => self.training(training),
            Pipeline::Embedding(_) => {}
        }
    }

    fn at(&self) -> Spot {
        sql::place(self.sql, 1, 1)
    }

    fn tell(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    fn shape_column(&self, name: &str) -> Option<&ColumnShape> {
        self.shape.columns.iter().find(|column| column.name == name)
    }

    fn repeatable(&mut self) {
        for function in &self.shape.volatile {
            let message = format!("`{function}` yields something else each time it is called");
            let place = find_word(&self.sql.text, function.split('(').next().unwrap_or(function));
            let at = place.map_or_else(|| self.at(), |(line, column)| sql::place(self.sql, line, column));
            self.found.push(Diagnostic::new(codes::SQL_VOLATILE, self.sql.file.clone(), at, message));
        }
    }

    /// What follows a topic has no publications whose rows could be compared.
    fn without_history(&mut self, pipeline: &Pipeline) {
        let Some(port) = self.product.outputs.get(pipeline.output()) else { return };
        for rule in &port.contract.quality {
            let asks = match rule.check {
                QualityCheck::Usual(_) => "asks what is usual, which is known",
                QualityCheck::Command(_) => "is a command, which is run",
                _ => continue,
            };
            let message = format!(
                "rule `{}` {asks} of tables that are published as a whole or by partitions; {} follows a topic",
                rule.id,
                pipeline.name()
            );
            let at = Spot { line: rule.line, column: 1 };
            let file = port.contract.file.clone();
            self.found.push(Diagnostic::new(codes::CUSTOM_QUALITY, file, at, message));
        }
    }

    /// Columns of the query against columns of the port's contract, by name.
    fn output(&mut self, pipeline: &Pipeline) {
        let Some(port) = self.product.outputs.get(pipeline.output()) else { return };
        let contract = &port.contract;
        for column in &self.shape.columns {
            if !contract.columns.iter().any(|it| it.name == column.name) {
                let message =
                    format!("the query yields `{}`, which {} does not have", column.name, contract.id);
                let diagnostic =
                    Diagnostic::new(codes::EXTRA_COLUMN, self.sql.file.clone(), self.at(), message)
                        .suggest(&column.name, contract.columns.iter().map(|it| it.name.as_str()));
                self.tell(diagnostic);
            }
        }
        for promised in &contract.columns {
            let Some(column) = self.shape_column(&promised.name) else {
                let message =
                    format!("the query does not yield `{}`, which {} promises", promised.name, contract.id);
                let mut diagnostic =
                    Diagnostic::new(codes::ABSENT_COLUMN, self.sql.file.clone(), self.at(), message)
                        .suggest(&promised.name, self.shape.columns.iter().map(|it| it.name.as_str()));
                diagnostic.related.push(promise(contract, promised.line));
                self.tell(diagnostic);
                continue;
            };
            let (physical, nullable) = (column.physical.clone(), column.nullable);
            let fit = fits(column, promised);
            if let Fit::No(wanted) = fit {
                let message = format!(
                    "the query yields `{}` as {physical}, {} promises {wanted}",
                    promised.name, contract.id
                );
                let mut diagnostic =
                    Diagnostic::new(codes::TYPE_MISMATCH, self.sql.file.clone(), self.at(), message);
                diagnostic.related.push(promise(contract, promised.line));
                self.tell(diagnostic);
            }
            if nullable && promised.required {
                let message = format!("`{}` may be null, {} requires it", promised.name, contract.id);
                let mut diagnostic =
                    Diagnostic::new(codes::MAYBE_NULL, self.sql.file.clone(), self.at(), message);
                diagnostic.related.push(promise(contract, promised.line));
                self.tell(diagnostic);
            }
        }
    }

    /// A column that the pipeline names must come out of its query.
    fn yields(&mut self, name: &str, role: &str) {
        if self.shape_column(name).is_some() {
            return;
        }
        let message = format!("the query does not yield `{name}`, {role}");
        let diagnostic = Diagnostic::new(codes::ABSENT_COLUMN, self.sql.file.clone(), self.at(), message)
            .suggest(name, self.shape.columns.iter().map(|it| it.name.as_str()))
            .help_unless_suggested(format!("add `{name}` to the SELECT"));
        self.tell(diagnostic);
    }

    fn feature(&mut self, feature: &FeaturePipeline) {
        self.yields(&feature.entity, "the entity of the features");
        self.yields(&feature.source.event_time, "the event time of the features");
        if let Some(event_id) = &feature.source.event_id {
            self.yields(event_id, "the id of an event");
        }
        for (name, column) in crate::model::aggregated_columns(feature) {
            self.yields(&column, &format!("which feature `{name}` aggregates"));
        }
        self.feature_columns(feature);
    }

    /// The columns that the windows make against the contract of the port. Columns beyond them, such as the as-of
    /// time, are the pipeline's own.
    fn feature_columns(&mut self, feature: &FeaturePipeline) {
        let Some(port) = self.product.outputs.get(&feature.output) else { return };
        let contract = &port.contract;
        for column in feature.view.columns() {
            let Some(promised) = contract.columns.iter().find(|it| it.name == column.name) else {
                let message =
                    format!("the features yield `{}`, which {} does not have", column.name, contract.id);
                let diagnostic =
                    Diagnostic::new(codes::EXTRA_COLUMN, self.sql.file.clone(), self.at(), message)
                        .suggest(&column.name, contract.columns.iter().map(|it| it.name.as_str()));
                self.tell(diagnostic);
                continue;
            };
            let Some(yielded) = self.feature_type(feature, column.feature) else { continue };
            let shape = ColumnShape {
                name: column.name.clone(),
                logical: Some(yielded.clone()),
                physical: format!("{yielded:?}").to_lowercase(),
                nullable: true,
                expression: String::new(),
                direct: BTreeSet::new(),
                masked: false,
            };
            if let Fit::No(wanted) = fits(&shape, promised) {
                let message = format!(
                    "feature `{}` is of type {}, {} promises {wanted}",
                    column.name, shape.physical, contract.id
                );
                let mut diagnostic =
                    Diagnostic::new(codes::TYPE_MISMATCH, self.sql.file.clone(), self.at(), message);
                diagnostic.related.push(promise(contract, promised.line));
                self.tell(diagnostic);
            }
        }
    }

    fn feature_type(&self, feature: &FeaturePipeline, index: usize) -> Option<LogicalType> {
        let agg = &feature.view.features().get(index)?.agg;
        let input = || self.shape_column(agg.column()?)?.logical.clone();
        match agg.function() {
            AggFunction::Count | AggFunction::ApproxDistinct => Some(LogicalType::Integer),
            AggFunction::Avg => Some(LogicalType::Number),
            AggFunction::Sum | AggFunction::Min | AggFunction::Max | AggFunction::Last => input(),
        }
    }

    fn training(&mut self, training: &TrainingPipeline) {
        self.yields(&training.as_of_event, "the event time of a label (`as_of`)");
        if training.as_of_knowledge != training.as_of_event {
            self.yields(&training.as_of_knowledge, "the knowledge time of a label (`as_of`)");
        }
        for port in &training.features {
            let Some(entity) = entity_of(self.mesh, port) else { continue };
            self.yields(&entity, &format!("by which {port} is joined"));
        }
    }
}

/// The column by which features of a port are joined.
fn entity_of(mesh: &Mesh, port: &crate::ids::PortId) -> Option<String> {
    let product = mesh.products.get(&port.product)?;
    product.pipelines.values().find_map(|pipeline| match pipeline {
        Pipeline::Feature(feature) if feature.output == port.port => Some(feature.entity.clone()),
        _ => None,
    })
}

fn promise(contract: &Contract, line: u32) -> Related {
    Related {
        file: contract.file.clone(),
        line,
        column: 0,
        message: "the contract promises it here".to_owned(),
    }
}

#[cfg(test)]
mod tests;
