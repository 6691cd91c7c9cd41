//! Starts a controller and everything around it, and ends it in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hydromesh_core::control::{Control, Event, Limits};
use hydromesh_core::diag::{Diagnostic, codes};
use hydromesh_core::ledger::LedgerState;
use hydromesh_core::model::Environment;
use hydromesh_core::trust::Line;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ahead::Ahead;
use super::bench::Bench;
use super::beside::beside;
use super::copy::{LedgerCopy, keep_copying};
use super::error::UpError;
use super::hands::Hands;
use super::hint::Hints;
use super::judges::Judges;
use super::kept::{self, Kept};
use super::poll::Watching;
use super::seat::{self, Seat};
use super::statuses::keep_told;
use super::telling::Telling;
use super::trusted::Trust;
use super::turn::{Loop, Once};
use super::views::Views;
use super::watch::Watcher;
use super::{ledger, observe};
use crate::apply::{Blobs, Context, keep_online};
use crate::clock::Clock;
use crate::cores::steps_at_once;
use crate::engine::{Engine, EngineConfig};
use crate::forge::Forge;
use crate::lake::{Lake, Writer};
use crate::notify::Mailer;
use crate::online::Online;
use crate::outage::Outage;
use crate::policy::PolicySet;
use crate::preview::{Offers, keep_tidy};
use crate::repo::CommitInfo;
use crate::store::{OpenMode, Place, Store, StoreError};
use crate::work::{Board, Desk, Role, Roles, work_runtime};

/// Memory of all queries together: half of what the smallest machine that we aim at leaves after everything else.
pub(super) const QUERY_MEMORY_BYTES: usize = 512 << 20;
/// How long the servers may take to end.
const SERVERS_END: Duration = Duration::from_secs(8);
/// When tables are looked at first: what a loss of power has torn is mended before steps have tried it in vain too often.
const FIRST_LOOK: Duration = Duration::from_millis(100);

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
    /// How often tables are looked at: whether they still show what was published.
    pub observe: Duration,
    /// Kafka brokers instead of the environment's stream.
    pub brokers: Option<String>,
    /// Address of the status site, for links in mails.
    pub site: Option<String>,
    /// Where commit statuses are posted.
    pub forge: Option<Forge>,
    /// What this process does.
    pub roles: Roles,
    /// Who may sign commits; without, nobody has to.
    pub signers: Option<Arc<Trust>>,
    /// It ends by itself when nothing is left to do.
    pub once: bool,
    /// State folder of the environment that this one comes after, when its ledger is not on a server.
    pub after_state: Option<PathBuf>,
    /// Instead of the repository: the commit that was accepted last, as it is kept in the state folder.
    pub kept: Option<Arc<Kept>>,
}

/// What the loop shows to the rest of the process.
#[derive(Clone)]
pub struct Upward {
    /// The ledger, a fresh copy whenever it changed.
    pub ledger: watch::Receiver<Arc<LedgerState>>,
    /// What steps use.
    pub context: Context,
    /// The mailbox of commands is in here.
    pub store: Store,
    /// The mesh's title, routes and rules as of the last readable commit.
    pub mesh: watch::Receiver<Option<Arc<hydromesh_core::plan::Desired>>>,
}

/// Everything around the loop, called when the loop is ready; it may start servers on a thread, which end with the token.
pub type Around = Box<dyn FnOnce(Upward, CancellationToken) -> Option<std::thread::JoinHandle<()>> + Send>;

/// Does what this process's roles ask for, until cancelled.
///
/// # Errors
/// [`UpError`] when it cannot start, or may no longer write.
pub async fn up(options: UpOptions, shutdown: CancellationToken, around: Around) -> Result<(), UpError> {
    if !options.roles.has(Role::Control) {
        return beside(options, shutdown, around).await;
    }
    let state = options.state.clone();
    create(&state)?;
    keep_logs(&state);
    let central = match &options.policies {
        Some(path) => PolicySet::open(path)?,
        None => PolicySet::embedded(),
    };
    let Settled { mut settings, mut before, mut watcher } = first_look(&options).await?;
    supported(&options.environment, &settings)?;
    let Some(seat) = seat::take(&options, &settings, &shutdown).await? else { return Ok(()) };
    let Seat { store, mut lease, waited } = seat;
    if options.kept.is_none() {
        kept::keep(&options, watcher.git_dir())?;
    }
    if waited {
        // Who led meanwhile may have followed the mesh to other settings.
        Settled { settings, before, watcher } = first_look(&options).await?;
    }
    let mut ahead =
        if options.kept.is_none() { Ahead::of(&options, &settings, before.as_ref())? } else { None };
    let reference = settings.r#ref.clone();
    let work = WorkThreads::start()?;
    let mut context = context(&options, settings, watcher.blobs(), lease.epoch).await?;
    let copy = LedgerCopy::of(&context.lake)?;
    lease = copy.restore(&store, lease, &context.lake).await?;
    context.epoch = lease.epoch;
    let ledger_state = ledger::replay(&store).await?;
    if let (true, None, Some(ahead)) = (options.once, &ledger_state.head, &mut ahead) {
        ahead.must_have_proven(&options.environment).await?;
    }
    let board = Board::new(&state, lease.epoch)?;
    let mailer = Mailer::from_settings(&context.settings, &state)?;
    let judges = Judges::new(central, watcher.clone(), None);
    let mut control = Control::new(ledger_state, &options.environment, Limits { steps: steps_at_once() });
    let (events, inbox) = mpsc::channel(1_024);
    let (show_ledger, ledger_shown) = watch::channel(Arc::new(control.ledger.clone()));
    let (show_mesh, mesh_shown) = watch::channel(None);
    let mut hands = Hands {
        store: &store,
        context: context.clone(),
        judges,
        bench: bench(&events)?,
        desk: Desk::new(board, options.roles.clone(), work.handle().clone(), events.clone()),
        events,
        mailer,
        site: options.site.clone(),
        deferred: Vec::new(),
        changed: true,
        deployed: false,
        outage: Outage::default(),
        views: Views::default(),
        unruled: Outage::default(),
        telling: Telling::default(),
    };
    let opening = control.open(options.clock.now_ms(), lease.epoch, env!("CARGO_PKG_VERSION"));
    hands.perform(&mut control, opening).await?;
    let (tables, known) = (Arc::clone(&context.lake), ledger_shown.clone());
    let (every, (passes, looks)) = (options.observe, watch::channel(0));
    let paces = (every.min(FIRST_LOOK), every);
    let looking = tokio::spawn(observe::watch_tables(tables, known, hands.events.clone(), paces, passes));
    let (facts, known) = (store.clone(), ledger_shown.clone());
    let copying =
        tokio::spawn(keep_copying(copy.clone(), facts, known, options.clock.clone(), context.epoch));
    let tidying = tokio::spawn(keep_tidy(state.clone(), options.clock.clone(), options.observe));
    let upward = Upward { ledger: ledger_shown, context, store: store.clone(), mesh: mesh_shown };
    if let Some(forge) = options.forge.clone() {
        tokio::spawn(keep_told(forge, store.clone(), state.clone(), upward.ledger.clone(), shutdown.clone()));
    }
    let servers = surround(&options, upward, &shutdown, around);
    // Commits that came while nobody looked are passed over now, and told so.
    let (hints, clock) = (Hints::of(&state), options.clock.clone());
    let watching = Watching::start(watcher, ahead, options.poll, hints, &control.ledger, clock);
    let mut turning = Loop {
        control,
        hands,
        lease,
        inbox,
        watching,
        reference,
        show_ledger,
        show_mesh,
        ruled: false,
        commands_read: 0,
        once: options.once.then(|| {
            let about = options.kept.as_ref().and_then(|kept| kept.about.clone());
            Once::new(looks, options.clock.clone(), about)
        }),
    };
    let result = turning.turn(options.tick, &shutdown).await;
    shutdown.cancel();
    turning.hands.desk.stop();
    if result.is_ok() {
        turning.drain().await;
    }
    let Loop { control, lease, watching, show_ledger, .. } = turning;
    show_ledger.send_replace(Arc::new(control.ledger));
    watching.stop();
    looking.abort();
    tidying.abort();
    // Between two commits or within one: the copy itself says how far it goes.
    copying.abort();
    let _ = copying.await;
    if result.is_ok() {
        let writer = Writer { epoch: lease.epoch, at_ms: options.clock.now_ms() };
        if let Err(error) = copy.catch_up(&store, writer).await {
            let why = crate::text::chain(&error);
            tracing::warn!("the last facts are not in the lake's copy of the ledger yet: {why}");
        }
    }
    drop(work);
    servers.end().await;
    if result.is_ok() {
        seat::leave(&store, lease).await?;
    }
    store.close().await;
    result
}

/// The thread of the servers, if there is one.
pub(super) struct Servers(Option<std::thread::JoinHandle<()>>);

impl Servers {
    /// Waits until they have answered what was asked and shown the last word of the ledger, for a bounded time.
    pub async fn end(self) {
        let Some(thread) = self.0 else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join().is_ok());
        if !matches!(tokio::time::timeout(SERVERS_END, joined).await, Ok(Ok(true))) {
            tracing::warn!("the servers did not end in time");
        }
    }
}

/// Starts what stands around the ledger: servers, and the feature values where no follower of this process fills them.
pub(super) fn surround(
    options: &UpOptions,
    upward: Upward,
    shutdown: &CancellationToken,
    around: Around,
) -> Servers {
    let reads_values = options.roles.has(Role::Serve) || options.roles.has(Role::Work);
    if reads_values && !options.roles.has(Role::Stream) {
        let (context, ledger) = (upward.context.clone(), upward.ledger.clone());
        tokio::spawn(keep_online(context, ledger, shutdown.clone()));
    }
    let shows = options.roles.has(Role::Serve) || options.once;
    Servers(if shows { around(upward, shutdown.clone()) } else { None })
}

/// Returns what steps use.
pub(super) async fn context(
    options: &UpOptions,
    settings: Environment,
    blobs: Arc<dyn Blobs>,
    epoch: u64,
) -> Result<Context, UpError> {
    supported(&options.environment, &settings)?;
    let spill = options.state.join("spill");
    create(&spill)?;
    Ok(Context {
        environment: options.environment.clone(),
        lake: Arc::new(Lake::open(lake_folder(&options.state, &settings)).await?),
        settings,
        state: options.state.clone(),
        engine: Engine::new(&EngineConfig { memory_bytes: QUERY_MEMORY_BYTES, spill })?,
        blobs,
        clock: options.clock.clone(),
        epoch,
        online: Arc::new(Online::new()),
        previews: Arc::new(Offers::of(&options.state)),
    })
}

/// Starts whoever asks the gate.
pub(super) fn bench(events: &mpsc::Sender<Event>) -> Result<Bench, UpError> {
    let wrap = |source| UpError::Io { action: "start the thread of the gate".to_owned(), source };
    Bench::start(events.clone()).map_err(wrap)
}

/// The runtime of steps. A start that is refused half-way lets it go like an orderly end does: dropped as it is, it would wait
/// for its threads, which the verb's runtime forbids with a panic.
pub(super) struct WorkThreads(Option<tokio::runtime::Runtime>);

impl WorkThreads {
    pub fn start() -> Result<Self, UpError> {
        let runtime = work_runtime();
        runtime
            .map(|runtime| Self(Some(runtime)))
            .map_err(|source| UpError::Io { action: "start the work threads".to_owned(), source })
    }

    pub fn handle(&self) -> &tokio::runtime::Handle {
        self.0.as_ref().expect("there until it is dropped").handle()
    }
}

impl Drop for WorkThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Keeps what runs say; a process without it does its work all the same.
pub(super) fn keep_logs(state: &Path) {
    if let Err(error) = crate::runlog::keep_in(state) {
        tracing::warn!("what runs say is not kept: {error}");
    }
}

pub(super) fn create(folder: &Path) -> Result<(), UpError> {
    crate::disk::create_folders(folder)
        .map_err(|source| UpError::Io { action: format!("create {}", folder.display()), source })
}

/// Returns the lake's folder: relative ones lie in the state folder.
#[must_use]
pub fn lake_folder(state: &Path, settings: &Environment) -> PathBuf {
    state.join(&settings.lake_path)
}

/// What is known of an environment before anything is led.
struct Settled {
    settings: Environment,
    /// The environment that it comes after.
    before: Option<Environment>,
    watcher: Watcher,
}

impl Settled {
    fn of(
        options: &UpOptions,
        environments: &BTreeMap<String, Environment>,
        watcher: Watcher,
    ) -> Result<Self, UpError> {
        let settings = settings(options, environments)?;
        let before = settings.after.as_ref().and_then(|after| environments.get(&after.environment)).cloned();
        Ok(Self { settings, before, watcher })
    }
}

/// Opens the repository and reads the environment's settings from where its reference is.
async fn first_look(options: &UpOptions) -> Result<Settled, UpError> {
    if let Some(kept) = &options.kept {
        let (watcher, reading) = kept.read().await?;
        return Settled::of(options, &reading.desired.mesh.environments, watcher);
    }
    let wrap = |source| UpError::Repo { repo: options.repo.clone(), source };
    let cache = options.state.join("repo");
    // The reference of the environment is in the mesh itself; the repository's HEAD tells where to look first.
    let bootstrap = Watcher::open(&options.repo, &cache, "HEAD").map_err(wrap)?.with(options.signers.clone());
    let Some(head) = bootstrap.poll(None, None).map_err(wrap)? else {
        return Err(UpError::Environment {
            name: options.environment.clone(),
            known: "an empty repository".to_owned(),
        });
    };
    let line = if options.signers.is_some() { accepted(options).await? } else { None };
    let now_ms = options.clock.now_ms();
    let settled = |watcher: Watcher, head: &CommitInfo| -> Result<Settled, UpError> {
        let looked = watcher.look(head, &BTreeMap::new(), line.clone(), now_ms).map_err(wrap)?;
        // What is refused as a whole has been read as it was when it was last accepted, if it ever was.
        if !looked.reading.readable && looked.reading.desired.mesh.environments.is_empty() {
            let found = &looked.reading.findings;
            let refuses = |it: &&Diagnostic| [codes::SIGNATURE, codes::HISTORY].contains(&it.code);
            let unsigned = found.iter().find(|it| refuses(it) && it.file == "mesh.yaml");
            if let Some(first) = unsigned {
                return Err(UpError::Unsigned {
                    why: format!("{} {}: {}", first.code, first.file, first.message),
                });
            }
        }
        Settled::of(options, &looked.reading.desired.mesh.environments, watcher)
    };
    let first = settled(bootstrap, &head.commit)?;
    let watcher = Watcher::open(&options.repo, &cache, &first.settings.r#ref).map_err(wrap)?;
    let watcher = watcher.with(options.signers.clone());
    if options.signers.is_none() {
        return Ok(Settled { watcher, ..first });
    }
    // The branch that the environment follows has the last word, for it is the one that is judged.
    match watcher.poll(None, None).map_err(wrap)? {
        Some(head) => settled(watcher, &head.commit),
        None => Ok(Settled { watcher, ..first }),
    }
}

/// Returns up to where signatures were judged, as the ledger says that was kept in this state folder.
async fn accepted(options: &UpOptions) -> Result<Option<Line>, UpError> {
    let Some(place) = Place::found(&options.state)? else { return Ok(None) };
    match Store::open_at(&place, OpenMode::ReadOnly).await {
        Ok(store) => {
            let line = ledger::replay(&store).await?.line;
            store.close().await;
            Ok(line.as_deref().cloned())
        }
        // It is made, or brought up to date, by the controller that begins here.
        Err(StoreError::Absent { .. } | StoreError::OlderSchema { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the settings of the environment that was asked for, with what the command line puts in their place.
pub(super) fn settings(
    options: &UpOptions,
    environments: &BTreeMap<String, Environment>,
) -> Result<Environment, UpError> {
    let Some(settings) = environments.get(&options.environment) else {
        let known: Vec<&str> = environments.keys().map(String::as_str).collect();
        return Err(UpError::Environment { name: options.environment.clone(), known: known.join(", ") });
    };
    let mut settings = settings.clone();
    if let Some(brokers) = &options.brokers {
        settings.stream = hydromesh_core::model::StreamKind::Kafka { brokers: brokers.clone() };
    }
    Ok(settings)
}

/// Refuses an environment that asks for more than there is: going on with something else would lose data quietly.
fn supported(name: &str, settings: &Environment) -> Result<(), UpError> {
    let refuse = |what: &str| Err(UpError::Unsupported { name: name.to_owned(), what: what.to_owned() });
    if settings.lake_path.contains("://") {
        return refuse("a lake in an object store; give `lake: {path: FOLDER}`");
    }
    Ok(())
}
