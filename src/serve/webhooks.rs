//! `POST /webhooks/github` and `POST /webhooks/gitlab`: hints that the repository has moved.
//!
//! Whoever knows the secret can make us look at the repository sooner, and nothing else, so a replayed delivery is
//! harmless. Nothing of a body is believed: once its sender is known, the name of the reference is read to leave pushes to
//! other branches alone, and whatever is not clear counts as a hint.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ring::hmac;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::error::{ApiError, cut};
use super::guard::{SHORTEST_SECRET, is_strong};
use super::{ServeState, request};

/// Where they are answered: without the token of other requests, because their signature stands for it.
pub(super) const GITHUB: &str = "/webhooks/github";
pub(super) const GITLAB: &str = "/webhooks/gitlab";
/// Largest body. A push of 2,000 commits has less, as long as each changes few files.
pub(super) const WEBHOOK_LIMIT: usize = 1024 * 1024;
/// Bodies read at once: 16 MiB in all from senders who are not known yet.
const BODIES: usize = 16;

/// A secret that could be guessed, or would not survive a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is at least {SHORTEST_SECRET} visible ASCII characters")]
pub struct WeakSecret;

/// What a forge proves itself with.
pub struct WebhookSecret {
    key: hmac::Key,
    /// Of the secret itself, which GitLab sends as it is: comparing tags takes the same time whatever it sends.
    tag: hmac::Tag,
}

impl WebhookSecret {
    /// Takes a secret.
    ///
    /// # Errors
    /// [`WeakSecret`].
    pub fn new(secret: &str) -> Result<Self, WeakSecret> {
        if !is_strong(secret) {
            return Err(WeakSecret);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, secret.as_bytes());
        Ok(Self { key, tag })
    }
}

/// Takes hints and passes them on.
pub struct Webhooks {
    secret: WebhookSecret,
    reference: String,
    hint: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
    bodies: Semaphore,
}

/// What a delivery says it is about.
enum Event {
    Push,
    Other,
    /// GitHub asks whether we are there.
    Ping,
}

impl Webhooks {
    /// Passes pushes to `reference` on to `hint`.
    pub fn new(
        secret: WebhookSecret,
        reference: String,
        hint: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { secret, reference, hint: Box::new(hint), bodies: Semaphore::new(BODIES) }
    }

    /// Answers a delivery whose sender is known.
    fn answer(&self, event: &Event, headers: &HeaderMap, body: &[u8]) -> Result<Response, ApiError> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::webhook_type(kind));
        }
        let ignored = |why: &str| Json(json!({ "accepted": false, "why": why }));
        match event {
            Event::Ping => return Ok(ignored("a ping says nothing of the repository").into_response()),
            Event::Other => return Ok((StatusCode::ACCEPTED, ignored("it is not a push")).into_response()),
            Event::Push => {}
        }
        if let Some(other) = pushed(body).filter(|pushed| is_another(pushed, &self.reference)) {
            let why = format!("`{}` is not the reference of this environment", cut(&other));
            return Ok((StatusCode::ACCEPTED, ignored(&why)).into_response());
        }
        (self.hint)().map_err(|error| ApiError::failed("passing the webhook on", &error))?;
        tracing::debug!("a webhook asks to look at the repository");
        Ok((StatusCode::ACCEPTED, Json(json!({ "accepted": true }))).into_response())
    }
}

pub(super) async fn github(
    State(state): State<Arc<ServeState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let webhooks = state.webhooks.as_ref().ok_or_else(ApiError::no_webhooks)?;
    let headers = request.headers().clone();
    // Refused before anything of the body is read. `X-Hub-Signature` is the same with SHA-1, and does not count.
    let unsigned = || ApiError::unsigned("`X-Hub-Signature-256: sha256=...`");
    let signature = text(&headers, "x-hub-signature-256").and_then(|it| it.strip_prefix("sha256="));
    let signature = signature.and_then(|it| hex::decode(it).ok()).ok_or_else(unsigned)?;
    let _slot = webhooks.bodies.acquire().await.expect("the semaphore is never closed");
    let body = body(request).await?;
    hmac::verify(&webhooks.secret.key, &body, &signature).map_err(|_| unsigned())?;
    let event = match text(&headers, "x-github-event") {
        None | Some("push") => Event::Push,
        Some("ping") => Event::Ping,
        Some(_) => Event::Other,
    };
    webhooks.answer(&event, &headers, &body)
}

pub(super) async fn gitlab(
    State(state): State<Arc<ServeState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let webhooks = state.webhooks.as_ref().ok_or_else(ApiError::no_webhooks)?;
    let headers = request.headers().clone();
    let secret = &webhooks.secret;
    let token = headers.get("x-gitlab-token").map_or(&b""[..], |token| token.as_bytes());
    hmac::verify(&secret.key, token, secret.tag.as_ref())
        .map_err(|_| ApiError::unsigned("`X-Gitlab-Token: SECRET`"))?;
    let _slot = webhooks.bodies.acquire().await.expect("the semaphore is never closed");
    let body = body(request).await?;
    let event = match text(&headers, "x-gitlab-event") {
        None | Some("Push Hook" | "Tag Push Hook" | "System Hook") => Event::Push,
        Some(_) => Event::Other,
    };
    webhooks.answer(&event, &headers, &body)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Reads a body. One that says beforehand that it is too large is refused at once, so that its sender hears the answer.
async fn body(request: Request) -> Result<Bytes, ApiError> {
    let declared = text(request.headers(), "content-length").and_then(|it| it.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > WEBHOOK_LIMIT as u64) {
        return Err(ApiError::too_large(WEBHOOK_LIMIT));
    }
    Bytes::from_request(request, &())
        .await
        .map_err(|rejection| request::unread(&rejection, WEBHOOK_LIMIT, "send what the forge sends"))
}

/// Returns the reference that a push says it moved. The rest of the body is skipped, without recursion and unkept.
fn pushed(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Push {
        r#ref: String,
    }
    serde_json::from_slice(body).ok().map(|push: Push| push.r#ref)
}

/// Whether a pushed reference is certainly not the watched one.
fn is_another(pushed: &str, watched: &str) -> bool {
    let is_full = |name: &str| name.starts_with("refs/");
    // `HEAD`, `main~1` and commit ids mean what other references bring.
    let derived = watched == "HEAD"
        || watched.contains(['~', '^'])
        || (watched.len() >= 7 && watched.bytes().all(|b| b.is_ascii_hexdigit()));
    if derived || !is_full(pushed) {
        return false;
    }
    let short = ["refs/heads/", "refs/tags/"].iter().find_map(|prefix| pushed.strip_prefix(prefix));
    pushed != watched && (is_full(watched) || short != Some(watched))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_push_that_is_certainly_of_another_reference_is_left_alone() {
        for (pushed, watched) in [
            ("refs/heads/main", "refs/heads/main"),
            ("refs/heads/main", "main"),
            ("refs/tags/main", "main"),
            ("main", "refs/heads/main"),
            ("", "refs/heads/main"),
            ("refs/heads/topic", "HEAD"),
            ("refs/heads/topic", "main~1"),
            ("refs/heads/topic", "c0ffee1"),
        ] {
            assert!(!is_another(pushed, watched), "{pushed} {watched}");
        }
        for (pushed, watched) in [
            ("refs/heads/topic", "refs/heads/main"),
            ("refs/tags/main", "refs/heads/main"),
            ("refs/heads/main2", "main"),
            ("refs/heads/team/main", "main"),
            ("refs/notes/main", "main"),
        ] {
            assert!(is_another(pushed, watched), "{pushed} {watched}");
        }
    }

    #[test]
    fn a_body_is_read_for_its_reference_alone() {
        let deep =
            format!(r#"{{"x": {}1{}, "ref": "refs/heads/a"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(pushed(deep.as_bytes()), Some("refs/heads/a".to_owned()), "it costs no stack");
        for unclear in [
            "",
            "null",
            "[]",
            r#"{"ref": null}"#,
            r#"{"ref": ["refs/heads/a"]}"#,
            r#"{"ref": "a", "ref": "b"}"#,
            r#"{"ref": "refs/heads/a""#,
            r#"{"push": {"changes": []}}"#,
        ] {
            assert_eq!(pushed(unclear.as_bytes()), None, "{unclear}");
        }
    }

    #[test]
    fn secrets_are_long_and_fit_into_a_header() {
        for weak in [
            "",
            "fifteen-letters",
            "with spaces in between",
            "sixteen-letters\u{e9}",
            "line\nbreak-line-break",
        ] {
            assert_eq!(WebhookSecret::new(weak).err(), Some(WeakSecret), "{weak:?}");
        }
        assert!(WebhookSecret::new("sixteen-letters!").is_ok());
    }
}
