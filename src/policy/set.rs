//! A set of policies: where its files come from, and the digest that names exactly these rules.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{bundle, decision::canonical_json, embedded, problem::PolicyError};

/// One Rego file: where it was found, as a person would write it, and its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicySource {
    pub path: String,
    pub text: String,
}

impl PolicySource {
    /// Returns true for `*_test.rego`. Tests are never part of a gate or of a digest.
    #[must_use]
    pub fn is_test(&self) -> bool {
        self.path.ends_with("_test.rego")
    }
}

/// A policy file may not be larger than this; the largest central rule has under 4 KiB.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;
/// Folders below the given one that are searched for rules.
const MAX_DEPTH: usize = 8;

/// Policies as read, not yet judged: [`super::Gate::new`] never fails, it denies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicySet {
    pub(super) sources: Vec<PolicySource>,
    pub(super) data: Value,
    /// The module of a bundle that `opa build -t wasm` made. The sources are then its own record of what was compiled.
    #[serde(with = "as_hex")]
    pub(super) compiled: Option<Vec<u8>>,
}

/// Bytes as text: a list of numbers would be four times as long.
mod as_hex {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    #[expect(clippy::ref_option, reason = "serde hands over the field")]
    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(hex::encode).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| hex::decode(text).map_err(D::Error::custom)).transpose()
    }
}

impl PolicySet {
    /// Returns the central rules that were compiled into this binary.
    ///
    /// # Panics
    /// When they were compiled in broken, which a test rules out.
    #[must_use]
    pub fn embedded() -> Self {
        let mut sources = Vec::new();
        let mut data = Value::Object(serde_json::Map::new());
        for (name, text) in embedded::FILES {
            if *name == "data.json" {
                data = serde_json::from_str(text).expect("a test reads the embedded data.json");
            } else {
                sources.push(PolicySource { path: format!("policies/{name}"), text: (*text).to_owned() });
            }
        }
        Self::from_sources(sources, data)
    }

    /// Returns a set of the given files and data document.
    #[must_use]
    pub fn from_sources(mut sources: Vec<PolicySource>, data: Value) -> Self {
        sources.sort();
        Self { sources, data, compiled: None }
    }

    /// Reads a folder of `.rego` files with `data.json` files beside them (a folder's data lies below its path, as in an
    /// OPA bundle), or a bundle `.tar.gz`, compiled to WebAssembly or not.
    ///
    /// # Errors
    ///
    /// When the path cannot be read, holds no policy, or data is not JSON. Mistakes in the rules are not errors here.
    pub fn open(path: &Path) -> Result<Self, PolicyError> {
        let entries = if path.is_dir() {
            let mut entries = Vec::new();
            read_folder(path, "", 0, &mut entries)?;
            entries
        } else {
            bundle::read(path)?
        };
        Self::from_entries(path, entries)
    }

    fn from_entries(path: &Path, mut entries: Vec<(String, Vec<u8>)>) -> Result<Self, PolicyError> {
        entries.sort();
        let mut sources = Vec::new();
        let mut data = Value::Object(serde_json::Map::new());
        let mut compiled = None;
        for (name, bytes) in entries {
            let (folder, file) = name.rsplit_once('/').unwrap_or(("", &name));
            if file.ends_with(".rego") {
                let text =
                    String::from_utf8(bytes).map_err(|_| PolicyError::NotText { path: name.clone() })?;
                sources.push(PolicySource { path: name, text });
            } else if file == "data.json" {
                let value = serde_json::from_slice(&bytes)
                    .map_err(|source| PolicyError::Data { path: name.clone(), source })?;
                let nested = folder.rsplit('/').filter(|part| !part.is_empty()).fold(value, |inner, part| {
                    Value::Object([(part.to_owned(), inner)].into_iter().collect())
                });
                if !merge(&mut data, nested) {
                    return Err(PolicyError::DataConflict { path: name });
                }
            } else if file == "data.yaml" || file == "data.yml" {
                // Rules that miss their data would not fire, so data that cannot be read must not pass in silence.
                return Err(PolicyError::YamlData { path: name });
            } else if file == "policy.wasm" && folder.is_empty() {
                compiled = Some(bytes);
            }
        }
        if sources.is_empty() && compiled.is_none() {
            return Err(PolicyError::Empty { path: path.to_owned() });
        }
        Ok(Self { compiled, ..Self::from_sources(sources, data) })
    }

    /// Returns every file of the set, tests included, in path order.
    #[must_use]
    pub fn sources(&self) -> &[PolicySource] {
        &self.sources
    }

    /// Returns the data document that rules see under `data`.
    #[must_use]
    pub fn data(&self) -> &Value {
        &self.data
    }

    /// Returns true when the set is evaluated by opa-wasm.
    #[must_use]
    pub fn is_compiled(&self) -> bool {
        self.compiled.is_some()
    }

    /// Returns `sha256:` and the digest of rules, data and compiled module. Tests, comments in other files and the order of
    /// the files do not matter.
    #[must_use]
    pub fn digest(&self) -> String {
        let sources = digest(&self.sources, &self.data);
        match &self.compiled {
            None => sources,
            Some(module) => {
                let mut hash = Sha256::new();
                hash.update(b"hydromesh-policy-wasm/1\n");
                hash.update(sources.as_bytes());
                hash.update(Sha256::digest(module));
                format!("sha256:{}", hex::encode(hash.finalize()))
            }
        }
    }
}

/// Returns `sha256:` and a digest over path and text of every rule file (tests excepted) and over the data document.
/// It does not depend on the order of the files or of the data's keys.
#[must_use]
pub fn digest(sources: &[PolicySource], data: &Value) -> String {
    let mut rules: Vec<&PolicySource> = sources.iter().filter(|source| !source.is_test()).collect();
    rules.sort();
    let mut hash = Sha256::new();
    hash.update(b"hydromesh-policy/1\n");
    for source in rules {
        // Lengths keep two different lists of files from running together into the same bytes.
        hash.update(format!("{} {}\n", source.path.len(), source.text.len()));
        hash.update(source.path.as_bytes());
        hash.update(source.text.as_bytes());
    }
    hash.update(b"data\n");
    hash.update(canonical_json(data));
    format!("sha256:{}", hex::encode(hash.finalize()))
}

/// Merges objects key by key; returns false when two files give the same key different values.
fn merge(into: &mut Value, from: Value) -> bool {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().all(|(key, value)| match into.get_mut(&key) {
                Some(there) => merge(there, value),
                None => {
                    into.insert(key, value);
                    true
                }
            })
        }
        (into, from) => *into == from,
    }
}

fn read_folder(
    folder: &Path,
    prefix: &str,
    depth: usize,
    entries: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), PolicyError> {
    let failed = |path: PathBuf| move |source| PolicyError::Read { path, source };
    for entry in std::fs::read_dir(folder).map_err(failed(folder.to_owned()))? {
        let entry = entry.map_err(failed(folder.to_owned()))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        let relative = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let metadata = std::fs::metadata(&path).map_err(failed(path.clone()))?;
        if metadata.is_dir() {
            if depth < MAX_DEPTH {
                read_folder(&path, &relative, depth + 1, entries)?;
            }
        } else if name.ends_with(".rego") || matches!(name.as_str(), "data.json" | "data.yaml" | "data.yml") {
            if metadata.len() > MAX_FILE_BYTES {
                return Err(PolicyError::TooLarge { path, limit: MAX_FILE_BYTES });
            }
            let bytes = std::fs::read(&path).map_err(failed(path.clone()))?;
            entries.push((relative, bytes));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source(path: &str, text: &str) -> PolicySource {
        PolicySource { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn digest_names_rules_and_data_and_nothing_else() {
        let (a, b) = (source("a.rego", "package a"), source("b.rego", "package b"));
        let data = json!({"x": 1, "y": 2});
        let base = digest(&[a.clone(), b.clone()], &data);
        assert!(base.starts_with("sha256:") && base.len() == 71);
        assert_eq!(base, digest(&[b.clone(), a.clone()], &json!({"y": 2, "x": 1})));
        assert_eq!(base, digest(&[a.clone(), source("a_test.rego", "package t"), b.clone()], &data));
        assert_ne!(base, digest(&[a.clone(), source("b.rego", "package c")], &data));
        assert_ne!(base, digest(&[a.clone(), source("c.rego", "package b")], &data));
        assert_ne!(base, digest(std::slice::from_ref(&a), &data));
        assert_ne!(base, digest(&[a, b], &json!({"x": 1, "y": 3})));
    }

    #[test]
    fn a_folder_and_the_embedded_set_say_the_same() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let (read, built_in) = (PolicySet::open(&folder).unwrap(), PolicySet::embedded());
        let texts = |set: &PolicySet| set.sources.iter().map(|s| s.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&read), texts(&built_in));
        assert_eq!(read.data, built_in.data);
    }

    #[test]
    fn data_lies_below_its_folder_and_conflicts_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("acme/limits")).unwrap();
        std::fs::write(folder.path().join("a.rego"), "package hydromesh.deploy.a").unwrap();
        std::fs::write(folder.path().join("data.json"), r#"{"acme": {"name": "x"}}"#).unwrap();
        std::fs::write(folder.path().join("acme/limits/data.json"), r#"{"n": 3}"#).unwrap();
        let set = PolicySet::open(folder.path()).unwrap();
        assert_eq!(set.data, json!({"acme": {"name": "x", "limits": {"n": 3}}}));
        std::fs::write(folder.path().join("acme/data.json"), r#"{"name": "y"}"#).unwrap();
        assert!(matches!(PolicySet::open(folder.path()), Err(PolicyError::DataConflict { .. })));
        std::fs::write(folder.path().join("acme/data.json"), "{").unwrap();
        assert!(matches!(PolicySet::open(folder.path()), Err(PolicyError::Data { .. })));
        std::fs::remove_file(folder.path().join("acme/data.json")).unwrap();
        std::fs::write(folder.path().join("data.yaml"), "a: 1").unwrap();
        assert!(matches!(PolicySet::open(folder.path()), Err(PolicyError::YamlData { .. })));
    }

    #[test]
    fn an_empty_or_missing_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(PolicySet::open(folder.path()), Err(PolicyError::Empty { .. })));
        assert!(matches!(PolicySet::open(&folder.path().join("none")), Err(PolicyError::Read { .. })));
    }
}
