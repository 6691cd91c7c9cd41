//! Stories of products that are cut by the values of a list.

use std::collections::BTreeMap;

use super::mesh::{Tree, desired, example, id, port_of, regions};
use super::world::{DAY_MS, HOUR_MS, World};
use crate::ledger::{AlertKind, ErrorKind, Fact, Verb};
use crate::model::RetirePolicy;
use crate::plan::{ChangeKind, dependency_order, due_steps, plan};

fn begun() -> World {
    let mut world = World::new();
    world.commit(|tree| {
        *tree = example();
        tree.extend(regions());
        let named = |it: &str| ["customers", "regions", "region-totals"].contains(&it);
        tree.retain(|id, _| named(id.name.as_str()));
    });
    world
}

/// Values that were published since an entry, by product and in order.
fn published(world: &World, since: usize) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in &world.entries[since..] {
        if let Fact::Published(it) = &entry.fact
            && let Some(value) = &it.partition
        {
            found.entry(it.port.product.name.to_string()).or_default().push(value.clone());
        }
    }
    for values in found.values_mut() {
        values.sort();
    }
    found
}

fn lists(tree: &mut Tree, values: &[&'static str]) {
    for product in ["commerce/regions", "commerce/region-totals"] {
        tree.get_mut(&id(product)).expect("there").values = values.to_vec();
    }
}

fn waiting(world: &World) -> Vec<String> {
    let (_, waiting) = due_steps(world.ledger(), world.now_ms);
    waiting.into_iter().map(|it| format!("{}: {}", it.pipeline.name, it.why)).collect()
}

fn of(values: &[&str]) -> BTreeMap<String, Vec<String>> {
    let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    [("regions", values.clone()), ("region-totals", values)].map(|(name, all)| (name.to_owned(), all)).into()
}

#[test]
fn each_value_is_published_and_an_added_one_computes_that_one_alone() {
    let mut world = begun();
    assert_eq!(published(&world, 0), of(&["at", "de", "it"]));
    let port = port_of(&id("commerce/regions"));
    let data = |world: &World| world.ledger().deployed[&port.product].print.ports[&port.port].data.clone();
    let before = (world.entries.len(), data(&world));
    // Another order of the same list is the same list.
    world.commit(|tree| lists(tree, &["it", "de", "at"]));
    assert_eq!(published(&world, before.0), BTreeMap::new());
    world.push(|tree| lists(tree, &["it", "ch", "de", "at"]));
    let tree = &world.commits.last().expect("pushed").1;
    let desired = desired(tree, "longer", &world.ledger().port_prints());
    let order = dependency_order(desired.mesh.products.values());
    let plan = plan(&desired, &order, world.ledger(), "dev", world.now_ms);
    let change = plan.changes.iter().find(|it| it.product == port.product).expect("a change");
    assert_eq!((change.kind, change.partitions[&port]), (ChangeKind::Update, 1));
    assert_eq!(change.reasons, ["regions: added values ch"]);
    world.look();
    world.rest();
    assert_eq!(published(&world, before.0), of(&["ch"]));
    assert_eq!(data(&world), before.1, "what a value shows does not hang on the others");
    assert!(world.plan().is_empty());
}

#[test]
fn a_removed_value_stays_readable_and_is_computed_no_more() {
    let mut world = begun();
    let before = world.entries.len();
    world.commit(|tree| lists(tree, &["de", "it"]));
    let port = port_of(&id("commerce/regions"));
    let newer = |world: &mut World| {
        world.commit(|tree| tree.get_mut(&id("customer/customers")).expect("there").files.push('x'));
    };
    newer(&mut world);
    assert_eq!(published(&world, before), of(&["de", "it"]));
    assert!(world.ledger().ports[&port].partitions.contains_key("at"));
    assert!(world.lake[&port].partitions.contains_key("at"), "nobody took its rows away");
    assert_eq!(waiting(&world), Vec::<String>::new());
    // It comes back with what it had, and takes what is newer.
    let before = world.entries.len();
    world.commit(|tree| lists(tree, &["at", "de", "it"]));
    assert_eq!(published(&world, before), of(&["at"]));
}

#[test]
fn a_value_waits_for_its_own_and_for_no_other() {
    let mut world = begun();
    let before = world.entries.len();
    // One of the three fails for good; the steps begin in the order of the list.
    world.failures.insert(id("commerce/regions"), [(ErrorKind::User, "HM-Q001")].into());
    world.commit(|tree| tree.get_mut(&id("commerce/regions")).expect("there").rows.push('!'));
    let failed: Vec<String> = world.ledger().failed.keys().map(ToString::to_string).collect();
    let [failed] = failed.as_slice() else { panic!("{failed:?}") };
    let value = failed.rsplit("..").next().expect("a value").to_owned();
    let others: Vec<&str> = ["at", "de", "it"].into_iter().filter(|it| *it != value).collect();
    assert_eq!(published(&world, before), of(&others));
    let why = waiting(&world);
    assert!(
        why.iter().any(|why| why.starts_with(&format!(
            "region-totals: 1 partition waiting: {value} waits for {value} of commerce/regions.regions: "
        ))),
        "{why:?}"
    );
    let signs: Vec<_> =
        world.ledger().open.keys().map(|(product, kind, _)| (product.clone(), *kind)).collect();
    assert_eq!(signs, [(id("commerce/regions"), AlertKind::Quality)]);
    world.ask("retry", Verb::Retry { product: id("commerce/regions") });
    world.rest();
    assert_eq!(published(&world, before), of(&["at", "de", "it"]));
}

#[test]
fn values_are_backfilled_by_name_and_unknown_ones_refused() {
    let mut world = begun();
    // Another generation: the same rows are then written anew.
    world.commit(|tree| tree.values_mut().for_each(|spec| spec.version = "1.0.1".to_owned()));
    let before = world.entries.len();
    let product = id("commerce/regions");
    let asks = |values: &[&str]| Verb::BackfillValues {
        product: id("commerce/regions"),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    world.ask("some", asks(&["it", "at"]));
    world.rest();
    assert_eq!(published(&world, before)["regions"], ["at", "it"]);
    world.ask("unknown", asks(&["de", "fr"]));
    world.ask("none", asks(&[]));
    let (from, to) = ("2026-08-01".to_owned(), "2026-08-02".to_owned());
    world.ask("days", Verb::Backfill { product, from, to });
    let values = vec!["de".to_owned()];
    world.ask("whole", Verb::BackfillValues { product: id("customer/customers"), values });
    world.rest();
    let answers = ["some", "unknown", "none", "days", "whole"].map(|it| world.ledger().answers[it].1.clone());
    assert_eq!(
        answers,
        [
            "commerce/regions is computed again: it, at",
            "commerce/regions has no partition `fr`; it has at, de, it",
            "no partition is named",
            "commerce/regions has no partition from 2026-08-01 to 2026-08-02 that has ended",
            "customer/customers is not cut by values",
        ]
    );
}

#[test]
fn a_list_is_as_old_as_its_oldest_value_and_says_which_that_is() {
    let mut world = begun();
    world.commit(|tree| {
        tree.get_mut(&id("commerce/regions")).expect("there").promise = Some(super::mesh::span("2d"));
    });
    let port = port_of(&id("commerce/regions"));
    let newest = |world: &World| world.ledger().ports[&port].newest_data_ms.expect("published");
    let begun_ms = newest(&world);
    world.pass(DAY_MS, HOUR_MS);
    // Newer rows, and one value cannot take them.
    world.failures.insert(id("commerce/regions"), [(ErrorKind::User, "HM-Q001")].into());
    world.commit(|tree| tree.get_mut(&id("customer/customers")).expect("there").files.push('x'));
    let (value, data_ms) =
        world.ledger().oldest_value(&port).map(|(it, ms)| (it.to_owned(), ms)).expect("one");
    assert_eq!((newest(&world), data_ms), (begun_ms, Some(begun_ms)));
    world.pass(DAY_MS + 2 * HOUR_MS, HOUR_MS);
    let late = world.ledger().open.keys().any(|(_, kind, _)| *kind == AlertKind::Freshness);
    assert!(late, "{:?}", world.ledger().open);
    let said = world.ledger().episodes.values().map(|it| it.last().summary.clone());
    let wanted = format!("the data of its oldest partition, {value}, is");
    assert!(said.clone().any(|text| text.contains(&wanted)), "{:?}", said.collect::<Vec<_>>());
    world.ask("retry", Verb::Retry { product: id("commerce/regions") });
    world.rest();
    assert!(newest(&world) >= begun_ms + DAY_MS, "as old as the others, which were computed a day later");
}

#[test]
fn what_is_usual_of_a_value_is_what_it_was_before() {
    let mut world = begun();
    for at in 0..3 {
        // Other rows by the same definition.
        world.commit(|tree| {
            tree.get_mut(&id("customer/customers")).expect("there").version.push_str(".1");
        });
        world.ask(&format!("run-{at}"), Verb::Run { product: id("customer/customers") });
        world.rest();
    }
    let port = port_of(&id("commerce/regions"));
    let ledger = world.ledger();
    let data = &ledger.deployed[&port.product].print.ports[&port.port].data;
    assert_eq!(ledger.earlier(&port, data, Some("de"), 30).len(), 4);
    assert_eq!(ledger.earlier(&port, data, Some("de"), 2).len(), 2);
    assert_eq!(ledger.earlier(&port, data, Some("fr"), 30).len(), 0);
}

#[test]
fn tables_of_a_list_end_with_their_product() {
    let mut world = begun();
    let reader = id("commerce/region-totals");
    world.commit(|tree| {
        tree.get_mut(&reader).expect("there").retire = RetirePolicy::Drop { after: super::mesh::span("1d") };
    });
    world.commit(|tree| _ = tree.remove(&reader));
    world.pass(2 * DAY_MS, HOUR_MS);
    assert!(!world.lake.contains_key(&port_of(&reader)));
}
