//! Random worlds: people push, ask and change rules; steps fail; and at every effect something may go wrong.

use std::collections::BTreeSet;

use super::super::Event;
use super::faults::{Chaos, Matrix, Random};
use super::mesh::{self, Made, Tree, example, span};
use super::world::{DAY_MS, HOUR_MS, MINUTE_MS, World};
use crate::ids::{PortId, ProductId};
use crate::ledger::{ErrorKind, LedgerState, Verb};
use crate::model::{BackfillOrder, LogicalType, RetirePolicy};

/// The example with a short history: what matters are the interleavings.
fn small() -> Tree {
    let mut tree = example();
    tree.extend(mesh::regions());
    tree.extend(mesh::countries());
    for spec in tree.values_mut() {
        spec.start = "2026-10-26";
        spec.chunk = spec.chunk.map(|_| span("3d"));
        if spec.id == mesh::id("commerce/orders") {
            spec.retention = Some("4d");
        }
        spec.retire = match spec.id.to_string().as_str() {
            "commerce/daily-revenue" => RetirePolicy::Drop { after: span("2h") },
            "support/article-search" => RetirePolicy::Archive { after: span("0s") },
            "risk/churn-model" => RetirePolicy::Drop { after: span("1d") },
            _ => RetirePolicy::Keep,
        };
    }
    // Each day of it reads its own orders and those of two days before.
    let profile = tree.get_mut(&mesh::id("customer/customer-360")).expect("of the example");
    profile.windows.insert("orders", mesh::picked("-2d..0d", None));
    profile.chunk = Some(span("2d"));
    tree
}

pub struct Simulation {
    pub world: World,
    random: Random,
    names: u64,
    /// The last command.
    asked: String,
    /// Tables are changed by others, and looked at. Only in every second world: a look also finds what stale writers and
    /// lost processes left behind, and would hide that nothing else does.
    watched: bool,
    /// A look at a table that has not arrived.
    looked_at: Option<Event>,
    /// How many commits were looked at, or passed over knowingly.
    looked: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut world = World::new();
        world.commit(|tree| *tree = small());
        world.chaos = Some(Chaos::new(seed));
        Self {
            world,
            random: Random(seed),
            names: 0,
            asked: String::new(),
            looked_at: None,
            looked: 1,
            watched: seed.is_multiple_of(2),
        }
    }

    fn product(&mut self) -> ProductId {
        let all: Vec<ProductId> = small().into_keys().collect();
        self.random.pick(&all).expect("twelve products").clone()
    }

    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// One random thing happens.
    fn turn(&mut self) {
        match self.random.below(1_000) {
            0..430 => self.deliver(),
            430..830 => {
                let runs = self.world.runs();
                if let Some(run) = self.random.pick(&runs) {
                    self.world.work(run);
                }
            }
            830..920 => {
                let ms = [1_000, 10_000, MINUTE_MS, 5 * MINUTE_MS, 20 * MINUTE_MS];
                let by_ms = *self.random.pick(&ms).expect("five");
                self.world.advance(by_ms);
                self.world.step(Event::Tick);
            }
            920..925 => {
                self.world.advance(DAY_MS);
                self.world.step(Event::Tick);
            }
            925..930 => {
                // The clock is set back; control must not care.
                self.world.skew_ms -= HOUR_MS;
                self.world.step(Event::Tick);
            }
            930..940 => {
                self.edit();
                if self.random.chance(70) {
                    self.look();
                }
            }
            940..943 => self.look(),
            943..945 => self.world.crash(),
            945..955 => self.world.wake(self.random.below(11), self.random.below(12)),
            955..965 => self.world.haunt(self.random.below(9)),
            965..971 => self.flap(),
            971..982 => self.command(),
            982..985 => self.lose(),
            985..988 => self.world.skew_ms = 0,
            988..990 if self.watched => self.tamper(),
            990..995 if self.watched => self.observe(),
            _ => self.misfortune(),
        }
    }

    /// The poll: tells of commits that nobody looked at, then of the newest.
    fn look(&mut self) {
        let passed = self.world.commits.get(self.looked..self.world.commits.len() - 1).unwrap_or_default();
        let text = |commit: &String| (commit.clone(), "change".to_owned(), "someone".to_owned());
        let commits: Vec<_> = passed.iter().map(|(commit, _)| text(commit)).collect();
        self.looked = self.world.commits.len();
        if !commits.is_empty() {
            let by = self.world.commits.last().expect("pushed").0.clone();
            self.world.step(Event::Superseded { commits, by });
        }
        self.world.look();
    }

    fn port(&mut self) -> Option<PortId> {
        let ports: Vec<PortId> = self.world.ledger().ports.keys().cloned().collect();
        self.random.pick(&ports).cloned()
    }

    /// Somebody else changes a table.
    fn tamper(&mut self) {
        if let Some(port) = self.port() {
            self.world.tamper(&port, self.random.below(4), self.random.below(9));
        }
    }

    /// Somebody looks at a table; what was seen may arrive much later.
    fn observe(&mut self) {
        if let Some(look) = self.looked_at.take() {
            self.world.step(look);
        }
        if let Some(port) = self.port() {
            let look = self.world.look_at(&port);
            if self.random.chance(50) {
                self.world.step(look);
            } else {
                self.looked_at = Some(look);
            }
        }
    }

    /// A process that performs a step for another is gone.
    fn lose(&mut self) {
        let runs = self.world.runs();
        if let Some(run) = self.random.pick(&runs) {
            self.world.lose(run);
        }
    }

    /// Delivers an answer, or some that come together.
    fn deliver(&mut self) {
        let count = if self.random.chance(20) { 2 + self.random.below(5) } else { 1 };
        let events: Vec<Event> = (0..count).filter_map(|_| self.answer()).collect();
        self.world.step_all(events);
    }

    /// Takes an answer from the inbox: in order for each run, else in any order.
    fn answer(&mut self) -> Option<Event> {
        if self.world.at_work.inbox.is_empty() {
            return None;
        }
        let run = |event: &Event| match event {
            Event::Progress { run, .. } | Event::Finished { run, .. } => Some(run.clone()),
            _ => None,
        };
        let at = self.random.below(self.world.at_work.inbox.len());
        let chosen = run(&self.world.at_work.inbox[at]);
        let at = match chosen {
            Some(_) => self.world.at_work.inbox.iter().position(|event| run(event) == chosen).unwrap_or(at),
            None => at,
        };
        self.world.at_work.inbox.remove(at)
    }

    fn flap(&mut self) {
        let denied: BTreeSet<ProductId> = (0..self.random.below(3)).map(|_| self.product()).collect();
        let stops = denied.iter().filter(|_| self.random.chance(50)).cloned().collect();
        (self.world.stops, self.world.rules) = (stops, self.world.rules + 1);
        self.world.policy = Box::new(move |question, product| {
            let columns =
                product.into_iter().flat_map(|it| it.outputs.values()).flat_map(|it| &it.contract.columns);
            let exposed = columns.into_iter().any(|column| column.classification.is_some());
            if exposed {
                vec!["no_pii"]
            } else if denied.contains(&question.product) {
                vec!["not_today"]
            } else {
                vec![]
            }
        });
        // Whoever reads the rules may be late.
        if self.random.chance(70) {
            self.world.rule();
        }
    }

    fn command(&mut self) {
        let product = self.product();
        let runs = self.world.runs();
        let verb = match self.random.below(8) {
            0 => Verb::Backfill { product, from: "2026-10-27".to_owned(), to: "2026-10-29".to_owned() },
            1 => Verb::Run { product },
            2 => Verb::Retry { product },
            3 => {
                // One draw says both: until when, and how much of it.
                let drawn = self.random.below(100);
                let until_ms = (drawn < 60).then_some(self.world.now_ms + 2 * HOUR_MS);
                Verb::Pause { product, until_ms, backfills: drawn % 5 < 2 }
            }
            4 => Verb::Resume { product },
            7 => {
                let regions = ["commerce/regions", "commerce/region-totals"];
                let product = mesh::id(self.random.pick(&regions).expect("two"));
                let values = ["de", "it", "fr"].into_iter().map(str::to_owned);
                Verb::BackfillValues { product, values: values.take(1 + self.random.below(3)).collect() }
            }
            5 => Verb::Cancel { product, run: self.random.pick(&runs).cloned().unwrap_or_default() },
            _ => Verb::Silence { product, until_ms: self.world.now_ms + HOUR_MS },
        };
        // Now and then the mailbox shows a command twice.
        if self.asked.is_empty() || self.random.chance(80) {
            self.asked = self.name("c");
        }
        self.world.ask(&self.asked, verb);
    }

    fn misfortune(&mut self) {
        match self.random.below(6) {
            0..3 => {
                let product = self.product();
                let kinds = [
                    (ErrorKind::External, "HM-X001"),
                    (ErrorKind::User, "HM-Q001"),
                    (ErrorKind::User, "HM-X008"),
                    (ErrorKind::Internal, "HM-X004"),
                ];
                let failure = *self.random.pick(&kinds).expect("four");
                let count = 1 + self.random.below(4);
                self.world.failures.insert(product, std::iter::repeat_n(failure, count).collect());
            }
            3 => self.world.source_stopped ^= true,
            4 => self.world.mail_down ^= true,
            _ => {
                self.world.shifted_ms = self.random.chance(50).then_some(self.world.now_ms);
                self.world.challenger = if self.random.chance(50) { 0.9 } else { 0.5 };
            }
        }
    }

    /// Someone pushes.
    fn edit(&mut self) {
        let product = self.product();
        let (kind, column, fresh) = (self.random.below(15), self.random.below(8), self.name("n"));
        let past = self.random.below(self.world.commits.len());
        if kind == 12 {
            // A revert: the tree of the past in a new commit.
            let tree = self.world.commits[past].1.clone();
            self.world.push(|now| *now = tree);
            return;
        }
        if kind == 13 {
            // A reset: the reference goes back to the commit itself.
            let old = self.world.commits[past].clone();
            self.world.commits.push(old);
            return;
        }
        self.world.push(|tree| {
            let first = |tree: &Tree| tree.get(&product).and_then(|spec| spec.inputs.first().cloned());
            match kind {
                0 | 1 => {
                    let source = match first(tree) {
                        Some((table, Some(port))) => {
                            let columns =
                                tree.get(&port.product).map(|it| it.columns.clone()).unwrap_or_default();
                            columns
                                .get(column % columns.len().max(1))
                                .map(|it| format!("{table}.{}", it.name))
                        }
                        Some((table, None)) => Some(format!("{table}.{fresh}")),
                        None => None,
                    };
                    if let (Some(source), Some(spec)) = (source, tree.get_mut(&product)) {
                        spec.add(&format!("{fresh} = {source}"));
                    }
                }
                2 => change(tree, &product, column, |it| it.expression.push_str(" + 0")),
                3 => change(tree, &product, column, |it| it.pii ^= true),
                4 => drop_column(tree, &product, column, &BTreeSet::new()),
                5 => {
                    let all = tree.keys().cloned().collect();
                    drop_column(tree, &product, column, &all);
                }
                6 => change(tree, &product, column, |it| {
                    let number = it.logical == LogicalType::String;
                    it.logical = if number { LogicalType::Number } else { LogicalType::String };
                }),
                7 => with(tree, &product, |spec| spec.broken ^= true),
                // A list of values is longer, shorter, or another one; the one who reads it follows at once, later, or not at all.
                14 => {
                    let lists = [
                        vec!["at", "de", "it"],
                        vec!["it", "fr", "de"],
                        vec!["fr", "de", "ch", "at", "it"],
                        vec!["de"],
                    ];
                    let list = &lists[column % lists.len()];
                    let (regions, totals) =
                        (mesh::id("commerce/regions"), mesh::id("commerce/region-totals"));
                    with(tree, &regions, |spec| spec.values.clone_from(list));
                    if column < lists.len() || product == totals {
                        with(tree, &totals, |spec| spec.values.clone_from(list));
                    }
                }
                8 if column < 4 => _ = tree.remove(&product),
                // One that nobody reads may leave.
                8 => {
                    let unread = [
                        "commerce/daily-revenue",
                        "support/article-search",
                        "risk/churn-model",
                        "commerce/region-totals",
                    ];
                    _ = tree.remove(&mesh::id(unread[column % unread.len()]));
                }
                9 => _ = tree.insert(product.clone(), small().remove(&product).expect("of the example")),
                10 => with(tree, &product, |spec| spec.version.push_str(".1")),
                11 if column == 1 => with(tree, &product, |spec| spec.order = BackfillOrder::NewestFirst),
                11 if column == 2 => with(tree, &product, |spec| spec.timeout = Some(span("10m"))),
                11 if column == 6 => with(tree, &mesh::id("customer/customer-360"), |spec| {
                    spec.windows.insert("orders", mesh::picked("-1d..0d", Some(1)));
                }),
                11 if column == 3 => with(tree, &product, |spec| spec.pool = Some("shared")),
                11 if column == 4 => tree.values_mut().for_each(|spec| spec.pool = Some("shared")),
                11 if column == 5 => tree.values_mut().for_each(|spec| {
                    spec.pool =
                        Some(if matches!(spec.made, Made::Batch { .. }) { "shared" } else { "other" });
                }),
                _ if column == 0 => tree.clear(),
                _ => with(tree, &product, |spec| spec.files.push('x')),
            }
        });
    }

    /// Nothing fails any more: everything must come to the desired state.
    fn heal(&mut self) {
        let world = &mut self.world;
        world.chaos = None;
        world.asleep.clear();
        world.ghosts.clear();
        // Clocks agree again; control's time does not run back to them.
        world.skew_ms = 0;
        world.advance((world.at_work.control.now_ms() - world.now_ms).max(0) + 30 * MINUTE_MS);
        world.failures.clear();
        world.mail_down = false;
        world.source_stopped = false;
        world.shifted_ms = None;
        world.challenger = 0.9;
        world.policy = Box::new(|_, _| vec![]);
        world.rules += 1;
        if self.random.chance(50) {
            world.crash();
        }
        // Something good on top of whatever the story has become, with countries that may be new.
        let more = usize::try_from(self.names % 4).unwrap_or_default();
        world.push(|tree| {
            *tree = small();
            with(tree, &mesh::id("customer/customers"), |spec| spec.files.push_str(&"x".repeat(more)));
            for spec in tree.values_mut() {
                spec.version = "9.0.0".to_owned();
            }
        });
        world.look();
        world.rest();
        for (at, product) in small().into_keys().enumerate() {
            world.ask(&format!("resume-{at}"), Verb::Resume { product: product.clone() });
            world.ask(&format!("heal-{at}"), Verb::Retry { product });
        }
        // Every table is looked at, and once more, for what was seen first may have come in the middle of something.
        for _ in 0..if self.watched { 2 } else { 0 } {
            let ports: Vec<PortId> = world.ledger().ports.keys().cloned().collect();
            for port in ports {
                let look = world.look_at(&port);
                world.step(look);
            }
            world.pass(HOUR_MS, 5 * MINUTE_MS);
        }
        // What is not computed again by itself is asked for.
        let altered: BTreeSet<ProductId> =
            world.ledger().altered.keys().map(|it| it.product.clone()).collect();
        for (at, product) in altered.into_iter().enumerate() {
            world.ask(&format!("mend-{at}"), Verb::Run { product });
        }
        // Long enough for the slowest pause, the last window of drift and a question that was lost.
        world.pass(6 * HOUR_MS, 5 * MINUTE_MS);
    }
}

fn with(tree: &mut Tree, product: &ProductId, edit: impl FnOnce(&mut mesh::Spec)) {
    if let Some(spec) = tree.get_mut(product) {
        edit(spec);
    }
}

fn change(tree: &mut Tree, product: &ProductId, column: usize, edit: impl FnOnce(&mut mesh::Col)) {
    with(tree, product, |spec| {
        let count = spec.columns.len().max(1);
        if let Some(column) = spec.columns.get_mut(column % count) {
            edit(column);
        }
    });
}

/// Drops a column, and with it what the given readers make of it.
fn drop_column(tree: &mut Tree, product: &ProductId, column: usize, readers: &BTreeSet<ProductId>) {
    let Some(spec) = tree.get_mut(product).filter(|spec| spec.columns.len() > 1) else { return };
    let gone = spec.columns.remove(column % spec.columns.len()).name;
    let port = spec.port();
    for reader in readers {
        let Some(spec) = tree.get_mut(reader) else { continue };
        let table = spec.inputs.iter().find(|(_, from)| from.as_ref() == Some(&port)).map(|it| it.0.clone());
        let Some(table) = table else { continue };
        let source = (table, gone.clone());
        spec.indirect.retain(|it| *it != source);
        let lost: Vec<usize> =
            (0..spec.columns.len()).filter(|at| spec.columns[*at].direct.contains(&source)).collect();
        for at in lost.into_iter().rev() {
            drop_column(tree, reader, at, readers);
        }
    }
}

/// Plays a world from a seed, heals it and asks every oracle; returns which fault met which effect.
///
/// # Panics
///
/// When a promise is broken.
pub fn play(seed: u64, turns: usize) -> Matrix {
    let mut simulation = Simulation::new(seed);
    for turn in 0..turns {
        simulation.turn();
        if turn % 10 == 0 {
            simulation.check_derived();
        }
    }
    let matrix = simulation.world.chaos.take().map(|chaos| chaos.matrix).unwrap_or_default();
    let replayed = LedgerState::replay(&simulation.world.entries);
    assert_eq!(replayed, simulation.world.durable, "the ledger folds to the same again");
    assert_eq!(replayed, simulation.world.at_work.control.ledger, "the ledger folds to what control knows");
    simulation.heal();
    simulation.check();
    matrix
}
