use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

use super::*;

const T0: i64 = 1_700_000_000_000;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("state/ledger.db")
    }

    async fn open(&self) -> Store {
        Store::open(&self.path(), OpenMode::ReadWrite).await.unwrap()
    }

    /// A connection with no manners, as another program would open it.
    async fn raw(&self) -> SqliteConnection {
        let path = self.path();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
    }
}

fn facts(texts: &[&str]) -> Vec<(String, String)> {
    texts.iter().map(|t| ("note".to_owned(), format!("{{\"text\": \"{t}\"}}"))).collect()
}

fn is_fenced<T: std::fmt::Debug>(result: &Result<T, StoreError>, by: u64) -> bool {
    matches!(result, Err(StoreError::Fenced { current, .. }) if *current == by)
}

#[tokio::test]
async fn facts_come_back_in_order_and_unchanged() {
    let folder = Folder::new();
    let store = folder.open().await;
    assert_eq!(store.head().await.unwrap(), 0);
    let lease = store.lease("a", T0, 1_000).await.unwrap();
    assert_eq!(lease.epoch, 1);
    assert_eq!(store.append(1, T0, &facts(&["one", "two"])).await.unwrap(), 2);
    let odd = "{ \"b\":1,\n \"a\" : \"ü'\\u0000\" , \"n\": 1e400}".to_owned();
    assert_eq!(store.append(1, T0 - 5, &[("odd".to_owned(), odd.clone())]).await.unwrap(), 3);
    assert_eq!(store.append(1, T0, &[]).await.unwrap(), 3);
    let all = store.read(1, 100).await.unwrap();
    assert_eq!(all.iter().map(|r| r.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(all[2], Record { seq: 3, at_ms: T0 - 5, epoch: 1, kind: "odd".into(), body: odd });
    assert_eq!(store.read(2, 1).await.unwrap()[0].body, "{\"text\": \"two\"}");
    assert!(store.read(4, 100).await.unwrap().is_empty());
    store.integrity().await.unwrap();
}

#[tokio::test]
async fn a_batch_is_written_whole_or_not_at_all() {
    let folder = Folder::new();
    let store = folder.open().await;
    let lease = store.lease("a", T0, 1_000).await.unwrap();
    let mut batch = facts(&["good", "good too"]);
    batch.push(("bad".to_owned(), "{not json".to_owned()));
    let result = store.append(lease.epoch, T0, &batch).await;
    assert!(matches!(result, Err(StoreError::BadFact { kind }) if kind == "bad"));
    assert_eq!(store.head().await.unwrap(), 0);
    assert_eq!(store.append(lease.epoch, T0, &facts(&["after"])).await.unwrap(), 1);
}

#[tokio::test]
async fn a_stale_epoch_is_refused() {
    let folder = Folder::new();
    let (one, two) = (folder.open().await, folder.open().await);
    assert!(is_fenced(&one.append(0, T0, &[]).await, 0), "nobody may write before the first lease");
    let first = one.lease("one", T0, 1_000).await.unwrap();
    one.append(first.epoch, T0, &facts(&["x"])).await.unwrap();
    // `one` is stopped: its lock stays, so the lease must run out first.
    let early = two.lease("two", T0 + 999, 1_000).await;
    assert!(matches!(early, Err(StoreError::LeaseHeld { ref owner, .. }) if owner == "one"), "{early:?}");
    assert!(early.unwrap_err().is_transient());
    let second = two.lease("two", T0 + 1_000, 1_000).await.unwrap();
    assert!(second.epoch > first.epoch);
    // `one` wakes up.
    assert!(is_fenced(&one.append(first.epoch, T0, &facts(&["late"])).await, second.epoch));
    assert!(is_fenced(&one.renew(&first, T0 + 1_001, 1_000).await, second.epoch));
    assert!(
        is_fenced(&one.append(second.epoch + 1, T0, &[]).await, second.epoch),
        "a future epoch is no better"
    );
    // It let its lock go, but `two` never held it: only the clock may free the lease of `two`.
    assert!(matches!(one.lease("one", T0 + 1_500, 1_000).await, Err(StoreError::LeaseHeld { .. })));
    let second = two.renew(&second, T0 + 1_600, 1_000).await.unwrap();
    assert_eq!(second.expires_ms, T0 + 2_600);
    two.append(second.epoch, T0, &facts(&["y"])).await.unwrap();
    // A late release of the old lease takes nothing from the new one.
    one.release(first).await.unwrap();
    two.append(second.epoch, T0, &facts(&["z"])).await.unwrap();
    assert_eq!(two.head().await.unwrap(), 3);
    two.integrity().await.unwrap();
}

#[tokio::test]
async fn a_released_lease_is_free_at_once_and_writes_no_more() {
    let folder = Folder::new();
    let (one, two) = (folder.open().await, folder.open().await);
    let lease = one.lease("one", T0, 1_000_000).await.unwrap();
    let epoch = lease.epoch;
    one.release(lease).await.unwrap();
    assert!(is_fenced(&one.append(epoch, T0, &facts(&["x"])).await, epoch));
    let next = two.lease("two", T0, 1_000_000).await.unwrap();
    assert!(next.epoch > epoch);
}

#[tokio::test]
async fn a_dead_holder_need_not_be_waited_for() {
    let folder = Folder::new();
    let one = folder.open().await;
    let lease = one.lease("one", T0, 1_000_000).await.unwrap();
    one.append(lease.epoch, T0, &facts(&["x"])).await.unwrap();
    drop(one);
    // The process is gone, and with it the lock; the clock of the new one even runs behind.
    let two = folder.open().await;
    let next = two.lease("two", T0 - 600_000, 1_000).await.unwrap();
    assert_eq!(next.epoch, lease.epoch + 1);
}

#[tokio::test]
async fn of_many_that_ask_at_once_one_gets_the_lease() {
    let folder = Folder::new();
    let mut stores = Vec::new();
    for _ in 0..8 {
        stores.push(folder.open().await);
    }
    let asked =
        stores.iter().enumerate().map(|(n, s)| async move { s.lease(&format!("s{n}"), T0, 60_000).await });
    let results = futures::future::join_all(asked).await;
    let won: Vec<_> = results.iter().filter_map(|r| r.as_ref().ok()).collect();
    assert_eq!(won.len(), 1, "{results:?}");
    assert!(results.iter().all(|r| matches!(r, Ok(_) | Err(StoreError::LeaseHeld { .. }))));
}

#[tokio::test]
async fn a_deleted_lease_row_does_not_bring_epochs_back() {
    let folder = Folder::new();
    let store = folder.open().await;
    for _ in 0..3 {
        let lease = store.lease("a", T0, 1_000).await.unwrap();
        store.append(lease.epoch, T0, &facts(&["x"])).await.unwrap();
    }
    sqlx::query("DELETE FROM lease").execute(&mut folder.raw().await).await.unwrap();
    assert!(is_fenced(&store.append(3, T0, &facts(&["y"])).await, 3));
    assert_eq!(store.lease("b", T0, 1_000).await.unwrap().epoch, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_appenders_leave_no_gap_and_no_mixture() {
    let folder = Folder::new();
    let store = folder.open().await;
    let epoch = store.lease("a", T0, 1_000_000).await.unwrap().epoch;
    let mut tasks = Vec::new();
    for writer in 0..8 {
        // Half share a store, half open their own, as a second process would.
        let store = if writer % 2 == 0 { store.clone() } else { folder.open().await };
        tasks.push(tokio::spawn(async move {
            for batch in 0..10 {
                let texts = [
                    format!("{writer}-{batch}-0"),
                    format!("{writer}-{batch}-1"),
                    format!("{writer}-{batch}-2"),
                ];
                let texts: Vec<_> = texts.iter().map(String::as_str).collect();
                store.append(epoch, T0, &facts(&texts)).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let all = store.read(1, 1_000).await.unwrap();
    assert_eq!(all.iter().map(|r| r.seq).collect::<Vec<_>>(), (1..=240).collect::<Vec<_>>());
    for batch in all.chunks(3) {
        let stem = batch[0].body.replace("-0\"", "");
        assert!(batch[1].body.starts_with(stem.trim_end_matches('}')), "{batch:?}");
        assert!(batch[2].body.starts_with(stem.trim_end_matches('}')), "{batch:?}");
    }
    store.integrity().await.unwrap();
}

#[tokio::test]
async fn the_ledger_is_append_only_even_for_others() {
    let folder = Folder::new();
    let store = folder.open().await;
    let epoch = store.lease("a", T0, 1_000).await.unwrap().epoch;
    store.append(epoch, T0, &facts(&["x"])).await.unwrap();
    let mut raw = folder.raw().await;
    assert!(sqlx::query("UPDATE ledger SET body = '{}'").execute(&mut raw).await.is_err());
    assert!(sqlx::query("DELETE FROM ledger").execute(&mut raw).await.is_err());
    assert_eq!(store.read(1, 10).await.unwrap()[0].body, "{\"text\": \"x\"}");
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
async fn first_starts_at_once_all_succeed() {
    let folder = Folder::new();
    let opened = futures::future::join_all((0..6).map(|_| folder.open())).await;
    for store in opened {
        store.integrity().await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_sees_what_is_committed_and_writes_nothing() {
    let folder = Folder::new();
    let missing = Store::open(&folder.path(), OpenMode::ReadOnly).await;
    assert!(matches!(missing, Err(StoreError::Io { .. })));
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

#[tokio::test]
async fn a_command_key_counts_once() {
    let folder = Folder::new();
    let (one, two) = (folder.open().await, folder.open().await);
    let first = one.submit_command("retry-1", r#"{"verb":"retry"}"#, T0).await.unwrap();
    assert_eq!(first.submission, Submission::New);
    let again = two.submit_command("retry-1", r#"{"verb":"retry"}"#, T0 + 5).await.unwrap();
    assert_eq!(again, Submitted { id: first.id, submission: Submission::Repeated });
    let other = two.submit_command("retry-1", r#"{"verb":"cancel"}"#, T0).await;
    assert!(matches!(other, Err(StoreError::KeyReused { .. })));
    let second = two.submit_command("retry-2", "{}", T0).await.unwrap();
    let listed = one.commands(0, 10).await.unwrap();
    assert_eq!(listed.iter().map(|c| c.id).collect::<Vec<_>>(), [first.id, second.id]);
    assert_eq!((listed[0].at_ms, listed[0].body.as_str()), (T0, r#"{"verb":"retry"}"#));
    assert_eq!(one.commands(first.id, 10).await.unwrap().len(), 1);
    for (key, body) in [
        ("", "{}"),
        ("k", "{"),
        ("k", ""),
        (&*"k".repeat(201), "{}"),
        ("k", &*"1".repeat(MAX_COMMAND_BYTES + 1)),
    ] {
        assert!(matches!(one.submit_command(key, body, T0).await, Err(StoreError::BadCommand)));
    }
}

#[tokio::test]
async fn a_backup_taken_while_writing_opens_and_goes_on() {
    let folder = Folder::new();
    let store = folder.open().await;
    let epoch = store.lease("a", T0, 1_000_000).await.unwrap().epoch;
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..50 {
                store.append(epoch, T0 + n, &facts(&["x", "y"])).await.unwrap();
            }
        }
    });
    let target = folder.0.path().join("copy.db");
    while store.head().await.unwrap() < 10 {
        tokio::task::yield_now().await;
    }
    store.backup(&target).await.unwrap();
    writing.await.unwrap();
    let copy = Store::open(&target, OpenMode::ReadWrite).await.unwrap();
    copy.integrity().await.unwrap();
    let head = copy.head().await.unwrap();
    assert!((10..=100).contains(&head) && head % 2 == 0, "{head}");
    assert_eq!(
        copy.read(1, 1_000).await.unwrap(),
        store.read(1, u32::try_from(head).unwrap()).await.unwrap()
    );
    let lease = copy.lease("b", T0, 1_000).await.unwrap();
    assert_eq!(lease.epoch, epoch + 1);
    // Again over the old backup, and over an unfinished one.
    std::fs::write(folder.0.path().join("copy2.db.part"), "torn").unwrap();
    store.backup(&folder.0.path().join("copy2.db")).await.unwrap();
    assert!(!folder.0.path().join("copy2.db.part").exists());
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
            .args(["--exact", "store::tests::child_appends_until_killed", "--nocapture"])
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_append_leaves_no_transaction_behind() {
    let folder = Folder::new();
    let store = folder.open().await;
    let epoch = store.lease("a", T0, 1_000).await.unwrap().epoch;
    let many: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let batch = facts(&many.iter().map(String::as_str).collect::<Vec<_>>());
    for micros in (0..4_000).step_by(100) {
        let limit = std::time::Duration::from_micros(micros);
        let _ = tokio::time::timeout(limit, store.append(epoch, T0, &batch)).await;
        let head = store.head().await.unwrap();
        assert_eq!(head % 200, 0);
    }
    let head = store.append(epoch, T0, &facts(&["after"])).await.unwrap();
    assert_eq!(head % 200, 1);
    store.integrity().await.unwrap();
}

#[tokio::test]
async fn a_raised_epoch_is_the_same_lease_and_shuts_the_old_epoch_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let store = Store::open(&path, OpenMode::ReadWrite).await.unwrap();
    let lease = store.lease("one", 1_000, 60_000).await.unwrap();
    let raised = store.raise(&lease).await.unwrap();
    assert_eq!(raised, Lease { epoch: lease.epoch + 1, ..lease.clone() });
    assert!(store.append(raised.epoch, 1_000, &[]).await.is_ok());
    for stale in [store.append(lease.epoch, 1_000, &[]).await.map(drop), store.raise(&lease).await.map(drop)]
    {
        assert!(matches!(stale, Err(StoreError::Fenced { .. })), "{stale:?}");
    }
    assert_eq!(store.renew(&raised, 1_000, 60_000).await.unwrap().epoch, raised.epoch);
    let other = Store::open(&path, OpenMode::ReadWrite).await.unwrap();
    let refused = other.lease("two", 1_000, 1_000).await;
    assert!(matches!(refused, Err(StoreError::LeaseHeld { .. })), "{refused:?}");
}
