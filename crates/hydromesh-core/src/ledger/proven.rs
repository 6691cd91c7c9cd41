//! Commits that were healthy in an environment for a time: what the environment after it may deploy.

use super::{AlertState, LedgerState, Outcome, SeenCommit};
use crate::ids::ProductId;
use crate::time::Span;

/// Why a commit has not been healthy for long enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unproven {
    /// Not all of its products are decided about.
    Undecided,
    /// It was not applied, or not all of it.
    Refused(Outcome),
    /// It has to stay until then, or another commit came before, milliseconds UTC.
    Young(i64),
    /// This alert was open at its end.
    Alert(String),
    /// A step of this product failed and was not repaired.
    Failed(ProductId),
}

impl LedgerState {
    /// Returns the commits that were healthy here for a time, newest first.
    ///
    /// A commit's time begins when all of it is applied and ends with the next commit, or now. At its end no alert may be open:
    /// one that fired and was resolved meanwhile is forgiven. Of the newest commit no step may have failed either.
    pub fn proven(&self, wait: Span, now_ms: i64) -> impl Iterator<Item = &SeenCommit> {
        let newest_first = (0..self.commits.len()).rev();
        newest_first.filter(move |at| self.unproven(*at, wait, now_ms).is_none()).map(|at| &self.commits[at])
    }

    /// Returns the newest commit and why it was not healthy here for long enough; nothing when it was, or there is none.
    #[must_use]
    pub fn newest_unproven(&self, wait: Span, now_ms: i64) -> Option<(&SeenCommit, Unproven)> {
        let newest = self.commits.len().checked_sub(1)?;
        Some((&self.commits[newest], self.unproven(newest, wait, now_ms)?))
    }

    fn unproven(&self, at: usize, wait: Span, now_ms: i64) -> Option<Unproven> {
        let seen = &self.commits[at];
        match seen.outcome {
            None => return Some(Unproven::Undecided),
            Some(Outcome::Applied) => {}
            Some(other) => return Some(Unproven::Refused(other)),
        }
        // What was passed over was never deployed.
        let next = self.commits.iter().skip(at + 1).find(|it| it.outcome != Some(Outcome::Superseded));
        let until_ms = next.map_or(now_ms, |next| next.at_ms.min(now_ms));
        let due_ms = seen.concluded_ms.saturating_add(wait.millis());
        if until_ms < due_ms {
            return Some(Unproven::Young(due_ms));
        }
        if let Some(alert) = self.open_at(until_ms) {
            return Some(Unproven::Alert(alert.to_owned()));
        }
        // Of what failed the ledger knows what was not repaired until now, not when it began.
        let failed = self.failed.keys().next().filter(|_| next.is_none())?;
        Some(Unproven::Failed(failed.pipeline.product.clone()))
    }

    /// Returns an alert that was open at a time.
    fn open_at(&self, at_ms: i64) -> Option<&str> {
        self.episodes.iter().find_map(|(id, episode)| {
            let mut before = episode.transitions.iter().rev();
            let (_, alert) = before.find(|(since_ms, _)| *since_ms <= at_ms)?;
            (alert.state != AlertState::Resolved).then_some(id.as_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Alert, AlertKind, Entry, Fact};

    const MINUTE: i64 = 60_000;

    /// A ledger that is told facts at minutes.
    #[derive(Default)]
    struct Told(LedgerState);

    impl Told {
        fn at(&mut self, minute: i64, fact: Fact) {
            self.0.apply(&Entry { seq: self.0.seq + 1, at_ms: minute * MINUTE, fact });
        }

        fn seen(&mut self, minute: i64, commit: &str) {
            let commit = commit.to_owned();
            let (r#ref, message, author) = Default::default();
            self.at(minute, Fact::CommitSeen { commit, r#ref, message, author });
        }

        fn ends(&mut self, minute: i64, commit: &str, outcome: Outcome) {
            let (commit, why) = (commit.to_owned(), String::new());
            self.at(minute, Fact::CommitOutcome { commit, product: None, outcome, why });
        }

        fn alert(&mut self, minute: i64, transition: u32, state: AlertState) {
            let product = "shop/items".parse().expect("an id");
            let (summary, details, targets) = Default::default();
            let (episode, subject) = ("ep-1".to_owned(), "items".to_owned());
            let alert = Alert {
                episode,
                transition,
                product,
                kind: AlertKind::Freshness,
                subject,
                state,
                summary,
                details,
                caused_by: None,
                targets,
            };
            self.at(minute, Fact::Alert(alert));
        }

        fn proven(&self, minute: i64) -> Vec<&str> {
            let wait = Span::from_millis(30 * MINUTE);
            self.0.proven(wait, minute * MINUTE).map(|it| it.commit.as_str()).collect()
        }

        fn newest(&self, minute: i64) -> Option<Unproven> {
            let wait = Span::from_millis(30 * MINUTE);
            self.0.newest_unproven(wait, minute * MINUTE).map(|(_, why)| why)
        }
    }

    #[test]
    fn a_commit_is_proven_by_its_time_which_another_one_ends() {
        let mut told = Told::default();
        assert_eq!((told.proven(0), told.newest(0)), (vec![], None));
        told.seen(0, "a");
        assert_eq!(told.newest(60), Some(Unproven::Undecided));
        told.ends(2, "a", Outcome::Applied);
        assert_eq!(told.newest(31), Some(Unproven::Young(32 * MINUTE)));
        assert_eq!((told.proven(31), told.proven(32)), (vec![], vec!["a"]));
        // Judged again with the same end, its time goes on.
        told.ends(31, "a", Outcome::Applied);
        assert_eq!(told.proven(32), ["a"]);
        // One that is passed over was never there; one that is there ends the time of those before.
        told.seen(40, "b");
        told.ends(40, "b", Outcome::Superseded);
        told.seen(40, "c");
        told.ends(41, "c", Outcome::Applied);
        told.seen(50, "d");
        told.ends(50, "d", Outcome::Held);
        assert_eq!(told.newest(500), Some(Unproven::Refused(Outcome::Held)));
        assert_eq!(told.proven(500), ["a"], "c had ten minutes");
        told.seen(51, "e");
        told.ends(51, "e", Outcome::Applied);
        assert_eq!(told.proven(81), ["e", "a"]);
    }

    #[test]
    fn an_alert_that_is_open_at_its_end_keeps_a_commit_back() {
        let mut told = Told::default();
        told.seen(0, "a");
        told.ends(0, "a", Outcome::Applied);
        told.alert(10, 1, AlertState::Firing);
        assert_eq!(told.newest(40), Some(Unproven::Alert("ep-1".to_owned())));
        // A newer commit mends it: the one before stays what it was.
        told.seen(50, "b");
        told.ends(50, "b", Outcome::Applied);
        told.alert(55, 2, AlertState::Resolved);
        assert_eq!(told.proven(90), ["b"]);
        // Resolved within its time, it is forgiven.
        let mut told = Told::default();
        told.seen(0, "a");
        told.ends(0, "a", Outcome::Applied);
        told.alert(10, 1, AlertState::Firing);
        told.alert(35, 2, AlertState::Resolved);
        assert_eq!((told.proven(34), told.proven(35)), (vec![], vec!["a"]));
    }
}
