//! What people ask for by hand.

use super::mesh::{example, id};
use super::story::mails;
use super::world::{DAY_MS, HOUR_MS, MINUTE_MS, World};
use crate::ids::ProductId;
use crate::ledger::{AlertKind, Fact, Verb};
use crate::plan::{Work, due_steps};

#[test]
fn a_backfill_by_hand_asks_the_gate() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let product = id("commerce/orders");
    let backfill = |from: &str, to: &str| Verb::Backfill {
        product: id("commerce/orders"),
        from: from.to_owned(),
        to: to.to_owned(),
    };
    let answer = |world: &World, command: &str| {
        world.entries.iter().find_map(|entry| match &entry.fact {
            Fact::CommandAnswered { id, accepted, answer } if id == command => {
                Some((*accepted, answer.clone()))
            }
            _ => None,
        })
    };
    let before = world.entries.len();
    world.policy =
        Box::new(|question, _| if question.action == "backfill" { vec!["too_many"] } else { vec![] });
    world.ask("1", backfill("2026-08-10", "2026-08-12"));
    world.rest();
    assert_eq!(answer(&world, "1"), Some((false, "denied by too_many: too_many says no".to_owned())));
    world.policy = Box::new(|_, _| vec![]);
    world.ask("2", backfill("2026-08-10", "2026-08-12"));
    // The process ends before the gate has answered; the command is not forgotten, nor done twice.
    world.crash();
    world.rest();
    assert_eq!(answer(&world, "2").map(|it| it.0), Some(true));
    world.ask("2", backfill("2026-08-10", "2026-08-12"));
    world.rest();
    // The same rows come out, so that nobody downstream has anything to do.
    insta::assert_debug_snapshot!(world.backfilled(before), @r#"
    {
        "commerce/orders": 3,
    }
    "#);
    world.ask("3", backfill("2030-01-01", "2030-01-02"));
    world.ask("4", Verb::Run { product: id("commerce/clickstream") });
    world.ask("5", Verb::Run { product: id("a/b") });
    world.rest();
    for command in ["3", "4", "5"] {
        assert_eq!(answer(&world, command).map(|it| it.0), Some(false), "{command}");
    }
    assert!(world.ledger().decisions.iter().any(|(_, it)| it.action == "backfill" && it.product == product));
}

#[test]
fn a_silenced_product_is_told_about_when_the_silence_ends() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    world.pass(2 * HOUR_MS, 10 * MINUTE_MS);
    let until_ms = world.now_ms + 2 * HOUR_MS;
    world.ask("1", Verb::Silence { product: id("commerce/clickstream"), until_ms });
    world.source_stopped = true;
    world.pass(HOUR_MS, MINUTE_MS);
    assert_eq!(
        mails(&world, AlertKind::Freshness).iter().filter(|it| it.1 == "commerce/clickstream").count(),
        0
    );
    world.pass(2 * HOUR_MS, MINUTE_MS);
    assert_eq!(
        mails(&world, AlertKind::Freshness).iter().filter(|it| it.1 == "commerce/clickstream").count(),
        1
    );
}

#[test]
fn a_paused_product_begins_nothing_until_it_goes_on() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let (revenue, clicks) = (id("commerce/daily-revenue"), id("commerce/clickstream"));
    let follows = |world: &World| world.ledger().running.values().any(|it| it.pipeline.product == clicks);
    assert!(follows(&world));
    let until_ms = Some(world.now_ms + 48 * HOUR_MS);
    world.ask("1", Verb::Pause { product: revenue.clone(), until_ms, backfills: false });
    world.ask("2", Verb::Pause { product: clicks.clone(), until_ms: None, backfills: false });
    world.rest();
    assert!(!follows(&world), "it is stopped");
    let before = world.entries.len();
    world.pass(40 * HOUR_MS, 30 * MINUTE_MS);
    let published = world.backfilled(before);
    assert!(
        published["commerce/orders"] > 0 && !published.contains_key(&revenue.to_string()),
        "{published:?}"
    );
    let (_, waiting) = due_steps(world.ledger(), world.now_ms);
    let why = waiting.iter().find(|it| it.pipeline.product == clicks).map(|it| it.why.as_str());
    assert_eq!(why, Some("paused by someone: because; waits for `hydromesh resume commerce/clickstream`"));
    // Its promises stand.
    assert!(mails(&world, AlertKind::Freshness).iter().any(|(_, product, _)| *product == clicks.to_string()));
    // One pause ends by time, the other by hand.
    world.pass(9 * HOUR_MS, 30 * MINUTE_MS);
    assert!(world.backfilled(before).contains_key(&revenue.to_string()));
    assert!(!follows(&world));
    world.ask("3", Verb::Resume { product: clicks.clone() });
    world.rest();
    assert!(follows(&world));
    world.ask("4", Verb::Resume { product: clicks.clone() });
    assert_eq!(world.ledger().answers["4"], (false, "commerce/clickstream is not paused".to_owned()));
}

/// Returns a world in which the first product is being read, it, and the run.
fn reading_orders() -> (World, ProductId, String) {
    let mut world = World::new();
    let product = id("commerce/orders");
    world.push(|tree| *tree = example());
    world.look();
    while world.deliver() {}
    let run = world.at_work.running.values().find(|it| it.start.key.pipeline.product == product);
    let run = run.expect("it is read first").start.run.clone();
    (world, product, run)
}

/// Found by seed 14253002521440.
#[test]
fn a_retry_that_comes_before_a_cancelled_run_has_ended_counts() {
    let (mut world, product, run) = reading_orders();
    world.ask("1", Verb::Cancel { product: product.clone(), run: run.clone() });
    assert!(world.ledger().running.contains_key(&run), "it has not heard of it");
    world.ask("2", Verb::Retry { product: product.clone() });
    // Whoever stopped it is gone, and so is its process.
    world.crash();
    world.pass(DAY_MS, 10 * MINUTE_MS);
    assert_eq!(world.ledger().failed.len(), 0, "{:?}", world.ledger().failed);
    assert!(world.backfilled(0)[&product.to_string()] >= 90, "{:?}", world.backfilled(0));
}

#[test]
fn a_backlog_that_is_paused_waits_and_what_is_new_goes_on() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    world.rest();
    let revenue = id("commerce/daily-revenue");
    let pause = |product: &ProductId| {
        let product = product.clone();
        Verb::Pause { product, until_ms: None, backfills: true }
    };
    world.ask("1", pause(&revenue));
    world.ask("2", pause(&id("commerce/clickstream")));
    let (accepted, why) = world.ledger().answers["2"].clone();
    assert!(!accepted && why.contains("no backlog"), "{why}");
    // All of its history is asked for again, and none of it begins.
    let (from, to) = ("2026-08-03".to_owned(), "2026-09-30".to_owned());
    world.ask("3", Verb::Backfill { product: revenue.clone(), from, to });
    let before = world.entries.len();
    world.pass(50 * HOUR_MS, 30 * MINUTE_MS);
    let published = world.backfilled(before);
    assert_eq!(
        published.get("commerce/daily-revenue"),
        Some(&2),
        "two days have ended meanwhile: {published:?}"
    );
    let (due, waiting) = due_steps(world.ledger(), world.now_ms);
    assert!(due.iter().all(|it| it.key.pipeline.product != revenue), "{due:?}");
    let why = waiting.iter().find(|it| it.pipeline.product == revenue).map(|it| it.why.as_str());
    assert_eq!(
        why,
        Some("backfills paused by someone: because; waits for `hydromesh resume commerce/daily-revenue`")
    );
    world.ask("4", Verb::Resume { product: revenue.clone() });
    world.rest();
    assert_eq!(world.backfilled(before).get("commerce/daily-revenue"), Some(&(2 + 59)));
}

#[test]
fn a_cancelled_step_waits_until_somebody_wants_it_again() {
    let (mut world, product, run) = reading_orders();
    let cancel = |run: &str| Verb::Cancel { product: product.clone(), run: run.to_owned() };
    world.ask("1", cancel(&run));
    world.ask("2", cancel("run-99999999"));
    assert!(!world.ledger().answers["2"].0);
    // Its writer dies before the step has heard of it.
    world.crash();
    world.pass(DAY_MS, 10 * MINUTE_MS);
    assert_eq!(world.ledger().failed.len(), 1, "{:?}", world.ledger().failed);
    let (_, waiting) = due_steps(world.ledger(), world.now_ms);
    let why = waiting.iter().find(|it| it.pipeline.product == product).map(|it| it.why.as_str());
    assert_eq!(why, Some("cancelled by someone: because; waits for `hydromesh retry commerce/orders`"));
    assert!(mails(&world, AlertKind::Run).is_empty(), "who cancels knows");
    let before = world.backfilled(0)["commerce/orders"];
    assert_eq!(before, 76, "the others went on, and a new day came");
    world.ask("3", Verb::Retry { product: product.clone() });
    world.rest();
    assert_eq!(world.backfilled(0)["commerce/orders"], 91);
    let follows = world.ledger().running.iter().find(|(_, step)| step.work == Work::Follow);
    let (run, step) = follows.map(|(run, step)| (run.clone(), step.clone())).expect("a stream");
    world.ask("4", Verb::Cancel { product: step.pipeline.product, run });
    assert!(world.ledger().answers["4"].1.contains("hydromesh pause"));
}
