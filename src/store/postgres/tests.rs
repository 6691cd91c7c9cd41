//! What only a server does: connections are cut, the server goes away, processes stop in the middle. Without
//! `HYDROMESH_TEST_POSTGRES` there is none, and nothing is tested.

use std::time::Instant;

use super::super::tests::{Home, T0, facts, is_fenced};
use super::super::{Place, StoreError};
use super::*;

async fn open(home: &Home) -> Postgres {
    let Place::Postgres { url, schema } = home.place() else { panic!("a server") };
    Postgres::open(&url, &schema, OpenMode::ReadWrite).await.unwrap()
}

/// Cuts connections as an administrator would: those that match a condition on `pg_stat_activity`. They are gone when it
/// returns: one that is merely told to go may still have its lock, or answer once more.
async fn cut(home: &Home, which: &str) {
    let sql = format!(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {which}"
    );
    home.raw(&sql).await.unwrap();
}

/// Returns the process id, on the server, of the connection that has the lock.
async fn lock_pid(store: &Postgres) -> i32 {
    let mut held = store.held.lock().await;
    let connection = held.as_mut().unwrap().connection();
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_is_found_out_and_nothing_is_there_twice() {
    let Some(home) = Home::on_a_server() else { return };
    let store = open(&home).await;
    let epoch = store.lease("a", T0, 1_000).await.unwrap().epoch;
    store.append(epoch, T0, &facts(&["x"])).await.unwrap();
    let lost = || sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    // The answer got lost after the commit, and before it.
    assert!(store.settle(epoch, (0, 1), lost()).await.is_ok());
    let before = store.settle(epoch, (1, 2), lost()).await.unwrap_err();
    assert!(before.is_transient(), "{before:?}");
    let strange = store.settle(epoch, (5, 6), lost()).await.unwrap_err();
    assert!(matches!(strange, StoreError::Damaged { .. }), "{strange:?}");
    // Somebody else leads by now: whatever became of it, this one writes no more.
    let next = store.lease("b", T0 + 2_000, 1_000).await.unwrap();
    assert!(is_fenced(&store.settle(epoch, (1, 2), lost()).await, next.epoch));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_are_written_once_while_connections_are_cut_again_and_again() {
    let Some(home) = Home::on_a_server() else { return };
    let store = open(&home).await;
    let epoch = store.lease("a", T0, 1_000_000).await.unwrap().epoch;
    let began = Instant::now();
    let (mut written, mut troubles) = (0_u64, 0);
    let cutting = async {
        // Whoever is in the middle of a write to this schema.
        let ours = "pid IN (SELECT pid FROM pg_locks WHERE relation = 'lease'::regclass)";
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            cut(&home, ours).await;
        }
    };
    let writing = async {
        while began.elapsed() < Duration::from_millis(1_500) {
            match store.append(epoch, T0, &facts(&["one", "two"])).await {
                Ok(seq) => {
                    written += 2;
                    assert_eq!(seq, written);
                }
                Err(error) => {
                    assert!(error.is_transient(), "{error:?}");
                    troubles += 1;
                }
            }
        }
    };
    tokio::join!(cutting, writing);
    println!("{written} facts, {troubles} troubles");
    assert!(written > 0);
    assert_eq!(store.head().await.unwrap(), written);
    store.integrity().await.unwrap();
}

#[tokio::test]
async fn a_lock_whose_connection_is_cut_is_taken_again_or_lost_to_another() {
    let Some(home) = Home::on_a_server() else { return };
    let (one, two) = (open(&home).await, open(&home).await);
    let lease = one.lease("one", T0, 60_000).await.unwrap();
    assert!(one.is_led().await.unwrap() && two.is_led().await.unwrap());
    cut(&home, &format!("pid = {}", lock_pid(&one).await)).await;
    // It lives, and says so in time.
    let lease = one.renew(&lease, T0 + 1, 60_000).await.unwrap();
    assert!(matches!(two.lease("two", T0 + 2, 60_000).await, Err(StoreError::LeaseHeld { .. })));
    cut(&home, &format!("pid = {}", lock_pid(&one).await)).await;
    // It might be gone: another leads, and it cannot write from then on.
    let next = loop {
        match two.lease("two", T0 + 3, 60_000).await {
            Ok(next) => break next,
            Err(StoreError::LeaseHeld { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(is_fenced(&one.append(lease.epoch, T0, &facts(&["late"])).await, next.epoch));
    assert!(is_fenced(&one.renew(&lease, T0 + 4, 60_000).await, next.epoch));
    two.append(next.epoch, T0, &facts(&["x"])).await.unwrap();
    two.release(next).await.unwrap();
    assert!(!one.is_led().await.unwrap());
}

#[tokio::test]
async fn one_that_stops_in_the_middle_of_a_write_is_not_waited_for_for_ever() {
    let Some(home) = Home::on_a_server() else { return };
    let (one, two) = (open(&home).await, open(&home).await);
    let lease = one.lease("one", T0, 1_000).await.unwrap();
    // As a process that was stopped between two statements.
    let stopped = one.begin_as(lease.epoch, "stop").await.unwrap();
    let began = Instant::now();
    let next = loop {
        match two.lease("two", T0 + 2_000, 60_000).await {
            Ok(next) => break next,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(40), "it waits for ever");
    };
    assert!(stopped.commit().await.is_err());
    assert!(is_fenced(&one.append(lease.epoch, T0, &facts(&["late"])).await, next.epoch));
}

#[tokio::test]
async fn who_cannot_be_trusted_is_refused_and_says_no_password() {
    let Some(home) = Home::on_a_server() else { return };
    let Place::Postgres { url, schema } = home.place() else { panic!("a server") };
    let refused = async |url: &str, mode| match Postgres::open(url, &schema, mode).await {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    };
    let absent = refused(&url, OpenMode::ReadOnly).await;
    assert!(matches!(absent, StoreError::Absent { .. }), "{absent:?}");
    assert!(absent.to_string().contains(&schema) && !absent.to_string().contains(":hydromesh@"), "{absent}");
    let bad = refused("postgres://me:secret@host:nonsense/db", OpenMode::ReadWrite).await;
    assert!(matches!(bad, StoreError::BadAddress(_)) && !format!("{bad:?}").contains("secret"), "{bad:?}");
    let nobody = refused("postgres://me:secret@127.0.0.1:1/db", OpenMode::ReadWrite).await;
    assert!(nobody.is_transient() && !crate::text::chain(&nobody).contains("secret"), "{nobody:?}");
    // A schema with somebody else's tables, and one of a later version of ours.
    home.raw(&format!("CREATE SCHEMA \"{schema}\"")).await.unwrap();
    home.raw("CREATE TABLE theirs (x int)").await.unwrap();
    let foreign = refused(&url, OpenMode::ReadWrite).await;
    assert!(matches!(foreign, StoreError::NotALedger { .. }), "{foreign:?}");
    home.raw("DROP TABLE theirs").await.unwrap();
    open(&home).await.close().await;
    home.raw("UPDATE hydromesh_ledger SET version = 99").await.unwrap();
    for mode in [OpenMode::ReadWrite, OpenMode::ReadOnly] {
        let newer = refused(&url, mode).await;
        assert!(matches!(newer, StoreError::NewerSchema { found: 99, .. }), "{newer:?}");
    }
}

#[tokio::test]
async fn a_reader_sees_what_is_committed_and_can_write_nothing() {
    let Some(home) = Home::on_a_server() else { return };
    let Place::Postgres { url, schema } = home.place() else { panic!("a server") };
    let writer = open(&home).await;
    let epoch = writer.lease("a", T0, 1_000).await.unwrap().epoch;
    let reader = Postgres::open(&url, &schema, OpenMode::ReadOnly).await.unwrap();
    writer.append(epoch, T0, &facts(&["x"])).await.unwrap();
    assert_eq!(reader.head().await.unwrap(), 1);
    assert!(matches!(reader.append(epoch, T0, &[]).await, Err(StoreError::ReadOnly)));
    let tried = sqlx::query("INSERT INTO command (key, at_ms, body) VALUES ('k', 0, '{}')");
    assert!(tried.execute(&reader.pool).await.is_err(), "the server itself refuses");
}
