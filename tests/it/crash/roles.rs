//! The roles as processes of their own: any of them is killed, and nothing is lost but time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::mesh::{self, DAYS, Files, SALES_A_DAY};
use super::world::{State, World};
use super::{DAILY, Dice, EVENTS, Messages, SALES};

const BESIDE: &str = "control,stream,serve";

/// A product whose rule fails on what it computes: every country is there as often as it has sales.
fn faulty() -> Files {
    let mut files = mesh::reader("faulty");
    let sql = "SELECT country, CAST(1 AS BIGINT) AS sales FROM sales\n";
    files.insert("domains/shop/faulty/faulty.sql".to_owned(), Some(sql.into()));
    files
}

/// Returns product, kind and state of every alert, in order.
fn alerts(state: &State<'_>) -> Result<Vec<String>, String> {
    let list = state.json(&["alerts", "list"])?;
    let one = |it: &Value| format!("{} {} {}", it["product"], it["kind"], it["state"]).replace('"', "");
    let mut all: Vec<String> = list["alerts"].as_array().expect("alerts").iter().map(one).collect();
    all.sort();
    Ok(all)
}

#[track_caller]
fn wait_for_alert(state: &mut State<'_>, wanted: &str) {
    state.wait(wanted, |state| {
        let alerts = alerts(state)?;
        if alerts.iter().any(|it| it == wanted) { Ok(()) } else { Err(format!("{alerts:?}")) }
    });
}

/// What a mesh looks like when the story of the test is over.
#[derive(Debug, PartialEq)]
struct Ending {
    tables: BTreeMap<String, String>,
    alerts: Vec<String>,
    mails: Vec<String>,
}

impl Ending {
    /// Repairs the mesh, waits until all is quiet, and ends the controller.
    #[track_caller]
    fn of(world: &World, state: &mut State<'_>, messages: &Messages) -> Self {
        let sound = mesh::reader("faulty")["domains/shop/faulty/faulty.sql"].clone();
        let mut repair: Files = mesh::reader("secret").into_keys().map(|path| (path, None)).collect();
        repair.insert("domains/shop/faulty/faulty.sql".to_owned(), sound);
        world.commit("Repair", &repair);
        state.settle();
        messages.wait_for_all(state);
        state.wait("every alert resolved and told", |state| {
            let (alerts, mails) = (alerts(state)?, state.mails());
            let over = alerts.iter().all(|it| it.ends_with(" resolved"));
            if over && mails.len() >= 2 * alerts.len() {
                Ok(())
            } else {
                Err(format!("{alerts:?} {mails:?}"))
            }
        });
        let (status, _) = state.end();
        assert_eq!(status.code(), Some(0), "{}", state.told());
        Self { tables: state.contents(), alerts: alerts(state).expect("alerts"), mails: state.mails() }
    }
}

#[test]
fn killing_the_work_role_in_a_backfill_loses_no_row_and_no_alert() {
    let world = World::new("1d");
    let messages = Messages::new(world.now_ms);
    let mut dice = Dice::new();

    let mut state = world.state("killed-work");
    state.produce(messages.part(0));
    state.start_as(BESIDE);
    for round in 0..2 {
        state.start_beside("work");
        let before = state.table(SALES).0 + state.table(DAILY).0;
        state.wait("a step of the backfill", |state| {
            let now = state.table(SALES).0 + state.table(DAILY).0;
            if now >= before + 6 { Ok(()) } else { Err(format!("{now} commits after {before}")) }
        });
        dice.linger(150);
        println!("round {round}: {:?} {:?}", state.table(SALES), state.table(DAILY));
        state.kill_beside("work");
    }
    assert!(state.table(DAILY).1 < DAYS * 3, "it was killed within the backfill");

    // Nobody works: the others go on. A commit is denied and its owner is told, and the stream is followed.
    let denied = world.commit("Add what is not allowed", &mesh::reader("secret"));
    state.wait("a denial", |state| {
        let status = state.json(&["status"])?;
        let right = status["commit"]["commit"] == json!(denied) && status["commit"]["outcome"] == "denied";
        if right { Ok(()) } else { Err(status.to_string()) }
    });
    wait_for_alert(&mut state, "shop/secret deploy firing");
    let before = state.table(EVENTS).1;
    state.produce(&messages.lines[messages.part(0).len()..]);
    state.wait("the stream", |state| {
        let rows = state.table(EVENTS).1;
        if rows > before { Ok(()) } else { Err(format!("{rows} rows")) }
    });
    state.wait("mail of the denial", |state| {
        if state.mails().is_empty() { Err("no mail".to_owned()) } else { Ok(()) }
    });

    // A failing rule, and a worker that is killed about when it finds that out.
    state.start_beside("work");
    world.commit("Add what fails its own rule", &faulty());
    dice.linger(2_500);
    state.kill_beside("work");
    state.start_beside("work");
    wait_for_alert(&mut state, "shop/faulty quality firing");
    let ending = Ending::of(&world, &mut state, &messages);
    assert_eq!(state.end_beside("work").code(), Some(0), "{}", state.told());
    assert_eq!((state.table(SALES).1, state.table(DAILY).1), (DAYS * SALES_A_DAY, DAYS * 3));

    // The same in one process that nobody disturbs.
    let world = World::at("1d", world.now_ms);
    let mut calm = world.state("calm-work");
    calm.produce(&messages.lines);
    calm.start();
    calm.settle();
    world.commit("Add what is not allowed", &mesh::reader("secret"));
    wait_for_alert(&mut calm, "shop/secret deploy firing");
    world.commit("Add what fails its own rule", &faulty());
    wait_for_alert(&mut calm, "shop/faulty quality firing");
    assert_eq!(ending, Ending::of(&world, &mut calm, &messages));
}

#[test]
fn a_stopped_worker_that_wakes_up_disturbs_nothing() {
    let world = World::new("1d");
    let messages = Messages::new(world.now_ms);
    let mut state = world.state("stopped-work");
    state.produce(&messages.lines);
    state.start_as(BESIDE);
    state.start_beside("work");
    state.wait("the backfill", |state| {
        let (version, _) = state.table(SALES);
        if version >= 1 { Ok(()) } else { Err(format!("version {version}")) }
    });
    // In whatever it does with a step in its hands: nobody waits for it.
    state.wait("a step to be stopped in", |state| {
        state.signal_beside("work", "STOP");
        // What it had reported by then is heard by now, and is no longer in its hands.
        std::thread::sleep(Duration::from_millis(300));
        if state.is_a_step_taken() {
            return Ok(());
        }
        state.signal_beside("work", "CONT");
        Err("it was stopped between two steps".to_owned())
    });
    // Its successor takes over once it has been silent for too long, and does everything.
    state.start_beside_as("successor", "work");
    state.settle();
    let before = state.contents();
    state.signal_beside("work", "CONT");
    std::thread::sleep(Duration::from_secs(3));
    state.settle();
    messages.wait_for_all(&mut state);
    let after = state.contents();
    assert_eq!((&before[SALES], &before[DAILY]), (&after[SALES], &after[DAILY]));
    assert_eq!((state.table(SALES).1, state.table(DAILY).1), (DAYS * SALES_A_DAY, DAYS * 3));
    assert!(state.told().contains("is gone; the step is tried again"), "{}", state.told());
    assert_eq!(state.end_beside("work").code(), Some(0), "{}", state.told());
    assert_eq!(state.end_beside("successor").code(), Some(0), "{}", state.told());
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}

#[test]
fn a_controller_that_is_killed_finds_its_workers_and_servers_again() {
    let world = World::new("1d");
    let messages = Messages::new(world.now_ms);
    let mut state = world.state("killed-control");
    state.produce(messages.part(0));
    // In any order: they wait for the controller.
    for role in ["work", "stream", "serve"] {
        state.start_beside(role);
    }
    state.start_as("control");
    state.wait("the backfill", |state| {
        let (version, _) = state.table(SALES);
        if version >= 3 { Ok(()) } else { Err(format!("version {version}")) }
    });
    state.kill();
    // Nobody decides; what is known is still served.
    assert!(state.get("/healthz").starts_with("HTTP/1.1 200"));
    state.start_as("control");
    state.produce(&messages.lines[messages.part(0).len()..]);
    state.settle();
    messages.wait_for_all(&mut state);
    assert_eq!((state.table(SALES).1, state.table(DAILY).1), (DAYS * SALES_A_DAY, DAYS * 3));
    let page = state.get("/p/shop/daily/");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("shop/daily"), "{page}");
    let metrics = state.get("/metrics");
    assert!(metrics.contains("hydromesh_"), "{metrics}");
    for role in ["work", "stream", "serve"] {
        assert_eq!(state.end_beside(role).code(), Some(0), "{role}: {}", state.told());
    }
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}
