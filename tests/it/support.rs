//! Runs the binary with a cleared environment, and makes repositories without a git program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Returns the root of the project.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the example mesh.
pub fn example() -> PathBuf {
    root().join("mesh-repo-example")
}

/// Returns a command of the binary that knows nothing of this machine: no variables, a home of its own.
pub fn hydromesh() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hydromesh"));
    command.env_clear().current_dir(root());
    command
}

/// How a run of the binary ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the binary prints UTF-8");
        Self {
            code: output.status.code().expect("ended by itself"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Returns stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }

    /// Asserts that a stream holds a text.
    #[track_caller]
    pub fn says(&self, text: &str) {
        let found = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(found, "lacks `{text}`\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
    }
}

/// Runs the binary in the project's root.
pub fn run(args: &[&str]) -> Ran {
    Ran::of(hydromesh().args(args).output().expect("the binary starts"))
}

/// Runs the binary in the project's root, with variables in its environment.
pub fn run_with(variables: &[(String, String)], args: &[&str]) -> Ran {
    Ran::of(hydromesh().envs(variables.iter().cloned()).args(args).output().expect("the binary starts"))
}

/// Runs the binary in a folder.
pub fn run_in(folder: &Path, args: &[&str]) -> Ran {
    Ran::of(hydromesh().current_dir(folder).args(args).output().expect("the binary starts"))
}

/// Returns a path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Replaces a part of a file that must be there.
#[track_caller]
pub fn edit(file: &Path, from: &str, to: &str) {
    let old = std::fs::read_to_string(file).expect("read");
    assert!(old.contains(from), "{} lacks `{from}`", file.display());
    std::fs::write(file, old.replacen(from, to, 1)).expect("written");
}

/// Returns the codes of the errors of a `check --format json`, sorted.
pub fn errors(findings: &Value) -> Vec<String> {
    let all = findings["findings"].as_array().expect("findings");
    let mut codes: Vec<String> = all
        .iter()
        .filter(|it| it["severity"] == "error")
        .map(|it| it["code"].as_str().expect("a code").to_owned())
        .collect();
    codes.sort();
    codes
}

/// A repository with a work tree, committed to through the git library.
pub struct Repo {
    pub folder: PathBuf,
}

impl Repo {
    /// Makes a repository around the files of a folder and commits them to `main`.
    pub fn around(folder: &Path) -> Self {
        let mut options = git2::RepositoryInitOptions::new();
        git2::Repository::init_opts(folder, options.initial_head("main")).expect("a repository");
        let repo = Self { folder: folder.to_owned() };
        repo.commit("the first commit");
        repo
    }

    /// Commits everything as it lies there and returns the id; symbolic links stay links.
    pub fn commit(&self, message: &str) -> String {
        let repo = git2::Repository::open(&self.folder).expect("open");
        let mut index = repo.index().expect("an index");
        index.add_all(["*"], git2::IndexAddOption::DEFAULT, None).expect("added");
        index.update_all(["*"], None).expect("removed what is gone");
        index.write().expect("written");
        let tree = repo.find_tree(index.write_tree().expect("a tree")).expect("found");
        let who = git2::Signature::new("Mara", "mara@example.com", &git2::Time::new(1_790_000_000, 0))
            .expect("a name");
        let parents: Vec<git2::Commit<'_>> =
            repo.head().ok().and_then(|head| head.peel_to_commit().ok()).into_iter().collect();
        let parents: Vec<&git2::Commit<'_>> = parents.iter().collect();
        repo.commit(Some("HEAD"), &who, &who, message, &tree, &parents).expect("a commit").to_string()
    }
}
