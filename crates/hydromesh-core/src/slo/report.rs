//! The numbers of one objective now.

use serde::{Deserialize, Serialize};

use super::{Facts, Objective, SliceState, Timeline, burn_rate};
use crate::time::{Interval, Millis, Span};

/// How much of the window is covered by facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collection {
    /// There is no fact yet.
    NotStarted,
    /// The first fact is younger than the window: the numbers speak of this much of it.
    Collecting {
        /// Time since the first fact, in milliseconds.
        collected_ms: i64,
    },
    /// The whole window.
    Complete,
}

/// The burn rate over one window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Burn {
    /// The window that ends now.
    pub window: Span,
    /// Times faster than sustainable; none when nothing is known of the window.
    pub rate: Option<f64>,
}

/// The numbers of one objective at an instant.
///
/// Where time is unknown the share of good time is a range: its ends take the unknown as bad and as good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SliReport {
    /// The objective.
    pub objective: String,
    /// The instant.
    pub at: Millis,
    /// The state at the instant.
    pub state: SliceState,
    /// Least share of good time; 0 when nothing is known.
    pub sli_low: f64,
    /// Largest share of good time; 1 when nothing is known.
    pub sli_high: f64,
    /// Bad time the target allows in a whole window.
    pub budget_ms: i64,
    /// Least share of the budget that is left, negative when overspent.
    pub budget_remaining_low: f64,
    /// Largest share of the budget that is left.
    pub budget_remaining: f64,
    /// Good time in the window.
    pub good_ms: i64,
    /// Bad time in the window.
    pub bad_ms: i64,
    /// Unknown time in the window since the first fact.
    pub unknown_ms: i64,
    /// Time that does not count.
    pub excluded_ms: i64,
    /// Good, bad and unknown time.
    pub valid_ms: i64,
    /// How much of the window is covered by facts.
    pub collection: Collection,
    /// Burn rates over 5 m, 30 m, 1 h, 2 h, 6 h, 1 d and 3 d.
    pub burn: Vec<Burn>,
}

/// The windows of the burn rates, in milliseconds: those of [`super::default_levels`].
const BURN_WINDOWS: [i64; 7] =
    [5 * 60_000, 30 * 60_000, 3_600_000, 2 * 3_600_000, 6 * 3_600_000, 24 * 3_600_000, 72 * 3_600_000];

/// Returns the numbers of an objective now, from its timeline.
///
/// The budget is (1 - target) of the whole window, in absolute time. Time that is excluded or was not collected yet
/// shrinks what can be good, not what may be bad: an hour of failure is as bad on the first day as on the thirtieth.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of a window")]
pub fn report(objective: &Objective, timeline: &Timeline, now: Millis) -> SliReport {
    let tally = timeline.tally(Interval::new(now.saturating_sub(objective.window.millis()), now));
    let valid = tally.valid_ms();
    let share = |good: i64, otherwise: f64| if valid > 0 { good as f64 / valid as f64 } else { otherwise };
    let budget = (1.0 - objective.target) * objective.window.millis() as f64;
    #[expect(clippy::cast_possible_truncation, reason = "whole, and a part of the window's milliseconds")]
    let budget_ms = budget.round() as i64;
    let left = |spent: i64| if budget > 0.0 { 1.0 - spent as f64 / budget } else { 0.0 };
    let collection = match timeline.first_fact_at().filter(|first| *first <= now) {
        None => Collection::NotStarted,
        Some(first) if now.saturating_sub(first) < objective.window.millis() => {
            Collection::Collecting { collected_ms: now - first }
        }
        Some(_) => Collection::Complete,
    };
    let burn = BURN_WINDOWS
        .map(Span::from_millis)
        .map(|window| Burn { window, rate: burn_rate(timeline, objective.target, window, now) });
    SliReport {
        objective: objective.id.clone(),
        at: now,
        state: timeline.state_at(now),
        sli_low: share(tally.good_ms, 0.0),
        sli_high: share(tally.good_ms + tally.unknown_ms, 1.0),
        budget_ms,
        budget_remaining_low: left(tally.bad_ms + tally.unknown_ms),
        budget_remaining: left(tally.bad_ms),
        good_ms: tally.good_ms,
        bad_ms: tally.bad_ms,
        unknown_ms: tally.unknown_ms,
        excluded_ms: tally.excluded_ms,
        valid_ms: valid,
        collection,
        burn: burn.into(),
    }
}

impl Objective {
    /// Returns the numbers now, straight from the facts.
    pub fn evaluate(&self, facts: &Facts, now: Millis) -> SliReport {
        report(self, &Timeline::of(&self.kind, facts), now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::tests::{MINUTE, age, publish};
    use super::super::{ObjectiveKind, QualityResult};
    use super::*;
    use crate::time::IntervalSet;

    const DAY: i64 = 24 * 60;

    fn objective(kind: ObjectiveKind) -> Objective {
        Objective { id: "orders-age".into(), kind, target: 0.99, window: "30d".parse().unwrap() }
    }

    #[test]
    fn a_new_objective_is_collecting_and_not_perfect() {
        let objective = objective(age("26h"));
        let mut facts = Facts::default();
        let before = objective.evaluate(&facts, 0);
        assert_eq!((before.state, before.collection), (SliceState::Unknown, Collection::NotStarted));
        assert_eq!((before.sli_low, before.sli_high), (0.0, 1.0));
        facts.publishes.push(publish(0, 0));
        let after = objective.evaluate(&facts, 60 * MINUTE);
        assert_eq!(after.collection, Collection::Collecting { collected_ms: 60 * MINUTE });
        assert_eq!((after.sli_low, after.sli_high, after.valid_ms), (1.0, 1.0, 60 * MINUTE));
    }

    #[test]
    fn one_missed_day_of_thirty() {
        let objective = objective(age("26h"));
        // Published daily at the end of the day it covers; the run of day 40 fails.
        let facts = Facts {
            publishes: (0..=60).filter(|day| *day != 40).map(|day| publish(day * DAY, day * DAY)).collect(),
            ..Facts::default()
        };
        let report = objective.evaluate(&facts, 60 * DAY * MINUTE);
        // Good until 26 h after day 39, bad for the 22 h to day 41.
        assert_eq!(report.bad_ms, 22 * 60 * MINUTE);
        assert_eq!(report.valid_ms, 30 * DAY * MINUTE);
        assert_eq!(report.budget_ms, 432 * MINUTE, "1 % of 30 days");
        assert!((report.budget_remaining - (1.0 - 22.0 * 60.0 / 432.0)).abs() < 1e-12);
        assert!((report.sli_low - (1.0 - 22.0 / 720.0)).abs() < 1e-12);
        assert_eq!((report.state, report.collection), (SliceState::Good, Collection::Complete));
        let during = objective.evaluate(&facts, (40 * DAY + 3 * 60) * MINUTE);
        assert_eq!(during.state, SliceState::Bad);
        let rates: Vec<String> =
            during.burn.iter().map(|one| format!("{} {:.2}", one.window, one.rate.unwrap())).collect();
        insta::assert_snapshot!(rates.join(", "), @"5m 100.00, 30m 100.00, 1h 100.00, 2h 50.00, 6h 16.67, 1d 4.17, 3d 1.39");
    }

    #[test]
    fn maintenance_is_not_bad_and_does_not_change_the_budget() {
        let objective = objective(age("1h"));
        let mut facts = Facts { publishes: vec![publish(0, 0)], ..Facts::default() };
        facts.exclusions = IntervalSet::from(Interval::new(60 * MINUTE, 180 * MINUTE));
        let report = objective.evaluate(&facts, 200 * MINUTE);
        assert_eq!(
            (report.good_ms, report.excluded_ms, report.bad_ms),
            (60 * MINUTE, 120 * MINUTE, 20 * MINUTE)
        );
        assert_eq!(report.budget_ms, 432 * MINUTE);
    }

    #[test]
    fn unknown_time_is_a_range() {
        let objective = objective(ObjectiveKind::Quality { min_pass_rate: 1.0 });
        let result =
            |at: i64, executed| QualityResult { at: at * MINUTE, passed: executed, executed, required: 2 };
        let facts = Facts { quality: vec![result(0, 2), result(60, 1)], ..Facts::default() };
        let report = objective.evaluate(&facts, 80 * MINUTE);
        assert_eq!((report.sli_low, report.sli_high), (0.75, 1.0));
        assert!(report.budget_remaining_low < report.budget_remaining);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::to_string(&objective.evaluate(&facts, 80 * MINUTE)).unwrap(), json);
    }
}
