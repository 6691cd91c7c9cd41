//! OpenPGP, as far as the signatures of commits need it: version 4 keys and signatures over SHA-2 (RFC 4880, RFC 9580).
//!
//! Why not a library: the one that fits brings seventy crates and an RSA with an open advisory, for five kinds of
//! packets (docs/decisions/0027-signatures.md). What is not understood here counts as no signature, and a key that cannot be read
//! is refused when it is pinned. The arithmetic is `ring`'s.

mod key;
mod packet;
mod sign;
#[cfg(test)]
mod tests;

use hydromesh_core::trust::{Key, Made, Proof};

use key::{Pinned, pinned};
use packet::{dearmor, packets};
use sign::Signature;

/// How an OpenPGP key's id begins, where it must not be taken for an SSH key's.
const PREFIX: &str = "openpgp:";

/// Public keys that may have signed commits.
#[derive(Debug, Clone, Default)]
pub struct PgpKeys {
    keys: Vec<Pinned>,
}

impl PgpKeys {
    /// Adds the keys of an armoured file, and returns who has them.
    ///
    /// # Errors
    /// When it holds something else, or a key that nothing could be verified with; with why.
    pub fn add(&mut self, text: &str) -> Result<Vec<Key>, String> {
        let bytes = dearmor(text, "PGP PUBLIC KEY BLOCK")?;
        let mut known = Vec::new();
        for (principals, keys) in pinned(&packets(&bytes)?)? {
            for key in keys {
                known.push(Key {
                    id: format!("{PREFIX}{}", key.fingerprint),
                    principals: principals.clone(),
                    until_ms: key.until_ms,
                    revoked: key.revoked,
                    ..Key::default()
                });
                self.keys.push(key);
            }
        }
        Ok(known)
    }

    /// Returns what a detached, armoured signature over `payload` proves.
    pub(super) fn proof(&self, text: &str, payload: &[u8]) -> Proof {
        let read = || -> Result<Signature, String> {
            let bytes = dearmor(text, "PGP SIGNATURE")?;
            match packets(&bytes)?.as_slice() {
                [(packet::SIGNATURE, body)] => Signature::read(body),
                _ => Err("it is not one OpenPGP signature".to_owned()),
            }
        };
        let signature = match read() {
            Ok(signature) if signature.kind == sign::DOCUMENT => signature,
            Ok(_) => return Proof::Malformed("it is not a signature of a document".to_owned()),
            Err(why) => return Proof::Malformed(why),
        };
        let by: Vec<&Pinned> = self.keys.iter().filter(|key| signature.names(&key.fingerprint)).collect();
        if by.is_empty() {
            return Proof::Stranger(signature.issuer().unwrap_or_else(|| "not named".to_owned()));
        }
        for key in by {
            match signature.is_by(&key.material, &[payload]) {
                Ok(true) => {
                    return Proof::Made(Made {
                        key: format!("{PREFIX}{}", key.fingerprint),
                        shown: key.fingerprint.clone(),
                        namespace: None,
                        ends_ms: signature.ends_ms(),
                    });
                }
                Ok(false) => {}
                Err(why) => return Proof::Malformed(why),
            }
        }
        Proof::Bad("the key that it names did not make it over this commit".to_owned())
    }
}
