//! `hydromesh diff BASE..HEAD`: what a pull request means for products and their readers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hydromesh_core::compat::{Bump, Change, bump, compare};
use hydromesh_core::diag::{Diagnostic, Severity, Spot, codes};
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{Entry, Fact, LedgerState};
use hydromesh_core::plan::{Desired, Plan, dependency_order, plan};
use serde_json::{Value, json};

use super::output::{Paint, Tone};
use super::{DONE, FINDINGS, Failure, clock, print, print_json};
use crate::control::{Reading, begin_at, findings, read};
use crate::repo::{CommitId, Repository};

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Two commits or branches: `main..feature`, or `main` for `main..HEAD`.
    #[arg(value_name = "BASE..HEAD")]
    range: String,
    /// The mesh's folder in its repository.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    path: PathBuf,
    /// Exit with 1 when a contract breaks its readers, or its version does not say so.
    #[arg(long)]
    exit_code: bool,
    /// Also judge signatures, as `up --signers` would if the base were accepted.
    #[arg(long, value_name = "FOLDER")]
    signers: Option<PathBuf>,
    /// Count partitions as of this instant (RFC 3339).
    #[arg(long, value_name = "INSTANT")]
    clock: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: DiffFormat,
}

/// How a difference is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DiffFormat {
    /// For people.
    Human,
    /// For programs.
    Json,
    /// For the comment on a pull request.
    Markdown,
}

/// What became of one port's contract.
struct PortDiff {
    port: PortId,
    old: String,
    new: String,
    changes: Vec<Change>,
    needed: Bump,
    suggested: Option<String>,
    /// Readers that a change may break, with the columns that they read.
    broken: BTreeMap<String, Vec<String>>,
}

impl PortDiff {
    fn enough(&self) -> bool {
        self.suggested.is_none()
    }
}

/// Runs the verb.
pub fn run(args: &DiffArgs) -> Result<u8, Failure> {
    let now_ms = clock(args.clock.as_deref())?.now_ms();
    let outside = |error: crate::repo::RepoError| Failure::outside(&error);
    let (repository, prefix) = Repository::discover(&args.path).map_err(outside)?;
    let (base, head) = args.range.split_once("..").unwrap_or((&args.range, "HEAD"));
    let head = if head.is_empty() { "HEAD" } else { head.trim_start_matches('.') };
    let resolve = |name: &str| -> Result<CommitId, Failure> {
        let found = repository.resolve(name).map_err(outside)?;
        found.ok_or_else(|| {
            Failure::usage(format!("{name} is no commit or branch of {}", args.path.display()))
        })
    };
    let (head, mut base) = (resolve(head)?, resolve(base)?);
    // A branch is compared with where it left the other: what came in there since is not its doing.
    if let Some(fork) = repository.merge_base(&base, &head).map_err(outside)? {
        base = fork;
    }
    let look = |commit: &CommitId, deployed| -> Result<Reading, Failure> {
        let snapshot = repository.snapshot(commit).and_then(|it| it.subfolder(&prefix)).map_err(outside)?;
        Ok(read(&snapshot, commit.as_str(), deployed))
    };
    let nothing = BTreeMap::new();
    let before = look(&base, &nothing)?;
    let ledger = as_deployed(&before.desired);
    let prints = ledger
        .deployed
        .values()
        .flat_map(|it| it.print.ports.iter().map(|(name, print)| (it.product.port(name), print.clone())))
        .collect();
    let after = look(&head, &prints)?;
    let order = dependency_order(after.desired.mesh.products.values());
    let plan = plan(&after.desired, &order, &ledger, "diff", now_ms);
    let ports = ports(&before.desired, &after.desired);
    let unsigned = unsigned(args, &repository, &prefix, (&base, &head), now_ms)?;
    let mut new: Vec<&Diagnostic> = after
        .findings
        .iter()
        .filter(|it| it.severity != Severity::Note)
        .filter(|it| {
            !before
                .findings
                .iter()
                .any(|old| (old.code, &old.file, &old.message) == (it.code, &it.file, &it.message))
        })
        .collect();
    new.extend(&unsigned);
    match args.format {
        DiffFormat::Json => print_json(&as_json(&base, &head, &plan, &ports, &new)),
        DiffFormat::Human => print(&human(&base, &head, &plan, &ports, &new)),
        DiffFormat::Markdown => print(&markdown(&base, &head, &plan, &ports, &new)),
    }
    let errors = new.iter().any(|it| it.severity == Severity::Error);
    let breaks = ports.iter().any(|it| it.needed == Bump::Major && !it.enough() || !it.broken.is_empty());
    Ok(if errors || (args.exit_code && breaks) { FINDINGS } else { DONE })
}

/// Returns what would be refused for want of a signature.
fn unsigned(
    args: &DiffArgs,
    repository: &Repository,
    prefix: &str,
    (base, head): (&CommitId, &CommitId),
    now_ms: i64,
) -> Result<Vec<Diagnostic>, Failure> {
    let Some(trust) = super::up::signers(args.signers.as_deref())? else { return Ok(Vec::new()) };
    if !prefix.is_empty() {
        return Err(Failure::usage("--signers wants a mesh at the root of its repository"));
    }
    let outside = |error: crate::repo::RepoError| Failure::outside(&error);
    let line = begin_at(repository, base).map_err(outside)?;
    let judged = trust.judge(repository, head, Some(&line), now_ms).map_err(outside)?;
    let held = judged.held.map(|why| Diagnostic::new(codes::HISTORY, "mesh.yaml", Spot::FILE, why));
    let refused = findings(&judged.verified.refused).into_iter().map(|(_, finding)| finding);
    Ok(held.into_iter().chain(refused).collect())
}

/// A ledger in which the base commit is what runs.
fn as_deployed(desired: &Desired) -> LedgerState {
    let mut ledger = LedgerState::default();
    for (id, product) in &desired.mesh.products {
        let Some(print) = desired.prints.get(id) else { continue };
        let fact = Fact::Deployed {
            generation: 1,
            commit: desired.commit.clone(),
            decision: String::new(),
            product: Box::new(product.clone()),
            print: print.clone(),
        };
        ledger.apply(&Entry { seq: ledger.seq + 1, at_ms: 0, fact });
    }
    ledger
}

fn ports(before: &Desired, after: &Desired) -> Vec<PortDiff> {
    let mut found = Vec::new();
    for product in before.mesh.products.values() {
        for (name, output) in &product.outputs {
            let port = product.port(name);
            let Some(now) = after.mesh.output(&port) else { continue };
            let changes = compare(&output.contract, &now.contract);
            if changes.is_empty() && output.contract.version == now.contract.version {
                continue;
            }
            let needed = bump(&changes);
            // `compare` itself tells when the version did not rise as far as the changes ask.
            let lagging = changes.iter().any(|change| change.field == "version");
            let suggested = lagging.then(|| raised(&output.contract.version, needed)).flatten();
            let broken = broken(before, after, &port, &changes);
            let (old, new) = (output.contract.version.clone(), now.contract.version.clone());
            let changes = changes.into_iter().filter(|change| change.field != "version").collect();
            found.push(PortDiff { port, old, new, changes, needed, suggested, broken });
        }
    }
    found
}

/// Returns the readers that a change may break: those that still read a column of it at the head, or no longer check.
fn broken(
    before: &Desired,
    after: &Desired,
    port: &PortId,
    changes: &[Change],
) -> BTreeMap<String, Vec<String>> {
    let breaking: Vec<&str> =
        changes.iter().filter(|it| it.breaks_forward).filter_map(|it| it.column.as_deref()).collect();
    let mut broken = BTreeMap::new();
    for (reader, print) in before.prints.iter().filter(|(reader, _)| **reader != port.product) {
        let Some(columns) = print.reads.get(port) else { continue };
        let still = |column: &str| match after.prints.get(reader) {
            Some(now) => now.reads.get(port).is_some_and(|columns| columns.contains(column)),
            // A reader that left the mesh in the same commit reads nothing any more.
            None => after.broken.contains_key(reader),
        };
        let hit: Vec<String> =
            columns.iter().filter(|it| breaking.contains(&it.as_str()) && still(it)).cloned().collect();
        if !hit.is_empty() {
            broken.insert(reader.to_string(), hit);
        }
    }
    broken
}

/// Returns the next version; as SemVer has it, before 1.0.0 the second number plays the first one's part.
fn raised(version: &str, by: Bump) -> Option<String> {
    let mut numbers = version.split('.').map(str::parse::<u64>);
    let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) =
        (numbers.next(), numbers.next(), numbers.next())
    else {
        return None;
    };
    Some(match by {
        Bump::Major if major > 0 => format!("{}.0.0", major + 1),
        Bump::Major | Bump::Minor => format!("{major}.{}.0", minor + 1),
        Bump::Patch => format!("{major}.{minor}.{}", patch + 1),
    })
}

fn word(bump: Bump) -> &'static str {
    match bump {
        Bump::Patch => "patch",
        Bump::Minor => "minor",
        Bump::Major => "major",
    }
}

fn as_json(base: &CommitId, head: &CommitId, plan: &Plan, ports: &[PortDiff], new: &[&Diagnostic]) -> Value {
    let contracts: Vec<Value> = ports
        .iter()
        .map(|it| {
            json!({
                "port": it.port, "old_version": it.old, "new_version": it.new, "changes": it.changes,
                "needs": it.needed, "suggested_version": it.suggested, "breaks": it.broken,
            })
        })
        .collect();
    json!({
        "base": base.as_str(), "head": head.as_str(), "changes": plan.changes, "broken": plan.broken,
        "contracts": contracts, "new_findings": new,
    })
}

fn sentence(change: &Change) -> String {
    let about = match (&change.column, change.field.as_str()) {
        (Some(column), "column") => format!("column {column}"),
        (Some(column), field) => format!("{field} of {column}"),
        (None, field) => field.to_owned(),
    };
    let from_to = match (change.old.as_str(), change.new.as_str()) {
        ("", new) => format!("added: {new}"),
        (old, "") => format!("removed, was {old}"),
        (old, new) => format!("{old} to {new}"),
    };
    let effect = match (change.breaks_forward, change.breaks_backward) {
        (true, true) => " (breaks readers and history)",
        (true, false) => " (breaks readers)",
        (false, true) => " (history may violate it)",
        (false, false) => "",
    };
    let approval = if change.needs_approval { " (privacy must agree)" } else { "" };
    format!("{about} {from_to}{effect}{approval}")
}

fn version(it: &PortDiff) -> String {
    match &it.suggested {
        Some(suggested) => {
            format!("version {} asks for a {} rise: write {suggested}", it.new, word(it.needed))
        }
        None if it.old == it.new => format!("version stays {}", it.new),
        None => format!("version {} to {}", it.old, it.new),
    }
}

fn human(base: &CommitId, head: &CommitId, plan: &Plan, ports: &[PortDiff], new: &[&Diagnostic]) -> String {
    let paint = Paint::stdout();
    let mut text = format!("{}..{}\n", base.short(), head.short());
    if plan.is_empty() && plan.broken.is_empty() {
        text.push_str("  no product changes\n");
    }
    for change in &plan.changes {
        let partitions: u64 = change.partitions.values().sum();
        let compute = if partitions == 0 { String::new() } else { format!("  ({partitions} to compute)") };
        let _ = writeln!(text, "  {:<9} {}{compute}", change.kind.to_string(), change.product);
        for reason in &change.reasons {
            let _ = writeln!(text, "            {reason}");
        }
    }
    for product in &plan.broken {
        let _ = writeln!(text, "  {}    {product}", paint.text(Tone::Bad, "broken"));
    }
    if !ports.is_empty() {
        text.push_str("contracts\n");
    }
    for it in ports {
        let tone = if it.enough() { Tone::Plain } else { Tone::Bad };
        let _ = writeln!(text, "  {}: {}", it.port, paint.text(tone, &version(it)));
        for change in &it.changes {
            let tone = if change.breaks_forward { Tone::Bad } else { Tone::Plain };
            let _ = writeln!(text, "    {}", paint.text(tone, &sentence(change)));
        }
        for (reader, columns) in &it.broken {
            let _ = writeln!(text, "    {} reads {}", paint.text(Tone::Bad, reader), columns.join(", "));
        }
    }
    if !new.is_empty() {
        text.push_str("new findings\n");
    }
    for finding in new {
        let tone = if finding.severity == Severity::Error { Tone::Bad } else { Tone::Odd };
        let code = paint.text(tone, finding.code.id());
        let _ = writeln!(text, "  {code} {}:{}: {}", finding.file, finding.line, finding.message);
    }
    text.trim_end().to_owned()
}

fn markdown(
    base: &CommitId,
    head: &CommitId,
    plan: &Plan,
    ports: &[PortDiff],
    new: &[&Diagnostic],
) -> String {
    use crate::report::markdown_cell as cell;
    let mut text = format!("### Hydromesh: `{}..{}`\n", base.short(), head.short());
    if plan.is_empty() && plan.broken.is_empty() {
        text.push_str("\nNo product changes.\n");
    } else {
        text.push_str("\n| Change | Product | To compute | Why |\n| --- | --- | ---: | --- |\n");
    }
    for change in &plan.changes {
        let partitions: u64 = change.partitions.values().sum();
        let why = cell(&change.reasons.join("; "));
        let _ = writeln!(text, "| {} | `{}` | {partitions} | {why} |", change.kind, change.product);
    }
    for product in &plan.broken {
        let _ = writeln!(text, "| **broken** | `{product}` | | stays as it is deployed |");
    }
    if !ports.is_empty() {
        text.push_str("\n| Port | Version | Contract |\n| --- | --- | --- |\n");
    }
    for it in ports {
        let mut lines: Vec<String> = it.changes.iter().map(|change| cell(&sentence(change))).collect();
        lines.extend(
            it.broken
                .iter()
                .map(|(reader, columns)| format!("**breaks** `{reader}` ({})", cell(&columns.join(", ")))),
        );
        let _ = writeln!(text, "| `{}` | {} | {} |", it.port, cell(&version(it)), lines.join("<br>"));
    }
    if !new.is_empty() {
        text.push_str("\n| Code | Place | Finding |\n| --- | --- | --- |\n");
    }
    for finding in new {
        let (file, line, message) = (cell(&finding.file), finding.line, cell(&finding.message));
        let _ = writeln!(text, "| {} | {file}:{line} | {message} |", finding.code);
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_rises_as_far_as_its_change_asks() {
        let cases = [
            ("1.2.3", Bump::Major, Some("2.0.0")),
            ("1.2.3", Bump::Minor, Some("1.3.0")),
            ("1.2.3", Bump::Patch, Some("1.2.4")),
            ("0.2.3", Bump::Major, Some("0.3.0")),
            ("next", Bump::Major, None),
        ];
        for (version, by, wanted) in cases {
            assert_eq!(raised(version, by).as_deref(), wanted, "{version}");
        }
    }
}
