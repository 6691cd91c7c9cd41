//! What a gate's worker process is asked and answers: JSON texts, each behind its length.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    decision::{Decision, SourceSet},
    rules::RuleTexts,
};

/// The longest request: a bundle's module, as hexadecimal digits, and then some.
pub(super) const MOST_REQUEST_BYTES: u32 = 256 << 20;
/// The longest answer. A decision goes into the ledger: one with thousands of findings has under 1 MiB.
pub(super) const MOST_REPLY_BYTES: u32 = 4 << 20;

/// What a worker is asked. Rules are sent once and then called by their digest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request<R, V> {
    /// Keep these rules ready.
    Load { digest: String, rules: R },
    /// Judge an input by rules that are ready.
    Decide { digest: String, input: V },
}

/// A request as it is read.
pub(super) type Asked = Request<RuleTexts, Value>;

/// What a worker answers. All but [`Reply::Asking`] end its answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// The rules are ready.
    Loaded,
    /// Rules of that digest are not there, or not any more.
    NotLoaded,
    /// This is asked now; more follows.
    Asking(Place),
    /// The answer.
    Decided(Box<Decision>),
}

/// Where in its rules a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The layer.
    pub set: SourceSet,
    /// `data.PACKAGE.deny`.
    pub question: String,
    /// The file that declares it, if that is known.
    pub file: String,
}

/// Writes one message.
///
/// # Errors
/// When it cannot be written, or is too long for its length.
pub(super) fn send<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    to.write_all(&frame(message)?)?;
    to.flush()
}

/// Returns one message with its length before it.
pub(super) fn frame<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// Reads one message's bytes; nothing at the end.
///
/// # Errors
/// When reading fails, the end comes within a message, or it is longer than `most`.
pub(super) fn receive(from: &mut impl Read, most: u32) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let mut read = 0;
    while read < length.len() {
        match from.read(&mut length[read..])? {
            0 if read == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
    }
    let length = u32::from_be_bytes(length);
    if length > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Bit by bit, so that a length alone takes no memory.
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_or_not_at_all() {
        let mut sent = Vec::new();
        send(&mut sent, &"first").unwrap();
        send(&mut sent, &[1, 2]).unwrap();
        let mut from = sent.as_slice();
        assert_eq!(receive(&mut from, 100).unwrap().unwrap(), b"\"first\"");
        assert_eq!(receive(&mut from, 100).unwrap().unwrap(), b"[1,2]");
        assert!(receive(&mut from, 100).unwrap().is_none(), "the end");
        for cut in 1..11 {
            assert!(receive(&mut &sent[..cut], 100).is_err(), "cut after {cut}");
        }
        assert!(receive(&mut sent.as_slice(), 6).is_err(), "longer than it may");
        assert!(receive(&mut [0xff; 4].as_slice(), u32::MAX).is_err(), "a length and nothing behind it");
    }
}
