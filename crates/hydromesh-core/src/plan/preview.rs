//! What a preview builds of a commit: the newest partitions of what differs from its parent, and nothing that follows a topic.

use std::collections::BTreeMap;

use super::calendar::zone;
use super::{Change, Desired, dependency_order, ended_partitions};
use crate::ids::{PipelineName, PortId};
use crate::ledger::{Deployed, LedgerState};
use crate::model::{Calendar, Parts, Pipeline, Product};
use crate::time::Partition;

/// Partitions of each pipeline that a preview computes unless told otherwise: a week of days.
const USUAL: u32 = 7;

/// How much of a partitioned pipeline a preview computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest {
    /// So many partitions that have ended.
    Last(u32),
    /// All of them.
    All,
}

impl std::str::FromStr for Newest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let count = text.parse().ok().filter(|count| *count > 0);
        count.map(Self::Last).ok_or_else(|| format!("`{text}` is neither a number above 0 nor `all`"))
    }
}

/// A port of which a preview computes only the newest partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounded {
    /// The first partition that is computed.
    pub from: String,
    /// Earlier ones, which are not.
    pub left_out: u64,
}

/// Lets what a commit defines otherwise than the parent begin at its newest partitions, so that a table of years costs a week.
///
/// A pipeline that the preview builds already keeps its first partition unless `newest` says otherwise. Partitions of a reader
/// that lie wholly before what is computed of its input are left out with those: they would be made of nothing.
pub fn bound_preview(
    desired: &mut Desired,
    ledger: &LedgerState,
    newest: Option<Newest>,
    now_ms: i64,
) -> BTreeMap<PortId, Bounded> {
    let mut bounded = BTreeMap::new();
    let mut from_ms: BTreeMap<PortId, i64> = BTreeMap::new();
    for id in dependency_order(desired.mesh.products.values()) {
        let (Some(product), Some(print)) = (desired.mesh.products.get_mut(&id), desired.prints.get_mut(&id))
        else {
            continue;
        };
        let inputs_ms = product.reads().filter_map(|port| from_ms.get(port)).max().copied();
        let before = ledger.deployed.get(&id);
        for (name, pipeline) in &mut product.pipelines {
            let Pipeline::Batch(batch) = pipeline else { continue };
            // None of the values of a list is newer than another.
            let (output, Some(Parts::Calendar(cut))) =
                (&batch.output, batch.partition.as_mut().map(|cut| &mut cut.into))
            else {
                continue;
            };
            let port = PortId { product: id.clone(), port: output.clone() };
            if print.ports.get(output).is_some_and(|it| ledger.is_inherited(&port, &it.data)) {
                continue;
            }
            let own = before.filter(|_| ledger.own_ports(&id).contains(&port));
            let kept = own.filter(|_| newest.is_none()).and_then(|deployed| first_of(deployed, name, cut));
            let usual = newest.unwrap_or(Newest::Last(USUAL));
            let Some((first, from)) = begin(cut, usual, kept, inputs_ms, now_ms) else { continue };
            cut.start = Partition::from_index(cut.every, from).to_string();
            from_ms.insert(port.clone(), bounds_ms(cut, from).0);
            if let Some(left_out) = u64::try_from(from - first).ok().filter(|count| *count > 0) {
                // Where it begins is what is deployed here: another bound is another deploy.
                print.all = format!("{}+{}", print.all, cut.start);
                bounded.insert(port, Bounded { from: cut.start.clone(), left_out });
            }
        }
    }
    bounded
}

/// Returns the position of the first partition of a pipeline as it is deployed, if it is cut alike.
fn first_of(deployed: &Deployed, name: &PipelineName, cut: &Calendar) -> Option<i64> {
    let Pipeline::Batch(batch) = deployed.product.pipelines.get(name)? else { return None };
    let before = batch.partition.as_ref()?.calendar().filter(|before| before.every == cut.every)?;
    Partition::parse(before.every, &before.start).ok().map(Partition::index)
}

/// Returns the half-open bounds of the partition at a position, milliseconds UTC.
fn bounds_ms(cut: &Calendar, index: i64) -> (i64, i64) {
    let interval = Partition::from_index(cut.every, index).interval(zone(cut));
    (interval.from(), interval.to())
}

/// Returns the positions of the first partition that is defined and of the first that is computed; nothing when none has ended.
fn begin(
    cut: &Calendar,
    newest: Newest,
    kept: Option<i64>,
    inputs_ms: Option<i64>,
    now_ms: i64,
) -> Option<(i64, i64)> {
    let ended = ended_partitions(cut, now_ms);
    let (first, last) = (ended.first()?.index(), ended.last()?.index());
    let from = match (kept, newest) {
        (Some(kept), _) => kept,
        (None, Newest::Last(count)) => last - i64::from(count) + 1,
        (None, Newest::All) => first,
    };
    let mut from = from.clamp(first, last);
    while from < last && inputs_ms.is_some_and(|inputs_ms| bounds_ms(cut, from).1 <= inputs_ms) {
        from += 1;
    }
    Some((first, from))
}

/// Returns the first port that a change would have to fill by following a topic or fitting a model, which no preview does.
#[must_use]
pub fn unbuilt<'a>(change: &'a Change, product: &Product) -> Option<&'a PortId> {
    let followed = |port: &&PortId| {
        product.pipelines.values().any(|pipeline| {
            let built = matches!(pipeline, Pipeline::Batch(_) | Pipeline::Embedding(_));
            *pipeline.output() == port.port && !built
        })
    };
    change.partitions.keys().find(followed)
}
