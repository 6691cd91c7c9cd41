//! Spans against a collector of the test's own, which reads what it is sent with the official types.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use hydromesh_core::control::Start;
use hydromesh_core::ledger::{ErrorKind, RunOutcome};
use hydromesh_core::plan::{StepKey, Work};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use prost::Message as _;
use tracing::info_span;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::runlog;

/// What a collector does with what it is sent.
#[derive(Clone)]
struct Collector {
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    asked: Arc<AtomicUsize>,
    answers: StatusCode,
    after: Duration,
}

impl Collector {
    /// Starts a collector; returns it with its address, and the runtime that it lives on.
    fn start(answers: StatusCode, after: Duration) -> (Self, String, tokio::runtime::Runtime) {
        let collector = Self { requests: Arc::default(), asked: Arc::default(), answers, after };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        (collector, address, runtime)
    }

    fn spans(&self) -> Vec<Sent> {
        let requests = self.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|it| &it.scope_spans).flat_map(|it| it.spans.clone()).collect()
    }
}

async fn take(State(collector): State<Collector>, body: Bytes) -> StatusCode {
    collector.asked.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(collector.after).await;
    collector.requests.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
    collector.answers
}

fn start(run: &str) -> Start {
    Start {
        run: run.to_owned(),
        key: StepKey {
            pipeline: "shop/orders:make".parse().unwrap(),
            work: Work::Partitions { from: "Berlin".to_owned(), to: "Berlin".to_owned() },
        },
        attempt: 3,
        generation: 1,
        decision: "d".to_owned(),
        reason: "asked for by Mara".to_owned(),
    }
}

fn attributes(span: &Sent) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = span.attributes.iter();
    pairs.map(|it| (it.key.clone(), text(it.value.clone().and_then(|it| it.value)))).collect()
}

#[test]
fn a_run_is_one_trace_across_processes_and_says_how_it_ended() {
    let (collector, address, _runtime) = Collector::start(StatusCode::OK, Duration::ZERO);
    // Two processes: control, and a worker that is told of its place in the trace by text alone.
    let control = Traces::to(Some(&address), false).unwrap();
    let worker = Traces::to(Some(&address), false).unwrap();
    let failed = RunOutcome::Failed {
        kind: ErrorKind::User,
        code: "HM-X001".to_owned(),
        message: "Cannot cast string 'Mara'".to_owned(),
    };
    let in_control = tracing_subscriber::registry().with(control.layer());
    let (step, place, trace) = tracing::subscriber::with_default(in_control, || {
        let step = runlog::step(&start("run-00000007"));
        runlog::begun(&step, &start("run-00000007"));
        let (place, trace) = (place(&step), id(&step));
        (step, place, trace.unwrap())
    });
    assert!(place.as_deref().unwrap().contains(&trace));
    let in_worker = tracing_subscriber::registry().with(worker.layer());
    tracing::subscriber::with_default(in_worker, || {
        let attempt = runlog::attempt(&start("run-00000007"));
        follow(&attempt, place.as_deref());
        assert_eq!(id(&attempt).as_ref(), Some(&trace));
        attempt.in_scope(|| {
            info_span!("compute").in_scope(|| tracing::info!("row ('Mara', 17)"));
            drop(info_span!("audit"));
            tracing::error!(target: "hydromesh::apply", error = "Mara", "odd");
        });
        runlog::note(&attempt, &failed);
    });
    runlog::ended(&step, &failed, 10, None);
    drop(step);
    worker.end();
    control.end();

    let spans = collector.spans();
    let named = |name: &str| {
        spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}"))
    };
    let mut names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["attempt", "audit", "compute", "step"]);
    let (step, attempt) = (named("step"), named("attempt"));
    assert!(spans.iter().all(|span| hex::encode(&span.trace_id) == trace));
    assert_eq!((step.parent_span_id.len(), &attempt.parent_span_id), (0, &step.span_id));
    assert!(["compute", "audit"].iter().all(|name| named(name).parent_span_id == attempt.span_id));
    for span in [step, attempt] {
        let said = attributes(span);
        let says = |key: &str| said.get(key).map(String::as_str);
        assert_eq!(says("cicd.pipeline.name"), Some("shop/orders"), "{said:?}");
        assert_eq!(says("cicd.pipeline.task.name"), Some("make"));
        assert_eq!(says("cicd.pipeline.run.id"), Some("run-00000007"));
        assert_eq!(says("cicd.pipeline.result"), Some("failure"));
        assert_eq!(says("error.type"), Some("HM-X001"));
        assert_eq!((says("hydromesh.attempt"), says("hydromesh.work")), (Some("3"), Some("partitions")));
        assert_eq!(span.status.as_ref().map(|status| status.code), Some(2), "an error");
    }
    // Neither rows, nor keys of partitions, nor what people wrote.
    let all = format!("{:?}", collector.requests.lock().unwrap());
    assert!(!all.contains("Mara") && !all.contains("Berlin"), "{all}");
    assert!(all.contains("service.name") && all.contains("\"hydromesh\""), "{all}");
}

#[test]
fn a_collector_that_hangs_or_refuses_delays_nobody() {
    for (answers, after) in
        [(StatusCode::OK, Duration::from_mins(1)), (StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO)]
    {
        let (collector, address, runtime) = Collector::start(answers, after);
        let traces = Traces::to(Some(&address), false).unwrap();
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        let began = Instant::now();
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..20_000 {
                let step = runlog::step(&start(&format!("run-{n:08}")));
                runlog::note(&step, &RunOutcome::Succeeded { rows: 1 });
            }
        });
        assert!(began.elapsed() < Duration::from_secs(40), "{:?} with {answers}", began.elapsed());
        let began = Instant::now();
        traces.end();
        assert!(began.elapsed() < Duration::from_secs(20), "the end is bounded: {:?}", began.elapsed());
        assert!(collector.asked.load(Ordering::SeqCst) > 0, "somebody was asked");
        runtime.shutdown_background();
    }
}

#[test]
fn nothing_is_recorded_unless_it_is_asked_for() {
    tracing::subscriber::with_default(tracing_subscriber::registry(), || {
        let step = runlog::step(&start("run-00000001"));
        assert_eq!((id(&step), place(&step)), (None, None));
        follow(&step, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert_eq!(id(&step), None);
    });
}
