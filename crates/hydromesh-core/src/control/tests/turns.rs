//! Whose turn it is, and how many run at once.

use super::mesh::{Made, Spec, Tree, example, id, span};
use super::world::{MINUTE_MS, World};
use crate::control::{Event, Left};
use crate::ledger::{ErrorKind, Fact, RunOutcome, Verb};
use crate::plan::{Work, no_place};

/// Puts everything that ends by itself into one pool; the environment then takes three steps at once, one of each product.
fn share(tree: &mut Tree) {
    for spec in tree.values_mut() {
        spec.pool = Some("shared");
    }
}

/// Asks for a product's whole history.
fn again(world: &mut World, product: &str) {
    let (from, to) = ("2026-08-03".to_owned(), "2026-11-01".to_owned());
    let command = format!("again-{}", world.entries.len());
    world.ask(&command, Verb::Backfill { product: id(product), from, to });
}

/// Returns the products of bounded steps in the order in which they began, since a place in the ledger.
fn began(world: &World, since: usize) -> Vec<String> {
    let entries = world.entries[since..].iter();
    entries
        .filter_map(|entry| match &entry.fact {
            Fact::RunStarted { step, .. } if !matches!(step.work, Work::Follow | Work::Tend) => {
                Some(step.pipeline.product.name.to_string())
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_pool_takes_one_step_at_a_time_and_says_whose() {
    let mut world = World::new();
    world.commit(|tree| {
        *tree = example();
        share(tree);
    });
    assert_eq!(world.ledger().limits.pools["shared"], 1);
    again(&mut world, "commerce/orders");
    again(&mut world, "customer/customers");
    while world.deliver() {}
    let running: Vec<_> = world.ledger().running.values().filter(|it| it.work != Work::Follow).collect();
    assert_eq!(running.len(), 1, "{running:?}");
    let (due, _) = crate::plan::due_steps(world.ledger(), world.now_ms);
    let waits = due.iter().find(|step| !running.contains(&&step.key) && step.key.work != Work::Follow);
    let (limit, takers) = no_place(world.ledger(), &waits.expect("one waits").key).expect("none is free");
    assert_eq!((limit.as_str(), takers), ("pool `shared` takes 1 at once", running));
    world.rest();
    world.check_limits();
    // Without the pool two run at once again, and nothing was computed for the change.
    let since = world.entries.len();
    world.commit(|tree| *tree = example());
    assert_eq!(began(&world, since), [""; 0], "bounds are no data");
    again(&mut world, "commerce/orders");
    while world.deliver() {}
    assert_eq!(world.ledger().running.values().filter(|it| it.work != Work::Follow).count(), 2);
    world.rest();
    world.check_limits();
}

#[test]
fn whose_promise_ends_first_is_computed_first() {
    let mut world = World::new();
    world.commit(|tree| {
        *tree = example();
        // They read the same files; the strictest promise is that of a reader.
        for (name, promise) in [("yearly", Some("365d")), ("none", None), ("root", None)] {
            let whole = Made::Batch { by: None, cron: None };
            let mut spec =
                Spec::new(&format!("support/{name}"), whole).reads("article_files").with(&["article_id"]);
            spec.promise = promise.map(span);
            tree.insert(spec.id.clone(), spec);
        }
        let whole = Made::Batch { by: None, cron: None };
        let reader =
            Spec::new("support/leaf", whole).reads("support/root").with(&["article_id"]).promises("1h");
        tree.insert(reader.id.clone(), reader);
        share(tree);
    });
    let since = world.entries.len();
    world.commit(|tree| {
        for name in ["yearly", "none", "root"] {
            tree.get_mut(&id(&format!("support/{name}"))).expect("there").files.push('x');
        }
    });
    let order = began(&world, since);
    assert_eq!(order, ["root", "leaf", "none", "yearly"]);
    world.check_limits();
}

#[test]
fn a_timeout_that_is_raised_in_time_lets_the_step_go_on() {
    let mut world = World::new();
    let with = |timeout: &'static str| {
        move |tree: &mut Tree| {
            *tree = example();
            tree.get_mut(&id("commerce/orders")).expect("there").timeout = Some(span(timeout));
        }
    };
    world.commit(with("10m"));
    let since = world.entries.len();
    again(&mut world, "commerce/orders");
    while world.deliver() {}
    world.advance(9 * MINUTE_MS);
    world.push(with("30m"));
    world.look();
    while world.deliver() {}
    world.advance(9 * MINUTE_MS);
    world.step(Event::Tick);
    world.rest();
    let bad = world.entries[since..].iter().find(|entry| {
        let Fact::RunFinished { step, outcome, .. } = &entry.fact else { return false };
        step.pipeline.product == id("commerce/orders") && !matches!(outcome, RunOutcome::Succeeded { .. })
    });
    assert_eq!(bad, None);
}

/// Pushes a table that reads another one as a whole, by a schedule.
fn digest(world: &mut World, cron: &'static str, promise: &'static str) {
    world.commit(|tree| {
        *tree = example();
        let made = Made::Batch { by: None, cron: Some(cron) };
        let digest = Spec::new("support/digest", made).reads("support/articles").with(&["article_id"]);
        let digest = digest.promises(promise);
        tree.insert(digest.id.clone(), digest);
    });
}

/// Has the articles computed again under another generation, so that they have newer rows.
fn newer(world: &mut World) {
    world.commit(|tree| tree.get_mut(&id("support/articles")).expect("there").version.push_str(".1"));
    let command = format!("newer-{}", world.entries.len());
    world.ask(&command, Verb::Run { product: id("support/articles") });
    world.rest();
}

/// Counts the steps of the digest since a place in the ledger.
fn digests(world: &World, since: usize) -> usize {
    began(world, since).iter().filter(|name| *name == "digest").count()
}

#[test]
fn newer_rows_are_taken_once_a_tick() {
    let mut world = World::new();
    digest(&mut world, "0 6 * * *", "60d");
    assert_eq!(digests(&world, 0), 1, "the first time at once");
    let since = world.entries.len();
    newer(&mut world);
    newer(&mut world);
    assert_eq!(digests(&world, since), 0);
    let (_, waiting) = crate::plan::due_steps(world.ledger(), world.now_ms);
    let waits = waiting.iter().find(|it| it.pipeline.product == id("support/digest")).expect("says so");
    assert_eq!(waits.why, "newer rows of its inputs wait for its schedule");
    world.pass(24 * 60 * MINUTE_MS, 30 * MINUTE_MS);
    assert_eq!(digests(&world, since), 1, "at its tick, once");
    // A tick that found nothing new is made up for when there is something.
    world.pass(24 * 60 * MINUTE_MS, 30 * MINUTE_MS);
    assert_eq!(digests(&world, since), 1);
    newer(&mut world);
    newer(&mut world);
    assert_eq!(digests(&world, since), 2);
}

#[test]
fn a_table_is_computed_as_late_as_its_promise_allows() {
    let mut world = World::new();
    digest(&mut world, "promise", "6h");
    assert_eq!(digests(&world, 0), 1, "the first time at once");
    let port = super::mesh::port_of(&id("support/digest"));
    let since = world.entries.len();
    for _ in 0..4 * 24 {
        newer(&mut world);
        world.pass(15 * MINUTE_MS, 5 * MINUTE_MS);
        let newest_ms = world.ledger().ports[&port].newest_data_ms.expect("has data");
        assert!(world.now_ms - newest_ms <= 6 * 60 * MINUTE_MS, "the promise holds all the time");
    }
    assert_eq!(digests(&world, since), 4, "four times a day suffice");
    // A change of its definition does not wait.
    let since = world.entries.len();
    world.commit(|tree| tree.get_mut(&id("support/digest")).expect("there").rows.push('!'));
    assert_eq!(digests(&world, since), 1);
}

#[test]
fn it_knows_when_nothing_follows_by_itself() {
    let mut world = World::new();
    world.push(|tree| *tree = example());
    world.look();
    assert_eq!(world.at_work.control.left(world.now_ms), Left::Work, "the gate is being asked");
    world.rest();
    let left = |world: &World, ahead_ms: i64| world.at_work.control.left(world.now_ms + ahead_ms);
    assert_eq!(left(&world, 0), Left::Nothing, "all is computed, and the followers have their history");
    again(&mut world, "commerce/orders");
    while world.deliver() {}
    assert_eq!(left(&world, 0), Left::Work, "it is computed again");
    world.rest();
    let idle = |world: &World, ahead_ms: i64| left(world, ahead_ms) == Left::Nothing;
    assert!(idle(&world, 0));
    // What is tried again counts until then, and what is given up does not.
    let refuse = |world: &mut World, kind: ErrorKind, times: usize| {
        let of = id("commerce/orders");
        world.failures.insert(of, vec![(kind, "HM-X002"); times].into());
        again(world, "commerce/orders");
        world.rest();
    };
    refuse(&mut world, ErrorKind::External, 1);
    assert!(!world.ledger().failed.is_empty());
    assert!(idle(&world, 0), "it is not tried again before its pause is over");
    assert!(!idle(&world, 10 * MINUTE_MS));
    world.pass(10 * MINUTE_MS, MINUTE_MS);
    assert!(idle(&world, 10 * MINUTE_MS) && world.ledger().failed.is_empty());
    refuse(&mut world, ErrorKind::User, 1);
    assert!(!world.ledger().failed.is_empty());
    assert!(idle(&world, 60 * MINUTE_MS), "it waits for people");
}
