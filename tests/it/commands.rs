//! Programs of the repository: what they see of the machine, and what becomes of what they say.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Ran, hydromesh, text};

/// Returns a folder as a step makes it, with a file of the product and rows.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["product", "rows", "own"] {
        std::fs::create_dir(folder.path().join(part)).expect("a folder");
    }
    std::fs::write(folder.path().join("product/data.txt"), "of the product").expect("written");
    std::fs::write(folder.path().join("rows/rows.csv"), "id\n1\n").expect("written");
    folder
}

fn worker(folder: &Path, script: &str) -> Command {
    worker_with(folder, &[], script)
}

fn worker_with(folder: &Path, granted: &[&str], script: &str) -> Command {
    let mut command = hydromesh();
    command.args(["command-worker", "--folder", text(folder), "--memory-mib", "256"]).args(granted);
    command.args(["--", "/bin/sh", "-c", script]).env("PATH", "/usr/bin:/bin").env("SEEN", "yes");
    command
}

fn run(folder: &Path, script: &str) -> Ran {
    ran(worker(folder, script))
}

fn ran(mut worker: Command) -> Ran {
    let output = worker.output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        code: output.status.code().expect("ended"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Returns whether this system can confine a program; what cannot be done here is refused, and that is said.
fn can_confine() -> bool {
    let folder = folder();
    let ran = run(folder.path(), "true");
    if ran.code == 125 {
        assert!(ran.stderr.starts_with("hydromesh does not begin it: "), "{ran:?}");
        println!("skipped: {}", ran.stderr);
        return false;
    }
    assert_eq!(ran.code, 0, "{ran:?}");
    true
}

#[test]
fn a_program_sees_its_folder_and_what_programs_are_made_of() {
    if !can_confine() {
        return;
    }
    let folder = folder();
    let ran = run(
        folder.path(),
        "pwd; cat data.txt; echo; cat /work/rows/rows.csv; echo own > /work/own/file; cat /work/own/file",
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "/work/product\nof the product\nid\n1\nown\n"),
        "{ran:?}"
    );
    // Nothing of what is given is changed, whoever runs this and whatever the files' rights are.
    for change in [
        "echo x > data.txt",
        "echo x > /work/rows/rows.csv",
        "rm data.txt",
        "echo x > new.txt",
        "mkdir /work/rows/a",
    ] {
        let ran = run(folder.path(), change);
        assert_ne!(ran.code, 0, "{change}: {ran:?}");
    }
    assert_eq!(
        std::fs::read_to_string(folder.path().join("product/data.txt")).expect("there"),
        "of the product"
    );
    // The machine's own files are not there: neither secrets nor sockets nor other processes nor this repository.
    for path in [
        "/etc/shadow",
        "/root",
        "/home",
        "/run",
        "/var",
        "/tmp",
        "/proc/1",
        "/sys",
        env!("CARGO_MANIFEST_DIR"),
    ] {
        let ran = run(folder.path(), &format!("ls {path}"));
        assert_ne!(ran.code, 0, "{path} is there: {ran:?}");
    }
    // Nor is there a way to them.
    for way in
        ["mount -t tmpfs none /work/own", "chroot /work/own /bin/true", "ln /etc/passwd /work/own/passwd"]
    {
        let ran = run(folder.path(), way);
        assert_ne!(ran.code, 0, "{way}: {ran:?}");
    }
    let ran = run(folder.path(), "env | sort | grep -v -e '^_=' -e '^PWD=' -e '^SHLVL='");
    assert_eq!(ran.stdout, "PATH=/usr/bin:/bin\nSEEN=yes\n", "{ran:?}");
}

#[test]
fn a_program_has_no_network() {
    if !can_confine() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let folder = folder();
    let script = format!(
        "python3 -c \"import socket; socket.create_connection(('127.0.0.1', {}), 2)\" 2>&1 | tail -1; \
         python3 -c \"import socket; print([name for _, name in socket.if_nameindex()])\"",
        address.port()
    );
    let ran = run(folder.path(), &script);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].contains("unreachable") || lines[0].contains("refused"), "{ran:?}");
    assert_eq!(lines[1], "['lo']", "{ran:?}");
    listener.set_nonblocking(true).expect("set");
    assert!(listener.accept().is_err(), "nobody came");
}

#[test]
fn a_program_with_the_network_looks_up_names_and_sees_nothing_else_more() {
    if !can_confine() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let folder = folder();
    std::fs::create_dir(folder.path().join("model")).expect("a folder");
    std::fs::write(folder.path().join("model/weights"), "kept").expect("written");
    let run = |script: &str| ran(worker_with(folder.path(), &["--network"], script));
    let port = listener.local_addr().expect("an address").port();
    let connect = format!(
        "python3 -c \"import socket; print(socket.create_connection(('localhost', {port}), 5).getpeername()[1])\""
    );
    let connected = run(&connect);
    assert_eq!(connected.stdout.trim(), port.to_string(), "{connected:?}");
    listener.accept().expect("it came");
    // What is looked up is there with what it says on this machine, also where it is a link to somewhere else.
    for path in ["/etc/hosts", "/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt"] {
        let Ok(expected) = std::fs::read(path) else { continue };
        let seen = run(&format!("cat {path}"));
        assert!(seen.code == 0 && seen.stdout.as_bytes() == expected, "{path}: {}", seen.stderr);
    }
    for path in
        ["/etc/shadow", "/etc/ssl/private", "/root", "/run", "/var", "/proc/1", env!("CARGO_MANIFEST_DIR")]
    {
        let seen = run(&format!("ls {path}"));
        assert_ne!(seen.code, 0, "{path} is there: {seen:?}");
    }
    assert_eq!(run("cat /work/model/weights").stdout, "kept");
    for change in [
        "echo x > /work/model/weights",
        "rm /work/model/weights",
        "echo x > /work/model/new",
        "echo x > /etc/hosts",
    ] {
        let changed = run(change);
        assert_ne!(changed.code, 0, "{change}: {changed:?}");
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("model/weights")).expect("there"), "kept");
}

#[test]
fn a_program_ends_with_whoever_began_it_and_all_that_it_began() {
    if !can_confine() {
        return;
    }
    let folder = folder();
    // One that leaves its group and its parent, and would go on for ever.
    let script = "setsid sh -c 'while true; do date +%N > /work/own/beat; sleep 0.05; done' & sleep 600";
    let mut child = worker(folder.path(), script).spawn().expect("starts");
    let beat = folder.path().join("own/beat");
    let began = Instant::now();
    while !beat.exists() {
        assert!(began.elapsed() < Duration::from_mins(1), "it never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
    // The system takes the others away a moment later.
    std::thread::sleep(Duration::from_millis(500));
    let last = std::fs::read_to_string(&beat).expect("there");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(std::fs::read_to_string(&beat).expect("there"), last, "it goes on");

    let ran = run(folder.path(), "exit 7");
    assert_eq!(ran.code, 7);
    let ran = run(folder.path(), "kill -9 $$; sleep 1");
    assert!(
        ran.code == 137 || ran.code == 0,
        "the first of a world of processes cannot end itself by a signal: {ran:?}"
    );
    let ran = run(folder.path(), "python3 -c 'x = bytearray(600 << 20)'");
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("MemoryError"), "{ran:?}");
}
