//! A repository, and controllers on it that are started, interrupted and looked at.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hydromesh::clock::Clock;
use hydromesh::lake::{Lake, TableFormat, TableState};
use hydromesh::repo::{CommitId, NewCommit, RepoWriter};
use hydromesh::stream::{ProduceTarget, TimestampFrom, TopicFolder, TopicOptions, produce};
use serde_json::Value;

use super::mesh::{self, Files};
use crate::support::{Ran, hydromesh, run_with, text};

/// Longest wait for something that takes seconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_mins(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// A bare repository with the mesh in it.
pub struct World {
    home: tempfile::TempDir,
    repo: RepoWriter,
    head: RefCell<Option<CommitId>>,
    pub now_ms: i64,
}

impl World {
    /// Makes a repository of the mesh; a step of its batches computes one chunk.
    pub fn new(chunk: &str) -> Self {
        Self::at(chunk, Clock::system().now_ms())
    }

    /// The same, with commits and messages of a given time: two such worlds are alike to the commit id.
    pub fn at(chunk: &str, now_ms: i64) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let repo = RepoWriter::init_bare(&home.path().join("repo.git")).expect("a repository");
        let world = Self { home, repo, head: RefCell::new(None), now_ms };
        world.commit("Start", &mesh::files(mesh::today(), chunk));
        world
    }

    /// Makes its tables Delta or Iceberg ones.
    pub fn with_format(self, format: &str) -> Self {
        self.with_setting("format: delta", &format!("format: {format}"))
    }

    /// Begins with a setting of its environment changed.
    pub fn with_setting(self, from: &str, to: &str) -> Self {
        self.set(from, to);
        self
    }

    /// Changes a setting of the environment as it was first; one that was changed before is as it was first again.
    pub fn set(&self, from: &str, to: &str) {
        let files = mesh::files(mesh::today(), "1d");
        let text = String::from_utf8(files["mesh.yaml"].clone().expect("text")).expect("UTF-8");
        assert!(text.contains(from), "{text}");
        let text = text.replace(from, to);
        self.commit("Change a setting", &[("mesh.yaml".to_owned(), Some(text.into_bytes()))].into());
    }

    /// Commits files on top of the branch, and returns the commit.
    pub fn commit(&self, message: &str, files: &Files) -> String {
        let parent = self.head.borrow().clone();
        let new = NewCommit {
            branch: "main",
            parent: parent.as_ref(),
            message,
            author: "Mara",
            email: "mara@example.com",
            time_ms: self.now_ms,
        };
        let id = self.repo.commit(new, files).expect("a commit");
        let text = id.as_str().to_owned();
        self.head.replace(Some(id));
        text
    }

    /// Commits files on a branch of its own, on top of its parent or else of the branch that is watched.
    pub fn branch(&self, branch: &str, parent: Option<&CommitId>, message: &str, files: &Files) -> CommitId {
        let head = self.head();
        let (author, email) = ("Mara", "mara@example.com");
        let parent = Some(parent.unwrap_or(&head));
        let new = NewCommit { branch, parent, message, author, email, time_ms: self.now_ms };
        self.repo.commit(new, files).expect("a commit")
    }

    /// Commits files on top of the branch with a signature that is made of the commit's text. The branch never is at an
    /// unsigned one.
    pub fn commit_signed(&self, message: &str, files: &Files, sign: impl Fn(&str) -> String) -> String {
        let parent = self.head();
        let (author, email) = ("Mara", "mara@example.com");
        let branch = format!("draft-{}", parent.short());
        let new = NewCommit {
            branch: &branch,
            parent: Some(&parent),
            message,
            author,
            email,
            time_ms: self.now_ms,
        };
        let draft = self.repo.commit(new, files).expect("a commit");
        let repo = git2::Repository::open_bare(self.repo.path()).expect("open");
        let oid = git2::Oid::from_str(draft.as_str()).expect("an id");
        let raw = repo.odb().and_then(|odb| odb.read(oid).map(|it| it.data().to_vec())).expect("the commit");
        let raw = String::from_utf8(raw).expect("UTF-8");
        let id = repo.commit_signed(&raw, &sign(&raw), None).expect("a signed commit");
        let id = CommitId::parse(&id.to_string()).expect("an id");
        self.repo.set_branch("main", &id).expect("moved");
        self.head.replace(Some(id.clone()));
        id.as_str().to_owned()
    }

    /// Returns where the branch is.
    pub fn head(&self) -> CommitId {
        self.head.borrow().clone().expect("there is a commit")
    }

    /// Returns the repository's path.
    pub fn repository(&self) -> PathBuf {
        self.repo.path().to_path_buf()
    }

    /// Returns a folder of the test's own.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.home.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// Returns an environment of its own: a state folder, and an address to listen on.
    pub fn state(&self, name: &str) -> State<'_> {
        let listen = free_address().to_string();
        State {
            world: self,
            folder: self.home.path().join(name),
            listen,
            repository: text(self.repo.path()).to_owned(),
            options: vec!["--poll".to_owned(), "0.5".to_owned()],
            variables: Vec::new(),
            running: None,
            beside: BTreeMap::new(),
        }
    }
}

/// One state folder and the processes that run on it. None outlives it.
pub struct State<'a> {
    world: &'a World,
    folder: PathBuf,
    listen: String,
    /// Where its processes find the repository.
    repository: String,
    /// Of every process, beside those that name repository, folder and address.
    options: Vec<String>,
    /// What every process finds in its environment.
    variables: Vec<(String, String)>,
    /// The process with the role control.
    running: Option<Child>,
    /// Others, by a name of the test's.
    beside: BTreeMap<String, Child>,
}

impl State<'_> {
    /// Sets options for every process; without it the repository is looked at twice a second.
    pub fn with(mut self, options: &[&str]) -> Self {
        self.options = options.iter().map(|&it| it.to_owned()).collect();
        self
    }

    /// Has every process look for the repository at an address.
    pub fn looking_at(mut self, address: &str) -> Self {
        address.clone_into(&mut self.repository);
        self
    }

    /// Gives every process a variable.
    pub fn knowing(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Has its tables and topics where another state has them.
    pub fn sharing(self, other: &Self) -> Self {
        std::fs::create_dir_all(&self.folder).expect("a folder");
        for shared in ["lake", "topics"] {
            let theirs = other.folder.join(shared);
            std::fs::create_dir_all(&theirs).expect("a folder");
            std::os::unix::fs::symlink(theirs, self.folder.join(shared)).expect("a link");
        }
        self
    }

    /// Starts a controller with every role.
    pub fn start(&mut self) {
        self.start_as("control,work,stream,serve");
    }

    /// Starts a controller with these roles.
    pub fn start_as(&mut self, roles: &str) {
        assert!(self.running.is_none(), "one runs already");
        self.running = Some(self.spawn(roles));
    }

    /// Starts a process beside the controller, named after its role.
    pub fn start_beside(&mut self, role: &str) {
        self.start_beside_as(role, role);
    }

    /// Starts a process beside the controller.
    pub fn start_beside_as(&mut self, name: &str, roles: &str) {
        let child = self.spawn(roles);
        assert!(self.beside.insert(name.to_owned(), child).is_none(), "{name} runs already");
    }

    /// Starts a controller with every role and one more variable in its environment.
    pub fn start_with(&mut self, variable: &str, value: &str) {
        assert!(self.running.is_none(), "one runs already");
        let mut command = self.command("control,work,stream,serve");
        self.running = Some(command.env(variable, value).spawn().expect("starts"));
    }

    fn spawn(&self, roles: &str) -> Child {
        self.command(roles).spawn().expect("starts")
    }

    fn command(&self, roles: &str) -> std::process::Command {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).expect("a log");
        let mut command = hydromesh();
        command.args(self.up()).args(["--role", roles]).stdout(Stdio::null()).stderr(log);
        command.envs(self.variables.iter().cloned());
        command
    }

    /// Ends a process beside the controller as a power cut would.
    #[track_caller]
    pub fn kill_beside(&mut self, name: &str) {
        let mut child = self.beside.remove(name).expect("it runs");
        assert!(child.try_wait().expect("asked").is_none(), "{name} ended by itself\n{}", self.told());
        child.kill().expect("killed");
        child.wait().expect("gone");
    }

    /// Asks a process beside the controller to end, and returns how it ended.
    #[track_caller]
    pub fn end_beside(&mut self, name: &str) -> ExitStatus {
        self.signal_beside(name, "TERM");
        self.beside.remove(name).expect("it runs").wait().expect("ends")
    }

    /// Sends a signal to a process beside the controller.
    #[track_caller]
    pub fn signal_beside(&self, name: &str, signal: &str) {
        send(self.beside[name].id(), signal);
    }

    /// Returns whether some worker has a step in its hands.
    pub fn is_a_step_taken(&self) -> bool {
        let board = self.folder.join("board");
        folders(&board).iter().any(|epoch| {
            let taken = std::fs::read_dir(board.join(epoch).join("taken"));
            taken.is_ok_and(|mut steps| steps.next().is_some())
        })
    }

    /// Returns the state folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the id of the controller's process.
    #[track_caller]
    pub fn process(&self) -> u32 {
        self.running.as_ref().expect("one runs").id()
    }

    /// Starts a controller that ends by itself, and returns its exit code.
    #[track_caller]
    pub fn start_refused(&mut self) -> Option<i32> {
        self.start();
        let began = Instant::now();
        loop {
            if let Some(ended) = self.ended() {
                return ended.code();
            }
            assert!(began.elapsed() < PATIENCE, "it did not end\n{}", self.told());
            std::thread::sleep(PAUSE);
        }
    }

    /// Returns the address of whoever serves.
    pub fn listen(&self) -> &str {
        &self.listen
    }

    /// Returns whether the controller says that it is ready, else what it says: it may not listen yet, or end before it answers.
    pub fn is_ready(&self) -> Result<(), String> {
        let ask = || -> std::io::Result<String> {
            let mut connection = TcpStream::connect(&self.listen)?;
            connection.set_read_timeout(Some(Duration::from_secs(1)))?;
            write!(connection, "GET /readyz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.listen)?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|error| error.to_string())?;
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
    }

    /// Returns the whole answer to a request, head and body.
    pub fn get(&self, path: &str) -> String {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", self.listen), "")
    }

    /// Returns the whole answer to a POST of JSON with further headers.
    pub fn post(&self, path: &str, headers: &str, body: &str) -> String {
        let kind = "Content-Type: application/json";
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{kind}\r\nContent-Length: {length}\r\n{headers}",
            self.listen
        );
        self.request(&head, body)
    }

    fn request(&self, head: &str, body: &str) -> String {
        let mut connection = TcpStream::connect(&self.listen).expect("somebody listens");
        write!(connection, "{head}Connection: close\r\n\r\n{body}").expect("sent");
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Returns the subjects of all mails, in order of the alphabet.
    pub fn mails(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.folder.join("mail")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mails = paths.filter(|path| path.extension().is_some_and(|it| it == "eml"));
        let subject = |path: PathBuf| {
            let mail =
                std::fs::read_to_string(path).expect("a mail").replace("\r\n", "\n").replace("\n ", " ");
            mail.lines().find(|line| line.starts_with("Subject:")).unwrap_or_default().to_owned()
        };
        let mut subjects: Vec<String> = mails.map(subject).collect();
        subjects.sort();
        subjects
    }

    /// Starts a verb on this folder that works by itself.
    pub fn spawn_verb(&self, args: &[&str]) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).expect("a log");
        let mut command = hydromesh();
        command.args(args).args(["--state", text(&self.folder)]);
        command.envs(self.variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("starts")
    }

    /// Returns the arguments of a controller on this folder.
    pub fn up(&self) -> Vec<String> {
        let (repo, listen) = (self.repository.as_str(), self.listen.as_str());
        let args = ["up", "--repo", repo, "--state", text(&self.folder), "--listen", listen];
        args.map(str::to_owned).into_iter().chain(self.options.iter().cloned()).collect()
    }

    /// Ends the controller as a power cut would.
    #[track_caller]
    pub fn kill(&mut self) {
        self.alive();
        let mut child = self.running.take().expect("one runs");
        child.kill().expect("killed");
        assert_eq!(
            child.wait().expect("gone").code(),
            None,
            "it was killed, it did not end\n{}",
            self.told()
        );
    }

    /// Sends a signal to the controller.
    #[track_caller]
    pub fn signal(&self, signal: &str) {
        send(self.running.as_ref().expect("one runs").id(), signal);
    }

    /// Asks the controller to end as an operating system does, and returns how it ended and how long that took.
    pub fn end(&mut self) -> (ExitStatus, Duration) {
        let mut child = self.running.take().expect("one runs");
        let began = Instant::now();
        send(child.id(), "TERM");
        (child.wait().expect("ends"), began.elapsed())
    }

    /// Returns how the controller ended by itself, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let ended = self.running.as_mut().expect("one runs").try_wait().expect("asked");
        if ended.is_some() {
            self.running = None;
        }
        ended
    }

    /// Deletes the folder of a state that is no longer looked at.
    pub fn remove(self) {
        std::fs::remove_dir_all(&self.folder).expect("removed");
    }

    /// Fails when the controller has ended by itself.
    #[track_caller]
    pub fn alive(&mut self) {
        let ended = self.running.as_mut().and_then(|child| child.try_wait().expect("asked"));
        assert!(ended.is_none(), "the controller ended by itself: {ended:?}\n{}", self.told());
    }

    /// Waits until a question is answered with something.
    #[track_caller]
    pub fn wait<T>(&mut self, what: &str, mut ask: impl FnMut(&Self) -> Result<T, String>) -> T {
        let began = Instant::now();
        loop {
            self.alive();
            match ask(self) {
                Ok(answer) => return answer,
                Err(why) => {
                    assert!(began.elapsed() < PATIENCE, "{what} never came: {why}\n{}", self.told());
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until a commit is concluded, and returns its outcome.
    #[track_caller]
    pub fn outcome(&mut self, commit: &str) -> String {
        self.wait(commit, |state| {
            let status = state.json(&["status"])?;
            let found = (status["commit"]["commit"] == commit).then(|| status["commit"]["outcome"].as_str());
            found.flatten().map(str::to_owned).ok_or_else(|| status.to_string())
        })
    }

    /// Asks the binary something about this folder.
    pub fn ask(&self, args: &[&str]) -> Ran {
        let mut all = args.to_vec();
        all.extend(["--state", text(&self.folder)]);
        run_with(&self.variables, &all)
    }

    /// Returns the answer as JSON; none while there is no ledger yet.
    pub fn json(&self, args: &[&str]) -> Result<Value, String> {
        let mut all = args.to_vec();
        all.extend(["--format", "json"]);
        let ran = self.ask(&all);
        if ran.code == 0 { Ok(ran.json()) } else { Err(format!("{ran:?}")) }
    }

    /// Returns the plan of the newest commit.
    pub fn plan(&self) -> Result<Value, String> {
        self.json(&["plan", text(self.world.repo.path()), "--rev", "main"])
    }

    /// Waits until the newest commit is applied and nothing is due but to follow topics.
    #[track_caller]
    pub fn settle(&mut self) {
        self.wait("a plan without changes and due work", Self::settled);
    }

    /// Returns whether the newest commit is applied and nothing is due but to follow topics, else what is.
    pub fn settled(&self) -> Result<(), String> {
        let plan = self.plan()?;
        let due = plan["due"].as_array().expect("due");
        let finite = due.iter().any(|it| !it["step"].as_str().expect("a step").ends_with("@follow"));
        // What waits, such as for the next attempt of a step whose worker is gone, is not over either.
        let quiet = ["changes", "broken", "waiting"].iter().all(|it| plan[it] == serde_json::json!([]));
        // Before the first commit is seen nothing is deployed and nothing due.
        let status = self.json(&["status"])?;
        if quiet && !finite && status["commit"]["outcome"] == "applied" {
            Ok(())
        } else {
            Err(format!("{plan:#}\n{status:#}"))
        }
    }

    /// Appends messages to the topic `events`, all with one time of arrival.
    pub fn produce(&self, lines: &[String]) {
        let path = self.folder.join("topics").join("events");
        std::fs::create_dir_all(path.parent().expect("inside")).expect("a folder");
        TopicFolder::open_or_create(&path, &TopicOptions::default()).expect("a topic");
        let lines = lines.iter().cloned().map(Ok::<String, std::io::Error>);
        let at = TimestampFrom::Given(self.world.now_ms);
        let produced =
            wait_for(produce(&ProduceTarget::TopicFolder(path), lines, None, at)).expect("produced");
        assert!(produced.messages > 0);
    }

    /// Returns the version and rows of a table; nothing while it is not there.
    #[track_caller]
    pub fn table(&self, address: &str) -> (i64, u64) {
        wait_for(async {
            let lake = Lake::open(self.folder.join("lake")).await.expect("a lake");
            let table = lake.table(address, self.format_of(address)).expect("an address");
            match table.state().await.unwrap_or_else(|error| panic!("{address} cannot be read: {error:?}")) {
                TableState::Absent => (-1, 0),
                TableState::Known(known) => (known.version.0, known.rows),
            }
        })
    }

    /// Returns a hash of a table's rows, or why it cannot be read now.
    pub fn hash(&self, address: &str) -> Result<String, String> {
        wait_for(async {
            let lake = Lake::open(self.folder.join("lake")).await.expect("a lake");
            let table = lake.table(address, self.format_of(address)).expect("an address");
            table.content_hash(None, &[]).await.map_err(|error| format!("{error:?}"))
        })
    }

    /// Loses everything but the lake and the topics.
    pub fn lose_all_but_data(&self) {
        assert!(self.running.is_none(), "it runs");
        for entry in std::fs::read_dir(&self.folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                std::fs::remove_file(path).expect("removed");
            } else if !path.ends_with("lake") && !path.ends_with("topics") {
                std::fs::remove_dir_all(path).expect("removed");
            }
        }
    }

    /// Returns how often steps of a product ended well.
    pub fn runs_of(&self, product: &str) -> usize {
        let runs = self.json(&["runs", product, "--limit", "1000"]).expect("runs");
        let ended = runs["runs"].as_array().expect("runs").iter();
        ended.filter(|run| run["state"] == "succeeded").count()
    }

    fn format_of(&self, address: &str) -> TableFormat {
        let iceberg = self.table_folder(address).join("metadata").is_dir();
        if iceberg { TableFormat::Iceberg } else { TableFormat::Delta }
    }

    /// Returns the folder of a table.
    pub fn table_folder(&self, address: &str) -> PathBuf {
        self.folder.join("lake").join(address)
    }

    /// Returns a hash of the rows of every table in the lake, by its address.
    pub fn contents(&self) -> BTreeMap<String, String> {
        wait_for(async {
            let lake = Lake::open(self.folder.join("lake")).await.expect("a lake");
            let mut hashes = BTreeMap::new();
            // The ledger's copy has a history of its own.
            for domain in folders(lake.root()).into_iter().filter(|domain| domain != "platform") {
                for port in folders(&lake.root().join(&domain)) {
                    if port.contains(".replaced-") {
                        continue;
                    }
                    let address = format!("{domain}/{port}");
                    let table = lake.table(&address, self.format_of(&address)).expect("an address");
                    hashes.insert(address, table.content_hash(None, &[]).await.expect("rows"));
                }
            }
            hashes
        })
    }

    /// Returns what the controllers said.
    pub fn told(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }
}

impl Drop for State<'_> {
    fn drop(&mut self) {
        for mut child in self.running.take().into_iter().chain(std::mem::take(&mut self.beside).into_values())
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn folders(parent: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(parent).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .filter(|entry| entry.file_type().expect("a type").is_dir())
        .map(|entry| entry.file_name().into_string().expect("UTF-8"))
        .collect()
}

/// Sends a signal, as an operating system does.
#[track_caller]
fn send(process: u32, signal: &str) {
    let asked = std::process::Command::new("sh").args(["-c", &format!("kill -{signal} {process}")]).status();
    assert!(asked.expect("a shell").success());
}

/// Returns an address nobody listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port")
}

pub fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}
