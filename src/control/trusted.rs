//! Judges the signatures behind a head, by who is pinned outside the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hydromesh_core::diag::{Diagnostic, Severity, Spot, codes};
use hydromesh_core::trust::{
    self, Before, Commit, Key, Line, Look, Scope, Signers, Standing, Taint, Verified, domain_signers,
    parse_allowed, parse_revoked, refusals, vouches,
};

use crate::repo::{CommitId, PgpKeys, RepoError, RepoSnapshot, Repository, ssh_key_id};

/// The files of a folder of signers.
const RULES: &str = "signers.yaml";
const ALLOWED: &str = "allowed_signers";
const REVOKED: &str = "revoked_keys";

/// Why a folder of signers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SignersError {
    /// A file cannot be read.
    #[error("HM-R006 {}: cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file does not fit.
    #[error("HM-R006 {place}: {why}")]
    Misfit {
        /// File and line.
        place: String,
        /// What is wrong.
        why: String,
    },
}

/// Who is trusted: read once, and the same until the process ends.
#[derive(Debug, Clone)]
pub struct Trust {
    signers: Signers,
    pgp: PgpKeys,
}

/// What became of a head.
#[derive(Debug)]
pub struct Judged {
    /// What was found.
    pub verified: Verified,
    /// Why the head is refused as a whole, if it is.
    pub held: Option<String>,
    /// Where the next judgement begins.
    pub line: Option<Line>,
}

impl Trust {
    /// Reads `signers.yaml`, `allowed_signers`, `revoked_keys` and every `*.asc` of a folder; the first alone must be there.
    ///
    /// # Errors
    /// When any of them cannot be read or does not fit as a whole: half of a list is not a list.
    pub fn open(folder: &Path) -> Result<Self, SignersError> {
        let text = read(&folder.join(RULES))?;
        let (mut signers, found) = Signers::parse(RULES, &text);
        if let Some(first) = found.iter().find(|it| it.severity == Severity::Error) {
            let place = format!("{RULES}:{}", first.line.max(1));
            return Err(SignersError::Misfit { place, why: format!("{} ({})", first.message, first.help) });
        }
        if let Some(text) = read_if_there(&folder.join(ALLOWED))? {
            let (keys, misfits) = parse_allowed(&text);
            first_misfit(ALLOWED, misfits)?;
            for key in keys {
                let id = ssh_key_id(&key.kind, &key.id).map_err(|why| {
                    let names: Vec<&str> = key.principals.iter().map(String::as_str).collect();
                    SignersError::Misfit {
                        place: ALLOWED.to_owned(),
                        why: format!("{}: {why}", names.join(",")),
                    }
                })?;
                signers.keys.push(Key { id, ..key });
            }
        }
        let mut pgp = PgpKeys::default();
        for path in armoured(folder)? {
            let known = pgp.add(&read(&path)?);
            let place = path.display().to_string();
            signers.keys.extend(known.map_err(|why| SignersError::Misfit { place, why })?);
        }
        if let Some(text) = read_if_there(&folder.join(REVOKED))? {
            let (ids, misfits) = parse_revoked(&text);
            first_misfit(REVOKED, misfits)?;
            for key in &mut signers.keys {
                key.revoked |= ids.contains(&key.id);
            }
        }
        Ok(Self { signers, pgp })
    }

    /// Judges a head from where the last judgement ended, or from the pinned commit. `now_ms` is when the head is first looked at.
    ///
    /// # Errors
    /// When objects cannot be read.
    pub fn judge(
        &self,
        repository: &Repository,
        head: &CommitId,
        line: Option<&Line>,
        now_ms: i64,
    ) -> Result<Judged, RepoError> {
        let Some(begin) = self.begin(repository, head, line)? else {
            let why = "`since` of signers.yaml is not a commit of the repository".to_owned();
            return Ok(held(head, line.cloned(), why));
        };
        let accepted = match begin.at.as_str() {
            "" => None,
            at => Some(CommitId::parse(at)?),
        };
        if let Some(accepted) = &accepted
            && !repository.holds(head, accepted)?
        {
            let short = accepted.short();
            let why = format!("the branch no longer holds {short}, the last commit that was accepted");
            return Ok(held(head, Some(begin), why));
        }
        let Some(found) = repository.unaccepted(head, accepted.as_ref(), &self.pgp)? else {
            let why = "more lies between the last accepted commit and this one than can be judged".to_owned();
            return Ok(held(head, Some(begin), why));
        };
        let net = match &accepted {
            Some(accepted) => repository.differing(accepted, head)?,
            None => found.iter().flat_map(|commit| commit.deltas.keys().cloned()).collect(),
        };
        let standing = |proof| self.signers.standing(&proof, now_ms);
        let commits: Vec<Commit> = found
            .into_iter()
            .map(|commit| Commit {
                id: commit.info.id.as_str().to_owned(),
                parents: commit.info.parents.iter().map(|id| id.as_str().to_owned()).collect(),
                author: crate::text::line(&commit.info.author, 100),
                vouches: vouches(&commit.info.message),
                standing: standing(commit.proof),
                deltas: commit.deltas,
            })
            .collect();
        let mut again: BTreeMap<String, Standing> = BTreeMap::new();
        let blamed: BTreeSet<&String> =
            begin.taints.values().flat_map(|taint| &taint.by).map(|blame| &blame.commit).collect();
        for id in blamed {
            let proof = repository.proof(&CommitId::parse(id)?, &self.pgp)?;
            again.insert(id.clone(), standing(proof));
        }
        let named = named(repository, head)?;
        let look = Look { commits: &commits, net: &net, named: &named, again: &again };
        Ok(match trust::judge(&begin, &look, &self.signers) {
            Ok(verified) => {
                let line = verified.line().unwrap_or(begin);
                Judged { verified, held: None, line: Some(line) }
            }
            Err(why) => held(head, Some(begin), why),
        })
    }

    /// Returns where judging begins: where it ended, unless the operator has pinned a commit since.
    fn begin(
        &self,
        repository: &Repository,
        head: &CommitId,
        line: Option<&Line>,
    ) -> Result<Option<Line>, RepoError> {
        let Some(since) = &self.signers.since else { return Ok(Some(line.cloned().unwrap_or_default())) };
        let since = CommitId::parse(since)?;
        if let Some(line) = line.filter(|line| !line.at.is_empty()) {
            let at = CommitId::parse(&line.at)?;
            if repository.holds(&at, &since)? || !repository.holds(head, &since)? {
                return Ok(Some(line.clone()));
            }
        }
        if !repository.holds(&since, &since)? {
            return Ok(None);
        }
        begin_at(repository, &since).map(Some)
    }
}

/// Returns the beginning of a judgement at a commit that counts as it is.
///
/// # Errors
/// When its objects cannot be read.
pub fn begin_at(repository: &Repository, commit: &CommitId) -> Result<Line, RepoError> {
    let signers = named(repository, commit)?;
    Ok(Line { at: commit.as_str().to_owned(), taints: BTreeMap::new(), signers })
}

fn named(repository: &Repository, commit: &CommitId) -> Result<BTreeMap<String, Vec<String>>, RepoError> {
    let files = repository.domain_files(commit)?;
    Ok(files.into_iter().map(|(domain, text)| (domain, domain_signers(&text))).collect())
}

fn held(head: &CommitId, line: Option<Line>, why: String) -> Judged {
    let verified = Verified {
        commit: head.as_str().to_owned(),
        signer: None,
        refused: BTreeMap::new(),
        signers: BTreeMap::new(),
        moved: false,
    };
    Judged { verified, held: Some(why), line }
}

/// Puts what counts in the place of what is tainted.
pub(super) fn restore(snapshot: &mut RepoSnapshot, taints: &BTreeMap<String, Taint>) {
    for (path, taint) in taints {
        match &taint.was {
            Before::Held(content) => snapshot.restore(path, Some(content)),
            Before::Absent | Before::Unclear => snapshot.restore(path, None),
        }
    }
}

/// Returns one finding for each part of the mesh of which something is refused.
#[must_use]
pub fn findings(taints: &BTreeMap<String, Taint>) -> Vec<(Scope, Diagnostic)> {
    let finding = |(path, why)| Diagnostic::new(codes::SIGNATURE, path, Spot::FILE, why);
    refusals(taints).into_iter().map(|(scope, found)| (scope, finding(found))).collect()
}

fn read(path: &Path) -> Result<String, SignersError> {
    std::fs::read_to_string(path).map_err(|source| SignersError::Io { path: path.to_owned(), source })
}

fn read_if_there(path: &Path) -> Result<Option<String>, SignersError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(SignersError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn armoured(folder: &Path) -> Result<BTreeSet<PathBuf>, SignersError> {
    let wrap = |source| SignersError::Io { path: folder.to_owned(), source };
    let mut paths = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(wrap)? {
        let path = entry.map_err(wrap)?.path();
        if path.extension().is_some_and(|extension| extension == "asc") {
            paths.insert(path);
        }
    }
    Ok(paths)
}

fn first_misfit(file: &str, misfits: Vec<(u32, String)>) -> Result<(), SignersError> {
    match misfits.into_iter().next() {
        Some((line, why)) => Err(SignersError::Misfit { place: format!("{file}:{line}"), why }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
