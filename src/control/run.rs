//! The loop: one task owns the state; everything else sends it events and performs its effects.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hydromesh_core::control::{Control, Effect, Event, Limits, Question};
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{Alert, Command, LedgerState, RunOutcome};
use hydromesh_core::model::Environment;
use hydromesh_core::plan::PortPrint;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::judge::Judge;
use super::watch::Watcher;
use super::{jobs, ledger};
use crate::apply::Context;
use crate::clock::Clock;
use crate::engine::{Engine, EngineConfig};
use crate::lake::Lake;
use crate::notify::{History, MailContext, Mailer, first_message_id};
use crate::online::Online;
use crate::policy::PolicySet;
use crate::repo::{CommitInfo, RepoError};
use crate::store::{OpenMode, Store, StoreError};

/// Memory of all queries together: half of what the smallest machine that we aim at leaves after everything else.
const QUERY_MEMORY_BYTES: usize = 512 << 20;
/// How long a lease lasts unless renewed; it is renewed at a third of it.
const LEASE_MS: i64 = 15_000;
/// Stacks of the work threads: plans of deep queries recurse.
const WORK_STACK_BYTES: usize = 16 << 20;

/// What `up` needs to know.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Repository, by URL or path.
    pub repo: String,
    /// The environment of `mesh.yaml`.
    pub environment: String,
    /// The state folder.
    pub state: PathBuf,
    /// The operator's policies; those compiled in without.
    pub policies: Option<PathBuf>,
    /// The clock.
    pub clock: Clock,
    /// How often the repository is asked.
    pub poll: Duration,
    /// How often time alone is looked at.
    pub tick: Duration,
    /// Kafka brokers instead of the environment's stream.
    pub brokers: Option<String>,
    /// Address of the status site, for links in mails.
    pub site: Option<String>,
}

/// Why `up` ended.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The repository cannot be read.
    #[error("could not read the repository {repo}")]
    Repo {
        /// As given.
        repo: String,
        /// Why.
        source: RepoError,
    },
    /// The store failed, or another controller took over.
    #[error("the ledger cannot be used")]
    Store(#[from] StoreError),
    /// The ledger cannot be read.
    #[error("the ledger cannot be read")]
    Ledger(#[from] ledger::LedgerError),
    /// The lake cannot be opened.
    #[error("the lake cannot be opened")]
    Lake(#[from] crate::lake::LakeError),
    /// The engine cannot be made.
    #[error("the query engine cannot be started")]
    Engine(#[from] crate::engine::EngineError),
    /// The policies cannot be read.
    #[error("the policies cannot be read")]
    Policy(#[from] crate::policy::PolicyError),
    /// The environment's mail settings.
    #[error("mails cannot be sent")]
    Mail(#[from] crate::notify::NotifyError),
    /// The environment is not in the mesh.
    #[error("environment {name} is not in mesh.yaml; there is {known}")]
    Environment {
        /// As given.
        name: String,
        /// What there is.
        known: String,
    },
    /// The environment asks for what is not there yet.
    #[error("environment {name} asks for {what}")]
    Unsupported {
        /// The environment.
        name: String,
        /// What it asks for, and what to give instead.
        what: String,
    },
    /// A file of the state folder.
    #[error("could not {action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// What the loop shows to the rest of the process.
#[derive(Clone)]
pub struct Upward {
    /// The ledger, a fresh copy whenever it changed.
    pub ledger: watch::Receiver<Arc<LedgerState>>,
    /// What steps use.
    pub context: Context,
    /// Commands go in here.
    pub events: mpsc::Sender<Event>,
    /// The mesh's title, routes and rules as of the last readable commit.
    pub mesh: watch::Receiver<Option<Arc<hydromesh_core::plan::Desired>>>,
}

/// Everything around the loop, called when the loop is ready; it may start servers that end with the token.
pub type Around = Box<dyn FnOnce(Upward, CancellationToken) + Send>;

/// Watches, plans, gates, applies, until cancelled.
///
/// # Errors
/// [`UpError`] when it cannot start, or may no longer write.
pub async fn up(options: UpOptions, shutdown: CancellationToken, around: Around) -> Result<(), UpError> {
    let state = options.state.clone();
    create(&state)?;
    let store = Store::open(&state.join("ledger.db"), OpenMode::ReadWrite).await?;
    let mut lease = store.lease(&owner(), real_now_ms(), LEASE_MS).await?;
    let ledger_state = ledger::replay(&store).await?;
    let central = match &options.policies {
        Some(path) => PolicySet::open(path)?,
        None => PolicySet::embedded(),
    };
    let (settings, watcher) = first_look(&options)?;
    supported(&options.environment, &settings)?;
    let reference = settings.r#ref.clone();
    let work = work_runtime()?;
    let spill = state.join("spill");
    create(&spill)?;
    let context = Context {
        environment: options.environment.clone(),
        lake: Arc::new(Lake::open(lake_folder(&state, &settings)).await?),
        settings,
        state: state.clone(),
        engine: Engine::new(&EngineConfig { memory_bytes: QUERY_MEMORY_BYTES, spill })?,
        blobs: watcher.blobs(),
        clock: options.clock.clone(),
        epoch: lease.epoch,
        online: Arc::new(Online::new()),
    };
    let mailer = Mailer::from_settings(&context.settings, &state)?;
    let judge = Judge::new(&central, &[]);
    let mut control = Control::new(ledger_state, &options.environment, judge.digest(), Limits::default());
    let (events, mut inbox) = mpsc::channel(1_024);
    let (show_ledger, ledger_shown) = watch::channel(Arc::new(control.ledger.clone()));
    let (show_mesh, mesh_shown) = watch::channel(None);
    let mut hands = Hands {
        store: &store,
        epoch: lease.epoch,
        context: context.clone(),
        central,
        judge,
        events: events.clone(),
        work: work.handle().clone(),
        running: BTreeMap::new(),
        environment: options.environment.clone(),
        mailer,
        site: options.site.clone(),
        deferred: Vec::new(),
        changed: true,
    };
    let opening = control.open(options.clock.now_ms(), lease.epoch, env!("CARGO_PKG_VERSION"));
    hands.perform(&mut control, opening).await?;
    let upward = Upward { ledger: ledger_shown, context, events: events.clone(), mesh: mesh_shown };
    around(upward, shutdown.clone());
    // Commits that came while nobody looked are passed over now, and told so.
    let last_seen = control.ledger.head.clone();
    let mut watching = Watching::start(watcher, options.poll, last_seen, control.ledger.port_prints());
    let mut ruled = false;
    let mut tick = tokio::time::interval(options.tick);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut renew =
        tokio::time::interval(Duration::from_millis(u64::try_from(LEASE_MS / 3).unwrap_or(5_000)));
    let mut commands_read = 0;
    let result = loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            event = inbox.recv() => match event { Some(event) => event, None => break Ok(()) },
            seen = watching.next() => {
                let (events, own) = seen_events(seen, &reference, &show_mesh);
                if !std::mem::replace(&mut ruled, true) {
                    // The first commit of this process has no rules before it but its own.
                    hands.adopt_policies(&own);
                }
                for event in events {
                    let effects = control.step(options.clock.now_ms(), event);
                    hands.perform(&mut control, effects).await?;
                }
                let deferred: Vec<Effect> = hands.deferred.drain(..).map(Effect::Decide).collect();
                hands.perform(&mut control, deferred).await?;
                watching.know(&control.ledger);
                // A change to the mesh's own rules is judged by those before it and counts from the next commit on.
                hands.adopt_policies(&own);
                Event::Tick
            }
            _ = tick.tick() => {
                match store.commands(commands_read, 100).await {
                    Ok(commands) => for command in commands {
                        commands_read = command.id;
                        if let Some(event) = asked(&command.body, &control) {
                            let effects = control.step(options.clock.now_ms(), event);
                            hands.perform(&mut control, effects).await?;
                        }
                    },
                    Err(error) => tracing::warn!(%error, "could not read commands"),
                }
                if std::mem::take(&mut hands.changed) {
                    show_ledger.send_replace(Arc::new(control.ledger.clone()));
                    watching.know(&control.ledger);
                }
                Event::Tick
            }
            _ = renew.tick() => {
                lease = match store.renew(&lease, real_now_ms(), LEASE_MS).await {
                    Ok(lease) => lease,
                    Err(error) if error.is_transient() => lease,
                    Err(error) => break Err(error.into()),
                };
                continue;
            }
        };
        let effects = control.step(options.clock.now_ms(), event);
        if let Err(error) = hands.perform(&mut control, effects).await {
            break Err(error);
        }
    };
    shutdown.cancel();
    for token in hands.running.values() {
        token.cancel();
    }
    drain(&mut control, &mut hands, &mut inbox, &options.clock).await;
    show_ledger.send_replace(Arc::new(control.ledger.clone()));
    watching.stop();
    work.shutdown_background();
    if result.is_ok() {
        store.release(lease).await?;
    }
    store.close().await;
    result
}

/// Lets steps end between two commits, for at most five seconds; what is left is recovered like after a crash.
async fn drain(
    control: &mut Control,
    hands: &mut Hands<'_>,
    inbox: &mut mpsc::Receiver<Event>,
    clock: &Clock,
) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while !hands.running.is_empty() {
        let Ok(Some(event)) = tokio::time::timeout_at(deadline, inbox.recv()).await else { break };
        if matches!(event, Event::Finished { .. } | Event::Progress { .. } | Event::Sent { .. }) {
            let effects = control.step(clock.now_ms(), event);
            let appends = effects.into_iter().filter(|effect| matches!(effect, Effect::Append(_))).collect();
            if hands.perform(control, appends).await.is_err() {
                break;
            }
            let live: std::collections::BTreeSet<String> =
                control.in_flight().map(|(_, run)| run.to_owned()).collect();
            hands.running.retain(|run, _| live.contains(run));
        }
    }
}

fn create(folder: &Path) -> Result<(), UpError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| UpError::Io { action: format!("create {}", folder.display()), source })
}

fn owner() -> String {
    format!("{}:{}", std::process::id(), uuid::Uuid::new_v4())
}

/// Leases are between machines: they follow the system's time, never the injected one.
fn real_now_ms() -> i64 {
    Clock::system().now_ms()
}

fn work_runtime() -> Result<tokio::runtime::Runtime, UpError> {
    tokio::runtime::Builder::new_multi_thread()
        // More threads than cores: a long computation then holds up no follower, the system shares the cores.
        .worker_threads(std::thread::available_parallelism().map_or(4, |cores| 2 * cores.get()).clamp(4, 16))
        .thread_stack_size(WORK_STACK_BYTES)
        .thread_name("hydromesh-work")
        .enable_all()
        .build()
        .map_err(|source| UpError::Io { action: "start the work threads".to_owned(), source })
}

/// Returns the lake's folder: relative ones lie in the state folder.
#[must_use]
pub fn lake_folder(state: &Path, settings: &Environment) -> PathBuf {
    state.join(&settings.lake_path)
}

/// Opens the repository and reads the environment's settings from where its reference is.
fn first_look(options: &UpOptions) -> Result<(Environment, Watcher), UpError> {
    let wrap = |source| UpError::Repo { repo: options.repo.clone(), source };
    let cache = options.state.join("repo");
    // The reference of the environment is in the mesh itself; the repository's HEAD tells where to look first.
    let bootstrap = Watcher::open(&options.repo, &cache, "HEAD").map_err(wrap)?;
    let Some(head) = bootstrap.poll(None, None).map_err(wrap)? else {
        return Err(UpError::Environment {
            name: options.environment.clone(),
            known: "an empty repository".to_owned(),
        });
    };
    let reading = bootstrap.read(&head.commit, &BTreeMap::new()).map_err(wrap)?;
    let environments = &reading.desired.mesh.environments;
    let Some(settings) = environments.get(&options.environment) else {
        let known: Vec<&str> = environments.keys().map(String::as_str).collect();
        return Err(UpError::Environment { name: options.environment.clone(), known: known.join(", ") });
    };
    let mut settings = settings.clone();
    if let Some(brokers) = &options.brokers {
        settings.stream = hydromesh_core::model::StreamKind::Kafka { brokers: brokers.clone() };
    }
    let watcher = Watcher::open(&options.repo, &cache, &settings.r#ref).map_err(wrap)?;
    Ok((settings, watcher))
}

/// Refuses an environment that asks for more than there is: going on with something else would lose data quietly.
fn supported(name: &str, settings: &Environment) -> Result<(), UpError> {
    let refuse = |what: &str| Err(UpError::Unsupported { name: name.to_owned(), what: what.to_owned() });
    if settings.lake_path.contains("://") {
        return refuse("a lake in an object store; give `lake: {path: FOLDER}`");
    }
    if !matches!(settings.state, hydromesh_core::model::StateKind::Sqlite) {
        return refuse("state in Postgres; give `state: {kind: sqlite}`");
    }
    Ok(())
}

/// Reads commands out of the mailbox; one whose answer is in the ledger is done.
fn asked(body: &str, control: &Control) -> Option<Event> {
    let command: Command = serde_json::from_str(body).ok()?;
    (!control.ledger.answers.contains_key(&command.id)).then_some(Event::Asked(command))
}

/// A poll's result: a new head with what it asks for.
type Seen = (CommitInfo, Vec<CommitInfo>, super::Reading);

/// Returns the events of a new head, and the mesh's own rules at it.
fn seen_events(
    (commit, passed, reading): Seen,
    reference: &str,
    show_mesh: &watch::Sender<Option<Arc<hydromesh_core::plan::Desired>>>,
) -> (Vec<Event>, Vec<(String, String)>) {
    let mut events = Vec::new();
    if !passed.is_empty() {
        let text = |commit: &CommitInfo| {
            (commit.id.as_str().to_owned(), commit.subject().to_owned(), commit.author.clone())
        };
        let commits = passed.iter().map(text).collect();
        events.push(Event::Superseded { commits, by: commit.id.as_str().to_owned() });
    }
    let desired = if reading.readable {
        show_mesh.send_replace(Some(Arc::new(reading.desired.clone())));
        Ok(Box::new(reading.desired))
    } else {
        Err(reading.findings)
    };
    events.push(Event::Commit {
        commit: commit.id.as_str().to_owned(),
        r#ref: reference.to_owned(),
        message: commit.subject().to_owned(),
        author: commit.author.clone(),
        desired,
    });
    (events, reading.policies)
}

/// The poll, one at a time, off the loop.
struct Watching {
    heads: mpsc::Receiver<Seen>,
    deployed: watch::Sender<BTreeMap<PortId, PortPrint>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watching {
    fn start(
        watcher: Watcher,
        every: Duration,
        last_seen: Option<String>,
        deployed: BTreeMap<PortId, PortPrint>,
    ) -> Self {
        let mut known: Option<String> = None;
        let (send, heads) = mpsc::channel(1);
        let (deployed, prints) = watch::channel(deployed);
        let task = tokio::spawn(async move {
            let mut complained = String::new();
            loop {
                let (watcher, before, prints) = (watcher.clone(), known.clone(), prints.borrow().clone());
                let base = before.clone().or_else(|| last_seen.clone());
                let polled = tokio::task::spawn_blocking(move || -> Result<Option<Seen>, RepoError> {
                    let Some(head) = watcher.poll(before.as_deref(), base.as_deref())? else {
                        return Ok(None);
                    };
                    let reading = watcher.read(&head.commit, &prints)?;
                    Ok(Some((head.commit, head.passed, reading)))
                });
                match polled.await {
                    Ok(Ok(Some(seen))) => {
                        known = Some(seen.0.id.as_str().to_owned());
                        complained.clear();
                        if send.send(seen).await.is_err() {
                            return;
                        }
                    }
                    Ok(Ok(None)) => complained.clear(),
                    Ok(Err(error)) => {
                        // Once per outage, not once per poll.
                        let text = crate::apply::chain(&error);
                        if complained != text {
                            tracing::warn!("could not look at the repository: {text}");
                            complained = text;
                        }
                    }
                    Err(error) => tracing::error!(%error, "reading the repository failed"),
                }
                tokio::time::sleep(every).await;
            }
        });
        Self { heads, deployed, task }
    }

    /// Tells the poll what is deployed. Called when that may have changed, not for every event.
    fn know(&self, ledger: &LedgerState) {
        self.deployed.send_replace(ledger.port_prints());
    }

    /// Returns the next head with what it asks for.
    async fn next(&mut self) -> Seen {
        match self.heads.recv().await {
            Some(seen) => seen,
            None => std::future::pending().await,
        }
    }

    fn stop(&self) {
        self.task.abort();
    }
}

/// Performs effects.
struct Hands<'a> {
    store: &'a Store,
    epoch: u64,
    context: Context,
    central: PolicySet,
    judge: Judge,
    events: mpsc::Sender<Event>,
    work: tokio::runtime::Handle,
    running: BTreeMap<String, CancellationToken>,
    environment: String,
    mailer: Mailer,
    site: Option<String>,
    /// Questions that came before the mesh was read.
    deferred: Vec<Question>,
    changed: bool,
}

impl Hands<'_> {
    fn adopt_policies(&mut self, own: &[(String, String)]) {
        self.judge = Judge::new(&self.central, own);
    }

    /// Performs effects in order; those that answer at once are fed back before the next.
    async fn perform(&mut self, control: &mut Control, effects: Vec<Effect>) -> Result<(), UpError> {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Append(entries) => {
                    let at_ms = entries.last().map_or(0, |entry| entry.at_ms);
                    let records = ledger::records(&entries).map_err(|error| UpError::Io {
                        action: "write a fact as JSON".to_owned(),
                        source: std::io::Error::other(error),
                    })?;
                    self.append(at_ms, &records).await?;
                }
                Effect::Decide(question) => {
                    let now_ms = self.context.clock.now_ms();
                    let Some(desired) = control.desired() else {
                        // Commands wait from before the start: they are judged once the mesh is known.
                        self.deferred.push(question);
                        continue;
                    };
                    let decision =
                        self.judge.answer(&question, desired, &control.ledger, &self.environment, now_ms);
                    queue.extend(control.step(now_ms, Event::Decided(decision)));
                }
                Effect::Start(start) => {
                    let run = start.run.clone();
                    let Some(job) = jobs::job(start, &control.ledger) else {
                        // Its product was retired in the same breath: it ends before it begins.
                        let outcome = RunOutcome::Cancelled;
                        let ended = Event::Finished { run, facts: Vec::new(), outcome, took_ms: 0 };
                        queue.extend(control.step(self.context.clock.now_ms(), ended));
                        continue;
                    };
                    let token = CancellationToken::new();
                    self.running.insert(run, token.clone());
                    jobs::spawn(&self.work, self.context.clone(), job, self.events.clone(), token);
                }
                Effect::Cancel { run } => {
                    if let Some(token) = self.running.remove(&run) {
                        token.cancel();
                    }
                }
                Effect::Deliver { outbox, to, alert } => self.deliver(control, outbox, to, alert),
                Effect::Publish => self.changed = true,
            }
        }
        Ok(())
    }

    /// Hands a message to the mailer, off the loop; its answer comes as an event.
    fn deliver(&self, control: &Control, outbox: String, to: String, alert: Alert) {
        let history = History::of(&control.ledger, &alert);
        let title = control.desired().map_or_else(String::new, |desired| desired.mesh.title.clone());
        let first_message_id = control
            .ledger
            .episodes
            .get(&alert.episode)
            .and_then(|episode| first_message_id(episode, &alert, &to));
        let context = MailContext {
            mesh: title,
            environment: self.environment.clone(),
            site: self.site.clone(),
            now_ms: self.context.clock.now_ms(),
            first_message_id,
            history,
        };
        let (mailer, events) = (self.mailer.clone(), self.events.clone());
        tokio::spawn(async move {
            let (episode, transition) = (alert.episode.clone(), alert.transition);
            let event = match mailer.deliver(&outbox, &to, &alert, &context).await {
                Ok(receipt) => Event::Sent { outbox, episode, transition, to, receipt },
                Err(error) => {
                    let why = crate::apply::chain(&error);
                    tracing::warn!(%to, "could not deliver a message, tried again: {why}");
                    Event::NotSent { outbox, why }
                }
            };
            // When the loop is gone, the next controller finds the message unsent.
            let _ = events.send(event).await;
        });
    }

    /// Makes facts durable; a full disk or a busy file is waited out, for nothing may happen without its fact.
    async fn append(&self, at_ms: i64, records: &[(String, String)]) -> Result<(), UpError> {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.store.append(self.epoch, at_ms, records).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_transient() => {
                    tracing::warn!(
                        "the ledger cannot be written, tried again: {}",
                        crate::apply::chain(&error)
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
