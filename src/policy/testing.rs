//! Runs the tests that come with policies: `test_*` rules in `*_test.rego`, as `opa test` does.

use std::collections::BTreeSet;

use regorus::{Engine, unstable::Rule};
use serde::{Deserialize, Serialize};

use super::{
    evaluator::EvaluationLimits,
    lint::recursion,
    problem::{PolicyProblem, ProblemKind},
    rego::{self, ParsedFile, guarded},
    set::{PolicySet, PolicySource},
};

/// Whether a test run also finds out which lines the tests depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Nothing,
    /// Runs the tests once more for every statement of every rule.
    Coverage,
}

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum TestOutcome {
    Passed,
    Failed,
    /// A `todo_test_*` rule.
    Skipped,
    Error {
        message: String,
    },
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestResult {
    pub package: String,
    pub name: String,
    pub file: String,
    pub line: u32,
    #[serde(flatten)]
    pub outcome: TestOutcome,
}

/// Which lines of a rule file the tests depend on. A line is covered when at least one test notices that a statement
/// beginning on it is gone; a line that is merely executed is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCoverage {
    pub file: String,
    pub covered: Vec<u32>,
    pub not_covered: Vec<u32>,
}

/// The outcome of a run, in file order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct TestReport {
    pub tests: Vec<TestResult>,
    /// Empty unless asked for, and when a test failed: then lines cannot be told to matter.
    pub coverage: Vec<FileCoverage>,
    /// Files that cannot be loaded.
    pub problems: Vec<PolicyProblem>,
}

impl TestReport {
    /// Returns true when there was something to test, all of it loaded, and no test failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        let good = |test: &TestResult| matches!(test.outcome, TestOutcome::Passed | TestOutcome::Skipped);
        self.problems.is_empty() && !self.tests.is_empty() && self.tests.iter().all(good)
    }

    /// Returns covered lines in percent of all lines with statements; `None` when nothing was measured.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "lines of policies number far below 2^52")]
    pub fn percent_covered(&self) -> Option<f64> {
        let covered: usize = self.coverage.iter().map(|file| file.covered.len()).sum();
        let rest: usize = self.coverage.iter().map(|file| file.not_covered.len()).sum();
        (covered + rest > 0).then(|| 100.0 * covered as f64 / (covered + rest) as f64)
    }
}

/// Runs the set's tests whose `package.name` contains the filter. A compiled bundle has no tests; run them on its sources.
pub fn run_tests(set: &PolicySet, filter: Option<&str>, measure: Measure) -> TestReport {
    let mut report = TestReport::default();
    let mut files = Vec::new();
    for source in &set.sources {
        match rego::parse(source) {
            Ok(file) => files.push(file),
            Err(problem) => report.problems.push(problem),
        }
    }
    let circles = recursion(&files);
    if !circles.is_empty() {
        report.problems.extend(circles);
        return report;
    }
    let sources: Vec<PolicySource> = files.iter().map(|file| file.source.clone()).collect();
    let engine = match rego::engine(&sources, &set.data, EvaluationLimits::default()) {
        Ok(engine) => engine,
        Err(text) => {
            report.problems.push(PolicyProblem::from_engine_text(ProblemKind::Syntax, "", &text));
            return report;
        }
    };
    let mut seen = BTreeSet::new();
    for file in files.iter().filter(|file| file.source.is_test()) {
        for (name, line) in &file.rules {
            let full = format!("{}.{name}", file.package);
            let todo = name.starts_with("todo_test_");
            let wanted = filter.is_none_or(|part| full.contains(part));
            if !(todo || name.starts_with("test_")) || !wanted || !seen.insert(full.clone()) {
                continue;
            }
            let outcome = if todo { TestOutcome::Skipped } else { run_one(&engine, &full) };
            report.tests.push(TestResult {
                package: file.package.clone(),
                name: name.clone(),
                file: file.source.path.clone(),
                line: *line,
                outcome,
            });
        }
    }
    if measure == Measure::Coverage && report.passed() {
        report.coverage = coverage(set, &files, &report.tests);
    }
    report
}

fn run_one(engine: &Engine, full_name: &str) -> TestOutcome {
    let value = guarded(|| engine.clone().eval_rule(format!("data.{full_name}")));
    match value {
        Ok(regorus::Value::Bool(true)) => TestOutcome::Passed,
        Ok(_) => TestOutcome::Failed,
        Err(text) => TestOutcome::Error {
            message: PolicyProblem::from_engine_text(ProblemKind::Syntax, "", &text).summary(),
        },
    }
}

fn coverage(set: &PolicySet, files: &[ParsedFile], tests: &[TestResult]) -> Vec<FileCoverage> {
    let mut measured = Vec::new();
    for file in files.iter().filter(|file| !file.source.is_test()) {
        let others: Vec<PolicySource> =
            files.iter().map(|other| other.source.clone()).filter(|other| *other != file.source).collect();
        let Ok(base) = rego::engine(&others, &set.data, EvaluationLimits::default()) else { continue };
        // Tests of the same topic notice most changes, so they are asked first.
        let mut order: Vec<&TestResult> = tests.iter().filter(|t| t.outcome == TestOutcome::Passed).collect();
        order.sort_by_key(|test| !test.package.starts_with(&file.package));
        let (mut covered, mut not_covered) = (BTreeSet::new(), BTreeSet::new());
        for (line, text) in mutants(file) {
            let noticed = guarded(|| {
                let mut engine = base.clone();
                engine.add_policy(file.source.path.clone(), text)?;
                Ok(order.iter().any(|test| {
                    run_one(&engine, &format!("{}.{}", test.package, test.name)) != TestOutcome::Passed
                }))
            });
            if noticed.unwrap_or(true) {
                covered.insert(line)
            } else {
                not_covered.insert(line)
            };
        }
        measured.push(FileCoverage {
            file: file.source.path.clone(),
            covered: covered.difference(&not_covered).copied().collect(),
            not_covered: not_covered.into_iter().collect(),
        });
    }
    measured
}

/// Returns the file once for every statement with that statement replaced by `true`, and once for every rule without a body
/// with that rule removed; with the line on which the change begins.
fn mutants(file: &ParsedFile) -> Vec<(u32, String)> {
    let text = &file.source.text;
    let replaced = |start: u32, end: u32, by: &str| {
        let (head, tail) = (text.get(..start as usize)?, text.get(end as usize..)?);
        Some(format!("{head}{by}{tail}"))
    };
    let mut mutants = Vec::new();
    for rule in &file.module.policy {
        let span = rule.span();
        let bodies = match &**rule {
            Rule::Spec { bodies, .. } => bodies.as_slice(),
            Rule::Default { .. } => &[],
        };
        if bodies.iter().all(|body| body.query.stmts.is_empty()) {
            mutants.extend(replaced(span.start, span.end, "").map(|text| (span.line, text)));
        }
        for statement in bodies.iter().flat_map(|body| &body.query.stmts) {
            let span = &statement.span;
            mutants.extend(replaced(span.start, span.end, "true").map(|text| (span.line, text)));
        }
    }
    mutants
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(rules: &str, tests: &str) -> PolicySet {
        let source = |path: &str, text: &str| PolicySource { path: path.to_owned(), text: text.to_owned() };
        PolicySet::from_sources(vec![source("a.rego", rules), source("a_test.rego", tests)], json!({}))
    }

    #[test]
    fn outcomes_are_told_apart() {
        let report = run_tests(
            &set(
                "package a\nx := 1\n",
                "package a_test\nimport data.a\n\ntest_good if a.x == 1\ntest_bad if a.x == 2\ntest_false := false\n\
                 test_broken if to_number(\"x\") == 1\ntodo_test_later if false\nhelper if true\n",
            ),
            None,
            Measure::Nothing,
        );
        let outcomes: Vec<_> = report.tests.iter().map(|t| (t.name.as_str(), t.line, &t.outcome)).collect();
        assert_eq!(
            outcomes[..3],
            [
                ("test_good", 4, &TestOutcome::Passed),
                ("test_bad", 5, &TestOutcome::Failed),
                ("test_false", 6, &TestOutcome::Failed),
            ]
        );
        assert!(matches!(outcomes[3], ("test_broken", 7, TestOutcome::Error { .. })), "{:?}", outcomes[3]);
        assert_eq!(outcomes[4..], [("todo_test_later", 8, &TestOutcome::Skipped)]);
        assert!(!report.passed());
        let only = run_tests(
            &set("package a\nx := 1\n", "package t\ntest_x if true\ntest_y if true"),
            Some("t.test_y"),
            Measure::Nothing,
        );
        assert_eq!((only.tests.len(), only.passed()), (1, true));
    }

    #[test]
    fn nothing_to_test_and_broken_files_do_not_pass() {
        assert!(!run_tests(&set("package a\n", "package t\n"), None, Measure::Nothing).passed());
        let broken =
            run_tests(&set("package a\nx :=\n", "package t\ntest_x if true\n"), None, Measure::Nothing);
        assert!(!broken.passed());
        assert_eq!((broken.problems[0].file.as_str(), broken.problems.len()), ("a.rego", 1));
    }

    #[test]
    fn coverage_names_lines_whose_loss_nobody_notices() {
        let rules = "package a\n\nbig if {\n\tinput.n > 3\n\tinput.n < 10\n}\n\nunused := 7\n";
        let tests = "package a_test\nimport data.a\ntest_big if a.big with input as {\"n\": 5}\n\
                     test_small if not a.big with input as {\"n\": 2}\n";
        let report = run_tests(&set(rules, tests), None, Measure::Coverage);
        assert_eq!(
            report.coverage,
            [FileCoverage { file: "a.rego".to_owned(), covered: vec![4], not_covered: vec![5, 8] }]
        );
        assert_eq!(report.percent_covered().map(f64::round), Some(33.0));
    }

    #[test]
    fn the_central_rules_pass_their_tests_and_every_line_matters() {
        let report = run_tests(&PolicySet::embedded(), None, Measure::Coverage);
        let failed: Vec<_> = report.tests.iter().filter(|test| test.outcome != TestOutcome::Passed).collect();
        assert!(report.passed(), "{failed:#?} {:#?}", report.problems);
        let blind: Vec<_> = report
            .coverage
            .iter()
            .flat_map(|file| file.not_covered.iter().map(move |line| format!("{}:{line}", file.file)))
            .collect();
        assert_eq!(blind, [""; 0]);
        assert!(report.coverage.len() >= 13);
    }
}
