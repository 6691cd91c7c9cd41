//! Runs a stream's query row by row in meaning and batch by batch in fact.
//!
//! A stream may be cut into batches anywhere, so its query must give the same rows however it is cut: projections and
//! filters do, aggregates, joins and limits do not and are refused. It also keeps the place of each row in its
//! topic, which the query knows nothing of: the plan is extended by columns that are carried through.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Int32Type, Int64Type, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNode as _;
use datafusion::common::{Column as PlanColumn, DataFusionError};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection, SubqueryAlias};
use datafusion::prelude::DataFrame;
use hydromesh_core::ledger::ErrorKind;

use super::{OFFSET, PARTITION};
use crate::apply::StepError;
use crate::engine::{Engine, EngineError, conform_schema, memory_table};

/// A query over one table of events.
#[derive(Debug, Clone)]
pub(super) struct RowQuery {
    /// The engine.
    pub engine: Engine,
    /// One SELECT or WITH.
    pub sql: String,
    /// The name of the table it reads.
    pub table: String,
    /// The columns wanted of it.
    pub output: Vec<String>,
    /// Columns that pass through it unseen.
    pub carried: Vec<String>,
    /// The schema that `output` must have; as the query yields it without one.
    pub conform: Option<SchemaRef>,
}

/// What a query made of some rows.
#[derive(Debug)]
pub(super) struct Mapped {
    /// The wanted columns, then the carried ones, in the order of the input's rows.
    pub rows: RecordBatch,
    /// Rows that the query fails on: place and the engine's message, which may hold values.
    pub failed: Vec<(i32, i64, String)>,
}

enum Attempt {
    Done(SchemaRef, Vec<RecordBatch>),
    /// The query failed while it ran, because of some row.
    Failed(SchemaRef, EngineError),
}

impl RowQuery {
    /// Runs the query over some rows. Where it fails on a row the others are kept: the input is halved until the row
    /// is alone.
    ///
    /// # Errors
    /// When the query cannot be planned, is not row by row, or the machine fails rather than a row.
    pub async fn run(&self, input: RecordBatch) -> Result<Mapped, StepError> {
        let (mut done, mut failed, mut schema) = (Vec::new(), Vec::new(), None);
        let mut open = vec![input];
        while let Some(piece) = open.pop() {
            let rows = piece.num_rows();
            match self.attempt(&piece).await? {
                Attempt::Done(yielded, batches) => {
                    schema.get_or_insert(yielded);
                    done.extend(batches);
                }
                Attempt::Failed(_, error) if error.kind != ErrorKind::User || rows == 0 => {
                    return Err(error.into());
                }
                Attempt::Failed(yielded, error) if rows == 1 => {
                    schema.get_or_insert(yielded);
                    let (partition, offset) = places(&piece)?[0];
                    failed.push((partition, offset, error.message));
                }
                Attempt::Failed(..) => {
                    open.push(piece.slice(rows / 2, rows - rows / 2));
                    open.push(piece.slice(0, rows / 2));
                }
            }
        }
        let schema = schema.ok_or_else(|| StepError::internal("a query ran over nothing"))?;
        let rows = concat_batches(&schema, &done).map_err(|error| StepError::internal(error.to_string()))?;
        Ok(Mapped { rows, failed })
    }

    async fn attempt(&self, piece: &RecordBatch) -> Result<Attempt, StepError> {
        let planning = |error: DataFusionError| StepError::from(EngineError::from(error));
        let table = memory_table(piece.schema(), vec![piece.clone()]);
        let session = self.engine.session(BTreeMap::from([(self.table.clone(), table)])).map_err(planning)?;
        let plan = session.state().create_logical_plan(&self.sql).await.map_err(planning)?;
        let plan = carry(plan, &self.carried)?;
        let of = |name: &String| Expr::Column(PlanColumn::new_unqualified(name)).alias(name);
        let wanted: Vec<Expr> = self.output.iter().chain(&self.carried).map(of).collect();
        let frame = DataFrame::new(session.state(), plan).select(wanted).map_err(planning)?;
        let yielded: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let schema =
            self.conform.as_ref().map_or_else(|| loose(&yielded), |wanted| self.whole(wanted, &yielded));
        let batches = match frame.collect().await {
            Ok(batches) => batches,
            Err(error) => return Ok(Attempt::Failed(schema, error.into())),
        };
        let conformed: Result<Vec<RecordBatch>, _> =
            batches.iter().map(|batch| conform_schema(batch, &schema)).collect();
        Ok(match conformed {
            Ok(batches) => Attempt::Done(schema, batches),
            Err(error) => Attempt::Failed(schema, DataFusionError::from(error).into()),
        })
    }

    /// Returns the wanted schema with the carried columns after it.
    fn whole(&self, wanted: &Schema, yielded: &Schema) -> SchemaRef {
        let carried = yielded.fields().iter().filter(|field| self.carried.contains(field.name()));
        let fields: Vec<_> = wanted.fields().iter().chain(carried).map(|field| nullable(field)).collect();
        Arc::new(Schema::new(fields))
    }
}

/// Nullability is inferred per plan and so not the same for every batch.
fn loose(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|field| nullable(field)).collect::<Vec<_>>()))
}

fn nullable(field: &Field) -> Field {
    Field::new(field.name(), field.data_type().clone(), true)
}

/// Returns the place of each row in its topic.
///
/// # Errors
/// When the rows have none, which would be a bug.
pub(super) fn places(batch: &RecordBatch) -> Result<Vec<(i32, i64)>, StepError> {
    let column = |name| {
        let missing = || StepError::internal(format!("rows without {name}"));
        batch.column_by_name(name).filter(|column| column.null_count() == 0).ok_or_else(missing)
    };
    let (partitions, offsets) = (column(PARTITION)?, column(OFFSET)?);
    let wrong = || StepError::internal("places of another type");
    let partitions = partitions.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
    let offsets = offsets.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
    Ok(partitions.values().iter().copied().zip(offsets.values().iter().copied()).collect())
}

fn refuse(what: &str) -> StepError {
    StepError::user(
        "HM-F002",
        format!(
            "the query of a stream is one SELECT of expressions and a WHERE over its source, row by row; it has {what}, \
             whose answer would depend on how the stream happens to be cut into batches"
        ),
    )
}

/// Extends a plan that works row by row by columns of the table that it reads.
fn carry(plan: LogicalPlan, names: &[String]) -> Result<LogicalPlan, StepError> {
    let planned = |error: DataFusionError| StepError::from(EngineError::from(error));
    match plan {
        LogicalPlan::TableScan(_) => Ok(plan),
        LogicalPlan::Filter(filter) => {
            no_subquery(&filter.predicate)?;
            let input = carry(Arc::unwrap_or_clone(filter.input), names)?;
            Ok(LogicalPlan::Filter(Filter::try_new(filter.predicate, Arc::new(input)).map_err(planned)?))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let input = carry(Arc::unwrap_or_clone(alias.input), names)?;
            let renamed = SubqueryAlias::try_new(Arc::new(input), alias.alias).map_err(planned)?;
            Ok(LogicalPlan::SubqueryAlias(renamed))
        }
        // The order of rows within a batch means nothing to a stream; a limit would.
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => carry(Arc::unwrap_or_clone(sort.input), names),
        LogicalPlan::Projection(projection) => {
            let input = carry(Arc::unwrap_or_clone(projection.input), names)?;
            let mut expressions = projection.expr;
            expressions.iter().try_for_each(no_subquery)?;
            for name in names {
                let passed = |one: &Expr| matches!(one, Expr::Column(column) if column.name == *name);
                if expressions.iter().any(passed) {
                    continue;
                }
                if projection.schema.fields().iter().any(|field| field.name() == name) {
                    return Err(refuse(&format!("a column of its own named {name}, which is reserved")));
                }
                let field = input.schema().qualified_field_with_unqualified_name(name).map_err(planned)?;
                expressions.push(Expr::Column(PlanColumn::from(field)));
            }
            Ok(LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(input)).map_err(planned)?))
        }
        other => {
            let name = other.display().to_string();
            Err(refuse(&format!("the step `{}`", name.split([':', ' ']).next().unwrap_or_default())))
        }
    }
}

fn no_subquery(expression: &Expr) -> Result<(), StepError> {
    let found = expression
        .exists(|part| Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_))))
        .map_err(|error| StepError::internal(error.to_string()))?;
    if found { Err(refuse("a subquery")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray};
    use arrow::datatypes::DataType;

    use super::*;
    use crate::engine::EngineConfig;

    fn query(sql: &str) -> RowQuery {
        let config = EngineConfig { memory_bytes: 64 << 20, spill: std::env::temp_dir() };
        RowQuery {
            engine: Engine::new(&config).expect("an engine"),
            sql: sql.to_owned(),
            table: "clicks".to_owned(),
            output: vec!["n".to_owned()],
            carried: vec![PARTITION.to_owned(), OFFSET.to_owned()],
            conform: Some(Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))),
        }
    }

    fn input(texts: &[&str]) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![
            Field::new("text", DataType::Utf8, true),
            Field::new(PARTITION, DataType::Int32, false),
            Field::new(OFFSET, DataType::Int64, false),
        ]));
        let offsets: Vec<i64> = (0..texts.len()).map(|at| i64::try_from(at).expect("few")).collect();
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(texts.to_vec())),
            Arc::new(Int32Array::from(vec![7; texts.len()])),
            Arc::new(Int64Array::from(offsets)),
        ];
        RecordBatch::try_new(schema, arrays).expect("a batch")
    }

    #[tokio::test]
    async fn rows_keep_their_place_through_filters_aliases_and_common_table_expressions() {
        let sql = "WITH big AS (SELECT c.text AS word FROM clicks AS c WHERE c.text <> 'b')
                   SELECT length(word) AS n FROM big WHERE length(word) > 1 ORDER BY n DESC";
        let mapped = query(sql).run(input(&["a", "b", "cc", "ddd"])).await.expect("rows");
        assert_eq!(places(&mapped.rows).expect("places"), [(7, 2), (7, 3)]);
        assert_eq!(mapped.rows.num_columns(), 3);
        let all = query("SELECT *, 1 AS n FROM clicks").run(input(&["a"])).await.expect("rows");
        assert_eq!(places(&all.rows).expect("places"), [(7, 0)]);
    }

    #[tokio::test]
    async fn a_row_that_the_query_fails_on_is_set_aside_alone() {
        let texts: Vec<String> =
            (0..50).map(|at| if at % 20 == 7 { "x".to_owned() } else { at.to_string() }).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mapped =
            query("SELECT CAST(text AS BIGINT) AS n FROM clicks").run(input(&texts)).await.expect("rows");
        assert_eq!(mapped.failed.iter().map(|(_, offset, _)| *offset).collect::<Vec<_>>(), [7, 27, 47]);
        let kept: Vec<i64> =
            places(&mapped.rows).expect("places").into_iter().map(|(_, offset)| offset).collect();
        assert_eq!(kept, (0..50).filter(|at| at % 20 != 7).collect::<Vec<i64>>());
        let none =
            query("SELECT CAST(text AS BIGINT) AS n FROM clicks").run(input(&["x"])).await.expect("rows");
        assert_eq!((none.rows.num_rows(), none.failed.len()), (0, 1));
    }

    #[tokio::test]
    async fn what_depends_on_the_cut_is_refused() {
        for sql in [
            "SELECT count(*) AS n FROM clicks",
            "SELECT DISTINCT 1 AS n FROM clicks",
            "SELECT 1 AS n FROM clicks LIMIT 3",
            "SELECT row_number() OVER () AS n FROM clicks",
            "SELECT 1 AS n FROM clicks AS a JOIN clicks AS b ON a.text = b.text",
            "SELECT 1 AS n FROM clicks WHERE text IN (SELECT text FROM clicks)",
            "SELECT 1 AS n, 3 AS _offset FROM clicks",
        ] {
            let error = query(sql).run(input(&["a"])).await.expect_err(sql);
            assert_eq!(error.code, "HM-F002", "{sql}: {error}");
        }
        let missing =
            query("SELECT nothing AS n FROM clicks").run(input(&["a"])).await.expect_err("no such column");
        assert_eq!(missing.code, "HM-X001");
    }
}
