//! Products that leave and come back, and what becomes of their tables.

use super::super::{Disposal, Disposed, Event};
use super::mesh::{example, id, span};
use super::world::{DAY_MS, HOUR_MS, World};
use crate::ids::{PortId, ProductId};
use crate::ledger::{Fact, Verb};
use crate::model::{RetirePolicy, TableEnd};
use crate::plan::ChangeKind;

impl World {
    /// Takes tables away, as the lake does it: those that began before the end did, at most so many of them.
    pub fn dispose(&mut self, disposal: &Disposal, most: usize) -> Disposed {
        let mut found = 0;
        for (port, version) in &disposal.tables {
            // A table that took the place of one that is gone counts on from it.
            let same = self.lake.get(port).is_some_and(|table| table.above < *version);
            if !same || found >= most {
                continue;
            }
            let ending = self.durable.ending_of(&disposal.product).map(|ending| ending.seq);
            // What a lost process made again after the end was done is nobody's, whoever takes it away.
            assert!(
                ending == Some(disposal.seq) || !self.durable.ports.contains_key(port),
                "{port} is taken away, and its end is not what the ledger says: {ending:?}"
            );
            self.lake.remove(port);
            found += 1;
        }
        let archive = (disposal.how == TableEnd::Archive).then(|| format!(".archive/{}", disposal.seq));
        Disposed { tables: found as u64, archive }
    }

    /// Asserts that the tables of a product may end now, from the facts alone.
    pub fn check_end(&self, at_ms: i64, product: &ProductId, how: TableEnd) {
        assert!(
            !self.durable.deployed.contains_key(product),
            "the tables of {product} end while it is deployed"
        );
        let mut says = None;
        for entry in &self.entries {
            match &entry.fact {
                Fact::Deployed { product: deployed, .. } if deployed.id == *product => {
                    says = Some((None, deployed.retire));
                }
                Fact::Retired { product: left, .. } if left == product => {
                    says = says.map(|(_, policy)| (Some(entry.at_ms), policy));
                }
                Fact::TablesEnding { product: ended, .. } if ended == product => says = None,
                _ => {}
            }
        }
        let Some((Some(left_ms), policy)) = says else {
            panic!("{product} did not leave, or its tables end twice")
        };
        let (wanted, after) = policy.end().expect("its tables stay");
        assert_eq!(how, wanted, "{product}");
        assert!(at_ms >= left_ms + after.millis(), "the tables of {product} end before their time");
        let reads = |port: &PortId| port.product == *product;
        let reader = self.durable.deployed.values().find(|it| it.print.reads.keys().any(reads));
        assert_eq!(reader.map(|it| it.product.id.to_string()), None, "somebody reads {product}");
        let decided = self.entries.iter().rev().find_map(|entry| match &entry.fact {
            Fact::Decided(decision) if decision.product == *product && decision.action == "drop" => {
                Some(decision)
            }
            _ => None,
        });
        assert!(decided.is_some_and(|it| it.allow), "P2: the tables of {product} end without an allow");
    }
}

/// A world in which nobody reads the product that leaves.
fn world(policy: RetirePolicy) -> (World, ProductId, PortId) {
    let mut world = World::new();
    let product = id("commerce/daily-revenue");
    world.commit(|tree| {
        *tree = example();
        tree.get_mut(&product).expect("there").retire = policy;
    });
    let port = world.ledger().ports.keys().find(|port| port.product == product).expect("published").clone();
    (world, product, port)
}

fn kinds(world: &World, since: usize) -> Vec<&'static str> {
    let ends = |fact: &&Fact| matches!(fact, Fact::TablesEnding { .. } | Fact::TablesEnded { .. });
    world.entries[since..].iter().map(|entry| &entry.fact).filter(ends).map(Fact::kind).collect()
}

fn why(world: &World, product: &ProductId) -> String {
    world.ledger().verdicts[product].why.clone()
}

#[test]
fn tables_are_dropped_when_their_time_has_come_and_not_before() {
    let (mut world, product, port) = world(RetirePolicy::Drop { after: span("30d") });
    let since = world.entries.len();
    world.commit(|tree| _ = tree.remove(&product));
    assert_eq!(
        why(&world, &product),
        "no longer in the mesh; its tables are dropped on 2026-12-01, unless it comes back before"
    );
    world.pass(29 * DAY_MS, DAY_MS);
    assert!(world.lake.contains_key(&port));
    assert_eq!(kinds(&world, since), [""; 0]);
    world.pass(2 * DAY_MS, DAY_MS);
    assert!(!world.lake.contains_key(&port));
    assert_eq!(kinds(&world, since), ["tables_ending", "tables_ended"]);
    assert!(!world.ledger().ports.contains_key(&port));
    world.pass(60 * DAY_MS, 10 * DAY_MS);
    assert_eq!(kinds(&world, since).len(), 2, "once");
}

#[test]
fn a_product_that_comes_back_in_time_keeps_its_tables() {
    let (mut world, product, port) = world(RetirePolicy::Drop { after: span("30d") });
    let since = world.entries.len();
    let before = world.commits[0].1.clone();
    world.commit(|tree| _ = tree.remove(&product));
    world.pass(10 * DAY_MS, DAY_MS);
    let published = world.entries.len();
    world.commit(|tree| *tree = before.clone());
    assert_eq!(why(&world, &product), "comes back to its tables, which are not dropped on 2026-12-01");
    world.pass(60 * DAY_MS, 10 * DAY_MS);
    assert_eq!(kinds(&world, since), [""; 0]);
    assert!(world.lake.contains_key(&port));
    assert!(!world.ledger().retired.contains_key(&product));
    // Only the days that it was away, and those since.
    let days = world.backfilled(published)["commerce/daily-revenue"];
    assert!(days < 90, "{days}");
}

#[test]
fn after_an_archive_a_product_starts_from_nothing_above_its_old_versions() {
    let (mut world, product, port) = world(RetirePolicy::Archive { after: span("0s") });
    let before = world.commits[0].1.clone();
    let version = world.ledger().ports[&port].version;
    let published = world.ledger().ports[&port].published;
    world.commit(|tree| _ = tree.remove(&product));
    world.pass(HOUR_MS, HOUR_MS);
    assert!(!world.lake.contains_key(&port));
    let since = world.entries.len();
    world.commit(|tree| *tree = before);
    let told = why(&world, &product);
    assert!(
        told.starts_with(
            "comes back and starts from nothing; its tables were archived on 2026-11-01 to .archive/"
        ),
        "{told}"
    );
    world.pass(HOUR_MS, HOUR_MS);
    let state = &world.ledger().ports[&port];
    assert!(
        state.partitions.values().all(|it| it.published.version > version),
        "I19: no version is given twice"
    );
    assert!(state.published > published, "looks from before do not count");
    assert_eq!(world.backfilled(since)["commerce/daily-revenue"], 90);
    let data = world.ledger().deployed[&product].print.ports[&port.port].data.clone();
    for key in world.ledger().ports[&port].partitions.keys() {
        world.assert_shows(&port, key, &data);
    }
}

#[test]
fn whoever_comes_back_while_the_tables_are_taken_away_waits_for_that() {
    let (mut world, product, port) = world(RetirePolicy::Archive { after: span("0s") });
    let before = world.commits[0].1.clone();
    world.push(|tree| _ = tree.remove(&product));
    world.look();
    // The gate allows it, the end begins, and the answer is not there yet.
    while world.ledger().ending_of(&product).is_none() {
        assert!(world.deliver(), "the end begins");
    }
    let answer = world.at_work.inbox.iter().position(|event| matches!(event, Event::Disposed { .. }));
    let answer = world.at_work.inbox.remove(answer.expect("it was taken away")).expect("there");
    world.commit(|tree| *tree = before);
    assert!(world.ledger().deployed.contains_key(&product));
    assert!(!world.at_work.control.in_flight().any(|(key, _)| key.pipeline.product == product));
    let (_, waiting) = crate::plan::due_steps(world.ledger(), world.now_ms);
    let waits = waiting.iter().find(|it| it.pipeline.product == product).expect("it waits");
    assert_eq!(waits.why, "its earlier tables are being archived; it starts from nothing after that");
    world.step(answer.clone());
    world.rest();
    assert_eq!(world.ledger().ports[&port].partitions.len(), 90);
    assert!(!world.ledger().retired.contains_key(&product));
    // The same answer once more, and the work of somebody who was asleep, change nothing.
    let Event::Disposed { seq, .. } = answer else { unreachable!() };
    let since = world.entries.len();
    world.step(answer);
    let tables = [(port.clone(), world.lake[&port].above)].into();
    let stale = Disposal { product, seq, at_ms: 0, how: TableEnd::Archive, tables };
    assert_eq!(world.dispose(&stale, usize::MAX).tables, 0, "another table lies there");
    assert!(kinds(&world, since).is_empty());
}

#[test]
fn a_pause_holds_the_end_and_a_denial_is_asked_about_again() {
    let (mut world, product, port) = world(RetirePolicy::Drop { after: span("2d") });
    world.commit(|tree| _ = tree.remove(&product));
    world.ask("hold", Verb::Pause { product: product.clone(), until_ms: None, backfills: false });
    assert!(world.ledger().answers["hold"].0, "{:?}", world.ledger().answers["hold"]);
    world.pass(5 * DAY_MS, DAY_MS);
    assert!(world.lake.contains_key(&port), "somebody holds it");
    world.policy = Box::new(|question, _| if question.action == "drop" { vec!["not_yet"] } else { vec![] });
    world.ask("go", Verb::Resume { product: product.clone() });
    world.rest();
    world.pass(DAY_MS, HOUR_MS);
    assert!(world.lake.contains_key(&port), "the gate denies it");
    let asked = |world: &World| {
        let about = |entry: &&crate::ledger::Entry| matches!(&entry.fact, Fact::Decided(it) if it.action == "drop" && it.product == product);
        world.entries.iter().filter(about).count()
    };
    assert_eq!(asked(&world), 1, "the same denial again is no new fact");
    world.policy = Box::new(|_, _| vec![]);
    world.pass(2 * HOUR_MS, HOUR_MS);
    assert!(!world.lake.contains_key(&port));
    world.ask("late", Verb::Pause { product: product.clone(), until_ms: None, backfills: false });
    assert_eq!(world.ledger().answers["late"], (false, format!("{product} is not deployed")));
}

#[test]
fn what_says_nothing_keeps_its_tables_and_so_does_what_is_wanted_again() {
    let (mut world, product, port) = world(RetirePolicy::Keep);
    world.commit(|tree| _ = tree.remove(&product));
    assert_eq!(why(&world, &product), "no longer in the mesh; its tables stay");
    world.pass(400 * DAY_MS, 100 * DAY_MS);
    assert!(world.lake.contains_key(&port));
    assert_eq!(world.ledger().retired[&product].due(), None);

    // It is in the repository again, and does not check: nothing is deployed, and nothing dropped.
    let (mut world, product, port) = self::world(RetirePolicy::Drop { after: span("1d") });
    let before = world.commits[0].1.clone();
    world.commit(|tree| _ = tree.remove(&product));
    world.commit(|tree| {
        *tree = before;
        tree.get_mut(&product).expect("there").broken = true;
    });
    world.pass(9 * DAY_MS, DAY_MS);
    assert!(!world.ledger().deployed.contains_key(&product));
    assert!(world.lake.contains_key(&port));
}

#[test]
fn the_policy_is_part_of_what_is_deployed() {
    let (mut world, product, _) = world(RetirePolicy::Keep);
    world.push(|tree| {
        tree.get_mut(&product).expect("there").retire = RetirePolicy::Drop { after: span("7d") };
    });
    world.look();
    world.rest();
    let deployed = &world.ledger().deployed[&product].product;
    assert_eq!(deployed.retire, RetirePolicy::Drop { after: span("7d") });
    let desired = world.at_work.control.desired().expect("read");
    let order = crate::plan::dependency_order(desired.mesh.products.values());
    let plan = crate::plan::plan(desired, &order, world.ledger(), "dev", world.now_ms);
    assert!(plan.is_empty());
    // A change of it computes nothing.
    let change = world.entries.iter().rev().find_map(|entry| match &entry.fact {
        Fact::CommitOutcome { product: Some(changed), why, .. } if *changed == product => Some(why.clone()),
        _ => None,
    });
    let said = "description, owners, service levels or settings changed; no data";
    assert_eq!(change.as_deref(), Some(said));
    assert_eq!(ChangeKind::Retire.to_string(), "retire");
}
