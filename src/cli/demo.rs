//! `hydromesh demo`.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{DENIED, DONE, FINDINGS, Failure, Format, OUTSIDE, print_json, runtime, servers, up};
use crate::clock::Clock;
use crate::control::{Around, UpOptions, Upward, up as control_up};
use crate::demo::{Ended, Site, Stage, StoryOptions, Summary, play, prepare, summary};
use crate::stream::{KafkaSettings, ProduceTarget, TimestampFrom, open_source, produce};
use crate::work::Roles;

/// Mesh time per real time.
const TIMES: f64 = 60.0;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The mesh to play: a folder shaped like mesh-repo-example.
    #[arg(long)]
    repo: Option<PathBuf>,
    /// Where the demo keeps everything; an earlier demo there is replaced.
    #[arg(long, default_value = ".hydromesh/demo")]
    state: PathBuf,
    /// A real broker instead of topic folders.
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<String>,
    /// End when the story is over, with a summary.
    #[arg(long)]
    once: bool,
    /// Address of the site and the look-ups.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Longest wait for any part of the story, seconds.
    #[arg(long, default_value_t = 300)]
    patience: u64,
    /// How to print the summary.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the verb.
pub fn run(args: &DemoArgs) -> Result<u8, Failure> {
    let source = match &args.repo {
        Some(path) => path.clone(),
        None => example()?,
    };
    fresh(&args.state)?;
    let prepared =
        prepare(&source, &args.state, Utc::now().date_naive()).map_err(|error| Failure::outside(&error))?;
    let clock = Clock::scaled(prepared.start.timestamp_millis(), TIMES);
    let state = args.state.join("state");
    let mut stage = Terminal::new();
    stage.say(&format!(
        "{} with its dates moved to end on {}",
        source.display(),
        prepared.start.date_naive().pred_opt().unwrap_or_default()
    ));
    stage.say(&format!(
        "one real second is one minute of the mesh; its clock starts at {}",
        prepared.start.format("%Y-%m-%d %H:%M UTC")
    ));
    let outcome = runtime()?.block_on(async {
        let topics = seed(&prepared, &state, args.kafka.as_deref(), clock.now_ms()).await?;
        let shutdown = CancellationToken::new();
        tokio::spawn(up::signals(shutdown.clone()));
        let options = UpOptions {
            repo: prepared.repository.path().display().to_string(),
            environment: "dev".to_owned(),
            state: state.clone(),
            policies: None,
            clock: clock.clone(),
            poll: Duration::from_millis(500),
            tick: Duration::from_millis(250),
            observe: Duration::from_secs(15),
            brokers: args.kafka.clone(),
            site: Some(format!("http://{}", args.listen)),
            forge: None,
            roles: Roles::all(),
            signers: None,
            once: false,
            after_state: None,
            kept: None,
        };
        let (ready, upward) = tokio::sync::oneshot::channel();
        let servers = servers::around(args.listen, None, None)?;
        let around: Around = Box::new(move |upward, token| {
            let thread = servers(upward.clone(), token);
            // The story may have been given up already.
            let _ = ready.send(upward);
            thread
        });
        let controller = tokio::spawn(control_up(options, shutdown.clone(), around));
        let Ok(upward) = upward.await else {
            return match controller.await {
                Ok(Err(error)) => Err(up::failure(&error)),
                _ => Err(Failure { code: OUTSIDE, message: "the controller did not start".to_owned() }),
            };
        };
        stage.say(&format!("status site, look-ups and search: http://{}/", args.listen));
        stage.say(&format!("mails: {}", state.join("mail").display()));
        let story = StoryOptions {
            ledger: upward.ledger.clone(),
            clock,
            patience: Duration::from_secs(args.patience),
            topic: topics,
            plan: plan_command(prepared.repository.path(), &state)?,
            denied: DENIED,
            shutdown: shutdown.clone(),
        };
        let ended = play(&prepared, story, &mut stage).await.map_err(|error| Failure::outside(&error))?;
        let result = close(&upward, &ended, args.listen, &state).await;
        stage.finish(&ended, shutdown.is_cancelled());
        if args.once || shutdown.is_cancelled() {
            shutdown.cancel();
        } else {
            stage.say("the story is over; the mesh goes on. Ctrl-C ends it");
        }
        match controller.await {
            Ok(Ok(())) => Ok((ended, result)),
            Ok(Err(error)) => Err(up::failure(&error)),
            Err(error) => {
                Err(Failure { code: super::BUG, message: format!("the controller failed: {error}") })
            }
        }
    });
    let (ended, result) = outcome?;
    match args.format {
        Format::Json => print_json(&result),
        Format::Human => super::print(&human(&result)),
    }
    Ok(if ended.missed.is_empty() { DONE } else { FINDINGS })
}

/// Returns the example that lies beside the sources.
fn example() -> Result<PathBuf, Failure> {
    let here = PathBuf::from("mesh-repo-example");
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh-repo-example");
    [here, built].into_iter().find(|path| path.join("mesh.yaml").is_file()).ok_or_else(|| {
        Failure::usage(
            "mesh-repo-example is not here; run this in the project's folder, or name a mesh with --repo",
        )
    })
}

/// Returns how an author of the mesh plans a branch: with this very program.
fn plan_command(repo: &Path, state: &Path) -> Result<Vec<String>, Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::outside(&error))?;
    let words = [program.as_path(), Path::new("plan"), repo, Path::new("--state"), state];
    Ok(words.iter().map(|word| word.display().to_string()).collect())
}

/// Removes an earlier demo. Only what a demo made is removed: the folder must be empty or hold one.
fn fresh(folder: &Path) -> Result<(), Failure> {
    let known = ["mesh", "repo.git", "state"];
    let outside =
        |error: std::io::Error| Failure { code: OUTSIDE, message: format!("{}: {error}", folder.display()) };
    std::fs::create_dir_all(folder).map_err(outside)?;
    for entry in std::fs::read_dir(folder).map_err(outside)? {
        let name = entry.map_err(outside)?.file_name();
        if !known.iter().any(|known| name == *known) {
            let message = format!(
                "{} holds {}, which no demo made; name another folder with --state",
                folder.display(),
                name.display()
            );
            return Err(Failure::usage(message));
        }
    }
    for name in known {
        let path = folder.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(outside)?;
        }
    }
    std::fs::create_dir_all(folder.join("state")).map_err(outside)
}

/// Produces the past events of the mesh, and returns the topic of the live ones.
async fn seed(
    prepared: &crate::demo::Prepared,
    state: &Path,
    kafka: Option<&str>,
    now_ms: i64,
) -> Result<ProduceTarget, Failure> {
    let target = |topic: &str| match kafka {
        Some(brokers) => ProduceTarget::Kafka(KafkaSettings::new(brokers, topic)),
        None => ProduceTarget::TopicFolder(state.join("topics").join(topic)),
    };
    for (topic, events) in &prepared.seed {
        let target = target(topic);
        target.ensure().await.map_err(|error| Failure::outside(&error))?;
        let source = open_source(&target).map_err(|error| Failure::outside(&error))?;
        let bounds = source.bounds().await.map_err(|error| Failure::outside(&error))?;
        let known: i64 = bounds.values().map(|(low, high)| high - low).sum();
        if known > 0 {
            // Somebody's, or an earlier demo's: on a real broker we delete nothing.
            let message = format!(
                "the topic {topic} holds {known} messages already; delete it, or name another broker"
            );
            return Err(Failure::usage(message));
        }
        let text = String::from_utf8_lossy(events).into_owned();
        let lines: Vec<std::io::Result<String>> = text.lines().map(|line| Ok(line.to_owned())).collect();
        let produced = produce(&target, lines.into_iter(), None, TimestampFrom::Given(now_ms)).await;
        let _ = produced.map_err(|error| Failure::outside(&error))?;
    }
    Ok(target("raw-clicks"))
}

/// Looks one row up and searches once, over HTTP as anyone would, and makes the summary.
async fn close(upward: &Upward, ended: &Ended, listen: SocketAddr, state: &Path) -> Summary {
    let ledger = Arc::clone(&upward.ledger.borrow());
    let get = async |path: &str| -> Value {
        let answer = reqwest::get(format!("http://{listen}{path}")).await;
        match answer {
            Ok(answer) => answer.json().await.unwrap_or(Value::Null),
            Err(_) => Value::Null,
        }
    };
    let features = if ledger.deployed.keys().any(|id| id.to_string() == "customer/activity") {
        get("/v1/features/customer/activity?customer_id=C0001&join=customer/customer-360").await
    } else {
        Value::Null
    };
    let search = if ledger.deployed.keys().any(|id| id.to_string() == "support/article-search") {
        let found = get("/v1/search/support/article-search?q=refund%20my%20order&limit=1").await;
        found.pointer("/hits/0").cloned().unwrap_or(Value::Null)
    } else {
        Value::Null
    };
    let site = state.join("site").join("current");
    let pages =
        std::fs::read_to_string(site.join("manifest.json")).map_or(0, |text| text.matches(".html\"").count());
    let site = Site { path: site.display().to_string(), pages };
    summary(&ledger, ended.backfilled.clone(), features, search, site)
}

fn human(summary: &Summary) -> String {
    serde_json::to_string_pretty(summary).unwrap_or_default()
}

/// Tells the story on stderr.
struct Terminal {
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Terminal {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("     {bar:32} {pos}/{len} partitions {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { started: Instant::now(), bar }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        }
    }

    fn finish(&mut self, ended: &Ended, stopped: bool) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if let Some(first) = ended.first_published {
            self.line(&format!(
                "     first partition published after {:.0} s, story over after {:.0} s",
                first.as_secs_f64(),
                ended.took.as_secs_f64()
            ));
        }
        if !stopped {
            for missed in &ended.missed {
                self.line(&format!("     did not come about: {missed}"));
            }
        }
    }
}

impl Stage for Terminal {
    fn part(&mut self, number: usize, title: &str) {
        self.line(&format!("\n  {number}. {title}"));
    }

    fn say(&mut self, line: &str) {
        self.line(&format!("{:>5.0}s {line}", self.started.elapsed().as_secs_f64()));
    }

    fn progress(&mut self, done: u64, all: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(all);
            bar.set_position(done);
        }
    }
}
