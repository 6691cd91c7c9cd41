//! The YAML that manifests are written in, straight from the parser's events.
//!
//! Nearly every manifest is blocks and flows of plain and quoted scalars. Reading those through serde, with two places
//! per value, takes three times as long as parsing them. Everything else (anchors, tags, merge keys, numbers in unusual
//! dress, anything that is wrong) is left to [`super::yaml`], which decides what a text means: whatever this reads, that
//! reads alike.

use granit_parser::{Event, Parser, ScalarStyle, Span};

use super::yaml::{Key, MAX_DEPTH, Node, NodeKind};
use crate::diag::Spot;

/// Longest digits of a number that no rounding touches.
const MOST_DIGITS: usize = 15;
/// Beyond it the library counts.
const MOST_NODES: usize = 100_000;
/// The library stops at twice as many.
const MOST_DOCUMENTS: usize = 512;
/// Beyond it looking for a repeated key one by one is slower than the library.
const MOST_KEYS: usize = 64;

/// Returns the documents of a text, or nothing when it holds anything unusual or wrong.
pub(super) fn documents(text: &str) -> Option<Vec<Node>> {
    let mut reader = Reader { parser: Parser::new_from_str(text), left: MOST_NODES };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamStart | Event::DocumentEnd, _) => {}
            (Event::DocumentStart(_, None), _) => {
                let node = reader.next().and_then(|event| reader.node(event, 0))?;
                // An empty document is skipped, or is the only one: not for here.
                if node.value == NodeKind::Null || documents.len() >= MOST_DOCUMENTS {
                    return None;
                }
                documents.push(node);
            }
            (Event::StreamEnd, _) => return Some(documents).filter(|documents| !documents.is_empty()),
            _ => return None,
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    left: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        self.parser.next()?.ok()
    }

    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Option<Node> {
        self.left = self.left.checked_sub(1)?;
        if depth >= MAX_DEPTH {
            return None;
        }
        let at = spot(&span)?;
        let (value, raw) = match event {
            Event::Scalar(text, ScalarStyle::Plain, 0, None) => plain(&text)?,
            Event::Scalar(text, _, 0, None) => (NodeKind::Str(text.into_owned()), String::new()),
            Event::SequenceStart(_, 0, None) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        event => items.push(self.node(event, depth + 1)?),
                    }
                }
                (NodeKind::Seq(items), String::new())
            }
            Event::MappingStart(_, 0, None) => (NodeKind::Map(self.entries(depth)?), String::new()),
            _ => return None,
        };
        Some(Node { value, at, raw })
    }

    fn entries(&mut self, depth: usize) -> Option<Vec<(Key, Node)>> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Some(entries),
                (Event::Scalar(text, style, 0, None), span) if is_usual_key(&text, style) => {
                    self.left = self.left.checked_sub(1)?;
                    Key { text: text.into_owned(), at: spot(&span)? }
                }
                _ => return None,
            };
            if entries.len() >= MOST_KEYS || entries.iter().any(|(known, _)| known.text == key.text) {
                return None;
            }
            let value = self.next().and_then(|event| self.node(event, depth + 1))?;
            entries.push((key, value));
        }
    }
}

fn spot(span: &Span) -> Option<Spot> {
    let (line, column) = (u32::try_from(span.start.line()).ok()?, u32::try_from(span.start.col()).ok()?);
    Some(Spot::new(line, column + 1))
}

/// A key that means its text and nothing else, such as a merge or a number.
fn is_usual_key(text: &str, style: ScalarStyle) -> bool {
    match style {
        ScalarStyle::Plain => {
            text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && !text.eq_ignore_ascii_case("null")
        }
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => true,
        _ => false,
    }
}

/// Returns a plain scalar's value and, where it is no text, its spelling; nothing for one that takes thought.
fn plain(text: &str) -> Option<(NodeKind, String)> {
    if text.is_empty() || text == "~" || text.eq_ignore_ascii_case("null") {
        return Some((NodeKind::Null, String::new()));
    }
    for (word, value) in [("true", true), ("false", false)] {
        if text.eq_ignore_ascii_case(word) {
            return Some((NodeKind::Bool(value), text.to_owned()));
        }
    }
    let string = || Some((NodeKind::Str(text.to_owned()), String::new()));
    match text.as_bytes()[0] {
        b'0'..=b'9' | b'-' => {}
        b'+' | b'.' => return None,
        _ => return string(),
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, rest) = split_digits(unsigned);
    let usual = whole == "0" || (!whole.starts_with('0') && (1..=MOST_DIGITS).contains(&whole.len()));
    match rest.as_bytes().first() {
        None if usual => Some((NodeKind::Int(text.parse().ok()?), text.to_owned())),
        // Dates, times, periods and sizes: `2026-08-01`, `30m`, `10 GB`.
        Some(b'-' | b' ' | b'/' | b'd' | b'h' | b'm' | b's' | b'w') if !whole.is_empty() => string(),
        Some(b'.') if usual => {
            let (fraction, rest) = split_digits(&rest[1..]);
            match rest.as_bytes().first() {
                None if !fraction.is_empty() && whole.len() + fraction.len() <= MOST_DIGITS => {
                    Some((NodeKind::Float(text.parse().ok()?), text.to_owned()))
                }
                // A version.
                Some(b'.') if !fraction.is_empty() => string(),
                _ => None,
            }
        }
        _ => None,
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}
