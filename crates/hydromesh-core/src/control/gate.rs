//! Questions to the gate, and what its answers set in motion.

use super::standing::STAND;
use super::{Control, Effect, Question};
use crate::ids::ProductId;
use crate::ledger::{Decision, Fact};

/// How long an answer may take before the question is put again: it may have died with whoever was asked.
const PATIENCE_MS: i64 = 60_000;

/// A question that the gate has not answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub question: Question,
    asked_ms: i64,
}

impl Control {
    /// Puts a question; one about the same product and action takes the place of an older one.
    pub(super) fn ask(&mut self, action: &'static str, question: Question) {
        let about = (question.product.clone(), action);
        self.ask_again_ms = self.ask_again_ms.min(self.now_ms.saturating_add(PATIENCE_MS));
        self.questions.insert(about, Asked { question: question.clone(), asked_ms: self.now_ms });
        self.effects.push(Effect::Decide(question));
    }

    /// Returns whether an answer about a product is awaited.
    pub(super) fn is_asked(&self, product: &ProductId, action: &'static str) -> bool {
        self.questions.contains_key(&(product.clone(), action))
    }

    /// Puts questions again that were not answered in time.
    pub(super) fn ask_again(&mut self) {
        let now_ms = self.now_ms;
        if now_ms < self.ask_again_ms {
            return;
        }
        let late: Vec<Question> = self
            .questions
            .values_mut()
            .filter(|asked| asked.asked_ms.saturating_add(PATIENCE_MS) <= now_ms)
            .map(|asked| {
                asked.asked_ms = now_ms;
                asked.question.clone()
            })
            .collect();
        let again = |asked: &Asked| asked.asked_ms.saturating_add(PATIENCE_MS);
        self.ask_again_ms = self.questions.values().map(again).min().unwrap_or(i64::MAX);
        for question in late {
            self.effects.push(Effect::Decide(question));
        }
    }

    /// Takes an answer in, if it is one: late answers and those to nobody's question change nothing.
    pub(super) fn decided(&mut self, decision: Decision) {
        let about_it = self.questions.range((decision.product.clone(), "")..);
        let mut about_it = about_it.take_while(|((product, _), _)| *product == decision.product);
        let found = about_it.find(|((_, action), asked)| {
            *action == decision.action
                && asked.question.commit == decision.commit
                && asked.question.fingerprint == decision.fingerprint
        });
        let Some((about, _)) = found else { return };
        let about = about.clone();
        let Some(asked) = self.questions.remove(&about) else { return };
        if about.1 == STAND {
            return self.standing_decided(decision);
        }
        let decision = self.note_decision(decision);
        match about.1 {
            "backfill" => self.command_decided(&asked.question, &decision),
            "promote" => self.promotion_decided(&asked.question, &decision),
            "drop" => self.ending_decided(&decision),
            _ => self.change_decided(decision),
        }
    }

    /// Records a decision and returns it, or the one in the ledger that says the same about the same.
    fn note_decision(&mut self, decision: Decision) -> Decision {
        let known = self.ledger.newest_decision(&decision.product, &decision.action).filter(|known| {
            // A product that stays denied is asked about again and again; that is one decision, not hundreds.
            matches!(decision.action.as_str(), "deploy" | "retire" | "drop")
                && known.commit == decision.commit
                && known.fingerprint == decision.fingerprint
                && known.policy_digest == decision.policy_digest
                && known.rules == decision.rules
                && known.allow == decision.allow
                && known.violations == decision.violations
                && known.waived == decision.waived
        });
        if let Some(known) = known {
            return known.clone();
        }
        self.record(Fact::Decided(decision.clone()));
        decision
    }
}

/// Says why a decision denies, for people.
pub(super) fn denial(decision: &Decision) -> String {
    let rules: Vec<&str> = decision.violations.iter().map(|it| it.rule.as_str()).collect();
    match decision.violations.first() {
        Some(first) => format!("denied by {}: {}", rules.join(", "), first.message),
        None => "denied without a reason".to_owned(),
    }
}
