//! When drift or a schedule becomes a training run.

use serde::{Deserialize, Serialize};

use crate::time::{Millis, Span};

/// The least a model owner must say about retraining.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrainLimits {
    /// How many of the last windows must have drifted.
    pub confirm: usize,
    /// How many windows are looked at.
    pub of: usize,
    /// Least time from the end of one run to the start of the next; doubled by every challenger in a row that was not
    /// promoted, up to eight times.
    pub cooldown: Span,
    /// Most runs started in any 30 days.
    pub max_per_month: u32,
    /// Least labels since the last promoted run; with fewer there is nothing new to learn.
    pub min_new_labels: u64,
}

/// Why a model is trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetrainCause {
    /// Enough windows drifted in these features.
    Drift {
        /// The features of the last drifted window.
        features: Vec<String>,
    },
    /// The schedule came due.
    Schedule,
}

/// How a training run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The challenger became champion.
    Promoted,
    /// The champion stays.
    Rejected,
    /// There is no challenger.
    Failed,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetrainEvent {
    /// A window was judged; no features means it is stable.
    Window {
        /// The features that drifted.
        drifted: Vec<String>,
    },
    /// A window could not be judged; it proves nothing either way.
    Unjudged,
    /// The schedule came due.
    Scheduled,
    /// The run under way ended.
    Finished {
        /// How.
        outcome: Outcome,
    },
    /// Time passed, or one of the conditions changed.
    Tick,
}

/// An event together with the conditions of that moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrainObservation {
    /// What happened.
    pub event: RetrainEvent,
    /// An open incident upstream, if any: broken data explains drift, and nobody trains on it.
    pub blocked_by: Option<String>,
    /// Labels since the last promoted run.
    pub new_labels: u64,
}

/// Where the machine stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetrainPhase {
    /// Nothing drifts.
    #[default]
    Quiet,
    /// Some windows drifted, too few to act.
    Suspect,
    /// There is a cause; a condition is in the way.
    Confirmed {
        /// Since when.
        since: Millis,
        /// Why.
        cause: RetrainCause,
    },
    /// A run is under way.
    Training {
        /// Since when.
        since: Millis,
        /// Why.
        cause: RetrainCause,
    },
    /// A run ended; wait.
    Cooldown {
        /// Until when.
        until: Millis,
    },
}

/// Everything the machine remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RetrainState {
    /// Where it stands.
    pub phase: RetrainPhase,
    /// The last judged windows, oldest first; an empty list is a stable one.
    pub windows: Vec<Vec<String>>,
    /// When runs of the last 30 days started.
    pub starts: Vec<Millis>,
    /// Runs in a row without a promotion.
    pub without_promotion: u32,
    /// The schedule came due and was not served yet.
    pub schedule_due: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetrainAction {
    /// Nothing.
    Nothing,
    /// There is a cause, but not now.
    Hold,
    /// Start a run; the state already counts it as started.
    Train,
}

/// What to do and the reason in words, for the ledger and the person who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct RetrainDecision {
    /// What to do.
    pub action: RetrainAction,
    /// Why.
    pub reason: String,
}

const MONTH: i64 = 30 * 86_400_000;

/// Returns the state after an observation and what to do now.
///
/// quiet -> suspect -> confirmed (`confirm` of `of` windows, or the schedule) -> training, once nothing is in the way ->
/// cooldown -> quiet. Replaying the same observations gives the same decisions.
pub fn step(
    mut state: RetrainState,
    observation: &RetrainObservation,
    now: Millis,
    limits: &RetrainLimits,
) -> (RetrainState, RetrainDecision) {
    state.starts.retain(|start| now.saturating_sub(*start) < MONTH);
    match &observation.event {
        RetrainEvent::Window { drifted } => {
            state.windows.push(drifted.clone());
            let excess = state.windows.len().saturating_sub(limits.of.max(1));
            state.windows.drain(..excess);
        }
        RetrainEvent::Scheduled => state.schedule_due = true,
        RetrainEvent::Finished { outcome } => finish(&mut state, *outcome, now, limits),
        RetrainEvent::Unjudged | RetrainEvent::Tick => {}
    }
    match state.phase {
        RetrainPhase::Training { .. } => {
            // The run under way serves a schedule that comes due meanwhile.
            state.schedule_due = false;
            return decide(state, RetrainAction::Nothing, "a run is under way".to_owned());
        }
        RetrainPhase::Cooldown { until } if now >= until => state.phase = RetrainPhase::Quiet,
        _ => {}
    }
    let drifted = state.windows.iter().filter(|features| !features.is_empty()).count();
    let judged = state.windows.len();
    let cause = if state.schedule_due {
        Some((RetrainCause::Schedule, "the schedule is due".to_owned()))
    } else if drifted >= limits.confirm.max(1) {
        let features = state.windows.iter().rev().find(|one| !one.is_empty()).cloned().unwrap_or_default();
        let reason = format!("{drifted} of the last {judged} windows drifted: {}", features.join(", "));
        Some((RetrainCause::Drift { features }, reason))
    } else {
        None
    };
    let Some((cause, reason)) = cause else {
        if !matches!(state.phase, RetrainPhase::Cooldown { .. }) {
            state.phase = if drifted > 0 { RetrainPhase::Suspect } else { RetrainPhase::Quiet };
        }
        let needed = limits.confirm.max(1);
        let reason = match (drifted, judged) {
            (0, _) => "no window drifted".to_owned(),
            _ => format!("{drifted} of the last {judged} windows drifted, {needed} are needed"),
        };
        return decide(state, RetrainAction::Nothing, reason);
    };
    if let RetrainPhase::Cooldown { until } = state.phase {
        let left = Span::from_millis((until - now + 59_999) / 60_000 * 60_000);
        return decide(state, RetrainAction::Hold, format!("{reason}; cooling down for another {left}"));
    }
    if let Some(obstacle) = obstacle(&state, observation, now, limits) {
        let since = match &state.phase {
            RetrainPhase::Confirmed { since, .. } => *since,
            _ => now,
        };
        state.phase = RetrainPhase::Confirmed { since, cause };
        return decide(state, RetrainAction::Hold, format!("{reason}; {obstacle}"));
    }
    state.phase = RetrainPhase::Training { since: now, cause };
    state.starts.push(now);
    state.schedule_due = false;
    decide(state, RetrainAction::Train, reason)
}

fn decide(state: RetrainState, action: RetrainAction, reason: String) -> (RetrainState, RetrainDecision) {
    (state, RetrainDecision { action, reason })
}

fn finish(state: &mut RetrainState, outcome: Outcome, now: Millis, limits: &RetrainLimits) {
    if !matches!(state.phase, RetrainPhase::Training { .. }) {
        return;
    }
    state.without_promotion =
        if outcome == Outcome::Promoted { 0 } else { state.without_promotion.saturating_add(1) };
    let factor = 1_i64 << state.without_promotion.min(3);
    state.phase =
        RetrainPhase::Cooldown { until: now.saturating_add(limits.cooldown.millis().saturating_mul(factor)) };
    // Old windows were judged against the old champion's reference.
    state.windows.clear();
}

/// Returns the first condition in the way of a run.
fn obstacle(
    state: &RetrainState,
    observation: &RetrainObservation,
    now: Millis,
    limits: &RetrainLimits,
) -> Option<String> {
    if let Some(incident) = &observation.blocked_by {
        return Some(format!("not on broken data: {incident}"));
    }
    if observation.new_labels < limits.min_new_labels {
        return Some(format!("{} new labels, {} are needed", observation.new_labels, limits.min_new_labels));
    }
    let started = state.starts.len();
    let most = usize::try_from(limits.max_per_month).unwrap_or(usize::MAX);
    if started < most {
        return None;
    }
    // A run is free again once enough of the oldest have left the 30 days.
    let free_at = state.starts.get(started - most).map(|start| start.saturating_add(MONTH));
    let wait = free_at.map(|at| Span::from_millis((at - now + 59_999) / 60_000 * 60_000));
    let when =
        wait.map_or_else(|| "none is allowed".to_owned(), |wait| format!("the next is free in {wait}"));
    Some(format!("{started} runs in 30 days, {most} are allowed: {when}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000;

    fn limits() -> RetrainLimits {
        RetrainLimits {
            confirm: 3,
            of: 5,
            cooldown: "3d".parse().unwrap(),
            max_per_month: 4,
            min_new_labels: 100,
        }
    }

    fn observe(event: RetrainEvent) -> RetrainObservation {
        RetrainObservation { event, blocked_by: None, new_labels: 500 }
    }

    fn drift() -> RetrainObservation {
        observe(RetrainEvent::Window { drifted: vec!["spend_7d".into()] })
    }

    fn stable() -> RetrainObservation {
        observe(RetrainEvent::Window { drifted: vec![] })
    }

    fn run(observations: &[(i64, RetrainObservation)]) -> (RetrainState, String) {
        let mut state = RetrainState::default();
        let mut log = Vec::new();
        for (hours, observation) in observations {
            let (next, decision) = step(state, observation, hours * HOUR, &limits());
            log.push(format!("{hours}h {:?}: {}", decision.action, decision.reason));
            state = next;
        }
        (state, log.join("\n"))
    }

    #[test]
    fn three_of_five_windows_start_one_run() {
        let finished = observe(RetrainEvent::Finished { outcome: Outcome::Promoted });
        let (state, log) = run(&[
            (0, stable()),
            (1, drift()),
            (2, drift()),
            (3, observe(RetrainEvent::Unjudged)),
            (4, stable()),
            (5, drift()),
            (6, drift()),
            (7, finished),
            (8, drift()),
            (9, drift()),
            (10, drift()),
            (78, observe(RetrainEvent::Tick)),
            (79, observe(RetrainEvent::Tick)),
        ]);
        insta::assert_snapshot!(log, @"
        0h Nothing: no window drifted
        1h Nothing: 1 of the last 2 windows drifted, 3 are needed
        2h Nothing: 2 of the last 3 windows drifted, 3 are needed
        3h Nothing: 2 of the last 3 windows drifted, 3 are needed
        4h Nothing: 2 of the last 4 windows drifted, 3 are needed
        5h Train: 3 of the last 5 windows drifted: spend_7d
        6h Nothing: a run is under way
        7h Nothing: no window drifted
        8h Nothing: 1 of the last 1 windows drifted, 3 are needed
        9h Nothing: 2 of the last 2 windows drifted, 3 are needed
        10h Hold: 3 of the last 3 windows drifted: spend_7d; cooling down for another 69h
        78h Hold: 3 of the last 3 windows drifted: spend_7d; cooling down for another 1h
        79h Train: 3 of the last 3 windows drifted: spend_7d
        ");
        assert_eq!(state.starts.len(), 2);
    }

    #[test]
    fn nobody_trains_on_broken_data_or_without_labels() {
        let incident = RetrainObservation { blocked_by: Some("commerce/orders is late".into()), ..drift() };
        let few = RetrainObservation { new_labels: 7, ..observe(RetrainEvent::Tick) };
        let (_, log) = run(&[
            (0, drift()),
            (1, drift()),
            (2, incident),
            (3, few),
            (4, stable()),
            (5, stable()),
            (6, stable()),
        ]);
        insta::assert_snapshot!(log, @"
        0h Nothing: 1 of the last 1 windows drifted, 3 are needed
        1h Nothing: 2 of the last 2 windows drifted, 3 are needed
        2h Hold: 3 of the last 3 windows drifted: spend_7d; not on broken data: commerce/orders is late
        3h Hold: 3 of the last 3 windows drifted: spend_7d; 7 new labels, 100 are needed
        4h Train: 3 of the last 4 windows drifted: spend_7d
        5h Nothing: a run is under way
        6h Nothing: a run is under way
        ");
    }

    #[test]
    fn rejected_challengers_double_the_cooldown_and_months_are_bounded() {
        let end = |outcome| observe(RetrainEvent::Finished { outcome });
        let due = || observe(RetrainEvent::Scheduled);
        let (_, log) = run(&[
            (0, due()),
            (1, end(Outcome::Rejected)),
            (2, due()),
            (145, observe(RetrainEvent::Tick)),
            (146, end(Outcome::Failed)),
            (440, due()),
            (441, end(Outcome::Promoted)),
            (520, due()),
            (521, end(Outcome::Promoted)),
            (600, due()),
            (719, observe(RetrainEvent::Tick)),
            (720, observe(RetrainEvent::Tick)),
        ]);
        insta::assert_snapshot!(log, @"
        0h Train: the schedule is due
        1h Nothing: no window drifted
        2h Hold: the schedule is due; cooling down for another 143h
        145h Train: the schedule is due
        146h Nothing: no window drifted
        440h Train: the schedule is due
        441h Nothing: no window drifted
        520h Train: the schedule is due
        521h Nothing: no window drifted
        600h Hold: the schedule is due; 4 runs in 30 days, 4 are allowed: the next is free in 5d
        719h Hold: the schedule is due; 4 runs in 30 days, 4 are allowed: the next is free in 1h
        720h Train: the schedule is due
        ");
    }

    #[test]
    fn no_run_at_all_may_be_allowed() {
        let none = RetrainLimits { max_per_month: 0, ..limits() };
        let (_, decision) = step(RetrainState::default(), &observe(RetrainEvent::Scheduled), 0, &none);
        assert_eq!(decision.action, RetrainAction::Hold);
        assert_eq!(decision.reason, "the schedule is due; 0 runs in 30 days, 0 are allowed: none is allowed");
    }

    proptest! {
        #[test]
        fn limits_hold_for_any_history(
            events in prop::collection::vec((0_u8..6, 1_i64..60, 0_u64..200, any::<bool>()), 1..200),
        ) {
            let mut state = RetrainState::default();
            let (mut now, mut starts, mut ended) = (0, Vec::new(), None);
            for (event, wait, new_labels, broken) in events {
                now += wait * HOUR;
                let event = match event {
                    0 => RetrainEvent::Scheduled,
                    1 => RetrainEvent::Finished { outcome: Outcome::Rejected },
                    2 => RetrainEvent::Finished { outcome: Outcome::Promoted },
                    3 => RetrainEvent::Window { drifted: vec![] },
                    _ => RetrainEvent::Window { drifted: vec!["x".into()] },
                };
                let running = matches!(state.phase, RetrainPhase::Training { .. });
                if running && matches!(event, RetrainEvent::Finished { .. }) { ended = Some(now); }
                let finishes = matches!(event, RetrainEvent::Finished { .. });
                let observation =
                    RetrainObservation { event, blocked_by: broken.then(|| "x".to_owned()), new_labels };
                let stored = serde_json::to_string(&state).unwrap();
                let (next, decision) = step(state, &observation, now, &limits());
                let again = step(serde_json::from_str(&stored).unwrap(), &observation, now, &limits());
                prop_assert_eq!(&again, &(next.clone(), decision.clone()));
                if decision.action == RetrainAction::Train {
                    prop_assert!(!running || finishes);
                    prop_assert!(!broken && new_labels >= 100);
                    prop_assert!(ended.is_none_or(|end| now - end >= 72 * HOUR));
                    starts.push(now);
                    prop_assert!(starts.iter().filter(|start| now - **start < MONTH).count() <= 4);
                }
                state = next;
            }
        }
    }
}
