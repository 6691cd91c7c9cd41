//! Inputs of which a partition waits for some partitions alone.

use std::borrow::Cow;
use std::ops::Range;

use super::StepKey;
use super::grid::Grid;
use super::mapping::Mapping;
use super::survey::{Blocked, PipelineSurvey};
use crate::ids::PortId;
use crate::planted::{self, Bug};

/// Neighbouring partitions to compute.
#[derive(Debug, Clone)]
pub(super) struct Stale {
    pub range: Range<i64>,
    pub why: Cow<'static, str>,
    /// The failed step that covers them.
    pub failed: Option<StepKey>,
    /// What they wait for.
    pub blocked: Option<Blocked>,
}

/// An input of which a partition waits for some partitions alone.
#[derive(Debug, Clone)]
pub(super) struct RestsOn<'a> {
    pub input: PortId,
    pub survey: &'a PipelineSurvey,
    /// Which ones; the one of the same position without.
    pub mapping: Option<Mapping>,
}

impl RestsOn<'_> {
    /// Returns the places, of those that were looked at, of partitions that rest on any of a range of the input.
    pub fn places(&self, inputs: &Range<i64>, grid: &Grid) -> Range<i64> {
        let seen = grid.first..grid.seen;
        let readers = match &self.mapping {
            Some(mapping) if !planted::is(Bug::WindowForgotten) => mapping.readers(inputs, seen),
            _ => inputs.start.max(seen.start)..inputs.end.min(seen.end),
        };
        if readers.is_empty() { 0..0 } else { grid.place(readers.start)..grid.place(readers.end - 1) + 1 }
    }

    /// Returns the first partition of a range that reads nothing before a key of the input, which keeps nothing of that.
    pub fn kept_from(&self, grid: &Grid, key: &str, range: &Range<i64>) -> Option<i64> {
        let Some(mapping) = &self.mapping else { return grid.index(key) };
        let kept = self.survey.grid.as_ref()?.index(key)?;
        let gone = mapping.reads(range.start).start.min(kept)..kept;
        Some(mapping.readers(&gone, range.clone()).end.max(range.start))
    }

    /// Returns what can be computed of a stretch and what waits. Partitions that failed together wait together.
    pub fn apart(&self, stale: Stale, grid: &Grid) -> Vec<Stale> {
        let waits = self.waits(&stale.range);
        let blocked = |range: &Range<i64>| {
            let partitions = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            Some(Blocked { partitions, input: self.input.clone(), first: self.words(grid, range.start) })
        };
        let first = match waits.first() {
            Some(first) if stale.blocked.is_none() && !planted::is(Bug::BlockedBegins) => first,
            _ => return vec![stale],
        };
        if stale.failed.is_some() {
            let mut blocked = blocked(first);
            if let Some(blocked) = &mut blocked {
                blocked.partitions =
                    usize::try_from(stale.range.end - stale.range.start).unwrap_or(usize::MAX);
            }
            return vec![Stale { blocked, ..stale }];
        }
        let of = |range: Range<i64>, blocked| Stale { range, blocked, ..stale.clone() };
        let (mut parts, mut next) = (Vec::new(), stale.range.start);
        for wait in waits {
            parts.push(of(next..wait.start, None));
            next = wait.end;
            let blocked = blocked(&wait);
            parts.push(of(wait, blocked));
        }
        parts.push(of(next..stale.range.end, None));
        parts.retain(|part| !part.range.is_empty());
        parts
    }

    /// Returns the partitions within a range that wait.
    fn waits(&self, range: &Range<i64>) -> Vec<Range<i64>> {
        let Some(mapping) = &self.mapping else { return self.survey.stale_within(range) };
        if range.is_empty() {
            return Vec::new();
        }
        let window = mapping.awaits(range.start).start..mapping.awaits(range.end - 1).end;
        let lacking = self.lacking(&window);
        let mut waits: Vec<Range<i64>> = Vec::new();
        let mut add = |more: Range<i64>| match waits.last_mut() {
            Some(last) if last.end == more.start => last.end = more.end,
            _ => waits.push(more),
        };
        let mut next = range.start;
        for lack in &lacking {
            let readers = mapping.readers(lack, next..range.end);
            next = readers.end.max(next);
            if mapping.at_least().is_none() {
                add(readers);
                continue;
            }
            for index in readers {
                let awaits = mapping.awaits(index);
                let there = (awaits.end - awaits.start)
                    - within(&lacking, &awaits).map(|it| it.end - it.start).sum::<i64>();
                if there < mapping.needs(&awaits) {
                    add(index..index + 1);
                }
            }
        }
        waits.retain(|range| !range.is_empty());
        waits
    }

    /// Returns the positions of the input within a range that are not there: to be computed, or not looked at yet.
    fn lacking(&self, range: &Range<i64>) -> Vec<Range<i64>> {
        let seen = self.survey.grid.as_ref().map_or(i64::MIN, |grid| grid.seen);
        let mut lacking = self.survey.stale_within(&(range.start..range.end.min(seen)));
        lacking.push(range.start.max(seen)..range.end);
        lacking.retain(|range| !range.is_empty());
        lacking
    }

    /// Says for what a partition waits, if the pipeline says what it reads, or it is a value that has a name.
    pub fn words(&self, grid: &Grid, index: i64) -> Option<String> {
        let Some(mapping) = &self.mapping else {
            let value = grid.keys.values()?.at(index);
            return Some(format!("{value} waits for {value} of {}", self.input));
        };
        let awaits = mapping.awaits(index);
        let lacking = self.lacking(&awaits);
        let (key, first) = (grid.key(index), mapping.input_key(lacking.first()?.start));
        let all = awaits.end - awaits.start;
        let missing: i64 = lacking.iter().map(|it| it.end - it.start).sum();
        let enough = mapping.at_least().map_or_else(String::new, |_| {
            let there = all - missing;
            format!(" ({there} are there, at least {} are enough)", mapping.needs(&awaits))
        });
        let partitions = if all == 1 { "partition" } else { "partitions" };
        Some(format!(
            "{key} waits for {missing} of {all} {partitions} of {}{enough}, first {first}",
            self.input
        ))
    }
}

/// Returns the parts of ranges, in order, that lie within another one.
fn within<'a>(ranges: &'a [Range<i64>], within: &'a Range<i64>) -> impl Iterator<Item = Range<i64>> + 'a {
    ranges
        .iter()
        .map(|range| range.start.max(within.start)..range.end.min(within.end))
        .filter(|both| !both.is_empty())
}
