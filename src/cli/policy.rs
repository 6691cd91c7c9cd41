//! `hydromesh policy test | eval | explain`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hydromesh_core::ledger::Finding;
use serde_json::{Value, json};

use super::book::{Book, BookArgs};
use super::check::read_path;
use super::output::{Paint, Tone, counted, instant, short};
use super::{DENIED, DONE, FINDINGS, Failure, Format, OUTSIDE, print, print_json};
use crate::clock::rfc3339;
use crate::control::Judge;
use crate::policy::{Measure, PolicySet, TestOutcome, TestReport, Violation, run_tests};

/// Verbs of `policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// Run the tests of policies: rules named `test_*` in files named `*_test.rego`.
    Test(TestArgs),
    /// Ask the policies about an input document, as a deploy would.
    Eval(EvalArgs),
    /// Explain a decision of the ledger: what was asked, what was answered, and what to do.
    Explain(ExplainArgs),
}

/// Arguments of `policy test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// A folder of `.rego` files or a bundle; the rules compiled into this program without.
    path: Option<PathBuf>,
    /// Only tests whose package and name contain this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Also find the lines that no test would miss; takes a run of all tests for every statement.
    #[arg(long)]
    coverage: bool,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Arguments of `policy eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The input document (see policies/gate-input.schema.json); standard input with `-`.
    input: PathBuf,
    /// The operator's policies instead of those compiled in: a folder or a bundle.
    #[arg(long)]
    policies: Option<PathBuf>,
    /// Also ask the rules of the mesh in this folder.
    #[arg(long, value_name = "FOLDER")]
    mesh: Option<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Arguments of `policy explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The decision's id, or its first digits; or a product, for its newest decision.
    decision: String,
    #[command(flatten)]
    book: BookArgs,
}

/// Runs the verb.
pub fn run(verb: &PolicyVerb) -> Result<u8, Failure> {
    match verb {
        PolicyVerb::Test(args) => test(args),
        PolicyVerb::Eval(args) => eval(args),
        PolicyVerb::Explain(args) => explain(args),
    }
}

/// Opens a set of policies; those compiled in without a path.
pub fn open_set(path: Option<&Path>) -> Result<PolicySet, Failure> {
    match path {
        Some(path) => PolicySet::open(path).map_err(|error| Failure::outside(&error)),
        None => Ok(PolicySet::embedded()),
    }
}

fn test(args: &TestArgs) -> Result<u8, Failure> {
    let set = open_set(args.path.as_deref())?;
    let measure = if args.coverage { Measure::Coverage } else { Measure::Nothing };
    let report = run_tests(&set, args.filter.as_deref(), measure);
    let passed = report.passed();
    match args.format {
        Format::Json => print_json(&json!({
            "passed": passed,
            "tests": report.tests,
            "problems": report.problems,
            "coverage": report.coverage,
            "percent_covered": report.percent_covered(),
        })),
        Format::Human => print(&tests(&report)),
    }
    Ok(if passed { DONE } else { FINDINGS })
}

fn tests(report: &TestReport) -> String {
    let paint = Paint::stdout();
    let mut text = String::new();
    for problem in &report.problems {
        let _ = writeln!(text, "{} {}", paint.text(Tone::Bad, "error"), problem.summary());
    }
    let count =
        |wanted: fn(&TestOutcome) -> bool| report.tests.iter().filter(|it| wanted(&it.outcome)).count();
    for test in &report.tests {
        let (word, detail) = match &test.outcome {
            TestOutcome::Passed => continue,
            TestOutcome::Skipped => (paint.text(Tone::Faint, "skipped"), String::new()),
            TestOutcome::Failed => (paint.text(Tone::Bad, "failed"), String::new()),
            TestOutcome::Error { message } => (paint.text(Tone::Bad, "error"), format!(": {message}")),
        };
        let _ = writeln!(
            text,
            "{word} {}.{}{detail}\n  --> {}:{}",
            test.package, test.name, test.file, test.line
        );
    }
    for file in report.coverage.iter().filter(|file| !file.not_covered.is_empty()) {
        let lines: Vec<String> = file.not_covered.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "{}: no test would miss line {}", file.file, lines.join(", "));
    }
    let passed = count(|it| matches!(it, TestOutcome::Passed));
    let skipped = count(|it| matches!(it, TestOutcome::Skipped));
    let wrong = report.tests.len() - passed - skipped;
    let tone = if report.passed() { Tone::Good } else { Tone::Bad };
    let mut summary = format!("{passed} passed, {wrong} failed");
    if skipped > 0 {
        let _ = write!(summary, ", {skipped} skipped");
    }
    if report.tests.is_empty() && report.problems.is_empty() {
        summary = "no tests: a test is a rule named `test_*` in a file named `*_test.rego`".to_owned();
    }
    if let Some(percent) = report.percent_covered() {
        let _ = write!(summary, "; {percent:.1} % of the lines matter to a test");
    }
    let _ = write!(text, "{}", paint.text(tone, &summary));
    text
}

fn eval(args: &EvalArgs) -> Result<u8, Failure> {
    let name = args.input.display();
    let text = if args.input == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(&args.input)
    };
    let text =
        text.map_err(|error| Failure { code: OUTSIDE, message: format!("could not read {name}: {error}") })?;
    let input: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("{name} is not JSON: {error}")))?;
    let central = open_set(args.policies.as_deref())?;
    let own = match &args.mesh {
        Some(path) => read_path(path, None, &BTreeMap::new())?.policies,
        None => Vec::new(),
    };
    let decision = Judge::new(&central, &own).gate().decide(&input);
    let code = if decision.allow { DONE } else { DENIED };
    if args.format == Format::Json {
        print_json(&decision);
        return Ok(code);
    }
    let paint = Paint::stdout();
    let mut out = verdict(paint, decision.allow);
    let mut add = |tone: Tone, word: &str, it: &Violation| {
        let place = it.source_file.as_ref().map_or_else(String::new, |file| format!(" ({file})"));
        let path = it.path.as_ref().map_or_else(String::new, |path| format!(" [{path}]"));
        let _ = write!(out, "\n  {} {}: {}{path}{place}", paint.text(tone, word), it.rule, it.message);
        if let Some(remediation) = &it.remediation {
            let _ = write!(out, "\n    -> {}", remediation.trim());
        }
    };
    decision.violations.iter().for_each(|it| add(Tone::Bad, "deny", it));
    decision.warnings.iter().for_each(|it| add(Tone::Odd, "warn", it));
    decision.waived.iter().for_each(|it| add(Tone::Faint, "waived", &it.violation));
    let _ = write!(out, "\n  policies {}, input {}", decision.policy_digest, decision.input_hash);
    print(&out);
    Ok(code)
}

fn verdict(paint: Paint, allow: bool) -> String {
    if allow { paint.text(Tone::Good, "allowed") } else { paint.text(Tone::Bad, "denied") }
}

fn explain(args: &ExplainArgs) -> Result<u8, Failure> {
    let book = Book::open(&args.book)?;
    let decisions = &book.ledger.decisions;
    let text = args.decision.as_str();
    let by_id =
        decisions.iter().rev().find(|(_, it)| it.id == text || text.len() >= 6 && it.id.starts_with(text));
    let found = match by_id {
        Some(found) => found,
        None if text.contains('/') => {
            let id = book.product(text)?;
            let newest = decisions.iter().rev().find(|(_, it)| it.product == id);
            newest.ok_or_else(|| Failure::usage(format!("nothing was decided about {id} yet")))?
        }
        None => {
            let message =
                format!("there is no decision `{text}`; `hydromesh why PRODUCT` names the one it runs under");
            return Err(Failure::usage(message));
        }
    };
    let (at_ms, decision) = found;
    let runs = book.begun.values().filter(|it| it.decision == decision.id).count();
    let in_force = book.ledger.deployed.get(&decision.product).is_some_and(|it| it.decision == decision.id);
    if args.book.format == Format::Json {
        print_json(&json!({"at": rfc3339(*at_ms), "decision": decision, "in_force": in_force, "runs": runs}));
        return Ok(DONE);
    }
    let paint = Paint::stdout();
    let mut out = format!("decision {}  {}", decision.id, verdict(paint, decision.allow));
    let mut line = |name: &str, value: &str| {
        let _ = write!(out, "\n  {} {value}", paint.text(Tone::Faint, &format!("{name:<9}")));
    };
    line(
        "asked",
        &match decision.action.as_str() {
            "stand" => format!("may what is deployed of {} stay?", decision.product),
            action => format!("may {action} {} at commit {}?", decision.product, short(&decision.commit)),
        },
    );
    line("when", &instant(*at_ms));
    line("covers", &format!("fingerprint {}", decision.fingerprint));
    line("policies", &decision.policy_digest);
    line("input", &decision.input_hash);
    let stands = book.ledger.standing(&decision.product).is_some_and(|it| it.id == decision.id);
    let state = match (in_force, decision.allow) {
        _ if decision.action == "stand" && stands => "it is the last word on what is deployed".to_owned(),
        _ if decision.action == "stand" => "something else was deployed, or decided, since".to_owned(),
        (true, _) => format!("{} runs under it; {} began", decision.product, counted(runs, "run")),
        (false, true) => format!("another generation runs by now; {} began under it", counted(runs, "run")),
        (false, false) => "nothing was deployed under it".to_owned(),
    };
    line("in force", &state);
    let mut add = |tone: Tone, word: &str, it: &Finding| {
        let path = if it.path.is_empty() { String::new() } else { format!(" [{}]", it.path) };
        let _ = write!(out, "\n  {} {}: {}{path}", paint.text(tone, word), it.rule, it.message);
        if !it.remediation.is_empty() {
            let _ = write!(out, "\n    -> {}", it.remediation.trim());
        }
    };
    decision.violations.iter().for_each(|it| add(Tone::Bad, "deny", it));
    decision.warnings.iter().for_each(|it| add(Tone::Odd, "warn", it));
    for it in &decision.waived {
        add(Tone::Faint, "waived", &it.finding);
    }
    for it in &decision.waived {
        let _ = write!(
            out,
            "\n  {} by {} ({}), approved by {} until {}: {}",
            it.finding.rule, it.waiver, it.place, it.approver, it.expires, it.reason
        );
    }
    if decision.violations.is_empty() && decision.warnings.is_empty() && decision.waived.is_empty() {
        let _ = write!(out, "\n  no rule had anything to say");
    }
    print(&out);
    Ok(DONE)
}
