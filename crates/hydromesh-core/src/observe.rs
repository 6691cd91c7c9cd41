//! The world against the ledger: whether a table still shows what was published.
//!
//! The ledger knows of every published partition how many rows it has and by which key its files are named. So the judgement
//! needs no memory of earlier looks and no table format: rows, names and files that are there say it all.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::PortId;
use crate::ledger::{Fact, LedgerState, PublishedPartition};

/// What was found of a port's table. A table that could not be looked at is not told of: unknown is not absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// There is no table.
    Absent,
    /// There is one, and its log makes no sense.
    Damaged,
    /// There is one.
    Known {
        /// Whether it can be read as of the version that readers are given.
        readable: bool,
        /// In what its columns differ from those of that version, one after the other. Columns that came since do not count.
        reshaped: Vec<String>,
        /// Its partitions by value; an unpartitioned table has the one key "".
        partitions: BTreeMap<String, SeenPartition>,
    },
}

/// What was found of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenPartition {
    /// Rows, if the table says.
    pub rows: Option<u64>,
    /// Digests of the keys that its files are named by; "" stands for a file that Hydromesh did not write.
    pub keys: BTreeSet<String>,
    /// Files that the table names and that are not there.
    pub gone: u64,
    /// Files that are not as long as the table says.
    pub cut: u64,
}

/// Returns the fact that a table is otherwise than it was published, if it is.
///
/// What is going to be computed again anyway is left out, and so is what was told before.
#[must_use]
pub fn alteration(ledger: &LedgerState, port: &PortId, seen: &Seen) -> Option<Fact> {
    let altered = |partitions: Vec<String>, dropped: bool, what: String| {
        Some(Fact::Altered { port: port.clone(), partitions, dropped, what })
    };
    let told = ledger.altered.get(port);
    let state = ledger.ports.get(port)?;
    let lost = |what: &str| {
        let known = |key: &String| told.is_some_and(|told| told.contains_key(key));
        let news = state.partitions.keys().any(|key| !known(key)) || follows(ledger, port);
        if news { altered(Vec::new(), true, what.to_owned()) } else { None }
    };
    let partitions = match seen {
        Seen::Absent => return lost("the table was dropped"),
        Seen::Damaged => return lost("its log is damaged"),
        // Whoever reads it asks for what was published last, and would ask in vain for ever.
        Seen::Known { readable: false, .. } => return lost("another table is in its place"),
        Seen::Known { reshaped, partitions, .. } => {
            // Each partition is otherwise than it was published, though its rows may still lie in the files.
            let all = state.partitions.keys().cloned().chain(follows(ledger, port).then(String::new));
            let all: BTreeSet<String> = all.collect();
            let news: Vec<String> =
                all.into_iter().filter(|key| !told.is_some_and(|told| told.contains_key(key))).collect();
            if let Some(first) = reshaped.first().filter(|_| !news.is_empty()) {
                return altered(news, false, format!("{first}{}", beside(reshaped.len())));
            }
            partitions
        }
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for (key, known) in &state.partitions {
        if known.forced || known.unsure || told.is_some_and(|told| told.contains_key(key)) {
            continue;
        }
        if let Some(what) = difference(known, partitions.get(key)) {
            found.push((key.clone(), what));
        }
    }
    let (first, what) = found.first()?;
    let place = if first.is_empty() { String::new() } else { format!("{first}: ") };
    let text = format!("{place}{what}{}", beside(found.len()));
    altered(found.into_iter().map(|(key, _)| key).collect(), false, text)
}

/// Says how many were found beside the one that is told of.
fn beside(found: usize) -> String {
    match found {
        0 | 1 => String::new(),
        2 => ", and another".to_owned(),
        more => format!(", and {} others", more - 1),
    }
}

/// Returns whether a stream is known to have filled a port.
fn follows(ledger: &LedgerState, port: &PortId) -> bool {
    let Some(deployed) = ledger.deployed.get(&port.product) else { return false };
    let mut streams = ledger.streams.keys().filter(|id| id.product == port.product);
    streams.any(|id| deployed.product.pipelines.get(&id.name).is_some_and(|it| *it.output() == port.port))
}

/// Returns in what a partition differs from what was published, if it does.
fn difference(known: &PublishedPartition, seen: Option<&SeenPartition>) -> Option<String> {
    let published = &known.published;
    let Some(seen) = seen else {
        // Nothing at all is how an unpartitioned table shows no rows.
        let empty = published.rows == 0 && published.partition.is_none();
        return (!empty).then(|| "its rows were deleted".to_owned());
    };
    if seen.gone > 0 {
        let are = if seen.gone == 1 { "file is" } else { "files are" };
        return Some(format!("{} data {are} gone", seen.gone));
    }
    if seen.cut > 0 {
        let are = if seen.cut == 1 { "file is" } else { "files are" };
        return Some(format!("{} data {are} not as long as when published", seen.cut));
    }
    if seen.keys.contains("") {
        return Some("it has files that Hydromesh did not write".to_owned());
    }
    if let Some(rows) = seen.rows.filter(|rows| *rows != published.rows) {
        return Some(format!("it has {rows} rows, {} were published", published.rows));
    }
    let other = !published.key.is_empty() && seen.keys.iter().any(|key| *key != published.key);
    other.then(|| "it was set back to what was published before".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, Published};

    fn port() -> PortId {
        "shop/orders.orders".parse().expect("a port")
    }

    fn ledger(rows: u64) -> LedgerState {
        let published = |(at, partition): (usize, &str)| Entry {
            seq: at as u64 + 1,
            at_ms: 0,
            fact: Fact::Published(Published {
                port: port(),
                partition: Some(partition.to_owned()),
                version: 1,
                rows,
                data_time_ms: None,
                data: "d".to_owned(),
                inputs: BTreeMap::new(),
                run: "run-1".to_owned(),
                key: format!("key of {partition}"),
                taken: None,
            }),
        };
        let entries: Vec<Entry> =
            ["2026-01-01", "2026-01-02"].into_iter().enumerate().map(published).collect();
        LedgerState::replay(&entries)
    }

    fn seen(edit: impl FnOnce(&mut BTreeMap<String, SeenPartition>)) -> Seen {
        let one = |key: &str| {
            let keys = BTreeSet::from([format!("key of {key}")]);
            (key.to_owned(), SeenPartition { rows: Some(3), keys, ..SeenPartition::default() })
        };
        let mut partitions = BTreeMap::from([one("2026-01-01"), one("2026-01-02")]);
        edit(&mut partitions);
        Seen::Known { readable: true, reshaped: Vec::new(), partitions }
    }

    /// Returns what is told of a table of which one partition was edited.
    fn told(edit: impl FnOnce(&mut SeenPartition)) -> Option<(Vec<String>, String)> {
        let seen = seen(|it| edit(it.get_mut("2026-01-02").expect("there")));
        match alteration(&ledger(3), &port(), &seen) {
            Some(Fact::Altered { partitions, dropped: false, what, .. }) => Some((partitions, what)),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_table_that_shows_what_was_published_is_left_alone() {
        assert_eq!(told(|_| ()), None);
        // Somebody added a partition that nobody asked for: nothing of what was published is wrong.
        let more = seen(|it| _ = it.insert("2031-01-01".to_owned(), SeenPartition::default()));
        assert_eq!(alteration(&ledger(3), &port(), &more), None);
    }

    #[test]
    fn every_way_to_change_a_partition_is_told_by_its_name() {
        type Edit<'a> = &'a dyn Fn(&mut SeenPartition);
        let day = || vec!["2026-01-02".to_owned()];
        let cases: [(Edit<'_>, &str); 5] = [
            (&|it| it.gone = 2, "2026-01-02: 2 data files are gone"),
            (&|it| it.cut = 1, "2026-01-02: 1 data file is not as long as when published"),
            (
                &|it| _ = it.keys.insert(String::new()),
                "2026-01-02: it has files that Hydromesh did not write",
            ),
            (&|it| it.rows = Some(4), "2026-01-02: it has 4 rows, 3 were published"),
            (
                &|it| it.keys = BTreeSet::from(["older".to_owned()]),
                "2026-01-02: it was set back to what was published before",
            ),
        ];
        for (edit, what) in cases {
            assert_eq!(told(edit), Some((day(), what.to_owned())));
        }
        let gone = seen(|it| _ = it.remove("2026-01-01"));
        let Some(Fact::Altered { partitions, what, .. }) = alteration(&ledger(3), &port(), &gone) else {
            panic!("nothing told")
        };
        assert_eq!(
            (partitions, what.as_str()),
            (vec!["2026-01-01".to_owned()], "2026-01-01: its rows were deleted")
        );
    }

    #[test]
    fn other_columns_concern_every_partition_and_are_told_once() {
        let Seen::Known { partitions, .. } = seen(|_| ()) else { panic!("known") };
        let reshaped =
            vec!["its column amount was dropped".to_owned(), "its column day is text, was date".to_owned()];
        let seen = Seen::Known { readable: true, reshaped, partitions };
        let mut ledger = ledger(3);
        let fact = alteration(&ledger, &port(), &seen).expect("told");
        let Fact::Altered { partitions, dropped: false, what, .. } = &fact else { panic!("{fact:?}") };
        assert_eq!(partitions, &["2026-01-01", "2026-01-02"]);
        assert_eq!(what, "its column amount was dropped, and another");
        ledger.apply(&Entry { seq: 3, at_ms: 0, fact });
        assert_eq!(alteration(&ledger, &port(), &seen), None);
        assert_eq!(ledger.altered[&port()].len(), 2);
    }

    #[test]
    fn a_table_that_is_gone_is_told_once() {
        // The same rows by the same keys, and yet another table: the version that was published is none of its own.
        let Seen::Known { partitions, .. } = seen(|_| ()) else { panic!("known") };
        let another = Seen::Known { readable: false, reshaped: Vec::new(), partitions };
        for seen in [Seen::Absent, Seen::Damaged, another] {
            let mut ledger = ledger(3);
            let fact = alteration(&ledger, &port(), &seen).expect("gone");
            assert!(matches!(&fact, Fact::Altered { dropped: true, .. }));
            ledger.apply(&Entry { seq: 3, at_ms: 0, fact });
            assert_eq!(ledger.altered[&port()].len(), 2);
            assert_eq!(alteration(&ledger, &port(), &seen), None);
        }
        assert_eq!(
            alteration(&LedgerState::default(), &port(), &Seen::Absent),
            None,
            "nothing was published"
        );
    }
}
