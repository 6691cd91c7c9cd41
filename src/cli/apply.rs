//! `hydromesh apply --env preview/NAME`: builds what a branch changes, and reads the rest from the parent environment.

mod summary;

use std::path::PathBuf;

use clap::Args;
use hydromesh_core::plan::Newest;
use hydromesh_core::time::Span;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::summary::Summary;
use super::book::Book;
use super::output::Paint;
use super::up::{failure, signals};
use super::{DONE, Failure, Format, OUTSIDE, clock, print, print_json, runtime};
use crate::control::{PreviewOptions, preview};
use crate::preview::{Name, Note, PreviewError, Shelf};

/// The longest that a preview lives without being built again: a year.
const LONGEST_MS: i64 = 366 * 86_400_000;

/// Arguments of `apply`.
#[derive(Debug, Args)]
#[command(after_help = "Build a preview of a branch, look at it, and let it go:\n  \
    hydromesh apply --repo URL --ref refs/heads/rounding --env preview/rounding --state DIR\n  \
    hydromesh query --env preview/rounding --state DIR 'SELECT * FROM \"commerce/daily-revenue.daily_revenue\"'\n  \
    hydromesh apply --env preview/rounding --state DIR --drop")]
pub struct ApplyArgs {
    /// The repository: a URL, or a path to a bare or ordinary one.
    #[arg(long, required_unless_present = "drop")]
    repo: Option<String>,
    /// What to build: a branch, such as refs/heads/BRANCH.
    #[arg(long = "ref", value_name = "REF", required_unless_present = "drop")]
    reference: Option<String>,
    /// The preview: preview/NAME, with a name of a-z, 0-9 and hyphens.
    #[arg(long, value_name = "preview/NAME")]
    env: String,
    /// The environment that it reads from; it must be that of the state folder.
    #[arg(long, value_name = "ENV")]
    parent: Option<String>,
    /// The state folder of the parent's controller, which may be running.
    #[arg(long, env = "HYDROMESH_STATE", default_value = ".hydromesh", value_name = "FOLDER")]
    state: PathBuf,
    /// How long it lives from now on, such as 12h or 3d; every `apply` begins that anew.
    #[arg(long, default_value = "3d", value_name = "DURATION")]
    expires: String,
    /// How many of the newest partitions of each pipeline to compute, or `all`; as many as before, at first 7, without.
    #[arg(long, value_name = "N")]
    partitions: Option<Newest>,
    /// The operator's policies instead of those compiled in: a folder or a bundle.
    #[arg(long)]
    policies: Option<PathBuf>,
    /// Begin again from what the parent has now, and compute all of it anew.
    #[arg(long, conflicts_with = "drop")]
    refresh: bool,
    /// Remove the preview now, with everything that it computed.
    #[arg(long)]
    drop: bool,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the verb.
pub fn run(args: &ApplyArgs) -> Result<u8, Failure> {
    let name: Name =
        args.env.parse().map_err(|error: crate::preview::NameError| Failure::usage(error.to_string()))?;
    let shelf = Shelf::of(&args.state);
    if args.drop {
        shelf.drop(&name).map_err(|error| refused(&error))?;
        match args.format {
            Format::Json => print_json(&json!({"preview": name, "dropped": true})),
            Format::Human => print(&format!("{name} is removed")),
        }
        return Ok(DONE);
    }
    let expires: Span =
        args.expires.parse().map_err(|error| Failure::usage(format!("--expires: {error}")))?;
    if expires.is_zero() || expires.millis() > LONGEST_MS {
        return Err(Failure::usage("--expires must be longer than nothing and at most a year"));
    }
    let parent = Book::read(&args.state)?;
    let environment = environment(args, &parent)?;
    let lake = parent.lake()?;
    let now_ms = clock(None)?.now_ms();
    // As from the parent's state folder, so that both may move together; an absolute one stays where it is.
    let lake_note = lake.strip_prefix(&args.state).map_or_else(|_| lake.clone(), PathBuf::from);
    let reference = reference(args.reference.as_deref().unwrap_or_default());
    let note = Note {
        r#ref: reference.clone(),
        expires_ms: now_ms.saturating_add(expires.millis()),
        ..Note::new(name.clone(), environment.clone(), lake_note, now_ms)
    };
    let note = shelf.keep(&note, now_ms, args.refresh).map_err(|error| refused(&error))?;
    let options = PreviewOptions {
        repo: args.repo.clone().unwrap_or_default(),
        reference,
        environment: name.to_string(),
        folder: shelf.folder(&name),
        parent: environment,
        inherits: parent.ledger,
        lake,
        policies: args.policies.clone(),
        newest: args.partitions,
        clock: clock(None)?,
    };
    let built = runtime()?.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(signals(shutdown.clone()));
        preview(options, shutdown).await.map_err(|error| failure(&error))
    })?;
    let summary = Summary::of(&built, &note);
    match args.format {
        Format::Json => print_json(&summary.json()),
        Format::Human => print(&summary.human(Paint::stdout(), &args.state)),
    }
    if built.interrupted {
        return Err(Failure {
            code: OUTSIDE,
            message: format!("{name} was interrupted; the same command goes on where it was"),
        });
    }
    Ok(summary.code())
}

/// Returns the parent environment: that of the state folder.
fn environment(args: &ApplyArgs, parent: &Book) -> Result<String, Failure> {
    let runs = &parent.environment;
    if runs.is_empty() {
        let state = args.state.display();
        return Err(Failure::usage(format!(
            "no controller has run on {state} yet: a preview reads from an environment that is deployed"
        )));
    }
    match &args.parent {
        Some(asked) if asked != runs => {
            let state = args.state.display();
            Err(Failure::usage(format!("--parent {asked}: {state} is the state folder of {runs}")))
        }
        _ => Ok(runs.clone()),
    }
}

/// Returns a branch as a whole reference.
fn reference(text: &str) -> String {
    if text.starts_with("refs/") || text == "HEAD" { text.to_owned() } else { format!("refs/heads/{text}") }
}

/// Returns why a preview cannot be begun or removed, with the exit code that fits.
pub fn refused(error: &PreviewError) -> Failure {
    match error {
        PreviewError::Absent { .. } | PreviewError::Foreign { .. } => Failure::usage(error.to_string()),
        PreviewError::Busy { .. } | PreviewError::Io { .. } => Failure::outside(error),
    }
}
