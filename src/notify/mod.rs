//! Tells people: one mail when an episode fires and one when it is over, to the same places.
//!
//! Control decides who hears of what and when; this module only writes and hands over. A message is built once as
//! plain facts, which every rendering shows alike. The same outbox id always yields the same
//! message id and the same file name, so a repeated delivery is recognisable as one by every mail program.

mod context;
mod facts;
mod folder;
mod html;
mod message;
mod page;
#[cfg(test)]
mod tests;
mod text;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hydromesh_core::ledger::Alert;
use hydromesh_core::model::Environment;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

pub use context::{History, LastChange, LastGood, MailContext};
pub use message::{first_message_id, message_id};
pub use page::incident_page;

/// The longest that one delivery may take. Control hands a message over again after ten minutes without an answer, so
/// an attempt must be over well before that.
const DELIVERY_LIMIT: Duration = Duration::from_mins(1);
/// The longest that a mail server may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// The port on which TLS comes before the first command; on every other one it is asked for by STARTTLS.
const IMPLICIT_TLS_PORT: u16 = 465;
/// Sender when the environment names none. Only good enough for a machine's own files and server.
const LOCAL_SENDER: &str = "Hydromesh <hydromesh@localhost>";

/// Why a message could not be delivered.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The place is no mail address.
    #[error("`{address}` is not a mail address")]
    Address {
        /// As given.
        address: String,
        /// Why.
        #[source]
        source: lettre::address::AddressError,
    },
    /// The environment's mail settings cannot work.
    #[error("mail setting `{setting}`: {why}")]
    Setting {
        /// The key in `mesh.yaml`.
        setting: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The outbox id cannot be part of a file name or of a message id.
    #[error("`{0}` is not an outbox id")]
    Outbox(String),
    /// The message could not be put together.
    #[error("the message could not be written")]
    Message(#[source] lettre::error::Error),
    /// The mail server refused or could not be reached.
    #[error("the mail server did not accept the message")]
    Smtp(#[source] lettre::transport::smtp::Error),
    /// The mail server took too long.
    #[error("the mail server did not answer within {} s", DELIVERY_LIMIT.as_secs())]
    Slow,
    /// The mail folder could not be written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl NotifyError {
    /// Returns whether the same message may go through later with nothing repaired.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Address { .. } | Self::Setting { .. } | Self::Outbox(_) | Self::Message(_) => false,
            Self::Smtp(source) => !source.is_permanent(),
            Self::Slow | Self::Io { .. } => true,
        }
    }
}

/// Hands messages to a mail server, or writes them as files where an environment has none.
#[derive(Debug, Clone)]
pub struct Mailer {
    from: Mailbox,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    Server(Box<AsyncSmtpTransport<Tokio1Executor>>),
    Folder(PathBuf),
}

impl Mailer {
    /// Returns a mailer for an environment: to its SMTP server, or to `<state>/mail/` when it names none.
    ///
    /// # Errors
    /// [`NotifyError::Setting`] when the server is not `host:port` or the sender is no mail address or, beyond this
    /// machine, missing.
    pub fn from_settings(settings: &Environment, state: &Path) -> Result<Self, NotifyError> {
        Self::with_credentials(settings, state, None)
    }

    /// Returns a mailer that signs in as `(user, password)`.
    ///
    /// # Errors
    /// See [`Mailer::from_settings`].
    pub fn with_credentials(
        settings: &Environment,
        state: &Path,
        credentials: Option<(String, String)>,
    ) -> Result<Self, NotifyError> {
        let from = settings.mail_from.as_deref().unwrap_or(LOCAL_SENDER);
        let from: Mailbox = from.parse().map_err(|_| NotifyError::Setting {
            setting: "mail.from",
            why: format!("`{from}` is not a mail address"),
        })?;
        let way = match &settings.smtp {
            None => Way::Folder(state.join("mail")),
            Some(server) => {
                let (host, port) = split_server(server)?;
                if settings.mail_from.is_none() && !is_loopback(&host) {
                    let why = format!("{host} needs a sender that can be answered");
                    return Err(NotifyError::Setting { setting: "mail.from", why });
                }
                Way::Server(Box::new(transport(&host, port, credentials)?))
            }
        };
        Ok(Self { from, way })
    }

    /// Greets the mail server and takes leave, signed in where it is to be; returns whether there is one.
    ///
    /// # Errors
    /// See [`NotifyError`].
    pub async fn greets(&self) -> Result<bool, NotifyError> {
        let Way::Server(server) = &self.way else { return Ok(false) };
        let answered = tokio::time::timeout(DELIVERY_LIMIT, server.test_connection()).await;
        answered.map_err(|_| NotifyError::Slow)?.map_err(NotifyError::Smtp)
    }

    /// Delivers one message and returns the next hop's receipt, or the file's path relative to the state folder.
    ///
    /// Delivering the same outbox id again gives the same message id and overwrites the same file: at least once on
    /// the wire, once for the human.
    ///
    /// # Errors
    /// See [`NotifyError`]; [`NotifyError::is_transient`] tells whether trying again makes sense.
    pub async fn deliver(
        &self,
        outbox_id: &str,
        to: &str,
        alert: &Alert,
        context: &MailContext,
    ) -> Result<String, NotifyError> {
        // The id becomes a file name.
        if outbox_id.is_empty()
            || outbox_id.len() > 80
            || !outbox_id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        {
            return Err(NotifyError::Outbox(outbox_id.to_owned()));
        }
        let mail = message::build(&self.from, outbox_id, to, alert, context)?;
        match &self.way {
            Way::Server(server) => {
                let sent = tokio::time::timeout(DELIVERY_LIMIT, server.send(mail)).await;
                let response = sent.map_err(|_| NotifyError::Slow)?.map_err(NotifyError::Smtp)?;
                let words: Vec<&str> = response.message().collect();
                Ok(crate::text::line(&format!("{} {}", response.code(), words.join(" ")), 200))
            }
            Way::Folder(folder) => {
                let (folder, name, bytes) = (folder.clone(), format!("{outbox_id}.eml"), mail.formatted());
                let written =
                    tokio::task::spawn_blocking(move || folder::write(&folder, &name, &bytes)).await;
                written.map_err(|error| NotifyError::Io {
                    action: "write",
                    path: PathBuf::from("mail"),
                    source: std::io::Error::other(error),
                })?
            }
        }
    }
}

fn split_server(server: &str) -> Result<(String, u16), NotifyError> {
    let bad = || NotifyError::Setting { setting: "mail.smtp", why: format!("`{server}` is not `host:port`") };
    let (host, port) = server.rsplit_once(':').ok_or_else(bad)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().map_err(|_| bad())?;
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Err(bad())
    } else {
        Ok((host.to_owned(), port))
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Plain text never leaves this machine: beyond loopback a connection without TLS is refused, whatever the server says.
fn transport(
    host: &str,
    port: u16,
    credentials: Option<(String, String)>,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, NotifyError> {
    let parameters = || TlsParameters::new(host.to_owned()).map_err(NotifyError::Smtp);
    let tls = match port {
        _ if is_loopback(host) => Tls::None,
        IMPLICIT_TLS_PORT => Tls::Wrapper(parameters()?),
        _ => Tls::Required(parameters()?),
    };
    let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(port)
        .tls(tls)
        .timeout(Some(ANSWER_LIMIT));
    Ok(match credentials {
        Some((user, password)) => builder.credentials(Credentials::new(user, password)).build(),
        None => builder.build(),
    })
}
