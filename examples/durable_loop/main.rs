//! Measures the loop: the real control machine and the real ledger on disk, with steps that do nothing.
//!
//! `durable_loop FIGURE FOLDER` prints one line of JSON; `scripts/bench/loop.py` makes rows of them. The ledger is a new
//! file in FOLDER. Figures:
//!
//! | figure | is |
//! | --- | --- |
//! | `graph` | 1,000 products, each reading two of the layer above: all made once, 64 at a time |
//! | `graph-2` | the same two at a time, as a controller does whose steps do something |
//! | `chain` | 500 products, each reading the one before: from a step's end to its successor's start |
//! | `backfill` | one product, 100,000 hourly partitions, nothing published: planned, and its first 1,000 facts |
//! | `change` | the same, all published, under another definition |
//! | `idle` | 10,000 products, all published: ticks in which nothing is due, and a commit that changes nothing |

mod mesh;
mod turn;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use hydromesh_core::control::{Control, Event, Limits};
use hydromesh_core::ledger::{Entry, Fact, LedgerState, Outcome};
use hydromesh_core::plan::{Desired, StepKey, dependency_order, due_steps};
use serde_json::{Value, json};

use mesh::{NOW_MS, Spec, desired, layers, published};
use turn::Loop;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(figure), Some(folder)) = (args.next(), args.next().map(PathBuf::from)) else {
        eprintln!("usage: durable_loop FIGURE FOLDER");
        return ExitCode::from(2);
    };
    let measured = match figure.as_str() {
        "graph" => graph(&folder, 64),
        "graph-2" => graph(&folder, 2),
        "chain" => chain(&folder),
        "backfill" => backfill(&folder),
        "change" => Ok(change()),
        "idle" => Ok(idle()),
        _ => Err(format!("no such figure: {figure}").into()),
    };
    match measured {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{figure}: {error}");
            ExitCode::from(4)
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, std::io::Error> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// One line for a graph that was made: how long, and from ends to starts.
fn graph(folder: &Path, slots: usize) -> Result<Value, Failure> {
    let specs = layers(1_000, 50);
    made(folder, &specs, slots)
}

fn chain(folder: &Path) -> Result<Value, Failure> {
    made(folder, &layers(500, 1), 64)
}

fn made(folder: &Path, specs: &[Spec], slots: usize) -> Result<Value, Failure> {
    let asked = desired(specs, "first");
    runtime()?.block_on(async {
        let mut turning = Loop::open(folder, Limits { steps: slots }).await?;
        turning.deploy(asked).await?;
        let disk_ms = turning.disk_ms()?;
        let run = turning.run(specs.len()).await?;
        turning.close(specs.len()).await?;
        Ok(json!({
            "steps": specs.len(),
            "slots": slots,
            "seconds": run.seconds,
            "cpu_seconds": run.cpu_seconds,
            "writes": run.writes,
            "gap_ms": run.gaps_ms,
            "disk_ms": disk_ms,
        }))
    })
}

/// 100,000 hours before [`NOW_MS`].
const HOURLY_SINCE: &str = "2015-01-03T08";

fn hourly(query: &str) -> Vec<Spec> {
    let mut spec = Spec::new("p-00000", Vec::new());
    spec.hourly_since = Some(HOURLY_SINCE);
    query.clone_into(&mut spec.query);
    vec![spec]
}

fn backfill(folder: &Path) -> Result<Value, Failure> {
    let asked = desired(&hourly("scan"), "first");
    runtime()?.block_on(async {
        let mut turning = Loop::open(folder, Limits::default()).await?;
        let begun = Instant::now();
        turning.deploy(asked).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let (due, _) = due_steps(&turning.control.ledger, NOW_MS);
        let cpu = cpu_seconds()?;
        let facts = turning.facts(1_000).await?;
        Ok(json!({
            "partitions": due.iter().map(partitions).sum::<i64>(),
            "steps": due.len(),
            "seconds": seconds,
            "peak_mib": peak_mib()?,
            "cpu_ms_per_fact": (cpu_seconds()? - cpu) * 1_000.0 / f64::from(facts),
        }))
    })
}

fn partitions(step: &hydromesh_core::plan::DueStep) -> i64 {
    let count = step.reason.split(' ').next().and_then(|count| count.parse().ok());
    count.unwrap_or(0)
}

/// Plans anew what is published, as after a commit that changes the query.
fn change() -> Value {
    let mut ledger = deployed(&desired(&hourly("scan"), "first"));
    publish_all(&mut ledger);
    let unchanged = timed(|| due_steps(&ledger, NOW_MS).0.len());
    deploy(&mut ledger, &desired(&hourly("scan another way"), "second"));
    let begun = Instant::now();
    let (due, _) = due_steps(&ledger, NOW_MS);
    json!({
        "partitions": due.iter().map(partitions).sum::<i64>(),
        "seconds": begun.elapsed().as_secs_f64(),
        "unchanged_seconds": unchanged,
        "peak_mib": peak_mib().unwrap_or(f64::NAN),
    })
}

fn idle() -> Value {
    const TICKS: u32 = 10_000;
    let specs = layers(10_000, 1_000);
    let asked = desired(&specs, "first");
    let mut ledger = deployed(&asked);
    publish_all(&mut ledger);
    let mut control = Control::new(ledger, "dev", Limits::default());
    let open = timed(|| control.open(NOW_MS, 1, "bench").len());
    let same = |control: &mut Control, at_ms: i64| {
        let desired = Ok(Box::new(asked.clone()));
        let (commit, r#ref) = ("first".to_owned(), "main".to_owned());
        let event = Event::Commit { commit, r#ref, message: String::new(), author: String::new(), desired };
        timed(|| control.step(at_ms, [event]).len())
    };
    let reconcile = same(&mut control, NOW_MS + 1);
    let cpu = cpu_seconds().unwrap_or(f64::NAN);
    let mut effects = 0;
    for tick in 0..TICKS {
        effects += control.step(NOW_MS + 2 + i64::from(tick), [Event::Tick]).len();
    }
    assert_eq!(effects, 0, "nothing is due");
    let tick_ms = (cpu_seconds().unwrap_or(f64::NAN) - cpu) * 1_000.0 / f64::from(TICKS);
    json!({
        "products": specs.len(),
        "tick_ms": tick_ms,
        "open_ms": open * 1_000.0,
        "reconcile_ms": reconcile * 1_000.0,
        "copy_ms": timed(|| control.ledger.clone().seq) * 1_000.0,
        "resident_mib": peak_mib().unwrap_or(f64::NAN),
    })
}

fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let begun = Instant::now();
    std::hint::black_box(work());
    begun.elapsed().as_secs_f64()
}

fn record(ledger: &mut LedgerState, fact: Fact) {
    ledger.apply(&Entry { seq: ledger.seq + 1, at_ms: NOW_MS, fact });
}

/// Returns a ledger in which what a commit asks for is deployed.
fn deployed(asked: &Desired) -> LedgerState {
    let mut ledger = LedgerState::default();
    let (commit, r#ref) = (asked.commit.clone(), "main".to_owned());
    record(&mut ledger, Fact::CommitSeen { commit, r#ref, message: String::new(), author: String::new() });
    deploy(&mut ledger, asked);
    let (commit, why) = (asked.commit.clone(), String::new());
    record(&mut ledger, Fact::CommitOutcome { commit, product: None, outcome: Outcome::Applied, why });
    ledger
}

fn deploy(ledger: &mut LedgerState, asked: &Desired) {
    for id in dependency_order(asked.mesh.products.values()) {
        let fact = Fact::Deployed {
            generation: ledger.generations.get(&id).map_or(1, |before| before + 1),
            commit: asked.commit.clone(),
            decision: String::new(),
            product: Box::new(asked.mesh.products[&id].clone()),
            print: asked.prints[&id].clone(),
        };
        record(ledger, fact);
    }
}

/// Publishes everything that is due, until nothing is.
fn publish_all(ledger: &mut LedgerState) {
    loop {
        let (due, _) = due_steps(ledger, NOW_MS);
        if due.is_empty() {
            return;
        }
        for key in due.into_iter().map(|step| step.key) {
            for fact in published(&start(key), ledger) {
                record(ledger, fact);
            }
        }
    }
}

fn start(key: StepKey) -> hydromesh_core::control::Start {
    let (run, decision, reason) = <(String, String, String)>::default();
    hydromesh_core::control::Start { run, key, attempt: 1, generation: 1, decision, reason }
}

/// Returns the peak of resident memory.
fn peak_mib() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1_024.0)
}

/// Returns the CPU time of this process so far.
fn cpu_seconds() -> Result<f64, Failure> {
    // Nanoseconds on a core, and waiting for one, of each thread.
    let mut ns = 0_u64;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        ns += text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds of a benchmark")]
    Ok(ns as f64 / 1e9)
}
