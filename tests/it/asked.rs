//! Verbs that stand in for a controller, and what they say of what was asked for and of the rest.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::cut::{Mesh, RAW, contract, pipeline, product};
use crate::support::{hydromesh, text};

/// Orders and their sums, a product of which one partition of two fails for good, and a stream.
fn shop() -> Mesh {
    let raw = "region,amount\nde,1\nit,0\n".to_owned();
    let clicks = "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: NAME\n  properties:\n  - {name: id, logicalType: string, required: true, classification: public}\n  - {name: happened, logicalType: timestamp, required: true, classification: public}\n";
    let topic = "{name: raw, customProperties: [{property: hydromesh.topic, value: clicks}]}";
    let follow = "apiVersion: hydromesh/v1\nkind: StreamPipeline\noutput: clicks\nsql: SELECT id, happened FROM raw\nsource: {port: raw, event_time: happened, event_id: id, watermark: {bound: 30s, idle: 30s}}\n";
    let (cut, sums) = (
        "partition: {by: region, values: [de, it]}\n",
        "SELECT region, sum(amount) AS amount FROM orders GROUP BY region",
    );
    Mesh::of(&[
        ("domains/shop/orders/product.odps.yaml", product(RAW, "orders")),
        ("domains/shop/orders/raw.odcs.yaml", contract("raw", "region")),
        ("domains/shop/orders/orders.odcs.yaml", contract("orders", "region")),
        ("domains/shop/orders/pipeline.yaml", pipeline("orders", "SELECT region, amount FROM raw", "")),
        ("domains/shop/orders/raw.csv", raw.clone()),
        (
            "domains/shop/totals/product.odps.yaml",
            product("{name: orders, contractId: shop/orders.orders}", "totals"),
        ),
        ("domains/shop/totals/totals.odcs.yaml", contract("totals", "region")),
        ("domains/shop/totals/pipeline.yaml", pipeline("totals", sums, "")),
        ("domains/shop/shares/product.odps.yaml", product(RAW, "shares")),
        ("domains/shop/shares/raw.odcs.yaml", contract("raw", "region")),
        ("domains/shop/shares/shares.odcs.yaml", contract("shares", "region")),
        (
            "domains/shop/shares/pipeline.yaml",
            pipeline("shares", "SELECT region, 10 / amount AS amount FROM raw", cut),
        ),
        ("domains/shop/shares/raw.csv", raw),
        ("domains/shop/clicks/product.odps.yaml", product(topic, "clicks")),
        ("domains/shop/clicks/raw.odcs.yaml", clicks.replace("NAME", "raw")),
        ("domains/shop/clicks/clicks.odcs.yaml", clicks.replace("NAME", "clicks")),
        ("domains/shop/clicks/pipeline.yaml", follow.to_owned()),
    ])
}

#[test]
fn what_was_asked_for_is_answered_for_itself() {
    let mesh = shop();
    let up = || mesh.up().arg("-v").output().expect("it starts");
    let first = up();
    let told = String::from_utf8_lossy(&first.stderr).into_owned();
    assert_eq!(first.status.code(), Some(1), "one partition fails for good: {told}");
    assert!(!told.contains('\u{1b}'), "colour is for terminals: {told}");
    // One partition of two is no backlog, and what was stopped at the end is counted.
    let status = mesh.ask(&["status"]).ends_with(0);
    status.says("shop/shares: 1 of 2 partitions; 1 failed and wait, see `hydromesh why-not shop/shares`");
    let runs = mesh.ask(&["status", "--format", "json"]).ends_with(0).json()["runs"].clone();
    assert!(runs["cancelled"].as_u64() > Some(0), "{runs}");
    mesh.ask(&["doctor"]).says("1 step failed and was not repaired");

    // Neither the failure of another product nor a topic in which nothing lies is its business.
    let quiet = Duration::from_secs(15);
    let asked = || {
        let began = Instant::now();
        let ran = mesh.ask(&["run", "shop/orders"]).ends_with(0);
        ran.says("shop/orders and what follows from it: 1 of 1 attempt went well");
        ran.says("apart from that, 1 step of shop/shares failed for good");
        began.elapsed()
    };
    // A busy machine is slow, but not time after time.
    assert!((0..3).any(|_| asked() < quiet), "it waits for the history of the topic");
    // Nobody has to read what is told.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut unread = hydromesh();
    unread.args(["run", "shop/orders", "--state", text(&mesh.state)]).stdout(Stdio::null()).stderr(writer);
    assert_eq!(unread.status().expect("it starts").code(), Some(0));

    mesh.ask(&["retry", "shop/orders"]).ends_with(0).says("there is nothing to retry");
    mesh.ask(&["retry", "shop/shares"]).ends_with(1).says("1 step failed for good");
    let backfill = ["backfill", "shop/clicks", "--from", "2026-08-01", "--to", "2026-08-02"];
    let stream = mesh.ask(&backfill).ends_with(2);
    stream.says("it begins again by itself");
    assert!(!stream.stderr.contains("hydromesh run"), "{}", stream.stderr);
    mesh.ask(&["pause", "shop/orders", "--for", "999999999d"]).ends_with(2).says("366d");
    mesh.ask(&["cancel", "run-4711"]).ends_with(2).says("run-00004711 is not under way");

    // A topic that was removed is not made anew, and is looked for.
    let line = mesh.state.with_extension("jsonl");
    std::fs::write(&line, "{\"id\": \"a\", \"happened\": \"2026-08-01T10:00:00Z\"}\n").expect("written");
    mesh.ask(&["produce", "--topic", "clicks", text(&line)]).ends_with(0).says("1 message in clicks");
    up();
    assert_eq!(mesh.rows("SELECT id FROM \"shop/clicks.clicks\"").len(), 1);
    std::fs::remove_dir_all(mesh.state.join("topics/clicks")).expect("removed");
    // The follower begins beside what was asked for, and may be stopped before it has found out.
    let why = (0..20).find_map(|_| {
        mesh.ask(&["run", "shop/orders"]).ends_with(0);
        Some(mesh.ask(&["why-not", "shop/clicks"]).ends_with(0)).filter(|why| why.stdout.contains("HM-F001"))
    });
    let why = why.expect("the topic is away");
    why.says("bring the topic back as it was");
    why.says("at once: hydromesh retry shop/clicks");
}
