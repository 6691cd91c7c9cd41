use super::*;

fn problems(body: &str) -> Vec<String> {
    let text = format!("package hydromesh.deploy.x\n{body}");
    lint(&PolicySource { path: "x.rego".to_owned(), text })
        .into_iter()
        .map(|problem| format!("{}:{} {:?} {}", problem.line, problem.column, problem.kind, problem.message))
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
        assert!(found.len() == 1 && found[0].starts_with(&format!("{place} InputPath")), "{body}: {found:?}");
    }
}

#[test]
fn functions_that_call_themselves_are_errors() {
    for (body, count) in [
        ("f(n) := f(n)", 1),
        ("f(n) := 1 if f(n) == 2", 1),
        ("f(n) := g(n)\ng(n) := h(n)\nh(n) := f(n)", 3),
        ("f(n) := data.hydromesh.deploy.x.f(n)", 1),
        ("f(n) := data[\"hydromesh\"].deploy.x[\"f\"](n)", 1),
        ("import data.hydromesh.deploy.x\nf(n) := x.f(n)", 1),
        ("import data.hydromesh.deploy.x.f as g\nf(n) := g(n)", 1),
        ("f(n) := [m | m := f(n)]", 1),
        ("f(n) := g(n)\ng(n) := n\na := f(f(1))", 0),
    ] {
        let found = problems(body);
        assert_eq!(
            found.iter().filter(|text| text.contains("Recursion")).count(),
            count,
            "{body}: {found:?}"
        );
        assert_eq!(found.len(), count, "{body}: {found:?}");
    }
    let found = problems("f(n) := g(n)\ng(n) := n\na if f(1) == 1 with g as f");
    assert!(found.len() == 1 && found[0].contains("Replacement"), "{found:?}");
    assert_eq!(problems("a if { b with input as {} }\nb := 1"), [""; 0]);
}

#[test]
fn functions_that_cannot_be_replayed_are_errors() {
    let found = problems("a if time.now_ns() > 1");
    assert!(found.len() == 1 && found[0].contains("Nondeterministic"), "{found:?}");
}
