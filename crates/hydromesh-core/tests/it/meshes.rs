//! Whole meshes: the example, the fixtures with one fault each, the documentation.

use std::collections::BTreeMap;

use hydromesh_core::diag::Severity;
use hydromesh_core::ids::PortName;
use hydromesh_core::model::read::{self, Around, SqlFile};
use hydromesh_core::model::{Loaded, Pipeline, PipelineKind, load};
use hydromesh_core::syntax::{Sink, parse};

use crate::support;

#[test]
fn the_example_mesh_has_no_error() {
    let root = std::env::var_os("HYDROMESH_EXAMPLE")
        .map_or_else(|| support::root().join("mesh-repo-example"), Into::into);
    if !root.join("mesh.yaml").is_file() {
        println!("skipped: there is no mesh at {}", root.display());
        return;
    }
    let result = load(&support::folder(&root));
    let told: Vec<String> =
        result.findings.iter().filter(|it| it.severity != Severity::Note).map(ToString::to_string).collect();
    assert_eq!(told, Vec::<String>::new());
    assert!(result.broken.is_empty());
    assert!(result.mesh.products.len() >= 9, "{}", result.mesh.products.len());
}

/// Cases that need an engine or a policy compiler; the mesh itself is right.
const BEYOND: &[&str] = &["missing_column", "policy_syntax_error", "type_mismatch"];

#[test]
fn one_fault_is_told_by_its_code_and_the_other_products_go_on() {
    let folder = support::root().join("tests/fixtures/bad");
    let mut cases = 0;
    for entry in std::fs::read_dir(&folder).expect("fixtures") {
        let path = entry.expect("an entry").path();
        if !path.is_dir() {
            continue;
        }
        cases += 1;
        let case = path.file_name().expect("name").to_string_lossy().into_owned();
        let expected = std::fs::read_to_string(path.join("expected.txt")).expect("expected.txt");
        let result = load(&support::folder(&path));
        let products: Vec<String> = result.mesh.products.keys().map(ToString::to_string).collect();
        assert!(products.contains(&"shop/items".to_owned()), "{case}: {products:?}");
        assert!(products.contains(&"shop/prices".to_owned()), "{case}: {products:?}");
        let mut codes: Vec<&str> = result.findings.iter().map(|it| it.code.id()).collect();
        codes.dedup();
        if BEYOND.contains(&case.as_str()) {
            assert_eq!(codes, Vec::<&str>::new(), "{case}: {:?}", result.findings);
            assert!(products.contains(&"shop/totals".to_owned()), "{case}");
            continue;
        }
        assert_eq!(codes, [expected.trim()], "{case}: {:#?}", result.findings);
        assert!(!products.contains(&"shop/totals".to_owned()), "{case}");
        let totals = "shop/totals".parse().expect("id");
        let reasons = &result.broken[&totals];
        assert!(!reasons.is_empty(), "{case}");
        for index in reasons {
            let finding = &result.findings[*index];
            assert_eq!(finding.severity, Severity::Error, "{case}");
            assert!(!finding.help.is_empty() && !finding.file.is_empty(), "{case}");
            let without_place = ["duplicate_product"].contains(&case.as_str());
            assert!(finding.line > 0 || without_place, "{case}: {finding}");
        }
    }
    assert!(cases >= 13, "{cases} fixtures");
}

/// The pipelines that the documentation shows, in a product that has what they name.
#[test]
fn the_documented_pipelines_are_read() {
    use PipelineKind::{Batch, Embedding, Feature, Stream, Training};
    let page = std::fs::read_to_string(support::root().join("docs/pipelines.md")).expect("the page");
    let block =
        page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a YAML block");
    let sink = Sink::new("pipeline.yaml");
    let (documents, found) = parse("pipeline.yaml", block);
    assert_eq!(found, []);
    let names = |names: &[&str]| -> Vec<PortName> {
        names.iter().map(|it| PortName::new(*it).expect("name")).collect()
    };
    let inputs = names(&["raw_orders", "raw_clicks", "clickstream", "articles", "labels"]);
    let outputs = names(&["orders", "clickstream", "features", "vectors", "model"]);
    let sql = |name: &str| SqlFile::Text(name.to_owned(), "SELECT 1".to_owned());
    let around = Around { inputs: &inputs, outputs: &outputs, sql: &sql };
    let pipelines: Vec<Pipeline> =
        documents.iter().filter_map(|document| read::pipeline(document, &sink, &around).pipeline).collect();
    assert_eq!(sink.into_found(), []);
    let kinds: Vec<PipelineKind> = pipelines.iter().map(Pipeline::kind).collect();
    assert_eq!(kinds, [Batch, Stream, Feature, Embedding, Training]);
    insta::assert_json_snapshot!(pipelines);
}

/// The windows that the documentation shows.
#[test]
fn the_documented_windows_are_read() {
    let page = std::fs::read_to_string(support::root().join("docs/pipelines.md")).expect("the page");
    let block =
        page.split("### Which partitions of an input").nth(1).and_then(|rest| rest.split("```yaml\n").nth(1));
    let block = block.and_then(|rest| rest.split("```").next()).expect("a YAML block");
    let (documents, found) = parse("pipeline.yaml", block);
    assert_eq!(found, []);
    let names = |names: &[&str]| -> Vec<PortName> {
        names.iter().map(|it| PortName::new(*it).expect("name")).collect()
    };
    let (inputs, outputs) = (names(&["orders", "targets"]), names(&["totals"]));
    let sql = |name: &str| SqlFile::Text(name.to_owned(), "SELECT 1".to_owned());
    let around = Around { inputs: &inputs, outputs: &outputs, sql: &sql };
    let sink = Sink::new("pipeline.yaml");
    let pipeline = read::pipeline(&documents[0], &sink, &around).pipeline;
    assert_eq!(sink.into_found(), []);
    let Some(Pipeline::Batch(batch)) = pipeline else { panic!("{pipeline:?}") };
    insta::assert_json_snapshot!(batch.inputs, @r#"
    {
      "orders": {},
      "targets": {
        "from": "-1mo",
        "at_least": 20
      }
    }
    "#);
}

/// Every way in which a window cannot be meant is told, with what is.
#[test]
fn windows_that_cannot_be_meant_are_told() {
    let files = |grain: &str, start: &str, window: &str| {
        let mut files = support::folder(&support::root().join("tests/fixtures/bad/missing_column"));
        let edit = |files: &mut BTreeMap<String, Loaded>, file: &str, from: &str, to: &str| {
            let text = files[file].text.clone().expect("text").replacen(from, to, 1);
            files.insert(file.to_owned(), Loaded { text: Ok(text), oid: "x".into() });
        };
        let cut = format!("every: {grain}, start: {start}");
        edit(&mut files, "domains/shop/items/pipeline.yaml", "every: day, start: 2026-08-01", &cut);
        let inputs = format!("inputs: {{items: {window}}}");
        edit(&mut files, "domains/shop/totals/pipeline.yaml", "lookback: 2d", &inputs);
        files
    };
    let told = |grain: &str, start: &str, window: &str| -> Vec<String> {
        let findings = load(&files(grain, start, window)).findings;
        let of_it = findings.into_iter().filter(|it| it.file.ends_with("totals/pipeline.yaml"));
        of_it.map(|it| format!("{} {}", it.code.id(), it.message)).collect()
    };
    for good in [
        "{partitions: same}",
        "{partitions: {from: -1d, to: -1d}}",
        "{partitions: {from: -1mo}, wait: {at_least: 30}}",
        "{partitions: {to: 2w}}",
    ] {
        assert_eq!(told("day", "2026-08-01", good), Vec::<String>::new(), "{good}");
    }
    let bad = [
        ("day", "2026-08-01", "{partitions: {from: -3h}}"),
        ("day", "2026-08-01", "{partitions: {to: -1d}}"),
        ("day", "2026-08-01", "{partitions: {from: 1mo, to: 2w}}"),
        ("day", "2026-08-01", "{partitions: {from: -6d}, wait: {at_least: 8}}"),
        ("day", "2026-08-01", "{partitions: same, wait: {at_least: 0}}"),
        ("day", "2026-08-01", "{partitions: {from: -7}}"),
        ("day", "2026-08-01", "{partitions: all}"),
        ("day", "2026-08-01", "{wait: {at_least: 1}}"),
        ("week", "2026-08-03", "{partitions: {from: -3d}}"),
        ("month", "2026-08", "{partitions: {from: -30d}}"),
    ];
    let found: Vec<String> =
        bad.iter().flat_map(|(grain, start, window)| told(grain, start, window)).collect();
    insta::assert_snapshot!(found.join("\n"), @"
    HM-M033 `from: -3h` is no whole number of the input's partitions, one every day: write it in d, w or mo
    HM-M033 the window from 0d to -1d has no length: it begins `from` after the partition's beginning and ends `to` after its end, so that {from: -1d, to: -1d} is the day before
    HM-M033 the window from 1mo to 2w has no length: it begins `from` after the partition's beginning and ends `to` after its end, so that {from: -1d, to: -1d} is the day before
    HM-M033 `at_least: 8` is more than the 7 partitions that the window ever holds
    HM-M023 `at_least` is a number of partitions, from 1; leave `inputs` out to read all that is there
    HM-M015 `-7` is no distance from a partition: expected a whole number of h, d, w or mo within a century, such as `-7d` or `-1mo`
    HM-Y010 `partitions` wants `same`, or borders such as `{from: -7d, to: 0d}`
    HM-Y009 `partitions` is missing
    HM-M033 `from: -3d` is no whole number of the input's partitions, one every week: write it in w
    HM-M033 `from: -30d` is no whole number of the input's partitions, one every month: write it in mo
    ");
}

/// Lists of values that cannot be meant are told, with what is.
#[test]
fn values_that_cannot_be_meant_are_told() {
    let told = |kind: &str, partition: &str, more: &str| -> Vec<String> {
        let mut files = support::folder(&support::root().join("tests/fixtures/bad/missing_column"));
        let mut edit = |file: &str, from: &str, to: &str| {
            let text = files[file].text.clone().expect("text").replacen(from, to, 1);
            files.insert(file.to_owned(), Loaded { text: Ok(text), oid: "x".into() });
        };
        let cut = "{by: sold_on, every: day, start: 2026-08-01}";
        edit("domains/shop/totals/pipeline.yaml", cut, partition);
        edit("domains/shop/totals/pipeline.yaml", "lookback: 2d", more);
        edit("domains/shop/totals/totals.odcs.yaml", "name: sold_on, logicalType: date", kind);
        let findings = load(&files).findings;
        let of_it = findings.into_iter().filter(|it| it.file.ends_with("totals/pipeline.yaml"));
        of_it.map(|it| format!("{} {}", it.code.id(), it.message)).collect()
    };
    let (text, number) = ("name: sold_on, logicalType: string", "name: sold_on, logicalType: integer");
    for (kind, good) in [
        (text, "{by: sold_on, values: [de, at, NO]}"),
        (text, "{by: sold_on, values: [1, 07]}"),
        (number, "{by: sold_on, values: [7, -1]}"),
    ] {
        assert_eq!(told(kind, good, ""), Vec::<String>::new(), "{good}");
    }
    let one = "{by: sold_on, values: [de]}";
    let found: Vec<String> = [
        (text, "{by: sold_on, values: []}", ""),
        (text, "{by: sold_on, values: de}", ""),
        (text, "{by: sold_on, values: [[de]]}", ""),
        (text, "{by: sold_on, values: [de, at, de]}", ""),
        (text, "{by: sold_on, values: ['']}", ""),
        (text, "{by: sold_on, values: ['a,b']}", ""),
        (number, "{by: sold_on, values: [07]}", ""),
        ("name: sold_on, logicalType: date", one, ""),
        (text, "{by: sold_on, values: [de], start: 2026-08-01, timezone: UTC}", ""),
        (text, one, "lookback: 2d"),
        (text, one, "backfill: {chunk: 2d, order: newest_first, concurrency: 2}"),
        (text, one, "inputs: {items: {partitions: same}}"),
    ]
    .into_iter()
    .flat_map(|(kind, partition, more)| told(kind, partition, more))
    .collect();
    insta::assert_snapshot!(found.join("\n"), @"
    HM-M040 an output is cut by at least one value
    HM-Y008 `values` wants a list of values, such as `[at, de, it]`, or `{from: INPUT.COLUMN}`, this is text
    HM-Y008 `values` wants a list of texts or whole numbers, this is a list
    HM-M040 `de` is there twice
    HM-M040 `` cannot be the key of a partition: it is empty
    HM-M040 `a,b` cannot be the key of a partition: commas stand between partitions on the command line
    HM-M040 `07` is no whole number as the column `sold_on` holds them
    HM-M040 column `sold_on` is neither a string nor an integer, so that none of its values can be the key of a partition
    HM-M041 `start` belongs to a calendar, and `values` cuts by values: give one of the two
    HM-M041 `timezone` belongs to a calendar, and `values` cuts by values: give one of the two
    HM-M041 `lookback` has no meaning where partitions are values: no value is ever closed, newer rows of an input always reopen it
    HM-M041 `chunk` has no meaning where partitions are values: each is computed by a step of its own
    HM-M041 `order` has no meaning where partitions are values: none is newer than another
    HM-M041 the output is cut by values, and a window moves the borders of a calendar: leave the port out of `inputs`; of an input that has the same list by the same column each value reads its own by itself, of any other all
    ");
}

/// Columns in which no values can be looked for are told, with what is.
#[test]
fn values_that_cannot_be_looked_for_are_told() {
    let told = |partition: &str, own: &str, theirs: &str, feed: &str| -> Vec<String> {
        let mut files = support::folder(&support::root().join("tests/fixtures/bad/missing_column"));
        let mut edit = |file: &str, from: &str, to: &str| {
            let text = files[file].text.clone().expect("text").replacen(from, to, 1);
            files.insert(file.to_owned(), Loaded { text: Ok(text), oid: "x".into() });
        };
        let cut = "{by: sold_on, every: day, start: 2026-08-01}";
        edit("domains/shop/totals/pipeline.yaml", cut, partition);
        edit("domains/shop/totals/pipeline.yaml", "lookback: 2d", "");
        edit("domains/shop/totals/totals.odcs.yaml", "name: sold_on, logicalType: date", own);
        edit("domains/shop/items/items.odcs.yaml", "name: sold_on, logicalType: date", theirs);
        if !feed.is_empty() {
            edit("domains/shop/totals/product.odps.yaml", "contractId: shop/items.items", feed);
            let contract = files["domains/shop/items/items.odcs.yaml"].text.clone().expect("text");
            let raw = Loaded { text: Ok(contract), oid: "x".into() };
            files.insert("domains/shop/totals/items.odcs.yaml".to_owned(), raw);
        }
        let findings = load(&files).findings;
        let of_it = findings.into_iter().filter(|it| it.file.ends_with("totals/pipeline.yaml"));
        let near = |help: &str| if help.starts_with("did you") { format!("; {help}") } else { String::new() };
        of_it.map(|it| format!("{} {}{}", it.code.id(), it.message, near(&it.help))).collect()
    };
    let (text, number, date) = (
        "name: sold_on, logicalType: string",
        "name: sold_on, logicalType: integer",
        "name: sold_on, logicalType: date",
    );
    let good = "{by: sold_on, values: {from: items.sold_on}}";
    let topic = "customProperties: [{property: hydromesh.topic, value: sales}]";
    let folder = "customProperties: [{property: hydromesh.files, value: '*.csv'}]";
    for (own, feed) in [(text, ""), (number, ""), (text, folder)] {
        assert_eq!(told(good, own, own, feed), Vec::<String>::new(), "{own} {feed}");
    }
    let found: Vec<String> = [
        ("{by: sold_on, values: {from: items}}", text, text, ""),
        ("{by: sold_on, values: {from: items.}}", text, text, ""),
        ("{by: sold_on, values: {from: item.sold_on}}", text, text, ""),
        ("{by: sold_on, values: {from: items.soldon}}", text, text, ""),
        ("{by: sold_on, values: {form: items.sold_on}}", text, text, ""),
        ("{by: sold_on, values: {from: items.sold_on, most: 3}}", text, text, ""),
        ("{by: sold_on, values: {from: items.sold_on}, every: day}", text, text, ""),
        (good, text, date, ""),
        (good, date, text, ""),
        (good, text, number, ""),
        (good, text, text, topic),
        (good, text, "name: sold_on, logicalType: string, classification: pii", ""),
        (good, "name: sold_on, logicalType: string, classification: restricted", text, ""),
    ]
    .into_iter()
    .flat_map(|(partition, own, theirs, feed)| told(partition, own, theirs, feed))
    .collect();
    insta::assert_snapshot!(found.join("\n"), @"
    HM-M042 `items` is no column of an input: expected `INPUT.COLUMN`
    HM-M042 `items.` is no column of an input: expected `INPUT.COLUMN`
    HM-M010 `item` is no input port of the product; did you mean `items`?
    HM-M012 the contract of shop/items.items has no column `soldon`; did you mean `sold_on`?
    HM-Y009 `from` is missing
    HM-Y007 unknown key `form`; did you mean `from`?
    HM-Y007 unknown key `most`
    HM-M041 `every` belongs to a calendar, and `values` cuts by values: give one of the two
    HM-M042 `items.sold_on` is neither a string nor an integer, so that none of its values can be the key of a partition
    HM-M040 column `sold_on` is neither a string nor an integer, so that none of its values can be the key of a partition
    HM-M042 `items.sold_on` is an integer, and the column `sold_on` is a string
    HM-M042 `items` is the topic sales, in which nothing can be looked for: read the table of a stream pipeline that archives it
    HM-M042 the values of `items.sold_on` are not for everybody, and would stand in the ledger, in messages and on the status site as names of partitions
    HM-M042 the values of `items.sold_on` are not for everybody, and would stand in the ledger, in messages and on the status site as names of partitions
    ");
}

/// The lists and columns of values that the documentation shows.
#[test]
fn the_documented_values_are_read() {
    let page = std::fs::read_to_string(support::root().join("docs/pipelines.md")).expect("the page");
    let read = |heading: &str| {
        let block = page.split(heading).nth(1).and_then(|rest| rest.split("```yaml\n").nth(1));
        let block = block.and_then(|rest| rest.split("```").next()).expect("a YAML block");
        let (documents, found) = parse("pipeline.yaml", block);
        assert_eq!(found, []);
        let ports = ["orders", "shops", "sales"].map(|name| PortName::new(name).expect("a name"));
        let sql = |name: &str| SqlFile::Text(name.to_owned(), "SELECT 1".to_owned());
        let around = Around { inputs: &ports, outputs: &ports, sql: &sql };
        let sink = Sink::new("pipeline.yaml");
        let pipeline = read::pipeline(&documents[0], &sink, &around).pipeline;
        assert_eq!(sink.into_found(), []);
        let Some(Pipeline::Batch(batch)) = pipeline else { panic!("{pipeline:?}") };
        serde_json::to_string(&batch.partition).expect("JSON")
    };
    let list = read("## Partitions that are values of a list");
    assert_eq!(list, r#"{"by":"region","values":["at","de","it"]}"#);
    let sought = read("### Values that are looked for");
    assert_eq!(sought, r#"{"by":"shop","values":{"from":"sales","column":"shop"}}"#);
}

/// The contract in the page is read as it stands there.
#[test]
fn the_documented_rules_about_what_is_usual_are_read() {
    let page = std::fs::read_to_string(support::root().join("docs/pipelines.md")).expect("the page");
    let block = page.split("### What is usual").nth(1).and_then(|rest| rest.split("```yaml\n").nth(1));
    let block = block.and_then(|rest| rest.split("```").next()).expect("a YAML block");
    let text =
        format!("apiVersion: v3.2.0\nkind: DataContract\nid: a/b.c\nversion: 1.0.0\nstatus: active\n{block}");
    let (documents, found) = parse("orders.odcs.yaml", &text);
    assert_eq!(found, []);
    let sink = Sink::new("orders.odcs.yaml");
    let contract = read::contract(&documents[0], &sink, Some("a/b.c")).expect("a contract");
    assert_eq!(sink.into_found(), []);
    let rules: Vec<&str> = contract.quality.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(rules, ["usual_null_values_email", "usual_row_count"]);
}

#[test]
fn a_price_is_read_to_a_millionth_and_what_is_none_is_told() {
    let priced = |cost: &str| {
        let text = format!(
            "apiVersion: hydromesh/v1\nkind: Mesh\nname: m\nenvironments: {{dev: {{ref: main, cost: {cost}}}}}\n"
        );
        let file = hydromesh_core::model::Loaded { text: Ok(text), oid: "1".to_owned() };
        let loaded = load(&[("mesh.yaml".to_owned(), file)].into());
        let found: Vec<String> = loaded.findings.iter().map(|it| it.message.clone()).collect();
        (loaded.mesh.environments["dev"].cost.clone(), found.join("; "))
    };
    let (price, found) = priced("{per_hour: 0.40, currency: EUR}");
    let price = price.expect("a price");
    assert_eq!((price.per_hour_micro, price.currency.as_str(), found.as_str()), (400_000, "EUR", ""));
    assert_eq!(price.spoken(630_000), "EUR 0.07");
    for (cost, wanted) in [
        ("{per_hour: -1, currency: EUR}", "what an hour of one step costs"),
        ("{currency: EUR}", "what an hour of one step costs"),
        ("{per_hour: 1, currency: euro}", "`euro` is no currency"),
        ("{per_hour: 1}", "currency"),
        ("{per_hour: 1, currency: EUR, per_day: 2}", "per_day"),
    ] {
        let (price, found) = priced(cost);
        assert!(found.contains(wanted), "{cost}: {found}");
        assert_eq!(price.is_some(), cost.contains("per_day"), "{cost}");
    }
}
