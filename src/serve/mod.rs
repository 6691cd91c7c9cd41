//! HTTP: the site, health, metrics, looked-up features, search, commands, and webhooks.
//!
//! Everything is answered from one snapshot of the folded ledger and from three seams behind which others keep live
//! feature values, batch rows and vectors. Nothing here decides or writes: a command becomes an event of control, and a
//! webhook a hint for its poll.

mod commands;
mod connections;
mod error;
mod features;
mod guard;
mod headers;
mod health;
mod metrics;
mod objectives;
mod request;
mod rows;
mod search;
mod site;
mod status;
#[cfg(test)]
mod tests;
mod webhooks;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::LedgerState;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::clock::Clock;

pub use commands::{CommandReply, CommandRequest};
pub use guard::{BindError, Guard, check_bind};
pub use health::product_status;
pub use metrics::Metrics;
pub use objectives::{ObjectiveReport, objectives};
pub use rows::TableLookup;
pub use webhooks::{WeakSecret, WebhookSecret, Webhooks};

/// Largest body of a request. 500 entities of 100 characters fit.
const BODY_LIMIT: usize = 64 * 1024;
/// How long a shutdown waits for requests that are being answered.
const GRACE: Duration = Duration::from_secs(5);

/// The folded ledger as last published by control: readers take the inner pointer and never hold the lock.
pub type SharedLedger = Arc<RwLock<Arc<LedgerState>>>;

/// Why a look-up or a search could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// It will be answered soon: nothing is computed or loaded yet.
    #[error("{0}")]
    NotReady(String),
    /// It failed.
    #[error("the look-up failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// One looked-up value with what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureValue {
    /// The value; null when the entity had no event in the window.
    pub value: Value,
    /// The instant that it speaks of, milliseconds UTC.
    pub as_of_ms: Option<i64>,
    /// The table version that holds the newest state it was computed from.
    pub version: Option<i64>,
}

/// The features of one entity.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FeatureAnswer {
    /// Whether anything is known of the entity.
    pub found: bool,
    /// Values by column.
    pub features: BTreeMap<String, FeatureValue>,
    /// The stream's watermark, milliseconds UTC.
    pub watermark_ms: Option<i64>,
}

/// Live feature values.
pub trait FeatureStore: Send + Sync {
    /// Returns the features of an entity as of `now_ms`. Must not block: it is called while a request waits.
    ///
    /// # Errors
    /// [`LookupError::NotReady`] while state is being loaded.
    fn lookup(&self, product: &ProductId, entity: &str, now_ms: i64) -> Result<FeatureAnswer, LookupError>;
}

/// One row of a port with look-up access.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRow {
    /// Values by column, in the table's order, without the key.
    pub values: Vec<(String, Value)>,
    /// The partition that it comes from, if the table has any.
    pub partition: Option<String>,
    /// Newest data time of that partition, milliseconds UTC.
    pub as_of_ms: Option<i64>,
    /// The table's version.
    pub version: i64,
}

/// Rows of published tables by key.
#[async_trait::async_trait]
pub trait BatchLookup: Send + Sync {
    /// Returns the row of a key in the newest partition that has one.
    ///
    /// # Errors
    /// [`LookupError::NotReady`] before the port's first publication.
    async fn row(&self, port: &PortId, key: &str) -> Result<Option<BatchRow>, LookupError>;
}

/// One hit of a search.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SearchHit {
    /// Identifies the text within its port.
    pub id: String,
    /// Similarity, higher is nearer.
    pub score: f64,
    /// The part of the text that matched.
    pub text: String,
    /// The table version of the vectors.
    pub version: i64,
}

/// Search by text.
#[async_trait::async_trait]
pub trait Search: Send + Sync {
    /// Returns the nearest texts of a product, best first, at most `limit`.
    ///
    /// # Errors
    /// [`LookupError::NotReady`] before the first vectors are published.
    async fn search(
        &self,
        product: &ProductId,
        query: &str,
        limit: usize,
    ) -> Result<Vec<SearchHit>, LookupError>;
}

/// Everything that requests are answered from.
pub struct ServeState {
    /// The environment's name.
    pub environment: String,
    /// The one clock.
    pub clock: Clock,
    /// The folded ledger; control replaces it after each append.
    pub ledger: SharedLedger,
    /// Live feature values.
    pub features: Arc<dyn FeatureStore>,
    /// Published rows by key.
    pub rows: Arc<dyn BatchLookup>,
    /// Search by text.
    pub search: Arc<dyn Search>,
    /// To control. Bounded: a full channel answers 503.
    pub commands: mpsc::Sender<CommandRequest>,
    /// The site's `current` folder; may not exist yet.
    pub site: PathBuf,
    /// Who may ask, from [`check_bind`].
    pub guard: Guard,
    /// Takes webhooks; without a secret nobody does.
    pub webhooks: Option<Webhooks>,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// How far the start has come.
    pub readiness: Readiness,
}

/// How far the start has come.
#[derive(Debug, Default)]
pub struct Readiness {
    replayed: AtomicBool,
    looked: AtomicBool,
}

impl Readiness {
    /// The ledger is replayed.
    pub fn replayed(&self) {
        self.replayed.store(true, Ordering::Release);
    }

    /// The first commit of this start was looked at, whatever became of it.
    pub fn looked(&self) {
        self.looked.store(true, Ordering::Release);
    }

    /// Returns what is still awaited; nothing when ready.
    #[must_use]
    pub fn awaited(&self) -> Vec<&'static str> {
        let parts =
            [(&self.replayed, "the ledger is being replayed"), (&self.looked, "no commit was looked at yet")];
        parts.into_iter().filter(|(done, _)| !done.load(Ordering::Acquire)).map(|(_, what)| what).collect()
    }
}

impl ServeState {
    /// Returns the folded ledger of this moment.
    #[must_use]
    pub fn snapshot(&self) -> Arc<LedgerState> {
        snapshot(&self.ledger)
    }
}

fn snapshot(ledger: &SharedLedger) -> Arc<LedgerState> {
    // The guarded pointer is replaced whole, so a panic elsewhere cannot have left it half-written.
    Arc::clone(&ledger.read().unwrap_or_else(PoisonError::into_inner))
}

/// Returns the whole application.
pub fn router(state: Arc<ServeState>) -> Router {
    let large = DefaultBodyLimit::max(webhooks::WEBHOOK_LIMIT);
    Router::new()
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(metrics::scrape))
        .route("/v1/status", get(status::status))
        .route("/v1/features/{domain}/{product}", get(features::one).post(features::many))
        .route("/v1/search/{domain}/{product}", get(search::search))
        .route("/v1/commands", post(commands::submit))
        .route(webhooks::GITHUB, post(webhooks::github).layer(large))
        .route(webhooks::GITLAB, post(webhooks::gitlab).layer(large))
        .route("/v1/{*rest}", axum::routing::any(request::unknown))
        .method_not_allowed_fallback(request::wrong_method)
        .fallback(site::file)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), request::limit_and_count))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), guard::check))
        .layer(middleware::map_response(headers::harden))
        .with_state(state)
}

/// Serves until `shutdown` completes, then lets requests under way end for a short while.
///
/// # Errors
/// None at present: failures to accept are retried, and failures of one connection end that connection alone.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let signal = async move {
        shutdown.await;
        // The receiver is gone only when serving has ended by itself.
        let _ = stopping.send(());
    };
    let server = axum::serve(connections::Limited::new(listener), router).with_graceful_shutdown(signal);
    let overdue = async {
        if stopped.await.is_ok() {
            tokio::time::sleep(GRACE).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = async { server.await } => ended,
        // A client that does not read must not keep the process alive.
        () = overdue => Ok(()),
    }
}
