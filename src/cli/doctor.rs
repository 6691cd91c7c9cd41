//! `hydromesh doctor`: what is misconfigured, and how to mend it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use hydromesh_core::diag::Severity;
use serde::Serialize;
use serde_json::json;

use super::ask::again;
use super::book::Book;
use super::check::{policy_findings, read_path};
use super::output::{Paint, Tone, counted, length};
use super::policy::open_set;
use super::reach::reach;
use super::{DONE, FINDINGS, Failure, Format, print, print_json, runtime};
use crate::control::Judge;
use crate::lake::{Lake, LakeError, TableFormat, TableState};
use crate::store::{OpenMode, Place, Store};

/// Files that a process should be allowed to have open: a scan opens one per partition.
const WANTED_OPEN_FILES: u64 = 1_024;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Also check the mesh in this folder.
    path: Option<PathBuf>,
    /// The state folder of a controller (`hydromesh up --state`).
    #[arg(long, env = "HYDROMESH_STATE", default_value = ".hydromesh", value_name = "FOLDER")]
    state: PathBuf,
    /// The operator's policies instead of those compiled in: a folder or a bundle.
    #[arg(long)]
    policies: Option<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// One check.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    name: &'static str,
    verdict: Verdict,
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

pub(super) fn ok(name: &'static str, says: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Ok, says: says.into(), fix: None }
}

pub(super) fn warning(name: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Warning, says: says.into(), fix: Some(fix.into()) }
}

pub(super) fn failed(name: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Failed, says: says.into(), fix: Some(fix.into()) }
}

/// Runs the verb.
pub fn run(args: &DoctorArgs) -> Result<u8, Failure> {
    let mut checks = vec![ok("version", format!("hydromesh {}", env!("CARGO_PKG_VERSION")))];
    checks.extend(environment());
    checks.extend(policies(args));
    if let Some(path) = &args.path {
        checks.push(mesh(path, args));
    }
    checks.extend(state(args)?);
    let broken = checks.iter().any(|check| check.verdict == Verdict::Failed);
    if args.format == Format::Json {
        print_json(&json!({"healthy": !broken, "checks": checks}));
    } else {
        let paint = Paint::stdout();
        let mut lines = Vec::new();
        for check in &checks {
            let (tone, word) = match check.verdict {
                Verdict::Ok => (Tone::Good, "ok     "),
                Verdict::Warning => (Tone::Odd, "warning"),
                Verdict::Failed => (Tone::Bad, "failed "),
            };
            lines.push(format!("{} {:<11} {}", paint.text(tone, word), check.name, check.says));
            lines.extend(check.fix.iter().map(|fix| format!("                    -> {fix}")));
        }
        print(&lines.join("\n"));
    }
    Ok(if broken { FINDINGS } else { DONE })
}

fn environment() -> Vec<Check> {
    let mut checks = Vec::new();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|soft| soft.parse::<u64>().ok());
    match open_files {
        Some(most) if most < WANTED_OPEN_FILES => {
            checks.push(warning(
                "open files",
                format!("at most {most} at once"),
                format!("ulimit -n {WANTED_OPEN_FILES}"),
            ));
        }
        Some(most) => checks.push(ok("open files", format!("at most {most} at once"))),
        // "unlimited", or a system without /proc: nothing to say.
        None => {}
    }
    if let Ok(filter) = std::env::var("HYDROMESH_LOG")
        && tracing_subscriber::EnvFilter::try_new(&filter).is_err()
    {
        let fix = "write it like HYDROMESH_LOG=hydromesh=debug, or unset it";
        checks.push(warning(
            "logging",
            format!("HYDROMESH_LOG={filter} is not understood and has no effect"),
            fix,
        ));
    }
    if let Err(error) = tempfile::tempfile() {
        let fix = "make room in the temporary folder, or set TMPDIR to one that can be written";
        checks.push(failed("temp folder", format!("no file can be made in it: {error}"), fix));
    }
    checks
}

fn policies(args: &DoctorArgs) -> Vec<Check> {
    let set = match open_set(args.policies.as_deref()) {
        Ok(set) => set,
        Err(failure) => return vec![failed("policies", failure.message, "correct --policies")],
    };
    let judge = Judge::new(&set, &[]);
    let problems = judge.gate().problems();
    if let Some((_, first)) = problems.first() {
        let says = format!("{}: {}", counted(problems.len(), "problem"), first.summary());
        return vec![failed("policies", says, "until they are corrected the gate denies every deploy")];
    }
    let rules = set.sources().iter().filter(|source| !source.is_test()).count();
    let from =
        args.policies.as_ref().map_or_else(|| "compiled in".to_owned(), |path| path.display().to_string());
    vec![ok("policies", format!("{} ({from})", counted(rules, "file")))]
}

fn mesh(path: &Path, args: &DoctorArgs) -> Check {
    let reading = read_path(path, None, &BTreeMap::new()).and_then(|mut reading| {
        reading.findings.extend(policy_findings(&reading, args.policies.as_deref())?);
        Ok(reading)
    });
    match reading {
        Err(failure) => failed("mesh", failure.message, "name the folder that holds mesh.yaml"),
        Ok(reading) => {
            let errors = reading.findings.iter().filter(|it| it.severity == Severity::Error).count();
            let products = counted(reading.desired.mesh.products.len(), "product");
            if errors == 0 {
                ok("mesh", format!("{products}, no errors"))
            } else {
                let says = format!("{products}, {}", counted(errors, "error"));
                failed("mesh", says, format!("hydromesh check {}", path.display()))
            }
        }
    }
}

fn state(args: &DoctorArgs) -> Result<Vec<Check>, Failure> {
    let folder = &args.state;
    if !folder.exists() {
        let says = format!("{} does not exist", folder.display());
        let fix = "name the state folder with --state, or start a controller with `hydromesh up`";
        return Ok(vec![warning("state", says, fix)]);
    }
    let mut checks = Vec::new();
    match tempfile::NamedTempFile::new_in(folder) {
        Ok(_) => checks.push(ok("state", format!("{} can be written", folder.display()))),
        Err(error) => {
            let fix = "the controller needs to write here: check owner, permissions and free space";
            checks.push(failed("state", format!("{} cannot be written: {error}", folder.display()), fix));
        }
    }
    let place = match Place::found(folder) {
        Ok(Some(place)) => place,
        Ok(None) => {
            let fix = "start a controller: hydromesh up --repo REPOSITORY --state FOLDER";
            checks.push(warning("ledger", "there is none yet", fix));
            return Ok(checks);
        }
        Err(error) => {
            let fix = "give the secret its value where this command runs, or remove ledger.json from the state folder";
            checks.push(failed("ledger", crate::text::chain(&error), fix));
            return Ok(checks);
        }
    };
    let sound = runtime()?.block_on(async {
        let store = Store::open_at(&place, OpenMode::ReadOnly).await?;
        let sound = store.integrity().await;
        store.close().await;
        sound
    });
    if let Err(error) = sound {
        let fix = match place {
            Place::File(_) => {
                "stop the controller, keep a copy of the state folder, and restore the ledger from a backup"
            }
            Place::Postgres { .. } => {
                "look after the server, or restore the ledger from a backup of its database"
            }
        };
        checks.push(failed("ledger", crate::text::chain(&error), fix));
        return Ok(checks);
    }
    let book = Book::read(folder)?;
    let facts = counted(usize::try_from(book.ledger.seq).unwrap_or(usize::MAX), "fact");
    checks.push(ok("ledger", format!("{facts}, whole, numbered without gaps")));
    if book.unknown > 0 {
        let unknown = usize::try_from(book.unknown).unwrap_or(usize::MAX);
        let says = format!("{} {} written by a newer version", counted(unknown, "fact"), were(unknown));
        checks.push(warning("version", says, "use the version of hydromesh that the controller runs"));
    }
    checks.push(if book.is_led {
        ok("controller", "running")
    } else {
        warning(
            "controller",
            "not running: nothing is watched, computed or sent",
            "hydromesh up --repo REPOSITORY --state FOLDER",
        )
    });
    checks.extend(lake(&book)?);
    checks.extend(reach(&book)?);
    checks.extend(work(&book));
    Ok(checks)
}

/// Compares what the ledger says was published with what is in the lake.
fn lake(book: &Book) -> Result<Vec<Check>, Failure> {
    let folder = match book.lake() {
        Ok(folder) => folder,
        Err(failure) => return Ok(vec![warning("lake", failure.message, "check it where it is")]),
    };
    if book.ledger.ports.is_empty() {
        return Ok(vec![ok("lake", format!("{}, nothing published yet", folder.display()))]);
    }
    if !folder.is_dir() {
        let says = format!("{} is gone, though the ledger has published tables in it", folder.display());
        return Ok(vec![failed(
            "lake",
            says,
            "bring the folder back, or correct the environment's lake path",
        )]);
    }
    let mut checks = Vec::new();
    let mut sound = 0;
    runtime()?.block_on(async {
        let lake = match Lake::open(&folder).await {
            Ok(lake) => lake,
            Err(error) => {
                checks.push(failed("lake", crate::text::chain(&error), "check the folder's permissions"));
                return;
            }
        };
        for (port, state) in &book.ledger.ports {
            let Some(product) = book.ledger.deployed.get(&port.product).map(|it| &it.product) else {
                continue;
            };
            let Some(output) = product.outputs.get(&port.port) else { continue };
            let again = again(product);
            let format = match output.format {
                hydromesh_core::model::TableFormat::Delta => TableFormat::Delta,
                hydromesh_core::model::TableFormat::Iceberg => TableFormat::Iceberg,
            };
            let found = match lake.table(&port.to_string(), format) {
                Ok(table) => table.state().await,
                Err(error) => Err(error),
            };
            match found {
                Ok(TableState::Known(table)) if table.version.0 >= state.version => sound += 1,
                Ok(TableState::Known(table)) => {
                    let says = format!(
                        "{port} is at version {}, the ledger published {}",
                        table.version.0, state.version
                    );
                    let fix = format!("the table was put back; {again}");
                    checks.push(failed("lake", says, fix));
                }
                Ok(TableState::Absent) => {
                    let says = format!(
                        "the table of {port} is gone, though the ledger published version {}",
                        state.version
                    );
                    let fix = format!("bring it back; otherwise {again}");
                    checks.push(failed("lake", says, fix));
                }
                Err(error) => {
                    let says = format!("{port} cannot be read: {}", crate::text::chain(&error));
                    let fix = match &error {
                        // While it lies there, computing it again fails as reading it does.
                        LakeError::Moved { location, .. } => format!(
                            "bring it back to {}, or move {} out of the lake; then {again}",
                            location.display(),
                            lake.root().join(port.to_string()).display()
                        ),
                        _ => format!("bring it back; otherwise {again}"),
                    };
                    checks.push(failed("lake", says, fix));
                }
            }
        }
    });
    checks.insert(0, ok("lake", format!("{} as published in {}", counted(sound, "table"), folder.display())));
    Ok(checks)
}

fn were(count: usize) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

/// What waits for a person.
fn work(book: &Book) -> Vec<Check> {
    let mut checks = Vec::new();
    if !book.ledger.failed.is_empty() {
        let steps = book.ledger.failed.len();
        let says = format!("{} failed and {} not repaired", counted(steps, "step"), were(steps));
        checks.push(warning("runs", says, "hydromesh runs --failed; hydromesh why-not PRODUCT"));
    }
    let unsent: Vec<i64> = book
        .ledger
        .episodes
        .iter()
        .flat_map(|(id, episode)| episode.transitions.iter().map(move |it| (id, it)))
        .filter(|(_, (_, alert))| alert.state == hydromesh_core::ledger::AlertState::Firing)
        .flat_map(|(id, (at, alert))| alert.targets.iter().map(move |to| (id, *at, alert.transition, to)))
        .filter(|(id, _, transition, to)| {
            !book.ledger.sent.contains_key(&hydromesh_core::control::outbox_id(id, *transition, to))
        })
        .map(|(_, at, ..)| at)
        .collect();
    if let Some(oldest) = unsent.iter().min() {
        let says = format!(
            "{} not accepted by a mail server, the oldest for {}",
            counted(unsent.len(), "message"),
            length(book.now_ms - oldest)
        );
        checks.push(warning(
            "mail",
            says,
            "check `mail.smtp` of the environment in mesh.yaml, and that the controller runs",
        ));
    }
    if !book.ledger.pending.is_empty() {
        let says = format!("{} without an answer", counted(book.ledger.pending.len(), "command"));
        checks.push(warning("commands", says, "start the controller; it answers them in order"));
    }
    checks
}
