//! Service levels of the contract standard.

use std::collections::BTreeMap;

use super::custom::Custom;
use crate::diag::codes;
use crate::model::{Sla, SlaKind};
use crate::syntax::{Map, Node};
use crate::time::{Span, SpanUnit};

/// Share of time that a promise must hold when its author does not say.
const DEFAULT_TARGET: f64 = 0.99;

/// Reads `slaProperties`. Two entries may share a property; they differ by id, else by element and driver.
pub fn read(parent: &Map<'_>) -> Vec<Sla> {
    let mut slas = Vec::new();
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for node in parent.list("slaProperties") {
        let map = Map::new(node, parent.sink());
        let property = map.req_text("property");
        let value = map.opt("value");
        if node.get("value").is_none() {
            map.sink().tell(codes::MISSING_KEY, node.at, "`value` is missing");
        }
        let unit = map.text("unit");
        let id = map.text("id");
        let scope: Vec<String> = [map.text("element"), map.text("driver")].into_iter().flatten().collect();
        map.known(&["valueExt", "description", "scheduler", "schedule", "authoritativeDefinitions"]);
        let custom = Custom::of(&map);
        let target = custom.text("hydromesh.target").map(|(text, at)| (share(&text), at));
        custom.finish(&map);
        let target = match target {
            None => DEFAULT_TARGET,
            Some((Some(target), _)) => target,
            Some((None, at)) => {
                map.sink().tell(codes::BAD_VALUE, at, "`hydromesh.target` is a share such as 0.99 or 99%");
                DEFAULT_TARGET
            }
        };
        let Some(property) = property else {
            map.finish();
            continue;
        };
        let kind = kind(&map, &property, value, unit.as_deref());
        map.finish();
        let base = id.unwrap_or_else(|| [vec![property], scope].concat().join(":"));
        let count = used.entry(base.clone()).and_modify(|count| *count += 1).or_insert(1);
        let id = if *count == 1 { base } else { format!("{base}#{count}") };
        slas.push(Sla { id, kind, target, line: node.at.line });
    }
    slas
}

fn share(text: &str) -> Option<f64> {
    let value = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.trim().parse::<f64>().ok()?,
    };
    (value > 0.0 && value <= 1.0).then_some(value)
}

fn kind(map: &Map<'_>, property: &str, value: Option<&Node>, unit: Option<&str>) -> SlaKind {
    let text = value.and_then(Node::text).unwrap_or_default();
    let other = || {
        let value = unit.map_or_else(|| text.clone(), |unit| format!("{text} {unit}"));
        SlaKind::Other { property: property.to_owned(), value }
    };
    let unclear = |wanted: &str| {
        let message = format!("`{property}` wants {wanted}; `{text}` is kept and not evaluated");
        map.sink().tell(codes::BAD_SLA, value.map_or(map.at, |value| value.at), message);
        other()
    };
    match property {
        "latency" | "freshness" | "ly" => match length(&text, unit) {
            Some(span) => SlaKind::DataAge(span),
            None => unclear("a length of time such as `4h`"),
        },
        "frequency" | "fy" => match length(&text, unit) {
            Some(span) => SlaKind::Heartbeat(span),
            None => unclear("a length of time such as `1d`"),
        },
        // Kept as it is written; `Contract::retention` reads it.
        "retention" if length(&text, unit).is_none() => unclear("a length of time such as `90d`"),
        "qualityPassRate" => {
            let number = text.trim().trim_end_matches('%').trim().parse::<f64>().ok();
            match number.filter(|percent| (0.0..=100.0).contains(percent)) {
                Some(percent) => SlaKind::QualityPassRate(percent),
                None => unclear("a percentage such as 99"),
            }
        }
        _ => other(),
    }
}

/// A length of time as the standard's users write it: `4` with a unit beside it, `4h`, `4 hours`.
pub fn length(text: &str, unit: Option<&str>) -> Option<Span> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let number: i64 = number.parse().ok().filter(|number| *number > 0)?;
    let suffix = suffix.trim();
    let unit = if suffix.is_empty() { unit? } else { suffix };
    let (factor, unit) = match unit.trim().to_lowercase().as_str() {
        "s" | "sec" | "second" | "seconds" => (1, SpanUnit::Second),
        "m" | "min" | "minute" | "minutes" => (1, SpanUnit::Minute),
        "h" | "hr" | "hour" | "hours" => (1, SpanUnit::Hour),
        "d" | "day" | "days" => (1, SpanUnit::Day),
        "w" | "week" | "weeks" => (1, SpanUnit::Week),
        // A promise over months or years is a calendar matter; 30 and 365 days keep it comparable.
        "mo" | "month" | "months" => (30, SpanUnit::Day),
        "y" | "yr" | "year" | "years" => (365, SpanUnit::Day),
        _ => return None,
    };
    Span::new(number.checked_mul(factor)?, unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_as_people_write_them() {
        let hours = |count| Span::new(count, SpanUnit::Hour);
        assert_eq!(length("4", Some("h")), hours(4));
        assert_eq!(length("4h", None), hours(4));
        assert_eq!(length("4 hours", Some("d")), hours(4));
        assert_eq!(length("1", Some("day")), hours(24));
        assert_eq!(length("4", None), None);
        assert_eq!(length("soon", Some("h")), None);
        assert_eq!(length("99999999999999999", Some("y")), None);
    }
}
