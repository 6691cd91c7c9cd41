//! Runs a query over pinned tables, in bounded memory, with the same bytes for the same inputs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::{Column as PlanColumn, DataFusionError, ScalarValue};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::Result as PlanResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::StreamExt as _;
use hydromesh_core::ledger::ErrorKind;
use hydromesh_core::model::Column;

use super::bounded::bound_functions;
use super::describe::{SqlProblem, plan_select, quoted};
use super::types::{arrow_schema, conform_schema};
use super::yielding::YieldInJoins;

/// Limits of an engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Memory that queries may hold together, bytes; beyond it they spill.
    pub memory_bytes: usize,
    /// Where they spill.
    pub spill: PathBuf,
}

/// Why a query did not run.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// Stable code.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl EngineError {
    /// Returns an error in the query or the data: the same attempt would fail again.
    #[must_use]
    pub fn user(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::User, code: "HM-X001", message: message.into() }
    }
}

impl From<SqlProblem> for EngineError {
    fn from(problem: SqlProblem) -> Self {
        Self::user(problem.message)
    }
}

impl From<DataFusionError> for EngineError {
    fn from(error: DataFusionError) -> Self {
        let (kind, code) = match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => (ErrorKind::User, "HM-X002"),
            DataFusionError::IoError(_)
            | DataFusionError::ObjectStore(_)
            | DataFusionError::ParquetError(_) => (ErrorKind::External, "HM-X003"),
            DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => {
                (ErrorKind::Internal, "HM-X004")
            }
            _ => (ErrorKind::User, "HM-X001"),
        };
        let by_a_value = matches!(error.find_root(), DataFusionError::ArrowError(..));
        let message = error.strip_backtrace().lines().next().unwrap_or_default().to_owned();
        Self { kind, code, message: if by_a_value { without_values(&message) } else { message } }
    }
}

/// Takes what stands in quotes out of an error about a value. Messages go into the ledger, mails and pages, whose readers are
/// more than those of the data: `Cannot cast string 'ada@example.com' to value of Int32 type`.
fn without_values(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(['\'', '"']) {
        let quote = &rest[at..=at];
        let inside = &rest[at + 1..];
        text.push_str(&rest[..at]);
        text.push_str("'…'");
        // A value may hold a quote itself: the last one closes, and what stands between two values goes with them.
        rest = inside.rfind(quote).map_or("", |end| &inside[end + 1..]);
    }
    text.push_str(rest);
    text
}

/// Keeps the rows of some partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionFilter {
    /// The partition column.
    pub column: String,
    /// Which of its values are kept.
    pub keeps: Keeps,
}

/// Which values of a partition column are kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Keeps {
    /// Those in `[from, to)`.
    Between {
        /// First value kept.
        from: ScalarValue,
        /// First value after those kept.
        to: ScalarValue,
    },
    /// One value, and with it whatever is on no list of values, null too, so that it can be told of.
    Value {
        /// The value.
        value: ScalarValue,
        /// The list; nothing where no row is on none.
        list: Vec<ScalarValue>,
    },
}

impl PartitionFilter {
    fn condition(&self) -> Expr {
        let column = || Expr::Column(PlanColumn::new_unqualified(&self.column));
        match &self.keeps {
            Keeps::Between { from, to } => {
                column().gt_eq(lit(from.clone())).and(column().lt(lit(to.clone())))
            }
            Keeps::Value { value, list } if list.is_empty() => column().eq(lit(value.clone())),
            Keeps::Value { value, list } => {
                let list = list.iter().cloned().map(lit).collect();
                let unlisted = column().is_null().or(column().in_list(list, true));
                column().eq(lit(value.clone())).or(unlisted)
            }
        }
    }
}

/// Returns the part of a table that a filter keeps, or nothing of it; the optimiser moves the condition down to its scan.
///
/// # Errors
/// When the table has no such column.
pub fn part_of(
    table: Arc<dyn TableProvider>,
    part: Option<&PartitionFilter>,
) -> Result<Arc<dyn TableProvider>, EngineError> {
    let condition = part.map_or_else(|| lit(false), PartitionFilter::condition);
    let scan = LogicalPlanBuilder::scan("input", provider_as_source(table), None)?;
    Ok(Arc::new(ViewTable::new(scan.filter(condition)?.build()?, None)))
}

/// Runs queries.
#[derive(Debug, Clone)]
pub struct Engine {
    runtime: Arc<RuntimeEnv>,
}

impl Engine {
    /// Returns an engine with its own memory pool.
    ///
    /// # Errors
    /// When the spill folder cannot be used.
    pub fn new(config: &EngineConfig) -> Result<Self, EngineError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(config.memory_bytes)))
            .with_temp_file_path(&config.spill)
            .build_arc()?;
        Ok(Self { runtime })
    }

    /// Returns a session that knows these tables and nothing else.
    ///
    /// One partition per query: sums of doubles then come out the same in every run, and a machine's cores are used by
    /// running steps side by side.
    pub fn session(&self, tables: BTreeMap<String, Arc<dyn TableProvider>>) -> PlanResult<SessionContext> {
        let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
        config.options_mut().execution.parquet.pushdown_filters = true;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::clone(&self.runtime))
            .with_default_features()
            .with_physical_optimizer_rule(Arc::new(YieldInJoins))
            .build();
        let context = SessionContext::new_with_state(state);
        bound_functions(&context);
        for (name, table) in tables {
            context.register_table(quoted(&name), table)?;
        }
        Ok(context)
    }

    /// Runs one SELECT or WITH and returns its rows as the contract describes them.
    ///
    /// Rows come ordered by the partition column, then the primary key, then every other sortable column, so that the
    /// same inputs give the same bytes. The partition's condition is added to the plan, where the optimiser moves it
    /// down to the scans.
    ///
    /// # Errors
    /// [`EngineError`]; a value that does not fit the contract is an error of the stream.
    pub async fn run_query(
        &self,
        sql: &str,
        tables: BTreeMap<String, Arc<dyn TableProvider>>,
        partition: Option<&PartitionFilter>,
        output: &[Column],
    ) -> Result<SendableRecordBatchStream, EngineError> {
        let context = self.session(tables)?;
        let plan = plan_select(&context, sql)?;
        let frame = DataFrame::new(context.state(), plan);
        let of = |name: &str| Expr::Column(PlanColumn::new_unqualified(name));
        let mut frame = frame
            .select(output.iter().map(|column| of(&column.name).alias(&column.name)).collect::<Vec<_>>())?;
        if let Some(partition) = partition {
            frame = frame.filter(partition.condition())?;
        }
        let schema = arrow_schema(output);
        let rank = |column: &&Column| {
            let first = partition.is_some_and(|partition| partition.column == column.name);
            (!first, !column.primary_key)
        };
        let sortable = |column: &&Column| {
            schema.field_with_name(&column.name).is_ok_and(|field| !field.data_type().is_nested())
        };
        let mut by: Vec<&Column> = output.iter().filter(sortable).collect();
        by.sort_by_key(rank);
        let frame = frame.sort(by.into_iter().map(|column| of(&column.name).sort(true, true)).collect())?;
        Ok(conforming(frame.execute_stream().await?, schema))
    }

    /// Runs one SELECT or WITH and returns its rows as they come.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn select(
        &self,
        sql: &str,
        tables: BTreeMap<String, Arc<dyn TableProvider>>,
    ) -> Result<SendableRecordBatchStream, EngineError> {
        let context = self.session(tables)?;
        let plan = plan_select(&context, sql)?;
        Ok(DataFrame::new(context.state(), plan).execute_stream().await?)
    }
}

fn conforming(stream: SendableRecordBatchStream, schema: SchemaRef) -> SendableRecordBatchStream {
    let wanted = Arc::clone(&schema);
    let rows = stream.map(move |batch| Ok(conform_schema(&batch?, &wanted)?));
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray as _, Date32Array, Float64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::catalog::MemTable;
    use futures::TryStreamExt as _;
    use hydromesh_core::model::LogicalType;

    use super::super::types::column;
    use super::*;

    fn engine() -> Engine {
        let config = EngineConfig { memory_bytes: 64 << 20, spill: std::env::temp_dir() };
        Engine::new(&config).expect("an engine")
    }

    fn orders() -> BTreeMap<String, Arc<dyn TableProvider>> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("day", DataType::Date32, true),
            Field::new("amount", DataType::Float64, true),
        ]));
        let days: Vec<i32> = (0..100).map(|n| n % 10).collect();
        let amounts: Vec<f64> = (0..100).map(|n| f64::from(n) / 3.0).collect();
        let arrays: Vec<ArrayRef> =
            vec![Arc::new(Date32Array::from(days)), Arc::new(Float64Array::from(amounts))];
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).expect("batch");
        let table: Arc<dyn TableProvider> =
            Arc::new(MemTable::try_new(schema, vec![vec![batch]]).expect("table"));
        BTreeMap::from([("orders".to_owned(), table)])
    }

    #[tokio::test]
    async fn a_partition_is_that_part_of_the_whole_query() {
        let columns = [column("day", LogicalType::Date), column("revenue", LogicalType::Number)];
        let sql = "SELECT day, sum(amount) AS revenue FROM orders GROUP BY day";
        let collect = async |partition: Option<PartitionFilter>| -> Vec<RecordBatch> {
            let stream =
                engine().run_query(sql, orders(), partition.as_ref(), &columns).await.expect("stream");
            stream.try_collect().await.expect("rows")
        };
        let whole = collect(None).await;
        assert_eq!(whole.iter().map(RecordBatch::num_rows).sum::<usize>(), 10);
        let day = |n| ScalarValue::Date32(Some(n));
        let part =
            PartitionFilter { column: "day".to_owned(), keeps: Keeps::Between { from: day(3), to: day(5) } };
        let part = collect(Some(part)).await;
        assert_eq!(part, vec![whole[0].slice(3, 2)]);
    }

    #[tokio::test]
    async fn a_part_of_a_table_is_all_that_a_query_sees_and_its_condition_reaches_the_scan() {
        let table = orders().remove("orders").expect("a table");
        let day = |n| ScalarValue::Date32(Some(n));
        let part =
            PartitionFilter { column: "day".to_owned(), keeps: Keeps::Between { from: day(3), to: day(5) } };
        let sees = async |part: Option<&PartitionFilter>, sql: &str| -> Vec<RecordBatch> {
            let seen = part_of(Arc::clone(&table), part).expect("a part");
            let rows = engine().select(sql, BTreeMap::from([("orders".to_owned(), seen)])).await;
            rows.expect("a query").try_collect().await.expect("rows")
        };
        let all = async |sql: &str| -> Vec<RecordBatch> {
            engine().select(sql, orders()).await.expect("a query").try_collect().await.expect("rows")
        };
        let query = |of: &str| {
            format!(
                "SELECT a.day, count(*) AS pairs, sum(b.amount) AS total FROM {of} a JOIN {of} b ON b.day <= a.day GROUP BY a.day ORDER BY a.day"
            )
        };
        let explicit = "(SELECT * FROM orders WHERE day >= DATE '1970-01-04' AND day < DATE '1970-01-06')";
        assert_eq!(sees(Some(&part), &query("orders")).await, all(&query(explicit)).await);
        let rows = sees(None, "SELECT * FROM orders").await;
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
        let session = engine().session(BTreeMap::from([(
            "orders".to_owned(),
            part_of(Arc::clone(&table), Some(&part)).expect("a part"),
        )]));
        let plan = plan_select(&session.expect("a session"), "SELECT amount FROM orders").expect("a plan");
        let text = plan.display_indent().to_string();
        assert!(text.contains("Filter: input.day >= ") && text.contains("TableScan: input"), "{text}");
    }

    #[test]
    fn a_query_that_makes_rows_for_ever_can_be_stopped() {
        let (say, said) = std::sync::mpsc::channel();
        // On a thread of its own: one that cannot be stopped would never let the test end.
        let asks = move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let stopped = runtime.block_on(async {
                let sql =
                    "SELECT a.day, count(*) AS rows FROM orders a CROSS JOIN orders b CROSS JOIN orders c
                           CROSS JOIN orders d CROSS JOIN orders e CROSS JOIN orders f CROSS JOIN orders g
                           GROUP BY a.day";
                let mut rows = engine().select(sql, orders()).await.expect("a stream");
                tokio::time::timeout(std::time::Duration::from_millis(300), rows.next()).await.is_err()
            });
            let _ = say.send(stopped);
        };
        std::thread::Builder::new().name("endless query".to_owned()).spawn(asks).expect("a thread");
        assert_eq!(said.recv_timeout(std::time::Duration::from_mins(1)), Ok(true));
    }

    /// Asks on a thread of its own for the first rows of queries that never end, and returns whether each was stopped.
    fn stopped(queries: &'static [&'static str]) -> Vec<bool> {
        let (say, said) = std::sync::mpsc::channel();
        let asks = move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            for sql in queries {
                let stopped = runtime.block_on(async {
                    let mut rows = engine().select(sql, orders()).await.expect("a stream");
                    tokio::time::timeout(std::time::Duration::from_millis(300), rows.next()).await.is_err()
                });
                let _ = say.send(stopped);
            }
        };
        std::thread::Builder::new().name("endless queries".to_owned()).spawn(asks).expect("a thread");
        queries.iter().map_while(|_| said.recv_timeout(std::time::Duration::from_mins(1)).ok()).collect()
    }

    #[test]
    fn a_recursion_that_never_ends_can_be_stopped() {
        let queries = &[
            "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n",
            "WITH RECURSIVE n AS (SELECT day, 1 AS i FROM orders UNION ALL SELECT day, i + 1 FROM n)
             SELECT day, max(i) AS i FROM n GROUP BY day",
            "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i FROM n) SELECT min(i) AS c FROM n WHERE i < 0",
        ];
        assert_eq!(stopped(queries), [true, true, true]);
    }

    #[tokio::test]
    async fn a_query_that_holds_more_than_it_may_ends_with_its_code() {
        let engine = Engine::new(&EngineConfig { memory_bytes: 1 << 20, spill: std::env::temp_dir() });
        let sql = "SELECT array_agg(a.amount + b.amount + c.amount) AS all_of_them
                   FROM orders a CROSS JOIN orders b CROSS JOIN orders c";
        let rows = engine.expect("an engine").select(sql, orders()).await.expect("a stream");
        let error = rows.try_collect::<Vec<_>>().await.expect_err("a million numbers in a megabyte");
        assert_eq!(EngineError::from(error).code, "HM-X002");
    }

    #[tokio::test]
    async fn an_error_about_a_value_does_not_tell_the_value() {
        for (sql, says) in [
            (
                "SELECT CAST('ada@example.com' || day AS INT) AS n FROM orders",
                "Cannot cast string '…' to value of Int32",
            ),
            ("SELECT CAST('it''s ' || amount || ' of \"ada\"' AS DOUBLE) AS n FROM orders", "'…'"),
            ("SELECT CAST('4242' || day AS TIMESTAMP) AS t FROM orders", "'…'"),
        ] {
            let failed = async {
                engine().select(sql, orders()).await?.try_collect::<Vec<_>>().await.map_err(EngineError::from)
            };
            let error = failed.await.expect_err(sql);
            assert_eq!(error.kind, ErrorKind::User, "{sql}: {error}");
            assert!(error.message.contains(says), "{sql}: {error}");
            for value in ["ada", "4242", "it's"] {
                assert!(!error.message.contains(value), "{sql}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn a_session_knows_its_tables_and_nothing_else() {
        for sql in [
            "SELECT * FROM information_schema.tables",
            "SELECT * FROM '/etc/passwd'",
            "SELECT * FROM \"/etc/passwd\"",
            "SELECT * FROM \"file:///etc/passwd\"",
            "SELECT * FROM customers",
            "SELECT * FROM read_csv('/etc/passwd')",
            "SELECT * FROM parquet_metadata('/etc/passwd')",
            "SELECT no_such_function(1)",
        ] {
            let refused = engine().select(sql, orders()).await.err().expect(sql);
            assert_eq!(refused.kind, ErrorKind::User, "{sql}: {refused}");
        }
    }

    #[tokio::test]
    async fn a_pattern_that_explodes_is_refused_or_takes_linear_time() {
        let started = std::time::Instant::now();
        for (pattern, text, fits) in [
            // Engines that go back and try again take 2^50 steps for these.
            ("^(a+)+$", "repeat('a', 50) || 'b'", Some(false)),
            ("^(a|a)*$", "repeat('a', 500) || 'b'", Some(false)),
            ("^(.*)*x$", "repeat('a', 500)", Some(false)),
            ("(x+x+)+y", "repeat('x', 500)", Some(false)),
            // Programs of gigabytes are not compiled.
            ("((a{100}){100}){100}", "'a'", None),
            ("(a{1000}){1000}", "'a'", None),
        ] {
            let sql = format!("SELECT regexp_like({text}, '{pattern}') AS fits");
            let found: Result<Vec<RecordBatch>, EngineError> =
                async { Ok(engine().select(&sql, orders()).await?.try_collect().await?) }.await;
            let found = found.ok().map(|batches| batches[0].column(0).as_boolean().value(0));
            assert_eq!(found, fits, "{pattern}");
        }
        assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_missing_column_is_an_error_of_the_user() {
        let columns = [column("nothing", LogicalType::Date)];
        let error = engine()
            .run_query("SELECT day FROM orders", orders(), None, &columns)
            .await
            .err()
            .expect("error");
        assert_eq!(error.kind, ErrorKind::User);
    }
}
