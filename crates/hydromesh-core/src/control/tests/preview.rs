//! A preview over what a parent environment has.

use std::collections::{BTreeMap, BTreeSet};

use super::mesh::{self, Tree, example, id, port_of};
use super::world::{DAY_MS, World};
use crate::control::{Control, Effect, Event, Left, Limits, Start};
use crate::ids::PortId;
use crate::ledger::{
    Decision, Entry, Fact, Finding, KeysFound, LedgerState, OWN_ABOVE, Outcome, Published, RunOutcome,
};
use crate::model::{Partitioning, Pipeline};
use crate::plan::{Change, Newest, Work, bound_preview, ended_partitions, unbuilt};

/// A preview whose steps always go well.
struct Preview {
    control: Control,
    now_ms: i64,
    versions: i64,
    commits: u32,
    /// What was computed: port and partition.
    computed: Vec<(String, String)>,
    alerts: usize,
}

impl Preview {
    fn of(parent: &LedgerState, now_ms: i64) -> Self {
        let facts = parent.bequest("dev");
        let entry = |(at, (at_ms, fact)): (usize, (i64, Fact))| Entry { seq: at as u64 + 1, at_ms, fact };
        let entries: Vec<Entry> = facts.into_iter().enumerate().map(entry).collect();
        let mut control = Control::new(LedgerState::replay(&entries), "preview/p", Limits::default());
        let _ = control.open(now_ms, 2, "test");
        Self { control, now_ms, versions: OWN_ABOVE, commits: 0, computed: Vec::new(), alerts: 0 }
    }

    /// Applies what a tree asks for until nothing can begin, and returns what was computed.
    fn apply(&mut self, tree: &Tree, newest: Option<Newest>) -> BTreeMap<String, Vec<String>> {
        self.commits += 1;
        let commit = format!("{:040x}", self.commits);
        let mut desired = mesh::desired(tree, &commit, &self.control.ledger.port_prints());
        let _ = bound_preview(&mut desired, &self.control.ledger, newest, self.now_ms);
        let mut events = vec![Event::Commit {
            commit,
            r#ref: "refs/heads/change".to_owned(),
            message: "change".to_owned(),
            author: "someone".to_owned(),
            desired: Ok(Box::new(desired)),
        }];
        self.computed.clear();
        while !events.is_empty() {
            let effects = self.control.step(self.now_ms, std::mem::take(&mut events));
            events = effects.into_iter().flat_map(|effect| self.perform(effect)).collect();
        }
        assert_eq!(self.control.left(self.control.now_ms()), Left::Nothing);
        let mut computed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (port, key) in self.computed.drain(..) {
            computed.entry(port).or_default().push(key);
        }
        for keys in computed.values_mut() {
            keys.sort();
        }
        computed
    }

    fn perform(&mut self, effect: Effect) -> Vec<Event> {
        match effect {
            Effect::Decide(question) => {
                let change: Change = serde_json::from_value(question.change.clone()).expect("a change");
                let desired = self.control.desired().expect("a commit");
                let refused =
                    desired.mesh.products.get(&question.product).and_then(|it| unbuilt(&change, it));
                let finding = |port: &PortId| Finding {
                    rule: "not-in-a-preview".to_owned(),
                    message: port.to_string(),
                    path: String::new(),
                    remediation: String::new(),
                    running: false,
                };
                vec![Event::Decided(Decision {
                    id: format!("{}-{}", question.product, question.fingerprint),
                    product: question.product,
                    action: question.action,
                    commit: question.commit,
                    fingerprint: question.fingerprint,
                    allow: refused.is_none(),
                    violations: refused.into_iter().map(finding).collect(),
                    warnings: Vec::new(),
                    waived: Vec::new(),
                    policy_digest: "rules".to_owned(),
                    rules: String::new(),
                    input_hash: String::new(),
                })]
            }
            Effect::Start(start) => {
                let ledger = &self.control.ledger;
                let deployed = &ledger.deployed[&start.key.pipeline.product];
                let pipeline = &deployed.product.pipelines[&start.key.pipeline.name];
                let port = deployed.product.port(pipeline.output());
                let keys: Vec<Option<String>> = match (&start.key.work, pipeline) {
                    (Work::Partitions { from, to }, Pipeline::Batch(batch)) => {
                        let cut = batch.partition.as_ref().expect("cut");
                        if cut.values().is_some() {
                            assert_eq!(from, to);
                            return vec![self.finish(&start, &port, vec![Some(from.clone())])];
                        }
                        let keys = ended_partitions(cut.calendar().expect("by days"), self.now_ms);
                        let keys = keys.iter().map(|it| it.to_string());
                        keys.filter(|key| from <= key && key <= to).map(Some).collect()
                    }
                    (Work::Whole | Work::Embed, _) => vec![None],
                    // What is there now is what was there, and one more.
                    (Work::Keys, Pipeline::Batch(batch)) => {
                        let cut = batch.partition.as_ref().expect("cut");
                        let source = cut.source().expect("looked for").clone();
                        let looked = ledger.in_sight(deployed, &source).expect("in sight");
                        let (run, added) = (start.run.clone(), vec!["c9".to_owned()]);
                        self.computed.push((port.to_string(), "looked".to_owned()));
                        let found = KeysFound { port, run: run.clone(), source, looked, added, without: 0 };
                        let (facts, outcome) = (vec![Fact::Keys(found)], RunOutcome::Succeeded { rows: 0 });
                        return vec![Event::Finished { run, facts, outcome, took_ms: 1 }];
                    }
                    (work, _) => panic!("{work:?} in a preview"),
                };
                vec![self.finish(&start, &port, keys)]
            }
            Effect::Append(entries) => {
                self.alerts += entries.iter().filter(|it| matches!(it.fact, Fact::Alert(_))).count();
                Vec::new()
            }
            Effect::Publish => Vec::new(),
            other => panic!("{other:?} in a preview"),
        }
    }

    /// Publishes partitions of a port, and ends their step well.
    fn finish(&mut self, start: &Start, port: &PortId, keys: Vec<Option<String>>) -> Event {
        let ledger = &self.control.ledger;
        let deployed = &ledger.deployed[&port.product];
        let reads = deployed.product.reads();
        let inputs: BTreeMap<PortId, i64> =
            reads.map(|input| (input.clone(), ledger.ports[input].version)).collect();
        let data = deployed.print.ports[&port.port].data.clone();
        let mut facts = Vec::new();
        for partition in keys {
            self.versions += 1;
            self.computed.push((port.to_string(), partition.clone().unwrap_or_default()));
            facts.push(Fact::Published(Published {
                port: port.clone(),
                partition,
                version: self.versions,
                rows: 1,
                data_time_ms: Some(self.now_ms),
                data: data.clone(),
                inputs: inputs.clone(),
                run: start.run.clone(),
                key: String::new(),
                taken: None,
            }));
        }
        let outcome = RunOutcome::Succeeded { rows: 1 };
        Event::Finished { run: start.run.clone(), facts, outcome, took_ms: 1 }
    }
}

fn parent() -> World {
    let mut world = World::new();
    world.commit(|tree| *tree = example());
    world
}

fn edited(product: &str, edit: impl FnOnce(&mut super::mesh::Spec)) -> Tree {
    let mut tree = example();
    edit(tree.get_mut(&id(product)).expect("there"));
    tree
}

fn version(ledger: &LedgerState, product: &str) -> Option<i64> {
    ledger.ports.get(&port_of(&id(product))).map(|state| state.version)
}

#[test]
fn a_preview_computes_what_differs_and_its_readers_and_nothing_twice() {
    let world = parent();
    let mut preview = Preview::of(world.ledger(), world.now_ms);
    let left = preview.control.left(preview.control.now_ms());
    assert_eq!(left, Left::Nothing, "the parent has nothing to do here");
    assert_eq!(preview.apply(&example(), None), BTreeMap::new(), "nothing differs");

    // Another row of an input: its readers' rows are others too, but for the one that is read by nobody here.
    let tree = edited("commerce/orders", |orders| orders.rows = "scan, without tests".to_owned());
    let computed = preview.apply(&tree, None);
    let built: BTreeSet<&str> = computed.keys().map(String::as_str).collect();
    let readers = [
        "commerce/daily-revenue.daily_revenue",
        "commerce/orders.orders",
        "customer/customer-360.customer_360",
    ];
    assert_eq!(built, readers.into());
    assert!(computed.values().all(|keys| keys.len() == 7), "a week of each: {computed:?}");
    assert_eq!(preview.apply(&tree, None), BTreeMap::new(), "all of it is there");

    // What it made is its own, what it reads is the parent's.
    let (own, parents) = (&preview.control.ledger, world.ledger());
    assert!(version(own, "commerce/orders") > Some(OWN_ABOVE));
    assert_eq!(version(own, "customer/customers"), version(parents, "customer/customers"));
    let profile = &own.ports[&port_of(&id("customer/customer-360"))];
    let read = &profile.partitions.values().next().expect("computed").published.inputs;
    assert_eq!(
        read.get(&port_of(&id("customer/customers"))).copied(),
        version(parents, "customer/customers")
    );
    assert_eq!(own.own_ports(&id("customer/customers")), []);
    assert_eq!(preview.alerts, 0);
    assert_eq!(
        own.inherited.as_ref().map(|it| (it.parent.as_str(), it.position)),
        Some(("dev", parents.seq))
    );
}

#[test]
fn the_bound_stays_until_it_is_changed_and_days_that_end_are_added() {
    let world = parent();
    let mut preview = Preview::of(world.ledger(), world.now_ms);
    let tree = edited("commerce/daily-revenue", |it| it.rows = "scan, by day".to_owned());
    let port = "commerce/daily-revenue.daily_revenue";
    assert_eq!(preview.apply(&tree, Some(Newest::Last(2)))[port], ["2026-10-30", "2026-10-31"]);
    assert_eq!(preview.apply(&tree, None), BTreeMap::new(), "two are enough until somebody wants more");
    assert_eq!(preview.apply(&tree, Some(Newest::Last(3)))[port], ["2026-10-29"]);
    assert_eq!(preview.apply(&tree, Some(Newest::All))[port].len(), 87);
    assert_eq!(preview.apply(&tree, Some(Newest::All)), BTreeMap::new());
    // The parent's orders of the next day are not there, whatever the parent has by now.
    preview.now_ms += DAY_MS;
    assert_eq!(preview.apply(&tree, None), BTreeMap::new());
}

#[test]
fn nothing_of_the_old_definition_is_shown_and_a_change_that_is_taken_back_shows_the_parents_again() {
    let world = parent();
    let mut preview = Preview::of(world.ledger(), world.now_ms);
    let tree =
        edited("support/articles", |it| it.columns[1].expression = "trim(article_files.body)".to_owned());
    let computed = preview.apply(&tree, None);
    assert_eq!(
        computed.keys().collect::<Vec<_>>(),
        ["support/article-search.article_search", "support/articles.articles"]
    );
    let tree = edited("commerce/orders", |orders| orders.rows = "scan, without tests".to_owned());
    preview.apply(&tree, Some(Newest::Last(1)));
    let ledger = &preview.control.ledger;
    assert_eq!(ledger.ports[&port_of(&id("commerce/orders"))].partitions.len(), 1, "not the parent's 90");
    assert_eq!(version(ledger, "support/articles"), version(world.ledger(), "support/articles"));
    assert_eq!(preview.apply(&example(), None), BTreeMap::new());
    for product in ["commerce/orders", "commerce/daily-revenue", "customer/customer-360"] {
        assert_eq!(version(&preview.control.ledger, product), version(world.ledger(), product), "{product}");
    }
}

#[test]
fn a_change_of_metadata_is_deployed_and_computes_nothing() {
    let world = parent();
    let mut preview = Preview::of(world.ledger(), world.now_ms);
    let tree = edited("commerce/orders", |orders| orders.version = "1.1.0".to_owned());
    assert_eq!(preview.apply(&tree, None), BTreeMap::new());
    let deployed = &preview.control.ledger.deployed[&id("commerce/orders")];
    assert_eq!(deployed.product.version, "1.1.0");
    let Some(Pipeline::Batch(batch)) = deployed.product.pipelines.values().next() else { panic!("a batch") };
    let calendar = batch.partition.as_ref().and_then(Partitioning::calendar);
    assert_eq!(calendar.expect("cut").start, mesh::START, "and bounds nothing");
}

#[test]
fn what_follows_a_topic_stays_the_parents_and_so_does_what_cannot_do_without() {
    let world = parent();
    let mut preview = Preview::of(world.ledger(), world.now_ms);
    let tree = edited("commerce/clickstream", |clicks| clicks.rows = "scan, no robots".to_owned());
    assert_eq!(preview.apply(&tree, None), BTreeMap::new());
    let ledger = &preview.control.ledger;
    let verdict = &ledger.verdicts[&id("commerce/clickstream")];
    assert_eq!(verdict.outcome, Outcome::Denied);
    assert!(verdict.why.contains("not-in-a-preview"), "{}", verdict.why);
    assert_eq!(version(ledger, "commerce/clickstream"), version(world.ledger(), "commerce/clickstream"));
    assert!(ledger.streams.keys().any(|it| it.product == id("commerce/clickstream")));
}

#[test]
fn readers_leave_out_what_their_input_leaves_out() {
    let world = parent();
    let mut preview = Preview::of(world.ledger(), world.now_ms);
    let orders = edited("commerce/orders", |orders| orders.rows = "scan, without tests".to_owned());
    preview.apply(&orders, Some(Newest::Last(2)));
    // The reader is wanted whole, and its input is there for two days.
    let mut desired = mesh::desired(&orders, "c", &preview.control.ledger.port_prints());
    for spec in ["commerce/daily-revenue", "customer/customer-360"] {
        let print = desired.prints.get_mut(&id(spec)).expect("there");
        for port in print.ports.values_mut() {
            port.data.push('x');
        }
    }
    let bounded = bound_preview(&mut desired, &preview.control.ledger, None, preview.now_ms);
    let bounds: BTreeSet<&str> = bounded.values().map(|it| it.from.as_str()).collect();
    assert_eq!(bounds, ["2026-10-30"].into(), "{bounded:?}");
    assert_eq!(bounded[&port_of(&id("commerce/orders"))].left_out, 88);
}

#[test]
fn a_preview_knows_the_values_of_its_parent_and_looks_where_the_input_is_its_own() {
    let mut world = World::new();
    let tree = || {
        let mut tree = example();
        tree.extend(mesh::countries());
        tree
    };
    world.commit(|it| *it = tree());
    let mut preview = Preview::of(world.ledger(), world.now_ms);
    assert_eq!(preview.apply(&tree(), None), BTreeMap::new());
    let port = port_of(&id("customer/countries"));
    let known = |preview: &Preview| preview.control.ledger.values_of(&port).expect("values").to_vec();
    assert_eq!(known(&preview), ["c0", "c1"]);
    let with = |product: &str| {
        let mut tree = tree();
        tree.get_mut(&id(product)).expect("there").rows.push('!');
        tree
    };
    // The input is the parent's: so is what was found there.
    let computed = preview.apply(&with("customer/countries"), None);
    assert_eq!(computed[&port.to_string()], ["c0", "c1"]);
    let computed = preview.apply(&with("customer/customers"), None);
    assert_eq!(computed[&port.to_string()], ["c0", "c1", "c9", "looked"]);
    // The parent's again.
    assert_eq!(preview.apply(&tree(), None), BTreeMap::new());
    assert_eq!(preview.alerts, 0);
}
