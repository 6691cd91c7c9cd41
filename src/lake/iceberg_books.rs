//! The books of an Iceberg table that nothing refers to any longer: manifests of snapshots that were let go of, and metadata files
//! that came before.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use iceberg_rust::spec::util::strip_prefix;

use super::iceberg_log::{LOGGED_METADATA, Loaded, load, number_of};
use super::{
    LakeError, Table,
    fs::{blocking, remove_if_there, written_ms},
};

/// How old a metadata file is that was followed by [`LOGGED_METADATA`] others, before it is removed: whoever has
/// opened it has read it by then.
const READ_BY_MS: i64 = 3_600_000;

/// Deletes manifests and manifest lists of no snapshot that are older than `older_than_ms`, and metadata files that the newest one
/// no longer remembers. The first one stays: it says above which version the table began.
pub(super) async fn sweep(table: &Table, older_than_ms: i64) -> Result<(), LakeError> {
    let Some(loaded) = load(table).await? else { return Ok(()) };
    let live = names(&loaded).await?;
    let (folder, newest) = (table.dir.join("metadata"), loaded.number);
    let read_by_ms = crate::clock::Clock::system().now_ms().saturating_sub(READ_BY_MS);
    blocking(move || {
        let entries = std::fs::read_dir(&folder).map_err(|source| LakeError::io("list", &folder, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| LakeError::io("list", &folder, source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let written_ms = match entry.metadata() {
                Err(source) if source.kind() == ErrorKind::NotFound => continue,
                about => {
                    written_ms(&about.map_err(|source| LakeError::io("look at", &entry.path(), source))?)
                }
            };
            let gone = match number_of(&name) {
                Some(number) => {
                    number > 1 && number + (LOGGED_METADATA as u64) < newest && written_ms < read_by_ms
                }
                // A writer makes its manifests before it commits.
                None => name.ends_with(".avro") && written_ms < older_than_ms && !live.contains(&name),
            };
            if gone {
                remove_if_there(&entry.path())?;
            }
        }
        Ok(())
    })
    .await
}

/// Returns the names of the manifests and manifest lists of all snapshots.
async fn names(loaded: &Loaded) -> Result<BTreeSet<String>, LakeError> {
    let table = loaded.table().await?;
    let mut names = BTreeSet::new();
    for (id, snapshot) in &loaded.metadata.snapshots {
        names.extend(name(snapshot.manifest_list()));
        for manifest in table.manifests(None, Some(*id)).await? {
            names.extend(name(&manifest.manifest_path));
        }
    }
    Ok(names)
}

fn name(path: &str) -> Option<String> {
    Some(Path::new(&strip_prefix(path)).file_name()?.to_string_lossy().into_owned())
}
