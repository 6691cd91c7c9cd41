//! Carries trusted content from commit to commit.

use std::collections::{BTreeMap, BTreeSet};

use super::{Before, Blame, Line, Scope, Signers, Standing, Taint, Verified, scope};

/// What a path holds: mode and object id, or nothing.
pub type Content = Option<String>;

/// Most entries of what is refused at a head: what is more is refused as a whole, and not written down file by file.
const MOST_REFUSED: usize = 5_000;

/// What a commit and those around it hold at one path, where not all of them are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// In the commit.
    pub now: Content,
    /// In each parent.
    pub parents: Vec<Content>,
    /// In each best common ancestor of two parents; empty unless there are two.
    pub bases: Vec<Content>,
}

impl Delta {
    /// Returns whether a merge did what follows from its parents, so that nothing of it is its own.
    ///
    /// The order of parents is the committer's choice and says nothing: going back to what one side had is a change of the
    /// merge, however it looks from there.
    fn follows(&self) -> bool {
        let [one, two] = self.parents.as_slice() else { return false };
        if one == two {
            return self.now == *one;
        }
        !self.bases.is_empty()
            && self
                .bases
                .iter()
                .all(|base| (one == base && self.now == *two) || (two == base && self.now == *one))
    }
}

/// A commit that was not accepted yet.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// Parents in order.
    pub parents: Vec<String>,
    /// Name of its author.
    pub author: String,
    /// What its signature is worth.
    pub standing: Standing,
    /// Ids of commits that it takes responsibility for; see [`vouches`].
    pub vouches: BTreeSet<String>,
    /// What it changes, by path.
    pub deltas: BTreeMap<String, Delta>,
}

/// A head with what lies between it and the last accepted commit.
#[derive(Debug)]
pub struct Look<'a> {
    /// Commits that are reachable from the head and not from where judging begins, parents before children; the head is
    /// the last. Empty when the head is where judging begins.
    pub commits: &'a [Commit],
    /// Paths whose content differs between the two.
    pub net: &'a BTreeSet<String>,
    /// Signers that each `domain.yaml` of the head names, by domain.
    pub named: &'a BTreeMap<String, Vec<String>>,
    /// What the signatures of commits that were refused before are worth by now: keys are added after they were missed.
    pub again: &'a BTreeMap<String, Standing>,
}

/// Returns the commits that a message vouches for: one line `Vouches-for: ID` each, with the whole id, because two commits
/// that share the beginning of one can be made on purpose.
#[must_use]
pub fn vouches(message: &str) -> BTreeSet<String> {
    let ids = message.lines().filter_map(|line| {
        let (key, id) = line.split_once(':')?;
        let id = id.trim().to_ascii_lowercase();
        let whole = id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        (key.trim().eq_ignore_ascii_case("vouches-for") && whole).then_some(id)
    });
    ids.collect()
}

/// Judges a head, beginning at `line`.
///
/// # Errors
/// When so much is refused that the head is to be refused as a whole; with why.
pub fn judge(line: &Line, look: &Look<'_>, signers: &Signers) -> Result<Verified, String> {
    let mut judge = Judge { line, signers, again: look.again, vouched: BTreeMap::new() };
    for commit in look.commits {
        for id in &commit.vouches {
            judge.vouched.entry(id).or_default().push(commit);
        }
    }
    let begin = judge.begin();
    let mut states: BTreeMap<&str, BTreeMap<String, Taint>> = BTreeMap::from([(line.at.as_str(), begin)]);
    for commit in look.commits {
        let state = judge.commit(commit, &states);
        states.insert(&commit.id, state);
    }
    let head = look.commits.last();
    let refused = match head {
        Some(head) => states.remove(head.id.as_str()).unwrap_or_default(),
        None => states.remove(line.at.as_str()).unwrap_or_default(),
    };
    if refused.values().map(|taint| taint.by.len()).sum::<usize>() > MOST_REFUSED {
        return Err(format!("more than {MOST_REFUSED} changes of files are not signed by anybody who may"));
    }
    // What counts can stand in for a file, not for a folder that is there twice or is none.
    let odd =
        |path: &&String| scope(path) == Scope::Mesh && *path != "mesh.yaml" && !path.starts_with("policies/");
    if let Some(path) = refused.keys().find(odd) {
        return Err(format!("`{path}` is not what it was, and nobody who may has signed that"));
    }
    let counts = |path: &String| !refused.contains_key(path) && scope(path) != Scope::Nothing;
    // With nothing refused all of it is accepted, also when it changes no file.
    let moved = head.is_some() && (refused.is_empty() || look.net.iter().any(counts));
    let mut named = BTreeMap::new();
    let domains: BTreeSet<&String> = line.signers.keys().chain(look.named.keys()).collect();
    for domain in domains {
        let tainted = refused.contains_key(&format!("domains/{domain}/domain.yaml"));
        let names = if tainted { line.signers.get(domain) } else { look.named.get(domain) };
        if let Some(names) = names.filter(|names| !names.is_empty()) {
            named.insert(domain.clone(), names.clone());
        }
    }
    Ok(Verified {
        commit: head.map_or_else(|| line.at.clone(), |head| head.id.clone()),
        signer: head.and_then(|head| head.standing.signer()),
        refused,
        signers: named,
        moved,
    })
}

struct Judge<'a> {
    line: &'a Line,
    signers: &'a Signers,
    again: &'a BTreeMap<String, Standing>,
    /// Who vouches for a commit. An id cannot be known before its commit is there, so that the order says nothing more.
    vouched: BTreeMap<&'a str, Vec<&'a Commit>>,
}

impl Judge<'_> {
    /// Returns the tainted paths where judging begins.
    fn begin(&self) -> BTreeMap<String, Taint> {
        let mut taints = self.line.taints.clone();
        for (path, taint) in &mut taints {
            let may = |blame: &Blame| self.again.get(&blame.commit).is_some_and(|it| self.may(it, path));
            taint.by.retain(|blame| !may(blame) && !self.is_vouched(&blame.commit, path));
        }
        taints.retain(|_, taint| !taint.by.is_empty());
        taints
    }

    fn may(&self, standing: &Standing, path: &str) -> bool {
        let names = standing.principals();
        names.is_some_and(|names| self.signers.may_sign(names, path, &self.line.signers))
    }

    fn is_vouched(&self, commit: &str, path: &str) -> bool {
        self.vouched.get(commit).is_some_and(|by| by.iter().any(|by| self.may(&by.standing, path)))
    }

    /// Returns the tainted paths at a commit.
    fn commit(
        &self,
        commit: &Commit,
        states: &BTreeMap<&str, BTreeMap<String, Taint>>,
    ) -> BTreeMap<String, Taint> {
        // What lies beneath the beginning, and is not the beginning itself, was accepted at some time; what became of it since
        // comes with another parent, because every head holds the beginning.
        let state = |id: &String| states.get(id.as_str());
        let parents: Vec<Option<&BTreeMap<String, Taint>>> = commit.parents.iter().map(state).collect();
        let paths: BTreeSet<&String> = parents.iter().flatten().flat_map(|parent| parent.keys()).collect();
        let mut taints = BTreeMap::new();
        for path in paths {
            let mut by: Vec<Blame> = Vec::new();
            for taint in parents.iter().flatten().filter_map(|parent| parent.get(path)) {
                let new = |blame: &&Blame| !by.contains(blame) && !self.is_vouched(&blame.commit, path);
                let more: Vec<Blame> = taint.by.iter().filter(new).cloned().collect();
                by.extend(more);
            }
            if !by.is_empty() {
                let was = was(path, &parents, commit.deltas.get(path));
                taints.insert(path.clone(), Taint { was, by });
            }
        }
        for (path, delta) in &commit.deltas {
            self.change(commit, path, delta, &mut taints);
        }
        taints
    }

    fn change(&self, commit: &Commit, path: &str, delta: &Delta, taints: &mut BTreeMap<String, Taint>) {
        if scope(path) == Scope::Nothing {
            return;
        }
        let was = match taints.get(path) {
            Some(taint) => taint.was.clone(),
            None => match delta.parents.split_first() {
                None => Before::Absent,
                Some((one, others)) if others.iter().all(|other| other == one) => before(one),
                Some(_) => Before::Unclear,
            },
        };
        // Back to what counts: whoever does that takes nothing from anybody.
        if before(&delta.now) == was {
            taints.remove(path);
            return;
        }
        let own = !(delta.parents.len() > 1 && delta.follows());
        if !own || self.may(&commit.standing, path) || self.is_vouched(&commit.id, path) {
            // A signature on top of what does not count makes it no better: its author may never have looked beneath.
            return;
        }
        let blame = Blame {
            commit: commit.id.clone(),
            author: commit.author.clone(),
            why: commit.standing.to_string(),
        };
        taints.entry(path.to_owned()).or_insert(Taint { was, by: Vec::new() }).by.push(blame);
    }
}

/// Returns what counts at a path that is tainted in a parent: what all parents agree upon that have a say.
///
/// One that has had the same ever since the others left it says nothing. Were the others not asked, an old content could
/// be brought back by way of a branch on which it was the last that counted.
fn was(path: &str, parents: &[Option<&BTreeMap<String, Taint>>], delta: Option<&Delta>) -> Before {
    let mut said: Option<Before> = None;
    for (index, parent) in parents.iter().enumerate() {
        let Some(parent) = parent else { continue };
        let says = match (parent.get(path), delta) {
            (Some(taint), _) => taint.was.clone(),
            (None, Some(delta)) => {
                let Some(content) = delta.parents.get(index) else { continue };
                if !delta.bases.is_empty() && delta.bases.iter().all(|base| base == content) {
                    continue;
                }
                before(content)
            }
            // The same content counts on one side and not on the other.
            (None, None) => Before::Unclear,
        };
        match &said {
            None => said = Some(says),
            Some(before) if *before == says => {}
            Some(_) => return Before::Unclear,
        }
    }
    said.unwrap_or(Before::Unclear)
}

fn before(content: &Content) -> Before {
    content.clone().map_or(Before::Absent, Before::Held)
}
