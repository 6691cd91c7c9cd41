//! What others see of a mesh at work: lines of runs, traces, and what it costs.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Said;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;

use super::Messages;
use super::world::{PATIENCE, State, World};
use crate::support::{hydromesh, text};

/// A collector, on a runtime of its own.
struct Collector {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    address: String,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let spans = Arc::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&spans));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { spans, address, _runtime: runtime }
    }

    /// Returns the spans of this name, each with the service that sent it.
    fn named(&self, name: &str) -> Vec<(String, Span)> {
        self.spans.lock().expect("a lock").iter().filter(|(_, span)| span.name == name).cloned().collect()
    }
}

/// Spans as they came, each with the service that sent it.
type Spans = Arc<Mutex<Vec<(String, Span)>>>;

async fn take(Shared(spans): Shared<Spans>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("a request");
    for resource in request.resource_spans {
        let about = resource.resource.map(|it| format!("{:?}", it.attributes)).unwrap_or_default();
        let all = resource.scope_spans.into_iter().flat_map(|it| it.spans);
        spans.lock().expect("a lock").extend(all.map(|span| (about.clone(), span)));
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|it| it.key == key)?;
    match found.value.clone()?.value? {
        Said::StringValue(text) => Some(text),
        other => Some(format!("{other:?}")),
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Starts a follower of lines whose words go to a file.
fn follow(state: &State<'_>, what: &str, to: &std::path::Path) -> Child {
    let out = std::fs::File::create(to).expect("a file");
    let mut command = hydromesh();
    command.args(["logs", what, "-f", "--format", "json", "--state", text(state.folder())]);
    command.stdout(out).stderr(Stdio::null()).spawn().expect("starts")
}

#[test]
fn a_mesh_at_work_is_seen_from_outside() {
    let world = World::new("5d").with_setting(
        "stream: {kind: topic_folder}",
        "stream: {kind: topic_folder}\n    cost: {per_hour: 3600, currency: EUR}",
    );
    let collector = Collector::start();
    let mut state = world
        .state("seen")
        .knowing("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.address)
        .knowing("OTEL_SERVICE_NAME", "the-mesh")
        .knowing("OTEL_BSP_SCHEDULE_DELAY", "200");
    state.produce(Messages::new(world.now_ms).part(0));
    state.start_as("control,stream,serve");
    state.start_beside("work");
    state.wait("a ledger", |state| state.json(&["status"]).map(drop));
    state.wait("a first run", |state| {
        let runs = state.json(&["runs", "shop/daily"])?;
        if runs["runs"].as_array().is_some_and(|it| !it.is_empty()) { Ok(()) } else { Err(runs.to_string()) }
    });
    let words = world.folder("words");
    let mut all = follow(&state, "shop/daily", &words.join("all"));
    state.settle();

    // Every line of every run, by control and by the worker, in order.
    let kept = lines(&state.ask(&["logs", "daily", "--runs", "100", "--format", "json"]).ends_with(0).stdout);
    let mut runs: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for line in &kept {
        runs.entry(line["run"].as_str().expect("a run")).or_default().push(line);
    }
    assert!(runs.len() >= 4, "{:?}", runs.keys());
    for (run, lines) in &runs {
        let events: Vec<&str> = lines.iter().filter_map(|it| it["event"].as_str()).collect();
        assert_eq!((events.first(), events.last()), (Some(&"started"), Some(&"ended")), "{run}: {lines:#?}");
        for wanted in ["reads", "staged", "audited", "published"] {
            assert!(events.contains(&wanted), "{run} lacks {wanted}: {events:?}");
        }
        let reads = lines.iter().find(|it| it["event"] == "reads").expect("read");
        assert!(reads["message"].as_str().expect("text").contains("shop/sales.sales at version "), "{reads}");
        assert_ne!(reads["fields"]["process"], state.process(), "the worker says it itself");
    }
    let (run, _) = runs.last_key_value().expect("a run");
    let number = run.trim_start_matches("run-").trim_start_matches('0');
    // For people: times, levels, no colours where nobody sees them.
    let spoken = state.ask(&["logs", number]).ends_with(0).stdout;
    assert!(spoken.contains(" info  attempt 1 of shop/daily:") && !spoken.contains('\u{1b}'), "{spoken}");
    // A run that is over ends what follows it.
    state.ask(&["logs", run, "-f"]).ends_with(0).says("succeeded after ");
    state.ask(&["logs", "shop/dayly"]).ends_with(2).says("did you mean `shop/daily`?");
    state.ask(&["logs", "run-99999999"]).ends_with(2).says("there is no run `run-99999999`");
    state.ask(&["logs", "daily", "--since", "soon"]).ends_with(2).says("--since");
    // Neither ids nor names of what was sold.
    let logs = state.folder().join("logs");
    let mut texts = String::new();
    for product in ["sales", "daily", "events"] {
        for file in std::fs::read_dir(logs.join("shop").join(product)).expect("a folder") {
            texts += &std::fs::read_to_string(file.expect("an entry").path()).expect("text");
        }
    }
    assert!(
        !texts.contains("S00-") && !texts.contains("\"CH\"") && texts.contains("shop/sales"),
        "a row was told"
    );

    // What a backfill takes is said before it is asked for, and against what it took afterwards.
    let last =
        kept.iter().rev().find_map(|it| it["fields"]["partition"].as_str()).expect("a partition").to_owned();
    let range = ["backfill", "daily", "--from", &last, "--to", &last];
    let mut dry = range.to_vec();
    dry.push("--dry-run");
    let before = state.runs_of("daily");
    let expected = state.json(&dry).expect("known");
    assert_eq!((&expected["partitions"], &expected["chunks"]), (&1.into(), &1.into()), "{expected}");
    let ms = expected["expected"]["work_ms"].as_u64().expect("known");
    assert!(
        ms > 0 && expected["expected"]["rows"] == 3 && expected["expected"]["bytes"].as_u64() > Some(0),
        "{expected}"
    );
    // A euro a second.
    assert_eq!(expected["expected"]["cost"], serde_json::json!({"currency": "EUR", "micro": ms * 1_000}));
    assert_eq!(state.runs_of("daily"), before, "nothing was asked for");
    let mut asks = range.to_vec();
    asks.extend(["--reason", "a test", "--wait"]);
    state.ask(&asks).ends_with(0);
    state.wait("the backfill", |state| {
        let show = state.json(&["show", "daily"])?;
        let it = &show["backfills"][0];
        if it["actual"]["partitions"] == 1 { Ok(()) } else { Err(show["backfills"].to_string()) }
    });
    let shown = state.json(&["show", "daily"]).expect("known");
    let backfill = &shown["backfills"][0];
    assert!(
        backfill["actual"]["work_ms"].as_u64() > Some(0)
            && backfill["expected"]["work_ms"].as_u64() > Some(0),
        "{backfill}"
    );
    state.ask(&["show", "daily"]).ends_with(0).says("1 of 1 partition; ");

    // Whoever follows the product has seen the new run too, without asking again.
    let listed = state.json(&["runs", "daily", "--limit", "1"]).expect("runs");
    let newest = listed["runs"][0].clone();
    assert!(newest["expected"]["work_ms"].as_u64() > Some(0), "{newest}");
    let newest_run = newest["run"].as_str().expect("a run").to_owned();
    let began = Instant::now();
    loop {
        let followed = std::fs::read_to_string(words.join("all")).expect("text");
        let whole = &followed[..followed.rfind('\n').map_or(0, |at| at + 1)];
        let seen = lines(whole);
        if seen.iter().any(|it| it["run"] == newest_run.as_str() && it["event"] == "ended") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{newest_run} never came: {followed}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(all.try_wait().expect("asked").is_none(), "a product's followers go on");
    all.kill().expect("killed");
    all.wait().expect("gone");

    // The run's trace: control's span around the worker's, in two processes.
    let trace = newest["trace"].as_str().expect("a trace").to_owned();
    state.wait("the run's spans", |_| {
        let of = |name: &str| {
            collector.named(name).into_iter().filter(|(_, it)| hex::encode(&it.trace_id) == trace).count()
        };
        let found = ["step", "attempt", "compute", "stage", "audit", "publish"].map(of);
        if found.iter().all(|it| *it > 0) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let one = |name: &str| {
        let of = collector.named(name).into_iter().find(|(_, it)| hex::encode(&it.trace_id) == trace);
        of.unwrap_or_else(|| panic!("no span {name}"))
    };
    let ((service, step), (_, attempt)) = (one("step"), one("attempt"));
    assert!(service.contains("the-mesh"), "{service}");
    assert_eq!(attempt.parent_span_id, step.span_id);
    assert!(
        ["compute", "stage", "audit", "publish"]
            .iter()
            .all(|name| one(name).1.parent_span_id == attempt.span_id)
    );
    for span in [&step, &attempt] {
        assert_eq!(attribute(span, "cicd.pipeline.run.id").as_deref(), Some(newest_run.as_str()));
        assert_eq!(attribute(span, "cicd.pipeline.result").as_deref(), Some("success"));
    }
    // The commit's: what became of it from being seen to being deployed.
    let commits = collector.named("reconcile");
    let head = world.head();
    let (_, reconcile) = commits
        .iter()
        .find(|(_, it)| attribute(it, "vcs.ref.head.revision").as_deref() == Some(head.as_str()))
        .unwrap_or_else(|| panic!("{commits:#?}"));
    assert_eq!(attribute(reconcile, "hydromesh.outcome").as_deref(), Some("applied"));
    for name in ["read", "plan", "judge", "deploy"] {
        let of = collector.named(name);
        assert!(of.iter().any(|(_, it)| it.parent_span_id == reconcile.span_id), "{name}: {of:#?}");
    }
    let spans = format!("{:?}", collector.spans.lock().expect("a lock"));
    assert!(!spans.contains(&last) && !spans.contains("a test"), "no keys of partitions, no words of people");
}

#[test]
fn whoever_follows_a_run_is_told_its_end() {
    let world = World::new("20d");
    let mut state = world.state("followed");
    state.produce(Messages::new(world.now_ms).part(0));
    state.start_as("control,stream,serve");
    state.start_beside("work");
    state.settle();
    let runs = lines(&state.ask(&["logs", "--format", "json", "--runs", "100"]).ends_with(0).stdout);
    assert!(
        runs.iter().any(|it| it["product"] == "shop/sales")
            && runs.iter().any(|it| it["product"] == "shop/daily")
    );
    // The stream's run goes on until it is stopped; its lines say what it commits, and then that it was stopped.
    let follows =
        runs.iter().rev().find(|it| it["product"] == "shop/events").expect("it follows")["run"].clone();
    let follows = follows.as_str().expect("a run");
    let words = world.folder("words");
    let mut follower = follow(&state, follows, &words.join("one"));
    state.ask(&["pause", "events", "--reason", "a test"]).ends_with(0);
    let began = Instant::now();
    let code = loop {
        if let Some(ended) = follower.try_wait().expect("asked") {
            break ended.code();
        }
        assert!(began.elapsed() < PATIENCE, "it follows for ever");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(code, Some(0));
    let seen = lines(&std::fs::read_to_string(words.join("one")).expect("text"));
    let last = seen.last().expect("a line");
    assert_eq!(
        (&last["event"], &last["fields"]["result"]),
        (&"ended".into(), &"cancelled".into()),
        "{seen:#?}"
    );
}
