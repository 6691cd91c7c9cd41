//! What is due is kept from fact to fact; it must always be what is derived from nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::mesh::{Made, Spec, Tree, desired, id, picked, port_of, span};
use super::steps::keys_between;
use crate::ids::PortId;
use crate::ledger::{Command, Entry, ErrorKind, Fact, LedgerState, Published, RunOutcome, Verb};
use crate::model::BackfillOrder;
use crate::plan::{DueStep, DueWork, StepKey, Work, due_steps};
use crate::time::Grain;

const HOUR_MS: i64 = 3_600_000;
/// 2026-08-10T00:00:00Z: a week after the first partition.
const NOW_MS: i64 = 1_786_320_000_000;
const PRODUCTS: [&str; 10] = [
    "a/source",
    "a/aligned",
    "b/joined",
    "b/whole",
    // Weeks of days, days of the days before, days of weeks, and days of two windows.
    "c/weekly",
    "c/lagged",
    "c/fanned",
    "c/moving",
    // Values of a list, and the same list over it.
    "d/listed",
    "d/shared",
];

/// Something that may happen, small enough to meet itself often.
#[derive(Debug, Clone)]
enum Happening {
    Worked { product: usize, failing: bool },
    Published { product: usize, key: String, fresh: bool, known: bool },
    Ended { product: usize, work: Work, how: u8 },
    Asked { product: usize, from: String, to: String, verb: u8 },
    Deployed { product: usize, edit: u8 },
    Retired { product: usize },
    Later { hours: i64 },
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => (1_u8..20).prop_map(|day| format!("2026-08-{day:02}")),
        1 => Just(String::new()),
        1 => Just("2026-08-05T07".to_owned()),
        4 => prop::sample::select(vec!["at", "de", "fr", "it"]).prop_map(str::to_owned),
    ]
}

fn work() -> impl Strategy<Value = Work> {
    prop_oneof![
        6 => (key(), key()).prop_map(|(from, to)| Work::Partitions { from: from.clone().min(to.clone()), to: from.max(to) }),
        1 => Just(Work::Whole),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    let product = 0..PRODUCTS.len();
    prop_oneof![
        12 => (product.clone(), prop::bool::weighted(0.2))
            .prop_map(|(product, failing)| Happening::Worked { product, failing }),
        5 => (product.clone(), key(), prop::bool::weighted(0.8), any::<bool>())
            .prop_map(|(product, key, fresh, known)| Happening::Published { product, key, fresh, known }),
        3 => (product.clone(), work(), 0_u8..4).prop_map(|(product, work, how)| Happening::Ended { product, work, how }),
        1 => (product.clone(), key(), key(), 0_u8..7)
            .prop_map(|(product, from, to, verb)| Happening::Asked { product, from, to, verb }),
        2 => (product.clone(), 0_u8..21).prop_map(|(product, edit)| Happening::Deployed { product, edit }),
        1 => product.prop_map(|product| Happening::Retired { product }),
        2 => (1_i64..40).prop_map(|hours| Happening::Later { hours }),
    ]
}

fn tree() -> Tree {
    let day = || Made::Batch { by: Some("day"), cron: None };
    let source = Spec::new(PRODUCTS[0], day()).reads("files").with(&["day", "amount"]);
    // A copy of the day is the same day: each partition rests on that of its input.
    let aligned = Spec::new(PRODUCTS[1], day()).reads(PRODUCTS[0]).with(&["day", "amount"]);
    let mut joined = Spec::new(PRODUCTS[2], day())
        .reads(PRODUCTS[0])
        .reads(PRODUCTS[3])
        .with(&["day = source.day", "amount = whole.amount"]);
    joined.columns[0].expression = "distinct(source.day)".to_owned();
    let whole = Spec::new(PRODUCTS[3], Made::Batch { by: None, cron: None }).reads("files").with(&["amount"]);
    let mapped = |at: usize, reads: usize, table: &'static str, window: &str, at_least: Option<u32>| {
        let mut spec = Spec::new(PRODUCTS[at], day()).reads(PRODUCTS[reads]).with(&["day", "amount"]);
        spec.columns[0].expression = format!("distinct({table}.day)");
        spec.picks(table, window, at_least)
    };
    let mut weekly = mapped(4, 1, "aligned", "0d..0d", None);
    weekly.every = Grain::Week;
    let lagged = mapped(5, 0, "source", "-1d..-1d", None);
    let fanned = mapped(6, 4, "weekly", "-1w..0d", Some(1));
    let moving =
        mapped(7, 0, "source", "-3d..0d", Some(3)).reads(PRODUCTS[5]).picks("lagged", "0d..1d", None);
    let listed = |at: usize, reads: &str| {
        let made = Made::Batch { by: Some("value"), cron: None };
        let spec = Spec::new(PRODUCTS[at], made).reads(reads).with(&["value", "amount"]);
        Spec { values: vec!["at", "de", "it"], ..spec }
    };
    let shared = listed(9, PRODUCTS[8]);
    let listed = listed(8, PRODUCTS[3]);
    let specs =
        [source, aligned, joined, whole, weekly, lagged, fanned, moving, listed, shared].map(|mut spec| {
            spec.chunk = Some(span("3d"));
            (spec.id.clone(), spec)
        });
    specs.into()
}

fn failed(kind: ErrorKind) -> RunOutcome {
    RunOutcome::Failed { kind, code: "HM-X001".to_owned(), message: "no".to_owned() }
}

struct World {
    tree: Tree,
    ledger: LedgerState,
    kept: DueWork,
    now_ms: i64,
    versions: BTreeMap<PortId, i64>,
    names: u32,
}

impl World {
    /// Returns a world in which everything is there, so that whatever happens to an input is seen by its readers.
    fn all_there() -> Self {
        let (ledger, kept) = (LedgerState::default(), DueWork::default());
        let mut world =
            Self { tree: tree(), ledger, kept, now_ms: NOW_MS, versions: BTreeMap::new(), names: 0 };
        for product in 0..PRODUCTS.len() {
            world.deploy(product);
        }
        for product in [0, 3, 1, 2, 4, 5, 6, 7, 8, 9] {
            world.work(product, false);
        }
        world
    }

    fn record(&mut self, fact: Fact) {
        let entry = Entry { seq: self.ledger.seq + 1, at_ms: self.now_ms, fact };
        self.kept.note(&self.ledger, &entry.fact);
        self.ledger.apply(&entry);
    }

    fn deploy(&mut self, product: usize) {
        let id = id(PRODUCTS[product]);
        let desired = desired(&self.tree, "commit", &self.ledger.port_prints());
        let Some(product) = desired.mesh.products.get(&id) else { return };
        let generation = self.ledger.generations.get(&id).map_or(1, |before| before + 1);
        self.record(Fact::Deployed {
            generation,
            commit: "commit".to_owned(),
            decision: String::new(),
            product: Box::new(product.clone()),
            print: desired.prints[&id].clone(),
        });
    }

    fn publish(&mut self, product: usize, key: String, fresh: bool, known: bool) {
        let port = port_of(&id(PRODUCTS[product]));
        let Some(deployed) = self.ledger.deployed.get(&port.product).cloned() else { return };
        let version = self.versions.entry(port.clone()).or_default();
        *version += 1;
        let versions = deployed.product.reads().map(|input| {
            let version = self.ledger.ports.get(input).map_or(0, |state| state.version);
            (input.clone(), if known { version } else { version - 1 })
        });
        let data = if fresh { deployed.print.ports[&port.port].data.clone() } else { "old".to_owned() };
        let by_calendar = deployed.product.cut_of(&port.port).is_some_and(|cut| cut.calendar().is_some());
        let published = Published {
            version: *version,
            data_time_ms: (!by_calendar).then_some(self.now_ms - 3 * HOUR_MS),
            partition: Some(key).filter(|key| !key.is_empty()),
            rows: 1,
            data,
            inputs: versions.collect(),
            run: "run".to_owned(),
            port,
            key: String::new(),
            taken: None,
        };
        self.record(Fact::Published(published));
    }

    /// Does what is due of a product; the first step may fail.
    fn work(&mut self, product: usize, mut failing: bool) {
        let _ = self.kept.refresh(&self.ledger, self.now_ms);
        let of_it = |step: &&DueStep| step.key.pipeline.product == id(PRODUCTS[product]);
        for step in self.kept.steps().filter(of_it).cloned().collect::<Vec<_>>() {
            let outcome = if std::mem::take(&mut failing) {
                failed(ErrorKind::External)
            } else {
                let keys = match &step.key.work {
                    Work::Partitions { from, to } => {
                        let port = port_of(&id(PRODUCTS[product]));
                        let product = &self.ledger.deployed[&port.product].product;
                        keys_between(product.cut_of(&port.port).expect("it is cut"), from, to)
                    }
                    _ => vec![String::new()],
                };
                for key in keys {
                    self.publish(product, key, true, true);
                }
                RunOutcome::Succeeded { rows: 1 }
            };
            self.record(Fact::RunFinished { run: "run".to_owned(), step: step.key, outcome, took_ms: 1 });
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Worked { product, failing } => self.work(product, failing),
            Happening::Published { product, key, fresh, known } => self.publish(product, key, fresh, known),
            Happening::Ended { product, work, how } => {
                let product = id(PRODUCTS[product]);
                let name = product.name.as_str().to_owned().try_into().expect("a name");
                let step = StepKey { pipeline: crate::ids::PipelineId { product, name }, work };
                let outcome = match how {
                    0 => RunOutcome::Succeeded { rows: 1 },
                    1 => RunOutcome::Cancelled,
                    2 => failed(ErrorKind::User),
                    _ => failed(ErrorKind::External),
                };
                self.record(Fact::RunFinished { run: "another".to_owned(), step, outcome, took_ms: 1 });
            }
            Happening::Asked { product, from, to, verb } => {
                self.names += 1;
                let (name, product) = (format!("c{}", self.names), id(PRODUCTS[product]));
                let verb = match verb {
                    0 => Verb::Backfill { product, from, to },
                    1 => Verb::Run { product },
                    2 => Verb::Pause { product, until_ms: Some(self.now_ms + 7 * HOUR_MS), backfills: false },
                    3 => Verb::Pause { product, until_ms: None, backfills: true },
                    4 => Verb::Resume { product },
                    5 => Verb::BackfillValues { product, values: vec![from, to] },
                    _ => Verb::Retry { product },
                };
                let (actor, reason) = (String::new(), String::new());
                self.record(Fact::Command(Command { id: name.clone(), actor, reason, verb }));
                self.record(Fact::CommandAnswered { id: name, accepted: true, answer: String::new() });
            }
            Happening::Deployed { product, edit } => {
                let spec = self.tree.get_mut(&id(PRODUCTS[product])).expect("in the tree");
                match edit {
                    0 => spec.lookback = Some(span("2d")),
                    1 => spec.lookback = None,
                    2 => spec.chunk = Some(span("5d")),
                    3 => spec.chunk = None,
                    4 => spec.start = if spec.every == Grain::Week { "2026-08-10" } else { "2026-08-06" },
                    5 => spec.rows.push('!'),
                    9 => spec.order = BackfillOrder::NewestFirst,
                    6 => spec.made = Made::Batch { by: Some("day"), cron: Some("15 2 * * *") },
                    7 => spec.made = Made::Batch { by: None, cron: None },
                    10 => spec.made = Made::Batch { by: None, cron: Some("15 2 * * *") },
                    11 => {
                        spec.made = Made::Batch { by: None, cron: Some("promise") };
                        spec.promise = Some(span("1d"));
                    }
                    12 => spec.every = Grain::Week,
                    13 => (spec.every, spec.start) = (Grain::Day, super::mesh::START),
                    14 => spec.windows.values_mut().for_each(|window| window.at_least = Some(2)),
                    15 => spec.windows.values_mut().for_each(|window| *window = picked("-2d..0d", None)),
                    16 => spec.windows.clear(),
                    17 => spec.values = vec!["it", "de"],
                    18 => spec.values = vec!["at", "de", "fr", "it"],
                    19 => spec.values = vec!["at", "de", "it"],
                    20 => spec.values.clear(),
                    _ => spec.made = Made::Batch { by: Some("day"), cron: None },
                }
                self.deploy(product);
            }
            Happening::Retired { product } => {
                let product = id(PRODUCTS[product]);
                if self.ledger.deployed.contains_key(&product) {
                    let (commit, decision) = (String::new(), String::new());
                    self.record(Fact::Retired { product, commit, decision });
                }
            }
            Happening::Later { hours } => self.now_ms += hours * HOUR_MS,
        }
    }

    fn check(&mut self, after: &str) {
        let _ = self.kept.refresh(&self.ledger, self.now_ms);
        let (due, waiting) = due_steps(&self.ledger, self.now_ms);
        assert_eq!(self.kept.steps().cloned().collect::<Vec<_>>(), due, "after {after}");
        assert_eq!(self.kept.waiting().collect::<Vec<_>>(), waiting, "after {after}");
        for failed in self.ledger.failed.keys() {
            let wanted = due.iter().any(|step| step.key.overlaps(failed));
            assert!(!wanted || self.kept.wants(failed), "{failed} is wanted after {after}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_is_due_is_kept_as_it_would_be_derived_anew(
        happenings in prop::collection::vec(prop::collection::vec(happening(), 1..4), 1..40),
    ) {
        let mut world = World::all_there();
        world.check("the start");
        // Facts come one by one, or a few between two looks.
        for together in happenings {
            let after = format!("{together:?}");
            for happening in together {
                world.happen(happening);
            }
            world.check(&after);
        }
    }
}

/// What a loader refuses, and a property once came upon: a value is never closed, whatever its pipeline says.
#[test]
fn a_list_that_looks_back_is_kept_as_it_would_be_derived_anew() {
    let mut world = World::all_there();
    for happening in [
        Happening::Deployed { product: 2, edit: 17 },
        Happening::Worked { product: 0, failing: false },
        Happening::Deployed { product: 2, edit: 0 },
        Happening::Worked { product: 2, failing: false },
        Happening::Published { product: 3, key: "2026-08-05T07".to_owned(), fresh: false, known: false },
    ] {
        let after = format!("{happening:?}");
        world.happen(happening);
        world.check(&after);
    }
}
