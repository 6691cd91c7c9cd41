//! The watched repository: a bare mirror of ours in the state folder, filled by fetch alone.
//!
//! Even a repository on this machine is mirrored: its owner may rewrite, collect or delete it while we still answer
//! for what we deployed from it. Nothing ever prunes objects from the mirror, so a force push takes no history from us.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use git2::{
    AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, FetchPrune, RemoteCallbacks,
    RemoteRedirect,
};
use sha2::{Digest, Sha256};

use super::{CommitId, CommitInfo, RepoError, RepoSnapshot, git, io};

/// Longest fetch. A server that trickles bytes must not stop the watch loop for good.
const FETCH_DEADLINE: Duration = Duration::from_mins(10);
/// Most bytes one fetch may bring: 2 GiB.
const FETCH_BYTES: usize = 2 * 1024 * 1024 * 1024;
/// Between two mirrors that are built because something cannot be read.
const MEND_PAUSE: Duration = Duration::from_secs(1);
/// How long a server may take to accept a connection, and then to say anything at all, in milliseconds.
const CONNECT_MS: i32 = 10_000;
const SILENCE_MS: i32 = 60_000;

/// How to introduce ourselves to a server. Credential helpers of the host are never run: they are programs.
#[derive(Clone, Default)]
pub enum Credentials {
    #[default]
    Anonymous,
    /// HTTPS user (forges accept any, by custom `x-access-token`) and token.
    Token { user: String, token: String },
    /// Keys held by the ssh agent.
    SshAgent,
    /// A private key file; the public key is derived.
    SshKey { private: PathBuf, passphrase: Option<String> },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Token { .. } => "Token(hidden)",
            Self::SshAgent => "SshAgent",
            Self::SshKey { .. } => "SshKey(hidden)",
        })
    }
}

/// A repository whose commits can be listed and read. Cheap to clone; every call opens its own handle.
#[derive(Debug, Clone)]
pub struct Repository {
    git_dir: PathBuf,
    origin: Option<Origin>,
    mended: Arc<Mutex<Option<Mended>>>,
}

/// When the mirror was built anew last, for whose sake, and how long that took.
#[derive(Debug, Clone)]
struct Mended {
    at: Instant,
    took: Duration,
    about: String,
}

/// What came of asking for a mirror that is built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Mend {
    /// It was: what was missing can be read now, if the origin has it.
    Done,
    /// It would change nothing: it was just built for the sake of the same, or there is nothing to build it from.
    Useless,
    /// It was just built for the sake of something else; it can be built again in a moment.
    Later,
}

#[derive(Debug, Clone)]
struct Origin {
    /// May hold a password; never printed.
    url: String,
    credentials: Credentials,
}

impl Repository {
    /// Prepares the mirror of `url_or_path` under `cache_dir` and fetches nothing yet.
    ///
    /// Accepts `https://`, `ssh://`, `user@host:path`, `file://` and paths (bare or not). Everything else is refused:
    /// `git://` and `http://` can be altered on the way (loopback excepted), `ext::` runs programs.
    pub fn open(url_or_path: &str, cache_dir: &Path, credentials: Credentials) -> Result<Self, RepoError> {
        set_timeouts();
        let url = accepted_url(url_or_path)?;
        let name = hex::encode(&Sha256::digest(url.as_bytes())[..10]);
        let git_dir = cache_dir.join(format!("{name}.git"));
        fs::create_dir_all(cache_dir).map_err(io("create the folder", cache_dir))?;
        let origin = Some(Origin { url, credentials });
        let repository = Self { git_dir, origin, mended: Arc::default() };
        let _lock = repository.lock()?;
        repository.ensure_mirror()?;
        Ok(repository)
    }

    /// Opens the repository that contains `path` where it is, without a mirror, and returns the folder of `path`
    /// within it ("" at the root). For one-off questions about the user's own clone; [`Self::fetch`] does nothing.
    pub fn discover(path: &Path) -> Result<(Self, String), RepoError> {
        let path = fs::canonicalize(path).map_err(io("open the folder", path))?;
        let open = |source| RepoError::Open { path: path.clone(), source };
        let repo = git2::Repository::discover(&path).map_err(open)?;
        let prefix = repo
            .workdir()
            .and_then(|root| fs::canonicalize(root).ok())
            .and_then(|root| path.strip_prefix(root).ok().and_then(Path::to_str).map(str::to_owned))
            .unwrap_or_default();
        Ok((Self { git_dir: repo.path().to_owned(), origin: None, mended: Arc::default() }, prefix))
    }

    /// Where the objects are.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// Brings the mirror's branches, tags and `HEAD` to what the origin has now, forced updates and deletions
    /// included. A mirror that turns out damaged (a power cut in the middle of an earlier fetch) is built anew once.
    pub fn fetch(&self) -> Result<(), RepoError> {
        let Some(origin) = &self.origin else { return Ok(()) };
        let _lock = self.lock()?;
        self.remove_stale_locks();
        self.ensure_mirror()?;
        let source = match fetch_into(&self.git_dir, origin) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if self.is_damaged() {
            return self.rebuild(origin);
        }
        Err(fetch_error(origin, source))
    }

    /// Builds the mirror anew because something in it cannot be read that was asked for, of a commit or by an id.
    ///
    /// # Errors
    /// When the origin cannot be reached; the mirror then stays as it is.
    pub fn mend(&self, about: &str) -> Result<Mend, RepoError> {
        let Some(origin) = &self.origin else { return Ok(Mend::Useless) };
        let mut mended = self.mended.lock().unwrap_or_else(PoisonError::into_inner);
        // However often something is missing, this takes no more than a twentieth of the time.
        if let Some(last) =
            mended.as_ref().filter(|last| last.at.elapsed() < (20 * last.took).max(MEND_PAUSE))
        {
            return Ok(if last.about == about { Mend::Useless } else { Mend::Later });
        }
        let _lock = self.lock()?;
        let began = Instant::now();
        let rebuilt = self.rebuild(origin);
        // One that could not be built says nothing of what the origin has.
        let about = if rebuilt.is_ok() { about.to_owned() } else { String::new() };
        *mended = Some(Mended { at: Instant::now(), took: began.elapsed(), about });
        rebuilt.map(|()| Mend::Done)
    }

    /// Puts a mirror in the place of the one that is there, which is kept beside it: it may be all that is left of commits that
    /// the origin no longer has.
    fn rebuild(&self, origin: &Origin) -> Result<(), RepoError> {
        tracing::warn!(mirror = %self.git_dir.display(), "the mirror is damaged, building it anew");
        let (new, old) = (self.git_dir.with_extension("new"), self.git_dir.with_extension("damaged"));
        for left in [&new, &old] {
            match fs::remove_dir_all(left) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io("remove what is left of a mirror", left)(error));
                }
                _ => {}
            }
        }
        super::writer::init(&new)?;
        fetch_into(&new, origin).map_err(|source| fetch_error(origin, source))?;
        fs::rename(&self.git_dir, &old).map_err(io("move aside the damaged mirror", &self.git_dir))?;
        fs::rename(&new, &self.git_dir).map_err(io("name the mirror", &new))
    }

    /// Returns the commit that `name` means, or `None` if there is no such thing.
    ///
    /// In this order: a full name (`refs/heads/main`, `HEAD`), a branch, a tag, a commit id (7 digits or more); any
    /// of them may carry `~N` and `^N` behind it. A branch wins over a tag of its name, because a ref that an
    /// environment watches must not change its meaning when somebody pushes a tag.
    pub fn resolve(&self, name: &str) -> Result<Option<CommitId>, RepoError> {
        let bad = || RepoError::BadRef(name.chars().take(200).collect());
        let (base, steps) = name.split_at(name.find(['~', '^']).unwrap_or(name.len()));
        if base.is_empty() || !steps.chars().all(|c| matches!(c, '~' | '^' | '0'..='9')) {
            return Err(bad());
        }
        let full = |prefix: &str| format!("{prefix}{base}");
        if !git2::Reference::is_valid_name(&full("refs/heads/")) {
            return Err(bad());
        }
        let repo = self.handle()?;
        let mut found = None;
        for name in [full(""), full("refs/heads/"), full("refs/tags/")] {
            if !git2::Reference::is_valid_name(&name) {
                continue;
            }
            match repo.find_reference(&name).and_then(|r| r.peel_to_commit()) {
                Ok(commit) => found = Some(commit.id()),
                Err(error) if is_absent(&error) => continue,
                Err(source) => return Err(RepoError::Git { action: "read a branch or tag", source }),
            }
            break;
        }
        if found.is_none() && (7..=40).contains(&base.len()) && base.bytes().all(|b| b.is_ascii_hexdigit()) {
            found = repo.find_commit_by_prefix(base).ok().map(|c| c.id());
        }
        let Some(oid) = found else { return Ok(None) };
        if steps.is_empty() {
            return Ok(Some(CommitId::of(oid)));
        }
        match repo.revparse_single(&format!("{oid}{steps}")).and_then(|o| o.peel_to_commit()) {
            Ok(commit) => Ok(Some(CommitId::of(commit.id()))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(RepoError::Git { action: "follow a commit's parents", source }),
        }
    }

    /// Returns branch names and the commits they are at, in name order.
    pub fn branches(&self) -> Result<std::collections::BTreeMap<String, CommitId>, RepoError> {
        let repo = self.handle()?;
        let mut branches = std::collections::BTreeMap::new();
        for reference in repo.references_glob("refs/heads/*").map_err(git("list branches"))? {
            let reference = reference.map_err(git("list branches"))?;
            let name = reference.name().ok().and_then(|n| n.strip_prefix("refs/heads/"));
            if let (Some(name), Some(oid)) = (name, reference.target()) {
                branches.insert(name.to_owned(), CommitId::of(oid));
            }
        }
        Ok(branches)
    }

    pub fn commit(&self, id: &CommitId) -> Result<CommitInfo, RepoError> {
        let repo = self.handle()?;
        let commit = repo.find_commit(id.oid()).map_err(|e| missing_commit(id, e))?;
        Ok(CommitInfo::of(&commit))
    }

    /// Lists the tree of a commit; see [`RepoSnapshot`].
    pub fn snapshot(&self, id: &CommitId) -> Result<RepoSnapshot, RepoError> {
        let repo = self.handle()?;
        repo.find_commit(id.oid()).map(drop).map_err(|e| missing_commit(id, e))?;
        RepoSnapshot::of_commit(repo, id.oid())
    }

    pub(super) fn handle(&self) -> Result<git2::Repository, RepoError> {
        open_here(&self.git_dir).map_err(|source| RepoError::Open { path: self.git_dir.clone(), source })
    }

    /// One process works in a mirror at a time. The lock goes with the process, so a `kill -9` leaves none behind.
    fn lock(&self) -> Result<File, RepoError> {
        let path = self.git_dir.with_extension("lock");
        let file =
            File::options().create(true).append(true).open(&path).map_err(io("open the lock", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                tracing::info!(lock = %path.display(), "waiting for another process that fetches this repository");
                file.lock().map_err(io("take the lock", &path))?;
            }
            Err(TryLockError::Error(error)) => return Err(io("take the lock", &path)(error)),
        }
        Ok(file)
    }

    /// Removes what a killed fetch of an earlier process left; ours is the only live one, because we hold the lock.
    fn remove_stale_locks(&self) {
        let mut folders = vec![self.git_dir.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
                if is_folder && name != "objects" {
                    folders.push(path);
                } else if !is_folder && Path::new(&name).extension().is_some_and(|e| e == "lock") {
                    tracing::info!(file = %path.display(), "removing a lock that an interrupted fetch left");
                    let _ = fs::remove_file(&path);
                }
            }
        }
    }

    fn ensure_mirror(&self) -> Result<(), RepoError> {
        if self.git_dir.exists() {
            if open_here(&self.git_dir).is_ok() {
                return Ok(());
            }
            fs::remove_dir_all(&self.git_dir).map_err(io("remove the damaged mirror", &self.git_dir))?;
        }
        super::writer::init(&self.git_dir).map(drop)
    }

    /// Whether some branch or tag of the mirror names an object that cannot be read.
    fn is_damaged(&self) -> bool {
        let Ok(repo) = open_here(&self.git_dir) else { return true };
        let Ok(references) = repo.references() else { return true };
        references
            .flatten()
            .any(|r| r.target().is_some() && r.peel_to_commit().and_then(|c| c.tree()).is_err())
    }
}

/// Fetches every branch and tag into a bare repository.
fn fetch_into(git_dir: &Path, origin: &Origin) -> Result<(), git2::Error> {
    let repo = open_here(git_dir)?;
    let mut remote = repo.remote_anonymous(&origin.url)?;
    let started = Instant::now();
    let mut connection = remote.connect_auth(Direction::Fetch, Some(callbacks(origin, started)), None)?;
    let default = connection.default_branch().ok().and_then(|b| b.as_str().ok().map(str::to_owned));
    let mut options = FetchOptions::new();
    options
        .remote_callbacks(callbacks(origin, started))
        .prune(FetchPrune::On)
        .update_fetchhead(false)
        .download_tags(AutotagOption::None)
        .follow_redirects(RemoteRedirect::Initial);
    let specs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
    connection.remote().fetch(&specs, Some(&mut options), None)?;
    if let Some(default) = default {
        repo.set_head(&default)?;
    }
    Ok(())
}

/// Opens exactly this git folder: no search upwards, no environment, no work tree.
fn open_here(git_dir: &Path) -> Result<git2::Repository, git2::Error> {
    use git2::RepositoryOpenFlags as Flags;
    let none: [&std::ffi::OsStr; 0] = [];
    git2::Repository::open_ext(git_dir, Flags::NO_SEARCH | Flags::BARE | Flags::NO_DOTGIT, none)
}

fn is_absent(error: &git2::Error) -> bool {
    matches!(
        error.code(),
        ErrorCode::NotFound | ErrorCode::UnbornBranch | ErrorCode::InvalidSpec | ErrorCode::Peel
    )
}

fn missing_commit(id: &CommitId, error: git2::Error) -> RepoError {
    if error.code() == ErrorCode::NotFound || error.class() == ErrorClass::Invalid {
        RepoError::NoSuchCommit(id.clone())
    } else {
        RepoError::Git { action: "read a commit", source: error }
    }
}

fn fetch_error(origin: &Origin, source: git2::Error) -> RepoError {
    RepoError::Fetch { url: redacted(&origin.url), source }
}

fn callbacks(origin: &Origin, started: Instant) -> RemoteCallbacks<'_> {
    let mut callbacks = RemoteCallbacks::new();
    callbacks
        .transfer_progress(move |p| started.elapsed() < FETCH_DEADLINE && p.received_bytes() < FETCH_BYTES);
    let mut offered = 0;
    callbacks.credentials(move |_, user, allowed| {
        // libgit2 asks again after a refusal, for ever; a user name alone is a question of its own.
        if allowed.contains(git2::CredentialType::USERNAME) {
            return git2::Cred::username(user.unwrap_or("git"));
        }
        offered += 1;
        if offered > 1 {
            return Err(git2::Error::from_str("the server refused the credentials"));
        }
        match &origin.credentials {
            Credentials::Anonymous => {
                Err(git2::Error::from_str("the server asks for credentials and none are set"))
            }
            Credentials::Token { user, token } => git2::Cred::userpass_plaintext(user, token),
            Credentials::SshAgent => git2::Cred::ssh_key_from_agent(user.unwrap_or("git")),
            Credentials::SshKey { private, passphrase } => {
                git2::Cred::ssh_key(user.unwrap_or("git"), None, private, passphrase.as_deref())
            }
        }
    });
    callbacks
}

/// Returns the address to fetch from: URLs as they are, paths absolute.
fn accepted_url(text: &str) -> Result<String, RepoError> {
    let refuse = |why| Err(RepoError::BadUrl { url: redacted(text), why });
    if text.is_empty() || text.contains(|c: char| c.is_control()) {
        return refuse("it is empty or holds control characters");
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let loopback = ["localhost", "127.0.0.1", "[::1]"]
            .iter()
            .any(|l| host.strip_prefix(l).is_some_and(|port| port.is_empty() || port.starts_with(':')));
        return match scheme {
            "https" | "ssh" | "file" => Ok(text.to_owned()),
            "http" if loopback => Ok(text.to_owned()),
            "http" | "git" => refuse("anybody on the way could alter it; use https or ssh"),
            _ => refuse("only https, ssh and file URLs are fetched"),
        };
    }
    if text.contains("::") {
        return refuse("remote helpers are programs and are not run");
    }
    if let Ok(path) = fs::canonicalize(text) {
        return match path.to_str() {
            Some(path) => Ok(path.to_owned()),
            None => refuse("the path is not UTF-8"),
        };
    }
    // The short form of ssh: user@host:path, with no slash before the colon.
    match text.split_once(':') {
        Some((host, path))
            if host.contains('@') && !host.contains('/') && !host.starts_with('-') && !path.is_empty() =>
        {
            Ok(text.to_owned())
        }
        _ => refuse("there is no such folder, and it is no URL"),
    }
}

/// Returns a URL without what stands before the host, which is where passwords and tokens are written.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{path}"),
        None => format!("{scheme}://{authority}{path}"),
    }
}

/// Gives libgit2's sockets a time limit; by default they have none and a silent server would hold a thread for ever.
fn set_timeouts() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        #[expect(
            unsafe_code,
            reason = "libgit2 keeps these in globals that are not synchronised; Once makes us the only writer"
        )]
        // SAFETY: called once, before this module opens its first connection.
        let results = unsafe {
            [
                git2::opts::set_server_connect_timeout_in_milliseconds(CONNECT_MS),
                git2::opts::set_server_timeout_in_milliseconds(SILENCE_MS),
            ]
        };
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "cannot limit how long a git server may be silent");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_run_programs_or_travel_in_the_open_are_refused() {
        for url in [
            "ext::sh -c date",
            "git://h/x",
            "http://h/x",
            "http://localhost.evil.example/x",
            "ftp://h/x",
            "",
            "a\nb",
            "/no/such/path",
            "-oProxyCommand=x@h:y",
        ] {
            assert!(accepted_url(url).is_err(), "{url}");
        }
        for url in [
            "https://h/x.git",
            "ssh://git@h/x",
            "git@h:team/x.git",
            "http://127.0.0.1:8080/x",
            "file:///srv/x.git",
        ] {
            assert_eq!(accepted_url(url).unwrap(), url);
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(redacted("https://bob:s3cret@h/x?token=1"), "https://***@h/x");
        assert_eq!(redacted("https://h/x"), "https://h/x");
        let error =
            Repository::open("ftp://bob:s3cret@h/x", Path::new("/nonexistent"), Credentials::Anonymous)
                .unwrap_err();
        assert!(!error.to_string().contains("s3cret"));
        let token = Credentials::Token { user: "x".into(), token: "s3cret".into() };
        assert!(!format!("{token:?}").contains("s3cret"));
    }
}
