//! The poll: asks the repository, one look at a time, off the loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hydromesh_core::control::Event;
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::LedgerState;
use hydromesh_core::plan::PortPrint;
use hydromesh_core::trust::Line;
use tokio::sync::{mpsc, watch};
use tracing::{Span, info_span};

use super::ahead::Ahead;
use super::desired::OwnRules;
use super::hint::Hints;
use super::telling::reconcile;
use super::watch::{Looked, Watcher};
use crate::clock::Clock;
use crate::outage::Outage;
use crate::repo::{CommitInfo, RepoError};

/// How long a look may take before it is told of: longer than a silence may be, and than most repositories need.
const LONG: Duration = Duration::from_mins(2);

/// A poll's result: a new head with what it asks for.
pub(super) struct Seen {
    pub commit: CommitInfo,
    passed: Vec<CommitInfo>,
    looked: Looked,
    /// Begins when the head was seen, and lasts until the commit is concluded.
    pub span: Span,
}

/// Returns the events of a new head, and what the mesh itself says there of what is allowed.
pub(super) fn seen_events(
    Seen { commit, passed, looked: Looked { reading, verified, .. }, .. }: Seen,
    reference: &str,
    show_mesh: &watch::Sender<Option<Arc<hydromesh_core::plan::Desired>>>,
) -> (Vec<Event>, OwnRules) {
    let mut events = Vec::new();
    if !passed.is_empty() {
        let text = |commit: &CommitInfo| {
            (commit.id.as_str().to_owned(), commit.subject().to_owned(), commit.author.clone())
        };
        let commits = passed.iter().map(text).collect();
        events.push(Event::Superseded { commits, by: commit.id.as_str().to_owned() });
    }
    events.extend(verified.map(Event::Verified));
    let desired = if reading.readable {
        show_mesh.send_replace(Some(Arc::new(reading.desired.clone())));
        Ok(Box::new(reading.desired))
    } else {
        Err(reading.findings)
    };
    events.push(Event::Commit {
        commit: commit.id.as_str().to_owned(),
        r#ref: reference.to_owned(),
        message: commit.subject().to_owned(),
        author: commit.author.clone(),
        desired,
    });
    (events, OwnRules { policies: reading.policies, waivers: reading.waivers })
}

/// One look at the repository.
struct Look {
    watcher: Watcher,
    /// The head of the last look of this process.
    known: Option<String>,
    /// The last head of all.
    base: Option<String>,
    prints: BTreeMap<PortId, PortPrint>,
    line: Option<Line>,
    now_ms: i64,
}

impl Look {
    /// Looks for what may be deployed once it was healthy elsewhere, if there is an environment before this one.
    async fn after(mut self, ahead: Option<&mut Ahead>) -> Result<Option<Seen>, String> {
        if let Some(ahead) = ahead {
            let proven = ahead.proven().await.map_err(|error| crate::text::chain(&error))?;
            self.watcher = self.watcher.only(proven, self.base.clone());
        }
        match tokio::task::spawn_blocking(move || self.look()).await {
            Ok(seen) => seen.map_err(|error| crate::text::chain(&error)),
            Err(error) => Err(format!("reading it failed: {error}")),
        }
    }

    fn look(self) -> Result<Option<Seen>, RepoError> {
        let Self { watcher, known, base, prints, line, now_ms } = self;
        let Some(head) = watcher.poll(known.as_deref(), base.as_deref())? else {
            return Ok(None);
        };
        let span = reconcile(head.commit.id.as_str(), watcher.reference());
        let reading = info_span!(parent: &span, "read");
        let looked = reading.in_scope(|| watcher.look(&head.commit, &prints, line, now_ms))?;
        Ok(Some(Seen { commit: head.commit, passed: head.passed, looked, span }))
    }
}

/// Waits for something, and tells once when that takes longer than a time.
async fn telling<T>(awaited: impl Future<Output = T>, time: Duration, tell: impl FnOnce()) -> T {
    let mut awaited = std::pin::pin!(awaited);
    match tokio::time::timeout(time, &mut awaited).await {
        Ok(done) => done,
        Err(_) => {
            tell();
            awaited.await
        }
    }
}

/// The poll, one at a time, off the loop.
pub(super) struct Watching {
    heads: mpsc::Receiver<Seen>,
    deployed: watch::Sender<BTreeMap<PortId, PortPrint>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watching {
    pub(super) fn start(
        watcher: Watcher,
        mut ahead: Option<Ahead>,
        every: Duration,
        hints: Hints,
        ledger: &LedgerState,
        clock: Clock,
    ) -> Self {
        let last_seen = ledger.head.clone();
        // What is found here is known here first: the ledger's word for it would come too late for the next look.
        let mut line = ledger.line.as_deref().cloned();
        let deployed = ledger.port_prints();
        let mut known: Option<String> = None;
        let (send, heads) = mpsc::channel(1);
        let (deployed, prints) = watch::channel(deployed);
        let task = tokio::spawn(async move {
            let mut outage = Outage::default();
            loop {
                let base = known.clone().or_else(|| last_seen.clone());
                let look = Look {
                    watcher: watcher.clone(),
                    known: known.clone(),
                    base,
                    prints: prints.borrow().clone(),
                    line: line.clone(),
                    now_ms: clock.now_ms(),
                };
                let long = || {
                    tracing::warn!(
                        "a look at the repository goes on for {} s: new commits are not seen until it ends",
                        LONG.as_secs()
                    );
                };
                match telling(look.after(ahead.as_mut()), LONG, long).await {
                    Ok(Some(seen)) => {
                        line.clone_from(&seen.looked.line);
                        known = Some(seen.commit.id.as_str().to_owned());
                        outage.ends();
                        if send.send(seen).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => outage.ends(),
                    Err(text) => {
                        if outage.begins(&text) {
                            tracing::warn!("could not look at the repository: {text}");
                        }
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(every) => {}
                    () = hints.taken() => {}
                }
            }
        });
        Self { heads, deployed, task }
    }

    /// Tells the poll what is deployed. Called when that may have changed, not for every event.
    pub(super) fn know(&self, ledger: &LedgerState) {
        self.deployed.send_replace(ledger.port_prints());
    }

    /// Returns the next head with what it asks for.
    pub(super) async fn next(&mut self) -> Seen {
        match self.heads.recv().await {
            Some(seen) => seen,
            None => std::future::pending().await,
        }
    }

    pub(super) fn stop(&self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::{CommitId, NewCommit, RepoWriter};

    /// Far beyond what the test waits for, so that nothing but a hint wakes the poll.
    const NEVER: Duration = Duration::from_mins(10);
    /// Time in which nothing may happen.
    const QUIET: Duration = Duration::from_millis(600);

    fn push(repo: &RepoWriter, parent: Option<&CommitId>) -> CommitId {
        let text = b"apiVersion: hydromesh/v1\nkind: Mesh\nname: hinted\n".to_vec();
        let files = BTreeMap::from([("mesh.yaml".to_owned(), Some(text))]);
        let message = if parent.is_some() { "Go on" } else { "Begin" };
        let new = NewCommit {
            branch: "main",
            parent,
            message,
            author: "Mara",
            email: "mara@example.com",
            time_ms: 1_795_141_560_000,
        };
        repo.commit(new, &files).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn commits_that_came_while_no_controller_ran_are_passed_over_and_told() {
        let home = tempfile::tempdir().unwrap();
        let repo = RepoWriter::init_bare(&home.path().join("repo.git")).unwrap();
        let mut line = vec![push(&repo, None)];
        for _ in 0..3 {
            line.push(push(&repo, line.last()));
        }
        let watcher =
            Watcher::open(repo.path().to_str().unwrap(), &home.path().join("cache"), "refs/heads/main");
        let ledger = LedgerState { head: Some(line[0].as_str().to_owned()), ..LedgerState::default() };
        let hints = Hints::of(home.path());
        let mut watching = Watching::start(watcher.unwrap(), None, NEVER, hints, &ledger, Clock::system());
        let (events, _) = seen_events(watching.next().await, "refs/heads/main", &watch::channel(None).0);
        let [Event::Superseded { commits, by }, Event::Commit { commit, .. }] = &events[..] else {
            panic!("{events:?}")
        };
        let passed: Vec<&str> = commits.iter().map(|(id, ..)| id.as_str()).collect();
        assert_eq!(passed, [line[1].as_str(), line[2].as_str()]);
        assert_eq!((by.as_str(), commit.as_str()), (line[3].as_str(), line[3].as_str()));
        watching.stop();
    }

    #[tokio::test]
    async fn what_takes_long_is_told_once_and_still_awaited() {
        for (takes, time, told) in [(0, 60_000, 0), (200, 20, 1), (20, 60_000, 0)] {
            let mut tellings = 0;
            let awaited = async {
                tokio::time::sleep(Duration::from_millis(takes)).await;
                "done"
            };
            assert_eq!(telling(awaited, Duration::from_millis(time), || tellings += 1).await, "done");
            assert_eq!(tellings, told, "{takes} ms of {time}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hint_wakes_the_poll_once_however_often_it_is_given() {
        let home = tempfile::tempdir().unwrap();
        let repo = RepoWriter::init_bare(&home.path().join("repo.git")).unwrap();
        let first = push(&repo, None);
        let watcher =
            Watcher::open(repo.path().to_str().unwrap(), &home.path().join("cache"), "refs/heads/main");
        let hints = Hints::of(home.path());
        let (ledger, clock) = (LedgerState::default(), Clock::system());
        let mut watching = Watching::start(watcher.unwrap(), None, NEVER, hints.clone(), &ledger, clock);
        assert_eq!(watching.next().await.commit.id, first, "the first look needs no hint");

        let second = push(&repo, Some(&first));
        assert!(tokio::time::timeout(QUIET, watching.next()).await.is_err(), "nobody gave a hint");
        for _ in 0..1_000 {
            hints.give().unwrap();
        }
        let seen = tokio::time::timeout(Duration::from_secs(10), watching.next()).await;
        assert_eq!(seen.expect("the hint woke it").commit.id, second);

        // Those that came during that look were one more; the next push waits for a hint of its own.
        while home.path().join("look").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(QUIET).await;
        let third = push(&repo, Some(&second));
        assert!(tokio::time::timeout(QUIET, watching.next()).await.is_err(), "a hint was left over");
        hints.give().unwrap();
        let seen = tokio::time::timeout(Duration::from_secs(10), watching.next()).await;
        assert_eq!(seen.expect("the hint woke it").commit.id, third);
        watching.stop();
    }
}
