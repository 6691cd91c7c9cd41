//! How much of each promise's error budget is left, from the folded ledger.

use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::LedgerState;
use hydromesh_core::model::SlaKind;
use hydromesh_core::slo::{Collection, Facts, Objective, ObjectiveKind, Publish};
use hydromesh_core::time::Span;

/// The rolling window of an objective whose contract names none: 30 days.
const WINDOW_MS: i64 = 30 * 24 * 3_600_000;

/// One promise and what is left of its budget.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectiveReport {
    /// The port that promises.
    pub port: PortId,
    /// The promise: port and id in the contract.
    pub objective: String,
    /// Share of the error budget that is left; negative when overspent.
    pub budget_remaining: f64,
}

/// Returns the promises about time that anything is known of.
///
/// Quality rules are left out: the folded ledger keeps the newest result of a rule alone, and a budget over 30 days
/// cannot be told from that.
#[must_use]
pub fn objectives(ledger: &LedgerState, now_ms: i64) -> Vec<ObjectiveReport> {
    let mut reports = Vec::new();
    for deployed in ledger.deployed.values() {
        for (name, output) in &deployed.product.outputs {
            let port = deployed.product.port(name);
            let Some(state) = ledger.ports.get(&port) else { continue };
            let publishes = state.publishes.iter();
            let publishes: Vec<Publish> = publishes
                .filter_map(|(at, high)| Some(Publish { at: *at, data_time_high: (*high)? }))
                .collect();
            let facts = Facts { publishes, ..Facts::default() };
            for sla in &output.contract.slas {
                let kind = match &sla.kind {
                    SlaKind::DataAge(max) => ObjectiveKind::DataAge { max: *max },
                    SlaKind::Heartbeat(max_gap) => ObjectiveKind::Heartbeat { max_gap: *max_gap },
                    SlaKind::QualityPassRate(_) | SlaKind::Other { .. } => continue,
                };
                let id = format!("{name}.{}", sla.id);
                let objective =
                    Objective { id, kind, target: sla.target, window: Span::from_millis(WINDOW_MS) };
                if objective.check().is_err() {
                    continue;
                }
                let report = objective.evaluate(&facts, now_ms);
                if report.collection != Collection::NotStarted {
                    let budget_remaining = report.budget_remaining;
                    reports.push(ObjectiveReport {
                        port: port.clone(),
                        objective: objective.id,
                        budget_remaining,
                    });
                }
            }
        }
    }
    reports
}
