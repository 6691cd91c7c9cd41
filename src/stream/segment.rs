//! One partition of a topic folder on disk: which segments there are, how far the last one is complete, and reading by
//! offset. Readers and appenders share this view; it never writes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Message, Offset, PartitionId, SourceError,
    record::{self, BadHeader, FORMAT_VERSION, HEADER_BYTES, MAX_BODY_BYTES, PREFIX_BYTES, Parsed, Record},
};

/// Bytes fetched from a segment at a time: 256 KiB, some thousand events.
const CHUNK_BYTES: usize = 256 << 10;

/// Distance between two entries of the sparse index: reading from any offset skips at most this many bytes.
const INDEX_EVERY_BYTES: u64 = 64 << 10;

/// Producers remembered per partition; beyond it the ones that wrote longest ago are forgotten.
const MAX_PRODUCERS: usize = 1000;

/// Whether a view follows producers' sequences, which only an appender needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Producers {
    Track,
    Ignore,
}

/// The last thing a producer wrote to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerState {
    pub sequence: i64,
    pub offset: Offset,
}

/// What a view knows of one segment.
#[derive(Debug, Clone, Default)]
pub struct Segment {
    /// End of the last complete append, in bytes; 0 while nothing was scanned.
    pub end: u64,
    /// The offset after the last complete append.
    pub next: Offset,
    /// Some (offset, position) pairs in ascending order.
    index: Vec<(Offset, u64)>,
}

impl Segment {
    pub fn empty(base: Offset) -> Self {
        Segment { end: HEADER_BYTES as u64, next: base, index: Vec::new() }
    }

    fn remember(&mut self, offset: Offset, position: u64) {
        let last = self.index.last().copied();
        if last.is_none_or(|(known, at)| offset > known && position >= at + INDEX_EVERY_BYTES) {
            self.index.push((offset, position));
        }
    }

    fn position_before(&self, offset: Offset, base: Offset) -> (Offset, u64) {
        let after = self.index.partition_point(|(known, _)| *known <= offset);
        after.checked_sub(1).and_then(|at| self.index.get(at)).copied().unwrap_or((base, HEADER_BYTES as u64))
    }
}

/// A view of one partition.
#[derive(Debug)]
pub struct PartitionLog {
    dir: PathBuf,
    topic: String,
    topic_id: Uuid,
    partition: PartitionId,
    segments: BTreeMap<Offset, Segment>,
    mode: Producers,
    producers: BTreeMap<Uuid, ProducerState>,
}

impl PartitionLog {
    /// Returns a view of the partition that lies in `dir`, scanned to its present end.
    pub fn open(
        dir: PathBuf,
        topic: &str,
        topic_id: Uuid,
        partition: PartitionId,
        mode: Producers,
    ) -> Result<Self, SourceError> {
        let mut log = PartitionLog {
            dir,
            topic: topic.to_owned(),
            topic_id,
            partition,
            segments: BTreeMap::new(),
            mode,
            producers: BTreeMap::new(),
        };
        log.reload()?;
        log.refresh()?;
        Ok(log)
    }

    /// Returns the lowest offset still kept.
    pub fn low(&self) -> Offset {
        self.segments.keys().next().copied().unwrap_or_default()
    }

    /// Returns the offset after the last durable message.
    pub fn high(&self) -> Offset {
        self.segments.values().next_back().map_or(0, |segment| segment.next)
    }

    /// Returns the base offset and the state of the segment that is appended to.
    pub fn active(&mut self) -> Option<(Offset, &mut Segment)> {
        self.segments.iter_mut().next_back().map(|(base, segment)| (*base, segment))
    }

    pub fn producers(&mut self) -> &mut BTreeMap<Uuid, ProducerState> {
        &mut self.producers
    }

    pub fn segment_path(&self, base: Offset) -> PathBuf {
        segment_path(&self.dir, base)
    }

    pub fn snapshot_path(&self, base: Offset) -> PathBuf {
        self.dir.join(format!("{base:020}.producers.json"))
    }

    /// Brings the view up to date: cheap when nothing changed (two or three `stat` calls).
    pub fn refresh(&mut self) -> Result<(), SourceError> {
        match self.advance() {
            Err(SourceError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                // Retention removed even the segment this view knew as the last one: begin again from the listing.
                self.reload()?;
                self.advance()?;
            }
            other => other?,
        }
        // Retention removes segments from the lower end.
        while self.segments.len() > 1 && !self.segment_path(self.low()).exists() {
            self.segments.pop_first();
        }
        Ok(())
    }

    /// Reads up to `count` messages from `from` on, as long as their payloads stay within `byte_limit`, at least one.
    /// The caller has checked that `from` lies between [`PartitionLog::low`] and [`PartitionLog::high`].
    pub fn read(
        &mut self,
        from: Offset,
        count: usize,
        byte_limit: usize,
    ) -> Result<Vec<Message>, SourceError> {
        let (mut found, mut bytes, mut wanted) = (Vec::new(), 0, from);
        while found.len() < count && wanted < self.high() && (found.is_empty() || bytes < byte_limit) {
            let base = *self.segments.range(..=wanted).next_back().map_or(&0, |(base, _)| base);
            let last = self.segments.keys().next_back() == Some(&base);
            let path = self.segment_path(base);
            let mut file = match self.open_segment(base) {
                // Retention takes segments from the lower end only.
                Err(SourceError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && base != self.low() =>
                {
                    return Err(corrupt(&path, 0, "the segment is missing"));
                }
                other => other?,
            };
            let segment = self.segments.entry(base).or_default();
            // A segment with a successor is complete, the last one up to its last complete append.
            let limit = if last { segment.end } else { length(&file, &path)? };
            let (mut expected, start) = segment.position_before(wanted, base);
            let mut cursor = Cursor::new(&mut file, &path, start, limit)?;
            while found.len() < count && (found.is_empty() || bytes < byte_limit) {
                let position = cursor.position();
                let record = match cursor.step()? {
                    Step::End => break,
                    Step::Record(record) if record.offset == expected => record,
                    Step::Record(_) => {
                        return Err(corrupt(&path, position, "the offset does not follow the one before"));
                    }
                    Step::Incomplete => return Err(corrupt(&path, position, "the record is cut off")),
                    Step::Invalid(reason) => return Err(corrupt(&path, position, reason)),
                };
                segment.remember(record.offset, position);
                expected += 1;
                if record.offset >= wanted {
                    wanted = expected;
                    let payload = cursor.slice(&record, record.payload.clone());
                    bytes += payload.len();
                    let key = record.key.clone().map(|range| cursor.slice(&record, range));
                    found.push(Message {
                        partition: self.partition,
                        offset: record.offset,
                        timestamp_ms: record.timestamp_ms,
                        key,
                        payload,
                    });
                }
            }
            let exhausted = cursor.position() == limit;
            if exhausted && !last && !self.segments.contains_key(&expected) {
                return Err(corrupt(
                    &path,
                    limit,
                    format!("the segment that starts at offset {expected} is missing"),
                ));
            }
            if exhausted && last {
                break;
            }
        }
        Ok(found)
    }

    /// Opens a segment after checking that it belongs to this topic, partition and place.
    pub fn open_segment(&self, base: Offset) -> Result<File, SourceError> {
        let path = self.segment_path(base);
        let mut file = File::open(&path).map_err(SourceError::io("open", &path))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        (&mut file)
            .take(HEADER_BYTES as u64)
            .read_to_end(&mut bytes)
            .map_err(SourceError::io("read", &path))?;
        let header = record::parse_header(&bytes).map_err(|bad| match bad {
            BadHeader::Damaged(reason) => corrupt(&path, 0, reason),
            BadHeader::Version(found) => SourceError::FormatVersion {
                path: path.clone(),
                found: found.into(),
                supported: FORMAT_VERSION.into(),
            },
        })?;
        if header.topic_id != self.topic_id {
            return Err(SourceError::Replaced {
                topic: self.topic.clone(),
                expected: self.topic_id.to_string(),
                found: header.topic_id.to_string(),
            });
        }
        if header.base != base || header.partition != self.partition {
            return Err(corrupt(
                &path,
                0,
                "the header names another partition or offset than the file's place",
            ));
        }
        Ok(file)
    }

    fn reload(&mut self) -> Result<(), SourceError> {
        let bases = list_bases(&self.dir)?;
        let Some(last) = bases.last().copied() else {
            return Err(corrupt(&self.dir, 0, "the partition has no segment"));
        };
        self.segments = bases.iter().map(|base| (*base, Segment::default())).collect();
        self.segments.insert(last, Segment::empty(last));
        if self.mode == Producers::Track {
            self.producers = BTreeMap::new();
            match self.load_snapshot(last)? {
                Some(snapshot) => self.producers = snapshot,
                // The snapshot saves time only; what it says also stands in the segments before.
                None => {
                    for base in bases.iter().filter(|base| **base != last) {
                        self.segments.insert(*base, Segment::empty(*base));
                        self.scan(*base)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the producers' states as they are stored beside a new segment.
    pub fn snapshot(&self) -> Vec<u8> {
        let by_name: BTreeMap<String, ProducerState> =
            self.producers.iter().map(|(id, state)| (id.to_string(), *state)).collect();
        serde_json::to_vec(&by_name).expect("text and integers serialise")
    }

    fn load_snapshot(&self, base: Offset) -> Result<Option<BTreeMap<Uuid, ProducerState>>, SourceError> {
        let path = self.snapshot_path(base);
        match fs::read(&path) {
            // An unreadable snapshot is rebuilt from the segments like a missing one.
            Ok(bytes) => Ok(parse_snapshot(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SourceError::io("read", path)(error)),
        }
    }

    fn advance(&mut self) -> Result<(), SourceError> {
        loop {
            let Some(base) = self.segments.keys().next_back().copied() else { return Ok(()) };
            self.scan(base)?;
            let next = self.high();
            let successor = self.segment_path(next);
            if next == base || !successor.exists() {
                return Ok(());
            }
            let path = self.segment_path(base);
            let file = self.open_segment(base)?;
            let end = self.segments.get(&base).map_or(0, |segment| segment.end);
            if length(&file, &path)? != end {
                return Err(corrupt(&path, end, "a segment with a successor ends in an incomplete append"));
            }
            self.segments.insert(next, Segment::empty(next));
        }
    }

    /// Takes notice of appends completed since the last scan of the segment.
    fn scan(&mut self, base: Offset) -> Result<(), SourceError> {
        let path = self.segment_path(base);
        let length = fs::metadata(&path).map_err(SourceError::io("look at", &path))?.len();
        let before = self.segments.get(&base).cloned().unwrap_or_else(|| Segment::empty(base));
        if length == before.end {
            return Ok(());
        }
        let mut file = self.open_segment(base)?;
        if length < before.end {
            return Err(corrupt(&path, length, "the segment is shorter than it was"));
        }
        let mut after = self.scan_from(&mut file, &path, &before, length)?;
        if after.end < length && later_append_exists(&mut file, &path, &after, length)? {
            // An append under way looks the same for a moment: the bytes at its beginning were read before those at
            // its end were written. If it really was complete when the later one began, it reads well now.
            after = self.scan_from(&mut file, &path, &before, length)?;
            if after.end < length && later_append_exists(&mut file, &path, &after, length)? {
                return Err(corrupt(&path, after.end, "complete appends follow a damaged record"));
            }
        }
        if after.end > before.end {
            // Whoever reads a message may act on it, so it must not vanish in a power cut before its writer's own
            // sync: a second sync of clean pages costs next to nothing.
            match file.sync_data() {
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::InvalidInput
                    ) =>
                {
                    return Err(SourceError::io("sync", &path)(error));
                }
                _ => {}
            }
        }
        self.segments.insert(base, after);
        Ok(())
    }

    fn scan_from(
        &mut self,
        file: &mut File,
        path: &Path,
        before: &Segment,
        length: u64,
    ) -> Result<Segment, SourceError> {
        let mut segment = before.clone();
        let mut expected = before.next;
        let mut open_append = false;
        let mut pending = Vec::new();
        let mut cursor = Cursor::new(file, path, before.end, length)?;
        loop {
            let position = cursor.position();
            let Step::Record(record) = cursor.step()? else { break };
            // The checksum holds, so this is what a writer meant, and no crash explains it.
            if record.offset != expected {
                return Err(corrupt(path, position, "the offset does not follow the one before"));
            }
            if record.place.begins == open_append {
                return Err(corrupt(path, position, "an append begins or goes on where it must not"));
            }
            if record.place.begins {
                segment.remember(record.offset, position);
            }
            if let (Producers::Track, Some((id, sequence))) = (self.mode, record.producer) {
                pending.push((id, ProducerState { sequence, offset: record.offset }));
            }
            expected += 1;
            open_append = !record.place.ends;
            if record.place.ends {
                segment.end = cursor.position();
                segment.next = expected;
                self.producers.extend(pending.drain(..));
                forget_oldest(&mut self.producers);
            }
        }
        // Index entries beyond the last complete append would point at bytes that may still be replaced.
        segment.index.retain(|(_, position)| *position < segment.end);
        Ok(segment)
    }
}

fn parse_snapshot(bytes: &[u8]) -> Option<BTreeMap<Uuid, ProducerState>> {
    let by_name: BTreeMap<String, ProducerState> = serde_json::from_slice(bytes).ok()?;
    by_name.into_iter().map(|(id, state)| Some((Uuid::parse_str(&id).ok()?, state))).collect()
}

/// Drops producers beyond the limit, those that wrote longest ago first.
pub fn forget_oldest(producers: &mut BTreeMap<Uuid, ProducerState>) {
    while producers.len() > MAX_PRODUCERS {
        let oldest = producers.iter().min_by_key(|(_, state)| state.offset).map(|(id, _)| *id);
        if let Some(id) = oldest {
            producers.remove(&id);
        }
    }
}

pub fn segment_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.seg"))
}

fn list_bases(dir: &Path) -> Result<Vec<Offset>, SourceError> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(dir).map_err(SourceError::io("list", dir))? {
        let name = entry.map_err(SourceError::io("list", dir))?.file_name();
        let base = name.to_str().and_then(|name| name.strip_suffix(".seg")).filter(|stem| stem.len() == 20);
        bases.extend(base.and_then(|stem| stem.parse::<Offset>().ok()));
    }
    bases.sort_unstable();
    Ok(bases)
}

/// Returns whether some later append begins beyond the place where a scan stopped. Every append is synced before the
/// next begins, so this tells damage (of synced bytes) from the torn tail of a crash.
fn later_append_exists(
    file: &mut File,
    path: &Path,
    stopped: &Segment,
    length: u64,
) -> Result<bool, SourceError> {
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(stopped.end)).map_err(SourceError::io("read", path))?;
    file.take(length - stopped.end).read_to_end(&mut tail).map_err(SourceError::io("read", path))?;
    #[expect(clippy::cast_possible_wrap, reason = "bytes that lie in memory")]
    let plausible = stopped.next + 1..=stopped.next.saturating_add(tail.len() as i64);
    Ok((1..tail.len().saturating_sub(PREFIX_BYTES + 8)).any(|at| {
        let (length, offset) = (&tail[at..at + 4], &tail[at + PREFIX_BYTES..at + PREFIX_BYTES + 8]);
        // The cheap comparisons come first; a checksum is computed only where a record could stand.
        usize::from(length[3]) <= MAX_BODY_BYTES >> 24
            && offset.try_into().is_ok_and(|bytes| plausible.contains(&i64::from_le_bytes(bytes)))
            && matches!(record::parse(&tail[at..]), Parsed::Record(record) if record.place.begins)
    }))
}

fn corrupt(path: &Path, position: u64, reason: impl Into<String>) -> SourceError {
    SourceError::Corrupt { path: path.to_owned(), position, reason: reason.into() }
}

fn length(file: &File, path: &Path) -> Result<u64, SourceError> {
    Ok(file.metadata().map_err(SourceError::io("look at", path))?.len())
}

enum Step {
    Record(Record),
    /// The limit is reached between two records.
    End,
    Incomplete,
    Invalid(&'static str),
}

/// Walks over the records between two positions of a file.
struct Cursor<'a> {
    file: &'a mut File,
    path: &'a Path,
    /// Bytes of the file from `buffer_at` on; shared with the messages cut out of it.
    buffer: Bytes,
    buffer_at: u64,
    at: usize,
    limit: u64,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a mut File, path: &'a Path, start: u64, limit: u64) -> Result<Self, SourceError> {
        file.seek(SeekFrom::Start(start)).map_err(SourceError::io("read", path))?;
        Ok(Cursor { file, path, buffer: Bytes::new(), buffer_at: start, at: 0, limit })
    }

    fn position(&self) -> u64 {
        self.buffer_at + self.at as u64
    }

    fn step(&mut self) -> Result<Step, SourceError> {
        loop {
            let left = self.limit.saturating_sub(self.position());
            if left == 0 {
                return Ok(Step::End);
            }
            match record::parse(&self.buffer[self.at..]) {
                Parsed::Record(record) => {
                    self.at += record.size;
                    return Ok(Step::Record(record));
                }
                Parsed::Invalid(reason) => return Ok(Step::Invalid(reason)),
                Parsed::Incomplete { needed } if needed as u64 > left => return Ok(Step::Incomplete),
                Parsed::Incomplete { needed } => {
                    if !self.fill(needed)? {
                        return Ok(Step::Incomplete);
                    }
                }
            }
        }
    }

    /// Cuts bytes of the record that was returned last out of the buffer.
    fn slice(&self, record: &Record, range: std::ops::Range<usize>) -> Bytes {
        let start = self.at - record.size;
        self.buffer.slice(start + range.start..start + range.end)
    }

    /// Returns whether the buffer now holds at least `needed` bytes from the current position on.
    fn fill(&mut self, needed: usize) -> Result<bool, SourceError> {
        let rest = self.buffer.slice(self.at..);
        let room = self.limit - self.position() - rest.len() as u64;
        let wanted = (CHUNK_BYTES.max(needed) - rest.len()).min(usize::try_from(room).unwrap_or(usize::MAX));
        let mut bytes = Vec::with_capacity(rest.len() + wanted);
        bytes.extend_from_slice(&rest);
        (&mut *self.file)
            .take(wanted as u64)
            .read_to_end(&mut bytes)
            .map_err(SourceError::io("read", self.path))?;
        self.buffer_at = self.position();
        self.at = 0;
        self.buffer = Bytes::from(bytes);
        Ok(self.buffer.len() >= needed)
    }
}
