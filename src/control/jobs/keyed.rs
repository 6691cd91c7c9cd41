//! What looks for values find: in real tables of both formats and in files, strings and integers.

use std::sync::Arc;

use hydromesh_core::ledger::{Fact, KeysFound, RunOutcome};

use super::listed::{RAW, around, showing};
use super::picked::World;
use super::*;
use crate::apply::Blobs;

/// Sales of shops; some rows name none, or one that cannot be the key of a partition.
struct Sales;

impl Blobs for Sales {
    fn read(&self, oid: &str) -> std::io::Result<Vec<u8>> {
        let mut text = "region,shop,amount\nde,7,1\nit,10,2\nde,10,4\n,,8\n\"a,b\",7,16\n".to_owned();
        if oid == "many" {
            text.extend((0..1_200).map(|at| format!("r{at},{at},1\n")));
        }
        Ok(text.into_bytes())
    }
}

/// A product that shows all of what it reads, cut as said.
fn copying(name: &str, input: &str, partition: &str, format: &str) -> Vec<(String, String)> {
    showing(name, RAW, ("region, shop, amount", input), partition, format)
}

fn by(column: &str, input: &str) -> String {
    format!("partition: {{by: {column}, values: {{from: {input}.{column}}}}}\n")
}

async fn world() -> World {
    let mut files = around();
    files.extend(copying("sales", "raw", "", "delta"));
    files.extend(copying("icy", "raw", "", "iceberg"));
    files.extend(copying("regions", "sales", &by("region", "sales"), "delta"));
    files.extend(copying("icyregions", "icy", &by("region", "icy"), "iceberg"));
    files.extend(copying("shops", "sales", &by("shop", "sales"), "iceberg"));
    files.extend(copying("filed", "raw", &by("region", "raw"), "delta"));
    World::of(Arc::new(Sales), files).await
}

async fn look(world: &mut World, product: &str) -> KeysFound {
    let (outcome, facts) = world.attempt_of(product, Work::Keys).await;
    assert!(matches!(outcome, RunOutcome::Succeeded { .. }), "{product}: {outcome:?}");
    match facts.as_slice() {
        [Fact::Keys(found)] => found.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn values_are_found_in_tables_of_both_formats_and_in_files() {
    let mut world = world().await;
    for product in ["sales", "icy"] {
        let (outcome, _) = world.attempt_of(product, Work::Whole).await;
        assert!(matches!(outcome, RunOutcome::Succeeded { .. }), "{outcome:?}");
    }
    for (product, values, without) in [
        ("regions", ["de", "it"], 2),
        ("icyregions", ["de", "it"], 2),
        ("shops", ["10", "7"], 1),
        ("filed", ["de", "it"], 2),
    ] {
        let found = look(&mut world, product).await;
        assert_eq!((found.added.as_slice(), found.without), (&values.map(str::to_owned)[..], without));
        // What is known is no news, and the look is told of all the same.
        let again = look(&mut world, product).await;
        assert_eq!(again.added, Vec::<String>::new());
        let port = format!("shop/{product}.{product}").parse().expect("a port");
        assert_eq!(world.ledger.values_of(&port).expect("values").to_vec(), values);
    }
    let found = look(&mut world, "regions").await;
    let input: PortId = "shop/sales.sales".parse().expect("a port");
    assert_eq!(
        (found.looked.version, found.looked.definition.as_str()),
        (world.ledger.ports[&input].version, "d")
    );
    // Each of them is a partition, and the rows of none are told.
    let (outcome, facts) = world.attempt("regions", "de", "de").await;
    assert!(matches!(outcome, RunOutcome::Succeeded { .. }), "{outcome:?}");
    let told = facts.iter().find_map(|fact| match fact {
        Fact::Quality { measure, threshold, .. } => Some((*measure, threshold.as_str())),
        _ => None,
    });
    let threshold = "no row without a value, or of one that was not found in the input (found `a,b`, null)";
    assert_eq!(told, Some((Some(2.0), threshold)));
    let sum = world.select("regions", "SELECT region, sum(amount) AS sum FROM regions GROUP BY region").await;
    assert!(sum.contains("| de     | 5   |"), "{sum}");
    let (outcome, _) = world.attempt("shops", "8", "8").await;
    assert!(matches!(&outcome, RunOutcome::Failed { code, .. } if code == "HM-X008"), "{outcome:?}");
}

#[tokio::test]
async fn too_many_values_are_an_error_that_records_nothing() {
    let mut world = world().await;
    let id = "shop/filed".parse().expect("a product");
    let _ = look(&mut world, "filed").await;
    let mut product = world.ledger.deployed[&id].product.clone();
    product.files.values_mut().for_each(|oid| *oid = "many".to_owned());
    world.deploy(product, BTreeSet::new());
    let (outcome, facts) = world.attempt_of("filed", Work::Keys).await;
    let RunOutcome::Failed { code, message, .. } = outcome else { panic!("{outcome:?}") };
    let has = "`raw.region` has 1202 values, more than the 1000 that an output can be cut by";
    assert_eq!((code.as_str(), message.as_str(), facts.len()), ("HM-X014", has, 0));
    let port = "shop/filed.filed".parse().expect("a port");
    assert_eq!(world.ledger.values_of(&port).expect("values").to_vec(), ["de", "it"]);
    // Those go on.
    let (outcome, _) = world.attempt("filed", "de", "de").await;
    assert!(matches!(outcome, RunOutcome::Succeeded { .. }), "{outcome:?}");
}
