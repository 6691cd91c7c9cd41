//! Typed reading of nodes: what does not fit becomes a diagnostic, and reading goes on.

use std::cell::{Cell, RefCell};

use super::{Node, NodeKind};
use crate::diag::{Code, Diagnostic, Spot, codes};

/// Where the findings on one file go.
#[derive(Debug)]
pub struct Sink {
    file: String,
    found: RefCell<Vec<Diagnostic>>,
}

impl Sink {
    /// Returns an empty sink for a file.
    #[must_use]
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), found: RefCell::default() }
    }

    /// Returns the file's path.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Takes a diagnostic.
    pub fn push(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    /// Tells of something at a place of this file.
    pub fn tell(&self, code: Code, at: Spot, message: impl Into<String>) {
        self.push(Diagnostic::new(code, self.file.clone(), at, message));
    }

    /// Returns what was found.
    #[must_use]
    pub fn into_found(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }
}

/// A mapping being read. Every key that is asked for counts as known; [`Map::finish`] tells of the others.
#[derive(Debug)]
pub struct Map<'n> {
    /// Where the mapping starts.
    pub at: Spot,
    node: &'n Node,
    sink: &'n Sink,
    asked: RefCell<Vec<&'static str>>,
    complete: Cell<bool>,
}

impl<'n> Map<'n> {
    /// Returns a reader of a node that must be a mapping; of anything else, of an empty one, and tells.
    #[must_use]
    pub fn new(node: &'n Node, sink: &'n Sink) -> Self {
        if !matches!(node.value, NodeKind::Map(_)) {
            sink.tell(
                codes::WRONG_TYPE,
                node.at,
                format!("a mapping is wanted here, this is {}", node.kind()),
            );
        }
        let is_map = matches!(node.value, NodeKind::Map(_));
        Self { at: node.at, node, sink, asked: RefCell::default(), complete: Cell::new(is_map) }
    }

    /// Returns where findings go.
    #[must_use]
    pub fn sink(&self) -> &'n Sink {
        self.sink
    }

    /// Returns the value of a key unless it is absent or null.
    #[must_use]
    pub fn opt(&self, key: &'static str) -> Option<&'n Node> {
        self.asked.borrow_mut().push(key);
        self.node.get(key).filter(|node| node.value != NodeKind::Null)
    }

    /// Returns the value of a key and tells when it is absent.
    #[must_use]
    pub fn req(&self, key: &'static str) -> Option<&'n Node> {
        let node = self.opt(key);
        if node.is_none() && self.complete.get() {
            self.sink.tell(codes::MISSING_KEY, self.at, format!("`{key}` is missing"));
        }
        node
    }

    /// Returns where a key's value stands, else where the mapping does.
    #[must_use]
    pub fn spot(&self, key: &str) -> Spot {
        self.node.get(key).map_or(self.at, |node| node.at)
    }

    /// Returns a scalar as text.
    #[must_use]
    pub fn text(&self, key: &'static str) -> Option<String> {
        self.opt(key).and_then(|node| self.as_text(key, node))
    }

    /// Returns a required scalar as text.
    #[must_use]
    pub fn req_text(&self, key: &'static str) -> Option<String> {
        self.req(key).and_then(|node| self.as_text(key, node))
    }

    fn as_text(&self, key: &str, node: &Node) -> Option<String> {
        let text = node.text();
        if text.is_none() {
            self.wrong(key, node, "text");
        }
        text
    }

    /// Tells that a value has the wrong type.
    pub fn wrong(&self, key: &str, node: &Node, wanted: &str) {
        let message = format!("`{key}` wants {wanted}, this is {}", node.kind());
        self.sink.tell(codes::WRONG_TYPE, node.at, message);
    }

    /// Returns true or false.
    #[must_use]
    pub fn flag(&self, key: &'static str) -> Option<bool> {
        let node = self.opt(key)?;
        if let NodeKind::Bool(value) = node.value {
            return Some(value);
        }
        self.wrong(key, node, "true or false");
        None
    }

    /// Returns a whole number that is not negative.
    #[must_use]
    pub fn count(&self, key: &'static str) -> Option<u32> {
        let node = self.opt(key)?;
        if let NodeKind::Int(value) = node.value
            && let Ok(value) = u32::try_from(value)
        {
            return Some(value);
        }
        self.wrong(key, node, "a whole number that is not negative");
        None
    }

    /// Returns a number.
    #[must_use]
    pub fn number(&self, key: &'static str) -> Option<f64> {
        let node = self.opt(key)?;
        let number = node.number();
        if number.is_none() {
            self.wrong(key, node, "a number");
        }
        number
    }

    /// Returns one of a few words.
    #[must_use]
    pub fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let node = self.opt(key)?;
        let text = self.as_text(key, node)?;
        let chosen = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if chosen.is_none() {
            self.bad_choice(key, node.at, &text, &words.iter().map(|(word, _)| *word).collect::<Vec<_>>());
        }
        chosen
    }

    /// Tells that a value is none of the allowed ones.
    pub fn bad_choice(&self, key: &str, at: Spot, text: &str, words: &[&str]) {
        let message = format!("`{key}` is `{text}`, allowed are {}", words.join(", "));
        self.sink.push(
            Diagnostic::new(codes::BAD_CHOICE, self.sink.file(), at, message)
                .suggest(text, words.iter().copied()),
        );
    }

    /// Returns the items of a list; a missing list is empty.
    #[must_use]
    pub fn list(&self, key: &'static str) -> &'n [Node] {
        let Some(node) = self.opt(key) else { return &[] };
        if !matches!(node.value, NodeKind::Seq(_)) {
            self.wrong(key, node, "a list");
        }
        node.items()
    }

    /// Returns a list of texts; a single text counts as a list of one.
    #[must_use]
    pub fn texts(&self, key: &'static str) -> Vec<(String, Spot)> {
        let Some(node) = self.opt(key) else { return Vec::new() };
        if let Some(text) = node.text() {
            return vec![(text, node.at)];
        }
        if !matches!(node.value, NodeKind::Seq(_)) {
            self.wrong(key, node, "a list of texts");
        }
        node.items().iter().filter_map(|item| self.as_text(key, item).map(|text| (text, item.at))).collect()
    }

    /// Returns a reader of an inner mapping.
    #[must_use]
    pub fn map(&self, key: &'static str) -> Option<Map<'n>> {
        self.opt(key).map(|node| Map::new(node, self.sink))
    }

    /// Returns a reader of a required inner mapping.
    #[must_use]
    pub fn req_map(&self, key: &'static str) -> Option<Map<'n>> {
        self.req(key).map(|node| Map::new(node, self.sink))
    }

    /// Makes keys known that are legal and of no use here.
    pub fn known(&self, keys: &[&'static str]) {
        self.asked.borrow_mut().extend_from_slice(keys);
    }

    /// Tells of every key that nobody asked for.
    pub fn finish(self) {
        self.tell_unknown();
    }

    /// Tells of every key that nobody has asked for so far; once only.
    pub fn tell_unknown(&self) {
        let asked = self.asked.borrow();
        for (key, _) in self.node.entries() {
            if !asked.contains(&key.text.as_str()) {
                let message = format!("unknown key `{}`", key.text);
                self.sink.push(
                    Diagnostic::new(codes::UNKNOWN_KEY, self.sink.file(), key.at, message)
                        .suggest(&key.text, asked.iter().copied()),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::parse;

    #[test]
    fn everything_wrong_is_told_at_once() {
        let (documents, _) = parse("f", "a: [1]\nb: x\nc: blu\nnmae: z\n");
        let sink = Sink::new("f");
        let map = Map::new(&documents[0], &sink);
        assert_eq!(map.text("a"), None);
        assert_eq!(map.count("b"), None);
        assert_eq!(map.choice("c", &[("red", 1), ("blue", 2)]), None);
        assert_eq!(map.req_text("name"), None);
        map.finish();
        let found = sink.into_found();
        let codes: Vec<_> = found.iter().map(|it| (it.code.id(), it.line, it.help.as_str())).collect();
        assert_eq!(codes[0].0, "HM-Y008");
        assert_eq!(codes[1].0, "HM-Y008");
        assert_eq!(codes[2], ("HM-Y010", 3, "did you mean `blue`?"));
        assert_eq!(codes[3].0, "HM-Y009");
        assert_eq!(codes[4], ("HM-Y007", 4, "did you mean `name`?"));
    }

    #[test]
    fn a_text_in_place_of_a_mapping_is_told_once() {
        let (documents, _) = parse("f", "just text\n");
        let sink = Sink::new("f");
        let map = Map::new(&documents[0], &sink);
        assert_eq!(map.req_text("name"), None);
        map.finish();
        assert_eq!(sink.into_found().len(), 1);
    }
}
