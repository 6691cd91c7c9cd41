//! The oracle is the `git` program itself: repositories are made by it, and listings compared with what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::*;

mod hostile;

/// A repository with a work tree, made by `git`.
struct Git {
    dir: TempDir,
}

impl Git {
    fn new() -> Self {
        let git = Self { dir: TempDir::new().unwrap() };
        fs::create_dir(git.work()).unwrap();
        git.run(&["init", "-q", "-b", "main"]);
        git
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn run(&self, args: &[&str]) -> String {
        String::from_utf8(self.run_with(args, b"")).unwrap().trim_end().to_owned()
    }

    fn run_with(&self, args: &[&str], stdin: &[u8]) -> Vec<u8> {
        let mut child = Command::new("git")
            .args(args)
            .current_dir(self.work())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs([
                ("GIT_CONFIG_GLOBAL", "/dev/null"),
                ("GIT_CONFIG_NOSYSTEM", "1"),
                ("HOME", "/nonexistent"),
            ])
            .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.org")])
            .envs([("GIT_COMMITTER_NAME", "Ada"), ("GIT_COMMITTER_EMAIL", "ada@example.org")])
            .envs([("GIT_AUTHOR_DATE", "1700000000 +0100"), ("GIT_COMMITTER_DATE", "1700000000 +0100")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the git program is installed");
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn commit(&self, message: &str) -> CommitId {
        self.run(&["add", "-A"]);
        self.run(&["commit", "-q", "--allow-empty", "-m", message]);
        self.head()
    }

    fn head(&self) -> CommitId {
        CommitId::parse(&self.run(&["rev-parse", "HEAD"])).unwrap()
    }

    /// Writes a tree that `git add` would refuse, and a commit of it.
    fn raw_commit(&self, entries: &[(&str, &[u8], &str)]) -> CommitId {
        let mut tree = Vec::new();
        for (mode, name, oid) in entries {
            tree.extend_from_slice(format!("{mode} ").as_bytes());
            tree.extend_from_slice(name);
            tree.push(0);
            tree.extend_from_slice(&hex::decode(oid).unwrap());
        }
        let tree = self.run_with(&["hash-object", "-t", "tree", "-w", "--literally", "--stdin"], &tree);
        let tree = String::from_utf8(tree).unwrap();
        let commit = self.run(&["commit-tree", "-m", "raw", tree.trim_end()]);
        self.run(&["update-ref", "refs/heads/main", &commit]);
        CommitId::parse(&commit).unwrap()
    }

    fn blob(&self, bytes: &[u8]) -> String {
        String::from_utf8(self.run_with(&["hash-object", "-w", "--stdin"], bytes))
            .unwrap()
            .trim_end()
            .to_owned()
    }

    fn open(&self) -> Repository {
        let repo =
            Repository::open(self.work().to_str().unwrap(), &self.cache(), Credentials::Anonymous).unwrap();
        repo.fetch().unwrap();
        repo
    }

    fn snapshot(&self, id: &CommitId) -> RepoSnapshot {
        self.open().snapshot(id).unwrap()
    }

    /// What `git ls-tree` lists: path to (mode, oid, size).
    fn listing(&self, commit: &CommitId) -> BTreeMap<String, (String, String, u64)> {
        let out = self.run_with(&["ls-tree", "-r", "-l", "-z", "--full-tree", commit.as_str()], b"");
        let text = String::from_utf8(out).unwrap();
        text.split_terminator('\0')
            .map(|line| {
                let (meta, path) = line.split_once('\t').unwrap();
                let mut meta = meta.split_whitespace();
                let (mode, _, oid) = (meta.next().unwrap(), meta.next(), meta.next().unwrap());
                (
                    path.to_owned(),
                    (mode.to_owned(), oid.to_owned(), meta.next().unwrap().parse().unwrap_or(0)),
                )
            })
            .collect()
    }
}

fn reasons(snapshot: &RepoSnapshot) -> BTreeMap<&str, &Reason> {
    snapshot.rejected.iter().map(|r| (r.path.as_str(), &r.reason)).collect()
}

fn as_git_lists(snapshot: &RepoSnapshot) -> BTreeMap<String, (String, String, u64)> {
    let mode = |e: &FileEntry| if e.executable { "100755" } else { "100644" }.to_owned();
    snapshot.files.iter().map(|(p, e)| (p.clone(), (mode(e), e.oid.clone(), e.size))).collect()
}

#[test]
fn a_commit_lists_and_reads_as_git_does() {
    let git = Git::new();
    git.write("mesh.yaml", "a: 1\n");
    git.write("domains/commerce/orders/orders.sql", "select 1\n");
    git.write("domains/commerce/orders/empty", "");
    git.write("domains/commerce.md", "sorts between a folder and its files\n");
    git.write("run.sh", "#!/bin/sh\n");
    git.write("été/ñ.csv", b"\xff\x00binary".as_slice());
    git.run(&["add", "-A"]);
    git.run(&["update-index", "--chmod=+x", "run.sh"]);
    git.run(&["commit", "-q", "-m", "first line\n\nbody"]);
    let id = git.head();
    let snapshot = git.snapshot(&id);

    assert_eq!(as_git_lists(&snapshot), git.listing(&id));
    assert!(snapshot.rejected.is_empty());
    for path in snapshot.files.keys() {
        let expected = git.run_with(&["cat-file", "blob", &format!("{id}:{path}")], b"");
        assert_eq!(snapshot.read(path).unwrap(), expected, "{path}");
    }
    for prefix in ["", "domains", "domains/commerce", "domains/commerce/orders", "été"] {
        let expected = git.run(&["rev-parse", &format!("{id}:{prefix}")]);
        assert_eq!(snapshot.tree_oid(prefix), Some(expected), "{prefix}");
    }
    assert_eq!(snapshot.tree_oid("domains/comm"), None);
    assert!(matches!(snapshot.read("nope"), Err(RepoError::NoSuchFile(_))));
    assert!(matches!(snapshot.read("../work/mesh.yaml"), Err(RepoError::NoSuchFile(_))));

    let info = snapshot.commit.as_ref().unwrap();
    assert_eq!(
        (info.author.as_str(), info.subject(), info.time_ms),
        ("Ada", "first line", 1_700_000_000_000)
    );
    assert!(!format!("{info:?}").contains("example.org"));
    // The mirror is bare: nothing of the commit ever lay in a file of its own.
    let mirror = git.open();
    assert!(!mirror.git_dir().join("mesh.yaml").exists() && !mirror.git_dir().join("index").exists());
}

#[test]
fn links_and_submodules_are_rejected_and_the_rest_goes_on() {
    let git = Git::new();
    git.write("domains/a/x.sql", "select 1");
    std::os::unix::fs::symlink("/etc/passwd", git.work().join("domains/a/passwd")).unwrap();
    std::os::unix::fs::symlink("../b", git.work().join("domains/a/b")).unwrap();
    std::os::unix::fs::symlink("loop", git.work().join("loop")).unwrap();
    git.run(&[
        "update-index",
        "--add",
        "--cacheinfo",
        "160000,8c3b3e9b2b8c9b4c0d7f0c9d2a0b1c2d3e4f5a6b,vendor/lib",
    ]);
    git.write(".gitmodules", "[submodule \"x\"]\n\tpath = vendor/lib\n\turl = ext::sh -c date\n");
    git.run(&["add", "domains", "loop", ".gitmodules"]);
    git.run(&["commit", "-q", "-m", "m"]);
    let snapshot = git.snapshot(&git.head());

    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), [".gitmodules", "domains/a/x.sql"]);
    let reasons = reasons(&snapshot);
    assert_eq!(reasons["domains/a/passwd"], &Reason::Symlink);
    assert_eq!(reasons["domains/a/b"], &Reason::Symlink);
    assert_eq!(reasons["loop"], &Reason::Symlink);
    assert_eq!(reasons["vendor/lib"], &Reason::Submodule);
    assert!(matches!(snapshot.read("domains/a/passwd"), Err(RepoError::NoSuchFile(_))));
    assert_eq!(snapshot.rejected_touching("domains/a").len(), 2);
    assert_eq!(snapshot.rejected_touching("vendor/lib/src").len(), 1);
    assert!(snapshot.rejected_touching("domains/ab").is_empty());
}

#[test]
fn odd_names_are_rejected_one_by_one() {
    let git = Git::new();
    let blob = git.blob(b"x");
    let inner = git.run_with(&["mktree"], format!("100644 blob {blob}\tf\n").as_bytes());
    let inner = String::from_utf8(inner).unwrap().trim_end().to_owned();
    let long = vec![b'n'; 300];
    let names: [&[u8]; 12] = [
        b"..",
        b".",
        b".GIT",
        b"git~1",
        b"a\\b",
        b"new\nline",
        b"dot.",
        b"space ",
        b"\xff\xfe",
        b"zero\xe2\x80\x8bwidth",
        b"a/b",
        &long,
    ];
    let mut entries: Vec<(&str, &[u8], &str)> = names.iter().map(|n| ("100644", *n, blob.as_str())).collect();
    entries.push(("40000", b".git", &inner));
    entries.push(("100644", b"fine.sql", &blob));
    entries.push(("40000", b"folder", &inner));
    let id = git.raw_commit(&entries);
    let snapshot = git.snapshot(&id);

    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["fine.sql", "folder/f"]);
    assert_eq!(snapshot.rejected.len(), names.len() + 1, "{:?}", snapshot.rejected);
    let reasons = reasons(&snapshot);
    assert_eq!(reasons["\u{fffd}\u{fffd}"], &Reason::NonUtf8);
    assert!(matches!(reasons[".git"], Reason::BadName(_)));
    assert!(matches!(reasons[".."], Reason::BadName(_)));
}

#[test]
fn case_twins_keep_the_lower_case_one() {
    let git = Git::new();
    git.write("domains/a.sql", "1");
    let tree = git.commit("m");
    let folder = git.run(&["rev-parse", &format!("{tree}:domains")]);
    let blob = git.blob(b"x");
    let id = git.raw_commit(&[
        ("40000", b"DOMAINS", &folder),
        ("40000", b"Domains", &folder),
        ("100644", b"README.md", &blob),
        ("40000", b"domains", &folder),
        ("100644", b"twice", &blob),
        ("100644", b"twice", &folder),
    ]);
    let snapshot = git.snapshot(&id);
    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["README.md", "domains/a.sql", "twice"]);
    let reasons = reasons(&snapshot);
    assert_eq!(reasons["DOMAINS"], &Reason::CaseClash { kept: "domains".into() });
    assert_eq!(reasons["Domains"], &Reason::CaseClash { kept: "domains".into() });
    assert!(matches!(reasons["twice"], Reason::BadName(_)));
}

#[test]
fn sizes_and_pointers_are_judged_before_use() {
    let git = Git::new();
    git.write("exact.bin", vec![0; usize::try_from(MAX_FILE_BYTES).unwrap()]);
    git.write("big.bin", vec![0; usize::try_from(MAX_FILE_BYTES).unwrap() + 1]);
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n", "a".repeat(64));
    git.write("data.csv", &pointer);
    git.write("not-a-pointer.md", format!("about:\n{pointer}"));
    let id = git.commit("m");
    for snapshot in [git.snapshot(&id), FolderSource::open(&git.work()).unwrap().snapshot().unwrap()] {
        assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["exact.bin", "not-a-pointer.md"]);
        let reasons = reasons(&snapshot);
        assert_eq!(reasons["big.bin"], &Reason::TooLarge { size: MAX_FILE_BYTES + 1, limit: MAX_FILE_BYTES });
        assert_eq!(reasons["data.csv"], &Reason::LfsPointer);
    }
}

#[test]
fn missing_objects_reject_their_path_and_deep_trees_stop() {
    let git = Git::new();
    let blob = git.blob(b"x");
    let nowhere = "00000000000000000000000000000000deadbeef";
    // Read in place: a fetch would refuse to transfer such a commit.
    let id = git.raw_commit(&[
        ("100644", b"gone.sql", nowhere),
        ("40000", b"gone-folder", nowhere),
        ("100644", b"here.sql", &blob),
        ("40000", b"really-a-file", &blob),
    ]);
    let (repo, _) = Repository::discover(&git.work()).unwrap();
    let snapshot = repo.snapshot(&id).unwrap();
    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["here.sql"]);
    assert_eq!(snapshot.rejected.len(), 3);
    assert!(snapshot.rejected.iter().all(|r| matches!(r.reason, Reason::Unreadable { .. })));
    assert!(matches!(repo.snapshot(&CommitId::parse(nowhere).unwrap()), Err(RepoError::NoSuchCommit(_))));

    let mut tree = git.run_with(&["mktree"], format!("100644 blob {blob}\tf\n").as_bytes());
    for _ in 0..MAX_DEPTH + 5 {
        let oid = String::from_utf8(tree).unwrap();
        tree = git.run_with(&["mktree"], format!("040000 tree {}\td\n", oid.trim_end()).as_bytes());
    }
    let deep = String::from_utf8(tree).unwrap();
    let id = git.raw_commit(&[("40000", b"deep", deep.trim_end()), ("100644", b"here.sql", &blob)]);
    let snapshot = repo.snapshot(&id).unwrap();
    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["here.sql"]);
    assert!(matches!(snapshot.rejected[0].reason, Reason::TooDeep { .. }));
}

#[test]
fn five_thousand_files_list_equal_to_git_and_fast() {
    let git = Git::new();
    for n in 0..5_000 {
        git.write(&format!("domains/d{}/p{}/f{n}.sql", n % 10, n % 500), format!("select {n}"));
    }
    let id = git.commit("m");
    let repo = git.open();
    let start = std::time::Instant::now();
    let snapshot = repo.snapshot(&id).unwrap();
    let took = start.elapsed();
    assert_eq!(as_git_lists(&snapshot), git.listing(&id));
    assert_eq!(snapshot.tree_oid(""), Some(git.run(&["rev-parse", &format!("{id}:")])));
    assert!(took.as_secs() < 5, "listing 5,000 files took {took:?}");
    let folder = FolderSource::open(&git.work()).unwrap().snapshot().unwrap();
    assert_eq!(folder.files, snapshot.files);
    assert_eq!(folder.tree_oid(""), snapshot.tree_oid(""));
}

#[test]
fn a_fetch_follows_forced_deleted_and_recreated_branches() {
    let git = Git::new();
    git.write("a", "1");
    let first = git.commit("first");
    git.write("a", "2");
    let second = git.commit("second");
    git.run(&["branch", "side"]);
    git.run(&["tag", "-a", "v1", "-m", "tagged"]);
    let repo = git.open();
    assert_eq!(repo.resolve("main").unwrap().as_ref(), Some(&second));
    assert_eq!(repo.resolve("HEAD").unwrap().as_ref(), Some(&second));
    assert_eq!(repo.resolve("v1").unwrap().as_ref(), Some(&second));
    assert_eq!(repo.resolve("main~1").unwrap().as_ref(), Some(&first));
    assert_eq!(repo.resolve(second.short()).unwrap().as_ref(), Some(&second));
    assert_eq!(repo.resolve("main~9").unwrap(), None);
    assert_eq!(repo.resolve("nowhere").unwrap(), None);
    for bad in ["", "a..b", "main@{1}", ":/second", "a b", "~1", "x:y"] {
        assert!(matches!(repo.resolve(bad), Err(RepoError::BadRef(_))), "{bad}");
    }

    git.run(&["reset", "-q", "--hard", first.as_str()]);
    git.write("a", "3");
    let forced = git.commit("forced");
    git.run(&["branch", "-q", "-D", "side"]);
    repo.fetch().unwrap();
    assert_eq!(repo.resolve("main").unwrap().as_ref(), Some(&forced));
    assert_eq!(repo.resolve("side").unwrap(), None);
    let range = repo.commits_between(&second, &forced).unwrap();
    assert_eq!(range.history, History::Rewritten { base: Some(first.clone()) });
    assert_eq!(ids(&range.commits), std::slice::from_ref(&forced));
    assert_eq!(ids(&range.abandoned), std::slice::from_ref(&second));
    // Gone from the origin for good, but what was deployed from it must stay readable here.
    git.run(&["tag", "-d", "v1"]);
    git.run(&["reflog", "expire", "--expire=now", "--all"]);
    git.run(&["gc", "-q", "--prune=now"]);
    repo.fetch().unwrap();
    assert_eq!(repo.resolve("v1").unwrap(), None);
    assert_eq!(repo.snapshot(&second).unwrap().read("a").unwrap(), b"2");

    git.run(&["branch", "side", first.as_str()]);
    repo.fetch().unwrap();
    assert_eq!(repo.resolve("side").unwrap().as_ref(), Some(&first));
    assert_eq!(repo.branches().unwrap().keys().collect::<Vec<_>>(), ["main", "side"]);
    // Back to an ancestor: nothing new, one commit abandoned.
    let back = repo.commits_between(&forced, &first).unwrap();
    assert!(back.commits.is_empty() && back.superseded().is_empty());
    assert_eq!(ids(&back.abandoned), [forced]);
    let unknown = CommitId::parse(&"1".repeat(40)).unwrap();
    assert_eq!(repo.commits_between(&unknown, &first).unwrap().history, History::OldMissing);
}

fn ids(commits: &[CommitInfo]) -> Vec<CommitId> {
    commits.iter().map(|c| c.id.clone()).collect()
}

#[test]
fn ranges_agree_with_rev_list() {
    let git = Git::new();
    let root = git.commit("root");
    let a = git.commit("a");
    git.run(&["checkout", "-q", "-b", "side", root.as_str()]);
    let s1 = git.commit("s1");
    git.commit("s2");
    git.run(&["checkout", "-q", "main"]);
    git.run(&["merge", "-q", "--no-ff", "-m", "merge", "side"]);
    git.commit("after");
    let head = git.head();
    let repo = git.open();
    for old in [&root, &a, &s1, &head] {
        let range = repo.commits_between(old, &head).unwrap();
        let not_old = format!("^{old}");
        let expected = git.run(&["rev-list", "--first-parent", "--reverse", head.as_str(), &not_old]);
        let found: Vec<_> = ids(&range.commits).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected.lines().collect::<Vec<_>>(), "from {old}");
        assert_eq!(range.history, History::Forward);
        assert_eq!(range.superseded().len(), range.commits.len().saturating_sub(1));
    }
    let base = git.run(&["merge-base", a.as_str(), s1.as_str()]);
    assert_eq!(repo.merge_base(&a, &s1).unwrap().unwrap().as_str(), base);
    git.run(&["checkout", "-q", "--orphan", "other"]);
    let other = git.commit("unrelated");
    repo.fetch().unwrap();
    assert_eq!(repo.merge_base(&a, &other).unwrap(), None);
    assert_eq!(repo.commits_between(&a, &other).unwrap().history, History::Rewritten { base: None });
}

#[test]
fn a_mirror_recovers_from_locks_and_damage() {
    let git = Git::new();
    git.write("a", "1");
    let first = git.commit("first");
    let repo = git.open();
    let mirror = repo.git_dir().to_owned();
    for lock in ["HEAD.lock", "config.lock", "packed-refs.lock", "refs/heads/main.lock"] {
        fs::write(mirror.join(lock), "").unwrap();
    }
    git.write("a", "2");
    let second = git.commit("second");
    repo.fetch().unwrap();
    assert_eq!(repo.resolve("main").unwrap(), Some(second.clone()));

    // A power cut that kept names but lost objects.
    fs::remove_dir_all(mirror.join("objects/pack")).unwrap();
    assert!(repo.snapshot(&second).is_err());
    git.write("a", "3");
    let third = git.commit("third");
    repo.fetch().unwrap();
    assert_eq!(repo.snapshot(&third).unwrap().read("a").unwrap(), b"3");
    assert_eq!(repo.snapshot(&first).unwrap().read("a").unwrap(), b"1");

    // Killed while the mirror was being made.
    fs::remove_file(mirror.join("HEAD")).unwrap();
    let again = git.open();
    assert_eq!(again.resolve("main").unwrap(), Some(third));
}

#[test]
fn a_missing_origin_is_an_error_and_keeps_what_is_known() {
    let git = Git::new();
    let first = git.commit("first");
    let url = format!("file://{}", git.work().display());
    let repo = Repository::open(&url, &git.cache(), Credentials::Anonymous).unwrap();
    repo.fetch().unwrap();
    fs::rename(git.work(), git.dir.path().join("moved")).unwrap();
    let error = repo.fetch().unwrap_err();
    assert!(error.to_string().starts_with("cannot fetch from file://"), "{error}");
    assert_eq!(repo.resolve("main").unwrap(), Some(first));
}

#[test]
fn a_folder_obeys_the_rules_of_a_commit() {
    let git = Git::new();
    git.write("mesh/domains/a/x.sql", "select 1");
    git.write("mesh/.gitignore", "*.tmp\n");
    git.write("mesh/ignored.tmp", "seen all the same");
    git.write("mesh/bad\\name", "x");
    git.write("mesh/nested/.git/config", "x");
    git.write("mesh/.git/config", "the folder's own repository");
    std::os::unix::fs::symlink("/etc", git.work().join("mesh/etc")).unwrap();
    let fifo = git.work().join("mesh/pipe");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let non_utf8 = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff.sql");
    fs::write(git.work().join("mesh").join(non_utf8), "x").unwrap();

    let source = FolderSource::open(&git.work().join("mesh")).unwrap();
    let snapshot = source.snapshot().unwrap();
    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), [".gitignore", "domains/a/x.sql", "ignored.tmp"]);
    let reasons = reasons(&snapshot);
    assert_eq!(reasons["etc"], &Reason::Symlink);
    assert_eq!(reasons["nested"], &Reason::Submodule);
    assert_eq!(reasons["pipe"], &Reason::Special);
    assert_eq!(reasons["\u{fffd}.sql"], &Reason::NonUtf8);
    assert!(matches!(reasons["bad\\name"], Reason::BadName(_)));
    assert_eq!(snapshot.commit, None);

    assert_eq!(snapshot.read("domains/a/x.sql").unwrap(), b"select 1");
    git.write("mesh/domains/a/x.sql", "select 2");
    assert!(matches!(snapshot.read("domains/a/x.sql"), Err(RepoError::Changed { .. })));
    fs::remove_file(git.work().join("mesh/ignored.tmp")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", git.work().join("mesh/ignored.tmp")).unwrap();
    assert!(matches!(snapshot.read("ignored.tmp"), Err(RepoError::Changed { .. })));
    assert!(FolderSource::open(&git.work().join("nowhere")).is_err());
    assert!(FolderSource::open(&git.work().join("mesh/.gitignore")).is_err());
}

#[test]
fn a_mesh_below_the_root_is_cut_out() {
    let git = Git::new();
    git.write("meshes/retail/mesh.yaml", "a: 1");
    git.write("meshes/retail-2/mesh.yaml", "a: 2");
    std::os::unix::fs::symlink("x", git.work().join("meshes/retail/link")).unwrap();
    let id = git.commit("m");
    let (repo, prefix) = Repository::discover(&git.work().join("meshes/retail")).unwrap();
    assert_eq!(prefix, "meshes/retail");
    let cut = repo.snapshot(&id).unwrap().subfolder(&prefix).unwrap();
    assert_eq!(cut.files.keys().collect::<Vec<_>>(), ["mesh.yaml"]);
    assert_eq!(cut.rejected[0].path, "link");
    assert_eq!(cut.read("mesh.yaml").unwrap(), b"a: 1");
    let folder =
        FolderSource::open(&git.work()).unwrap().snapshot().unwrap().subfolder("meshes/retail-2").unwrap();
    assert_eq!(folder.read("mesh.yaml").unwrap(), b"a: 2");
    assert!(matches!(folder.subfolder("none"), Err(RepoError::NoSuchFolder(_))));
}

#[test]
fn the_writer_makes_what_git_reads() {
    let git = Git::new();
    let bare = git.dir.path().join("bare.git");
    let writer = RepoWriter::init_bare(&bare).unwrap();
    let at = |branch, parent, message| NewCommit {
        branch,
        parent,
        message,
        author: "Robin",
        email: "robin@example.org",
        time_ms: 1_750_000_000_999,
    };
    let put = |path: &str, text: &str| (path.to_owned(), Some(text.as_bytes().to_vec()));
    let files =
        BTreeMap::from([put("mesh.yaml", "a"), put("domains/a/x.sql", "1"), put("domains/a/y.sql", "2")]);
    let first = writer.commit(at("main", None, "first"), &files).unwrap();
    let changes = BTreeMap::from([
        put("domains/b/deep/z.sql", "3"),
        put("domains/a/x.sql", "changed"),
        ("domains/a/y.sql".to_owned(), None),
        ("never/was.sql".to_owned(), None),
    ]);
    let second = writer.commit(at("main", Some(&first), "second"), &changes).unwrap();
    let git_dir = format!("--git-dir={}", bare.display());
    assert_eq!(git.run(&[&git_dir, "rev-parse", "main"]), second.as_str());
    assert_eq!(git.run(&[&git_dir, "fsck", "--strict", "--no-dangling"]), "");
    let names = git.run(&[&git_dir, "ls-tree", "-r", "--name-only", "main"]);
    assert_eq!(
        names.lines().collect::<BTreeSet<_>>(),
        BTreeSet::from(["mesh.yaml", "domains/a/x.sql", "domains/b/deep/z.sql"])
    );
    assert_eq!(git.run(&[&git_dir, "show", "main:domains/a/x.sql"]), "changed");
    assert_eq!(
        git.run(&[&git_dir, "log", "-1", "--format=%an %ae %ct %s", "main"]),
        "Robin robin@example.org 1750000000 second"
    );
    assert!(!bare.join("hooks/post-update.sample").exists());
    assert_eq!(writer.read_file(&first, "domains/a/y.sql").unwrap().unwrap(), b"2");
    assert_eq!(writer.read_file(&second, "domains/a/y.sql").unwrap(), None);
    assert_eq!(writer.read_file(&second, "domains/a").unwrap(), None);

    // The last file of a folder takes the folder with it, as in git.
    let gone = BTreeMap::from([("domains/b/deep/z.sql".to_owned(), None)]);
    let third = writer.commit(at("main", Some(&second), "third"), &gone).unwrap();
    assert_eq!(git.run(&[&git_dir, "ls-tree", "-r", "-d", "--name-only", "main"]), "domains\ndomains/a");

    // A stale parent does not win, a new branch starts anywhere, and equal input gives an equal id.
    let stale = writer.commit(at("main", Some(&first), "late"), &changes);
    assert!(matches!(stale, Err(RepoError::BranchMoved { current: Some(c), .. }) if c == third));
    let twin = writer.commit(at("pull/1", Some(&first), "second"), &changes).unwrap();
    assert_eq!(twin, second);
    writer.set_branch("main", &first).unwrap();
    assert_eq!(writer.branch("main").unwrap().as_ref(), Some(&first));
    writer.delete_branch("pull/1").unwrap();
    assert_eq!(writer.branch("pull/1").unwrap(), None);
    for path in ["../x", ".git/config", "a//b", "/abs", ""] {
        let bad = BTreeMap::from([put(path, "x")]);
        assert!(matches!(writer.commit(at("x", None, "m"), &bad), Err(RepoError::BadPath { .. })), "{path}");
    }
}

#[test]
fn too_many_files_fail_the_whole_listing() {
    let git = Git::new();
    let blob = git.blob(b"x");
    let lines: Vec<_> = (0..1_000).map(|n| format!("100644 blob {blob}\tf{n:04}\n")).collect();
    let folder = String::from_utf8(git.run_with(&["mktree"], lines.concat().as_bytes())).unwrap();
    let folder = folder.trim_end();
    let lines: Vec<_> = (0..=MAX_FILES / 1_000).map(|n| format!("040000 tree {folder}\td{n:04}\n")).collect();
    let root = String::from_utf8(git.run_with(&["mktree"], lines.concat().as_bytes())).unwrap();
    let commit = git.run(&["commit-tree", "-m", "many", root.trim_end()]);
    let (repo, _) = Repository::discover(&git.work()).unwrap();
    let result = repo.snapshot(&CommitId::parse(&commit).unwrap());
    assert!(matches!(result, Err(RepoError::TooManyFiles { limit: MAX_FILES })));
}

#[test]
fn a_shallow_clone_is_read_as_far_as_it_goes() {
    let git = Git::new();
    git.write("a", "1");
    let first = git.commit("first");
    git.write("a", "2");
    let second = git.commit("second");
    let shallow = git.dir.path().join("shallow");
    let from = format!("file://{}", git.work().display());
    git.run(&["clone", "-q", "--depth", "1", &from, shallow.to_str().unwrap()]);
    let (repo, _) = Repository::discover(Path::new(&shallow)).unwrap();
    assert_eq!(repo.snapshot(&second).unwrap().read("a").unwrap(), b"2");
    assert_eq!(repo.commits_between(&first, &second).unwrap().history, History::OldMissing);
}
