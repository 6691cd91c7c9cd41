//! `partition: {by: COLUMN, values: [..]}`: an output that is cut by the values of a list. `values: {from: INPUT.COLUMN}`: by those
//! that a column of an input has.

use super::pipeline::Reader;
use crate::diag::{Diagnostic, codes};
use crate::ids::PortName;
use crate::model::{KeySource, Parts, Values};
use crate::syntax::{Map, Node, NodeKind};

impl<'n> Reader<'_, 'n, '_> {
    /// The values under `values`, and none of the keys of a calendar beside them.
    pub(super) fn values(&mut self, map: &Map<'n>, node: &'n Node) -> Option<Parts> {
        self.spots.insert("partition.values", node.at);
        let mut whole = true;
        for key in ["every", "start", "timezone"] {
            if map.opt(key).is_some() {
                let message = format!(
                    "`{key}` belongs to a calendar, and `values` cuts by values: give one of the two"
                );
                self.sink().tell(codes::NOT_FOR_VALUES, map.spot(key), message);
                whole = false;
            }
        }
        if matches!(node.value, NodeKind::Map(_)) {
            let source = self.key_source(&Map::new(node, self.sink()))?;
            return whole.then(|| Parts::Keys { values: source, found: Values::default() });
        }
        if !matches!(node.value, NodeKind::Seq(_)) {
            map.wrong("values", node, "a list of values, such as `[at, de, it]`, or `{from: INPUT.COLUMN}`");
            return None;
        }
        let mut values = Vec::new();
        for item in node.items() {
            match item.text() {
                Some(text) => values.push(text),
                None => {
                    map.wrong("values", item, "a list of texts or whole numbers");
                    whole = false;
                }
            }
        }
        match Values::new(values) {
            Ok(values) => whole.then_some(Parts::Values { values }),
            Err(error) if whole => {
                self.sink().tell(codes::BAD_VALUES, node.at, error.to_string());
                None
            }
            Err(_) => None,
        }
    }

    /// `from: INPUT.COLUMN`.
    fn key_source(&mut self, map: &Map<'n>) -> Option<KeySource> {
        self.spots.insert("partition.from", map.spot("from"));
        let text = map.req_text("from");
        map.tell_unknown();
        let text = text?;
        let Some((input, column)) = text.split_once('.').filter(|(_, column)| !column.is_empty()) else {
            let message = format!("`{text}` is no column of an input: expected `INPUT.COLUMN`");
            self.sink().tell(codes::BAD_KEYS, map.spot("from"), message);
            return None;
        };
        let inputs = self.around.inputs;
        let Some(input) = inputs.iter().find(|port| port.as_str() == input) else {
            let message = format!("`{input}` is no input port of the product");
            let diagnostic =
                Diagnostic::new(codes::NO_SUCH_PORT, self.sink().file(), map.spot("from"), message);
            self.sink().push(diagnostic.suggest(input, inputs.iter().map(PortName::as_str)));
            return None;
        };
        Some(KeySource { input: input.clone(), column: column.to_owned() })
    }

    /// Tells of what a pipeline that is cut by values says of the length or the order of its partitions; `whole` becomes false if
    /// there is any.
    pub(super) fn calendar_only(&self, whole: &mut bool) {
        let mut tell = |map: &Map<'_>, key: &str, why: &str| {
            let message = format!("`{key}` has no meaning where partitions are values: {why}");
            self.sink().tell(codes::NOT_FOR_VALUES, map.spot(key), message);
            *whole = false;
        };
        if self.map.opt("lookback").is_some() {
            tell(self.map, "lookback", "no value is ever closed, newer rows of an input always reopen it");
        }
        let is_map = |node: &&Node| matches!(node.value, NodeKind::Map(_));
        let Some(backfill) = self.map.opt("backfill").filter(is_map) else { return };
        let backfill = Map::new(backfill, self.sink());
        if backfill.opt("chunk").is_some() {
            tell(&backfill, "chunk", "each is computed by a step of its own");
        }
        if backfill.opt("order").is_some() {
            tell(&backfill, "order", "none is newer than another");
        }
    }
}
