//! What is due of a batch pipeline: which partitions, in which chunks.
//!
//! A chunk is a function of the ledger and of its place in the calendar alone, so only those are looked at again that a
//! fact touched. What was never published is one stretch, however long: nothing here lists its partitions.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::grid::Grid;
use super::keys::length_ms;
use super::rests::{RestsOn, Stale};
use super::survey::{ALTERED, Chunk, Lack, PipelineSurvey, Survey, Touch, UNSURE, expire};
use super::{NotDue, StepKey, Work, partition_bounds_ms};
use crate::ids::{PipelineId, PortId};
use crate::ledger::{Deployed, PublishedPartition, Reading};
use crate::model::{BatchPipeline, BatchSchedule, ByPromise, Partitioning};
use crate::planted::{self, Bug};
use crate::time::Cron;

/// From the end of a run to what readers see, milliseconds.
const WAY_MS: i64 = 60_000;

/// Why something is to be computed.
type Why = Cow<'static, str>;

/// What all partitions of a pipeline have in common.
pub(super) struct Table<'a> {
    pub(super) survey: Survey<'a>,
    pub(super) id: &'a PipelineId,
    pub(super) deployed: &'a Deployed,
    pub(super) batch: &'a BatchPipeline,
    pub(super) port: PortId,
    /// What is published.
    partitions: Option<&'a BTreeMap<String, Arc<PublishedPartition>>>,
    /// How inputs are read.
    readings: BTreeMap<PortId, Option<Reading<'a>>>,
    /// Inputs of which each partition waits for some partitions alone.
    rests_on: Vec<RestsOn<'a>>,
    /// The last and the next tick of its schedule, once somebody asked.
    ticks: OnceCell<(Option<i64>, Option<i64>)>,
}

impl<'a> Survey<'a> {
    pub(super) fn batch(
        self,
        id: &'a PipelineId,
        deployed: &'a Deployed,
        batch: &'a BatchPipeline,
        before: Option<PipelineSurvey>,
        touch: &Touch,
    ) -> PipelineSurvey {
        let port = deployed.product.port(&batch.output);
        let partitions = self.ledger.ports.get(&port).map(|state| &state.partitions);
        let mut found = PipelineSurvey { order: batch.order, ..PipelineSurvey::new(port.clone()) };
        let inputs: BTreeSet<&PortId> = deployed.product.reads().collect();
        let rests_on = inputs.into_iter().flat_map(|input| self.rests_on(deployed, batch, input));
        let (readings, rests_on) = (BTreeMap::new(), rests_on.collect());
        let ticks = OnceCell::new();
        let mut table =
            Table { survey: self, id, deployed, batch, port, partitions, readings, rests_on, ticks };
        let Some(cut) = &batch.partition else {
            let mut until_ms = None;
            let why = table.whole(&mut until_ms);
            if let Some(until_ms) = until_ms {
                expire(&mut found.until_ms, until_ms);
                if why.is_none() {
                    let why = "newer rows of its inputs wait for its schedule".to_owned();
                    let until_ms = Some(until_ms);
                    found.waits.push(NotDue { pipeline: id.clone(), why, until_ms, held: false });
                }
            }
            if let Some(why) = why {
                let key = StepKey { pipeline: id.clone(), work: Work::Whole };
                let pushed = self.push_only(&mut found, deployed, key, why.into_owned());
                let why = pushed.err().unwrap_or_else(|| "being computed".to_owned());
                found.lacks = Some(Lack::Work(why));
            }
            return found;
        };
        let outlived = cut.values().is_some() && planted::is(Bug::ListOutlived);
        let kept = before.filter(|_| !touch.whole || outlived);
        let kept = kept.and_then(|mut it| Some((it.grid.take()?, it)));
        let anew = kept.is_none();
        let begin = || Some((Grid::new(batch, cut)?, found.clone()));
        let Some((grid, kept)) = kept.or_else(begin) else { return found };
        let mut looked = table.look(cut, grid, kept, touch);
        if let Some(source) = cut.source() {
            table.seek(&mut looked, source);
        }
        if anew {
            // What it was before is forgotten.
            looked.changed.clear();
            looked.changed.push(i64::MIN..i64::MAX);
        }
        looked
    }
}

impl Table<'_> {
    fn look(
        &mut self,
        cut: &Partitioning,
        mut grid: Grid,
        mut found: PipelineSurvey,
        touch: &Touch,
    ) -> PipelineSurvey {
        let now_ms = self.survey.now_ms;
        if grid.ended_until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
            (grid.ended, grid.ended_until_ms) = self.ended(&grid, cut);
        }
        let covered = self.covered(cut, &grid);
        let limit = covered.iter().map(|(_, end)| *end).fold(grid.ended, i64::min);
        // It only grows: what is published stays, and another definition of an input begins anew.
        let before = std::mem::replace(&mut grid.seen, limit);
        let mut places = self.touched(cut, &grid, &found, touch);
        if before < limit {
            places.extend(grid.places_from(before));
            if before > grid.first {
                // What was the newest is a backlog now.
                places.insert(grid.place(before - 1));
            }
            // Even what needs nothing was not there for readers before it was looked at.
            found.changed.push(before..limit);
        }
        while grid.expiries.first().is_some_and(|(until_ms, _)| *until_ms <= now_ms) {
            places.extend(grid.expiries.pop_first().map(|(_, place)| place));
        }
        for place in places {
            let chunk = self.chunk(cut, &grid, grid.range(place));
            if let Some(until_ms) = found.chunks.get(&place).and_then(|chunk| chunk.until_ms) {
                grid.expiries.remove(&(until_ms, place));
            }
            grid.expiries.extend(chunk.until_ms.map(|until_ms| (until_ms, place)));
            let before = if chunk.stale.is_empty() {
                found.chunks.remove(&place)
            } else {
                found.chunks.insert(place, chunk)
            };
            let now = found.chunks.get(&place).map_or(&[][..], |chunk| &chunk.stale);
            if before.map(|chunk| chunk.stale).unwrap_or_default() != now {
                found.changed.push(grid.range(place));
            }
        }
        found.lacks = (!found.chunks.is_empty()).then_some(Lack::Partitions);
        found.until_ms = grid.ended_until_ms;
        if let Some((until_ms, _)) = grid.expiries.first() {
            expire(&mut found.until_ms, *until_ms);
        }
        let mut until_ms = None;
        found.waits = self.uncovered(cut, &grid, &covered, &mut until_ms).into_iter().collect();
        if let Some(until_ms) = until_ms {
            expire(&mut found.until_ms, until_ms);
        }
        found.grid = Some(grid);
        found
    }

    /// Returns the places that facts have touched.
    fn touched(
        &self,
        cut: &Partitioning,
        grid: &Grid,
        found: &PipelineSurvey,
        touch: &Touch,
    ) -> BTreeSet<i64> {
        let mut places = BTreeSet::new();
        let at = |key: &str| grid.index(key).map(|index| grid.place(index));
        for (port, key) in &touch.published {
            if *port == self.port {
                places.extend(at(key));
                continue;
            }
            if self.deployed.print.aligned.contains(&(self.batch.output.clone(), port.clone())) {
                places.extend(at(key));
            } else if self.rests_on(port).next().is_some() {
                for on in self.rests_on(port) {
                    let index = on.mapping.as_ref().and_then(|mapping| mapping.input_index(key));
                    places.extend(index.into_iter().flat_map(|index| on.places(&(index..index + 1), grid)));
                }
            } else {
                // What is closed does not look at its inputs any more; a value never is.
                let lookback = self.batch.lookback.filter(|_| cut.values().is_none());
                let open = lookback.map_or(grid.first, |lookback| {
                    let closed_ms = self.survey.now_ms.saturating_sub(lookback.millis());
                    grid.end_at(cut, closed_ms.saturating_sub(1))
                });
                places.extend(grid.places_from(open));
            }
            // What failed may be worth another try.
            places.extend(found.chunks.iter().filter(|(_, chunk)| chunk.failed).map(|(place, _)| *place));
        }
        for (port, range) in &touch.changed {
            places.extend(self.rests_on(port).flat_map(|on| on.places(range, grid)));
        }
        for step in touch.steps.iter().filter(|step| step.pipeline == *self.id) {
            let all = grid.places_from(grid.first);
            let of_step = grid.places_of(&step.work);
            places
                .extend(of_step.map_or(all.clone(), |(from, to)| from.max(all.start)..(to + 1).min(all.end)));
        }
        places
    }

    /// Returns how an input is rested on: once for each window.
    fn rests_on(&self, port: &PortId) -> impl Iterator<Item = &RestsOn<'_>> {
        self.rests_on.iter().filter(move |on| on.input == *port)
    }

    /// Returns the position after the last partition that counts as ended, and until when that holds.
    ///
    /// Between two ticks of its schedule a pipeline sees the world as of the last tick.
    fn ended(&self, grid: &Grid, cut: &Partitioning) -> (i64, Option<i64>) {
        let now_ms = self.survey.now_ms;
        if cut.values().is_some() {
            return (grid.end_at(cut, now_ms), None);
        }
        if self.batch.schedule.as_ref().and_then(BatchSchedule::cron).is_none() {
            let ended = grid.end_at(cut, now_ms);
            return (ended, partition_bounds_ms(cut, &grid.key(ended)).map(|(_, end_ms)| end_ms));
        }
        let (tick_ms, next_ms) = self.ticks();
        // History is computed at once: only later partitions wait for their tick.
        let as_of_ms = tick_ms.unwrap_or(now_ms).max(self.deployed.since_ms);
        (grid.end_at(cut, as_of_ms), next_ms)
    }

    /// Returns up to which position each input is published that is cut by a calendar at most as coarse, or of which the
    /// pipeline says what it reads. Values do not follow one another, so that nothing is published up to one.
    fn covered(&self, cut: &Partitioning, grid: &Grid) -> Vec<(PortId, i64)> {
        let ledger = self.survey.ledger;
        let input = |port: &PortId| {
            let theirs = ledger.deployed.get(&port.product)?.product.cut_of(&port.port)?;
            let partitions = &ledger.ports.get(port)?.partitions;
            let mut mapped = self.rests_on(port).filter_map(|on| on.mapping.as_ref()).peekable();
            if let Some(first) = mapped.peek() {
                let newest = partitions.keys().rev().find_map(|key| first.input_index(key));
                let (published, within) =
                    (newest.map_or(i64::MIN, |newest| newest + 1), grid.first..grid.ended);
                let end = mapped.map(|mapping| mapping.covered(published, within.clone())).min()?;
                return Some((port.clone(), end));
            }
            // A coarser table is looked things up in; waiting for its month to end would be of no use.
            if length_ms(theirs)? > length_ms(cut)? {
                return None;
            }
            let newest = partitions.keys().rev().find_map(|key| partition_bounds_ms(theirs, key));
            Some((port.clone(), grid.end_at(cut, newest.map_or(i64::MIN, |(_, end_ms)| end_ms))))
        };
        self.deployed.product.reads().filter_map(input).collect()
    }

    /// Returns what waits because an input is not published that far: what is computed now would be empty.
    fn uncovered(
        &mut self,
        cut: &Partitioning,
        grid: &Grid,
        covered: &[(PortId, i64)],
        until_ms: &mut Option<i64>,
    ) -> Option<NotDue> {
        let mut pieces = grid.pieces(grid.seen..grid.ended);
        let first = pieces.find_map(|range| self.stale(cut, grid, range, until_ms).into_iter().next())?;
        let index = first.range.start;
        let (input, _) = covered.iter().find(|(_, end)| *end <= index)?;
        let why = self.rests_on(input).find_map(|on| on.words(grid, index)).unwrap_or_else(|| {
            format!("{} waits for {input}, which is not published that far", grid.key(index))
        });
        Some(NotDue { pipeline: self.id.clone(), why, until_ms: None, held: false })
    }

    /// Returns the steps of one place.
    fn chunk(&mut self, cut: &Partitioning, grid: &Grid, range: Range<i64>) -> Chunk {
        let mut chunk = Chunk::default();
        let stale = self.stale(cut, grid, range, &mut chunk.until_ms);
        for Stale { range, why, blocked, .. } in stale {
            match chunk.stale.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => chunk.stale.push(range.clone()),
            }
            if let Some(blocked) = blocked {
                match &mut chunk.blocked {
                    Some(before) => before.partitions += blocked.partitions,
                    none => *none = Some(blocked),
                }
                continue;
            }
            let work = Work::Partitions { from: grid.key(range.start), to: grid.key(range.end - 1) };
            let key = StepKey { pipeline: self.id.clone(), work };
            // What is held back is noted in the chunk.
            let reason = format!("{}: {why}", grid.spoken(&range));
            let fresh = grid.place(range.start) >= grid.newest();
            let _ = self.survey.push(&mut chunk, self.deployed, key, reason, fresh);
        }
        chunk
    }

    /// Returns the runs of neighbours in a range that are to be computed. Partitions that failed together stay together
    /// and apart from others.
    fn stale(
        &mut self,
        cut: &Partitioning,
        grid: &Grid,
        range: Range<i64>,
        until_ms: &mut Option<i64>,
    ) -> Vec<Stale> {
        let mut found: Vec<Stale> = Vec::new();
        // What is not kept any longer is not computed again, nor is what would be made of it.
        let range = self.kept(grid, range);
        if range.is_empty() {
            return found;
        }
        let (from, to) = (grid.key(range.start), grid.key(range.end - 1));
        let work = Work::Partitions { from: from.clone(), to: to.clone() };
        let all = StepKey { pipeline: self.id.clone(), work };
        let failures = self.survey.ledger.failure(&all).is_some();
        let ledger = self.survey.ledger;
        let mut add = |range: Range<i64>, why: Why| {
            let mut one = |range: Range<i64>, why: Why, failed: Option<StepKey>| match found.last_mut() {
                Some(last) if last.range.end == range.start && last.failed == failed => {
                    last.range.end = range.end;
                }
                _ => found.push(Stale { range, why, failed, blocked: None }),
            };
            if failures {
                for index in range {
                    let key = grid.key(index);
                    let work = Work::Partitions { from: key.clone(), to: key };
                    let step = StepKey { pipeline: all.pipeline.clone(), work };
                    let failed = ledger.failure(&step).map(|(failed, _)| failed.clone());
                    one(index..index + 1, why.clone(), failed);
                }
            } else if !range.is_empty() {
                one(range, why, None);
            }
        };
        let mut next = range.start;
        for (key, partition) in self.partitions.into_iter().flat_map(|it| it.range(from.clone()..=to.clone()))
        {
            // Another calendar, before the pipeline was cut anew, left others.
            let Some(index) = grid.index(key) else { continue };
            add(next..index, MISSING);
            if let Some(why) = self.behind(Some(cut), key, partition, until_ms) {
                add(index..index + 1, why);
            }
            next = index + 1;
        }
        add(next..range.end, MISSING);
        self.rests_on
            .iter()
            .fold(found, |found, on| found.into_iter().flat_map(|stale| on.apart(stale, grid)).collect())
    }

    /// Returns a range without the partitions before what its own table and the inputs keep of which it reads some partitions
    /// alone.
    fn kept(&self, grid: &Grid, range: Range<i64>) -> Range<i64> {
        let ledger = self.survey.ledger;
        let own = ledger.kept_from(&self.port).and_then(|key| grid.index(key));
        let inputs =
            self.rests_on.iter().filter_map(|on| on.kept_from(grid, ledger.kept_from(&on.input)?, &range));
        let from = own.into_iter().chain(inputs).max().unwrap_or(i64::MIN);
        range.start.max(from).min(range.end)..range.end
    }

    /// Returns why a whole output is to be computed, if it is.
    fn whole(&mut self, until_ms: &mut Option<i64>) -> Option<Why> {
        match self.partitions.and_then(|all| all.get("")) {
            None => Some(MISSING),
            Some(partition) => self.behind(None, "", partition, until_ms),
        }
    }

    /// Returns until when newer rows are left alone that a partition has not seen: its schedule has had its run.
    fn rests_until_ms(&self, partition: &PublishedPartition) -> Option<i64> {
        let now_ms = self.survey.now_ms;
        match self.batch.schedule.as_ref()? {
            BatchSchedule::Cron(_) => {
                let (last_ms, next_ms) = self.ticks();
                last_ms.filter(|last_ms| *last_ms <= partition.at_ms).and(next_ms)
            }
            BatchSchedule::By(ByPromise::Promise) => {
                let begin_ms = self.begin_by_ms(partition)?;
                (now_ms < begin_ms).then_some(begin_ms)
            }
        }
    }

    /// Returns the last tick of its schedule and the next one, milliseconds UTC.
    pub(super) fn ticks(&self) -> (Option<i64>, Option<i64>) {
        *self.ticks.get_or_init(|| {
            let schedule = self.batch.schedule.as_ref().and_then(BatchSchedule::cron);
            let cron = schedule.and_then(|it| Cron::parse(&it.cron, &it.timezone).ok());
            let now_ms = self.survey.now_ms;
            let last_ms = cron.as_ref().and_then(|cron| cron.previous_at_or_before(now_ms));
            (last_ms, cron.and_then(|cron| cron.next_after(now_ms)))
        })
    }

    /// Returns when a whole output, or one of its values, has to be begun for its promised age to hold: its newest data, plus the
    /// promise, less half as much again as the slowest of its last runs took, and a minute for the rest of the way. Before its
    /// first run a tenth of the promise stands for that.
    fn begin_by_ms(&self, partition: &PublishedPartition) -> Option<i64> {
        let newest_ms = match &self.batch.partition {
            Some(_) => partition.published.data_time_ms?,
            None => self.survey.ledger.ports.get(&self.port)?.newest_data_ms?,
        };
        self.begin_before_ms(newest_ms)
    }

    /// Returns when what has data of an instant has to be begun for its promised age to hold.
    pub(super) fn begin_before_ms(&self, newest_ms: i64) -> Option<i64> {
        let output = self.deployed.product.outputs.get(&self.batch.output)?;
        let promise_ms = output.contract.data_age()?.millis();
        let ledger = self.survey.ledger;
        let slowest_ms = ledger.took.get(self.id).and_then(|took| took.iter().max());
        let margin_ms = slowest_ms.map_or(promise_ms / 10, |slowest| slowest + slowest / 2 + WAY_MS);
        Some(newest_ms.saturating_add(promise_ms).saturating_sub(margin_ms))
    }

    /// Returns why what is published is to be computed again, if it is.
    fn behind(
        &mut self,
        cut: Option<&Partitioning>,
        key: &str,
        partition: &PublishedPartition,
        until_ms: &mut Option<i64>,
    ) -> Option<Why> {
        if partition.forced {
            return Some("asked for".into());
        }
        let altered = self.survey.ledger.altered.get(&self.port).filter(|_| self.batch.self_heal);
        if let Some(what) = altered.and_then(|partitions| partitions.get(key)) {
            return Some(format!("{ALTERED}: {what}").into());
        }
        if partition.unsure {
            return Some(UNSURE.into());
        }
        let print = self.deployed.print.ports.get(&self.batch.output);
        if partition.published.data != print.map_or("", |print| print.data.as_str()) {
            return Some("its definition, or that of a column it reads, changed".into());
        }
        for (input, version) in &partition.published.inputs {
            let ledger = self.survey.ledger;
            let reading = match self.readings.get(input) {
                Some(known) => known,
                None => self.readings.entry(input.clone()).or_insert(ledger.reading(&self.port, input)),
            };
            let Some(reading) = reading.as_ref().filter(|reading| reading.newest(key) > *version) else {
                continue;
            };
            // An input had exactly those partitions computed again that this one reads: it follows, however old it is.
            if !reading.is_exact()
                && let (Some(lookback), Some(cut)) = (self.batch.lookback, cut)
                && let Some((_, end_ms)) = partition_bounds_ms(cut, key)
            {
                let closed_ms = end_ms.saturating_add(lookback.millis());
                if closed_ms < self.survey.now_ms {
                    continue;
                }
                expire(until_ms, closed_ms.saturating_add(1));
            }
            if let Some(rests_ms) = self.rests_until_ms(partition) {
                expire(until_ms, rests_ms);
                continue;
            }
            return Some(format!("{input} has newer rows").into());
        }
        None
    }
}

const MISSING: Why = Cow::Borrowed("missing");

/// Says how many partitions.
pub(super) fn count(partitions: usize) -> String {
    if partitions == 1 { "1 partition".to_owned() } else { format!("{partitions} partitions") }
}
