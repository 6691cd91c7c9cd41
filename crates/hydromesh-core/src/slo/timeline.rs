//! The state of one objective as a function of time.

use serde::{Deserialize, Serialize};

use super::{Facts, ObjectiveKind, Publish, QualityResult};
use crate::time::{Interval, IntervalSet, Millis, Span};

/// The state of an objective at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SliceState {
    /// The promise is kept.
    Good,
    /// The promise is broken.
    Bad,
    /// Nobody can say: nothing was known yet, or required checks were not executed.
    Unknown,
    /// The time does not count.
    Excluded,
}

/// Where the time of an interval went, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Good time.
    pub good_ms: i64,
    /// Bad time.
    pub bad_ms: i64,
    /// Unknown time, after the first fact.
    pub unknown_ms: i64,
    /// Time that does not count.
    pub excluded_ms: i64,
    /// Time before the first fact.
    pub uncollected_ms: i64,
}

impl Tally {
    /// Returns the time that counts.
    pub const fn valid_ms(self) -> i64 {
        self.good_ms + self.bad_ms + self.unknown_ms
    }
}

/// The breakpoints of one objective, built fact by fact.
///
/// Facts come in ledger order; one that claims to be earlier than its predecessor counts from the predecessor on,
/// because that is when it could have been known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    kind: ObjectiveKind,
    /// Adjacent slices of different state up to the last fact.
    past: Vec<(Interval, SliceState)>,
    last: Option<LastFact>,
    exclusions: IntervalSet,
}

/// What holds from the last fact on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct LastFact {
    at: Millis,
    /// The newest data time published so far; only of use to the age.
    high: Millis,
    /// The state from the fact on ...
    state: SliceState,
    /// ... until this instant; bad from there on.
    until: Option<Millis>,
}

impl Timeline {
    /// Returns the timeline of an objective nothing is known about.
    pub const fn new(kind: ObjectiveKind) -> Self {
        Self { kind, past: Vec::new(), last: None, exclusions: IntervalSet::new() }
    }

    /// Returns the timeline after these facts.
    pub fn of(kind: &ObjectiveKind, facts: &Facts) -> Self {
        let mut timeline = Self::new(kind.clone());
        facts.publishes.iter().for_each(|fact| timeline.published(*fact));
        facts.quality.iter().for_each(|fact| timeline.checked(*fact));
        timeline.exclude(&facts.exclusions);
        timeline
    }

    /// Takes note of a publication; it says nothing about quality.
    pub fn published(&mut self, fact: Publish) {
        let at = self.last.map_or(fact.at, |last| fact.at.max(last.at));
        // Data cannot be newer than its publication; a source with a wrong clock must not stay green for years.
        let high = fact.data_time_high.min(at);
        let high = self.last.map_or(high, |last| high.max(last.high));
        let until = match self.kind {
            ObjectiveKind::DataAge { max } => high.saturating_add(max.millis()),
            ObjectiveKind::Heartbeat { max_gap } => at.saturating_add(max_gap.millis()),
            ObjectiveKind::Quality { .. } => return,
        };
        self.begin(LastFact { at, high, state: SliceState::Good, until: Some(until) });
    }

    /// Takes note of executed checks; they say nothing about age or heartbeat. The result holds until the next one.
    pub fn checked(&mut self, fact: QualityResult) {
        let ObjectiveKind::Quality { min_pass_rate } = self.kind else {
            return;
        };
        let at = self.last.map_or(fact.at, |last| fact.at.max(last.at));
        let state = if fact.executed < fact.required || fact.executed == 0 || fact.passed > fact.executed {
            SliceState::Unknown
        } else if f64::from(fact.passed) >= min_pass_rate * f64::from(fact.executed) {
            SliceState::Good
        } else {
            SliceState::Bad
        };
        self.begin(LastFact { at, high: at, state, until: None });
    }

    /// Takes time out of the account, past or future.
    pub fn exclude(&mut self, time: &IntervalSet) {
        self.exclusions = self.exclusions.union(time);
    }

    /// Returns when the first fact was known.
    pub fn first_fact_at(&self) -> Option<Millis> {
        self.past.first().map(|(interval, _)| interval.from()).or_else(|| self.last.map(|last| last.at))
    }

    /// Returns the slices of an interval without gaps, neighbours in different states.
    pub fn slices(&self, window: Interval) -> Vec<(Interval, SliceState)> {
        let mut slices = Vec::new();
        let first = self.first_fact_at().unwrap_or(Millis::MAX);
        let unknown = window.intersect(Interval::new(Millis::MIN, first));
        push(&mut slices, unknown, SliceState::Unknown);
        let start = self.past.partition_point(|(interval, _)| interval.to() <= window.from());
        for (interval, state) in self.past[start..].iter().take_while(|(one, _)| one.from() < window.to()) {
            push(&mut slices, window.intersect(*interval), *state);
        }
        for (interval, state) in self.last.iter().flat_map(|last| last.until_instant(Millis::MAX)) {
            push(&mut slices, window.intersect(interval), state);
        }
        let mut result = Vec::with_capacity(slices.len());
        for (interval, state) in slices {
            let out = self.exclusions.within(interval);
            let mut from = interval.from();
            for hole in out.intervals() {
                push(&mut result, Interval::new(from, hole.from()), state);
                push(&mut result, *hole, SliceState::Excluded);
                from = hole.to();
            }
            push(&mut result, Interval::new(from, interval.to()), state);
        }
        result
    }

    /// Returns the state at an instant.
    pub fn state_at(&self, at: Millis) -> SliceState {
        self.slices(Interval::new(at, at.saturating_add(1)))
            .first()
            .map_or(SliceState::Unknown, |(_, state)| *state)
    }

    /// Returns where the time of an interval went.
    pub fn tally(&self, window: Interval) -> Tally {
        let mut tally = Tally::default();
        let first = self.first_fact_at().unwrap_or(Millis::MAX);
        for (interval, state) in self.slices(window) {
            match state {
                SliceState::Good => tally.good_ms += interval.len(),
                SliceState::Bad => tally.bad_ms += interval.len(),
                SliceState::Excluded => tally.excluded_ms += interval.len(),
                SliceState::Unknown => {
                    let before = interval.intersect(Interval::new(Millis::MIN, first)).len();
                    tally.uncollected_ms += before;
                    tally.unknown_ms += interval.len() - before;
                }
            }
        }
        tally
    }

    fn begin(&mut self, fact: LastFact) {
        if let Some(last) = self.last {
            for (interval, state) in last.until_instant(fact.at) {
                push(&mut self.past, interval, state);
            }
        }
        self.last = Some(fact);
    }
}

impl LastFact {
    /// Returns the slices from the fact until the next one, in closed form: good `[p, p')` up to the limit, bad
    /// `[max(p, limit), p')`.
    fn until_instant(self, end: Millis) -> impl Iterator<Item = (Interval, SliceState)> {
        let turn = self.until.map_or(end, |until| until.clamp(self.at, end.max(self.at)));
        [(Interval::new(self.at, turn), self.state), (Interval::new(turn, end), SliceState::Bad)]
            .into_iter()
            .filter(|(interval, _)| !interval.is_empty())
    }
}

/// Appends a slice; equal neighbours become one, so that the same function has one form.
fn push(slices: &mut Vec<(Interval, SliceState)>, interval: Interval, state: SliceState) {
    if interval.is_empty() {
        return;
    }
    match slices.last_mut() {
        Some((last, held)) if *held == state && last.to() == interval.from() => {
            *last = Interval::new(last.from(), interval.to());
        }
        _ => slices.push((interval, state)),
    }
}

/// Returns the slices of the window that ends now. What happens after now has no say.
pub fn good_bad_intervals(
    kind: &ObjectiveKind,
    facts: &Facts,
    window: Span,
    now: Millis,
) -> Vec<(Interval, SliceState)> {
    Timeline::of(kind, facts).slices(Interval::new(now.saturating_sub(window.millis()), now))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const MINUTE: i64 = 60_000;

    pub(crate) fn age(text: &str) -> ObjectiveKind {
        ObjectiveKind::DataAge { max: text.parse().unwrap() }
    }

    pub(crate) fn publish(at: i64, high: i64) -> Publish {
        Publish { at: at * MINUTE, data_time_high: high * MINUTE }
    }

    /// Facts on a grid of minutes, not always in order of their time.
    fn facts() -> impl Strategy<Value = Facts> {
        let publishes = prop::collection::vec((0_i64..40, -60_i64..20), 0..12).prop_map(|steps| {
            let mut at = 0;
            steps
                .into_iter()
                .map(|(wait, lead)| {
                    at += wait - 3;
                    publish(at, at + lead)
                })
                .collect()
        });
        let quality = prop::collection::vec((0_i64..40, 0_u32..5, 0_u32..5), 0..12).prop_map(|steps| {
            let mut at = 0;
            steps
                .into_iter()
                .map(|(wait, passed, executed)| {
                    at += wait;
                    QualityResult { at: at * MINUTE, passed: passed.min(executed), executed, required: 2 }
                })
                .collect()
        });
        let exclusions = prop::collection::vec((0_i64..300, 0_i64..30), 0..4).prop_map(|holes| {
            holes.into_iter().map(|(from, len)| Interval::new(from * MINUTE, (from + len) * MINUTE)).collect()
        });
        (publishes, quality, exclusions).prop_map(|(publishes, quality, exclusions)| Facts {
            publishes,
            quality,
            exclusions,
        })
    }

    fn kinds() -> impl Strategy<Value = ObjectiveKind> {
        prop_oneof![
            (1_i64..60).prop_map(|max| ObjectiveKind::DataAge { max: Span::from_millis(max * MINUTE) }),
            (1_i64..60).prop_map(|gap| ObjectiveKind::Heartbeat { max_gap: Span::from_millis(gap * MINUTE) }),
            prop::sample::select(vec![0.0, 0.5, 0.75, 1.0])
                .prop_map(|min_pass_rate| ObjectiveKind::Quality { min_pass_rate }),
        ]
    }

    /// The definition, asked at one instant.
    fn brute_force(kind: &ObjectiveKind, facts: &Facts, at: Millis) -> SliceState {
        if facts.exclusions.contains(at) {
            return SliceState::Excluded;
        }
        let mut known_at = Millis::MIN;
        let known: Vec<(Millis, Publish)> = facts
            .publishes
            .iter()
            .map(|fact| {
                known_at = known_at.max(fact.at);
                (known_at, *fact)
            })
            .filter(|(known_at, _)| *known_at <= at)
            .collect();
        let good = match kind {
            ObjectiveKind::DataAge { max } => known
                .iter()
                .map(|(known_at, fact)| fact.data_time_high.min(*known_at))
                .max()
                .map(|high| at - high < max.millis()),
            ObjectiveKind::Heartbeat { max_gap } => {
                known.last().map(|(last, _)| at - last < max_gap.millis())
            }
            ObjectiveKind::Quality { min_pass_rate } => facts
                .quality
                .iter()
                .rfind(|fact| fact.at <= at)
                .filter(|fact| fact.executed >= fact.required)
                .map(|fact| f64::from(fact.passed) / f64::from(fact.executed) >= *min_pass_rate),
        };
        match good {
            None => SliceState::Unknown,
            Some(true) => SliceState::Good,
            Some(false) => SliceState::Bad,
        }
    }

    #[test]
    fn a_backfill_of_an_old_partition_does_not_make_data_young() {
        let mut timeline = Timeline::new(age("1h"));
        timeline.published(publish(0, 0));
        timeline.published(publish(90, -10_000));
        assert_eq!(
            timeline.slices(Interval::new(0, 100 * MINUTE)),
            [
                (Interval::new(0, 60 * MINUTE), SliceState::Good),
                (Interval::new(60 * MINUTE, 100 * MINUTE), SliceState::Bad),
            ]
        );
        timeline.published(publish(100, 95));
        assert_eq!(timeline.state_at(100 * MINUTE), SliceState::Good);
        assert_eq!(timeline.state_at(155 * MINUTE), SliceState::Bad);
        let mut heartbeat = Timeline::new(ObjectiveKind::Heartbeat { max_gap: "1h".parse().unwrap() });
        heartbeat.published(publish(0, 0));
        heartbeat.published(publish(90, -10_000));
        assert_eq!(heartbeat.state_at(91 * MINUTE), SliceState::Good, "the job is alive, though");
    }

    #[test]
    fn data_from_the_future_does_not_stay_young() {
        let mut timeline = Timeline::new(age("1h"));
        timeline.published(publish(0, 1_000_000));
        assert_eq!(timeline.state_at(60 * MINUTE), SliceState::Bad);
    }

    #[test]
    fn checks_that_were_not_executed_are_not_passed() {
        use SliceState::{Bad, Good, Unknown};
        let mut timeline = Timeline::new(ObjectiveKind::Quality { min_pass_rate: 1.0 });
        let result = |at, passed, executed| QualityResult { at, passed, executed, required: 3 };
        timeline.checked(result(10, 3, 3));
        timeline.checked(result(20, 2, 2));
        timeline.checked(result(30, 2, 3));
        timeline.checked(result(40, 4, 3));
        timeline.published(publish(0, 0));
        let states: Vec<SliceState> = [5, 10, 20, 30, 40].map(|at| timeline.state_at(at)).into();
        assert_eq!(
            states,
            [Unknown, Good, Unknown, Bad, Unknown],
            "more passed than executed: a broken source"
        );
    }

    proptest! {
        #[test]
        fn slices_equal_the_definition_at_every_minute(
            kind in kinds(), facts in facts(), now in 0_i64..400, minutes in 1_i64..400,
        ) {
            let window = Interval::new((now - minutes) * MINUTE, now * MINUTE);
            let slices = good_bad_intervals(&kind, &facts, Span::from_millis(minutes * MINUTE), now * MINUTE);
            let mut at = window.from();
            for (interval, state) in &slices {
                prop_assert_eq!(interval.from(), at);
                prop_assert!(!interval.is_empty());
                at = interval.to();
                for minute in (interval.from() / MINUTE)..(interval.to() / MINUTE) {
                    prop_assert_eq!(*state, brute_force(&kind, &facts, minute * MINUTE), "minute {}", minute);
                }
            }
            prop_assert_eq!(at, window.to());
            prop_assert!(slices.windows(2).all(|pair| pair[0].1 != pair[1].1));
        }

        #[test]
        fn splitting_an_interval_changes_nothing(
            kind in kinds(), facts in facts(), cuts in prop::collection::vec(-100_000_i64..30_000_000, 3),
        ) {
            let timeline = Timeline::of(&kind, &facts);
            let mut cuts = cuts;
            cuts.sort_unstable();
            let whole = timeline.tally(Interval::new(cuts[0], cuts[2]));
            let parts = [Interval::new(cuts[0], cuts[1]), Interval::new(cuts[1], cuts[2])].map(|part| timeline.tally(part));
            prop_assert_eq!(whole.good_ms, parts[0].good_ms + parts[1].good_ms);
            prop_assert_eq!(whole.bad_ms, parts[0].bad_ms + parts[1].bad_ms);
            prop_assert_eq!(whole.unknown_ms, parts[0].unknown_ms + parts[1].unknown_ms);
            prop_assert_eq!(whole.excluded_ms, parts[0].excluded_ms + parts[1].excluded_ms);
            prop_assert_eq!(whole.uncollected_ms, parts[0].uncollected_ms + parts[1].uncollected_ms);
        }

        #[test]
        fn recomputing_equals_going_on(kind in kinds(), facts in facts(), now in 0_i64..400) {
            let mut grown = Timeline::new(kind.clone());
            let believe = |timeline: &Timeline| timeline.slices(Interval::new(0, now * MINUTE));
            let mut believed = None;
            for (place, fact) in facts.publishes.iter().enumerate() {
                let known_at = facts.publishes[..=place].iter().map(|fact| fact.at).max().unwrap_or(0);
                if known_at >= now * MINUTE && believed.is_none() {
                    believed = Some(believe(&grown));
                }
                grown.published(*fact);
                grown = serde_json::from_str(&serde_json::to_string(&grown).unwrap()).unwrap();
            }
            facts.quality.iter().for_each(|fact| grown.checked(*fact));
            let mut without_exclusions = facts.clone();
            without_exclusions.exclusions = IntervalSet::new();
            if !matches!(kind, ObjectiveKind::Quality { .. }) {
                // What was believed before a later fact is still the answer for that time.
                let believed = believed.unwrap_or_else(|| believe(&grown));
                prop_assert_eq!(believe(&Timeline::of(&kind, &without_exclusions)), believed);
            }
            for hole in facts.exclusions.intervals().iter().rev() {
                grown.exclude(&IntervalSet::from(*hole));
            }
            let whole = Timeline::of(&kind, &facts);
            prop_assert_eq!(serde_json::to_string(&grown).unwrap(), serde_json::to_string(&whole).unwrap());
        }

        #[test]
        fn a_missing_publication_never_helps(kind in kinds(), facts in facts(), lost in any::<prop::sample::Index>()) {
            prop_assume!(facts.publishes.len() > 1);
            let mut facts = facts;
            // In order of time: otherwise losing a fact also moves those that had to wait for it.
            facts.publishes.sort_by_key(|fact| fact.at);
            let mut fewer = facts.clone();
            // The first fact starts the account, so it stays.
            fewer.publishes.remove(1 + lost.index(facts.publishes.len() - 1));
            let window = Interval::new(-100 * MINUTE, 500 * MINUTE);
            let bad = |facts: &Facts| Timeline::of(&kind, facts).tally(window).bad_ms;
            prop_assert!(bad(&fewer) >= bad(&facts));
        }
    }
}
