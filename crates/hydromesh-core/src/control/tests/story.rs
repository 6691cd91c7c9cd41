//! The story of the demo, against a world in memory.

use super::mesh::{self, example, id, port_of, span};
use super::world::{DAY_MS, HOUR_MS, MINUTE_MS, World};
use crate::control::Event;
use crate::ids::ProductId;
use crate::ledger::{AlertKind, AlertState, ErrorKind, Fact, Outcome, RunOutcome, Verb};
use crate::model::BackfillOrder;
use crate::plan::{DueWork, Work, due_steps};

pub(super) fn mails(world: &World, kind: AlertKind) -> Vec<(String, String, AlertState)> {
    let of_kind = world.mails.iter().filter(|(_, alert)| alert.kind == kind);
    of_kind.map(|(to, alert)| (to.clone(), alert.product.to_string(), alert.state)).collect()
}

fn outcomes(world: &World, commit: &str) -> Vec<(Option<String>, Outcome)> {
    world
        .entries
        .iter()
        .filter_map(|entry| match &entry.fact {
            Fact::CommitOutcome { commit: of, product, outcome, .. } if of == commit => {
                Some((product.as_ref().map(ToString::to_string), *outcome))
            }
            _ => None,
        })
        .collect()
}

fn columns(world: &World, product: &str) -> Vec<String> {
    let id: ProductId = id(product);
    let deployed = &world.ledger().deployed[&id];
    let output = &deployed.product.outputs[&port_of(&id).port];
    output.contract.columns.iter().map(|column| column.name.clone()).collect()
}

#[test]
fn the_story_of_the_demo() {
    let mut world = World::new();

    // The first commit: nine products, inputs before readers, 90 days.
    let first = world.commit(|tree| *tree = example());
    assert_eq!(world.ledger().outcome(&first), Some(Outcome::Applied));
    let deployed: Vec<String> = world
        .entries
        .iter()
        .filter_map(|entry| match &entry.fact {
            Fact::Deployed { product, .. } => Some(product.id.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(deployed.len(), 9);
    let at = |name: &str| deployed.iter().position(|it| it == name).expect(name);
    assert!(at("commerce/orders") < at("commerce/daily-revenue"));
    assert!(at("customer/activity") < at("risk/churn-model"));
    insta::assert_debug_snapshot!(world.backfilled(0), @r#"
    {
        "commerce/daily-revenue": 90,
        "commerce/orders": 90,
        "customer/customer-360": 90,
        "customer/customers": 1,
        "risk/churn-model": 1,
        "support/article-search": 1,
        "support/articles": 1,
    }
    "#);
    assert!(world.plan().is_empty());
    let trained = world.started.iter().position(|it| it.key.work == Work::Train).expect("trained");
    let followed = world.started.iter().rposition(|it| it.key.work == Work::Follow).expect("followed");
    assert!(followed < trained, "features are there before a model is trained on them");
    assert_eq!(world.ledger().models[&id("risk/churn-model")].champion.map(|it| it.0), Some(1));
    assert!(world.mails.is_empty(), "{:?}", world.mails);

    // A pull request exposes a PII column; another product of the same commit goes on.
    world.advance(MINUTE_MS);
    let denied = world.commit(|tree| {
        let customers = tree.get_mut(&id("customer/customers")).expect("there");
        customers.columns[1].pii = true;
        tree.get_mut(&id("support/articles")).expect("there").add("title");
    });
    assert_eq!(
        outcomes(&world, &denied),
        [
            (Some("support/articles".to_owned()), Outcome::Applied),
            (Some("customer/customers".to_owned()), Outcome::Denied),
            (None, Outcome::Denied),
        ]
    );
    assert_eq!(columns(&world, "support/articles"), ["article_id", "body", "title"]);
    assert_eq!(
        mails(&world, AlertKind::Deploy),
        [("customer@example.org".to_owned(), "customer/customers".to_owned(), AlertState::Firing)]
    );
    // Neither time nor an unrelated commit that still carries it is news.
    world.pass(HOUR_MS, 5 * MINUTE_MS);
    world.commit(|tree| tree.get_mut(&id("support/articles")).expect("there").version = "1.1.0".to_owned());
    assert_eq!(mails(&world, AlertKind::Deploy).len(), 1);

    // Taking it back resolves it, to the same place.
    world.commit(|tree| tree.get_mut(&id("customer/customers")).expect("there").columns[1].pii = false);
    assert_eq!(mails(&world, AlertKind::Deploy).len(), 2);
    assert_eq!(mails(&world, AlertKind::Deploy)[1].2, AlertState::Resolved);
    assert!(world.plan().is_empty());

    // A good change backfills what reads it and nothing else.
    let before = world.entries.len();
    let good = world.commit(|tree| {
        tree.get_mut(&id("commerce/daily-revenue")).expect("there").add("orders = sum(orders.order_id)");
    });
    assert_eq!(world.ledger().outcome(&good), Some(Outcome::Applied));
    insta::assert_debug_snapshot!(world.backfilled(before), @r#"
    {
        "commerce/daily-revenue": 90,
    }
    "#);
    // A new column of an input that nobody reads yet leaves its readers alone.
    let before = world.entries.len();
    world.commit(|tree| tree.get_mut(&id("commerce/orders")).expect("there").add("discount"));
    insta::assert_debug_snapshot!(world.backfilled(before), @r#"
    {
        "commerce/orders": 90,
    }
    "#);

    // The world shifts: confirmed 3 of 5, alert, retraining after the cooldown, promotion, resolved.
    world.pass(3 * DAY_MS, 10 * MINUTE_MS);
    world.shifted_ms = Some(world.now_ms);
    let trainings = world.ledger().models[&id("risk/churn-model")].trained.len();
    world.pass(25 * MINUTE_MS, MINUTE_MS);
    assert!(mails(&world, AlertKind::Drift).is_empty(), "two comparisons confirm nothing");
    world.pass(15 * MINUTE_MS, MINUTE_MS);
    assert_eq!(
        mails(&world, AlertKind::Drift),
        [
            ("risk@example.org".to_owned(), "risk/churn-model".to_owned(), AlertState::Firing),
            ("risk@example.org".to_owned(), "risk/churn-model".to_owned(), AlertState::Resolved),
        ]
    );
    let models = &world.ledger().models[&id("risk/churn-model")];
    assert_eq!(models.trained.len(), trainings + 1);
    assert_eq!(models.champion.map(|it| it.0), Some(models.trained.len() as u64));

    // A stopped source: one mail, what reads it is held under the same incident, one resolved on its return.
    world.source_stopped = true;
    world.pass(2 * HOUR_MS, MINUTE_MS);
    let fresh = |state| ("commerce@example.org".to_owned(), "commerce/clickstream".to_owned(), state);
    assert_eq!(mails(&world, AlertKind::Freshness), [fresh(AlertState::Firing)]);
    let held = (id("customer/activity"), AlertKind::Freshness, "activity".to_owned());
    let episode = &world.ledger().episodes[&world.ledger().open[&held]];
    assert_eq!(episode.last().state, AlertState::Held);
    assert!(episode.last().caused_by.as_deref().is_some_and(|it| it.starts_with("commerce/clickstream")));
    world.source_stopped = false;
    world.pass(HOUR_MS, MINUTE_MS);
    assert_eq!(mails(&world, AlertKind::Freshness), [fresh(AlertState::Firing), fresh(AlertState::Resolved)]);
    assert!(world.ledger().open.is_empty());

    // P1: one outcome of each commit.
    for (commit, _) in &world.commits {
        let whole = outcomes(&world, commit).into_iter().filter(|(product, _)| product.is_none()).count();
        assert_eq!(whole, 1, "{commit}");
    }
}

#[test]
fn a_commit_that_is_overtaken_is_superseded() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let overtaken = world.push(|tree| tree.get_mut(&id("support/articles")).expect("there").add("title"));
    world.look();
    // The gate has not answered; the next commit comes.
    world.at_work.inbox.clear();
    let newest = world.push(|tree| tree.get_mut(&id("support/articles")).expect("there").add("language"));
    world.look();
    world.rest();
    assert_eq!(outcomes(&world, &overtaken), [(None, Outcome::Superseded)]);
    assert_eq!(world.ledger().outcome(&newest), Some(Outcome::Applied));
    // Commits that were never looked at.
    let passed = vec![("c0ffee".to_owned(), "passed".to_owned(), "someone".to_owned())];
    world.step(super::super::Event::Superseded { commits: passed, by: newest.clone() });
    assert_eq!(outcomes(&world, "c0ffee"), [(None, Outcome::Superseded)]);
    assert_eq!(world.ledger().head.as_deref(), Some(newest.as_str()), "the head stays where it is");
}

#[test]
fn a_commit_in_flight_is_decided_after_a_start_even_if_another_came() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let lost = world.push(|tree| tree.get_mut(&id("support/articles")).expect("there").add("title"));
    world.look();
    world.push(|tree| tree.get_mut(&id("support/articles")).expect("there").add("language"));
    world.crash();
    world.rest();
    assert_eq!(outcomes(&world, &lost), [(None, Outcome::Superseded)]);
    assert!(world.plan().is_empty());
}

#[test]
fn an_empty_mesh_retires_nothing_and_a_revert_is_the_roll_back() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let before = world.ledger().deployed.len();
    let emptied = world.commit(mesh::Tree::clear);
    assert_eq!(world.ledger().outcome(&emptied), Some(Outcome::Held));
    world.crash();
    world.rest();
    assert_eq!(outcomes(&world, &emptied), [(None, Outcome::Held)], "once, also after a start");
    assert_eq!(world.ledger().deployed.len(), before);
    // One that is left and does not check makes no difference: the others would be gone.
    let left = world.commit(|tree| {
        *tree = example();
        tree.retain(|product, _| *product == id("commerce/orders"));
        tree.get_mut(&id("commerce/orders")).expect("there").broken = true;
    });
    assert_eq!(world.ledger().outcome(&left), Some(Outcome::Held));
    assert_eq!(world.ledger().deployed.len(), before);
    // A revert brings the tree back: nothing to do. A reverted change is computed back.
    world.commit(|tree| *tree = example());
    assert!(world.plan().is_empty());
    world.commit(|tree| {
        tree.get_mut(&id("commerce/daily-revenue")).expect("there").columns[2].expression =
            "sum(x)".to_owned();
    });
    let entries = world.entries.len();
    world.commit(|tree| *tree = example());
    insta::assert_debug_snapshot!(world.backfilled(entries), @r#"
    {
        "commerce/daily-revenue": 90,
    }
    "#);
}

#[test]
fn a_retired_product_goes_and_one_that_is_read_stays() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    world.commit(|tree| _ = tree.remove(&id("commerce/daily-revenue")));
    assert!(!world.ledger().deployed.contains_key(&id("commerce/daily-revenue")));
    // Its reader does not check any more, stays deployed and keeps its input.
    let commit = world.commit(|tree| _ = tree.remove(&id("support/articles")));
    assert!(world.ledger().deployed.contains_key(&id("support/articles")));
    assert_eq!(world.ledger().outcome(&commit), Some(Outcome::Broken));
    world.assert_readers_check();
}

#[test]
fn readers_of_a_denied_product_are_planned_over_what_is_deployed() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let before = world.entries.len();
    // What daily-revenue reads changes, but the change is denied: nothing changes for its readers.
    let commit = world.commit(|tree| {
        let orders = tree.get_mut(&id("commerce/orders")).expect("there");
        orders.columns[6].expression = "order_files.amount * 2".to_owned();
        orders.columns[1].pii = true;
    });
    assert_eq!(
        outcomes(&world, &commit),
        [(Some("commerce/orders".to_owned()), Outcome::Denied), (None, Outcome::Denied)]
    );
    assert!(world.backfilled(before).is_empty());
    // Once it is allowed, everything that reads the column follows.
    world.commit(|tree| tree.get_mut(&id("commerce/orders")).expect("there").columns[1].pii = false);
    insta::assert_debug_snapshot!(world.backfilled(before), @r#"
    {
        "commerce/daily-revenue": 90,
        "commerce/orders": 90,
    }
    "#);
    assert!(world.plan().is_empty());
}

#[test]
fn a_reader_that_may_not_follow_sees_the_new_values_all_the_same() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let before = world.entries.len();
    world.commit(|tree| {
        let orders = tree.get_mut(&id("commerce/orders")).expect("there");
        orders.columns[6].expression = "order_files.amount * 2".to_owned();
        tree.get_mut(&id("commerce/daily-revenue")).expect("there").columns[1].pii = true;
    });
    insta::assert_debug_snapshot!(world.backfilled(before), @r#"
    {
        "commerce/daily-revenue": 90,
        "commerce/orders": 90,
    }
    "#);
}

#[test]
fn a_column_that_is_read_is_held_until_its_reader_lets_go() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    // The reader is denied, so it stays; its input may not lose the column.
    let commit = world.commit(|tree| {
        tree.get_mut(&id("commerce/orders"))
            .expect("there")
            .columns
            .retain(|column| column.name != "country");
        let revenue = tree.get_mut(&id("commerce/daily-revenue")).expect("there");
        revenue.columns.retain(|column| column.name != "country");
        revenue.columns[0].pii = true;
    });
    world.assert_readers_check();
    assert_eq!(
        outcomes(&world, &commit),
        [
            (Some("commerce/daily-revenue".to_owned()), Outcome::Denied),
            (Some("commerce/orders".to_owned()), Outcome::Held),
            (None, Outcome::Denied),
        ]
    );
    // A rule of the day lets it through later, without another commit.
    world.policy = Box::new(|_, _| vec![]);
    world.pass(15 * MINUTE_MS, MINUTE_MS);
    assert_eq!(world.ledger().outcome(&commit), Some(Outcome::Applied));
    assert!(world.plan().is_empty());
    world.assert_readers_check();
    assert!(world.ledger().open.is_empty());
}

#[test]
fn a_day_reaches_its_readers_after_its_source() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let before = world.entries.len();
    // Midnight UTC: the day has ended, but orders come at a quarter past two in Zurich.
    world.pass(18 * HOUR_MS + 30 * MINUTE_MS, 10 * MINUTE_MS);
    assert!(world.backfilled(before).is_empty(), "{:?}", world.backfilled(before));
    world.pass(HOUR_MS, 10 * MINUTE_MS);
    insta::assert_debug_snapshot!(world.backfilled(before), @r#"
    {
        "commerce/daily-revenue": 1,
        "commerce/orders": 1,
        "customer/customer-360": 2,
    }
    "#);
}

#[test]
fn each_partition_waits_for_its_own_inputs_alone() {
    let mut world = World::new();
    let (orders, revenue) = (id("commerce/orders"), id("commerce/daily-revenue"));
    // One of six chunks, in the middle, fails for good; another product reads all of the table, and waits for it.
    let well = std::iter::repeat_n((ErrorKind::User, ""), 32);
    world.failures.insert(orders.clone(), well.chain([(ErrorKind::User, "HM-Q001")]).collect());
    world.commit(|tree| *tree = example());
    insta::assert_debug_snapshot!(world.backfilled(0), @r#"
    {
        "commerce/daily-revenue": 75,
        "commerce/orders": 75,
        "customer/customers": 1,
        "risk/churn-model": 1,
        "support/article-search": 1,
        "support/articles": 1,
    }
    "#);
    let (due, waiting) = due_steps(world.ledger(), world.now_ms);
    assert!(due.iter().all(|step| step.key.work == Work::Follow), "{due:?}");
    let why: Vec<String> = waiting.iter().map(|it| format!("{}: {}", it.pipeline, it.why)).collect();
    insta::assert_debug_snapshot!(why, @r#"
    [
        "commerce/orders:orders: failed with HM-Q001: injected; waits for a new commit or new input",
        "commerce/daily-revenue:daily-revenue: 15 partitions waiting for commerce/orders.orders: failed with HM-Q001: injected; waits for a new commit or new input",
        "customer/customer-360:customer-360: waits for commerce/orders.orders: failed with HM-Q001: injected; waits for a new commit or new input",
        "risk/churn-model:churn-model: features are compared again",
    ]
    "#);
    // What can not begin has no pace.
    let mut work = DueWork::default();
    let _ = work.refresh(world.ledger(), world.now_ms);
    let left = |id| -> Vec<_> {
        let progress = work.progress(id, world.ledger(), world.now_ms);
        progress.into_iter().map(|it| (it.left, it.of, it.left_ms)).collect()
    };
    assert_eq!((left(&orders), left(&revenue)), (vec![(15, 90, None)], vec![(15, 90, None)]));
    world.ask("retry", Verb::Retry { product: orders });
    world.rest();
    assert_eq!(world.backfilled(0)[&revenue.to_string()], 90);
    // Days that come back the same give their readers nothing to do.
    let before = world.entries.len();
    let (from, to) = ("2026-10-01".to_owned(), "2026-10-02".to_owned());
    world.ask("again", Verb::Backfill { product: id("commerce/orders"), from, to });
    world.rest();
    insta::assert_debug_snapshot!(world.backfilled(before), @r#"
    {
        "commerce/orders": 2,
    }
    "#);
}

#[test]
fn the_newest_days_come_first_and_then_the_backlog_from_its_oldest_day_on() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let of_orders = |world: &World| -> Vec<String> {
        let runs = world.started.iter().filter(|it| it.key.pipeline.product == id("commerce/orders"));
        runs.map(|it| it.key.to_string()).collect()
    };
    let mut runs = of_orders(&world);
    assert_eq!(runs.len(), 6);
    let newest = runs.remove(0);
    assert!(runs.is_sorted() && runs.iter().all(|run| *run < newest), "{newest}, {runs:?}");

    // While old days are computed once more, a day ends: it is computed next, before what is left of them.
    let (from, to) = ("2026-08-03".to_owned(), "2026-10-01".to_owned());
    world.ask("again", Verb::Backfill { product: id("commerce/orders"), from, to });
    while world.deliver() {}
    assert_eq!(of_orders(&world).len(), 8, "two at once");
    world.advance(DAY_MS);
    world.step(Event::Tick);
    world.rest();
    let runs = of_orders(&world).split_off(6);
    insta::assert_debug_snapshot!(runs, @r#"
    [
        "commerce/orders:orders@2026-08-03..2026-08-17",
        "commerce/orders:orders@2026-08-18..2026-09-01",
        "commerce/orders:orders@2026-11-01..2026-11-01",
        "commerce/orders:orders@2026-09-02..2026-09-16",
        "commerce/orders:orders@2026-09-17..2026-10-01",
    ]
    "#);
}

#[test]
fn a_step_that_takes_longer_than_it_may_is_stopped_and_tried_again() {
    let mut world = World::new();
    let product = id("commerce/orders");
    world.commit(|tree| {
        *tree = example();
        let orders = tree.get_mut(&id("commerce/orders")).expect("there");
        (orders.timeout, orders.retry.attempts) = (Some(span("10m")), 2);
    });
    let (from, to) = ("2026-08-03".to_owned(), "2026-08-17".to_owned());
    let hang = |world: &mut World, minutes| {
        // The steps that began say nothing for a while.
        while world.deliver() {}
        world.advance(minutes * MINUTE_MS);
        world.step(Event::Tick);
        while world.deliver() {}
    };
    let ended = |world: &World| -> Vec<RunOutcome> {
        let ends = world.entries.iter().filter_map(|entry| match &entry.fact {
            Fact::RunFinished { step, outcome, .. } if step.pipeline.product == product => {
                Some(outcome.clone())
            }
            _ => None,
        });
        ends.skip(6).collect()
    };
    world.ask("again", Verb::Backfill { product: product.clone(), from, to });
    hang(&mut world, 9);
    assert!(ended(&world).is_empty());
    hang(&mut world, 1);
    world.rest();
    let late = RunOutcome::Failed {
        kind: ErrorKind::External,
        code: "HM-X011".to_owned(),
        message: "it took longer than `timeout: 10m`".to_owned(),
    };
    assert_eq!(ended(&world), std::slice::from_ref(&late));
    // The second attempt hangs too, and its owners are told; one that is asked for and is quick mends it.
    hang(&mut world, 1);
    hang(&mut world, 10);
    world.rest();
    assert_eq!(ended(&world), [late.clone(), late]);
    assert_eq!(mails(&world, AlertKind::Run).len(), 1);
    world.ask("1", Verb::Retry { product: product.clone() });
    world.rest();
    assert!(matches!(ended(&world).as_slice(), [_, _, RunOutcome::Succeeded { .. }]));
    assert_eq!(mails(&world, AlertKind::Run).len(), 2, "resolved");
}

#[test]
fn the_newest_days_come_first_where_the_pipeline_says_so() {
    let mut world = World::new();
    world.commit(|tree| {
        *tree = example();
        let orders = tree.get_mut(&id("commerce/orders")).expect("there");
        orders.order = BackfillOrder::NewestFirst;
    });
    let ran = |product: &str| -> Vec<String> {
        let of_it = world.started.iter().filter(|it| it.key.pipeline.product == id(product));
        of_it.map(|it| it.key.to_string()).collect()
    };
    let orders = ran("commerce/orders");
    assert_eq!(orders.len(), 6);
    assert!(orders.is_sorted_by(|left, right| left > right), "{orders:?}");
    // Who reads each day alone goes along, and computes nothing twice.
    let revenue = ran("commerce/daily-revenue");
    assert!(revenue.first() > revenue.last(), "{revenue:?}");
    assert_eq!(world.backfilled(0)["commerce/daily-revenue"], 90);
}

#[test]
fn failures_wait_and_are_told_once_by_pipeline() {
    let mut world = World::new();
    let product = id("commerce/orders");
    let external = (ErrorKind::External, "HM-X001");
    world.failures.insert(product.clone(), [external; 12].into());
    world.commit(|tree| {
        *tree = example();
        tree.get_mut(&id("commerce/orders")).expect("there").retry.attempts = 2;
    });
    // All six chunks fail; they are tried again after a pause, fail for good and are one incident.
    assert!(mails(&world, AlertKind::Run).is_empty());
    world.pass(5 * MINUTE_MS, MINUTE_MS);
    let fired = ("commerce@example.org".to_owned(), product.to_string(), AlertState::Firing);
    assert_eq!(mails(&world, AlertKind::Run), [fired]);
    world.ask("1", Verb::Retry { product: product.clone() });
    world.rest();
    assert_eq!(mails(&world, AlertKind::Run).len(), 2);
    assert!(world.ledger().failed.is_empty());
    // An audit that fails in the middle of a chunk keeps the rest and waits for new input or another commit.
    world.failures.insert(product.clone(), [(ErrorKind::User, "HM-Q001")].into());
    world.pass(DAY_MS, 10 * MINUTE_MS);
    let quality = mails(&world, AlertKind::Quality);
    assert_eq!(quality.len(), 1, "{quality:?}");
    let attempts = world.started.iter().filter(|it| it.key.to_string().contains("2026-11-01")).count();
    assert_eq!(attempts, 1, "the same attempt would fail again");
    world.commit(|tree| tree.get_mut(&id("commerce/orders")).expect("there").version = "1.0.1".to_owned());
    assert_eq!(mails(&world, AlertKind::Quality).len(), 2);
}

#[test]
fn a_model_is_kept_when_the_challenger_is_worse_and_follows_are_taken_up_again() {
    use crate::ledger::ErrorKind;
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    world.challenger = 0.7;
    world.ask("1", Verb::Run { product: id("risk/churn-model") });
    world.rest();
    let models = &world.ledger().models[&id("risk/churn-model")];
    assert_eq!((models.trained.len(), models.champion.map(|it| it.0)), (2, Some(1)));
    // The gate may say no to a better one.
    world.challenger = 0.9;
    world.policy = Box::new(|question, _| if question.action == "promote" { vec!["freeze"] } else { vec![] });
    world.pass(MINUTE_MS, MINUTE_MS);
    world.ask("2", Verb::Run { product: id("risk/churn-model") });
    world.rest();
    let models = &world.ledger().models[&id("risk/churn-model")];
    assert_eq!((models.trained.len(), models.champion.map(|it| it.0)), (3, Some(1)));
    // A stream that dies is followed again, with a pause that grows, for ever; its reader does not stop.
    let follows = |world: &World, name: &str| {
        let product = id(name);
        world.started.iter().filter(|it| it.key.pipeline.product == product).count()
    };
    let before = (follows(&world, "commerce/clickstream"), follows(&world, "customer/activity"));
    world.failures.insert(id("commerce/clickstream"), [(ErrorKind::External, "HM-X001"); 5].into());
    world.pass(2 * HOUR_MS, MINUTE_MS);
    let after = (follows(&world, "commerce/clickstream"), follows(&world, "customer/activity"));
    assert_eq!((after.0 - before.0, after.1 - before.1), (5, 0));
    assert_eq!(mails(&world, AlertKind::Run).len(), 2, "told after three, resolved");
}

#[test]
fn another_description_restarts_nothing() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let started = world.started.len();
    let metadata = world.commit(|tree| {
        for spec in tree.values_mut() {
            spec.promise = Some(span("99d"));
        }
    });
    assert_eq!(world.ledger().outcome(&metadata), Some(Outcome::Applied));
    assert!(world.started.len() <= started + 1, "{:?}", &world.started[started..]);
}
