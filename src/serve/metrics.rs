//! What Prometheus reads. States and totals are derived from the folded ledger at each scrape; only durations and what
//! the ledger keeps no total of are counted as they happen.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hydromesh_core::condition;
use hydromesh_core::ledger::{AlertState, EpisodeRecord, LedgerState, RunOutcome};
use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use super::error::ApiError;
use super::health::{STATUSES, product_status, products, status_name};
use super::objectives::objectives;
use super::{ServeState, snapshot};

/// Seconds. A look-up in memory takes microseconds, one that loads a table seconds.
const LOOKUP_BUCKETS: [f64; 12] = [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 2.0];
/// Seconds. A round that finds nothing to do takes milliseconds, one over a thousand products a second.
const RECONCILE_BUCKETS: [f64; 10] = [1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

/// Counters and histograms of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    lookups: Histogram,
    reconciles: Histogram,
    requests: IntCounterVec,
    runs: IntCounterVec,
    decisions: IntCounterVec,
    /// How far runs and decisions are counted.
    counted: Mutex<Counted>,
}

/// The last run and decision that were counted: the folded ledger keeps the newest, in order, without totals.
#[derive(Debug, Default)]
struct Counted {
    run: Option<String>,
    decision: Option<(i64, String)>,
}

impl Metrics {
    /// Returns metrics that count from here on: what the replayed ledger holds already was counted by an earlier process.
    ///
    /// # Panics
    /// Never: names are constants of ours and each is registered once.
    #[must_use]
    pub fn new(replayed: &LedgerState) -> Self {
        let registry = Registry::new();
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let made = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()));
            let made = made.expect("constant names and rising buckets");
            registry.register(Box::new(made.clone())).expect("each name is registered once");
            made
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels).expect("constant names");
            registry.register(Box::new(made.clone())).expect("each name is registered once");
            made
        };
        let lookups = histogram(
            "hydromesh_feature_lookup_seconds",
            "Time to answer one request for features, from its arrival to its answer.",
            &LOOKUP_BUCKETS,
        );
        let reconciles = histogram(
            "hydromesh_reconcile_seconds",
            "Time of one round of observe, plan and apply.",
            &RECONCILE_BUCKETS,
        );
        let requests = counter(
            "hydromesh_http_requests_total",
            "Answered requests by route and status.",
            &["route", "status"],
        );
        let runs = counter(
            "hydromesh_runs_total",
            "Finished attempts of steps since the controller started, by outcome.",
            &["product", "outcome"],
        );
        let decisions = counter(
            "hydromesh_gate_decisions_total",
            "Decisions of the gate since the controller started, by outcome.",
            &["outcome"],
        );
        // Shown as zero before the first one: absent and zero are different things to an alert rule.
        for outcome in ["allow", "deny"] {
            decisions.with_label_values(&[outcome]).reset();
        }
        let counted = Counted {
            run: replayed.runs.back().map(|run| run.run.clone()),
            decision: replayed.decisions.back().map(|(at, decision)| (*at, decision.id.clone())),
        };
        Self { registry, lookups, reconciles, requests, runs, decisions, counted: Mutex::new(counted) }
    }

    /// Counts what the ledger holds newly. Called at each scrape; call it after appends as well where more than the
    /// ledger's memory of 2,000 runs may pass between two scrapes.
    pub fn catch_up(&self, ledger: &LedgerState) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = ledger.runs.iter().rev().take_while(|run| counted.run.as_ref() != Some(&run.run));
        for run in fresh {
            let outcome = match run.outcome {
                RunOutcome::Succeeded { .. } => "succeeded",
                RunOutcome::Failed { .. } => "failed",
                RunOutcome::Cancelled => "cancelled",
            };
            self.runs.with_label_values(&[&run.step.pipeline.product.to_string(), outcome]).inc();
        }
        let is_last = |at: i64, id: &str| {
            counted.decision.as_ref().is_some_and(|(seen, last)| *seen == at && last == id)
        };
        for (_, decision) in
            ledger.decisions.iter().rev().take_while(|(at, decision)| !is_last(*at, &decision.id))
        {
            self.decisions.with_label_values(&[if decision.allow { "allow" } else { "deny" }]).inc();
        }
        if let Some(run) = ledger.runs.back() {
            counted.run = Some(run.run.clone());
        }
        if let Some((at, decision)) = ledger.decisions.back() {
            counted.decision = Some((*at, decision.id.clone()));
        }
    }

    /// Notes one round of reconciling.
    pub fn reconciled(&self, took: Duration) {
        self.reconciles.observe(took.as_secs_f64());
    }

    pub(super) fn looked_up(&self, took: Duration) {
        self.lookups.observe(took.as_secs_f64());
    }

    pub(super) fn answered(&self, route: &str, status: StatusCode) {
        self.requests.with_label_values(&[route, status.as_str()]).inc();
    }

    /// Returns everything in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be written, which is a bug of ours.
    pub fn render(
        &self,
        ledger: &LedgerState,
        environment: &str,
        now_ms: i64,
    ) -> Result<Vec<u8>, prometheus::Error> {
        self.catch_up(ledger);
        let mut families = self.registry.gather();
        families.extend(derived(ledger, environment, now_ms)?.gather());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

/// Metrics that live for one scrape, so that a retired product leaves no line behind.
struct Scrape {
    registry: Registry,
}

impl Scrape {
    fn add<C: Collector + Clone + 'static>(
        &self,
        made: Result<C, prometheus::Error>,
    ) -> Result<C, prometheus::Error> {
        let made = made?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        self.add(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }
}

#[expect(clippy::cast_precision_loss, reason = "ages in milliseconds and counts stay far below 2^53")]
fn derived(ledger: &LedgerState, environment: &str, now_ms: i64) -> Result<Registry, prometheus::Error> {
    let scrape = Scrape { registry: Registry::new() };
    let info = scrape.gauges(
        "hydromesh_build_info",
        "1; version and environment are in the labels.",
        &["version", "environment"],
    )?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION"), environment]).set(1.0);

    let health = scrape.add(IntGaugeVec::new(
        Opts::new("hydromesh_product_health", "1 for the state that a product is in, 0 for the others."),
        &["product", "state"],
    ))?;
    let in_sync = scrape.add(IntGaugeVec::new(
        Opts::new(
            "hydromesh_product_sync",
            "1 for how what runs of a product relates to the commit, 0 for the others.",
        ),
        &["product", "state"],
    ))?;
    let paused = scrape.add(IntGaugeVec::new(
        Opts::new("hydromesh_product_paused", "1 if somebody asked that nothing of the product begins."),
        &["product"],
    ))?;
    let outcomes = condition::outcomes(ledger);
    for id in products(ledger) {
        let (now, _) = condition::sync(ledger, &id, outcomes.get(&id).copied());
        for word in condition::Sync::ALL {
            in_sync.with_label_values(&[id.to_string().as_str(), word.word()]).set(i64::from(word == now));
        }
        paused
            .with_label_values(&[&id.to_string()])
            .set(i64::from(ledger.whole_pause_of(&id, now_ms).is_some()));
        let now = product_status(ledger, &id, now_ms);
        for status in STATUSES {
            health.with_label_values(&[&id.to_string(), status_name(status)]).set(i64::from(status == now));
        }
    }

    let firing = scrape.gauges(
        "hydromesh_alerts_firing",
        "Open alert episodes by product and kind.",
        &["product", "kind"],
    )?;
    for alert in
        ledger.episodes.values().map(EpisodeRecord::last).filter(|alert| alert.state == AlertState::Firing)
    {
        let kind = alert.kind.as_str();
        firing.with_label_values(&[&alert.product.to_string(), kind]).inc();
    }

    let age = scrape.gauges(
        "hydromesh_slo_data_age_seconds",
        "Age of the newest published data of a port.",
        &["product", "port"],
    )?;
    let published = scrape.counters(
        "hydromesh_partitions_published_total",
        "Partitions that became visible.",
        &["product"],
    )?;
    for (port, state) in &ledger.ports {
        let product = port.product.to_string();
        published.with_label_values(&[&product]).inc_by(state.published);
        if let Some(newest_ms) = state.newest_data_ms.filter(|_| ledger.deployed.contains_key(&port.product))
        {
            age.with_label_values(&[&product, port.port.as_str()]).set((now_ms - newest_ms) as f64 / 1e3);
        }
    }

    let budget = scrape.gauges(
        "hydromesh_slo_budget_remaining_ratio",
        "Share of an objective's error budget over 30 days that is left; below zero it is missed.",
        &["product", "objective"],
    )?;
    for report in objectives(ledger, now_ms) {
        let product = report.port.product.to_string();
        budget.with_label_values(&[&product, &report.objective]).set(report.budget_remaining);
    }

    streams(&scrape, ledger, now_ms)?;
    models(&scrape, ledger)?;
    let facts =
        scrape.add(prometheus::IntCounter::new("hydromesh_ledger_facts_total", "Facts in the ledger."))?;
    facts.inc_by(ledger.seq);
    let running = scrape.add(Gauge::new("hydromesh_runs_running", "Attempts of steps under way."))?;
    running.set(ledger.running.len() as f64);
    let took = scrape.gauges(
        "hydromesh_step_last_seconds",
        "Real time that the last step of a pipeline took that succeeded.",
        &["pipeline"],
    )?;
    for (pipeline, last) in &ledger.took {
        if let Some(millis) = last.back() {
            took.with_label_values(&[&pipeline.to_string()]).set(*millis as f64 / 1_000.0);
        }
    }
    Ok(scrape.registry)
}

/// What is known of models and of the features that they read.
fn models(scrape: &Scrape, ledger: &LedgerState) -> Result<(), prometheus::Error> {
    let drift = scrape.gauges(
        "hydromesh_drift_statistic",
        "Statistic of the newest drift test of a feature.",
        &["product", "feature"],
    )?;
    for (product, history) in &ledger.drift {
        for verdict in history.back().iter().flat_map(|(_, verdicts, _)| verdicts) {
            drift.with_label_values(&[&product.to_string(), &verdict.feature]).set(verdict.statistic);
        }
    }

    let model = scrape.gauges(
        "hydromesh_model_metric",
        "Measures of a product's champion on held-out rows.",
        &["product", "metric"],
    )?;
    for (product, models) in &ledger.models {
        let champion = models
            .champion
            .and_then(|(version, _)| models.trained.iter().find(|(_, it)| it.version == version));
        let Some((_, trained)) = champion else { continue };
        let first = std::iter::once((&trained.metric, &trained.value));
        for (metric, value) in trained.metrics.iter().chain(first) {
            model.with_label_values(&[&product.to_string(), metric]).set(*value);
        }
    }
    Ok(())
}

/// What became of events and rows.
#[expect(clippy::cast_precision_loss, reason = "ages in milliseconds stay far below 2^53")]
fn streams(scrape: &Scrape, ledger: &LedgerState, now_ms: i64) -> Result<(), prometheus::Error> {
    let rows = scrape.counters(
        "hydromesh_stream_rows_total",
        "Events of a stream by what became of them.",
        &["pipeline", "kind"],
    )?;
    let lag = scrape.gauges(
        "hydromesh_stream_watermark_lag_seconds",
        "How far event time is behind the clock.",
        &["pipeline"],
    )?;
    for (pipeline, stream) in &ledger.streams {
        let name = pipeline.to_string();
        let kinds = [
            ("accepted", stream.rows.accepted),
            ("corrected", stream.rows.corrected),
            ("quarantined", stream.rows.quarantined),
            ("dead", stream.rows.dead),
        ];
        for (kind, count) in kinds {
            rows.with_label_values(&[&name, kind]).inc_by(count);
        }
        if let Some(watermark_ms) = stream.checkpoint.watermark_ms {
            lag.with_label_values(&[&name]).set((now_ms - watermark_ms) as f64 / 1e3);
        }
    }

    let quarantined = scrape.counters(
        "hydromesh_quarantined_rows_total",
        "Rows of files that could not be read.",
        &["port"],
    )?;
    for (port, (count, _)) in &ledger.quarantined {
        quarantined.with_label_values(&[&port.to_string()]).inc_by(*count);
    }
    Ok(())
}

pub(super) async fn scrape(State(state): State<Arc<ServeState>>) -> Result<Response, ApiError> {
    // Objectives over a year of publications take a while; other requests go on meanwhile.
    let text = tokio::task::spawn_blocking(move || {
        state.metrics.render(&snapshot(&state.ledger), &state.environment, state.clock.now_ms())
    });
    let text = text.await.map_err(|error| ApiError::failed("the scrape", &error))?;
    let text = text.map_err(|error| ApiError::failed("the scrape", &error))?;
    let mut response = text.into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
