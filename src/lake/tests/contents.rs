//! What is in a table, as rows, columns, partitions and for other readers.

use super::*;

pub(super) async fn every_type_comes_back(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let meta = CommitMeta::new("k1", 1, NOON);
    let rows = wide_rows(DAY_ONE, 10, 1);
    let published = put(&table, vec![rows.clone()], PublishMode::Append, &meta).await.unwrap();
    assert_eq!(published.outcome, Outcome::Committed);
    let back = sql(&table, None, "SELECT * FROM t ORDER BY id").await;
    let back = arrow::compute::concat_batches(&back[0].schema(), &back).unwrap();
    for (field, column) in wide_schema().fields().iter().zip(rows.columns()) {
        assert_eq!(
            back.schema().field_with_name(field.name()).unwrap().data_type(),
            field.data_type(),
            "{field}"
        );
        assert_eq!(back.column_by_name(field.name()).unwrap(), column, "{field}");
    }
    let known = known(&table).await;
    assert_eq!((known.rows, known.files, known.version), (10, 1, published.version));
    assert_eq!(known.schema, wide_schema());
    assert_eq!(known.last_commit.as_ref(), Some(&meta));
    assert_eq!(table.commits(5).await.unwrap(), vec![(published.version, meta)]);
}

pub(super) async fn a_query_result_with_views_is_stored_plain(format: TableFormat) {
    let schema = Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, true)]));
    let (_folder, table) = new_table(format, &TableSpec { schema, partition_by: None }).await;
    let views: ArrayRef =
        Arc::new(StringViewArray::from(vec![Some("a"), None, Some("a string longer than twelve bytes")]));
    let rows = RecordBatch::try_from_iter(vec![("name", views)]).unwrap();
    let _ = put(&table, vec![rows], PublishMode::Append, &CommitMeta::new("k", 1, NOON)).await.unwrap();
    let back = sql(&table, None, "SELECT name FROM t WHERE name > 'a'").await;
    assert_eq!(
        back[0].column(0).as_any().downcast_ref::<StringArray>().unwrap().value(0),
        "a string longer than twelve bytes"
    );
}

pub(super) async fn columns_are_added_and_nothing_else(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let before =
        put(&table, vec![wide_rows(DAY_ONE, 3, 1)], PublishMode::Append, &CommitMeta::new("k1", 1, NOON))
            .await
            .unwrap();
    let wider = TableSpec {
        schema: with_column(&wide_schema(), Field::new("note", DataType::Utf8, true)),
        ..by_day()
    };
    assert_eq!(table.ensure(&wider, writer(1)).await.unwrap(), Ensured::Updated);
    assert_eq!(table.ensure(&wider, writer(1)).await.unwrap(), Ensured::NotNeeded);
    assert_eq!(table.ensure(&by_day(), writer(1)).await.unwrap(), Ensured::NotNeeded);
    assert!(known(&table).await.version > before.version);
    assert_eq!(known(&table).await.schema, wider.schema);
    // Old rows have no value, rows without the column still fit, and the past keeps its shape.
    let mut columns = wide_rows(DAY_ONE, 2, 2).columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec!["x", "y"])));
    let noted = RecordBatch::try_new(wider.schema.clone(), columns).unwrap();
    let _ = put(&table, vec![noted], PublishMode::Append, &CommitMeta::new("k2", 1, NOON)).await.unwrap();
    let _ = put(&table, vec![wide_rows(DAY_ONE, 1, 3)], PublishMode::Append, &CommitMeta::new("k3", 1, NOON))
        .await
        .unwrap();
    assert_eq!(number(&table, None, "SELECT count(note) FROM t").await, 2);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t WHERE note IS NULL").await, 4);
    assert_eq!(table.provider(Some(before.version)).await.unwrap().schema(), wide_schema());
    assert_eq!(number(&table, Some(before.version), "SELECT count(*) FROM t").await, 3);

    let refused = |schema: SchemaRef, partition_by: Option<&str>| {
        let spec = TableSpec { schema, partition_by: partition_by.map(str::to_owned) };
        let table = table.clone();
        async move {
            let refused = table.ensure(&spec, writer(1)).await;
            assert!(matches!(refused, Err(LakeError::IncompatibleSchema { .. })), "{refused:?}");
        }
    };
    refused(with_column(&wide_schema(), Field::new("must", DataType::Utf8, false)), Some("day")).await;
    refused(wide_schema(), None).await;
    refused(wide_schema(), Some("amount")).await;
    let mut fields = wide_schema().fields().to_vec();
    fields[2] = Arc::new(Field::new("name", DataType::Int64, true));
    refused(Arc::new(Schema::new(fields)), Some("day")).await;
    let odd = TableSpec {
        schema: with_column(&wide_schema(), Field::new("odd", DataType::UInt64, true)),
        ..by_day()
    };
    assert!(matches!(table.ensure(&odd, writer(1)).await, Err(LakeError::UnsupportedType { .. })));
}

pub(super) async fn bad_rows_are_typed_errors(format: TableFormat) {
    let spec = TableSpec {
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("country", DataType::Utf8, true),
        ])),
        partition_by: Some("country".into()),
    };
    let (_folder, table) = new_table(format, &spec).await;
    let meta = CommitMeta::new("k", 1, NOON);
    let ids = |values: Vec<Option<i64>>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let names = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
    let stage = async |columns: Vec<(&str, ArrayRef)>| {
        let nullable = columns.into_iter().map(|(name, column)| (name, column, true));
        table.stage(&meta, stream(vec![RecordBatch::try_from_iter_with_nullable(nullable).unwrap()])).await
    };
    let null = stage(vec![("id", ids(vec![Some(1)])), ("country", names(vec![None]))]).await;
    assert!(matches!(null, Err(LakeError::NullPartition { .. })), "{null:?}");
    let empty = stage(vec![("id", ids(vec![Some(1)])), ("country", names(vec![Some("")]))]).await;
    assert!(matches!(empty, Err(LakeError::NullPartition { .. })), "{empty:?}");
    let required = stage(vec![("id", ids(vec![None])), ("country", names(vec![Some("ch")]))]).await;
    assert!(matches!(required, Err(LakeError::NullInRequired { .. })), "{required:?}");
    let missing = stage(vec![("country", names(vec![Some("ch")]))]).await;
    assert!(matches!(missing, Err(LakeError::MissingColumn { .. })), "{missing:?}");
    let unknown =
        stage(vec![("id", ids(vec![Some(1)])), ("country", names(vec![Some("ch")])), ("x", ids(vec![None]))])
            .await;
    assert!(matches!(unknown, Err(LakeError::UnknownColumn { .. })), "{unknown:?}");
    let other = stage(vec![("id", names(vec![Some("1")])), ("country", names(vec![Some("ch")]))]).await;
    assert!(matches!(other, Err(LakeError::IncompatibleSchema { .. })), "{other:?}");
    assert_eq!(table.sweep(i64::MAX).await.unwrap(), 0);
}

pub(super) async fn strings_partition_too(format: TableFormat) {
    let spec = TableSpec {
        schema: Arc::new(Schema::new(vec![
            Field::new("country", DataType::Utf8, false),
            Field::new("id", DataType::Int64, false),
        ])),
        partition_by: Some("country".into()),
    };
    let (_folder, table) = new_table(format, &spec).await;
    // Prefixes, cases, spaces, quotes, slashes and letters that no path takes as they are.
    let names = ["us", "usa", "US", "Côte d'Ivoire", "a/b", "..", "100% #1?", "=", "null", "zz"];
    for (index, name) in names.iter().enumerate() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("country", Arc::new(StringArray::from(vec![*name; 3]))),
            ("id", Arc::new(Int64Array::from(vec![index as i64; 3]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let meta = CommitMeta::new(format!("k{index}"), 1, NOON);
        let _ = put(&table, vec![rows], PublishMode::ReplacePartition((*name).into()), &meta).await.unwrap();
    }
    let partitions = table.partitions(None).await.unwrap();
    assert_eq!(partitions.len(), names.len(), "{partitions:?}");
    for (index, name) in names.iter().enumerate() {
        let quoted = name.replace('\'', "''");
        assert_eq!(
            number(&table, None, &format!("SELECT sum(id) FROM t WHERE country = '{quoted}'")).await,
            3 * index as i64
        );
        assert_eq!(partitions[*name].rows, 3);
    }
    let _ = put(&table, vec![], PublishMode::ReplacePartition("us".into()), &CommitMeta::new("e", 1, NOON))
        .await
        .unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 27);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t WHERE country = 'usa'").await, 3);
}

pub(super) async fn many_partitions_in_one_stage(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    // More days than files may be open, interleaved, so that some close early and come back.
    let mut batches = Vec::new();
    for round in 0..2 {
        for day in 0..90 {
            batches.push(wide_rows(DAY_ONE + day, 2, i64::from(round * 100 + day)));
        }
    }
    let published = put(&table, batches, PublishMode::Append, &CommitMeta::new("k", 1, NOON)).await.unwrap();
    let partitions = table.partitions(Some(published.version)).await.unwrap();
    assert_eq!(partitions.len(), 90);
    assert!(partitions.values().all(|info| info.rows == 4));
    let replace = PublishMode::ReplacePartition("2026-08-10".into());
    let _ = put(&table, vec![wide_rows(DAY_ONE + 9, 1, 900)], replace, &CommitMeta::new("k2", 1, NOON))
        .await
        .unwrap();
    assert_eq!(number(&table, None, "SELECT count(*) FROM t").await, 357);
    assert_eq!(number(&table, None, "SELECT count(*) FROM t WHERE day = DATE '2026-08-10'").await, 1);
}

pub(super) async fn a_content_hash_knows_rows_not_files(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let nothing = table.content_hash(None, &[]).await.unwrap();
    let rows = wide_rows(DAY_ONE, 10, 1);
    let whole = put(&table, vec![rows.clone()], PublishMode::ReplaceAll, &CommitMeta::new("k1", 1, NOON))
        .await
        .unwrap();
    let one = table.content_hash(None, &[]).await.unwrap();
    assert_ne!(one, nothing);
    // The same rows in two commits and the other order.
    let _ = put(&table, vec![rows.slice(5, 5)], PublishMode::ReplaceAll, &CommitMeta::new("k2", 1, NOON))
        .await
        .unwrap();
    assert_ne!(table.content_hash(None, &[]).await.unwrap(), one);
    let _ = put(&table, vec![rows.slice(0, 5)], PublishMode::Append, &CommitMeta::new("k3", 1, NOON))
        .await
        .unwrap();
    assert_eq!(table.content_hash(None, &[]).await.unwrap(), one);
    assert_eq!(table.content_hash(Some(whole.version), &[]).await.unwrap(), one);
    // A doubled row is another content; without a column it is another hash.
    let _ = put(&table, vec![rows.slice(0, 1)], PublishMode::Append, &CommitMeta::new("k4", 1, NOON))
        .await
        .unwrap();
    assert_ne!(table.content_hash(None, &[]).await.unwrap(), one);
    assert_ne!(table.content_hash(Some(whole.version), &["at"]).await.unwrap(), one);
}

pub(super) async fn a_folder_has_one_format(format: TableFormat) {
    let (folder, table) = new_table(format, &by_day()).await;
    let lake = Lake::open(folder.path()).await.unwrap();
    let other = if format == TableFormat::Delta { TableFormat::Iceberg } else { TableFormat::Delta };
    let other = lake.table(table.address(), other).unwrap();
    assert!(matches!(other.ensure(&by_day(), writer(1)).await, Err(LakeError::OtherFormat { .. })));
    for bad in ["orders", "a/b", "a/b.", "../x.y", "a/..b.c", "a/b.c/d", "a b/c.d", "/a/b.c", "a/.b.c"] {
        assert!(matches!(lake.table(bad, format), Err(LakeError::BadAddress { .. })), "{bad}");
    }
}

pub(super) async fn statistics_answer_truly(format: TableFormat) {
    let schema = Arc::new(Schema::new(vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("x", DataType::Float64, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("id", DataType::Int64, true),
    ]));
    let (_folder, table) = new_table(format, &TableSpec { schema: schema.clone(), partition_by: None }).await;
    let long = "z".repeat(300);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some(long.as_str()), None, Some("a")])),
        Arc::new(Float64Array::from(vec![Some(1.0), Some(f64::INFINITY), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1_234_567), None, Some(-1)]).with_timezone("UTC")),
        Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(i64::MIN), None])),
    ];
    let rows = RecordBatch::try_new(schema, columns).unwrap();
    let _ = put(&table, vec![rows], PublishMode::Append, &CommitMeta::new("k", 1, NOON)).await.unwrap();
    let query = "SELECT max(text) AS text, max(x) AS x, max(at) AS at, min(id) AS id, count(text) AS n, count(*) AS all FROM t";
    let answer = sql(&table, None, &query.replace(" AS all", " AS every")).await;
    let shown = arrow::util::pretty::pretty_format_batches(&answer).unwrap().to_string();
    for expected in
        [long.as_str(), "inf", "1970-01-01T00:00:01.234567Z", "-9223372036854775808", "| 2 ", "| 3 "]
    {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
}

pub(super) async fn a_failed_stream_stages_nothing(format: TableFormat) {
    let (_folder, table) = new_table(format, &by_day()).await;
    let broken = futures::stream::iter(vec![
        Ok(wide_rows(DAY_ONE, 5, 1)),
        Err(datafusion::error::DataFusionError::Execution("source went away".into())),
    ]);
    let broken = Box::pin(RecordBatchStreamAdapter::new(wide_schema(), broken));
    let staged = table.stage(&CommitMeta::new("k", 1, NOON), broken).await;
    assert!(matches!(staged, Err(LakeError::Query(_))), "{staged:?}");
    assert_eq!(table.sweep(i64::MAX).await.unwrap(), 0);
}

/// Runs where `HYDROMESH_ORACLE_PYTHON` names a Python with the packages of the script.
pub(super) async fn readers_that_are_not_ours_agree(format: TableFormat) {
    let Some(python) = std::env::var_os("HYDROMESH_ORACLE_PYTHON") else {
        eprintln!("skipped: HYDROMESH_ORACLE_PYTHON is not set");
        return;
    };
    let (_folder, table) = new_table(format, &by_day()).await;
    let mut metas = (0..).map(|n| CommitMeta::new(format!("k{n}"), 1, NOON + n));
    let mut next = || metas.next().unwrap();
    // The shapes that could go wrong: many files, a replaced day, an empty day, an append, a silent
    // commit, a new column and a file that has it.
    let days = (0..12).map(|day| wide_rows(DAY_ONE + day, 5, i64::from(day) + 1)).collect();
    let _ = put(&table, days, PublishMode::Append, &next()).await.unwrap();
    let day = |day: i32| PublishMode::ReplacePartition(format!("2026-08-{:02}", day + 1));
    let _ = put(&table, vec![wide_rows(DAY_ONE + 3, 9, 50)], day(3), &next()).await.unwrap();
    let pinned = put(&table, vec![], day(4), &next()).await.unwrap().version;
    let _ = put(&table, vec![wide_rows(DAY_ONE, 2, 60)], PublishMode::Append, &next()).await.unwrap();
    let _ = put(&table, vec![], PublishMode::Append, &next()).await.unwrap();
    let wider = TableSpec {
        schema: with_column(&wide_schema(), Field::new("note", DataType::Utf8, true)),
        ..by_day()
    };
    assert_eq!(table.ensure(&wider, writer(1)).await.unwrap(), Ensured::Updated);
    let mut columns = wide_rows(DAY_ONE + 20, 2, 70).columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec!["x", "y"])));
    let noted = RecordBatch::try_new(wider.schema.clone(), columns).unwrap();
    let _ = put(&table, vec![noted], PublishMode::Append, &next()).await.unwrap();

    for at in [None, Some(pinned)] {
        others_agree(&python, &table, at).await;
    }

    // Put together and cut, in the middle of a stream.
    let mut versions = Vec::new();
    for tag in 100..145 {
        let rows = vec![wide_rows(DAY_ONE + 2, 2, tag)];
        versions.push(put(&table, rows, PublishMode::Append, &next()).await.unwrap().version);
    }
    let meta = CommitMeta::new("together/run", 1, NOON + 200);
    assert!(table.put_together(&meta).await.unwrap().is_some());
    let published = known(&table).await.version;
    let keep = Keep { since_ms: i64::MAX, most: 1, read_since_ms: Some(NOON + 50), published };
    assert!(table.expire(&keep, writer(1)).await.unwrap() > 10);
    table.sweep(i64::MAX).await.unwrap();
    for at in [None, Some(versions[44])] {
        others_agree(&python, &table, at).await;
    }
}

/// Asserts that software that is not ours reads the same of a version.
async fn others_agree(python: &std::ffi::OsStr, table: &Table, at: Option<Version>) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/oracles/read_tables.py");
    let mut command = std::process::Command::new(python);
    command.arg(script).arg(table.location());
    if let Some(Version(version)) = at {
        command.arg("--version").arg(version.to_string());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    eprintln!("{theirs}");
    let ours = async |query: &str| number(table, at, query).await;
    assert_eq!(theirs["rows"], ours("SELECT count(*) FROM t").await);
    assert_eq!(theirs["sums"]["id"], ours("SELECT sum(id) FROM t").await.to_string());
    let cents = ours("SELECT CAST(sum(price) * 100 AS BIGINT) FROM t").await;
    assert_eq!(theirs["sums"]["price"], format!("{}.{:02}", cents / 100, cents % 100));
    for column in table.provider(at).await.unwrap().schema().fields() {
        let name = column.name();
        assert_eq!(theirs["non_null"][name], ours(&format!("SELECT count({name}) FROM t")).await, "{name}");
    }
    let full = table.partitions(at).await.unwrap().into_iter().filter(|(_, info)| info.rows > 0);
    let full: BTreeMap<String, u64> = full.map(|(day, info)| (day, info.rows)).collect();
    assert_eq!(theirs["partitions"], json!(full));
}
