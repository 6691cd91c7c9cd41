use serde_json::json;

use super::*;
use crate::policy::{
    EvaluationError, PolicyProblem as Problem, ProblemKind, RulePackage, SourceSet::*, digest as set_digest,
};

/// An input that the central rules let pass.
pub(in crate::policy) fn input() -> Value {
    json!({
        "apiVersion": "hydromesh/v1", "kind": "DeployGateInput",
        "request": {"id": "r1", "action": "deploy", "environment": "dev", "time": "2026-08-10T12:00:00Z"},
        "git": {"commit": "c0ffee", "base": null, "ref": "refs/heads/main"},
        "product": {
            "id": "customer/c360", "domain": "customer", "name": "c360", "version": "1.0.0", "status": "active", "tier": 1,
            "owners": ["ada@retail.example"], "oncall": "rota", "runbook": "https://runbooks.retail.example/c360",
            "kinds": ["batch"],
            "inputPorts": [{"name": "customers", "from": "customer/customers.customers", "external": false}],
            "outputPorts": [{"name": "profile", "format": "delta"}]
        },
        "contracts": [{
            "port": "customer/c360.profile", "id": "p", "version": "1.2.0", "oldVersion": null, "status": "active",
            "columns": [{"name": "email", "logicalType": "string", "required": true, "classification": "pii"}],
            "quality": {"rules": 3, "errorRules": 2}, "sla": [{"property": "latency", "value": 26, "unit": "h"}]
        }],
        "changes": [],
        "plan": {"kind": "create", "partitions": 90, "reason": null},
        "lineage": {
            "upstream": ["customer/customers"], "downstream": [],
            "columnEdges": [{"from": "customer/customers.customers#email", "to": "customer/c360.profile#email",
                "type": "DIRECT", "masking": false}],
            "labels": {"customer/customers.customers#email": "pii"}
        },
        "model": null, "waivers": [], "policy": {"digest": ""}
    })
}

fn with(changes: &[(&str, Value)]) -> Value {
    let mut input = input();
    for (pointer, value) in changes {
        *input.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value.clone();
    }
    input
}

fn exposed() -> Value {
    with(&[("/contracts/0/columns/0/classification", json!("internal"))])
}

fn source(path: &str, text: &str) -> PolicySource {
    PolicySource { path: path.to_owned(), text: text.to_owned() }
}

fn central_gate() -> Gate {
    Gate::new(&PolicySet::embedded(), &[], &BTreeMap::new())
}

/// The fixture bundle's gate. Compiling the module takes most of the time of these tests, so it happens once.
fn compiled_gate() -> &'static Gate {
    static GATE: std::sync::LazyLock<Gate> =
        std::sync::LazyLock::new(|| Gate::new(&bundle(), &[], &BTreeMap::new()));
    &GATE
}

fn rules(decision: &Decision) -> Vec<&str> {
    decision.violations.iter().map(|violation| violation.rule.as_str()).collect()
}

/// A gate with one central file besides data.
fn one(text: &str) -> Gate {
    let set = PolicySet::from_sources(vec![source("p/x.rego", text)], json!({}));
    Gate::new(&set, &[], &BTreeMap::new())
}

#[test]
fn the_embedded_rules_load_and_allow_a_good_product() {
    let gate = central_gate();
    assert_eq!(gate.problems(), []);
    let decision = gate.decide(&input());
    assert!(decision.allow, "{decision:#?}");
    assert_eq!((decision.violations.len(), decision.warnings.len(), decision.error), (0, 0, None));
    assert_eq!(decision.engine, "regorus");
    assert_eq!(decision.policy_digest, gate.digest_for("customer"));
    assert!(gate.metadata("customer").iter().all(|(_, metadata)| metadata.title.is_some()));
}

#[test]
fn a_violation_says_what_where_how_bad_and_what_to_do() {
    let decision = central_gate().decide(&exposed());
    assert!(!decision.allow);
    assert_eq!(decision.error, None);
    let [violation] = decision.violations.as_slice() else { panic!("{decision:#?}") };
    assert_eq!(violation.rule, "pii-exposed");
    assert_eq!(violation.path.as_deref(), Some("customer/c360.profile#email"));
    assert_eq!((violation.severity, violation.enforce), (Severity::Critical, Enforce::Running));
    assert!(violation.remediation.as_deref().is_some_and(|text| text.starts_with("Classify the column")));
    assert_eq!(violation.source_set, Central);
    let file = violation.source_file.as_deref().unwrap();
    let (path, line) = file.rsplit_once(':').unwrap();
    let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let named = text.lines().nth(line.parse::<usize>().unwrap() - 1);
    assert_eq!((path, named), ("policies/pii.rego", Some("package hydromesh.deploy.pii")));
    let text = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), decision);
    assert!(
        text.contains(r#""source_set":"central""#) && text.contains(r#""severity":"critical""#),
        "{text}"
    );
}

#[test]
fn decisions_replay_to_the_byte() {
    let text = |gate: &Gate| serde_json::to_string(&gate.decide(&exposed())).unwrap();
    assert_eq!(text(&central_gate()), text(&central_gate()));
}

#[test]
fn every_way_to_fail_denies() {
    let package = "package hydromesh.deploy.x\n";
    for (name, text, expected) in [
        ("syntax", "package hydromesh.deploy.x\ndeny contains {\n".to_owned(), "p/x.rego:"),
        ("no package", "deny contains {\"msg\": \"x\"} if false\n".to_owned(), "p/x.rego:1"),
        ("empty file", String::new(), "p/x.rego"),
        (
            "no verdict",
            format!("{package}denied contains {{\"msg\": \"x\"}} if false\n"),
            "neither deny nor warn",
        ),
        ("other package", "package acme\ndeny contains {\"msg\": \"x\"} if false\n".to_owned(), "not below"),
        ("warn only", format!("{package}warn contains {{\"msg\": \"x\"}} if false\n"), "no deny rule"),
        ("undefined", format!("{package}deny := [] if input.product.tier == 99\n"), "is undefined"),
        ("boolean", format!("{package}deny := false\n"), "is a boolean"),
        ("object", format!("{package}deny := {{}}\n"), "is an object"),
        ("strings", format!("{package}deny contains \"no\" if true\n"), "holds a string"),
        ("no msg", format!("{package}deny contains {{\"rule\": \"x\"}} if true\n"), "without msg"),
        (
            "severity",
            format!("{package}deny contains {{\"msg\": \"x\", \"severity\": \"bad\"}} if true\n"),
            "unknown severity",
        ),
        ("misshapen warning", format!("{package}deny := []\nwarn := 1\n"), "is a number"),
        (
            "builtin error",
            format!("{package}deny contains {{\"msg\": \"x\"}} if to_number(input.git.commit) == 1\n"),
            "p/x.rego:2",
        ),
        (
            "unknown function",
            format!("{package}deny contains {{\"msg\": \"x\"}} if nofunction(1)\n"),
            "p/x.rego:2",
        ),
        (
            "unsafe variable",
            format!("{package}deny contains {{\"msg\": \"x\"}} if unbound == 1\n"),
            "p/x.rego:2",
        ),
        (
            "conflict",
            format!(
                "{package}deny := []\nx := 1 if true\nx := 2 if true\nwarn contains {{\"msg\": \"x\"}} if x == 1\n"
            ),
            "x.rego",
        ),
        ("recursion", format!("{package}deny contains {{\"msg\": \"x\"}} if count(deny) > 0\n"), "x.rego"),
        (
            "input path",
            format!("{package}deny contains {{\"msg\": \"x\"}} if input.product.teir == 1\n"),
            "p/x.rego:2: the gate's input has no \\\"teir",
        ),
        (
            "data path",
            format!("{package}deny contains {{\"msg\": \"x\"}} if data.hydromesh.limits.x == 1\n"),
            "data.hydromesh.limits",
        ),
        ("clock", format!("{package}deny contains {{\"msg\": \"x\"}} if time.now_ns() < 1\n"), "time.now_ns"),
        (
            "network",
            format!(
                "{package}deny contains {{\"msg\": \"x\"}} if http.send({{\"method\": \"get\", \"url\": \"http://127.0.0.1\"}}).status_code == 1\n"
            ),
            "p/x.rego:2",
        ),
        (
            "host name",
            format!("{package}deny contains {{\"msg\": \"x\"}} if net.lookup_ip_addr(\"localhost\") == 1\n"),
            "p/x.rego:2",
        ),
        (
            "environment",
            format!("{package}deny contains {{\"msg\": \"x\"}} if opa.runtime().env.HOME == \"x\"\n"),
            "p/x.rego:2",
        ),
        (
            "chance",
            format!("{package}deny contains {{\"msg\": \"x\"}} if rand.intn(\"x\", 2) == 3\n"),
            "p/x.rego:2",
        ),
        (
            "metadata",
            format!("# METADATA\n# custom:\n#   severity: bad\n{package}deny := []\n"),
            "custom.severity",
        ),
    ] {
        let decision = one(&text).decide(&input());
        assert!(!decision.allow, "{name} allows");
        assert!(rules(&decision).iter().all(|rule| *rule == POLICY_ERROR), "{name}: {decision:#?}");
        let said = format!("{:?}", decision.violations);
        assert!(said.contains(expected) && decision.error.is_some(), "{name}: {said}");
    }
    let empty = Gate::new(&PolicySet::from_sources(vec![], json!({})), &[], &BTreeMap::new());
    assert_eq!(rules(&empty.decide(&input())), [POLICY_ERROR]);
    // The same gate lets pass when nothing is wrong, so the table above tests what it says.
    assert!(
        one("package hydromesh.deploy.x\ndeny contains {\"msg\": \"x\"} if false\n").decide(&input()).allow
    );
}

/// Anybody who may open a pull request may write one of these.
#[test]
fn rules_that_attack_the_engine_deny_and_leave_the_process_alive() {
    let deep = |open: &str, close: &str| {
        format!(
            "package hydromesh.deploy.x\ndeny contains {{\"msg\": \"x\"}} if count({}1{}) == 0\n",
            format!("{open}\n").repeat(50_000),
            format!("{close}\n").repeat(50_000)
        )
    };
    for text in [
        deep("[", "]"),
        deep("(", ")"),
        deep("{\"a\":", "}"),
        deep("-", ""),
        deep("count(", ")"),
        deep("{1|", "}"),
        "package hydromesh.deploy.x\ndeny contains {\"msg\": \"x\"} if count(numbers.range(1, 1000000000000)) == 0\n".to_owned(),
        "package hydromesh.deploy.x\nf(n) := f(n + 1)\ndeny contains {\"msg\": \"x\"} if f(1) == 0\n".to_owned(),
        "package hydromesh.deploy.x\nf(n) := g(n)\ng(n) := f(n)\ndeny contains {\"msg\": \"x\"} if f(1) == 0\n".to_owned(),
        "package hydromesh.deploy.x\nf(n) := r\nr := f(1)\ndeny contains {\"msg\": \"x\"} if f(1) == 0\n".to_owned(),
        "package hydromesh.deploy.x\nf(n) := g(n)\ng(n) := n\ndeny contains {\"msg\": \"x\"} if f(1) == 0 with g as f\n".to_owned(),
        "package hydromesh.deploy.x\na if b\nb if a\ndeny contains {\"msg\": \"x\"} if a\n".to_owned(),
        "package hydromesh.deploy.x\ndeny contains {\"msg\": \"x\"} if count(numbers.range_step(1, 1000000000000, 1)) == 0\n".to_owned(),
    ] {
        let decision = one(&text).decide(&input());
        assert!(!decision.allow && rules(&decision).iter().all(|rule| *rule == POLICY_ERROR), "{decision:#?}");
    }
}

#[test]
fn an_engine_that_runs_too_long_is_stopped_and_denies() {
    let text = "package hydromesh.deploy.x\ndeny contains {\"msg\": \"x\"} if {\n\tsome a in numbers.range(1, 3000)\n\t\
                some b in numbers.range(1, 3000)\n\tsome c in numbers.range(1, 3000)\n\ta * b * c == -1\n}\n";
    let set = PolicySet::from_sources(vec![source("p/x.rego", text)], json!({}));
    let limits =
        EvaluationLimits { rule_time: std::time::Duration::from_millis(50), ..EvaluationLimits::default() };
    let started = std::time::Instant::now();
    let decision = Gate::with_limits(&set, &[], &BTreeMap::new(), limits).decide(&input());
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
    assert_eq!(rules(&decision), [POLICY_ERROR]);
    assert!(decision.error.unwrap().contains("limit"), "{:?}", decision.violations);
}

/// An engine that answers as told.
struct Told(Vec<RulePackage>, fn(&RulePackage) -> Vec<Answer<'_>>);

impl Evaluator for Told {
    fn engine(&self) -> &'static str {
        "told"
    }

    fn packages(&self) -> &[RulePackage] {
        &self.0
    }

    fn evaluate(&self, _: &Value, _: &mut Asking<'_>) -> Vec<Answer<'_>> {
        self.0.iter().flat_map(self.1).collect()
    }
}

#[test]
fn an_engine_must_answer_every_question_exactly_once() {
    fn answer(package: &RulePackage, value: Result<Option<Value>, EvaluationError>) -> Answer<'_> {
        Answer { package, verdict: Verdict::Deny, value }
    }
    let decide = |answers: fn(&RulePackage) -> Vec<Answer<'_>>| {
        let package =
            RulePackage { name: "a.b".to_owned(), file: String::new(), verdicts: vec![Verdict::Deny] };
        Gate::of(Box::new(Told(vec![package], answers)), "sha256:0".to_owned()).decide(&input())
    };
    assert!(decide(|package| vec![answer(package, Ok(Some(json!([]))))]).allow);
    assert!(!decide(|_| vec![]).allow);
    assert!(!decide(|package| vec![answer(package, Ok(None))]).allow);
    assert!(!decide(|package| vec![answer(package, Err(EvaluationError::new(package, "broke")))]).allow);
    assert!(
        !decide(|package| vec![
            answer(package, Ok(Some(json!([])))),
            answer(package, Ok(Some(json!([{"msg": "no"}]))))
        ])
        .allow
    );
    assert!(!Gate::of(Box::new(Told(vec![], |_| vec![])), "sha256:0".to_owned()).decide(&input()).allow);
}

#[test]
fn an_input_that_does_not_fit_is_denied_unasked() {
    let gate = central_gate();
    let mut missing = input();
    missing["product"].as_object_mut().unwrap().remove("owners");
    for (bad, said) in [
        (missing, "input.product.owners is missing"),
        (with(&[("/product/owners", json!(null))]), "input.product.owners is not of type array"),
        (with(&[("/request/action", json!("destroy"))]), "destroy"),
        (with(&[("/request/time", json!("yesterday, about noon"))]), "RFC 3339"),
        (json!(null), "input is not of type object"),
        (json!({"product": {"domain": 7}}), "missing"),
    ] {
        let decision = gate.decide(&bad);
        assert!(
            !decision.allow && rules(&decision).iter().all(|rule| *rule == POLICY_INPUT),
            "{decision:#?}"
        );
        assert!(format!("{:?}", decision.violations).contains(said), "{said}: {decision:#?}");
    }
}

#[test]
fn mesh_and_domain_rules_add_and_never_take_away() {
    let denies = "package mesh.freeze\nimport data.hydromesh.lib\ndeny contains {\"rule\": \"freeze\", \"msg\": \"frozen\"} \
                  if {\n\tlib.publishes\n\tinput.request.environment == \"dev\"\n}\n";
    let warns =
        "package domain.customer_care.style\nwarn contains {\"msg\": \"hm\"} if input.product.tier == 1\n";
    // It tries to silence a central rule by declaring its package, and to change central data.
    let hijack = "package hydromesh.deploy.pii\ndeny := []\n";
    let domains =
        |path: &str, text: &str| BTreeMap::from([("customer-care".to_owned(), vec![source(path, text)])]);
    let set = PolicySet::embedded();
    let care = with(&[("/product/domain", json!("customer-care"))]);

    let gate = Gate::new(&set, &[source("policies/freeze.rego", denies)], &BTreeMap::new());
    let decision = gate.decide(&input());
    assert_eq!(gate.problems(), []);
    assert_eq!((rules(&decision), decision.violations[0].source_set), (vec!["freeze"], Mesh));
    assert_eq!(decision.violations[0].source_file.as_deref(), Some("policies/freeze.rego"));

    let gate = Gate::new(&set, &[], &domains("domains/customer-care/policies/style.rego", warns));
    let decision = gate.decide(&care);
    assert!(decision.allow, "{decision:#?}");
    assert_eq!((decision.warnings[0].rule.as_str(), decision.warnings[0].source_set), ("style", Domain));
    assert!(gate.decide(&input()).warnings.is_empty(), "a domain's rules are its own");
    assert_eq!(gate.digest_for("customer"), central_gate().digest_for("customer"));
    assert_ne!(gate.digest_for("customer-care"), central_gate().digest_for("customer-care"));

    let gate = Gate::new(&set, &[], &domains("domains/customer-care/policies/pii.rego", hijack));
    assert_eq!(gate.problems()[0].1.kind, ProblemKind::Package);
    let mut bad = exposed();
    bad["product"]["domain"] = json!("customer-care");
    assert_eq!(rules(&gate.decide(&bad)), ["pii-exposed", POLICY_ERROR]);
    assert_eq!(rules(&gate.decide(&exposed())), ["pii-exposed"]);
    assert!(gate.decide(&input()).allow, "a broken domain stops only itself");

    // A domain may not speak for another one.
    let foreign = "package domain.commerce.x\ndeny := []\n";
    assert!(!Gate::new(&set, &[], &domains("x.rego", foreign)).decide(&care).allow);
    // Files that are only tests add nothing.
    let tests = [source("policies/x_test.rego", "package mesh.x_test\ntest_x if true\n")];
    assert!(Gate::new(&set, &tests, &BTreeMap::new()).decide(&input()).allow);
}

#[test]
fn a_live_waiver_lets_pass_and_stays_visible() {
    let mut input = exposed();
    let waiver = |expires: &str| {
        json!([{"id": "w1", "rule": "pii-exposed", "scope": "customer/*", "reason": "migration",
            "approver": "ada@retail.example", "expires": expires}])
    };
    input["waivers"] = waiver("2026-09-01T00:00:00Z");
    let decision = central_gate().decide(&input);
    assert!(decision.allow && decision.violations.is_empty());
    assert_eq!(
        (decision.waived[0].violation.rule.as_str(), decision.waived[0].waiver.id.as_str()),
        ("pii-exposed", "w1")
    );
    input["waivers"] = waiver("2026-08-10T12:00:00Z");
    let decision = central_gate().decide(&input);
    assert!(!decision.allow && decision.waived.is_empty());
    assert_eq!(decision.expired_waivers[0].waiver.id, "w1");
}

#[test]
fn problems_have_places() {
    let gate = one("package hydromesh.deploy.x\n\ndeny contains {\"msg\": \"x\"} if input.produkt\n");
    let problems = gate.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let (set, Problem { file, line, column, kind, .. }) = &problems[0];
    assert_eq!((*set, *line, *column, *kind), (Central, 3, 37, ProblemKind::InputPath));
    assert_eq!(file, "p/x.rego");
}

/// Inputs over which both engines must say the same; every central rule speaks at least once.
fn table() -> Vec<(&'static str, Value)> {
    let training = |features: Value, as_of: Value| {
        with(&[
            ("/product/kinds", json!(["training"])),
            (
                "/model",
                json!({"features": features, "training": {"algorithm": "logistic_regression", "as_of": as_of}}),
            ),
        ])
    };
    let change = json!([{"port": "customer/c360.profile", "column": "email", "type": "REMOVE", "field": "column",
        "old": "string", "new": null, "breaks": {"backward": false, "forward": true}}]);
    let waiver = json!([{"id": "w1", "rule": "pii-exposed", "scope": "customer/*", "reason": "r",
        "approver": "a@b.example", "expires": "2028-01-01T00:00:00Z"}]);
    vec![
        ("good", input()),
        ("owners-present", with(&[("/product/owners", json!([]))])),
        ("owners-present", with(&[("/product/owners", json!(["team \"ö\" %d", "a@b.example"]))])),
        ("oncall-and-runbook", with(&[("/product/oncall", json!(null)), ("/product/runbook", json!(null))])),
        ("slo-present", with(&[("/contracts/0/sla", json!([]))])),
        ("warn:slo-present", with(&[("/contracts/0/sla", json!([])), ("/product/tier", json!(4))])),
        ("pii-exposed", exposed()),
        ("pii-exposed", with(&[("/contracts/0/columns", json!([]))])),
        ("pii-exposed", with(&[("/contracts/0/columns", json!([])), ("/waivers", waiver.clone())])),
        ("pii-into-search", with(&[("/product/kinds", json!(["embedding"]))])),
        (
            "breaking-change-needs-major",
            with(&[("/contracts/0/oldVersion", json!("1.1.0")), ("/changes", change.clone())]),
        ),
        ("breaking-change-needs-major", with(&[("/contracts", json!([])), ("/changes", change.clone())])),
        ("good", with(&[("/contracts/0/oldVersion", json!("0.9.0")), ("/changes", change)])),
        ("contract-version-not-lowered", with(&[("/contracts/0/oldVersion", json!("1.10.0"))])),
        ("contract-version-not-lowered", with(&[("/contracts/0/version", json!("v1"))])),
        ("partition-bound", with(&[("/plan/partitions", json!(401))])),
        ("quality-error-rule-present", with(&[("/contracts/0/quality/errorRules", json!(0))])),
        ("retired-status", with(&[("/product/status", json!("retired"))])),
        (
            "readers-remain",
            with(&[("/request/action", json!("drop")), ("/lineage/downstream", json!(["b/b", "a/a"]))]),
        ),
        (
            "warn:deprecated-status",
            with(&[("/product/status", json!("deprecated")), ("/lineage/downstream", json!(["a/a"]))]),
        ),
        ("training-provenance", training(json!(["x/y.z"]), json!("knowledge"))),
        ("training-provenance", training(json!([]), json!(null))),
        ("warn:training-provenance", training(json!(["customer/customers.customers#age"]), json!("event"))),
        (
            "topic-naming",
            with(&[("/product/outputPorts", json!([{"name": "Raw.Clicks", "format": "topic"}]))]),
        ),
        ("warn:waiver-lifetime", with(&[("/waivers", waiver)])),
    ]
}

fn bundle() -> PolicySet {
    PolicySet::open(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/policy-bundle/bundle.tar.gz"),
    )
    .unwrap()
}

#[test]
fn regorus_and_opa_wasm_decide_alike() {
    let set = bundle();
    assert!(set.is_compiled());
    let compiled = compiled_gate();
    let interpreted = central_gate();
    assert_eq!(compiled.problems(), []);
    let mut spoken = BTreeSet::new();
    for (name, input) in table() {
        let (ours, theirs) = (interpreted.decide(&input), compiled.decide(&input));
        assert_eq!((ours.engine.as_str(), theirs.engine.as_str()), ("regorus", "opa-wasm"));
        let theirs =
            Decision { engine: ours.engine.clone(), policy_digest: ours.policy_digest.clone(), ..theirs };
        assert_eq!(ours, theirs, "{name}");
        let said = ours.violations.iter().chain(ours.waived.iter().map(|waived| &waived.violation));
        let said: BTreeSet<String> = said
            .map(|violation| violation.rule.clone())
            .chain(ours.warnings.iter().map(|warning| format!("warn:{}", warning.rule)))
            .collect();
        match name {
            "good" => assert!(ours.allow && said.is_empty(), "{said:?}"),
            name => assert!(said.contains(name), "{name}: {said:?}"),
        }
        spoken.extend(said);
    }
    let packages = PolicySet::embedded()
        .sources()
        .iter()
        .flat_map(|source| source.text.lines().filter_map(|line| line.trim().strip_prefix("\"rule\": \"")))
        .filter_map(|rest| rest.split('"').next().map(str::to_owned))
        .collect::<BTreeSet<_>>();
    let said = spoken.iter().map(|rule| rule.trim_start_matches("warn:").to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(said, packages, "the table makes every rule speak");
}

#[tokio::test]
async fn a_compiled_policy_is_asked_inside_a_task_without_waiting() {
    let gate = compiled_gate();
    // Far more questions than a task may ask before tokio makes its locks wait.
    for _ in 0..10 {
        assert!(gate.decide(&input()).allow);
    }
}

#[test]
fn a_compiled_policy_that_cannot_work_denies() {
    let set = bundle();
    let decide = |set: &PolicySet| Gate::new(set, &[], &BTreeMap::new()).decide(&input());
    let module = set.compiled.clone().unwrap();
    for bytes in [vec![], b"\0asm".to_vec(), module[..module.len() / 2].to_vec(), b"not wasm".to_vec()] {
        let broken = PolicySet { compiled: Some(bytes), ..set.clone() };
        let decision = decide(&broken);
        assert_eq!((rules(&decision), decision.engine.as_str()), (vec![POLICY_ERROR], "none"));
    }
    // A verdict left in the record of sources is one that was not made an entrypoint.
    let mut partial = set;
    partial.sources.push(source("policies/x.rego", "package hydromesh.deploy.x\ndeny := []\n"));
    assert!(decide(&partial).error.unwrap().contains("hydromesh.deploy.x.deny is not an entrypoint"));
}

#[test]
fn digests_follow_the_rules() {
    let set = PolicySet::embedded();
    assert_eq!(set.digest(), set_digest(set.sources(), set.data()));
    assert_ne!(set.digest(), bundle().digest());
    let with_mesh =
        Gate::new(&set, &[source("policies/a.rego", "package mesh.a\nwarn := []\n")], &BTreeMap::new());
    assert_ne!(with_mesh.digest_for("x"), central_gate().digest_for("x"));
}
