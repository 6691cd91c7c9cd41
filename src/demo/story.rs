//! The story: what happens in which order, and what each part waits for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{AlertKind, AlertState, LedgerState, Outcome};
use hydromesh_core::plan::{Work, due_steps};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::data::{LiveClicks, Shift};
use super::prepare::Prepared;
use super::summary::published_since;
use crate::clock::{Clock, rfc3339};
use crate::repo::{CommitId, NewCommit, RepoError, RepoWriter};
use crate::stream::{ProduceTarget, TimestampFrom, produce};

/// Sessions of customers, against the history's: the same, or every feature would drift by itself.
const PACE: f64 = 1.0;
/// A sale: many times the customers, with larger baskets.
const SALE_PACE: f64 = 60.0;
/// The branch that is watched.
const MAIN: &str = "main";
/// The topic of the example's live events.
const TOPIC: &str = "raw-clicks";

/// What the story needs.
pub struct StoryOptions {
    /// The ledger as it grows.
    pub ledger: watch::Receiver<Arc<LedgerState>>,
    /// The clock.
    pub clock: Clock,
    /// Longest wait for any part, real time; a machine may be slow.
    pub patience: Duration,
    /// Where the live events go.
    pub topic: ProduceTarget,
    /// The command line that plans a branch and asks the gate, up to the branch: program and arguments.
    pub plan: Vec<String>,
    /// The exit code by which a plan says that the gate denies.
    pub denied: u8,
    /// Ends everything.
    pub shutdown: CancellationToken,
}

/// Where the story is told: people read it on stderr.
pub trait Stage: Send {
    /// A part begins.
    fn part(&mut self, number: usize, title: &str);
    /// Something happened.
    fn say(&mut self, line: &str);
    /// Work goes on: partitions done and to do.
    fn progress(&mut self, done: u64, all: u64);
}

/// How the story ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Parts that did not come about, with what was waited for.
    pub missed: Vec<String>,
    /// Partitions that the good change computed again, by product.
    pub backfilled: BTreeMap<String, u64>,
    /// Real time from the start to the first published partition.
    pub first_published: Option<Duration>,
    /// Real time of the whole story.
    pub took: Duration,
}

/// What the live events do at the moment.
#[derive(Debug, Default)]
struct Traffic(AtomicU8);

impl Traffic {
    const NORMAL: u8 = 0;
    const SALE: u8 = 1;
    const STOPPED: u8 = 2;

    fn set(&self, to: u8) {
        self.0.store(to, Ordering::Relaxed);
    }
}

/// Plays the story and returns how it ended.
///
/// # Errors
/// When the repository or the topic cannot be written.
pub async fn play(
    prepared: &Prepared,
    mut options: StoryOptions,
    stage: &mut dyn Stage,
) -> Result<Ended, RepoError> {
    let started = Instant::now();
    let mut ended = Ended::default();
    let traffic = Arc::new(Traffic::default());
    let example = prepared.seed.contains_key(TOPIC);
    if example {
        let (topic, clock) = (options.topic.clone(), options.clock.clone());
        let source = live(topic, clock, Arc::clone(&traffic), prepared.history_end, options.shutdown.clone());
        tokio::spawn(source);
    }
    let writer = &prepared.repository;
    let mut commits = Commits { writer, head: prepared.first.clone(), clock: options.clock.clone() };

    stage.part(1, "A first commit becomes a running mesh");
    let first = options.wait(stage, "a first published partition", |ledger| {
        ledger.ports.values().any(|port| port.published > 0)
    });
    if first.await {
        ended.first_published = Some(started.elapsed());
        stage.say("the policies allowed every product; the first partition is published");
    } else {
        ended.missed.push("a first published partition".to_owned());
    }
    let clock = options.clock.clone();
    if options.wait(stage, "every product to be up to date", |ledger| up_to_date(ledger, &clock)).await {
        stage.say(&deployed_line(&options.ledger.borrow()));
    } else {
        ended
            .missed
            .push(format!("every product up to date; {}", open_work(&options.ledger.borrow(), &clock)));
    }

    let exposed = commits.edit(CUSTOMER_360, &[EXPOSE_SQL, EXPOSE_GROUP, EXPOSE_CONTRACT])?;
    if let Some(changes) = exposed {
        stage.part(2, "A pull request puts customers' mail addresses into a widely read table");
        let before = commits.head.clone();
        let commit = commits.propose(
            "mail-address",
            "Add the mail address to customer 360",
            "Customer team",
            &changes,
        )?;
        match planned(&options, "mail-address").await {
            Ok(told) => {
                stage.say("`hydromesh plan --rev mail-address --gate` ends with exit code 3:");
                for line in told {
                    stage.say(&format!("  {line}"));
                }
            }
            Err(why) => ended.missed.push(format!("the denial in the pull request's plan: {why}")),
        }
        stage.say("merged all the same, the controller asks the same question before it deploys:");
        commits.merge(&commit)?;
        let denied = commit.clone();
        if options
            .wait(stage, "the gate's denial", |ledger| {
                ledger.outcome(denied.as_str()) == Some(Outcome::Denied)
            })
            .await
        {
            for line in denials(&options.ledger.borrow(), commit.as_str()) {
                stage.say(&line);
            }
            stage.say("customer/customer-360 stays at its last good generation; its owner has mail");
        } else {
            ended.missed.push("the denial of the exposed mail address".to_owned());
        }
        let undo = commits.undo(&changes, &before)?;
        let reverted = commits.push("Revert: no mail address in customer 360", "Customer team", &undo)?;
        let found = options
            .wait(stage, "the revert", |ledger| ledger.outcome(reverted.as_str()) == Some(Outcome::Applied));
        if !found.await {
            ended.missed.push("the revert".to_owned());
        }
    }

    if let Some(changes) = commits.edit(DAILY_REVENUE, &[AVERAGE_SQL, AVERAGE_CONTRACT])? {
        stage.part(3, "A good change: daily revenue learns the average order value");
        let before = Arc::clone(&options.ledger.borrow());
        let commit =
            commits.push("Add the average order value to daily revenue", "Commerce team", &changes)?;
        let clock = options.clock.clone();
        let applied = |ledger: &LedgerState| {
            ledger.outcome(commit.as_str()) == Some(Outcome::Applied) && batches_done(ledger, &clock)
        };
        if options.wait(stage, "the backfill of what reads it", applied).await {
            ended.backfilled = published_since(&before, &options.ledger.borrow());
            let parts: Vec<String> = ended
                .backfilled
                .iter()
                .map(|(product, count)| format!("{product}: {count} partitions"))
                .collect();
            stage.say(&format!("computed again: {}; nothing else was touched", parts.join(", ")));
        } else {
            ended.missed.push("the backfill of the new column".to_owned());
        }
    }

    if example {
        drift(&mut options, &traffic, stage, &mut ended).await;
        stopped_source(&mut options, &traffic, stage, &mut ended).await;
    }
    ended.took = started.elapsed();
    Ok(ended)
}

async fn drift(options: &mut StoryOptions, traffic: &Traffic, stage: &mut dyn Stage, ended: &mut Ended) {
    stage.part(4, "A sale changes how customers behave");
    traffic.set(Traffic::SALE);
    let models = options.ledger.borrow().models.values().map(|models| models.trained.len()).sum::<usize>();
    let firing = |ledger: &LedgerState| {
        ledger.episodes.values().any(|episode| episode.last().kind == AlertKind::Drift)
    };
    if !options.wait(stage, "the drift alert", firing).await {
        ended.missed.push("the drift alert".to_owned());
    }
    for line in summaries(&options.ledger.borrow(), AlertKind::Drift) {
        stage.say(&line);
    }
    let retrained = |ledger: &LedgerState| {
        ledger.models.values().map(|models| models.trained.len()).sum::<usize>() > models
    };
    if options.wait(stage, "the retraining", retrained).await {
        stage.say(&model_line(&options.ledger.borrow()));
    } else {
        ended.missed.push("the retraining".to_owned());
    }
    traffic.set(Traffic::NORMAL);
}

async fn stopped_source(
    options: &mut StoryOptions,
    traffic: &Traffic,
    stage: &mut dyn Stage,
    ended: &mut Ended,
) {
    stage.part(5, "The shop's event stream stops, and comes back");
    traffic.set(Traffic::STOPPED);
    let late = |ledger: &LedgerState, state: AlertState| {
        ledger
            .episodes
            .values()
            .any(|episode| episode.last().kind == AlertKind::Freshness && episode.last().state == state)
    };
    if !options.wait(stage, "the freshness alert", |ledger| late(ledger, AlertState::Firing)).await {
        ended.missed.push("the freshness alert".to_owned());
    }
    for line in summaries(&options.ledger.borrow(), AlertKind::Freshness) {
        stage.say(&line);
    }
    traffic.set(Traffic::NORMAL);
    let recovered =
        |ledger: &LedgerState| late(ledger, AlertState::Resolved) && !late(ledger, AlertState::Firing);
    if options.wait(stage, "the source's return", recovered).await {
        stage.say("the stream is fresh again: the same people have a resolved");
    } else {
        ended.missed.push("the resolved of the freshness alert".to_owned());
    }
}

impl StoryOptions {
    /// Waits until the ledger is as wanted; returns whether it came about in time.
    async fn wait(
        &mut self,
        stage: &mut dyn Stage,
        _what: &str,
        wanted: impl Fn(&LedgerState) -> bool,
    ) -> bool {
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            {
                let ledger = self.ledger.borrow_and_update();
                let (done, all) = partitions(&ledger, self.clock.now_ms());
                stage.progress(done, all);
                if wanted(&ledger) {
                    return true;
                }
            }
            // Time alone may make it true, so the ledger is looked at now and then even when it stands still.
            let next = tokio::time::timeout(Duration::from_millis(500), self.ledger.changed());
            tokio::select! {
                () = self.shutdown.cancelled() => return false,
                () = tokio::time::sleep_until(deadline) => return false,
                changed = next => if matches!(changed, Ok(Err(_))) { return false },
            }
        }
    }
}

/// Partitions published, and those that are published or due.
fn partitions(ledger: &LedgerState, now_ms: i64) -> (u64, u64) {
    let published: usize = ledger.ports.values().map(|port| port.partitions.len()).sum();
    let due: u64 = due_steps(ledger, now_ms)
        .0
        .iter()
        .map(|step| step.reason.split_once(' ').and_then(|(count, _)| count.parse().ok()).unwrap_or(0))
        .sum();
    let done = u64::try_from(published).unwrap_or(0);
    (done, done + due)
}

fn batches_done(ledger: &LedgerState, clock: &Clock) -> bool {
    let (due, _) = due_steps(ledger, clock.now_ms());
    let waits = |work: &Work| matches!(work, Work::Partitions { .. } | Work::Whole);
    !due.iter().any(|step| waits(&step.key.work)) && !ledger.running.values().any(|step| waits(&step.work))
}

/// Every port of every product shows something, no finite step is due or running, and there is a champion.
fn up_to_date(ledger: &LedgerState, clock: &Clock) -> bool {
    let (due, _) = due_steps(ledger, clock.now_ms());
    let finite = |work: &Work| !matches!(work, Work::Follow | Work::Drift);
    let ports = ledger.deployed.values().all(|deployed| {
        deployed.product.outputs.keys().all(|name| ledger.ports.contains_key(&deployed.product.port(name)))
    });
    let models = ledger.models.values().all(|models| models.champion.is_some());
    !ledger.deployed.is_empty()
        && ports
        && models
        && !due.iter().any(|step| finite(&step.key.work))
        && !ledger.running.values().any(|step| finite(&step.work))
}

fn open_work(ledger: &LedgerState, clock: &Clock) -> String {
    let (due, waiting) = due_steps(ledger, clock.now_ms());
    let due = due.iter().filter(|step| step.key.work != Work::Follow).map(|step| step.key.to_string());
    let waiting = waiting.iter().map(|it| format!("{} ({})", it.pipeline, it.why));
    due.chain(waiting).collect::<Vec<_>>().join("; ")
}

fn deployed_line(ledger: &LedgerState) -> String {
    let partitions: usize = ledger.ports.values().map(|port| port.partitions.len()).sum();
    let rows: u64 =
        ledger.ports.values().flat_map(|port| port.partitions.values()).map(|it| it.published.rows).sum();
    format!(
        "{} products deployed; {partitions} partitions and tables published, {rows} rows",
        ledger.deployed.len()
    )
}

fn denials(ledger: &LedgerState, commit: &str) -> Vec<String> {
    ledger
        .decisions
        .iter()
        .filter(|(_, decision)| decision.commit == commit && !decision.allow)
        .flat_map(|(_, decision)| &decision.violations)
        .map(|violation| format!("denied by {}: {}", violation.rule, violation.message))
        .collect()
}

fn summaries(ledger: &LedgerState, kind: AlertKind) -> Vec<String> {
    ledger
        .episodes
        .values()
        .map(hydromesh_core::ledger::EpisodeRecord::last)
        .filter(|alert| alert.kind == kind && alert.state == AlertState::Firing)
        .map(|alert| format!("mail: {}", alert.summary))
        .collect()
}

fn model_line(ledger: &LedgerState) -> String {
    let described = ledger.models.iter().find_map(|(product, models): (&ProductId, _)| {
        let (_, last) = models.trained.last()?;
        let promoted = models.champion.is_some_and(|(version, _)| version == last.version);
        let verdict = if promoted { "is the new champion" } else { "was compared and rejected" };
        Some(format!("{product} version {} with {} {:.3} {verdict}", last.version, last.metric, last.value))
    });
    described.unwrap_or_else(|| "no model".to_owned())
}

/// Plans a branch as its author would, and returns what the gate denies.
async fn planned(options: &StoryOptions, branch: &str) -> Result<Vec<String>, String> {
    let (program, args) = options.plan.split_first().ok_or("there is no command to plan with")?;
    let now = rfc3339(options.clock.now_ms());
    let ran = tokio::process::Command::new(program)
        .args(args)
        .args(["--rev", branch, "--gate", "--format", "json", "--clock", now.as_str()])
        .output()
        .await
        .map_err(|error| error.to_string())?;
    if ran.status.code() != Some(i32::from(options.denied)) {
        return Err(format!("{}: {}", ran.status, String::from_utf8_lossy(&ran.stderr).trim()));
    }
    let plan: serde_json::Value = serde_json::from_slice(&ran.stdout).map_err(|error| error.to_string())?;
    let answers = plan["gate"].as_array().cloned().unwrap_or_default();
    let violations = answers.iter().filter_map(|answer| answer["violations"].as_array()).flatten();
    let text = |it: &serde_json::Value, key: &str| it[key].as_str().unwrap_or_default().to_owned();
    Ok(violations.map(|it| format!("denied by {}: {}", text(it, "rule"), text(it, "message"))).collect())
}

/// Produces what happened since the history ended, then what happens, as the clock goes.
async fn live(
    topic: ProduceTarget,
    clock: Clock,
    traffic: Arc<Traffic>,
    from: DateTime<Utc>,
    shutdown: CancellationToken,
) {
    let (normal, sale) = (LiveClicks::new(PACE), LiveClicks::new(SALE_PACE));
    let instant = |ms: i64| DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default();
    let mut from = from;
    while !shutdown.is_cancelled() {
        let now_ms = clock.now_ms();
        let to = instant(now_ms);
        let mut lines: Vec<String> = match traffic.0.load(Ordering::Relaxed) {
            Traffic::NORMAL => normal.between(from, to, Shift::None).map(|click| click.json).collect(),
            Traffic::SALE => sale.between(from, to, Shift::Injected).map(|click| click.json).collect(),
            _ => Vec::new(),
        };
        if traffic.0.load(Ordering::Relaxed) != Traffic::STOPPED {
            lines.extend(visitors(from, to));
        }
        from = to;
        if !lines.is_empty() {
            let lines = lines.into_iter().map(Ok::<_, std::io::Error>);
            if let Err(error) = produce(&topic, lines, None, TimestampFrom::Given(now_ms)).await {
                tracing::warn!("could not produce live events: {}", crate::text::chain(&error));
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}

/// One page view a minute by someone who is not signed in: it keeps the stream fresh and changes nobody's features.
fn visitors(from: DateTime<Utc>, to: DateTime<Utc>) -> impl Iterator<Item = String> {
    let minute = |at: DateTime<Utc>| (at.timestamp() + 59).div_euclid(60);
    (minute(from)..minute(to)).filter_map(|minute| {
        let at = DateTime::<Utc>::from_timestamp(minute * 60, 0)?;
        let view = serde_json::json!({
            "event_id": format!("V{minute:x}"),
            "session_id": format!("V{:x}", minute / 10),
            "ts": at.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "page": "/",
            "country": "CH",
        });
        Some(view.to_string())
    })
}

/// An edit of a text file: what to find, and what to put there.
struct Edit {
    file: &'static str,
    find: &'static str,
    put: &'static str,
}

const CUSTOMER_360: &str = "domains/customer/customer-360";
const DAILY_REVENUE: &str = "domains/commerce/daily-revenue";
const EXPOSE_SQL: Edit = Edit {
    file: "customer_360.sql",
    find: "  customers.country,\n",
    put: "  customers.country,\n  customers.email,\n",
};
const EXPOSE_GROUP: Edit = Edit {
    file: "customer_360.sql",
    find: ", customers.country\n",
    put: ", customers.country, customers.email\n",
};
const EXPOSE_CONTRACT: Edit = Edit {
    file: "customer_360.odcs.yaml",
    find: "    properties:\n",
    put: "    properties:\n      - {name: email, logicalType: string, classification: public, description: Mail address}\n",
};
const AVERAGE_SQL: Edit = Edit {
    file: "daily_revenue.sql",
    find: "  SUM(amount) AS revenue\n",
    put: "  SUM(amount) AS revenue,\n  SUM(amount) / COUNT(*) AS average_order_value\n",
};
const AVERAGE_CONTRACT: Edit = Edit {
    file: "daily_revenue.odcs.yaml",
    find: "    properties:\n",
    put: "    properties:\n      - {name: average_order_value, logicalType: number, classification: internal, description: Revenue per order}\n",
};

type Changes = BTreeMap<String, Option<Vec<u8>>>;

/// The developer's side: commits on the main branch.
struct Commits<'a> {
    writer: &'a RepoWriter,
    head: CommitId,
    clock: Clock,
}

impl Commits<'_> {
    /// Returns the edited files of a product, or none when the mesh has no such place.
    fn edit(&self, folder: &str, edits: &[Edit]) -> Result<Option<Changes>, RepoError> {
        let mut changes = Changes::new();
        for edit in edits {
            let path = Path::new(folder).join(edit.file).to_string_lossy().into_owned();
            let known = match changes.get(&path) {
                Some(bytes) => bytes.clone(),
                None => self.writer.read_file(&self.head, &path)?,
            };
            let Some(text) = known.and_then(|bytes| String::from_utf8(bytes).ok()) else { return Ok(None) };
            if !text.contains(edit.find) {
                return Ok(None);
            }
            changes.insert(path, Some(text.replacen(edit.find, edit.put, 1).into_bytes()));
        }
        Ok(Some(changes))
    }

    /// Returns the changes that bring files back to what they were at a commit.
    fn undo(&self, changes: &Changes, to: &CommitId) -> Result<Changes, RepoError> {
        changes.keys().map(|path| Ok((path.clone(), self.writer.read_file(to, path)?))).collect()
    }

    /// Commits to a branch of its own, as a pull request has one.
    fn propose(
        &self,
        branch: &str,
        message: &str,
        author: &str,
        changes: &Changes,
    ) -> Result<CommitId, RepoError> {
        // The branch begins where the main branch is.
        if branch != MAIN {
            self.writer.set_branch(branch, &self.head)?;
        }
        let new = NewCommit {
            branch,
            parent: Some(&self.head),
            message,
            author,
            email: "team@larchandpine.example",
            time_ms: self.clock.now_ms(),
        };
        self.writer.commit(new, changes)
    }

    /// Moves the main branch forward to a proposed commit.
    fn merge(&mut self, commit: &CommitId) -> Result<(), RepoError> {
        self.writer.set_branch(MAIN, commit)?;
        self.head = commit.clone();
        Ok(())
    }

    fn push(&mut self, message: &str, author: &str, changes: &Changes) -> Result<CommitId, RepoError> {
        self.head = self.propose(MAIN, message, author, changes)?;
        Ok(self.head.clone())
    }
}
