//! Who may ask. Loopback is open to the machine's own users; any other address needs a token for everything
//! but health and webhooks, which carry a signature.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::ServeState;
use super::error::ApiError;
use super::webhooks::{GITHUB, GITLAB};

/// Shortest secret: 16 characters of 64 are 96 bits when drawn at random.
pub(super) const SHORTEST_SECRET: usize = 16;

/// Returns whether a secret cannot be guessed, and survives a header.
pub(super) fn is_strong(secret: &str) -> bool {
    secret.len() >= SHORTEST_SECRET && secret.chars().all(|c| c.is_ascii_graphic())
}

/// Why an address may not be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Everybody who reaches the address could read and command.
    #[error("{address} can be reached from other machines and no token is set")]
    NoToken {
        /// The address.
        address: SocketAddr,
    },
    /// It could be guessed, or would not survive a header.
    #[error("a token is at least {SHORTEST_SECRET} visible ASCII characters")]
    BadToken,
}

/// Who may ask.
///
/// Tokens are kept and compared as hashes: the time of the comparison then says nothing about the token.
#[derive(Clone)]
pub struct Guard {
    bearer: Option<[u8; 32]>,
    basic: Option<[u8; 32]>,
    reach: Reach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Loopback,
    Network,
}

#[expect(clippy::missing_fields_in_debug, reason = "of the tokens nothing is told but whether there are any")]
impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("reach", &self.reach).field("token", &self.bearer.is_some()).finish()
    }
}

/// Returns who may ask on an address.
///
/// # Errors
/// [`BindError`] when the address is not loopback and there is no token, or the token is weak.
pub fn check_bind(address: SocketAddr, token: Option<&str>) -> Result<Guard, BindError> {
    if token.is_some_and(|token| !is_strong(token)) {
        return Err(BindError::BadToken);
    }
    // `::ffff:127.0.0.1` is loopback as well.
    let reach = if address.ip().to_canonical().is_loopback() { Reach::Loopback } else { Reach::Network };
    if reach == Reach::Network && token.is_none() {
        return Err(BindError::NoToken { address });
    }
    let bearer = token.map(|token| hash(format!("Bearer {token}").as_bytes()));
    Ok(Guard { bearer, basic: token.and_then(basic), reach })
}

/// Browsers cannot send a bearer token for a page; they ask for a name and a password instead. The name is `hydromesh`.
fn basic(token: &str) -> Option<[u8; 32]> {
    let request =
        reqwest::Client::new().get("http://localhost/").basic_auth("hydromesh", Some(token)).build().ok()?;
    request.headers().get(header::AUTHORIZATION).map(|value| hash(value.as_bytes()))
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl Guard {
    /// Whether a request carries the token.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(given) = headers.get(header::AUTHORIZATION) else { return false };
        let given = hash(given.as_bytes());
        let same = |wanted: &Option<[u8; 32]>| {
            // Every byte is looked at, whatever the first ones say.
            wanted.is_some_and(|wanted| {
                wanted.iter().zip(given).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
            })
        };
        same(&self.bearer) | same(&self.basic)
    }

    /// Checks that a request may change something: that takes the token everywhere, as any page in any browser of the
    /// machine can send requests to loopback.
    pub(super) fn check_command(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        match &self.bearer {
            None => Err(ApiError::no_token_set()),
            Some(_) if self.knows(headers) => Ok(()),
            Some(_) => Err(ApiError::unauthorized()),
        }
    }
}

pub(super) async fn check(State(state): State<Arc<ServeState>>, request: Request, next: Next) -> Response {
    let probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    // They are signed, which no browser can do for a page and which needs no token; a proxy keeps the forge's host name.
    let signed = matches!(request.uri().path(), GITHUB | GITLAB);
    let refused = match state.guard.reach {
        _ if signed => None,
        Reach::Network => (!probe && !state.guard.knows(request.headers())).then(ApiError::unauthorized),
        Reach::Loopback => foreign_host(&request).map(|host| ApiError::wrong_host(&host)),
    };
    match refused {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}

/// Returns the host that a request names, if it is not this machine: a foreign page whose name was made to resolve to
/// loopback (DNS rebinding) would otherwise read everything as its own.
fn foreign_host(request: &Request) -> Option<String> {
    let named = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?").to_owned());
    let named = named.or_else(|| request.uri().authority().map(|authority| authority.as_str().to_owned()))?;
    let host = match named.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        _ => named.as_str(),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let local = bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    (!local).then_some(named)
}
