//! One mail: headers that thread an episode, and a body in two renderings.

use std::time::{Duration, UNIX_EPOCH};

use hydromesh_core::ledger::{Alert, AlertState, EpisodeRecord};
use lettre::Message;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use sha2::{Digest, Sha256};

use super::facts::{Facts, state_name};
use super::{MailContext, NotifyError, html, text};
use crate::text::line;

/// Returns the id of the message about one transition of an episode to one address.
///
/// It is derived and not drawn, so that a repeated delivery carries the same id and mail programs show it once.
#[must_use]
pub fn message_id(episode: &str, transition: u32, to: &str) -> String {
    let hash = |text: &str| hex::encode(&Sha256::digest(text.as_bytes())[..8]);
    format!("<{}.{transition}.{}@hydromesh>", hash(episode), hash(to))
}

/// Returns the id of the first message of an episode to an address, for a message about a later transition.
#[must_use]
pub fn first_message_id(episode: &EpisodeRecord, alert: &Alert, to: &str) -> Option<String> {
    let first =
        episode.transitions.iter().map(|(_, alert)| alert).find(|alert| alert.state == AlertState::Firing)?;
    (first.transition < alert.transition).then(|| message_id(&first.episode, first.transition, to))
}

pub(super) fn build(
    from: &Mailbox,
    outbox: &str,
    to: &str,
    alert: &Alert,
    context: &MailContext,
) -> Result<Message, NotifyError> {
    let to_box = Mailbox::new(
        None,
        to.parse().map_err(|source| NotifyError::Address { address: line(to, 200), source })?,
    );
    let facts = Facts::of(outbox, alert, context);
    let json =
        serde_json::to_string_pretty(&facts).expect("plain facts serialise: string keys, no failing impl");
    let seconds = u64::try_from(context.now_ms / 1_000).unwrap_or(0);
    let mut mail = Message::builder()
        .from(from.clone())
        .to(to_box)
        .subject(facts.subject_line())
        .date(UNIX_EPOCH + Duration::from_secs(seconds))
        .message_id(Some(message_id(&alert.episode, alert.transition, to)));
    if let Some(first) = context.first_message_id.as_deref().filter(|id| is_message_id(id)) {
        mail = mail.in_reply_to(first.to_owned()).references(first.to_owned());
    }
    // Auto-Submitted keeps holiday replies from answering (RFC 3834).
    let headers = [
        (HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated"),
        (HeaderName::new_from_ascii_str("X-Hydromesh-Environment"), &facts.environment),
        (HeaderName::new_from_ascii_str("X-Hydromesh-Product"), &facts.product),
        (HeaderName::new_from_ascii_str("X-Hydromesh-Kind"), facts.kind.as_str()),
        (HeaderName::new_from_ascii_str("X-Hydromesh-State"), state_name(facts.state)),
        (HeaderName::new_from_ascii_str("X-Hydromesh-Episode"), &facts.episode),
        (HeaderName::new_from_ascii_str("X-Hydromesh-Transition"), &facts.transition.to_string()),
        (HeaderName::new_from_ascii_str("X-Hydromesh-Outbox"), outbox),
    ];
    for (name, value) in headers {
        mail = mail.raw_header(HeaderValue::new(name, value.to_owned()));
    }
    let body = MultiPart::alternative()
        .boundary(format!("hydromesh-{outbox}"))
        .singlepart(SinglePart::plain(text::render(&facts, &json)))
        .singlepart(SinglePart::html(html::render(&facts, &json)));
    mail.multipart(body).map_err(NotifyError::Message)
}

/// A message id that may stand in a header: `<left@right>` without anything that could end the line or the id.
fn is_message_id(text: &str) -> bool {
    let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    inner.is_some_and(|inner| {
        inner.len() <= 200
            && inner.contains('@')
            && inner.chars().all(|c| c.is_ascii_graphic() && c != '<' && c != '>')
    })
}
