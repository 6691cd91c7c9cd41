//! A product that is cut by the values of a list, through the binary: planned, computed, asked for, shown.

use std::path::PathBuf;

use serde_json::json;

use crate::support::{Ran, Repo, edit, run, text};

struct Mesh {
    _home: tempfile::TempDir,
    repo: Repo,
    state: PathBuf,
    policies: PathBuf,
}

const PIPELINE: &str = "domains/shop/orders/pipeline.yaml";

impl Mesh {
    /// Orders by region, and whoever sums them region by region.
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("repo");
        let contract = |name: &str| {
            format!(
                "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: {name}\n  properties:\n  - {{name: region, logicalType: string, classification: public}}\n  - {{name: amount, logicalType: integer}}\n"
            )
        };
        let pipeline = |output: &str, sql: &str| {
            format!(
                "apiVersion: hydromesh/v1\nkind: BatchPipeline\noutput: {output}\nsql: {sql}\npartition: {{by: region, values: [it, de]}}\n"
            )
        };
        let product = |input: &str, output: &str| {
            format!(
                "apiVersion: v1.1.0\nkind: DataProduct\ninputPorts:\n- {input}\noutputPorts:\n- {{name: {output}}}\n"
            )
        };
        let raw = "{name: raw, customProperties: [{property: hydromesh.files, value: '*.csv'}]}";
        for (file, content) in [
            ("mesh.yaml", "apiVersion: hydromesh/v1\nkind: Mesh\nname: m\nenvironments: {dev: {ref: refs/heads/main}}\n".to_owned()),
            ("domains/shop/domain.yaml", "apiVersion: hydromesh/v1\nkind: Domain\nowners: [a@example.com]\n".to_owned()),
            ("domains/shop/orders/product.odps.yaml", product(raw, "orders")),
            ("domains/shop/orders/raw.odcs.yaml", contract("raw")),
            ("domains/shop/orders/orders.odcs.yaml", contract("orders")),
            (PIPELINE, pipeline("orders", "SELECT region, amount FROM raw")),
            ("domains/shop/orders/raw.csv", "region,amount\nde,1\nit,2\nde,4\nch,8\nch,16\n".to_owned()),
            ("domains/shop/totals/product.odps.yaml", product("{name: orders, contractId: shop/orders.orders}", "totals")),
            ("domains/shop/totals/totals.odcs.yaml", contract("totals")),
            (
                "domains/shop/totals/pipeline.yaml",
                pipeline("totals", "SELECT region, sum(amount) AS amount FROM orders GROUP BY region"),
            ),
        ] {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        let repo = Repo::around(&folder);
        let (state, policies) = (home.path().join("state"), home.path().join("policies"));
        std::fs::create_dir(&policies).expect("a folder");
        let rule = "# METADATA\n# title: Names\npackage hydromesh.deploy.names\n\n\
                    deny contains {\"rule\": \"no-secrets\", \"msg\": \"nothing secret here\", \"remediation\": \"call it otherwise\"} if {\n\
                    \tinput.product.name == \"secret\"\n}\n";
        std::fs::write(policies.join("names.rego"), rule).expect("written");
        Self { _home: home, repo, state, policies }
    }

    fn ask(&self, args: &[&str]) -> Ran {
        run(&[args, &["--state", text(&self.state)]].concat())
    }

    /// Lets a controller do what is to be done.
    fn once(&self) {
        let repo = ["--repo", text(&self.repo.folder), "--policies", text(&self.policies)];
        let _ = self.ask(&[&["up", "--once", "--listen", "127.0.0.1:0"], &repo[..]].concat()).ends_with(0);
    }

    /// Rows of a table as lines.
    fn rows(&self, sql: &str) -> Vec<String> {
        let rows = self.ask(&["query", sql, "--format", "json"]).ends_with(0).json();
        rows.as_array().expect("rows").iter().map(ToString::to_string).collect()
    }

    fn runs(&self, product: &str) -> u64 {
        let runs = self.ask(&["runs", product, "--format", "json"]).ends_with(0).json();
        runs["ended_in_all"].as_u64().expect("a number")
    }
}

#[test]
fn a_list_is_planned_computed_asked_for_and_shown_value_by_value() {
    let mesh = Mesh::new();
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
