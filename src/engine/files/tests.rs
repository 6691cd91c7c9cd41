use std::path::Path;

use arrow::array::AsArray as _;
use arrow::datatypes::{Float64Type, Int64Type};
use hydromesh_core::model::LogicalType;
use hydromesh_core::syntax::{Node, parse};
use proptest::prelude::*;

use super::*;
use crate::engine::types::column;

fn columns() -> Vec<Column> {
    let decimal =
        Column { physical: Some("DECIMAL(9,2)".to_owned()), ..column("price", LogicalType::Number) };
    vec![
        Column { required: true, ..column("id", LogicalType::String) },
        column("n", LogicalType::Integer),
        column("x", LogicalType::Number),
        column("day", LogicalType::Date),
        column("at", LogicalType::Timestamp),
        column("open", LogicalType::Time),
        column("ok", LogicalType::Boolean),
        decimal,
        column("raw", LogicalType::Binary),
        column("v", LogicalType::Vector(2)),
    ]
}

fn read(name: &str, bytes: &[u8], columns: &[Column]) -> Result<FilesRead, EngineError> {
    read_files(&[(name.to_owned(), bytes.to_vec())], columns)
}

fn count(read: &FilesRead) -> usize {
    read.batches.iter().map(RecordBatch::num_rows).sum()
}

fn reasons(read: &FilesRead) -> Vec<(u64, &str)> {
    read.quarantined.iter().map(|row| (row.line, row.reason.as_str())).collect()
}

fn shown(read: &FilesRead) -> String {
    arrow::util::pretty::pretty_format_batches(&read.batches).expect("a table").to_string()
}

#[test]
fn every_type_is_read_from_both_formats() {
    let csv = "v,raw,price,ok,open,at,day,x,n,id,more\r\n\
               \"[1, 2.5]\",\\x00ff,19.9,true,09:30,2026-01-02T03:04:05+01:00,2026-01-02,1.5,-7,\"a, \"\"b\"\"\nc\",z\r\n\
               ,,,,,,,,,\"\",\r\n";
    let jsonl = r#"{"id":"a, \"b\"\nc","n":-7.0,"x":1.5,"day":"2026-01-02","at":"2026-01-02T02:04:05Z","open":"09:30","ok":true,"price":"19.90","raw":"00FF","v":[1,2.5],"more":{}}

{"id":null}"#;
    let csv = read("a.csv", csv.as_bytes(), &columns()).expect("csv");
    let jsonl = read("a.jsonl", jsonl.as_bytes(), &columns()).expect("jsonl");
    assert_eq!(reasons(&csv), []);
    assert_eq!(reasons(&jsonl), []);
    assert_eq!(csv.batches, jsonl.batches);
    let batch = &csv.batches[0];
    assert_eq!(batch.num_rows(), 2);
    assert!(batch.columns().iter().all(|array| array.is_valid(0) && array.is_null(1)));
    insta::assert_snapshot!(shown(&csv), @r#"
    +--------+----+-----+------------+----------------------+-------+------+-------+------+------------+
    | id     | n  | x   | day        | at                   | open  | ok   | price | raw  | v          |
    +--------+----+-----+------------+----------------------+-------+------+-------+------+------------+
    | a, "b" | -7 | 1.5 | 2026-01-02 | 2026-01-02T02:04:05Z | 09:30 | true | 19.90 | 00ff | [1.0, 2.5] |
    | c      |    |     |            |                      |       |      |       |      |            |
    |        |    |     |            |                      |       |      |       |      |            |
    +--------+----+-----+------------+----------------------+-------+------+-------+------+------------+
    "#);
}

#[test]
fn a_broken_csv_row_is_told_by_column_and_type_and_costs_itself_alone() {
    let columns = &columns()[..4];
    let mut csv = b"\xEF\xBB\xBFid,n,x,day\n".to_vec();
    csv.extend_from_slice(b"a,1,1,2026-01-01\nb,secret,1,\nc,1,secret,\nd,1,1,secret\ne,1\nf,1,1,,1\n");
    csv.extend_from_slice(
        b"g\xFF,1,1,\n\"h\"secret,1,1,\n\"two\nlines\",x,1,\ni,1,nan,\n,,,\nj,1,1,\"open\nk,2,2,\n",
    );
    let read = read("a.csv", &csv, columns).expect("a header");
    assert_eq!(
        reasons(&read),
        [
            (3, "column n: expected a 64-bit integer"),
            (4, "column x: expected a number"),
            (5, "column day: expected a date (YYYY-MM-DD)"),
            (6, "the row has 2 fields, the header 4"),
            (7, "the row has 5 fields, the header 4"),
            (8, "column id: expected UTF-8"),
            (9, "column id: expected a comma or the line's end after a closing quote"),
            (10, "column n: expected a 64-bit integer"),
            (12, "column x: expected a number"),
            (14, "column day: a quote opens and never closes"),
        ]
    );
    let ids = read.batches[0].column(0).as_string::<i32>();
    assert_eq!(ids.iter().collect::<Vec<_>>(), [Some("a"), None, Some("k")]);
}

#[test]
fn a_broken_json_line_is_told_by_field_and_type() {
    let columns = &columns()[..3];
    let mut lines =
        b"{\"id\":\"a\"}\r\n{\"id\":1}\n{}\n{\"id\":\"a\",\"n\":\"1\"}\n{\"id\":\"a\",\"x\":true}\n[1]\n"
            .to_vec();
    lines.extend_from_slice(b"{\"id\":\"secret\n{\"id\":\"\xFF\"}\n{\"id\":\"a\"} secret\nnull\n");
    lines.extend(std::iter::repeat_n(b'[', 100_000));
    let read = read("a.jsonl", &lines, columns).expect("lines");
    assert_eq!(
        reasons(&read),
        [
            (2, "column id: expected text"),
            (3, "the object lacks the required field id"),
            (4, "column n: expected a 64-bit integer"),
            (5, "column x: expected a number"),
            (6, "the line is JSON but not an object"),
            (7, "not JSON from character 13: EOF while parsing a string"),
            (8, "byte 8 is not UTF-8"),
            (9, "not JSON from character 12: trailing characters"),
            (10, "the line is JSON but not an object"),
            (11, "not JSON from character 128: recursion limit exceeded"),
        ]
    );
    assert_eq!(count(&read), 1);
}

#[test]
fn a_file_that_is_not_what_it_should_be_is_an_error_that_names_it() {
    for (name, bytes, wanted) in [
        ("data/a.csv", b"id\n1\n".as_slice(), "data/a.csv: the header lacks column n"),
        ("a.csv", b"id,n,n\n", "a.csv: the header has column n twice"),
        ("a.csv", b"", "a.csv is empty; it needs a header"),
        ("a.csv", b"\n\n", "a.csv is empty; it needs a header"),
        ("a.csv", b"id,n\xFF\n", "a.csv: the header cannot be read: field 2: expected UTF-8"),
        ("a.csv", b"id,\"n\n", "a.csv: the header cannot be read: field 2: a quote opens and never closes"),
        ("a.parquet", b"", "a.parquet: only .csv and .jsonl files can be read"),
        ("csv", b"", "csv: only .csv and .jsonl files can be read"),
    ] {
        let error = read(name, bytes, &columns()[..2]).expect_err(wanted);
        assert_eq!((error.message.as_str(), error.kind), (wanted, ErrorKind::User));
    }
}

#[test]
fn rows_come_by_path_whatever_the_order_of_the_files() {
    let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let mut files = vec![
        file("b.csv", "n,id\n2,b\nx,b\n"),
        file("a.jsonl", "{\"id\":\"a\",\"n\":1}\n"),
        file("c.CSV", "id,n\nc,3\nc,x"),
    ];
    let one = read_files(&files, &columns()[..2]).expect("files");
    files.reverse();
    let two = read_files(&files, &columns()[..2]).expect("files");
    assert_eq!((&one.batches, &one.quarantined), (&two.batches, &two.quarantined));
    let numbers = one.batches[0].column(1).as_primitive::<Int64Type>();
    assert_eq!(numbers.values(), &[1, 2, 3]);
    let places: Vec<_> = one.quarantined.iter().map(|row| (row.file.as_str(), row.line)).collect();
    assert_eq!(places, [("b.csv", 3), ("c.CSV", 3)]);
    let none = read_files(&[], &columns()[..2]).expect("no files");
    assert_eq!((none.batches.len(), none.schema), (0, one.schema));
}

#[test]
fn a_million_rows_are_all_there() {
    use std::fmt::Write as _;
    let mut csv = String::from("id,n,x\n");
    for n in 0..1_000_000_u32 {
        let _ = writeln!(csv, "O{n:07},{n},{}.5", n % 100);
    }
    let read = read("a.csv", csv.as_bytes(), &columns()[..3]).expect("csv");
    assert_eq!((count(&read), read.quarantined.len()), (1_000_000, 0));
    let sum: i64 =
        read.batches.iter().flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values()).sum();
    assert_eq!(sum, 999_999 * 1_000_000 / 2);
    let last = read.batches.last().expect("batches");
    assert_eq!(last.column(2).as_primitive::<Float64Type>().values().last(), Some(&99.5));
}

/// Returns the columns of a contract of the example mesh.
fn contract(path: &Path) -> Vec<Column> {
    let text = std::fs::read_to_string(path).expect("a contract");
    let (nodes, diagnostics) = parse("contract", &text);
    assert!(diagnostics.is_empty());
    let object = &nodes[0].get("schema").expect("a schema").items()[0];
    let properties = object.get("properties").expect("properties").items();
    let of = |node: &Node, key: &str| node.get(key).and_then(Node::text);
    let read = properties.iter().map(|property| {
        let logical = match of(property, "logicalType").as_deref() {
            Some("string") => LogicalType::String,
            Some("integer") => LogicalType::Integer,
            Some("number") => LogicalType::Number,
            other => panic!("{other:?} is not in the example"),
        };
        let required = of(property, "required").as_deref() == Some("true");
        Column { required, ..column(&of(property, "name").expect("a name"), logical) }
    });
    read.collect()
}

fn example(folder: &str, name: &str) -> FilesRead {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh-repo-example/domains").join(folder);
    let files = std::fs::read_dir(folder.join("data")).expect("data").map(|entry| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read(path).expect("a file"))
    });
    read_files(&files.collect::<Vec<_>>(), &contract(&folder.join(name))).expect("readable files")
}

fn set_aside(read: &FilesRead) -> Vec<String> {
    read.quarantined.iter().map(|row| format!("{}:{}: {}", row.file, row.line, row.reason)).collect()
}

#[test]
fn the_example_mesh_loses_exactly_the_rows_that_its_author_broke() {
    let orders = example("commerce/orders", "order_files.odcs.yaml");
    insta::assert_snapshot!(set_aside(&orders).join("\n"), @r"
    orders-01.csv:42: the row has 8 fields, the header 10
    orders-03.csv:202: column items: expected a 64-bit integer
    orders-04.csv:19: column amount: expected a number
    orders-07.csv:303: the row has 12 fields, the header 10
    orders-10.csv:90: the row has 2 fields, the header 10
    orders-12.csv:122: column discount: expected a number
    ");
    let customers = example("customer/customers", "customer_files.odcs.yaml");
    insta::assert_snapshot!(set_aside(&customers).join("\n"), @r"
    customers.csv:239: the row has 3 fields, the header 8
    customers.csv:491: the row has 9 fields, the header 8
    ");
    let articles = example("support/articles", "article_files.odcs.yaml");
    assert_eq!(
        set_aside(&articles),
        ["articles.jsonl:31: not JSON from character 39: EOF while parsing a string"]
    );
    assert_eq!([count(&orders), count(&customers), count(&articles)], [8655, 675, 61]);
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

proptest! {
    #[test]
    fn any_bytes_are_rows_or_set_aside(
        body in proptest::collection::vec(
            prop_oneof![
                4 => proptest::sample::select(b"\",\n\r a1.-:T{}[]".to_vec()),
                1 => any::<u8>(),
            ],
            0..300,
        ),
        header in any::<bool>(),
        name in proptest::sample::select(vec!["a.csv", "a.jsonl"]),
    ) {
        let mut bytes = if header && name == "a.csv" { b"id,n,x,day,at,open,ok,price,raw,v\n".to_vec() } else { Vec::new() };
        bytes.extend_from_slice(&body);
        let lines = bytes.split(|byte| *byte == b'\n').count() as u64;
        if let Ok(read) = read(name, &bytes, &columns()) {
            prop_assert!((count(&read) + read.quarantined.len()) as u64 <= lines);
            prop_assert!(read.quarantined.is_sorted_by(|one, two| one.line < two.line));
            prop_assert!(read.quarantined.iter().all(|row| (1..=lines).contains(&row.line)));
        }
    }

    #[test]
    fn what_is_written_is_read(
        rows in proptest::collection::vec((".{0,8}|(?s).{0,8}|[\",\n\r]{0,4}", any::<Option<i64>>()), 0..20),
        crlf in any::<bool>(),
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let number = |n: &Option<i64>| n.map(|n| n.to_string()).unwrap_or_default();
        let line = |(text, n): &(String, Option<i64>)| format!("{},{}{end}", number(n), quoted(text));
        let csv = rows.iter().map(line).collect::<Vec<_>>().concat();
        let read = read("a.csv", format!("n,id{end}{csv}").as_bytes(), &columns()[..2]).expect("csv");
        prop_assert_eq!(&read.quarantined, &vec![]);
        let ids = read.batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter());
        let numbers = read.batches.iter().flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().iter());
        let back: Vec<_> = ids.map(|id| id.unwrap_or_default().to_owned()).zip(numbers).collect();
        prop_assert_eq!(back, rows);
    }
}
