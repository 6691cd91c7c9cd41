use super::*;
use crate::ledger::{Command, ErrorKind};

fn step(from: &str, to: &str) -> StepKey {
    let work = Work::Partitions { from: from.to_owned(), to: to.to_owned() };
    StepKey { pipeline: "shop/orders:make".parse().expect("an id"), work }
}

fn enter(costs: &mut Costs, at_ms: i64, fact: Fact) {
    costs.enter(&Entry { seq: 1, at_ms, fact }, &LedgerState::default());
}

fn run(costs: &mut Costs, name: &str, step: &StepKey, outcome: RunOutcome, took_ms: i64) {
    let (run, decision) = (name.to_owned(), "d".to_owned());
    enter(costs, 0, Fact::RunStarted { run: run.clone(), step: step.clone(), attempt: 1, decision });
    enter(costs, 0, Fact::RunFinished { run, step: step.clone(), outcome, took_ms });
}

fn failed() -> RunOutcome {
    RunOutcome::Failed { kind: ErrorKind::External, code: "HM-L001".to_owned(), message: String::new() }
}

#[test]
fn without_a_run_nothing_is_known_and_what_takes_time_never_takes_none() {
    let mut costs = Costs::default();
    let of = step("2026-08-01", "2026-08-10");
    assert_eq!(costs.expect(&of.pipeline, 10), None);
    run(&mut costs, "r1", &of, failed(), 90_000);
    assert_eq!(costs.expect(&of.pipeline, 10), None, "a failure says nothing of what success takes");
    run(&mut costs, "r2", &of, RunOutcome::Succeeded { rows: 1_000 }, 20_000);
    assert_eq!(costs.expected("r2"), None, "it was the first");
    assert_eq!(costs.expect(&of.pipeline, 31), Some(Amount { partitions: 31, rows: 3_100, work_ms: 62_000 }));
    run(&mut costs, "r3", &step("2026-08-11", "2026-08-11"), RunOutcome::Succeeded { rows: 0 }, 0);
    assert_eq!(costs.expected("r3"), Some(Amount { partitions: 1, rows: 100, work_ms: 2_000 }));
    for n in 0..40 {
        run(
            &mut costs,
            &format!("s{n}"),
            &step("2026-08-11", "2026-08-11"),
            RunOutcome::Succeeded { rows: 0 },
            0,
        );
    }
    let small = costs.expect(&of.pipeline, 1).expect("known");
    assert_eq!((small.rows, small.work_ms), (0, 1), "what was long ago is forgotten");
}

#[test]
fn money_is_rounded_up_and_a_little_is_not_nothing() {
    let price = Price { per_hour_micro: 400_000, currency: "EUR".to_owned() };
    assert_eq!(price.micro(3_600_000), 400_000);
    assert_eq!((price.micro(1), price.micro(0), price.micro(i64::MAX) > 0), (1, 0, true));
    assert_eq!(price.spoken(630_000), "EUR 0.07");
    assert_eq!(price.spoken(1_000), "less than EUR 0.01");
    assert_eq!(price.spoken(0), "EUR 0.00");
    assert_eq!(price.spoken(3_600_000 * 26), "EUR 10.40");
}

#[test]
fn side_by_side_takes_less_long_and_costs_the_same() {
    let amount = Amount { partitions: 30, rows: 0, work_ms: 60_000 };
    assert_eq!((amount.wall_ms(2, 8), amount.wall_ms(8, 4), amount.wall_ms(0, 0)), (30_000, 15_000, 60_000));
}

#[test]
fn a_backfill_is_compared_with_what_was_expected_of_it() {
    let mut costs = Costs::default();
    let product: ProductId = "shop/orders".parse().expect("an id");
    let asks = |id: &str| {
        let verb = Verb::Backfill {
            product: "shop/orders".parse().expect("an id"),
            from: "2026-08-05".to_owned(),
            to: "2026-08-14".to_owned(),
        };
        let (actor, reason) = ("mara".to_owned(), String::new());
        Fact::Command(Command { id: id.to_owned(), actor, reason, verb })
    };
    run(&mut costs, "before", &step("2026-08-01", "2026-08-20"), RunOutcome::Succeeded { rows: 10 }, 1_000);
    enter(&mut costs, 5, asks("refused"));
    enter(
        &mut costs,
        6,
        Fact::CommandAnswered { id: "refused".to_owned(), accepted: false, answer: String::new() },
    );
    assert_eq!(costs.backfills(&product).count(), 0);
    enter(&mut costs, 7, asks("asked"));
    run(&mut costs, "r1", &step("2026-08-01", "2026-08-10"), failed(), 500);
    run(&mut costs, "r2", &step("2026-08-01", "2026-08-10"), RunOutcome::Succeeded { rows: 70 }, 1_500);
    run(&mut costs, "r3", &step("2026-08-16", "2026-08-20"), RunOutcome::Succeeded { rows: 9 }, 9_000);
    let asked = costs.backfills(&product).next_back().expect("one");
    assert_eq!((asked.at_ms, asked.expected), (7, None), "it is not deployed in this ledger");
    assert_eq!(asked.actual, Amount { partitions: 6, rows: 70, work_ms: 2_000 }, "what failed costs too");
    run(&mut costs, "r4", &step("2026-08-11", "2026-08-15"), RunOutcome::Succeeded { rows: 1 }, 100);
    run(&mut costs, "r5", &step("2026-08-11", "2026-08-15"), RunOutcome::Succeeded { rows: 1 }, 100);
    let actual = costs.backfills(&product).next_back().expect("one").actual;
    assert_eq!((actual.partitions, actual.work_ms), (10, 2_200), "a partition counts once");
}

#[test]
fn partitions_are_counted_by_the_calendar_of_their_keys() {
    let count = |from: &str, to: &str| partitions_of(&step(from, to).work);
    assert_eq!(count("2026-08-01", "2026-08-31"), Some(31));
    assert_eq!(count("2026-08-01T00", "2026-08-02T01"), Some(26));
    assert_eq!(count("2026-08", "2027-01"), Some(6));
    assert_eq!(count("de", "de"), Some(1));
    assert_eq!(count("de", "fr"), None);
    assert_eq!((partitions_of(&Work::Whole), partitions_of(&Work::Follow)), (Some(1), None));
}
