//! The outbox: at least once on the wire, in order for every reader of an episode.

use sha2::{Digest, Sha256};

use super::{Control, Effect};
use crate::ledger::Fact;
use crate::planted::{self, Bug};

/// After a refusal: long enough for a mail server to come back, short enough for a page.
const AFTER_REFUSAL_MS: i64 = 60_000;
/// Without an answer: longer than any attempt takes, for it may have died with whoever tried.
const WITHOUT_ANSWER_MS: i64 = 10 * 60_000;

/// Returns the id of a message: the same transition to the same place has the same id for ever.
#[must_use]
pub fn outbox_id(episode: &str, transition: u32, to: &str) -> String {
    let digest = Sha256::digest(format!("{episode}\n{transition}\n{to}"));
    format!("{digest:.20x}")
}

/// A message handed to the shell and not yet answered.
#[derive(Debug)]
pub(super) struct Handed {
    outbox: String,
    transition: u32,
    /// When to hand it over again.
    again_ms: i64,
    /// It was not accepted.
    pub refused: bool,
}

impl Control {
    /// Hands over the next message to every place that misses one.
    ///
    /// A resolved waits until its firing was accepted: for each place, a resolved goes out if and only if its firing did.
    pub(super) fn deliver(&mut self) {
        let mut effects = Vec::new();
        for (place, unsent) in &self.ledger.outbox {
            let first = if planted::is(Bug::ResolvedFirst) { unsent.back() } else { unsent.front() };
            let Some(transition) = first else { continue };
            let handed = self.delivering.get(place).filter(|handed| handed.transition == *transition);
            if handed.is_some_and(|handed| handed.again_ms > self.now_ms) {
                continue;
            }
            let Some(record) = self.ledger.episodes.get(&place.0) else { continue };
            let found = record.transitions.iter().find(|(_, alert)| alert.transition == *transition);
            let Some((_, alert)) = found else { continue };
            effects.push((place.clone(), alert.clone()));
        }
        for (place, alert) in effects {
            let outbox = outbox_id(&place.0, alert.transition, &place.1);
            let again_ms = self.now_ms + WITHOUT_ANSWER_MS;
            let to = place.1.clone();
            let transition = alert.transition;
            let handed = Handed { outbox: outbox.clone(), transition, again_ms, refused: false };
            self.delivering.insert(place, handed);
            self.effects.push(Effect::Deliver { outbox, to, alert });
        }
    }

    pub(super) fn sent(
        &mut self,
        outbox: String,
        episode: String,
        transition: u32,
        to: String,
        receipt: String,
    ) {
        if !self.ledger.sent.contains_key(&outbox) {
            self.delivering.remove(&(episode.clone(), to.clone()));
            self.record(Fact::Sent { outbox, episode, transition, to, receipt });
        }
    }

    pub(super) fn not_sent(&mut self, outbox: &str) {
        if let Some(handed) = self.delivering.values_mut().find(|handed| handed.outbox == outbox) {
            let lost = planted::is(Bug::RefusedIsLost);
            handed.refused = true;
            handed.again_ms = if lost { i64::MAX } else { self.now_ms + AFTER_REFUSAL_MS };
        }
    }
}
