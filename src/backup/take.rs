//! Making a backup beside whoever works on the state folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hydromesh_core::ids::ProductId;

use super::{
    BackupError, CONTROLLER, FORMAT, LAKE, LEDGER, LakePart, LedgerPart, MANIFEST, MIRRORS, Manifest, TOPICS,
    VERSION, io, real,
};
use crate::clock::{Clock, rfc3339};
use crate::disk;
use crate::fault::point;
use crate::lake::{Amount, Copied, Lake, copy_folder};
use crate::store::{OpenMode, Place, Store};

/// The ledger's copy in the lake.
const LEDGER_COPY: &str = "platform/ledger.facts";
/// Tables that are about to be deleted.
const DROPPED: &str = ".dropped";
/// Facts after which tables may have other readers, or other writers, than were known.
const STIRRING: [&str; 6] = ["opened", "deployed", "retired", "inherited", "tables_ending", "tables_ended"];
/// Facts read at once.
const PAGE: u32 = 5_000;

/// What is to be backed up.
#[derive(Debug, Clone)]
pub struct Source {
    pub environment: String,
    pub state: PathBuf,
    /// Where the ledger is.
    pub place: Place,
    /// As the environment says.
    pub lake_path: PathBuf,
    /// The last fact that the order of products is of.
    pub seq: u64,
    /// Products of the mesh, each before all that it reads.
    pub readers_first: Vec<ProductId>,
    /// Those of them that can be computed by hand.
    pub computed: BTreeSet<ProductId>,
    /// Something was ever published.
    pub published: bool,
}

/// Copies a state folder to an empty folder, and tells how far it is.
///
/// # Errors
/// [`BackupError::Refused`] when the folder cannot take it, [`BackupError::Stirred`] when the order of tables may have been another
/// meanwhile: then the folder is empty again. Whatever else happens, what is there is no backup.
pub async fn take(
    source: &Source,
    target: &Path,
    mut tell: impl FnMut(&str),
) -> Result<Manifest, BackupError> {
    let lake = source.state.join(&source.lake_path);
    check_target(source, &lake, target)?;
    disk::create_folders(target).map_err(io("create", target))?;
    let began = rfc3339(Clock::system().now_ms());
    let store = Store::open_at(&source.place, OpenMode::ReadOnly).await?;
    let copied = copy(&store, source, &lake, target, &mut tell).await;
    let stirred = is_stirred(&store, source.seq).await;
    store.close().await;
    let (ledger, lake, topics, repo) = copied?;
    if stirred? {
        clear(target)?;
        return Err(BackupError::Stirred);
    }
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        hydromesh: env!("CARGO_PKG_VERSION").to_owned(),
        environment: source.environment.clone(),
        began,
        ended: rfc3339(Clock::system().now_ms()),
        state: real(&source.state).map_err(io("find", &source.state))?,
        ledger,
        lake,
        topics,
        repo,
    };
    let path = target.join(MANIFEST);
    point("backup.before-manifest");
    let text = serde_json::to_vec_pretty(&manifest).map_err(std::io::Error::from);
    text.and_then(|text| disk::replace(&path, &text)).map_err(io("write", &path))?;
    Ok(manifest)
}

fn check_target(source: &Source, lake: &Path, target: &Path) -> Result<(), BackupError> {
    let shown = target.display();
    let there = real(target).map_err(io("find", target))?;
    for of in [&source.state, lake] {
        let of = real(of).map_err(io("find", of))?;
        if there.starts_with(&of) || of.starts_with(&there) {
            let why = format!("{shown} and {} hold one another; name a folder elsewhere", of.display());
            return Err(BackupError::Refused(why));
        }
    }
    if disk::is_empty(target).map_err(io("look into", target))? {
        return Ok(());
    }
    Err(BackupError::Refused(if target.join(MANIFEST).exists() {
        format!("{shown} holds a backup already; name an empty folder")
    } else {
        format!(
            "{shown} is not empty, and what is there is no backup, or one that did not end (it has no {MANIFEST}); name an empty \
             folder, or remove it first"
        )
    }))
}

type Parts = (LedgerPart, LakePart, Amount, Amount);

async fn copy(
    store: &Store,
    source: &Source,
    lake: &Path,
    target: &Path,
    tell: &mut impl FnMut(&str),
) -> Result<Parts, BackupError> {
    let facts = store.head().await?;
    let ledger = target.join(LEDGER);
    store.backup(&ledger).await?;
    let bytes = std::fs::metadata(&ledger).map_err(io("look at", &ledger))?.len();
    let from_server = matches!(source.place, Place::Postgres { .. });
    tell(&format!("the ledger, {facts} facts"));
    point("backup.after-ledger");
    let lake = copy_lake(source, lake, &target.join(LAKE), tell).await?;
    let mut topics = Amount::default();
    let from = source.state.join(TOPICS);
    copy_folder(&from, &target.join(TOPICS), &|_| false, &mut topics).map_err(io("copy", &from))?;
    let repo = copy_mirrors(&source.state.join(MIRRORS), &target.join(MIRRORS))?;
    let controller = source.state.join(CONTROLLER);
    disk::copy(&controller, &target.join(CONTROLLER)).map_err(io("copy", &controller))?;
    Ok((LedgerPart { from_server, facts, bytes }, lake, topics, repo))
}

/// Copies a lake: the ledger's copy, then each table before those that it was computed from, then what tables speak of.
async fn copy_lake(
    source: &Source,
    from: &Path,
    to: &Path,
    tell: &mut impl FnMut(&str),
) -> Result<LakePart, BackupError> {
    let path = source.lake_path.clone();
    let computed = source.readers_first.iter().rev().filter(|id| source.computed.contains(id));
    let mut part = LakePart {
        path,
        root: from.to_path_buf(),
        tables: Vec::new(),
        other: Amount::default(),
        computed: computed.cloned().collect(),
    };
    if !from.is_dir() {
        if source.published {
            let why = format!("the lake {} is not there, though tables were published in it", from.display());
            return Err(BackupError::Refused(why));
        }
        return Ok(part);
    }
    let lake = Lake::found(from).await?;
    part.root = lake.root().to_path_buf();
    disk::create_folders(to).map_err(io("create", to))?;
    let tables = in_order(lake.tables().await?, &source.readers_first);
    for (number, address) in (1..).zip(&tables) {
        let Some(copied) = lake.copy_table(address, to).await? else { continue };
        tell(&said(&copied, number, tables.len()));
        part.tables.push(copied);
    }
    // A table that is new may be ahead of what was copied; it is computed again. One beside a port's own must not be behind it.
    for address in lake.tables().await?.iter().filter(|it| it.contains("__") && !tables.contains(it)) {
        part.tables.extend(lake.copy_table(address, to).await?);
    }
    let left = lake.tables().await?;
    let domains: BTreeSet<&str> = left.iter().filter_map(|it| it.split('/').next()).collect();
    let skip = |name: &str| name == DROPPED || domains.contains(name);
    copy_folder(lake.root(), to, &skip, &mut part.other).map_err(io("copy", from))?;
    for domain in domains {
        let folder = lake.root().join(domain);
        let skip = |name: &str| left.contains(&format!("{domain}/{name}"));
        copy_folder(&folder, &to.join(domain), &skip, &mut part.other).map_err(io("copy", &folder))?;
    }
    Ok(part)
}

fn said(copied: &Copied, number: usize, of: usize) -> String {
    let lacks = match (copied.version, copied.lacks) {
        (None, _) => "; it cannot be read, and was copied as it lies there".to_owned(),
        (_, 0) => String::new(),
        (_, lacks) => format!("; {lacks} of its data files are not there"),
    };
    format!("table {number} of {of}, {}{lacks}", copied.address)
}

/// Sorts tables so that none is before one that was computed from it.
fn in_order(tables: BTreeSet<String>, readers_first: &[ProductId]) -> Vec<String> {
    let rank = |address: &str| {
        let product = address.split_once('.').map_or(address, |(product, _)| product);
        let known = readers_first.iter().position(|it| it.to_string() == product);
        // What nobody knows may have read anything.
        (address != LEDGER_COPY, known.map_or(0, |at| at + 1))
    };
    let mut tables: Vec<String> = tables.into_iter().collect();
    tables.sort_by_cached_key(|address| (rank(address), address.clone()));
    tables
}

/// Copies mirrors: names of commits before the objects that they lead to.
fn copy_mirrors(from: &Path, to: &Path) -> Result<Amount, BackupError> {
    const OBJECTS: &str = "objects";
    let mut amount = Amount::default();
    let mirrors = match std::fs::read_dir(from) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(amount),
        listed => listed.map_err(io("list", from))?,
    };
    for mirror in mirrors {
        let mirror = mirror.map_err(io("list", from))?;
        let name = mirror.file_name();
        // Locks lie beside them, and what could not be read.
        if !mirror.path().is_dir() || name.to_string_lossy().ends_with(".damaged") {
            continue;
        }
        let (from, to) = (mirror.path(), to.join(name));
        let skip = |name: &str| name == OBJECTS || name.ends_with(".lock");
        copy_folder(&from, &to, &skip, &mut amount).map_err(io("copy", &from))?;
        let objects = from.join(OBJECTS);
        copy_folder(&objects, &to.join(OBJECTS), &|_| false, &mut amount).map_err(io("copy", &objects))?;
    }
    Ok(amount)
}

/// Returns whether, after a fact, something came that changes who reads what, or who may write.
async fn is_stirred(store: &Store, seq: u64) -> Result<bool, BackupError> {
    let mut next = seq.max(1);
    let mut epoch = None;
    loop {
        let records = store.read(next, PAGE).await?;
        let Some(last) = records.last() else { return Ok(false) };
        next = last.seq + 1;
        for record in &records {
            let same = *epoch.get_or_insert(record.epoch) == record.epoch;
            if record.seq > seq && (!same || STIRRING.contains(&record.kind.as_str())) {
                return Ok(true);
            }
        }
    }
}

/// Removes what an attempt has left.
fn clear(target: &Path) -> Result<(), BackupError> {
    for name in [LEDGER, CONTROLLER] {
        let path = target.join(name);
        if path.exists() {
            std::fs::remove_file(&path).map_err(io("delete", &path))?;
        }
    }
    for name in [LAKE, TOPICS, MIRRORS] {
        let path = target.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(io("delete", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_is_copied_after_what_it_was_computed_from() {
        let tables = [
            "commerce/orders.orders",
            "commerce/orders.orders__quarantine",
            "commerce/raw.raw",
            "customer/view.view",
            "platform/ledger.facts",
            "zoo/new.new",
        ];
        let readers_first: Vec<ProductId> =
            ["customer/view", "commerce/orders", "commerce/raw"].map(|it| it.parse().unwrap()).into();
        let order = in_order(tables.map(str::to_owned).into(), &readers_first);
        assert_eq!(
            order,
            [
                "platform/ledger.facts",
                "zoo/new.new",
                "customer/view.view",
                "commerce/orders.orders",
                "commerce/orders.orders__quarantine",
                "commerce/raw.raw",
            ]
        );
    }
}
