//! What is not signed is held; what is, goes on.

use std::collections::BTreeMap;

use super::mesh::{desired, example, id};
use crate::control::{Control, Effect, Event, Limits, Question};
use crate::diag::{Diagnostic, Spot, codes};
use crate::ledger::{Decision, Fact, LedgerState, Outcome};
use crate::plan::Desired;
use crate::trust::{Before, Blame, Taint, Verified};

fn allowed(question: &Question) -> Event {
    Event::Decided(Decision {
        id: "d".to_owned(),
        product: question.product.clone(),
        action: question.action.clone(),
        commit: question.commit.clone(),
        fingerprint: question.fingerprint.clone(),
        allow: true,
        violations: Vec::new(),
        warnings: Vec::new(),
        waived: Vec::new(),
        policy_digest: String::new(),
        rules: String::new(),
        input_hash: String::new(),
    })
}

/// Tells control of a commit, answers every question with yes, and returns the facts.
fn tell(control: &mut Control, verified: Verified, desired: Desired) -> Vec<Fact> {
    let commit = desired.commit.clone();
    let (r#ref, message, author) = (String::new(), String::new(), String::new());
    let seen = Event::Commit { commit, r#ref, message, author, desired: Ok(Box::new(desired)) };
    let mut effects = control.step(1_000, [Event::Verified(verified), seen]);
    let mut facts = Vec::new();
    while !effects.is_empty() {
        let mut answers = Vec::new();
        for effect in effects {
            match effect {
                Effect::Append(entries) => facts.extend(entries.into_iter().map(|it| it.fact)),
                Effect::Decide(question) => answers.push(allowed(&question)),
                _ => {}
            }
        }
        if answers.is_empty() {
            break;
        }
        effects = control.step(1_000, answers);
    }
    facts
}

fn verified(commit: &str, refused: &[&str]) -> Verified {
    let blame = Blame { commit: "e".repeat(40), author: "Eve".to_owned(), why: "is not signed".to_owned() };
    let taint = Taint { was: Before::Absent, by: vec![blame] };
    Verified {
        commit: commit.to_owned(),
        signer: Some("mara@example.com".to_owned()),
        refused: refused.iter().map(|path| ((*path).to_owned(), taint.clone())).collect(),
        signers: BTreeMap::new(),
        moved: true,
    }
}

fn opened() -> Control {
    let mut control = Control::new(LedgerState::default(), "dev", Limits::default());
    let _ = control.open(0, 1, "test");
    control
}

#[test]
fn an_unsigned_product_is_held_and_the_others_go_on() {
    let mut control = opened();
    let mut asked = desired(&example(), "c1", &BTreeMap::new());
    let held = id("support/articles");
    asked.mesh.products.remove(&held);
    let path = "domains/support/articles/articles.sql";
    let why = Diagnostic::new(codes::SIGNATURE, path, Spot::FILE, "not signed");
    asked.broken.insert(held.clone(), vec![why]);
    let facts = tell(&mut control, verified("c1", &[path]), asked);
    let place = |kind: &str| facts.iter().position(|fact| fact.kind() == kind).expect(kind);
    assert!(place("verified") < place("commit_seen") && place("commit_seen") < place("deployed"));
    assert_eq!(control.ledger.outcome("c1"), Some(Outcome::Held));
    let verdict = &control.ledger.verdicts[&held];
    assert_eq!(verdict.outcome, Outcome::Held);
    assert!(verdict.why.starts_with("HM-R004 domains/support/articles/articles.sql:"), "{}", verdict.why);
    assert!(control.ledger.deployed.contains_key(&id("commerce/orders")));
    assert!(!control.ledger.deployed.contains_key(&held));
    // After a start the same is found again, which is no news.
    let line = control.ledger.line.clone().expect("moved");
    assert_eq!((line.at.as_str(), line.taints.len()), ("c1", 1));
    assert_eq!(control.step(2_000, [Event::Verified(verified("c1", &[path]))]), []);
}

#[test]
fn what_is_nobodys_product_is_told_of_the_commit() {
    let mut control = opened();
    let asked = desired(&example(), "c1", &BTreeMap::new());
    let facts = tell(&mut control, verified("c1", &["mesh.yaml"]), asked);
    let told = facts.iter().find_map(|fact| match fact {
        Fact::CommitOutcome { product: None, outcome, why, .. } => Some((*outcome, why.clone())),
        _ => None,
    });
    let (outcome, why) = told.expect("an outcome");
    assert_eq!(outcome, Outcome::Held);
    assert_eq!(why, "HM-R004 mesh.yaml: commit eeeeeeeeeeee by Eve changes it, and is not signed");
    assert!(control.ledger.deployed.contains_key(&id("commerce/orders")), "products go on");
    // What was found of another head says nothing about this one.
    let asked = desired(&example(), "c2", &BTreeMap::new());
    tell(&mut control, verified("c3", &["mesh.yaml"]), asked);
    assert_eq!(control.ledger.outcome("c2"), Some(Outcome::Applied));
}

#[test]
fn a_branch_that_lost_what_was_accepted_is_held() {
    let mut control = opened();
    let why = Diagnostic::new(codes::HISTORY, "mesh.yaml", Spot::FILE, "the branch no longer holds abc");
    let (commit, empty) = ("c1".to_owned(), String::new);
    let seen =
        Event::Commit { commit, r#ref: empty(), message: empty(), author: empty(), desired: Err(vec![why]) };
    let _ = control.step(1_000, [seen]);
    assert_eq!(control.ledger.outcome("c1"), Some(Outcome::Held));
}
