//! The features of a feature pipeline.

use super::pipeline::parse_span;
use crate::aggregate::AggSpec;
use crate::diag::codes;
use crate::syntax::Map;
use crate::tile::{FeatureSpec, Tail, ViewSpec};

/// One percent: below what anyone reads off a window of an hour or a week.
const DEFAULT_TAIL: Tail = Tail::Error { ppm: 10_000 };

/// Reads `features` and `tail`; `None` when one of them is not valid, which is told.
pub fn view(map: &Map<'_>) -> Option<ViewSpec> {
    let mut whole = true;
    let mut tail = DEFAULT_TAIL;
    if let Some(inner) = map.map("tail") {
        if let Some(read) = read_tail(&inner, "error") {
            tail = read;
        } else {
            whole &= inner.opt("error").is_none();
        }
        inner.finish();
    }
    let _ = map.req("features");
    let mut features = Vec::new();
    for node in map.list("features") {
        let feature = Map::new(node, map.sink());
        let name = feature.req_text("name").filter(|name| is_column(&feature, name));
        let agg = feature.req_text("agg").and_then(|text| {
            text.parse::<AggSpec>()
                .map_err(|error| map.sink().tell(codes::BAD_FEATURE, feature.spot("agg"), error.to_string()))
                .ok()
        });
        let _ = feature.req("windows");
        let texts = feature.texts("windows");
        let windows: Vec<_> =
            texts.iter().filter_map(|(text, _)| parse_span(&feature, "windows", text)).collect();
        let own_tail = feature.opt("tail").and_then(|_| read_tail(&feature, "tail"));
        feature.finish();
        match (name, agg) {
            (Some(name), Some(agg)) if windows.len() == texts.len() => {
                features.push(FeatureSpec { name, agg, windows, tail: own_tail.unwrap_or(tail) });
            }
            _ => whole = false,
        }
    }
    if !whole {
        return None;
    }
    ViewSpec::new(features)
        .map_err(|error| map.sink().tell(codes::BAD_FEATURE, map.spot("features"), error.to_string()))
        .ok()
}

fn read_tail(map: &Map<'_>, key: &'static str) -> Option<Tail> {
    let text = map.text(key)?;
    text.parse::<Tail>()
        .map_err(|error| map.sink().tell(codes::BAD_FEATURE, map.spot(key), error.to_string()))
        .ok()
}

/// A feature's name starts its columns' names, which SQL must be able to write without quotes.
fn is_column(map: &Map<'_>, name: &str) -> bool {
    let legal = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !legal {
        let message = format!("`{name}` is not a column name: use lower-case letters, digits and `_`");
        map.sink().tell(codes::BAD_FEATURE, map.spot("name"), message);
    }
    legal
}
