//! What control says of runs and of commits: lines that are kept per run, and spans of traces.

use std::collections::BTreeMap;

use hydromesh_core::control::{Question, Start};
use hydromesh_core::ledger::{Decision, Entry, Fact, LedgerState, Outcome, RunOutcome};
use hydromesh_core::plan::{NextTry, StepKey, next_try};
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::{runlog, traces};

/// Returns the span of what becomes of a commit, from when it was seen.
pub(super) fn reconcile(commit: &str, reference: &str) -> Span {
    info_span!(
        parent: None,
        "reconcile",
        "vcs.ref.head.revision" = commit,
        "vcs.ref.head.name" = reference,
        hydromesh.outcome = Empty,
        otel.status_code = Empty,
    )
}

/// Spans that are open.
#[derive(Default)]
pub(super) struct Telling {
    /// Of runs under way that this process began.
    steps: BTreeMap<String, Span>,
    /// Of the newest commit, until it is concluded.
    commit: Option<(String, Span)>,
}

impl Telling {
    /// Says that a run begins; returns its place in its trace, for whoever performs it.
    pub fn begun(&mut self, start: &Start) -> Option<String> {
        let span = runlog::step(start);
        runlog::begun(&span, start);
        let place = traces::place(&span);
        self.steps.insert(start.run.clone(), span);
        place
    }

    /// Notes that a commit was seen; returns the span of planning it.
    pub fn seen(&mut self, commit: &str, span: Span) -> Span {
        let planning = info_span!(parent: &span, "plan");
        // One before it that is still open was passed over.
        self.commit = Some((commit.to_owned(), span));
        planning
    }

    /// Returns the span of a question to the gate.
    pub fn judging(&self, question: &Question) -> Span {
        let of = |product: &dyn std::fmt::Display, action: &str, parent: &Span| {
            info_span!(
                parent: parent,
                "judge",
                cicd.pipeline.name = %product,
                cicd.pipeline.action.name = action,
                hydromesh.allowed = Empty,
            )
        };
        match &self.commit {
            Some((commit, span)) if *commit == question.commit => {
                of(&question.product, &question.action, span)
            }
            _ => Span::none(),
        }
    }

    /// Notes what the gate answered.
    pub fn judged(span: &Span, decision: &Decision) {
        span.record("hydromesh.allowed", decision.allow);
    }

    /// Returns the span of appending facts that deploy something of the newest commit; none for others.
    pub fn deploying(&self, entries: &[Entry]) -> Span {
        let deploys =
            entries.iter().filter(|it| matches!(it.fact, Fact::Deployed { .. } | Fact::Retired { .. }));
        match (&self.commit, deploys.count()) {
            (Some((_, span)), products @ 1..) => {
                info_span!(parent: span, "deploy", hydromesh.products = products)
            }
            _ => Span::none(),
        }
    }

    /// Says what facts mean that are durable.
    pub fn appended(&mut self, entries: &[Entry], ledger: &LedgerState, now_ms: i64) {
        for entry in entries {
            match &entry.fact {
                Fact::RunFinished { run, step, outcome, took_ms } => {
                    let span = self.steps.remove(run).unwrap_or_else(|| unknown(run, step));
                    let next = match outcome {
                        RunOutcome::Succeeded { .. } => None,
                        _ => follows(ledger, step, now_ms),
                    };
                    runlog::ended(&span, outcome, *took_ms, next.as_deref());
                }
                Fact::CommitOutcome { commit, product: None, outcome, .. } => {
                    if let Some((_, span)) = self.commit.take_if(|(newest, _)| newest == commit) {
                        conclude(&span, *outcome);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Returns the span for the end of a run that an earlier process began, or nobody.
fn unknown(run: &str, step: &StepKey) -> Span {
    runlog::quiet(&Start {
        run: run.to_owned(),
        key: step.clone(),
        attempt: 0,
        generation: 0,
        decision: String::new(),
        reason: String::new(),
    })
}

fn follows(ledger: &LedgerState, step: &StepKey, now_ms: i64) -> Option<String> {
    match next_try(ledger, now_ms, step) {
        NextTry::Soon => None,
        NextTry::At(at_ms) => {
            let seconds = at_ms.saturating_sub(now_ms).max(0) / 1_000;
            Some(format!("tried again in {seconds}s"))
        }
        NextTry::Waits => {
            Some(format!("not tried again by itself, see `hydromesh why-not {}`", step.pipeline.product))
        }
    }
}

fn conclude(span: &Span, outcome: Outcome) {
    span.record("hydromesh.outcome", outcome.word());
    // What a policy denies or a check finds is an answer, not a failure of ours.
    span.record("otel.status_code", "ok");
}
