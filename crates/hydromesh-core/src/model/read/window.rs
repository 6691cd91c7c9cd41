//! `inputs` of a batch pipeline: which partitions of an input a partition of the output reads.

use std::collections::BTreeMap;

use super::pipeline::{Reader, finish};
use crate::diag::{Diagnostic, codes};
use crate::ids::PortName;
use crate::model::InputWindow;
use crate::syntax::{Map, Node, NodeKind};
use crate::time::Shift;

impl<'n> Reader<'_, 'n, '_> {
    /// `{PORT: {partitions: same | {from: SHIFT, to: SHIFT}, wait: {at_least: N}}}`; `whole` becomes false if it is something
    /// else.
    pub(super) fn windows(&mut self, whole: &mut bool) -> BTreeMap<PortName, InputWindow> {
        let mut windows = BTreeMap::new();
        let Some(node) = self.map.opt("inputs") else { return windows };
        // Tells when it is no mapping.
        let _ = Map::new(node, self.sink());
        *whole &= matches!(node.value, NodeKind::Map(_));
        for (key, value) in node.entries() {
            let Some(port) = self.around.inputs.iter().find(|port| port.as_str() == key.text) else {
                let message = format!("`{}` is no input port of the product", key.text);
                let ports = self.around.inputs.iter().map(PortName::as_str);
                let diagnostic = Diagnostic::new(codes::NO_SUCH_PORT, self.sink().file(), key.at, message);
                self.sink().push(diagnostic.suggest(&key.text, ports));
                *whole = false;
                continue;
            };
            self.window_spots.insert(port.clone(), value.at);
            match self.window(value) {
                Some(window) => _ = windows.insert(port.clone(), window),
                None => *whole = false,
            }
        }
        windows
    }

    fn window(&self, node: &'n Node) -> Option<InputWindow> {
        let map = Map::new(node, self.sink());
        let partitions = map.req("partitions");
        let mut window = InputWindow::default();
        let mut whole = partitions.is_some();
        match partitions {
            Some(node) if matches!(node.value, NodeKind::Map(_)) => {
                let inner = Map::new(node, self.sink());
                for (key, border) in [("from", &mut window.from), ("to", &mut window.to)] {
                    match inner.text(key).map(|text| text.parse::<Shift>()) {
                        Some(Ok(shift)) => *border = shift,
                        Some(Err(error)) => {
                            self.sink().tell(codes::BAD_DURATION, inner.spot(key), error.to_string());
                            whole = false;
                        }
                        None => {}
                    }
                }
                finish(&inner, &["from", "to"]);
            }
            Some(node) if node.text().as_deref() == Some("same") => {}
            Some(node) => {
                let message = "`partitions` wants `same`, or borders such as `{from: -7d, to: 0d}`";
                self.sink().tell(codes::BAD_CHOICE, node.at, message);
                whole = false;
            }
            None => {}
        }
        if let Some(wait) = map.map("wait") {
            window.at_least = wait.count("at_least");
            if window.at_least == Some(0) {
                let message = "`at_least` is a number of partitions, from 1; leave `inputs` out to read all that is there";
                self.sink().tell(codes::BAD_VALUE, wait.spot("at_least"), message);
            }
            finish(&wait, &["at_least"]);
        }
        finish(&map, &["partitions", "wait"]);
        whole.then_some(window)
    }
}
