use arrow::array::{Date32Array, Float64Array, Int64Array, StringViewArray};
use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DataFusionError, Result as PlanResult};
use datafusion::datasource::TableType;
use datafusion::physical_plan::ExecutionPlan;

use hydromesh_core::model::QualitySeverity;

use super::*;
use crate::engine::EngineConfig;
use crate::engine::memory_table;

fn engine() -> Engine {
    Engine::new(&EngineConfig { memory_bytes: 64 << 20, spill: std::env::temp_dir() }).expect("an engine")
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("Country \"code\"", DataType::Utf8, true),
        Field::new("items", DataType::Int64, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("day", DataType::Date32, true),
        // As Parquet is read.
        Field::new("note", DataType::Utf8View, true),
    ]))
}

const COUNTRY: &str = "Country \"code\"";

/// Five rows: one null country, one `unknown`; `a` three times, twice with one country.
fn orders() -> Arc<dyn TableProvider> {
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some("a"), Some("a"), Some("a"), Some("b"), None])),
        Arc::new(StringArray::from(vec![Some("CH"), Some("CH"), None, Some("unknown"), Some("de")])),
        Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(-1), Some(2)])),
        Arc::new(Float64Array::from(vec![1.0, 2.5, 0.0, 4.0, 4.0])),
        Arc::new(Date32Array::from(vec![0, 1, 2, 3, 3])),
        Arc::new(StringViewArray::from(vec![Some("x"), None, None, Some("x"), None])),
    ];
    let batch = RecordBatch::try_new(schema(), arrays).expect("batch");
    // Two batches, so that no measure rests on all rows being in one.
    memory_table(schema(), vec![batch.slice(0, 2), batch.slice(2, 3)])
}

fn rule(column: Option<&str>, check: QualityCheck, operator: &str, operands: &[f64]) -> Quality {
    Quality {
        id: "rule".to_owned(),
        column: column.map(str::to_owned),
        check,
        threshold: Threshold { operator: operator.to_owned(), operands: operands.to_vec(), percent: false },
        severity: QualitySeverity::Error,
        line: 0,
    }
}

fn sql(text: &str) -> Quality {
    rule(Some(COUNTRY), QualityCheck::Sql(text.to_owned()), "mustBe", &[0.0])
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().copied().map(str::to_owned).collect()
}

fn invalid(column: &str, valid: &[&str], pattern: Option<&str>) -> Quality {
    let check = QualityCheck::InvalidValues { valid: texts(valid), pattern: pattern.map(str::to_owned) };
    rule(Some(column), check, "mustBe", &[0.0])
}

fn percent(mut rule: Quality) -> Quality {
    rule.threshold.percent = true;
    rule
}

async fn audit(rules: &[Quality], table: Arc<dyn TableProvider>) -> Vec<QualityOutcome> {
    engine().audit(rules, table, "Orders", &Against::default()).await.expect("an audit")
}

async fn measures(rules: &[Quality]) -> Vec<Result<f64, String>> {
    let outcomes = audit(rules, orders()).await;
    outcomes.into_iter().map(|one| one.measure.ok_or_else(|| one.error.unwrap_or_default())).collect()
}

#[tokio::test]
async fn every_metric_counts_its_rows() {
    let missing = |column, values: &[&str]| {
        rule(Some(column), QualityCheck::MissingValues(texts(values)), "mustBe", &[0.0])
    };
    let duplicate =
        |column, keys: &[&str]| rule(column, QualityCheck::DuplicateValues(texts(keys)), "mustBe", &[0.0]);
    let rules = [
        (rule(None, QualityCheck::RowCount, "mustBe", &[5.0]), 5.0),
        (rule(Some(COUNTRY), QualityCheck::NullValues, "mustBe", &[0.0]), 1.0),
        (missing(COUNTRY, &["unknown", ""]), 2.0),
        (missing(COUNTRY, &[]), 1.0),
        (missing("items", &["n/a", "-1"]), 2.0),
        (missing("day", &["1970-01-01", "1970-01-04"]), 3.0),
        (invalid(COUNTRY, &["CH", "de"], None), 1.0),
        (invalid(COUNTRY, &[], Some("^[A-Z]{2}$")), 2.0),
        (invalid(COUNTRY, &["unknown"], Some("^[A-Z]{2}$")), 1.0),
        (invalid(COUNTRY, &[], Some("n")), 3.0),
        (invalid("items", &["1", "2"], None), 1.0),
        (invalid("amount", &["4"], None), 3.0),
        (invalid("items", &[], Some("^[0-9]+$")), 1.0),
        (duplicate(Some("id"), &[]), 2.0),
        (duplicate(None, &["id", COUNTRY]), 1.0),
        (duplicate(None, &["day"]), 1.0),
        (duplicate(Some("note"), &[]), 1.0),
        (duplicate(None, &["note", "day"]), 0.0),
        (missing("amount", &["n/a"]), 0.0),
        (invalid("amount", &["n/a"], None), 5.0),
        (missing("note", &["x"]), 5.0),
        (invalid("note", &["y"], None), 2.0),
        (invalid("note", &[], Some("^y")), 2.0),
        (sql("SELECT count(*) FROM {object} WHERE {property} = 'CH'"), 2.0),
        (sql("SELECT count(${column}) FROM ${table} -- {neither}"), 4.0),
        (sql("WITH x AS (SELECT amount FROM \"Orders\") SELECT avg(amount) FROM x"), 2.3),
        (sql("SELECT CAST(1.25 AS DECIMAL(10, 2))"), 1.25),
    ];
    let (rules, wanted): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
    let measured = measures(&rules).await;
    for ((rule, wanted), measured) in rules.iter().zip(wanted).zip(measured) {
        assert_eq!(measured, Ok(wanted), "{:?}", rule.check);
    }
}

#[tokio::test]
async fn a_rule_that_cannot_be_evaluated_fails_alone() {
    let rules = [
        (
            rule(Some("nothing"), QualityCheck::NullValues, "mustBe", &[0.0]),
            "column nothing is not in the table",
        ),
        (rule(None, QualityCheck::NullValues, "mustBe", &[0.0]), "names no column"),
        (invalid(COUNTRY, &[], Some("(")), "unclosed group"),
        (invalid(COUNTRY, &[], Some("(?=x)")), "look-around"),
        (invalid(COUNTRY, &[], None), "neither valid values nor a pattern"),
        (rule(None, QualityCheck::RowCount, "mustBeNear", &[0.0]), "mustBeNear is no operator"),
        (rule(None, QualityCheck::RowCount, "mustNotBe", &[]), "takes 1 numbers"),
        (rule(None, QualityCheck::RowCount, "mustBeBetween", &[1.0]), "takes 2 numbers"),
        (rule(None, QualityCheck::Sql("SELECT {property}".to_owned()), "mustBe", &[0.0]), "about no column"),
        (sql("SELECT 1; SELECT 2"), "2 statements"),
        (sql("DROP TABLE {object}"), "DDL"),
        (sql("INSERT INTO {object} SELECT * FROM {object}"), "DML"),
        (sql("SELECT count(*) FROM customers"), "reads customers"),
        (sql("SELECT count(*) FROM '/etc/passwd'"), "reads"),
        (sql("SELECT amuont FROM {object}"), "column amuont"),
        (sql("SELECT amount FROM {object}"), "more than one row"),
        (sql("SELECT amount FROM {object} WHERE false"), "no row"),
        (sql("SELECT sum(amount) FROM {object} WHERE false"), "NULL"),
        (sql("SELECT 1, 2"), "2 columns"),
        (sql("SELECT 'x'"), "not a number"),
        (sql("SELECT 1e308 * 10"), "no finite number"),
        (sql("SELECT max(items / (items - items)) FROM {object}"), "zero"),
        (sql("SELEC"), "SELEC"),
    ];
    let (mut rules, wanted): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
    rules.push(rule(None, QualityCheck::RowCount, "mustBe", &[5.0]));
    let outcomes = audit(&rules, orders()).await;
    for ((rule, wanted), outcome) in rules.iter().zip(&wanted).zip(&outcomes) {
        let error = outcome.error.clone().unwrap_or_default();
        assert!(error.to_lowercase().contains(&wanted.to_lowercase()), "{:?}: {error}", rule.check);
        assert_eq!((outcome.passed, outcome.measure, outcome.rows), (false, None, 5), "{:?}", rule.check);
    }
    assert!(outcomes.last().is_some_and(|last| last.passed && last.error.is_none()));
}

#[tokio::test]
async fn a_share_of_no_rows_is_none() {
    let rules = [
        percent(rule(Some(COUNTRY), QualityCheck::NullValues, "mustBeLessThan", &[20.0])),
        percent(rule(None, QualityCheck::DuplicateValues(texts(&["id"])), "mustBeLessOrEqualTo", &[40.0])),
    ];
    let full = audit(&rules, orders()).await;
    assert_eq!((full[0].measure, full[0].passed), (Some(20.0), false));
    assert_eq!((full[1].measure, full[1].passed), (Some(40.0), true));
    assert_eq!(full[1].threshold, "at most 40 %");
    let empty = audit(&rules, memory_table(schema(), Vec::new())).await;
    assert_eq!((empty[0].measure, empty[0].passed, empty[0].rows), (Some(0.0), true, 0));
    assert_eq!(empty[1].measure, Some(0.0));
}

#[tokio::test]
async fn bounds_are_part_of_between() {
    let rules = [[5.0, 9.0], [1.0, 5.0], [1.0, 4.0], [6.0, 9.0]]
        .map(|operands| rule(None, QualityCheck::RowCount, "mustBeBetween", &operands));
    let outcomes = audit(&rules, orders()).await;
    let passed: Vec<bool> = outcomes.iter().map(|outcome| outcome.passed).collect();
    assert_eq!(passed, [true, true, false, false]);
    assert_eq!(outcomes[0].threshold, "from 5 to 9");
}

#[test]
fn a_name_that_looks_like_a_placeholder_stays_a_name() {
    let text =
        replaced("SELECT {property} FROM {object} WHERE '$' <> '{é'", "{property}\"", Some("{object}"));
    assert_eq!(text, "SELECT \"{object}\" FROM \"{property}\"\"\" WHERE '$' <> '{é'");
}

/// Counts its scans; fails them when told to.
#[derive(Debug)]
struct Watched {
    table: Arc<dyn TableProvider>,
    scans: std::sync::atomic::AtomicUsize,
    fault: Option<std::io::ErrorKind>,
}

#[async_trait]
impl TableProvider for Watched {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }
    fn table_type(&self) -> TableType {
        TableType::Base
    }
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        self.scans.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if let Some(fault) = self.fault {
            return Err(DataFusionError::IoError(fault.into()));
        }
        self.table.scan(state, projection, filters, limit).await
    }
}

#[tokio::test]
async fn the_library_takes_one_scan_however_many_rules() {
    let watched = Arc::new(Watched { table: orders(), scans: 0.into(), fault: None });
    let rules: Vec<Quality> = (0..40)
        .map(|n| match n % 3 {
            0 => rule(Some("items"), QualityCheck::NullValues, "mustBe", &[1.0]),
            1 => invalid(COUNTRY, &["CH"], Some("^[a-z]")),
            _ => rule(None, QualityCheck::RowCount, "mustBe", &[5.0]),
        })
        .collect();
    let outcomes = audit(&rules, Arc::clone(&watched) as Arc<dyn TableProvider>).await;
    assert!(outcomes.iter().all(|outcome| outcome.passed), "{outcomes:?}");
    assert_eq!(watched.scans.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_usual_is_measured_in_the_same_scan_and_judged_by_history() {
    let watched = Arc::new(Watched { table: orders(), scans: 0.into(), fault: None });
    let about = |column, of| {
        let percent = of == UsualOf::NullValues;
        let mut rule = rule(column, QualityCheck::Usual(Usual::new(of)), "usual", &[]);
        rule.threshold.percent = percent;
        rule
    };
    let rules = [
        about(None, UsualOf::RowCount),
        about(Some("items"), UsualOf::NullValues),
        rule(Some("items"), QualityCheck::NullValues, "mustBe", &[1.0]),
    ];
    let table = || Arc::clone(&watched) as Arc<dyn TableProvider>;
    let unknown = audit(&rules, table()).await;
    assert_eq!(watched.scans.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(
        unknown.iter().map(|it| (it.measure, it.passed)).collect::<Vec<_>>(),
        [(Some(5.0), false), (Some(20.0), false), (Some(1.0), true),]
    );
    assert!(!unknown.iter().any(QualityOutcome::blocks), "unknown is no failure");
    let history = (0..20).map(|n| {
        let nulls = [("items".to_owned(), 1.0)].into();
        (format!("{n:020}"), hydromesh_core::band::Earlier { rows: 4_000, nulls })
    });
    let against = Against { partition: None, history: history.collect(), ..Against::default() };
    let judged = engine().audit(&rules, table(), "Orders", &against).await.expect("an audit");
    assert_eq!(judged[0].spoken(), "rule: measured 5, wanted 3200 to 5000, as 20 like it before");
    assert!(judged[0].blocks());
    // One of five is chance where one of a hundred is usual.
    assert_eq!((judged[1].passed, judged[1].blocks()), (true, false));
    let broken = about(Some("nothing"), UsualOf::NullValues);
    let broken = engine().audit(&[broken], table(), "Orders", &against).await.expect("an audit");
    assert_eq!(broken[0].spoken(), "rule: column nothing is not in the table, wanted what is usual");
    assert!(broken[0].blocks(), "a rule that cannot be evaluated stops the publication");
}

#[tokio::test]
async fn a_table_that_cannot_be_read_is_no_fault_of_a_rule() {
    let fault = Some(std::io::ErrorKind::TimedOut);
    let watched = Arc::new(Watched { table: orders(), scans: 0.into(), fault });
    let error = engine().audit(&[sql("SELECT 1")], watched, "Orders", &Against::default()).await;
    let error = error.expect_err("no table");
    assert_eq!(error.kind, ErrorKind::External);
}
