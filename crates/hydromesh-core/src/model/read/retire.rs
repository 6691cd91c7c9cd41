//! `hydromesh.retire`: what becomes of a product's tables once it has left the mesh.

use super::pipeline::span;
use crate::diag::codes;
use crate::model::RetirePolicy;
use crate::syntax::{Map, Node, NodeKind};
use crate::time::Span;

/// The name of the property, for messages.
const NAME: &str = "hydromesh.retire";

/// Reads `keep`, `archive`, `{archive: 7d}` or `{drop: 30d}`.
pub(super) fn retire(parent: &Map<'_>, node: &Node) -> Option<RetirePolicy> {
    if let NodeKind::Map(_) = node.value {
        let map = Map::new(node, parent.sink());
        let (archive, drop) = (span(&map, "archive"), span(&map, "drop"));
        let stated = ["archive", "drop"].into_iter().filter(|key| node.get(key).is_some()).count();
        map.finish();
        if stated != 1 {
            let message = format!("`{NAME}` wants one of `archive: TIME` and `drop: TIME`");
            parent.sink().tell(codes::BAD_VALUE, node.at, message);
            return None;
        }
        if drop.is_some_and(|after| after < RetirePolicy::SHORTEST_DROP) {
            let message = format!(
                "tables are dropped {} after their product left at the earliest, so that somebody can notice",
                RetirePolicy::SHORTEST_DROP
            );
            parent.sink().tell(codes::BAD_VALUE, map_value(node, "drop"), message);
            return None;
        }
        let archive = archive.map(|after| RetirePolicy::Archive { after });
        return archive.or(drop.map(|after| RetirePolicy::Drop { after }));
    }
    match node.text().as_deref() {
        Some("keep") => Some(RetirePolicy::Keep),
        Some("archive") => Some(RetirePolicy::Archive { after: Span::from_millis(0) }),
        Some("drop") => {
            let message =
                format!("`{NAME}: drop` says not when; write it with a time, such as `{{drop: 30d}}`");
            parent.sink().tell(codes::BAD_VALUE, node.at, message);
            None
        }
        Some(other) => {
            parent.bad_choice(NAME, node.at, other, &["keep", "archive", "{drop: 30d}"]);
            None
        }
        None => {
            parent.wrong(NAME, node, "`keep`, `archive` or `{drop: 30d}`");
            None
        }
    }
}

fn map_value(node: &Node, key: &str) -> crate::diag::Spot {
    node.get(key).map_or(node.at, |value| value.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::{Sink, parse};

    fn read(text: &str) -> (Option<RetirePolicy>, Vec<(String, String, String)>) {
        let (documents, _) = parse("product.odps.yaml", &format!("value: {text}\n"));
        let sink = Sink::new("product.odps.yaml");
        let map = Map::new(&documents[0], &sink);
        let policy = map.opt("value").and_then(|node| retire(&map, node));
        let told = sink.into_found().into_iter();
        (policy, told.map(|it| (it.code.id().to_owned(), it.message, it.help)).collect())
    }

    #[test]
    fn what_a_product_can_say_of_its_end() {
        let span = |text: &str| text.parse::<Span>().expect("a span");
        for (text, policy) in [
            ("keep", RetirePolicy::Keep),
            ("archive", RetirePolicy::Archive { after: span("0s") }),
            ("{archive: 7d}", RetirePolicy::Archive { after: span("7d") }),
            ("{drop: 30d}", RetirePolicy::Drop { after: span("30d") }),
            ("{drop: 24h}", RetirePolicy::Drop { after: span("1d") }),
        ] {
            assert_eq!(read(text), (Some(policy), vec![]), "{text}");
        }
    }

    #[test]
    fn what_it_cannot_say_is_told_with_what_to_write() {
        for (text, code, says, help) in [
            ("archiv", "HM-Y010", "allowed are keep, archive, {drop: 30d}", "did you mean `archive`?"),
            ("drop", "HM-M023", "says not when; write it with a time, such as `{drop: 30d}`", ""),
            ("{drop: 23h}", "HM-M023", "dropped 1d after their product left at the earliest", ""),
            ("{drop: 30d, archive: 1d}", "HM-M023", "wants one of", ""),
            ("{}", "HM-M023", "wants one of", ""),
            ("{drp: 30d}", "HM-Y007", "unknown key `drp`", "did you mean `drop`?"),
            ("[keep]", "HM-Y008", "wants `keep`, `archive` or `{drop: 30d}`", ""),
        ] {
            let (policy, told) = read(text);
            assert_eq!(policy, None, "{text}");
            let (found, message, hint) = &told[0];
            assert!(found == code && message.contains(says) && hint.contains(help), "{text}: {told:?}");
        }
        // A length of time that is none is told of as such.
        let (policy, told) = read("{drop: soon}");
        assert_eq!((policy, told.len()), (None, 1), "{told:?}");
    }
}
