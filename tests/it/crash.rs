//! Controllers that are killed, refused and doubled: nothing is lost, nothing is there twice, the others go on.

mod after;
mod alone;
mod backup;
mod disk;
mod emptied;
mod hooks;
mod judges;
mod mesh;
mod points;
mod postgres;
mod power;
mod previews;
mod programs;
mod promoted;
mod rebuilt;
mod roles;
mod seen;
mod signed;
mod slow;
mod tampered;
mod tidy;
mod torn;
mod trainers;
mod trickle;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use self::mesh::{DAYS, SALES_A_DAY};
use self::world::{State, World};
use crate::support::hydromesh;

const SALES: &str = "shop/sales.sales";
const DAILY: &str = "shop/daily.daily";
const EVENTS: &str = "shop/events.events";
const DEAD: &str = "shop/events.events__dead_letters";
const QUARANTINE: &str = "shop/events.events__quarantine";

/// Messages of the stream, and what must become of them.
struct Messages {
    lines: Vec<String>,
    kept: u64,
    dead: u64,
    late: u64,
}

impl Messages {
    /// Events in order; among them some that are no events, some sent twice and some days late.
    fn new(now_ms: i64) -> Self {
        let mut messages = Self { lines: Vec::new(), kept: 0, dead: 0, late: 0 };
        let event = |id: String, at_ms: i64, number: i64| {
            let page = ["home", "cart", "help"][usize::from(number % 2 == 0) + usize::from(number % 3 == 0)];
            let ts = chrono::DateTime::from_timestamp_millis(at_ms).expect("a time").to_rfc3339();
            json!({"event_id": id, "ts": ts, "page": page, "number": number}).to_string()
        };
        for number in 0..600_i64 {
            let at_ms = now_ms - 60_000 + number * 50;
            messages.lines.push(event(format!("E{number}"), at_ms, number));
            messages.kept += 1;
            if number % 50 == 49 {
                messages.lines.push(format!("{{\"event_id\": \"E{number}\", \"ts\""));
                messages.dead += 1;
            }
            // Sent again at once, and sent again when several controllers have come and gone.
            for back in [1, 300] {
                if number % 40 == 39 && number >= back {
                    messages.lines.push(event(
                        format!("E{}", number - back),
                        at_ms - back * 50,
                        number - back,
                    ));
                }
            }
            if number % 60 == 59 {
                messages.lines.push(event(format!("L{number}"), now_ms - 2 * 86_400_000, number));
                messages.late += 1;
            }
        }
        messages
    }

    /// Returns a fifth of the messages.
    fn part(&self, index: usize) -> &[String] {
        let size = self.lines.len().div_ceil(5);
        self.lines.chunks(size).nth(index).expect("five parts")
    }

    /// Waits until all have become what they must.
    #[track_caller]
    fn wait_for_all(&self, state: &mut State<'_>) {
        state.wait("the whole stream", |state| self.all_in(state));
    }

    /// Returns whether all have become what they must, else what they are.
    fn all_in(&self, state: &State<'_>) -> Result<(), String> {
        let found = [EVENTS, DEAD, QUARANTINE].map(|address| state.table(address).1);
        let wanted = [self.kept, self.dead, self.late];
        if found == wanted { Ok(()) } else { Err(format!("{found:?} instead of {wanted:?} rows")) }
    }
}

/// Numbers below a bound, others in every run; what they were is told when a test fails.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let seed = now.as_secs() ^ (u64::from(now.subsec_nanos()) << 20) | 1;
        println!("the dice began at {seed}");
        Self(seed)
    }

    /// The next of Marsaglia's xorshift64 (<https://doi.org/10.18637/jss.v008.i14>).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Waits for a random moment: not for something, but to interrupt anywhere.
    fn linger(&mut self, below_ms: u64) {
        let ms = self.below(below_ms);
        println!("interrupted {ms} ms later");
        std::thread::sleep(Duration::from_millis(ms));
    }
}

/// Compiles a library that stands between a process and the operating system; nothing where no C compiler is, which is said.
fn preload(name: &str) -> Option<(PathBuf, tempfile::TempDir)> {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join(format!("lib{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/crash/{name}.c"));
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(source).args(["-ldl", "-lpthread"]);
    match compiler.status() {
        Ok(status) if status.success() => Some((path, home)),
        // Where it could be compiled, a mistake in it is no reason to try nothing.
        Ok(status) if cfg!(target_env = "gnu") => panic!("{name}.c was not compiled: {status}"),
        other => {
            println!("skipped: a disk that refuses needs a C compiler and glibc: {other:?}");
            None
        }
    }
}

/// Runs a controller that nobody disturbs, on a stream that is there from the first moment.
fn undisturbed(world: &World, messages: &Messages) -> BTreeMap<String, String> {
    let mut calm = world.state("calm");
    calm.produce(&messages.lines);
    calm.start();
    calm.settle();
    messages.wait_for_all(&mut calm);
    let (status, _) = calm.end();
    assert_eq!(status.code(), Some(0), "{}", calm.told());
    calm.contents()
}

/// Returns a world whose disks will fail, its messages, and what an undisturbed controller makes of both, which is found out
/// once: worlds of one time are alike, and how tables are cut into chunks is not in their rows.
fn like_others(format: &str, chunk: &str) -> (World, Messages, BTreeMap<String, String>) {
    type Calm = Mutex<Option<(i64, BTreeMap<String, BTreeMap<String, String>>)>>;
    static CALM: Calm = Mutex::new(None);
    let mut calm = CALM.lock().unwrap_or_else(PoisonError::into_inner);
    let (now_ms, known) = calm.get_or_insert_with(|| (World::new(chunk).now_ms, BTreeMap::new()));
    let world = World::at(chunk, *now_ms).with_format(format);
    let messages = Messages::new(*now_ms);
    let contents = known.entry(format.to_owned()).or_insert_with(|| undisturbed(&world, &messages)).clone();
    (world, messages, contents)
}

#[test]
fn killed_anywhere_it_ends_with_the_same_rows() {
    let world = World::new("1d");
    let messages = Messages::new(world.now_ms);
    let mut dice = Dice::new();
    let mut state = world.state("killed");
    state.produce(messages.part(0));

    // Anywhere from the first instruction on.
    state.start();
    dice.linger(1_500);
    state.kill();
    // In the middle of the backfill: between two commits, or within one.
    for round in 0..4 {
        state.start();
        let before = state.table(SALES).0 + state.table(DAILY).0;
        let more = 4 + i64::try_from(dice.below(5)).expect("small");
        state.wait("a step of the backfill", |state| {
            let now = state.table(SALES).0 + state.table(DAILY).0;
            let over = state.table(DAILY).1 == DAYS * 3;
            if now >= before + more || over { Ok(()) } else { Err(format!("{now} commits after {before}")) }
        });
        dice.linger(150);
        println!("backfill, round {round}: {:?} {:?}", state.table(SALES), state.table(DAILY));
        state.kill();
    }
    // In the middle of the stream; once it is asked to end instead.
    for part in 1..4 {
        let before = state.table(EVENTS).0;
        let (first, second) = messages.part(part).split_at(40);
        state.produce(first);
        state.start();
        state.wait("an epoch of the stream", |state| {
            let now = state.table(EVENTS).0;
            if now > before { Ok(()) } else { Err(format!("version {now}")) }
        });
        state.produce(second);
        if part == 2 {
            let (status, took) = state.end();
            assert_eq!(status.code(), Some(0), "{}", state.told());
            assert!(took < Duration::from_secs(10), "ending took {took:?}");
        } else {
            // While it reads, judges and archives what has just come.
            dice.linger(1_200);
            state.kill();
        }
    }
    state.start();
    state.produce(messages.part(4));
    state.settle();
    messages.wait_for_all(&mut state);
    assert_eq!(state.table(SALES).1, DAYS * SALES_A_DAY);
    assert_eq!(state.table(DAILY).1, DAYS * 3);
    let list = state.json(&["list"]).expect("a list");
    for product in list["products"].as_array().expect("products") {
        assert_eq!(product["status"], "ok", "{product:#}");
    }
    let (status, took) = state.end();
    assert_eq!(status.code(), Some(0), "{}", state.told());
    assert!(took < Duration::from_secs(10), "ending took {took:?}");

    let calm = undisturbed(&world, &messages);
    assert_eq!(calm.keys().collect::<Vec<_>>(), [DAILY, EVENTS, DEAD, QUARANTINE, SALES]);
    assert_eq!(state.contents(), calm);
}

/// Returns what the list of products says of one.
fn of(list: &Value, product: &str) -> Value {
    let found = list["products"].as_array().expect("products").iter().find(|it| it["product"] == product);
    found.cloned().unwrap_or_default()
}

/// Waits until a query over published tables returns a number.
#[track_caller]
fn wait_for_sum(state: &mut State<'_>, sql: &str, wanted: f64) {
    state.wait(sql, |state| {
        let rows = state.json(&["query", sql])?;
        // Sums of quarters are exact.
        if rows[0]["sum"].as_f64() == Some(wanted) { Ok(()) } else { Err(rows.to_string()) }
    });
}

#[test]
fn a_denied_and_a_broken_commit_hold_up_nobody_else() {
    let world = World::new("10d");
    let messages = Messages::new(world.now_ms);
    let mut state = world.state("refused");
    state.start();
    state.settle();
    let taken = |port: &str, column: &str| format!("SELECT SUM({column}) AS sum FROM \"{port}\"");
    let (of_sales, of_days) = (taken(SALES, "price"), taken(DAILY, "takings"));
    let rows = state.json(&["query", &of_sales]).expect("rows");
    let before = rows[0]["sum"].as_f64().expect("a sum");
    assert!(before > 0.0);

    let denied = world.commit("Add what is not allowed", &mesh::reader("secret"));
    state.wait("a denial", |state| {
        let status = state.json(&["status"])?;
        let commit = &status["commit"];
        let right = commit["commit"] == json!(denied) && commit["outcome"] == "denied";
        if right { Ok(()) } else { Err(status.to_string()) }
    });
    state.ask(&["why-not", "shop/secret"]).ends_with(0).says("nothing secret here");

    let broken =
        "apiVersion: hydromesh/v1\nkind: BatchPipeline\nname: add-up\noutput: daily\npartition: {by: sold";
    let path = "domains/shop/daily/pipeline.yaml".to_owned();
    world.commit("Break off", &BTreeMap::from([(path.clone(), Some(broken.into()))]));
    state.wait("a broken product", |state| {
        let daily = of(&state.json(&["list"])?, "shop/daily");
        if daily["status"] == "broken" { Ok(()) } else { Err(daily.to_string()) }
    });

    // A later commit of another product is applied all the same, through a crash right after it was made.
    let doubled = mesh::SALES_SQL.replace("price FROM", "price * 2 AS price FROM");
    let sql = "domains/shop/sales/sales.sql".to_owned();
    world.commit("Double the prices", &BTreeMap::from([(sql, Some(doubled.into()))]));
    state.kill();
    state.produce(messages.part(0));
    state.start();
    wait_for_sum(&mut state, &of_sales, 2.0 * before);
    // What is deployed of the broken product goes on: it reads the new prices with its last good query.
    wait_for_sum(&mut state, &of_days, 2.0 * before);
    state.wait("the stream", |state| {
        let rows = state.table(EVENTS).1;
        if rows > 0 { Ok(()) } else { Err("no rows yet".to_owned()) }
    });
    let list = state.json(&["list"]).expect("a list");
    assert_eq!(of(&list, "shop/daily")["status"], "broken");
    assert_eq!(of(&list, "shop/daily")["deployed"], true);
    // What a commit could not bring in says nothing of how well the last good one does.
    assert_eq!([&of(&list, "shop/daily")["sync"], &of(&list, "shop/daily")["health"]], ["broken", "ok"]);
    assert_ne!(of(&list, "shop/daily")["sync_reason"], "");
    assert_eq!(of(&list, "shop/secret")["status"], "denied");
    assert_eq!(of(&list, "shop/secret")["deployed"], false);
    assert_eq!(of(&list, "shop/sales")["status"], "ok");
    let plan = state.plan().expect("a plan");
    let changes: Vec<&Value> =
        plan["changes"].as_array().expect("changes").iter().map(|it| &it["product"]).collect();
    assert_eq!((changes, &plan["broken"]), (vec![&json!("shop/secret")], &json!(["shop/daily"])));

    // Repaired, nothing is left to do.
    let mut repair: mesh::Files = mesh::reader("secret").into_keys().map(|path| (path, None)).collect();
    repair.insert(path.clone(), mesh::files(mesh::today(), "10d")[&path].clone());
    world.commit("Repair", &repair);
    state.settle();
    let list = state.json(&["list"]).expect("a list");
    assert_eq!(of(&list, "shop/daily")["status"], "ok");
    assert_eq!(of(&list, "shop/secret"), Value::Null);
    wait_for_sum(&mut state, &of_days, 2.0 * before);
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}

#[test]
fn a_second_controller_on_one_state_folder_is_refused() {
    let world = World::new("10d");
    let mut state = world.state("doubled");
    state.start();
    state.settle();
    let before = state.contents();
    // Without the role serve it is not refused for the address alone.
    let second = hydromesh().args(state.up()).args(["--role", "control,work"]).output().expect("starts");
    let told = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(4), "{told}");
    assert!(told.contains("holds the lease"), "{told}");
    // The first does not even notice.
    state.produce(Messages::new(world.now_ms).part(0));
    state.wait("the stream", |state| {
        let rows = state.table(EVENTS).1;
        if rows > 0 { Ok(()) } else { Err("no rows yet".to_owned()) }
    });
    state.settle();
    let after = state.contents();
    assert_eq!((&before[SALES], &before[DAILY]), (&after[SALES], &after[DAILY]));
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    // The lease was given back, so that the next starts at once.
    let began = std::time::Instant::now();
    state.start();
    state.wait("the next controller", |state| {
        let status = state.json(&["status"])?;
        if status["controller"] == "running" { Ok(()) } else { Err(status.to_string()) }
    });
    assert!(began.elapsed() < Duration::from_secs(15), "it waited for the lease to run out");
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}
