//! Finds rules that cannot work: they read what is never there, or call what cannot be replayed.
//!
//! A rule over a path that does not exist is undefined, and an undefined denial does not deny. So the paths of `input` are
//! followed through the schema of the gate's input, and the paths of `data` through the loaded data and packages. Variables
//! carry what they were bound to (`some c in input.contracts`, `:=`, imports); function parameters and results of rules are
//! not followed, so what is reported is certain and what is not reported is merely unknown.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{Expr, Literal, Query, Ref, Rule, RuleBody, RuleHead, Span};
use serde_json::Value;

use super::{
    problem::{PolicyProblem, ProblemKind},
    rego::ParsedFile,
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
        Ok(file) => check_file(&file, None),
    }
}

/// Checks one file; paths of `data` only when it is known what is loaded.
pub(super) fn check_file(file: &ParsedFile, world: Option<&World<'_>>) -> Vec<PolicyProblem> {
    let mut lint = Lint { world, problems: BTreeSet::new(), reporting: false };
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
        scope.insert(name, shape);
    }
    for rule in &file.module.policy {
        lint.rule(rule, &scope);
    }
    lint.problems.into_iter().collect()
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
    problems: BTreeSet<PolicyProblem>,
    /// The first walk over a query only binds variables, since Rego does not depend on the order of statements.
    reporting: bool,
}

impl<'a> Lint<'a> {
    fn rule(&mut self, rule: &Rule, outer: &Scope<'a>) {
        match rule {
            Rule::Default { value, .. } => {
                self.reporting = true;
                self.expr(value, &mut outer.clone());
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
                        self.head(refr, key, assign.map(|assign| &assign.value), &mut inner);
                    }
                    let RuleBody { assign, .. } = body;
                    if let Some(assign) = assign {
                        self.expr(&assign.value, &mut inner);
                    }
                }
                if bodies.is_empty() {
                    self.reporting = true;
                    self.head(refr, key, assign.map(|assign| &assign.value), &mut scope);
                }
            }
        }
    }

    fn head(
        &mut self,
        refr: &Expr,
        key: Option<&Ref<Expr>>,
        value: Option<&Ref<Expr>>,
        scope: &mut Scope<'a>,
    ) {
        if let Expr::RefBrack { index, .. } = refr {
            self.expr(index, scope);
        }
        for expr in key.into_iter().chain(value) {
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
                    self.bind(key, Shape::Unknown, scope);
                }
                let element = self.element(shape, collection.span());
                self.bind(value, element, scope);
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
                let element = self.element(shape, domain.span());
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
                }
            }
        }
        self.reporting = before;
    }

    fn bind(&mut self, target: &Expr, shape: Shape<'a>, scope: &mut Scope<'a>) {
        if let Expr::Var { span, .. } = target {
            scope.insert(span.text().to_owned(), shape);
        } else {
            for name in variables(target) {
                scope.entry(name).or_insert(Shape::Unknown);
            }
        }
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
                    _ => self.element(parent, index.span()),
                }
            }
            Expr::Call { fcn, params, .. } => self.call(fcn, params, scope),
            Expr::AssignExpr { lhs, rhs, .. } => {
                let shape = self.expr(rhs, scope);
                self.expr(lhs, scope);
                if matches!(&**lhs, Expr::Var { .. }) {
                    self.bind(lhs, shape, scope);
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

    fn element(&mut self, parent: Shape<'a>, span: &Span) -> Shape<'a> {
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
mod tests {
    use super::*;

    fn problems(body: &str) -> Vec<String> {
        let text = format!("package hydromesh.deploy.x\n{body}");
        lint(&PolicySource { path: "x.rego".to_owned(), text })
            .into_iter()
            .map(|problem| {
                format!("{}:{} {:?} {}", problem.line, problem.column, problem.kind, problem.message)
            })
            .collect()
    }

    #[test]
    fn paths_that_the_input_can_have_pass() {
        for body in [
            "a if input.product.tier == 1",
            "a if { some c in input.contracts; c.quality.errorRules > 0 }",
            "a if input.contracts[_].columns[0].name == \"x\"",
            "a if input[\"product\"][\"owners\"][0]",
            "a if { some k; input.lineage.labels[k] == \"pii\" }",
            "a if input.lineage.labels[\"whatever\"] == \"pii\"",
            "a if object.get(input.product, \"oncall\", null) == null",
            "a if { every c in input.contracts { c.port != \"\" } }",
            "a := {c.port | some c in input.contracts}",
            "a if input.changes[0].old.whatever == 1",
            "f(x) := x.anything",
            "import input.product as p\na if p.tier == 1",
            "a if { c.port == \"x\"; some c in input.contracts }",
        ] {
            assert_eq!(problems(body), [""; 0], "{body}");
        }
    }

    #[test]
    fn paths_that_the_input_cannot_have_are_errors() {
        for (body, place) in [
            ("a if input.produkt.tier == 1", "2:12"),
            ("a if input.product.teir == 1", "2:20"),
            ("a if { some c in input.contracts; c.quality.errors > 0 }", "2:45"),
            ("a if { some c in input.contracts; some k in c.columns; k.pii }", "2:58"),
            ("a if input.contracts.port == 1", "2:22"),
            ("a if input.contracts[_].colums[0].name == \"x\"", "2:25"),
            ("a if not input.product[\"teir\"] == 1", "2:25"),
            ("a if input.product.name.first == 1", "2:25"),
            ("a if { some x in input.product.name; x }", "2:31"),
            ("a if object.get(input.product, \"on_call\", null) == null", "2:33"),
            ("a if { every c in input.contracts { c.prt != \"\" } }", "2:39"),
            ("a := {c.prt | some c in input.contracts}", "2:9"),
            ("a contains {\"msg\": sprintf(\"%s\", [c.prt])} if { some c in input.contracts }", "2:37"),
            ("import input.product as p\na if p.teir == 1", "3:8"),
            ("a if { c.prt == \"x\"; some c in input.contracts }", "2:10"),
            ("a if { p := input.product; q := p; q.teir == 1 }", "2:38"),
            ("f(x) := x.y if input.plan.kinds", "2:27"),
            ("a := 1 if { false } else := input.nothing", "2:35"),
        ] {
            let found = problems(body);
            assert!(
                found.len() == 1 && found[0].starts_with(&format!("{place} InputPath")),
                "{body}: {found:?}"
            );
        }
    }

    #[test]
    fn functions_that_cannot_be_replayed_are_errors() {
        let found = problems("a if time.now_ns() > 1");
        assert!(found.len() == 1 && found[0].contains("Nondeterministic"), "{found:?}");
    }
}
