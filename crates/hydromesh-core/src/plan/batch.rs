//! What is due of a batch pipeline: which partitions, in which chunks.

use super::survey::{ALTERED, Survey, UNSURE};
use super::{NotDue, StepKey, Work, ended_partitions, partition_bounds_ms};
use crate::ids::{PipelineId, PortId};
use crate::ledger::{Deployed, PublishedPartition};
use crate::model::{BatchPipeline, Partitioning, Pipeline};
use crate::time::{Cron, Partition, Span};

/// Partitions in one step, when the pipeline does not say: small enough to show progress, large enough to amortise a
/// scan of the inputs.
const DEFAULT_CHUNK: i64 = 15;

/// A partition to compute, with what decides its chunk.
struct Stale {
    key: String,
    why: String,
    /// Position in the calendar, counted from the pipeline's first partition.
    index: i64,
    /// The failed step that covers it.
    failed: Option<StepKey>,
}

impl Survey<'_> {
    pub(super) fn batch(&mut self, id: PipelineId, deployed: &Deployed, batch: &BatchPipeline) {
        let port = deployed.product.port(&batch.output);
        match &batch.partition {
            None => {
                let Some(reason) = self.stale(deployed, batch, &port, "") else { return };
                let key = StepKey { pipeline: id, work: Work::Whole };
                let why =
                    self.push(deployed, key, reason).err().unwrap_or_else(|| "being computed".to_owned());
                self.found.incomplete.insert(port, why);
            }
            Some(cut) => self.partitions(&id, deployed, batch, cut, &port),
        }
    }

    fn partitions(
        &mut self,
        id: &PipelineId,
        deployed: &Deployed,
        batch: &BatchPipeline,
        cut: &Partitioning,
        port: &PortId,
    ) {
        let as_of_ms = self.as_of_ms(deployed, batch);
        let Ok(first) = Partition::parse(cut.every, &cut.start) else { return };
        let covered = self.covered(deployed, cut);
        let mut stale: Vec<Stale> = Vec::new();
        let mut last_end_ms = i64::MIN;
        for partition in ended_partitions(cut, as_of_ms).iter() {
            let key = partition.to_string();
            let Some((_, end_ms)) = partition_bounds_ms(cut, &key) else { continue };
            last_end_ms = end_ms;
            let Some(why) = self.stale(deployed, batch, port, &key) else { continue };
            if let Some((input, _)) = covered.iter().find(|(_, until_ms)| *until_ms < end_ms) {
                // The input's own partition of that time is not there: what is computed now would be empty.
                let why = format!("{key} waits for {input}, which is not published that far");
                self.found.waiting.push(NotDue { pipeline: id.clone(), why, until_ms: None });
                break;
            }
            let index = partition.index() - first.index();
            let step = StepKey {
                pipeline: id.clone(),
                work: Work::Partitions { from: key.clone(), to: key.clone() },
            };
            let failed = self.ledger.failed.keys().find(|failed| failed.overlaps(&step)).cloned();
            stale.push(Stale { key, why, index, failed });
        }
        self.expire_with_calendar(batch, cut, last_end_ms);
        if stale.is_empty() {
            return;
        }
        let mut held = None;
        for chunk in chunks(&stale, chunk_len(batch, cut)) {
            let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { continue };
            let work = Work::Partitions { from: first.key.clone(), to: last.key.clone() };
            let key = StepKey { pipeline: id.clone(), work };
            let reason = format!("{}: {}", count(chunk.len()), first.why);
            held = held.or(self.push(deployed, key, reason).err());
        }
        let why = held.unwrap_or_else(|| format!("{} to compute", count(stale.len())));
        self.found.incomplete.insert(port.clone(), why);
    }

    /// Returns the instant as of which partitions count as ended: between two ticks of its schedule a pipeline sees the
    /// world as of the last tick.
    fn as_of_ms(&self, deployed: &Deployed, batch: &BatchPipeline) -> i64 {
        let Some(schedule) = &batch.schedule else { return self.now_ms };
        let cron = Cron::parse(&schedule.cron, &schedule.timezone).ok();
        let tick = cron.and_then(|cron| cron.previous_at_or_before(self.now_ms));
        // History is computed at once: only later partitions wait for their tick.
        tick.unwrap_or(self.now_ms).max(deployed.since_ms)
    }

    /// Notes when the next partition ends, or when the schedule next looks.
    fn expire_with_calendar(&mut self, batch: &BatchPipeline, cut: &Partitioning, last_end_ms: i64) {
        let next_ms = match &batch.schedule {
            Some(schedule) => Cron::parse(&schedule.cron, &schedule.timezone)
                .ok()
                .and_then(|cron| cron.next_after(self.now_ms)),
            None => {
                let bounds = Partition::parse(cut.every, &cut.start).ok();
                let open = match bounds {
                    Some(first) if last_end_ms == i64::MIN => partition_bounds_ms(cut, &first.to_string()),
                    Some(first) => {
                        let ended = ended_partitions(cut, self.now_ms).last().unwrap_or(first);
                        partition_bounds_ms(cut, &ended.next().to_string())
                    }
                    None => None,
                };
                open.map(|(_, end_ms)| end_ms)
            }
        };
        if let Some(next_ms) = next_ms {
            self.found.expire(next_ms);
        }
    }

    /// Returns up to when each input that is cut by a calendar at most as coarse is published.
    fn covered(&self, deployed: &Deployed, cut: &Partitioning) -> Vec<(PortId, i64)> {
        let length = |cut: &Partitioning| partition_bounds_ms(cut, &cut.start).map(|(from, to)| to - from);
        deployed
            .product
            .reads()
            .filter_map(|port| {
                let upstream = &self.ledger.deployed.get(&port.product)?.product;
                let theirs = upstream.pipelines.values().find_map(|pipeline| match pipeline {
                    Pipeline::Batch(it) if it.output == port.port => it.partition.as_ref(),
                    _ => None,
                })?;
                // A coarser table is looked things up in; waiting for its month to end would be of no use.
                if length(theirs)? > length(cut)? {
                    return None;
                }
                let partitions = &self.ledger.ports.get(port)?.partitions;
                let newest = partitions.keys().rev().find_map(|key| partition_bounds_ms(theirs, key));
                Some((port.clone(), newest.map_or(i64::MIN, |(_, end_ms)| end_ms)))
            })
            .collect()
    }

    /// Returns why a partition is to be computed, if it is.
    fn stale(
        &mut self,
        deployed: &Deployed,
        batch: &BatchPipeline,
        port: &PortId,
        key: &str,
    ) -> Option<String> {
        let ledger = self.ledger;
        let Some(partition) = ledger.ports.get(port).and_then(|state| state.partitions.get(key)) else {
            return Some("missing".to_owned());
        };
        let data = deployed.print.ports.get(&batch.output).map_or("", |print| print.data.as_str());
        if partition.forced {
            return Some("asked for".to_owned());
        }
        if let Some(what) = ledger.altered.get(port).and_then(|it| it.get(key)).filter(|_| batch.self_heal) {
            return Some(format!("{ALTERED}: {what}"));
        }
        if partition.unsure {
            return Some(UNSURE.to_owned());
        }
        if partition.published.data != data {
            return Some("its definition, or that of a column it reads, changed".to_owned());
        }
        self.behind(deployed, batch, key, partition)
    }

    /// Returns which input has newer rows for a partition, if one has.
    fn behind(
        &mut self,
        deployed: &Deployed,
        batch: &BatchPipeline,
        key: &str,
        partition: &PublishedPartition,
    ) -> Option<String> {
        let closed_ms = match (batch.lookback, &batch.partition) {
            (Some(lookback), Some(cut)) => {
                partition_bounds_ms(cut, key).map(|(_, end_ms)| end_ms.saturating_add(lookback.millis()))
            }
            _ => None,
        };
        let closed = closed_ms.is_some_and(|closed_ms| closed_ms < self.now_ms);
        let port = deployed.product.port(&batch.output);
        let found = partition.published.inputs.iter().find_map(|(input, version)| {
            // An aligned input had exactly this partition computed again: its reader follows, however old it is.
            let aligned = deployed.print.aligned.contains(&(batch.output.clone(), input.clone()));
            let newer = (aligned || !closed) && self.ledger.newer(&port, input, *version, key);
            newer.then(|| (format!("{input} has newer rows"), aligned))
        });
        let (why, aligned) = found?;
        if let Some(closed_ms) = closed_ms.filter(|_| !aligned) {
            self.found.expire(closed_ms.saturating_add(1));
        }
        Some(why)
    }
}

fn count(partitions: usize) -> String {
    if partitions == 1 { "1 partition".to_owned() } else { format!("{partitions} partitions") }
}

fn chunk_len(batch: &BatchPipeline, cut: &Partitioning) -> i64 {
    let bounds = partition_bounds_ms(cut, &cut.start).map_or(1, |(from, to)| (to - from).max(1));
    batch.chunk.map_or(DEFAULT_CHUNK, |chunk: Span| (chunk.millis() / bounds).max(1))
}

/// Cuts stale partitions into runs of neighbours, at most `most` long.
///
/// Cuts fall on multiples of `most` counted from the pipeline's first partition, so that what remains of a chunk under
/// way never reaches into the next one. Partitions that failed together stay together and apart from others.
fn chunks(stale: &[Stale], most: i64) -> Vec<&[Stale]> {
    stale
        .chunk_by(|left, right| {
            left.index + 1 == right.index
                && left.index / most == right.index / most
                && left.failed == right.failed
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_cut_where_they_always_were() {
        let stale = |indexes: &[i64]| -> Vec<Stale> {
            let one = |index: &i64| Stale {
                key: index.to_string(),
                why: String::new(),
                index: *index,
                failed: None,
            };
            indexes.iter().map(one).collect()
        };
        let lengths = |indexes: &[i64]| -> Vec<usize> {
            chunks(&stale(indexes), 3).into_iter().map(<[Stale]>::len).collect()
        };
        assert_eq!(lengths(&[0, 1, 2, 3, 4, 5, 6]), [3, 3, 1]);
        // The first two are done: what is left of their chunk stays alone.
        assert_eq!(lengths(&[2, 3, 4, 5, 6]), [1, 3, 1]);
        assert_eq!(lengths(&[0, 2, 3, 5]), [1, 1, 1, 1]);
        assert_eq!(lengths(&[]), [0; 0]);
    }
}
