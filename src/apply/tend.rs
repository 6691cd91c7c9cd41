//! Looking after the table of a pipeline: what its contract does not keep is removed, and files that no version has.

use hydromesh_core::ledger::Fact;

use super::inputs::table_format;
use super::{Context, Done, Job, StepError};
use crate::clock::Clock;
use crate::lake::{Table, TableState};

/// How the keys of commits begin that remove what is not kept.
const KEY: &str = "kept from ";

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
    let version = match &job.kept_from {
        Some(from) => give_up(context, &table, from, &run).await?,
        None => None,
    };
    // Files are dated by the machine, whatever the clock of the mesh says.
    let unused_ms = context.settings.maintenance.unused.millis();
    let older_than_ms = Clock::system().now_ms().saturating_sub(unused_ms);
    let mut files = table.sweep(older_than_ms).await?;
    for address in context.lake.beside(&port.to_string()).await? {
        let beside = context.lake.table(&address, format)?;
        if matches!(beside.state().await?, TableState::Known(_)) {
            files += beside.sweep(older_than_ms).await?;
        }
    }
    Ok(Done { facts: vec![Fact::Tended { port, run, files, version }], rows: 0 })
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
