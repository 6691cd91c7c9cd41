//! Tells the forge what became of each commit, from the facts, in a task of its own.
//!
//! A file holds the last fact that was dealt with. It moves only when the forge has answered for good, so a crash repeats
//! a status and forgets none. Nothing waits for this task, and what is told here is no fact.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hydromesh_core::ledger::{Fact, LedgerState, Outcome};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::forge::{Forge, PostError};
use crate::outage::Outage;
use crate::store::{Record, Store};
use crate::text::chain;

/// Records read at once.
const PAGE: u32 = 1_000;
/// The first pause after a failure; each one is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, also when a forge asks for more.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// Attempts for one status: pauses of 1, 2, 4 ... 256 s, then six of 5 min, are 38 min 31 s together.
const ATTEMPTS: u32 = 16;

/// Posts the outcome of every commit that is decided about from now on, or was since the last start, until cancelled.
pub(super) async fn keep_told(
    forge: Forge,
    store: Store,
    state: PathBuf,
    mut ledger: watch::Receiver<Arc<LedgerState>>,
    shutdown: CancellationToken,
) {
    let newest = ledger.borrow_and_update().seq;
    let mut told = Told::open(&state, newest);
    let telling = async {
        loop {
            tell(&forge, &store, &mut told).await;
            if ledger.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = telling => {}
    }
}

/// Deals with every fact that is new.
async fn tell(forge: &Forge, store: &Store, told: &mut Told) {
    loop {
        let records = match store.read(told.seq + 1, PAGE).await {
            Ok(records) => records,
            Err(error) => return tracing::warn!("commit statuses wait: {}", chain(&error)),
        };
        if records.is_empty() {
            return;
        }
        for record in records {
            if let Some((commit, outcome, why)) = outcome(&record) {
                post(forge, &commit, outcome, &why, told).await;
                told.keep(record.seq);
            }
            told.seq = record.seq;
        }
    }
}

/// Returns the outcome of a commit as a whole, if a record is one.
fn outcome(record: &Record) -> Option<(String, Outcome, String)> {
    if record.kind != "commit_outcome" {
        return None;
    }
    match serde_json::from_str(&record.body) {
        Ok(Fact::CommitOutcome { commit, product: None, outcome, why }) => Some((commit, outcome, why)),
        _ => None,
    }
}

/// Posts one status, as often as it takes and as makes sense.
async fn post(forge: &Forge, commit: &str, outcome: Outcome, why: &str, told: &mut Told) {
    for attempt in 1.. {
        let (error, pause) = match forge.post(commit, outcome, why).await {
            Ok(()) => return told.outage.ends(),
            Err(PostError::Later { why, after }) => (why, pause(attempt, after)),
            Err(PostError::Refused(why)) => (why, None),
        };
        if told.outage.begins(&error) {
            tracing::warn!("the status of commit {commit} was not accepted: {error}");
        }
        match pause {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return tracing::info!("gave up posting the status of commit {commit}"),
        }
    }
}

/// Returns how long to wait after a failed attempt, or nothing when it was the last.
fn pause(attempt: u32, asked: Option<Duration>) -> Option<Duration> {
    let doubled = FIRST_PAUSE * 2_u32.saturating_pow(attempt - 1);
    (attempt < ATTEMPTS).then(|| doubled.max(asked.unwrap_or_default()).min(LONGEST_PAUSE))
}

/// How far the forge was told.
struct Told {
    file: PathBuf,
    /// The last fact that was dealt with.
    seq: u64,
    outage: Outage,
}

impl Told {
    /// Goes on where the file says. Without one it begins after the newest fact: what became of old commits is no news.
    fn open(state: &Path, newest: u64) -> Self {
        let file = state.join("commit-statuses");
        let kept = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u64>().ok());
        // A ledger that was put back to an older one counts from there again.
        let seq = kept.map_or(newest, |kept| kept.min(newest));
        let told = Self { file, seq, outage: Outage::default() };
        told.keep(seq);
        told
    }

    fn keep(&self, seq: u64) {
        if let Err(error) = crate::disk::replace(&self.file, format!("{seq}\n").as_bytes()) {
            // The worst that follows is a repeated status.
            tracing::warn!("cannot write {}: {error}", self.file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::tests::{Answer, Fake};
    use crate::store::{Lease, OpenMode};

    /// A ledger that is written to while its forge is told.
    struct Scene {
        home: tempfile::TempDir,
        store: Store,
        lease: Lease,
        show: watch::Sender<Arc<LedgerState>>,
        fake: Arc<Fake>,
        running: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
    }

    impl Scene {
        async fn new(answers: &[Answer]) -> Self {
            let home = tempfile::tempdir().unwrap();
            let store = Store::open(&home.path().join("ledger.db"), OpenMode::ReadWrite).await.unwrap();
            let lease = store.lease("test", 0, 60_000).await.unwrap();
            let (show, _) = watch::channel(Arc::default());
            Self { home, store, lease, show, fake: Fake::start(answers).await, running: None }
        }

        /// Appends outcomes of commits, as a controller does before it shows them.
        async fn record(&self, outcomes: &[(&str, Outcome)]) {
            let product = |product| Fact::CommitOutcome {
                commit: "of-a-product".into(),
                product,
                outcome: Outcome::Denied,
                why: String::new(),
            };
            let mut facts = vec![product(Some("commerce/orders".parse().unwrap()))];
            facts.extend(outcomes.iter().map(|(commit, outcome)| Fact::CommitOutcome {
                commit: (*commit).into(),
                product: None,
                outcome: *outcome,
                why: "because".into(),
            }));
            let records: Vec<(String, String)> = facts
                .iter()
                .map(|fact| (fact.kind().to_owned(), serde_json::to_string(fact).unwrap()))
                .collect();
            let seq = self.store.append(self.lease.epoch, 0, &records).await.unwrap();
            self.show.send_replace(Arc::new(LedgerState { seq, ..LedgerState::default() }));
        }

        fn start(&mut self) {
            let shutdown = CancellationToken::new();
            let (forge, store, state) = (self.fake.github(), self.store.clone(), self.home.path().to_owned());
            let task = tokio::spawn(keep_told(forge, store, state, self.show.subscribe(), shutdown.clone()));
            self.running = Some((shutdown, task));
        }

        async fn stop(&mut self) {
            let (shutdown, task) = self.running.take().unwrap();
            shutdown.cancel();
            tokio::time::timeout(Duration::from_secs(5), task).await.expect("it ends").unwrap();
        }

        /// Returns commit and state of every status that was posted.
        fn posted(&self) -> Vec<String> {
            let asked = self.fake.asked().into_iter();
            asked
                .map(|(path, _, body)| {
                    format!("{} {}", path.rsplit('/').next().unwrap(), body["state"].as_str().unwrap())
                })
                .collect()
        }

        /// Waits until exactly these were posted, and a moment for one too many.
        #[track_caller]
        fn wait_for(&self, wanted: &[&str]) -> impl Future<Output = ()> {
            let caller = std::panic::Location::caller();
            async move {
                for _ in 0..400 {
                    if self.posted().len() >= wanted.len() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(25)).await;
                }
                tokio::time::sleep(Duration::from_millis(150)).await;
                assert_eq!(self.posted(), wanted, "{caller}");
            }
        }
    }

    #[tokio::test]
    async fn every_commit_is_told_once_and_across_a_restart() {
        let mut scene = Scene::new(&[]).await;
        scene.record(&[("aaa", Outcome::Applied)]).await;
        scene.start();
        scene.wait_for(&[]).await;
        scene.record(&[("bbb", Outcome::Denied), ("ccc", Outcome::Superseded), ("ddd", Outcome::Held)]).await;
        scene.wait_for(&["bbb failure", "ddd pending"]).await;
        scene.stop().await;
        // What is decided while nobody tells is told by the next start, and nothing again.
        scene.record(&[("ddd", Outcome::Applied)]).await;
        scene.start();
        scene.wait_for(&["bbb failure", "ddd pending", "ddd success"]).await;
        scene.stop().await;
    }

    #[tokio::test]
    async fn a_forge_in_trouble_is_asked_again_in_order() {
        let mut scene = Scene::new(&[(500, vec![], "")]).await;
        scene.start();
        scene.wait_for(&[]).await;
        scene.record(&[("aaa", Outcome::Applied), ("bbb", Outcome::Broken)]).await;
        scene.wait_for(&["aaa success", "aaa success", "bbb failure"]).await;
        scene.stop().await;
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_holds_up_no_other() {
        let redirect = (301, vec![("location", "BASE/elsewhere")], "");
        let mut scene = Scene::new(&[(401, vec![], ""), redirect]).await;
        scene.start();
        scene.wait_for(&[]).await;
        let all = [("aaa", Outcome::Applied), ("bbb", Outcome::Broken), ("ccc", Outcome::Applied)];
        scene.record(&all).await;
        scene.wait_for(&["aaa success", "bbb failure", "ccc success"]).await;
        scene.stop().await;
    }

    #[tokio::test]
    async fn what_was_not_accepted_is_told_after_a_restart() {
        let mut scene = Scene::new(&[(503, vec![("retry-after", "3600")], "")]).await;
        scene.start();
        scene.wait_for(&[]).await;
        scene.record(&[("aaa", Outcome::Applied)]).await;
        scene.wait_for(&["aaa success"]).await;
        scene.stop().await;
        scene.start();
        scene.wait_for(&["aaa success", "aaa success"]).await;
        scene.stop().await;
    }

    #[tokio::test]
    async fn a_ledger_that_was_put_back_goes_on_from_where_it_is() {
        let home = tempfile::tempdir().unwrap();
        Told::open(home.path(), 90).keep(90);
        assert_eq!(Told::open(home.path(), 100).seq, 90);
        assert_eq!(Told::open(home.path(), 7).seq, 7);
        assert_eq!(Told::open(home.path(), 100).seq, 7, "and remembers that");
    }

    #[test]
    fn attempts_get_rarer_and_end() {
        let seconds = |attempt, asked: Option<u64>| {
            pause(attempt, asked.map(Duration::from_secs)).map(|pause| pause.as_secs())
        };
        assert_eq!([1, 2, 3, 9, 10, 15].map(|it| seconds(it, None).unwrap()), [1, 2, 4, 256, 300, 300]);
        assert_eq!((seconds(1, Some(60)), seconds(1, Some(86_400))), (Some(60), Some(300)));
        assert_eq!((seconds(16, None), seconds(16, Some(60))), (None, None));
        let all: u64 = (1..16).map(|it| seconds(it, None).unwrap()).sum();
        assert_eq!(all, 38 * 60 + 31);
    }
}
