//! `POST /v1/commands`: hands what someone asks for to control, and waits a moment for its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hydromesh_core::diag::did_you_mean;
use hydromesh_core::ledger::{Command, Verb};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::error::ApiError;
use super::{ServeState, request, snapshot};
use crate::text::run_id;

/// How long control may take to answer before the caller is told to look later.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest reason, idempotency key and name of an actor, in characters. The key's is the store's limit.
const LONGEST: usize = 200;
const EXAMPLE: &str = r#"{"verb": "retry", "product": "commerce/orders", "reason": "disk is free again", "key": "a-unique-text"}"#;

/// A command on its way to control.
#[derive(Debug)]
pub struct CommandRequest {
    /// Idempotency key: the same key asks once, however often it is sent.
    pub key: String,
    /// What is asked. Its id is derived from the key.
    pub command: Command,
    /// Where the answer goes; the caller may have gone.
    pub answer: oneshot::Sender<CommandReply>,
}

/// What control says to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandReply {
    /// It is done or under way.
    pub accepted: bool,
    /// For people.
    pub answer: String,
}

pub(super) async fn submit(
    State(state): State<Arc<ServeState>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    state.guard.check_command(&headers)?;
    let (key, command) = parse(request::json(body, EXAMPLE)?)?;
    request::product_at(&snapshot(&state.ledger), &command.verb.product().to_string())?;
    let id = command.id.clone();
    let (answer, answered) = oneshot::channel();
    state.commands.try_send(CommandRequest { key, command, answer }).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) | mpsc::error::TrySendError::Closed(_) => ApiError::busy(),
    })?;
    match tokio::time::timeout(PATIENCE, answered).await {
        Ok(Ok(CommandReply { accepted: true, answer })) => {
            Ok(Json(json!({ "id": id, "accepted": true, "answer": answer })).into_response())
        }
        Ok(Ok(CommandReply { answer, .. })) => Err(ApiError::refused(answer)),
        Ok(Err(_)) => Err(ApiError::busy()),
        Err(_) => {
            let body =
                json!({ "id": id, "accepted": null, "answer": "control has it and has not answered yet" });
            Ok((StatusCode::ACCEPTED, Json(body)).into_response())
        }
    }
}

fn parse(mut body: Map<String, Value>) -> Result<(String, Command), ApiError> {
    let mut text = |name: &str| match body.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => {
            let text = text.trim().to_owned();
            let legal = (1..=LONGEST).contains(&text.chars().count()) && !text.chars().any(char::is_control);
            legal
                .then_some(Some(text))
                .ok_or_else(|| bad(format!("`{name}` has 1 to {LONGEST} characters on one line")))
        }
        Some(_) => Err(bad(format!("`{name}` is a text"))),
    };
    let (reason, key, actor) = (text("reason")?, text("key")?, text("actor")?);
    let reason = reason.ok_or_else(|| bad("`reason` is missing: the ledger keeps why".to_owned()))?;
    let key = key.ok_or_else(|| bad("`key` is missing: it makes sending twice safe".to_owned()))?;
    let mut verb: Verb =
        serde_json::from_value(Value::Object(body.clone())).map_err(|error| bad(error.to_string()))?;
    if let Verb::Cancel { run, .. } = &mut verb {
        *run = run_id(run);
    }
    let Ok(Value::Object(known)) = serde_json::to_value(&verb) else {
        return Err(bad("the verb is unknown".to_owned()));
    };
    // A misspelt key would otherwise be ignored in silence.
    if let Some(odd) = body.keys().find(|name| !known.contains_key(*name)) {
        let names = known.keys().map(String::as_str).chain(["reason", "key", "actor"]);
        let help = did_you_mean(odd, names)
            .map_or_else(|| format!("send JSON such as {EXAMPLE}"), |near| format!("did you mean `{near}`?"));
        return Err(ApiError::request(format!("unknown key `{}`", odd.escape_debug()), help));
    }
    let id = format!("cmd-{}", hex::encode(&Sha256::digest(key.as_bytes())[..8]));
    Ok((key, Command { id, actor: actor.unwrap_or_else(|| "http".to_owned()), reason, verb }))
}

fn bad(message: String) -> ApiError {
    ApiError::request(message, format!("send JSON such as {EXAMPLE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_may_be_named_without_its_zeros() {
        let body = json!({"verb": "cancel", "product": "shop/orders", "run": "run-12", "reason": "too long", "key": "k"});
        let Value::Object(body) = body else { panic!("an object") };
        let (_, command) = parse(body).expect("a command");
        assert!(matches!(&command.verb, Verb::Cancel { run, .. } if run == "run-00000012"), "{command:?}");
    }
}
