//! The gate itself: asks every layer, and denies whenever one of them has not clearly said yes.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use serde_json::Value;

use super::{
    annotations::RuleMetadata,
    decision::{Decision, Enforce, Severity, SourceSet, Violation, input_hash},
    evaluator::{Answer, Asking, EvaluationLimits, Evaluator, RulePackage, Verdict, read_findings},
    layer::{Layer, Namespace},
    problem::PolicyProblem,
    rules::{has_rules, layers_digest},
    schema::validate_input,
    set::{PolicySet, PolicySource},
    waiver,
};

/// The rule of violations that say that a policy could not be asked.
pub(super) const POLICY_ERROR: &str = "policy-error";
/// The rule of violations that say that the input is not one that policies understand.
pub(super) const POLICY_INPUT: &str = "policy-input";
/// The rule of violations that say that whoever evaluates the policies gave no answer.
pub(super) const POLICY_UNANSWERED: &str = "policy-unanswered";
/// Faults of an input that are listed; the first says enough.
const MAX_INPUT_FAULTS: usize = 20;

/// Central rules, the mesh's rules and each domain's rules, loaded and ready to be asked.
pub struct Gate {
    central: Layer,
    mesh: Option<Layer>,
    domains: BTreeMap<String, Layer>,
}

impl Gate {
    /// Loads the three kinds of rules; a mesh or domain without files adds nothing. It never fails: what cannot be loaded is
    /// in [`Gate::problems`], and everything that it concerns is denied.
    ///
    /// The rules of the mesh and of domains see the central data document and may import central libraries.
    #[must_use]
    pub fn new(
        central: &PolicySet,
        mesh: &[PolicySource],
        domains: &BTreeMap<String, Vec<PolicySource>>,
    ) -> Self {
        Self::with_limits(central, mesh, domains, EvaluationLimits::default())
    }

    /// Like [`Gate::new`], with other bounds on an evaluation.
    #[must_use]
    pub fn with_limits(
        central: &PolicySet,
        mesh: &[PolicySource],
        domains: &BTreeMap<String, Vec<PolicySource>>,
        limits: EvaluationLimits,
    ) -> Self {
        let base = Layer::central(central, limits);
        let added = |set, namespace: &Namespace, sources: &[PolicySource]| {
            has_rules(sources)
                .then(|| Layer::from_rego(set, namespace, sources, &base.library, &central.data, limits))
        };
        let mesh = added(SourceSet::Mesh, &Namespace::mesh(), mesh);
        let domains = domains
            .iter()
            .filter_map(|(name, sources)| {
                Some((name.clone(), added(SourceSet::Domain, &Namespace::domain(name), sources)?))
            })
            .collect();
        Self { central: base, mesh, domains }
    }

    /// Returns a gate that asks one evaluator and nothing else.
    #[must_use]
    pub fn of(evaluator: Box<dyn Evaluator>, digest: String) -> Self {
        let central = Layer {
            set: SourceSet::Central,
            digest,
            evaluator: Some(evaluator),
            metadata: Vec::new(),
            problems: Vec::new(),
            library: Vec::new(),
        };
        Self { central, mesh: None, domains: BTreeMap::new() }
    }

    fn layers(&self, domain: &str) -> impl Iterator<Item = &Layer> {
        [&self.central].into_iter().chain(&self.mesh).chain(self.domains.get(domain))
    }

    /// Returns the digest of all rules that a product of the domain is judged by. It changes exactly when a decision about
    /// such a product might, so it belongs into the key of a decision.
    #[must_use]
    pub fn digest_for(&self, domain: &str) -> String {
        layers_digest(self.layers(domain).map(|layer| (layer.set, layer.digest.as_str())))
    }

    /// Returns every mistake in the loaded policies. While there is one, everything it concerns is denied.
    #[must_use]
    pub fn problems(&self) -> Vec<(SourceSet, PolicyProblem)> {
        [&self.central]
            .into_iter()
            .chain(&self.mesh)
            .chain(self.domains.values())
            .flat_map(|layer| layer.problems.iter().map(|problem| (layer.set, problem.clone())))
            .collect()
    }

    /// Returns what the comments above the loaded rules say, for people who want to know what is asked.
    #[must_use]
    pub fn metadata(&self, domain: &str) -> Vec<(SourceSet, RuleMetadata)> {
        self.layers(domain)
            .flat_map(|layer| layer.metadata.iter().map(|metadata| (layer.set, metadata.clone())))
            .collect()
    }

    /// Judges one input document. It reads no clock: the time is the input's `request.time`.
    pub fn decide(&self, input: &Value) -> Decision {
        self.decide_watched(input, &mut |_, _, _| {})
    }

    /// Judges like [`Gate::decide`]; `asking` hears of each question to each layer before it is asked.
    pub(super) fn decide_watched(
        &self,
        input: &Value,
        asking: &mut dyn FnMut(SourceSet, &RulePackage, Verdict),
    ) -> Decision {
        let domain = input.pointer("/product/domain").and_then(Value::as_str).unwrap_or_default();
        let mut violations = BTreeSet::new();
        let mut warnings = BTreeSet::new();
        let now = input
            .pointer("/request/time")
            .and_then(Value::as_str)
            .and_then(|time| DateTime::parse_from_rfc3339(time).ok());
        let mut faults = validate_input(input);
        if faults.is_empty() && now.is_none() {
            faults.push("input.request.time is not an RFC 3339 time".to_owned());
        }
        for fault in faults.iter().take(MAX_INPUT_FAULTS) {
            violations.insert(own_violation(SourceSet::Central, POLICY_INPUT, fault.clone(), None));
        }
        // Rules are undefined over keys that are missing, so their answers to such an input would mean nothing.
        if faults.is_empty() {
            for layer in self.layers(domain) {
                let set = layer.set;
                let mut asking = |package: &RulePackage, verdict| asking(set, package, verdict);
                ask(layer, input, &mut asking, &mut violations, &mut warnings);
            }
        }
        let error = violations
            .iter()
            .find(|violation| violation.rule == POLICY_ERROR || violation.rule == POLICY_INPUT)
            .map(|violation| violation.message.clone());
        let (violations, waived, expired_waivers) =
            waiver::apply(violations.into_iter().collect(), input, now);
        Decision {
            allow: violations.is_empty() && error.is_none(),
            violations,
            warnings: warnings.into_iter().collect(),
            waived,
            expired_waivers,
            policy_digest: self.digest_for(domain),
            input_hash: input_hash(input),
            engine: self.central.evaluator.as_ref().map_or("none", |evaluator| evaluator.engine()).to_owned(),
            error,
        }
    }
}

fn ask(
    layer: &Layer,
    input: &Value,
    asking: &mut Asking<'_>,
    violations: &mut BTreeSet<Violation>,
    warnings: &mut BTreeSet<Violation>,
) {
    let error = |message: String, file: &str| {
        let file = (!file.is_empty()).then(|| file.to_owned());
        own_violation(layer.set, POLICY_ERROR, message, file)
    };
    for problem in &layer.problems {
        violations.insert(error(problem.summary(), &place(&problem.file, problem.line)));
    }
    let Some(evaluator) = &layer.evaluator else {
        if layer.problems.is_empty() {
            violations.insert(error("there are no rules to ask".to_owned(), ""));
        }
        return;
    };
    let packages = evaluator.packages();
    let denies = packages.iter().any(|package| package.verdicts.contains(&Verdict::Deny));
    if layer.set == SourceSet::Central && !denies {
        violations.insert(error("the central rules declare no deny rule".to_owned(), ""));
    }
    let answers = evaluator.evaluate(input, asking);
    for package in packages {
        for verdict in &package.verdicts {
            let mut given =
                answers.iter().filter(|answer| answer.package == package && answer.verdict == *verdict);
            let name = package.question(*verdict);
            let (Some(answer), None) = (given.next(), given.next()) else {
                violations.insert(error(format!("{name} was not answered exactly once"), &package.file));
                continue;
            };
            match read_answer(layer, answer) {
                Ok(found) if *verdict == Verdict::Deny => violations.extend(found),
                Ok(found) => warnings.extend(found),
                Err((message, file)) => {
                    violations.insert(error(format!("{name} {message}"), &file));
                }
            }
        }
    }
}

/// Returns the findings of an answer, or what is wrong with it and the file to look at.
fn read_answer(layer: &Layer, answer: &Answer<'_>) -> Result<Vec<Violation>, (String, String)> {
    let package = answer.package;
    let value = answer
        .value
        .as_ref()
        .map_err(|failed| (format!("failed: {failed}"), place(&failed.0.file, failed.0.line)))?;
    let findings = read_findings(value.as_ref()).map_err(|what| (what, package.file.clone()))?;
    findings
        .into_iter()
        .map(|raw| {
            // A finding without a name gets the topic's, which is the last part of the package.
            let rule = raw
                .rule
                .unwrap_or_else(|| package.name.rsplit('.').next().unwrap_or_default().replace('_', "-"));
            let of_package = || layer.metadata.iter().filter(|metadata| metadata.package == package.name);
            let own = of_package().find(|metadata| metadata.rule.as_deref() == Some(rule.as_str()));
            let general = of_package().find(|metadata| metadata.rule.is_none());
            let both = || own.into_iter().chain(general);
            let severity = match raw.severity {
                None => both().find_map(|metadata| metadata.severity).unwrap_or_default(),
                Some(name) => Severity::parse(&name)
                    .ok_or_else(|| (format!("holds the unknown severity {name:?}"), package.file.clone()))?,
            };
            let source_file = both()
                .next()
                .map(|metadata| place(&metadata.file, metadata.line))
                .or_else(|| (!package.file.is_empty()).then(|| package.file.clone()));
            Ok(Violation {
                message: raw.message,
                path: raw.path,
                severity,
                remediation: raw
                    .remediation
                    .or_else(|| both().find_map(|metadata| metadata.remediation.clone())),
                enforce: both().find_map(|metadata| metadata.enforce).unwrap_or(Enforce::Deploy),
                source_file,
                source_set: layer.set,
                rule,
            })
        })
        .collect()
}

fn place(file: &str, line: u32) -> String {
    if line == 0 || file.is_empty() { file.to_owned() } else { format!("{file}:{line}") }
}

fn own_violation(set: SourceSet, rule: &str, message: String, source_file: Option<String>) -> Violation {
    let remediation = if rule == POLICY_INPUT {
        "This is a defect of the program that asked the gate; nothing in the product causes it."
    } else {
        "Repair the policy; until then nothing that it concerns is deployed. See hydromesh policy test."
    };
    Violation {
        rule: rule.to_owned(),
        message,
        path: source_file.clone(),
        severity: Severity::Critical,
        remediation: Some(remediation.to_owned()),
        enforce: Enforce::Deploy,
        source_file,
        source_set: set,
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
pub(super) mod tests;
