//! By which rules a question is judged: those at the base of its product, read out of the mirror.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::control::Question;
use hydromesh_core::ledger::{Decision, Finding, LedgerState};
use sha2::{Digest as _, Sha256};

use super::desired::OwnRules;
use super::judge::Judge;
use super::watch::Watcher;
use crate::policy::PolicySet;
use crate::repo::RepoError;

/// The rules of a mesh that are in force, commit by commit.
pub(super) struct Judges {
    central: PolicySet,
    watcher: Watcher,
    /// Of the head: they judge as long as nothing was decided about before.
    own: Judge,
    /// By commit, as far as they are in force.
    known: BTreeMap<String, Judge>,
    /// Where a preview is to be merged: its rules judge.
    parent: Option<LedgerState>,
}

impl Judges {
    /// Judges by central rules, and by those of a mesh whose commits are mirrored.
    pub fn new(central: PolicySet, watcher: Watcher, parent: Option<LedgerState>) -> Self {
        let own = Judge::new(&central, &[]);
        Self { central, watcher, own, known: BTreeMap::new(), parent }
    }

    /// Notes the mesh's own rules and waivers at the head.
    pub fn note(&mut self, own: OwnRules) {
        self.own = Judge::of(&self.central, own);
    }

    /// Returns who judges a question, or the denial of what nobody can judge.
    pub fn of(&mut self, question: &Question, ledger: &LedgerState) -> Result<Judge, Box<Decision>> {
        let ledger = self.parent.as_ref().unwrap_or(ledger);
        let Some(base) = ledger.base_of(&question.product) else { return Ok(self.own.clone()) };
        if let Some(judge) = self.known.get(base) {
            return Ok(judge.clone());
        }
        match self.watcher.own_rules(base) {
            Ok(own) => {
                let in_force: BTreeSet<&str> = ledger
                    .bases
                    .values()
                    .map(|it| it.commit.as_str())
                    .chain(ledger.base.as_deref())
                    .collect();
                self.known.retain(|commit, _| in_force.contains(commit.as_str()));
                let judge = Judge::of(&self.central, own);
                self.known.insert(base.to_owned(), judge.clone());
                Ok(judge)
            }
            // Its history was written anew, and the mirror is not the one that held it: nobody has these rules any more.
            Err(RepoError::NoSuchCommit(_)) => {
                tracing::warn!(
                    commit = base,
                    "the rules of the last decided commit are gone; the mesh's own at the head judge"
                );
                self.known.insert(base.to_owned(), self.own.clone());
                Ok(self.own.clone())
            }
            Err(error) => Err(Box::new(unread(question, base, &error))),
        }
    }
}

/// Returns the denial of what would be judged by rules that cannot be read.
fn unread(question: &Question, base: &str, error: &RepoError) -> Decision {
    let why = crate::text::chain(error);
    let finding = Finding {
        rule: "policy-unanswered".to_owned(),
        message: format!("HM-P003: the policies gave no answer: the rules at {base} cannot be read ({why})"),
        path: String::new(),
        remediation: "Nothing: the repository is asked again, and the question with it.".to_owned(),
    };
    let id = Sha256::digest(format!(
        "unread\n{}\n{}\n{}",
        question.action, question.product, question.fingerprint
    ));
    Decision {
        id: hex::encode(id).chars().take(16).collect(),
        product: question.product.clone(),
        action: question.action.clone(),
        commit: question.commit.clone(),
        fingerprint: question.fingerprint.clone(),
        allow: false,
        violations: vec![finding],
        warnings: Vec::new(),
        waived: Vec::new(),
        policy_digest: String::new(),
        input_hash: String::new(),
    }
}
