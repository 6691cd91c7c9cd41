//! `hydromesh plan [PATH]`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hydromesh_core::cost::Costs;
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::LedgerState;
use hydromesh_core::plan::{ChangeKind, DueStep, NotDue, Plan, dependency_order, due_steps, empties, plan};
use serde_json::json;

use super::check::read_path;
use super::cost::PlanCosts;
use super::gate::Answers;
use super::output::{Paint, counted};
use super::{DENIED, DONE, FINDINGS, Failure, StateArgs, clock, print, print_json, runtime, state_of};
use crate::control::replay;
use crate::store::{OpenMode, Place, Store};

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The mesh: a folder, or a repository with `--rev`.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Plan this commit or branch of the repository.
    #[arg(long)]
    rev: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    /// Exit with 1 when there are changes.
    #[arg(long)]
    exit_code: bool,
    /// Also ask the policies about each change, and exit with 3 when one would be denied.
    #[arg(long)]
    gate: bool,
    /// With --gate: the operator's policies instead of those compiled in, a folder or a bundle.
    #[arg(long, requires = "gate")]
    policies: Option<PathBuf>,
    /// Plan as of this instant (RFC 3339).
    #[arg(long)]
    clock: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: PlanFormat,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlanFormat {
    /// For people.
    Human,
    /// For programs.
    Json,
    /// For the comment on a pull request.
    Markdown,
}

/// Reads the ledger of a state folder; an environment without one has nothing deployed.
pub fn read_ledger(state: &std::path::Path) -> Result<LedgerState, Failure> {
    let Some(place) = Place::found(state).map_err(|error| Failure::outside(&error))? else {
        return Ok(LedgerState::default());
    };
    runtime()?.block_on(async {
        let store =
            Store::open_at(&place, OpenMode::ReadOnly).await.map_err(|error| Failure::outside(&error))?;
        let ledger = replay(&store).await.map_err(|error| Failure::outside(&error))?;
        store.close().await;
        Ok(ledger)
    })
}

/// Runs the verb.
pub fn run(args: &PlanArgs) -> Result<u8, Failure> {
    let now_ms = clock(args.clock.as_deref())?.now_ms();
    let state = state_of(&args.state.state, Some(&args.state.env))?;
    let ledger = read_ledger(&state)?;
    let deployed = ledger.port_prints();
    let reading = read_path(&args.path, args.rev.as_deref(), &deployed)?;
    if !reading.readable {
        return Err(Failure {
            code: FINDINGS,
            message: format!("{}: there is no mesh.yaml", args.path.display()),
        });
    }
    let order = dependency_order(reading.desired.mesh.products.values());
    let plan = plan(&reading.desired, &order, &ledger, &args.state.env, now_ms);
    let held = empties(&reading.desired, &ledger);
    let (due, mut waiting) = due_steps(&ledger, now_ms);
    // What goes waits for nothing any more.
    let goes =
        |id: &ProductId| plan.changes.iter().any(|it| it.kind == ChangeKind::Retire && it.product == *id);
    waiting.retain(|it| held.is_some() || !goes(&it.pipeline.product));
    let places = (state.as_path(), args.path.as_path());
    let ask = || Answers::ask(args.policies.as_deref(), &reading, &plan, &ledger, places, now_ms);
    let costs = PlanCosts::of(&plan, &reading.desired, &Costs::of(&ledger));
    let answers = args.gate.then(ask).transpose()?;
    match args.format {
        PlanFormat::Json => {
            let mut value = json!({
                "environment": plan.environment,
                "commit": plan.commit,
                "changes": plan.changes,
                "broken": plan.broken,
                "held": held,
                "expected": costs.json(),
                "due": due.iter().map(|step| json!({"step": step.key, "why": step.reason})).collect::<Vec<_>>(),
                "waiting": waiting.iter().map(|it| json!({"pipeline": it.pipeline, "why": it.why})).collect::<Vec<_>>(),
            });
            if let Some(answers) = &answers {
                value["gate"] = answers.json();
            }
            print_json(&value);
        }
        PlanFormat::Human => {
            if let Some(why) = &held {
                print(&format!("the commit is held, and nothing of this happens: {why}"));
            }
            print(&human(&plan, &due, &waiting, &costs));
            if let Some(answers) = &answers {
                print(&answers.human(Paint::stdout()));
            }
        }
        PlanFormat::Markdown => {
            if let Some(why) = &held {
                print(&format!("**The commit is held, and nothing of this happens**: {why}.\n"));
            }
            print(&markdown(&plan, &due, &costs));
            if let Some(answers) = &answers {
                print(&format!("\n{}", answers.markdown()));
            }
        }
    }
    if answers.is_some_and(|answers| answers.any_denied()) {
        return Ok(DENIED);
    }
    Ok(if args.exit_code && !plan.is_empty() { FINDINGS } else { DONE })
}

fn human(plan: &Plan, due: &[DueStep], waiting: &[NotDue], costs: &PlanCosts) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "plan for {} at {}", plan.environment, plan.commit);
    if plan.is_empty() {
        let _ = writeln!(text, "  no changes");
    }
    for change in &plan.changes {
        let partitions: u64 = change.partitions.values().sum();
        let compute = match partitions {
            0 => String::new(),
            1 => format!("  (1 table or partition to compute{})", costs.spoken(&change.product)),
            n => format!("  ({n} partitions to compute{})", costs.spoken(&change.product)),
        };
        let _ = writeln!(text, "  {:<9} {}{compute}", change.kind.to_string(), change.product);
        for reason in &change.reasons {
            let _ = writeln!(text, "            {reason}");
        }
    }
    for product in &plan.broken {
        let _ = writeln!(text, "  broken    {product}: stays as it is deployed; see `hydromesh check`");
    }
    if let Some(total) = costs.total() {
        let _ = writeln!(text, "{total}");
    }
    if !due.is_empty() {
        let _ = writeln!(text, "due now: {}", counted(due.len(), "step"));
    }
    let waiting: std::collections::BTreeSet<String> = waiting
        .iter()
        .filter(|it| it.until_ms.is_none())
        .map(|it| format!("waiting: {}: {}", it.pipeline, it.why))
        .collect();
    for line in waiting {
        let _ = writeln!(text, "{line}");
    }
    text.trim_end().to_owned()
}

fn markdown(plan: &Plan, due: &[DueStep], costs: &PlanCosts) -> String {
    use crate::report::markdown_cell as cell;
    let commit = plan.commit.get(..10).unwrap_or(&plan.commit);
    let mut text = format!("### Hydromesh plan: {} at `{commit}`\n", plan.environment);
    if plan.is_empty() && plan.broken.is_empty() {
        text.push_str("\nNo changes.\n");
    } else {
        text.push_str("\n| Change | Product | To compute | Why |\n| --- | --- | ---: | --- |\n");
    }
    for change in &plan.changes {
        let partitions: u64 = change.partitions.values().sum();
        let why = cell(&change.reasons.join("; "));
        let _ = writeln!(text, "| {} | `{}` | {partitions} | {why} |", change.kind, change.product);
    }
    for product in &plan.broken {
        let _ =
            writeln!(text, "| **broken** | `{product}` | | stays as it is deployed; see `hydromesh check` |");
    }
    if let Some(total) = costs.total() {
        let _ = writeln!(text, "\nComputing: {total}.");
    }
    if !due.is_empty() {
        let _ = writeln!(
            text,
            "\n{} {} due now.",
            counted(due.len(), "step"),
            if due.len() == 1 { "is" } else { "are" }
        );
    }
    text.trim_end().to_owned()
}
