//! A product that is cut by the values of a list, through the binary: planned, computed, asked for, shown.

use serde_json::json;

use crate::cut::{Mesh, RAW, contract, pipeline, product};
use crate::support::{edit, text};

const PIPELINE: &str = "domains/shop/orders/pipeline.yaml";

/// Orders by region, and whoever sums them region by region.
fn regions() -> Mesh {
    let cut = "partition: {by: region, values: [it, de]}\n";
    let contract = |name: &str| contract(name, "region");
    let sums = "SELECT region, sum(amount) AS amount FROM orders GROUP BY region";
    Mesh::of(&[
        ("domains/shop/orders/product.odps.yaml", product(RAW, "orders")),
        ("domains/shop/orders/raw.odcs.yaml", contract("raw")),
        ("domains/shop/orders/orders.odcs.yaml", contract("orders")),
        (PIPELINE, pipeline("orders", "SELECT region, amount FROM raw", cut)),
        ("domains/shop/orders/raw.csv", "region,amount\nde,1\nit,2\nde,4\nch,8\nch,16\n".to_owned()),
        (
            "domains/shop/totals/product.odps.yaml",
            product("{name: orders, contractId: shop/orders.orders}", "totals"),
        ),
        ("domains/shop/totals/totals.odcs.yaml", contract("totals")),
        ("domains/shop/totals/pipeline.yaml", pipeline("totals", sums, cut)),
    ])
}

#[test]
fn a_list_is_planned_computed_asked_for_and_shown_value_by_value() {
    let mesh = regions();
    mesh.once();
    let sums = "SELECT region, amount FROM \"shop/totals.totals\" ORDER BY region";
    assert_eq!(mesh.rows(sums).len(), 2);
    assert_eq!((mesh.runs("shop/orders"), mesh.runs("shop/totals")), (2, 2));
    let shown = mesh.ask(&["show", "shop/orders"]).ends_with(0);
    shown.says("a partition for each region: de, it");
    shown
        .says("listed_values: measured 2, must be no row of a value that is on no list (found `ch`) (tells)");
    // One more value, in another order: that one, and the same of its reader.
    for file in [PIPELINE, "domains/shop/totals/pipeline.yaml"] {
        edit(&mesh.repo.folder.join(file), "values: [it, de]", "values: [ch, it, de]");
    }
    mesh.repo.commit("Switzerland");
    let plan = mesh.ask(&["plan", text(&mesh.repo.folder), "--format", "json"]);
    let plan = plan.json();
    let change =
        plan["changes"].as_array().expect("changes").iter().find(|it| it["product"] == "shop/orders");
    let change = change.unwrap_or_else(|| panic!("{plan:#}"));
    assert_eq!(change["partitions"], json!({"shop/orders.orders": 1}), "{change:#}");
    mesh.once();
    assert_eq!((mesh.runs("shop/orders"), mesh.runs("shop/totals")), (3, 3));
    assert_eq!(mesh.rows(sums).len(), 3);
    // By name, and no other way.
    mesh.ask(&["backfill", "shop/orders", "--partitions", "de,ch", "--dry-run"])
        .ends_with(0)
        .says("2 partitions in 2 chunks");
    mesh.ask(&["backfill", "shop/orders", "--partitions", "ge"]).ends_with(2).says("has no partition `ge`");
    mesh.ask(&["backfill", "shop/orders", "--from", "a", "--to", "b"]).ends_with(2).says("--partitions");
    mesh.ask(&["backfill", "shop/orders"]).ends_with(2);
    let asked =
        mesh.ask(&["backfill", "shop/orders", "--partitions", "de,ch", "--format", "json"]).ends_with(0);
    assert_eq!(asked.json()["answer"]["answer"], "shop/orders is computed again: ch, de");
    assert_eq!(mesh.runs("shop/orders"), 5);
    // Taken off the list it stays readable.
    for file in [PIPELINE, "domains/shop/totals/pipeline.yaml"] {
        edit(&mesh.repo.folder.join(file), "values: [ch, it, de]", "values: [ch, it]");
    }
    mesh.repo.commit("No Germany");
    mesh.once();
    mesh.ask(&["show", "shop/orders"]).ends_with(0).says("readable, and no longer on the list: de");
    assert_eq!(mesh.rows(sums).len(), 3);
}
