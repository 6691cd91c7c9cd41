//! Against scipy and numpy (`scripts/oracles/band_goldens.py`), and what must hold whatever the numbers.

use proptest::prelude::*;

use super::*;

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    rule: Given,
    earlier: Vec<(i64, f64)>,
    season: i64,
    rows: Option<u64>,
    alike: u32,
    needed: u32,
    usual: Option<(f64, f64, f64)>,
}

#[derive(serde::Deserialize)]
struct Given {
    width: f64,
    slack: f64,
}

fn rule(of: UsualOf) -> Usual {
    Usual::new(of)
}

fn day(key: &str) -> Partition {
    Partition::parse(Grain::Day, key).unwrap()
}

/// So many days before the day, with the rows that a function gives each.
fn days(before: &str, count: usize, rows: impl Fn(Partition) -> u64) -> History {
    let mut history = History::new();
    let mut at = day(before);
    for _ in 0..count {
        at = at.prev();
        history.insert(at.to_string(), Earlier { rows: rows(at), nulls: BTreeMap::new() });
    }
    history
}

fn rows_of(history: &History, key: &str) -> Band {
    band(&rule(UsualOf::RowCount), None, Some(day(key)), 0, history)
}

#[test]
fn agrees_with_scipy_and_numpy() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests-data/band.json")).unwrap();
    assert!(cases.len() >= 30);
    for case in cases {
        let (of, kind) = match case.rows {
            None => (UsualOf::RowCount, Kind::Rows),
            Some(rows) => (UsualOf::NullValues, Kind::Share { rows }),
        };
        let rule = Usual { width: case.rule.width, slack: case.rule.slack, ..rule(of) };
        let ours = usual(&case.earlier, case.season, kind, &rule);
        assert_eq!((ours.alike, ours.needed), (case.alike, case.needed), "{}", case.name);
        let near = |ours: f64, theirs: f64| (ours - theirs).abs() <= 1e-9 * theirs.abs() + 1e-12;
        match (ours.usual, case.usual) {
            (None, None) => {}
            (Some(ours), Some((low, middle, high))) => assert!(
                near(ours.low, low) && near(ours.middle, middle) && near(ours.high, high),
                "{}: ours {ours:?}, theirs {low} {middle} {high}",
                case.name
            ),
            (ours, theirs) => panic!("{}: ours {ours:?}, theirs {theirs:?}", case.name),
        }
    }
}

#[test]
fn a_tenth_of_the_usual_rows_is_unusual_and_a_weekend_is_not() {
    let week = |at: Partition| match at.index().rem_euclid(7) {
        2 | 3 => 100 + at.index().rem_euclid(5).unsigned_abs(),
        _ => 1_000 + at.index().rem_euclid(90).unsigned_abs(),
    };
    let history = days("2026-06-06", 60, week);
    // A Friday, and the Saturday after it.
    let (friday, saturday) = (rows_of(&history, "2026-06-05"), rows_of(&history, "2026-06-06"));
    assert_eq!(friday.holds(1_040.0), Some(true));
    assert_eq!(friday.holds(104.0), Some(false));
    assert_eq!(saturday.holds(104.0), Some(true));
    assert_eq!(saturday.holds(10.0), Some(false));
    let blind = Usual { season: Season::None, ..rule(UsualOf::RowCount) };
    let blind = band(&blind, None, Some(day("2026-06-06")), 0, &history);
    assert_eq!(blind.holds(104.0), Some(false), "without weekdays a weekend is a failure");
}

#[test]
fn too_little_history_says_so_and_neither_yes_nor_no() {
    let usual = |count| rows_of(&days("2026-06-06", count, |_| 1_000), "2026-06-06");
    for count in 0..28 {
        let band = usual(count);
        assert_eq!(band.holds(1_000.0), None, "{count} days");
        assert_eq!(band.holds(0.0), None, "{count} days");
    }
    assert_eq!(usual(28).holds(1_000.0), Some(true));
    assert_eq!(usual(28).spoken(false), "800 to 1250, as 4 like it before");
    assert_eq!(usual(20).spoken(false), "what is usual, which is unknown with 2 of 4 like it before");
    let whole = |count: u32| -> History {
        (0..count).map(|n| (format!("{n:020}"), Earlier { rows: 50, nulls: BTreeMap::new() })).collect()
    };
    let of_whole = |history: &History| band(&rule(UsualOf::RowCount), None, None, 0, history);
    assert_eq!(
        of_whole(&whole(11)).spoken(false),
        "what is usual, which is unknown with 11 of 12 like it before"
    );
    assert_eq!(of_whole(&whole(12)).holds(50.0), Some(true));
}

#[test]
fn only_what_comes_earlier_in_the_data_counts() {
    let history = days("2026-06-06", 60, |_| 1_000);
    let mut more = history.clone();
    more.extend(days("2026-08-06", 60, |_| 7));
    assert_eq!(rows_of(&more, "2026-06-06"), rows_of(&history, "2026-06-06"));
    // What was there before of the partition itself says nothing about it.
    more.insert("2026-06-06".to_owned(), Earlier { rows: 3, nulls: BTreeMap::new() });
    assert_eq!(rows_of(&more, "2026-06-06"), rows_of(&history, "2026-06-06"));
}

#[test]
fn nulls_are_a_percentage_and_a_partition_without_rows_has_none() {
    let mut history = days("2026-06-06", 40, |_| 1_000);
    for earlier in history.values_mut() {
        earlier.nulls.insert("email".to_owned(), 2.0);
    }
    let of = |rows, history: &History| {
        band(&rule(UsualOf::NullValues), Some("email"), Some(day("2026-06-06")), rows, history)
    };
    let usual = of(1_000, &history);
    assert_eq!(usual.spoken(true), "0 to 7 %, as 5 like it before");
    assert_eq!((usual.holds(6.9), usual.holds(7.2)), (Some(true), Some(false)));
    assert_eq!(of(0, &history).usual, None, "no rows, no share");
    assert!(of(10, &history).usual.unwrap().high > 20.0, "among ten rows a few nulls are chance");
    for earlier in history.values_mut() {
        earlier.rows = 0;
    }
    assert_eq!((of(1_000, &history).alike, of(1_000, &history).usual), (0, None));
}

#[test]
fn hours_are_compared_with_the_same_hour_of_the_week() {
    let at = |key: &str| Partition::parse(Grain::Hour, key).unwrap();
    let mut history = History::new();
    let mut hour = at("2026-06-05T09");
    for _ in 0..6 * 168 {
        hour = hour.prev();
        let rows = if hour.index().rem_euclid(24) < 6 { 10 } else { 5_000 };
        history.insert(hour.to_string(), Earlier { rows, nulls: BTreeMap::new() });
    }
    let of = |key: &str| band(&rule(UsualOf::RowCount), None, Some(at(key)), 0, &history);
    assert_eq!((of("2026-06-05T03").holds(10.0), of("2026-06-05T09").holds(10.0)), (Some(true), Some(false)));
}

fn numbers() -> impl Strategy<Value = Vec<(i64, f64)>> {
    prop::collection::vec((0_i64..3, 0_u32..100_000).prop_map(|(season, n)| (season, f64::from(n))), 0..80)
}

proptest! {
    #[test]
    fn the_middle_is_usual_and_order_is_nothing(mut earlier in numbers(), width in 0.1_f64..9.0, slack in 0.0_f64..90.0) {
        let rule = Usual { width, slack, ..rule(UsualOf::RowCount) };
        let band = usual(&earlier, 1, Kind::Rows, &rule);
        if let Some(range) = band.usual {
            prop_assert!(0.0 <= range.low && range.low <= range.middle + 0.5 && range.middle - 0.5 <= range.high);
            prop_assert!(band.alike >= 4);
        }
        earlier.reverse();
        prop_assert_eq!(usual(&earlier, 1, Kind::Rows, &rule), band);
    }

    #[test]
    fn a_wider_rule_forgives_all_that_a_narrow_one_does(
        earlier in numbers(), width in 0.1_f64..9.0, slack in 0.0_f64..90.0, more in 1.0_f64..4.0,
    ) {
        let of = |width, slack| usual(&earlier, 0, Kind::Rows, &Usual { width, slack, ..rule(UsualOf::RowCount) });
        if let (Some(narrow), Some(wide)) = (of(width, slack).usual, of(width * more, slack * more).usual) {
            prop_assert!(wide.low <= narrow.low && narrow.high <= wide.high);
        }
    }

    #[test]
    fn a_few_wild_numbers_do_not_hide_a_tenth(wild in prop::collection::vec((0_usize..56, 0_u64..10_000_000), 0..8)) {
        let mut history = days("2026-06-06", 56, |at| 1_000 + at.index().rem_euclid(60).unsigned_abs());
        let keys: Vec<String> = history.keys().cloned().collect();
        // At most three of eight Saturdays: fewer than half is what a median bears.
        let (mut saturdays, mut changed) = (0, std::collections::BTreeSet::new());
        for (at, rows) in wild {
            let is_saturday = day(&keys[at]).index().rem_euclid(7) == day("2026-06-06").index().rem_euclid(7);
            saturdays += usize::from(is_saturday && changed.insert(at));
            if !is_saturday || saturdays <= 3 {
                history.insert(keys[at].clone(), Earlier { rows, nulls: BTreeMap::new() });
            }
        }
        let band = rows_of(&history, "2026-06-06");
        prop_assert_eq!(band.holds(1_030.0), Some(true));
        prop_assert_eq!(band.holds(103.0), Some(false));
    }

    #[test]
    fn whatever_numbers_come_the_answer_is_a_number(
        earlier in prop::collection::vec((any::<i64>(), any::<f64>()), 0..40), rows in any::<u64>(), season in any::<i64>(),
    ) {
        for kind in [Kind::Rows, Kind::Share { rows }] {
            if let Some(range) = usual(&earlier, season, kind, &rule(UsualOf::NullValues)).usual {
                prop_assert!(!range.low.is_nan() && !range.middle.is_nan() && !range.high.is_nan());
            }
        }
    }
}

#[test]
fn false_alarms_are_as_rare_as_declared() {
    // A fixed sequence: uniform numbers from a mixer, normal ones by Box and Muller.
    let mut state = 11_u64;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut rows = || {
        let normal = (-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        (9.0 + 0.5 * normal).exp().round()
    };
    let rule = Usual { slack: 0.0, ..rule(UsualOf::RowCount) };
    let alarms = (0..4_000)
        .filter(|_| {
            let earlier: Vec<(i64, f64)> = (0..28).map(|n| (n % 7, rows())).collect();
            usual(&earlier, 3, Kind::Rows, &rule).holds(rows()) == Some(false)
        })
        .count();
    // 13 are expected of one in 300; 30 are more than four standard deviations above.
    assert!((1..=30).contains(&alarms), "{alarms} of 4000");
}
