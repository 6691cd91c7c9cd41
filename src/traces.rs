//! Traces for OpenTelemetry, by OTLP over HTTP: off unless the standard variables ask for them.
//!
//! Spans are those of `tracing`; nothing else is handed on, no event and no message, so that what leaves this machine is names,
//! codes and times. Ended spans go into a bounded queue; one thread sends them, and when a collector is slow or away the queue
//! overflows and spans are lost, which delays nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::outage::Outage;

/// How long a process that ends waits for its last spans to be taken.
const LAST: Duration = Duration::from_secs(3);
/// The variables that switch traces on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// The header by which a trace is told to another process, of W3C Trace Context.
const HEADER: &str = "traceparent";

/// What sends traces.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

/// Why no traces can be sent although they are asked for.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The variables say what is not there.
    #[error("{variable}={value} is not supported: {expected}")]
    Unsupported {
        /// Which.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
    /// The threads cannot be started.
    #[error("traces cannot be sent")]
    Threads(#[from] std::io::Error),
    /// The client cannot be made.
    #[error("traces cannot be sent")]
    Client(#[from] reqwest::Error),
    /// The address or a setting cannot be used.
    #[error("traces cannot be sent; see the OTEL_EXPORTER_OTLP_ variables")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Returns what sends traces where the environment of this process asks for them.
///
/// `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` switches them on. The crates read the other standard
/// variables themselves: headers, timeouts, the sampler, the batches, the resource.
///
/// # Errors
/// When they are asked for in a way that is not there.
pub fn from_environment() -> Result<Option<Traces>, TracesError> {
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    if value("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    match value("OTEL_TRACES_EXPORTER").as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => {
            let value = other.to_owned();
            return Err(TracesError::Unsupported {
                variable: "OTEL_TRACES_EXPORTER",
                value,
                expected: "otlp or none",
            });
        }
    }
    if ENDPOINTS.iter().all(|name| value(name).is_none()) {
        return Ok(None);
    }
    for variable in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        match value(variable) {
            Some(value) if value != "http/protobuf" => {
                return Err(TracesError::Unsupported { variable, value, expected: "http/protobuf" });
            }
            _ => {}
        }
    }
    let named = value("OTEL_SERVICE_NAME").is_some()
        || value("OTEL_RESOURCE_ATTRIBUTES")
            .is_some_and(|it| it.split(',').any(|it| it.trim().starts_with("service.name=")));
    Traces::to(None, named).map(Some)
}

impl Traces {
    /// Returns what sends traces to an address, else to that of the environment.
    fn to(endpoint: Option<&str>, named: bool) -> Result<Self, TracesError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("hydromesh/", env!("CARGO_PKG_VERSION")))
            // Headers may hold a key; whoever can answer with a redirect would be handed it.
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let mut exporter = OtlpExporter::builder().with_http().with_http_client(client);
        if let Some(endpoint) = endpoint {
            exporter = exporter.with_endpoint(endpoint);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("hydromesh-traces")
            .enable_all()
            .build()?;
        let sending = Sending {
            exporter: Arc::new(exporter.build()?),
            runtime: Some(runtime),
            outage: Mutex::new(Outage::default()),
        };
        let mut resource = Resource::builder();
        if !named {
            resource = resource.with_service_name("hydromesh");
        }
        let resource = resource
            .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(sending).with_resource(resource).build();
        Ok(Self { provider })
    }

    /// Returns the layer that turns spans of this program into those of a trace.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let tracer = self.provider.tracer("hydromesh");
        let ours = filter_fn(|about| about.is_span() && about.target().starts_with("hydromesh"));
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(ours)
    }

    /// Sends what has ended, for a bounded time, and nothing more.
    pub fn end(self) {
        // What is lost was said when it could not be sent.
        let _ = self.provider.shutdown_with_timeout(LAST);
    }
}

/// Sends spans from the thread that batches them, which has no runtime of its own.
struct Sending {
    exporter: Arc<OtlpExporter>,
    runtime: Option<tokio::runtime::Runtime>,
    outage: Mutex<Outage>,
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sending")
    }
}

impl SpanExporter for Sending {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let Some(runtime) = &self.runtime else { return Err(OTelSdkError::AlreadyShutdown) };
        let exporter = Arc::clone(&self.exporter);
        let spans = batch.len();
        let sent = runtime.spawn(async move { exporter.export(batch).await }).await;
        let sent = sent.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())));
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match &sent {
            Ok(()) => outage.ends(),
            // Whatever the collector says: its words may differ each time, the trouble is one.
            Err(error) => {
                if outage.begins("away") {
                    let why = crate::text::line(&crate::text::chain(error), 300);
                    tracing::warn!(spans, "traces are lost until their collector takes them: {why}");
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&mut self, _timeout: Duration) -> OTelSdkResult {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

/// Returns the id of a span's trace, if it is recorded.
pub(crate) fn id(span: &Span) -> Option<String> {
    let context = span.context();
    let of = context.span().span_context().clone();
    (of.is_valid() && of.is_sampled()).then(|| of.trace_id().to_string())
}

/// Returns a span's place as another process is told of it, if traces are recorded.
pub(crate) fn place(span: &Span) -> Option<String> {
    let mut headers: HashMap<String, String> = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut headers);
    headers.remove(HEADER)
}

/// Makes a span that nobody has entered the child of one in another process.
pub(crate) fn follow(span: &Span, place: Option<&str>) {
    let Some(place) = place else { return };
    let headers = HashMap::from([(HEADER.to_owned(), place.to_owned())]);
    // Where nothing is recorded there is nothing to follow.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&headers));
}

#[cfg(test)]
mod tests;
