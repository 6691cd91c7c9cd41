//! Armour, packets, and reading bytes in order.

use base64ct::{Base64, Encoding};

/// Kinds of packets.
pub(super) const SIGNATURE: u8 = 2;
pub(super) const KEY: u8 = 6;
pub(super) const SUBKEY: u8 = 14;
pub(super) const USER: u8 = 13;

/// Takes the armour off; `kind` is what the first line must name. The checksum is not looked at: it protects from nobody.
pub(super) fn dearmor(text: &str, kind: &str) -> Result<Vec<u8>, String> {
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    let misfit = || format!("it is not armoured as `{kind}`");
    let inner =
        text.trim().strip_prefix(&begin).and_then(|rest| rest.strip_suffix(&end)).ok_or_else(misfit)?;
    let mut lines = inner.lines().map(str::trim_end).skip(1).peekable();
    while lines.next_if(|line| line.contains(": ")).is_some() {}
    lines.next_if(|line| line.is_empty());
    let base64: String = lines.take_while(|line| !line.starts_with('=')).collect();
    Base64::decode_vec(&base64).map_err(|_| misfit())
}

/// Splits bytes into packets: kind and body.
pub(super) fn packets(bytes: &[u8]) -> Result<Vec<(u8, &[u8])>, String> {
    let mut reader = Reader(bytes);
    let mut packets = Vec::new();
    while !reader.0.is_empty() {
        packets.push(packet(&mut reader).ok_or("it is cut off, or no OpenPGP")?);
    }
    Ok(packets)
}

fn packet<'a>(reader: &mut Reader<'a>) -> Option<(u8, &'a [u8])> {
    let head = reader.byte()?;
    // Bodies in parts, or up to the end of the file, are for data and not for keys and signatures.
    let (kind, length) = match (head & 0x80, head & 0x40) {
        (0, _) => return None,
        (_, 0) => {
            let length = match head & 3 {
                0 => reader.byte()?.into(),
                1 => reader.short()?.into(),
                2 => reader.long()?,
                _ => return None,
            };
            ((head >> 2) & 0x0f, length)
        }
        _ => (head & 0x3f, reader.length()?),
    };
    Some((kind, reader.take(usize::try_from(length).ok()?)?))
}

/// Reads bytes in order; nothing when there are not enough.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1).and_then(|bytes| bytes.first().copied())
    }

    pub(super) fn short(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A length of one, two or five bytes.
    pub(super) fn length(&mut self) -> Option<u32> {
        match self.byte()? {
            short @ 0..192 => Some(short.into()),
            high @ 192..224 => Some((u32::from(high) - 192) * 256 + u32::from(self.byte()?) + 192),
            255 => self.long(),
            _ => None,
        }
    }

    /// A number with its length in bits before it, without leading zeros.
    pub(super) fn number(&mut self) -> Option<&'a [u8]> {
        let bits = self.short()?;
        let bytes = self.take(usize::from(bits).div_ceil(8))?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.get(zeros..)
    }
}

/// Returns a number in exactly `length` bytes.
pub(super) fn padded(number: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length.checked_sub(number.len())?];
    bytes.extend_from_slice(number);
    Some(bytes)
}
