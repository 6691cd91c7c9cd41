use proptest::prelude::*;

use super::*;

fn verdict(text: &str) -> Vec<(&'static str, u32, u32)> {
    match guard(text, ["orders", "customers", "daily-totals"]) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(|fault| (fault.code.id(), fault.line, fault.column)).collect(),
    }
}

#[test]
fn queries_over_inputs_pass() {
    for text in [
        "SELECT * FROM orders",
        "select o.id, sum(o.amount) filter (where o.ok) over (partition by o.c order by o.d) from Orders o;",
        "WITH a AS (SELECT * FROM orders), b AS (SELECT * FROM a JOIN customers USING (id)) SELECT * FROM b",
        "SELECT * FROM \"daily-totals\" UNION ALL SELECT * FROM orders ORDER BY 1 LIMIT 3",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT * FROM n, orders",
        "SELECT (SELECT max(d) FROM customers WHERE id = o.id), extract(year FROM d) FROM orders o",
        "SELECT CASE WHEN a IN (SELECT id FROM customers) THEN 1 ELSE 2 END FROM (SELECT * FROM orders) x",
        "-- why\n/* and */ SELECT CAST(ts AS DATE), date_trunc('day', ts), a || 'x' FROM orders GROUP BY ALL",
        "(SELECT 1 FROM orders)",
        "SELECT * EXCLUDE (email) FROM customers QUALIFY row_number() OVER (PARTITION BY id ORDER BY ts) = 1",
    ] {
        assert_eq!(verdict(text), [], "{text}");
    }
    let tables =
        guard("SELECT * FROM orders WHERE id IN (SELECT id FROM Customers)", ["orders", "customers"]);
    assert_eq!(tables, Ok(["customers".to_owned(), "orders".to_owned()].into()));
}

#[test]
fn everything_else_is_refused_by_its_own_code() {
    for (text, code) in [
        ("", "HM-S009"),
        (" -- nothing\n;", "HM-S009"),
        ("SELECT id FROM (", "HM-S001"),
        ("SELECT 'open FROM orders", "HM-S001"),
        ("SELECT * FROM orders; DROP TABLE orders", "HM-S002"),
        ("SELECT * FROM orders; SELECT 1;", "HM-S002"),
        ("INSERT INTO orders SELECT * FROM customers", "HM-S003"),
        ("CREATE TABLE x AS SELECT 1", "HM-S003"),
        ("EXPLAIN SELECT * FROM orders", "HM-S003"),
        ("SET x = 1", "HM-S003"),
        ("VALUES (1)", "HM-S003"),
        ("WITH x AS (SELECT 1) INSERT INTO orders SELECT * FROM x", "HM-S003"),
        ("COPY orders TO '/tmp/x'", "HM-S004"),
        ("copy (select * from orders) to 's3://x' with (format parquet) partitioned by", "HM-S004"),
        ("SELECT * FROM order", "HM-S005"),
        ("SELECT * FROM ordrs", "HM-S005"),
        ("SELECT * FROM \"Orders\"", "HM-S005"),
        ("SELECT * FROM public.orders", "HM-S005"),
        ("SELECT (SELECT 1 FROM secrets) FROM orders", "HM-S005"),
        ("SELECT * FROM orders WHERE EXISTS (SELECT 1 FROM secrets)", "HM-S005"),
        ("SELECT * FROM orders ORDER BY (SELECT x FROM secrets)", "HM-S005"),
        ("SELECT * FROM orders LIMIT (SELECT x FROM secrets)", "HM-S005"),
        ("SELECT sum(a) FILTER (WHERE a > (SELECT x FROM secrets)) FROM orders", "HM-S005"),
        ("SELECT max(a) OVER (ORDER BY (SELECT x FROM secrets)) FROM orders", "HM-S005"),
        ("SELECT * FROM orders o JOIN customers c ON o.id = (SELECT x FROM secrets)", "HM-S005"),
        ("SELECT array_agg(a ORDER BY (SELECT x FROM secrets)) FROM orders", "HM-S005"),
        ("SELECT a FROM orders GROUP BY a HAVING a > (SELECT x FROM secrets)", "HM-S005"),
        ("SELECT ARRAY(SELECT x FROM secrets) FROM orders", "HM-S005"),
        ("SELECT * REPLACE ((SELECT x FROM secrets) AS id) FROM orders", "HM-S005"),
        ("SELECT * FROM (SELECT * FROM a), orders a", "HM-S005"),
        ("WITH x AS (SELECT * FROM y), y AS (SELECT 1) SELECT * FROM x", "HM-S005"),
        ("SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x), x", "HM-S005"),
        ("SELECT * FROM read_csv('a.csv')", "HM-S006"),
        ("SELECT * FROM orders, LATERAL generate_series(1, 2)", "HM-S006"),
        ("SELECT * FROM TABLE(f(1))", "HM-S006"),
        ("SELECT * FROM '/etc/passwd'", "HM-S007"),
        ("SELECT * FROM \"s3://bucket/x.parquet\"", "HM-S007"),
        ("SELECT * FROM \"x.parquet\"", "HM-S007"),
        ("SELECT * INTO t FROM orders", "HM-S008"),
        ("SELECT * FROM orders FOR UPDATE", "HM-S008"),
        ("SELECT * FROM orders TABLESAMPLE (10 PERCENT)", "HM-S010"),
        ("SELECT a FROM orders PIVOT(sum(a) FOR b IN ('x'))", "HM-S010"),
    ] {
        let found = verdict(text);
        assert_eq!(found.first().map(|it| it.0), Some(code), "{text}: {found:?}");
    }
}

#[test]
fn faults_know_their_place() {
    assert_eq!(
        verdict("SELECT *\nFROM ordrs o\nJOIN\n  custmers c USING (id)"),
        [("HM-S005", 2, 6), ("HM-S005", 4, 3)]
    );
    assert_eq!(verdict("SELECT *\nFROM '/etc/passwd'"), [("HM-S007", 2, 7)]);
    assert_eq!(verdict("SELECT 1;\n\n  DROP TABLE x"), [("HM-S002", 3, 3)]);
    let sql = SqlText { file: "p/x.sql".into(), line: 1, text: "SELECT *\nFROM ordrs".into() };
    let found = diagnose(&sql, ["orders"]);
    assert_eq!((found[0].line, found[0].column, found[0].help.as_str()), (2, 6, "did you mean `orders`?"));
}

#[test]
fn a_chain_of_operators_is_walked_or_refused_but_never_overflows() {
    let chain = |count: usize| format!("SELECT {} FROM orders", vec!["1"; count].join(" + "));
    assert_eq!(verdict(&chain(1_000)), []);
    assert_eq!(verdict(&chain(50_000))[0].0, "HM-S010");
    assert_eq!(verdict(&format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)))[0].0, "HM-S001");
    assert_eq!(verdict(&" ".repeat(MAX_BYTES + 1))[0].0, "HM-S010");
}

/// `links` WITH names, each of which reads the one before by `step`.
fn chain(links: usize, step: &str) -> String {
    let names = (1..links).map(|n| format!(", a{n} AS ({})", step.replace('?', &format!("a{}", n - 1))));
    format!(
        "WITH a0 AS (SELECT * FROM orders){} SELECT * FROM a{}",
        names.collect::<Vec<_>>().concat(),
        links - 1
    )
}

#[test]
fn a_page_of_sql_does_not_ask_for_more_than_a_planner_can_do() {
    // Reasonable ones, first.
    for (links, step) in [
        (100, "SELECT id FROM ?"),
        (6, "SELECT * FROM ? UNION ALL SELECT * FROM ?"),
        (5, "SELECT id, (SELECT max(id) FROM ?) AS most FROM ?"),
        (4, "SELECT * FROM ? x JOIN ? y USING (id) JOIN ? z USING (id)"),
    ] {
        assert_eq!(verdict(&chain(links, step)), [], "{links} {step}");
    }
    for (links, step) in [
        (40, "SELECT * FROM ? UNION ALL SELECT * FROM ?"),
        (40, "SELECT * FROM ? x JOIN ? y USING (id)"),
        (40, "SELECT id FROM orders WHERE id IN (SELECT id FROM ?)"),
        (40, "SELECT (SELECT max(id) FROM ?) AS id FROM orders"),
        (40, "SELECT id FROM orders ORDER BY EXISTS (SELECT id FROM ?)"),
        (3_000, "SELECT id FROM ?"),
        // More than 64 bits can count.
        (200, "SELECT * FROM ? UNION ALL SELECT * FROM ?"),
    ] {
        let found = guard(&chain(links, step), ["orders"]).expect_err(step);
        assert_eq!((found.len(), found[0].code.id()), (1, "HM-S010"), "{step}: {found:?}");
        assert!(found[0].message.contains("the limit is 2000"), "{}", found[0].message);
    }
    assert_eq!(verdict(&format!("SELECT * FROM orders{}", ", orders".repeat(3_000)))[0].0, "HM-S010");
    // An inner name that hides an outer one is the one that counts.
    let hidden = "WITH x AS (SELECT * FROM orders) SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) y, x";
    assert_eq!(verdict(hidden), []);
}

#[test]
fn names_of_any_length_are_read_or_refused_at_once() {
    let long = "x".repeat(MAX_BYTES - 100);
    for text in [
        format!("SELECT id AS {long} FROM orders"),
        format!("SELECT id FROM orders AS {long}"),
        format!("SELECT \"{long}\" FROM orders"),
        format!("SELECT id FROM orders WHERE id = '{long}'"),
    ] {
        assert_eq!(verdict(&text), []);
    }
    let unknown = guard(&format!("SELECT * FROM {long}"), ["orders", long.get(1..).expect("ASCII")]);
    assert_eq!(unknown.expect_err("no such table")[0].code.id(), "HM-S005");
    assert_eq!(verdict(&format!("SELECT id AS {} FROM orders", "x".repeat(1 << 20)))[0].0, "HM-S010");
}

#[test]
fn other_catalogues_and_other_domains_are_not_there() {
    for text in [
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns JOIN orders USING (id)",
        "SELECT * FROM datafusion.public.orders",
        "SELECT * FROM pg_catalog.pg_tables",
        "SELECT * FROM commerce.orders",
        "SELECT * FROM \"commerce/orders.orders\"",
        "SELECT * FROM orders@v1",
        "TABLE orders",
        "SHOW TABLES",
        "DESCRIBE orders",
        "EXPLAIN ANALYZE INSERT INTO orders SELECT * FROM orders",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE FUNCTION f(x INT) RETURNS INT RETURN x",
        "SELECT * FROM unknown_function(1)",
        "SELECT * FROM orders CROSS JOIN LATERAL range(1, 1000000000000)",
        "SELECT * FROM 'file:///etc/passwd'",
        "SELECT * FROM \"%2e%2e/secrets.csv\"",
        "SELECT * FROM \"\\\\server\\share\"",
    ] {
        assert!(guard(text, ["orders"]).is_err(), "{text}");
    }
    // A name with a slash is a path, whatever input there is.
    assert!(guard("SELECT * FROM \"a/b\"", ["a/b"]).is_err());
}

#[test]
fn a_quality_rule_reads_its_own_object_alone() {
    for text in [
        "SELECT count(*) FROM {object} WHERE amount < 0",
        "SELECT count(*) FROM ${table} o WHERE o.{property} IS NULL",
        "SELECT count(*) FROM orders",
        "WITH x AS (SELECT * FROM {model}) SELECT avg({column}) FROM x",
    ] {
        assert_eq!(guard_measure(text, "orders"), [], "{text}");
    }
    for (text, code) in [
        ("SELECT count(*) FROM customers", "HM-S005"),
        ("SELECT count(*) FROM generate_series(1, 10000000000000)", "HM-S006"),
        ("SELECT count(*) FROM {object}; DROP TABLE x", "HM-S002"),
        ("COPY {object} TO '/tmp/x'", "HM-S004"),
        ("SELECT count(*) FROM '/etc/passwd'", "HM-S007"),
        ("SELECT count(*) FROM information_schema.tables", "HM-S005"),
    ] {
        let found = guard_measure(text, "orders");
        assert_eq!(found.first().map(|it| it.code.id()), Some(code), "{text}: {found:?}");
    }
}

#[test]
fn the_canonical_form_forgets_what_does_not_matter() {
    let form = canonical("select  Id,\n\tSUM(amount) -- total\nFROM Orders /* all */ WHERE name = 'A  b';\n");
    assert_eq!(form, "select id , sum ( amount ) from orders where name = 'A  b'");
    assert_eq!(canonical("SELECT id,sum( Amount )FROM orders WHERE NAME='A  b'"), form);
    assert_ne!(canonical("SELECT \"Id\" FROM orders"), canonical("SELECT id FROM orders"));
    assert_ne!(canonical("SELECT 'a'"), canonical("SELECT 'A'"));
    assert_ne!(canonical("SELECT 'a'' || ''b'"), canonical("SELECT 'a' || 'b'"));
    assert_eq!(canonical("SELECT \"a\"\"b\""), "select \"a\"\"b\"");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(SELECT|FROM|WITH|orders|\\(|\\)|,|;|'|\"|\\*| |1|a|\\.|--|/\\*|JOIN|ON|=|\n){0,30}") {
        let _ = guard(&text, ["orders"]);
        let form = canonical(&text);
        prop_assert_eq!(canonical(&form), form);
    }
}
