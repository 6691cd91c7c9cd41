//! Rules compiled by `opa build -t wasm`, evaluated by opa-wasm on wasmtime.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use chrono::{DateTime, Utc};
use futures::FutureExt;
use opa_wasm::{
    EvaluationContext, Policy, Runtime, TestContext,
    wasmtime::{self, StoreLimits, StoreLimitsBuilder},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    evaluator::{Answer, Asking, EvaluationError, EvaluationLimits, Evaluator, RulePackage, Verdict},
    problem::{PolicyProblem, ProblemKind},
};

/// A compiled bundle, ready to be instantiated for each input.
pub struct WasmEvaluator {
    engine: wasmtime::Engine,
    module: wasmtime::Module,
    data: Value,
    packages: Vec<RulePackage>,
    limits: EvaluationLimits,
}

impl WasmEvaluator {
    /// Compiles the module and lists its entrypoints. `<package path>/deny` and `<package path>/warn` are verdicts; the file
    /// of a package is looked up by `file_of`.
    ///
    /// # Errors
    ///
    /// When the module is not a policy, needs a function that the host lacks, or has an entrypoint that is no verdict: the
    /// gate would not ask it.
    pub fn new(
        bytes: &[u8],
        data: &Value,
        file_of: impl Fn(&str) -> String,
        limits: EvaluationLimits,
    ) -> Result<Self, PolicyProblem> {
        let problem = |message: String| PolicyProblem {
            file: "policy.wasm".to_owned(),
            line: 0,
            column: 0,
            kind: ProblemKind::Bundle,
            message,
        };
        let mut config = wasmtime::Config::new();
        config.consume_fuel(true);
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let engine = wasmtime::Engine::new(&config)?;
            let module = wasmtime::Module::new(&engine, bytes)?;
            Ok::<_, wasmtime::Error>((engine, module))
        }));
        let (engine, module) = match loaded {
            Ok(Ok(pair)) => pair,
            Ok(Err(error)) => return Err(problem(format!("the module does not compile: {error:#}"))),
            Err(_) => return Err(problem("the module cannot be compiled".to_owned())),
        };
        let mut this = Self { engine, module, data: data.clone(), packages: Vec::new(), limits };
        let (_, policy) = this.instantiate(DateTime::<Utc>::UNIX_EPOCH).map_err(problem)?;
        let mut packages: BTreeMap<String, Vec<Verdict>> = BTreeMap::new();
        for entrypoint in policy.entrypoints() {
            let verdict = match entrypoint.rsplit_once('/') {
                Some((package, "deny")) => (package, Verdict::Deny),
                Some((package, "warn")) => (package, Verdict::Warn),
                _ => {
                    return Err(problem(format!(
                        "entrypoint {entrypoint} is neither a deny nor a warn rule"
                    )));
                }
            };
            packages.entry(verdict.0.replace('/', ".")).or_default().push(verdict.1);
        }
        this.packages = packages
            .into_iter()
            .map(|(name, mut verdicts)| {
                verdicts.sort();
                RulePackage { file: file_of(&name), name, verdicts }
            })
            .collect();
        Ok(this)
    }

    fn instantiate(
        &self,
        now: DateTime<Utc>,
    ) -> Result<(wasmtime::Store<StoreLimits>, Policy<Frozen>), String> {
        let limits = StoreLimitsBuilder::new().memory_size(self.limits.wasm_memory_bytes).build();
        let mut store = wasmtime::Store::new(&self.engine, limits);
        store.limiter(|limits| limits);
        store.set_fuel(self.limits.wasm_fuel).map_err(|error| error.to_string())?;
        let policy = finish(async {
            let context = Frozen { inner: TestContext::default(), now };
            let runtime = Runtime::new_with_evaluation_context(&mut store, &self.module, context).await?;
            runtime.with_data(&mut store, &self.data).await
        })?;
        Ok((store, policy))
    }

    fn ask(&self, entrypoint: &str, input: &Value, now: DateTime<Utc>) -> Result<Option<Value>, String> {
        // An instance that trapped is not fit for another question, and one that did not is cheap to make.
        let (mut store, policy) = self.instantiate(now)?;
        store.set_fuel(self.limits.wasm_fuel).map_err(|error| error.to_string())?;
        let results: Vec<BTreeMap<String, Value>> = finish(policy.evaluate(&mut store, entrypoint, input))?;
        match <[_; 1]>::try_from(results) {
            Ok([mut result]) => Ok(result.remove("result")),
            Err(results) if results.is_empty() => Ok(None),
            Err(_) => Err("the policy gave more than one result".to_owned()),
        }
    }
}

/// Polls a future of opa-wasm to its end. None of them waits for anything outside, so one poll is enough; tokio's budget for
/// cooperation, which could make its locks pretend to wait, is lifted.
fn finish<T>(future: impl Future<Output = anyhow::Result<T>>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(|| tokio::task::unconstrained(future).now_or_never())) {
        Ok(Some(Ok(value))) => Ok(value),
        Ok(Some(Err(error))) => Err(format!("{error:#}")),
        Ok(None) => Err("the policy engine waited for something".to_owned()),
        Err(_) => Err("the policy engine failed unexpectedly".to_owned()),
    }
}

impl Evaluator for WasmEvaluator {
    fn engine(&self) -> &'static str {
        "opa-wasm"
    }

    fn packages(&self) -> &[RulePackage] {
        &self.packages
    }

    fn evaluate(&self, input: &Value, asking: &mut Asking<'_>) -> Vec<Answer<'_>> {
        let now = input
            .pointer("/request/time")
            .and_then(Value::as_str)
            .and_then(|time| DateTime::parse_from_rfc3339(time).ok())
            .map_or(DateTime::<Utc>::UNIX_EPOCH, |time| time.to_utc());
        let mut answers = Vec::new();
        for package in &self.packages {
            for &verdict in &package.verdicts {
                asking(package, verdict);
                let entrypoint = format!("{}/{}", package.name.replace('.', "/"), verdict.rule());
                let value =
                    self.ask(&entrypoint, input, now).map_err(|text| EvaluationError::new(package, &text));
                answers.push(Answer { package, verdict, value });
            }
        }
        answers
    }
}

/// The outside world as a compiled policy sees it: the time of the request, and random numbers from a fixed seed.
struct Frozen {
    inner: TestContext,
    now: DateTime<Utc>,
}

impl EvaluationContext for Frozen {
    type Rng = <TestContext as EvaluationContext>::Rng;

    fn get_rng(&mut self) -> Self::Rng {
        self.inner.get_rng()
    }

    fn now(&self) -> DateTime<Utc> {
        self.now
    }

    fn evaluation_start(&mut self) {
        self.inner.evaluation_start();
    }

    fn cache_get<K: Serialize, C: DeserializeOwned>(&mut self, key: &K) -> anyhow::Result<Option<C>> {
        self.inner.cache_get(key)
    }

    fn cache_set<K: Serialize, C: Serialize>(&mut self, key: &K, content: &C) -> anyhow::Result<()> {
        self.inner.cache_set(key, content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicySet, gate::tests::input};

    #[test]
    fn what_runs_out_at_any_point_is_an_error_and_never_an_answer() {
        let bundle = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/policy-bundle/bundle.tar.gz");
        let set = PolicySet::open(&bundle).unwrap();
        let module = set.compiled.as_deref().unwrap();
        let limits = EvaluationLimits::default();
        let mut evaluator = WasmEvaluator::new(module, set.data(), |_| String::new(), limits).unwrap();
        let whole = evaluator
            .evaluate(&input(), &mut |_, _| {})
            .into_iter()
            .map(|answer| answer.value)
            .collect::<Vec<_>>();
        let (mut answered, mut starved) = (0, 0);
        // From nothing, over enough to load the policy but not to answer, to enough for everything.
        for power in 10..=24 {
            evaluator.limits.wasm_fuel = 1 << power;
            for (answer, expected) in evaluator.evaluate(&input(), &mut |_, _| {}).into_iter().zip(&whole) {
                match answer.value {
                    Ok(value) => {
                        assert_eq!(Ok(value), *expected);
                        answered += 1;
                    }
                    Err(_) => starved += 1,
                }
            }
        }
        assert!(answered > 0 && starved > 0, "{answered} answered, {starved} starved");

        evaluator.limits = EvaluationLimits { wasm_memory_bytes: 1 << 16, ..limits };
        assert!(evaluator.evaluate(&input(), &mut |_, _| {}).iter().all(|answer| answer.value.is_err()));
        evaluator.limits = limits;
        assert!(evaluator.evaluate(&input(), &mut |_, _| {}).iter().all(|answer| answer.value.is_ok()));
        // Without its data a compiled rule must not fall silent.
        evaluator.data = Value::Null;
        let decision = crate::policy::Gate::of(Box::new(evaluator), String::new()).decide(&input());
        assert!(!decision.allow, "{decision:#?}");
    }
}
