//! Runs a contract's quality rules on a table that is written and not yet published.

mod outcome;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast_with_options, regexp_is_match_scalar};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column as PlanColumn, ScalarValue};
use datafusion::error::Result as PlanResult;
use datafusion::functions::regex::expr_fn::regexp_like;
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::logical_expr::{Expr, cast, in_list, lit, not, when};
use datafusion::prelude::{DataFrame, SessionContext};
use hydromesh_core::band::{History, band};
use hydromesh_core::ledger::ErrorKind;
use hydromesh_core::model::{Quality, QualityCheck, Threshold, Usual, UsualOf};
use hydromesh_core::time::Partition;

use self::words::{check_operands, names_property, replaced, spoken_problem};
use super::batch::{Engine, EngineError};
use super::describe::{plan_select, quoted};

pub use self::outcome::QualityOutcome;

/// What a table under audit is compared with.
#[derive(Debug, Clone, Default)]
pub struct Against {
    /// The partition under audit; `None` for a whole table.
    pub partition: Option<Partition>,
    /// What was published by the same definition.
    pub history: History,
    /// What programs have measured, or why they have not, by rule.
    pub measured: BTreeMap<String, Result<f64, String>>,
}

impl Engine {
    /// Returns the outcome of every rule, in the order of the rules.
    ///
    /// Every rule of the library but duplicates is measured in one scan, and so is what is compared with what is usual. A rule that cannot be evaluated (a column that
    /// is not there, a broken pattern, a query that fails) did not pass, and the others are evaluated all the same.
    /// The measure of a `percent` rule is `100 * counted rows / all rows`, 0 for an empty table; that of a query is the
    /// number that the query yields, whatever the unit. Rows with a null in a key are no duplicates, as in SQL's UNIQUE.
    ///
    /// # Errors
    /// When the table itself cannot be read.
    pub async fn audit(
        &self,
        rules: &[Quality],
        table: Arc<dyn TableProvider>,
        object: &str,
        against: &Against,
    ) -> Result<Vec<QualityOutcome>, EngineError> {
        let context = self.session(BTreeMap::from([(object.to_owned(), Arc::clone(&table))]))?;
        let audited =
            Audited { frame: context.table(quoted(object)).await?, context, schema: table.schema() };

        let measures = rules.iter().map(|rule| audited.measure_of(rule)).collect::<Vec<_>>();
        let counted = measures.iter().filter_map(|measure| match measure {
            Ok(Measure::RowsWhere(condition)) => Some(condition.clone()),
            _ => None,
        });
        let (rows, counts) = audited.count(counted.collect()).await?;

        let mut counts = counts.into_iter();
        let mut outcomes = Vec::with_capacity(rules.len());
        for (rule, measure) in rules.iter().zip(measures) {
            let share = |counted: i64| in_unit(counted, rows, &rule.threshold);
            let measured = match measure {
                Err(reason) => Err(reason),
                Ok(Measure::AllRows) => Ok(share(rows)),
                Ok(Measure::RowsWhere(_)) => Ok(share(counts.next().unwrap_or_default())),
                Ok(Measure::Outside) => against
                    .measured
                    .get(&rule.id)
                    .cloned()
                    .unwrap_or_else(|| Err("no program was run".to_owned())),
                Ok(Measure::Duplicates(keys)) => Ok(share(audited.duplicates(&keys).await?)),
                Ok(Measure::Query(sql)) => {
                    match audited.number(&replaced(sql, object, rule.column.as_deref())).await {
                        Err(Unmeasured::Table(error)) => return Err(error),
                        Err(Unmeasured::Rule(reason)) => Err(reason),
                        Ok(number) => Ok(number),
                    }
                }
            };
            let rows = rows.unsigned_abs();
            outcomes.push(QualityOutcome::new(rule, rows, measured, || match &rule.check {
                QualityCheck::Usual(usual) => {
                    Some(band(usual, rule.column.as_deref(), against.partition, rows, &against.history))
                }
                _ => None,
            }));
        }
        Ok(outcomes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^53")]
fn in_unit(counted: i64, rows: i64, threshold: &Threshold) -> f64 {
    match (threshold.percent, rows) {
        (false, _) => counted as f64,
        (true, 0) => 0.0,
        (true, rows) => 100.0 * counted as f64 / rows as f64,
    }
}

/// The column of [`Engine::failing_rows`] that counts the rows with the same key.
pub const FAILING_COUNT: &str = "rows with this key";

impl Engine {
    /// Returns some rows that each rule did not want: at most so many, the first as they are stored. Of duplicates these are the
    /// keys alone, each once, with [`FAILING_COUNT`].
    ///
    /// Rules about numbers of rows and queries name no rows and are left out, and so is what cannot be read.
    pub async fn failing_rows(
        &self,
        rules: &[&Quality],
        table: Arc<dyn TableProvider>,
        object: &str,
        most: usize,
    ) -> Vec<(String, Vec<RecordBatch>)> {
        let mut found = Vec::new();
        let tables = BTreeMap::from([(object.to_owned(), Arc::clone(&table))]);
        let Ok(context) = self.session(tables) else { return found };
        let Ok(frame) = context.table(quoted(object)).await else { return found };
        let audited = Audited { frame, context, schema: table.schema() };
        for rule in rules {
            let rows = match audited.measure_of(rule) {
                Ok(Measure::RowsWhere(condition)) => audited.frame.clone().filter(condition),
                Ok(Measure::Duplicates(keys)) => audited.repeated(keys),
                Ok(Measure::AllRows | Measure::Query(_) | Measure::Outside) | Err(_) => continue,
            };
            let Ok(rows) = rows.and_then(|rows| rows.limit(0, Some(most))) else { continue };
            if let Ok(batches) = rows.collect().await {
                found.push((rule.id.clone(), batches));
            }
        }
        found
    }
}

/// How a rule is measured.
enum Measure<'r> {
    /// The number of rows, which every audit counts.
    AllRows,
    /// The number of rows with a condition.
    RowsWhere(Expr),
    /// The number of rows beyond the first of each combination of these columns.
    Duplicates(Vec<Expr>),
    /// A query, not yet replaced.
    Query(&'r str),
    /// A program, which was run before.
    Outside,
}

/// Why a query gave no measure.
enum Unmeasured {
    /// It is the rule's fault.
    Rule(String),
    /// The table cannot be read, so that no rule can be evaluated.
    Table(EngineError),
}

impl From<EngineError> for Unmeasured {
    fn from(error: EngineError) -> Self {
        match error.kind {
            ErrorKind::External => Self::Table(error),
            _ => Self::Rule(error.message),
        }
    }
}

/// The table under audit.
struct Audited {
    context: SessionContext,
    frame: DataFrame,
    schema: SchemaRef,
}

impl Audited {
    fn measure_of<'r>(&self, rule: &'r Quality) -> Result<Measure<'r>, String> {
        if !matches!(rule.check, QualityCheck::Usual(_)) {
            check_operands(&rule.threshold)?;
        }
        let own = || rule.column.as_deref().ok_or_else(|| "the rule names no column".to_owned());
        Ok(match &rule.check {
            QualityCheck::RowCount | QualityCheck::Usual(Usual { of: UsualOf::RowCount, .. }) => {
                Measure::AllRows
            }
            QualityCheck::NullValues | QualityCheck::Usual(Usual { of: UsualOf::NullValues, .. }) => {
                Measure::RowsWhere(self.column(own()?)?.0.is_null())
            }
            QualityCheck::MissingValues(values) => {
                let (column, kind) = self.column(own()?)?;
                let among = among(&column, &kind, values)?;
                Measure::RowsWhere(column.is_null().or(among))
            }
            QualityCheck::InvalidValues { valid, pattern } => {
                let (column, kind) = self.column(own()?)?;
                if valid.is_empty() && pattern.is_none() {
                    return Err("the rule gives neither valid values nor a pattern".to_owned());
                }
                let mut allowed = among(&column, &kind, valid)?;
                if let Some(pattern) = pattern {
                    allowed = allowed.or(matching(&column, &kind, pattern)?);
                }
                Measure::RowsWhere(column.is_not_null().and(not(allowed)))
            }
            QualityCheck::DuplicateValues(keys) => {
                let keys = if keys.is_empty() { vec![own()?.to_owned()] } else { keys.clone() };
                let keys = keys.iter().map(|key| Ok(self.column(key)?.0)).collect::<Result<_, String>>()?;
                Measure::Duplicates(keys)
            }
            QualityCheck::Sql(sql) if rule.column.is_none() && names_property(sql) => {
                return Err("the query names {property} and the rule is about no column".to_owned());
            }
            QualityCheck::Sql(sql) => Measure::Query(sql),
            QualityCheck::Command(_) => Measure::Outside,
        })
    }

    fn column(&self, name: &str) -> Result<(Expr, DataType), String> {
        let field =
            self.schema.field_with_name(name).map_err(|_| format!("column {name} is not in the table"))?;
        Ok((Expr::Column(PlanColumn::new_unqualified(name)), field.data_type().clone()))
    }

    /// Returns the number of rows, and of rows with each of the conditions.
    async fn count(&self, conditions: Vec<Expr>) -> Result<(i64, Vec<i64>), EngineError> {
        let mut counts = vec![count(lit(1_i64)).alias("rows")];
        for (index, condition) in conditions.into_iter().enumerate() {
            counts.push(count(when(condition, lit(1_i64)).end()?).alias(format!("rows_{index}")));
        }
        let batches = self.frame.clone().aggregate(vec![], counts)?.collect().await?;
        let counts = integers(&batches)?;
        let (rows, counts) = counts.split_first().ok_or_else(|| not_one_row("counts"))?;
        Ok((*rows, counts.to_vec()))
    }

    async fn duplicates(&self, keys: &[Expr]) -> Result<i64, EngineError> {
        let mut frame = self.frame.clone();
        for key in keys {
            frame = frame.filter(key.clone().is_not_null())?;
        }
        // Own names, so that no column of the table can have the same one as the count.
        let named = keys.iter().enumerate().map(|(index, key)| key.clone().alias(format!("key_{index}")));
        let groups = frame.aggregate(named.collect(), vec![count(lit(1_i64)).alias("rows")])?;
        let beyond = sum(Expr::Column(PlanColumn::new_unqualified("rows")) - lit(1_i64)).alias("beyond");
        let batches = groups.aggregate(vec![], vec![beyond])?.collect().await?;
        integers(&batches)?.first().copied().ok_or_else(|| not_one_row("duplicates"))
    }

    /// Returns the keys that come more than once.
    fn repeated(&self, keys: Vec<Expr>) -> PlanResult<DataFrame> {
        let mut frame = self.frame.clone();
        for key in &keys {
            frame = frame.filter(key.clone().is_not_null())?;
        }
        let counted = frame.aggregate(keys, vec![count(lit(1_i64)).alias(FAILING_COUNT)])?;
        counted.filter(Expr::Column(PlanColumn::new_unqualified(FAILING_COUNT)).gt(lit(1_i64)))
    }

    /// Returns the one number that a query yields.
    async fn number(&self, sql: &str) -> Result<f64, Unmeasured> {
        let plan =
            plan_select(&self.context, sql).map_err(|problem| Unmeasured::Rule(spoken_problem(problem)))?;
        let frame = DataFrame::new(self.context.state(), plan);
        let fields = frame.schema().fields();
        let rule = |reason: String| Err(Unmeasured::Rule(reason));
        if fields.len() != 1 {
            return rule(format!("the query yields {} columns, not one number", fields.len()));
        }
        let kind = fields[0].data_type().clone();
        if !kind.is_numeric() {
            return rule(format!("the query yields {kind}, not a number"));
        }
        // Two rows tell that there are too many, however many there are.
        let batches =
            frame.limit(0, Some(2)).map_err(EngineError::from)?.collect().await.map_err(EngineError::from)?;
        let rows = batches.iter().filter(|batch| batch.num_rows() > 0).collect::<Vec<_>>();
        let array = match rows.as_slice() {
            [] => return rule("the query yields no row, not one number".to_owned()),
            [batch] if batch.num_rows() == 1 => batch.column(0),
            _ => return rule("the query yields more than one row, not one number".to_owned()),
        };
        let number = cast_with_options(array, &DataType::Float64, &STRICT)
            .map_err(|error| Unmeasured::Rule(format!("the query yields no usable number: {error}")))?;
        match number.as_primitive::<Float64Type>().iter().next().flatten() {
            None => rule(
                "the query yields NULL, not a number; COALESCE can say what an empty table means".to_owned(),
            ),
            Some(number) if number.is_finite() => Ok(number),
            Some(_) => rule("the query yields no finite number".to_owned()),
        }
    }
}

const STRICT: CastOptions<'_> = CastOptions { safe: false, format_options: FORMAT };
const FORMAT: arrow::util::display::FormatOptions<'_> = arrow::util::display::FormatOptions::new();

/// Returns whether the column is one of the values, each read as the column's type.
///
/// A text that is no value of the type, `n/a` among numbers, is in no row.
fn among(column: &Expr, kind: &DataType, values: &[String]) -> Result<Expr, String> {
    if values.is_empty() {
        return Ok(lit(false));
    }
    if kind.is_nested() {
        return Err(format!("{column} is a list, and lists have no values to compare with"));
    }
    let typed = values.iter().filter_map(|value| {
        let text: ArrayRef = Arc::new(StringArray::from(vec![value.as_str()]));
        let value = cast_with_options(&text, kind, &STRICT).ok()?;
        ScalarValue::try_from_array(&value, 0).ok().filter(|value| !value.is_null())
    });
    let typed = typed.map(lit).collect::<Vec<_>>();
    Ok(if typed.is_empty() { lit(false) } else { in_list(column.clone(), typed, false) })
}

/// Returns whether the pattern is found in the column's text. As in JSON Schema it is the author who anchors it.
fn matching(column: &Expr, kind: &DataType, pattern: &str) -> Result<Expr, String> {
    if kind.is_nested() {
        return Err(format!("{column} is a list, and lists match no pattern"));
    }
    let probe = StringArray::from(vec![""]);
    regexp_is_match_scalar(&probe, pattern, None)
        .map_err(|error| format!("the pattern is no regular expression: {}", essence(&error.to_string())))?;
    let text = if kind == &DataType::Utf8 { column.clone() } else { cast(column.clone(), DataType::Utf8) };
    Ok(regexp_like(text, lit(pattern), None))
}

/// Returns what is wrong out of an error that draws the pattern over several lines.
fn essence(text: &str) -> &str {
    let told = text.lines().find_map(|line| line.trim().strip_prefix("error: "));
    told.or_else(|| text.lines().next()).unwrap_or_default()
}

fn integers(batches: &[RecordBatch]) -> Result<Vec<i64>, EngineError> {
    let row = batches.iter().find(|batch| batch.num_rows() == 1).ok_or_else(|| not_one_row("counts"))?;
    // The sum over no group is null, and stands for no row.
    let integer = |array: &ArrayRef| {
        let array = array.as_primitive_opt::<Int64Type>().ok_or_else(|| not_one_row("integers"))?;
        Ok(array.iter().next().flatten().unwrap_or_default())
    };
    row.columns().iter().map(integer).collect()
}

fn not_one_row(what: &str) -> EngineError {
    let message = format!("an aggregate over the whole table yielded no row of {what}");
    EngineError { kind: ErrorKind::Internal, code: "HM-X004", message }
}

#[cfg(test)]
mod tests;
