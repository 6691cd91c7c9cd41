//! When a step that failed is tried again.

use super::{NotDue, StepKey, Work};
use crate::ledger::{Attempts, Ending, ErrorKind, Finding, LedgerState, Pause};
use crate::model::{Pipeline, Retry};
use crate::time::Span;

/// The longest pause before a step that a disk refused is tried again: people make room within minutes, not hours.
const DISK_MS: i64 = 60_000;

/// Returns how a step is retried.
///
/// What goes on for ever, following a topic and comparing features, is never given up: nobody would start it again.
#[must_use]
pub fn retry_of(pipeline: Option<&Pipeline>, work: &Work) -> Retry {
    match (pipeline, work) {
        (Some(Pipeline::Batch(batch)), _) => batch.retry.clone(),
        // Control tries again in its own time.
        (_, Work::Follow | Work::Tend) => Retry { attempts: u32::MAX, ..Retry::default() },
        (_, Work::Drift) => {
            // From its own rhythm to an hour.
            Retry { attempts: u32::MAX, from: Span::from_millis(600_000), to: Span::from_millis(3_600_000) }
        }
        _ => Retry::default(),
    }
}

/// Returns whether someone should know about a failing step: no attempt follows by itself, or, for a step that is never
/// given up, as many failed as others get.
#[must_use]
pub fn worth_telling(attempts: &Attempts, retry: &Retry) -> bool {
    if attempts.is_by_hand() {
        return false;
    }
    let patience = if retry.attempts == u32::MAX { Retry::default().attempts } else { retry.attempts };
    attempts.kind == ErrorKind::User || attempts.count >= patience
}

/// Returns why a step of a paused product waits.
pub(super) fn paused_by(key: &StepKey, pause: &Pause) -> NotDue {
    let end = match pause.until_ms {
        Some(_) => "goes on".to_owned(),
        None => format!("waits for `hydromesh resume {}`", key.pipeline.product),
    };
    let why = format!("{}; {end}", pause.text());
    NotDue { pipeline: key.pipeline.clone(), why, until_ms: pause.until_ms, held: true }
}

/// Returns why a step waits whose product a rule stops.
pub(super) fn stopped_by(key: &StepKey, rule: &Finding) -> NotDue {
    let Finding { rule, message, .. } = rule;
    let why =
        format!("stopped by the rule {rule}: {message}; it goes on once that rule allows what is deployed");
    NotDue { pipeline: key.pipeline.clone(), why, until_ms: None, held: true }
}

/// Returns why a step waits whose product came back while its earlier tables are taken away.
pub(super) fn ending_first(key: &StepKey, ending: &Ending) -> NotDue {
    let why =
        format!("its earlier tables are being {}; it starts from nothing after that", ending.how.done());
    NotDue { pipeline: key.pipeline.clone(), why, until_ms: None, held: true }
}

/// Returns why a step that failed is not tried again now, if it is not.
pub(super) fn hold_back(
    ledger: &LedgerState,
    now_ms: i64,
    key: &StepKey,
    attempts: &Attempts,
    retry: &Retry,
) -> Option<NotDue> {
    let id = &key.pipeline.product;
    let generation = ledger.deployed.get(id).map_or(0, |deployed| deployed.generation);
    if attempts.generation != generation {
        return None;
    }
    let pipeline = key.pipeline.clone();
    if attempts.is_by_hand() {
        // Not even newer inputs bring it back.
        let why = format!("{}; waits for `hydromesh retry {id}`", attempts.message);
        return Some(NotDue { pipeline, why, until_ms: None, held: true });
    }
    let message = format!("failed with {}: {}", attempts.code, attempts.message);
    // Newer inputs are worth another attempt, after the usual pause: inputs that never rest must not make a storm.
    let same_inputs = attempts.inputs == ledger.input_versions(id);
    if same_inputs && attempts.kind == ErrorKind::User {
        let why = format!("{message}; waits for a new commit or new input");
        return Some(NotDue { pipeline, why, until_ms: None, held: true });
    }
    if same_inputs && attempts.count >= retry.attempts && !attempts.is_refused_by_disk() {
        let why = format!("{message}; {} attempts, waits for `hydromesh retry {id}`", attempts.count);
        return Some(NotDue { pipeline, why, until_ms: None, held: true });
    }
    let pause = backoff_ms(retry, attempts.count, &key.to_string());
    let pause = if attempts.is_refused_by_disk() { pause.min(DISK_MS) } else { pause };
    let until_ms = attempts.at_ms.saturating_add(pause);
    (now_ms < until_ms).then(|| NotDue {
        pipeline,
        why: format!("{message}; tried again"),
        until_ms: Some(until_ms),
        held: true,
    })
}

/// What follows a run that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextTry {
    /// Nothing keeps the step back.
    Soon,
    /// The next attempt begins then at the earliest, milliseconds UTC.
    At(i64),
    /// No attempt follows by itself as things are.
    Waits,
}

/// Returns when a step is tried again that failed or was stopped.
#[must_use]
pub fn next_try(ledger: &LedgerState, now_ms: i64, key: &StepKey) -> NextTry {
    let Some((_, attempts)) = ledger.failure(key) else { return NextTry::Soon };
    let deployed = ledger.deployed.get(&key.pipeline.product);
    let pipeline = deployed.and_then(|it| it.product.pipelines.get(&key.pipeline.name));
    match hold_back(ledger, now_ms, key, attempts, &retry_of(pipeline, &key.work)) {
        None => NextTry::Soon,
        Some(NotDue { until_ms: Some(at_ms), .. }) => NextTry::At(at_ms),
        Some(NotDue { until_ms: None, .. }) => NextTry::Waits,
    }
}

/// Returns the pause before the next attempt: doubling from `from` to `to`, less up to a quarter by the step's name so
/// that steps that failed together do not come back together.
fn backoff_ms(retry: &Retry, failed: u32, salt: &str) -> i64 {
    // 2^20 times the shortest pause is longer than any longest one.
    let doubled = retry.from.millis().saturating_mul(1_i64 << failed.saturating_sub(1).min(20));
    let pause = doubled.min(retry.to.millis()).max(1);
    let spread: i64 = salt.bytes().fold(failed.into(), |sum: i64, byte| (sum * 31 + i64::from(byte)) % 1_000);
    pause - pause * spread / 4_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_differ_by_step() {
        let retry = Retry::default();
        for failed in 1..40 {
            let pause = backoff_ms(&retry, failed, "a/b:c@whole");
            let full = (10_000_i64 << (failed - 1).min(20)).min(600_000);
            assert!(pause <= full && pause >= full * 3 / 4, "{failed}: {pause} of {full}");
        }
        assert_ne!(backoff_ms(&retry, 1, "a/b:c@whole"), backoff_ms(&retry, 1, "a/b:d@whole"));
    }

    #[test]
    fn what_follows_a_failure_is_told() {
        let key = StepKey { pipeline: "a/b:c".parse().expect("a pipeline"), work: Work::Whole };
        let mut ledger = LedgerState::default();
        assert_eq!(next_try(&ledger, 0, &key), NextTry::Soon);
        let mut follows = |kind, count, now_ms| {
            let attempts = Attempts {
                count,
                at_ms: 1_000,
                kind,
                code: "HM-X001".to_owned(),
                message: String::new(),
                generation: 0,
                inputs: 0,
            };
            ledger.failed.insert(key.clone(), attempts);
            next_try(&ledger, now_ms, &key)
        };
        assert!(
            matches!(follows(ErrorKind::External, 1, 1_000), NextTry::At(at) if at > 1_000 && at <= 11_000)
        );
        assert_eq!(follows(ErrorKind::External, 1, 12_000), NextTry::Soon);
        assert_eq!(follows(ErrorKind::External, 9, 1_000), NextTry::Waits);
        assert_eq!(follows(ErrorKind::User, 1, 1_000), NextTry::Waits);
    }

    #[test]
    fn what_a_disk_refuses_is_tried_every_minute_and_never_given_up() {
        let key = StepKey { pipeline: "a/b:c".parse().expect("a pipeline"), work: Work::Whole };
        let ledger = LedgerState::default();
        let retry = Retry::default();
        let waits = |code: &str, count: u32, now_ms: i64| {
            let (at_ms, inputs) = (0, ledger.input_versions(&key.pipeline.product));
            let (kind, code, message) = (ErrorKind::External, code.to_owned(), String::new());
            let attempts = Attempts { count, at_ms, kind, code, message, generation: 0, inputs };
            (hold_back(&ledger, now_ms, &key, &attempts, &retry), worth_telling(&attempts, &retry))
        };
        for count in [retry.attempts, 1_000] {
            let (given_up, _) = waits("HM-L001", count, 3_600_000);
            assert_eq!(given_up.expect("waits for a person").until_ms, None);
            let (soon, told) = waits("HM-X012", count, 1);
            assert!(soon.expect("waits").until_ms.expect("not for a person") <= 60_000);
            assert_eq!((waits("HM-X012", count, 60_000).0, told), (None, true), "{count}");
        }
        assert!(!waits("HM-X012", 1, 1).1, "a first refusal may pass before anybody looks");
    }
}
