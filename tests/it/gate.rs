//! The gate's worker process: what rules do to it, and that nobody else feels it.

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use hydromesh::policy::{Decision, GateProcess, PolicySet, ProcessLimits, Rules};
use serde_json::{Value, json};

use crate::support::{hydromesh, text};

/// Enough for the central rules, and soon reached by what doubles.
const LIMITS: ProcessLimits =
    ProcessLimits { memory_mib: 256, question: Duration::from_secs(30), loading: Duration::from_mins(2) };

/// A rule of a domain that doubles a text until there is no memory left.
pub fn bomb(domain: &str, condition: &str) -> (String, String) {
    let mut text = format!(
        "package domain.{domain}.bomb\n\ndeny contains {{\"msg\": x40}} if {{\n\t{condition}\n\tx0 := \"0123456789abcdef\"\n"
    );
    for n in 1..=40 {
        let before = n - 1;
        text.push_str(&format!("\tx{n} := concat(\"\", [x{before}, x{before}])\n"));
    }
    text.push_str("}\n");
    (format!("domains/{domain}/policies/bomb.rego"), text)
}

fn asked_about(domain: &str) -> Value {
    json!({
        "apiVersion": "hydromesh/v1", "kind": "DeployGateInput",
        "request": {"id": "r1", "action": "deploy", "environment": "dev", "time": "2026-08-10T12:00:00Z"},
        "git": {"commit": "c0ffee", "base": null, "ref": "refs/heads/main"},
        "product": {
            "id": format!("{domain}/sales"), "domain": domain, "name": "sales", "version": "1.0.0", "status": "active",
            "tier": 3, "owners": ["ada@example.com"], "oncall": null, "runbook": null, "kinds": ["batch"],
            "inputPorts": [], "outputPorts": [{"name": "sales", "format": "delta"}]
        },
        "contracts": [], "changes": [], "plan": {"kind": "create", "partitions": 2, "reason": null},
        "lineage": {"upstream": [], "downstream": [], "columnEdges": [], "labels": {}},
        "model": null, "waivers": [], "policy": {"digest": ""}
    })
}

fn ours(limits: ProcessLimits) -> GateProcess {
    GateProcess::of(env!("CARGO_BIN_EXE_hydromesh").into(), limits)
}

fn rules(own: &[(String, String)]) -> Rules {
    Rules::new(&PolicySet::embedded(), own)
}

#[track_caller]
fn assert_unanswered(decision: &Decision, said: &str) {
    let violation = &decision.violations[0];
    assert!(!decision.allow && violation.rule == "policy-unanswered", "{decision:#?}");
    assert!(
        violation.message.starts_with("HM-P003") && violation.message.contains(said),
        "{said}: {decision:#?}"
    );
    assert!(violation.remediation.is_some() && decision.error.as_ref() == Some(&violation.message));
}

#[test]
fn a_rule_that_doubles_its_memory_ends_its_worker_and_denies_nobody_else() {
    let rules = rules(&[bomb("shop", "input.product.tier == 3")]);
    let mut gate = ours(LIMITS);
    assert!(gate.id().is_none(), "nobody has asked yet");
    let good = gate.decide(&rules, &asked_about("care"));
    let first = gate.id().expect("it lives on");
    let denied = gate.decide(&rules, &asked_about("shop"));
    assert_unanswered(&denied, "data.domain.shop.bomb.deny took more memory than the 256 MiB");
    assert_eq!(denied.violations[0].source_file.as_deref(), Some("domains/shop/policies/bomb.rego"));
    assert_eq!(denied.policy_digest, rules.digest_for("shop"));
    assert!(gate.id().is_none(), "it is gone");
    assert_eq!(gate.decide(&rules, &asked_about("care")), good, "the next worker answers the same");
    let second = gate.id().expect("it lives on");
    assert_ne!(first, second);
    assert_eq!(gate.decide(&rules, &asked_about("care")), good);
    assert_eq!(gate.id(), Some(second), "one worker for many questions");
    let again = gate.decide(&rules, &asked_about("shop"));
    assert_eq!(serde_json::to_string(&again).unwrap(), serde_json::to_string(&denied).unwrap(), "it replays");
}

#[test]
fn a_worker_decides_to_the_byte_what_a_gate_in_this_process_decides() {
    let warns =
        ("policies/a.rego".to_owned(), "package mesh.a\nwarn contains {\"msg\": \"hm\"}\n".to_owned());
    let broken = ("policies/b.rego".to_owned(), "package mesh.b\ndeny contains {".to_owned());
    let mut gate = ours(LIMITS);
    for own in [vec![], vec![warns.clone()], vec![warns, broken]] {
        let rules = rules(&own);
        let here = rules.gate();
        let mut odd = asked_about("shop");
        odd["contracts"] = json!([{"port": "shop/sales.sales", "sla": [{"value": 1.10}]}]);
        for input in [asked_about("shop"), asked_about("care"), odd, json!({"kind": 1})] {
            let (one, other) = (gate.decide(&rules, &input), here.decide(&input));
            assert_eq!(serde_json::to_string(&one).unwrap(), serde_json::to_string(&other).unwrap());
        }
    }
}

#[test]
fn whatever_becomes_of_a_worker_is_a_denial() {
    let spin = "package domain.shop.spin\n\ndeny contains {\"msg\": \"x\"} if {\n\tsome a in numbers.range(1, 3000)\n\t\
                some b in numbers.range(1, 3000)\n\tsome c in numbers.range(1, 3000)\n\ta * b * c == -1\n}\n";
    let spin = rules(&[("domains/shop/policies/spin.rego".to_owned(), spin.to_owned())]);
    let mut gate = ours(ProcessLimits { question: Duration::from_millis(1_500), ..LIMITS });
    // The first question has the time of loading besides.
    let began = Instant::now();
    assert_unanswered(
        &gate.decide(&spin, &asked_about("shop")),
        "data.domain.shop.spin.deny took longer than the 1.5 s",
    );
    assert!(began.elapsed() < Duration::from_mins(2));
    assert!(gate.id().is_none(), "it was ended");

    let (plain, input) = (rules(&[]), asked_about("shop"));
    let folder = tempfile::tempdir().expect("a folder");
    let echo = folder.path().join("echo");
    std::fs::write(&echo, "#!/bin/sh\ncat\n").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&echo, mode).expect("made a program");
    // A process that another test begins meanwhile may hold it open for a moment.
    std::thread::sleep(Duration::from_millis(100));
    for (program, said) in [
        (text(&echo), "an answer that is none"),
        ("/bin/false", "ended at loading the rules (exit code 1)"),
        ("/none/such", "no process could be started"),
    ] {
        let mut gate = GateProcess::of(program.into(), LIMITS);
        for _ in 0..2 {
            assert_unanswered(&gate.decide(&plain, &input), said);
        }
    }
}

#[test]
fn a_worker_ends_with_whoever_asks_and_writes_no_file() {
    let mut worker = hydromesh()
        .args(["gate-worker", "--memory-mib", "256"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    std::thread::sleep(Duration::from_millis(300));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.id())).expect("read");
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).expect("listed");
        line[26..].split_whitespace().next().expect("a value").to_owned()
    };
    let bounds = ["Max data size", "Max core file size", "Max file size"].map(limit);
    assert_eq!(bounds, [(256_u64 << 20).to_string(), "0".to_owned(), "0".to_owned()]);
    assert!(worker.try_wait().expect("asked").is_none(), "it waits to be asked");
    drop(worker.stdin.take());
    assert_eq!(worker.wait().expect("ends").code(), Some(0));
    let mut said = String::new();
    worker.stdout.take().expect("a pipe").read_to_string(&mut said).expect("read");
    assert_eq!(said, "", "nobody asked anything");
}
