//! Alerts: one episode per trouble, one message when it begins and one when it ends, to the same places.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::{Control, Effect};
use crate::ids::{PortId, ProductId};
use crate::ledger::{Alert, AlertKind, AlertState, Fact, Outcome};
use crate::model::{Pipeline, SlaKind, TrainingPipeline};
use crate::time::Span;

/// How long a product whose upstream recovered may take to recover itself before its own episode fires.
const RECOVERY_MS: i64 = 10 * 60_000;

/// Something that is wrong now.
#[derive(Debug, Clone, PartialEq)]
struct Trouble {
    product: ProductId,
    kind: AlertKind,
    subject: String,
    summary: String,
    details: Vec<(String, String)>,
}

type TroubleKey = (ProductId, AlertKind, String);

impl Trouble {
    fn key(&self) -> TroubleKey {
        (self.product.clone(), self.kind, self.subject.clone())
    }
}

/// Returns the id of a message: the same transition to the same place has the same id for ever.
#[must_use]
pub fn outbox_id(episode: &str, transition: u32, to: &str) -> String {
    let digest = Sha256::digest(format!("{episode}\n{transition}\n{to}"));
    digest.iter().take(10).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns whether an open episode explains drift of a training's features: late or bad data, not another world.
pub(super) fn explains_drift(alert: &Alert, training: &TrainingPipeline) -> bool {
    matches!(alert.kind, AlertKind::Freshness | AlertKind::Quality)
        && training.features.iter().any(|port| port.product == alert.product)
}

impl Control {
    /// Compares what is wrong now with the open episodes.
    pub(super) fn judge(&mut self) {
        let troubles = self.troubles();
        let open: BTreeMap<TroubleKey, Alert> = self
            .ledger
            .episodes
            .values()
            .filter(|episode| episode.is_open())
            .map(|episode| episode.last().clone())
            .map(|alert| ((alert.product.clone(), alert.kind, alert.subject.clone()), alert))
            .collect();
        let wrong: BTreeSet<TroubleKey> = troubles.iter().map(Trouble::key).collect();
        for (key, alert) in open.iter().filter(|(key, _)| !wrong.contains(*key)) {
            let summary = format!("resolved: {}", subject(&key.0, alert.kind, &alert.subject));
            self.transition(alert, AlertState::Resolved, summary, alert.details.clone(), None);
        }
        for trouble in troubles {
            let cause = self.cause(&trouble, &open);
            match (open.get(&trouble.key()), cause) {
                (None, cause) => self.begin(trouble, cause),
                (Some(alert), None) if alert.state == AlertState::Held && self.recovery_over(alert) => {
                    self.transition(alert, AlertState::Firing, trouble.summary, trouble.details, None);
                }
                (Some(_), _) => {}
            }
        }
    }

    /// Returns whether a held episode's cause ended long enough ago.
    fn recovery_over(&self, alert: &Alert) -> bool {
        let Some(cause) = alert.caused_by.as_ref().and_then(|id| self.ledger.episodes.get(id)) else {
            return true;
        };
        let ended_ms = cause.transitions.last().map_or(0, |(at, _)| *at);
        !cause.is_open() && self.now_ms >= ended_ms + RECOVERY_MS
    }

    /// Returns the open episode of an ancestor that explains a late product.
    fn cause(&self, trouble: &Trouble, open: &BTreeMap<TroubleKey, Alert>) -> Option<String> {
        if trouble.kind != AlertKind::Freshness {
            return None;
        }
        let ancestors = self.ancestors(&trouble.product);
        // The most upstream unexplained episode is the root.
        open.values()
            .filter(|alert| {
                matches!(alert.kind, AlertKind::Freshness | AlertKind::Quality | AlertKind::Run)
                    && alert.state == AlertState::Firing
                    && ancestors.contains(&alert.product)
            })
            .map(|alert| alert.episode.clone())
            .next()
    }

    fn ancestors(&self, product: &ProductId) -> BTreeSet<ProductId> {
        let mut found = BTreeSet::new();
        let mut next = vec![product.clone()];
        while let Some(id) = next.pop() {
            let Some(deployed) = self.ledger.deployed.get(&id) else { continue };
            let reads = deployed.product.reads().chain(deployed.print.reads.keys());
            for port in reads.collect::<BTreeSet<&PortId>>() {
                if port.product != *product && found.insert(port.product.clone()) {
                    next.push(port.product.clone());
                }
            }
        }
        found
    }

    /// Returns the deployed products that read a product, directly or through others.
    fn blast_radius(&self, product: &ProductId) -> BTreeSet<ProductId> {
        let ids = self.ledger.deployed.keys().filter(|id| *id != product);
        ids.filter(|id| self.ancestors(id).contains(product)).cloned().collect()
    }

    fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        for (id, deployed) in &self.ledger.deployed {
            for (name, output) in &deployed.product.outputs {
                let port = deployed.product.port(name);
                for sla in &output.contract.slas {
                    let SlaKind::DataAge(most) = &sla.kind else { continue };
                    let state = self.ledger.ports.get(&port);
                    let newest_ms = state.and_then(|state| state.newest_data_ms);
                    // A product that has published nothing yet is as old as its deploy.
                    let since_ms = newest_ms.unwrap_or(deployed.at_ms);
                    let age_ms = self.now_ms - since_ms;
                    if age_ms > most.millis() {
                        troubles.push(self.late(id, &port, age_ms, *most, newest_ms));
                    }
                }
            }
        }
        for (key, attempts) in &self.ledger.failed {
            if !Self::given_up(attempts.kind, attempts.count, 3) {
                continue;
            }
            let id = &key.pipeline.product;
            let kind = if attempts.code.starts_with("HM-Q") { AlertKind::Quality } else { AlertKind::Run };
            let mut details = vec![
                ("Step".to_owned(), key.to_string()),
                ("Error".to_owned(), format!("{} {}", attempts.code, attempts.message)),
                ("Attempts".to_owned(), attempts.count.to_string()),
                ("Explain".to_owned(), format!("hydromesh explain {}", attempts.code)),
            ];
            self.context(id, &mut details);
            let summary = format!("{key} failed: {}", attempts.message);
            troubles.push(Trouble { product: id.clone(), kind, subject: key.to_string(), summary, details });
        }
        for (id, history) in &self.ledger.drift {
            troubles.extend(self.drifted(id, history.iter().rev()));
        }
        troubles.extend(self.refused());
        troubles
    }

    fn late(
        &self,
        id: &ProductId,
        port: &PortId,
        age_ms: i64,
        most: Span,
        newest_ms: Option<i64>,
    ) -> Trouble {
        let age = Span::from_millis(age_ms - age_ms % 60_000);
        let mut details = vec![
            ("Port".to_owned(), port.to_string()),
            ("Promise".to_owned(), format!("data at most {most} old")),
            (
                "Data is usable up to".to_owned(),
                newest_ms.map_or_else(|| "nothing published yet".to_owned(), instant),
            ),
        ];
        self.context(id, &mut details);
        let over = Span::from_millis((age_ms - most.millis()).max(60_000) / 60_000 * 60_000);
        Trouble {
            product: id.clone(),
            kind: AlertKind::Freshness,
            subject: port.port.to_string(),
            summary: format!("{port} is late by {over}: its newest data is {age} old, the promise is {most}"),
            details,
        }
    }

    /// Adds what everyone who is woken needs: blast radius, last deploy, runbook.
    fn context(&self, id: &ProductId, details: &mut Vec<(String, String)>) {
        let readers = self.blast_radius(id);
        let names: Vec<String> = readers.iter().map(ToString::to_string).collect();
        let radius = if names.is_empty() {
            "no reader".to_owned()
        } else {
            format!("{}: {}", names.len(), names.join(", "))
        };
        details.push(("Blast radius".to_owned(), radius));
        if let Some(deployed) = self.ledger.deployed.get(id) {
            let commit: String = deployed.commit.chars().take(12).collect();
            details.push(("Last deploy".to_owned(), format!("{commit} at {}", instant(deployed.at_ms))));
            if let Some(runbook) = &deployed.product.runbook {
                details.push(("Runbook".to_owned(), runbook.clone()));
            }
        }
    }

    fn drifted<'a>(
        &self,
        id: &ProductId,
        newest_first: impl Iterator<Item = &'a (i64, Vec<crate::ledger::FeatureDrift>, bool)>,
    ) -> Option<Trouble> {
        let deployed = self.ledger.deployed.get(id)?;
        let rule = deployed.product.pipelines.values().find_map(|pipeline| match pipeline {
            Pipeline::Training(training) => training.retrain_on.drift.clone(),
            _ => None,
        })?;
        let trained_ms =
            self.ledger.models.get(id).and_then(|models| models.trained.last()).map_or(0, |(at, _)| *at);
        let window: Vec<_> =
            newest_first.take_while(|(at, ..)| *at > trained_ms).take(rule.of as usize).collect();
        let confirmed = window.iter().filter(|(_, _, drifted)| *drifted).count();
        if confirmed < rule.confirm as usize {
            return None;
        }
        let (_, verdicts, _) = window.first()?;
        let worst = verdicts
            .iter()
            .filter(|verdict| verdict.verdict == "drifted")
            .max_by(|left, right| left.statistic.total_cmp(&right.statistic))
            .or_else(|| verdicts.first())?;
        let mut details: Vec<(String, String)> = verdicts
            .iter()
            .filter(|verdict| verdict.verdict == "drifted")
            .map(|it| {
                let text = format!(
                    "{} {:.3}, p {:.2e}, effect {:.2} ({} now against {} in the snapshot)",
                    it.test, it.statistic, it.p_value, it.effect, it.samples.1, it.samples.0
                );
                (it.feature.clone(), text)
            })
            .collect();
        self.context(id, &mut details);
        Some(Trouble {
            product: id.clone(),
            kind: AlertKind::Drift,
            subject: "features".to_owned(),
            summary: format!(
                "features of {id} moved away from the training snapshot: {} ({} {:.3}, p {:.1e}), {confirmed} of {} comparisons",
                worst.feature,
                worst.test,
                worst.statistic,
                worst.p_value,
                window.len()
            ),
            details,
        })
    }

    /// Returns products whose newest outcome is a refusal.
    fn refused(&self) -> Vec<Trouble> {
        let mut newest: BTreeMap<&ProductId, (&str, Outcome, &str)> = BTreeMap::new();
        for (commit, product, outcome, why) in &self.ledger.outcomes {
            if let Some(product) = product {
                newest.insert(product, (commit, *outcome, why));
            }
        }
        let head = self.ledger.head.as_deref().unwrap_or_default();
        newest
            .into_iter()
            .filter(|(_, (commit, outcome, _))| *outcome != Outcome::Applied && *commit == head)
            .map(|(product, (commit, outcome, why))| {
                let short: String = commit.chars().take(12).collect();
                let word = match outcome {
                    Outcome::Denied => "denied",
                    Outcome::Held => "held",
                    Outcome::Broken => "broken",
                    Outcome::Applied | Outcome::Superseded => "not applied",
                };
                let details = vec![
                    ("Commit".to_owned(), short.clone()),
                    ("Why".to_owned(), why.to_owned()),
                    ("What runs".to_owned(), "the last good generation stays deployed".to_owned()),
                ];
                Trouble {
                    product: product.clone(),
                    kind: AlertKind::Deploy,
                    subject: short.clone(),
                    summary: format!("{word} in {short}: {why}"),
                    details,
                }
            })
            .collect()
    }

    fn begin(&mut self, trouble: Trouble, cause: Option<String>) {
        let Trouble { product, kind, subject, summary, details } = trouble;
        let silenced = self.ledger.silenced.get(&product).is_some_and(|until| *until > self.now_ms);
        let routes = self.desired.as_ref().map(|desired| desired.mesh.mail_for(&product.domain));
        let owners = self.ledger.deployed.get(&product).map(|deployed| deployed.product.owners.clone());
        let targets = if silenced { Vec::new() } else { routes.or(owners).unwrap_or_default() };
        let state = if cause.is_some() { AlertState::Held } else { AlertState::Firing };
        let episode = format!("{product}:{}:{subject}:{}", kind_name(kind), self.now_ms);
        let alert = Alert {
            episode,
            product,
            kind,
            subject,
            transition: 1,
            state,
            summary,
            details,
            caused_by: cause,
            targets,
        };
        self.record(Fact::Alert(alert));
    }

    fn transition(
        &mut self,
        from: &Alert,
        state: AlertState,
        summary: String,
        details: Vec<(String, String)>,
        caused_by: Option<String>,
    ) {
        let alert =
            Alert { transition: from.transition + 1, state, summary, details, caused_by, ..from.clone() };
        self.record(Fact::Alert(alert));
    }

    /// Hands over every message that was not accepted yet.
    ///
    /// A firing that was never sent because it was held stays unsent, and so does its resolved: for each place, a
    /// resolved goes out if and only if its firing does.
    pub(super) fn deliver(&mut self) {
        let mut effects = Vec::new();
        for (id, episode) in &self.ledger.episodes {
            let fired = episode.transitions.iter().any(|(_, alert)| alert.state == AlertState::Firing);
            for (_, alert) in
                episode.transitions.iter().filter(|(_, alert)| fired && alert.state != AlertState::Held)
            {
                for to in &alert.targets {
                    let outbox = outbox_id(id, alert.transition, to);
                    let handed = self.delivering.get(&outbox).is_some_and(|again_ms| *again_ms > self.now_ms);
                    if self.ledger.sent.contains_key(&outbox) || handed {
                        continue;
                    }
                    effects.push(Effect::Deliver { outbox, to: to.clone(), alert: alert.clone() });
                    // A resolved waits until its firing was accepted.
                    break;
                }
            }
        }
        for effect in effects {
            if let Effect::Deliver { outbox, .. } = &effect {
                // Unless the shell answers, the message is handed over again: it may have died with the attempt.
                self.delivering.insert(outbox.clone(), self.now_ms + 10 * 60_000);
            }
            self.effect(effect);
        }
    }
}

fn kind_name(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::Freshness => "freshness",
        AlertKind::Quality => "quality",
        AlertKind::Drift => "drift",
        AlertKind::Run => "run",
        AlertKind::Deploy => "deploy",
    }
}

fn subject(product: &ProductId, kind: AlertKind, subject: &str) -> String {
    match kind {
        AlertKind::Freshness => format!("{product}.{subject} is fresh again"),
        AlertKind::Quality | AlertKind::Run => format!("{subject} went through"),
        AlertKind::Drift => format!("features of {product} agree with the training snapshot again"),
        AlertKind::Deploy => format!("{product}: {subject} was followed by a commit without this refusal"),
    }
}

/// Returns an instant for people, RFC 3339 to the minute.
fn instant(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms)
        .map_or_else(|| ms.to_string(), |at| at.format("%Y-%m-%d %H:%M UTC").to_string())
}
