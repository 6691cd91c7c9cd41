//! The end of the tables of products that left the mesh.
//!
//! It is a point of no return, so it is a fact of its own before anything is touched: until that fact a product that comes back
//! keeps its tables; after it, it starts from nothing, and nothing of it begins before the old tables are away. So neither a
//! crash nor a process that wakes up late can take a table that somebody counts on.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Control, Effect, Question};
use crate::ids::{PortId, ProductId};
use crate::ledger::{Decision, Ending, Fact, LedgerState, Retirement};
use crate::model::TableEnd;
use crate::plan::upstream_ports;
use crate::planted::{self, Bug};

/// How long the tables may take to be taken away before that is asked for again: it may have died with whoever did it.
const PATIENCE_MS: i64 = 10 * 60_000;
/// The pause after a try that failed.
const AGAIN_MS: i64 = 60_000;
/// How often the gate is asked again about what it denied: rules may speak of the time, and waivers run out.
const ASK_AGAIN_MS: i64 = 3_600_000;

/// Tables to be taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disposal {
    /// The product.
    pub product: ProductId,
    /// The place in the ledger of the end that it is about; the same end has the same for ever.
    pub seq: u64,
    /// When it began, milliseconds UTC.
    pub at_ms: i64,
    /// What is done to them.
    pub how: TableEnd,
    /// The tables, each with the newest version that was known of it: one that began after that is another one, and stays.
    pub tables: BTreeMap<PortId, i64>,
}

/// What was done to the tables of a product.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disposed {
    /// How many there were, side tables among them.
    pub tables: u64,
    /// Folder of the archive, relative to the lake, if there was anything to archive.
    pub archive: Option<String>,
}

/// When to look at the tables of products that left.
#[derive(Debug)]
pub(super) struct Endings {
    /// A fact may have made an end due.
    touched: bool,
    /// When time alone may.
    look_ms: i64,
    /// Ends that were handed out or failed, with when each is handed out again.
    out: BTreeMap<ProductId, i64>,
    /// Ends that were denied, with when the gate is asked again.
    denied: BTreeMap<ProductId, i64>,
}

impl Default for Endings {
    fn default() -> Self {
        Self { touched: true, look_ms: i64::MAX, out: BTreeMap::new(), denied: BTreeMap::new() }
    }
}

impl Endings {
    /// Takes note of a fact that was folded into the ledger.
    pub fn note(&mut self, ledger: &LedgerState, fact: &Fact) {
        self.touched |= match fact {
            Fact::Deployed { .. }
            | Fact::Retired { .. }
            | Fact::TablesEnding { .. }
            | Fact::TablesEnded { .. }
            | Fact::CommitOutcome { product: None, .. } => true,
            Fact::RunFinished { step, .. } => ledger.retired.contains_key(&step.pipeline.product),
            Fact::CommandAnswered { .. } => !ledger.retired.is_empty(),
            _ => false,
        };
    }

    /// What the repository asks for may be something else than before.
    pub fn touch(&mut self) {
        self.touched = true;
    }

    fn look_at(&mut self, at_ms: i64) {
        self.look_ms = self.look_ms.min(at_ms);
    }
}

/// Why the tables of a product that left are still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stays {
    /// Until an instant.
    Until(i64),
    /// Until a fact says otherwise.
    Held,
}

impl Control {
    /// Sees to the tables of products that left: asks the gate about those whose time has come, and has those taken away whose
    /// end has begun.
    pub(super) fn end_tables(&mut self) {
        if !std::mem::take(&mut self.endings.touched) && self.now_ms < self.endings.look_ms {
            return;
        }
        self.endings.look_ms = i64::MAX;
        let mut due: Vec<(ProductId, TableEnd)> = Vec::new();
        let mut begun: Vec<Disposal> = Vec::new();
        for (id, retired) in &self.ledger.retired {
            if let Some(ending) = retired.under_way() {
                match self.endings.out.get(id) {
                    Some(again_ms) if *again_ms > self.now_ms => {
                        self.endings.look_ms = self.endings.look_ms.min(*again_ms);
                    }
                    _ => begun.push(disposal(id, ending)),
                }
                continue;
            }
            let Some((how, _)) = retired.due() else { continue };
            match self.stays(id, retired) {
                Some(Stays::Until(at_ms)) => self.endings.look_ms = self.endings.look_ms.min(at_ms),
                Some(Stays::Held) => {}
                None => due.push((id.clone(), how)),
            }
        }
        for disposal in begun {
            let again_ms = self.now_ms.saturating_add(PATIENCE_MS);
            self.endings.out.insert(disposal.product.clone(), again_ms);
            self.endings.look_at(again_ms);
            self.effects.push(Effect::Dispose(disposal));
        }
        for (id, how) in due {
            match self.endings.denied.get(&id).copied() {
                Some(again_ms) if again_ms > self.now_ms => self.endings.look_at(again_ms),
                _ if self.is_asked(&id, "drop") => {}
                _ => self.ask_about_end(&id, how),
            }
        }
    }

    /// Returns why the tables of a product that left stay for now, if they do.
    fn stays(&self, id: &ProductId, retired: &Retirement) -> Option<Stays> {
        let Some((_, due_ms)) = retired.due() else { return Some(Stays::Held) };
        if due_ms > self.now_ms && !planted::is(Bug::EndedTooEarly) {
            return Some(Stays::Until(due_ms));
        }
        if planted::is(Bug::ReturnIgnored) {
            return None;
        }
        if let Some(pause) = self.ledger.whole_pause_of(id, self.now_ms) {
            return Some(pause.until_ms.map_or(Stays::Held, Stays::Until));
        }
        // What the head asks for has to be known: it may bring the product back, and not be through the gate yet.
        let head =
            self.desired.as_deref().filter(|it| self.ledger.head.as_deref() == Some(it.commit.as_str()));
        let wanted = |id: &ProductId| {
            head.is_none_or(|head| head.mesh.products.contains_key(id) || head.broken.contains_key(id))
        };
        let works = self.flights.keys().any(|key| key.pipeline.product == *id);
        let is_read = self.ledger.deployed.iter().any(|(reader, deployed)| {
            reader == id
                || deployed.print.reads.keys().any(|port| port.product == *id)
                || upstream_ports(&deployed.product).iter().any(|port| port.product == *id)
        });
        (wanted(id) || works || is_read).then_some(Stays::Held)
    }

    fn ask_about_end(&mut self, id: &ProductId, how: TableEnd) {
        let Some(retired) = self.ledger.retired.get(id) else { return };
        let fingerprint = retired.deployed.print.all.clone();
        let commit = self.ledger.head.clone().unwrap_or_default();
        let reason = format!("it left the mesh, and says that its tables are then {}", how.done());
        let change = json!({
            "product": id,
            "kind": "retire",
            "reasons": [reason],
            "fingerprint": fingerprint,
            "partitions": {},
        });
        let product = id.clone();
        self.ask("drop", Question { product, action: "drop".to_owned(), commit, fingerprint, change });
    }

    /// Takes in what the gate says of the end of a product's tables; it may have come back meanwhile.
    pub(super) fn ending_decided(&mut self, decision: &Decision) {
        self.endings.touched = true;
        let id = &decision.product;
        let Some(retired) = self.ledger.retired.get(id) else { return };
        let Some((how, _)) = retired.due().filter(|_| retired.deployed.print.all == decision.fingerprint)
        else {
            return;
        };
        if !decision.allow {
            self.endings.denied.insert(id.clone(), self.now_ms.saturating_add(ASK_AGAIN_MS));
        } else if self.stays(id, retired).is_none() {
            let (product, decision) = (id.clone(), decision.id.clone());
            self.record(Fact::TablesEnding { product, how, decision });
        }
    }

    /// Takes in that tables were taken away, or were not.
    pub(super) fn disposed(&mut self, id: &ProductId, seq: u64, result: Result<Disposed, String>) {
        let Some(ending) = self.ledger.ending_of(id).filter(|ending| ending.seq == seq) else { return };
        let how = ending.how;
        match result {
            Ok(Disposed { tables, archive }) => {
                self.endings.out.remove(id);
                self.record(Fact::TablesEnded { product: id.clone(), how, tables, archive });
            }
            Err(_) => {
                let again_ms = self.now_ms.saturating_add(AGAIN_MS);
                self.endings.out.insert(id.clone(), again_ms);
                self.endings.look_at(again_ms);
            }
        }
    }
}

fn disposal(id: &ProductId, ending: &Ending) -> Disposal {
    let Ending { seq, at_ms, how, tables, .. } = ending.clone();
    Disposal { product: id.clone(), seq, at_ms, how, tables }
}
