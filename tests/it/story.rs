//! A controller on a small mesh, looked at and asked with every verb while it runs.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Ran, Repo, copy, edit, hydromesh, root, run, run_in, text};

/// Longest wait for something that takes a second or two on an idle machine.
const PATIENCE: Duration = Duration::from_mins(3);

struct Mesh {
    _home: tempfile::TempDir,
    repo: Repo,
    state: PathBuf,
    policies: PathBuf,
}

impl Mesh {
    /// Three products that rest on one file, and a gate with one rule.
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("repo");
        copy(&root().join("tests/fixtures/bad/missing_column"), &folder);
        std::fs::remove_file(folder.join("expected.txt")).expect("removed");
        std::fs::remove_dir_all(folder.join("domains/shop/totals")).expect("removed");
        edit(
            &folder.join("domains/shop/items/pipeline.yaml"),
            "partition: {by: sold_on, every: day, start: 2026-08-01}\n",
            "",
        );
        product(
            &folder,
            "shop/totals",
            "SELECT item_id, sum(price) AS total FROM items GROUP BY item_id",
            "shop/items.items",
        );
        let policies = home.path().join("policies");
        std::fs::create_dir(&policies).expect("a folder");
        let rule = "# METADATA\n# title: Names\npackage hydromesh.deploy.names\n\n\
                    deny contains {\"rule\": \"no-secrets\", \"msg\": \"nothing secret here\", \"remediation\": \"call it otherwise\"} if {\n\
                    \tinput.product.name == \"secret\"\n}\n";
        std::fs::write(policies.join("names.rego"), rule).expect("written");
        let state = home.path().join("state");
        let repo = Repo::around(&folder);
        Self { _home: home, repo, state, policies }
    }

    fn up(&self) -> Up {
        let path = self.state.with_extension("log");
        let log = std::fs::File::options().create(true).append(true).open(&path).expect("a log");
        let child = hydromesh()
            .args(["up", "--poll", "0.2", "--repo", text(&self.repo.folder), "--state", text(&self.state)])
            // Port 0: tests run side by side.
            .args(["--listen", "127.0.0.1:0", "--policies", text(&self.policies)])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starts");
        Up { child, log: path }
    }

    fn ask(&self, args: &[&str]) -> Ran {
        let mut all = args.to_vec();
        all.extend(["--state", text(&self.state)]);
        run(&all)
    }

    fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["--format", "json"]);
        self.ask(&all).ends_with(0).json()
    }

    /// Waits until a question is answered as wanted, and returns the answer.
    #[track_caller]
    fn wait(&self, args: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let mut all = args.to_vec();
            all.extend(["--format", "json"]);
            let ran = self.ask(&all);
            // The ledger is not there in the first moments.
            if ran.code == 0 && wanted(&ran.json()) {
                return ran.json();
            }
            let log = || std::fs::read_to_string(self.state.with_extension("log")).unwrap_or_default();
            assert!(
                began.elapsed() < PATIENCE,
                "{args:?} never came right: {}\n{}\n{}",
                ran.stdout,
                ran.stderr,
                log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn product(folder: &Path, name: &str, sql: &str, input: &str) {
    let file = folder.with_extension("sql");
    std::fs::write(&file, sql).expect("written");
    run_in(folder, &["new", "product", name, "--sql", text(&file), "--input", input]).ends_with(0);
}

/// A running controller; it does not outlive its test.
struct Up {
    child: Child,
    log: PathBuf,
}

impl Up {
    /// Asks it to end as an operating system does, and looks that it ends well.
    #[track_caller]
    fn end(mut self) {
        let kill = format!("kill -TERM {}", self.child.id());
        let asked = std::process::Command::new("sh").args(["-c", &kill]).status();
        assert!(asked.expect("a shell").success());
        let code = self.child.wait().expect("ends").code();
        let told = std::fs::read_to_string(&self.log).expect("a log");
        assert_eq!(code, Some(0), "{told}");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn of<'a>(list: &'a Value, product: &str) -> &'a Value {
    let found = list["products"].as_array().expect("products").iter().find(|it| it["product"] == product);
    found.unwrap_or_else(|| panic!("{product} is not in {list:#}"))
}

fn all_ok(list: &Value, count: usize) -> bool {
    let products = list["products"].as_array().expect("products");
    products.len() == count
        && products
            .iter()
            .all(|it| it["status"] == "ok" && it["last_run"]["result"]["outcome"] == "succeeded")
}

#[test]
fn a_controller_is_looked_at_and_asked() {
    let mesh = Mesh::new();
    let up = mesh.up();
    let list = mesh.wait(&["list"], |list| all_ok(list, 3));
    assert_eq!(of(&list, "shop/items")["kind"], "batch");
    assert_eq!(mesh.json(&["list", "--domain", "nope"])["products"], json!([]));

    looks(&mesh);
    queries(&mesh);
    commands(&mesh);

    // What is applied needs nothing more.
    let plan =
        run(&["plan", text(&mesh.repo.folder), "--state", text(&mesh.state), "--exit-code"]).ends_with(0);
    plan.says("no changes");
    up.end();
    assert_eq!(mesh.json(&["status"])["controller"], "stopped");
    // Nobody answers now; the command stays for the next controller.
    let later = ["run", "shop/items", "--key", "later", "--later", "--wait", "--timeout", "300ms"];
    mesh.ask(&later).ends_with(4).says("no controller runs");
    let again = mesh.up();
    mesh.ask(&["run", "shop/items", "--key", "later", "--actor", "unknown", "--wait", "--timeout", "60s"])
        .ends_with(0);
    again.end();
}

fn looks(mesh: &Mesh) {
    let status = mesh.json(&["status"]);
    assert_eq!((&status["controller"], &status["environment"]), (&json!("running"), &json!("dev")));
    assert_eq!(status["products"], json!({"ok": 3}));
    assert_eq!(status["commit"]["outcome"], "applied");
    assert_eq!(status["commit"]["author"], "Mara");
    mesh.ask(&["status"]).ends_with(0).says("3 ok");

    let show = mesh.json(&["show", "totals"]);
    assert_eq!(show["reads"], json!(["shop/items.items"]));
    assert_eq!(show["ports"][0]["rows"], 2);
    assert_eq!(mesh.json(&["show", "shop/items"])["read_by"], json!(["shop/prices", "shop/totals"]));
    mesh.ask(&["show", "shop/totals"]).ends_with(0).says("2 rows");
    mesh.ask(&["show", "shop/total"]).ends_with(2).says("did you mean `shop/totals`?");

    let runs = mesh.json(&["runs"]);
    assert!(runs["runs"].as_array().expect("runs").len() >= 3);
    let own = mesh.json(&["runs", "shop/prices"]);
    assert!(
        own["runs"]
            .as_array()
            .expect("runs")
            .iter()
            .all(|it| it["step"].as_str().expect("a step").starts_with("shop/prices:"))
    );
    assert_eq!(mesh.json(&["runs", "--failed"])["runs"], json!([]));
    assert_eq!(mesh.json(&["runs", "--limit", "1"])["runs"].as_array().expect("runs").len(), 1);

    let decision = show["decision"].as_str().expect("a decision").to_owned();
    let why = mesh.ask(&["why", "shop/totals"]).ends_with(0);
    for text in ["the first commit", "by Mara", &decision, "shop/items.items at version"] {
        why.says(text);
    }
    assert_eq!(mesh.json(&["why-not", "shop/totals"])["reasons"], json!([]));
    let explained = mesh.json(&["policy", "explain", &decision]);
    assert_eq!((&explained["decision"]["allow"], &explained["in_force"]), (&json!(true), &json!(true)));
    assert!(explained["runs"].as_u64().expect("runs") >= 1);

    let lineage = mesh.json(&["lineage", "shop/items.items#price"]);
    let edges = lineage["edges"].as_array().expect("edges");
    let to = |to: &str| edges.iter().any(|it| it["from"] == "shop/items.items#price" && it["to"] == to);
    assert!(to("shop/totals.totals#total") && to("shop/prices.prices#price"), "{edges:#?}");
    mesh.ask(&["lineage"]).ends_with(0).says("└─ shop/totals");
    mesh.ask(&["lineage", "shop/items.items#prise"]).ends_with(2).says("did you mean");

    for args in [&["slo", "status"] as &[&str], &["alerts", "list"], &["models"]] {
        mesh.json(args);
        mesh.ask(args).ends_with(0);
    }
    let doctor = mesh.json(&["doctor"]);
    assert_eq!(doctor["healthy"], true);
    let says = |name: &str| {
        let checks = doctor["checks"].as_array().expect("checks");
        checks.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name}: {checks:#?}"))["verdict"].clone()
    };
    assert_eq!(
        ["ledger", "lake", "controller", "policies", "disk"].map(says),
        ["ok", "ok", "ok", "ok", "ok"]
    );
}

fn queries(mesh: &Mesh) {
    let rows = mesh.json(&["query", "SELECT item_id, total FROM \"shop/totals.totals\" ORDER BY item_id"]);
    assert_eq!(rows, json!([{"item_id": "a", "total": 3.0}, {"item_id": "b", "total": 2.5}]));
    let csv = mesh
        .ask(&["query", "SELECT count(*) AS n FROM \"shop/items.items\"", "--format", "csv"])
        .ends_with(0);
    assert_eq!(csv.stdout, "n\n3\n");
    // A null is told from a missing column, and no row is no error.
    assert_eq!(mesh.json(&["query", "SELECT CAST(NULL AS INT) AS x, 1 AS y"]), json!([{"x": null, "y": 1}]));
    assert_eq!(mesh.json(&["query", "SELECT * FROM \"shop/items.items\" WHERE price > 100"]), json!([]));
    let cut = mesh
        .ask(&["query", "SELECT * FROM \"shop/items.items\"", "--limit", "1", "--format", "json"])
        .ends_with(0);
    assert_eq!(cut.json().as_array().expect("rows").len(), 1);
    cut.says("cut after 1 row;");
    mesh.ask(&["query", "SELECT 1 FROM \"shop/item.items\""])
        .ends_with(2)
        .says("did you mean \"shop/items.items\"");
    mesh.ask(&["query", "SELECT nope FROM \"shop/items.items\""]).ends_with(2).says("nope");
    for sql in [
        "DROP TABLE x",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "CREATE TABLE x AS SELECT 1",
        "SELECT 1; SELECT 2",
    ] {
        mesh.ask(&["query", sql]).ends_with(2);
    }
    // A file of this machine is no table.
    mesh.ask(&["query", "SELECT * FROM '/etc/passwd'"]).ends_with(2);
    let as_of =
        |version: &str| mesh.ask(&["query", "SELECT 1 FROM \"shop/items.items\"", "--as-of", version]);
    let version = mesh.json(&["show", "shop/items"])["ports"][0]["table_version"].to_string();
    as_of(&version).ends_with(0);
    as_of(&format!("shop/items.items={version}")).ends_with(0);
    as_of("shop/prices.prices=1").ends_with(2).says("does not read");
    as_of("soon").ends_with(2);
    as_of("4711").ends_with(4);
}

fn commands(mesh: &Mesh) {
    let runs = |mesh: &Mesh| mesh.json(&["runs", "shop/totals"])["ended_in_all"].as_u64().expect("a number");
    let before = runs(mesh);
    let asked = mesh
        .ask(&["run", "shop/totals", "--key", "k1", "--reason", "to see", "--wait", "--format", "json"])
        .ends_with(0);
    assert_eq!(asked.json()["id"], "k1");
    assert_eq!(asked.json()["answer"]["accepted"], true);
    mesh.wait(&["runs", "shop/totals"], |runs| {
        runs["ended_in_all"].as_u64().expect("a number") == before + 1
    });
    // The same key again is the same wish: nothing is computed a third time.
    let again = mesh
        .ask(&["run", "shop/totals", "--key", "k1", "--reason", "to see", "--wait", "--format", "json"])
        .ends_with(0);
    assert_eq!(again.json()["repeated"], true);
    mesh.ask(&["run", "shop/items", "--key", "k1"]).ends_with(2).says("k1");
    assert_eq!(runs(mesh), before + 1);
    mesh.ask(&["retry", "shop/items", "--wait"]).ends_with(0);
    mesh.ask(&["run", "shop/nothing"]).ends_with(2);
    mesh.ask(&["backfill", "shop/totals", "--from", "2026-08-01", "--to", "2026-08-02"])
        .ends_with(2)
        .says("no partitions");
    mesh.ask(&["alerts", "silence", "shop/items", "--for", "2h", "--wait"]).ends_with(0);
    mesh.ask(&["why-not", "shop/items"]).ends_with(0).says("silenced until");
    mesh.ask(&["alerts", "silence", "shop/items", "--for", "soon"]).ends_with(2);
    // Paused, it computes nothing that is asked for, and goes on where it was.
    let pause = ["pause", "shop/totals", "--for", "2h", "--reason", "the source is repaired", "--wait"];
    mesh.ask(&pause).ends_with(0);
    mesh.ask(&["run", "shop/totals", "--wait"]).ends_with(0);
    let list = mesh.json(&["list"]);
    let paused = of(&list, "shop/totals");
    assert_eq!([&paused["status"], &paused["sync"]], ["paused", "synced"]);
    assert_eq!(paused["paused"]["reason"], "the source is repaired");
    mesh.ask(&["list"]).ends_with(0).says(", paused");
    mesh.ask(&["why-not", "shop/totals"]).ends_with(0).says("the source is repaired");
    assert_eq!(runs(mesh), before + 1);
    mesh.ask(&["resume", "shop/totals", "--wait"]).ends_with(0);
    mesh.wait(&["runs", "shop/totals"], |runs| {
        runs["ended_in_all"].as_u64().expect("a number") == before + 2
    });
    mesh.ask(&["resume", "shop/totals", "--wait"]).ends_with(1).says("is not paused");
    // Who asks without waiting learns it all the same, if it does not take long; programs get what they always got.
    mesh.ask(&["resume", "shop/totals"]).ends_with(1).says("is not paused");
    let asked = mesh.ask(&["resume", "shop/totals", "--format", "json"]).ends_with(0).json();
    assert_eq!((&asked["answer"], &asked["controller_running"]), (&json!(null), &json!(true)));
    mesh.ask(&["pause", "shop/totals", "--for", "soon"]).ends_with(2);
    mesh.ask(&["pause", "shop/totals", "--backfills", "--wait"]).ends_with(1).says("pause it as a whole");
    mesh.ask(&["cancel", "run-99999999"]).ends_with(2).says("hydromesh runs");
}

#[test]
fn a_refused_product_stays_out_and_the_others_go_on() {
    let mesh = Mesh::new();
    let up = mesh.up();
    mesh.wait(&["list"], |list| all_ok(list, 3));
    // One product that the gate denies, one that does not check, one that is right: in one commit.
    product(&mesh.repo.folder, "shop/secret", "SELECT item_id FROM items", "shop/items.items");
    product(&mesh.repo.folder, "shop/fine", "SELECT item_id FROM items", "shop/items.items");
    edit(&mesh.repo.folder.join("domains/shop/prices/prices.sql"), "avg(price)", "avg(prise)");
    let commit = mesh.repo.commit("three things at once");
    let list = mesh.wait(&["list"], |list| {
        let status = |product: &str| {
            let products = list["products"].as_array().expect("products");
            products.iter().find(|it| it["product"] == product).map(|it| it["status"].clone())
        };
        status("shop/fine") == Some(json!("ok"))
    });
    assert_eq!(of(&list, "shop/secret")["status"], "denied");
    assert_eq!(of(&list, "shop/secret")["deployed"], false);
    assert_eq!(of(&list, "shop/prices")["status"], "broken");
    assert_eq!(of(&list, "shop/prices")["deployed"], true, "what ran before goes on");
    assert_eq!(of(&list, "shop/totals")["status"], "ok");

    let denied = mesh.ask(&["why-not", "secret"]).ends_with(0);
    for text in ["no-secrets", "nothing secret here", "call it otherwise", "hydromesh policy explain"] {
        denied.says(text);
    }
    let broken = mesh.ask(&["why-not", "shop/prices"]).ends_with(0);
    broken.says("HM-S011");
    broken.says("what was deployed before goes on");
    let explained = mesh.json(&["policy", "explain", "shop/secret"]);
    assert_eq!(explained["decision"]["allow"], false);
    assert_eq!(explained["decision"]["commit"], json!(commit));
    assert_eq!(mesh.json(&["status"])["commit"]["message"], "three things at once");
    let alerts =
        mesh.wait(&["alerts", "list", "--open"], |it| it["alerts"].as_array().expect("alerts").len() >= 2);
    let id = alerts["alerts"][0]["id"].as_str().expect("an id").to_owned();
    mesh.ask(&["alerts", "why", &id]).ends_with(0).says("Commit");
    mesh.ask(&["alerts", "why", "shop/"]).ends_with(2).says("fits");
    // Its data is still there to be read.
    let rows = mesh.json(&["query", "SELECT count(*) AS n FROM \"shop/prices.prices\""]);
    assert_eq!(rows, json!([{"n": 2}]));
    up.end();
}

#[test]
fn messages_are_produced_from_lines() {
    let state = tempfile::tempdir().expect("a folder");
    let produce = |input: &[u8], more: &[&str]| {
        let mut child = hydromesh()
            .args(["produce", "--topic", "clicks", "--state", text(state.path()), "--format", "json"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        child.stdin.take().expect("piped").write_all(input).expect("written");
        let output = child.wait_with_output().expect("ends");
        let value = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
        (output.status.code(), value, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, value, _) = produce(b"{\"k\":1}\n\n{\"k\":2}\nnot json\n", &[]);
    assert_eq!(
        (code, &value["messages"]),
        (Some(0), &json!(3)),
        "empty lines are no messages, malformed ones are"
    );
    let (code, value, _) = produce(b"{\"k\":\"a\"}\r\n", &["--key-field", "k"]);
    assert_eq!((code, &value["ranges"]), (Some(0), &json!([{"partition": 0, "from": 3, "to": 4}])));
    let (code, _, stderr) = produce(b"{\"k\":\"a\"}\n{}\n", &["--key-field", "k"]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("line 2") && stderr.contains("1 message of the lines before it went to clicks"),
        "{stderr}"
    );
    assert!(stderr.contains("go on from line 2"), "{stderr}");
    // Of a file nothing is written unless all of it can be.
    let file = state.path().join("clicks.jsonl");
    std::fs::write(&file, "{\"k\":\"a\"}\n{}\n").expect("written");
    let (code, _, stderr) = produce(b"", &["--key-field", "k", text(&file)]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("line 2") && stderr.contains("nothing was written"), "{stderr}");
    let (code, value, _) = produce(b"{\"k\":\"a\"}\n", &["--key-field", "k"]);
    assert_eq!((code, &value["ranges"]), (Some(0), &json!([{"partition": 0, "from": 5, "to": 6}])));
    let ran = run(&["produce", "--topic", "../clicks", "--state", text(state.path())]).ends_with(2);
    ran.says("is not the name of a topic");
}

#[test]
fn a_doctor_finds_what_is_wrong() {
    let state = tempfile::tempdir().expect("a folder");
    std::fs::write(state.path().join("ledger.db"), "this is no database, whatever its name says")
        .expect("written");
    let ran = run(&["doctor", "--state", text(state.path()), "--format", "json"]).ends_with(1);
    let doctor = ran.json();
    assert_eq!(doctor["healthy"], false);
    let checks = doctor["checks"].as_array().expect("checks");
    let ledger = checks.iter().find(|it| it["name"] == "ledger").expect("checked");
    assert_eq!(ledger["verdict"], "failed");
    assert!(ledger["fix"].as_str().expect("a fix").contains("backup"));
    let mesh = root().join("tests/fixtures/bad/cycle");
    run(&["doctor", text(&mesh), "--state", text(&state.path().join("none"))])
        .ends_with(1)
        .says("hydromesh check");
    run(&["doctor", "mesh-repo-example", "--state", text(&state.path().join("none"))]).ends_with(0);
}
