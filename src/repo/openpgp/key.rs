//! Public keys: whose they are, which of them may sign, until when.

use std::collections::BTreeSet;

use sha1::{Digest as _, Sha1};

use super::packet::{KEY, Reader, SIGNATURE, SUBKEY, USER};
use super::sign::{
    DIRECT, KEY_REVOCATION, Material, PRIMARY_BINDING, SUBKEY_BINDING, SUBKEY_REVOCATION, Signature,
    USER_REVOCATION,
};

/// The flag of keys that sign.
const SIGNS: u8 = 2;

/// A key that may have signed commits: a primary one or one of its subkeys.
#[derive(Debug, Clone)]
pub(super) struct Pinned {
    /// In upper-case hexadecimal.
    pub fingerprint: String,
    pub material: Material,
    /// Last instant at which it counts, milliseconds UTC.
    pub until_ms: Option<i64>,
    pub revoked: bool,
}

/// Somebody's names, and the keys that may have signed for them.
pub(super) type Holder = (BTreeSet<String>, Vec<Pinned>);

/// A key packet.
struct Public<'a> {
    body: &'a [u8],
    created: u32,
    /// Nothing when its algorithm does not sign, or is not supported.
    material: Option<Material>,
}

/// A key or a name, with the signatures behind it.
struct Part<'a> {
    kind: u8,
    body: &'a [u8],
    signatures: Vec<Signature>,
}

/// Returns the keys of each holder, with the holder's names.
pub(super) fn pinned(packets: &[(u8, &[u8])]) -> Result<Vec<Holder>, String> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (kind, body) in packets {
        match (*kind, parts.last_mut()) {
            (SIGNATURE, Some(part)) => match Signature::read(body) {
                Ok(signature) => part.signatures.push(signature),
                // It might be a revocation; what others say of a name may be of any age.
                Err(why) if part.kind != USER => return Err(format!("a signature on the key: {why}")),
                Err(_) => {}
            },
            (SIGNATURE, None) => return Err("it begins with a signature and not with a key".to_owned()),
            (kind, _) => parts.push(Part { kind, body, signatures: Vec::new() }),
        }
    }
    let mut holders = Vec::new();
    let mut rest = parts.as_slice();
    while let Some((first, behind)) = rest.split_first() {
        if first.kind != KEY {
            return Err("it does not begin with a public key".to_owned());
        }
        let count = behind.iter().take_while(|part| part.kind != KEY).count();
        let (own, others) = behind.split_at(count);
        holders.push(holder(first, own)?);
        rest = others;
    }
    if holders.is_empty() { Err("it holds no key".to_owned()) } else { Ok(holders) }
}

fn holder(first: &Part<'_>, own: &[Part<'_>]) -> Result<Holder, String> {
    let primary = public(first.body)?;
    let fingerprint = primary.fingerprint();
    let unusable = |why: &str| format!("key {fingerprint}: {why}");
    let by = primary
        .material
        .clone()
        .ok_or_else(|| unusable("its algorithm is not supported; RSA, Ed25519, P-256 and P-384 are"))?;
    let framed = primary.framed();
    let mut names = BTreeSet::new();
    // The newest of each: of the key itself, and of each name.
    let mut said: Vec<&Signature> = Vec::new();
    said.extend(newest(first, |it| it.kind == DIRECT && it.holds(&by, &[&framed])));
    for part in own.iter().filter(|part| part.kind == USER) {
        let length = u32::try_from(part.body.len()).unwrap_or(u32::MAX).to_be_bytes();
        let over: [&[u8]; 4] = [&framed, &[0xb4], &length, part.body];
        let found = newest(part, |it| (0x10..=0x13).contains(&it.kind) && it.holds(&by, &over));
        // Revocations are believed without proof: whoever pins a key can only take from it by them.
        let revoked = part.signatures.iter().any(|it| it.kind == USER_REVOCATION && it.names(&fingerprint));
        if let Some(found) = found.filter(|_| !revoked) {
            said.push(found);
            names.extend(mail(part.body));
        }
    }
    if names.is_empty() {
        return Err(unusable("it has no mail address that it signed itself with SHA-2"));
    }
    let revoked = first.signatures.iter().any(|it| it.kind == KEY_REVOCATION);
    let until_ms = said.iter().filter_map(|it| primary.until_ms(it)).min();
    let mut keys = Vec::new();
    if said.iter().all(|it| it.flags.is_none_or(|flags| flags & SIGNS != 0)) {
        keys.push(Pinned { fingerprint: fingerprint.clone(), material: by.clone(), until_ms, revoked });
    }
    for part in own.iter().filter(|part| part.kind == SUBKEY) {
        let Ok(subkey) = public(part.body) else { continue };
        let Some(material) = subkey.material.clone() else { continue };
        let inner = subkey.framed();
        let over: [&[u8]; 2] = [&framed, &inner];
        let Some(binding) = newest(part, |it| it.kind == SUBKEY_BINDING && it.holds(&by, &over)) else {
            continue;
        };
        // Without its own word, anybody's key could be passed off as this holder's.
        let back = binding.inner.as_deref().and_then(|body| Signature::read(body).ok());
        let agrees = back.is_some_and(|it| it.kind == PRIMARY_BINDING && it.holds(&material, &over));
        if binding.flags.is_some_and(|flags| flags & SIGNS != 0) && agrees {
            let revoked = revoked || part.signatures.iter().any(|it| it.kind == SUBKEY_REVOCATION);
            let until_ms = until_ms.into_iter().chain(subkey.until_ms(binding)).min();
            keys.push(Pinned { fingerprint: subkey.fingerprint(), material, until_ms, revoked });
        }
    }
    if keys.is_empty() { Err(unusable("none of its keys may sign")) } else { Ok((names, keys)) }
}

/// Returns the newest signature of a part that fits.
fn newest<'p>(part: &'p Part<'_>, fits: impl Fn(&Signature) -> bool) -> Option<&'p Signature> {
    part.signatures.iter().filter(|it| fits(it)).max_by_key(|it| it.created)
}

impl Signature {
    fn holds(&self, key: &Material, over: &[&[u8]]) -> bool {
        self.is_by(key, over) == Ok(true)
    }
}

fn public(body: &[u8]) -> Result<Public<'_>, String> {
    let mut reader = Reader(body);
    if reader.byte() != Some(4) {
        return Err("only version 4 of OpenPGP keys is supported".to_owned());
    }
    let cut_off = || "a key is cut off".to_owned();
    let created = reader.long().ok_or_else(cut_off)?;
    let algorithm = reader.byte().ok_or_else(cut_off)?;
    Ok(Public { body, created, material: material(algorithm, reader) })
}

fn material(algorithm: u8, mut reader: Reader<'_>) -> Option<Material> {
    const ED25519: [u8; 9] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];
    const P256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const P384: [u8; 5] = [0x2b, 0x81, 0x04, 0x00, 0x22];
    match algorithm {
        1 | 3 => {
            let (n, e) = (reader.number()?.to_vec(), reader.number()?.to_vec());
            Some(Material::Rsa { n, e })
        }
        19 | 22 => {
            let length = reader.byte()?;
            let curve = reader.take(length.into())?;
            let point = reader.number()?;
            match (algorithm, point.split_first()?) {
                (22, (0x40, rest)) if curve == ED25519 && rest.len() == 32 => {
                    Some(Material::Ed25519(rest.to_vec()))
                }
                (19, (4, rest)) if curve == P256 && rest.len() == 64 => Some(Material::P256(point.to_vec())),
                (19, (4, rest)) if curve == P384 && rest.len() == 96 => Some(Material::P384(point.to_vec())),
                _ => None,
            }
        }
        27 => reader.take(32).map(|key| Material::Ed25519(key.to_vec())),
        _ => None,
    }
}

impl Public<'_> {
    /// The key as it goes into signatures about it.
    fn framed(&self) -> Vec<u8> {
        let length = u16::try_from(self.body.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&[0x99], &length[..], self.body].concat()
    }

    fn fingerprint(&self) -> String {
        hex::encode_upper(Sha1::digest(self.framed()))
    }

    /// Returns until when a signature about it lets it count, milliseconds UTC.
    fn until_ms(&self, said: &Signature) -> Option<i64> {
        let by_itself = said.key_ends.map(|seconds| (i64::from(self.created) + i64::from(seconds)) * 1000);
        by_itself.into_iter().chain(said.ends_ms()).min()
    }
}

/// Returns the mail address of a name such as `Mara <mara@example.com>`.
fn mail(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let address = match name.rsplit_once('<') {
        Some((_, rest)) => rest.strip_suffix('>')?,
        None => name,
    };
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"<>,*?!".contains(c);
    (address.contains('@') && address.chars().all(plain)).then(|| address.to_owned())
}
