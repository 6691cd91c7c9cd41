//! Who may change what: signatures of commits, judged path by path.
//!
//! A signature speaks for what its own commit changes and for nothing beneath it. So every commit since the last one that was
//! accepted is looked at, along all parents, and for each path its *trusted* content is carried from commit to commit: what an
//! allowed signer made of it, or what was accepted before. A path whose content is another one is **tainted**; whatever is made
//! of tainted paths stays as it was.
//!
//! The shell says what each commit changes and what a signature proves ([`Proof`]); here it is decided what that is worth.

mod allowed;
mod judge;
mod signers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use allowed::{parse_allowed, parse_revoked};
pub use judge::{Commit, Content, Delta, Look, judge, vouches};
pub use signers::{Key, Signers, domain_signers};

use crate::ids::{DomainName, ProductId, ProductName};

/// The namespace of SSH signatures of git: one made for something else counts nothing.
pub const NAMESPACE: &str = "git";

/// What can be said of a commit's signature without knowing whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// There is none.
    Unsigned,
    /// It cannot be read, or is of a kind that is not known; with why.
    Malformed(String),
    /// It names a key that is not there to verify it with.
    Stranger(String),
    /// It was not made over this commit by the key that it names.
    Bad(String),
    /// The key that it names was used to make it.
    Made(Made),
}

/// A signature that is right by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The key as [`Key::id`] spells it.
    pub key: String,
    /// The key for people: a fingerprint.
    pub shown: String,
    /// What it was made for; OpenPGP knows none.
    pub namespace: Option<String>,
    /// When it ends, milliseconds UTC, if it says so itself.
    pub ends_ms: Option<i64>,
}

/// What a commit's signature is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Made by somebody who is known, with a key that counted when the commit was first looked at.
    Good {
        /// Names of the signer.
        principals: BTreeSet<String>,
    },
    /// Nobody signed.
    Unsigned,
    /// It cannot be read.
    Malformed(String),
    /// It is not right.
    Bad(String),
    /// Nobody who is known has this key.
    Unknown(String),
    /// It was made for something else.
    WrongNamespace(String),
    /// The key, or the signature, no longer counts or does not count yet.
    Expired(String),
    /// The key was revoked.
    Revoked(String),
}

impl Standing {
    /// Returns the names of the signer; none unless the signature is good.
    #[must_use]
    pub fn principals(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::Good { principals } => Some(principals),
            _ => None,
        }
    }

    /// Returns the signer for people, if the signature is good.
    #[must_use]
    pub fn signer(&self) -> Option<String> {
        self.principals().map(|names| names.iter().cloned().collect::<Vec<_>>().join(", "))
    }
}

/// A fragment that fits behind "the commit".
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good { .. } => {
                write!(f, "is signed by {}, who may not", self.signer().unwrap_or_default())
            }
            Self::Unsigned => f.write_str("is not signed"),
            Self::Malformed(why) => write!(f, "has a signature that cannot be read ({why})"),
            Self::Bad(why) => write!(f, "has a wrong signature ({why})"),
            Self::Unknown(key) => write!(f, "is signed with a key that nobody known has ({key})"),
            Self::WrongNamespace(name) => write!(f, "has a signature made for `{name}`, not for git"),
            Self::Expired(key) => write!(f, "is signed with a key that is not valid now ({key})"),
            Self::Revoked(key) => write!(f, "is signed with a revoked key ({key})"),
        }
    }
}

/// What a path had before it was tainted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    /// There was no such file.
    Absent,
    /// Mode and object id.
    Held(String),
    /// A merge of different contents, so that there is none to return to.
    Unclear,
}

/// A change that nobody who may has signed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Blame {
    /// The commit.
    pub commit: String,
    /// Name of its author, as the commit says.
    pub author: String,
    /// Why it does not count, as a fragment behind the commit.
    pub why: String,
}

/// A path whose content does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    /// What counts in its place.
    pub was: Before,
    /// Commits that have to be vouched for, oldest first.
    pub by: Vec<Blame>,
}

/// Up to where a branch was judged, and what was found: the next judgement begins here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The commit. It and everything beneath it is not looked at again.
    pub at: String,
    /// Its tainted paths.
    pub taints: BTreeMap<String, Taint>,
    /// Who may sign for a domain by the trusted content of its `domain.yaml`.
    pub signers: BTreeMap<String, Vec<String>>,
}

/// What was found of a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The head.
    pub commit: String,
    /// Who signed it, when that signature is good.
    pub signer: Option<String>,
    /// Paths that do not count at the head.
    pub refused: BTreeMap<String, Taint>,
    /// Who may sign for a domain from now on.
    pub signers: BTreeMap<String, Vec<String>>,
    /// Something of it was accepted, so that the next judgement begins here and the branch may not go back behind it.
    pub moved: bool,
}

impl Verified {
    /// Returns where the next judgement begins, if this one moved it.
    #[must_use]
    pub fn line(&self) -> Option<Line> {
        self.moved.then(|| Line {
            at: self.commit.clone(),
            taints: self.refused.clone(),
            signers: self.signers.clone(),
        })
    }
}

/// What a path is part of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// A product's folder.
    Product(ProductId),
    /// A domain's own files: `domain.yaml`, its policies.
    Domain(DomainName),
    /// What holds for everybody: `mesh.yaml`, the mesh's policies.
    Mesh,
    /// Nothing that is ever read.
    Nothing,
}

/// Returns what a path is part of.
#[must_use]
pub fn scope(path: &str) -> Scope {
    let mut parts = path.splitn(4, '/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("domains"), domain, inner, rest) => {
            // A name that no domain has may still stand in the way of one that a domain has.
            let Some(domain) = domain.and_then(|name| DomainName::new(name).ok()) else { return Scope::Mesh };
            let product = inner.filter(|name| rest.is_some() && *name != "policies");
            match product.and_then(|name| ProductName::new(name).ok()) {
                Some(name) => Scope::Product(ProductId { domain, name }),
                None => Scope::Domain(domain),
            }
        }
        (Some("mesh.yaml"), None, ..) | (Some("policies"), ..) => Scope::Mesh,
        _ => Scope::Nothing,
    }
}

/// Returns what is refused of each part of the mesh: one sentence each.
#[must_use]
pub fn refusals(taints: &BTreeMap<String, Taint>) -> BTreeMap<Scope, (String, String)> {
    let mut by_scope: BTreeMap<Scope, Vec<(&String, &Taint)>> = BTreeMap::new();
    for (path, taint) in taints {
        by_scope.entry(scope(path)).or_default().push((path, taint));
    }
    let words = |found: Vec<(&String, &Taint)>| {
        let (path, taint) = found.first()?;
        let more = match found.len() - 1 {
            0 => String::new(),
            1 => " and 1 more file".to_owned(),
            more => format!(" and {more} more files"),
        };
        let blame = taint.by.first()?;
        let commit: String = blame.commit.chars().take(12).collect();
        let others = match taint.by.len() - 1 {
            0 => String::new(),
            1 => "; so does 1 commit after it".to_owned(),
            others => format!("; so do {others} commits after it"),
        };
        let said = format!("commit {commit} by {} changes it{more}, and {}{others}", blame.author, blame.why);
        Some(((*path).clone(), said))
    };
    by_scope.into_iter().filter_map(|(scope, found)| Some((scope, words(found)?))).collect()
}
