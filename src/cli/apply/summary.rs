//! What became of a preview, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use hydromesh_core::diag::Severity;
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::{ErrorKind, LedgerState, Outcome};
use hydromesh_core::model::{Partitioning, Parts, Pipeline};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::output::{Paint, Tone, counted, instant, short};
use crate::cli::{BUG, DENIED, DONE, FINDINGS, OUTSIDE};
use crate::clock::rfc3339;
use crate::control::{Built, NOT_BUILT};
use crate::preview::Note;

/// What became of a preview.
#[derive(Debug, Serialize)]
pub struct Summary {
    preview: String,
    parent: String,
    /// The position of the parent's ledger that it reads at, and the time of it.
    position: u64,
    pinned: String,
    commit: String,
    message: String,
    r#ref: String,
    /// Ports that it makes itself.
    built: Vec<Port>,
    /// Ports that those read of the parent, with the version.
    read: BTreeMap<PortId, Option<i64>>,
    /// Products that are deployed with another definition and the same data.
    metadata: BTreeSet<ProductId>,
    /// Products that are built in no preview, with why.
    not_built: BTreeMap<ProductId, String>,
    /// Products that are denied, held or broken, with what they are and why.
    refused: BTreeMap<ProductId, Refused>,
    /// What is wrong with the mesh as a whole.
    findings: Vec<String>,
    expires: String,
    #[serde(skip)]
    code: u8,
}

#[derive(Debug, Serialize)]
struct Refused {
    outcome: Outcome,
    why: String,
}

/// A port that a preview makes itself.
#[derive(Debug, Serialize)]
struct Port {
    port: PortId,
    partitioned: bool,
    /// Partitions that are there, and those of them that were computed this time; a whole table is one.
    partitions: usize,
    computed: u64,
    rows: u64,
    version: Option<i64>,
    /// The first partition, and how many earlier ones are left out.
    from: Option<String>,
    left_out: u64,
    /// Inputs of which earlier partitions are left out.
    reads_part_of: Vec<PortId>,
    /// Why something of it is not there.
    failed: Vec<String>,
    waits: Vec<String>,
}

impl Summary {
    /// Returns what became of a preview.
    #[must_use]
    pub fn of(built: &Built, note: &Note) -> Self {
        let ledger = &built.ledger;
        let inherited = ledger.inherited.as_deref();
        let since_ms = inherited.map_or(0, |it| it.at_ms);
        let mut summary = Self {
            preview: note.preview.to_string(),
            parent: note.parent.clone(),
            position: inherited.map_or(0, |it| it.position),
            pinned: rfc3339(since_ms),
            commit: built.commit.id.as_str().to_owned(),
            message: built.commit.subject().to_owned(),
            r#ref: note.r#ref.clone(),
            built: Vec::new(),
            read: BTreeMap::new(),
            metadata: BTreeSet::new(),
            not_built: BTreeMap::new(),
            refused: BTreeMap::new(),
            findings: Vec::new(),
            expires: rfc3339(note.expires_ms),
            code: DONE,
        };
        let own: BTreeSet<PortId> = ledger.deployed.keys().flat_map(|id| ledger.own_ports(id)).collect();
        for (id, deployed) in &ledger.deployed {
            let ports = deployed.product.pipelines.values();
            let ports: Vec<Port> = ports.filter_map(|it| port(built, id, it, &own)).collect();
            if !ports.is_empty() {
                let reads = deployed.product.reads().filter(|port| !own.contains(*port));
                summary.read.extend(
                    reads.map(|port| (port.clone(), ledger.ports.get(port).map(|state| state.version))),
                );
            } else if deployed.at_ms > since_ms {
                summary.metadata.insert(id.clone());
            }
            summary.built.extend(ports);
        }
        summary.verdicts(ledger);
        if ledger.outcome(&summary.commit) == Some(Outcome::Broken) && summary.refused.is_empty() {
            let errors = built.findings.iter().filter(|it| it.severity == Severity::Error);
            let line =
                |it: &hydromesh_core::diag::Diagnostic| format!("{} {}: {}", it.code, it.file, it.message);
            summary.findings = errors.map(line).collect();
        }
        summary.code = summary.weigh(ledger);
        summary
    }

    /// Takes in what did not advance.
    fn verdicts(&mut self, ledger: &LedgerState) {
        for (id, verdict) in &ledger.verdicts {
            if verdict.commit != self.commit || verdict.outcome == Outcome::Applied {
                continue;
            }
            let decision = ledger.newest_decision(id, "deploy").filter(|it| it.commit == self.commit);
            let unbuilt = decision.and_then(|it| it.violations.first()).filter(|it| it.rule == NOT_BUILT);
            match (unbuilt, verdict.outcome) {
                (Some(finding), Outcome::Denied) => {
                    self.not_built.insert(id.clone(), finding.message.clone());
                }
                _ => {
                    let refused = Refused { outcome: verdict.outcome, why: verdict.why.clone() };
                    self.refused.insert(id.clone(), refused);
                }
            }
        }
        if ledger.outcome(&self.commit) == Some(Outcome::Held) && self.refused.is_empty() {
            let why = ledger
                .outcomes
                .iter()
                .rev()
                .find(|(commit, product, ..)| *commit == self.commit && product.is_none());
            self.findings.extend(why.map(|(.., why)| why.clone()));
        }
    }

    /// Returns the exit code.
    fn weigh(&self, ledger: &LedgerState) -> u8 {
        let failed = |kind: ErrorKind| ledger.failed.values().any(|attempts| attempts.kind == kind);
        if self.refused.values().any(|it| it.outcome == Outcome::Denied) {
            DENIED
        } else if failed(ErrorKind::Internal) {
            BUG
        } else if failed(ErrorKind::External) {
            OUTSIDE
        } else if failed(ErrorKind::User) || !self.refused.is_empty() || !self.findings.is_empty() {
            FINDINGS
        } else {
            DONE
        }
    }

    /// Returns the exit code of the verb.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Returns it for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!(self)
    }

    /// Returns it for people.
    #[must_use]
    pub fn human(&self, paint: Paint, state: &Path) -> String {
        let mut text = format!(
            "{} over {} at {}: {}\n",
            paint.text(Tone::Good, &self.preview),
            self.parent,
            short(&self.commit),
            self.message
        );
        let mut part = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                let _ = writeln!(text, "\n{}", paint.text(Tone::Faint, title));
            }
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        };
        if self.built.is_empty() {
            part("built", vec![format!("nothing: no data is defined otherwise than in {}", self.parent)]);
        } else {
            part("built", self.built.iter().flat_map(|port| port.lines(paint)).collect());
        }
        let read = self.read.iter().map(|(port, version)| match version {
            Some(version) => format!("{port} at version {version}"),
            None => format!("{port}, of which nothing is published"),
        });
        let title = format!("read from {} as of {} (fact {})", self.parent, self.pinned, self.position);
        part(&title, read.collect());
        part("metadata only, nothing to compute", self.metadata.iter().map(ToString::to_string).collect());
        part("not in a preview", self.not_built.iter().map(|(id, why)| format!("{id}: {why}")).collect());
        let refused = self.refused.iter().map(|(id, it)| {
            let word = match it.outcome {
                Outcome::Denied => paint.text(Tone::Bad, "denied"),
                Outcome::Held => paint.text(Tone::Odd, "held"),
                _ => paint.text(Tone::Bad, "broken"),
            };
            let why = it.why.strip_prefix(&format!("{id}: ")).unwrap_or(&it.why);
            format!("{word} {id}: {why}")
        });
        part("refused", refused.collect());
        part("findings", self.findings.clone());
        let _ = writeln!(text, "\nlives until {}; `hydromesh apply` again lets it live longer", self.expires);
        if let Some(port) = self.built.iter().find(|port| port.version.is_some()) {
            let (state, preview) = (state.display(), &self.preview);
            let _ = writeln!(
                text,
                "hydromesh query --state {state} --env {preview} 'SELECT * FROM \"{}\"'",
                port.port
            );
        }
        text.trim_end().to_owned()
    }
}

impl Port {
    fn lines(&self, paint: Paint) -> Vec<String> {
        let mut what = match (self.partitioned, self.partitions, &self.from) {
            (_, 0, _) => "nothing yet".to_owned(),
            (true, count, Some(from)) => format!("{} from {from}", counted(count, "partition")),
            (true, count, None) => counted(count, "partition"),
            (false, ..) => "whole".to_owned(),
        };
        if self.partitions > 0 {
            let computed = match (self.computed, self.partitioned) {
                (0, _) => "all there before".to_owned(),
                (_, false) => "computed now".to_owned(),
                (count, true) => format!("{count} computed now"),
            };
            let _ = write!(
                what,
                ", {} ({computed})",
                counted(usize::try_from(self.rows).unwrap_or(usize::MAX), "row")
            );
        }
        if self.left_out > 0 {
            let left_out = counted(usize::try_from(self.left_out).unwrap_or(usize::MAX), "earlier partition");
            let _ = write!(what, "; {left_out} left out, --partitions N for more");
        }
        let mut lines = vec![format!("{}: {what}", self.port)];
        lines.extend(self.reads_part_of.iter().map(|it| format!("  reads only what is built of {it}")));
        lines.extend(self.failed.iter().map(|why| format!("  {} {why}", paint.text(Tone::Bad, "failed"))));
        lines.extend(self.waits.iter().map(|why| format!("  {} {why}", paint.text(Tone::Odd, "waits"))));
        lines
    }
}

/// Returns what became of a port, if it is one that the preview makes itself.
fn port(built: &Built, id: &ProductId, pipeline: &Pipeline, own: &BTreeSet<PortId>) -> Option<Port> {
    let ledger = &built.ledger;
    let deployed = ledger.deployed.get(id)?;
    let port = deployed.product.port(pipeline.output());
    if !own.contains(&port) {
        return None;
    }
    let cut = match pipeline {
        Pipeline::Batch(batch) => batch.partition.as_ref(),
        _ => None,
    };
    let state = ledger.ports.get(&port);
    let data = deployed.print.ports.get(pipeline.output()).map(|print| print.data.as_str());
    // What an earlier push made and this one has not made again yet is not what it stands for.
    let there: Vec<_> = state
        .into_iter()
        .flat_map(|state| state.partitions.iter())
        .filter(|(key, it)| {
            Some(it.published.data.as_str()) == data && cut.is_none_or(|cut| is_cut_there(cut, key))
        })
        .map(|(_, it)| it)
        .collect();
    let failed = ledger
        .failed
        .iter()
        .filter(|(step, _)| step.pipeline.product == *id && step.pipeline.name == *pipeline.name());
    let waits = built
        .waiting
        .iter()
        .filter(|it| it.pipeline.product == *id && it.pipeline.name == *pipeline.name() && !it.held);
    let bounded = built.bounded.get(&port);
    Some(Port {
        partitioned: cut.is_some(),
        partitions: there.len(),
        computed: state
            .map_or(0, |it| it.published)
            .saturating_sub(built.published.get(&port).copied().unwrap_or(0)),
        rows: there.iter().map(|it| it.published.rows).sum(),
        version: state.filter(|_| !there.is_empty()).map(|it| it.version),
        from: cut.and_then(Partitioning::calendar).map(|calendar| calendar.start.clone()),
        left_out: bounded.map_or(0, |it| it.left_out),
        reads_part_of: deployed
            .product
            .reads()
            .filter(|it| built.bounded.contains_key(it))
            .cloned()
            .collect(),
        failed: failed.map(|(step, it)| format!("{step}: {}: {}", it.code, it.message)).collect(),
        waits: waits.map(|it| waiting(&it.why, it.until_ms)).collect(),
        port,
    })
}

/// Returns whether a key is one of those that an output is cut into.
fn is_cut_there(cut: &Partitioning, key: &str) -> bool {
    match &cut.into {
        Parts::Calendar(calendar) => key >= calendar.start.as_str(),
        Parts::Values { values } | Parts::Keys { found: values, .. } => values.index(key).is_some(),
    }
}

fn waiting(why: &str, until_ms: Option<i64>) -> String {
    until_ms.map_or_else(|| why.to_owned(), |until_ms| format!("{why}, until {}", instant(until_ms)))
}
