//! Keeps the site current while the controller runs.

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
    let Upward { mut ledger, mut mesh, context, .. } = upward;
    let pause = every_real.max(Duration::from_millis(1));
    let breath = context.clock.real(BREATH_MS).max(pause);
    let mut complained = String::new();
    loop {
        let (facts, asked) = newest(&mut ledger, &mut mesh);
        let now_ms = context.clock.now_ms();
        let view = View {
            environment: context.environment.clone(),
            generated_at_ms: now_ms,
            // Twice the pace: a page is stale when a build was missed, not when one is a little late.
            next_build_ms: Some(now_ms + 2 * BREATH_MS),
            title: String::new(),
            repository: inputs.repository.clone(),
            base_url: inputs.base_url.clone(),
            api_base: inputs.api_base.clone(),
            evaluator_version: env!("CARGO_PKG_VERSION").to_owned(),
            lake: context.lake.root().display().to_string(),
            policies: inputs.policies.clone(),
            samples: std::collections::BTreeMap::new(),
        };
        let folder = out.clone();
        let built = tokio::task::spawn_blocking(move || once(&facts, asked.as_deref(), &view, &folder)).await;
        let problem = match built {
            Ok(Ok(published)) => {
                tracing::debug!(
                    generation = published.generation,
                    pages = published.pages,
                    "published the site"
                );
                String::new()
            }
            Ok(Err(error)) => crate::apply::chain(&error),
            Err(error) => error.to_string(),
        };
        if !problem.is_empty() && problem != complained {
            tracing::error!("the site keeps its last generation, the new one failed: {problem}");
        }
        complained = problem;
        if shutdown.is_cancelled() {
            return;
        }
        // Changes that come while this one is written are seen by the next turn, all at once.
        tokio::select! {
            () = shutdown.cancelled() => continue,
            () = tokio::time::sleep(pause) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(breath.saturating_sub(pause)) => {}
            () = changed(&mut ledger) => {}
            () = changed(&mut mesh) => {}
        }
    }
}

type Newest = (Arc<LedgerState>, Option<Arc<Desired>>);

/// Takes what is newest and marks it as seen before the build, so that nothing is missed in between.
fn newest(
    ledger: &mut watch::Receiver<Arc<LedgerState>>,
    mesh: &mut watch::Receiver<Option<Arc<Desired>>>,
) -> Newest {
    (ledger.borrow_and_update().clone(), mesh.borrow_and_update().clone())
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
