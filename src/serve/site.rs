//! The files of the site, as the newest published generation has them.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use tower_http::services::ServeDir;

use super::ServeState;
use super::error::ApiError;

/// Types by the ending of a file's name. Anything else the site does not have, so it is offered for download only.
const TYPES: [(&str, &str); 8] = [
    ("html", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("svg", "image/svg+xml; charset=utf-8"),
    ("json", "application/json"),
    ("atom", "application/atom+xml; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("png", "image/png"),
    ("ico", "image/x-icon"),
];

const MISSING: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Not found</title></head>\
    <body><h1>There is no such page</h1><p>It may have been retired. <a href=\"/\">Back to the overview</a></p></body></html>";
const EMPTY: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Starting</title></head>\
    <body><h1>The site is not built yet</h1><p>It appears with the first commit that is looked at. \
    <a href=\"/v1/status\">Status as JSON</a></p></body></html>";

pub(super) async fn file(State(state): State<Arc<ServeState>>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ApiError::wrong_method(request.method().as_str()).into_response();
    }
    let path = request.uri().path().to_owned();
    // Hidden files are not of the site; something else put them there.
    let hidden =
        path.split('/').any(|part| part.starts_with('.') || part.to_ascii_lowercase().starts_with("%2e"));
    if hidden {
        return missing(&path, &request);
    }
    let wants_page = wants_page(&request);
    let mut service = ServeDir::new(&state.site).append_index_html_on_directories(true);
    match service.try_call(request).await {
        Ok(found) if found.status() == StatusCode::NOT_FOUND => {
            let built = tokio::fs::metadata(state.site.join("index.html")).await.is_ok();
            match (built, wants_page) {
                (false, true) => (StatusCode::SERVICE_UNAVAILABLE, Html(EMPTY)).into_response(),
                (false, false) => ApiError::not_ready("the site is not built yet").into_response(),
                (true, true) => (StatusCode::NOT_FOUND, Html(MISSING)).into_response(),
                (true, false) => ApiError::no_such_path(&path).into_response(),
            }
        }
        Ok(found) => typed(&path, found.map(Body::new)),
        Err(error) => ApiError::failed("reading the site", &error).into_response(),
    }
}

fn wants_page(request: &Request) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

fn missing(path: &str, request: &Request) -> Response {
    if wants_page(request) {
        (StatusCode::NOT_FOUND, Html(MISSING)).into_response()
    } else {
        ApiError::no_such_path(path).into_response()
    }
}

fn typed(path: &str, mut response: Response) -> Response {
    if !response.status().is_success() {
        return response;
    }
    let name = if path.ends_with('/') { "index.html" } else { path };
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let kind =
        TYPES.iter().find(|(known, _)| *known == ending).map_or("application/octet-stream", |(_, kind)| kind);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Kept, but asked about each time: a new generation shows at once, an unchanged file costs no bytes.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
