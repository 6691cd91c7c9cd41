//! Windows of a batch pipeline against the calendars of the inputs that they pick partitions of.

use std::collections::BTreeMap;

use super::load::Draft;
use super::{BatchPipeline, Calendar, InputSource, InputWindow, Partitioning, Pipeline};
use crate::diag::{Code, codes};
use crate::ids::{PortId, ProductId};
use crate::plan::Mapping;
use crate::time::{Grain, Shift, ShiftUnit};

/// Returns what is wrong with a window, if anything is; an input that cannot be read has its own finding.
pub(super) fn misfit(
    batch: &BatchPipeline,
    window: &InputWindow,
    source: &InputSource,
    drafts: &BTreeMap<ProductId, Draft>,
) -> Option<(Code, String)> {
    let Some(cut) = &batch.partition else {
        let message = "a whole table has no partitions that could read some of its inputs: add `partition`, or leave `inputs` out";
        return Some((codes::NOT_CUT, message.to_owned()));
    };
    let by_values = |whose: &str| {
        let message = format!(
            "{whose} is cut by values, and a window moves the borders of a calendar: leave the port out of `inputs`; of an input \
             that has the same list by the same column each value reads its own by itself, of any other all"
        );
        Some((codes::NOT_FOR_VALUES, message))
    };
    let Some(cut) = cut.calendar() else { return by_values("the output") };
    let theirs = match source {
        InputSource::Port { port } => match cut_of(port, drafts)? {
            Ok(cut) => cut,
            Err(made) => {
                let message = format!(
                    "{port} is {made}, and has no partitions to pick: leave it out of `inputs`, it is read as a whole"
                );
                return Some((codes::NOT_CUT, message));
            }
        },
        InputSource::Files { .. } | InputSource::Topic { .. } => {
            let message = "files and topics have no partitions to pick: leave the port out of `inputs`, it is read as a whole";
            return Some((codes::NOT_CUT, message.to_owned()));
        }
    };
    let Some(theirs) = theirs.calendar() else { return by_values("the input") };
    let why = [("from", window.from), ("to", window.to)]
        .into_iter()
        .find_map(|(key, shift)| misfit_of_unit(key, shift, cut.every, theirs.every))
        .or_else(|| misfit_of_length(cut, theirs, window))?;
    Some((codes::BAD_WINDOW, why))
}

/// Returns how a port is cut, or what it is made by if it is not; nothing if that cannot be read.
fn cut_of<'a>(
    port: &PortId,
    drafts: &'a BTreeMap<ProductId, Draft>,
) -> Option<Result<&'a Partitioning, &'static str>> {
    let draft = drafts.get(&port.product)?;
    let raw = draft.pipelines.iter().find(|raw| raw.output.as_ref() == Some(&port.port))?;
    Some(match raw.pipeline.as_ref()? {
        Pipeline::Batch(batch) => batch.partition.as_ref().ok_or("written anew as a whole each time"),
        Pipeline::Stream(_) | Pipeline::Feature(_) => Err("made from a topic"),
        Pipeline::Embedding(_) | Pipeline::Training(_) => Err("not made by a query"),
    })
}

/// Returns why a border does not fall between partitions of the input, if it does not.
fn misfit_of_unit(key: &str, shift: Shift, output: Grain, every: Grain) -> Option<String> {
    if output == Grain::Hour && shift.unit() == ShiftUnit::Month {
        // An hour of the 29th would come before one of the 28th.
        return Some(format!(
            "`{key}: {shift}` of an hour is no hour where months differ in length: write it in h, d or w"
        ));
    }
    let fits = match (every, shift.unit()) {
        _ if shift.is_zero() => true,
        (Grain::Hour, _) | (Grain::Day, ShiftUnit::Day | ShiftUnit::Week | ShiftUnit::Month) => true,
        (Grain::Week, ShiftUnit::Week) | (Grain::Month, ShiftUnit::Month) => true,
        (Grain::Week, ShiftUnit::Day) => shift.count() % 7 == 0,
        _ => false,
    };
    let units = match every {
        Grain::Hour => "h, d, w or mo",
        Grain::Day => "d, w or mo",
        Grain::Week => "w",
        Grain::Month => "mo",
    };
    (!fits).then(|| {
        format!("`{key}: {shift}` is no whole number of the input's partitions, one every {every}: write it in {units}")
    })
}

/// Returns why a window is too short, if it is for any partition of a few years.
fn misfit_of_length(output: &Calendar, input: &Calendar, window: &InputWindow) -> Option<String> {
    let held = Mapping::lengths(output, input, window)?;
    if held.start == 0 {
        return Some(format!(
            "the window from {} to {} has no length: it begins `from` after the partition's beginning and ends `to` after its end, \
             so that {{from: -1d, to: -1d}} is the day before",
            window.from, window.to
        ));
    }
    let least = i64::from(window.at_least?);
    (least >= held.end).then(|| {
        format!("`at_least: {least}` is more than the {} partitions that the window ever holds", held.end - 1)
    })
}
