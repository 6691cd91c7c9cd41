//! Keys, signatures and histories made by OpenSSH, `gpg` and git themselves, which are asked as well where they know the answer.

use std::path::{Path, PathBuf};
use std::process::Command;

use hydromesh_core::ids::PortId;
use hydromesh_core::plan::PortPrint;

use super::*;

/// 2026-11-30 00:00 UTC, when every commit is looked at.
const NOW_MS: i64 = 1_796_000_400_000;
const SQL: &str = "domains/shop/orders/orders.sql";
const RULES_TEXT: &str = "apiVersion: hydromesh/v1\nkind: Signers\nrules:\n\
    - {paths: 'domains/shop/**', signers: mara@example.com}\n\
    - {paths: '**', signers: ops@example.com}\n";

/// A repository with a work tree, keys, and a folder of signers.
struct Bench {
    home: tempfile::TempDir,
}

impl Bench {
    /// Returns nothing, and says so, where a program is missing.
    fn new(programs: &[&str]) -> Option<Self> {
        for program in programs {
            let path = std::env::var_os("PATH").unwrap_or_default();
            if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
                println!("skipped, because {program} is not installed");
                return None;
            }
        }
        let bench = Self { home: tempfile::Builder::new().prefix("hm").tempdir().unwrap() };
        for folder in ["repo", "signers", "gnupg"] {
            std::fs::create_dir(bench.path(folder)).unwrap();
        }
        bench.run("chmod", &["700", "gnupg"], &[]);
        bench.git(&["init", "-q", "-b", "main"]);
        for (key, value) in [("user.name", "Mara"), ("user.email", "mara@example.com"), ("gpg.format", "ssh")]
        {
            bench.git(&["config", key, value]);
        }
        bench.write("signers/signers.yaml", RULES_TEXT);
        bench.write("repo/mesh.yaml", "kind: Mesh\n");
        bench.write(&format!("repo/{SQL}"), "SELECT 0\n");
        bench.write("repo/domains/shop/domain.yaml", "kind: Domain\n");
        bench.write("repo/domains/risk/scores/scores.sql", "SELECT 0\n");
        bench.commit("Begin", None);
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    fn try_run(&self, program: &str, args: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.home.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.home.path());
        command.env("GNUPGHOME", self.path("gnupg")).env("GIT_CONFIG_NOSYSTEM", "1").env("TZ", "UTC");
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    }

    #[track_caller]
    fn run(&self, program: &str, args: &[&str], variables: &[(&str, &str)]) -> String {
        let (good, said) = self.try_run(program, args, variables);
        assert!(good, "{program} {args:?}: {said}");
        said
    }

    #[track_caller]
    fn git(&self, args: &[&str]) -> String {
        let args: Vec<&str> = ["-C", "repo"].iter().chain(args).copied().collect();
        self.run("git", &args, &[]).trim().to_owned()
    }

    /// Makes an SSH key and returns its public line.
    fn key(&self, name: &str, kind: &[&str]) -> String {
        let args = [&["-q", "-N", "", "-C", "", "-f", name], kind].concat();
        self.run("ssh-keygen", &args, &[]);
        std::fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap().trim().to_owned()
    }

    /// Lets somebody sign; the line is as in `allowed_signers`.
    fn allow(&self, line: &str) {
        let path = self.path("signers/allowed_signers");
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(path, format!("{before}{line}\n")).unwrap();
    }

    /// Commits everything as it lies there; `key` is a file of an SSH key, or the id of an OpenPGP key behind `pgp:`.
    fn commit(&self, message: &str, key: Option<&str>) -> CommitId {
        self.commit_with(message, key, &[])
    }

    fn commit_with(&self, message: &str, key: Option<&str>, more: &[&str]) -> CommitId {
        self.git(&["add", "-A"]);
        let (key, format) = match key.map(|key| key.strip_prefix("pgp:").ok_or(key)) {
            None => (None, "ssh"),
            Some(Ok(id)) => (Some(id.to_owned()), "openpgp"),
            Some(Err(file)) => (Some(self.path(file).display().to_string()), "ssh"),
        };
        let sign = key.map_or_else(|| "--no-gpg-sign".to_owned(), |key| format!("-S{key}"));
        let format = format!("gpg.format={format}");
        let args = [&["-c", &format, "commit", "-q", "--allow-empty", "-m", message, &sign], more].concat();
        self.git(&args);
        self.head()
    }

    fn head(&self) -> CommitId {
        CommitId::parse(&self.git(&["rev-parse", "HEAD"])).unwrap()
    }

    fn repository(&self) -> Repository {
        Repository::discover(&self.path("repo")).unwrap().0
    }

    fn judge(&self, line: Option<&Line>) -> Judged {
        let trust = Trust::open(&self.path("signers")).unwrap();
        trust.judge(&self.repository(), &self.head(), line, NOW_MS).unwrap()
    }

    fn begin(&self, commit: &CommitId) -> Line {
        begin_at(&self.repository(), commit).unwrap()
    }

    /// Returns what is said of the only refused path, if one is.
    #[track_caller]
    fn refusal(&self, line: &Line) -> Option<String> {
        let judged = self.judge(Some(line));
        assert_eq!(judged.held, None);
        let mut found = findings(&judged.verified.refused).into_iter();
        let first = found.next().map(|(_, it)| format!("{} {}: {}", it.code, it.file, it.message));
        assert!(found.next().is_none());
        first
    }

    /// Returns whether git itself takes the signature of the head for good.
    fn git_agrees(&self, with: &[&str]) -> bool {
        let allowed =
            format!("gpg.ssh.allowedSignersFile={}", self.path("signers/allowed_signers").display());
        let args = [&["-C", "repo", "-c", &allowed], with, &["verify-commit", "HEAD"]].concat();
        self.try_run("git", &args, &[]).0
    }
}

fn said(refusal: Option<String>, words: &str) {
    let text = refusal.expect("refused");
    assert!(text.starts_with("HM-R004 ") && text.contains(words), "{text}");
}

#[test]
fn keys_of_every_kind_sign_for_ssh() {
    let Some(bench) = Bench::new(&["git", "ssh-keygen"]) else { return };
    let mut line = bench.begin(&bench.head());
    for (name, kind) in [
        ("ed25519", &["-t", "ed25519"][..]),
        ("p256", &["-t", "ecdsa", "-b", "256"]),
        ("p384", &["-t", "ecdsa", "-b", "384"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
    ] {
        let public = bench.key(name, kind);
        bench.write(&format!("repo/{SQL}"), &format!("SELECT '{name}'\n"));
        let commit = bench.commit(name, Some(name));
        said(bench.refusal(&line), "a key that nobody known has (SHA256:");
        assert!(!bench.git_agrees(&[]), "{name}");
        bench.allow(&format!("mara@example.com {public}"));
        assert_eq!(bench.refusal(&line), None, "{name}");
        assert!(bench.git_agrees(&[]), "{name}");
        let judged = bench.judge(Some(&line));
        assert_eq!(judged.verified.signer.as_deref(), Some("mara@example.com"));
        assert_eq!(judged.line.as_ref().map(|line| line.at.as_str()), Some(commit.as_str()));
        line = judged.line.unwrap();
    }
    // What cannot be verified is refused when it is pinned, and not found out when it signs.
    let public = bench.key("p521", &["-t", "ecdsa", "-b", "521"]);
    bench.allow(&format!("mara@example.com {public}"));
    let error = Trust::open(&bench.path("signers")).unwrap_err().to_string();
    assert!(
        error.starts_with("HM-R006 allowed_signers: mara@example.com: keys of type ecdsa-sha2-nistp521"),
        "{error}"
    );
}

#[test]
fn every_way_not_to_be_signed_is_told_apart() {
    let Some(bench) = Bench::new(&["git", "ssh-keygen"]) else { return };
    let base = bench.head();
    let line = bench.begin(&base);
    for name in ["mara", "eve", "old", "lost", "files"] {
        let public = bench.key(name, &["-t", "ed25519"]);
        match name {
            "old" => bench.allow(&format!("mara@example.com valid-before=\"20261101Z\" {public}")),
            "files" => bench.allow(&format!("mara@example.com namespaces=\"file\" {public}")),
            "eve" => bench.allow(&format!("eve@example.com {public}")),
            _ => bench.allow(&format!("mara@example.com {public}")),
        }
        if name == "lost" {
            bench.write("signers/revoked_keys", &format!("{public}\n"));
        }
    }
    let revoked = format!("gpg.ssh.revocationFile={}", bench.path("signers/revoked_keys").display());
    let attempt = |key: Option<&str>| {
        bench.git(&["reset", "-q", "--hard", base.as_str()]);
        bench.write(&format!("repo/{SQL}"), "SELECT 1\n");
        bench.commit("Change it", key);
        (bench.refusal(&line), bench.git_agrees(&["-c", &revoked]))
    };
    assert_eq!(attempt(Some("mara")), (None, true));
    for (key, words) in [
        (None, "commit 000 by Mara changes it, and is not signed"),
        (Some("old"), "is signed with a key that is not valid now (SHA256:"),
        (Some("lost"), "is signed with a revoked key (SHA256:"),
        (Some("files"), "which is not for git"),
    ] {
        let (refusal, git) = attempt(key);
        let words = words.replace("000", &bench.head().as_str()[..12]);
        said(refusal, &words);
        assert!(!git, "{key:?}");
    }
    // The right key, the wrong path: git knows no paths.
    let (refusal, git) = attempt(Some("eve"));
    said(refusal, "is signed by eve@example.com, who may not");
    assert!(git);
    // A committer's date within the validity of a key that has run out: git believes it.
    bench.git(&["reset", "-q", "--hard", base.as_str()]);
    bench.write(&format!("repo/{SQL}"), "SELECT 1\n");
    bench.git(&["add", "-A"]);
    let sign = format!("-S{}", bench.path("old").display());
    let forged =
        [("GIT_COMMITTER_DATE", "2026-10-01T00:00:00Z"), ("GIT_AUTHOR_DATE", "2026-10-01T00:00:00Z")];
    bench.run("git", &["-C", "repo", "commit", "-q", "-m", "As if it were October", &sign], &forged);
    said(bench.refusal(&line), "not valid now");
    assert!(bench.git_agrees(&[]));
    // A signature for something else, put into a commit; and one that is moved to another commit.
    let raw = bench.git(&["cat-file", "commit", "HEAD"]);
    let payload: String = {
        let mut kept = String::new();
        let mut inside = false;
        for text in raw.lines() {
            inside = text.starts_with("gpgsig ") || (inside && text.starts_with(' '));
            if !inside {
                kept.push_str(text);
                kept.push('\n');
            }
        }
        kept
    };
    let forge = |namespace: &str, signed: &str| {
        bench.write("payload", signed);
        let _ = std::fs::remove_file(bench.path("payload.sig"));
        bench.run("ssh-keygen", &["-q", "-Y", "sign", "-n", namespace, "-f", "mara", "payload"], &[]);
        let made = std::fs::read_to_string(bench.path("payload.sig")).unwrap();
        let repo = git2::Repository::open(bench.path("repo")).unwrap();
        let id = repo.commit_signed(&payload, &made, None).unwrap();
        repo.reference("refs/heads/main", id, true, "forged").unwrap();
    };
    forge("git", &payload);
    assert_eq!(bench.refusal(&line), None, "so it is made right");
    assert!(bench.git_agrees(&[]));
    forge("file", &payload);
    said(bench.refusal(&line), "has a signature made for `file`, not for git");
    assert!(!bench.git_agrees(&[]));
    forge("git", &payload.replace("October", "November"));
    said(bench.refusal(&line), "has a wrong signature (key SHA256:");
    assert!(!bench.git_agrees(&[]));
    for (broken, words) in [
        (
            "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----",
            "cannot be read (it is no SSH signature)",
        ),
        (
            "-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----",
            "cannot be read (it is cut off, or no OpenPGP)",
        ),
        ("-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----", "neither of SSH nor of OpenPGP"),
    ] {
        let repo = git2::Repository::open(bench.path("repo")).unwrap();
        let id = repo.commit_signed(&payload, broken, None).unwrap();
        repo.reference("refs/heads/main", id, true, "forged").unwrap();
        said(bench.refusal(&line), words);
    }
}

#[test]
fn merges_hide_nothing_and_history_only_goes_forward() {
    let Some(bench) = Bench::new(&["git", "ssh-keygen"]) else { return };
    let base = bench.head();
    let line = bench.begin(&base);
    let public = bench.key("mara", &["-t", "ed25519"]);
    bench.allow(&format!("mara@example.com {public}"));
    // An unsigned commit on a branch, hidden behind a signed one and a signed merge.
    bench.git(&["checkout", "-q", "-b", "side"]);
    bench.write("repo/domains/shop/orders/evil.sql", "SELECT 1\n");
    let evil = bench.commit("Sneak in", None);
    bench.write("repo/domains/shop/orders/good.sql", "SELECT 1\n");
    bench.commit("Look innocent", Some("mara"));
    bench.git(&["checkout", "-q", "main"]);
    bench.write(&format!("repo/{SQL}"), "SELECT 1\n");
    bench.commit("Go on", Some("mara"));
    let sign = format!("-S{}", bench.path("mara").display());
    bench.git(&["merge", "-q", "--no-ff", &sign, "-m", "Merge it", "side"]);
    said(bench.refusal(&line), &format!("evil.sql: commit {}", &evil.as_str()[..12]));
    let partly = bench.judge(Some(&line));
    assert!(partly.verified.moved, "the rest is accepted");
    // Vouched for by name, in a commit that changes nothing.
    let before = partly.line.unwrap();
    bench.commit(&format!("Vouch\n\nVouches-for: {evil}"), None);
    assert!(bench.refusal(&before).is_some(), "anybody can write that");
    bench.commit(&format!("Vouch\n\nVouches-for: {evil}"), Some("mara"));
    assert_eq!(bench.refusal(&before), None);
    assert_eq!(bench.refusal(&line), None, "also in one go");
    let accepted = bench.judge(Some(&before)).line.unwrap();
    let head = bench.head();

    // An unsigned merge that brings back what an accepted commit had replaced.
    bench.git(&["checkout", "-q", "-b", "back", base.as_str()]);
    bench.git(&["merge", "-q", "-s", "ours", "--no-gpg-sign", "-m", "Nothing to see", "main"]);
    assert_eq!(std::fs::read_to_string(bench.path(&format!("repo/{SQL}"))).unwrap(), "SELECT 0\n");
    said(bench.refusal(&accepted), "is not signed");
    // A forced push back to a commit that is signed and old.
    bench.git(&["reset", "-q", "--hard", base.as_str()]);
    let held = bench.judge(Some(&accepted)).held.expect("held");
    assert!(held.starts_with("the branch no longer holds"), "{held}");
    // The operator may say otherwise.
    bench.write("signers/signers.yaml", &format!("{RULES_TEXT}since: {base}\n"));
    assert!(bench.judge(Some(&accepted)).held.is_some(), "`since` lies behind what was accepted");
    let other = bench.commit("Another line", None);
    bench.write("signers/signers.yaml", &format!("{RULES_TEXT}since: {other}\n"));
    assert_eq!(bench.judge(Some(&accepted)).held, None);
    // Where nothing was accepted yet, everything is judged, from the first commit on.
    bench.write("signers/signers.yaml", RULES_TEXT);
    bench.git(&["reset", "-q", "--hard", head.as_str()]);
    let first = bench.judge(None);
    assert!(first.verified.refused.contains_key("mesh.yaml"), "{first:?}");
    assert!(!first.verified.refused.contains_key("README.md"));
}

#[test]
fn nobody_lets_himself_in_and_what_was_accepted_stands_in() {
    let Some(bench) = Bench::new(&["git", "ssh-keygen"]) else { return };
    let line = bench.begin(&bench.head());
    for name in ["mara", "jan"] {
        let public = bench.key(name, &["-t", "ed25519"]);
        bench.allow(&format!("{name}@example.com {public}"));
    }
    let own = "repo/domains/shop/domain.yaml";
    bench.write(own, "kind: Domain\nsigners: [jan@example.com]\n");
    bench.commit("Let me in", Some("jan"));
    said(bench.refusal(&line), "domain.yaml: commit");
    let snapshot = || {
        let mut snapshot = bench.repository().snapshot(&bench.head()).unwrap();
        restore(&mut snapshot, &bench.judge(Some(&line)).verified.refused);
        snapshot
    };
    assert_eq!(snapshot().read("domains/shop/domain.yaml").unwrap(), b"kind: Domain\n");
    // What is deleted without a signature stands there again, and what is new is gone.
    std::fs::remove_file(bench.path("repo/domains/risk/scores/scores.sql")).unwrap();
    bench.write("repo/domains/risk/scores/new.sql", "SELECT 1\n");
    bench.commit("Clean up", None);
    assert_eq!(snapshot().read("domains/risk/scores/scores.sql").unwrap(), b"SELECT 0\n");
    assert!(!snapshot().files.contains_key("domains/risk/scores/new.sql"));

    bench.git(&["reset", "-q", "--hard", &line.at]);
    bench.write(own, "kind: Domain\nsigners: [jan@example.com]\n");
    bench.commit("Let Jan in", Some("mara"));
    let accepted = bench.judge(Some(&line)).line.unwrap();
    bench.write(&format!("repo/{SQL}"), "SELECT 2\n");
    bench.commit("Change it", Some("jan"));
    assert_eq!(bench.refusal(&accepted), None, "he was let in by the commit before");
    said(bench.refusal(&line), &format!("{SQL}: commit"));
    // The operator can keep that from happening.
    bench.write("signers/signers.yaml", &format!("{RULES_TEXT}domain_signers: false\n"));
    said(bench.refusal(&accepted), "is signed by jan@example.com, who may not");
}

#[test]
fn a_folder_that_is_there_twice_hides_nothing() {
    let Some(bench) = Bench::new(&["git", "ssh-keygen"]) else { return };
    let line = bench.begin(&bench.head());
    // Two folders `domains`: a reader may take either.
    let repo = git2::Repository::open(bench.path("repo")).unwrap();
    let head = repo.find_commit(git2::Oid::from_str(&line.at).unwrap()).unwrap();
    let blob = repo.blob(b"SELECT 1\n").unwrap();
    let mut domains = repo.find_tree(head.tree().unwrap().get_name("domains").unwrap().id()).unwrap().id();
    let folder =
        |name: &[u8], mode: &str, id: git2::Oid| [mode.as_bytes(), b" ", name, b"\0", id.as_bytes()].concat();
    let write = |bytes: &[u8]| repo.odb().unwrap().write(git2::ObjectType::Tree, bytes).unwrap();
    let mut new = blob;
    for (name, mode) in [("x.sql", "100644"), ("evil", "40000"), ("shop", "40000")] {
        new = write(&folder(name.as_bytes(), mode, new));
    }
    let twice = write(&[folder(b"domains", "40000", new), folder(b"domains", "40000", domains)].concat());
    let who = git2::Signature::new("Eve", "eve@example.com", &git2::Time::new(1, 0)).unwrap();
    let tree = repo.find_tree(twice).unwrap();
    let id = repo.commit(None, &who, &who, "Twice", &tree, &[&head]).unwrap();
    repo.reference("refs/heads/main", id, true, "forged").unwrap();
    let held = bench.judge(Some(&line)).held.expect("held");
    assert!(held.starts_with("`domains` is not what it was"), "{held}");
    // One folder of a domain twice holds the domain.
    let shop = repo.find_tree(domains).unwrap().get_name("shop").unwrap().id();
    domains = write(&[folder(b"shop", "40000", new), folder(b"shop", "40000", shop)].concat());
    let tree = repo.find_tree(write(&folder(b"domains", "40000", domains))).unwrap();
    let id = repo.commit(None, &who, &who, "Twice", &tree, &[&head]).unwrap();
    repo.reference("refs/heads/main", id, true, "forged").unwrap();
    let refused = bench.judge(Some(&line)).verified.refused;
    assert!(refused.contains_key("domains/shop") && refused.contains_key(SQL), "{refused:?}");
}

#[test]
fn a_product_whose_folder_cannot_be_read_is_not_taken_away() {
    let Some(bench) = Bench::new(&["git"]) else { return };
    std::fs::remove_dir_all(bench.path("repo/domains/shop")).unwrap();
    std::os::unix::fs::symlink("/etc", bench.path("repo/domains/shop")).unwrap();
    bench.commit("A link in the place of a domain", None);
    let snapshot = bench.repository().snapshot(&bench.head()).unwrap();
    let print = PortPrint { data: String::new(), rows: String::new(), columns: BTreeMap::new(), cut: None };
    let deployed: BTreeMap<PortId, PortPrint> = ["shop/orders.orders", "shop/items.items", "shopping/a.a"]
        .map(|port| (port.parse().unwrap(), print.clone()))
        .into();
    let reading = crate::control::read(&snapshot, "c", &deployed);
    let broken: Vec<String> = reading.desired.broken.keys().map(ToString::to_string).collect();
    assert_eq!(broken, ["risk/scores", "shop/items", "shop/orders"], "one folder holds no product file");
}

#[test]
fn openpgp_signatures_are_those_that_gnupg_makes() {
    let Some(bench) = Bench::new(&["git", "ssh-keygen", "gpg"]) else { return };
    let base = bench.head();
    let line = bench.begin(&base);
    let gpg = |args: &[&str]| {
        bench.run(
            "gpg",
            &[&["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""], args].concat(),
            &[],
        )
    };
    let id = |mail: &str| -> String {
        let listed = gpg(&["--with-colons", "--list-keys", mail]);
        listed
            .lines()
            .find_map(|line| line.strip_prefix("fpr:::::::::"))
            .unwrap()
            .trim_end_matches(':')
            .to_owned()
    };
    let pin = |mail: &str| {
        let armoured = gpg(&["--export", "--armor", mail]);
        bench.write(&format!("signers/{mail}.asc"), &armoured);
    };
    let attempt = |key: &str| {
        bench.git(&["reset", "-q", "--hard", base.as_str()]);
        bench.write(&format!("repo/{SQL}"), "SELECT 1\n");
        bench.commit("Change it", Some(&format!("pgp:{key}")));
        bench.refusal(&line)
    };
    for (kind, mail) in [
        ("ed25519", "edwards@example.com"),
        ("rsa2048", "rivest@example.com"),
        ("nistp256", "nist@example.com"),
    ] {
        gpg(&["--quick-generate-key", &format!("Mara <{mail}>"), kind, "sign", "never"]);
        let key = id(mail);
        said(attempt(&key), &format!("a key that nobody known has ({key})"));
        pin(mail);
        bench.write("signers/signers.yaml", &RULES_TEXT.replace("mara@example.com", "'*@example.com'"));
        assert_eq!(attempt(&key), None, "{kind}");
        assert!(bench.git_agrees(&[]), "{kind}");
        assert_eq!(bench.judge(Some(&line)).verified.signer.as_deref(), Some(mail));
        bench.write("signers/signers.yaml", RULES_TEXT);
        said(attempt(&key), &format!("is signed by {mail}, who may not"));
    }
    // A subkey signs for its primary key.
    bench.write("signers/signers.yaml", &RULES_TEXT.replace("mara@example.com", "'*@example.com'"));
    gpg(&["--quick-generate-key", "Sub <sub@example.com>", "rsa2048", "cert", "never"]);
    let primary = id("sub@example.com");
    gpg(&["--quick-add-key", &primary, "ed25519", "sign", "never"]);
    pin("sub@example.com");
    assert_eq!(attempt(&primary), None);
    assert!(bench.git_agrees(&[]));
    // The same signature over another commit.
    let repo = git2::Repository::open(bench.path("repo")).unwrap();
    let head = git2::Oid::from_str(bench.head().as_str()).unwrap();
    let (made, payload) = repo.extract_signature(&head, None).unwrap();
    let payload = payload.as_str().unwrap().replace("Change it", "Change more");
    let moved = repo.commit_signed(&payload, made.as_str().unwrap(), None).unwrap();
    repo.reference("refs/heads/main", moved, true, "forged").unwrap();
    said(bench.refusal(&line), "has a wrong signature");
    assert!(!bench.git_agrees(&[]));
    // A key that ends before the commit is seen, and is good by git, which looks at its own clock.
    gpg(&["--quick-generate-key", "Old <old@example.com>", "ed25519", "sign", "seconds=100000000"]);
    let old = id("old@example.com");
    pin("old@example.com");
    attempt(&old);
    let trust = Trust::open(&bench.path("signers")).unwrap();
    let later =
        trust.judge(&bench.repository(), &bench.head(), Some(&line), NOW_MS + 2_000_000_000_000).unwrap();
    let (_, first) = findings(&later.verified.refused).remove(0);
    assert!(first.message.contains("is signed with a key that is not valid now"), "{first}");
    // A revoked one.
    let certificate =
        std::fs::read_to_string(bench.path(&format!("gnupg/openpgp-revocs.d/{primary}.rev"))).unwrap();
    bench.write("revoke.asc", &certificate.replace(":-----BEGIN", "-----BEGIN"));
    attempt(&primary);
    let signed = bench.head();
    gpg(&["--import", "revoke.asc"]);
    pin("sub@example.com");
    assert_eq!(bench.head(), signed);
    said(bench.refusal(&line), "is signed with a revoked key");
    assert!(!bench.git_agrees(&[]));
}

#[test]
fn a_folder_that_does_not_fit_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let open = |files: &[(&str, &str)]| {
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Trust::open(folder.path()).map(drop).map_err(|error| error.to_string())
    };
    let says = |opened: Result<(), String>, words: &str| {
        let error = opened.expect_err("refused");
        assert!(error.starts_with("HM-R006 ") && error.contains(words), "{error}");
    };
    says(Trust::open(Path::new("/nonexistent")).map(drop).map_err(|it| it.to_string()), "cannot be read");
    says(open(&[]), "signers.yaml: cannot be read");
    says(open(&[(RULES, "kind: Signers\n")]), "signers.yaml:1: `apiVersion` is missing");
    assert_eq!(open(&[(RULES, RULES_TEXT)]), Ok(()));
    says(open(&[(ALLOWED, "\n* cert-authority ssh-ed25519 AAAA\n")]), "allowed_signers:2: certificate");
    says(open(&[(ALLOWED, "a@b ssh-ed25519 AAAA\n")]), "it is no public key");
    says(open(&[(ALLOWED, ""), ("x.asc", "hello")]), "x.asc: it is not armoured");
    let armoured = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxsBN\n-----END PGP PUBLIC KEY BLOCK-----\n";
    says(open(&[("x.asc", armoured)]), "x.asc: it is cut off");
    std::fs::remove_file(folder.path().join("x.asc")).unwrap();
    says(open(&[(REVOKED, "SSHKRL\n")]), "revoked_keys:1");
}
