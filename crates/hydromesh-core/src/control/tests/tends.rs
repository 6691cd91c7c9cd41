//! Maintenance: tables that are looked after, and what contracts do not keep.

use super::mesh::{example, id};
use super::world::{DAY_MS, HOUR_MS, MINUTE_MS, World};
use crate::ids::{PortId, ProductId};
use crate::ledger::{Fact, Verb};
use crate::plan::{Work, due_steps};

fn tends(world: &World, since: usize, product: &ProductId) -> usize {
    let began = |fact: &Fact| matches!(fact, Fact::RunStarted { step, .. } if step.work == Work::Tend && step.pipeline.product == *product);
    world.entries[since..].iter().filter(|entry| began(&entry.fact)).count()
}

fn port() -> PortId {
    "commerce/orders.orders".parse().expect("a port")
}

#[test]
fn a_table_is_looked_after_once_a_day_if_anything_came_and_not_when_it_is_off() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let (articles, orders) = (id("support/articles"), id("commerce/orders"));
    world.pass(20 * HOUR_MS, HOUR_MS);
    assert_eq!(tends(&world, 0, &orders), 0, "not before it is a day old");
    world.pass(3 * DAY_MS, HOUR_MS);
    let often = tends(&world, 0, &orders);
    assert!((2..=4).contains(&often), "{often}");
    assert_eq!(tends(&world, 0, &articles), 1, "nothing came since");
    let at_once = world.entries.iter().scan(0_i32, |running, entry| {
        match &entry.fact {
            Fact::RunStarted { step, .. } if step.work == Work::Tend => *running += 1,
            Fact::RunFinished { step, .. } if step.work == Work::Tend => *running -= 1,
            _ => {}
        }
        Some(*running)
    });
    assert_eq!(at_once.max(), Some(1), "one table at a time");

    // It is no work that anybody waits for, and a paused product is left alone.
    assert!(due_steps(world.ledger(), world.now_ms).0.iter().all(|step| step.key.work != Work::Tend));
    world.ask("pause", Verb::Pause { product: orders.clone(), until_ms: None, backfills: false });
    let since = world.entries.len();
    world.pass(3 * DAY_MS, HOUR_MS);
    assert_eq!(tends(&world, since, &orders), 0);

    world.ask("resume", Verb::Resume { product: orders.clone() });
    let desired = world.at_work.control.desired.as_mut().expect("read");
    desired.mesh.environments.values_mut().for_each(|it| it.maintenance.every = None);
    let since = world.entries.len();
    world.pass(3 * DAY_MS, HOUR_MS);
    assert_eq!(tends(&world, since, &orders), 0, "the environment wants none");
}

#[test]
fn what_a_contract_does_not_keep_goes_and_is_never_computed_again() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let orders = id("commerce/orders");
    assert_eq!(world.ledger().ports[&port()].partitions.len(), 90);
    let since = world.entries.len();
    world.commit(|tree| tree.get_mut(&orders).expect("there").retention = Some("30 d"));
    // The fact comes first: nobody counts on those days from here on, though the table still shows them.
    let kept = world.ledger().kept_from(&port()).expect("the contract says so").to_owned();
    assert_eq!(kept, "2026-10-02", "30 days before 1 November, 6 o'clock");
    assert_eq!(world.ledger().ports[&port()].partitions.keys().next(), Some(&kept));
    assert_eq!(world.lake[&port()].partitions.len(), 90);
    let look = world.look_at(&port());
    world.step(look);
    world.rest();
    assert_eq!(world.backfilled(since).get("commerce/orders"), None);
    world.pass(2 * DAY_MS, HOUR_MS);
    let now = world.ledger().kept_from(&port()).expect("still").to_owned();
    let shown = world.lake[&port()].partitions.keys().next().cloned();
    assert!(shown.as_ref().is_some_and(|shown| *shown > kept && *shown <= now), "{shown:?}, {now}");
    assert!(world.lake[&port()].has(world.ledger().ports[&port()].version));
    assert!(world.ledger().altered.is_empty(), "{:?}", world.ledger().altered);
    // What others made of those days stays, and is not made again of nothing, whatever changes.
    let reader: PortId = "customer/customer-360.customer-360".parse().expect("a port");
    let reader =
        world.ledger().ports.keys().find(|it| it.product == reader.product).expect("published").clone();
    let rows = world.ledger().ports[&reader].partitions.len();
    let published = world.entries.len();
    world.commit(|tree| {
        for id in [id("commerce/orders"), id("commerce/daily-revenue")] {
            tree.get_mut(&id).expect("there").rows.push('!');
        }
    });
    world.pass(HOUR_MS, 5 * MINUTE_MS);
    let days = world.backfilled(published);
    assert!(days["commerce/orders"] <= 31, "{days:?}");
    assert!(days["commerce/daily-revenue"] <= 31, "of a day that is gone nothing can be made: {days:?}");
    assert!(world.ledger().ports[&reader].partitions.len() >= rows);
    // A contract that keeps more keeps it from now on.
    world.commit(|tree| tree.get_mut(&orders).expect("there").retention = Some("10 y"));
    assert!(world.ledger().kept_from(&port()).expect("still") >= now.as_str());
    let (due, _) = due_steps(world.ledger(), world.now_ms);
    assert!(due.iter().all(|step| step.key.work == Work::Follow), "{due:?}");
}
