//! Waivers as they stand in the mesh: who lets which rule be broken where, why, and until when.
//!
//! One that is not whole waives nothing. Whether one has ended is asked of the clock by whoever has one.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::{Deserialize, Serialize};

use crate::diag::{Diagnostic, Spot, codes};
use crate::model::read::API_VERSION;
use crate::syntax::{Map, Sink, parse};

/// Where waivers lie.
const FOLDER: &str = "waivers/";
/// Rules by which the gate says that it could not ask: waiving them would switch it off.
const UNWAIVABLE: [&str; 3] = ["policy-error", "policy-input", "policy-unanswered"];

/// One waiver, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiver {
    /// Its name, which no other has.
    pub id: String,
    /// The one rule that it is about.
    pub rule: String,
    /// A product, port or column address; `*` stands for any characters but a slash.
    pub scope: String,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub approver: String,
    /// The instant from which on it does not count any more, as written (RFC 3339).
    pub expires: String,
    /// The same, milliseconds UTC.
    pub expires_ms: i64,
    /// Its file.
    pub file: String,
    /// Where it begins.
    pub line: u32,
}

impl Waiver {
    /// Returns what is to be told of it at an instant: it has ended, and waives nothing.
    #[must_use]
    pub fn ended(&self, now_ms: i64) -> Option<Diagnostic> {
        (self.expires_ms <= now_ms).then(|| {
            let message = format!("waiver `{}` of {} ended at {}", self.id, self.rule, self.expires);
            Diagnostic::new(codes::WAIVER_ENDED, self.file.clone(), Spot::new(self.line, 0), message)
        })
    }
}

/// Returns whether a file holds waivers.
#[must_use]
pub fn holds_waivers(path: &str) -> bool {
    path.starts_with(FOLDER) && (path.ends_with(".yaml") || path.ends_with(".yml"))
}

/// Reads the waivers of a mesh, path and text of each file, and tells what is wrong with them.
#[must_use]
pub fn read_waivers<'t>(
    files: impl IntoIterator<Item = (&'t str, &'t str)>,
) -> (Vec<Waiver>, Vec<Diagnostic>) {
    let mut waivers: BTreeMap<String, Waiver> = BTreeMap::new();
    let mut found = Vec::new();
    for (path, text) in files {
        let (documents, wrong) = parse(path, text);
        let unread = !wrong.is_empty();
        found.extend(wrong);
        if unread {
            // What could be made out of the rest of it is not what somebody approved.
            continue;
        }
        for document in &documents {
            let sink = Sink::new(path);
            let waiver = read(path, &Map::new(document, &sink));
            let wrong = sink.into_found();
            let whole = wrong.is_empty();
            found.extend(wrong);
            let Some(waiver) = waiver.filter(|_| whole) else { continue };
            match waivers.get(&waiver.id) {
                None => _ = waivers.insert(waiver.id.clone(), waiver),
                Some(other) => {
                    let message = format!("another waiver is called `{}` too", waiver.id);
                    let finding = Diagnostic::new(codes::WAIVER, path, Spot::new(waiver.line, 0), message);
                    found.push(finding.related(
                        other.file.clone(),
                        Spot::new(other.line, 0),
                        "the other one",
                    ));
                }
            }
        }
    }
    (waivers.into_values().collect(), found)
}

/// Reads one waiver; what is wrong with it is in the sink, and makes it none.
fn read(path: &str, map: &Map<'_>) -> Option<Waiver> {
    for (key, wanted) in [("apiVersion", API_VERSION), ("kind", "Waiver")] {
        if let Some(found) = map.req_text(key)
            && found != wanted
        {
            map.bad_choice(key, map.spot(key), &found, &[wanted]);
        }
    }
    let refuse = |key: &str, why: String| map.sink().tell(codes::WAIVER, map.spot(key), why);
    let text = |key: &'static str| {
        let text = map.req_text(key)?;
        if text.trim().is_empty() {
            refuse(key, format!("`{key}` says nothing"));
        }
        Some(text)
    };
    let (id, rule, scope) = (text("id"), text("rule"), text("scope"));
    let (reason, approver, expires) = (text("reason"), text("approver"), text("expires"));
    map.tell_unknown();
    if let Some(rule) = rule.as_ref().filter(|rule| UNWAIVABLE.contains(&rule.as_str())) {
        refuse("rule", format!("{rule} cannot be waived: it says that the gate could not ask"));
    }
    let expires = expires?;
    let at = DateTime::parse_from_rfc3339(&expires);
    if at.is_err() {
        refuse("expires", format!("`{expires}` is not an instant like 2026-12-31T00:00:00Z"));
    }
    Some(Waiver {
        id: id?,
        rule: rule?,
        scope: scope?,
        reason: reason?,
        approver: approver?,
        expires_ms: at.ok()?.timestamp_millis(),
        expires,
        file: path.to_owned(),
        line: map.at.line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: hydromesh/v1\nkind: Waiver\nid: w1\nrule: pii-exposed\nscope: shop/*\nreason: moving\n\
                        approver: ada@example.com\nexpires: 2026-12-31T00:00:00+01:00\n";

    fn told(text: &str) -> (usize, Vec<(&'static str, u32)>) {
        let (waivers, found) = read_waivers([("waivers/a.yaml", text)]);
        (waivers.len(), found.iter().map(|it| (it.code.id(), it.line)).collect())
    }

    #[test]
    fn a_whole_waiver_is_read_and_ends_at_its_instant() {
        let (waivers, found) = read_waivers([("waivers/a.yaml", GOOD)]);
        assert_eq!(found, []);
        let [waiver] = waivers.as_slice() else { panic!("{waivers:?}") };
        assert_eq!(
            (waiver.rule.as_str(), waiver.file.as_str(), waiver.line),
            ("pii-exposed", "waivers/a.yaml", 1)
        );
        let end = DateTime::parse_from_rfc3339("2026-12-30T23:00:00Z").unwrap().timestamp_millis();
        assert_eq!(waiver.ended(end - 1), None);
        let ended = waiver.ended(end).unwrap();
        assert_eq!((ended.code.id(), ended.file.as_str(), ended.line), ("HM-P005", "waivers/a.yaml", 1));
        let two = format!("{GOOD}---\n{}", GOOD.replace("w1", "w2"));
        assert_eq!(told(&two), (2, vec![]));
    }

    #[test]
    fn what_is_not_whole_waives_nothing_and_is_told_with_its_line() {
        for (from, to, code, line) in [
            ("approver: ada@example.com\n", "", "HM-Y009", 1),
            ("expires: 2026-12-31T00:00:00+01:00\n", "", "HM-Y009", 1),
            ("2026-12-31T00:00:00+01:00", "2026-12-31", "HM-P004", 8),
            ("2026-12-31T00:00:00+01:00", "never", "HM-P004", 8),
            ("ada@example.com", "' '", "HM-P004", 7),
            ("reason: moving", "reason: ''", "HM-P004", 6),
            ("pii-exposed", "policy-error", "HM-P004", 4),
            ("pii-exposed", "policy-unanswered", "HM-P004", 4),
            ("kind: Waiver", "kind: Waver", "HM-Y010", 2),
            ("scope:", "scop:", "HM-Y009", 1),
            ("reason: moving", "reason: [moving]", "HM-Y008", 6),
            ("reason: moving", "reason: moving\nuntil: 2027", "HM-Y007", 7),
            ("reason: moving", "reason: moving\nreason: more", "HM-Y003", 7),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            let (waivers, found) = told(&text);
            assert!(waivers == 0 && found.contains(&(code, line)), "{from} -> {to}: {found:?}");
        }
        assert_eq!(told(&format!("{GOOD}---\n{GOOD}")), (1, vec![("HM-P004", 10)]));
        // A broken one takes no other along.
        let both =
            format!("{}---\n{}", GOOD.replace("2026-12-31T00:00:00+01:00", "soon"), GOOD.replace("w1", "w2"));
        assert_eq!(told(&both), (1, vec![("HM-P004", 8)]));
    }

    #[test]
    fn only_yaml_of_the_folder_holds_waivers() {
        assert!(holds_waivers("waivers/a.yaml") && holds_waivers("waivers/shop/b.yml"));
        assert!(!holds_waivers("waivers/readme.md") && !holds_waivers("domains/shop/waivers/a.yaml"));
    }
}
