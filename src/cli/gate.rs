//! What the gate would say about a plan, before anything is pushed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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
use crate::control::{GateInputs, Judge, Lineage, OwnRules, Reading, own_rules};
use crate::policy::{Decision, GateProcess, Violation};
use crate::repo::{CommitId, Repository};

/// The gate's answers to the changes of a plan, in its order.
pub struct Answers(Vec<(ProductId, Decision)>);

/// Returns what the mesh itself says at a commit of what is allowed: out of a mirror of the state folder, or the repository that is planned.
fn rules_at(commit: &str, state: &Path, mesh: &Path) -> Result<Option<OwnRules>, Failure> {
    let Ok(id) = CommitId::parse(commit) else { return Ok(None) };
    let mirrors = std::fs::read_dir(state.join("repo")).into_iter().flatten();
    let mirrors = mirrors.filter_map(|entry| Some(entry.ok()?.path()));
    for path in mirrors.chain([mesh.to_owned()]) {
        let Ok((repository, prefix)) = Repository::discover(&path) else { continue };
        let Ok(snapshot) = repository.snapshot(&id).and_then(|it| it.subfolder(&prefix)) else { continue };
        return own_rules(&snapshot).map(Some).map_err(|error| Failure::outside(&error));
    }
    tracing::warn!(
        commit,
        "the rules that judge are in no repository here; the mesh's own as it is now judge"
    );
    Ok(None)
}

impl Answers {
    /// Asks about each change as the controller would: the operator's rules, and those of the mesh at the base of each product.
    /// Where nothing was decided about yet, or the base is in no repository here, those of the mesh as it is now.
    ///
    /// # Errors
    /// When the operator's policies, or the rules of a base that is here, cannot be read.
    pub fn ask(
        policies: Option<&Path>,
        reading: &Reading,
        plan: &Plan,
        ledger: &LedgerState,
        (state, mesh): (&Path, &Path),
        now_ms: i64,
    ) -> Result<Self, Failure> {
        let central = open_set(policies)?;
        let here = || OwnRules { policies: reading.policies.clone(), waivers: reading.waivers.clone() };
        let mut judges = BTreeMap::from([(None, Judge::of(&central, here()))]);
        for change in &plan.changes {
            let base = ledger.base_of(&change.product);
            if let Entry::Vacant(place) = judges.entry(base) {
                let own = base.map(|base| rules_at(base, state, mesh)).transpose()?.flatten();
                place.insert(Judge::of(&central, own.unwrap_or_else(here)));
            }
        }
        let lineage = Lineage::of(&reading.desired);
        let inputs = GateInputs::new(&reading.desired, &lineage, ledger, &plan.environment);
        let mut gate = GateProcess::default();
        let answers = plan.changes.iter().map(|change| {
            let judge = &judges[&ledger.base_of(&change.product)];
            let question = Question {
                product: change.product.clone(),
                action: if change.kind == ChangeKind::Retire { "retire" } else { "deploy" }.to_owned(),
                commit: plan.commit.clone(),
                fingerprint: change.fingerprint.clone(),
                change: serde_json::to_value(change).unwrap_or_default(),
            };
            let document = judge.document(&inputs, &question, now_ms);
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
        let one = |(product, it): &(ProductId, Decision)| json!({"product": product, "allow": it.allow, "violations": it.violations, "warnings": it.warnings, "waived": it.waived});
        self.0.iter().map(one).collect()
    }

    /// Returns what each rule says, with the product that it says it about: denials before warnings, and what a waiver lets pass last.
    fn told(&self) -> Vec<(&ProductId, &'static str, &Violation)> {
        let denied =
            self.0.iter().flat_map(|(id, it)| it.violations.iter().map(move |one| (id, "deny", one)));
        let warned = self.0.iter().flat_map(|(id, it)| it.warnings.iter().map(move |one| (id, "warn", one)));
        let waived = self
            .0
            .iter()
            .flat_map(|(id, it)| it.waived.iter().map(move |one| (id, "waived", &one.violation)));
        denied.chain(warned).chain(waived).collect()
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
