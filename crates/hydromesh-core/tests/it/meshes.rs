//! Whole meshes: the example, the fixtures with one fault each, the documentation.

use hydromesh_core::diag::Severity;
use hydromesh_core::ids::PortName;
use hydromesh_core::model::read::{self, Around, SqlFile};
use hydromesh_core::model::{Pipeline, PipelineKind, load};
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
