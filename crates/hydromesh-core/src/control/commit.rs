//! From a commit to deploys: plan, ask, admit.

use std::collections::BTreeSet;

use super::{Control, Effect, Pending, Question};
use crate::diag::Diagnostic;
use crate::ids::ProductId;
use crate::ledger::{Decision, Fact, Outcome};
use crate::plan::{Change, ChangeKind, Desired, admit, dependency_order, plan};

impl Control {
    pub(super) fn commit(
        &mut self,
        commit: &str,
        r#ref: String,
        message: String,
        author: String,
        desired: Result<Box<Desired>, Vec<Diagnostic>>,
    ) {
        let known = self.ledger.outcome(commit);
        let seen = self.ledger.head.as_deref() == Some(commit);
        if let Some(pending) = self.pending.take().filter(|pending| pending.plan.commit != commit) {
            let why = format!("superseded by {commit} before it was decided");
            self.outcome(&pending.plan.commit, None, Outcome::Superseded, why);
        }
        if !seen {
            self.record(Fact::CommitSeen { commit: commit.to_owned(), r#ref, message, author });
        }
        let desired = match desired {
            Ok(desired) => desired,
            Err(findings) => {
                if known.is_none() || !seen {
                    let why = findings.first().map_or_else(|| "does not load".to_owned(), summary);
                    self.outcome(commit, None, Outcome::Broken, why);
                }
                return;
            }
        };
        let order = dependency_order(desired.mesh.products.values());
        let plan = plan(&desired, &order, &self.ledger, &self.environment, self.now_ms);
        let emptied = !self.ledger.deployed.is_empty() && desired.mesh.products.is_empty();
        self.desired = Some(desired);
        if emptied {
            let why = "it would retire every product; delete domains one by one if that is meant".to_owned();
            return self.outcome(commit, None, Outcome::Held, why);
        }
        // After a restart the same commit comes again; what was decided stays decided.
        let settled = seen && known.is_some();
        if settled && known != Some(Outcome::Applied) {
            return;
        }
        let asked: BTreeSet<ProductId> = plan.changes.iter().map(|change| change.product.clone()).collect();
        let questions: Vec<Question> = plan
            .changes
            .iter()
            .filter(|change| self.answer(change).is_none())
            .map(|change| Question {
                product: change.product.clone(),
                action: action(change).to_owned(),
                commit: commit.to_owned(),
                fingerprint: change.fingerprint.clone(),
                change: serde_json::to_value(change).unwrap_or_default(),
            })
            .collect();
        self.pending = Some(Pending { plan, asked });
        for question in questions {
            self.effect(Effect::Decide(question));
        }
        self.conclude();
    }

    pub(super) fn superseded(&mut self, commits: Vec<(String, String, String)>, by: &str) {
        for (commit, message, author) in commits {
            if self.ledger.outcome(&commit).is_none() {
                self.record(Fact::CommitSeen {
                    commit: commit.clone(),
                    r#ref: String::new(),
                    message,
                    author,
                });
                self.outcome(&commit, None, Outcome::Superseded, format!("superseded by {by}"));
            }
        }
    }

    pub(super) fn decided(&mut self, decision: Decision) {
        self.policy.clone_from(&decision.policy_digest);
        self.record(Fact::Decided(decision));
        self.conclude();
    }

    fn answer(&self, change: &Change) -> Option<&Decision> {
        self.ledger.decision(&change.product, action(change), &change.fingerprint, &self.policy)
    }

    fn outcome(&mut self, commit: &str, product: Option<ProductId>, outcome: Outcome, why: String) {
        self.record(Fact::CommitOutcome { commit: commit.to_owned(), product, outcome, why });
    }

    /// Once every question is answered: deploys what is allowed and holds nothing back from anyone else.
    fn conclude(&mut self) {
        let Some(pending) = &self.pending else { return };
        if pending.plan.changes.iter().any(|change| self.answer(change).is_none()) {
            return;
        }
        let (Some(pending), Some(desired)) = (self.pending.take(), self.desired.take()) else { return };
        let commit = pending.plan.commit.clone();
        let allowed: BTreeSet<ProductId> = pending
            .plan
            .changes
            .iter()
            .filter(|change| self.answer(change).is_some_and(|decision| decision.allow))
            .map(|change| change.product.clone())
            .collect();
        let admission = admit(&pending.plan, &desired, &self.ledger, &allowed);
        let mut worst = (Outcome::Applied, String::new());
        for change in &pending.plan.changes {
            let id = &change.product;
            let Some(decision) = self.answer(change).cloned() else { continue };
            let (outcome, why) = if !decision.allow {
                let rules: Vec<&str> = decision.violations.iter().map(|it| it.rule.as_str()).collect();
                let first = decision.violations.first().map_or("", |it| it.message.as_str());
                (Outcome::Denied, format!("{id}: denied by {}: {first}", rules.join(", ")))
            } else if let Some(why) = admission.held.get(id) {
                (Outcome::Held, format!("{id}: {why}"))
            } else {
                self.deploy(&desired, change, &decision, &commit);
                (Outcome::Applied, change.reasons.join("; "))
            };
            if worst.1.is_empty() || outcome > worst.0 {
                worst = (outcome, why.clone());
            }
            self.outcome(&commit, Some(id.clone()), outcome, why);
        }
        for (id, findings) in &desired.broken {
            let why = findings.first().map_or_else(String::new, summary);
            worst = (Outcome::Broken, format!("{id}: {why}"));
            self.outcome(&commit, Some(id.clone()), Outcome::Broken, why);
        }
        if pending.asked.is_empty() && desired.broken.is_empty() {
            worst.1 = "no changes".to_owned();
        }
        self.desired = Some(desired);
        if self.ledger.outcome(&commit) != Some(worst.0) {
            self.outcome(&commit, None, worst.0, worst.1);
        }
    }

    fn deploy(&mut self, desired: &Desired, change: &Change, decision: &Decision, commit: &str) {
        let id = &change.product;
        if change.kind == ChangeKind::Retire {
            let decision = decision.id.clone();
            return self.record(Fact::Retired { product: id.clone(), commit: commit.to_owned(), decision });
        }
        let (Some(product), Some(print)) = (desired.mesh.products.get(id), desired.prints.get(id)) else {
            return;
        };
        let generation = self.ledger.deployed.get(id).map_or(0, |deployed| deployed.generation) + 1;
        self.record(Fact::Deployed {
            generation,
            commit: commit.to_owned(),
            decision: decision.id.clone(),
            product: Box::new(product.clone()),
            print: print.clone(),
        });
    }
}

fn action(change: &Change) -> &'static str {
    if change.kind == ChangeKind::Retire { "retire" } else { "deploy" }
}

fn summary(finding: &Diagnostic) -> String {
    format!("{} {}:{}: {}", finding.code, finding.file, finding.line, finding.message)
}
