//! Rego text evaluated by regorus.

use std::{
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
};

use anyhow::Context;
use regorus::{
    Engine,
    unstable::{Expr, Module, Ref, Rule, RuleHead},
    utils::limits::ExecutionTimerConfig,
};
use serde_json::Value;

use super::{
    evaluator::{Answer, Asking, EvaluationError, EvaluationLimits, Evaluator, RulePackage},
    problem::{PolicyProblem, ProblemKind},
    set::PolicySource,
};

/// Statements between two looks at the clock: a look costs about as much as a statement.
const TIMER_INTERVAL: NonZeroU32 = NonZeroU32::new(64).expect("64 is not zero");

/// A parsed file.
pub(super) struct ParsedFile {
    pub source: PolicySource,
    pub module: Ref<Module>,
    /// Dotted, without `data.`.
    pub package: String,
    /// Name and line of every rule, in file order; a name may come several times.
    pub rules: Vec<(String, u32)>,
}

/// Parses one file.
///
/// # Errors
///
/// The first syntax error, with its place.
pub(super) fn parse(source: &PolicySource) -> Result<ParsedFile, PolicyProblem> {
    let problem = |text: &str| PolicyProblem::from_engine_text(ProblemKind::Syntax, &source.path, text);
    guarded(|| {
        let mut engine = Engine::new();
        engine.add_policy(source.path.clone(), source.text.clone())?;
        let package = engine
            .get_policy_package_components()?
            .into_iter()
            .next()
            .map(|package| package.components.join("."))
            .unwrap_or_default();
        let module = engine.get_modules()[0].clone();
        let rules = module.policy.iter().map(|rule| rule_name(rule)).collect();
        Ok(ParsedFile { source: source.clone(), module, package, rules })
    })
    .map_err(|text| problem(&text))
}

/// Runs the engine and turns its errors and its panics into text: a bug in the engine must deny, not end the process.
pub(super) fn guarded<T>(call: impl FnOnce() -> anyhow::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err("the policy engine failed unexpectedly".to_owned()),
    }
}

pub(super) fn rule_name(rule: &Rule) -> (String, u32) {
    let refr = match rule {
        Rule::Default { refr, .. } => refr,
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
        },
    };
    let mut root: &Expr = refr;
    while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = root {
        root = refr;
    }
    (root.span().text().to_owned(), rule.span().line)
}

/// Returns an engine with files and data loaded.
///
/// # Errors
///
/// Says what the engine refused.
pub(super) fn engine(
    sources: &[PolicySource],
    data: &Value,
    limits: EvaluationLimits,
) -> Result<Engine, String> {
    guarded(|| {
        let mut engine = Engine::new();
        // A function that fails must not pass for "undefined", which would let a denial vanish.
        engine.set_strict_builtin_errors(true);
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: limits.rule_time,
            check_interval: TIMER_INTERVAL,
        });
        engine.add_extension("numbers.range".to_owned(), 2, Box::new(|given| bounded_range(&given)))?;
        engine.add_extension("numbers.range_step".to_owned(), 3, Box::new(|given| bounded_range(&given)))?;
        for source in sources {
            engine.add_policy(source.path.clone(), source.text.clone())?;
        }
        engine.add_data(regorus::Value::from_json_str(&data.to_string())?)?;
        Ok(engine)
    })
}

/// The engine's own ranges allocate what they are asked for before any limit is looked at, and a process that asks for more
/// memory than there is ends: anybody who may write a domain's rule could stop the controller.
const MAX_RANGE: usize = 100_000;

fn bounded_range(given: &[regorus::Value]) -> anyhow::Result<regorus::Value> {
    let whole = |at: usize| {
        given
            .get(at)
            .and_then(|value| value.as_i64().ok())
            .context("the ends and step of a range are integers")
    };
    let (from, to) = (whole(0)?, whole(1)?);
    let step = if given.len() > 2 { whole(2)? } else { 1 };
    anyhow::ensure!(step > 0, "the step of a range is positive");
    let numbers: Vec<regorus::Value> = std::iter::successors(Some(from), |at| {
        if from <= to {
            at.checked_add(step).filter(|at| *at <= to)
        } else {
            at.checked_sub(step).filter(|at| *at >= to)
        }
    })
    .take(MAX_RANGE + 1)
    .map(regorus::Value::from)
    .collect();
    anyhow::ensure!(numbers.len() <= MAX_RANGE, "a range may not have more than {MAX_RANGE} elements");
    Ok(regorus::Value::from(numbers))
}

/// Rego rules, parsed once and evaluated on a copy for each input.
pub struct RegoEvaluator {
    engine: Engine,
    packages: Vec<RulePackage>,
}

impl RegoEvaluator {
    /// Loads the files and makes the engine analyse them, so that mistakes show now and not at the first deploy.
    ///
    /// # Errors
    ///
    /// The first mistake found by the analysis, with its place.
    pub fn new(
        sources: &[PolicySource],
        data: &Value,
        packages: Vec<RulePackage>,
        limits: EvaluationLimits,
    ) -> Result<Self, PolicyProblem> {
        let problem = |text: String| PolicyProblem::from_engine_text(ProblemKind::Syntax, "", &text);
        let mut engine = engine(sources, data, limits).map_err(problem)?;
        if let Some(package) = packages.first()
            && let Some(verdict) = package.verdicts.first()
        {
            let rule: regorus::Rc<str> = package.question(*verdict).into();
            guarded(|| engine.compile_with_entrypoint(&rule)).map_err(problem)?;
        }
        Ok(Self { engine, packages })
    }
}

impl Evaluator for RegoEvaluator {
    fn engine(&self) -> &'static str {
        "regorus"
    }

    fn packages(&self) -> &[RulePackage] {
        &self.packages
    }

    fn evaluate(&self, input: &Value, asking: &mut Asking<'_>) -> Vec<Answer<'_>> {
        let text = input.to_string();
        let loaded = guarded(|| {
            let mut engine = self.engine.clone();
            engine.set_input(regorus::Value::from_json_str(&text)?);
            Ok(engine)
        });
        let mut answers = Vec::new();
        for package in &self.packages {
            for &verdict in &package.verdicts {
                asking(package, verdict);
                let value = match &loaded {
                    Err(text) => Err(EvaluationError::new(package, text)),
                    Ok(engine) => guarded(|| {
                        // A fresh copy per rule: a rule that hit a limit leaves its engine half-way.
                        let mut engine = engine.clone();
                        let value = engine.eval_rule(package.question(verdict))?;
                        if value == regorus::Value::Undefined {
                            return Ok(None);
                        }
                        Ok(Some(serde_json::from_str(&value.to_json_str()?)?))
                    })
                    .map_err(|text| EvaluationError::new(package, &text)),
                };
                answers.push(Answer { package, verdict, value });
            }
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are OPA's: `opa eval 'numbers.range(1, 3)'` and so on.
    #[test]
    fn ranges_are_opas_and_bounded() {
        let mut engine = engine(&[], &serde_json::json!({}), EvaluationLimits::default()).unwrap();
        let mut ask = |query: &str| {
            guarded(|| {
                engine.eval_query(query.to_owned(), false)?.result[0].expressions[0].value.to_json_str()
            })
        };
        for (query, expected) in [
            ("numbers.range(1, 3)", "[1,2,3]"),
            ("numbers.range(3, 1)", "[3,2,1]"),
            ("numbers.range(2, 2)", "[2]"),
            ("numbers.range_step(0, 10, 4)", "[0,4,8]"),
            ("numbers.range_step(10, 0, 5)", "[10,5,0]"),
            ("count(numbers.range(1, 100000))", "100000"),
        ] {
            let value = ask(query).unwrap();
            assert_eq!(value.split_whitespace().collect::<String>(), expected, "{query}");
        }
        for query in
            ["numbers.range(1, 100001)", "numbers.range(1, 1000000000000)", "numbers.range_step(1, 2, 0)"]
        {
            assert!(ask(query).is_err(), "{query}");
        }
    }
}
