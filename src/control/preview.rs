//! Builds a preview: control's own machine over a ledger that begins with what the parent has, until nothing can begin.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hydromesh_core::control::{Control, Event, Left, Limits, Question};
use hydromesh_core::diag::Diagnostic;
use hydromesh_core::ids::{DomainName, PortId, ProductId};
use hydromesh_core::ledger::{Command, Decision, Entry, ErrorKind, Finding, LedgerState, OWN_ABOVE, Verb};
use hydromesh_core::model::{Environment, Pipeline, StateKind, StreamKind};
use hydromesh_core::plan::{Bounded, Change, Desired, Newest, NotDue, bound_preview, unbuilt};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::desired::OwnRules;
use super::error::UpError;
use super::hands::Hands;
use super::judges::Judges;
use super::ledger;
use super::run::{QUERY_MEMORY_BYTES, WorkThreads, bench, create};
use super::seat::{START_MS, lead, leave, owner};
use super::telling::Telling;
use super::views::Views;
use super::watch::Watcher;
use crate::apply::Context;
use crate::clock::Clock;
use crate::cores::steps_at_once;
use crate::engine::{Engine, EngineConfig};
use crate::lake::Lake;
use crate::notify::Mailer;
use crate::online::Online;
use crate::outage::Outage;
use crate::policy::PolicySet;
use crate::preview::Offers;
use crate::repo::CommitInfo;
use crate::store::{Lease, Place, Record, Store};
use crate::work::{Board, Desk, Roles};

/// The rule that stands for what no preview builds.
pub const NOT_BUILT: &str = "not-in-a-preview";
/// How often time alone is looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(30);
/// How long steps may take to end between two commits once the process is to end.
const DRAIN: Duration = Duration::from_secs(5);

/// What a preview is made of.
#[derive(Debug, Clone)]
pub struct PreviewOptions {
    /// Repository, by URL or path.
    pub repo: String,
    /// The reference to build.
    pub reference: String,
    /// The preview's environment: `preview/NAME`.
    pub environment: String,
    /// The preview's state folder.
    pub folder: PathBuf,
    /// The parent environment.
    pub parent: String,
    /// What the parent has: its ledger, folded.
    pub inherits: LedgerState,
    /// The parent's lake.
    pub lake: PathBuf,
    /// The operator's policies; those compiled in without.
    pub policies: Option<PathBuf>,
    /// How much of partitioned pipelines is computed; without, as much as before, or the usual.
    pub newest: Option<Newest>,
    /// The clock.
    pub clock: Clock,
}

/// How building a preview ended.
#[derive(Debug)]
pub struct Built {
    /// The preview's ledger, folded.
    pub ledger: LedgerState,
    /// Publications of each port of its own before this time.
    pub published: BTreeMap<PortId, u64>,
    /// The commit that was built.
    pub commit: CommitInfo,
    /// What is wrong with it.
    pub findings: Vec<Diagnostic>,
    /// Ports of which only the newest partitions are computed.
    pub bounded: BTreeMap<PortId, Bounded>,
    /// What waits, and why.
    pub waiting: Vec<NotDue>,
    /// It was asked to end before it was done.
    pub interrupted: bool,
}

/// Builds a preview, or goes on with one, until nothing of it can begin.
///
/// # Errors
/// [`UpError`] when the repository or the ledger cannot be used, or another process builds the same preview.
pub async fn preview(options: PreviewOptions, shutdown: CancellationToken) -> Result<Built, UpError> {
    let central = match &options.policies {
        Some(path) => PolicySet::open(path)?,
        None => PolicySet::embedded(),
    };
    create(&options.folder)?;
    let place = Place::of(&options.folder, &options.environment, &StateKind::Sqlite)?;
    // Before anything that takes time: what is led is not removed, however soon it expires.
    let seat = lead(&place, &owner()).await?;
    let (store, lease) = (seat.store, seat.lease);
    let (watcher, commit) = head(&options).await?;
    let built = build(&options, central, watcher, commit, &store, lease, &shutdown).await;
    store.close().await;
    built
}

/// Returns where the reference is.
async fn head(options: &PreviewOptions) -> Result<(Watcher, CommitInfo), UpError> {
    let (repo, reference, cache) =
        (options.repo.clone(), options.reference.clone(), options.folder.join("repo"));
    let found = tokio::task::spawn_blocking(move || {
        let watcher = Watcher::open(&repo, &cache, &reference)?;
        let head = watcher.poll(None, None)?;
        let head = head.ok_or(crate::repo::RepoError::Gone(reference))?;
        Ok((watcher, head.commit))
    });
    let wrap = |source| UpError::Repo { repo: options.repo.clone(), source };
    match found.await {
        Ok(found) => found.map_err(wrap),
        Err(error) => Err(UpError::Io {
            action: "read the repository".to_owned(),
            source: std::io::Error::other(error),
        }),
    }
}

async fn build(
    options: &PreviewOptions,
    central: PolicySet,
    watcher: Watcher,
    commit: CommitInfo,
    store: &Store,
    mut lease: Lease,
    shutdown: &CancellationToken,
) -> Result<Built, UpError> {
    if store.head().await? == 0 {
        lease = inherit(options, store, lease).await?;
    }
    let known = ledger::replay(store).await?;
    let own = known.ports.iter().filter(|(_, state)| state.version > OWN_ABOVE);
    let published = own.map(|(port, state)| (port.clone(), state.published)).collect();
    let now_ms = options.clock.now_ms();
    let prints = known.port_prints();
    let (blobs, looked_at, looking) = (watcher.blobs(), commit.clone(), watcher.clone());
    let looked = tokio::task::spawn_blocking(move || looking.look(&looked_at, &prints, None, now_ms)).await;
    let looked = match looked {
        Ok(looked) => looked.map_err(|source| UpError::Repo { repo: options.repo.clone(), source })?,
        Err(error) => {
            let source = std::io::Error::other(error);
            return Err(UpError::Io { action: "read the commit".to_owned(), source });
        }
    };
    let mut reading = looked.reading;
    let mut bounded = BTreeMap::new();
    let mut settings = None;
    if reading.readable {
        settings = Some(settle(options, &mut reading.desired, granted(&watcher, options))?);
        bounded = bound_preview(&mut reading.desired, &known, options.newest, now_ms);
    }
    let work = WorkThreads::start()?;
    let spill = options.folder.join("spill");
    create(&spill)?;
    let settings = settings.unwrap_or_else(|| quiet(&options.reference));
    let mailer = Mailer::from_settings(&settings, &options.folder)?;
    let context = Context {
        environment: options.environment.clone(),
        settings,
        state: options.folder.clone(),
        lake: Arc::new(Lake::open(options.folder.join("lake")).await?.over(&options.lake)),
        engine: Engine::new(&EngineConfig { memory_bytes: QUERY_MEMORY_BYTES, spill })?,
        online: Arc::new(Online::new()),
        // A preview has none of its own.
        previews: Arc::new(Offers::of(&options.folder)),
        blobs,
        clock: options.clock.clone(),
        epoch: lease.epoch,
    };
    let mut control = Control::new(known, &options.environment, Limits { steps: steps_at_once() });
    let (events, mut inbox) = mpsc::channel(1_024);
    let board = Board::new(&options.folder, lease.epoch)?;
    let mut judges = Judges::new(central, watcher, Some(options.inherits.clone()));
    judges.note(OwnRules { policies: reading.policies, waivers: reading.waivers });
    let mut hands = Hands {
        store,
        context,
        judges,
        bench: bench(&events)?,
        desk: Desk::new(board, Roles::all(), work.handle().clone(), events.clone()),
        events,
        mailer,
        site: None,
        deferred: Vec::new(),
        changed: true,
        deployed: false,
        outage: Outage::default(),
        views: Views::default(),
        unruled: Outage::default(),
        telling: Telling::default(),
    };
    let opening = control.open(now_ms, lease.epoch, env!("CARGO_PKG_VERSION"));
    hands.perform(&mut control, opening).await?;
    let findings = reading.findings.clone();
    let desired = if reading.readable { Ok(Box::new(reading.desired)) } else { Err(reading.findings) };
    let event = Event::Commit {
        commit: commit.id.as_str().to_owned(),
        r#ref: options.reference.clone(),
        message: commit.subject().to_owned(),
        author: commit.author.clone(),
        desired,
    };
    hands.take(&mut control, [event]).await?;
    let again = retries(&control.ledger, &commit);
    hands.take(&mut control, again).await?;
    let interrupted = turn(&mut control, &mut hands, &mut inbox, &mut lease, shutdown).await?;
    leave(store, lease).await?;
    let waiting = control.waiting().collect();
    Ok(Built { ledger: control.ledger, published, commit, findings, bounded, waiting, interrupted })
}

/// Performs what is to be done until nothing can begin; returns whether it was asked to end before.
async fn turn(
    control: &mut Control,
    hands: &mut Hands<'_>,
    inbox: &mut mpsc::Receiver<Event>,
    lease: &mut Lease,
    shutdown: &CancellationToken,
) -> Result<bool, UpError> {
    let mut tick = tokio::time::interval(TICK);
    let mut renew = tokio::time::interval(RENEW);
    let mut arrived = Vec::new();
    // What failed is tried again by the next one.
    while control.left(control.now_ms()) != Left::Nothing {
        tokio::select! {
            () = shutdown.cancelled() => {
                hands.desk.stop();
                let end = async {
                    while hands.desk.is_busy() {
                        let Some(event) = inbox.recv().await else { break };
                        hands.take_facts(control, event).await?;
                    }
                    Ok::<_, UpError>(())
                };
                // What is left is computed again by the next one, like after a crash.
                let _ = tokio::time::timeout(DRAIN, end).await;
                return Ok(true);
            }
            _ = inbox.recv_many(&mut arrived, 256) => hands.take(control, arrived.drain(..)).await?,
            _ = tick.tick() => hands.take(control, [Event::Tick]).await?,
            _ = renew.tick() => {
                let now_ms = hands.store.lease_clock_ms().await?;
                *lease = hands.store.renew(lease, now_ms, START_MS).await?;
            }
        }
    }
    Ok(false)
}

/// Begins the ledger of a preview with what its parent has.
async fn inherit(options: &PreviewOptions, store: &Store, lease: Lease) -> Result<Lease, UpError> {
    let facts = options.inherits.bequest(&options.parent);
    let entry = |(at, (at_ms, fact)): (usize, _)| Entry { seq: at as u64 + 1, at_ms, fact };
    let entries: Vec<Entry> = facts.into_iter().enumerate().map(entry).collect();
    let bodies = ledger::records(&entries)?;
    let record = |(entry, (kind, body)): (&Entry, (String, String))| Record {
        seq: entry.seq,
        at_ms: entry.at_ms,
        epoch: 1,
        kind,
        body,
    };
    let records: Vec<Record> = entries.iter().zip(bodies).map(record).collect();
    // Who writes goes on above them.
    let lease = store.raise_to(&lease, 2).await?;
    store.restore(&lease, &records).await?;
    Ok(lease)
}

/// Returns the settings of a preview, those of its parent as the commit has them, and lets the commit know them by the
/// preview's name: rules and limits are looked up there. No program does what the parent does not let it: a branch grants itself nothing.
fn settle(
    options: &PreviewOptions,
    desired: &mut Desired,
    granted: Option<Environment>,
) -> Result<Environment, UpError> {
    let environments = &mut desired.mesh.environments;
    let Some(parent) = environments.get(&options.parent) else {
        let known: Vec<&str> = environments.keys().map(String::as_str).collect();
        return Err(UpError::Environment { name: options.parent.clone(), known: known.join(", ") });
    };
    let (commands, network) =
        granted.map_or_else(Default::default, |it| (it.allow_commands, it.allow_network));
    let both = |own: &[DomainName], granted: &[DomainName]| {
        own.iter().filter(|it| granted.contains(it)).cloned().collect()
    };
    let quiet = quiet(&options.reference);
    let settings = Environment {
        lake_format: parent.lake_format,
        allow_commands: both(&parent.allow_commands, &commands),
        allow_network: both(&parent.allow_network, &network),
        limits: parent.limits.clone(),
        cost: parent.cost.clone(),
        ..quiet
    };
    environments.insert(options.environment.clone(), settings.clone());
    Ok(settings)
}

/// Returns the parent's settings as the last decided commit has them; nothing where there is none, or nobody can read it.
fn granted(watcher: &Watcher, options: &PreviewOptions) -> Option<Environment> {
    let base = options.inherits.base.as_deref()?;
    match watcher.environments(base) {
        Ok(mut environments) => environments.remove(&options.parent),
        Err(error) => {
            let why = crate::text::chain(&error);
            tracing::warn!(
                "no program runs in this preview: what {} allows cannot be read: {why}",
                options.parent
            );
            None
        }
    }
}

/// Returns settings that keep everything in the preview's own folder, and tell nobody.
fn quiet(reference: &str) -> Environment {
    Environment {
        r#ref: reference.to_owned(),
        after: None,
        lake_path: "lake".to_owned(),
        lake_format: hydromesh_core::model::TableFormat::Delta,
        state: StateKind::Sqlite,
        stream: StreamKind::TopicFolder,
        smtp: None,
        mail_from: None,
        allow_commands: Vec::new(),
        allow_network: Vec::new(),
        limits: hydromesh_core::model::StepLimits::default(),
        cost: None,
        maintenance: hydromesh_core::model::Maintenance::default(),
    }
}

/// Asks for another try of what failed by no fault of the commit: somebody asks for the preview again.
fn retries(ledger: &LedgerState, commit: &CommitInfo) -> Vec<Event> {
    let failed = ledger.failed.iter().filter(|(_, attempts)| attempts.kind != ErrorKind::User);
    let mut products: Vec<&ProductId> = failed.map(|(step, _)| &step.pipeline.product).collect();
    products.dedup();
    let ask = |product: &ProductId| {
        Event::Asked(Command {
            id: format!("apply-{}-{}", ledger.seq, product),
            actor: commit.author.clone(),
            reason: "the preview is built again".to_owned(),
            verb: Verb::Retry { product: product.clone() },
        })
    };
    products.into_iter().map(ask).collect()
}

/// Returns the answer to a question about what no preview builds; the gate is not asked about that.
pub(super) fn refusal(
    question: &Question,
    desired: &Desired,
    ledger: &LedgerState,
    digest: &str,
) -> Option<Decision> {
    ledger.inherited.as_ref()?;
    let change: Change = serde_json::from_value(question.change.clone()).ok()?;
    let product = desired.mesh.products.get(&question.product)?;
    let port = unbuilt(&change, product)?;
    let made = product.pipelines.values().find(|it| *it.output() == port.port);
    let why = match made {
        Some(Pipeline::Training(_)) => format!("{port} is a model, which is not trained in a preview"),
        _ => format!("{port} follows a topic, which nothing does in a preview"),
    };
    let text = format!("{NOT_BUILT}\n{}\n{}", question.product, question.fingerprint);
    Some(Decision {
        id: hex::encode(Sha256::digest(text)).chars().take(16).collect(),
        product: question.product.clone(),
        action: question.action.clone(),
        commit: question.commit.clone(),
        fingerprint: question.fingerprint.clone(),
        allow: false,
        violations: vec![Finding {
            rule: NOT_BUILT.to_owned(),
            message: format!("{why}; what is deployed in {} is read", parent_of(ledger)),
            path: port.to_string(),
            remediation: "nothing: it is deployed when the change is merged".to_owned(),
            running: false,
        }],
        warnings: Vec::new(),
        waived: Vec::new(),
        policy_digest: digest.to_owned(),
        rules: String::new(),
        input_hash: String::new(),
    })
}

fn parent_of(ledger: &LedgerState) -> &str {
    ledger.inherited.as_ref().map_or("the parent", |it| it.parent.as_str())
}
