//! What the hunt has found, each as the shortest story that shows it. `docs/robustness.md` lists them.

use super::mesh::{example, id};
use super::world::{HOUR_MS, MINUTE_MS, World};
use crate::ids::ProductId;
use crate::ledger::{AlertKind, AlertState, ErrorKind, Verb};

/// Asserts that the tables of a product show what the ledger says, made by what is deployed.
fn assert_true(world: &World, product: &ProductId) {
    for (port, state) in world.ledger().ports.iter().filter(|(port, _)| port.product == *product) {
        let data = &world.ledger().deployed[product].print.ports[&port.port].data;
        for key in state.partitions.keys() {
            world.assert_shows(port, key, data);
        }
    }
}

#[test]
fn a_product_that_comes_back_as_it_once_was_replaces_the_rows_of_the_other_definition() {
    let mut world = World::new();
    // Nobody reads it, so that it may leave.
    let product: ProductId = id("commerce/daily-revenue");
    world.commit(|tree| *tree = example());
    let first = world.commits[0].1[&product].clone();
    world.commit(|tree| tree.get_mut(&product).expect("there").columns[1].expression.push_str(" + 0"));
    world.commit(|tree| _ = tree.remove(&product));
    assert!(!world.ledger().deployed.contains_key(&product));
    world.commit(|tree| _ = tree.insert(product.clone(), first));
    assert_true(&world, &product);
}

#[test]
fn troubles_of_one_moment_are_told_apart() {
    let mut world = World::new();
    let product: ProductId = id("support/articles");
    world.commit(|tree| *tree = example());
    world.advance(MINUTE_MS);
    // The clock stands: it was set back, and control's time waits for it.
    for time in 0..2 {
        world.failures.insert(product.clone(), [(ErrorKind::User, "HM-X008")].into());
        world.ask(&format!("run-{time}"), Verb::Run { product: product.clone() });
        world.rest();
        world.ask(&format!("retry-{time}"), Verb::Retry { product: product.clone() });
        world.rest();
    }
    let told: Vec<AlertState> = world
        .mails
        .iter()
        .filter(|(_, alert)| alert.kind == AlertKind::Run)
        .map(|(_, alert)| alert.state)
        .collect();
    let once = [AlertState::Firing, AlertState::Resolved];
    assert_eq!(told, [once, once].concat());
    assert!(world.ledger().outbox.is_empty(), "{:?}", world.ledger().outbox);
}

#[test]
fn what_a_lost_process_published_and_nobody_told_is_found_and_replaced() {
    let mut world = World::new();
    let product: ProductId = id("support/articles");
    world.commit(|tree| *tree = example());
    let before = world.commits[0].1.clone();
    world.push(|tree| tree.get_mut(&product).expect("there").columns[1].expression.push_str(" + 0"));
    world.look();
    while world.deliver() {}
    let run = world.at_work.running.values().find(|it| it.start.key.pipeline.product == product);
    let run = run.expect("its definition changed").start.run.clone();
    // Its process commits, and is taken for dead before it can say so; meanwhile the change is taken back.
    world.push(|tree| *tree = before);
    world.look();
    world.lose(&run);
    world.haunt(0);
    world.rest();
    world.pass(HOUR_MS, 5 * MINUTE_MS);
    assert_true(&world, &product);
}

#[test]
fn a_table_that_a_lost_process_made_anew_is_not_taken_for_the_one_that_was_published() {
    let mut world = World::new();
    let (product, port) = (id("support/articles"), "support/articles.articles".parse().expect("a port"));
    world.commit(|tree| *tree = example());
    world.ask("run", Verb::Run { product: product.clone() });
    while world.deliver() {}
    let run = world.at_work.running.values().find(|it| it.start.key.pipeline.product == product);
    let run = run.expect("it was asked for").start.run.clone();
    world.lose(&run);
    world.pass(HOUR_MS, 5 * MINUTE_MS);
    // Somebody drops the table, and the process that was taken for dead makes it anew: the same rows by the same key, under a
    // version that nobody was told of.
    world.tamper(&port, 0, 0);
    world.haunt(0);
    let look = world.look_at(&port);
    world.step(look);
    world.pass(HOUR_MS, 5 * MINUTE_MS);
    assert_true(&world, &product);
}
