//! What steps of products do that are cut by the values of a list: real tables of both formats, strings and integers.

use std::sync::Arc;

use hydromesh_core::ledger::{Fact, RunOutcome};
use hydromesh_core::model::QualitySeverity;

use super::picked::World;
use super::*;
use crate::apply::Blobs;

/// Orders of three regions, of one that is on no list, and of none.
struct Orders;

impl Blobs for Orders {
    fn read(&self, _oid: &str) -> std::io::Result<Vec<u8>> {
        let text = "region,shop,amount\nde,7,1\nit,10,2\nde,10,4\nfr,7,8\n,7,16\nit,7,32\nO'Neil / x,-1,64\n";
        Ok(text.as_bytes().to_vec())
    }
}

/// Columns of the files `raw`.
pub(super) const RAW: &str = "  - {name: region, logicalType: string, classification: public}\n  - {name: shop, logicalType: integer}\n  - {name: amount, logicalType: integer}\n";

/// What is around the products of a mesh.
pub(super) fn around() -> Vec<(String, String)> {
    let fixed = [
        ("mesh.yaml", "apiVersion: hydromesh/v1\nkind: Mesh\nname: m\nenvironments: {dev: {ref: main}}\n"),
        ("domains/shop/domain.yaml", "apiVersion: hydromesh/v1\nkind: Domain\nowners: [a@example.com]\n"),
    ];
    fixed.map(|(path, text)| (path.to_owned(), text.to_owned())).into()
}

/// A product that shows some columns of what it reads, the files `raw` or the port of another product; its contract has these fields.
pub(super) fn showing(
    name: &str,
    fields: &str,
    (columns, input): (&str, &str),
    partition: &str,
    format: &str,
) -> Vec<(String, String)> {
    let of = |file: &str| format!("domains/shop/{name}/{file}");
    let contract = |name: &str, fields: &str| {
        format!(
            "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: {name}\n  properties:\n{fields}"
        )
    };
    let port = if input == "raw" {
        "{name: raw, customProperties: [{property: hydromesh.files, value: '*.csv'}]}".to_owned()
    } else {
        format!("{{name: {input}, contractId: shop/{input}.{input}}}")
    };
    let product = format!(
        "apiVersion: v1.1.0\nkind: DataProduct\ninputPorts:\n- {port}\noutputPorts:\n- {{name: {name}, customProperties: [{{property: hydromesh.format, value: {format}}}]}}\n"
    );
    let pipeline = format!(
        "apiVersion: hydromesh/v1\nkind: BatchPipeline\nname: make\noutput: {name}\nsql: SELECT {columns} FROM {input}\n{partition}"
    );
    let mut files = vec![
        (of("product.odps.yaml"), product),
        (of(&format!("{name}.odcs.yaml")), contract(name, fields)),
        (of("pipeline.yaml"), pipeline),
    ];
    if input == "raw" {
        files.extend([(of("raw.odcs.yaml"), contract("raw", RAW)), (of("raw.csv"), String::new())]);
    }
    files
}

/// A product that is cut by a column with these values, and shows what it sees.
fn summing(name: &str, by: (&str, &str), values: &str, from: &str, format: &str) -> Vec<(String, String)> {
    let (by, kind) = by;
    let fields = format!(
        "  - {{name: {by}, logicalType: {kind}, classification: public}}\n  - {{name: amount, logicalType: integer}}\n"
    );
    let partition = format!("partition: {{by: {by}, values: {values}}}\n");
    showing(name, &fields, (&format!("{by}, amount"), from), &partition, format)
}

async fn world() -> World {
    let mut files = around();
    let (region, shop) = (("region", "string"), ("shop", "integer"));
    files.extend(summing("delta", region, "[it, de, \"O'Neil / x\"]", "raw", "delta"));
    files.extend(summing("iceberg", region, "[it, de, \"O'Neil / x\"]", "raw", "iceberg"));
    files.extend(summing("shops", shop, "[7, 10, -1]", "raw", "delta"));
    files.extend(summing("icyshops", shop, "[7, 10, -1]", "raw", "iceberg"));
    let mut usual = summing("usual", region, "[it, de, \"O'Neil / x\"]", "raw", "delta");
    let rule =
        "  quality: [{type: custom, engine: hydromesh, implementation: {usual: rowCount}}]\n  properties:\n";
    usual[1].1 = usual[1].1.replacen("  properties:\n", rule, 1);
    files.extend(usual);
    files.extend(summing("reader", region, "[de, it, \"O'Neil / x\"]", "delta", "delta"));
    World::of(Arc::new(Orders), files).await
}

/// Computes a value; returns the partitions that were published, and what was measured of rows without one.
async fn compute(world: &mut World, product: &str, value: &str) -> (Vec<String>, Vec<(f64, String)>) {
    let (outcome, facts) = world.attempt(product, value, value).await;
    assert!(matches!(outcome, RunOutcome::Succeeded { .. }), "{product} {value}: {outcome:?}");
    let (mut published, mut unlisted) = (Vec::new(), Vec::new());
    for fact in facts {
        match fact {
            Fact::Published(it) => published.extend(it.partition),
            Fact::Quality { rule, severity, measure, threshold, partition, .. } => {
                assert_eq!((rule.as_str(), severity), ("listed_values", QualitySeverity::Warning));
                assert_eq!(partition.as_deref(), Some(value));
                unlisted.push((measure.expect("measured"), threshold));
            }
            _ => {}
        }
    }
    (published, unlisted)
}

async fn shown(world: &World, product: &str, by: &str) -> Vec<String> {
    let sql = format!("SELECT {by}, sum(amount) AS amount FROM {product} GROUP BY {by} ORDER BY {by}");
    let text = world.select(product, &sql).await;
    let rows = text.lines().skip(3).filter(|line| line.starts_with("| "));
    rows.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn each_value_shows_its_own_rows_and_the_others_are_told() {
    let mut world = world().await;
    for product in ["delta", "iceberg"] {
        let told = (2.0, "no row of a value that is on no list (found `fr`, null)".to_owned());
        assert_eq!(compute(&mut world, product, "de").await, (vec!["de".to_owned()], vec![told.clone()]));
        assert_eq!(shown(&world, product, "region").await, ["| de | 5 |"]);
        let _ = compute(&mut world, product, "O'Neil / x").await;
        assert_eq!(compute(&mut world, product, "it").await.1, [told]);
        let all = ["| O'Neil / x | 64 |", "| de | 5 |", "| it | 34 |"];
        assert_eq!(shown(&world, product, "region").await, all, "{product}");
        // Again: the same rows once.
        let _ = compute(&mut world, product, "de").await;
        assert_eq!(shown(&world, product, "region").await, all, "{product}");
    }
}

#[tokio::test]
async fn integers_cut_tables_of_both_formats() {
    let mut world = world().await;
    for product in ["shops", "icyshops"] {
        for value in ["7", "-1", "10"] {
            assert!(compute(&mut world, product, value).await.1[0].0.abs() < f64::EPSILON);
        }
        let all = ["| -1 | 64 |", "| 7 | 57 |", "| 10 | 6 |"];
        assert_eq!(shown(&world, product, "shop").await, all, "{product}");
        let _ = compute(&mut world, product, "7").await;
        assert_eq!(shown(&world, product, "shop").await, all, "{product}");
    }
}

#[tokio::test]
async fn an_aligned_reader_has_nothing_to_tell_and_a_value_of_no_list_is_refused() {
    let mut world = world().await;
    let _ = compute(&mut world, "delta", "de").await;
    let reader = world.ledger.deployed[&"shop/reader".parse().expect("a product")].product.clone();
    let aligned =
        ("reader".to_owned().try_into().expect("a port"), "shop/delta.delta".parse().expect("a port"));
    world.deploy(reader, [aligned].into());
    assert_eq!(compute(&mut world, "reader", "de").await, (vec!["de".to_owned()], Vec::new()));
    assert_eq!(shown(&world, "reader", "region").await, ["| de | 5 |"]);
    let (outcome, _) = world.attempt("reader", "fr", "fr").await;
    assert!(matches!(&outcome, RunOutcome::Failed { code, .. } if code == "HM-X008"), "{outcome:?}");
}

#[tokio::test]
async fn a_value_is_compared_with_what_was_published_of_it() {
    let mut world = world().await;
    for value in ["de", "O'Neil / x"] {
        let (outcome, _) = world.attempt("usual", value, value).await;
        assert!(matches!(outcome, RunOutcome::Succeeded { .. }), "{value}: {outcome:?}");
    }
    let deployed = &world.ledger.deployed[&"shop/usual".parse().expect("a product")];
    let rows = |value: &str| -> Vec<u64> {
        let key = format!("shop/usual:make@{value}..{value}").parse().expect("a step");
        let (run, decision, reason) = ("run".to_owned(), "d".to_owned(), "a test".to_owned());
        let start = Start { run, key, attempt: 1, generation: 1, decision, reason };
        earlier(&start, &world.ledger, deployed).into_values().map(|it| it.rows).collect()
    };
    assert_eq!(["de", "O'Neil / x", "it"].map(rows), [vec![2], vec![1], vec![]]);
}
