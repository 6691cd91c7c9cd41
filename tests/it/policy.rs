//! `policy test` and `policy eval`.

use serde_json::json;

use crate::support::{root, run, text};

#[test]
fn the_rules_compiled_in_pass_their_tests_and_a_failing_one_is_told() {
    let report = run(&["policy", "test", "--format", "json"]).ends_with(0).json();
    assert_eq!(report["passed"], json!(true));
    assert!(report["tests"].as_array().expect("tests").len() > 20);
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.rego"), "package a\nx := 1\n").expect("written");
    let tests = "package a_test\nimport data.a\n\ntest_right if a.x == 1\ntest_wrong if a.x == 2\n";
    std::fs::write(folder.path().join("a_test.rego"), tests).expect("written");
    let ran = run(&["policy", "test", text(folder.path())]).ends_with(1);
    ran.says("failed a_test.test_wrong");
    ran.says("a_test.rego:5");
    ran.says("1 passed, 1 failed");
    run(&["policy", "test", text(folder.path()), "--filter", "right"]).ends_with(0);
}

#[test]
fn an_input_is_allowed_or_denied_with_the_rule() {
    let folder = tempfile::tempdir().expect("a folder");
    let rule = "package hydromesh.deploy.names\n\ndeny contains {\"rule\": \"short-names\", \"msg\": \"too long\"} if {\n\t\
                count(input.product.name) > 20\n}\n";
    std::fs::write(folder.path().join("names.rego"), rule).expect("written");
    let schema: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(root().join("policies/gate-input.schema.json")).expect("read"),
    )
    .expect("JSON");
    assert!(schema.is_object());
    // Not a document that the gate understands: it fails closed.
    let input = folder.path().join("input.json");
    std::fs::write(&input, "{}").expect("written");
    let ran = run(&["policy", "eval", text(&input), "--policies", text(folder.path()), "--format", "json"])
        .ends_with(3);
    assert_eq!(ran.json()["allow"], json!(false));
    assert!(ran.json()["error"].is_string());
    std::fs::write(&input, "{").expect("written");
    run(&["policy", "eval", text(&input)]).ends_with(2).says("is not JSON");
    run(&["policy", "eval", text(&folder.path().join("none.json"))]).ends_with(4);
}
