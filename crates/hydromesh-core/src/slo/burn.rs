//! How fast the error budget burns, and when that wakes someone.

use serde::{Deserialize, Serialize};

use super::Timeline;
use crate::time::{Interval, Millis, Span};

/// What an alert level asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BurnAction {
    /// Wake someone.
    Page,
    /// Open a ticket.
    Ticket,
}

/// One level of a multi-window burn-rate alert: it fires when the budget burns at least `factor` times too fast over both
/// windows. The long one proves that it matters, the short one that it goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BurnLevel {
    /// Its name.
    pub name: String,
    /// How many times faster than sustainable.
    pub factor: f64,
    /// The long window.
    pub long: Span,
    /// The short window.
    pub short: Span,
    /// What it asks for.
    pub action: BurnAction,
}

/// Returns the levels of the "Site Reliability Workbook", chapter 5, for a window of 30 days.
///
/// They fire once 2, 5, 10 and 10 % of the budget are spent: factor times long window by 30 days.
pub fn default_levels() -> Vec<BurnLevel> {
    let span = Span::from_millis;
    let hour = 3_600_000;
    let level = |name: &str, factor, long, short, action| BurnLevel {
        name: name.to_owned(),
        factor,
        long,
        short,
        action,
    };
    vec![
        level("fast", 14.4, span(hour), span(hour / 12), BurnAction::Page),
        level("medium", 6.0, span(6 * hour), span(hour / 2), BurnAction::Page),
        level("slow", 3.0, span(24 * hour), span(2 * hour), BurnAction::Ticket),
        level("drip", 1.0, span(72 * hour), span(6 * hour), BurnAction::Ticket),
    ]
}

/// Returns how many times faster than sustainable the budget burned in the window that ends now: the share of bad time
/// over the share the target allows. None when nothing is known of the window.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of a window")]
pub fn burn_rate(timeline: &Timeline, target: f64, window: Span, now: Millis) -> Option<f64> {
    let tally = timeline.tally(Interval::new(now.saturating_sub(window.millis()), now));
    let known = tally.good_ms + tally.bad_ms;
    (known > 0).then(|| tally.bad_ms as f64 / known as f64 / (1.0 - target))
}

impl BurnLevel {
    /// Returns whether the level fires now: both windows burn fast enough and the long one holds at least `least_bad`
    /// of bad time, so that one short hiccup of a strict objective wakes nobody.
    pub fn fires(&self, timeline: &Timeline, target: f64, least_bad: Span, now: Millis) -> bool {
        // A rate that equals the factor but for rounding must fire in the minute the arithmetic on paper says.
        let fast = |window| {
            burn_rate(timeline, target, window, now).is_some_and(|rate| rate >= self.factor * (1.0 - 1e-9))
        };
        let bad = timeline.tally(Interval::new(now.saturating_sub(self.long.millis()), now)).bad_ms;
        fast(self.long) && fast(self.short) && bad >= least_bad.millis()
    }

    /// Returns whether a level that fired is over: the short window burns at less than nine tenths of the factor.
    pub fn clears(&self, timeline: &Timeline, target: f64, now: Millis) -> bool {
        burn_rate(timeline, target, self.short, now).is_none_or(|rate| rate < 0.9 * self.factor)
    }

    /// Returns whether the level can fire at all: even a total outage burns no faster than 1 / (1 - target), of which a
    /// margin of 5 % is kept.
    pub fn is_reachable(&self, target: f64) -> bool {
        self.factor <= 0.95 / (1.0 - target)
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::tests::MINUTE;
    use super::super::{ObjectiveKind, QualityResult};
    use super::*;

    /// Quality is good for 60 days and bad from minute 0 on.
    fn outage() -> Timeline {
        let mut timeline = Timeline::new(ObjectiveKind::Quality { min_pass_rate: 1.0 });
        let start = -60 * 24 * 60 * MINUTE;
        timeline.checked(QualityResult { at: start, passed: 1, executed: 1, required: 1 });
        timeline.checked(QualityResult { at: 0, passed: 0, executed: 1, required: 1 });
        timeline
    }

    #[test]
    fn minutes_from_total_outage_to_each_level() {
        // Computed by hand: the first multiple of five minutes m with m / long / (1 - target) >= factor.
        const NEVER: i64 = -1;
        let table: [(f64, [i64; 4]); 8] = [
            (0.999, [5, 5, 5, 5]),
            (0.995, [5, 15, 25, 25]),
            (0.99, [10, 25, 45, 45]),
            (0.98, [20, 45, 90, 90]),
            (0.95, [45, 110, 220, 220]),
            (0.93, [NEVER, 155, 305, 305]),
            (0.90, [NEVER, 220, 435, 435]),
            (0.83, [NEVER, NEVER, 735, 735]),
        ];
        let timeline = outage();
        for (target, expected) in table {
            let minutes = default_levels().into_iter().map(|level| {
                let fires = |at: i64| level.fires(&timeline, target, Span::from_millis(0), at * MINUTE);
                let found = (1..1_500).map(|step| step * 5).find(|at| fires(*at)).unwrap_or(NEVER);
                assert_eq!(found != NEVER, level.factor <= 1.0 / (1.0 - target), "{target} {}", level.name);
                assert!(found != NEVER || !level.is_reachable(target));
                found
            });
            assert_eq!(minutes.collect::<Vec<_>>(), expected, "{target}");
        }
    }

    #[test]
    fn a_hiccup_wakes_nobody_and_recovery_clears() {
        let mut timeline = outage();
        let fast = &default_levels()[0];
        let quarter = "15m".parse().unwrap();
        assert!(!fast.fires(&timeline, 0.999, quarter, 14 * MINUTE));
        assert!(fast.fires(&timeline, 0.999, quarter, 15 * MINUTE));
        timeline.checked(QualityResult { at: 20 * MINUTE, passed: 1, executed: 1, required: 1 });
        assert!(!fast.clears(&timeline, 0.999, 21 * MINUTE));
        assert!(fast.clears(&timeline, 0.999, 25 * MINUTE));
        assert!(
            burn_rate(&timeline, 0.999, fast.long, 25 * MINUTE).unwrap() > 14.4,
            "the long window remembers"
        );
        let nothing = Timeline::new(ObjectiveKind::Quality { min_pass_rate: 1.0 });
        assert_eq!(burn_rate(&nothing, 0.99, fast.long, 0), None);
        assert!(!fast.fires(&nothing, 0.99, quarter, 0));
    }
}
