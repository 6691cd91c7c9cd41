//! Opening the database: the settings that durability rests on, the checks that refuse, and the schema.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

use super::write::WriteTx;
use super::{Sqlite, StoreError, database, io};
use crate::store::files::beside;
use crate::store::{Database as _, OpenMode};

/// The first SQLite without the WAL-reset bug, in which a checkpoint racing a writer loses committed pages.
const MIN_SQLITE: (u64, u64, u64) = (3, 51, 3);
const MIN_SQLITE_TEXT: &str = "3.51.3";

/// "HMSH" in ASCII: tells our file from any other database.
const APPLICATION_ID: i64 = 0x484d_5348;

/// How long a connection waits for another process's write before it gives up.
const BUSY: Duration = Duration::from_secs(10);

/// What is done while a file is opened, for errors.
const OPENING: &str = "open the ledger";

/// Readers that may work at once. They never block the writer, nor it them.
const READERS: u32 = 4;

/// Step n takes schema n to n + 1, in one transaction together with the new version number. A released step is
/// never edited, because its result is out there.
const MIGRATIONS: [&str; 3] = [
    "
    CREATE TABLE ledger (
        seq   INTEGER PRIMARY KEY CHECK (seq > 0),
        at_ms INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        kind  TEXT NOT NULL CHECK (kind <> ''),
        body  TEXT NOT NULL CHECK (json_valid(body))
    ) STRICT;
    CREATE TRIGGER ledger_keeps_what_was_written BEFORE UPDATE ON ledger
        BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
    CREATE TRIGGER ledger_forgets_nothing BEFORE DELETE ON ledger
        BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
    CREATE TABLE lease (
        id         INTEGER PRIMARY KEY CHECK (id = 1),
        epoch      INTEGER NOT NULL,
        owner      TEXT,
        expires_ms INTEGER NOT NULL,
        locked     INTEGER NOT NULL
    ) STRICT;
    INSERT INTO lease VALUES (1, 0, NULL, 0, 0);
    CREATE TABLE command (
        id    INTEGER PRIMARY KEY AUTOINCREMENT,
        key   TEXT NOT NULL UNIQUE,
        at_ms INTEGER NOT NULL,
        body  TEXT NOT NULL CHECK (json_valid(body))
    ) STRICT;
",
    // The board of steps that other processes perform. Nothing here outlives the controller that wrote it.
    "
    CREATE TABLE worker (
        id         TEXT PRIMARY KEY,
        role       TEXT NOT NULL,
        expires_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE task (
        id     INTEGER PRIMARY KEY AUTOINCREMENT,
        run    TEXT NOT NULL UNIQUE,
        role   TEXT NOT NULL,
        epoch  INTEGER NOT NULL,
        body   TEXT NOT NULL CHECK (json_valid(body)),
        worker TEXT,
        cancel INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE report (
        id   INTEGER PRIMARY KEY AUTOINCREMENT,
        run  TEXT NOT NULL,
        body TEXT NOT NULL CHECK (json_valid(body))
    ) STRICT;
",
    // The board has a folder of its own (work/board.rs).
    "
    DROP TABLE worker;
    DROP TABLE task;
    DROP TABLE report;
",
];

#[expect(clippy::cast_possible_wrap, reason = "a handful of steps")]
const SCHEMA: i64 = MIGRATIONS.len() as i64;

impl Sqlite {
    pub(in crate::store) async fn open(path: &Path, mode: OpenMode) -> Result<Self, StoreError> {
        match Self::open_checked(path, mode).await {
            Err(error) => Err(super::disk::explained(path, error).await),
            opened => opened,
        }
    }

    async fn open_checked(path: &Path, mode: OpenMode) -> Result<Self, StoreError> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if mode == OpenMode::ReadWrite {
            crate::disk::create_folders(folder).map_err(io("create the folder", folder))?;
        } else if !path.exists() {
            return Err(StoreError::Absent { place: path.display().to_string() });
        }
        refuse_network(folder)?;
        let writer = match mode {
            OpenMode::ReadOnly => None,
            OpenMode::ReadWrite => {
                // Two first starts at once would both create the schema and both switch the journal mode.
                let _alone = locked(beside(path, "init-lock")).await?;
                let writer = pool(path, mode, 1);
                let prepared = prepare(&writer, path).await;
                if let Err(error) = prepared {
                    writer.close().await;
                    return Err(error);
                }
                Some(writer)
            }
        };
        let store = Self {
            path: path.to_owned(),
            writer,
            readers: pool(path, OpenMode::ReadOnly, READERS),
            held: Mutex::new(None),
        };
        if let Err(error) = verify(&store.readers, path).await {
            store.close().await;
            return Err(error);
        }
        Ok(store)
    }
}

async fn locked(path: PathBuf) -> Result<File, StoreError> {
    let task = tokio::task::spawn_blocking(move || {
        let file =
            File::options().create(true).append(true).open(&path).map_err(io("open the lock", &path))?;
        file.lock().map_err(io("take the lock", &path))?;
        Ok(file)
    });
    task.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn pool(path: &Path, mode: OpenMode, connections: u32) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(mode == OpenMode::ReadWrite)
        .read_only(mode == OpenMode::ReadOnly)
        .busy_timeout(BUSY)
        .foreign_keys(true)
        // NORMAL may lose the last transactions on a power cut; a fact that was acknowledged must not vanish.
        .synchronous(SqliteSynchronous::Full)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON");
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(30))
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options)
}

/// Brings a new or older file to the current schema. Refuses before it changes anything.
async fn prepare(writer: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    const ACTION: &str = "prepare the ledger";
    let version: String =
        sqlx::query_scalar("SELECT sqlite_version()").fetch_one(writer).await.map_err(database(OPENING))?;
    refuse_old(&version)?;
    let found = identify(writer, path).await?;
    let mode: String =
        sqlx::query_scalar("PRAGMA journal_mode").fetch_one(writer).await.map_err(database(ACTION))?;
    if mode != "wal" {
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode = WAL")
            .fetch_one(writer)
            .await
            .map_err(database(ACTION))?;
        if mode != "wal" {
            let detail = format!("the journal mode stays '{mode}'");
            return Err(StoreError::Damaged { place: path.display().to_string(), detail });
        }
    }
    for (from, step) in (0..).zip(MIGRATIONS).filter(|(from, _)| *from >= found) {
        let mut tx = WriteTx::begin(writer).await.map_err(database(ACTION))?;
        sqlx::raw_sql(step).execute(&mut *tx).await.map_err(database(ACTION))?;
        // Pragmas take no parameters. Both numbers are ours, and both are part of the transaction.
        let numbers = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}", from + 1);
        sqlx::raw_sql(sqlx::AssertSqlSafe(numbers)).execute(&mut *tx).await.map_err(database(ACTION))?;
        tx.commit().await.map_err(database(ACTION))?;
    }
    Ok(())
}

/// Returns the schema number, 0 for an empty file.
async fn identify(pool: &SqlitePool, path: &Path) -> Result<i64, StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
                (SELECT count(*) FROM sqlite_schema)",
    )
    .fetch_one(pool)
    .await
    .map_err(database(OPENING))?;
    let (application, version, objects): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    if application != APPLICATION_ID {
        let empty = application == 0 && version == 0 && objects == 0;
        return if empty { Ok(0) } else { Err(StoreError::NotALedger { place: path.display().to_string() }) };
    }
    if version > SCHEMA {
        return Err(StoreError::NewerSchema {
            place: path.display().to_string(),
            found: version,
            supported: SCHEMA,
        });
    }
    Ok(version)
}

/// Checks through a reading connection what every opener relies on.
async fn verify(readers: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let version: String =
        sqlx::query_scalar("SELECT sqlite_version()").fetch_one(readers).await.map_err(database(OPENING))?;
    refuse_old(&version)?;
    let found = identify(readers, path).await?;
    if found < SCHEMA {
        return Err(StoreError::OlderSchema { place: path.display().to_string(), found });
    }
    let lines: Vec<String> =
        sqlx::query_scalar("PRAGMA quick_check(20)").fetch_all(readers).await.map_err(database(OPENING))?;
    if lines == ["ok"] {
        Ok(())
    } else {
        Err(StoreError::Damaged { place: path.display().to_string(), detail: lines.join("; ") })
    }
}

fn refuse_old(version: &str) -> Result<(), StoreError> {
    let mut parts = version.split('.').map(|p| p.parse::<u64>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let found = (next(), next(), next());
    if found >= MIN_SQLITE {
        Ok(())
    } else {
        Err(StoreError::OldSqlite { found: version.to_owned(), needed: MIN_SQLITE_TEXT })
    }
}

/// Refuses folders on file systems that are known to break SQLite's locks or its shared memory.
fn refuse_network(folder: &Path) -> Result<(), StoreError> {
    // Elsewhere than on Linux there is no such table, and nothing is refused.
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return Ok(()) };
    let Ok(folder) = fs::canonicalize(folder) else { return Ok(()) };
    match network_kind(&mounts, &folder) {
        Some(kind) => Err(StoreError::NetworkFileSystem { path: folder, kind }),
        None => Ok(()),
    }
}

/// Returns the kind of network file system that `folder` lies on, if it does. Format: proc(5), mountinfo: field 5
/// is the mount point, with octal escapes, and the kind follows the lone dash.
fn network_kind(mounts: &str, folder: &Path) -> Option<String> {
    const NETWORK: [&str; 13] = [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "smb3",
    ];
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else { continue };
        let point =
            point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
        let length = Path::new(&point).components().count();
        // Of equal mount points the last one covers the others.
        if folder.starts_with(&point) && best.is_none_or(|(l, _)| length >= l) {
            best = Some((length, kind));
        }
    }
    best.map(|(_, kind)| kind).filter(|kind| NETWORK.contains(kind)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_with_the_wal_reset_bug_is_refused() {
        for old in ["3.51.2", "3.50.9", "3.7.17", "2.9", "", "x"] {
            assert!(matches!(refuse_old(old), Err(StoreError::OldSqlite { .. })), "{old}");
        }
        for new in ["3.51.3", "3.51.10", "3.52.0", "4.0"] {
            assert!(refuse_old(new).is_ok(), "{new}");
        }
    }

    /// A file as an older version left it, with one fact, and with a step to the next schema that its process did not live to
    /// commit. What is written by that step is on the disk, because the page cache of one page holds none of it.
    async fn left_half_way(path: &Path, schema: usize) {
        use sqlx::ConnectOptions as _;
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut raw = options.connect().await.unwrap();
        sqlx::raw_sql("PRAGMA journal_mode = WAL; PRAGMA cache_size = 1").execute(&mut raw).await.unwrap();
        for step in &MIGRATIONS[..schema] {
            sqlx::raw_sql(*step).execute(&mut raw).await.unwrap();
        }
        if schema > 0 {
            let numbers = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {schema}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(numbers)).execute(&mut raw).await.unwrap();
            let fact = "INSERT INTO ledger VALUES (1, 5, 1, 'kept', '{}')";
            sqlx::raw_sql(fact).execute(&mut raw).await.unwrap();
        }
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut raw).await.unwrap();
        sqlx::raw_sql(MIGRATIONS[schema]).execute(&mut raw).await.unwrap();
        // As a copy of the disk at this moment, because a connection that is dropped rolls back in order.
        for suffix in ["", "-wal"] {
            let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
            fs::copy(name(path), name(&path.with_file_name("copy.db"))).unwrap();
        }
    }

    #[tokio::test]
    async fn a_migration_that_was_killed_half_way_is_done_again() {
        for schema in 0..MIGRATIONS.len() {
            let folder = tempfile::tempdir().unwrap();
            left_half_way(&folder.path().join("ledger.db"), schema).await;
            let path = folder.path().join("copy.db");
            if schema > 0 {
                let found = Sqlite::open(&path, OpenMode::ReadOnly).await;
                assert!(matches!(found, Err(StoreError::OlderSchema { .. })), "{schema}: {found:?}");
            }
            let store = Sqlite::open(&path, OpenMode::ReadWrite).await.unwrap();
            let kinds: Vec<String> = store.read(1, 9).await.unwrap().into_iter().map(|it| it.kind).collect();
            assert_eq!(kinds, if schema > 0 { vec!["kept"] } else { vec![] }, "{schema}");
            assert_eq!(identify(&store.readers, &path).await.unwrap(), SCHEMA);
            let _ = store.lease("a", 0, 1_000).await.unwrap();
            store.close().await;
            Sqlite::open(&path, OpenMode::ReadOnly).await.unwrap().close().await;
        }
    }

    #[test]
    fn the_deepest_and_latest_mount_decides() {
        let mounts = "\
22 1 254:1 / / rw - ext4 /dev/vda rw
30 22 0:40 / /mnt rw shared:1 - nfs4 server:/x rw
31 30 0:41 / /mnt/local\\040disk rw - xfs /dev/vdb rw
32 22 0:42 / /mnt rw - ext4 /dev/vdc rw
33 22 0:43 / /share rw - cifs //s/x rw";
        let kind = |p: &str| network_kind(mounts, Path::new(p));
        assert_eq!(kind("/var/lib"), None);
        assert_eq!(kind("/mnt/local disk/x"), None);
        assert_eq!(kind("/mnt/x"), None);
        assert_eq!(kind("/shared"), None);
        assert_eq!(kind("/share/x").as_deref(), Some("cifs"));
        let covered = mounts.replace("32 22 0:42 / /mnt rw - ext4", "32 22 0:42 / /other rw - ext4");
        assert_eq!(network_kind(&covered, Path::new("/mnt/x")).as_deref(), Some("nfs4"));
    }
}
