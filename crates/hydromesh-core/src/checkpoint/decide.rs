//! The rule of the chain, as a pure decision.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{CHECKPOINT_FORMAT, CheckpointRecord, SourceRange};
use crate::time::Millis;

/// What a writer may do with the commit it has prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[must_use]
pub enum CommitDecision {
    /// Commit, against exactly the table version the last record was read from.
    Legal,
    /// These rows are in the table: the earlier attempt succeeded and its answer was lost. Go on after them.
    AlreadyCommitted,
    /// Stop, read the last record again or ask a person.
    Refused {
        /// The reason.
        why: Refusal,
    },
}

/// Why a commit would break the chain.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A record is of a format this build does not know.
    #[error("the record has format {found}, this build knows {CHECKPOINT_FORMAT}")]
    Format {
        /// The format found.
        found: u32,
    },
    /// The last record is of another pipeline.
    #[error("the last record is of pipeline `{last}`, the commit of `{next}`")]
    Pipeline {
        /// Pipeline of the last record.
        last: String,
        /// Pipeline of the commit.
        next: String,
    },
    /// A partition is named twice.
    #[error("partition {partition} is named twice")]
    DuplicatePartition {
        /// The partition.
        partition: i32,
    },
    /// A range is impossible.
    #[error("partition {partition} has the impossible range {start} to {end}")]
    BadRange {
        /// The partition.
        partition: i32,
        /// Its start.
        start: i64,
        /// Its end.
        end: i64,
    },
    /// A newer writer has taken over.
    #[error("the writer holds fence {next}, a newer writer committed with {last}")]
    StaleFence {
        /// Fence of the last record.
        last: u64,
        /// Fence of the commit.
        next: u64,
    },
    /// The topic was deleted and created again: its offsets mean other rows.
    #[error(
        "the topic is `{next}` now and was `{last}`: it was created again and its offsets mean other rows"
    )]
    TopicRecreated {
        /// Topic id of the last record.
        last: String,
        /// Topic id of the commit.
        next: String,
    },
    /// A partition would lose its place.
    #[error("partition {partition} is missing, its place {end} would be lost")]
    MissingPartition {
        /// The partition.
        partition: i32,
        /// Where the last record ends.
        end: i64,
    },
    /// Rows would be skipped.
    #[error("partition {partition} starts at {start} and the last commit ends at {end}: {} rows would be lost", start - end)]
    Gap {
        /// The partition.
        partition: i32,
        /// Where the last record ends.
        end: i64,
        /// Where the commit starts.
        start: i64,
    },
    /// Rows would be written twice.
    #[error("partition {partition} starts at {start} and the last commit ends at {end}: {} rows would double", end - start)]
    Overlap {
        /// The partition.
        partition: i32,
        /// Where the last record ends.
        end: i64,
        /// Where the commit starts.
        start: i64,
    },
    /// A partition that is new to the chain does not start at its beginning.
    #[error("partition {partition} is new and starts at {start} instead of 0: earlier rows would be lost")]
    NewPartitionNotAtZero {
        /// The partition.
        partition: i32,
        /// Where the commit starts.
        start: i64,
    },
    /// The epoch does not move forward.
    #[error("epoch {next} does not follow epoch {last}")]
    Epoch {
        /// Epoch of the last record.
        last: u64,
        /// Epoch of the commit.
        next: u64,
    },
    /// The watermark would go back, so rows judged late would be judged anew.
    #[error("the watermark would go back below {last}")]
    WatermarkBack {
        /// Watermark of the last record.
        last: Millis,
        /// Watermark of the commit.
        next: Option<Millis>,
    },
}

/// Decides whether the commit `next` may follow `last`, the newest record of the pipeline in the table.
///
/// The caller reads `last` from a table version and commits against that same version without retries; on conflict it
/// reads again and asks again. Legal is: fence not older, same topic, and for every partition start equal to the
/// last end. A commit of exactly the last ranges is a retry. The first commit may start anywhere: at the seam
/// between an imported history and the stream, for instance.
pub fn decide_commit(last: Option<&CheckpointRecord>, next: &CheckpointRecord) -> CommitDecision {
    match check(last, next) {
        Ok(decision) => decision,
        Err(why) => CommitDecision::Refused { why },
    }
}

fn check(last: Option<&CheckpointRecord>, next: &CheckpointRecord) -> Result<CommitDecision, Refusal> {
    check_format(next)?;
    let new = by_partition(&next.ranges)?;
    let Some(last) = last else {
        return Ok(CommitDecision::Legal);
    };
    check_format(last)?;
    let old = by_partition(&last.ranges)?;
    if last.pipeline != next.pipeline {
        return Err(Refusal::Pipeline { last: last.pipeline.clone(), next: next.pipeline.clone() });
    }
    // Before the question of a retry: a writer that lost its lease must stop, whatever it carries.
    if next.fence < last.fence {
        return Err(Refusal::StaleFence { last: last.fence, next: next.fence });
    }
    if last.topic_id != next.topic_id {
        return Err(Refusal::TopicRecreated { last: last.topic_id.clone(), next: next.topic_id.clone() });
    }
    // Two idle commits in a row carry the same empty ranges; only the epoch tells a retry from the second.
    let carries_rows = new.values().any(|range| range.start < range.end);
    if old == new && (carries_rows || last.epoch == next.epoch) {
        return Ok(CommitDecision::AlreadyCommitted);
    }
    for (partition, range) in &old {
        let Some(start) = new.get(partition).map(|range| range.start) else {
            return Err(Refusal::MissingPartition { partition: *partition, end: range.end });
        };
        if start > range.end {
            return Err(Refusal::Gap { partition: *partition, end: range.end, start });
        }
        if start < range.end {
            return Err(Refusal::Overlap { partition: *partition, end: range.end, start });
        }
    }
    for (partition, range) in &new {
        if !old.contains_key(partition) && range.start != 0 {
            return Err(Refusal::NewPartitionNotAtZero { partition: *partition, start: range.start });
        }
    }
    if next.epoch <= last.epoch {
        return Err(Refusal::Epoch { last: last.epoch, next: next.epoch });
    }
    match last.watermark_ms {
        Some(watermark) if next.watermark_ms < Some(watermark) => {
            Err(Refusal::WatermarkBack { last: watermark, next: next.watermark_ms })
        }
        _ => Ok(CommitDecision::Legal),
    }
}

fn check_format(record: &CheckpointRecord) -> Result<(), Refusal> {
    if record.format == CHECKPOINT_FORMAT { Ok(()) } else { Err(Refusal::Format { found: record.format }) }
}

fn by_partition(ranges: &[SourceRange]) -> Result<BTreeMap<i32, SourceRange>, Refusal> {
    let mut map = BTreeMap::new();
    for range in ranges {
        let SourceRange { partition, start, end } = *range;
        if start < 0 || end < start {
            return Err(Refusal::BadRange { partition, start, end });
        }
        if map.insert(partition, *range).is_some() {
            return Err(Refusal::DuplicatePartition { partition });
        }
    }
    Ok(map)
}

/// Where a pipeline goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The epoch of the next commit.
    pub epoch: u64,
    /// The topic the offsets belong to; a topic with another id must not be read from them.
    pub topic_id: Option<String>,
    /// First offset to read, per partition that was seen; any other starts at 0, or at the seam before a first commit.
    pub starts: BTreeMap<i32, i64>,
    /// The watermark to resume from.
    pub watermark_ms: Option<Millis>,
}

/// Why a pipeline cannot go on from a record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the last record of the table cannot be resumed from")]
pub struct ResumeError(#[from] Refusal);

/// Returns where to go on after the newest record in the table, or from the beginning when there is none.
///
/// # Errors
/// [`ResumeError`] when the record is of an unknown format or contradicts itself.
pub fn resume(last: Option<&CheckpointRecord>) -> Result<Resume, ResumeError> {
    let Some(last) = last else {
        return Ok(Resume { epoch: 1, topic_id: None, starts: BTreeMap::new(), watermark_ms: None });
    };
    check_format(last)?;
    let starts =
        by_partition(&last.ranges)?.into_iter().map(|(partition, range)| (partition, range.end)).collect();
    Ok(Resume {
        epoch: last.epoch.saturating_add(1),
        topic_id: Some(last.topic_id.clone()),
        starts,
        watermark_ms: last.watermark_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(epoch: u64, ranges: &[(i32, i64, i64)]) -> CheckpointRecord {
        CheckpointRecord {
            pipeline: "commerce/clickstream/clean-clicks".into(),
            epoch,
            fence: 3,
            topic_id: "4f1c".into(),
            ranges: ranges
                .iter()
                .map(|&(partition, start, end)| SourceRange { partition, start, end })
                .collect(),
            definition: "d1".into(),
            watermark_ms: Some(1_000),
            format: CHECKPOINT_FORMAT,
        }
    }

    fn refusal(last: &CheckpointRecord, next: &CheckpointRecord) -> String {
        match decide_commit(Some(last), next) {
            CommitDecision::Refused { why } => why.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_chain_goes_on() {
        let last = record(7, &[(0, 10, 20), (1, 5, 5)]);
        assert_eq!(decide_commit(None, &last), CommitDecision::Legal);
        for next in [
            record(8, &[(0, 20, 30), (1, 5, 9)]),
            record(8, &[(1, 5, 5), (0, 20, 20)]),
            record(9, &[(0, 20, 30), (1, 5, 9), (2, 0, 4)]),
            CheckpointRecord { fence: 4, definition: "d2".into(), ..record(8, &[(0, 20, 30), (1, 5, 9)]) },
        ] {
            assert_eq!(decide_commit(Some(&last), &next), CommitDecision::Legal);
        }
    }

    #[test]
    fn a_lost_answer_is_recognised() {
        let last = record(7, &[(0, 10, 20), (1, 5, 5)]);
        let reordered = record(7, &[(1, 5, 5), (0, 10, 20)]);
        let other_counter = record(70, &[(0, 10, 20), (1, 5, 5)]);
        let successor = CheckpointRecord { fence: 4, ..record(8, &[(0, 10, 20), (1, 5, 5)]) };
        for next in [&last, &reordered, &other_counter, &successor] {
            assert_eq!(decide_commit(Some(&last), next), CommitDecision::AlreadyCommitted);
        }
        let idle = record(8, &[(0, 20, 20)]);
        assert_eq!(decide_commit(Some(&idle), &idle), CommitDecision::AlreadyCommitted);
        assert_eq!(decide_commit(Some(&idle), &record(9, &[(0, 20, 20)])), CommitDecision::Legal);
    }

    #[test]
    fn every_break_of_the_chain_has_its_reason() {
        let last = record(7, &[(0, 10, 20), (1, 5, 5)]);
        let next = || record(8, &[(0, 20, 30), (1, 5, 9)]);
        let refused = [
            refusal(&last, &record(8, &[(0, 22, 30), (1, 5, 9)])),
            refusal(&last, &record(8, &[(0, 15, 30), (1, 5, 9)])),
            refusal(&last, &record(8, &[(0, 10, 30), (1, 5, 5)])),
            refusal(&last, &record(8, &[(0, 20, 30)])),
            refusal(&last, &record(8, &[(0, 20, 30), (1, 5, 9), (2, 3, 4)])),
            refusal(&last, &record(8, &[(0, 20, 30), (1, 5, 9), (0, 20, 30)])),
            refusal(&last, &record(8, &[(0, 20, 19), (1, 5, 9)])),
            refusal(&last, &record(8, &[(0, -1, 19), (1, 5, 9)])),
            refusal(&last, &CheckpointRecord { fence: 2, ..next() }),
            refusal(&last, &CheckpointRecord { fence: 2, ..last.clone() }),
            refusal(&last, &CheckpointRecord { topic_id: "9a00".into(), ..next() }),
            refusal(&last, &CheckpointRecord { topic_id: "9a00".into(), ..last.clone() }),
            refusal(&last, &CheckpointRecord { pipeline: "other".into(), ..next() }),
            refusal(&last, &CheckpointRecord { epoch: 7, ..next() }),
            refusal(&last, &CheckpointRecord { watermark_ms: Some(999), ..next() }),
            refusal(&last, &CheckpointRecord { watermark_ms: None, ..next() }),
            refusal(&last, &CheckpointRecord { format: 2, ..next() }),
            refusal(&CheckpointRecord { format: 9, ..last.clone() }, &next()),
        ];
        insta::assert_snapshot!(refused.join("\n"), @"
        partition 0 starts at 22 and the last commit ends at 20: 2 rows would be lost
        partition 0 starts at 15 and the last commit ends at 20: 5 rows would double
        partition 0 starts at 10 and the last commit ends at 20: 10 rows would double
        partition 1 is missing, its place 5 would be lost
        partition 2 is new and starts at 3 instead of 0: earlier rows would be lost
        partition 0 is named twice
        partition 0 has the impossible range 20 to 19
        partition 0 has the impossible range -1 to 19
        the writer holds fence 2, a newer writer committed with 3
        the writer holds fence 2, a newer writer committed with 3
        the topic is `9a00` now and was `4f1c`: it was created again and its offsets mean other rows
        the topic is `9a00` now and was `4f1c`: it was created again and its offsets mean other rows
        the last record is of pipeline `commerce/clickstream/clean-clicks`, the commit of `other`
        epoch 7 does not follow epoch 7
        the watermark would go back below 1000
        the watermark would go back below 1000
        the record has format 2, this build knows 1
        the record has format 9, this build knows 1
        ");
    }

    #[test]
    fn resuming_continues_the_chain() {
        assert_eq!(resume(None).unwrap().epoch, 1);
        let last = record(7, &[(0, 10, 20), (1, 5, 5)]);
        let from = resume(Some(&last)).unwrap();
        assert_eq!(from.starts, BTreeMap::from([(0, 20), (1, 5)]));
        let mut next = record(from.epoch, &[]);
        next.ranges = from
            .starts
            .iter()
            .map(|(&partition, &start)| SourceRange { partition, start, end: start + 3 })
            .collect();
        assert_eq!(decide_commit(Some(&last), &next), CommitDecision::Legal);
        assert!(resume(Some(&record(1, &[(0, 5, 4)]))).is_err());
    }

    proptest! {
        /// Writers with lost answers, restarts from any older record, takeovers and duplicate deliveries, against
        /// a table that obeys the decision: every offset is committed exactly once.
        #[test]
        fn no_schedule_loses_or_doubles_a_row(
            actions in prop::collection::vec((0_u8..4, 0_usize..3, 1_i64..9, any::<prop::sample::Index>()), 1..80),
        ) {
            let mut table: Vec<CheckpointRecord> = Vec::new();
            let mut prepared: Vec<CheckpointRecord> = Vec::new();
            let mut fence = 1;
            for (action, partitions, rows, pick) in actions {
                match action {
                    // A new leader reads the table.
                    0 => fence += 1,
                    // Someone prepares a commit from any record ever written, however old.
                    1 | 2 => {
                        let base = if table.is_empty() { None } else { Some(pick.get(&table)) };
                        let from = resume(base).unwrap();
                        let known = from.starts.len().max(partitions + 1);
                        let ranges = (0..i32::try_from(known).unwrap())
                            .map(|partition| {
                                let start = from.starts.get(&partition).copied().unwrap_or(0);
                                SourceRange { partition, start, end: start + rows * i64::from(partition % 2 == 0) }
                            })
                            .collect();
                        prepared.push(CheckpointRecord { fence, ranges, epoch: from.epoch, ..record(0, &[]) });
                    }
                    // Any prepared commit arrives, perhaps again.
                    _ => {
                        if prepared.is_empty() { continue; }
                        let next = pick.get(&prepared).clone();
                        if decide_commit(table.last(), &next) == CommitDecision::Legal {
                            table.push(next);
                        }
                    }
                }
            }
            let mut place: BTreeMap<i32, i64> = BTreeMap::new();
            for record in &table {
                for range in &record.ranges {
                    prop_assert_eq!(*place.get(&range.partition).unwrap_or(&0), range.start);
                    place.insert(range.partition, range.end);
                }
            }
            prop_assert!(table.windows(2).all(|pair| pair[0].fence <= pair[1].fence && pair[0].epoch < pair[1].epoch));
        }
    }
}
