//! `hydromesh check [PATH]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hydromesh_core::diag::{Diagnostic, Severity, Spot, codes};
use serde_json::json;

use super::output::{Paint, Tone, counted};
use super::{DONE, FINDINGS, Failure, OUTSIDE, clock, print, print_json};
use crate::control::{Judge, Reading, read};
use crate::policy::PolicySet;
use crate::repo::{FolderSource, RepoSnapshot, Repository};
use crate::report::{self, CheckReport, CheckedProduct};

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The mesh: a folder, or a repository with `--rev`.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Check this commit or branch of the repository instead of the files as they lie there.
    #[arg(long)]
    rev: Option<String>,
    /// The operator's policies instead of those compiled in: a folder or a bundle.
    #[arg(long)]
    policies: Option<PathBuf>,
    /// How to print: `github` annotates a pull request's lines, `sarif` and `junit` are for code hosts and CI servers.
    #[arg(long, value_enum, default_value = "human")]
    format: CheckFormat,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// For people.
    Human,
    /// `{"findings": [{code, severity, file, line, column, message, help}]}`.
    Json,
    /// Annotations of GitHub Actions.
    Github,
    /// SARIF 2.1.0.
    Sarif,
    /// JUnit XML, a case per product.
    Junit,
    /// For the comment on a pull request.
    Markdown,
}

/// Runs the verb.
pub fn run(args: &CheckArgs) -> Result<u8, Failure> {
    let mut reading = read_path(&args.path, args.rev.as_deref(), &BTreeMap::new())?;
    reading.findings.extend(policy_findings(&reading, args.policies.as_deref())?);
    let now_ms = clock(None)?.now_ms();
    reading.findings.extend(reading.waivers.iter().filter_map(|waiver| waiver.ended(now_ms)));
    hydromesh_core::diag::sort(&mut reading.findings);
    match args.format {
        CheckFormat::Json => print_json(&json!({"findings": reading.findings})),
        CheckFormat::Human => print(&human(&reading)),
        CheckFormat::Github if reading.findings.is_empty() => {}
        CheckFormat::Github => print(&report::github(&checked(args, &reading))),
        CheckFormat::Sarif => print_json(&report::sarif(&checked(args, &reading))),
        CheckFormat::Junit => print(&report::junit(&checked(args, &reading))),
        CheckFormat::Markdown => print(&report::markdown(&checked(args, &reading))),
    }
    let wrong = reading.findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if wrong { FINDINGS } else { DONE })
}

fn checked<'a>(args: &CheckArgs, reading: &'a Reading) -> CheckReport<'a> {
    let whole = reading.desired.mesh.products.values().map(|product| CheckedProduct {
        id: product.id.to_string(),
        folder: product.folder.clone(),
        whole: true,
    });
    let broken = reading.desired.broken.keys().map(|id| CheckedProduct {
        id: id.to_string(),
        folder: format!("domains/{}/{}", id.domain, id.name),
        whole: false,
    });
    let mut products: Vec<CheckedProduct> = whole.chain(broken).collect();
    products.sort_by(|a, b| a.id.cmp(&b.id));
    CheckReport { findings: &reading.findings, products, prefix: prefix(&args.path) }
}

/// Returns the mesh's folder as other programs count it: from the root of the repository, else from here.
fn prefix(path: &Path) -> String {
    let in_repository = Repository::discover(path).ok().map(|(_, prefix)| prefix);
    in_repository
        .unwrap_or_else(|| if path.is_absolute() { String::new() } else { path.display().to_string() })
}

/// Reads a mesh from a folder, or from a commit of a repository.
pub fn read_path(
    path: &Path,
    rev: Option<&str>,
    deployed: &BTreeMap<hydromesh_core::ids::PortId, hydromesh_core::plan::PortPrint>,
) -> Result<Reading, Failure> {
    let (snapshot, commit) = snapshot(path, rev)?;
    Ok(read(&snapshot, &commit, deployed))
}

fn snapshot(path: &Path, rev: Option<&str>) -> Result<(RepoSnapshot, String), Failure> {
    let outside = |error: crate::repo::RepoError| Failure::outside(&error);
    let Some(rev) = rev else {
        if !path.is_dir() {
            return Err(Failure { code: OUTSIDE, message: format!("{} is not a folder", path.display()) });
        }
        let snapshot = FolderSource::open(path).and_then(|folder| folder.snapshot()).map_err(outside)?;
        return Ok((snapshot, "folder".to_owned()));
    };
    let (repository, prefix) = Repository::discover(path).map_err(outside)?;
    let commit = repository.resolve(rev).map_err(outside)?;
    let commit = commit
        .ok_or_else(|| Failure::usage(format!("{rev} is no commit or branch of {}", path.display())))?;
    let snapshot =
        repository.snapshot(&commit).and_then(|snapshot| snapshot.subfolder(&prefix)).map_err(outside)?;
    Ok((snapshot, commit.as_str().to_owned()))
}

/// Returns what is wrong with the policies: the mesh's own, and the operator's.
pub fn policy_findings(reading: &Reading, central: Option<&Path>) -> Result<Vec<Diagnostic>, Failure> {
    let central = match central {
        Some(path) => PolicySet::open(path).map_err(|error| Failure::outside(&error))?,
        None => PolicySet::embedded(),
    };
    let judge = Judge::new(&central, &reading.policies);
    let findings = judge.gate().problems().into_iter().map(|(_, problem)| {
        let place = Spot::new(problem.line, problem.column);
        Diagnostic::new(codes::POLICY_SYNTAX, problem.file.clone(), place, problem.message.clone())
    });
    Ok(findings.collect())
}

fn human(reading: &Reading) -> String {
    let paint = Paint::stdout();
    let mut lines: Vec<String> = Vec::new();
    let notes = reading.findings.iter().filter(|finding| finding.severity == Severity::Note).count();
    for finding in reading.findings.iter().filter(|finding| finding.severity != Severity::Note) {
        let place = match (finding.line, finding.column) {
            (0, _) => finding.file.clone(),
            (line, 0) => format!("{}:{line}", finding.file),
            (line, column) => format!("{}:{line}:{column}", finding.file),
        };
        let tone = if finding.severity == Severity::Error { Tone::Bad } else { Tone::Odd };
        let head = paint.text(tone, &format!("{}[{}]", finding.severity, finding.code));
        lines.push(format!("{head}: {}", finding.message));
        lines.push(format!("  --> {place}"));
        for related in &finding.related {
            lines.push(format!("  see {}:{}: {}", related.file, related.line, related.message));
        }
        lines.push(format!("  help: {}", finding.help));
        lines.push(String::new());
    }
    let count = |severity| reading.findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let products = reading.desired.mesh.products.len();
    let broken = reading.desired.broken.len();
    let broken = if broken == 0 { String::new() } else { format!(", {broken} left out") };
    let notes = if notes == 0 {
        String::new()
    } else {
        format!(", {} (shown by --format json)", counted(notes, "note"))
    };
    let tone = if errors > 0 { Tone::Bad } else { Tone::Good };
    let (products, errors) = (counted(products, "product"), counted(errors, "error"));
    let warnings = counted(warnings, "warning");
    lines.push(paint.text(tone, &format!("{products}{broken}; {errors}, {warnings}{notes}")));
    lines.join("\n")
}
