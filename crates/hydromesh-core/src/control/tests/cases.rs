//! What people do to a repository, and answers that are about something else than what was asked.

use super::mesh::{example, id};
use super::world::World;
use crate::control::Event;
use crate::ledger::{Decision, Fact, Outcome};

#[test]
fn an_answer_about_other_bytes_deploys_nothing() {
    let mut world = World::new();
    let product = id("commerce/orders");
    world.commit(|tree| *tree = example());
    let deployed = |world: &World| world.ledger().deployed[&product].commit.clone();
    let first = deployed(&world);
    let second = world.push(|tree| tree.get_mut(&product).expect("there").add("discount"));
    world.look();
    // The gate was asked and has not answered. Somebody answers about what it was asked before, about another commit, about
    // another product, and about another deed.
    let asked = world.take_answer();
    assert_eq!((&asked.product, asked.commit.as_str(), asked.allow), (&product, second.as_str(), true));
    for answer in [
        Decision { fingerprint: "of other bytes".to_owned(), ..asked.clone() },
        Decision { commit: first.clone(), ..asked.clone() },
        Decision { product: id("commerce/daily-revenue"), ..asked.clone() },
        Decision { action: "retire".to_owned(), ..asked.clone() },
        Decision { action: "backfill".to_owned(), ..asked.clone() },
    ] {
        let before = world.entries.len();
        world.step(Event::Decided(answer));
        assert_eq!((deployed(&world), world.entries.len()), (first.clone(), before));
    }
    world.step(Event::Decided(asked.clone()));
    assert_eq!(deployed(&world), second);
    // The same answer once more is an answer to no question.
    let before = world.entries.len();
    world.step(Event::Decided(Decision { allow: false, ..asked }));
    assert_eq!((deployed(&world), world.entries.len()), (second, before));
}

#[test]
fn a_renamed_domain_is_new_products_and_the_old_ones_go_by_a_decision() {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    let rows = world.ledger().ports.len();
    let renamed = world.commit(|tree| {
        for old in ["support/articles", "support/article-search"] {
            let mut spec = tree.remove(&id(old)).expect("there");
            spec.id = id(&old.replace("support/", "service/"));
            for (_, port) in &mut spec.inputs {
                if let Some(port) = port.as_mut().filter(|port| port.product == id("support/articles")) {
                    port.product = id("service/articles");
                }
            }
            tree.insert(spec.id.clone(), spec);
        }
    });
    assert_eq!(world.ledger().outcome(&renamed), Some(Outcome::Applied));
    let names: Vec<String> = world.ledger().deployed.keys().map(ToString::to_string).collect();
    assert!(
        names.contains(&"service/articles".to_owned())
            && names.contains(&"service/article-search".to_owned())
    );
    assert!(!names.iter().any(|name| name.starts_with("support/")), "{names:?}");
    assert_eq!(names.len(), 9);
    for (product, action) in [("service/articles", "deploy"), ("support/articles", "retire")] {
        let decided = world.entries.iter().any(|entry| {
            matches!(&entry.fact, Fact::Decided(it) if it.product == id(product) && it.action == action
                && it.commit == renamed && it.allow)
        });
        assert!(decided, "{product} {action}");
    }
    // Under their new names they are computed anew; what was published under the old ones stays known.
    assert_eq!(world.ledger().ports.len(), rows + 2);
    assert!(world.plan().is_empty());
}

#[test]
fn a_forced_push_that_removes_what_is_deployed_is_a_change_like_any_other() {
    let mut world = World::new();
    let product = id("commerce/daily-revenue");
    let first = world.commit(|tree| *tree = example());
    world.commit(|tree| tree.get_mut(&product).expect("there").columns[2].expression = "sum(x)".to_owned());
    let deployed = world.ledger().deployed[&product].print.clone();
    // The branch is forced back to where it was: that commit has been seen before, and is now the head again.
    let abandoned = world.commits.pop().expect("two commits").0;
    world.look();
    world.rest();
    assert_eq!(world.ledger().deployed[&product].commit, first);
    assert_ne!(world.ledger().deployed[&product].print, deployed);
    assert_eq!(world.ledger().outcome(&abandoned), Some(Outcome::Applied), "what happened stays told");
    assert!(world.plan().is_empty());
}
