//! Rules of the gate, and what they decided lately.

use std::collections::{BTreeMap, BTreeSet};

use hydromesh_core::ledger::Decision;

use super::{Facts, instant};
use crate::control::Judge;
use crate::policy::{PolicySet, RuleMetadata, SourceSet};
use crate::site::model::{self as site, RuleEffect};

/// Decisions older than this are not counted.
const WINDOW_DAYS: u32 = 30;

/// A rule as its author describes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KnownRule {
    /// Whose it is.
    pub set: SourceSet,
    /// The name that its findings carry.
    pub rule: String,
    /// Denies or warns.
    pub effect: RuleEffect,
    /// What its author says of it.
    pub metadata: RuleMetadata,
}

/// Returns the rules of the operator and of the mesh by the names that their findings carry; `own` holds path and text
/// of the mesh's own.
///
/// A package may describe all of its rules at once, so the names are read from its text: findings know their rule, not
/// their package. Where there is no text (a compiled bundle) the package stands for its rules.
#[must_use]
pub fn known_rules(central: &PolicySet, own: &[(String, String)]) -> Vec<KnownRule> {
    let gate = Judge::new(central, own).gate();
    let mut domains: BTreeSet<&str> =
        own.iter().filter_map(|(path, _)| path.strip_prefix("domains/")?.split('/').next()).collect();
    domains.insert("");
    let mut texts: BTreeMap<&str, &str> =
        central.sources().iter().map(|source| (source.path.as_str(), source.text.as_str())).collect();
    texts.extend(own.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    let described: BTreeSet<(SourceSet, RuleMetadata)> =
        domains.into_iter().flat_map(|domain| gate.metadata(domain)).collect();
    let own_words: BTreeSet<(&str, &str)> =
        described.iter().filter_map(|(_, it)| Some((it.package.as_str(), it.rule.as_deref()?))).collect();
    let mut rules = BTreeSet::new();
    for (set, metadata) in &described {
        let named = texts.get(metadata.file.as_str()).map_or_else(Vec::new, |text| findings(text));
        let effect_of = |rule: &str| {
            named.iter().find(|(name, _)| name == rule).map_or(RuleEffect::Deny, |(_, effect)| *effect)
        };
        let known = |rule: String, effect| KnownRule { set: *set, rule, effect, metadata: metadata.clone() };
        match &metadata.rule {
            Some(rule) => _ = rules.insert(known(rule.clone(), effect_of(rule))),
            // A package of helpers finds nothing.
            None if named.is_empty() && texts.contains_key(metadata.file.as_str()) => {}
            None if named.is_empty() => {
                let topic = metadata.package.rsplit('.').next().unwrap_or_default().replace('_', "-");
                rules.insert(known(topic, RuleEffect::Deny));
            }
            None => rules.extend(
                named
                    .iter()
                    .filter(|(name, _)| !own_words.contains(&(metadata.package.as_str(), name.as_str())))
                    .map(|(name, effect)| known(name.clone(), *effect)),
            ),
        }
    }
    rules.into_iter().collect()
}

/// Returns the names that a policy's findings carry, each with what the first of them does.
fn findings(text: &str) -> Vec<(String, RuleEffect)> {
    let mut found: Vec<(String, RuleEffect)> = Vec::new();
    let mut effect = None;
    for line in text.lines() {
        let code = line.split('#').next().unwrap_or_default();
        if !code.starts_with([' ', '\t', '}']) && !code.is_empty() {
            effect = match code.split([' ', '{', '[']).next() {
                Some("deny") => Some(RuleEffect::Deny),
                Some("warn") => Some(RuleEffect::Warn),
                _ => None,
            };
        }
        let Some((effect, (_, rest))) = effect.zip(code.split_once("\"rule\"")) else { continue };
        let name = rest.split('"').nth(1).unwrap_or_default();
        if !name.is_empty() && !found.iter().any(|(known, _)| known == name) {
            found.push((name.to_owned(), effect));
        }
    }
    found
}

/// What a rule decided.
#[derive(Default)]
struct Counts<'a> {
    denied: u64,
    warned: u64,
    last_denial: Option<(i64, &'a Decision, &'a str)>,
}

/// Returns the known rules, and those that only decisions know, with what they decided in the window.
pub(super) fn rules(facts: &Facts<'_>) -> Vec<site::PolicyRule> {
    let from_ms = facts.now_ms - i64::from(WINDOW_DAYS) * 86_400_000;
    let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut asked: BTreeMap<&str, u64> = BTreeMap::new();
    for (at, decision) in facts.ledger.decisions.iter().filter(|(at, _)| *at >= from_ms) {
        *asked.entry(decision.product.domain.as_str()).or_default() += 1;
        let denied: BTreeSet<&str> =
            decision.violations.iter().map(|finding| finding.rule.as_str()).collect();
        for rule in &denied {
            let entry = counts.entry(rule).or_default();
            entry.denied += 1;
            let reason = decision.violations.iter().find(|finding| finding.rule == **rule);
            entry.last_denial = Some((*at, decision, reason.map_or("", |finding| finding.message.as_str())));
        }
        let warned: BTreeSet<&str> = decision.warnings.iter().map(|finding| finding.rule.as_str()).collect();
        warned.difference(&denied).for_each(|rule| counts.entry(rule).or_default().warned += 1);
    }
    let decisions: u64 = asked.values().sum();
    let mut rules: BTreeMap<&str, site::PolicyRule> = BTreeMap::new();
    for known in &facts.view.policies {
        let metadata = &known.metadata;
        let source = match known.set {
            SourceSet::Central => "central".to_owned(),
            SourceSet::Mesh | SourceSet::Domain => metadata.file.clone(),
        };
        let domain = metadata.file.strip_prefix("domains/").and_then(|rest| rest.split('/').next());
        let asked = match (known.set, domain) {
            (SourceSet::Domain, Some(domain)) => asked.get(domain).copied().unwrap_or_default(),
            _ => decisions,
        };
        rules.entry(&known.rule).or_insert_with(|| site::PolicyRule {
            title: metadata.title.clone().unwrap_or_else(|| words(&known.rule)),
            description: [&metadata.description, &metadata.remediation]
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" "),
            effect: known.effect,
            ..rule(&known.rule, source, asked)
        });
    }
    for (id, counts) in counts {
        let shown = rules.entry(id).or_insert_with(|| site::PolicyRule {
            title: words(id),
            ..rule(id, "the mesh".to_owned(), decisions)
        });
        shown.denied = counts.denied;
        shown.warned = counts.warned;
        shown.passed = shown.passed.saturating_sub(counts.denied + counts.warned);
        shown.last_denial = counts.last_denial.map(|(at, decision, reason)| site::Denial {
            at: instant(at),
            product: decision.product.to_string(),
            reason: reason.to_owned(),
        });
    }
    rules.into_values().collect()
}

fn rule(id: &str, source: String, asked: u64) -> site::PolicyRule {
    site::PolicyRule {
        id: id.to_owned(),
        title: String::new(),
        description: String::new(),
        effect: RuleEffect::Deny,
        source,
        owner: String::new(),
        window_days: WINDOW_DAYS,
        passed: asked,
        warned: 0,
        denied: 0,
        last_denial: None,
    }
}

/// Returns a rule's name as words, for rules that nobody described.
fn words(id: &str) -> String {
    let text = id.replace(['-', '_'], " ");
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
