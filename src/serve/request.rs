//! What every request goes through, and the parts of one that several answers read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{Deployed, LedgerState};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::{BODY_LIMIT, ServeState};

/// The longest that an answer may take. Commands wait for control at most half of it.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn limit_and_count(
    State(state): State<Arc<ServeState>>,
    request: Request,
    next: Next,
) -> Response {
    // The pattern and not the path: a label per path would let callers grow the metrics without end.
    let route = request.extensions().get::<MatchedPath>().map_or("site", |path| path.as_str()).to_owned();
    let response = match tokio::time::timeout(LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::slow(LIMIT.as_secs()).into_response(),
    };
    state.metrics.answered(&route, response.status());
    response
}

pub(super) async fn unknown(uri: Uri) -> ApiError {
    ApiError::no_such_path(uri.path())
}

pub(super) async fn wrong_method(method: Method) -> ApiError {
    ApiError::wrong_method(method.as_str())
}

/// Returns a deployed product by the two parts of its path.
pub(super) fn deployed<'a>(
    ledger: &'a LedgerState,
    domain: &str,
    product: &str,
) -> Result<&'a Deployed, ApiError> {
    product_at(ledger, &format!("{domain}/{product}"))
}

/// Returns a deployed product by its address.
pub(super) fn product_at<'a>(ledger: &'a LedgerState, address: &str) -> Result<&'a Deployed, ApiError> {
    let found = address.parse::<ProductId>().ok().and_then(|id| ledger.deployed.get(&id));
    found.map(AsRef::as_ref).ok_or_else(|| {
        let known: Vec<String> = ledger.deployed.keys().map(ToString::to_string).collect();
        ApiError::no_such_product(address, known.iter().map(String::as_str))
    })
}

/// Returns the pairs of a query string, percent-decoded, in order.
pub(super) fn query(uri: &Uri) -> Vec<(String, String)> {
    url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

/// Returns why a body could not be read.
pub(super) fn unread(rejection: &BytesRejection, limit: usize, help: &str) -> ApiError {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(limit),
        _ => ApiError::request("the body could not be read", help),
    }
}

/// Returns a JSON body.
pub(super) fn json<T: DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
    example: &str,
) -> Result<T, ApiError> {
    let help = format!("send JSON such as {example}");
    let bytes = body.map_err(|rejection| unread(&rejection, BODY_LIMIT, &help))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::request(format!("the body is not what is expected: {error}"), help))
}
