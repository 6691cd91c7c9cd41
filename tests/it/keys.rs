//! Products that are cut by the values of a column of an input, through the binary: looked for, computed, asked for, shown.

use hydromesh::fault::VARIABLE;
use serde_json::json;

use crate::cut::{Mesh, contract, pipeline, product};
use crate::support::{edit, text};

const RAW: &str = "domains/shop/sales/raw.csv";
const DIRECT: &str = "domains/shop/direct/raw.csv";
const PIPELINE: &str = "domains/shop/shops/pipeline.yaml";
const SOUGHT: &str = "values: {from: sales.shop}";

/// Sales out of files, shop by shop, and whoever adds all of them up.
fn shops() -> Mesh {
    let contract = |name: &str| contract(name, "shop");
    let raw = crate::cut::RAW;
    let (cut, own) =
        (format!("partition: {{by: shop, {SOUGHT}}}\n"), "partition: {by: shop, values: {from: raw.shop}}\n");
    let (by_shop, all) = (
        "SELECT shop, sum(amount) AS amount FROM sales GROUP BY shop",
        "SELECT 'all' AS shop, sum(amount) AS amount FROM shops",
    );
    Mesh::of(&[
        ("domains/shop/sales/product.odps.yaml", product(raw, "sales")),
        ("domains/shop/sales/raw.odcs.yaml", contract("raw")),
        ("domains/shop/sales/sales.odcs.yaml", contract("sales")),
        ("domains/shop/sales/pipeline.yaml", pipeline("sales", "SELECT shop, amount FROM raw", "")),
        (RAW, "shop,amount\nbern,1\nchur,2\nbern,4\n,8\n".to_owned()),
        (
            "domains/shop/shops/product.odps.yaml",
            product("{name: sales, contractId: shop/sales.sales}", "shops"),
        ),
        ("domains/shop/shops/shops.odcs.yaml", contract("shops")),
        (PIPELINE, pipeline("shops", by_shop, &cut)),
        ("domains/shop/direct/product.odps.yaml", product(raw, "direct")),
        ("domains/shop/direct/raw.odcs.yaml", contract("raw")),
        ("domains/shop/direct/direct.odcs.yaml", contract("direct")),
        ("domains/shop/direct/pipeline.yaml", pipeline("direct", "SELECT shop, amount FROM raw", own)),
        (DIRECT, "shop,amount\nbern,1\n".to_owned()),
        ("domains/shop/all/product.odps.yaml", product("{name: shops, contractId: shop/shops.shops}", "all")),
        ("domains/shop/all/all.odcs.yaml", contract("all")),
        ("domains/shop/all/pipeline.yaml", pipeline("all", all, "")),
    ])
}

/// Lets a controller do what is to be done, up to a point; returns whether it came there and died.
fn dies_at(mesh: &Mesh, point: &str) -> bool {
    let ended = mesh.up().env(VARIABLE, point).output().expect("it starts");
    ended.status.code().is_none()
}

fn push(mesh: &Mesh, file: &str, from: &str, to: &str) {
    edit(&mesh.repo.folder.join(file), from, to);
    mesh.repo.commit(to);
}

const SHOPS: &str = "SELECT shop, amount FROM \"shop/shops.shops\" ORDER BY shop";

#[test]
fn values_are_looked_for_computed_asked_for_and_shown() {
    let mesh = shops();
    let plan = mesh.ask(&["plan", text(&mesh.repo.folder)]);
    plan.says("shops: a partition for each value of sales.shop, which are looked for first");
    mesh.once();
    assert_eq!(
        mesh.rows(SHOPS),
        [r#"{"shop":"bern","amount":5}"#, r#"{"shop":"chur","amount":2}"#],
        "one partition for each"
    );
    // A look and a step for each value; the reader of all waits for them.
    assert_eq!((mesh.runs("shop/shops"), mesh.runs("shop/direct"), mesh.runs("shop/all")), (3, 2, 1));
    let shown = mesh.ask(&["show", "shop/shops"]).ends_with(0);
    shown.says("a partition for each shop: bern, chur (found in sales.shop)");
    shown.says("1 row there has no value that can be a partition");
    let shown = mesh.ask(&["show", "shop/shops", "--format", "json"]).ends_with(0).json();
    let port = &shown["ports"][0];
    assert_eq!(port["values"], json!(["bern", "chur"]), "{shown:#}");
    assert_eq!(port["values_found"]["from"], "sales.shop");
    assert_eq!(port["values_found"]["rows_without"], 1);
    mesh.ask(&["runs", "shop/shops"]).ends_with(0).says("shop/shops:shops@keys");
    // Nothing is looked at once more.
    mesh.once();
    assert_eq!((mesh.runs("shop/shops"), mesh.runs("shop/direct"), mesh.runs("shop/all")), (3, 2, 1));
    // Another shop comes and one leaves: it has its partition by itself, and nobody takes the other one's away.
    push(&mesh, RAW, "chur,2\n", "arosa,16\n");
    mesh.once();
    let after = [r#"{"shop":"arosa","amount":16}"#, r#"{"shop":"bern","amount":5}"#];
    assert_eq!(mesh.rows(SHOPS), after);
    mesh.ask(&["show", "shop/shops"]).ends_with(0).says("a partition for each shop: arosa, bern, chur");
    push(&mesh, DIRECT, "bern,1\n", "bern,1\nthun,2\n");
    mesh.once();
    assert_eq!(mesh.rows("SELECT shop FROM \"shop/direct.direct\" ORDER BY shop").len(), 2);
    // By name, and no other way.
    mesh.ask(&["backfill", "shop/shops", "--partitions", "bern", "--dry-run"])
        .ends_with(0)
        .says("1 partition in 1 chunk");
    mesh.ask(&["backfill", "shop/shops", "--partitions", "arossa"])
        .ends_with(2)
        .says("did you mean `arosa`?");
    mesh.ask(&["backfill", "shop/shops"]).ends_with(2);
    let before = mesh.runs("shop/shops");
    let asked =
        mesh.ask(&["backfill", "shop/shops", "--partitions", "bern", "--format", "json"]).ends_with(0);
    assert_eq!(asked.json()["answer"]["answer"], "shop/shops is computed again: bern");
    assert_eq!(mesh.runs("shop/shops"), before + 1);
    // The same values as a list are the same partitions.
    push(&mesh, PIPELINE, SOUGHT, "values: [arosa, bern, chur]");
    mesh.once();
    assert_eq!(mesh.runs("shop/shops"), before + 1);
    push(&mesh, PIPELINE, "values: [arosa, bern, chur]", SOUGHT);
    mesh.once();
    assert_eq!(mesh.runs("shop/shops"), before + 1, "what was found before is known, of the same rows");
}

#[test]
fn a_controller_that_dies_around_a_look_converges() {
    let mesh = shops();
    mesh.once();
    let mut died = 0;
    for (at, shop) in ["basel", "davos", "ems", "flims"].into_iter().enumerate() {
        push(&mesh, RAW, "shop,amount\n", &format!("shop,amount\n{shop},1\n"));
        // Further on each time, and from there on once more: before the look, in it, after it.
        for point in ["ledger.before-append", "ledger.after-append", "control.before-effect"] {
            died += usize::from(dies_at(&mesh, &format!("{point}:{}", 3 + 2 * at)));
        }
        mesh.once();
        let shops = mesh.rows(SHOPS);
        assert!(shops.contains(&format!("{{\"shop\":\"{shop}\",\"amount\":1}}")), "{shops:?}");
        assert_eq!(shops.len(), 3 + at);
    }
    assert!(died >= 8, "{died} of 12 died");
}

#[test]
fn too_many_values_are_told_and_the_known_ones_go_on() {
    let mesh = shops();
    mesh.once();
    let many: String = (0..1_000).fold(String::new(), |text, at| text + &format!("s{at},1\n"));
    push(&mesh, RAW, "chur,2\n", &format!("chur,3\n{many}"));
    let _ = mesh.up().output().expect("it starts");
    mesh.ask(&["runs", "shop/shops"])
        .ends_with(0)
        .says("HM-X014: `sales.shop` has 1002 values, more than the 1000 that an output can be cut by");
    assert_eq!(mesh.rows(SHOPS), [r#"{"shop":"bern","amount":5}"#, r#"{"shop":"chur","amount":3}"#]);
    assert_eq!(mesh.rows("SELECT amount FROM \"shop/all.all\""), [r#"{"amount":8}"#], "and so do readers");
    mesh.ask(&["why-not", "shop/shops"]).ends_with(0).says("HM-X014");
}
