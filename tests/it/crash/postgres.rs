//! The ledger on a PostgreSQL server, and two controllers on it. Without `HYDROMESH_TEST_POSTGRES`, the address of a server
//! that may be written to, nothing is tested: `scripts/services/postgres.sh start` prints it.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _};

use super::mesh::{DAYS, SALES_A_DAY};
use super::world::{State, World, wait_for};
use super::{DAILY, EVENTS, Messages, SALES, undisturbed};

const SQLITE: &str = "state: {kind: sqlite}";
const POSTGRES: &str = "state: {kind: postgres, url: \"${secret:STATE_URL}\"}";

/// Makes a database, and returns its address.
fn database() -> Option<String> {
    let server = std::env::var("HYDROMESH_TEST_POSTGRES").ok()?;
    let name = format!("test_{}", uuid::Uuid::new_v4().simple());
    wait_for(async {
        let options: PgConnectOptions = server.parse().expect("an address");
        let mut connection = options.connect().await.expect("a server");
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut connection).await.expect("a database");
    });
    let (before, _) = server.rsplit_once('/').expect("a database in the address");
    Some(format!("{before}/{name}"))
}

/// Keeps everybody from writing until it is dropped.
fn hold_the_lease(url: &str) -> impl Drop {
    struct Held(Option<(tokio::runtime::Runtime, sqlx::PgConnection)>);
    impl Drop for Held {
        fn drop(&mut self) {
            let (runtime, connection) = self.0.take().expect("once");
            runtime.block_on(sqlx::Connection::close(connection)).expect("closed");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let connection = runtime.block_on(async {
        let options: PgConnectOptions = url.parse().expect("an address");
        let mut connection = options.connect().await.expect("a server");
        let lock = "BEGIN; LOCK TABLE hydromesh_dev.lease IN EXCLUSIVE MODE";
        sqlx::raw_sql(lock).execute(&mut connection).await.expect("a lock");
        connection
    });
    Held(Some((runtime, connection)))
}

/// Waits until a controller has said something for the nth time.
#[track_caller]
fn wait_until_told(state: &mut State<'_>, what: &str, times: usize) {
    state.wait(what, |state| {
        let told = state.told().matches(what).count();
        if told >= times { Ok(()) } else { Err(format!("told {told} times")) }
    });
}

/// Waits until a table has a later version than it had.
#[track_caller]
fn wait_for_commits(state: &mut State<'_>, address: &str, more: i64) {
    let before = state.table(address).0;
    state.wait("commits", |state| {
        let now = state.table(address).0;
        if now >= before + more { Ok(()) } else { Err(format!("version {now}, after {before}")) }
    });
}

#[test]
fn of_two_controllers_on_one_server_one_leads_whoever_is_stopped_or_killed() {
    let Some(url) = database() else { return };
    let world = World::new("1d").with_setting(SQLITE, POSTGRES);
    let messages = Messages::new(world.now_ms);
    let mut one = world.state("one").knowing("STATE_URL", &url);
    let mut two = world.state("two").knowing("STATE_URL", &url).sharing(&one);
    one.produce(messages.part(0));
    one.start();
    wait_for_commits(&mut one, SALES, 3);
    two.start();
    wait_until_told(&mut two, "stands by", 1);

    // The leader stops in the middle of the backfill; the other leads when the lease has run out.
    one.signal("STOP");
    let stopped = Instant::now();
    wait_until_told(&mut two, "leads from here on", 1);
    println!("led {:?} after the leader stopped", stopped.elapsed());
    wait_for_commits(&mut two, SALES, 2);
    one.produce(messages.part(1));
    // It wakes up with a step in its hands: it may write neither the ledger nor a table, and ends.
    one.signal("CONT");
    let ended = (0..600).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        one.ended()
    });
    let ended = ended.unwrap_or_else(|| panic!("it goes on\n{}", one.told()));
    assert_eq!(ended.code(), Some(4), "{}", one.told());
    assert!(one.told().contains("no longer may write"), "{}", one.told());

    // Started again it stands by, and leads as soon as the other is killed: its connection tells, no lease need run out.
    one.start();
    wait_until_told(&mut one, "stands by", 1);
    // Who took over from a stopped one gets the lock with its next renewal, at a third of the lease.
    std::thread::sleep(Duration::from_secs(6));
    two.kill();
    let killed = Instant::now();
    wait_until_told(&mut one, "leads from here on", 1);
    assert!(killed.elapsed() < Duration::from_secs(10), "it waited for the lease: {:?}", killed.elapsed());
    for part in 2..5 {
        one.produce(messages.part(part));
    }
    one.settle();
    messages.wait_for_all(&mut one);
    assert_eq!((one.table(SALES).1, one.table(DAILY).1), (DAYS * SALES_A_DAY, DAYS * 3));
    assert_eq!(one.json(&["status"]).expect("a status")["controller"], "running");
    one.ask(&["doctor"]).ends_with(0).says("facts, whole, numbered without gaps");
    // A server that does not answer holds up no end; what was not acknowledged is seen to by the next one.
    let held = hold_the_lease(&url);
    std::thread::sleep(Duration::from_secs(6));
    let (status, took) = one.end();
    assert_eq!(status.code(), Some(4), "{}", one.told());
    assert!(took < Duration::from_secs(15), "ending took {took:?}");
    drop(held);
    one.start();
    one.settle();
    // What stands by ends when it is asked to.
    two.start();
    wait_until_told(&mut two, "stands by", 2);
    assert_eq!(two.end().0.code(), Some(0), "{}", two.told());
    assert_eq!(one.end().0.code(), Some(0), "{}", one.told());
    assert_eq!(two.json(&["status"]).expect("a status")["controller"], "stopped");
    for state in [&one, &two] {
        assert!(!state.told().contains(&url), "the address with its password was told\n{}", state.told());
    }

    let world = World::at("1d", world.now_ms);
    assert_eq!(one.contents(), undisturbed(&world, &messages));
}

#[test]
fn a_ledger_moves_to_a_server_and_back_with_all_that_it_holds() {
    let Some(url) = database() else { return };
    let world = World::new("10d");
    let messages = Messages::new(world.now_ms);
    let mut state = world.state("moved").knowing("STATE_URL", &url);
    state.produce(&messages.lines);
    state.start();
    state.settle();
    messages.wait_for_all(&mut state);
    // Killed: the copy in the lake lacks the last facts, the file does not.
    state.kill();
    let rows = [SALES, DAILY, EVENTS].map(|address| state.table(address));
    let runs = ["shop/sales", "shop/daily"].map(|it| state.runs_of(it));

    world.set(SQLITE, POSTGRES);
    state.start();
    wait_until_told(&mut state, "the ledger has moved", 1);
    state.settle();
    assert_eq!([SALES, DAILY, EVENTS].map(|address| state.table(address)), rows, "{}", state.told());
    assert_eq!(["shop/sales", "shop/daily"].map(|it| state.runs_of(it)), runs, "{}", state.told());
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    // Without the secret it is said what is missing, and the address is not.
    let lost = world.state("moved").ask(&["status"]);
    lost.says("the secret STATE_URL has no value");

    world.set(SQLITE, SQLITE);
    state.start();
    wait_until_told(&mut state, "the ledger has moved", 2);
    state.settle();
    assert_eq!(["shop/sales", "shop/daily"].map(|it| state.runs_of(it)), runs, "{}", state.told());
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}
