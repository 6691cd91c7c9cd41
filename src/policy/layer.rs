//! One layer of rules: which packages it may declare, what is wrong with it, and the engine that asks it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    annotations::{self, RuleMetadata},
    decision::SourceSet,
    evaluator::{EvaluationLimits, Evaluator, RulePackage, Verdict},
    lint::{World, check_file, recursion},
    problem::{PolicyProblem, ProblemKind},
    rego::{ParsedFile, RegoEvaluator, parse},
    set::{PolicySet, PolicySource, digest},
    wasm::WasmEvaluator,
};

/// The packages a layer may declare. Each layer has a name space of its own, so none can pose as another.
pub(super) struct Namespace {
    /// Packages below this one are asked.
    verdicts: String,
    /// This package and those below it are libraries, which are not asked.
    library: String,
}

#[derive(PartialEq, Eq)]
enum Role {
    Verdict,
    Library,
    Foreign,
}

impl Namespace {
    pub(super) fn central() -> Self {
        Self { verdicts: "hydromesh.deploy".to_owned(), library: "hydromesh.lib".to_owned() }
    }

    pub(super) fn mesh() -> Self {
        Self { verdicts: "mesh".to_owned(), library: "mesh.lib".to_owned() }
    }

    /// A domain's name may hold hyphens, a Rego name may not: they become underscores.
    pub(super) fn domain(name: &str) -> Self {
        let name = name.replace('-', "_");
        Self { verdicts: format!("domain.{name}"), library: format!("domain.{name}.lib") }
    }

    fn role(&self, package: &str) -> Role {
        let below = |parent: &str| package.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.'));
        if package == self.library || below(&self.library) {
            Role::Library
        } else if below(&self.verdicts) {
            Role::Verdict
        } else {
            Role::Foreign
        }
    }
}

pub(super) struct Layer {
    pub set: SourceSet,
    pub digest: String,
    /// Absent when nothing could be loaded; the problems say why.
    pub evaluator: Option<Box<dyn Evaluator>>,
    pub metadata: Vec<RuleMetadata>,
    pub problems: Vec<PolicyProblem>,
    /// Library files that later layers may import.
    pub library: Vec<PolicySource>,
}

impl Layer {
    pub(super) fn central(set: &PolicySet, limits: EvaluationLimits) -> Self {
        let mut layer = match &set.compiled {
            Some(module) => Self::from_wasm(set, module, limits),
            None => Self::from_rego(
                SourceSet::Central,
                &Namespace::central(),
                &set.sources,
                &[],
                &set.data,
                limits,
            ),
        };
        layer.digest = set.digest();
        layer
    }

    /// Loads Rego files. `imported` are libraries of the central layer, which these files may use.
    pub(super) fn from_rego(
        set: SourceSet,
        namespace: &Namespace,
        sources: &[PolicySource],
        imported: &[PolicySource],
        data: &Value,
        limits: EvaluationLimits,
    ) -> Self {
        let rules: Vec<_> = sources.iter().filter(|source| !source.is_test()).collect();
        let (files, mut problems) = parse_all(&rules);
        let (mut loaded, mut metadata) = (Vec::new(), Vec::new());
        for file in files {
            let (found, mistakes) = annotations::read(&file.package, &file.source.path, &file.source.text);
            metadata.extend(found);
            problems.extend(mistakes);
            if namespace.role(&file.package) == Role::Foreign {
                problems.push(PolicyProblem {
                    file: file.source.path.clone(),
                    line: file.module.package.span.line,
                    column: file.module.package.span.col,
                    kind: ProblemKind::Package,
                    message: format!(
                        "package {} is not below {}, so its rules would not be asked",
                        file.package, namespace.verdicts
                    ),
                });
            } else {
                loaded.push(file);
            }
        }
        let libraries: Vec<ParsedFile> = imported.iter().filter_map(|source| parse(source).ok()).collect();
        let world = World { data, packages: rule_names(loaded.iter().chain(&libraries)) };
        problems.extend(loaded.iter().flat_map(|file| check_file(file, Some(&world))));
        let (packages, missing) = verdict_packages(namespace, &loaded);
        problems.extend(missing);
        let texts: Vec<PolicySource> =
            loaded.iter().chain(&libraries).map(|file| file.source.clone()).collect();
        problems.extend(recursion(loaded.iter().chain(&libraries)));
        // These would end the process or change what other rules say, so they are not even tried.
        let dangerous = |problem: &PolicyProblem| {
            matches!(problem.kind, ProblemKind::Recursion | ProblemKind::Replacement)
        };
        let evaluator = if problems.iter().any(dangerous) {
            None
        } else {
            match RegoEvaluator::new(&texts, data, packages, limits) {
                Ok(evaluator) => Some(Box::new(evaluator) as Box<dyn Evaluator>),
                Err(problem) => {
                    problems.push(problem);
                    None
                }
            }
        };
        problems.sort();
        problems.dedup();
        Self {
            set,
            digest: digest(sources, data),
            evaluator,
            metadata,
            problems,
            library: loaded
                .iter()
                .filter(|file| namespace.role(&file.package) == Role::Library)
                .map(|file| file.source.clone())
                .collect(),
        }
    }

    /// Loads a compiled module. Compiling takes the entrypoints out of the bundle's record of its sources, so a verdict that
    /// is still there is one that cannot be asked.
    fn from_wasm(set: &PolicySet, module: &[u8], limits: EvaluationLimits) -> Self {
        let namespace = Namespace::central();
        let rules: Vec<_> = set.sources.iter().filter(|source| !source.is_test()).collect();
        // A record that cannot be parsed does no harm: the module is what is asked.
        let (files, _) = parse_all(&rules);
        let mut problems = Vec::new();
        let metadata =
            set.data.pointer("/hydromesh/annotations").map(RuleMetadata::from_inspection).unwrap_or_default();
        let (unasked, _) = verdict_packages(&namespace, &files);
        let file_of = |package: &str| {
            let file = files.iter().find(|file| file.package == package);
            file.map(|file| file.source.path.clone()).unwrap_or_default()
        };
        let mut complain = |message: String| {
            problems.push(PolicyProblem {
                file: "policy.wasm".to_owned(),
                line: 0,
                column: 0,
                kind: ProblemKind::Bundle,
                message,
            });
        };
        let evaluator = match WasmEvaluator::new(module, &set.data, file_of, limits) {
            Ok(evaluator) => {
                for package in evaluator.packages() {
                    if namespace.role(&package.name) != Role::Verdict {
                        complain(format!("entrypoint {} is not below {}", package.name, namespace.verdicts));
                    }
                }
                for package in &unasked {
                    for verdict in &package.verdicts {
                        complain(format!("{}.{} is not an entrypoint", package.name, verdict.rule()));
                    }
                }
                Some(Box::new(evaluator) as Box<dyn Evaluator>)
            }
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        problems.sort();
        problems.dedup();
        let library = files
            .iter()
            .filter(|file| namespace.role(&file.package) == Role::Library)
            .map(|file| file.source.clone())
            .collect();
        Self { set: SourceSet::Central, digest: String::new(), evaluator, metadata, problems, library }
    }
}

fn parse_all(sources: &[&PolicySource]) -> (Vec<ParsedFile>, Vec<PolicyProblem>) {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for source in sources {
        match parse(source) {
            Ok(file) => files.push(file),
            Err(problem) => problems.push(problem),
        }
    }
    (files, problems)
}

fn rule_names<'f>(files: impl Iterator<Item = &'f ParsedFile>) -> BTreeMap<String, BTreeSet<String>> {
    let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let names = file.rules.iter().map(|(name, _)| name.clone());
        packages.entry(file.package.clone()).or_default().extend(names);
    }
    packages
}

/// Returns the packages to ask, and a problem for each that has nothing to answer with.
fn verdict_packages(namespace: &Namespace, files: &[ParsedFile]) -> (Vec<RulePackage>, Vec<PolicyProblem>) {
    let mut packages: BTreeMap<&str, RulePackage> = BTreeMap::new();
    for file in files.iter().filter(|file| namespace.role(&file.package) == Role::Verdict) {
        let package = packages.entry(&file.package).or_insert_with(|| RulePackage {
            name: file.package.clone(),
            file: file.source.path.clone(),
            verdicts: Vec::new(),
        });
        let had_none = package.verdicts.is_empty();
        for verdict in [Verdict::Deny, Verdict::Warn] {
            let declared = file.rules.iter().any(|(name, _)| name == verdict.rule());
            if declared && !package.verdicts.contains(&verdict) {
                package.verdicts.push(verdict);
            }
        }
        package.verdicts.sort();
        if had_none && !package.verdicts.is_empty() {
            package.file.clone_from(&file.source.path);
        }
    }
    let (asked, silent): (Vec<_>, Vec<_>) =
        packages.into_values().partition(|package| !package.verdicts.is_empty());
    let problems = silent
        .into_iter()
        .map(|package| PolicyProblem {
            message: format!("package {} declares neither deny nor warn", package.name),
            file: package.file,
            line: 0,
            column: 0,
            kind: ProblemKind::NoVerdict,
        })
        .collect();
    (asked, problems)
}
