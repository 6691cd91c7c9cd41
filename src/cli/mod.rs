//! The command line: one file per verb.

mod alerts;
mod apply;
mod ask;
mod backup;
mod book;
mod check;
mod command_worker;
mod cost;
mod demo;
mod diff;
mod doctor;
mod explain;
mod gate;
mod gate_worker;
mod health;
mod lineage;
mod list;
mod logs;
mod models;
mod new;
mod once;
mod output;
mod plan;
mod policy;
mod produce;
mod quality;
mod query;
mod reach;
mod restore;
mod runs;
mod servers;
mod show;
mod slo;
mod status;
mod up;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::clock::Clock;
use crate::disk::{self, Refusal};
use crate::runlog::RunLayer;
use crate::traces::Traces;

/// Done.
pub const DONE: u8 = 0;
/// Findings in the mesh, or changes pending with `plan --exit-code`.
pub const FINDINGS: u8 = 1;
/// Wrong use of the command line.
pub const USAGE: u8 = 2;
/// Denied by policy.
pub const DENIED: u8 = 3;
/// An outside system failed.
pub const OUTSIDE: u8 = 4;
/// A bug of ours.
pub const BUG: u8 = 5;

/// A GitOps orchestrator for a hydrated data mesh.
///
/// Hydromesh watches a git repository of domain folders, plans batch backfills, streaming features, embeddings and
/// model training as one graph, asks Open Policy Agent policies before every deploy, runs what was allowed, and
/// publishes a static status site.
#[derive(Debug, Parser)]
#[command(name = "hydromesh", version, max_term_width = 110)]
struct Cli {
    /// Log more: once for information, twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check a mesh: files, contracts, queries, policies.
    Check(check::CheckArgs),
    /// Show what a commit would change, and what would be computed.
    Plan(plan::PlanArgs),
    /// Show what a pull request means: product changes, contract breaks, the version they ask for.
    Diff(diff::DiffArgs),
    /// Begin a domain or a product with files that check.
    #[command(subcommand)]
    New(new::NewVerb),
    /// Run the controller for a repository and an environment.
    Up(up::UpArgs),
    /// Build a preview of a branch: what it changes, over what an environment has.
    Apply(apply::ApplyArgs),
    /// Play the whole story on the example mesh: nothing else needs to be installed.
    Demo(demo::DemoArgs),
    /// Say in one screen how the mesh is: commit, products, runs, alerts.
    Status(status::StatusArgs),
    /// List data products with kind, sync, health, data through, freshness and last run.
    List(list::ListArgs),
    /// Show one product: owners, ports, contract, data, quality, last runs.
    Show(show::ShowArgs),
    /// Show the last audits of a product: every rule, what was measured and wanted, what is usual.
    Quality(quality::QualityArgs),
    /// List runs, newest first.
    Runs(runs::RunsArgs),
    /// Print what runs said, live or afterwards.
    Logs(logs::LogsArgs),
    /// Say how a product came to be as it is: commit, decision, inputs, data.
    Why(why::WhyArgs),
    /// Say what keeps a product from being deployed, computed or fresh, and what to do.
    WhyNot(why::WhyArgs),
    /// Query published data with SQL; it can only read.
    Query(query::QueryArgs),
    /// Show what reads what: products as a tree, or one column through every query.
    Lineage(lineage::LineageArgs),
    /// Policies: run their tests, ask them, explain a decision.
    #[command(subcommand)]
    Policy(policy::PolicyVerb),
    /// Service level objectives.
    #[command(subcommand)]
    Slo(slo::SloVerb),
    /// Alerts: list, explain, silence.
    #[command(subcommand)]
    Alerts(alerts::AlertsVerb),
    /// List trained models with their metrics, and which one is champion.
    Models(models::ModelsArgs),
    /// Compute a product again now, whole: by the controller, or here while none runs.
    Run(ask::ActArgs),
    /// Try a product's failed steps again: by the controller, or here while none runs.
    Retry(ask::ActArgs),
    /// Compute some partitions of a product again: by the controller, or here while none runs.
    Backfill(ask::BackfillArgs),
    /// Ask the controller to stop a run, and not to begin it again until `retry`.
    Cancel(ask::CancelArgs),
    /// Ask the controller to begin nothing of a product until it is resumed.
    Pause(ask::PauseArgs),
    /// Ask the controller to let a paused product go on.
    Resume(ask::ProductArgs),
    /// Write messages to a topic, one per line.
    Produce(produce::ProduceArgs),
    /// Copy the state folder to another one, also while a controller works on it.
    Backup(backup::BackupArgs),
    /// Put a backup back into an empty state folder.
    Restore(restore::RestoreArgs),
    /// Find what is misconfigured, and say how to mend it.
    Doctor(doctor::DoctorArgs),
    /// Explain a code such as HM-M005.
    Explain(explain::ExplainArgs),
    /// Judge by policies that are read from standard input: begun by the other verbs, for themselves.
    #[command(hide = true)]
    GateWorker(gate_worker::GateWorkerArgs),
    /// Begin a program of the repository, confined: begun by steps, for themselves.
    #[command(hide = true)]
    CommandWorker(command_worker::CommandWorkerArgs),
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// For programs.
    Json,
}

/// Where the controller keeps everything, and which environment it is.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// The environment of mesh.yaml.
    #[arg(long, default_value = "dev")]
    pub env: String,
    /// The state folder: ledger, lake, topics, mail, site.
    #[arg(long, env = "HYDROMESH_STATE", default_value = ".hydromesh")]
    pub state: PathBuf,
}

/// Returns the state folder of an environment: of a preview, its own in its parent's.
///
/// # Errors
/// When the name is that of a preview and none of that name is there.
pub fn state_of(state: &std::path::Path, environment: Option<&str>) -> Result<PathBuf, Failure> {
    let Some(name) = environment.filter(|it| crate::preview::is_preview(it)) else {
        return Ok(state.to_path_buf());
    };
    let name = name.parse().map_err(|error: crate::preview::NameError| Failure::usage(error.to_string()))?;
    let shelf = crate::preview::Shelf::of(state);
    shelf.note(&name).map_err(|error| apply::refused(&error))?;
    Ok(shelf.folder(&name))
}

/// How a verb ended that did not go well.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// For people, on stderr.
    pub message: String,
}

impl Failure {
    /// Returns a failure of an outside system.
    pub fn outside(error: &dyn std::error::Error) -> Self {
        Self { code: OUTSIDE, message: crate::text::chain(error) }
    }

    /// Returns a failure of usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }
}

/// Runs the verb that the arguments name and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and version are answers, everything else is wrong use.
            return ExitCode::from(if error.use_stderr() { USAGE } else { DONE });
        }
    };
    // Only what performs steps keeps what runs say, and is worth a trace.
    let stands_in = matches!(cli.verb, Verb::Run(_) | Verb::Retry(_) | Verb::Backfill(_));
    let traces = start_logs(cli.verbose, stands_in || matches!(cli.verb, Verb::Up(_) | Verb::Demo(_)));
    let result = match cli.verb {
        Verb::Check(args) => check::run(&args),
        Verb::Plan(args) => plan::run(&args),
        Verb::Diff(args) => diff::run(&args),
        Verb::New(verb) => new::run(&verb),
        Verb::Up(args) => up::run(&args),
        Verb::Apply(args) => apply::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Status(args) => status::run(&args),
        Verb::List(args) => list::run(&args),
        Verb::Show(args) => show::run(&args),
        Verb::Quality(args) => quality::run(&args),
        Verb::Runs(args) => runs::run(&args),
        Verb::Logs(args) => logs::run(&args),
        Verb::Why(args) => why::why(&args),
        Verb::WhyNot(args) => why::why_not(&args),
        Verb::Query(args) => query::run(&args),
        Verb::Lineage(args) => lineage::run(&args),
        Verb::Policy(verb) => policy::run(&verb),
        Verb::Slo(verb) => slo::run(&verb),
        Verb::Alerts(verb) => alerts::run(&verb),
        Verb::Models(args) => models::run(&args),
        Verb::Run(args) => ask::run(&args),
        Verb::Retry(args) => ask::retry(&args),
        Verb::Cancel(args) => ask::cancel(&args),
        Verb::Pause(args) => ask::pause(&args),
        Verb::Resume(args) => ask::resume(&args),
        Verb::Backfill(args) => ask::backfill(&args),
        Verb::Produce(args) => produce::run(&args),
        Verb::Backup(args) => backup::run(&args),
        Verb::Restore(args) => restore::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::GateWorker(args) => gate_worker::run(&args),
        Verb::CommandWorker(args) => Ok(command_worker::run(&args)),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "hydromesh", &mut script);
            print(String::from_utf8_lossy(&script).trim_end());
            Ok(DONE)
        }
    };
    crate::runlog::end();
    if let Some(traces) = traces {
        traces.end();
    }
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            say(&failure.message);
            // Whatever part of it failed, the cause is a disk, and its name is in the message.
            if let Some(refusal) =
                Refusal::in_text(&failure.message).filter(|_| !failure.message.contains(disk::CODE))
            {
                say(&format!("{}: {}, then start again", disk::CODE, refusal.help()));
            }
            ExitCode::from(failure.code)
        }
    }
}

fn start_logs(verbose: u8, performs: bool) -> Option<Traces> {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    use tracing_subscriber::{EnvFilter, Layer as _, filter::LevelFilter};
    let level = match verbose {
        0 => "hydromesh=warn",
        1 => "hydromesh=info",
        _ => "hydromesh=debug,info",
    };
    let filter = EnvFilter::try_from_env("HYDROMESH_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let stderr = stderr.with_ansi(output::Paint::stderr().is_on()).with_filter(filter);
    let runs = performs.then(|| RunLayer::default().with_filter(LevelFilter::INFO));
    let asked = if performs { crate::traces::from_environment() } else { Ok(None) };
    let (traces, trouble) = match asked {
        Ok(traces) => (traces, None),
        Err(error) => (None, Some(error)),
    };
    let sent = traces.as_ref().map(Traces::layer);
    tracing_subscriber::registry().with(stderr).with(runs).with(sent).init();
    if let Some(error) = trouble {
        // What only watches must not keep the mesh from its work.
        tracing::warn!("goes on without traces: {}", crate::text::chain(&error));
    }
    traces
}

/// Says what is no data: to stderr. What was asked for goes on and ends as it would, whether somebody reads that or not.
pub fn say(text: &str) {
    tell(&format!("hydromesh: {text}"));
}

/// Writes a line to stderr as it is. Its reader may have gone, and it may be a file on the very disk that takes nothing.
pub fn tell(text: &str) {
    use std::io::Write as _;
    // In one piece: other threads say something too.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Prints data: to stdout, and quietly when the reader has gone.
pub fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    // The reader may have seen enough and gone.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n"));
}

/// Prints a value as JSON.
pub fn print_json<T: serde::Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&text),
        Err(error) => say(&format!("could not write JSON: {error}")),
    }
}

/// How long a verb that has ended waits for what still blocks a thread. Whatever counts is on disk by then; a look at a git server that
/// never answers would keep it for ever.
const LAST: Duration = Duration::from_secs(5);

/// A runtime that ends whatever still runs on it.
pub struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    /// Waits for something.
    ///
    /// # Panics
    /// Never while it lives: only its end takes the runtime away.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.as_ref().expect("there until it is dropped").block_on(future)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(LAST);
        }
    }
}

/// Returns a runtime for a verb that waits for something.
pub fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(8 << 20)
        .enable_all()
        .build()
        .map(|runtime| Runtime(Some(runtime)))
        .map_err(|error| Failure { code: OUTSIDE, message: format!("could not start: {error}") })
}

/// Returns the clock that `--clock` asks for.
pub fn clock(fixed: Option<&str>) -> Result<Clock, Failure> {
    match fixed {
        None => Ok(Clock::system()),
        Some(text) => chrono::DateTime::parse_from_rfc3339(text)
            .map(|at| Clock::fixed(at.timestamp_millis()))
            .map_err(|error| {
                Failure::usage(format!("--clock {text}: {error}; write it like 2026-11-01T06:00:00Z"))
            }),
    }
}
