//! `new` writes files that pass `check`, and overwrites nothing.

use crate::support::{copy, errors, example, hydromesh, run_in, text};

#[test]
fn a_domain_and_a_product_are_made_and_check() {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&example(), folder.path());
    run_in(
        folder.path(),
        &["new", "domain", "finance", "--owner", "fin@example.com", "--title", "Money: in & out"],
    )
    .ends_with(0);
    let sql = folder.path().join("by_customer.sql");
    let query = "SELECT o.order_date, c.email, SUM(o.amount) AS spent, ENCODE(SHA256(c.email), 'hex') AS who\n\
                 FROM orders o JOIN people c ON o.customer_id = c.customer_id\nGROUP BY o.order_date, c.email\n";
    std::fs::write(&sql, query).expect("written");
    let args = [
        "new",
        "product",
        "finance/by-customer",
        "--sql",
        "by_customer.sql",
        "--input",
        "commerce/orders.orders",
        "--input",
        "people=customer/customers.customers",
        "--partition-by",
        "order_date",
        "--start",
        "2026-08-03",
        "--key",
        "email",
        "--promise-age",
        "36h",
        "--format",
        "json",
    ];
    let made = run_in(folder.path(), &args).ends_with(0).json();
    assert_eq!(made["written"].as_array().expect("files").len(), 4);
    std::fs::remove_file(&sql).expect("removed");
    let check = run_in(folder.path(), &["check", "--format", "json"]).ends_with(0).json();
    assert_eq!(errors(&check), [""; 0]);
    let folder_of = folder.path().join("domains/finance/by-customer");
    let contract = std::fs::read_to_string(folder_of.join("by_customer.odcs.yaml")).expect("written");
    let column = |name: &str| {
        contract
            .lines()
            .find(|line| line.contains(&format!("\"{name}\"")))
            .unwrap_or_else(|| panic!("{name} in {contract}"))
    };
    // What is personal stays so where its value passes, and not where it is hashed away.
    assert!(column("email").contains("classification: pii"), "{contract}");
    assert!(!column("who").contains("pii"), "{contract}");
    assert!(column("order_date").contains("logicalType: date"), "{contract}");
    assert!(column("email").contains("required: true, primaryKey: true"), "{contract}");
    assert!(contract.contains("{property: latency, value: 36, unit: h}"), "{contract}");
    // What was made passes not only `check` but the gate.
    let plan = run_in(folder.path(), &["plan", "--gate", "--format", "json"]).ends_with(0);
    let gate = plan.json()["gate"].as_array().expect("answers").clone();
    let answer = gate.iter().find(|it| it["product"] == "finance/by-customer").expect("asked");
    assert_eq!(answer["allow"], true, "{answer:#}");
    // A second time nothing is written.
    std::fs::write(&sql, query).expect("written");
    std::fs::write(folder_of.join("pipeline.yaml"), "mine").expect("written");
    run_in(folder.path(), &args).ends_with(2).says("exists already");
    assert_eq!(std::fs::read_to_string(folder_of.join("pipeline.yaml")).expect("kept"), "mine");
}

#[test]
fn slips_are_told_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&example(), folder.path());
    std::fs::write(folder.path().join("q.sql"), "SELECT amount FROM orders").expect("written");
    std::fs::write(folder.path().join("bad.sql"), "SELECT amonut FROM orders").expect("written");
    let opaque = "SELECT SHA256(order_id) AS x FROM orders";
    std::fs::write(folder.path().join("opaque.sql"), opaque).expect("written");
    std::fs::write(folder.path().join("drop.sql"), "DROP TABLE orders").expect("written");
    let new = |product: &str, sql: &str, input: &str| {
        run_in(folder.path(), &["new", "product", product, "--sql", sql, "--input", input])
    };
    new("comerce/x", "q.sql", "commerce/orders.orders").ends_with(2).says("did you mean `commerce`?");
    new("commerce/x", "q.sql", "commerce/order.orders")
        .ends_with(2)
        .says("did you mean `commerce/orders.orders`?");
    new("commerce/x", "bad.sql", "commerce/orders.orders").ends_with(1).says("amonut");
    new("commerce/x", "opaque.sql", "commerce/orders.orders").ends_with(1).says("column x is a Binary");
    new("commerce/x", "drop.sql", "commerce/orders.orders").ends_with(1);
    new("commerce/../x", "q.sql", "commerce/orders.orders").ends_with(2);
    let keyed = [
        "new",
        "product",
        "commerce/x",
        "--sql",
        "q.sql",
        "--input",
        "commerce/orders.orders",
        "--key",
        "amont",
    ];
    run_in(folder.path(), &keyed).ends_with(2).says("did you mean `amount`?");
    new("commerce/x", "none.sql", "commerce/orders.orders").ends_with(4);
    assert!(!folder.path().join("domains/commerce/x").exists());
    // Nobody has to read what comes next.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut unread = hydromesh();
    unread.args(["new", "domain", "sales", "--owner", "a@b.c", "--path", text(folder.path())]);
    assert_eq!(unread.stderr(writer).status().expect("it starts").code(), Some(0));
    run_in(folder.path(), &["new", "domain", "Finance", "--owner", "a@b.c"]).ends_with(2).says("lower-case");
    run_in(folder.path(), &["new", "domain", "finance", "--owner", "nobody"]).ends_with(2);
    let empty = tempfile::tempdir().expect("a folder");
    let path = text(empty.path());
    run_in(folder.path(), &["new", "domain", "a", "--owner", "a@b.c", "--path", path])
        .ends_with(2)
        .says("mesh.yaml");
}
