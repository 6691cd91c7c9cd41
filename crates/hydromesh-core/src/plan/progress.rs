//! How far a product's partitions are, and when they will all be there.

use super::Work;
use crate::cost::{partitions_of, scaled};
use crate::ids::{PipelineId, PortId};
use crate::ledger::{LedgerState, RunOutcome};

/// Runs that say how fast it goes: enough to even out chance, few enough to follow a change of pace.
const PACE_OF: usize = 32;

/// How far the partitions of a port are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The port.
    pub port: PortId,
    /// Partitions to compute.
    pub left: u64,
    /// Those of them that failed and are not tried again by themselves as things are.
    pub failed: u64,
    /// Partitions that have ended.
    pub of: u64,
    /// How long what can go on takes at the pace of the last runs, milliseconds; unknown before the first one, and while nothing
    /// can begin.
    pub left_ms: Option<i64>,
}

/// Returns how long so many more partitions of a pipeline take if each takes what it took in the last runs, and as many steps run
/// at once as are under way now. Time in which nothing of it ran says nothing.
pub(super) fn at_this_pace(ledger: &LedgerState, pipeline: &PipelineId, left: u64) -> Option<i64> {
    let well = ledger.runs.iter().rev().filter(|run| {
        // What was taken over from a preview was not computed.
        run.step.pipeline == *pipeline
            && run.taken.is_none()
            && matches!(run.outcome, RunOutcome::Succeeded { .. })
    });
    let took =
        well.filter_map(|run| Some((partitions_of(&run.step.work)?, run.took_ms.max(1).unsigned_abs())));
    let (partitions, work_ms) = took
        .take(PACE_OF)
        .fold((0, 0), |(partitions, work_ms), (more, took_ms)| (partitions + more, work_ms + took_ms));
    let under_way = ledger.running.values().filter(|step| {
        step.pipeline == *pipeline && matches!(step.work, Work::Partitions { .. } | Work::Whole)
    });
    let at_once = (under_way.count() as u64).max(1);
    i64::try_from(scaled(work_ms, partitions, left)?.div_ceil(at_once)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{FinishedRun, TakenOver};
    use crate::plan::StepKey;

    fn step(from: &str, to: &str) -> StepKey {
        let work = Work::Partitions { from: from.to_owned(), to: to.to_owned() };
        StepKey { pipeline: "shop/orders:orders".parse().expect("a pipeline"), work }
    }

    fn run(at_ms: i64, took_ms: i64, step: StepKey) -> FinishedRun {
        let outcome = RunOutcome::Succeeded { rows: 1 };
        FinishedRun { run: at_ms.to_string(), step, outcome, at_ms, took_ms, taken: None }
    }

    #[test]
    fn the_last_runs_say_how_long_the_rest_takes_and_the_time_between_them_does_not() {
        let days = || step("2026-08-01", "2026-08-10");
        let pipeline = days().pipeline;
        let mut ledger = LedgerState::default();
        assert_eq!(at_this_pace(&ledger, &pipeline, 5), None, "nothing is known yet");
        // Ten days in a second each, with an idle hour in between.
        ledger.runs.push_back(run(10_000, 1_000, days()));
        ledger.runs.push_back(run(3_610_000, 1_000, days()));
        assert_eq!(at_this_pace(&ledger, &pipeline, 75), Some(7_500));
        // What failed, was copied, or is another pipeline's has no pace.
        let mut failed = run(3_700_000, 60_000, days());
        failed.outcome = RunOutcome::Cancelled;
        let mut copied = run(3_700_000, 1, days());
        copied.taken = Some(TakenOver { from: "preview/a".to_owned(), partitions: 10, computed_ms: 0 });
        let mut other = run(3_700_000, 60_000, days());
        other.step.pipeline = "shop/totals:totals".parse().expect("a pipeline");
        ledger.runs.extend([failed, copied, other]);
        assert_eq!(at_this_pace(&ledger, &pipeline, 75), Some(7_500));
        // Two at once are twice as fast.
        ledger.running.insert("a".to_owned(), step("2026-08-11", "2026-08-20"));
        assert_eq!(at_this_pace(&ledger, &pipeline, 75), Some(7_500));
        ledger.running.insert("b".to_owned(), step("2026-08-21", "2026-08-30"));
        assert_eq!(at_this_pace(&ledger, &pipeline, 75), Some(3_750));
        // Yesterday's pace is not today's.
        for at in 0..40 {
            ledger.runs.push_back(run(9_000_000 + at, 20_000, days()));
        }
        assert_eq!(at_this_pace(&ledger, &pipeline, 75), Some(75_000));
    }
}
