//! An environment that deploys what was healthy in another for a time.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::mesh;
use super::world::{State, World};
use crate::support::{run, text};

/// How long a commit has to be healthy in the environment before.
const WAIT: Duration = Duration::from_secs(3);

fn world() -> World {
    let stream = "    stream: {kind: topic_folder}\n";
    let prod = "  prod:\n    ref: refs/heads/main\n    after: {environment: dev, for: 3s}\n    lake: {path: lake, format: delta}\n";
    World::new("7d").with_setting(stream, &format!("{stream}{prod}"))
}

/// Returns the newest commit of a controller, and what became of it.
fn head(state: &State<'_>) -> (String, Value) {
    let status = state.ask(&["status", "--format", "json"]).ends_with(0).json();
    let commit = &status["commit"];
    (commit["commit"].as_str().unwrap_or_default().to_owned(), commit["outcome"].clone())
}

#[test]
fn an_environment_gets_what_was_healthy_in_the_one_before_and_nothing_else() {
    let world = world();
    let first = world.head().as_str().to_owned();
    let mut dev = world.state("dev");
    let folder = dev.folder().to_owned();
    let mut prod =
        world.state("prod").with(&["--poll", "0.2", "--env", "prod", "--after-state", text(&folder)]);

    // Nobody knows where dev is; then nothing was seen there.
    let once = |more: &[&str]| {
        let repo = world.repository();
        let mut args =
            vec!["up", "--once", "--env", "prod", "--repo", text(&repo), "--state", text(prod.folder())];
        args.extend(more);
        run(&args).ends_with(1)
    };
    once(&[]).says("--after-state");
    once(&["--after-state", text(&folder)]).says("no commit was seen there yet");

    prod.start();
    prod.wait("it says what it waits for", |state| {
        let status = state.ask(&["status"]);
        if status.stdout.contains("no commit was seen there yet") { Ok(()) } else { Err(status.stdout) }
    });
    let began = Instant::now();
    dev.start();
    assert_eq!(dev.outcome(&first), "applied");
    assert_eq!(prod.outcome(&first), "applied");
    assert!(began.elapsed() > WAIT, "it had no time to be healthy in dev: {:?}", began.elapsed());
    dev.settle();
    prod.settle();
    assert_eq!(prod.contents(), dev.contents());

    // What does not hold in dev never comes; what mends it does.
    let wrong = mesh::reader("extra").into_iter().map(|(path, text)| {
        let broken =
            |text: Vec<u8>| String::from_utf8(text).expect("UTF-8").replace("SELECT", "SELEKT").into_bytes();
        (path, text.map(broken))
    });
    let broken = world.commit("Break it", &wrong.collect());
    assert_eq!(dev.outcome(&broken), "broken");
    prod.wait("it waits for dev", |state| {
        let status = state.ask(&["status", "--format", "json"]).json();
        let why = status["waits_for"]["why"].as_str().unwrap_or_default().to_owned();
        if why.contains("is broken there") { Ok(()) } else { Err(status.to_string()) }
    });
    std::thread::sleep(WAIT);
    assert_eq!(head(&prod), (first.clone(), Value::from("applied")));
    // Neither does it come when the controller starts anew.
    assert_eq!(prod.end().0.code(), Some(0), "{}", prod.told());
    prod.start();
    prod.wait("it is ready", State::is_ready);
    std::thread::sleep(WAIT);
    assert_eq!(head(&prod), (first, Value::from("applied")));

    let mended = world.commit("Mend it", &mesh::reader("extra"));
    assert_eq!(dev.outcome(&mended), "applied");
    assert_eq!(prod.outcome(&mended), "applied");
    dev.settle();
    prod.settle();
    assert_eq!(prod.contents(), dev.contents());
    // What a controller before has waited for is over.
    assert_eq!(prod.end().0.code(), Some(0), "{}", prod.told());
    let note = "{\"environment\": \"dev\", \"why\": \"it was so before\"}";
    std::fs::write(prod.folder().join("after.json"), note).expect("written");
    prod.start();
    prod.wait("nothing is waited for", |state| {
        let status = state.ask(&["status", "--format", "json"]).json();
        let over = status["controller"] == "running" && status["waits_for"].is_null();
        if over { Ok(()) } else { Err(status.to_string()) }
    });
    for state in [&mut dev, &mut prod] {
        assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    }
}
