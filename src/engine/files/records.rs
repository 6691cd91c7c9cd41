//! Splits CSV text into records (RFC 4180), so that a broken row costs that row alone.

use std::borrow::Cow;

/// One field of a record, as offsets into the record's bytes; quotes around it are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    start: usize,
    end: usize,
    /// Two quotes within it stand for one.
    doubled_quotes: bool,
}

impl Field {
    /// Returns the field's text out of its record's.
    pub(super) fn of<'a>(&self, record: &'a str) -> Cow<'a, str> {
        // Commas, quotes and line ends are ASCII, so that every offset is between two characters.
        let text = record.get(self.start..self.end).unwrap_or_default();
        if self.doubled_quotes { Cow::Owned(text.replace("\"\"", "\"")) } else { Cow::Borrowed(text) }
    }

    /// Returns whether the byte at this offset of the record is part of the field.
    pub(super) fn contains(&self, offset: usize) -> bool {
        (self.start..self.end).contains(&offset)
    }
}

/// Why a record's fields cannot be told apart. The fields are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something other than a comma or a line end follows a closing quote.
    TextAfterQuote(usize),
    /// A quote opens a field and none closes it.
    QuoteStaysOpen(usize),
}

/// A record: the line that it begins in, 1-based, and its bytes without the line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) line: u64,
    pub(super) bytes: &'a [u8],
    pub(super) fault: Option<Fault>,
}

/// The records of a file, one after the other.
#[derive(Debug)]
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
    /// Records that begin before this line end with their line.
    multiline_from: u64,
}

/// Where a field ends, and what ends it.
enum Stop {
    Comma(usize),
    LineEnd(usize),
    Fault(usize, Fault),
}

impl<'a> Records<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, line: 1, multiline_from: 1 }
    }

    /// Returns the next record and leaves its fields in `fields`.
    ///
    /// Empty lines are no records. After a fault, reading goes on at the line after the one that the record begins in:
    /// an opening quote that is a slip would otherwise swallow the rows up to the next quote. Up to the line of the
    /// fault each line then stands alone, so that no byte is read more than a few times whatever the quotes are.
    pub(super) fn read(&mut self, fields: &mut Vec<Field>) -> Option<Record<'a>> {
        fields.clear();
        while let Some(length) = self.line_end(self.at) {
            self.at += length;
            self.line += 1;
        }
        if self.at >= self.bytes.len() {
            return None;
        }
        let (begin, line) = (self.at, self.line);
        let limit = if line < self.multiline_from { self.next_newline(begin) } else { self.bytes.len() };
        let mut at = begin;
        loop {
            let (field, stop) = self.field(begin, at, limit, fields.len());
            fields.push(field);
            match stop {
                Stop::Comma(next) => at = next,
                Stop::LineEnd(end) => {
                    let next = end + self.line_end(end).unwrap_or(self.bytes.len() - end);
                    self.line += lines(&self.bytes[begin..next]);
                    self.at = next;
                    return Some(Record { line, bytes: &self.bytes[begin..end], fault: None });
                }
                Stop::Fault(found, fault) => {
                    let end = self.next_newline(begin);
                    self.at = (end + 1).min(self.bytes.len());
                    self.line += 1;
                    self.multiline_from = self.multiline_from.max(line + lines(&self.bytes[begin..found]));
                    return Some(Record { line, bytes: &self.bytes[begin..end], fault: Some(fault) });
                }
            }
        }
    }

    fn next_newline(&self, from: usize) -> usize {
        self.bytes[from..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(self.bytes.len(), |length| from + length)
    }

    /// Returns the length of the line end at an offset, if there is one. A carriage return ends a file too.
    fn line_end(&self, at: usize) -> Option<usize> {
        match self.bytes.get(at..)? {
            [b'\n', ..] | [b'\r'] => Some(1),
            [b'\r', b'\n', ..] => Some(2),
            _ => None,
        }
    }

    fn field(&self, begin: usize, at: usize, limit: usize, index: usize) -> (Field, Stop) {
        let field = |start: usize, end: usize, doubled_quotes| Field {
            start: start - begin,
            end: end - begin,
            doubled_quotes,
        };
        if self.bytes.get(at) != Some(&b'"') {
            let rest = &self.bytes[at..];
            let mut end = rest
                .iter()
                .position(|byte| matches!(byte, b',' | b'\n'))
                .map_or(self.bytes.len(), |n| at + n);
            if self.bytes.get(end) == Some(&b',') {
                return (field(at, end, false), Stop::Comma(end + 1));
            }
            if end > at && self.bytes[end - 1] == b'\r' {
                end -= 1;
            }
            return (field(at, end, false), Stop::LineEnd(end));
        }
        let start = at + 1;
        let (mut from, mut doubled) = (start, false);
        let quote = |from| self.bytes.get(from..limit)?.iter().position(|byte| *byte == b'"');
        while let Some(length) = quote(from) {
            let (end, after) = (from + length, from + length + 1);
            match self.bytes.get(after) {
                Some(b'"') => (from, doubled) = (after + 1, true),
                Some(b',') => return (field(start, end, doubled), Stop::Comma(after + 1)),
                None => return (field(start, end, doubled), Stop::LineEnd(after)),
                Some(_) if self.line_end(after).is_some() => {
                    return (field(start, end, doubled), Stop::LineEnd(after));
                }
                Some(_) => {
                    return (field(start, end, doubled), Stop::Fault(after, Fault::TextAfterQuote(index)));
                }
            }
        }
        (field(start, limit, doubled), Stop::Fault(limit, Fault::QuoteStaysOpen(index)))
    }
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |lines, byte| lines + u64::from(*byte == b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(u64, Result<Vec<String>, Fault>)> {
        let mut records = Records::new(text.as_bytes());
        let (mut fields, mut all) = (Vec::new(), Vec::new());
        while let Some(record) = records.read(&mut fields) {
            let text = std::str::from_utf8(record.bytes).expect("UTF-8");
            let texts = fields.iter().map(|field| field.of(text).into_owned()).collect();
            all.push((record.line, record.fault.map_or(Ok(texts), Err)));
        }
        all
    }

    fn rows(text: &str) -> Vec<Vec<String>> {
        split(text).into_iter().map(|(_, record)| record.expect("no fault")).collect()
    }

    #[test]
    fn fields_are_split_as_the_standard_says() {
        assert_eq!(rows("a,b\r\nc,d\r\n"), [["a", "b"], ["c", "d"]]);
        assert_eq!(rows("a,\n,b"), [["a", ""], ["", "b"]]);
        assert_eq!(rows("\"a,b\",\"c \"\"d\"\"\"\r\n"), [["a,b", "c \"d\""]]);
        assert_eq!(rows("\"\",\"\"\"\"\n"), [["", "\""]]);
        assert_eq!(rows("a\"b, \"c\"\n"), [["a\"b", " \"c\""]]);
        assert_eq!(rows("\n\r\na\n\nb\n\n"), [["a"], ["b"]]);
        assert_eq!(rows("a,b\r"), [["a", "b"]]);
        assert_eq!(rows("a\rb"), [["a\rb"]]);
        assert_eq!(rows(","), [["", ""]]);
        assert!(rows("").is_empty());
    }

    #[test]
    fn lines_are_counted_as_an_editor_shows_them() {
        let lines: Vec<u64> = split("h\n\n\"a\nb\n\"\r\nc\r\nd").into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 3, 6, 7]);
    }

    #[test]
    fn a_stray_quote_costs_its_own_line_alone() {
        let found = split("a,\"b\nc,d\n\"e\",f\n\"g,h\ni,j");
        let row = |fields: [&str; 2]| Ok(fields.map(str::to_owned).to_vec());
        assert_eq!(
            found,
            [
                (1, Err(Fault::TextAfterQuote(1))),
                (2, row(["c", "d"])),
                (3, row(["e", "f"])),
                (4, Err(Fault::QuoteStaysOpen(0))),
                (5, row(["i", "j"])),
            ]
        );
    }

    #[test]
    fn a_record_of_several_lines_may_follow_a_stray_quote() {
        let found = split("a,\"b\n\"c\nd\",e\n");
        let row = Ok(vec!["c\nd".to_owned(), "e".to_owned()]);
        assert_eq!(found, [(1, Err(Fault::TextAfterQuote(1))), (2, row)]);
    }

    /// Each line, read by itself, opens a quote that runs through all the rest: reading on from line to line takes as
    /// many steps as bytes, or, done naively, as the square of the lines, which is hours.
    #[test]
    fn quotes_that_lead_astray_cost_no_more_than_others() {
        let lines = 300_000;
        let text = format!("{}\"x", "a\",\"\n".repeat(lines));
        let found = split(&text);
        assert_eq!(found.len(), lines + 1);
        assert!(found.iter().all(|(_, record)| record.is_err()));
    }
}
