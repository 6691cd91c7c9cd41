//! The layer between `tracing` and the files.

use std::sync::Arc;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::line::{Line, NOTE, stamp};
use super::span::{ATTEMPT, PIPELINE, PRODUCT, RUN};
use super::writer::{SINK, Sink, level};
use crate::clock::Clock;

/// Whose lines are kept: what libraries say may quote anything.
const OURS: &str = "hydromesh";

/// Keeps what is said within the span of a run.
#[derive(Debug)]
pub struct RunLayer {
    to: Arc<Sink>,
    clock: Clock,
}

/// Whose span it is.
#[derive(Debug, Default)]
struct Whose {
    run: String,
    product: String,
    pipeline: String,
    attempt: u64,
    trace: Option<String>,
}

impl Default for RunLayer {
    fn default() -> Self {
        Self { to: Arc::clone(&SINK), clock: Clock::system() }
    }
}

impl RunLayer {
    /// Returns a layer whose lines go to a sink of the test's own.
    #[cfg(test)]
    pub(super) fn into(to: Arc<Sink>) -> Self {
        Self { to, clock: Clock::system() }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RunLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let Some(run) = fields.text(RUN) else { return };
        let whose = Whose {
            run,
            product: fields.text(PRODUCT).unwrap_or_default(),
            pipeline: fields.text(PIPELINE).unwrap_or_default(),
            attempt: fields.0.get(ATTEMPT).and_then(Value::as_u64).unwrap_or_default(),
            trace: None,
        };
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(whose);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let about = event.metadata();
        let (Some(level), true) = (level(*about.level()), about.target().starts_with(OURS)) else { return };
        let Some(scope) = context.event_scope(event) else { return };
        for span in scope {
            let mut kept = span.extensions_mut();
            let Some(whose) = kept.get_mut::<Whose>() else { continue };
            let mut fields = Fields::default();
            event.record(&mut fields);
            // Said once, it stands in all lines of the span from there on.
            if let Some(trace) = fields.text("trace") {
                whose.trace = Some(trace);
            }
            self.to.take(Line {
                at: stamp(self.clock.now_ms()),
                level,
                run: whose.run.clone(),
                product: whose.product.clone(),
                pipeline: whose.pipeline.clone(),
                attempt: whose.attempt,
                event: Some(fields.text("event").unwrap_or_else(|| NOTE.to_owned())),
                message: fields.text("message").unwrap_or_default(),
                trace: whose.trace.clone(),
                fields: fields.0,
            });
            return;
        }
    }
}

/// Fields of a span or an event.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    /// Takes a field out as text.
    fn text(&mut self, name: &str) -> Option<String> {
        match self.0.remove(name)? {
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        }
    }

    fn keep(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.keep(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hydromesh_core::control::Start;
    use hydromesh_core::ledger::{ErrorKind, Fact, Published, RunOutcome};
    use hydromesh_core::plan::{StepKey, Work};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::{Level, RunFiles, begun, ended, left, step};
    use super::*;

    fn start(run: &str) -> Start {
        Start {
            run: run.to_owned(),
            key: StepKey { pipeline: "shop/orders:make".parse().expect("an id"), work: Work::Whole },
            attempt: 2,
            generation: 1,
            decision: "d".to_owned(),
            reason: "newer input".to_owned(),
        }
    }

    #[test]
    fn a_run_is_told_from_start_to_end_and_nobody_elses_words_are_kept() {
        let home = tempfile::tempdir().expect("a folder");
        let (files, sink) = (RunFiles::of(home.path()), Arc::new(Sink::default()));
        sink.keep_in(files.clone()).expect("a thread");
        let subscriber = tracing_subscriber::registry().with(RunLayer::into(Arc::clone(&sink)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!("outside of any run");
            let start = start("run-00000007");
            let span = step(&start);
            begun(&span, &start);
            span.in_scope(|| {
                tracing::info!(event = "staged", partition = "2026-11-01", rows = 3_u64, "staged 3 rows");
                tracing::debug!("a detail");
                tracing::info!("said in passing");
                tracing::error!(target: "datafusion", "row ('Mara', 17) is odd");
                left(&[
                    Fact::Published(Published {
                        port: "shop/orders.orders".parse().expect("an address"),
                        partition: Some("2026-11-01".to_owned()),
                        version: 4,
                        rows: 3,
                        data_time_ms: None,
                        data: String::new(),
                        inputs: std::collections::BTreeMap::new(),
                        run: start.run.clone(),
                        key: String::new(),
                        taken: None,
                    }),
                    Fact::Quarantined {
                        port: "shop/orders.raw".parse().expect("an address"),
                        run: start.run.clone(),
                        rows: 2,
                        reasons: vec!["a.csv:3: column n is no int".to_owned()],
                    },
                ]);
            });
            let failed = RunOutcome::Failed {
                kind: ErrorKind::User,
                code: "HM-X001".to_owned(),
                message: "Cannot cast string 'Mara' to Int64".to_owned(),
            };
            ended(&span, &failed, 1_500, Some("tried again in 10s"));
        });
        sink.settle(Duration::from_mins(1));
        let lines = files.read(&"shop/orders".parse().expect("an id"), "run-00000007");
        let said: Vec<(Level, &str, &str)> = lines
            .iter()
            .map(|it| (it.level, it.event.as_deref().unwrap_or("-"), it.message.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                (Level::Info, "started", "attempt 2 of shop/orders:make@whole: newer input"),
                (Level::Info, "staged", "staged 3 rows"),
                (Level::Info, "note", "said in passing"),
                (Level::Info, "published", "published shop/orders.orders 2026-11-01: 3 rows, version 4"),
                (
                    Level::Warn,
                    "set_aside",
                    "2 rows of shop/orders.raw are set aside: a.csv:3: column n is no int"
                ),
                (
                    Level::Error,
                    "ended",
                    "failed after 1.5s with HM-X001: Cannot cast string … to Int…; tried again in 10s"
                ),
            ]
        );
        assert_eq!(lines[1].fields["rows"], 3);
        assert!(
            lines.iter().all(|it| it.attempt == 2 && it.pipeline == "make" && it.product == "shop/orders")
        );
        assert!(lines[5].is_last() && !lines[4].is_last());
        assert_eq!(lines[5].fields["code"], "HM-X001");
    }
}
