//! Alerts: one episode per trouble, one message when it begins and one when it ends, to the same places.

use std::collections::{BTreeMap, BTreeSet};

use super::Control;
use super::troubles::Sign;
use crate::ids::{PortId, ProductId};
use crate::ledger::{Alert, AlertKind, AlertState, Fact};

/// How long a product whose upstream recovered may take to recover itself before its own episode fires.
const RECOVERY_MS: i64 = 10 * 60_000;

/// What an episode is about: product, kind, and what of the product.
pub(super) type About = (ProductId, AlertKind, String);

impl Control {
    /// Compares what is wrong now with the open episodes.
    pub(super) fn judge(&mut self) {
        let signs = self.signs();
        let over: Vec<About> =
            self.ledger.open.keys().filter(|about| !signs.contains_key(*about)).cloned().collect();
        for about in over {
            self.resolve(&about);
        }
        for (about, sign) in self.roots_first(signs) {
            let open = self.ledger.open.get(&about).and_then(|id| self.ledger.episodes.get(id));
            match open.map(|episode| episode.last().clone()) {
                None => self.fire_or_hold(&about, &sign, None),
                Some(held) if held.state == AlertState::Held && self.recovery_over(&held) => {
                    self.fire_or_hold(&about, &sign, Some(&held));
                }
                Some(_) => {}
            }
        }
    }

    /// Orders troubles so that a cause comes before what it explains: inputs before readers, failures before lateness.
    fn roots_first(&self, signs: BTreeMap<About, Sign>) -> Vec<(About, Sign)> {
        let rank: BTreeMap<&ProductId, usize> =
            self.due.order().iter().enumerate().map(|(rank, id)| (id, rank)).collect();
        let mut ordered: Vec<(usize, u8, (About, Sign))> = signs
            .into_iter()
            .map(|(about, sign)| {
                let product = rank.get(&about.0).copied().unwrap_or(usize::MAX);
                let kind = match about.1 {
                    AlertKind::Run | AlertKind::Quality | AlertKind::Table => 0,
                    AlertKind::Freshness => 1,
                    AlertKind::Drift | AlertKind::Deploy => 2,
                };
                (product, kind, (about, sign))
            })
            .collect();
        ordered.sort_by_key(|(product, kind, _)| (*product, *kind));
        ordered.into_iter().map(|(_, _, trouble)| trouble).collect()
    }

    /// Returns whether what held an episode back ended long enough ago.
    fn recovery_over(&self, held: &Alert) -> bool {
        let Some(cause) = held.caused_by.as_ref().and_then(|id| self.ledger.episodes.get(id)) else {
            return true;
        };
        let ended_ms = cause.transitions.last().map_or(0, |(at, _)| *at);
        !cause.is_open() && self.now_ms >= ended_ms + RECOVERY_MS
    }

    /// Returns the firing episode that explains late, or strange, data of a product.
    fn cause(&self, about: &About) -> Option<String> {
        let (product, kind, _) = about;
        if !matches!(kind, AlertKind::Freshness | AlertKind::Drift) {
            return None;
        }
        let ancestors = self.ancestors(product);
        self.ledger.open.iter().find_map(|((other, other_kind, _), id)| {
            let explains = match other_kind {
                AlertKind::Freshness => ancestors.contains(other),
                // What stands still is late after a while, and its owner was told already.
                AlertKind::Quality | AlertKind::Run | AlertKind::Table => {
                    ancestors.contains(other) || (other == product && *kind == AlertKind::Freshness)
                }
                AlertKind::Drift | AlertKind::Deploy => false,
            };
            let firing =
                || self.ledger.episodes.get(id).is_some_and(|it| it.last().state == AlertState::Firing);
            (explains && firing()).then(|| id.clone())
        })
    }

    fn ancestors(&self, product: &ProductId) -> BTreeSet<ProductId> {
        let mut found = BTreeSet::new();
        let mut next = vec![product.clone()];
        while let Some(id) = next.pop() {
            let Some(deployed) = self.ledger.deployed.get(&id) else { continue };
            let upstream = crate::plan::upstream_ports(&deployed.product);
            for port in upstream.iter().chain(deployed.print.reads.keys()).collect::<BTreeSet<&PortId>>() {
                if port.product != *product && found.insert(port.product.clone()) {
                    next.push(port.product.clone());
                }
            }
        }
        found
    }

    /// Begins an episode, or lets one fire that was held back.
    fn fire_or_hold(&mut self, about: &About, sign: &Sign, held: Option<&Alert>) {
        let (product, kind, subject) = about;
        let silenced = self.ledger.silenced.get(product).is_some_and(|until| *until > self.now_ms);
        let caused_by = self.cause(about);
        let state = if silenced || caused_by.is_some() { AlertState::Held } else { AlertState::Firing };
        if held.is_some_and(|held| held.state == state && held.caused_by == caused_by) {
            return;
        }
        let Some(targets) = self.targets(product) else { return };
        let (summary, details) = self.describe(about, sign);
        let alert = Alert {
            episode: held.map_or_else(
                // By the fact's place, which nothing else has. Time stands while a clock that was set back catches up.
                || format!("{product}:{}:{subject}:{}", kind.as_str(), self.ledger.seq + 1),
                |held| held.episode.clone(),
            ),
            product: product.clone(),
            kind: *kind,
            subject: subject.clone(),
            transition: held.map_or(0, |held| held.transition) + 1,
            state,
            summary,
            details,
            caused_by,
            targets,
        };
        self.record(Fact::Alert(alert));
    }

    /// Returns where an alert about a product goes; nothing while nobody is known and the mesh may still tell.
    fn targets(&self, product: &ProductId) -> Option<Vec<String>> {
        let routes = self.desired.as_ref().map(|desired| desired.mesh.mail_for(&product.domain));
        let owners = || self.ledger.deployed.get(product).map(|deployed| deployed.product.owners.clone());
        let known = routes.filter(|mail| !mail.is_empty()).or_else(owners).filter(|mail| !mail.is_empty());
        match known {
            None if self.desired.is_none() => None,
            known => Some(known.unwrap_or_default()),
        }
    }

    fn resolve(&mut self, about: &About) {
        let Some(episode) = self.ledger.open.get(about).and_then(|id| self.ledger.episodes.get(id)) else {
            return;
        };
        let from = episode.last().clone();
        let summary = format!("resolved: {}", self.ending(about));
        let (transition, state) = (from.transition + 1, AlertState::Resolved);
        self.record(Fact::Alert(Alert { transition, state, summary, ..from }));
    }

    /// Says how a trouble ended.
    fn ending(&self, (product, kind, subject): &About) -> String {
        let deployed = self.ledger.deployed.contains_key(product);
        match kind {
            AlertKind::Deploy => format!("what was refused of {product} is deployed or was taken back"),
            _ if !deployed => format!("{product} left the mesh"),
            AlertKind::Freshness => format!("{product}.{subject} is fresh again"),
            AlertKind::Table => format!("{product}.{subject} shows what was published again"),
            AlertKind::Quality | AlertKind::Run => format!("{product}:{subject} went through"),
            AlertKind::Drift => format!("features of {product} agree with the training snapshot again"),
        }
    }
}
