//! `customProperties` of the standards, among which ours start with `hydromesh.`.

use std::cell::RefCell;

use crate::diag::{Diagnostic, Spot, codes};
use crate::syntax::{Map, Node};

/// Custom properties by name.
pub struct Custom<'n> {
    entries: Vec<(String, Option<&'n Node>, Spot)>,
    asked: RefCell<Vec<&'static str>>,
    file: String,
}

impl<'n> Custom<'n> {
    /// Reads the `customProperties` of a mapping.
    #[must_use]
    pub fn of(parent: &Map<'n>) -> Self {
        let mut entries = Vec::new();
        for item in parent.list("customProperties") {
            let map = Map::new(item, parent.sink());
            let name = map.req_text("property");
            let value = map.opt("value");
            if item.get("value").is_none() && !item.entries().is_empty() {
                map.sink().tell(codes::MISSING_KEY, item.at, "`value` is missing");
            }
            map.known(&["id", "description", "vendor"]);
            map.finish();
            if let Some(name) = name {
                entries.push((name, value, value.map_or(item.at, |value| value.at)));
            }
        }
        Self { entries, asked: RefCell::default(), file: parent.sink().file().to_owned() }
    }

    /// Returns the value of a property.
    #[must_use]
    pub fn get(&self, name: &'static str) -> Option<&'n Node> {
        self.asked.borrow_mut().push(name);
        self.entries.iter().find(|(found, ..)| found == name).and_then(|(_, value, _)| *value)
    }

    /// Returns a property's value as text.
    #[must_use]
    pub fn text(&self, name: &'static str) -> Option<(String, Spot)> {
        let node = self.get(name)?;
        node.text().map(|text| (text, node.at))
    }

    /// Tells of properties with our prefix that mean nothing.
    pub fn finish(self, parent: &Map<'_>) {
        let asked = self.asked.borrow();
        for (name, _, at) in &self.entries {
            if name.starts_with("hydromesh.") && !asked.contains(&name.as_str()) {
                let message = format!("unknown custom property `{name}`");
                let told = Diagnostic::new(codes::UNKNOWN_KEY, self.file.clone(), *at, message)
                    .suggest(name, asked.iter().copied());
                parent.sink().push(told);
            }
        }
    }
}
