//! A signature packet, and whether a key made it.

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::packet::{Reader, padded};

/// What a signature is about.
pub(super) const DOCUMENT: u8 = 0x00;
pub(super) const SUBKEY_BINDING: u8 = 0x18;
pub(super) const PRIMARY_BINDING: u8 = 0x19;
pub(super) const DIRECT: u8 = 0x1f;
pub(super) const KEY_REVOCATION: u8 = 0x20;
pub(super) const SUBKEY_REVOCATION: u8 = 0x28;
pub(super) const USER_REVOCATION: u8 = 0x30;

/// Kinds of what a signature says besides, which are understood or can be passed over even where it insists on them.
const UNDERSTOOD: [u8; 18] = [2, 3, 4, 7, 9, 11, 16, 21, 22, 23, 25, 27, 28, 30, 32, 33, 34, 35];

/// The numbers of a public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ed25519(Vec<u8>),
    P256(Vec<u8>),
    P384(Vec<u8>),
}

/// A signature of version 4.
#[derive(Debug, Clone)]
pub(super) struct Signature {
    pub kind: u8,
    algorithm: u8,
    hash: u8,
    /// What of it is signed with the data.
    head: Vec<u8>,
    numbers: Vec<u8>,
    /// Seconds since 1970.
    pub created: u32,
    /// Seconds after its creation at which it ends.
    ends: Option<u32>,
    /// Seconds after the key's creation at which that ends.
    pub key_ends: Option<u32>,
    /// What the key is for: 2 is to sign.
    pub flags: Option<u8>,
    /// By whom: key ids of 8 bytes, fingerprints of 20, in upper-case hexadecimal.
    issuers: Vec<String>,
    /// A signature within it.
    pub inner: Option<Vec<u8>>,
}

impl Signature {
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let mut reader = Reader(body);
        if reader.byte() != Some(4) {
            return Err("only version 4 of OpenPGP signatures is supported".to_owned());
        }
        Self::read_rest(body, reader)
            .ok_or_else(|| "it is cut off, or insists on what is not known".to_owned())
    }

    fn read_rest(body: &[u8], mut reader: Reader<'_>) -> Option<Self> {
        let (kind, algorithm, hash) = (reader.byte()?, reader.byte()?, reader.byte()?);
        let hashed_bytes = reader.short()?;
        let hashed = reader.take(hashed_bytes.into())?;
        let head = body.get(..6 + usize::from(hashed_bytes))?.to_vec();
        let loose_bytes = reader.short()?;
        let loose = reader.take(loose_bytes.into())?;
        let _start_of_hash = reader.short()?;
        let (numbers, issuers) = (reader.0.to_vec(), Vec::new());
        let mut signature = Self {
            kind,
            algorithm,
            hash,
            head,
            numbers,
            created: 0,
            ends: None,
            key_ends: None,
            flags: None,
            issuers,
            inner: None,
        };
        signature.says(hashed, true)?;
        signature.says(loose, false)?;
        // A signature that does not say when it was made is none.
        (signature.created > 0).then_some(signature)
    }

    /// Takes in what it says besides. What is not signed with the rest counts only where it is proven otherwise: issuers are
    /// hints, and a signature within stands for itself.
    fn says(&mut self, area: &[u8], signed: bool) -> Option<()> {
        let mut reader = Reader(area);
        while !reader.0.is_empty() {
            let length = usize::try_from(reader.length()?).ok()?;
            let mut part = Reader(reader.take(length)?);
            let kind = part.byte()?;
            match (kind & 0x7f, signed) {
                (2, true) => self.created = part.long()?,
                (3, true) => self.ends = Some(part.long()?).filter(|seconds| *seconds > 0),
                (9, true) => self.key_ends = Some(part.long()?).filter(|seconds| *seconds > 0),
                (27, true) => self.flags = Some(part.byte()?),
                (16, _) => self.issuers.push(hex::encode_upper(part.take(8)?)),
                (33, _) if part.byte()? == 4 => self.issuers.push(hex::encode_upper(part.take(20)?)),
                (32, _) => self.inner = Some(part.0.to_vec()),
                (known, true) if kind & 0x80 != 0 && !UNDERSTOOD.contains(&known) => return None,
                _ => {}
            }
        }
        Some(())
    }

    /// Returns whether it names a key as its maker.
    pub(super) fn names(&self, fingerprint: &str) -> bool {
        self.issuers.iter().any(|issuer| fingerprint.ends_with(issuer.as_str()))
    }

    pub(super) fn issuer(&self) -> Option<String> {
        self.issuers.iter().max_by_key(|issuer| issuer.len()).cloned()
    }

    /// Returns when it ends, milliseconds UTC, if it says so.
    pub(super) fn ends_ms(&self) -> Option<i64> {
        self.ends.map(|seconds| (i64::from(self.created) + i64::from(seconds)) * 1000)
    }

    /// Returns whether a key made it over these parts, one behind the other.
    pub(super) fn is_by(&self, key: &Material, over: &[&[u8]]) -> Result<bool, String> {
        let length = u32::try_from(self.head.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut data = over.concat();
        data.extend_from_slice(&self.head);
        data.extend_from_slice(&[4, 0xff]);
        data.extend_from_slice(&length);
        let mut reader = Reader(&self.numbers);
        let both = |reader: &mut Reader<'_>, length| -> Option<Vec<u8>> {
            Some([padded(reader.number()?, length)?, padded(reader.number()?, length)?].concat())
        };
        match (key, self.algorithm, self.hash) {
            (Material::Rsa { n, e }, 1 | 3, 8..=10) => {
                let parameters = match self.hash {
                    8 => &RSA_PKCS1_2048_8192_SHA256,
                    9 => &RSA_PKCS1_2048_8192_SHA384,
                    _ => &RSA_PKCS1_2048_8192_SHA512,
                };
                let made = reader.number().and_then(|number| padded(number, n.len()));
                Ok(made.is_some_and(|made| {
                    RsaPublicKeyComponents { n, e }.verify(parameters, &data, &made).is_ok()
                }))
            }
            (Material::Ed25519(key), 22 | 27, 8..=10) => {
                let hash = match self.hash {
                    8 => Sha256::digest(&data).to_vec(),
                    9 => Sha384::digest(&data).to_vec(),
                    _ => Sha512::digest(&data).to_vec(),
                };
                let made = if self.algorithm == 22 {
                    both(&mut reader, 32)
                } else {
                    reader.take(64).map(<[u8]>::to_vec)
                };
                Ok(made
                    .is_some_and(|made| UnparsedPublicKey::new(&ED25519, key).verify(&hash, &made).is_ok()))
            }
            (Material::P256(key), 19, 8) => Ok(both(&mut reader, 32).is_some_and(|made| {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(&data, &made).is_ok()
            })),
            (Material::P384(key), 19, 9) => Ok(both(&mut reader, 48).is_some_and(|made| {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key).verify(&data, &made).is_ok()
            })),
            (_, _, 8..=10) => Err("its algorithm is not supported".to_owned()),
            _ => Err("its hash is not one of SHA-256, SHA-384 and SHA-512".to_owned()),
        }
    }
}
