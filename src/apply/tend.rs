//! Looking after the table of a pipeline: what its contract does not keep is removed, small files are put together, and versions
//! that are old and files that no version has go.

use hydromesh_core::ledger::Fact;
use hydromesh_core::model::Pipeline;

use super::inputs::table_format;
use super::{Context, Done, Job, StepError};
use crate::clock::Clock;
use crate::lake::{Keep, Table, TableState, Version};
use crate::preview::Shelf;

/// How the keys of commits begin that remove what is not kept.
const KEY: &str = "kept from ";
/// Versions of a table that can be read, however young they are. A stream makes one a second.
const MOST_VERSIONS: usize = 1_000;
/// A step reads what the ledger knew when it began, which may be older than the newest commit of then: by as long as nobody
/// told of the commit.
const UNTOLD_MS: i64 = 3_600_000;

/// Looks after the table, and after those beside it.
///
/// A table that is not there, or is another one than was published, is left alone: there every file would be one of no version.
pub(super) async fn run(context: &Context, job: &Job) -> Result<Done, StepError> {
    let (port, _) = job.output()?;
    let format = table_format(&job.products, &port)?;
    let table = job.table(context, &port, format)?;
    let run = job.start.run.clone();
    let known = job.versions.get(&port).copied().unwrap_or(0);
    match table.state().await? {
        TableState::Known(found) if found.version.0 >= known => {}
        _ => return Ok(Done::default()),
    }
    let mut version = match &job.kept_from {
        Some(from) => give_up(context, &table, from, &run).await?,
        None => None,
    };
    let mut together = None;
    let (mut expired, mut files) = (0, 0);
    // Readers of the port are given what is published; of those beside it they take the newest.
    let mut tables = vec![(table, Version(known))];
    for address in context.lake.beside(&port.to_string()).await? {
        let beside = context.lake.table(&address, format)?;
        if let TableState::Known(found) = beside.state().await? {
            tables.push((beside, found.version));
        }
    }
    // Only what is appended to comes in many small files; what is published otherwise is known by the names of its files.
    let appended = matches!(job.pipeline()?, Pipeline::Stream(_) | Pipeline::Feature(_));
    for (place, (table, published)) in tables.iter().enumerate() {
        if appended && let Some(put) = table.put_together(&context.commit(format!("together/{run}"))).await? {
            if place == 0 {
                version = Some(put.version.0);
            }
            let (before, after) = together.unwrap_or((0, 0));
            together = Some((before + put.files.0, after + put.files.1));
        }
        expired += table.expire(&keep(context, job, *published), context.writer()).await?;
        // Files are dated by the machine, whatever the clock of the mesh says.
        let unused_ms = context.settings.maintenance.unused.millis();
        files += table.sweep(Clock::system().now_ms().saturating_sub(unused_ms)).await?;
    }
    Ok(Done { facts: vec![Fact::Tended { port, run, files, version, together, expired }], rows: 0 })
}

/// Returns which versions of a table are kept: for as long as the environment says, and for steps and previews that read it.
fn keep(context: &Context, job: &Job, published: Version) -> Keep {
    let since_ms = context.clock.now_ms().saturating_sub(context.settings.maintenance.versions.millis());
    let previews = Shelf::of(&context.state).notes();
    let begun = previews.iter().map(|note| note.created_ms).chain(job.read_since_ms).min();
    Keep {
        since_ms,
        most: MOST_VERSIONS,
        read_since_ms: begun.map(|begun_ms| begun_ms.saturating_sub(UNTOLD_MS)),
        published,
    }
}

/// Removes what the contract does not keep any longer; returns the version that readers are to be given, if there is one.
async fn give_up(context: &Context, table: &Table, from: &str, run: &str) -> Result<Option<i64>, StepError> {
    // What comes back of a partition that was removed, because somebody was at it, goes again: so the key has the run.
    let meta = context.commit(format!("{KEY}{from}/{run}"));
    if let Some(version) = table.remove_before(from, &meta).await? {
        return Ok(Some(version.0));
    }
    // Whoever removed it last may have died before telling of it.
    let newest = table.commits(1).await?.pop();
    Ok(newest.filter(|(_, commit)| commit.key.starts_with(KEY)).map(|(version, _)| version.0))
}
