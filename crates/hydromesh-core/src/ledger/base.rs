//! By whose rules a change is judged: those of the last commit that was decided about before it, never its own.
//!
//! A product that rules deny stays with the rules that denied it, for as long as what it asks for stands: neither that commit nor
//! a later one can take the rule away under which it waits. Everybody else goes on with the next commit.

use serde::{Deserialize, Serialize};

use super::{Finding, LedgerState, Outcome};
use crate::ids::ProductId;

/// Where the rules are that judge a product which is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The commit.
    pub commit: String,
    /// A rule denied it. Rules that could not be asked do not stand in the way of those that repair them: the next commit is
    /// judged by them.
    pub denied: bool,
}

impl LedgerState {
    /// Returns the commit whose rules and waivers judge what a product asks for; none before anything was decided about.
    #[must_use]
    pub fn base_of(&self, product: &ProductId) -> Option<&str> {
        let denied = self.bases.get(product).map(|base| base.commit.as_str());
        denied.or(self.base.as_deref())
    }

    /// Takes in that the reference is at another commit.
    pub(super) fn base_moves(&mut self, commit: &str) {
        if self.head.as_deref() != Some(commit) {
            self.bases.retain(|_, base| base.denied);
        }
    }

    /// Takes in what became of a product.
    pub(super) fn base_of_outcome(&mut self, commit: &str, product: &ProductId, outcome: Outcome) {
        match outcome {
            Outcome::Applied => _ = self.bases.remove(product),
            Outcome::Denied => {
                let denied = ["deploy", "retire"].iter().any(|action| {
                    let decision = self.newest_decision(product, action);
                    let decision = decision.filter(|it| it.commit == commit && !it.allow);
                    decision.is_some_and(|it| it.violations.iter().any(Finding::judges))
                });
                let before = self.base.clone().unwrap_or_else(|| commit.to_owned());
                let base = Base { commit: before, denied };
                self.bases.entry(product.clone()).or_insert(base).denied |= denied;
            }
            // It was not asked about: whoever could not be waits on under the same rules.
            Outcome::Held | Outcome::Broken | Outcome::Superseded => {}
        }
    }

    /// Takes in that every product of a commit was decided about.
    pub(super) fn base_concluded(&mut self, commit: &str) {
        let verdicts = &self.verdicts;
        let asks = |product: &ProductId| verdicts.get(product).is_some_and(|it| it.commit == commit);
        self.bases.retain(|product, _| asks(product));
        // Rules that are not signed by who may are not those that stand in the commit.
        let unsigned =
            self.verified(commit).is_some_and(|it| it.refused.keys().any(|path| holds_rules(path)));
        if !unsigned {
            self.base = Some(commit.to_owned());
        }
    }
}

/// Returns whether a file of the mesh says what is allowed: rules and waivers.
#[must_use]
pub fn holds_rules(path: &str) -> bool {
    let mut parts = path.split('/');
    match parts.next() {
        Some("policies" | "waivers") => parts.next().is_some(),
        Some("domains") => parts.nth(1) == Some("policies") && parts.next().is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Decision, Entry, Fact};

    #[derive(Default)]
    struct Book(LedgerState);

    impl Book {
        fn fact(&mut self, fact: Fact) {
            let seq = self.0.seq + 1;
            self.0.apply(&Entry { seq, at_ms: 0, fact });
        }

        /// Plays a commit that asks for something of these products, each with its outcome or the rule that denies it.
        fn commit(&mut self, commit: &str, products: &[(&str, Result<Outcome, &str>)]) {
            let (text, nothing) = (commit.to_owned(), String::new());
            if self.0.head.as_deref() != Some(commit) {
                self.fact(Fact::CommitSeen {
                    commit: text.clone(),
                    r#ref: nothing.clone(),
                    message: nothing.clone(),
                    author: nothing.clone(),
                });
            }
            let mut worst = Outcome::Applied;
            for (name, became) in products {
                let product: ProductId = name.parse().unwrap();
                let outcome = became.unwrap_or(Outcome::Denied);
                if let Err(rule) = became {
                    let finding = Finding {
                        rule: (*rule).to_owned(),
                        message: nothing.clone(),
                        path: nothing.clone(),
                        remediation: nothing.clone(),
                        running: false,
                    };
                    self.fact(Fact::Decided(Decision {
                        id: nothing.clone(),
                        product: product.clone(),
                        action: "deploy".to_owned(),
                        commit: text.clone(),
                        fingerprint: nothing.clone(),
                        allow: false,
                        violations: vec![finding],
                        warnings: Vec::new(),
                        waived: Vec::new(),
                        policy_digest: nothing.clone(),
                        rules: nothing.clone(),
                        input_hash: nothing.clone(),
                    }));
                }
                worst = worst.max(outcome);
                self.outcome(commit, Some(product), outcome);
            }
            self.outcome(commit, None, worst);
        }

        fn outcome(&mut self, commit: &str, product: Option<ProductId>, outcome: Outcome) {
            self.fact(Fact::CommitOutcome {
                commit: commit.to_owned(),
                product,
                outcome,
                why: String::new(),
            });
        }

        fn base(&self, product: &str) -> &str {
            self.0.base_of(&product.parse().unwrap()).unwrap_or("none")
        }
    }

    const APPLIED: Result<Outcome, &str> = Ok(Outcome::Applied);

    #[test]
    fn a_denied_product_stays_with_the_rules_that_denied_it_and_nobody_else_does() {
        let mut book = Book::default();
        assert_eq!(book.base("a/a"), "none", "the first commit ever has its own");
        book.commit("c0", &[("a/a", APPLIED), ("a/b", APPLIED)]);
        assert_eq!(book.base("a/a"), "c0");
        // It takes the rule away that denies it, and later commits leave it away.
        book.commit("c1", &[("a/a", Err("frozen"))]);
        book.commit("c2", &[("a/a", Err("frozen")), ("a/b", APPLIED)]);
        book.commit("c3", &[("a/a", Ok(Outcome::Broken))]);
        assert_eq!((book.base("a/a"), book.base("a/b")), ("c0", "c3"));
        // Taken back, it asks for nothing any more.
        book.commit("c4", &[]);
        assert_eq!(book.base("a/a"), "c4");
        book.commit("c5", &[("a/a", APPLIED)]);
        assert_eq!(book.base("a/a"), "c5");
    }

    #[test]
    fn what_the_first_rules_deny_stays_with_them() {
        let mut book = Book::default();
        book.commit("c0", &[("a/a", Err("frozen"))]);
        book.commit("c1", &[("a/a", Err("frozen"))]);
        assert_eq!((book.base("a/a"), book.base("a/b")), ("c0", "c1"));
        book.commit("c1", &[("a/a", APPLIED)]);
        assert_eq!(book.base("a/a"), "c1", "judged again, and allowed");
    }

    #[test]
    fn rules_that_could_not_be_asked_give_way_to_those_that_repair_them_with_the_next_commit() {
        let mut book = Book::default();
        book.commit("broken", &[]);
        book.commit("change", &[("a/a", Err("policy-error"))]);
        assert_eq!(book.base("a/a"), "broken", "the same commit never judges itself");
        book.commit("repair", &[("a/a", Err("policy-unanswered"))]);
        assert_eq!(book.base("a/a"), "change");
        book.outcome("repair", None, Outcome::Denied);
        book.fact(Fact::CommitSeen {
            commit: "next".to_owned(),
            r#ref: String::new(),
            message: String::new(),
            author: String::new(),
        });
        assert_eq!(book.base("a/a"), "repair");
        // A rule that spoke is not silenced by another one that could not be asked.
        book.commit("next", &[("a/a", Err("frozen"))]);
        book.commit("later", &[("a/a", Err("policy-error"))]);
        book.commit("last", &[("a/a", Err("policy-error"))]);
        assert_eq!(book.base("a/a"), "repair");
    }

    #[test]
    fn what_is_refused_as_a_whole_is_no_base() {
        let mut book = Book::default();
        book.commit("c0", &[("a/a", APPLIED)]);
        book.outcome("c1", None, Outcome::Held);
        book.outcome("c2", None, Outcome::Broken);
        book.outcome("c3", None, Outcome::Superseded);
        assert_eq!(book.base("a/a"), "c0");
        assert!(
            ["policies/a.rego", "waivers/a.yaml", "domains/a/policies/b.rego"]
                .iter()
                .all(|it| holds_rules(it))
        );
        assert!(
            !["policies", "mesh.yaml", "domains/policies/a.yaml", "domains/a/b/policies"]
                .iter()
                .any(|it| holds_rules(it))
        );
    }
}
