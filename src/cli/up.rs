//! `hydromesh up --repo URL|PATH`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{DONE, FINDINGS, Failure, Format, OUTSIDE, StateArgs, clock, once, runtime, servers};
use crate::control::{Around, KeptError, Trust, UpError, UpOptions, up};
use crate::forge::{Address, Forge};
use crate::serve::WebhookSecret;
use crate::work::Role;

/// Arguments of `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The repository: a URL, or a path to a bare or ordinary one.
    #[arg(long, value_name = "URL|PATH")]
    repo: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    /// The operator's policies instead of those compiled in: a folder or a bundle.
    #[arg(long)]
    policies: Option<PathBuf>,
    /// Seconds between two looks at the repository.
    #[arg(long, default_value_t = 10.0)]
    poll: f64,
    /// Seconds between two looks at the tables: whether they still show what was published.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    observe: f64,
    /// Address of the site, the look-ups and the metrics.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: std::net::SocketAddr,
    /// File with the token that commands need, and everything does when --listen is not loopback.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// File with the secret of webhooks, at least 16 characters: a push is then looked at at once and not at the next poll.
    #[arg(long)]
    webhook_secret_file: Option<PathBuf>,
    /// Where to say what became of each commit: github=https://api.github.com/repos/OWNER/REPO or
    /// gitlab=https://gitlab.com/api/v4/projects/ID.
    #[arg(long, value_name = "FORGE=URL", requires = "commit_status_token_file")]
    commit_status: Option<Address>,
    /// File with the token that may write commit statuses there, and should be allowed nothing else.
    #[arg(long, requires = "commit_status")]
    commit_status_token_file: Option<PathBuf>,
    /// What this process does; everything unless named. Processes with the same --state make one controller together.
    #[arg(long = "role", value_enum, value_delimiter = ',', value_name = "ROLE")]
    roles: Vec<Role>,
    /// Deploy only what is signed by somebody who may: a folder outside the repository, with signers.yaml and keys.
    #[arg(long, value_name = "FOLDER")]
    signers: Option<PathBuf>,
    /// State folder of the controller of the environment that this one comes after (`after` in mesh.yaml), when its ledger is
    /// not on a server. It is read, never written.
    #[arg(long, value_name = "FOLDER")]
    after_state: Option<PathBuf>,
    /// Kafka brokers instead of the environment's stream.
    #[arg(long)]
    kafka: Option<String>,
    /// End when nothing is left to do: the commit is decided about, what is due is computed, and no failed step is tried again
    /// within ten minutes. Nothing is served. Ends with 1 if a step failed or a product did not advance, with 3 if rules denied it.
    #[arg(long, conflicts_with = "roles")]
    once: bool,
    /// Let time stand still at this instant (RFC 3339), for runs that can be repeated exactly. The ledger's time never runs
    /// backwards, so a state folder that was once in the future stays there.
    #[arg(long, value_name = "INSTANT")]
    clock: Option<String>,
    /// How `--once` tells what was done.
    #[arg(long, value_enum, default_value = "human", requires = "once")]
    format: Format,
}

/// Said instead of a usage line alone: whoever has only a folder learns what a controller runs.
const NO_REPO: &str = "--repo is missing: the repository whose commits are deployed, a URL or a path, such as\n  \
                       hydromesh up --repo . --env dev --state .hydromesh\n\
                       What is in a folder and not committed is not deployed; `hydromesh check` and `hydromesh plan` look at it.";

/// Runs the verb.
pub fn run(args: &UpArgs) -> Result<u8, Failure> {
    let repo = args.repo.clone().ok_or_else(|| Failure::usage(NO_REPO))?;
    for (name, seconds) in [("poll", args.poll), ("observe", args.observe)] {
        if !(seconds.is_finite() && seconds > 0.0) {
            return Err(Failure::usage(format!("--{name} must be more than 0 seconds")));
        }
    }
    if crate::preview::is_preview(&args.state.env) {
        return Err(Failure::usage(format!("`hydromesh apply --env {}` builds a preview", args.state.env)));
    }
    let options = UpOptions {
        repo,
        environment: args.state.env.clone(),
        state: args.state.state.clone(),
        policies: args.policies.clone(),
        clock: clock(args.clock.as_deref())?,
        poll: Duration::from_secs_f64(args.poll),
        tick: Duration::from_millis(500),
        observe: Duration::from_secs_f64(args.observe),
        brokers: args.kafka.clone(),
        site: (!args.once).then(|| format!("http://{}", args.listen)),
        forge: forge(args)?,
        roles: if args.once { once::roles() } else { args.roles.iter().copied().collect() },
        signers: signers(args.signers.as_deref())?,
        once: args.once,
        after_state: args.after_state.clone(),
        kept: None,
    };
    if args.once {
        return once::run(options, args.format);
    }
    let around: Around = if options.roles.has(Role::Serve) {
        let token = secret("--token-file", args.token_file.as_deref())?;
        let webhooks = secret("--webhook-secret-file", args.webhook_secret_file.as_deref())?;
        let webhooks = webhooks.map(|text| WebhookSecret::new(&text)).transpose();
        let webhooks = webhooks.map_err(|error| Failure::usage(format!("--webhook-secret-file: {error}")))?;
        servers::around(args.listen, token.as_deref(), webhooks)?
    } else {
        Box::new(|_, _| None)
    };
    let runtime = runtime()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(signals(shutdown.clone()));
        up(options, shutdown, around).await.map_err(|error| failure(&error))?;
        Ok(DONE)
    })
}

/// Returns who may sign, if a folder is named.
pub fn signers(folder: Option<&Path>) -> Result<Option<Arc<Trust>>, Failure> {
    let open = |folder| Trust::open(folder).map(Arc::new);
    folder
        .map(open)
        .transpose()
        .map_err(|error| Failure { code: FINDINGS, message: crate::text::chain(&error) })
}

/// Returns what is in a file of one secret.
fn secret(option: &str, path: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{option} {}: {error}", path.display())))?;
    Ok(Some(text.trim().to_owned()))
}

/// Returns the forge that is told of commits, if one is named.
fn forge(args: &UpArgs) -> Result<Option<Forge>, Failure> {
    let token = secret("--commit-status-token-file", args.commit_status_token_file.as_deref())?;
    let (Some(address), Some(token)) = (args.commit_status.clone(), token) else { return Ok(None) };
    // Others cannot follow a link to this machine's own address, nor to "any".
    let reached = !args.listen.ip().is_loopback() && !args.listen.ip().is_unspecified();
    let page = reached.then(|| format!("http://{}/", args.listen));
    Forge::new(address, &token, &args.state.env, page)
        .map(Some)
        .map_err(|error| Failure::usage(format!("--commit-status: {}", crate::text::chain(&error))))
}

/// Returns how `up` failed, with the exit code that fits.
pub fn failure(error: &UpError) -> Failure {
    let code = match error {
        UpError::Environment { .. }
        | UpError::Unsupported { .. }
        | UpError::Unsigned { .. }
        | UpError::Before { .. }
        | UpError::Unproven { .. }
        | UpError::Policy(_)
        | UpError::Kept(KeptError::Nothing) => FINDINGS,
        _ => OUTSIDE,
    };
    Failure { code, message: crate::text::chain(error) }
}

/// Cancels when the process is asked to end.
pub async fn signals(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    shutdown.cancel();
}
