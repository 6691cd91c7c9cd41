//! Finds rules that cannot work: they read what is never there, or call what cannot be replayed.
//!
//! A rule over a path that does not exist is undefined, and an undefined denial does not deny. So the paths of `input` are
//! followed through the schema of the gate's input, and the paths of `data` through the loaded data and packages. Variables
//! carry what they were bound to (`some c in input.contracts`, `:=`, imports); function parameters and results of rules are
//! not followed, so what is reported is certain and what is not reported is merely unknown.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::graphmap::DiGraphMap;
use regorus::unstable::{Expr, Literal, Query, Ref, Rule, RuleBody, RuleHead, Span};
use serde_json::Value;

use super::{
    problem::{PolicyProblem, ProblemKind},
    rego::{ParsedFile, rule_name},
    schema::{self, Child, input_schema},
    set::PolicySource,
};

/// Functions whose answer is not a function of their arguments.
const NONDETERMINISTIC: [&str; 6] =
    ["time.now_ns", "rand.intn", "uuid.rfc4122", "http.send", "opa.runtime", "net.lookup_ip_addr"];

/// What the rules of one layer may refer to: its data document, and the rule names of every package.
pub(super) struct World<'a> {
    pub data: &'a Value,
    pub packages: BTreeMap<String, BTreeSet<String>>,
}

/// Returns the problems of one file on its own: syntax, and paths of `input` that the schema cannot have.
///
/// [`super::Gate::problems`] reports these and those that concern a whole layer.
#[must_use]
pub fn lint(source: &PolicySource) -> Vec<PolicyProblem> {
    match super::rego::parse(source) {
        Err(problem) => vec![problem],
        Ok(file) => {
            let mut problems = check_file(&file, None);
            problems.extend(recursion([&file]));
            problems
        }
    }
}

/// Returns a problem for every group of functions that call each other in a circle. OPA refuses them; regorus would call them
/// until its stack, and with it the process, ends. So nothing may be evaluated while there is one. Circles of rules that are
/// not functions are found by the engine.
pub(super) fn recursion<'f>(files: impl IntoIterator<Item = &'f ParsedFile>) -> Vec<PolicyProblem> {
    let mut calls: BTreeMap<(String, String), PolicyProblem> = BTreeMap::new();
    for file in files {
        let lint = walk(file, None);
        calls.extend(lint.calls);
    }
    let graph: DiGraphMap<&str, ()> =
        calls.keys().map(|(caller, callee)| (caller.as_str(), callee.as_str(), ())).collect();
    let groups = petgraph::algo::tarjan_scc(&graph);
    let inside = |(caller, callee): &(String, String)| {
        groups.iter().any(|group| group.contains(&caller.as_str()) && group.contains(&callee.as_str()))
    };
    calls.iter().filter(|(call, _)| inside(call)).map(|(_, problem)| problem.clone()).collect()
}

/// Checks one file; paths of `data` only when it is known what is loaded.
pub(super) fn check_file(file: &ParsedFile, world: Option<&World<'_>>) -> Vec<PolicyProblem> {
    walk(file, world).problems.into_iter().collect()
}

fn walk<'a>(file: &'a ParsedFile, world: Option<&'a World<'a>>) -> Lint<'a> {
    let mut lint = Lint {
        world,
        file,
        aliases: BTreeMap::new(),
        caller: String::new(),
        calls: BTreeMap::new(),
        problems: BTreeSet::new(),
        reporting: false,
    };
    let mut scope = Scope::default();
    for import in &file.module.imports {
        let shape = {
            lint.reporting = true;
            let shape = lint.expr(&import.refr, &mut scope);
            lint.reporting = false;
            shape
        };
        let name = match (&import.r#as, &*import.refr) {
            (Some(alias), _) => alias.text().to_owned(),
            (None, Expr::RefDot { field, .. }) => field.0.text().to_owned(),
            _ => continue,
        };
        if let Some(path) = path_of(&import.refr) {
            lint.aliases.insert(name.clone(), path);
        }
        scope.insert(name, shape);
    }
    for rule in &file.module.policy {
        lint.caller = format!("{}.{}", file.package, rule_name(rule).0);
        lint.rule(rule, &scope);
    }
    lint
}

/// Returns the parts of a constant path, `data` included.
fn path_of(expr: &Expr) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut at = expr;
    loop {
        match at {
            Expr::Var { span, .. } => {
                parts.push(span.text().to_owned());
                parts.reverse();
                return Some(parts);
            }
            Expr::RefDot { refr, field, .. } => {
                parts.push(field.0.text().to_owned());
                at = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                let (Expr::String { value, .. } | Expr::RawString { value, .. }) = &**index else {
                    return None;
                };
                parts.push(value.as_string().ok()?.to_string());
                at = refr;
            }
            _ => return None,
        }
    }
}

/// What is known about a value.
#[derive(Clone)]
enum Shape<'a> {
    /// Part of the input.
    Input(&'a Value),
    /// A path below `data`.
    Data(Vec<String>),
    Unknown,
}

type Scope<'a> = BTreeMap<String, Shape<'a>>;

struct Lint<'a> {
    world: Option<&'a World<'a>>,
    file: &'a ParsedFile,
    /// What imports call a path.
    aliases: BTreeMap<String, Vec<String>>,
    /// The rule that is being walked, with its package.
    caller: String,
    /// Caller and called function, with what to report should they turn out to be part of a circle.
    calls: BTreeMap<(String, String), PolicyProblem>,
    problems: BTreeSet<PolicyProblem>,
    /// The first walk over a query only binds variables, since Rego does not depend on the order of statements.
    reporting: bool,
}

impl<'a> Lint<'a> {
    fn rule(&mut self, rule: &Rule, outer: &Scope<'a>) {
        match rule {
            Rule::Default { refr, args, value, .. } => {
                self.reporting = true;
                self.head(refr, args, None, Some(value), &mut outer.clone());
            }
            Rule::Spec { head, bodies, .. } => {
                let mut scope = outer.clone();
                let (refr, args, key, assign) = match head {
                    RuleHead::Compr { refr, assign, .. } => (refr, [].as_slice(), None, assign.as_ref()),
                    RuleHead::Set { refr, key, .. } => (refr, [].as_slice(), key.as_ref(), None),
                    RuleHead::Func { refr, args, assign, .. } => {
                        (refr, args.as_slice(), None, assign.as_ref())
                    }
                };
                for name in args.iter().flat_map(|arg| variables(arg)) {
                    scope.insert(name, Shape::Unknown);
                }
                for (at, body) in bodies.iter().enumerate() {
                    let mut inner = scope.clone();
                    self.query(&body.query, &mut inner);
                    self.reporting = true;
                    // The head is computed with what the first body bound; an else has a value of its own.
                    if at == 0 {
                        self.head(refr, args, key, assign.map(|assign| &assign.value), &mut inner);
                    }
                    let RuleBody { assign, .. } = body;
                    if let Some(assign) = assign {
                        self.expr(&assign.value, &mut inner);
                    }
                }
                if bodies.is_empty() {
                    self.reporting = true;
                    self.head(refr, args, key, assign.map(|assign| &assign.value), &mut scope);
                }
            }
        }
    }

    fn head(
        &mut self,
        refr: &Expr,
        args: &[Ref<Expr>],
        key: Option<&Ref<Expr>>,
        value: Option<&Ref<Expr>>,
        scope: &mut Scope<'a>,
    ) {
        let mut root = refr;
        while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = root {
            if let Expr::RefBrack { index, .. } = root {
                self.expr(index, scope);
            }
            root = refr;
        }
        for expr in args.iter().chain(key).chain(value) {
            self.expr(expr, scope);
        }
    }

    fn query(&mut self, query: &Query, scope: &mut Scope<'a>) {
        self.reporting = true;
        self.nested(query, scope);
    }

    fn literal(&mut self, literal: &Literal, scope: &mut Scope<'a>) {
        match literal {
            Literal::SomeVars { vars, .. } => {
                for name in vars {
                    scope.entry(name.text().to_owned()).or_insert(Shape::Unknown);
                }
            }
            Literal::SomeIn { key, value, collection, .. } => {
                let shape = self.expr(collection, scope);
                if let Some(key) = key {
                    self.expr(key, scope);
                    bind(key, Shape::Unknown, scope);
                }
                self.expr(value, scope);
                let element = self.element(&shape, collection.span());
                bind(value, element, scope);
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
                self.expr(expr, scope);
            }
            Literal::Every { key, value, domain, query, .. } => {
                let shape = self.expr(domain, scope);
                let mut inner = scope.clone();
                if let Some(key) = key {
                    inner.insert(key.text().to_owned(), Shape::Unknown);
                }
                let element = self.element(&shape, domain.span());
                inner.insert(value.text().to_owned(), element);
                self.nested(query, &mut inner);
            }
        }
    }

    /// Walks a query inside another one, reporting only when the outer one does.
    fn nested(&mut self, query: &Query, scope: &mut Scope<'a>) {
        let before = self.reporting;
        for reporting in [false, false, before] {
            self.reporting = reporting;
            for statement in &query.stmts {
                self.literal(&statement.literal, scope);
                for modifier in &statement.with_mods {
                    self.expr(&modifier.r#as, scope);
                    let of_input = path_of(&modifier.refr).is_some_and(|path| path[0] == "input");
                    if !of_input && !self.file.source.is_test() {
                        self.report(
                            ProblemKind::Replacement,
                            &modifier.span,
                            "only a test may replace functions and data; a rule may replace input alone"
                                .to_owned(),
                        );
                    }
                }
            }
        }
        self.reporting = before;
    }

    /// Returns what is known about the expression's value, after looking at everything inside it.
    fn expr(&mut self, expr: &Expr, scope: &mut Scope<'a>) -> Shape<'a> {
        match expr {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => Shape::Unknown,
            Expr::Var { span, .. } => match span.text() {
                "input" => Shape::Input(input_schema()),
                "data" => Shape::Data(Vec::new()),
                name => scope.get(name).cloned().unwrap_or(Shape::Unknown),
            },
            Expr::RefDot { refr, field, .. } => {
                let parent = self.expr(refr, scope);
                self.key(parent, field.0.text(), &field.0)
            }
            Expr::RefBrack { refr, index, .. } => {
                let parent = self.expr(refr, scope);
                self.expr(index, scope);
                match &**index {
                    Expr::String { value, span, .. } | Expr::RawString { value, span, .. } => {
                        let name = value.as_string().map(ToString::to_string).unwrap_or_default();
                        self.key(parent, &name, span)
                    }
                    _ => self.element(&parent, index.span()),
                }
            }
            Expr::Call { fcn, params, .. } => self.call(fcn, params, scope),
            Expr::AssignExpr { lhs, rhs, .. } => {
                let shape = self.expr(rhs, scope);
                self.expr(lhs, scope);
                if matches!(&**lhs, Expr::Var { .. }) {
                    bind(lhs, shape, scope);
                }
                Shape::Unknown
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                for item in items {
                    self.expr(item, scope);
                }
                Shape::Unknown
            }
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.expr(key, scope);
                    self.expr(value, scope);
                }
                Shape::Unknown
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                let mut inner = scope.clone();
                self.nested(query, &mut inner);
                self.expr(term, &mut inner);
                Shape::Unknown
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                let mut inner = scope.clone();
                self.nested(query, &mut inner);
                self.expr(key, &mut inner);
                self.expr(value, &mut inner);
                Shape::Unknown
            }
            Expr::UnaryExpr { expr, .. } => {
                self.expr(expr, scope);
                Shape::Unknown
            }
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. } => {
                self.expr(lhs, scope);
                self.expr(rhs, scope);
                Shape::Unknown
            }
            Expr::Membership { key, value, collection, .. } => {
                for inner in key.iter().chain([value, collection]) {
                    self.expr(inner, scope);
                }
                Shape::Unknown
            }
        }
    }

    fn call(&mut self, fcn: &Ref<Expr>, params: &[Ref<Expr>], scope: &mut Scope<'a>) -> Shape<'a> {
        let name = fcn.span().text();
        self.record_call(fcn);
        if NONDETERMINISTIC.contains(&name) {
            self.report(
                ProblemKind::Nondeterministic,
                fcn.span(),
                format!(
                    "{name} answers differently each time; a rule reads the time from input.request.time"
                ),
            );
        }
        // `lib.rank(x)` with an imported `lib` is a path of data.
        if let Expr::RefDot { refr, .. } = &**fcn
            && matches!(self.root(refr, scope), Some(Shape::Data(_)))
        {
            self.expr(fcn, scope);
        }
        let shapes: Vec<_> = params.iter().map(|param| self.expr(param, scope)).collect();
        if name == "object.get"
            && let [_, path, ..] = params
            && let Some(Shape::Input(_)) = shapes.first()
        {
            let keys: Vec<&Ref<Expr>> = match &**path {
                Expr::Array { items, .. } => items.iter().collect(),
                _ => vec![path],
            };
            let mut shape = shapes[0].clone();
            for key in keys {
                shape = match &**key {
                    Expr::String { value, span, .. } | Expr::RawString { value, span, .. } => {
                        let name = value.as_string().map(ToString::to_string).unwrap_or_default();
                        self.key(shape, &name, span)
                    }
                    _ => Shape::Unknown,
                };
            }
            return shape;
        }
        Shape::Unknown
    }

    fn record_call(&mut self, fcn: &Expr) {
        let Some(path) = path_of(fcn) else { return };
        let (first, rest) = (&path[0], &path[1..]);
        let callee = if first == "data" {
            rest.join(".")
        } else if let Some(target) = self.aliases.get(first) {
            target.iter().skip(1).chain(rest).map(String::as_str).collect::<Vec<_>>().join(".")
        } else {
            format!("{}.{}", self.file.package, path.join("."))
        };
        let span = fcn.span();
        let problem = PolicyProblem {
            file: span.source.get_path().clone(),
            line: span.line,
            column: span.col,
            kind: ProblemKind::Recursion,
            message: format!("{} calls itself by way of {}", self.caller, path.join(".")),
        };
        self.calls.entry((self.caller.clone(), callee)).or_insert(problem);
    }

    fn root(&mut self, expr: &Expr, scope: &mut Scope<'a>) -> Option<Shape<'a>> {
        let mut root = expr;
        while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = root {
            root = refr;
        }
        matches!(root, Expr::Var { .. }).then(|| self.expr(root, scope))
    }

    fn key(&mut self, parent: Shape<'a>, key: &str, span: &Span) -> Shape<'a> {
        match parent {
            Shape::Input(schema) => match schema::child(schema, key) {
                Child::Schema(inner) => Shape::Input(inner),
                Child::Anything => Shape::Unknown,
                Child::Impossible => {
                    let hint = keys_of(schema);
                    self.report(
                        ProblemKind::InputPath,
                        span,
                        format!("the gate's input has no {key:?} here, so the rule could never fire; {hint}"),
                    );
                    Shape::Unknown
                }
            },
            Shape::Data(mut path) => {
                path.push(key.to_owned());
                self.data(path, span)
            }
            Shape::Unknown => Shape::Unknown,
        }
    }

    fn element(&mut self, parent: &Shape<'a>, span: &Span) -> Shape<'a> {
        let Shape::Input(schema) = parent else { return Shape::Unknown };
        match schema::element(schema) {
            Child::Schema(inner) => Shape::Input(inner),
            Child::Anything => Shape::Unknown,
            Child::Impossible => {
                self.report(
                    ProblemKind::InputPath,
                    span,
                    "the gate's input has a single value here, so there is nothing to iterate over"
                        .to_owned(),
                );
                Shape::Unknown
            }
        }
    }

    fn data(&mut self, path: Vec<String>, span: &Span) -> Shape<'a> {
        let Some(world) = self.world else { return Shape::Unknown };
        let dotted = path.join(".");
        let below = |package: &str| package == dotted || package.starts_with(&format!("{dotted}."));
        let in_data = path.iter().try_fold(world.data, |value, key| value.get(key)).is_some();
        if in_data || world.packages.keys().any(|package| below(package)) {
            return Shape::Data(path);
        }
        let rule = path
            .split_last()
            .and_then(|(rule, package)| Some(world.packages.get(&package.join("."))?.contains(rule)));
        match rule {
            Some(true) => {}
            Some(false) | None => self.report(
                ProblemKind::DataPath,
                span,
                format!("there is neither data nor a rule at data.{dotted}, so the rule could never fire"),
            ),
        }
        Shape::Unknown
    }

    fn report(&mut self, kind: ProblemKind, span: &Span, message: String) {
        if self.reporting {
            self.problems.insert(PolicyProblem {
                file: span.source.get_path().clone(),
                line: span.line,
                column: span.col,
                kind,
                message,
            });
        }
    }
}

fn bind<'a>(target: &Expr, shape: Shape<'a>, scope: &mut Scope<'a>) {
    if let Expr::Var { span, .. } = target {
        scope.insert(span.text().to_owned(), shape);
    } else {
        for name in variables(target) {
            scope.entry(name).or_insert(Shape::Unknown);
        }
    }
}

fn keys_of(schema: &Value) -> String {
    match schema.get("properties").and_then(Value::as_object) {
        Some(keys) => format!("it has {}", keys.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
        None => "it has no keys".to_owned(),
    }
}

/// Returns the variables of a pattern.
fn variables(expr: &Expr) -> Vec<String> {
    match expr {
        Expr::Var { span, .. } => vec![span.text().to_owned()],
        Expr::Array { items, .. } | Expr::Set { items, .. } => {
            items.iter().flat_map(|item| variables(item)).collect()
        }
        Expr::Object { fields, .. } => fields.iter().flat_map(|(_, _, value)| variables(value)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
