//! Who judges: the gate's own process beside a controller, and the rules that a change is judged by.

use std::time::{Duration, Instant};

use hydromesh::clock::rfc3339;
use serde_json::{Value, json};

use super::mesh::{self, Files};
use super::world::{State, World};
use crate::gate::bomb;
use crate::support::{run, text};

/// Returns a change that writes a file.
fn file((path, text): (String, String)) -> Files {
    [(path, Some(text.into_bytes()))].into()
}

/// Returns the workers of the gate that a process began.
fn workers(of: u32) -> Vec<u32> {
    let numbers = std::fs::read_dir("/proc")
        .expect("listed")
        .filter_map(|entry| entry.expect("an entry").file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|number| {
            let status = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
            let parent = status.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
            let words = std::fs::read_to_string(format!("/proc/{number}/cmdline")).unwrap_or_default();
            parent == Some(of) && words.contains("gate-worker")
        })
        .collect()
}

#[test]
fn a_rule_that_takes_all_memory_is_denied_and_the_controller_goes_on_and_takes_its_worker_along() {
    let world = World::new("4d");
    world.commit("Batches alone", &mesh::without("events"));
    world.commit("Guard", &file(bomb("shop", "input.product.name == \"wide\"")));
    let mut state = world.state("bomb").with(&["--poll", "0.5"]);
    state.start();
    state.settle();
    let controller = state.process();
    let before = workers(controller);
    assert_eq!(before.len(), 1, "one worker for all questions");

    // One product of it is denied; the other one, of the same commit, is not.
    let mut both = mesh::reader("wide");
    both.extend(mesh::reader("narrow"));
    let commit = world.commit("Two readers", &both);
    assert_eq!(state.outcome(&commit), "denied");
    let why = state.ask(&["policy", "explain", "shop/wide"]).ends_with(0).stdout;
    assert!(
        why.contains("policy-unanswered") && why.contains("data.domain.shop.bomb.deny took more memory"),
        "{why}"
    );
    state.wait("the other product", |state| match state.table("shop/narrow.narrow").1 {
        0 => Err("no rows".to_owned()),
        rows => Ok(rows),
    });
    // Nor is anybody later, who is asked about after it and by the next worker.
    world.commit("A third reader", &mesh::reader("zebra"));
    state.wait("the third product", |state| match state.table("shop/zebra.zebra").1 {
        0 => Err("no rows".to_owned()),
        rows => Ok(rows),
    });
    state.alive();
    assert_eq!(state.process(), controller);
    let after = workers(controller);
    assert!(after.len() == 1 && after != before, "another worker: {before:?}, {after:?}");

    state.kill();
    let began = Instant::now();
    while std::path::Path::new(&format!("/proc/{}", after[0])).exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "the worker outlives its controller");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A mesh that is judged by one controller after the other: each begins with nothing but what the last one wrote down.
struct Bench<'w> {
    world: &'w World,
    state: State<'w>,
    clock: String,
}

impl<'w> Bench<'w> {
    fn new(world: &'w World, name: &str) -> Self {
        world.commit("Batches alone", &mesh::without("events"));
        let bench = Self { world, state: world.state(name), clock: rfc3339(world.now_ms) };
        bench.judged(0);
        bench
    }

    /// Runs a controller until nothing is left to do, and asserts its exit code.
    #[track_caller]
    fn judged(&self, code: i32) {
        let mut args = self.state.up();
        args.extend(["--once", "--clock", &self.clock, "--format", "json"].map(str::to_owned));
        run(&args.iter().map(String::as_str).collect::<Vec<_>>()).ends_with(code);
    }

    #[track_caller]
    fn commit(&self, message: &str, files: impl IntoIterator<Item = Files>, code: i32) {
        self.world.commit(message, &files.into_iter().flatten().collect());
        self.judged(code);
    }

    /// Returns what the gate said last of the product `secret`.
    #[track_caller]
    fn said(&self) -> Value {
        self.state.json(&["policy", "explain", "shop/secret"]).expect("explained")["decision"].clone()
    }

    fn is_there(&self, product: &str) -> bool {
        self.state.table(&format!("shop/{product}.{product}")).1 > 0
    }
}

/// Returns a change that takes away what [`mesh::reader`] brings.
fn no_reader(name: &str) -> Files {
    mesh::reader(name).into_keys().map(|path| (path, None)).collect()
}

#[test]
fn a_rule_that_is_removed_in_the_commit_that_it_would_deny_denies_whoever_looks_and_whatever_follows() {
    let world = World::new("20d");
    let bench = Bench::new(&world, "base");
    let no_rule = Files::from([("policies/names.rego".to_owned(), None)]);
    bench.commit("Remove the rule and do what it forbids", [mesh::reader("secret"), no_rule], 3);
    assert_eq!(bench.said()["violations"][0]["rule"], "no-secrets");
    // Whoever asks beforehand hears the same.
    let repo = world.repository();
    let ask = ["plan", text(&repo), "--rev", "main", "--gate", "--clock", &bench.clock];
    bench.state.ask(&ask).ends_with(3).says("no-secrets");
    // A later commit of somebody else takes the rule away no more than this one did, and is held up by nothing.
    bench.commit("Go on", [mesh::reader("other")], 3);
    assert!(bench.is_there("other") && !bench.is_there("secret"));
    bench.judged(3);
    // Taken back, the removal stands by itself; from the next commit on the rule is gone.
    bench.commit("Take it back", [no_reader("secret")], 0);
    bench.commit("Again, by the rules as they are now", [mesh::reader("secret")], 0);
    assert!(bench.is_there("secret"));
    assert_eq!(bench.said()["violations"], json!([]));
}

#[test]
fn a_waiver_counts_from_the_next_commit_on_until_its_end_and_is_never_hidden() {
    let world = World::new("20d");
    let bench = Bench::new(&world, "waiver");
    let waiver = |expires: &str| {
        let text = format!(
            "apiVersion: hydromesh/v1\nkind: Waiver\nid: lent\nrule: no-secrets\nscope: shop/*\nreason: until it is renamed\n\
             approver: mara@example.com\nexpires: {expires}\n"
        );
        file(("waivers/names.yaml".to_owned(), text))
    };
    let repo = world.repository();
    let check = || run(&["check", text(&repo), "--rev", "main", "--format", "json"]);
    let told = |code: &str| {
        let found = check().json()["findings"].clone();
        let found = found.as_array().expect("findings").iter().find(|it| it["code"] == code).cloned();
        found.unwrap_or_else(|| panic!("no {code}"))
    };
    bench.commit("Waive oneself", [mesh::reader("secret"), waiver("2099-01-01T00:00:00Z")], 3);
    assert_eq!(bench.said()["violations"][0]["rule"], "no-secrets");
    bench.commit("Take it back", [no_reader("secret")], 0);
    bench.commit("Be waived", [mesh::reader("secret")], 0);
    let said = bench.said();
    assert_eq!((&said["allow"], &said["violations"]), (&json!(true), &json!([])));
    let waived = &said["waived"][0];
    assert_eq!(
        [&waived["finding"]["rule"], &waived["waiver"], &waived["place"], &waived["approver"]],
        ["no-secrets", "lent", "waivers/names.yaml:1", "mara@example.com"]
    );
    bench
        .state
        .ask(&["policy", "explain", "shop/secret"])
        .ends_with(0)
        .says("no-secrets by lent (waivers/names.yaml:1)");

    // It ends; what it let pass goes on, and the next change of it is denied and says why.
    bench.commit("Let it end", [waiver("2020-01-01T00:00:00Z")], 0);
    let ended = told("HM-P005");
    assert_eq!(
        (&ended["file"], &ended["line"], &ended["severity"]),
        (&json!("waivers/names.yaml"), &json!(1), &json!("warning"))
    );
    let sql = "SELECT country, COUNT(*) AS sales FROM sales WHERE price > 0 GROUP BY country\n".to_owned();
    bench.commit("Change it", [file(("domains/shop/secret/secret.sql".to_owned(), sql))], 3);
    let said = bench.said();
    assert_eq!((&said["allow"], &said["waived"]), (&json!(false), &Value::Null));
    let warning = &said["warnings"][0];
    assert_eq!(
        (&warning["rule"], &warning["path"]),
        (&json!("waiver-ended"), &json!("waivers/names.yaml:1"))
    );

    // Half of one waives nothing.
    bench.world.commit("Break it", &waiver("soon"));
    check().ends_with(1);
    let broken = told("HM-P004");
    assert_eq!((&broken["file"], &broken["line"]), (&json!("waivers/names.yaml"), &json!(8)));
}
