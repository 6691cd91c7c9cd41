//! A git server that sends a byte now and then for ever: what is deployed goes on, and the controller can be asked and ended.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::mesh;
use super::world::World;
use super::{EVENTS, Messages};
use crate::support::text;

/// How a list of references begins.
const ADVERTISEMENT: &[u8] = b"001e# service=git-upload-pack\n0000";

/// A repository over HTTP, as git serves it, until it is told to trickle.
struct Server {
    repository: PathBuf,
    trickles: AtomicBool,
    /// Bytes sent one at a time.
    bytes: AtomicU64,
}

impl Server {
    fn start(repository: PathBuf) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server =
            Arc::new(Self { repository, trickles: AtomicBool::new(false), bytes: AtomicU64::new(0) });
        let serving = server.clone();
        let serve = move || {
            for connection in listener.incoming() {
                let (serving, connection) = (serving.clone(), connection.expect("a connection"));
                // Whoever hangs up has heard enough.
                thread("git-answer", move || _ = serving.answer(connection));
            }
        };
        thread("git-server", serve);
        (server, format!("http://{address}/mesh.git"))
    }

    fn answer(&self, mut connection: TcpStream) -> std::io::Result<()> {
        let (head, body) = request(&mut connection)?;
        let advertised = head.starts_with("GET ");
        let kind = if advertised { "advertisement" } else { "result" };
        let mut pack = if advertised { ADVERTISEMENT.to_vec() } else { Vec::new() };
        let trickles = self.trickles.load(Ordering::Relaxed);
        if !trickles {
            let options: &[&str] = if advertised { &["--advertise-refs"] } else { &[] };
            pack.extend(upload_pack(options, &self.repository, &body));
        }
        let length = if trickles { usize::MAX >> 16 } else { pack.len() };
        write!(
            connection,
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-{kind}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        )?;
        connection.write_all(&pack)?;
        if trickles { self.trickle(&mut connection) } else { Ok(()) }
    }

    /// Lists references that are never at an end.
    fn trickle(&self, connection: &mut TcpStream) -> std::io::Result<()> {
        for number in 0.. {
            let line = format!("{:040x} refs/heads/{number:06}\n", number + 1);
            let line = format!("{:04x}{line}", line.len() + 4);
            for byte in line.as_bytes() {
                connection.write_all(&[*byte])?;
                self.bytes.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).expect("a thread");
}

/// Reads a request to its end.
fn request(connection: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let (length, begins): (usize, _) =
                (length.map_or(0, |it| it.parse().expect("a number")), head.len() + 4);
            if read.len() >= begins + length {
                return Ok((head.to_owned(), read.split_off(begins)));
            }
        }
        let mut part = [0; 4096];
        match connection.read(&mut part)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            some => read.extend_from_slice(&part[..some]),
        }
    }
}

fn upload_pack(options: &[&str], repository: &Path, input: &[u8]) -> Vec<u8> {
    let mut git = Command::new("git");
    git.args(["upload-pack", "--stateless-rpc"]).args(options).arg(text(repository));
    let mut git = git.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("git is there");
    git.stdin.take().expect("piped").write_all(input).expect("it reads");
    git.wait_with_output().expect("it ends").stdout
}

#[test]
fn a_git_server_that_trickles_holds_up_looks_and_nothing_else() {
    let world = World::new("10d");
    let messages = Messages::new(world.now_ms);
    let (server, address) = Server::start(world.repository());
    let mut state = world.state("trickled").looking_at(&address);
    state.produce(messages.part(0));
    state.start();
    state.settle();

    server.trickles.store(true, Ordering::Relaxed);
    let unseen = world.commit("Add another reader", &mesh::reader("other"));
    let sent = || server.bytes.load(Ordering::Relaxed);
    state.wait("a look that does not end", |_| if sent() > 20 { Ok(()) } else { Err(sent().to_string()) });

    // Streams flow, commands are obeyed, questions are answered.
    let before = state.table(EVENTS).1;
    state.produce(&messages.lines[messages.part(0).len()..]);
    messages.wait_for_all(&mut state);
    assert!(state.table(EVENTS).1 > before);
    let runs = state.runs_of("shop/daily");
    let (first, _) = mesh::days(mesh::today());
    state.ask(&["backfill", "shop/daily", "--from", &first, "--to", &first, "--wait"]).ends_with(0);
    state.wait("a step that somebody asked for", |state| {
        let now = state.runs_of("shop/daily");
        if now > runs { Ok(()) } else { Err(format!("{now} runs")) }
    });
    state.wait("readiness", super::State::is_ready);
    state.ask(&["doctor"]).ends_with(0).says("1 topic can be read");
    let status = state.json(&["status"]).expect("a status");
    assert_ne!(status["commit"]["commit"], unseen.as_str(), "{status:#}");
    let heard = sent();
    state.wait("the same look", |_| if sent() > heard { Ok(()) } else { Err(sent().to_string()) });
    let (ended, took) = state.end();
    assert!(ended.code() == Some(0) && took < Duration::from_secs(30), "{took:?}\n{}", state.told());

    // Once the server is well, nothing was missed.
    server.trickles.store(false, Ordering::Relaxed);
    state.start();
    assert_eq!(state.outcome(&unseen), "applied");
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}
