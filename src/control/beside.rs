//! A process beside the controller: it performs steps, or serves. It meets control in store, lake and mirror alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hydromesh_core::ledger::LedgerState;
use hydromesh_core::model::Environment;
use hydromesh_core::plan::Desired;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::UpError;
use super::run::{Around, UpOptions, Upward, WorkThreads, context, create, keep_logs, settings, surround};
use super::watch::Watcher;
use crate::replay::fold;
use crate::repo::RepoError;
use crate::store::{OpenMode, Place, Store, StoreError};
use crate::work::{Role, Worker};

/// How often the ledger is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Does what the roles of this process ask for, until cancelled.
///
/// # Errors
/// [`UpError`] when it cannot start, or the store fails for good.
pub(super) async fn beside(
    options: UpOptions,
    shutdown: CancellationToken,
    around: Around,
) -> Result<(), UpError> {
    create(&options.state)?;
    keep_logs(&options.state);
    let Some(store) = ledger(&options, &shutdown).await? else { return Ok(()) };
    let watcher = Watcher::open(&options.repo, &options.state.join("repo"), "HEAD")
        .map_err(|source| UpError::Repo { repo: options.repo.clone(), source })?;
    let mut tail = Tail { store: store.clone(), state: LedgerState::default() };
    let Some((settings, desired)) = tail.settings(&options, &watcher, &shutdown).await? else {
        store.close().await;
        return Ok(());
    };
    // Steps carry the epoch of the controller that hands them out.
    let context = context(&options, settings, watcher.blobs(), 0).await?;
    let (show_ledger, ledger) = watch::channel(Arc::new(tail.state.clone()));
    let (show_mesh, mesh) = watch::channel(desired);
    let upward = Upward { ledger, context: context.clone(), store: store.clone(), mesh };
    let servers = surround(&options, upward, &shutdown, around);
    let threads = WorkThreads::start()?;
    let mut workers = JoinSet::new();
    for role in options.roles.performing() {
        let worker = Worker::new(role, context.clone(), threads.handle().clone());
        workers.spawn(worker.run(shutdown.clone()));
    }
    tracing::info!(roles = %options.roles, "started");
    let result = loop {
        tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            Some(ended) = workers.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => break Err(error.into()),
                Err(error) => break Err(UpError::Io {
                    action: "go on performing steps".to_owned(),
                    source: std::io::Error::other(error),
                }),
            },
            () = tokio::time::sleep(LOOK) => {
                let head = tail.state.head.clone();
                match tail.catch_up().await {
                    Ok(false) => continue,
                    Ok(true) => {}
                    Err(error) => {
                        tracing::warn!("the ledger cannot be read: {}", crate::text::chain(&error));
                        continue;
                    }
                }
                if tail.state.head != head
                    && let Ok(Some(desired)) = tail.desired(&watcher).await
                {
                    show_mesh.send_replace(Some(desired));
                }
                show_ledger.send_replace(Arc::new(tail.state.clone()));
            }
        }
    };
    shutdown.cancel();
    while let Some(ended) = workers.join_next().await {
        if let Ok(Err(error)) = ended {
            tracing::warn!("a worker's place could not be given up: {}", crate::text::chain(&error));
        }
    }
    drop(threads);
    servers.end().await;
    store.close().await;
    result
}

/// Opens the ledger when it is there. Only control writes facts, so others cannot hold it up whatever becomes of them;
/// who serves also takes commands, which lie in the same file.
async fn ledger(options: &UpOptions, shutdown: &CancellationToken) -> Result<Option<Store>, UpError> {
    let mode = if options.roles.has(Role::Serve) { OpenMode::ReadWrite } else { OpenMode::ReadOnly };
    let mut said = false;
    loop {
        if let Some(place) = Place::found(&options.state)? {
            match Store::open_at(&place, mode).await {
                Ok(store) => return Ok(Some(store)),
                // Not made, or not yet brought up to date, by a controller.
                Err(StoreError::Absent { .. } | StoreError::OlderSchema { .. }) => {}
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !wait_for_control(&mut said, shutdown).await {
            return Ok(None);
        }
    }
}

/// Waits for a moment, saying so once; returns whether to look again, which is not so when asked to end meanwhile.
async fn wait_for_control(said: &mut bool, shutdown: &CancellationToken) -> bool {
    if !std::mem::replace(said, true) {
        tracing::warn!("waiting for a controller on this state folder: `hydromesh up --role control`");
    }
    tokio::select! {
        () = shutdown.cancelled() => false,
        () = tokio::time::sleep(LOOK) => true,
    }
}

/// The ledger as somebody else writes it.
struct Tail {
    store: Store,
    state: LedgerState,
}

impl Tail {
    /// Folds what is new; returns whether anything was.
    async fn catch_up(&mut self) -> Result<bool, StoreError> {
        let before = self.state.seq;
        while fold(&self.store, &mut self.state).await? {}
        Ok(self.state.seq != before)
    }

    /// Reads what the last seen commit asks for out of the mirror; nothing when it holds no mesh.
    async fn desired(&self, watcher: &Watcher) -> Result<Option<Arc<Desired>>, RepoError> {
        let Some(head) = self.state.head.clone() else { return Ok(None) };
        let (watcher, prints) = (watcher.clone(), self.state.port_prints());
        // Where signatures are judged, what was accepted is what there is.
        let (commit, refused) = match (self.state.verified(&head), self.state.line.as_deref()) {
            (None, _) => (head, BTreeMap::new()),
            (Some(_), Some(line)) => (line.at.clone(), line.taints.clone()),
            (Some(_), None) => return Ok(None),
        };
        let read = tokio::task::spawn_blocking(move || watcher.read_without(&commit, &prints, &refused));
        let reading = match read.await {
            Ok(reading) => reading?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        Ok(reading.readable.then(|| Arc::new(reading.desired)))
    }

    /// Waits until a controller has seen a commit, and returns the environment's settings in it.
    async fn settings(
        &mut self,
        options: &UpOptions,
        watcher: &Watcher,
        shutdown: &CancellationToken,
    ) -> Result<Option<(Environment, Option<Arc<Desired>>)>, UpError> {
        let mut said = false;
        loop {
            self.catch_up().await?;
            let wrap = |source| UpError::Repo { repo: options.repo.clone(), source };
            if let Some(desired) = self.desired(watcher).await.map_err(wrap)? {
                let settings = settings(options, &desired.mesh.environments)?;
                return Ok(Some((settings, Some(desired))));
            }
            if !wait_for_control(&mut said, shutdown).await {
                return Ok(None);
            }
        }
    }
}
