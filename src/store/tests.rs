//! What every database must do for the ledger: each test plays in a file, and in a schema of a server where there is one.

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection};
use tempfile::TempDir;

use super::*;

pub(super) const T0: i64 = 1_700_000_000_000;

/// Where a ledger of a test is.
pub(super) enum Home {
    Folder(TempDir),
    Schema { url: String, schema: String },
}

impl Home {
    /// Returns an empty home of each kind; `HYDROMESH_TEST_POSTGRES` is the address of a server that may be written to.
    fn all() -> Vec<Self> {
        let folder = Self::Folder(TempDir::new().unwrap());
        [folder].into_iter().chain(Self::on_a_server()).collect()
    }

    pub(super) fn on_a_server() -> Option<Self> {
        let url = std::env::var("HYDROMESH_TEST_POSTGRES").ok()?;
        let schema = format!("hydromesh_test-{}", uuid::Uuid::new_v4().simple());
        Some(Self::Schema { url, schema })
    }

    pub(super) fn place(&self) -> Place {
        match self {
            Self::Folder(folder) => Place::File(folder.path().join("state/ledger.db")),
            Self::Schema { url, schema } => Place::Postgres { url: url.clone(), schema: schema.clone() },
        }
    }

    pub(super) async fn open(&self) -> Store {
        Store::open_at(&self.place(), OpenMode::ReadWrite).await.unwrap()
    }

    /// Runs a statement over a connection with no manners, as another program would.
    pub(super) async fn raw(&self, sql: &str) -> Result<(), sqlx::Error> {
        match self {
            Self::Folder(folder) => {
                let mut raw: SqliteConnection = SqliteConnectOptions::new()
                    .filename(folder.path().join("state/ledger.db"))
                    .connect()
                    .await?;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut raw).await?;
            }
            Self::Schema { url, schema } => {
                let options: PgConnectOptions = url.parse()?;
                let mut raw = options.options([("search_path", format!("\"{schema}\""))]).connect().await?;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut raw).await?;
            }
        }
        Ok(())
    }
}

pub(super) fn facts(texts: &[&str]) -> Vec<(String, String)> {
    texts.iter().map(|t| ("note".to_owned(), format!("{{\"text\": \"{t}\"}}"))).collect()
}

pub(super) fn is_fenced<T: Debug>(result: &Result<T, StoreError>, by: u64) -> bool {
    matches!(result, Err(StoreError::Fenced { current, .. }) if *current == by)
}

#[tokio::test]
async fn facts_come_back_in_order_and_unchanged() {
    for home in Home::all() {
        let store = home.open().await;
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
}

#[tokio::test]
async fn a_batch_is_written_whole_or_not_at_all() {
    for home in Home::all() {
        let store = home.open().await;
        let lease = store.lease("a", T0, 1_000).await.unwrap();
        let mut batch = facts(&["good", "good too"]);
        batch.push(("bad".to_owned(), "{not json".to_owned()));
        let result = store.append(lease.epoch, T0, &batch).await;
        assert!(matches!(result, Err(StoreError::BadFact { kind }) if kind == "bad"));
        assert_eq!(store.head().await.unwrap(), 0);
        assert_eq!(store.append(lease.epoch, T0, &facts(&["after"])).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_stale_epoch_is_refused() {
    for home in Home::all() {
        let (one, two) = (home.open().await, home.open().await);
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
}

#[tokio::test]
async fn a_released_lease_is_free_at_once_and_writes_no_more() {
    for home in Home::all() {
        let (one, two) = (home.open().await, home.open().await);
        let lease = one.lease("one", T0, 1_000_000).await.unwrap();
        let epoch = lease.epoch;
        one.release(lease).await.unwrap();
        assert!(is_fenced(&one.append(epoch, T0, &facts(&["x"])).await, epoch));
        let next = two.lease("two", T0, 1_000_000).await.unwrap();
        assert!(next.epoch > epoch);
    }
}

#[tokio::test]
async fn a_dead_holder_need_not_be_waited_for() {
    for home in Home::all() {
        let one = home.open().await;
        let lease = one.lease("one", T0, 1_000_000).await.unwrap();
        one.append(lease.epoch, T0, &facts(&["x"])).await.unwrap();
        drop(one);
        // The process is gone, and with it the lock; the clock of the new one even runs behind. A server notices in a moment.
        let two = home.open().await;
        let mut next = two.lease("two", T0 - 600_000, 1_000).await;
        for _ in 0..200 {
            if next.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            next = two.lease("two", T0 - 600_000, 1_000).await;
        }
        let next = next.unwrap();
        assert_eq!(next.epoch, lease.epoch + 1);
    }
}

#[tokio::test]
async fn of_many_that_ask_at_once_one_gets_the_lease() {
    for home in Home::all() {
        let mut stores = Vec::new();
        for _ in 0..8 {
            stores.push(home.open().await);
        }
        let asked = stores
            .iter()
            .enumerate()
            .map(|(n, s)| async move { s.lease(&format!("s{n}"), T0, 60_000).await });
        let results = futures::future::join_all(asked).await;
        let won: Vec<_> = results.iter().filter_map(|r| r.as_ref().ok()).collect();
        assert_eq!(won.len(), 1, "{results:?}");
        assert!(results.iter().all(|r| matches!(r, Ok(_) | Err(StoreError::LeaseHeld { .. }))));
    }
}

#[tokio::test]
async fn a_deleted_lease_row_does_not_bring_epochs_back() {
    for home in Home::all() {
        let store = home.open().await;
        for _ in 0..3 {
            let lease = store.lease("a", T0, 1_000).await.unwrap();
            store.append(lease.epoch, T0, &facts(&["x"])).await.unwrap();
        }
        home.raw("DELETE FROM lease").await.unwrap();
        assert!(is_fenced(&store.append(3, T0, &facts(&["y"])).await, 3));
        assert_eq!(store.lease("b", T0, 1_000).await.unwrap().epoch, 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_appenders_leave_no_gap_and_no_mixture() {
    for home in Home::all() {
        let store = home.open().await;
        let epoch = store.lease("a", T0, 1_000_000).await.unwrap().epoch;
        let mut tasks = Vec::new();
        for writer in 0..8 {
            // Half share a store, half open their own, as a second process would.
            let store = if writer % 2 == 0 { store.clone() } else { home.open().await };
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
}

#[tokio::test]
async fn the_ledger_is_append_only_even_for_others() {
    for home in Home::all() {
        let store = home.open().await;
        let epoch = store.lease("a", T0, 1_000).await.unwrap().epoch;
        store.append(epoch, T0, &facts(&["x"])).await.unwrap();
        assert!(home.raw("UPDATE ledger SET body = '{}'").await.is_err());
        assert!(home.raw("DELETE FROM ledger").await.is_err());
        assert_eq!(store.read(1, 10).await.unwrap()[0].body, "{\"text\": \"x\"}");
    }
}

#[tokio::test]
async fn first_starts_at_once_all_succeed() {
    for home in Home::all() {
        let opened = futures::future::join_all((0..6).map(|_| home.open())).await;
        for store in opened {
            store.integrity().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_command_key_counts_once() {
    for home in Home::all() {
        let (one, two) = (home.open().await, home.open().await);
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
}

#[tokio::test]
async fn a_backup_taken_while_writing_opens_and_goes_on() {
    for home in Home::all() {
        let store = home.open().await;
        let epoch = store.lease("a", T0, 1_000_000).await.unwrap().epoch;
        let writing = tokio::spawn({
            let store = store.clone();
            async move {
                for n in 0..50 {
                    store.append(epoch, T0 + n, &facts(&["x", "y"])).await.unwrap();
                }
            }
        });
        let folder = TempDir::new().unwrap();
        let target = folder.path().join("copy.db");
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
        assert!(lease.epoch > epoch);
        // Again over the old backup, and over an unfinished one.
        std::fs::write(folder.path().join("copy2.db.part"), "torn").unwrap();
        store.backup(&folder.path().join("copy2.db")).await.unwrap();
        assert!(!folder.path().join("copy2.db.part").exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_append_leaves_no_transaction_behind() {
    for home in Home::all() {
        let store = home.open().await;
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
}

#[tokio::test]
async fn a_raised_epoch_is_the_same_lease_and_shuts_the_old_epoch_out() {
    for home in Home::all() {
        let store = home.open().await;
        let lease = store.lease("one", 1_000, 60_000).await.unwrap();
        let raised = store.raise(&lease).await.unwrap();
        assert_eq!(raised, Lease { epoch: lease.epoch + 1, ..lease.clone() });
        assert!(store.append(raised.epoch, 1_000, &[]).await.is_ok());
        for stale in
            [store.append(lease.epoch, 1_000, &[]).await.map(drop), store.raise(&lease).await.map(drop)]
        {
            assert!(matches!(stale, Err(StoreError::Fenced { .. })), "{stale:?}");
        }
        assert_eq!(store.renew(&raised, 1_000, 60_000).await.unwrap().epoch, raised.epoch);
        let other = home.open().await;
        let refused = other.lease("two", 1_000, 1_000).await;
        assert!(matches!(refused, Err(StoreError::LeaseHeld { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_ledger_follows_another_of_the_same_story_and_no_other() {
    for home in Home::all() {
        let elsewhere = TempDir::new().unwrap();
        let old = Store::open(&elsewhere.path().join("ledger.db"), OpenMode::ReadWrite).await.unwrap();
        let above = old.lease("a", T0, 1_000).await.unwrap();
        old.append(above.epoch, T0, &facts(&["one", "two", "three"])).await.unwrap();
        let store = home.open().await;
        let mut lease = store.lease("b", T0, 1_000).await.unwrap();
        for more in ["four", "five"] {
            lease = follow(&*store, lease, &*old, &above).await.unwrap();
            assert!(lease.epoch > above.epoch);
            assert_eq!(store.read(1, 100).await.unwrap(), old.read(1, 100).await.unwrap());
            old.append(above.epoch, T0, &facts(&[more])).await.unwrap();
        }
        // It may be further than the other one, if it is the same.
        lease = follow(&*store, lease, &*old, &above).await.unwrap();
        store.append(lease.epoch, T0, &facts(&["mine"])).await.unwrap();
        lease = follow(&*store, lease, &*old, &above).await.unwrap();
        assert_eq!(store.head().await.unwrap(), 6);
        old.append(above.epoch, T0, &facts(&["another"])).await.unwrap();
        let other = follow(&*store, lease, &*old, &above).await;
        assert!(matches!(other, Err(StoreError::Other { seq: 6 })), "{other:?}");
        store.integrity().await.unwrap();
    }
}
