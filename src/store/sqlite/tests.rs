use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

use super::*;
use crate::store::tests::{T0, facts};
use crate::store::{OpenMode, Store};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("state/ledger.db")
    }

    async fn open(&self) -> Sqlite {
        Sqlite::open(&self.path(), OpenMode::ReadWrite).await.unwrap()
    }

    /// A connection with no manners, as another program would open it.
    async fn raw(&self) -> SqliteConnection {
        let path = self.path();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
    }
}

#[tokio::test]
async fn the_settings_that_durability_rests_on_are_on() {
    let folder = Folder::new();
    let store = folder.open().await;
    let writer = store.writer.as_ref().unwrap();
    for (pragma, expected) in [
        ("PRAGMA journal_mode", "wal"),
        ("PRAGMA synchronous", "2"),
        ("PRAGMA foreign_keys", "1"),
        ("PRAGMA trusted_schema", "0"),
        ("PRAGMA cell_size_check", "1"),
        ("PRAGMA busy_timeout", "10000"),
    ] {
        for pool in [writer, &store.readers] {
            let row = sqlx::query(pragma).fetch_one(pool).await.unwrap();
            let found = row.try_get::<String, _>(0).unwrap_or_else(|_| row.get::<i64, _>(0).to_string());
            assert_eq!(found, expected, "{pragma}");
        }
    }
}

#[tokio::test]
async fn newer_foreign_and_damaged_files_are_refused_untouched() {
    // Newer: opened by a later version of ours, then by us.
    let folder = Folder::new();
    folder.open().await.close().await;
    sqlx::query("PRAGMA user_version = 99").execute(&mut folder.raw().await).await.unwrap();
    for mode in [OpenMode::ReadWrite, OpenMode::ReadOnly] {
        let error = Store::open(&folder.path(), mode).await.unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { found: 99, .. }), "{error:?}");
    }
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut folder.raw().await).await.unwrap();
    assert_eq!(version, 99);

    // Foreign: somebody else's database.
    let folder = Folder::new();
    sqlx::query("CREATE TABLE theirs (x)").execute(&mut folder.raw().await).await.unwrap();
    let error = Store::open(&folder.path(), OpenMode::ReadWrite).await.unwrap_err();
    assert!(matches!(error, StoreError::NotALedger { .. }), "{error:?}");

    // No database at all.
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path().parent().unwrap()).unwrap();
    std::fs::write(folder.path(), "x".repeat(5_000)).unwrap();
    let error = Store::open(&folder.path(), OpenMode::ReadWrite).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert_eq!(std::fs::read(folder.path()).unwrap(), "x".repeat(5_000).as_bytes());

    // A page overwritten in the middle.
    let folder = Folder::new();
    let store = folder.open().await;
    let epoch = store.lease("a", T0, 1_000).await.unwrap().epoch;
    let many: Vec<String> = (0..2_000).map(|n| format!("{n:050}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    store.append(epoch, T0, &facts(&many)).await.unwrap();
    store.close().await;
    let mut bytes = std::fs::read(folder.path()).unwrap();
    let page = bytes.len() / 4096 / 2 * 4096;
    bytes[page..page + 4096].fill(0xa5);
    std::fs::write(folder.path(), bytes).unwrap();
    let error = Store::open(&folder.path(), OpenMode::ReadWrite).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_migration_that_was_killed_starts_again() {
    let folder = Folder::new();
    let mut raw = folder.raw().await;
    // What a kill inside the first transaction leaves: a file, perhaps in WAL mode, with nothing in it.
    sqlx::query("PRAGMA journal_mode = WAL").execute(&mut raw).await.unwrap();
    raw.close().await.unwrap();
    let store = folder.open().await;
    assert_eq!(store.lease("a", T0, 1_000).await.unwrap().epoch, 1);
    store.integrity().await.unwrap();
}

#[tokio::test]
async fn a_reader_sees_what_is_committed_and_writes_nothing() {
    let folder = Folder::new();
    let missing = Store::open(&folder.path(), OpenMode::ReadOnly).await;
    assert!(matches!(missing, Err(StoreError::Absent { .. })));
    assert!(!folder.path().exists());
    let writer = folder.open().await;
    let epoch = writer.lease("a", T0, 1_000).await.unwrap().epoch;
    let reader = Store::open(&folder.path(), OpenMode::ReadOnly).await.unwrap();
    writer.append(epoch, T0, &facts(&["x"])).await.unwrap();
    assert_eq!(reader.head().await.unwrap(), 1);
    assert!(matches!(reader.append(epoch, T0, &[]).await, Err(StoreError::ReadOnly)));
    assert!(matches!(reader.lease("r", T0, 1).await, Err(StoreError::ReadOnly)));
    assert!(matches!(reader.submit_command("k", "{}", T0).await, Err(StoreError::ReadOnly)));
    writer.close().await;
    let later = Store::open(&folder.path(), OpenMode::ReadOnly).await.unwrap();
    assert_eq!(later.read(1, 10).await.unwrap().len(), 1);
}

/// Not a test of its own: the process that the next test kills. It says each number once it is durable.
#[tokio::test]
async fn child_appends_until_killed() {
    let Some(path) = std::env::var_os("HYDROMESH_TEST_APPEND_TO") else { return };
    let store = Store::open(&PathBuf::from(path), OpenMode::ReadWrite).await.unwrap();
    let epoch = store.lease("child", T0, 1_000_000_000).await.unwrap().epoch;
    loop {
        let seq = store.append(epoch, T0, &facts(&["one", "two", "three"])).await.unwrap();
        println!("durable {seq}");
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_or_copy() {
    let folder = Folder::new();
    let mut before = 0;
    for round in 0..3 {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::sqlite::tests::child_appends_until_killed", "--nocapture"])
            .env("HYDROMESH_TEST_APPEND_TO", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let durable =
            lines.map_while(Result::ok).filter_map(|l| l.strip_prefix("durable ")?.parse::<u64>().ok());
        let mut last = 0;
        let mut copied = 0;
        for (n, seq) in durable.enumerate() {
            last = seq;
            if n == 10 {
                // Files as a power cut or a snapshot of the disk would find them, log first as it is in flux most.
                // By another process: closing our own descriptors would drop SQLite's locks here.
                let copy = folder.0.path().join(format!("copy-{round}"));
                std::fs::create_dir(&copy).unwrap();
                let script = "kill -STOP $1; cp \"$2\" \"$2-wal\" \"$3\"; kill -CONT $1";
                let pid = child.id().to_string();
                let done = Process::new("sh")
                    .args(["-c", script, "sh", &pid])
                    .arg(folder.path())
                    .arg(&copy)
                    .status();
                assert!(done.unwrap().success());
                copied = seq;
            }
            if n == 20 + round * 7 {
                child.kill().unwrap();
                break;
            }
        }
        child.wait().unwrap();
        assert!(copied > before && last > copied, "the child wrote nothing: {before} {copied} {last}");

        let copy = folder.0.path().join(format!("copy-{round}/ledger.db"));
        for (path, durable) in [(copy, copied), (folder.path(), last)] {
            let store = Store::open(&path, OpenMode::ReadWrite).await.unwrap();
            store.integrity().await.unwrap();
            let head = store.head().await.unwrap();
            assert!(head >= durable, "{durable} was acknowledged, {head} is there");
            assert_eq!(head % 3, 0, "half a batch is visible");
            // No repair step, and no waiting for the dead one's lease.
            let epoch = store.lease("parent", T0, 1_000).await.unwrap().epoch;
            assert_eq!(store.append(epoch, T0, &facts(&["a", "b", "c"])).await.unwrap(), head + 3);
            before = head;
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_survived() {
    let folder = Folder::new();
    let store = folder.open().await;
    let epoch = store.lease("a", T0, 1_000).await.unwrap().epoch;
    store.append(epoch, T0, &facts(&["x"])).await.unwrap();
    let writer = store.writer.as_ref().unwrap();
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(writer).await.unwrap();
    // SQLite answers its own page limit with SQLITE_FULL, the code of a full disk.
    let limit = format!("PRAGMA max_page_count = {}", pages + 2);
    sqlx::raw_sql(sqlx::AssertSqlSafe(limit)).execute(writer).await.unwrap();
    let big = vec![("big".to_owned(), format!("\"{}\"", "x".repeat(100_000)))];
    let error = store.append(epoch, T0, &big).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(store.head().await.unwrap(), 1);
    sqlx::raw_sql("PRAGMA max_page_count = 1000000").execute(writer).await.unwrap();
    assert_eq!(store.append(epoch, T0, &big).await.unwrap(), 2);
    store.integrity().await.unwrap();
}
