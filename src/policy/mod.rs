//! The gate: every deploy is asked about before it happens, and only a well-formed *yes* lets it pass.
//!
//! Three layers of rules are asked. The operator's **central** rules (compiled in from `policies/`, or given with
//! `--policies`), the **mesh's** own rules and the rules of the product's **domain**. Each layer runs in an engine of its
//! own, so the later ones can add denials and warnings but can never change what an earlier one says.
//!
//! A layer answers with two sets per package, `deny` and `warn`, of objects with a `msg`. Everything else denies: a
//! syntax error, a package without rules, an undefined or misshapen answer, an engine error, a time limit, functions that
//! call themselves, an input that does not fit `policies/gate-input.schema.json`, or a rule that reads a path which that
//! schema cannot have (it would never fire).
//!
//! A [`GateProcess`] asks the same of a process of its own, which alone ends when rules take all memory: whoever judges by rules
//! of others asks that one ([0034](../../docs/decisions/0034-gate-process.md)).
//!
//! [`Gate::decide`] is synchronous and takes milliseconds. opa-wasm offers only futures; theirs never wait for I/O, so they are
//! polled to their end on the calling thread without a runtime.

mod annotations;
mod bundle;
mod confine;
mod decision;
mod embedded;
mod evaluator;
mod gate;
mod layer;
mod lint;
mod problem;
mod process;
mod rego;
mod rules;
mod schema;
mod set;
mod testing;
mod waiver;
mod wasm;
mod wire;
mod worker;

pub use annotations::RuleMetadata;
pub use confine::confine;
pub use decision::{Decision, Enforce, Severity, SourceSet, Violation, Waived, input_hash};
pub use evaluator::{Answer, Asking, EvaluationError, EvaluationLimits, Evaluator, RulePackage, Verdict};
pub use gate::Gate;
pub use lint::lint;
pub use problem::{PolicyError, PolicyProblem, ProblemKind};
pub use process::{GateProcess, ProcessLimits};
pub use rego::RegoEvaluator;
pub use rules::Rules;
pub use schema::{INPUT_SCHEMA, input_schema, validate_input};
pub use set::{PolicySet, PolicySource, digest};
pub use testing::{FileCoverage, Measure, TestOutcome, TestReport, TestResult, run_tests};
pub use waiver::{ExpiredWaiver, Waiver, concerns};
pub use wasm::WasmEvaluator;
pub use worker::serve;
