//! What a commit's signature proves: whether the key that it names made it over this commit.
//!
//! Parsing SSH's formats is `ssh-key`'s, arithmetic is `ring`'s. Nothing here knows whom to trust.

use hydromesh_core::trust::{Made, Proof};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use sha2::{Digest, Sha256};
use ssh_key::public::{EcdsaPublicKey, KeyData};
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, Mpint, PublicKey, SshSig};

use super::openpgp::PgpKeys;

/// Longest signature that is read, in bytes: 64 KiB. Those of the longest keys are a few.
const MOST_BYTES: usize = 64 << 10;

/// Returns what a signature over `payload` proves. OpenPGP signatures do not hold their key, so known keys are needed.
#[must_use]
pub fn proof(signature: &[u8], payload: &[u8], pgp: &PgpKeys) -> Proof {
    if signature.len() > MOST_BYTES {
        return Proof::Malformed("it is larger than 64 KiB".to_owned());
    }
    let Ok(text) = std::str::from_utf8(signature) else {
        return Proof::Malformed("it is no text".to_owned());
    };
    match text.trim_start() {
        text if text.starts_with("-----BEGIN SSH SIGNATURE-----") => ssh(text, payload),
        text if text.starts_with("-----BEGIN PGP SIGNATURE-----") => pgp.proof(text, payload),
        _ => Proof::Malformed("it is neither of SSH nor of OpenPGP".to_owned()),
    }
}

/// Returns the id of an SSH key that is written as in `authorized_keys`, which is how `trust::Key` spells it.
///
/// # Errors
/// When it is no public key, or of a kind whose signatures are not verified; with why.
pub fn ssh_key_id(kind: &str, base64: &str) -> Result<String, String> {
    let key = PublicKey::from_openssh(&format!("{kind} {base64}")).map_err(|_| "it is no public key")?;
    match key.key_data() {
        KeyData::Ecdsa(EcdsaPublicKey::NistP521(_)) | KeyData::Dsa(_) | KeyData::Other(_) => {
            Err(format!("keys of type {} are not supported", key.algorithm()))
        }
        data => id(data).ok_or_else(|| "it is no public key".to_owned()),
    }
}

fn id(key: &KeyData) -> Option<String> {
    let text = PublicKey::from(key.clone()).to_openssh().ok()?;
    text.split(' ').nth(1).map(str::to_owned)
}

fn ssh(text: &str, payload: &[u8]) -> Proof {
    let Ok(signature) = SshSig::from_pem(text.trim_end()) else {
        return Proof::Malformed("it is no SSH signature".to_owned());
    };
    let key = signature.public_key();
    let (Some(id), Ok(signed)) =
        (id(key), SshSig::signed_data(signature.namespace(), signature.hash_alg(), payload))
    else {
        return Proof::Malformed("it is no SSH signature".to_owned());
    };
    let shown = key.fingerprint(HashAlg::Sha256).to_string();
    match holds(&signature, &signed) {
        Ok(true) => {
            let namespace = Some(signature.namespace().to_owned());
            Proof::Made(Made { key: id, shown, namespace, ends_ms: None })
        }
        Ok(false) => Proof::Bad(format!("key {shown} did not make it over this commit")),
        Err(why) => Proof::Malformed(why),
    }
}

/// Returns whether a signature was made by the key that it holds over `signed`.
fn holds(signature: &SshSig, signed: &[u8]) -> Result<bool, String> {
    let (made, bytes) = (signature.signature().algorithm(), signature.signature().as_bytes());
    let by = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8], over: &[u8], bytes: &[u8]| {
        UnparsedPublicKey::new(algorithm, key).verify(over, bytes).is_ok()
    };
    Ok(match (signature.public_key(), made) {
        (KeyData::Ed25519(key), Algorithm::Ed25519) => by(&ED25519, key.as_ref(), signed, bytes),
        (
            KeyData::Ecdsa(key @ EcdsaPublicKey::NistP256(_)),
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        ) => scalars(bytes, 32)
            .is_some_and(|bytes| by(&ECDSA_P256_SHA256_FIXED, key.as_sec1_bytes(), signed, &bytes)),
        (
            KeyData::Ecdsa(key @ EcdsaPublicKey::NistP384(_)),
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        ) => scalars(bytes, 48)
            .is_some_and(|bytes| by(&ECDSA_P384_SHA384_FIXED, key.as_sec1_bytes(), signed, &bytes)),
        (KeyData::Rsa(key), Algorithm::Rsa { hash: Some(hash) }) => {
            let (Some(n), Some(e)) = (key.n.as_positive_bytes(), key.e.as_positive_bytes()) else {
                return Ok(false);
            };
            let parameters = match hash {
                HashAlg::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
                HashAlg::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
                _ => return Err("its hash is not supported".to_owned()),
            };
            RsaPublicKeyComponents { n, e }.verify(parameters, signed, bytes).is_ok()
        }
        (KeyData::SkEd25519(key), Algorithm::SkEd25519) => {
            let Some((bytes, over)) = touched(bytes, key.application(), signed) else { return Ok(false) };
            by(&ED25519, key.public_key().as_ref(), &over, bytes)
        }
        (KeyData::SkEcdsaSha2NistP256(key), Algorithm::SkEcdsaSha2NistP256) => {
            let Some((bytes, over)) = touched(bytes, key.application(), signed) else { return Ok(false) };
            let point = key.ec_point().as_bytes();
            scalars(bytes, 32).is_some_and(|bytes| by(&ECDSA_P256_SHA256_FIXED, point, &over, &bytes))
        }
        (_, made) => return Err(format!("signatures of type {made} are not supported")),
    })
}

/// Returns an ECDSA signature as `ring` takes it: both numbers in full length, one behind the other.
fn scalars(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    let (r, rest) = number(bytes)?;
    let (s, rest) = number(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let mut fixed = Vec::with_capacity(2 * length);
    for number in [r, s] {
        let number = number.as_positive_bytes()?;
        fixed.resize(fixed.len() + length.checked_sub(number.len())?, 0);
        fixed.extend_from_slice(number);
    }
    Some(fixed)
}

/// Splits a number off that is written with its length before it.
fn number(bytes: &[u8]) -> Option<(Mpint, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (number, rest) = rest.split_at_checked(length)?;
    Some((Mpint::from_bytes(number).ok()?, rest))
}

/// Splits what a security key adds off a signature, and returns what it really signs. One that nobody touched does not count.
fn touched<'a>(bytes: &'a [u8], application: &str, signed: &[u8]) -> Option<(&'a [u8], Vec<u8>)> {
    const TOUCHED: u8 = 1;
    let (signature, added) = bytes.split_at_checked(bytes.len().checked_sub(5)?)?;
    if added.first()? & TOUCHED == 0 {
        return None;
    }
    let over = [&Sha256::digest(application)[..], added, &Sha256::digest(signed)[..]].concat();
    Some((signature, over))
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use ssh_key::public::{Ed25519PublicKey, SkEd25519};
    use ssh_key::{LineEnding, Signature};

    use super::*;

    /// Signs as a security key does, touched or not. No program can make one without the device.
    fn made_by_device(payload: &[u8], flags: u8) -> String {
        let device = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let point = Ed25519PublicKey::try_from(device.public_key().as_ref()).unwrap();
        let key = KeyData::SkEd25519(SkEd25519::new(point, "ssh:"));
        let signed = SshSig::signed_data("git", HashAlg::Sha512, payload).unwrap();
        let added = [flags, 0, 0, 0, 9];
        let over = [&Sha256::digest("ssh:")[..], &added, &Sha256::digest(&signed)[..]].concat();
        let bytes = [device.sign(&over).as_ref(), &added].concat();
        let signature = Signature::new(Algorithm::SkEd25519, bytes).unwrap();
        SshSig::new(key, "git", HashAlg::Sha512, signature).unwrap().to_pem(LineEnding::LF).unwrap()
    }

    #[test]
    fn a_security_key_counts_when_somebody_touched_it() {
        let proof = |text: &str, payload: &[u8]| proof(text.as_bytes(), payload, &PgpKeys::default());
        let touched = made_by_device(b"payload", 1);
        assert!(
            matches!(proof(&touched, b"payload"), Proof::Made(made) if made.shown.starts_with("SHA256:"))
        );
        assert!(matches!(proof(&touched, b"another"), Proof::Bad(_)));
        assert!(matches!(proof(&made_by_device(b"payload", 0), b"payload"), Proof::Bad(_)));
    }

    #[test]
    fn what_is_no_signature_is_told_and_nothing_panics() {
        let text = made_by_device(b"payload", 1);
        let keys = PgpKeys::default();
        for end in 0..text.len() {
            let proof = proof(&text.as_bytes()[..end], b"payload", &keys);
            assert!(matches!(proof, Proof::Malformed(_)) || end + 1 == text.len(), "{end}: {proof:?}");
        }
        assert!(matches!(proof(&[0xff; 9], b"", &keys), Proof::Malformed(_)));
        assert!(matches!(proof(&vec![b'-'; MOST_BYTES + 1], b"", &keys), Proof::Malformed(_)));
    }
}
