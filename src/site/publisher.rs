//! Keeps the site current while the controller runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hydromesh_core::ledger::LedgerState;
use hydromesh_core::plan::Desired;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::from_ledger::{KnownRule, View, model};
use super::publish::{Published, publish};
use super::{SiteError, build};
use crate::clock::Clock;
use crate::control::Upward;

/// Ages on the pages move at least this often, milliseconds of the injected clock.
const BREATH_MS: i64 = 60_000;
/// Never build more often than this, however fast the injected clock runs.
pub const LEAST_PAUSE: Duration = Duration::from_secs(2);

/// What the site shows beyond ledger and commit.
#[derive(Debug, Clone, Default)]
pub struct ViewInputs {
    /// Address of the repository, for links.
    pub repository: Option<String>,
    /// Address that the site is served at.
    pub base_url: Option<String>,
    /// Address of the HTTP API.
    pub api_base: Option<String>,
    /// Rules of the gate, see [`super::from_ledger::known_rules`].
    pub policies: Vec<KnownRule>,
}

/// Builds the site into `out` whenever ledger or commit changed, at most once in `every_real`, and at least once a
/// minute of the injected clock, until `shutdown`; then once more, so that what is on disk is the last word.
///
/// Building and writing happen on a blocking thread. A failed build leaves the last generation in place and is logged
/// once per outage.
pub async fn keep_current(
    upward: Upward,
    out: PathBuf,
    inputs: ViewInputs,
    every_real: Duration,
    shutdown: CancellationToken,
) {
    let Upward { ledger, mesh, context, .. } = upward;
    let source = Source {
        ledger,
        mesh,
        environment: context.environment.clone(),
        clock: context.clock.clone(),
        lake: context.lake.root().display().to_string(),
    };
    source.keep_current(&out, &inputs, every_real, &shutdown).await;
}

/// What the site is made from while it changes.
struct Source {
    ledger: watch::Receiver<Arc<LedgerState>>,
    mesh: watch::Receiver<Option<Arc<Desired>>>,
    environment: String,
    clock: Clock,
    lake: String,
}

impl Source {
    async fn keep_current(
        mut self,
        out: &Path,
        inputs: &ViewInputs,
        every_real: Duration,
        shutdown: &CancellationToken,
    ) {
        let pause = every_real.max(Duration::from_millis(1));
        let breath = self.clock.real(BREATH_MS).max(pause);
        let mut complained = String::new();
        loop {
            // Asked before the build: what comes during the last one is in it or is never said.
            let last = shutdown.is_cancelled();
            let problem = self.publish(out, inputs).await.err().unwrap_or_default();
            if !problem.is_empty() && problem != complained {
                tracing::error!("the site keeps its last generation, the new one failed: {problem}");
            }
            complained = problem;
            if last {
                return;
            }
            // Changes that come while a generation is written are seen by the next turn, all at once.
            tokio::select! {
                () = shutdown.cancelled() => continue,
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(breath.saturating_sub(pause)) => {}
                () = changed(&mut self.ledger) => {}
                () = changed(&mut self.mesh) => {}
            }
        }
    }

    /// Builds and publishes what is newest; answers with what went wrong.
    async fn publish(&mut self, out: &Path, inputs: &ViewInputs) -> Result<(), String> {
        // Marked as seen before the build, so that nothing is missed in between.
        let ledger = self.ledger.borrow_and_update().clone();
        let desired = self.mesh.borrow_and_update().clone();
        let view = self.view(inputs);
        let out = out.to_owned();
        let built = tokio::task::spawn_blocking(move || once(&ledger, desired.as_deref(), &view, &out)).await;
        let published =
            built.map_err(|error| error.to_string())?.map_err(|error| crate::text::chain(&error))?;
        tracing::debug!(generation = published.generation, pages = published.pages, "published the site");
        Ok(())
    }

    fn view(&self, inputs: &ViewInputs) -> View {
        let now_ms = self.clock.now_ms();
        View {
            environment: self.environment.clone(),
            generated_at_ms: now_ms,
            // Twice the pace: a page is stale when a build was missed, not when one is a little late.
            next_build_ms: Some(now_ms + 2 * BREATH_MS),
            title: String::new(),
            repository: inputs.repository.clone(),
            base_url: inputs.base_url.clone(),
            api_base: inputs.api_base.clone(),
            evaluator_version: env!("CARGO_PKG_VERSION").to_owned(),
            lake: self.lake.clone(),
            policies: inputs.policies.clone(),
            samples: BTreeMap::new(),
        }
    }
}

/// Waits for a change; a source that ended changes no more.
async fn changed<T>(source: &mut watch::Receiver<T>) {
    if source.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Builds and publishes once; a build that fails writes nothing.
///
/// # Errors
/// See [`build`] and [`publish`].
pub fn once(
    ledger: &LedgerState,
    desired: Option<&Desired>,
    view: &View,
    out: &Path,
) -> Result<Published, SiteError> {
    publish(&build(&model(ledger, desired, view))?, out)
}

#[cfg(test)]
mod tests {
    use hydromesh_core::ledger::{Entry, Fact};

    use super::*;

    const NOW: i64 = 1_795_154_400_000;

    fn ledger(commits: &[&str]) -> Arc<LedgerState> {
        let fact = |commit: &&str| Fact::CommitSeen {
            commit: (*commit).to_owned(),
            r#ref: "refs/heads/main".into(),
            message: format!("about {commit}"),
            author: "Ada".into(),
        };
        let entries: Vec<Entry> =
            (1..).zip(commits).map(|(seq, commit)| Entry { seq, at_ms: NOW, fact: fact(commit) }).collect();
        Arc::new(LedgerState::replay(&entries))
    }

    fn overview(out: &Path) -> String {
        std::fs::read_to_string(out.join("current/changes/index.html")).unwrap_or_default()
    }

    /// Waits for the page to say something; a site that never does so fails the test.
    async fn says(out: &Path, what: &str) {
        for _ in 0..1_000 {
            if overview(out).contains(what) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what} is not in {}", overview(out));
    }

    #[tokio::test]
    async fn the_site_follows_the_ledger_and_survives_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("site");
        let (show, shown) = watch::channel(ledger(&["first"]));
        let (_mesh, mesh) = watch::channel(None);
        let source = Source {
            ledger: shown,
            mesh,
            environment: "dev".into(),
            clock: Clock::fixed(NOW),
            lake: "/lake".into(),
        };
        let shutdown = CancellationToken::new();
        let (end, at) = (shutdown.clone(), out.clone());
        let task = tokio::spawn(async move {
            source.keep_current(&at, &ViewInputs::default(), Duration::from_millis(10), &end).await;
        });
        says(&out, "about first").await;
        show.send_replace(ledger(&["second"]));
        says(&out, "about second").await;

        // A folder where the publisher's lock should be: the site cannot be written, and stays.
        let lock = out.join(".lock");
        std::fs::remove_file(&lock).unwrap();
        std::fs::create_dir(&lock).unwrap();
        show.send_replace(ledger(&["third"]));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(overview(&out).contains("about second"), "the last generation stays");
        std::fs::remove_dir(&lock).unwrap();
        show.send_replace(ledger(&["fourth"]));
        says(&out, "about fourth").await;

        // What changes while nobody looks is still on disk in the end.
        shutdown.cancel();
        show.send_replace(ledger(&["fifth"]));
        task.await.unwrap();
        assert!(overview(&out).contains("about fifth"));
    }

    #[tokio::test]
    async fn ages_move_by_the_injected_clock() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_owned();
        let (_ledger, ledger) = watch::channel(ledger(&[]));
        let (_mesh, mesh) = watch::channel(None);
        // A minute of the mesh is a tenth of a second.
        let clock = Clock::scaled(NOW, 600.0);
        let source = Source { ledger, mesh, environment: "dev".into(), clock, lake: String::new() };
        let shutdown = CancellationToken::new();
        let (end, at) = (shutdown.clone(), out.clone());
        let task = tokio::spawn(async move {
            source.keep_current(&at, &ViewInputs::default(), Duration::from_millis(10), &end).await;
        });
        says(&out, "No commit has been seen yet.").await;
        let first = overview(&out);
        // Nothing but time changes here.
        let moved = async {
            while overview(&out) == first {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), moved).await.expect("the page's time moves");
        shutdown.cancel();
        task.await.unwrap();
    }
}
