//! Writing to a topic folder: one appender per partition at a time holds the lock, for one append.

use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    ops::Range,
    path::Path,
};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Offset, PartitionId, SourceError,
    folder::{TopicFolder, sync_dir, write_durably},
    record::{self, Fields, Header, MAX_BODY_BYTES, Place},
    segment::{PartitionLog, ProducerState, Producers, Segment, forget_oldest},
};

/// A message to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// When the message becomes available, by the producer's clock: milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub payload: Bytes,
}

/// Names the records of an append so that repeating it is harmless: record `i` has sequence `first + i` of producer `id`
/// in this partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerSequence {
    pub id: Uuid,
    pub first: i64,
}

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Appended {
    /// Offsets of the records written now, in their order.
    pub offsets: Range<Offset>,
    /// How many leading records were there already, from an earlier attempt whose answer was lost.
    pub duplicates: usize,
}

/// Appends to one partition of a topic folder. Several appenders, in this or other processes, may exist at once: each
/// takes the partition's lock for the duration of one append and sees what the others wrote.
#[derive(Debug)]
pub struct Appender {
    folder: TopicFolder,
    partition: PartitionId,
    log: PartitionLog,
    lock: File,
    /// A write or sync failed and could not be undone: what is on disk is unknown until the partition is scanned again.
    failed: bool,
}

impl Appender {
    pub(super) fn open(folder: TopicFolder, partition: PartitionId) -> Result<Self, SourceError> {
        let dir = folder.partition_dir(partition)?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(SourceError::io("open", &path))?;
        let log = PartitionLog::open(dir, &folder.name(), folder.id(), partition, Producers::Track)?;
        Ok(Appender { folder, partition, log, lock, failed: false })
    }

    /// Appends the records as a whole: when this returns they are durable, and a crash before that leaves all or none.
    /// Waits while another process appends to the same partition.
    ///
    /// With a [`ProducerSequence`] records that an earlier attempt wrote are left out, so that an append whose answer
    /// was lost can be repeated.
    ///
    /// # Errors
    ///
    /// Nothing is written on [`SourceError::SequenceGap`], [`SourceError::RecordTooLarge`] and
    /// [`SourceError::Replaced`]. After an I/O error the outcome may be unknown; open a new appender and repeat.
    pub fn append(
        &mut self,
        records: &[NewRecord],
        producer: Option<ProducerSequence>,
    ) -> Result<Appended, SourceError> {
        if self.failed {
            return Err(SourceError::AppenderFailed { partition: self.partition });
        }
        self.lock.lock().map_err(SourceError::io("lock", self.folder.path()))?;
        let result = self.append_locked(records, producer);
        // An unlock that fails leaves the lock until the file is closed, which is safe, only slow for others.
        drop(self.lock.unlock());
        result
    }

    #[expect(clippy::cast_possible_wrap, reason = "records that lie in memory")]
    fn append_locked(
        &mut self,
        records: &[NewRecord],
        producer: Option<ProducerSequence>,
    ) -> Result<Appended, SourceError> {
        self.folder.check_same()?;
        self.log.refresh()?;
        let duplicates = self.count_duplicates(records.len(), producer)?;
        let fresh = &records[duplicates..];
        let first = self.log.high();
        let producer = producer.map(|given| (given.id, given.first + duplicates as i64));
        let bytes = encode_append(fresh, first, producer)?;
        let next = first + fresh.len() as i64;
        if !fresh.is_empty() {
            self.roll_when_full()?;
            self.write(&bytes, next)?;
            if let Some((id, sequence)) = producer {
                let state = ProducerState { sequence: sequence + fresh.len() as i64 - 1, offset: next - 1 };
                self.log.producers().insert(id, state);
                forget_oldest(self.log.producers());
            }
        }
        Ok(Appended { offsets: first..next, duplicates })
    }

    fn count_duplicates(
        &mut self,
        count: usize,
        producer: Option<ProducerSequence>,
    ) -> Result<usize, SourceError> {
        let Some(given) = producer else { return Ok(0) };
        let Some(known) = self.log.producers().get(&given.id) else { return Ok(0) };
        let expected = known.sequence + 1;
        if given.first > expected {
            return Err(SourceError::SequenceGap {
                partition: self.partition,
                producer: given.id,
                expected,
                found: given.first,
            });
        }
        Ok(usize::try_from(expected.saturating_sub(given.first)).unwrap_or(usize::MAX).min(count))
    }

    fn write(&mut self, bytes: &[u8], next: Offset) -> Result<(), SourceError> {
        let Some((base, segment)) = self.log.active() else {
            return Err(SourceError::AppenderFailed { partition: self.partition });
        };
        let start = segment.end;
        let path = self.log.segment_path(base);
        let mut file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(SourceError::io("open for appending", &path))?;
        let length = file.metadata().map_err(SourceError::io("look at", &path))?.len();
        if length > start {
            // The refresh told this torn tail of a dead appender from damage; nobody was shown any of it.
            file.set_len(start).map_err(SourceError::io("cut the torn tail of", &path))?;
        }
        let written = file.seek(SeekFrom::Start(start)).and_then(|_| file.write_all(bytes));
        if let Err(error) = written {
            // The last byte is missing, so no reader has seen the append: undoing it is safe.
            self.failed = file.set_len(start).is_err();
            return Err(SourceError::io("append to", path)(error));
        }
        if let Err(error) = file.sync_data() {
            // Readers may have seen the append and the disk may or may not keep it.
            self.failed = true;
            return Err(SourceError::io("sync", path)(error));
        }
        if let Some((_, segment)) = self.log.active() {
            segment.end = start + bytes.len() as u64;
            segment.next = next;
        }
        Ok(())
    }

    /// Begins a new segment when the present one has reached its size.
    fn roll_when_full(&mut self) -> Result<(), SourceError> {
        let limit = self.folder.segment_bytes();
        let Some((base, &mut Segment { end, next, .. })) = self.log.active() else { return Ok(()) };
        if end < limit || next == base {
            return Ok(());
        }
        let full = self.log.segment_path(base);
        let file = OpenOptions::new().write(true).open(&full).map_err(SourceError::io("open", &full))?;
        // A reader takes a segment with a successor for complete, so a torn tail must be gone before.
        file.set_len(end).and_then(|()| file.sync_all()).map_err(SourceError::io("close", &full))?;
        write_durably(&self.log.snapshot_path(next), &self.log.snapshot())?;
        let dir = self.folder.partition_dir(self.partition)?;
        create_segment(&dir, &Header { topic_id: self.folder.id(), partition: self.partition, base: next })?;
        self.log.refresh()
    }
}

/// Creates an empty segment that is durable and never seen half-written.
pub fn create_segment(dir: &Path, header: &Header) -> Result<(), SourceError> {
    write_durably(&super::segment::segment_path(dir, header.base), &record::encode_header(header))?;
    sync_dir(dir)
}

#[expect(clippy::cast_possible_wrap, reason = "records that lie in memory")]
fn encode_append(
    records: &[NewRecord],
    first: Offset,
    producer: Option<(Uuid, i64)>,
) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::with_capacity(records.iter().map(|record| record.payload.len() + 96).sum());
    for (index, record) in records.iter().enumerate() {
        let step = index as i64;
        let fields = Fields {
            offset: first + step,
            timestamp_ms: record.timestamp_ms,
            place: Place { begins: index == 0, ends: index + 1 == records.len() },
            producer: producer.map(|(id, sequence)| (id, sequence + step)),
            key: record.key.as_deref(),
            payload: &record.payload,
        };
        let body = record::encode(&fields, &mut bytes);
        if body > MAX_BODY_BYTES {
            return Err(SourceError::RecordTooLarge { bytes: body, limit: MAX_BODY_BYTES });
        }
    }
    Ok(bytes)
}
