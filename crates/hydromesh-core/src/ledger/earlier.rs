//! What was published before: what a band is taken from.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{LedgerState, Published, PublishedPartition};
use crate::band::{Band, Earlier, History};
use crate::ids::PortId;

/// Earlier publications of a whole table, or of a value of a list, that are kept.
const KEEP_WHOLE: usize = 60;

impl LedgerState {
    /// Returns what was published of a port by the same definition, before a partition (`None`: a whole table) in the
    /// data's own time; the last `most` of it. A value of a list is preceded by what was published of it before.
    ///
    /// What the table may not show, because somebody else changed it or a run was interrupted, is left out.
    #[must_use]
    pub fn earlier(&self, port: &PortId, data: &str, before: Option<&str>, most: usize) -> History {
        let Some(state) = self.ports.get(port) else { return History::new() };
        let altered = self.altered.get(port);
        let counts = |key: &str, it: &PublishedPartition| {
            it.published.data == data
                && !it.unsure
                && !altered.is_some_and(|altered| altered.contains_key(key))
        };
        let earlier = |it: &PublishedPartition| Earlier { rows: it.published.rows, nulls: it.nulls.clone() };
        let own = match before {
            Some(before) if self.values_of(port).is_none() => {
                let before = state.partitions.range(..before.to_owned()).rev();
                let known = before.filter(|(key, it)| counts(key, it)).take(most);
                return known.map(|(key, it)| (key.clone(), earlier(it))).collect();
            }
            Some(value) => state.values_before.get(value),
            None => Some(&state.before),
        };
        let key = before.unwrap_or_default();
        let shown = state.partitions.get(key).filter(|it| counts(key, it));
        let before = shown.into_iter().chain(own.into_iter().flatten().rev());
        let known = before.filter(|it| it.published.data == data).take(most);
        // Versions with zeros before them sort as text as they do as numbers.
        known.map(|it| (format!("{:020}", it.published.version), earlier(it))).collect()
    }

    /// Takes note of a measured percentage of nulls until the run publishes, or ends without.
    pub(super) fn note_nulls(
        &mut self,
        port: &PortId,
        partition: Option<&str>,
        run: &str,
        column: Option<&str>,
        measure: Option<f64>,
        band: Option<&Band>,
    ) {
        let (Some(column), Some(measure), Some(_)) = (column, measure, band) else { return };
        let place = (port.clone(), partition.unwrap_or_default().to_owned());
        let noted = self.measured.entry(place).or_default();
        if noted.0 != run {
            *noted = (run.to_owned(), BTreeMap::new());
        }
        noted.1.insert(column.to_owned(), measure);
    }

    /// Returns the percentages of nulls that the run measured of what it published.
    pub(super) fn nulls_of(&mut self, published: &Published) -> BTreeMap<String, f64> {
        let place = (published.port.clone(), published.partition.clone().unwrap_or_default());
        let noted = self.measured.remove(&place);
        noted.filter(|(run, _)| *run == published.run).map(|(_, nulls)| nulls).unwrap_or_default()
    }
}

/// Keeps what a whole table, or a value, showed before, unless it is shown again.
pub(super) fn keep(
    before: &mut VecDeque<Arc<PublishedPartition>>,
    replaced: Arc<PublishedPartition>,
    by: &Published,
) {
    // The same inputs give the same rows; counting them twice would make the band too narrow.
    let again = replaced.published.version == by.version || replaced.published.inputs == by.inputs;
    if again && replaced.published.data == by.data {
        return;
    }
    before.push_back(replaced);
    while before.len() > KEEP_WHOLE {
        before.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, ErrorKind, Fact, RunOutcome};
    use crate::model::QualitySeverity;
    use crate::plan::{StepKey, Work};

    fn port() -> PortId {
        "shop/visits.visits".parse().unwrap()
    }

    fn tell(ledger: &mut LedgerState, fact: Fact) {
        let entry = Entry { seq: ledger.seq + 1, at_ms: 0, fact };
        ledger.apply(&entry);
    }

    fn publish(
        ledger: &mut LedgerState,
        run: &str,
        partition: Option<&str>,
        rows: u64,
        data: &str,
        input: i64,
    ) {
        let version = i64::try_from(ledger.seq).unwrap();
        tell(
            ledger,
            Fact::Published(Published {
                port: port(),
                partition: partition.map(str::to_owned),
                version,
                rows,
                data_time_ms: None,
                data: data.to_owned(),
                inputs: [("shop/raw.raw".parse().unwrap(), input)].into(),
                run: run.to_owned(),
                key: String::new(),
                taken: None,
            }),
        );
    }

    fn measure(ledger: &mut LedgerState, run: &str, partition: Option<&str>, nulls: f64) {
        tell(
            ledger,
            Fact::Quality {
                port: port(),
                partition: partition.map(str::to_owned),
                run: run.to_owned(),
                rule: "usual_null_values_email".to_owned(),
                severity: QualitySeverity::Error,
                passed: false,
                measure: Some(nulls),
                threshold: String::new(),
                column: Some("email".to_owned()),
                rows: Some(10),
                band: Some(Band { alike: 0, needed: 4, usual: None }),
            },
        );
    }

    fn end(ledger: &mut LedgerState, run: &str) {
        let work = Work::Partitions { from: "2026-06-01".to_owned(), to: "2026-06-09".to_owned() };
        let step = StepKey { pipeline: "shop/visits:make".parse().unwrap(), work };
        let message = String::new();
        let outcome = RunOutcome::Failed { kind: ErrorKind::User, code: "HM-Q001".to_owned(), message };
        tell(ledger, Fact::RunFinished { run: run.to_owned(), step, outcome, took_ms: 1 });
    }

    fn rows(history: &History) -> Vec<(&str, u64)> {
        history.iter().map(|(key, it)| (key.as_str(), it.rows)).collect()
    }

    #[test]
    fn a_partition_is_preceded_by_what_the_same_definition_published_before_it() {
        let mut ledger = LedgerState::default();
        for (day, count) in [(5, 50), (1, 10), (2, 20), (3, 30), (4, 40)] {
            publish(&mut ledger, "r", Some(&format!("2026-06-0{day}")), count, "new", 1);
        }
        publish(&mut ledger, "r", Some("2026-06-02"), 21, "old", 1);
        let of = |ledger: &LedgerState, before, most| ledger.earlier(&port(), "new", Some(before), most);
        assert_eq!(
            rows(&of(&ledger, "2026-06-05", 9)),
            [("2026-06-01", 10), ("2026-06-03", 30), ("2026-06-04", 40)]
        );
        assert_eq!(rows(&of(&ledger, "2026-06-05", 2)), [("2026-06-03", 30), ("2026-06-04", 40)]);
        assert_eq!(rows(&of(&ledger, "2026-06-01", 9)), []);
        let (partitions, what) = (vec!["2026-06-04".to_owned()], "rows were deleted".to_owned());
        tell(&mut ledger, Fact::Altered { port: port(), partitions, dropped: false, what });
        assert_eq!(rows(&of(&ledger, "2026-06-05", 1)), [("2026-06-03", 30)], "nobody knows what it shows");
        assert_eq!(ledger.earlier(&"a/b.c".parse().unwrap(), "new", None, 9), History::new());
    }

    #[test]
    fn nulls_count_once_they_are_published_and_never_when_refused() {
        let mut ledger = LedgerState::default();
        measure(&mut ledger, "r1", Some("2026-06-01"), 3.0);
        publish(&mut ledger, "r1", Some("2026-06-01"), 10, "d", 1);
        // Refused.
        measure(&mut ledger, "r2", Some("2026-06-02"), 80.0);
        end(&mut ledger, "r2");
        assert_eq!(ledger.measured, BTreeMap::new(), "forgotten with its run");
        publish(&mut ledger, "r3", Some("2026-06-02"), 11, "d", 1);
        // Another run's measure is not this one's.
        measure(&mut ledger, "r4", Some("2026-06-03"), 90.0);
        publish(&mut ledger, "r5", Some("2026-06-03"), 12, "d", 1);
        let found = ledger.earlier(&port(), "d", Some("2026-06-09"), 9);
        let nulls: Vec<_> = found.values().map(|it| it.nulls.get("email").copied()).collect();
        assert_eq!(nulls, [Some(3.0), None, None]);
        assert_eq!(
            ledger.quality[&port()]["usual_null_values_email"].counts,
            (3, 0),
            "unknown is no failure"
        );
    }

    #[test]
    fn a_whole_table_remembers_what_it_showed() {
        let mut ledger = LedgerState::default();
        for input in 0_i64..70 {
            publish(&mut ledger, "r", None, 100 + input.unsigned_abs(), "d", input);
        }
        let newest = |ledger: &LedgerState, most| -> Vec<u64> {
            ledger.earlier(&port(), "d", None, most).into_values().map(|it| it.rows).collect()
        };
        assert_eq!(newest(&ledger, 3), [167, 168, 169]);
        assert_eq!(newest(&ledger, 500).len(), KEEP_WHOLE + 1, "and forgets");
        // Computed again from the same inputs it is not there twice.
        publish(&mut ledger, "r", None, 169, "d", 69);
        assert_eq!(newest(&ledger, 3), [167, 168, 169]);
        publish(&mut ledger, "r", None, 7, "e", 70);
        assert_eq!(newest(&ledger, 2), [168, 169], "another definition");
        assert_eq!(rows(&ledger.earlier(&port(), "e", None, 9)).len(), 1);
    }

    #[test]
    fn a_fact_of_an_earlier_version_is_read() {
        let text = r#"{"fact":"quality","port":"shop/visits.visits","partition":null,"run":"r","rule":"x",
                       "severity":"error","passed":true,"measure":1.0,"threshold":"exactly 1"}"#;
        let fact: Fact = serde_json::from_str(text).unwrap();
        let Fact::Quality { column: None, rows: None, band: None, .. } = &fact else { panic!("{fact:?}") };
        let written = serde_json::to_string(&fact).unwrap();
        assert!(!written.contains("band") && !written.contains("rows"), "and written as it was: {written}");
    }
}
