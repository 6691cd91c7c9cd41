//! Runs a contract's quality rules on a table that is written and not yet published.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast_with_options, regexp_is_match_scalar};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column as PlanColumn, ScalarValue};
use datafusion::functions::regex::expr_fn::regexp_like;
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::logical_expr::{Expr, cast, in_list, lit, not, when};
use datafusion::prelude::{DataFrame, SessionContext};
use hydromesh_core::ledger::ErrorKind;
use hydromesh_core::model::{Quality, QualityCheck, QualitySeverity, Threshold};

use super::batch::{Engine, EngineError};
use super::describe::{SqlProblem, SqlProblemKind, plan_select, quoted};

/// What became of one quality rule.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityOutcome {
    /// The rule's id.
    pub rule: String,
    /// The column that it is about, if one.
    pub column: Option<String>,
    /// Blocks the publication, or only tells.
    pub severity: QualitySeverity,
    /// What was measured, in the threshold's unit; `None` when the rule could not be evaluated.
    pub measure: Option<f64>,
    /// Rows of the table.
    pub rows: u64,
    /// What the measure must be, for people: `at most 1 %`.
    pub threshold: String,
    /// The measure was taken and satisfies the threshold.
    pub passed: bool,
    /// Why there is no measure.
    pub error: Option<String>,
}

impl Engine {
    /// Returns the outcome of every rule, in the order of the rules.
    ///
    /// Every rule of the library but duplicates is measured in one scan. A rule that cannot be evaluated (a column that
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
                Ok(Measure::Duplicates(keys)) => Ok(share(audited.duplicates(&keys).await?)),
                Ok(Measure::Query(sql)) => {
                    match audited.number(&replaced(sql, object, rule.column.as_deref())).await {
                        Err(Unmeasured::Table(error)) => return Err(error),
                        Err(Unmeasured::Rule(reason)) => Err(reason),
                        Ok(number) => Ok(number),
                    }
                }
            };
            outcomes.push(outcome(rule, rows, measured));
        }
        Ok(outcomes)
    }
}

fn outcome(rule: &Quality, rows: i64, measured: Result<f64, String>) -> QualityOutcome {
    let (measure, error) = match measured {
        Ok(measure) => (Some(measure), None),
        Err(reason) => (None, Some(reason)),
    };
    QualityOutcome {
        rule: rule.id.clone(),
        column: rule.column.clone(),
        severity: rule.severity,
        measure,
        rows: rows.unsigned_abs(),
        threshold: spoken(&rule.threshold),
        passed: measure.is_some_and(|measure| rule.threshold.holds(measure)),
        error,
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
        check_operands(&rule.threshold)?;
        let own = || rule.column.as_deref().ok_or_else(|| "the rule names no column".to_owned());
        Ok(match &rule.check {
            QualityCheck::RowCount => Measure::AllRows,
            QualityCheck::NullValues => Measure::RowsWhere(self.column(own()?)?.0.is_null()),
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

fn spoken_problem(problem: SqlProblem) -> String {
    match problem.kind {
        SqlProblemKind::MissingTable { name } => {
            format!("the query reads {name}; a quality rule reads its own object, {{object}}, alone")
        }
        SqlProblemKind::MissingColumn { name, .. } => format!("column {name} is not in the table"),
        SqlProblemKind::Refused | SqlProblemKind::Other => problem.message,
    }
}

/// The two things that a query may name, as ODCS 3.0 to 3.2 and its tools spell them.
const OBJECT: [&str; 3] = ["{object}", "{table}", "{model}"];
const PROPERTY: [&str; 3] = ["{property}", "{column}", "{field}"];

fn names_property(sql: &str) -> bool {
    PROPERTY.iter().any(|name| sql.contains(name))
}

/// Returns the query with its placeholders as quoted identifiers, in one pass: a name that looks like a placeholder
/// stays a name.
fn replaced(sql: &str, object: &str, column: Option<&str>) -> String {
    let identifier = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mut text = String::with_capacity(sql.len() + object.len());
    let mut rest = sql;
    while let Some(at) = rest.find(['$', '{']) {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        let braced = from.strip_prefix('$').unwrap_or(from);
        let after = |names: &[&str]| names.iter().find_map(|name| braced.strip_prefix(name));
        if let Some(after) = after(&OBJECT) {
            text.push_str(&identifier(object));
            rest = after;
        } else if let (Some(after), Some(column)) = (after(&PROPERTY), column) {
            text.push_str(&identifier(column));
            rest = after;
        } else {
            text.push_str(&from[..1]);
            rest = &from[1..];
        }
    }
    text.push_str(rest);
    text
}

fn check_operands(threshold: &Threshold) -> Result<(), String> {
    let wanted = match threshold.operator.as_str() {
        "mustBe"
        | "mustNotBe"
        | "mustBeGreaterThan"
        | "mustBeGreaterOrEqualTo"
        | "mustBeLessThan"
        | "mustBeLessOrEqualTo" => 1,
        "mustBeBetween" | "mustNotBeBetween" => 2,
        other => return Err(format!("{other} is no operator of a quality rule")),
    };
    let given = threshold.operands.len();
    if given != wanted || threshold.operands.iter().any(|operand| operand.is_nan()) {
        return Err(format!("{} takes {wanted} numbers and the rule gives {given}", threshold.operator));
    }
    Ok(())
}

/// Returns the threshold for people.
fn spoken(threshold: &Threshold) -> String {
    let at = |index: usize| threshold.operands.get(index).map_or_else(|| "?".to_owned(), f64::to_string);
    let (one, two) = (at(0), at(1));
    let mut text = match threshold.operator.as_str() {
        "mustBe" => format!("exactly {one}"),
        "mustNotBe" => format!("anything but {one}"),
        "mustBeGreaterThan" => format!("more than {one}"),
        "mustBeGreaterOrEqualTo" => format!("at least {one}"),
        "mustBeLessThan" => format!("less than {one}"),
        "mustBeLessOrEqualTo" => format!("at most {one}"),
        "mustBeBetween" => format!("from {one} to {two}"),
        "mustNotBeBetween" => format!("below {one} or above {two}"),
        other => format!("{other} {one}"),
    };
    if threshold.percent {
        text.push_str(" %");
    }
    text
}

#[cfg(test)]
mod tests;
