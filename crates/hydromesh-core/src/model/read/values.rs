//! `partition: {by: COLUMN, values: [..]}`: an output that is cut by the values of a list.

use super::pipeline::Reader;
use crate::diag::codes;
use crate::model::{Parts, Values};
use crate::syntax::{Map, Node, NodeKind};

impl<'n> Reader<'_, 'n, '_> {
    /// The values under `values`, and none of the keys of a calendar beside them.
    pub(super) fn values(&mut self, map: &Map<'n>, node: &'n Node) -> Option<Parts> {
        self.spots.insert("partition.values", node.at);
        let mut whole = true;
        for key in ["every", "start", "timezone"] {
            if map.opt(key).is_some() {
                let message = format!(
                    "`{key}` belongs to a calendar, and `values` cuts by a list: give one of the two"
                );
                self.sink().tell(codes::NOT_FOR_VALUES, map.spot(key), message);
                whole = false;
            }
        }
        if !matches!(node.value, NodeKind::Seq(_)) {
            map.wrong("values", node, "a list of values, such as `[at, de, it]`");
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
