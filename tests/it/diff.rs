//! `diff` of two commits of the example.

use serde_json::Value;

use crate::support::{Repo, copy, edit, example, run_in};

const CONTRACT: &str = "domains/commerce/orders/orders.odcs.yaml";

fn repo() -> (tempfile::TempDir, Repo, String) {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&example(), folder.path());
    let repo = Repo::around(folder.path());
    let head =
        git2::Repository::open(&repo.folder).expect("open").head().expect("head").target().expect("an id");
    (folder, repo, head.to_string())
}

fn contract<'a>(diff: &'a Value, port: &str) -> &'a Value {
    let contracts = diff["contracts"].as_array().expect("contracts");
    contracts.iter().find(|it| it["port"] == port).unwrap_or_else(|| panic!("{port} is not in {diff:#}"))
}

#[test]
fn a_removed_column_breaks_its_readers_and_asks_for_a_major_version() {
    let (folder, repo, base) = repo();
    let product = folder.path().join("domains/commerce/daily-revenue");
    edit(&product.join("daily_revenue.sql"), "  SUM(items) AS items,\n", "");
    let file = product.join("daily_revenue.odcs.yaml");
    let text = std::fs::read_to_string(&file).expect("read");
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("{name: items,")).collect();
    assert_eq!(kept.len() + 1, text.lines().count());
    std::fs::write(&file, kept.join("\n")).expect("written");
    repo.commit("nobody counts pieces any more");
    let diff =
        run_in(folder.path(), &["diff", &format!("{base}..HEAD"), "--format", "json"]).ends_with(0).json();
    let changes = diff["changes"].as_array().expect("changes");
    let products: Vec<&str> = changes.iter().filter_map(|it| it["product"].as_str()).collect();
    assert_eq!(products, ["commerce/daily-revenue"], "only what changed is computed again");
    let port = contract(&diff, "commerce/daily-revenue.daily_revenue");
    assert_eq!((port["needs"].as_str(), port["suggested_version"].as_str()), (Some("major"), Some("2.0.0")));
    run_in(folder.path(), &["diff", &base, "--exit-code"]).ends_with(1).says("write 2.0.0");
    run_in(folder.path(), &["diff", &base, "--format", "markdown"])
        .ends_with(0)
        .says("| `commerce/daily-revenue.daily_revenue` |");
}

#[test]
fn a_reader_of_a_removed_column_is_named() {
    let (folder, repo, base) = repo();
    let file = folder.path().join(CONTRACT);
    let text = std::fs::read_to_string(&file).expect("read");
    // The column `amount` goes: revenue is a sum of it.
    let start = text.find("      - name: amount").expect("there");
    let end = start + 10 + text[start + 10..].find("      - name: ").expect("another column follows");
    std::fs::write(&file, format!("{}{}", &text[..start], &text[end..])).expect("written");
    edit(&folder.path().join("domains/commerce/orders/orders.sql"), "amount", "amount AS gone_amount");
    repo.commit("no more amounts");
    let ran = run_in(folder.path(), &["diff", &format!("{base}..HEAD"), "--format", "json"]).ends_with(1);
    let diff = ran.json();
    let broken: Vec<&str> =
        diff["broken"].as_array().expect("broken").iter().filter_map(Value::as_str).collect();
    assert!(broken.contains(&"commerce/daily-revenue"), "{diff:#}");
    let codes: Vec<&str> = diff["new_findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter_map(|it| it["code"].as_str())
        .collect();
    assert!(codes.contains(&"HM-S011"), "{codes:?}");
}

#[test]
fn a_reformatted_query_changes_nothing() {
    let (folder, repo, base) = repo();
    let sql = folder.path().join("domains/commerce/daily-revenue/daily_revenue.sql");
    edit(&sql, "SELECT\n  order_date,", "-- revenue of the shop\nselect order_date,");
    repo.commit("prettier");
    let ran = run_in(folder.path(), &["diff", &format!("{base}..HEAD"), "--format", "json"]).ends_with(0);
    let computed: u64 = ran.json()["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .flat_map(|it| {
            it["partitions"]
                .as_object()
                .expect("partitions")
                .values()
                .filter_map(Value::as_u64)
                .collect::<Vec<_>>()
        })
        .sum();
    assert_eq!(computed, 0, "{}", ran.stdout);
    assert_eq!(ran.json()["contracts"], serde_json::json!([]));
    run_in(folder.path(), &["diff", "nope..HEAD"]).ends_with(2);
}

#[test]
fn what_is_not_signed_is_told_before_it_is_pushed() {
    let (folder, repo, base) = repo();
    let signers = tempfile::tempdir().expect("a folder");
    let rules =
        "apiVersion: hydromesh/v1\nkind: Signers\nrules: [{paths: '**', signers: mara@example.com}]\n";
    std::fs::write(signers.path().join("signers.yaml"), rules).expect("written");
    edit(&folder.path().join("domains/commerce/orders/orders.sql"), "SELECT", "-- the same\nSELECT");
    repo.commit("only a comment");
    let signers = signers.path().to_str().expect("UTF-8");
    run_in(folder.path(), &["diff", &base]).ends_with(0);
    let ran = run_in(folder.path(), &["diff", &base, "--signers", signers]).ends_with(1);
    ran.says("HM-R004 domains/commerce/orders/orders.sql");
    ran.says("by Mara changes it, and is not signed");
    run_in(folder.path(), &["diff", "HEAD", "--signers", signers]).ends_with(0);
    let ran = run_in(folder.path(), &["diff", &base, "--signers", "nowhere"]).ends_with(1);
    assert!(ran.stderr.contains("HM-R006 nowhere/signers.yaml: cannot be read"), "{}", ran.stderr);
}
