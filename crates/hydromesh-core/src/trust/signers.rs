//! Who is trusted, and with what: pinned by the operator, outside the repository.

use std::collections::{BTreeMap, BTreeSet};

use super::{NAMESPACE, Proof, Standing};
use crate::diag::{Diagnostic, codes};
use crate::model::read::API_VERSION;
use crate::plan::glob_matches;
use crate::syntax::{Map, Sink, parse};

/// One line of who has which key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Key {
    /// Of an SSH key its base64 text, of an OpenPGP key `openpgp:` and its fingerprint.
    pub id: String,
    /// The type of an SSH key as written; empty for OpenPGP.
    pub kind: String,
    /// Names of whoever has it.
    pub principals: BTreeSet<String>,
    /// What it may be used for; everything without.
    pub namespaces: Option<BTreeSet<String>>,
    /// First instant at which it counts, milliseconds UTC.
    pub from_ms: Option<i64>,
    /// Last instant at which it counts, milliseconds UTC.
    pub until_ms: Option<i64>,
    /// It never counts.
    pub revoked: bool,
}

/// Who may sign what.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    paths: Vec<String>,
    signers: Vec<String>,
}

/// Who is trusted, and with what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers {
    /// Known keys. A key may be there several times, with other names or at other times.
    pub keys: Vec<Key>,
    rules: Vec<Rule>,
    /// Whom a domain names in `domain.yaml` may sign for it.
    domains: bool,
    /// Everything up to this commit counts as accepted.
    pub since: Option<String>,
}

impl Signers {
    /// Reads `signers.yaml`; keys are still missing. Findings that are errors make the whole unusable.
    #[must_use]
    pub fn parse(file: &str, text: &str) -> (Self, Vec<Diagnostic>) {
        let sink = Sink::new(file);
        let (documents, found) = parse(file, text);
        for diagnostic in found {
            sink.push(diagnostic);
        }
        let mut signers = Self { domains: true, ..Self::default() };
        let Some(document) = documents.first() else { return (signers, sink.into_found()) };
        let map = Map::new(document, &sink);
        for (key, wanted) in [("apiVersion", API_VERSION), ("kind", "Signers")] {
            if let Some(found) = map.req_text(key)
                && found != wanted
            {
                map.bad_choice(key, map.spot(key), &found, &[wanted]);
            }
        }
        if let Some(id) = map.text("since") {
            let id = id.to_ascii_lowercase();
            if id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                signers.since = Some(id);
            } else {
                let message = format!("`{id}` is not a whole commit id of 40 hexadecimal digits");
                sink.tell(codes::BAD_VALUE, map.spot("since"), message);
            }
        }
        signers.domains = map.flag("domain_signers").unwrap_or(true);
        let _ = map.req("rules");
        for node in map.list("rules") {
            let rule = Map::new(node, &sink);
            let texts = |key: &'static str| -> Vec<String> {
                let _ = rule.req(key);
                rule.texts(key).into_iter().map(|(text, _)| text).collect()
            };
            let (paths, names) = (texts("paths"), texts("signers"));
            rule.finish();
            signers.rules.push(Rule { paths, signers: names });
        }
        map.finish();
        (signers, sink.into_found())
    }

    /// Returns what a signature is worth to whoever looks at it at `now_ms` for the first time.
    ///
    /// Times inside a commit or a signature are the signer's to choose: a key that was lost last year signs for the year before.
    #[must_use]
    pub fn standing(&self, proof: &Proof, now_ms: i64) -> Standing {
        let made = match proof {
            Proof::Unsigned => return Standing::Unsigned,
            Proof::Malformed(why) => return Standing::Malformed(why.clone()),
            Proof::Stranger(key) => return Standing::Unknown(key.clone()),
            Proof::Bad(why) => return Standing::Bad(why.clone()),
            Proof::Made(made) => made,
        };
        if let Some(other) = made.namespace.as_ref().filter(|name| *name != NAMESPACE) {
            let shown = other.chars().filter(char::is_ascii_graphic).take(80).collect();
            return Standing::WrongNamespace(shown);
        }
        let known: Vec<&Key> = self.keys.iter().filter(|key| key.id == made.key).collect();
        let shown = || made.shown.clone();
        if known.is_empty() {
            return Standing::Unknown(shown());
        }
        if known.iter().any(|key| key.revoked) {
            return Standing::Revoked(shown());
        }
        let for_git = |key: &&Key| key.namespaces.as_ref().is_none_or(|names| names.contains(NAMESPACE));
        let usable: Vec<&Key> = known.into_iter().filter(for_git).collect();
        if usable.is_empty() {
            return Standing::Unknown(format!("{}, which is not for git", made.shown));
        }
        let timely = |key: &&Key| {
            key.from_ms.is_none_or(|from| from <= now_ms) && key.until_ms.is_none_or(|until| now_ms <= until)
        };
        let ended = made.ends_ms.is_some_and(|end| end < now_ms);
        let principals: BTreeSet<String> = usable
            .into_iter()
            .filter(timely)
            .filter(|_| !ended)
            .flat_map(|key| key.principals.iter().cloned())
            .collect();
        if principals.is_empty() { Standing::Expired(shown()) } else { Standing::Good { principals } }
    }

    /// Returns whether somebody with these names may change a path. What no rule speaks of, nobody may.
    #[must_use]
    pub fn may_sign(
        &self,
        names: &BTreeSet<String>,
        path: &str,
        domains: &BTreeMap<String, Vec<String>>,
    ) -> bool {
        let ruled = self.rules.iter().any(|rule| {
            rule.paths.iter().any(|glob| glob_matches(glob, path))
                && rule.signers.iter().any(|allowed| names.iter().any(|name| glob_matches(allowed, name)))
        });
        let domain =
            path.strip_prefix("domains/").and_then(|rest| rest.split_once('/')).map(|(domain, _)| domain);
        let own = || domain.and_then(|domain| domains.get(domain));
        // By name alone: a pattern here would let a domain trust whoever is trusted for anything.
        ruled || (self.domains && own().is_some_and(|own| own.iter().any(|name| names.contains(name))))
    }
}

/// Returns the signers that a `domain.yaml` names; nobody when it cannot be read.
#[must_use]
pub fn domain_signers(text: &str) -> Vec<String> {
    let sink = Sink::new("domain.yaml");
    let (documents, found) = parse("domain.yaml", text);
    if !found.is_empty() {
        return Vec::new();
    }
    let names = |document| Map::new(document, &sink).texts("signers");
    documents.first().map(names).unwrap_or_default().into_iter().map(|(name, _)| name).collect()
}
