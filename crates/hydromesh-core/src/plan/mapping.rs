//! Which partitions of an input a partition of an output reads, and which partitions of the output read one of the input.
//!
//! Both calendars meet in instants: a window is a stretch of time, and it reads those partitions of the input that share an
//! instant with it. Its borders never run back from one partition to the next, so that whatever reads a stretch of the input
//! is a stretch of the output, found by halving and never by listing.

use std::ops::Range;

use chrono_tz::Tz;

use super::calendar::zone;
use crate::ids::PortId;
use crate::model::{BatchPipeline, Calendar, InputWindow, Partitioning, Product};
use crate::time::{Grain, Interval, Partition};

/// A window between two calendars. Positions are those of [`Partition::index`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mapping {
    output: (Grain, Tz),
    input: (Grain, Tz),
    window: InputWindow,
    /// Position of the input's first partition: what lies before it never comes.
    first: i64,
}

impl Mapping {
    /// Returns the mapping of an output's partitions to an input's, if the input's first partition is one.
    #[must_use]
    pub fn new(output: &Calendar, input: &Calendar, window: InputWindow) -> Option<Self> {
        let first = Partition::parse(input.every, &input.start).ok()?.index();
        Some(Self { output: (output.every, zone(output)), input: (input.every, zone(input)), window, first })
    }

    /// Returns the mappings that a pipeline declares for an input; none where it is read as a whole.
    #[must_use]
    pub fn of(product: &Product, batch: &BatchPipeline, port: &PortId, upstream: &Product) -> Vec<Self> {
        let own = batch.partition.as_ref().and_then(Partitioning::calendar);
        let theirs = upstream.cut_of(&port.port).and_then(Partitioning::calendar);
        let (Some(cut), Some(theirs)) = (own, theirs) else { return Vec::new() };
        let windows = product.windows_of(batch, port).into_iter();
        windows.filter_map(|window| Self::new(cut, theirs, *window)).collect()
    }

    /// Returns how many partitions of the input a window holds, from the fewest to one more than the most, by looking at every
    /// partition of the output of four years, a leap year among them, or of its first months by the hour. Clocks that change are
    /// left aside: what a window means does not hang on them.
    #[must_use]
    pub fn lengths(output: &Calendar, input: &Calendar, window: &InputWindow) -> Option<Range<i64>> {
        let plain = |cut: &Calendar| Calendar { timezone: "UTC".to_owned(), ..cut.clone() };
        let mapping = Self::new(&plain(output), &plain(input), *window)?;
        let at = |at_ms| Partition::containing(output.every, at_ms, Tz::UTC).index();
        // 2024-01-01, and from it four years or the first quarter.
        let first_ms = 1_704_067_200_000;
        let days = if output.every == Grain::Hour { 91 } else { 1_461 };
        let held = |index| {
            let reads = mapping.reads(index);
            reads.end - reads.start
        };
        let held = (at(first_ms)..at(first_ms + days * 86_400_000)).map(held);
        Some(held.clone().min()?..held.max()? + 1)
    }

    /// Returns the stretch of time that a partition of the output reads, milliseconds UTC.
    fn instants(&self, index: i64) -> Interval {
        let (every, zone) = self.output;
        let partition = Partition::from_index(every, index);
        let from = self.window.from.instant(partition.start(), zone);
        Interval::new(from, self.window.to.end_instant(partition.end(), zone))
    }

    /// Returns the positions of the input that a partition of the output reads.
    #[must_use]
    pub fn reads(&self, index: i64) -> Range<i64> {
        if self.output == self.input && self.window.is_same() {
            // Also the hour that a clock skips.
            return index..index + 1;
        }
        let (instants, (every, zone)) = (self.instants(index), self.input);
        let at = |instant| Partition::containing(every, instant, zone).index();
        // Of an hour that a clock skips both borders are one instant, which still lies in some day.
        let from = at(instants.from());
        from..from.max(at(instants.to() - 1) + 1)
    }

    /// Returns the keys of the first and the last partition of the input that a partition of the output reads.
    #[must_use]
    pub fn keys(&self, key: &str) -> Option<(String, String)> {
        let reads = self.reads(Partition::parse(self.output.0, key).ok()?.index());
        let key = |index| Partition::from_index(self.input.0, index).to_string();
        (!reads.is_empty()).then(|| (key(reads.start), key(reads.end - 1)))
    }

    /// Returns the positions of the input that a partition of the output may wait for.
    pub(super) fn awaits(&self, index: i64) -> Range<i64> {
        let reads = self.reads(index);
        reads.start.max(self.first)..reads.end.max(self.first)
    }

    /// Returns how many of them have to be there.
    pub(super) fn needs(&self, awaits: &Range<i64>) -> i64 {
        let all = awaits.end - awaits.start;
        self.window.at_least.map_or(all, |least| all.min(least.into()))
    }

    /// Returns how many partitions the pipeline says are enough.
    pub(super) fn at_least(&self) -> Option<u32> {
        self.window.at_least
    }

    /// Returns which partitions of the output, within a range, read any of a range of the input.
    #[must_use]
    pub fn readers(&self, inputs: &Range<i64>, within: Range<i64>) -> Range<i64> {
        let from = first(within.clone(), |index| self.reads(index).end > inputs.start);
        from..first(from..within.end, |index| self.reads(index).start >= inputs.end)
    }

    /// Returns up to which partition of the output, within a range, the input may be there that is published up to a
    /// position.
    pub(super) fn covered(&self, published: i64, within: Range<i64>) -> i64 {
        first(within, |index| {
            let awaits = self.awaits(index);
            !awaits.is_empty() && awaits.start + self.needs(&awaits) > published
        })
    }

    /// Returns the position of a key of the input, if it is one of its calendar.
    pub(crate) fn input_index(&self, key: &str) -> Option<i64> {
        Partition::parse(self.input.0, key).ok().map(Partition::index)
    }

    /// Returns the key of a position of the input.
    pub(super) fn input_key(&self, index: i64) -> String {
        Partition::from_index(self.input.0, index).to_string()
    }
}

/// Returns the first position of a range from which on something holds, or its end.
fn first(range: Range<i64>, holds: impl Fn(i64) -> bool) -> i64 {
    let (mut low, mut high) = (range.start, range.end.max(range.start));
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(every: Grain, zone: &str) -> Calendar {
        let start = Partition::containing(every, 1_735_689_600_000, Tz::UTC).to_string();
        Calendar { every, start, timezone: zone.to_owned() }
    }

    fn mapping(output: (Grain, &str), input: (Grain, &str), from: &str, to: &str) -> Mapping {
        let window = InputWindow { from: from.parse().unwrap(), to: to.parse().unwrap(), at_least: None };
        Mapping::new(&cut(output.0, output.1), &cut(input.0, input.1), window).expect("a first partition")
    }

    fn reads(mapping: &Mapping, key: &str) -> String {
        mapping.keys(key).map_or_else(|| "nothing".to_owned(), |(from, to)| format!("{from}..{to}"))
    }

    #[test]
    fn windows_meet_the_partitions_of_other_grains_in_instants() {
        use Grain::{Day, Hour, Month, Week};
        const UTC: &str = "UTC";
        const ZURICH: &str = "Europe/Zurich";
        for (output, input, from, to, key, expected) in [
            // The same.
            ((Day, UTC), (Day, UTC), "0d", "0d", "2026-03-29", "2026-03-29..2026-03-29"),
            ((Hour, ZURICH), (Hour, ZURICH), "0d", "0d", "2026-03-29T02", "2026-03-29T02..2026-03-29T02"),
            // Lag and moving windows.
            ((Day, UTC), (Day, UTC), "-1d", "-1d", "2026-03-01", "2026-02-28..2026-02-28"),
            ((Day, UTC), (Day, UTC), "-6d", "0d", "2026-03-03", "2026-02-25..2026-03-03"),
            ((Day, ZURICH), (Day, ZURICH), "-1d", "-1d", "2026-03-30", "2026-03-29..2026-03-29"),
            ((Day, UTC), (Day, UTC), "0d", "1d", "2026-12-31", "2026-12-31..2027-01-01"),
            ((Month, UTC), (Month, UTC), "-12mo", "-12mo", "2027-02", "2026-02..2026-02"),
            // Hours pass: the skipped one is not there, and the repeated one is twice as long.
            ((Hour, ZURICH), (Hour, ZURICH), "-1h", "-1h", "2026-03-29T03", "2026-03-29T01..2026-03-29T01"),
            ((Hour, ZURICH), (Hour, ZURICH), "-1h", "-1h", "2026-10-25T03", "2026-10-25T02..2026-10-25T02"),
            // Roll-up.
            ((Day, UTC), (Hour, UTC), "0d", "0d", "2026-03-29", "2026-03-29T00..2026-03-29T23"),
            ((Day, ZURICH), (Hour, UTC), "0d", "0d", "2026-03-29", "2026-03-28T23..2026-03-29T21"),
            ((Day, ZURICH), (Hour, UTC), "0d", "0d", "2026-10-25", "2026-10-24T22..2026-10-25T22"),
            ((Month, UTC), (Day, UTC), "0d", "0d", "2028-02", "2028-02-01..2028-02-29"),
            ((Month, UTC), (Day, UTC), "-1mo", "0d", "2026-03", "2026-02-01..2026-03-31"),
            ((Month, UTC), (Day, UTC), "-1mo", "-1mo", "2026-03", "2026-02-01..2026-02-28"),
            ((Month, ZURICH), (Day, UTC), "0d", "0d", "2026-03", "2026-02-28..2026-03-31"),
            ((Month, UTC), (Week, UTC), "0d", "0d", "2026-11", "2026-10-26..2026-11-30"),
            ((Week, UTC), (Day, UTC), "0d", "0d", "2026-11-30", "2026-11-30..2026-12-06"),
            // Fan-out.
            ((Day, UTC), (Month, UTC), "0d", "0d", "2026-03-29", "2026-03..2026-03"),
            ((Day, UTC), (Month, UTC), "-1mo", "-1mo", "2026-03-29", "2026-02..2026-02"),
            ((Day, UTC), (Month, UTC), "-1mo", "-1mo", "2026-02-28", "2026-01..2026-01"),
            ((Hour, UTC), (Day, UTC), "-1d", "-1d", "2026-03-01T00", "2026-02-28..2026-02-28"),
            ((Hour, ZURICH), (Day, UTC), "0d", "0d", "2026-03-01T00", "2026-02-28..2026-02-28"),
            ((Week, UTC), (Month, UTC), "0d", "0d", "2026-11-30", "2026-11..2026-12"),
            ((Day, UTC), (Week, UTC), "-1w", "-1w", "2026-12-06", "2026-11-23..2026-11-23"),
        ] {
            let mapping = mapping(output, input, from, to);
            assert_eq!(reads(&mapping, key), expected, "{output:?} {input:?} {from} {to}");
        }
        // A day that never was reads nothing.
        let apia = mapping((Day, "Pacific/Apia"), (Hour, "Pacific/Apia"), "0d", "0d");
        assert_eq!(reads(&apia, "2011-12-30"), "nothing");
        assert_eq!(reads(&apia, "not a day"), "nothing");
    }

    #[test]
    fn what_lies_before_the_first_partition_is_not_waited_for() {
        // The input begins with 2025.
        let mut mapping = mapping((Grain::Month, "UTC"), (Grain::Day, "UTC"), "-1mo", "0d");
        let month = |key| Partition::parse(Grain::Month, key).unwrap().index();
        let days = |mapping: &Mapping, key| {
            let awaits = mapping.awaits(month(key));
            (awaits.end - awaits.start, mapping.needs(&awaits))
        };
        assert_eq!(
            [days(&mapping, "2024-12"), days(&mapping, "2025-01"), days(&mapping, "2025-02")],
            [(0, 0), (31, 31), (59, 59)]
        );
        mapping.window.at_least = Some(40);
        assert_eq!([days(&mapping, "2025-01"), days(&mapping, "2025-02")], [(31, 31), (59, 40)]);
        let within = month("2024-01")..month("2026-01");
        let day = |key| Partition::parse(Grain::Day, key).unwrap().index();
        assert_eq!(mapping.covered(i64::MIN, within.clone()), month("2025-01"));
        // Forty days are enough, and the first month has no more than its own.
        assert_eq!(mapping.covered(day("2025-02-01"), within.clone()), month("2025-02"));
        assert_eq!(mapping.covered(day("2025-02-09"), within.clone()), month("2025-02"));
        assert_eq!(mapping.covered(day("2025-02-10"), within), month("2025-03"));
    }

    fn shift() -> impl Strategy<Value = String> {
        (-40_i32..10, prop::sample::select(vec!["h", "d", "w", "mo"]))
            .prop_map(|(count, unit)| format!("{count}{unit}"))
    }

    fn calendar() -> impl Strategy<Value = (Grain, &'static str)> {
        let grains = vec![Grain::Hour, Grain::Day, Grain::Week, Grain::Month];
        let zones = vec![
            "UTC",
            "Europe/Zurich",
            "America/St_Johns",
            "Asia/Beirut",
            "Australia/Lord_Howe",
            "Pacific/Apia",
        ];
        (prop::sample::select(grains), prop::sample::select(zones))
    }

    proptest! {
        #[test]
        fn readers_are_those_that_read(
            output in calendar(),
            input in calendar(),
            (from, to) in (shift(), shift()),
            at_ms in 1_300_000_000_000_i64..1_800_000_000_000,
            (offset, length) in (-60_i64..60, 1_i64..40),
        ) {
            // Months of hours are refused: the 29th to the 31st of March would run over the 28th of February time and again.
            prop_assume!(output.0 != Grain::Hour || !from.ends_with("mo") && !to.ends_with("mo"));
            let mapping = mapping(output, input, &from, &to);
            let here = Partition::containing(output.0, at_ms, Tz::UTC).index();
            let within = here - 50..here + 50;
            let reads: Vec<Range<i64>> = within.clone().map(|index| mapping.reads(index)).collect();
            prop_assert!(reads.is_sorted_by(|one, next| one.start <= next.start && one.end <= next.end));
            let start = mapping.reads(here).start + offset;
            let inputs = start..start + length;
            let readers = mapping.readers(&inputs, within.clone());
            for (index, reads) in within.zip(reads) {
                let read = reads.start.max(inputs.start) < reads.end.min(inputs.end);
                // Whoever reads nothing may be in between.
                prop_assert!(read == readers.contains(&index) || reads.is_empty(), "{index} {reads:?} {inputs:?}");
            }
        }
    }
}
