//! What must hold, whatever went wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::simulation::Simulation;
use super::world::{DAY_MS, World};
use crate::ledger::{AlertState, Fact, LedgerState, Outcome};
use crate::model::{Partitioning, Pipeline, StepLimits};
use crate::plan::{DueWork, StepKey, Work, due_steps, ended_partitions};

impl Simulation {
    /// Asks everything about a world that was healed and came to rest.
    pub fn check(&self) {
        self.check_at_rest();
        self.check_outcomes();
        self.check_mails();
        self.check_runs();
        self.world.check_limits();
        self.check_commands();
    }

    /// P3, P4, P10: everything is as the last commit says, in the ledger and in the tables.
    fn check_at_rest(&self) {
        let world = &self.world;
        let ledger = world.ledger();
        assert!(world.plan().is_empty(), "{:?}", world.plan().changes);
        let (head, _) = world.commits.last().expect("pushed");
        assert_eq!(ledger.outcome(head), Some(Outcome::Applied));
        assert_eq!(ledger.deployed.len(), 12);
        let (due, _) = due_steps(ledger, world.now_ms);
        for step in &due {
            let follows = step.key.work == Work::Follow;
            assert!(follows, "{} is still due: {}", step.key, step.reason);
            assert!(
                world.at_work.control.in_flight().any(|(key, _)| *key == step.key),
                "{} is not followed",
                step.key
            );
        }
        // What failed and is not kept any longer is wanted by nobody.
        let mut work = DueWork::default();
        let _ = work.refresh(ledger, world.now_ms);
        let failed: Vec<_> = ledger.failed.iter().filter(|(key, _)| work.wants(key)).collect();
        assert!(failed.is_empty(), "{failed:?}");
        assert!(ledger.pending.is_empty(), "{:?}", ledger.pending);
        assert!(ledger.open.is_empty(), "{:?}", ledger.open);
        assert!(ledger.outbox.is_empty(), "{:?}", ledger.outbox);
        for (id, deployed) in &ledger.deployed {
            let standing = ledger.standing(id).expect("decided about");
            assert_eq!((standing.allow, &standing.rules), (true, &world.rules_of(id)), "{id}");
            for pipeline in deployed.product.pipelines.values() {
                let port = deployed.product.port(pipeline.output());
                let data = &deployed.print.ports[pipeline.output()].data;
                let keys: Vec<String> = match pipeline {
                    Pipeline::Batch(batch) => match &batch.partition {
                        // The last partition may wait for its schedule.
                        Some(cut) => {
                            let ended = |calendar| ended_partitions(calendar, world.now_ms - DAY_MS);
                            let ended = cut.calendar().into_iter().flat_map(|it| {
                                ended(it).iter().map(|key| key.to_string()).collect::<Vec<_>>()
                            });
                            ended.chain(cut.values().into_iter().flat_map(|it| it.to_vec())).collect()
                        }
                        None => vec![String::new()],
                    },
                    Pipeline::Embedding(_) | Pipeline::Training(_) => vec![String::new()],
                    Pipeline::Stream(_) | Pipeline::Feature(_) => {
                        assert_eq!(
                            &ledger
                                .streams
                                .iter()
                                .find(|(key, _)| key.product == port.product)
                                .expect("followed")
                                .1
                                .data,
                            data
                        );
                        continue;
                    }
                };
                // What is not kept is neither computed again nor what was made of it.
                let rests_on =
                    deployed.print.aligned.iter().filter(|(output, _)| output == pipeline.output());
                let ports = rests_on.map(|(_, input)| input).chain([&port]);
                let kept = ports.filter_map(|port| ledger.kept_from(port)).max().unwrap_or_default();
                let picked = |key: &str| {
                    let Pipeline::Batch(batch) = pipeline else { return true };
                    deployed.product.reads().all(|input| {
                        let Some(kept) = ledger.kept_from(input) else { return true };
                        let windows = ledger.mappings(&deployed.product, batch, input);
                        windows.iter().filter_map(|it| it.keys(key)).all(|(first, _)| first.as_str() >= kept)
                    })
                };
                let is_kept = |key: &String| key.is_empty() || key.as_str() >= kept && picked(key);
                for key in keys.into_iter().filter(is_kept) {
                    world.assert_shows(&port, &key, data);
                }
                // What is looked for was found, in what readers see of the input.
                if let Some(source) = deployed.product.cut_of(&port.port).and_then(Partitioning::source) {
                    let input = deployed.product.reads().next().expect("an input");
                    let there = world.lake[input].countries_at(ledger.ports[input].version);
                    let known = ledger.known_keys(&port, source).expect("looked").values.clone();
                    assert!(there.iter().all(|value| known.index(value).is_some()), "{there:?} of {known}");
                }
                // What has a list is as old as the oldest value on it.
                if let Some(values) = ledger.values_of(&port) {
                    let state = &ledger.ports[&port];
                    let times = values.iter().map(|value| state.partitions[value].published.data_time_ms);
                    assert_eq!(state.newest_data_ms, times.min().flatten(), "{port}");
                }
            }
        }
    }

    /// P1: every commit that was seen got its outcome; one more only when it was judged otherwise.
    fn check_outcomes(&self) {
        let mut last: BTreeMap<&str, Option<Outcome>> = BTreeMap::new();
        for entry in &self.world.entries {
            match &entry.fact {
                Fact::CommitSeen { commit, .. } => _ = last.insert(commit, None),
                Fact::CommitOutcome { commit, product: None, outcome, .. } => {
                    let before = last.insert(commit, Some(*outcome)).expect("seen before");
                    assert_ne!(before, Some(*outcome), "{commit} is told twice");
                }
                _ => {}
            }
        }
        assert!(last.values().all(Option::is_some), "{last:?}");
    }

    /// P7: for every place, fired comes before resolved and both come, or neither.
    fn check_mails(&self) {
        let mut told: BTreeMap<(&str, &str), Vec<AlertState>> = BTreeMap::new();
        for (to, alert) in &self.world.mails {
            let states = told.entry((&alert.episode, to)).or_default();
            if !states.contains(&alert.state) {
                states.push(alert.state);
            }
        }
        for states in told.values() {
            assert_eq!(states, &[AlertState::Firing, AlertState::Resolved]);
        }
        for (episode, record) in &self.world.ledger().episodes {
            let fired = record.transitions.iter().find(|(_, alert)| alert.state == AlertState::Firing);
            let targets = fired.map(|(_, alert)| alert.targets.as_slice()).unwrap_or_default();
            let places = told.keys().filter(|(of, _)| of == episode).count();
            assert_eq!(places, targets.len(), "{episode}: everyone is told, and nobody else");
        }
    }

    /// Every run that began ended exactly once, but for those that follow.
    fn check_runs(&self) {
        let mut open = BTreeSet::new();
        for entry in &self.world.entries {
            match &entry.fact {
                Fact::RunStarted { run, .. } => assert!(open.insert(run.clone()), "{run} begins twice"),
                Fact::RunFinished { run, .. } => assert!(open.remove(run), "{run} ends twice"),
                _ => {}
            }
        }
        let running: BTreeSet<String> = self.world.ledger().running.keys().cloned().collect();
        assert_eq!(open, running);
    }

    /// What control derived bit by bit is what is derived from the whole: what is due, what is wrong, and that nothing is
    /// left that could begin.
    pub fn check_derived(&self) {
        let control = &self.world.at_work.control;
        let ledger = &control.ledger;
        let (due, waiting) = due_steps(ledger, control.now_ms());
        let mut kept = control.due.clone();
        // The last facts of an event are looked at with the next one.
        let _ = kept.refresh(ledger, control.now_ms());
        assert_eq!(kept.steps().cloned().collect::<Vec<_>>(), due);
        assert_eq!(kept.waiting().collect::<Vec<_>>(), waiting);

        let wrong: BTreeSet<_> = ledger
            .deployed
            .keys()
            .chain(ledger.verdicts.keys())
            .flat_map(|id| control.signs(id).0.into_keys().map(|(kind, what)| (id.clone(), kind, what)))
            .collect();
        let told: BTreeSet<_> = ledger.open.keys().chain(&control.untold).cloned().collect();
        assert_eq!(told, wrong);
        let held = ledger.open.iter().filter(|(_, id)| ledger.episodes[*id].last().state == AlertState::Held);
        assert!(held.map(|(about, _)| about).all(|about| control.untold.contains(about)));

        control.check_standing();
        for (key, flight) in &control.flights {
            let stopped = ledger.stopped_by(&key.pipeline.product).is_some();
            assert!(!stopped || flight.is_stopped(), "{key} goes on against a rule");
            assert!(!flight.is_over_its_time(control.now_ms), "{key} goes on after its timeout");
        }
        // Whoever could begin has begun.
        let limits = &ledger.limits;
        let taken = |of: &dyn Fn(&StepKey) -> bool| {
            control.in_flight().filter(|(key, _)| key.work != Work::Follow && of(key)).count()
        };
        let full = taken(&|_| true) >= limits.steps.map_or(control.limits.steps, |it| it as usize);
        for step in control.due.steps() {
            let follows = step.key.work == Work::Follow;
            let pool = ledger.bounds_of(&step.key.pipeline).and_then(|bounds| bounds.pool.clone());
            let most =
                pool.as_ref().and_then(|pool| limits.pools.get(pool)).map_or(usize::MAX, |it| *it as usize);
            let in_pool = taken(&|key| control.pool_in_flight(key) == pool.as_ref());
            if follows || !full && (pool.is_none() || in_pool < most) {
                assert_eq!(control.startable(&step.key.pipeline).next(), None, "nobody looks at it");
            }
        }
    }

    /// Every command was answered once.
    fn check_commands(&self) {
        let (mut known, mut open) = (BTreeSet::new(), BTreeSet::new());
        for entry in &self.world.entries {
            match &entry.fact {
                Fact::Command(command) => {
                    assert!(known.insert(command.id.clone()), "{} comes twice", command.id);
                    open.insert(command.id.clone());
                }
                Fact::CommandAnswered { id, .. } => assert!(open.remove(id), "{id} is answered twice"),
                _ => {}
            }
        }
        assert!(open.is_empty(), "{open:?} is not answered");
    }
}

impl World {
    /// No more steps run at once than the environment allowed when the last of them began: in all, of a product, of a pool.
    pub fn check_limits(&self) {
        let mut ledger = LedgerState::default();
        // Bounded steps under way, with the pool in which each has a place.
        let mut running: BTreeMap<String, (StepKey, Option<String>)> = BTreeMap::new();
        for entry in &self.entries {
            match &entry.fact {
                Fact::RunStarted { run, step, .. } if step.work != Work::Follow => {
                    let pool = ledger.bounds_of(&step.pipeline).and_then(|bounds| bounds.pool.clone());
                    let rule = ledger.stopped_by(&step.pipeline.product);
                    assert_eq!(rule, None, "{step} begins against a rule");
                    running.insert(run.clone(), (step.clone(), pool.clone()));
                    let StepLimits { steps, per_product, pools } = &ledger.limits;
                    let count = |of: &dyn Fn(&StepKey, &Option<String>) -> bool| {
                        u32::try_from(running.values().filter(|(step, pool)| of(step, pool)).count()).unwrap()
                    };
                    assert!(count(&|_, _| true) <= steps.unwrap_or(2), "{running:?}");
                    let product = &step.pipeline.product;
                    let most = per_product.unwrap_or(u32::MAX);
                    assert!(count(&|step, _| step.pipeline.product == *product) <= most, "{running:?}");
                    let most = pool.as_ref().and_then(|pool| pools.get(pool)).copied().unwrap_or(u32::MAX);
                    assert!(count(&|_, other| *other == pool) <= most, "{pool:?}: {running:?}");
                }
                Fact::RunFinished { run, .. } => _ = running.remove(run),
                _ => {}
            }
            ledger.apply(entry);
        }
    }
}
