use hydromesh_core::band::{Band, Range};
use hydromesh_core::ledger::Published;

use super::*;

struct Story {
    audits: Audits,
    seq: u64,
}

impl Story {
    fn new(most: usize) -> Self {
        Self { audits: Audits { most, ..Audits::default() }, seq: 0 }
    }

    fn tell(&mut self, fact: Fact, only: Option<&str>) {
        self.seq += 1;
        self.audits.enter(&Entry { seq: self.seq, at_ms: 1_793_577_600_000, fact }, only);
    }

    fn audit(&mut self, run: &str, partition: &str, rows: f64, only: Option<&str>) {
        let usual = Some(Range { low: 80.0, middle: 100.0, high: 125.0 });
        let bands = [("rows", Some(Band { alike: 6, needed: 4, usual })), ("keys", None)];
        for (rule, band) in bands {
            let passed = band.as_ref().is_none_or(|band| band.holds(rows) == Some(true));
            let threshold = band.as_ref().map_or_else(|| "exactly 0".to_owned(), |band| band.spoken(false));
            let fact = Fact::Quality {
                port: "shop/visits.visits".parse().expect("an address"),
                partition: Some(partition.to_owned()),
                run: run.to_owned(),
                rule: rule.to_owned(),
                severity: QualitySeverity::Error,
                passed,
                measure: Some(if band.is_some() { rows } else { 0.0 }),
                threshold,
                column: None,
                rows: Some(98),
                band,
            };
            self.tell(fact, only);
        }
    }

    fn publish(&mut self, run: &str, partition: &str) {
        let published = Published {
            port: "shop/visits.visits".parse().expect("an address"),
            partition: Some(partition.to_owned()),
            version: i64::try_from(self.seq).expect("few"),
            rows: 98,
            data_time_ms: None,
            data: "d".to_owned(),
            inputs: BTreeMap::new(),
            run: run.to_owned(),
            key: String::new(),
            taken: None,
        };
        self.tell(Fact::Published(published), None);
    }

    /// Three partitions: one refused and then published by the next run.
    fn week(most: usize, only: Option<&str>) -> Self {
        let mut story = Self::new(most);
        story.audit("run-1", "2026-07-12", 98.0, only);
        story.publish("run-1", "2026-07-12");
        story.audit("run-1", "2026-07-13", 9.0, only);
        story.audit("run-2", "2026-07-13", 101.0, only);
        story.publish("run-2", "2026-07-13");
        story.audit("run-2", "2026-07-14", 10.0, only);
        story
    }

    fn seen(&self) -> Vec<(String, String, Option<i64>, bool)> {
        let all = self.audits.by_port.values().flatten();
        all.map(|it| {
            assert_eq!(it.rules.len(), 2);
            (it.run.clone(), it.partition.clone().expect("one"), it.table_version, it.is_refused())
        })
        .collect()
    }
}

#[test]
fn an_audit_is_the_rules_of_one_run_on_one_partition() {
    let of = |run: &str, key: &str, version, refused| (run.to_owned(), key.to_owned(), version, refused);
    assert_eq!(
        Story::week(9, None).seen(),
        [
            of("run-1", "2026-07-12", Some(2), false),
            of("run-1", "2026-07-13", None, true),
            of("run-2", "2026-07-13", Some(7), false),
            of("run-2", "2026-07-14", None, true),
        ]
    );
    assert_eq!(Story::week(1, None).seen(), [of("run-2", "2026-07-14", None, true)]);
    assert_eq!(Story::week(1, Some("2026-07-13")).seen(), [of("run-2", "2026-07-13", Some(7), false)]);
}

#[test]
fn people_read_what_was_measured_wanted_and_done() {
    let story = Story::week(2, None);
    let found: Vec<Audit> = story.audits.by_port.into_values().flatten().collect();
    insta::assert_snapshot!(human(&found, 1_793_577_600_000 + 7_200_000, Paint::stdout()), @"
    shop/visits.visits 2026-07-13  published as version 7, run-2, 2h ago
    RULE  OUTCOME  MEASURED  WANTED
    rows  held     101       80 to 125, as 6 like it before  blocks
    keys  held     0         exactly 0                       blocks

    shop/visits.visits 2026-07-14  refused, what was published before stays, run-2, 2h ago
    RULE  OUTCOME  MEASURED  WANTED
    rows  failed   10        80 to 125, as 6 like it before  blocks
    keys  held     0         exactly 0                       blocks
    ");
}

#[test]
fn measures_are_told_with_four_decimals_at_most() {
    assert_eq!([1.0, 2.083_333, 0.0, 1e7].map(number), ["1", "2.0833", "0", "10000000"]);
}
