//! The mailbox: what people ask for, before the active controller turns it into facts.
//!
//! Anybody who may write to the ledger's database may submit, with no lease: a command has no effect until the controller,
//! under its epoch, appends that it took it and later how it ended. Which are taken is read from those facts alone,
//! so a crash between the two loses nothing and repeats nothing.

use super::StoreError;

/// Largest command accepted: 256 KiB. Commands come from people and scripts; facts come from us.
pub const MAX_COMMAND_BYTES: usize = 256 * 1024;

/// A command as submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Rises in order of submission; may have gaps.
    pub id: u64,
    pub key: String,
    pub at_ms: i64,
    /// JSON text.
    pub body: String,
}

/// What a submission did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Submitted {
    pub id: u64,
    pub submission: Submission,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submission {
    New,
    /// The same key and body were there already; nothing was written.
    Repeated,
}

/// Refuses what no database need see.
pub(super) fn check_command(key: &str, body: &str) -> Result<(), StoreError> {
    let legal_key = !key.is_empty() && key.chars().count() <= 200 && !key.contains('\0');
    let legal_body =
        body.len() <= MAX_COMMAND_BYTES && serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
    if legal_key && legal_body { Ok(()) } else { Err(StoreError::BadCommand) }
}

/// Answers a submission whose key is known already.
pub(super) fn repeated(id: u64, key: &str, before: &str, body: &str) -> Result<Submitted, StoreError> {
    if before == body {
        Ok(Submitted { id, submission: Submission::Repeated })
    } else {
        Err(StoreError::KeyReused { key: key.to_owned() })
    }
}
