//! Every code that core raises is raised here, by a mesh that is right but for one change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hydromesh_core::check::{SqlProblem, check_shapes};
use hydromesh_core::diag::{Diagnostic, all_codes};
use hydromesh_core::model::{ColumnShape, Loaded, LogicalType, QueryShape, load, load_with};
use hydromesh_core::spread::InOrder;

use crate::support;

/// Codes that belong to whoever reads the repository, the policies or the data.
const OTHERS: &[&str] = &[
    "HM-R001", "HM-R002", "HM-R004", "HM-R005", "HM-R006", "HM-P001", "HM-P002", "HM-P003", "HM-P004",
    "HM-P005", "HM-D001", "HM-D002",
];

/// Letters of codes that steps and servers end with while they run. No mesh raises them; the shell's own tests do.
/// X: any step, L: the lake, Q: the audit, F: following a topic, T: training, H: HTTP.
const RUN_TIME: &[&str] = &["HM-X", "HM-L", "HM-Q", "HM-F", "HM-T", "HM-H"];

fn is_run_time(code: &str) -> bool {
    RUN_TIME.iter().any(|letter| code.starts_with(letter))
}

const PRODUCT: &str = "domains/shop/totals/product.odps.yaml";
const CONTRACT: &str = "domains/shop/totals/totals.odcs.yaml";
const PIPELINE: &str = "domains/shop/totals/pipeline.yaml";
const SQL: &str = "domains/shop/totals/totals.sql";

fn base() -> BTreeMap<String, Loaded> {
    support::folder(&support::root().join("tests/fixtures/bad/missing_column"))
}

/// The file with one part replaced; an empty part replaces the whole file.
fn changed(file: &str, from: &str, to: &str) -> BTreeMap<String, Loaded> {
    let mut files = base();
    let old = files.get(file).map(|it| it.text.clone().expect("text")).unwrap_or_default();
    assert!(old.contains(from), "{file} lacks `{from}`");
    let text = if from.is_empty() { to.to_owned() } else { old.replacen(from, to, 1) };
    files.insert(file.to_owned(), Loaded { text: Ok(text), oid: "x".into() });
    files
}

fn without(file: &str) -> BTreeMap<String, Loaded> {
    let mut files = base();
    assert!(files.remove(file).is_some());
    files
}

fn codes(findings: &[Diagnostic]) -> BTreeSet<&'static str> {
    findings.iter().map(|it| it.code.id()).collect()
}

/// Begins the contract's schema with a rule that is a program.
fn program(path: &str) -> String {
    let rule = format!("{{type: custom, engine: command, implementation: {{command: [{path}]}}, mustBe: 0}}");
    format!("schema:\n  - name: totals\n    quality: [{rule}]")
}

#[test]
fn a_program_that_is_there_and_may_run_is_nobodys_fault() {
    let mut files = changed(CONTRACT, "schema:\n  - name: totals", &program("./sum.sh"));
    let stands = |files: &BTreeMap<String, Loaded>| {
        let found = codes(&load(files).findings);
        ["HM-C016", "HM-C017"].map(|code| found.contains(code))
    };
    assert_eq!(stands(&files), [true, true]);
    files.insert(
        "domains/shop/totals/sum.sh".into(),
        Loaded { text: Ok("#!/bin/sh\n".into()), oid: "s".into() },
    );
    assert_eq!(stands(&files), [false, true]);
    let mesh = files["mesh.yaml"].text.clone().expect("text");
    let allowed = mesh.replace("    lake:", "    allow_commands: [shop]\n    lake:");
    files.insert("mesh.yaml".into(), Loaded { text: Ok(allowed), oid: "m".into() });
    assert_eq!(stands(&files), [false, false]);
}

/// A pipeline whose model a program fits.
fn trainer(command: &str) -> String {
    format!(
        "apiVersion: hydromesh/v1\nkind: TrainingPipeline\nname: t\noutput: totals\ntraining_set: {{spine: totals.sql, \
         features: [shop/items.items], as_of: {{event: sold_on}}}}\ntrain: {{command: {command}}}\n"
    )
}

#[test]
fn a_trainer_is_shown_its_own_files_and_runs_where_it_is_granted_what_it_asks_for() {
    let stands = |train: &str, mesh: &str| {
        let mut files = changed(PIPELINE, "", &trainer(train));
        let program = Loaded { text: Ok("#!/bin/sh\n".into()), oid: "s".into() };
        files.insert("domains/shop/totals/fit.sh".into(), program);
        let text =
            files["mesh.yaml"].text.clone().expect("text").replace("    lake:", &format!("{mesh}    lake:"));
        files.insert("mesh.yaml".into(), Loaded { text: Ok(text), oid: "m".into() });
        let result = load(&files);
        let found = codes(&result.findings);
        let found = ["HM-M017", "HM-M043", "HM-M044", "HM-M045"].into_iter().filter(|it| found.contains(it));
        (found.collect::<Vec<_>>(), result)
    };
    let (allowed, granted) = ("    allow_commands: [shop]\n", "    allow_network: [shop]\n");
    let both = format!("{allowed}{granted}");
    assert_eq!(stands("[./fit.sh]", "").0, ["HM-M044"]);
    let (found, result) = stands("[./fit.sh]", allowed);
    assert_eq!(found, Vec::<&str>::new());
    assert_eq!(stands("[./fit.sh], network: true", allowed).0, ["HM-M045"]);
    // Where nothing of the domain may run, nothing has the network either.
    assert_eq!(stands("[./fit.sh], network: true", granted).0, ["HM-M044"]);
    assert_eq!(stands("[./fit.sh], network: true", &both).0, Vec::<&str>::new());
    assert_eq!(stands("[./fit.sh]", "    allow_network: [shoe]\n").0, ["HM-M017", "HM-M044"]);
    // What Hydromesh reads itself is shown to no trainer: labels may be among it.
    assert_eq!(stands("[./totals.sql]", allowed).0, ["HM-M043"]);
    let product = &result.mesh.products[&"shop/totals".parse().expect("an id")];
    assert_eq!(product.trainer_files(), BTreeMap::from([("fit.sh", "s")]));
    assert!(product.files.len() > 3, "{:?}", product.files);
}

#[test]
fn a_model_is_another_one_when_what_its_trainer_is_shown_changes_and_only_then() {
    let id: hydromesh_core::ids::ProductId = "shop/totals".parse().expect("an id");
    let print = |train: &str, changed_file: &str| {
        let mut files = changed(PIPELINE, "", &trainer(train));
        let program = Loaded { text: Ok("#!/bin/sh\n".into()), oid: "s".into() };
        files.insert("domains/shop/totals/fit.sh".into(), program);
        if let Some(file) = files.get_mut(changed_file) {
            file.oid = "changed".into();
        }
        let mesh = load(&files).mesh;
        let shape = QueryShape {
            columns: Vec::new(),
            rows: "labels".into(),
            indirect: BTreeSet::new(),
            tables: BTreeMap::new(),
            volatile: Vec::new(),
        };
        let name = hydromesh_core::ids::PipelineName::new("t").expect("a name");
        let shapes = BTreeMap::from([((id.clone(), name), shape)]);
        let order = [id.clone()];
        let mut prints = hydromesh_core::plan::print_mesh(&mesh, &order, &shapes, &BTreeMap::new(), &InOrder);
        let print = prints.remove(&id).expect("a product");
        (print.ports.into_values().next().expect("a port").data, print.all)
    };
    let (data, all) = print("[./fit.sh]", "");
    assert_eq!(print("[./fit.sh]", ""), (data.clone(), all.clone()));
    // Another program, another word, the network: another model.
    for (train, file) in [
        ("[./fit.sh]", "domains/shop/totals/fit.sh"),
        ("[./fit.sh, --deep]", ""),
        ("[./fit.sh], network: true", ""),
        ("[./fit.sh], rows: csv", ""),
    ] {
        let (other, whole) = print(train, file);
        assert!(other != data && whole != all, "{train} {file}");
    }
    // Whoever decides about a deploy sees every file, and the model stays.
    for (train, file) in [("[./fit.sh]", PIPELINE), ("[./fit.sh], timeout: 2h, memory_mib: 64", "")] {
        let (same, whole) = print(train, file);
        assert!(same == data && whole != all, "{train} {file}");
    }
}

#[test]
fn one_change_raises_one_code() {
    let long = format!("# {}", "x".repeat(1024 * 1024));
    let (absent, nowhere) = (program("checks/sum.sh"), program("python3"));
    let (no_file, no_place, no_network) =
        (trainer("[fit/train.py]"), trainer("[python3]"), trainer("[python3], network: true"));
    let cases: Vec<(&str, &str, &str, &str)> = vec![
        ("HM-Y001", PIPELINE, "start: 2026-08-01}", "start: 2026-08-01"),
        ("HM-Y003", PIPELINE, "lookback: 2d", "lookback: 2d\nlookback: 3d"),
        ("HM-Y004", PIPELINE, "", &long),
        ("HM-Y005", PIPELINE, "lookback: 2d", "backfill:\n\tchunk: 2d"),
        ("HM-Y006", PIPELINE, "apiVersion", "\u{feff}apiVersion"),
        ("HM-Y007", PIPELINE, "lookback", "lokback"),
        ("HM-Y008", PIPELINE, "lookback: 2d", "backfill: {concurrency: two}"),
        ("HM-Y009", PIPELINE, "by: sold_on, ", ""),
        ("HM-Y010", PIPELINE, "every: day", "every: daily"),
        ("HM-Y011", PIPELINE, "", "# nothing"),
        ("HM-M003", PRODUCT, "kind: DataProduct", "kind: DataProduct\nname: total"),
        ("HM-M004", PRODUCT, "kind: DataProduct", "kind: DataProduct\nid: x"),
        ("HM-M005", PRODUCT, "shop/items.items", "shop/items.item"),
        ("HM-M006", PRODUCT, "shop/items.items", "shop/totals.totals"),
        ("HM-M007", PIPELINE, "sql: totals.sql", "sql: total.sql"),
        ("HM-M010", PIPELINE, "output: totals", "output: total"),
        ("HM-M012", PIPELINE, "by: sold_on", "by: day"),
        ("HM-M013", PIPELINE, "15 2 * * *", "15 2 * *"),
        ("HM-M014", PIPELINE, "Europe/Zurich", "Europe/Zuerich"),
        ("HM-M015", PIPELINE, "lookback: 2d", "lookback: 2 days"),
        ("HM-M016", PIPELINE, "2026-08-01", "2026-02-30"),
        ("HM-M019", "mesh.yaml", "ref: refs/heads/main", "after: prod\n    ref: main"),
        ("HM-M022", PRODUCT, "outputPorts:\n", "outputPorts:\n  - {name: totals}\n"),
        ("HM-M023", "domains/shop/domain.yaml", "shop@example.com", "shop"),
        ("HM-M024", PRODUCT, "shop/items.items", "shop/totals.items"),
        ("HM-M026", PIPELINE, "lookback: 2d", "engine: spark"),
        ("HM-M027", PIPELINE, "lookback: 2d", "pool: warehouse"),
        (
            "HM-M028",
            PIPELINE,
            "schedule: {cron: \"15 2 * * *\", timezone: Europe/Zurich}",
            "schedule: promise",
        ),
        (
            "HM-M032",
            PIPELINE,
            "partition: {by: sold_on, every: day, start: 2026-08-01}",
            "inputs: {items: {partitions: same}}",
        ),
        ("HM-M033", PIPELINE, "lookback: 2d", "inputs: {items: {partitions: {from: -3h}}}"),
        ("HM-M040", PIPELINE, "every: day, start: 2026-08-01", "values: [a, a]"),
        ("HM-M041", PIPELINE, "every: day", "values: [a], every: day"),
        ("HM-M042", PIPELINE, "every: day, start: 2026-08-01", "values: {from: items}"),
        ("HM-M043", PIPELINE, "", &no_file),
        ("HM-M044", PIPELINE, "", &no_place),
        ("HM-C001", CONTRACT, "v3.2.0", "v4.0.0"),
        ("HM-C002", CONTRACT, "schema:", "schema:\n  - {name: other}"),
        ("HM-C003", CONTRACT, "logicalType: number", "logicalType: array"),
        ("HM-C004", CONTRACT, "    properties:", "    quality: [{metric: rowCount}]\n    properties:"),
        (
            "HM-C005",
            CONTRACT,
            "    properties:",
            "    quality: [{type: custom, engine: soda, implementation: x}]\n    properties:",
        ),
        ("HM-C006", CONTRACT, "schema:", "slaProperties: [{property: latency, value: 4}]\nschema:"),
        ("HM-C007", CONTRACT, "logicalType: number", "logicalType: number, classification: odd"),
        ("HM-C008", CONTRACT, "    properties:", "    properties:\n      - {name: Total}"),
        ("HM-C009", CONTRACT, "kind: DataContract", "kind: DataContract\nid: x"),
        ("HM-C010", PRODUCT, "- name: totals", "- name: totals\n    version: 2.0.0"),
        ("HM-C011", CONTRACT, "logicalType: number", "logicalType: vector"),
        ("HM-C012", CONTRACT, "logicalType: number", "logicalType: number, enum: []"),
        ("HM-C013", CONTRACT, "schema:", "servers: [{server: a, type: mongodb}]\nschema:"),
        (
            "HM-C014",
            CONTRACT,
            "logicalType: number",
            "logicalType: number, relationships: [{from: a, to: b}]",
        ),
        ("HM-C015", CONTRACT, "logicalType: number", "logicalType: number, isUnique: true"),
        ("HM-C016", CONTRACT, "schema:\n  - name: totals", &absent),
        ("HM-C017", CONTRACT, "schema:\n  - name: totals", &nowhere),
        ("HM-S001", SQL, "sum(prize)", "sum(prize"),
        ("HM-S002", SQL, "GROUP BY sold_on", "; SELECT 1"),
        ("HM-S003", SQL, "SELECT", "EXPLAIN SELECT"),
        ("HM-S004", SQL, "", "COPY items TO 'x'"),
        ("HM-S005", SQL, "FROM items", "FROM item"),
        ("HM-S006", SQL, "FROM items", "FROM generate_series(1, 2)"),
        ("HM-S007", SQL, "FROM items", "FROM 'items.csv'"),
        ("HM-S008", SQL, "FROM items", "INTO t FROM items"),
        ("HM-S009", SQL, "", "-- nothing\n"),
        ("HM-S010", SQL, "FROM items", "FROM items TABLESAMPLE (1 PERCENT)"),
    ];
    let mut raised: BTreeSet<&str> = BTreeSet::new();
    for (code, file, from, to) in cases {
        let mut files = changed(file, from, to);
        if code == "HM-M004" {
            let other = "domains/shop/prices/product.odps.yaml";
            let text = files[other]
                .text
                .clone()
                .expect("text")
                .replace("kind: DataProduct", "kind: DataProduct\nid: x");
            files.insert(other.into(), Loaded { text: Ok(text), oid: "y".into() });
        }
        let result = load(&files);
        assert!(codes(&result.findings).contains(code), "{code}: {:#?}", result.findings);
        raised.insert(code);
    }
    let feature = "apiVersion: hydromesh/v1\nkind: FeaturePipeline\nentity: sold_on\nsource: {event_time: sold_on}\n\
                   features: [{name: spend, agg: summ(price), windows: [1h]}]\n";
    let mut unreadable = base();
    unreadable.insert(SQL.into(), Loaded { text: Err("the object is missing".into()), oid: "x".into() });
    let mut latin = base();
    latin.insert(CONTRACT.into(), Loaded { text: Err("it is not UTF-8".into()), oid: "x".into() });
    let mut bad_folder = base();
    bad_folder.insert("domains/Shop/a/b.sql".into(), Loaded { text: Ok("SELECT 1".into()), oid: "x".into() });
    let mut no_owner = changed("domains/shop/domain.yaml", "owners: [shop@example.com]", "tier: 3");
    no_owner.remove("domains/none");
    let mut broken_upstream = changed("domains/shop/items/items.odcs.yaml", "", "apiVersion: [");
    broken_upstream.remove("domains/none");
    for (code, files) in [
        ("HM-M001", without("mesh.yaml")),
        ("HM-M002", bad_folder),
        ("HM-M008", without(CONTRACT)),
        ("HM-M009", without(PIPELINE)),
        ("HM-M011", broken_upstream),
        ("HM-M017", without("domains/shop/domain.yaml")),
        ("HM-M018", no_owner),
        ("HM-M020", without(PRODUCT)),
        ("HM-M021", changed(PIPELINE, "sql: totals.sql", "sql: SELECT sold_on, 1.0 AS total FROM items")),
        ("HM-M025", changed(PIPELINE, "", feature)),
        ("HM-R003", unreadable),
        ("HM-Y002", latin),
    ] {
        let result = load(&files);
        assert!(codes(&result.findings).contains(code), "{code}: {:#?}", result.findings);
        raised.insert(code);
    }
    let mut granted_nowhere = changed(PIPELINE, "", &no_network);
    let mesh = granted_nowhere["mesh.yaml"].text.clone().expect("text");
    let mesh = mesh.replace("    lake:", "    allow_commands: [shop]\n    lake:");
    granted_nowhere.insert("mesh.yaml".into(), Loaded { text: Ok(mesh), oid: "m".into() });
    assert!(codes(&load(&granted_nowhere).findings).contains("HM-M045"));
    raised.insert("HM-M045");
    raised.extend(shape_codes());
    let missing: Vec<&str> = all_codes()
        .iter()
        .map(|it| it.id())
        .filter(|id| !raised.contains(id) && !OTHERS.contains(id) && !is_run_time(id))
        .collect();
    assert_eq!(missing, Vec::<&str>::new(), "codes that no test raises");
}

/// Every code in a text, with its line: `HM-`, a capital letter, three digits and no fourth.
fn codes_in(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (line, text) in text.lines().enumerate() {
        for (at, _) in text.match_indices("HM-") {
            let digits = |code: &str| code[4..].bytes().all(|byte| byte.is_ascii_digit());
            let whole = !text.as_bytes()[at..].get(7).is_some_and(u8::is_ascii_alphanumeric);
            if let Some(code) = text.get(at..at + 7)
                && code.is_ascii()
                && code.as_bytes()[3].is_ascii_uppercase()
                && digits(code)
                && whole
            {
                found.push((line + 1, code));
            }
        }
    }
    found
}

#[test]
fn codes_are_found_in_a_text() {
    let text = "a HM-X001 \"HM-T010\", HM-X0011 HM-x001\nHM- HM-é0001 HM-Y00";
    assert_eq!(codes_in(text), [(1, "HM-X001"), (1, "HM-T010")]);
}

#[test]
fn every_code_in_the_sources_of_the_shell_can_be_explained() {
    let known: BTreeSet<&str> = all_codes().iter().map(|code| code.id()).collect();
    let files = support::folder(&support::root().join("src"));
    let (mut unknown, mut misplaced, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (path, loaded) in files.iter().filter(|(path, _)| Path::new(path).extension() == Some("rs".as_ref()))
    {
        let text = loaded.text.as_deref().expect("sources are text");
        for (line, code) in codes_in(text) {
            seen.insert(code.to_owned());
            if !known.contains(code) {
                unknown.push(format!("src/{path}:{line}: {code}"));
            }
            // Findings in a mesh take their code from `codes::`. A step that spells one out has taken a code that
            // already means something else.
            let step =
                ["apply/", "engine/", "lake/", "train/", "vector/"].iter().any(|part| path.starts_with(part));
            if step && !is_run_time(code) {
                misplaced.push(format!("src/{path}:{line}: {code}"));
            }
        }
    }
    assert!(seen.contains("HM-X004"), "the sources were not read: {seen:?}");
    assert_eq!(unknown, Vec::<String>::new(), "codes that `hydromesh explain` does not know");
    assert_eq!(misplaced, Vec::<String>::new(), "run-time errors with a code of another kind");
}

fn shape_codes() -> BTreeSet<&'static str> {
    let result = load(&base());
    let column = |name: &str, logical: LogicalType, nullable| ColumnShape {
        name: name.into(),
        logical: Some(logical),
        physical: "x".into(),
        nullable,
        expression: String::new(),
        direct: BTreeSet::new(),
        masked: false,
    };
    let shape = |columns| QueryShape {
        columns,
        rows: String::new(),
        indirect: BTreeSet::new(),
        tables: BTreeMap::new(),
        volatile: vec!["now()".into()],
    };
    let key = |id: &str, name: &str| {
        (id.parse().expect("id"), hydromesh_core::ids::PipelineName::new(name).expect("name"))
    };
    let problem = |message: &str| Err(SqlProblem { message: message.into(), line: 0, column: 0 });
    let mut mesh = result.mesh;
    for product in mesh.products.values_mut() {
        for port in product.outputs.values_mut() {
            port.contract.columns[0].required = true;
        }
    }
    let odd = vec![column("sold_on", LogicalType::Date, true), column("totl", LogicalType::Number, false)];
    let item = vec![
        column("item_id", LogicalType::Date, false),
        column("sold_on", LogicalType::Date, false),
        column("price", LogicalType::Number, false),
    ];
    let mut told = BTreeSet::new();
    for shapes in [
        BTreeMap::from([
            (key("shop/totals", "add-up"), Ok(shape(odd))),
            (key("shop/items", "read-items"), Ok(shape(item))),
            (key("shop/prices", "average"), problem("Invalid function 'avrg'")),
        ]),
        BTreeMap::from([(key("shop/totals", "add-up"), problem("Schema error: No field named prize."))]),
    ] {
        told.extend(codes(&check_shapes(&mesh, &shapes)));
    }
    told
}

#[test]
fn what_the_reader_of_the_repository_found_breaks_only_its_product() {
    use hydromesh_core::diag::{Spot, codes};
    let link = Diagnostic::new(codes::SYMLINK, "domains/shop/totals/data.sql", Spot::FILE, "a symbolic link");
    let result = load_with(&base(), vec![link], &InOrder);
    let broken: Vec<String> = result.broken.keys().map(ToString::to_string).collect();
    assert_eq!(broken, ["shop/totals"]);
    assert_eq!(result.mesh.products.len(), 2);
}

#[test]
fn a_reader_of_a_broken_product_stays_while_the_contract_can_be_read() {
    let files = changed("domains/shop/items/items.sql", "", "DROP TABLE x");
    let result = load(&files);
    let whole: Vec<String> = result.mesh.products.keys().map(ToString::to_string).collect();
    assert_eq!(whole, ["shop/prices", "shop/totals"]);
    let port = "shop/items.items".parse().expect("port");
    assert!(result.mesh.output(&port).is_some());
    let files = changed("domains/shop/items/items.odcs.yaml", "", "apiVersion: [");
    let result = load(&files);
    assert!(result.mesh.products.is_empty());
    assert_eq!(result.broken.len(), 3);
}

#[test]
fn a_fault_in_inline_sql_has_the_line_of_the_manifest() {
    for (text, line) in [
        ("sql: SELECT sold_on, total FROM item", 5),
        ("sql: |\n  SELECT sold_on,\n    total\n  FROM item\n", 8),
        ("sql: >-\n  SELECT sold_on, total FROM item\n", 6),
    ] {
        let result = load(&changed(PIPELINE, "sql: totals.sql", text));
        let found = result.findings.iter().find(|it| it.code.id() == "HM-S005").expect("told");
        assert_eq!((found.file.as_str(), found.line), (PIPELINE, line), "{text}");
    }
}

#[test]
fn loading_is_a_function_of_the_files() {
    let files = changed(PIPELINE, "lookback", "lokback");
    let (one, two) = (load(&files), load(&files));
    assert_eq!(
        serde_json::to_string(&one.mesh).expect("json"),
        serde_json::to_string(&two.mesh).expect("json")
    );
    assert_eq!(one.findings, two.findings);
    let text = serde_json::to_string(&one.mesh).expect("json");
    let back: hydromesh_core::model::Mesh = serde_json::from_str(&text).expect("a mesh");
    assert_eq!(back, one.mesh);
}

#[test]
fn a_thousand_products_are_all_read() {
    let one = base();
    let mut files = one.clone();
    for index in 0..1_000 {
        for (path, loaded) in &one {
            if let Some(rest) = path.strip_prefix("domains/shop/totals/") {
                files.insert(format!("domains/shop/totals-{index}/{rest}"), loaded.clone());
            }
        }
    }
    // How long that takes is measured, in the release profile: scripts/bench/check.py.
    let result = load(&files);
    assert_eq!(result.mesh.products.len(), 1_003);
}

mod damage {
    use proptest::prelude::*;

    use super::{base, load};

    proptest! {
        /// Whatever one file turns into, reading goes on, and products whose files are untouched and that read
        /// nothing of it stay.
        #[test]
        fn no_damaged_file_makes_it_panic(
            pick in 0usize..1_000,
            at in 0usize..1_000,
            length in 0usize..60,
            insert in "[\\[\\]{}:,'\"#&*|>\n\t \\-a0é]{0,4}",
        ) {
            let mut files = base();
            let names: Vec<String> = files.keys().cloned().collect();
            let name = &names[pick % names.len()];
            let old: Vec<char> = files[name].text.clone().expect("text").chars().collect();
            let start = at % (old.len() + 1);
            let end = (start + length).min(old.len());
            let text: String = old[..start].iter().copied().chain(insert.chars()).chain(old[end..].iter().copied()).collect();
            if let Some(loaded) = files.get_mut(name) {
                loaded.text = Ok(text);
            }
            let result = load(&files);
            for indexes in result.broken.values() {
                prop_assert!(!indexes.is_empty());
                prop_assert!(indexes.iter().all(|index| *index < result.findings.len()));
            }
            if name.starts_with("domains/shop/totals/") && !name.ends_with("product.odps.yaml") {
                prop_assert!(result.mesh.products.keys().any(|id| id.name.as_str() == "prices"), "{:?}", result.findings);
            }
        }
    }
}
