//! Commit statuses: says on GitHub or GitLab what became of a commit, beside the commit itself.
//!
//! A courtesy, not a promise: the ledger is what holds. Posting the same status again changes nothing, so whoever calls
//! may repeat it; nothing here waits or tries again.

#[cfg(test)]
pub(crate) mod tests;

use std::str::FromStr;
use std::time::Duration;

use hydromesh_core::ledger::Outcome;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, redirect};
use serde_json::{Value, json};
use url::Url;

use crate::text::{chain, line};

/// How long a connection may take, and then the whole answer.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);
/// Longest description, in characters: GitHub's limit; GitLab allows more.
const DESCRIPTION: usize = 140;
/// Most of a refusal that is read: it is one sentence in JSON.
const REFUSAL_BYTES: usize = 4 * 1024;
/// What GitLab says (with 400) to a status that a commit has already.
const HAS_IT_ALREADY: &str = "Cannot transition status";

/// Which interface a forge speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Also Gitea and Forgejo, which took it over.
    GitHub,
    GitLab,
}

/// Where statuses go: `github=https://api.github.com/repos/OWNER/REPO` or `gitlab=https://gitlab.com/api/v4/projects/ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    kind: Kind,
    base: Url,
}

/// Why an address is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It begins with something else.
    #[error("write github=https://HOST/repos/OWNER/REPO or gitlab=https://HOST/api/v4/projects/ID")]
    Kind,
    /// The part behind `=`.
    #[error("that is no URL")]
    Url(#[from] url::ParseError),
    /// The token would travel in the open.
    #[error("the token is sent over https only; http is for this machine's own addresses")]
    Open,
    /// A password, a query or a fragment.
    #[error("the address has parts that an API's has not; the token goes into --commit-status-token-file")]
    Parts,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (kind, url) = text.split_once('=').ok_or(AddressError::Kind)?;
        let kind = match kind {
            "github" => Kind::GitHub,
            "gitlab" => Kind::GitLab,
            _ => return Err(AddressError::Kind),
        };
        let base = Url::parse(url)?;
        let loopback = match base.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if base.scheme() != "https" && !(base.scheme() == "http" && loopback) {
            return Err(AddressError::Open);
        }
        let bare = base.username().is_empty() && base.password().is_none();
        if !bare || base.query().is_some() || base.fragment().is_some() {
            return Err(AddressError::Parts);
        }
        Ok(Self { kind, base })
    }
}

/// Why no statuses can be posted at all.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// It could not be sent as a header.
    #[error("a token is visible ASCII characters")]
    Token,
    /// The system's part of it, such as its certificates.
    #[error("connections to the forge cannot be made")]
    Client(#[source] reqwest::Error),
}

/// Why a status was not posted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// It may be accepted later with nothing repaired.
    #[error("{why}")]
    Later {
        /// For people.
        why: String,
        /// How long the forge asks to wait.
        after: Option<Duration>,
    },
    /// It will not be accepted until somebody changes something.
    #[error("{0}")]
    Refused(String),
}

/// A forge that may be told.
#[derive(Debug, Clone)]
pub struct Forge {
    address: Address,
    context: String,
    page: Option<String>,
    /// Carries the token in its headers, marked so that it is never shown.
    client: Client,
}

impl Forge {
    /// Returns a forge, with the name under which an environment's statuses stand there and a page that they lead to.
    ///
    /// # Errors
    /// When the token is none, or the system's TLS cannot be set up.
    pub fn new(
        address: Address,
        token: &str,
        environment: &str,
        page: Option<String>,
    ) -> Result<Self, ForgeError> {
        if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(ForgeError::Token);
        }
        let secret = |text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| ForgeError::Token)?;
            value.set_sensitive(true);
            Ok(value)
        };
        let headers = match address.kind {
            Kind::GitHub => [
                (AUTHORIZATION, secret(&format!("Bearer {token}"))?),
                (ACCEPT, HeaderValue::from_static("application/vnd.github+json")),
            ],
            Kind::GitLab => [
                (HeaderName::from_static("private-token"), secret(token)?),
                (ACCEPT, HeaderValue::from_static("application/json")),
            ],
        };
        let client = Client::builder()
            .user_agent(concat!("hydromesh/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter(headers))
            // Whoever can answer with a redirect, or sets a variable, would be handed the token.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .build()
            .map_err(ForgeError::Client)?;
        Ok(Self { address, context: format!("hydromesh/{environment}"), page, client })
    }

    /// Says what became of a commit.
    ///
    /// A superseded commit gets no status. It is neither good nor bad, a push of twenty commits supersedes nineteen, and
    /// no state of GitHub says so: `error` would mark each of them as failed for ever.
    ///
    /// # Errors
    /// [`PostError`] says whether trying again can help.
    pub async fn post(&self, commit: &str, outcome: Outcome, why: &str) -> Result<(), PostError> {
        let Some(state) = state(self.address.kind, outcome) else { return Ok(()) };
        let mut body = json!({
            "state": state,
            "context": self.context,
            "description": describe(outcome, why),
        });
        if let Some(page) = &self.page {
            body["target_url"] = page.as_str().into();
        }
        let mut url = self.address.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["statuses", commit]);
        }
        match self.client.post(url).json(&body).send().await {
            Ok(answer) => judge(answer).await,
            Err(error) => Err(PostError::Later { why: chain(&error.without_url()), after: None }),
        }
    }
}

/// Returns a forge's word for an outcome.
fn state(kind: Kind, outcome: Outcome) -> Option<&'static str> {
    Some(match (outcome, kind) {
        (Outcome::Applied, _) => "success",
        (Outcome::Held, _) => "pending",
        (Outcome::Denied | Outcome::Broken, Kind::GitHub) => "failure",
        (Outcome::Denied | Outcome::Broken, Kind::GitLab) => "failed",
        (Outcome::Superseded, _) => return None,
    })
}

/// Returns one line within the forge's limit.
fn describe(outcome: Outcome, why: &str) -> String {
    line(&format!("{}: {why}", outcome.word()), DESCRIPTION)
}

/// Tells what an answer means.
async fn judge(answer: Response) -> Result<(), PostError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let after = answer.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
    let after = after.map(Duration::from_secs);
    let said = said(answer).await;
    let why = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    // GitHub's limit for writing too fast is a 403 that says when to come back.
    let hurried = status == StatusCode::FORBIDDEN && after.is_some();
    let passing = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
    if status.is_server_error() || passing || hurried {
        Err(PostError::Later { why, after })
    } else if status == StatusCode::BAD_REQUEST && said.contains(HAS_IT_ALREADY) {
        Ok(())
    } else if status.is_redirection() {
        Err(PostError::Refused(format!("{why}; redirects are not followed, give the address itself")))
    } else {
        Err(PostError::Refused(why))
    }
}

/// Returns what a forge says of its refusal, on one line.
async fn said(mut answer: Response) -> String {
    let mut body = Vec::new();
    while body.len() < REFUSAL_BYTES
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(REFUSAL_BYTES);
    let told = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let message = told.get("message").or_else(|| told.get("error")).unwrap_or(&Value::Null);
    match message {
        Value::Null => String::new(),
        Value::String(text) => line(text, DESCRIPTION),
        other => line(&other.to_string(), DESCRIPTION),
    }
}
