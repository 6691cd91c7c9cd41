//! Whether we live, whether we are ready, and what we know, for machines.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hydromesh_core::ledger::{Alert, LedgerState};
use serde_json::{Value, json};

use super::error::ApiError;
use super::health::{product_status, products, status_name};
use super::objectives::objectives;
use super::{ServeState, snapshot};
use crate::clock::rfc3339;

/// Lives: the process answers. Says nothing about the mesh, so that an orchestrator does not restart us for its sake.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({ "alive": true }))
}

pub(super) async fn readyz(State(state): State<Arc<ServeState>>) -> (StatusCode, Json<Value>) {
    let awaited = state.readiness.awaited();
    let status = if awaited.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": awaited.is_empty(), "awaited": awaited })))
}

pub(super) async fn status(State(state): State<Arc<ServeState>>) -> Result<Json<Value>, ApiError> {
    let (ledger, now_ms) = (snapshot(&state.ledger), state.clock.now_ms());
    // Objectives over a year of publications take a while; other requests go on meanwhile.
    let body = tokio::task::spawn_blocking(move || document(&ledger, now_ms)).await;
    let mut body = body.map_err(|error| ApiError::failed("the status", &error))?;
    body["environment"] = state.environment.clone().into();
    body["ready"] = state.readiness.awaited().is_empty().into();
    Ok(Json(body))
}

fn document(ledger: &LedgerState, now_ms: i64) -> Value {
    let reports = objectives(ledger, now_ms);
    let products: Vec<Value> = products(ledger)
        .into_iter()
        .map(|id| {
            let deployed = ledger.deployed.get(&id);
            let ports: Vec<Value> = ledger
                .ports
                .iter()
                .filter(|(port, _)| port.product == id)
                .map(|(port, state)| {
                    json!({
                        "port": port.to_string(),
                        "version": state.version,
                        "partitions": state.partitions.len(),
                        "newest_data": state.newest_data_ms.map(rfc3339),
                    })
                })
                .collect();
            let promises: Vec<Value> = reports
                .iter()
                .filter(|report| report.port.product == id)
                .map(|report| json!({ "objective": report.objective, "budget_remaining": report.budget_remaining }))
                .collect();
            json!({
                "product": id.to_string(),
                "status": status_name(product_status(ledger, &id, now_ms)),
                "generation": deployed.map(|deployed| deployed.generation),
                "commit": deployed.map(|deployed| deployed.commit.as_str()),
                "ports": ports,
                "objectives": promises,
                "running": ledger.running.values().filter(|step| step.pipeline.product == id).count(),
                "failed_steps": ledger.failed.keys().filter(|step| step.pipeline.product == id).map(ToString::to_string).collect::<Vec<_>>(),
            })
        })
        .collect();
    let open: Vec<Value> = ledger
        .episodes
        .values()
        .filter(|episode| episode.is_open())
        .map(|episode| alert(episode.last()))
        .collect();
    let outcome = ledger.head.as_deref().and_then(|head| ledger.outcome(head));
    json!({
        "commit": ledger.head,
        "outcome": outcome,
        "now": rfc3339(now_ms),
        "ledger": { "seq": ledger.seq, "at": rfc3339(ledger.at_ms) },
        "runs": { "running": ledger.running.len(), "succeeded": ledger.succeeded, "failed": ledger.failures },
        "products": products,
        "alerts": open,
    })
}

fn alert(alert: &Alert) -> Value {
    json!({
        "episode": alert.episode,
        "product": alert.product.to_string(),
        "kind": alert.kind,
        "state": alert.state,
        "summary": alert.summary,
        "caused_by": alert.caused_by,
    })
}
