//! Manifests that somebody wrote to do harm, or that only a generator could write.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hydromesh_core::diag::Diagnostic;
use hydromesh_core::ids::ProductId;
use hydromesh_core::lineage::{self, Edges};
use hydromesh_core::model::{LoadResult, Loaded, Pipeline, load};

use crate::support;

const PRODUCT: &str = "domains/shop/totals/product.odps.yaml";
const CONTRACT: &str = "domains/shop/totals/totals.odcs.yaml";
const PIPELINE: &str = "domains/shop/totals/pipeline.yaml";
const SQL: &str = "domains/shop/totals/totals.sql";

type Files = BTreeMap<String, Loaded>;

fn base() -> Files {
    support::folder(&support::root().join("tests/fixtures/bad/missing_column"))
}

/// The files with one part of one of them replaced.
#[track_caller]
fn with(mut files: Files, file: &str, from: &str, to: &str) -> Files {
    let text = files[file].text.clone().expect("text");
    assert!(text.contains(from), "{file} lacks `{from}`");
    files.insert(file.to_owned(), Loaded { text: Ok(text.replacen(from, to, 1)), oid: "x".into() });
    files
}

/// The files with a copy of one product under another address.
fn twin(mut files: Files, of: &str, at: &str) -> Files {
    let copies: Vec<(String, Loaded)> = files
        .iter()
        .filter_map(|(path, loaded)| Some((format!("{at}{}", path.strip_prefix(of)?), loaded.clone())))
        .collect();
    files.extend(copies);
    files
}

/// The codes of the errors in a file.
fn errors<'a>(result: &'a LoadResult, file: &str) -> Vec<&'a str> {
    let told = |it: &&Diagnostic| it.file == file && it.severity == hydromesh_core::diag::Severity::Error;
    result.findings.iter().filter(told).map(|it| it.code.id()).collect()
}

fn broken(result: &LoadResult) -> Vec<String> {
    result.broken.keys().map(ToString::to_string).collect()
}

/// Far more than reading takes on a busy machine, and far less than what each of these took when it was found.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn products_that_look_alike_hold_each_other_and_nobody_else() {
    for at in ["domains/shop/t0tals", "domains/shop/tota1s", "domains/sh0p/totals"] {
        let mut files = twin(base(), "domains/shop/totals", at);
        if at.starts_with("domains/sh0p") {
            files = twin(files, "domains/shop/domain.yaml", "domains/sh0p/domain.yaml");
        }
        let result = load(&files);
        assert_eq!(errors(&result, PRODUCT), ["HM-M004"], "{at}");
        let twin: String = at.strip_prefix("domains/").expect("below").to_owned();
        let mut both = vec![twin, "shop/totals".to_owned()];
        both.sort();
        assert_eq!(broken(&result), both, "{at}");
    }
    let files = twin(base(), "domains/shop/totals", "domains/shop/grand-totals");
    let files = twin(files, "domains/shop/totals", "domains/shop/grand_totals");
    assert_eq!(broken(&load(&files)), ["shop/grand-totals", "shop/grand_totals"]);
    // Names of products are plain ASCII: what else looks like one is none.
    for at in
        ["domains/shop/tоtals", "domains/shop/ﬁtotals", "domains/shop/totals\u{200b}", "domains/shop/Totals"]
    {
        let result = load(&twin(base(), "domains/shop/totals", at));
        assert_eq!(errors(&result, &format!("{at}/product.odps.yaml")), ["HM-M002"], "{at}");
        assert_eq!(broken(&result), Vec::<String>::new(), "{at}");
    }
    // A stated id counts whatever its letter case.
    let files = with(base(), PRODUCT, "kind: DataProduct", "kind: DataProduct\nid: URN:Shop:1");
    let files = with(
        files,
        "domains/shop/prices/product.odps.yaml",
        "kind: DataProduct",
        "kind: DataProduct\nid: urn:shop:1",
    );
    assert_eq!(broken(&load(&files)), ["shop/prices", "shop/totals"]);
}

#[test]
fn a_thousand_products_of_one_id_are_told_in_few_words() {
    let mut files = with(base(), PRODUCT, "kind: DataProduct", "kind: DataProduct\nid: urn:one");
    for index in 0..1_000 {
        files = twin_of(files, index);
    }
    let started = Instant::now();
    let result = load(&files);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert_eq!(result.broken.len(), 1_001);
    let told = result.findings.iter().filter(|it| it.code.id() == "HM-M004");
    for finding in told {
        assert!(finding.related.len() <= 5 && finding.message.len() < 2_000, "{}", finding.message.len());
    }
}

fn twin_of(mut files: Files, index: usize) -> Files {
    let at = format!("domains/shop/copy-{index}");
    for path in [PRODUCT, CONTRACT, PIPELINE, SQL] {
        let name = path.rsplit('/').next().expect("a name");
        let loaded = files[path].clone();
        files.insert(format!("{at}/{name}"), loaded);
    }
    files
}

#[test]
fn columns_that_look_alike_are_one_or_none() {
    let column = |name: &str| {
        let given = format!("    properties:\n      - {{name: {name}}}");
        errors(&load(&with(base(), CONTRACT, "    properties:", &given)), CONTRACT)
            .first()
            .map(ToString::to_string)
    };
    assert_eq!(column("TOTAL").as_deref(), Some("HM-C008"));
    assert_eq!(column("\"to\\u200Btal\"").as_deref(), Some("HM-M002"));
    assert_eq!(column("\"a\\u202Eb\"").as_deref(), Some("HM-M002"));
    assert_eq!(column("\"a\\nb\"").as_deref(), Some("HM-M002"));
    assert_eq!(column(&"x".repeat(256)).as_deref(), Some("HM-M002"));
    assert_eq!(column("größe 2"), None);
    let files = with(
        base(),
        CONTRACT,
        "    properties:",
        "    properties:\n      - {name: Größe}\n      - {name: GRÖSSE}\n      - {name: größe}",
    );
    assert_eq!(errors(&load(&files), CONTRACT), ["HM-C008"]);
}

#[test]
fn a_megabyte_for_a_name_ends_soon_and_is_not_repeated() {
    let long = "x".repeat(900_000);
    let started = Instant::now();
    for (file, from, to) in [
        (PRODUCT, "contractId: shop/items.items", format!("contractId: {long}")),
        (PRODUCT, "kind: DataProduct", format!("kind: DataProduct\nname: {long}")),
        (PRODUCT, "kind: DataProduct", format!("kind: DataProduct\n{long}: 1")),
        (PRODUCT, "- name: totals", format!("- name: {long}")),
        (CONTRACT, "name: total,", format!("name: {long},")),
        (CONTRACT, "logicalType: number", format!("logicalType: {long}")),
        (PIPELINE, "output: totals", format!("output: {long}")),
        (PIPELINE, "by: sold_on", format!("by: {long}")),
        (PIPELINE, "Europe/Zurich", long.clone()),
        (PIPELINE, "15 2 * * *", long.clone()),
        (PIPELINE, "lookback: 2d", format!("lookback: {long}")),
    ] {
        let result = load(&with(base(), file, from, &to));
        assert_eq!(broken(&result), ["shop/totals"], "{from}");
        for finding in &result.findings {
            let size = finding.message.len() + finding.help.len();
            assert!(size < 10_000, "{from}: {} says {size} bytes", finding.code);
        }
    }
    // Two long names that nearly agree.
    let near = |name: &str| {
        let files = with(base(), CONTRACT, "name: total,", &format!("name: {name}a,"));
        with(files, PIPELINE, "by: sold_on", &format!("by: {name}b"))
    };
    assert_eq!(broken(&load(&near(&long))), ["shop/totals"]);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[test]
fn paths_in_manifests_lead_nowhere() {
    for path in [
        "/etc/passwd",
        "../items/items.sql",
        "../../../mesh.yaml",
        "file:///etc/passwd",
        "%2e%2e/items/items.sql",
        "..%2fitems.sql",
        "\\\\server\\share\\x.sql",
        "C:\\x.sql",
        "totals/../totals.sql",
        "./totals.sql",
    ] {
        let result = load(&with(base(), PIPELINE, "sql: totals.sql", &format!("sql: '{path}'")));
        assert_eq!(broken(&result), ["shop/totals"], "{path}");
        let files =
            with(base(), "domains/shop/items/product.odps.yaml", "\"data/*.csv\"", &format!("'{path}'"));
        let result = load(&files);
        let told = errors(&result, "domains/shop/items/product.odps.yaml");
        if path == "totals/../totals.sql" || path.starts_with(['/', '.', '%', '\\', 'f', 'C']) {
            assert_eq!(told, ["HM-M023"], "{path}");
        }
    }
}

#[test]
fn a_secret_is_nothing_that_a_product_can_name() {
    // Only the address of the ledger takes a secret; in a query its name is text.
    let files = with(base(), SQL, "sum(prize)", "max('${secret:STATE_PASSWORD}')");
    let result = load(&files);
    let product = &result.mesh.products[&"shop/totals".parse::<ProductId>().expect("an id")];
    let Some(Pipeline::Batch(batch)) = product.pipelines.values().next() else { panic!("a batch pipeline") };
    assert!(batch.sql.text.contains("'${secret:STATE_PASSWORD}'"));
    for (file, from, to) in [
        (PIPELINE, "lookback: 2d", "secret: ${secret:OTHER}"),
        (PIPELINE, "lookback: 2d", "lookback: ${secret:OTHER}"),
        (PIPELINE, "sql: totals.sql", "sql: ${secret:OTHER}"),
        (PRODUCT, "contractId: shop/items.items", "contractId: ${secret:OTHER}"),
    ] {
        assert_eq!(broken(&load(&with(base(), file, from, to))), ["shop/totals"], "{to}");
    }
}

#[test]
fn a_quality_rule_with_a_harmful_query_breaks_its_product() {
    for (query, code) in [
        ("SELECT count(*) FROM {object} WHERE total < 0", None),
        ("SELECT count(*) FROM generate_series(1, 10000000000000)", Some("HM-S006")),
        ("SELECT count(*) FROM items", Some("HM-S005")),
        ("SELECT count(*) FROM {object}; DROP TABLE totals", Some("HM-S002")),
    ] {
        let rule = format!("    quality: [{{type: sql, query: \"{query}\", mustBe: 0}}]\n    properties:");
        let result = load(&with(base(), CONTRACT, "    properties:", &rule));
        assert_eq!(errors(&result, CONTRACT).first().copied(), code, "{query}");
        assert_eq!(broken(&result).is_empty(), code.is_none(), "{query}");
    }
}

#[test]
fn two_outputs_cannot_be_one_place() {
    // Where a table lies is its address, so that only two pipelines of one port could claim one place.
    let files = base();
    let second = files[PIPELINE].text.clone().expect("text").replace("add-up", "add-up-again");
    let both = format!("{}---\n{second}", files[PIPELINE].text.clone().expect("text"));
    let mut files = files;
    files.insert(PIPELINE.to_owned(), Loaded { text: Ok(both), oid: "x".into() });
    assert_eq!(errors(&load(&files), PIPELINE), ["HM-M022"]);
    // Nobody fills a port of somebody else.
    let files = with(base(), PIPELINE, "output: totals", "output: shop/items.items");
    assert!(errors(&load(&files), PIPELINE).contains(&"HM-M010"));
}

fn id(index: usize) -> ProductId {
    format!("d/p{index}").parse().expect("an id")
}

#[test]
fn ten_thousand_edges_of_one_product_cost_what_they_are() {
    const MANY: usize = 10_000;
    let started = Instant::now();
    let mut fan_in: Edges = (0..MANY).map(|index| (id(index), [].into())).collect();
    fan_in.insert(id(MANY), (0..MANY).map(id).collect());
    let order = lineage::order(&fan_in);
    assert_eq!((order.len(), order.last()), (MANY + 1, Some(&id(MANY))));
    assert!(lineage::cycles(&fan_in).is_empty());
    let fan_out: Edges = (0..MANY).map(|index| (id(index), [id(MANY)].into())).collect();
    assert_eq!(lineage::downstream(&fan_out, &id(MANY)).len(), MANY);
    let circle: Edges = (0..MANY).map(|index| (id(index), [id((index + 1) % MANY)].into())).collect();
    assert_eq!(lineage::cycles(&circle).first().map(Vec::len), Some(MANY));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());

    // A product that reads itself, and a circle of products, are told at each of them.
    let own = with(base(), PRODUCT, "contractId: shop/items.items", "contractId: shop/totals.totals");
    assert!(errors(&load(&own), PRODUCT).contains(&"HM-M006"));
    // A product of 3,000 input ports, each of which reads the same port.
    let many: Vec<String> = (0..3_000)
        .map(|index| format!("  - {{name: items_{index}, contractId: shop/items.items}}\n"))
        .collect();
    let many = many.concat();
    let files = with(base(), PRODUCT, "outputPorts:", &format!("{many}outputPorts:"));
    let result = load(&files);
    assert_eq!(broken(&result), Vec::<String>::new());
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}
