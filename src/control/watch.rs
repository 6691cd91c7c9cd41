//! Watches the reference: polls, fetches, reads. Everything that blocks runs off the loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hydromesh_core::diag::{Diagnostic, Spot, codes};
use hydromesh_core::ids::PortId;
use hydromesh_core::model::Environment;
use hydromesh_core::plan::PortPrint;
use hydromesh_core::trust::{Line, Taint, Verified};

use super::desired::{self, MOST_TEXT_BYTES, OwnRules, Reading};
use super::trusted::{Trust, findings, restore};
use crate::apply::Blobs;
use crate::repo::{CommitId, CommitInfo, Credentials, Mend, RepoError, RepoSnapshot, Repository};

/// The watched reference.
#[derive(Clone)]
pub struct Watcher {
    repository: Repository,
    reference: String,
    /// Who may sign; without, nobody has to.
    trust: Option<Arc<Trust>>,
    /// What was refused of the commit before, for nothing is judged any more.
    refused: BTreeMap<String, Taint>,
    /// What may be deployed; anything without.
    only: Option<Allowed>,
}

/// Commits that may be deployed.
#[derive(Clone)]
struct Allowed {
    /// Those that were healthy elsewhere, newest first.
    proven: Vec<String>,
    /// The one that is deployed.
    own: Option<String>,
}

/// What a head asks for, and what its signatures are worth.
#[derive(Debug)]
pub struct Looked {
    /// What it asks for.
    pub reading: Reading,
    /// What was found of its signatures, if they are judged.
    pub verified: Option<Verified>,
    /// Where the next judgement begins.
    pub line: Option<Line>,
}

/// Where the reference is, and the commits that were passed on the way.
#[derive(Debug)]
pub struct Head {
    /// The commit.
    pub commit: CommitInfo,
    /// Passed commits, oldest first.
    pub passed: Vec<CommitInfo>,
}

impl Watcher {
    /// Opens a repository by URL or path; its objects are mirrored into `cache`.
    ///
    /// # Errors
    /// When it is no repository.
    pub fn open(repo: &str, cache: &Path, reference: &str) -> Result<Self, RepoError> {
        let repository = Repository::open(repo, cache, Credentials::Anonymous)?;
        let refused = BTreeMap::new();
        Ok(Self { repository, reference: reference.to_owned(), trust: None, refused, only: None })
    }

    /// Stays at a commit of a mirror, without what was refused of it.
    #[must_use]
    pub fn at(mirror: Repository, commit: &CommitId, refused: BTreeMap<String, Taint>) -> Self {
        let reference = commit.as_str().to_owned();
        Self { repository: mirror, reference, trust: None, refused, only: None }
    }

    /// Returns the folder of the mirror.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        self.repository.git_dir()
    }

    /// Returns it with those who may sign.
    #[must_use]
    pub fn with(self, trust: Option<Arc<Trust>>) -> Self {
        Self { trust, ..self }
    }

    /// Returns it for what was healthy elsewhere, newest first, and what is deployed: the reference may be anywhere beyond them.
    #[must_use]
    pub fn only(self, proven: Vec<String>, own: Option<String>) -> Self {
        Self { only: Some(Allowed { proven, own }), ..self }
    }

    /// Returns the watched reference.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Returns the blobs of the mirror.
    #[must_use]
    pub fn blobs(&self) -> Arc<dyn Blobs> {
        Arc::new(MirrorBlobs(self.repository.clone()))
    }

    /// Fetches, and returns where the reference is when that is not `known`, with the commits passed since `base`.
    ///
    /// # Errors
    /// When the remote cannot be reached, the objects are damaged, or a reference that was there is gone; the next poll tries
    /// again.
    pub fn poll(&self, known: Option<&str>, base: Option<&str>) -> Result<Option<Head>, RepoError> {
        match self.poll_once(known, base) {
            // The origin is there, and what was fetched from it before cannot be read.
            Err(RepoError::Git { .. } | RepoError::NoSuchCommit(_) | RepoError::Open { .. })
                if self.repository.mend(&self.reference)? == Mend::Done =>
            {
                self.poll_once(known, base)
            }
            polled => polled,
        }
    }

    fn poll_once(&self, known: Option<&str>, base: Option<&str>) -> Result<Option<Head>, RepoError> {
        self.repository.fetch()?;
        crate::fault::point("repo.after-fetch");
        let Some(id) = self.repository.resolve(&self.reference)? else {
            return if known.is_some() { Err(RepoError::Gone(self.reference.clone())) } else { Ok(None) };
        };
        let Some(id) = self.best(id)? else { return Ok(None) };
        if known == Some(id.as_str()) {
            return Ok(None);
        }
        let commit = self.repository.commit(&id)?;
        let passed = match base.filter(|base| *base != id.as_str()).map(CommitId::parse) {
            Some(Ok(old)) => self.repository.commits_between(&old, &id)?.superseded().to_vec(),
            _ => Vec::new(),
        };
        Ok(Some(Head { commit, passed }))
    }

    /// Returns what is to be deployed of a reference that is at `head`: that, or the newest before it that may be.
    fn best(&self, head: CommitId) -> Result<Option<CommitId>, RepoError> {
        let Some(Allowed { proven, own }) = &self.only else { return Ok(Some(head)) };
        let has =
            |of: &CommitId, it: &CommitId| Ok::<_, RepoError>(of == it || self.repository.descends(of, it)?);
        let mut best = None;
        for commit in proven {
            let commit = CommitId::parse(commit)?;
            if has(&head, &commit)? {
                best = Some(commit);
                break;
            }
        }
        // What is deployed stays when nothing newer is proven, but not when the reference was rewritten without it.
        let Some(own) = own.as_deref().map(CommitId::parse).transpose()? else { return Ok(best) };
        let stays = has(&head, &own)? && best.as_ref().map_or(Ok(true), |best| has(&own, best))?;
        Ok(if stays { Some(own) } else { best })
    }

    /// Reads what a head asks for, as far as its signatures are worth it; `line` is where their last judgement ended.
    ///
    /// # Errors
    /// When its objects cannot be read.
    pub fn look(
        &self,
        commit: &CommitInfo,
        deployed: &BTreeMap<PortId, PortPrint>,
        line: Option<Line>,
        now_ms: i64,
    ) -> Result<Looked, RepoError> {
        let Some(trust) = &self.trust else {
            let reading = if self.refused.is_empty() {
                self.read_at(&commit.id, deployed)?
            } else {
                self.read_without(commit.id.as_str(), deployed, &self.refused)?
            };
            return Ok(Looked { reading, verified: None, line });
        };
        let judged = trust.judge(&self.repository, &commit.id, line.as_ref(), now_ms)?;
        let reading = match judged.held {
            None => self.read_without(commit.id.as_str(), deployed, &judged.verified.refused)?,
            Some(why) => self.held(judged.line.as_ref(), deployed, why)?,
        };
        Ok(Looked { reading, verified: Some(judged.verified), line: judged.line })
    }

    /// Reads nothing of a head but why; the rules stay those that were accepted.
    fn held(
        &self,
        line: Option<&Line>,
        deployed: &BTreeMap<PortId, PortPrint>,
        why: String,
    ) -> Result<Reading, RepoError> {
        let accepted = line.filter(|line| !line.at.is_empty());
        let mut reading = match accepted {
            Some(line) => self.read_without(&line.at, deployed, &line.taints)?,
            None => Reading::default(),
        };
        reading.readable = false;
        reading.findings = vec![Diagnostic::new(codes::HISTORY, "mesh.yaml", Spot::FILE, why)];
        Ok(reading)
    }

    /// Reads what a commit asks for that the mirror holds already, without what is refused of it.
    ///
    /// # Errors
    /// When the mirror does not hold it whole.
    pub fn read_without(
        &self,
        commit: &str,
        deployed: &BTreeMap<PortId, PortPrint>,
        refused: &BTreeMap<String, Taint>,
    ) -> Result<Reading, RepoError> {
        let mut snapshot = self.repository.snapshot(&CommitId::parse(commit)?)?;
        restore(&mut snapshot, refused);
        Ok(desired::read_without(&snapshot, commit, deployed, findings(refused)))
    }

    /// Reads what a commit asks for.
    ///
    /// # Errors
    /// When its objects cannot be read.
    pub fn read(
        &self,
        commit: &CommitInfo,
        deployed: &BTreeMap<PortId, PortPrint>,
    ) -> Result<Reading, RepoError> {
        self.read_at(&commit.id, deployed)
    }

    /// Reads what a commit asks for that the mirror holds already.
    ///
    /// # Errors
    /// When the mirror does not hold it whole.
    pub fn read_commit(
        &self,
        commit: &str,
        deployed: &BTreeMap<PortId, PortPrint>,
    ) -> Result<Reading, RepoError> {
        self.read_at(&CommitId::parse(commit)?, deployed)
    }

    /// Returns the rules and waivers of the mesh at a commit, as they stand in it.
    ///
    /// # Errors
    /// When the mirror does not hold the commit, or not all of them: half of the rules judge nothing.
    pub fn own_rules(&self, commit: &str) -> Result<OwnRules, RepoError> {
        self.in_snapshot(commit, desired::own_rules)
    }

    /// Returns the environments of the mesh at a commit, as they stand in it.
    ///
    /// # Errors
    /// As [`Watcher::own_rules`].
    pub fn environments(&self, commit: &str) -> Result<BTreeMap<String, Environment>, RepoError> {
        self.in_snapshot(commit, |snapshot| Ok(desired::environments(snapshot)))
    }

    /// Reads something of a commit, of a mirror that is mended where it has to be.
    fn in_snapshot<T>(
        &self,
        commit: &str,
        read: impl Fn(&RepoSnapshot) -> Result<T, RepoError>,
    ) -> Result<T, RepoError> {
        let id = CommitId::parse(commit)?;
        let read = || read(&self.repository.snapshot(&id)?);
        match read() {
            Err(error)
                if !matches!(error, RepoError::NoSuchCommit(_))
                    && self.repository.mend(commit).is_ok_and(|mend| mend == Mend::Done) =>
            {
                read()
            }
            read => read,
        }
    }

    fn read_at(&self, id: &CommitId, deployed: &BTreeMap<PortId, PortPrint>) -> Result<Reading, RepoError> {
        let torn = match self.read_once(id, deployed) {
            Ok((reading, false)) => return Ok(reading),
            torn => torn,
        };
        // What is torn in the mirror is no fault of the commit: it is fetched again before anything is concluded.
        match self.repository.mend(id.as_str())? {
            Mend::Done => {
                drop(torn);
                self.read_once(id, deployed).map(|(reading, _)| reading)
            }
            Mend::Useless => torn.map(|(reading, _)| reading),
            Mend::Later => Err(torn.err().unwrap_or_else(|| RepoError::Torn(id.clone()))),
        }
    }

    /// Reads a commit; returns with it whether the mirror could not give all of it.
    fn read_once(
        &self,
        id: &CommitId,
        deployed: &BTreeMap<PortId, PortPrint>,
    ) -> Result<(Reading, bool), RepoError> {
        let snapshot = self.repository.snapshot(id)?;
        let reading = desired::read(&snapshot, id.as_str(), deployed);
        let unread = |finding: &Diagnostic| finding.code == codes::UNREADABLE;
        // Files that are read only once their rows are needed are mended then.
        let torn =
            (!reading.readable || reading.findings.iter().any(unread)) && snapshot.is_torn(MOST_TEXT_BYTES);
        Ok((reading, torn))
    }
}

/// Blobs of the mirror, by id: also those of commits that are no longer the head.
struct MirrorBlobs(Repository);

impl Blobs for MirrorBlobs {
    fn read(&self, oid: &str) -> std::io::Result<Vec<u8>> {
        let read = || -> Result<Vec<u8>, git2::Error> {
            let repository = git2::Repository::open_bare(self.0.git_dir())?;
            let blob = repository.find_blob(git2::Oid::from_str(oid)?)?;
            Ok(blob.content().to_vec())
        };
        let unread = |error: git2::Error| std::io::Error::other(error.message().to_owned());
        let absent = |error: git2::Error| match error.code() {
            git2::ErrorCode::NotFound => {
                std::io::Error::new(std::io::ErrorKind::NotFound, error.message().to_owned())
            }
            _ => unread(error),
        };
        read().or_else(|error| match self.0.mend(oid) {
            Ok(Mend::Done) => read().map_err(absent),
            Ok(Mend::Useless) => Err(absent(error)),
            // Whether the origin has it is not known.
            Ok(Mend::Later) | Err(_) => Err(unread(error)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::repo::{NewCommit, RepoWriter};

    /// Pushes a commit of one file on top of another, or with a history of its own.
    fn push_file(
        repo: &RepoWriter,
        parent: Option<&CommitId>,
        message: &str,
        file: (&str, &str),
    ) -> CommitId {
        let files = BTreeMap::from([(file.0.to_owned(), Some(file.1.as_bytes().to_vec()))]);
        let (author, email) = ("Mara", "mara@example.com");
        let new = NewCommit { branch: "main", parent, message, author, email, time_ms: 1_795_141_560_000 };
        repo.commit(new, &files).unwrap()
    }

    fn push(repo: &RepoWriter, message: &str) -> CommitId {
        let text = "apiVersion: hydromesh/v1\nkind: Mesh\nname: watched\n";
        push_file(repo, None, message, ("mesh.yaml", text))
    }

    #[test]
    fn a_reference_that_is_gone_is_said_and_followed_again_when_it_is_back() {
        let home = tempfile::tempdir().unwrap();
        let repo = RepoWriter::init_bare(&home.path().join("repo.git")).unwrap();
        let cache = home.path().join("cache");
        let watcher = Watcher::open(repo.path().to_str().unwrap(), &cache, "refs/heads/main").unwrap();
        assert!(watcher.poll(None, None).unwrap().is_none(), "nobody has pushed yet");
        let first = push(&repo, "first");
        assert_eq!(watcher.poll(None, None).unwrap().unwrap().commit.id, first);
        repo.delete_branch("main").unwrap();
        for _ in 0..2 {
            let error = watcher.poll(Some(first.as_str()), Some(first.as_str())).unwrap_err();
            assert!(
                error.to_string().starts_with("refs/heads/main is not in the repository any more"),
                "{error}"
            );
        }
        assert!(watcher.read_commit(first.as_str(), &BTreeMap::new()).unwrap().readable, "it stays known");
        // Made again, of another history.
        let second = push(&repo, "second");
        let head = watcher.poll(Some(first.as_str()), Some(first.as_str())).unwrap().unwrap();
        assert_eq!((head.commit.id, head.passed.len()), (second, 0));
    }

    /// Takes every object of the mirror away: what is fetched next brings what is new alone.
    fn tear(watcher: &Watcher) {
        let objects = watcher.repository.git_dir().join("objects");
        std::fs::remove_dir_all(&objects).unwrap();
        std::fs::create_dir_all(objects.join("pack")).unwrap();
    }

    #[test]
    fn a_mirror_that_is_torn_twice_in_a_moment_makes_no_commit_a_broken_one() {
        let home = tempfile::tempdir().unwrap();
        let repo = RepoWriter::init_bare(&home.path().join("repo.git")).unwrap();
        let cache = home.path().join("cache");
        let watcher = Watcher::open(repo.path().to_str().unwrap(), &cache, "refs/heads/main").unwrap();
        let read = |id: &CommitId| watcher.read_commit(id.as_str(), &BTreeMap::new());
        let first = push(&repo, "first");
        assert!(watcher.poll(None, None).unwrap().is_some());
        tear(&watcher);
        let second = push_file(&repo, Some(&first), "second", ("docs/second.md", "second"));
        assert!(watcher.poll(Some(first.as_str()), None).unwrap().is_some());
        assert!(read(&second).unwrap().readable, "it was fetched again");
        // Torn again, before it may be built again: nothing is known of the next commit, and nothing concluded.
        tear(&watcher);
        let third = push_file(&repo, Some(&second), "third", ("docs/third.md", "third"));
        assert!(watcher.poll(Some(second.as_str()), None).unwrap().is_some());
        let torn = read(&third).map(|reading| reading.readable).unwrap_err();
        assert!(matches!(torn, RepoError::Torn(_)), "{torn}");
        let began = std::time::Instant::now();
        let reading = loop {
            match read(&third) {
                Ok(reading) => break reading,
                Err(error) => assert!(began.elapsed() < Duration::from_mins(1), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        assert!(reading.readable);
    }

    #[test]
    fn a_blob_is_absent_only_when_the_origin_was_asked_for_it() {
        use std::io::ErrorKind::{NotFound, Other};

        let home = tempfile::tempdir().unwrap();
        let repo = RepoWriter::init_bare(&home.path().join("repo.git")).unwrap();
        let cache = home.path().join("cache");
        let watcher = Watcher::open(repo.path().to_str().unwrap(), &cache, "refs/heads/main").unwrap();
        push(&repo, "first");
        assert!(watcher.poll(None, None).unwrap().is_some());
        let kind = |oid: &str| watcher.blobs().read(oid).unwrap_err().kind();
        let (gone, other) = ("1".repeat(40), "2".repeat(40));
        assert_eq!([kind(&gone), kind(&gone)], [NotFound, NotFound]);
        assert_eq!(kind(&other), Other, "it was just asked for something else");
    }
}
