//! Stories of pipelines that say which partitions of their inputs they read.

use std::collections::BTreeMap;

use super::super::Event;
use super::mesh::{Made, Spec, Tree, id, span};
use super::world::{DAY_MS, HOUR_MS, World};
use crate::ledger::{ErrorKind, Fact, Verb};
use crate::plan::due_steps;
use crate::time::Grain;

/// Days that come at a quarter past two in Zurich, and who reads them: months, months of which twenty days are enough, the day
/// after, and days that look last month up.
fn tree() -> Tree {
    let made = |cron| Made::Batch { by: Some("key"), cron };
    let reads = |name: &str, of: &'static str, window: &str, at_least| {
        let spec = Spec::new(name, made(None)).reads(&format!("a/{of}")).with(&["key", "amount"]);
        let mut spec = spec.picks(of, window, at_least);
        spec.columns[0].expression = format!("distinct({of}.key)");
        spec
    };
    let mut days = Spec::new("a/days", made(Some("15 2 * * *"))).reads("files").with(&["key", "amount"]);
    days.chunk = Some(span("1d"));
    let mut months = reads("a/months", "days", "0d..0d", None);
    let mut early = reads("a/early", "days", "0d..0d", Some(20));
    for spec in [&mut months, &mut early] {
        (spec.every, spec.start) = (Grain::Month, "2026-08");
    }
    let lagged = reads("a/lagged", "days", "-1d..-1d", None);
    let fanned = reads("a/fanned", "months", "-1mo..-1mo", None);
    [days, months, early, lagged, fanned].into_iter().map(|spec| (spec.id.clone(), spec)).collect()
}

fn begun() -> World {
    let mut world = World::new();
    world.commit(|it| *it = tree());
    world
}

/// Partitions that were published since an entry, by product and in order.
fn published(world: &World, since: usize) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in &world.entries[since..] {
        if let Fact::Published(it) = &entry.fact {
            let keys = found.entry(it.port.product.name.to_string()).or_default();
            keys.extend(it.partition.clone());
        }
    }
    found
}

/// Why products wait.
fn waiting(world: &World) -> Vec<String> {
    let (_, waiting) = due_steps(world.ledger(), world.now_ms);
    waiting.into_iter().map(|it| format!("{}: {}", it.pipeline.name, it.why)).collect()
}

/// The next partition of the days fails for good.
fn fails_once(world: &mut World) {
    world.failures.insert(id("a/days"), [(ErrorKind::User, "HM-Q001")].into());
}

#[test]
fn history_is_there_once_its_inputs_are() {
    let world = begun();
    let found = published(&world, 0);
    assert_eq!(found["days"].len(), 90);
    assert_eq!(found["months"], ["2026-08", "2026-09", "2026-10"]);
    // The first day of all has no day before, and waits for none.
    assert_eq!((found["lagged"].len(), found["fanned"].len()), (90, 90));
    assert_eq!(waiting(&world), Vec::<String>::new());
}

#[test]
fn a_month_begins_when_its_last_day_is_published() {
    let mut world = begun();
    world.pass(29 * DAY_MS + 18 * HOUR_MS, HOUR_MS);
    let before = world.entries.len();
    // Midnight: November has ended, and its last day has not come. What twenty days are enough for is there.
    assert_eq!(
        waiting(&world),
        ["months: 2026-11 waits for 1 of 30 partitions of a/days.days, first 2026-11-30"]
    );
    let early = published(&world, 0).remove("early").expect("published");
    assert_eq!(early.iter().filter(|key| *key == "2026-11").count(), 1);
    world.pass(2 * HOUR_MS, HOUR_MS / 4);
    let found = published(&world, before);
    assert_eq!(
        (&found["days"], &found["months"]),
        (&vec!["2026-11-30".to_owned()], &vec!["2026-11".to_owned()])
    );
    // The last day is newer than what was made of twenty-nine, so that is made again.
    assert_eq!(found["early"], ["2026-11"]);
    assert_eq!(waiting(&world), Vec::<String>::new());
}

#[test]
fn a_late_day_of_a_past_month_makes_that_month_due_and_what_looks_it_up() {
    let mut world = begun();
    // Another generation: the same day is then written anew.
    world.commit(|tree| tree.get_mut(&id("a/days")).expect("there").version = "1.0.1".to_owned());
    let before = world.entries.len();
    let day = "2026-09-10".to_owned();
    world.ask("late", Verb::Backfill { product: id("a/days"), from: day.clone(), to: day.clone() });
    world.rest();
    let found = published(&world, before);
    assert_eq!(found["days"], [day]);
    assert_eq!(
        (&found["months"], &found["early"]),
        (&vec!["2026-09".to_owned()], &vec!["2026-09".to_owned()])
    );
    assert_eq!(found["lagged"], ["2026-09-11"]);
    // Every day of October looks September up, and no other does.
    let mut fanned = found["fanned"].clone();
    fanned.sort();
    let october: Vec<String> = (1..=31).map(|day| format!("2026-10-{day:02}")).collect();
    assert_eq!(fanned, october);
}

#[test]
fn a_lagged_input_waits_for_the_day_before() {
    let mut world = begun();
    // The 1st of November is over. It rests on the 31st of October, which is there; that of its own day comes later.
    let before = world.entries.len();
    world.pass(18 * HOUR_MS, HOUR_MS);
    assert_eq!(published(&world, before)["lagged"], ["2026-11-01"]);
    assert!(!published(&world, before).contains_key("days"));
    // The day fails, and its successor waits for it and for nothing else.
    fails_once(&mut world);
    world.pass(DAY_MS, HOUR_MS);
    assert_eq!(published(&world, before)["lagged"], ["2026-11-01"]);
    let failed = "failed with HM-Q001: injected; waits for a new commit or new input";
    assert_eq!(
        waiting(&world),
        [
            format!("days: {failed}"),
            "lagged: 2026-11-02 waits for 1 of 1 partition of a/days.days, first 2026-11-01".to_owned(),
        ]
    );
    // The next day comes, so that the one in between is a hole.
    world.pass(DAY_MS, HOUR_MS);
    assert_eq!(published(&world, before)["lagged"], ["2026-11-01", "2026-11-03"]);
    assert_eq!(
        waiting(&world)[1],
        format!(
            "lagged: 1 partition waiting: 2026-11-02 waits for 1 of 1 partition of a/days.days, first 2026-11-01: {failed}"
        )
    );
    world.ask("retry", Verb::Retry { product: id("a/days") });
    world.rest();
    assert_eq!(published(&world, before)["lagged"], ["2026-11-01", "2026-11-03", "2026-11-02"]);
}

#[test]
fn enough_partitions_are_enough_and_the_rest_is_taken_when_it_comes() {
    let mut world = begun();
    world.pass(4 * DAY_MS + HOUR_MS, HOUR_MS);
    // The 5th of November fails for good.
    fails_once(&mut world);
    world.pass(28 * DAY_MS, HOUR_MS);
    let found = published(&world, 0);
    assert_eq!(found["months"].last().map(String::as_str), Some("2026-10"));
    assert_eq!(
        found["early"].iter().filter(|key| *key == "2026-11").count(),
        2,
        "after 20 and with all that came"
    );
    let why = waiting(&world).into_iter().find(|why| why.starts_with("months")).expect("it waits");
    assert_eq!(
        why,
        "months: 1 partition waiting: 2026-11 waits for 1 of 30 partitions of a/days.days, first 2026-11-05: failed with HM-Q001: \
         injected; waits for a new commit or new input"
    );
    let before = world.entries.len();
    world.ask("retry", Verb::Retry { product: id("a/days") });
    world.rest();
    let found = published(&world, before);
    assert_eq!(
        (&found["months"], &found["early"]),
        (&vec!["2026-11".to_owned()], &vec!["2026-11".to_owned()])
    );
}

#[test]
fn another_window_is_another_definition_and_more_patience_is_not() {
    let mut world = begun();
    let before = world.entries.len();
    let window = |tree: &mut Tree, window: &str, at_least| {
        let months = tree.get_mut(&id("a/months")).expect("there");
        months.windows.insert("days", super::mesh::picked(window, at_least));
    };
    world.commit(|tree| window(tree, "0d..0d", Some(25)));
    assert_eq!(world.backfilled(before), BTreeMap::new());
    world.commit(|tree| window(tree, "-1mo..0d", None));
    assert_eq!(world.backfilled(before)["a/months"], 3);
    assert!(world.plan().is_empty());
    // The column that an input is cut by decides what is picked, also where the query does not look at it.
    let months = id("a/months");
    world.commit(|tree| tree.get_mut(&months).expect("there").columns[0].direct.clear());
    let before = world.entries.len();
    world.commit(|tree| tree.get_mut(&id("a/days")).expect("there").columns[0].expression.push_str(" + 0"));
    assert_eq!(world.backfilled(before)["a/months"], 3);
    let before = world.entries.len();
    world.commit(|tree| tree.get_mut(&id("a/days")).expect("there").columns[1].expression.push_str(" + 0"));
    world.commit(|tree| tree.get_mut(&id("a/days")).expect("there").add("more = files.more"));
    assert_eq!(
        world.backfilled(before).get("a/months"),
        Some(&3),
        "for the amount, and not for another column"
    );
    world.step(Event::Tick);
    assert_eq!(waiting(&world), Vec::<String>::new());
}
