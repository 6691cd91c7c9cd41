use std::collections::BTreeSet;

use super::*;
use crate::model::{Loaded, LogicalType, load};

fn mesh(extra: &[(&str, &str)]) -> Mesh {
    let mut files: BTreeMap<String, Loaded> = [
        ("mesh.yaml", "apiVersion: hydromesh/v1\nkind: Mesh\nname: m\nenvironments: {dev: {ref: main}}\n"),
        ("domains/a/domain.yaml", "apiVersion: hydromesh/v1\nkind: Domain\nowners: [a@example.com]\n"),
        (
            "domains/a/p/product.odps.yaml",
            "apiVersion: v1.1.0\nkind: DataProduct\ninputPorts:\n- name: raw\n  customProperties:\n  - {property: hydromesh.files, value: '*.csv'}\noutputPorts:\n- {name: out}\n",
        ),
        (
            "domains/a/p/raw.odcs.yaml",
            "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: raw\n  properties:\n  - {name: id, logicalType: string}\n  - {name: amount, logicalType: number}\n",
        ),
        (
            "domains/a/p/out.odcs.yaml",
            "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: out\n  properties:\n  - {name: id, logicalType: string, required: true}\n  - {name: day, logicalType: date}\n  - {name: amount, logicalType: number, physicalType: 'DECIMAL(10,2)'}\n",
        ),
        (
            "domains/a/p/pipeline.yaml",
            "apiVersion: hydromesh/v1\nkind: BatchPipeline\nname: make\noutput: out\nsql: out.sql\npartition: {by: day, every: day, start: 2026-08-01}\n",
        ),
        ("domains/a/p/out.sql", "SELECT id,\n  amout,\n  now() AS day\nFROM raw\n"),
    ]
    .into_iter()
    .chain(extra.iter().copied())
    .map(|(path, text)| (path.to_owned(), Loaded { text: Ok(text.to_owned()), oid: String::new() }))
    .collect();
    files.retain(|_, loaded| loaded.text.as_deref() != Ok(""));
    let result = load(&files);
    assert_eq!(result.findings, []);
    result.mesh
}

fn column(name: &str, logical: LogicalType, physical: &str) -> ColumnShape {
    ColumnShape {
        name: name.into(),
        logical: Some(logical),
        physical: physical.into(),
        nullable: false,
        expression: String::new(),
        direct: BTreeSet::new(),
        masked: false,
    }
}

fn shape(columns: Vec<ColumnShape>) -> QueryShape {
    QueryShape {
        columns,
        rows: String::new(),
        indirect: BTreeSet::new(),
        tables: [("raw".to_owned(), 1)].into(),
        volatile: Vec::new(),
    }
}

fn check(result: Result<QueryShape, SqlProblem>) -> Vec<Diagnostic> {
    let key = ("a/p".parse().expect("id"), PipelineName::new("make").expect("name"));
    check_shapes(&mesh(&[]), &[(key, result)].into())
}

fn told(found: &[Diagnostic]) -> Vec<(&'static str, &str)> {
    found.iter().map(|it| (it.code.id(), it.message.as_str())).collect()
}

fn right() -> Vec<ColumnShape> {
    vec![
        column("id", LogicalType::String, "Utf8"),
        column("day", LogicalType::Date, "Date32"),
        column("amount", LogicalType::Number, "Decimal128(10, 2)"),
    ]
}

#[test]
fn a_fitting_query_has_no_finding() {
    assert_eq!(check(Ok(shape(right()))), []);
    let mut integer = right();
    integer[2] = column("amount", LogicalType::Integer, "Int64");
    assert_eq!(check(Ok(shape(integer))), []);
}

#[test]
fn a_missing_column_is_placed_and_corrected() {
    let message = "Schema error: No field named amout. Did you mean 'raw.amount'?".to_owned();
    let found = check(Err(SqlProblem { message, line: 0, column: 0 }));
    assert_eq!(found.len(), 1);
    let one = &found[0];
    assert_eq!((one.code, one.file.as_str()), (codes::SQL_MISSING_COLUMN, "domains/a/p/out.sql"));
    assert_eq!((one.line, one.column, one.help.as_str()), (2, 3, "did you mean `amount`?"));
    assert_eq!(missing_column("No field named raw.\"Total\"."), Some("raw.Total".into()));
}

#[test]
fn another_problem_keeps_the_engines_words() {
    let message = "Error during planning: Invalid function 'summ'.\nDid you mean 'sum'?".to_owned();
    let found = check(Err(SqlProblem { message, line: 1, column: 8 }));
    assert_eq!(told(&found), [("HM-S012", "Invalid function 'summ'.")]);
    assert_eq!((found[0].line, found[0].column), (1, 8));
}

#[test]
fn columns_types_and_nulls_are_compared() {
    let mut columns = right();
    columns[0].nullable = true;
    columns[1] = column("dya", LogicalType::Date, "Date32");
    columns[2] = column("amount", LogicalType::Number, "Decimal128(12, 3)");
    let found = check(Ok(shape(columns)));
    let mut told: Vec<_> = found.iter().map(|it| (it.code.id(), it.severity, it.help.as_str())).collect();
    told.sort();
    assert_eq!(told[0], ("HM-S014", Severity::Error, "did you mean `day`?"));
    assert_eq!(told[1], ("HM-S015", Severity::Error, "did you mean `dya`?"));
    assert_eq!((told[2].0, told[2].1), ("HM-S016", Severity::Error));
    assert_eq!((told[3].0, told[3].1), ("HM-S017", Severity::Note));
    assert_eq!(found.iter().find(|it| it.code == codes::ABSENT_COLUMN).map(|it| it.related[0].line), Some(8));
    assert_eq!(broken_by(&mesh(&[]), &found).len(), 1);
}

#[test]
fn a_partitioned_query_must_be_repeatable() {
    let mut volatile = shape(right());
    volatile.volatile.push("now()".into());
    let found = check(Ok(volatile.clone()));
    assert_eq!(told(&found), [("HM-S013", "`now()` yields something else each time it is called")]);
    assert_eq!(found[0].line, 3);
    let whole = mesh(&[(
        "domains/a/p/pipeline.yaml",
        "apiVersion: hydromesh/v1\nkind: BatchPipeline\nname: make\noutput: out\nsql: out.sql\n",
    )]);
    let key = ("a/p".parse().expect("id"), PipelineName::new("make").expect("name"));
    assert_eq!(check_shapes(&whole, &[(key, Ok(volatile))].into()), []);
}

#[test]
fn what_is_usual_of_a_stream_is_not_known() {
    let rule =
        "quality: [{type: custom, engine: hydromesh, implementation: {usual: rowCount}}]\n  properties:\n";
    let contract = format!(
        "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: out\n  {rule}  - {{name: id, logicalType: string}}\n  - {{name: ts, logicalType: timestamp}}\n"
    );
    let product = "apiVersion: v1.1.0\nkind: DataProduct\ninputPorts:\n- name: raw\n  customProperties:\n  - {property: hydromesh.topic, value: raw}\noutputPorts:\n- {name: out}\n";
    let raw = "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: raw\n  properties:\n  - {name: id, logicalType: string}\n  - {name: ts, logicalType: timestamp}\n";
    let pipeline = "apiVersion: hydromesh/v1\nkind: StreamPipeline\nname: make\noutput: out\nsql: SELECT id, ts FROM raw\nsource: {port: raw, event_time: ts}\n";
    let mesh = mesh(&[
        ("domains/a/p/out.odcs.yaml", &contract),
        ("domains/a/p/product.odps.yaml", product),
        ("domains/a/p/raw.odcs.yaml", raw),
        ("domains/a/p/pipeline.yaml", pipeline),
        ("domains/a/p/out.sql", ""),
    ]);
    let key = ("a/p".parse().expect("id"), PipelineName::new("make").expect("name"));
    let columns = vec![
        column("id", LogicalType::String, "Utf8"),
        column("ts", LogicalType::Timestamp, "Timestamp(Microsecond, Some(\"UTC\"))"),
    ];
    let found = check_shapes(&mesh, &[(key, Ok(shape(columns)))].into());
    assert_eq!(found.iter().map(|it| (it.code.id(), it.line)).collect::<Vec<_>>(), [("HM-C005", 6)]);
    assert!(broken_by(&mesh, &found).is_empty(), "it is told, and the product goes on");
}

#[test]
fn types_fit_where_nothing_is_lost() {
    use LogicalType as T;
    let contract = mesh(&[])
        .products
        .values()
        .next()
        .expect("one")
        .outputs
        .values()
        .next()
        .expect("one")
        .contract
        .clone();
    let promise = |logical: T, physical: Option<&str>| crate::model::Column {
        logical,
        physical: physical.map(str::to_owned),
        ..contract.columns[0].clone()
    };
    for (found, physical, wanted, wanted_physical, yes) in [
        (T::Integer, "Int64", T::Integer, None, true),
        (T::Integer, "Int64", T::Number, None, true),
        (T::Number, "Float64", T::Integer, None, false),
        (T::Date, "Date32", T::Timestamp, None, false),
        (T::String, "Utf8", T::Date, None, false),
        (T::Vector(3), "FixedSizeList", T::Vector(4), None, false),
        (T::Vector(3), "FixedSizeList", T::Vector(3), None, true),
        (T::Number, "Decimal128(10, 2)", T::Number, Some("DECIMAL(12,2)"), true),
        (T::Number, "Decimal128(12, 2)", T::Number, Some("DECIMAL(10,2)"), false),
        (T::Number, "Decimal128(10, 4)", T::Number, Some("numeric(12, 2)"), false),
        (T::String, "Null", T::Date, None, true),
    ] {
        let fit = fits(&column("x", found, physical), &promise(wanted, wanted_physical));
        assert_eq!(fit == Fit::Yes, yes, "{physical} {wanted_physical:?}: {fit:?}");
    }
}
