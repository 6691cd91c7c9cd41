//! The bytes of one record and of a segment's header: pure encoding and decoding, no files.
//!
//! `docs/topic-folder.md` is the specification; the layout tables live there, once.

use std::ops::Range;

use uuid::Uuid;

use super::{
    Offset, PartitionId,
    crc::{continue_crc32, crc32},
};

/// Version of the folder format, stored in `topic.json` and in every segment header.
pub const FORMAT_VERSION: u32 = 1;

/// First bytes of a segment, so that `file` and a human with a hex dump recognise it.
pub const MAGIC: &[u8; 8] = b"HMTOPIC\0";

/// magic 8 + version 4 + partition 4 + topic id 16 + base offset 8 + checksum 4 + reserved 4.
pub const HEADER_BYTES: usize = 48;

/// length 4 + checksum 4.
pub const PREFIX_BYTES: usize = 8;

/// offset 8 + timestamp 8 + flags 1: the least a body can be.
const MIN_BODY_BYTES: usize = 17;

/// Largest body: 16 MiB, sixteen times Kafka's default, and small enough that a damaged length is noticed at once.
pub const MAX_BODY_BYTES: usize = 16 << 20;

const HAS_KEY: u8 = 1;
const HAS_PRODUCER: u8 = 2;
/// The record begins an append: every byte before it in the partition was synced when it was written.
const BEGINS_APPEND: u8 = 4;
/// The record ends an append: readers may see the append as a whole.
const ENDS_APPEND: u8 = 8;
const KNOWN_FLAGS: u8 = HAS_KEY | HAS_PRODUCER | BEGINS_APPEND | ENDS_APPEND;

/// Where a record stands in its append; an append becomes visible as a whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub begins: bool,
    pub ends: bool,
}

/// A record to encode.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    pub offset: Offset,
    pub timestamp_ms: i64,
    pub place: Place,
    pub producer: Option<(Uuid, i64)>,
    pub key: Option<&'a [u8]>,
    pub payload: &'a [u8],
}

/// A record found in a buffer; key and payload are ranges of that buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    pub timestamp_ms: i64,
    pub place: Place,
    pub producer: Option<(Uuid, i64)>,
    pub key: Option<Range<usize>>,
    pub payload: Range<usize>,
    /// Bytes the record takes, prefix included.
    pub size: usize,
}

/// What stands at the beginning of a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    Record(Record),
    /// The buffer ends inside the record, which takes this many bytes in all.
    Incomplete {
        needed: usize,
    },
    /// No record can stand here.
    Invalid(&'static str),
}

/// Appends the encoded record to `out` and returns how many bytes its body takes.
///
/// The caller keeps bodies within [`MAX_BODY_BYTES`]; a larger one would be unreadable.
#[expect(clippy::cast_possible_truncation, reason = "appends refuse what is larger than `MAX_BODY_BYTES`")]
pub fn encode(record: &Fields<'_>, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    out.extend_from_slice(&record.offset.to_le_bytes());
    out.extend_from_slice(&record.timestamp_ms.to_le_bytes());
    let mut flags = 0;
    for (set, flag) in [
        (record.key.is_some(), HAS_KEY),
        (record.producer.is_some(), HAS_PRODUCER),
        (record.place.begins, BEGINS_APPEND),
        (record.place.ends, ENDS_APPEND),
    ] {
        if set {
            flags |= flag;
        }
    }
    out.push(flags);
    if let Some((id, sequence)) = record.producer {
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&sequence.to_le_bytes());
    }
    if let Some(key) = record.key {
        out.extend_from_slice(&(key.len() as u32).to_le_bytes());
        out.extend_from_slice(key);
    }
    out.extend_from_slice(record.payload);
    let body = out.len() - start - PREFIX_BYTES;
    out[start..start + 4].copy_from_slice(&(body as u32).to_le_bytes());
    // The length is covered as well: a damaged length would otherwise be believed until the file ends.
    let sum = checksum(&out[start..]);
    out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    body
}

/// Reads the record at the beginning of `buffer`.
pub fn parse(buffer: &[u8]) -> Parsed {
    let Some(length) = u32_at(buffer, 0) else {
        return Parsed::Incomplete { needed: PREFIX_BYTES };
    };
    let body = length as usize;
    if body < MIN_BODY_BYTES {
        return Parsed::Invalid("the record is too short");
    }
    if body > MAX_BODY_BYTES {
        return Parsed::Invalid("the record is too long");
    }
    let size = PREFIX_BYTES + body;
    if buffer.len() < size {
        return Parsed::Incomplete { needed: size };
    }
    let bytes = &buffer[..size];
    if u32_at(bytes, 4) != Some(checksum(bytes)) {
        return Parsed::Invalid("the checksum does not match");
    }
    // From here on the bytes are what some writer meant; what is wrong now is a foreign writer's mistake.
    decode_body(bytes).map_or(Parsed::Invalid("the record's fields do not fit its length"), Parsed::Record)
}

fn decode_body(bytes: &[u8]) -> Option<Record> {
    let offset = i64_at(bytes, PREFIX_BYTES)?;
    let timestamp_ms = i64_at(bytes, PREFIX_BYTES + 8)?;
    let flags = *bytes.get(PREFIX_BYTES + 16)?;
    if flags & !KNOWN_FLAGS != 0 {
        return None;
    }
    let mut at = PREFIX_BYTES + MIN_BODY_BYTES;
    let producer = if flags & HAS_PRODUCER == 0 {
        None
    } else {
        let id = Uuid::from_slice(bytes.get(at..at + 16)?).ok()?;
        let sequence = i64_at(bytes, at + 16)?;
        at += 24;
        Some((id, sequence))
    };
    let key = if flags & HAS_KEY == 0 {
        None
    } else {
        let length = u32_at(bytes, at)? as usize;
        let range = at + 4..(at + 4).checked_add(length)?;
        bytes.get(range.clone())?;
        at = range.end;
        Some(range)
    };
    let place = Place { begins: flags & BEGINS_APPEND != 0, ends: flags & ENDS_APPEND != 0 };
    Some(Record { offset, timestamp_ms, place, producer, key, payload: at..bytes.len(), size: bytes.len() })
}

/// Returns the checksum of an encoded record: its length and its body, without the checksum field.
fn checksum(record: &[u8]) -> u32 {
    continue_crc32(crc32(&record[..4]), &record[PREFIX_BYTES..])
}

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub topic_id: Uuid,
    pub partition: PartitionId,
    pub base: Offset,
}

/// Returns the bytes of a segment header.
pub fn encode_header(header: &Header) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&header.partition.to_le_bytes());
    out[16..32].copy_from_slice(header.topic_id.as_bytes());
    out[32..40].copy_from_slice(&header.base.to_le_bytes());
    let sum = crc32(&out[..40]);
    out[40..44].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Why a segment header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHeader {
    Damaged(&'static str),
    Version(u32),
}

/// Reads a segment header.
pub fn parse_header(bytes: &[u8]) -> Result<Header, BadHeader> {
    if bytes.len() < HEADER_BYTES {
        return Err(BadHeader::Damaged("the header is cut off"));
    }
    if &bytes[..8] != MAGIC {
        return Err(BadHeader::Damaged("this is not a segment of a topic folder"));
    }
    let field = |at| u32_at(bytes, at).unwrap_or_default();
    // The version is looked at before the checksum: another version may place the checksum elsewhere.
    if field(8) != FORMAT_VERSION {
        return Err(BadHeader::Version(field(8)));
    }
    if field(40) != crc32(&bytes[..40]) {
        return Err(BadHeader::Damaged("the header's checksum does not match"));
    }
    let topic_id =
        Uuid::from_slice(&bytes[16..32]).map_err(|_| BadHeader::Damaged("the topic id is unreadable"))?;
    let base = i64_at(bytes, 32).unwrap_or_default();
    Ok(Header { topic_id, partition: field(12).cast_signed(), base })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
