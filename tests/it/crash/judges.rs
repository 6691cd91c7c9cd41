//! Who judges: the gate's own process beside a controller, and the rules that a change is judged by.

use std::time::{Duration, Instant};

use hydromesh::clock::rfc3339;
use serde_json::{Value, json};

use super::Messages;
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
        self.judged_at(&self.clock, code);
    }

    /// The same, at another time.
    #[track_caller]
    fn judged_at(&self, clock: &str, code: i32) {
        let mut args = self.state.up();
        args.extend(["--once", "--clock", clock, "--format", "json"].map(str::to_owned));
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

/// Returns a change that lets a rule be broken anywhere until an instant.
fn waiver(rule: &str, expires: &str) -> Files {
    let text = format!(
        "apiVersion: hydromesh/v1\nkind: Waiver\nid: lent\nrule: {rule}\nscope: shop/*\nreason: until it is renamed\n\
         approver: mara@example.com\nexpires: {expires}\n"
    );
    file(("waivers/names.yaml".to_owned(), text))
}

/// Returns a change that brings a rule against a product; it also stops what runs, or not.
fn rule_against(product: &str, enforce: &str) -> Files {
    let text = format!(
        "# METADATA\n# title: Widths\n# custom:\n#   enforce: {enforce}\npackage mesh.widths\n\n\
         deny contains {{\n\t\"rule\": \"no-{product}\",\n\t\"msg\": \"it is {product}\",\n}} if input.product.name == \"{product}\"\n"
    );
    file(("policies/widths.rego".to_owned(), text))
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
    let waiver = |expires: &str| waiver("no-secrets", expires);
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

#[test]
fn a_new_rule_is_asked_about_what_is_deployed_and_a_waiver_lets_it_pass_until_its_end() {
    let world = World::new("20d");
    let bench = Bench::new(&world, "stands");
    bench.commit("Two readers", [mesh::reader("wide"), mesh::reader("other")], 0);
    assert!(bench.is_there("wide"));
    let standing = |product: &str| {
        let health = bench.state.json(&["list"]).expect("listed");
        let products = health["products"].as_array().expect("products").clone();
        let found = products.into_iter().find(|it| it["product"] == product).expect("there");
        found["status"].as_str().unwrap_or_default().to_owned()
    };
    // Somebody else takes its table away, which is computed again where nothing forbids that.
    let lose = || {
        std::fs::remove_dir_all(bench.state.table_folder("shop/wide.wide")).expect("there");
        bench.judged(0);
        bench.is_there("wide")
    };

    // It says nothing against the commit that brings it, and then against what stands.
    bench.commit("A rule that lets go on", [rule_against("wide", "deploy")], 0);
    assert_eq!([standing("shop/wide"), standing("shop/other")], ["denied", "ok"]);
    let why = ["why-not", "shop/wide"];
    bench.state.ask(&why).says("the rule no-wide no longer allows what is deployed: it is wide");
    assert!(lose(), "it goes on");

    bench.state.ask(&["policy", "explain", "shop/wide"]).says("may what is deployed of shop/wide stay?");
    bench.commit("A rule that stops", [rule_against("wide", "running")], 0);
    assert_eq!([standing("shop/wide"), standing("shop/other")], ["stopped", "ok"]);
    bench.state.ask(&why).says("the rule no-wide stops what is deployed: it is wide");
    let open = bench.state.json(&["alerts", "list"]).expect("listed").to_string();
    assert!(open.contains("no-wide stops what is deployed of shop/wide"), "{open}");
    assert!(!lose(), "it does not go on");
    bench.state.ask(&["run", "shop/wide", "--clock", &bench.clock]).ends_with(1).says("denied by no-wide");
    // A start asks nobody again: it is all in the ledger.
    let decisions =
        || bench.state.json(&["policy", "explain", "shop/wide"]).expect("explained")["at"].clone();
    let before = decisions();
    bench.judged(0);
    assert_eq!(decisions(), before);

    let later = |hours: i64| rfc3339(world.now_ms + hours * 3_600_000);
    bench.commit("Waive it", [waiver("no-wide", &later(2))], 0);
    assert_eq!(standing("shop/wide"), "ok");
    assert!(bench.is_there("wide"), "what was lost meanwhile is there again");
    bench.judged_at(&later(1), 0);
    assert_eq!(standing("shop/wide"), "ok");
    bench.judged_at(&later(3), 0);
    assert_eq!(standing("shop/wide"), "stopped");

    // A change that the rule allows ends it as well.
    let gone = Files::from([("policies/widths.rego".to_owned(), None)]);
    bench.world.commit("No rule", &gone);
    bench.judged_at(&later(3), 0);
    assert_eq!(standing("shop/wide"), "ok");
}

#[test]
fn a_rule_stops_a_stream_under_way_and_lets_it_go_on_where_it_was() {
    let world = World::new("20d");
    let mut state = world.state("stream").with(&["--poll", "0.5"]);
    state.start();
    state.settle();
    let events = "shop/events.events";
    let follows = |state: &State<'_>| {
        let runs = state.json(&["runs", "shop/events"])?;
        Ok(runs["runs"].as_array().is_some_and(|runs| runs.iter().any(|it| it["state"] == "running")))
    };
    assert_eq!(follows(&state), Ok::<_, String>(true), "{:?}", state.json(&["runs", "shop/events"]));
    let (_, rows) = state.table(events);
    world.commit("A rule", &rule_against("events", "running"));
    state.wait("the stream to be stopped", |state| {
        if follows(state)? { Err("it goes on".to_owned()) } else { Ok(()) }
    });
    state.produce(&Messages::new(world.now_ms).lines);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(state.table(events).1, rows);
    assert_eq!(state.mails().iter().filter(|mail| mail.contains("no-events stops")).count(), 1);
    world.commit("No rule", &Files::from([("policies/widths.rego".to_owned(), None)]));
    state.wait("what came meanwhile", |state| match state.table(events).1 {
        now if now > rows => Ok(()),
        now => Err(format!("{now} rows")),
    });
    state.alive();
}
