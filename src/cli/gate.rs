//! What the gate would say about a plan, before anything is pushed.

use std::fmt::Write as _;
use std::path::Path;

use hydromesh_core::control::Question;
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::LedgerState;
use hydromesh_core::plan::{ChangeKind, Plan};
use serde_json::{Value, json};

use super::Failure;
use super::output::{Paint, Tone};
use super::policy::open_set;
use crate::control::{GateInputs, Judge, Reading};
use crate::policy::{Decision, GateProcess, Violation};

/// The gate's answers to the changes of a plan, in its order.
pub struct Answers(Vec<(ProductId, Decision)>);

impl Answers {
    /// Asks about each change: the operator's rules, and those of the mesh as it is now.
    ///
    /// The answer can differ at the deploy: rules that this very change adds count from the next commit on.
    ///
    /// # Errors
    /// When the operator's policies cannot be read.
    pub fn ask(
        policies: Option<&Path>,
        reading: &Reading,
        plan: &Plan,
        ledger: &LedgerState,
        now_ms: i64,
    ) -> Result<Self, Failure> {
        let judge = Judge::new(&open_set(policies)?, &reading.policies);
        let inputs = GateInputs::new(&reading.desired, ledger, &plan.environment);
        let mut gate = GateProcess::default();
        let answers = plan.changes.iter().map(|change| {
            let question = Question {
                product: change.product.clone(),
                action: if change.kind == ChangeKind::Retire { "retire" } else { "deploy" }.to_owned(),
                commit: plan.commit.clone(),
                fingerprint: change.fingerprint.clone(),
                change: serde_json::to_value(change).unwrap_or_default(),
            };
            let document = inputs.document(&question, judge.digest(), now_ms);
            (change.product.clone(), gate.decide(judge.rules(), &document))
        });
        Ok(Self(answers.collect()))
    }

    /// Returns whether anything would be denied.
    pub fn any_denied(&self) -> bool {
        self.0.iter().any(|(_, decision)| !decision.allow)
    }

    /// Returns the answers as JSON.
    pub fn json(&self) -> Value {
        let one = |(product, it): &(ProductId, Decision)| json!({"product": product, "allow": it.allow, "violations": it.violations, "warnings": it.warnings});
        self.0.iter().map(one).collect()
    }

    /// Returns what each rule says, with the product that it says it about: denials before warnings.
    fn told(&self) -> Vec<(&ProductId, &'static str, &Violation)> {
        let denied =
            self.0.iter().flat_map(|(id, it)| it.violations.iter().map(move |one| (id, "deny", one)));
        let warned = self.0.iter().flat_map(|(id, it)| it.warnings.iter().map(move |one| (id, "warn", one)));
        denied.chain(warned).collect()
    }

    /// Returns the answers for people.
    pub fn human(&self, paint: Paint) -> String {
        let denied = self.0.iter().filter(|(_, decision)| !decision.allow).count();
        let tone = if denied == 0 { Tone::Good } else { Tone::Bad };
        let summary = format!("gate: {} allowed, {denied} denied", self.0.len() - denied);
        let mut text = paint.text(tone, &summary);
        for (product, word, it) in self.told() {
            let tone = if word == "deny" { Tone::Bad } else { Tone::Odd };
            let _ = write!(text, "\n  {} {product}: {}: {}", paint.text(tone, word), it.rule, it.message);
            if let Some(remediation) = &it.remediation {
                let _ = write!(text, "\n       -> {}", remediation.trim());
            }
        }
        text
    }

    /// Returns the answers for the comment on a pull request.
    pub fn markdown(&self) -> String {
        use crate::report::markdown_cell as cell;
        let told = self.told();
        if told.is_empty() {
            return format!("The gate allows all {} changes.", self.0.len());
        }
        let mut text = "| Gate | Product | Rule | What to do |\n| --- | --- | --- | --- |".to_owned();
        for (product, word, it) in told {
            let what = cell(it.remediation.as_deref().unwrap_or_default().trim());
            let _ = write!(text, "\n| {word} | `{product}` | {}: {} | {what} |", it.rule, cell(&it.message));
        }
        text
    }
}
