//! What a caller reads when a request cannot be answered: `{"code", "message", "help"}`, never more than it may know.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hydromesh_core::diag::did_you_mean;
use serde::Serialize;

use super::LookupError;

/// Why a request was refused. The code is stable; programs may act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ApiError {
    #[serde(skip)]
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    pub help: String,
}

impl ApiError {
    fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { status, code, message: message.into(), help: help.into() }
    }

    pub fn no_such_path(path: &str) -> Self {
        let help = "the API has /v1/status, /v1/features/DOMAIN/PRODUCT, /v1/search/DOMAIN/PRODUCT and /v1/commands; \
             webhooks are /webhooks/github and /webhooks/gitlab";
        Self::new(StatusCode::NOT_FOUND, "HM-H001", format!("nothing is served at `{}`", cut(path)), help)
    }

    pub fn no_such_product<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let help = match did_you_mean(asked, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`GET /v1/status` lists the deployed products".to_owned(),
        };
        Self::new(StatusCode::NOT_FOUND, "HM-H002", format!("no product `{}` is deployed", cut(asked)), help)
    }

    pub fn entity(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "HM-H003", message, help)
    }

    pub fn request(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "HM-H004", message, help)
    }

    pub fn no_access(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "HM-H005", message, help)
    }

    pub fn no_such_feature<'a>(asked: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Self {
        let help = match did_you_mean(asked, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        };
        Self::new(
            StatusCode::BAD_REQUEST,
            "HM-H006",
            format!("no feature `{}` is served here", cut(asked)),
            help,
        )
    }

    pub fn unauthorized() -> Self {
        let help = "send `Authorization: Bearer TOKEN` with the token that the controller was started with";
        Self::new(StatusCode::UNAUTHORIZED, "HM-H007", "the token is missing or wrong", help)
    }

    pub fn no_token_set() -> Self {
        let help = "start the controller with a token, or use the command line on the same host";
        Self::new(StatusCode::FORBIDDEN, "HM-H007", "commands over HTTP need a token and none is set", help)
    }

    pub fn too_large(limit: usize) -> Self {
        let help = "ask for fewer entities at once; a push whose webhook is larger is found by the poll";
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "HM-H008",
            format!("a body may have {limit} bytes at most"),
            help,
        )
    }

    pub fn slow(seconds: u64) -> Self {
        let message = format!("the answer took longer than {seconds} s");
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "HM-H009",
            message,
            "ask again; if it stays slow, look at /metrics",
        )
    }

    pub fn not_ready(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "HM-H010", message, "ask again in a few seconds")
    }

    /// The cause is logged and not told: it may name paths and addresses.
    pub fn failed(what: &str, error: &dyn std::error::Error) -> Self {
        let chain: Vec<String> =
            std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect();
        tracing::error!(error = chain.join(": "), "{what} failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "HM-H011",
            format!("{what} failed"),
            "the controller's log says why",
        )
    }

    pub fn wrong_method(method: &str) -> Self {
        let help = "look-ups and search are GET (several entities: POST), commands and webhooks are POST";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "HM-H012",
            format!("{} is not answered here", cut(method)),
            help,
        )
    }

    pub fn join(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "HM-H013", message, help)
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "HM-H014",
            message,
            "`hydromesh why PRODUCT` says what stands in the way",
        )
    }

    pub fn busy() -> Self {
        let message = "the controller has too many commands waiting, or is going down";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "HM-H015",
            message,
            "send it again with the same key: it counts once",
        )
    }

    pub fn no_webhooks() -> Self {
        let help = "start the controller with --webhook-secret-file, and give the forge the same secret";
        Self::new(StatusCode::NOT_FOUND, "HM-H017", "webhooks are not set up", help)
    }

    /// Not 401: that asks for a token, and none helps here.
    pub fn unsigned(header: &str) -> Self {
        let help = format!("a delivery carries {header}, made with the secret of --webhook-secret-file");
        Self::new(StatusCode::FORBIDDEN, "HM-H018", "the webhook's signature is missing or wrong", help)
    }

    pub fn webhook_type(kind: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "HM-H019",
            format!("a webhook of the type `{}` is not taken", cut(kind)),
            "choose `application/json` in the webhook's settings",
        )
    }

    pub fn wrong_host(host: &str) -> Self {
        let help =
            "open it as 127.0.0.1 or localhost; to serve other names, bind another address and set a token";
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            "HM-H016",
            format!("`{}` is not this host", cut(host)),
            help,
        )
    }
}

impl From<LookupError> for ApiError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NotReady(why) => Self::not_ready(why),
            LookupError::Failed(_) => Self::failed("the look-up", &error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer, Basic realm=\"hydromesh\""),
                );
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        response
    }
}

/// What a caller sent is quoted back only so far, and on one line.
pub(super) fn cut(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(120).collect()
}
