//! Rules as they are handed to a gate, wherever it stands, and the digests that name them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    decision::SourceSet,
    gate::Gate,
    set::{PolicySet, PolicySource, digest},
};

/// Central rules, the mesh's and those of its domains: read, not loaded, so that nothing of them is parsed or run here.
#[derive(Clone, Debug)]
pub struct Rules {
    texts: RuleTexts,
    /// Of each layer that has rules.
    central: String,
    mesh: Option<String>,
    domains: BTreeMap<String, String>,
    whole: String,
}

/// The texts of rules, as they are sent to whoever loads them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RuleTexts {
    pub central: PolicySet,
    pub mesh: Vec<PolicySource>,
    pub domains: BTreeMap<String, Vec<PolicySource>>,
}

impl RuleTexts {
    /// Loads them.
    pub(super) fn gate(&self) -> Gate {
        Gate::new(&self.central, &self.mesh, &self.domains)
    }
}

impl Rules {
    /// Returns central rules together with those that a mesh adds; `own` holds path and text.
    #[must_use]
    pub fn new(central: &PolicySet, own: &[(String, String)]) -> Self {
        let mut mesh = Vec::new();
        let mut domains: BTreeMap<String, Vec<PolicySource>> = BTreeMap::new();
        for (path, text) in own {
            let source = PolicySource { path: path.clone(), text: text.clone() };
            match path.strip_prefix("domains/").and_then(|rest| rest.split_once('/')) {
                Some((domain, _)) => domains.entry(domain.to_owned()).or_default().push(source),
                None => mesh.push(source),
            }
        }
        let data = central.data();
        let layer = |sources: &Vec<PolicySource>| has_rules(sources).then(|| digest(sources, data));
        let mut this = Self {
            central: central.digest(),
            mesh: layer(&mesh),
            domains: domains.iter().filter_map(|(name, it)| Some((name.clone(), layer(it)?))).collect(),
            texts: RuleTexts { central: central.clone(), mesh, domains },
            whole: String::new(),
        };
        let mut hash = Sha256::new();
        // One digest over all of them: a change to any rule asks every product again, which is cheap and never wrong.
        for domain in this.texts.domains.keys().map(String::as_str).chain([""]) {
            hash.update(this.digest_for(domain));
        }
        this.whole = format!("sha256:{}", hex::encode(hash.finalize()));
        this
    }

    /// Returns the digest of all rules.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.whole
    }

    /// Returns the digest of the rules that a product of the domain is judged by, as a gate of them does.
    #[must_use]
    pub fn digest_for(&self, domain: &str) -> String {
        let mesh = self.mesh.iter().map(|it| (SourceSet::Mesh, it.as_str()));
        let domain = self.domains.get(domain).map(|it| (SourceSet::Domain, it.as_str()));
        layers_digest([(SourceSet::Central, self.central.as_str())].into_iter().chain(mesh).chain(domain))
    }

    /// Loads them in this process. Whoever evaluates them here trusts whoever wrote them.
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.texts.gate()
    }

    pub(super) fn texts(&self) -> &RuleTexts {
        &self.texts
    }
}

/// A layer of which every file is a test asks nothing.
pub(super) fn has_rules(sources: &[PolicySource]) -> bool {
    sources.iter().any(|source| !source.is_test())
}

/// Returns one digest over those of several layers.
pub(super) fn layers_digest<'a>(layers: impl Iterator<Item = (SourceSet, &'a str)>) -> String {
    let mut hash = Sha256::new();
    hash.update(b"hydromesh-gate/1\n");
    for (set, digest) in layers {
        hash.update(format!("{set:?} {digest}\n"));
    }
    format!("sha256:{}", hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_are_not_loaded_have_the_digests_of_the_gate_that_they_make() {
        let rule = |path: &str, package: &str| (path.to_owned(), format!("package {package}\nwarn := []\n"));
        let own = [
            rule("policies/a.rego", "mesh.a"),
            rule("domains/shop/policies/b.rego", "domain.shop.b"),
            rule("domains/care/policies/c_test.rego", "domain.care.c_test"),
        ];
        for own in [&own[..], &own[1..], &[]] {
            let rules = Rules::new(&PolicySet::embedded(), own);
            let gate = rules.gate();
            for domain in ["shop", "care", "elsewhere", ""] {
                assert_eq!(rules.digest_for(domain), gate.digest_for(domain), "{domain} of {own:?}");
            }
        }
        let digest = |own: &[(String, String)]| Rules::new(&PolicySet::embedded(), own).digest().to_owned();
        assert_ne!(digest(&own), digest(&own[1..]));
        assert_ne!(digest(&own[1..]), digest(&own[2..]));
    }

    #[test]
    fn a_compiled_set_arrives_as_it_was_sent() {
        let set = PolicySet { compiled: Some(vec![0, 97, 255]), ..PolicySet::embedded() };
        let text = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<PolicySet>(&text).unwrap(), set);
    }
}
