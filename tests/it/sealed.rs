//! P12: reading, checking, planning and running open nothing but what they are about, call no other program and no other machine.
//!
//! Under strace, which sees every file that the process and its libraries ask for, with a repository that would like more.

use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Repo, copy, example, hydromesh, run, text};

/// What may be asked for beside repository and state folder: each for a reason that has nothing to do with the mesh.
const SYSTEM: [(&str, &str); 17] = [
    // The loader finds the C library and its kin.
    ("/etc/ld.so.cache", "loader"),
    ("/etc/ld.so.preload", "loader"),
    // The allocator asks how the machine hands out memory, the runtime where the main thread's stack is.
    ("/proc/sys/vm/overcommit_memory", "jemalloc"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "jemalloc"),
    ("/proc/self/maps", "standard library"),
    // How many cores there are: work is shared among them.
    ("/proc/self/cgroup", "cores"),
    ("/sys/fs/cgroup/", "cores"),
    ("/sys/devices/system/cpu/", "cores"),
    // libgit2 reads the machine's settings, and its TLS where it could be needed, whatever the transport.
    ("/etc/gitconfig", "libgit2"),
    ("/usr/lib/ssl/", "libgit2"),
    ("/etc/ssl/", "libgit2"),
    ("/dev/urandom", "libgit2"),
    // Whether the state folder is on a disk whose locks can be trusted.
    ("/proc/self/mountinfo", "state folder"),
    ("/proc/self/mounts", "state folder"),
    // Who holds the lease is named by machine and process.
    ("/proc/sys/kernel/hostname", "lease"),
    // The machine's time zone, which libraries look for whoever asks for the time.
    ("/etc/localtime", "libraries"),
    ("/usr/share/zoneinfo/", "libraries"),
];

/// Calls that open files, begin programs, or reach out.
const CALLS: &str = "trace=open,openat,openat2,creat,execve,execveat,connect,sendto,sendmsg";

/// What a process did.
#[derive(Debug, Default)]
struct Seen {
    files: BTreeSet<PathBuf>,
    programs: Vec<String>,
    connections: Vec<String>,
}

impl Seen {
    /// Reads what strace wrote with `-f -y`.
    fn of(trace: &str) -> Self {
        let mut seen = Self::default();
        for call in calls(trace) {
            match call.split('(').next().unwrap_or_default() {
                "execve" | "execveat" => seen.programs.push(call),
                // Answers to whoever looks at the site go over connections that others made.
                "connect" => seen.connections.push(call),
                "sendto" | "sendmsg" if call.contains("sa_family=") => seen.connections.push(call),
                "open" | "openat" | "openat2" | "creat" => {
                    // What was asked for, and, behind `= FD`, what came of it with every link followed.
                    seen.files.extend(asked(&call));
                    let result = call.rsplit_once(" = ").map(|(_, result)| result).unwrap_or_default();
                    if let Some((_, path)) = result.split_once('<') {
                        seen.files.insert(of_itself(Path::new(path.trim_end_matches('>'))));
                    }
                }
                _ => {}
            }
        }
        seen
    }

    /// Returns the files that are neither the system's nor below one of these folders.
    fn beyond(&self, allowed: &[&Path]) -> Vec<&PathBuf> {
        let is_system = |path: &Path| {
            let text = path.to_string_lossy();
            let library =
                ["/lib/", "/lib64/", "/usr/lib/", "/usr/local/lib/"].iter().any(|it| text.starts_with(it))
                    && text.contains(".so");
            library
                || SYSTEM.iter().any(|(it, _)| {
                    if it.ends_with('/') {
                        text.starts_with(it) || text == it.trim_end_matches('/')
                    } else {
                        text == *it
                    }
                })
        };
        // The folder above is opened, and nothing in it, to flush the name of one of ours that was made.
        let is_above = |folder: &Path, path: &Path| folder.parent() == Some(path);
        let is_ours =
            |path: &Path| allowed.iter().any(|folder| path.starts_with(folder) || is_above(folder, path));
        self.files.iter().filter(|path| !is_system(path) && !is_ours(path)).collect()
    }
}

/// Returns each call of a trace in one piece.
///
/// Where another process does something before a call ends, strace writes the call's beginning and its end on lines of their own.
fn calls(trace: &str) -> Vec<String> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let (process, call) = line.split_once(' ').unwrap_or(("", line));
        let call = call.trim_start();
        if let Some(beginning) = call.strip_suffix("<unfinished ...>") {
            begun.insert(process, beginning);
        } else if let Some((_, end)) = call.strip_prefix("<... ").and_then(|it| it.split_once(" resumed>")) {
            calls.push(begun.remove(process).unwrap_or_default().to_owned() + end);
        } else {
            calls.push(call.to_owned());
        }
    }
    // A process that was ended inside a call asked for it all the same.
    calls.extend(begun.into_values().map(str::to_owned));
    calls
}

#[test]
fn a_call_that_another_interrupts_is_read_as_one() {
    let trace = "7 execve(\"/proc/self/exe\", [\"hydromesh\"], 0x7f /* 0 vars */ <unfinished ...>\n\
                 8 openat(AT_FDCWD</here>, \"a\", O_RDONLY <unfinished ...>\n\
                 7 <... execve resumed>)             = 0\n\
                 9 openat(AT_FDCWD</here>, \"b\", O_RDONLY <unfinished ...>\n\
                 8 <... openat resumed>) = 5</there/a>\n\
                 10 connect(3, {sa_family=AF_UNIX} <unfinished ...>\n";
    let seen = Seen::of(trace);
    assert_eq!(seen.programs.len(), 1, "{seen:?}");
    assert!(seen.programs[0].starts_with("execve(\"/proc/self/exe\"") && seen.programs[0].ends_with("= 0"));
    let files: Vec<&str> = seen.files.iter().map(|it| text(it)).collect();
    assert_eq!(files, ["/here/a", "/here/b", "/there/a"]);
    assert_eq!(seen.connections.len(), 1);
}

/// Returns the path with `self` for the number of a process under `/proc`: the link leads each to itself.
fn of_itself(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    match text.strip_prefix("/proc/").and_then(|rest| rest.split_once('/')) {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            Path::new("/proc/self").join(rest)
        }
        _ => path.to_owned(),
    }
}

/// Returns the path that a call asks for, whole: `openat(29</some/folder>, "name", ..`.
fn asked(call: &str) -> Option<PathBuf> {
    let (head, rest) = call.split_once('"')?;
    let path = Path::new(rest.split('"').next()?);
    if path.is_absolute() {
        return Some(plain(path));
    }
    let (_, folder) = head.split_once('<')?;
    Some(plain(&Path::new(folder.split('>').next()?).join(path)))
}

/// Returns a path without steps back, which nobody may hide behind.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = plain.pop(),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Returns whether processes can be watched here.
fn can_watch() -> bool {
    let tried =
        Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let can = tried.is_ok_and(|it| it.success());
    if !can {
        eprintln!("strace is not here or may not watch: nothing is tried");
    }
    can
}

/// A repository whose files would like to be more than files, and a folder beside it that nobody may look into.
struct Tempting {
    home: tempfile::TempDir,
    git: PathBuf,
}

impl Tempting {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let secret = home.path().join("secret");
        std::fs::create_dir(&secret).expect("a folder");
        std::fs::write(secret.join("orders.csv"), "order_id\n1\n").expect("written");
        let program = home.path().join("secret/program");
        std::fs::write(&program, format!("#!/bin/sh\ntouch {}\n", text(&secret.join("ran"))))
            .expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).expect("made a program");
        let mesh = home.path().join("mesh");
        copy(&example(), &mesh);
        // A product whose files, query and folder lead elsewhere.
        let orders = mesh.join("domains/commerce/orders");
        std::os::unix::fs::symlink(secret.join("orders.csv"), orders.join("elsewhere.csv")).expect("a link");
        std::os::unix::fs::symlink(&secret, mesh.join("domains/commerce/linked")).expect("a link");
        let tempted = mesh.join("domains/commerce/tempted");
        std::fs::create_dir(&tempted).expect("a folder");
        for entry in std::fs::read_dir(&orders).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_file() {
                std::fs::copy(entry.path(), tempted.join(entry.file_name())).expect("copied");
            }
        }
        for entry in std::fs::read_dir(&tempted).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|it| it == "sql") {
                let sql = format!("SELECT * FROM '{}'\n", text(&secret.join("orders.csv")));
                std::fs::write(path, sql).expect("written");
            }
        }
        std::fs::write(mesh.join(".gitattributes"), "*.csv filter=tempting\n").expect("written");
        let modules = format!("[submodule \"more\"]\n\tpath = more\n\turl = {}\n", text(&secret));
        std::fs::write(mesh.join(".gitmodules"), modules).expect("written");
        let repo = Repo::around(&mesh);
        let git = mesh.join(".git");
        // Its owner's settings and hooks, which a git program would obey.
        let config = format!(
            "[filter \"tempting\"]\n\tsmudge = {0}\n\tclean = {0}\n[core]\n\tfsmonitor = {0}\n\tsshCommand = {0}\n",
            text(&program)
        );
        let before = std::fs::read_to_string(git.join("config")).expect("read");
        std::fs::write(git.join("config"), before + &config).expect("written");
        std::fs::create_dir_all(git.join("hooks")).expect("a folder");
        for hook in ["post-checkout", "post-merge", "reference-transaction", "pre-auto-gc", "upload-pack"] {
            std::fs::copy(&program, git.join("hooks").join(hook)).expect("copied");
        }
        std::fs::write(mesh.join("README.md"), "second\n").expect("written");
        repo.commit("the second commit");
        Self { home, git }
    }

    /// Returns a command under watch, and where its trace will be.
    fn watched(&self, name: &str, args: &[&str]) -> (Command, PathBuf) {
        let binary = hydromesh();
        let trace = self.home.path().join(format!("{name}.trace"));
        let mut command = Command::new("strace");
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        // The program itself is told nothing of this machine: no home, no path.
        command.args(["-f", "-y", "-qq", "-E", "PATH", "-e", CALLS, "-o", text(&trace)]);
        command.arg(binary.get_program()).args(args).current_dir(self.home.path().join("mesh"));
        (command, trace)
    }

    /// Asserts that a process looked at nothing but the repository's objects and these folders.
    #[track_caller]
    fn assert_sealed(&self, trace: &Path, allowed: &[&Path]) {
        let seen = Seen::of(&std::fs::read_to_string(trace).expect("a trace"));
        assert!(seen.files.len() > 5, "it was watched: {seen:?}");
        let beyond = seen.beyond(allowed);
        assert_eq!(beyond, Vec::<&PathBuf>::new(), "of {} files", seen.files.len());
        let (own, others) = seen.programs.split_first().expect("itself");
        // The gate's worker is the same program, told to be nothing else and knowing no variables.
        let worker = r#"execve("/proc/self/exe", ["hydromesh", "gate-worker", "--memory-mib", "512"], "#;
        assert!(others.iter().all(|it| it.starts_with(worker)), "none but {own}: {others:?}");
        assert_eq!(seen.connections, Vec::<String>::new());
        assert!(!self.home.path().join("secret/ran").exists(), "nothing of the repository is run");
    }
}

#[test]
fn checking_planning_and_comparing_open_the_repositorys_objects_and_nothing_else() {
    if !can_watch() {
        return;
    }
    let tempting = Tempting::new();
    let state = tempting.home.path().join("state");
    let cases: [(&str, &[&str], &[&Path]); 3] = [
        ("check", &["check", "--rev", "main"], &[]),
        ("plan", &["plan", "--rev", "main", "--state", text(&state)], &[&state]),
        ("diff", &["diff", "main~1..main"], &[]),
    ];
    for (name, args, more) in cases {
        let (mut command, trace) = tempting.watched(name, args);
        let output = command.output().expect("strace starts");
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{name}: {said}");
        if name == "check" {
            // What leads elsewhere is a finding, not a file.
            assert!(said.contains("commerce/tempted"), "{said}");
        }
        let allowed: Vec<&Path> = more.iter().copied().chain([tempting.git.as_path()]).collect();
        tempting.assert_sealed(&trace, &allowed);
    }
}

#[test]
fn a_controller_opens_the_repositorys_objects_and_its_state_folder_and_nothing_else() {
    if !can_watch() {
        return;
    }
    let tempting = Tempting::new();
    let state = tempting.home.path().join("state");
    let mesh = tempting.home.path().join("mesh");
    let listen = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|it| it.local_addr())
        .expect("a port")
        .to_string();
    let args = [
        "up",
        "--repo",
        text(&mesh),
        "--state",
        text(&state),
        "--listen",
        &listen,
        "--poll",
        "1",
        "--observe",
        "2",
    ];
    let (mut command, trace) = tempting.watched("up", &args);
    let log = std::fs::File::create(tempting.home.path().join("up.log")).expect("a log");
    let mut child = command.stdout(Stdio::null()).stderr(log).spawn().expect("strace starts");
    let told = || std::fs::read_to_string(tempting.home.path().join("up.log")).unwrap_or_default();
    let began = Instant::now();
    // Until something was read, decided, computed and published, and the tables were looked at.
    loop {
        let runs =
            hydromesh().args(["runs", "--format", "json", "--state", text(&state)]).output().expect("starts");
        let done = String::from_utf8_lossy(&runs.stdout).matches("\"succeeded\"").count();
        if done >= 3 {
            break;
        }
        assert!(child.try_wait().expect("asked").is_none(), "it ended by itself\n{}", told());
        assert!(began.elapsed() < Duration::from_mins(6), "nothing was computed\n{}", told());
        std::thread::sleep(Duration::from_millis(500));
    }
    std::thread::sleep(Duration::from_secs(5));
    // Each line begins with the process; the first is the controller.
    let first = std::fs::read_to_string(&trace).expect("a trace");
    let process = first.split_whitespace().next().expect("a line").to_owned();
    let asked = Command::new("sh").args(["-c", &format!("kill -TERM {process}")]).status().expect("a shell");
    assert!(asked.success());
    assert_eq!(child.wait().expect("ends").code(), Some(0), "{}", told());
    run(&["list", "--state", text(&state)]).ends_with(0).says("commerce/tempted");
    tempting.assert_sealed(&trace, &[&tempting.git, &state]);
}
