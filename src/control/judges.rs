//! By which rules a question is judged: those at the base of its product, read out of the mirror.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hydromesh_core::control::Question;
use hydromesh_core::ids::ProductId;
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
    parent: Option<Arc<LedgerState>>,
    /// What control knows of the rules in force.
    told: Option<Told>,
}

/// When rules were told: until one of these is another.
struct Told {
    base: Option<String>,
    deploys: u64,
    /// The end of a waiver, milliseconds UTC.
    until_ms: i64,
}

impl Judges {
    /// Judges by central rules, and by those of a mesh whose commits are mirrored.
    pub fn new(central: PolicySet, watcher: Watcher, parent: Option<LedgerState>) -> Self {
        let own = Judge::new(&central, &[]);
        Self { central, watcher, own, known: BTreeMap::new(), parent: parent.map(Arc::new), told: None }
    }

    /// Notes the mesh's own rules and waivers at the head.
    pub fn note(&mut self, own: OwnRules) {
        self.own = Judge::of(&self.central, own);
    }

    /// Returns who judges a question, or the denial of what nobody can judge.
    pub fn of(&mut self, question: &Question, ledger: &LedgerState) -> Result<Judge, Box<Decision>> {
        let parent = self.parent.clone();
        let ledger = parent.as_deref().unwrap_or(ledger);
        // A product that waits denied keeps the rules that denied it; what is deployed of it is everybody's.
        let stands = question.action == "stand";
        let base = if stands { ledger.base.as_deref() } else { ledger.base_of(&question.product) };
        self.at(base, ledger).map_err(|error| Box::new(unread(question, base.unwrap_or_default(), &error)))
    }

    /// Returns what the rules in force are for each deployed product, when they may be others than the last time.
    ///
    /// # Errors
    /// When the rules at the base cannot be read now.
    pub fn in_force(
        &mut self,
        ledger: &LedgerState,
        deploys: u64,
        now_ms: i64,
    ) -> Result<Option<BTreeMap<ProductId, String>>, RepoError> {
        if self.is_told(ledger, deploys, now_ms) {
            return Ok(None);
        }
        let judge = self.at(ledger.base.as_deref(), ledger)?;
        self.told = Some(Told {
            base: ledger.base.clone(),
            deploys,
            until_ms: judge.until_ms(now_ms).unwrap_or(i64::MAX),
        });
        let rules = |id: &ProductId| (id.clone(), judge.rules_for(id, now_ms));
        Ok(Some(ledger.deployed.keys().map(rules).collect()))
    }

    /// Returns whether nothing has happened since rules were told that could make them others.
    pub fn is_told(&self, ledger: &LedgerState, deploys: u64, now_ms: i64) -> bool {
        let same =
            |told: &Told| told.base == ledger.base && told.deploys == deploys && now_ms < told.until_ms;
        // Before anything was decided about, and in a preview, nothing is judged again.
        ledger.base.is_none() || self.parent.is_some() || self.told.as_ref().is_some_and(same)
    }

    /// Returns who judges by the rules of a commit.
    fn at(&mut self, base: Option<&str>, ledger: &LedgerState) -> Result<Judge, RepoError> {
        let Some(base) = base else { return Ok(self.own.clone()) };
        if let Some(judge) = self.known.get(base) {
            return Ok(judge.clone());
        }
        let judge = match self.watcher.own_rules(base) {
            Ok(own) => Judge::of(&self.central, own),
            // Its history was written anew, and the mirror is not the one that held it: nobody has these rules any more.
            Err(RepoError::NoSuchCommit(_)) => {
                tracing::warn!(
                    commit = base,
                    "the rules of the last decided commit are gone; the mesh's own at the head judge"
                );
                self.own.clone()
            }
            Err(error) => return Err(error),
        };
        let in_force: BTreeSet<&str> =
            ledger.bases.values().map(|it| it.commit.as_str()).chain(ledger.base.as_deref()).collect();
        self.known.retain(|commit, _| in_force.contains(commit.as_str()));
        self.known.insert(base.to_owned(), judge.clone());
        Ok(judge)
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
        running: false,
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
        rules: String::new(),
        input_hash: String::new(),
    }
}
