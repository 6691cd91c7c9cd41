//! Alerts: one episode per trouble, one message when it begins and one when it ends, to the same places.

use std::collections::BTreeSet;

use super::Control;
use crate::ids::{PortId, ProductId};
use crate::ledger::{Alert, AlertKind, AlertState, EpisodeRecord, Fact};

/// How long a product whose upstream recovered may take to recover itself before its own episode fires.
const RECOVERY_MS: i64 = 10 * 60_000;

/// What an episode is about: product, kind, and what of the product.
pub(super) type About = (ProductId, AlertKind, String);

impl Control {
    /// Compares what is wrong now with the open episodes, of those products of which something may have changed.
    pub(super) fn judge(&mut self) {
        while self.trouble_times.first().is_some_and(|(at_ms, _)| *at_ms <= self.now_ms) {
            self.troubled.extend(self.trouble_times.pop_first().map(|(_, id)| id));
        }
        let mut over = Vec::new();
        for id in std::mem::take(&mut self.troubled) {
            let (signs, until_ms) = self.signs(&id);
            if let Some(before_ms) = self.trouble_ms.remove(&id) {
                self.trouble_times.remove(&(before_ms, id.clone()));
            }
            if let Some(until_ms) = until_ms {
                self.trouble_ms.insert(id.clone(), until_ms);
                self.trouble_times.insert((until_ms, id.clone()));
            }
            let gone = |(_, kind, subject): &About| !signs.contains_key(&(*kind, subject.clone()));
            over.extend(self.episodes_of(&id).map(|(about, _)| about).filter(|about| gone(about)).cloned());
            let before = self.untold.range(least(&id)..).take_while(|about| about.0 == id);
            for about in before.cloned().collect::<Vec<_>>() {
                self.untold.remove(&about);
            }
            for (kind, subject) in signs.into_keys() {
                let about = (id.clone(), kind, subject);
                if self.last_of(&about).is_none_or(|alert| alert.state == AlertState::Held) {
                    self.untold.insert(about);
                }
            }
        }
        for about in over {
            self.resolve(&about);
        }
        for about in self.roots_first() {
            match self.last_of(&about).cloned() {
                None => self.fire_or_hold(&about, None),
                Some(held) if held.state == AlertState::Held && self.recovery_over(&held) => {
                    self.fire_or_hold(&about, Some(&held));
                }
                Some(_) => {}
            }
            if self.last_of(&about).is_some_and(|alert| alert.state != AlertState::Held) {
                self.untold.remove(&about);
            }
        }
    }

    /// Returns the open episodes of a product.
    fn episodes_of(&self, id: &ProductId) -> impl Iterator<Item = (&About, &String)> {
        self.ledger.open.range(least(id)..).take_while(move |(about, _)| about.0 == *id)
    }

    /// Returns the last word of the open episode about something.
    fn last_of(&self, about: &About) -> Option<&Alert> {
        self.ledger.open.get(about).and_then(|id| self.ledger.episodes.get(id)).map(EpisodeRecord::last)
    }

    /// Orders what was not told so that a cause comes before what it explains: inputs before readers, failures before lateness.
    fn roots_first(&self) -> Vec<About> {
        let mut ordered: Vec<About> = self.untold.iter().cloned().collect();
        ordered.sort_by_key(|(product, kind, _)| {
            let kind = match kind {
                AlertKind::Run | AlertKind::Quality | AlertKind::Table | AlertKind::Stopped => 0,
                AlertKind::Freshness => 1,
                AlertKind::Drift | AlertKind::Deploy | AlertKind::Policy => 2,
            };
            (self.due.rank(product).unwrap_or(usize::MAX), kind)
        });
        ordered
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
        let mut suspects = self.ancestors(product);
        suspects.insert(product.clone());
        suspects.iter().flat_map(|id| self.episodes_of(id)).find_map(|((other, other_kind, _), id)| {
            let explains = match other_kind {
                AlertKind::Freshness => other != product,
                // What stands still is late after a while, and its owner was told already.
                AlertKind::Quality | AlertKind::Run | AlertKind::Table | AlertKind::Stopped => {
                    other != product || *kind == AlertKind::Freshness
                }
                AlertKind::Drift | AlertKind::Deploy | AlertKind::Policy => false,
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
    fn fire_or_hold(&mut self, about: &About, held: Option<&Alert>) {
        let (product, kind, subject) = about;
        let silenced = self.ledger.silenced.get(product).is_some_and(|until| *until > self.now_ms);
        let caused_by = self.cause(about);
        let state = if silenced || caused_by.is_some() { AlertState::Held } else { AlertState::Firing };
        if held.is_some_and(|held| held.state == state && held.caused_by == caused_by) {
            return;
        }
        let Some(targets) = self.targets(product) else { return };
        let (mut signs, _) = self.signs(product);
        let Some(sign) = signs.remove(&(*kind, subject.clone())) else { return };
        let (summary, details) = self.describe(about, &sign);
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
        let Some(from) = self.last_of(about).cloned() else { return };
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
            AlertKind::Policy | AlertKind::Stopped => {
                format!("{subject} allows what is deployed of {product}")
            }
            AlertKind::Quality | AlertKind::Run => format!("{product}:{subject} went through"),
            AlertKind::Drift => format!("features of {product} agree with the training snapshot again"),
        }
    }
}

/// Returns what sorts before all that an episode of a product can be about.
fn least(id: &ProductId) -> About {
    (id.clone(), AlertKind::Freshness, String::new())
}
