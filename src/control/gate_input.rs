//! The document that policies judge: `policies/gate-input.schema.json`.
//!
//! Everything in it is derived from the commit, the ledger and the injected clock, so that a decision replays.

use hydromesh_core::compat::{ChangeKind, compare};
use hydromesh_core::control::Question;
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::LedgerState;
use hydromesh_core::lineage::{ColumnEdge, column_edges, labels};
use hydromesh_core::model::{
    Contract, Influence, InputSource, Mesh, PipelineKind, Product, QualitySeverity, SlaKind, Trainer,
};
use hydromesh_core::plan::{Desired, upstream_ports};
use hydromesh_core::waiver::Waiver;
use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::policy::concerns;

/// The lineage of a mesh: what all documents of a commit share, and what takes longest to derive.
pub struct Lineage {
    edges: Vec<ColumnEdge>,
    labels: serde_json::Map<String, Value>,
}

impl Lineage {
    /// Derives it.
    #[must_use]
    pub fn of(desired: &Desired) -> Self {
        let edges = column_edges(&desired.mesh, &desired.shapes);
        let labels = labels(&desired.mesh, &edges)
            .into_iter()
            .map(|(column, label)| (column.to_string(), json!(label)))
            .collect();
        Self { edges, labels }
    }
}

/// What the documents of one commit are made of.
pub struct GateInputs<'a> {
    desired: &'a Desired,
    lineage: &'a Lineage,
    ledger: &'a LedgerState,
    environment: &'a str,
}

impl<'a> GateInputs<'a> {
    /// Prepares the documents of a commit.
    #[must_use]
    pub fn new(
        desired: &'a Desired,
        lineage: &'a Lineage,
        ledger: &'a LedgerState,
        environment: &'a str,
    ) -> Self {
        Self { desired, lineage, ledger, environment }
    }

    /// Returns the document for one question.
    #[must_use]
    pub fn document(
        &self,
        question: &Question,
        policy_digest: &str,
        waivers: &[Waiver],
        now_ms: i64,
    ) -> Value {
        let id = &question.product;
        // What is retired is judged as it runs, and the end of its tables as it ran last.
        let ran = self.ledger.retired.get(id).filter(|_| question.action == "drop").map(|it| &it.deployed);
        let ran = self.ledger.deployed.get(id).or(ran);
        let deployed = ran.map(|deployed| &deployed.product);
        let desired = self.desired.mesh.products.get(id);
        let Some(product) = desired.or(deployed) else { return json!({"apiVersion": "hydromesh/v1"}) };
        let base = ran.map(|deployed| deployed.commit.as_str());
        // What stands is judged as if it were deployed now over itself: by every rule, with nothing changed.
        let action = if question.action == "stand" { "deploy" } else { &question.action };
        json!({
            "apiVersion": "hydromesh/v1",
            "kind": "DeployGateInput",
            "request": {
                "id": format!("{}:{}:{}", question.action, id, question.fingerprint),
                "action": action,
                "environment": self.environment,
                "time": rfc3339(now_ms),
            },
            "git": self.git_part(question, base),
            "product": product_part(&self.desired.mesh, product),
            "contracts": contracts(product, deployed),
            "changes": changes(product, deployed),
            "plan": plan_part(&question.change),
            "lineage": self.lineage(id, product),
            "model": model_part(product),
            "waivers": waivers_part(waivers, id),
            "policy": {"digest": policy_digest},
        })
    }

    fn git_part(&self, question: &Question, base: Option<&str>) -> Value {
        // Where nobody is pinned, it is not known and neither true nor false.
        let verified = self.ledger.verified(&question.commit);
        json!({
            "commit": question.commit,
            "base": base,
            "ref": self.reference(),
            "signed": verified.map(|verified| verified.signer.is_some()),
            "signer": verified.and_then(|verified| verified.signer.clone()),
        })
    }

    fn reference(&self) -> Option<&str> {
        self.desired.mesh.environments.get(self.environment).map(|environment| environment.r#ref.as_str())
    }

    fn lineage(&self, id: &ProductId, product: &Product) -> Value {
        let upstream: std::collections::BTreeSet<String> =
            upstream_ports(product).into_iter().map(|port| port.product.to_string()).collect();
        let downstream: Vec<String> =
            self.desired.mesh.readers(id).map(|reader| reader.id.to_string()).collect();
        let edges: Vec<&ColumnEdge> =
            self.lineage.edges.iter().filter(|edge| edge.to.port.product == *id).collect();
        let labels: serde_json::Map<String, Value> = edges
            .iter()
            .flat_map(|edge| [edge.from.to_string(), edge.to.to_string()])
            .filter_map(|column| self.lineage.labels.get(&column).map(|label| (column, label.clone())))
            .collect();
        let edges: Vec<Value> = edges
            .into_iter()
            .map(|edge| {
                let influence = match edge.influence {
                    Influence::Direct => "DIRECT",
                    Influence::Indirect => "INDIRECT",
                };
                json!({
                    "from": edge.from.to_string(),
                    "to": edge.to.to_string(),
                    "type": influence,
                    "masking": edge.masking,
                })
            })
            .collect();
        json!({"upstream": upstream, "downstream": downstream, "columnEdges": edges, "labels": labels})
    }
}

/// Returns the waivers that could be meant for a product, also those that have ended: it is told of them.
fn waivers_part(waivers: &[Waiver], id: &ProductId) -> Vec<Value> {
    let id = id.to_string();
    let part = |it: &Waiver| {
        json!({
            "id": it.id,
            "rule": it.rule,
            "scope": it.scope,
            "reason": it.reason,
            "approver": it.approver,
            "expires": it.expires,
        })
    };
    waivers.iter().filter(|it| concerns(&it.scope, &id)).map(part).collect()
}

fn product_part(mesh: &Mesh, product: &Product) -> Value {
    let kinds: std::collections::BTreeSet<&str> = product
        .pipelines
        .values()
        .map(|pipeline| match pipeline.kind() {
            PipelineKind::Batch => "batch",
            PipelineKind::Stream => "stream",
            PipelineKind::Feature => "feature",
            PipelineKind::Embedding => "embedding",
            PipelineKind::Training => "training",
        })
        .collect();
    let inputs: Vec<Value> = product
        .inputs
        .values()
        .map(|input| {
            let (from, external) = match &input.source {
                InputSource::Port { port } => (port.to_string(), false),
                InputSource::Files { glob, .. } => (glob.clone(), true),
                InputSource::Topic { topic, .. } => (topic.clone(), true),
            };
            json!({"name": input.name, "from": from, "external": external})
        })
        .collect();
    let outputs: Vec<Value> =
        product.outputs.values().map(|port| json!({"name": port.name, "format": port.format})).collect();
    let mut part = json!({
        "id": product.id,
        "domain": product.id.domain,
        "name": product.id.name,
        "version": product.version,
        "status": product.status,
        "tier": product.tier,
        "owners": product.owners,
        "oncall": mesh.domains.get(&product.id.domain).and_then(|domain| domain.oncall.clone()),
        "runbook": product.runbook,
        "kinds": kinds,
        "inputPorts": inputs,
        "outputPorts": outputs,
    });
    let rules = product
        .commands()
        .map(|(port, rule, it)| json!({"port": product.port(port), "rule": rule.id, "command": it.command}));
    // A trainer stands where a rule does, so that what speaks of commands speaks of it too.
    let trainers = product.trainers().map(|(training, it)| {
        json!({
            "port": product.port(&training.output),
            "rule": "@train",
            "command": it.program.command,
            "network": it.network,
        })
    });
    let commands: Vec<Value> = rules.chain(trainers).collect();
    // A document without any is what it was before there were some: decisions replay.
    if !commands.is_empty() {
        part["commands"] = json!(commands);
        part["files"] = json!(product.files);
    }
    part
}

fn old_contract<'a>(
    deployed: Option<&'a Product>,
    name: &hydromesh_core::ids::PortName,
) -> Option<&'a Contract> {
    deployed.and_then(|product| product.outputs.get(name)).map(|port| &port.contract)
}

fn contracts(product: &Product, deployed: Option<&Product>) -> Vec<Value> {
    let columns = |contract: &Contract| -> Vec<Value> {
        let column = |column: &hydromesh_core::model::Column| {
            json!({
                "name": column.name,
                "logicalType": logical_name(&column.logical),
                "required": column.required,
                "classification": column.classification,
            })
        };
        contract.columns.iter().map(column).collect()
    };
    let one = |(name, port): (&hydromesh_core::ids::PortName, &hydromesh_core::model::OutputPort)| {
        let contract = &port.contract;
        let errors = contract.quality.iter().filter(|rule| rule.severity == QualitySeverity::Error).count();
        json!({
            "port": product.port(name),
            "id": contract.id,
            "version": contract.version,
            "oldVersion": old_contract(deployed, name).map(|old| old.version.clone()),
            "status": contract.status,
            "columns": columns(contract),
            "quality": {"rules": contract.quality.len(), "errorRules": errors},
            "sla": contract.slas.iter().map(|sla| sla_part(&sla.kind)).collect::<Vec<_>>(),
        })
    };
    product.outputs.iter().map(one).collect()
}

fn logical_name(logical: &hydromesh_core::model::LogicalType) -> String {
    match serde_json::to_value(logical) {
        Ok(Value::String(name)) => name,
        _ => "vector".to_owned(),
    }
}

fn sla_part(kind: &SlaKind) -> Value {
    const HOUR_MS: i64 = 3_600_000;
    #[expect(clippy::cast_precision_loss, reason = "a promise in hours needs no more than 53 bits")]
    let hours = |millis: i64| millis as f64 / HOUR_MS as f64;
    match kind {
        SlaKind::DataAge(most) => json!({"property": "latency", "value": hours(most.millis()), "unit": "h"}),
        SlaKind::Heartbeat(most) => {
            json!({"property": "frequency", "value": hours(most.millis()), "unit": "h"})
        }
        SlaKind::QualityPassRate(percent) => {
            json!({"property": "qualityPassRate", "value": percent, "unit": "percent"})
        }
        SlaKind::Other { property, value } => json!({"property": property, "value": value, "unit": null}),
    }
}

fn changes(product: &Product, deployed: Option<&Product>) -> Vec<Value> {
    let mut found = Vec::new();
    for (name, port) in &product.outputs {
        let Some(old) = old_contract(deployed, name) else { continue };
        for change in compare(old, &port.contract) {
            let kind = match change.kind {
                ChangeKind::Added => "ADD",
                ChangeKind::Removed => "REMOVE",
                ChangeKind::Tightened | ChangeKind::Loosened | ChangeKind::Replaced => "CHANGE",
            };
            found.push(json!({
                "port": product.port(name),
                "column": change.column,
                "type": kind,
                "field": change.field,
                "old": change.old,
                "new": change.new,
                "breaks": {"backward": change.breaks_backward, "forward": change.breaks_forward},
            }));
        }
    }
    let removed = deployed.into_iter().flat_map(|old| old.outputs.keys().map(move |name| old.port(name)));
    for port in removed.filter(|port: &PortId| !product.outputs.contains_key(&port.port)) {
        found.push(json!({
            "port": port,
            "column": null,
            "type": "REMOVE",
            "field": "port",
            "old": port,
            "new": null,
            "breaks": {"backward": false, "forward": true},
        }));
    }
    found
}

fn plan_part(change: &Value) -> Value {
    let partitions: u64 = change
        .get("partitions")
        .and_then(Value::as_object)
        .map_or(0, |ports| ports.values().filter_map(Value::as_u64).sum());
    let reasons = change
        .get("reasons")
        .and_then(Value::as_array)
        .map(|reasons| reasons.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "));
    let kind = change.get("kind").and_then(Value::as_str).unwrap_or("update");
    json!({"kind": kind, "partitions": partitions, "reason": reasons})
}

fn model_part(product: &Product) -> Value {
    let Some(training) = product.training() else { return Value::Null };
    let algorithm = match &training.train {
        Trainer::Builtin(name) => name,
        Trainer::Command(_) => "command",
    };
    let as_of = if training.as_of_knowledge.is_empty() { "event" } else { "knowledge" };
    json!({
        "features": training.features,
        "training": {"algorithm": algorithm, "as_of": as_of},
    })
}
