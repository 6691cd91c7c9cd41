//! Stories of a product that is cut by the values of a column of its input.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::mesh::{Made, Spec, Tree, countries, desired, example, id, port_of};
use super::world::{HOUR_MS, World};
use crate::ids::ProductId;
use crate::ledger::{Entry, ErrorKind, Fact, KeysFound, LedgerState, RunOutcome, Verb};
use crate::model::{KeySource, RetirePolicy};
use crate::plan::{Change, ChangeKind, StepKey, Work, dependency_order, due_steps, plan};

fn product() -> ProductId {
    id("customer/countries")
}

fn begun() -> World {
    let mut world = World::new();
    world.commit(|tree| {
        *tree = example();
        tree.extend(countries());
        let named = |it: &str| ["customers", "countries"].contains(&it);
        tree.retain(|id, _| named(id.name.as_str()));
    });
    world
}

/// Another country comes, and the one before leaves.
fn moved(world: &mut World) {
    world.commit(|tree| tree.get_mut(&id("customer/customers")).expect("there").files.push('x'));
}

/// The same in newer rows of the same definition.
fn rerun(world: &mut World, name: &str) {
    world.outside += 1;
    world.commit(|tree| tree.get_mut(&id("customer/customers")).expect("there").version.push('1'));
    world.ask(name, Verb::Run { product: id("customer/customers") });
    world.rest();
}

/// Plans the last commit, which was not looked at yet.
fn planned(world: &World) -> Change {
    let tree = &world.commits.last().expect("pushed").1;
    let desired = desired(tree, "next", &world.ledger().port_prints());
    let order = dependency_order(desired.mesh.products.values());
    let plan = plan(&desired, &order, world.ledger(), "dev", world.now_ms);
    plan.changes.into_iter().find(|it| it.product == product()).expect("a change")
}

fn edit(tree: &mut Tree, edit: impl FnOnce(&mut Spec)) {
    edit(tree.get_mut(&product()).expect("there"));
}

/// Values that were published since an entry, in order.
fn published(world: &World, since: usize) -> Vec<String> {
    let mut found: Vec<String> = world.entries[since..]
        .iter()
        .filter_map(|entry| match &entry.fact {
            Fact::Published(it) if it.port.product == product() => it.partition.clone(),
            _ => None,
        })
        .collect();
    found.sort();
    found
}

fn looks(world: &World, since: usize) -> usize {
    let looks =
        |entry: &&Entry| matches!(&entry.fact, Fact::RunStarted { step, .. } if step.work == Work::Keys);
    world.entries[since..].iter().filter(looks).count()
}

fn known(world: &World) -> Vec<String> {
    world.ledger().values_of(&port_of(&product())).expect("values").to_vec()
}

fn waiting(world: &World) -> Vec<String> {
    let (_, waiting) = due_steps(world.ledger(), world.now_ms);
    waiting.into_iter().map(|it| format!("{}: {}", it.pipeline.name, it.why)).collect()
}

#[test]
fn values_are_found_and_each_is_published_by_itself() {
    let mut world = begun();
    assert_eq!(
        (known(&world), published(&world, 0)),
        (vec!["c0".into(), "c1".into()], vec!["c0".into(), "c1".into()])
    );
    assert_eq!(looks(&world, 0), 1);
    let before = world.entries.len();
    moved(&mut world);
    // The one that left is computed again too: it has no rows now, and nobody takes its partition away.
    assert_eq!(published(&world, before), ["c0", "c1", "c2"]);
    assert_eq!((known(&world), looks(&world, before)), (vec!["c0".into(), "c1".into(), "c2".into()], 1));
    // The look came first, so that nothing was computed that did not know the new one.
    let first = world.entries[before..].iter().find_map(|entry| match &entry.fact {
        Fact::RunStarted { step, .. } if step.pipeline.product == product() => Some(step.work.clone()),
        _ => None,
    });
    assert_eq!(first, Some(Work::Keys));
    assert!(world.plan().is_empty());
    assert_eq!(LedgerState::replay(&world.entries), *world.ledger());
}

#[test]
fn an_idle_mesh_looks_at_nothing() {
    let mut world = begun();
    let before = world.entries.len();
    world.pass(48 * HOUR_MS, HOUR_MS);
    assert_eq!((looks(&world, before), published(&world, before).len()), (0, 0));
    // Nor is another description of the product a reason.
    world.commit(|tree| edit(tree, |spec| spec.version = "1.0.1".to_owned()));
    assert_eq!((looks(&world, before), published(&world, before).len()), (0, 0));
}

#[test]
fn taking_a_look_in_again_changes_nothing() {
    let mut world = begun();
    moved(&mut world);
    let mut twice = LedgerState::default();
    let mut once = LedgerState::default();
    for entry in &world.entries {
        once.apply(entry);
        twice.apply(entry);
        if matches!(entry.fact, Fact::Keys(_)) {
            twice.apply(entry);
            assert_eq!(once, twice);
        }
    }
}

#[test]
fn a_list_and_what_is_found_take_the_place_of_each_other() {
    let mut world = begun();
    let data = |world: &World| {
        let port = port_of(&product());
        world.ledger().deployed[&product()].print.ports[&port.port].data.clone()
    };
    let (before, print) = (world.entries.len(), data(&world));
    world.commit(|tree| {
        edit(tree, |spec| {
            spec.keys = None;
            spec.values = vec!["c1", "c0"];
        });
    });
    assert_eq!((published(&world, before).len(), data(&world)), (0, print.clone()));
    world.push(|tree| edit(tree, |spec| spec.keys = Some("customers.country")));
    let change = planned(&world);
    assert_eq!(change.kind, ChangeKind::Metadata, "what was found before is known: {:?}", change.reasons);
    world.look();
    world.rest();
    assert_eq!((published(&world, before).len(), data(&world)), (0, print));
    assert!(world.plan().is_empty());
    // Elsewhere nothing is known until it was looked there.
    world.push(|tree| edit(tree, |spec| spec.keys = Some("customers.email")));
    let change = planned(&world);
    let sought = "countries: a partition for each value of customers.email, which are looked for first";
    assert_eq!(change.reasons.last().expect("reasons"), sought);
    let before = world.entries.len();
    world.look();
    world.rest();
    assert_eq!((looks(&world, before), published(&world, before).len()), (1, 0));
    assert_eq!(known(&world), ["c0", "c1"]);
}

#[test]
fn a_look_that_fails_keeps_no_known_value_back() {
    let mut world = begun();
    let before = world.entries.len();
    world.failures.insert(product(), [(ErrorKind::User, "HM-X014")].into());
    moved(&mut world);
    assert_eq!(published(&world, before), ["c0", "c1"]);
    assert_eq!(known(&world), ["c0", "c1"]);
    let why = waiting(&world);
    assert!(why.iter().any(|it| it.starts_with("countries: failed with HM-X014")), "{why:?}");
    assert_eq!(world.ledger().open.len(), 1, "somebody is told");
    world.ask("retry", Verb::Retry { product: product() });
    world.rest();
    assert_eq!(known(&world), ["c0", "c1", "c2"]);
    assert!(published(&world, before).contains(&"c2".to_owned()));
    assert!(world.ledger().open.is_empty());
}

#[test]
fn newer_rows_while_it_is_looked_are_looked_at_once_more() {
    let mut world = begun();
    let before = world.entries.len();
    world.push(|tree| tree.get_mut(&id("customer/customers")).expect("there").files.push('x'));
    world.look();
    // The look begins, and rows come that it does not see.
    let looking = |world: &World| world.at_work.control.in_flight().any(|(key, _)| key.work == Work::Keys);
    for _ in 0..100 {
        if looking(&world) {
            break;
        }
        if !world.deliver() {
            for run in world.runs() {
                world.work(&run);
            }
        }
    }
    assert!(looking(&world));
    moved(&mut world);
    assert_eq!(known(&world), ["c0", "c1", "c2", "c3"]);
    assert_eq!(looks(&world, before), 2);
}

#[test]
fn values_are_backfilled_by_name_and_unknown_ones_refused() {
    let mut world = begun();
    let asks = |value: &str| Verb::BackfillValues { product: product(), values: vec![value.to_owned()] };
    world.commit(|tree| edit(tree, |spec| spec.version = "1.0.1".to_owned()));
    let before = world.entries.len();
    world.ask("known", asks("c1"));
    world.ask("unknown", asks("c2"));
    world.rest();
    assert_eq!(published(&world, before), ["c1"]);
    assert_eq!(
        world.ledger().answers["unknown"].1,
        "customer/countries has no partition `c2`; it has c0, c1"
    );
}

#[test]
fn a_schedule_looks_once_for_each_tick() {
    let mut world = begun();
    world.commit(|tree| {
        edit(tree, |spec| spec.made = Made::Batch { by: Some("country"), cron: Some("15 2 * * *") });
    });
    world.pass(24 * HOUR_MS, HOUR_MS);
    // The last tick found nothing, so that what comes after it is taken at once.
    rerun(&mut world, "once");
    assert_eq!(known(&world), ["c0", "c1", "c2"]);
    let before = world.entries.len();
    rerun(&mut world, "twice");
    assert_eq!((looks(&world, before), published(&world, before).len()), (0, 0));
    world.pass(24 * HOUR_MS, HOUR_MS);
    assert_eq!((looks(&world, before), published(&world, before)), (1, known(&world)));
    assert_eq!(known(&world), ["c0", "c1", "c2", "c3"]);
}

#[test]
fn by_promise_it_is_looked_when_the_oldest_value_is_due() {
    let mut world = begun();
    world.commit(|tree| {
        edit(tree, |spec| {
            spec.made = Made::Batch { by: Some("country"), cron: Some("promise") };
            spec.promise = Some(super::mesh::span("10h"));
        });
    });
    let before = world.entries.len();
    rerun(&mut world, "newer");
    world.pass(4 * HOUR_MS, HOUR_MS);
    assert_eq!((looks(&world, before), published(&world, before).len()), (0, 0));
    world.pass(7 * HOUR_MS, HOUR_MS / 4);
    assert_eq!((looks(&world, before), published(&world, before)), (1, known(&world)));
    assert_eq!(known(&world), ["c0", "c1", "c2"]);
}

#[test]
fn readers_wait_for_the_look_and_read_all_values() {
    let mut world = begun();
    let reader = Spec::new("customer/by-country", Made::Batch { by: Some("country"), cron: None });
    let reader = reader.reads("customer/countries").with(&["country", "email"]);
    let reader = Spec { keys: Some("countries.country"), ..reader };
    let whole = Spec::new("customer/count", Made::Batch { by: None, cron: None });
    let whole = whole.reads("customer/countries").with(&["email"]);
    world.commit(|tree| tree.extend([reader, whole].map(|spec| (spec.id.clone(), spec))));
    let ledger = world.ledger();
    assert_eq!(ledger.deployed[&id("customer/by-country")].print.aligned, [].into());
    assert_eq!(
        ledger.values_of(&port_of(&id("customer/by-country"))).expect("values").to_vec(),
        ["c0", "c1"]
    );
    let before = world.entries.len();
    rerun(&mut world, "newer");
    let mut seen: Vec<(String, bool)> = Vec::new();
    for entry in &world.entries[before..] {
        if let Fact::RunStarted { step, .. } = &entry.fact {
            seen.push((step.pipeline.name.to_string(), step.work == Work::Keys));
        }
    }
    let of = |name: &str, look: bool| (name.to_owned(), look);
    // The look, what it found, and only then who reads it; each of those once.
    let first = |it: &(String, bool)| seen.iter().position(|other| other == it).expect("begun");
    let last = |it: &(String, bool)| seen.iter().rposition(|other| other == it).expect("begun");
    assert_eq!(first(&of("countries", true)), 1, "{seen:?}");
    assert!(last(&of("countries", false)) < first(&of("by-country", true)), "{seen:?}");
    assert!(last(&of("countries", false)) < first(&of("count", false)), "{seen:?}");
    assert_eq!(seen.iter().filter(|it| **it == of("count", false)).count(), 1, "{seen:?}");
    assert_eq!(seen.iter().filter(|it| **it == of("by-country", false)).count(), 2, "{seen:?}");
}

#[test]
fn an_input_that_never_rests_leaves_room_between_two_looks() {
    let world = begun();
    let (input, port) = (port_of(&id("customer/customers")), port_of(&product()));
    let mut ledger = world.ledger().clone();
    let due = |ledger: &LedgerState| -> Vec<String> {
        due_steps(ledger, world.now_ms).0.into_iter().map(|it| it.key.to_string()).collect()
    };
    let tell = |ledger: &mut LedgerState, fact: Fact| {
        ledger.apply(&Entry { seq: ledger.seq + 1, at_ms: world.now_ms, fact });
    };
    let newer = |ledger: &mut LedgerState| {
        ledger
            .ports
            .get_mut(&input)
            .map(Arc::make_mut)
            .expect("published")
            .partitions
            .values_mut()
            .for_each(|it| Arc::make_mut(it).forced = true);
        let mut published = ledger.ports[&input].partitions[""].published.clone();
        published.version += 1;
        tell(ledger, Fact::Published(published));
    };
    let look = "customer/countries:countries@keys";
    let values = ["c0", "c1"].map(|it| format!("customer/countries:countries@{it}..{it}"));
    newer(&mut ledger);
    assert_eq!(due(&ledger), [look], "what is due waits for the look");
    let deployed = Arc::clone(&ledger.deployed[&product()]);
    let source =
        KeySource { input: "customers".to_owned().try_into().expect("a port"), column: "country".to_owned() };
    let looked = ledger.in_sight(&deployed, &source).expect("in sight");
    let found = KeysFound {
        port: port.clone(),
        run: "run".to_owned(),
        source,
        looked,
        added: Vec::new(),
        without: 0,
    };
    tell(&mut ledger, Fact::Keys(found));
    assert_eq!(due(&ledger).len(), 2, "and comes after it");
    // Rows came meanwhile: the next look does not keep it back once more.
    newer(&mut ledger);
    assert_eq!(due(&ledger).first().map(String::as_str), Some(look));
    assert!(values.iter().all(|it| due(&ledger).contains(it)), "{:?}", due(&ledger));
    let mut published = ledger.ports[&port].partitions["c0"].published.clone();
    published.version += 1;
    tell(&mut ledger, Fact::Published(published));
    assert_eq!(due(&ledger), [look], "something was published");
    // One that failed keeps nothing back while it is tried again.
    let key: StepKey = look.parse().expect("a step");
    let (run, kind, code) = ("run".to_owned(), ErrorKind::External, "HM-X003".to_owned());
    let outcome = RunOutcome::Failed { kind, code, message: "no space".to_owned() };
    tell(&mut ledger, Fact::RunFinished { run, step: key, outcome, took_ms: 1 });
    newer(&mut ledger);
    assert_eq!(BTreeSet::from_iter(due(&ledger)), values.clone().into());
    let (later, _) = due_steps(&ledger, world.now_ms + HOUR_MS);
    assert!(later.len() > 1 && later[0].key.work == Work::Keys, "{later:?}");
}

#[test]
fn a_look_that_was_interrupted_is_made_again() {
    let mut world = begun();
    world.push(|tree| tree.get_mut(&id("customer/customers")).expect("there").files.push('x'));
    world.look();
    for _ in 0..100 {
        if world.at_work.control.in_flight().any(|(key, _)| key.work == Work::Keys) {
            break;
        }
        if !world.deliver() {
            for run in world.runs() {
                world.work(&run);
            }
        }
    }
    let before = world.entries.len();
    world.crash();
    world.rest();
    let cancelled = world.entries[before..].iter().any(|entry| {
        matches!(&entry.fact, Fact::RunFinished { step, outcome: RunOutcome::Cancelled, .. } if step.work == Work::Keys)
    });
    assert!(cancelled);
    assert_eq!((known(&world), looks(&world, before)), (vec!["c0".into(), "c1".into(), "c2".into()], 1));
}

#[test]
fn what_was_found_ends_with_the_tables() {
    let mut world = begun();
    world.commit(|tree| {
        edit(tree, |spec| spec.retire = RetirePolicy::Drop { after: super::mesh::span("1d") });
    });
    let spec = countries();
    world.commit(|tree| _ = tree.remove(&product()));
    world.pass(48 * HOUR_MS, HOUR_MS);
    assert!(world.ledger().keys.is_empty());
    let before = world.entries.len();
    world.commit(|tree| tree.extend(spec));
    assert_eq!((looks(&world, before), published(&world, before)), (1, vec!["c0".into(), "c1".into()]));
}
