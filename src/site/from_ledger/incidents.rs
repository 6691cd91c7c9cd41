//! Alert episodes as incidents: what happened, when, who was told, whom it reaches.

use std::cmp::Reverse;

use hydromesh_core::control::outbox_id;
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{Alert, AlertKind, AlertState, EpisodeRecord};
use hydromesh_core::lineage;
use hydromesh_core::model::SlaKind;

use super::status::without_name;
use super::{Facts, instant};
use crate::site::model as site;
use crate::site::words;

/// Past episodes with a page of their own; open ones are never left out.
const PAST: usize = 500;

/// Returns open episodes, and the newest past ones.
pub(super) fn all(facts: &Facts<'_>) -> Vec<site::Episode> {
    let episodes = facts.ledger.episodes.iter().filter(|(_, episode)| !episode.transitions.is_empty());
    let (open, mut past): (Vec<_>, Vec<_>) = episodes.partition(|(_, episode)| episode.is_open());
    past.sort_by_key(|(id, episode)| (Reverse(episode.transitions.last().map(|(at, _)| *at)), *id));
    past.truncate(PAST);
    open.into_iter().chain(past).map(|(id, episode)| facts.incident(id, episode)).collect()
}

impl Facts<'_> {
    fn incident(&self, id: &str, episode: &EpisodeRecord) -> site::Episode {
        let last = episode.last();
        // A resolved has words for its end; what it was about is in the last one that was not.
        let told = episode.transitions.iter().rev().map(|(_, alert)| alert);
        let told = told.into_iter().find(|alert| alert.state != AlertState::Resolved).unwrap_or(last);
        let ended = episode.transitions.last().filter(|_| last.state == AlertState::Resolved);
        site::Episode {
            id: id.to_owned(),
            kind: last.kind.as_str().to_owned(),
            level: self.level(last),
            title: self.title(told),
            product: last.product.to_string(),
            objective: self.objective_id(last),
            state: state(last.state),
            started_at: instant(episode.transitions.first().map_or(0, |(at, _)| *at)),
            resolved_at: ended.map(|(at, _)| instant(*at)),
            cause: self.cause(told),
            blast_radius: self.blast_radius(told),
            transitions: episode
                .transitions
                .iter()
                .map(|(at, alert)| self.transition(id, *at, alert))
                .collect(),
        }
    }

    /// Late data wakes somebody where the product is of the first tier; a refused commit hurts no reader.
    fn level(&self, alert: &Alert) -> site::AlertLevel {
        let tier = self.definitions.get(&alert.product).map_or(3, |definition| definition.product.tier);
        match alert.kind {
            AlertKind::Freshness | AlertKind::Stopped if tier <= 1 => site::AlertLevel::Page,
            AlertKind::Freshness
            | AlertKind::Stopped
            | AlertKind::Quality
            | AlertKind::Run
            | AlertKind::Drift
            | AlertKind::Table => site::AlertLevel::Ticket,
            AlertKind::Deploy | AlertKind::Policy => site::AlertLevel::Notice,
        }
    }

    fn title(&self, alert: &Alert) -> String {
        let title = |id: &ProductId| {
            self.definitions.get(id).map_or_else(|| id.to_string(), |it| it.product.title.clone())
        };
        let name = title(&alert.product);
        match alert.kind {
            AlertKind::Freshness => {
                let product = self.definitions.get(&alert.product).map(|definition| definition.product);
                let several = product.is_none_or(|product| product.outputs.len() > 1);
                let what = if several { alert.subject.as_str() } else { "data" };
                format!("{name}: {what} is late")
            }
            AlertKind::Quality => format!("{name}: a quality rule stops publication"),
            AlertKind::Run => format!("{name}: a step fails"),
            AlertKind::Drift => format!("{name}: features drifted"),
            AlertKind::Table => format!("{name}: its table was changed by hand"),
            AlertKind::Policy => format!("{name}: a rule no longer allows it"),
            AlertKind::Stopped => format!("{name}: stopped by a rule"),
            AlertKind::Deploy => {
                let word = alert.summary.split(' ').next().unwrap_or("not applied");
                let commit =
                    detail(alert, "Commit").map_or(String::new(), |it| format!(" in {}", words::short(it)));
                format!("{name}: {word}{commit}")
            }
        }
    }

    fn cause(&self, alert: &Alert) -> String {
        if let Some(cause) = self.cause_of(alert) {
            return format!("{} Explained by {}: {}", sentence(&alert.summary), cause.product, cause.summary);
        }
        match (alert.kind, detail(alert, "Why")) {
            (AlertKind::Deploy, Some(why)) => {
                format!(
                    "{}. The last good generation stays deployed.",
                    without_name(&alert.product.to_string(), why)
                )
            }
            _ => alert.summary.clone(),
        }
    }

    /// Returns the promise that a late port broke.
    fn objective_id(&self, alert: &Alert) -> Option<String> {
        if alert.kind != AlertKind::Freshness {
            return None;
        }
        let product = self.definitions.get(&alert.product)?.product;
        let (name, output) = product.outputs.iter().find(|(name, _)| name.as_str() == alert.subject)?;
        let promises = output.contract.slas.iter().filter_map(|sla| match &sla.kind {
            SlaKind::DataAge(most) => Some((*most, sla)),
            _ => None,
        });
        let (_, sla) = promises.min_by_key(|(most, _)| *most)?;
        Some(format!("{name}.{}", sla.id))
    }

    /// Returns whom the alert named when it fired; readers of today where it named nobody.
    fn blast_radius(&self, alert: &Alert) -> Vec<String> {
        if alert.kind == AlertKind::Deploy {
            return Vec::new();
        }
        match detail(alert, "Blast radius") {
            Some(text) => {
                let names = text.split_once(": ").map_or("", |(_, names)| names);
                let names = names.split(", ").filter(|name| name.parse::<ProductId>().is_ok());
                names.map(str::to_owned).collect()
            }
            None => {
                let readers = lineage::downstream(&self.edges, &alert.product);
                readers.iter().map(ToString::to_string).collect()
            }
        }
    }

    fn transition(&self, episode: &str, at_ms: i64, alert: &Alert) -> site::Transition {
        let sent = |to: &&String| self.ledger.sent.contains_key(&outbox_id(episode, alert.transition, to));
        let (told, waiting): (Vec<&String>, Vec<&String>) = alert.targets.iter().partition(sent);
        let mut note = alert.summary.clone();
        if alert.state == AlertState::Held {
            let why = if alert.caused_by.is_some() { "the cause is open" } else { "the product is silenced" };
            note = format!("{} Nobody is told while {why}.", sentence(&note));
        } else if !waiting.is_empty() {
            let waiting: Vec<&str> = waiting.into_iter().map(String::as_str).collect();
            note = format!("{} On its way to {}.", sentence(&note), waiting.join(", "));
        }
        site::Transition {
            at: instant(at_ms),
            state: state(alert.state),
            note,
            told: told.into_iter().cloned().collect(),
        }
    }
}

fn detail<'a>(alert: &'a Alert, wanted: &str) -> Option<&'a str> {
    alert.details.iter().find(|(label, _)| label == wanted).map(|(_, text)| text.as_str())
}

fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

fn state(state: AlertState) -> site::EpisodeState {
    match state {
        AlertState::Firing => site::EpisodeState::Firing,
        AlertState::Held => site::EpisodeState::Held,
        AlertState::Resolved => site::EpisodeState::Resolved,
    }
}
