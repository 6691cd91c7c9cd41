//! `hydromesh up --repo URL|PATH`.

use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{DONE, FINDINGS, Failure, OUTSIDE, StateArgs, runtime, servers};
use crate::clock::Clock;
use crate::control::{Around, UpError, UpOptions, up};
use crate::work::Role;

/// Arguments of `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The repository: a URL, or a path to a bare or ordinary one.
    #[arg(long)]
    repo: String,
    #[command(flatten)]
    state: StateArgs,
    /// The operator's policies instead of those compiled in: a folder or a bundle.
    #[arg(long)]
    policies: Option<std::path::PathBuf>,
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
    token_file: Option<std::path::PathBuf>,
    /// What this process does; everything unless named. Processes with the same --state make one controller together.
    #[arg(long = "role", value_enum, value_delimiter = ',', value_name = "ROLE")]
    roles: Vec<Role>,
    /// Kafka brokers instead of the environment's stream.
    #[arg(long)]
    kafka: Option<String>,
}

/// Runs the verb.
pub fn run(args: &UpArgs) -> Result<u8, Failure> {
    for (name, seconds) in [("poll", args.poll), ("observe", args.observe)] {
        if !(seconds.is_finite() && seconds > 0.0) {
            return Err(Failure::usage(format!("--{name} must be more than 0 seconds")));
        }
    }
    let options = UpOptions {
        repo: args.repo.clone(),
        environment: args.state.env.clone(),
        state: args.state.state.clone(),
        policies: args.policies.clone(),
        clock: Clock::system(),
        poll: Duration::from_secs_f64(args.poll),
        tick: Duration::from_millis(500),
        observe: Duration::from_secs_f64(args.observe),
        brokers: args.kafka.clone(),
        site: Some(format!("http://{}", args.listen)),
        roles: args.roles.iter().copied().collect(),
    };
    let token = match &args.token_file {
        None => None,
        Some(path) => Some(
            std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("--token-file {}: {error}", path.display())))?,
        ),
    };
    let around: Around = if options.roles.has(Role::Serve) {
        servers::around(args.listen, token.as_deref().map(str::trim))?
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

/// Returns how `up` failed, with the exit code that fits.
pub fn failure(error: &UpError) -> Failure {
    let code = match error {
        UpError::Environment { .. } | UpError::Unsupported { .. } | UpError::Policy(_) => FINDINGS,
        _ => OUTSIDE,
    };
    Failure { code, message: crate::apply::chain(error) }
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
