//! What is deployed, when the rules have become others.

use super::mesh::{example, id};
use super::story::mails;
use super::world::{DAY_MS, HOUR_MS, MINUTE_MS, World};
use crate::control::Event;
use crate::ids::ProductId;
use crate::ledger::{AlertKind, AlertState, Decision, Fact, Verb};
use crate::plan::{Work, due_steps};

/// From now on a rule denies a product, whoever asks what; it also stops its steps, or not.
fn deny(world: &mut World, product: &ProductId, running: bool) {
    let denied = product.clone();
    world.policy = Box::new(move |question, product| {
        let is_old = product.is_none_or(|it| it.version != "2.0.0");
        if question.product == denied && is_old { vec!["not_any_more"] } else { vec![] }
    });
    world.stops = running.then(|| product.clone()).into_iter().collect();
    world.rules += 1;
    world.rule();
    world.rest();
}

fn allow(world: &mut World) {
    world.policy = Box::new(|_, _| vec![]);
    world.rules += 1;
    world.rule();
    world.rest();
}

/// Decisions about what stands, of a product.
fn judged(world: &World, product: &ProductId) -> Vec<bool> {
    let about = |it: &Decision| it.action == "stand" && it.product == *product;
    let entries = world.entries.iter();
    entries
        .filter_map(|it| if let Fact::Decided(it) = &it.fact { about(it).then_some(it.allow) } else { None })
        .collect()
}

fn told(world: &World, product: &ProductId) -> Vec<AlertState> {
    let kinds = [AlertKind::Policy, AlertKind::Stopped].into_iter();
    let about = kinds.flat_map(|kind| mails(world, kind)).filter(|(_, of, _)| *of == product.to_string());
    about.map(|(_, _, state)| state).collect()
}

fn why(world: &World, product: &ProductId) -> Option<String> {
    let (_, waiting) = due_steps(world.ledger(), world.now_ms);
    waiting.into_iter().find(|it| it.pipeline.product == *product).map(|it| it.why)
}

#[test]
fn a_new_denial_is_told_and_stops_nothing_by_itself() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let orders = id("commerce/orders");
    assert_eq!(judged(&world, &orders), Vec::<bool>::new(), "its deploy was judged by these rules");
    let before = world.entries.len();
    deny(&mut world, &orders, false);
    assert_eq!(judged(&world, &orders), [false]);
    assert_eq!(judged(&world, &id("commerce/daily-revenue")), [true]);
    assert_eq!(told(&world, &orders), [AlertState::Firing]);
    let episode = world.ledger().episodes.values().find(|it| it.last().kind == AlertKind::Policy);
    let summary = "not_any_more no longer allows what is deployed of commerce/orders: not_any_more says no";
    assert_eq!(episode.map(|it| it.last().summary.as_str()), Some(summary));
    world.pass(DAY_MS, 30 * MINUTE_MS);
    assert!(world.backfilled(before).contains_key("commerce/orders"), "it is computed as before");
    // A commit that leaves it as it is changes nothing about it, whatever the rule says.
    world.commit(|tree| tree.get_mut(&id("commerce/daily-revenue")).expect("there").add("more"));
    // The same rules are no news, and nobody is asked again after a start.
    world.rule();
    world.crash();
    world.rest();
    assert_eq!(judged(&world, &orders), [false]);
    allow(&mut world);
    assert_eq!(judged(&world, &orders), [false, true]);
    assert_eq!(told(&world, &orders), [AlertState::Firing, AlertState::Resolved]);
}

#[test]
fn a_rule_that_stops_what_runs_stops_it_until_it_allows_it() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let (orders, clicks) = (id("commerce/orders"), id("commerce/clickstream"));
    let follows = |world: &World| world.ledger().running.values().any(|it| it.pipeline.product == clicks);
    assert!(follows(&world));
    deny(&mut world, &clicks, true);
    assert!(!follows(&world), "it is stopped");
    deny(&mut world, &orders, true);
    assert!(follows(&world), "the rule is about another one now");
    let before = world.entries.len();
    // Neither time nor a hand begins it, nor a start.
    world.pass(DAY_MS, 30 * MINUTE_MS);
    world.ask("1", Verb::Run { product: orders.clone() });
    world.crash();
    world.pass(DAY_MS, 30 * MINUTE_MS);
    assert!(!world.backfilled(before).contains_key("commerce/orders"));
    let said = "stopped by the rule not_any_more: not_any_more says no; it goes on once that rule allows what is deployed";
    assert_eq!(why(&world, &orders).as_deref(), Some(said));
    // That it is late is explained, to its readers too.
    assert!(mails(&world, AlertKind::Freshness).iter().all(|(_, of, _)| *of != orders.to_string()));
    assert!(mails(&world, AlertKind::Freshness).iter().all(|(_, of, _)| of != "commerce/daily-revenue"));
    allow(&mut world);
    world.pass(HOUR_MS, 10 * MINUTE_MS);
    assert!(world.backfilled(before)["commerce/orders"] > 0);
    assert_eq!(told(&world, &orders), [AlertState::Firing, AlertState::Resolved]);
}

#[test]
fn a_change_that_the_rule_allows_ends_what_it_said_of_the_one_before() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let orders = id("commerce/orders");
    deny(&mut world, &orders, true);
    let before = world.entries.len();
    // One that it denies as well stays out, and what runs stays stopped.
    world.commit(|tree| tree.get_mut(&orders).expect("there").add("discount"));
    assert!(world.ledger().stopped_by(&orders).is_some());
    assert!(!world.backfilled(before).contains_key("commerce/orders"));
    world.commit(|tree| tree.get_mut(&orders).expect("there").version = "2.0.0".to_owned());
    assert_eq!(world.ledger().stopped_by(&orders), None);
    assert_eq!(told(&world, &orders), [AlertState::Firing, AlertState::Resolved]);
    assert!(world.backfilled(before)["commerce/orders"] > 0);
    assert_eq!(judged(&world, &orders), [false], "its deploy was judged by these rules");
    // Back to what the rule denies: that is refused as a deploy.
    world.commit(|tree| *tree = example());
    assert_eq!(world.ledger().stopped_by(&orders), None);
    // A product that leaves takes what was said of it along.
    deny(&mut world, &id("commerce/daily-revenue"), true);
    assert!(world.ledger().stopped_by(&id("commerce/daily-revenue")).is_some());
    world.policy = Box::new(|_, _| vec![]);
    world.commit(|tree| _ = tree.remove(&id("commerce/daily-revenue")));
    assert_eq!(world.ledger().standing(&id("commerce/daily-revenue")), None);
    assert!(!world.ledger().open.keys().any(|(_, kind, _)| *kind == AlertKind::Stopped));
}

#[test]
fn what_could_not_be_asked_says_nothing_and_is_asked_later() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let orders = id("commerce/orders");
    world.stops.insert(orders.clone());
    world.policy = Box::new(|question, _| {
        if question.product.to_string() == "commerce/orders" { vec!["policy-error"] } else { vec![] }
    });
    world.rules += 1;
    world.rule();
    world.rest();
    world.pass(3 * HOUR_MS, 10 * MINUTE_MS);
    assert_eq!(judged(&world, &orders), Vec::<bool>::new());
    assert_eq!(world.ledger().stopped_by(&orders), None);
    // It holds up nobody else.
    assert_eq!(judged(&world, &id("support/article-search")), [true]);
    world.policy = Box::new(|_, _| vec!["no"]);
    world.pass(20 * MINUTE_MS, MINUTE_MS);
    assert_eq!(judged(&world, &orders), [false]);
}

#[test]
fn an_answer_of_other_rules_counts_for_nothing_and_few_are_asked_at_once() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    while world.deliver() {}
    world.policy = Box::new(|_, _| vec!["no"]);
    world.rules += 1;
    world.rule();
    let asked = |world: &World| {
        let about = |it: &&Event| matches!(it, Event::Decided(it) if it.action == "stand");
        world.at_work.inbox.iter().filter(about).count()
    };
    assert_eq!(asked(&world), 4);
    let answer = world.take_answer();
    assert!(!answer.allow);
    // The rule is taken back before its answer comes.
    world.policy = Box::new(|_, _| vec![]);
    world.rules += 1;
    world.rule();
    let product = answer.product.clone();
    world.step(Event::Decided(answer));
    world.rest();
    for product in world.ledger().deployed.keys() {
        assert_eq!(judged(&world, product), [true], "{product}");
    }
    assert_eq!(told(&world, &product), Vec::<AlertState>::new());
    // One that nobody follows is followed as before.
    assert!(world.ledger().running.values().any(|step| step.work == Work::Follow));
}

#[test]
fn whoever_reads_what_is_labelled_otherwise_is_judged_again() {
    let mut world = World::new();
    world.policy = Box::new(|_, _| vec![]);
    world.commit(|tree| *tree = example());
    world.commit(|tree| tree.get_mut(&id("commerce/orders")).expect("there").columns[1].pii = true);
    // By its readers and theirs, and nobody else; where nothing is to be computed again, too.
    let again: Vec<String> = world
        .ledger()
        .deployed
        .keys()
        .filter(|id| !judged(&world, id).is_empty())
        .map(ToString::to_string)
        .collect();
    assert_eq!(again, ["commerce/daily-revenue", "customer/customer-360"]);
    assert!(world.ledger().outdated.is_empty());
    // A denial of before stays until the answer is there.
    deny(&mut world, &id("commerce/daily-revenue"), true);
    world.push(|tree| tree.get_mut(&id("commerce/orders")).expect("there").columns[1].pii = false);
    world.look();
    while !world.ledger().outdated.contains(&id("commerce/daily-revenue")) {
        assert!(world.deliver());
    }
    assert!(world.ledger().stopped_by(&id("commerce/daily-revenue")).is_some());
    world.rest();
    assert!(world.ledger().outdated.is_empty());
}
