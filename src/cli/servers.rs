//! Puts the parts around the controller together: look-ups, search, commands, metrics and the site over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::LedgerState;
use hydromesh_core::model::Pipeline;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Failure, OUTSIDE};
use crate::control::{Around, Hints, Upward};
use crate::lake::TableFormat;
use crate::policy::PolicySet;
use crate::serve::{
    self, CommandReply, CommandRequest, FeatureStore, Guard, LookupError, Metrics, Readiness, Search,
    SearchHit, ServeState, SharedLedger, TableLookup, WebhookSecret, Webhooks,
};
use crate::site::from_ledger::known_rules;
use crate::site::publisher::{LEAST_PAUSE, ViewInputs, keep_current};
use crate::vector::{SearchError, VectorIndexes};

/// Commands over HTTP that may wait for the loop.
const COMMANDS: usize = 64;

/// Binds the address, and returns what serves on it once the controller runs.
///
/// Binding comes first, so that a taken port is an error before anything starts.
///
/// # Errors
/// When the address is taken, or is not loopback and there is no token.
pub fn around(
    listen: SocketAddr,
    token: Option<&str>,
    webhooks: Option<WebhookSecret>,
) -> Result<Around, Failure> {
    let guard =
        serve::check_bind(listen, token).map_err(|error| Failure::usage(crate::text::chain(&error)))?;
    let bind = |address: SocketAddr| {
        std::net::TcpListener::bind(address).and_then(|it| it.set_nonblocking(true).map(|()| it))
    };
    let listener = bind(listen).map_err(|error| Failure {
        code: OUTSIDE,
        message: format!("{listen}: {error}; choose another with --listen"),
    })?;
    Ok(Box::new(move |upward, shutdown| {
        // Threads of its own: a look-up must not wait until the loop has judged a commit.
        let serving = std::thread::Builder::new().name("hydromesh-serve".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("hydromesh-serve")
                .enable_all()
                .build();
            let ended = runtime
                .and_then(|runtime| runtime.block_on(run(upward, listener, guard, webhooks, shutdown)));
            if let Err(error) = ended {
                tracing::error!("serving ended: {error}");
            }
        });
        serving.map_err(|error| tracing::error!("serving did not start: {error}")).ok()
    }))
}

async fn run(
    upward: Upward,
    listener: std::net::TcpListener,
    guard: Guard,
    webhooks: Option<WebhookSecret>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let ledger: SharedLedger = Arc::new(RwLock::new(Arc::clone(&upward.ledger.borrow())));
    let metrics = Metrics::new(&snapshot(&ledger));
    let rows = TableLookup::new(Arc::clone(&upward.context.lake), Arc::clone(&ledger));
    tokio::spawn(rows.clone().keep_fresh(shutdown.clone()));
    let (commands, asked) = mpsc::channel(COMMANDS);
    tokio::spawn(answer_commands(asked, upward.clone()));
    let readiness = Readiness::default();
    readiness.replayed();
    let hints = Hints::of(&upward.context.state);
    let reference = upward.context.settings.r#ref.clone();
    let state = Arc::new(ServeState {
        environment: upward.context.environment.clone(),
        clock: upward.context.clock.clone(),
        ledger: Arc::clone(&ledger),
        features: Arc::clone(&upward.context.online) as Arc<dyn FeatureStore>,
        rows: Arc::new(rows),
        search: Arc::new(Vectors {
            upward: upward.clone(),
            ledger: Arc::clone(&ledger),
            indexes: VectorIndexes::new(),
        }),
        commands,
        site: upward.context.state.join("site").join("current"),
        guard,
        webhooks: webhooks.map(|secret| Webhooks::new(secret, reference, move || hints.give())),
        metrics,
        readiness,
    });
    let inputs = ViewInputs {
        base_url: listener.local_addr().ok().map(|address| format!("http://{address}")),
        api_base: listener.local_addr().ok().map(|address| format!("http://{address}")),
        policies: known_rules(&PolicySet::embedded(), &[]),
        ..ViewInputs::default()
    };
    let site = upward.context.state.join("site");
    let site = tokio::spawn(keep_current(upward.clone(), site, inputs, LEAST_PAUSE, shutdown.clone()));
    tokio::spawn(keep_ledger(upward, Arc::clone(&state), shutdown.clone()));
    serve::serve(listener, serve::router(state), shutdown.cancelled_owned()).await?;
    // The site's last build, of the ledger's last state.
    site.await.map_err(std::io::Error::other)
}

fn snapshot(ledger: &SharedLedger) -> Arc<LedgerState> {
    Arc::clone(&ledger.read().unwrap_or_else(PoisonError::into_inner))
}

/// Shows every new state of the ledger to requests and counters.
async fn keep_ledger(mut upward: Upward, state: Arc<ServeState>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = upward.ledger.changed() => if changed.is_err() { return },
        }
        let ledger = Arc::clone(&upward.ledger.borrow_and_update());
        state.metrics.catch_up(&ledger);
        if ledger.head.is_some() {
            state.readiness.looked();
        }
        *state.ledger.write().unwrap_or_else(PoisonError::into_inner) = ledger;
    }
}

/// Puts commands in the mailbox and waits for their answers in the ledger.
async fn answer_commands(mut asked: mpsc::Receiver<CommandRequest>, upward: Upward) {
    while let Some(request) = asked.recv().await {
        tokio::spawn(answer_command(request, upward.clone()));
    }
}

async fn answer_command(request: CommandRequest, mut upward: Upward) {
    let id = request.command.id.clone();
    let refused = |answer: String| CommandReply { accepted: false, answer };
    let submitted = match serde_json::to_string(&request.command) {
        Ok(body) => {
            let now_ms = upward.context.clock.now_ms();
            upward
                .store
                .submit_command(&request.key, &body, now_ms)
                .await
                .map_err(|error| crate::text::chain(&error))
        }
        Err(error) => Err(error.to_string()),
    };
    if let Err(why) = submitted {
        let _ = request.answer.send(refused(why));
        return;
    }
    loop {
        if let Some((accepted, answer)) = upward.ledger.borrow_and_update().answers.get(&id).cloned() {
            // Whoever asked may have hung up; the answer is in the ledger.
            let _ = request.answer.send(CommandReply { accepted, answer });
            return;
        }
        if upward.ledger.changed().await.is_err() {
            return;
        }
    }
}

/// Search over published vectors.
struct Vectors {
    upward: Upward,
    ledger: SharedLedger,
    indexes: VectorIndexes,
}

#[async_trait]
impl Search for Vectors {
    async fn search(
        &self,
        product: &ProductId,
        query: &str,
        limit: usize,
    ) -> Result<Vec<SearchHit>, LookupError> {
        let ledger = snapshot(&self.ledger);
        let not_ready = || LookupError::NotReady(format!("nothing of {product} is embedded yet"));
        let deployed = ledger.deployed.get(product).ok_or_else(not_ready)?;
        let pipeline = deployed.product.pipelines.values().find_map(|pipeline| match pipeline {
            Pipeline::Embedding(embedding) => Some(embedding),
            _ => None,
        });
        let pipeline = pipeline.ok_or_else(not_ready)?;
        let port = deployed.product.port(&pipeline.output);
        let format = deployed.product.outputs.get(&pipeline.output).map(|output| output.format);
        let format = match format {
            Some(hydromesh_core::model::TableFormat::Iceberg) => TableFormat::Iceberg,
            _ => TableFormat::Delta,
        };
        let lake = &self.upward.context.lake;
        let hits = crate::vector::search(lake, format, &port, pipeline, &self.indexes, query, limit).await;
        let version = ledger.ports.get(&port).map_or(0, |state| state.version);
        match hits {
            Ok(hits) => Ok(hits
                .into_iter()
                .map(|hit| SearchHit { id: hit.id, score: f64::from(hit.score), text: hit.text, version })
                .collect()),
            Err(SearchError::NotPublished { .. } | SearchError::OtherModel { .. }) => Err(not_ready()),
            Err(error) => Err(LookupError::Failed(Box::new(error))),
        }
    }
}
