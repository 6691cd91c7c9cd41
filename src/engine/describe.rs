//! Describes a query against the schemas of its inputs, without any data.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::MemTable;
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::DFParser;
use futures::FutureExt as _;
use hydromesh_core::model::{ColumnShape, QueryShape};

use super::lineage::{Budget, trace};
use super::types::logical_of;

/// Why a query cannot be described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlProblem {
    /// For people.
    pub message: String,
    /// Line within the SQL text, 1-based, when known.
    pub line: Option<u32>,
    /// Column within that line, 1-based, when known.
    pub column: Option<u32>,
    /// What kind of problem.
    pub kind: SqlProblemKind,
}

/// What kind of problem a query has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlProblemKind {
    /// A column that no input has.
    MissingColumn {
        /// As written.
        name: String,
        /// What there is.
        candidates: Vec<String>,
    },
    /// A table that is no input port.
    MissingTable {
        /// As written.
        name: String,
    },
    /// Anything but one SELECT or WITH.
    Refused,
    /// Types, syntax and everything else.
    Other,
}

impl SqlProblem {
    fn refused(message: impl Into<String>) -> Self {
        Self { message: message.into(), line: None, column: None, kind: SqlProblemKind::Refused }
    }
}

/// Describes queries one after the other. A session takes longer to make than most queries to plan.
pub struct Describer {
    context: SessionContext,
}

impl Default for Describer {
    fn default() -> Self {
        Self::new()
    }
}

impl Describer {
    /// Returns a describer that knows no tables.
    #[must_use]
    pub fn new() -> Self {
        let mut config = SessionConfig::new();
        config.options_mut().sql_parser.collect_spans = true;
        Self { context: SessionContext::new_with_config(config) }
    }

    /// Returns the shape of a query over tables of these schemas.
    ///
    /// # Errors
    /// [`SqlProblem`] when it is not one SELECT or WITH, reads what is not there, or its types do not fit.
    pub fn describe(
        &self,
        sql: &str,
        inputs: &BTreeMap<String, SchemaRef>,
    ) -> Result<QueryShape, SqlProblem> {
        let shape = self.over(sql, inputs);
        // The next query must not see them.
        for name in inputs.keys() {
            let _ = self.context.deregister_table(quoted(name));
        }
        shape
    }

    fn over(&self, sql: &str, inputs: &BTreeMap<String, SchemaRef>) -> Result<QueryShape, SqlProblem> {
        for (name, schema) in inputs {
            let table = MemTable::try_new(Arc::clone(schema), vec![Vec::new()]).map_err(problem)?;
            self.context.register_table(quoted(name), Arc::new(table)).map_err(problem)?;
        }
        let plan = plan_select(&self.context, sql)?;
        let state = self.context.state_ref();
        let state = state.read();
        let plan =
            state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}).map_err(problem)?;
        shape_of(&plan)
    }
}

/// Returns the shape of one query, see [`Describer::describe`].
///
/// # Errors
/// See [`Describer::describe`].
pub fn describe(sql: &str, inputs: &BTreeMap<String, SchemaRef>) -> Result<QueryShape, SqlProblem> {
    Describer::new().describe(sql, inputs)
}

fn shape_of(plan: &LogicalPlan) -> Result<QueryShape, SqlProblem> {
    let budget = Budget::default();
    let traced = trace(plan, &budget);
    if budget.is_spent() {
        return Err(SqlProblem::refused(
            "the query is too large to be described: its columns, written out over the inputs, take more than 64 MiB, or its \
             parts lie more than 400 deep in one another; split it into products",
        ));
    }
    let columns = plan
        .schema()
        .fields()
        .iter()
        .zip(&traced.columns)
        .map(|(field, column)| ColumnShape {
            name: field.name().clone(),
            logical: logical_of(field.data_type()),
            physical: field.data_type().to_string(),
            nullable: field.is_nullable(),
            expression: column.expression.clone(),
            direct: column.direct.clone(),
            masked: !column.direct.is_empty() && column.unmasked.is_empty(),
        })
        .collect();
    Ok(QueryShape {
        columns,
        rows: traced.rows,
        indirect: traced.indirect,
        tables: traced.tables,
        volatile: volatile(plan),
    })
}

/// Returns a table reference that keeps its case.
pub(super) fn quoted(name: &str) -> datafusion::sql::TableReference {
    datafusion::sql::TableReference::bare(name.to_owned())
}

/// Returns the plan of a text that is one SELECT or WITH over registered tables.
pub(super) fn plan_select(context: &SessionContext, sql: &str) -> Result<LogicalPlan, SqlProblem> {
    let mut statements = DFParser::parse_sql(sql).map_err(problem)?;
    if statements.len() > 1 {
        return Err(SqlProblem::refused(format!(
            "{} statements; one SELECT or WITH is allowed",
            statements.len()
        )));
    }
    let statement = statements.pop_front().ok_or_else(|| SqlProblem::refused("no statement"))?;
    let state = context.state_ref();
    let state = state.read();
    // Planning over in-memory schemas never waits, so that the future is ready at its first poll.
    let plan = state
        .statement_to_plan(statement)
        .now_or_never()
        .ok_or_else(|| SqlProblem::refused("the query reads something that is not an input port"))?
        .map_err(problem)?;
    let read_only =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    read_only.verify_plan(&plan).map_err(|error| SqlProblem::refused(plain(&error)))?;
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) {
        return Err(SqlProblem::refused("only SELECT and WITH are allowed"));
    }
    Ok(plan)
}

fn plain(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let text = text.lines().next().unwrap_or_default();
    [
        "Error during planning: ",
        "Schema error: ",
        "SQL error: ",
        "Execution error: ",
        "type_coercion\ncaused by\n",
    ]
    .iter()
    .fold(text, |text, prefix| text.strip_prefix(prefix).unwrap_or(text))
    .to_owned()
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` passes")]
fn problem(error: DataFusionError) -> SqlProblem {
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let place = span.filter(|span| span.start.line > 0).map(|span| span.start);
    let message =
        error.diagnostic().map_or_else(|| plain(error.find_root()), |diagnostic| diagnostic.message.clone());
    let kind = match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => SqlProblemKind::MissingColumn {
                name: field.name.clone(),
                candidates: valid_fields.iter().map(|field| field.name.clone()).collect(),
            },
            _ => SqlProblemKind::Other,
        },
        root => {
            let text = root.strip_backtrace();
            text.split_once("table '").and_then(|(_, rest)| rest.split_once("' not found")).map_or(
                SqlProblemKind::Other,
                |(name, _)| SqlProblemKind::MissingTable {
                    name: name.rsplit('.').next().unwrap_or(name).to_owned(),
                },
            )
        }
    };
    let (line, column) = match place {
        Some(place) => (u32::try_from(place.line).ok(), u32::try_from(place.column).ok()),
        None => spoken_place(&message),
    };
    let message = match &kind {
        SqlProblemKind::MissingColumn { name, .. } => {
            format!("column {name} is in none of the query's inputs")
        }
        SqlProblemKind::MissingTable { name } => format!("table {name} is no input port of the product"),
        SqlProblemKind::Refused | SqlProblemKind::Other => message,
    };
    SqlProblem { message, line, column, kind }
}

/// Parser errors end in `at Line: 3, Column: 7`.
fn spoken_place(message: &str) -> (Option<u32>, Option<u32>) {
    let number = |label: &str| {
        let (_, rest) = message.split_once(label)?;
        rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    (number("Line: "), number("Column: "))
}

/// Returns the calls whose result differs between two runs, once each.
fn volatile(plan: &LogicalPlan) -> Vec<String> {
    use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
    let mut found = std::collections::BTreeSet::new();
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|expression| {
                if let Expr::ScalarFunction(call) = expression {
                    // `now()` is stable within a query and differs between two.
                    if call.func.signature().volatility != Volatility::Immutable {
                        found.insert(format!("{}()", call.func.name()));
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    // The closures return no error.
    let _ = visited;
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn orders() -> BTreeMap<String, SchemaRef> {
        let schema = Schema::new(vec![
            Field::new("order_id", DataType::Utf8, true),
            Field::new("day", DataType::Date32, true),
            Field::new("email", DataType::Utf8, true),
            Field::new("amount", DataType::Float64, true),
        ]);
        let customers = Schema::new(vec![
            Field::new("email", DataType::Utf8, true),
            Field::new("country", DataType::Utf8, true),
        ]);
        BTreeMap::from([
            ("orders".to_owned(), Arc::new(schema)),
            ("customers".to_owned(), Arc::new(customers)),
        ])
    }

    fn shape(sql: &str) -> QueryShape {
        describe(sql, &orders()).unwrap_or_else(|problem| panic!("{sql}: {problem}"))
    }

    #[test]
    fn formatting_comments_aliases_and_cte_names_change_nothing() {
        let one = shape("SELECT day, sum(amount) AS revenue FROM orders WHERE amount > 0 GROUP BY day");
        for other in [
            "select   day,sum( amount )   as revenue\nfrom orders -- all\nwhere amount>0 group by day",
            "WITH paid AS (SELECT * FROM orders WHERE amount > 0) SELECT day, sum(amount) AS revenue FROM paid GROUP BY day",
            "WITH x AS (SELECT * FROM orders WHERE amount > 0) SELECT x.day, sum(x.amount) AS revenue FROM x GROUP BY x.day",
            "SELECT o.day, sum(o.amount) AS revenue FROM orders AS o WHERE o.amount > 0 GROUP BY o.day",
        ] {
            assert_eq!(shape(other), one, "{other}");
        }
    }

    #[test]
    fn an_added_column_changes_neither_rows_nor_the_other_columns() {
        let one = shape("SELECT day, sum(amount) AS revenue FROM orders GROUP BY day");
        let two = shape("SELECT day, count(*) AS n, sum(amount) AS revenue FROM orders GROUP BY day");
        assert_eq!(one.rows, two.rows);
        let of = |shape: &QueryShape, name: &str| {
            shape.columns.iter().find(|column| column.name == name).map(|column| column.expression.clone())
        };
        assert_eq!(of(&one, "revenue"), of(&two, "revenue"));
        let filtered = shape("SELECT day, sum(amount) AS revenue FROM orders WHERE amount > 1 GROUP BY day");
        assert_ne!(one.rows, filtered.rows);
    }

    #[test]
    fn masking_is_told_from_passing_on() {
        let of = |sql: &str| shape(sql).columns[0].masked;
        assert!(!of("SELECT email FROM orders"));
        assert!(!of("SELECT lower(email) FROM orders"));
        assert!(!of("SELECT max(email) FROM orders"));
        assert!(of("SELECT count(email) FROM orders"));
        assert!(of("SELECT sha256(email) FROM orders"));
        assert!(!of("SELECT concat(sha256(email), email) FROM orders"));
    }

    #[test]
    fn filters_joins_and_groups_are_indirect() {
        let shape = shape(
            "SELECT c.country, count(*) AS n FROM orders o JOIN customers c ON o.email = c.email WHERE o.amount > 0 GROUP BY c.country",
        );
        let indirect: Vec<String> =
            shape.indirect.iter().map(|column| format!("{}.{}", column.table, column.column)).collect();
        assert_eq!(indirect, ["customers.country", "customers.email", "orders.amount", "orders.email"]);
        assert!(shape.columns[1].direct.is_empty());
        assert_eq!(shape.tables["orders"], 1);
    }

    #[test]
    fn anything_but_one_select_is_refused() {
        for sql in [
            "DROP TABLE orders",
            "SELECT 1; SELECT 2",
            "COPY orders TO 'x.csv'",
            "CREATE TABLE x AS SELECT 1",
            "INSERT INTO orders SELECT * FROM orders",
            "SET a = 1",
            "EXPLAIN SELECT 1",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "SELECT * FROM '/etc/passwd'",
            "SELECT * FROM information_schema.tables",
            "",
        ] {
            assert!(describe(sql, &orders()).is_err(), "{sql}");
        }
    }

    #[test]
    fn a_query_that_grows_as_it_is_described_is_refused_and_a_long_one_is_not() {
        use hydromesh_core::spread::Spread as _;
        let chain = |links: usize, step: &str| {
            let names =
                (1..links).map(|n| format!(", a{n} AS ({})", step.replace('?', &format!("a{}", n - 1))));
            format!(
                "WITH a0 AS (SELECT email AS x FROM orders){} SELECT x FROM a{}",
                names.collect::<Vec<_>>().concat(),
                links - 1
            )
        };
        let operators = |count: usize, of: &str| {
            format!("SELECT day FROM orders WHERE {}", vec!["amount > 1"; count].join(of))
        };
        let cases = [
            (chain(60, "SELECT x || x AS x FROM ?"), false),
            (chain(60, "SELECT x FROM ? GROUP BY ROLLUP(x)"), false),
            (chain(60, "SELECT CASE WHEN x > 'a' THEN x ELSE x || 'b' END AS x FROM ?"), false),
            (chain(450, "SELECT x FROM ?"), false),
            (chain(10, "SELECT x || x AS x FROM ?"), true),
            (chain(40, "SELECT lower(x) AS x FROM ?"), true),
            (operators(150, " OR "), true),
            (operators(150, " AND "), true),
            (format!("SELECT {} AS s FROM orders", vec!["amount"; 300].join(" + ")), true),
            (format!("SELECT day FROM orders WHERE {} amount > 1", "NOT ".repeat(1_900)), false),
        ];
        // On threads with the stack that the reader of a commit has.
        let described = crate::cores::AllCores.map(&cases, |(sql, _)| {
            let started = std::time::Instant::now();
            (describe(sql, &orders()).err().map(|problem| problem.message), started.elapsed())
        });
        for ((sql, fits), (refused, took)) in cases.iter().zip(described) {
            assert_eq!(refused.is_none(), *fits, "{sql:.120}: {refused:?}");
            assert!(took.as_secs() < 30, "{sql:.120} took {took:?}");
        }
    }

    #[test]
    fn a_missing_column_is_named_with_its_place() {
        let problem = describe("SELECT day,\n  amuont FROM orders", &orders()).expect_err("no such column");
        assert!(
            matches!(&problem.kind, SqlProblemKind::MissingColumn { name, .. } if name == "amuont"),
            "{problem:?}"
        );
        assert_eq!(problem.line, Some(2), "{problem:?}");
        let problem = describe("SELECT * FROM order", &orders()).expect_err("a keyword");
        assert!(problem.line.is_some(), "{problem:?}");
        let problem = describe("SELECT * FROM ordes", &orders()).expect_err("no such table");
        assert!(
            matches!(&problem.kind, SqlProblemKind::MissingTable { name } if name == "ordes"),
            "{problem:?}"
        );
    }

    #[test]
    fn volatile_calls_are_listed() {
        assert_eq!(
            shape("SELECT now() AS at, random() AS r, day FROM orders").volatile,
            ["now()", "random()"]
        );
        assert!(shape("SELECT lower(email) AS e FROM orders").volatile.is_empty());
    }
}
