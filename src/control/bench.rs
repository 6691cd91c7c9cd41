//! Where questions wait for the gate: off the loop, so that a rule that takes its time takes nobody else's.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use hydromesh_core::control::{Event, Question};
use hydromesh_core::ids::ProductId;
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::Span;

use super::judge::Judge;
use super::telling::Telling;
use crate::policy::GateProcess;

/// One question with all that its answer depends on.
pub(super) struct Case {
    pub question: Question,
    pub document: Value,
    pub judge: Judge,
    /// What its rules are for this product now.
    pub rules: String,
    /// Of the judgement, for traces.
    pub span: Span,
}

/// The thread that asks the gate, one case after the other. Answers come as events.
pub(super) struct Bench(Arc<Docket>);

#[derive(Default)]
struct Docket {
    cases: Mutex<Cases>,
    came: Condvar,
}

#[derive(Default)]
struct Cases {
    /// In the order in which they came.
    waiting: BTreeMap<u64, Case>,
    /// The one about each product and action.
    about: BTreeMap<(ProductId, String), u64>,
    came: u64,
    closed: bool,
}

fn about(case: &Case) -> (ProductId, String) {
    (case.question.product.clone(), case.question.action.clone())
}

impl Docket {
    fn cases(&self) -> MutexGuard<'_, Cases> {
        self.cases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next case; none once nobody asks any more.
    fn next(&self) -> Option<Case> {
        let mut cases = self.cases();
        loop {
            if cases.closed {
                return None;
            }
            if let Some((_, case)) = cases.waiting.pop_first() {
                cases.about.remove(&about(&case));
                return Some(case);
            }
            cases = self.came.wait(cases).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Bench {
    /// Starts the thread; the worker process begins with the first case.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(events: mpsc::Sender<Event>) -> std::io::Result<Self> {
        let docket = Arc::new(Docket::default());
        let asked = Arc::clone(&docket);
        std::thread::Builder::new().name("gate".to_owned()).spawn(move || {
            let mut gate = GateProcess::default();
            while let Some(Case { question, document, judge, rules, span }) = asked.next() {
                let decision = span.in_scope(|| gate.decide(judge.rules(), &document));
                let decision = judge.answer(&question, rules, decision);
                Telling::judged(&span, &decision);
                drop(span);
                // When the loop is gone, nobody needs to know.
                if events.blocking_send(Event::Decided(decision)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self(docket))
    }

    /// Puts a case; one about the same product and action that still waits is not needed any more.
    pub fn put(&self, case: Case) {
        let mut cases = self.0.cases();
        cases.came += 1;
        let place = cases.came;
        if let Some(before) = cases.about.insert(about(&case), place) {
            cases.waiting.remove(&before);
        }
        cases.waiting.insert(place, case);
        drop(cases);
        self.0.came.notify_one();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.0.cases().closed = true;
        self.0.came.notify_one();
    }
}
