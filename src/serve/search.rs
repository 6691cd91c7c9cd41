//! `GET /v1/search/DOMAIN/PRODUCT?q=TEXT&limit=5`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use hydromesh_core::diag::did_you_mean;
use hydromesh_core::model::PipelineKind;
use serde_json::{Value, json};

use super::error::ApiError;
use super::{ServeState, request, snapshot};

/// Hits when the request does not say.
const USUAL: usize = 5;
/// Most hits of one answer.
const MOST: usize = 100;
/// Longest query, in bytes: far more than a question, less than an article.
const LONGEST: usize = 2_000;
const HELP: &str = "ask as `?q=TEXT&limit=5`";

pub(super) async fn search(
    State(state): State<Arc<ServeState>>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let Path((domain, product)) = path.map_err(|_| ApiError::no_such_path(uri.path()))?;
    let ledger = snapshot(&state.ledger);
    let deployed = request::deployed(&ledger, &domain, &product)?;
    let id = deployed.product.id.clone();
    let searchable = deployed.product.outputs.values().any(|port| port.access.search.is_some())
        || deployed.product.pipelines.values().any(|pipeline| pipeline.kind() == PipelineKind::Embedding);
    if !searchable {
        let help = "a port is searched when its product has an EmbeddingPipeline or `hydromesh.access: {search: {text: ...}}`";
        return Err(ApiError::no_access(format!("{id} has no search"), help));
    }
    let (mut text, mut limit) = (None, USUAL);
    for (name, value) in request::query(&uri) {
        match name.as_str() {
            "q" => text = Some(value),
            "limit" => {
                let wanted = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                limit = wanted.ok_or_else(|| {
                    ApiError::request(format!("`limit` is a number from 1 to {MOST}"), HELP)
                })?;
            }
            other => {
                let help = did_you_mean(other, ["q", "limit"])
                    .map_or(HELP.to_owned(), |near| format!("did you mean `{near}`?"));
                return Err(ApiError::request(format!("unknown parameter `{}`", other.escape_debug()), help));
            }
        }
    }
    let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| ApiError::request("`q` is missing or empty", HELP))?;
    if text.len() > LONGEST {
        return Err(ApiError::request(format!("`q` is longer than {LONGEST} bytes"), HELP));
    }
    let hits = state.search.search(&id, &text, limit).await?;
    Ok(Json(json!({ "product": id.to_string(), "query": text, "hits": hits })))
}
