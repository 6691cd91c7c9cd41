//! From a commit to deploys: plan, ask, admit.

use std::collections::{BTreeMap, BTreeSet};

use super::gate::denial;
use super::{Control, Question};
use crate::diag::{Diagnostic, codes};
use crate::ids::{PortId, ProductId};
use crate::ledger::{Decision, Fact, Outcome};
use crate::plan::{
    Change, ChangeKind, Desired, Plan, PortPrint, Print, admit, dependency_order, empties, plan, print_mesh,
};
use crate::planted::{self, Bug};
use crate::spread::InOrder;
use crate::trust::{Scope, Verified, refusals};

/// How often a head with refused products is judged again: rules may speak of the time, and waivers run out.
const JUDGE_AGAIN_MS: i64 = 10 * 60_000;

/// A commit that waits for the gate.
///
/// What is denied or held stays as it is deployed, so those who read it are planned again over what is deployed: their
/// data must carry the fingerprint of the inputs that they will really see. That takes at most one more round for every
/// product that is refused.
#[derive(Debug)]
pub(super) struct Pending {
    plan: Plan,
    /// Fingerprints of this round.
    prints: BTreeMap<ProductId, Print>,
    /// The gate's answers by product, each to the fingerprint that it names.
    answers: BTreeMap<ProductId, Decision>,
    /// Products of this round about which the gate has not answered.
    unanswered: BTreeSet<ProductId>,
    /// Products that do not advance, with why.
    refused: BTreeMap<ProductId, (Outcome, String)>,
}

impl Pending {
    fn answer(&self, change: &Change) -> Option<&Decision> {
        self.answers
            .get(&change.product)
            .filter(|it| it.fingerprint == change.fingerprint && it.action == action(change))
    }
}

impl Control {
    pub(super) fn commit(
        &mut self,
        commit: &str,
        r#ref: String,
        message: String,
        author: String,
        desired: Result<Box<Desired>, Vec<Diagnostic>>,
    ) {
        self.withdraw();
        self.pass_over(commit);
        if self.ledger.head.as_deref() != Some(commit) {
            self.record(Fact::CommitSeen { commit: commit.to_owned(), r#ref, message, author });
        }
        match desired {
            Ok(desired) => self.begin(desired),
            Err(findings) => {
                let why = findings.first().map_or_else(|| "does not load".to_owned(), summary);
                self.conclude_commit(commit, refused_as(&findings), why);
            }
        }
    }

    pub(super) fn superseded(&mut self, commits: Vec<(String, String, String)>, by: &str) {
        for (commit, message, author) in commits {
            let seen = self.ledger.commits.iter().any(|seen| seen.commit == commit);
            if !seen {
                let (commit, r#ref) = (commit.clone(), String::new());
                self.record(Fact::CommitSeen { commit, r#ref, message, author });
            }
            if self.ledger.outcome(&commit).is_none() && commit != by {
                let why = format!("superseded by {by}");
                self.outcome(&commit, None, Outcome::Superseded, why);
            }
        }
    }

    pub(super) fn verified(&mut self, verified: Verified) {
        if self.ledger.verified.as_deref() != Some(&verified) {
            self.record(Fact::Verified(verified));
        }
    }

    /// Gives every commit that was seen and never decided about its outcome.
    fn pass_over(&mut self, by: &str) {
        if planted::is(Bug::CommitForgotten) {
            return;
        }
        let undecided: Vec<String> = self
            .ledger
            .commits
            .iter()
            .filter(|seen| seen.outcome.is_none() && seen.commit != by)
            .map(|seen| seen.commit.clone())
            .collect();
        for commit in undecided {
            let why = format!("superseded by {by} before it was decided");
            self.outcome(&commit, None, Outcome::Superseded, why);
        }
    }

    /// Takes back what the gate was asked about a commit.
    fn withdraw(&mut self) {
        self.pending = None;
        self.questions.retain(|(_, action), _| !matches!(*action, "deploy" | "retire"));
    }

    /// Plans what a commit asks for and asks the gate about it.
    fn begin(&mut self, desired: Box<Desired>) {
        self.judged_ms = self.now_ms;
        let emptied = empties(&desired, &self.ledger);
        let commit = desired.commit.clone();
        // Whoever read the commit may have known less about what is deployed, which stands in for what does not check.
        let prints = if desired.broken.is_empty() {
            desired.prints.clone()
        } else {
            self.print_around(&desired, &BTreeMap::new())
        };
        self.desired = Some(desired);
        self.endings.touch();
        if let Some(why) = emptied {
            return self.conclude_commit(&commit, Outcome::Held, why);
        }
        self.take_limits();
        self.round(prints, BTreeMap::new(), BTreeMap::new());
    }

    /// Takes over how much may run at once: what no product is asked about, and no rule.
    fn take_limits(&mut self) {
        let environments = self.desired.as_ref().map(|desired| &desired.mesh.environments);
        let limits = environments.and_then(|it| it.get(&self.environment)).map(|it| &it.limits);
        if let Some(limits) = limits.filter(|limits| **limits != self.ledger.limits).cloned() {
            self.record(Fact::Limited { limits });
        }
    }

    /// Judges a head again of which something is refused.
    pub(super) fn judge_again(&mut self) {
        let refused = |commit: &str| {
            self.ledger.verdicts.values().any(|verdict| {
                verdict.commit == commit && matches!(verdict.outcome, Outcome::Denied | Outcome::Held)
            })
        };
        let due = self.now_ms >= self.judged_ms.saturating_add(JUDGE_AGAIN_MS);
        if !due || self.pending.is_some() {
            return;
        }
        let head = self.ledger.head.as_deref();
        let current = self.desired.as_ref().filter(|desired| Some(desired.commit.as_str()) == head);
        if current.is_some_and(|desired| refused(&desired.commit))
            && let Some(desired) = self.desired.take()
        {
            self.begin(desired);
        }
    }

    /// Plans what may still advance and asks about what was not answered yet.
    fn round(
        &mut self,
        prints: BTreeMap<ProductId, Print>,
        answers: BTreeMap<ProductId, Decision>,
        refused: BTreeMap<ProductId, (Outcome, String)>,
    ) {
        let Some(mut desired) = self.desired.take() else { return };
        let order = dependency_order(desired.mesh.products.values());
        let ideal = std::mem::replace(&mut desired.prints, prints);
        let mut plan = plan(&desired, &order, &self.ledger, &self.environment, self.now_ms);
        let prints = std::mem::replace(&mut desired.prints, ideal);
        self.desired = Some(desired);
        plan.changes.retain(|change| !refused.contains_key(&change.product));
        let mut pending = Pending { plan, prints, answers, unanswered: BTreeSet::new(), refused };
        let open: Vec<&Change> =
            pending.plan.changes.iter().filter(|change| pending.answer(change).is_none()).collect();
        let questions: Vec<(&'static str, Question)> =
            open.iter().map(|change| (action(change), question(change, &pending.plan.commit))).collect();
        pending.unanswered = open.into_iter().map(|change| change.product.clone()).collect();
        self.pending = Some(pending);
        for (action, question) in questions {
            self.ask(action, question);
        }
        self.conclude();
    }

    /// Takes the gate's answer about a change in.
    pub(super) fn change_decided(&mut self, decision: Decision) {
        if let Some(pending) = &mut self.pending {
            // Only an answer to what was asked in this round comes here.
            pending.unanswered.remove(&decision.product);
            pending.answers.insert(decision.product.clone(), decision);
            self.conclude();
        }
    }

    /// Once every question is answered: deploys what is allowed and holds nothing back from anyone else.
    fn conclude(&mut self) {
        if self.pending.as_ref().is_none_or(|pending| !pending.unanswered.is_empty()) {
            return;
        }
        let (Some(mut pending), Some(mut desired)) = (self.pending.take(), self.desired.take()) else {
            return;
        };
        let mut allowed = BTreeSet::new();
        let mut found: BTreeMap<ProductId, (Outcome, String)> = BTreeMap::new();
        for change in &pending.plan.changes {
            let id = &change.product;
            match pending.answer(change) {
                Some(decision) if decision.allow || planted::is(Bug::DeniedIsAllowed) => {
                    _ = allowed.insert(id.clone());
                }
                Some(decision) => {
                    _ = found.insert(id.clone(), (Outcome::Denied, format!("{id}: {}", denial(decision))));
                }
                None => {}
            }
        }
        let ideal = std::mem::replace(&mut desired.prints, std::mem::take(&mut pending.prints));
        let admission = admit(&pending.plan, &desired, &self.ledger, &allowed);
        for (id, why) in admission.held.into_iter().filter(|_| !planted::is(Bug::NobodyIsHeld)) {
            let why = format!("{id}: {why}");
            found.insert(id, (Outcome::Held, why));
        }
        let prints = std::mem::replace(&mut desired.prints, ideal);
        if !found.is_empty() {
            pending.refused.extend(found);
            let prints = self.print_around(&desired, &pending.refused);
            self.desired = Some(desired);
            return self.round(prints, pending.answers, pending.refused);
        }
        self.apply(&pending, &desired, &prints);
        self.desired = Some(desired);
    }

    /// Returns the fingerprints of a commit when the refused products stay as they are deployed.
    fn print_around(
        &self,
        desired: &Desired,
        refused: &BTreeMap<ProductId, (Outcome, String)>,
    ) -> BTreeMap<ProductId, Print> {
        let stays = |id: &ProductId| refused.contains_key(id) || desired.broken.contains_key(id);
        let deployed: BTreeMap<PortId, PortPrint> = self
            .ledger
            .deployed
            .iter()
            .filter(|(id, _)| stays(id))
            .flat_map(|(_, it)| {
                it.print.ports.iter().map(|(name, print)| (it.product.port(name), print.clone()))
            })
            .collect();
        let order: Vec<ProductId> = dependency_order(desired.mesh.products.values())
            .into_iter()
            .filter(|id| !refused.contains_key(id))
            .collect();
        print_mesh(&desired.mesh, &order, &desired.shapes, &deployed, &InOrder)
    }

    /// Deploys a plan of which everything may advance, and says what became of everything.
    fn apply(&mut self, pending: &Pending, desired: &Desired, prints: &BTreeMap<ProductId, Print>) {
        let commit = &pending.plan.commit;
        let mut worst: Option<(Outcome, String)> = None;
        let mut weigh = |outcome: Outcome, why: &str| {
            if worst.as_ref().is_none_or(|(before, _)| outcome > *before) {
                worst = Some((outcome, why.to_owned()));
            }
        };
        for change in &pending.plan.changes {
            let Some(decision) = pending.answer(change) else { continue };
            self.deploy(desired, prints, change, &decision.id);
            let why = change.reasons.join("; ");
            weigh(Outcome::Applied, &why);
            self.outcome_of(commit, &change.product, Outcome::Applied, why);
        }
        for (id, (outcome, why)) in &pending.refused {
            weigh(*outcome, why);
            self.outcome_of(commit, id, *outcome, why.clone());
        }
        for (id, findings) in &desired.broken {
            let why = findings.first().map_or_else(|| "does not check".to_owned(), summary);
            let outcome = refused_as(findings);
            weigh(outcome, &format!("{id}: {why}"));
            self.outcome_of(commit, id, outcome, why);
        }
        // What is nobody's product is told of the commit.
        let verified = self.ledger.verified(commit).map(|verified| refusals(&verified.refused));
        for (scope, (path, why)) in verified.into_iter().flatten() {
            if !matches!(scope, Scope::Product(_)) {
                weigh(Outcome::Held, &format!("{} {path}: {why}", codes::SIGNATURE));
            }
        }
        let (outcome, why) = worst.unwrap_or_else(|| (Outcome::Applied, "no changes".to_owned()));
        self.conclude_commit(commit, outcome, why);
    }

    /// Records what became of a product, unless that is known: after a start the same commit comes again.
    fn outcome_of(&mut self, commit: &str, id: &ProductId, outcome: Outcome, why: String) {
        let known = self.ledger.verdicts.get(id);
        if known.is_none_or(|it| it.commit != commit || it.outcome != outcome || it.why != why) {
            self.outcome(commit, Some(id.clone()), outcome, why);
        }
    }

    /// Records what became of a commit, unless that is known.
    fn conclude_commit(&mut self, commit: &str, outcome: Outcome, why: String) {
        if self.ledger.outcome(commit) != Some(outcome) {
            self.outcome(commit, None, outcome, why);
        }
    }

    fn outcome(&mut self, commit: &str, product: Option<ProductId>, outcome: Outcome, why: String) {
        self.record(Fact::CommitOutcome { commit: commit.to_owned(), product, outcome, why });
    }

    fn deploy(
        &mut self,
        desired: &Desired,
        prints: &BTreeMap<ProductId, Print>,
        change: &Change,
        decision: &str,
    ) {
        let (id, commit, decision) = (&change.product, desired.commit.clone(), decision.to_owned());
        if change.kind == ChangeKind::Retire {
            return self.record(Fact::Retired { product: id.clone(), commit, decision });
        }
        let (Some(product), Some(print)) = (desired.mesh.products.get(id), prints.get(id)) else { return };
        let generation = self.ledger.generations.get(id).copied().unwrap_or(0) + 1;
        let product = Box::new(product.clone());
        self.record(Fact::Deployed { generation, commit, decision, product, print: print.clone() });
    }
}

fn question(change: &Change, commit: &str) -> Question {
    Question {
        product: change.product.clone(),
        action: action(change).to_owned(),
        commit: commit.to_owned(),
        fingerprint: change.fingerprint.clone(),
        change: serde_json::to_value(change).unwrap_or_default(),
    }
}

fn action(change: &Change) -> &'static str {
    if change.kind == ChangeKind::Retire { "retire" } else { "deploy" }
}

/// What does not check is broken; what nobody who may has signed waits until somebody does.
fn refused_as(findings: &[Diagnostic]) -> Outcome {
    let unsigned = |first: &Diagnostic| [codes::SIGNATURE, codes::HISTORY].contains(&first.code);
    if findings.first().is_some_and(unsigned) { Outcome::Held } else { Outcome::Broken }
}

fn summary(finding: &Diagnostic) -> String {
    format!("{} {}:{}: {}", finding.code, finding.file, finding.line, finding.message)
}
